"""Authenticates requests by write keys, Segment's signature, HTTP Basic or a secret header."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import parse_qs

from .settings import Guard

WRITE_KEY_HEADER = b"x-write-key"
Headers = Mapping[bytes, bytes]
"""The headers of a request by name in lower case; a repeated header has its last value."""

FORWARDED = {b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via"}
"""Headers that proxies add to requests of other machines."""


def is_allowed(guard: Guard, headers: Headers, body: bytes, first: bytes, write_key: str | None) -> bool:
    """Returns whether a request has all the secrets that its endpoint requires.

    `body` is the decompressed body, and `first` its first element if it is an array: Segment signs either. `write_key`
    is the write key in the body. Secrets are compared in constant time.
    """
    user = basic(headers)
    return (
        (not guard.write_keys or _any(_write_keys(headers, user, write_key), guard.write_keys))
        and (not guard.signatures or _any([headers.get(b"x-signature", b"").lower()], _signed(guard, body, first)))
        and (not guard.basic or _any([user], guard.basic))
        and (not guard.headers or _any_header(headers, guard))
    )


def is_direct(headers: Headers) -> bool:
    """Returns whether a request came without a proxy, that is, from the machine at the other end of the connection."""
    return not headers.keys() & FORWARDED


def with_query_key(headers: Headers, query: bytes) -> Headers:
    """Returns the headers, with the write key from the query's `key` added unless a header has one."""
    keys = parse_qs(query.decode("latin-1"), encoding="latin-1").get("key")
    return {WRITE_KEY_HEADER: keys[0].encode("latin-1"), **headers} if keys else headers


def basic(headers: Headers) -> bytes:
    """Returns a request's `user:password` of HTTP Basic, or `b""` if it has none."""
    kind, _, value = headers.get(b"authorization", b"").partition(b" ")
    if kind.lower() != b"basic":
        return b""
    try:
        return base64.b64decode(value.strip(), validate=True)
    except binascii.Error:
        return b""


def signature(secret: bytes, data: bytes) -> bytes:
    """Returns the `X-Signature` of a body: the HMAC-SHA1 of its bytes in lower-case hexadecimal digits.

    Example: `signature(b"abc123", '{"type":"track","userId":"é"}'.encode())` begins with `5093f676`.
    """
    return hmac.new(secret, data, hashlib.sha1).hexdigest().encode()


def _write_keys(headers: Headers, user: bytes, write_key: str | None) -> list[bytes]:
    """Returns the possible write keys of a request: Basic's user, the body's, and `X-Write-Key: id:secret`."""
    header = headers.get(WRITE_KEY_HEADER, b"")
    return [user.removesuffix(b":"), (write_key or "").encode(errors="replace"), header, header.partition(b":")[0]]


def _signed(guard: Guard, body: bytes, first: bytes) -> Iterable[bytes]:
    for secret in guard.signatures:
        yield signature(secret, body)
        if first:
            yield signature(secret, first)


def _any(given: Sequence[bytes], expected: Iterable[bytes]) -> bool:
    # All are compared, so that the time does not reveal which one matches.
    return sum(hmac.compare_digest(candidate, other) for other in expected for candidate in given if candidate) > 0


def _any_header(headers: Headers, guard: Guard) -> bool:
    return sum(hmac.compare_digest(headers.get(name, b""), value) for name, value in guard.headers) > 0
