from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest

from autopilothq.clients.autopilot import Autopilot, AutopilotSettings, Page, Upserted
from autopilothq.clients.decode import plain
from autopilothq.errors import NotAuthorized, NotFound, OutcomeUnknown, RequestRejected, Unavailable, UnexpectedResponse
from fake_autopilot import FakeAutopilot

NAPS: list[float] = []
OLD_LIST = "contactlist_old list 7"


@pytest.fixture
def server() -> Iterator[FakeAutopilot]:
    with FakeAutopilot(contacts=250) as server:
        yield server


@pytest.fixture
def autopilot(server: FakeAutopilot) -> Iterator[Autopilot]:
    with connected(server) as autopilot:
        yield autopilot


def connected(server: FakeAutopilot, **more: Any) -> Autopilot:
    settings: dict[str, Any] = {"api_key": server.key, "requests_per_second": 1000, "tries": 3} | more
    return Autopilot(AutopilotSettings(base_url=server.base_url, **settings), sleep=NAPS.append)


def ids(pages: Iterator[Page]) -> list[list[str]]:
    return [[contact.value("contact_id") for contact in page.contacts] for page in pages]


def with_bookmark(bookmark: Any) -> Callable[[Any], Any]:
    return lambda page: page | {"bookmark": bookmark}


# ---- paging --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contacts", "sizes"), [(0, [0]), (1, [1]), (99, [99]), (100, [100]), (101, [100, 1]), (250, [100, 100, 50])]
)
def test_a_scan(contacts: int, sizes: list[int]) -> None:
    with FakeAutopilot(contacts=contacts) as server, connected(server) as autopilot:
        pages = list(autopilot.contacts())
        assert [len(page.contacts) for page in pages] == sizes
        assert [page.total for page in pages] == [contacts] * len(sizes)
        everybody = [contact for page in pages for contact in page.contacts]
        assert plain(everybody) == [server.account.contact(number) for number in range(contacts)]
        marks = [page.bookmark for page in pages]
        assert [request.path for request in server.requests] == ["/contacts", *(f"/contacts/{m}" for m in marks[:-1])]
        assert marks[-1] is None


def test_a_scan_goes_on_from_a_bookmark(server: FakeAutopilot, autopilot: Autopilot) -> None:
    first, second, third = autopilot.contacts()
    assert list(autopilot.contacts(bookmark=first.bookmark)) == [second, third]
    assert list(autopilot.contacts(second.bookmark)) == [third]
    assert len(server.requests) == 3 + 2 + 1


def test_pages_are_asked_for_one_by_one(server: FakeAutopilot, autopilot: Autopilot) -> None:
    scan = autopilot.contacts()
    assert server.requests == []
    next(scan)
    assert len(server.requests) == 1


def test_neither_a_short_page_nor_the_total_ends_a_scan(server: FakeAutopilot, autopilot: Autopilot) -> None:
    server.order("GET", "/contacts", edit=lambda page: page | {"contacts": page["contacts"][:2], "total_contacts": 2})
    server.order("GET", "/contacts/*", edit=lambda page: page | {"contacts": []})
    assert [(len(page.contacts), page.total) for page in autopilot.contacts()] == [(2, 2), (0, 250), (50, 250)]


@pytest.mark.parametrize("total", [None, "250", 2.5, True])
def test_a_total_that_is_no_count_is_not_known(server: FakeAutopilot, autopilot: Autopilot, total: Any) -> None:
    server.order("GET", "/contacts", edit=lambda page: page | {"total_contacts": total})
    assert [page.total for page in autopilot.contacts()] == [None, 250, 250]


def test_a_full_last_page_may_name_one_behind_it(server: FakeAutopilot, autopilot: Autopilot) -> None:
    last = server.account.contact_id(249)
    server.order("GET", "/contacts/*", skip=1, edit=with_bookmark(last))
    assert [len(page.contacts) for page in autopilot.contacts()] == [100, 100, 50, 0]
    server.order("GET", "/contacts/*", skip=1, edit=with_bookmark(None))
    assert [page.bookmark for page in autopilot.contacts()][-1] is None


