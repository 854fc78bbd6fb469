"""Two runs with the same target exclude each other, on one machine or two, and also after one of them died."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import dlt
import duckdb
import psycopg2
import pytest

import forked
from autopilothq import runner
from autopilothq.display import gist
from autopilothq.errors import BusyError, RunError
from autopilothq.warehouses import lock
from autopilothq.warehouses.dlt_internals import DatabaseException
from autopilothq.warehouses.duckdb import direct
from calling import GOOD, Call, errors
from faults import holder, lock_holder
from prepared import as_prepared, preparing
from servers import S3, ask
from shared_loads import command

BUSY = "is at work. Try again when it is done, or wait for it: --wait 10m"


@pytest.fixture(autouse=True)
def archive() -> None:
    Path("a.ndjson").write_text(GOOD)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Works in a folder with a load of an archive and files to adopt."""
    with preparing(tmp_path_factory.mktemp("loaded")) as home:
        Path("a.ndjson").write_text(GOOD)
        assert command("load", "archive", "a.ndjson").status == 0
        Path("tables").mkdir()
        Path("tables/email_opened.csv").write_text("id,received_at\nm1,2019-03-04 05:06:07.412Z\n")
    return home


@contextmanager
def program(*words: str) -> Iterator[forked.Process]:
    """Yields another process, as soon as it has printed a line."""
    with forked.start(*words, stdin=forked.PIPE, stdout=forked.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline()
        yield process
        process.kill()


def machine(folder: Path, destination: Any) -> dlt.Pipeline:
    """Returns the pipeline as on another machine, with its own working folder."""
    return dlt.pipeline(
        "autopilot_events", destination=destination, dataset_name="autopilothq", pipelines_dir=str(folder)
    )


def test_a_second_run_leaves_with_a_status_for_later_or_waits_when_told_to(call: Call) -> None:
    taken, leave, done = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with lock.held(runner.pipeline(), 0):
            taken.set()
            leave.wait()
            time.sleep(1)  # by then the second one waits
            done.set()

    thread = threading.Thread(target=first)
    thread.start()
    taken.wait()
    said = call("load", "archive", "a.ndjson")
    leave.set()
    assert (said.status, errors(said)) == (75, [f"Error: Another run of the pipeline autopilot_events {BUSY}"])
    assert call("load", "archive", "a.ndjson", "--wait", "30s").status == 0
    assert done.is_set()
    thread.join()
    assert call("load", "archive", "a.ndjson").status == 0


def test_a_run_from_elsewhere_into_one_duckdb_file(tmp_path: Path) -> None:
    place = str(Path("autopilot.duckdb").absolute())
    with lock.held(machine(tmp_path / "one", direct(place)), 0):
        with pytest.raises(BusyError) as busy, lock.held(machine(tmp_path / "two", direct(place)), 0):
            pass
        with lock.held(machine(tmp_path / "three", direct("another.duckdb")), 0):
            pass
    assert str(busy.value) == f"Another run into {place} {BUSY}"


def test_a_folder_where_no_file_can_be_created_is_no_other_run(tmp_path: Path) -> None:
    place = direct("/proc/self/task/autopilot.duckdb")
    with pytest.raises(RunError) as error, lock.held(machine(tmp_path, place), 0):
        pass
    assert str(error.value) == "Cannot write to /proc/self/task: No such file or directory."


@pytest.mark.parametrize(("place", "why"), [("/proc/nothing", "No such file"), ("file/lake", "Not a directory")])
def test_a_folder_of_a_lake_that_cannot_be_made_is_told(tmp_path: Path, place: str, why: str) -> None:
    (tmp_path / "file").touch()
    place = str(tmp_path / place)  # an absolute path stays as it is
    lake = machine(tmp_path, dlt.destinations.filesystem(place))
    with pytest.raises(RunError) as error, lock.held(lake, 0):
        pass
    first, second = str(error.value).split("\n")
    assert first.startswith(f"Expected a folder for the lake, but {place} cannot be made: {why}")
    assert second == "Name another one: --credentials FOLDER, or bucket_url in [destination.filesystem]."


def test_each_kind_of_work_has_locks_of_its_own(tmp_path: Path, postgres: str) -> None:
    place = str(Path("autopilot.duckdb").absolute())
    other = f", on {socket.gethostname()}, process {os.getpid()},"
    lake = Path("lake").absolute()
    with closing(psycopg2.connect(postgres)) as server, server, server.cursor() as cursor:
        # PostgreSQL changes rows of published tables only if it can tell them apart.
        cursor.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    for name, to, into in (
        ("a", direct(place), place),
        ("b", dlt.destinations.postgres(postgres), f"autopilothq{other}"),
        ("c", dlt.destinations.filesystem(lake.as_uri()), f"{lake.as_uri()}{other}"),
    ):
        one, two = (machine(tmp_path / f"{name}{number}", to) for number in (1, 2))
        with lock.held(one, 0), lock.held(one, 0, "send"):
            for work, run, what in (
                *(("", one, "of the pipeline autopilot_events"), ("send", one, "of the pipeline autopilot_events")),
                *(("", two, f"into {into}"), ("send", two, f"into {into}")),
            ):
                with pytest.raises(BusyError) as busy, lock.held(run, 0, work):
                    pass
                assert str(busy.value) == f"Another run {what} {BUSY}"
        files = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / f"{name}2").glob("*.lock")}
        assert files == {"autopilot_events.lock": 0o600, "autopilot_events.send.lock": 0o600}
    assert sorted(map(str, Path().glob("*.lock"))) == ["autopilot.duckdb.lock", "autopilot.duckdb.send.lock"]
    assert sorted(path.name for path in (lake / "autopilothq").iterdir()) == ["_locks", "_locks_send"]
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'autopilothq' ORDER BY 1"
    assert ask(postgres, tables) == [("_locks",), ("_locks_send",)]


