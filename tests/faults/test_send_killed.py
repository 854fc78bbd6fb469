"""After `kill -9` at any point of sending, no identify is lost, no track is sent twice, and audiences are right."""

import json
import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from autopilothq.clients.autopilot import KILL_POINT_CONTACTS_WRITTEN, KILL_POINT_TRACK_SENT
from autopilothq.destination import DeliveryLog, audiences, deliver
from autopilothq.destination.delivery_log import (
    KILL_POINT_DELIVERIES_ADDED,
    KILL_POINT_LOG_CLOSED,
    KILL_POINT_LOG_CREATED,
    KILL_POINT_OUTCOMES_WRITTEN,
)
from autopilothq.destination.dispatch import AT_ONCE
from fake_autopilot import FakeAutopilot
from faults import killed_sending
from faults.killed_sending import Plan
from faults.sendings import run_sendings
from sending import answer, configure, environment, identify, log_in, rows, send, settings_for, track, write

IDENTIFIES, TRACKS = 250, 12

POINTS: dict[str, tuple[str, str, int] | float] = {
    "the log is there": (KILL_POINT_LOG_CREATED, "after", 1),
    "contacts are to be written": (KILL_POINT_CONTACTS_WRITTEN, "before", 1),
    "contacts are written, unnoted": (KILL_POINT_CONTACTS_WRITTEN, "after", 1),
    "more contacts are written, unnoted": (KILL_POINT_CONTACTS_WRITTEN, "after", 3),
    "contacts are noted": (KILL_POINT_DELIVERIES_ADDED, "after", 2),
    "a track is to be noted": (KILL_POINT_DELIVERIES_ADDED, "before", 5),
    "a track is noted, unsent": (KILL_POINT_TRACK_SENT, "before", 1),
    "a track is sent, unnoted": (KILL_POINT_TRACK_SENT, "after", 1),
    "another track is sent, unnoted": (KILL_POINT_TRACK_SENT, "after", 7),
    "a track's outcome is noted": (KILL_POINT_OUTCOMES_WRITTEN, "after", 3),
    "all is done": (KILL_POINT_LOG_CLOSED, "before", 1),
    "a stream's contacts are written, unnoted": (KILL_POINT_CONTACTS_WRITTEN, "after", 2),
    "a stream's track is sent, unnoted": (KILL_POINT_TRACK_SENT, "after", 5),
    **{f"{seconds:.2f} s": seconds for seed in (1, 2, 3) if (seconds := random.Random(seed).uniform(0.5, 2.5))},
}
MEMBERS: dict[str, tuple[str, str, int] | float] = {
    "members are to be written": (KILL_POINT_CONTACTS_WRITTEN, "before", 2),
    "members are written, unnoted": (KILL_POINT_CONTACTS_WRITTEN, "after", 1),
    "members are noted": (KILL_POINT_DELIVERIES_ADDED, "after", 1),
}
ROWS: dict[str, tuple[str, str, int] | float] = {
    "rows are written, unnoted": (KILL_POINT_CONTACTS_WRITTEN, "after", 1),
    "rows are noted": (KILL_POINT_OUTCOMES_WRITTEN, "after", 1),
}
PIPELINE: dict[str, tuple[str, str, int] | float] = {
    "a package is normalized": ("dlt.pipeline.pipeline:Pipeline.normalize", "after", 1),
    # The first call, because at later ones tracks of an earlier batch may be under way.
    "a package's contacts are written": (KILL_POINT_CONTACTS_WRITTEN, "after", 1),
    "a package's track is sent": (KILL_POINT_TRACK_SENT, "after", 2),
    "a package is sent": (KILL_POINT_LOG_CLOSED, "after", 1),
}
NEVER = 3600.0
SQL = "SELECT 'p' || i || '@example.com' AS email FROM range({}, {}) t(i)"
TITLES = SQL.format(0, 150).replace(" FROM", ", '{}' AS title FROM")


