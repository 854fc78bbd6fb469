"""Segment's Profile API over real HTTP: one person, and many in parallel (docs/contract/profile-api.md)."""

import json
import threading
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from autopilothq.clients.autopilot import Page
from autopilothq.clients.profile_api import BASE_URLS, ProfileApi, ProfileApiSettings
from autopilothq.errors import InvalidSetting, NotAuthorized, RequestRejected, Unavailable, UnexpectedResponse
from autopilothq.segment.json_text import JsonNumber, JsonObject
from autopilothq.segment.message import parse_json
from autopilothq.sources.profiles import events, pull
from autopilothq.sources.profiles import people as whose
from autopilothq.sources.profiles.events import EVENT_NAMES, OVERLAP, DueProfile, EventScope, start_of
from autopilothq.sources.profiles.people import Person, people_of_file, profile_id
from autopilothq.sources.spool import ScanStart, Spool
from fake_autopilot import FakeProfiles
from fake_autopilot.profiles import query_of
from waiting import timed

WHO = "email:thomas@example.com"
PATH = "/spaces/spa_7Qx/collections/users/profiles/email%3Athomas%40example%2Ecom/events"
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.fixture
def server() -> Iterator[FakeProfiles]:
    with FakeProfiles() as running:
        yield running


@pytest.fixture
def space(server: FakeProfiles) -> Iterator[ProfileApi]:
    with client(server) as profiles:
        yield profiles


def client(server: FakeProfiles, **words: Any) -> ProfileApi:
    settings: dict[str, Any] = {"base_url": server.base_url, "requests_per_second": 10_000, "tries": 1}
    settings |= {"api_key": words.pop("token", server.token), "space": server.space} | words
    return ProfileApi(ProfileApiSettings(**settings), sleep=lambda _: None)


def ids(pages: Iterator[list[Any]]) -> list[list[str]]:
    return [[event.value("message_id") for event in page] for page in pages]


# ---- requests ------------------------------------------------------------------------------------------------------


def test_a_request_says_who_is_asked_for_what(server: FakeProfiles, space: ProfileApi) -> None:
    list(space.events(WHO, ["Email Opened", "Café & Co"], datetime(2019, 3, 4, 5, 6, 7, tzinfo=UTC)))
    [request] = server.requests
    assert (request.method, request.path.partition("?")[0]) == ("GET", PATH)
    assert query_of(request) == {
        "include": "Email Opened,Café & Co", "start": "2019-03-04T05:06:07.000Z", "sort": "asc", "limit": "100",
    }  # fmt: skip
    assert request.headers["authorization"] == f"Basic {b64encode(f'{server.token}:'.encode()).decode()}"
    list(space.events(WHO, EVENT_NAMES))
    assert "start" not in query_of(server.requests[-1])


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("a+b@example.com", "email%3Aa%2Bb%40example%2Ecom"),
        ("100%@example.com", "email%3A100%25%40example%2Ecom"),
        ('"a b"@example.com', "email%3A%22a%20b%22%40example%2Ecom"),
        (" Thomas.SMITH@Example.COM\n", "email%3Athomas%2Esmith%40example%2Ecom"),
        ("JÜRGEN@müller.de", "email%3Aj%C3%BCrgen%40m%C3%BCller%2Ede"),
        ("日本@例え.jp", "email%3A%E6%97%A5%E6%9C%AC%40%E4%BE%8B%E3%81%88%2Ejp"),
        ("a/b?c#d@e.f", "email%3Aa%2Fb%3Fc%23d%40e%2Ef"),
        ("12345", "user%5Fid%3A12345"),
        ("User-7", "user%5Fid%3Auser%2D7"),
        ("user_id: me@home ", "user%5Fid%3Ame%40home"),
        ("anonymous_id:5F-a", "anonymous%5Fid%3A5f%2Da"),
        ("http://user", "user%5Fid%3Ahttp%3A%2F%2Fuser"),
    ],
)
def test_ids_reach_the_server_as_it_wants_them(server: FakeProfiles, space: ProfileApi, given: str, path: str) -> None:
    known = profile_id(given)
    assert known is not None
    made = server.happen(known)
    assert ids(space.events(known, EVENT_NAMES)) == [[made["message_id"]]]
    assert server.requests[-1].path.split("/")[6] == path


