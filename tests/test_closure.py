"""Which ids `forget` follows from a person's, and that it never follows anybody else's, whatever a stranger sends."""

from collections.abc import Sequence

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopilothq.catalog import PERSON_COLUMNS
from autopilothq.privacy.identity_graph import CROWD, Graph, closure
from autopilothq.projection import suppression
from autopilothq.segment.identity import Id, id_of

COLUMNS = ("user_id", "context_traits_email", "context_traits_contact_id", "anonymous_id", "previous_id")
ENGINE = duckdb.connect(config={"threads": 1})  # for so few rows, to share the work is most of the work
Row = tuple[str | None, ...]


def row(text: str) -> Row:
    """A row of ids: `u:ada e:ada@x c:A a:device p:old`, in any order and any of them."""
    cells = dict(word.split(":") for word in text.split())
    return tuple(cells.get(letter) for letter in "uecap")


def graph(rows: Sequence[Row]) -> Graph:
    suppression.register_suppressed(ENGINE, [])
    made = Graph(ENGINE)
    if rows:
        made.add({place: PERSON_COLUMNS[column] for place, column in enumerate(COLUMNS)}, rows)
    made.resolve_ambiguous()
    return made


def ids(text: str) -> list[Id]:
    kinds = {"u": "user_id", "e": "email", "c": "contact_id", "a": "anonymous_id"}
    return [id_of(kinds[word[0]], word[2:]) for word in text.split()]


def found(given: str, *rows: str) -> set[str]:
    made = closure(graph([row(text) for text in rows]), ids(given))
    return {f"{id_.kind[0]}:{id_.value}" for id_ in made.found}


def shared(given: str, *rows: str) -> dict[str, str]:
    made = closure(graph([row(text) for text in rows]), ids(given))
    return {str(one.id or f"{one.number} {one.kind}s"): one.why for one in made.shared}


CERTAIN = [
    ("e:ada@x", ["u:ada e:ada@x"], "e:ada@x u:ada"),
    ("u:ada", ["u:ada e:Ada@X"], "e:ada@x u:ada"),
    ("e:ada@x", ["u:ada e:ada@x c:A", "u:ada", "c:A a:phone"], "e:ada@x u:ada c:A a:phone"),
    ("e:ada@x", ["u:ada e:ada@x", "u:ada c:A", "c:A a:phone"], "e:ada@x u:ada c:A a:phone"),
    ("c:A", ["c:A a:ada@x", "e:ada@x u:ada"], "c:A e:ada@x u:ada"),
    ("u:ada", ["u:ada p:device", "a:device", "u:ada a:phone"], "u:ada a:device a:phone"),
    ("e:ada@x", ["u:ada@x p:old", "u:old"], "e:ada@x u:old"),
    ("e:ada@x", ["u:ada e:ada@x", "u:ada p:device"], "e:ada@x u:ada a:device"),
    ("u:ada e:ada@x", ["u:ada e:ada@x c:A"], "u:ada e:ada@x c:A"),
    ("u:ada u:old", ["u:ada p:old", "u:old a:phone"], "u:ada u:old a:phone"),
    ("u:nobody", ["u:ada e:ada@x"], "u:nobody"),
    ("a:phone", ["u:ada a:phone"], "a:phone"),
    ("e:ada@x", [], "e:ada@x"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "rows", "expected"), CERTAIN)
def test_what_is_certain_is_followed(given: str, rows: list[str], expected: str) -> None:
    assert found(given, *rows) == set(expected.split())


BOB = ["u:bob e:bob@x c:B", "u:bob a:bobs"]
ADA = ["u:ada e:ada@x c:A", "u:ada a:adas"]
ATTACKS = [
    ("e:ada@x", ["u:bob e:ada@x"], "e:ada@x u:ada c:A a:adas"),
    ("e:ada@x", ["c:B e:ada@x"], "e:ada@x u:ada c:A a:adas"),
    ("e:ada@x", ["a:bobs e:ada@x"], "e:ada@x u:ada c:A a:adas"),
    ("e:ada@x", ["a:adas u:bob"], "e:ada@x u:ada c:A"),
    ("e:ada@x", ["u:bob@x e:ada@x"], "e:ada@x u:ada c:A a:adas"),
    ("e:ada@x", ["a:bob@x e:ada@x"], "e:ada@x u:ada c:A a:adas"),
    ("e:ada@x", ["u:ada e:bob@x"], "e:ada@x"),
    ("e:ada@x", ["u:ada c:B"], "e:ada@x u:ada c:A a:adas"),
    ("e:ada@x", ["u:ada p:bob"], "e:ada@x"),
    ("e:ada@x", ["u:bob p:ada"], "e:ada@x"),
    ("e:ada@x", ["u:ada p:bobs"], "e:ada@x u:ada c:A a:adas"),
    ("e:ada@x", ["u:ada@x p:bob"], "e:ada@x u:ada c:A a:adas"),
    ("e:ada@x", ["u:link e:ada@x", "u:link e:bob@x"], "e:ada@x u:ada c:A a:adas"),
    ("e:ada@x", ["e:ada@x c:link", "u:bob c:link"], "e:ada@x u:ada c:A a:adas"),
    ("u:ada", ["u:ada e:bob@x"], "u:ada a:adas e:ada@x c:A"),
    ("u:ada", ["u:ada e:news@x"], "u:ada a:adas"),
    ("e:ada@x", ["u:1 e:ada@x", "u:1"], "e:ada@x"),
    ("u:ada e:ada@x", ["u:ada e:news@x", "u:1 e:ada@x", "u:1"], "u:ada e:ada@x c:A a:adas"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "sent", "expected"), ATTACKS)
