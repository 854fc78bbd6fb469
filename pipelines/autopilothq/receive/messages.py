"""Turns the body of a request into lines of the archive, and adds the keys that Segment adds to messages.

Values stay the bytes that were sent: only the keys of a message and of its envelope are parsed
(docs/contract/push.md#what-a-message-lacks).
"""

import base64
import functools
import hashlib
import json
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

import msgspec

from ..segment.json_text import DECODER, JsonObject, is_id, to_json
from ..utc import format_time, to_utc

JsonFields = dict[str, msgspec.Raw]
"""The keys of a JSON object, with their values as JSON text."""

WRITE_KEY = "writeKey"
NULL = msgspec.Raw(b"null")
ABSENT = (b"null", b'""')
NUL = b"\0"
STAMPS = 300  # bytes that are added to a message without times and an id
MOST_ADDED = 64 << 20  # bytes by which lines may exceed their body, because each repeats parts of the envelope
_BETWEEN = re.compile(r"[ \t\n\r,]*")  # what is between the elements of an array
_MERGED = ("context", "integrations")
_OF_ENVELOPE = (*_MERGED, "sentAt")
_WITH_WRITE_KEYS = ("context", "batch")  # an object with `batch` is an envelope that was sent to the wrong path
_EACH_TIME = ("messageId", "sentAt")  # keys that can differ when a message is sent again
_fields = msgspec.json.Decoder(JsonFields).decode
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_text = msgspec.json.Decoder(str).decode


class InvalidJson(Exception):
    """The body is not JSON; the argument is the place and the cause."""


class TooLarge(Exception):
    """The lines of a body would have too many bytes; the argument states the limit."""


class Body(NamedTuple):
    """A parsed body: `elements` are those of an array, or the body alone; `envelope` has the keys of an object."""

    elements: list[msgspec.Raw]
    envelope: JsonFields
    first: bytes
    """The first element of an array, as it was sent."""
    repeated: bytes = b""
    """The repeated keys of an object, as JSON text."""

    @property
    def write_key(self) -> str | None:
        """The write key in an object, or None."""
        return text_of(self.envelope.get(WRITE_KEY))


class Envelope(NamedTuple):
    """The keys of a batch that apply to all its messages, and repeated ones among them, with values as JSON text."""

    fields: JsonFields
    repeated: Sequence[tuple[str, bytes]] = ()


class Arrival(NamedTuple):
    """How a message arrived: the time of receipt, the type of message that its route has, and its endpoint's name."""

    at: datetime
    kind: str | None = None
    name: str = ""


class ArchiveLines(NamedTuple):
    """Lines of the archive with their line ends, their number, and how many of them request a person's deletion."""

    data: bytes = b""
    lines: int = 0
    deletions: int = 0


def parse_body(body: bytes) -> Body:
    """Parses a body. Raises InvalidJson if it is not JSON.

    Example: `parse_body(b'{"type":"track"}').envelope["type"]` is the JSON text `"track"`.
    """
    body = body.removeprefix(b"\xef\xbb\xbf").strip()
    if body.startswith(b"["):
        elements = _read_elements(body)
        return Body(elements, {}, bytes(elements[0]) if elements else b"")
    if body.startswith(b"{"):
        fields, repeated = _read_message(body)
        return Body([msgspec.Raw(body)], fields, b"", repeated)
    _decoded(body)
    return Body([msgspec.Raw(body)], {}, b"")


def lines_of(body: Body, arrival: Arrival, batch: bool = False) -> ArchiveLines:
    """Returns the lines of a body's messages. With `batch`, an object is the envelope of the messages in its `batch`.

    Other values become lines as well, and the load reports what is wrong with them. Raises TooLarge.
    """
    elements, envelope = body.elements, Envelope({})
    if batch and "batch" in body.envelope:
        with suppress(InvalidJson):  # if it is not an array, the envelope itself is kept
            elements, envelope = _read_batches(body), _envelope(body)
    each = sum(len(bytes(envelope.fields.get(key, NULL))) for key in _OF_ENVELOPE)
    check_added(len(elements) * (STAMPS + each + len(_repeated(envelope.repeated, _OF_ENVELOPE))))
    lines, deletions = [], 0
    for element in elements:
        line, deletes = _line(bytes(element), envelope, arrival)
        lines.append(line)
        deletions += deletes
    lines.append(b"")
    return ArchiveLines(b"\n".join(lines), len(elements), deletions)


