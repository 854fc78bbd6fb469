"""Which tables were dropped or emptied, and before which load, according to dlt's state."""

from typing import Any

import dlt
import pytest

from autopilothq.sources import dropped
from autopilothq.sources.dropped import dropped_before


class State(dict[str, Any]):
    """dlt's state of the source, and what dlt drops in the load."""

    lost: tuple[set[str], set[str]] = set(), set()

    def drop(self, *resources: str) -> None:
        """Drops the state of resources, as dlt does it with their tables."""
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
    """Nor one of a pipeline whose earlier loads noted nothing."""
    state["resources"] = {"a": {"taken": True}}
    assert dropped_before({"a"}, "1") == dropped_before({"a", "b"}, "2") == {}


def test_where_the_state_of_the_source_is_dropped_resources_still_have_theirs(state: State) -> None:
    dropped_before({"a", "b"}, "1")
    state.drop("a")
    del state["begun"]
    assert dropped_before({"a", "b"}, "2") == {"a": "2"}


@pytest.mark.parametrize("lost", [({"tracks", "shoe_bought"}, set()), (set(), {"tracks", "shoe_bought"})])
def test_what_dlt_drops_or_empties_in_this_load_begins_again(state: State, lost: tuple[set[str], set[str]]) -> None:
    """Also where dlt has dropped all state, as for `drop_sources`."""
    state.lost = lost
    assert dropped_before({"tracks", "email_opened", "other_events"}, "1") == {"tracks": "1", "other_events": "1"}
