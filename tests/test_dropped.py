"""Tables that were dropped or emptied, also by other pipelines, begin again, according to dlt's state."""

from collections.abc import Collection, Sequence
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dlt
import pytest

from autopilothq.sources import dropped
from autopilothq.warehouses.dlt_internals.clients import stored_states


def dropped_before(resources: Collection[str], load_id: str, dataset: str = "data") -> dict[str, str]:
    return dropped.dropped_before(resources, load_id, dataset)


class State(dict[str, Any]):
    """dlt's state of the source, the tables that dlt drops in the load, and the stored states of pipelines."""

    lost: tuple[set[str], set[str]] = set(), set()
    replaced: Collection[str] = ()
    stored: Sequence[Any] = ()
    name = "x"

    def drop(self, *resources: str) -> None:
        """Drops the state of resources, as dlt does when it drops their tables."""
        for name in resources:
            self["resources"].pop(name, None)


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> State:
    found = State()

    def of(resource: str) -> Any:
        return found.setdefault("resources", {}).setdefault(resource, {})

    monkeypatch.setattr(dlt.current, "source_state", lambda: found)
    monkeypatch.setattr(dlt.current, "resource_state", of)
    monkeypatch.setattr(dropped, "dropped_tables", lambda: found.lost)
    monkeypatch.setattr(dropped, "replaced_resources", lambda: found.replaced)
    monkeypatch.setattr(dropped, "running_pipeline", lambda: SimpleNamespace(pipeline_name=found.name))
    monkeypatch.setattr(dropped, "stored_states", lambda of: found.stored if of.pipeline_name == found.name else ())
    return found


def test_a_resource_whose_state_is_dropped_begins_again(state: State) -> None:
    assert dropped_before({"a", "b"}, "1") == {}
    state.drop("a")
    assert dropped_before({"b"}, "2") == {}
    assert dropped_before({"a", "b"}, "3") == {"a": "3"}
    assert dropped_before({"a", "b"}, "4") == {"a": "3"}
    state.drop("a", "b")
    assert dropped_before({"a", "b", "c"}, "5") == {"a": "5", "b": "5"}


def test_a_resource_that_comes_later_was_not_dropped(state: State) -> None:
    """The same holds for resources of a pipeline whose earlier loads noted nothing."""
    state["resources"] = {"a": {"taken": True}}
    assert dropped_before({"a"}, "1") == dropped_before({"a", "b"}, "2") == {}


def test_where_the_state_of_the_source_is_dropped_resources_still_have_theirs(state: State) -> None:
    dropped_before({"a", "b"}, "1")
    state.drop("a")
    del state["begun"]
    assert dropped_before({"a", "b"}, "2") == {"a": "2"}


@pytest.mark.parametrize("lost", [({"tracks", "shoe_bought"}, set()), (set(), {"tracks", "shoe_bought"})])
def test_what_dlt_drops_or_empties_in_this_load_begins_again(state: State, lost: tuple[set[str], set[str]]) -> None:
    """Also if dlt has dropped all state, as `drop_sources` does."""
    state.lost = lost
    assert dropped_before({"tracks", "email_opened", "other_events"}, "1") == {"tracks": "1", "other_events": "1"}


def test_what_another_pipeline_drops_begins_again_once(state: State) -> None:
    """Once in each pipeline that had loaded it, also in one of the same name on another machine (`x2`)."""
    pipelines = {name: State() for name in ("x", "x2", "y", "new")}
    ids = map(str, range(1, 100))

    def run(name: str) -> dict[str, str]:
        state.clear()
        state.update(deepcopy(pipelines[name]))
        state.name = name[:1]
        state.stored = [{"sources": {"autopilothq": other}} for of, other in pipelines.items() if of != name]
        found = dropped_before({"a", "b"}, next(ids))
        pipelines[name].update(deepcopy(state))
        return found

    assert [run("x"), run("x2"), run("y")] == [{}, {}, {}]
    pipelines["x"]["resources"].pop("a")
    after = {"x": {"a": "4"}, "x2": {"a": "5"}, "y": {"a": "6"}, "new": {}}
    for _ in range(2):
        assert {name: run(name) for name in pipelines} == after
    pipelines["y"]["resources"].clear()
    both = {"y": "12", "x": "13", "x2": "14", "new": "15"}
    for _ in range(2):
        assert {name: run(name) for name in both} == {name: {"a": load, "b": load} for name, load in both.items()}


