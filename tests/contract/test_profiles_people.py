"""Which people a run asks the Profile API about, and how runs in parts continue (docs/contract/profile-api.md)."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import dlt
import pytest
from dlt.common.runtime.collector import NULL_COLLECTOR

import autopilothq
from autopilothq import LoadReport, runner
from autopilothq.errors import RunError
from autopilothq.privacy.deletion import delete_person
from autopilothq.segment.identity import id_of
from autopilothq.warehouses.settings import TargetOptions
from contract.duck import held, load, pipeline, query, rows_in, tables
from contract.loading import Row, message
from contract.pulling import USUAL, A, B, books, moment, path_of, person, pull, watermarks
from fake_autopilot import FakeAutopilot, FakeProfiles
from fake_autopilot.profiles import query_of
from shared_loads import isolation


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
    with FakeAutopilot(contacts=120) as autopilot, FakeAutopilot(contacts=110) as other:
        gone = []
        for account in (other, autopilot):  # another account's spool is not used
            secrets = {"api_key": account.key, "base_url": account.base_url, "requests_per_second": 1000}
            for name, value in secrets.items():
                dlt.secrets[f"sources.autopilothq.{name}"] = value
            gone.append(account.order("GET", "/contacts/*", times=10**6, drop="before"))
            with pytest.raises(RunError, match="GET /contacts/"):
                pull(server, people="api")
            assert server.requests == []
        assert [request.path for request in autopilot.requests][:1] == ["/contacts"]
        seen, gone[-1].times = len(autopilot.requests), 0
        emails = {autopilot.account.contact(number).get("Email") for number in range(120)} - {None}
        assert pull(server, people="api").people == len(emails)
        assert len(autopilot.requests) == seen + 1  # only the missing page is requested


def asked_of(server: FakeProfiles, sql: str) -> list[str]:
    """Returns the people whose events a load would request; loads nothing."""
    settings: dict[str, Any] = {"token": server.token, "space": server.space, "base_url": server.base_url}
    source = autopilothq.profiles(**settings, people=sql)
    runner.dry_run(TargetOptions("duckdb", "autopilot.duckdb", "autopilothq"), NULL_COLLECTOR, source)
    return server.asked()


def test_people_of_a_query(server: FakeProfiles) -> None:
    pull(server, people="select 'z@example.com' as e")  # the dataset is empty
    assert server.asked() == ["email:z@example.com"]
    load(message(messageId="1", userId="U1"), message(messageId="2", userId="u2"), message(messageId="3", userId="U1"))
    pull(server, people="select user_id from tracks union all select null")
    assert server.asked() == ["user_id:u1", "user_id:u2"]
    assert asked_of(server, " WITH x AS (SELECT 'a@example.com' AS e) SELECT e FROM x") == [A]
    with pytest.raises(RunError, match=r"people: expected a query with one column, got 2"):
        asked_of(server, "select id, user_id from tracks")
    with pytest.raises(RunError, match="nowhere"):
        asked_of(server, "select x from nowhere")
    with pytest.raises(RunError, match=r"got 2 statements \(SELECT, DROP\)"):
        pull(server, people="select user_id from tracks; drop table tracks")
    with pytest.raises(RunError, match="Cannot access file"):
        asked_of(server, "select content from read_text('people.txt')")
    assert query("SELECT count(*) FROM autopilothq.tracks") == [(3,)]
    assert server.asked() == []


class Later(NamedTuple):
    """A load of the usual people long after the last run; one of them was forgotten in between."""

    since: datetime
    """When that run was."""
    before: list[str]
    """Who had a watermark before it."""
    report: LoadReport
    asked: list[str]
    after: list[str]


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Later:
    with isolation(tmp_path_factory.mktemp("later")), FakeProfiles() as server:
        for who in (A, B):
            server.happen(who)
        pull(server, *USUAL)
        mark(since := datetime.now(UTC) - timedelta(days=20))
        delete_person([id_of("email", "A@example.com")], TargetOptions(credentials="autopilot.duckdb"))
        before = list(watermarks())
        server.asked()
        return Later(since, before, pull(server, *USUAL), server.asked(), list(watermarks()))


def test_the_forgotten_are_not_asked_for(later: Later) -> None:
    assert later.before == [B, USUAL[0]]
    assert later.asked == [B, USUAL[0]]
    assert later.after == [B, USUAL[0]]


def test_a_gap_is_told_with_its_dates(later: Later) -> None:
    [text] = later.report.warnings
    since = clock(later.since)
    assert text.startswith(f"No run was complete since {since}, and the API goes back 14 days: events between")
    kept = moment(text.split(" and ")[2].split(" are")[0])
    assert abs(datetime.now(UTC) - timedelta(days=14) - kept) < timedelta(minutes=1)


def test_a_run_that_broke_off_long_ago_is_not_continued(server: FakeProfiles) -> None:
    pull(server, *USUAL, people_per_load=1)
    [first] = server.asked()
    mark(datetime.now(UTC) - timedelta(days=20))
    pull(server, *USUAL)
    assert (first in USUAL, server.asked()) == (True, sorted(USUAL))


def mark(since: datetime) -> None:
    """Makes the last run look long ago."""
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


class Parts(NamedTuple):
    """A run in three parts, the last of which is on another machine, and a new run."""

    everyone: list[str]
    made: dict[str, list[dict[str, Any]]]
    reports: list[LoadReport]
    asked: list[list[str]]
    """Whom each part asked for."""
    books: list[tuple[Any, ...]]
    audit: list[Row]
    again: list[str]
    """Whom the new run asked for."""
    books_again: list[tuple[Any, ...]]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """In the first part, one person's answer cannot be read; in the second, one person gets none."""
    with isolation(tmp_path_factory.mktemp("parts")), FakeProfiles() as server, pytest.MonkeyPatch.context() as patch:
        everyone = [person(number) for number in range(7)]
        for who in everyone:
            server.happen(who)
        server.order("GET", path_of(everyone[0]), content=b"[]")
        server.order("GET", path_of(everyone[3]), status=500)
        reports, asked = [], []
        for machine in ("dlt", "dlt", "other"):
            patch.setenv("DLT_DATA_DIR", str(Path(os.environ["DLT_DATA_DIR"]).with_name(machine)))
            reports.append(pull(server, *everyone, people_per_load=3))
            asked.append(server.asked())
        first, audit = books(), rows_in("_audit")
        pull(server, *everyone)
        return Parts(everyone, server.people, reports, asked, first, audit, server.asked(), books())


