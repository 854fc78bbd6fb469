"""Paths of URLs, built from parts that may hold any character."""

from collections.abc import Sequence
from urllib.parse import quote


class Escaped(str):
    """A part of a path that is percent-encoded already."""

    __slots__ = ()


def escape(text: str) -> Escaped:
    """Percent-encodes every byte except ASCII letters and digits, also where RFC 3986 does not require it.

    Example: `escape("a.b@c") == "a%2Eb%40c"`.
    """
    return Escaped(
        "".join(chr(byte) if chr(byte).isalnum() and byte < 128 else f"%{byte:02X}" for byte in text.encode())
    )


def path_of(parts: Sequence[str]) -> str:
    """Joins parts to a path, and percent-encodes each: a `/`, `+`, `@` or space in a part does not split it.

    Raises ValueError for parts that would name another resource. Example: `path_of(["contact", "a@b.c"])` is
    `/contact/a%40b.c`.
    """
    for part in parts:
        if part in ("", ".", ".."):
            raise ValueError(f"{part!r} cannot be a part of a path: it would name another resource")
    return "".join("/" + (part if isinstance(part, Escaped) else quote(part, safe="")) for part in parts)
