"""Which messages of a load stay, and its books: the second half of a load (spec: Once, and only once)."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC

import pyarrow as pa

from ..catalog import (
    AUDIT,
    BOOKS,
    EVENT_TABLES,
    LATEST,
    LIMIT_REASONS,
    LINK,
    MAX_EVENT_TABLES,
    MESSAGE_TABLES,
    PROPERTIES,
    REJECT_REASONS,
    TRACKS,
    Type,
)
from ..segment.identity import NOBODY, HashedIds
from ..segment.message import EXTRA, digest, is_storable, to_json
from ..segment.naming import snake_case, table_name
from . import engine, suppression
from .columns import ExtraColumns
from .context import LINES_PER_FILE, PLACE_OF_KIND, FileCount, ProjectionContext, ReadTable, TableRows
from .tables import RowBuilder
from .users import LatestRows

REJECTS_PER_READ = 500  # each of up to 1 MiB
NAMED = 100  # events without a table


class Deduplicated:
    """A load whose messages are known to be new or not; made by `Warehouse.settle`."""

    def __init__(self, load: ProjectionContext, only: str = "true") -> None:
        """`only` chooses among the messages of the load, in SQL."""
        self._load = load
        self._con = load.con
        self._cells = load.cells
        self._known = load.known
        self._without_table: dict[str, int] = {}
        self._hashes = False
        self._columns = ExtraColumns(load)
        self._con.execute(_SETTLE_SQL)
        self._views(only)
        self._place_events()

    def _views(self, only: str) -> None:
        files = ", ".join(map(engine.glob_literal, self._cells.messages))
        repeated = engine.name(REPEATED)
        there = any(REPEATED in columns for columns in self._cells.columns.values())
        # A property `event` that only repeats the event's name or slug is dropped.
        repeats = f"coalesce(list_contains(e.names, {repeated}), false)"
        own = [f"CASE WHEN NOT {repeats} THEN {repeated} END AS {repeated}"] if there else []
        # So is a trait `id` that only repeats whose it is; the engine reads identifies alone.
        id_ = engine.name(REPEATED_ID)
        if any(REPEATED_ID in columns for columns in self._cells.columns.values()):
            repeats_id = f"m.kind = 'identify' AND coalesce(as_text(m.{id_}) = m.user_id, false)"
            own.append(f"CASE WHEN NOT ({repeats_id}) THEN m.{id_} END AS {id_}")
        replaced = f" REPLACE ({', '.join(own)})" if own else ""
        self._con.execute(f"""
            CREATE VIEW messages AS
            SELECT m.*{replaced}, coalesce(e.place, k.place) AS place, e.slug, e.event_text
            FROM (SELECT * EXCLUDE (again) FROM read_parquet([{files}], union_by_name = true)
                WHERE NOT again AND {only}) m
            LEFT JOIN events e ON e.event = m.event LEFT JOIN kinds k ON k.kind = m.kind""")
        extras = ", ".join(map(engine.glob_literal, self._cells.extras))
        source = f"read_parquet([{extras}])" if extras else "no_extras"
        self._con.execute(f'CREATE VIEW extras AS SELECT seq, "column", value FROM {source}')
        self._con.execute(_VIEWS_SQL)

    # Which messages stay ------------------------------------------------------------------------------------------

    def settle(
        self,
        stored: ReadTable | None = None,
        complete: Collection[str] = (),
        hashes: HashedIds = NOBODY,
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
                    # What another loader made may lack the event's name.
                    event = ["event"] if table is TRACKS and "event" in self._known[table.name] else []
                    self._match(place, stored(table.name, ["id", *event]), "s.event" if event else "NULL")
            for (event,) in self._con.execute(_HALF_STORED_SQL).fetchall():
                self._keep_whole(event, stored(event, ["id"]) if event in self._known else ())
            self._confirm_discards(stored, complete)
        self._con.execute("INSERT INTO dead SELECT DISTINCT seq FROM hits")
        self._rows = RowBuilder(self._load, self._columns, self._columns.tall_kinds("live"))

    def _place_events(self) -> None:
        """Gives each event its table."""
        places = {name: place for place, name in enumerate(self._load.places)}
        rows = []
        placed: dict[str, int] = {}
        for event in self._cells.numbers:
            name: str = json.loads(event)
            slug = table_name(name)
            table = self._load.event_table(slug) if slug else TRACKS.name
            place = places.setdefault(table, len(places))
            placed[event] = place
            names = [to_json(text) for text in (name, snake_case(name), f"_{snake_case(name)}")]
            text = name if is_storable(name) else None
            rows.append(
                {"event": event, "place": place, "slug": table if slug else None, "event_text": text, "names": names}
            )
        self._load.places = list(places)
        self._load.place(placed)
        if rows:
            self._con.register("event_rows", pa.Table.from_pylist(rows, _EVENTS))
            self._con.execute("INSERT INTO events FROM event_rows")
            self._con.unregister("event_rows")

    def _limit_tables(self, there: Collection[str], most: int) -> None:
        """Events beyond the dataset's number of tables are in `tracks` alone; those with most messages come first."""
        own = len(MESSAGE_TABLES)
        has_table = {*there, *self._known, *(table.name for table in EVENT_TABLES)}
        new = [place for place in range(own, len(self._load.places)) if self._load.places[place] not in has_table]
        room = max(0, most - len(there))
        if len(new) <= room:
            return
        counts = dict(self._con.execute("SELECT place, count(*) FROM live GROUP BY place").fetchall())
        new.sort(key=lambda place: (-counts.get(place, 0), self._load.places[place]))
        self._without_table = {self._load.places[place]: counts.get(place, 0) for place in new[room:]}
        beyond = set(new[room:])
        self._load.place({event: 0 if place in beyond else place for event, place in self._load.events.items()})
        self._con.register("beyond", pa.table({"place": pa.array(list(beyond), pa.int32())}))
        self._con.execute("UPDATE events SET place = 0 WHERE place IN (SELECT place FROM beyond)")
        self._con.unregister("beyond")

    def _suppress(self, hashes: HashedIds) -> None:
        """Messages of forgotten persons, and rejected lines that mention them, are rejected without their text."""
        suppression.register_suppressed(self._con, hashes.pairs(), hashes.key)
        self._hashes = True
        self._suppress_rejects()
        why = engine.literal(REJECT_REASONS["suppressed"])
        if suppression.suppress(self._con):
            # There is a hash only, which is the same when the message comes again, from another scan too.
            self._con.execute(
                f"INSERT INTO rejects SELECT seq, sha256(concat('suppressed', id)), 'suppressed', {why}, ''"
                " FROM suppressed"
            )
            self._leave_out("suppressed")

    def _suppress_rejects(self) -> None:
        """Rejected lines that mention forgotten persons go without their text."""
        keys: list[int] = []
        with self._con.cursor() as reader:
            raw = reader.sql("SELECT rowid AS key, raw || chr(10) || message AS text FROM rejects")
            for batch in raw.to_arrow_reader(REJECTS_PER_READ):
                keys += suppression.mentioning(self._con, batch["key"], batch["text"])
        why = engine.literal(REJECT_REASONS["suppressed"])
        self._con.execute(
            f"UPDATE rejects SET reason = 'suppressed', message = {why}, raw = '' WHERE rowid IN (SELECT unnest(?))",
            [keys],
        )

    def _leave_out(self, table: str) -> None:
        """The messages whose `seq` a table has are none of this load any more."""
        all_messages = engine.name(f"all_but_{table}")
        self._con.execute(f"ALTER VIEW messages RENAME TO {all_messages}")
        self._con.execute(f"CREATE VIEW messages AS FROM {all_messages} ANTI JOIN {table} USING (seq)")

    def refuse(
        self,
        messages: Mapping[str, str],
        made: Mapping[str, Mapping[str, str]],
        lines: Callable[[Collection[int]], Iterable[tuple[int, bytes]]],
    ) -> None:
        """Messages with these ids are rejected with the errors given for them.

        So are, by the table that is `made` of messages, those of these users and accounts. The rows of the others
        whose messages are rejected are made again, without these.
        """
        rows = [{"id": id_, "error": error} for id_, error in messages.items()]
        made_rows = [{"of": of, "id": id_, "error": why} for of, bad in made.items() for id_, why in bad.items()]
        self._con.register("given", engine.text_table(rows, ("id", "error")))
        self._con.register("given_made", engine.text_table(made_rows, ("of", "id", "error")))
        self._con.execute(_REFUSED_SQL)
        self._con.unregister("given")
        self._con.unregister("given_made")
        numbers = [seq for (seq,) in self._con.execute("SELECT seq FROM refused").fetchall()]
        found = [{"seq": seq, "id": digest(line), "raw": engine.printable(line)} for seq, line in lines(numbers)]
        self._con.register("raw_lines", engine.text_table(found, ("seq", "id", "raw")))
        self._con.execute(
            "INSERT INTO rejects SELECT seq, coalesce(l.id, sha256(r.id)), 'unreadable', error, coalesce(raw, '')"
            " FROM refused r LEFT JOIN raw_lines l USING (seq)"
        )
        self._con.unregister("raw_lines")
        if self._hashes:
            self._suppress_rejects()
        self._leave_out("refused")

    def _match(self, place: int, batches: Iterable[pa.RecordBatch], event: str) -> None:
        engine.read_stored(
            self._con,
            batches,
            f"INSERT INTO hits SELECT m.seq, {place}, {event} FROM stored s JOIN candidates m ON m.id = s.id",
        )

    def _keep_whole(self, table: str, batches: Iterable[pa.RecordBatch]) -> None:
        """Of the tracks of an event that `tracks` has, those alone are stored that the event's table has too."""
        place = self._load.places.index(table)
        self._con.execute("DELETE FROM whole")
        engine.read_stored(
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

    def _confirm_discards(self, stored: ReadTable, complete: Collection[str]) -> None:
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
            engine.read_stored(
                self._con,
                audited,
                f"INSERT INTO complete SELECT loaded_at FROM stored WHERE {_among('load_id', complete)}",
            )
        for (place,) in places:
            engine.read_stored(
                self._con,
                stored(self._load.places[place], ["id", "received_at", "uuid_ts"]),
                "INSERT INTO confirmed SELECT d.seq FROM stored s JOIN doubtful d"
                " ON d.id = s.id AND d.received_at IS NOT DISTINCT FROM s.received_at::TIMESTAMPTZ"
                " WHERE s.uuid_ts NOT IN (FROM complete)",
            )

    def _discard_of_stored(self) -> None:
        """What the tables that are there did not take of messages that are stored."""
        tall = self._columns.tall_kinds("messages SEMI JOIN hits USING (seq)")
        for place, table in enumerate(self._load.places):
            if table in self._known:
                where = f"{self._load.where(place)} AND seq IN (SELECT seq FROM hits)"
                # A load whose rows are there has made the columns that it could make: it had no room for others.
                found = dict.fromkeys((*self._columns.wide(place), *tall.get(place, {})), (0, 0))
                self._columns.take_extras(place, where, found, tall.get(place, {}), room=0)

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
        found["too_many_tables"] = _most(self._without_table)
        return {reason: tables for reason, tables in found.items() if tables}

    def rejects(self, files: Sequence[str]) -> TableRows | None:
        """`_rejects`; `files` are the names of the load's files. Each place of a line has a row of its own."""
        names = pa.table({"number": pa.array(range(len(files)), pa.int64()), "file": pa.array(files, pa.string())})
        self._con.register("files", names)
        self._con.execute(f"""
            CREATE OR REPLACE TABLE rejected AS
            SELECT * EXCLUDE (seq) FROM (
                SELECT file, line, reason, message, raw, {self._load.loaded_at} AS rejected_at, seq,
                    CASE WHEN reason = 'suppressed' THEN id ELSE sha256(concat_ws(chr(10), file, line, id)) END AS id
                FROM (SELECT *, seq & ({LINES_PER_FILE} - 1) AS line FROM rejects) r
                JOIN files ON files.number = r.seq >> 40)
            QUALIFY row_number() OVER (PARTITION BY id ORDER BY seq, reason) = 1""")
        self._con.unregister("files")
        return self._book("rejected", "_rejects")

    def discards(self) -> TableRows | None:
        """`_discards`; complete once the rows of all tables were taken.

        What neither `tracks` nor the event's table takes is told of the event's table.
        """
        places = self._load.places
        names = pa.table({"place": pa.array(range(len(places)), pa.int64()), "name": places})
        self._con.register("place_names", names)
        self._con.execute(f"""
            CREATE OR REPLACE TABLE discarded AS
            SELECT sha256(concat_ws(chr(10), table_name, row_id, column_name, value)) AS id, *,
                {self._load.loaded_at} AS discarded_at
            FROM (
                SELECT DISTINCT coalesce(d.table_name, p.name) AS table_name, m.id AS row_id, column_name, value,
                    reason, m.received_at::TIMESTAMPTZ AS received_at
                FROM discards d JOIN messages m USING (seq) JOIN place_names p USING (place)
                WHERE seq NOT IN (FROM dead) OR seq IN (FROM confirmed)
                QUALIFY row_number() OVER (
                    PARTITION BY seq, column_name, value, reason
                    ORDER BY coalesce(d.table_name, p.name) = '{TRACKS.name}', d.table_name) = 1
                UNION ALL FROM discards_of_made)
            QUALIFY row_number() OVER (PARTITION BY id ORDER BY reason) = 1""")
        self._con.unregister("place_names")
        return self._book("discarded", "_discards")

    def _book(self, source: str, table: str) -> TableRows | None:
        book = next(book for book in BOOKS if book.name == table)
        columns: dict[str, Type] = {column.name: column.type for column in book.columns}
        count = self._load.count(source)
        return (
            TableRows(table, columns, self._con.sql(f"SELECT {', '.join(columns)} FROM {source}"), count)
            if count
            else None
        )

    # Rows ---------------------------------------------------------------------------------------------------------

    def tables(self) -> Iterator[TableRows]:
        """The rows of each table of messages that has any: the events', the other messages', `tracks`."""
        return self._rows.tables()

    def latest(self, stored: ReadTable | None = None) -> Iterator[TableRows]:
        """The rows of the users and accounts whose messages are among these; see `LatestRows.rows`."""
        for made in LATEST:
            if (rows := LatestRows(made, self._load, self._rows).rows(stored)) is not None:
                yield rows

    def _discard_bodies(self) -> None:
        """The properties of events that have no table of their own have nowhere to go."""
        if 0 not in self._load.events.values():
            return
        reason = "CASE WHEN slug IS NULL THEN 'no_column' ELSE 'too_many_tables' END"
        cells = {
            column: engine.name(EXTRA + column)
            for (_, event), columns in self._cells.columns.items()
            if event is not None and self._load.events[event] == 0
            for column in (name.removeprefix(EXTRA) for name in columns)
            if not column.startswith("context_")
        }
        for column in (*PROPERTIES, *LINK):
            cell = engine.name(column.name)
            cells[column.name] = f"to_json({cell})::VARCHAR" if column.type == "text" else cell
        for name, cell in cells.items():
            self._con.execute(
                f"INSERT INTO discards SELECT seq, '{TRACKS.name}', ?, {cell}, {reason} FROM messages"
                f" WHERE {self._load.where(0)} AND {cell} IS NOT NULL",
                [name],
            )
        self._con.execute(
            f"INSERT INTO discards SELECT seq, '{TRACKS.name}', \"column\", value, {reason}"
            f" FROM extras JOIN (SELECT seq, slug FROM messages WHERE {self._load.where(0)}) m USING (seq)"
            " WHERE NOT starts_with(\"column\", 'context_')"
        )


def _most(numbers: Mapping[str, int]) -> dict[str, int]:
    """The largest numbers with their names, the others as one."""
    names = sorted(numbers, key=lambda name: (-numbers[name], name))
    others = {"others": sum(numbers[name] for name in names[NAMED:])} if len(names) > NAMED else {}
    return {name: numbers[name] for name in names[:NAMED]} | others


def _among(column: str, texts: Collection[str]) -> str:
    return f"{column} IN ({', '.join(map(engine.literal, texts))})" if texts else "false"


# A property `event`, which may repeat the event's name.
REPEATED = f"{EXTRA}_event"
REPEATED_ID = f"{EXTRA}_id"  # a property or trait `id`
_EVENTS = pa.schema(
    [
        ("event", pa.string()),
        ("place", pa.int32()),
        ("slug", pa.string()),
        ("event_text", pa.string()),
        ("names", pa.list_(pa.string())),
    ]
)

_KINDS = ", ".join(f"('{kind}', {place})" for kind, place in PLACE_OF_KIND.items() if place)
_SETTLE_SQL = f"""
    CREATE TABLE kinds (kind VARCHAR, place INTEGER);
    INSERT INTO kinds VALUES {_KINDS};
    CREATE TABLE events (event VARCHAR, place INTEGER, slug VARCHAR, event_text VARCHAR, names VARCHAR[]);
    CREATE TABLE no_extras (seq BIGINT, "column" VARCHAR, value VARCHAR);
    CREATE TABLE refused (seq BIGINT, id VARCHAR, error VARCHAR, of VARCHAR, made VARCHAR, again BOOLEAN);
    CREATE TABLE dead (seq BIGINT);
    CREATE TABLE confirmed (seq BIGINT);
    CREATE TABLE complete (loaded_at TIMESTAMPTZ);
    CREATE TABLE whole (seq BIGINT);
    CREATE TABLE hits (seq BIGINT, place INTEGER, event VARCHAR);
    CREATE TABLE discards_of_made (
        table_name VARCHAR, row_id VARCHAR, column_name VARCHAR, value VARCHAR, reason VARCHAR, received_at TIMESTAMPTZ
    );"""
_OF = " ".join(f"WHEN '{made.kind}' THEN '{made.table.name}'" for made in LATEST)
_MADE = " ".join(f"WHEN '{made.kind}' THEN {made.key}" for made in LATEST)
_REFUSED_SQL = f"""
    INSERT INTO refused
    SELECT seq, m.id, coalesce(g.error, u.error), m.of, m.made, m.made IS NOT NULL AND u.id IS NULL
    FROM (SELECT *, CASE kind {_OF} END AS of, CASE kind {_MADE} END AS made FROM messages) m
    LEFT JOIN given g ON g.id = m.id LEFT JOIN given_made u ON u.id = m.made AND u.of = m.of
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
