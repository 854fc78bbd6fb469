"""Tables -> text. Each format is a function of the tables and the dataset's name."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from datetime import datetime
from typing import Any, cast

from dlt.common.destination import Destination
from dlt.common.schema import Schema
from dlt.common.schema.utils import to_pretty_yaml
from dlt.destinations.job_client_impl import SqlJobClientBase

from .. import catalog, run
from ..hints import missing_package
from ..native import HINT, copies_of, copy_description, native_of
from ..warehouse import ordered
from .shape import ColumnInfo, Statistics, TableInfo, dlt_schema

Format = Callable[[Sequence[TableInfo], str], str]
# When the load that stored a row processed it: the first of these that a table has.
LOAD_CLOCKS = ("uuid_ts", "loaded_at", "asked_at", "rejected_at", "discarded_at", "suppressed_at")
# Tables that every load of events fills; the others may be still for good reasons.
ALWAYS_FRESH = (catalog.TRACKS.name, catalog.AUDIT.name)
FRESHNESS = {"warn_after": {"count": 1, "period": "day"}, "error_after": {"count": 2, "period": "day"}}


def as_table(tables: Sequence[TableInfo], dataset: str) -> str:  # noqa: ARG001
    """For a terminal."""
    return "\n\n".join("\n".join([_headline(table), *_indented(grid(_cells(table)))]) for table in tables)


def as_markdown(tables: Sequence[TableInfo], dataset: str) -> str:
    """For a wiki or a README."""
    parts = [f"# {dataset}"]
    for table in tables:
        head, *rows = [[cell.replace("|", "\\|") for cell in row] for row in _cells(table)]
        lines = [head, ["---"] * len(head), *([f"`{row[0]}`", *row[1:]] for row in rows)]
        text = ". ".join(filter(None, (_counted(table.statistics).rstrip("."), table.description)))
        parts += [f"## `{table.name}`", text, "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    return "\n\n".join(filter(None, parts))


def as_yaml(tables: Sequence[TableInfo], dataset: str) -> str:  # noqa: ARG001
    """dlt's schema, as dlt exports and imports it."""
    return dlt_schema(tables).to_pretty_yaml().rstrip()


def as_json(tables: Sequence[TableInfo], dataset: str) -> str:  # noqa: ARG001
    """dlt's schema, as dlt exports and imports it."""
    return dlt_schema(tables).to_pretty_json()


def as_mermaid(tables: Sequence[TableInfo], dataset: str) -> str:  # noqa: ARG001
    """dlt's diagram of entities."""
    return dlt_schema(tables).to_mermaid(include_dlt_tables=False).rstrip()


def as_dbt(tables: Sequence[TableInfo], dataset: str) -> str:
    """dbt's sources.yml (dbt 1.10 or newer): descriptions, `unique` and `not_null` on keys, freshness by load.

    Tables that may not be there yet have no tests, unless a destination was asked. `tracks` and `_audit` alone are
    watched for freshness, because every load of events fills them.
    """
    source = {
        "name": dataset,
        "schema": dataset,
        "description": "Autopilot's email events, loaded by dlt-autopilothq.",
        "tables": [_dbt_table(table) for table in tables],
    }
    return to_pretty_yaml(cast(Any, {"version": 2, "sources": [source]})).rstrip()


FORMATS: dict[str, Format] = {
    "table": as_table,
    "markdown": as_markdown,
    "json": as_json,
    "yaml": as_yaml,
    "dbt": as_dbt,
    "mermaid": as_mermaid,
}


def ddl(tables: Sequence[TableInfo], destination: Destination[Any, Any], dataset: str) -> str:
    """The statements with which dlt makes these tables in that kind of destination.

    Asks the destination nothing and needs no credentials. Raises RunError where the destination knows no SQL.
    """
    try:
        made_by: Any = destination.client_class
    except ModuleNotFoundError as error:
        raise run.RunError(missing_package(error, destination.destination_name)) from error
    if not issubclass(made_by, SqlJobClientBase):
        raise run.RunError(f"Expected a destination that answers SQL, but {destination.destination_name} does not.")
    spec = destination.spec()
    schema = _as_loads_have_it(tables, destination)
    spec._bind_dataset_name(dataset_name=dataset)
    config = destination.configuration(spec, accept_partial=True)
    client = made_by(schema, config, destination.capabilities(config, schema.naming))
    create = _CREATE_SCHEMA.get(client.capabilities.sqlglot_dialect or "", "CREATE SCHEMA IF NOT EXISTS {}")
    statements, _ = client._build_schema_update_sql([(table.name, {}) for table in tables])
    first = [create.format(client.sql_client.fully_qualified_dataset_name())] if create else []
    # Without credentials BigQuery and Databricks do not know their project or catalogue: leave it to the session.
    unknown = f"{client.capabilities.escape_identifier('None')}."
    return "\n\n".join(f"{_tidy(statement.replace(unknown, ''))};" for statement in [*first, *statements])


