"""Pulls from a made-up account of Ortto into DuckDB (docs/contract/ortto-pull.md)."""

import json
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import autopilothq
from autopilothq import LoadReport, runner
from autopilothq.sources import scans
from autopilothq.sources.ortto import activities
from contract import pulling_ortto
from contract.duck import held, pipeline, query, rows_in
from contract.pulling_ortto import BOOKS, EVENTS, FEED, asked, new_person, settings, tracks
from fake_ortto import FakeOrtto
from prepared import as_prepared, preparing
from shared_loads import command


@pytest.fixture
def server() -> Iterator[FakeOrtto]:
    """An account without people; the DuckDB file into which it is pulled is kept open."""
    with FakeOrtto(people=0) as running, held():
        yield running


# Each table makes a load slower; these are enough for most tests.
SOME = ("_profiles", "tracks", "email_clicked", "email_opened", "other_events")


def pull(server: FakeOrtto, *tables: str, **words: Any) -> LoadReport:
    """Pulls the tables named, or SOME, and returns the report."""
    return pulling_ortto.pull(server, *(tables or SOME), **words)


def filled(row: dict[str, Any]) -> dict[str, Any]:
    """Returns the cells of a row that are not null, except `uuid_ts` and `received_at`."""
    return {name: of for name, of in row.items() if of is not None and name not in ("uuid_ts", "received_at")}


class Pulled(NamedTuple):
    """A pull: the account, the folder, the report, the ids of Ada and the others, and Ada's activity."""

    server: FakeOrtto
    home: Path
    report: LoadReport
    ada: str
    others: set[str]
    clicked: dict[str, Any]


@pytest.fixture(scope="module")
def first_pull(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pulled]:
    """A pull of everything about three people. Their activities are a day old; one was pushed to a receiver before."""
    day = 86_400
    with FakeOrtto(people=0) as server:
        ada = server.account.write(
            None,
            {
                "str::email": "ada@example.com", "str::ei": "12345", "str::first": "Ada",
                "phn::phone": {"c": "44", "n": "5550100"},
                "dtz::b": {"year": 1990, "month": 5, "day": 1, "timezone": "UTC"},
                "geo::city": {"name": "Sydney", "id": 7, "lat": -33868820, "lng": 151209290},
                "int:cm:score": 1234567, "int:cm:seats": 9007199254740993, "dtz:cm:trial-ends":
                {"year": 2026, "month": 12, "day": 31, "timezone": "Australia/Sydney"},
                "tme:cm:last-order": "2026-11-01T05:06:07Z", "phn:cm:work-phone": {"c": "61", "n": "0255501000"},
            },
        )  # fmt: skip
        clicked = server.account.happen(ada, "act::c", ago=day, idt__c="d1") | {}
        server.account._happened[ada][0]["attr"] = {
            "idt::c": "d1", "str::cn": "Onboarding", "idt::ei": "e1", "str::asn": "First email", "str::s": "Welcome",
            "str::c": "https://example.com/a", "int::li": 2, "bol::t": False, "bol::m": True,
        }  # fmt: skip
        bob = new_person(server, "bob@example.com", "act::o", ago=day)
        cat = new_person(server, "cat@example.com", "act::r", ago=day)
        made = server.account.happen(cat, "act::o", ago=day)
        message = {
            "type": "track", "event": "Email Opened", "messageId": f"ortto-{made['id']}",
            "anonymousId": "cat@example.com", "receivedAt": made["created_at"], "timestamp": made["created_at"],
            "context": {"library": {"name": "ortto-webhook"}},
        }  # fmt: skip
        with preparing(tmp_path_factory.mktemp("pulled")) as home:
            Path("received").mkdir()
            Path("received/1.json").write_text(json.dumps(message))
            with held():
                runner.run(pipeline(), autopilothq.archive("received"))
            report = pull(server, *EVENTS, "ortto_people")
        yield Pulled(server, home, report, ada, {bob, cat}, clicked)


@pytest.fixture
def pulled(first_pull: Pulled) -> Iterator[Pulled]:
    """Works in a copy of that pull's folder; tests must not change the account."""
    first_pull.server.requests.clear()
    with as_prepared(first_pull.home), held():
        yield first_pull


