"""Renders tables as text. Each format is a function of the tables and the dataset's name."""

import itertools
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from datetime import datetime
from typing import Any

from dlt import Schema

from .. import catalog
from ..display import MAX_CELL, json_text, plural, shortened, visible, yaml_text
from ..errors import RunError
from ..projection import ordered_columns
from ..warehouses.comments import COMMENTED
from ..warehouses.dlt_internals import Destination, SqlJobClientBase
from ..warehouses.dlt_internals.clients import create_statements, offline_client
from ..warehouses.hints import layout_hints
from ..warehouses.native import SEGMENT_TABLE_HINT, copies_of, copy_description, native_of
from ..warehouses.requirements import missing_package
from .schema import ColumnInfo, Statistics, TableInfo, dlt_schema

Format = Callable[[Sequence[TableInfo], str], str]
_INDENT = "  "
_LEAST_ROOM = 24  # characters; with less room next to the other columns, a text is not wrapped
# The columns that say when a load processed a row; the first one that a table has counts.
LOADED_AT_FIELDS = ("uuid_ts", "loaded_at", "asked_at", "rejected_at", "discarded_at", "suppressed_at", "sent_at")
# Tables that every load of events fills; others may get no rows for good reasons.
ALWAYS_FRESH = (catalog.TRACKS.name, catalog.AUDIT.name)
FRESHNESS = {"warn_after": {"count": 1, "period": "day"}, "error_after": {"count": 2, "period": "day"}}


def as_table(tables: Sequence[TableInfo], dataset: str, width: int | None = None) -> str:  # noqa: ARG001
    """Returns text for a terminal of `width` columns; if `width` is None, nothing is wrapped."""
    width = width and width - len(_INDENT)
    return "\n\n".join("\n".join([_headline(table), *_indented(grid(_cells(table), width=width))]) for table in tables)


def _as_markdown(tables: Sequence[TableInfo], dataset: str) -> str:
    """Returns Markdown for a wiki or a README."""
    parts = [f"# {_markdown(dataset)}"]
    for table in tables:
        head, *rows = _cells(table)
        # The catalogue's descriptions are Markdown already.
        lines = [head, ["---"] * len(head)]
        lines += [[_code(row[0]), *map(_markdown, row[1:-1]), row[-1].replace("|", "\\|")] for row in rows]
        text = ". ".join(filter(None, (_statistics_text(table.statistics).rstrip("."), table.description)))
        heading = _code(table.name).replace("\\|", "|")  # a bar divides cells only
        parts += [f"## {heading}", text, "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    return "\n\n".join(filter(None, parts))


_MARKDOWN = re.compile(r"[\\`*\[\]<>|&~]")


def _markdown(text: str) -> str:
    """Escapes the characters that Markdown or HTML would interpret."""
    return _MARKDOWN.sub(r"\\\g<0>", visible(text))


def _code(name: str) -> str:
    """Returns a name as code in a Markdown cell, between more backticks than it has in a row."""
    shown = visible(name).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    blank = " " if "`" in shown else ""
    return f"{fence}{blank}{shown}{blank}{fence}"


def _as_yaml(tables: Sequence[TableInfo], dataset: str) -> str:  # noqa: ARG001
    """Returns dlt's schema, as dlt exports and imports it."""
    return yaml_text(dlt_schema(tables).to_dict(remove_defaults=True)).rstrip()


def _as_json(tables: Sequence[TableInfo], dataset: str) -> str:  # noqa: ARG001
    """Returns dlt's schema, as dlt exports and imports it."""
    return json_text(dlt_schema(tables).to_dict(remove_defaults=True), indent=2)


def _as_mermaid(tables: Sequence[TableInfo], dataset: str) -> str:  # noqa: ARG001
    """Returns dlt's entity diagram. Characters of names that Mermaid cannot read become underscores."""
    drawn = []
    for table, entity in zip(tables, _mermaid_names([table.name for table in tables]), strict=True):
        columns = _attributes(table.columns)
        keys = tuple(new.name for old, new in zip(table.columns, columns, strict=True) if old.name in table.key)
        drawn.append(table._replace(name=entity, key=keys, columns=columns))
    return dlt_schema(drawn).to_mermaid(include_dlt_tables=False).rstrip()


_UNREADABLE = re.compile(r"[^A-Za-z0-9_]")


def _mermaid_names(names: Sequence[str]) -> list[str]:
    """Returns distinct names that Mermaid can read, of letters, digits and underscores, for names that are distinct."""
    given = {name for name in names if name and not _UNREADABLE.search(name) and not name[0].isdigit()}
    found: list[str] = []
    for name in names:
        plain = name
        if name not in given:
            plain = _UNREADABLE.sub("_", name[:MAX_CELL]) or "_"
            plain = f"_{plain}" if plain[0].isdigit() else plain
            plain = next(unique for unique in _numbered(plain) if unique not in given and unique not in found)
        found.append(plain)
    return found


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}_{number}" for number in itertools.count(2))


