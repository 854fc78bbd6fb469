"""Connections to DuckDB files, which wait while another program has the file open.

Closing the last connection writes everything that was committed, and is still in DuckDB's log, to the file.
"""

import re
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import Any

import duckdb
from duckdb import CatalogException, DuckDBPyConnection, InternalException, IOException, SerializationException
from tenacity import Retrying, retry_if_exception_message, stop_after_delay, wait_fixed

from .. import private
from ..display import gist
from ..errors import RunError
from ..projection import engine
from .dlt_internals import DuckDbBaseCredentials
from .dlt_internals.clients import ReadingPool, borrowed_connections

# Errors about files that cannot be opened although they are not damaged, such as those about a missing extension. The
# one about SQLite's extension is not among them: it means that the file belongs to SQLite.
_OTHER_CAUSE = re.compile(
    "Could not set lock|Cannot open file|Too many open files|No space left|(?<!sqlite_scanner).duckdb_extension"
)
_OTHER_VERSION = re.compile("version number|storage version")  # errors about files of another version of DuckDB
# DuckDB opens a data file (by its suffix: .csv, .json, .parquet, ...) as views in an empty in-memory database. Whatever
# is written there is lost with the connection. That database has no path, and cannot be opened read-only.
_WHERE = "SELECT path FROM duckdb_databases() WHERE database_name = current_database()"
_IN_MEMORY = "Cannot launch in-memory database in read-only mode"
# DuckDB's setting for how many merges of small row groups a checkpoint makes. A merge takes memory for 2,048 rows,
# however large they are; if it runs out, the program can no longer use the database. So no merge is made until the file
# is closed.
MERGED_GROUPS = "max_vacuum_tasks"
_USUAL_MERGES = 100
_LARGE_LOG = 128 << 20  # bytes
# Locks by file: while one pool writes a checkpoint, with other settings, DuckDB does not open the file for any other
# pool in this process.
_locks = defaultdict[str, RLock](RLock)
_LONGEST_ROW = 1 << 20  # bytes, the most that a line can have
# `pragma_storage_info` fails for a table with a quotation mark in its name.
_TABLES = """
    SELECT schema_name, table_name FROM duckdb_tables() WHERE estimated_size > ? AND NOT internal
    AND database_name = current_database() AND NOT contains(schema_name || table_name, '"')"""
# The bytes of a table's row groups in which 2,048 rows have more than `most` bytes in a column.
_LONG_BYTES = """
    SELECT coalesce(sum(bytes), 0) FROM (
        SELECT 262144 * sum(1 + len(additional_block_ids)) AS bytes, max(start + count) AS rows
        FROM pragma_storage_info({table}) WHERE segment_type = 'VARCHAR' GROUP BY row_group_id, column_id)
    WHERE bytes / rows * 2048 > {most}"""


