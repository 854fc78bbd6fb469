import time
from collections.abc import Callable, Iterator
from itertools import islice
from threading import Thread
from typing import Any

import httpx
import pytest

from autopilothq.clients import ortto as client
from autopilothq.clients import ortto_requests
from autopilothq.clients.decode import plain
from autopilothq.clients.ortto import Ortto, OrttoSettings, Written
from autopilothq.clients.ortto_answers import activity_page, people_page
from autopilothq.clients.pace import Pace
from autopilothq.errors import (
    ContactLimit,
    InvalidSetting,
    NotAuthorized,
    NotFound,
    OutcomeUnknown,
    RequestRejected,
    Unavailable,
    UnexpectedResponse,
)
from autopilothq.segment.json_text import DECODER, JsonNumber
from fake_ortto import FakeOrtto
from waiting import timed

NAPS: list[float] = []
EMAIL = ["str::email"]
OPENED_SINCE = {"$tme::absolute_after": {"field_id": "tme::o!l", "value": "2020-01-01T00:00:00Z"}}


@pytest.fixture
def server() -> Iterator[FakeOrtto]:
    with FakeOrtto(people=1100) as server:
        yield server


@pytest.fixture
def ortto(server: FakeOrtto) -> Iterator[Ortto]:
    NAPS.clear()
    with connected(server) as ortto:
        yield ortto


def connected(server: FakeOrtto, **more: Any) -> Ortto:
    fast = {"requests_per_second": 1000, "activity_requests_per_second": 1000, "tries": 3}
    settings: dict[str, Any] = {"api_key": server.key, **fast, **more}
    return Ortto(OrttoSettings(base_url=server.base_url, **settings), sleep=NAPS.append)


# ---- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("region", "url"),
    [
        ("", "https://api.ap3api.com/v1"),
        ("au", "https://api.au.ap3api.com/v1"),
        ("EU", "https://api.eu.ap3api.com/v1"),
    ],
)
def test_a_region_has_its_own_address(region: str, url: str) -> None:
    assert OrttoSettings(api_key="k", region=region).base_url == url


def test_an_address_that_is_given_is_taken_for_any_region() -> None:
    assert OrttoSettings(api_key="k", region="eu", base_url="https://x.example/v1").base_url == "https://x.example/v1"


def test_a_slash_at_the_end_of_an_address_is_no_part_of_it() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(200, stream=httpx.ByteStream(b"[]"))

    settings = OrttoSettings(api_key="k", base_url="https://x.example/X/")
    with Ortto(settings, transport=httpx.MockTransport(answer)) as ortto:
        assert (ortto.tags(), ortto.base_url, seen) == ([], "https://x.example/X", ["https://x.example/X/tags/get"])


def test_an_unknown_region_is_refused() -> None:
    with pytest.raises(InvalidSetting) as caught:
        OrttoSettings(api_key="k", region="us")
    assert str(caught.value) == "sources.autopilothq.ortto.region must be au, eu or empty, got 'us'"


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidSetting) as caught:
        Ortto(OrttoSettings(api_key="k", activity_requests_per_second=0))
    setting = "sources.autopilothq.ortto.activity_requests_per_second"
    assert str(caught.value) == f"{setting} must be a number above 0, got 0"


# ---- people --------------------------------------------------------------------------------------------------------


def test_people_come_page_by_page_with_the_cursor_of_the_page_before(server: FakeOrtto, ortto: Ortto) -> None:
    pages = list(ortto.people(EMAIL))
    assert [(len(page.contacts), page.next_offset, page.has_more, page.total) for page in pages] == [
        (500, 500, True, 1100),
        (500, 1000, True, 1100),
        (100, 1100, False, 1100),
    ]
    assert [request.body for request in server.requests] == [
        {"limit": 500, "offset": 0, "fields": EMAIL},
        {"limit": 500, "offset": 500, "fields": EMAIL, "cursor_id": pages[0].cursor_id},
        {"limit": 500, "offset": 1000, "fields": EMAIL, "cursor_id": pages[1].cursor_id},
    ]
    assert plain(pages[0].contacts[1]) == {
        "id": "000000000000000000000100",
        "fields": {"str::email": "person+1@example.com"},
    }


def test_a_scan_goes_on_from_a_page(ortto: Ortto) -> None:
    first = next(ortto.people(EMAIL))
    rest = ortto.people(EMAIL, offset=first.next_offset, cursor_id=first.cursor_id)
    assert [len(page.contacts) for page in rest] == [500, 100]


