"""Loads on an engine survive dead workers and coordinators, and no secret ever reaches a worker."""

import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pytest

import autopilothq
import forked
from autopilothq.errors import EngineError, NotSupported
from autopilothq.projection import engine
from autopilothq.segment.identity import Id, SuppressionKey, hash_of
from autopilothq.sources.archive.source import projector_of
from autopilothq.sources.engine import coordinator, executors, shares, work_folder
from autopilothq.sources.engine.executors import Workers, engine_of, run_task
from autopilothq.sources.refused import target_of
from autopilothq.warehouses import suppression_key
from contract.test_unreadable import raising
from faults.loads import content, file, files_in, load, track
from prepared import preparing
from servers import S3
from test_engine import Inline, both, into, same


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts small loads like large ones: into shares of one file, and three partitions."""
    monkeypatch.setattr(shares, "MIN_SHARE", 1)
    monkeypatch.setattr(coordinator, "partition_count", lambda _: 3)


def archive_of(folder: Path) -> Path:
    """Makes an archive of three files with five persons, two events and a line that is not a message."""
    persons = [track(n, type="identify", userId=f"u{n}", messageId=f"i-{n}", traits={"n": n}) for n in range(5)]
    file(folder, "1.gz", [track(n, userId=f"u{n % 5}") for n in range(10)])
    file(folder, "2.json", [*persons, b"no JSON", track(20, event="Order", properties={"price": 3})])
    file(folder, "3.gz", [track(30, event="Order", properties={"price": "dear"}), track(1), *persons[:2]])
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with preparing(tmp_path_factory.mktemp("faults")) as home:
        load(into(home, "one"), archive_of(home / "archive"))
    return home


def on_engine(folder: Path, executor: Executor) -> autopilothq.LoadReport:
    """Loads the archive of a folder into `two.duckdb` on an engine."""
    return load(into(folder, "two"), folder / "archive", executor=executor, work_url=str(folder / "work"))


# ---- workers -------------------------------------------------------------------------------------------------------


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Executor]:
    """Returns a function that makes an executor of two processes, forked from one that has imported what they need."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["faults.engine_workers"])
    return lambda: ProcessPoolExecutor(2, mp_context=context)


def test_a_worker_is_killed_and_its_tasks_are_tried_again(loaded: Path, processes: Callable[[], Executor]) -> None:
    killed: list[int | None] = []

    def kill(report: autopilothq.LoadReport) -> None:
        if report.tasks_done in (1, 5) and len(killed) < report.tasks_done:
            worker = multiprocessing.active_children()[0]
            worker.kill()
            killed.extend([worker.pid] * report.tasks_done)

    source = autopilothq.archive(str(loaded / "archive"), executor=processes, progress=kill)
    into(loaded, "two").run(source)

    assert len(set(killed)) == 2
    same(loaded)


@dataclass(frozen=True)
class Failing:
    """A task that fails the first `times` times; it counts its runs in a file."""

    notes: str
    times: int
    name: str = "A task"

    def run(self) -> str:
        with open(self.notes, "a", encoding="utf-8") as notes:
            notes.write("x")
        if len(Path(self.notes).read_text()) <= self.times:
            raise OSError("no space")
        return "done"


@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_task_is_tried_three_times(tmp_path: Path, times: int) -> None:
    with Workers(Inline()) as workers:
        assert workers.run([Failing(str(tmp_path / "notes"), times)], lambda _: None) == ["done"]

    assert len((tmp_path / "notes").read_text()) == times + 1


def test_a_task_that_fails_three_times_ends_the_load(tmp_path: Path) -> None:
    with Workers(Inline()) as workers, pytest.raises(EngineError) as raised:
        workers.run([Failing(str(tmp_path / "notes"), 9)], lambda _: None)

    assert str(raised.value) == (
        "A task failed 3 times on the engine, the last time with OSError: no space\n"
        "Nothing of this load counts; the next one starts from scratch. The workers' logs may say more."
    )
    assert len((tmp_path / "notes").read_text()) == 3


class Broken(Inline):
    """An executor whose workers are dead."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":  # noqa: ARG002
        future: Future[Any] = Future()
        future.set_exception(BrokenProcessPool("a process died"))
        return future


def test_an_executor_that_breaks_cannot_be_made_again(tmp_path: Path) -> None:
    with Workers(Broken()) as workers, pytest.raises(EngineError, match="Give a function that makes one"):
        workers.run([Failing(str(tmp_path / "notes"), 0)], lambda _: None)

    made: list[Executor] = []

    def make() -> Executor:
        made.append(Broken() if not made else Inline())
        return made[-1]

    with Workers(make) as workers:
        assert workers.run([Failing(str(tmp_path / "notes"), 0)], lambda _: None) == ["done"]


def test_workers_have_the_coordinators_versions() -> None:
    package, of_duckdb = executors.versions()

    with pytest.raises(EngineError) as raised:
        run_task(("0.0.9", "1.0.0"), b"never read")

    assert str(raised.value) == (
        "Expected dlt-autopilothq 0.0.9 with DuckDB 1.0.0 on every worker, as on the coordinator, but a worker has"
        f" dlt-autopilothq {package} with DuckDB {of_duckdb}.\nInstall the same versions on all machines."
    )


@pytest.mark.parametrize(
    "name", ["processes", "processes:0", "processes:many", "processes:²", "dask:", "ray", "spark:local", ""]
)
def test_other_engines_are_refused(name: str) -> None:
    with pytest.raises(EngineError, match="Expected an engine like processes:8"):
        engine_of(name)


# ---- the coordinator -----------------------------------------------------------------------------------------------

KILLED = """
import os, sys
from pathlib import Path
import autopilothq
from test_engine import Inline, into
folder = Path(sys.argv[1])
def kill(report):
    if report.tasks_done == 2:
        os._exit(9)
