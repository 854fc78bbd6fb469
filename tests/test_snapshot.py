"""What a scan of an account makes of one table: records and what is stored in, rows and discards out."""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from autopilothq.catalog import CONTACTS, Type
from autopilothq.projection import ReadTable, Snapshot, TableRows
from autopilothq.projection.types import ARROW
from autopilothq.segment.message import Discard, Record
from contract.loading import Row, filled

SCAN = datetime(2024, 1, 1, tzinfo=UTC)
LOADED = SCAN + timedelta(hours=1)
EARLIER, LATER = SCAN - timedelta(minutes=1), SCAN + timedelta(minutes=1)
TYPES: dict[str, Type] = {
    "contact_id": "text", "received_at": "timestamp", "uuid_ts": "timestamp", "deleted_at": "timestamp",
    "updated_at": "timestamp", "phone": "text",
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
    """Reads `contacts`, in batches of two rows."""

    def read(table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        assert table == "contacts"
        found = [{name: row.get(name) for name in columns} for row in rows]
        schema = pa.schema([(name, ARROW[TYPES[name]]) for name in columns])
        yield from pa.Table.from_pylist(found, schema).to_batches(max_chunksize=2)

    return read


def rows_of(made: TableRows | None) -> list[dict[str, Any]]:
    assert made is not None
    found = sorted(map(filled, made.relation.to_arrow_table().to_pylist()), key=str)
    assert len(found) == made.number
    return found


def test_of_a_key_the_last_record_stays_with_what_it_lost(contacts: Snapshot) -> None:
    lost = [Discard("a", "1", "does_not_fit"), Discard("a", "1", "same_column"), Discard("b", "2", "no_column")]
    contacts.add([record("1", Discard("a", "of the first", "no_column"), phone='"first"'), record("2", *lost, *lost)])
    contacts.add([record("1", phone='"last"')])
    assert rows_of(contacts.rows({})) == [
        {"contact_id": "1", "received_at": SCAN, "phone": "last"}, {"contact_id": "2", "received_at": SCAN},
    ]  # fmt: skip
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


def test_stored_rows_that_a_whole_scan_did_not_find_are_marked_once(contacts: Snapshot) -> None:
    contacts.add([record("found", phone='"new"'), record("back")])
    stored = [
        {"contact_id": "found", "received_at": EARLIER, "phone": "old"},
        {"contact_id": "back", "received_at": EARLIER, "deleted_at": EARLIER},
        {"contact_id": "gone", "received_at": EARLIER, "phone": "1", "updated_at": EARLIER, "uuid_ts": EARLIER},
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
        {"contact_id": "gone", "received_at": EARLIER, "deleted_at": SCAN, "updated_at": EARLIER, "phone": "1"},
    ]


def test_a_scan_that_finds_nothing_marks_all(contacts: Snapshot) -> None:
    gone = {"contact_id": "gone", "received_at": EARLIER}
    assert rows_of(contacts.rows(TYPES, reading(gone))) == [gone | {"deleted_at": SCAN}]
    assert contacts.discards() is None
