"""`users` and `accounts`: a row for each person or group, with the last value of each trait (spec: Identity)."""

from collections.abc import Mapping

from ..catalog import MESSAGE_TABLES, Latest, Type
from . import engine
from .columns import TALL, TYPED_TEXTS, VALUE_BYTES_SQL, row_bytes, typed_again
from .context import SQL_TYPES, ProjectionContext, ReadTable, TableRows, declared_types, ordered_columns
from .tables import COLUMN_MEMORY, RowBuilder

MANY_TRAITS = 200  # more are gathered by way of a row each
_FIRST_TIME = "TIMESTAMPTZ '0001-01-01'"
_LATER = f"(coalesce(received_at, {_FIRST_TIME}), id)"


class LatestRows:
    """What one load's identifies (groups) say of persons (accounts). Both are called persons within."""

    def __init__(self, made: Latest, load: ProjectionContext, rows: RowBuilder) -> None:
        self._made = made
        self._load = load
        self._rows = rows
        self._con = load.con
        self._known = load.known

    def rows(self, stored: ReadTable | None = None) -> TableRows | None:
        """The persons of this load's identifies, each trait at its last value by `received_at` (spec: Identity).

        They are made from all identifies of the person, also those that are stored already, so that the order in which
        messages are loaded does not matter, nor that a load was killed. Where the table is not there yet, all persons
        whose identifies are stored come with them.
        """
        kind, key = self._made.kind, self._made.key
        self._con.execute(f"""
            CREATE OR REPLACE TABLE persons AS
            SELECT DISTINCT {key} AS id FROM messages WHERE kind = '{kind}' AND blank_as_null({key}) IS NOT NULL
            UNION SELECT made FROM refused WHERE again AND of = '{self._made.table.name}'""")
        if not self._load.count("persons"):
            return None
        fresh = self._rows.rows(MESSAGE_TABLES.index(self._made.messages), 0)
        types = dict(fresh.columns)
        self._con.execute(f"CREATE OR REPLACE TABLE identified AS {fresh.relation.sql_query()}")
        known = self._known.get(self._made.messages.name, {})
        if stored is not None and known:
            types |= known
            for column in types.keys() - fresh.columns.keys():
                self._con.execute(f"ALTER TABLE identified ADD COLUMN {engine.name(column)} {SQL_TYPES[types[column]]}")
            self._add_stored(stored, known)
        return self._persons(types)

    def _add_stored(self, stored: ReadTable, known: Mapping[str, Type]) -> None:
        """Adds the identifies that are stored: those of this load's persons, or of all."""
        key = self._made.key
        wanted = f" SEMI JOIN persons p ON p.id = s.{key}" if self._made.table.name in self._known else ""
        engine.read_stored(
            self._con,
            stored(self._made.messages.name, list(known)),
            f"INSERT INTO identified BY NAME FROM stored s{wanted}",
        )
        if not wanted:
            self._con.execute(
                f"CREATE OR REPLACE TABLE persons AS SELECT id FROM persons UNION"
                f" SELECT {key} FROM identified WHERE blank_as_null({key}) IS NOT NULL"
            )

    def _persons(self, types: Mapping[str, Type]) -> TableRows:
        prefix = self._made.left_out_prefix
        traits = {
            column: of
            for column, of in types.items()
            if column not in self._made.left_out and not (prefix and column.startswith(prefix))
        }
        columns = ordered_columns(declared_types(self._made.table) | traits)
        key = self._made.key
        if len(traits) > MANY_TRAITS:
            query = self._wide_persons(columns, traits)
        else:
            cells = {"id": key, "received_at": "max(received_at)", "uuid_ts": self._load.loaded_at} | {
                column: f"arg_max({engine.name(column)}, {_LATER})" for column in traits
            }
            select = ", ".join(
                f"({cells[column]})::{SQL_TYPES[of]} AS {engine.name(column)}" for column, of in columns.items()
            )
            query = f"SELECT {select} FROM identified SEMI JOIN persons p ON p.id = {key} GROUP BY {key}"
        now = f"{self._made.table.name}_now"  # one each, because they are written later
        self._con.execute(f"CREATE OR REPLACE TABLE {now} AS {query}")
        return TableRows(self._made.table.name, columns, self._con.sql(f"FROM {now}"), self._load.count(now))

    def _wide_persons(self, columns: Mapping[str, Type], traits: Mapping[str, Type]) -> str:
        """The persons' rows by way of a row a trait: hundreds of columns at once take much memory."""
        key = self._made.key
        self._con.execute(f"SET memory_limit = '{self._load.memory + int(COLUMN_MEMORY * len(columns))}MB'")
        self._con.execute(
            "CREATE OR REPLACE TABLE person_cells"
            " (id VARCHAR, received_at TIMESTAMPTZ, message VARCHAR, name VARCHAR, type VARCHAR, value VARCHAR)"
        )
        for part in engine.batched(traits.items(), MANY_TRAITS):
            structs = ", ".join(
                f"{{'name': {engine.literal(TALL + column)}, 'type': '{of}',"
                f" 'value': {TYPED_TEXTS[of].format(engine.name(column))}}}"
                for column, of in part
            )
            self._con.execute(
                "INSERT INTO person_cells FROM"
                f" (SELECT {key}, received_at, id, unnest([{structs}], recursive := true)"
                f" FROM identified SEMI JOIN persons p ON p.id = {key}) WHERE value IS NOT NULL"
            )
        self._con.execute(
            "CREATE OR REPLACE TABLE person_cells AS FROM person_cells QUALIFY row_number() OVER (PARTITION BY id, name"
            f" ORDER BY coalesce(received_at, {_FIRST_TIME}) DESC, message DESC) = 1"
        )
        self._narrow_persons(columns, traits)
        cells = {"id": "id", "received_at": "u.received_at", "uuid_ts": self._load.loaded_at}
        cells |= {column: typed_again(column, of) for column, of in traits.items()}
        select = ", ".join(f"{cells[column]} AS {engine.name(column)}" for column in columns)
        names = ", ".join(engine.literal(TALL + column) for column in traits)
        cells_of = "(SELECT id, name, value FROM person_cells)"
        return (
            f"SELECT {select} FROM (SELECT {key} AS id, max(received_at) AS received_at FROM identified"
            f" SEMI JOIN persons p ON p.id = {key} GROUP BY {key}) u"
            f" LEFT JOIN (PIVOT {cells_of} ON name IN ({names}) USING first(value) GROUP BY id) USING (id)"
        )

    def _narrow_persons(self, columns: Mapping[str, Type], traits: Mapping[str, Type]) -> None:
        """Takes from the persons' cells what the destination's rows have no room for, the last columns first."""
        if self._load.limits.row_bytes is None:
            return
        declared = declared_types(self._made.table)
        room = self._load.limits.row_bytes - row_bytes(declared.values(), len(columns))
        known = self._known.get(self._made.table.name, {})
        there = ", ".join(engine.literal(TALL + column) for column in traits if column in known) or "''"
        own = ", ".join(engine.literal(TALL + column) for column in declared)
        self._con.execute(
            f"CREATE OR REPLACE TABLE too_wide_persons AS FROM ("
            f"SELECT *, sum({VALUE_BYTES_SQL}) OVER (PARTITION BY id ORDER BY name NOT IN ({there}), name"
            f" ROWS UNBOUNDED PRECEDING) AS bytes FROM person_cells WHERE name NOT IN ({own})) WHERE bytes > {room}"
        )
        self._con.execute(
            f"INSERT INTO discards_of_made SELECT '{self._made.table.name}', id, substr(name, {len(TALL) + 1}),"
            " CASE type WHEN 'text' THEN to_json(value)::VARCHAR ELSE value END, 'row_too_wide', received_at"
            " FROM too_wide_persons"
        )
        self._con.execute("DELETE FROM person_cells WHERE (id, name) IN (SELECT (id, name) FROM too_wide_persons)")
