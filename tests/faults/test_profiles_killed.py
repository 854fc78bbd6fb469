"""After `kill -9` during a pull of profiles, only people who are not loaded yet are requested again."""

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import forked
from autopilothq import runner
from autopilothq.sources.profiles.pull import KILL_POINT_PERSON_PULLED
from contract.duck import held, query
from fake_autopilot import FakeProfiles
from faults import killed_profiles
from faults.killed_profiles import pull
from faults.loads import pipeline
from faults.test_killed import clean_environment

CLIENT = "dlt.destinations.job_client_impl:SqlJobClientBase"
# Each is in the second of three loads.
POINTS: dict[str, tuple[str, str, int]] = {
    "some have answered": (KILL_POINT_PERSON_PULLED, "after", 6),
    "between two merges": ("dlt.destinations.job_client_impl:SqlLoadJob.run", "before", 4),
    "the load is to be noted": (f"{CLIENT}.complete_load", "before", 2),
}
EVERYONE = [f"email:{number:02}@example.com" for number in range(10)]


@pytest.fixture(scope="module")
def server() -> Iterator[FakeProfiles]:
    with FakeProfiles() as running:
        for who in EVERYONE:
            running.happen(who, "Email Opened")
            running.happen(who, "Email Clicked")
        yield running


@pytest.fixture(scope="module")
def house(server: FakeProfiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder that has one for each point, in which a run was killed."""
    house = tmp_path_factory.mktemp("killed_profiles")
    plans = []
    for name, point in POINTS.items():
        (house / name).mkdir()
        (house / name / "people.txt").write_text("\n".join(EVERYONE))
        plans.append([str(house / name), *words(server), point])
    (house / "plans.json").write_text(json.dumps(plans))
    done = forked.run(killed_profiles.__file__, str(house / "plans.json"), cwd=house, env=clean_environment())
    ended = "".join(f"{number} {-signal.SIGKILL}\n" for number in range(len(POINTS)))
    assert done.stdout == ended, done.stderr
    return house


def words(server: FakeProfiles) -> tuple[str, str, str]:
    return server.base_url, server.token, server.space


@pytest.mark.parametrize("point", ["between two merges", "the load is to be noted"])
def test_another_machine_goes_on(point: str, house: Path, server: FakeProfiles) -> None:
    # First, because the other tests change these folders.
    for file in (house / point).iterdir():
        if file.is_file():
            shutil.copy(file, ".")
    assert_goes_on(server, loaded=4)
    [(lines, stored, duplicates, rejected)] = books()
    assert lines == stored + duplicates + rejected


@pytest.mark.parametrize(("point", "loaded"), [("some have answered", 4), ("the load is to be noted", 8)])
def test_the_next_run_goes_on(
    point: str, loaded: int, house: Path, server: FakeProfiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(house / point)
    assert_goes_on(server, loaded)
    assert books() == [(20, 20, 0, 0)]


def assert_goes_on(server: FakeProfiles, loaded: int) -> None:
    """Checks that another run requests only the people who are not loaded."""
    into = pipeline(Path.cwd())
    with held():
        runner.run(into, [])  # loads the killed run's package first
    sql = "SELECT person FROM autopilothq._profiles WHERE load_id IN (SELECT load_id FROM autopilothq._dlt_loads)"
    known = {who for (who,) in query(sql)}
    assert len(known) == loaded
    server.asked()
    with held():
        pull(into, *words(server))
    assert server.asked() == sorted(set(EVERYONE) - known)
    tracks = query("SELECT id, anonymous_id FROM autopilothq.tracks")
    assert len(tracks) == len({name for name, _ in tracks}) == 20
    assert {f"email:{who}" for _, who in tracks} == set(EVERYONE)
    assert query("SELECT count(*), count(DISTINCT person) FROM autopilothq._profiles") == [(10, 10)]


def books() -> list[tuple[Any, ...]]:
    return query("SELECT lines, stored, duplicates, rejected FROM autopilothq._audit")
