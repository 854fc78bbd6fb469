"""Forgetting a person: their rows, their lines in the archive, and a list that keeps them out.

All of it can be done again at any time, and what was done before is not needed for that: the ids that belong together
are known by their hashes from the moment at which the first of their rows goes.
"""

import glob
import shutil
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count, islice
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import unquote

import dlt
import duckdb
import pyarrow as pa
from dlt.common.destination.typing import PreparedTableSchema

from .. import runner
from ..catalog import CONTEXT, DISCARDS, REJECTS, SUPPRESSIONS, TABLES, TRACKS, USERS, Type
from ..display import visible
from ..errors import ArchiveError
from ..inspect import DatasetInspector, NothingThere, answering
from ..projection import engine as values
from ..projection import suppression
from ..segment.identity import KEYED, HashedIds, Id, forms, hash_of, id_of, ids_of_cells, kinds_of
from ..segment.message import Rejected
from ..segment.message import read_message as read_line
from ..sources.archive.batches import read_batches
from ..sources.archive.listing import File
from ..sources.archive.remove_lines import remove_lines
from ..sources.archive.source import archive_files_at
from ..warehouses import lock, suppression_key
from ..warehouses.books import check_books
from . import rewrite as rewriting
from .identity_graph import Graph, Shared, closure

MAX_IDS = 5  # that are taken of a person without a confirmation
PARAMETERS = 500  # that one statement takes
ROWS = 10_000  # that are fetched at a time
METAVARS = {"email": "EMAIL", "user_id": "ID", "contact_id": "ID", "anonymous_id": "ID"}
MEMORY = 500  # MB for the ids of a dataset; more of them wait on disk
_CONTEXT_NAMES = frozenset(column.name for column in CONTEXT)


class Suppressed(NamedTuple):
    """An id that no load brings back. `found_with` is the id that it stood beside, None where it was given."""

    kind: str
    id: str
    found_with: str | None
    hash: str


class NotFollowed(NamedTuple):
    """An id, or several of a kind, beside one of the person's that may be somebody else's, with the reason.

    `option` is what takes it along in another call; emails are not shown whole.
    """

    id: str
    found_with: str
    why: str
    option: str


class Unconfirmed(runner.RunError):
    """More ids would be taken than was agreed to, and nothing was changed. `made` is what would be removed."""

    def __init__(self, made: "Forgotten", max_ids: int, confirm: int | None) -> None:
        self.made = made
        count = f"{made.suppressed:,} {'id' if made.suppressed == 1 else 'ids'}"
        super().__init__(
            f"Expected --confirm {made.suppressed}, because {count} would be taken for this person's"
            f"{'' if made.suppressed <= max_ids else f' and --max-ids is {max_ids}'},"
            f" but got {'none' if confirm is None else f'--confirm {confirm}'}. Nothing was changed.\n"
            f"Look at the ids, and how each was found. If they are one person's, add --confirm {made.suppressed}."
        )


@dataclass
class Forgotten:
    """What was removed, or with `dry_run` would be.

    `ids` are those that are known by name, `suppressed` counts those too that are known by their hashes alone, from
    earlier times. `shared` were met beside the person's ids and not followed. `left` are files that stay as they are,
    with the reason: the person's lines may still be in them. `rewritten` are the database files or tables that were
    written anew; `remains` is a sentence on what keeps the bytes of removed rows still.
    """

    dry_run: bool
    ids: list[Suppressed] = field(default_factory=list)
    suppressed: int = 0
    shared: list[NotFollowed] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    rewritten: list[str] = field(default_factory=list)
    remains: str | None = None


