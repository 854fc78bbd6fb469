"""Rows of adopted tables are kept or rejected, and duplicates are left out and counted (docs/contract/adopt.md)."""

import hashlib
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import duckdb
import pyarrow as pa

from autopilothq.catalog import COLUMN_RESERVE, LIMITS, OTHER_LIMITS, REJECT_REASONS, TABLES, event_table
from autopilothq.projection import FileCount, TableRows, engine
from autopilothq.projection.audit import rejects
from autopilothq.projection.context import declared_types
from autopilothq.segment.identity import NOBODY, HashedIds, Id, hash_of
from autopilothq.sources.adopt import buffer, columns, kept, latest, rows, verify
from contract.loading import NOW, Row, Store, filled, projection_context

DAY = datetime(2019, 3, 1, tzinfo=UTC)
DISCARDED = ("table_name", "row_id", "column_name", "value", "reason", "received_at")
EARLY, LATE = DAY - timedelta(days=1), DAY + timedelta(days=1)


class Adopting(Store):
    """A destination in memory that adopts tables; each list of rows is a file of its table, and rows are dicts."""

    def adopt(
        self,
        *files: tuple[str, Sequence[Row]],
        found: Collection[str] = (),
        refused: Mapping[str, str] | None = None,
        suppressed: HashedIds = NOBODY,
    ) -> dict[str, list[Row]]:
        self.loads += 1
        with tempfile.TemporaryDirectory() as scratch, engine.connect(scratch, 200, 1) as con:
            con.execute(columns.ADOPT_MACROS)
            con.execute(engine.script("state.sql"))
            con.execute(kept.SQL["books"])
            tables = buffer.buffered_tables([wait(con, scratch, number, *file) for number, file in enumerate(files)])
            at = (NOW + timedelta(days=self.loads)).isoformat()
            context = projection_context(con, scratch, loaded_at=at, existing=dict(self.types), limits=self.limits)
            adoption = kept.Adoption(context, tables, self._read, {}, {*tables, *found})
            for made in make(adoption, refused or {}, suppressed, len(files)):
                self._merge(made)
            self.audit = sorted(kept.file_counts(adoption))
        return self.tables()


def wait(
    con: duckdb.DuckDBPyConnection, scratch: str, number: int, table: str, given: Sequence[Row]
) -> buffer.BufferedRows:
    """Buffers the rows of a file for the adoption; each column has the type of its values."""
    names = list(dict.fromkeys(name for row in given for name in row))
    with engine.registered(con, given=pa.Table.from_pylist([{name: row.get(name) for name in names} for row in given])):
        types = {name: str(of) for name, of in zip(names, con.table("given").types, strict=True)}
        forms = {name: columns.form_of(of) for name, of in types.items()}
        source = buffer.Source("given", "row_number() OVER ()", forms, types)
        return buffer.buffer_rows(con, source, number, table, Path(scratch))


def make(adoption: kept.Adoption, refused: Mapping[str, str], suppressed: HashedIds, files: int) -> Iterator[TableRows]:
    """Yields the rows of all tables, made in the same steps as in a load."""
    kept.reject_refused_rows(adoption, refused)
    kept.reject_rows_without_id(adoption)
    kept.reject_deleted_persons(adoption, suppressed)
    kept.find_kept(adoption)
    fresh = {}
    for one in (*rows.message_rows(adoption), *rows.tracks_rows(adoption)):
        fresh[one.table] = one
        yield one
    yield from latest.latest_rows_of(adoption, fresh)
    for name in adoption.buffered:
        kept.count_table(adoption, name)
    books = rejects(adoption.context, [f"file {n}" for n in range(files)]), rows.discarded_rows(adoption)
    yield from filter(None, books)


def opened(id_: str | None, at: datetime | None = DAY, **cells: Any) -> Row:
    return {"id": id_, "received_at": at, **cells}


def ids(found: Mapping[str, list[Row]], table: str) -> list[tuple[str, Any]]:
    return [(row["id"], row.get("note")) for row in found.get(table, [])]


