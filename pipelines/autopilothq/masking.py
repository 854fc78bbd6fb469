"""Masks secrets in all text that leaves the program: errors, log lines, tracebacks, notes to a webhook.

It masks configured values: those passed to `remember_secret`, `remember_credentials` and `remember_hook`, those in
dlt's secrets providers, and environment variables whose names suggest a secret. Each is found as it is written and in
every encoding of URLs, JSON and Python's `repr`; so are the pieces of a connection string that cannot be parsed. A
pattern for passwords in URLs comes last, for those that are not configured.
"""

import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TextIO
from urllib.parse import unquote, unquote_plus

MASK = "***"
MIN_LENGTH = 4  # characters; a shorter secret is masked only together with its neighbours in a connection string

# Names of settings and environment variables whose values are secret.
_SECRET = re.compile(r"(?i)pass(word|wd|phrase)|secret|token$|(^|_)(key|pat)$|api_?key")
_CONNECTION = re.compile(r"(?i)(^|_)(credentials|url|dsn|connection_string)$")  # connection strings, which hold secrets
_HOOK = re.compile(r"(?i)hook(_url)?$")
_NO_SECRET = re.compile(r"(?i)(public_key|primary_key|merge_key|sort_key|_(id|file|path|dir|name|uri|arn))$")
_NO_VALUES = ("true", "false", "none", "null")

# Bounded, because untrusted text with many beginnings of a match would otherwise be searched to its end from each.
_PASSWORD_IN_TEXT = re.compile(r"(?<=from string ').{,2000}(?=')|(?<=://)[^/\s@]{,250}:\S{1,1000}(?=@)")
_NO_PORT = re.compile(r"[^:/?#\[]*:(?!\d+(?:[/?#]|$))")  # a host and a colon that no port follows
_PAIR = re.compile(r"""(?ix)(?:pass(?:word|wd|phrase)?|pwd|secret|token|[a-z_]*key|sig(?:nature)?)["']?\s*[=:]\s*
    (?:'([^']*)'?|"([^"]*)"?|([^&;\s"']+))""")
_URL_END = re.compile(r"[?#]")  # what ends the path of a URL
_DELIMITER = re.compile(r"[:/@?#&=;,%+\s'\"\[\]]")
_MAX_DELIMITERS = 24  # of a connection string; each pair bounds a piece that a driver may quote alone

_remembered: dict[str, None] = {}
_strings: dict[str, None] = {}
_hooks: dict[str, None] = {}


def remember_secret(secret: str) -> None:
    """Masks a secret from now on, in this process."""
    _remembered[secret] = None


def remember_credentials(text: str) -> None:
    """Masks the secret parts of a connection string from now on, even if it cannot be parsed."""
    _strings[text] = None


def remember_hook(url: str) -> None:
    """Masks the path and the query of a webhook's URL from now on: anybody who knows them can post to it."""
    _hooks[url] = None


def masked(text: str) -> str:
    """Returns the text with `***` in place of every secret.

    Example: after `remember_secret("tr/ick")` the text `"no tr%2Fick here"` is `"no *** here"`.
    """
    for piece in _distinct(_pieces()):
        if _core(piece.text) in text:  # a quick test, because most texts hold no secret
            text = _pattern(piece.text).sub(piece.instead.replace("\\", r"\\"), text)
    return _PASSWORD_IN_TEXT.sub(MASK, text)


def masked_url(url: str) -> str:
    """Returns a URL without its user, its password, its fragment and the values of its query, which may be secret.

    `url` may be any text that was given as a URL; if it has neither a scheme nor a dot, all of it may be a secret.
    Example: `masked_url("https://example.com/hook?key=s3cret") == "https://example.com/hook?key=***"`.
    """
    scheme, rest = (url[: url.index("://") + 3], url[url.index("://") + 3 :]) if "://" in url else ("", url)
    if not scheme and url and "." not in url:
        return MASK
    authority = _URL_END.split(rest)[0].partition("/")[0]
    if "@" in rest and ("@" in authority or ":" in authority):
        rest = f"{MASK}@{rest.rpartition('@')[2]}"  # a password can have any character
    before, number, _ = rest.partition("#")
    head, sign, query = before.partition("?")
    pairs = (pair.partition("=")[:2] for pair in query.split("&"))
    shown = "&".join(f"{name}={MASK}" if equals else MASK for name, equals in pairs) if sign else ""
    return f"{scheme}{head}{sign}{shown}{number}{MASK if number else ''}"


