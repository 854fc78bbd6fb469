"""Answers about people become batches, watermarks and rejects, and failures stop a pull."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from autopilothq.clients.autopilot import Page
from autopilothq.errors import (
    ApiError,
    InvalidSetting,
    NotAuthorized,
    RequestRejected,
    Unavailable,
    UnexpectedResponse,
)
from autopilothq.segment.json_text import JsonObject
from autopilothq.sources.profiles import pull as pulling
from autopilothq.sources.profiles.events import EVENT_NAMES, OVERLAP, AnsweredProfile, DueProfile, EventScope
from autopilothq.sources.profiles.people import people_of_contacts
from autopilothq.sources.profiles.pull import Pull
from autopilothq.sources.scans import Scan
from autopilothq.sources.spool import ScanStart, Spool

SCAN = "2019-05-01T00:00:00.000Z"
NOW = datetime.now(UTC)
BEFORE = NOW - timedelta(days=2)


class Space:
    """Returns pages of events by person, raises a page that is an error, and records all requests."""

    def __init__(self, **people: Sequence[Any]) -> None:
        self.people, self.asked = people, list[tuple[str, Sequence[str], datetime | None]]()

    def events(self, person: str, names: Sequence[str], start: datetime | None = None) -> Iterator[list[Any]]:
        self.asked.append((person, names, start))
        for page in self.people[person.removeprefix("user_id:")]:
            if isinstance(page, BaseException):
                raise page
            yield [event(id_) if isinstance(id_, str) else id_ for id_ in page]


def event(id_: str, **more: Any) -> JsonObject:
    return JsonObject([("type", "track"), ("event", "Email Opened"), ("message_id", id_), *more.items()])


def line(person: str, id_: str) -> bytes:
    return f'{{"type":"track","event":"Email Opened","messageId":"{id_}","userId":"{person}"}}\n'.encode()


class Pulled:
    """A pull of people one after the other, and its reports."""

    def __init__(self, space: Space, scope: EventScope | None = None) -> None:
        self.scan = Scan("profiles", "url", SCAN, index=3, lines_before=5)
        self.answered: list[list[AnsweredProfile]] = []
        self.progress: list[tuple[int, int, int]] = []
        self.pull: Pull = Pull(self.scan, space, scope or EventScope(), 0.5, self.answered.append, self.note)  # type: ignore[arg-type]
        self.batches: list[Any] = []

    def note(self) -> None:
        self.progress.append((self.pull.asked, self.pull.known, self.pull.failed))

    def of(self, *people: str) -> "Pulled":
        for batch in self.pull.batches(DueProfile(f"user_id:{person}", BEFORE) for person in people):
            self.batches.append(batch)
        return self

    @property
    def lines(self) -> list[list[tuple[int, bytes]]]:
        return [[(row["line"], row["text"]) for row in batch.lines.to_pylist()] for batch in self.batches]

    @property
    def ended(self) -> list[tuple[str, bool]]:
        """Returns the people who are done, each with whether the watermark moved."""
        return [(who.id.removeprefix("user_id:"), who.loaded_until != BEFORE) for part in self.answered for who in part]


def test_each_persons_events_are_lines_and_their_watermark_moves() -> None:
    space = Space(a=[["1", "2"], ["3"]], b=[], c=[[]])
    pulled = Pulled(space).of("a", "b", "c")
    assert pulled.lines == [[(number, line("a", str(number - 5))) for number in (6, 7, 8)]]
    [batch] = pulled.batches
    size = sum(len(text) for _, text in pulled.lines[0])
    assert (batch.rejects, batch.ended, batch.bytes, pulled.scan.size) == ([], [(3, None)], size, size)
    assert pulled.ended == [("a", True), ("b", True), ("c", True)]
    assert all(NOW <= who.asked_at == who.loaded_until for who in pulled.answered[0])
    pull = pulled.pull
    assert (pull.asked, pull.known, pull.failed, pull.failure, pull.stopped) == (3, 2, 0, None, None)
    assert pulled.progress == [(1, 1, 0), (2, 1, 0), (3, 2, 0)]
    assert space.asked == [(f"user_id:{name}", EVENT_NAMES, BEFORE - OVERLAP) for name in "abc"]


def test_without_people_there_is_only_an_empty_last_batch() -> None:
    pulled = Pulled(Space()).of()
    assert (pulled.lines, pulled.answered) == ([[]], [[]])
    assert pulled.batches[0].ended == [(3, None)]


def test_only_events_of_the_scope_are_taken() -> None:
    other = JsonObject([("type", "track"), ("event", "Order Done"), ("message_id", "x")])
    space = Space(a=[["1", other, event("2", source_id="other"), event("3", source_id="mine"), 7]])
    scope = EventScope(("Email Opened",), "mine", NOW - timedelta(hours=1))
    pulled = Pulled(space, scope).of("a")
    mine = line("a", "3")
    assert pulled.lines == [[(6, line("a", "1")), (7, mine), (8, b"7\n")]]
    assert space.asked == [("user_id:a", ("Email Opened",), NOW - timedelta(hours=1))]


@pytest.mark.parametrize(
    ("most", "lines"), [(1, [["1", "2"], ["3"], ["4"], []]), (3, [["1", "2", "3"], ["4"]]), (9, [["1", "2", "3", "4"]])]
)
def test_batches_end_between_pages(monkeypatch: pytest.MonkeyPatch, most: int, lines: list[list[str]]) -> None:
    monkeypatch.setattr(pulling, "LINES_PER_BATCH", most)
    pulled = Pulled(Space(a=[["1", "2"], ["3"]], b=[["4"]])).of("a", "b")
    owners = {"4": "b"}
    assert [[text for _, text in part] for part in pulled.lines] == [
        [line(owners.get(id_, "a"), id_) for id_ in part] for part in lines
    ]
    assert [batch.ended for batch in pulled.batches] == [*[[]] * (len(lines) - 1), [(3, None)]]
    # A watermark moves only after all events of the person are handed over.
    told = [len(part) for part in pulled.answered]
    assert told == {1: [0, 0, 1, 1], 3: [0, 2], 9: [2]}[most]
    assert len([number for part in pulled.lines for number, _ in part]) == 4


def test_many_people_without_events_are_told_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "PEOPLE_PER_BATCH", 2)
    pulled = Pulled(Space(**dict.fromkeys("abcde", ()))).of(*"abcde")
    assert [len(part) for part in pulled.answered] == [2, 2, 1]


def unexpected(content: str) -> UnexpectedResponse:
    error = UnexpectedResponse("odd")
    error.content = content
    return error


@pytest.mark.parametrize(
    ("error", "raw"),
    [
        (unexpected("<html>"), b'{"person":"user_id:b","answer":"<html>"}'),
        (RequestRejected("odd", server_message="No."), b'{"person":"user_id:b","answer":"No."}'),
        (Unavailable("odd"), None),
    ],
)
def test_a_person_without_an_answer_keeps_the_watermark(error: ApiError, raw: bytes | None) -> None:
    pulled = Pulled(Space(a=[["1"]], b=[["2"], error], c=[["3"]])).of("a", "b", "c")
    pull = pulled.pull
    assert (pull.asked, pull.known, pull.failed, pull.failure, pull.stopped) == (3, 2, 1, error, None)
    assert pulled.ended == [("a", True), ("b", False), ("c", True)]
    assert all(who.asked_at >= NOW for who in pulled.answered[0])
    [batch] = pulled.batches
    texts = [row["text"] for row in batch.lines.to_pylist()]
    assert texts == [line("a", "1"), line("b", "2"), line("c", "3")]
    assert [reject[:1] + reject[2:] for reject in batch.rejects] == ([(3, "bad_answer", "odd", raw)] if raw else [])


def test_failures_in_a_row_stop_it_and_those_people_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "MAX_FAILURES", 2)
    first, second = Unavailable("first"), Unavailable("second")
    space = Space(a=[first], b=[["1"]], c=[second], d=[first], e=[["2"]])
    pulled = Pulled(space).of(*"abcde")
    pull = pulled.pull
    assert (pull.asked, pull.failed, pull.failure, pull.stopped) == (4, 3, first, first)
    # The first failure was about that person, because the service answered afterwards.
    assert pulled.ended == [("a", False), ("b", True)]
    assert pulled.lines == [[(6, line("b", "1"))]]
    assert pulled.batches[-1].ended == [(3, None)]


def test_failures_at_the_end_are_about_those_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "MAX_FAILURES", 3)
    pulled = Pulled(Space(a=[["1"]], b=[Unavailable("x")], c=[Unavailable("y")])).of(*"abc")
    assert pulled.ended == [("a", True), ("b", False), ("c", False)]
    assert pulled.pull.stopped is None


@pytest.mark.parametrize("error", [NotAuthorized("401"), InvalidSetting("space")])
def test_what_is_wrong_for_everybody_stops_it(error: ApiError) -> None:
    pulled = Pulled(Space(a=[["1"]], b=[error], c=[["2"]])).of(*"abc")
    assert (pulled.pull.asked, pulled.pull.failed, pulled.pull.stopped) == (1, 0, error)
    assert pulled.ended == [("a", True)]
    with pytest.raises(type(error)) as raised:
        Pulled(Space(a=[error], b=[["2"]])).of(*"ab")
    assert raised.value is error


def test_where_no_answer_came_at_all_its_error_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "MAX_FAILURES", 2)
    error = Unavailable("down")
    with pytest.raises(Unavailable) as raised:
        Pulled(Space(a=[error], b=[Unavailable("too")])).of(*"ab")
    assert raised.value is error
    # Somebody had an answer, although without events, so the run is kept.
    pulled = Pulled(Space(a=[], b=[error], c=[error])).of(*"abc")
    assert (pulled.ended, pulled.pull.stopped) == ([("a", True)], error)


def test_an_error_of_another_kind_ends_it() -> None:
    with pytest.raises(ZeroDivisionError):
        Pulled(Space(a=[["1"]], b=[ZeroDivisionError()])).of(*"ab")


@pytest.mark.parametrize(
    ("threads", "number"), [(0, 1), (0.1, 1), (1, 1), (1.5, 2), (99, 99), (100.5, 100), (1e9, 100)]
)
def test_as_many_are_asked_for_at_a_time_as_the_pace_allows(threads: float, number: int) -> None:
    pull = Pull(Scan("profiles", "url", SCAN), Space(), EventScope(), threads, lambda _: None, lambda: None)  # type: ignore[arg-type]
    assert pull._threads == number


# ---- people of contacts --------------------------------------------------------------------------------------------


def contacts(*emails: str | None) -> list[JsonObject]:
    return [JsonObject([("Email", email), ("Name", "N")]) for email in emails]


class Account:
    """Autopilot's contacts after a bookmark; records the given bookmark."""

    def __init__(self, *pages: Page) -> None:
        self.pages, self.asked = pages, list[str | None]()

    def contacts(self, bookmark: str | None) -> Iterator[Page]:
        self.asked.append(bookmark)
        yield from self.pages


def test_people_are_those_of_all_pages_of_contacts(tmp_path: Path) -> None:
    spool = Spool.begin(tmp_path, ScanStart("account", SCAN))
    for number, name in enumerate("ab", 1):
        spool.put(Page(contacts(f"{name}@x.y"), None, f"b{number}"))
    account, seen = Account(Page(contacts("C@x.y", None, " ", "d@x.y"), 9, "b3"), Page(contacts("e@x.y"), 9, None)), []
    found = people_of_contacts(spool, account, lambda: seen.append(spool.last))  # type: ignore[arg-type]
    assert [[who.id for who in people] for people in found] == [
        ["email:a@x.y"], ["email:b@x.y"], ["email:c@x.y", "email:d@x.y"], ["email:e@x.y"],
    ]  # fmt: skip
    assert (account.asked, len(seen), spool.complete) == (["b2"], 2, True)
    # Only the needed fields of a contact are kept on the disk.
    assert spool.read(3)[0] == [JsonObject([("Email", email)]) for email in ("C@x.y", "d@x.y")]
    nobody = Account()
    again = people_of_contacts(spool, nobody, lambda: None)  # type: ignore[arg-type]
    assert ([len(people) for people in again], nobody.asked) == ([1, 1, 2, 1], [])
