"""The steps of a pull from Ortto: pages and cursors, finding people, the order of activities, kept answers."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from autopilothq.clients.autopilot import Page
from autopilothq.clients.ortto import Ortto, OrttoSettings
from autopilothq.errors import InvalidSetting, RequestRejected
from autopilothq.segment.json_text import DECODER, JsonNumber, JsonObject, to_json
from autopilothq.segment.message import Discard
from autopilothq.segment.ortto import OrttoField, OrttoNames
from autopilothq.sources.ortto.answers import Answers, PersonEnd
from autopilothq.sources.ortto.feed import ActivityOrder, DuePerson, FeedScope
from autopilothq.sources.ortto.kinds import requested_kinds, selected_kinds
from autopilothq.sources.ortto.pages import OutOfTime, Query, Scanner
from autopilothq.sources.ortto.records import PersonColumns, person_record
from autopilothq.sources.ortto.run import Run, RunKey, RunStart, begin_run, drop_runs
from autopilothq.sources.ortto.search import (
    Contact,
    Found,
    Search,
    activity_time,
    contact_of,
    found_person,
    reduce_person,
)
from autopilothq.sources.scans import TimeBudget
from autopilothq.sources.spool import ScanStart, Spool
from fake_ortto import FakeOrtto

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


# ---- pages -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[FakeOrtto]:
    with FakeOrtto(people=1100) as running:
        yield running


def account(server: FakeOrtto) -> Ortto:
    return Ortto(OrttoSettings(api_key=server.key, base_url=server.base_url, requests_per_second=1000, tries=1))


def scanned(server: FakeOrtto, spool: Spool, budget: float = inf) -> tuple[list[str], list[str]]:
    """Returns the ids of a scan, in the order in which they came, and its warnings."""
    warnings: list[str] = []
    with account(server) as client:
        scanner = Scanner(client, TimeBudget(budget), warnings.append, lambda *_: None)
        pages = scanner.scan(spool, Query(["str::email"], reduce=reduce_person))
        return [contact[0] for contacts, _ in pages for contact in contacts], warnings  # type: ignore[index]


def new_spool() -> Spool:
    return Spool.begin(Path("spool"), ScanStart("account", "2026-11-26T12:00:00.000Z"))


def test_a_scan_goes_on_where_it_was_cut_off(server: FakeOrtto) -> None:
    spool = new_spool()
    server.order("POST", "/person/get", status=503, skip=1)
    with pytest.raises(Exception, match="503"):
        scanned(server, spool)
    with pytest.raises(OutOfTime):
        scanned(server, spool, budget=0)
    again = Spool.open(Path("spool"))
    assert again is not None
    ids, warnings = scanned(server, again)
    assert (len(ids), len(set(ids)), warnings, again.complete) == (1100, 1100, [], True)
    assert [of.body["offset"] for of in server.requests] == [0, 500, 500, 1000]


def test_a_cursor_that_is_not_known_any_more_has_the_pages_begin_again(server: FakeOrtto) -> None:
    spool = new_spool()
    server.order("POST", "/person/get", status=503, skip=1)
    with pytest.raises(Exception, match="503"):
        scanned(server, spool)
    server.cursors.clear()
    ids, [warning] = scanned(server, spool)
    assert warning.startswith("The pages of people are fetched again from the first on: POST /person/get: 400 Bad")
    assert (len(set(ids)), len(ids)) == (1100, 1600)
    assert [of.body["offset"] for of in server.requests] == [0, 500, 500, 0, 500, 1000]


def test_a_cursor_that_is_never_known_ends_the_scan(server: FakeOrtto) -> None:
    server.before = lambda _: server.cursors.clear()
    with pytest.raises(RequestRejected, match="cannot unmarshal into an ID"):
        scanned(server, new_spool())
    assert len(server.requests) == 6  # three tries of two pages, the second of which is refused
    assert server.bans == 0


def test_people_who_leave_while_pages_are_read_shift_the_others(server: FakeOrtto) -> None:
    server.drift = 3
    ids, _ = scanned(server, new_spool())
    assert len(set(ids)) == 1100


def test_pages_without_a_cursor_go_on_by_their_offset(server: FakeOrtto) -> None:
    server.order("POST", "/person/get", content={"contacts": [], "has_more": True, "next_offset": 7})
    server.order("POST", "/person/get", content={"contacts": [], "has_more": False}, times=2)
    query = Query(["str::email"])
    with account(server) as client:
        assert [page.bookmark for page in query.pages(client, None)] == ["7 ", None]
        assert [page.bookmark for page in query.pages(client, "7 ")] == [None]
    again = {"limit": 500, "offset": 7, "fields": ["str::email"]}
    assert [of.body for of in server.requests] == [again | {"offset": 0}, again, again]


def test_of_many_fields_a_person_without_an_id_that_is_one_has_the_first(server: FakeOrtto) -> None:
    server.account.custom_fields |= dict.fromkeys((f"str:cm:f{number:03}" for number in range(200)), ("F", "text"))
    server.order(
        "POST", "/person/get", content={"contacts": [{"id": [1], "fields": {"a": 1}}, 5, {"id": {}}]}, status=200
    )
    with account(server) as client:
        [page] = Query([f"str:cm:f{number:03}" for number in range(200)]).pages(client, None)
    assert [to_json(contact) for contact in page.contacts] == [
        '{"id":[1],"fields":{"a":1}}', "5", '{"id":{},"fields":{}}',
    ]  # fmt: skip


def test_of_many_fields_the_rest_is_asked_for_by_ids(server: FakeOrtto) -> None:
    server.account.made = 3
    fields = [f"str:cm:f{number:03}" for number in range(200)]
    server.account.custom_fields |= dict.fromkeys(fields, ("F", "text"))
    id_ = server.account.write(None, dict.fromkeys(fields, "x"))
    with account(server) as client:
        [page] = Query(fields).pages(client, None)
    found = {contact.value("id"): contact.value("fields") for contact in page.contacts}
    assert [name for name, _ in found[id_]] == fields
    assert [(of.path, len(of.body["fields"])) for of in server.requests] == [
        ("/person/get", 150),
        ("/person/get-by-ids", 50),
    ]


# ---- people ----------------------------------------------------------------------------------------------------------


def person(text: str) -> JsonObject:
    found = DECODER.decode(text)
    assert isinstance(found, JsonObject)
    return found


def test_a_person_is_kept_in_short() -> None:
    kept = reduce_person(person('{"id":"a1","fields":{"str::email":"a@b.c","str::ei":12345678901234567890}}'), NOW)
    assert kept == ["a1", "a@b.c", "12345678901234567890", "2026-11-26T12:00:00.000Z"]
    found = found_person(kept, NOW + timedelta(1))
    assert (found.person, found.active_at) == ("contact_id:a1", NOW)
    assert contact_of(found.person, found.details) == Contact("a1", "a@b.c", "12345678901234567890")
    assert contact_of("contact_id:a1", None) == Contact("a1")
    assert contact_of("contact_id:a:1", None) == Contact("a:1")
    assert reduce_person(person('{"fields":{}}')) is None


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ('"2026-11-26T12:00:00Z"', NOW),
        ('"2026-11-26T23:00:00+11:00"', NOW),
        ("1795694400", NOW),
        ("1795694400000", NOW),
        ("10000000000", datetime(2286, 11, 20, 17, 46, 40, tzinfo=UTC)),
        ("1795694400.5", NOW + timedelta(seconds=0.5)),
        ("1795694400500.0", NOW + timedelta(seconds=0.5)),
        ("-1795694400", datetime(1913, 2, 5, 12, tzinfo=UTC)),
        ("1e1000000000000000000000", None),
        ("100000000000", datetime(1973, 3, 3, 9, 46, 40, tzinfo=UTC)),
        ('"yesterday"', None),
        ('{"year":2026}', None),
        ("9" * 5000, None),
    ],
)
def test_times_are_read_in_any_form(text: str, time: datetime | None) -> None:
    assert activity_time(DECODER.decode(text)) == time


def test_fields_become_columns_by_their_names_and_ids() -> None:
    custom = {
        "int:cm:price": OrttoField("Price (EUR)", "decimal"),
        "int:cm:price-2": OrttoField("price eur", "decimal"),
        "str:cm:日本": OrttoField("日本", "text"),
    }
    schema = {"str::email": ("Email",), "tme::o!l": ("Last",), "int:cm:cost": ("Cost", "decimal")}
    names = OrttoNames(attributes={("", id_): OrttoField(*of) for id_, of in schema.items()})
    columns = PersonColumns(custom, names)
    assert columns.ids == ["str::email", "tags", "u4s::t", "tme::o!l", *custom]
    record = person_record(
        person(
            '{"id":7,"fields":{"str::email":"a@b.c","tme::c!l":"2026-11-26T12:00:00.000001Z","int:cm:cost":2500,'
            '"int:cm:price":-1500,"int:cm:price-2":12345678901234567890123,"str:cm:日本":"x",'
            '"tme::o!l":1795694400,"tags":["a","b"],"dtz:cm:odd":{"year":"soon"},"geo::city":{"name":"Bonn"}},"kind":1,"email":"b@b.c"}'
        ),
        columns,
    )
    assert record.key == ("7",)
    assert record.cells == {
        "contact_id": "7",
        "email": '"b@b.c"',
        "last_clicked_email_at": '"2026-11-26T12:00:00.000001Z"',
        "custom_cost": "2.5",
        "custom_price_eur": "-1.5",
        "custom_int_cm_price_2": "12345678901234567890.123",
        "custom_str_cm": '"x"',
        "last_opened_email_at": '"2026-11-26T12:00:00.000Z"',
        "tags": '["a","b"]',
        "custom_dtz_cm_odd": '{"year":"soon"}',
        "city": '"Bonn"',
        "kind": "1",
    }
    assert record.declared == {
        "custom_cost": "double",
        "custom_price_eur": "double",
        "custom_int_cm_price_2": "double",
        "custom_str_cm": "text",
    }
    assert record.discards == [Discard("email", '"a@b.c"', "same_column")]


# ---- whom to ask for -------------------------------------------------------------------------------------------------

IDS = ["str::email", "str::ei"]
OPENED, CLICKED = TIMES = ["tme::o!l", "tme::c!l"]
BEGUN = "2026-11-26T12:00:00.000Z"
NO_FILTER = (
    "The account does not take a filter of activities, so everyone's times are read. POST /person/get: 400 Bad Request:"
    " Ordered 400."
)
NO_TIMES = (
    "The account does not say when people were active, so everyone is due. POST /person/get: 400 Bad Request:"
    " Ordered 400."
)


class Sought(NamedTuple):
    """The result of a search, and the run, the warnings and the bodies of the requests after it."""

    people: list[Found]
    run: Run
    warnings: list[str]
    bodies: list[Any]


def sought(
    server: FakeOrtto, find: Callable[[Search], Iterator[list[Found]]], *, times: list[str] = TIMES, **start: Any
) -> Sought:
    """Searches an account by the times of two kinds of activities; `start` has further fields of the run's start."""
    run = Run(RunKey("account", "active"), Path("home"), RunStart("account", BEGUN, **start), {})
    warnings: list[str] = []
    with account(server) as client:
        search = Search(run, Scanner(client, TimeBudget(inf), print, lambda *_: None), times, warnings.append)
        people = [one for page in find(search) for one in page]
    return Sought(people, run, warnings, [of.body for of in server.requests])


