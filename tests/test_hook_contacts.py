"""Contacts that hooks brought, in `contacts`: with the rows of a scan, and never worse than these."""

import gzip
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest

import autopilothq
from autopilothq.receive.autopilot_hooks import hook_lines
from autopilothq.receive.messages import Arrival, parse_body
from autopilothq.segment.message import Rejected, parse_json
from autopilothq.sources.archive import hook_contacts
from autopilothq.sources.archive.hook_contacts import hook_contact
from calling import Call
from contract.duck import held, pipeline, query, tables
from fake_autopilot import FakeAutopilot

DAY = 1_793_491_200_000  # 2026-11-01
AT = datetime(2026, 11, 1, 5, 6, 7, tzinfo=UTC)


def contact(number: int, **fields: Any) -> dict[str, Any]:
    return {"contact_id": f"person_{number}", "Email": f"{number}@example.com", **fields}


def hook(event: str, at: datetime = AT, **more: Any) -> bytes:
    """The line that the receiver makes of a hook."""
    return hook_lines(parse_body(json.dumps({"event": event, **more}).encode()), Arrival(at)).data


def receive(name: str, *lines: bytes, folder: str = "autopilot-shop") -> None:
    """A file as the receiver publishes it."""
    path = Path("received/segment-logs", folder, str(DAY), f"{name}.gz")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(b"".join(lines)))


def load(call: Call) -> None:
    said = call("load", "archive", "received")
    assert said.status == 0, said.err


def scan(server: FakeAutopilot, *contacts: dict[str, Any]) -> None:
    server.order("GET", "/contacts", content={"contacts": list(contacts), "total_contacts": len(contacts)})
    source = autopilothq.api(server.key, base_url=server.base_url, requests_per_second=10_000)
    with held():
        pipeline().run(source.with_resources("contacts", "_rejects", "_discards", "_audit"))


def stored(*columns: str) -> list[tuple[Any, ...]]:
    return query(f"SELECT {', '.join(columns)} FROM autopilothq.contacts ORDER BY contact_id")


def test_hooks_become_events_of_their_own_and_rows_of_contacts(call: Call) -> None:
    whole = contact(
        1,
        FirstName="Ada",
        unsubscribed=False,
        lists=["contactlist_X"],
        mail_opened={"batchdelivery_X": 1482221100000},
        custom_fields=[{"kind": "Smog Level", "value": 4, "fieldType": "float", "deleted": False}],
        created_at="Tue, 20 Dec 2016 07:31:12 GMT",
        updated_at=1_588_000_000_000,
    )
    receive(
        "1",
        hook("contact_added", contact=whole),
        hook("contact_added", contact=whole),  # sent again
        hook("contact_added_to_list", AT + timedelta(seconds=1), contact_id="person_1", list_id="contactlist_X"),
        hook("contact_unsubscribes", contact_id="person_2", email="2@example.com"),
        hook("contact_left_segment", contact_id="person_2", email="2@example.com", segment_id="s"),
        b'{"records":5,"receivedAt":"2026-11-01T05:06:07Z"}\n',
    )
    # What looks like a hook in another folder is a message alone.
    receive("2", hook("contact_added", contact=contact(9)), folder="v1")
    load(call)
    found = tables()
    assert {name: len(rows) for name, rows in found.items() if name.startswith("autopilot_")} == {
        "autopilot_contact_added": 2,
        "autopilot_contact_added_to_list": 1,
        "autopilot_contact_left_segment": 1,
        "autopilot_contact_unsubscribed": 1,
    }
    assert found["email_unsubscribed"] == []
    [row] = found["autopilot_contact_added_to_list"]
    assert {name: value for name, value in row.items() if value is not None} == {
        "id": row["id"],
        "received_at": AT + timedelta(seconds=1),
        "uuid_ts": row["uuid_ts"],
        "anonymous_id": "person_1",
        "context_library_name": "autopilot-hook",
        "context_traits_contact_id": "person_1",
        "event": "autopilot_contact_added_to_list",
        "event_text": "autopilot_contact_added_to_list",
        "list_id": "contactlist_X",
        "original_timestamp": AT + timedelta(seconds=1),
        "timestamp": AT + timedelta(seconds=1),
    }
    assert query("SELECT reason FROM autopilothq._rejects") == [("unknown_type",)]
    assert query("SELECT * FROM autopilothq._discards") == []
    first, second = ({name: value for name, value in row.items() if value is not None} for row in found["contacts"])
    assert first == {
        "contact_id": "person_1",
        "received_at": AT + timedelta(seconds=1),
        "uuid_ts": first["uuid_ts"],
        "created_at": datetime(2016, 12, 20, 7, 31, 12, tzinfo=UTC),
        "updated_at": datetime(2020, 4, 27, 15, 6, 40, tzinfo=UTC),
        "custom_smog_level": 4.0,
        "email": "1@example.com",
        "first_name": "Ada",
        "lists": '["contactlist_X"]',
        "unsubscribed": False,
    }
    assert second == {
        "contact_id": "person_2",
        "received_at": AT,
        "uuid_ts": second["uuid_ts"],
        "email": "2@example.com",
        "unsubscribed": True,
    }
    load(call)  # nothing is new
    assert [row["uuid_ts"] for row in tables()["contacts"]] == [first["uuid_ts"], second["uuid_ts"]]


