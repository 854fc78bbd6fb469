"""Tables and columns have the names that the contract gives them (docs/contract/warehouse.md#names)."""

import csv
from functools import cache
from pathlib import Path

import pytest

from autopilothq.projection import shapes
from autopilothq.segment.naming import RESERVED_TABLES
from contract.loading import Row, cell, discards, identify, message, rows_of

pytestmark = pytest.mark.usefixtures("several_threads")

with Path(__file__).with_name("snakecase.csv").open(encoding="utf-8", newline="") as file:
    VECTORS = [(row["input"], row["expected"]) for row in csv.DictReader(file)]


def prefixed(name: str) -> str:
    return f"_{name}" if name[0].isdigit() else name


def test_tables_are_named_by_segments_vectors() -> None:
    found = rows_of(*(message(name, messageId=f"{n:02}") for n, (name, _) in enumerate(VECTORS)))
    assert [(row["event"], row["event_text"]) for row in found["tracks"]] == [
        (prefixed(slug), name) for name, slug in VECTORS
    ]
    for name, slug in VECTORS:
        assert name in {row["event_text"] for row in found[prefixed(slug)]}


BODIES = {"track": "properties", "identify": "traits", "page": "properties", "screen": "properties", "group": "traits"}


@cache
def named() -> dict[str, list[Row]]:
    """The tables after one load of a message of each type for each name."""
    return rows_of(
        *(
            message(**{"type": kind, "messageId": f"{kind} {n:02}", body: {name: n}})
            for kind, body in BODIES.items()
            for n, (name, _) in enumerate(VECTORS)
        )
    )


@pytest.mark.parametrize("kind", BODIES)
def test_columns_are_named_by_segments_vectors(kind: str) -> None:
    table = {"track": "email_opened", "identify": "identifies"}.get(kind, f"{kind}s")
    rows = named()[table]
    assert [row[prefixed(slug)] for row, (_, slug) in zip(rows, VECTORS, strict=True)] == list(range(len(VECTORS)))


def test_columns_of_the_context_are_named_by_segments_vectors() -> None:
    lines = [message(messageId=f"{n:02}", context={name: n}) for n, (name, _) in enumerate(VECTORS)]
    rows = rows_of(*lines)["tracks"]
    assert [row[f"context_{slug}"] for row, (_, slug) in zip(rows, VECTORS, strict=True)] == list(range(len(VECTORS)))


def test_an_event_that_is_called_like_a_table_of_the_contract_gets_a_prefix() -> None:
    found = rows_of(*(message(name.title(), messageId=name) for name in RESERVED_TABLES))
    assert sorted(found) == sorted([f"_{name}" for name in RESERVED_TABLES] + ["tracks"])
    assert sorted(row["event"] for row in found["tracks"]) == sorted(f"_{name}" for name in RESERVED_TABLES)


@pytest.mark.parametrize("leaves", [0, 200], ids=["line by line", "by the engine"])
def test_a_name_of_other_letters_has_no_slug(leaves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "MAX_LEAVES", leaves)
    found = rows_of(message("名前", properties={"plan": "pro", "campaign_id": "c"}, context={"zoo": 1}))
    assert list(found) == ["tracks", "_discards"]
    assert "plan" not in found["tracks"][0]
    assert (found["tracks"][0]["event"], found["tracks"][0]["event_text"]) == (None, "名前")
    assert found["tracks"][0]["context_zoo"] == 1
    assert discards(found) == [
        ("tracks", "m1", "campaign_id", '"c"', "no_column"),
        ("tracks", "m1", "plan", '"pro"', "no_column"),
    ]


def test_an_empty_name_is_a_name() -> None:
    found = rows_of(message(""))
    assert [(row["event"], row["event_text"]) for row in found["tracks"]] == [(None, "")]


def test_one_table_holds_all_spellings_of_an_event() -> None:
    found = rows_of(
        message("email opened", messageId="a"), message("emailOpened", messageId="b"), message(messageId="c")
    )
    assert [row["event_text"] for row in found["email_opened"]] == ["email opened", "emailOpened", "Email Opened"]
    assert {row["event"] for row in found["email_opened"]} == {"email_opened"}


def test_traits_of_an_identify_are_columns_of_the_user() -> None:
    assert cell(identify(traits={"2FA Enabled": True}), column="_2fa_enabled", table="users") is True
