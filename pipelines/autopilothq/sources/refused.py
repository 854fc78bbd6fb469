"""Keeps what the destination refused in a file, until a load that leaves it out is complete.

The file is in the pipeline's working folder. It has ids of messages and people, so it is deleted as soon as possible.
It applies to a single destination: another one may accept what this one refuses.
"""

import json
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Self

import dlt
import pyarrow as pa
import pyarrow.compute as pc
from dlt import Schema

from .. import disk, private
from ..catalog import ACCOUNTS, DISCARDS, REJECTS, USERS, key_of
from ..projection import ExistingTables, ReadTable, RefusedIds, TableRows, engine
from ..utc import epoch_ms
from ..warehouses.dlt_internals import logger
from ..warehouses.dlt_internals.clients import client_for
from ..warehouses.hints import SOURCE

# Below the pipeline's working folder. The deletion of a person removes the folders of this name.
FILE = "autopilothq-refused/refused.json"
_TARGET = "place"  # the name of `target` in the file, as earlier versions read and wrote it
UUID_TS = "uuid_ts"
KILL_POINT_REFUSALS_WRITTEN = f"{__name__}:RefusedMessages.write"  # for tests/faults
ESCAPED = {REJECTS.name: ("raw", "message"), DISCARDS.name: ("value", "column_name")}
"""The columns of the books that have texts of messages."""
Errors = dict[str, str]
"""The errors of refused messages or rows, by what identifies them."""


