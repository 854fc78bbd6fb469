"""Messages restore cut texts of adopted rows, with a destination in memory (docs/contract/adopt.md#cut-text)."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache

import pyarrow as pa
import pytest

from autopilothq.projection import TableRows, cells, mend, parse
from contract.loading import NOW, Line, Row, Store, batches, filled, identify, message, new_projection

LONG = "https://example.com/" + "a" * 600
CUT = LONG[:512]
ADOPTED = NOW.replace(year=2020)
LOADED = NOW.replace(year=2021, microsecond=123456)
STORED: list[Line] = [
    message(messageId="m1", properties={"note": CUT, "campaign_name": CUT, "score": 5}),
    message(messageId="m2", properties={"note": "b" * 512, "campaign_name": LONG[:511]}),
    message(messageId="m3", properties={"note": CUT}),
    message(messageId="gone", properties={"note": CUT}),
    identify(messageId="i1", traits={"bio": CUT, "plan": "free"}),
    message("Other", messageId="o1", properties={"note": CUT, "email_subject": CUT}),
    message(type="page", messageId="p1"),  # the later load has no pages
    message(type="screen", messageId="s1", name=CUT),
]
LINES: list[Line] = [
    message(messageId="m1", properties={"note": LONG, "campaign_name": LONG, "score": LONG, "late": LONG}),
    message(messageId="m2", properties={"note": LONG, "campaign_name": LONG}),
    message(messageId="m3", properties={"note": LONG}),
    message(messageId="m1", properties={"note": LONG + "later"}, receivedAt="2020-01-01T00:00:00Z"),
    message(messageId="new", properties={"note": LONG, "fresh": 1}),
    identify(messageId="i1", traits={"bio": LONG, "plan": "free"}),
    message("Other", messageId="o1", properties={"note": LONG, "email_subject": LONG}),
]
IRREGULAR: list[Line] = [
    message(messageId="m1", properties={"note": LONG, "campaign_name": LONG, "Odd Key": 1, "odd_key": 2}),
    message(messageId="m3", properties={"note": LONG}),
    identify(messageId="i1", traits={"bio": LONG}),
    message("Other", messageId="o1", properties={"note": LONG, "email_subject": LONG, "Odd Key": 1, "odd_key": 2}),
    message(type="screen", messageId="s1", name=LONG, properties={"Odd Key": 1, "odd_key": 2}),
]


class Adopted(Store):
    """A destination with adopted rows of STORED; only those of `m3` were made by a load."""

    def __init__(self) -> None:
        super().__init__()
        self.run(STORED)
        self.types.pop("_audit")
        for table, rows in self.rows.items():
            for id_, row in rows.items() if table != "_audit" else ():
                row["uuid_ts"] = LOADED if id_ == "m3" else ADOPTED
        self.types["tracks"]["campaign_name"] = "text"  # loads never give `tracks` such a column
        for row in self.rows["tracks"].values():
            row["campaign_name"] = CUT
        self.asked: dict[tuple[str, ...], list[Sequence[str]]] = {}
        self.mended: dict[str, int] = {}
        self.lengths: dict[str, dict[str, int]] = {}
        self.made: dict[str, list[Row]] = {}

    def mend(self, lines: Sequence[Line], tables: Sequence[str], loads: Sequence[datetime], leave: str = "") -> None:
        """Loads the lines; keeps the rows for dlt in `made`."""
        scratch = tempfile.mkdtemp()
        projection = new_projection(scratch)
        try:
            for batch in batches([lines]):
                projection.add(batch)
            found = projection.deduplicate(self.types, self._read)
            found.find_mends(self._read_rows, tables, loads)
            self.mended = found.mended()
            self.lengths = {table: found.mended_lengths(table) for table in self.mended}
            if leave:
                found.drop_mends(leave)
            for rows in (*found.with_mended_rows(self._read_rows), *found.latest(self._read)):
                self.made[rows.table] = _rows(rows)
            self.audit = sorted(found.counts())
        finally:
            projection.close()
            shutil.rmtree(scratch)

    def _read_rows(self, table: str, columns: Sequence[str], ids: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        self.asked.setdefault((table, *columns), []).append(sorted(ids))
        return self._read(table, columns)


def _rows(rows: TableRows) -> list[Row]:
    found = rows.relation.to_arrow_table().to_pylist()
    assert (len(found), list(found[0])) == (rows.row_count, list(rows.columns)), rows.table
    return sorted(({"uuid_ts": row["uuid_ts"], **filled(row)} for row in found), key=lambda row: str(row["id"]))


CALL = ["email_opened", "identifies", "pages", "tracks"], [LOADED.replace(microsecond=123999)]


@cache
def mended() -> Adopted:
    store = Adopted()
    store.mend(LINES, *CALL)
    return store


def test_texts_of_long_lines_become_whole_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "MOST_BYTES", 0)
    monkeypatch.setattr(parse, "LONG_LINE", 0)
    monkeypatch.setattr(mend, "MOST_BYTES", 1)  # one row at a time
    store = Adopted()
    store.mend(LINES, *CALL)
    assert (store.made, store.lengths, store.audit) == (mended().made, mended().lengths, mended().audit)


def stored(table: str, id_: str, **whole: str) -> Row:
    """Returns the row as it was adopted, but with these whole texts."""
    row = mended().rows[table][id_]
    return {"uuid_ts": row["uuid_ts"], **filled(row), **whole}


def test_a_cut_text_of_an_adopted_row_becomes_whole() -> None:
    store = mended()
    assert store.mended == {"identifies": 1, "email_opened": 1}
    assert store.lengths == {"identifies": {"bio": 620}, "email_opened": {"note": 620, "campaign_name": 620}}
    assert store.made["identifies"] == [stored("identifies", "i1", bio=LONG)]
    m1, new = store.made["email_opened"]
    assert m1 == stored("email_opened", "m1", note=LONG, campaign_name=LONG)
    assert (new["id"], new["uuid_ts"], new["note"], new["fresh"]) == ("new", NOW, LONG, 1)
    assert [row["id"] for row in store.made["tracks"]] == ["new"]
    assert [(row["id"], row["bio"], row["plan"]) for row in store.made["users"]] == [("u1", LONG, "free")]
    assert store.made.keys() == {"identifies", "email_opened", "tracks", "users"}
    [count] = store.audit
    assert (count.lines, count.stored, count.duplicates, count.mended) == (7, 1, 6, 3)


def test_only_what_may_be_cut_is_asked_for() -> None:
    asked = {key: ids for key, ids in mended().asked.items() if len(key) < 7}
    rows = {key[0]: ids for key, ids in mended().asked.items() if len(key) >= 7}
    first = ("id", "received_at", "uuid_ts")
    assert asked == {
        ("identifies", *first, "bio"): [["i1"]],
        ("email_opened", *first, "campaign_name", "note"): [["m1", "m2", "m3", "new"]],
    }
    assert rows == {"identifies": [["i1"]], "email_opened": [["m1", "new"]]}


def test_values_that_wait_as_rows_and_texts_that_are_left_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mend, "TEXTS_PER_QUERY", 1)
    monkeypatch.setattr(mend, "MOST_IDS", 1)
    store = Adopted()
    del store.types["identifies"]["uuid_ts"]  # without it, loaded and adopted rows cannot be told apart
    store.mend(IRREGULAR, ["email_opened", "identifies", "other", "screens"], [], leave="other")
    assert store.mended == {"email_opened": 2, "other": 1, "screens": 1}
    assert store.lengths == {
        "screens": {"name": 620},
        "email_opened": {"note": 620, "campaign_name": 620},
        "other": {"note": 620, "email_subject": 620},
    }
    assert [row["bio"] for row in store.made.pop("users")] == [CUT]
    assert store.made.pop("screens") == [stored("screens", "s1", name=LONG)]
    assert store.made == {
        "email_opened": [
            stored("email_opened", "m1", note=LONG, campaign_name=LONG),
            stored("email_opened", "m3", note=LONG),
        ]
    }
    assert {(key[0], *key[4:]): ids for key, ids in store.asked.items() if len(key) < 6} == {
        ("email_opened", "campaign_name"): [[]],
        ("email_opened", "note"): [[]],
        ("other", "email_subject"): [["o1"]],
        ("other", "note"): [["o1"]],
        ("screens", "name"): [["s1"]],
    }
