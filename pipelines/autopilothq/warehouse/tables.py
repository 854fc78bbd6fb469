"""Cells -> rows of each table: the second half of a load, when all its lines are known (spec: Once, and only once)."""

import itertools
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa

from ..catalog import (
    AUDIT,
    BOOKS,
    COLUMN_RESERVE,
    COMMON,
    CONTEXT,
    EVENT_TABLES,
    IDENTIFIES,
    KINDS,
    LIMIT_REASONS,
    LINK,
    MAX_EVENT_TABLES,
    MESSAGE_TABLES,
    PROPERTIES,
    REJECT_REASONS,
    TRACKS,
    USERS,
    Column,
    Limits,
    Table,
    Type,
    event_table,
)
from ..messages import EXTRA, digest, storable, to_json
from ..naming import snake_case, table_name
from . import forgotten, values

FEW = 50_000  # rows that may be gathered in memory
REJECTS_PER_READ = 500  # each of up to 1 MiB
LINES = 1 << 40  # a line's number in the load is its file's number times this, plus its number in the file
COLUMN_MEMORY = 0.25  # MB that a column more may take
CELLS_AT_ONCE = 4_000_000  # cells of a wide table that are made in memory at a time

Known = Mapping[str, Mapping[str, Type]]
"""Tables that are there already, with the types of their columns."""
Stored = Callable[[str, Sequence[str]], Iterable[pa.RecordBatch]]
"""Reads columns of a table of the destination."""

SQL_TYPES: dict[Type, str] = {
    "text": "VARCHAR",
    "bigint": "BIGINT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMPTZ",
}


