"""The second half of a load on an engine: decides the columns of all tables, makes rows, and passes them to dlt."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ...catalog import BOOKS, LATEST, Type, resource_of
from ...projection import SQL_TYPES, TableRows, engine
from ...projection.context import NUMBER_OF_KIND, declared_types
from ...projection.partition import PartitionValues, StoredColumns
from ...projection.users import latest_columns
from ..adopted_rows import check_not_adopted
from ..plan import PlannedLoad
from ..row_files import RowFiles
from .partition_tasks import DeduplicatedPartition, PartitionInput
from .row_tasks import UNSHAPED, LatestTask, PartitionFiles, RowPlans, RowShape, RowsTask, WrittenRows
from .shares import merged_files
from .stored import StoredPartitions
from .tasks import WorkerContext
from .workspace import Workspace

FEW_ROWS = 200_000  # a table with at most this many rows is passed to dlt as one file


@dataclass(frozen=True)
class TablesOfLoad:
    """The tables of a load, as decided once all lines are parsed.

    `without_table` has the number of messages of each event that gets no table, by slug. `stored` is None if nothing
    counts as stored.
    """

    context: WorkerContext
    partitions: Sequence[PartitionInput]
    without_table: Mapping[str, int]
    stored: StoredPartitions | None


@dataclass(frozen=True)
class RowMaker:
    """Makes the rows of one attempt of a load, once its partitions are deduplicated.

    `run` runs tasks on the workers, and returns their results in order.
    """

    load: PlannedLoad
    run: Callable[[Sequence[Any]], list[Any]]
    workspace: Workspace

    def plan(self, tables: TablesOfLoad, merged: PartitionValues, files: RowFiles) -> RowPlans:
        """Decides the columns of all tables, and how their rows are written."""
        partitioned = tables.context.load
        plans = partitioned.plan(merged.values, {*merged.counts, *(NUMBER_OF_KIND[each.kind] for each in LATEST)})
        types = {plan.name: plan.types for plan in plans.values()} | {book.name: declared_types(book) for book in BOOKS}
        for each in LATEST:
            # The rows are made from the messages of this load and the stored ones.
            stored = partitioned.existing.get(each.messages.name, {}) if tables.stored is not None else {}
            message_types = {**plans[NUMBER_OF_KIND[each.kind]].types, **stored}
            types[each.table.name] = latest_columns(each, message_types)
        selected = self.load.extraction.resources
        shapes = {name: self._shape(name, of, files) for name, of in types.items() if resource_of(name) in selected}
        return RowPlans(plans, shapes)

    def _shape(self, table: str, types: Mapping[str, Type], files: RowFiles) -> RowShape:
        columns = ", ".join(f"{engine.name(name)} {SQL_TYPES[of]}" for name, of in types.items())
        con = self.workspace.con
        con.execute(f"CREATE OR REPLACE TABLE {UNSHAPED} ({columns})")
        rows = TableRows(table, types, con.table(UNSHAPED), 0)
        rows = self.load.target.refused.without(rows)
        shaped = files.shaped(rows)
        return RowShape(dict(shaped.columns), shaped.relation.sql_query())

    def make_rows(
        self, tables: TablesOfLoad, deduplicated: Sequence[DeduplicatedPartition], plans: RowPlans
    ) -> list[PartitionFiles]:
        """Makes the rows of all tables except `users` and `accounts`."""
        urls = pa.table({"file": pa.array([work.url for work in self.load.work], pa.string())})
        names = self.workspace.put_table(urls, "files.parquet")
        counted = self.load.counted_before()
        return self.run([
            RowsTask(tables.context, partition, found.state, plans, names, counted)
            for partition, found in zip(tables.partitions, deduplicated, strict=True)
        ])  # fmt: skip

    def make_latest(
        self, tables: TablesOfLoad, parts: Sequence[PartitionFiles], plans: RowPlans
    ) -> list[PartitionFiles]:
        """Makes the rows of `users` and `accounts` from the files that the partitions of messages wrote for them."""
        tasks = []
        for latest in LATEST:
            files = merged_files([part.latest[latest.table.name] for part in parts])
            if not files.ids:
                continue
            check_not_adopted(self.load, latest.table.name)
            types = plans.tables[NUMBER_OF_KIND[latest.kind]].types
            known = tables.context.load.existing
            columns = list(known.get(latest.messages.name, ()))
            stored: dict[int, list[str]] | None = None
            if tables.stored is not None and columns:
                stored = tables.stored.split_messages(latest, files, columns, latest.table.name in known)
            for number in sorted({*files.ids, *(stored or ())}):
                given = None if stored is None else StoredColumns(columns, stored.get(number, []))
                tasks.append(LatestTask(tables.context, latest, number, files, types, given, plans.shapes))
        return self.run(tasks)

    def hand_over(self, parts: Sequence[PartitionFiles], plans: RowPlans, files: RowFiles) -> None:
        """Moves the files of rows from the work folder to dlt. The files of a small table become one."""
        by_table: dict[str, list[WrittenRows]] = {}
        for part in parts:
            for table, rows_of_part in part.rows.items():
                by_table.setdefault(table, []).append(rows_of_part)
        for table, written in by_table.items():
            total = sum(each.row_count for each in written)
            self.load.report.rows[table] = total
            if len(written) > 1 and total <= FEW_ROWS:
                paths = self.workspace.get_all(each.name for each in written)
                rows = self._rows(table, plans, engine.parquet_files(paths), total)
                rows.write(str(files.add(rows)))
                continue
            for each in written:
                path = files.add(self._rows(table, plans, UNSHAPED, each.row_count))
                self.workspace.folder.take(each.name, path)

    def _rows(self, table: str, plans: RowPlans, source: str, row_count: int) -> TableRows:
        return TableRows(table, plans.shapes[table].columns, self.workspace.con.sql(f"FROM {source}"), row_count)