def _as_loads_have_it(tables: Sequence[TableInfo], destination: Destination[Any, Any]) -> Schema:
    """dlt's schema of the tables as loads make them in a kind of destination."""
    native = native_of(destination.destination_type)
    schema = dlt_schema([_with_copies(table, native) for table in tables])
    # Keys are never null, but loads do not say so where the destination does not ask for it.
    said = destination.capabilities().sqlglot_dialect == "clickhouse"
    for table in schema.data_tables():
        for column in table["columns"].values():
            column["nullable"] = column.get("nullable", True) or not said
            if column.get("data_type") == "timestamp" and table.get(HINT) and not native.zoned:
                column["timezone"] = False
    return schema


def _with_copies(table: TableInfo, native: catalog.Native) -> TableInfo:
    columns = {column.name: column for column in table.columns}
    copies = copies_of(table.name, columns, native)
    columns |= {copy: columns[of]._replace(name=copy, description=copy_description(of)) for copy, of in copies.items()}
    if not copies:
        return table
    return table._replace(columns=tuple(columns[name] for name in ordered(dict.fromkeys(columns, "text"))))


# Where it is said in another way; ClickHouse has no schemas.
_CREATE_SCHEMA = {"tsql": "CREATE SCHEMA {}", "fabric": "CREATE SCHEMA {}", "clickhouse": ""}


def _tidy(statement: str) -> str:
    """dlt's statement with a column a line, without the blanks that it leaves where there are no hints."""
    if not statement.startswith("CREATE TABLE"):
        return statement
    depth, closing = 0, -1
    for at, sign in enumerate(statement):
        depth += (sign == "(") - (sign == ")")
        if sign == ")" and not depth:
            closing = at
            break
    if closing < 0:
        return statement
    first, *columns = (" ".join(line.split()).replace(" ,", ",") for line in statement[:closing].splitlines())
    rest = " ".join(statement[closing:].split())
    return "\n".join([first, *(f"    {column}" for column in columns), rest])


def grid(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines, their cells one below the other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def moment(time: datetime | None) -> str:
    """A time in UTC, to the second."""
    return f"{time:%Y-%m-%d %H:%M:%S}" if time else "-"


def percent(share: float | None) -> str:
    """A share of rows; what is neither none nor all never looks so.

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
    return [f"  {line}" for line in lines]


def _headline(table: TableInfo) -> str:
    text = " ".join(filter(None, (_counted(table.statistics), table.description)))
    return f"{table.name}: {text}" if text else table.name


def _counted(statistics: Statistics | None) -> str:
    if statistics is None:
        return ""
    rows = f"{statistics.rows:,} row{'' if statistics.rows == 1 else 's'}"
    first, last = statistics.first_received_at, statistics.last_received_at
    return f"{rows}, received {moment(first)} to {moment(last)}." if first and last else f"{rows}."


def _cells(table: TableInfo) -> list[list[str]]:
    """The columns as rows of text, below their headings."""
    if table.statistics is None:
        return [["column", "type", "description"], *([c.name, c.type, c.description] for c in table.columns)]
    return [
        ["column", "type", "null", "first came", "description"],
        *(
            [c.name, c.native or c.type, percent(c.null_share), moment(c.first_came), c.description]
            for c in table.columns
        ),
    ]


def _dbt_table(table: TableInfo) -> dict[str, Any]:
    made: dict[str, Any] = {"name": table.name}
    if table.description:
        made["description"] = table.description
    clock = next((clock for clock in LOAD_CLOCKS if table.has(clock)), None)
    if clock:
        made["config"] = {"loaded_at_field": clock}
        if table.name in ALWAYS_FRESH:
            made["config"]["freshness"] = deepcopy(FRESHNESS)  # YAML would show one as a reference to the other
    if _is_there(table) and len(table.key) > 1:
        # `unique` takes an expression in place of a column.
        together = " || '|' || ".join(table.key)
        made["data_tests"] = [{"unique": {"arguments": {"column_name": f"({together})"}}}]
    made["columns"] = [_dbt_column(column, table, clock) for column in table.columns]
    return made


def _dbt_column(column: ColumnInfo, table: TableInfo, clock: str | None) -> dict[str, Any]:
    made: dict[str, Any] = {"name": column.name}
    if column.description:
        made["description"] = column.description
    if column.native:
        made["data_type"] = column.native
    tests = ["unique"] if table.key == (column.name,) else []
    if column.name in table.key or (column.name == clock and table.key):
        tests.append("not_null")
    return made | ({"data_tests": tests} if tests and _is_there(table) else {})


def _is_there(table: TableInfo) -> bool:
    """dbt fails tests of tables that do not exist, which those of rarer messages may not, yet."""
    return table.statistics is not None or table.name in _SURE


_SURE = frozenset(table.name for table in catalog.ALWAYS)
