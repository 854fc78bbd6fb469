"""Decides which messages of a load are kept: one of each id, and none that is stored already.

(docs/contract/warehouse.md#exactly-once) docs/projection.md draws the tables of the engine that these steps write and
read. The steps need only the messages of `context.cells`, and stored ids as Arrow batches, so a worker that has all
messages with certain ids can run them.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import pyarrow as pa

from ..catalog import AUDIT, EVENT_TABLE_NAMES, LATEST, MESSAGE_TABLES, REJECT_REASONS, TRACKS
from ..segment.identity import NOBODY, HashedIds
from ..segment.message import EXTRA, digest
from . import engine, suppression, texts
from .cells import short_event, short_event_sql
from .columns import ExaminedValues, discard_columns, plan_existing_columns, room_of, row_values
from .context import (
    NUMBER_OF_KIND,
    EventName,
    ExistingTables,
    ProjectionContext,
    ReadTable,
    RefusedIds,
    SharedContext,
    TableNumbers,
)
from .tables import count_messages

REJECTS_PER_READ = 500  # each of up to 1 MiB
_SQL = engine.queries("deduplicate.sql")
_REPEATED_EVENT = f"{EXTRA}_event"  # a property `event`, which may repeat the event's name
_REPEATED_ID = f"{EXTRA}_id"  # a property or trait `id`
_KINDS = ", ".join(f"('{kind}', {number})" for kind, number in NUMBER_OF_KIND.items() if number)
_EVENTS = pa.schema(
    [
        ("event", pa.string()),
        ("table_number", pa.int32()),
        ("slug", pa.string()),
        ("event_text", pa.string()),
        ("repeats", pa.list_(pa.string())),
    ]
)
ReadLines = Callable[[Collection[int]], Iterable[tuple[int, bytes]]]
"""Returns the lines that have these numbers in the load, as far as they are known, each with its number."""


class LeftOut(NamedTuple):
    """What a load leaves out and rejects: messages of deleted persons (`suppressed`), and what was `refused`.

    `refused` has the messages and the rows that the destination refused; all messages of a refused row are rejected.
    `read_lines` returns the whole lines of rejected messages, for `_rejects`.
    """

    suppressed: HashedIds = NOBODY
    refused: RefusedIds = RefusedIds()
    read_lines: ReadLines = lambda _: ()


NOTHING_LEFT_OUT = LeftOut()


def open_messages(context: ProjectionContext, events: Sequence[EventName], only: str = "true") -> None:
    """Creates the engine's tables, and the views of those messages of the load that match the SQL condition `only`."""
    con, cells = context.con, context.cells
    con.execute(engine.script("state.sql"))
    texts.prepare_for_long_lines(context)
    con.execute(f"INSERT INTO kinds VALUES {_KINDS}")
    for table, files in (("rejects", cells.rejects), ("discards", cells.discards)):
        if files:
            texts.insert(context, table, f"FROM {engine.parquet_files(files)}")
    if events:
        rows = [
            (short_event(e.event), context.tables.events[e.event], e.table, e.text, list(e.repeats)) for e in events
        ]
        with engine.registered(con, event_rows=pa.table([*zip(*rows, strict=True)], schema=_EVENTS)):
            con.execute("INSERT INTO events FROM event_rows")
    messages = engine.parquet_files(cells.messages, union_by_name="true")
    con.execute(_SQL["parsed"].format(replaced=_without_repeats(context), files=messages, only=only))
    extras = engine.parquet_files(cells.extras) if cells.extras else "no_extras"
    con.execute(f'CREATE VIEW extras AS SELECT seq, "column", value FROM {extras}')
    reject_messages(context)
    con.execute(_SQL["kept"])
    con.execute(_SQL["candidates"])


def _without_repeats(context: ProjectionContext) -> str:
    """Returns the SQL that nulls values which only repeat another field (docs/contract/warehouse.md#names)."""
    extras = set().union(*context.cells.columns.values())
    event, id_ = engine.name(_REPEATED_EVENT), engine.name(_REPEATED_ID)
    replaced = []
    if _REPEATED_EVENT in extras:
        repeats = f"coalesce(list_contains(e.repeats, {short_event_sql(event)}), false)"
        replaced.append(f"CASE WHEN NOT {repeats} THEN {event} END AS {event}")
    if _REPEATED_ID in extras:
        about = " ".join(f"WHEN '{latest.kind}' THEN m.{latest.key}" for latest in LATEST)
        repeats = f"coalesce(as_text(m.{id_}) = CASE m.kind {about} END, false)"
        replaced.append(f"CASE WHEN NOT ({repeats}) THEN m.{id_} END AS {id_}")
    return f" REPLACE ({', '.join(replaced)})" if replaced else ""


