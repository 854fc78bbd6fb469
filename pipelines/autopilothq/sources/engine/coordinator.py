"""The coordinator of a load on many workers: splits the load, runs the tasks, decides the columns, and loads the rows.

docs/explanation/beyond-one-machine.md draws the steps. Only the coordinator reads the destination, and only it hands
rows to dlt: workers need the work folder and the archive, and nothing else. `EngineProjector` runs it for a source.
"""

import dataclasses
import hashlib
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from ...catalog import MESSAGE_TABLES
from ...errors import EngineError, NotSupported
from ...projection import ExistingTables, engine
from ...projection.audit import limits_exceeded, merge_counts
from ...projection.context import TableNumbers
from ...projection.deduplicate import choose_tables, ids_to_match
from ...projection.partition import PartitionedLoad, merge_partitions
from ..adopted_rows import check_nothing_to_mend
from ..audit import LinesRead, audit_rows
from ..load_folder import scratch_of_projection
from ..origin import SharedOrigin
from ..plan import PlannedLoad
from ..project import ProjectedLoad, begin_rows, existing_tables, fill_report, note_unreadable, stored_rows
from ..refused import target_of
from .executors import EngineFactory, Workers
from .parse_task import ParsedShare, ParseTask
from .partition_tasks import CountTask, DeduplicatedPartition, DeduplicateTask, NeededColumns, PartitionInput
from .rows import RowMaker, TablesOfLoad
from .shares import all_cells, partition_count, partition_inputs, share_ranges
from .stored import StoredPartitions
from .tasks import CannotBecomeRows, WorkerContext
from .work_folder import work_folder
from .workspace import Workspace

THREADS = 2  # of the coordinator's engine


@dataclass(frozen=True)
class EngineProjector:
    """The projector of loads on many workers: those of `executor`, which may also be a function that makes one.

    The workers share the folder or bucket `work_url`. Without it, they share the load's own folder, which suffices for
    processes on one machine.
    """

    executor: Executor | EngineFactory
    work_url: str | None = None

    def __call__(self, load: PlannedLoad) -> ProjectedLoad | None:
        """Makes the rows; returns None if it found messages that cannot become rows."""
        scratch = scratch_of_projection(load.target.folder)
        home = self.work_url or str(scratch / "work")
        with (
            work_folder(home, _owner(load)) as folder,
            Workers(self.executor) as workers,
            engine.connect(str(scratch), load.settings.memory, THREADS) as con,
        ):
            return Coordinator(load, workers, Workspace(folder, con, scratch)).project()


def _owner(load: PlannedLoad) -> str:
    """Returns a name for a pipeline and its target, under which a load finds the work folders of killed loads."""
    pipeline = load.extraction.pipeline
    if pipeline is None:
        return secrets.token_hex(8)
    # Not `short_digest`: all versions must make the same name, so that each finds what another one left behind.
    return f"{pipeline.pipeline_name}-{hashlib.sha256(target_of(pipeline).encode()).hexdigest()[:12]}"