def test_a_filter_chooses_people(server: FakeOrtto, ortto: Ortto) -> None:
    opened = [one for page in ortto.people(["tme::o!l"], OPENED_SINCE) for one in page.contacts]
    assert 0 < len(opened) < 1100
    assert all(one.value("fields", "tme::o!l") for one in opened)
    assert server.requests[0].body["filter"] == OPENED_SINCE


def test_people_that_are_null_are_none(ortto: Ortto) -> None:
    nobody = {"$str::is": {"field_id": "str::email", "value": "nobody@example.com"}}
    assert [page.contacts for page in ortto.people(EMAIL, nobody)] == [[]]


def test_a_cursor_that_the_account_does_not_know_is_a_rejected_request(ortto: Ortto) -> None:
    with pytest.raises(RequestRejected) as caught:
        list(ortto.people(EMAIL, offset=500, cursor_id="0123456789"))
    assert str(caught.value) == (
        "POST /person/get: 400 Bad Request: Failed to parse request cannot unmarshal into an ID, the length must be 12"
        " or 24 + 2 for hex but it is 12: Object not found (request 00000000-0000-0000-0000-000000000190)"
    )


def test_a_filter_that_is_not_understood_is_a_rejected_request(server: FakeOrtto, ortto: Ortto) -> None:
    server.takes_filters = False
    with pytest.raises(RequestRejected, match=r"Unknown operation \$tme::absolute_after"):
        list(ortto.people(EMAIL, OPENED_SINCE))


def test_fields_that_the_account_does_not_give_are_a_rejected_request(server: FakeOrtto, ortto: Ortto) -> None:
    server.takes_times = False
    with pytest.raises(RequestRejected, match="failed to validate field tme::o!l in schema"):
        list(ortto.people(["tme::o!l"]))


OF_PAGES: list[tuple[str, Callable[[Ortto], Iterator[Any]]]] = [
    ("/person/get", lambda ortto: ortto.people(EMAIL)),
    ("/person/get/activities", lambda ortto: ortto.activities("000000000000000000000100", [])),
    ("/campaign/get-all", lambda ortto: ortto.campaigns()),
]


@pytest.mark.parametrize(("path", "ask"), OF_PAGES)
def test_pages_that_would_never_end_are_an_error(
    server: FakeOrtto, ortto: Ortto, path: str, ask: Callable[[Ortto], Iterator[Any]]
) -> None:
    for following in (500, 500):
        server.order("POST", path, content={"has_more": True, "next_offset": following})
    pages = ask(ortto)
    next(pages)
    with pytest.raises(UnexpectedResponse) as caught:
        next(pages)
    assert str(caught.value) == (
        f"POST {path}: expected a next_offset above 500, or the pages would never end, got 500"
    )
    assert (caught.value.method, caught.value.path, caught.value.status) == ("POST", path, 200)


@pytest.mark.parametrize(("path", "ask"), OF_PAGES)
def test_empty_pages_without_an_end_are_an_error(
    server: FakeOrtto, ortto: Ortto, path: str, ask: Callable[[Ortto], Iterator[Any]]
) -> None:
    server.account.made = 5  # few, because the server filters all of them for each page
    more = iter(range(1, 1000))

    def empty(_: dict[str, Any]) -> dict[str, Any]:
        return {"next_offset": next(more), "has_more": True, "cursor_id": None, "meta": {"has_more": True}}

    server.order("POST", path, times=1000, edit=empty)
    pages = ask(ortto)
    assert not any(getattr(page, "contacts", getattr(page, "activities", page)) for page in islice(pages, 100))
    with pytest.raises(UnexpectedResponse) as caught:
        next(pages)
    assert str(caught.value) == (
        f'POST {path}: expected an entry, or the end of the pages, got "101 empty pages in a row"'
    )


def test_a_key_in_an_answer_of_another_shape_is_masked(server: FakeOrtto, ortto: Ortto) -> None:
    shown = {f"{'x' * 40} {server.key}": f'"{"x" * 40} ***"', (server.key,): "an object with ***"}
    for answer, text in shown.items():
        contacts = answer if isinstance(answer, str) else dict.fromkeys(answer, 1)
        server.order("POST", "/person/get", edit=lambda page, contacts=contacts: page | {"contacts": contacts})
        with pytest.raises(UnexpectedResponse) as caught:
            list(ortto.people(EMAIL))
        assert str(caught.value) == f"POST /person/get: expected a list of contacts or null, got {text}"
        assert caught.value.content == (text if isinstance(answer, str) else '{"***":1}')


