"""Runs commands on a stream, the lines of stdin, until a signal ends it. The log is open only while it is used."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, Generic, TypeVar

from .. import runner
from ..destination import Counts
from ..destination.lines import StopSignal, read_chunks
from ..destination.stream import StreamCallbacks, deliver_stream
from ..display import shortened
from ..errors import BusyError
from ..explain import explain, explained
from ..masking import masked
from ..warehouses import lock
from . import log as logs
from . import out
from .options import freeze_modules, standard_input
from .send_options import SendOptions
from .sending import (
    account_kind,
    account_settings,
    delivery_log,
    end_run,
    print_counts,
    reporter,
    sending_lock,
    with_triggers,
)

OPEN_EVERY = 1.0  # seconds between two attempts to take a lock, or open a file, that another program has
REPEAT = 60.0  # seconds after which a waiting stream warns again
WORK = 10.0  # seconds of work after which a stream releases the lock and the log
REST = 0.5  # seconds for which it releases them: enough, as others that wait for a lock try it five times a second
L = TypeVar("L", bound=AbstractContextManager[Any])


def send_stream(triggers: dict[str, list[str]], options: SendOptions) -> None:
    """Sends the messages of stdin as they come, until stdin ends or a signal stops the run."""
    total, title, file = Counts(), account_kind(options).title, standard_input().fileno()
    with explained(), stopped_by_signals() as stop:
        given = with_triggers(account_settings(options), triggers)
        log = turns(delivery_log(options), stop, options)
        freeze_modules()
        show = out.document if options.dry_run else None
        callbacks = StreamCallbacks(log.take, stop, reporter(title), logs.warn, RejectWarnings().add, show)
        try:
            deliver_stream(read_chunks(file, stop), given, callbacks, total)
        except BaseException:
            print_counts(total, title)
            raise
    end_run(total, options)


@contextmanager
def stopped_by_signals() -> Iterator[StopSignal]:
    """Yields a StopSignal, which the first SIGTERM or Ctrl-C sets. A second one ends the program as usual."""
    stop = StopSignal()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def end(number: int, _: object) -> None:
        signal.signal(number, before[signal.Signals(number)])
        stop.set()

    try:
        for number in before:
            signal.signal(number, end)
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.close()


class Turns(Generic[L]):
    """Takes the lock of sending, and opens a log, for one chunk of a stream at a time.

    While another program has one of them, the stream waits, and reads no lines. After ten seconds of work it releases
    both for half a second, so that other programs get a turn. Raises the errors of `log`.
    """

    def __init__(self, log: L, stop: StopSignal, locked: Callable[[], AbstractContextManager[Any]]) -> None:
        self._log, self._stop, self._locked = log, stop, locked
        self._rested = self._left = time.monotonic()

    @contextmanager
    def take(self) -> Iterator[L]:
        """Waits until the lock and the log are free, and yields the open log."""
        self._rest()
        with self._opened():
            yield self._log
        self._left = time.monotonic()

    def _rest(self) -> None:
        if time.monotonic() - self._left >= REST:
            self._rested = time.monotonic()
        elif time.monotonic() - self._rested >= WORK:
            self._stop.wait(REST)
            self._rested = time.monotonic()

    def _opened(self) -> ExitStack:
        warned = -REPEAT
        while True:
            try:
                with ExitStack() as stack:
                    stack.enter_context(self._locked())
                    stack.enter_context(self._log)
                    return stack.pop_all()
            except Exception as error:  # each driver has errors of its own
                busy = explain(error)
                if not isinstance(busy, BusyError) or self._stop.is_set:
                    raise
            if time.monotonic() - warned >= REPEAT:
                warned = time.monotonic()
                logs.warn(f"{str(busy).splitlines()[0]} The stream waits for it.")
            self._stop.wait(OPEN_EVERY)


def turns(log: L, stop: StopSignal, options: SendOptions) -> Turns[L]:
    """Returns the turns of a stream. Raises errors of the warehouse at once, before the first line is read."""
    with sending_lock(options), log:
        pass
    if options.dry_run:
        return Turns(log, stop, nullcontext)
    return Turns(log, stop, partial(lock.held, runner.pipeline(*options.target), 0, "send"))


class RejectWarnings:
    """Warns of lines that are not messages, at most once a second, with the number of those in between."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last = -1.0
        self._more = 0

    def add(self, line: bytes, why: str) -> None:
        """Warns of a line, or only counts it if the last warning is less than a second old."""
        now = self._now()
        if self._last >= 0 and now - self._last < 1:
            self._more += 1
            return
        more = f" ({self._more:,} more since the last one)" if self._more else ""
        self._last, self._more = now, 0
        text = line[:200].decode("utf-8", "replace")
        logs.warn(f"refused: {why}{more}: {shortened(masked(text))}")