def test_an_activity_and_its_person_become_whole_rows(pulled: Pulled) -> None:
    ada, made, report = pulled.ada, pulled.clicked, pulled.report
    [row] = rows_in("email_clicked")
    at = datetime.fromisoformat(made["created_at"])
    [begun] = [row["asked_at"] for row in rows_in("_profiles") if ada in row["person"]]
    assert filled(row) == {
        "id": f"ortto-{made['id']}", "anonymous_id": "ada@example.com", "user_id": "12345", "timestamp": at,
        "original_timestamp": at, "context_traits_email": "ada@example.com", "context_traits_contact_id": ada,
        "context_library_name": "ortto-api", "context_integration_name": "ortto", "event": "email_clicked",
        "event_text": "Email Clicked", "campaign_id": "d1", "campaign_name": "Onboarding", "email_id": "e1",
        "email_name": "First email", "email_subject": "Welcome", "transactional": False, "machine": True,
        "link_id": "2", "link_url": "https://example.com/a",
    }  # fmt: skip
    assert at < row["received_at"] <= begun
    [person] = [row for row in rows_in("ortto_people") if row["contact_id"] == ada]
    assert filled(person) == {
        "contact_id": ada, "email": "ada@example.com", "external_id": "12345", "first_name": "Ada",
        "phone": "+445550100", "birthday": "1990-05-01", "birthday_timezone": "UTC", "city": "Sydney", "city_id": 7,
        "city_lat": -33.86882, "city_lng": 151.20929, "custom_score": 1234.567, "custom_seats": 9007199254740993,
        "custom_trial_ends": "2026-12-31", "custom_trial_ends_timezone": "Australia/Sydney",
        "custom_last_order": datetime(2026, 11, 1, 5, 6, 7, tzinfo=UTC), "custom_work_phone": "+610255501000",
        "first_clicked_email_at": at, "last_clicked_email_at": at,
    }  # fmt: skip
    assert len(rows_in("ortto_people")) == 3
    assert (report.people, report.people_total, report.people_found_by) == (3, 3, "a filter of the account")


# ---- whom to ask for -------------------------------------------------------------------------------------------------


def ways(server: FakeOrtto) -> list[tuple[Any, ...]]:
    """Returns for each request for people whether it has a filter, whether it asks for times, and its limit."""
    return [
        (bool(of.body.get("filter")), any(field.startswith("tme::") for field in of.body["fields"]), of.body["limit"])
        for of in server.requests
        if of.path == "/person/get"
    ]


REFUSES = {"filter": (True, True), "fields": (False, True), "everyone": (False, False)}
REFUSALS = [
    "The account does not take a filter of activities, so everyone's times are read",
    "The account does not say when people were active, so everyone is due",
]
FILTERED, TIMED, PLAIN = (True, False), (False, True), (False, False)


def schema_without_times(answer: Any) -> Any:
    """Removes the times of activities from the schema, but keeps the account's own field `tme:cm:last-order`."""
    fields = answer["namespaces"][""]["fields"]
    answer["namespaces"][""]["fields"] = {name: of for name, of in fields.items() if not name.startswith("tme:")}
    return answer


@pytest.mark.parametrize(
    ("way", "requests", "people", "words"),
    [
        ("filter", [(*FILTERED, 1), (*FILTERED, 500)], 2, "a filter of the account"),
        ("fields", [(*FILTERED, 1), (*TIMED, 1), (*TIMED, 500)], 2, "the times of everyone's last activities"),
        (
            "everyone",
            [(*FILTERED, 1), (*TIMED, 1), (*PLAIN, 500)],
            3,
            "everyone, because the account does not say who was active",
        ),
    ],
)
def test_active_people_are_found_in_the_best_way_that_the_account_supports(
    server: FakeOrtto, way: str, requests: list[tuple[Any, ...]], people: int, words: str
) -> None:
    server.takes_filters, server.takes_times = REFUSES[way]
    if not server.takes_times:
        server.order("POST", "/instance-schema/get", edit=schema_without_times)
    active = {new_person(server, f"{name}@example.com", "act::o") for name in ("ada", "bob")}
    silent = new_person(server, "silent@example.com")
    report = pull(server)
    assert ways(server) == requests
    assert {id_ for id_, _ in asked(server)} == (active if people == 2 else active | {silent})
    assert (report.people, report.people_total, report.people_found_by) == (people, people, words)
    assert query("SELECT split_part(file, '#', 2), stored FROM autopilothq._audit") == [(way, 2)]
    assert [text.partition(".")[0] for text in report.warnings] == REFUSALS[
        : ("filter", "fields", "everyone").index(way)
    ]
    assert tracks() == [("email_opened", "ada@example.com"), ("email_opened", "bob@example.com")]


