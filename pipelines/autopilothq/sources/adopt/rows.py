"""The rows of the tables of messages, made of adopted rows."""

from collections.abc import Collection, Iterable, Iterator, Mapping

from ...catalog import COLUMN_RESERVE, DISCARDS, LINK, PROPERTIES, TABLES, TRACKS, Type, event_table
from ...projection import TableRows, engine
from ...projection.columns import ColumnPlan, plan_columns
from ...projection.context import book_rows, declared_types
from ...projection.types import ColumnValues, merge_values
from .buffer import OTHER_TABLES
from .columns import (
    CELLS_PER_QUERY,
    LOST_PREFIX,
    BufferedTable,
    DiscardedValues,
    RowGroup,
    aliased,
    cell_name,
    values_of,
)
from .kept import SQL, Adoption, keys
from .row_width import AdoptedColumns, without_too_wide

_KEPT = "ANTI JOIN {duplicates} USING (seq) ANTI JOIN rejects USING (seq)"


def message_rows(adoption: Adoption) -> Iterator[TableRows]:
    """Yields the rows of each table of messages except `tracks`."""
    for name in adoption.messages:
        table = adoption.buffered[name]
        columns = table_columns(adoption, name, _declared(adoption, name), [table])
        more = {"uuid_ts": adoption.context.loaded_at_sql}
        if name in adoption.events:
            more["event"] = engine.literal(name)
        discard_misfits(adoption, table, name, columns.types, "duplicates")
        yield _kept_rows(adoption, name, columns, [_select(table, columns, more)], "duplicates", keys(name))


def tracks_rows(adoption: Adoption) -> Iterator[TableRows]:
    """Yields the rows of `tracks`: those of the events' tables, and its own if their event's table is missing."""
    tables = [adoption.buffered[name] for name in adoption.events]
    own = adoption.buffered.get(TRACKS.name)
    every = tables if own is None else [*tables, own]
    if not every:
        return
    declared = declared_types(TRACKS)
    columns = table_columns(adoption, TRACKS.name, declared, every, "context_")
    common = columns.only({column for column in columns.types if column in declared or column.startswith("context_")})
    loaded_at = adoption.context.loaded_at_sql
    selects = [_select(table, common, {"uuid_ts": loaded_at, "event": engine.literal(table.name)}) for table in tables]
    if own is not None:
        select = _select(own, columns, {"uuid_ts": loaded_at})
        selects.append(f"FROM ({select}) ANTI JOIN orphans USING (seq)")
        discard_misfits(
            adoption, own, TRACKS.name, columns.types, "(FROM track_duplicates UNION ALL SELECT seq FROM orphans)"
        )
    yield _kept_rows(adoption, TRACKS.name, columns, selects, "track_duplicates", '"track keys"')


def _select(table: BufferedTable, columns: AdoptedColumns, more: Mapping[str, str]) -> str:
    """Returns a query of a table's cells in the order of the columns, with `seq`."""
    types = {column: type_ for column, type_ in columns.types.items() if column not in more}
    cells = ", ".join(map(aliased, columns.ordered))
    return f"SELECT seq, {cells} FROM ({table.select(types, columns.names, more)})"


def _kept_rows(
    adoption: Adoption, table: str, columns: AdoptedColumns, selects: Iterable[str], duplicates: str, rows: str
) -> TableRows:
    con, ordered = adoption.context.con, columns.ordered
    cells = ", ".join(f"{aliased(column)} AS {engine.name(column)}" for column in ordered)
    every = " UNION ALL BY NAME ".join(f"({select})" for select in selects)
    kept = without_too_wide(adoption.context, table, columns, f"FROM ({every}) {_KEPT.format(duplicates=duplicates)}")
    number = engine.count(con, f"(FROM {rows} ANTI JOIN {duplicates} USING (seq))")
    return TableRows(table, ordered, con.sql(f"SELECT {cells} FROM ({kept})"), number)


def declared_columns(name: str, existing: Collection[str]) -> dict[str, Type]:
    """Returns the columns that the catalogue declares for a table, and their types.

    Columns of emails' events are declared for other events' tables, too, but only those in `existing`.
    """
    if name in OTHER_TABLES:
        return declared_types(TABLES[name])
    declared = declared_types(event_table(name))
    return declared | {column.name: column.type for column in (*PROPERTIES, *LINK) if column.name in existing}


