"""Cells -> rows of each table: the second half of a load, when all its lines are known (spec: Once, and only once)."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import duckdb
import pyarrow as pa

from ..catalog import (
    AUDIT,
    BOOKS,
    COMMON,
    CONTEXT,
    IDENTIFIES,
    KINDS,
    LINK,
    MESSAGE_TABLES,
    PROPERTIES,
    REJECT_REASONS,
    TRACKS,
    USERS,
    Column,
    Table,
    Type,
    event_table,
)
from ..messages import EXTRA, digest
from . import forgotten, values

FEW = 50_000  # rows that may be gathered in memory
REJECTS_PER_READ = 500  # each of up to 1 MiB

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
        places: Sequence[str],
        events: Mapping[str, int],
        extras: Mapping[int, Mapping[str, None]],
        known: Known,
        loaded_at: str,
        shorten: Callable[[str], str] = str,
    ) -> None:
        self._con = con
        self._shorten = shorten
        self._places = places
        self._events = events
        self._extras = {place: list(names) for place, names in extras.items()}
        self._known = known
        self._loaded_at = loaded_at
        self._few: set[int] = set()
        con.execute(_SETTLE_SQL.format(parts=values.literal(f"{scratch}/*.parquet")))

    # Which messages stay ------------------------------------------------------------------------------------------

    def settle(
        self, stored: Stored | None, complete: Collection[str], hashes: Collection[tuple[str, str]] = ()
    ) -> None:
        """Finds the messages that do not stay.

        A load that was killed between two tables is completed: a track counts as stored only when the table of its
        event has it too.
        """
        if hashes:
            self._suppress(hashes)
        self._con.execute(_LOSERS_SQL)
        self._discard_bodies()
        if stored is not None:
            for place, table in enumerate(MESSAGE_TABLES):
                if table.name in self._known:
                    self._match(place, stored(table.name, ["id", "event"] if table is TRACKS else ["id"]))
            for (event,) in self._con.execute(_HALF_STORED_SQL).fetchall():
                name = self._shorten(event)
                self._keep_whole(event, name, stored(name, ["id"]) if name in self._known else ())
            self._confirm_discards(stored, complete)
        self._con.execute("INSERT INTO dead SELECT DISTINCT seq FROM hits")

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
        rows = [
            {"seq": seq, "id": digest(line), "raw": line.rstrip(b"\r\n").decode(errors="backslashreplace")}
            for seq, line in lines(numbers)
        ]
        self._con.register("raw_lines", values.text_table(rows, ("seq", "id", "raw")))
        self._con.execute(
            "INSERT INTO rejects SELECT seq, coalesce(l.id, sha256(r.id)), 'unreadable', error, coalesce(raw, '')"
            " FROM refused r LEFT JOIN raw_lines l USING (seq)"
        )
        self._con.unregister("raw_lines")
        self._con.execute("ALTER VIEW messages RENAME TO read_messages")
        self._con.execute("CREATE VIEW messages AS FROM read_messages ANTI JOIN refused USING (seq)")

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
            self._con.execute("ALTER VIEW messages RENAME TO all_messages")
            self._con.execute("CREATE VIEW messages AS FROM all_messages ANTI JOIN suppressed USING (seq)")

    def _match(self, place: int, batches: Iterable[pa.RecordBatch]) -> None:
        event = "s.event" if MESSAGE_TABLES[place] is TRACKS else "NULL"
        values.read_stored(
            self._con,
            batches,
            f"INSERT INTO hits SELECT m.seq, {place}, {event} FROM stored s JOIN candidates m ON m.id = s.id",
        )

    def _keep_whole(self, event: str, table: str, batches: Iterable[pa.RecordBatch]) -> None:
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
            [event, place],
        )

    def _confirm_discards(self, stored: Stored, complete: Collection[str]) -> None:
        """The discards of a stored message stay where the load that stored it was killed: it may have lost them."""
        for place, table in enumerate(self._places):
            known = self._known.get(table, {})
            extras = (name.removeprefix(EXTRA) for name in self._extras.get(place, []))
            types = {column: known[self._shorten(column)] for column in extras if self._shorten(column) in known}
            self._discard_extras(table, f"{self._where(place)} AND seq IN (SELECT seq FROM hits)", types)
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

    # The books ----------------------------------------------------------------------------------------------------

    def counts(self) -> list[FileCount]:
        """What became of the lines of each file that has any."""
        return [
            FileCount(*row[:5], *(clock and clock.replace(tzinfo=UTC) for clock in row[5:]))
            for row in self._con.execute(_COUNTS_SQL).fetchall()
        ]

    def rejects_by_reason(self) -> dict[str, int]:
        """How many lines were rejected, by reason."""
        return dict(self._con.execute("SELECT reason, count(*) FROM rejects GROUP BY 1 ORDER BY 2 DESC, 1").fetchall())

    def rejects(self, files: Sequence[str]) -> Rows | None:
        """`_rejects`; `files` are the names of the load's files.

        The same line, met again, is one row; but no two breaks of files are.
        """
        names = pa.table({"number": pa.array(range(len(files)), pa.int64()), "file": pa.array(files, pa.string())})
        self._con.register("files", names)
        self._con.execute(f"""
            CREATE OR REPLACE TABLE rejected AS
            SELECT CASE WHEN reason = 'truncated' THEN sha256(concat_ws(chr(10), file, line, raw)) ELSE id END AS id,
                file, line, reason, message, raw, {self._loaded_at} AS rejected_at
            FROM (SELECT *, seq & ((1::BIGINT << 40) - 1) AS line FROM rejects QUALIFY reason = 'truncated'
                OR row_number() OVER (PARTITION BY id, reason = 'truncated' ORDER BY seq) = 1) r
            JOIN files ON files.number = r.seq >> 40""")
        self._con.unregister("files")
        return self._book("rejected", "_rejects")

    def discards(self) -> Rows | None:
        """`_discards`; complete once the rows of all tables were taken."""
        names = pa.table({"place": pa.array(range(len(self._places)), pa.int64()), "name": list(self._places)})
        self._con.register("place_names", names)
        self._con.execute(f"""
            CREATE OR REPLACE TABLE discarded AS
            SELECT sha256(concat_ws(chr(10), table_name, row_id, column_name, value)) AS id, *,
                {self._loaded_at} AS discarded_at
            FROM (SELECT DISTINCT coalesce(d.table_name, p.name) AS table_name, m.id AS row_id, column_name, value,
                    reason,
                    m.received_at::TIMESTAMPTZ AS received_at
                FROM discards d JOIN messages m USING (seq) JOIN place_names p USING (place)
                WHERE seq NOT IN (FROM dead) OR seq IN (FROM confirmed))
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
            yield self._tracks(tracks)

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
        """The rows of one event's or one kind's table."""
        name = self._places[place]
        table = next((table for table in MESSAGE_TABLES if table.name == name), None) or event_table(name)
        where = self._where(place)
        source = f"{'few' if place in self._few else 'live'} WHERE {where}"
        declared = _declared(table)
        if table not in MESSAGE_TABLES:
            declared |= {column.name: column.type for column in self._present(name, source, (*PROPERTIES, *LINK))}
        extras = self._extra_types(name, source, self._extras.get(place, []))
        self._discard_extras(name, where, extras)
        return self._relation(name, declared, extras, source, count)

    def _tracks(self, count: int) -> Rows:
        """`tracks`: the common columns of all events, with the types that their values have over all of them."""
        extras = dict.fromkeys(
            name
            for place, names in self._extras.items()
            if place == 0 or place >= len(MESSAGE_TABLES)
            for name in names
            if name.startswith(f"{EXTRA}context_")
        )
        types = self._extra_types(TRACKS.name, "live WHERE kind = 'track'", list(extras))
        self._discard_extras(TRACKS.name, "kind = 'track'", types)
        return self._relation(TRACKS.name, _declared(TRACKS), types, "live WHERE kind = 'track'", count)

    def _where(self, place: int) -> str:
        """The messages of a table, in words that the engine can use to skip what is not asked for."""
        if place and place < len(MESSAGE_TABLES):
            return f"kind = {values.literal(next(kind for kind, table, _ in KINDS if table is MESSAGE_TABLES[place]))}"
        events = [values.literal(event) for event, at in self._events.items() if at == place]
        return f"event IN ({', '.join(events)})" if events else "false"

    def _discard_bodies(self) -> None:
        """The properties of events whose name has no slug have no table to go to."""
        extras = [name for name in self._extras.get(0, []) if not name.startswith(f"{EXTRA}context_")]
        cells = {name.removeprefix(EXTRA): values.name(name) for name in extras}
        if 0 in self._events.values():
            cells |= {column.name: f"to_json({column.name})::VARCHAR" for column in (*PROPERTIES, *LINK)}
        for column, cell in cells.items():
            self._con.execute(
                f"INSERT INTO discards SELECT seq, 'tracks', ?, {cell}, 'no_column' FROM messages"
                f" WHERE {self._where(0)} AND {cell} IS NOT NULL",
                [column],
            )

    def _present(self, table: str, source: str, columns: Sequence[Column]) -> list[Column]:
        """Those of `columns` that have a value among the rows, or that the table has already."""
        counts = ", ".join(f"count({column.name})" for column in columns)
        found = self._con.execute(f"SELECT {counts} FROM {source}").fetchone() or ()
        known = self._known.get(table, {})
        return [column for column, number in zip(columns, found, strict=True) if number or column.name in known]

    def _extra_types(self, table: str, source: str, names: Sequence[str]) -> dict[str, Type]:
        """The type of each extra column that has a value: its own where it exists, else by all its values."""
        known = self._known.get(table, {})
        types: dict[str, Type] = {}
        for part in (names[start : start + 100] for start in range(0, len(names), 100)):
            kinds = ", ".join(f"value_kinds({values.name(name)})" for name in part)
            found = self._con.execute(f"SELECT {kinds} FROM {source}").fetchone() or ()
            for name, kind in zip(part, found, strict=True):
                if kind is not None:
                    column = name.removeprefix(EXTRA)
                    types[column] = known.get(self._shorten(column)) or values.type_of_kinds(kind)
        return types

    def _discard_extras(self, table: str, where: str, types: Mapping[str, Type]) -> None:
        for column, column_type in types.items():
            if column_type == "text":
                continue
            cell = values.name(EXTRA + column)
            self._con.execute(
                f"INSERT INTO discards SELECT seq, ?, ?, {cell}, 'does_not_fit' FROM messages"
                f" WHERE {where} AND {cell} IS NOT NULL AND as_{column_type}({cell}) IS NULL"
                " AND seq NOT IN (SELECT seq FROM discards WHERE column_name = ? AND reason = 'does_not_fit')",
                [table, column, column],
            )

    def _relation(
        self, table: str, declared: Mapping[str, Type], extras: Mapping[str, Type], source: str, count: int
    ) -> Rows:
        columns = ordered({**declared, **extras})
        cells = [self._cell(column, column_type, column in extras) for column, column_type in columns.items()]
        names = {self._shorten(column): column_type for column, column_type in columns.items()}
        return Rows(table, names, self._con.sql(f"SELECT {', '.join(cells)} FROM {source}"), count)

    def _cell(self, column: str, column_type: Type, extra: bool) -> str:
        name = values.name(column)
        if extra:
            return f"as_{column_type}({values.name(EXTRA + column)}) AS {values.name(self._shorten(column))}"
        if column == "uuid_ts":
            return f"{self._loaded_at} AS uuid_ts"
        if column_type == "timestamp":
            return f"make_timestamptz(epoch_us({name})) AS {name}"  # the engine's own cast asks for the zone's rules
        return f"{'slug' if column == 'event' else name}::{SQL_TYPES[column_type]} AS {name}"

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
        count = self._number("SELECT count(*) FROM persons_now")
        return Rows(USERS.name, columns, self._con.sql("FROM persons_now"), count)

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


