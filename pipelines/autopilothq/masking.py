"""Secrets, kept out of all text that leaves the program: errors, log lines, tracebacks, notes to a webhook.

What is masked are the values that were configured: what `remember` was told, what dlt's providers of secrets hold, and
what the environment holds under the names of secrets. They are found as they are spelt and in every encoding that a
URL, JSON or Python's `repr` gives them, and so are the pieces of a connection string that could not be read. A pattern
for passwords in URLs comes last, for those that nobody configured.
"""

import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TextIO
from urllib.parse import unquote, unquote_plus

import dlt

MASK = "***"
SHORTEST = 4  # characters; a shorter secret is masked beside its neighbours in the connection string alone

# Names of settings and of variables of the environment whose values are secret.
_SECRET = re.compile(r"(?i)pass(word|wd|phrase)|secret|token$|(^|_)(key|pat)$|api_?key")
_NAMES = re.compile(r"(?i)(^|_)(credentials|url|dsn|connection_string)$")  # connection strings, which hold one
_HOOK = re.compile(r"(?i)hook(_url)?$")
_NO_SECRET = re.compile(r"(?i)(public_key|primary_key|merge_key|sort_key|_(id|file|path|dir|name|uri|arn))$")
_NO_VALUES = ("true", "false", "none", "null")

# Bounded, or a text of a stranger's with many beginnings and no end would be searched to its end from each.
_IN_TEXT = re.compile(r"(?<=from string ').{,2000}(?=')|(?<=://)[^/\s@]{,250}:\S{1,1000}(?=@)")
_NO_PORT = re.compile(r"[^:/?#\[]*:(?!\d+(?:[/?#]|$))")  # what stands between host and path that no port is
_PAIR = re.compile(r"""(?ix)(?:pass(?:word|wd|phrase)?|pwd|secret|token|[a-z_]*key|sig(?:nature)?)["']?\s*[=:]\s*
    (?:'([^']*)'?|"([^"]*)"?|([^&;\s"']+))""")
_DELIMITER = re.compile(r"[:/@?#&=;,%+\s'\"\[\]]")
_MOST_PIECES = 24  # of a connection string; each pair of its delimiters bounds one that may be told alone

_remembered: dict[str, None] = {}
_strings: dict[str, None] = {}
_hooks: dict[str, None] = {}


def remember_secret(secret: str) -> None:
    """Has a secret masked from now on, in this process."""
    _remembered[secret] = None


def remember_credentials(text: str) -> None:
    """Has the secret parts of a connection string masked, also where it is one that cannot be read."""
    _strings[text] = None


def remember_hook(url: str) -> None:
    """Has the path and the query of a webhook's URL masked: whoever has them may post."""
    _hooks[url] = None


def masked(text: str) -> str:
    """Returns the text with `***` in the place of every secret.

    Example: after `remember("tr/ick")` the text `"no tr%2Fick here"` is `"no *** here"`.
    """
    for piece in _in_order(_pieces()):
        if _core(piece.text) in text:  # most texts have none, and this tells quickly
            text = _pattern(piece.text).sub(piece.instead.replace("\\", r"\\"), text)
    return _IN_TEXT.sub(MASK, text)


