"""Messages of a load restore stored texts that Segment has cut (docs/contract/adopt.md#cut-text)."""

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from autopilothq.catalog import CUT, Type
from autopilothq.projection import Deduplicated, shapes
from contract.loading import NOW, RECEIVED, Line, Row, Store, batches, filled, identify, message, new_projection

ADOPTED, LOADED = datetime(2021, 1, 1, tzinfo=UTC), datetime(2021, 1, 2, 0, 0, 0, 123456, tzinfo=UTC)
TIMES: dict[str, Type] = {"received_at": "timestamp", "uuid_ts": "timestamp"}
COLUMNS = {
    "tracks": ("id", "event", "context_page_url"),
    "email_opened": ("id", "campaign_name", "note", "other", "context_page_url"),
    "plan_changed": ("id", "context_page_url"),
    "identifies": ("id", "bio"),
}


def text(sign: str, length: int = CUT + 1) -> str:
    return sign * length


def page(sign: str, **more: Any) -> dict[str, Any]:
    return {"context": {"page": {"url": text(sign)}}, **more}


def row(id_: str, **cells: Any) -> Row:
    return {"id": id_, "received_at": RECEIVED, "uuid_ts": ADOPTED, **cells}


class Destination(Store):
    """A destination with adopted rows, which records the ids that are read from it."""

    def __init__(self, **tables: Sequence[Row]) -> None:
        super().__init__()
        self.types = {name: {**dict.fromkeys(COLUMNS[name], "text"), **TIMES} for name in tables}
        self.rows = {
            name: {row["id"]: dict.fromkeys(self.types[name]) | row for row in rows} for name, rows in tables.items()
        }
        self.asked: dict[tuple[str, ...], list[str]] = {}

    def read(self, table: str, columns: Sequence[str], ids: Sequence[str]) -> Iterator[pa.RecordBatch]:
        self.asked[(table, *columns)] = sorted(ids)
        return self._read(table, columns)

    def mend(self, scratch: Path, lines: Sequence[Line], tables: Collection[str] = tuple(COLUMNS)) -> Deduplicated:
        projection = new_projection(scratch)
        for batch in batches([lines[:2], lines[2:]]):
            projection.add(batch)
        events = [name for name in self.types if name in ("email_opened", "plan_changed")]
        made = projection.deduplicate(self.types, self._read, set(), event_tables=events)
        made.find_mends(self.read, tables, [NOW, LOADED.replace(microsecond=123999)])
        return made

    def rows_of(self, made: Deduplicated) -> dict[str, dict[str, Row]]:
        """Returns the rows that replace stored ones or are new, by table and id."""
        found = {}
        for rows in made.with_mended_rows(self.read):
            cells = [filled(row) for row in rows.relation.to_arrow_table().to_pylist()]
            assert len(cells) == rows.row_count
            found[rows.table] = {
                row["id"]: {name: row[name] for name in COLUMNS[rows.table] if name in row} for row in cells
            }
        return found


@pytest.mark.parametrize("leaves", [0, 200], ids=["line by line", "by the engine"])
def test_a_cut_text_becomes_whole_and_no_other(leaves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "MAX_LEAVES", leaves)
    there = Destination(
        email_opened=[
            row(
                "cut",
                note=text("a", CUT),
                other=text("b", CUT),
                campaign_name=text("c", CUT),
                context_page_url=text("d", CUT),
            ),
            row("longer", note=text("e", CUT), other="mine"),
            row("shorter", note=text("f", CUT - 1)),
            row("exact", note=text("g", CUT)),
            row("changed", note=text("h", CUT)),
            row("loaded", note=text("i", CUT)) | {"uuid_ts": LOADED},
            row("alike", note=text("e", CUT)),
            row("twice", note=text("j", CUT)),
            row("plan", context_page_url=text("k", CUT)),
        ],
        tracks=[
            row("plan", event="plan_changed", context_page_url=text("k", CUT)),
            *(row(id_, event="email_opened") for id_ in ("longer", "shorter", "exact", "changed", "loaded", "twice")),
            row("cut", event="email_opened", context_page_url=text("d", CUT)),
        ],
        plan_changed=[row("plan")],
        identifies=[row("i1", bio=text("m", CUT)), row("i2", bio=text("m", CUT))],
    )
    lines = [
        message(
            messageId="cut", **page("d", properties={"note": text("a"), "other": text("b"), "campaign_name": text("c")})
        ),
        message(messageId="longer", properties={"note": text("e", 600), "other": text("mine", 600)}),
        message(messageId="shorter", properties={"note": text("f")}),
        message(messageId="exact", properties={"note": text("g", CUT)}),
        message(messageId="changed", properties={"note": text("x")}),
        message(messageId="loaded", properties={"note": text("i")}),
        message(messageId="twice", properties={"note": text("j", 700)}),
        message(messageId="twice", receivedAt="2020-01-01T00:00:00Z", properties={"note": text("j", 800)}),
        message("Plan Changed", messageId="plan", **page("k")),
        message(messageId="new", properties={"note": text("n")}),
        identify(messageId="i1", traits={"bio": text("m")}),
    ]
    made = there.mend(tmp_path, lines)
    assert list(made.mended().items()) == [("tracks", 2), ("identifies", 1), ("email_opened", 3)]
    assert made.mended_lengths("email_opened") == {
        "campaign_name": 513, "context_page_url": 513, "note": 700, "other": 513,
    }  # fmt: skip
    assert made.mended_lengths("plan_changed") == {}
    assert sorted((count.file, count.mended) for count in made.counts()) == [(0, 5), (1, 3)]
    asked = there.asked[
        "email_opened", "id", "received_at", "uuid_ts", "campaign_name", "context_page_url", "note", "other"
    ]
    assert asked == ["changed", "cut", "loaded", "longer", "new", "shorter", "twice"]
    assert there.rows_of(made) == {
        "email_opened": {
            "cut": {
                "id": "cut",
                "campaign_name": text("c"),
                "note": text("a"),
                "other": text("b"),
                "context_page_url": text("d"),
            },
            "longer": {"id": "longer", "note": text("e", 600), "other": "mine"},
            "twice": {"id": "twice", "note": text("j", 700)},
            "new": {"id": "new", "note": text("n")},
        },
        "tracks": {
            "cut": {"id": "cut", "event": "email_opened", "context_page_url": text("d")},
            "plan": {"id": "plan", "event": "plan_changed", "context_page_url": text("k")},
            "new": {"id": "new", "event": "email_opened"},
        },
        "identifies": {"i1": {"id": "i1", "bio": text("m")}},
    }
