"""The rows of each table, made of the cells of the messages that stay."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from ..catalog import COLUMN_RESERVE, LINK, MESSAGE_TABLES, PROPERTIES, Column, Type, event_table
from . import engine
from .columns import TALL, TALL_TEXTS, Extra, ExtraColumns, extra_cell, pivot
from .context import CELLS_AT_ONCE, ProjectionContext, TableRows, declared_types, ordered_columns

FEW = 50_000  # rows that may be gathered in memory
COLUMN_MEMORY = 0.25  # MB that a column more may take
_CLOCKS = ("received_at", "sent_at", "original_timestamp", "timestamp")


class RowBuilder:
    """The rows of one load's tables. `tall` are the columns whose values wait as rows, by place."""

    def __init__(
        self, load: ProjectionContext, columns: ExtraColumns, tall: Mapping[int, Mapping[str, tuple[int, int]]]
    ) -> None:
        self._load = load
        self._columns = columns
        self._tall = tall
        self._con = load.con
        self._known = load.known
        self._few: set[int] = set()
        self._made: dict[int, TableRows] = {}
        self._numbers = itertools.count()

    def tables(self) -> Iterator[TableRows]:
        """The rows of each table of messages that has any: the events', the other messages', `tracks`."""
        live = dict(self._con.execute("SELECT place, count(*) FROM live GROUP BY place ORDER BY 2").fetchall())
        tracks = sum(count for place, count in live.items() if place == 0 or place >= len(MESSAGE_TABLES))
        self._gather_few(live)
        for place, count in live.items():
            if place:
                yield self.rows(place, count)
        if tracks:
            yield self.rows(0, tracks)

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

    def rows(self, place: int, count: int) -> TableRows:
        """The rows of a table: of an event, of a kind of message, or (place 0) the common columns of all events."""
        if place in self._made:
            return self._made[place]
        name = self._load.places[place]
        table = next((table for table in MESSAGE_TABLES if table.name == name), None) or event_table(name)
        where = self._load.where(place) if place else "kind = 'track'"
        source = "few" if place in self._few else "live"
        declared = declared_types(table)
        if table not in MESSAGE_TABLES:
            present = self._present(name, f"{source} WHERE {where}", (*PROPERTIES, *LINK))
            declared |= {column.name: column.type for column in present}
        found = self._columns.wide_kinds(place, f"{source} WHERE {where}")
        tall = self._tall.get(place, {})
        for column, (kinds, number) in tall.items():
            before = found.get(column, (0, 0))
            found[column] = before[0] | kinds, before[1] + number
        room = self._load.limits.columns - COLUMN_RESERVE - self._columns.width(name, declared)
        extras = self._columns.take_extras(place, where, found, tall, room)
        self._made[place] = self._relation(place, declared, extras, source, where, count)
        return self._made[place]

    def _present(self, table: str, source: str, columns: Sequence[Column]) -> list[Column]:
        """Those of `columns` that have a value among the rows, or that the table has already."""
        counts = ", ".join(f"count({engine.name(column.name)})" for column in columns)
        found = self._con.execute(f"SELECT {counts} FROM {source}").fetchone() or ()
        known = self._known.get(table, {})
        return [column for column, number in zip(columns, found, strict=True) if number or column.name in known]

    def _relation(
        self,
        place: int,
        declared: Mapping[str, Type],
        extras: Mapping[str, Extra],
        source: str,
        where: str,
        count: int,
    ) -> TableRows:
        table = self._load.places[place]
        types: dict[str, Type] = {extra.name: extra.type for extra in extras.values()}
        columns = ordered_columns({**declared, **types})
        cells = {extra.name: extra_cell(column, extra) for column, extra in extras.items()}
        cells |= {column: self._declared_cell(column, of) for column, of in declared.items()}
        select = ", ".join(f"{cells[column]} AS {engine.name(column)}" for column in columns)
        tall = {column: extra for column, extra in extras.items() if extra.tall}
        if not tall:
            return TableRows(table, columns, self._con.sql(f"SELECT {select} FROM {source} WHERE {where}"), count)
        cells_of = self._tall_cells(tall, self._columns.find_too_wide(table, where, declared, extras))
        # Each column takes buffers of its own, in every thread.
        self._con.execute(f"SET memory_limit = '{self._load.memory + int(COLUMN_MEMORY * len(columns))}MB'")
        rows = max(1, CELLS_AT_ONCE // len(columns))
        queries = [
            f"SELECT {select} FROM (FROM {source} WHERE {where} AND {part}) m"
            f" LEFT JOIN ({pivot(tall, cells_of, part)}) USING (seq)"
            for part in self._parts(f"{source} WHERE {where}", rows)
        ]
        if len(queries) == 1:
            return TableRows(table, columns, self._con.sql(queries[0]), count)
        files = [f"{self._load.scratch}/{place}-{number}-rows.parquet" for number in range(len(queries))]
        for path, query in zip(files, queries, strict=True):
            self._con.execute(f"COPY ({query}) TO {engine.literal(path)} (FORMAT parquet, ROW_GROUP_SIZE {rows})")
        listed = ", ".join(map(engine.glob_literal, files))
        return TableRows(table, columns, self._con.sql(f"FROM read_parquet([{listed}])"), count)

    def _tall_cells(self, tall: Mapping[str, Extra], without: str | None) -> str:
        """A view of the cells that wait as rows, each as the text of the value that its column will have."""
        number = next(self._numbers)
        types = pa.table({"column": list(tall), "type": [extra.type for extra in tall.values()]})
        self._con.register("types", types)
        self._con.execute(f"CREATE TABLE types_{number} AS FROM types")
        self._con.unregister("types")
        but = f' ANTI JOIN {without} USING (seq, "column")' if without else ""
        texts = " ".join(f"WHEN '{of}' THEN {text}" for of, text in TALL_TEXTS.items())
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
        name = engine.name(column)
        if column == "uuid_ts":
            return self._load.loaded_at
        if column in _CLOCKS:
            return f"make_timestamptz(epoch_us({name}))"  # the engine's own cast asks for the zone's rules
        if column_type != "text":
            return f"as_{column_type}({name})"
        return "slug" if column == "event" else name
