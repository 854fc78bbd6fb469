"""Events of the Profile API become rows; bad answers harm only their person (docs/contract/profile-api.md)."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import autopilothq
from autopilothq import LoadReport
from autopilothq.clients.profile_api import BASE_URLS
from autopilothq.errors import RunError
from autopilothq.sources.profiles import pull as origin
from contract.duck import held, load, pipeline, query, rows_in, tables
from contract.loading import Row, filled, message
from contract.pulling import USUAL, A, B, books, moment, path_of, person, pull, watermarks
from fake_autopilot import FakeProfiles
from fake_autopilot.profiles import person_of, query_of
from shared_loads import isolation


@pytest.fixture
def server() -> Iterator[FakeProfiles]:
    """A space without people; the DuckDB file into which it is loaded is kept open."""
    with FakeProfiles() as running, held():
        yield running


# ---- two loads -----------------------------------------------------------------------------------------------------

BOTH, SINCE, BAD, BROKEN, FAILED, REFUSED = (
    f"email:{name}@example.com" for name in ("both", "since", "bad", "broken", "failed", "refused")
)
PROPERTIES = {"campaign_id": "campaign_1", "link_url": "https://e.com", "score": 1.5, "transactional": False}
NO_EVENTS = [7, "x", None, {"event": "Email Opened"}, {"type": "track"}, {"type": "track", "event": 7}]


class Pulled(NamedTuple):
    """The result of a load: its report, the query for each person, the tables and the watermarks."""

    report: LoadReport
    asked: dict[str, dict[str, str]]
    tables: dict[str, list[Row]]
    watermarks: dict[str, Row]

    def ids(self, person: str, table: str = "tracks") -> set[str]:
        """Returns the ids of the messages of a person who is identified by an email."""
        email = person.partition(":")[2]
        return {row["id"] for row in self.tables[table] if row["anonymous_id"] == email}


class Loads(NamedTuple):
    """Two loads of people, one person for each test: the events by person, and the content after each load."""

    file: str
    """What `_audit` calls the space."""
    made: dict[str, list[dict[str, Any]]]
    first: Pulled
    second: Pulled


@pytest.fixture(scope="module")
def loads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loads]:
    """Makes the two loads. An archive has some of the events already; the first load gets bad answers."""
    with (
        isolation(tmp_path_factory.mktemp("pulled")),
        FakeProfiles() as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(origin, "MAX_THREADS", 1)
        ids = [
            {"collection": "users", "type": "user_id", "id": "12345", "encoding": "none"},
            {"collection": "users", "type": "email", "id": "a@example.com", "encoding": "none"},
        ]
        context = {"traits": {"email": "a@example.com", "contact_id": "person_1"}}
        server.happen(A, "Email Clicked", ago=60, external_ids=ids, context=context, properties=PROPERTIES)
        both, _, there = (server.happen(BOTH) for _ in range(3))
        del server.people[BOTH][2]
        archived = (made["message_id"] for made in (both, there))
        load(*(message(messageId=name, anonymousId="both@example.com", userId=...) for name in archived))
        for who, ago in ((SINCE, 3 * 86400), (SINCE, 3600), (BAD, 3600), (FAILED, 3600), (REFUSED, 3600)):
            server.happen(who, ago=ago)
        server.page = 1
        server.happen(BROKEN, ago=7200), server.happen(BROKEN, ago=7200)
        server.order("GET", path_of(BROKEN), skip=1, content=b"<html>Bad\0", headers={"Request-Id": "r-1"})
        server.order("GET", path_of(BAD), edit=lambda page: page | {"data": [*page["data"], *NO_EVENTS]})
        server.order("GET", path_of(FAILED), status=500)
        no = {"error": {"code": "validation_error", "message": "No."}}
        server.order("GET", path_of(REFUSED), status=400, content=no)
        first = pulled(server)
        server.page = 100
        server.happen(SINCE, ago=7200), server.happen(SINCE, ago=0)
        yield Loads(f"{server.base_url}/spaces/{server.space}", server.people, first, pulled(server))


def pulled(server: FakeProfiles) -> Pulled:
    """Loads all of these people."""
    server.requests.clear()
    names = (who.partition(":")[2] for who in (BOTH, SINCE, BAD, BROKEN, FAILED, REFUSED))
    report = pull(server, "A@Example.com", "12345", *names, tables=())
    asked = {person_of(request): query_of(request) for request in reversed(server.requests)}
    return Pulled(report, asked, tables(), watermarks())


def test_a_persons_events_are_rows_of_the_contract(loads: Loads) -> None:
    [made] = loads.made[A]
    found = loads.first.tables
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
    assert filled(clicked) == common | PROPERTIES
    assert [filled(row) for row in found["tracks"] if row["anonymous_id"] == "a@example.com"] == [common]
    audit = found["_audit"][-1]
    names = ("file", "lines", "stored", "duplicates", "rejected", "first_received_at", "last_received_at")
    assert {name: audit[name] for name in names} == {
        "file": loads.file, "lines": 15, "stored": 6, "duplicates": 1, "rejected": 8,
        "first_received_at": moment(loads.made[SINCE][0]["timestamp"]), "last_received_at": at,
    }  # fmt: skip
    report = loads.first.report
    assert (report.people, report.people_total, report.stored, len(report.warnings)) == (8, 8, 6, 1)
    assert sorted(loads.first.asked) == sorted([A, "user_id:12345", BOTH, SINCE, BAD, BROKEN, FAILED, REFUSED])


def test_an_event_that_comes_both_ways_is_stored_once(loads: Loads) -> None:
    both, here = (made["message_id"] for made in loads.made[BOTH])
    for table in ("tracks", "email_opened"):
        ids = [row["id"] for row in loads.first.tables[table] if row["anonymous_id"] == "both@example.com"]
        assert len(ids) == len(set(ids)) == 3
        assert set(ids) > {both, here}
    assert loads.first.report.duplicates == 1


def test_what_a_person_did_since_then_is_added_and_late_events_too(loads: Loads) -> None:
    asked_at = loads.first.watermarks[SINCE]["watermark"]
    start = moment(loads.second.asked[SINCE]["start"])
    assert timedelta(0) <= asked_at - timedelta(days=1) - start < timedelta(milliseconds=1)
    first, second, late, new = (made["message_id"] for made in loads.made[SINCE])
    assert loads.first.ids(SINCE) == {first, second}
    assert loads.second.ids(SINCE) == {first, second, late, new}
    assert loads.second.watermarks[SINCE]["watermark"] > asked_at
    # The other three are an event of each person whose first answer could not be read.
    report = loads.second.report
    assert (report.lines, report.stored, report.duplicates, report.rejected) == (11, 2 + 3, 6, 0)
    counts = ("lines", "stored", "duplicates", "rejected")
    books = [tuple(row[name] for name in counts) for row in loads.second.tables["_audit"]]
    assert sorted(books) == [(2, 2, 0, 0), (11, 5, 6, 0), (15, 6, 1, 8)]


def test_a_malformed_answer_costs_that_persons_page(loads: Loads) -> None:
    report, found = loads.first.report, loads.first.tables
    assert (report.stored, report.rejects["bad_answer"], report.cut_off) == (6, 2, None)
    assert len(loads.first.ids(BROKEN)) == 1
    [reject] = [row for row in found["_rejects"] if row["reason"] == "bad_answer" and BROKEN in row["raw"]]
    path = "/spaces/spa_7Qx/collections/users/profiles/email%3Abroken%40example%2Ecom/events"
    assert reject["file"] == loads.file
    assert reject["message"] == (
        f"GET {path}: expected JSON, got no content type that begins '<html>Bad\\x00' (Request-Id r-1)"
    )
    assert json.loads(reject["raw"]) == {"person": BROKEN, "answer": "<html>Bad\0"}
    text = f"No answer could be read for 3 of 8 people: they are due again next time. {reject['message']}"
    assert report.warnings == [text]
    # The next load asks for this person from the beginning.
    assert loads.first.watermarks[BROKEN]["watermark"] is None
    assert "start" not in loads.second.asked[BROKEN]
    assert loads.second.ids(BROKEN) == {made["message_id"] for made in loads.made[BROKEN]}


def test_bad_events_are_rejected_one_by_one(loads: Loads) -> None:
    assert loads.first.report.rejects == {
        "not_an_object": 3, "unknown_type": 1, "event_not_defined": 1, "event_not_string": 1, "bad_answer": 2,
    }  # fmt: skip
    assert loads.first.ids(BAD) == {loads.made[BAD][0]["message_id"]}


def test_one_whom_the_server_fails_for_does_not_hold_up_the_others(loads: Loads) -> None:
    [reject] = [row for row in loads.first.tables["_rejects"] if REFUSED in row["raw"]]
    assert json.loads(reject["raw"]) == {"person": REFUSED, "answer": "validation_error: No."}
    assert loads.first.report.cut_off is None
    assert not [row for row in loads.first.tables["_rejects"] if FAILED in row["raw"]]
    unread = {BROKEN, FAILED, REFUSED}
    assert {who for who, row in loads.first.watermarks.items() if row["watermark"] is None} == unread
    assert {who for who, query in loads.second.asked.items() if "start" not in query} == unread
    for who in (FAILED, REFUSED):
        assert (loads.first.ids(who), loads.second.ids(who)) == (set(), {loads.made[who][0]["message_id"]})


# ---- events --------------------------------------------------------------------------------------------------------


def test_only_requested_events_are_stored(server: FakeProfiles) -> None:
    names = ["Email Opened", "Email Replied", "Order Completed"]
    for name in names:
        server.happen(A, name)
        server.happen(A, name, type="page")
        server.happen(A, name, source_id="other")
    everything = [event for events in server.people.values() for event in events]
    server.order("GET", "*", edit=lambda page: page | {"data": everything}, times=10)
    pull(server, "a@example.com", source_id="AbC123xYz9", tables=())
    assert sorted(row["event"] for row in rows_in("tracks")) == ["email_opened", "email_replied"]
    pull(server, "a@example.com", events=["Order Completed"], source_id="AbC123xYz9", tables=())
    assert "start" not in query_of(server.requests[-1])  # this event was never requested before
    assert query_of(server.requests[-1])["include"] == "Order Completed"
    assert len(rows_in("order_completed")) == 1


def test_someone_without_events(server: FakeProfiles) -> None:
    report = pull(server, "nobody@example.com", tables=())
    assert (report.people, report.people_total, report.lines, report.warnings) == (1, 1, 0, [])
    assert {name: len(rows) for name, rows in tables().items() if rows} == {"_audit": 1, "_profiles": 1}
    assert books() == [(0, 0, 0, 0)]
    assert watermarks()["email:nobody@example.com"]["watermark"]


def test_a_space_that_knows_nobody_is_told_and_leaves_no_events(server: FakeProfiles) -> None:
    everyone = [person(number) for number in range(10)]
    report = pull(server, *everyone, tables=())
    assert (report.people, report.people_total, report.lines) == (10, 10, 0)
    text = "The space spa_7Qx knows none of 10 people. Is sources.autopilothq.profiles.space the right one?"
    assert report.warnings == [text]
    found = tables()
    assert {name: len(rows) for name, rows in found.items() if rows} == {"_audit": 1, "_profiles": 10}
    assert books() == [(0, 0, 0, 0)]
    assert all(watermarks()[who]["watermark"] for who in everyone)


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
    pipeline().extract(autopilothq.profiles(people="people.txt"))
    pipeline().abort_packages()
    assert server.asked() == [A, B]
    # Without settings of its own, the address is that of the region.
    for name in ("BASE_URL", "REQUESTS_PER_SECOND"):
        monkeypatch.delenv(f"SOURCES__AUTOPILOTHQ__PROFILES__{name}")
    monkeypatch.setitem(BASE_URLS, "us", server.base_url)
    pipeline().extract(autopilothq.profiles(people="people.txt"))
    assert server.asked() == [A, B]


# ---- bad answers ---------------------------------------------------------------------------------------------------


def test_no_answer_about_any_of_a_few_people_is_an_error(server: FakeProfiles) -> None:
    server.order("GET", "*", drop="before", times=10)
    report = pull(server, *USUAL)
    assert report.cut_off is not None
    assert "gave up after 1 try" in report.cut_off
    assert [watermarks()[who]["watermark"] for who in USUAL] == [None] * 3
    server.asked()
    assert pull(server, *USUAL).cut_off is not None
    assert server.asked() == sorted(USUAL)


def test_a_few_who_fail_cut_nothing_off(server: FakeProfiles) -> None:
    everyone = [person(number) for number in range(10)]
    server.order("GET", path_of(everyone[0]), status=503)
    report = pull(server, *everyone)
    [warning] = report.warnings  # there is no warning that the space knows nobody
    assert warning.startswith("No answer could be read for 1 of 10 people: they are due again next time. GET /spaces/")
    assert report.cut_off is None
    server.order("GET", "*", content={}, times=2)
    report = pull(server, A, B)
    assert (report.people, report.rejects, report.cut_off) == (2, {"bad_answer": 2}, None)


def test_an_outage_ends_the_run_and_the_next_one_goes_on(server: FakeProfiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "MAX_FAILURES", 5)
    monkeypatch.setattr(origin, "MAX_THREADS", 1)  # otherwise a failure may overtake the last answer
    everyone = [person(number) for number in range(20)]
    for who in everyone:
        server.happen(who)
    outage = server.order("GET", "*", skip=15, status=503, times=10**6)  # all but the first 15 requests fail
    report = pull(server, *everyone)
    assert report.cut_off is not None
    assert "503 Service Unavailable: Ordered 503; gave up after 1 try" in report.cut_off
    assert report.stored == 15
    loaded = set(watermarks())
    assert len(loaded) == 15
    server.asked()

    with pytest.raises(RunError, match="503"):  # this load got no answer at all
        pull(server, *everyone)
    assert set(server.asked()) <= set(everyone) - loaded
    outage.times = 0
    assert pull(server, *everyone).stored == 5
    assert server.asked() == sorted(set(everyone) - loaded)
    assert len(rows_in("tracks")) == 20
    versions = query("SELECT DISTINCT version, lines, stored FROM autopilothq._audit")
    assert [(lines, stored) for _, lines, stored in versions] == [(20, 20)]  # all loads belong to one run


def test_a_refused_token_stops_at_once(server: FakeProfiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "MAX_THREADS", 4)
    everyone = [person(number) for number in range(20)]
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
    token, secret = "sources.autopilothq.profiles.token", "SOURCES__AUTOPILOTHQ__PROFILES__TOKEN"
    where = f"in .dlt/secrets.toml, or {secret} in the environment"
    assert report.cut_off.endswith(f". Check {token} ({where}) and sources.autopilothq.profiles.space")
    # Answers under way in other threads at the first refusal may be dropped; they are requested again next time.
    assert 10 - 3 <= report.stored == len(watermarks()) <= 10
    assert len(server.requests) <= 1 + 10 + 4
