"""Begins a load and lets its origin plan it: everything that must be known before a line is read."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..catalog import DISCARDS, FILE_NAMES, MAX_EVENT_TABLES, REJECTS, TABLES, Native, resource_of
from ..machine import cores
from ..projection import SharedContext
from ..segment.mapping import Mappings
from ..segment.naming import snake_case
from ..warehouses.dlt_internals import NamingConvention
from ..warehouses.duckdb_open import close_database
from ..warehouses.hints import shorten_identifier
from ..warehouses.native import avoid_view_name
from ..warehouses.selection import ALL_MESSAGES, MessageSelection, Selected, covers, messages_of, select
from .extraction import Extraction, check_alone, current_extraction
from .load_folder import scratch_of_origin
from .load_target import LoadTarget, begin_target
from .origin import LoadContext, Origin, PipelineContext, Work
from .report import MAX_NAMED, LoadReport, ProgressCallback, no_progress

if TYPE_CHECKING:
    from .project import ProjectedLoad

    Projector = Callable[["PlannedLoad"], ProjectedLoad | None]
    """Makes the rows of a load; returns None if it noted messages as refused, and the load must be read again."""

WORKER_MEMORY = 100  # MB of the engine's memory for each worker


@dataclass(frozen=True)
class LoadSettings:
    """The settings of a source that apply to all its loads.

    `memory` is what the engine may use before it spills to disk, `origin_memory` what the origin may use, in MB.
    `table_format` is dlt's. `messages` selects the requested messages. The dataset may have up to `max_event_tables`
    tables of events that the catalogue does not know. `projector` makes the rows of a load; if it is None, this process
    does. `mappings` map events to events of the catalogue.
    """

    memory: int = 200
    origin_memory: int = 200
    progress: ProgressCallback = no_progress
    table_format: str | None = None
    max_event_tables: int = MAX_EVENT_TABLES
    messages: MessageSelection = ALL_MESSAGES
    projector: "Projector | None" = None
    mappings: Mappings = field(default_factory=dict)

    @property
    def workers(self) -> int:
        """How many workers parse lines and make rows in parallel: one per core, if the memory suffices."""
        return workers(self.memory)


@dataclass(frozen=True)
class EventTables:
    """A picklable function from an event's `event_key` to the name of its table in the destination.

    `view` is the destination's, as in `Native`; `existing` are the tables that exist; `mapped` has the tables of mapped
    events. No table can have a name that is `taken`, ends with one of `suffixes` (as indexes do), or begins with one of
    `prefixes`. Anybody can send an event with such a name, so it gets a table of another name. `moved` has the tables
    that events got for that reason in earlier loads: they keep them, even if the name is free by now.
    """

    naming: NamingConvention
    view: str | None
    existing: frozenset[str]
    mapped: Mapping[str, str] = field(default_factory=dict)
    taken: frozenset[str] = frozenset()
    suffixes: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    moved: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, key: str) -> str:
        """Returns the table's name; "" if no letter or digit of the event's name can be part of a table's name."""
        slug = self.mapped.get(key, key)
        if not snake_case(slug):
            return ""
        name = avoid_view_name(shorten_identifier(slug, self.naming), Native(view=self.view), self.existing)
        name = name if name in self.existing else self.moved.get(name, name)
        while name not in self.existing and (name in self.taken or name.endswith(self.suffixes)):
            name = shorten_identifier(f"{name}_table", self.naming)
        return shorten_identifier(f"_{name}", self.naming) if name.startswith(self.prefixes) else name


