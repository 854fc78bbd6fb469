"""Connections to PostgreSQL that give up waiting, and report what they wait for."""

import logging
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import psycopg2

from ..errors import BusyError, RunError
from .dlt_internals import PostgresCredentials
from .postgres import PostgresConfiguration, Waits
from .settings import TIMEOUT_RANGE, check_range
from .sql_files import sql_file

LOG_INTERVAL = 10.0  # seconds between two checks of what a connection waits for
SECOND_TIMEOUT = 1.0  # seconds to wait for a lock once a wait has timed out
# A server that disappears without closing the connection is noticed after two minutes instead of two hours.
KEEPALIVES = {"keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 6}
TIMEOUTS = TIMEOUT_RANGE._replace(least=0)  # 0 leaves them to the server
LOCK_NOT_AVAILABLE = "55P03"
# Settings of a database or a role could change values: files are copied in UTF-8, floats become `numeric` by way of
# their text, the driver for Arrow knows types by their unquoted names, and the other driver reads no time beyond the
# years 1 to 9999 in the session's zone, such as the last hours of 9999 in Tokyo. So sessions set these themselves.
ENCODING = "UTF8"
FLOAT_DIGITS = 3
SESSION = f"-c extra_float_digits={FLOAT_DIGITS} -c quote_all_identifiers=off -c TimeZone=UTC"
ARRIVED = "SELECT current_setting('extra_float_digits')::int, current_setting('quote_all_identifiers')::bool"

_log = logging.getLogger(__name__)
_warned: set[tuple[str, int, str]] = set()  # the databases (host, port, name) for which a pooler was reported


def with_timeouts(config: PostgresConfiguration) -> PostgresCredentials:
    """Returns a copy of the credentials, with SESSION, ENCODING and the time-outs that their own options do not set.

    Raises InvalidSetting if a time-out is out of range.
    """
    credentials: PostgresCredentials = config.credentials.copy()
    query = KEEPALIVES | (credentials.query or {})
    own = str(query.pop("options", ""))
    options = [own]
    for name in ("lock_timeout", "statement_timeout"):
        check_range(f"{_section(config)}.{name}", getattr(config, name), TIMEOUTS)
    lock_timeout = min(SECOND_TIMEOUT, config.lock_timeout) if config.waits.gave_up else config.lock_timeout
    for name, seconds in (("lock_timeout", lock_timeout), ("statement_timeout", config.statement_timeout)):
        if seconds and name not in own:
            options.append(f"-c {name}={max(round(seconds * 1000), 1)}")
    credentials.query = query | {"options": " ".join(filter(None, [*options, SESSION]))}
    credentials.client_encoding = ENCODING
    return credentials


def _section(config: PostgresConfiguration) -> str:
    """Returns the section of dlt's configuration for a destination, which may have a name of its own."""
    return f"destination.{config.destination_name or 'postgres'}"


def check_session(connection: "psycopg2.extensions.connection", waits: Waits) -> None:
    """Warns if the settings of a session do not reach the server, because a connection pooler drops them.

    Checks once per destination, whose connections share `waits`, and warns once per database.
    Raises RunError if the server's own settings would change values.
    """
    if waits.checked:
        return
    with connection.cursor() as cursor:
        cursor.execute(ARRIVED)
        [(digits, quoted)] = cursor.fetchall()
    dropped = "A connection pooler drops the settings of sessions"
    if digits < 1 or quoted:
        raise RunError(
            f"{dropped}, and the server's own would change values: extra_float_digits = {digits},"
            f" quote_all_identifiers = {'on' if quoted else 'off'}.\n"
            "Name the host and port of PostgreSQL itself in the credentials, or set extra_float_digits = 1 and"
            " quote_all_identifiers = off for the user (ALTER ROLE ... SET)."
        )
    database = (connection.info.host, connection.info.port, connection.info.dbname)
    if digits != FLOAT_DIGITS and database not in _warned:
        _warned.add(database)
        _log.warning(
            "%s, so lock_timeout and statement_timeout are the server's. To use yours, name the host and port of"
            " PostgreSQL itself in the credentials.",
            dropped,
        )
    waits.checked = True


def url_of(credentials: PostgresCredentials) -> str:
    """Returns the URL for libpq, with `%20` for each blank: libpq accepts no blanks, and reads `+` as a plus sign."""
    url, mark, query = credentials.to_native_representation().partition("?")
    return f"{url}{mark}{query.replace('+', '%20')}".replace(" ", "%20")


@contextmanager
def raising_busy(config: PostgresConfiguration) -> Iterator[None]:
    """Raises BusyError if a statement in the block did not get a lock in time."""
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
            f" again, or wait longer: lock_timeout (seconds) under [{_section(config)}] of dlt's configuration"
        ) from error


def log_waits(pid: int, config: PostgresConfiguration, closed: threading.Event) -> None:
    """Starts a thread that logs what the connection of server process `pid` waits for, until it is `closed`."""
    threading.Thread(target=_log_waits, args=(pid, config, closed), daemon=True).start()


def _log_waits(pid: int, config: PostgresConfiguration, closed: threading.Event) -> None:
    waits: Waits = config.waits
    while not closed.wait(min(LOG_INTERVAL, config.lock_timeout / 2 or LOG_INTERVAL)):
        with suppress(psycopg2.Error):  # the connection itself will report that the server cannot be reached
            found = _blocking(pid, with_timeouts(config))
            if found:
                waits.last = found
            if found and found not in waits.reported:
                waits.reported.add(found)
                end = f"; giving up after {config.lock_timeout:g} s" if config.lock_timeout else ""
                _log.warning("Waiting for %s%s", found, end)


def _blocking(pid: int, credentials: PostgresCredentials) -> str | None:
    """Returns, as text, which lock a server process waits for and who holds it; None if it waits for no lock."""
    with closing(psycopg2.connect(url_of(credentials))) as connection, connection.cursor() as cursor:
        cursor.execute(sql_file("blocking_postgres.sql"), {"pid": pid})
        found = cursor.fetchone()
    if found is None:
        return None
    table, holder, user, application, address, state = found
    about = [f"user {user}" if user else "", application, address and f"from {address}", state]
    who = f"process {holder} ({', '.join(filter(None, about))})" if holder else "a prepared transaction"
    return f"{f'the table {table}' if table else 'rows'} of PostgreSQL that {who} has locked"
