"""No line harms other lines, and values beyond the limits are reported (docs/contract/warehouse.md#limits)."""

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from autopilothq.catalog import (
    COLUMN_RESERVE,
    CONTACTS,
    LIMITS,
    MAX_DEPTH,
    MAX_KEYS,
    MESSAGE_TABLES,
    OTHER_LIMITS,
    TABLES,
    Limits,
)
from autopilothq.projection import Snapshot, SnapshotTarget, irregular, shapes, users
from autopilothq.projection import projection as projection_module
from autopilothq.projection.cells import CellWriter
from autopilothq.projection.context import ExistingTables, SharedContext, TableNumbers
from autopilothq.projection.deduplicate import choose_tables
from autopilothq.segment.json_text import depth
from autopilothq.segment.message import Message, Record
from contract.loading import (
    NOW,
    Store,
    batches,
    discards,
    filled,
    identify,
    message,
    new_projection,
    raw,
    rows_of,
    to_line,
)
from contract.partitioned import Partitioned

pytestmark = pytest.mark.usefixtures("several_threads")

ROOM = 3  # columns in addition to the declared ones


def narrow(declared: int) -> Limits:
    """Returns limits that leave room for `ROOM` columns in addition to the declared ones."""
    return Limits(declared + ROOM + COLUMN_RESERVE, None)


OPENED, IDENTIFIED = (len(TABLES[table].columns) for table in ("email_opened", "identifies"))


# ---- columns -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaves", [0, 200], ids=["line by line", "by the engine"])
def test_a_table_gets_as_many_columns_as_the_destination_takes(leaves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "MAX_LEAVES", leaves)
    store = Store(narrow(OPENED))
    found = store.run(
        [
            message(properties={"a": 1, "b": 2, "c": [3], "d": "x"}),
            message(messageId="m2", properties={"b": 5, "c": [6], "d": "y"}),
            message("Email Replied", messageId="m3", properties={"a": 1, "e": 2, "f": 3}),
        ]
    )
    # The columns with the most values stay. Declared columns do not count, and each table has its own limit.
    assert [{name: row[name] for name in "bcd"} for row in found["email_opened"]] == [
        {"b": 2, "c": "[3]", "d": "x"},
        {"b": 5, "c": "[6]", "d": "y"},
    ]
    assert "a" not in found["email_opened"][0]
    assert [(row["a"], row["e"], row["f"]) for row in found["email_replied"]] == [(1, 2, 3)]
    assert discards(found) == [("email_opened", "m1", "a", "1", "too_many_columns")]
    assert store.beyond_limits == {"too_many_columns": {"email_opened": 1}}


@pytest.mark.parametrize("leaves", [0, 200], ids=["line by line", "by the engine"])
def test_existing_columns_count_towards_the_limit(leaves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "MAX_LEAVES", leaves)
    store = Store(narrow(OPENED))
    store.run([message(properties={"a": 1, "b": 2})])
    found = store.run([message(messageId="m2", properties={"a": 3, "b": "x", "c": 5, "d": 6})])
    assert [(row["a"], row["b"], row["c"]) for row in found["email_opened"]] == [(1, 2, None), (3, None, 5)]
    assert discards(found) == [
        ("email_opened", "m2", "b", '"x"', "does_not_fit"),
        ("email_opened", "m2", "d", "6", "too_many_columns"),
    ]
    store.run([message(messageId="m3", properties={"d": 7})])
    assert len(store.types["email_opened"]) == OPENED + ROOM


def test_traits_and_contexts_have_the_same_limit() -> None:
    store = Store(narrow(IDENTIFIED))
    found = store.run([identify(traits=dict.fromkeys("abcde", 1))])
    assert len(store.types["identifies"]) == IDENTIFIED + ROOM
    assert [entry[2] for entry in discards(found)] == ["d", "e"]
    assert filled(found["users"][0]).keys() >= {"a", "b", "c"}

    found = Store(narrow(OPENED)).run([message(context={f"more{n}": n for n in range(20)})])
    both = found["tracks"][0].keys() & found["email_opened"][0].keys()
    assert {"context_more0", "context_more1"} <= both
    assert {entry[0] for entry in discards(found)} <= {"tracks", "email_opened"}
    assert {entry[4] for entry in discards(found)} == {"too_many_columns"}