_SETTLE_SQL = """
    CREATE VIEW messages AS
    SELECT m.*, coalesce(e.place, k.place) AS place, e.slug, e.event_text
    FROM (FROM read_parquet({parts}, union_by_name = true) WHERE NOT again) m
    LEFT JOIN events e ON e.event = m.event LEFT JOIN kinds k ON k.kind = m.kind;
    CREATE TABLE refused (seq BIGINT, id VARCHAR, user_id VARCHAR, error VARCHAR, again BOOLEAN);
    CREATE TABLE dead (seq BIGINT);
    CREATE TABLE confirmed (seq BIGINT);
    CREATE TABLE complete (loaded_at TIMESTAMPTZ);
    CREATE TABLE whole (seq BIGINT);
    CREATE TABLE hits (seq BIGINT, place INTEGER, event VARCHAR);
    CREATE VIEW live AS FROM messages ANTI JOIN dead USING (seq);
    CREATE VIEW candidates AS SELECT seq, id FROM messages ANTI JOIN dead USING (seq);"""

_ERROR = ("id", "error")
_REFUSED_SQL = """
    INSERT INTO refused
    SELECT seq, m.id, m.user_id, coalesce(g.error, u.error),
        m.kind = 'identify' AND m.user_id IS NOT NULL AND u.id IS NULL
    FROM messages m LEFT JOIN given g ON g.id = m.id LEFT JOIN given_users u ON u.id = m.user_id AND m.kind = 'identify'
    WHERE g.id IS NOT NULL OR u.id IS NOT NULL"""
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
