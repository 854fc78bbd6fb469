"""Each feature of dlt's sources works as dlt's documentation says, or is refused before anything is written."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dlt
import pytest
from dlt.destinations.adapters import databricks_adapter
from dlt.extract import DltSource
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.pipeline.helpers import pipeline_drop

from autopilothq import adopt, archive
from dlt_habits.habits import Rows, Target, archive_of, identify, more, track
from shared_loads import isolation

# One source, several runs ------------------------------------------------------------------------------------------


class Again(NamedTuple):
    """Runs of one source object: after a failure, in another pipeline, and into a third dataset."""

    before: Rows
    after_failure: Rows
    only_here: bool
    second: Rows
    column: Any
    third: list[tuple[Rows, Rows]]


@pytest.fixture(scope="module")
def again(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Again:
    failures = iter([ValueError("not now")])

    @dlt.resource(name="other")
    def other() -> Iterator[Any]:
        for failure in failures:
            raise failure
        yield {"a": 1}

    with isolation(tmp_path_factory.mktemp("again")):
        mine, first, second = archive(str(folder)), Target("first"), Target("second")
        first.run(archive(more(folder, track("m1", "Email Opened", 1, only_here="x"))))
        before = first.tables()
        with pytest.raises(PipelineStepFailed, match="not now"):
            first.run([mine, other])
        first.run([mine, other])
        after_failure = first.tables()
        only_here = "only_here" in {column for row in first.rows("email_opened") for column in row}
        mine.email_opened.apply_hints(columns={"user_id": {"description": "Ours.", "x-mark": 1}})  # type: ignore[typeddict-unknown-key]
        second.run(mine)
        loaded, column = (
            second.tables(),
            dict(second.pipeline.default_schema.tables["email_opened"]["columns"]["user_id"]),
        )
        third = []
        for _ in range(2):
            second.run(mine, dataset_name="third")
            third.append((second.tables("third"), second.tables("data")))
    return Again(before, after_failure, only_here, loaded, column, third)


def test_a_source_runs_again(again: Again, whole: Rows) -> None:
    """In a retry after another source failed, in another pipeline, for another dataset: it is read again each time."""
    after, before = again.after_failure, again.before
    assert len(after["other"]) == 1
    assert all(row in after[name] for name, rows in before.items() for row in rows)
    new = {name: [row for row in rows if row not in before.get(name, [])] for name, rows in after.items()}
    assert {name: rows for name, rows in new.items() if name != "other"} == whole
    assert again.second == whole
    assert again.third == [(whole, whole)] * 2


def test_hints_of_a_run_do_not_stay(again: Again) -> None:
    """Hints that come from the rows of one run do not apply to the next; the user's own hints do."""
    assert again.only_here
    assert again.column == {
        "name": "user_id", "data_type": "text", "nullable": True, "description": "Ours.", "x-mark": 1,
    }  # fmt: skip


class Steps(NamedTuple):
    """A load by extract, normalize and load, in parallel, in dev mode, with hints that are obeyed."""

    rows: Rows
    table: Any