def reject_messages(context: ProjectionContext, *tables: str) -> None:
    """Recreates the view `messages` without the messages whose `seq` is in one of these tables."""
    but = "".join(f" ANTI JOIN {table} USING (seq)" for table in tables)
    context.con.execute(_SQL["messages"].format(but=but))


def leave_out(context: ProjectionContext, left_out: LeftOut) -> None:
    """Rejects the messages that the destination refused, and those of deleted persons."""
    reject_refused(context, left_out.refused, left_out.read_lines)
    if left_out.suppressed:
        reject_suppressed(context, left_out.suppressed)


def reject_refused(context: ProjectionContext, refused: RefusedIds, read_lines: ReadLines) -> None:
    """Rejects the messages that the destination refused, and those from which refused rows are made.

    A row that was not refused itself, but is made from a refused message, is made again without that message.
    """
    if not refused:
        return
    table_name = " ".join(f"WHEN '{latest.kind}' THEN '{latest.table.name}'" for latest in LATEST)
    row_id = " ".join(f"WHEN '{latest.kind}' THEN {latest.key}" for latest in LATEST)
    messages = [{"id": id_, "error": error} for id_, error in refused.messages.items()]
    rows = [
        {"table_name": table, "id": id_, "error": error}
        for table, errors in refused.rows.items()
        for id_, error in errors.items()
    ]
    with engine.registered(
        context.con,
        refused_messages=engine.text_table(messages, ("id", "error")),
        refused_rows=engine.text_table(rows, ("table_name", "id", "error")),
    ):
        context.con.execute(_SQL["refuse"].format(table_name=table_name, row_id=row_id))
    seqs = [seq for (seq,) in context.con.execute("SELECT seq FROM refused").fetchall()]
    found = [{"seq": seq, "id": digest(line), "raw": engine.printable(line)} for seq, line in read_lines(seqs)]
    with engine.registered(context.con, raw_lines=engine.text_table(found, ("seq", "id", "raw"))):
        texts.insert(context, "rejects", _SQL["reject_refused"])
    reject_messages(context, "refused")
    context.con.execute(_SQL["candidates_of_refused"])


def reject_suppressed(context: ProjectionContext, suppressed: HashedIds) -> None:
    """Rejects the messages of deleted persons, and removes the text of rejected lines that mention them."""
    con, message = context.con, REJECT_REASONS["suppressed"]
    suppression.register_suppressed(con, suppressed.pairs(), suppressed.key)
    seqs: list[int] = []
    with con.cursor() as reader:
        lines = reader.sql("SELECT seq AS key, raw || chr(10) || message AS text FROM rejects")
        for batch in lines.to_arrow_reader(REJECTS_PER_READ):
            seqs += suppression.find_mentions(con, batch["key"], batch["text"])
    if seqs:
        texts.create_table(context, "rejects", _SQL["suppress_rejects"], {"message": message, "seqs": seqs})
    if suppression.suppress(con):
        texts.insert(context, "rejects", _SQL["reject_suppressed"], {"message": message})
        reject_messages(context, "refused", "suppressed")


def find_duplicates(context: ProjectionContext) -> None:
    """Notes the messages that are duplicates of others in the load."""
    context.con.execute(_SQL["repeated_ids"])
    if engine.count(context.con, "repeated_ids"):
        context.con.execute(_SQL["duplicates_within"])


def limit_tables(
    context: ProjectionContext, event_tables: Collection[str], most: int
) -> tuple[TableNumbers, dict[str, int]]:
    """Applies `choose_tables`: events that get no table of their own are in `tracks` alone.

    Returns the numbers of the tables, and how many messages the events without a table have, by the event's slug.
    """
    tables, beyond = choose_tables(context, event_tables, most, partial(count_messages, context))
    if beyond:
        context.con.execute(_SQL["drop_event_tables"], {"table_numbers": list(beyond)})
    return tables, {tables.names[number]: count for number, count in beyond.items()}


def choose_tables(
    shared: SharedContext, event_tables: Collection[str], most: int, count: Callable[[], Mapping[int, int]]
) -> tuple[TableNumbers, dict[int, int]]:
    """Chooses the events that get a table, if the dataset would have more than `most` tables of events.

    Events with the most messages get a table first: `count` returns how many messages each table would have, by number.
    `event_tables` are the tables of events that the destination has, in addition to those of the catalogue. Returns the
    numbers of the tables, and how many messages each table that is left out would have, by number.
    """
    names = shared.tables.names
    has_table = {*event_tables, *shared.existing, *EVENT_TABLE_NAMES}
    new = [number for number in range(len(MESSAGE_TABLES), len(names)) if names[number] not in has_table]
    room = max(0, most - len(event_tables))
    if len(new) <= room:
        return shared.tables, {}
    counts = count()
    beyond = sorted(new, key=lambda number: (-counts.get(number, 0), names[number]))[room:]
    return shared.tables.without(beyond), {number: counts.get(number, 0) for number in beyond}


