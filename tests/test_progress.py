"""The progress that a user sees while a load runs, and the options in the help."""

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TextIO

import click
import pytest
from rich.console import Console

from autopilothq.cli import cli, log
from autopilothq.cli.progress import Counted, ProgressDisplay
from autopilothq.sources.report import LoadReport
from calling import Call

LARGE = LoadReport(
    files=999_999, files_done=888_888, bytes=123_456_789_012, bytes_done=98_765_432_100, lines=123_456_789,
    contacts=1_234_567, contacts_total=9_999_999, people=512_345, people_total=999_999,
)  # fmt: skip
SMALL = LoadReport(files=14, files_done=3, bytes=12_000, bytes_done=9_000, lines=9_999, people=1_234, people_total=None)
TABLES = LoadReport(files=4, files_done=3, lines=1)  # of unknown size
ONE = LoadReport(
    files=1, files_done=1, bytes=12_000, bytes_done=12_000, lines=1, contacts=1, contacts_total=1, people=1
)


def full_disk() -> TextIO:
    return open("/dev/full", "w", buffering=1)


def reader_that_has_gone() -> TextIO:
    read, written = os.pipe()
    os.close(read)
    return os.fdopen(written, "w", buffering=1)


@pytest.mark.parametrize("opened", [full_disk, reader_that_has_gone])
@pytest.mark.parametrize("as_json", [False, True])
def test_a_load_goes_on_where_stderr_takes_nothing(
    opened: Callable[[], TextIO], as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = log.LogSettings(False, as_json)
    monkeypatch.setattr(log, "log_settings", lambda: settings)
    stderr = opened()
    monkeypatch.setattr(sys, "stderr", stderr)
    with ProgressDisplay(Console(stderr=True)) as display:
        display.step("extract")
        display.report(LoadReport(warnings=["Look."]))
    log.Handler(as_json).emit(logging.LogRecord("dlt", logging.WARNING, "", 0, "Look.", (), None))
    log.fail("It failed.", 1)
    with suppress(OSError):
        stderr.close()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(
    ("counted", "report", "narrow", "wide"),
    [
        ("files", LARGE, "888.9k/1000.0k files  123.5M events  ", "888,888/999,999 files  123,456,789 events  "),
        ("files", SMALL, "3/14 files  9,999 events  ", "3/14 files  9,999 events  "),
        (
            "contacts",
            LARGE,
            "1.2M of 10.0M contacts  123.5M events",
            "1,234,567 of 9,999,999 contacts  123,456,789 events",
        ),
        ("people", LARGE, "512.3k of 1000.0k people  123.5M events", "512,345 of 999,999 people  123,456,789 events"),
        ("people", SMALL, "1,234 people  9,999 events", "1,234 people  9,999 events"),
        ("people read", LARGE, "1.2M of 10.0M people  123.5M", "1,234,567 of 9,999,999 people  123,456,789 events"),
        ("rows", SMALL, "0.0 MB  9,999 events", "0.0 MB  9,999 events"),
        ("tables", TABLES, " 75% 3/4 tables  1 event  ", " 75% 3/4 tables  1 event  "),
        ("files", TABLES, " 75% 3/4 files  1 event  ", " 75%  3/4 files  1 event  "),
        ("files", ONE, "100% 1/1 file  1 event  ", "12.0/12.0 kB 1/1 file  1 event  "),
        ("contacts", ONE, "1 of 1 contact  1 event", "1 of 1 contact  1 event"),
        ("people", ONE, "1 person  1 event", "1 person  1 event"),
    ],
)
def test_the_bar_is_one_line(counted: Counted, report: LoadReport, narrow: str, wide: str, width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, color_system=None)
    watch = ProgressDisplay(console, counted)
    watch._started -= 300
    watch.step("normalize")
    watch.report(report)
    console.print(watch._bar.get_renderable())
    [line] = out.getvalue().splitlines()
    assert len(line) <= width
    assert "handing over " in line
    assert (narrow if width == 80 else wide) in line
    assert "━" in line
    assert "…" not in line


def _commands(command: click.Command, *words: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            yield from _commands(one, *words, name)


@pytest.mark.parametrize(
    ("words", "command"), list(_commands(cli)), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_help_shows_every_option(words: tuple[str, ...], command: click.Command, call: Call) -> None:
    shown = [command]
    if isinstance(command, click.Group) and words == ("schema",):
        shown.append(command.commands["show"])  # `schema --live` is `schema show --live`
    said = call(*words, "--help")
    assert said.status == 0
    options = {name for one in shown for param in one.params if isinstance(param, click.Option) for name in param.opts}
    assert options <= set(said.out.replace(",", " ").split())
