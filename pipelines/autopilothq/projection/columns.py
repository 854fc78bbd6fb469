"""The columns beyond the catalogue's: which a table gets, their types, and what it has no room for (spec: Limits).

Their values wait in columns of their own (wide), or as rows (tall) where the engine could not read the line.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from ..catalog import COLUMN_RESERVE, CONTEXT, LINK, PROPERTIES, Limits, Type
from ..segment.message import EXTRA
from . import engine
from .context import PLACE_OF_KIND, SQL_TYPES, ProjectionContext

# What a value takes of a row of PostgreSQL at most, in bytes: longer text is stored elsewhere behind a pointer of 18,
# all else is up to 8 behind up to 7 that align it, but numeric: a head of 5 and 2 for each 4 of up to 17 digits.
VALUE_BYTES = 24
VALUE_BYTES_SQL = (
    f"CASE type WHEN 'text' THEN least(strlen(value) + 1, {VALUE_BYTES}) WHEN 'double' THEN 17 ELSE 15 END"
)


def row_bytes(declared: Collection[Type], columns: int) -> int:
    """The bytes of a row without what the catalogue does not know: a head, a bit a column, declared values."""
    return 24 + (columns + COLUMN_RESERVE) // 8 + sum(VALUE_BYTES if of == "text" else 15 for of in declared)


class Extra(NamedTuple):
    """A column beyond the catalogue's of one table: its type, its name there, and where its values wait."""

    type: Type
    name: str
    wide: bool
    tall: bool
    known: bool


def unreserved(column: str, limits: Limits) -> str:
    """A column's name, behind `_` where a destination has that name for itself (spec: Names)."""
    taken = column in limits.reserved or column.startswith(limits.reserved_prefixes)
    return f"_{column}" if taken else column


