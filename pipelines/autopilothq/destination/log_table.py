"""The base class of logs: a table of the dataset that a run writes outcomes to, and that the next run reads."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from types import TracebackType
from typing import Any, Self

import dlt

from ..catalog import Table
from ..errors import BusyError, RunError
from ..projection.engine import batched
from ..segment.identity import HashedIds
from ..warehouses.books import check_books
from ..warehouses.dataset import Dataset, dataset_of, deleted_persons, in_utc, placeholders, writes_text
from ..warehouses.dlt_internals import JobClientBase, SqlJobClientBase
from .messages import storable_value

_IDS = 1000  # ids in one statement


class LogTable:
    """A log in a dataset. It creates the dataset and the table if they are missing, unless it only `reads`.

    One that `is_read_only` writes nothing, as in a dry run. `table` is a table of the catalogue whose last columns are
    the time and the run. The log is thread-safe. It can be opened again after it was closed, and then continues the
    same run.
    """

    table: Table

    def __init__(self, dataset: dlt.Dataset, *, reads: bool = False) -> None:
        self._client: JobClientBase = dataset.destination_client
        _check_client(self._client)
        self.is_read_only = reads
        self._opened = False
        self._lock = threading.Lock()
        self._last = datetime.now(UTC)
        self.run = f"{self._last:%Y%m%dT%H%M%SZ}-{token_hex(4)}"

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            opened.enter_context(self._client)  # type: ignore[arg-type]
            if isinstance(self._client, SqlJobClientBase):
                check_books(self._client.sql_client)
            self.dataset: Dataset = dataset_of(self._client, literals=True)
            if not self.is_read_only:
                if not opened.enter_context(self.dataset.locked(self.table.name)):
                    raise BusyError("Another run is sending, with the same log.\nRun it again when that one has ended.")
                self._create()
            self._exists = not self.is_read_only or not self.dataset.lacks(self.table.name)
            if self._exists and not self._opened:
                # New rows get later times than existing ones, even if this machine's clock is behind the writer's.
                [(latest,)] = self._select("SELECT max({sent_at}) FROM")
                self._last = max(self._last, in_utc(latest)) if latest else self._last
            self._opened = True
            self._held = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._held.__exit__(kind, error, traceback)

    def _create(self) -> None:
        if self._opened:
            return
        self.dataset.create(self.table)
        self.dataset.compact(self.table.name)

    def suppressed_ids(self) -> HashedIds:
        """Returns the hashed ids of deleted persons. Raises SuppressionKeyError if some need a key that is not set."""
        with self._lock:
            return deleted_persons(self.dataset)

    def _rows(self, columns: Sequence[str], key: str, values: Iterable[str]) -> Iterator[Sequence[Any]]:
        """Yields columns of the rows whose `key` is one of the values; the rows of a value are ordered by time."""
        distinct = list(dict.fromkeys(values)) if self._exists else []
        before = f"SELECT {', '.join(f'{{{column}}}' for column in columns)} FROM"
        for ids in batched(distinct, _IDS):
            yield from self._select(before, f"WHERE {{{key}}} IN ({placeholders(ids)}) ORDER BY {{sent_at}}", ids)

    def _select(self, before: str, after: str = "", values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Returns the rows of a query; `before` and `after` are its templates before and after the table's name."""
        texts = (self.dataset.template(self.table.name, text) for text in (before, after))
        with self._lock:
            return list(self.dataset.stream(next(texts), self.table.name, next(texts), storable(values)))

    def add(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Writes rows, to which it adds the time and the run. All of them are stored when it returns."""
        if self.is_read_only or not rows:
            return
        with self._lock, self.dataset.transaction():
            self.dataset.insert(self.table, [tuple(storable((*row, self._now(), self.run))) for row in rows])

    @property
    def last(self) -> datetime:
        """The time of the last row, or of the start of the run if there is none."""
        return self._last

    def _now(self) -> datetime:
        self._last = max(datetime.now(UTC), self._last + timedelta(microseconds=1))
        return self._last


def _check_client(client: JobClientBase) -> None:
    """Raises RunError if the log cannot be kept in a destination."""
    dataset_of(client)
    if isinstance(client, SqlJobClientBase) and not writes_text(client):
        raise RunError(
            "Expected a warehouse for which dlt can write text into SQL, to keep the delivery log, got"
            f" {client.config.destination_type.rpartition('.')[2]}.\nName another one: --destination."
        )


def storable(values: Iterable[Any]) -> list[Any]:
    """Returns values with each text made storable in any warehouse."""
    return [storable_value(value) if isinstance(value, str) else value for value in values]
