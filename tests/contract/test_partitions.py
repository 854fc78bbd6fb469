"""A load in partitions makes the same rows as a load in one process, and reads no more from the destination."""

import copy
import dataclasses
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autopilothq.catalog import LATEST, LIMITS, MESSAGE_TABLES, REJECT_REASONS, Type
from autopilothq.projection import RefusedIds, engine, partition
from autopilothq.projection.cells import ParsedCells
from autopilothq.projection.context import ProjectionContext, TableNumbers, name_events
from autopilothq.projection.deduplicate import NOTHING_LEFT_OUT, LeftOut
from autopilothq.projection.line_reader import LineReader
from autopilothq.projection.parse import Parser, number_lines
from autopilothq.projection.partition import (
    LatestFiles,
    NotPartitioned,
    PartitionedLoad,
    PartitionValues,
    StoredColumns,
    count_candidates,
    deduplicate_partition,
    latest_of_partition,
    merge_partitions,
    open_deduplicated,
    partition_cells,
    partition_reader,
    refused_lines_reader,
    save_state,
    write_refused_lines,
)
from autopilothq.projection.tables import TableValues
from autopilothq.projection.types import ColumnValues
from autopilothq.segment.identity import HashedIds, Id, hash_of
from contract.loading import NOW, RECEIVED, Line, Store, batches, filled, identify, message, raw, to_line
from contract.partitioned import Partitioned
from contract.test_books import place_digest

# Rejects, discards, columns of only some messages, numbers that become text, copies, and persons in both partitions.
LINES: list[Line] = [
    "no JSON",
    message(messageId="nobody", userId=" "),
    message(messageId="nul", properties={"note": "a\0b", "email_subject": "c\0d", "日本": "no column"}),
    message(messageId="clock", timestamp="yesterday", properties={"linkURL": "loses", "link_url": "wins"}),
    *(
        message(messageId=f"m{n}", properties={"mixed": n / 2 if n % 2 else n, "late": "a" if n == 5 else n})
        for n in range(6)
    ),
    raw(message("Big", messageId="big", properties={"n": "$n"}), n="1e400"),
    message(messageId="m1", receivedAt="2018-01-01T00:00:00Z"),
    *(
        identify(messageId=f"p{n}", userId=f"u{n % 3}", traits={f"t{n % 2}": n}, receivedAt=f"2019-03-02T00:00:{n:02}Z")
        for n in range(6)
    ),
]
# Later lines, with known and new persons and columns, some in one partition only.
LATER: list[Line] = [
    *LINES,
    *(message(messageId=f"n{n}", properties={"mixed": n / 2, "late": 2, f"x{n // 2}": n, "👍": n}) for n in range(4)),
    raw(message("Bigger", messageId="bigger", properties={"n": "$n"}), n="1e400"),
    *(identify(messageId=f"q{n}", userId=f"v{n}", traits={"t1": n, "t2": "a"}) for n in range(3)),
    identify(messageId="q9", userId="u2", traits={"t1": 7}, receivedAt="2019-03-05T00:00:00Z"),
]


@cache
def both() -> tuple[Store, Partitioned]:
    """The same load in one process and in partitions, after a load that was killed."""
    one, parts = Store(), Partitioned()
    one.run(LINES[:5], LINES[5:])
    one.kill("_discards", "big")
    for name, of in copy.deepcopy(vars(one)).items():
        setattr(parts, name, of)
    one.run([], LATER)
    parts.run([], LATER)
    return one, parts


@pytest.mark.parametrize("what", ["rows", "types", "audit", "beyond_limits"])
def test_partitions_make_the_same_tables(what: str) -> None:
    one, parts = both()
    assert getattr(parts, what) == getattr(one, what)


def test_columns_come_in_the_same_order() -> None:
    one, parts = both()
    assert {table: list(types) for table, types in parts.types.items()} == {
        table: list(types) for table, types in one.types.items()
    }


