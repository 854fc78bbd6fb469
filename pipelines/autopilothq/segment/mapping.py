"""Maps events with other names to events of the catalogue.

A mapping gives an event another table, and its properties other columns. `event_text` keeps the name that was sent
(docs/contract/ortto.md#through-segment).
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from ..catalog import EVENTS, ORTTO_ACTIVITIES
from ..errors import InvalidSetting
from .json_text import BLANK, JsonNumber, JsonObject, is_id, to_json
from .message import Rejected, digest, flatten, parse_json, without_bom
from .naming import column_name, event_key, snake_case, table_name

MAPPING_SETTING = "sources.autopilothq.mapping"
TARGETS = {
    table_name(name): name
    for name in (
        *(event.name for event in EVENTS),
        *(activity.event or activity.name for activity in ORTTO_ACTIVITIES.values()),
    )
}
"""The names of the events that others can be mapped to, by table."""

KeyPath = tuple[str, ...]


class EventMapping(NamedTuple):
    """What an event is mapped to: the table of an event of the catalogue, and new names for its properties.

    Properties are named by their keys as sent, with a dot before each nested key, or by their columns.
    """

    table: str
    properties: Mapping[str, str] = {}

    def target(self, path: KeyPath) -> str | None:
        """Returns the new name of a property, or None if it keeps its own."""
        return self.properties.get(".".join(path)) or self.properties.get(column_name(path))


Mappings = Mapping[str, EventMapping]
"""Mappings by the `event_key` of the name that was sent."""


def read_mappings(settings: Any) -> dict[str, EventMapping]:
    """Returns the mappings in the setting `mapping`, a table with `event` and `properties` for each event's name.

    They are keyed by `event_key`. The setting may also be JSON text. Raises InvalidSetting.
    Example: `{"Email sent": {"event": "Email Delivered", "properties": {"idt::c": "campaign_id"}}}`.
    """
    if isinstance(settings, str):  # from the environment
        with suppress(ValueError):
            settings = json.loads(settings)
    mappings: dict[str, EventMapping] = {}
    for name, of_event in _table(settings, MAPPING_SETTING).items():
        where = f'{MAPPING_SETTING}."{name}"'
        content = _table(of_event, where)
        source, target = event_key(name), content.get("event")
        table = table_name(target) if isinstance(target, str) else ""
        if table not in TARGETS:
            raise InvalidSetting(
                f"Expected an event of the catalogue as {where}.event, such as {', '.join(list(TARGETS.values())[:3])},"
                f" but got {target!r}."
            )
        expected = ""
        if not source.strip():
            expected = "the name of an event"
        elif source in mappings:
            expected = "each event once"
        elif unknown := content.keys() - {"event", "properties"}:
            expected = f"only event and properties, not {', '.join(sorted(unknown))},"
        if expected:
            raise InvalidSetting(f"Expected {expected} in {MAPPING_SETTING}, but got {name!r}.")
        mappings[source] = EventMapping(table, _properties(content.get("properties"), f"{where}.properties"))
    return mappings


def _properties(settings: Any, where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, target in _table(settings, where).items():
        if not isinstance(target, str) or not column_name((target,)):
            raise InvalidSetting(f'Expected the name of a column as {where}."{name}", but got {target!r}.')
        found |= {name: target} | ({slug: target} if (slug := snake_case(name)) else {})
    return found


def _table(settings: Any, where: str) -> Mapping[str, Any]:
    if settings is None:
        return {}
    if not isinstance(settings, Mapping):
        raise InvalidSetting(f"Expected a table as {where}, but got {type(settings).__name__}.")
    return settings


def mapped_line(line: bytes, mappings: Mappings) -> bytes:
    """Returns a line with the properties of its event renamed; without a mapping for the event, the line as it is.

    A property keeps its name if another one has the new name. Example: with `idt::c` mapped to `campaign_id`, the line
    `{"type":"track","event":"Email sent","properties":{"idt::c":"d1"},…}` gets `"properties":{"campaign_id":"d1"}`.
    """
    try:
        message = parse_json(line)
    except Rejected:
        return line
    event, properties = message.value("event"), message.value("properties")
    if not isinstance(event, str) or isinstance(event, JsonNumber) or not isinstance(properties, JsonObject):
        return line
    mapping = mappings.get(event_key(event))
    if mapping is None or message.value("type") != "track":
        return line
    renamed = _rename(properties, mapping)
    if not renamed.names:
        return line
    if is_id(message.value("messageId")) and (found := _rename_in_text(line, renamed.names)):
        return found
    at = next(number for number, (key, _) in enumerate(message) if key == "properties")
    message[at] = ("properties", renamed.properties)
    return to_json(_with_id(message, line)).encode() + b"\n"


class _Renamed(NamedTuple):
    """Properties after renaming, and the new names with the paths that they replace."""

    properties: JsonObject
    names: list[tuple[KeyPath, str]]


def _rename_in_text(line: bytes, names: Sequence[tuple[KeyPath, str]]) -> bytes | None:
    """Returns the line with keys replaced in its text, or None if it is not certain where these keys are in the text.

    That takes half as long as writing the message again. A quote without a backslash before it begins or ends a string,
    and one with a colon after it ends a key. It is the right key if it occurs once and the line has no `\\u` escapes.
    """
    if b"\\u" in line:
        return None
    for path, name in names:
        key = to_json(path[0]).encode() + b":"
        at = line.find(key)
        if len(path) > 1 or line.count(key) != 1 or line[at - 1 : at] == b"\\":
            return None
        line = line.replace(key, to_json(name).encode() + b":")
    return line


def _with_id(message: JsonObject, line: bytes) -> JsonObject:
    """Returns the message; if it has no id, with the digest of its line as the id, because the line will change.

    A value that cannot be an id follows as a second `messageId`, so that the load discards it.
    """
    if is_id(message.value("messageId")):
        return message
    rest = [pair for pair in message if pair[0] != "messageId" or not _is_blank(pair[1])]
    return JsonObject([("messageId", digest(without_bom(line))), *rest])


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip(BLANK))


def _rename(properties: JsonObject, mapping: EventMapping) -> _Renamed:
    """Renames the candidates; one keeps its name if another property, or a candidate before it, has the new column."""
    candidates = list(_candidates(properties, (), mapping))
    if not candidates:
        return _Renamed(properties, [])
    rest = _without(properties, (), mapping, itertools.repeat(True))
    taken = {column for _, column, _ in flatten(rest, ("properties",), [])}
    moves = []
    for path, target, _ in candidates:
        moves.append(column_name((target,)) not in taken)
        taken.add(column_name((target,) if moves[-1] else path))
    if not all(moves):
        rest = _without(properties, (), mapping, iter(moves))
    moved = list(itertools.compress(candidates, moves))
    renamed = JsonObject([*rest, *((target, value) for _, target, value in moved)])
    return _Renamed(renamed, [(path, target) for path, target, _ in moved])


def _candidates(value: JsonObject, path: KeyPath, mapping: EventMapping) -> Iterator[tuple[KeyPath, str, Any]]:
    """Yields the path, the new name and the value of each property for which the mapping has a new name."""
    for key, inner in value:
        at = (*path, key)
        if inner is not None and (target := mapping.target(at)):
            yield at, target, inner
        elif isinstance(inner, JsonObject):
            yield from _candidates(inner, at, mapping)


def _without(value: JsonObject, path: KeyPath, mapping: EventMapping, moves: Iterator[bool]) -> JsonObject:
    """Returns the properties without the candidates that are renamed; `moves` has a flag for each of them, in order."""
    rest = JsonObject()
    for key, inner in value:
        at = (*path, key)
        if inner is not None and mapping.target(at):
            if not next(moves):
                rest.append((key, inner))
        elif isinstance(inner, JsonObject):
            rest.append((key, _without(inner, at, mapping, moves)))
        else:
            rest.append((key, inner))
    return rest
