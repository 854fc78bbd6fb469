"""Origins with their own cursors miss no event, whatever is selected, dropped or replaced."""

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dlt
import pytest
from dlt.extract import DltSource
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.pipeline.helpers import pipeline_drop

import stock
from autopilothq import api, archive, ortto, profiles
from dlt_habits.habits import Target, archive_of, track
from fake_autopilot import FakeAutopilot
from fake_autopilot.profiles import FakeProfiles
from fake_ortto import FakeOrtto

DAY = 86_400


@pytest.fixture
def server() -> Iterator[FakeProfiles]:
    with FakeProfiles() as running:
        for days in (1, 5, 9):
            running.happen("email:a@b.c", "Email Opened", ago=days * DAY)
            running.happen("email:a@b.c", "Email Clicked", ago=days * DAY + 60)
        Path("people.txt").write_text("a@b.c")
        yield running


def test_profiles_are_asked_again_for_what_they_were_not_asked_or_what_is_dropped(server: FakeProfiles) -> None:
    def source() -> DltSource:
        return profiles(server.token, server.space, people="people.txt", base_url=server.base_url)

    def counts() -> list[int]:
        return [target.count(name) for name in ("tracks", "email_opened", "email_clicked")]

    target = Target()
    target.run(source().with_resources("email_opened", "_profiles", "_audit"))
    assert counts() == [0, 3, 0]
    target.run(source())
    assert counts() == [6, 3, 3]
    with pytest.raises(PipelineStepFailed, match="not to be replaced, because the Profile API only has the events of"):
        target.run(source(), write_disposition="replace")
    target.run(source(), refresh="drop_sources")
    assert counts() == [6, 3, 3]


def test_profiles_are_asked_again_for_what_a_load_left_out_that_waited(server: FakeProfiles) -> None:
    """The load that waited left out stored events, and then went into another dataset."""

    def opened() -> list[str]:
        return sorted(row["id"] for row in target.rows("email_opened"))

    source = profiles(server.token, server.space, people="people.txt", base_url=server.base_url)
    source = source.with_resources("email_opened", "_profiles", "_audit")
    target = Target()
    target.run(source)
    new = server.happen("email:a@b.c", "Email Opened", ago=60)["message_id"]
    before = opened()
    target.pipeline.extract(source)
    target.dataset = "third"
    target.pipeline.run(dataset_name="third")
    assert opened() == [new]
    target.run(source)
    assert opened() == [*before, new]


def test_people_of_ortto_are_asked_again_for_tables_that_were_not_selected() -> None:
    """Also if `tracks` was selected, for which all activities are requested."""
    with FakeOrtto(people=6) as server:
        target, pace = Target(), 1000
        source = ortto(
            server.key, base_url=server.base_url, requests_per_second=pace, activity_requests_per_second=pace
        )
        target.run(source.with_resources("tracks", "_profiles", "_audit"))
        before = [row["id"] for row in target.rows("tracks") if row["event"] == "email_opened"]
        assert before
        target.run(source.with_resources("tracks", "email_opened", "_profiles", "_audit"))
        assert sorted(row["id"] for row in target.rows("email_opened")) == sorted(before)


PACE = 1000
SERVICE = (
    'The table "data"."email_clicked" was missing and was created again, empty; DELETE FROM "data"."_dlt_loads" WHERE'
    " schema_name = 'autopilothq' makes the next run of each source read again all that there still is, which stores"
    " what is missing and nothing twice"
)
SCANNED = (
    'The table "data"."email_clicked" was missing and was created again, empty; the next complete scan stores what'
    ' Autopilot\'s API still has; DELETE FROM "data"."_audit" makes the next run read the archive again, which stores'
    " what is missing and nothing twice"
)
SETS = {"profiles": ("email_clicked", "_profiles"), "ortto": ("email_clicked", "_profiles", "ortto_tags")}


@pytest.fixture(params=["profiles", "ortto", "api"])
def origin(request: pytest.FixtureRequest, server: FakeProfiles) -> Iterator[tuple[str, Callable[[], DltSource]]]:
    """Returns the name of a source, and a function that makes it with a few of its tables selected."""
    name = request.param
    tables = (*SETS.get(name, ("email_clicked", "triggers")), "_audit")
    with FakeOrtto(people=6) as people, FakeAutopilot(contacts=12) as account:
        made: dict[str, Callable[[], DltSource]] = {
            "profiles": lambda: profiles(server.token, server.space, people="people.txt", base_url=server.base_url),
            "ortto": lambda: ortto(
                people.key,
                base_url=people.base_url,
                requests_per_second=PACE,
                activity_requests_per_second=PACE,
            ),
            "api": lambda: api(account.key, base_url=account.base_url, requests_per_second=PACE),
        }
        yield name, lambda: made[name]().with_resources(*tables)