class Rows(NamedTuple):
    """Rows for one table: its columns in the order of a new table, their types, and a relation that has them."""

    table: str
    columns: Mapping[str, Type]
    relation: duckdb.DuckDBPyRelation
    number: int

    def write(self, path: str) -> None:
        """Writes them into a Parquet file. Rows of many columns stand in small groups, which take less memory."""
        group = max(2_048, min(122_880, CELLS_AT_ONCE // len(self.columns)))
        self.relation.to_parquet(path, compression="snappy", row_group_size=group)


@dataclass
class Cells:
    """What waits for the end of the lines: files of messages, files of cells that the catalogue does not know.

    `columns` are, by the kind of message and the event's name as JSON text, the columns beyond the catalogue's that the
    files of messages have.
    """

    messages: list[str] = field(default_factory=list)
    extras: list[str] = field(default_factory=list)
    columns: dict[tuple[str, str | None], dict[str, None]] = field(default_factory=dict)

    def learn(self, con: duckdb.DuckDBPyConnection, source: str, extras: Sequence[str]) -> None:
        """Learns the kinds and events among some messages, and which of `extras` each has."""
        counts = "".join(f", count({values.name(extra)})" for extra in extras)
        for kind, event, *numbers in con.execute(
            f"SELECT kind, event{counts} FROM {source} GROUP BY kind, event"
        ).fetchall():
            columns = self.columns.setdefault((kind, event), {})
            columns |= dict.fromkeys(extra for extra, number in zip(extras, numbers, strict=True) if number)

    def extend(self, more: "Cells") -> None:
        """Takes what another one has."""
        self.messages += more.messages
        self.extras += more.extras
        for key, columns in more.columns.items():
            self.columns.setdefault(key, {}).update(columns)

    def delete(self) -> None:
        """Deletes the files."""
        for path in (*self.messages, *self.extras):
            Path(path).unlink(missing_ok=True)

    def events(self) -> list[str]:
        """The events' names, as JSON text."""
        return [event for _, event in self.columns if event is not None]

    def tables(self) -> set[str]:
        """The names of the events' tables, as they are before the destination's limits."""
        return {name for name in (table_name(json.loads(event)) for event in self.events()) if name}


class _Extra(NamedTuple):
    """A column beyond the catalogue's of one table: its type, its name there, and where its values wait."""

    type: Type
    name: str
    wide: bool
    tall: bool
    known: bool


class FileCount(NamedTuple):
    """What became of a file's lines: `lines == stored + duplicates + rejected`. `number` is the file's in the load."""

    number: int
    lines: int
    stored: int
    duplicates: int
    rejected: int
    first_received_at: datetime | None
    last_received_at: datetime | None


class Settled:
    """A load whose messages are known to be new or not; made by `Warehouse.settle`."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        scratch: str,
        memory: int,
        cells: Cells,
        known: Known,
        loaded_at: datetime,
        shorten: Callable[[str], str],
        limits: Limits,
        widths: Mapping[str, int],
        only: str = "true",
    ) -> None:
        self._con = con
        self._scratch = scratch
        self._memory = memory
        self._cells = cells
        self._known = known
        self._loaded_at = f"TIMESTAMPTZ '{loaded_at.isoformat()}'"
        self._shorten = shorten
        self._limits = limits
        self._widths = widths
        self._few: set[int] = set()
        self._places = [table.name for table in MESSAGE_TABLES]
        self._events: dict[str, int] = {}
        self._made: dict[int, Rows] = {}
        self._numbers = itertools.count()
        self._without_table: dict[str, int] = {}
        self._tall: dict[int, dict[str, tuple[int, int]]] = {}
        con.execute(_SETTLE_SQL)
        self._views(only)
        self._place_events()

    def _views(self, only: str) -> None:
        files = ", ".join(map(values.glob_literal, self._cells.messages))
        repeated = values.name(REPEATED)
        there = any(REPEATED in columns for columns in self._cells.columns.values())
        # A property `event` that only repeats the event's name or slug is dropped.
        repeats = f"coalesce(list_contains(e.names, {repeated}), false)"
        own = f" REPLACE (CASE WHEN NOT {repeats} THEN {repeated} END AS {repeated})" if there else ""
        self._con.execute(f"""
            CREATE VIEW messages AS
            SELECT m.*{own}, coalesce(e.place, k.place) AS place, e.slug, e.event_text
            FROM (SELECT * EXCLUDE (again) FROM read_parquet([{files}], union_by_name = true)
                WHERE NOT again AND {only}) m
            LEFT JOIN events e ON e.event = m.event LEFT JOIN kinds k ON k.kind = m.kind""")
        extras = ", ".join(map(values.glob_literal, self._cells.extras))
        source = f"read_parquet([{extras}])" if extras else "no_extras"
        self._con.execute(f'CREATE VIEW extras AS SELECT seq, "column", value FROM {source}')
        self._con.execute(_VIEWS_SQL)

    # Which messages stay ------------------------------------------------------------------------------------------

    def settle(
        self,
        stored: Stored | None = None,
        complete: Collection[str] = (),
        hashes: Collection[tuple[str, str]] = (),
        event_tables: Collection[str] = (),
        max_event_tables: int = MAX_EVENT_TABLES,
    ) -> None:
        """Finds the messages that do not stay.

        A load that was killed between two tables is completed: a track counts as stored only when the table of its
        event has it too.
        """
        if hashes:
            self._suppress(hashes)
        self._con.execute(_LOSERS_SQL)
        self._limit_tables(event_tables, max_event_tables)
        self._discard_bodies()
        if stored is not None:
            for place, table in enumerate(MESSAGE_TABLES):
                if table.name in self._known:
                    self._match(place, stored(table.name, ["id", "event"] if table is TRACKS else ["id"]))
            for (event,) in self._con.execute(_HALF_STORED_SQL).fetchall():
                self._keep_whole(event, stored(event, ["id"]) if event in self._known else ())
            self._confirm_discards(stored, complete)
        self._con.execute("INSERT INTO dead SELECT DISTINCT seq FROM hits")
        self._tall = self._tall_kinds("live")

    def _place_events(self) -> None:
        """Gives each event its table."""
        places = {name: place for place, name in enumerate(self._places)}
        rows = []
        for event in dict.fromkeys(self._cells.events()):
            name: str = json.loads(event)
            slug = table_name(name)
            table = self._shorten(slug) if slug else TRACKS.name
            place = places.setdefault(table, len(places))
            self._events[event] = place
            names = [to_json(text) for text in (name, snake_case(name), f"_{snake_case(name)}")]
            text = name if storable(name) else None
            rows.append(
                {"event": event, "place": place, "slug": table if slug else None, "event_text": text, "names": names}
            )
        self._places = list(places)
        if rows:
            self._con.register("event_rows", pa.Table.from_pylist(rows, _EVENTS))
            self._con.execute("INSERT INTO events FROM event_rows")
            self._con.unregister("event_rows")

    def _limit_tables(self, there: Collection[str], most: int) -> None:
        """Events beyond the dataset's number of tables are in `tracks` alone; those with most messages come first."""
        own = len(MESSAGE_TABLES)
        has_table = {*there, *self._known, *(table.name for table in EVENT_TABLES)}
        new = [place for place in range(own, len(self._places)) if self._places[place] not in has_table]
        room = max(0, most - len(there))
        if len(new) <= room:
            return
        counts = dict(self._con.execute("SELECT place, count(*) FROM live GROUP BY place").fetchall())
        new.sort(key=lambda place: (-counts.get(place, 0), self._places[place]))
        self._without_table = {self._places[place]: counts.get(place, 0) for place in new[room:]}
        beyond = set(new[room:])
        self._events |= {event: 0 for event, place in self._events.items() if place in beyond}
        self._con.register("beyond", pa.table({"place": pa.array(list(beyond), pa.int32())}))
        self._con.execute("UPDATE events SET place = 0 WHERE place IN (SELECT place FROM beyond)")
        self._con.unregister("beyond")

    def _suppress(self, hashes: Collection[tuple[str, str]]) -> None:
        """Messages of forgotten persons, and rejected lines that mention them, are rejected without their text."""
        forgotten.remember(self._con, hashes)
        keys: list[int] = []
        with self._con.cursor() as reader:
            raw = reader.sql("SELECT rowid AS key, raw || chr(10) || message AS text FROM rejects")
            for batch in raw.to_arrow_reader(REJECTS_PER_READ):
                keys += forgotten.mentioning(self._con, batch["key"], batch["text"])
        why = values.literal(REJECT_REASONS["suppressed"])
        self._con.execute(
            f"UPDATE rejects SET reason = 'suppressed', message = {why}, raw = '' WHERE rowid IN (SELECT unnest(?))",
            [keys],
        )
        if forgotten.suppress(self._con):
            # There is a hash only, which is the same when the message comes again, from another scan too.
            self._con.execute(
                f"INSERT INTO rejects SELECT seq, sha256(concat('suppressed', id)), 'suppressed', {why}, ''"
                " FROM suppressed"
            )
            self._leave_out("suppressed")

    def _leave_out(self, table: str) -> None:
        """The messages whose `seq` a table has are none of this load any more."""
        all_messages = values.name(f"all_but_{table}")
        self._con.execute(f"ALTER VIEW messages RENAME TO {all_messages}")
        self._con.execute(f"CREATE VIEW messages AS FROM {all_messages} ANTI JOIN {table} USING (seq)")

    def refuse(
        self,
        messages: Mapping[str, str],
        users: Mapping[str, str],
        lines: Callable[[Collection[int]], Iterable[tuple[int, bytes]]],
    ) -> None:
        """Messages with these ids, and the identifies of these users, are rejected with the errors given for them.

        The rows of the other users whose identifies are rejected are made again, without these.
        """
        for name, errors in (("given", messages), ("given_users", users)):
            self._con.register(name, values.text_table([{"id": i, "error": e} for i, e in errors.items()], _ERROR))
        self._con.execute(_REFUSED_SQL)
        self._con.unregister("given")
        self._con.unregister("given_users")
        numbers = [seq for (seq,) in self._con.execute("SELECT seq FROM refused").fetchall()]
        rows = [{"seq": seq, "id": digest(line), "raw": values.printable(line)} for seq, line in lines(numbers)]
        self._con.register("raw_lines", values.text_table(rows, ("seq", "id", "raw")))
        self._con.execute(
            "INSERT INTO rejects SELECT seq, coalesce(l.id, sha256(r.id)), 'unreadable', error, coalesce(raw, '')"
            " FROM refused r LEFT JOIN raw_lines l USING (seq)"
        )
        self._con.unregister("raw_lines")
        self._leave_out("refused")

    def _match(self, place: int, batches: Iterable[pa.RecordBatch]) -> None:
        event = "s.event" if MESSAGE_TABLES[place] is TRACKS else "NULL"
        values.read_stored(
            self._con,
            batches,
            f"INSERT INTO hits SELECT m.seq, {place}, {event} FROM stored s JOIN candidates m ON m.id = s.id",
        )

    def _keep_whole(self, table: str, batches: Iterable[pa.RecordBatch]) -> None:
        """Of the tracks of an event that `tracks` has, those alone are stored that the event's table has too."""
        place = self._places.index(table)
        self._con.execute("DELETE FROM whole")
        values.read_stored(
            self._con,
            batches,
            "INSERT INTO whole SELECT m.seq FROM stored s"
            " JOIN (FROM candidates SEMI JOIN hits USING (seq)) m ON m.id = s.id",
        )
        self._con.execute(
            "DELETE FROM hits WHERE place = 0 AND event = ? AND seq NOT IN (FROM whole)"
            " AND seq IN (SELECT seq FROM messages WHERE place = ?)",
            [table, place],
        )

    def _confirm_discards(self, stored: Stored, complete: Collection[str]) -> None:
        """The discards of a stored message stay where the load that stored it was killed: it may have lost them."""
        if self._con.execute("SELECT 1 FROM hits LIMIT 1").fetchone():
            self._discard_of_stored()
        self._con.execute("""
            CREATE OR REPLACE TEMP TABLE doubtful AS
            SELECT DISTINCT m.seq, m.id, m.received_at::TIMESTAMPTZ AS received_at, h.place
            FROM hits h JOIN messages m USING (seq) WHERE h.seq IN (SELECT seq FROM discards)""")
        places = self._con.execute("SELECT DISTINCT place FROM doubtful").fetchall()
        if places and AUDIT.name in self._known:
            audited = stored(AUDIT.name, ["load_id", "loaded_at"])
            values.read_stored(
                self._con,
                audited,
                f"INSERT INTO complete SELECT loaded_at FROM stored WHERE {_among('load_id', complete)}",
            )
        for (place,) in places:
            values.read_stored(
                self._con,
                stored(self._places[place], ["id", "received_at", "uuid_ts"]),
                "INSERT INTO confirmed SELECT d.seq FROM stored s JOIN doubtful d"
                " ON d.id = s.id AND d.received_at IS NOT DISTINCT FROM s.received_at::TIMESTAMPTZ"
                " WHERE s.uuid_ts NOT IN (FROM complete)",
            )

    def _discard_of_stored(self) -> None:
        """What the tables that are there did not take of messages that are stored."""
        tall = self._tall_kinds("messages SEMI JOIN hits USING (seq)")
        for place, table in enumerate(self._places):
            if table in self._known:
                where = f"{self._where(place)} AND seq IN (SELECT seq FROM hits)"
                # A load whose rows are there has made the columns that it could make: it had no room for others.
                found = dict.fromkeys((*self._wide(place), *tall.get(place, {})), (0, 0))
                self._take_extras(place, where, found, tall.get(place, {}), room=0)

    # The books ----------------------------------------------------------------------------------------------------

    def counts(self) -> list[FileCount]:
        """The books of the files, one entry each that has any."""
        return [
            FileCount(*row[:5], *(clock and clock.replace(tzinfo=UTC) for clock in row[5:]))
            for row in self._con.execute(_COUNTS_SQL).fetchall()
        ]

    def rejects_by_reason(self) -> dict[str, int]:
        """How many lines were rejected, by reason."""
        return dict(self._con.execute("SELECT reason, count(*) FROM rejects GROUP BY 1 ORDER BY 2 DESC, 1").fetchall())

    def beyond_limits(self) -> dict[str, dict[str, int]]:
        """How many values no table had room for, by reason and table; complete once `discards` was taken.

        Of events without a table (`too_many_tables`) these are the events' names and their messages.
        """
        found: dict[str, dict[str, int]] = {reason: {} for reason in LIMIT_REASONS}
        for reason, table, count in self._con.execute(
            "SELECT reason, table_name, count(*) FROM discarded GROUP BY ALL ORDER BY ALL"
        ).fetchall():
            if reason in found:
                found[reason][table] = count
        found["too_many_tables"] = dict(sorted(self._without_table.items()))
        return {reason: tables for reason, tables in found.items() if tables}

    def rejects(self, files: Sequence[str]) -> Rows | None:
        """`_rejects`; `files` are the names of the load's files. Each place of a line has a row of its own."""
        names = pa.table({"number": pa.array(range(len(files)), pa.int64()), "file": pa.array(files, pa.string())})
        self._con.register("files", names)
        self._con.execute(f"""
            CREATE OR REPLACE TABLE rejected AS
            SELECT * EXCLUDE (seq) FROM (
                SELECT file, line, reason, message, raw, {self._loaded_at} AS rejected_at, seq,
                    CASE WHEN reason = 'suppressed' THEN id ELSE sha256(concat_ws(chr(10), file, line, id)) END AS id
                FROM (SELECT *, seq & ({LINES} - 1) AS line FROM rejects) r JOIN files ON files.number = r.seq >> 40)
            QUALIFY row_number() OVER (PARTITION BY id ORDER BY seq, reason) = 1""")
        self._con.unregister("files")
        return self._book("rejected", "_rejects")

    def discards(self) -> Rows | None:
        """`_discards`; complete once the rows of all tables were taken.

        What neither `tracks` nor the event's table takes is told of the event's table.
        """
        names = pa.table({"place": pa.array(range(len(self._places)), pa.int64()), "name": list(self._places)})
        self._con.register("place_names", names)
        self._con.execute(f"""
            CREATE OR REPLACE TABLE discarded AS
            SELECT sha256(concat_ws(chr(10), table_name, row_id, column_name, value)) AS id, *,
                {self._loaded_at} AS discarded_at
            FROM (
                SELECT DISTINCT coalesce(d.table_name, p.name) AS table_name, m.id AS row_id, column_name, value,
                    reason, m.received_at::TIMESTAMPTZ AS received_at
                FROM discards d JOIN messages m USING (seq) JOIN place_names p USING (place)
                WHERE seq NOT IN (FROM dead) OR seq IN (FROM confirmed)
                QUALIFY row_number() OVER (
                    PARTITION BY seq, column_name, value, reason
                    ORDER BY coalesce(d.table_name, p.name) = '{TRACKS.name}', d.table_name) = 1
                UNION ALL FROM discards_of_users)
            QUALIFY row_number() OVER (PARTITION BY id ORDER BY reason) = 1""")
        self._con.unregister("place_names")
        return self._book("discarded", "_discards")

    def _book(self, source: str, table: str) -> Rows | None:
        book = next(book for book in BOOKS if book.name == table)
        columns: dict[str, Type] = {column.name: column.type for column in book.columns}
        count = self._number(f"SELECT count(*) FROM {source}")
        return (
            Rows(table, columns, self._con.sql(f"SELECT {', '.join(columns)} FROM {source}"), count) if count else None
        )

    # The rows of messages -----------------------------------------------------------------------------------------

    def tables(self) -> Iterator[Rows]:
        """The rows of each table that has any: the events', the other messages', `tracks`; not users and the books."""
        live = dict(self._con.execute("SELECT place, count(*) FROM live GROUP BY place ORDER BY 2").fetchall())
        tracks = sum(count for place, count in live.items() if place == 0 or place >= len(MESSAGE_TABLES))
        self._gather_few(live)
        for place, count in live.items():
            if place:
                yield self._rows(place, count)
        if tracks:
            yield self._rows(0, tracks)

    def _gather_few(self, live: Mapping[int, int]) -> None:
        """Small tables are taken from one pass over all messages, not from one each."""
        total = 0
        for place, count in live.items():
            total += count
            if place and total <= FEW:
                self._few.add(place)
        if self._few:
            places = ", ".join(map(str, self._few))
            self._con.execute(f"CREATE OR REPLACE TABLE few AS SELECT * FROM live WHERE place IN ({places})")

    def _rows(self, place: int, count: int) -> Rows:
        """The rows of a table: of an event, of a kind of message, or (place 0) the common columns of all events."""
        if place in self._made:
            return self._made[place]
        name = self._places[place]
        table = next((table for table in MESSAGE_TABLES if table.name == name), None) or event_table(name)
        where = self._where(place) if place else "kind = 'track'"
        source = "few" if place in self._few else "live"
        declared = _declared(table)
        if table not in MESSAGE_TABLES:
            present = self._present(name, f"{source} WHERE {where}", (*PROPERTIES, *LINK))
            declared |= {column.name: column.type for column in present}
        found = self._wide_kinds(place, f"{source} WHERE {where}")
        tall = self._tall.get(place, {})
        for column, (kinds, number) in tall.items():
            before = found.get(column, (0, 0))
            found[column] = before[0] | kinds, before[1] + number
        room = self._limits.columns - COLUMN_RESERVE - self._width(name, declared)
        extras = self._take_extras(place, where, found, tall, room)
        self._made[place] = self._relation(place, declared, extras, source, where, count)
        return self._made[place]

    def _width(self, table: str, declared: Collection[str]) -> int:
        """How many columns a table has, or will have before any that the catalogue does not know."""
        known = self._known.get(table, {})
        return max(self._widths.get(table, 0), len(known)) + len([name for name in declared if name not in known])

    def _where(self, place: int) -> str:
        """The messages of a table, in words that the engine can use to skip what is not asked for."""
        if place == 0:
            return "kind = 'track' AND place = 0"
        if place < len(MESSAGE_TABLES):
            return f"kind = {values.literal(next(kind for kind, table, _ in KINDS if table is MESSAGE_TABLES[place]))}"
        events = [values.literal(event) for event, at in self._events.items() if at == place]
        return f"event IN ({', '.join(events)})" if events else "false"

    def _wide(self, place: int) -> list[str]:
        """The columns beyond the catalogue's that a table's messages have in their files; of `tracks` the context's."""
        names: dict[str, None] = {}
        for (kind, event), columns in self._cells.columns.items():
            at = self._events[event] if event is not None else _PLACE_OF_KIND[kind]
            if at == place:
                names |= columns
            elif place == 0 and kind == "track":
                names |= {name: None for name in columns if name.startswith(f"{EXTRA}context_")}
        return [name.removeprefix(EXTRA) for name in names if place or name.startswith(f"{EXTRA}context_")]

    def _wide_kinds(self, place: int, source: str) -> dict[str, tuple[int, int]]:
        """The kinds of values, and their number, of each of these columns that has any."""
        found: dict[str, tuple[int, int]] = {}
        for part in values.batched(self._wide(place), 100):
            cells = [values.name(EXTRA + column) for column in part]
            row = self._con.execute(
                f"SELECT {', '.join(f'value_kinds({cell}), count({cell})' for cell in cells)} FROM {source}"
            ).fetchone()
            for column, kinds, number in zip(part, (row or ())[::2], (row or ())[1::2], strict=True):
                if number:
                    found[column] = kinds, number
        return found

    def _tall_kinds(self, messages: str) -> dict[int, dict[str, tuple[int, int]]]:
        """By place, the kinds of values and their number of columns that wait as rows; of `tracks` the context's."""
        found: dict[int, dict[str, tuple[int, int]]] = {}
        if not self._cells.extras:
            return found
        self._con.execute(f"CREATE OR REPLACE TEMP TABLE places AS SELECT seq, place, kind FROM {messages}")
        of_tracks = """CASE WHEN kind = 'track' AND starts_with("column", 'context_') THEN 0 ELSE NULL END"""
        for place, column, kinds, number in self._con.execute(f"""
            SELECT place, "column", value_kinds(value), count(*) FROM extras JOIN places USING (seq)
            WHERE place > 0 GROUP BY ALL
            UNION ALL
            SELECT {of_tracks} AS place, "column", value_kinds(value), count(*) FROM extras JOIN places USING (seq)
            WHERE {of_tracks} = 0 GROUP BY ALL""").fetchall():
            found.setdefault(place, {})[column] = kinds, number
        return found

    def _take_extras(
        self,
        place: int,
        where: str,
        found: Mapping[str, tuple[int, int]],
        tall: Collection[str],
        room: int,
    ) -> dict[str, _Extra]:
        """The columns beyond the catalogue's that a table gets; their types are its own, else by all their values.

        Columns that are there already are taken, and `room` more, those with most values first. What the table has no
        column for is discarded, and so is what does not fit its column.
        """
        table = self._places[place]
        known = self._known.get(table, {})
        wide = set(self._wide(place))
        names = {column: self._column(column) for column in found}
        new = sorted((c for c in found if names[c] not in known), key=lambda column: (-found[column][1], column))
        beyond = dict.fromkeys(new[max(0, room) :])
        self._discard_beyond(table, where, [c for c in beyond if c in wide], [c for c in beyond if c in tall])
        extras = {
            column: _Extra(
                known.get(names[column]) or values.type_of_kinds(kinds),
                names[column],
                column in wide,
                column in tall,
                names[column] in known,
            )
            for column, (kinds, _) in found.items()
            if column not in beyond
        }
        if place:  # `tracks` has none of its own
            typed = {column.name: column.type for column in (*CONTEXT, *PROPERTIES, *LINK)}
        else:
            typed = {column.name: column.type for column in CONTEXT}
        self._discard_misfits(table, where, typed, extras)
        return extras

    def _column(self, column: str) -> str:
        """The name that a column beyond the catalogue's has in the destination."""
        limits = self._limits
        taken = column in limits.reserved or column.startswith(limits.reserved_prefixes)
        return self._shorten(f"_{column}" if taken else column)

    def _present(self, table: str, source: str, columns: Sequence[Column]) -> list[Column]:
        """Those of `columns` that have a value among the rows, or that the table has already."""
        counts = ", ".join(f"count({values.name(column.name)})" for column in columns)
        found = self._con.execute(f"SELECT {counts} FROM {source}").fetchone() or ()
        known = self._known.get(table, {})
        return [column for column, number in zip(columns, found, strict=True) if number or column.name in known]

    # What no table takes ------------------------------------------------------------------------------------------

    def _discard_bodies(self) -> None:
        """The properties of events that have no table of their own have nowhere to go."""
        if 0 not in self._events.values():
            return
        reason = "CASE WHEN slug IS NULL THEN 'no_column' ELSE 'too_many_tables' END"
        cells = {
            column: values.name(EXTRA + column)
            for (_, event), columns in self._cells.columns.items()
            if event is not None and self._events[event] == 0
            for column in (name.removeprefix(EXTRA) for name in columns)
            if not column.startswith("context_")
        }
        for column in (*PROPERTIES, *LINK):
            cell = values.name(column.name)
            cells[column.name] = f"to_json({cell})::VARCHAR" if column.type == "text" else cell
        for name, cell in cells.items():
            self._con.execute(
                f"INSERT INTO discards SELECT seq, '{TRACKS.name}', ?, {cell}, {reason} FROM messages"
                f" WHERE {self._where(0)} AND {cell} IS NOT NULL",
                [name],
            )
        self._con.execute(
            f"INSERT INTO discards SELECT seq, '{TRACKS.name}', \"column\", value, {reason}"
            f" FROM extras JOIN (SELECT seq, slug FROM messages WHERE {self._where(0)}) m USING (seq)"
            " WHERE NOT starts_with(\"column\", 'context_')"
        )

    def _discard_beyond(self, table: str, where: str, wide: Sequence[str], tall: Sequence[str]) -> None:
        """The values of columns that a table has no room for."""
        for column in wide:
            cell = values.name(EXTRA + column)
            self._con.execute(
                f"INSERT INTO discards SELECT seq, ?, ?, {cell}, 'too_many_columns' FROM messages"
                f" WHERE {where} AND {cell} IS NOT NULL",
                [table, column],
            )
        if tall:
            self._con.register("beyond", pa.table({"column": pa.array(tall, pa.string())}))
            self._con.execute(
                f"INSERT INTO discards SELECT seq, ?, x.\"column\", value, 'too_many_columns'"
                f" FROM extras x SEMI JOIN (SELECT seq FROM messages WHERE {where}) m USING (seq)"
                ' SEMI JOIN beyond b ON b."column" = x."column"',
                [table],
            )
            self._con.unregister("beyond")

    def _discard_misfits(self, table: str, where: str, typed: Mapping[str, Type], extras: Mapping[str, _Extra]) -> None:
        """The values that cannot become their columns' types."""
        cells = {column: (values.name(column), of) for column, of in typed.items() if of != "text"}
        cells |= {
            column: (values.name(EXTRA + column), extra.type)
            for column, extra in extras.items()
            if extra.wide and extra.type != "text"
        }
        for part in values.batched(cells.items(), 100):
            misfits = {column: f"{cell} IS NOT NULL AND as_{of}({cell}) IS NULL" for column, (cell, of) in part}
            counts = ", ".join(f"count(*) FILTER ({misfit})" for misfit in misfits.values())
            numbers = self._con.execute(f"SELECT {counts} FROM messages WHERE {where}").fetchone() or ()
            for (column, misfit), number in zip(misfits.items(), numbers, strict=True):
                if number:
                    self._con.execute(
                        f"INSERT INTO discards SELECT seq, ?, ?, {cells[column][0]}, 'does_not_fit' FROM messages"
                        f" WHERE {where} AND {misfit}",
                        [table, column],
                    )
        tall = {column: extra.type for column, extra in extras.items() if extra.tall and extra.type != "text"}
        if tall:
            self._con.register("types", pa.table({"column": list(tall), "type": list(tall.values())}))
            misfit = " ".join(f"WHEN '{of}' THEN as_{of}(value) IS NULL" for of in set(tall.values()))
            self._con.execute(
                f"INSERT INTO discards SELECT seq, ?, x.\"column\", value, 'does_not_fit'"
                ' FROM extras x JOIN types t ON t."column" = x."column"'
                f" SEMI JOIN (SELECT seq FROM messages WHERE {where}) m USING (seq) WHERE CASE type {misfit} END",
                [table],
            )
            self._con.unregister("types")

    # Rows ---------------------------------------------------------------------------------------------------------

    def _relation(
        self,
        place: int,
        declared: Mapping[str, Type],
        extras: Mapping[str, _Extra],
        source: str,
        where: str,
        count: int,
    ) -> Rows:
        table = self._places[place]
        types: dict[str, Type] = {extra.name: extra.type for extra in extras.values()}
        columns = ordered({**declared, **types})
        cells = {extra.name: _extra_cell(column, extra) for column, extra in extras.items()}
        cells |= {column: self._declared_cell(column, of) for column, of in declared.items()}
        select = ", ".join(f"{cells[column]} AS {values.name(column)}" for column in columns)
        tall = {column: extra for column, extra in extras.items() if extra.tall}
        if not tall:
            return Rows(table, columns, self._con.sql(f"SELECT {select} FROM {source} WHERE {where}"), count)
        cells_of = self._tall_cells(tall, self._find_too_wide(table, where, declared, extras))
        # Each column takes buffers of its own, in every thread.
        self._con.execute(f"SET memory_limit = '{self._memory + int(COLUMN_MEMORY * len(columns))}MB'")
        rows = max(1, CELLS_AT_ONCE // len(columns))
        queries = [
            f"SELECT {select} FROM (FROM {source} WHERE {where} AND {part}) m"
            f" LEFT JOIN ({_pivot(tall, cells_of, part)}) USING (seq)"
            for part in self._parts(f"{source} WHERE {where}", rows)
        ]
        if len(queries) == 1:
            return Rows(table, columns, self._con.sql(queries[0]), count)
        files = [f"{self._scratch}/{place}-{number}-rows.parquet" for number in range(len(queries))]
        for path, query in zip(files, queries, strict=True):
            self._con.execute(f"COPY ({query}) TO {values.literal(path)} (FORMAT parquet, ROW_GROUP_SIZE {rows})")
        listed = ", ".join(map(values.glob_literal, files))
        return Rows(table, columns, self._con.sql(f"FROM read_parquet([{listed}])"), count)

    def _tall_cells(self, tall: Mapping[str, _Extra], without: str | None) -> str:
        """A view of the cells that wait as rows, each as the text of the value that its column will have."""
        number = next(self._numbers)
        types = pa.table({"column": list(tall), "type": [extra.type for extra in tall.values()]})
        self._con.register("types", types)
        self._con.execute(f"CREATE TABLE types_{number} AS FROM types")
        self._con.unregister("types")
        but = f' ANTI JOIN {without} USING (seq, "column")' if without else ""
        texts = " ".join(f"WHEN '{of}' THEN {text}" for of, text in _TALL_TEXTS.items())
        self._con.execute(
            f"CREATE VIEW cells_{number} AS SELECT seq, '{TALL}' || \"column\" AS name, CASE type {texts} END AS value"
            f' FROM (FROM extras{but}) JOIN types_{number} USING ("column")'
        )
        return f"cells_{number}"

    def _parts(self, source: str, most: int) -> list[str]:
        """Conditions that cut messages into parts of at most so many."""
        found = self._con.sql(f"SELECT seq FROM {source} ORDER BY seq").to_arrow_table()["seq"].to_numpy()
        return [
            f"seq BETWEEN {part[0]} AND {part[-1]}"
            for part in (found[start : start + most] for start in range(0, len(found), most))
        ] or ["true"]

    def _declared_cell(self, column: str, column_type: Type) -> str:
        name = values.name(column)
        if column == "uuid_ts":
            return self._loaded_at
        if column in _CLOCKS:
            return f"make_timestamptz(epoch_us({name}))"  # the engine's own cast asks for the zone's rules
        if column_type != "text":
            return f"as_{column_type}({name})"
        return "slug" if column == "event" else name

    def _find_too_wide(
        self, table: str, where: str, declared: Mapping[str, Type], extras: Mapping[str, _Extra]
    ) -> str | None:
        """A table of the cells (`seq`, `column`) that a row of the destination has no room for, None if there are none.

        They are discarded. The columns that the table has come first, the others by name.
        """
        if self._limits.row_bytes is None:
            return None
        room = self._limits.row_bytes - _row_bytes(declared.values(), len(declared) + len(extras))
        messages = f"(SELECT seq FROM messages WHERE {where})"
        if not self._con.execute(
            f"SELECT 1 FROM extras SEMI JOIN {messages} m USING (seq) GROUP BY seq"
            f" HAVING count(*) > {room // VALUE_BYTES} LIMIT 1"
        ).fetchone():
            return None
        name = f"too_wide_{next(self._numbers)}"
        tall = {column: extra for column, extra in extras.items() if extra.tall}
        self._con.register("widths", pa.table({
            "column": list(tall), "type": [extra.type for extra in tall.values()],
            "new": [not extra.known for extra in tall.values()],
        }))  # fmt: skip
        self._con.execute(
            f'CREATE TABLE {name} AS SELECT seq, "column", value FROM ('
            f'SELECT seq, x."column", value, sum({_VALUE_BYTES_SQL}) OVER (PARTITION BY seq'
            ' ORDER BY w.new, x."column" ROWS UNBOUNDED PRECEDING) AS bytes'
            f' FROM extras x JOIN widths w ON w."column" = x."column" SEMI JOIN {messages} m USING (seq))'
            f" WHERE bytes > {room}"
        )
        self._con.unregister("widths")
        self._con.execute(f"INSERT INTO discards SELECT seq, ?, \"column\", value, 'row_too_wide' FROM {name}", [table])
        return name

    # Persons ------------------------------------------------------------------------------------------------------

    def users(self, stored: Stored | None = None) -> Rows | None:
        """The persons of this load's identifies, each trait at its last value by `received_at` (spec: Identity).

        They are made from all identifies of the person, also those that are stored already, so that the order in which
        messages are loaded does not matter, nor that a load was killed.
        """
        self._con.execute("""
            CREATE OR REPLACE TABLE persons AS
            SELECT DISTINCT user_id AS id FROM messages WHERE kind = 'identify' AND user_id IS NOT NULL
            UNION SELECT user_id FROM refused WHERE again""")
        if not self._number("SELECT count(*) FROM persons"):
            return None
        fresh = self._rows(MESSAGE_TABLES.index(IDENTIFIES), 0)
        types = dict(fresh.columns)
        self._con.execute(f"CREATE OR REPLACE TABLE identified AS {fresh.relation.sql_query()}")
        known = self._known.get(IDENTIFIES.name, {})
        if stored is not None and known:
            types |= known
            for column in types.keys() - fresh.columns.keys():
                self._con.execute(f"ALTER TABLE identified ADD COLUMN {values.name(column)} {SQL_TYPES[types[column]]}")
            values.read_stored(
                self._con,
                stored(IDENTIFIES.name, list(known)),
                "INSERT INTO identified BY NAME FROM stored s SEMI JOIN persons p ON p.id = s.user_id",
            )
        return self._persons(types)

    def _persons(self, types: Mapping[str, Type]) -> Rows:
        own = {column.name for column in COMMON if column not in CONTEXT}
        traits = {column: column_type for column, column_type in types.items() if column not in own}
        columns = ordered(_declared(USERS) | traits)
        cells = {"id": "user_id", "received_at": "max(received_at)", "uuid_ts": self._loaded_at} | {
            column: f"arg_max({values.name(column)}, (coalesce(received_at, TIMESTAMPTZ '0001-01-01'), id))"
            for column in traits
        }
        select = ", ".join(
            f"({cells[column]})::{SQL_TYPES[of]} AS {values.name(column)}" for column, of in columns.items()
        )
        self._con.execute(
            f"CREATE OR REPLACE TABLE persons_now AS SELECT {select} FROM identified"
            " SEMI JOIN persons p ON p.id = user_id GROUP BY user_id"
        )
        self._narrow_persons(columns)
        count = self._number("SELECT count(*) FROM persons_now")
        return Rows(USERS.name, columns, self._con.sql("FROM persons_now"), count)

    def _narrow_persons(self, columns: Mapping[str, Type]) -> None:
        """Takes from the rows of persons what the destination's rows have no room for, the last columns first."""
        declared = _declared(USERS)
        traits = {column: of for column, of in columns.items() if column not in declared}
        if self._limits.row_bytes is None:
            return
        room = self._limits.row_bytes - _row_bytes(declared.values(), len(columns))
        if len(traits) * VALUE_BYTES <= room:
            return
        known = self._known.get(USERS.name, {})
        cells = ", ".join(
            f"{{'column': {values.literal(column)}, 'type': '{of}', 'new': {column not in known},"
            f" 'value': to_json({values.name(column)})::VARCHAR}}"
            for column, of in traits.items()
        )
        self._con.execute(
            f'CREATE OR REPLACE TABLE too_wide_persons AS SELECT id, received_at, "column", value FROM ('
            f' SELECT *, sum({_VALUE_BYTES_SQL}) OVER (PARTITION BY id ORDER BY new, "column"'
            " ROWS UNBOUNDED PRECEDING) AS bytes"
            f" FROM (SELECT id, received_at, unnest([{cells}], recursive := true) FROM persons_now)"
            f" WHERE value IS NOT NULL) WHERE bytes > {room}"
        )
        for (column,) in self._con.execute('SELECT DISTINCT "column" FROM too_wide_persons').fetchall():
            self._con.execute(
                f"UPDATE persons_now SET {values.name(column)} = NULL"
                ' WHERE id IN (SELECT id FROM too_wide_persons WHERE "column" = ?)',
                [column],
            )
        self._con.execute(
            f"INSERT INTO discards_of_users SELECT '{USERS.name}', id, \"column\", value, 'row_too_wide', received_at"
            " FROM too_wide_persons"
        )

    def _number(self, sql: str) -> int:
        found = self._con.execute(sql).fetchone()
        return int(found[0]) if found else 0


def ordered(types: Mapping[str, Type], key: Sequence[str] = ("id",)) -> dict[str, Type]:
    """The columns of a new table: its key, `received_at`, `uuid_ts`, then the rest by name (spec: Columns)."""
    first = (*key, "received_at", "uuid_ts")
    return {name: types[name] for name in (*first, *sorted(types.keys() - set(first)))}


def _among(column: str, texts: Collection[str]) -> str:
    return f"{column} IN ({', '.join(map(values.literal, texts))})" if texts else "false"


def _declared(table: Table) -> dict[str, Type]:
    return {column.name: column.type for column in table.columns}


# A property `event`, which may repeat the event's name.
REPEATED = f"{EXTRA}_event"
_CLOCKS = ("received_at", "sent_at", "original_timestamp", "timestamp")
_PLACE_OF_KIND = {"track": 0} | {kind: MESSAGE_TABLES.index(table) for kind, table, _ in KINDS}
_EVENTS = pa.schema(
    [
        ("event", pa.string()),
        ("place", pa.int32()),
        ("slug", pa.string()),
        ("event_text", pa.string()),
        ("names", pa.list_(pa.string())),
    ]
)

# What a value takes of a row of PostgreSQL at most, in bytes: longer text is stored elsewhere behind a pointer of 18,
# all else is up to 8 behind up to 7 that align it.
VALUE_BYTES = 24
_VALUE_BYTES_SQL = f"CASE WHEN type = 'text' THEN least(strlen(value) + 1, {VALUE_BYTES}) ELSE 15 END"


def _row_bytes(declared: Collection[Type], columns: int) -> int:
    """The bytes of a row without what the catalogue does not know: a head, a bit a column, declared values."""
    return 24 + (columns + COLUMN_RESERVE) // 8 + sum(VALUE_BYTES if of == "text" else 15 for of in declared)


TALL = "t:"  # before the name of a column that was made of rows
# What a value is as text while it waits for its column, and how it is read again: nothing is lost between.
_TALL_TEXTS: dict[Type, str] = {
    "text": "as_text(value)",
    "bigint": "as_bigint(value)::VARCHAR",
    "double": "as_double(value)::VARCHAR",
    "bool": "as_bool(value)::VARCHAR",
    "timestamp": "epoch_us(as_timestamp(value))::VARCHAR",
}


def _extra_cell(column: str, extra: _Extra) -> str:
    """A value that waits in a column, as a row, or for some messages so and for others so."""
    wide, tall = values.name(EXTRA + column), values.name(TALL + column)
    read_again = (
        f"make_timestamptz({tall}::BIGINT)" if extra.type == "timestamp" else f"{tall}::{SQL_TYPES[extra.type]}"
    )
    cells = [f"as_{extra.type}({wide})"] * extra.wide + [read_again] * extra.tall
    return cells[0] if len(cells) == 1 else f"coalesce({cells[0]}, {cells[1]})"


def _pivot(columns: Collection[str], cells: str, part: str) -> str:
    """A query that makes one row a message of cells of these columns; `part` chooses among the messages."""
    names = ", ".join(values.literal(TALL + column) for column in columns)
    return f"PIVOT (FROM {cells} WHERE {part}) ON name IN ({names}) USING first(value) GROUP BY seq"


_KINDS = ", ".join(f"('{kind}', {place})" for kind, place in _PLACE_OF_KIND.items() if place)
_SETTLE_SQL = f"""
    CREATE TABLE kinds (kind VARCHAR, place INTEGER);
    INSERT INTO kinds VALUES {_KINDS};
    CREATE TABLE events (event VARCHAR, place INTEGER, slug VARCHAR, event_text VARCHAR, names VARCHAR[]);
    CREATE TABLE no_extras (seq BIGINT, "column" VARCHAR, value VARCHAR);
    CREATE TABLE refused (seq BIGINT, id VARCHAR, user_id VARCHAR, error VARCHAR, again BOOLEAN);
    CREATE TABLE dead (seq BIGINT);
    CREATE TABLE confirmed (seq BIGINT);
    CREATE TABLE complete (loaded_at TIMESTAMPTZ);
    CREATE TABLE whole (seq BIGINT);
    CREATE TABLE hits (seq BIGINT, place INTEGER, event VARCHAR);
    CREATE TABLE discards_of_users (
        table_name VARCHAR, row_id VARCHAR, column_name VARCHAR, value VARCHAR, reason VARCHAR, received_at TIMESTAMPTZ
    );"""
_ERROR = ("id", "error")
_REFUSED_SQL = """
    INSERT INTO refused
    SELECT seq, m.id, m.user_id, coalesce(g.error, u.error),
        m.kind = 'identify' AND m.user_id IS NOT NULL AND u.id IS NULL
    FROM messages m LEFT JOIN given g ON g.id = m.id LEFT JOIN given_users u ON u.id = m.user_id AND m.kind = 'identify'
    WHERE g.id IS NOT NULL OR u.id IS NOT NULL"""
_VIEWS_SQL = """
    CREATE VIEW live AS FROM messages ANTI JOIN dead USING (seq);
    CREATE VIEW candidates AS SELECT seq, id FROM messages ANTI JOIN dead USING (seq);"""

# Of two messages with one id the earlier one stays; `tie` makes the choice the same in any order of the lines.
_LOSERS_SQL = """
    INSERT INTO dead SELECT seq FROM (
        SELECT seq, row_number() OVER (PARTITION BY id ORDER BY received_at NULLS LAST, tie, seq) AS rank
        FROM messages m SEMI JOIN (SELECT hash(id) AS h FROM messages GROUP BY h HAVING count(*) > 1) again
            ON again.h = hash(m.id))
    WHERE rank > 1"""
# The events of which `tracks` has messages of this load.
_HALF_STORED_SQL = f"""
    SELECT DISTINCT m.slug FROM hits h JOIN messages m USING (seq)
    WHERE h.place = 0 AND m.place >= {len(MESSAGE_TABLES)} AND h.event = m.slug"""
_COUNTS_SQL = """
    SELECT file, coalesce(messages, 0) + coalesce(rejected, 0), coalesce(messages - duplicates, 0),
        coalesce(duplicates, 0), coalesce(rejected, 0), first, last
    FROM (
        SELECT seq >> 40 AS file, count(*) AS messages, count(d.seq) AS duplicates,
            min(received_at) AS first, max(received_at) AS last
        FROM messages LEFT JOIN dead d USING (seq) GROUP BY 1) m
    FULL JOIN (SELECT seq >> 40 AS file, count(*) AS rejected FROM rejects GROUP BY 1) r USING (file)"""