class Masked:
    """A text stream that writes to another one, without secrets: for all that libraries and Python itself print."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Writes the text masked; returns how long it was."""
        self.stream.write(masked(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes the lines masked."""
        self.stream.writelines(map(masked, lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


# ---- what is secret ------------------------------------------------------------------------------------------------


class _Piece(NamedTuple):
    """What is masked: a whole secret, or a part of one with its neighbours; and what stands in its place."""

    text: str
    instead: str = MASK
    whole: bool = True


def _in_order(pieces: Iterable[_Piece]) -> list[_Piece]:
    """Each piece once: whole secrets first, then their parts, and each before those that are part of it."""
    known: dict[str, _Piece] = {}
    for piece in pieces:
        if len(piece.text) >= SHORTEST:
            known.setdefault(piece.text, piece)
    return sorted(known.values(), key=lambda piece: (not piece.whole, -len(piece.text)))


def _pieces() -> Iterator[_Piece]:
    """The secrets, and what stands in their place."""
    secrets, strings, hooks = dict(_remembered), dict(_strings), dict(_hooks)
    for name, value in _configured():
        if _HOOK.search(name):
            hooks[value] = None
        elif _NAMES.search(name):
            strings[value] = None
        elif _SECRET.search(name) and not _NO_SECRET.search(name) and value.lower() not in _NO_VALUES:
            secrets[value] = None
    for string in strings:
        yield from _of_string(string)
    for url in hooks:
        yield from _of_hook(url)
    for secret in secrets:
        yield from map(_Piece, _spellings(secret))


def _configured() -> Iterator[tuple[str, str]]:
    """Names and values of the environment, and of what dlt's other providers have read."""
    yield from os.environ.items()
    try:
        documents = [provider.to_toml() for provider in dlt.secrets.config_providers if hasattr(provider, "to_toml")]
        tables = [tomllib.loads(document) for document in documents]
    except Exception:  # noqa: BLE001 - settings that cannot be read are told elsewhere, and nobody has used one
        return
    for table in tables:
        yield from _leaves(table)


def _leaves(table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        elif not isinstance(value, bool):
            yield name, str(value)


def _spellings(secret: str) -> Iterator[str]:
    """A secret as it is, as a URL spells it out, and its lines where it has several, as keys in PEM have."""
    yield from (secret, secret.strip(), unquote(secret), unquote_plus(secret))
    if "\n" in secret:
        yield from (line.strip() for line in secret.splitlines())


def _of_string(string: str) -> Iterator[_Piece]:
    """Of a connection string, what is secret, and every part between two delimiters that a driver may repeat of it."""
    for start, end in _spans(string):
        yield from map(_Piece, _spellings(string[start:end]))
        bounds = [(match.end(), match.start()) for match in _DELIMITER.finditer(string)]
        starts = [0, *(after for after, _ in bounds if after < end)][-_MOST_PIECES:]
        ends = [*(before for _, before in bounds if before > start), len(string)][:_MOST_PIECES]
        for first in starts:
            for last in ends:
                if last - first >= SHORTEST:
                    instead = f"{string[first : max(first, start)]}{MASK}{string[min(last, end) : last]}"
                    yield _Piece(string[first:last], instead, whole=False)


def _spans(string: str) -> Iterator[tuple[int, int]]:
    """Where the secrets of a connection string are; too much where it can be read in two ways."""
    scheme = string.find("://")
    begin = scheme + 3 if scheme >= 0 else 0
    colon, at = string.find(":", begin), string.rfind("@")
    if string.lstrip().startswith("{"):  # JSON
        pass
    elif 0 <= colon < at:
        yield colon + 1, at
    elif at < 0 <= scheme and (found := _NO_PORT.match(string, begin)):
        yield found.end(), len(string)
    for pair in _PAIR.finditer(string):
        if pair.lastindex:
            yield pair.span(pair.lastindex)


def _of_hook(url: str) -> Iterator[_Piece]:
    """Of a webhook's URL, all behind its host, and each part that reaches to its end."""
    host = re.match(r"[\w+.-]*:?//[^/?#]*", url)
    rest = url[host.end() :] if host else url
    starts = [0, *(match.end() for match in _DELIMITER.finditer(rest))]
    yield from (_Piece(spelt) for start in starts for spelt in _spellings(rest[start:]))
    yield from _of_string(url)


# ---- how it may be spelt -------------------------------------------------------------------------------------------


@lru_cache(4096)
def _core(secret: str) -> str:
    """The longest part of a secret that is spelt alike everywhere."""
    return max(re.split("[^0-9A-Za-z]+", secret), key=len)


@lru_cache(4096)
def _pattern(secret: str) -> re.Pattern[str]:
    """Finds a secret with any of its characters as they are, percent-encoded, or escaped as JSON and `repr` do."""
    return re.compile("".join(map(_spelt, secret)))


def _spelt(char: str) -> str:
    if char.isascii() and char.isalnum():
        return char
    data = char.encode("utf-8", "surrogatepass")
    escapes = {char, json.dumps(char)[1:-1], repr(char)[1:-1], f"\\{char}", "".join(f"\\x{byte:02x}" for byte in data)}
    ways = ["".join(f"%(?:25)?(?i:{byte:02x})" for byte in data)]
    ways += sorted(map(re.escape, escapes), key=len, reverse=True)
    return f"(?:{'|'.join(ways + [re.escape('+')] * (char == ' '))})"
