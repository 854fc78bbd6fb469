"""Ctrl-C ends the program at once, without a traceback, and with the status that shells expect."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from dlt.common.exceptions import SignalReceivedException

from autopilothq.sources.archive import source
from calling import Call, errors

PROGRAM = """
import atexit, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which the background of a shell ignores
moment = sys.argv.pop()
class Finder:
    def find_spec(self, name, path, target=None):
        if name == moment:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
if moment == "end":
    atexit.register(os.kill, os.getpid(), signal.SIGINT)
from autopilothq.__main__ import run_process
run_process()
"""
ABORTED_LOAD = "Aborted! What was not finished does not count as loaded; the next run reads it again."


@pytest.mark.parametrize(
    ("words", "moment", "said"),
    [
        (["status"], "click", ""),
        (["status"], "dlt", "\nAborted! It only reads: nothing was changed.\n"),
        (["load", "archive", "archive"], "dlt", f"\n{ABORTED_LOAD}\n"),
        (["--version"], "end", ""),
    ],
)
def test_as_the_program_begins_and_ends(words: list[str], moment: str, said: str) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words, moment], env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, said)  # a shell shows this as 130


@pytest.mark.parametrize(
    ("signalled", "status", "said"),
    [
        (KeyboardInterrupt(), 130, ["", ABORTED_LOAD]),
        (SignalReceivedException(signal.SIGINT), 130, ["", ABORTED_LOAD]),
        (
            SignalReceivedException(signal.SIGTERM),
            1,
            [
                "Error: The extract step failed: Received `signal_code=15`",
                "Nothing of it counts as loaded; run it again once that is fixed.",
            ],
        ),
    ],
)
def test_amid_a_step_of_dlt(
    call: Call, monkeypatch: pytest.MonkeyPatch, signalled: BaseException, status: int, said: list[str]
) -> None:
    """dlt turns both signals into errors, and after SIGTERM the run has to say something."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise signalled

    monkeypatch.setattr(source, "list_files", interrupted)
    Path("archive").mkdir()
    ended = call("load", "archive", "archive")
    assert (ended.status, errors(ended)) == (status, said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["adopt", "tables"], ABORTED_LOAD),
        (["send", "archive", "x"], "Aborted! Run it again for the rest: what was delivered is not sent again."),
        (["forward", "x"], "Aborted! Run it again for the rest: what was delivered is not sent again."),
        (
            ["contacts", "delete", "x"],
            "Aborted! Run it again within a day for the rest: contacts that are done are left out.",
        ),
        (["forget", "--email", "a@example.com"], "Aborted! Run it again: that completes it."),
        (
            ["export", "folder"],
            "Aborted! What it has written is not a complete export: run it again, and it starts from scratch.",
        ),
        (["schema", "upgrade"], "Aborted! Run it again: that completes it."),
        (["models", "apply"], "Aborted! Run it again: that completes it."),
        (["models", "show"], "Aborted! It only reads: nothing was changed."),
        (
            ["hooks", "remove", "1"],
            "Aborted! `hooks list` shows which hooks there are; run it again for the rest.",
        ),
        (["hooks", "list"], "Aborted! It only reads: nothing was changed."),
        (["receive", "folder", "--compact"], "Aborted! What was received is kept."),
        (["sample", "folder"], "Aborted! What it has written stays: name another folder, or remove it."),
        (["deliveries"], "Aborted! It only reads: nothing was changed."),
    ],
)
def test_what_becomes_of_the_work_is_told(
    call: Call, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(click.Command, "invoke", interrupted)
    ended = call(*words)
    assert (ended.status, errors(ended)) == (130, ["", said])
