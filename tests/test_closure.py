"""Which ids `forget` follows from a person's, and that it never follows anybody else's, whatever a stranger sends."""

from collections.abc import Sequence

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopilothq.catalog import PERSON_COLUMNS
from autopilothq.privacy import identity_graph
from autopilothq.privacy.identity_graph import CROWD, Graph, closure
from autopilothq.projection import suppression
from autopilothq.segment.identity import Id, hash_of, id_of

COLUMNS = ("user_id", "context_traits_email", "context_traits_contact_id", "anonymous_id", "previous_id")
ENGINE = duckdb.connect(config={"threads": 1})  # more threads are slower for so few rows
Row = tuple[str | None, ...]


def row(text: str) -> Row:
    """Returns a row of ids from a text such as `u:ada e:ada@x c:A a:device p:old`; each is optional."""
    cells = dict(word.split(":") for word in text.split())
    return tuple(cells.get(letter) for letter in "uecap")


def graph(*reads: Sequence[Row], listed: Sequence[Id] = ()) -> Graph:
    """Returns the graph of ids of rows that come in several reads; `listed` ids are on the suppression list."""
    suppression.register_suppressed(ENGINE, [("salt", hash_of("salt", id_)) for id_ in listed])
    made = Graph(ENGINE)
    for rows in filter(None, reads):
        made.add({place: PERSON_COLUMNS[column] for place, column in enumerate(COLUMNS)}, rows)
    made.resolve_ambiguous()
    return made


def ids(text: str) -> list[Id]:
    kinds = {"u": "user_id", "e": "email", "c": "contact_id", "a": "anonymous_id"}
    return [id_of(kinds[word[0]], word[2:]) for word in text.split()]


def short(id_: Id | None) -> str:
    return f"{id_.kind[0]}:{id_.value}" if id_ else ""


def found(given: str, *rows: str) -> dict[str, str]:
    """Returns the ids that count as the person's, each with the id through which it was found."""
    made = closure(graph([row(text) for text in rows]), ids(given))
    return {short(id_): short(by) for id_, by in made.found.items()}


def shared(given: str, *rows: str, others: Sequence[Id] = ()) -> dict[str, str]:
    """Returns the ids that are not followed, each with the id through which it was found and the reason."""
    made = closure(graph([row(text) for text in rows]), ids(given), others=others)
    return {
        f"{short(one.id) or f'{one.id_count} {one.kind}s'} beside {short(one.found_with)}": one.why
        for one in made.shared
    }


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
    ("u:ada a:phone", ["u:ada a:phone", "u:ada a:tablet"], "u:ada a:phone a:tablet"),
    ("c:A", ["c:A e:ada@x u:ada"], "c:A e:ada@x u:ada"),
    ("c:A", ["c:A u:ada", "u:ada e:ada@x"], "c:A u:ada e:ada@x"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "rows", "expected"), CERTAIN)
def test_what_is_certain_is_followed(given: str, rows: list[str], expected: str) -> None:
    assert found(given, *rows).keys() == set(expected.split())


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
    ("e:eve@x c:E", ["c:E u:eve"], "e:eve@x c:E"),
    ("c:E", ["c:E u:1", "c:E u:2"], "c:E"),
    ("c:E", ["c:E e:eve@x", "e:eve@x u:eve", "u:eve e:news@x"], "c:E"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "sent", "expected"), ATTACKS)
def test_a_stranger_who_pairs_ids(given: str, sent: list[str], expected: str) -> None:
    assert found(given, *ADA, *BOB, *sent).keys() == set(expected.split())


def test_each_id_has_the_one_that_it_was_found_with() -> None:
    assert found("e:ada@x", *ADA) == {"e:ada@x": "", "u:ada": "e:ada@x", "c:A": "u:ada", "a:adas": "u:ada"}
    assert found("c:E", "c:E a:eve@x", "e:eve@x u:eve") == {"c:E": "", "e:eve@x": "c:E", "u:eve": "e:eve@x"}
    # Given ids are found through none, and do not count towards the limit of ten anonymous ids.
    devices = [f"a:{number}" for number in range(CROWD)]
    assert found("u:ada a:adas", *ADA, *(f"u:ada {device}" for device in devices)) == {
        "u:ada": "", "a:adas": "", "e:ada@x": "u:ada", "c:A": "e:ada@x", **dict.fromkeys(devices, "u:ada"),
    }  # fmt: skip


