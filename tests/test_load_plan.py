"""Before a line is read, a load knows its workers, the tables of its events, and its origin's context."""

import copy
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest
from dlt import Schema
from dlt.common.normalizers.naming.snake_case import NamingConvention
from pathvalidate import FileNameValidator

from autopilothq import Batch, LoadContext, LoadReport, Origin
from autopilothq.catalog import COLUMN_RESERVE, FILE_NAMES, LIMITS, TABLES, Native
from autopilothq.segment.identity import HashedIds
from autopilothq.segment.mapping import EventMapping
from autopilothq.segment.naming import snake_case
from autopilothq.sources import origin, plan
from autopilothq.sources.extraction import Extraction
from autopilothq.sources.load_target import LoadTarget, Replacement
from autopilothq.sources.origin import PipelineContext
from autopilothq.sources.plan import EventTables, LoadSettings, PlannedLoad, plan_load
from autopilothq.warehouses.dataset import TableNames
from autopilothq.warehouses.dataset.loads import Loaded
from autopilothq.warehouses.selection import ALL_MESSAGES, MessageSelection

OPENED = MessageSelection(frozenset({"email_opened"}), all_but=False)
CLICKED = MessageSelection(frozenset({"email_clicked"}), all_but=False)
DATASET: Any = SimpleNamespace()
PIPELINE: Any = SimpleNamespace(working_dir="a pipeline's")


class File(NamedTuple):
    """Stands in for a file of an archive."""

    url: str
    version: str
    size: int


FILES = [File("a", "1", 30), File("b", "1", 4), File("a", "2", 500)]


class Files(Origin[File]):
    """An origin of FILES that records what it is told, with the report at that time."""

    tables = ("tracks", "lists")

    def __init__(self, reads_again: bool) -> None:
        self.told: list[tuple[LoadContext, LoadReport]] = []
        self._reads_again = reads_again

    @property
    def reads_again(self) -> bool:
        return self._reads_again

    def plan(self, context: LoadContext) -> Sequence[File]:
        self.told.append((context, copy.copy(context.report)))
        return FILES

    def read(self, work: Sequence[File]) -> Iterator[Batch]:
        """Fails, because a load that was only planned must not be read."""
        raise NotImplementedError


class Begun(NamedTuple):
    """A load that has begun, the calls for it in order, and the reports that it has shown."""

    load: PlannedLoad
    called: list[tuple[Any, ...]]
    shown: list[LoadReport]
    told: list[tuple[LoadContext, LoadReport]]