def test_values_of_a_killed_load_that_had_no_column_are_told_once_more() -> None:
    store = Store(narrow(OPENED))
    line = message(properties={"a": 1, "b": 2, "c": 3, "d": 4})
    store.run([line])
    store.kill("_discards")
    assert discards(store.run([line])) == [("email_opened", "m1", "d", "4", "too_many_columns")]


def test_values_of_another_copy_of_a_killed_loads_message_were_not_too_many() -> None:
    """The copy that was stored lost nothing, and values of a duplicate are never discards."""
    store = Store()
    store.run([message(properties={"a": 1})])
    store.kill()
    found = store.run([message(properties={"a": 1, "b": 2}, context={"c": 3})])
    assert (discards(found), store.beyond_limits) == ([], {})


# ---- rows ----------------------------------------------------------------------------------------------------------


def test_a_row_has_no_more_values_than_fit_a_page() -> None:
    postgres = LIMITS["postgres"]
    store = Store(postgres)
    store.run([message(messageId="first", properties={"zz": "stays"})])
    texts = {f"t{n:03}": "x" * 30 for n in reversed(range(600))}
    found = store.run([message(properties={**texts, "zz": "there", "campaign_id": "c" * 100})])
    [row] = [filled(row) for row in found["email_opened"] if row["id"] == "m1"]
    kept = sorted(name for name in texts if name in row)
    # Declared and existing columns come first, then the others by name.
    assert (row["campaign_id"], row["zz"]) == ("c" * 100, "there")
    assert kept == sorted(texts)[: len(kept)]
    assert 250 <= len(kept) <= 400
    lost = [entry for entry in discards(found) if entry[4] == "row_too_wide"]
    assert [entry[2] for entry in lost] == sorted(texts)[len(kept) :]
    assert store.beyond_limits == {"row_too_wide": {"email_opened": 600 - len(kept)}}


def test_a_persons_row_has_no_more_values_than_fit_a_page() -> None:
    store = Store(LIMITS["postgres"])
    days = [f"2019-03-0{day}T00:00:00Z" for day in (1, 2, 3)]
    zz = []
    for part, day in enumerate(days):
        traits = {f"t{part}_{n:03}": "x" * 30 for n in range(250)} | {"last": part, "at": day, "zz": "there"}
        store.run([identify(messageId=f"m{part}", receivedAt=day, traits=traits)])
        zz.append(store.tables()["users"][0]["zz"])
    found = store.tables()
    [user] = found["users"]
    assert (user["last"], user["at"]) == (2, datetime(2019, 3, 3, tzinfo=UTC))
    # Existing columns come first, by name, then new ones by name. `zz` loses its place to many of the third 250.
    assert zz == ["there", "there", None]
    kept = [name for name, value in user.items() if name.startswith("t") and value is not None]
    assert 250 <= len(kept) <= 400
    lost = {entry[2] for entry in discards(found) if entry[0] == "users"}
    assert len(lost) >= 750 - len(kept)
    assert not lost & set(kept)


def test_many_traits_are_read_as_few_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    at = "2019-03-04T05:06:07.123456Z"
    traits = {"a": 1, "b": 1.5, "c": True, "d": "x", "e": at, "f": "", "h": 2**63 - 1}
    lines = [
        identify(messageId="m1", traits=traits, context={"traits": {"email": "a@b.c"}}),
        identify(messageId="m2", receivedAt="2018-01-01T00:00:00Z", traits={"a": 5, "g": 0.1}),
        identify(messageId="m3", receivedAt=None, traits={"a": 7, "i": -0.0}),
        identify(messageId="m4", userId="u2", traits={"a": -1}),
        identify(messageId="m5", userId="u3", traits={}),
    ]
    few = rows_of(*lines)["users"]
    monkeypatch.setattr(users, "MANY_TRAITS", 3)
    assert rows_of(*lines)["users"] == few
    assert (few[0]["h"], few[0]["g"], few[0]["context_traits_email"]) == (2**63 - 1, 0.1, "a@b.c")


# ---- keys, depth ---------------------------------------------------------------------------------------------------