def test_a_run_in_parts_asks_each_once_and_has_one_row_in_the_books(parts: Parts) -> None:
    assert sorted(who for asked in parts.asked for who in asked) == parts.everyone
    unread = {parts.everyone[0], parts.everyone[3]}
    assert [(report.people, report.people_total, report.stored) for report in parts.reports] == [
        (people, left, len(set(asked) - unread))
        for people, left, asked in zip((3, 3, 1), (7, 4, 1), parts.asked, strict=True)
    ]
    assert parts.books == [(6, 5, 0, 1)]
    [row] = parts.audit
    assert row["size"] == sum(report.bytes_done for report in parts.reports)
    read = [parts.made[who] for who in parts.everyone if who not in unread]
    times = sorted(moment(event["timestamp"]) for events in read for event in events)
    assert (row["first_received_at"], row["last_received_at"]) == (times[0], times[-1])


def test_those_who_fail_are_not_asked_for_again_in_the_same_run(parts: Parts) -> None:
    asked = [who for part in parts.asked for who in part]
    assert asked.count(parts.everyone[0]) == asked.count(parts.everyone[3]) == 1
    assert parts.again == parts.everyone  # the new run asks for everyone
    assert parts.books_again == [(6, 5, 0, 1), (7, 2, 5, 0)]


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