def _attributes(columns: Sequence[ColumnInfo]) -> tuple[ColumnInfo, ...]:
    """Renames columns so that Mermaid can read them; a renamed column keeps its own name in its description."""
    renamed = []
    for column, name in zip(columns, _mermaid_names([column.name for column in columns]), strict=True):
        own_name = "" if name == column.name else shortened(column.name)
        text = ": ".join(filter(None, (own_name, column.description)))
        renamed.append(column._replace(name=name, description=text.replace('"', "'")))
    return tuple(renamed)


def _as_dbt(tables: Sequence[TableInfo], dataset: str) -> str:
    """Returns dbt's sources.yml (dbt 1.10 or newer): descriptions, `unique` and `not_null` on keys, freshness by load.

    Tables that may not exist yet have no tests, unless they were read from a destination. Freshness is checked only for
    `tracks` and `_audit`, because every load of events fills them.
    """
    source = {
        "name": _escape_jinja(dataset),
        "schema": _escape_jinja(dataset),
        "description": "Autopilot's email events, loaded by dlt-autopilothq.",
        "tables": [_dbt_table(table) for table in tables],
    }
    return yaml_text({"version": 2, "sources": [source]}).rstrip()


FORMATS: dict[str, Format] = {
    "table": as_table,
    "markdown": _as_markdown,
    "json": _as_json,
    "yaml": _as_yaml,
    "dbt": _as_dbt,
    "mermaid": _as_mermaid,
}


def ddl(tables: Sequence[TableInfo], destination: Destination[Any, Any], dataset: str) -> str:
    """Returns the statements with which dlt creates these tables in that kind of destination.

    Needs neither a connection nor credentials. Raises RunError if the destination knows no SQL.
    """
    try:
        client_class: Any = destination.client_class
    except ModuleNotFoundError as error:
        raise RunError(missing_package(error, destination)) from error
    if not issubclass(client_class, SqlJobClientBase):
        raise RunError(f"Expected a destination that answers SQL, but {destination.destination_name} does not.")
    # Names must stay on one line, because statements are assembled from lines.
    tables = [_visible_names(table) for table in tables]
    client = offline_client(destination, _schema_as_loaded(tables, destination), dataset)
    create = _CREATE_SCHEMA.get(client.capabilities.sqlglot_dialect or "", "CREATE SCHEMA IF NOT EXISTS {}")
    statements = create_statements(client, [table.name for table in tables])
    if destination.destination_type.rpartition(".")[2] in COMMENTED:  # only the tables are shown
        statements = [statement for statement in statements if not statement.startswith("COMMENT ON ")]
    first = [create.format(client.sql_client.fully_qualified_dataset_name())] if create else []
    # Without credentials, BigQuery's project and Databricks' catalogue are unknown, and left to the session.
    unknown = f"{client.capabilities.escape_identifier('None')}."
    return "\n\n".join(f"{_tidy(statement.replace(unknown, ''))};" for statement in [*first, *statements])