def adapted_lines(body: Body, arrival: Arrival, adapt: Callable[[bytes], Sequence[bytes] | None]) -> ArchiveLines:
    """Returns the lines that `adapt` makes of a body's elements. If it returns None, the element is a message itself.

    Raises TooLarge as `check_added` does.
    """
    made, added = [], 0
    for element in body.elements:
        found = adapt(bytes(element))
        if found is None:
            made.append(lines_of(body._replace(elements=[element]), arrival))
        else:
            made.append(ArchiveLines(b"".join(line + b"\n" for line in found), len(found)))
        added += len(made[-1].data) - len(bytes(element))
        check_added(added)
    data = b"".join(each.data for each in made)
    return ArchiveLines(data, sum(each.lines for each in made), sum(each.deletions for each in made))


def check_added(added: int) -> None:
    """Raises TooLarge if lines would have more than MOST_ADDED bytes more than their body."""
    if added > MOST_ADDED:
        raise TooLarge(
            f"Expected a body whose lines in the archive have at most {MOST_ADDED:,} bytes more than the body itself."
        )


def kept_line(body: bytes) -> ArchiveLines:
    """Returns the line of a body that cannot be parsed: its text, or its bytes in base64. The load rejects it."""
    try:
        body.decode()
    except UnicodeDecodeError:
        body = b"base64:" + base64.b64encode(body)
    return ArchiveLines((_one_line(body).strip() or b'""') + b"\n", 1)


