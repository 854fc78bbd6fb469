"""Which messages of a file a load took, and into which tables.

dlt's users select resources, and `archive(events=[...])` selects events. What was not selected is loaded when it is
selected later, so `_audit` has what of a file was loaded.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

from ..catalog import EVENT_TABLES, EVENTS_RESOURCE, TRACKS


class MessageSelection(NamedTuple):
    """A set of messages, by the tables of their events: those named, or with `but` all others, of any kind.

    Example: `MessageSelection(frozenset({"email_opened"}), but=False).has("email_opened")`.
    """

    names: frozenset[str] = frozenset()
    but: bool = True

    def has(self, table: str | None) -> bool:
        """Returns whether a message of this table is selected; None: the message is no event, or has no table."""
        return (table in self.names) != self.but

    def covers(self, other: "MessageSelection") -> bool:
        """Returns whether the other selection is a subset of this one."""
        if self.but:
            return self.names <= other.names if other.but else not self.names & other.names
        return not other.but and other.names <= self.names

    def __or__(self, other: "MessageSelection") -> "MessageSelection":
        if self.but and other.but:
            return MessageSelection(self.names & other.names)
        if self.but or other.but:
            most, few = (self, other) if self.but else (other, self)
            return MessageSelection(most.names - few.names)
        return MessageSelection(self.names | other.names, but=False)


ALL_MESSAGES = MessageSelection()
NONE = MessageSelection(but=False)
Selected = Mapping[str, MessageSelection]
"""The messages whose rows were loaded, by resource; none for a resource that is missing."""
_EVENTS = frozenset(table.name for table in EVENT_TABLES)


def select(resources: Iterable[str], messages: MessageSelection) -> Selected:
    """Returns what a load of these resources takes; the table of an event is taken whole if the event is selected."""
    return {
        name: ALL_MESSAGES if name in _EVENTS else messages
        for name in resources
        if name not in _EVENTS or messages.has(name)
    }


def covers(loaded: Selected | None, requested: Selected) -> bool:
    """Returns whether everything requested of a file is loaded; None is a file that is loaded whole."""
    return loaded is None or all(loaded.get(name, NONE).covers(messages) for name, messages in requested.items())


def union(loaded: Selected | None, more: Selected) -> Selected | None:
    """Returns what of a file is loaded after one more load."""
    if loaded is None:
        return None
    return {name: loaded.get(name, NONE) | more.get(name, NONE) for name in (*loaded, *more)}


def messages_of(loaded: Selected | None) -> MessageSelection:
    """Returns all messages of which some rows are loaded."""
    if loaded is None:
        return ALL_MESSAGES
    names = _EVENTS & loaded.keys()
    return reduce(
        or_, (messages for name, messages in loaded.items() if name not in names), MessageSelection(names, but=False)
    )


def is_whole(loaded: Selected) -> bool:
    """Returns whether all rows of the loaded messages are: a track has one in `tracks` and one in its event's table."""
    messages = messages_of(loaded)
    takers = [TRACKS.name, *filter(messages.has, _EVENTS)]
    if messages.but or messages.names - _EVENTS:
        takers.append(EVENTS_RESOURCE)
    return all(loaded.get(name, NONE).covers(messages) for name in takers)


def to_text(loaded: Selected | None, resources: Collection[str]) -> str | None:
    """Returns the text of a selection for `_audit`, None if all resources have all messages.

    Example: `{"email_opened": "all", "tracks": {"only": ["email_opened"]}}`.
    """
    if loaded is None or covers(loaded, dict.fromkeys(resources, ALL_MESSAGES)):
        return None
    return json.dumps({name: _json_of(messages) for name, messages in sorted(loaded.items())})


def _json_of(messages: MessageSelection) -> Any:
    if messages == ALL_MESSAGES:
        return "all"
    return {"all_but" if messages.but else "only": sorted(messages.names)}


def from_text(text: str | None) -> Selected | None:
    """Returns the selection that `to_text` wrote, an empty one if the text cannot be read."""
    if text is None:
        return None
    try:
        return {name: _messages(words) for name, words in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def _messages(words: Any) -> MessageSelection:
    if words == "all":
        return ALL_MESSAGES
    ((kind, names),) = words.items()
    return MessageSelection(frozenset(names), kind == "all_but")