def active(search: Search) -> Iterator[list[Found]]:
    return search.active(None)


def body(limit: int, *times: str, after: str | None = None) -> dict[str, Any]:
    """Returns the body of a request for people."""
    narrowed = [{"$tme::absolute_after": {"field_id": time, "value": after}} for time in TIMES]
    asked = {"limit": limit, "offset": 0, "fields": [*IDS, *times]}
    return asked | {"filter": {"$or": narrowed}} if after else asked


def answer(*people: dict[str, Any]) -> dict[str, Any]:
    """Returns the content of a page of people with these fields; their ids are numbers."""
    return {"contacts": [{"id": str(number), "fields": of} for number, of in enumerate(people)], "has_more": False}


@pytest.mark.parametrize(
    ("last_run", "since", "start"),
    [
        (None, None, "2026-08-28T12:00:00Z"),
        ("2026-11-20T12:00:00.000Z", None, "2026-11-20T11:00:00Z"),
        ("2026-11-20T12:00:00.000Z", "2026-11-22T01:00:00+01:00", "2026-11-22T00:00:00Z"),
        ("2026-11-20T12:00:00.000Z", "2026-10-01T00:00:00+00:00", "2026-11-20T11:00:00Z"),
    ],
)
def test_the_active_are_found_by_a_filter_or_by_their_times(
    server: FakeOrtto, last_run: str | None, since: str | None, start: str
) -> None:
    server.account.made = 0
    at = datetime.fromisoformat(since) if since else None
    found = sought(server, lambda search: search.active(at), since=last_run)
    # The filter finds nobody, which is not trusted.
    assert found.bodies == [body(1, after=start), body(500, after=start), body(1, *TIMES), body(500, *TIMES)]
    assert (found.people, found.run.start.way, found.warnings) == ([], "fields", [])


