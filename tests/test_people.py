"""Which people are due for a request, given all people and the destination's rows of `_profiles`."""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from autopilothq.catalog import PROFILES
from autopilothq.projection import DuePeople, People
from autopilothq.segment.identity import KEYED, HashedIds, Id, SuppressionKey, hash_of

START = datetime(2024, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
Due = list[tuple[str, datetime | None, str | None]]
# From an earlier run: the person, the watermark, and the time of the last request, in minutes since START.
Stored = tuple[str, int | None, int]


def at(minute: int | None) -> datetime | None:
    return None if minute is None else START + minute * MINUTE


@pytest.fixture
def people(tmp_path: Path) -> Iterator[People]:
    found = People(("space", "scope"), str(tmp_path))
    yield found
    found.close()


def profiles(rows: Sequence[Stored], space: str = "space", scope: str = "scope", load: str = "1") -> pa.RecordBatch:
    """Returns rows of `_profiles`."""
    moments = [at(row[1]) for row in rows], [at(row[2]) for row in rows]
    times = [pa.array(cells, pa.timestamp("us", "UTC")) for cells in moments]
    texts = [
        pa.array(cells, pa.string())
        for cells in ([row[0] for row in rows], *([of] * len(rows) for of in (space, scope, load)))
    ]
    names = ["person", "space", "scope", "load_id", "watermark", "asked_at"]
    return pa.RecordBatch.from_arrays([*texts, *times], names)


def choose(people: People, *stored: pa.RecordBatch, lag: int | None = None, retry: bool = False) -> Due:
    """Returns the ids of the people who are due; loads 1 and 2 are complete."""
    look_back = None if lag is None else lag * MINUTE
    people.choose(stored, ["1", "2"], DuePeople(START + 100 * MINUTE, look_back, retry, latest=START + 200 * MINUTE))
    found = list(people.take())
    assert len(found) == people.due
    return sorted(found)


def test_the_last_of_the_rows_that_count_says_up_to_when_a_person_was_asked_for(people: People) -> None:
    people.add([("a", None), ("b", None), ("c", None), ("d", None)])
    assert choose(
        people,
        profiles([("a", 20, 30), ("b", 5, 6), ("d", 50, 30)]),
        profiles([("a", 10, 40), ("b", 7, 8)], load="2"),
        profiles([("a", 50, 51), ("c", 50, 51)], load="killed"),
        profiles([("a", 50, 51), ("c", 50, 51)], space="another"),
        profiles([("a", 50, 51), ("c", 50, 51)], scope="another"),
        profiles([("d", 50, 100)]),  # requested in this run
        profiles([("a", 201, 201), ("c", 201, 201)]),  # from a wrong clock
    ) == [("a", at(20), None), ("b", at(7), None), ("c", None, None)]


def test_with_a_look_back_those_are_due_who_were_active_since(people: People) -> None:
    people.add(
        [("before", at(17)), ("then", at(18)), ("since", at(18)), ("since", at(17)), ("new", at(1)), ("never", None)]
    )
    people.add([("since", at(19)), ("since", None), ("unanswered", at(1)), ("unknown", None), ("run", at(99))])
    people.add([("asked", at(99))])
    stored = [(person, 20, 30) for person in ("before", "then", "since", "unknown")]
    assert choose(
        people, profiles([*stored, ("unanswered", None, 30), ("asked", 20, 100), ("run", 20, 99)]), lag=2
    ) == [
        ("never", None, None),
        ("new", None, None),
        ("run", at(20), None),
        ("since", at(20), None),
        ("unanswered", None, None),
    ]


def test_people_without_an_answer_last_time_are_asked_for_again_along_with_added_ones(people: People) -> None:
    people.add([("added", at(1)), ("quiet", at(1))])
    stored = [("added", 20, 30), ("quiet", 30, 30), ("failed", None, 30), ("half", 20, 30), ("fine", 30, 30)]
    assert choose(people, profiles(stored), lag=2, retry=True) == [
        ("added", at(20), None), ("failed", None, None), ("half", at(20), None),
    ]  # fmt: skip


def test_without_being_told_to_nobody_else_is_asked_for_again(people: People) -> None:
    people.add([("added", at(1))])
    assert choose(people, profiles([("added", 20, 30), ("failed", None, 30)]), lag=2) == []


def test_a_person_who_comes_twice_has_the_details_that_were_given(people: People) -> None:
    people.add([("a", None, "1"), ("b", None, None)])
    people.add([("a", None, "2"), ("b", None, "1"), ("c", None, None)])
    people.add([("a", None)])
    assert choose(people) == [("a", None, "2"), ("b", None, "1"), ("c", None, None)]


def test_those_who_were_never_asked_for_come_first_all_others_in_an_order_that_says_nothing(people: People) -> None:
    everyone = [f"person {number}" for number in range(40)]
    people.add([(person, None) for person in everyone])
    people.choose([profiles([(person, 20, 30) for person in everyone[:20]])], ["1"], DuePeople(START + 100 * MINUTE))
    halves = everyone[20:], everyone[:20]
    shuffled = [
        sorted(half, key=lambda person: hashlib.md5(person.encode(), usedforsecurity=False).hexdigest())
        for half in halves
    ]
    assert [person for person, *_ in people.take()] == [*shuffled[0], *shuffled[1]]
    assert [person for person, *_ in people.take(3)] == shuffled[0][:3]


def test_an_id_of_any_kind_but_a_contacts_is_an_email_if_it_has_an_at_sign(people: People) -> None:
    gone = Id("email", "ada@example.com"), Id("contact_id", "x@y"), Id("user_id", "a:b")
    left_out = ["email:Ada@Example.com", "user_id:ADA@example.com", "anonymous_id:ada@example.com", "contact_id:x@y"]
    stay = ["contact_id:X@y", "contact_id:ada@example.com", "email:x@y", "user_id:A:b", "user_id:a"]
    people.add([(person, None) for person in (*left_out, "user_id:a:b", *stay)])
    keyed, key = f"{KEYED}salt", SuppressionKey(b"0123456789abcdef")
    people.add([("user_id:keyed", None)])
    hashes = [("salt", hash_of("salt", id_)) for id_ in gone]
    people.leave_out(HashedIds([*hashes, (keyed, hash_of(keyed, Id("user_id", "keyed"), key))], key))
    assert people.due == 0
    assert [person for person, *_ in choose(people)] == stay


def test_who_was_asked_for_is_a_row(tmp_path: Path) -> None:
    people = People(("it's a space", "scope"), str(tmp_path))
    people.note([("a", at(1), START + 5 * MINUTE)])
    people.note([])
    people.note([("b", None, START + 6 * MINUTE), ("c", None, START + 7 * MINUTE)])
    made = people.rows("it's a load")
    assert (made.table, made.row_count) == ("_profiles", 3)
    assert made.columns == {column.name: column.type for column in PROFILES.columns}
    assert sorted(made.relation.fetchall()) == [
        ("it's a space", person, "scope", at(watermark), START + asked * MINUTE, "it's a load")
        for person, watermark, asked in (("a", 1, 5), ("b", None, 6), ("c", None, 7))
    ]
    assert people._con.sql("SELECT current_setting('temp_directory')").fetchall() == [(f"{tmp_path}/spill",)]
    people.close()