def _summed(numbers: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Returns the sums of numbers by name, the greatest first."""
    found = sum(map(Counter, numbers), Counter[str]())
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


class _MessagesRefused(Exception):
    """Messages cannot become rows. Its only argument is their errors by id."""


@dataclass(frozen=True)
class Coordinator:
    """One attempt of a load on many workers."""

    load: PlannedLoad
    workers: Workers
    workspace: Workspace

    def project(self) -> ProjectedLoad | None:
        """Runs all steps; returns None if it found messages that cannot become rows."""
        load = self.load
        shares, lines = self._parse()
        existing = existing_tables(load, _table_names(load, shares))
        files = begin_rows(load, existing)
        try:
            rows = RowMaker(load, self._run, self.workspace)
            tables = self._decide_tables(shares, existing)
            deduplicated = self._deduplicate(tables)
            check_nothing_to_mend(load, any("duplicates" in part.state for part in deduplicated))
            plans = rows.plan(tables, merge_partitions(part.values for part in deduplicated), files)
            parts = rows.make_rows(tables, deduplicated, plans)
            parts += rows.make_latest(tables, parts, plans)
        except _MessagesRefused as error:
            [found] = error.args
            if not note_unreadable(load, found):
                raise EngineError(
                    f"Expected messages that cannot become rows to be left out by now, but they came again: {found}"
                ) from error
            return None
        rows.hand_over(parts, plans, files)
        counts = merge_counts(count for part in parts for count in part.counts)
        audit = audit_rows(load, counts, lines)
        rejects, causes = _summed(part.rejects for part in parts), _summed(part.causes for part in parts)
        limits = limits_exceeded([row for part in parts for row in part.limits], tables.without_table)
        fill_report(load, counts, lines, rejects, limits, causes)
        return ProjectedLoad(files, audit)

    def _run(self, tasks: Sequence[Any], done: Callable[[Any], object] = lambda _: None) -> list[Any]:
        """Runs tasks and reports how many are done. Raises _MessagesRefused if messages cannot become rows."""
        report = self.load.report
        report.tasks += len(tasks)

        def count(result: Any) -> None:
            report.tasks_done += 1
            done(result)
            self.load.context.report_progress()

        results = self.workers.run(tasks, count)
        if refused := [result for result in results if isinstance(result, CannotBecomeRows)]:
            raise _MessagesRefused({id_: why for result in refused for id_, why in result.messages.items()})
        return results

    # ---- parse -------------------------------------------------------------------------------------------------------

    def _parse(self) -> tuple[list[ParsedShare], LinesRead]:
        load, report = self.load, self.load.report
        if not isinstance(load.origin, SharedOrigin):
            raise NotSupported("Expected an origin whose work can be shared among workers, such as an archive.")
        context, tasks = self._context, []
        for number, part in enumerate(share_ranges([work.size for work in load.work])):
            share = load.origin.share(load.work[part.start : part.stop], part.start)
            tasks.append(ParseTask(context, number, share, {file: load.messages_of(file) for file in part}))

        def count(share: ParsedShare) -> None:
            report.lines += share.lines
            report.bytes_done += share.bytes
            report.files_done += len(share.ended)

        shares: list[ParsedShare] = self._run(tasks, count)
        unfinished = {number: why for share in shares for number, why in share.ended if why is not None}
        named = set[str]().union(*(share.named for share in shares))
        return shares, LinesRead(unfinished, sum((share.skipped for share in shares), Counter[int]()), named)

    @cached_property
    def _context(self) -> WorkerContext:
        """The context of all tasks, as far as it is known before lines are parsed."""
        load, target = self.load, self.load.target
        suppressed = None
        if pairs := target.suppressed.pairs():
            table = pa.table({"salt": [salt for salt, _ in pairs], "hash": [hashed for _, hashed in pairs]})
            suppressed = self.workspace.put_table(table, "suppressed.parquet")
        partitions = partition_count(sum(work.size for work in load.work))
        partitioned = PartitionedLoad(partitions=partitions, **load.shared_context().shared_fields())
        return WorkerContext(self.workspace.folder, partitioned, target.refused.ids, suppressed)

    # ---- deduplicate -------------------------------------------------------------------------------------------------

    def _decide_tables(self, shares: Sequence[ParsedShare], existing: ExistingTables) -> TablesOfLoad:
        """Decides which events get a table, now that all of them are known, and splits the stored ids of the tables."""
        load, partitions = self.load, partition_inputs(shares)
        partitioned = self._context.load.with_cells(all_cells(shares))
        partitioned = dataclasses.replace(partitioned, existing=existing, widths=load.target.widths())
        context = dataclasses.replace(self._context, load=partitioned)
        tables, without_table = self._limit_tables(context, partitions)
        context = dataclasses.replace(context, load=dataclasses.replace(partitioned, tables=tables))
        read = stored_rows(load, existing) if load.report.lines else None
        stored = None
        if read is not None:
            stored = StoredPartitions(self.workspace, read, partitioned.partitions)
            stored.split(ids_to_match(existing, tables.names, partitioned.fills))
        return TablesOfLoad(context, partitions, without_table, stored)

    def _limit_tables(
        self, context: WorkerContext, partitions: Sequence[PartitionInput]
    ) -> tuple[TableNumbers, dict[str, int]]:
        """Returns the numbered tables, and the number of messages of each event that gets no table, by its slug."""

        def count() -> Counter[int]:
            counts = self._run([CountTask(context, each) for each in partitions])
            return sum(map(Counter, counts), Counter[int]())

        event_tables, most = self.load.extraction.event_tables(), self.load.settings.max_event_tables
        tables, beyond = choose_tables(context.load, event_tables, most, count)
        return tables, {tables.names[number]: messages for number, messages in beyond.items()}

    def _deduplicate(self, tables: TablesOfLoad) -> list[DeduplicatedPartition]:
        """Deduplicates all partitions. Those that lack stored columns are run again once these columns are split."""
        complete, stored = frozenset(self.load.target.loads_with_discards()), tables.stored
        found: dict[int, DeduplicatedPartition] = {}
        while remaining := [each for each in tables.partitions if each.number not in found]:
            tasks = [
                DeduplicateTask(tables.context, each, stored.of(each.number) if stored else None, complete)
                for each in remaining
            ]
            for each, result in zip(remaining, self._run(tasks), strict=True):
                if not isinstance(result, NeededColumns):
                    found[each.number] = result
                elif stored is not None:
                    stored.split(result.tables)
        return [found[each.number] for each in tables.partitions]


def _table_names(load: PlannedLoad, shares: Sequence[ParsedShare]) -> list[str]:
    events = all_cells(shares).event_tables(load.most_event_tables)
    return [*(table.name for table in MESSAGE_TABLES), *map(load.event_table, events)]