def test_members_of_an_audience_match_a_filter_too(server: FakeOrtto, ortto: Ortto) -> None:
    [page] = ortto.people(EMAIL * 150, OPENED_SINCE, audience="a1", limit=7, offset=2000)
    assert page.contacts == []
    assert [request.body for request in server.requests] == [
        {"limit": 7, "offset": 2000, "fields": EMAIL * 150, "filter": OPENED_SINCE, "audience_id": "a1"}
    ]


def test_one_request_takes_only_so_many_things(server: FakeOrtto, ortto: Ortto) -> None:
    nobody = [{"fields": {"str::email": f"person+{number}@example.com"}} for number in range(100)]
    writes: dict[str, Callable[[Any], object]] = {"people": ortto.merge_people, "activities": ortto.create_activities}
    for some in ([], [*nobody, *nobody[:1]]):
        for what, write in writes.items():
            with pytest.raises(ValueError, match=f"^1 to 100 {what} go into one request, got {len(some)}$"):
                write(some)
    with pytest.raises(ValueError, match=r"^At most 150 fields go into one request, got 151$"):
        list(ortto.people(EMAIL * 151))
    assert server.requests == []
    assert [len(ortto.merge_people(some)) for some in (nobody, nobody[:1])] == [100, 1]


def test_people_are_found_by_their_ids(server: FakeOrtto, ortto: Ortto) -> None:
    found = ortto.people_by_ids(["000000000000000000000300", "f" * 24], EMAIL)
    assert {id_: plain(one) for id_, one in found.items()} == {
        "000000000000000000000300": {
            "id": "000000000000000000000300",
            "fields": {"str::email": "person+3@example.com"},
        }
    }
    assert [request.body for request in server.requests] == [
        {"contact_ids": ["000000000000000000000300", "f" * 24], "fields": EMAIL}
    ]
    for contacts, text in {"null": "", "5": "5", "[]": "an array of 0"}.items():
        server.order("POST", "/person/get-by-ids", content=f'{{"contacts":{contacts}}}'.encode())
        if not text:
            assert ortto.people_by_ids(["f" * 24], EMAIL) == {}
            continue
        with pytest.raises(UnexpectedResponse) as caught:
            ortto.people_by_ids(["f" * 24], EMAIL)
        assert str(caught.value) == f"POST /person/get-by-ids: expected an object of contacts, got {text}"
    server.order("POST", "/person/get-by-ids", content=[5])
    with pytest.raises(UnexpectedResponse) as caught:
        ortto.people_by_ids(["f" * 24], EMAIL)
    assert str(caught.value) == "POST /person/get-by-ids: expected an object, got an array of 1"


# ---- activities ----------------------------------------------------------------------------------------------------


def test_activities_come_page_by_page(server: FakeOrtto, ortto: Ortto) -> None:
    before = len(server.account.activities("000000000000000000000100"))
    for ago in range(45):
        server.account.happen("person+1@example.com", "act::o", ago=ago)
    pages = list(ortto.activities("000000000000000000000100", ["act::o", "act::r", "act::b", "act::c"]))
    assert [len(page.activities) for page in pages] == [40, 5 + before]
    assert [page.retention_days for page in pages] == [90, 90]
    assert [request.body for request in server.requests] == [
        {
            "person_id": "000000000000000000000100",
            "activities": ["act::o", "act::r", "act::b", "act::c"],
            "limit": 40,
            "offset": offset,
            "timeframe": {"type": "all"},
        }
        for offset in (0, 40)
    ]


@pytest.mark.parametrize(("value", "days"), [(90, 90), (36_500, 36_500), (36_501, None), (10**30, None), (-1, None)])
def test_activities_are_kept_no_longer_than_a_calendar_goes_back(value: int, days: int | None) -> None:
    meta = f'{{"meta":{{"retention":{{"type":"time","max_value":{value}}}}}}}'
    assert activity_page("person/get/activities", DECODER.decode(meta), 0).retention_days == days


