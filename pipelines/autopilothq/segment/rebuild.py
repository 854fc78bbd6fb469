"""Rebuilds messages from rows: the reverse of the projection (docs/contract/forward.md#rows)."""

import json
from base64 import b64encode
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from math import isfinite
from typing import Any, Literal

from ..catalog import COMMON_NAMES, CONTEXT
from ..utc import format_time
from .json_text import DECODER, is_storable, to_json
from .message import BODIES, OWN_FIELDS, digest, prefixed_if_taken
from .naming import snake_case

# The columns of a message's own fields, with their keys.
MESSAGE_KEYS = {
    "id": "messageId",
    "user_id": "userId",
    "anonymous_id": "anonymousId",
    "previous_id": "previousId",
    "group_id": "groupId",
    "original_timestamp": "originalTimestamp",
    "timestamp": "timestamp",
}
CONTEXT_PATHS = {column.name: column.path for column in CONTEXT}
_KNOWN = COMMON_NAMES.union(MESSAGE_KEYS, ("type", "email"), *OWN_FIELDS.values())
_IDS = {"userid": "user_id", "anonymousid": "anonymous_id"}  # databases return the alias `userId` in other cases
_TIMES = ("timestamp", "received_at", "original_timestamp")
_DIGITS = 400  # of a number that is written without an exponent
RowFault = Literal["person", "own_id", "type"]
_RESPELT = {
    spelt: key for key in (*MESSAGE_KEYS.values(), "sentAt") for spelt in {snake_case(key), key.lower()} - {key}
}


def line_of(row: Mapping[str, Any]) -> bytes:
    """Returns the message of a row as a line of JSON.

    A row with an `id` and a time is one of a table of messages. Its type is in the column `type`; without it, a row
    with `event` is a track, one with `previous_id` an alias, one with `group_id` a group, and any other an identify.
    A row without `id` or a time is an identify whose traits are the columns, and whose id is a digest of its values.

    Example: `line_of({"user_id": "7", "plan": "pro"})`.
    """
    cells = _cells(row)
    kind = _kind(cells)
    if "id" in cells and any(name in cells for name in _TIMES):
        return _message_line(kind, cells)
    return _identify_line(cells)


def fault_of_row(row: Mapping[str, Any]) -> RowFault | None:
    """Returns why a row must not be forwarded, or None if it may be.

    - "person": it is a row of `users` or `accounts`, whose `id` is that of a person or a group, not of a message.
    - "own_id": it is such a row, and a column with the id of a person or a group repeats its `id`.
    - "type": it names a type other than identify, but only a row of a table of messages can have that type.

    Example: `fault_of_row({"id": "7", "received_at": "2019-03-01T00:00:00Z", "plan": "pro"}) == "person"`.
    """
    cells = _cells(row)
    is_typed = cells.get("type") in BODIES
    kind = _kind(cells)
    if "id" not in cells or cells.keys().isdisjoint(_TIMES):
        return "type" if is_typed and kind != "identify" else None
    if kind not in ("identify", "group") or "received_at" not in cells:
        return None
    if kind == "identify" and cells.keys().isdisjoint(("user_id", "anonymous_id")):
        return "person"
    is_same = cells["id"] in [cells.get(name) for name in ("user_id", "anonymous_id", "group_id")]
    return "own_id" if is_same and cells.keys().isdisjoint(("timestamp", "original_timestamp")) else None


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a row by column, without nulls and dlt's own columns."""
    given = {name: value for name, value in row.items() if value is not None and not name.lower().startswith("_dlt_")}
    cells: dict[str, Any] = {}
    for name, value in given.items():
        column = _column(name)
        # If two names stand for one column, one of them stays as it is, so that neither value is lost.
        cells[name if column in cells or column in given else column] = value
    return cells


@lru_cache(4096)  # all rows of a query have the same names
def _column(name: str) -> str:
    """Returns the column that a name stands for. Any other name, such as `firstName`, keeps its spelling.

    Names all in capitals are lower-cased, because some databases write every name so. `_user_id` is kept, because it
    is the column of a property `userId`.
    """
    lower = name.lower()
    if (column := _IDS.get(snake_case(name).replace("_", ""))) and not name.startswith("_"):
        return column
    is_known = lower in _KNOWN or lower.startswith("context_")
    return lower if is_known or not any(map(str.islower, name)) else name


