"""With `send messages -`, lines of a pipe are delivered as they come, each once; the pipe waits for the account."""

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dlt
import duckdb
import pytest

import forked
from autopilothq.cli import streaming
from autopilothq.destination import Counts, DeliveryLog, emails, lines, stream
from autopilothq.destination.dispatch import DEFERRED
from autopilothq.destination.lines import StopSignal, read_chunks
from autopilothq.destination.plan import UNMAPPED
from autopilothq.errors import RunError, Unavailable
from autopilothq.segment.message import MAX_LINE, digest
from autopilothq.warehouses.delta import lake
from calling import MAIN, Call
from fake_autopilot import FakeAutopilot
from sending import configure, identify, log_in, posts, rows, settings_for, track
from waiting import wait_for

# ---- lines -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def stop() -> Iterator[StopSignal]:
    stop = StopSignal()
    yield stop
    stop.close()


def chunks_of(data: bytes, stop: StopSignal, **more: Any) -> list[list[bytes]]:
    reading, writing = os.pipe()
    thread = threading.Thread(target=_write, args=(writing, data))
    thread.start()
    found = list(read_chunks(reading, stop, **{"seconds": 60.0} | more))  # long enough for a busy machine
    thread.join()
    os.close(reading)
    return found


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
    os.close(file)


def test_lines_are_cut_at_their_ends_and_blank_ones_left_out(stop: StopSignal) -> None:
    assert chunks_of(b"", stop) == []
    assert chunks_of(b"one\n\n  \r\ntwo\r\nthree", stop) == [[b"one", b"two\r", b"three"]]
    assert chunks_of(b"1\n2\n3\n4\n5\n", stop, most=2) == [[b"1", b"2"], [b"3", b"4"], [b"5"]]
    long = b"x" * (lines._PIECE + 7)
    assert chunks_of(b"a\n" + long + b"\nb\n", stop) == [[b"a", long, b"b"]]
    assert chunks_of(b"y" * (3 * MAX_LINE) + b"\nz", stop) == [[b"y" * (MAX_LINE + 1), b"z"]]
    mark, most = b"\xef\xbb\xbf", b"x" * MAX_LINE
    assert chunks_of(mark + most + b"\n" + mark + most + b"xx\n" + mark + b"1\n" + mark + most + b"xx", stop) == [
        [most, most + b"x", b"1", most + b"x"]
    ]
    assert chunks_of(mark + b"\n" + mark + b" \t\r\n1\n" + mark, stop) == [[b"1"]]
    # A line with text after very many blanks is not blank.
    blanks, late = b" " * (MAX_LINE + 1), b"x" + b" " * lines._PIECE
    assert chunks_of(blanks + late + b"\n" + mark + blanks * 2 + b"\n2", stop) == [[blanks[1:] + b"x", b"2"]]


def _fill(file: int) -> int:
    """Writes lines until the pipe is full; returns how many bytes it took."""
    room = 0
    with suppress(BlockingIOError):
        while True:
            room += os.write(file, b"x" * 1023 + b"\n")
    return room


def test_what_is_compressed_is_refused(stop: StopSignal) -> None:
    with pytest.raises(RunError, match="Expected lines of JSON from -, got gzip"):
        chunks_of(b"\x1f\x8b\x08\x00", stop)


def test_a_chunk_waits_for_others_no_longer_than_told_and_is_left_unread_while_another_is_used(
    stop: StopSignal,
) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    found = read_chunks(reading, stop, seconds=0.2)
    os.write(writing, b"one\n")
    start = time.monotonic()
    assert next(found) == [b"one"]
    assert 0.15 < time.monotonic() - start < 5
    room = _fill(writing)  # nobody reads, so the pipe fills up
    assert len(next(found)) <= room // 1024
    os.write(writing, b"half")
    stop.set()
    assert [line for some in found for line in some][-1:] != [b"half"]  # incomplete, because its end may still come
    os.close(reading)
    os.close(writing)


# ---- delivery --------------------------------------------------------------------------------------------------------


Deliver = Callable[..., Counts]


