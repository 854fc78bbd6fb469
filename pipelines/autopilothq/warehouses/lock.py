"""Locks that let only one run at a time write to a target. Each lies next to the data, and ends with its process.

| destination | lock | when the process dies |
|---|---|---|
| all | a file next to the pipeline's working folder, locked by the operating system | it is released |
| DuckDB | a file next to the database, locked by the operating system | it is released |
| warehouses | a lease: a row in `_locks` of the dataset, renewed while the run lasts | it expires (LEASE) |
| buckets | a lease: a file in the folder `_locks` of the dataset, renewed while the run lasts | it expires (LEASE) |

Neither a warehouse nor a bucket guarantees that a key is unique. So a run first writes its lease and then looks for
others: if there is another one, it drops its own and tries again. Two runs may both give up, but never both continue.

The exception is a run that cannot renew its lease, because its machine sleeps or has no network: it may continue
alongside a run that started after the lease expired. It warns, and `sources.completion` completes no load that lacks
rows.
"""

import os
import posixpath
import random
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import quote, unquote

import dlt
from filelock import FileLock, Timeout

from .. import private
from ..catalog import LOCK_TABLE, LOCKS
from ..display import gist, visible
from ..errors import BusyError, RunError
from ..utc import parse_time
from .books import BooksSqlClient
from .dataset import Connections, create_statement
from .dlt_internals import (
    MTIME_DISPATCH,
    DatabaseException,
    DatabaseUndefinedRelation,
    DuckDbCredentials,
    FilesystemClient,
    SqlJobClientBase,
    logger,
)

LEASE = 60.0  # seconds after which a lease that was not renewed expires
POLL = 1.0  # seconds between two attempts to get a lock


@contextmanager
def held(pipeline: dlt.Pipeline, wait: float, work: str = "") -> Iterator[None]:
    """Holds the locks of a pipeline and of the target that it loads into.

    Waits for them up to `wait` seconds, then raises BusyError. Each kind of `work` has locks of its own, so different
    kinds may run at the same time.
    """
    until = time.monotonic() + wait
    suffix = f".{work}.lock" if work else ".lock"
    locks = f"{LOCKS}_{work}" if work else LOCKS
    with ExitStack() as stack:
        working = Path(pipeline.working_dir).absolute()
        stack.enter_context(_file_lock(f"{working}{suffix}", until, f"of the pipeline {pipeline.pipeline_name}"))
        client = pipeline.destination_client()
        credentials = getattr(client.config, "credentials", None)
        if isinstance(credentials, DuckDbCredentials):
            # DuckDB itself reports a missing folder.
            if not credentials.database.startswith(":") and Path(credentials.database).parent.is_dir():
                database = Path(credentials.database)
                stack.enter_context(_file_lock(f"{database}{suffix}", until, f"into {database}", database))
        elif isinstance(client, SqlJobClientBase):
            for leases in TableLeases.of(pipeline, locks):
                stack.enter_context(_lease(leases, pipeline.dataset_name, until))
        elif isinstance(client, FilesystemClient):
            stack.enter_context(_lease(BucketLeases(client, locks), client.config.bucket_url, until))
        yield


@contextmanager
def _file_lock(path: str, until: float, which: str, guarded: Path | None = None) -> Iterator[None]:
    """Holds a lock file during the block. Raises BusyError, naming `which` run has it, if it is not free by `until`."""
    _check_creates(path)
    lock = FileLock(path, mode=private.FILE_MODE)
    try:
        lock.acquire(timeout=max(until - time.monotonic(), 0), poll_interval=POLL / 5)
    except Timeout:
        raise BusyError(_busy(which)) from None
    try:
        if guarded:
            private.share_lock(Path(path), guarded)
        yield
    finally:
        lock.release()


def _check_creates(path: str) -> None:
    """Raises RunError if creating a lock file fails with FileNotFoundError, for example because its folder is missing.

    FileLock would wait instead, as if another run were just removing the file. It reports all other errors itself.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, private.FILE_MODE))
    except FileNotFoundError as error:
        raise RunError(f"Cannot write to {Path(path).parent}: {error.strerror}.") from error
    except OSError:
        pass


def _busy(which: str) -> str:
    return f"Another run {which} is at work. Try again when it is done, or wait for it: --wait 10m"


class Leases(Protocol):
    """The leases on a target. All runs see a lease as soon as it is written."""

    def connected(self) -> AbstractContextManager[None]:
        """Runs this thread's statements in the block on one connection, if the destination has connections."""

    def begin(self, owner: str) -> None:
        """Writes a first lease. Raises RunError if it could not be dropped again."""

    def put(self, owner: str) -> bool:
        """Renews a lease, or writes it again; returns whether it was still there."""

    def ages(self, owner: str) -> dict[str, float]:
        """Returns the seconds since each lease was renewed, by its owner. `owner` must have a lease."""

    def drop(self, owner: str) -> None:
        """Drops a lease, if it exists."""


