"""What Segment's Profile API leaves in the tables, and what bad answers do (spec: profile-api, warehouse)."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import autopilothq
from autopilothq.clients.profile_api import BASE_URLS
from autopilothq.errors import RunError
from autopilothq.sources.profiles import pull as origin
from contract.duck import held, load, pipeline, query, rows_in, tables
from contract.loading import filled, message
from contract.pulling import USUAL, A, B, books, moment, path_of, person, pull, watermarks
from fake_autopilot import FakeProfiles
from fake_autopilot.profiles import query_of


@pytest.fixture
def server() -> Iterator[FakeProfiles]:
    with FakeProfiles() as running:
        yield running


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
    assert {row["id"] for row in rows_in("tracks")} == {made["message_id"] for made in (first, second, late, new)}
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
    assert sorted(row["event"] for row in rows_in("tracks")) == ["email_opened", "email_replied"]
    pull(server, "a@example.com", events=["Order Completed"], source_id="AbC123xYz9")
    assert "start" not in query_of(server.requests[-1])  # nothing of it was asked for before
    assert query_of(server.requests[-1])["include"] == "Order Completed"
    assert len(rows_in("order_completed")) == 1


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
    # Without settings of its own it goes to the region's address.
    for name in ("BASE_URL", "REQUESTS_PER_SECOND"):
        monkeypatch.delenv(f"SOURCES__AUTOPILOTHQ__PROFILES__{name}")
    monkeypatch.setitem(BASE_URLS, "us", server.base_url)
    Path("people.txt").write_text("a@example.com\nb@example.com")
    with held():
        pipeline().run(autopilothq.profiles(people="people.txt"))
    assert server.asked() == [A, B]


# ---- bad answers ---------------------------------------------------------------------------------------------------


def test_a_malformed_answer_costs_that_persons_page(server: FakeProfiles) -> None:
    server.page = 1
    for who in USUAL:
        server.happen(who), server.happen(who)
    server.order("GET", path_of(A), skip=1, content=b"<html>Bad\0", headers={"Request-Id": "r-1"})
    report = pull(server, *USUAL)
    assert (report.stored, report.rejects, report.cut_off) == (5, {"bad_answer": 1}, None)
    assert books() == [(6, 5, 0, 1)]
    [reject] = rows_in("_rejects")
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
    assert len(rows_in("tracks")) == 6


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
    [reject] = rows_in("_rejects")
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
    monkeypatch.setattr(origin, "MAX_FAILURES", 5)
    monkeypatch.setattr(origin, "MAX_THREADS", 1)  # else the first failure may be told before the last answer
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
    assert len(rows_in("tracks")) == 60
    versions = query("SELECT DISTINCT version, lines, stored FROM autopilothq._audit")
    assert [(lines, stored) for _, lines, stored in versions] == [(60, 60)]  # one run


def test_a_refused_token_stops_at_once(server: FakeProfiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "MAX_THREADS", 4)
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
