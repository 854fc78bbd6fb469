"""After `kill -9` during an export, no load takes what it left, and the next export is complete."""

import gzip
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest

import forked
from autopilothq.export import bucket, folder
from autopilothq.sources.adopt.files import table_files
from autopilothq.sources.archive.discover import list_files
from contract.loading import message, write
from faults.killed import MAIN
from servers import S3
from shared_loads import command, isolation

IDS = {"m1", "m2", "m3"}
POINTS = {
    "archive: all files are synced": (folder.KILL_POINT_EXPORT_SYNCED, "after"),
    "parquet: one file has its name": (folder.KILL_POINT_EXPORT_NAMED, "after"),
    "parquet: all files have their names": (folder.KILL_POINT_EXPORT_UNMARKED, "before"),
    "archive in a bucket: one file is uploaded": (bucket.KILL_POINT_FILE_UPLOADED, "after"),
    "parquet in a bucket: all files are uploaded": (bucket.KILL_POINT_FILES_UPLOADED, "after"),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A DuckDB file with three messages of two days."""
    home = tmp_path_factory.mktemp("exported")
    with isolation(home):
        days = ("01", "01", "02")
        write(
            "m.jsonl",
            *(
                message(messageId=f"m{number}", receivedAt=f"2019-03-{day}T00:00:00Z")
                for number, day in enumerate(days, 1)
            ),
        )
        assert command("load", "archive", "archive", "--credentials", "events.duckdb").status == 0
        yield str(Path("events.duckdb").absolute())


@pytest.mark.parametrize("point", POINTS)
def test_no_load_takes_what_a_killed_export_left(
    dataset: str, point: str, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.credentials.items():
        monkeypatch.setenv(f"SOURCES__AUTOPILOTHQ__CREDENTIALS__{name.upper()}", value)
    place = f"{s3.bucket()}/out" if "bucket" in point else "out"
    form = point[:7]
    words = ("export", place, "--format", form, "--credentials", dataset)
    code = f"from faults.killed import kill_at; kill_at(*{POINTS[point]!r}, 1); {MAIN}"
    assert forked.start("-c", code, *words).wait(60) == -signal.SIGKILL
    assert taken(place, s3) == {}
    said = command(*words)
    assert (said.status, said.err) == (0, "")
    found = taken(place, s3)
    if form == "parquet":
        assert {"email_opened", "tracks"} <= found.keys()
        assert found["tracks"] == found["email_opened"] == IDS
    else:
        assert sorted(found.values(), key=len) == [{"m3"}, {"m1", "m2"}]


def taken(place: str, s3: S3) -> dict[str, set[str]]:
    """Returns the ids that a load reads from a place, by table for Parquet, by file for an archive."""
    fs = fsspec.filesystem("s3", use_listings_cache=False, **s3.storage_options) if "://" in place else None
    found = {}
    for file in list_files([place], fs=fs):
        lines = gzip.decompress(file.fs.cat_file(file.path)).splitlines()
        found[file.url] = {json.loads(line)["messageId"] for line in lines}
    for one in table_files([place], {})[0]:
        if one.table in ("email_opened", "tracks"):
            with one.fs.open(one.path) if one.fs else open(one.path, "rb") as opened:
                found[one.table] = set(pq.read_table(opened)["id"].to_pylist())
    return found
