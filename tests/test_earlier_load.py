"""Which loads lack rows, because what they were read after is not in the dataset."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autopilothq.sources.earlier_load import Stored, note_earlier, outdated_loads

AHEAD = "9999999999.0"  # of a machine whose clock is wrong


@pytest.fixture
def pipeline(tmp_path: Path) -> Any:
    return SimpleNamespace(working_dir=str(tmp_path))


def note(pipeline: Any, load_id: str, earlier: set[str], audited: frozenset[str] = frozenset()) -> None:
    note_earlier(pipeline, load_id, Stored(earlier, audited), Stored(earlier, audited))


def test_a_load_counts_only_with_all_that_it_was_read_after(pipeline: Any) -> None:
    """Also where a load with a later id stays that was complete long before."""
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
    """A later load may take over the files of some."""
    note(pipeline, "3.0", {"1.0", "2.0"}, frozenset({"1.0", "2.0"}))
    assert outdated_loads(pipeline, Stored({"1.0", "2.0", "3.0", "4.0"}, audited)) == lacking


def test_a_load_of_an_api_leaves_files_that_were_replaced_to_loads_of_files(pipeline: Any) -> None:
    """It does not look them up. A load may be of both, in any order, and each of them notes what it was read after."""
    before, files = Stored({"1.0"}), Stored({"1.0"}, {"1.0"})
    for load_id, notes in (("2.0", (before, files)), ("3.0", (files, before))):
        for each in notes:
            note_earlier(pipeline, load_id, each, each)
    complete = {"1.0", "2.0", "3.0"}
    note_earlier(pipeline, "4.0", Stored(complete), Stored(complete))
    assert outdated_loads(pipeline, Stored(complete)) == set()
    assert outdated_loads(pipeline, Stored(complete, {"9.0"})) == {"2.0", "3.0"}


def test_what_lacks_nothing_is_forgotten_and_the_newest_others_are_kept(pipeline: Any) -> None:
    notes = Path(pipeline.working_dir, "autopilothq-loads", "earlier.json")
    note(pipeline, AHEAD, {"1.0"})
    note(pipeline, "3.0", {"1.0", AHEAD}, frozenset({"1.0"}))
    assert notes.read_text() == f'{{"3.0": [["1.0", "{AHEAD}"], ["1.0"]]}}'
    for number in range(4, 40):
        note(pipeline, f"{number}.0", {"1.0"})
    assert outdated_loads(pipeline, Stored({f"{number}.0" for number in range(2, 40)})) == {
        f"{number}.0" for number in range(20, 40)
    }


@pytest.mark.parametrize("notes", ["", "[]", '{"2.0": 1}', '{"2.0": [[], [], []]}'])
def test_notes_that_cannot_be_read_are_ignored(pipeline: Any, notes: str) -> None:
    note(pipeline, "2.0", {"1.0"})
    Path(pipeline.working_dir, "autopilothq-loads", "earlier.json").write_text(notes)
    assert outdated_loads(pipeline, Stored({"2.0"})) == set()
    note(pipeline, "3.0", {"1.0"})
    assert outdated_loads(pipeline, Stored({"2.0", "3.0"})) == {"3.0"}