def text_of(value: msgspec.Raw | None) -> str | None:
    """Returns the text of a JSON string, or None for any other value."""
    if value is None:
        return None
    try:
        return _text(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _line(element: bytes, envelope: Envelope, arrival: Arrival) -> tuple[bytes, bool]:
    """Returns the line of a message, and whether it requests a person's deletion."""
    if not element.startswith(b"{"):
        return _one_line(_without_keys(element)), False
    fields, repeated = _read_message(element)
    if b"writeKey" in element or b"\\u" in element:  # the key may be spelt with escapes
        repeated = _remove_keys(fields, repeated)
    if arrival.kind is not None:
        fields["type"] = _json(arrival.kind)
    if not _is_id(sent := fields.get("messageId", NULL)):
        fields["messageId"] = _json(_digest(fields))
        if bytes(sent) not in ABSENT:  # the load uses the first id, and reports the other
            repeated = b',"messageId":' + bytes(sent) + repeated
    taken = {"sentAt"} if _is_missing(fields, "sentAt") else set[str]()
    for key in _MERGED:
        if key in envelope.fields:
            fields[key] = _merged(envelope.fields[key], fields.get(key))
            taken.add(key)
    if "sentAt" in taken and "sentAt" in envelope.fields:
        fields["sentAt"] = envelope.fields["sentAt"]
    repeated += _repeated(envelope.repeated, taken)
    _stamp(fields, arrival.at)
    return _one_line(_encoded(fields, repeated)), bytes(fields.get("type", NULL)) == b'"delete"'


def _remove_keys(fields: JsonFields, repeated: bytes) -> bytes:
    """Removes write keys, which are never stored, from a message; returns its repeated keys without write keys."""
    fields.pop(WRITE_KEY, None)
    fields |= {key: msgspec.Raw(_without_keys(bytes(fields[key]))) for key in _WITH_WRITE_KEYS if key in fields}
    others = _without_keys(b"{%b}" % repeated[1:])[1:-1]
    return others and b"," + others


def _without_keys(value: bytes) -> bytes:
    """Returns an object or an array without write keys, and any other value unchanged."""
    if value.startswith((b"[", b"{")):
        with suppress(InvalidJson, RecursionError):
            found = _decoded(value)
            bare = _bare(found)
            return value if bare == found else to_json(bare).encode()
    return value


def _bare(value: object) -> object:
    if isinstance(value, JsonObject):
        return JsonObject((k, _bare(inner) if k in _WITH_WRITE_KEYS else inner) for k, inner in value if k != WRITE_KEY)
    return list(map(_bare, value)) if isinstance(value, list) else value


def _stamp(fields: JsonFields, at: datetime) -> None:
    """Adds missing times as Segment does: of receipt, as sent, and corrected for the error of the sender's clock."""
    if _is_missing(fields, "receivedAt"):
        fields["receivedAt"] = _json_time(at)
    as_sent, corrected = _is_missing(fields, "originalTimestamp"), not _is_missing(fields, "timestamp")
    if not as_sent and corrected:
        return
    if as_sent:
        fields["originalTimestamp"] = fields["timestamp"] if corrected else fields["receivedAt"]
    original = fields["originalTimestamp"]
    times = [_time(text_of(value)) for value in (fields["receivedAt"], fields.get("sentAt"), original)]
    received, sent, happened = times
    fields["timestamp"] = original
    if received and sent and happened:
        with suppress(OverflowError):  # a clock that is wrong by thousands of years
            fields["timestamp"] = _json_time(received - (sent - happened))


def _digest(fields: JsonFields) -> str:
    """Returns an id for a message that has none; it is the same each time that the message is sent."""
    parts = (part for key, value in sorted(fields.items()) if key not in _EACH_TIME for part in _sizes((key, value)))
    return f"sha256-{hashlib.sha256(NUL.join(parts)).hexdigest()}"


def _merged(under: msgspec.Raw, own: msgspec.Raw | None) -> msgspec.Raw:
    """Returns the envelope's value, overridden by the message's own keys."""
    if own is None or bytes(own) == b"null":
        return under
    if not (bytes(own).startswith(b"{") and bytes(under).startswith(b"{")):
        return own
    (fields, repeated), (own_fields, own_repeated) = _read_message(bytes(under)), _read_message(bytes(own))
    stay = _repeated(_pairs(repeated), fields.keys() - own_fields.keys()) if repeated else b""
    return msgspec.Raw(_encoded(fields | own_fields, stay + own_repeated))


def _is_missing(fields: Mapping[str, msgspec.Raw], key: str) -> bool:
    return bytes(fields.get(key, NULL)) in ABSENT


def _is_id(value: msgspec.Raw) -> bool:
    """Returns whether the load accepts a value as an id. With any other, a message sent twice would be stored twice."""
    json_text = bytes(value)
    if json_text.startswith(b'"'):
        return is_id(text_of(value))
    return json_text in (b"true", b"false") or json_text[-1:].isdigit()


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return to_utc(datetime.fromisoformat(text.strip()))
    except ValueError:
        return None


@functools.lru_cache(maxsize=64)  # all messages of a request have the same time
def _json_time(time: datetime) -> msgspec.Raw:
    return _json(format_time(time, exact=True))


def _json(text: str) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(text))


def _one_line(text: bytes) -> bytes:
    """Returns JSON text on one line. JSON can have line breaks only between tokens."""
    return text.replace(b"\r", b" ").replace(b"\n", b" ")


# ---- JSON text -------------------------------------------------------------------------------------------------------