def test_the_times_of_everyone_tell_who_was_active(server: FakeOrtto) -> None:
    server.order("POST", "/person/get", status=400)
    server.order("POST", "/person/get", content=answer())
    start = "2026-11-20T11:00:00Z"
    people: list[dict[str, Any]] = [
        {},
        {OPENED: "2026-11-20T10:59:59Z"},
        {OPENED: start, "str::email": "a@b.c", "str::ei": 7},
        {OPENED: "2026-11-21T00:00:00.123456Z", CLICKED: "2026-11-01T00:00:00Z"},
        {OPENED: "2026-11-01T00:00:00Z", CLICKED: "soon"},
        {"tme::b!l": "2026-11-25T00:00:00Z"},
    ]
    server.order("POST", "/person/get", content=answer(*people))
    found = sought(server, active, since="2026-11-20T12:00:00.000Z")
    assert found.people == [
        Found("contact_id:2", datetime(2026, 11, 20, 11, tzinfo=UTC), '["a@b.c", "7"]'),
        Found("contact_id:3", datetime(2026, 11, 21, 0, 0, 0, 123456, tzinfo=UTC), "[null, null]"),
        Found("contact_id:4", NOW, "[null, null]"),
    ]
    assert found.bodies == [body(1, after=start), body(1, *TIMES), body(500, *TIMES)]
    assert (found.run.start.way, found.warnings) == ("fields", [NO_FILTER])


