"""Tables of a database that are adopted straight from it: read only, streamed, in one transaction."""

from typing import NamedTuple

from ...errors import NotSupported


class DatabaseTable(NamedTuple):
    """A table of a database: its permanent name without secrets, version and size as of any work."""

    url: str
    version: str
    size: int
    table: str
    database: str
    schema: str
    name: str


def database_tables(database: str, schema: str) -> list[DatabaseTable]:
    """Returns the tables of a schema."""
    raise NotSupported(f"{database} {schema}")


def wait_for_table(*args):
    raise NotSupported("")
