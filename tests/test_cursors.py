"""Of an origin's cursors, the one of the last complete load into the dataset counts."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from autopilothq.sources import cursors
from autopilothq.sources.cursors import write_cursor

pytestmark = pytest.mark.usefixtures("source_state")


NOW = datetime(2026, 11, 1, tzinfo=UTC)


def read_cursor(group: str, name: str, loads: Collection[str], **of: Any) -> dict[str, Any]:
    return cursors.read_cursor(group, name, loads, NOW, **of)


def at(end: int) -> dict[str, object]:
    return {"end": end, "load_id": f"load {end}"}


def test_each_dataset_of_a_pipeline_has_its_own_cursor() -> None:
    """The datasets are loaded by turns, so the newest cursor belongs to the other one."""
    first, second = {"load 1", "load 3"}, {"load 2"}
    assert read_cursor("feed", "a", first) == {}
    for end in (1, 2, 3):
        write_cursor("feed", "a", at(end))
    write_cursor("feed", "b", at(2))
    assert [read_cursor("feed", "a", loads) for loads in (first, second, {"load 1"}, {"load 4"})] == [
        at(3), at(2), at(1), {},
    ]  # fmt: skip
    assert [read_cursor("feed", "b", loads) for loads in (first, second)] == [{}, at(2)]


def test_a_cursor_may_have_to_have_further_values() -> None:
    """For example the account, where two accounts are loaded by turns."""
    for end, account in enumerate("abab"):
        write_cursor("feed", "a", at(end) | {"account": account})
    loads = {f"load {end}" for end in range(3)}
    assert [read_cursor("feed", "a", loads, account=account).get("end") for account in "abc"] == [2, 1, None]
    assert read_cursor("feed", "a", loads, account="b", lost=None)["end"] == 1
    assert read_cursor("feed", "a", loads, account="b", lost="x") == {}


def test_only_some_older_cursors_are_kept() -> None:
    for end in range(8):
        for _ in range(2):  # a load may write its cursor several times
            write_cursor("feed", "a", at(end))
    assert [read_cursor("feed", "a", {f"load {end}"}) for end in range(8)] == [{}, {}, *map(at, range(2, 8))]


def test_the_last_complete_loads_cursor_is_kept_while_later_loads_fail() -> None:
    write_cursor("feed", "a", at(0))
    for end in range(1, 9):
        write_cursor("feed", "a", at(end), read_cursor("feed", "a", {"load 0"}))
    assert [read_cursor("feed", "a", {f"load {end}"}) for end in range(9)] == [at(0), *[{}] * 3, *map(at, range(4, 9))]


@pytest.mark.parametrize("key", ["begun", "started_at"])
def test_what_began_after_now_does_not_count(key: str) -> None:
    """A clock was wrong then. Another machine's may be a little ahead."""
    for end, hours in enumerate((-1, 24, 25)):
        write_cursor("feed", "a", at(end) | {key: (NOW + timedelta(hours=hours)).isoformat()})
    assert read_cursor("feed", "a", {"load 0", "load 1", "load 2"})["end"] == 1
    assert read_cursor("feed", "a", {"load 2"}) == {}
