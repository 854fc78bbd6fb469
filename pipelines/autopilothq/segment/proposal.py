"""Proposes a mapping of unknown events to Autopilot's events and columns, for a person to correct."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any, NamedTuple

from ..catalog import (
    EVENT_WORDS,
    EVENTS_OF_COLUMNS,
    ORTTO_ACTIVITIES,
    ORTTO_ATTRIBUTES,
    ORTTO_ATTRIBUTES_OF,
    OrttoAttribute,
)
from .json_text import JsonNumber, JsonObject, to_json
from .mapping import TARGETS, KeyPath
from .message import flatten
from .naming import column_name, snake_case

MAX_EVENTS = 100  # events that are described
MAX_PROPERTIES = 500  # properties of an event that are described
SAMPLES = 3  # distinct values that are kept of a property
SAMPLE_LENGTH = 24  # characters of a value that are shown
ALIKE = 0.86  # the least similarity, of at most 1, of two names that count as the same
KNOWN_COLUMNS = frozenset(attribute.column for attribute in ORTTO_ATTRIBUTES.values())
"""The columns that a proposal can give to properties."""


@dataclass
class SeenProperty:
    """A property of an event: how often it occurred, how often with each kind of value, and its first values."""

    count: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    values: list[str] = field(default_factory=list)

    def add(self, value: Any) -> None:
        """Counts a value."""
        self.count += 1
        self.kinds[_kind(value)] += 1
        text = str(value) if isinstance(value, str) else to_json(value)
        if len(self.values) < SAMPLES and text not in self.values:
            self.values.append(text)


@dataclass
class SeenEvent:
    """An event that is not one of Autopilot's, as seen in some messages."""

    name: str
    count: int = 0
    properties: dict[KeyPath, SeenProperty] = field(default_factory=dict)

    def add(self, properties: Any) -> None:
        """Counts a message with these properties."""
        self.count += 1
        for path, _, value in flatten(properties, ("properties",), []) if isinstance(properties, JsonObject) else ():
            if path[1:] in self.properties or len(self.properties) < MAX_PROPERTIES:
                self.properties.setdefault(path[1:], SeenProperty()).add(value)


class Proposal(NamedTuple):
    """The proposed event (None if none is similar), the reason, and the proposed columns of properties by path."""

    event: str | None
    why: str
    properties: Mapping[KeyPath, str]


def propose(event: SeenEvent) -> Proposal:
    """Proposes an event and columns by the ids and names of Ortto's activities and attributes.

    Example: for an event `Email opens` with a property `idt::c`, it proposes `Email Opened` and `campaign_id`.
    """
    activity, why = _activity(event)
    target = _event_of(activity) if activity else None
    if target is None:
        target, why = _by_name(event.name), "its name"
    special = next((own for id_, own in ORTTO_ATTRIBUTES_OF.items() if _event_of(id_) == target), {})
    attributes = [special.get(attribute.id, attribute) for attribute in ORTTO_ATTRIBUTES.values()]
    fitting = [attribute for attribute in attributes if _fits(attribute.column, target)]
    properties = _columns(event, fitting)
    if target is None:
        columns = {*properties.values(), *map(column_name, event.properties)}
        found = {_owner(column) for column in columns} - {None}
        target, why = (found.pop(), "its properties") if len(found) == 1 else (None, "")
        properties = {path: column for path, column in properties.items() if _fits(column, target)} if target else {}
    return Proposal(target, why, properties)


def masked_sample(text: str) -> str:
    """Returns a value with its letters and digits masked: `aaaaa@aaaaaaa.aaa`, `9999-99-99`."""
    if text in ORTTO_ACTIVITIES or text in ("true", "false"):
        return text
    shown = text[:SAMPLE_LENGTH]
    form = "".join("9" if c.isdigit() else ("A" if c.isupper() else "a") if c.isalpha() else c for c in shown)
    return form if len(text) <= SAMPLE_LENGTH else f"{form}…"


def _kind(value: Any) -> str:
    if isinstance(value, JsonNumber):
        return "integer" if value.lstrip("-").isdigit() else "number"
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "array"


def _activity(event: SeenEvent) -> tuple[str | None, str]:
    """Returns the activity whose id a property has in all messages, and that property; (None, "") if there is none."""
    for path, seen in event.properties.items():
        if len(seen.values) == 1 and seen.values[0] in ORTTO_ACTIVITIES and seen.count == event.count:
            return seen.values[0], ".".join(path)
    return None, ""


def _event_of(activity: str) -> str:
    known = ORTTO_ACTIVITIES[activity]
    return known.event or known.name


def _by_name(name: str) -> str | None:
    """Returns the only event whose words a name contains, otherwise the one with the most similar name, or None."""
    words = snake_case(name).split("_")
    found = [event for event, stems in EVENT_WORDS.items() if any(word.startswith(stems) for word in words)]
    if len(found) == 1:
        return found[0]
    best = _most_alike(snake_case(name), TARGETS)
    return TARGETS[best] if best else None


def _most_alike(name: str, names: Iterable[str]) -> str | None:
    rated = [(SequenceMatcher(None, name, other).ratio(), other) for other in names]
    ratio, best = max(rated, default=(0.0, ""))
    return best if ratio >= ALIKE else None


def _owner(column: str) -> str | None:
    return next((event for prefix, event in EVENTS_OF_COLUMNS.items() if column.startswith(prefix)), None)


def _fits(column: str, target: str | None) -> bool:
    owner = _owner(column)
    return owner is None or target is None or owner == target


def _columns(event: SeenEvent, attributes: list[OrttoAttribute]) -> dict[KeyPath, str]:
    """Returns the columns of properties, each once. Ids match before names, and frequent properties before others."""
    taken = set(map(column_name, event.properties))
    found: dict[KeyPath, str] = {}
    ordered = sorted(event.properties.items(), key=lambda item: -item[1].count)
    for match in (_has_id, _has_name, _is_alike):
        for path, _ in ordered:
            if path in found or any(known.column == column_name(path) for known in attributes):
                continue
            for attribute in attributes:
                if attribute.column not in taken and match(path[-1], attribute):
                    found[path] = attribute.column
                    taken.add(attribute.column)
                    break
    return {path: found[path] for path in event.properties if path in found}


def _has_id(key: str, attribute: OrttoAttribute) -> bool:
    return snake_case(key) == snake_case(attribute.id)


def _has_name(key: str, attribute: OrttoAttribute) -> bool:
    return snake_case(key) in _names(attribute)


def _is_alike(key: str, attribute: OrttoAttribute) -> bool:
    return _most_alike(snake_case(key), _names(attribute)) is not None


def _names(attribute: OrttoAttribute) -> Iterator[str]:
    yield attribute.column
    yield snake_case(attribute.name)