@contextmanager
def _lease(leases: Leases, where: str, until: float) -> Iterator[None]:
    """Holds a lease during the block, and renews it. Raises BusyError if another run still has one at `until`."""
    owner = f"{uuid.uuid4().hex} {process_name()}"
    while (other := acquire(leases, owner)) is not None:
        if time.monotonic() >= until:
            raise BusyError(_busy(f"into {where}, on {visible(other)},"))
        time.sleep(POLL * random.uniform(0.5, 1.5))  # noqa: S311 - so that two runs that gave up do not meet again
    done = threading.Event()
    renewing = threading.Thread(target=_renew, args=(leases, owner, done), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        done.set()
        renewing.join()
        try:
            leases.drop(owner)
        except Exception as error:  # noqa: BLE001 - the run is done; the lease expires by itself
            logger.warning(f"The lock could not be released: {type(error).__name__}")


def acquire(leases: Leases, owner: str) -> str | None:
    """Writes a lease, and drops it again if another run has one. Expired leases are dropped.

    Returns the name of the other run's process, or None if the lease was acquired.
    """
    with leases.connected():
        leases.begin(owner)
        ages = leases.ages(owner)
        for expired in [name for name, age in ages.items() if name != owner and age > LEASE]:
            leases.drop(expired)
        others = [name for name, age in ages.items() if name != owner and age <= LEASE]
        if not others:
            return None
        leases.drop(owner)
        return others[-1].partition(" ")[2]


def _renew(leases: Leases, owner: str, done: threading.Event) -> None:
    while not done.wait(LEASE / 4):
        try:
            if not leases.put(owner):
                logger.warning(
                    "The lock expired before it could be renewed: another run may have been at work at the same time."
                )
        except Exception as error:  # noqa: BLE001 - the next attempt may succeed
            logger.warning(f"The lock could not be renewed: {type(error).__name__}")


def process_name() -> str:
    """Returns the host and the id of this process, as other runs show them in messages."""
    return f"{socket.gethostname()}, process {os.getpid()}"


_PROBE = "SELECT owner, renewed_at FROM {table} WHERE 1 = 0"  # fails if the table is missing or has other columns

_OF_RIGHTS = re.compile("(?i)denied|privilege")  # in databases' errors about missing rights
_OF_SHAPE = re.compile(r"(?i)column|\bview\b")  # in their errors about a table with other columns, or a view


class TableLeases(Connections):
    """Leases as rows of a table `_locks` in a warehouse, timed by the warehouse's clock."""

    def __init__(self, pipeline: dlt.Pipeline, table: str = LOCKS, with_events: bool = False) -> None:
        super().__init__(pipeline.sql_client)
        self._pipeline = pipeline
        self._table = table
        self._with_events = with_events
        if with_events:
            return
        try:
            self._run(_PROBE)
        except DatabaseUndefinedRelation:
            self._make()

    @classmethod
    def of(cls, pipeline: dlt.Pipeline, table: str) -> Iterator["TableLeases"]:
        """Yields the leases to acquire. A run with `books_dataset` also needs those that runs without it use."""
        yield cls(pipeline, table)
        client = cast(SqlJobClientBase, pipeline.destination_client()).sql_client
        if isinstance(client, BooksSqlClient) and client.has_separate_books:
            yield cls(pipeline, table, with_events=True)

    def begin(self, owner: str) -> None:
        """Writes a first lease. Raises RunError if it could not be dropped again, or the table is somebody else's."""
        try:
            self.drop(owner)  # fails without the right to delete, before there is a lease that could not be dropped
        except DatabaseException as error:
            if "replica identity" not in str(error):
                raise
            with suppress(DatabaseException), self.open() as client, self._in_its_dataset(client):
                self._identify_rows(client)  # the table is from a version that did not
            self.drop(owner)
        self._insert(owner)

    def put(self, owner: str) -> bool:
        """Renews a lease, or writes it again; returns whether it was still there."""
        with self.connected():
            is_there = bool(self._run("SELECT owner FROM {table} WHERE owner = %s", owner))
            if is_there:
                self._run("UPDATE {table} SET renewed_at = CURRENT_TIMESTAMP WHERE owner = %s", owner)
            else:
                self._insert(owner)
            return is_there

    def ages(self, owner: str) -> dict[str, float]:  # noqa: ARG002
        """Returns the age of each lease in seconds, by its owner."""
        rows = self._run("SELECT owner, renewed_at, CURRENT_TIMESTAMP FROM {table}")  # SQLite returns times as text
        return {name: (parse_time(now) - parse_time(renewed_at)).total_seconds() for name, renewed_at, now in rows}

    def drop(self, owner: str) -> None:
        """Drops a lease."""
        self._run("DELETE FROM {table} WHERE owner = %s", owner)

    def _insert(self, owner: str) -> None:
        self._run("INSERT INTO {table} (owner, renewed_at) VALUES (%s, CURRENT_TIMESTAMP)", owner)

    def _make(self) -> None:
        """Creates the dataset and the table. Raises the first error, unless another run has created them by then."""
        failed = []
        for step in (self._make_datasets, self._make_table):
            try:
                step()
            except DatabaseException as error:
                failed.append(error)
        try:
            self._run(_PROBE)
        except DatabaseUndefinedRelation as error:
            raise next(iter(failed), error) from None

    def _explained(self, error: DatabaseException, right: str) -> Exception:
        """Returns the error to raise for a failed statement: one with advice if rights or columns are missing."""
        why = gist(str(error))
        if _OF_RIGHTS.search(why):
            return RunError(
                f"{why}\nEach run keeps its lease there: give the user of the credentials the right to {right}"
                f" (GRANT SELECT, INSERT, UPDATE, DELETE ON {self._table})."
            )
        if not _OF_SHAPE.search(why):
            return error
        columns = " and ".join(f"{column.name} ({column.type})" for column in LOCK_TABLE.columns)
        return RunError(
            f"Expected a table {self._table} with the columns {columns}, where runs keep their leases, but the"
            f" database reports: {why}.\n"
            "Somebody else made or changed that table: rename or drop it, and the next run creates its own."
        )

    def _make_datasets(self) -> None:
        with self._pipeline.sql_client() as client:
            if not client.has_dataset():
                client.create_dataset()
            if isinstance(client, BooksSqlClient):
                client.create_books_dataset()

    def _make_table(self) -> None:
        with self._pipeline.destination_client() as opened:
            client = cast(SqlJobClientBase, opened)
            client.sql_client.execute_sql(create_statement(client, LOCK_TABLE._replace(name=self._table)))
            if client.capabilities.sqlglot_dialect == "postgres":
                self._identify_rows(client.sql_client)

    def _identify_rows(self, client: Any) -> None:
        """Lets PostgreSQL change rows of the table although a publication has it."""
        client.execute_sql(f"ALTER TABLE {client.make_qualified_table_name(self._table)} REPLICA IDENTITY FULL")

    def _run(self, statement: str, *values: str) -> list[Any]:
        rows: list[Any] = []  # stays empty if an upgrade has dropped the table in the events' dataset
        with self.open() as client, self._in_its_dataset(client):
            table = client.make_qualified_table_name(self._table)
            try:
                rows += client.execute_sql(statement.format(table=table), *values) or ()
            except DatabaseUndefinedRelation:
                raise
            except DatabaseException as error:
                raise self._explained(error, statement.partition(" ")[0]) from error
        return rows

    @contextmanager
    def _in_its_dataset(self, client: Any) -> Iterator[None]:
        """Directs statements in the block to this table's dataset.

        In the events' dataset a missing table is not an error, because an upgrade may have dropped it.
        """
        if not self._with_events:
            yield
            return
        with client.with_books_in_events_dataset(), suppress(DatabaseUndefinedRelation):
            yield


class BucketLeases:
    """Leases as files in a folder `_locks` of a bucket, timed by the bucket's clock."""

    def __init__(self, client: FilesystemClient, folder: str = LOCKS) -> None:
        self._fs = client.fs_client
        self._is_local = client.is_local_filesystem
        self._folder = f"{client.dataset_path}/{folder}"
        self._changed = MTIME_DISPATCH.get(client.config.protocol, MTIME_DISPATCH["file"])

    def connected(self) -> AbstractContextManager[None]:
        """Does nothing: a bucket needs no connection."""
        return nullcontext()

    def begin(self, owner: str) -> None:
        """Writes a first lease. Raises RunError if the folder of a lake on this machine cannot be made."""
        try:
            self.put(owner)
        except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
            if not self._is_local:
                raise
            raise RunError(
                f"Expected a folder for the lake, but {error.filename} cannot be made: {error.strerror}.\n"
                "Name another one: --credentials FOLDER, or bucket_url in [destination.filesystem]."
            ) from error

    def put(self, owner: str) -> bool:
        """Writes or renews a lease; returns whether it was still there."""
        self._fs.makedirs(self._folder, exist_ok=True)
        self._fs.invalidate_cache()
        is_there = bool(self._fs.exists(self._path(owner)))
        self._fs.pipe_file(self._path(owner), b"")
        return is_there

    def ages(self, owner: str) -> dict[str, float]:
        """Returns the age of each lease in seconds, by owner. That of `owner`, just written, tells the time there."""
        files = self._fs.ls(self._folder, detail=True, refresh=True)
        changed = {unquote(posixpath.basename(file["name"])): cast(datetime, self._changed(file)) for file in files}
        now = changed[owner]
        return {name: (now - at).total_seconds() for name, at in changed.items()}

    def drop(self, owner: str) -> None:
        """Drops a lease."""
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._path(owner))

    def _path(self, owner: str) -> str:
        return f"{self._folder}/{quote(owner, safe='')}"