@dataclass
class RefusedMessages:
    """What the next load into a target leaves out.

    Attributes:
        target: The destination, as `target_of` describes it.
        attempts: When the failed loads began: the `uuid_ts` of their rows (ISO 8601).
        messages: The errors of refused messages, by message id.
        users: The errors of refused rows of `users`, by the user's id.
        accounts: The errors of refused rows of `accounts`, by the group's id.
        emptied: Rows of `_rejects` and `_discards` that are loaded without their text, by table and `key`.
        left_out: Rows that are not loaded at all, by table and `key`, among them emptied ones that failed again.
        load_id: The load that leaves out all of this.
        encoding: The database's encoding if it lacks characters: `_rejects` and `_discards` are loaded with escapes.
    """

    target: str
    attempts: list[str] = field(default_factory=list)
    messages: Errors = field(default_factory=dict)
    users: Errors = field(default_factory=dict)
    accounts: Errors = field(default_factory=dict)
    emptied: dict[str, Errors] = field(default_factory=dict)
    left_out: dict[str, Errors] = field(default_factory=dict)
    load_id: str | None = None
    encoding: str | None = None

    @classmethod
    def read(cls, pipeline: dlt.Pipeline) -> Self:
        """Returns what a pipeline's destination refused; it is empty if the file is missing or damaged."""
        target = target_of(pipeline)
        path = Path(pipeline.working_dir, FILE)
        try:
            content = json.loads(path.read_bytes())
            found = cls(target=content.pop(_TARGET), **content)
            return found if found.target == target else cls(target)
        except FileNotFoundError:
            return cls(target)
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            logger.warning(f"{path} cannot be read, and is ignored: {error}")
            return cls(target)

    @classmethod
    def begin(cls, pipeline: dlt.Pipeline, complete_loads: Callable[[], Collection[str]], load_id: str | None) -> Self:
        """Returns what the load `load_id` must leave out: nothing if a complete load left it out already."""
        refused = cls.read(pipeline)
        if refused.load_id is not None and refused.load_id in complete_loads():
            return cls(refused.target)
        if refused:
            refused.load_id = load_id
            refused.write(pipeline)
        return refused

    def write(self, pipeline: dlt.Pipeline) -> None:
        """Writes the file atomically: a kill leaves either the old one or the new one."""
        path = Path(pipeline.working_dir, FILE)
        private.folder(path.parent)
        with disk.rewriting(path, "w") as file:
            content = {_TARGET if name == "target" else name: value for name, value in asdict(self).items()}
            if self.encoding is None:
                del content["encoding"]  # earlier versions do not know it
            json.dump(content, file)

    @property
    def ids(self) -> RefusedIds:
        """The ids of the refused messages, and of the refused rows that messages make, as the projection takes them."""
        return RefusedIds(self.messages, {USERS.name: self.users, ACCOUNTS.name: self.accounts})

    def __len__(self) -> int:
        books = (*self.emptied.values(), *self.left_out.values())
        return sum(map(len, (self.messages, self.users, self.accounts, *books))) + (self.encoding is not None)

    def add_rows(self, table: str, errors: Errors) -> None:
        """Adds rows of a table that neither holds messages nor is made of them, by their `key`."""
        for row, error in errors.items():
            again = row in self.emptied.get(table, {})
            rows = self.left_out if again or table not in _EMPTY else self.emptied
            rows.setdefault(table, {})[row] = error

    def without(self, rows: TableRows) -> TableRows:
        """Returns rows of a table without those that were refused; texts of books are emptied or escaped instead."""
        if self.encoding and rows.table in ESCAPED:
            rows = _with_escapes(rows)
        if rows.table in self.emptied:
            rows = _emptied(rows, self.emptied[rows.table])
        if rows.table in self.left_out:
            refused = f"{_key_sql(key_of(rows.table))} IN ({', '.join(map(engine.literal, self.left_out[rows.table]))})"
            relation = rows.relation.filter(f"NOT coalesce({refused}, false)")
            rows = rows._replace(relation=relation, row_count=len(relation))
        return rows

    def unseen(self, read: ReadTable, known: ExistingTables) -> ReadTable:
        """Returns `read` without rows that failed loads stored: their messages count as new, and are merged again."""
        attempts = pa.array([epoch_ms(datetime.fromisoformat(time)) for time in self.attempts], pa.int64())

        def rows(table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
            if UUID_TS not in known.get(table, {}):
                yield from read(table, columns)
                return
            for batch in read(table, list(dict.fromkeys([*columns, UUID_TS]))):
                stored_at = pc.divide(batch[UUID_TS].cast(pa.int64()), 1_000)
                yield batch.filter(pc.invert(pc.is_in(stored_at, attempts))).select(list(columns))

        return rows if self.attempts else read


def drop(pipeline: dlt.Pipeline) -> None:
    """Deletes a pipeline's file of what its destination refused."""
    shutil.rmtree(Path(pipeline.working_dir, FILE).parent, ignore_errors=True)


def target_of(pipeline: dlt.Pipeline) -> str:
    """Returns a description of a pipeline's destination, without its secrets."""
    config = client_for(pipeline, Schema(SOURCE)).config
    return f"{config.destination_type.rpartition('.')[2]} {config}, dataset {pipeline.dataset_name}"


def key(parts: Collection[object]) -> str:
    """Returns the text that identifies a row: the cells of its key, one per line."""
    return "\n".join(map(str, parts))


def _key_sql(columns: Sequence[str]) -> str:
    return f"concat_ws(chr(10), {', '.join(map(engine.name, columns))})"


_ERROR = "message"  # the column that takes the error of an emptied row
# The columns of the books that are emptied.
_EMPTY = {book: columns[0] for book, columns in ESCAPED.items()}
# Every encoding of a database has ASCII, and escapes do not change what a line of JSON means.
_ASCII = r"""CASE WHEN strlen({text}) = length({text}) THEN {text} ELSE array_to_string(
    list_transform(regexp_extract_all({text}, '(?s).'), lambda c: CASE
    WHEN unicode(c) < 128 THEN c
    WHEN unicode(c) < 65536 THEN format('\u{{:04X}}', unicode(c))
    ELSE format('\u{{:04X}}\u{{:04X}}', 55232 + (unicode(c) >> 10), 56320 + (unicode(c) & 1023)) END), '') END"""


def _with_escapes(rows: TableRows) -> TableRows:
    """Returns the rows of a book with ASCII texts."""
    cells = {name: engine.name(name) for name in rows.columns}
    for text in ESCAPED[rows.table]:
        cells[text] = f"{_ASCII.format(text=cells[text])} AS {cells[text]}"
    return rows._replace(relation=rows.relation.project(", ".join(cells.values())))


def _emptied(rows: TableRows, errors: Errors) -> TableRows:
    """Returns the rows; those with one of these ids have an empty text, and the error as their message."""
    cells = {name: engine.name(name) for name in rows.columns}
    ids = ", ".join(map(engine.literal, errors))
    text = _EMPTY[rows.table]
    cells[text] = f"CASE WHEN id IN ({ids}) THEN '' ELSE {cells[text]} END AS {cells[text]}"
    if _ERROR in cells:
        cases = " ".join(f"WHEN {engine.literal(id_)} THEN {engine.literal(why)}" for id_, why in errors.items())
        cells[_ERROR] = f"CASE id {cases} ELSE {_ERROR} END AS {_ERROR}"
    return rows._replace(relation=rows.relation.project(", ".join(cells.values())))
