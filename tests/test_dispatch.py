"""Which batches are in flight at once, and what stops when a run ends, without an account."""

import threading
import time
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from autopilothq.destination.batch import BatchItem, ContactBatch
from autopilothq.destination.counts import Counts
from autopilothq.destination.delivery_log import Delivery
from autopilothq.destination.dispatch import BatchSender, Dispatcher
from autopilothq.destination.held import HeldPeople
from autopilothq.destination.kind import AUTOPILOT
from autopilothq.destination.requests import RunStopped
from autopilothq.errors import NotAuthorized


class Breaker:
    cause: Exception | None = None

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def open(self) -> None:
        self.stopped.set()


class Sender:
    """A sender that records the people of each batch at its start and end, and returns an item for each one's events.

    Each batch waits until `at_once` are in flight.
    """

    def __init__(self, at_once: int = 1) -> None:
        self.breaker = Breaker()
        self.noted: list[tuple[str, str]] = []
        self._together = threading.Barrier(at_once)

    def send_batch(self, batch: ContactBatch) -> list[list[BatchItem]]:
        self.work("contact", *batch.contacts)
        return [[BatchItem(key, Delivery("m", "track", email=key), ["7"])] for key in batch.contacts]

    def send_events(self, items: list[BatchItem]) -> list[list[BatchItem]]:
        self.work("event", *(item.key for item in items))
        return []

    def work(self, *what: str) -> None:
        self.noted.append(("begin", " ".join(what)))
        self._together.wait(5)
        time.sleep(0.02)
        self.noted.append(("end", " ".join(what)))


def batch(key: str) -> ContactBatch:
    return ContactBatch({key: {"Email": key}}, [])


def dispatched(sender: Any, at_once: int, *keys: str) -> int:
    """Sends batches; returns how often progress was reported."""
    told: list[None] = []
    with Dispatcher(sender, lambda: told.append(None), at_once) as dispatcher:
        for key in keys:
            dispatcher.submit(batch(key))
        dispatcher.drain()
    return len(told)


@pytest.mark.parametrize(("at_once", "people"), [(8, ("a@b.c", "a@b.c")), (1, ("a@b.c", "d@b.c"))])
def test_batches_of_one_person_and_those_beyond_the_limit_wait_for_the_events_of_those_before_them(
    at_once: int, people: tuple[str, ...]
) -> None:
    sender = Sender()
    assert dispatched(sender, at_once, *people) == 4
    work = [f"{what} {who}" for who in people for what in ("contact", "event")]
    assert sender.noted == [(when, what) for what in work for when in ("begin", "end")]


def test_batches_of_others_are_sent_at_the_same_time() -> None:
    sender = Sender(at_once=2)
    assert dispatched(sender, 2, "a@b.c", "d@b.c") in (2, 3, 4)  # batches may end at the same time
    work = [f"{what} {who}" for what in ("contact", "event") for who in ("a@b.c", "d@b.c")]
    assert sorted(sender.noted) == [(when, what) for when in ("begin", "end") for what in work]


def test_a_slow_answer_holds_up_nobody_else() -> None:
    class Slow(Sender):
        def work(self, *what: str) -> None:
            if what == ("contact", "d@b.c"):
                self.breaker.open()
            assert what != ("contact", "a@b.c") or self.breaker.stopped.wait(5)

    assert dispatched(Slow(), 2, "a@b.c", "c@b.c", "d@b.c") > 1


def test_a_run_that_ends_early_stops_the_requests_and_waits_for_those_in_flight() -> None:
    class Slow(Sender):
        def work(self, *what: str) -> None:
            assert self.breaker.stopped.wait(5)
            super().work(*what)

    sender: Any = Slow()

    def interrupted() -> None:
        with Dispatcher(sender, lambda: None, 1) as dispatcher:
            dispatcher.submit(batch("a@b.c"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert sender.noted == [("begin", "contact a@b.c"), ("end", "contact a@b.c")]


@pytest.mark.parametrize("cause", [NotAuthorized("no such key"), None])
def test_the_error_that_ended_a_run_is_told_whichever_request_it_stopped(cause: NotAuthorized | None) -> None:
    stopped = RunStopped("the run broke off")

    class Stopped(Sender):
        def work(self, *_: str) -> None:
            self.breaker.cause = cause
            raise stopped

    with pytest.raises(type(cause or stopped)) as told:
        dispatched(Stopped(), 1, "a@b.c")
    assert told.value is (cause or stopped)


class Log:
    """A log that records each row as it is written."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, str]] = []

    def add(self, rows: Iterable[Delivery], *_: Any) -> None:
        self.noted += [(row.message_id, row.status) for row in rows]

    write_outcomes = add


def test_what_the_end_of_a_run_kept_from_being_sent_has_no_outcome_but_of_a_row_that_was_written_ahead() -> None:
    log, counts = Log(), Counts()
    to: Any = SimpleNamespace(kind=AUTOPILOT, account=None, triggers=None)
    of_log: Any = log
    state: Any = SimpleNamespace(last_written=None, gives_up=False)
    sender = BatchSender(to, of_log, counts, HeldPeople(), state)
    sender.breaker.open()
    items = [BatchItem(who, Delivery(who, "identify"), [], write_ahead=who == "b") for who in "ab"]
    contacts = {who: {"Email": who} for who in "ab"}
    with pytest.raises(RunStopped):
        sender.send_batch(ContactBatch(contacts, items, [Delivery("c", status="refused")]))
    assert (log.noted, counts) == ([("b", "unknown"), ("b", "failed"), ("c", "refused")], Counts())
