"""dlt's PostgreSQL destination, whose waits time out and report what they wait for.

A table that another connection has locked would keep a load waiting indefinitely, without a warning. Here every
connection, including the one that copies Parquet, gives up on a lock after `lock_timeout` and on a statement after
`statement_timeout`, and warns about what it waits for. The contract's tables are like those that Segment creates in
PostgreSQL: floats are `numeric`, the key is the primary key, and `received_at` has an index.
"""

from typing import TYPE_CHECKING, Any

from dlt.common.configuration import configspec
from dlt.destinations import postgres as dlt_postgres

from .configured_once import ConfiguredOnce
from .dlt_internals import PostgresClientConfiguration

if TYPE_CHECKING:
    from .dlt_internals import PostgresClient


class Waits:
    """The locks that the connections of one destination waited for."""

    def __init__(self) -> None:
        self.last = "a lock of PostgreSQL"
        """The last lock that was waited for, and its holder."""
        self.reported: set[str] = set()
        """All locks that a warning was written about."""
        self.gave_up = False
        """Whether a wait has timed out. dlt retries the job, which then waits only briefly."""
        self.checked = False
        """Whether it was checked that the settings of a session reach the server."""


class _NewTables(dict[str, Any]):
    """The tables that one destination has created and not yet loaded a file into, with a lock for each.

    A deep copy is empty, because a copied destination has created no tables.
    """

    def __deepcopy__(self, _: object) -> "_NewTables":
        return _NewTables()


@configspec(init=False)
class PostgresConfiguration(PostgresClientConfiguration):
    """dlt's configuration, with settings of this project.

    The last three fields are not settings: they hold what the clients of one destination share.
    """

    lock_timeout: float = 600
    """Seconds to wait for a lock of another connection; 0: the server's setting."""
    statement_timeout: float = 7200
    """Seconds that one statement may take; 0: the server's setting."""
    index_received_at: bool = True
    """Whether new tables have an index on `received_at`."""
    books_dataset: str | None = None
    """The dataset of the bookkeeping tables; None: the same as the events'."""
    waits: Any = None
    stored_tables: Any = None
    new_tables: Any = None


class postgres(ConfiguredOnce, dlt_postgres):  # noqa: N801 - destinations are named like functions
    """PostgreSQL as a destination, named `postgres` in dlt's configuration."""

    spec: type[PostgresClientConfiguration] = PostgresConfiguration

    def __init__(self, credentials: Any = None, destination_name: str = "postgres", **more: Any) -> None:
        shared = {"waits": Waits(), "stored_tables": {}, "new_tables": _NewTables(), **more}
        super().__init__(credentials=credentials, destination_name=destination_name, **shared)

    @property
    def client_class(self) -> "type[PostgresClient]":
        """The client that creates Segment's tables, and whose waits time out."""
        from .postgres_client import SegmentPostgresClient  # needs the driver, which not everyone has

        return SegmentPostgresClient