def test_everyone_is_asked_for_where_the_account_gives_no_times(server: FakeOrtto) -> None:
    server.account.made = 2
    server.order("POST", "/person/get", status=400, times=2)
    found = sought(server, active)
    assert [of.person for of in found.people] == [f"contact_id:{id_}" for _, id_ in server.account.ids()]
    assert {of.active_at for of in found.people} == {NOW}
    assert found.bodies[1:] == [body(1, *TIMES), body(500)]
    assert (found.run.start.way, found.warnings) == ("everyone", [NO_FILTER, NO_TIMES])


def test_times_that_the_account_is_known_not_to_give_are_not_tried(server: FakeOrtto) -> None:
    server.order("POST", "/person/get", status=400)
    server.account.made = 1

    def without_times(search: Search) -> Iterator[list[Found]]:
        search.has_times = False
        return search.active(None)

    found = sought(server, without_times)
    assert (found.bodies[1:], found.warnings) == ([body(500)], [NO_FILTER, NO_TIMES])


def test_a_filter_that_finds_nobody_and_no_times_have_everyone_asked_for(server: FakeOrtto) -> None:
    server.order("POST", "/person/get", content=answer(), times=2)
    server.order("POST", "/person/get", status=400)
    server.order("POST", "/person/get", content=answer({}))
    found = sought(server, active)
    assert [len(of["fields"]) for of in found.bodies] == [2, 2, 4, 2]
    assert (found.people, found.run.start.way) == ([Found("contact_id:0", NOW, "[null, null]")], "everyone")


