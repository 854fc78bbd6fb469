"""Turns the lines of a load into rows: reads what the origin planned, and writes each table's rows into files.

A projector does that, in one attempt or more: `project_here` in this process, `engine.coordinator.EngineProjector` on
many workers, `adopt.project.AdoptProjector` for adopted tables. The end of this module has the steps that they share.
"""

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..catalog import AUDIT, TABLES, key_of
from ..errors import NotSupported
from ..projection import (
    ENVIRONMENT_ERRORS,
    LINES_PER_FILE,
    Deduplicated,
    ExistingTables,
    FileCount,
    Projection,
    ReadTable,
    TableRows,
)
from ..projection.deduplicate import LeftOut
from ..segment.message import Batch
from ..warehouses.dataset import Dataset, check_exact_keys, check_text_columns
from ..warehouses.duckdb_open import reopen_database
from ..warehouses.repair import has_lost, repair_tables
from .adopted_rows import rows_of_messages, with_older_rows
from .audit import AuditRow, LinesRead, audit_rows
from .event_filter import filter_batch, unknown_events
from .load_folder import scratch_of_projection
from .plan import PlannedLoad
from .report import COUNTED
from .row_files import RowFiles
from .table_hints import TableHints

SMALL_LOAD_LINES = 10_000  # a load of at most this many lines keeps a DuckDB file open


class ProjectedLoad(NamedTuple):
    """The rows of a load, and those of `_audit`."""

    files: RowFiles
    audit: list[AuditRow]


def project(load: PlannedLoad) -> ProjectedLoad:
    """Reads all lines and writes the rows of all tables, by the settings' projector or in this process.

    Messages that cannot become rows are noted as refused, and the load is read again without them.
    """
    if not load.work:
        existing = existing_tables(load, [])
        return ProjectedLoad(begin_rows(load, existing), [])
    projector = load.settings.projector or project_here
    planned = copy.deepcopy(load.report)
    while (projected := projector(load)) is None:
        vars(load.report).update(vars(copy.deepcopy(planned)))
    return projected


def project_here(load: PlannedLoad) -> ProjectedLoad | None:
    """Makes the rows in this process; returns None if it found messages that cannot become rows."""
    scratch = scratch_of_projection(load.target.folder)
    projection = Projection(load.shared_context(), str(scratch), load.settings.workers)
    try:
        return InProcess(load, projection, scratch).project()
    except ENVIRONMENT_ERRORS:
        raise
    except Exception:
        if not note_unreadable(load, projection.unreadable()):
            raise
        return None
    finally:
        projection.close()


