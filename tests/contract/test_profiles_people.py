"""Whom of Segment's profiles a run asks for, and what of a run in parts the next one does (spec: profile-api)."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dlt
import pytest

import autopilothq
from autopilothq.errors import RunError
from autopilothq.privacy.deletion import delete_person
from autopilothq.segment.identity import id_of
from contract.duck import held, load, pipeline, query, rows_in, tables
from contract.loading import message
from contract.pulling import USUAL, A, B, books, moment, path_of, person, pull, watermarks
from fake_autopilot import FakeAutopilot, FakeProfiles
from fake_autopilot.profiles import query_of


@pytest.fixture
def server() -> Iterator[FakeProfiles]:
    with FakeProfiles() as running:
        yield running


# ---- whose events --------------------------------------------------------------------------------------------------


@pytest.fixture
def autopilot(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAutopilot]:
    with FakeAutopilot(contacts=0) as running:
        monkeypatch.setenv("SOURCES__AUTOPILOTHQ__API_KEY", running.key)
        monkeypatch.setenv("SOURCES__AUTOPILOTHQ__BASE_URL", running.base_url)
        monkeypatch.setenv("SOURCES__AUTOPILOTHQ__REQUESTS_PER_SECOND", "1000")
        yield running


def ms(ago: float) -> int:
    return int((datetime.now(UTC).timestamp() - ago) * 1000)


def test_contacts_are_asked_for_when_their_record_tells_of_activity(
    server: FakeProfiles, autopilot: FakeAutopilot
) -> None:
    names = ["A@example.com", "quiet@example.com", "updated@example.com", "lagging@example.com", "long@example.com"]
    who = {name: autopilot.account.upsert({"Email": name}) for name in names}
    autopilot.account.upsert({"FirstName": "No email"})
    for name in names:
        autopilot.account.change(who[name], updated_at=None, mail_received={"k": ms(90 * 86400)})
    everyone = sorted(f"email:{name.lower()}" for name in names)
    pull(server, people=None)
    assert server.asked() == everyone
    assert pull(server, people=None).people_total == 0
    assert server.asked() == []

    autopilot.account.happen(who["A@example.com"], "mail_opened", "k", at=ms(0))
    autopilot.account.change(who["updated@example.com"], updated_at=datetime.now(UTC).isoformat())
    autopilot.account.happen(who["lagging@example.com"], "mail_clicked", "k", at=ms(3000))
    autopilot.account.happen(who["long@example.com"], "mail_clicked", "k", at=ms(5000))
    autopilot.account.upsert({"Email": "new@example.com"})
    pull(server, people="api")
    active = ["email:a@example.com", "email:lagging@example.com", "email:new@example.com", "email:updated@example.com"]
    assert server.asked() == active
    assert not [path for path in Path(pipeline().working_dir).rglob("*.gz") if "people" in str(path)]


def test_a_scan_of_contacts_that_broke_off_goes_on(server: FakeProfiles) -> None:
    with FakeAutopilot(contacts=250) as autopilot:
        secrets = {"api_key": autopilot.key, "base_url": autopilot.base_url, "requests_per_second": 1000}
        for name, value in secrets.items():
            dlt.secrets[f"sources.autopilothq.{name}"] = value
        gone = autopilot.order("GET", "/contacts/*", skip=1, times=10**6, drop="before")
        with pytest.raises(RunError, match="GET /contacts/"):
            pull(server, people="api")
        assert server.requests == []
        seen, gone.times = len(autopilot.requests), 0
        emails = {autopilot.account.contact(number).get("Email") for number in range(250)} - {None}
        assert pull(server, people="api").people == len(emails)
        assert len(autopilot.requests) == seen + 1  # the page that did not come


def test_people_of_a_query(server: FakeProfiles) -> None:
    pull(server, people="select 'z@example.com' as e")  # nothing is loaded yet
    assert server.asked() == ["email:z@example.com"]
    load(message(messageId="1", userId="U1"), message(messageId="2", userId="u2"), message(messageId="3", userId="U1"))
    pull(server, people="select user_id from tracks union all select null")
    assert server.asked() == ["user_id:u1", "user_id:u2"]
    pull(server, people=" WITH x AS (SELECT 'a@example.com' AS e) SELECT e FROM x")
    assert server.asked() == [A]
    with pytest.raises(RunError, match=r"people: expected a query with one column, got 2"):
        pull(server, people="select id, user_id from tracks")
    with pytest.raises(RunError, match="nowhere"):
        pull(server, people="select x from nowhere")
    with pytest.raises(RunError, match=r"got 2 statements \(SELECT, DROP\)"):
        pull(server, people="select user_id from tracks; drop table tracks")
    with pytest.raises(RunError, match="Cannot access file"):
        pull(server, people="select content from read_text('people.txt')")
    assert query("SELECT count(*) FROM autopilothq.tracks") == [(3,)]
    assert server.asked() == []


def test_the_forgotten_are_not_asked_for(server: FakeProfiles) -> None:
    for who in (A, B):
        server.happen(who)
    pull(server, *USUAL)
    delete_person([id_of("email", "A@example.com")], credentials="autopilot.duckdb")
    assert list(watermarks()) == [B, USUAL[0]]
    server.asked()
    pull(server, *USUAL)
    assert server.asked() == [B, USUAL[0]]
    assert list(watermarks()) == [B, USUAL[0]]


def test_a_gap_is_told_with_its_dates(server: FakeProfiles) -> None:
    pull(server, "a@example.com")
    mark(since := datetime.now(UTC) - timedelta(days=20))
    report = pull(server, "a@example.com")
    [text] = report.warnings
    assert text.startswith(f"No run was complete since {clock(since)}, and the API goes back 14 days: events between")
    kept = moment(text.split(" and ")[2].split(" are")[0])
    assert abs(datetime.now(UTC) - timedelta(days=14) - kept) < timedelta(minutes=1)


def mark(since: datetime) -> None:
    """Makes the last run one of long ago."""
    into = pipeline()
    with into.managed_state() as state:
        for found in state["sources"]["autopilothq"]["pulls"].values():
            found["since"] = found["begun"] = clock(since)


def clock(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_what_since_left_out_comes_with_a_run_without_it(server: FakeProfiles) -> None:
    old, new = server.happen(A, ago=10 * 86400), server.happen(A, ago=2 * 86400)
    pull(server, "a@example.com", since=(datetime.now(UTC) - timedelta(days=5)).isoformat())
    assert [row["id"] for row in rows_in("tracks")] == [new["message_id"]]
    assert pull(server, "a@example.com").stored == 1
    assert {row["id"] for row in rows_in("tracks")} == {old["message_id"], new["message_id"]}


# ---- in parts ------------------------------------------------------------------------------------------------------


def test_a_run_in_parts_asks_each_once_and_has_one_row_in_the_books(server: FakeProfiles) -> None:
    everyone = [person(number) for number in range(15)]
    for who in everyone:
        server.happen(who)
    reports = [pull(server, *everyone, people_per_load=10) for _ in range(2)]
    assert server.asked() == everyone
    assert [(report.people, report.people_total, report.stored) for report in reports] == [(10, 15, 10), (5, 5, 5)]
    assert books() == [(15, 15, 0, 0)]
    [row] = rows_in("_audit")
    assert row["size"] == sum(report.bytes_done for report in reports)
    times = sorted(moment(event["timestamp"]) for events in server.people.values() for event in events)
    assert (row["first_received_at"], row["last_received_at"]) == (times[0], times[-1])
    pull(server, *everyone, people_per_load=10)
    assert len(server.asked()) == 10  # a new run
    assert books() == [(15, 15, 0, 0), (10, 0, 10, 0)]


def test_those_who_fail_are_not_asked_for_again_in_the_same_run(
    server: FakeProfiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = [person(number) for number in range(4)]
    for who in everyone:
        server.happen(who)
    server.order("GET", path_of(everyone[0]), content=b"[]")
    server.order("GET", path_of(everyone[3]), status=500)
    pull(server, *everyone, people_per_load=2)
    # On another machine.
    monkeypatch.setenv("DLT_DATA_DIR", str(Path(os.environ["DLT_DATA_DIR"]).with_name("other")))
    pull(server, *everyone, people_per_load=2)
    assert server.asked() == everyone
    assert books() == [(3, 2, 0, 1)]
    pull(server, *everyone)
    assert server.asked() == everyone  # a new run


def test_a_load_without_its_watermarks_is_asked_for_again(server: FakeProfiles) -> None:
    server.happen(A)
    Path("people.txt").write_text("a@example.com")
    settings: dict[str, Any] = {"token": server.token, "space": server.space, "base_url": server.base_url}
    source = autopilothq.profiles(**settings, people="people.txt")
    with held():
        pipeline().run(source.with_resources("email_opened", "tracks", "_audit"))
    assert "_profiles" not in tables()
    assert pull(server, "a@example.com").duplicates == 1
    assert "start" not in query_of(server.requests[-1])
