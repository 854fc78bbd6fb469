"""Finds which ids in a dataset belong to one person, starting from ids that the caller gives.

Anyone who can send a tracking call can pair a person's id with somebody else's. So two ids in one row are no proof that
they belong to one person, and uncertain ids are reported instead of deleted.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from ..projection import suppression
from ..segment.identity import Id, forms

PERSONAL_KINDS = ("email", "user_id")  # kinds of ids that identify a person
# Other ids are followed from ids of these kinds; not from an anonymous id, because a device may have several users.
LEADING = (*PERSONAL_KINDS, "contact_id")
LISTED = "it is on the list as another person's"
UNNAMED = "no email or user id of the person shares a row with it"
SEVERAL = "it is one of several that could be the person's"
MANY = "there are too many to be one person's"
SHOWN = 3  # ids in one sentence
CROWD = 10  # more ids of one kind are not reported one by one, and more anonymous ids are not followed
IDS_PER_READ = 10_000  # fetched at a time
MOST = 1_000  # more ids of one kind that share a row with the person's are not examined


class Graph:
    """The ids of rows, in a DuckDB connection that `suppression.register_suppressed` has prepared.

    A position is a number that the caller gives to a column of a table.
    """

    def __init__(self, engine: duckdb.DuckDBPyConnection) -> None:
        self._con = engine
        self._rows = 0
        self._con.execute(
            "CREATE OR REPLACE TEMP TABLE cells"
            " (row_number BIGINT, column_number INTEGER, id VARCHAR, raw VARCHAR, kind VARCHAR, value VARCHAR,"
            " certain BOOLEAN)"
        )

    def add(self, positions: Mapping[int, tuple[str, ...]], rows: Sequence[Sequence[Any]]) -> None:
        """Adds rows with one cell per position; `positions` maps each one to the kinds of ids in its column."""
        columns = [
            pa.array([None if cell is None else str(cell) for cell in cells], pa.string())
            for cells in zip(*rows, strict=True)
        ]
        numbers = pa.array(range(self._rows, self._rows + len(rows)), pa.int64())
        self._rows += len(rows)
        self._con.register("batch", pa.table([numbers, *columns], ["row_number", *map(str, positions)]))
        selects = []
        for position, kinds in positions.items():
            certain = len([kind for kind in kinds if kind != "email"]) < 2
            cell = f'"{position}"'
            cells = f"SELECT row_number, {position} AS column_number, {cell} AS id FROM batch WHERE trim({cell}) <> ''"
            selects.append(f"SELECT *, {certain} FROM ({suppression.ids_of(f'({cells})', kinds)})")
        self._con.execute(f"INSERT INTO cells {' UNION ALL '.join(selects)}")
        self._con.unregister("batch")

    def resolve_ambiguous(self) -> None:
        """Decides the kinds of ambiguous ids. Call it once all rows are added.

        A column that holds ids of several kinds does not say which kind an id has. It gets the kind that the same value
        has elsewhere, and is an anonymous id if the value is nowhere else.
        """
        of_kind = "SELECT DISTINCT value FROM cells WHERE kind = '{}' AND {}certain"
        users, anonymous = (of_kind.format(kind, "") for kind in ("user_id", "anonymous_id"))
        self._con.execute(f"""
            CREATE OR REPLACE TEMP TABLE doubtful AS
            SELECT 'user_id' AS kind, value FROM ({of_kind.format("user_id", "NOT ")} EXCEPT {users})
            UNION ALL SELECT 'anonymous_id', value
            FROM ({of_kind.format("anonymous_id", "NOT ")} INTERSECT {users} EXCEPT {anonymous})""")

    def sharing_a_row(self, ids: Iterable[Id]) -> dict[Id, set[Id]]:
        """Returns, for each of these ids, the other ids that share a row with it."""
        found: dict[Id, set[Id]] = {id_: set() for id_ in ids}
        self._take(found)
        # In a table, because the engine would otherwise overestimate these rows and hold all other cells in memory.
        self._con.execute(
            "CREATE OR REPLACE TEMP TABLE their_rows AS"
            " SELECT row_number, kind, value FROM cells SEMI JOIN taken USING (kind, value)"
        )
        pairs = self._con.execute("""
            SELECT DISTINCT a.kind, a.value, b.kind, b.value
            FROM (FROM cells SEMI JOIN their_rows USING (row_number)) b JOIN their_rows a USING (row_number)
            ANTI JOIN doubtful d ON d.kind = b.kind AND d.value = b.value
            WHERE (a.kind, a.value) <> (b.kind, b.value)""")
        while some := pairs.fetchmany(IDS_PER_READ):
            for kind, value, other_kind, other in some:
                found[Id(kind, value)].add(Id(other_kind, other))
        return found

    def suppressed(self) -> dict[Id, set[Id]]:
        """Returns the ids that are on the suppression list, sorted, each with the `forms` of all its spellings."""
        known = suppression.ids_on_list("SELECT DISTINCT raw, kind, value FROM cells")
        found = self._con.execute(
            f"SELECT DISTINCT c.kind, c.value, c.raw FROM cells c SEMI JOIN ({known}) k USING (kind, raw)"
        )
        spelt: dict[Id, set[Id]] = {}
        for kind, value, raw in sorted(found.fetchall()):
            spelt.setdefault(Id(kind, value), set()).update(forms(kind, raw))
        return spelt

    def cells(self, ids: Iterable[Id]) -> dict[int, list[str]]:
        """Returns the cells that hold these ids, as they are spelt, by position.

        Cells that begin with the kind (`email:…`) have ids in lower case, as in Segment's Profile API.
        """
        listed = list(ids)
        lower = [Id(id_.kind, id_.value.lower()) for id_ in listed]
        found: dict[int, set[str]] = defaultdict(set)
        for these, where in ((listed, "true"), (lower, "raw <> id")):
            self._take(these)
            for position, cell in self._con.execute(
                f"SELECT DISTINCT column_number, id FROM cells SEMI JOIN taken USING (kind, value) WHERE {where}"
            ).fetchall():
                found[position].add(cell)
        return {position: sorted(cells) for position, cells in found.items()}

    def close(self) -> None:
        """Frees the memory of all rows."""
        self._con.execute("DROP TABLE cells")

    def _take(self, ids: Iterable[Id]) -> None:
        listed = list(ids)
        kinds, values = (pa.array([id_[part] for id_ in listed], pa.string()) for part in (0, 1))
        self._con.register("taken_ids", pa.table([kinds, values], ["kind", "value"]))
        self._con.execute("CREATE OR REPLACE TEMP TABLE taken AS FROM taken_ids")
        self._con.unregister("taken_ids")


class Shared(NamedTuple):
    """An id that shares a row with the person's but is not followed. Without `id`, it stands for `id_count` ids."""

    kind: str
    id: Id | None
    found_with: Id
    why: str
    id_count: int = 1


