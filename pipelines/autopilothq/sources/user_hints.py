"""Checks the hints that users give dlt for a resource: those that cannot be followed are refused."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import dlt
import pyarrow as pa
from dlt import Schema
from dlt.sources import DltResource

from ..catalog import AUDIT, TABLES, Table, key_of, resource_of
from ..display import plural
from ..errors import NotSupported
from ..projection import TableRows, engine
from ..warehouses.dlt_internals import DLT_NAME_PREFIX, TTableSchemaColumns
from ..warehouses.dlt_internals import resources as dlt_resources
from ..warehouses.hints import REPLACED, STRATEGIES
from ..warehouses.merging import changing_hint

_OF_SOURCE = "autopilothq_hint"  # the attribute of functions that are hints of the source itself
_LEAVE_OUT = "Leave it out. To leave out rows, use a step of your own: source.resources[...].add_map(...)."
_UNSET = "dlt's schema has it, perhaps from an earlier run. Set it to {} there, or with apply_hints(...)."
_WAREHOUSE_FORMATS = ("delta", "iceberg")  # of Databricks, which stores the same rows in both
# What `additional_table_hints` must not override.
_STORING = frozenset({"name", "parent", "resource", "columns", "write_disposition", "table_format", "file_format"})


def mark_functions(resource: DltResource) -> None:
    """Marks the functions among a resource's hints as the source's own, because those of users are refused."""
    for function in dlt_resources.hint_functions(resource).values():
        setattr(function, _OF_SOURCE, True)


def check_hints(resource: DltResource) -> None:
    """Raises NotSupported for a resource with hints that cannot be followed."""
    name = resource.name
    table = TABLES.get(name)  # None for the resource of unknown events
    _check_functions(resource)
    disposition = _disposition(resource)
    if disposition and disposition["disposition"] not in ("merge", "replace"):
        raise NotSupported(
            f"Expected the write disposition merge or replace for {name}, but got {disposition['disposition']}: a"
            " message that comes again would be stored twice.\n"
            "Leave write_disposition out: what is stored stays, and what is new is added."
        )
    _check_merge(resource, disposition)
    requested, possible = strategy(resource), STRATEGIES[table in REPLACED]
    if requested is not None and requested not in possible:
        raise NotSupported(
            f"Expected the merge strategy {' or '.join(possible)} for {name}, but got {requested}.\n"
            "Leave the strategy out: the best one that the destination has is taken."
        )
    if table is not None and resource.table_name != table.name:
        raise NotSupported(
            f"Expected the table name {table.name} for the resource {name}, but got {resource.table_name!r}: what is"
            " stored is looked for there.\nLeave table_name out, and rename in a view or with dataset_name."
        )
    _check_keys(resource, table.key if table else ("id",))
    _check_deletion(name, own_columns(resource), _LEAVE_OUT)
    file_format = dlt_resources.hints(resource).get("file_format")
    if file_format not in (None, "parquet"):
        raise NotSupported(
            f"Expected the file format parquet for {name}, but got {file_format}.\n"
            "Leave loader_file_format and file_format out."
        )
    if resource.validator is not None:
        raise NotSupported(
            f"Expected columns of {name} as a dict of hints, but got a model that checks rows: rows come as Arrow"
            " tables.\nCheck them in a step of your own: source.resources[...].add_map(...)."
        )


def _check_keys(resource: DltResource, key: Sequence[str]) -> None:
    """Raises NotSupported for keys other than a table's own, whether given for the resource or for a column."""
    name = resource.name
    given, merge_key = map(dlt_resources.hints(resource).get, ("primary_key", "merge_key"))
    got = None
    if _names(given) != tuple(key) or merge_key:
        got = f"{given!r} (merge key: {merge_key!r})"
    elif other := _other_key(own_columns(resource), key):
        got = f"{other[1]} for its column {other[0]}"
    if got:
        raise NotSupported(
            f"Expected the primary key {', '.join(key)} for {name}, but got {got}: messages are unique by it.\n"
            "Leave primary_key and merge_key out."
        )


def _other_key(columns: TTableSchemaColumns, key: Sequence[str]) -> tuple[str, str] | None:
    """Returns a column that a hint wrongly makes part of a key, and that hint; None if there is no such column.

    dlt would match stored rows by this column, too, and delete or keep the wrong ones.
    """
    for name, column in columns.items():
        if column.get("merge_key"):
            return name, "merge_key"
        if column.get("primary_key") and name not in key:
            return name, "primary_key"
    return None


def _check_merge(resource: DltResource, disposition: Mapping[str, Any]) -> None:
    """Raises NotSupported for hints about how rows are stored, except for a write disposition and its strategy."""
    more = _table_hints(resource)
    formats = (resource.table_format,) if resource.table_format else _WAREHOUSE_FORMATS
    if more.get("table_format") in formats:
        del more["table_format"]  # databricks_adapter always sets this
    given = [hint for hint, value in disposition.items() if value and hint not in ("disposition", "strategy")]
    given += [
        hint
        for hint, value in more.items()
        if value and (hint in _STORING or hint.startswith(("x-merge-", "x-stage-")))
    ]
    if given:
        raise _changes_rows(given[0], resource.name, _LEAVE_OUT)


