"""Measures how many events a receiver takes, how fast it answers, and what writing to the disk costs: `make bench`.

A sender in a process of its own posts over loopback, on the same processors as the receiver. MEMORY makes a receiver
whose writer answers at once and keeps nothing. By default, some 100,000 events are sent to measure its memory; with
`RECEIVE_EVENTS=10000000` ten million, which takes six minutes. FIGURES.md next to this file keeps what was measured.
"""

import json
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest

from receiving import Receiver, receiver

POSTING = Path(__file__).with_name("posting.py")
SECONDS = float(os.environ.get("RECEIVE_SECONDS", "5"))
EVENTS = int(os.environ.get("RECEIVE_EVENTS", "300_000"))
BATCH = 100
SINGLE_RATE, BATCH_RATE = 3_000, 300
SENDERS = 128  # connections
GOAL = 0.050  # seconds
CONNECTIONS = 10_000
MEMORY = """
from autopilothq.receive import writer
async def write(self, endpoint, data, lines):
    pass
writer.Writer.write = write
"""


class Figures(NamedTuple):
    """What a sender measured. Times are in seconds; `processor` is the sender's own share of a processor."""

    requests: int
    rate: float
    p50: float
    p99: float
    most: float
    processor: float


def post(running: Receiver, rate: float, batch: int, connections: int, seconds: float = SECONDS) -> Figures:
    """Sends from a process of its own, and returns the figures."""
    words = map(str, (running.url, rate, batch, connections, seconds))
    done = subprocess.run([sys.executable, str(POSTING), *words], stdout=subprocess.PIPE, check=True, text=True)
    return Figures(**json.loads(done.stdout))


def show(what: str, figures: Figures, batch: int) -> None:
    """Prints the figures, with the machine's load."""
    print(
        f"\n{what}: {figures.rate:,.0f} requests/s, {figures.rate * (batch or 1):,.0f} events/s,"
        f" p50 {figures.p50 * 1e3:.1f}, p99 {figures.p99 * 1e3:.1f}, most {figures.most * 1e3:.1f} ms"
        f" (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors)"
    )


def memory(running: Receiver) -> float:
    """Returns the resident memory of the receiver in MB."""
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("batch", "rate"), [(0, SINGLE_RATE), (BATCH, BATCH_RATE)])
@pytest.mark.parametrize("before", ["", MEMORY], ids=["disk", "memory"])
def test_at_a_fixed_rate(before: str, batch: int, rate: int) -> None:
    """At a rate that it must take, the receiver answers within the goal."""
    with receiver(before=before, anew=True) as running:
        post(running, rate, batch, SENDERS, 1)
        figures = post(running, rate, batch, SENDERS)
        show(f"{'memory' if before else 'disk'}, {rate * (batch or 1):,} events/s offered", figures, batch)
    assert figures.rate > 0.95 * rate
    assert before or figures.p99 < GOAL


@pytest.mark.parametrize("batch", [0, BATCH])
@pytest.mark.parametrize("before", ["", MEMORY], ids=["disk", "memory"])
def test_the_most(before: str, batch: int) -> None:
    """Prints what one process takes from senders that wait only for responses."""
    with receiver(before=before, anew=True) as running:
        post(running, 0, batch, SENDERS, 1)
        show(f"{'memory' if before else 'disk'}, as many as it takes", post(running, 0, batch, SENDERS), batch)


def test_memory() -> None:
    """The memory does not grow with what was received."""
    with receiver("archive", "--rotate", "16MB", anew=True) as running:
        post(running, BATCH_RATE, BATCH, 32, 2)
        sent, seen, started = 0, [memory(running)], time.monotonic()
        while sent < EVENTS:
            sent += BATCH * post(running, 0, BATCH, 32, 2 if EVENTS < 1_000_000 else 20).requests
            seen.append(memory(running))
        seconds = time.monotonic() - started
    print(
        f"\n{sent:,} events in {seconds:.0f} s: {seen[0]:.0f} MB at first, {max(seen):.0f} at most, {seen[-1]:.0f} MB"
    )
    assert max(seen) < 200
    assert seen[-1] < seen[0] + 50


def test_open_connections() -> None:
    """Connections that are idle after a request do not slow down the others."""
    before, (_, hard) = resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_NOFILE)
    number = min(CONNECTIONS, hard - 100)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with receiver(anew=True) as running:
            at = urlsplit(running.url)
            small, started = memory(running), time.monotonic()
            opened = [socket.create_connection((at.hostname or "", at.port or 0)) for _ in range(number)]
            for one in opened:
                one.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            seconds, large = time.monotonic() - started, memory(running)
            show(f"beside {number:,} open connections", post(running, 1000, 0, 32, 2), 0)
            print(f"opened in {seconds:.1f} s; {small:.0f} MB before, {large:.0f} MB with them")
            assert httpx.get(f"{running.url}/healthz").status_code == 200
            for one in opened:
                one.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert large < 300  # 6.5 KB each were measured


if __name__ == "__main__":
    sys.exit(pytest.main(["-q", "-s", "-p", "no:cacheprovider", __file__, *sys.argv[1:]]))
