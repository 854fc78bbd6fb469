"""Which loads lack rows, because loads on which they were based are not in the dataset."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from autopilothq.sources.earlier_load import Brought, Stored, note_earlier
from autopilothq.sources.earlier_load import outdated_loads as found_outdated
from autopilothq.warehouses.dlt_internals import logger

AT = datetime(2019, 3, 20, 10, tzinfo=UTC)
AHEAD = "9999999999.0"  # from a machine whose clock is wrong


@pytest.fixture
def pipeline(tmp_path: Path) -> Any:
    return SimpleNamespace(working_dir=str(tmp_path), last_trace=None)


def note(
    pipeline: Any,
    load_id: str,
    earlier: set[str],
    audited: frozenset[str] = frozenset(),
    rows: Mapping[str, int] = MappingProxyType({}),
) -> None:
    brought = Brought(AT.isoformat(), rows)
    note_earlier(pipeline, load_id, Stored(earlier, audited), Stored(earlier, audited), brought)


def trace_of(load_id: str, steps: str) -> Any:
    info = SimpleNamespace(loads_ids=[load_id])
    return SimpleNamespace(
        steps=[SimpleNamespace(step=step, step_exception=None, step_info=info) for step in steps.split()]
    )


class Dataset:
    """A dataset whose tables have the given numbers of rows of one time; records how often they are counted."""

    def __init__(self, **rows: int) -> None:
        self.stored = rows
        self.looks = 0
        self.loads: list[tuple[str, datetime]] = []
        self.times: dict[str, datetime] = {}

    def columns(self) -> dict[str, Any]:
        times = {"_rejects": "rejected_at", "_discards": "discarded_at", "_profiles": "asked_at"}
        return {table: {times.get(table, "uuid_ts"): "timestamp"} for table in self.stored}

    def rows(self, select: str, table: str, where: str = "", *between: datetime) -> list[Any]:
        if table == "_dlt_loads":
            return self.loads
        [column] = self.columns()[table]
        assert (select, where) == ("count(*)", f"WHERE {{{column}}} >= %s AND {{{column}}} <= %s")
        self.looks += 1
        return [(self.stored[table] * (between[0] < self.times.get(table, AT) < between[1]),)]


def outdated_loads(pipeline: Any, now: Stored, dataset: Any = None) -> set[str]:
    return found_outdated(pipeline, now, dataset)


def test_a_load_counts_only_with_all_that_it_was_read_after(pipeline: Any) -> None:
    """Also if a load with a later id remains that was complete long before."""
    note(pipeline, "1.0", set())
    assert outdated_loads(pipeline, Stored({"1.0"})) == set()
    note(pipeline, "3.0", {"1.0", "2.0", AHEAD})
    whole = {"1.0", "2.0", "3.0", AHEAD}
    assert outdated_loads(pipeline, Stored(whole)) == outdated_loads(pipeline, Stored(whole - {"3.0"})) == set()
    for lost in ("1.0", "2.0", AHEAD):
        assert outdated_loads(pipeline, Stored(whole - {lost})) == {"3.0"}


@pytest.mark.parametrize(
    ("audited", "lacking"),
    [({"1.0", "2.0", "3.0"}, set()), ({"2.0", "4.0"}, set()), ({"3.0", "4.0"}, {"3.0"}), (set(), {"3.0"})],
)
def test_a_load_does_not_count_where_all_files_before_it_were_replaced(
    pipeline: Any, audited: set[str], lacking: set[str]
) -> None:
    """A later load may have taken over the files of some of them."""
    note(pipeline, "3.0", {"1.0", "2.0"}, frozenset({"1.0", "2.0"}))
    assert outdated_loads(pipeline, Stored({"1.0", "2.0", "3.0", "4.0"}, audited)) == lacking


def test_a_load_of_an_api_leaves_files_that_were_replaced_to_loads_of_files(pipeline: Any) -> None:
    """It does not look them up. A load may belong to both sources, and each notes the loads on which it is based."""
    before, files = Stored({"1.0"}), Stored({"1.0"}, {"1.0"})
    for load_id, notes in (("2.0", (before, files)), ("3.0", (files, before))):
        for each in notes:
            note_earlier(pipeline, load_id, each, each, Brought("", {}))
    complete = {"1.0", "2.0", "3.0"}
    note_earlier(pipeline, "4.0", Stored(complete), Stored(complete), Brought("", {}))
    assert outdated_loads(pipeline, Stored(complete)) == set()
    assert outdated_loads(pipeline, Stored(complete, {"9.0"})) == {"2.0", "3.0"}


BROUGHT = {"tracks": 2, "_rejects": 1, "_profiles": 3}


@pytest.mark.parametrize(
    ("lost", "lacking"),
    [
        ({}, set()),
        ({"tracks": 3}, set()),
        ({"_profiles": 0}, set()),  # has no column that tells when rows were stored
        ({"tracks": 1}, {"2.0"}),
        ({"_rejects": 0}, {"2.0"}),
        ({"tracks": None}, {"2.0"}),
    ],
)
def test_a_load_that_may_have_been_continued_counts_only_with_its_own_rows(
    pipeline: Any, lost: dict[str, Any], lacking: set[str]
) -> None:
    """The rows are counted once, also if no earlier load is complete."""
    note(pipeline, "2.0", set(), rows=BROUGHT)
    dataset = Dataset(**{table: rows for table, rows in {**BROUGHT, **lost}.items() if rows is not None})
    assert outdated_loads(pipeline, Stored(set()), dataset) == set()  # the load waits and is not judged yet
    assert dataset.looks == 0
    assert outdated_loads(pipeline, Stored({"2.0"}, frozenset()), dataset) == lacking
    dataset.stored, dataset.looks = {}, 0
    note(pipeline, "3.0", {"2.0"}, rows=BROUGHT)
    assert outdated_loads(pipeline, Stored({"2.0"}, frozenset()), dataset) == lacking
    assert dataset.looks == 0


@pytest.mark.parametrize(
    ("table", "stored_at", "lacking"),
    [
        ("users", AT + timedelta(days=1), set()),  # replaced by a later load
        ("users", AT - timedelta(days=1), {"2.0"}),
        ("_rejects", AT - timedelta(days=1), set()),  # rejected by an earlier load of the file
        ("_rejects", AT + timedelta(days=1), {"2.0"}),
        ("_discards", AT + timedelta(days=1), {"2.0"}),
        ("tracks", AT + timedelta(days=1), {"2.0"}),
        ("tracks", AT - timedelta(days=1), {"2.0"}),
    ],
)
def test_rows_that_others_replace_or_stored_before_count_as_there(
    pipeline: Any, table: str, stored_at: datetime, lacking: set[str]
) -> None:
    note(pipeline, "2.0", {"1.0"}, rows={table: 1})
    dataset = Dataset(**{table: 1})
    dataset.times[table] = stored_at
    assert outdated_loads(pipeline, Stored({"1.0", "2.0"}, {"2.0"}), dataset) == lacking


@pytest.mark.parametrize(
    ("rows", "audited", "ended", "lacking"),
    [
        ({"users": 1}, {"3.0"}, AT - timedelta(seconds=1), {"2.0"}),
        ({"users": 1}, {"3.0"}, AT + timedelta(seconds=1), set()),
        ({"users": 1}, set(), AT - timedelta(seconds=1), set()),  # another program's row
        ({"tracks": 1}, {"3.0"}, AT - timedelta(seconds=1), set()),
    ],
)
@pytest.mark.parametrize("is_uncut", [True, False])
def test_a_load_that_another_one_overtook_does_not_count_if_its_rows_replace_others(
    pipeline: Any, rows: dict[str, int], audited: set[str], ended: datetime, lacking: set[str], is_uncut: bool
) -> None:
    pipeline.last_trace = trace_of("2.0", "extract normalize load run") if is_uncut else None
    note(pipeline, "2.0", {"1.0"}, rows=rows)
    dataset = Dataset(**rows)
    dataset.loads = [("1.0", AT), ("2.0", AT), ("3.0", ended)]
    if "users" in rows:  # a load of an API does not notice
        assert outdated_loads(pipeline, Stored({"1.0", "2.0", "3.0"}), dataset) == set()
    assert outdated_loads(pipeline, Stored({"1.0", "2.0", "3.0"}, {"1.0", "2.0", *audited}), dataset) == lacking


def test_a_load_that_ended_while_another_one_was_read_overtook_it(pipeline: Any) -> None:
    """Its rows count as stored before, but not all of them existed when rows of users were made."""
    for load_id, meanwhile in (("2.0", {"1.0"}), ("3.0", set[str]())):
        brought = Brought(AT.isoformat(), {"users": 1})
        note_earlier(pipeline, load_id, Stored({"1.0"}), Stored({"1.0"}), brought, meanwhile)
    dataset = Dataset(users=1)
    dataset.loads = [("1.0", AT - timedelta(seconds=1)), ("2.0", AT), ("3.0", AT)]
    now = Stored({"1.0", "2.0", "3.0"}, {"1.0", "2.0"})
    assert [outdated_loads(pipeline, now, dataset) for _ in range(2)] == [{"2.0"}] * 2


def test_rows_of_all_sources_that_share_a_load_are_counted(pipeline: Any) -> None:
    note(pipeline, "2.0", {"1.0"}, rows={"tracks": 2})
    note(pipeline, "2.0", {"1.0", "1.5"}, rows={"identifies": 1})  # read after another run had completed a further load
    stored, whole = Stored({"1.0", "1.5", "2.0"}), {"tracks": 2, "identifies": 1}
    notes = Path(pipeline.working_dir, "autopilothq-loads", "earlier.json").read_bytes()
    for rows, lacking in ((whole, set()), (whole | {"tracks": 1}, {"2.0"}), (whole | {"identifies": 0}, {"2.0"})):
        Path(pipeline.working_dir, "autopilothq-loads", "earlier.json").write_bytes(notes)
        assert outdated_loads(pipeline, stored, Dataset(**rows)) == lacking
    Path(pipeline.working_dir, "autopilothq-loads", "earlier.json").write_bytes(notes)
    assert outdated_loads(pipeline, Stored({"1.0", "2.0"}), Dataset(**whole)) == {"2.0"}


@pytest.mark.parametrize(
    ("steps", "looks"),
    [
        ("extract normalize load run", 0),
        ("extract normalize load run load", 3),
        ("normalize load run", 3),
        ("extract normalize load", 3),  # separate steps: a killed one leaves no trace
    ],
)
def test_rows_of_a_load_that_one_run_made_are_not_counted(pipeline: Any, steps: str, looks: int) -> None:
    pipeline.last_trace = trace_of("2.0", steps)
    counted = {"tracks": 2, "_rejects": 1, "identifies": 3}
    dataset = Dataset(**counted)
    note(pipeline, "2.0", set(), rows=counted)
    assert outdated_loads(pipeline, Stored({"2.0"}), dataset) == set()
    assert dataset.looks == looks
    pipeline.last_trace.steps[-1].step_exception = "no"
    note(pipeline, "2.0", set(), rows=counted)
    assert outdated_loads(pipeline, Stored({"2.0"}), dataset) == set()
    assert dataset.looks == looks + 3


def test_what_lacks_nothing_is_forgotten_and_the_newest_others_are_kept(pipeline: Any) -> None:
    notes = Path(pipeline.working_dir, "autopilothq-loads", "earlier.json")
    note(pipeline, AHEAD, {"1.0"})
    note(pipeline, "2.0", {"1.0"}, frozenset({"1.0"}))
    note(pipeline, "3.0", {"1.0", "2.0", AHEAD}, frozenset({"1.0"}))
    assert notes.read_text() == f'{{"3.0": [["1.0", "2.0", "{AHEAD}"], ["1.0"], []]}}'
    for number in range(4, 40):
        note(pipeline, f"{number}.0", {"1.0"})
    assert outdated_loads(pipeline, Stored({f"{number}.0" for number in range(2, 40)})) == {
        f"{number}.0" for number in range(20, 40)
    }


EMPTY = '{"2.0": [[], [], []]}'


@pytest.mark.parametrize("notes", ["", "[]", '{"2.0": 1}', EMPTY])
def test_notes_that_cannot_be_read_are_ignored(pipeline: Any, notes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(logger, "warning", told.append)
    note(pipeline, "2.0", {"1.0"})
    path = Path(pipeline.working_dir, "autopilothq-loads", "earlier.json")
    path.write_text(notes)
    assert outdated_loads(pipeline, Stored({"2.0"})) == set()
    assert [text.startswith(f"{path} cannot be read, and is ignored: ") for text in told] == [True] * (notes != EMPTY)
    note(pipeline, "3.0", {"1.0"})
    assert outdated_loads(pipeline, Stored({"2.0", "3.0"})) == {"3.0"}