def _changes_rows(hint: str, table: str, advice: str) -> NotSupported:
    return NotSupported(
        f"Expected no hint {hint} for {table}: it changes which rows are stored, and _audit would be wrong about"
        f" them.\n{advice}"
    )


def _check_deletion(table: str, columns: TTableSchemaColumns, advice: str) -> None:
    """Raises NotSupported for a column that tells dlt which rows to delete."""
    if column := next((name for name, hints in columns.items() if hints.get("hard_delete")), None):
        raise NotSupported(
            f"Expected no hint hard_delete for {table}.{column}: rows that it lets be deleted would count as stored.\n"
            f"{advice}"
        )


def _check_functions(resource: DltResource) -> None:
    for hint, function in dlt_resources.hint_functions(resource).items():
        if not hasattr(function, _OF_SOURCE):
            raise NotSupported(
                f"Expected the hint {hint} of {resource.name} to be a value, but got a function of rows: rows that it"
                " sends elsewhere, or lets replace others, would count as stored.\n"
                f"Leave {hint} out, or give it a value that holds for all rows."
            )


def check_columns(resource: DltResource, rows: TableRows) -> None:
    """Raises NotSupported if a user's hints give a column another type than its values have."""
    for name, column in own_columns(resource).items():
        requested, actual = column.get("data_type"), rows.columns.get(name)
        if requested and actual and requested != actual:
            raise NotSupported(
                f"Expected the data type {actual} for the column {rows.table}.{name}, which its values have, but got"
                f" {requested}.\nLeave data_type out, and cast in a view or in a step of your own: add_map(...)."
            )


def check_nulls(resource: DltResource, rows: TableRows, in_schema: TTableSchemaColumns, with_dlts: bool) -> None:
    """Raises NotSupported if a row lacks a value that a user's hints or dlt's schema require.

    dlt would take the rows and then refuse them, in every run. dlt's own columns are checked only if `with_dlts`.
    """
    key = key_of(rows.table)
    for name, column in {**in_schema, **own_columns(resource)}.items():
        is_dlts = name.startswith(DLT_NAME_PREFIX)
        if column.get("nullable", True) or name in key or not rows.row_count or (is_dlts and not with_dlts):
            continue
        empty = rows.relation.filter(f"{engine.name(name)} IS NULL") if name in rows.columns else rows.relation
        [[number]] = empty.aggregate("count(*)").fetchall()
        if number:
            what = "Leave nullable out, or fill the column in a step of your own: add_map(...)."
            if is_dlts:
                what = (
                    "dlt adds it to rows that a step turned into dicts, or if [normalize.parquet_normalizer] says so."
                    f" Do that in every run, or have the table made without it: dlt pipeline NAME drop {resource.name}"
                )
            raise NotSupported(
                f"Expected a value in each row of {rows.table}.{name}, because its hints say nullable=False, but"
                f" {number:,} of {plural(rows.row_count, 'row')} {'has' if number == 1 else 'have'} none.\n{what}"
            )


def check_step(name: str, table_of: Callable[[Any], str], returned: set[Any], item: Any, meta: Any) -> Any:
    """Checks an item that a user's steps made of a resource's rows; returns it without repeated messages.

    Of rows with the same message id, in this item or in others that were made of the same rows, only the first stays.
    `table_of` returns the table of an item. `meta` is the item's metadata: the mark that this source gave the rows,
    with the ids that were returned for them so far; `returned` has these ids for rows without a mark.

    Raises NotSupported if rows have lost their key, if rows of `_audit` no longer say what is loaded, or if rows come
    with hints or for another table.
    """
    if mark := dlt_resources.item_mark(meta):
        raise NotSupported(
            f"Expected rows alone from the steps of {name}, but got {mark} with"
            " them: rows that it sends elsewhere, or lets replace others, would count as stored.\n"
            "Return rows without dlt.mark, and give hints to the resource: source.resources[...].apply_hints(...)."
        )
    rows = dlt_resources.as_arrow(item)
    for column in key_of(name):
        if _lacks(rows, column):
            raise NotSupported(
                f"Expected the column {column} with a value in each row that the steps of {name} return, but it is"
                " missing: it identifies a row, which would otherwise be stored again in each run.\n"
                f"Return {column} too, as it came, from what you gave add_map(...) or add_yield_map(...)."
            )
    has_rows = rows.num_rows if isinstance(rows, pa.Table | pa.RecordBatch) else isinstance(rows, dict)
    if name == AUDIT.name and has_rows:
        _check_audit(rows)
    if not has_rows or key_of(name) != ("id",):
        return item
    before = dlt_resources.returned_for(meta)
    return _not_returned(rows, table_of(rows), returned if before is None else before)


