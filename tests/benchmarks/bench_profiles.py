"""Measures how many people a second are requested if a response takes 100 ms, and the memory for a million people."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from autopilothq.clients.profile_api import ProfileApi, ProfileApiSettings
from autopilothq.projection import DuePeople, People
from autopilothq.sources.profiles.events import DueProfile, EventScope
from autopilothq.sources.profiles.pull import fetch_events

ROOT = Path(__file__).parent.parent.parent
SECONDS = 6


@contextmanager
def served(rate: int, latency: float) -> Iterator[dict[str, str]]:
    """Yields the settings of a made-up Profile API in a process of its own."""
    words = {"--rate": rate, "--latency": latency, "--port": 0}
    options = (str(word) for pair in words.items() for word in pair)
    command = [sys.executable, "-m", "tests.fake_autopilot.serve_profiles", *options]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip().partition("=") for _ in range(3)]
        try:
            yield {name.rpartition("__")[2]: value.strip("'") for name, _, value in lines}
        finally:
            process.terminate()


@pytest.mark.parametrize("latency", [0.1, 0.5])
def test_people_per_second(latency: float) -> None:
    """The client reaches the rate and never exceeds it: a 429 would end the test, because nothing is retried."""
    people, rate = SECONDS * 50 + 1, 50
    with (
        served(rate, latency) as at,
        ProfileApi(
            ProfileApiSettings(
                api_key=at["TOKEN"], space=at["SPACE"], base_url=at["BASE_URL"], requests_per_second=rate, tries=1
            )
        ) as space,
    ):
        started = time.monotonic()
        answers = list(
            fetch_events(space, (DueProfile(f"email:{number}@e.com") for number in range(people)), EventScope(), rate)
        )
        seconds = time.monotonic() - started
    assert not any(getattr(answer, "error", None) for answer in answers)
    reached = (people - 1) / (seconds - latency)  # without the first person, who is requested alone
    print(f"\n{latency * 1000:.0f} ms an answer: {reached:.1f} people/s, {reached / rate:.1%} of the rate")
    assert reached > 0.9 * rate


def test_a_million_people(tmp_path: Path) -> None:
    """All people but a few were requested before; the memory that they take is printed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    now, started = datetime.now(UTC), time.monotonic()
    people = People(("space", "scope"), str(tmp_path))
    for start in range(0, 1_000_000, 10_000):
        people.add([(f"email:person.{number}@example.com", now) for number in range(start, start + 10_000)])
    people.choose(_asked(now - timedelta(days=1)), {"1"}, DuePeople(now, timedelta(hours=1)))
    assert people.due == 1_000_000
    taken = 0
    for number, (person, watermark, _) in enumerate(people.take()):
        taken += 1
        if number % 1000 == 0:
            people.note([(person, watermark, now)])
    people.close()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"\n1,000,000 people: {time.monotonic() - started:.1f} s, {grown:.0f} MB more")
    assert taken == 1_000_000
    assert grown < 400


def _asked(watermark: datetime) -> Iterator[pa.RecordBatch]:
    for start in range(0, 900_000, 100_000):
        names = [f"email:person.{number}@example.com" for number in range(start, start + 100_000)]
        columns = {
            "space": ["space"] * len(names), "person": names, "scope": ["scope"] * len(names),
            "watermark": [watermark] * len(names), "asked_at": [watermark] * len(names), "load_id": ["1"] * len(names),
        }  # fmt: skip
        yield pa.RecordBatch.from_pydict(columns)
