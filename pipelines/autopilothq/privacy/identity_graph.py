"""Which ids are one person's: the ids of a dataset's rows, and which of them are followed from those that are given.

Anyone who can send a tracking call can pair a person's id with somebody else's. So a row that pairs two ids is no proof
that they are one person's, and what is not certain is told instead of taken.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from ..projection import suppression
from ..segment.identity import Id, forms

NAMES = ("email", "user_id")  # what tells people apart
LEADING = (*NAMES, "contact_id")  # an anonymous id leads nowhere, because a device may have several users
IsAnother = Callable[[Id], bool]
LISTED = "it is on the list as another person's"
SEVERAL = "it is one of several that could be the person's"
MANY = "there are too many to be one person's"
SHOWN = 3  # ids in one sentence
CROWD = 10  # more ids of one kind beside the person's are not told one by one, and anonymous ids not followed
ROWS = 10_000  # that are fetched at a time
MOST = 1_000  # more ids of one kind beside the person's are not looked at one by one


class Graph:
    """The ids that stand in rows, in an engine that `forgotten.remember` has prepared.

    A place is a column of a table, by a number of the caller's choice.
    """

    def __init__(self, engine: duckdb.DuckDBPyConnection) -> None:
        self._con = engine
        self._rows = 0
        self._con.execute(
            "CREATE OR REPLACE TEMP TABLE cells"
            " (row_number BIGINT, place INTEGER, id VARCHAR, raw VARCHAR, kind VARCHAR, value VARCHAR, certain BOOLEAN)"
        )

    def add(self, places: Mapping[int, tuple[str, ...]], rows: Sequence[Sequence[Any]]) -> None:
        """Takes rows of cells, one for each place. The places' values are the kinds of ids that they hold."""
        columns = [
            pa.array([None if cell is None else str(cell) for cell in cells], pa.string())
            for cells in zip(*rows, strict=True)
        ]
        numbers = pa.array(range(self._rows, self._rows + len(rows)), pa.int64())
        self._rows += len(rows)
        self._con.register("batch", pa.table([numbers, *columns], ["row_number", *map(str, places)]))
        selects = []
        for place, kinds in places.items():
            certain = len([kind for kind in kinds if kind != "email"]) < 2
            cells = f'(SELECT row_number, {place} AS place, "{place}" AS id FROM batch WHERE trim("{place}") <> \'\')'
            selects.append(f"SELECT *, {certain} FROM ({suppression.ids_of(cells, kinds)})")
        self._con.execute(f"INSERT INTO cells {' UNION ALL '.join(selects)}")
        self._con.unregister("batch")

    def settle(self) -> None:
        """To be called when all rows are there.

        A column that holds ids of several kinds does not say which one it is. It is taken for the kind that the same
        value has elsewhere, and for an anonymous id where it stands nowhere else.
        """
        of_kind = "SELECT DISTINCT value FROM cells WHERE kind = '{}' AND {}certain"
        users, anonymous = (of_kind.format(kind, "") for kind in ("user_id", "anonymous_id"))
        self._con.execute(f"""
            CREATE OR REPLACE TEMP TABLE doubtful AS
            SELECT 'user_id' AS kind, value FROM ({of_kind.format("user_id", "NOT ")} EXCEPT {users})
            UNION ALL SELECT 'anonymous_id', value
            FROM ({of_kind.format("anonymous_id", "NOT ")} INTERSECT {users} EXCEPT {anonymous})""")

    def beside(self, ids: Iterable[Id]) -> dict[Id, set[Id]]:
        """The other ids that stand in a row with each of these."""
        found: dict[Id, set[Id]] = {id_: set() for id_ in ids}
        self._take(found)
        pairs = self._con.execute("""
            SELECT DISTINCT a.kind, a.value, b.kind, b.value
            FROM (SELECT row_number, kind, value FROM cells SEMI JOIN taken USING (kind, value)) a
            JOIN (FROM cells ANTI JOIN doubtful USING (kind, value)) b USING (row_number)
            WHERE (a.kind, a.value) <> (b.kind, b.value)""")
        while some := pairs.fetchmany(ROWS):
            for kind, value, other_kind, other in some:
                found[Id(kind, value)].add(Id(other_kind, other))
        return found

    def forgotten(self) -> dict[Id, set[Id]]:
        """The ids of the table `forgotten`, in order, each in all the `forms` of its spellings."""
        known = suppression.known("SELECT DISTINCT raw, kind, value FROM cells")
        found = self._con.execute(
            f"SELECT DISTINCT c.kind, c.value, c.raw FROM cells c SEMI JOIN ({known}) k USING (kind, raw)"
        )
        spelt: dict[Id, set[Id]] = {}
        for kind, value, raw in sorted(found.fetchall()):
            spelt.setdefault(Id(kind, value), set()).update(forms(kind, raw))
        return spelt

    def cells(self, ids: Iterable[Id]) -> dict[int, list[str]]:
        """The cells that hold these ids, as they are spelt, by place.

        Cells with the kind in front hold ids in lower case, because Segment's Profile API knows no other.
        """
        listed = list(ids)
        lower = [Id(id_.kind, id_.value.lower()) for id_ in listed]
        found: dict[int, set[str]] = defaultdict(set)
        for these, where in ((listed, "true"), (lower, "raw <> id")):
            self._take(these)
            for place, cell in self._con.execute(
                f"SELECT DISTINCT place, id FROM cells SEMI JOIN taken USING (kind, value) WHERE {where}"
            ).fetchall():
                found[place].add(cell)
        return {place: sorted(cells) for place, cells in found.items()}

    def _take(self, ids: Iterable[Id]) -> None:
        listed = list(ids)
        kinds, values = (pa.array([id_[part] for id_ in listed], pa.string()) for part in (0, 1))
        self._con.register("taken_ids", pa.table([kinds, values], ["kind", "value"]))
        self._con.execute("CREATE OR REPLACE TEMP TABLE taken AS FROM taken_ids")
        self._con.unregister("taken_ids")


