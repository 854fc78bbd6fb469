"""Prepares texts for the search for ids: decodes JSON's escapes, folds case, and finds where an email ends."""

import re
import unicodedata
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from ..segment.identity import fold

_NOT_IN_EMAILS = '"<>()[]{},;:=\\|@'  # an email can begin right after any of these
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


def decode_letter_escapes(keys: pa.Array, texts: pa.Array, without: Iterable[str] = ()) -> pa.Table:
    """Returns a table (`key`, `text`) of texts in which JSON's escapes of letters (`\\u…`) are decoded.

    Escapes of quotes, backslashes and control characters stay. The strings in `without` are removed. Texts can be any
    bytes.
    """
    try:
        texts = texts.cast(pa.large_string())
    except pa.ArrowInvalid:
        texts = pa.array([text.decode(errors="replace") for text in texts.to_pylist()], pa.large_string())
    for character in without:
        if pc.any(pc.match_substring(texts, character)).as_py():
            texts = pc.replace_substring(texts, character, "")
    table = pa.table({"key": keys, "text": texts})
    escaped = pc.match_substring(texts, "\\u")
    written = table.filter(escaped)
    texts = pa.array(map(_decode_letters, written["text"].to_pylist()), pa.large_string())
    return pa.concat_tables([table.filter(pc.invert(escaped)), written.set_column(1, "text", texts)])


def _decode_letters(text: str) -> str:
    def letter(escape: re.Match[str]) -> str:
        code = int(escape[1] or "0", 16)
        return escape[0] if code < 0x20 or code in (0x22, 0x5C) else chr(code)

    return _join_surrogates(_ESCAPE.sub(letter, text))


def unescape(text: str) -> str:
    r"""Returns a JSON text with its escapes decoded; everything else stays as it is.

    Example: `unescape(r"a\u0040b\n") == "a@b\n"`.
    """

    def character(escape: re.Match[str]) -> str:
        return chr(int(escape[1], 16)) if escape[1] else _ESCAPED.get(escape[2], escape[2])

    return _join_surrogates(_ESCAPE.sub(character, text))


def _join_surrogates(text: str) -> str:
    """Returns the text with each pair of surrogates joined into one character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def searchable(text: str) -> str:
    """Returns the text in the form that the search for ids uses: unescaped, with case folded."""
    return fold(unescape(text))


def contains_email(text: str, email: str) -> bool:
    """Returns whether a text contains an email, and not only as part of a longer one.

    Example: `contains_email("to a@b.de.", "a@b.de") and not contains_email("aa@b.de", "a@b.de")`.
    """
    at = text.find(email)
    while at >= 0:
        before, end = text[max(0, at - 1) : at], at + len(email)
        after = text[end : end + 64].lstrip(".")[:1]  # an email can end a sentence
        if (not before or before.isspace() or before in _NOT_IN_EMAILS) and not _continues_domain(after):
            return True
        at = text.find(email, at + 1)
    return False


def _continues_domain(character: str) -> bool:
    """Returns whether a character continues a domain; "" is the end of the text."""
    return character != "" and (unicodedata.category(character)[0] in "LMN" or character in "-_@\u200c\u200d")