@pytest.mark.parametrize("value", ["", " \n", "email:", "user_id: ", "a\0b@c.d", "a\ud800@b.c"])
def test_what_is_nobody_is_not_asked_for(value: str) -> None:
    assert profile_id(value) is None


def test_an_id_may_be_the_name_of_a_kind() -> None:
    assert profile_id("Email") == "user_id:email"


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 7])
def test_pages_go_on_while_there_are_more(server: FakeProfiles, space: ProfileApi, number: int) -> None:
    server.page = 3
    server.people[WHO] = []
    made = [server.happen(WHO, ago=1000 - n)["message_id"] for n in range(number)]
    pages = ids(space.events(WHO, EVENT_NAMES))
    assert [name for page in pages for name in page] == made
    assert len(server.requests) == len(pages) == max(1, -(-number // 3))


def test_someone_who_is_not_known_has_no_events(server: FakeProfiles, space: ProfileApi) -> None:
    assert list(space.events("email:nobody@example.com", EVENT_NAMES)) == []
    assert len(server.requests) == 1


def test_someone_who_is_gone_between_two_pages_is_an_error(server: FakeProfiles, space: ProfileApi) -> None:
    server.page = 1
    server.happen(WHO), server.happen(WHO)
    server.order("GET", PATH, skip=1, status=404)
    with pytest.raises(RequestRejected, match="404"):
        list(space.events(WHO, EVENT_NAMES))


def test_a_cursor_that_repeats_is_an_error(server: FakeProfiles, space: ProfileApi) -> None:
    server.page = 1
    for _ in range(3):
        server.happen(WHO)
    server.order("GET", PATH, skip=1, edit=lambda page: page | {"cursor": {"has_more": True, "next": "c1"}})
    with pytest.raises(UnexpectedResponse) as error:
        list(space.events(WHO, EVENT_NAMES))
    assert str(error.value) == (
        f"GET {PATH} (page 2): cursor 'c1' came before; stopped, because the pages would never end"
        " (Request-Id req-0002)"
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([], "expected an object with a list of data, got an array of 0"),
        ({}, "expected an object with a list of data, got an empty object"),
        ({"error": 1, "b": 2}, "expected an object with a list of data, got an object with b, error"),
        ({"data": {}}, "expected an object with a list of data, got an object with data"),
        ({"data": [], "cursor": "c1"}, 'expected a cursor that is an object, got "c1"'),
        ({"data": [], "cursor": {"has_more": "yes"}}, 'expected has_more to be true or false, got "yes"'),
        ({"data": [], "cursor": {"has_more": True}}, "expected the cursor of the next page, got nothing"),
        ({"data": [], "cursor": {"has_more": True, "next": 7}}, "expected the cursor of the next page, got 7"),
    ],
)
def test_an_answer_in_another_shape_is_an_error(
    server: FakeProfiles, space: ProfileApi, content: Any, text: str
) -> None:
    server.order("GET", PATH, content=content, headers={"Request-Id": "req-7"})
    with pytest.raises(UnexpectedResponse) as error:
        list(space.events(WHO, EVENT_NAMES))
    assert str(error.value) == f"GET {PATH}: {text} (Request-Id req-7)"
    assert json.loads(error.value.content) == content


def test_what_is_no_json_is_an_error_without_the_token(server: FakeProfiles, space: ProfileApi) -> None:
    secret = b64encode(f"{server.token}:".encode()).decode()
    page = f"<html>{'.' * 80}{secret} {server.token}".encode()
    server.order("GET", PATH, content=page, headers={"Request-Id": "req-7", "Content-Type": "text/html"})
    with pytest.raises(UnexpectedResponse) as error:
        list(space.events(WHO, EVENT_NAMES))
    assert str(error.value) == (
        f"GET {PATH}: expected JSON, got text/html that begins '<html>{'.' * 54}' (Request-Id req-7)"
    )
    assert error.value.content == f"<html>{'.' * 80}*** ***"


@pytest.mark.parametrize("content", [{"data": []}, {"data": [], "cursor": None}, {"data": [], "cursor": {}}])
def test_a_page_without_a_cursor_is_the_last(server: FakeProfiles, space: ProfileApi, content: Any) -> None:
    server.order("GET", PATH, content=content)
    assert list(space.events(WHO, EVENT_NAMES)) == [[]]


def test_401_and_403_name_the_setting(server: FakeProfiles) -> None:
    texts = []
    for words in ({"token": "wrong"}, {"space": "other"}):
        with client(server, **words) as space, pytest.raises(NotAuthorized) as error:
            list(space.events(WHO, EVENT_NAMES))
        texts.append(str(error.value))
    check = (
        "Check sources.autopilothq.profiles.token"
        " (in .dlt/secrets.toml, or SOURCES__AUTOPILOTHQ__PROFILES__TOKEN in the environment)"
    )
    other = PATH.replace("spa_7Qx", "other")
    assert texts == [
        f"GET {PATH}: 401 Unauthorized: authentication_error: The token is not valid. (Request-Id req-0001). {check}",
        (
            f"GET {other}: 403 Forbidden: authentication_error: No. (Request-Id req-0002). {check}"
            " and sources.autopilothq.profiles.space"
        ),
    ]


def test_429_and_5xx_are_tried_again(server: FakeProfiles) -> None:
    server.happen(WHO)
    server.order("GET", PATH, status=429, retry_after=0)
    server.order("GET", PATH, status=503)
    with client(server, tries=3) as space:
        assert len(list(space.events(WHO, EVENT_NAMES))) == 1
        server.order("GET", PATH, status=500, times=3)
        with pytest.raises(Unavailable, match="500 Internal Server Error: Ordered 500; gave up after 3 tries"):
            list(space.events(WHO, EVENT_NAMES))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"token": " "}, "sources.autopilothq.profiles.token is empty: set it to the key as the account shows it (in"),
        ({"space": " "}, "sources.autopilothq.profiles.space must be the id of a space of Segment Unify, got ' '"),
        ({"base_url": "x"}, "sources.autopilothq.profiles.base_url must be like https://host/path, without"),
        ({"requests_per_second": 0}, "sources.autopilothq.profiles.requests_per_second must be a number above 0, got"),
    ],
)
def test_settings_that_cannot_work(server: FakeProfiles, words: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidSetting) as error:
        client(server, **words)
    assert str(error.value).startswith(text)