def test_a_stranger_who_pairs_ids(given: str, sent: list[str], expected: str) -> None:
    assert found(given, *ADA, *BOB, *sent) == set(expected.split())


def test_what_is_not_followed_is_told() -> None:
    assert shared("e:ada@x", *ADA, *BOB, "u:ada e:bob@x", "a:adas u:bob") == {
        "contact_id A": "user_id ada shares a row with it too",
        "user_id ada": "email b...@x shares a row with it too",
    }
    assert shared("e:ada@x", *ADA, *BOB, "a:adas u:bob") == {
        "anonymous_id adas": "user_id bob shares a row with it too",
    }
    assert shared("e:ada@x u:ada", *ADA, "u:ada e:news@x", "c:A2 u:ada") == {
        "email news@x": "the person has another email",
        "contact_id A": "it is one of several that could be the person's",
        "contact_id A2": "it is one of several that could be the person's",
    }
    crowd = [f"e:ada@x u:{number} c:{number}" for number in range(CROWD + 1)]
    assert shared("e:ada@x", *crowd) == {
        "11 contact_ids": "there are too many to be one person's",
        "11 user_ids": "there are too many to be one person's",
    }


def test_a_hundred_people_and_a_hundred_devices() -> None:
    people = [f"u:{number} e:{number}@x" for number in range(100)]
    sent = [f"u:{number} e:ada@x" for number in range(100)] + [f"u:{number} a:adas" for number in range(100)]
    assert found("e:ada@x", *ADA, *people, *sent) == {"e:ada@x", "u:ada", "c:A"}
    devices = [f"a:{number}" for number in range(100)]
    assert found("u:ada", *devices, *(f"u:ada a:{number}" for number in range(100))) == {"u:ada"}


def test_people_who_were_forgotten_before_stay_apart() -> None:
    made = graph([row("u:ada e:ada@x"), row("u:ada a:phone"), row("e:ada@x u:2")])
    assert set(closure(made, ids("e:ada@x"), is_another=lambda id_: id_.value == "2").found) == set(
        ids("e:ada@x u:ada a:phone")
    )
    assert set(closure(made, ids("e:ada@x"), kinds=["user_id"]).found) == set(ids("e:ada@x"))


def test_cells_are_given_as_they_are_spelt() -> None:
    made = graph([row("u:Ada e:ADA@x"), row("u:ada a:ada@X")])
    made.add({9: ("tagged",)}, [["user_id:ada"], ["email:ada@x"], ["user_id:bob"], [None]])
    assert made.cells(ids("u:Ada e:ada@x")) == {
        0: ["Ada"],
        1: ["ADA@x"],
        3: ["ada@X"],
        9: ["email:ada@x", "user_id:ada"],
    }


# ---- whatever is sent -----------------------------------------------------------------------------------------------

# Everybody has an email and a user id in a row together; the stranger has some ids of his own.
PEOPLE = [
    [f"u:{name} e:{name}@x", f"u:{name} c:c{name}", f"a:a{name} e:{name}@x", f"p:o{name} u:{name}"] for name in "abc"
]
POOL = {letter: [f"{prefix}{name}{suffix}" for name in "abcz"] for letter, prefix, suffix in (
    ("u", "", ""), ("e", "", "@x"), ("c", "c", ""), ("a", "a", ""), ("p", "o", ""))}  # fmt: skip
POOL = {letter: [*values, *POOL["e"], "oa", "ob"] if letter in "uap" else values for letter, values in POOL.items()}
SENT = st.lists(
    st.fixed_dictionaries({}, optional={letter: st.sampled_from(values) for letter, values in POOL.items()}), max_size=6
)


@given(SENT, st.sampled_from(["u:a", "e:a@x", "c:ca", "u:a e:a@x", "u:a a:aa"]), st.sets(st.integers(2, 3)))
@settings(max_examples=40, deadline=None)
def test_nobody_else_loses_a_row(sent: list[dict[str, str]], given_ids: str, more: set[int]) -> None:
    """No id counts of others who have an email and a user id in one row, whatever anybody sends."""
    honest = [row(people[number]) for people in PEOPLE for number in (0, 1, *more)]
    taken = closure(
        graph(honest + [tuple(message.get(letter) for letter in "uecap") for message in sent]), ids(given_ids)
    )
    others = {
        id_of(kind, cell) for one in honest if one not in ADAS for kind, cell in zip(KINDS, one, strict=True) if cell
    }
    assert others.isdisjoint(taken.found)


KINDS = ("user_id", "email", "contact_id", "anonymous_id", "anonymous_id")
ADAS = [row(text) for text in PEOPLE[0]]
