"""Selections: which messages of a file a load takes, and into which tables.

Users select resources with dlt, and events with `archive(events=[...])`. What was not selected is loaded when it is
selected later, so `_audit` notes what was selected of each file.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

from ..catalog import DISCARDS, EVENT_TABLE_NAMES, EVENTS_RESOURCE, KINDS, LATEST, REJECTS, TRACKS


class MessageSelection(NamedTuple):
    """A set of messages, by their tables: those in `names`, or with `all_but` all others.

    The table of a track is its event's, `""` if the event's name gives none; that of any other message is the table of
    its type, such as `identifies`.
    Example: `MessageSelection(frozenset({"email_opened"}), all_but=False).has("email_opened")`.
    """

    names: frozenset[str] = frozenset()
    all_but: bool = True

    def has(self, table: str) -> bool:
        """Returns whether a message of this table is selected; `""` stands for an event without a table."""
        return (table in self.names) != self.all_but

    def renamed(self, shorten: Callable[[str], str]) -> "MessageSelection":
        """Returns the same messages by the names that `shorten` returns for their tables."""
        return MessageSelection(frozenset(map(shorten, self.names)), self.all_but)

    def covers(self, other: "MessageSelection") -> bool:
        """Returns whether the other selection is a subset of this one."""
        return self | other == self

    def __or__(self, other: "MessageSelection") -> "MessageSelection":
        if self.all_but:
            return MessageSelection(self.names & other.names if other.all_but else self.names - other.names)
        return other | self if other.all_but else MessageSelection(self.names | other.names, all_but=False)

    def __and__(self, other: "MessageSelection") -> "MessageSelection":
        return ~(~self | ~other)

    def __invert__(self) -> "MessageSelection":
        return MessageSelection(self.names, not self.all_but)


ALL_MESSAGES = MessageSelection()
NONE = ~ALL_MESSAGES
Selected = Mapping[str, MessageSelection]
"""The messages whose rows were loaded, by resource; none for a resource that is missing."""
_EVENTS = frozenset(EVENT_TABLE_NAMES)
_TYPES = frozenset(table.name for _, table, _ in KINDS)
# The messages that have a row in each table of messages.
_MESSAGES_WITH_ROW = {
    TRACKS.name: MessageSelection(_TYPES),
    EVENTS_RESOURCE: MessageSelection(_TYPES | _EVENTS | {""}),
    **{name: MessageSelection(frozenset({name}), all_but=False) for name in _EVENTS | _TYPES},
    **{made.table.name: MessageSelection(frozenset({made.messages.name}), all_but=False) for made in LATEST},
}
_BOOKS = (REJECTS.name, DISCARDS.name)  # they hold what was rejected and discarded of the selected messages


def select(resources: Iterable[str], messages: MessageSelection) -> Selected:
    """Returns which of these messages each of the resources takes; resources that take none are left out.

    An origin's own table, such as `contacts`, is taken whole, because its rows are not of messages.
    """
    taken = {name: _taken(name, messages) for name in resources}
    return {name: messages for name, messages in taken.items() if messages != NONE or name in _BOOKS}


def _taken(resource: str, messages: MessageSelection) -> MessageSelection:
    """Returns which of these messages a resource takes."""
    if resource in _BOOKS:
        return messages
    return messages & _MESSAGES_WITH_ROW[resource] if resource in _MESSAGES_WITH_ROW else ALL_MESSAGES


def messages_with_row(table: str) -> MessageSelection:
    """Returns the messages that have a row in a table. Example: `messages_with_row("users").has("identifies")`."""
    return _MESSAGES_WITH_ROW.get(table, MessageSelection(frozenset({table}), all_but=False))


def covers(loaded: Selected | None, requested: Selected) -> bool:
    """Returns whether everything requested of a file is loaded; None stands for a file that is loaded whole.

    The books count as loaded if they have the rejects and discards of all messages that are loaded or requested.
    """
    if loaded is None:
        return True
    every = messages_of(loaded) | messages_of(requested)
    return all(
        loaded.get(name, NONE).covers(every if name in _BOOKS else messages) for name, messages in requested.items()
    )


def union(loaded: Selected | None, more: Selected) -> Selected | None:
    """Returns the selection of a file after one more load."""
    if loaded is None:
        return None
    return {name: loaded.get(name, NONE) | more.get(name, NONE) for name in (*loaded, *more)}


def messages_of(loaded: Selected | None) -> MessageSelection:
    """Returns the messages of which at least some rows are loaded."""
    if loaded is None:
        return ALL_MESSAGES
    return reduce(or_, (messages for name, messages in loaded.items() if name in _MESSAGES_WITH_ROW), NONE)


def to_text(loaded: Selected | None, resources: Collection[str]) -> str | None:
    """Returns the text of a selection for `_audit`, None if all resources have all messages.

    Example: `{"email_opened": "all", "tracks": {"only": ["email_opened"]}}`.
    """
    if loaded is None or covers(loaded, select(resources, ALL_MESSAGES)):
        return None
    return json.dumps({name: _to_json(name, messages) for name, messages in sorted(loaded.items())})


def _to_json(resource: str, messages: MessageSelection) -> Any:
    whole = _taken(resource, ALL_MESSAGES)
    if messages == whole:
        return "all"
    return {"all_but": sorted(messages.names - whole.names)} if messages.all_but else {"only": sorted(messages.names)}


def from_text(text: str | None) -> Selected | None:
    """Returns the selection that `to_text` wrote, an empty one if the text cannot be read."""
    if text is None:
        return None
    try:
        return {name: _taken(name, _from_json(value)) for name, value in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def _from_json(value: Any) -> MessageSelection:
    """Returns the selection that `_to_json` wrote. Raises an error that `from_text` handles if the value is not one."""
    if value == "all":
        return ALL_MESSAGES
    ((kind, names),) = value.items()
    return MessageSelection(frozenset(names), kind == "all_but")