def ids_to_match(existing: ExistingTables, names: Sequence[str], fills: Callable[[str], bool]) -> dict[str, list[str]]:
    """Returns the columns, by table, that show which messages are stored: the ids in all tables of messages.

    For `tracks`, they include `event`. If the load does not fill `tracks`, the tables of events that it fills show
    which tracks are stored.
    """
    events = [] if fills(TRACKS.name) else [name for name in names[len(MESSAGE_TABLES) :] if fills(name)]
    found = {name: ["id"] for name in (*(table.name for table in MESSAGE_TABLES), *events) if name in existing}
    # A table that another loader created may lack the event's name.
    if "event" in existing.get(TRACKS.name, ()):
        found[TRACKS.name].append("event")
    return found


def match_stored(context: ProjectionContext, stored: ReadTable) -> None:
    """Notes the messages that are stored already.

    If the load fills a track's event table, the track counts as stored only if it is in that table as well. So a load
    that was killed between two tables is completed.
    """
    con, existing, names = context.con, context.existing, context.tables.names
    for table_name, columns in ids_to_match(existing, names, context.fills).items():
        track = "s.event, m.id, m.table_number" if "event" in columns else "NULL, NULL, NULL"
        sql = _SQL["match_stored"].format(table_number=names.index(table_name), track=track)
        engine.read_stored(con, stored(table_name, columns), sql)
    if not engine.count(con, "stored_in"):
        return
    for (table_name,) in con.execute(_SQL["events_to_check"], {"first_event_table": len(MESSAGE_TABLES)}).fetchall():
        if not context.fills(table_name):
            continue
        con.execute("DELETE FROM in_event_table")
        if table_name in existing:
            engine.read_stored(con, stored(table_name, ["id"]), _SQL["match_event_table"], {"event": table_name})
        con.execute(_SQL["forget_half_stored"], {"event": table_name, "table_number": names.index(table_name)})
    _admit_stored(context)


def _admit_stored(context: ProjectionContext) -> None:
    """Removes stored messages of refused users (accounts) from the rejects, because they are duplicates."""
    con = context.con
    if not con.execute("SELECT 1 FROM refused LIMIT 1").fetchone():
        return
    con.execute(_SQL["refused_but_stored"])
    if con.execute("SELECT 1 FROM refused_but_stored LIMIT 1").fetchone():
        texts.create_table(context, "rejects", _SQL["rejected_still"])
        con.execute(_SQL["admit"])


def drop_stored(context: ProjectionContext) -> None:
    """Marks the messages that are stored already as duplicates."""
    if engine.count(context.con, "stored_in"):
        context.con.execute(_SQL["duplicates_stored"])


def discard_again(context: ProjectionContext, stored: ReadTable, complete: Collection[str]) -> None:
    """Writes the discards of stored messages again if the load that stored them was killed and may have lost them.

    `complete` are the ids of the loads that were not killed.
    """
    con = context.con
    if not engine.count(con, "stored_in"):
        return
    _discard_of_stored(context)
    con.execute(_SQL["stored_with_discards"])
    numbers = con.execute("SELECT DISTINCT table_number FROM stored_with_discards").fetchall()
    if numbers and AUDIT.name in context.existing:
        sql = _SQL["complete_loads"].format(is_complete=engine.is_one_of("load_id", complete))
        engine.read_stored(con, stored(AUDIT.name, ["load_id", "loaded_at"]), sql)
    for (number,) in numbers:
        batches = stored(context.tables.names[number], ["id", "received_at", "uuid_ts"])
        engine.read_stored(con, batches, _SQL["discarded_again"])


def _discard_of_stored(context: ProjectionContext) -> None:
    """Discards the values of stored messages that the destination's tables did not take."""
    columns, rows = context.extras_in_columns(), row_values(context, "messages SEMI JOIN stored_in USING (seq)")
    for number, table in enumerate(context.tables.names):
        if table in context.existing:
            where = f"{context.tables.where(number)} AND seq IN (SELECT seq FROM stored_in)"
            in_columns, in_rows = columns.get(number, ()), rows.get(number, {})
            plan = plan_existing_columns(context, table, in_columns, in_rows)
            if room_of(context, table) > 0:
                # The load that stored these rows created all columns that it had room for. A value without a column
                # is therefore from another copy of the message, which was never stored.
                plan = plan._replace(left_out={**plan.left_out, "too_many_columns": ()})
            discard_columns(context, number, ExaminedValues.of(where), plan)
