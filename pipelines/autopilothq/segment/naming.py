"""Names tables and columns as Segment's warehouses do: text in, text out (docs/contract/warehouse.md#names)."""

import hashlib
import re
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import NamedTuple, TypeVar

from ..catalog import ACCOUNT, ACCOUNTS, MESSAGE_TABLES, ORTTO_ACCOUNT, USERS
from .json_text import is_encodable, to_json

# Tables that are not an event's: an event with such a name gets a table prefixed with `_`.
RESERVED_TABLES = frozenset(table.name for table in (*MESSAGE_TABLES, USERS, ACCOUNTS, *ACCOUNT, *ORTTO_ACCOUNT))

LONGEST_COLUMN = 1_000
"""The most characters of a column's name, before a destination shortens it further. SQL repeats each name many times,
so a few hundred names of 100,000 characters would take gigabytes."""

Name = TypeVar("Name", str, tuple[str, ...])
_WORD = re.compile(r"[A-Z0-9]+[a-z0-9]*|[a-z0-9]+")


def _cached(function: Callable[[Name], str]) -> Callable[[Name], str]:
    """Caches the results of a function, except those for long names, which would take too much memory."""
    remembered = lru_cache(maxsize=100_000)(function)

    @wraps(function)
    def called(name: Name) -> str:
        parts: str | tuple[str, ...] = name
        whole = parts if isinstance(parts, str) else "".join(parts)  # joining a text would copy it letter by letter
        return function(name) if len(whole) > LONGEST_COLUMN else remembered(name)

    return called


@_cached
def snake_case(name: str) -> str:
    """Returns Segment's snake_case: runs of ASCII letters and digits, lower-cased, joined by `_`.

    Example: `snake_case("linkURL") == "link_url"`; a name without ASCII letters or digits gives `""`.
    """
    return "_".join(_WORD.findall(name)).lower()


@_cached
def column_name(path: tuple[str, ...]) -> str:
    """Returns the column of a value at `path`: the slugs of its parts joined by `_`; `""` if a part has no slug.

    A name of more than `LONGEST_COLUMN` characters is cut, and ends with a digest of the whole.
    Example: `column_name(("product_id", "sku")) == "product_id_sku"`.
    """
    parts = [snake_case(part) for part in path]
    return _shortened(_prefixed("_".join(parts)) if all(parts) else "")


class LongPath(NamedTuple):
    """A path that is too long to be read again for each of the values below it.

    `key` is the shortened path. `begin` is the beginning of the name of its column, None if a part has no slug;
    `hashed` is the hash of the whole name.
    """

    key: str
    begin: str | None
    hashed: "hashlib._Hash"

    def below(self, part: str) -> "LongPath":
        """Returns the path of a key in the object at this path."""
        key = _shortened(f"{self.key}.{_encodable(part)}")
        slug = snake_case(part)
        if self.begin is None or not slug:
            return LongPath(key, None, self.hashed)
        added, hashed = f"_{slug}" if self.begin else _prefixed(slug), self.hashed.copy()
        hashed.update(added.encode())
        return LongPath(key, (self.begin + added)[: LONGEST_COLUMN + 1], hashed)

    def column(self) -> str:
        """Returns the name of the path's column, as `column_name` does."""
        begin = self.begin or ""
        return begin if len(begin) <= LONGEST_COLUMN else _cut(begin, self.hashed)


def long_path(path: tuple[str, ...]) -> LongPath:
    """Returns a path as a LongPath. Example: `long_path(("product_id",)).below("sku").column() == "product_id_sku"`."""
    first, *others = path
    found = LongPath("", "", hashlib.sha256()).below(first)._replace(key=_shortened(_encodable(first)))
    for part in others:
        found = found.below(part)
    return found


def _encodable(key: str) -> str:
    return key if is_encodable(key) else to_json(key)[1:-1]


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_COLUMN else _cut(name, hashlib.sha256(name.encode()))


def _cut(name: str, hashed: "hashlib._Hash") -> str:
    return f"{name[: LONGEST_COLUMN - 33]}_{hashed.hexdigest()[:32]}"


@_cached
def table_name(event: str) -> str:
    """Returns the table of an event, or `""` for a name without a slug.

    Example: `table_name("Email Marked as Spam") == "email_marked_as_spam"`, `table_name("Users") == "_users"`.
    """
    slug = snake_case(event)
    return f"_{slug}" if slug in RESERVED_TABLES else _prefixed(slug)


def event_key(event: str) -> str:
    """Returns the key that identifies an event: its table, or the name itself if it has no slug.

    Example: `event_key("Email Opened") == "email_opened"`, `event_key("購入") == "購入"`.
    """
    return table_name(event) or event


def _prefixed(name: str) -> str:
    return f"_{name}" if name[:1].isdigit() else name