class Shared(NamedTuple):
    """An id that stands beside one of the person's and is not followed; of a crowd the `number`, and no `id`."""

    kind: str
    id: Id | None
    beside: Id
    why: str
    number: int = 1


class Closure(NamedTuple):
    """The ids that are the person's, each with the one that it was found beside, and those that may be or may not."""

    found: dict[Id, Id | None]
    shared: list[Shared]


def closure(
    graph: Graph,
    given: Collection[Id],
    kinds: Collection[str] = (),
    is_another: IsAnother = lambda _: False,
) -> Closure:
    """What is followed from the ids that are given.

    A person is taken to have one email, one user id and one contact id. So of a kind that is not known yet (`kinds` are
    those of ids that are the person's and not known by name any more) the one id is followed that stands beside the
    person's, and beside no email and no user id of anybody else, anywhere. Where there are several none is. Of
    anonymous ids up to CROWD are followed by the same rule. `is_another` tells of an id whether it is known to be
    another person's.
    """
    found: dict[Id, Id | None] = dict.fromkeys(given)
    if not {*kinds, *(id_.kind for id_ in found)}.intersection(NAMES):
        found |= _names_of_contact(graph, found, is_another)
    for kind, most in (*dict.fromkeys((*NAMES, "contact_id"), 1).items(), ("anonymous_id", CROWD)):
        if kind == "anonymous_id" or not any(kind == other for other in (*kinds, *(id_.kind for id_ in found))):
            first = _near(graph, found, kind, NAMES if most == 1 else LEADING)
            own = [id_ for id_, others in _names_beside(graph, first).items() if others <= found.keys()]
            own = [id_ for id_ in own if not is_another(id_)]
            if len(own) <= most:
                found |= {id_: first[id_] for id_ in own}
    return Closure(found, _told(list(_not_followed(graph, found, kinds, is_another))))


def _near(graph: Graph, found: Iterable[Id], kind: str, leading: Collection[str]) -> dict[Id, Id]:
    """The ids of a kind that stand beside those that are found, with one of these; none where there are too many."""
    near = graph.beside(id_ for id_ in found if id_.kind in leading)
    first = {other: id_ for id_ in near for other in near[id_] if other.kind == kind and other not in near}
    return {id_: first[id_] for id_ in sorted(first)} if len(first) <= MOST else {}


def _names_beside(graph: Graph, ids: Iterable[Id]) -> dict[Id, set[Id]]:
    return {id_: {other for other in others if other.kind in NAMES} for id_, others in graph.beside(ids).items()}


def _names_of_contact(graph: Graph, contacts: Iterable[Id], is_another: IsAnother) -> dict[Id, Id | None]:
    """The email and the user id of a person who is known by a contact id alone, if no other is beside them."""
    first = _near(graph, contacts, "email", LEADING) | _near(graph, contacts, "user_id", LEADING)
    ids, names = set(first), _names_beside(graph, first)
    if len(ids) > len(NAMES):
        return {}
    further = set().union(*names.values()) - ids
    ids |= further
    beside = names | _names_beside(graph, further)
    is_one = len({id_.kind for id_ in ids}) == len(ids) and all(others <= ids for others in beside.values())
    if not is_one or any(map(is_another, ids)):
        return {}
    return {id_: first.get(id_) or next(iter(beside[id_] & first.keys())) for id_ in sorted(ids)}


def _not_followed(
    graph: Graph, found: Collection[Id], kinds: Collection[str], is_another: IsAnother
) -> Iterator[Shared]:
    """Whatever else stands beside the ids that are found, with the reason."""
    near = graph.beside(id_ for id_ in found if id_.kind in LEADING)
    first = {other: id_ for id_ in near for other in near[id_] if other not in found}
    count = Counter(id_.kind for id_ in first)
    names = _names_beside(graph, (id_ for id_ in first if count[id_.kind] <= MOST))
    has = {*kinds, *(id_.kind for id_ in found)}
    for id_ in sorted(first):
        if others := names.get(id_, set()) - set(found):
            why = _beside_it(others)
        elif is_another(id_):
            why = LISTED
        elif id_.kind in has and id_.kind != "anonymous_id":
            why = f"the person has another {id_.kind.replace('_', ' ')}"
        else:
            why = SEVERAL if count[id_.kind] <= CROWD else MANY
        yield Shared(id_.kind, id_, first[id_], why)


def _told(shared: Sequence[Shared]) -> list[Shared]:
    """Crowds of one kind as one."""
    count = Counter(one.kind for one in shared)
    few = [one for one in shared if count[one.kind] <= CROWD]
    firsts = {one.kind: one for one in reversed(shared) if count[one.kind] > CROWD}
    return few + [Shared(one.kind, None, one.beside, MANY, count[one.kind]) for one in firsts.values()]


def _beside_it(others: Collection[Id]) -> str:
    shown = [other.masked() for other in sorted(others)[:SHOWN]]
    more = f" and {len(others) - SHOWN:,} more" if len(others) > SHOWN else ""
    return f"{', '.join(shown)}{more} {'stands' if len(others) == 1 else 'stand'} beside it too"
