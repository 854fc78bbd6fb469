"""The people whose events are requested from an API: decides who is due, and makes their rows from the answers.

There may be millions of people, so they are kept in the engine, not in Python.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import pyarrow as pa

from ..catalog import PROFILES
from ..segment.identity import HashedIds
from . import engine, suppression
from .context import TableRows, declared_types

_PER_FETCH = 1_000  # people that are fetched from the engine at a time
_SQL = engine.queries("people.sql")


class DuePeople(NamedTuple):
    """The rule that decides who is due.

    - `begun`: when this run began, or the run that it continues. People who were requested since then are not due.
    - `look_back`: if given, people are due only if the API never answered for them, or if their last activity is later
      than their watermark minus this span.
    - `retry`: people whose last answer could not be read are due as well, even if they were not added.
    - `latest`: requests noted with a later time are ignored, because a clock was wrong.
    """

    begun: datetime
    look_back: timedelta | None = None
    retry: bool = False
    latest: datetime | None = None


class People:
    """The people of a run. Add all, choose, take those who are due, note the answers, take the rows.

    `key` is the space and the scope of the rows. `scratch` is an empty folder for whatever exceeds `memory` (MB); the
    caller deletes it. `due` is the number of people who are due.
    """

    def __init__(self, key: tuple[str, str], scratch: str, memory: int = 100) -> None:
        self._key = key
        self._con = engine.connect(scratch, memory, threads=1)
        self._con.execute(_SQL["tables"])
        self.due = 0

    def close(self) -> None:
        """Frees the memory."""
        self._con.close()

    def add(
        self, people: Sequence[tuple[str, datetime | None]] | Sequence[tuple[str, datetime | None, str | None]]
    ) -> None:
        """Adds people with the time of their last activity (None if unknown), and details that `take` returns.

        The same person can be added several times.
        """
        self._insert("people", ("person", "active_at", "details"), people)

    def leave_out(self, suppressed: HashedIds) -> None:
        """Leaves out the people who are on the suppression list."""
        suppression.register_suppressed(self._con, suppressed.pairs(), suppressed.key)
        self._con.execute(
            f"DELETE FROM people WHERE person IN (SELECT person FROM ({suppression.people_on_list('people')}))"
        )

    def choose(self, stored: Iterable[pa.RecordBatch], complete: Collection[str], due: DuePeople) -> None:
        """Finds the people who are due.

        `stored` are rows of `_profiles`; only those of the loads with the ids in `complete` count.
        """
        with engine.registered(self._con, complete=pa.table({"load_id": list(complete)})):
            space, scope = self._key
            values = {"space": space, "scope": scope, "latest": due.latest}
            engine.read_stored(self._con, stored, _SQL["asked"], values)
        if due.retry:
            self._con.execute(_SQL["retry"])
        microseconds = due.look_back // timedelta(microseconds=1) if due.look_back is not None else None
        self._con.execute(_SQL["due"], {"begun": due.begun, "lookback": microseconds, "retry": due.retry})
        self.due = engine.count(self._con, "due")

    def take(self, most: int | None = None) -> Iterator[tuple[str, datetime | None, str | None]]:
        """Yields up to `most` people who are due, with their watermarks and details; new people come first.

        They are shuffled: otherwise people for whom the API always fails could follow each other and look like an
        outage.
        """
        end = self.due if most is None else min(most, self.due)
        with self._con.cursor() as con:
            for start in range(0, end, _PER_FETCH):
                bounds = [start, min(start + _PER_FETCH, end)]
                taken = con.execute(
                    "SELECT person, watermark, details FROM due WHERE number > ? AND number <= ? ORDER BY number",
                    bounds,
                ).to_arrow_table()
                yield from zip(*(taken[name].to_pylist() for name in taken.column_names), strict=True)

    def note(self, answered: Sequence[tuple[str, datetime | None, datetime]]) -> None:
        """Notes people who were requested from the API, with their new watermarks and the times of the requests."""
        self._insert("answered", ("person", "watermark", "asked_at"), answered)

    def rows(self, load_id: str) -> TableRows:
        """Returns rows of `_profiles` for the people who were noted."""
        types = declared_types(PROFILES)
        space, scope, load = map(engine.literal, (*self._key, load_id))
        cells = {"space": space, "scope": scope, "load_id": load}
        select = ", ".join(f"{cells.get(name, name)} AS {name}" for name in types)
        relation = self._con.sql(f"SELECT {select} FROM answered")
        return TableRows(PROFILES.name, types, relation, engine.count(self._con, "answered"))

    def _insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Inserts rows that have values for these columns, or for only the first few of them."""
        if rows:
            given = pa.table(dict(zip(columns, zip(*rows, strict=True), strict=False)))
            with engine.registered(self._con, given=given):
                self._con.execute(f"INSERT INTO {table} BY NAME FROM given")
