"""After `kill -9` during a pull from Ortto, nobody is requested twice or left out: requests take a second each."""

import json
import shutil
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import forked
from autopilothq import runner
from autopilothq.sources.ortto.answers import KILL_POINT_PAGE_KEPT, KILL_POINT_PERSON_KEPT
from autopilothq.sources.spool import KILL_POINT_PAGE_STORED
from contract.duck import held, query
from contract.pulling_ortto import FEED, new_person
from fake_ortto import FakeOrtto
from faults import killed_ortto
from faults.killed_ortto import pull
from faults.loads import pipeline
from faults.test_killed import clean_environment

CLIENT = "dlt.destinations.job_client_impl:SqlJobClientBase"
# All but the first are in the second of two loads. Each person has two pages.
POINTS: dict[str, tuple[str, str, int]] = {
    "people are found": (KILL_POINT_PAGE_STORED, "after", 1),
    "a page is kept": (KILL_POINT_PAGE_KEPT, "after", 11),
    "a person is kept": (KILL_POINT_PERSON_KEPT, "after", 6),
    "the load is to be noted": (f"{CLIENT}.complete_load", "before", 2),
}
PEOPLE, OPENED = 7, 42


@pytest.fixture(scope="module")
def server() -> Iterator[FakeOrtto]:
    with FakeOrtto(people=0) as running:
        for number in range(PEOPLE):
            new_person(running, f"{number:02}@example.com", *["act::o"] * OPENED)
        yield running


@pytest.fixture(scope="module")
def house(server: FakeOrtto, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder with one for each point, with a killed run; `asked.json` lists who was requested before."""
    house = tmp_path_factory.mktemp("killed_ortto")
    for name, point in POINTS.items():
        (house / name).mkdir()
        (house / "plans.json").write_text(json.dumps([[str(house / name), server.base_url, server.key, point]]))
        done = forked.run(killed_ortto.__file__, str(house / "plans.json"), cwd=house, env=clean_environment())
        assert done.stdout == f"0 {-signal.SIGKILL}\n", done.stderr
        (house / name / "asked.json").write_text(json.dumps(asked(server)))
    return house


def asked(server: FakeOrtto) -> list[str]:
    """Returns whose first page was requested since the last call."""
    found = [of.body["person_id"] for of in server.requests if of.path == FEED and of.body["offset"] == 0]
    server.requests.clear()
    return found


def test_another_machine_goes_on(house: Path, server: FakeOrtto) -> None:
    # First, because the other tests change these folders.
    shutil.copy(house / "a person is kept" / "autopilot.duckdb", ".")
    sql = "SELECT person FROM autopilothq._profiles WHERE load_id IN (SELECT load_id FROM autopilothq._dlt_loads)"
    loaded = {person.partition(":")[2] for (person,) in query(sql)}
    with held():
        pull(pipeline(Path.cwd()), server.base_url, server.key)
    assert len(loaded) == 4
    assert not loaded & set(asked(server))
    assert_all_is_there()


@pytest.mark.parametrize("point", POINTS)
def test_the_next_run_asks_for_nobody_again(
    point: str, house: Path, server: FakeOrtto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(house / point)
    before = json.loads(Path("asked.json").read_text())
    files = [path for path in Path("state").rglob("autopilothq-ortto/**/*") if path.is_file()]
    assert files
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    into = pipeline(Path.cwd())
    with held():
        runner.run(into, [])  # loads the killed run's package first
        pull(into, server.base_url, server.key)
    after = asked(server)
    # Only the person whose pages were incomplete is requested again.
    again = {"a page is kept": 1}.get(point, 0)
    assert len(after) == len(set(after)) == PEOPLE - len(before) + again
    assert_all_is_there()


def assert_all_is_there() -> None:
    assert query("SELECT count(*), count(DISTINCT id) FROM autopilothq.tracks") == [(PEOPLE * OPENED, PEOPLE * OPENED)]
    assert query("SELECT count(*), count(DISTINCT person) FROM autopilothq._profiles") == [(PEOPLE, PEOPLE)]
    assert query("SELECT count(*) FROM autopilothq._audit WHERE lines <> stored + duplicates + rejected") == [(0,)]
