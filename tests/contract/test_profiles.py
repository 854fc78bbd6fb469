"""What Segment's Profile API leaves in the tables, and whom the next run asks (spec: profile-api, warehouse)."""

import json
import os
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dlt
import pytest

import autopilothq
from autopilothq import Report, run
from autopilothq.forget import forget
from autopilothq.identity import id_of
from autopilothq.origins import profiles as origin
from autopilothq.run import RunError
from contract.duck import held, load, pipeline, query, tables
from contract.loading import Row, filled, message
from fake_autopilot import FakeAutopilot, FakeProfiles
from fake_autopilot.profiles import query_of

A, B, C = (f"email:{name}@example.com" for name in "abc")
USUAL = ["email:usual@example.com", A, B]


@pytest.fixture
def server() -> Iterator[FakeProfiles]:
    with FakeProfiles() as running:
        yield running


def pull(server: FakeProfiles, *people: str, **words: Any) -> Report:
    """A load of the people of a file, or of those that `words` say; its report."""
    if people:
        Path("people.txt").write_text("\n".join(people))
    reports: list[Report] = []
    settings: dict[str, Any] = {
        "token": server.token,
        "space": server.space,
        "base_url": server.base_url,
        "requests_per_second": 1000,
        "people": "people.txt",
        "tries": 1,
        "progress": reports.append,
    }
    # A query is answered by a connection that only reads, which DuckDB refuses beside another.
    with nullcontext() if " " in str(words.get("people")) else held():
        run.run(pipeline(), autopilothq.profiles(**settings | words))
    return reports[-1]


def person(number: int) -> str:
    return f"email:{number:03}@example.com"


def books() -> list[tuple[Any, ...]]:
    return query("SELECT lines, stored, duplicates, rejected FROM autopilothq._audit ORDER BY loaded_at")


def watermarks() -> dict[str, Row]:
    return {row["person"]: row for row in tables()["_profiles"]}


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


# ---- events --------------------------------------------------------------------------------------------------------


def test_a_persons_events_are_rows_of_the_contract(server: FakeProfiles) -> None:
    properties = {"campaign_id": "campaign_1", "link_url": "https://e.com", "score": 1.5, "transactional": False}
    ids = [
        {"collection": "users", "type": "user_id", "id": "12345", "encoding": "none"},
        {"collection": "users", "type": "email", "id": "a@example.com", "encoding": "none"},
    ]
    context = {"traits": {"email": "a@example.com", "contact_id": "person_1"}}
    made = server.happen(A, "Email Clicked", external_ids=ids, context=context, properties=properties)
    report = pull(server, "A@Example.com", "12345")
    found = tables()
    at = moment(made["timestamp"])
    [clicked] = found["email_clicked"]
    common = {
        "id": made["message_id"],
        "received_at": at,
        "anonymous_id": "a@example.com",
        "user_id": "12345",
        "event": "email_clicked",
        "event_text": "Email Clicked",
        "timestamp": at,
        "context_traits_email": "a@example.com",
        "context_traits_contact_id": "person_1",
    }
    assert filled(clicked) == common | properties
    assert [filled(row) for row in found["tracks"]] == [common]
    [audit] = found["_audit"]
    names = ("file", "lines", "stored", "duplicates", "rejected", "first_received_at", "last_received_at")
    assert {name: audit[name] for name in names} == {
        "file": f"{server.base_url}/spaces/{server.space}",
        "lines": 1, "stored": 1, "duplicates": 0, "rejected": 0, "first_received_at": at, "last_received_at": at,
    }  # fmt: skip
    assert (report.people, report.people_total, report.stored, report.warnings) == (2, 2, 1, [])
    assert server.asked() == [A, "user_id:12345"]


def test_an_event_that_comes_both_ways_is_stored_once(server: FakeProfiles) -> None:
    both, here, there = (server.happen(A)["message_id"] for _ in range(3))
    del server.people[A][2]
    load(*(message(messageId=name, anonymousId="a@example.com", userId=...) for name in (both, there)))
    pull(server, "a@example.com")
    for table in ("tracks", "email_opened"):
        assert sorted(row["id"] for row in tables()[table]) == sorted([both, here, there])
    assert books() == [(2, 2, 0, 0), (2, 1, 1, 0)]


