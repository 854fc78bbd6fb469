"""Calls the program as a command line does."""

import os
import pty
import re
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

import forked
from autopilothq import cli

MAIN = "from autopilothq.cli import main; main()"
"""Code that runs the program by `python -c`, for tests that need it in a process of its own."""


GOOD = '{"type":"track","event":"Email Opened","messageId":"m1","userId":"1","receivedAt":"2019-03-04T05:06:07.412Z"}\n'
"""A valid line of an archive."""


class Said(NamedTuple):
    """What a call printed, and its exit status."""

    status: int
    out: str
    err: str


Call = Callable[..., Said]


def errors(said: Said) -> list[str]:
    """Returns the lines on stderr, without the log lines of the run."""
    return [line for line in said.err.splitlines() if not re.match(r"\d\d:\d\d:\d\d ", line)]


def caller(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Returns a function that calls the program in this process."""

    def called(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["autopilothq", *words])
        status = 0
        umask = os.umask(0o022)
        try:
            cli.main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        finally:
            os.umask(umask)  # the program sets its own, and the tests run on in this process
        return Said(status, *capsys.readouterr())

    return called


def on_terminal(*words: str) -> Said:
    """Calls the program in a process of its own, whose stderr is a terminal of 160 columns."""
    leader, follower = pty.openpty()
    terminal = {"TERM": "xterm-256color", "COLUMNS": "160"}
    child = forked.start("-c", MAIN, *words, stdout=forked.PIPE, stderr=follower, env=os.environ | terminal)
    os.close(follower)
    seen = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        seen += piece
    os.close(leader)
    out, _ = child.communicate()
    return Said(child.wait(), out.decode(), seen.decode())
