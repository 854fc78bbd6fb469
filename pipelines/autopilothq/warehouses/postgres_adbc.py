"""Connections of the driver that copies Parquet into PostgreSQL, which share what it knows of the server."""

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import cast

from adbc_driver_manager import AdbcConnection, AdbcDatabase
from adbc_driver_manager.dbapi import Connection

from .dlt_internals import get_adbc_driver_location

# The driver counts the open connections of a database without a lock: two threads that open or close one at the same
# moment lose a count, and the last connection that closes then fails.
_counting = threading.Lock()


class SharedConnection(Connection):
    """A connection whose database stays open when it closes, for others to use.

    Args:
        url: What PostgreSQL's library connects to, as a URL.
    """

    last_statements: Sequence[str] = ()
    """What is run before the transaction is committed."""

    def __init__(self, url: str) -> None:
        database = _database(url)
        with _counting:
            connection = AdbcConnection(database)
        try:
            super().__init__(cast("AdbcDatabase", _StaysOpen()), connection)
        except Exception:  # it begins a transaction: the server may break the connection off at once
            self.close()
            raise

    def commit(self) -> None:
        """Ends the transaction, with the statements that are left for its end."""
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
    """Returns the driver's knowledge of a server: its types, which take ten times as long to ask for as a connection.

    It holds no connection itself, so that a server may restart meanwhile.
    """
    return AdbcDatabase(driver=get_adbc_driver_location(), uri=url)


class _StaysOpen:
    """Stands for a database that its connections share, and that does not end with one of them."""

    def close(self) -> None:
        """Closes nothing."""