def test_a_database_without_a_place_for_a_lock_has_none(tmp_path: Path) -> None:
    with closing(duckdb.connect()) as con:
        for name, to in (("a", dlt.destinations.duckdb(con)), ("b", direct("nowhere/autopilot.duckdb"))):
            with lock.held(machine(tmp_path / name, to), 0):
                assert list(map(str, Path().iterdir())) == ["a.ndjson"]


def test_what_a_dead_process_held_is_free(tmp_path: Path, call: Call) -> None:
    place = str(Path("autopilot.duckdb").absolute())
    with program(lock_holder.__file__, place, str(tmp_path / "dlt" / "pipelines")) as process:
        assert call("load", "archive", "a.ndjson").status == 75
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert call("load", "archive", "a.ndjson").status == 0


def test_two_machines_and_one_warehouse(tmp_path: Path, postgres: str) -> None:
    def claim(name: str) -> Any:
        return lock.held(machine(tmp_path / name, dlt.destinations.postgres(postgres)), 0)

    with claim("one"), pytest.raises(BusyError) as busy, claim("two"):
        pass
    assert str(busy.value) == f"Another run into autopilothq, on {lock.process_name()}, {BUSY}"
    with mock.patch("psycopg2.connect", wraps=psycopg2.connect) as connect, claim("two"):
        assert connect.call_count == 2  # once to look for the table, once to claim the lock
    assert connect.call_count == 3  # once more to release it
    leases = lock.TableLeases(machine(tmp_path / "one", dlt.destinations.postgres(postgres)))
    assert [leases.put("mine here") for _ in range(2)] == [False, True]
    leases.drop("mine here")
    # An error that is neither about privileges nor about the table is reported as it is.
    standby = dlt.destinations.postgres(f"{postgres}?options=-cdefault_transaction_read_only%3Don")
    with pytest.raises(DatabaseException) as refused, lock.held(machine(tmp_path / "three", standby), 0):
        pass
    assert gist(str(refused.value)) == "cannot execute DELETE in a read-only transaction"


