"""`users`: a row for each person, with the last value of each trait (spec: Identity)."""

from collections.abc import Mapping

from ..catalog import COMMON, CONTEXT, IDENTIFIES, MESSAGE_TABLES, USERS, Type
from . import values
from .columns import TALL, TYPED_TEXTS, VALUE_BYTES_SQL, row_bytes, typed_again
from .rows import COLUMN_MEMORY, TableRows
from .tables import SQL_TYPES, Context, Rows, Stored, declared_types, ordered

MANY_TRAITS = 200  # more are gathered by way of a row each
_FIRST_TIME = "TIMESTAMPTZ '0001-01-01'"
_LATER = f"(coalesce(received_at, {_FIRST_TIME}), id)"


class Users:
    """The persons of one load's identifies."""

    def __init__(self, load: Context, rows: TableRows) -> None:
        self._load = load
        self._rows = rows
        self._con = load.con
        self._known = load.known

    def users(self, stored: Stored | None = None) -> Rows | None:
        """The persons of this load's identifies, each trait at its last value by `received_at` (spec: Identity).

        They are made from all identifies of the person, also those that are stored already, so that the order in which
        messages are loaded does not matter, nor that a load was killed.
        """
        self._con.execute("""
            CREATE OR REPLACE TABLE persons AS
            SELECT DISTINCT user_id AS id FROM messages WHERE kind = 'identify' AND user_id IS NOT NULL
            UNION SELECT user_id FROM refused WHERE again""")
        if not self._load.count("persons"):
            return None
        fresh = self._rows.rows(MESSAGE_TABLES.index(IDENTIFIES), 0)
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
        columns = ordered(declared_types(USERS) | traits)
        if len(traits) > MANY_TRAITS:
            query = self._wide_persons(columns, traits)
        else:
            cells = {"id": "user_id", "received_at": "max(received_at)", "uuid_ts": self._load.loaded_at} | {
                column: f"arg_max({values.name(column)}, {_LATER})" for column in traits
            }
            select = ", ".join(
                f"({cells[column]})::{SQL_TYPES[of]} AS {values.name(column)}" for column, of in columns.items()
            )
            query = f"SELECT {select} FROM identified SEMI JOIN persons p ON p.id = user_id GROUP BY user_id"
        self._con.execute(f"CREATE OR REPLACE TABLE persons_now AS {query}")
        count = self._load.count("persons_now")
        return Rows(USERS.name, columns, self._con.sql("FROM persons_now"), count)

    def _wide_persons(self, columns: Mapping[str, Type], traits: Mapping[str, Type]) -> str:
        """The persons' rows by way of a row a trait: hundreds of columns at once take much memory."""
        self._con.execute(f"SET memory_limit = '{self._load.memory + int(COLUMN_MEMORY * len(columns))}MB'")
        self._con.execute(
            "CREATE OR REPLACE TABLE person_cells"
            " (id VARCHAR, received_at TIMESTAMPTZ, message VARCHAR, name VARCHAR, type VARCHAR, value VARCHAR)"
        )
        for part in values.batched(traits.items(), MANY_TRAITS):
            structs = ", ".join(
                f"{{'name': {values.literal(TALL + column)}, 'type': '{of}',"
                f" 'value': {TYPED_TEXTS[of].format(values.name(column))}}}"
                for column, of in part
            )
            self._con.execute(
                "INSERT INTO person_cells FROM"
                f" (SELECT user_id, received_at, id, unnest([{structs}], recursive := true)"
                " FROM identified SEMI JOIN persons p ON p.id = user_id) WHERE value IS NOT NULL"
            )
        self._con.execute(
            "CREATE OR REPLACE TABLE person_cells AS FROM person_cells QUALIFY row_number() OVER (PARTITION BY id, name"
            f" ORDER BY coalesce(received_at, {_FIRST_TIME}) DESC, message DESC) = 1"
        )
        self._narrow_persons(columns, traits)
        cells = {"id": "id", "received_at": "u.received_at", "uuid_ts": self._load.loaded_at}
        cells |= {column: typed_again(column, of) for column, of in traits.items()}
        select = ", ".join(f"{cells[column]} AS {values.name(column)}" for column in columns)
        names = ", ".join(values.literal(TALL + column) for column in traits)
        cells_of = "(SELECT id, name, value FROM person_cells)"
        return (
            f"SELECT {select} FROM (SELECT user_id AS id, max(received_at) AS received_at FROM identified"
            " SEMI JOIN persons p ON p.id = user_id GROUP BY user_id) u"
            f" LEFT JOIN (PIVOT {cells_of} ON name IN ({names}) USING first(value) GROUP BY id) USING (id)"
        )

    def _narrow_persons(self, columns: Mapping[str, Type], traits: Mapping[str, Type]) -> None:
        """Takes from the persons' cells what the destination's rows have no room for, the last columns first."""
        if self._load.limits.row_bytes is None:
            return
        declared = declared_types(USERS)
        room = self._load.limits.row_bytes - row_bytes(declared.values(), len(columns))
        known = self._known.get(USERS.name, {})
        there = ", ".join(values.literal(TALL + column) for column in traits if column in known) or "''"
        own = ", ".join(values.literal(TALL + column) for column in declared)
        self._con.execute(
            f"CREATE OR REPLACE TABLE too_wide_persons AS FROM ("
            f"SELECT *, sum({VALUE_BYTES_SQL}) OVER (PARTITION BY id ORDER BY name NOT IN ({there}), name"
            f" ROWS UNBOUNDED PRECEDING) AS bytes FROM person_cells WHERE name NOT IN ({own})) WHERE bytes > {room}"
        )
        self._con.execute(
            f"INSERT INTO discards_of_users SELECT '{USERS.name}', id, substr(name, {len(TALL) + 1}),"
            " CASE type WHEN 'text' THEN to_json(value)::VARCHAR ELSE value END, 'row_too_wide', received_at"
            " FROM too_wide_persons"
        )
        self._con.execute("DELETE FROM person_cells WHERE (id, name) IN (SELECT (id, name) FROM too_wide_persons)")