def test_what_an_account_takes_is_not_trusted_where_it_finds_nobody(server: FakeOrtto) -> None:
    ada = new_person(server, "ada@example.com", "act::o")
    nobody = {"contacts": None, "meta": {"total_matches": 0}, "offset": 0, "next_offset": 0, "has_more": False}
    server.order("POST", "/person/get", content=nobody, status=200, times=2)  # the probe, and the filter itself
    report = pull(server)
    assert (asked(server), report.people_found_by) == ([(ada, 0)], "the times of everyone's last activities")
    server.takes_filters = False
    # An account may take the fields and return none of them: nobody has a time.
    server.order("POST", "/person/get", edit=without_times, times=1, skip=2)
    report = pull(server)
    assert report.people_found_by == "everyone, because the account does not say who was active"
    assert report.warnings[-1] == (
        "None of 1 people has a time of an activity, so everyone is due. If nobody was ever sent an email, that"
        " finds nothing: name people by --people."
    )


def test_only_times_that_the_account_has_are_asked_for_unless_it_does_not_tell(server: FakeOrtto) -> None:
    def times() -> set[str]:
        [whole] = [of.body for of in server.requests if of.path == "/person/get" and of.body["limit"] == 500]
        server.requests.clear()
        return {of["$tme::absolute_after"]["field_id"] for of in whole["filter"]["$or"]}

    new_person(server, "ada@example.com", "act::o", "act:cm:order-completed")
    pull(server, "_profiles", "tracks", activities="act:cm:order-completed")
    known = times()
    assert ("tme::o!l" in known, "tme:cm:order-completed!l" in known) == (True, False)
    server.order("POST", "/instance-schema/get", status=400)
    report = pull(server, "_profiles", "tracks", activities="act::v")
    assert times() == known | {"tme::v!l"}
    assert report.warnings == [
        (
            "The account does not return the names of its fields, so ids are used instead. POST /instance-schema/get:"
            " 400 Bad Request: Ordered 400."
        )
    ]


def test_an_account_that_was_seen_to_give_no_times_is_not_asked_for_them_again(server: FakeOrtto) -> None:
    server.takes_filters = server.takes_times = False
    ada = new_person(server, "ada@example.com", "act::o")
    report = pull(server, "ortto_people", "_profiles", "tracks")
    assert ways(server)[-2:] == [(*FILTERED, 1), (*PLAIN, 500)]  # the first ones are those for `ortto_people`
    assert asked(server) == [(ada, 0)]
    assert report.people_found_by == "everyone, because the account does not say who was active"


def test_each_account_has_its_own_people(server: FakeOrtto) -> None:
    with FakeOrtto(people=0) as other:
        for each in (server, other):
            ada = new_person(each, "ada@example.com", "act::o")
            pull(each, "_profiles", "tracks")
            assert asked(each) == [(ada, 0)]
    assert len(rows_in("_profiles")) == 2


def without_times(answer: Any) -> Any:
    for contact in answer["contacts"] or ():
        contact["fields"] = {name: of for name, of in contact["fields"].items() if not name.startswith("tme::")}
    return answer


def with_someone_without_an_id(answer: Any) -> Any:
    answer["contacts"].append({"fields": {"str::email": "ada@example.com"}})
    return answer


