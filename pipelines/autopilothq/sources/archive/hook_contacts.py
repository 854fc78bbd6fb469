"""Turns contacts from Autopilot's hooks into rows of `contacts` (docs/contract/autopilot-hooks.md#contacts).

A hook may hold only a part of a contact, or come late. So its values replace those of the stored row only if they are
newer.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import pyarrow as pa
import pyarrow.compute as pc

from ...catalog import CONTACTS, HOOK_CONTACT, HOOK_LIBRARY, HOOK_PREFIX, Type
from ...projection import TableRows
from ...projection.engine import batched
from ...segment.json_text import JsonObject, to_json
from ...segment.message import Discard, Record, Rejected, parse_json
from ...utc import format_time
from ...warehouses.dataset import Dataset, in_utc, placeholders
from ..contact_records import contact_record
from ..origin import LoadContext, destination_column
from ..times import read_time
from . import batches
from .discover import day_and_source
from .listing import File

SNAPSHOT_MEMORY = 100  # MB for the rows
PART_SIZE = 4 << 20  # bytes of compressed files in a part: some 15,000 contacts, whose cells take 100 MB
MOST_PARTS = 200  # parts, each of which is an open file
_ENDPOINTS = "autopilot-"  # prefix of the folders of the receiver's endpoints for hooks
_LOOKED_UP = 1000  # contacts that are looked up at a time
_CONTACT_ID = re.compile(rb'"contact_id":"([^"]*)"')
_NOT_KEPT = ("received_at", "uuid_ts", "deleted_at")
_UNSUBSCRIBED = f"{HOOK_PREFIX}contact_unsubscribed"


class HookContact(NamedTuple):
    """A contact in a hook, when the hook was received, and when the contact was changed, if it has that time."""

    received_at: datetime
    updated_at: datetime | None
    record: Record

    @property
    def order(self) -> datetime:
        """The time that orders hooks about the same contact."""
        return self.updated_at or self.received_at


class _StoredContact(NamedTuple):
    """A row of `contacts`: its times and its cells."""

    received_at: datetime | None
    updated_at: datetime | None
    deleted_at: datetime | None
    cells: Mapping[str, str]


def is_of_hooks(file: File) -> bool:
    """Returns whether a file is in the folder of an endpoint that receives hooks."""
    return (day_and_source(file.url)[1] or "").startswith(_ENDPOINTS)


def contact_rows(files: Sequence[File], context: LoadContext, timeout: float) -> Iterator[TableRows]:
    """Yields the rows of `contacts` that the files' hooks make, and their discards."""
    known = context.existing_columns(CONTACTS.name)
    snapshot = dataclasses.replace(context, memory=SNAPSHOT_MEMORY).snapshot(CONTACTS.name, context.loaded_at)
    number = min(1 + sum(file.size for file in files) // PART_SIZE, MOST_PARTS)
    for texts in parts_of(_hook_texts(files, timeout), number, context.scratch / "hooks"):
        changed = filter(None, (contact.record() for contact in _merged(hook_contacts(texts), context, known)))
        for records in batched(changed, _LOOKED_UP):
            snapshot.add(records)
    yield from snapshot.rows_with_discards(known)
    snapshot.close()


def _merged(
    hooks: Iterable[HookContact], context: LoadContext, known: Mapping[str, Type]
) -> Iterable["_MergedContact"]:
    """Returns the contacts of some hooks, each merged with its stored row."""
    dataset, column = context.required_pipeline().dataset, partial(destination_column, context)
    merged: dict[str, _MergedContact] = {}
    for some in batched(hooks, _LOOKED_UP):
        new = dict.fromkeys(hook.record.key[0] for hook in some if hook.record.key[0] not in merged)
        stored = _stored_contacts(dataset, list(new), known) if known else {}
        for hook in some:
            contact_id = hook.record.key[0]
            if contact_id not in merged:
                merged[contact_id] = _MergedContact(stored.get(contact_id))
            merged[contact_id].add(hook, column)
    return merged.values()


# ---- hooks out of lines ----------------------------------------------------------------------------------------------


def _hook_texts(files: Sequence[File], timeout: float) -> Iterator[bytes]:
    """Yields the lines of files that may be messages of hooks."""
    for batch in batches.read_batches(files, timeout=timeout):
        texts = batch.lines["text"]
        mentions = pc.match_substring(texts, f'"{HOOK_LIBRARY}"'.encode())
        yield from texts.filter(pc.fill_null(mentions, pa.scalar(False))).to_pylist()


def parts_of(texts: Iterable[bytes], number: int, folder: Path) -> Iterator[Iterable[bytes]]:
    """Yields the lines in `number` parts, each of which fits into memory and has all lines of its contacts.

    If there are several parts, they are written to files in `folder` first.
    """
    if number == 1:
        yield texts
        return
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        files = [stack.enter_context((folder / str(part)).open("wb")) for part in range(number)]
        for text in texts:
            found = _CONTACT_ID.search(text)
            files[crc32(found[1]) % number if found else 0].write(text.rstrip(b"\r\n") + b"\n")
    for part in range(number):
        with (folder / str(part)).open("rb") as lines:
            yield lines


def hook_contacts(texts: Iterable[bytes]) -> Iterator[HookContact]:
    """Yields the contacts of hooks' messages. Other lines are skipped, because the load handles them."""
    for text in texts:
        try:
            found = hook_contact(parse_json(text))
        except Rejected:
            continue
        if found is not None:
            yield found


def hook_contact(message: JsonObject) -> HookContact | None:
    """Returns the contact of a hook's message, or None for any other message. Raises Rejected if it has no id."""
    received = read_time(message.value("receivedAt"))
    if message.value("context", "library", "name") != HOOK_LIBRARY or received is None:
        return None
    text = message.value(HOOK_CONTACT)
    contact = parse_json(text.encode(errors="surrogatepass")) if isinstance(text, str) else JsonObject()
    names = {name for name, value in contact if value is not None}
    traits = {"contact_id": "contact_id", "Email": "email"}
    more = [(name, message.value("context", "traits", trait)) for name, trait in traits.items() if name not in names]
    if message.value("event") == _UNSUBSCRIBED and "unsubscribed" not in names:
        more.append(("unsubscribed", True))
    whole = JsonObject([*contact, *((name, value) for name, value in more if value is not None)])
    return HookContact(received, read_time(contact.value("updated_at")), contact_record(whole))


# ---- merged with stored rows -----------------------------------------------------------------------------------------


def _stored_contacts(dataset: Dataset, ids: Sequence[str], columns: Mapping[str, Type]) -> dict[str, _StoredContact]:
    """Returns the stored rows of contacts by their ids."""
    if not ids:
        return {}
    # `Dataset.rows` would query the columns of all tables, which loads avoid and SQLite cannot do.
    select = dataset.template(CONTACTS.name, f"SELECT {', '.join(f'{{{name}}}' for name in columns)} FROM")
    where = dataset.template(CONTACTS.name, f"WHERE {{contact_id}} IN ({placeholders(ids)})")
    rows = [
        {name: _typed(value, columns[name]) for name, value in zip(columns, row, strict=True)}
        for row in dataset.stream(select, CONTACTS.name, where, ids)
    ]
    return {str(row["contact_id"]): _stored(row) for row in rows}


def _typed(value: Any, of: Type) -> Any:
    """Returns a stored value in its column's type; SQLite stores times as text, and booleans as numbers."""
    if of == "timestamp" and isinstance(value, str):
        value = datetime.fromisoformat(value)
    return bool(value) if of == "bool" and value is not None else in_utc(value)


def _stored(row: Mapping[str, Any]) -> _StoredContact:
    cells = {name: _cell(value) for name, value in row.items() if value is not None and name not in _NOT_KEPT}
    return _StoredContact(row.get("received_at"), row.get("updated_at"), row.get("deleted_at"), cells)


def _cell(value: Any) -> str:
    """Returns a stored value as JSON text, with all its digits."""
    if isinstance(value, datetime):
        return json.dumps(format_time(value, exact=True))
    return to_json(value) if isinstance(value, str | bool) else str(value)


class _MergedContact:
    """A contact merged from its stored row and hooks; each value comes from the latest of them that has it."""

    def __init__(self, stored: _StoredContact | None) -> None:
        self._last: HookContact | None = None
        self._stored = stored
        self._received_at: datetime | None = stored.received_at if stored else None
        self._cells: dict[str, tuple[datetime, str]] = {}
        self._discards: list[Discard] = []
        self._declared: dict[str, Type] = {}

    def add(self, hook: HookContact, column: Callable[[str], str]) -> None:
        """Adds a hook's values if they are newer than the stored row; `column` returns names in the destination."""
        if not self._is_newer(hook):
            return
        self._last = hook if self._last is None or hook.order >= self._last.order else self._last
        self._received_at = max(filter(None, (self._received_at, hook.received_at)))
        for name, cell in hook.record.cells.items():
            own = column(name)
            if own not in self._cells or self._cells[own][0] <= hook.order:
                self._cells[own] = hook.order, cell
        self._declared |= {column(name): of for name, of in hook.record.declared.items()}
        self._discards += hook.record.discards

    def _is_newer(self, hook: HookContact) -> bool:
        stored = self._stored
        if stored is None:
            return True
        if stored.deleted_at is not None and hook.received_at <= stored.deleted_at:
            return False  # a later scan found it deleted
        if hook.updated_at is not None and stored.updated_at is not None:
            return hook.updated_at > stored.updated_at
        return stored.received_at is None or hook.received_at > stored.received_at

    def record(self) -> Record | None:
        """Returns the record of the new row; None if no hook has changed the stored one."""
        if self._last is None or self._received_at is None:
            return None
        cells = dict(self._stored.cells) if self._stored else {}
        cells |= {name: cell for name, (_, cell) in self._cells.items()}
        cells["received_at"] = json.dumps(format_time(self._received_at, exact=True))
        return Record(self._last.record.key, cells, self._discards, self._declared)
