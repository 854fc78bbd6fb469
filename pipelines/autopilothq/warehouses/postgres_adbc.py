"""Connections of the driver that copies Parquet into PostgreSQL; they share what it knows of the server's types."""

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import cast

from adbc_driver_manager import AdbcConnection, AdbcDatabase
from adbc_driver_manager.dbapi import Connection

from .dlt_internals import get_adbc_driver_location

# The driver counts the open connections of a database without a lock: if two threads open or close one at the same
# moment, a count is lost, and the last connection that closes fails.
_counting = threading.Lock()
_opening = threading.Lock()  # tables are copied in parallel, and each copy would read the server's types


class SharedConnection(Connection):
    """A connection that leaves its database object open for other connections when it closes.

    Args:
        url: The URL that PostgreSQL's library connects to.
    """

    last_statements: Sequence[str] = ()
    """Statements to run before the transaction is committed."""

    def __init__(self, url: str) -> None:
        with _opening:
            database = _database(url)
        with _counting:
            connection = AdbcConnection(database)
        try:
            super().__init__(cast("AdbcDatabase", _StaysOpen()), connection)
        except Exception:  # a transaction begins there, and the server may drop the connection right then
            self.close()
            raise

    def commit(self) -> None:
        """Runs `last_statements` and commits the transaction."""
        with self.cursor() as cursor:
            for statement in self.last_statements:
                cursor.execute(statement)
        super().commit()

    def close(self) -> None:
        """Closes the connection."""
        with _counting:
            super().close()


@lru_cache(maxsize=4)
def _database(url: str) -> AdbcDatabase:
    """Returns the driver's object for a server, which keeps the server's types.

    Reading the types takes ten times as long as connecting. The object holds no connection, so the server may restart
    in the meantime.
    """
    return AdbcDatabase(driver=get_adbc_driver_location(), uri=url)


class _StaysOpen:
    """Stands in for a database that connections share, and that stays open when one of them closes."""

    def close(self) -> None:
        """Closes nothing."""