def _check_audit(rows: Any) -> None:
    """Raises NotSupported if rows of `_audit` no longer record which part of a file is loaded: null would mean all."""
    names = rows.keys() if isinstance(rows, dict) else rows.schema.names
    if missing := next((name for name in ("load_id", "tables") if name not in names), None):
        raise NotSupported(
            f"Expected the column {missing} in the rows that the steps of _audit return, but it is missing: without it"
            " what is loaded of a file is unknown, and the rest of it would not be loaded.\n"
            f"Return {missing} too, as it came, from what you gave add_map(...) or add_yield_map(...)."
        )


def _not_returned(rows: Any, table: str, returned: set[Any]) -> Any:
    """Returns the rows whose ids were not `returned` for a table before, the first of each id, and adds these ids.

    So each message is stored only once. Returns None for a dict that is left out.
    """
    if isinstance(rows, dict):
        is_new = (table, rows["id"]) not in returned
        returned.add((table, rows["id"]))
        return rows if is_new else None
    new = []
    for number, value in enumerate(rows.column("id").to_pylist()):
        if (table, value) not in returned:
            returned.add((table, value))
            new.append(number)
    return rows if len(new) == rows.num_rows else rows.take(pa.array(new, pa.int64()))


def _lacks(rows: Any, column: str) -> bool:
    if isinstance(rows, (pa.Table, pa.RecordBatch)):
        return bool(rows.num_rows) and (column not in rows.schema.names or rows.column(column).null_count > 0)
    return isinstance(rows, dict) and rows.get(column) is None


def check_schema(schema: Schema, table: Table) -> None:
    """Raises NotSupported if an import schema has a type, a key or a write disposition that a table cannot have."""
    known = schema.tables.get(table.name)
    if known is None:
        return
    for column in table.columns:
        given = known["columns"].get(column.name, {}).get("data_type", column.type)
        if given != column.type:
            raise NotSupported(
                f"Expected the data type {column.type} for {table.name}.{column.name} in the import schema, but got"
                f" {given}.\nChange it back there."
            )
    if other := _other_key(known["columns"], table.key):
        raise NotSupported(
            f"Expected the primary key {', '.join(table.key)} for {table.name} in the import schema, but got {other[1]}"
            f" for its column {other[0]}.\nChange it back there."
        )
    if known.get("write_disposition") not in (None, "merge", "replace"):
        raise NotSupported(
            f"Expected the write disposition merge for {table.name} in the import schema, but got"
            f" {known['write_disposition']}.\nChange it back there."
        )


def check_schema_rows(resources: Mapping[str, DltResource], schema: Schema) -> None:
    """Raises NotSupported if dlt's schema lets rows of one of these resources be deleted or left out.

    Users may have changed the schema itself. Hints of a resource take precedence over it.
    """
    for name, table in schema.tables.items():
        resource = resources.get(resource_of(name))
        if resource is None or table.get("parent") or table.get("resource") not in (None, resource.name):
            continue
        if hint := changing_hint({**table, **_table_hints(resource)}):
            raise _changes_rows(hint, name, _UNSET.format(None))
        own = own_columns(resource)
        columns = {column: {**hints, **own.get(column, {})} for column, hints in table["columns"].items()}
        if other := _other_key(cast(TTableSchemaColumns, columns), key_of(name)):
            raise NotSupported(
                f"Expected the primary key {', '.join(key_of(name))} for {name} in the schema, but got {other[1]} for"
                f" its column {other[0]}.\nRemove it there."
            )
        _check_deletion(name, cast(TTableSchemaColumns, columns), _UNSET.format(False))


def is_replaced(resource: DltResource) -> bool:
    """Returns whether a user requested to replace a resource's tables."""
    return bool(_disposition(resource).get("disposition") == "replace")


def replaced_resources() -> set[str]:
    """Returns the names of the extracted resources whose tables a user requested to replace."""
    return {each.name for each in dlt.current.source().resources.extracted if is_replaced(each)}


def strategy(resource: DltResource) -> str | None:
    """Returns the merge strategy that a user requested for a resource, or None."""
    return _disposition(resource).get("strategy")


def own_columns(resource: DltResource) -> TTableSchemaColumns:
    """Returns a user's hints for columns of a resource, by column; empty if there are none."""
    columns: Any = resource.columns
    return columns if isinstance(columns, dict) else {}


def _disposition(resource: DltResource) -> dict[str, Any]:
    """Returns a resource's write disposition; empty if the source decides it for each item."""
    disposition: Any = resource.write_disposition
    if callable(disposition):
        return {}
    return {"disposition": disposition} if isinstance(disposition, str) else dict(disposition)


def _table_hints(resource: DltResource) -> dict[str, Any]:
    """Returns the hints that a user gave for a resource's table, by their names in dlt's schema."""
    return dict(dlt_resources.hints(resource).get("additional_table_hints") or {})


def _names(key: Any) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else tuple(key or ())