def _schema_as_loaded(tables: Sequence[TableInfo], destination: Destination[Any, Any]) -> Schema:
    """Returns dlt's schema of the tables as loads make them in a kind of destination."""
    native = native_of(destination.destination_type)
    schema = dlt_schema([_with_copies(table, native) for table in tables])
    # Keys are never null, but loads declare that only if the destination asks for it.
    declared = destination.capabilities().sqlglot_dialect == "clickhouse"
    for table in schema.data_tables():
        for column in table["columns"].values():
            column["nullable"] = column.get("nullable", True) or not declared
            if column.get("data_type") == "timestamp" and table.get(SEGMENT_TABLE_HINT) and not native.zoned:
                column["timezone"] = False
        _add_layout_hints(table, native)
    return schema


def _add_layout_hints(table: Any, native: catalog.Native) -> None:
    columns, whole = layout_hints(table["name"], native)
    table.update(whole)
    for column, hint in columns.items():
        if column in table["columns"]:
            table["columns"][column][hint] = True


def _with_copies(table: TableInfo, native: catalog.Native) -> TableInfo:
    columns = {column.name: column for column in table.columns}
    copies = copies_of(table.name, columns, native)
    columns |= {copy: columns[of]._replace(name=copy, description=copy_description(of)) for copy, of in copies.items()}
    if not copies:
        return table
    return table._replace(columns=tuple(columns[name] for name in ordered_columns(dict.fromkeys(columns, "text"))))


# Dialects with a statement of their own; ClickHouse has no schemas.
_CREATE_SCHEMA = {"tsql": "CREATE SCHEMA {}", "fabric": "CREATE SCHEMA {}", "clickhouse": ""}


def _tidy(statement: str) -> str:
    """Formats dlt's CREATE TABLE with one column per line, and without the extra blanks of missing hints."""
    if not statement.startswith("CREATE TABLE"):
        return statement
    quoted = _QUOTED.findall(statement)
    statement = _QUOTED.sub(_QUOTE, statement)
    depth, closing = 0, -1
    for at, char in enumerate(statement):
        depth += (char == "(") - (char == ")")
        if char == ")" and not depth:
            closing = at
            break
    if closing < 0:
        return _with_quoted(statement, quoted)
    first, *columns = (" ".join(line.split()).replace(" ,", ",") for line in statement[:closing].splitlines())
    rest = " ".join(statement[closing:].split())
    return _with_quoted("\n".join([first, *(f"    {column}" for column in columns), rest]), quoted)


_QUOTE = "\x00"  # stands for a quoted part, whose brackets and blanks have no meaning
_QUOTED = re.compile(r'"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\[\]]*\]|\'(?:[^\']|\'\')*\'')


def _with_quoted(text: str, quoted: Sequence[str]) -> str:
    parts = text.split(_QUOTE)
    return "".join(itertools.chain.from_iterable(itertools.zip_longest(parts, quoted, fillvalue="")))


def _visible_names(table: TableInfo) -> TableInfo:
    columns = tuple(column._replace(name=visible(column.name)) for column in table.columns)
    return table._replace(name=visible(table.name), columns=columns, key=tuple(map(visible, table.key)))