@dataclass(frozen=True)
class InProcess:
    """One attempt of a load in this process. `engine.coordinator.Coordinator` does the same on many workers."""

    load: PlannedLoad
    projection: Projection
    scratch: Path

    def project(self) -> ProjectedLoad:
        """Reads all lines, and writes the rows of all tables."""
        lines = self._read()
        open_for_few(self.load, self.load.report.lines)
        return self._rows(lines)

    def _read(self) -> LinesRead:
        """Reads the batches of the work, and adds several at a time to the projection."""
        load, projection, lines = self.load, self.projection, LinesRead()
        busy: set[Future[None]] = set()
        workers = load.settings.workers
        with ThreadPoolExecutor(workers) as pool:
            for number, whole in enumerate(load.origin.read(load.work)):
                batch, skipped, named = filter_batch(whole, load.messages_of, load.event_table)
                lines.skipped += skipped
                lines.named.update(named)
                if len(busy) >= workers:
                    done, busy = wait(busy, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
                if load.target.refused:
                    pq.write_table(batch.lines, self.scratch / f"lines-{number}", compression="zstd")
                if batch.lines.num_rows or batch.rejects:
                    busy.add(pool.submit(projection.add, batch))
                self._count(whole, lines)
            for future in busy:
                future.result()
        return lines

    def _count(self, batch: Batch, lines: LinesRead) -> None:
        report = self.load.report
        report.lines += batch.lines.num_rows
        report.bytes_done += batch.bytes
        report.files_done += len(batch.ended)
        lines.unfinished |= {number: why for number, why in batch.ended if why is not None}
        self.load.context.report_progress()

    def _rows(self, lines: LinesRead) -> ProjectedLoad:
        """Writes the rows of each table, and counts them in the report."""
        load = self.load
        existing = existing_tables(load, self.projection.tables(load.most_event_tables))
        stored = stored_rows(load, existing)
        deduplicated = self._deduplicated(existing, stored)
        files = begin_rows(load, existing)
        for rows in rows_of_messages(load, deduplicated, files):
            write_rows(load, files, rows)
        names = [file.url for file in load.work]
        latest = [with_older_rows(load, made, existing, stored, self.scratch) for made in deduplicated.latest(stored)]
        for made in (*latest, deduplicated.rejects(names), deduplicated.discards()):
            if made is not None:
                write_rows(load, files, made)
        counts = deduplicated.counts(load.counted_before())
        audit = audit_rows(load, counts, lines)
        fill_report(
            load,
            counts,
            lines,
            deduplicated.rejects_by_reason(),
            deduplicated.beyond_limits(),
            deduplicated.reject_causes(),
        )
        return ProjectedLoad(files, audit)

    def _deduplicated(self, existing: ExistingTables, stored: ReadTable | None) -> Deduplicated:
        load, target = self.load, self.load.target
        return self.projection.deduplicate(
            existing=existing,
            stored=stored if load.report.lines else None,  # without lines there is no id to look up
            complete=target.loads_with_discards(),
            left_out=LeftOut(target.suppressed, target.refused.ids, self._kept_lines),
            widths=target.widths(),
            event_tables=load.extraction.event_tables(),
            max_event_tables=load.settings.max_event_tables,
        )

    def _kept_lines(self, numbers: Collection[int]) -> Iterator[tuple[int, bytes]]:
        """Yields the number in the load and the text of each requested line, from the copies that `_read` kept."""
        requested = pa.array(numbers, pa.int64())
        for path in self.scratch.glob("lines-*"):
            for batch in pq.ParquetFile(path).iter_batches():
                number = pc.add(pc.multiply(batch["file"].cast(pa.int64()), LINES_PER_FILE), batch["line"])
                found = pa.record_batch({"number": number, "text": batch["text"]}).filter(pc.is_in(number, requested))
                yield from zip(found["number"].to_pylist(), found["text"].to_pylist(), strict=True)


# ---- steps that all projectors share -------------------------------------------------------------------------------


def open_for_few(load: PlannedLoad, lines: int) -> None:
    """Opens the DuckDB file for the rest of a small load, because that locks others out only for a short time."""
    if lines <= SMALL_LOAD_LINES:
        reopen_database(load.extraction.pipeline)


def note_unreadable(load: PlannedLoad, found: Mapping[str, str]) -> bool:
    """Notes messages that cannot become rows (errors by id) as refused; returns whether any of them is new."""
    refused = load.target.refused
    if not found.keys() - refused.messages.keys():
        return False
    refused.messages |= found
    refused.load_id = load.extraction.load_id
    if load.extraction.pipeline is not None:
        refused.write(load.extraction.pipeline)
    return True


def stored_rows(load: PlannedLoad, existing: ExistingTables) -> ReadTable | None:
    """Returns a function that reads the rows that count as stored; None if no row does."""
    # If any table is replaced, no row counts as stored: rows of the other tables that come again are merged.
    dataset, anew = load.target.dataset, load.target.replacement.anew
    return None if dataset is None or anew else load.target.refused.unseen(dataset.read, existing)


def existing_tables(load: PlannedLoad, tables: Collection[str]) -> ExistingTables:
    """Returns the tables of this load that the destination has and that are not dropped first, with their columns.

    `tables` are those that the lines may fill, with at most `most_event_tables` tables of events.
    """
    dataset, pipeline = load.target.dataset, load.extraction.pipeline
    if dataset is None or pipeline is None:
        return {}
    names, made = [*tables, *load.extraction.event_tables(), *TABLES], load.extraction.made_tables()
    _check_no_views(load, dataset, names)
    known = dataset.tables([*names, *made])
    # Commands have checked this already, but a user's own pipeline has not, and a new one does not know what there was.
    if has_lost(dataset, made) or (not made and AUDIT.name in known):
        repair_tables(pipeline, load.extraction.schema.name)
        known = dataset.tables(names)
    existing = {name: known[name] for name in names if name in known and name not in load.target.replacement.dropped}
    keys = {name: key_of(name) for name in sorted(filter(load.fills, existing.keys() & {*tables, *TABLES}))}
    check_text_columns(dataset, existing, keys)
    check_exact_keys(dataset, keys)
    return existing


def _check_no_views(load: PlannedLoad, dataset: Dataset, names: Collection[str]) -> None:
    """Raises NotSupported if a view, which takes no rows, has the name of a selected table, even of one dlt made."""
    names = set(filter(load.fills, names))
    if views := sorted(names & load.target.names.views):
        raise NotSupported(
            f"Expected {', '.join(views)} in the dataset {dataset.name} to be a table, because rows are loaded into it,"
            " but it is a view.\nRename it (ALTER VIEW ... RENAME TO ...) or drop it: the load makes the table. Or load"
            " into another dataset (--dataset, dataset_name)."
        )


def begin_rows(load: PlannedLoad, existing: ExistingTables) -> RowFiles:
    """Returns the row files of one attempt of a load, to which nothing is written yet."""
    return RowFiles(TableHints(load.extraction, load.target, existing))


def write_rows(load: PlannedLoad, files: RowFiles, rows: TableRows) -> None:
    """Writes and counts the rows of a table if it is selected. Other tables are loaded once they are selected."""
    if not load.fills(rows.table):
        return
    rows = load.target.refused.without(rows)
    files.write(rows)
    load.report.rows[rows.table] = load.report.rows.get(rows.table, 0) + rows.row_count


def fill_report(
    load: PlannedLoad,
    counts: Sequence[FileCount],
    lines: LinesRead,
    rejects: Mapping[str, int],
    beyond_limits: Mapping[str, Mapping[str, int]],
    causes: Mapping[str, int],
) -> None:
    """Fills in the load's report: how many lines were stored, and why others were not."""
    report = load.report
    for column in COUNTED:
        setattr(report, column, sum(getattr(count, column) for count in counts))
    report.mended = sum(count.mended for count in counts)
    report.lines_skipped = lines.skipped.total()
    report.lines += report.lines_skipped
    report.rejects = dict(rejects)
    report.reject_causes = dict(causes)
    report.beyond_limits = {reason: dict(tables) for reason, tables in beyond_limits.items()}
    report.bytes = sum(file.size for file in load.work)
    report.unfinished = {load.work[number].url: why for number, why in lines.unfinished.items()}
    if load.work:
        report.rows[AUDIT.name] = len(load.work)
    if report.lines:
        known = load.extraction.event_tables() | _excluded_before(load)
        report.warnings += unknown_events(load.settings.messages, lines.named, known, load.event_table)


def _excluded_before(load: PlannedLoad) -> set[str]:
    """Returns the names that both this load and an earlier one exclude: such events have no table to be known by."""
    if not load.settings.messages.all_but:
        return set()
    selections = (each.selected or {} for each in load.target.loads.values())
    earlier = (messages.names for selected in selections for messages in selected.values() if messages.all_but)
    return set().union(*earlier) & load.settings.messages.names