def test_a_message_has_no_more_keys_than_any_needs() -> None:
    properties = {f"k{n:05}": n for n in range(MAX_KEYS + 5)} | {"campaign_id": "kept"}
    found = rows_of(message(properties=properties))
    reasons = Counter(entry[4] for entry in discards(found))
    [row] = found["email_opened"]
    stored = sum(name.startswith("k") and value is not None for name, value in row.items())
    assert row["campaign_id"] == "kept"
    assert 5 <= reasons["too_many_keys"] <= 20
    assert reasons["too_many_columns"] == len(properties) - 1 - stored - reasons["too_many_keys"]
    assert stored == OTHER_LIMITS.columns - COLUMN_RESERVE - OPENED


@pytest.mark.parametrize(
    ("text", "levels"),
    [("{}", 1), ("[[[]]]", 3), ('{"a":[1,"[[["]}', 2), (r'{"a\"[":["\\"]}', 2), ("[}[[", 2), ('"[[[', 0), ("5", 0)],
)
def test_depth_counts_brackets_outside_of_texts(text: str, levels: int) -> None:
    assert depth(text.encode()) == levels


def nested(levels: int, bottom: str, kind: str) -> str:
    return "[" * levels + bottom + "]" * levels if kind == "array" else '{"a":' * levels + bottom + "}" * levels


BOTTOMS = ["1", "1.10", '"[["']


@pytest.mark.parametrize("kind", ["array", "object"])
def test_what_nests_too_deeply_is_rejected_in_every_part_of_a_message(kind: str) -> None:
    places: list[dict[str, Any]] = [{"event": "$x"}, {"properties": {"p": "$x"}}, {"context": {"p": "$x"}}, {"o": "$x"}]
    texts = [(nested(400, bottom, kind), nested(MAX_DEPTH - 2, bottom, kind)) for bottom in BOTTOMS]
    lines = [
        raw(message(messageId=f"{id_}{n} {at}", **place), x=text)
        for at, (deep, fits) in enumerate(texts)
        for id_, text in (("deep", deep), ("fits", fits))
        for n, place in enumerate(places)
    ]
    found = rows_of(*lines, message(messageId="plain"), nested(100_000, "", kind))
    ids = [f"fits{n} {at}" for n in (1, 2, 3) for at in range(len(BOTTOMS))]
    assert [row["id"] for row in found["tracks"]] == [*ids, "plain"]
    # For each bottom, four lines are too deep and the event of the fifth is not a string.
    rejects = {row["line"]: row for row in found["_rejects"]}
    expected = {
        8 * at + n: "not_json" if n < 5 else "event_not_string" for at in range(len(BOTTOMS)) for n in range(1, 6)
    }
    assert {line: row["reason"] for line, row in rejects.items()} == expected | {len(lines) + 2: "not_json"}
    deep_ones = [row for row in found["_rejects"] if row["reason"] == "not_json"]
    assert {row["message"].partition(":")[0] for row in deep_ones} == {"nested too deeply to be read"}
    if kind == "array":
        rows = {row["id"]: row["p"] for row in found["email_opened"]}
        assert [rows[f"fits1 {at}"] for at in range(len(BOTTOMS))] == [fits for _, fits in texts]


# ---- tables --------------------------------------------------------------------------------------------------------


def test_events_beyond_the_number_of_tables_are_in_tracks_alone() -> None:
    store = Store(max_event_tables=2)
    store.run([message("First", messageId="m0", properties={"a": 1})])
    lines = [
        message("Rare", messageId="r", properties={"a": 1, "campaign_id": "c", "transactional": True, "list": [1]}),
        message("Often", messageId="o1"),
        message("Often", messageId="o2", properties={"b": 2}),
        message("First", messageId="m1", properties={"a": 2}),
        message("Email Bounced", messageId="own"),
    ]
    found = store.run(lines)
    assert {"first", "often", "email_bounced"} <= found.keys()
    assert "rare" not in found
    [track] = [row for row in found["tracks"] if row["id"] == "r"]
    assert (track["event"], track["event_text"]) == ("rare", "Rare")
    assert [row["a"] for row in found["first"]] == [1, 2]
    assert discards(found) == [
        ("tracks", "r", "a", "1", "too_many_tables"),
        ("tracks", "r", "campaign_id", '"c"', "too_many_tables"),
        ("tracks", "r", "list", "[1]", "too_many_tables"),
        ("tracks", "r", "transactional", "true", "too_many_tables"),
    ]
    assert store.beyond_limits == {"too_many_tables": {"rare": 1}}
    assert store.run(lines) == found