@pytest.mark.parametrize(
    ("answer", "page"),
    [
        ('{"has_more":true,"next_offset":40}', ([], 40, True, None)),
        ('{"has_more":true,"next_offset":40,"meta":{"has_more":false}}', ([], 40, False, None)),
        ('{"meta":{"retention":{"type":"count","max_value":90}}}', ([], 7, False, None)),
    ],
)
def test_a_page_of_activities_may_leave_out_most_of_what_is_about_it(answer: str, page: tuple[Any, ...]) -> None:
    assert activity_page("person/get/activities", DECODER.decode(answer), 7) == page


@pytest.mark.parametrize("where", ["has_more", "meta"])
def test_numbers_of_thousands_of_digits_are_none(where: str) -> None:
    huge = "9" * 5000
    answer = {
        "has_more": f'{{"has_more":true,"next_offset":{huge}}}',
        "meta": f'{{"meta":{{"total_matches":{huge},"retention":{{"type":"time","max_value":{huge}}}}}}}',
    }[where]
    value = DECODER.decode(answer)
    if where == "has_more":
        with pytest.raises(UnexpectedResponse, match="expected a next_offset above 0"):
            people_page("person/get", value, 0)
    else:
        assert people_page("person/get", value, 0).total is None
        assert activity_page("person/get/activities", value, 0).retention_days is None


def test_activities_that_are_null_are_none(ortto: Ortto) -> None:
    assert [page.activities for page in ortto.activities("000000000000000000003100", ["act::re"])] == [[]]


def test_numbers_keep_their_digits(server: FakeOrtto, ortto: Ortto) -> None:
    server.order("POST", "/person/get/activities", content=b'{"activities":[{"attr":{"int::sr":1.10}}],"meta":{}}')
    (page,) = ortto.activities("000000000000000000003100", [])
    assert page.activities[0].value("attr", "int::sr") == JsonNumber("1.10")


def test_an_unknown_person_is_not_found(ortto: Ortto) -> None:
    with pytest.raises(NotFound):
        list(ortto.activities("f" * 24, []))


@timed
def test_activities_have_a_pace_of_their_own(server: FakeOrtto) -> None:
    with connected(server, activity_requests_per_second=5) as ortto:
        begin = time.monotonic()
        for number in range(6):
            list(ortto.activities(f"0000000000000000000{number:02x}100", []))
        assert 1 <= time.monotonic() - begin < 2.4  # 1 s when the machine is idle
        begin = time.monotonic()
        for _ in range(20):
            ortto.tags()
        assert time.monotonic() - begin < 2.4  # 3 s at the pace of activities


# ---- the account ---------------------------------------------------------------------------------------------------


def test_what_an_account_has_is_read(server: FakeOrtto, ortto: Ortto) -> None:
    assert [len(page) for page in ortto.campaigns()] == [7]
    assert [[one.value("name") for one in page] for page in ortto.audiences()] == [
        ["Subscribers", "Customers", "Slipping", "Nobody"]
    ]
    assert ortto.tags() == []
    assert [field.value("id") for field in ortto.custom_fields()] == list(server.account.custom_fields)
    server.order(
        "POST", "/person/custom-field/get", content={"fields": [{"field": {"id": "a"}}, {"id": "b"}, 5, {"field": 5}]}
    )
    assert [field.value("id") for field in ortto.custom_fields()] == ["a", "b"]
    order = ortto.instance_schema().value("namespaces", "cm", "fields", "act:cm:order-completed")
    assert order.value("name") == "Order Completed"


