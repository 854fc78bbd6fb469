"""Which messages of a file a load took, and into which tables: the books of what was selected.

dlt's users select resources, and `archive(events=[...])` selects events. What was not selected is loaded when it is
selected later, so the books of a file say what of it was loaded.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

from ..catalog import EVENT_TABLES


class MessageSelection(NamedTuple):
    """A set of messages, by the tables of their events: those named, or with `but` all others, of any kind.

    Example: `Messages(frozenset({"email_opened"}), but=False).has("email_opened")`.
    """

    names: frozenset[str] = frozenset()
    but: bool = True

    def has(self, table: str | None) -> bool:
        """Whether a message is one of them; None is a message that is no event, or has no table."""
        return (table in self.names) != self.but

    def covers(self, other: "MessageSelection") -> bool:
        """Whether all of the other ones are among them."""
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
"""By the names of resources: the messages whose rows were taken. A resource that is missing took none."""
_EVENTS = frozenset(table.name for table in EVENT_TABLES)


def select(resources: Iterable[str], messages: MessageSelection) -> Selected:
    """What a load takes that has these resources; a table of one event is whole if that event is taken."""
    return {
        name: ALL_MESSAGES if name in _EVENTS else messages
        for name in resources
        if name not in _EVENTS or messages.has(name)
    }


def covers(loaded: Selected | None, wanted: Selected) -> bool:
    """Whether all that is wanted of a file is loaded; None is a file that is loaded whole."""
    return loaded is None or all(loaded.get(name, NONE).covers(messages) for name, messages in wanted.items())


def union(loaded: Selected | None, more: Selected) -> Selected | None:
    """What of a file is loaded after one more load."""
    if loaded is None:
        return None
    return {name: loaded.get(name, NONE) | more.get(name, NONE) for name in (*loaded, *more)}


def messages_of(loaded: Selected | None) -> MessageSelection:
    """All messages of which some rows are loaded."""
    if loaded is None:
        return ALL_MESSAGES
    names = _EVENTS & loaded.keys()
    return reduce(
        or_, (messages for name, messages in loaded.items() if name not in names), MessageSelection(names, but=False)
    )


def to_text(loaded: Selected | None, resources: Collection[str]) -> str | None:
    """The text of it for `_audit`: None where all resources have all messages.

    Example: `{"email_opened": "all", "tracks": {"only": ["email_opened"]}}`.
    """
    if loaded is None or covers(loaded, dict.fromkeys(resources, ALL_MESSAGES)):
        return None
    return json.dumps({name: _words(messages) for name, messages in sorted(loaded.items())})


def _words(messages: MessageSelection) -> Any:
    if messages == ALL_MESSAGES:
        return "all"
    return {"all_but" if messages.but else "only": sorted(messages.names)}


def from_text(text: str | None) -> Selected | None:
    """What `to_text` wrote; nothing is loaded where that cannot be read."""
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
