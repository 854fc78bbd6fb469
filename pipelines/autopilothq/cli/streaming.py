"""Runs the commands on a stream: lines come on stdin, signals end it, and the log is open only while it is used."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

from .. import runner
from ..destination import Counts
from ..destination.lines import Stop, read_chunks
from ..destination.stream import StreamEnds, deliver_stream
from ..display import shortened
from ..errors import BusyError
from ..explain import explain
from ..masking import masked
from . import log as logs
from . import out
from .options import freeze_modules
from .sending import _end, _locked, _log, _settings, print_counts, reporter

OPEN_EVERY = 1.0  # seconds between two attempts to open a file that another program has open
REPEAT = 60.0  # seconds after which a stream that waits says so again
_L = TypeVar("_L", bound=AbstractContextManager[Any])


def send_stream(triggers: dict[str, list[str]], options: dict[str, Any]) -> None:
    """Sends the messages of stdin as they come, until it ends or a signal says so."""
    total = Counts()
    with runner.explained(), stopped_by_signals() as stop:
        given = _settings(options)
        given = replace(given, triggers={**(given.triggers or {}), **triggers})
        with _locked(options):
            log = _log(options)
            with log:
                pass  # what is wrong with the warehouse is said before the first line comes
            freeze_modules()
            ends = StreamEnds(
                lambda: opened_when_free(log, stop),
                stop,
                reporter(),
                logs.warn,
                Complaints().add,
                out.document if options["dry_run"] else None,
            )
            try:
                deliver_stream(read_chunks(sys.stdin.fileno(), stop), given, ends, total)
            except BaseException:
                print_counts(total)
                raise
    _end(total, [], options["dry_run"])


@contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """Gives what the first SIGTERM or Ctrl-C sets; a second one ends the program as usual."""
    stop = Stop()
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


@contextmanager
def opened_when_free(log: _L, stop: Stop) -> Iterator[_L]:
    """Opens a log. Where another program has its file open, waits until that is done, and reads nothing meanwhile."""
    with ExitStack() as stack:
        last = -REPEAT
        while True:
            try:
                stack.enter_context(log)
                break
            except Exception as error:  # each driver has its own
                busy = explain(error)
                if not isinstance(busy, BusyError) or stop.is_set:
                    raise
                if time.monotonic() - last >= REPEAT:
                    last = time.monotonic()
                    logs.warn(f"{str(busy).partition(chr(10))[0]} The stream waits for it.")
                stop.wait(OPEN_EVERY)
        yield log


class Complaints:
    """Tells of lines that are no messages: one line a second at most, and how many there were in between."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last = -1.0
        self._more = 0

    def add(self, line: bytes, why: str) -> None:
        """Tells of a line."""
        now = self._now()
        if self._last >= 0 and now - self._last < 1:
            self._more += 1
            return
        more = f" ({self._more:,} more since the last one)" if self._more else ""
        self._last, self._more = now, 0
        text = ""
        with suppress(UnicodeDecodeError):
            text = line[:200].decode("utf-8", "replace")
        logs.warn(f"refused: {why}{more}: {shortened(masked(text))}")
