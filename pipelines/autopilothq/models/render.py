"""Renders models as SQL of any dialect, for the tables and columns that a dataset has."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache, lru_cache
from importlib import resources
from typing import NamedTuple, cast

import sqlglot
from sqlglot import exp
from sqlglot.optimizer.normalize_identifiers import normalize_identifiers

from .. import catalog
from ..catalog import Type
from ..errors import InvalidSetting
from ..utc import to_utc
from .described import BY_NAME

_BASE = "duckdb"  # the dialect of the SQL files
_PLAIN = ("duckdb", "postgres")  # dialects in which no name of the models is a reserved word
# Without these ClickHouse takes a name for an alias of the same query, and fills joined rows that are missing with
# empty texts and zeros instead of nulls.
_CLICKHOUSE_SETTINGS = "\nSETTINGS prefer_column_name_to_alias = 1, join_use_nulls = 1"
# The type of the messages in each table, as in the column `type` of person_timeline.
MESSAGE_TYPES = {
    **dict.fromkeys((*catalog.EVENT_TABLE_NAMES, catalog.TRACKS.name), "track"),
    **{table.name: kind for kind, table, _ in catalog.KINDS},
}
BASE_TYPES: dict[Type, str] = {
    "text": "TEXT",
    "bigint": "BIGINT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMPTZ",
}
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_NAME = re.compile(r"AS (\w+),?$", re.MULTILINE)

Existing = Mapping[str, Collection[str]]
"""The tables that a dataset has, with their columns."""


class Period(NamedTuple):
    """The period of the events that count: from `since` on and before `until`; None means no bound."""

    since: datetime | None = None
    until: datetime | None = None


ALL_TIME = Period()


def sql(
    model: str,
    existing: Existing | None = None,
    *,
    dialect: str = _BASE,
    schema: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> str:
    """Returns a model as one query, in a dialect that sqlglot knows; its CTEs are the models that it reads.

    `existing` are the tables and columns that exist, by default the catalogue's. Missing tables are read as empty, and
    missing columns as null. `schema` qualifies the tables' names. Only events that occurred from `since` on and before
    `until` are counted.
    """
    found = query(model, declared_tables() if existing is None else existing, Period(since, until))
    if schema:
        point(found, lambda table: [schema, table])
    return in_dialect(found, dialect)


def point(
    found: exp.Expr,
    path: Callable[[str], Sequence[str]],
    spelling: Callable[[str, str], str] = lambda _, column: column,
) -> None:
    """Points a query at a dataset's tables: `path` returns the parts of a table's name, `spelling` a column's name."""
    for table in _dataset_tables(found):
        name, select = table.name, cast(exp.Select, table.find_ancestor(exp.Select))
        for column in select.find_all(exp.Column):
            column.set("this", exp.to_identifier(spelling(name, column.name), quoted=True))
        *above, own = (exp.to_identifier(part, quoted=True) for part in path(name))
        table.set("this", own)
        for above_it, part in zip(("db", "catalog"), reversed(above), strict=False):
            table.set(above_it, part)


def in_dialect(found: exp.Expr, dialect: str) -> str:
    """Returns a query as SQL of a dialect, with names quoted if they could be reserved words; changes the query."""
    quoted = dialect not in _PLAIN
    cased = normalize_identifiers(found, dialect=dialect) if quoted else found
    # Otherwise PostgreSQL materializes a relation that is read twice, with all its columns.
    for cte in cased.find_all(exp.CTE) if dialect == "postgres" else ():
        if cte.alias in _UNIONS:
            cte.set("materialized", False)
    if dialect == "clickhouse":
        _name_all_columns(cased)
    text = cased.sql(dialect=dialect, copy=False, pretty=True, identify=quoted, comments=False)
    return text + _CLICKHOUSE_SETTINGS if dialect == "clickhouse" else text


def _name_all_columns(found: exp.Expr) -> None:
    """Gives each selected column its own name as alias: ClickHouse would keep the table's name in front of it."""
    for select in found.find_all(exp.Select):
        select.set(
            "expressions", [exp.alias_(cell, cell.name) if _is_qualified(cell) else cell for cell in select.expressions]
        )