def test_the_earliest_row_of_an_id_is_kept_unless_the_id_is_stored() -> None:
    store = Adopting()
    store.adopt(("email_opened", [opened("stored", note="first"), opened("other", LATE, note="x")]))
    found = store.adopt(
        (
            "email_opened",
            [opened("twice", LATE, note="late"), opened("null", None, note="null"), opened("same", note="1")],
        ),
        (
            "email_opened",
            [opened("twice", EARLY, note="early"), opened("null", LATE, note="late"), opened("tie", note="2", n=1)],
        ),
        # Read before the second file, because its columns are those of the first.
        (
            "email_opened",
            [opened("stored", EARLY), opened("stored"), opened("one", note="one"), opened("tie", note="3")],
        ),
        ("email_clicked", [opened("twice", EARLY), opened("clicked", LATE)]),
        ("email_bounced", [opened("stored", None)]),
    )
    assert ids(found, "email_opened") == [
        ("null", "late"), ("one", "one"), ("other", "x"), ("same", "1"), ("stored", "first"), ("tie", "2"),
        ("twice", "early"),
    ]  # fmt: skip
    # Ids are deduplicated in each event table on its own; `tracks` gets one row per id.
    assert [row["id"] for row in found["email_clicked"]] == ["clicked", "twice"]
    assert [(row["id"], row["event"]) for row in found["tracks"]] == [
        ("clicked", "email_clicked"), ("null", "email_opened"), ("one", "email_opened"), ("other", "email_opened"),
        ("same", "email_opened"), ("stored", "email_opened"), ("tie", "email_opened"), ("twice", "email_opened"),
    ]  # fmt: skip
    assert store.audit == [
        FileCount(0, 3, 1, 2, 0, DAY, LATE),
        FileCount(1, 3, 3, 0, 0, EARLY, LATE),
        FileCount(2, 4, 1, 3, 0, EARLY, DAY),
        FileCount(3, 2, 2, 0, 0, EARLY, LATE),
        FileCount(4, 1, 1, 0, 0, None, None),
    ]


def test_rows_whose_ids_cannot_be_stored_do_not_count_as_one_row() -> None:
    """Rows of messages get a digest as their id, and an id that is not valid text is a discard; users are rejected."""
    store = Adopting()
    no_ids = ["n\0", "m\0", None, "", " \t"]
    files = [(name, [opened(id_, note=f"{n}") for n, id_ in enumerate(no_ids)]) for name in ("pages", "email_opened")]
    users = [opened("u", plan="pro"), opened("x\0", plan="a"), opened(None, plan="b")]
    found = store.adopt(*files, ("users", users))
    for name in ("pages", "email_opened"):
        assert sorted(row["note"] for row in found[name] if len(row["id"]) == 64) == ["0", "1", "2", "3", "4"]
        lost = [row for row in found["_discards"] if row["table_name"] == name]
        cells = sorted((row["column_name"], row["value"], row["reason"]) for row in lost)
        assert cells == [("id", '"m\\u0000"', "not_text"), ("id", '"n\\u0000"', "not_text")]
        stored = {row["id"]: row["note"] for row in found[name]}
        assert sorted(stored[row["row_id"]] for row in lost) == ["0", "1"]
    assert {row["id"] for row in found["tracks"]} == {row["id"] for row in found["email_opened"]}
    assert [row["id"] for row in found["users"]] == ["u"]
    assert sorted((row["line"], row["reason"], row["message"]) for row in found["_rejects"]) == [
        (2, "no_id", REJECT_REASONS["no_id"]), (3, "no_id", REJECT_REASONS["no_id"]),
    ]  # fmt: skip
    assert store.audit == [
        FileCount(0, 5, 5, 0, 0, DAY, DAY), FileCount(1, 5, 5, 0, 0, DAY, DAY), FileCount(2, 3, 1, 0, 2, DAY, DAY),
    ]  # fmt: skip
    assert store.adopt(*files, ("users", users))["pages"] == found["pages"]
    assert store.types["pages"] == declared_types(TABLES["pages"]) | {"note": "text"}