@pytest.mark.parametrize(
    ("drops", "begun"),
    [
        ({"data/y": 1}, {"a": "2"}),
        ({"other/y": 1}, {}),  # it loads into this dataset now and brings its state along
        ({"other/y": 1, "data/z": 1}, {"a": "2"}),
        ({"y": 1}, {"a": "2"}),  # as an earlier version stored it
        ({"my/data/y": 1}, {}),
    ],
)
def test_what_another_pipeline_dropped_in_another_dataset_stays(
    state: State, drops: dict[str, int], begun: dict[str, str]
) -> None:
    dropped_before({"a"}, "1")
    state.stored = [{"sources": {"autopilothq": {"resources": {"a": {dropped._DROPS: drops}}}}}]
    assert dropped_before({"a"}, "2") == dropped_before({"a"}, "3") == begun
    assert dropped._drops([{"sources": {"s": state}}])["a"] == drops  # known to pipelines that load into that dataset


def test_what_is_replaced_begins_again_in_other_pipelines(state: State) -> None:
    """In the pipeline that replaces it, the load requests everything anyway."""
    dropped_before({"a", "b"}, "1")
    state.replaced = {"a"}
    for count in (1, 2):
        assert dropped_before({"a", "b"}, "2") == {}
        assert dropped._drops([{}, {"sources": {"s": state}}])["a"] == {"data/x": count}  # one pipeline has no sources


def test_what_a_load_without_cursors_drops_begins_again(state: State) -> None:
    assert dropped_before({"tracks", "other_events"}, "1") == {}
    dropped.note_dropped({"tracks", "shoe_bought", "users"}, "2", "data")
    for load in ("3", "4"):
        assert dropped_before({"tracks", "other_events", "email_opened"}, load) == {"tracks": "2", "other_events": "2"}
    assert dropped._drops([{"sources": {"s": state}}]) == {
        "tracks": {"data/x": 1}, "other_events": {"data/x": 1}, "users": {"data/x": 1}, "email_opened": {},
    }  # fmt: skip


def test_each_drop_of_a_load_without_cursors_is_counted_with_those_of_other_pipelines(state: State) -> None:
    state.stored = [{"sources": {"autopilothq": {"resources": {"users": {dropped._DROPS: {"data/y": 3}}}}}}]
    for count, name in enumerate(("users", "groups"), 1):
        dropped.note_dropped({"users", name}, str(count), "data")
        assert dropped._drops([{"sources": {"s": state}}])["users"] == {"data/x": count, "data/y": 3}
    assert state["begun"] == ["groups", "users"]
    dropped.note_dropped({"tracks"}, "3", "data")
    state.drop("users")
    assert dropped_before({"users", "groups", "tracks"}, "4") == {"groups": "2", "tracks": "3", "users": "4"}


@pytest.mark.parametrize("kind", ["duckdb", "filesystem"])
def test_the_states_that_are_stored_are_the_newest_of_the_dataset(tmp_path: Path, kind: str) -> None:
    url = (tmp_path / "lake").as_uri() if kind == "filesystem" else str(tmp_path / "lake.duckdb")
    to = dlt.destinations.filesystem(url) if kind == "filesystem" else dlt.destinations.duckdb(url)

    def noting(pipeline: str, count: int) -> Any:
        @dlt.resource(name="t")
        def rows() -> Any:
            dlt.current.resource_state().update({dropped._DROPS: {pipeline: count}, "drops": "of a user"})
            yield {"n": 1}

        return rows

    of = {name: dlt.pipeline(name, destination=to, dataset_name=name[-1]) for name in ("a_x", "b_x", "c_y")}
    assert stored_states(of["a_x"]) == []
    for name, count in (("a_x", 1), ("a_x", 2), ("b_x", 3), ("c_y", 4)):
        of[name].run(noting(name, count))
    found = {name: dropped._drops(stored_states(each)) for name, each in of.items()}
    assert found == {name: {"t": {"a_x": 2, "b_x": 3}} for name in ("a_x", "b_x")} | {"c_y": {"t": {"c_y": 4}}}
