"""Turns rows back into messages, with everything that the dataset has of them (docs/contract/warehouse.md#values).

`segment.rebuild` makes messages for `forward`, without what their receiver stamps. Here, the times of receipt and of
sending are kept, and values that did not fit their column are put back from `_discards`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from json.encoder import encode_basestring
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..catalog import COMMON_NAMES, Type
from ..segment.json_text import DECODER, to_json
from ..segment.message import BODIES, OWN_FIELDS, TIMESTAMP_FIELDS
from ..segment.naming import column_name, snake_case
from ..segment.rebuild import CONTEXT_PATHS, MESSAGE_KEYS, array_text, property_key
from .values import Encoder

CELLS_OF_TEMPLATES = 100_000  # cells in all templates of a table that are cached, about 10 MB
_NONE: Mapping[str, Encoder] = MappingProxyType({})
_TOP = {**MESSAGE_KEYS, **TIMESTAMP_FIELDS, "event_text": "event"}


# The order of putting values back: one that lost its column to another key comes after that key's, and one without a
# column, whose key may be there already, comes last.
_LATER = {"same_column": 1, "no_column": 2}


class DiscardedValue(NamedTuple):
    """A value of `_discards`: its column (or key, if it has no column), its JSON text and the reason."""

    column: str
    value: str
    reason: str


class MessageRows:
    """Turns the rows of a table of messages into lines; `kind` is the messages' type, `types` are the columns' types.

    `numbers` maps the columns that hold numbers as text to the functions that make JSON of them.
    Example: `MessageRows("track", {"id": "text", …}).lines(batch, {})`.
    """

    def __init__(self, kind: str, types: Mapping[str, Type], numbers: Mapping[str, Encoder] = _NONE) -> None:
        self._kind = kind
        self.columns = list(types)
        self._body = BODIES[kind]
        self._types = types
        own = OWN_FIELDS[kind].keys()
        self._top = {name for name in self.columns if name in _TOP and name in COMMON_NAMES} | own
        others = {name: encode for name, encode in numbers.items() if name not in self._top}  # ids are text
        self._encoders = [others.get(name) or _encoder(types[name], name in self._top) for name in self.columns]
        self._template = lru_cache(max(1, CELLS_OF_TEMPLATES // len(types)))(self._new_template)

    def lines(self, batch: pa.RecordBatch, discards: Mapping[str, Sequence[DiscardedValue]]) -> Iterator[bytes]:
        """Yields the line of each row. `discards` are the rows' discarded values, by the rows' ids."""
        texts, filled = self._texts(batch)
        ids = batch.column(self.columns.index("id")).to_pylist() if discards else repeat(None, len(batch))
        times = Counter(filled)
        for id_, which, row in zip(ids, filled, zip(*texts, strict=True), strict=True):
            if id_ in discards or times[which] == 1:  # a template that is used once costs more than it saves
                cells = {name: text for name, text in zip(self.columns, row, strict=True) if text is not None}
                yield self._line(cells, discards.get(id_, ())).encode()
            else:
                yield self._template(which).line(row).encode()

    def _texts(self, batch: pa.RecordBatch) -> tuple[list[list[str | None]], list[bytes]]:
        """Returns the JSON texts of the cells by column, and for each row a bit per column: whether it has a value."""
        texts: list[list[str | None]] = []
        filled = np.empty((len(self.columns), len(batch)), np.bool_)
        none: list[str | None] = [None] * len(batch)
        for number, column in enumerate(batch.columns):
            nulls = column.null_count
            filled[number] = column.is_valid() if 0 < nulls < len(batch) else not nulls
            of, encode = self._types[self.columns[number]], self._encoders[number]
            texts.append(none if nulls == len(batch) else _texts(column, of, encode))
        return texts, [bits.tobytes() for bits in np.packbits(filled, axis=0).T]

    def _new_template(self, filled: bytes) -> "_Template":
        """Returns the template of the lines of rows that have values in these columns and in no others."""
        numbers = np.flatnonzero(np.unpackbits(np.frombuffer(filled, np.uint8))).tolist()
        return _Template(self._line({self.columns[number]: f"\0{number}\0" for number in numbers}, ()))

    def _line(self, cells: dict[str, str], discards: Sequence[DiscardedValue]) -> str:
        """Returns the line for cells that are JSON text."""
        slug = cells.pop("event", None)
        top = {"type": f'"{self._kind}"'}
        context: dict[str, Any] = {}
        body: dict[str, str] = {}
        for name, text in cells.items():
            if name in self._top:
                top[_TOP.get(name, name)] = text
            elif name.startswith("context_"):
                _put(context, _context_path(name, cells), text)
            else:
                body[property_key(name, self._kind)] = text
        for discard in sorted(discards, key=lambda discard: _LATER.get(discard.reason, 0)):
            self._put_back(discard, slug, top, context, body)
        if self._kind == "track":
            top.setdefault("event", slug or '""')
        if context:
            top["context"] = _object(context)
        if body and self._body:
            top[self._body] = _object(body)
        return f"{_object(top)}\n"

    def _put_back(
        self,
        discard: DiscardedValue,
        slug: str | None,
        top: dict[str, str],
        context: dict[str, Any],
        body: dict[str, Any],
    ) -> None:
        column, value, reason = discard
        if column in self._top:
            # A key that lost its column cannot be put back, because a message has each top-level key once.
            if reason != "same_column":
                _put_back_on_top(column, value, top, _emails(context, body))
            return
        if column in ("context", self._body) and value.startswith("{"):
            return  # this is a second `context` or body, because a property's value is never an object
        has_no_table = self._kind == "track" and slug is None  # then all of its properties are discarded
        if reason == "no_column" and (path := self._path_without_column(column)):
            _put_without_column(context if path[0] == "context" else body, path[1:], value)
        elif column.startswith("context_"):
            _put(context, _context_path(column, context), value)
        elif has_no_table or reason != "no_column":
            _put(body, (column if has_no_table else property_key(column, self._kind),), value)

    def _path_without_column(self, key: str) -> tuple[str, ...] | None:
        """Returns the path of a value without a column, from its key in `_discards`; None if it is not certain."""
        for part in (key.split("."), [_unescaped(part) for part in key.split(".")]):
            path = tuple(part)
            if path[0] in ("context", self._body) and not column_name(path):
                return path
        return None


# ---- JSON text -----------------------------------------------------------------------------------------------------


class _Template:
    """A line in which `\\0<number>\\0` stands for the row's text with this number."""

    def __init__(self, line: str) -> None:
        self._parts: list[Any] = list(line.split("\0"))
        numbers = [int(number) for number in line.split("\0")[1::2]]
        # With a single number, `itemgetter` would not return a tuple.
        self._values = itemgetter(*numbers) if len(numbers) > 1 else lambda row: [row[number] for number in numbers]

    def line(self, row: Sequence[str | None]) -> str:
        """Returns the line of a row."""
        self._parts[1::2] = self._values(row)
        return "".join(self._parts)


