"""Mends rows of `users` and `accounts` that are about somebody else but have values of a deleted person's messages.

Such a message has an id of the person in a trait (say, an email that two people shared, or that a stranger put there),
or it is what the person said about a group. Its values are replaced with the last ones of the messages that remain, as
if it had never been loaded. Rows are mended before any message is deleted, and from the messages alone, so that a
deletion that was killed can be repeated.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, get_args

from ..catalog import LATEST, Latest, Type
from ..projection.engine import batched
from ..warehouses.dataset import in_utc, placeholders
from .person import PersonIds, PersonTables
from .removals import PARAMETERS, Removal

_OF_LOAD = ("uuid_ts", "loaded_at")  # the time of the load; tables in BigQuery may have both
_RECEIVED_AT = "received_at"
_EARLIEST = datetime(1, 1, 1, tzinfo=UTC)
_TYPES = (*get_args(Type), "decimal")  # the types that loads make; floats are `numeric` in PostgreSQL


class _Last(NamedTuple):
    """The last value of a column that is not null; `recency` is the time and the id of its message."""

    recency: tuple[datetime, str]
    value: Any


@dataclass
class _LastValues:
    """The last values about a user or a group, by column: of messages to delete (`deleted`), and of others (`left`)."""

    deleted: dict[str, _Last] = field(default_factory=dict)
    left: dict[str, _Last] = field(default_factory=dict)
    has_left: bool = False


def mend_rows(plan: Sequence[Removal], tables: Sequence[PersonTables], person: PersonIds) -> None:
    """Mends the rows of others, or deletes those that have no other values; call it before executing the plan."""
    for latest in LATEST:
        ids, messages = _affected(latest, plan, tables, person)
        for part in tables if ids else ():
            if latest.table.name not in part.columns:
                continue
            for some in map(list, batched(sorted(ids), PARAMETERS)):
                # Staged rows are not read again, and the next load makes them anew.
                unknown = some if part.is_staging else _mend(part, latest, some, messages, person)
                if unknown:
                    where = f"{part.text(latest.table.name, 'id')} IN ({placeholders(unknown)})"
                    part.dataset.delete(latest.table.name, where, unknown)


def _affected(
    latest: Latest, plan: Sequence[Removal], tables: Sequence[PersonTables], person: PersonIds
) -> tuple[set[str], set[str]]:
    """Returns the ids of others whom the rows to delete are about, and the ids of the messages among these rows."""
    ids, messages = set[str](), set[str]()
    keys = {latest.table.name: "id", latest.messages.name: latest.key}
    for removal in plan:
        key, of = keys.get(removal.name), removal.tables
        if key is not None and key in of.columns[removal.name]:
            select = f"SELECT {of.text(removal.name, key)}, {of.text(removal.name, 'id')} FROM"
            found = list(of.dataset.stream(select, removal.name, f"WHERE {removal.where}", removal.values))
            ids.update(about for about, _ in found if about is not None)
            messages.update(id_ for _, id_ in found if removal.name == latest.messages.name)
    positions = [part.positions.get((latest.table.name, "id"), -1) for part in tables]
    return ids.difference(*(person.cells.get(position, ()) for position in positions)), messages


def _mend(
    part: PersonTables, latest: Latest, ids: Sequence[str], messages: Collection[str], person: PersonIds
) -> list[str]:
    """Mends the rows of these ids; returns the ids of the rows that have no other values."""
    dataset, table = part.dataset, latest.table.name
    columns = [name for name in part.columns[table] if name not in ("id", *_OF_LOAD)]
    loaded = dict.fromkeys((name for name in _OF_LOAD if name in part.columns[table]), datetime.now(UTC))
    persons = {name: set(person.cells.get(part.positions[table, name], ())) for name in part.kinds[table]}
    persons.pop("id", None)
    id_text = part.text(table, "id")
    select = f"SELECT {', '.join((id_text, *(dataset.quoted(table, name) for name in columns)))} FROM"
    rows, unknown = list(dataset.stream(select, table, f"WHERE {id_text} IN ({placeholders(ids)})", ids)), []
    known = _last_values(part, latest, ids, messages)
    for id_, *cells in rows:
        row = dict(zip(columns, map(in_utc, cells), strict=True))
        made = _made(row, known.get(id_, _LastValues()), persons)
        if made is None:
            unknown.append(id_)
        elif changes := {name: value for name, value in made.items() if value != row[name]}:
            dataset.update(table, changes | loaded, f"{id_text} = %s", [id_])
    return unknown


def _made(row: Mapping[str, Any], known: _LastValues, persons: Mapping[str, Collection[str]]) -> dict[str, Any] | None:
    """Returns a row without the values of deleted messages, or None if nothing else is known.

    Adopted values, which no message has, stay. But if one of them is an id of the person, all count as the person's.
    """
    left = {name: known.left[name].value if name in known.left else None for name in row}
    # A deleted message's value is not in the row if a remaining message has a later one.
    current = {
        name
        for name, last in known.deleted.items()
        if name not in known.left or known.left[name].recency < last.recency
    }
    made = {name: left[name] if name in current else value for name, value in row.items()}
    if any(str(made[name]) in cells for name, cells in persons.items()):
        made = left
    is_known = known.has_left or any(value is not None for name, value in made.items() if name != _RECEIVED_AT)
    return made if is_known else None


def _last_values(
    part: PersonTables, latest: Latest, ids: Sequence[str], messages: Collection[str]
) -> dict[str, _LastValues]:
    """Returns the last values in the messages about these users or groups, by the user's or the group's id."""
    dataset, name = part.dataset, latest.messages.name
    if latest.key not in part.columns.get(name, {}):
        return {}
    traits = _traits(part, latest)
    keys = part.text(name, latest.key), part.text(name, "id")
    select = ", ".join((*keys, *(dataset.quoted(name, column) for column in (_RECEIVED_AT, *traits))))
    where = f"WHERE {keys[0]} IN ({placeholders(ids)})"
    found: dict[str, _LastValues] = {}
    for row in dataset.stream(f"SELECT {select} FROM", name, where, ids):
        about, message, received_at, *values = map(in_utc, row)
        known = found.setdefault(about, _LastValues())
        is_deleted = message in messages
        known.has_left |= not is_deleted
        last = known.deleted if is_deleted else known.left
        recency = (received_at or _EARLIEST, message)
        for column, value in ((_RECEIVED_AT, received_at), *zip(traits, values, strict=True)):
            if value is not None and (column not in last or last[column].recency < recency):
                last[column] = _Last(recency, value if traits.get(column, True) else None)
    return found


def _traits(part: PersonTables, latest: Latest) -> dict[str, bool]:
    """Returns the columns of messages that the table has as well, and whether a load would make both of one type.

    In some adopted tables the types differ. There, the next load about the user or the group casts the value.
    """
    own = part.columns[latest.table.name]
    return {
        name: own[name].type == native.type and native.type in _TYPES
        for name, native in part.columns[latest.messages.name].items()
        if name in own and name not in _OF_LOAD and latest.has_trait(name)
    }
