"""Which tables a load mends, and why texts in others stay cut (docs/contract/adopt.md#cut-text)."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from autopilothq.errors import NotSupported
from autopilothq.sources.adopted_rows import check_nothing_to_mend, rows_of_messages

FIRST, LAST = datetime(2021, 1, 1, tzinfo=UTC), datetime(2021, 1, 2, tzinfo=UTC)
ADOPTED = [("rows.csv", "adopted email_opened 1"), ("1.json", "2")]
COLUMNS = {"id": "text", "note": "text", "other": "text"}
EXISTING = dict.fromkeys(("email_opened", "trial_extended", "pages"), COLUMNS)


class Stored:
    """A dataset of some kind of destination, in which a row of `_audit` has no time."""

    def __init__(self, kind: str = "duckdb", dialect: str | None = None, room: int = 513, width: int = 3) -> None:
        self.kind, self.dialect = kind, dialect or kind
        self.widths = {"email_opened": width} if width else {}
        self.room, self.bound = room, False

    def read(self, table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        assert (table, columns) == ("_audit", ["version", "loaded_at"])
        rows = [("adopted email_opened 1", FIRST), ("2", LAST), ("3", None)]
        yield pa.RecordBatch.from_pylist([dict(zip(columns, row, strict=True)) for row in rows])

    def lengths(self) -> dict[tuple[str, str], int]:
        assert self.kind == "postgres"
        return {("email_opened", name): self.room for name in ("note", "other")}

    def stream(self, select: str, table: str, more: str) -> list[tuple[bool]]:
        assert (select[-4:], table, more) == ("FROM", "email_opened", "r LIMIT 1")
        return [(self.bound,)]


class Rows:
    """The rows of a load, six of which mend a table; records what is asked of them."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.left: list[str] = []

    def tables(self) -> list[str]:
        return ["new rows"]

    def find_mends(self, read: Any, tables: Sequence[str], loads: set[datetime]) -> None:
        self.asked.append((read, tables, loads))

    def mended(self) -> dict[str, int]:
        return {"email_opened": 6}

    def mended_lengths(self, table: str) -> dict[str, int]:
        return {"other": 514, "note": 513} if table == "email_opened" else {}

    def drop_mends(self, table: str) -> None:
        self.left.append(table)

    def with_mended_rows(self, read: Any) -> list[Any]:
        return ["new rows", "mended rows", read]


class Load:
    """A load into a dataset, and its outcome."""

    def __init__(self, dataset: Stored | None, adopted: Sequence[tuple[str, str]] = ADOPTED, lines: int = 1) -> None:
        self.rows, self.warnings = Rows(), list[str]()
        self.destination = SimpleNamespace(caps_params={})
        self.hints = SimpleNamespace(existing=EXISTING, mended=set())
        self.load: Any = SimpleNamespace(
            target=SimpleNamespace(dataset=dataset, loads=dict.fromkeys(adopted)),
            extraction=SimpleNamespace(
                resources={"email_opened", "other_events"}, pipeline=SimpleNamespace(destination=self.destination)
            ),
            report=SimpleNamespace(lines=lines),
            context=SimpleNamespace(warn=self.warnings.append),
        )

    def run(self, seen: Sequence[str] = ()) -> list[Any]:
        files = SimpleNamespace(hints=self.hints, are_seen=lambda table: table in seen)
        made: Any = rows_of_messages(self.load, self.rows, files)  # type: ignore[arg-type]
        return list(made)


@pytest.mark.parametrize(
    ("kind", "more", "told"),
    [
        ("duckdb", {}, True),
        ("postgres", {"room": 514}, True),
        ("filesystem", {"width": 0}, False),
        ("sqlalchemy", {"dialect": "sqlite"}, False),
    ],
)
def test_rows_are_mended_where_that_is_safe(kind: str, more: Mapping[str, Any], told: bool) -> None:
    dataset = Stored(kind, **more)
    load = Load(dataset)
    assert load.run(seen=["pages"]) == ["new rows", "mended rows", dataset.read]
    assert load.rows.asked == [(dataset.read, ["email_opened", "trial_extended"], {LAST})]
    assert (load.hints.mended, load.rows.left, load.warnings) == ({"email_opened"}, [], [])
    assert load.destination.caps_params == ({"supports_transactions": True} if told else {})


def test_rows_are_mended_without_a_pipeline_too() -> None:
    load = Load(Stored())
    load.load.extraction.pipeline = None
    assert load.run()[:2] == ["new rows", "mended rows"]


@pytest.mark.parametrize(
    ("dataset", "seen", "why"),
    [
        (Stored(), ["email_opened"], "a step of yours, or a schema contract, would see these rows again"),
        (
            Stored("snowflake"),
            [],
            "it is untested whether snowflake loses rows if a load is killed while it replaces them",
        ),
        (Stored(width=4), [], "the table has columns of other types than loads make, which would be lost"),
        (Stored("postgres"), [], "other has no room for the whole texts"),
        (Stored("postgres", room=512), [], "note, other have no room for the whole texts"),
        (
            Stored("postgres", room=514),
            [],
            "PostgreSQL generates a column of the table, or a foreign key refers to its rows",
        ),
    ],
)
def test_texts_stay_cut_where_rows_would_lose_something(dataset: Stored, seen: list[str], why: str) -> None:
    dataset.bound = True  # only PostgreSQL is asked about it, and last
    load = Load(dataset)
    assert load.run(seen)[:2] == ["new rows", "mended rows"]
    assert load.warnings == [f"Texts of 6 rows of email_opened stay cut: {why}."]
    assert (load.hints.mended, load.rows.left) == (set(), ["email_opened"])
    assert load.destination.caps_params == {}


@pytest.mark.parametrize("load", [Load(None), Load(Stored(), lines=0), Load(Stored(), adopted=ADOPTED[1:])])
def test_nothing_is_looked_for_where_nothing_was_adopted_or_read(load: Load) -> None:
    assert load.run() == ["new rows"]
    assert load.rows.asked == []


def test_workers_refuse_what_they_cannot_mend() -> None:
    check_nothing_to_mend(Load(Stored()).load, has_duplicates=False)
    check_nothing_to_mend(Load(Stored(), adopted=ADOPTED[1:]).load, has_duplicates=True)
    with pytest.raises(NotSupported) as error:
        check_nothing_to_mend(Load(Stored()).load, has_duplicates=True)
    assert str(error.value) == (
        "Expected a load in this process, because messages that are stored already, or come twice in this load, may"
        " have whole texts for adopted rows, and workers do not mend cut texts.\nLoad without an engine."
    )