class ExtraColumns:
    """The columns of one load's tables."""

    def __init__(self, load: ProjectionContext) -> None:
        self._load = load
        self._con = load.con
        self._cells = load.cells
        self._known = load.known
        self._limits = load.limits
        self._numbers = itertools.count()
        self._wide: dict[int, dict[str, None]] | None = None

    def width(self, table: str, declared: Collection[str]) -> int:
        """How many columns a table has, or will have before any that the catalogue does not know."""
        known = self._known.get(table, {})
        return max(self._load.widths.get(table, 0), len(known)) + len([name for name in declared if name not in known])

    def wide(self, place: int) -> list[str]:
        """The columns beyond the catalogue's that a table's messages have in their files; of `tracks` the context's."""
        if self._wide is None:
            self._wide = {}
            for (kind, event), columns in self._cells.columns.items():
                at = self._load.events[event] if event is not None else PLACE_OF_KIND[kind]
                names = dict.fromkeys(name.removeprefix(EXTRA) for name in columns)
                of_context = {name: None for name in names if name.startswith("context_")}
                self._wide.setdefault(at, {}).update(names if at else of_context)
                if kind == "track":
                    self._wide.setdefault(0, {}).update(of_context)
        return list(self._wide.get(place, ()))

    def wide_kinds(self, place: int, source: str) -> dict[str, tuple[int, int]]:
        """The kinds of values, and their number, of each of these columns that has any."""
        found: dict[str, tuple[int, int]] = {}
        for part in engine.batched(self.wide(place), 100):
            cells = [engine.name(EXTRA + column) for column in part]
            row = self._con.execute(
                f"SELECT {', '.join(f'value_kinds({cell}), count({cell})' for cell in cells)} FROM {source}"
            ).fetchone()
            for column, kinds, number in zip(part, (row or ())[::2], (row or ())[1::2], strict=True):
                if number:
                    found[column] = kinds, number
        return found

    def tall_kinds(self, messages: str) -> dict[int, dict[str, tuple[int, int]]]:
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

    def take_extras(
        self,
        place: int,
        where: str,
        found: Mapping[str, tuple[int, int]],
        tall: Collection[str],
        room: int,
    ) -> dict[str, Extra]:
        """The columns beyond the catalogue's that a table gets; their types are its own, else by all their values.

        Columns that are there already are taken, and `room` more, those with most values first. What the table has no
        column for is discarded, and so is what does not fit its column.
        """
        table = self._load.places[place]
        known = self._known.get(table, {})
        wide = set(self.wide(place))
        names: dict[str, str] = {}
        taken: set[str] = set()
        for column in sorted(found, key=lambda column: (-found[column][1], column)):
            # The digest in a shortened name is so short that somebody can make another name with the same.
            if (name := self._column(column)) not in taken:
                names[column] = name
                taken.add(name)
        new = [column for column, name in names.items() if name not in known]
        beyond = set(new[max(0, room) :])
        self._discard_columns(table, where, [c for c in found if c not in names], wide, tall, "same_column")
        self._discard_columns(table, where, [c for c in new if c in beyond], wide, tall, "too_many_columns")
        extras = {
            column: Extra(
                known.get(names[column]) or engine.type_of_kinds(kinds),
                names[column],
                column in wide,
                column in tall,
                names[column] in known,
            )
            for column, (kinds, _) in found.items()
            if column in names and column not in beyond
        }
        if place:  # `tracks` has none of its own
            typed = {column.name: column.type for column in (*CONTEXT, *PROPERTIES, *LINK)}
        else:
            typed = {column.name: column.type for column in CONTEXT}
        self._discard_misfits(table, where, typed, extras)
        return extras

    def _column(self, column: str) -> str:
        """The name that a column beyond the catalogue's has in the destination."""
        return self._load.shorten(unreserved(column, self._limits))

    def _discard_columns(
        self, table: str, where: str, columns: Sequence[str], wide: Collection[str], tall: Collection[str], reason: str
    ) -> None:
        """The values of columns that a table does not get."""
        for column in columns:
            if column not in wide:
                continue
            cell = engine.name(EXTRA + column)
            self._con.execute(
                f"INSERT INTO discards SELECT seq, ?, ?, {cell}, ? FROM messages WHERE {where} AND {cell} IS NOT NULL",
                [table, column, reason],
            )
        if waiting := [column for column in columns if column in tall]:
            self._con.register("without", pa.table({"column": pa.array(waiting, pa.string())}))
            self._con.execute(
                'INSERT INTO discards SELECT seq, ?, x."column", value, ?'
                f" FROM extras x SEMI JOIN (SELECT seq FROM messages WHERE {where}) m USING (seq)"
                ' SEMI JOIN without w ON w."column" = x."column"',
                [table, reason],
            )
            self._con.unregister("without")

    def _discard_misfits(self, table: str, where: str, typed: Mapping[str, Type], extras: Mapping[str, Extra]) -> None:
        """The values that cannot become their columns' types."""
        cells = {column: (engine.name(column), of) for column, of in typed.items() if of != "text"}
        cells |= {
            column: (engine.name(EXTRA + column), extra.type)
            for column, extra in extras.items()
            if extra.wide and extra.type != "text"
        }
        for part in engine.batched(cells.items(), 100):
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

    def find_too_wide(
        self, table: str, where: str, declared: Mapping[str, Type], extras: Mapping[str, Extra]
    ) -> str | None:
        """A table of the cells (`seq`, `column`) that a row of the destination has no room for, None if there are none.

        They are discarded. The columns that the table has come first, the others by name.
        """
        if self._limits.row_bytes is None:
            return None
        room = self._limits.row_bytes - row_bytes(declared.values(), len(declared) + len(extras))
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
            f'SELECT seq, x."column", value, sum({VALUE_BYTES_SQL}) OVER (PARTITION BY seq'
            ' ORDER BY w.new, x."column" ROWS UNBOUNDED PRECEDING) AS bytes'
            f' FROM extras x JOIN widths w ON w."column" = x."column" SEMI JOIN {messages} m USING (seq))'
            f" WHERE bytes > {room}"
        )
        self._con.unregister("widths")
        self._con.execute(f"INSERT INTO discards SELECT seq, ?, \"column\", value, 'row_too_wide' FROM {name}", [table])
        return name


TALL = "t:"  # before the name of a column that was made of rows
# What a value is as text while it waits for its column, and how it is read again: nothing is lost between.
TYPED_TEXTS: dict[Type, str] = {
    "text": "{}",
    "bigint": "{}::VARCHAR",
    "double": "{}::VARCHAR",
    "bool": "{}::VARCHAR",
    "timestamp": "epoch_us({})::VARCHAR",
}
TALL_TEXTS = {of: text.format(f"as_{of}(value)") for of, text in TYPED_TEXTS.items()}


def typed_again(column: str, of: Type) -> str:
    name = engine.name(TALL + column)
    return f"make_timestamptz({name}::BIGINT)" if of == "timestamp" else f"{name}::{SQL_TYPES[of]}"


def extra_cell(column: str, extra: Extra) -> str:
    """A value that waits in a column, as a row, or for some messages so and for others so."""
    wide = f"as_{extra.type}({engine.name(EXTRA + column)})"
    cells = [wide] * extra.wide + [typed_again(column, extra.type)] * extra.tall
    return cells[0] if len(cells) == 1 else f"coalesce({cells[0]}, {cells[1]})"


def pivot(columns: Collection[str], cells: str, part: str) -> str:
    """A query that makes one row a message of cells of these columns; `part` chooses among the messages."""
    names = ", ".join(engine.literal(TALL + column) for column in columns)
    return f"PIVOT (FROM {cells} WHERE {part}) ON name IN ({names}) USING first(value) GROUP BY seq"