@pytest.mark.parametrize("time", [None, "2020-01-01T00:00:00Z"])
def test_everyone_is_asked_for_where_nobody_has_a_time(server: FakeOrtto, time: str | None) -> None:
    people = answer({OPENED: time} if time else {}, {})
    server.order("POST", "/person/get", content=people, times=2)
    found = sought(server, active, way="fields")
    warning = (
        "None of 2 people has a time of an activity, so everyone is due. If nobody was ever sent an email, that"
        " finds nothing: name people by --people."
    )
    assert (found.run.start.way, len(found.people), found.warnings) == (
        ("fields", 0, []) if time else ("everyone", 2, [warning])
    )


def test_a_search_that_goes_on_does_not_judge_by_the_pages_that_are_left(server: FakeOrtto) -> None:
    spool = Spool.begin(Path("home/filter"), ScanStart("account", BEGUN))
    spool.put(Page([["a1", None, None, None]], None, "1 "))
    server.order("POST", "/person/get", content=answer())
    found = sought(server, active, way="filter")
    assert found.people == [Found("contact_id:a1", NOW, "[null, null]")]
    assert ([of["offset"] for of in found.bodies], found.run.start.way) == ([1], "filter")


def test_so_many_times_as_fit_are_asked_for(server: FakeOrtto) -> None:
    server.account.made = 1
    times = [f"tme::{number}!l" for number in range(160)]
    found = sought(server, active, times=times, way="fields")
    assert found.bodies == [body(500, *times[:148]), body(500)]


def test_all_people_are_found_without_a_question(server: FakeOrtto) -> None:
    server.account.made = 2
    found = sought(server, Search.everyone)
    assert [of.person for of in found.people] == [f"contact_id:{id_}" for _, id_ in server.account.ids()]
    assert (found.bodies, found.run.start.way, found.warnings) == ([body(500)], "all", [])


# ---- kinds -----------------------------------------------------------------------------------------------------------

USUAL = [
    "act::s", "act::r", "act::o", "act::c", "act::b", "act::s-ab", "act::u-all", "act::u-a", "act::re",
]  # fmt: skip
CUSTOM = {"act:cm:x": "Order done", "act:cm:y": "Trial"}


@pytest.mark.parametrize(
    ("requested", "more"),
    [
        ([], []),
        (["deferred_email", "act::v"], ["act::d", "act::v"]),
        (["Order Done"], ["act:cm:x"]),
        (["custom"], ["act:cm:x", "act:cm:y"]),
    ],
)
def test_kinds_are_named_by_id_name_or_table(requested: list[str], more: list[str]) -> None:
    assert requested_kinds("activities", requested, CUSTOM) == [*USUAL, *more]


def test_a_kind_that_is_not_there_is_named() -> None:
    with pytest.raises(
        InvalidSetting, match=r"^activities: the account has no activity 'Orders'\. It has .*\(act:cm:x\)"
    ):
        requested_kinds("activities", ["Orders"], CUSTOM)


def test_a_kind_without_a_name_is_requested_by_its_id() -> None:
    names = CUSTOM | {"act:cm:z": ""}
    assert requested_kinds("activities", ["custom"], names) == [*USUAL, *names]
    assert requested_kinds("activities", ["act:cm:z"], names) == [*USUAL, "act:cm:z"]
    with pytest.raises(InvalidSetting, match=r"Trial \(act:cm:y\), act:cm:z\.$"):
        requested_kinds("activities", ["Orders"], names)
    with pytest.raises(InvalidSetting, match=r"no activity '\?'"):
        requested_kinds("activities", ["?"], names)
    assert requested_kinds("activities", ["custom"], {}) == USUAL


def test_only_kinds_of_selected_tables_are_asked_for() -> None:
    kinds = [*USUAL, "act:cm:x"]
    assert selected_kinds(kinds, {"tracks"}) == tuple(kinds)
    assert selected_kinds(kinds, {"email_opened", "_profiles"}) == ("act::o",)
    # There are two kinds of unsubscription.
    assert selected_kinds(kinds, {"email_unsubscribed"}) == ("act::u-all", "act::u-a")
    assert selected_kinds(kinds, {"other_events"}) == ("act::s", "act::u-all", "act::u-a", "act:cm:x")