def test_the_newest_change_wins_and_no_row_gets_worse(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook_contacts, "PART_SIZE", 20)  # bytes: each contact is in a part of its own
    fields = [{"kind": "Plan", "value": 7, "fieldType": "integer", "deleted": False}]
    with FakeAutopilot(contacts=0) as server:
        old, new = "2026-01-01T00:00:00.000Z", "2026-02-01T00:00:00.000Z"
        scan(
            server,
            contact(1, FirstName="Ada", Company="Acme", updated_at=old, custom_fields=fields),
            contact(2, FirstName="Bo", updated_at=new),
            contact(3, FirstName="Cy", LatestSubscribe=1_482_221_100_123),
            contact(4, FirstName="Di"),
        )
        [(scanned,)] = query("SELECT DISTINCT received_at FROM autopilothq.contacts")
        later, before = scanned + timedelta(hours=1), scanned - timedelta(hours=1)
        receive(
            "1",
            # A part of a contact, but a newer one: the rest stays.
            hook("contact_updated", later, contact=contact(1, FirstName="Adam", updated_at=new)),
            # Older than what the scan saw, although it came later.
            hook("contact_updated", later, contact=contact(2, FirstName="Bob", updated_at=old)),
            # Without times, the receipt decides.
            hook("contact_unsubscribed", later, contact_id="person_3"),
            hook("contact_unsubscribed", before, contact_id="person_4"),
        )
        load(call)
        assert stored(
            "first_name", "company", "custom_plan", "updated_at", "unsubscribed", "latest_subscribe", "email"
        ) == [
            ("Adam", "Acme", 7, datetime.fromisoformat(new), None, None, "1@example.com"),
            ("Bo", None, None, datetime.fromisoformat(new), None, None, "2@example.com"),
            ("Cy", None, None, None, True, datetime(2016, 12, 20, 8, 5, 0, 123_000, tzinfo=UTC), "3@example.com"),
            ("Di", None, None, None, None, None, "4@example.com"),
        ]
        received = [later, scanned, later, scanned]
        assert [row[0] for row in stored("received_at")] == [at.replace(microsecond=at.microsecond) for at in received]
        # Hooks that come out of order: each value is from whoever knew it last.
        receive(
            "2",
            hook("contact_updated", later, contact=contact(4, FirstName="D3", Title="T3", updated_at="2026-03-03")),
            hook("contact_updated", later, contact=contact(4, FirstName="D1", Fax="F1", updated_at="2026-03-01")),
            hook("contact_updated", later, contact=contact(4, Fax="F2", updated_at="2026-03-02")),
        )
        load(call)
        assert stored("first_name", "title", "fax", "updated_at")[3] == (
            "D3",
            "T3",
            "F2",
            datetime(2026, 3, 3, tzinfo=UTC),
        )


def test_a_scan_that_was_running_meanwhile_is_no_step_back(call: Call) -> None:
    with FakeAutopilot(contacts=0) as server:
        scan(server, contact(1, FirstName="Ada", updated_at="2026-01-01"), contact(2, FirstName="Bo"))
        future = datetime.now(UTC) + timedelta(hours=1)
        receive(
            "1",
            hook("contact_updated", future, contact=contact(1, FirstName="Adam", updated_at="2026-02-01")),
            hook("contact_added", future, contact=contact(3, FirstName="Cy", updated_at="2026-02-01")),
        )
        load(call)
        scan(server, contact(1, FirstName="Ada", updated_at="2026-01-01"), contact(2, FirstName="Bob"))
        # Contact 1 was changed, and 3 made, after the scan began.
        assert stored("first_name", "deleted_at IS NULL") == [("Adam", True), ("Bob", True), ("Cy", True)]
        scan(server, contact(1, FirstName="Adam 2", updated_at="2026-03-01"))
        found = stored("first_name", "deleted_at IS NULL")
        assert found == [("Adam 2", True), ("Bob", False), ("Cy", True)]
        # A contact that a scan missed comes back by a later hook alone.
        receive("2", hook("contact_updated", datetime(2026, 1, 1, tzinfo=UTC), contact_id="person_2"))
        load(call)
        assert stored("deleted_at IS NULL")[1] == (False,)
        receive("3", hook("contact_updated", future, contact=contact(2, FirstName="Bo")))
        load(call)
        assert stored("first_name", "deleted_at IS NULL")[1] == ("Bo", True)