def test_lists_have_ids_emails_and_external_ids(server: FakeOrtto) -> None:
    ada = new_person(server, "ada@example.com", "act::o", ago=7200)
    bob = new_person(server, "bob@example.com", "act::o", ago=7200)
    cat = server.account.write(None, {"str::ei": "C-3"})
    server.account.happen(cat, "act::o", ago=7200)
    other = new_person(server, "other@example.com", "act::o", ago=7200)
    Path("people.txt").write_text(f"Ada@example.com\n\n{bob}\nC-3\nnobody@example.com\nAda@example.com\n")
    # With a list there is no warning that Ortto keeps activities for 90 days.
    report = pull(server, people="people.txt", since=datetime.now(UTC) - timedelta(days=100))
    # Only Bob is looked up by his Ortto id: people who are found by email or external id come complete.
    assert [of.body["contact_ids"] for of in server.requests if of.path == "/person/get-by-ids"] == [[bob]]
    assert {id_ for id_, _ in asked(server)} == {ada, bob, cat}
    assert report.warnings == ["1 of 4 people of the list are not in the account."]
    assert query("SELECT context_traits_email, user_id FROM autopilothq.tracks ORDER BY ALL") == [
        ("ada@example.com", None), ("bob@example.com", None), (None, "C-3"),
    ]  # fmt: skip
    # If the account does not take the lookup, everyone is read and compared with the list.
    server.order("POST", "/person/get", status=400)
    server.order("POST", "/person/get", edit=with_someone_without_an_id)
    report = pull(server, people="people.txt")
    assert {id_ for id_, _ in asked(server)} == {ada, bob, cat}
    assert report.people_found_by == "a list, compared with everyone"
    assert [text.partition(":")[0] for text in report.warnings] == [
        "The account does not take a filter by email, so everyone is read. POST /person/get",
        "1 of 4 people of the list are not in the account.",
    ]
    # Of active people only those are due who were active since their last request.
    server.takes_filters = False
    pull(server)
    assert asked(server) == [(other, 0)]


# ---- activities ------------------------------------------------------------------------------------------------------


def test_pages_are_left_out_only_behind_activities_that_are_seen_to_be_old(server: FakeOrtto) -> None:
    day = 86_400
    ada = new_person(server, "ada@example.com", *["act::o"] * 100, ago=40 * day)
    pull(server)
    assert asked(server) == [(ada, 0), (ada, 40), (ada, 80)]
    server.account.happen(ada, "act::c", ago=60)
    pull(server)
    assert asked(server) == [(ada, 0)]  # this page reaches back to loaded activities
    server.oldest_first = True
    server.account.happen(ada, "act::c", ago=30)
    report = pull(server)
    assert asked(server) == [(ada, 0), (ada, 40), (ada, 80)]
    assert (report.lines, report.stored, report.duplicates) == (102, 1, 101)
    assert query("SELECT count(*), count(DISTINCT id) FROM autopilothq.tracks") == [(102, 102)]


def test_only_the_kinds_of_selected_tables_are_asked_for(server: FakeOrtto) -> None:
    ada = new_person(server, "ada@example.com", "act::o", "act::c")
    report = pull(server, "email_clicked")
    [request] = [of.body for of in server.requests if of.path == FEED]
    assert (request["person_id"], request["activities"], request["timeframe"]) == (ada, ["act::c"], {"type": "all"})
    [warning] = report.warnings
    assert warning == (
        "Expected _profiles among the selected resources: it records whose activities were requested, and without it"
        " the next load requests them again.\nSelect it too."
    )
    report = pull(server)  # tables that were not selected are requested once they are
    assert (report.stored, report.rows["email_opened"]) == (2, 1)


def test_an_activity_that_was_pushed_is_not_stored_again(pulled: Pulled) -> None:
    report = pulled.report
    assert (report.lines, report.stored, report.duplicates) == (4, 3, 1)
    assert query(
        "SELECT event, context_library_name FROM autopilothq.tracks WHERE anonymous_id = 'cat@example.com' ORDER BY ALL"
    ) == [("email_delivered", "ortto-api"), ("email_opened", "ortto-webhook")]
    assert len(tracks()) == 4


def test_custom_activities_have_tables_of_their_own_where_a_setting_names_them(server: FakeOrtto) -> None:
    ada = new_person(server, "ada@example.com", "act::s-all", "act:cm:trial-extended")
    server.account.happen(ada, "act:cm:order-completed")
    server.account._happened[ada][-1]["attr"] = {"str:cm:order-id": "A-1", "int:cm:total": 19990, "int:cm:items": 2}
    pull(server, activities="custom")
    assert query("SELECT order_id, total, items FROM autopilothq.order_completed") == [("A-1", 19.99, 2)]
    assert tracks() == [("order_completed", "ada@example.com"), ("trial_extended", "ada@example.com")]
    pull(server, activities=["Subscribed to email"])
    assert [row["event_text"] for row in rows_in("subscribed_to_email")] == ["Subscribed to email"]
    with pytest.raises(autopilothq.RunError) as failed:
        pull(server, activities="act:cm:nothing")
    assert "sources.autopilothq.ortto.activities: the account has no activity 'act:cm:nothing'." in str(failed.value)


