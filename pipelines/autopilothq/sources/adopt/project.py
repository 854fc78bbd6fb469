"""Makes the rows of a load from adopted tables, without a projection, because they are rows already."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import duckdb
import pyarrow.parquet as pq

from ...catalog import EVENT_TABLE_NAMES
from ...display import plural
from ...errors import NotSupported
from ...projection import FileCount, TableRows, engine, texts
from ...projection.audit import beyond_limits, rejects, rejects_by_reason
from ...projection.cells import ParsedCells
from ...projection.context import ProjectionContext
from ...warehouses.duckdb_parts import file_has_long_rows
from ...warehouses.selection import NONE, messages_with_row
from ..adopted_rows import with_older_rows
from ..audit import LinesRead, audit_rows
from ..load_folder import scratch_of_projection
from ..plan import PlannedLoad
from ..project import ProjectedLoad, begin_rows, existing_tables, fill_report, open_for_few, stored_rows, write_rows
from .buffer import BufferedRows, buffered_tables
from .columns import ADOPT_MACROS, BufferedTable, cut_texts
from .databases import AdoptedWork, buffer_work, close_databases
from .kept import (
    SQL,
    Adoption,
    count_table,
    file_counts,
    find_kept,
    reject_deleted_persons,
    reject_long_keys,
    reject_refused_rows,
    reject_rows_without_id,
)
from .latest import is_of_messages, latest_rows_of
from .origin import AdoptedTables
from .rows import discarded_rows, message_rows, tracks_rows


class AdoptProjector:
    """Makes the rows of loads of adopted tables; puts into `cut` how many texts may be cut, by table and column."""

    def __init__(self, cut: dict[str, dict[str, int]] | None = None) -> None:
        self.cut: dict[str, dict[str, int]] = {} if cut is None else cut

    def __call__(self, load: PlannedLoad) -> ProjectedLoad:
        """Buffers all adopted rows, and writes the rows of all tables; returns their files and the rows of `_audit`."""
        try:
            return self._project(load)
        finally:
            close_databases(load.work)

    def _project(self, load: PlannedLoad) -> ProjectedLoad:
        scratch = scratch_of_projection(load.target.folder)
        with engine.connect(str(scratch), load.settings.memory, load.settings.workers) as con:
            con.execute(ADOPT_MACROS)
            con.execute(engine.script("state.sql"))
            con.execute(SQL["books"])
            found = list(_buffer(con, load, scratch))
            buffered = buffered_tables(found, load.event_table)
            self.cut.update((name, cut) for name, table in buffered.items() if (cut := cut_texts(con, table)))
            _warn_of_cut(load, self.cut)
            widest = max((len(table.columns) for table in buffered.values()), default=0)
            open_for_few(load, sum(pq.read_metadata(rows.path).num_rows for rows in found))
            with engine.memory_for_columns(con, widest):
                long = any(file_has_long_rows(rows.path) for rows in found)
                con.execute(f"SET enable_caching_operators = {not long}")  # these operators gather small groups of rows
                if long:
                    engine.join_as_written(con)
                adoption = _adoption(con, load, buffered, scratch, long)
                _check_room(load, adoption)
                return _rows(load, adoption, scratch)


def _adoption(
    con: duckdb.DuckDBPyConnection, load: PlannedLoad, buffered: dict[str, BufferedTable], scratch: Path, long: bool
) -> Adoption:
    """Returns the adoption of a load: its buffered tables, and what is known about the destination."""
    existing = existing_tables(load, buffered.keys())
    context = ProjectionContext(
        con=con,
        scratch=str(scratch),
        cells=ParsedCells(has_long_stored_rows=long),
        threads=load.settings.workers,
        loaded_at=load.context.loaded_at.isoformat(),
        memory=load.settings.memory,
        shorten=load.context.shorten,
        event_table=load.event_table,
        existing=existing,
        limits=load.target.limits,
        widths=load.target.widths(),
    )
    return Adoption(
        context,
        buffered,
        stored_rows(load, existing),
        load.target.refused.ids.rows,
        load.origin.found if isinstance(load.origin, AdoptedTables) else set(buffered),
    )


def _buffer(con: duckdb.DuckDBPyConnection, load: PlannedLoad, scratch: Path) -> Iterator[BufferedRows]:
    for number, work in enumerate(cast(Sequence[AdoptedWork], load.work)):
        yield buffer_work(con, work, number, scratch)
        load.report.files_done += 1
        load.report.bytes_done += work.size
        load.context.report_progress()


def _check_room(load: PlannedLoad, adoption: Adoption) -> None:
    """Raises NotSupported if there are more tables of other events than the dataset may have."""
    existing = load.extraction.event_tables()
    new = {*adoption.events}.difference(EVENT_TABLE_NAMES)
    if new - existing and len(new | existing) > load.settings.max_event_tables:
        raise NotSupported(
            f"Expected at most {plural(load.settings.max_event_tables, 'table')} of other events in the dataset, but"
            f" with these it has {len(new | existing):,}.\nRaise sources.autopilothq.max_event_tables in"
            " .dlt/config.toml, or leave some out: name the others with --table, which takes exported files."
        )


def _rows(load: PlannedLoad, adoption: Adoption, scratch: Path) -> ProjectedLoad:
    """Writes the rows of each table, and counts them in the report."""
    files = begin_rows(load, adoption.context.existing)
    reject_refused_rows(adoption, load.target.refused.messages)
    reject_long_keys(adoption)
    reject_rows_without_id(adoption)
    reject_deleted_persons(adoption, load.target.suppressed)
    find_kept(adoption)
    fresh: dict[str, TableRows] = {}
    for rows in (*message_rows(adoption), *tracks_rows(adoption)):
        fresh[rows.table] = rows
        write_rows(load, files, rows)
    texts.prepare_for_long_lines(adoption.context)
    for made in latest_rows_of(adoption, fresh):
        # Rows that are not made of messages have the stored values already.
        stored = adoption.stored if is_of_messages(adoption, made.table) else None
        write_rows(load, files, with_older_rows(load, made, adoption.context.existing, stored, scratch))
    for name in adoption.buffered:
        count_table(adoption, name)
    names = [work.url for work in load.work]
    for book in (rejects(adoption.context, names), discarded_rows(adoption)):
        if book is not None:
            write_rows(load, files, book)
    lines = LinesRead()
    tables = [cast(AdoptedWork, work).table for work in load.work]
    counts = list(_counts(load, tables, file_counts(adoption), lines))
    load.report.lines = sum(count.lines for count in counts)
    audit = audit_rows(load, counts, lines)
    fill_report(load, counts, lines, rejects_by_reason(adoption.context), beyond_limits(adoption.context, {}), {})
    return ProjectedLoad(files, audit)


def _counts(
    load: PlannedLoad, tables: Sequence[str], counts: Iterable[FileCount], lines: LinesRead
) -> Iterator[FileCount]:
    """Yields the counts of the rows of each table. Rows that no selected table takes are skipped."""
    before = load.counted_before()
    for count in counts:
        messages = messages_with_row(tables[count.file])
        if not load.messages_of(count.file).covers(messages):
            lines.skipped[count.file] = count.lines - count.rejected
            yield FileCount(count.file, count.rejected, 0, 0, count.rejected, None, None)
        else:
            counted = before.get(count.file, NONE).covers(messages)
            yield count._replace(again=count.stored if counted else 0)


def _warn_of_cut(load: PlannedLoad, cut: "dict[str, dict[str, int]]") -> None:
    cells = sum(number for columns in cut.values() for number in columns.values())
    if cells:
        load.context.warn(
            f"{plural(cells, 'text')} in {plural(sum(map(len, cut.values())), 'column')}"
            f" {'has' if cells == 1 else 'have'} exactly 512 characters: Segment may have cut"
            f" {'it' if cells == 1 else 'them'}; --report-cut lists the columns."
        )
