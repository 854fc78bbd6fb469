"""The steps of a pull from Ortto, one by one: pages and cursors, ways, the order of activities, kept answers."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from typing import Any

import pytest

from autopilothq.clients.ortto import Ortto, OrttoSettings
from autopilothq.errors import InvalidSetting, RequestRejected
from autopilothq.segment.json_text import DECODER, JsonObject, to_json
from autopilothq.segment.ortto import OrttoField, OrttoNames
from autopilothq.sources.ortto.answers import Answers, Ended
from autopilothq.sources.ortto.feed import DuePerson, FeedScope, Order
from autopilothq.sources.ortto.kinds import requested_kinds, selected_kinds
from autopilothq.sources.ortto.pages import OutOfTime, Query, Scanner
from autopilothq.sources.ortto.records import PersonColumns, person_record
from autopilothq.sources.ortto.run import RunKey, begin_run
from autopilothq.sources.ortto.who import Contact, activity_time, contact_of, found_of, reduced
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
    """The ids of a scan, in the order in which they came, and its warnings."""
    warnings: list[str] = []
    with account(server) as client:
        scanner = Scanner(client, TimeBudget(budget), warnings.append, lambda *_: None)
        pages = scanner.scan(spool, Query(["str::email"], reduced=reduced))
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
    assert len(server.requests) == 6  # three times two pages, of which the second is refused
    assert server.bans == 0


def test_people_who_leave_while_pages_are_read_shift_the_others(server: FakeOrtto) -> None:
    server.drift = 3
    ids, _ = scanned(server, new_spool())
    assert len(set(ids)) == 1100


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
    kept = reduced(person('{"id":"a1","fields":{"str::email":"a@b.c","str::ei":12345678901234567890}}'), NOW)
    assert kept == ["a1", "a@b.c", "12345678901234567890", "2026-11-26T12:00:00.000Z"]
    found = found_of(kept, NOW + timedelta(1))
    assert (found.person, found.active_at) == ("contact_id:a1", NOW)
    assert contact_of(found.person, found.details) == Contact("a1", "a@b.c", "12345678901234567890")
    assert contact_of("contact_id:a1", None) == Contact("a1")
    assert reduced(person('{"fields":{}}')) is None


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ('"2026-11-26T12:00:00Z"', NOW),
        ('"2026-11-26T23:00:00+11:00"', NOW),
        ("1795694400", NOW),
        ("1795694400000", NOW),
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
    names = OrttoNames(attributes={("", "str::email"): OrttoField("Email"), ("", "tme::o!l"): OrttoField("Last")})
    columns = PersonColumns(custom, names)
    assert columns.ids == ["str::email", "tags", "u4s::t", "tme::o!l", *custom]
    record = person_record(
        person(
            '{"id":7,"fields":{"int:cm:price":-1500,"int:cm:price-2":12345678901234567890123,"str:cm:日本":"x",'
            '"tme::o!l":1795694400,"tags":["a","b"],"dtz:cm:odd":{"year":"soon"},"geo::city":{"name":"Bonn"}},"kind":1}'
        ),
        columns,
    )
    assert record.key == ("7",)
    assert record.cells == {
        "contact_id": "7",
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
        "custom_price_eur": "double", "custom_int_cm_price_2": "double", "custom_str_cm": "text",
    }  # fmt: skip


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


def test_only_kinds_of_selected_tables_are_asked_for() -> None:
    kinds = [*USUAL, "act:cm:x"]
    assert selected_kinds(kinds, {"tracks"}) == tuple(kinds)
    assert selected_kinds(kinds, {"email_opened", "_profiles"}) == ("act::o",)
    # An unsubscription may be an event of its own.
    assert selected_kinds(kinds, {"email_unsubscribed"}) == ("act::u-all", "act::u-a")
    assert selected_kinds(kinds, {"other_events"}) == ("act::s", "act::u-all", "act::u-a", "act:cm:x")


# ---- activities ------------------------------------------------------------------------------------------------------


def page(*hours_ago: float | None) -> list[Any]:
    """Activities so many hours before now; of None the time cannot be read."""
    times = [None if ago is None else (NOW - timedelta(hours=ago)).isoformat() for ago in hours_ago]
    return [JsonObject([("created_at", time)]) for time in times]


def read(order: Order, start: float | None, *pages: list[Any]) -> int:
    """Returns how many of a person's pages are read if activities older than `start` hours are loaded."""
    return len(list(order.end_of(iter(pages), None if start is None else NOW - timedelta(hours=start))))


def test_pages_end_where_old_activities_begin() -> None:
    falling = page(1, 2), page(3, 4), page(5, 6)
    assert read(Order(), 3.5, *falling) == 2
    assert read(Order(), None, *falling) == 3
    assert read(Order(), 9, *falling) == 3