def test_rows_of_tracks_are_left_to_the_tables_of_their_events() -> None:
    store = Adopting()
    store.adopt(("plan_changed", [opened("stored")]))
    events = [
        ("here", "email_opened"), ("lost", "Email_Opened"), ("stored", "plan_changed"), ("own", "gone"),
        ("own", "gone"), ("refused", "email_opened"),
    ]  # fmt: skip
    found = store.adopt(
        ("email_opened", [opened("here"), opened("refused")]),
        ("tracks", [opened(id_, event=event) for id_, event in events]),
        found=["plan_changed"],
        refused={"refused": "too long", "unknown": "?"},
    )
    assert [(row["id"], row["event"]) for row in found["tracks"]] == [
        ("here", "email_opened"), ("own", "gone"), ("stored", "plan_changed"),
    ]  # fmt: skip
    raw = '{"event":"Email_Opened","id":"lost","received_at":"2019-03-01T00:00:00.000000Z"}'
    digest = hashlib.sha256(raw.encode()).hexdigest()
    at = '"id":"refused","received_at":"2019-03-01T00:00:00.000000Z"}'
    raws = [f"{{{at}", f'{{"event":"email_opened",{at}']
    names = ("file", "line", "reason", "message", "raw")
    rejected = [{name: row[name] for name in names} for row in found["_rejects"]]
    assert sorted(rejected, key=lambda row: (row["file"], row["line"])) == [
        {"file": "file 0", "line": 2, "reason": "unreadable", "message": "too long", "raw": raws[0]},
        {"file": "file 1", "line": 2, "reason": "no_event_row", "message": REJECT_REASONS["no_event_row"], "raw": raw},
        {"file": "file 1", "line": 6, "reason": "unreadable", "message": "too long", "raw": raws[1]},
    ]  # fmt: skip
    assert hashlib.sha256(f"file 1\n2\n{digest}".encode()).hexdigest() in {row["id"] for row in found["_rejects"]}
    assert store.audit == [FileCount(0, 2, 1, 0, 1, DAY, DAY), FileCount(1, 6, 1, 3, 2, DAY, DAY)]
    of_pages = opened("of pages", event="pages")  # an event called "pages", which cannot have the table `pages`
    own = [opened("own", event="gone"), opened("new", event="gone"), of_pages]
    found = store.adopt(("pages", [opened("page")]), ("tracks", own))
    assert [row["id"] for row in found["tracks"]] == ["here", "new", "of pages", "own", "stored"]
    assert store.audit == [FileCount(0, 1, 1, 0, 0, DAY, DAY), FileCount(1, 3, 2, 1, 0, DAY, DAY)]  # `own` is stored


def test_a_file_all_of_whose_rows_are_rejected_is_counted() -> None:
    store = Adopting()
    gone = HashedIds([("salt", hash_of("salt", Id("user_id", "ada")))])
    found = store.adopt(
        ("email_opened", [opened("a", user_id="ada"), opened("b", user_id="ada")]),
        ("email_opened", [opened("c", user_id="bob"), opened("d", user_id="ada")]),
        suppressed=gone,
    )
    assert [row["id"] for row in found["email_opened"]] == ["c"]
    assert sorted(
        (row["id"], row["file"], row["line"], row["reason"], row["raw"]) for row in found["_rejects"]
    ) == sorted(
        (hashlib.sha256(f"suppressed{id_}".encode()).hexdigest(), f"file {file}", line, "suppressed", "")
        for id_, file, line in (("a", 0, 1), ("b", 0, 2), ("d", 1, 2))
    )
    assert store.audit == [FileCount(0, 2, 0, 0, 2, None, None), FileCount(1, 2, 1, 0, 1, DAY, DAY)]
    both = [opened("ada"), opened("bob")]
    found = store.adopt(("users", both), ("accounts", both), suppressed=gone)
    assert [row["id"] for row in found["users"]] == ["bob"]
    assert [row["id"] for row in found["accounts"]] == ["ada", "bob"]  # a group may have a user's id