def test_pages_may_overlap(server: FakeAutopilot, autopilot: Autopilot) -> None:
    server.overlap = 7
    pages = ids(autopilot.contacts())
    assert all(one[-7:] == other[:7] for one, other in pairwise(pages))
    assert sorted({who for page in pages for who in page}) == [server.account.contact_id(n) for n in range(250)]


@pytest.mark.parametrize("where", ["contacts", "list", "smart_segments"])
def test_a_bookmark_that_comes_twice_is_an_error(server: FakeAutopilot, autopilot: Autopilot, where: str) -> None:
    scans = {
        "contacts": autopilot.contacts(),
        "list": autopilot.list_contacts("contactlist_build-your-journey"),
        "smart_segments": autopilot.segment_contacts("contactlist_sseg1456891025207"),
    }
    server.order("GET", f"/{where}*", times=99, edit=with_bookmark("person_1"))
    pages = scans[where]
    next(pages)
    with pytest.raises(UnexpectedResponse) as caught:
        next(pages)
    path = server.requests[-1].path
    assert path.endswith("/person_1")
    assert (caught.value.method, caught.value.path, caught.value.status) == ("GET", path, 200)
    assert str(caught.value) == (
        f"GET {path} (page 2 of this scan): bookmark 'person_1' came before; stopped, because the scan would never end"
    )


def test_a_resumed_scan_knows_the_bookmark_that_it_started_from(server: FakeAutopilot, autopilot: Autopilot) -> None:
    server.order("GET", "/contacts/*", edit=with_bookmark("person_1"))
    with pytest.raises(
        UnexpectedResponse, match=r"GET /contacts/person_1 \(page 1 of this scan\): bookmark 'person_1' came"
    ):
        next(autopilot.contacts("person_1"))


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ([], "expected an object with a list of contacts, got an array of 0"),
        (None, "expected an object with a list of contacts, got nothing"),
        ("no", 'expected an object with a list of contacts, got "no"'),
        ({}, "expected an object with a list of contacts, got an empty object"),
        (
            {"contacts": {}, "bookmark": None},
            "expected an object with a list of contacts, got an object with bookmark, contacts",
        ),
        ({"contacts": [], "bookmark": 7}, "expected a bookmark that is text or null, got 7"),
        ({"contacts": [], "bookmark": ""}, 'expected a bookmark that is text or null, got ""'),
        ({"contacts": [], "bookmark": "."}, 'expected a bookmark that is text or null, got "."'),
        ({"contacts": [], "bookmark": ".."}, 'expected a bookmark that is text or null, got ".."'),
    ],
)
def test_a_page_that_is_none_is_an_error(server: FakeAutopilot, autopilot: Autopilot, page: Any, text: str) -> None:
    server.order("GET", "/contacts/*", edit=lambda _: b"null" if page is None else page)
    pages = autopilot.contacts()
    bookmark = next(pages).bookmark
    with pytest.raises(UnexpectedResponse) as caught:
        next(pages)
    assert str(caught.value) == f"GET /contacts/{bookmark} (page 2 of this scan): {text}"


def test_contacts_that_are_no_objects_are_the_callers_matter(server: FakeAutopilot, autopilot: Autopilot) -> None:
    server.order("GET", "/contacts", edit=lambda _: {"contacts": [1, None, "x", {}]})
    [page] = autopilot.contacts()
    assert page._replace(contacts=plain(page.contacts)) == Page([1, None, "x", {}], None, None)


