"""Decides which rows of adopted tables are kept: one row per id, and none that is stored already."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC
from importlib.resources import files

from ...catalog import LATEST, PERSON_COLUMNS, REJECT_REASONS, TRACKS, USERS, Type
from ...projection import FileCount, ReadTable, engine
from ...projection.context import ProjectionContext
from ...projection.keys import long_key_message
from ...projection.suppression import register_suppressed, suppress
from ...segment.identity import HashedIds
from .buffer import LATEST_NAMES, OTHER_TABLES
from .columns import BufferedTable, as_plain_text, cell_name

SQL = engine.statements(files(__package__).joinpath("adopt.sql").read_text(encoding="utf-8"))
_KEYS: dict[str, Type] = {"id": "text", "received_at": "timestamp"}


@dataclass(frozen=True)
class Adoption:
    """The tables of one load, with buffered rows, by their names in the destination; `stored` reads stored rows.

    `refused` has the errors for rows of `users` and `accounts` that the destination refuses, by table and id. `found`
    has the names of all tables that can be adopted, including those whose rows are adopted already.
    """

    context: ProjectionContext
    buffered: Mapping[str, BufferedTable]
    stored: ReadTable | None
    refused: Mapping[str, Mapping[str, str]]
    found: Collection[str]

    @property
    def events(self) -> list[str]:
        """The tables of events."""
        return [name for name in self.buffered if name not in OTHER_TABLES]

    @property
    def messages(self) -> list[str]:
        """The tables of messages except `tracks`."""
        return [name for name in self.buffered if name not in LATEST_NAMES | {TRACKS.name}]


def keys(name: str) -> str:
    """Returns the quoted name of the view with a table's rows (`seq`, `id`, `received_at`) that are not rejected."""
    return engine.name(f"keys of {name}")


def reject_refused_rows(adoption: Adoption, messages: Mapping[str, str]) -> None:
    """Rejects the rows that the destination refused, whole; `messages` has the errors of messages by their ids."""
    con = adoption.context.con
    for name, table in adoption.buffered.items():
        if refused := adoption.refused.get(name, messages):
            rows = [{"id": id_, "error": error} for id_, error in refused.items()]
            with engine.registered(con, refused_rows=engine.text_table(rows, ("id", "error"))):
                con.execute(SQL["refused"].format(keys=f"({table.select(_KEYS)})", raw=_raw(table)))


def reject_long_keys(adoption: Adoption) -> None:
    """Rejects the rows with a key that is too long for the destination."""
    con, most = adoption.context.con, adoption.context.limits.key_bytes
    if most is None:
        return
    other_keys = {latest.messages.name: latest.key for latest in LATEST}
    for name, table in adoption.buffered.items():
        for key in filter(None, ("id", other_keys.get(name))):
            rows = f"(FROM ({table.select({key: 'text'})}) WHERE strlen({key}) > {most})"
            if engine.count(con, rows):  # otherwise JSON of all rows would be made, which takes long
                con.execute(
                    SQL["long_keys"].format(raw=_raw(table), rows=rows, key=key),
                    {"message": long_key_message(key, most, "{:,}")},
                )


def reject_rows_without_id(adoption: Adoption) -> None:
    """Rejects the rows of `users` and `accounts` without an id that can be stored."""
    for name in LATEST_NAMES & adoption.buffered.keys():
        con, table = adoption.context.con, adoption.buffered[name]
        nameless = f"(SELECT seq FROM ({table.select({'id': 'text'})}) WHERE id IS NULL)"
        if engine.count(con, nameless):  # otherwise JSON of all rows would be made, which takes time and memory
            con.execute(SQL["nameless"].format(raw=_raw(table, nameless)), {"message": REJECT_REASONS["no_id"]})


def reject_deleted_persons(adoption: Adoption, hashes: HashedIds) -> None:
    """Rejects the rows of deleted persons."""
    if not hashes:
        return
    con = adoption.context.con
    register_suppressed(con, hashes.pairs(), hashes.key)
    parts = []
    for name, table in adoption.buffered.items():
        for group in table.groups:
            cells = {"id": "id"} | {column: column for column in PERSON_COLUMNS if column in group.forms}
            cells |= {"user_id": "id"} if name == USERS.name else {}  # an id of `accounts` is a group's
            select = ", ".join(
                f"{as_plain_text(group.forms[column], cell_name(column))} AS {engine.name(called)}"
                for called, column in cells.items()
            )
            parts.append(f"SELECT seq, {select} FROM {group.source}")
    con.execute(f"CREATE OR REPLACE VIEW messages AS {' UNION ALL BY NAME '.join(parts)}")
    con.execute("CREATE OR REPLACE VIEW extras AS FROM no_extras")
    if suppress(con):
        con.execute(SQL["suppressed"], {"message": REJECT_REASONS["suppressed"]})