def test_the_addresses_are_those_of_the_regions_and_secrets_do_not_print() -> None:
    assert BASE_URLS == {"us": "https://profiles.segment.com/v1", "eu": "https://profiles.euw1.segment.com/v1"}
    with ProfileApi(ProfileApiSettings(api_key="secret", space="spa_1")) as space:
        assert "https://profiles.segment.com/v1" in repr(space)
        assert "secret" not in repr(space)


# ---- messages ------------------------------------------------------------------------------------------------------


def made(**fields: Any) -> JsonObject:
    return parse_json(json.dumps(fields).encode())


def test_an_event_is_a_message_of_the_contract() -> None:
    event = parse_json(
        b'{"external_ids":[{"collection":"users","type":"user_id","id":"12345","encoding":"none"},'
        b'{"collection":"users","type":"email","id":"t@e.com","encoding":"none"}],'
        b'"context":{"traits":{"email":"t@e.com","contact_id":"person_1"}},"type":"track","message_id":"api-1",'
        b'"source_id":"AbC","timestamp":"2019-03-04T05:06:07.000Z","event":"Email Clicked",'
        b'"properties":{"n":1.10,"big":12345678901234567890.5,"link_url":"https://e.com/?a=b"},"related":{"users":"u"}}'
    )
    assert events.message(event, WHO) == (
        b'{"type":"track","event":"Email Clicked","messageId":"api-1","timestamp":"2019-03-04T05:06:07.000Z",'
        b'"userId":"12345","anonymousId":"t@e.com","context":{"traits":{"email":"t@e.com","contact_id":"person_1"}},'
        b'"properties":{"n":1.10,"big":12345678901234567890.5,"link_url":"https://e.com/?a=b"}}\n'
    )


def external(*ids: tuple[str, Any], collection: str = "users") -> list[dict[str, Any]]:
    return [{"collection": collection, "type": kind, "id": value} for kind, value in ids]


