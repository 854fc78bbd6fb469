"""All that the receiver acknowledged is in the archive, whatever ends it and whatever the disk does."""

import fcntl
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from autopilothq.receive import files
from calling import Call
from contract.duck import query
from faults.killed_receiver import lost, rounds
from receiving import Receiver, hidden, published, receiver
from waiting import wait_for

NOW = 1_772_600_767.0
DAY = 1_772_582_400_000


def track(number: object, **more: Any) -> dict[str, Any]:
    return {"type": "track", "event": "Email Opened", "userId": "1", "messageId": f"m{number}", **more}


def send(running: Receiver, number: int, **more: Any) -> list[str]:
    """Sends messages one after the other; returns the ids of those that were acknowledged."""
    found = []
    for one in range(number):
        answer = running.post("/v1/track", track(one, **more))
        if answer.status_code == 200:
            found.append(f"m{one}")
        else:
            assert answer.status_code == 503, answer.text
            assert answer.headers["retry-after"] == "5"
            assert answer.json()["code"] == "unavailable"
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_acknowledged_is_lost_by_kills(call: Call, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("temporary").mkdir()
    monkeypatch.setenv("TMPDIR", os.path.abspath("temporary"))
    acknowledged, _ = rounds(Path("archive"), 5, random.Random(workers), workers, least=101)
    assert len(acknowledged) > 100
    assert lost(Path("archive"), acknowledged) == set()
    assert os.listdir("temporary") == []
    assert call("load", "archive", "archive").status == 0
    stored = {one for (one,) in query("SELECT id FROM autopilothq.email_opened")}
    assert set(acknowledged) <= stored == {one["messageId"] for one in published(Path("archive"))}
    assert query("SELECT sum(duplicates), sum(rejected) FROM autopilothq._audit") == [(0, 0)]


def test_requests_in_flight_are_finished_at_a_stop() -> None:
    acknowledged: list[str] = []
    with receiver() as running:

        def sending(sender: int) -> None:
            with httpx.Client() as http:
                for number in range(10_000):
                    try:
                        answer = http.post(f"{running.url}/v1/track", json=track(f"{sender}-{number}"))
                    except httpx.HTTPError:
                        return
                    if answer.status_code == 200:
                        acknowledged.append(f"m{sender}-{number}")

        senders = [threading.Thread(target=sending, args=(sender,)) for sender in range(8)]
        for sender in senders:
            sender.start()
        time.sleep(0.5)
        started = time.monotonic()
        running.stop()
        assert time.monotonic() - started < 10
        for sender in senders:
            sender.join()
    assert running.process.returncode == 0
    assert len(acknowledged) > 10
    assert lost(running.folder, acknowledged) == set()


# ---- what a killed process leaves ------------------------------------------------------------------------------------


def opened(*lines: bytes) -> files.OpenFile:
    file = files.open_file(Path("archive"), "v1", NOW)
    file.append(list(lines))
    return file


def texts() -> list[Any]:
    return published(Path("archive"))


def test_a_torn_last_line_is_cut() -> None:
    opened(b'{"a":1}\n{"b":2}\n{"c', b":").close()
    [done] = files.recover(Path("archive"))
    assert done.parent == Path("archive/segment-logs/v1", str(DAY))
    assert texts() == [{"a": 1}, {"b": 2}]
    assert hidden(Path("archive")) == []


def test_a_file_without_a_whole_line_is_removed() -> None:
    opened(b"x" * 3_000_000).close()
    opened().close()
    assert files.recover(Path("archive")) == []
    assert hidden(Path("archive")) == texts() == []


@pytest.mark.parametrize("step", ["compress", "rename", "unlink"])
def test_a_kill_while_a_file_is_published(step: str) -> None:
    file = opened(b'{"a":1}\n')
    file.close()
    child = os.fork()
    if not child:  # the child is killed just after the step
        where: Any = Path if step == "unlink" else files
        then = getattr(where, step)

        def die(*given: Any, **more: Any) -> None:
            then(*given, **more)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(where, step, die)
        files.recover(Path("archive"))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    files.recover(Path("archive"))
    assert texts() == [{"a": 1}]
    assert hidden(Path("archive")) == []


def test_the_file_of_a_process_that_runs_is_left_alone() -> None:
    file = opened(b'{"a":1}\n')
    assert files.recover(Path("archive")) == []
    with pytest.raises(BlockingIOError), open(file.path) as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    file.close()
    assert len(files.recover(Path("archive"))) == 1


# ---- disks and clocks ------------------------------------------------------------------------------------------------


def test_a_disk_that_fills() -> None:
    small = (
        "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    )
    with receiver(before=small) as running:
        acknowledged = send(running, 60, properties={"text": "x" * 990})
        running.stop()
    assert 50 <= len(acknowledged) < 60  # the limit is for each file, so the receiver starts new ones
    assert lost(running.folder, acknowledged) == set()


FAILING = """
import os, errno, pathlib
sync = os.fdatasync
def fdatasync(descriptor):
    if pathlib.Path("sick").exists():
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    sync(descriptor)
os.fdatasync = fdatasync
from autopilothq.receive import writer
writer.TRY_SECONDS = 0.1
"""


def test_a_sync_that_fails() -> None:
    with receiver(before=FAILING) as running:
        assert send(running, 2) == ["m0", "m1"]
        Path("sick").touch()
        assert running.post("/v1/track", track(2)).status_code == 503
        time.sleep(0.5)  # the receiver tries the disk again in this time
        asked = httpx.get(f"{running.url}/readyz")
        assert (asked.status_code, asked.json()) == (
            503, {"code": "not_ready", "message": "The last sync failed: Input/output error."},
        )  # fmt: skip
        assert httpx.get(f"{running.url}/healthz").status_code == 200
        Path("sick").unlink()
        wait_for(lambda: httpx.get(f"{running.url}/readyz").status_code == 200, 10)  # even if nobody sends anything
        assert running.post("/v1/track", track(3)).status_code == 200
        said = running.stop()
    assert said == "Warning: Messages of v1 cannot be kept in archive: Input/output error\n"
    assert [one["messageId"] for one in published(running.folder)] == ["m0", "m1", "m3"]
    assert hidden(running.folder) == []


READ_ONLY = """
import os, errno, pathlib
opening = os.open
def open_(path, flags, *more, **named):
    if flags & os.O_CREAT and pathlib.Path("read-only").exists():
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    return opening(path, flags, *more, **named)
os.open = open_
"""


def test_a_folder_that_becomes_read_only() -> None:
    with receiver("archive", "--rotate", "1KB", before=READ_ONLY) as running:
        first = send(running, 3, properties={"text": "x" * 2000})
        Path("read-only").touch()
        assert first == ["m0", "m1", "m2"]
        time.sleep(1)
        assert running.post("/v1/track", track(8)).json()["message"] == "The disk failed: Read-only file system."
        Path("read-only").unlink()
        assert running.post("/v1/track", track(9)).status_code == 200
        running.stop()
    assert sorted(one["messageId"] for one in published(running.folder)) == ["m0", "m1", "m2", "m9"]
    assert hidden(running.folder) == []


def test_a_clock_that_jumps() -> None:
    jumping = (
        "import time, pathlib\nclock = time.time\n"
        "def jumped(): return clock() + float(pathlib.Path('jump').read_text() or 0)\n"
        "time.time = jumped"
    )
    Path("jump").write_text("0")
    with receiver(before=jumping) as running:
        for number, jump in enumerate((0, 86_400, -3 * 86_400, 0)):
            Path("jump").write_text(str(jump))
            assert running.post("/v1/track", track(number)).status_code == 200
        running.stop()
    days = [int(path.parent.name) for path in files.published_files(running.folder)]
    assert len(set(days)) == 3
    assert all(day % 86_400_000 == 0 for day in days)
    assert sorted(one["messageId"] for one in published(running.folder)) == ["m0", "m1", "m2", "m3"]


def test_a_disk_that_is_nearly_full() -> None:
    with receiver(env={"RECEIVE__MIN_FREE_MB": "1e12"}) as running:
        answer = running.post("/v1/track", track(1))
        assert (answer.status_code, answer.json()["message"]) == (503, "The disk is nearly full.")
        assert httpx.get(f"{running.url}/readyz").json()["message"] == "The disk is nearly full."
        running.stop()
    assert published(running.folder) == []


SLOW = """
import os, pathlib, time
from autopilothq.receive import room
room.ROOM_TIME = 0.5
def wait(descriptor):
    while pathlib.Path("slow").exists():
        time.sleep(0.05)
os.fdatasync = wait
"""


def test_a_disk_that_is_too_slow() -> None:
    Path("slow").touch()
    answers: list[httpx.Response] = []
    with receiver(env={"RECEIVE__MAX_PENDING_MB": "0.001"}, before=SLOW) as running:

        def sending(number: int) -> None:
            answers.append(httpx.post(f"{running.url}/v1/track", json=track(number), timeout=30))

        senders = [threading.Thread(target=sending, args=(number,)) for number in range(20)]
        for sender in senders:
            sender.start()
        wait_for(lambda: answers)  # while the disk hangs, only refusals are answered
        assert {answer.status_code for answer in answers} == {503}
        Path("slow").unlink()
        for sender in senders:
            sender.join()
        running.stop()
    refused = [answer for answer in answers if answer.status_code == 503]
    assert {answer.json()["message"] for answer in refused} == {"Too much waits for the disk."}
    assert 0 < len(refused) < 20
    assert len(published(running.folder)) == 20 - len(refused)


def test_a_new_file_that_a_starting_process_takes_for_a_left_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may remove a file between its creation and its lock, because it is empty and not locked."""
    locking, seen = fcntl.flock, list[int]()

    def flock(descriptor: int, operation: int) -> None:
        if not seen:
            seen.append(descriptor)
            assert files.recover(Path("archive")) == []
        locking(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    file = opened(b'{"a":1}\n')
    file.close()
    files.recover(Path("archive"))
    assert texts() == [{"a": 1}]
