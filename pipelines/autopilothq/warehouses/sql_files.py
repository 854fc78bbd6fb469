"""Reads the SQL files of this package."""

from functools import cache
from importlib import resources


@cache
def sql_file(name: str) -> str:
    """Returns the text of a SQL file of this package. Example: `sql_file("primary_keys.sql")`."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