@pytest.mark.parametrize(
    ("fields", "asked", "found"),
    [
        ({"external_ids": external(("user_id", "1"), ("user_id", "2"))}, WHO, ("1", "thomas@example.com")),
        ({"external_ids": external(("anonymous_id", "a"), ("anonymous_id", "b"), ("email", "e"))}, WHO, (None, "a")),
        ({"external_ids": external(("email", "E@x.y"))}, WHO, (None, "E@x.y")),
        ({"context": {"traits": {"email": "T@x.y"}}}, WHO, (None, "T@x.y")),
        ({}, WHO, (None, "thomas@example.com")),
        ({}, "user_id:7", ("7", None)),
        ({}, "anonymous_id:7", (None, "7")),
        ({"external_ids": external(("user_id", 7))}, "user_id:7", (7, None)),
        ({"external_ids": external(("user_id", " "), ("user_id", True), ("user_id", "8"))}, "user_id:8", ("8", None)),
        ({"external_ids": external(("user_id", "acc"), collection="accounts")}, WHO, (None, "thomas@example.com")),
        ({"external_ids": "none"}, WHO, (None, "thomas@example.com")),
        ({"external_ids": [1, {"type": 2, "id": "3"}]}, WHO, (None, "thomas@example.com")),
    ],
)
def test_ids_of_a_message(fields: dict[str, Any], asked: str, found: tuple[Any, str | None]) -> None:
    message = json.loads(events.message(made(**fields), asked))
    assert (message.get("userId"), message.get("anonymousId")) == found


@pytest.mark.parametrize("event", ["x", JsonNumber("7"), True, None, [1]])
def test_what_is_no_event_stays_for_the_warehouse_to_reject(event: Any) -> None:
    assert json.loads(events.message(event, WHO)) == (7 if isinstance(event, JsonNumber) else event)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"type": "track", "event": "Email Opened"}, True),
        ({"type": "track", "event": "email opened"}, False),
        ({"type": "track", "event": "Order Completed"}, False),
        ({"type": "page", "event": "Email Opened"}, False),
        ({"type": "identify"}, False),
        ({"event": "Email Opened"}, True),
        ({"type": "track"}, True),
        ({"type": 7, "event": 7}, True),
        ({"type": "track", "event": "Email Opened", "source_id": "other"}, False),
        ({"type": "track", "event": "Email Opened", "source_id": "mine"}, True),
    ],
)
def test_events_of_other_types_names_and_sources_are_not_wanted(fields: dict[str, Any], wanted: bool) -> None:
    assert EventScope(source_id="mine").has(made(**fields)) == wanted


@pytest.mark.parametrize(
    ("watermark", "since", "start"),
    [
        (None, None, None),
        (NOW, None, NOW - OVERLAP),
        (NOW, NOW - timedelta(hours=1), NOW - timedelta(hours=1)),
        (NOW, NOW - timedelta(days=3), NOW - OVERLAP),
        (None, NOW - timedelta(days=3), NOW - timedelta(days=3)),
        (NOW - timedelta(days=13), None, None),
        (None, NOW - timedelta(days=20), None),
    ],
)
def test_each_is_asked_from_a_day_before_the_watermark_on(
    watermark: datetime | None, since: datetime | None, start: datetime | None
) -> None:
    assert start_of(DueProfile(WHO, watermark), EventScope(since=since), NOW) == start


# ---- people --------------------------------------------------------------------------------------------------------


def test_a_file_has_an_email_or_a_user_id_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "people.txt"
    path.write_bytes("\ufeffA@b.c\r\n\n 12345 \n\ufeff\ufeff \n\ufeffJürgen@x.de".encode())
    monkeypatch.setattr(whose, "PEOPLE_PER_GROUP", 2)
    assert list(people_of_file(path)) == [
        [Person("email:a@b.c"), Person("user_id:12345")], [Person("email:jürgen@x.de")],
    ]  # fmt: skip


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "people.txt"
    with pytest.raises(InvalidSetting, match=r"people\.txt: No such file"):
        list(people_of_file(path))
    path.write_bytes(b"a@b.c\n\xff\n")
    with pytest.raises(InvalidSetting, match=r"people\.txt: expected emails or user ids in UTF-8: .* byte 0xff"):
        list(people_of_file(path))