def test_campaigns_come_page_by_page(server: FakeOrtto, ortto: Ortto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CAMPAIGNS_PER_PAGE", 5)
    assert [len(page) for page in ortto.campaigns()] == [5, 2]
    assert [request.body for request in server.requests] == [{"limit": 5, "offset": offset} for offset in (0, 5)]


def test_audiences_come_until_a_page_has_none_that_is_new(
    server: FakeOrtto, ortto: Ortto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "AUDIENCES_PER_PAGE", 3)
    assert [len(page) for page in ortto.audiences()] == [3, 1]
    a, b = {"id": "a"}, {"id": "b"}
    for pages in ([[a, 5], [a, 5]], [[a], [b, 5], [a, 5]]):  # whatever page is requested
        for page in pages:
            server.order("POST", "/audiences/get", content=page)
        assert [plain(page) for page in ortto.audiences()] == pages[:-1]
    offsets = (0, 3, 4, 0, 2, 0, 1, 3)
    assert [request.body for request in server.requests] == [{"limit": 3, "offset": offset} for offset in offsets]


def test_a_report_counts_what_the_account_knows_of_a_campaign(server: FakeOrtto, ortto: Ortto) -> None:
    campaign = server.account.all_campaigns()[0]["id"]
    counted = server.account.counts(campaign)
    report = ortto.campaign_report(campaign).value("reports", "performance")
    assert server.requests[-1].body == {"campaign_id": campaign}
    assert [int(report.value(name)) for name in ("delivered", "opened", "clicked", "bounced")] == [
        counted[kind] for kind in ("act::r", "act::o", "act::c", "act::b")
    ]


def test_each_limit_is_shared_by_all_clients_of_an_account() -> None:
    def paces(api_key: str = "k", region: str = "eu", base_url: str = "") -> set[Pace]:
        ortto = Ortto(OrttoSettings(api_key=api_key, region=region, base_url=base_url))
        return {ortto.activities_limit.pace, ortto.reports_limit.pace}

    assert len(paces()) == 2
    assert paces() == paces(api_key=" k ", base_url="https://api.eu.ap3api.com/v1")
    assert not paces() & (paces(api_key="another") | paces(region="au"))


def test_reports_have_a_pace_of_their_own(server: FakeOrtto, ortto: Ortto) -> None:
    assert ortto.reports_limit[1:] == (60, 600, "")
    naps: list[float] = []
    ortto.reports_limit = ortto.reports_limit._replace(pace=Pace(lambda: sum(naps), naps.append), most=2, seconds=1)
    for _ in range(3):
        ortto.campaign_report(server.account.all_campaigns()[0]["id"])
    assert 1 <= sum(naps) < 1.1


@pytest.mark.parametrize(
    ("path", "key", "ask"),
    [
        ("person/get/activities", "activities", lambda ortto: list(ortto.activities("0" * 24, []))),
        ("person/custom-field/get", "fields", lambda ortto: ortto.custom_fields()),
        ("campaign/get-all", "campaigns", lambda ortto: list(ortto.campaigns())),
        ("audiences/get", "audiences", lambda ortto: list(ortto.audiences())),
        ("tags/get", "tags", lambda ortto: ortto.tags()),
        ("person/merge", "people", lambda ortto: ortto.merge_people([{}])),
        ("activities/create", "activities", lambda ortto: ortto.create_activities([{}])),
    ],
)
def test_what_is_no_list_is_told(
    server: FakeOrtto, ortto: Ortto, path: str, key: str, ask: Callable[[Ortto], Any]
) -> None:
    server.order("POST", f"/{path}", content={key: 5})
    with pytest.raises(UnexpectedResponse) as caught:
        ask(ortto)
    assert str(caught.value) == f"POST /{path}: expected a list of {key} or null, got 5"


# ---- writing -------------------------------------------------------------------------------------------------------


def test_people_are_written_and_found_by_email_or_external_id(server: FakeOrtto, ortto: Ortto) -> None:
    people: list[dict[str, Any]] = [
        {"fields": {"str::email": "person+1@example.com", "str:cm:plan": "team"}, "tags": ["Big spenders"]},
        {"fields": {"str::email": "new@example.com", "str::ei": "new-1"}},
        {"fields": {"str::email": "nonsense"}},
    ]
    assert ortto.merge_people(people) == [
        Written("merged", "000000000000000000000100", None),
        Written("created", "000001000000000000000100", None),
        Written("invalid", None, "str::email: Invalid value"),
    ]
    (request,) = server.requests
    assert request.body == {
        "people": people,
        "merge_by": ["str::email", "str::ei"],
        "merge_strategy": 2,
        "find_strategy": 0,
        "async": False,
    }
    assert server.account.tags == {"Big spenders": {"000000000000000000000100"}}
    server.order("POST", "/person/merge", drop="after")
    assert ortto.merge_people([{"fields": {"str::ei": "new-1", "str::first": "Ada"}}])[0].status == "merged"
    assert len(server.requests) == 3  # repeating a merge changes nothing


def test_of_each_one_that_is_written_there_must_be_a_word(server: FakeOrtto, ortto: Ortto) -> None:
    server.order("POST", "/person/merge", content={"people": [5, {"status": "merged", "person_id": 7}]}, times=2)
    assert ortto.merge_people([{}, {}]) == [Written(None, None, None), Written("merged", None, None)]
    with pytest.raises(UnexpectedResponse) as caught:
        ortto.merge_people([{}])
    assert str(caught.value) == "POST /person/merge: expected an array of 1 in people, got an array of 2"


def test_an_account_that_is_full_says_so_at_once(server: FakeOrtto, ortto: Ortto) -> None:
    server.account.most_contacts = 1100
    with pytest.raises(ContactLimit) as caught:
        ortto.merge_people([{"fields": {"str::email": "new@example.com"}}])
    assert str(caught.value) == (
        "POST /person/merge: 507 Insufficient Storage: Contact limit reached (request"
        " 00000000-0000-0000-0000-0000000001fb). The account holds as many contacts as its plan allows: archive some,"
        " or extend it"
    )
    assert len(server.requests) == 1


def test_activities_are_created_once_at_most(server: FakeOrtto, ortto: Ortto) -> None:
    server.order("POST", "/activities/create", drop="after")
    activity = {"activity_id": "act:cm:order-completed", "fields": {"str::email": "a@example.com"}}
    with pytest.raises(OutcomeUnknown):
        ortto.create_activities([activity])
    assert (len(server.requests), len(server.account.created)) == (1, 1)
    assert ortto.create_activities([activity, {}]) == [
        Written("ingested", server.account.find("str::email", "a@example.com"), None),
        Written("invalid", None, "activity None: Object not found"),
    ]
    assert server.requests[1].body == {"activities": [activity, {}], "async": False}


# ---- limits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"code": "rate-limit", "try-in-seconds": 0.2},
        {"code": "rate-limit", "error": "slow down", "try-in-seconds": "0.2"},
        {"error": {"code": "rate-limit", "try-in-seconds": 0.2}},
    ],
)
def test_a_429_says_in_its_body_how_long_to_wait(server: FakeOrtto, ortto: Ortto, body: Any) -> None:
    server.order("POST", "/tags/get", status=429, content=body)
    assert ortto.tags() == []
    assert 0.2 <= NAPS[0] < 0.46