def _is_qualified(cell: exp.Expr) -> bool:
    return isinstance(cell, exp.Column) and bool(cell.table) and not isinstance(cell.this, exp.Star)


def declared_tables() -> Existing:
    """Returns the tables of the catalogue with their columns."""
    return {name: [column.name for column in catalog.TABLES[name].columns] for name in MESSAGE_TYPES}


def _dataset_tables(found: exp.Expr) -> list[exp.Table]:
    """Returns a query's references to tables of the dataset: their names are quoted, those of CTEs are not."""
    return [table for table in found.find_all(exp.Table) if table.this.quoted]


def query(model: str, existing: Existing, period: Period = ALL_TIME) -> exp.Query:
    """Returns a model as one query of the base dialect; its CTEs are not nested, because T-SQL does not accept that."""
    parts = relations([model], existing, period)
    return with_relations(parts.pop(model), parts)


def relations(names: Iterable[str], existing: Existing, period: Period = ALL_TIME) -> dict[str, exp.Query]:
    """Returns the queries of relations and of all relations that they read, by name; each after those that it reads."""
    parts: dict[str, exp.Query] = {}
    for name in names:
        if name not in parts:
            _collect(name, existing, period, parts)
    return parts


def with_relations(main: exp.Query, parts: dict[str, exp.Query]) -> exp.Query:
    """Adds as CTEs the relations that a query reads, directly or through others; returns the query."""
    ctes: list[exp.CTE] = []
    read = _read_by(main)
    for name, part in reversed(parts.items()):
        if name in read:
            ctes.insert(0, exp.CTE(this=part, alias=exp.TableAlias(this=exp.to_identifier(name))))
            read |= _read_by(part)
    if ctes:
        main.set("with_", exp.With(expressions=ctes))
    return main


def _read_by(found: exp.Query) -> set[str]:
    return {table.name for table in found.find_all(exp.Table)}


def _collect(name: str, existing: Existing, period: Period, parts: dict[str, exp.Query]) -> None:
    """Adds a relation to `parts`, after all relations that it reads."""
    parsed = _parsed(_relation(name, existing, period)).copy()
    for table in parsed.find_all(exp.Table):
        if not table.this.quoted and table.name in _RELATIONS and table.name not in parts:
            _collect(table.name, existing, period, parts)
    own = parsed.args.pop("with_", None)
    for cte in own.expressions if own else ():
        _rename(parsed, own, cte.alias, f"{name}_{cte.alias}")
        parts[f"{name}_{cte.alias}"] = cte.this
    parts[name] = parsed


@lru_cache(50)
def _parsed(text: str) -> exp.Query:
    return cast(exp.Query, sqlglot.parse_one(text, dialect=_BASE))


def _rename(main: exp.Query, own: exp.With, cte: str, name: str) -> None:
    """Renames a CTE wherever it is read; its old name stays as the alias that qualifies its columns."""
    for table in (*main.find_all(exp.Table), *own.find_all(exp.Table)):
        if not table.this.quoted and table.name == cte:
            table.set("alias", table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(cte)))
            table.set("this", exp.to_identifier(name))


_UNIONS = ("email_events", "messages")
_RELATIONS = (*BY_NAME, *_UNIONS)


def _relation(name: str, existing: Existing, period: Period) -> str:
    if name == "email_events":
        return _union_of(catalog.EVENT_TABLE_NAMES, existing, period)
    if name == "messages":
        return _union_of(tuple(MESSAGE_TYPES), existing, period)
    return expanded(file(name))


@cache
def file(name: str) -> str:
    """Returns the text of a SQL file of this package."""
    return resources.files(__package__).joinpath(f"{name}.sql").read_text(encoding="utf-8")


def expanded(text: str, values: Mapping[str, str] | None = None) -> str:
    """Returns the text of a SQL file with its placeholders replaced by values, or by files of this package."""
    given = values or {}
    return _PLACEHOLDER.sub(lambda found: given[found[1]] if found[1] in given else _fragment(found[1]), text)


