"""Measures how much of the allowed rate a scan of contacts uses, with a server that never delays: `make bench`.

The server limits the rate as the account does, and one request too many would end the scan.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import autopilothq
from autopilothq.clients.autopilot import Autopilot, AutopilotSettings
from contract.duck import pipeline

ROOT = Path(__file__).parent.parent.parent
SECONDS = 6


@contextmanager
def served(contacts: int, rate: int) -> Iterator[tuple[str, str]]:
    """Yields the base URL and key of a fake account in a process of its own."""
    words = {"--contacts": contacts, "--rate": rate, "--port": 0}
    command = [sys.executable, "-m", "tests.fake_autopilot", *(str(word) for pair in words.items() for word in pair)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        try:
            yield lines[2].strip().partition("=")[2], lines[3].strip().partition("=")[2]
        finally:
            process.terminate()


@pytest.mark.parametrize("rate", [5, 20, 50])
def test_pages_per_second(rate: int) -> None:
    pages = SECONDS * rate + 1  # the last one may not be requested before SECONDS are over
    with (
        served(100 * pages, rate) as (base_url, key),
        Autopilot(AutopilotSettings(api_key=key, base_url=base_url, requests_per_second=rate, tries=1)) as autopilot,
    ):
        started = time.monotonic()
        count = sum(1 for _ in autopilot.contacts())
        seconds = time.monotonic() - started
    assert count == pages
    reached = (pages - 1) / seconds
    print(f"\n{rate} requests/s: {reached:.2f} pages/s, {reached / rate:.1%} of the rate")
    assert reached > 0.9 * rate


@pytest.mark.parametrize("rate", [5, 20])
def test_pages_per_second_of_a_load(rate: int) -> None:
    pages = SECONDS * rate + 1
    clock: dict[int, float] = {}
    with served(100 * pages, rate) as (base_url, key):
        source = autopilothq.api(
            key,
            base_url=base_url,
            requests_per_second=rate,
            tries=1,
            progress=lambda report: clock.setdefault(report.contacts, time.monotonic()),
        )
        started = time.monotonic()
        pipeline().run(source.with_resources("tracks", "email_opened", "contacts", "_rejects", "_discards", "_audit"))
        seconds = time.monotonic() - started
    reached = (pages - 1) / (clock[100 * pages] - clock[100])
    print(
        f"\n{rate} requests/s: {reached:.2f} pages/s, {reached / rate:.1%} of the rate; the whole load {seconds:.1f} s"
    )
    assert reached > 0.9 * rate