# ---- activities ------------------------------------------------------------------------------------------------------


def page(*hours_ago: float | None) -> list[Any]:
    """Returns a page of activities so many hours before now; None stands for a time that cannot be read."""
    times = [None if ago is None else (NOW - timedelta(hours=ago)).isoformat() for ago in hours_ago]
    return [JsonObject([("created_at", time)]) for time in times]


def read(order: ActivityOrder, start: float | None, *pages: list[Any]) -> int:
    """Returns how many of a person's pages are read if activities older than `start` hours are loaded."""
    return len(list(order.pages_until(iter(pages), None if start is None else NOW - timedelta(hours=start))))


def test_pages_end_where_old_activities_begin() -> None:
    falling = page(1, 2), page(3, 4), page(5, 6)
    assert read(ActivityOrder(), 3.5, *falling) == 2
    assert read(ActivityOrder(), None, *falling) == 3
    assert read(ActivityOrder(), 9, *falling) == 3
    assert read(ActivityOrder(), 3.5, page(1, 2), page(4, 4), page(5, 6)) == 2


@pytest.mark.parametrize(
    "pages",
    [
        (page(6, 5), page(4, 3), page(2, 1)),  # oldest first
        (page(6, 6), page(6, 6), page(2, 1)),  # the order is not known yet
        (page(5, None), page(6, 7), page(2, 1)),
        (page(5, 6, 4), page(9, 9), page(9, 9)),
    ],
)
def test_pages_in_another_order_are_all_read(pages: tuple[list[Any], ...]) -> None:
    assert read(ActivityOrder(), 3.5, *pages) == 3


def test_one_person_in_another_order_has_all_pages_of_others_read() -> None:
    order = ActivityOrder()
    read(order, 3.5, page(2, 1))
    read(order, 3.5, page(1, None))
    assert read(order, 3.5, page(1, 5), page(6, 7)) == 2


def test_the_start_is_a_day_before_the_watermark_or_the_requested_time() -> None:
    until = DuePerson(Contact("a"), NOW)
    assert FeedScope(()).start_of(until) == NOW - timedelta(days=1)
    assert FeedScope((), NOW).start_of(until) == NOW
    assert FeedScope(()).start_of(DuePerson(Contact("a"))) is None
    scope = FeedScope((), NOW - timedelta(hours=2))
    assert [scope.has(of) for of in [*page(1, 2, 3, None), 7]] == [True, True, False, True, True]
    numbers = ("1795694400", "1795694400000", "1700000000")
    counted = [JsonObject([("created_at", JsonNumber(number))]) for number in numbers]
    assert [scope.has(of) for of in counted] == [True, True, False]  # in seconds or milliseconds


# ---- kept answers and runs -------------------------------------------------------------------------------------------


def test_answers_are_kept_until_they_are_loaded() -> None:
    folder = Path("answers")
    ended = PersonEnd("contact_id:a", NOW, NOW)
    failed = PersonEnd("contact_id:b", None, NOW, False, "why", "{}")
    answers = Answers(folder, 0)
    answers.add([b'{"a":1}\n', b"[7]\n"])
    answers.end(ended)
    answers.end(failed)
    answers.close()
    answers.add([b'{"b":1}\n'])
    answers.close()
    (folder / "00000002.log").write_bytes(b'{"b":1}\n!["contact_id:c", nul')  # a kill cut off the last line
    kept = Answers(folder, 0)
    assert list(kept.kept()) == [b'{"a":1}\n', b"[7]\n", ended, failed, b'{"b":1}\n']
    assert kept.segment == 2
    assert list(Answers(folder, 1).kept()) == [b'{"b":1}\n']
    assert Answers(folder, 2).segment == 2
    assert list(folder.iterdir()) == []


KEY = RunKey("account", "active", ("all",))


def begin(at: datetime = NOW, *loads: str, key: RunKey = KEY, home: str = "home") -> Any:
    return begin_run(Path(home), key, at, set(loads))