class WaitingPool(ReadingPool):
    """Connections to a database; each waits, up to `wait` seconds, while another program has it open."""

    def __init__(self, credentials: DuckDbBaseCredentials, wait: float) -> None:
        super().__init__(credentials)
        self._file = _file(credentials)
        self._path = _path(credentials)
        self._lock = _locks[self._path] if self._file else RLock()
        self._patient = Retrying(
            stop=stop_after_delay(wait),
            wait=wait_fixed(0.5),
            retry=retry_if_exception_message(match="IO Error: Could not set lock"),
            reraise=True,
        )

    def borrow_conn(
        self,
        global_config: dict[str, Any] | None = None,
        local_config: dict[str, Any] | None = None,
        pragmas: list[str] | None = None,
    ) -> DuckDBPyConnection:
        """Returns a connection as soon as the database is free. Raises RunError if the file is not a database."""
        if self._file:
            private.database(self._file)
        settings = {**(global_config or {}), **({MERGED_GROUPS: 0} if self._file else {})}
        try:
            with self._lock:
                file_to_open = None if borrowed_connections(self) else self._file
                if file_to_open:
                    _checkpoint(file_to_open, _LARGE_LOG)
                con = self._patient(super().borrow_conn, settings, local_config, pragmas)
                if file_to_open:
                    self._check_file(con)
                return con
        except CatalogException as error:
            if _IN_MEMORY not in str(error):
                raise
            raise _data_file(self._path) from error
        except (IOException, SerializationException, InternalException) as error:
            if not Path(self._path).exists() or _OTHER_CAUSE.search(str(error)):
                raise
            raise _unreadable(self._path, str(error)) from error

    def _check_file(self, con: DuckDBPyConnection) -> None:
        """Raises RunError, and returns the connection to the pool, if the database is in memory and not in the file."""
        try:
            if con.execute(_WHERE).fetchall() == [(None,)]:
                raise _data_file(self._path)
        except Exception:
            super().return_conn(con)
            raise

    def return_conn(self, borrowed_conn: DuckDBPyConnection) -> int:
        """Closes a connection, and the file with the last one; returns how many connections are left."""
        with self._lock:
            file_to_close = self._file if borrowed_connections(self) == 1 else None
            if file_to_close:
                with suppress(duckdb.Error, OSError):  # the database failed before, or its file was deleted
                    self._allow_merges(borrowed_conn, file_to_close)
            left = super().return_conn(borrowed_conn)
            if file_to_close:
                _checkpoint(file_to_close)
            return left

    def _allow_merges(self, con: DuckDBPyConnection, file: Path) -> None:
        """Lets DuckDB merge row groups when it closes the file, unless texts are long or the user has set this."""
        [(now,)] = con.execute(f"SELECT current_setting('{MERGED_GROUPS}')").fetchall()
        # Any other number was set by the user, in dlt's `statements` or `pragmas`.
        if now == 0 and not _has_long_rows(con, file):
            usual = (self.credentials.global_config or {}).get(MERGED_GROUPS, _USUAL_MERGES)
            con.execute(f"SET GLOBAL {MERGED_GROUPS} = {usual}")


def _has_long_rows(con: DuckDBPyConnection, file: Path) -> bool:
    """Returns whether a file has so many long texts that merging their row groups might run out of memory."""
    waiting = _log_size(file)
    if not waiting or file.stat().st_size + waiting < (most := engine.memory_limit(con.execute) // 2):
        return False
    found = con.execute(_TABLES, [most // _LONGEST_ROW]).fetchall()
    for name in found:
        table = engine.literal(".".join(map(engine.name, name)))
        [(size,)] = con.execute(_LONG_BYTES.format(table=table, most=most)).fetchall()
        if size and size + waiting > most:
            return True
    return False


def _log_size(file: Path) -> int:
    """Returns the size in bytes of a database's log: what was committed and is not in its file yet."""
    try:
        return Path(f"{file}.wal").stat().st_size
    except FileNotFoundError:
        return 0


def _checkpoint(file: Path, more_than: int = 0) -> None:
    """Writes a database's log to its file, if the log has more than `more_than` bytes.

    DuckDB does that when it closes the file, but then also merges row groups. If it runs out of memory for that, it
    reports no error and leaves everything in the log, which is read into memory whenever somebody opens the file.
    """
    if _log_size(file) <= more_than:
        return
    with (
        suppress(duckdb.Error),  # raised if the file is open in another program, or here with other settings
        duckdb.connect(file, config={MERGED_GROUPS: 0, "threads": 1}) as con,
    ):
        con.execute("CHECKPOINT")


def _data_file(path: str) -> RunError:
    return RunError(
        f"Expected a DuckDB file at {path}, but DuckDB takes it for a file of data, because of its name.\n"
        "Name another file, such as --credentials autopilot.duckdb. Nothing was written to this one."
    )


def _unreadable(path: str, why: str) -> RunError:
    advice = (
        "put the file back from a backup. Without a backup, move it away: the next load makes a new one from all files,"
        " but without the suppression list, so deleted persons may come back."
    )
    if _OTHER_VERSION.search(why):
        advice = "install the DuckDB that wrote it: pip install -U duckdb"
    return RunError(
        f"Expected a DuckDB file at {path}, but DuckDB cannot read what is there: {gist(why)}\n"
        f"Name another file (--credentials), or {advice}"
    )


def _file(credentials: DuckDbBaseCredentials) -> Path | None:
    """Returns the path of a local file that is opened for writing; None for any other database."""
    path = _path(credentials)
    return None if path.startswith(":") or credentials.read_only else Path(path)


def _path(credentials: DuckDbBaseCredentials) -> str:
    return str(getattr(credentials, "database", None) or ":")