@pytest.mark.parametrize(
    ("fields", "active_at"),
    [
        ({}, None),
        ({"updated_at": "2016-12-20T08:08:00.000Z"}, datetime(2016, 12, 20, 8, 8, tzinfo=UTC)),
        (
            {"mail_opened": {"a": 1000, "b": 3000}, "mail_replied": {"c": 2000}},
            datetime(1970, 1, 1, 0, 0, 3, tzinfo=UTC),
        ),
        ({"updated_at": "soon", "mail_opened": {"a": "x"}, "mail_clicked": 7}, None),
        ({"updated_at": 5000, "mail_opened": {"a": 1000}}, datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC)),
        ({"mail": {"a": 1000}, "created_at": 1000}, None),
    ],
)
def test_a_record_tells_of_activity(tmp_path: Path, fields: dict[str, Any], active_at: datetime | None) -> None:
    spool = Spool.begin(tmp_path / "spool", ScanStart("account", "now"))
    contacts = [
        {"Email": " A@b.C ", "Name": "A", **fields},
        {"Name": "no email"},
        {"Email": None},
        "none",
        {"Email": " "},
    ]
    came = parse_json(json.dumps({"contacts": contacts}).encode()).value("contacts")
    spool.put(whose._reduced(Page(came, None, None)))
    assert whose._people(spool.read(1)[0]) == [Person("email:a@b.c", active_at)]
    assert [name for name, _ in spool.read(1)[0][0]] == [  # type: ignore[attr-defined]
        name for name in ("Email", *fields) if name not in ("mail", "created_at")
    ]


# ---- side by side --------------------------------------------------------------------------------------------------


def test_people_are_asked_for_side_by_side(server: FakeProfiles, space: ProfileApi) -> None:
    together = threading.Barrier(8)
    alone = threading.Event()

    def everyone(_: str) -> list[Any]:
        if alone.is_set():
            together.wait(timeout=10)  # breaks if fewer than eight come at once
        alone.set()
        return []

    server.everyone = everyone
    people = (DueProfile(f"user_id:{number}") for number in range(1 + 3 * 8))
    answers = list(pull.fetch_events(space, people, EventScope(), 8))
    assert sorted(answer.person.id for answer in answers if isinstance(answer, pull._PersonEnd)) == sorted(
        f"user_id:{number}" for number in range(25)
    )
    assert not any(isinstance(answer, pull._PersonEnd) and answer.error for answer in answers)


def test_nobody_is_asked_for_before_the_answers_are_taken(server: FakeProfiles, space: ProfileApi) -> None:
    server.everyone = lambda _: []
    taken = count()
    answers = pull.fetch_events(space, (DueProfile(f"user_id:{next(taken)}") for _ in range(10**6)), EventScope(), 4)
    for _ in range(5):
        next(answers)
    deadline = threading.Event()
    deadline.wait(0.3)  # time enough for hundreds
    assert next(taken) <= 1 + 5 + 4 + 4 + 1  # the first, those taken, those waiting, those in progress, the next
    answers.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("profiles-")]


def test_what_is_nested_too_deeply_costs_that_person(server: FakeProfiles, space: ProfileApi) -> None:
    deep: Any = 1
    for _ in range(700):
        deep = [deep]
    server.happen(WHO, properties={"deep": deep})
    [*_, ended] = pull.fetch_events(space, iter([DueProfile(WHO)]), EventScope(), 1)
    assert isinstance(ended, pull._PersonEnd)
    assert str(ended.error) == f"{WHO}: an answer nested too deeply to be read"


def test_settings_that_are_refused_cost_one_request(server: FakeProfiles) -> None:
    with client(server, token="wrong") as space, pytest.raises(NotAuthorized):
        list(pull.fetch_events(space, (DueProfile(f"user_id:{number}") for number in range(100)), EventScope(), 50))
    assert len(server.requests) == 1


@timed
def test_the_pace_is_reached_while_answers_take_their_time() -> None:
    with (
        FakeProfiles(latency=0.1, rate=50, everyone=lambda _: []) as server,
        client(server, requests_per_second=50) as space,
    ):
        started = datetime.now(UTC)
        list(pull.fetch_events(space, (DueProfile(f"user_id:{number}") for number in range(101)), EventScope(), 50))
        seconds = (datetime.now(UTC) - started).total_seconds()
    assert len(server.requests) == 101
    assert seconds < 4  # one after the other would take more than ten seconds