source = autopilothq.archive(str(folder / "archive"), executor=Inline(), work_url=str(folder / "work"), progress=kill)
into(folder, "two").run(source)
"""


def test_the_coordinator_is_killed_and_the_next_load_starts_afresh(loaded: Path) -> None:
    done = forked.run("-c", KILLED, str(loaded))

    assert done.returncode == 9, done.stderr
    [left] = (loaded / "work/autopilothq-work").iterdir()
    assert files_in(left)
    # All versions use the same name, so that each deletes what another left behind.
    assert left.name == f"two-{sha256(target_of(into(loaded, 'two')).encode()).hexdigest()[:12]}"
    on_engine(loaded, Inline())
    same(loaded)
    assert not files_in(loaded / "work")


def test_a_work_folder_that_cannot_be_changed(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")

    with pytest.raises(EngineError) as raised, work_folder.work_folder(str(tmp_path / "a file"), "owner"):
        pass

    assert str(raised.value).endswith(
        "\nName a folder or a bucket as --work-url (work_url) that this machine and all workers may change."
    )


# ---- what messages cause -------------------------------------------------------------------------------------------


def test_messages_that_cannot_become_rows_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the task that makes the rows raises, as here, where DuckDB cannot read a value."""
    raising("as_bool", "boom", monkeypatch)
    messages = [track(n, properties={"transactional": "boom" if n == 7 else True}) for n in range(9)]
    assert "boom" in engine.MACROS

    one, two = both(tmp_path, file(tmp_path / "archive", "1.json", messages))

    same(tmp_path)
    assert two.rejects == one.rejects == {"unreadable": 1}


def test_deleted_persons_stay_away(loaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers get the suppression list, but not its key, which each finds in its own settings."""
    key = "a key that nobody can guess at all"
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__SUPPRESSION_KEY", key)
    shutil.copy(loaded / "one.duckdb", loaded / "two.duckdb")
    suppress(Id("user_id", "u3"), SuppressionKey(key.encode()), loaded / "one.duckdb", loaded / "two.duckdb")
    again = [track(n, userId=f"u{n % 5}", messageId=f"again-{n}") for n in range(20)]
    file(loaded / "archive", "again.json", [*again, b'{"broken": 1, "userId": "u3"'])

    seen = Seeing()
    one = load(into(loaded, "one"), loaded / "archive")
    two = on_engine(loaded, seen)

    same(loaded)
    assert two.rejects == one.rejects == {"suppressed": 5}
    assert seen.sent
    assert not any(key.encode() in task for task in seen.sent)


def suppress(person: Id, key: SuppressionKey, *databases: Path) -> None:
    """Puts a person on the suppression list of each DuckDB file."""
    salt = suppression_key.new_salt(key)
    for database in databases:
        with duckdb.connect(str(database)) as con:
            con.execute("CREATE TABLE autopilothq._suppressions (id VARCHAR, salt VARCHAR, suppressed_at TIMESTAMPTZ)")
            row = [hash_of(salt, person, key), salt]
            con.execute("INSERT INTO autopilothq._suppressions VALUES (?, ?, '2024-01-02 03:04:05Z')", row)


# ---- secrets and buckets -------------------------------------------------------------------------------------------


class Seeing(Inline):
    """An executor that records what it sends to workers."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        self.sent.append(args[0])
        return super().submit(fn, *args, **kwargs)


def test_files_and_cells_in_buckets_and_no_secret_in_a_task(
    tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.credentials.items():
        monkeypatch.setenv(f"SOURCES__AUTOPILOTHQ__CREDENTIALS__{name.upper()}", value)
    archive, bucket = archive_of(tmp_path / "archive"), s3.bucket()
    fs = fsspec.filesystem("s3", use_listings_cache=False, **s3.storage_options)
    fs.put(str(archive), f"{bucket}/archive", recursive=True)
    seen = Seeing()

    load(into(tmp_path, "one"), f"{bucket}/archive")
    load(into(tmp_path, "two"), f"{bucket}/archive", executor=seen, work_url=f"{bucket}/work")

    same(tmp_path)
    assert content(tmp_path / "two.duckdb")["tracks"].rows
    assert not any(s3.secret_key.encode() in task for task in seen.sent)
    assert fs.find(f"{bucket}/work") == []


def test_credentials_in_code_are_refused() -> None:
    with pytest.raises(NotSupported, match="no secret is sent to workers"):
        projector_of(Inline(), "work", {"aws_access_key_id": "a"})


def test_executors_elsewhere_need_a_work_url() -> None:
    with pytest.raises(NotSupported, match="Expected work_url"):
        projector_of(Inline(), None, None)