def test_what_a_person_did_since_then_is_added_and_late_events_too(server: FakeProfiles) -> None:
    first = server.happen(A, ago=3 * 86400)
    second = server.happen(A, ago=3600)
    pull(server, "a@example.com")
    asked_at = watermarks()[A]["watermark"]
    late, new = server.happen(A, ago=7200), server.happen(A, ago=0)
    server.requests.clear()
    assert pull(server, "a@example.com").stored == 2
    [request] = server.requests
    start = moment(query_of(request)["start"])
    assert timedelta(0) <= asked_at - timedelta(days=1) - start < timedelta(milliseconds=1)
    assert {row["id"] for row in tables()["tracks"]} == {made["message_id"] for made in (first, second, late, new)}
    assert books() == [(2, 2, 0, 0), (3, 2, 1, 0)]
    assert watermarks()[A]["watermark"] > asked_at


def test_only_the_events_that_are_wanted(server: FakeProfiles) -> None:
    names = ["Email Opened", "Email Replied", "Order Completed"]
    for name in names:
        server.happen(A, name)
        server.happen(A, name, type="page")
        server.happen(A, name, source_id="other")
    everything = [event for events in server.people.values() for event in events]
    server.order("GET", "*", edit=lambda page: page | {"data": everything}, times=10)
    pull(server, "a@example.com", source_id="AbC123xYz9")
    assert sorted(row["event"] for row in tables()["tracks"]) == ["email_opened", "email_replied"]
    pull(server, "a@example.com", events=["Order Completed"], source_id="AbC123xYz9")
    assert "start" not in query_of(server.requests[-1])  # nothing of it was asked for before
    assert query_of(server.requests[-1])["include"] == "Order Completed"
    assert len(tables()["order_completed"]) == 1


def test_someone_without_events(server: FakeProfiles) -> None:
    report = pull(server, "nobody@example.com")
    assert (report.people, report.people_total, report.lines) == (1, 1, 0)
    found = tables()
    assert {name: len(rows) for name, rows in found.items() if rows} == {"_audit": 1, "_profiles": 1}
    assert books() == [(0, 0, 0, 0)]
    assert watermarks()["email:nobody@example.com"]["watermark"]