def test_what_is_refused_or_of_deleted_persons_is_rejected() -> None:
    lines: list[Line] = [
        message(), message(messageId="fine"), identify(messageId="i1", userId="bad"),
        identify(messageId="i2", traits={"a": 1}), identify(messageId="i3", traits={"b": 2}),
        message(type="group", messageId="g1", groupId="worse"), message(messageId="m2", userId="gone"),
        '{"userId": "gone"',
    ]  # fmt: skip
    store = Partitioned()
    store.refused = RefusedIds(
        {"m1": "too long", "i3": "too odd"}, {"users": {"bad": "no"}, "accounts": {"worse": "never"}}
    )
    store.hashes = HashedIds([("salt", hash_of("salt", Id("user_id", "gone")))])
    found = store.run(lines)
    unreadable = {1: "too long", 3: "no", 5: "too odd", 6: "never"}
    suppressed = REJECT_REASONS["suppressed"]
    assert {row["line"]: row["id"] for row in found["_rejects"] if row["reason"] == "unreadable"} == {
        line: place_digest("file 0", line, to_line(lines[line - 1])) for line in unreadable
    }
    assert sorted((row["line"], row["reason"], row["message"], row["raw"]) for row in found["_rejects"]) == [
        *((line, "unreadable", why, to_line(lines[line - 1]).decode()) for line, why in unreadable.items()),
        *((line, "suppressed", suppressed, "") for line in (7, 8)),
    ]
    assert [filled(row) for row in found["users"]] == [{"id": "u1", "a": 1, "received_at": RECEIVED}]
    assert {table: [row["id"] for row in rows] for table, rows in found.items() if table != "_rejects"} == {
        "email_opened": ["fine"], "tracks": ["fine"], "identifies": ["i2"], "users": ["u1"],
    }  # fmt: skip

    store = Partitioned()
    store.refused = RefusedIds({"m1": "too long"}, {})
    found = store.run([message(properties={"odd": 1}), message(messageId="fine")])
    assert [(row["id"], "odd" in row) for row in found["email_opened"]] == [("fine", False)]
    assert [row["message"] for row in found["_rejects"]] == ["too long"]


