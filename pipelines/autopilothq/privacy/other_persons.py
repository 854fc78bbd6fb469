"""Makes rows of `users` and `accounts` again that a deletion removes although they are about somebody else.

Such a row has an id of the person in a trait, say an email that two people shared, or that a stranger put there. The
messages with that id are deleted, and the row is made of those that remain.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, get_args

from ..catalog import LATEST, Column, Latest, Table, Type
from ..projection.engine import batched
from ..warehouses.dataset import Columns, Dataset, Row, in_utc, placeholders
from .removals import PARAMETERS, Removal

_OF_LOAD = ("uuid_ts", "loaded_at")  # the time of the load, in BigQuery twice
_EARLIEST = datetime(1, 1, 1, tzinfo=UTC)
_CELLS = 1000  # of one insert
_TYPES = (*get_args(Type), "decimal")  # of traits; floats are `numeric` in PostgreSQL


class DeletedRows(NamedTuple):
    """The ids of the rows of `users` or `accounts` that a deletion removes."""

    latest: Latest
    ids: list[str]


def find_deleted(plan: Sequence[Removal]) -> list[DeletedRows]:
    """Returns the rows of users and accounts that a deletion will remove; call it before they are deleted."""
    tables = {latest.table.name: latest for latest in LATEST}
    found = []
    for removal in plan:
        if removal.name in tables and not removal.tables.is_staging:
            dataset = removal.tables.dataset
            select = f"SELECT {dataset.quoted(removal.name, 'id')} FROM"
            rows = dataset.stream(select, removal.name, f"WHERE {removal.where}", removal.values)
            found.append(DeletedRows(tables[removal.name], [id_ for (id_,) in rows if id_ is not None]))
    return found


def make_again(dataset: Dataset, deleted: DeletedRows) -> None:
    """Makes the rows again of the messages that remain. Those of the deleted person have none."""
    latest, columns = deleted.latest, dataset.columns()
    messages, own = columns.get(latest.messages.name), columns.get(latest.table.name)
    if messages is None or own is None or latest.key not in messages:
        return
    traits = _traits(latest, messages, own)
    made = [*(name for name in ("id", "received_at", *_OF_LOAD) if name in own), *traits]
    table = Table(latest.table.name, "", tuple(Column(name, _type(own, name), "") for name in made))
    for ids in map(list, batched(sorted(deleted.ids), PARAMETERS)):
        rows = list(_rows(dataset, latest, traits, made, ids))
        for some in batched(rows, max(1, _CELLS // len(made))):
            dataset.insert(table, list(some))


def _traits(latest: Latest, messages: Columns, own: Columns) -> list[str]:
    """Returns the columns of messages that the table has with the same type, and that loads make."""
    return [
        name
        for name, native in messages.items()
        if name in own
        and own[name].type == native.type
        and native.type in _TYPES
        and name not in latest.left_out
        and not (latest.left_out_prefix and name.startswith(latest.left_out_prefix))
    ]


def _type(columns: Columns, name: str) -> Type:
    found = columns[name].type
    return next((type_ for type_ in get_args(Type) if type_ == found), "double")


def _rows(
    dataset: Dataset, latest: Latest, traits: Sequence[str], made: Sequence[str], ids: Sequence[str]
) -> Iterator[Row]:
    """Yields the rows of these ids: each trait has its last value that is not null."""
    name = latest.messages.name
    select = ", ".join(dataset.quoted(name, column) for column in (latest.key, "received_at", "id", *traits))
    after = f"WHERE {dataset.quoted(name, latest.key)} IN ({placeholders(ids)})"
    now = datetime.now(UTC)
    found: dict[str, dict[str, tuple[tuple[datetime, str], Any]]] = {}
    for row in dataset.stream(f"SELECT {select} FROM", name, after, ids):
        id_, received_at, message, *values = map(in_utc, row)
        recency = (received_at or _EARLIEST, message)
        cells = found.setdefault(id_, {"id": (recency, id_), **dict.fromkeys(_OF_LOAD, (recency, now))})
        for column, value in (("received_at", received_at), *zip(traits, values, strict=True)):
            if value is not None and (column not in cells or cells[column][0] <= recency):
                cells[column] = (recency, value)
    for cells in found.values():
        yield tuple(cells[column][1] if column in cells else None for column in made)
