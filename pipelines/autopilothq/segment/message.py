"""Reads a Segment message: its fields, its flattening into columns, its identity, and the reasons to reject a line.

This is the slow path, which reads one line in Python. The projection reads nearly all lines with its engine, and only
irregular ones with this module. Both give the same cells; tests compare them (docs/contract/warehouse.md#values).
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from ..catalog import (
    COMMON_NAMES,
    DECLARED_TYPES,
    KINDS,
    LATEST,
    MAX_DEPTH,
    MAX_KEYS,
    PROPERTY_TYPES,
    REJECT_REASONS,
    Type,
)
from .json_text import BLANK, DECODER, JsonNumber, JsonObject, is_deeper, is_encodable, is_storable, to_json
from .naming import LONGEST_COLUMN, LongPath, column_name, long_path, snake_case
from .not_json import JSON_ARRAY, not_json, not_utf8

MAX_LINE = 1 << 20  # bytes; a longer line cannot be a message, because Segment accepts up to 32 KB

BOM = b"\xef\xbb\xbf"  # UTF-8's byte-order mark
_BOMS = re.compile(b"(?:%b)*+" % BOM)
MAX_OBJECTS = 200  # nested objects that the fast path reads; lines with others take the slow path
EXTRA = "x:"  # prefix of the name of a cell whose column is not in the catalogue

Leaf = tuple[tuple[str, ...], str, Any]
"""A value in an object that is not itself an object: its path, its column, the value."""


class Reject(NamedTuple):
    """A line that is not a message. `file` is its index in the load; `raw` is at most 1 MiB of it."""

    file: int
    line: int
    reason: str
    message: str
    raw: bytes


class Batch(NamedTuple):
    """What an origin delivers: lines of any number of files, in any order.

    `lines` has the columns `file` (int32, the file's index in the load), `line` (int64, from 1) and `text`
    (large_binary, one line each). `ended` has the files that end in this batch, each with None, or with the reason why
    the next load must read it again. `bytes` is the number of bytes that were read for the batch; the progress adds
    them up.

    Example: `make_batch(0, [(1, b'{"type":"track",...}')], ended=True)` makes one.
    """

    lines: pa.Table
    rejects: list[Reject]
    ended: list[tuple[int, str | None]]
    bytes: int


class Discard(NamedTuple):
    """A value that gets no cell: its column, the value as JSON text, and the reason."""

    column: str
    value: str
    reason: str


class Record(NamedTuple):
    """An object of an account, such as a contact or a list, as cells of its table.

    `key` identifies its row. `cells` holds JSON text by column, `declared` the types that the origin declares for some
    of the columns.
    """

    key: tuple[str, ...]
    cells: dict[str, str]
    discards: list[Discard]
    declared: Mapping[str, Type]


class Message(NamedTuple):
    """A message as cells.

    `cells` has a text for each column: JSON text for `event`, for declared columns that are not of type text, and for
    columns beyond the catalogue (whose names are prefixed with `x:`), otherwise the text itself. `objects` are the
    paths of objects in the message.
    """

    cells: dict[str, str]
    discards: list[Discard]
    objects: list[tuple[str, ...]]


class Rejected(Exception):
    """The line is not a message of the contract; `args` are the reason (`REJECT_REASONS`) and what is wrong."""


_ID_FIELDS = (("id", "messageId"), ("user_id", "userId"), ("anonymous_id", "anonymousId"))
_ID_COLUMNS = ("id", "user_id", "anonymous_id", "previous_id", "group_id")
BODIES: dict[str, str | None] = {"track": "properties", **{kind: body for kind, _, body in KINDS}}
"""The key of the properties or traits of each type of message; None if it has neither."""
OWN_FIELDS: dict[str, dict[str, str]] = {"track": {}} | {
    kind: {column.name: column.path[0] for column in table.columns if column.name not in COMMON_NAMES}
    for kind, table, _ in KINDS
}
"""By type of message, the fields that not all types have: their keys by column."""
# A trait `id` may repeat the id that the message is about.
_REPEATED = {latest.kind: {"id": latest.key} for latest in LATEST}
TIMESTAMP_FIELDS = {
    "received_at": "receivedAt",
    "sent_at": "sentAt",
    "original_timestamp": "originalTimestamp",
    "timestamp": "timestamp",
}


def digest(line: bytes) -> str:
    """Returns the id of a message that has none: a digest of its line, without the line ending."""
    return hashlib.sha256(line.rstrip(b"\r\n")).hexdigest()


def without_bom(line: bytes) -> bytes:
    """Returns a line without the byte-order marks at its start."""
    if not line.startswith(BOM):
        return line
    marks = _BOMS.match(line)
    return line[marks.end() :] if marks else line


def is_blank_line(line: bytes) -> bool:
    """Returns whether a line has nothing but blanks after its byte-order marks, and so does not count as a line."""
    return not without_bom(line).strip(BLANK.encode())


def read_message(line: bytes, declared: frozenset[str]) -> Message:
    """Returns the message of a line as cells; raises `Rejected` if the contract has no row for it.

    `declared` are the columns of `context` that are in the catalogue. Example:
    `read_message(b'{"type":"track","event":"Email Opened","userId":"1"}', frozenset()).cells["user_id"] == "1"`.
    """
    line = without_bom(line)
    message = parse_json(line)
    kind = _kind(message)
    body_key = BODIES[kind]
    _check_objects(message, body_key)
    discards = list(_repeated_keys(message, kind, body_key))
    cells = {"kind": kind} | _timestamps(message) | _texts(message, kind, discards)
    if kind == "track":
        name = _event(message)
        cells["event"] = to_json(name)
        if not is_storable(name):
            discards.append(Discard("event_text", to_json(name), "not_text"))
    cells["id"] = cells.get("id") or digest(line)
    objects: list[tuple[str, ...]] = []
    if isinstance(context := message.value("context"), JsonObject):
        leaves = flatten(context, ("context",), objects)
        cells |= cells_of_leaves(leaves, declared, discards)
    if body_key and isinstance(body := message.value(body_key), JsonObject):
        cells |= _body_cells(message, kind, flatten(body, (body_key,), objects), cells, discards)
    _set_identity(message, cells)
    return Message(cells, discards, objects)


def _body_cells(
    message: JsonObject, kind: str, leaves: Iterator[Leaf], cells: Mapping[str, str], discards: list[Discard]
) -> dict[str, str]:
    """Returns the cells of a message's properties or traits."""
    own = frozenset(OWN_FIELDS[kind])
    # The name and the category of a page or screen may be among its properties instead.
    in_body = own - cells.keys() if BODIES[kind] == "properties" else frozenset[str]()
    columns = {name: name for name in own} | _REPEATED.get(kind, {})
    repeated = {name: frozenset({cells[column]}) for name, column in columns.items() if column in cells}
    if kind == "track":
        name = _event(message)
        repeated["event"] = frozenset({name, snake_case(name), f"_{snake_case(name)}"})
    room = max(0, MAX_KEYS - len(cells) - len(discards))
    declared = frozenset(PROPERTY_TYPES) if kind == "track" else in_body
    renamed = _with_prefixes(leaves, (COMMON_NAMES | own) - in_body, repeated)
    return cells_of_leaves(renamed, declared, discards, room)


def parse_json(line: bytes) -> JsonObject:
    """Returns the JSON object of a line, read without loss as in `json_text`; raises `Rejected` if it is not one.

    Byte-order marks at its start are ignored. Example: `to_json(parse_json(b'{"a": 1.10}')) == '{"a":1.10}'`.
    """
    line = without_bom(line)
    if is_deeper(line, MAX_DEPTH):
        raise Rejected("not_json", f"nested too deeply to be read: more than {MAX_DEPTH} objects or arrays in another")
    try:
        value = DECODER.decode(line.decode())
    except UnicodeDecodeError as error:
        raise Rejected("not_json", not_utf8(line, error)) from None
    except json.JSONDecodeError as error:
        raise Rejected("not_json", not_json(line, error)) from None
    if not isinstance(value, JsonObject):
        cause = f" ({JSON_ARRAY})" if isinstance(value, list) and value and isinstance(value[0], JsonObject) else ""
        raise Rejected("not_an_object", f"{REJECT_REASONS['not_an_object']}: {_short(value)}{cause}")
    return value


def _kind(message: JsonObject) -> str:
    kind = message.value("type")
    if not isinstance(kind, str) or kind not in BODIES:
        raise Rejected("unknown_type", f"{REJECT_REASONS['unknown_type']} but {_short(kind)}")
    return str(kind)


def _repeated_keys(message: JsonObject, kind: str, body_key: str | None) -> Iterator[Discard]:
    """Yields the discarded values of repeated top-level keys, of which only the first value is kept."""
    columns = {key: column for column, key in (*_ID_FIELDS, *TIMESTAMP_FIELDS.items())}
    columns |= {key: column for column, key in OWN_FIELDS[kind].items()} | {"context": "context"}
    columns |= {body_key: body_key} if body_key else {}
    columns |= {"event": "event_text"} if kind == "track" else {}
    seen: dict[str, Any] = {}
    for key, value in message:
        if key not in columns:
            continue
        if key not in seen:
            seen[key] = value
        elif value is not None and value != seen[key]:
            yield Discard(columns[key], to_json(value), "same_column")


def _check_objects(message: JsonObject, body_key: str | None) -> None:
    for key in ("context", body_key):
        if key and not isinstance(value := message.value(key), JsonObject | None):
            reason = f"{key}_not_object"
            raise Rejected(reason, f"{REJECT_REASONS[reason]} but {_short(value)}")


def _event(message: JsonObject) -> str:
    name = message.value("event")
    if name is None:
        raise Rejected("event_not_defined", REJECT_REASONS["event_not_defined"])
    if not isinstance(name, str) or isinstance(name, JsonNumber):
        raise Rejected("event_not_string", f"{REJECT_REASONS['event_not_string']} but {_short(name)}")
    return name


def _timestamps(message: JsonObject) -> dict[str, str]:
    values = {column: message.value(key) for column, key in TIMESTAMP_FIELDS.items()}
    return {column: to_json(value) for column, value in values.items() if value is not None}


def _texts(message: JsonObject, kind: str, discards: list[Discard]) -> dict[str, str]:
    texts = {}
    for column, key in (*_ID_FIELDS, *OWN_FIELDS[kind].items()):
        text = _text(message.value(key), column, discards)
        if text is not None and (text.strip(BLANK) or column not in ("id", "user_id", "anonymous_id")):
            texts[column] = text
    return texts


def _text(value: Any, column: str, discards: list[Discard]) -> str | None:
    """Returns the text of a field: a scalar as text, an array as JSON unless the field is an id.

    Any other value, and text that no warehouse can store, is discarded.
    """
    if value is None:
        return None
    if isinstance(value, JsonObject) or (isinstance(value, list) and column in _ID_COLUMNS):
        discards.append(Discard(column, to_json(value), "does_not_fit"))
        return None
    if not is_storable(value):
        discards.append(Discard(column, to_json(value), _unstorable(value)))
        return None
    return str(value) if isinstance(value, str) else to_json(value)


def _set_identity(message: JsonObject, cells: dict[str, str]) -> None:
    """Makes the contact's email the anonymous id if there is no id; raises `Rejected` if there is no email either.

    (docs/contract/warehouse.md#identity)
    """
    if "user_id" in cells or "anonymous_id" in cells:
        return
    for path in (("context", "traits", "email"), ("properties", "email"), ("traits", "email")):
        email = message.value(*path)
        if isinstance(email, str) and not isinstance(email, JsonNumber) and email.strip(BLANK) and is_storable(email):
            cells["anonymous_id"] = email
            return
    raise Rejected("no_user_anon_id", REJECT_REASONS["no_user_anon_id"])


def flatten(
    value: JsonObject, path: tuple[str, ...], objects: list[tuple[str, ...]], long: LongPath | None = None
) -> Iterator[Leaf]:
    """Yields the leaves of an object in their order, each with its path; null and `{}` have none.

    The path of each object is appended to `objects`, unless it has a key that the engine cannot look up, or there are
    MAX_OBJECTS already. `long` is a path of more than LONGEST_COLUMN characters; neither `objects` nor the leaves get
    such a path whole, because thousands of values may share it. Example: the leaf of
    `flatten(JsonObject([("a", JsonObject([("b", 1)]))]), ("properties",), [])` is
    `(("properties", "a", "b"), "a_b", 1)`.
    """
    if sum(map(len, path)) > LONGEST_COLUMN:
        long, path = long_path(path if path[0] == "context" else path[1:]), path[:1]
    if long is None and len(objects) < MAX_OBJECTS and all(map(is_encodable, path)):
        objects.append(path)
    for key, inner in value:
        below = long.below(key) if long else None
        at = (path[0], below.key) if below else (*path, key)
        if isinstance(inner, JsonObject):
            yield from flatten(inner, path if below else at, objects, below)
        elif inner is not None:
            yield at, below.column() if below else column_name(at if path[0] == "context" else at[1:]), inner


def _with_prefixes(
    leaves: Iterator[Leaf], taken: frozenset[str], repeated: Mapping[str, frozenset[str]]
) -> Iterator[Leaf]:
    """Yields properties or traits, prefixed with `_` if they have the name of a common column (`taken`).

    `repeated` has, by column, texts that only repeat another field of the message: values with them are left out.
    (docs/contract/warehouse.md#collisions)
    """
    for path, column, value in leaves:
        # An event's name is text; an id may be a number, which is text in its column.
        text = value if isinstance(value, str) else to_json(value)
        may_repeat = column != "event" or (isinstance(value, str) and not isinstance(value, JsonNumber))
        if not (may_repeat and text in repeated.get(column, ())):
            yield path, prefixed_if_taken(column, taken), value


def prefixed_if_taken(column: str, taken: frozenset[str] | set[str]) -> str:
    """Returns the column of a property or trait: prefixed with `_` if it is a common column or begins with `context_`.

    Example: `prefixed_if_taken("timestamp", {"timestamp"}) == "_timestamp"`.
    """
    return f"_{column}" if column in taken or column.startswith("context_") else column


def spelling_rank(path: tuple[str, ...], column: str) -> tuple[bool, int]:
    """Returns the sort key that decides which of several paths gets their common column: the lowest one.

    Paths that spell the column exactly come first, and among these those with the fewest keys; all others are equal.
    """
    own = "_".join(path if path[0] == "context" else path[1:])
    return (False, len(path)) if own == column else (True, 0)


def cells_of_leaves(
    leaves: Iterable[Leaf], declared: frozenset[str], discards: list[Discard], room: int = MAX_KEYS
) -> dict[str, str]:
    """Returns one cell per column. Columns that are not `declared` hold JSON text, and their names begin with `x:`.

    Values are added to `discards` if another leaf gets their column, if they have no column or cannot be stored, or if
    they are not declared and come after the first `room` leaves.
    """
    best: dict[str, tuple[tuple[str, ...], Any]] = {}
    for number, (path, column, value) in enumerate(leaves):
        if number >= room and column not in declared:
            discards.append(Discard(column or _key(path), to_json(value), "too_many_keys"))
        elif not column:
            discards.append(Discard(_key(path), to_json(value), "no_column"))
        elif not is_storable(value):
            discards.append(Discard(column, to_json(value), _unstorable(value)))
        elif column not in best:
            best[column] = path, value
        else:
            loser = value
            if spelling_rank(path, column) < spelling_rank(best[column][0], column):
                loser = best[column][1]
                best[column] = path, value
            discards.append(Discard(column, to_json(loser), "same_column"))
    return dict(_cell(column, value, declared) for column, (_, value) in best.items())


def _unstorable(value: Any) -> str:
    """Returns the reason why a value cannot be stored (`is_storable`)."""
    return "not_text" if isinstance(value, str) and not isinstance(value, JsonNumber) else "not_a_number"


def _key(path: tuple[str, ...]) -> str:
    """Returns a key as it was sent, with the keys of the objects that hold it."""
    return ".".join(part if is_encodable(part) else to_json(part)[1:-1] for part in path)


def _cell(column: str, value: Any, declared: frozenset[str]) -> tuple[str, str]:
    if column not in declared:
        return EXTRA + column, to_json(value)
    if DECLARED_TYPES.get(column, "text") != "text":
        return column, to_json(value)
    return column, str(value) if isinstance(value, str) else to_json(value)


def _short(value: Any) -> str:
    text = "nothing" if value is None else to_json(value)
    return text if len(text) <= 60 else text[:57] + "..."
