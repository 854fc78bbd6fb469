"""Loads on a real Dask cluster of processes, or on Ray: `python run_engines.py dask|ray FOLDER`.

Compares the tables with those of one process after each of several loads, and checks loads in which something fails.
Raises an error if anything is not as it should be.
"""

import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import dlt
import fsspec
import pyarrow.parquet as pq
from dlt import destinations

import autopilothq
from autopilothq import runner
from autopilothq.sources import load_target
from autopilothq.sources.engine import coordinator, executors, rows, shares
from autopilothq.sources.engine.executors import engine_of
from calling import Said
from checks.engine_clusters import CLUSTERS
from checks.engine_tasks import Cramped, Dying, DyingOnce, RowsDyingOnce
from dialects import Nothing
from faults.loads import ODDITIES, WHEN, assert_same, assert_sound, content, file, track
from faults.test_refused import constrain, rejects
from servers import S3, s3_server
from shared_loads import command, isolation
from test_engine import MORE, archive_of

KEY = "a key that nobody can guess at all"
WIDE = [
    track(n, messageId=f"many-{n}", properties={f"p{key}": key for key in keys})
    for n, keys in ((1, range(1_500)), (2, range(100, 1_600)))
]

# A load whose coordinator is killed while its workers are at work.
KILLED = """
import os, signal, sys
from pathlib import Path
import autopilothq
from autopilothq import runner
from autopilothq.sources.engine import coordinator, shares
from autopilothq.sources.engine.executors import engine_of
shares.MIN_SHARE, coordinator.partition_count = 1, lambda _: 3
def kill(report):
    if report.tasks_done == 5:
        os.kill(os.getpid(), signal.SIGKILL)
engine, archive, database, work = sys.argv[1:]
source = autopilothq.archive(archive, executor=engine_of(engine), work_url=work, progress=kill)
runner.run(runner.pipeline("duckdb", database), source)
"""


class Loads:
    """Loads into two DuckDB files in a folder: into `one` with one process, into `two` on a cluster."""

    def __init__(self, folder: Path, engine: str) -> None:
        self.folder, self.engine = folder, engine
        self.archive, self.work = folder / "archive", folder / "shared"
        self.one, self.two = folder / "one.duckdb", folder / "two.duckdb"

    def into(self, database: Path, archive: Path | str, *options: str) -> Said:
        """Loads with the command."""
        return command(
            "load", "archive", str(archive), "--destination", "duckdb", "--credentials", str(database), *options
        )

    def on_cluster(self, archive: Path | str, work: Path | str) -> Said:
        """Loads with the command on the cluster."""
        return self.into(self.two, archive, "--engine", self.engine, "--work-url", str(work))

    def both(self, archive: Path | str, work: Path | str) -> None:
        """Makes the same load into both, which must succeed."""
        for said in (self.into(self.one, archive), self.on_cluster(archive, work)):
            assert said.status == 0, said
        self.assert_same()

    def assert_same(self) -> None:
        """Checks that both have the same tables, with equal columns in the same order, and the work folder no files."""
        one, two = content(self.one), content(self.two)
        assert_same(two, one, but=["_suppressions"])  # whose random salts differ
        assert [list(table.columns.items()) for table in two.values()] == [
            list(table.columns.items()) for table in one.values()
        ]
        assert_sound(two)
        assert not self.left(), f"left in the work folder: {self.left()}"

    def left(self) -> list[Path]:
        """Returns the files in the work folder."""
        return [path for path in self.work.rglob("*") if path.is_file()]


# ---- the same tables -----------------------------------------------------------------------------------------------


def load_from_bucket(loads: Loads, s3: S3) -> None:
    """Loads all oddities, long names and 1,500 columns, with the archive and the work folder in a bucket."""
    bucket = s3.bucket()
    fs = fsspec.filesystem("s3", use_listings_cache=False, **s3.storage_options)
    fs.put(str(archive_of(loads.archive, *WIDE)), f"{bucket}/archive", recursive=True)
    loads.both(f"{bucket}/archive", f"{bucket}/work")
    tables = content(loads.two)
    assert {f"p{key}" for key in range(1_600)} <= tables["email_opened"].columns.keys()
    assert sum(row["rejected"] for row in tables["_audit"].dicts()) > 5
    assert fs.find(f"{bucket}/work") == []


def load_again(loads: Loads) -> None:
    """Loads stored and new lines, with a new column, while first the coordinator is killed, then two workers."""
    again = [*ODDITIES, *MORE, track(1_000, properties={"fresh": 1, "mixed": 1, "price": "dear"})]
    file(loads.archive, "again.gz", again)
    words = loads.engine, str(loads.archive), str(loads.two), str(loads.work)
    done = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done
    assert loads.left()

    assert loads.into(loads.one, loads.archive).status == 0
    source = autopilothq.archive(str(loads.archive), executor=engine_of(loads.engine), work_url=str(loads.work))
    dying = mock.patch.multiple(coordinator, ParseTask=DyingOnce), mock.patch.multiple(rows, RowsTask=RowsDyingOnce)
    with dying[0], dying[1], redirect_stdout(StringIO()) as printed:
        runner.run(runner.pipeline("duckdb", str(loads.two)), source)
    assert {path.name for path in loads.folder.glob("died *")} == {"died reading", "died making rows"}
    assert not printed.getvalue()  # stdout is only for results
    loads.assert_same()