class Closure(NamedTuple):
    """The person's ids, each with the id that it was found with, and the ids that are uncertain."""

    found: dict[Id, Id | None]
    shared: list[Shared]


def closure(
    graph: Graph,
    given: Collection[Id],
    kinds: Collection[str] = (),
    others: Collection[Id] = (),
) -> Closure:
    """Returns the person's ids, as far as they follow from those given, and the ids that are uncertain.

    A person is assumed to have one email, one user id and one contact id. So an id of a kind that is not known yet is
    followed if it shares a row with the person's email or user id, and no row with an email or a user id of anybody
    else; if there are several such ids, none is followed. Anonymous ids are followed by the same rule, and also from a
    contact id, if there are at most CROWD besides those given. `kinds` are the kinds of those ids of the person that
    are known only by their hashes. `others` are ids that are known to be another person's.
    """
    found: dict[Id, Id | None] = dict.fromkeys(given)
    if not _kinds(found, kinds).intersection(PERSONAL_KINDS):
        found |= _names_of_contact(graph, found, others)
    known = _kinds(found, kinds)
    for kind in (*PERSONAL_KINDS, "contact_id", "anonymous_id"):
        is_anonymous = kind == "anonymous_id"
        if kind in known and not is_anonymous:
            continue
        near = _near(graph, found, kind, LEADING if is_anonymous else PERSONAL_KINDS)
        names = _names_in_rows_of(graph, near)
        own = [id_ for id_ in names if names[id_] <= found.keys() and id_ not in others]
        if len(own) <= (CROWD if is_anonymous else 1):
            found |= {id_: near[id_] for id_ in own}
    return Closure(found, _grouped(list(_not_followed(graph, found, kinds, others))))