def find_kept(adoption: Adoption) -> None:
    """Fills `duplicates` with the rows that are not kept, and `track_duplicates` with those not kept in `tracks`."""
    con, known, stored = adoption.context.con, adoption.context.existing, adoption.stored
    for name, table in adoption.buffered.items():
        con.execute(SQL["keys"].format(name=keys(name), rows=table.select(_KEYS)))
    for name in adoption.messages:
        con.execute(SQL["within"].format(keys=keys(name), duplicates="duplicates"))
        if stored is not None and name in known:
            engine.read_stored(
                con, stored(name, ["id"]), SQL["stored"].format(keys=keys(name), duplicates="duplicates")
            )
    _find_kept_tracks(adoption)


def _find_kept_tracks(adoption: Adoption) -> None:
    """Collects the rows of events' tables, and of `tracks` itself, that are not kept in `tracks`."""
    con = adoption.context.con
    if TRACKS.name in adoption.buffered:
        _leave_to_events(adoption)
    parts = [f"FROM {keys(name)}" for name in adoption.events]
    if TRACKS.name in adoption.buffered:
        parts.append(f"FROM {keys(TRACKS.name)} ANTI JOIN orphans USING (seq)")
    if not parts:
        return
    con.execute(f'CREATE OR REPLACE VIEW "track keys" AS {" UNION ALL ".join(parts)}')
    names = {"keys": '"track keys"', "duplicates": "track_duplicates"}
    con.execute(SQL["within"].format(**names))
    if adoption.stored is not None and TRACKS.name in adoption.context.existing:
        engine.read_stored(con, adoption.stored(TRACKS.name, ["id"]), SQL["stored"].format(**names))


def _leave_to_events(adoption: Adoption) -> None:
    """Leaves out rows of `tracks` whose event's table is adopted, too; rejects those that are missing in that table."""
    con, tracks = adoption.context.con, adoption.buffered[TRACKS.name]
    rows = tracks.select({"id": "text", "event": "text"})
    events = [name for name in adoption.found if name not in OTHER_TABLES]
    con.execute(SQL["orphans"].format(rows=rows, of_events=engine.is_one_of("lower(event)", events)))
    if not events:
        return
    if adoption.events:
        every = " UNION ALL ".join(f"SELECT id FROM {keys(name)}" for name in adoption.events)
        con.execute(SQL["with_event_row"].format(keys=f"({every})"))
    if adoption.stored is not None and engine.count(con, "(FROM orphans ANTI JOIN duplicates USING (seq))"):
        for table in map(adoption.context.event_table, events):
            if table in adoption.context.existing:
                engine.read_stored(con, adoption.stored(table, ["id"]), SQL["stored_event_row"])
    con.execute(SQL["no_event_row"].format(raw=_raw(tracks)), {"message": REJECT_REASONS["no_event_row"]})


def _raw(table: BufferedTable, rows: str = "") -> str:
    """Returns a query of a table's rows (`seq`) as JSON text (`raw`): all, or those that the query `rows` selects."""
    selected = f" SEMI JOIN {rows} USING (seq)" if rows else ""
    return " UNION ALL ".join(
        f"SELECT seq, {group.row_json} AS raw FROM {group.source}{selected}" for group in table.groups
    )


def count_table(adoption: Adoption, name: str) -> None:
    """Counts the rows of a table that are not rejected, and the duplicates among them, by file."""
    duplicates = "(FROM duplicates UNION ALL FROM track_duplicates)" if name == TRACKS.name else "duplicates"
    adoption.context.con.execute(SQL["counted"].format(keys=keys(name), duplicates=duplicates))


def file_counts(adoption: Adoption) -> list[FileCount]:
    """Returns the counts of the rows of each file, with rejected ones; complete once all tables are counted."""
    return [
        FileCount(*row[:5], *(time and time.astimezone(UTC) for time in row[5:]))
        for row in adoption.context.con.execute(SQL["file_counts"]).fetchall()
    ]
