"""`forget` also removes a person's messages from a receiver's files, including hidden ones."""

import fcntl
import gzip
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from autopilothq.receive import files, publishing
from autopilothq.receive.publishing import receiver_folders
from calling import Call, errors
from contract.duck import query
from prepared import preparing
from receiving import Receiver, hidden, published, receiver
from shared_loads import command
from waiting import wait_for

ADA = ("forget", "--email", "ada@example.com", "--user-id", "ada", "--archive")


def message(person: str, number: object) -> dict[str, Any]:
    traits = {"email": f"{person}@example.com"}
    return {
        "type": "track", "event": "Email Opened", "userId": person, "messageId": f"{person}-{number}",
        "context": {"traits": traits},
    }  # fmt: skip


@contextmanager
def sending(running: Receiver, person: str) -> Iterator[list[str]]:
    """Makes two senders send a person's messages, about 500 a second; yields the ids of acknowledged ones."""
    acknowledged: list[str] = []
    stop = threading.Event()

    def send(sender: int) -> None:
        with httpx.Client(timeout=30) as http:
            number = 0
            while not stop.wait(0.02):  # with pauses, because everything is loaded in the end
                some = [message(person, f"{sender}-{number + more}") for more in range(5)]
                number += 5
                if http.post(f"{running.url}/v1/batch", json={"batch": some}).status_code == 200:
                    acknowledged.extend(one["messageId"] for one in some)

    senders = [threading.Thread(target=send, args=(sender,)) for sender in range(2)]
    for sender in senders:
        sender.start()
    try:
        yield acknowledged
    finally:
        stop.set()
        for sender in senders:
            sender.join()


def mentions(folder: Path, text: bytes) -> list[str]:
    """Returns the names of the files below a folder, including hidden ones, that contain a text."""
    found = []
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        if text in (gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content):
            found.append(path.name)
    return found


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a dataset with a message of Bob's; returns the folder."""
    with preparing(tmp_path_factory.mktemp("bobs")) as home:
        Path("first.jsonl").write_text(json.dumps(message("bob", "first")) + "\n")
        assert command("load", "archive", "first.jsonl").status == 0
    return home


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_receiver_under_load(call: Call, loaded: Path, workers: str) -> None:  # noqa: ARG001
    with receiver("archive", "--rotate", "1h", "--workers", workers) as running:
        with sending(running, "bob") as bobs:
            with sending(running, "ada") as adas:
                wait_for(lambda: len(adas) >= 100)
            assert published(running.folder) == []
            said = call(*ADA, "archive")
            assert (said.status, errors(said)) == (0, [])
            before = len(bobs)
            assert f"0 rows and {len(adas):,} lines removed" in said.out
            assert mentions(running.folder, b"ada@example.com") == mentions(running.folder, b'"ada"') == []
            wait_for(lambda: len(bobs) > before)
        assert running.post("/v1/track", message("ada", "later")).status_code == 200
        assert running.stop() == ""
    assert {one["messageId"] for one in published(running.folder)} == {*bobs, "ada-later"}
    assert hidden(running.folder) == []
    assert call("load", "archive", "archive").status == 0
    assert {one for (one,) in query("SELECT id FROM autopilothq.email_opened")} == {*bobs, "bob-first"}
    assert query("SELECT reason, count(*) FROM autopilothq._rejects GROUP BY 1") == [("suppressed", 1)]


def test_what_a_killed_receiver_left(call: Call, loaded: Path) -> None:  # noqa: ARG001
    with receiver("archive", "--rotate", "1h") as running:
        for person in ("ada", "bob"):
            assert running.post("/v1/track", message(person, 1)).status_code == 200
        os.killpg(running.process.pid, signal.SIGKILL)
    assert call(*ADA, "archive/segment-logs/v1/").status == 0
    assert [one["messageId"] for one in published(Path("archive"))] == ["bob-1"]
    assert mentions(Path("archive"), b"ada@example.com") == []


def test_a_dry_run_reads_what_is_open_and_changes_nothing(call: Call, loaded: Path) -> None:  # noqa: ARG001
    with receiver("archive", "--rotate", "1h") as running:
        for person in ("ada", "bob"):
            assert running.post("/v1/track", message(person, 1)).status_code == 200

        def state() -> list[tuple[Path, int]]:
            return [(path, path.stat().st_mtime_ns) for path in sorted(running.folder.rglob("*"))]

        before = state()
        [name] = hidden(running.folder)
        for url in ("archive", "archive/segment-logs/v1", f"file://{Path.cwd()}/archive", "arch*/"):
            said = call(*ADA, url, "--dry-run", "--json")
            assert said.status == 0, said.err
            assert {Path(file).name: lines for file, lines in json.loads(said.out)["lines"].items()} == {name: 1}, url
            assert state() == before, url
        running.stop()


def test_a_receiver_that_does_not_publish(call: Call, loaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    monkeypatch.setattr(publishing, "WAIT", 0.5)
    file = files.open_file(Path("archive"), "v1", time.time())
    file.append([json.dumps(message("ada", 1)).encode() + b"\n"])
    said = call(*ADA, "archive")
    assert said.status == 1
    assert errors(said) == [
        (
            "Error: Expected the receiver to publish its files within 15 seconds, but 1 is still open:"
            f" {file.path.absolute()}. Nothing was deleted."
        ),
        "Look at its log, or stop it, and run this again.",
    ]
    assert mentions(Path("archive"), b"ada@example.com") == [file.path.name]
    file.close()
    assert call(*ADA, "archive").status == 0
    assert mentions(Path("archive"), b"ada@example.com") == []


def test_a_file_that_was_taken_for_a_left_one_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, locked = fcntl.flock, list[int]()

    def flock(descriptor: int, how: int) -> None:
        locked.append(descriptor)
        if len(locked) == 1:
            files.recover(Path("archive"))
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    file = files.open_file(Path("archive"), "v1", time.time())
    file.append([b"1\n"])
    file.close()
    assert len(files.recover(Path("archive"))) == 1
    assert published(Path("archive")) == [1]


def test_where_receivers_have_files() -> None:
    for name in ("one", "two"):
        Path(name, "segment-logs", "v1").mkdir(parents=True)
    assert receiver_folders(Path()) == [Path("one"), Path("two")]
    assert receiver_folders(Path("two")) == receiver_folders(Path("two/segment-logs/v1")) == [Path("two")]
    assert receiver_folders(Path("three")) == []