def test_since_and_a_gap_are_in_the_warnings(server: FakeOrtto, monkeypatch: pytest.MonkeyPatch) -> None:
    day, now = timedelta(days=1), datetime.now(UTC).replace(microsecond=0)
    ada = new_person(server, "ada@example.com", "act::o", ago=10 * 86_400)
    bob = new_person(server, "bob@example.com", "act::o", ago=10 * 86_400)
    server.account.happen(ada, "act::o", ago=86_400)
    for times in (2, 1):
        server.order("POST", FEED, edit=keeps_a_week, times=times)
        server.order("POST", FEED, edit=does_not_say_how_long_it_keeps)

    def pulled_at(at: datetime, since: datetime | str = "") -> LoadReport:
        monkeypatch.setattr("autopilothq.sources.plan.datetime", Later(at))
        return pull(server, "_profiles", "tracks", since=since)

    report = pulled_at(now, since=now - 7 * day)
    assert (report.stored, report.warnings, asked(server)) == (1, [], [(ada, 0)])
    report = pulled_at(now, since=now - 100 * day)
    assert (report.stored, {id_ for id_, _ in asked(server)}) == (2, {ada, bob})
    assert report.warnings == [gap("Activities were requested since", now - 100 * day, now - 7 * day)]
    assert pulled_at(now).warnings == []
    report = pulled_at(now + 20 * day)  # nobody is due, so the retention is known from the last run
    assert (report.people, report.warnings) == (0, [gap("No run was complete since", now, now + 13 * day)])


def keeps_a_week(answer: Any) -> Any:
    answer["meta"]["retention"]["max_value"] = 7
    return answer


def does_not_say_how_long_it_keeps(answer: Any) -> Any:
    del answer["meta"]["retention"]
    return answer


def gap(what: str, since: datetime, kept: datetime) -> str:
    """Returns the warning about a gap between two times, in an account that keeps activities for a week."""
    begin, end = (f"{at:%Y-%m-%dT%H:%M:%S}.000Z" for at in (since, kept))
    return (
        f"{what} {begin}, and Ortto keeps activities for 7 days: those between {begin} and {end} are missing, except"
        " those that came in another way."
    )


class Later:
    """A clock that always shows the given time."""

    def __init__(self, at: datetime) -> None:
        self._at = at

    def now(self, _: Any) -> datetime:
        return self._at