def test_a_scan_survives_faults(server: FakeAutopilot, autopilot: Autopilot) -> None:
    faults: list[dict[str, Any]] = [
        {"status": 500}, {"drop": "before"}, {"status": 429}, {"drop": "after"}, {"cut": 99}, {"status": 408},
    ]  # fmt: skip
    paths = ["/contacts", *(f"/contacts/{server.account.contact_id(number)}" for number in (99, 199))]
    for number, fault in enumerate(faults):
        server.order("GET", paths[number // 2], **fault)
    assert [len(page) for page in ids(autopilot.contacts())] == [100, 100, 50]
    assert [request.path for request in server.requests] == [path for path in paths for _ in range(3)]


def test_a_scan_that_broke_off_can_go_on_behind_its_last_page(server: FakeAutopilot, autopilot: Autopilot) -> None:
    server.order("GET", "/contacts/*", skip=1, times=3, status=503)
    pages = autopilot.contacts()
    seen = [next(pages), next(pages)]
    with pytest.raises(Unavailable):
        next(pages)
    assert [len(page.contacts) for page in autopilot.contacts(seen[-1].bookmark)] == [50]


# ---- the account's things ------------------------------------------------------------------------------------------


def test_the_account(server: FakeAutopilot, autopilot: Autopilot) -> None:
    assert plain(autopilot.account()) == {"instanceId": "fake-1", "fullName": "Made Up", "email": "made.up@example.com"}
    assert plain(autopilot.lists()[2]) == {"list_id": OLD_LIST, "title": "Old customers / 2014"}
    assert plain(autopilot.smart_segments()[0]) == {"segment_id": "contactlist_sseg1456891025207", "title": "Ladies"}
    assert plain(autopilot.triggers()[0]) == {
        "trigger_id": "0003",
        "journey": "trigger test",
        "trigger_type": "apiTrigger",
    }
    assert [field.value("name") for field in autopilot.custom_fields()][:2] == ["Review Rating", "Smog Level"]
    assert [request.path for request in server.requests] == [
        "/account", "/lists", "/smart_segments", "/triggers", "/contacts/custom_fields",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "ask", "expected"),
    [
        ("/account", Autopilot.account, "an object"),
        ("/lists", Autopilot.lists, "an object with a list of lists"),
        ("/smart_segments", Autopilot.smart_segments, "an object with a list of segments"),
        ("/triggers", Autopilot.triggers, "an object with a list of triggers"),
    ],
)
def test_shapes_of_another_api(
    server: FakeAutopilot, autopilot: Autopilot, path: str, ask: Callable[[Autopilot], Any], expected: str
) -> None:
    server.order("GET", path, content=[1])
    with pytest.raises(UnexpectedResponse) as caught:
        ask(autopilot)
    assert str(caught.value) == f"GET {path}: expected {expected}, got an array of 1"


def test_custom_fields_must_be_an_array(server: FakeAutopilot, autopilot: Autopilot) -> None:
    server.order("GET", "/contacts/custom_fields", content={"error": 1})
    with pytest.raises(UnexpectedResponse) as caught:
        autopilot.custom_fields()
    assert str(caught.value) == "GET /contacts/custom_fields: expected an array, got an object with error"


def test_lists_and_segments_are_read_side_by_side(server: FakeAutopilot, autopilot: Autopilot) -> None:
    with ThreadPoolExecutor() as pool:
        scans = [autopilot.list_contacts(OLD_LIST), autopilot.segment_contacts("contactlist_sseg1456891025207")]
        by_list, by_segment = pool.map(ids, scans)
    assert by_list == [[server.account.contact_id(number) for number in range(0, 250, 10)]]
    assert [len(page) for page in by_segment] == [100, 25]
    assert ids(autopilot.list_contacts(OLD_LIST, by_list[0][19])) == [by_list[0][20:]]
    assert ids(autopilot.segment_contacts("contactlist_sseg1456891025207", by_segment[0][-1])) == by_segment[1:]
    assert server.seen("GET", "/list/*")[0].path == "/list/contactlist_old%20list%207/contacts"


def test_a_contact(server: FakeAutopilot, autopilot: Autopilot) -> None:
    contact = server.account.contact(3)
    assert autopilot.contact(contact["contact_id"]) == autopilot.contact(contact["Email"])
    assert plain(autopilot.contact(contact["Email"])) == contact
    assert autopilot.contact("no+body@example.com") is None
    assert server.requests[-1].path == "/contact/no%2Bbody%40example.com"


def test_a_wrong_key_names_its_setting(server: FakeAutopilot) -> None:
    with connected(server, api_key="f" * 32, setting="destination.autopilothq.api_key") as autopilot:
        assert "f" * 32 not in repr(autopilot)
        with pytest.raises(NotAuthorized) as caught:
            list(autopilot.contacts())
    assert str(caught.value) == (
        "GET /contacts: 401 Unauthorized: Provided autopilotapikey not valid. Check destination.autopilothq.api_key"
        " (in .dlt/secrets.toml, or DESTINATION__AUTOPILOTHQ__API_KEY in the environment)"
    )
    assert len(server.requests) == 1


# ---- writing -------------------------------------------------------------------------------------------------------


def test_upsert(server: FakeAutopilot, autopilot: Autopilot) -> None:
    written = {"Email": "ann@example.com", "FirstName": "Ann", "custom": {"integer--Review--Rating": 4}}
    contact_id = autopilot.upsert(written)
    assert autopilot.upsert({"Email": "ann@example.com", "LastName": "Bee"}) == contact_id
    assert [(request.method, request.path, request.body) for request in server.requests] == [
        ("POST", "/contact", {"contact": written}),
        ("POST", "/contact", {"contact": {"Email": "ann@example.com", "LastName": "Bee"}}),
    ]
    shown = plain(autopilot.contact("ann@example.com"))
    assert shown == {
        "type": "Contact",
        "contact_id": contact_id,
        "api_originated": True,
        "created_at": "2019-12-06T00:00:00.000Z",
        "updated_at": "2019-12-06T00:00:00.000Z",
        "Email": "ann@example.com",
        "FirstName": "Ann",
        "LastName": "Bee",
        "custom_fields": [{"kind": "Review Rating", "value": 4, "fieldType": "integer", "deleted": False}],
    }


def test_upsert_many(server: FakeAutopilot, autopilot: Autopilot) -> None:
    contacts = [{"Email": f"p+{number}@example.com"} for number in range(100)]
    upserted = autopilot.upsert_many(contacts)
    assert server.requests[0].body == {"contacts": contacts}
    found = [server.account.find(contact["Email"]) or {} for contact in contacts]
    assert upserted == Upserted({contact["Email"]: contact["contact_id"] for contact in found})
    assert len(set(upserted.email_contact_map.values())) == 100


@pytest.mark.parametrize("count", [0, 101])
def test_upsert_many_takes_1_to_100(server: FakeAutopilot, autopilot: Autopilot, count: int) -> None:
    with pytest.raises(ValueError, match=f"^1 to 100 contacts go into one request, got {count}$"):
        autopilot.upsert_many([{"Email": "a@example.com"}] * count)
    assert server.requests == []


def test_one_bad_contact_refuses_them_all(server: FakeAutopilot, autopilot: Autopilot) -> None:
    with pytest.raises(RequestRejected) as caught:
        autopilot.upsert_many([{"Email": "a@example.com"}, {"Email": "nonsense"}])
    assert str(caught.value) == "POST /contacts: 400 Bad Request: Invalid contact provided."
    assert server.account.find("a@example.com") is None


@pytest.mark.parametrize(
    ("contact", "tries"),
    [
        ({"Email": "a@example.com"}, 2),
        # Not repeated: each call would create a contact, or use an address that the first call changed.
        ({"FirstName": "Ann"}, 1),
        ({"Email": "a@example.com", "_NewEmail": "b@example.com"}, 1),
    ],
    ids=["email", "no email", "new email"],
)
@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_writing_is_repeated_only_where_that_is_writing_once(
    server: FakeAutopilot, autopilot: Autopilot, contact: dict[str, Any], tries: int, many: bool
) -> None:
    server.order("POST", "/contact*", drop="after")
    known = {"Email": server.account.contact(3)["Email"]}
    ask: Callable[[], Any] = lambda: autopilot.upsert_many([known, contact]) if many else autopilot.upsert(contact)  # noqa: E731
    if tries == 1:
        with pytest.raises(OutcomeUnknown):
            ask()
    else:
        ask()
    assert len(server.requests) == tries
    assert server.account.total() == 251


@pytest.mark.parametrize(
    ("path", "write", "expected"),
    [
        ("/contact", lambda autopilot: autopilot.upsert({"Email": "a@example.com"}), "a contact_id"),
        (
            "/contacts",
            lambda autopilot: autopilot.upsert_many([{"Email": "a@example.com"}]),
            "contact_ids and email_contact_map",
        ),
        ("/list", lambda autopilot: autopilot.create_list("x"), "a list_id"),
    ],
)
def test_answers_to_writing_that_are_none(
    server: FakeAutopilot, autopilot: Autopilot, path: str, write: Callable[[Autopilot], Any], expected: str
) -> None:
    of_many = "an object with contact_ids, email_contact_map"
    for answer, got in (
        ({}, "an empty object"),
        ([1], "an array of 1"),
        ({"contact_ids": {}, "email_contact_map": {}}, of_many),
        ({"contact_ids": ["person_1"], "email_contact_map": []}, of_many),
        ({"contact_ids": "person_1", "email_contact_map": {}}, of_many),
    ):
        server.order("POST", path, content=answer)
        with pytest.raises(UnexpectedResponse) as caught:
            write(autopilot)
        assert str(caught.value) == f"POST {path}: expected an object with {expected}, got {got}"
        assert (caught.value.method, caught.value.path, caught.value.status) == ("POST", path, 200)


def test_trigger(server: FakeAutopilot, autopilot: Autopilot) -> None:
    contact = server.account.contact(3)
    autopilot.trigger("0003", contact["Email"])
    (request,) = server.requests
    assert (request.method, request.path, request.body) == (
        "POST", f"/trigger/0003/contact/{contact['Email'].replace('+', '%2B').replace('@', '%40')}", None,
    )  # fmt: skip
    assert server.account.triggered == [("0003", contact["contact_id"])]
    with pytest.raises(NotFound, match=r"404 Not Found: Contact could not be found\.$"):
        autopilot.trigger("0003", "nobody@example.com")


@pytest.mark.parametrize(
    ("path", "ask"),
    [
        ("/trigger/*", lambda autopilot, who: autopilot.trigger("0003", who)),
        ("/list", lambda autopilot, _: autopilot.create_list("New")),
    ],
)
def test_what_would_be_done_again_is_not_repeated(
    server: FakeAutopilot, autopilot: Autopilot, path: str, ask: Callable[[Autopilot, str], Any]
) -> None:
    server.order("POST", path, drop="after")
    with pytest.raises(OutcomeUnknown):
        ask(autopilot, server.account.contact_id(3))
    assert len(server.requests) == 1
    assert len(server.account.triggered) + len(server.account.lists) == 4 + 1


def test_an_answer_may_be_empty_where_only_its_status_matters(server: FakeAutopilot, autopilot: Autopilot) -> None:
    who, member = server.account.contact_id(3), server.account.contact_id(10)
    before = server.account.contact(3)["lists"]
    writes: tuple[tuple[Callable[[], None], int], ...] = (
        (lambda: autopilot.put_on_list(OLD_LIST, who), 2),
        (lambda: autopilot.take_off_list(OLD_LIST, member), 2),
        (lambda: autopilot.eject("0009", who), 2),
        (lambda: autopilot.unsubscribe(who), 2),
        (lambda: autopilot.trigger("0003", who), 1),
        (lambda: autopilot.delete_contact(member), 1),
    )
    for ask, tries in writes:
        server.order("*", "*", times=tries - 1, drop="after")
        server.order("*", "*", edit=lambda _: b"")
        ask()
    assert [(request.method, request.path, request.body) for request in server.requests] == [
        *[("POST", f"/list/contactlist_old%20list%207/contact/{who}", None)] * 2,
        *[("DELETE", f"/list/contactlist_old%20list%207/contact/{member}", None)] * 2,
        *[("DELETE", f"/journey/0009/contact/{who}", None)] * 2,
        *[("POST", f"/contact/{who}/unsubscribe", None)] * 2,
        ("POST", f"/trigger/0003/contact/{who}", None),
        ("DELETE", f"/contact/{member}", None),
    ]
    assert (server.account.ejected, server.account.triggered) == ([("0009", who)] * 2, [("0003", who)])
    contact = server.account.contact(3)
    assert (contact["lists"], contact["unsubscribed"]) == ([*before, OLD_LIST], True)
    assert server.account.find(member) is None


def test_create_list(server: FakeAutopilot, autopilot: Autopilot) -> None:
    list_id = autopilot.create_list("New / ones")
    assert server.account.lists[list_id] == "New / ones"
    with pytest.raises(RequestRejected) as caught:
        autopilot.create_list("New / ones")
    assert str(caught.value) == "POST /list: 409 Conflict: A list with this name already exists."


def test_errors_name_settings_by_the_section_that_has_them() -> None:
    key = AutopilotSettings(api_key="0123456789")
    other = AutopilotSettings(api_key="0123456789", setting="destination.autopilothq.api_key")
    assert [each.name_of("base_url") for each in (key, other)] == [
        "sources.autopilothq.api.base_url",
        "destination.autopilothq.base_url",
    ]