def workers(memory: int) -> int:
    """Returns how many workers an engine with that much memory (MB) can have. Example: `workers(100) == 1`."""
    return max(1, min(cores(), memory // WORKER_MEMORY))


@dataclass(frozen=True)
class PlannedLoad:
    """A load whose origin has planned its work. `selected` has the messages that each extracted resource takes."""

    origin: Origin[Any]
    settings: LoadSettings
    extraction: Extraction
    target: LoadTarget
    context: LoadContext
    selected: Selected
    work: Sequence[Work]

    @property
    def report(self) -> LoadReport:
        """The counts so far."""
        return self.context.report

    @property
    def most_event_tables(self) -> int:
        """How many tables of events are looked up at most: as many as may exist, and some more for a warning to name.

        Anybody can make up events, so the lines may have far more.
        """
        return len(self.extraction.event_tables()) + self.settings.max_event_tables + MAX_NAMED

    @property
    def recorded_resources(self) -> set[str]:
        """The resources of the source that `_audit` records for a file."""
        return {*self.origin.tables, REJECTS.name, DISCARDS.name}

    @cached_property
    def event_table(self) -> EventTables:
        """The function that returns the name of an event's table in the destination, by its `event_key`."""
        names, native = self.target.names, self.target.native
        return EventTables(
            naming=self.extraction.schema.naming,
            view=native.view,
            existing=names.messages | self.extraction.own_tables(),
            mapped={source: mapping.table for source, mapping in self.settings.mappings.items()},
            taken=(FILE_NAMES | names.views | names.others) - TABLES.keys(),
            suffixes=native.index_suffixes,
            prefixes=native.own_prefixes,
            moved=dict(self.extraction.moved),
        )

    def moved_tables(self, tables: Collection[str]) -> dict[str, str]:
        """Returns those of these tables that events got because their usual names were taken, by these names."""
        moved = {name: self.event_table(name) for name in (self.event_table.taken if tables else ())}
        return {name: table for name, table in moved.items() if table in tables and table != name}

    @cached_property
    def fills(self) -> Callable[[str], bool]:
        """A picklable function that returns whether the load fills the table of a given name."""
        return partial(_fills_table, frozenset(self.extraction.resources))

    def shared_context(self) -> SharedContext:
        """Returns the context that all processes that project this load share, as known before lines are read."""
        return SharedContext(
            loaded_at=self.context.loaded_at.isoformat(),
            memory=self.settings.memory,
            shorten=self.context.shorten,
            event_table=self.event_table,
            limits=self.target.limits,
            fills=self.fills,
        )

    def messages_of(self, number: int) -> MessageSelection:
        """Returns which messages of a file count: those that selected tables take, and those already loaded."""
        before = self.target.loaded(self.work[number].url, self.work[number].version)
        requested = messages_of(self.selected)
        return requested | messages_of(before.selected) if before else requested

    def counted_before(self) -> dict[int, MessageSelection]:
        """Returns the messages of each file that earlier loads have counted, by the file's number in the load."""
        return {
            number: messages_of(before.selected).renamed(self.event_table)
            for number, work in enumerate(self.work)
            if (before := self.target.loaded(work.url, work.version))
        }


def _fills_table(resources: Collection[str], table: str) -> bool:
    return resource_of(table) in resources


def plan_load(origin: Origin[Any], settings: LoadSettings, keeper: object) -> PlannedLoad:
    """Begins a load for the extraction under way, and lets its origin plan it.

    `keeper` owns the source's resources; once it is garbage-collected, the load's folder is deleted.
    """
    loaded_at = datetime.now(UTC)
    extraction = current_extraction(keeper, origin.reads_again)
    check_alone(extraction, origin.reads_again)
    selected = select(extraction.data_resources, settings.messages)
    target = begin_target(extraction, loaded_at, origin.reads_again, keeper)
    context = _context(settings, extraction, target, loaded_at, selected)
    close_database(extraction.pipeline)
    work = origin.plan(context)
    context.report.files = len(work)
    context.report.bytes = sum(each.size for each in work)
    context.report_progress()
    return PlannedLoad(origin, settings, extraction, target, context, selected, work)


def _context(
    settings: LoadSettings, extraction: Extraction, target: LoadTarget, loaded_at: datetime, selected: Selected
) -> LoadContext:
    pipeline = None
    if extraction.pipeline is not None and target.dataset is not None and extraction.load_id is not None:
        folder = Path(extraction.pipeline.working_dir)
        pipeline = PipelineContext(target.dataset, folder, extraction.load_id, target.counted)
    return LoadContext(
        loaded_at=loaded_at,
        selected=frozenset(extraction.resources),
        loaded=frozenset(file for file, loaded in target.loads.items() if covers(loaded.selected, selected)),
        pipeline=pipeline,
        scratch=scratch_of_origin(target.folder),
        memory=settings.origin_memory,
        report=LoadReport(),
        progress=settings.progress,
        suppressed=target.suppressed,
        limits=target.limits,
        shorten=partial(shorten_identifier, naming=extraction.schema.naming),
        dropped=target.replacement.dropped,
    )