def test_what_is_dropped_is_asked_for_again_and_nothing_is_replaced(
    pulled: Pulled, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = pulled.server
    monkeypatch.setattr(server, "takes_filters", False)  # else people who might have been active since are due too
    for on_another_machine in (False, True):
        if on_another_machine:
            shutil.rmtree(Path(pipeline().working_dir, "autopilothq-ortto"))
        pipeline().run(autopilothq.ortto(**settings(server)).with_resources(*EVENTS, *BOOKS), refresh="drop_data")
        assert sorted(asked(server)) == sorted((id_, 0) for id_ in (pulled.ada, *pulled.others))
    everything = [
        ("email_clicked", "ada@example.com"), ("email_delivered", "cat@example.com"),
        ("email_opened", "bob@example.com"), ("email_opened", "cat@example.com"),
    ]  # fmt: skip
    assert tracks() == everything
    with pytest.raises(Exception, match="Expected email_bounced not to be replaced, because Ortto only has"):
        pipeline().run(
            autopilothq.ortto(**settings(server)).with_resources(*EVENTS, *BOOKS), write_disposition="replace"
        )
    assert tracks() == everything


# ---- faults ----------------------------------------------------------------------------------------------------------


OUTAGE = "POST {}: 503 Service Unavailable: Ordered 503; gave up after 1 try"
REFUSED_KEY = (
    f"POST {FEED}: 401 Unauthorized: Ordered 401. Check sources.autopilothq.ortto.api_key (in .dlt/secrets.toml, or"
    " SOURCES__AUTOPILOTHQ__ORTTO__API_KEY in the environment)"
)


def test_people_without_an_answer_are_rejected_if_one_came_and_asked_for_again(server: FakeOrtto) -> None:
    for name in ("ada", "bob", "cat"):
        new_person(server, f"{name}@example.com", "act::o")
    server.order("POST", FEED, content={"activities": {}}, status=200)
    server.order("POST", FEED, status=503)
    report = pull(server)
    assert (report.stored, report.rejects, report.people) == (1, {"bad_answer": 1}, 3)
    [warning] = report.warnings
    assert warning.startswith("No answer could be read for 2 of 3 people: they are due again next time. POST /per")
    [row] = rows_in("_rejects")
    assert row["line"] == 2  # line 1 is the other person's activity
    first, second, _ = (id_ for id_, _ in asked(server))
    assert json.loads(row["raw"]) == {"person": f"contact_id:{first}", "answer": "{}"}
    server.account.now = lambda: int(time.time()) + 7200  # nobody was active for two hours
    pull(server)
    assert sorted(asked(server)) == sorted([(first, 0), (second, 0)])
    assert len(tracks()) == 3


def test_a_service_that_fails_ends_the_load_and_the_next_one_goes_on(server: FakeOrtto) -> None:
    people = {new_person(server, f"{number}@example.com", "act::o") for number in range(12)}
    outage = server.order("POST", FEED, status=503, skip=2, times=99)
    since = datetime.now(UTC) - timedelta(days=100)
    report = pull(server, since=since)
    assert report.cut_off == "POST /person/get/activities: 503 Service Unavailable: Ordered 503; gave up after 1 try"
    assert (report.stored, len(asked(server))) == (2, 2 + 5)  # five failures in a row end the load
    [warning] = report.warnings
    assert warning.startswith(f"Activities were requested since {since:%Y-%m-%dT%H:%M}")
    assert ", and Ortto keeps activities for 90 days: those between " in warning
    server.faults.remove(outage)
    report = pull(server, since=since)  # it continues the run, which has warned already
    assert (report.people, len(asked(server)), report.cut_off, report.warnings) == (10, 10, None, [])
    assert query("SELECT lines, stored FROM autopilothq._audit") == [(12, 12)]
    assert {row["person"] for row in rows_in("_profiles")} == {f"contact_id:{id_}" for id_ in people}


def test_a_service_that_fails_before_has_nobody_asked_for(server: FakeOrtto) -> None:
    new_person(server, "ada@example.com", "act::o")
    server.order("POST", "/tags/get", status=503, times=9)
    report = pull(server, "ortto_tags", "ortto_people", "_profiles", "tracks")
    why = "POST /tags/get: 503 Service Unavailable: Ordered 503; gave up after 1 try"
    unfinished = {f"{server.base_url}/{path}": why for path in ("tags/get", "person/get/activities")}
    assert (asked(server), report.unfinished, report.cut_off) == ([], unfinished, why)
    assert report.files == report.files_done == 3  # `ortto_people` was read as well


@pytest.mark.parametrize(
    ("path", "status", "scan", "why"),
    [("/person/get", 503, FEED, OUTAGE.format("/person/get")), (FEED, 401, f"{FEED}#filter", REFUSED_KEY)],
)
def test_a_service_that_fails_after_other_tables_ends_the_load_with_these(
    server: FakeOrtto, path: str, status: int, scan: str, why: str
) -> None:
    new_person(server, "ada@example.com", "act::o")
    server.order("POST", path, status=status, times=9)
    report = pull(server, "ortto_tags", "_profiles", "tracks")
    unfinished = {f"{server.base_url}{scan}": why}
    assert (len(asked(server)), report.unfinished, report.cut_off) == (int(path == FEED), unfinished, why)
    assert (report.files, report.files_done) == (2, 2)


def test_a_reject_has_its_number_in_the_whole_run(server: FakeOrtto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activities, "_MIN_PEOPLE", 1)
    for name in ("ada", "bob"):
        new_person(server, f"{name}@example.com", "act::o")
    report = pull(server, "_profiles", "tracks", people_per_load=1)
    assert (report.stored, report.people, report.people_total, report.unfinished) == (1, 1, 2, {})
    server.order("POST", FEED, content={"activities": {}}, status=200)
    report = pull(server, "_profiles", "tracks", "_rejects", people_per_load=1)
    assert [row["line"] for row in rows_in("_rejects")] == [2]
    [warning] = report.warnings  # there is no warning that the account knows nobody
    assert warning.startswith("No answer could be read for 1 of 1 people: they are due again next time. POST /per")


@pytest.mark.parametrize(("path", "status", "requests"), [("/person/get", 503, 0), (FEED, 503, 5), (FEED, 401, 1)])
def test_a_service_that_answers_nothing_is_an_error(server: FakeOrtto, path: str, status: int, requests: int) -> None:
    for number in range(6):
        new_person(server, f"{number}@example.com", "act::o")
    server.order("POST", path, status=status, times=9)
    with pytest.raises(autopilothq.RunError, match=f"POST {path}: {status} "):
        pull(server, "_profiles", "tracks")
    assert len(asked(server)) == requests


@pytest.mark.parametrize(
    ("number", "status", "why", "came", "requests"),
    [
        (41, 503, OUTAGE.format(FEED), (40, 0, 0), 6),  # two pages
        (0, 401, REFUSED_KEY, (0, 1, 1), 2),
    ],
)
def test_what_came_of_somebody_before_the_service_failed_is_loaded(
    server: FakeOrtto,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    status: int,
    why: str,
    came: tuple[int, int, int],
    requests: int,
) -> None:
    for name in range(5):
        new_person(server, f"{name}@example.com", *["act::o"] * number)
    server.order("POST", FEED, status=status, skip=1, times=9)
    # Each request takes a second, so the time is also up after the last one.
    monkeypatch.setattr(scans, "monotonic", lambda: sum(request.path == FEED for request in server.requests))
    report = pull(server, "_profiles", "tracks", people="all", max_seconds=requests)
    assert (report.cut_off, report.unfinished) == (why, {f"{server.base_url}{FEED}#all": why})
    assert (report.stored, report.people, len(rows_in("_profiles"))) == came
    assert len(asked(server)) == requests


def test_an_account_that_knows_none_of_its_people_is_told(server: FakeOrtto) -> None:
    for number in range(10):
        new_person(server, f"{number}@example.com", "act::o")
    server.order("POST", FEED, status=404, times=10)
    report = pull(server, "_profiles", "tracks")
    assert (report.people, report.stored, report.rejects, report.cut_off) == (10, 0, {}, None)
    assert report.warnings == [
        "The account knows none of 10 people. Is sources.autopilothq.ortto.api_key the right one?"
    ]


def test_time_that_is_up_leaves_the_rest_to_the_next_load(server: FakeOrtto, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        new_person(server, f"{number}@example.com", "act::o")
    report = pull(server, max_seconds=0)
    assert (report.stored, report.people, asked(server)) == (0, 0, [])
    assert (report.files, report.files_done) == (1, 1)
    assert list(report.unfinished.values()) == ["the time of max_seconds was up"]
    # Each person takes a second.
    monkeypatch.setattr(scans, "monotonic", lambda: sum(request.path == FEED for request in server.requests))
    report = pull(server, seconds_per_load=2)
    assert (report.stored, report.people, report.people_total, report.unfinished) == (2, 2, 4, {})
    for left in (2, 1):
        server.requests.clear()
        report = pull(server, max_seconds=1)
        assert (report.stored, report.people, report.people_total) == (1, 1, left)
        assert list(report.unfinished.values()) == ["the time of max_seconds was up"] * (left - 1)


def test_replies_have_their_texts_on_request(server: FakeOrtto) -> None:
    ada = new_person(server, "ada@example.com")
    server.account.happen(ada, "act::re", ago=60, txt_er="Yes!", str_erf="ada@example.com")
    pull(server, "_profiles", "email_replied", personal=True)
    assert query("SELECT reply_text, replied_from FROM autopilothq.email_replied") == [("Yes!", "ada@example.com")]


def test_forgotten_people_are_not_asked_for(pulled: Pulled) -> None:
    server, ada = pulled.server, pulled.ada
    other, one = sorted(pulled.others)

    def with_address_of_ada(answer: Any) -> Any:
        """Gives another person one of Ada's addresses, so that only the address shows that it is Ada."""
        next(of for of in answer["contacts"] if of["id"] == one)["fields"]["str::email"] = "Ada@home.example"
        return answer

    assert command("forget", "--email", "ada@example.com", "--email", "ada@home.example").status == 0
    asked(server)
    server.order("POST", "/person/get", edit=with_address_of_ada, skip=2)  # after those for `ortto_people`
    report = pull(server, *SOME, "ortto_people", people="all")
    assert asked(server) == [(other, 0)]
    assert {row["contact_id"] for row in rows_in("ortto_people")} == pulled.others
    assert report.warnings == ["1 person was left out: deleted here, and still in Ortto."]
    assert (report.people, report.people_total) == (2, 2)  # the one left out counts, or the run would never end
    assert not [row for row in rows_in("_profiles") if ada in row["person"]]