def test_columns_beyond_the_limit_are_discarded_once_in_the_table_of_their_event() -> None:
    declared = len(declared_types(event_table("plan_changed")))
    store = Adopting(OTHER_LIMITS._replace(columns=declared + 1 + COLUMN_RESERVE))
    found = store.adopt(
        ("plan_changed", [opened("a", user_id=5, context_x="1", context_y="2")]),
        ("tracks", [opened("own", event="gone", context_z="3")]),
    )
    row = {"id": "a", "received_at": DAY, "event": "plan_changed", "user_id": "5", "context_x": "1"}
    assert [filled(row) for row in found["plan_changed"]] == [row]
    assert [filled(row) for row in found["tracks"]] == [row, opened("own", event="gone")]
    assert sorted(tuple(row[name] for name in DISCARDED) for row in found["_discards"]) == [
        ("plan_changed", "a", "context_y", '"2"', "too_many_columns", DAY),
        ("tracks", "own", "context_z", '"3"', "too_many_columns", DAY),
    ]


def test_what_only_tracks_has_is_kept_and_properties_of_events_stay_in_their_tables() -> None:
    found = Adopting().adopt(
        ("plan_changed", [opened("a", seats=5, context_x="1")]),
        ("tracks", [opened("own", event="gone", seats="few", source="web", sent_at="soon")]),
    )
    assert [filled(row) for row in found["plan_changed"]] == [opened("a", event="plan_changed", seats=5, context_x="1")]
    assert [filled(row) for row in found["tracks"]] == [
        opened("a", event="plan_changed", context_x="1"), opened("own", event="gone", seats="few", source="web"),
    ]  # fmt: skip
    assert [row["uuid_ts"] for row in found["tracks"]] == [NOW + timedelta(days=1)] * 2
    assert [tuple(row[name] for name in DISCARDED) for row in found["_discards"]] == [
        ("tracks", "own", "sent_at", '"soon"', "not_a_time", DAY)
    ]


def test_a_value_of_a_row_that_is_kept_is_discarded_once() -> None:
    store = Adopting()
    store.adopt(("email_opened", [opened("first", score=1)]))
    found = store.adopt(
        ("email_opened", [opened("new", score="x"), opened("new", LATE, score="y"), opened("first", score="z")]),
    )
    assert found["_discards"] == [
        {
            "id": hashlib.sha256(b'email_opened\nnew\nscore\n"x"').hexdigest(),
            "table_name": "email_opened",
            "row_id": "new",
            "column_name": "score",
            "value": '"x"',
            "reason": "does_not_fit",
            "received_at": DAY,
            "discarded_at": NOW + timedelta(days=2),
        }
    ]


def test_only_what_spells_a_value_of_a_columns_type_becomes_one() -> None:
    """The times of messages may be numbers, as senders write them; in other columns a number never becomes a time."""
    store = Adopting()
    store.adopt(("email_opened", [opened("first", since=DAY, score=1, ratio=0.5)]))
    spelt: dict[str, Row] = {
        "clock": {"sent_at": "1551398400", "since": "2019-03-01 00:00:00", "score": "7", "ratio": "7"},
        "number": {"since": "1551398400"},
        "date": {"since": "2019-03-01"},
        "other": {"since": "Fri, 01 Mar 2019 00:00:00 GMT"},
    }
    found = store.adopt(("email_opened", [opened(id_, **cells) for id_, cells in spelt.items()]))
    told = {row["id"]: filled(row) for row in found["email_opened"]}
    clock = {"sent_at": DAY, "since": DAY, "score": 7, "ratio": 7.0}
    assert {name: told["clock"][name] for name in clock} == clock
    assert [name for name in spelt if "since" in told[name]] == ["clock"]
    assert sorted(tuple(row[name] for name in DISCARDED[1:5]) for row in found["_discards"]) == [
        (id_, "since", f'"{spelt[id_]["since"]}"', "not_a_time") for id_ in ("date", "number", "other")
    ]


