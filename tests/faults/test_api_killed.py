"""After `kill -9` at any point of a scan or of its load, the next run ends as if there had been no kill."""

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import autopilothq
import forked
from autopilothq import catalog
from autopilothq.projection.snapshot import KILL_POINT_SNAPSHOT_ROWS
from autopilothq.sources.spool import KILL_POINT_PAGE_STORED
from autopilothq.warehouses.duckdb import direct
from contract.duck import held
from fake_autopilot import FakeAutopilot, account
from faults import killed_api
from faults.loads import content, pipeline
from faults.test_killed import clean_environment

POINTS: dict[str, tuple[str, str, int]] = {
    "a page has come": (KILL_POINT_PAGE_STORED, "after", 2),
    "a page is not written": (KILL_POINT_PAGE_STORED, "before", 3),
    "some lists have come": (KILL_POINT_PAGE_STORED, "after", 6),
    "all was read": (KILL_POINT_SNAPSHOT_ROWS, "after", 1),
    "between two merges": ("dlt.destinations.job_client_impl:SqlLoadJob.run", "before", 4),
    "the load is to be noted": ("dlt.destinations.job_client_impl:SqlJobClientBase.complete_load", "before", 1),
}
# The points at which two of the three pages had come.
FETCHED = ("a page has come", "a page is not written")


@pytest.fixture(scope="module")
def server() -> Iterator[FakeAutopilot]:
    """An account of three pages of contacts. A page of Autopilot's has 100 contacts; fewer make the tests faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(account, "PAGE", 20)
        with FakeAutopilot(contacts=50) as running:
            yield running


@pytest.fixture(scope="module")
def house(server: FakeAutopilot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder that has a folder for each point, with a load that was killed there."""
    house = tmp_path_factory.mktemp("killed_api")
    for name in POINTS:
        (house / name).mkdir()
    listed = house / "plans.json"
    listed.write_text(json.dumps([[server.base_url, server.key, str(house / name), POINTS[name]] for name in POINTS]))
    done = forked.run(killed_api.__file__, str(listed), cwd=house, env=clean_environment())
    assert done.stdout.split() == [
        word for number in range(len(POINTS)) for word in (str(number), str(-signal.SIGKILL))
    ], done.stderr
    return house


@pytest.mark.parametrize("point", POINTS)
def test_after_a_kill_all_is_as_if_undisturbed(point: str, house: Path, server: FakeAutopilot) -> None:
    assert_resumes(house / point, server)
    if point in FETCHED:
        again = [request.path for request in server.requests if request.path.startswith("/contacts")]
        # Only the page that was under way is requested again.
        assert len(again) == 1
    if point == "all was read":
        # All pages are in the spool; only what takes a single request is requested again.
        assert {request.path for request in server.requests} == {"/triggers"}


@pytest.mark.parametrize("point", ["between two merges", "the load is to be noted"])
def test_after_a_kill_another_machine_goes_on(point: str, house: Path, server: FakeAutopilot) -> None:
    folder = house / f"{point} elsewhere"
    folder.mkdir()
    for database in (house / point).glob("autopilot.duckdb*"):
        shutil.copy(database, folder)
    assert_resumes(folder, server)


def assert_resumes(folder: Path, server: FakeAutopilot) -> None:
    """Checks that after another run the whole account is stored, and nothing twice."""
    server.requests.clear()
    with held(folder / "autopilot.duckdb") as database:
        into = pipeline(folder, direct(str(folder / "autopilot.duckdb")))
        while into.has_pending_data:
            into.run()
        source = autopilothq.api(server.key, base_url=server.base_url, requests_per_second=10_000)
        into.run(source.with_resources(*killed_api.TABLES))
        found = content(database)
    made = [server.account.contact(number) for number in range(server.account.made)]
    assert [row["contact_id"] for row in found["contacts"].dicts()] == [contact["contact_id"] for contact in made]
    assert not any(row["deleted_at"] for row in found["contacts"].dicts())
    events = [(name, key) for contact in made for name, *_ in catalog.MAILS for key in contact.get(name, ())]
    ids = [row["id"] for row in found["tracks"].dicts()]
    opened = [row["id"] for row in found["tracks"].dicts() if row["event"] == "email_opened"]
    assert len(set(ids)) == len(ids) == len(events)
    assert sorted(row["id"] for row in found["email_opened"].dicts()) == sorted(opened)
    on_lists = sorted((name, contact["contact_id"]) for contact in made for name in contact.get("lists", ()))
    members = sorted((row["list_id"], row["contact_id"]) for row in found["lists_contacts"].dicts())
    assert members == on_lists
    assert (len(found["lists"].rows), len(found["triggers"].rows)) == (4, 3)
