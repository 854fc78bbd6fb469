"""Calls of the program, as on a command line."""

import os
import re
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from autopilothq import cli


class Said(NamedTuple):
    """What a call printed, and its exit status."""

    status: int
    out: str
    err: str


Call = Callable[..., Said]


def errors(said: Said) -> list[str]:
    """The lines on stderr that are no log of the run."""
    return [line for line in said.err.splitlines() if not re.match(r"\d\d:\d\d:\d\d ", line)]


def caller(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls the program in this process."""

    def called(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["autopilothq", *words])
        status = 0
        umask = os.umask(0o022)
        try:
            cli.main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        finally:
            os.umask(umask)  # the program sets its own, and the tests go on
        return Said(status, *capsys.readouterr())

    return called