def _read_message(text: bytes) -> tuple[JsonFields, bytes]:
    """Returns the keys of an object, each with its first value, and the further values as `_repeated` returns them."""
    try:
        fields = _fields(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    else:
        compact = sum(len(key) + len(value) for key, value in map(_sizes, fields.items())) + 4 * len(fields) + 1
        if compact == len(text) or _number_of_keys(text) == len(fields):
            return fields, b""
    value = _decoded(text)
    if not isinstance(value, JsonObject):
        raise InvalidJson("Expected an object.")
    fields, repeated = {}, []
    for key, inner in value:
        if key in fields:
            repeated.append((key, to_json(inner).encode()))
        fields.setdefault(key, _raw(inner))
    return fields, _repeated(repeated, fields.keys())


def _repeated(pairs: Iterable[tuple[str, bytes]], keys: Container[str]) -> bytes:
    """Returns the pairs that have one of these keys, as JSON text to append to an object: `,"key":value` each."""
    return b"".join(b",%b:%b" % (to_json(key).encode(), value) for key, value in pairs if key in keys)


def _pairs(repeated: bytes) -> list[tuple[str, msgspec.Raw]]:
    """Returns the repeated keys of an object with their values; `repeated` is the text that `_read_message` returns."""
    found = _decoded(b"{%b}" % repeated[1:])
    return [(key, _raw(value)) for key, value in found] if isinstance(found, JsonObject) else []


def _read_elements(text: bytes) -> list[msgspec.Raw]:
    try:
        return _elements(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = _decoded(text)
    if not isinstance(value, list) or isinstance(value, JsonObject):
        raise InvalidJson("Expected an array.")
    return list(_cut(text.decode(errors="surrogateescape"), len(value)))


def _read_batches(body: Body) -> list[msgspec.Raw]:
    """Returns the messages in all keys `batch` of an envelope, because acknowledged messages are not sent again.

    A `batch` that is not an array is kept as a message. Raises InvalidJson if none is an array.
    """
    found, arrays = list[msgspec.Raw](), 0
    for batch in (body.envelope["batch"], *(value for key, value in _pairs(body.repeated) if key == "batch")):
        is_array = bytes(batch).startswith(b"[")
        found += _read_elements(bytes(batch)) if is_array else [batch]
        arrays += is_array
    if not arrays:
        raise InvalidJson("Expected an array.")
    return found


def _envelope(body: Body) -> Envelope:
    fields = {key: body.envelope[key] for key in _OF_ENVELOPE if key in body.envelope}
    repeated = _remove_keys(fields, body.repeated)
    return Envelope(fields, [(key, bytes(value)) for key, value in _pairs(repeated) if key in _OF_ENVELOPE])


def _cut(array: str, number: int) -> Iterator[msgspec.Raw]:
    """Yields the elements of an array as they were sent, because Segment signs the bytes of the first."""
    end = array.index("[") + 1
    for _ in range(number):
        start = _BETWEEN.match(array, end).end()  # type: ignore[union-attr] # it also matches nothing
        _, end = DECODER.raw_decode(array, start)
        yield msgspec.Raw(array[start:end].encode(errors="surrogateescape"))


def _decoded(text: bytes) -> object:
    """Decodes with Python's parser, which accepts more than msgspec: lone surrogates, NaN, repeated keys.

    Raises InvalidJson if the text is not JSON or nests too deeply.
    """
    try:
        return DECODER.decode(text.decode(errors="surrogateescape"))
    except RecursionError:
        raise InvalidJson("It is nested too deeply.") from None
    except ValueError as error:
        raise InvalidJson(str(error)) from None


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(to_json(value).encode())


def _sizes(pair: tuple[str, msgspec.Raw]) -> tuple[bytes, bytes]:
    return pair[0].encode(errors="surrogatepass"), bytes(pair[1])


_count_keys = json.JSONDecoder(object_pairs_hook=len).decode


def _number_of_keys(text: bytes) -> int:
    try:
        return int(_count_keys(text.decode(errors="replace")))
    except (ValueError, RecursionError):
        return -1


def _encoded(fields: JsonFields, repeated: bytes) -> bytes:
    try:
        text = msgspec.json.encode(fields)
    except UnicodeEncodeError:  # a lone surrogate in a key
        pairs = (to_json(key).encode() + b":" + bytes(value) for key, value in fields.items())
        text = b"{" + b",".join(pairs) + b"}"
    return text[:-1] + repeated + b"}" if repeated else text