def test_in_postgresql_a_hook_changes_what_it_says_and_nothing_else(
    call: Call, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = ("--destination", "postgres", "--credentials", postgres)

    def contacts() -> list[dict[str, Any]]:
        with closing(psycopg2.connect(postgres)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT * FROM autopilothq.contacts ORDER BY contact_id")
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    with FakeAutopilot(contacts=40) as server:
        for name, value in {"base_url": server.base_url, "api_key": server.key, "requests_per_second": "999"}.items():
            monkeypatch.setenv(f"SOURCES__AUTOPILOTHQ__{name.upper()}", value)
        assert call("load", "api", "--only", "contacts", *target).status == 0
        before = contacts()
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    said = [hook("contact_unsubscribed", later, contact_id=row["contact_id"]) for row in before]
    receive("1", *said)
    assert call("load", "archive", "received", *target).status == 0
    after = contacts()
    [uuid_ts] = {row["uuid_ts"] for row in after}
    assert after == [row | {"unsubscribed": True, "received_at": later, "uuid_ts": uuid_ts} for row in before]
    assert len(before) == 40


def test_lines_are_in_parts_by_their_contacts(tmp_path: Path) -> None:
    lines = [hook("contact_updated", contact=contact(number % 10, Title=str(number))) for number in range(50)]
    parts = [list(part) for part in hook_contacts.parts_of(lines, 4, tmp_path / "parts")]
    assert sorted(line for part in parts for line in part) == sorted(lines)
    of = [{hook_contact(parse_json(line)).record.key[0] for line in part} for part in parts]  # type: ignore[union-attr]
    assert sum(map(len, of)) == len(set.union(*of)) == 10
    assert [line for part in parts for line in part if line in parts[0]] == parts[0]  # in their order


def test_a_deleted_persons_contact_stays_away(call: Call) -> None:
    receive("1", hook("contact_added", contact=contact(1)), hook("contact_added", contact=contact(2)))
    load(call)
    assert call("forget", "--contact-id", "person_1").status == 0
    receive("2", hook("contact_updated", AT + timedelta(days=1), contact=contact(1)))
    load(call)
    assert stored("contact_id") == [("person_2",)]
    assert len(tables()["autopilot_contact_added"]) == 1


def test_a_source_in_python_has_contacts_where_it_is_asked_for() -> None:
    assert "contacts" not in autopilothq.archive("received").resources
    assert "contacts" in autopilothq.archive("received", hook_contacts=True).resources


@pytest.mark.parametrize(
    "line",
    [
        b'{"context":{"library":{"name":"analytics"}},"receivedAt":"2026-11-01T05:06:07Z"}',
        b'{"context":{"library":{"name":"autopilot-hook"}},"receivedAt":"soon"}',
    ],
)
def test_messages_that_are_no_hooks(line: bytes) -> None:
    assert hook_contact(parse_json(line)) is None


@pytest.mark.parametrize("more", [b"", b',"contact":"{"', b',"contact":"5"'])
def test_hooks_without_a_contact(more: bytes) -> None:
    line = b'{"context":{"library":{"name":"autopilot-hook"}},"receivedAt":"2026-11-01T05:06:07Z"%b}' % more
    with pytest.raises(Rejected):
        hook_contact(parse_json(line))


@pytest.mark.filterwarnings("ignore:implicitly coercing SELECT")
def test_a_later_hook_is_put_over_what_sqlite_has(call: Call) -> None:
    database = ("--destination", "sqlalchemy", "--credentials", "sqlite:///here.db")
    first = contact(1, FirstName="Ada", unsubscribed=True, updated_at=1_588_000_000_000)
    later = contact(1, LastName="Lovelace", updated_at=1_588_000_001_000)
    for name, at, of in (
        ("1", AT, first),
        ("2", AT + timedelta(hours=1), later),
        ("3", AT, first | {"FirstName": "A"}),
    ):
        receive(name, hook("contact_updated", at, contact=of))
        said = call("load", "archive", "received", *database)
        assert said.status == 0, said.err
    columns = "contact_id, first_name, last_name, unsubscribed, updated_at, received_at"
    with closing(sqlite3.connect("here__autopilothq.db")) as con:
        assert con.execute(f"SELECT {columns} FROM contacts").fetchall() == [
            ("person_1", "Ada", "Lovelace", 1, "2020-04-27 15:06:41.000000", "2026-11-01 06:06:07.000000")
        ]
        assert con.execute("SELECT count(*) FROM _discards").fetchall() == [(0,)]