def _unescaped(part: str) -> str:
    """Returns a key without the escapes that it has in `_discards` for characters that no warehouse stores."""
    try:
        return str(DECODER.decode(f'"{part}"'))
    except ValueError:
        return part


def _put_back_on_top(column: str, value: str, top: dict[str, str], emails: Sequence[Any]) -> None:
    """Puts a discarded value back under its top-level key, where the row may have what a load used instead."""
    if column == "received_at" and top.get("receivedAt") == _received_fallback(top):
        top["receivedAt"] = value
    elif column == "anonymous_id" and top.get("anonymousId") in emails:
        top["anonymousId"] = value
    else:
        top.setdefault(_TOP.get(column, column), value)


def _received_fallback(top: Mapping[str, str]) -> str | None:
    """Returns the time that a load uses if the time of receipt cannot be read."""
    return next((top[key] for key in ("sentAt", "timestamp", "originalTimestamp") if key in top), None)


def _emails(context: Mapping[str, Any], body: Mapping[str, Any]) -> list[Any]:
    """Returns the contact's emails, one of which a load uses as the anonymous id if there is no id."""
    traits = context.get("traits")
    return [body.get("email"), *([traits.get("email")] if isinstance(traits, dict) else [])]


def _context_path(column: str, cells: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the path of a column below `context`, or a single key if the column of its object has a value as well."""
    plain = column.removeprefix("context_")
    path = CONTEXT_PATHS.get(column, (plain,))
    clash = len(path) > 1 and (f"context_{snake_case(path[0])}" in cells or isinstance(cells.get(path[0]), str))
    return (plain,) if clash else path


def _put(into: dict[str, Any], path: Sequence[str], text: str) -> None:
    """Puts JSON text at a path (see `_context_path`). Appends blanks to a taken key, which do not change its column."""
    for part in path[:-1]:
        into = into.setdefault(part, {})
    key = path[-1]
    while key in into:
        key += " "
    into[key] = text


def _put_without_column(into: dict[str, Any], path: Sequence[str], text: str) -> None:
    """Puts the JSON text of a value without a column at a path. If one of its keys is taken, that key is repeated."""
    for number, key in enumerate(path):
        before = into.get(key)
        if isinstance(before, str) or number == len(path) - 1:
            for part in reversed(path[number + 1 :]):
                text = _object({part: text})
            into[key] = text if before is None else f"{_json(before)},{to_json(key)}:{text}"
            return
        into = into.setdefault(key, {})


def _object(values: Mapping[str, Any]) -> str:
    return "{" + ",".join([f"{_key(key)}:{_json(value)}" for key, value in values.items()]) + "}"


_key = lru_cache(10_000)(to_json)


def _json(value: Any) -> str:
    """Returns JSON text, or an object whose leaves are JSON text, as JSON text."""
    return _object(value) if isinstance(value, dict) else str(value)


def _encoder(of: Type, top: bool) -> Encoder:
    """Returns the function that turns a column's cells, as `_texts` reads them, into JSON text."""
    if of == "text":
        return encode_basestring if top else _text
    encoders: dict[str, Encoder] = {"bool": _boolean, "bigint": str, "double": repr, "timestamp": _time}
    return encoders[of]


def _texts(column: pa.Array, of: Type, encode: Encoder) -> list[str | None]:
    """Returns the JSON texts of a column's cells."""
    if of == "timestamp":  # made from text, which is much faster
        column = column.cast(pa.timestamp("us")).cast(pa.string())
    cells = column.to_pylist()
    if encode is _text:  # called only for what may be an array
        return [None if cell is None else _text(cell) if cell[:1] == "[" else encode_basestring(cell) for cell in cells]
    return [None if cell is None else encode(cell) for cell in cells]


def _text(text: str) -> str:
    return array_text(text) or encode_basestring(text)


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _time(text: str) -> str:
    """Returns a time as JSON text. Example: `_time("2019-03-04 05:06:07.412000") == '"2019-03-04T05:06:07.412Z"'`."""
    of_day = text[11:-3] if text.endswith("000") else text[11:]
    return f'"{text[:10]}T{of_day}Z"'
