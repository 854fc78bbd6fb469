"""Reads metadata of a dataset's tables beyond their columns: keys, comments, lengths, indexes, and taken names.

Also finds which characters a PostgreSQL database that is not in UTF-8 cannot hold.
"""

from collections.abc import Sequence

from ..sql_files import sql_file
from .sql_statements import Statements

LONGEST = 65_535  # characters of text; a destination's largest text type counts as unlimited
_LENGTHS = """
    SELECT table_name, column_name, character_maximum_length FROM {columns}
    WHERE table_schema = %s AND character_maximum_length IS NOT NULL"""
_NAMES = {
    "duckdb": "table_names_duckdb.sql",
    "postgres": "table_names_postgres.sql",
    "sqlite": "table_names_sqlite.sql",
}
_OTHER_NAMES = """
    SELECT table_name, CASE WHEN table_type LIKE '%%VIEW' THEN 'view' ELSE 'messages' END
    FROM {tables} WHERE table_schema = %s"""

# Each unit is tried alone, in a block that catches the error: an error names only one character, and the server would
# log it.
_LACKING = """
    DO $$ DECLARE
        unit bytea;
        lacking bytea[] := '{}';
    BEGIN
        FOREACH unit IN ARRAY %s::bytea[] LOOP
            BEGIN
                PERFORM convert(unit, 'UTF8', getdatabaseencoding());
            EXCEPTION WHEN untranslatable_character THEN
                lacking := lacking || unit;
            END;
        END LOOP;
        PERFORM set_config('autopilothq.lacking', lacking::text, true);
    END $$;
    SELECT getdatabaseencoding(), current_setting('autopilothq.lacking')::bytea[]"""
UNITS_PER_STATEMENT = 50_000

_KEYS = {"duckdb": "primary_keys_duckdb.sql", "postgres": "primary_keys_postgres.sql"}
_COMMENTS = {"duckdb": "comments_duckdb.sql", "postgres": "comments_postgres.sql"}


def text_lengths(sql: Statements) -> dict[tuple[str, str], int]:
    """Returns the maximum length of text columns, by table and column, if the destination limits it."""
    # Some destinations have -1 for no limit.
    return {(t.lower(), c.lower()): length for t, c, length in sql.by_schema(_LENGTHS) if 0 < length < LONGEST}


def primary_keys(sql: Statements, kind: str) -> dict[str, tuple[str, ...]]:
    """Returns the primary keys of the tables, in the order of their columns."""
    query = sql_file(_KEYS.get(kind, "primary_keys.sql"))
    keys: dict[str, tuple[str, ...]] = {}
    for table, column in sql.by_schema(query):
        keys[table.lower()] = (*keys.get(table.lower(), ()), column.lower())
    return keys


def comments(sql: Statements, kind: str) -> dict[tuple[str, str | None], str]:
    """Returns the comments by table and column (None for a table or view itself), if the destination can list them."""
    rows = sql.by_schema(sql_file(_COMMENTS[kind])) if kind in _COMMENTS else ()
    return {(table.lower(), column and column.lower()): text for table, column, text in rows}


def indexed_columns(sql: Statements, table: str) -> set[str]:
    """Returns the first column of each index of a table in PostgreSQL."""
    found = sql.by_schema(sql_file("indexed_columns_postgres.sql"))
    return {str(column) for name, column in found if name == table}


def taken_names(sql: Statements, kind: str, dialect: str | None) -> dict[str, set[str]]:
    """Returns the names that no new table can have: tables of messages (`messages`), views (`view`), and `other`."""
    found: dict[str, set[str]] = {"messages": set(), "view": set(), "other": set()}
    kind = "sqlite" if dialect == "sqlite" else kind  # one of the databases of the kind `sqlalchemy`
    for name, what in sql.by_schema(sql_file(_NAMES[kind]) if kind in _NAMES else _OTHER_NAMES):
        found[what].add(name if kind in _NAMES else name.lower())
    return found


def unreadable_tables(sql: Statements) -> list[str]:
    """Returns the tables of PostgreSQL that the user may not read."""
    return [str(name) for (name,) in sql.by_schema(sql_file("unreadable_tables_postgres.sql"))]


def secured_tables(sql: Statements) -> list[str]:
    """Returns the tables of PostgreSQL whose row-level security applies to the user."""
    return [str(name) for (name,) in sql.by_schema(sql_file("row_security_postgres.sql"))]


def partition_names(sql: Statements) -> list[str]:
    """Returns the partitions of those PostgreSQL tables that the user can read as a whole."""
    return [str(name) for (name,) in sql.by_schema(sql_file("partitions_postgres.sql"))]


def lacking_units(sql: Statements, units: Sequence[str]) -> tuple[str, set[str]]:
    """Returns the encoding of a PostgreSQL database, and the units that it lacks, as `lacking_characters` does."""
    encoding, lacking = "", set[str]()
    for start in range(0, max(len(units), 1), UNITS_PER_STATEMENT):
        some = [unit.encode() for unit in units[start : start + UNITS_PER_STATEMENT]]
        [(encoding, found)] = sql.stream(_LACKING, [some])
        lacking.update(bytes(unit).decode() for unit in found)
    return encoding, lacking
