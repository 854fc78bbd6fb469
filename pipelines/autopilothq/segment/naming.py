"""Names tables and columns as Segment's warehouses do: text in, text out (docs/contract/warehouse.md#names)."""

import re
from collections.abc import Callable
from functools import lru_cache, wraps
from hashlib import sha256
from typing import TypeVar

from ..catalog import ACCOUNT, ACCOUNTS, MESSAGE_TABLES, ORTTO_ACCOUNT, USERS

# Tables that are not an event's: the table of an event with such a name is prefixed with `_`.
RESERVED_TABLES = frozenset(table.name for table in (*MESSAGE_TABLES, USERS, ACCOUNTS, *ACCOUNT, *ORTTO_ACCOUNT))

LONGEST_COLUMN = 1_000
"""The most characters of a column's name, before a destination shortens it further. SQL repeats each name many times,
so a few hundred names of 100,000 characters would take gigabytes."""

Name = TypeVar("Name", str, tuple[str, ...])
_WORD = re.compile(r"[A-Z0-9]+[a-z0-9]*|[a-z0-9]+")


def _cached(function: Callable[[Name], str]) -> Callable[[Name], str]:
    """Caches the results of a function, except for long names, of which many would take too much memory."""
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
    name = _prefixed("_".join(parts)) if all(parts) else ""
    if len(name) <= LONGEST_COLUMN:
        return name
    return f"{name[: LONGEST_COLUMN - 33]}_{sha256(name.encode()).hexdigest()[:32]}"


@_cached
def table_name(event: str) -> str:
    """Returns the table of an event, `""` for a name without a slug.

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
