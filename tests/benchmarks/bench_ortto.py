"""Measures what loads of a made-up account of Ortto with a million people cost.

`python -m pytest -s tests/benchmarks/bench_ortto.py`, with pipelines and tests on PYTHONPATH. The account is computed
in a process of its own. Its rate limit is high: Ortto's own is one person a second.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.processes import Cost, measured

ROOT = Path(__file__).parent.parent.parent
PEOPLE = int(os.environ.get("BENCH_PEOPLE", "1000000"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "600"))  # how long activities are requested
MOST_MEMORY = 900  # MB


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Yields the command's environment variables for an account in a process of its own."""
    command = [sys.executable, "-m", "tests.fake_ortto", "--people", str(PEOPLE), "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+?/v1", process.stdout.readline())
        lines = [process.stdout.readline() for _ in range(3)]
        key = next(line for line in lines if "SOURCES__AUTOPILOTHQ__ORTTO__API_KEY" in line).partition("=")[2].strip()
        assert found
        names = {"BASE_URL": found[0], "API_KEY": key, "REQUESTS_PER_SECOND": "1000"}
        names["ACTIVITY_REQUESTS_PER_SECOND"] = "1000"
        try:
            yield {f"SOURCES__AUTOPILOTHQ__ORTTO__{name}": value for name, value in names.items()} | {
                "DLT_DATA_DIR": str(tmp_path_factory.mktemp("dlt"))
            }
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench_ortto")


def load(folder: Path, settings: dict[str, str], *words: str) -> tuple[Cost, str]:
    program = "from autopilothq.cli import main; main()"
    cost = measured([sys.executable, "-c", program, "load", "ortto", *words], folder, settings)
    return cost, (folder / "output.txt").read_text()


def show(what: str, cost: Cost, text: str) -> None:
    said = [line for line in text.splitlines() if " of " in line or "lines," in line]
    print(f"\n{what}: {cost.wall:.0f} s, {cost.cpu:.0f} processor s, {cost.memory:.0f} MB; {'; '.join(said[-2:])}")


def test_all_people(folder: Path, settings: dict[str, str]) -> None:
    cost, text = load(folder, settings, "--only", "people")
    show(f"{PEOPLE:,} people", cost, text)
    assert re.search(rf"ortto_people +{PEOPLE:,}$", text, re.MULTILINE)
    assert cost.memory < MOST_MEMORY


def test_activities_for_some_time(folder: Path, settings: dict[str, str]) -> None:
    cost, text = load(folder, settings, "--only", "events", "--max-seconds", str(SECONDS))
    show(f"activities for {SECONDS:.0f} s", cost, text)
    assert cost.memory < MOST_MEMORY
    cost, text = load(folder, settings, "--only", "events", "--max-seconds", "60")
    show("the next run, for 60 s", cost, text)
    assert cost.memory < MOST_MEMORY
