"""Quick loads in partitions: the steps of an engine's workers, one after the other, without a work folder."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import duckdb

from autopilothq.catalog import AUDIT, LATEST, MESSAGE_TABLES, TRACKS, Latest
from autopilothq.projection import ReadTable, RefusedIds, audit, engine
from autopilothq.projection.cells import CELL_FILES, ParsedCells
from autopilothq.projection.deduplicate import LeftOut
from autopilothq.projection.line_reader import LineReader
from autopilothq.projection.parse import Parser, number_lines
from autopilothq.projection.partition import (
    LatestFiles,
    NotPartitioned,
    PartitionedLoad,
    PartitionRows,
    PartitionValues,
    StoredColumns,
    deduplicate_partition,
    latest_of_partition,
    merge_partitions,
    open_deduplicated,
    partition_cells,
    partition_rows,
    refused_lines_reader,
    save_state,
    write_refused_lines,
)
from autopilothq.projection.tables import TablePlan
from autopilothq.segment.identity import NOBODY
from autopilothq.segment.naming import snake_case
from contract.loading import NOW, Line, Row, Store, batches

PARTITIONS = 2
NUMBERS = {latest: MESSAGE_TABLES.index(latest.messages) for latest in LATEST}
Deduplicated = tuple[ParsedCells, PartitionValues, dict[str, str]]


class Partitioned(Store):
    """A destination in memory whose loads work in partitions of messages, then of persons.

    `hashes` has the hashes of deleted persons, `refused` what it cannot store, and `asked` the columns that were cut.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hashes = NOBODY
        self.refused = RefusedIds({}, {})
        self.asked: list[tuple[str, ...]] = []

    def run(self, *files: Sequence[Line], **_: Any) -> dict[str, list[Row]]:
        """Loads some files; returns the rows of all tables."""
        self.loads += 1
        at = (NOW + timedelta(days=self.loads)).isoformat()
        load = PartitionedLoad(
            loaded_at=at,
            memory=200,
            partitions=PARTITIONS,
            shorten=self.shorten,
            event_table=lambda key: key if snake_case(key) else "",
        )
        with TemporaryDirectory() as folder:
            work = Work(folder)
            cells, lines, parts = self._parse(work, load, files)
            known = {name: dict(types) for name, types in self.types.items()}
            widths = {name: len(types) for name, types in known.items()}
            load = dataclasses.replace(load.with_cells(cells), existing=known, limits=self.limits, widths=widths)
            names = [f"file {number}" for number in range(len(files))]
            self._make(work, load, Deduplicator(self, work, load, lines).run(parts), names)
        self._end_load()
        return self.tables()

    def _parse(
        self, work: "Work", load: PartitionedLoad, files: Sequence[Sequence[Line]]
    ) -> tuple[ParsedCells, list[str], dict[int, ParsedCells]]:
        found, lines = ParsedCells(), []
        with work.engine() as (con, scratch):
            parser, reader = Parser(scratch, key_bytes=self.limits.key_bytes), LineReader(con)
            for batch in batches(files, lambda count: count // 2 + 1):
                cells = parser.parse(reader, batch)
                path = work.new("lines")
                if self.refused and write_refused_lines(
                    con, number_lines(batch.lines), cells.messages, self.refused, path
                ):
                    lines.append(path)
                found.extend(cells)
            parts = partition_cells(con, found, load.partitions, work.folder_of("cut"))
        return found, lines, {number: work.kept_cells(of_part) for number, of_part in parts.items()}

    def _make(self, work: "Work", load: PartitionedLoad, parts: Sequence[Deduplicated], names: Sequence[str]) -> None:
        merged = merge_partitions(values for _, values, _ in parts)
        plans = load.plan(merged.values, {*merged.counts, *NUMBERS.values()})
        persons: dict[Latest, list[LatestFiles]] = {latest: [] for latest in LATEST}
        discarded, counts = [], []
        for cells, _, state in parts:
            with work.engine() as (con, scratch):
                rows = open_deduplicated(load, con, scratch, cells, state, plans)
                for made in rows.tables():
                    self._merge(made)
                for latest, number in NUMBERS.items():
                    folder = work.new(latest.table.name)
                    made_of = rows.partition_latest(latest, plans[number], folder, load.partitions)
                    persons[latest].append(LatestFiles(*map(work.kept, made_of)))
                self._keep(rows, names)
                discarded += rows.discarded()
                counts += rows.counts()
        for latest, files in persons.items():
            for part in sorted({part for found in files for part in found.ids}):
                discarded += self._make_latest(work, load, latest, files, plans[NUMBERS[latest]], part)
        self.audit = sorted(audit.merge_counts(counts))
        self.beyond_limits = audit.limits_exceeded(discarded, {})

    def _make_latest(
        self,
        work: "Work",
        load: PartitionedLoad,
        latest: Latest,
        files: Sequence[LatestFiles],
        plan: TablePlan,
        part: int,
    ) -> list[tuple[str, str, int]]:
        ids, messages = ([name for found in files for name in found[of].get(part, ())] for of in (0, 1))
        columns = list(load.existing.get(latest.messages.name, ()))
        given = None
        if columns:
            given = work.cut(self._read, latest.messages.name, columns, latest.key)[part]
        with work.engine() as (con, scratch):
            context = load.open(con, scratch, ParsedCells())
            rows = latest_of_partition(context, latest, ids, messages, plan.types, given)
            self._merge(rows)
            books = PartitionRows(context, {})
            self._keep(books, ())
            return books.discarded()

    def _keep(self, rows: PartitionRows, names: Sequence[str]) -> None:
        for book in (rows.rejects(names), rows.discards()):
            if book is not None:
                self._merge(book)


class Deduplicator:
    """Deduplicates partitions. What one needs of the destination is cut into parts for all of them at once."""

    def __init__(self, store: Partitioned, work: "Work", load: PartitionedLoad, lines: Sequence[str]) -> None:
        self._store = store
        self._work = work
        self._load = load
        self._left_out = LeftOut(store.hashes, store.refused, refused_lines_reader(lines))
        self._cut: dict[str, list[StoredColumns]] = {}

    def run(self, parts: Mapping[int, ParsedCells]) -> list[Deduplicated]:
        """Returns the cells, the values and the state of each partition."""
        for table in MESSAGE_TABLES:
            if table.name in self._load.existing:
                self._cut_columns(table.name, ["id", *(["event"] if table is TRACKS else [])])
        return [(cells, *self._deduplicate(number, cells)) for number, cells in sorted(parts.items())]

    def _deduplicate(self, number: int, cells: ParsedCells) -> tuple[PartitionValues, dict[str, str]]:
        store, given = self._store, {table: of[number] for table, of in self._cut.items()}
        with self._work.engine() as (con, scratch):
            context = self._load.open(con, scratch, cells)
            try:
                values = deduplicate_partition(context, given, store.complete, self._left_out)
            except NotPartitioned as error:
                [needed] = error.args
            else:
                return values, save_state(context, self._work.folder_of("state"))
        cut = [self._cut_columns(table, columns) for table, columns in needed.items()]
        assert any(cut), f"{needed} was cut before"
        return self._deduplicate(number, cells)

    def _cut_columns(self, table: str, columns: Sequence[str]) -> bool:
        before = self._cut[table][0].columns if table in self._cut else ()
        if set(columns) <= set(before):
            return False
        self._store.asked.append((table, *columns))
        together = list(dict.fromkeys([*before, *columns]))
        self._cut[table] = self._work.cut(self._store._read, table, together, "id")
        return True


class Work:
    """A folder for the files of one load."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def folder_of(self, what: str) -> str:
        """Creates an empty folder, and returns its path."""
        return mkdtemp(prefix=what, dir=self._folder)

    def new(self, what: str) -> str:
        """Returns the path of a file that does not exist yet."""
        return str(Path(self.folder_of(what), what))

    @contextmanager
    def engine(self) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
        """Yields an engine's connection, and the scratch folder that it has for itself."""
        scratch = self.folder_of("scratch")
        with engine.connect(scratch, 200, 1) as con:
            yield con, scratch

    def kept(self, files: Mapping[int, Sequence[str]]) -> dict[int, list[str]]:
        """Renames files, given by partition, to names that do not show the partition, as in a work folder."""
        return {part: [str(Path(path).rename(self.new("part"))) for path in paths] for part, paths in files.items()}

    def kept_cells(self, cells: ParsedCells) -> ParsedCells:
        """Does the same with the files of one partition's cells."""
        found = ParsedCells()
        for what in CELL_FILES:
            getattr(found, what).extend(self.kept({0: getattr(cells, what)})[0])
        return found

    def cut(self, read: ReadTable, table: str, columns: Sequence[str], key: str) -> list[StoredColumns]:
        """Returns columns of a stored table, cut by partition; of `_audit`, every partition gets all rows."""
        with self.engine() as (con, _), engine.streamed(con, read(table, columns)) as has_any:
            if not has_any:
                return [StoredColumns(columns, [])] * PARTITIONS
            if table == AUDIT.name:
                path = self.new("audit")
                con.execute(f"COPY (FROM stored) TO '{path}' (FORMAT parquet)")
                return [StoredColumns(columns, [path])] * PARTITIONS
            found = self.kept(
                partition_rows(con, f"FROM stored WHERE {key} IS NOT NULL", key, PARTITIONS, self.new("stored"))
            )
            return [StoredColumns(columns, found.get(part, [])) for part in range(PARTITIONS)]
