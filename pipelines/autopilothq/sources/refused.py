"""What the destination refused: kept in the pipeline's working folder until a load without it is complete.

The file names ids of messages and persons, so it is deleted as soon as it has served. What is in it holds for one
destination: another one may take what this one refuses.
"""

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Self

import dlt
import pyarrow as pa
import pyarrow.compute as pc

from .. import private
from ..catalog import BOOKS
from ..projection import ExistingTables, ReadTable, TableRows, engine
from ..warehouses.dlt_internals import logger

# Below the pipeline's working folder, in a folder whose name `forget` knows: it removes them.
FILE = "autopilothq-refused/refused.json"
UUID_TS = "uuid_ts"
Errors = dict[str, str]
"""Why the destination refused what is known by such a key."""


@dataclass
class RefusedMessages:
    """What to leave out of the next load.

    `attempts` are the times at which the loads that failed began, as their rows have them in `uuid_ts` (ISO 8601).
    `messages` are known by their id, `users` and `accounts` by the user's and the group's; in `emptied` and `left_out`
    a table's rows are known by their `key`. A row of the books is emptied of its text at first, any other one left out
    at once. `load_id` is the load that was made without all these.
    """

    place: str
    attempts: list[str] = field(default_factory=list)
    messages: Errors = field(default_factory=dict)
    users: Errors = field(default_factory=dict)
    accounts: Errors = field(default_factory=dict)
    emptied: dict[str, Errors] = field(default_factory=dict)
    left_out: dict[str, Errors] = field(default_factory=dict)
    load_id: str | None = None

    @classmethod
    def read(cls, pipeline: dlt.Pipeline) -> Self:
        """What was refused by the place that the pipeline loads into; nothing where the file is missing or damaged."""
        place = target_of(pipeline)
        path = Path(pipeline.working_dir, FILE)
        try:
            found = cls(**json.loads(path.read_bytes()))
            return found if found.place == place else cls(place)
        except FileNotFoundError:
            return cls(place)
        except (OSError, ValueError, TypeError) as error:
            logger.warning(f"{path} cannot be read, and is ignored: {error}")
            return cls(place)

    @classmethod
    def begin(cls, pipeline: dlt.Pipeline, complete_loads: Callable[[], Collection[str]], load_id: str | None) -> Self:
        """Returns what the load `load_id` must leave out: nothing where a complete load left it out already."""
        refused = cls.read(pipeline)
        if refused.load_id is not None and refused.load_id in complete_loads():
            return cls(refused.place)
        if refused:
            refused.load_id = load_id
            refused.write(pipeline)
        return refused

    def write(self, pipeline: dlt.Pipeline) -> None:
        """Keeps it; a kill leaves the old file or the new one."""
        path = Path(pipeline.working_dir, FILE)
        private.folder(path.parent)
        aside = path.with_suffix(".new")
        with private.opened(aside, "w") as file:
            json.dump(asdict(self), file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)

    def __len__(self) -> int:
        books = (*self.emptied.values(), *self.left_out.values())
        return sum(map(len, (self.messages, self.users, self.accounts, *books)))

    def note(self, table: str, errors: Errors) -> None:
        """Notes rows of a table that is neither one of messages nor made of them, by their `key`."""
        for row, error in errors.items():
            again = row in self.emptied.get(table, {})
            way = self.left_out if again or table not in _EMPTY else self.emptied
            way.setdefault(table, {})[row] = error

    def without(self, rows: TableRows, columns: Sequence[str]) -> TableRows:
        """Rows without those that were refused; `columns` are the table's key."""
        if rows.table in self.emptied:
            rows = _emptied(rows, self.emptied[rows.table])
        if rows.table in self.left_out:
            gone = f"{_key_sql(columns)} IN ({', '.join(map(engine.literal, self.left_out[rows.table]))})"
            relation = rows.relation.filter(f"NOT coalesce({gone}, false)")
            rows = rows._replace(relation=relation, number=len(relation))
        return rows

    def unseen(self, read: ReadTable, known: ExistingTables) -> ReadTable:
        """`read`, without the rows that the failed loads stored: they count as new, and are merged once more."""
        attempts = pa.array([_milliseconds(datetime.fromisoformat(time)) for time in self.attempts], pa.int64())

        def rows(table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
            if UUID_TS not in known.get(table, {}):
                yield from read(table, columns)
                return
            for batch in read(table, list(dict.fromkeys([*columns, UUID_TS]))):
                stored_at = pc.divide(batch[UUID_TS].cast(pa.int64()), 1_000)
                yield batch.filter(pc.invert(pc.is_in(stored_at, attempts))).select(list(columns))

        return rows if self.attempts else read


def drop(pipeline: dlt.Pipeline) -> None:
    """Forgets what was refused."""
    shutil.rmtree(Path(pipeline.working_dir, FILE).parent, ignore_errors=True)


def target_of(pipeline: dlt.Pipeline) -> str:
    """Where a pipeline loads to, without its secrets."""
    config = pipeline.destination_client().config
    return f"{config.destination_type.rpartition('.')[2]} {config}, dataset {pipeline.dataset_name}"


def key(parts: Collection[object]) -> str:
    """What a row is known by, from the cells of its key."""
    return "\n".join(map(str, parts))


def _key_sql(columns: Sequence[str]) -> str:
    return f"concat_ws(chr(10), {', '.join(map(engine.name, columns))})"


# What is taken out of a row of the books, and what takes the error.
_EMPTY = {book.name: text for book, text in zip(BOOKS, ("raw", "value"), strict=False)}
_TOLD = "message"


def _emptied(rows: TableRows, errors: Errors) -> TableRows:
    """The rows, those of these keys without their text."""
    cells = {name: engine.name(name) for name in rows.columns}
    ids = ", ".join(map(engine.literal, errors))
    text = _EMPTY[rows.table]
    cells[text] = f"CASE WHEN id IN ({ids}) THEN '' ELSE {cells[text]} END AS {cells[text]}"
    if _TOLD in cells:
        words = " ".join(f"WHEN {engine.literal(id_)} THEN {engine.literal(why)}" for id_, why in errors.items())
        cells[_TOLD] = f"CASE id {words} ELSE {_TOLD} END AS {_TOLD}"
    return rows._replace(relation=rows.relation.project(", ".join(cells.values())))


def _milliseconds(time: datetime) -> int:
    """Some destinations keep no more digits of a time."""
    return int(time.timestamp() * 1_000_000) // 1_000