def load_forgotten_person(loads: Loads) -> None:
    """Loads lines of a deleted person, with a relative path of the work folder."""
    for database in (loads.one, loads.two):
        said = command("forget", "--user-id", "u3", "--destination", "duckdb", "--credentials", str(database))
        assert said.status == 0, said
    file(loads.archive, "later.gz", [track(2_000 + n, userId=f"u{n % 5}") for n in range(20)])
    loads.both(loads.archive, os.path.relpath(loads.work))
    [later] = [row for row in content(loads.two)["_audit"].dicts() if row["file"].endswith("later.gz")]
    assert (later["stored"], later["rejected"]) == (16, 4), later


def load_refused_row(loads: Loads) -> None:
    """Loads a row that the destination refuses, so all lines are read once more without it."""
    for database in (loads.one, loads.two):
        constrain(database, "email_opened", "id <> 'm-2502'")
    path = file(loads.archive, "refused.gz", [track(2_500 + n, userId="u1") for n in range(5)])
    loads.both(loads.archive, loads.work)
    assert [where for where, _, _ in rejects(content(loads.two)).values()] == [str(path)]


def load_by_staging(loads: Loads, s3: S3) -> None:
    """Loads into a destination that takes its files from a bucket, where dlt puts the same ones."""
    file(loads.folder / "few", "1.gz", [track(n) for n in range(5)])
    file(loads.folder / "few", "2.gz", [*(track(n) for n in range(3, 9)), b"no JSON"])
    workers = {"executor": engine_of(loads.engine), "work_url": str(loads.work)}
    options: list[dict[str, Any]] = [{}, workers]
    with mock.patch.object(load_target, "open_dataset", Nothing):
        one, two = (_staged(loads.folder, s3, given) for given in options)
    assert two == one
    assert (len(one["tracks"]), len(one["email_opened"]), len(one["_rejects"])) == (9, 9, 1)
    assert not loads.left(), loads.left()


def _staged(folder: Path, s3: S3, options: dict[str, Any]) -> dict[str, list[str]]:
    """Returns the rows of the files in the bucket, by table, without the columns that depend on the load."""
    bucket = s3.bucket()
    into = dlt.pipeline(
        f"staged_{len(options)}",
        destination=destinations.dummy(loader_file_format="parquet", completed_prob=1.0),
        staging=destinations.filesystem(bucket, credentials=s3.credentials),
        dataset_name="autopilothq",
    )
    into.run(autopilothq.archive(str(folder / "few"), **options))
    fs = fsspec.filesystem("s3", use_listings_cache=False, **s3.storage_options)
    found: dict[str, list[str]] = {}
    for path in fs.glob(f"{bucket}/autopilothq/*/*.parquet"):
        of_table = found.setdefault(path.split("/")[2], [])
        for row in pq.read_table(BytesIO(fs.cat(path))).to_pylist():
            of_table.append(repr({name: cell for name, cell in row.items() if name not in WHEN}))
    return {table: sorted(lines) for table, lines in found.items() if not table.startswith("_dlt_")}


# ---- what goes wrong -----------------------------------------------------------------------------------------------


def fail(loads: Loads, expected: str, work: Path | str | None = None) -> None:
    """Makes a load that must fail with the expected error, and leave nothing."""
    before = content(loads.two)
    said = loads.on_cluster(loads.archive, work or loads.work)
    error = said.err[said.err.find("Error: ") :]
    assert said.status == 1, said
    assert re.match(expected, error), f"Expected {expected}, but got: {error}"
    assert len(re.findall("^Error: ", error, re.MULTILINE)) == 1, error
    assert_same(content(loads.two), before)
    assert not loads.left(), loads.left()
    sys.stdout.write(error)


def load_with_faults(loads: Loads) -> None:
    """Loads on workers with other versions, without the work folder, with a full disk, and on ones that always die."""
    file(loads.archive, "last.gz", [track(3_000 + n, userId="u1") for n in range(20)])
    found = executors.versions()
    with mock.patch.object(executors, "versions", return_value=("0.0.9", found[1])):
        fail(loads, rf"Error: Expected dlt-autopilothq 0\.0\.9 .* but a worker has dlt-autopilothq {found[0]} with")
    # This path is a different folder in each process.
    fail(loads, "Error: Expected the work folder .* on every worker, but on .* it is not there", "/proc/self/cwd/here")
    with mock.patch.object(coordinator, "ParseTask", Cramped):
        fail(loads, r"Error: Reading share \d+ failed 3 times on the engine, the last time with (?s:.*)File too large")
    with mock.patch.object(coordinator, "ParseTask", Dying):
        fail(
            loads,
            r"Error: Reading share \d+ failed 3 times on the engine, the last time with (KilledWorker|WorkerCrashed)",
        )
    loads.both(loads.archive, loads.work)


def main(name: str, folder: Path) -> None:
    """Runs all loads, one after the other."""
    setattr(shares, "MIN_SHARE", 1)  # noqa: B010
    setattr(coordinator, "partition_count", lambda _: 3)  # noqa: B010
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    with isolation(folder), s3_server() as s3:
        settings = {f"CREDENTIALS__{name.upper()}": value for name, value in s3.credentials.items()}
        for setting, value in {**settings, "SUPPRESSION_KEY": KEY}.items():
            os.environ[f"SOURCES__AUTOPILOTHQ__{setting}"] = value
        os.environ["LOAD__RAISE_ON_MAX_RETRIES"] = "1"
        with CLUSTERS[name](elsewhere) as engine:
            loads = Loads(folder, engine)
            load_from_bucket(loads, s3)
            load_again(loads)
            load_forgotten_person(loads)
            load_refused_row(loads)
            load_by_staging(loads, s3)
            load_with_faults(loads)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