def _kinds(found: Collection[Id], kinds: Collection[str]) -> set[str]:
    """Returns the kinds of ids that the person has: those of found ids, and those known only by their hashes."""
    return {*kinds, *(id_.kind for id_ in found)}


def _near(graph: Graph, found: Collection[Id], kind: str, leading: Collection[str]) -> dict[Id, Id]:
    """Returns the other ids of a kind that share a row with found ids, each with one of those; none if over MOST do."""
    in_rows = graph.sharing_a_row(id_ for id_ in found if id_.kind in leading)
    near = {other: id_ for id_ in in_rows for other in in_rows[id_] if other.kind == kind and other not in found}
    return {id_: near[id_] for id_ in sorted(near)} if len(near) <= MOST else {}


def _names_in_rows_of(graph: Graph, ids: Iterable[Id]) -> dict[Id, set[Id]]:
    """Returns, for each of these ids, the other emails and user ids that share a row with it."""
    return {
        id_: {other for other in others if other.kind in PERSONAL_KINDS}
        for id_, others in graph.sharing_a_row(ids).items()
    }


def _names_of_contact(graph: Graph, contacts: Collection[Id], others: Collection[Id]) -> dict[Id, Id | None]:
    """Returns the email and user id of a person known only by a contact id.

    They share a row with the contact id or with each other. Returns none if others share a row with either of them.
    """
    near = _near(graph, contacts, "email", LEADING) | _near(graph, contacts, "user_id", LEADING)
    if len(near) > len(PERSONAL_KINDS):
        return {}
    names = _names_in_rows_of(graph, near)
    further = set().union(*names.values()) - near.keys()
    names |= _names_in_rows_of(graph, further)
    ids = near.keys() | further
    is_one = len({id_.kind for id_ in ids}) == len(ids) and all(in_row <= ids for in_row in names.values())
    if not is_one or not ids.isdisjoint(others):
        return {}
    # An id that shares no row with the contact's id shares one with the other id.
    return {id_: near.get(id_) or next(iter(near)) for id_ in sorted(ids)}


def _not_followed(
    graph: Graph, found: Collection[Id], kinds: Collection[str], others: Collection[Id]
) -> Iterator[Shared]:
    """Yields the other ids that share a row with found ids, with the reasons why they are not followed."""
    in_rows = graph.sharing_a_row(id_ for id_ in found if id_.kind in LEADING)
    near = {other: id_ for id_ in in_rows for other in in_rows[id_] if other not in found}
    count = Counter(id_.kind for id_ in near)
    names = _names_in_rows_of(graph, (id_ for id_ in near if count[id_.kind] <= CROWD))
    known = _kinds(found, kinds)
    for id_ in sorted(near):
        if strangers := names.get(id_, set()) - set(found):
            why = _shared_with(strangers)
        elif id_ in others:
            why = LISTED
        elif id_.kind in known:
            why = f"the person has another {id_.kind.replace('_', ' ')}"
        else:
            why = SEVERAL if names.get(id_) or known.isdisjoint(PERSONAL_KINDS) else UNNAMED
        yield Shared(id_.kind, id_, near[id_], why)


def _grouped(shared: Sequence[Shared]) -> list[Shared]:
    """Returns the ids that were not followed; more than CROWD of a kind become a single entry."""
    count = Counter(each.kind for each in shared)
    few = [each for each in shared if count[each.kind] <= CROWD]
    firsts = {each.kind: each.found_with for each in reversed(shared) if count[each.kind] > CROWD}
    return few + [Shared(kind, None, found_with, MANY, count[kind]) for kind, found_with in firsts.items()]


def _shared_with(strangers: Collection[Id]) -> str:
    shown = [id_.masked() for id_ in sorted(strangers)[:SHOWN]]
    more = f" and {len(strangers) - SHOWN:,} more" if len(strangers) > SHOWN else ""
    return f"{', '.join(shown)}{more} {'shares' if len(strangers) == 1 else 'share'} a row with it too"
