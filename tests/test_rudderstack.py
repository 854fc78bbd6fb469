"""RudderStack's public test data for Autopilot gives the same results, except where this project differs on purpose."""

import json
from pathlib import Path
from typing import Any

import pytest

from fake_autopilot import FakeAutopilot
from sending import posts, send

DATA: dict[str, Any] = json.loads((Path(__file__).parent / "rudderstack_cases.json").read_text())
PAGE = Path(__file__).parents[1] / "pipelines" / "docs" / "explanation" / "differences.md"


@pytest.mark.parametrize("case", DATA["cases"], ids=lambda case: f"row {case['row']}")
def test_rows_of_rudderstacks_test_data(server: FakeAutopilot, case: dict[str, Any]) -> None:
    ours = case["ours"]
    counts = send(server, [case["message"]])
    assert [list(post) for post in posts(server)] == ours["posts"]
    refused = {("refused", ours["refused"]): 1} if "refused" in ours else {}
    ignored = {ours["ignored"]: 1} if "ignored" in ours else {}
    assert (counts.reasons, counts.ignored) == (refused, ignored)
    assert counts.delivered == bool(ours["posts"])


@pytest.mark.parametrize("case", DATA["rules"], ids=lambda case: str(case["rule"]))
def test_where_rudderstacks_rules_lose_something(server: FakeAutopilot, case: dict[str, Any]) -> None:
    assert send(server, [case["message"]]).delivered == 1
    assert [list(post) for post in posts(server)] == case["posts"]


def test_a_difference_is_where_the_results_are_not_the_same() -> None:
    for case in DATA["cases"]:
        refuses = "error" in case["theirs"], "refused" in case["ours"]
        assert bool(case["differs"]) == (refuses != (True, True) or "No contact" in case["ours"]["refused"])


def test_every_difference_is_in_the_documents_with_its_reason() -> None:
    table = PAGE.read_text().split("## How sending differs from RudderStack's")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")
    ]
    named = {name for case in DATA["cases"] for name in case["differs"]} | {case["rule"] for case in DATA["rules"]}
    assert {row[0] for row in rows[2:]} == named
    assert all(len(row) == 4 and all(row) for row in rows)
