"""The hints for dlt about the tables of one load: their columns, and how rows are merged into them."""

import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import dlt

from ..catalog import Layout, Table, Type
from ..projection import ExistingTables, ordered_columns
from ..warehouses.dlt_internals import TTableSchemaColumns, TWriteDispositionDict
from ..warehouses.dlt_internals import resources as dlt_resources
from ..warehouses.hints import capabilities_of, column_hints, layout_hints, replacing_disposition
from ..warehouses.native import COPY_HINT, copies_of
from . import user_hints
from .extraction import Extraction
from .load_target import LoadTarget, write_disposition


@dataclass
class TableHints:
    """The hints that go to dlt with the rows of one load.

    `existing` are the tables that the destination has already. `added` collects the hints that were made: dlt would
    keep them in the resources for all later extractions, so `remove_row_hints` removes them. `mended` are the tables of
    messages in which rows of this load replace stored ones. `joined` are the resources whose columns come from both
    their rows and a user's hints.
    """

    extraction: Extraction
    target: LoadTarget
    existing: ExistingTables
    added: dict[str, Any] = field(default_factory=dict)
    mended: set[str] = field(default_factory=set)
    joined: set[str] = field(default_factory=set)

    def make(self, table: Table, types: Mapping[str, Type], typed: bool = True, file_format: Any = None) -> Any:
        """Returns dlt's hints for rows of a table: its columns, and how they are merged."""
        _, stored = self.layout(table.name)
        made = dlt_resources.OwnHints(
            dlt.mark.make_hints(
                columns=self.columns(table, types, typed),
                write_disposition=self.disposition(table.name),
                additional_table_hints=stored or None,
                file_format=file_format,
            )
        )
        self.added[table.name] = made
        return made

    def columns(self, table: Table, types: Mapping[str, Type], typed: bool = True) -> TTableSchemaColumns:
        """Returns the hints for a table's columns as the destination needs them; a user's own hints take precedence.

        Types are left out unless `typed`: rows that a user's step made have types of their own.
        """
        copies = self.copies(table.name, types)
        if not copies.keys() <= types.keys():
            types = ordered_columns({**types, **dict.fromkeys(copies, "timestamp")})
        made = column_hints(table, types, self.target.declares_keys, self.is_zoned(table.name), copies)
        for name, hint in self.layout(table.name)[0].items():
            made[name][hint] = True
        resource = self.extraction.resources.get(table.name)
        own = dict(user_hints.own_columns(resource)) if resource is not None else {}
        pipeline = self.extraction.pipeline
        edited = pipeline is not None and dlt_resources.has_import_schema(pipeline)
        in_schema = self.extraction.schema_columns(table.name)
        for name, column in made.items():
            if not typed:
                column.pop("data_type")
            if edited and in_schema.get(name, {}).get("description"):
                column.pop("description", None)
            for key in own.get(name, {}).keys() - {"name", "data_type"}:
                column.pop(key, None)  # type: ignore[misc]
        return made

    def join_own_columns(self, name: str, columns: Callable[[Any], TTableSchemaColumns]) -> None:
        """Restores the function that takes a resource's columns from its rows if a user's hints have replaced it."""
        resource = self.extraction.resources[name]
        if callable(resource.columns):
            return
        own = user_hints.own_columns(resource)

        def joined(item: Any) -> TTableSchemaColumns:
            made = columns(item)
            return made | {column: made.get(column, {}) | hints for column, hints in own.items()}

        resource.apply_hints(columns=joined)
        user_hints.mark_functions(resource)
        self.joined.add(name)

    def layout(self, table: str) -> tuple[dict[str, Layout], dict[str, Any]]:
        """Returns dlt's hints about a table's layout: for its columns, and for the table; empty if a user gave any."""
        own = self.extraction.hints.get(table) or {}
        columns = own.get("columns")  # a function of rows cannot be evaluated before there are any
        hints = {*own, *(itertools.chain.from_iterable(columns.values()) if isinstance(columns, Mapping) else ())}
        decided = any(hint in get_args(Layout) or hint.startswith(("x-bigquery-", "x-databricks-")) for hint in hints)
        return ({}, {}) if decided else layout_hints(table, self.target.native)

    def disposition(self, table: str) -> TWriteDispositionDict:
        """Returns the write disposition of a table: how rows are merged into it, or that they replace all of it."""
        target = self.target
        if table in self.mended:
            return replacing_disposition(target.strategies)
        resource = self.extraction.resources.get(table)
        return write_disposition(table, resource, target.strategies, target.replacement.replaced)

    def is_zoned(self, table: str) -> bool:
        """Returns whether the times of a table have a time zone; those of a table that exists stay as they are."""
        dataset = self.target.dataset
        return self.target.native.zoned or (dataset is not None and table in dataset.zoned)

    def copies(self, table: str, columns: Collection[str]) -> dict[str, str]:
        """Returns the columns that repeat others, with the originals; in an existing table, those that a load made."""
        in_schema = self.extraction.schema_columns(table)
        return {
            copy: of
            for copy, of in copies_of(table, columns, self.target.native).items()
            if table not in self.existing or COPY_HINT in in_schema.get(copy, {})
        }

    def empty_format(self) -> Any:
        """Returns the format of files without rows: Parquet, unless ADBC, which refuses such files, loads Parquet."""
        if self.extraction.pipeline is None:
            return "parquet"
        capabilities = capabilities_of(self.extraction.pipeline)
        selected = capabilities.loader_file_format_selector is not None
        formats = capabilities.supported_loader_file_formats or ()
        refused = selected and not self.target.table_format and "insert_values" in formats
        return "insert_values" if refused else "parquet"

    def remove_row_hints(self) -> None:
        """Removes the hints of this load from the resources."""
        for name, added in self.added.items():
            dlt_resources.remove_row_hints(self.extraction.resources[name], self.extraction.hints[name], added)
        for name in self.joined:
            dlt_resources.restore_columns(self.extraction.resources[name], self.extraction.hints[name])