def grid(rows: Sequence[Sequence[str]], cut: bool = True, width: int | None = None) -> list[str]:
    """Returns the rows as lines with aligned columns. Untrusted text is escaped.

    Long cells are cut, except the last of a row. Without `cut`, no cell is cut, which suits paths. On a terminal of
    `width` columns, a long last cell is wrapped, unless the other columns leave too little room.
    """
    rows = [[*map(shortened if cut else visible, row[:-1]), *map(visible, row[-1:])] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = (width or 0) - sum(widths[:-1]) - 2 * len(widths[:-1])
    if room >= _LEAST_ROOM:
        rows = [line for row in rows for line in _wrapped(row, room)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _wrapped(row: Sequence[str], room: int) -> list[list[str]]:
    """Returns a row as rows whose last cells fit; a word that does not fit, such as a path, stays whole."""
    first, *others = textwrap.wrap(row[-1], room, break_long_words=False, break_on_hyphens=False) or [""]
    return [[*row[:-1], first], *([""] * len(row[:-1]) + [more] for more in others)]


def moment(time: datetime | None) -> str:
    """Returns a time as text to the second; `-` for None."""
    return f"{time:%Y-%m-%d %H:%M:%S}" if time else "-"


def percent(share: float | None) -> str:
    """Returns a share of rows as text; only no rows at all are shown as 0 %, and only all rows as 100 %.

    Example: `percent(0.00001) == "<0.1 %"`.
    """
    if share is None:
        return "-"
    if 0 < share < 0.001:
        return "<0.1 %"
    if 0.999 < share < 1:
        return ">99.9 %"
    return f"{100 * share:.1f} %".replace(".0 %", " %")


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"{_INDENT}{line}" for line in lines]


def _headline(table: TableInfo) -> str:
    text = " ".join(filter(None, (_statistics_text(table.statistics), table.description)))
    name = shortened(table.name)
    return f"{name}: {text}" if text else name


def _statistics_text(statistics: Statistics | None) -> str:
    if statistics is None:
        return ""
    rows = plural(statistics.rows, "row")
    first, last = statistics.first_received_at, statistics.last_received_at
    return f"{rows}, received {moment(first)} to {moment(last)}." if first and last else f"{rows}."


def _cells(table: TableInfo) -> list[list[str]]:
    """Returns the columns as rows of text, with a row of headings first."""
    if table.statistics is None:
        return [["column", "type", "description"], *([c.name, c.type, c.description] for c in table.columns)]
    return [
        ["column", "type", "null", "first came", "description"],
        *(
            [c.name, c.native or c.type, percent(c.null_share), moment(c.first_came), c.description]
            for c in table.columns
        ),
    ]


def _escape_jinja(name: str) -> str:
    """Escapes a name for dbt, so that text that looks like Jinja is not evaluated."""
    return re.sub(r"\{(?=[{%#])", "{{ '{' }}", name)


def _dbt_table(table: TableInfo) -> dict[str, Any]:
    source: dict[str, Any] = {"name": _escape_jinja(table.name)}
    if table.description:
        source["description"] = table.description
    loaded_at = next((field for field in LOADED_AT_FIELDS if table.has(field)), None)
    if loaded_at:
        source["config"] = {"loaded_at_field": loaded_at}
        if table.name in ALWAYS_FRESH:
            source["config"]["freshness"] = deepcopy(FRESHNESS)  # YAML would write a shared one as a reference
    if _certainly_exists(table) and len(table.key) > 1:
        # `unique` takes an expression in place of a column.
        key = " || '|' || ".join(table.key)
        source["data_tests"] = [{"unique": {"arguments": {"column_name": f"({key})"}}}]
    source["columns"] = [_dbt_column(column, table, loaded_at) for column in table.columns]
    return source


def _dbt_column(column: ColumnInfo, table: TableInfo, loaded_at: str | None) -> dict[str, Any]:
    source: dict[str, Any] = {"name": _escape_jinja(column.name)}
    if column.description:
        source["description"] = column.description
    if column.native:
        source["data_type"] = _escape_jinja(column.native)
    tests = ["unique"] if table.key == (column.name,) else []
    if column.name in table.key or (column.name == loaded_at and table.key):
        tests.append("not_null")
    return source | ({"data_tests": tests} if tests and _certainly_exists(table) else {})


def _certainly_exists(table: TableInfo) -> bool:
    """Returns whether a table certainly exists: dbt fails tests of missing tables, such as those of rare messages."""
    return table.statistics is not None or table.name in _ALWAYS_THERE


_ALWAYS_THERE = frozenset(table.name for table in catalog.ALWAYS)