def test_what_is_not_followed_is_told() -> None:
    assert shared("e:ada@x", *ADA, *BOB, "u:ada e:bob@x", "a:adas u:bob") == {
        "c:A beside e:ada@x": "user_id ada shares a row with it too",
        "u:ada beside e:ada@x": "email b...@x shares a row with it too",
    }
    assert shared("e:ada@x", *ADA, *BOB, "a:adas u:bob") == {
        "a:adas beside u:ada": "user_id bob shares a row with it too",
    }
    assert shared("e:ada@x u:ada", *ADA, "u:ada e:news@x", "c:A2 u:ada") == {
        "e:news@x beside u:ada": "the person has another email",
        "c:A beside u:ada": "it is one of several that could be the person's",
        "c:A2 beside u:ada": "it is one of several that could be the person's",
    }
    assert shared("u:ada", *ADA, "u:ada p:old", "u:old", "a:old") == {
        "a:old beside u:ada": "user_id old shares a row with it too",
        "u:old beside u:ada": "the person has another user id",
    }
    assert shared("e:ada@x c:A", "c:A u:ada") == {
        "u:ada beside c:A": "no email or user id of the person shares a row with it",
    }
    assert shared("c:A", "c:A u:1", "c:A u:2") == {
        f"u:{number} beside c:A": "it is one of several that could be the person's" for number in (1, 2)
    }
    assert shared("u:ada a:phone", "u:ada a:phone", "a:phone c:B") == {}  # a device may have several users
    assert shared("e:ada@x", *ADA, others=ids("u:ada")) == {
        "u:ada beside e:ada@x": "it is on the list as another person's",
        "c:A beside e:ada@x": "user_id ada shares a row with it too",
    }


def test_some_are_told_one_by_one_and_a_crowd_is_not() -> None:
    rows = [f"e:ada@x u:{number} c:{number}" for number in range(CROWD + 1)]
    assert shared("e:ada@x", *rows[1:]) == {
        **{f"u:{number} beside e:ada@x": "it is one of several that could be the person's" for number in range(1, 11)},
        **{f"c:{number} beside e:ada@x": f"user_id {number} shares a row with it too" for number in range(1, 11)},
    }
    assert shared("e:ada@x", *rows) == {
        "11 contact_ids beside e:ada@x": "there are too many to be one person's",
        "11 user_ids beside e:ada@x": "there are too many to be one person's",
    }
    others = [f"u:{number} c:A" for number in range(1, 6)]
    assert shared("e:ada@x", "e:ada@x c:A", *others[:3]) == {
        "c:A beside e:ada@x": "user_id 1, user_id 2, user_id 3 share a row with it too",
    }
    assert shared("e:ada@x", "e:ada@x c:A", *others) == {
        "c:A beside e:ada@x": "user_id 1, user_id 2, user_id 3 and 2 more share a row with it too",
    }


def test_so_many_ids_are_examined_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_graph, "CROWD", 1)
    monkeypatch.setattr(identity_graph, "MOST", 2)
    rows = ["u:ada e:ada@x", "u:1 e:ada@x", "u:1 e:1@x", "u:2 e:ada@x", "u:2 e:2@x"]
    assert found("e:ada@x", *rows[:3]) == {"e:ada@x": "", "u:ada": "e:ada@x"}
    assert shared("e:ada@x", *rows[:3]) == {"u:1 beside e:ada@x": "email 1...@x shares a row with it too"}
    assert found("e:ada@x", *rows) == {"e:ada@x": ""}
    assert shared("e:ada@x", *rows) == {"3 user_ids beside e:ada@x": "there are too many to be one person's"}


def test_a_hundred_people_and_a_hundred_devices() -> None:
    people = [f"u:{number} e:{number}@x" for number in range(100)]
    sent = [f"u:{number} e:ada@x" for number in range(100)] + [f"u:{number} a:adas" for number in range(100)]
    assert found("e:ada@x", *ADA, *people, *sent).keys() == {"e:ada@x", "u:ada", "c:A"}
    devices = [f"a:{number}" for number in range(100)]
    assert found("u:ada", *devices, *(f"u:ada a:{number}" for number in range(100))) == {"u:ada": ""}


def test_people_who_were_forgotten_before_stay_apart() -> None:
    made = graph([row("u:ada e:ada@x"), row("u:ada a:phone"), row("e:ada@x u:2")])
    assert set(closure(made, ids("e:ada@x"), others=ids("u:2")).found) == set(ids("e:ada@x u:ada a:phone"))
    assert set(closure(made, ids("e:ada@x"), kinds=["user_id"]).found) == set(ids("e:ada@x"))
    contact = graph([row("c:A e:ada@x u:ada")])
    for listed in (ids("u:ada"), ids("e:ada@x")):
        assert set(closure(contact, ids("c:A"), others=listed).found) == set(ids("c:A"))


def test_rows_of_one_batch_and_of_several_are_told_apart() -> None:
    made = graph([row("u:1 a:1")], [row("u:2 a:2"), row("u:3 a:3")], [row("u:4 a:4")])
    assert made.sharing_a_row(ids("u:1 u:2 u:3 u:4")) == {
        id_: set(ids(f"a:{id_.value}")) for id_ in ids("u:1 u:2 u:3 u:4")
    }


def test_ids_on_the_list_are_given_in_all_forms() -> None:
    """An earlier release folded ß differently."""
    [now, earlier, bob] = [Id("email", "strasse@x"), Id("email", "straße@x"), Id("user_id", "bob")]
    rows = [row("u:bob e:Straße@X"), row("u:Bob e:STRASSE@x"), row("e:eve@x a:bob")]
    assert list(graph(rows, listed=[bob, earlier]).suppressed().items()) == [(now, {now, earlier}), (bob, {bob})]
    assert graph(rows[1:], listed=[bob, earlier]).suppressed() == {}
    assert graph(rows[1:], listed=[now]).suppressed() == {now: {now}}


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
    """Whatever is sent, no id of another person counts who has an email and a user id in one row."""
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