@pytest.fixture
def deliver(server: FakeAutopilot, stop: StopSignal) -> Deliver:
    """Delivers chunks of messages; returns the counts, and adds messages to the user to `told`."""

    def delivered(
        *chunks: list[Any],
        told: "list[str] | None" = None,
        log: "DeliveryLog | None" = None,
        progress: Callable[[Counts], None] = lambda _: None,
    ) -> Counts:
        total, said = Counts(), [] if told is None else told
        log = log or DeliveryLog(log_in())
        ends = stream.StreamCallbacks(
            lambda: log, stop, progress, said.append, lambda line, why: said.append(f"{why}: {line.decode()}")
        )
        as_lines = ([one if isinstance(one, bytes) else json.dumps(one).encode() for one in some] for some in chunks)
        stream.deliver_stream(as_lines, settings_for(server), ends, total)
        return total

    return delivered


def test_chunks_are_delivered_once_each(server: FakeAutopilot, deliver: Deliver) -> None:
    told: list[str] = []
    one, two = (track(number, properties={"title": "Hat"}) for number in (1, 2))
    seen: list[int] = []
    counts = deliver(
        [identify(1), one], [identify(2), two, b"oops"], [identify(1), identify(2), one],
        told=told, progress=lambda so_far: seen.append(so_far.messages),
    )  # fmt: skip
    assert seen == [2, 5, 8]
    assert counts == Counts(8, delivered=4, refused=1, known=3, reasons=counts.reasons, unmapped=Counter({"title": 2}))
    assert told == ["not_json: not JSON: oops"]
    assert [path for path, _ in posts(server)] == [
        path for number in (1, 2) for path in ("/contacts", f"/trigger/0007/contact/p{number}%40example.com")
    ]
    assert {len(set(run)) for run in [rows("run")]} == {1}
    said = f'{{"title": "{UNMAPPED}"}}'  # once in a run, not once in each chunk
    assert sorted(rows("message_id", "remarks"))[1:] == [("i1", None), ("i2", None), ("t1", said), ("t2", None)]
    assert deliver([identify(1), identify(2), one]).known == 3
    assert posts(server) == []


def test_a_line_of_more_than_one_mebibyte_is_refused(deliver: Deliver) -> None:
    most = json.dumps(identify(1)).encode().ljust(MAX_LINE)
    told: list[str] = []
    counts = deliver([most, most + b" "], told=told)
    assert counts.reasons == {("refused", "line_too_long: longer than 1 MiB"): 1}
    assert [why.partition(" {")[0] for why in told] == ["line_too_long: longer than 1 MiB:"]
    assert sorted(rows("message_id", "status")) == [(digest(most), "refused"), ("i1", "delivered")]


def test_an_older_message_of_a_person_does_not_win_in_a_later_chunk(server: FakeAutopilot, deliver: Deliver) -> None:
    newer = identify("new", traits={"email": "p1@example.com", "title": "New"})
    older = identify("old", traits={"email": "p1@example.com", "title": "Old"})
    deliver([newer])
    counts = deliver([older], [newer], [newer], [older])
    assert (counts.delivered, counts.known) == (1, 3)
    titles = [contact["Title"] for _, body in posts(server) for contact in body["contacts"]]
    assert titles == ["New", "Old", "New"]


def test_a_line_that_comes_again_is_not_sent_again_behind_a_newer_one(server: FakeAutopilot, deliver: Deliver) -> None:
    older, newer, newest = (identify(title, traits={"email": "p1@example.com", "title": title}) for title in "abc")
    counts = deliver([older], [newer, older], [older, newest, newer])
    assert (counts.messages, counts.delivered, counts.known) == (6, 3, 3)
    assert [contact["Title"] for _, body in posts(server) for contact in body["contacts"]] == ["a", "b", "c"]


