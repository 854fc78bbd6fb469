"""Ctrl-C: the program ends at once, without a traceback, and with the status that shells have for it."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize(
    ("words", "moment", "said"),
    [
        (["status"], "click", ""),
        (["status"], "dlt", "\nAborted!\n"),
        (["--version"], "end", ""),
    ],
)
def test_as_the_program_begins_and_ends(words: list[str], moment: str, said: str) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words, moment], env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, said)  # a shell says 130


@pytest.mark.parametrize(
    ("signalled", "status", "said"),
    [
        (KeyboardInterrupt(), 130, ["", "Aborted!"]),
        (SignalReceivedException(signal.SIGINT), 130, ["", "Aborted!"]),
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
    """dlt makes an error of both signals, and of SIGTERM the run has to say something."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise signalled

    monkeypatch.setattr(source, "list_files", interrupted)
    Path("archive").mkdir()
    ended = call("load", "archive", "archive")
    assert (ended.status, errors(ended)) == (status, said)
