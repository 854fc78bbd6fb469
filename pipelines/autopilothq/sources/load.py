"""One load of an origin: plan the work, project its messages, hand the rows over to dlt.

Each step adds to what is known: `Extraction` is what dlt extracts, `LoadTarget` what the destination has,
`PlannedLoad` both of them and the origin's work, `ProjectedLoad` the rows, and `Load` which of them dlt has taken. Only
two things change meanwhile: the counts of the `LoadReport`, and what `RefusedMessages` leaves out.
"""

from collections.abc import Iterator
from time import monotonic
from typing import Any

import dlt
import pyarrow as pa

from ..catalog import ALWAYS, AUDIT, DISCARDS, EVENTS_RESOURCE, Table
from ..projection import ordered_columns
from ..projection.context import declared_types
from ..warehouses.dataset import connected
from ..warehouses.dlt_internals import resources as dlt_resources
from ..warehouses.duckdb_open import close_database_after, keep_open_while_loading
from ..warehouses.hints import REPLACED, arrow_schema
from .earlier_load import Brought, Stored, note_earlier
from .extraction import note_moved, note_taken
from .origin import Origin
from .plan import LoadSettings, PlannedLoad, plan_load
from .project import ProjectedLoad, project, write_rows
from .refused import UUID_TS
from .row_files import RowFiles


class Load:
    """A load whose rows are ready, while its resources hand them over to dlt.

    `_audit` comes last: a file counts as loaded only if all rows of all other resources were taken.
    """

    def __init__(self, planned: PlannedLoad, projected: ProjectedLoad) -> None:
        self.files = projected.files
        self.hints = projected.files.hints
        self.report = planned.report
        self._planned = planned
        self._audit = projected.audit
        self._resources = planned.extraction.data_resources
        self._ended: set[str] = set()
        self._whole: set[str] = set()

    def items(self, table: Table) -> Iterator[Any]:
        """Yields the rows of a table of the catalogue as dlt takes them; those of `_audit` after all others."""
        yield from self._noted(table.name, self._items(table))

    def other_items(self) -> Iterator[Any]:
        """Yields the rows of all tables that the catalogue does not have."""
        items = (item for table in self.files.other_tables() for item in self.files.items(table))
        yield from self._noted(EVENTS_RESOURCE, items)

    def _noted(self, resource: str, items: Iterator[Any]) -> Iterator[Any]:
        """Yields a resource's items; notes when dlt is done with them, and whether it took all of them."""
        try:
            yield from items
            self._whole.add(resource)
        finally:
            self._ended.add(resource)

    def _items(self, table: Table) -> Iterator[Any]:
        if table is AUDIT:
            while self._resources - self._ended:
                yield None  # lets dlt take rows of the other resources meanwhile
            if (audit := self._audit_rows()) is not None:
                yield self.files.audit_item(audit)
        else:
            yield from self.files.items(table.name)
        if table in ALWAYS and table.name not in self.hints.existing and table.name not in self.report.rows:
            types = declared_types(table)
            yield self.files.empty(table, ordered_columns(types, table.key) if UUID_TS in types else types)

    def _audit_rows(self) -> pa.Table | None:
        """Returns the rows of `_audit`, or None if there is nothing to write.

        If not all rows were taken, no file counts as loaded: all are read again.
        """
        extraction = self._planned.extraction
        windows = {name for name in self._resources if dlt_resources.is_window(extraction.resources[name])}
        incomplete = sorted(self._resources - self._whole | windows)
        fed = ", ".join(sorted(extraction.only_fed))
        if incomplete and self._audit:
            self._warn(
                f"No file counts as loaded, because not all rows of {', '.join(incomplete)} were taken: the next load"
                " reads all files again."
            )
        elif fed and self._audit:
            self._warn(
                f"{fed} is not selected, but a transformer took its rows: they count as loaded, and no later load"
                ' brings them into tables of their own, except with write_disposition="replace".'
            )
        if not incomplete and self._planned.origin.reads_again and extraction.pipeline is not None:
            note_taken(extraction.resources.keys())
        rows = [] if incomplete else [{**row, "load_id": extraction.load_id} for row in self._audit]
        if not rows and not self._planned.target.replacement.anew:
            return None
        return pa.Table.from_pylist(rows, arrow_schema(declared_types(AUDIT)))

    def _warn(self, text: str) -> None:
        self._planned.context.warn(text)
        self._planned.context.report_progress()


def run_load(origin: Origin[Any], settings: LoadSettings, keeper: object) -> Load:
    """Reads what is new in an origin for the extraction under way; returns the load, ready to be handed over.

    The load's files are deleted once `keeper` is garbage-collected.
    """
    started = monotonic()
    planned = plan_load(origin, settings, keeper)
    with close_database_after(planned.extraction.pipeline):
        projected = project(planned)
        if planned.context.pipeline is not None:
            for rows in origin.finish(planned.context):
                write_rows(planned, projected.files, rows)
        if planned.extraction.pipeline is not None:
            note_moved(planned.moved_tables(projected.files.other_tables()))
            _note_earlier(planned, projected.files, planned.extraction.pipeline)
            keep_open_while_loading(planned.extraction.pipeline)
    report = planned.report
    report.discards = report.rows.get(DISCARDS.name, 0)
    for name, errors in planned.target.refused.left_out.items():
        why = next(iter(errors.values()))
        report.warnings.append(f"Rows left out of {name}: {len(errors):,}; {why}")
    report.seconds = monotonic() - started
    planned.context.report_progress()
    return Load(planned, projected)


def _note_earlier(planned: PlannedLoad, files: RowFiles, pipeline: dlt.Pipeline) -> None:
    """Records which loads this one was read after, because it leaves out their rows, and how many rows it brings."""
    target, load_id = planned.target, planned.extraction.load_id
    if target.dataset is None or load_id is None:
        return
    reads_again = planned.origin.reads_again
    # For an API, rows that replace others are left out: if those of another load made them count as lost, the whole
    # account would be requested again.
    left_out = {AUDIT.name} if reads_again else {table.name for table in REPLACED}
    made = {table: count for table, count in planned.report.rows.items() if count and table not in left_out}
    rows = {table: count for table, count in made.items() if not files.are_seen(table)}  # a step may drop rows
    brought = Brought(planned.context.loaded_at.isoformat(), rows)
    if not planned.work or target.replacement.anew:  # it leaves nothing out
        if rows:
            note_earlier(pipeline, load_id, Stored(target.counted), Stored(frozenset()), brought)
        return
    with connected(target.dataset):
        complete = target.dataset.complete_loads()
    now = earlier = Stored(complete)
    if reads_again:
        audited = {loaded.load_id for loaded in target.loads.values()}
        # `_audit` will name this load for the files of these loads, and may then have nothing else of them.
        taken_over = {before.load_id for work in planned.work if (before := target.loaded(work.url, work.version))}
        now, earlier = Stored(complete, audited), Stored(complete, audited - taken_over)
    note_earlier(pipeline, load_id, earlier, now, brought, frozenset(complete - target.complete))