def test_a_dropped_table_comes_back_as_the_warning_says(
    origin: tuple[str, Callable[[], DltSource]], caplog: pytest.LogCaptureFixture
) -> None:
    """What the warning says brings the table back."""
    name, source = origin
    target = Target()
    target.run(source())
    before = [sorted(row["id"] for row in target.rows("email_clicked")), target.count("_profiles")]
    assert before[0]
    target.con.execute("DROP TABLE data.email_clicked")
    caplog.clear()
    target.run(source())
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warned == [SCANNED if name == "api" else SERVICE]
    if name != "api":
        target.con.execute(*re.findall("DELETE FROM .*'", warned[0]))
        target.run(source())
    assert [sorted(row["id"] for row in target.rows("email_clicked")), target.count("_profiles")] == before


@pytest.mark.parametrize(("name", "by_command"), [("profiles", False), ("ortto", True)])
def test_a_table_that_dlt_drops_is_filled_again(name: str, by_command: bool) -> None:
    """Dropped by dlt's command, or by `refresh` in a load of only one person: the next load asks for all people."""
    with FakeProfiles() as space, FakeOrtto(people=2) as account:
        for person in ("email:a@b.c", "email:d@e.f"):
            for days in (1, 9):
                space.happen(person, "Email Clicked", ago=days * DAY)
        Path("people.txt").write_text("a@b.c\nd@e.f")
        where: dict[str, Any] = (
            {"token": space.token, "space": space.space, "people": "people.txt", "base_url": space.base_url}
            if name == "profiles"
            else {"api_key": account.key, "base_url": account.base_url, "activity_requests_per_second": PACE}
        )

        def source(*tables: str, most: int | None = None) -> DltSource:
            made = (profiles if name == "profiles" else ortto)(**where, requests_per_second=PACE, people_per_load=most)
            return made.with_resources("email_clicked", *tables, "_audit")

        def ids(table: str) -> list[str]:
            return sorted(row["id"] for row in target.rows(table))

        target = Target()
        target.run(source("tracks", "_profiles"))
        before = ids("email_clicked"), ids("tracks")
        assert len(before[0]) > 1
        if by_command:
            pipeline_drop(target.pipeline, resources=["email_clicked"])()
        else:
            target.run(source(most=1), refresh="drop_resources")
        target.run(source("tracks", "_profiles"))
        assert (ids("email_clicked"), ids("tracks")) == before


def test_a_table_that_another_pipeline_replaces_is_filled_again(server: FakeProfiles) -> None:
    """The cursor says that the table is filled, and the pipeline that replaces it has no cursor to reset."""
    target = Target()
    other = dlt.pipeline("other", destination=stock.duckdb(target.con), dataset_name=target.dataset)
    clicks = archive(archive_of("a.ndjson", track("m1", "Email Clicked", 1))).with_resources("email_clicked", "_audit")

    def asked() -> int:
        source = profiles(server.token, server.space, people="people.txt", base_url=server.base_url)
        other.run(source.with_resources("email_clicked", "_audit"))
        return target.count("email_clicked")

    assert asked() == 3
    target.run(clicks, write_disposition="replace")
    assert (target.count("email_clicked"), asked()) == (1, 4)


def test_people_are_not_asked_again_where_an_archive_is_loaded_in_the_same_run(server: FakeProfiles) -> None:
    """The load that both share must not reset the cursors of the API's source."""
    target = Target()
    for number in range(3):
        archive_of(f"{number}.ndjson", track(f"m{number}", "Email Clicked", 1))
        source = profiles(server.token, server.space, people="people.txt", base_url=server.base_url)
        clicks = archive("*.ndjson").with_resources("email_clicked", "_audit")
        target.run([source.with_resources("email_opened", "_profiles", "_audit"), clicks])
    assert [("start=" in request.path) for request in server.requests] == [False, True, True]


def test_two_sources_in_one_run_are_told_to_run_one_by_one(origin: tuple[str, Callable[[], DltSource]]) -> None:
    with pytest.raises(PipelineStepFailed, match=r"twice\.\nRun one source after the other\. What was"):
        Target().run([origin[1](), origin[1]()])


def test_a_scan_of_the_api_begins_again_where_its_tables_are_replaced() -> None:
    """The rows of earlier pages are gone with the tables. Each run here has time for one page."""
    target = Target()
    with FakeAutopilot(contacts=250) as account:

        def run(**words: str) -> int:
            source = api(account.key, base_url=account.base_url, requests_per_second=PACE, max_seconds=0)
            target.run(source.with_resources("contacts", "_audit"), **words)
            return target.count("contacts")

        assert [run(), run(), run(write_disposition="replace"), run(), run()] == [100, 200, 100, 200, 250]
