"""A scan's records and the stored rows of a snapshot table become new rows and discards."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autopilothq.catalog import CONTACTS, LISTS_CONTACTS, ORTTO_PEOPLE, Type
from autopilothq.projection import ReadTable, Snapshot, SnapshotTarget, TableRows, context, engine, snapshot
from autopilothq.projection.context import declared_types
from autopilothq.projection.types import ARROW
from autopilothq.segment.identity import HashedIds, Id, hash_of
from autopilothq.segment.message import Discard, Record
from contract.loading import Row, filled

SCAN = datetime(2024, 1, 1, tzinfo=UTC)
LOADED = SCAN + timedelta(hours=1)
EARLIER, LATER = SCAN - timedelta(minutes=1), SCAN + timedelta(minutes=1)
TYPES: dict[str, Type] = {
    "contact_id": "text", "received_at": "timestamp", "uuid_ts": "timestamp", "deleted_at": "timestamp",
    "updated_at": "timestamp", "phone": "text", "old": "bigint",
}  # fmt: skip


@pytest.fixture
def contacts(tmp_path: Path) -> Iterator[Snapshot]:
    found = Snapshot(CONTACTS, SCAN, LOADED, str(tmp_path))
    yield found
    found.close()


def record(id_: str, *discards: Discard, **cells: str) -> Record:
    return Record((id_,), {"contact_id": f'"{id_}"', **cells}, list(discards), {})


def changed(time: datetime) -> str:
    return f'"{time:%Y-%m-%dT%H:%M:%SZ}"'


def reading(*rows: Row) -> ReadTable:
    """Returns a reader of stored `contacts` or `lists_contacts`, in batches of two rows."""

    def read(table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        assert table == ("lists_contacts" if "list_id" in columns else "contacts")
        found = [{name: row.get(name) for name in columns} for row in rows]
        schema = pa.schema([(name, ARROW[TYPES.get(name, "text")]) for name in columns])
        yield from pa.Table.from_pylist(found, schema).to_batches(max_chunksize=2)

    return read


def rows_of(made: TableRows | None) -> list[dict[str, Any]]:
    assert made is not None
    table = made.relation.to_arrow_table()
    assert (table.num_rows, table.column_names) == (made.row_count, list(made.columns))
    return sorted(map(filled, table.to_pylist()), key=str)


def discards_of(snapshot: Snapshot) -> list[tuple[str, str, str, str, str]]:
    made = snapshot.discards()
    assert made is not None
    assert made.table == "_discards"
    names = ("table_name", "row_id", "column_name", "value", "reason")
    return sorted(tuple(row[name] for name in names) for row in rows_of(made))


def test_large_cells_need_no_memory_for_those_of_all_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "SNAPSHOT_COLUMN_MEMORY", 0)
    monkeypatch.setattr(snapshot, "MOST_BYTES", 1 << 20)
    monkeypatch.setattr(context, "ALONE_MEMORY", 0)
    monkeypatch.setattr(context, "GROUP_BYTES", 1 << 20)
    phones = {f"c{n}": f"{n} ".ljust(300_000, "e") for n in range(120)}
    contacts = Snapshot(CONTACTS, SCAN, LOADED, str(tmp_path), memory=30)
    for ids in engine.batched(phones, 60):
        contacts.add([record(id_, phone=json.dumps(phones[id_])) for id_ in ids])
    contacts.rows({}).write(str(tmp_path / "rows"))
    contacts.close()
    found = pq.read_table(tmp_path / "rows", columns=["contact_id", "phone"]).to_pylist()
    assert {row["contact_id"]: row["phone"] for row in found} == phones


def test_of_a_key_the_last_record_stays_with_what_it_lost(contacts: Snapshot) -> None:
    lost = [Discard("a", "1", "does_not_fit"), Discard("a", "1", "same_column"), Discard("b", "2", "no_column")]
    contacts.add([record("2", *lost, *lost), record("1", Discard("a", "of the first", "no_column"), phone='"first"')])
    contacts.add([record("1", phone='"last"')])
    contacts.add([record("3")])
    made = contacts.rows({})
    assert (made.table, made.columns.keys() - declared_types(CONTACTS).keys()) == ("contacts", set())
    assert rows_of(made) == [
        {"contact_id": "1", "received_at": SCAN, "phone": "last"},
        {"contact_id": "2", "received_at": SCAN},
        {"contact_id": "3", "received_at": SCAN},
    ]
    assert rows_of(contacts.discards()) == sorted(
        [
            {
                "id": hashlib.sha256(f"contacts\n2\n{column}\n{value}".encode()).hexdigest(),
                "table_name": "contacts",
                "row_id": "2",
                "column_name": column,
                "value": value,
                "reason": reason,
                "received_at": SCAN,
                "discarded_at": LOADED,
            }
            for column, value, reason in (("a", "1", "does_not_fit"), ("b", "2", "no_column"))
        ],
        key=str,
    )


def test_a_record_stays_out_where_a_later_change_came_while_the_scan_ran(contacts: Snapshot) -> None:
    contacts.add([record("changed", updated_at=changed(LATER)), record("twice", updated_at=changed(LATER))])
    contacts.add(
        [record(id_, updated_at=changed(SCAN)) for id_ in ("changed", "same", "before", "began", "new", "unknown")]
    )
    contacts.add([record("never"), record("twice", updated_at=changed(LATER))])
    stored = [
        {"contact_id": "changed", "received_at": LATER, "updated_at": LATER},
        {"contact_id": "twice", "received_at": LATER, "updated_at": LATER},
        {"contact_id": "same", "received_at": LATER, "updated_at": SCAN},
        {"contact_id": "before", "received_at": LATER, "updated_at": EARLIER},
        {"contact_id": "began", "received_at": SCAN, "updated_at": LATER},
        {"contact_id": "unknown", "received_at": LATER},
        {"contact_id": "never", "received_at": LATER, "updated_at": LATER},
        {"contact_id": "not scanned", "received_at": LATER, "updated_at": LATER},
    ]
    found = rows_of(contacts.rows(TYPES, newer=reading(*stored)))
    assert [row["contact_id"] for row in found] == ["before", "began", "never", "new", "same", "twice", "unknown"]


def unread(*_: object) -> Iterator[pa.RecordBatch]:
    raise AssertionError


@pytest.mark.parametrize(
    ("known", "readers"),
    [({"contact_id": "text"}, {"newer": unread}), (TYPES, {}), ({}, {"stored": unread})],
)
def test_what_the_destination_cannot_tell_is_not_asked_for(
    contacts: Snapshot, known: dict[str, Type], readers: dict[str, ReadTable]
) -> None:
    contacts.add([record("1", updated_at=changed(SCAN))])
    assert len(rows_of(contacts.rows(known, **readers))) == 1


def test_records_that_do_not_say_when_they_changed_stay(contacts: Snapshot) -> None:
    contacts.add([record("1")])
    stored = {"contact_id": "1", "received_at": LATER, "updated_at": LATER}
    assert len(rows_of(contacts.rows(TYPES, newer=reading(stored)))) == 1


def test_stored_rows_that_a_whole_scan_did_not_find_are_marked_once(contacts: Snapshot) -> None:
    contacts.add([record("found", phone='"new"'), record("back")])
    stored = [
        {"contact_id": "found", "received_at": EARLIER, "phone": "old"},
        {"contact_id": "back", "received_at": EARLIER, "deleted_at": EARLIER},
        {"contact_id": "gone", "received_at": EARLIER, "phone": "1", "updated_at": EARLIER, "old": 5, "uuid_ts": LATER},
        {"contact_id": "gone before", "received_at": EARLIER, "deleted_at": EARLIER},
        {"contact_id": "came as it began", "received_at": SCAN},
        {"contact_id": "came later", "received_at": LATER},
        {"contact_id": "gone too", "received_at": EARLIER},
    ]
    made = contacts.rows(TYPES, reading(*stored))
    assert {row["uuid_ts"] for row in made.relation.to_arrow_table().to_pylist()} == {LOADED}
    assert rows_of(made) == [
        {"contact_id": "back", "received_at": SCAN},
        {"contact_id": "found", "received_at": SCAN, "phone": "new"},
        {"contact_id": "gone too", "received_at": EARLIER, "deleted_at": SCAN},
        {
            "contact_id": "gone",
            "received_at": EARLIER,
            "deleted_at": SCAN,
            "updated_at": EARLIER,
            "phone": "1",
            "old": 5,
        },
    ]


def test_a_scan_that_finds_nothing_marks_all(contacts: Snapshot) -> None:
    gone = {"contact_id": "gone", "received_at": EARLIER}
    assert rows_of(contacts.rows(TYPES, reading(gone))) == [gone | {"deleted_at": SCAN}]
    assert contacts.discards() is None


def test_columns_that_are_known_of_old_come_with_rows_that_need_them_alone(contacts: Snapshot) -> None:
    contacts.add([record("1")])
    assert "old" not in contacts.rows(TYPES, reading({"contact_id": "1", "received_at": EARLIER, "old": 5})).columns


def test_a_column_has_the_type_that_it_had_else_the_declared_one_else_that_of_its_values(tmp_path: Path) -> None:
    contacts = Snapshot(
        CONTACTS, SCAN, LOADED, str(tmp_path), target=SnapshotTarget(lambda name: name.replace(" ", "_"))
    )
    both: dict[str, Type] = {"of one": "double", "of two": "double", "had it": "double", "phone": "bigint"}
    zulu, offset = '"2020-01-02T03:04:05Z"', '"2020-01-02T03:04:05+01:00"'
    contacts.add(
        [
            record("1", **{"of one": "1", "of two": "1", "of none": "1", "had it": "1"})._replace(declared=both),
            record("2", **{"of two": "2", "of none": "1.5", "had it": '"x"'})._replace(declared={"of two": "text"}),
            record("3", custom_born=zulu, seen=offset, created_at=zulu, unsubscribed="true", received_at=zulu),
            record("4", custom_born=offset, seen="1", created_at=offset, unsubscribed="7", received_at=offset)
            ._replace(declared={"custom_born": "timestamp", "seen": "timestamp"}),
        ]
    )  # fmt: skip
    made = contacts.rows({"had_it": "bigint"})
    assert {name: of for name, of in made.columns.items() if name not in declared_types(CONTACTS)} == {
        "of_one": "double", "of_two": "bigint", "of_none": "double", "had_it": "bigint",
        "custom_born": "timestamp", "seen": "timestamp",
    }  # fmt: skip
    three, two = (datetime(2020, 1, 2, hour, 4, 5, tzinfo=UTC) for hour in (3, 2))
    assert rows_of(made) == [
        {"contact_id": "1", "received_at": SCAN, "of_one": 1.0, "of_two": 1, "of_none": 1.0, "had_it": 1},
        {"contact_id": "2", "received_at": SCAN, "of_two": 2, "of_none": 1.5},
        {"contact_id": "3", "received_at": three, "custom_born": three, "seen": two, "created_at": three,
         "unsubscribed": True},
        {"contact_id": "4", "received_at": SCAN},
    ]  # fmt: skip
    assert discards_of(contacts) == [
        ("contacts", "2", "had it", '"x"', "does_not_fit"),
        ("contacts", "4", "created_at", offset, "not_a_time"),
        ("contacts", "4", "custom_born", offset, "not_a_time"),
        ("contacts", "4", "seen", "1", "does_not_fit"),
        ("contacts", "4", "unsubscribed", "7", "does_not_fit"),
    ]
    contacts.close()


def test_each_of_many_columns_has_a_type_of_its_own(contacts: Snapshot) -> None:
    cells = {f"x{n}": "true" if n % 7 else f"{n}" for n in range(60)}
    contacts.add([record("1", **cells)])
    [row] = rows_of(contacts.rows({"x49": "text", "x50": "bool"}))
    assert {name: row[name] for name in cells} == {name: json.loads(cell) for name, cell in cells.items()} | {
        "x49": "49"
    }


def test_a_column_that_no_room_is_left_for_is_discarded(tmp_path: Path) -> None:
    contacts = Snapshot(CONTACTS, SCAN, LOADED, str(tmp_path), target=SnapshotTarget(str.lower, ["there"], 2))
    contacts.add([record("1", phone='"5"', a="1", There="2", b="3", c="4", d="5")])
    contacts.add([record("2", a="6", c='"7"', There="8")])
    assert rows_of(contacts.rows({})) == [
        {"contact_id": "1", "received_at": SCAN, "phone": "5", "a": 1, "there": 2, "b": 3},
        {"contact_id": "2", "received_at": SCAN, "a": 6, "there": 8},
    ]
    assert discards_of(contacts) == [
        ("contacts", id_, name, value, "too_many_columns")
        for id_, name, value in (("1", "c", "4"), ("1", "d", "5"), ("2", "c", '"7"'))
    ]
    contacts.close()


def test_what_a_record_lost_goes_with_it(contacts: Snapshot) -> None:
    contacts.add([record("1", Discard("a", "1", "no_column"), updated_at=changed(EARLIER))])
    stored = {"contact_id": "1", "received_at": LATER, "updated_at": LATER}
    assert rows_of(contacts.rows(TYPES, newer=reading(stored))) == []
    assert contacts.discards() is None


def test_records_of_deleted_persons_are_left_out(tmp_path: Path) -> None:
    gone = Id("contact_id", "gone"), Id("email", "gone@example.com"), Id("user_id", "gone")
    hashes = HashedIds([("salt", hash_of("salt", id_)) for id_ in gone])
    people = Snapshot(ORTTO_PEOPLE, SCAN, LOADED, str(tmp_path), suppressed=hashes)
    assert people.left_out == 0
    people.add([record("gone"), record("1", email='"Gone@example.com"'), record("2", email="7", phone='"gone"')])
    people.add([record("3", external_id='"gone"')])
    people.add([record("4", name='"gone"')])
    assert people.left_out == 3
    assert [row["contact_id"] for row in rows_of(people.rows({}))] == ["2", "4"]
    people.close()


def test_a_record_that_two_ids_tell_apart(tmp_path: Path) -> None:
    def member(list_: str, contact: str, *discards: Discard) -> Record:
        cells = {"list_id": f'"{list_}"', "contact_id": f'"{contact}"'}
        return Record((list_, contact), cells, list(discards), {})

    stored = [{"list_id": id_[0], "contact_id": id_[1], "received_at": EARLIER} for id_ in ("ax", "ay", "bx")]
    scratch = tmp_path / "it's [1]*"
    scratch.mkdir()
    members = Snapshot(LISTS_CONTACTS, SCAN, LOADED, str(scratch))
    members.add([member("a", "x"), member("a", "y", Discard("n", "1", "no_column")), member("a", "x")])
    assert rows_of(members.rows({"list_id": "text", **TYPES}, reading(*stored))) == [
        {"list_id": "a", "contact_id": "x", "received_at": SCAN},
        {"list_id": "a", "contact_id": "y", "received_at": SCAN},
        stored[2] | {"deleted_at": SCAN},
    ]
    assert discards_of(members) == [("lists_contacts", "a y", "n", "1", "no_column")]
    members.close()
    nobody = Snapshot(LISTS_CONTACTS, SCAN, LOADED, str(tmp_path))
    assert rows_of(nobody.rows({})) == []
    nobody.close()


def test_the_engine_gets_more_memory_for_more_columns(contacts: Snapshot, tmp_path: Path) -> None:
    columns = contacts.rows({}).columns
    settings = "SELECT current_setting('memory_limit'), current_setting('temp_directory')"
    with engine.connect(str(tmp_path), 200 + 3 * len(columns), 1) as other:
        assert contacts._context.con.sql(settings).fetchall() == other.sql(settings).fetchall()