def test_a_user_id_is_known_from_an_earlier_chunk(
    server: FakeAutopilot, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emails, "PERSONS_KEPT", 1)
    people = [identify(number, userId=f"u{number}") for number in range(4)]
    late = [{"type": "identify", "messageId": f"l{number}", "userId": f"u{number}", "traits": {"title": "L"}}
            for number in range(4)]  # fmt: skip
    assert deliver(people, late[:2], late[2:]).delivered == 8
    titles = [(server.account.find(f"p{number}@example.com") or {})["Title"] for number in range(4)]
    assert titles == ["L"] * 4


def test_while_the_account_is_out_of_order_a_chunk_waits_and_is_delivered_whole(
    server: FakeAutopilot, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def wait(_: StopSignal, seconds: float) -> None:
        waits.append(seconds)
        server.faults.clear()

    monkeypatch.setattr(StopSignal, "wait", wait)
    server.order("POST", "/contacts", status=503, times=10_000)
    told: list[str] = []
    counts = deliver([identify(number) for number in range(300)], [identify("after")], told=told)
    assert (counts.messages, counts.delivered, counts.failed) == (301, 301, 0)
    assert waits[0] == 1.0
    assert "Nothing else is read; it is tried again in 1 s." in told[0]


def test_what_fails_alone_is_tried_again_and_does_not_hold_the_stream_up(
    server: FakeAutopilot, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(StopSignal, "wait", lambda _, seconds: waits.append(seconds))
    server.order("POST", "/contacts", status=500, times=3)
    assert deliver([identify(1), {"type": "page"}]) == Counts(2, delivered=1, ignored=Counter(page=1))
    server.order("POST", "/contacts", status=500, times=2 * 3)
    counts = deliver([identify(2)], [identify(1)])
    assert (counts.messages, counts.failed, counts.known, waits) == (2, 1, 1, [2.0, 2.0, 5.0])
    assert rows("message_id", "status")[-3:] == [("i2", "failed")] * 3


def test_what_failed_is_tried_again_once_the_account_answers(
    server: FakeAutopilot, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, told = list[float](), list[str]()

    def wait(_: StopSignal, seconds: float) -> None:
        if not waits:
            server.order("GET", "/triggers", status=503, times=3)
        waits.append(seconds)

    monkeypatch.setattr(StopSignal, "wait", wait)
    server.order("POST", "/contacts", status=500, times=3)
    assert deliver([identify(1)], told=told) == Counts(1, delivered=1)
    assert (waits, len(told)) == ([2.0, 1.0], 1)
    assert told[0].endswith("Nothing else is read; it is tried again in 1 s.")


def test_an_event_whose_answer_was_lost_is_not_tried_again(
    server: FakeAutopilot, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(StopSignal, "wait", lambda _, seconds: waits.append(seconds))
    server.order("POST", "/trigger/*", drop="after")
    counts = deliver([track(1)])
    assert (counts.messages, counts.delivered, counts.unknown, waits) == (1, 0, 1, [])
    assert [trigger for trigger, _ in server.account.triggered] == ["0007"]


def test_each_attempt_of_an_event_has_its_outcome(
    server: FakeAutopilot, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StopSignal, "wait", lambda *_: False)
    server.order("POST", "/trigger/*", status=429, times=3)
    assert deliver([track(1)]) == Counts(1, delivered=1)
    assert rows("message_id", "trigger_id", "status") == [("t1", "0007", "failed"), ("t1", "0007", "delivered")]


@pytest.mark.parametrize(
    ("path", "times", "ends", "stopped"),
    [("/contacts", 2, 3, False), ("/trigger/*", 2, 3, False), ("/contacts", 6, 2, False), ("/contacts", 4, 2, True)],
)
def test_the_newest_values_stay_where_an_older_message_fails(
    server: FakeAutopilot,
    deliver: Deliver,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    times: int,
    ends: int,
    stopped: bool,
) -> None:
    monkeypatch.setattr(StopSignal, "wait", lambda *_: stopped)
    older, newer = track(1), track(2, email="P1@example.com")  # each in its own batch
    for number, one in enumerate((older, newer)):
        one["context"]["traits"]["title"] = f"T{number}"
    server.order("POST", path, status=429, times=times)
    counts = deliver([older, newer], [identify(3)])
    assert (counts.messages, counts.delivered, counts.failed) == (3, ends, 3 - ends)
    assert (server.account.find("p1@example.com") or {})["Title"] == "T1"


@pytest.mark.parametrize(("drop", "times"), [("before", 1), ("after", 1), ("before", 9)])
def test_a_change_of_address_without_an_answer_is_settled_before_what_follows_it(
    server: FakeAutopilot, deliver: Deliver, monkeypatch: pytest.MonkeyPatch, drop: str, times: int
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(StopSignal, "wait", lambda _, seconds: waits.append(seconds))
    change = identify("new", traits={"email": "p1@example.com", "_NewEmail": "b@example.com"})
    server.order("POST", "/contact", drop=drop, times=times)
    by_id = {"type": "identify", "messageId": "id", "userId": "u1", "traits": {"phone": "3"}}
    first, later = identify(1, userId="u1"), identify(2, traits={"email": "b@example.com", "fax": "2"})
    ends = deliver([first, change, later, by_id])
    if times == 1:
        assert ends == Counts(4, delivered=4)
        found = server.account.find("b@example.com") or {}
        assert (found["Fax"], found["Phone"]) == ("2", "3")
        assert deliver([first, change]).known == 2
    else:  # unknown, so it and what follows is left to the next run
        assert (ends.messages, ends.delivered, ends.unknown, ends.failed, waits) == (4, 1, 1, 2, [2.0, 5.0])
    assert server.account.total() == 1


@pytest.mark.parametrize("stopped", [False, True])
def test_the_next_event_of_a_person_waits_for_one_that_failed(
    server: FakeAutopilot, deliver: Deliver, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    monkeypatch.setattr(StopSignal, "wait", lambda *_: stopped)
    server.order("POST", "/trigger/*", status=429, times=2)
    assert deliver([track(1), track(2, "Trial Extended", "p1@example.com")]) == Counts(2, delivered=2)
    assert [trigger for trigger, _ in server.account.triggered] == ["0007", "0011"]
    assert rows("message_id", "trigger_id", "status", "message")[1:] == [
        ("t2", "0011", "failed", DEFERRED), ("t1", "0007", "delivered", None), ("t2", "0011", "delivered", None),
    ]  # fmt: skip


def test_a_user_id_leads_to_the_address_that_its_person_has_at_that_message(
    server: FakeAutopilot, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "RETRY_WAITS", (0.0, 0.0))

    def by_id(number: int, **traits: Any) -> dict[str, Any]:
        return {"type": "identify", "messageId": f"u{number}", "userId": "u1", "traits": traits}

    def change(number: int, before: str, after: str, **more: Any) -> dict[str, Any]:
        return identify(number, traits={"email": f"{before}@example.com", "_NewEmail": f"{after}@example.com"}, **more)

    people = server.account.total()
    first = identify(1, userId="u1")
    deliver([first])
    # If the message comes after the change, which has no user id, only the log knows the address.
    deliver([first, change(2, "p1", "b")], [by_id(1, fax="1")])
    assert ((server.account.find("b@example.com") or {})["Fax"], server.account.total()) == ("1", people + 1)
    # The message is tried again before the change, which waits for it.
    server.order("POST", "/contacts", status=500, times=2)
    later = identify(4, traits={"email": "c@example.com", "fax": "4"}, userId="u1")
    deliver([by_id(2, title="2"), change(3, "b", "c", userId="u1"), later, by_id(3, phone="3")])
    found = server.account.find("c@example.com") or {}
    assert (found["Fax"], found["Title"], found["Phone"], server.account.total()) == ("4", "2", "3", people + 1)


def test_an_older_message_goes_to_the_present_address_when_its_chunk_is_tried_again(
    server: FakeAutopilot, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StopSignal, "wait", lambda *_: server.faults.clear())
    change = identify("new", traits={"email": "p1@example.com", "_NewEmail": "b@example.com"})
    assert deliver([identify(1), change]).delivered == 2
    server.order("POST", "/contacts", status=503, times=10_000, skip=1)
    older, told = identify("old", traits={"email": "p1@example.com", "fax": "1"}), list[str]()
    counts = deliver([identify(2)], [*map(identify, range(3, 9)), older, change], told=told)
    assert (counts.delivered, counts.known, len(told)) == (8, 1, 1)
    assert ((server.account.find("b@example.com") or {})["Fax"], server.account.total()) == ("1", 8)


def test_a_change_of_address_that_an_outage_kept_from_being_sent_counts_for_nobody_yet(
    server: FakeAutopilot, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StopSignal, "wait", lambda *_: server.faults.clear())
    server.order("POST", "/contacts", status=503, times=10_000, skip=1)
    first = identify("first", userId="u1", traits={"email": "a@example.com"})
    by_email = identify("by email", traits={"email": "a@example.com", "fax": "1"})
    by_user_id = {"type": "identify", "messageId": "by user id", "userId": "u1", "traits": {"phone": "2"}}
    change = identify("new", userId="u1", traits={"email": "a@example.com", "_NewEmail": "b@example.com"})
    told = list[str]()
    counts = deliver([first], [*map(identify, range(6)), by_email, by_user_id, change], told=told)
    found = server.account.find("b@example.com") or {}
    assert (counts.delivered, len(told)) == (10, 1)
    assert (found["Fax"], found["Phone"], server.account.total()) == ("1", "2", 7)


@pytest.mark.parametrize("fault", [{"status": 429, "times": 6}, {"drop": "before", "times": 3}])
def test_what_follows_a_change_of_address_in_a_later_chunk_waits_for_the_next_run(
    server: FakeAutopilot, deliver: Deliver, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any]
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(StopSignal, "wait", lambda _, seconds: waits.append(seconds))
    change = identify("new", traits={"email": "p1@example.com", "_NewEmail": "b@example.com"})
    chunks = [[identify(1), change], [identify(2, traits={"email": "b@example.com", "fax": "2"}), identify(3)]]
    server.order("POST", "/contact", **fault)
    counts = deliver(*chunks, [track(4, email="B@example.com")])
    assert (counts.delivered, counts.failed + counts.unknown, counts.reasons["failed", DEFERRED]) == (2, 3, 2)
    assert [body for path, body in posts(server) if path == "/contacts" and not body["contacts"]] == []
    assert (server.account.total(), server.account.triggered, waits) == (2, [], [2.0, 5.0])
    assert deliver(*chunks, [track(4, email="B@example.com")]).delivered == 3
    assert (server.account.total(), (server.account.find("b@example.com") or {})["Fax"]) == (2, "2")


def test_bad_contacts_of_one_chunk_are_no_outage_where_others_were_written(
    server: FakeAutopilot, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StopSignal, "wait", lambda *_: False)
    server.poison = {"p2@example.com", "p3@example.com"}
    told: list[str] = []
    counts = deliver([identify(1)], [identify(2), identify(3)], [identify(4)], told=told)
    assert (counts.messages, counts.delivered, counts.failed, told) == (4, 2, 2, [])
    assert server.account.total() == 2


def test_a_contact_whose_address_was_changed_is_not_asked_for(
    server: FakeAutopilot, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StopSignal, "wait", lambda *_: False)
    server.poison = {"p3@example.com"}
    renamed = identify("new", traits={"email": "p1@example.com", "_NewEmail": "q1@example.com"})
    counts = deliver([identify(1)], [renamed], [identify(3)])
    assert (counts.delivered, counts.failed, server.account.total()) == (2, 1, 1)
    assert [request.path for request in server.seen("GET") if request.path.startswith("/contact/")] == []


def test_a_stream_asks_for_the_triggers_until_they_are_there(server: FakeAutopilot, deliver: Deliver) -> None:
    server.order("GET", "/triggers", status=503, times=2)
    assert deliver([track(1)]).delivered == 1
    assert len(server.account.triggered) == 1


def test_an_outage_is_waited_for_longer_and_longer_but_for_at_most_a_minute() -> None:
    attempts = iter([Unavailable("HTTP 503")] * 8)
    waits, told = list[float](), list[str]()

    def send() -> str:
        for error in attempts:
            raise error
        return "done"

    stop: Any = SimpleNamespace(is_set=False, wait=waits.append)
    assert stream.until_reached(send, stop, told.append) == "done"
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert told == [f"HTTP 503. Nothing else is read; it is tried again in {wait:.0f} s." for wait in waits]


@pytest.mark.parametrize(("is_set", "waits"), [(True, 0), (False, 1)])
def test_a_stream_that_is_asked_to_end_ends_with_the_error(is_set: bool, waits: int) -> None:
    error, told = Unavailable("HTTP 503"), list[str]()

    def send() -> None:
        raise error

    stop: Any = SimpleNamespace(is_set=is_set, wait=lambda _: True)
    with pytest.raises(Unavailable) as raised:
        stream.until_reached(send, stop, told.append)
    assert (raised.value, len(told)) == (error, waits)


def test_a_stream_that_is_to_end_does_not_wait_for_the_account(
    server: FakeAutopilot, deliver: Deliver, stop: StopSignal
) -> None:
    server.order("POST", "/contacts", status=503, times=50)
    stop.set()
    with pytest.raises(Unavailable):
        deliver([identify(number) for number in range(300)])


def test_reasons_of_an_endless_stream_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    total, part = Counts(), Counts()
    monkeypatch.setattr("autopilothq.destination.counts.MOST_REASONS", 2)
    for number in range(5):
        part.add_message([("refused", f"nobody knows u{number}")])
    part.add_remarks(dict.fromkeys("abc", "left out: expected a date, got secrets"))
    total.merge(part)
    total.merge(part)
    assert dict(total.reasons) == {
        ("refused", "nobody knows u0"): 2, ("refused", "nobody knows u1"): 2, ("refused", "other reasons"): 6,
    }  # fmt: skip
    assert dict(total.remarks) == {
        "a was left out: expected a date": 2, "b was left out: expected a date": 2, "other remarks": 2,
    }  # fmt: skip
    assert (total.messages, total.refused) == (0, 10)


def test_lines_that_are_no_messages_are_told_once_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 0.5, 0.9, 1.1])
    complaints = streaming.RejectWarnings(lambda: next(times))
    for text in ("one\x1b[2J", "two", "three", "https://user:secret@host/x"):
        complaints.add(text.encode(), "not_json: not JSON")
    assert capsys.readouterr().err.splitlines() == [
        "Warning: refused: not_json: not JSON: one\\x1b[2J",
        "Warning: refused: not_json: not JSON (2 more since the last one): https://***@host/x",
    ]


# ---- the program -----------------------------------------------------------------------------------------------------


def test_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeAutopilot(contacts=0) as server:
        configure(monkeypatch, server)
        with forked.start(
            "-c", MAIN, "send", "messages", "-",
            stdin=forked.PIPE, stdout=forked.PIPE, stderr=forked.PIPE, text=True,
        ) as process:  # fmt: skip
            pipe = process.stdin
            assert pipe

            def say(message: Any) -> None:
                pipe.write(f"{message if isinstance(message, str) else json.dumps(message)}\n")
                pipe.flush()

            say(identify(1))
            wait_for(lambda: len(server.seen("POST")) == 1)  # while more lines may come
            say(identify(2))
            say("oops")
            wait_for(lambda: len(server.seen("POST")) == 2)
            # While the stream waits, others may have the log; while it cannot get the log, it reads nothing.
            wait_for(lambda: _rows() == [("i1", "delivered"), ("i2", "delivered")] or len(_rows()) == 3)
            with duckdb.connect("autopilot.duckdb"):
                say(identify(3))
                time.sleep(1.5)
                assert len(server.seen("POST")) == 2
            wait_for(lambda: len(server.seen("POST")) == 3)
            say(identify(1))
            say(identify(4))
            wait_for(lambda: len(server.seen("POST")) == 4)
            process.send_signal(signal.SIGTERM)
            said, err = process.communicate()
            assert process.wait() == 4
    assert said.splitlines() == [
        "6 messages: 4 delivered, 1 refused, 0 failed, 0 unknown, 1 delivered before",
        "  1 refused: not_json: not JSON",
    ]
    assert "refused: not_json: not JSON: oops" in err
    assert "The stream waits for it." in err


def _rows() -> list[Any]:
    try:
        return rows("message_id", "status")
    except duckdb.Error:  # the stream has the file open
        return []


def test_stdin_that_ends(server: FakeAutopilot, monkeypatch: pytest.MonkeyPatch, call_with: Any) -> None:
    configure(monkeypatch, server)
    status, out, _ = call_with(json.dumps(identify(1)) + "\n" + json.dumps(track(1)), "send", "messages", "-")
    assert (status, out) == (0, "2 messages: 2 delivered, 0 refused, 0 failed, 0 unknown\n")
    posts(server)
    status, out, _ = call_with(json.dumps(identify(3)) + "\n", "send", "messages", "-", "--dry-run")
    assert (status, out.splitlines()) == (
        0,
        [
            f"POST {server.base_url}/contacts",
            '{"contacts": [{"Email": "p3@example.com", "Title": "T3"}]}',
            "would send 1 message: 1 delivered, 0 refused, 0 failed, 0 unknown",
        ],
    )
    assert (posts(server), rows("message_id")) == ([], [("i1",), ("t1",)])
    assert call_with("", "send", "messages", "-", "other.json")[0] == 2


@pytest.mark.parametrize("words", ["send messages -", "forward -", "contacts delete -"])
def test_stdin_that_is_closed(words: str, server: FakeAutopilot, monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    configure(monkeypatch, server)
    monkeypatch.setattr("sys.stdin", None)  # what Python sets after `<&-`
    assert call(*words.split()) == (
        1,
        "",
        "Error: Expected lines on stdin, but it is closed.\nGive them by a pipe (… | autopilothq …) or a file.\n",
    )
    assert server.requests == []


@pytest.fixture
def call_with(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any) -> Any:
    """Returns a function that calls the program in this process with a text as its stdin."""
    from calling import caller

    call = caller(monkeypatch, capsys)

    def called(text: str, *words: str) -> Any:
        file = tmp_path / "stdin"
        file.write_text(text)
        with file.open() as opened:
            monkeypatch.setattr("sys.stdin", opened)
            return call(*words)

    return called


def test_a_stream_leaves_the_lock_and_the_log_to_others(monkeypatch: pytest.MonkeyPatch, stop: StopSignal) -> None:
    taken: list[str] = []

    @contextmanager
    def noted(name: str) -> Iterator[None]:
        taken.append(f"{name} taken")
        yield
        taken.append(f"{name} left")

    class Log(AbstractContextManager[Any]):
        def __enter__(self) -> None:
            taken.append("log taken")

        def __exit__(self, *_: object) -> None:
            taken.append("log left")

    now, waits = [100.0], list[float]()
    monkeypatch.setattr("autopilothq.cli.streaming.time.monotonic", lambda: now[0])
    monkeypatch.setattr(StopSignal, "wait", lambda _, seconds: waits.append(seconds))
    turns = streaming.Turns(Log(), stop, lambda: noted("lock"))
    for later in (0.0, 9.0, 2.0, 9.0, 3.0, 0.1):
        with turns.take():
            now[0] += later
    assert taken[:8] == ["lock taken", "log taken", "log left", "lock left"] * 2
    assert waits == [0.5, 0.5]  # at 11 s and at 23 s
    now[0] += 60
    with turns.take():
        assert waits == [0.5, 0.5]  # after an idle minute no turn is needed


def test_the_log_may_be_in_a_warehouse_or_a_lake(
    server: FakeAutopilot, deliver: Deliver, postgres: str, tmp_path: Path
) -> None:
    for place in (dlt.destinations.postgres(postgres), lake(str(tmp_path / "lake"))):
        log = DeliveryLog(log_in(place))
        assert deliver([identify(1)], [identify(2)], [identify(1)], log=log).known == 1
        assert deliver([identify(2)], log=DeliveryLog(log_in(place))).known == 1
        server.requests.clear()
