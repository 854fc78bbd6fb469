"""Keeps a pipeline's DuckDB file open over several steps of a run. Does nothing for other destinations.

Opening and closing a file takes 20 ms of processor time, and more with each table; a small load would do so nine times.
Other programs cannot open the file meanwhile, so it is closed before something that may take long.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, cast
from weakref import WeakKeyDictionary, WeakSet

import dlt
import pyarrow as pa
from dlt import Schema
from dlt.destinations import duckdb

from .dlt_internals import Destination, JobClientBase
from .dlt_internals.clients import client_for, enter_before_loading
from .hints import SOURCE

_CONNECTIONS: WeakKeyDictionary[dlt.Pipeline, ExitStack] = WeakKeyDictionary()  # the clients that keep files open
_KEPT_OPEN: WeakSet[Destination[Any, Any]] = WeakSet()  # those whose files stay open while dlt loads a package
MOST_OPEN_COLUMNS = 5_000  # of all tables together


@contextmanager
def close_database_after(pipeline: dlt.Pipeline | None) -> Iterator[None]:
    """Closes what `reopen_database` opens during the block when the outermost such block of the pipeline ends."""
    if pipeline is None or pipeline in _CONNECTIONS:
        yield
        return
    with ExitStack() as connections:
        _CONNECTIONS[pipeline] = connections
        try:
            yield
        finally:
            del _CONNECTIONS[pipeline]


def reopen_database(pipeline: dlt.Pipeline | None) -> None:
    """Opens a pipeline's DuckDB file for the rest of the outermost `close_database_after`, if there is one."""
    if pipeline is not None and pipeline in _CONNECTIONS and isinstance(pipeline.destination, duckdb):
        _CONNECTIONS[pipeline].enter_context(cast(Any, client_for(pipeline, Schema(SOURCE))).sql_client)


def close_database(pipeline: dlt.Pipeline | None) -> None:
    """Closes a pipeline's DuckDB file that `reopen_database` opened, so that other programs can open it."""
    if pipeline is not None and pipeline in _CONNECTIONS:
        _CONNECTIONS[pipeline].close()


@contextmanager
def keep_database_open(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Keeps a pipeline's DuckDB file open during the block."""
    with close_database_after(pipeline):
        reopen_database(pipeline)
        yield


def keep_open_while_loading(pipeline: dlt.Pipeline) -> None:
    """Makes dlt keep a pipeline's DuckDB file open while it loads a package; otherwise each job opens it.

    A package with more than MOST_OPEN_COLUMNS columns is the exception: new rows stay in memory, some 30 KB for each
    column, until the file is closed.
    """
    if isinstance(pipeline.destination, duckdb):
        _KEPT_OPEN.add(pipeline.destination)
        enter_before_loading(_kept_open)


def _kept_open(
    destination: Destination[Any, Any], client: JobClientBase, columns: int
) -> AbstractContextManager[object]:
    """Returns the context in which dlt loads a package whose tables have that many columns."""
    if destination not in _KEPT_OPEN:
        return nullcontext()
    pa.default_memory_pool().release_unused()  # memory that earlier steps have used, and that DuckDB needs now
    connection: AbstractContextManager[object] = cast(Any, client).sql_client
    return connection if columns <= MOST_OPEN_COLUMNS else nullcontext()
