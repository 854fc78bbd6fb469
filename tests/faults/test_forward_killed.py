"""After `kill -9` while messages are forwarded, the next run sends the rest, and at most one batch again."""

import signal
from collections import Counter
from pathlib import Path

import pytest

from autopilothq.clients.segment_api import KILL_POINT_BATCH_SENT
from autopilothq.destination.forward_log import KILL_POINT_FORWARDS_ADDED
from calling import Call
from fake_segment import KEY, FakeSegment
from faults.killed_sending import Plan
from faults.sendings import run_sendings
from sending import write

MESSAGES = 350
POINTS: dict[str, tuple[str, str, int]] = {
    "a batch is to be sent": (KILL_POINT_BATCH_SENT, "before", 1),
    "a batch is sent, unnoted": (KILL_POINT_BATCH_SENT, "after", 2),
    "a stream's batch is sent, unnoted": (KILL_POINT_BATCH_SENT, "after", 3),
    "a batch is noted": (KILL_POINT_FORWARDS_ADDED, "after", 3),
}


def test_after_a_kill_the_rest_is_sent_and_at_most_one_batch_again(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESTINATION__SEGMENT__WRITE_KEY", KEY)
    plans = []
    with FakeSegment() as fake:
        for point, where in POINTS.items():
            folder = tmp_path / point
            folder.mkdir()
            messages = [{"type": "identify", "userId": "u", "messageId": f"{point} {n}"} for n in range(MESSAGES)]
            write(messages, str(folder / "messages.ndjson"))
            words = ["forward", "-" if "stream" in point else "messages.ndjson", "--to", fake.url]
            environment = {"DESTINATION__SEGMENT__WRITE_KEY": KEY, "DLT_DATA_DIR": str(folder / "dlt")}
            plans.append(Plan(str(folder), words, environment, where))
        run_sendings(plans, tmp_path)
        for point, plan in zip(POINTS, plans, strict=True):
            monkeypatch.chdir(plan.folder)
            assert Path("status").read_text() == str(-signal.SIGKILL)
            assert call("forward", "messages.ndjson", "--to", fake.url).status == 0
            times = Counter(id_ for id_ in fake.ids() if id_.startswith(f"{point} "))
            again = sum(number == 2 for number in times.values())
            assert (len(times), again, max(times.values())) == (
                MESSAGES,
                100 if "unnoted" in point else 0,
                1 + bool(again),
            )
