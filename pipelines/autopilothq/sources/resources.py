"""The resources of a source: one for each table, so that `with_resources` can select tables.

They share a `SourceLoads`: when dlt asks the first of them for rows, the whole load is read; after that, each yields
its own rows.
"""

from collections.abc import Iterator
from functools import partial
from threading import RLock
from typing import Any, cast

import dlt
from dlt.sources import DltResource

from ..catalog import BOOKS, EVENT_DESCRIPTION, EVENTS_RESOURCE, TABLES, Table
from ..errors import InvalidSetting, NotSupported
from ..warehouses.dlt_internals import TTableSchemaColumns, TWriteDispositionDict
from ..warehouses.dlt_internals import resources as dlt_resources
from ..warehouses.native import TABLE_HINTS
from . import user_hints
from .dlt_patches import patch_dlt
from .load import Load, run_load
from .origin import Origin
from .plan import LoadSettings
from .row_files import event_table_of


class SourceLoads:
    """The loads of one source, shared by its resources.

    Each extraction is a load of its own: a source that is extracted again, because its load failed or for another
    pipeline, is read again from the beginning. So is a source that is iterated without a pipeline: it always yields
    the rows of a load into an empty dataset.
    """

    def __init__(self, origin: Origin[Any], settings: LoadSettings) -> None:
        self.settings = settings
        self._origin = origin
        self._lock = RLock()
        # The last reading: its extraction, the source as selected for it, and the resulting load or error.
        self._extraction: tuple[Any, ...] = ()
        self._source: object = None
        self._load: Load | None = None
        self._failure: Exception | None = None
        self._begun: set[str] = set()

    @property
    def load(self) -> Load:
        """The load under way."""
        if self._load is None:
            raise RuntimeError("Expected a load under way, but no resource was asked for rows yet.")
        return self._load

    def begin(self, name: str) -> Load:
        """Returns the load of the extraction under way; the resource `name` calls it before it yields its rows.

        The first call of an extraction reads the origin; a second call of the same resource begins a new load. If
        reading fails, the extraction's other resources get the same error.
        """
        with self._lock:
            load_id, source = dlt_resources.extraction(), dlt.current.source()
            # Without a pipeline, the source itself identifies the extraction.
            extraction = (dlt_resources.running_pipeline().working_dir, load_id) if load_id else (source,)
            is_known = extraction == self._extraction
            if load_id and is_known:
                self._check_run(source)
            if not is_known or self._load is None or name in self._begun:
                if load_id:
                    self._check_thread()
                self._extraction, self._source = extraction, source
                self._read()
            self._begun.add(name)
            if load_id and name in source.selected_resources:
                table_of = event_table_of if name == EVENTS_RESOURCE else lambda _: name
                dlt_resources.check_steps(partial(user_hints.check_step, name, table_of, set()))
            return self.load

    def _check_run(self, source: object) -> None:
        """Raises the error with which reading failed in this run, or NotSupported if it extracts two selections."""
        if self._failure is not None:
            raise self._failure
        if source is not self._source:
            raise NotSupported(
                "Expected a source once in a run, but two selections of it are extracted: what is stored is noted"
                ' for both at once.\nSelect all resources together: with_resources("tracks", "email_opened")'
            )

    def _check_thread(self) -> None:
        """Raises NotSupported if another thread is extracting this source as well."""
        if dlt_resources.extractions_of(self) > 1:
            raise NotSupported(
                "Expected a source in one run at a time, but another thread runs it too: both would read and"
                " count for each other.\nMake a source for each run: archive(...) in each thread."
            )

    def _read(self) -> None:
        """Reads the origin, and keeps the load or the error."""
        if self._load is not None:
            self._load.hints.remove_row_hints()
        self._load = self._failure = None
        self._begun = set()
        try:
            self._load = run_load(self._origin, self.settings, self)
        except Exception as error:
            self._failure = error
            raise


def resources(origin: Origin[Any], settings: LoadSettings) -> list[DltResource]:
    """Returns the resources of an origin's tables, and of `_rejects`, `_discards` and `_audit`, which comes last.

    Raises InvalidSetting for a table that the catalogue does not have.
    """
    dlt_resources.record_extractions()
    patch_dlt()
    loads = SourceLoads(origin, settings)
    names = (*origin.tables, *(book.name for book in BOOKS))
    return [_others(loads) if name == EVENTS_RESOURCE else _resource(loads, _table(name)) for name in names]


def _table(name: str) -> Table:
    if name not in TABLES:
        raise InvalidSetting(f"Expected an origin's tables to be in catalog.py, but {name} is not: add it there.")
    return TABLES[name]


def _resource(loads: SourceLoads, table: Table) -> DltResource:
    # Columns come only with the rows: those declared here would precede all others in a new table.
    def rows() -> Iterator[Any]:
        yield from loads.begin(table.name).items(table)

    dlt_resources.set_owner(rows, loads, table.name)
    made = dlt.resource(
        rows,
        name=table.name,
        primary_key=table.key,
        write_disposition="merge",  # the strategy comes with the rows: dlt checks it against any active destination
        table_format=cast(Any, loads.settings.table_format),
        file_format="parquet",
        table_name=table.name,
    )()
    return made.apply_hints(additional_table_hints={"description": table.description, **TABLE_HINTS})


def _others(loads: SourceLoads) -> DltResource:
    """Returns the resource of tables outside the catalogue: dlt takes their names and columns from the rows."""

    def rows() -> Iterator[Any]:
        load = loads.begin(EVENTS_RESOURCE)
        load.hints.join_own_columns(EVENTS_RESOURCE, columns)
        yield from load.other_items()

    def columns(item: Any) -> TTableSchemaColumns:
        return loads.load.files.columns_of(item)

    def disposition(item: Any) -> TWriteDispositionDict:
        return loads.load.hints.disposition(event_table_of(item))

    dlt_resources.set_owner(rows, loads, EVENTS_RESOURCE)
    made = dlt.resource(
        rows,
        name=EVENTS_RESOURCE,
        columns=columns,
        primary_key="id",
        write_disposition=disposition,
        table_format=cast(Any, loads.settings.table_format),
        file_format="parquet",
        table_name=event_table_of,
    )()
    user_hints.mark_functions(made)
    return made.apply_hints(additional_table_hints={"description": EVENT_DESCRIPTION, **TABLE_HINTS})