def _declared(adoption: Adoption, name: str) -> dict[str, Type]:
    existing = {*adoption.buffered[name].columns, *adoption.context.existing.get(name, {})}
    return declared_columns(name, existing)


def table_columns(
    adoption: Adoption, table: str, declared: Mapping[str, Type], buffered: Iterable[BufferedTable], prefix: str = ""
) -> AdoptedColumns:
    """Returns the columns of a table: those declared, and others, typed by all their values.

    From `buffered` tables with another name, only columns with the prefix are taken. Values of columns beyond the
    table's limit are discarded.
    """
    context = adoption.context
    tables = list(buffered)
    found: dict[str, ColumnValues] = {}
    for each in tables:
        undeclared = [column for column in each.columns if column not in declared]
        others = [column for column in undeclared if each.name == table or column.startswith(prefix)]
        found = merge_values(found, values_of(context.con, each, others))
    known = context.existing.get(table, {})
    width = max(context.widths.get(table, 0), len(known)) + len(declared.keys() - known.keys())
    plan = plan_columns(context, table, found, {}, context.limits.columns - COLUMN_RESERVE - width)
    for each in tables:
        _discard_columns(adoption, each, table, plan)
    types = {**declared, **{column: extra.type for column, extra in plan.taken.items()}}
    return AdoptedColumns(types, {column: extra.name for column, extra in plan.taken.items()})


def _discard_columns(adoption: Adoption, buffered: BufferedTable, table: str, plan: ColumnPlan) -> None:
    if table == TRACKS.name and buffered.name != TRACKS.name:
        return  # the event's table discards them
    for group in buffered.groups:
        discarded = [
            DiscardedValues(column, cell_name(column), group.forms[column], engine.literal(reason))
            for reason, columns in plan.left_out.items()
            for column in columns
            if column in group.forms
        ]
        _discard_values(adoption, buffered, table, group, discarded, "duplicates")


def discard_misfits(
    adoption: Adoption, buffered: BufferedTable, table: str, types: Mapping[str, Type], duplicates: str
) -> None:
    """Discards the values of a table's rows that do not fit their column's type, or whose column is lost."""
    for group in buffered.groups:
        discarded = [
            DiscardedValues(lost.column, engine.name(f"{LOST_PREFIX}{index}"), lost.form, engine.literal(lost.reason))
            for index, lost in enumerate(group.lost)
        ]
        misfits = {
            column: (f"count(*) FILTER ({name} IS NOT NULL AND {group.cell(column, type_)} IS NULL)",)
            for column, form in group.forms.items()
            for name in [cell_name(column)]
            if (type_ := types.get(column)) is not None and (form != type_ or type_ not in ("bigint", "bool"))
        }
        counts = group.aggregates(adoption.context.con, misfits)
        discarded += [group.misfits(column, types[column]) for column, (count,) in counts if count]
        _discard_values(adoption, buffered, table, group, discarded, duplicates)


def _discard_values(
    adoption: Adoption,
    buffered: BufferedTable,
    table: str,
    group: RowGroup,
    discarded: Iterable[DiscardedValues],
    duplicates: str,
) -> None:
    """Discards values of the rows of a group that are kept."""
    context = adoption.context
    # With thousands of columns, a query for each would take minutes; a query for several needs more memory.
    for part in engine.batched(discarded, 1 if context.cells.has_long_lines else CELLS_PER_QUERY):
        sql = SQL["misfits"].format(misfits=group.discards(part), keys=keys(buffered.name), duplicates=duplicates)
        context.con.execute(sql, {"table_name": table})


def discarded_rows(adoption: Adoption) -> TableRows | None:
    """Returns the rows of `_discards`, or None if there are none; complete once the rows of all tables are made."""
    context = adoption.context
    discarded = SQL["discarded"].format(loaded_at=context.loaded_at_sql)
    context.con.execute(f"CREATE OR REPLACE TABLE discarded AS {discarded}")
    return book_rows(context.con, "discarded", DISCARDS)