@pytest.mark.parametrize(
    "pages",
    [
        (page(6, 5), page(4, 3), page(2, 1)),  # the oldest first
        (page(6, 6), page(6, 6), page(2, 1)),  # nobody knows yet
        (page(5, None), page(6, 7), page(2, 1)),
        (page(5, 6, 4), page(9, 9), page(9, 9)),
    ],
)
def test_pages_in_another_order_are_all_read(pages: tuple[list[Any], ...]) -> None:
    assert read(Order(), 3.5, *pages) == 3


def test_one_person_in_another_order_has_all_pages_of_others_read() -> None:
    order = Order()
    read(order, 3.5, page(2, 1))
    assert read(order, 3.5, page(1, 5), page(6, 7)) == 2


def test_the_start_is_a_day_before_the_watermark_or_the_requested_time() -> None:
    until = DuePerson(Contact("a"), NOW)
    assert FeedScope(()).start_of(until) == NOW - timedelta(days=1)
    assert FeedScope((), NOW).start_of(until) == NOW
    assert FeedScope(()).start_of(DuePerson(Contact("a"))) is None
    scope = FeedScope((), NOW - timedelta(hours=2))
    assert [scope.has(of) for of in [*page(1, 2, 3, None), 7]] == [True, True, False, True, True]


# ---- kept answers and runs -------------------------------------------------------------------------------------------


def test_answers_are_kept_until_they_are_loaded() -> None:
    folder = Path("answers")
    ended = Ended("contact_id:a", NOW, NOW)
    failed = Ended("contact_id:b", None, NOW, False, "why", "{}")
    answers = Answers(folder, 0)
    answers.add([b'{"a":1}\n', b"[7]\n"])
    answers.end(ended)
    answers.end(failed)
    answers.close()
    answers.add([b'{"b":1}\n'])
    answers.close()
    (folder / "00000002.log").write_bytes(b'{"b":1}\n!["contact_id:c", nul')  # a kill in the middle of a line
    kept = Answers(folder, 0)
    assert list(kept.kept()) == [b'{"a":1}\n', b"[7]\n", ended, failed, b'{"b":1}\n']
    assert kept.segment == 2
    assert list(Answers(folder, 1).kept()) == [b'{"b":1}\n']
    assert Answers(folder, 2).segment == 2
    assert list(folder.iterdir()) == []


@pytest.fixture
def _state(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty state of the source, as dlt keeps it."""
    found: dict[str, Any] = {}
    monkeypatch.setattr("dlt.current.source_state", lambda: found)


KEY = RunKey("account", "active", ("all",))
Begin = Callable[..., Any]


def begin(at: datetime = NOW, *loads: str, key: RunKey = KEY, home: str = "home") -> Any:
    return begin_run(Path(home), key, at, set(loads))


@pytest.mark.usefixtures("_state")
def test_a_run_goes_on_until_it_is_complete() -> None:
    hour = timedelta(hours=1)
    run = begin()
    assert (run.start.begun, run.since, run.loaded_segment) == ("2026-11-26T12:00:00.000Z", None, 0)
    run.go("filter")
    # Nothing was loaded, but the folder is here; on another machine it is a new run.
    assert begin(NOW + hour).start == run.start
    assert begin(NOW + hour, home="elsewhere").start.begun == "2026-11-26T13:00:00.000Z"
    run.write_cursor("load 1", 3, complete=False, retention=30)
    again = begin(NOW + hour, "load 1")
    assert (again.start, again.loaded_segment, again.retention_days) == (run.start, 3, 30)
    assert begin(NOW + hour, "load 1", home="other").start == run.start
    # A load that is never complete does not count; the one before does.
    again.write_cursor("load 2", 4, complete=True, retention=None)
    assert begin(NOW + hour, "load 1").loaded_segment == 3
    following = begin(NOW + hour, "load 1", "load 2")
    assert following.start[1:] == ("2026-11-26T13:00:00.000Z", "2026-11-26T12:00:00.000Z", None)
    assert following.retention_days == 30


@pytest.mark.usefixtures("_state")
def test_what_everyone_was_asked_for_is_loaded_for_the_active_too() -> None:
    everyone = begin(key=RunKey("account", "all"))
    everyone.write_cursor("load 1", 1, complete=True, retention=None)
    assert begin(NOW + timedelta(hours=1), "load 1").start.since == "2026-11-26T12:00:00.000Z"
    assert begin(NOW, "load 1", key=RunKey("account", "list")).since is None


@pytest.mark.usefixtures("_state")
def test_an_old_run_is_not_continued() -> None:
    run = begin()
    run.write_cursor("load 1", 1, complete=False, retention=None)
    later = begin(NOW + timedelta(days=46), "load 1")
    assert (later.start.begun, later.since, later.loaded_segment) == ("2027-01-11T12:00:00.000Z", None, 0)
    other = begin(NOW, key=RunKey("other", "active"))
    assert other.start.account == "other"