def _message_line(kind: str, cells: Mapping[str, Any]) -> bytes:
    """Returns the message of a row of a table of messages."""
    own = OWN_FIELDS[kind]
    message: dict[str, Any] = {"type": kind}
    for column, key in MESSAGE_KEYS.items():
        if column in cells and (column in COMMON_NAMES or column in own):
            message[key] = cells[column]
    if kind == "track":
        message["event"] = cells.get("event_text", cells.get("event"))
    body: dict[str, Any] = {}
    context: dict[str, Any] = {}
    for name, value in cells.items():
        if name in own and name not in MESSAGE_KEYS:
            message[name] = value
        elif name.startswith("context_"):
            _put(context, CONTEXT_PATHS.get(name, (name.removeprefix("context_"),)), value)
        elif name not in COMMON_NAMES and name not in own:
            body[property_key(name, kind)] = value
    if context:
        message["context"] = context
    body_key = BODIES[kind]
    if body and body_key:
        message[body_key] = body
    return _message_json(message).encode()


def line_of_message(message: Mapping[str, Any]) -> bytes:
    """Returns a message as a line of JSON; columns that are null are left out."""
    return _json(restore_keys(message)).encode()


def restore_keys(message: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a message without nulls, and with its own keys as Segment spells them.

    dlt's naming conventions may have turned `messageId` into `message_id` or `messageid`.

    Example: `restore_keys({"type": "identify", "user_id": "u1"}) == {"type": "identify", "userId": "u1"}`.
    """
    present = {key: value for key, value in message.items() if value is not None}
    return {
        _RESPELT.get(key, key): value
        for key, value in present.items()
        if key not in _RESPELT or _RESPELT[key] not in present
    }


def has_message_id(row: Mapping[str, Any]) -> bool:
    """Returns whether a row has a `messageId` in any spelling, but no `id`, which a row of a table would have."""
    return row.get("id") is None and any(row.get(key) is not None for key in ("messageId", "message_id", "messageid"))


def _kind(cells: dict[str, Any]) -> str:
    if cells.get("type") in BODIES:
        return str(cells.pop("type"))
    found = (("event", "track"), ("event_text", "track"), ("previous_id", "alias"), ("group_id", "group"))
    return next((kind for column, kind in found if column in cells), "identify")


def _identify_line(cells: Mapping[str, Any]) -> bytes:
    """Returns the identify of a row that is not one of a table of messages."""
    traits = {name: value for name, value in cells.items() if name not in ("user_id", "anonymous_id")}
    message = {"type": "identify", "messageId": f"row-{digest(_json(cells).encode())}", "traits": traits}
    for column in ("user_id", "anonymous_id"):
        if column in cells:
            message[MESSAGE_KEYS[column]] = cells[column]
    return _message_json(message).encode()


def property_key(column: str, kind: str) -> str:
    """Returns the key of a property or trait, without the `_` that the projection puts before a common column's name.

    Example: `property_key("_timestamp", "track") == "timestamp"`.
    """
    bare = column.removeprefix("_")
    taken = COMMON_NAMES | OWN_FIELDS[kind].keys()
    return bare if bare != column and prefixed_if_taken(bare, taken) == column else column


def _put(into: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Sets a value at a path. If there is a value where the path has an object, one of them gets a joined key.

    A joined key, such as `library_name`, has the same column as the path.
    """
    inner = into
    for part in path[:-1]:
        inner = inner.setdefault(part, {})
        if not isinstance(inner, dict):
            into["_".join(path)] = value
            return
    if isinstance(inner.get(path[-1]), dict):  # its keys came first
        into |= {f"{path[-1]}_{key}": below for key, below in inner.pop(path[-1]).items()}
    inner[path[-1]] = value


def _message_json(message: Mapping[str, Any]) -> str:
    """Returns a message as JSON; texts of its own fields stay texts, even if they look like arrays."""
    parts = (
        f"{to_json(key)}:{to_json(value) if isinstance(value, str) else _json(value)}" for key, value in message.items()
    )
    return "{" + ",".join(parts) + "}"


def _json(value: Any) -> str:
    """Returns the JSON text of a cell, or of an object of cells.

    NaN and infinities are null, stored arrays are arrays, bytes are base64 as dlt writes them.
    """
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{to_json(str(key))}:{_json(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, datetime):
        return to_json(format_time(value, exact=True))
    if isinstance(value, date):
        return to_json(value.isoformat())
    if isinstance(value, Decimal):
        # A few bytes of JSON can be a number with more digits than fit in memory.
        return format(value, "f" if abs(value.adjusted()) < _DIGITS else "E") if value.is_finite() else "null"
    if isinstance(value, float):
        return json.dumps(value) if isfinite(value) else "null"
    if isinstance(value, str):
        return array_text(value) or to_json(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return to_json(b64encode(value).decode())
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_json, value)) + "]"
    return to_json(value) if value is None or isinstance(value, bool | int) else to_json(str(value))


def array_text(text: str) -> str | None:
    """Returns the JSON text of an array as the projection stores it, or None if the text is not one."""
    if not text.startswith("["):
        return None
    try:
        value = DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    return text if is_storable(value) and to_json(value) == text else None
