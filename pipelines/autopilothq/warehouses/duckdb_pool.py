"""Connections to DuckDB files, which other programs may have open, and which are written completely as they close."""

import re
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import Any

import duckdb
from dlt.destinations.impl.duckdb.configuration import DuckDbBaseCredentials
from duckdb import DuckDBPyConnection, InternalException, IOException, SerializationException
from tenacity import Retrying, retry_if_exception_message, stop_after_delay, wait_fixed

from .. import private
from ..display import gist
from ..errors import RunError
from ..projection import engine
from .dlt_internals import DuckDbConnectionPool

# Why a file cannot be opened that is not damaged.
_OTHER_CAUSE = re.compile("Could not set lock|Cannot open file|Too many open files|No space left")
_OTHER_VERSION = re.compile("version number|storage version")  # of DuckDB, which has written the file
# How many merges of small groups of rows DuckDB makes when it writes what was committed to the file. One takes memory
# for 2,048 rows, however large they are, and if there is none, the database is lost to the program. So none is made
# until the file is closed.
MERGED_GROUPS = "max_vacuum_tasks"
_USUAL = 100
_MUCH = 128 << 20  # bytes
# By file: while one pool writes the rest, with settings of its own, DuckDB opens the file for no other in this process.
_turns = defaultdict[str, RLock](RLock)
_LONGEST = 1 << 20  # bytes of a row, as much as a line can have
# DuckDB cannot be asked about a table with a quotation mark in its name.
_TABLES = """
    SELECT schema_name, table_name FROM duckdb_tables() WHERE estimated_size > ? AND NOT internal
    AND database_name = current_database() AND NOT contains(schema_name || table_name, '"')"""
# The bytes of those groups of a table's rows of which 2,048 have more than so many bytes in a column.
_LONG_BYTES = """
    SELECT coalesce(sum(bytes), 0) FROM (
        SELECT 262144 * sum(1 + len(additional_block_ids)) AS bytes, max(start + count) AS rows
        FROM pragma_storage_info({table}) WHERE segment_type = 'VARCHAR' GROUP BY row_group_id, column_id)
    WHERE bytes / rows * 2048 > {most}"""


class WaitingPool(DuckDbConnectionPool):
    """Connections to a database that other programs may have open for a while."""

    def __init__(self, credentials: DuckDbBaseCredentials, wait: float) -> None:
        super().__init__(credentials)
        self._file = _file(credentials)
        self._path = _path(credentials)
        self._turn = _turns[self._path] if self._file else RLock()
        self._borrowed = 0
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
        """Returns a connection as soon as the database is free. Raises RunError if the file is no database."""
        if self._file:
            private.database(self._file)
        settings = {**(global_config or {}), **({MERGED_GROUPS: 0} if self._file else {})}
        try:
            with self._turn:
                if self._file and not self._borrowed:
                    _write_rest(self._file, _MUCH)
                before = self._borrowed
                self._borrowed += 1  # dlt may return the connection again at once
                try:
                    return self._patient(super().borrow_conn, settings, local_config, pragmas)
                except BaseException:
                    self._borrowed = before
                    raise
        except (IOException, SerializationException, InternalException) as error:
            if not Path(self._path).exists() or _OTHER_CAUSE.search(str(error)):
                raise
            raise _unreadable(self._path, str(error)) from error

    def return_conn(self, borrowed_conn: DuckDBPyConnection) -> int:
        """Closes a connection, and with the last one the file; returns how many are left."""
        with self._turn:
            closed = self._file if self._borrowed == 1 else None
            if closed:
                with suppress(duckdb.Error, OSError):  # the database is lost to the program, or its file was deleted
                    self._let_merge(borrowed_conn, closed)
            self._borrowed = super().return_conn(borrowed_conn)
            if closed:
                _write_rest(closed)
            return self._borrowed

    def _let_merge(self, con: DuckDBPyConnection, file: Path) -> None:
        [(now,)] = con.execute(f"SELECT current_setting('{MERGED_GROUPS}')").fetchall()
        # Another number is the user's, by dlt's `statements` or `pragmas`.
        if now == 0 and not _has_long_rows(con, file):
            usual = (self.credentials.global_config or {}).get(MERGED_GROUPS, _USUAL)
            con.execute(f"SET GLOBAL {MERGED_GROUPS} = {usual}")


def _has_long_rows(con: DuckDBPyConnection, file: Path) -> bool:
    """Returns whether there are so many long texts in a file that there may be no memory to merge their rows."""
    waiting = _waiting(file)
    if not waiting or file.stat().st_size + waiting < (most := engine.memory_limit(con.execute) // 2):
        return False
    found = con.execute(_TABLES, [most // _LONGEST]).fetchall()
    for name in found:
        table = engine.literal(".".join(map(engine.name, name)))
        [(size,)] = con.execute(_LONG_BYTES.format(table=table, most=most)).fetchall()
        if size and size + waiting > most:
            return True
    return False


def _waiting(file: Path) -> int:
    """Returns the size of a database's log, which has what was committed and is not in its file yet."""
    try:
        return Path(f"{file}.wal").stat().st_size
    except FileNotFoundError:
        return 0


def _write_rest(file: Path, more_than: int = 0) -> None:
    """Writes to a database's file what waits in its log, if that has more than so many bytes.

    DuckDB does so as it closes the file, but merges groups of rows then. If it has no memory for that, it says nothing
    and leaves all in the log, which everybody who opens the file reads into memory.
    """
    if _waiting(file) <= more_than:
        return
    with (
        suppress(duckdb.Error),  # raised if another program has it open, or other settings
        duckdb.connect(file, config={MERGED_GROUPS: 0, "threads": 1}) as con,
    ):
        con.execute("CHECKPOINT")


def _unreadable(path: str, why: str) -> RunError:
    advice = (
        "put the file back from a backup. Without a backup, move it away: the next load makes a new one from all files,"
        " but who was deleted is not known there."
    )
    if _OTHER_VERSION.search(why):
        advice = "install the DuckDB that wrote it: pip install -U duckdb"
    return RunError(
        f"Expected a DuckDB file at {path}, but DuckDB cannot read what is there: {gist(why)}\n"
        f"Name another by --credentials, or {advice}"
    )


def _file(credentials: DuckDbBaseCredentials) -> Path | None:
    """Returns the path of a database that is written to; None if it is no local file."""
    path = _path(credentials)
    return None if path.startswith(":") or credentials.read_only else Path(path)


def _path(credentials: DuckDbBaseCredentials) -> str:
    return str(getattr(credentials, "database", None) or ":")
