"""Hooks update rows of `contacts` next to a scan, and never replace newer values by older ones."""

import gzip
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

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
from fake_autopilot import FakeAutopilot, contact
from prepared import as_prepared, preparing
from shared_loads import command

DAY = 1_793_491_200_000  # 2026-11-01
AT = datetime(2026, 11, 1, 5, 6, 7, tzinfo=UTC)


def hook(event: str, at: datetime = AT, **more: Any) -> bytes:
    """Returns the line that the receiver makes from a hook."""
    return hook_lines(parse_body(json.dumps({"event": event, **more}).encode()), Arrival(at)).data


def receive(name: str, *lines: bytes, folder: str = "autopilot-shop") -> None:
    """Writes a file like one that the receiver publishes."""
    path = Path("received/segment-logs", folder, str(DAY), f"{name}.gz")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(b"".join(lines)))


def load() -> None:
    with held():
        said = command("load", "archive", "received")
    assert said.status == 0, said.err


def scan(server: FakeAutopilot, *contacts: dict[str, Any]) -> None:
    server.order("GET", "/contacts", content={"contacts": list(contacts), "total_contacts": len(contacts)})
    source = autopilothq.api(server.key, base_url=server.base_url, requests_per_second=10_000)
    with held():
        pipeline().run(source.with_resources("contacts", "_rejects", "_discards", "_audit"))