@pytest.mark.usefixtures("source_state")
def test_a_run_goes_on_until_it_is_complete() -> None:
    hour = timedelta(hours=1)
    run = begin()
    assert (run.start.begun, run.since, run.loaded_segment) == ("2026-11-26T12:00:00.000Z", None, 0)
    run.set_way("filter")
    # Nothing was loaded, but the folder exists, so the run goes on; on another machine it would be a new run.
    assert begin(NOW + hour).start == run.start
    assert begin(NOW + hour, home="elsewhere").start.begun == "2026-11-26T13:00:00.000Z"
    run.write_cursor("load 1", 3, complete=False, retention=30)
    again = begin(NOW + hour, "load 1")
    assert (again.start, again.loaded_segment, again.retention_days) == (run.start, 3, 30)
    assert begin(NOW + hour, "load 1", home="other").start == run.start
    # A load that is never complete does not count, but the one before does.
    again.write_cursor("load 2", 4, complete=True, retention=None)
    assert begin(NOW + hour, "load 1").loaded_segment == 3
    following = begin(NOW + hour, "load 1", "load 2")
    assert following.start[1:] == ("2026-11-26T13:00:00.000Z", "2026-11-26T12:00:00.000Z", None)
    assert following.retention_days == 30


@pytest.mark.usefixtures("source_state")
def test_a_run_that_is_under_way_finds_too_few_where_the_run_before_it_is_unknown() -> None:
    """In a dataset that was dropped since, or in another one, the people whom the earlier run found are missing."""
    hour = timedelta(hours=1)
    begin().write_cursor("load 1", 1, complete=True, retention=None)
    under_way = begin(NOW + hour, "load 1")
    assert under_way.since == NOW
    under_way.write_cursor("load 2", 2, complete=False, retention=None)
    for loads in (("load 1",), ("load 1", "load 2")):
        assert begin(NOW + 2 * hour, *loads).start == under_way.start
    anew = begin(NOW + 2 * hour)
    assert (anew.begun, anew.since, anew.loaded_segment) == (NOW + 2 * hour, None, 0)


@pytest.mark.usefixtures("source_state")
@pytest.mark.parametrize("complete", [False, True])
def test_a_run_that_began_after_now_counts_for_nothing(complete: bool) -> None:
    """A clock was wrong then; if the run counted, nobody would be due until that time."""
    begin().write_cursor("load 1", 1, complete=True, retention=None)
    later = begin(NOW + timedelta(days=300), "load 1")
    later.write_cursor("load 2", 2, complete=complete, retention=None)
    now = NOW + timedelta(hours=1)
    anew = begin(now, "load 1", "load 2")
    assert (anew.begun, anew.since, anew.loaded_segment) == (now, NOW, 0)


@pytest.mark.usefixtures("source_state")
def test_what_everyone_was_asked_for_is_loaded_for_the_active_too() -> None:
    everyone = begin(key=RunKey("account", "all"))
    everyone.write_cursor("load 1", 1, complete=True, retention=None)
    assert begin(NOW + timedelta(hours=1), "load 1").start.since == "2026-11-26T12:00:00.000Z"
    assert begin(NOW, "load 1", key=RunKey("account", "list")).since is None


@pytest.mark.usefixtures("source_state")
def test_only_an_accounts_own_runs_are_dropped() -> None:
    hour, other = timedelta(hours=1), RunKey("other", "other")
    begin(), begin(key=other)
    odd = Path("home/odd/run.json")
    odd.parent.mkdir()
    odd.write_text("no JSON")
    drop_runs(Path("home"), "account")
    assert (begin(NOW + hour).begun, begin(NOW + hour, key=other).begun) == (NOW + hour, NOW)
    assert odd.exists()


@pytest.mark.usefixtures("source_state")
def test_an_old_run_is_not_continued() -> None:
    run = begin()
    run.write_cursor("load 1", 1, complete=False, retention=None)
    later = begin(NOW + timedelta(days=46), "load 1")
    assert (later.start.begun, later.since, later.loaded_segment) == ("2027-01-11T12:00:00.000Z", None, 0)
    other = begin(NOW, key=RunKey("other", "active"))
    assert other.start.account == "other"