@pytest.mark.parametrize("long", [False, True])
def test_what_is_stored_of_a_refused_user_is_a_duplicate(long: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where texts of long lines are kept in a file of their own."""
    monkeypatch.setattr(ParsedCells, "has_long_lines", long)
    store = Partitioned()
    store.run([identify(messageId="i1"), message(type="group", messageId="g1", groupId="g")])
    store.refused = RefusedIds({}, {"users": {"u1": "no"}, "accounts": {"g": "never"}})
    lines: list[Line] = [
        identify(messageId="i1"), identify(messageId="i2", traits={"a": 1}), identify(messageId="i3", userId="u2"),
        message(type="group", messageId="g1", groupId="g"), message(type="group", messageId="g2", groupId="g"),
    ]  # fmt: skip
    found = store.run(lines)
    assert sorted((row["line"], row["message"]) for row in found["_rejects"]) == [(2, "no"), (5, "never")]
    [again] = store.audit
    assert (again.lines, again.stored, again.duplicates, again.rejected) == (5, 1, 2, 2)


def test_a_row_that_loses_a_refused_message_is_made_again_of_those_that_are_stored() -> None:
    """The first try of the load may have written the row with that message."""
    store = Partitioned()
    store.run([identify(messageId="i1", traits={"a": 1})])
    store.rows["users"]["u1"]["a"] = 2
    store.refused = RefusedIds({"i2": "no"}, {})
    assert [row["a"] for row in store.run([identify(messageId="i2", traits={"a": 2})])["users"]] == [1]


def test_no_more_of_the_destination_is_cut_than_is_needed() -> None:
    parts = both()[1]
    whole = ("id", "received_at", "uuid_ts")
    assert sorted(parts.asked) == [
        ("_audit", "load_id", "loaded_at"),
        *(("email_opened", "id"), ("email_opened", *whole)),
        *(("identifies", "id"), ("identifies", *whole)),
        *(("tracks", "id", "event"), ("tracks", *whole)),
    ]

    store = Partitioned()
    line = message(sentAt="soon")
    store.run([line, identify(messageId="i1")])
    store.kill("_discards")
    store.run([line, identify(messageId="new")])  # no stored row of `identifies` has to be read
    assert len(store.tables()["_discards"]) == 1
    assert sorted(store.asked) == [
        ("_audit", "load_id", "loaded_at"),
        *(("email_opened", "id"), ("email_opened", *whole)),
        *(("identifies", "id"), ("tracks", "id", "event"), ("tracks", *whole)),
    ]


def test_only_lines_that_may_be_refused_are_kept(tmp_path: Path) -> None:
    lines = [
        message(), message(messageId="m2"), identify(messageId="i1", userId="bad"), identify(messageId="i2"),
        message(type="group", messageId="g1", groupId="worse"), message(type="group", messageId="g2", groupId="fine"),
    ]  # fmt: skip
    refused = RefusedIds({"m1": "no"}, {"users": {"bad": "no"}, "accounts": {"worse": "no"}})
    path, none = tmp_path / "lines", tmp_path / "none"
    with engine.connect(str(tmp_path), 200, 1) as con:
        [batch] = batches([lines])
        files = Parser(str(tmp_path)).parse(LineReader(con), batch).messages
        numbered = number_lines(batch.lines)
        assert write_refused_lines(con, numbered, files, refused, str(path))
        assert not write_refused_lines(con, numbered, files, RefusedIds({"m3": "no"}, {}), str(none))
    assert sorted(pq.read_table(path)["id"].to_pylist()) == ["g1", "i1", "m1"]
    assert not none.exists()


def test_columns_that_nobody_cut_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "event": ["b"]}), tmp_path / "cut")
    given = {"tracks": StoredColumns(["id", "event"], [f"{tmp_path}/cut"]), "users": StoredColumns(["id"], [])}
    read = partition_reader(given, lambda: ["tracks", "pages"])
    assert list(read("users", ["id"])) == []
    assert [batch.to_pylist() for batch in read("tracks", ["event"])] == [[{"event": "b"}]]
    ids = ("id", "received_at", "uuid_ts")
    for table, columns, needed in (
        ("tracks", ["id", "uuid_ts"], {"tracks": ["id", "uuid_ts"], "pages": ["id", "uuid_ts"]}),
        (
            "_audit",
            ["load_id"],
            {"tracks": ids, "pages": ids, "_audit": ["load_id"]},
        ),
    ):
        with pytest.raises(NotPartitioned) as raised:
            list(read(table, columns))
        assert raised.value.args == (needed,)


def test_what_is_known_of_partitions_is_added() -> None:
    values = [TableValues({"a": ColumnValues(bits, bits)}, {}, {f"{bits}": ColumnValues(1, 1)}) for bits in (1, 2, 4)]
    parts = [
        PartitionValues({0: 1, 7: 2}, {7: values[0]}),
        PartitionValues({0: 3}, {7: values[1], 0: values[2]}),
        PartitionValues({}, {}),
        PartitionValues({8: 4}, {}),
    ]
    both = TableValues({"a": ColumnValues(3, 3)}, {}, {"1": ColumnValues(1, 1), "2": ColumnValues(1, 1)})
    assert merge_partitions(iter(parts)) == PartitionValues({0: 4, 7: 2, 8: 4}, {7: both, 0: values[2]})


def test_lines_that_may_be_refused_are_kept(tmp_path: Path) -> None:
    lines: list[Any] = [
        message(), message(messageId="fine"), identify(messageId="i1", userId="bad"), b"no JSON",
        message(type="group", messageId="g1", groupId="worse"), message(messageId="bad"), identify(messageId="worse"),
    ]  # fmt: skip
    files, parser = [str(tmp_path / name) for name in ("it's [a]", "b", "none")], Parser(str(tmp_path))
    with engine.connect(str(tmp_path), 200, 1) as con:
        found = []
        for path, part, refused in (
            (files[0], lines, RefusedIds({"m1": "no"}, {"users": {"bad": "no"}, "accounts": {"worse": "no"}})),
            (files[1], lines[1:2], RefusedIds({"fine": "no"}, {})),
            (files[2], lines[:2], RefusedIds({"other": "no"}, {"users": {}})),
        ):
            [batch] = batches([part])
            cells = parser.parse(LineReader(con), batch)
            found.append(write_refused_lines(con, number_lines(batch.lines), cells.messages, refused, path))
    assert (found, Path(files[2]).exists()) == ([True, True, False], False)
    kept = {row["id"]: row for path in files[:2] for row in pq.read_table(path).to_pylist()}
    texts = {lines[at]["messageId"]: to_line(lines[at]).decode() + "\n" for at in (0, 1, 2, 4)}
    assert {id_: row["text"] for id_, row in kept.items()} == texts
    read, some = refused_lines_reader(files[:2]), ("i1", "fine", "m1")
    assert sorted(read([kept[id_]["seq"] for id_ in some])) == sorted(
        (kept[id_]["seq"], texts[id_].encode()) for id_ in some
    )
    assert list(read([])) == []


def test_a_partition_is_opened_with_what_is_known_of_all(tmp_path: Path) -> None:
    lines = [message(), message(), message("Other", messageId="m2"), message("Other", messageId="m3", userId="gone")]
    known: dict[str, dict[str, Type]] = {"tracks": {"id": "text"}}
    load = PartitionedLoad(
        loaded_at=NOW.isoformat(),
        memory=200,
        partitions=2,
        shorten=str,
        event_table=str,
        existing=known,
        limits=LIMITS["postgres"],
        widths={"tracks": 9},
    )
    with engine.connect(str(tmp_path), 200, 1) as con:
        [batch] = batches([lines])
        cells = Parser(str(tmp_path)).parse(LineReader(con), batch)
        of_part = dataclasses.replace(cells, columns={}, events=Counter())
        assert partition_cells(con, cells, 1, "no folder") == {0: of_part}  # there is only one partition
        context = load.with_cells(cells).open(con, str(tmp_path), of_part)
        together = dataclasses.replace(
            cells, messages=[f"{tmp_path}/no-messages.parquet", *cells.messages], events=Counter(cells.events.keys())
        )
        numbers = TableNumbers.of(name_events(cells.events, str))
        assert context == ProjectionContext(
            con=con,
            scratch=str(tmp_path),
            memory=200,
            cells=together,
            loaded_at=NOW.isoformat(),
            shorten=str,
            event_table=str,
            existing=known,
            limits=LIMITS["postgres"],
            widths={"tracks": 9},
            tables=numbers,
        )
        hashes = HashedIds([("salt", hash_of("salt", Id("user_id", "gone")))])
        counts = count_candidates(context, LeftOut(hashes, RefusedIds({"m2": "no"}, {})))
        assert {context.tables.names[number]: count for number, count in counts.items()} == {"email_opened": 1}
        # Without stored rows to compare with, nothing is read, although there are tables.
        values = deduplicate_partition(context, None, (), NOTHING_LEFT_OUT)
        assert {context.tables.names[number]: count for number, count in values.counts.items()} == {
            "tracks": 1, "email_opened": 1,
        }  # fmt: skip


def test_a_partition_leaves_no_event_without_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def deduplicate(*given: Any, **more: Any) -> None:
        asked.append((*given, more))
        raise InterruptedError

    monkeypatch.setattr(partition, "deduplicate", deduplicate)
    with pytest.raises(InterruptedError):
        deduplicate_partition("context", None, ["1"], NOTHING_LEFT_OUT)  # type: ignore[arg-type]
    # Which events get a table is decided for all partitions together.
    assert asked == [("context", None, ["1"], {"max_event_tables": sys.maxsize})]


def test_plans_are_made_of_data_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "_no_messages", None)  # plans need no such file
    plans = PartitionedLoad(loaded_at=NOW.isoformat(), memory=200, partitions=2, shorten=str, event_table=str).plan(
        {}, [1]
    )
    assert {number: plan.name for number, plan in plans.items()} == {1: "identifies"}


def first_of_two(folder: str) -> tuple[PartitionedLoad, ParsedCells, PartitionValues, dict[str, str]]:
    """Returns a load in two partitions, the first one's cells and state (it lacks a column), and the merged values."""
    lines: list[list[Line]] = [
        ["no JSON", message(), message(), message(messageId="bad"), message(messageId="gone", userId="gone"),
         message(messageId="nul", properties={"note": "a\0b"}), identify(messageId="i1", traits={"a": 1})],
        [message(messageId="elsewhere", properties={"b": 1})],
    ]  # fmt: skip
    together, values, saved = ParsedCells(), [], {}
    hashes, refused = HashedIds([("salt", hash_of("salt", Id("user_id", "gone")))]), RefusedIds({"bad": "too long"}, {})
    with engine.connect(folder, 200, 1) as con:
        parser, reader = Parser(folder), LineReader(con)
        cells = [parser.parse(reader, next(batches([part]))) for part in lines]
        for each in cells:
            together.extend(each)
    load = PartitionedLoad(
        loaded_at=NOW.isoformat(), memory=200, partitions=2, shorten=str, event_table=str
    ).with_cells(together)
    for each in reversed(cells):
        with engine.connect(folder, 200, 1) as con:
            context = load.open(con, folder, each)
            read = lambda numbers: [(number, b"a line") for number in numbers]  # noqa: E731
            values.append(deduplicate_partition(context, None, (), LeftOut(hashes, refused, read)))
            saved = save_state(context, folder)
    return load, cells[0], merge_partitions(values), saved


def test_what_one_worker_knows_of_a_partition_another_goes_on_with(tmp_path: Path) -> None:
    first, second, latest = (str(tmp_path / name) for name in ("first", "second", "latest"))
    Path(first).mkdir()
    Path(second).mkdir()
    load, cells, merged, saved = first_of_two(first)
    books = ("rejects", "discards", "refused", "suppressed", "duplicates")
    assert saved == {table: f"{first}/{table}.parquet" for table in books}
    plans = load.plan(merged.values, merged.counts)
    users, identifies = LATEST[0], MESSAGE_TABLES.index(LATEST[0].messages)
    with engine.connect(second, 200, 1) as con:
        rows = open_deduplicated(load, con, second, cells, saved, plans)
        found = {made.table: made.relation.to_arrow_table().to_pylist() for made in rows.tables()}
        assert {table: [(row["id"], row.get("b", 0)) for row in of] for table, of in found.items()} == {
            "email_opened": [("m1", None), ("nul", None)], "tracks": [("m1", 0), ("nul", 0)], "identifies": [("i1", 0)],
        }  # fmt: skip
        assert rows.rejects_by_reason() == {"not_json": 1, "unreadable": 1, "suppressed": 1}
        assert rows.discards() is not None
        assert rows.discarded() == [("not_text", "email_opened", 1)]
        made_of = rows.partition_latest(users, plans[identifies], latest, 1)
        assert rows.partition_latest(LATEST[1], plans[identifies], f"{latest}/none", 1) == LatestFiles({}, {})
    with engine.connect(first, 200, 1) as con:
        types = plans[identifies].types
        context = dataclasses.replace(load, existing={"identifies": types}).open(con, first, ParsedCells())
        files = made_of.messages[0]
        stored = StoredColumns(list(types), files)
        # From this load's messages, from stored ones, and from none.
        for made in (
            latest_of_partition(context, users, made_of.ids[0], files, types, None),
            latest_of_partition(context, users, [], [], types, stored),
        ):
            assert [filled(row) for row in made.relation.to_arrow_table().to_pylist()] == [
                {"id": "u1", "a": 1, "received_at": RECEIVED}
            ]
        none = latest_of_partition(context, users, [], [], types, None)
        assert (none.table, none.row_count, none.columns) == ("users", 0, made.columns)