def begin(
    pipeline: Any = PIPELINE,
    load_id: str | None = "7",
    reads_again: bool = True,
    messages: Any = ALL_MESSAGES,
    **of: Any,
) -> Begun:
    """Begins a load of `tracks` and `_audit` into the target `of`."""
    resources: Any = {"tracks": None, "_audit": None}
    extraction = Extraction(resources, {}, frozenset(), Schema("autopilothq"), pipeline, load_id)
    target = LoadTarget(Path(), **{"replacement": Replacement(), **of})
    called: list[tuple[Any, ...]] = []

    def noted(name: str, gives: Any) -> Any:
        def call(*given: Any) -> Any:
            called.append((name, *given))
            return gives

        return call

    files, shown = Files(reads_again), cast(list[LoadReport], [])
    settings = LoadSettings(
        origin_memory=9,
        progress=lambda report: shown.append(copy.copy(report)),
        messages=messages,
        mappings={"sent": EventMapping("email_delivered")},
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, gives in (
            ("current_extraction", extraction), ("check_alone", None), ("begin_target", target),
            ("close_database", None),
        ):  # fmt: skip
            patch.setattr(plan, name, noted(name, gives))
        load = plan_load(files, settings, "the keeper")
    assert (load.origin, load.settings, load.extraction, load.target) == (files, settings, extraction, target)
    return Begun(load, called, shown, files.told)


@pytest.mark.parametrize("reads_again", [True, False])
def test_a_load_begins_with_its_extraction_and_its_target(reads_again: bool) -> None:
    before = datetime.now(UTC)
    load, called, shown, told = begin(reads_again=reads_again)
    at = load.context.loaded_at
    assert before <= at <= datetime.now(UTC)
    assert at.tzinfo is UTC
    assert called == [
        ("current_extraction", "the keeper", reads_again),
        ("check_alone", load.extraction, reads_again),
        ("begin_target", load.extraction, at, reads_again, "the keeper"),
        ("close_database", PIPELINE),
    ]
    assert told == [(load.context, LoadReport())]
    assert shown == [load.report] == [LoadReport(files=3, bytes=534)]
    assert load.report is load.context.report
    assert load.work == FILES
    assert load.recorded_resources == {"tracks", "lists", "_rejects", "_discards"}


def test_the_origin_is_told_of_the_destination() -> None:
    suppressed = HashedIds([("salt", "hash")])
    loads = {
        ("a", "1"): Loaded("5", 1, None),
        ("b", "1"): Loaded("5", 1, {"tracks": OPENED}),
        ("a", "2"): Loaded("6", 1, {"tracks": OPENED | CLICKED}),
        ("c", "1"): Loaded("6", 1, {"email_opened": ALL_MESSAGES}),
    }
    there = {"dataset": DATASET, "limits": LIMITS["postgres"], "suppressed": suppressed, "loads": loads}
    load = begin(messages=OPENED, **there, replacement=Replacement(dropped=frozenset({"lists"}))).load
    context = load.context
    assert context == LoadContext(
        loaded_at=context.loaded_at,
        selected=frozenset({"tracks", "_audit"}),
        loaded=frozenset({("a", "1"), ("b", "1"), ("a", "2")}),
        pipeline=PipelineContext(DATASET, Path("a pipeline's"), "7"),
        scratch=Path("origin"),
        memory=9,
        report=load.report,
        progress=load.settings.progress,
        suppressed=suppressed,
        limits=LIMITS["postgres"],
        shorten=context.shorten,
        dropped=frozenset({"lists"}),
    )
    load.extraction.schema.naming.max_length = 20
    assert [len(context.shorten("n" * width)) for width in (20, 21)] == [20, 20]
    assert load.selected == {"tracks": OPENED}
    context.scratch.rmdir()


def test_a_table_that_is_dropped_before_the_load_has_room_for_columns_again(monkeypatch: pytest.MonkeyPatch) -> None:
    full = {f"custom_{number}": "text" for number in range(1600)}
    dataset: Any = SimpleNamespace(tables=lambda names: dict.fromkeys(names, full), widths={"contacts": 1600})
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(origin, "Snapshot", lambda *_, target, **__: made.append((len(target.existing), target.room)))
    for dropped in (frozenset[str](), frozenset({"contacts"})):
        replacement = Replacement(dropped=dropped)
        load = begin(dataset=dataset, limits=LIMITS["postgres"], replacement=replacement).load
        load.context.snapshot("contacts", load.context.loaded_at)
        shutil.rmtree(load.context.scratch)
        assert load.target.widths() == ({} if dropped else {"contacts": 1600})
    [(existing, none), (nothing, room)] = made
    assert (existing, none, nothing) == (1600, 0, 0)
    assert room == LIMITS["postgres"].columns - COLUMN_RESERVE - len(TABLES["contacts"].columns)


@pytest.mark.parametrize("missing", [{"pipeline": None}, {"load_id": None}, {"dataset": None}])
def test_an_iteration_has_no_pipeline(missing: dict[str, Any]) -> None:
    assert begin(**{"dataset": DATASET, **missing}).load.context.pipeline is None


def test_messages_of_a_file_that_are_loaded_already_are_read_too() -> None:
    loads = {("a", "1"): Loaded("5", 1, {"tracks": CLICKED}), ("b", "1"): Loaded("5", 1, None)}
    load = begin(messages=OPENED, loads=loads).load
    assert [load.messages_of(number) for number in range(3)] == [OPENED | CLICKED, ALL_MESSAGES, OPENED]


def test_the_table_of_an_event() -> None:
    load = begin(native=Native(view="{}_view")).load
    for name in ("there", "old_view", "old"):
        load.extraction.schema.update_table({"name": name, "columns": {}})
    tables = {
        "sent": "email_delivered", "購入": "", "there_view": "there_view_table", "old_view": "old_view",
        "tracks_view": "tracks_view_table", "new_view": "new_view", "a_b": "a_b",
    }  # fmt: skip
    assert {key: load.event_table(key) for key in tables} == tables
    naming = NamingConvention(max_length=20)
    long = EventTables(naming, None, frozenset(), {"a": "b" * 21})
    assert (long("a"), long("b" * 20)) == (naming.shorten_identifier("b" * 21, "b" * 21, 20), "b" * 20)


def test_no_events_table_has_a_name_that_is_taken() -> None:
    """Except tables that a load has created already."""
    taken = frozenset({"seen", "made", "email_opened", "b" * 20})
    native = Native(index_suffixes=("_pkey", "_idx"), own_prefixes=("own_",))
    load = begin(names=TableNames(frozenset({"elsewhere_idx"}), frozenset({"seen_table"}), taken), native=native).load
    for name in ("made", "made_pkey"):
        load.extraction.schema.update_table({"name": name, "columns": {}})
    tables = {
        "seen": "seen_table_table", "made": "made", "made_pkey": "made_pkey", "sent_pkey": "sent_pkey_table",
        "elsewhere_idx": "elsewhere_idx",
        "sent_idx": "sent_idx_table", "idx": "idx", "email_opened": "email_opened", "con": "con_table",
        "lpt9": "lpt9_table", "com10": "com10", "init": "init_table",
        "own_idx": "_own_idx_table", "own": "own",
    }  # fmt: skip
    assert {key: load.event_table(key) for key in tables} == tables
    naming = NamingConvention(max_length=20)
    name = EventTables(naming, None, frozenset(), taken=taken)("b" * 20)
    assert name == naming.shorten_identifier(f"{'b' * 20}_table", f"{'b' * 20}_table", 20)


def test_what_dlt_takes_for_no_file_is_no_table() -> None:
    """dlt asks the package pathvalidate, with the rules of the strictest system."""
    refused = {name.lower() for name in FileNameValidator(platform="universal").reserved_keywords}
    assert {name for name in refused if name == snake_case(name)} == FILE_NAMES - {"init"}


def test_a_worker_needs_its_share_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "cores", lambda: 3)
    assert [plan.workers(memory) for memory in (0, 99, 199, 200, 300, 900)] == [1, 1, 1, 2, 3, 3]
    assert LoadSettings(memory=200).workers == 2