def test_the_new_events_with_most_messages_get_the_tables_that_are_left() -> None:
    names = [*(table.name for table in MESSAGE_TABLES), "email_opened", "known", "there", "b", "often", "a", "absent"]
    known, there, b, often, a, absent = range(len(MESSAGE_TABLES) + 1, len(names))
    assert [names[number] for number in (known, absent)] == ["known", "absent"]
    counts = {b: 1, often: 2, a: 1, there: 9}
    tables = TableNumbers(names, {name: number for number, name in enumerate(names)})
    counted: list[Mapping[int, int]] = []

    def count() -> Mapping[int, int]:
        counted.append(counts)
        return counts

    def choose(most: int, existing: ExistingTables, event_tables: Sequence[str]) -> list[tuple[int, int]]:
        load = SharedContext(loaded_at="", memory=0, shorten=str, event_table=str, existing=existing, tables=tables)
        chosen, beyond = choose_tables(load, event_tables, most, count)
        assert chosen == (tables.without(beyond) if beyond else tables)
        return list(beyond.items())

    for most, room in ((7, 5), (6, 4), (5, 3), (4, 2), (3, 1), (2, 0), (1, 0)):
        left_out = [(often, 2), (a, 1), (b, 1), (absent, 0)][room:]
        assert choose(most, {"tracks": {}, "known": {}}, ["there", "gone"]) == left_out
    assert len(counted) == 5  # counted only where not all of them have room
    assert choose(1, {}, []) == [(often, 2), (a, 1), (b, 1), (absent, 0), (known, 0)]


def test_of_two_equally_frequent_events_the_first_by_name_gets_its_table() -> None:
    lines = [message("Beta", messageId="b"), message("Alpha", messageId="a")]
    for order in (lines, lines[::-1]):
        store = Store(max_event_tables=1)
        found = store.run(order)
        assert ([row["id"] for row in found["alpha"]], found.keys() & {"beta"}) == (["a"], set())
        assert store.beyond_limits == {"too_many_tables": {"beta": 1}}


def test_an_event_that_gets_a_table_later_is_completed_from_its_file() -> None:
    store = Store(max_event_tables=0)
    line = message("Rare", properties={"a": 1})
    store.run([line])
    store.max_event_tables = 1
    found = store.run([line])
    assert [(row["id"], row["a"]) for row in found["rare"]] == [("m1", 1)]
    assert [row["id"] for row in found["tracks"]] == ["m1"]


# ---- names ---------------------------------------------------------------------------------------------------------


def test_what_cannot_be_a_column_gets_an_underscore() -> None:
    limits = LIMITS["postgres"]
    found = Store(limits).run(
        [
            message(properties={name: name for name in sorted(limits.reserved)}),
            identify(messageId="i", traits={"xmin": 1}),
        ]
    )
    row = filled(found["email_opened"][0])
    assert {name: row[f"_{name}"] for name in limits.reserved} == {name: name for name in limits.reserved}
    assert found["identifies"][0]["_xmin"] == 1
    assert found["users"][0]["_xmin"] == 1


@pytest.mark.parametrize("leaves", [0, 200], ids=["line by line", "by the engine"])
def test_values_whose_columns_get_the_same_shortened_name_are_not_lost_silently(
    leaves: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "MAX_LEAVES", leaves)
    store = Store()
    store.shorten = lambda name: name[:5] if name.startswith("abc") else name
    found = store.run([message(properties={"abcdef1": 1, "abcdef2": 2})])
    assert found["email_opened"][0]["abcde"] == 1
    assert discards(found) == [("email_opened", "m1", "abcdef2", "2", "same_column")]


# ---- shapes --------------------------------------------------------------------------------------------------------


def test_a_line_whose_keys_imitate_another_shape_hides_nothing() -> None:
    """Keys that contain JSON or separators do not make a line pass for one of another shape."""
    usual = {"a": 1, "b": 2}
    tricks = ['a","b', 'a\\",\\"b', "a],[b", '["a","b"]', "a,b", "a b", "", "\\u0061"]
    lines = [json.dumps(message(messageId=f"t{n}", properties={trick: 9})) for n, trick in enumerate(tricks)]
    lines += [json.dumps(message(messageId=f"m{n}", properties=usual)) for n in range(50)]
    found = rows_of(*lines)
    rows = [row for row in found["email_opened"] if row["id"].startswith("m")]
    assert [(row["a"], row["b"]) for row in rows] == [(1, 2)] * 50


