"""Checks that key columns are text that is compared exactly as it is spelt, because loads find rows by their keys."""

from collections.abc import Mapping, Sequence

from ...display import shortened
from ...errors import NotSupported
from ...projection import ExistingTables
from ..sql_files import sql_file
from .interface import Dataset, UnknownType
from .sql import SqlDataset


def unknown_types(dataset: Dataset) -> Mapping[tuple[str, str], UnknownType]:
    """Returns the types of those PostgreSQL columns, by table and name, that dlt wrongly reports as plain text."""
    if not isinstance(dataset, SqlDataset) or dataset.kind != "postgres":
        return {}
    if dataset.unknown_types is None:
        found = dataset.sql.by_schema(sql_file("unknown_types_postgres.sql"))
        dataset.unknown_types = {(table, column): UnknownType(*of) for table, column, *of in found}
    return dataset.unknown_types


def check_text_columns(dataset: Dataset, existing: ExistingTables, columns: Mapping[str, Sequence[str]]) -> None:
    """Raises NotSupported if one of the `columns` by which loads find a table's rows is missing, or not plain text.

    The table may belong to another program that chose the same name.
    """
    unknown = unknown_types(dataset) if columns else {}
    for table, column in ((table, column) for table, names in columns.items() for column in names):
        native = unknown.get((table, column))
        found = native.name if native else existing[table].get(column)
        if found != "text":
            raise NotSupported(
                f"Expected {table} in the dataset {dataset.name} to have a text column {column}, by which loads find"
                f" its rows, but {f'it has the type {shortened(found)}' if found else 'there is no such column'}.\n"
                "If it is somebody else's table, rename it (ALTER TABLE ... RENAME TO ...), or load into another"
                " dataset (--dataset, dataset_name). If the column was changed, change it back, or drop the table: the"
                " load makes it again."
            )


def check_exact_keys(dataset: Dataset, keys: Mapping[str, Sequence[str]]) -> None:
    """Raises NotSupported, with the statements that correct it, if MySQL or MariaDB treats different keys as equal.

    It does in tables that dlt or an earlier version created: there `Bob`, `bob` and `bob ` are the same key, and a
    merge lets their rows replace each other. The load does not change the columns itself, because that locks and
    rewrites each table as a whole, and does not bring back rows that are lost already.
    """
    if not isinstance(dataset, SqlDataset) or dataset.dialect != "mysql":
        return
    sql, changes = sql_file("inexact_texts_mysql.sql"), dict[str, str]()
    for part in (part for part in dataset.parts() if isinstance(part, SqlDataset)):
        for table, column, collation, exact in part.sql.by_schema(sql):
            if column in keys.get(table, ()):
                name, change = part.sql.table(table).replace("%%", "%"), f"MODIFY {part.quoted(table, column)} {exact}"
                changes[f"ALTER TABLE {name} {change};"] = f"{column} of {name} has the collation {collation}"
    if changes:
        raise NotSupported(
            f"Expected keys that are compared byte by byte, but {next(iter(changes.values()))}: rows whose keys differ"
            " only in their case would replace each other.\n"
            "Run these statements, then the load again. If rows of earlier loads are missing, they come back with the"
            " archive: DELETE FROM _audit makes the next load read it again.\n" + "\n".join(changes)
        )