def test_a_token_is_not_sent_where_autopilots_settings_point(
    server: FakeProfiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__BASE_URL", "http://127.0.0.1:9/autopilot")
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__REQUESTS_PER_SECOND", "0.001")
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__PROFILES__TOKEN", server.token)
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__PROFILES__SPACE", server.space)
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__PROFILES__BASE_URL", server.base_url)
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__PROFILES__REQUESTS_PER_SECOND", "100")
    Path("people.txt").write_text("a@example.com\nb@example.com")
    with held():
        pipeline().run(autopilothq.profiles(people="people.txt"))
    assert server.asked() == [A, B]


# ---- bad answers ---------------------------------------------------------------------------------------------------


def path_of(person: str) -> str:
    return f"/spaces/*/profiles/{person.replace(':', '%3A').replace('@', '%40').replace('.', '%2E')}/events"


def test_a_malformed_answer_costs_that_persons_page(server: FakeProfiles) -> None:
    server.page = 1
    for who in USUAL:
        server.happen(who), server.happen(who)
    server.order("GET", path_of(A), skip=1, content=b"<html>Bad\0", headers={"Request-Id": "r-1"})
    report = pull(server, *USUAL)
    assert (report.stored, report.rejects, report.cut_off) == (5, {"bad_answer": 1}, None)
    assert books() == [(6, 5, 0, 1)]
    [reject] = tables()["_rejects"]
    path = "/spaces/spa_7Qx/collections/users/profiles/email%3Aa%40example%2Ecom/events"
    assert (reject["file"], reject["reason"]) == (f"{server.base_url}/spaces/{server.space}", "bad_answer")
    assert reject["message"] == (
        f"GET {path}: expected JSON, got no content type that begins '<html>Bad\\x00' (Request-Id r-1)"
    )
    assert json.loads(reject["raw"]) == {"person": A, "answer": "<html>Bad\0"}
    assert [watermarks()[who]["watermark"] is None for who in USUAL] == [False, True, False]
    text = f"No answer could be read for 1 of 3 people: they are asked for again next time. {reject['message']}"
    assert report.warnings == [text]

    server.requests.clear()
    assert pull(server, *USUAL).stored == 1
    starts = {request.path.split("/")[6]: "start" in query_of(request) for request in server.requests}
    assert list(starts.values()).count(False) == 1  # that person, from the beginning
    assert len(tables()["tracks"]) == 6


def test_bad_events_are_rejected_one_by_one(server: FakeProfiles) -> None:
    server.happen(A)
    bad = [7, "x", None, {"event": "Email Opened"}, {"type": "track"}, {"type": "track", "event": 7}]
    server.order("GET", "*", edit=lambda page: page | {"data": [*page["data"], *bad]})
    report = pull(server, "a@example.com")
    assert report.rejects == {
        "not_an_object": 3, "unknown_type": 1, "event_not_defined": 1, "event_not_string": 1,
    }  # fmt: skip
    assert books() == [(7, 1, 0, 6)]


def test_one_whom_the_server_fails_for_does_not_hold_up_the_others(server: FakeProfiles) -> None:
    for who in USUAL:
        server.happen(who)
    server.order("GET", path_of(A), status=500)
    server.order("GET", path_of(B), status=400, content={"error": {"code": "validation_error", "message": "No."}})
    report = pull(server, *USUAL)
    assert (report.stored, report.rejected, report.cut_off) == (1, 1, None)
    assert len(report.warnings) == 1
    assert report.warnings[0].startswith("No answer could be read for 2 of 3 people: they are")
    [reject] = tables()["_rejects"]
    assert json.loads(reject["raw"]) == {"person": B, "answer": "validation_error: No."}
    assert [watermarks()[who]["watermark"] is None for who in USUAL] == [False, True, True]


def test_nobody_of_few_answered_for_is_an_error_too(server: FakeProfiles) -> None:
    server.order("GET", "*", drop="before", times=10)
    report = pull(server, *USUAL)
    assert report.cut_off is not None
    assert "gave up after 1 try" in report.cut_off
    assert [watermarks()[who]["watermark"] for who in USUAL] == [None] * 3
    server.asked()
    assert pull(server, *USUAL).cut_off is not None
    assert server.asked() == sorted(USUAL)


def test_an_outage_ends_the_run_and_the_next_one_goes_on(server: FakeProfiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "MOST_FAILURES", 5)
    monkeypatch.setattr(origin, "MOST_THREADS", 1)  # else the first failure may be told before the last answer
    everyone = [person(number) for number in range(60)]
    for who in everyone:
        server.happen(who)
    outage = server.order("GET", "*", skip=20, status=503, times=10**6)
    report = pull(server, *everyone)
    assert report.cut_off is not None
    assert "503 Service Unavailable: Ordered 503; gave up after 1 try" in report.cut_off
    assert report.stored == 20
    loaded = set(watermarks())
    assert len(loaded) == 20
    server.asked()

    with pytest.raises(RunError, match="503"):  # nothing came at all
        pull(server, *everyone)
    assert set(server.asked()) <= set(everyone) - loaded
    outage.times = 0
    assert pull(server, *everyone).stored == 40
    assert server.asked() == sorted(set(everyone) - loaded)
    assert len(tables()["tracks"]) == 60
    versions = query("SELECT DISTINCT version, lines, stored FROM autopilothq._audit")
    assert [(lines, stored) for _, lines, stored in versions] == [(60, 60)]  # one run


def test_a_refused_token_stops_at_once(server: FakeProfiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "MOST_THREADS", 4)
    everyone = [person(number) for number in range(40)]
    for who in everyone:
        server.happen(who)
    server.order("GET", "*", status=401, times=10**6)
    with pytest.raises(RunError, match=r"Check sources\.autopilothq\.profiles\.token"):
        pull(server, *everyone)
    assert len(server.requests) == 1
    server.faults.clear()
    server.order("GET", "*", status=403, times=10**6, skip=10)
    report = pull(server, *everyone)
    assert report.cut_off is not None
    assert "Check sources.autopilothq.profiles.token" in report.cut_off
    # Answers that are under way in the other threads as the first refusal comes are asked for again next time.
    assert 10 - 3 <= report.stored == len(watermarks()) <= 10
    assert len(server.requests) <= 1 + 10 + 4


def test_a_space_that_knows_nobody_is_told(server: FakeProfiles) -> None:
    everyone = [person(number) for number in range(10)]
    report = pull(server, *everyone)
    text = "The space spa_7Qx knows none of 10 people. Is sources.autopilothq.profiles.space the right one?"
    assert report.warnings == [text]


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
    forget([id_of("email", "A@example.com")], credentials="autopilot.duckdb")
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
    assert [row["id"] for row in tables()["tracks"]] == [new["message_id"]]
    assert pull(server, "a@example.com").stored == 1
    assert {row["id"] for row in tables()["tracks"]} == {old["message_id"], new["message_id"]}


# ---- in parts ------------------------------------------------------------------------------------------------------


def test_a_run_in_parts_asks_each_once_and_has_one_row_in_the_books(server: FakeProfiles) -> None:
    everyone = [person(number) for number in range(15)]
    for who in everyone:
        server.happen(who)
    reports = [pull(server, *everyone, people_per_load=10) for _ in range(2)]
    assert server.asked() == everyone
    assert [(report.people, report.people_total, report.stored) for report in reports] == [(10, 15, 10), (5, 5, 5)]
    assert books() == [(15, 15, 0, 0)]
    [row] = tables()["_audit"]
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