def test_a_row_has_no_more_values_than_fit_a_page_and_is_kept() -> None:
    """The table's existing columns get room first, then the others by name, as in a load of messages."""
    store = Adopting(LIMITS["postgres"]._replace(row_bytes=1_400))
    store.adopt(("email_opened", [opened("first", zz="stays")]))
    texts = {f"t{n:02}": f"{n}".ljust(30, "x") for n in reversed(range(60))}
    numbers = {"context_n": 5, "position": True, "ratio": 0.5, "rowid": 7}
    wide = opened("wide", EARLY, **texts, **numbers, zz="there", campaign_id="c" * 100)
    found = store.adopt(("email_opened", [wide, opened("narrow", t59="fits"), opened("wide", LATE, t00="again")]))
    [row] = [filled(row) for row in found["email_opened"] if row["id"] == "wide"]
    kept = sorted(name for name in texts if name in row)
    assert {name: row[name] for name in (*numbers, "zz", "campaign_id")} == {
        **numbers, "zz": "there", "campaign_id": "c" * 100,
    }  # fmt: skip
    assert kept == sorted(texts)[: len(kept)]
    assert 20 <= len(kept) <= 40
    assert sorted(tuple(row[name] for name in DISCARDED) for row in found["_discards"]) == [
        ("email_opened", "wide", name, f'"{texts[name]}"', "row_too_wide", EARLY) for name in sorted(texts)[len(kept) :]
    ]
    assert [filled(row).get("t59") for row in found["email_opened"] if row["id"] == "narrow"] == ["fits"]
    assert {row["id"]: row["context_n"] for row in found["tracks"]} == {"first": None, "narrow": None, "wide": 5}
    assert store.audit == [FileCount(0, 3, 2, 1, 0, EARLY, LATE)]
    # Destinations without that limit store all of them.
    roomy = Adopting().adopt(("email_opened", [wide]))
    assert "_discards" not in roomy
    assert {name: roomy["email_opened"][0][name] for name in texts} == texts


def test_a_row_of_users_has_no_more_values_than_fit_a_page_and_is_kept() -> None:
    """The same values fit as in a table of messages, whether they come from the row itself or from a message."""
    store = Adopting(LIMITS["postgres"]._replace(row_bytes=1_400))
    store.adopt(("users", [opened("first", zz="stays")]))
    texts = {f"t{n:02}": f"{n}".ljust(30, "x") for n in reversed(range(60))}
    told = opened("i", EARLY, user_id="wide", zz="told", seq="9")
    found = store.adopt(("users", [{**opened("wide"), **texts}, opened("narrow", t59="fits")]), ("identifies", [told]))
    rows = {row["id"]: filled(row) for row in found["users"]}
    kept = sorted(rows["wide"].keys() & texts.keys())
    assert 20 <= len(kept) <= 45
    assert kept == sorted(texts)[: len(kept)]
    own = {"id": "wide", "received_at": EARLY, "zz": "told", "seq": "9"}
    assert rows["wide"] == own | {name: texts[name] for name in kept}
    assert (rows["narrow"]["t59"], rows["first"]["zz"], len(rows)) == ("fits", "stays", 3)
    assert sorted(tuple(row[name] for name in DISCARDED) for row in found["_discards"]) == [
        ("users", "wide", name, f'"{texts[name]}"', "row_too_wide", EARLY) for name in sorted(texts)[len(kept) :]
    ]


def test_rows_of_users_are_older_than_what_messages_and_stored_rows_say() -> None:
    store = Adopting()
    both = opened("both", EARLY, plan="old", city="Rome", size="small", shoe=42)
    # Values may have the names of the queries' own columns.
    named: Row = {"seq": 70, "layer": 71, "raw": 72, "row": 73}
    found = store.adopt(("pages", [opened("p", **named)]), ("users", [opened("named", **named)]))
    assert [{name: row[name] for name in named} for row in (*found["pages"], *found["users"])] == [named, named]
    store = Adopting()
    store.adopt(("users", [opened("stored", plan="old", city="Rome"), opened("whole", EARLY, plan="old"), both]))
    found = store.adopt(
        (
            "identifies",
            [opened(f"of {user}", LATE, user_id=user, plan="new") for user in ("told", "only", "both")],
        ),
        (
            "users",
            [
                opened("told", plan="own", city="Bern"),
                opened("own", plan="own", city="Bern"),
                opened("own", LATE, plan="late"),
                opened("stored", plan="own", size="big"),
                opened("whole", EARLY, plan="own"),
                opened("both", plan="own", city="Bern"),
            ],
        ),
    )
    assert {
        row["id"]: {name: cell for name, cell in filled(row).items() if name != "id"} for row in found["users"]
    } == {
        "told": {"received_at": LATE, "plan": "new", "city": "Bern"},
        "only": {"received_at": LATE, "plan": "new"},
        "both": {"received_at": LATE, "plan": "new", "city": "Bern", "size": "small", "shoe": 42},
        "own": {"received_at": DAY, "plan": "own", "city": "Bern"},
        "stored": {"received_at": DAY, "plan": "old", "city": "Rome", "size": "big"},
        "whole": {"received_at": EARLY, "plan": "old"},
    }
    at = {row["id"]: row["uuid_ts"].day for row in found["users"]}
    assert at == {"told": 4, "only": 4, "both": 4, "own": 4, "stored": 4, "whole": 3}
    found = store.adopt(("identifies", [opened("early", DAY, user_id="only", plan="early", city="Oslo")]))
    [only] = [filled(row) for row in found["users"] if row["id"] == "only"]
    assert only == {"id": "only", "received_at": LATE, "plan": "new", "city": "Oslo"}  # a stored message came later


