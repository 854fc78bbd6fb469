"""A message is stored once, and duplicates change nothing (docs/contract/warehouse.md#exactly-once)."""

import copy
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import pyarrow as pa
import pytest

from autopilothq.projection import FileCount
from autopilothq.projection.context import every_table
from contract.loading import Row, Store, discards, identify, message, rows_of

EARLY, LATE = "2019-03-01T00:00:00.000Z", "2019-03-02T00:00:00.000Z"


def plans(store: Store, table: str = "email_opened") -> list[Any]:
    return [row["plan"] for row in store.tables()[table]]


def test_the_earlier_of_two_in_one_load_stays() -> None:
    """In one file or in two, in either order."""

    def early(id_: str) -> dict[str, Any]:
        return message(messageId=id_, receivedAt=EARLY, properties={"plan": f"of {EARLY}"})

    def late(id_: str) -> dict[str, Any]:
        return message(messageId=id_, receivedAt=LATE, properties={"plan": f"of {LATE}"})

    store = Store()
    store.run([early("m1"), late("m1"), late("m2"), early("m2"), early("m3"), late("m4")], [late("m3"), early("m4")])
    assert [(row["id"], row["plan"]) for row in store.tables()["email_opened"]] == [
        (f"m{number}", f"of {EARLY}") for number in (1, 2, 3, 4)
    ]
    assert sum(count.duplicates for count in store.audit) == 4


def test_of_one_id_and_one_moment_the_same_message_stays_in_any_order_of_the_lines() -> None:
    """Only their text differs; every other line takes the slow path."""
    plans = [f"plan {n}" for n in range(4)]
    lines = [
        message(messageId=f"m{at}", receivedAt=received, properties={"plan": plan} | ({"\0": 1} if at % 2 else {}))
        for at, received in enumerate([EARLY, None] * 4)
        for plan in plans
    ]
    orders = [lines, lines[::-1], lines[1::2] + lines[::2]]
    stores = [Store() for _ in orders]
    found = [
        {row["id"]: row["plan"] for row in store.run(order[:9], order[9:], chunks=lambda _: 15)["email_opened"]}
        for store, order in zip(stores, orders, strict=True)
    ]
    assert found == [found[0]] * 3
    assert set(found[0]) == {f"m{at}" for at in range(8)}


def test_a_message_without_a_time_of_receipt_is_later_than_all() -> None:
    store = Store()
    store.run([message(receivedAt=None, properties={"plan": "none"}), message(properties={"plan": "some"})])
    assert plans(store) == ["some"]


BAD = {"sentAt": "soon", "properties": {"名": 1, "transactional": "maybe", "a": 1, "A": 2}}
FOUR_TIMES_BAD = message("Email Clicked", messageId="twice", **BAD)
LOADS: list[list[dict[str, Any]]] = [
    [
        message(messageId="later", receivedAt=LATE, properties={"plan": "first"}),
        message(messageId="years", receivedAt="2012-01-01T00:00:00.000Z"),
        message(messageId="stored", receivedAt=EARLY),
        message(messageId="moment"),
        FOUR_TIMES_BAD,
        FOUR_TIMES_BAD,
    ],
    [
        message(messageId="later", receivedAt=EARLY, properties={"plan": "second", "more": 1}, context={"zoo": 1}),
        message(messageId="between"),
        message(messageId="stored", receivedAt=LATE, **BAD),
        message(messageId="moment", sentAt="soon", properties={"名": 1}),
        FOUR_TIMES_BAD,
    ],
    [message(messageId="years", receivedAt="2032-01-01T00:00:00.000Z")],
]
Discards = list[tuple[str, str, str, str, str]]


@cache
def loaded() -> tuple[Store, list[Discards]]:
    """Makes three loads with the messages of several tests; returns the destination and the discards after each."""
    store = Store()
    return store, [discards(store.run(lines)) for lines in LOADS]


def discarded(id_: str) -> list[Discards]:
    """Returns the discards of a message as they were after each load."""
    return [[entry for entry in found if entry[1] == id_] for found in loaded()[1]]


def test_the_first_stays_if_the_second_has_an_earlier_time_but_comes_in_a_later_load() -> None:
    store, _ = loaded()
    assert [row["plan"] for row in store.tables()["email_opened"] if row["id"] == "later"] == ["first"]
    assert "more" not in store.types["email_opened"]
    assert "context_zoo" not in store.types["tracks"]


