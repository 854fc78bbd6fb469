"""Scans of an account, page by page: their rows, how they end, and where the next load continues."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest

from autopilothq.catalog import LISTS, LISTS_CONTACTS, REJECT_REASONS, TRIGGERS
from autopilothq.clients.autopilot import Page
from autopilothq.errors import (
    ApiError,
    InvalidSetting,
    NotAuthorized,
    NotFound,
    RequestRejected,
    Unavailable,
    UnexpectedResponse,
)
from autopilothq.segment.json_text import JsonNumber, JsonObject
from autopilothq.segment.message import Reject
from autopilothq.sources.api import scan as scans
from autopilothq.sources.api.contacts import Window
from autopilothq.sources.api.scan import Deadline, Group, ScanInterrupted, ScanScope
from autopilothq.sources.scans import Scan, ScanBatch
from autopilothq.sources.spool import ScanStart, Spool

SCAN = "2019-05-01T00:00:00.000Z"
START = ScanStart("account", SCAN)
BOTH = ScanScope(events=True, rows=True, user_id_field=None, window=Window())


def contact(name: str) -> JsonObject:
    opened = JsonObject([("k", JsonNumber("1482221100000"))])
    return JsonObject([("contact_id", name), ("Name", name.upper()), ("mail_opened", opened)])


def page(names: str, bookmark: str | None, total: int | None = None) -> Page:
    return Page([contact(name) for name in names], total, bookmark)


class Account:
    """Returns the pages after a bookmark, raises an error among them, and records the requested bookmarks."""

    def __init__(self, *pages: Page | Exception) -> None:
        self.pages, self.asked = pages, list[str | None]()

    def contacts(self, bookmark: str | None = None) -> Iterator[Page]:
        self.asked.append(bookmark)
        for found in self.pages:
            if isinstance(found, Exception):
                raise found
            yield found


class Over(Deadline):
    """A budget of time that is over after `times` calls of `is_over`."""

    def __init__(self, times: int = 0) -> None:
        super().__init__(5.0)
        self.times = times

    def is_over(self) -> bool:
        self.times -= 1
        return self.times < 0


class Run:
    """The result of a scan of contacts, until it ended or was interrupted."""

    def __init__(
        self,
        spool: Spool,
        account: Account,
        deadline: Deadline | None = None,
        scope: ScanScope = BOTH,
        first: int = 1,
    ) -> None:
        self.scan = Scan("contacts", "url", SCAN, index=2, spool=spool, first=first)
        self.found: list[ScanBatch] = []
        self.seen: list[tuple[int, int | None]] = []
        self.error: ScanInterrupted | None = None
        parts = scans.scan_contacts(self.scan, spool, account, deadline or Deadline(None), scope, self.note)  # type: ignore[arg-type]
        try:
            for part in parts:
                self.found.append(part)
        except ScanInterrupted as error:
            self.error = error

    def note(self) -> None:
        self.seen.append((self.scan.contacts, self.scan.total))

    @property
    def names(self) -> list[str]:
        return ["".join(record.key[0] for record in part.records.get("contacts", ())) for part in self.found]

    @property
    def why(self) -> tuple[str, bool, bool] | None:
        return (str(self.error), self.error.failed, self.error.lost) if self.error else None


def test_pages_become_rows_and_events(tmp_path: Path) -> None:
    spool = Spool.begin(tmp_path, START)
    run = Run(spool, Account(page("ab", "1", 3), page("c", None)))
    assert (run.names, run.why, run.scan.complete, run.scan.contacts) == (["abc"], None, True, 3)
    assert run.seen == [(2, 3), (3, 3)]
    [part] = run.found
    size = spool.read(1)[1] + spool.read(2)[1]
    assert (part.size, run.scan.size, part.rejects) == (size, size, [])
    lines = part.batch().lines.to_pylist()
    assert [(row["file"], row["line"]) for row in lines] == [(2, 1), (2, 2), (2, 3)]
    assert all(b'"event":"Email Opened"' in row["text"] and SCAN.encode() in row["text"] for row in lines)


def test_a_person_on_two_pages_counts_once(tmp_path: Path) -> None:
    run = Run(Spool.begin(tmp_path, START), Account(page("ab", "1", 4), page("bc", "2", 4), page("abcd", None, 4)))
    assert run.seen == [(2, 4), (3, 4), (4, 4)]
    assert run.names == ["abbcabcd"]  # the table checks the names


@pytest.mark.parametrize("events", [True, False])
@pytest.mark.parametrize("rows", [True, False])
def test_only_what_is_requested_is_made(tmp_path: Path, events: bool, rows: bool) -> None:
    scope = ScanScope(events, rows, None, Window())
    run = Run(Spool.begin(tmp_path, START), Account(page("a", None)), scope=scope)
    [part] = run.found
    assert (len(part.batch().lines), run.names) == (int(events), ["a" if rows else ""])


def test_what_is_no_contact_is_rejected(tmp_path: Path) -> None:
    values = ["x", contact("a"), JsonObject([("Name", "N")])]
    run = Run(Spool.begin(tmp_path, START), Account(Page(values, None, None)))
    [part] = run.found
    why = f"{REJECT_REASONS['no_id']}: a contact without `contact_id`"
    assert part.rejects == [
        Reject(2, 1, "not_an_object", REJECT_REASONS["not_an_object"], b'"x"'),
        Reject(2, 3, "no_id", why, b'{"Name":"N"}'),
    ]
    assert (run.names, run.scan.contacts) == (["a"], 3)


def test_a_batch_is_some_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "PAGES_PER_BATCH", 2)
    pages = [page("a", "1"), page("b", "2"), page("c", "3"), page("d", None)]
    run = Run(Spool.begin(tmp_path, START), Account(*pages))
    assert run.names == ["ab", "cd", ""]
    sizes = [part.size for part in run.found]
    assert (sum(sizes), sizes[2]) == (run.scan.size, 0)


def test_pages_of_the_spool_come_first_and_are_not_asked_for(tmp_path: Path) -> None:
    spool = Spool.begin(tmp_path, START)
    for given in (page("a", "1"), page("b", "2")):
        spool.put(given)
    account = Account(page("c", None, 9))
    run = Run(spool, account)
    assert (run.names, account.asked, run.scan.total) == (["abc"], ["2"], 9)
    spool.drop(2)
    again = Account()
    run = Run(spool, again, first=2)
    assert (run.names, again.asked, run.scan.complete, run.scan.total) == (["bc"], [], True, None)


def test_the_total_is_the_last_that_was_said(tmp_path: Path) -> None:
    run = Run(
        Spool.begin(tmp_path, START), Account(page("a", "1"), page("b", "2", 7), page("c", "3"), page("d", None, 8))
    )
    assert run.seen == [(1, None), (2, 7), (3, 7), (4, 8)]


SPENT = ("max_seconds (5) were spent", False, False)


def test_a_scan_whose_time_is_up_ends_behind_a_page(tmp_path: Path) -> None:
    spool = Spool.begin(tmp_path, START)
    pages = [page("a", "1"), page("b", "2"), page("c", None)]
    account = Account(*pages)
    # The time is over already, but one page is still read, or the scan would never end.
    run = Run(spool, account, Over())
    assert (run.names, run.why, run.scan.complete, account.asked) == (["a"], SPENT, False, [None])
    # If a page is on the disk, no other is requested.
    account = Account(*pages[1:])
    run = Run(spool, account, Over())
    assert (run.names, run.why, run.scan.complete, account.asked) == (["a"], SPENT, False, [])
    run = Run(spool, account, Over(), first=2)
    assert (run.names, run.why, run.scan.complete, account.asked) == (["b"], SPENT, False, ["1"])
    run = Run(spool, Account(*pages[2:]), Over(1))
    assert (run.names, run.why, run.scan.complete) == (["abc"], None, True)


ERRORS: list[Callable[[str], ApiError]] = [Unavailable, RequestRejected, UnexpectedResponse]


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize(("before", "came"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_scan_that_fails(tmp_path: Path, kind: Callable[[str], ApiError], before: int, came: int) -> None:
    spool = Spool.begin(tmp_path, START)
    pages = [page("a", "1"), page("b", "2")]
    for given in pages[:before]:
        spool.put(given)
    error = kind("odd")
    account = Account(*pages[before : before + came], error)
    lost = kind is not Unavailable and (before, came) == (1, 0)
    goes_on = before + came > 0
    if lost or goes_on:
        run = Run(spool, account)
        assert run.why == ("odd", True, lost)
        assert (run.names, run.scan.complete) == (["ab"[: before + came]], False)
        assert run.error is not None
        assert run.error.__cause__ is error
        assert run.error.alone == (kind is not Unavailable)
    else:
        with pytest.raises(ApiError) as raised:
            Run(spool, account)
        assert raised.value is error


def test_a_bookmark_that_is_refused_behind_what_is_loaded_is_lost(tmp_path: Path) -> None:
    spool = Spool.begin(tmp_path, START)
    spool.put(page("a", "1"))
    spool.drop(2)
    run = Run(spool, Account(RequestRejected("odd")), first=2)
    assert (run.names, run.why) == ([""], ("odd", True, True))


@pytest.mark.parametrize(
    ("error", "alone"),
    [
        (NotAuthorized("", status=401), False),
        (NotAuthorized("", status=403), True),
        (RequestRejected("", status=400), True),
        (NotFound("", status=404), True),
        (Unavailable("", status=429), False),
        (Unavailable("", status=408), False),
        (Unavailable("", status=500), True),
        (Unavailable(""), False),
        (UnexpectedResponse("", status=200), True),
        (InvalidSetting(""), False),
    ],
)
def test_which_errors_concern_one_scan(error: ApiError, alone: bool) -> None:
    assert scans.concerns_one_scan(error) == alone


@pytest.mark.parametrize(("seconds", "over"), [(None, False), (0.0, True), (60.0, False), (-1.0, True)])
def test_a_budget_is_spent_by_the_clock(seconds: float | None, over: bool) -> None:
    assert Deadline(seconds).is_over() is over
    short = Deadline(0.02)
    time.sleep(0.03)
    assert short.is_over()
    why = Deadline(2.50).exceeded()
    assert (str(why), why.failed, why.lost) == ("max_seconds (2.5) were spent", False, False)


# ---- lists and their members ---------------------------------------------------------------------------------------


def lists(*names: str) -> list[Any]:
    return [JsonObject([("list_id", name), ("title", name.upper())]) for name in names]


class Lists:
    """An account with lists, whose members come in pages; raises an error among these."""

    def __init__(self, **pages: list[Page | Exception]) -> None:
        self.pages, self.asked = pages, list[tuple[str, str | None]]()
        self.together = Barrier(1)

    def group(self) -> Group:
        def request(_: Any) -> list[Any]:
            self.asked.append(("", None))
            return lists(*self.pages)

        def members(_: Any, name: str, bookmark: str | None) -> Iterator[Page]:
            self.asked.append((name, bookmark))
            self.together.wait(10)
            for found in self.pages[name]:
                if isinstance(found, Exception):
                    raise found
                yield found

        return Group(LISTS, LISTS_CONTACTS, request, members)

    def scan(
        self, folder: Path, deadline: Deadline | None = None, members: bool = True
    ) -> tuple[Scan, list[dict[str, list[Any]]]]:
        spool = Spool.open(folder / "index") or Spool.begin(folder / "index", START)
        scan = Scan("lists", "url", SCAN, index=1, spool=spool)
        none: Any = None
        parts = list(
            scans.scan_group(scan, spool, none, deadline or Deadline(None), self.group(), folder if members else None)
        )
        assert scan.size == sum(part.size for part in parts)
        return scan, [
            {table: [(record.key, record.cells) for record in rows] for table, rows in part.records.items()}
            for part in parts
        ]


def of_list(name: str) -> tuple[tuple[str, ...], dict[str, str]]:
    return (name,), {"list_id": f'"{name}"', "title": f'"{name.upper()}"'}


def member(of: str, name: str) -> tuple[tuple[str, ...], dict[str, str]]:
    return (of, name), {"list_id": f'"{of}"', "contact_id": f'"{name}"'}


def test_lists_have_members_by_their_ids_alone(tmp_path: Path) -> None:
    account = Lists(l1=[page("ab", "1"), page("c", None)], l2=[page("", None)], l3=[page("a", None)])
    scan, parts = account.scan(tmp_path)
    assert parts == [
        {"lists": [of_list(name) for name in ("l1", "l2", "l3")]},
        {"lists_contacts": [member("l1", "a"), member("l1", "b")]},
        {"lists_contacts": [member("l1", "c")]},
        {},
        {"lists_contacts": [member("l3", "a")]},
    ]
    assert (scan.complete, sorted(account.asked)) == (
        True, sorted([("", None), ("l1", None), ("l2", None), ("l3", None)], key=str),
    )  # fmt: skip
    assert Spool(tmp_path / "0", START).read(1)[0] == [JsonObject([("contact_id", name)]) for name in "ab"]
    # Pages on the disk are not requested again.
    again = Lists(other=[])
    assert again.scan(tmp_path)[1] == parts
    assert again.asked == []


def test_lists_alone_ask_for_no_members(tmp_path: Path) -> None:
    account = Lists(l1=[page("ab", None)])
    scan, parts = account.scan(tmp_path, members=False)
    assert (parts, account.asked, scan.complete) == ([{"lists": [of_list("l1")]}], [("", None)], True)


def test_a_list_that_is_deleted_meanwhile_has_the_members_that_came(tmp_path: Path) -> None:
    account = Lists(l1=[NotFound("404")], l2=[page("a", "1"), NotFound("404")])
    _, parts = account.scan(tmp_path)
    assert parts[1:] == [{}, {"lists_contacts": [member("l2", "a")]}, {}]


def test_a_member_that_is_none_is_rejected(tmp_path: Path) -> None:
    account = Lists(l1=[Page(["x"], None, None)])
    spool = Spool.begin(tmp_path / "index", START)
    scan = Scan("lists", "url", SCAN, index=1, spool=spool)
    none: Any = None
    _, part = scans.scan_group(scan, spool, none, Deadline(None), account.group(), tmp_path)
    assert part.rejects == [Reject(1, 1, "not_an_object", REJECT_REASONS["not_an_object"], b'"x"')]


def test_lists_whose_time_is_up_go_on_in_the_next_load(tmp_path: Path) -> None:
    with pytest.raises(ScanInterrupted) as error:
        Lists(l1=[]).scan(tmp_path / "none", Over())
    assert (str(error.value), error.value.failed) == ("max_seconds (5) were spent", False)
    pages: list[Page | Exception] = [page("a", "1"), page("b", None)]
    account = Lists(l1=pages)
    with pytest.raises(ScanInterrupted) as error:
        account.scan(tmp_path, Over(2))  # time is over after the lists
    assert (str(error.value), error.value.failed) == ("max_seconds (5) were spent", False)
    assert account.asked == [("", None), ("l1", None)]
    after = Lists(l1=pages[1:])
    _, parts = after.scan(tmp_path)
    assert (after.asked, parts[1:]) == (
        [("l1", "1")], [{"lists_contacts": [member("l1", "a")]}, {"lists_contacts": [member("l1", "b")]}],
    )  # fmt: skip
    with pytest.raises(ScanInterrupted):
        Lists(l1=pages).scan(tmp_path / "later", Over(1))  # time is over before any member is requested
    assert Spool.open(tmp_path / "later" / "0").last == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("errors", "raised"),
    [
        ([Unavailable("a")], ScanInterrupted("a")),
        ([Unavailable("a"), RequestRejected("b")], RequestRejected("b")),
        ([UnexpectedResponse("a"), Unavailable("b")], UnexpectedResponse("a")),
        ([ZeroDivisionError("a")], ZeroDivisionError("a")),
    ],
)
def test_lists_of_which_one_fails_are_not_loaded(tmp_path: Path, errors: list[Exception], raised: Exception) -> None:
    names = [f"l{number}" for number in range(len(errors))]
    given: dict[str, list[Page | Exception]] = {name: [error] for name, error in zip(names, errors, strict=True)}
    account = Lists(**given)
    account.together = Barrier(len(errors))  # otherwise the first failure would stop the other requests
    with pytest.raises(type(raised)) as caught:
        account.scan(tmp_path)
    assert str(caught.value) == str(raised)
    if isinstance(caught.value, ScanInterrupted):
        assert (caught.value.failed, caught.value.lost, caught.value.__cause__) == (True, False, errors[0])


class Told(Event):
    """An event that also tells the test that it was set."""

    made: list["Told"] = []  # noqa: RUF012 - of all tests

    def __init__(self) -> None:
        super().__init__()
        self.made[:] = [self]


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_list_that_fails_keeps_others_from_being_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parallel: int
) -> None:
    monkeypatch.setattr(scans, "PARALLEL_SCANS", parallel)
    monkeypatch.setattr(scans, "Event", Told)
    came = list[str]()

    class Pages(list[Any]):
        def __iter__(self) -> Iterator[Page]:
            assert Told.made[0].wait(10)
            for bookmark in ("1", "2", None):
                came.append(str(bookmark))
                yield page("a", bookmark)

    account = Lists(l1=[Unavailable("a")], l2=Pages())
    account.together = Barrier(parallel)
    with pytest.raises(ScanInterrupted) as caught:
        account.scan(tmp_path)
    assert (str(caught.value), caught.value.failed) == ("a", True)
    asked = sorted(name for name, _ in account.asked)  # the order of two threads is not fixed
    assert (asked, came) == (["", "l1", "l2"][: parallel + 1], ["1"] * (parallel - 1))


def test_an_answer_of_one_page_is_its_table() -> None:
    scan = Scan("triggers", "url", SCAN, index=3)
    values = [JsonObject([("trigger_id", "t"), ("journey", "J")]), "x"]
    found = scans.single_response(scan, TRIGGERS, values)
    assert [(record.key, record.cells) for record in found.records["triggers"]] == [
        (("t",), {"trigger_id": '"t"', "journey": '"J"'})
    ]
    assert [reject.raw for reject in found.rejects] == [b'"x"']
    size = len('[{"trigger_id":"t","journey":"J"},"x"]')
    assert (found.size, scan.size, scan.complete) == (size, size, True)
