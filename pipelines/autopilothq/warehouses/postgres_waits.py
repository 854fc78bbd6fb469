"""Connections to PostgreSQL that give up waiting, and report what they wait for."""

import logging
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import psycopg2

from ..errors import BusyError
from .dlt_internals import PostgresCredentials
from .postgres import PostgresConfiguration, Waits
from .sql_files import sql_file

LOOK = 10.0  # seconds between two looks at what a connection waits for
AGAIN = 1.0  # seconds to wait for a lock after one wait has timed out
# A server that disappears silently is noticed after two minutes, not after the system's two hours.
KEEPALIVES = {"keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 6}
LOCK_NOT_AVAILABLE = "55P03"
# What a database or a role may have set for its sessions would change values: files are copied in UTF-8, floats become
# `numeric` by way of their text, and the driver for Arrow knows types by names without quotes.
ENCODING = "UTF8"
SESSION = "-c extra_float_digits=3 -c quote_all_identifiers=off"

_log = logging.getLogger(__name__)


def patient(config: PostgresConfiguration) -> PostgresCredentials:
    """Returns the credentials with the time-outs that their own options do not set, and so that no value changes."""
    credentials: PostgresCredentials = config.credentials.copy()
    query = KEEPALIVES | (credentials.query or {})
    options = [str(query.pop("options", ""))]
    lock_timeout = min(AGAIN, config.lock_timeout) if config.waits.gave_up else config.lock_timeout
    for name, seconds in (("lock_timeout", lock_timeout), ("statement_timeout", config.statement_timeout)):
        if seconds and name not in options[0]:
            options.append(f"-c {name}={max(round(seconds * 1000), 1)}")
    credentials.query = query | {"options": " ".join(filter(None, [*options, SESSION]))}
    credentials.client_encoding = ENCODING
    return credentials


def url_of(credentials: PostgresCredentials) -> str:
    """Returns the URL for PostgreSQL's library, which does not read a plus sign as a blank."""
    url, mark, query = credentials.to_native_representation().partition("?")
    return f"{url}{mark}{query.replace('+', '%20')}"


@contextmanager
def giving_up(config: PostgresConfiguration) -> Iterator[None]:
    """Raises BusyError if a lock was not granted in time."""
    try:
        yield
    except Exception as error:
        driver_error = getattr(error, "dbapi_exception", error)
        if LOCK_NOT_AVAILABLE not in (getattr(driver_error, "pgcode", None), getattr(driver_error, "sqlstate", None)):
            raise
        waits: Waits = config.waits
        waits.gave_up = True
        raise BusyError(
            f"Waited for {waits.last}, and gave up after {config.lock_timeout:g} s.\nRelease it there and run this"
            " again, or wait longer: lock_timeout (seconds) under [destination.postgres] of dlt's configuration"
        ) from error


def look_at(pid: int, config: PostgresConfiguration, closed: threading.Event) -> None:
    """Starts to report what the connection of this server process waits for, until it is `closed`."""
    threading.Thread(target=_look, args=(pid, config, closed), daemon=True).start()


def _look(pid: int, config: PostgresConfiguration, closed: threading.Event) -> None:
    waits: Waits = config.waits
    while not closed.wait(min(LOOK, config.lock_timeout / 2 or LOOK)):
        with suppress(psycopg2.Error):  # the connection itself will report that the server cannot be reached
            found = _blocking(pid, patient(config))
            if found:
                waits.last = found
            if found and found not in waits.reported:
                waits.reported.add(found)
                end = f"; giving up after {config.lock_timeout:g} s" if config.lock_timeout else ""
                _log.warning("Waiting for %s%s", found, end)


def _blocking(pid: int, credentials: PostgresCredentials) -> str | None:
    """Returns which lock a server process waits for and who has it, None if it waits for none."""
    with closing(psycopg2.connect(url_of(credentials))) as connection, connection.cursor() as cursor:
        cursor.execute(sql_file("blocking_postgres.sql"), {"pid": pid})
        found = cursor.fetchone()
    if found is None:
        return None
    table, holder, user, application, address, state = found
    about = [f"user {user}" if user else "", application, address and f"from {address}", state]
    who = f"process {holder} ({', '.join(filter(None, about))})" if holder else "a prepared transaction"
    return f"{f'the table {table}' if table else 'rows'} of PostgreSQL that {who} has locked"
