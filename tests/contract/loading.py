"""Lines for tests, and quick loads of them into a destination in memory."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from autopilothq.catalog import MAX_EVENT_TABLES, OTHER_LIMITS, TABLES, Limits, Type
from autopilothq.projection import FileCount, Projection, TableRows
from autopilothq.projection.cells import ParsedCells
from autopilothq.projection.context import ProjectionContext, SharedContext, every_table
from autopilothq.projection.deduplicate import LeftOut
from autopilothq.projection.types import ARROW
from autopilothq.segment.identity import NOBODY
from autopilothq.segment.message import Batch, Reject
from autopilothq.segment.naming import snake_case

SCHEMA = pa.schema([("file", pa.int32()), ("line", pa.int64()), ("text", pa.large_binary())])
Line = bytes | str | Mapping[str, Any]
Row = dict[str, Any]

NOW = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
RECEIVED = datetime(2019, 3, 4, 5, 6, 7, 412000, tzinfo=UTC)


def projection_context(
    con: duckdb.DuckDBPyConnection, scratch: str = "", cells: ParsedCells | None = None, **others: Any
) -> ProjectionContext:
    """Returns the context that the steps of a projection share, for tests of single steps. Names stay as they are."""
    usual: dict[str, Any] = {"memory": 200, "loaded_at": NOW.isoformat(), "shorten": str, "event_table": str}
    return ProjectionContext(con=con, scratch=scratch, cells=cells or ParsedCells(), **{**usual, **others})


def new_projection(scratch: object, loaded_at: datetime = NOW, threads: int = 2, **others: Any) -> Projection:
    """Returns a projection into an empty folder; names stay as they are. `others` are fields of `SharedContext`."""
    shorten: Callable[[str], str] = others.get("shorten", str)
    usual: dict[str, Any] = {
        "memory": 400, "shorten": shorten, "event_table": lambda key: shorten(key) if snake_case(key) else ""
    }  # fmt: skip
    shared = SharedContext(loaded_at=loaded_at.isoformat(), **{**usual, **others})
    return Projection(shared, str(scratch), threads)


# ---- lines ---------------------------------------------------------------------------------------------------------


def message(event: str | None = "Email Opened", /, **changes: Any) -> dict[str, Any]:
    """Returns a track of `event` with an id, a user, a time of receipt, and the changes; `...` removes a key."""
    fields = {
        "type": "track",
        "event": event,
        "messageId": "m1",
        "userId": "u1",
        "receivedAt": "2019-03-04T05:06:07.412Z",
        **changes,
    }
    return {key: value for key, value in fields.items() if value is not ...}


def identify(**changes: Any) -> dict[str, Any]:
    """Returns an identify with an id, a user, a time of receipt, and the changes."""
    return message(None, **{"type": "identify", "event": ..., **changes})


def to_line(line: Line) -> bytes:
    """Returns a line as bytes, without a line break."""
    if isinstance(line, bytes):
        return line
    return line.encode() if isinstance(line, str) else json.dumps(line, ensure_ascii=False).encode()


def raw(message: Mapping[str, Any], **values: str) -> str:
    """Returns a message as JSON text, with each string "$name" replaced by the JSON text that `values` has for it.

    Example: `raw(message(properties={"n": "$n"}), n="1.10")` has the number 1.10, which Python would spell 1.1.
    """
    text = json.dumps(message, ensure_ascii=False)
    for name, value in values.items():
        text = text.replace(f'"${name}"', value)
    return text


def write(name: str, *lines: Line) -> Path:
    """Writes a file of the folder `archive` in the current folder; returns its path."""
    path = Path("archive", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(to_line(line) + b"\n" for line in lines))
    return path


# ---- without dlt ---------------------------------------------------------------------------------------------------


class Store:
    """A destination in memory that merges as dlt does: stored rows stay as they are, those of users are replaced.

    Example: `Store().run([message()])["tracks"][0]["id"] == "m1"`.
    """

    def __init__(self, limits: Limits = OTHER_LIMITS, max_event_tables: int = MAX_EVENT_TABLES) -> None:
        self.limits = limits
        self.shorten: Callable[[str], str] = str
        self.max_event_tables = max_event_tables
        self.beyond_limits: dict[str, dict[str, int]] = {}
        self.types: dict[str, dict[str, Type]] = {}
        self.rows: dict[str, dict[str, Row]] = {}
        self.audit: list[FileCount] = []
        self.loads = 0
        self.complete: set[str] = set()
        self.suppressed = NOBODY
        self.fills: Callable[[str], bool] = every_table

    def run(
        self, *files: Sequence[Line], chunks: Callable[[int], int] | None = None, rejects: Sequence[Reject] = ()
    ) -> dict[str, list[Row]]:
        """Loads some files, together with the rejects of their origin; returns the rows of all tables.

        `chunks(n)` returns how many of the n remaining lines the next batch takes.
        """
        scratch = tempfile.mkdtemp()
        self.loads += 1
        options: dict[str, Any] = {"shorten": self.shorten, "fills": self.fills, "limits": self.limits}
        projection = new_projection(scratch, NOW + timedelta(days=self.loads), **options)
        try:
            for batch in batches(files, chunks):
                projection.add(batch)
            projection.add(Batch(SCHEMA.empty_table(), list(rejects), [], 0))
            made = projection.deduplicate(
                self.types,
                self._read,
                self.complete,
                LeftOut(self.suppressed),
                widths={name: len(types) for name, types in self.types.items()},
                event_tables=[name for name in self.types if name not in TABLES],
                max_event_tables=self.max_event_tables,
            )
            for rows in made.tables():
                if self.fills(rows.table):
                    self._merge(rows)
            names = [f"file {number}" for number in range(len(files))]
            for book in (*made.latest(self._read), made.rejects(names), made.discards()):
                if book is not None:
                    self._merge(book)
            self.beyond_limits = made.beyond_limits()
            self.audit = sorted(made.counts())
            self._end_load()
        finally:
            projection.close()
            shutil.rmtree(scratch)
        return self.tables()

    def tables(self) -> dict[str, list[Row]]:
        """Returns the rows of all tables, in the order of their ids."""
        return {name: [rows[key] for key in sorted(rows)] for name, rows in self.rows.items() if name != "_audit"}

    def _merge(self, rows: TableRows) -> None:
        found = rows.relation.to_arrow_table().to_pylist()
        assert len(found) == rows.row_count, f"{rows.table} has {len(found)} rows, but {rows.row_count} were announced"
        assert len({row["id"] for row in found}) == len(found), f"{rows.table} has an id twice"
        assert all(self.types.get(rows.table, {}).get(name, of) == of for name, of in rows.columns.items())
        before, columns = self.types.get(rows.table, {}), dict(rows.columns)
        self.types[rows.table] = before | columns
        stored = self.rows.setdefault(rows.table, {})
        new, missing = (dict.fromkeys(of.keys() - names) for of, names in ((columns, before), (before, columns)))
        for row in stored.values() if new else ():
            row.update(new)
        for row in found:
            if rows.table in ("users", "accounts") or row["id"] not in stored:
                stored[row["id"]] = row | missing

    def _end_load(self) -> None:
        """Writes the books of a load that was not killed."""
        self.complete.add(f"{self.loads}")
        self.types["_audit"] = {"load_id": "text", "loaded_at": "timestamp"}
        row = {"load_id": f"{self.loads}", "loaded_at": NOW + timedelta(days=self.loads)}
        self.rows.setdefault("_audit", {})[f"{self.loads}"] = row

    def kill(self, *lost: str) -> None:
        """Changes the store as if the last load had been killed before it wrote these tables."""
        self.complete.remove(f"{self.loads}")
        for table in lost:
            self.rows.pop(table, None)
            self.types.pop(table, None)

    def _read(self, table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        types = self.types[table]
        schema = pa.schema([(name, ARROW[types[name]]) for name in columns])
        rows = [{name: row[name] for name in columns} for row in self.rows[table].values()]
        yield from pa.Table.from_pylist(rows, schema).to_batches()


def batches(files: Iterable[Sequence[Line]], chunks: Callable[[int], int] | None = None) -> Iterator[Batch]:
    """Yields the lines of the files in batches, as an origin does."""
    lines = [
        {"file": number, "line": at, "text": to_line(line) + b"\n"}
        for number, file in enumerate(files)
        for at, line in enumerate(file, 1)
    ]
    while lines:
        take = max(1, chunks(len(lines))) if chunks else len(lines)
        yield Batch(pa.Table.from_pylist(lines[:take], SCHEMA), [], [], 0)
        lines = lines[take:]


def rows_of(*lines: Line) -> dict[str, list[Row]]:
    """Returns the tables after one quick load of these lines."""
    return Store().run(lines)


def row(*lines: Line, table: str = "email_opened") -> Row:
    """Returns the only row that a quick load of these lines leaves in a table, without its nulls."""
    (found,) = rows_of(*lines)[table]
    return filled(found)


def filled(row: Row) -> Row:
    """Returns a row without its nulls, and without `uuid_ts`."""
    return {name: value for name, value in row.items() if value is not None and name != "uuid_ts"}


def cell(*lines: Line, column: str, table: str = "email_opened") -> Any:
    """Returns a cell of the row with the last id after a quick load."""
    return rows_of(*lines)[table][-1].get(column)


class Case(NamedTuple):
    """The result of a case: the types of its table's columns, its rows, and the values that were discarded."""

    types: dict[str, Type]
    rows: list[Row]
    discards: list[tuple[str, str, str]]


def cases(bodies: Sequence[Sequence[str]], key: str = "properties") -> list[Case]:
    """Loads many cases at once: each is an event whose messages have these objects, given as JSON text, at `key`."""
    lines = [
        raw(message(f"Case {n}", messageId=f"{n}.{at:02}", **{key: "$b"}), b=body)
        for n, texts in enumerate(bodies)
        for at, body in enumerate(texts)
    ]
    store = Store()
    found = store.run(lines)
    kept: dict[str, list[tuple[str, str, str]]] = {}
    for table, _, column, value, reason in discards(found):
        kept.setdefault(table, []).append((column, value, reason))
    names = [f"case_{n}" for n in range(len(bodies))]
    return [Case(store.types[name], found[name], kept.get(name, [])) for name in names]


def discards(found: Mapping[str, list[Row]]) -> list[tuple[str, str, str, str, str]]:
    """Returns the discards of a load, sorted: table, row, column, value, reason."""
    names = ("table_name", "row_id", "column_name", "value", "reason")
    return sorted(tuple(row[name] for name in names) for row in found.get("_discards", []))
