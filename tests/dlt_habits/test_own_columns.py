"""Hints for the columns of `other_events`, whose tables and columns become known only with the rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from autopilothq import archive
from dlt_habits.habits import Target, track


@pytest.fixture
def events() -> str:
    """An archive with an event that the catalogue does not know."""
    Path("events.ndjson").write_text(json.dumps(track("m1", "Shoe Bought", 1, size=42)))
    return "events.ndjson"


def columns(target: Target) -> dict[str, Any]:
    return dict(target.pipeline.default_schema.tables["shoe_bought"]["columns"])


def test_hints_for_other_events_are_added_to_their_own(events: str) -> None:
    """They apply in each run of the source, until they are changed."""
    source = archive(events)
    source.other_events.apply_hints(
        columns={"user_id": {"description": "Ours.", "x-mark": 1}, "note": {"data_type": "text"}}  # type: ignore[typeddict-unknown-key]
    )
    for name in ("first", "second"):
        target = Target(name)
        target.run(source)
        [row] = target.rows("shoe_bought")
        assert (row["id"], row["size"]) == ("m1", 42)
        assert columns(target)["note"]["data_type"] == "text"
        assert columns(target)["user_id"] == {
            "name": "user_id", "data_type": "text", "nullable": True, "description": "Ours.", "x-mark": 1,
        }  # fmt: skip
    source.other_events.apply_hints(columns={"user_id": {"description": "Theirs."}})
    target = Target("third")
    target.run(source)
    assert columns(target)["user_id"]["description"] == "Theirs."


def test_columns_of_a_run_are_for_all_tables(events: str) -> None:
    target = Target()
    target.run(archive(events), columns={"note": {"data_type": "text"}})
    assert (target.count("shoe_bought"), columns(target)["note"]["data_type"]) == (1, "text")