@pytest.mark.parametrize(("status", "wait"), [(408, 301), (500, 301), (503, 301), (429, "soon"), (429, None)])
def test_another_failure_says_nothing_of_how_long_to_wait(
    server: FakeOrtto, ortto: Ortto, status: int, wait: object
) -> None:
    server.order("POST", "/tags/get", status=status, content={"try-in-seconds": wait})
    assert ortto.tags() == []
    assert 0.5 <= NAPS[0] <= 1


def test_a_429_that_stays_names_the_rate_of_its_kind(server: FakeOrtto) -> None:
    server.order("POST", "/person/get/activities", status=429, times=3, content={"code": "rate-limit"})
    with connected(server, activity_requests_per_second=50) as ortto, pytest.raises(Unavailable) as caught:
        list(ortto.activities("000000000000000000000100", []))
    setting = "sources.autopilothq.ortto.activity_requests_per_second"
    assert str(caught.value) == (
        "POST /person/get/activities: 429 Too Many Requests; gave up after 3 tries."
        f" Lower {setting} (now 50) if others use the same key"
    )


def test_nothing_is_sent_after_the_first_401(server: FakeOrtto) -> None:
    said = []
    with connected(server, api_key="another") as ortto:
        for _ in range(3):
            with pytest.raises(NotAuthorized) as caught:
                ortto.tags()
            said.append(str(caught.value))
    text = (
        "POST /tags/get: 401 Unauthorized: Invalid API key (request 00000000-0000-0000-0000-000000000191)."
        " Check sources.autopilothq.ortto.api_key (in .dlt/secrets.toml, or SOURCES__AUTOPILOTHQ__ORTTO__API_KEY in the"
        " environment)"
    )
    assert said == [text] * 3
    assert (len(server.requests), server.bans) == (1, 0)


def test_a_403_is_about_the_key_whatever_was_asked_for(server: FakeOrtto, ortto: Ortto) -> None:
    server.order("POST", "/tags/get", status=403)
    with pytest.raises(NotAuthorized, match=r"403 Forbidden: .*Check sources\.autopilothq\.ortto\.api_key"):
        ortto.tags()


def test_malformed_requests_stay_below_the_rate_that_blocks_an_address(
    server: FakeOrtto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ortto_requests, "MALFORMED", (6, 1.0))  # instead of 15 s
    ortto = connected(server)

    def ask() -> None:
        while time.monotonic() < end:
            with pytest.raises(RequestRejected):
                list(ortto.people(["str::nothing"]))

    end = time.monotonic() + 0.5
    threads = [Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ortto.close()
    assert (6 <= len(server.requests) < 15, server.bans) == (True, 0)
