"""Users' steps that see rows: `add_map`, `add_filter`, `add_yield_map`, limits, transformers."""

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import dlt
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from dlt.extract import DltSource
from dlt.pipeline.exceptions import PipelineStepFailed

from autopilothq import archive
from autopilothq.catalog import TABLES
from dlt_habits.habits import Rows, Target, identify, kept, more, track
from shared_loads import isolation


def types(target: Target) -> list[Any]:
    """Returns the columns of all tables in the database, with the descriptions from dlt's schema."""
    sql = (
        "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns"
        " WHERE NOT starts_with(table_name, '_dlt') AND table_schema = 'data' ORDER BY table_name, ordinal_position"
    )
    tables = target.pipeline.default_schema.data_tables()
    described = {
        (table["name"], name): (table.get("description"), column.get("description"))
        for table in tables
        for name, column in table["columns"].items()
    }
    return [(*row, described[row[0], row[1]]) for row in target.con.execute(sql).fetchall()]


class Stepped(NamedTuple):
    """Three loads: one whose rows all go through steps, a plain one, and one of an older line."""

    seen: set[type]
    types: list[Any]
    tables: list[Rows]


@pytest.fixture(scope="module")
def stepped(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Stepped:
    seen = set[type]()

    def look(rows: Any) -> Any:
        seen.add(type(rows))
        return rows

    with isolation(tmp_path_factory.mktemp("stepped")):
        target, mine = Target("mapped"), archive(str(folder))
        for resource in mine.resources.values():
            resource.add_map(look)
        old = archive(more(folder, track("late", "Email Opened", 1) | {"receivedAt": "2018-01-01T00:00:00Z"}))
        for source in (mine, old):
            source.tracks.apply_hints(incremental=dlt.sources.incremental("received_at"))
        target.run(mine)
        known, tables = types(target), [target.tables()]
        for source in (archive(str(folder)), old):
            target.run(source)
            tables.append(target.tables())
    return Stepped(seen, known, tables)


def test_both_ways_give_the_same_tables(
    source: Callable[..., DltSource], stepped: Stepped, loaded: Target, whole: Rows
) -> None:
    """A step that changes nothing sees Arrow tables, and the tables have the same columns and descriptions."""
    assert stepped.seen == {pa.Table}
    assert stepped.tables[0] == whole
    assert stepped.types == types(loaded)
    loaded.run(source())
    assert [loaded.tables(), stepped.tables[1]] == [whole, whole]


def test_incremental_leaves_out_older_rows(stepped: Stepped, whole: Rows) -> None:
    assert stepped.tables[0] == whole
    assert len(stepped.tables[2]["tracks"]) == len(whole["tracks"])  # the late line is older than the cursor


def test_columns_that_dlt_adds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """dlt's settings apply to all rows in every run. A table that has such columns needs the settings from then on."""
    target = Target()
    for setting in ("ADD_DLT_LOAD_ID", "ADD_DLT_ID"):
        monkeypatch.setenv(f"NORMALIZE__PARQUET_NORMALIZER__{setting}", "true")
    for number in range(2):
        source = archive(more(folder, track(f"s{number}", "Shoe Bought", 1)))
        target.run(source.with_resources("tracks", "other_events", "_audit"))
    rows = {name: target.rows(name) for name in ("tracks", "shoe_bought", "_audit")}
    assert {name: len({row["_dlt_id"] for row in found}) for name, found in rows.items()} == dict.fromkeys(rows, 2)
    loads = {row["load_id"] for row in rows["_audit"]}
    assert {name: {row["_dlt_load_id"] for row in found} for name, found in rows.items()} == dict.fromkeys(rows, loads)
    monkeypatch.setenv("NORMALIZE__PARQUET_NORMALIZER__ADD_DLT_LOAD_ID", "false")
    monkeypatch.setenv("NORMALIZE__PARQUET_NORMALIZER__ADD_DLT_ID", "false")
    with pytest.raises(PipelineStepFailed, match=r"or have the table made without it: dlt pipeline NAME drop tracks$"):
        target.run(archive(more(folder, track("m1", "Email Opened", 1))).with_resources("tracks"))
    assert (target.count("tracks"), target.pipeline.has_pending_data) == (2, False)


def test_map_filter_and_yield_map(source: Callable[..., DltSource], whole: Rows) -> None:
    """Rows that a step drops on purpose count as loaded."""
    mine = source()
    mine.email_opened.add_map(lambda rows: rows.append_column("day", pc.strftime(rows["received_at"], "%F")))
    mine.email_delivered.add_filter(lambda rows: rows.num_rows < 0)
    mine.tracks.add_yield_map(lambda rows: iter([rows.slice(0, 10), rows.slice(10)]))
    mine.other_events.add_map(lambda rows: pa.Table.from_pylist(rows.to_pylist()))
    target = Target()
    target.run(mine)
    assert all(row["day"] == f"{row['received_at']:%Y-%m-%d}" for row in target.rows("email_opened"))
    assert (target.count("email_delivered"), target.count("tracks")) == (0, len(whole["tracks"]))
    assert target.count("shoe_bought") == len(whole["shoe_bought"])
    target.run(source())
    assert (target.count("email_delivered"), target.count("tracks")) == (0, len(whole["tracks"]))
    assert target.tables()["_audit"] == whole["_audit"]


@pytest.mark.parametrize(
    "step",
    [
        lambda rows: rows.drop_columns(["id"]),
        lambda rows: pa.table({**dict(zip(rows.column_names, rows.columns, strict=True)), "id": pa.nulls(len(rows))}),
        lambda rows: [{"event": row["event"], "size": 1} for row in rows.to_pylist()],
        lambda rows: [*rows.to_batches(), rows.drop_columns(["id"]).to_batches()[0]],
    ],
    ids=["no column", "null", "dicts", "the last of some batches"],
)
@pytest.mark.parametrize("name", ["tracks", "other_events"])
def test_steps_that_drop_the_key(folder: Path, name: str, step: Callable[[Any], Any]) -> None:
    """They are refused before anything is written, because each run would store the rows again."""
    target = Target()
    source = archive(more(folder, track("s1", "Shoe Bought", 1, size=1))).with_resources("tracks", "other_events")
    source.resources[name].add_map(step)
    with pytest.raises(PipelineStepFailed, match=f"Expected the column id with .* that the steps of {name} return"):
        target.run(source)
    assert (target.names(), target.pipeline.has_pending_data) == ([], False)


@pytest.mark.parametrize(("column", "as_dicts"), [("load_id", False), ("tables", False), ("tables", True)])
def test_steps_that_drop_what_is_loaded(folder: Path, column: str, as_dicts: bool) -> None:
    """Without `tables`, a file that was loaded for one table would count as loaded for all of them."""
    target = Target()
    source = archive(more(folder, track("s1", "Shoe Bought", 1))).with_resources("tracks", "_audit")

    def step(rows: Any) -> Any:
        rest = rows.drop_columns([column])
        return rest.to_pylist() if as_dicts else rest

    source.resources["_audit"].add_map(step)
    with pytest.raises(PipelineStepFailed, match=f"Expected the column {column} in the rows that the steps of _audit"):
        target.run(source)
    assert (target.names(), target.pipeline.has_pending_data) == ([], False)


@pytest.mark.parametrize(
    ("name", "step", "came"),
    [
        ("tracks", lambda rows: dlt.mark.with_hints(rows, dlt.mark.make_hints(primary_key="user_id")), "hints"),
        ("tracks", lambda rows: dlt.mark.with_hints(rows, dlt.mark.make_hints(table_name="mine")), "the table mine"),
        ("tracks", lambda rows: dlt.mark.with_table_name(rows, "mine"), "the table mine"),
        ("tracks", lambda rows: dlt.mark.with_file_import("a.parquet", "parquet", 2, rows), "hints"),
        ("other_events", lambda rows: dlt.mark.with_hints(rows, dlt.mark.make_hints(merge_key="event")), "hints"),
        ("other_events", lambda rows: dlt.mark.with_table_name(rows, "mine"), "the table mine"),
    ],
)
def test_steps_that_return_hints_with_rows(folder: Path, name: str, step: Callable[[Any], Any], came: str) -> None:
    """They are refused: the first would lose all but one row of a user and count the others as stored."""
    target = Target()
    source = archive(more(folder, track("s1", "Shoe Bought", 1), track("s2", "Shoe Bought", 2)))
    source.resources[name].add_map(step)
    with pytest.raises(PipelineStepFailed, match=f"Expected rows alone from the steps of {name}, but got {came} with"):
        target.run(source.with_resources("tracks", "other_events"))
    assert (target.names(), target.pipeline.has_pending_data) == ([], False)


def test_a_row_that_a_step_returns_twice_is_stored_once(folder: Path) -> None:
    """If the two differ, the first one that comes is stored. An empty table without columns counts as no rows."""
    target = Target()
    events = [track(f"s{number}", "Shoe Bought", number) for number in (1, 2, 3)]
    users = [identify("i1", "u1", 5), identify("i2", "u1", 6)]
    source = archive(more(folder, *events, track("t1", "Sock Bought", 4), *users))
    source.tracks.add_map(lambda rows: pa.concat_tables([rows.slice(1), rows, rows.slice(2)]))
    source.tracks.add_map(lambda rows: rows.set_column(0, "id", rows["id"]) if rows.num_rows else pa.table({}))
    source.tracks.add_yield_map(lambda rows: iter([rows.slice(1), rows]))
    source.identifies.add_yield_map(lambda rows: iter([*rows.to_pylist(), rows.to_pylist()]))
    source.other_events.add_yield_map(lambda rows: iter([rows.slice(2), [rows.slice(1), rows]]))
    target.run(source.with_resources("tracks", "identifies", "other_events"))
    tables = ("tracks", "identifies", "shoe_bought", "sock_bought")
    assert {name: [row["id"] for row in target.rows(name)] for name in tables} == {
        "tracks": ["s3", "t1", "s1", "s2"],
        "identifies": ["i1", "i2"],
        "shoe_bought": ["s3", "s2", "s1"],
        "sock_bought": ["t1"],
    }


def test_a_step_that_returns_a_frame_without_the_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pandas frame is treated like the Arrow table that dlt converts it to."""

    class DataFrame(NamedTuple):
        """Stands in for the class of pandas, which is not installed."""

        rows: pa.Table

    def framed(rows: pa.Table) -> DataFrame:
        monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=DataFrame))
        library = SimpleNamespace(pandas_to_arrow=lambda frame: frame.rows)
        monkeypatch.setitem(sys.modules, "dlt.common.libs.pandas", library)
        return DataFrame(rows.drop_columns(["id"]))

    target, source = Target(), archive(more(folder, track("s1", "Shoe Bought", 1))).with_resources("tracks")
    source.tracks.add_map(framed)
    with pytest.raises(PipelineStepFailed, match="Expected the column id with a value in each row that the steps of"):
        target.run(source)
    assert (target.names(), target.pipeline.has_pending_data) == ([], False)


def test_a_step_of_a_resource_that_a_transformer_of_the_source_reads(folder: Path) -> None:
    """The rows go on to the transformer and into the table, once each."""
    target, seen = Target(), [0]
    source = archive(more(folder, track("s1", "Shoe Bought", 1, size=1))).with_resources("tracks")

    def counted(rows: pa.Table) -> pa.Table:
        seen[0] += 1
        assert seen[0] < 100, "the same rows again and again"
        return rows

    source.tracks.add_map(counted)

    @dlt.transformer(data_from=source.tracks)
    def ids(rows: pa.Table) -> Any:
        counted(rows)
        yield rows.select(["id"])

    source.resources.add(ids)
    target.run(source)
    assert (target.count("tracks"), target.count("ids")) == (1, 1)


def test_a_limit_is_not_the_whole(source: Callable[..., DltSource], whole: Rows) -> None:
    target, mine = Target(), source()
    mine.tracks.add_limit(1)
    target.run(mine)
    assert target.count("_audit") == 0
    target.run(source().add_limit(2, count_rows=True))
    assert target.count("_audit") == 0
    target.run(source())
    assert target.tables() == whole
    assert target.balances()


def test_a_window_is_not_the_whole(folder: Path) -> None:
    """Successive runs that each load a window of time store all messages."""
    url = more(folder, *(track(f"m{n}", "Email Opened", n) for n in range(2)))
    target = Target()
    for first in range(2):
        mine = archive(url).with_resources("tracks", "_audit")
        begin, end = (datetime(2019, 3, 20, 10, minute, tzinfo=UTC) for minute in (first, first + 1))
        mine.tracks.apply_hints(incremental=dlt.sources.incremental("received_at", begin, end_value=end))
        target.run(mine)
        assert (target.count("tracks"), target.count("_audit")) == (first + 1, 0)


def test_schema_contracts_are_obeyed(folder: Path, tmp_path: Path) -> None:
    """Contracts discard columns, rows with new columns, or tables; frozen columns stop a run before it writes."""
    first, second = track("m1", "Email Opened", 1), track("m2", "Email Opened", 2, shoe=1)
    third = track("m3", "Shoe Bought", 3)
    begun = Target()
    begun.run(archive(more(folder, first)))
    begun.keep(tmp_path)

    def loaded(target: Target, contract: Any) -> list[int]:
        target.run(archive(more(folder, second, third)), schema_contract=contract)
        return [target.count(name) for name in ("tracks", "email_opened", "shoe_bought")]

    values = kept(tmp_path)
    assert loaded(values, {"columns": "discard_value"}) == [3, 2, 1]
    assert [row.get("shoe") for row in values.rows("email_opened")] == [None, None]
    assert loaded(kept(tmp_path), {"columns": "discard_row", "tables": "discard_row"}) == [3, 1, 0]
    frozen = kept(tmp_path)
    with pytest.raises(PipelineStepFailed, match="Can't add table column `shoe`"):
        loaded(frozen, "freeze")
    assert (frozen.count("tracks"), frozen.count("_audit"), frozen.pipeline.has_pending_data) == (1, 1, False)


def test_transformers(source: Callable[..., DltSource], whole: Rows, caplog: pytest.LogCaptureFixture) -> None:
    """A transformer gets Arrow tables; the resource that it reads is also loaded if it is selected."""
    mine = source()

    @dlt.transformer(data_from=mine.email_opened, name="openers", write_disposition="append")
    def openers(rows: pa.Table) -> Iterator[pa.Table]:
        yield rows.select(["user_id"])

    mine.resources.add(openers)
    target = Target()
    target.run(mine)
    found = target.tables()
    assert len(found.pop("openers")) == len(whole["email_opened"])
    assert found == whole
    target.run(source())  # does not look for a killed run's copies in a table without a key
    again = target.tables()
    assert len(again.pop("openers")) == len(whole["email_opened"])
    assert again == whole

    mine = source()

    @dlt.transformer(data_from=mine.other_events, name="others")
    def others(rows: pa.Table) -> Iterator[pa.Table]:
        yield rows.select(["id"])

    mine.resources.add(others)
    with pytest.raises(PipelineStepFailed, match=r"Deselect it: source\.other_events\.selected = False"):
        Target("others").run(mine)
    mine.other_events.selected = False
    target = Target("others")
    target.run(mine)
    [said] = [record.getMessage() for record in caplog.records if "transformer" in record.getMessage()]
    assert said == (
        "other_events is not selected, but a transformer took its rows: they count as loaded, and no later load brings"
        ' them into tables of their own, except with write_disposition="replace".'
    )
    assert target.count("others") == sum(len(rows) for name, rows in whole.items() if name not in TABLES)


def test_an_event_with_the_name_of_a_users_own_table_has_another_table(folder: Path) -> None:
    """Anybody can send such an event; it neither stops a load nor gets into that table."""
    target = Target()
    source = archive(more(folder, track("o1", "Email Opened", 1), track("s1", "Shoe Bought", 1)))

    @dlt.transformer(data_from=source.email_opened, name="openers")
    def openers(rows: pa.Table) -> Iterator[pa.Table]:
        yield rows.select(["event"])

    source.resources.add(openers)
    target.run(source)
    target.run(archive(more(folder, track("o2", "Openers", 2), track("s2", "Shoe Bought", 2))))
    assert (target.rows("openers"), [row["id"] for row in target.rows("openers_table")]) == (
        [{"event": "email_opened"}],
        ["o2"],
    )
    assert [row["id"] for row in target.rows("shoe_bought")] == ["s1", "s2"]


@pytest.mark.usefixtures("loaded")
def test_iteration_without_a_pipeline(source: Callable[..., DltSource], whole: Rows) -> None:
    """Each iteration gives the Arrow tables of a load into an empty dataset, and nothing is written."""
    here = set(Path().rglob("*"))
    mine = source()
    for _ in range(2):
        assert sum(rows.num_rows for rows in mine.tracks) == len(whole["tracks"])
    (opened,) = mine.email_opened
    assert opened.schema.field("received_at").type == pa.timestamp("us", "UTC")
    assert sum(rows.num_rows for rows in mine) == sum(map(len, whole.values()))
    (opened,) = mine.email_opened.add_filter(lambda rows: rows.num_rows).add_map(lambda rows: rows.select(["id"]))
    assert opened.column_names == ["id"]
    assert set(Path().rglob("*")) == here