def test_a_few_irregular_lines_take_no_columns_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "MAX_LEAVES", 20)
    odd = [message(messageId=f"o{n:02}", properties={f"k{n}_{at}": at for at in range(15)}) for n in range(20)]
    usual = [message(messageId=f"u{n:02}", properties={"plan": "pro", "seats": n}) for n in range(60)]
    lines = [*odd, *usual]
    random.Random(1).shuffle(lines)
    learnt = shapes.Shapes()
    keys = json.dumps([["type"], None, None, None, None, ["plan", "seats"], None])
    rare = {
        json.dumps([["type"], None, None, None, None, [f"k{n}_{at}" for at in range(15)], None]): 1 for n in range(20)
    }
    assert keys in learnt.regular({**rare, keys: 60})
    found = rows_of(*lines)
    assert [row["seats"] for row in found["email_opened"] if row["id"].startswith("u")] == list(range(60))


def test_a_table_of_many_sparse_columns_takes_no_more_memory_than_there_is(tmp_path: Path) -> None:
    """While rows are pivoted and written, DuckDB reserves a block for each column, however little it holds."""
    names, values = random.Random(1), (1, "a", True, 1.5, "1" * 300)
    lines = [
        message(
            messageId=f"m{number}",
            properties={f"k{names.randrange(1_900)}": names.choice(values) for _ in range(25)},
        )
        for number in range(600)
    ]
    projection = new_projection(tmp_path, memory=400, limits=Limits(1_600))
    for batch in batches([lines]):
        projection.add(batch)
    written = {}
    for rows in projection.deduplicate().tables():
        rows.write(str(tmp_path / rows.table))
        found = pq.ParquetFile(tmp_path / rows.table).metadata
        written[rows.table] = (found.num_rows, found.num_columns > 1_000)
    projection.close()
    assert written == {"email_opened": (600, True), "tracks": (600, False)}


