"""Explains why a line is not JSON: where, what is there, and the likely cause.

(docs/contract/warehouse.md#rejects-and-discards)
"""

import json

from ..catalog import REJECT_REASONS

MAX_QUOTED = 40  # characters of a line that are quoted
ON_ONE_LINE = "several objects on one line: each needs a line of its own"
NO_LINE_ENDS = "a file without line ends: each object needs a line of its own"
JSON_ARRAY = "a JSON array: each object needs a line of its own, without brackets and commas"
SPREAD = "JSON over several lines: each object needs one line"
UTF_16 = "UTF-16: convert the file to UTF-8"
TWICE = "gzip within gzip: decompress the file once"

_GZIP = b"\x1f\x8b"
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")
_BRACKETS = frozenset({"{", "}", "[", "]", "},", "],"})  # lines of indented JSON


def not_utf8(line: bytes, error: UnicodeDecodeError) -> str:
    """Returns what is wrong with a line that is not UTF-8.

    Example: `not UTF-8 at byte 0: invalid start byte: \\xff\\xfe{ (UTF-16: convert the file to UTF-8)`.
    """
    quoted = line[error.start : error.start + MAX_QUOTED].decode(errors="backslashreplace")
    cause = TWICE if line.startswith(_GZIP) else UTF_16 if _is_utf16(line) else None
    return _message(f"not UTF-8 at byte {error.start}: {error.reason}", quoted, cause)


def not_json(line: bytes, error: json.JSONDecodeError) -> str:
    """Returns what is wrong with a line that is not JSON.

    Example: `not JSON: Extra data at character 7: {"a":2} (several objects on one line: each needs …)`.
    """
    text, quoted = error.doc, error.doc[error.pos : error.pos + MAX_QUOTED]
    before, after = text[: error.pos].rstrip(" \t"), text[error.pos :].strip()
    cause = None
    if _is_utf16(line):
        cause = UTF_16
    elif before.endswith(("}", "}\r", "}\r\n")) and after.startswith("{"):
        cause = NO_LINE_ENDS if before.endswith("\r") else ON_ONE_LINE
    elif text.lstrip().startswith("[{") or (before.endswith("}") and after.startswith(",")):
        cause = JSON_ARRAY
    elif text.strip() in _BRACKETS or (before.endswith('"') and after.startswith(":")):
        cause = SPREAD
    what = error.msg.removesuffix(" at")  # as in "Unterminated string starting at"
    return _message(f"{REJECT_REASONS['not_json']}: {what} at character {error.pos}", quoted, cause)


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


def _is_utf16(line: bytes) -> bool:
    """Returns whether a line begins with UTF-16's byte-order mark, or about every second byte is NUL.

    Latin letters in UTF-16 have such bytes.
    """
    return line.startswith(_BYTE_ORDER_MARKS) or len(line) < 3 * line.count(0) <= 2 * len(line)
