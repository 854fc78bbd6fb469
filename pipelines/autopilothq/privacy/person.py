"""Reads the tables that hold ids of persons, and finds the ids of one person."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from shlex import quote
from typing import NamedTuple

import duckdb

from ..catalog import SUPPRESSIONS, TABLES
from ..display import visible
from ..projection import suppression
from ..projection.engine import batched
from ..segment.identity import Id, forms, id_of, kinds_of
from ..warehouses.dataset import Dataset, cast_to_text, partitions_of, placeholders, tables_of
from .identity_graph import IDS_PER_READ, Graph, Shared, closure
from .suppression_list import SuppressionList

_KNOWN = ("duckdb", "postgres")  # destinations whose names of types are known; in others, text is what dlt calls text
_PLAIN = ("varchar", "text", "character varying")
"""Types that need no cast to text. PostgreSQL pads `character` with blanks, and cannot compare an enum with text."""
METAVARS = {"email": "EMAIL", "user_id": "ID", "contact_id": "ID", "anonymous_id": "ID"}


def fault_of(id_: Id) -> str | None:
    """Returns what is wrong with an id that the caller gave, or None if it is valid.

    Example: `fault_of(Id("email", "ada")) == "Expected an email, but got 'ada'."`.
    """
    if id_.kind not in METAVARS:
        return f"Expected one of {', '.join(METAVARS)} as the kind of an id, but got {id_.kind!r}."
    if not id_.value.strip() or (id_.kind == "email" and "@" not in id_.value):
        return f"Expected {'an email' if id_.kind == 'email' else 'an id'}, but got {id_.value!r}."
    return None


class Suppressed(NamedTuple):
    """An id for the suppression list. `found_with` is the id through which it was found, or None if it was given."""

    kind: str
    id: str
    found_with: str | None
    hash: str


class NotFollowed(NamedTuple):
    """An id, or several of a kind, that shares a row with the person's but may be somebody else's, and why.

    `option` is the command's option that would delete it as well; emails are masked.
    """

    id: str
    found_with: str
    why: str
    option: str


class PersonTables:
    """The tables of a dataset, or of its staging dataset, and which of their columns hold ids of persons.

    `positions` numbers these columns, and `kinds` has the kinds of ids in each.
    """

    def __init__(self, dataset: Dataset, is_staging: bool, numbers: Iterator[int]) -> None:
        self.dataset, self.is_staging = dataset, is_staging
        left_out = {SUPPRESSIONS.name, *dataset.views(), *partitions_of(dataset)}
        self.columns = {table: columns for table, columns in tables_of(dataset).items() if table not in left_out}
        self.kinds = {
            # If two names differ only in case, one of them is spelt as in the destination, perhaps in upper case.
            table: {column: kinds for column in columns if (kinds := kinds_of(table.lower(), column.lower()))}
            for table, columns in self.columns.items()
        }
        self.positions = {(table, column): next(numbers) for table, kinds in self.kinds.items() for column in kinds}

    def text(self, table: str, column: str) -> str:
        """Returns the SQL that reads a column as text."""
        of = self.columns[table][column]
        is_plain = of.name.lower() in _PLAIN if self.dataset.kind in _KNOWN else of.type == "text"
        return self.dataset.quoted(table, column) if is_plain else cast_to_text(self.dataset, table, column)

    def where(self, table: str, cells: Mapping[int, Sequence[str]]) -> tuple[str, list[str]]:
        """Returns the SQL condition that a row has one of the cells, and its values. Without cells it is never true.

        `cells` are by position, and spelt as in the table, because destinations differ in how they fold case.
        """
        tests, texts = ["1 = 0"], list[str]()
        for column in self.kinds[table]:
            if these := cells.get(self.positions[table, column]):
                tests.append(f"{self.text(table, column)} IN ({placeholders(these)})")
                texts += these
        return " OR ".join(tests), texts

    def may_have_persons(self, spelt: str) -> bool:
        """Returns whether a table, as the destination spells it, is unknown or may have rows of persons."""
        same = [table for table in self.columns if table.lower() == spelt.lower()]
        return not same or any(self.kinds[table] or "id" in self.columns[table] for table in same)

    def changed_ids(self) -> list[tuple[str, str, str]]:
        """Returns the contract's columns of ids that are not text: the table, the column and its type.

        Leaves out whole numbers, which have one spelling, and UUIDs of messages, which nobody types. Returns none in
        destinations other than DuckDB and PostgreSQL. Other programs' tables, and traits such as a contact's id, may
        have any type.
        """
        return [
            (table, column.name, self.columns[table][column.name].name)
            for table in (self.kinds if self.dataset.kind in _KNOWN else ())
            for column in (TABLES[table].columns if table in TABLES else ())
            if column.type == "text" and column.name in self.columns[table] and self._is_changed(table, column.name)
        ]

    def _is_changed(self, table: str, column: str) -> bool:
        native, is_of_person = self.columns[table][column], column in self.kinds[table]
        is_exact = native.type == "bigint" if is_of_person else native.name.lower() == "uuid"
        return not native.is_text and not is_exact and (is_of_person or column == "id")

    def add_to(self, graph: Graph) -> None:
        """Adds the ids of all rows to a graph. Rows with equal ids are added once."""
        for table, kinds in self.kinds.items():
            if kinds:
                cells = ", ".join(self.text(table, column) for column in kinds)
                rows = self.dataset.stream(f"SELECT DISTINCT {cells} FROM", table)
                positions = {self.positions[table, column]: of for column, of in kinds.items()}
                for batch in batched(rows, IDS_PER_READ):
                    graph.add(positions, batch)


def person_tables(dataset: Dataset) -> list[PersonTables]:
    """Returns the tables of a dataset and of its staging dataset."""
    numbers = count()
    return [PersonTables(part, bool(number), numbers) for number, part in enumerate(dataset.parts())]


class PersonIds:
    """The ids of a person: those given, those listed as the same person's, and those that `closure` finds."""

    def __init__(
        self,
        given: Sequence[Id],
        listed: SuppressionList,
        datasets: list[PersonTables],
        engine: duckdb.DuckDBPyConnection,
    ) -> None:
        self._listed = listed
        self._given = tuple(dict.fromkeys(id_of(*id_) for id_ in given))
        spelt = {form for id_ in given for form in forms(*id_)}  # as the list may have them
        self.persons = listed.persons_of(spelt)
        suppression.register_suppressed(engine, listed.persons, listed.key)
        graph = Graph(engine)
        for tables in datasets:
            tables.add_to(graph)
        graph.resolve_ambiguous()
        # Rows with these ids may have been deleted already, so `closure` might not find them.
        on_list = {id_: (those, listed.persons_of(those)) for id_, those in graph.suppressed().items()}
        known = [id_ for id_, (_, persons) in on_list.items() if persons & self.persons and id_ not in self._given]
        kinds = {listed.kinds[pair] for pair in listed.pairs_of(self.persons)}
        others = {id_ for id_, (_, persons) in on_list.items() if persons - self.persons}
        made = closure(graph, [*self._given, *known], kinds, others)
        self._found = made.found | dict.fromkeys(known, self._given[0])
        self.spelt = spelt.union(self._found, *(on_list[id_][0] for id_ in known))
        self._shared = made.shared
        self.cells = graph.cells(self._found)
        graph.close()

    @property
    def ids(self) -> list[Id]:
        """The ids that are known in plain text; the given ones come first."""
        return list(self._found)

    @property
    def has_hashes_alone(self) -> bool:
        """Whether some ids are known only by their hashes."""
        return self.count > len(self._found)

    @property
    def count(self) -> int:
        """The number of ids, including those that are known only by their hashes."""
        return len(self._found) + len(set(self._listed.pairs_of(self.persons)) - self._listed.pairs_of_ids(self.spelt))

    def pairs(self) -> list[tuple[str, str]]:
        """Returns the pairs of salt and hash of all ids, including those that are no longer in any row."""
        new = [(self._listed.salt, self._listed.hash_of(id_)) for id_ in self._found]
        return list(dict.fromkeys([*new, *self._listed.pairs_of(self.persons)]))

    def suppressed(self) -> list[Suppressed]:
        """Returns the ids for display: emails that were not given are masked."""
        return [
            Suppressed(id_.kind, self._shown(id_).partition(" ")[2], by and self._shown(by), self._listed.hash_of(id_))
            for id_, by in self._found.items()
        ]

    def shared(self) -> list[NotFollowed]:
        """Returns the ids that were not followed, for display."""
        return [
            NotFollowed(
                shared.id.masked() if shared.id else f"{shared.id_count:,} {shared.kind}s",
                self._shown(shared.found_with),
                shared.why,
                _option(shared),
            )
            for shared in self._shared
        ]

    def _shown(self, id_: Id) -> str:
        return str(id_) if id_ in self._given else id_.masked()


def _option(shared: Shared) -> str:
    """Returns the option that would also delete an id, with the id itself if it may be shown and can be typed."""
    id_ = shared.id.value if shared.id and shared.kind != "email" else ""
    value = quote(id_) if id_ and visible(id_) == id_ else METAVARS[shared.kind]
    return f"--{shared.kind.replace('_', '-')} {value}"
