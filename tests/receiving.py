"""A receiver in a process of its own, and the files that it has written."""

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

import forked
from autopilothq.catalog import ARCHIVE_FOLDER
from autopilothq.receive import files

# Tests that a shell started in the background ignore Ctrl-C, and their child processes would inherit that.
PROGRAM = """
import os; os.setsid()
import signal; signal.signal(signal.SIGINT, signal.default_int_handler)
from autopilothq.cli import main; main()
"""
FORKED_WORKERS = """
import multiprocessing, uvicorn._subprocess
uvicorn._subprocess.spawn = multiprocessing.get_context("fork")
"""


class Receiver(NamedTuple):
    """A running receiver."""

    url: str
    folder: Path
    process: "subprocess.Popen[str] | forked.Process"
    http: httpx.Client

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        """Posts `body` as JSON, or as it is if it is bytes."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.http.post(self.url + path, content=content, **more)

    def warning(self) -> str:
        """Returns the next line on its stderr. If none comes in half a minute, kills it and returns ""."""
        assert self.process.stderr
        late = threading.Timer(30, self.process.kill)
        late.start()
        try:
            return self.process.stderr.readline()
        finally:
            late.cancel()

    def stop(self) -> str:
        """Sends SIGTERM, waits for the end, and returns what it wrote to stderr that was not read yet."""
        self.process.terminate()
        return self.process.communicate(timeout=15)[1]


@contextmanager
def receiver(
    folder: Path | str = "archive",
    *words: str,
    env: Mapping[str, str] | None = None,
    listen: str = "127.0.0.1:0",
    before: str = "",
    anew: bool = False,
    spawned: bool = False,
) -> Iterator[Receiver]:
    """Starts a receiver on a free port, after running the code `before`, and kills it when the block ends.

    It is forked, which saves a second of imports. With `anew` it is a new interpreter, as it is where it is installed:
    for tests that measure its memory, and for metrics, whose modules read the environment when they are imported. Its
    workers are forked as well, unless `anew` or `spawned` is set, for tests of how it manages its processes.
    """
    if not (anew or spawned):
        before = FORKED_WORKERS + before
    paths = os.pathsep.join(path for path in sys.path if path)
    call = ("-c", before + PROGRAM, "receive", str(folder), "--listen", listen, *words)
    environment = {**os.environ, "PYTHONPATH": paths, **(env or {})}
    process: subprocess.Popen[str] | forked.Process
    if anew:
        process = subprocess.Popen([sys.executable, *call], env=environment, stderr=subprocess.PIPE, text=True)
    else:
        process = forked.start(*call, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    try:
        line = process.stderr.readline()
        assert line.startswith("Receiving on "), line + process.stderr.read()
        with httpx.Client(timeout=30) as http:
            yield Receiver(line.split()[2].rstrip(","), Path(folder).absolute(), process, http)
    finally:
        process.kill()
        if not process.stderr.closed:
            process.communicate()


def publish_left(folder: Path | str) -> None:
    """Has a receiver publish what others left in the folder, which it does at its start, before it answers requests."""
    with receiver(folder) as running:
        running.http.get(f"{running.url}/healthz")
        running.stop()


def published(folder: Path) -> list[Any]:
    """Returns the archive's messages in the order of its files; a line that is not JSON is a string."""
    return [_read(line) for path in files.published_files(folder) for line in gzip.open(path, "rb").read().splitlines()]


def _read(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return line.decode(errors="replace")


def hidden(folder: Path) -> list[str]:
    """Returns the names of the files that are not published yet."""
    return sorted(path.name for path in (folder / ARCHIVE_FOLDER).glob("*/*/.*"))
