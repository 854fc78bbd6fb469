"""Origins that keep a cursor for each person: no event is passed over, whatever is selected, dropped or replaced."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dlt.extract import DltSource
from dlt.pipeline.exceptions import PipelineStepFailed

from autopilothq import ortto, profiles
from dlt_habits.habits import Place
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
        return [place.count(name) for name in ("tracks", "email_opened", "email_clicked")]

    place = Place()
    place.run(source().with_resources("email_opened", "_profiles", "_audit"))
    assert counts() == [0, 3, 0]
    place.run(source())
    assert counts() == [6, 3, 3]
    with pytest.raises(PipelineStepFailed, match="not to be replaced, because the Profile API only has the events of"):
        place.run(source(), write_disposition="replace")
    place.run(source(), refresh="drop_sources")
    assert counts() == [6, 3, 3]


def test_profiles_are_asked_again_for_what_a_load_left_out_that_waited(server: FakeProfiles) -> None:
    """It went into another dataset than the one where what it left out is stored."""

    def opened() -> list[str]:
        return sorted(row["id"] for row in place.rows("email_opened"))

    source = profiles(server.token, server.space, people="people.txt", base_url=server.base_url)
    source = source.with_resources("email_opened", "_profiles", "_audit")
    place = Place()
    place.run(source)
    new = server.happen("email:a@b.c", "Email Opened", ago=60)["message_id"]
    before = opened()
    place.pipeline.extract(source)
    place.dataset = "third"
    place.pipeline.run(dataset_name="third")
    assert opened() == [new]
    place.run(source)
    assert opened() == [*before, new]


def test_people_of_ortto_are_asked_again_for_tables_that_were_not_selected() -> None:
    """Also if `tracks`, for which everything is asked, was."""
    with FakeOrtto(people=6) as server:
        place, pace = Place(), 1000
        source = ortto(
            server.key, base_url=server.base_url, requests_per_second=pace, activity_requests_per_second=pace
        )
        place.run(source.with_resources("tracks", "_profiles", "_audit"))
        before = [row["id"] for row in place.rows("tracks") if row["event"] == "email_opened"]
        assert before
        place.run(source.with_resources("tracks", "email_opened", "_profiles", "_audit"))
        assert sorted(row["id"] for row in place.rows("email_opened")) == sorted(before)