def test_what_a_dead_machine_held_is_free_after_the_lease(
    tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = machine(tmp_path / "one", dlt.destinations.postgres(postgres))
    with program(lock_holder.__file__, postgres, str(tmp_path / "two")) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with pytest.raises(BusyError), lock.held(mine, 0):
            pass
        monkeypatch.setattr(lock, "LEASE", 1.5)
        with lock.held(mine, 10):
            pass


def test_a_lease_lasts_as_long_as_the_run(tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that the test makes older than any lease is renewed again and again, and keeps others away."""
    monkeypatch.setattr(lock, "LEASE", 8.0)
    one, two = (machine(tmp_path / name, dlt.destinations.postgres(postgres)) for name in ("one", "two"))
    with lock.held(one, 0), closing(psycopg2.connect(postgres)) as server, server.cursor() as cursor:
        server.autocommit = True
        for _ in range(2):
            cursor.execute("UPDATE autopilothq._locks SET renewed_at = renewed_at - INTERVAL '1 hour'")
            until = time.monotonic() + 60
            age = 3600.0
            while age > 60 and time.monotonic() < until:
                time.sleep(0.05)
                cursor.execute("SELECT extract(epoch FROM now() - renewed_at) FROM autopilothq._locks")
                [(age,)] = cursor.fetchall()
            assert age < 60
            with pytest.raises(BusyError), lock.held(two, 0):
                pass


def test_never_two_at_once(tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several machines claim a warehouse at the same moment, before its dataset and table exist."""
    monkeypatch.setattr(lock, "POLL", 0.1)
    inside: list[str] = []
    most: list[int] = []

    def one(name: str) -> None:
        barrier.wait()
        claims = lock.TableLeases(pipelines[name])
        while lock.acquire(claims, f"{name} {name}"):
            time.sleep(0.02 * (1 + hash(name) % 7))
        inside.append(name)
        most.append(len(inside))
        time.sleep(0.05)
        inside.remove(name)
        claims.drop(f"{name} {name}")

    names = [f"machine {number}" for number in range(4)]
    pipelines = {name: machine(tmp_path / name, dlt.destinations.postgres(postgres)) for name in names}
    barrier = threading.Barrier(len(names))
    threads = [threading.Thread(target=one, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


@pytest.mark.parametrize("cloud", [False, True])
def test_two_machines_and_one_bucket(tmp_path: Path, s3: S3, cloud: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if cloud:
        place = s3.bucket()
        for name, value in s3.credentials.items():
            monkeypatch.setenv(f"DESTINATION__FILESYSTEM__CREDENTIALS__{name.upper()}", value)
    else:
        place = (tmp_path / "lake").as_uri()

    def claim(name: str) -> Any:
        return lock.held(machine(tmp_path / name, dlt.destinations.filesystem(place)), 0)

    with claim("one"), pytest.raises(BusyError) as busy, claim("two"):
        pass
    assert str(busy.value) == f"Another run into {place}, on {lock.process_name()}, {BUSY}"
    with claim("two"):
        pass
    client: Any = machine(tmp_path / "one", dlt.destinations.filesystem(place)).destination_client()
    leases, other = (lock.BucketLeases(client) for _ in range(2))
    assert [leases.put("mine here") for _ in range(2)] == [False, True]
    other.drop("mine here")
    assert not leases.put("mine here")


def test_a_file_that_an_analyst_has_open(call: Call) -> None:
    duckdb.connect("autopilot.duckdb").close()
    with program(holder.__file__, "autopilot.duckdb", "read") as process:
        said = call("load", "archive", "a.ndjson")
        who = f"{Path(sys.executable).resolve()} (PID {process.pid})"
        assert said.status == 75
        assert errors(said) == [
            f"Error: The DuckDB file {Path('autopilot.duckdb').absolute()} is open in another program: {who}.",
            "Close it there and run this again, or wait for that: --wait 10m",
        ]
        closing = threading.Timer(1, process.communicate)
        closing.start()
        assert call("load", "archive", "a.ndjson", "--wait", "30s").status == 0
        closing.join()


@pytest.mark.parametrize(
    "words",
    [
        "load archive a.ndjson --dry-run",
        "adopt tables",
        "adopt tables --dry-run",
        "adopt tables --verify",
        "schema upgrade",
        "schema upgrade --dry-run",
        "models apply --dry-run",
        "models drop",
        "forget --email ann@example.com --dry-run",
        "deliveries",
        "receive . --compact",
        "status",
        "report --json",
        "export folder",
        "schema --live",
        "schema diff",
        "schema diff --against autopilothq",
        "models show person_email --live",
    ],
)
def test_wait_makes_a_command_wait_for_a_file_in_use(words: str, loaded: Path, call: Call) -> None:
    with as_prepared(loaded), program(holder.__file__, "autopilot.duckdb") as process:
        closing = threading.Timer(0.5, process.communicate)
        closing.start()
        said = call(*words.split(), "--wait", "30s")
        closing.join()
    assert said.status == 0, said.err


@pytest.mark.parametrize("words", ["10", "m", "-1s", "ten minutes"])
def test_a_time_without_a_unit(words: str, call: Call) -> None:
    said = call("load", "archive", "a.ndjson", "--wait", words)
    assert said.status == 2
    assert f"Expected a number with s, m, h or d, such as 2h, but got {words!r}." in said.err


def test_a_time_longer_than_a_thread_can_wait(call: Call) -> None:
    said = call("receive", "files", "--load-every", "36501d")
    assert (said.status, errors(said)[-1]) == (
        2,
        "Error: Invalid value for '--load-every': Expected at most 36500d, but got '36501d'.",
    )


class Ledger:
    """Leases in memory: the seconds since each was renewed, by owner."""

    def __init__(self, **ages: float) -> None:
        self.leases = {f"{name} host-{name}, process 7": age for name, age in ages.items()}
        self.renewed: list[str] = []

    def connected(self) -> AbstractContextManager[None]:
        return nullcontext()

    def begin(self, owner: str) -> None:
        self.leases[owner] = 0.0

    def put(self, owner: str) -> bool:
        self.renewed.append(owner)
        if len(self.renewed) == 1:
            raise ConnectionError("lost")
        return len(self.renewed) == 2

    def ages(self, owner: str) -> dict[str, float]:
        assert owner in self.leases
        return dict(reversed(self.leases.items()))

    def drop(self, owner: str) -> None:
        del self.leases[owner]


def test_leases_that_ended_are_dropped_and_a_run_that_gives_up_drops_its_own() -> None:
    ledger = Ledger(a=lock.LEASE, b=lock.LEASE + 0.1, c=3600)
    assert lock.acquire(ledger, "mine here") == "host-a, process 7"
    assert ledger.leases == {"a host-a, process 7": lock.LEASE}
    assert lock.acquire(Ledger(b=lock.LEASE + 0.1), "mine here") is None
    ledger = Ledger()
    assert lock.acquire(ledger, "mine here") is None
    assert ledger.leases == {"mine here": 0.0}


def test_a_process_that_waits_for_a_lease_tries_about_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, slept = Ledger(a=1), list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            ledger.drop("a host-a, process 7")

    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises(BusyError) as busy, lock._lease(ledger, "a warehouse", time.monotonic()):
        pass
    assert str(busy.value) == f"Another run into a warehouse, on host-a, process 7, {BUSY}"
    with lock._lease(ledger, "a warehouse", time.monotonic() + 60):
        [owner] = ledger.leases
        assert owner.partition(" ")[2] == lock.process_name()
    assert (ledger.leases, len(slept)) == ({}, 3)
    assert all(0.5 <= seconds <= 1.5 for seconds in slept)


def test_a_lease_is_renewed_long_before_it_ends_and_after_an_error(caplog: pytest.LogCaptureFixture) -> None:
    waited: list[float] = []

    class Done(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            waited.append(timeout)
            return len(waited) == 4

    ledger = Ledger()
    lock._renew(ledger, "mine here", Done())
    assert (waited, ledger.renewed) == ([15.0] * 4, ["mine here"] * 3)
    lost = "The lock expired before it could be renewed: another run may have been at work at the same time."
    assert caplog.messages == ["The lock could not be renewed: ConnectionError", lost]


def test_a_lease_that_is_being_renewed_as_the_run_ends_is_dropped_after_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEASE", 0.01)
    renewing = threading.Event()

    class Slow(Ledger):
        def put(self, owner: str) -> bool:
            renewing.set()
            time.sleep(0.1)
            self.leases[owner] = 0.0
            return True

    ledger = Slow()
    with lock._lease(ledger, "a warehouse", 0):
        renewing.wait()
    assert ledger.leases == {}
    time.sleep(0.15)
    assert ledger.leases == {}


def test_a_lease_that_cannot_be_dropped_fails_no_run(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger()
    with lock._lease(ledger, "a warehouse", 0):
        ledger.leases.clear()
    assert caplog.messages == ["The lock could not be released: KeyError"]


NOT_OWN = "Somebody else made or changed that table: rename or drop it, and the next run creates its own."
LEASE = (
    "Expected a table _locks with the columns owner (text) and renewed_at (timestamp), where runs keep their leases,"
    " but the database reports:"
)


def test_a_table_of_locks_that_is_somebody_elses(tmp_path: Path, postgres: str) -> None:
    mine = machine(tmp_path, dlt.destinations.postgres(postgres))

    def refused(statement: str) -> list[str]:
        with closing(psycopg2.connect(postgres)) as server, server, server.cursor() as cursor:
            cursor.execute(f"DROP SCHEMA IF EXISTS autopilothq CASCADE; CREATE SCHEMA autopilothq; {statement}")
        with pytest.raises(RunError) as error, lock.held(mine, 0):
            pass
        return str(error.value).splitlines()

    table = "CREATE TABLE autopilothq._locks"
    assert refused(f"{table} (id int)") == [f'{LEASE} column "owner" does not exist.', NOT_OWN]
    assert refused(f"{table} (owner text)") == [f'{LEASE} column "renewed_at" does not exist.', NOT_OWN]
    view = "CREATE VIEW autopilothq._locks AS SELECT 'a' AS owner, now() AS renewed_at"
    assert refused(f"{view} LIMIT 1") == [f'{LEASE} cannot delete from view "_locks".', NOT_OWN]
    assert refused(f"CREATE MATERIALIZED {view[7:]}") == [
        f'{LEASE} cannot change materialized view "_locks".',
        NOT_OWN,
    ]
    why = 'column "renewed_at" is of type bigint but expression is of type timestamp with time zone'
    assert refused(f"{table} (owner text, renewed_at bigint)") == [f"{LEASE} {why}.", NOT_OWN]