def test_years_between_two_loads_do_not_matter() -> None:
    years = [(row["id"], row["received_at"].year) for row in loaded()[0].tables()["tracks"]]
    assert [entry for entry in years if entry[0] in ("years", "between")] == [("between", 2019), ("years", 2012)]


SECONDS: list[dict[str, Any]] = [
    message("Email Clicked"),
    message("名前"),
    identify(),
    message(type="page"),
    message(type="alias"),
    message(type="group"),
]


@cache
def met() -> list[dict[str, list[Row]]]:
    """The tables where messages of all types repeat the ids of tracks: in the same load, and in a later one."""
    firsts = [message(messageId=f"m{n}") for n in range(len(SECONDS))]
    seconds = [second | {"messageId": f"m{n}"} for n, second in enumerate(SECONDS)]
    one, two = Store(), Store()
    one.run([*firsts, *({**second, "receivedAt": LATE.replace("2019", "2020")} for second in seconds)])
    two.run(firsts)
    two.run(seconds)
    return [one.tables(), two.tables()]


@pytest.mark.parametrize("number", range(len(SECONDS)), ids=lambda number: SECONDS[number]["type"])
def test_an_id_is_stored_once_across_kinds_of_messages(number: int) -> None:
    for tables in met():
        assert {
            name: ids
            for name, rows in tables.items()
            if name != "users" and (ids := [row["id"] for row in rows if row["id"] == f"m{number}"])
        } == {"tracks": [f"m{number}"], "email_opened": [f"m{number}"]}
        assert tables.keys() - {"users"} == {"tracks", "email_opened"}


def test_a_second_message_with_a_stored_id_leaves_no_discard() -> None:
    assert "_discards" not in rows_of(message(receivedAt=EARLY), message(receivedAt=LATE, **BAD))
    assert "a" not in loaded()[0].types["email_opened"]
    assert discarded("stored") == [[], [], []]


def test_what_is_loaded_twice_has_its_discards_once() -> None:
    first, *later = discarded("twice")
    assert len(first) == 4
    assert later == [first, first]


def test_a_second_message_of_the_same_moment_leaves_no_discard_either() -> None:
    assert discarded("moment") == [[], [], []]


def test_what_a_killed_load_had_discarded_is_discarded_again() -> None:
    lines = [  # on the slow path, on the fast path, and of an event without a table
        message(messageId="m2", sentAt="soon", properties={"a": "x", "名": 1}, context={"zoo": "x"}),
        message(messageId="m3", properties={"a": "x"}, context={"zoo": "x"}),
        message("名前", messageId="m4", properties={"a": "x"}, context={"zoo": "x"}),
    ]
    store = Store()
    store.run([message(properties={"a": 1}, context={"zoo": 1})])
    whole = discards(store.run(lines))
    assert [(*entry[:3], entry[4]) for entry in whole] == [
        ("email_opened", "m2", "a", "does_not_fit"), ("email_opened", "m2", "context_zoo", "does_not_fit"),
        ("email_opened", "m2", "properties.名", "no_column"), ("email_opened", "m2", "sent_at", "not_a_time"),
        ("email_opened", "m3", "a", "does_not_fit"), ("email_opened", "m3", "context_zoo", "does_not_fit"),
        ("tracks", "m4", "a", "no_column"), ("tracks", "m4", "context_zoo", "does_not_fit"),
    ]  # fmt: skip
    store.kill("_discards")
    assert discards(store.run(lines)) == whole

    first = Store()  # its first load was killed, so there is no audit
    lines = [FOUR_TIMES_BAD, message(messageId="never", receivedAt=None, sentAt="soon")]
    whole = discards(first.run(lines))
    assert len(whole) == 5
    first.kill("_discards", "_audit")
    assert discards(first.run(lines)) == whole


def test_no_other_messages_discards_are_taken_for_those_of_a_killed_load() -> None:
    """Neither those of a complete load's message of the same time, nor those of the same id at another time."""
    store = Store()
    store.run([message(receivedAt=EARLY)])
    store.run([message(messageId="m2", receivedAt=EARLY)])
    store.kill()
    lines = [message(receivedAt=EARLY, sentAt="soon"), message(messageId="m2", receivedAt=LATE, sentAt="soon")]
    assert discards(store.run(lines)) == []


def test_a_message_without_an_id_is_known_by_its_line() -> None:
    store = Store()
    store.run([message(messageId=...), message(messageId=None), message(messageId="")])
    once = store.tables()
    assert len(once["tracks"]) == 3
    assert store.run([message(messageId=""), message(messageId=None), message(messageId=...)]) == once
    assert store.audit == [FileCount(0, 3, 0, 3, 0, once["tracks"][0]["received_at"], once["tracks"][0]["received_at"])]