def delete_person(
    given: Sequence[Id],
    destination: str | None = None,
    credentials: str | None = None,
    dataset: str | None = None,
    archive: Sequence[str] = (),
    dry_run: bool = False,
    wait: timedelta = timedelta(),
    rewrite: bool = False,
    max_ids: int = MAX_IDS,
    confirm: int | None = None,
) -> Forgotten:
    """Removes all that is stored of the person who has these ids, here and in the archive, and keeps them out.

    Ids that stand in one row with the person's are the person's too where that is certain (`closure`). With `rewrite`
    the database is written anew, so that it does not keep the bytes of what was removed. Raises Unconfirmed, before
    anything is changed, where the ids are more than `max_ids` in all and `confirm` is not exactly their number;
    RunError, NothingThere where there is no such dataset.
    """
    with runner.explained(), ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory()) if dry_run else None
        into = runner.pipeline(destination, credentials, dataset, pipelines_dir=folder, create=False, wait=wait)
        files = archive_files_at(archive, None, None, None, None)
        _check(into, credentials)
        if not dry_run:
            stack.enter_context(lock.held(into, wait.total_seconds()))
            # A run that sends would write the person into its log again.
            stack.enter_context(lock.held(into, wait.total_seconds(), "send"))
        if rewrite:
            rewriting.check_rewritable(into)
        client: Any = into.destination_client()
        opened = stack.enter_context(ExitStack())
        opened.enter_context(client)
        listed = _List(client)
        engine = stack.enter_context(values.connect(stack.enter_context(TemporaryDirectory()), MEMORY, threads=2))
        person = _Person(given, listed, _datasets(client), engine)
        hashes = HashedIds(person.pairs(), listed.key)
        suppression.register_suppressed(engine, hashes.pairs(), hashes.key, person.ids)
        plan = [removal for tables in person.datasets for removal in _removals(tables, person, engine)]
        made = Forgotten(dry_run, person.told(), person.count, person.shared(), _rows(plan))
        if not dry_run:
            _check_number(made, max_ids, confirm)
            _drop_copies_here(into)
            _remove(client, listed, person, plan)
        _rewrite(files, hashes, person.has_hashes_alone, engine, made)
        opened.close()
        if not dry_run:
            _leave_no_bytes(into, made, rewrite)
        return made


def _check_number(made: Forgotten, max_ids: int, confirm: int | None) -> None:
    if made.suppressed != confirm if confirm is not None else made.suppressed > max_ids:
        raise Unconfirmed(made, max_ids, confirm)


def _leave_no_bytes(into: dlt.Pipeline, made: Forgotten, rewrite: bool) -> None:
    if rewrite:
        made.rewritten, left, made.remains = rewriting.rewrite(into)
        made.left |= left
    else:
        made.remains = rewriting.remains(into)


def _check(into: dlt.Pipeline, credentials: str | None) -> None:
    with answering(into) as client:
        if not client.is_storage_initialized():
            place = str(client.config)
            place = str(credentials or runner.DUCKDB_FILE) if unquote(place).endswith(":external:") else place
            raise NothingThere(
                f"There is no dataset {into.dataset_name} in {place}, so nobody can be forgotten there.\n"
                "Name the one that loads go to: --destination, --credentials, --dataset."
            )
        check_books(client.sql_client)


# ---- who it is -----------------------------------------------------------------------------------------------------


class _List:
    """The suppression list of a dataset. Raises SuppressionKeyError where another key hashed some of it."""

    def __init__(self, client: Any) -> None:
        self._client = client
        rows = DatasetInspector(client).rows("{id}, {salt}, {kind}, {person}", SUPPRESSIONS.name)
        self.there = SUPPRESSIONS.name in DatasetInspector(client).tables()
        self.kinds: dict[tuple[str, str], str] = {}
        self.persons: dict[tuple[str, str], str] = {}
        for hashed, salt, kind, person in rows:
            self.kinds[salt, hashed], self.persons[salt, hashed] = kind, person
        self.key = suppression_key.hashes(self.persons).key
        self._salts = {salt for salt, _ in self.persons}
        salts = {salt for salt in self._salts if salt.startswith(KEYED) == (self.key is not None)}
        self.salt = min(salts, default=suppression_key.new_salt(self.key))

    def hash_of(self, id_: Id) -> str:
        """An id as this list has new ones."""
        return hash_of(self.salt, id_, self.key)

    def pairs_of_ids(self, ids: Iterable[Id]) -> set[tuple[str, str]]:
        """The salted hashes of these ids, of those that are on the list."""
        return {(salt, hash_of(salt, id_, self.key)) for id_ in ids for salt in self._salts} & self.persons.keys()

    def persons_of(self, ids: Iterable[Id]) -> set[str]:
        """The persons who have these ids."""
        return {self.persons[pair] for pair in self.pairs_of_ids(ids)}

    def pairs_of(self, persons: Collection[str]) -> list[tuple[str, str]]:
        """The salted hashes of persons."""
        return [pair for pair, person in self.persons.items() if person in persons]

    def create(self) -> None:
        """Makes the table where it is not there."""
        if not self.there:
            sql = self._client.sql_client
            made = [
                f"{sql.escape_column_name(column.name)} {_native(self._client, column.name, column.type)}"
                for column in SUPPRESSIONS.columns
            ]
            sql.execute_sql(f"CREATE TABLE {sql.make_qualified_table_name(SUPPRESSIONS.name)} ({', '.join(made)})")

    def add(self, ids: Collection[Id], spelt: Collection[Id], persons: Collection[str]) -> None:
        """Adds what is missing; several persons turned out to be one.

        With a key the hashes go that were made of these ids without it, in any of the forms in which they are `spelt`.
        """
        sql = self._client.sql_client
        table = sql.make_qualified_table_name(SUPPRESSIONS.name)
        names = {column.name: sql.escape_column_name(column.name) for column in SUPPRESSIONS.columns}
        new = {self.hash_of(id_): id_.kind for id_ in ids}
        # A person is called by a hash, which must have a key too.
        called = {hashed for salt, hashed in self.persons if salt == self.salt}.intersection(persons)
        person = min(called if self.key else persons, default=min(new))
        for other in sorted(set(persons) - {person}):
            sql.execute_sql(f"UPDATE {table} SET {names['person']} = %s WHERE {names['person']} = %s", person, other)
        for hashed, kind in new.items():
            if (self.salt, hashed) not in self.persons:
                sql.execute_sql(
                    f"INSERT INTO {table} ({', '.join(names.values())}) VALUES (%s, %s, %s, %s, CURRENT_TIMESTAMP)",
                    hashed,
                    self.salt,
                    kind,
                    person,
                )
        for salt, hashed in sorted(self.pairs_of_ids(spelt)) if self.key else ():
            if not salt.startswith(KEYED):
                sql.execute_sql(f"DELETE FROM {table} WHERE {names['salt']} = %s AND {names['id']} = %s", salt, hashed)