def test_a_trait_of_two_types_has_one_that_holds_both() -> None:
    store = Adopting()
    told = opened("i", user_id="told", ratio=1.5, plan="pro", age=30)
    found = store.adopt(("identifies", [told]), ("users", [opened("own", ratio=1, plan=2, age=40)]))
    assert [(row["id"], row["ratio"], row["plan"], row["age"]) for row in found["users"]] == [
        ("own", 1.0, "2", 40), ("told", 1.5, "pro", 30),
    ]  # fmt: skip
    assert [store.types["users"][name] for name in ("ratio", "plan", "age")] == ["double", "text", "bigint"]


def test_both_sides_are_compared_by_day_and_by_the_digests_of_their_ids() -> None:
    store = Adopting()
    store.adopt(("email_opened", [opened("a", EARLY), opened("b", LATE), opened("n", None), opened("z", LATE)]))
    adopted = [opened("a", DAY), opened("a", EARLY), opened("b", DAY), opened("n", None), opened("lost", EARLY)]
    days = [DAY + timedelta(days=n) for n in range(10, 20)]
    assert list(compared(store, "email_clicked", [opened(str(day), day) for day in days[::-1]]).days) == [
        f"{day:%Y-%m-%d}" for day in days
    ]
    assert compared(store, "email_opened", adopted) == verify.TableComparison(
        "email_opened", 4, 3, 1, digest("a", "b", "n", "lost"), digest("a", "b", "n"),
        {"no time": (1, 1), "2019-02-28": (2, 1), "2019-03-01": (1, 0), "2019-03-02": (0, 1)},
    )  # fmt: skip
    assert compared(store, "email_clicked", [opened("a")]) == verify.TableComparison(
        "email_clicked", 1, 0, 1, digest("a"), "0", {"2019-03-01": (1, 0)}
    )
    # Rows without an id are not stored, and each of them counts.
    assert compared(store, "email_opened", [opened(None), opened("a", EARLY), opened(None)]) == verify.TableComparison(
        "email_opened", 3, 1, 2, digest("a", "", ""), digest("a"), {"2019-02-28": (1, 1), "2019-03-01": (2, 0)}
    )
    # Users are not compared by day: their time is that of the last message, which the other side may not have.
    assert compared(store, "users", [opened("u")]) == verify.TableComparison("users", 1, 0, 1, digest("u"), "0", {})
    assert compared(store, "email_opened", []) == verify.TableComparison("email_opened", 0, 0, 0, "0", "0", {})


def compared(store: Adopting, table: str, given: Sequence[Row]) -> verify.TableComparison:
    dataset = mock.Mock(tables=lambda names: {name for name in names if name in store.types}, read=store._read)
    schema = pa.schema([("id", pa.string()), ("received_at", pa.timestamp("us", "UTC"))])
    with engine.connect(None, 200, 1) as con, engine.registered(con, given=pa.Table.from_pylist(list(given), schema)):
        found = verify.compare_table(con, table, "FROM given", dataset)
    assert list(found.days) == sorted(found.days, key=lambda day: (day != "no time", day))
    return found


def digest(*ids: str) -> str:
    digests = (hashlib.md5(id_.encode(), usedforsecurity=False).digest() for id_ in ids)
    return f"{sum(int.from_bytes(one, 'little') >> 80 for one in digests):x}"
