"""Messages that a destination refused are remembered and left out of later loads."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from autopilothq.errors import RunError
from autopilothq.projection import TableRows
from autopilothq.sources import isolate, refused
from autopilothq.sources.refused import RefusedMessages
from refusals import NOON, files_of, pipeline_at, relation_of


def test_what_is_refused_is_kept_for_its_destination(tmp_path: Path) -> None:
    place = pipeline_at(tmp_path)
    target = "duckdb d, dataset set"
    assert RefusedMessages.read(place) == RefusedMessages(target)
    one = RefusedMessages(
        target, ["2019-03-01T12:00:00+00:00"], {"m": "w"}, {"u": "w"}, {"a": "w"}, {"_rejects": {"k": "w"}}
    )
    one.write(place)
    assert RefusedMessages.read(place) == one
    assert RefusedMessages.read(pipeline_at(tmp_path, "other")) == RefusedMessages("duckdb other, dataset set")
    path = tmp_path / "autopilothq-refused" / "refused.json"
    assert (os.listdir(path.parent), oct(path.stat().st_mode & 0o777)) == (["refused.json"], "0o600")
    assert json.loads(path.read_bytes())["place"] == target
    (tmp_path / "state.json").touch()
    refused.drop(place)
    assert ((tmp_path / "state.json").exists(), path.parent.exists()) == (True, False)
    refused.drop(place)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"place":"duckdb d, dataset set","other":1}'])
def test_a_damaged_file_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    told: list[str] = []
    monkeypatch.setattr("autopilothq.sources.refused.logger.warning", told.append)
    path = tmp_path / "autopilothq-refused" / "refused.json"
    path.parent.mkdir()
    path.write_bytes(content)
    assert RefusedMessages.read(pipeline_at(tmp_path)) == RefusedMessages("duckdb d, dataset set")
    assert [text.startswith(f"{path} cannot be read, and is ignored: ") for text in told] == [True]


def test_what_a_complete_load_left_out_is_not_left_out_again(tmp_path: Path) -> None:
    place = pipeline_at(tmp_path)
    empty = RefusedMessages("duckdb d, dataset set")
    assert RefusedMessages.begin(place, lambda: pytest.fail("not asked"), "1") == empty
    assert not (tmp_path / "autopilothq-refused").exists()
    RefusedMessages("duckdb d, dataset set", messages={"m": "w"}).write(place)
    for load in ("1", "2"):  # the first load was not complete
        found = RefusedMessages.begin(place, lambda: {"0"}, load)
        assert (found.messages, found.load_id) == ({"m": "w"}, load)
        assert RefusedMessages.read(place) == found
    assert RefusedMessages.begin(place, lambda: {"2"}, "3") == empty


def test_a_row_of_the_books_is_first_emptied_and_then_left_out() -> None:
    one = RefusedMessages("d")
    one.add_rows("_rejects", {"a": "1", "b": "2"})
    one.add_rows("_discards", {"a": "3"})
    one.add_rows("_rejects", {"b": "4"})
    one.add_rows("_audit", {"a": "5"})
    assert one.emptied == {"_rejects": {"a": "1", "b": "2"}, "_discards": {"a": "3"}}
    assert one.left_out == {"_rejects": {"b": "4"}, "_audit": {"a": "5"}}
    assert (len(one), bool(one), bool(RefusedMessages("d"))) == (5, True, False)
    assert refused.key(["a", 1, None]) == "a\n1\nNone"


def test_what_is_refused_is_left_out_by_its_id() -> None:
    found = RefusedMessages("d", messages={"m": "bad"}, users={"u": "evil"}, accounts={"g": "gone"})
    assert found.ids == ({"m": "bad"}, {"users": {"u": "evil"}, "accounts": {"g": "gone"}})


@pytest.mark.parametrize(("required", "wrong"), [(["id", "number"], None), (["id", "mine\n"], r"mine\n")])
def test_a_lakes_column_that_is_required_and_that_no_row_has_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, required: list[str], wrong: str | None
) -> None:
    files = files_of(tmp_path, {"id": ["a"]}, {"id": ["b"], "number": [1]}).files
    into: Any = SimpleNamespace(destination_client=lambda: "a lake")
    isolate.check_required(into, "tracks", files)  # warehouses report such columns themselves
    monkeypatch.setattr(isolate, "FilesystemClient", str)
    monkeypatch.setattr(isolate, "required_columns", lambda *of: {("a lake", "tracks"): required}[of])
    if wrong is None:
        isolate.check_required(into, "tracks", files)
        return
    with pytest.raises(RunError) as raised:
        isolate.check_required(into, "tracks", files)
    assert str(raised.value) == (
        f"Expected nulls to be allowed in the column {wrong} of tracks, which no message has, but somebody made it"
        " required.\nAllow them (ALTER TABLE ... ALTER COLUMN ... DROP NOT NULL), or drop the column. Nothing of it"
        " counts as loaded."
    )


def test_rows_are_handed_over_without_what_was_refused() -> None:
    sql = "FROM (VALUES ('a', 'x', NULL), ('b', 'y', 'm'), ('c''', 'z', NULL), (NULL, 'w', NULL)) t(id, raw, message)"
    rows = TableRows("_rejects", {"id": "text", "raw": "text", "message": "text"}, relation_of(sql), 4)
    one = RefusedMessages(
        "d", emptied={"_rejects": {"a": "it's", "b": "bad"}}, left_out={"_rejects": {"b": "w", "c'": "w"}}
    )
    found = one.without(rows)
    assert (found.relation.fetchall(), found.row_count) == ([("a", "", "it's"), (None, "w", None)], 2)
    assert RefusedMessages("d").without(rows) is rows
    sql = "FROM (VALUES ('x', 1), ('x', 2)) t(list_id, contact_id)"
    two = TableRows("lists_contacts", {"list_id": "text", "contact_id": "bigint"}, relation_of(sql), 2)
    left = RefusedMessages("d", left_out={"lists_contacts": {"x\n2": "w"}}).without(two)
    assert (left.relation.fetchall(), left.row_count) == ([("x", 1)], 1)
    values = TableRows("_discards", {"id": "text", "value": "text"}, relation_of("SELECT 'a' id, 'v' AS value"), 1)
    assert RefusedMessages("d", emptied={"_discards": {"a": "w"}}).without(values).relation.fetchall() == [("a", "")]


def test_what_failed_loads_stored_counts_as_new() -> None:
    times_ = [NOON.replace(microsecond=microsecond) for microsecond in (1000, 1999, 2000)]
    batch = pa.record_batch({"id": ["a", "b", "c"], "uuid_ts": pa.array(times_, pa.timestamp("us", "UTC"))})
    asked = []

    def read(table: str, columns: Any) -> Iterator[pa.RecordBatch]:
        asked.append((table, list(columns)))
        yield batch.select(list(columns))

    attempts = [NOON.replace(microsecond=1500).isoformat()]
    known: Any = {"tracks": {"id": "text", "uuid_ts": "timestamp"}, "old": {"id": "text"}}
    unseen = RefusedMessages("d", attempts).unseen(read, known)
    found = [
        [part.to_pylist() for part in unseen(*asks)]
        for asks in (("tracks", ["id"]), ("old", ["id"]), ("unknown", ["id"]))
    ]
    assert found == [[[{"id": "c"}]], *[[[{"id": "a"}, {"id": "b"}, {"id": "c"}]]] * 2]
    assert [part.to_pylist() for part in unseen("tracks", ["id", "uuid_ts"])] == [[{"id": "c", "uuid_ts": times_[2]}]]
    assert asked == [("tracks", ["id", "uuid_ts"]), ("old", ["id"]), ("unknown", ["id"]), ("tracks", ["id", "uuid_ts"])]
    assert RefusedMessages("d").unseen(read, known) is read
