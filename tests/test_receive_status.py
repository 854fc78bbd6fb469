"""What `status` shows about a receiver's folder."""

import errno
import json
import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from autopilothq import disk, inspect
from autopilothq.inspect import Received, Waiting, received
from autopilothq.receive import files, server
from calling import Call, errors
from inspected import NOW, STATUS
from receiving import receiver

OLDEST = NOW - timedelta(minutes=3, seconds=5)
RECEIVED = Received("archive", Waiting(1, 1200, NOW - timedelta(seconds=12)), Waiting(1234, 5_000_000, OLDEST))
NOTHING = Waiting(0, 0, None)


def test_the_status_as_text() -> None:
    text = inspect.status_text(replace(STATUS, received=RECEIVED))
    assert text.partition("\n\n")[0].splitlines()[3:] == [
        "waiting      1, under way or cut off; the next run finishes what was cut off",
        "unpublished  1 file, 1,200 bytes, the oldest begun 2026-05-04 11:59:48, 12 s ago",
        "not loaded   1,234 files, 5,000,000 bytes, the oldest begun 2026-05-04 11:56:55, 3 min 5 s ago",
    ]
    text = inspect.status_text(replace(STATUS, received=Received("archive", NOTHING, NOTHING)))
    assert text.partition("\n\n")[0].splitlines()[4:] == ["unpublished  none", "not loaded   none"]


def test_the_status_for_programs() -> None:
    found = replace(STATUS, received=replace(RECEIVED, unpublished=NOTHING))
    assert inspect.status_dict(found, None)["received"] == {
        "folder": "archive",
        "unpublished": {"files": 0, "bytes": 0, "oldest": None, "age_seconds": None},
        "not_loaded": {
            "files": 1234,
            "bytes": 5_000_000,
            "oldest": "2026-05-04T11:56:55+00:00",
            "age_seconds": 185.0,
        },
    }


def test_a_file_that_is_published_meanwhile_is_not_counted(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}000-a" for number in (3, 1, 2)]
    for path in paths[::2]:
        path.write_bytes(b"12345")
    assert received._waiting(paths) == Waiting(2, 10, datetime.fromtimestamp(2, UTC))
    assert received._waiting(paths[1:2]) == NOTHING


def test_what_waits(call: Call) -> None:
    def track(number: int) -> dict[str, str]:
        return {"type": "track", "event": "Email Opened", "userId": "1", "messageId": f"m{number}"}

    def waiting() -> tuple[dict[str, object], dict[str, object]]:
        said = call("status", "--received", "archive", "--json")
        assert (said.status, errors(said)) == (0, [])
        parts = json.loads(said.out)["received"]
        return parts["unpublished"], parts["not_loaded"]

    with receiver("archive", "--rotate", "1h") as running:
        assert running.post("/v1/track", track(1)).status_code == 200
        running.stop()
    assert call("load", "archive", "archive").status == 0
    none = {"files": 0, "bytes": 0, "oldest": None, "age_seconds": None}
    assert waiting() == (none, none)
    for number in (2, 3):  # left by a killed receiver; the next one publishes them
        file = files.open_file(Path("archive"), "v1", time.time())
        file.append([json.dumps(track(number)).encode() + b"\n"])
        file.close()
        files.recover(Path("archive"))
    with receiver("archive", "--rotate", "1h") as running:
        assert running.post("/v1/track", track(4)).status_code == 200
        [opened], new = list(files.open_files(Path("archive"))), list(files.published_files(Path("archive")))[1:]
        unpublished, not_loaded = waiting()
        assert (unpublished["files"], unpublished["bytes"]) == (1, opened.stat().st_size)
        assert (not_loaded["files"], not_loaded["bytes"]) == (2, sum(path.stat().st_size for path in new))
        for part, path in ((unpublished, opened), (not_loaded, new[0])):
            assert part["oldest"] == datetime.fromtimestamp(files.begun_at(path), UTC).isoformat()
            assert 0 <= part["age_seconds"] < 60  # type: ignore[operator]
        said = call("status", "--received", "archive")
        assert f"\nunpublished  1 file, {opened.stat().st_size:,} bytes, the oldest begun " in said.out
        running.stop()
    said = call("status", "--received", "archives")
    assert said.status == 1
    assert errors(said)[0].startswith("Error: Expected a file or a folder at archives, but nothing is there")


def test_when_a_file_was_begun(tmp_path: Path) -> None:
    assert files.begun_at(Path(".1772600767000-0f.open")) == files.begun_at(Path("1772600767000-0f.gz")) == 1772600767
    for name in ("other-1.gz", "²-1.gz", "٣-1.gz"):  # not digits of a time
        other = tmp_path / name
        other.touch()
        os.utime(other, (5, 5))
        assert files.begun_at(other) == 5


def test_the_names_of_all_new_folders_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If one were missing after a power failure, acknowledged messages would be lost."""
    synced: list[Path] = []
    monkeypatch.setattr(disk, "sync", synced.append)
    folder = tmp_path / "data" / "archive"
    server._check_folder(folder)
    files.open_file(folder, "v1", 0.0).close()
    below = [folder, *(folder.joinpath(*("segment-logs", "v1", "0")[:n]) for n in (1, 2, 3))]
    assert synced == [tmp_path, tmp_path / "data", *below]


def test_an_archive_in_a_folder_that_may_be_written_to_but_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync(path: Path) -> None:
        if path == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    synced: list[str] = []
    monkeypatch.setattr(disk, "sync", sync)
    monkeypatch.setattr(os, "sync", lambda: synced.append("all"))
    server._check_folder(tmp_path / "data" / "archive")
    assert ((tmp_path / "data" / "archive").is_dir(), synced) == (True, ["all"])