def _fragment(name: str) -> str:
    if name == "measured":
        return ", ".join(_NAME.findall(file("measures")))
    return re.sub("^--.*\n", "", file(name), flags=re.MULTILINE).strip()


def _union_of(tables: Sequence[str], existing: Existing, period: Period) -> str:
    """Returns the SQL for the rows of several tables, as `described_rows` returns it; missing columns are null."""
    found = [name for name in tables if name in existing]
    columns = columns_read(tables)
    selects = [described_rows(name, _cells(name, columns, existing[name]), period) for name in found]
    return "\nUNION ALL\n".join(selects or [described_rows(tables[0], f"{_cells(tables[0], columns, None)} LIMIT 0")])


def time_literal(at: datetime) -> str:
    """Returns a time as a literal of the base dialect. Raises InvalidSetting if it is out of range in UTC."""
    try:
        return f"CAST('{to_utc(at).isoformat(sep=' ')}' AS TIMESTAMPTZ)"
    except ValueError:
        raise InvalidSetting(f"Expected a time between the years 1 and 9999 in UTC, but got {str(at)!r}.") from None


def described_rows(table: str, rows: str, period: Period = ALL_TIME) -> str:
    """Returns the SQL for the rows of a table, with the columns `person`, `event`, `type`, `occurred_at` and so on."""
    event = f"'{table}'" if table in catalog.EVENT_TABLE_NAMES else "sent_event"
    conditions = [
        f"coalesce(timestamp, received_at) {sign} {time_literal(at)}"
        for sign, at in ((">=", period.since), ("<", period.until))
        if at
    ]
    return (
        f"SELECT rows_of.*, {event} AS event, '{table}' AS of_table, '{MESSAGE_TYPES[table]}' AS type,"
        " CASE WHEN lower(machine_text) IN ('true', 't', '1') THEN CAST(1 AS BOOLEAN)"
        " WHEN lower(machine_text) IN ('false', 'f', '0') THEN CAST(0 AS BOOLEAN) END AS machine,"
        " coalesce(timestamp, received_at) AS occurred_at, coalesce(context_traits_email, email) AS contact_email,"
        f" {expanded(_fragment('person'))} AS person"
        f" FROM ({rows}) AS rows_of{' WHERE ' if conditions else ''}{' AND '.join(conditions)}"
    )


class ReadColumn(NamedTuple):
    """A column that models read: its name in tables and in models, its type, and whether it is cast to that type."""

    column: str
    name: str
    type: Type
    cast: bool = False


# Columns that only some datasets have: an email among properties or traits, and Ortto's note on opens.
_OPTIONAL = (ReadColumn("email", "email", "text", True), ReadColumn("machine", "machine_text", "text", True))


def columns_read(tables: Sequence[str]) -> list[ReadColumn]:
    """Returns the columns of tables that models read."""
    declared = {column.name: column for name in tables for column in catalog.TABLES[name].columns}
    unused = {"original_timestamp", "sent_at"} | {column.name for column in catalog.CONTEXT[2:]}
    names = {"event": "sent_event"}
    found = [
        ReadColumn(name, names.get(name, name), column.type) for name, column in declared.items() if name not in unused
    ]
    return [*found, *_OPTIONAL]


def declares(table: str, column: ReadColumn) -> bool:
    """Returns whether models read a column of a table: if it is declared there, or cast because of its unknown type."""
    return column.cast or any(column.column == known.name for known in catalog.TABLES[table].columns)


def _cells(table: str, columns: Sequence[ReadColumn], has: Collection[str] | None) -> str:
    """Returns the query for the columns of a table; `has` is None if there is no such table."""
    cells = []
    for column in columns:
        cell = f"CAST(NULL AS {BASE_TYPES[column.type]})"
        if column.column in (has or ()) and declares(table, column):
            cell = f'CAST("{column.column}" AS TEXT)' if column.cast else f'"{column.column}"'
        cells.append(f"{cell} AS {column.name}")
    return f"SELECT {', '.join(cells)}" + ("" if has is None else f' FROM "{table}"')