def test_the_ending_of_a_line_is_no_part_of_it() -> None:
    line = '{"type":"track","event":"Email Opened","userId":"u1"}'
    assert len(rows_of(line, f"{line}\r")["tracks"]) == 1


def test_ids_that_look_alike_are_different() -> None:
    ids = ["a", "A", " a", "a ", "5", "5.0", "true", "é", "e\u0301"]
    found = rows_of(*(message(messageId=id_) for id_ in ids), message(messageId=True), message(messageId=5))
    assert sorted(row["id"] for row in found["tracks"]) == sorted(ids)


def test_a_track_whose_other_row_was_lost_gets_it() -> None:
    """A load that was killed between two tables leaves such a track."""
    lines = [
        message(properties={"plan": "pro"}),
        message("Trial Extended", messageId="m2"),
        message("名前", messageId="m3"),
    ]
    store = Store()
    whole = store.run(lines)
    store.kill("email_opened", "trial_extended")
    again = store.run(lines)
    assert {name: [row["id"] for row in rows] for name, rows in again.items()} == {
        name: [row["id"] for row in rows] for name, rows in whole.items()
    }
    assert store.audit[0].stored == 2


def test_only_the_tracks_that_their_events_table_lacks_are_half_stored() -> None:
    store = Store()
    lines = [message(), message(messageId="m2")]
    whole = copy.deepcopy(store.run(lines))
    store.kill()
    del store.rows["email_opened"]["m2"]
    assert [[row["id"] for row in rows] for rows in store.run(lines).values()] == [["m1", "m2"]] * len(whole)
    assert [count[1:5] for count in store.audit] == [(2, 1, 1, 0)]


@pytest.mark.parametrize("filled", [{"tracks"}, {"email_opened", "trial_extended"}])
def test_a_track_is_stored_if_the_tables_that_loads_fill_have_it(filled: set[str]) -> None:
    store, lines = Store(), [message(), message("Trial Extended", messageId="m2")]
    for store.fills in (filled.__contains__, every_table):
        first = copy.deepcopy(store.run(lines))
        assert [count[1:5] for count in store.audit] == [(2, 2, 0, 0)]
        assert store.run(lines) == first
        assert [count[1:5] for count in store.audit] == [(2, 0, 2, 0)]
    assert {name: len(rows) for name, rows in store.tables().items()} == {
        "tracks": 2,
        "email_opened": 1,
        "trial_extended": 1,
    }


def test_a_message_that_two_tables_have_is_one_duplicate() -> None:
    """As another loader may have left it."""
    store = Store()
    store.run([message(), identify(messageId="i1")])
    store.rows["identifies"]["m1"] = store.rows["identifies"]["i1"] | {"id": "m1"}
    store.run([message()])
    assert [count[1:5] for count in store.audit] == [(1, 0, 1, 0)]


def test_a_track_that_is_stored_without_its_events_name_is_stored() -> None:
    """As another loader may have left it."""
    store = Store()
    store.run([message()])
    del store.types["tracks"]["event"], store.rows["tracks"]["m1"]["event"]
    before = copy.deepcopy(store.tables())
    assert store.run([message(properties={"plan": "pro"})]) == before
    assert [count[1:5] for count in store.audit] == [(1, 0, 1, 0)]


def test_an_event_row_whose_track_was_lost_gets_it() -> None:
    store = Store()
    store.run([message()])
    store.kill("tracks")
    assert [row["id"] for row in store.run([message()])["tracks"]] == ["m1"]


class Asked(Store):
    """A destination that records what is read from it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, ...]] = []

    def _read(self, table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        self.asked.append((table, *columns))
        return super()._read(table, columns)


def test_a_load_reads_no_more_of_the_destination_than_it_must() -> None:
    """Reads cost money in some warehouses: an event table is read only if `tracks` has some of its messages already."""
    store = Asked()
    store.run([message(), message(messageId="m2"), message("Email Clicked", messageId="m3"), identify(messageId="i")])
    ids = [("tracks", "id", "event"), ("identifies", "id")]
    for lines, more in (
        ([message(messageId="new")], []),
        ([message("Email Clicked"), message("Trial", messageId="m2")], []),  # m2 is stored already, as another event
        ([message(), message(messageId="m2")], [("email_opened", "id")]),
    ):
        store.asked.clear()
        store.run(lines)
        assert store.asked == [*ids, *more]
