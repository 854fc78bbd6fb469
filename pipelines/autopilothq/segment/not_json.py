"""Explains why a line is not JSON: where, what is there, and the likely cause.

(docs/contract/warehouse.md#rejects-and-discards)
"""

import json
import re

from ..catalog import REJECT_REASONS

MAX_QUOTED = 40  # characters of a line that are quoted
ON_ONE_LINE = "several objects on one line: each needs a line of its own"
NO_LINE_ENDS = "a file without line ends: each object needs a line of its own"
JSON_ARRAY = "a JSON array: each object needs a line of its own, without brackets and commas"
SPREAD = "JSON over several lines: each object needs one line"
UTF_16 = "UTF-16: convert the file to UTF-8"
UTF_32 = "UTF-32: convert the file to UTF-8"
TWICE = "gzip within gzip: decompress the file once"
PACKED = "not gzip but {}: unpack it, and store its lines plain or as gzip"
TAR = "a tar archive: unpack it, and store its files one by one"
TABLE = "{}, a table and not messages: see `adopt`"
MARKUP = "HTML or XML, as in the answer of a server that failed: fetch the file again"
POINTER = "a pointer of Git LFS in place of the file: fetch the file with `git lfs pull`"

_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")
_BRACKETS = frozenset({"{", "}", "},", "],"})  # lines of indented JSON
_NAME = r'(?:"{0}"|{0})'.format(r"[^\W\d][\w .$()/-]*")  # in the header of a CSV file
_CSV_HEADER = re.compile(rf"{_NAME}([,;\t|]){_NAME}(?:\1{_NAME})*")
_TAR_HEADER = slice(257, 262)  # where the first 512 bytes of a tar archive have `ustar`
_SIGNATURES = {
    b"\x1f\x8b": TWICE,
    b"PK\x03\x04": PACKED.format("zip"),
    b"7z\xbc\xaf\x27\x1c": PACKED.format("7z"),
    b"BZh": PACKED.format("bzip2"),
    b"\xfd7zXZ": PACKED.format("xz"),
    b"PAR1": TABLE.format("Parquet"),
    b"Obj\x01": TABLE.format("Avro"),
    b"version https://git-lfs.": POINTER,
    b"\xff\xfe\0\0": UTF_32,
    b"\0\0\xfe\xff": UTF_32,
}
"""The likely causes by the first bytes of a file, which are those of its first line."""
CAUSES = (
    ON_ONE_LINE,
    NO_LINE_ENDS,
    JSON_ARRAY,
    SPREAD,
    UTF_16,
    MARKUP,
    TAR,
    TABLE.format("CSV"),
    *_SIGNATURES.values(),
)
"""All causes that the message of a reject may end with, in brackets."""


def not_utf8(line: bytes, error: UnicodeDecodeError) -> str:
    """Returns what is wrong with a line that is not UTF-8.

    Example: `not UTF-8 at byte 0: invalid start byte: \\xff\\xfe{ (UTF-16: convert the file to UTF-8)`.
    """
    quoted = line[error.start : error.start + MAX_QUOTED].decode(errors="backslashreplace")
    cause = _of_signature(line) or (UTF_16 if _is_utf16(line) else None)
    return _message(f"not UTF-8 at byte {error.start}: {error.reason}", quoted, cause)


def not_json(line: bytes, error: json.JSONDecodeError) -> str:
    """Returns what is wrong with a line that is not JSON.

    Example: `not JSON: Extra data at character 7: {"a":2} (several objects on one line: each needs …)`.
    """
    quoted = error.doc[error.pos : error.pos + MAX_QUOTED]
    cause = _of_signature(line) or (UTF_16 if _is_utf16(line) else _of_text(error.doc, error.pos))
    what = error.msg.removesuffix(" at")  # as in "Unterminated string starting at"
    return _message(f"{REJECT_REASONS['not_json']}: {what} at character {error.pos}", quoted, cause)


def _of_text(text: str, position: int) -> str | None:
    """Returns the likely cause, judged by the text of a line, or None. At `position` the text stops being JSON."""
    before, after, text = text[:position].rstrip(" \t"), text[position:].strip(), text.strip()
    if text.startswith("<"):
        return MARKUP
    if before.endswith(("}", "}\r", "}\r\n")) and after.startswith("{"):
        return NO_LINE_ENDS if before.endswith("\r") else ON_ONE_LINE
    if text in ("[", "]") or text.startswith("[{") or (before.endswith("}") and after.startswith(",")):
        return JSON_ARRAY
    if _CSV_HEADER.fullmatch(text):
        return TABLE.format("CSV")
    is_spread = text in _BRACKETS or (before.endswith('"') and after.startswith(":"))
    return SPREAD if is_spread else None


def too_long(start: bytes | bytearray) -> str | None:
    """Returns the likely reason why a line is too long, judged by its beginning; None if there is none.

    Example: `too_long(b'{"a":1}{"a":2}…')` begins with "a file without line ends".
    """
    start = start.lstrip()
    several = any(b"}" + between + b'{"' in start for between in (b"", b" ", b"\r"))
    return JSON_ARRAY if start.startswith(b"[") else NO_LINE_ENDS if several and start.startswith(b"{") else None


def _message(what: str, quoted: str, cause: str | None) -> str:
    shown = quoted.replace("\0", "\\x00").rstrip() or "the line ends there"
    return f"{what}: {shown}" + (f" ({cause})" if cause else "")


def _of_signature(line: bytes) -> str | None:
    """Returns the likely cause if a line begins like a file in another format, otherwise None."""
    if line[_TAR_HEADER] == b"ustar":
        return TAR
    return next((cause for start, cause in _SIGNATURES.items() if line.startswith(start)), None)


def _is_utf16(line: bytes) -> bool:
    """Returns whether a line begins with UTF-16's byte-order mark, or about every second byte is NUL.

    Latin letters in UTF-16 have such bytes.
    """
    return line.startswith(_BYTE_ORDER_MARKS) or len(line) < 3 * line.count(0) <= 2 * len(line)