@pytest.fixture(scope="module")
def by_steps(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Steps:
    with isolation(tmp_path_factory.mktemp("steps")):
        target, mine = Target(dev_mode=True), archive(str(folder)).parallelize()
        mine.max_table_nesting = 3
        mine.root_key = True
        mine.tracks.apply_hints(
            write_disposition={"disposition": "merge", "strategy": "delete-insert"},
            columns={"note": {"data_type": "text"}},
            additional_table_hints={"x-ours": "yes"},
        )
        databricks_adapter(mine.pages, table_comment="Pages.", table_format="ICEBERG")  # it also sets a table format
        target.pipeline.extract(mine)
        target.pipeline.normalize()
        target.pipeline.load()
        tables = target.pipeline.default_schema.tables
        return Steps(target.tables(target.pipeline.dataset_name), {**tables["pages"], **tables["tracks"]})


def test_extract_normalize_load_one_by_one_and_in_dev_mode(by_steps: Steps, whole: Rows) -> None:
    assert by_steps.rows == whole


def test_in_parallel(by_steps: Steps, whole: Rows) -> None:
    assert by_steps.rows == whole


def test_hints_that_are_obeyed(by_steps: Steps, whole: Rows) -> None:
    """A merge strategy that keeps ids unique, more columns, `x-` hints, hints of an adapter, nesting, a root key."""
    assert by_steps.rows == whole
    assert (by_steps.table["x-merge-strategy"], by_steps.table["x-ours"]) == ("delete-insert", "yes")
    assert "note" in by_steps.table["columns"]
    assert by_steps.table["x-databricks-table-comment"] == "Pages."


# Everything again --------------------------------------------------------------------------------------------------


def test_replace_and_refresh(source: Callable[..., DltSource], whole: Rows) -> None:
    target = Target()
    for words in (
        {"write_disposition": "replace"},
        {"refresh": "drop_sources"},
        {"refresh": "drop_resources"},
        {"refresh": "drop_data"},
        {},
    ):
        target.run(source(), **words)
        assert target.tables() == whole, words
        assert target.balances()


def test_some_tables_again(source: Callable[..., DltSource], folder: Path, loaded: Target, whole: Rows) -> None:
    """A table that was replaced with a part of the archive lacks the rest, which the next run loads."""
    target, mine = loaded, archive(str(folder / "more.ndjson"))
    mine.tracks.apply_hints(write_disposition="replace")
    target.run(mine)
    assert 0 < target.count("tracks") < len(whole["tracks"])
    target.run(source())
    assert target.tables() == whole
    target.run(mine.with_resources("tracks", "email_opened", "_audit"), refresh="drop_resources")
    assert 0 < target.count("tracks") < len(whole["tracks"])
    target.run(source())
    assert target.tables() == whole
    for words in ({"write_disposition": "replace"}, {"refresh": "drop_resources"}, {"refresh": "drop_data"}):
        with pytest.raises(PipelineStepFailed, match="Select _audit too"):
            target.run(source().with_resources("tracks"), **words)
        assert target.tables() == whole


def test_a_replaced_table_keeps_its_columns_types() -> None:
    """dlt replaces only the rows, so a value that does not fit the existing column is a discard."""
    target = Target()
    for vip in (True, "gold"):
        url = archive_of("a.ndjson", track("m1", "Email Opened", 1, vip=True), track("m2", "Email Opened", 2, vip=vip))
        source = archive(url).with_resources("email_opened", "_discards", "_audit")
        target.run(source, write_disposition="replace")
    assert [(row["id"], row.get("vip")) for row in target.rows("email_opened")] == [("m1", True), ("m2", None)]
    assert [(row["row_id"], row["value"]) for row in target.rows("_discards")] == [("m2", '"gold"')]


def test_tables_that_were_dropped(source: Callable[..., DltSource], loaded: Target, whole: Rows) -> None:
    """Tables that dlt's command `pipeline ... drop` dropped are filled again by the next run."""
    target = loaded
    pipeline_drop(target.pipeline, resources=["tracks", "identifies"])()
    assert (target.count("tracks"), target.count("identifies")) == (0, 0)
    target.run(source().add_limit(1))
    target.run(source())
    assert target.tables() == whole
    pipeline_drop(target.pipeline, resources=["users", "email_opened"], state_paths="*")()
    target.run(source())
    assert target.tables() == whole
    assert target.balances()


def test_tables_that_a_user_dropped(
    source: Callable[..., DltSource], loaded: Target, whole: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    """Dropped by SQL: dlt does not check again whether its tables exist, so each later load would fail."""
    for lost in (
        "DROP TABLE data.tracks; ALTER TABLE data.email_opened DROP COLUMN campaign_id; DELETE FROM data.email_opened",
        "DROP TABLE data.shoe_bought; DROP TABLE data._dlt_loads",
    ):
        loaded.con.execute(f"{lost}; DELETE FROM data._audit")
        loaded.run(source())
        assert loaded.tables() == whole
        assert loaded.balances()

    # Another pipeline did not create these tables, but must notice that the books are no longer true of them.
    loaded.con.execute("DROP TABLE data.tracks")
    loaded.pipeline = dlt.pipeline("other", destination=loaded.pipeline.destination, dataset_name="data")
    caplog.clear()
    loaded.run(source())
    [said] = [record.getMessage() for record in caplog.records if "tracks" in record.getMessage()]
    assert said.startswith('The table "data"."tracks" was missing and was created again, empty; DELETE FROM "data"."_a')


# A part ------------------------------------------------------------------------------------------------------------


def test_selected_resources(source: Callable[..., DltSource], whole: Rows) -> None:
    """Tables that were not selected are loaded once they are selected, also from files that are loaded already."""
    target = Target()
    target.run(source().with_resources("email_opened", "_audit"))
    assert {name: len(rows) for name, rows in target.tables().items()} == {
        "_audit": len(whole["_audit"]), "email_opened": len(whole["email_opened"]),
    }  # fmt: skip
    assert {row["tables"] for row in target.rows("_audit")} == {'{"email_opened": "all"}'}
    loads = target.con.execute("SELECT max(uuid_ts) FROM data.email_opened").fetchall()
    mine = source()
    mine.tracks.selected = mine.identifies.selected = mine.users.selected = mine.resources["_discards"].selected = False
    target.run(mine)
    assert target.names() == sorted({*target.names()} - {"tracks", "users", "_discards"})
    target.run(source())
    assert target.tables() == whole
    assert target.balances()
    assert loads == target.con.execute("SELECT max(uuid_ts) FROM data.email_opened").fetchall()
    target.run(source().email_opened)  # a single resource, without books
    target.run([source().email_opened, source().tracks])
    assert target.tables() == whole


def test_some_events(source: Callable[..., DltSource], whole: Rows) -> None:
    target = Target()
    target.run(source(events=["Email Opened"]))
    assert {name: len(rows) for name, rows in target.tables().items() if name != "_rejects"} == {
        "_audit": len(whole["_audit"]),
        "_discards": 1,
        "email_opened": len(whole["email_opened"]),
        "tracks": len(whole["email_opened"]),
    }
    lines = sum(row["lines"] for row in target.rows("_audit"))
    assert (target.count("_rejects"), target.balances()) == (1, True)
    assert sum(row["stored"] for row in target.rows("_audit")) == len(whole["email_opened"])
    target.run(source(exclude="shoe_bought, Email Clicked"))
    assert (target.count("shoe_bought"), target.count("email_clicked")) == (0, 0)
    assert target.tables()["users"] == whole["users"]
    assert target.balances()
    target.run(source())
    assert target.tables() == whole
    assert target.balances()
    assert sum(row["lines"] for row in target.rows("_audit")) == lines
    with pytest.raises(Exception, match="Expected events or exclude, but got both"):
        source(events=["a"], exclude=["b"])
    with pytest.raises(Exception, match=r"Expected the name of an event, .* but got '…'"):
        source(events=["…"])


def test_books_of_some_tables_and_some_events(folder: Path) -> None:
    """Messages that no selected table takes count as skipped, like those not requested, and nothing counts twice."""
    opened, target = track("o1", "Email Opened", 1), Target()
    others = identify("i1", "u1", 4), {"type": "page", "messageId": "p1", "userId": "u1"}
    url = more(folder, opened, opened, track("c1", "Email Clicked", 2), track("s1", "Shoe Bought", 3), *others, {})
    names = ("lines", "stored", "duplicates", "rejected", "skipped", "tables")

    def books(**words: Any) -> tuple[Any, ...]:
        target.run(archive(url, **words).with_resources(*tables))
        [row] = target.rows("_audit")
        return tuple(row.get(name) for name in names)

    tables: tuple[str, ...] = ("email_opened", "_audit")
    assert books() == (7, 1, 1, 1, 4, '{"email_opened": "all"}')
    tables = ("identifies", "_discards", "_audit")
    two = '{"_discards": {"only": ["email_opened", "identifies"]}, "email_opened": "all", "identifies": "all"'
    assert books(exclude="Email Clicked") == (7, 2, 1, 1, 3, f"{two}}}")
    # The stored message of email_opened has no row in tracks yet, so it gets one, but does not count twice.
    tables = ("email_opened", "tracks", "_audit")
    three = f'{two}, "tracks": {{"only": ["email_clicked", "email_opened"]}}}}'
    assert books(events="Email Clicked") == (7, 3, 1, 1, 2, three)
    tables = tuple(archive(url).resources)
    assert books() == (7, 5, 1, 1, 0, None)
    stored = ("tracks", "email_opened", "email_clicked", "shoe_bought", "identifies", "pages")
    assert [target.count(name) for name in stored] == [3, 1, 1, 1, 1, 1]


def test_books_of_some_adopted_tables(tmp_path: Path) -> None:
    target, folder = Target(), tmp_path / "tables"
    folder.mkdir()
    for table, ids in {"email_opened": "ab", "identifies": "c"}.items():
        (folder / f"{table}.csv").write_text("\n".join(["id,user_id", *(f"{id_},u1" for id_ in ids)]))

    def books(*tables: str) -> list[tuple[Any, ...]]:
        target.run(adopt(str(folder)).with_resources(*tables, "_audit"))
        return [
            tuple(row[name] for name in ("lines", "stored", "duplicates", "skipped")) for row in target.rows("_audit")
        ]

    assert books("identifies", "users") == [(2, 0, 0, 2), (1, 1, 0, 0)]
    assert books("tracks", "email_opened") == [(2, 2, 0, 0), (1, 1, 0, 0)]
    assert [target.count(name) for name in ("tracks", "email_opened", "identifies")] == [2, 2, 1]


@pytest.mark.parametrize(
    ("name", "columns", "loaded"),
    [("tracks", "1 AS n", False), ("shoe_bought", "* FROM data.mine", True), ("tracks", "* FROM data.mine", True)],
)
def test_a_view_with_the_name_of_a_table_is_refused(folder: Path, name: str, columns: str, loaded: bool) -> None:
    """Also if a load made the table and somebody put a view in its place later."""
    target, some = Target(), ("tracks", "other_events", "identifies", "users", "_audit")  # few, because each takes time
    source = archive(more(folder, track("s1", "Shoe Bought", 1), identify("i1", "u1", 2))).with_resources(*some)
    if loaded:
        target.run(source)
        target.con.execute(f"ALTER TABLE data.{name} RENAME TO mine")
        source = archive(more(folder, track("s2", "Shoe Bought", 3))).with_resources(*some)
    target.con.execute(f"CREATE SCHEMA IF NOT EXISTS data; CREATE VIEW data.{name} AS SELECT {columns}")
    before = target.names()
    with pytest.raises(PipelineStepFailed) as raised:
        target.run(source)
    assert str(raised.value).endswith(
        f"Expected {name} in the dataset data to be a table, because rows are loaded into it, but it is a view.\n"
        "Rename it (ALTER VIEW ... RENAME TO ...) or drop it: the load makes the table. Or load into another dataset"
        " (--dataset, dataset_name)."
    )
    assert (target.names(), target.pipeline.has_pending_data) == (before, False)
    assert before == [name] or (loaded and target.count("mine") == 1)


def test_a_foreign_table_with_the_name_of_one_of_these_is_refused(folder: Path) -> None:
    """Unlike event tables, these get no other name, so rows are loaded only if the table has the key columns."""
    target, source = Target(), archive(more(folder, identify("i1", "u1", 1)))
    target.con.execute("CREATE SCHEMA data")
    for name, columns, missing, got in (
        ("tracks", "1 AS n", "id", "there is no such column"),
        ("users", "1 AS id", "id", "it has the type bigint"),
        ("_audit", "'f' AS file, 1 AS version", "version", "it has the type bigint"),
        ("_suppressions", "'s' AS salt", "id", "there is no such column"),
    ):
        target.con.execute(f"CREATE TABLE data.{name} AS SELECT {columns}")
        with pytest.raises(PipelineStepFailed) as raised:
            target.run(source)
        assert str(raised.value).endswith(
            f"Expected {name} in the dataset data to have a text column {missing}, by which loads find its rows,"
            f" but {got}.\nIf it is somebody else's table, rename it (ALTER TABLE ... RENAME TO"
            " ...), or load into another dataset (--dataset, dataset_name). If the column was changed, change it back,"
            " or drop the table: the load makes it again."
        )
        assert (target.names(), target.pipeline.has_pending_data) == ([name], False)
        target.con.execute(f"DROP TABLE data.{name}")
    target.run(source)
    assert (target.count("users"), target.count("_audit")) == (1, 1)


def test_an_event_with_the_name_of_a_view_or_of_anothers_table_has_another_table(folder: Path) -> None:
    """Anybody can send such an event, and it stops no load. The view and the table stay, also when it comes again.

    The event keeps its other table after they are dropped.
    """
    target = Target()
    target.con.execute("CREATE SCHEMA data; CREATE VIEW data.shoe_bought AS SELECT 'v' AS id, now() AS received_at")
    target.con.execute("CREATE TABLE data.Shoe_Bought_Table AS SELECT 2 AS n, 'a' AS id")
    target.con.execute("CREATE TABLE data.init AS SELECT 's0' AS id, now() AS received_at")  # another pipeline's
    target.con.execute("CREATE TABLE data.bill (id text, received_at timestamp, total int NOT NULL)")
    for number in (1, 2, 3):
        lines = [track(f"{event[0]}{number}", event, number) for event in ("Shoe Bought", "Bill")]
        source = archive(more(folder, *lines, track("i", "Init", 1)))
        target.run(source.with_resources("tracks", "other_events", "_audit"))
        if number == 2:
            assert [row["id"] for row in target.rows("shoe_bought")] == ["v"]
            assert target.rows("shoe_bought_table") == [{"n": 2, "id": "a"}]
            target.con.execute("DROP VIEW data.shoe_bought; DROP TABLE data.shoe_bought_table; DROP TABLE data.bill")
    assert [row["id"] for row in target.rows("shoe_bought_table_table")] == ["S1", "S2", "S3"]
    assert [row["id"] for row in target.rows("bill_table")] == ["B1", "B2", "B3"]
    assert [row["id"] for row in target.rows("init")] == ["s0", "i"]
    assert [(row["event"], row["event_text"]) for row in target.rows("tracks") if row["id"][0] == "S"] == [
        ("shoe_bought_table_table", "Shoe Bought")
    ] * 3
    assert {"shoe_bought", "bill"}.isdisjoint(target.names())