class Masked:
    """A text stream that writes to another one with secrets masked, for what libraries and Python itself print."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Writes the text masked; returns its length before masking."""
        self.stream.write(masked(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes the lines masked."""
        self.stream.writelines(map(masked, lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


# ---- finding secrets -----------------------------------------------------------------------------------------------


class _Piece(NamedTuple):
    """A text to mask and its replacement: a `whole` secret, or a secret with the text around it."""

    text: str
    instead: str = MASK
    whole: bool = True


def _distinct(pieces: Iterable[_Piece]) -> list[_Piece]:
    """Returns each piece once: whole secrets first, then their parts, longer ones before shorter ones."""
    known: dict[str, _Piece] = {}
    for piece in pieces:
        if len(piece.text) >= MIN_LENGTH:
            known.setdefault(piece.text, piece)
    return sorted(known.values(), key=lambda piece: (not piece.whole, -len(piece.text)))


def _pieces() -> Iterator[_Piece]:
    """Yields all secrets with their replacements."""
    secrets, strings, hooks = dict(_remembered), dict(_strings), dict(_hooks)
    for name, value in _configured():
        if _HOOK.search(name):
            hooks[value] = None
        elif _CONNECTION.search(name):
            strings[value] = None
        elif _SECRET.search(name) and not _NO_SECRET.search(name) and value.lower() not in _NO_VALUES:
            secrets[value] = None
    for string in strings:
        yield from _pieces_of_connection(string)
    for url in hooks:
        yield from _pieces_of_hook(url)
    for secret in secrets:
        yield from map(_Piece, _spellings(secret))


def _configured() -> Iterator[tuple[str, str]]:
    """Yields the names and values of environment variables, and of settings in dlt's other providers."""
    import dlt

    yield from os.environ.items()
    try:
        documents = [provider.to_toml() for provider in dlt.secrets.config_providers if hasattr(provider, "to_toml")]
        tables = [tomllib.loads(document) for document in documents]
    except Exception:  # noqa: BLE001 - settings that cannot be read are reported elsewhere, and nothing has used them
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
    """Yields a secret as it is, stripped, URL-decoded, and, if it has several lines as keys in PEM do, each line."""
    yield from (secret, secret.strip(), unquote(secret), unquote_plus(secret))
    if "\n" in secret:
        yield from (line.strip() for line in secret.splitlines())


def _pieces_of_connection(string: str) -> Iterator[_Piece]:
    """Yields the secrets of a connection string, and every part around one of them from delimiter to delimiter.

    Drivers quote such parts in their messages.
    """
    for start, end in _spans(string):
        yield from map(_Piece, _spellings(string[start:end]))
        bounds = [(match.end(), match.start()) for match in _DELIMITER.finditer(string)]
        starts = [0, *(after for after, _ in bounds if after < end)][-_MAX_DELIMITERS:]
        ends = [*(before for _, before in bounds if before > start), len(string)][:_MAX_DELIMITERS]
        for first in starts:
            for last in ends:
                if last - first >= MIN_LENGTH:
                    instead = f"{string[first : max(first, start)]}{MASK}{string[min(last, end) : last]}"
                    yield _Piece(string[first:last], instead, whole=False)


def _spans(string: str) -> Iterator[tuple[int, int]]:
    """Yields the start and end of each secret in a connection string; of two ways to parse it, the longer secret."""
    scheme = string.find("://")
    begin = scheme + 3 if scheme >= 0 else 0
    colon, at = string.find(":", begin), string.rfind("@")
    if string.lstrip().startswith("{"):  # JSON
        pass
    elif 0 <= colon < at:
        # An `@` right after the colon is the password's first character if a later colon has no port behind it.
        yield colon + 1, at if at > colon + 1 or not _NO_PORT.match(string, at + 1) else len(string)
    elif at < 0 <= scheme and (found := _NO_PORT.match(string, begin)):
        yield found.end(), len(string)
    for pair in _PAIR.finditer(string):
        if pair.lastindex:
            yield pair.span(pair.lastindex)


def _pieces_of_hook(url: str) -> Iterator[_Piece]:
    """Yields everything after the host in a webhook's URL, and each part of that from a delimiter to the end."""
    host = re.match(r"[\w+.-]*:?//[^/?#]*", url)
    rest = url[host.end() :] if host else url
    starts = [0, *(match.end() for match in _DELIMITER.finditer(rest))]
    yield from (_Piece(spelt) for start in starts for spelt in _spellings(rest[start:]))
    yield from _pieces_of_connection(url)


# ---- encodings of a secret -----------------------------------------------------------------------------------------


@lru_cache(4096)
def _core(secret: str) -> str:
    """Returns the longest part of a secret that is the same in every encoding."""
    return max(re.split("[^0-9A-Za-z]+", secret), key=len)


@lru_cache(4096)
def _pattern(secret: str) -> re.Pattern[str]:
    """Returns a pattern for a secret whose characters may each be percent-encoded, or escaped as in JSON or `repr`."""
    return re.compile("".join(map(_char_pattern, secret)))


def _char_pattern(char: str) -> str:
    if char.isascii() and char.isalnum():
        return char
    data = char.encode("utf-8", "surrogatepass")
    escapes = {char, json.dumps(char)[1:-1], repr(char)[1:-1], f"\\{char}", "".join(f"\\x{byte:02x}" for byte in data)}
    ways = ["".join(f"%(?:25)?(?i:{byte:02x})" for byte in data)]
    ways += sorted(map(re.escape, escapes), key=len, reverse=True)
    return f"(?:{'|'.join(ways + [re.escape('+')] * (char == ' '))})"