def stored(*columns: str) -> list[tuple[Any, ...]]:
    return query(f"SELECT {', '.join(columns)} FROM autopilothq.contacts ORDER BY contact_id")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Loads hooks of three contacts; returns the folder."""
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
    with preparing(tmp_path_factory.mktemp("brought")) as home:
        receive(
            "1",
            hook("contact_added", contact=whole),
            hook("contact_added", contact=whole),  # a retry
            hook("contact_added_to_list", AT + timedelta(seconds=1), contact_id="person_1", list_id="contactlist_X"),
            hook("contact_unsubscribes", contact_id="person_2", email="2@example.com"),
            hook("contact_left_segment", contact_id="person_2", email="2@example.com", segment_id="s"),
            hook("contact_added", contact=contact(3)),
            b'{"records":5,"receivedAt":"2026-11-01T05:06:07Z"}\n',
        )
        # In another folder, a line that looks like a hook is only a message.
        receive("2", hook("contact_added", contact=contact(9)), folder="v1")
        load()
    return home


@pytest.mark.usefixtures("loaded")
def test_hooks_become_events_of_their_own_and_rows_of_contacts() -> None:
    found = tables()
    assert {name: len(rows) for name, rows in found.items() if name.startswith("autopilot_")} == {
        "autopilot_contact_added": 3,
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
    first, second, third = (
        {name: value for name, value in row.items() if value is not None} for row in found["contacts"]
    )
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
    assert third == {"contact_id": "person_3", "received_at": AT, "uuid_ts": third["uuid_ts"], "email": "3@example.com"}
    load()  # finds nothing new
    assert [row["uuid_ts"] for row in tables()["contacts"]] == [row["uuid_ts"] for row in (first, second, third)]


OLD, NEW = "2026-01-01T00:00:00.000Z", "2026-02-01T00:00:00.000Z"


class Scanned(NamedTuple):
    """The folder after a scan and a load of hooks, the time of the scan, and that of most hooks."""

    home: Path
    at: datetime
    later: datetime


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Scanned:
    fields = [{"kind": "Plan", "value": 7, "fieldType": "integer", "deleted": False}]
    with (
        preparing(tmp_path_factory.mktemp("scanned")) as home,
        FakeAutopilot(contacts=0) as server,
        pytest.MonkeyPatch.context() as monkeypatch,
    ):
        monkeypatch.setattr(hook_contacts, "PART_SIZE", 20)  # bytes, so each contact is in its own part
        scan(
            server,
            contact(1, FirstName="Ada", Company="Acme", updated_at=OLD, custom_fields=fields),
            contact(2, FirstName="Bo", updated_at=NEW),
            contact(3, FirstName="Cy", LatestSubscribe=1_482_221_100_123),
            contact(4, FirstName="Di"),
            contact(5, FirstName="Ed"),
        )
        [(at,)] = query("SELECT DISTINCT received_at FROM autopilothq.contacts")
        later, before = at + timedelta(hours=1), at - timedelta(hours=1)
        receive(
            "1",
            # A newer hook with only some fields: the others stay.
            hook("contact_updated", later, contact=contact(1, FirstName="Adam", updated_at=NEW)),
            # Older than the scan's values, although it came later.
            hook("contact_updated", later, contact=contact(2, FirstName="Bob", updated_at=OLD)),
            # Without times, the time of receipt decides.
            hook("contact_unsubscribed", later, contact_id="person_3"),
            hook("contact_unsubscribed", before, contact_id="person_4"),
            # Hooks out of order: each value comes from the newest hook that has it.
            hook("contact_updated", later, contact=contact(5, FirstName="E3", Title="T3", updated_at="2026-03-03")),
            hook("contact_updated", later, contact=contact(5, FirstName="E1", Fax="F1", updated_at="2026-03-01")),
            hook("contact_updated", later, contact=contact(5, Fax="F2", updated_at="2026-03-02")),
            # A contact that the scan did not see.
            hook("contact_added", later, contact=contact(6, FirstName="Flo", updated_at=NEW)),
        )
        load()
    return Scanned(home, at, later)


@pytest.fixture
def after_a_scan(scanned: Scanned) -> Iterator[Scanned]:
    """Works in a copy of that folder."""
    with as_prepared(scanned.home):
        yield scanned


def test_the_newest_change_wins_and_no_row_gets_worse(after_a_scan: Scanned) -> None:
    new = datetime.fromisoformat(NEW)
    assert stored(
        "first_name", "company", "custom_plan", "updated_at", "unsubscribed", "latest_subscribe", "email"
    ) == [
        ("Adam", "Acme", 7, new, None, None, "1@example.com"),
        ("Bo", None, None, new, None, None, "2@example.com"),
        ("Cy", None, None, None, True, datetime(2016, 12, 20, 8, 5, 0, 123_000, tzinfo=UTC), "3@example.com"),
        ("Di", None, None, None, None, None, "4@example.com"),
        ("E3", None, None, datetime(2026, 3, 3, tzinfo=UTC), None, None, "5@example.com"),
        ("Flo", None, None, new, None, None, "6@example.com"),
    ]
    later, at = after_a_scan.later, after_a_scan.at
    assert [row[0] for row in stored("received_at")] == [later, at, later, at, later, later]
    assert stored("title", "fax")[4] == ("T3", "F2")


def test_a_scan_that_was_running_meanwhile_is_no_step_back(after_a_scan: Scanned) -> None:
    with FakeAutopilot(contacts=0) as server:
        scan(server, contact(1, FirstName="Ada", updated_at=OLD), contact(2, FirstName="Bob"), contact(4))
        # Contact 1 was changed and contact 6 created after the scan began.
        found = stored("first_name", "deleted_at IS NULL")
        assert [found[0], found[1], found[5]] == [("Adam", True), ("Bob", True), ("Flo", True)]
        scan(server, contact(1, FirstName="Adam 2", updated_at="2026-03-01"))
    found = stored("first_name", "deleted_at IS NULL")
    assert [found[0], found[1], found[3][1], found[5]] == [("Adam 2", True), ("Bob", False), False, ("Flo", True)]
    # Only a hook after the later scan brings back a contact that this scan missed, not one from between the scans.
    [(seen, missed)] = query("SELECT received_at, deleted_at FROM autopilothq.contacts WHERE contact_id = 'person_2'")
    assert seen < missed
    receive(
        "2",
        hook("contact_updated", seen + (missed - seen) / 2, contact_id="person_2"),
        hook("contact_updated", after_a_scan.later, contact=contact(4, FirstName="Di 2")),
    )
    load()
    found = stored("first_name", "deleted_at IS NULL")
    assert [found[1][1], found[3]] == [False, ("Di 2", True)]


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
    assert [line for part in parts for line in part if line in parts[0]] == parts[0]  # in the original order


@pytest.mark.usefixtures("loaded")
def test_a_deleted_persons_contact_stays_away() -> None:
    with held():
        assert command("forget", "--contact-id", "person_1").status == 0
    receive("3", hook("contact_updated", AT + timedelta(days=1), contact=contact(1)))
    load()
    assert stored("contact_id") == [("person_2",), ("person_3",)]
    assert [row["anonymous_id"] for row in tables()["autopilot_contact_added"]] == ["3@example.com", "9@example.com"]


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


@pytest.mark.parametrize("said", [True, False, None])
def test_a_contact_that_unsubscribes_is_unsubscribed_unless_it_says_otherwise(said: bool | None) -> None:
    found = hook_contact(parse_json(hook("contact_unsubscribed", contact=contact(1, unsubscribed=said))))
    assert found is not None
    assert found.record.cells["unsubscribed"] == ("false" if said is False else "true")


@pytest.mark.parametrize("more", [b"", b',"contact":"{"', b',"contact":"5"'])
def test_hooks_without_a_contact(more: bytes) -> None:
    line = b'{"context":{"library":{"name":"autopilot-hook"}},"receivedAt":"2026-11-01T05:06:07Z"%b}' % more
    with pytest.raises(Rejected):
        hook_contact(parse_json(line))


@pytest.mark.filterwarnings("ignore:implicitly coercing SELECT")
def test_a_later_hook_alone_is_put_over_what_sqlite_has(call: Call) -> None:
    database = ("--destination", "sqlalchemy", "--credentials", "sqlite:///here.db")
    first, last = 1_588_000_000_000, 1_588_000_001_000
    ada = contact(1, FirstName="Ada", unsubscribed=True, updated_at=first)
    grace = contact(2, FirstName="Grace", updated_at=last)
    later = AT + timedelta(hours=1)
    for name, *hooks in (
        ("1", (AT, ada), (later, grace)),
        (
            "2",
            (later, contact(1, LastName="Lovelace", updated_at=last)),
            (AT, contact(2, FirstName="G", updated_at=first)),
        ),
    ):
        receive(name, *(hook("contact_updated", at, contact=of) for at, of in hooks))
        said = call("load", "archive", "received", *database)
        assert said.status == 0, said.err
    columns = "contact_id, first_name, last_name, unsubscribed, updated_at, received_at"
    with closing(sqlite3.connect("here__autopilothq.db")) as con:
        assert con.execute(f"SELECT {columns} FROM contacts ORDER BY 1").fetchall() == [
            ("person_1", "Ada", "Lovelace", 1, "2020-04-27 15:06:41.000000", "2026-11-01 06:06:07.000000"),
            ("person_2", "Grace", None, None, "2020-04-27 15:06:41.000000", "2026-11-01 06:06:07.000000"),
        ]
        assert con.execute("SELECT count(*) FROM _discards").fetchall() == [(0,)]