def messages() -> list[dict[str, Any]]:
    # Tracks are spread among the identifies, so that some belong to batches before the kill, and some to later ones.
    found = [identify(number) for number in range(IDENTIFIES)]
    for number in range(TRACKS):
        found.insert(number * 22, track(f"e{number}", email=f"e{number}@example.com"))
    return found


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, FakeAutopilot]]]:
    """Yields the folder and the account of each point, after the kill."""
    root = tmp_path_factory.mktemp("sending")
    plans: list[Plan] = []
    places: dict[str, tuple[Path, FakeAutopilot]] = {}
    with ExitStack() as stack:
        for point, where in (POINTS | MEMBERS | ROWS | PIPELINE).items():
            folder = root / point
            folder.mkdir()
            server = stack.enter_context(FakeAutopilot(contacts=0))
            places[point] = folder, server
            path = write(messages(), str(folder / "messages.ndjson"))
            words = ["send", "messages", "-" if "stream" in point else path]
            if point in MEMBERS:
                words = ["send", "audience", "Big Spenders", "--query", SQL.format(0, 250)]
            if point in ROWS:
                words = ["send", "traits", "--query", TITLES.format("new")]
            if point in PIPELINE:
                rows_file = folder / "rows.json"
                rows_file.write_text(json.dumps(messages()))
                words = ["pipeline", str(rows_file)]
            own = environment(server) | {"DLT_DATA_DIR": str(folder / "dlt")}
            if point in ROWS:
                first = ["send", "traits", "--query", TITLES.format("old")]
                plans.append(Plan(str(folder), first, own, NEVER))
            plans.append(Plan(str(folder), words, own, where))
        run_sendings(plans, root)
        yield places


@pytest.mark.parametrize("point", POINTS)
def test_after_a_kill_nothing_is_lost_and_no_track_is_sent_twice(
    point: str, house: dict[str, tuple[Path, FakeAutopilot]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, server = house[point]
    monkeypatch.chdir(folder)
    assert Path("status").read_text() == str(-signal.SIGKILL) or isinstance(POINTS[point], float)
    counts = send(server, messages())
    assert assert_all_is_right(server) == counts.unknown
    assert counts.delivered + counts.known + counts.unknown == counts.messages == IDENTIFIES + TRACKS
    before = len(server.seen("POST"))
    again = send(server, messages())
    assert (again.known, again.unknown) == (IDENTIFIES + TRACKS - counts.unknown, counts.unknown)
    assert len(server.seen("POST")) == before


def assert_all_is_right(server: FakeAutopilot) -> int:
    """Checks that all is sent and nothing twice; returns the number of tracks whose outcome is unknown."""
    titles = [(server.account.find(f"p{number}@example.com") or {}).get("Title") for number in range(IDENTIFIES)]
    assert titles == [f"T{number}" for number in range(IDENTIFIES)]
    entered = Counter((server.account.find(who) or {})["Email"] for _, who in server.account.triggered)
    assert set(entered.values()) <= {1}
    unknown = {
        email for email, status, kind in rows("email", "status", "kind") if (status, kind) == ("unknown", "track")
    }
    # Only the requests under way at the kill may be unknown.
    assert len(unknown) <= AT_ONCE
    assert {f"e{number}@example.com" for number in range(TRACKS)} == set(entered) | unknown
    return len(unknown)


@pytest.mark.parametrize("point", ROWS)
def test_after_a_kill_rows_whose_values_go_back_go_back(
    point: str, house: dict[str, tuple[Path, FakeAutopilot]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, server = house[point]
    monkeypatch.chdir(folder)
    assert Path("status").read_text() == str(-signal.SIGKILL)
    found = audiences.PersonRows(*answer(TITLES.format("old")), "email")
    with DeliveryLog(log_in()) as log:
        assert deliver(audiences.trait_items(found), log, settings_for(server)).all_delivered
    assert {(server.account.find(f"p{number}@example.com") or {})["Title"] for number in range(150)} == {"old"}


@pytest.mark.parametrize("point", PIPELINE)
def test_a_killed_pipeline_finishes_before_new_rows(
    point: str, house: dict[str, tuple[Path, FakeAutopilot]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, server = house[point]
    monkeypatch.chdir(folder)
    assert Path("status").read_text() == str(-signal.SIGKILL)
    configure(monkeypatch, server)
    killed_sending.pipeline([identify("new")])
    assert (assert_all_is_right(server) > 0) == (point == "a package's track is sent")
    assert (server.account.find("pnew@example.com") or {})["Title"] == "Tnew"


@pytest.mark.parametrize("point", MEMBERS)
def test_after_a_kill_an_audience_comes_out_right(
    point: str, house: dict[str, tuple[Path, FakeAutopilot]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, server = house[point]
    monkeypatch.chdir(folder)
    assert Path("status").read_text() == str(-signal.SIGKILL)
    # In the meantime some left who may have been sent already, and others came.
    found = audiences.PersonRows(*answer(SQL.format(50, 300)), "email")
    audience = audiences.Audience("big_spenders", "email", found)
    with DeliveryLog(log_in()) as log:
        changes = audiences.membership_items(audiences.audience_changes(audience, log.members(audience.trait)))
        assert deliver(changes, log, settings_for(server)).all_delivered
    last: dict[str, bool] = {}
    for request in server.seen("POST"):
        for contact in request.body["contacts"]:
            last[contact["Email"]] = contact["custom"]["boolean--big_spenders"]
    assert {who for who, is_in in last.items() if is_in} == {f"p{number}@example.com" for number in range(50, 300)}