def test_no_table_takes_threads_or_memory_from_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wide table is written by one thread with more memory; the next tables get the usual settings again."""
    monkeypatch.setattr(projection_module, "SMALL_LOAD", 0)  # as in a load that takes all threads
    wide = [
        message("Wide", messageId=f"w{number}", properties={f"k{number}_{key}": 1 for key in range(25)})
        for number in range(20)
    ]
    odd = [message("Odd", messageId=f"o{number}", properties={"a": "[1, 1.10]", "b": [1.10]}) for number in range(30)]
    projection = new_projection(tmp_path, memory=400, threads=2)
    for batch in batches([[*wide, *odd, *(message(messageId=f"m{number}") for number in range(40))]]):
        projection.add(batch)
    settings = "SELECT current_setting('threads'), current_setting('memory_limit')"
    found = {rows.table: rows.relation.query("rows", settings).fetchall() for rows in projection.deduplicate().tables()}
    projection.close()
    assert found == {
        "wide": [(1, "998.4 MiB")],
        "odd": [(2, "381.4 MiB")],
        "email_opened": [(2, "381.4 MiB")],
        "tracks": [(2, "381.4 MiB")],
    }


# ---- what an account has -------------------------------------------------------------------------------------------


def test_contacts_have_no_more_columns_than_their_table_takes(tmp_path: Path) -> None:
    """Existing columns do not count towards the limit."""
    things = Snapshot(CONTACTS, NOW, NOW, str(tmp_path), target=SnapshotTarget(existing={"custom_there"}, room=2))
    cells = {f"custom_{name}": "1" for name in ("a", "there", "b", "c")}
    things.add([Record(("c1",), {"email": '"a@b.c"', **cells}, [], {})])
    rows = things.rows({"custom_there": "bigint"})
    [row] = rows.relation.to_arrow_table().to_pylist()
    assert {name for name in row if name.startswith("custom_")} == {"custom_a", "custom_there", "custom_b"}
    lost = things.discards()
    assert lost is not None
    names = ("table_name", "row_id", "column_name", "value", "reason")
    found = [tuple(row[name] for name in names) for row in lost.relation.to_arrow_table().to_pylist()]
    assert found == [("contacts", "c1", "custom_c", "1", "too_many_columns")]
    things.close()


def test_names_of_100_000_bytes_take_what_others_take() -> None:
    lines = [message(messageId=f"{n:02}", properties={"n" * 100_000 + f"{n}": n}) for n in range(40)]
    store = Store()
    found = store.run(lines)["email_opened"]
    names = sorted((name for name in store.types["email_opened"] if name.startswith("nnn")), key=len)
    assert (len(names), {len(name) for name in names}) == (40, {1_000})
    assert sorted(row[name] for row in found for name in names if row[name] is not None) == list(range(40))


@pytest.mark.parametrize("leaves", [0, 200], ids=["line by line", "by the engine"])
def test_a_key_that_the_destination_has_no_room_for_is_rejected(leaves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are tried at the greatest length and a byte longer. A user id is a key only of identifies."""
    monkeypatch.setattr(shapes, "MAX_LEAVES", leaves)
    most, more = "é" * 4, "é" * 4 + "x"
    lines = [
        message(messageId=most),
        message(messageId=more),
        message(messageId="track", userId=more),
        *(identify(messageId=f"i{n}", userId=key, traits={"a": n}) for n, key in enumerate((most, more))),
        *(message(type="group", messageId=f"g{n}", groupId=key, userId=more) for n, key in enumerate((most, more))),
    ]
    for store in (Store(), Store(Limits(500)), Store(Limits(500, key_bytes=8)), Partitioned()):
        limited = isinstance(store, Partitioned) or store.limits.key_bytes is not None
        if isinstance(store, Partitioned):
            store.limits = Limits(500, key_bytes=8)
        found = store.run(lines)
        assert [
            (row["line"], row["reason"], row["message"].rpartition("but ")[2], row["raw"])
            for row in sorted(found.get("_rejects", []), key=lambda row: row["line"])
        ] == [
            (line, "unreadable", f"its {key} has 9.", to_line(lines[line - 1]).decode())
            for line, key in ((2, "id"), (5, "user_id"), (7, "group_id"))
            if limited
        ]
        keys = {most} if limited else {most, more}
        assert [{row["id"] for row in found[table]} for table in ("email_opened", "users", "accounts")] == [
            keys | {"track"}, keys, keys,
        ]  # fmt: skip


def test_events_with_long_names_have_tables_of_their_own() -> None:
    texts = ["n" * 100_000 + f" {number}" for number in range(6)]
    lines = [
        message(text, messageId=f"{n:02}", properties={"event": (text, text.replace(" ", "_"), f"{text}!")[n % 3]})
        for n, text in enumerate(texts)
    ]
    store = Store()
    store.shorten = lambda name: name[-6:]
    found = store.run(lines)
    own = [found[store.shorten(text.replace(" ", "_"))] for text in texts]
    assert [[(row["id"], row["event_text"]) for row in rows] for rows in own] == [
        [(f"{n:02}", text)] for n, text in enumerate(texts)
    ]
    assert [row["event_text"] for row in found["tracks"]] == texts
    # A property that only repeats the event's name is dropped, however long it is.
    assert [rows[0].get("_event") for rows in own] == [
        f"{text}!" if n % 3 == 2 else None for n, text in enumerate(texts)
    ]


def test_lines_that_lose_much_are_written_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    write = CellWriter.discards

    def writing(files: CellWriter, messages: Mapping[int, Message]) -> None:
        written.append(len(messages))
        write(files, messages)

    monkeypatch.setattr(CellWriter, "discards", writing)
    monkeypatch.setattr(irregular, "MOST_DISCARDED", 0)
    lost = [message(messageId=f"m{n}", properties={"日本": n, "a": n}) for n in range(3)]
    found = rows_of(*lost, "no JSON", message(messageId="fine", properties={"a": 3, "A ": None}))
    assert max(written) == 1
    stored = sorted((row["id"], row["a"]) for row in found["email_opened"])
    assert stored == [("fine", 3), ("m0", 0), ("m1", 1), ("m2", 2)]
    assert sorted((row["row_id"], row["value"]) for row in found["_discards"]) == [
        ("m0", "0"),
        ("m1", "1"),
        ("m2", "2"),
    ]
    assert [(row["line"], row["reason"]) for row in found["_rejects"]] == [(4, "not_json")]