def _native(client: Any, column: str, of: Type) -> str:
    table: PreparedTableSchema = {"name": "", "columns": {}, "write_disposition": "append"}
    return str(client.capabilities.get_type_mapper().to_destination_type({"name": column, "data_type": of}, table))


class _Tables:
    """The tables of a dataset, or of its staging dataset, that hold ids of persons."""

    def __init__(self, client: Any, staging: bool, numbers: Iterator[int]) -> None:
        self.client, self.staging = client, staging
        with self.at():
            sql = client.sql_client
            self.dataset = sql.dataset_name
            reader = DatasetInspector(client)
            views = {SUPPRESSIONS.name, *(reader.views() if sql.has_dataset() else ())}
            there = reader.tables() if sql.has_dataset() else {}
        self.columns = {table: columns for table, columns in there.items() if table not in views}
        self.kinds = {
            table: {column: kinds for column in columns if (kinds := kinds_of(table, column))}
            for table, columns in self.columns.items()
        }
        self.places = {(table, column): next(numbers) for table, kinds in self.kinds.items() for column in kinds}

    def at(self) -> Any:
        """Statements inside go to this dataset."""
        return self.client.sql_client.with_staging_dataset() if self.staging else nullcontext()

    def run(self, statement: str, table: str, values: Sequence[str] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of `{statement} {table} ...`; `{}` in it stands for the table."""
        sql = self.client.sql_client
        with sql.execute_query(statement.replace("{}", self.qualified(table, values)), *values) as cursor:
            while rows := cursor.fetchmany(ROWS):
                yield from rows

    def qualified(self, table: str, values: Sequence[str]) -> str:
        """A table in a statement with these values: drivers that put them in by `%s` need a name's own `%` twice."""
        sql = self.client.sql_client
        with self.at():
            name = str(sql.make_qualified_table_name(table))
        formats = values and getattr(sql.dbapi, "paramstyle", "") in ("format", "pyformat")
        return name.replace("%", "%%") if formats else name

    def name(self, column: str) -> str:
        """A column, quoted."""
        return str(self.client.sql_client.escape_column_name(column))

    def text(self, table: str, column: str) -> str:
        """A column as text."""
        if self.columns[table][column].type == "text":
            return self.name(column)
        return f"CAST({self.name(column)} AS {_native(self.client, column, 'text')})"

    def where(self, table: str, cells: Mapping[int, Sequence[str]]) -> tuple[str, list[str]]:
        """The condition that a row has one of the cells, by place, with its values; never true where there are none."""
        tests, texts = ["1 = 0"], list[str]()
        for column in self.kinds[table]:
            # As they are spelt there, because what a destination calls lower case differs from place to place.
            if these := cells.get(self.places[table, column]):
                tests.append(f"{self.text(table, column)} IN ({_marks(these)})")
                texts += these
        return " OR ".join(tests), texts

    def add_to(self, graph: Graph) -> None:
        """Adds the ids of all rows; the same row comes once."""
        for table, kinds in self.kinds.items():
            if kinds:
                cells = ", ".join(self.text(table, column) for column in kinds)
                rows = self.run(f"SELECT DISTINCT {cells} FROM {{}}", table)
                places = {self.places[table, column]: of for column, of in kinds.items()}
                while batch := list(islice(rows, ROWS)):
                    graph.add(places, batch)


def _datasets(client: Any) -> list[_Tables]:
    numbers = count()
    return [_Tables(client, False, numbers), _Tables(client, True, numbers)]


class _Person:
    """The ids of a person: those given, those that are on the list with them, and those that `closure` finds."""

    def __init__(
        self,
        given: Sequence[Id],
        listed: _List,
        datasets: list[_Tables],
        engine: duckdb.DuckDBPyConnection,
    ) -> None:
        self.datasets = datasets
        self._listed = listed
        self._given = tuple(dict.fromkeys(id_of(*id_) for id_ in given))
        spelt = {form for id_ in given for form in forms(*id_)}  # as the list may have them
        self.persons = listed.persons_of(spelt)
        suppression.register_suppressed(engine, listed.persons, listed.key)
        graph = Graph(engine)
        for tables in datasets:
            tables.add_to(graph)
        graph.settle()
        # Their rows may be gone since, so that nothing else leads to them.
        on_list = {id_: (those, listed.persons_of(those)) for id_, those in graph.forgotten().items()}
        known = [id_ for id_, (_, persons) in on_list.items() if persons & self.persons and id_ not in self._given]
        kinds = {listed.kinds[pair] for pair in listed.pairs_of(self.persons)}
        others = {id_ for id_, (_, persons) in on_list.items() if persons - self.persons}
        made = closure(graph, [*self._given, *known], kinds, others.__contains__)
        self._found = made.found | dict.fromkeys(known, self._given[0])
        self.spelt = spelt.union(self._found, *(on_list[id_][0] for id_ in known))
        self._shared = made.shared
        self.cells = graph.cells(self._found)

    @property
    def ids(self) -> list[Id]:
        """All that are known by name, those given first."""
        return list(self._found)

    @property
    def has_hashes_alone(self) -> bool:
        """Whether there are ids that are not known by name any more."""
        return self.count > len(self._found)

    @property
    def count(self) -> int:
        """How many ids there are, with those that are known by their hashes alone."""
        return len(self._found) + len(set(self._listed.pairs_of(self.persons)) - self._listed.pairs_of_ids(self.spelt))

    def pairs(self) -> list[tuple[str, str]]:
        """Their salted hashes, with those of ids that are nowhere else any more."""
        new = [(self._listed.salt, self._listed.hash_of(id_)) for id_ in self._found]
        return list(dict.fromkeys([*new, *self._listed.pairs_of(self.persons)]))

    def told(self) -> list[Suppressed]:
        """For people: emails that were not given are not shown whole."""
        return [
            Suppressed(id_.kind, self._shown(id_).partition(" ")[2], by and self._shown(by), self._listed.hash_of(id_))
            for id_, by in self._found.items()
        ]

    def shared(self) -> list[NotFollowed]:
        """What was not followed, for people."""
        return [
            NotFollowed(
                shared.id.masked() if shared.id else f"{shared.number:,} {shared.kind}s",
                self._shown(shared.beside),
                shared.why,
                _option(shared),
            )
            for shared in self._shared
        ]

    def _shown(self, id_: Id) -> str:
        return str(id_) if id_ in self._given else id_.masked()


def _option(shared: Shared) -> str:
    """What is typed to take an id along, which is named if that may be shown, and is shown as it is."""
    id_ = shared.id.value if shared.id and shared.kind != "email" else ""
    value = quote(id_) if id_ and visible(id_) == id_ else METAVARS[shared.kind]
    return f"--{shared.kind.replace('_', '-')} {value}"


# ---- rows ----------------------------------------------------------------------------------------------------------


class _Removal(NamedTuple):
    """Rows of a table that go: those that meet a condition."""

    tables: _Tables
    name: str
    where: str
    values: list[str]
    rows: int

    @property
    def table(self) -> str:
        """Its name for people."""
        return f"{self.tables.dataset}.{self.name}" if self.tables.staging else self.name


def _removals(tables: _Tables, person: _Person, engine: duckdb.DuckDBPyConnection) -> Iterator[_Removal]:
    ids: dict[str, set[str]] = {}
    for table in tables.kinds:
        where, texts = tables.where(table, person.cells)
        if texts:
            key = tables.name("id") if "id" in tables.columns[table] else "1"
            found = [row[0] for row in tables.run(f"SELECT {key} FROM {{}} WHERE {where}", table, texts)]
            if "id" in tables.columns[table] and table != USERS.name:
                ids[table] = set(found)
            if found:
                yield _Removal(tables, table, where, texts, len(found))
    messages = set().union(*ids.values())
    events = {table: found for table, found in ids.items() if "event" in tables.columns[table]}
    # A track's two rows go together, though a property may tell whose it is in one of them alone.
    tracks = events.pop(TRACKS.name, set())
    unpaired = tracks ^ set().union(*events.values())
    for table in (TRACKS.name, *events):
        yield from _by_key(tables, table, "id", unpaired - (tracks if table == TRACKS.name else events[table]))
    yield from _by_key(tables, DISCARDS.name, "id", _discards(tables, person, messages, engine))
    yield from _by_key(tables, REJECTS.name, "id", _mentioning(tables, REJECTS.name, ("raw", "message"), engine))


def _rows(plan: Iterable[_Removal]) -> dict[str, int]:
    """How many rows go, by table."""
    found: dict[str, int] = {}
    for removal in plan:
        found[removal.table] = found.get(removal.table, 0) + removal.rows
    return found


def _by_key(tables: _Tables, table: str, key: str, keys: Collection[str]) -> Iterator[_Removal]:
    for part in _parts(sorted(keys)) if table in tables.columns else ():
        where = f"{tables.name(key)} IN ({_marks(part)})"
        [(count,)] = tables.run(f"SELECT count(*) FROM {{}} WHERE {where}", table, part)
        if count:
            yield _Removal(tables, table, where, part, count)


def _discards(
    tables: _Tables, person: _Person, messages: Collection[str], engine: duckdb.DuckDBPyConnection
) -> set[str]:
    """The discarded values of the person's rows, and those that mention the person."""
    if DISCARDS.name not in tables.columns:
        return set()
    found = _mentioning(tables, DISCARDS.name, ("value",), engine, key="column_name")
    name = tables.name
    for part in _parts(sorted(messages)):
        where = f"{name('row_id')} IN ({_marks(part)})"
        found |= {row[0] for row in tables.run(f"SELECT {name('id')} FROM {{}} WHERE {where}", DISCARDS.name, part)}
    for table in TABLES.values():
        place = tables.places.get((table.name, table.key[0]), -1) if len(table.key) == 1 else -1
        if keys := person.cells.get(place, []):
            where = f"{name('table_name')} = %s AND {name('row_id')} IN ({_marks(keys)})"
            select = f"SELECT {name('id')} FROM {{}} WHERE {where}"
            found |= {row[0] for row in tables.run(select, DISCARDS.name, [table.name, *keys])}
    return found


def _mentioning(
    tables: _Tables, table: str, texts: Sequence[str], engine: duckdb.DuckDBPyConnection, key: str | None = None
) -> set[str]:
    """The ids of a book's rows whose texts mention the person; `key` names the column whose value the text is."""
    found: set[str] = set()
    if table not in tables.columns:
        return found
    columns = ("id", *texts, *([key] if key else []))
    rows = tables.run(f"SELECT {', '.join(map(tables.name, columns))} FROM {{}}", table)
    batch: list[tuple[Any, ...]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == ROWS:
            found |= _among(batch, key, engine)
            batch = []
    return found | _among(batch, key, engine)


def _among(batch: Sequence[tuple[Any, ...]], key: str | None, engine: duckdb.DuckDBPyConnection) -> set[str]:
    texts = [f'"{row[2]}": {row[1]}' if key else "\n".join(filter(None, row[1:])) for row in batch]
    keys = pa.array(range(len(batch)), pa.int64())
    return {batch[number][0] for number in suppression.mentioning(engine, keys, pa.array(texts, pa.large_string()))}


def _remove(client: Any, listed: _List, person: _Person, plan: Iterable[_Removal]) -> None:
    """Suppresses first, then removes; where the destination has transactions, all at once."""
    listed.create()
    with _transaction(client):
        listed.add(person.ids, person.spelt, person.persons)
        for removal in plan:
            _delete(client, removal)


def _transaction(client: Any) -> AbstractContextManager[Any]:
    none = client.capabilities.supports_transactions is False
    return nullcontext() if none else client.sql_client.begin_transaction()


def _delete(client: Any, removal: _Removal) -> None:
    table = removal.tables.qualified(removal.name, removal.values)
    client.sql_client.execute_sql(f"DELETE FROM {table} WHERE {removal.where}", *removal.values)


def _marks(values: Sequence[str]) -> str:
    return ", ".join(["%s"] * len(values))


def _parts(values: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(values), PARAMETERS):
        yield list(values[start : start + PARAMETERS])


# ---- files ---------------------------------------------------------------------------------------------------------


def _rewrite(
    files: Sequence[File], hashes: HashedIds, by_hash: bool, engine: duckdb.DuckDBPyConnection, made: Forgotten
) -> None:
    """The archive's files without the person's lines; one that cannot be read to its end stays as it is."""
    found: dict[int, set[int]] = defaultdict(set)
    for batch in read_batches(files):
        rejects = [reject for reject in batch.rejects if reject.reason != "truncated"]
        for number, line in _lines(batch.lines, hashes, by_hash, engine):
            found[number].add(line)
        raw = pa.array([reject.raw for reject in rejects], pa.large_binary())
        for key in suppression.mentioning(engine, pa.array(range(len(rejects)), pa.int64()), raw):
            found[rejects[key].file].add(rejects[key].line)
        for reject in batch.rejects:
            if reject.reason == "truncated":
                made.left[files[reject.file].url] = reject.message
    for number, lines in sorted(found.items()):
        file = files[number]
        if file.url not in made.left and not made.dry_run:
            try:
                remove_lines(file, lines)
            except ArchiveError as error:
                made.left[file.url] = str(error)
        if file.url not in made.left:
            made.lines[file.url] = len(lines)


def _lines(
    lines: pa.Table, hashes: HashedIds, by_hash: bool, engine: duckdb.DuckDBPyConnection
) -> Iterator[tuple[int, int]]:
    """The file and number of each line that is the person's: what would be the person's row, or no message at all."""
    keys = pa.array(range(lines.num_rows), pa.int64())
    texts = lines["text"].combine_chunks()
    suspects = pa.array(suppression.suspects(engine, keys, texts, by_hash), pa.int64())
    rejected: list[int] = []
    for key, row in zip(suspects.to_pylist(), lines.take(suspects).to_pylist(), strict=True):
        try:
            cells = read_line(row["text"], _CONTEXT_NAMES).cells
        except Rejected:
            rejected.append(key)
        else:
            if any(id_ in hashes for id_ in ids_of_cells(cells)):
                yield row["file"], row["line"]
    mentions = pa.array(rejected, pa.int64())
    for key in suppression.mentioning(engine, mentions, texts.take(mentions)):
        yield lines["file"][key].as_py(), lines["line"][key].as_py()


def _drop_copies_here(into: dlt.Pipeline) -> None:
    """Removes what loads leave in the pipeline's working folder, and a database's copy that was cut off.

    A load that was cut off is given up: the next one reads its files again. One into another place is not touched.
    """
    rewriting.clear(into)
    working = Path(into.working_dir)
    # Folders that could not be read were set aside, with all that was in them.
    for folder in working.parent.glob(f"{glob.escape(working.name)}.unreadable-*"):
        shutil.rmtree(folder, ignore_errors=True)
    # dlt's trace has the words of errors, and these the values of rows.
    (working / "trace.pickle").unlink(missing_ok=True)
    if into.has_pending_data:
        if not runner.is_unfinished_here(into):
            return
        into.abort_packages()
    for file in working.glob("load/loaded/*/*_jobs/*"):
        file.unlink()
    # Packages that a killed process had begun, which dlt does not look for. The absence of our own folders tells the
    # next load to look for copies that one that was killed left behind.
    for folder in (*working.glob("autopilothq*"), *working.glob("normalize/*/"), *working.glob("load/new/*")):
        if folder != working / "normalize" / "extracted":
            shutil.rmtree(folder, ignore_errors=True)
