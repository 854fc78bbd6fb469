"""Each feature of dlt's sources works as dlt's documentation says, or is refused before anything is written."""

import json
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import dlt
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from dlt.extract import DltSource
from dlt.extract.exceptions import ResourceExtractionError
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.pipeline.helpers import pipeline_drop
from pydantic import BaseModel

from autopilothq import adopt, archive
from autopilothq.catalog import TABLES
from autopilothq.sources.api.source import api
from dlt_habits.habits import Place, Rows, identify, kept, track
from shared_loads import isolation


@pytest.fixture
def source(folder: Path) -> Callable[..., DltSource]:
    """Makes a source of the small archive: `source(events=["Email Opened"])`."""
    return lambda **words: archive(str(folder), **words)


@pytest.fixture
def loaded(there: Path, whole: Rows) -> Place:
    """A place that has the whole archive."""
    place = kept(there)
    assert place.tables() == whole
    return place


def more(folder: Path, *lines: dict[str, Any]) -> str:
    """Another file, in the current folder."""
    path = Path(f"{folder.name}.ndjson")
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


def types(place: Place) -> list[Any]:
    """The columns of all tables, as the database has them, and as dlt's schema describes them."""
    sql = (
        "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns"
        " WHERE NOT starts_with(table_name, '_dlt') AND table_schema = 'data' ORDER BY table_name, ordinal_position"
    )
    tables = place.pipeline.default_schema.data_tables()
    described = {
        (table["name"], name): (table.get("description"), column.get("description"))
        for table in tables
        for name, column in table["columns"].items()
    }
    return [(*row, described[row[0], row[1]]) for row in place.con.execute(sql).fetchall()]


# One source, several runs ------------------------------------------------------------------------------------------


class Again(NamedTuple):
    """The runs of one source: after a failure, beside a row, in another pipeline, and for a third dataset."""

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
        mine, first, second = archive(str(folder)), Place("first"), Place("second")
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
    """In a retry next to a source that failed, in another pipeline, for another dataset: it reads again each time."""
    after, before = again.after_failure, again.before
    assert len(after["other"]) == 1
    assert all(row in after[name] for name, rows in before.items() for row in rows)
    new = {name: [row for row in rows if row not in before.get(name, [])] for name, rows in after.items()}
    assert {name: rows for name, rows in new.items() if name != "other"} == whole
    assert again.second == whole
    assert again.third == [(whole, whole)] * 2


def test_hints_of_a_run_do_not_stay(again: Again) -> None:
    """Hints from the rows of one dataset do not apply to the next one; the user's own hints do."""
    assert again.only_here
    assert again.column == {
        "name": "user_id", "data_type": "text", "nullable": True, "description": "Ours.", "x-mark": 1,
    }  # fmt: skip


class Steps(NamedTuple):
    """A load by steps in parallel, in dev mode, with hints that are obeyed."""

    rows: Rows
    table: Any


@pytest.fixture(scope="module")
def by_steps(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Steps:
    with isolation(tmp_path_factory.mktemp("steps")):
        place, mine = Place(dev_mode=True), archive(str(folder)).parallelize()
        mine.max_table_nesting = 3
        mine.root_key = True
        mine.tracks.apply_hints(
            write_disposition={"disposition": "merge", "strategy": "delete-insert"},
            columns={"note": {"data_type": "text"}},
            additional_table_hints={"x-ours": "yes"},
        )
        place.pipeline.extract(mine)
        place.pipeline.normalize()
        place.pipeline.load()
        return Steps(place.tables(place.pipeline.dataset_name), place.pipeline.default_schema.tables["tracks"])


def test_extract_normalize_load_one_by_one_and_in_dev_mode(by_steps: Steps, whole: Rows) -> None:
    assert by_steps.rows == whole


def test_in_parallel(by_steps: Steps, whole: Rows) -> None:
    assert by_steps.rows == whole


def test_hints_that_are_obeyed(by_steps: Steps, whole: Rows) -> None:
    """A strategy that keeps ids unique, further columns, `x-` hints, nesting, a root key."""
    assert by_steps.rows == whole
    assert (by_steps.table["x-merge-strategy"], by_steps.table["x-ours"]) == ("delete-insert", "yes")
    assert "note" in by_steps.table["columns"]


# Steps that see rows -----------------------------------------------------------------------------------------------


class Stepped(NamedTuple):
    """A load whose rows all go through steps, a plain one, and one of an older line."""

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
        place, mine = Place("mapped"), archive(str(folder))
        for resource in mine.resources.values():
            resource.add_map(look)
        old = archive(more(folder, track("late", "Email Opened", 1) | {"receivedAt": "2018-01-01T00:00:00Z"}))
        for source in (mine, old):
            source.tracks.apply_hints(incremental=dlt.sources.incremental("received_at"))
        place.run(mine)
        known, tables = types(place), [place.tables()]
        for source in (archive(str(folder)), old):
            place.run(source)
            tables.append(place.tables())
    return Stepped(seen, known, tables)


def test_both_ways_give_the_same_tables(
    source: Callable[..., DltSource], stepped: Stepped, loaded: Place, whole: Rows
) -> None:
    """A step that changes nothing sees Arrow tables, and the tables have the same columns and descriptions."""
    assert stepped.seen == {pa.Table}
    assert stepped.tables[0] == whole
    assert stepped.types == types(loaded)
    loaded.run(source())
    assert [loaded.tables(), stepped.tables[1]] == [whole, whole]


def test_incremental(stepped: Stepped, whole: Rows) -> None:
    assert stepped.tables[0] == whole
    assert len(stepped.tables[2]["tracks"]) == len(whole["tracks"])  # it is older than what is loaded


def test_columns_that_dlt_adds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """dlt's setting holds for all rows, in every run; tables that have such columns need it from then on."""
    place = Place()
    for setting in ("ADD_DLT_LOAD_ID", "ADD_DLT_ID"):
        monkeypatch.setenv(f"NORMALIZE__PARQUET_NORMALIZER__{setting}", "true")
    for number in range(2):
        source = archive(more(folder, track(f"s{number}", "Shoe Bought", 1)))
        place.run(source.with_resources("tracks", "other_events", "_audit"))
    rows = {name: place.rows(name) for name in ("tracks", "shoe_bought", "_audit")}
    assert {name: len({row["_dlt_id"] for row in found}) for name, found in rows.items()} == dict.fromkeys(rows, 2)
    loads = {row["load_id"] for row in rows["_audit"]}
    assert {name: {row["_dlt_load_id"] for row in found} for name, found in rows.items()} == dict.fromkeys(rows, loads)
    monkeypatch.setenv("NORMALIZE__PARQUET_NORMALIZER__ADD_DLT_LOAD_ID", "false")
    monkeypatch.setenv("NORMALIZE__PARQUET_NORMALIZER__ADD_DLT_ID", "false")
    with pytest.raises(PipelineStepFailed, match=r"made again without it: dlt pipeline NAME drop tracks$"):
        place.run(archive(more(folder, track("m1", "Email Opened", 1))).with_resources("tracks"))
    assert (place.count("tracks"), place.pipeline.has_pending_data) == (2, False)


def test_map_filter_and_yield_map(source: Callable[..., DltSource], whole: Rows) -> None:
    """What a step drops on purpose counts as handed over."""
    mine = source()
    mine.email_opened.add_map(lambda rows: rows.append_column("day", pc.strftime(rows["received_at"], "%F")))
    mine.email_delivered.add_filter(lambda rows: rows.num_rows < 0)
    mine.tracks.add_yield_map(lambda rows: iter([rows.slice(0, 10), rows.slice(10)]))
    mine.other_events.add_map(lambda rows: pa.Table.from_pylist(rows.to_pylist()))
    place = Place()
    place.run(mine)
    assert all(row["day"] == f"{row['received_at']:%Y-%m-%d}" for row in place.rows("email_opened"))
    assert (place.count("email_delivered"), place.count("tracks")) == (0, len(whole["tracks"]))
    assert place.count("shoe_bought") == len(whole["shoe_bought"])
    place.run(source())
    assert (place.count("email_delivered"), place.count("tracks")) == (0, len(whole["tracks"]))
    assert place.tables()["_audit"] == whole["_audit"]


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
    """Refused before anything is written: rows would be stored again in each run."""
    place = Place()
    source = archive(more(folder, track("s1", "Shoe Bought", 1, size=1))).with_resources("tracks", "other_events")
    source.resources[name].add_map(step)
    with pytest.raises(PipelineStepFailed, match=f"Expected the column id with .* that the steps of {name} return"):
        place.run(source)
    assert (place.names(), place.pipeline.has_pending_data) == ([], False)


@pytest.mark.parametrize(("column", "as_dicts"), [("load_id", False), ("tables", False), ("tables", True)])
def test_steps_that_drop_what_is_loaded(folder: Path, column: str, as_dicts: bool) -> None:
    """Without `tables`, a file of which one table was loaded counted as loaded for all of them."""
    place = Place()
    source = archive(more(folder, track("s1", "Shoe Bought", 1))).with_resources("tracks", "_audit")

    def step(rows: Any) -> Any:
        rest = rows.drop_columns([column])
        return rest.to_pylist() if as_dicts else rest

    source.resources["_audit"].add_map(step)
    with pytest.raises(PipelineStepFailed, match=f"Expected the column {column} in the rows that the steps of _audit"):
        place.run(source)
    assert (place.names(), place.pipeline.has_pending_data) == ([], False)


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
    """By the first one all rows of a user but one were lost, and counted as stored."""
    place = Place()
    source = archive(more(folder, track("s1", "Shoe Bought", 1), track("s2", "Shoe Bought", 2)))
    source.resources[name].add_map(step)
    with pytest.raises(PipelineStepFailed, match=f"Expected rows alone from the steps of {name}, but got {came} with"):
        place.run(source.with_resources("tracks", "other_events"))
    assert (place.names(), place.pipeline.has_pending_data) == ([], False)


def test_a_row_that_a_step_returns_twice_is_stored_once(folder: Path) -> None:
    """Of two that differ it is the first, as they come; an empty table without columns is none."""
    place = Place()
    events = [track(f"s{number}", "Shoe Bought", number) for number in (1, 2, 3)]
    users = [identify("i1", "u1", 5), identify("i2", "u1", 6)]
    source = archive(more(folder, *events, track("t1", "Sock Bought", 4), *users))
    source.tracks.add_map(lambda rows: pa.concat_tables([rows.slice(1), rows, rows.slice(2)]))
    source.tracks.add_map(lambda rows: rows.set_column(0, "id", rows["id"]) if rows.num_rows else pa.table({}))
    source.tracks.add_yield_map(lambda rows: iter([rows.slice(1), rows]))
    source.identifies.add_yield_map(lambda rows: iter([*rows.to_pylist(), rows.to_pylist()]))
    source.other_events.add_yield_map(lambda rows: iter([rows.slice(2), [rows.slice(1), rows]]))
    place.run(source.with_resources("tracks", "identifies", "other_events"))
    tables = ("tracks", "identifies", "shoe_bought", "sock_bought")
    assert {name: [row["id"] for row in place.rows(name)] for name in tables} == {
        "tracks": ["s3", "t1", "s1", "s2"],
        "identifies": ["i1", "i2"],
        "shoe_bought": ["s3", "s2", "s1"],
        "sock_bought": ["t1"],
    }


def test_a_step_that_returns_a_frame_without_the_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame of pandas is treated as the Arrow table that dlt makes of it."""

    class DataFrame(NamedTuple):
        """Stands in for that of pandas, which is not installed."""

        rows: pa.Table

    def framed(rows: pa.Table) -> DataFrame:
        monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=DataFrame))
        library = SimpleNamespace(pandas_to_arrow=lambda frame: frame.rows)
        monkeypatch.setitem(sys.modules, "dlt.common.libs.pandas", library)
        return DataFrame(rows.drop_columns(["id"]))

    place, source = Place(), archive(more(folder, track("s1", "Shoe Bought", 1))).with_resources("tracks")
    source.tracks.add_map(framed)
    with pytest.raises(PipelineStepFailed, match="Expected the column id with a value in each row that the steps of"):
        place.run(source)
    assert (place.names(), place.pipeline.has_pending_data) == ([], False)


def test_a_step_of_a_resource_that_a_transformer_of_the_source_reads(folder: Path) -> None:
    """The rows go on to the transformer and into the table, once each."""
    place, seen = Place(), [0]
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
    place.run(source)
    assert (place.count("tracks"), place.count("ids")) == (1, 1)


def test_a_limit_is_not_the_whole(source: Callable[..., DltSource], whole: Rows) -> None:
    place, mine = Place(), source()
    mine.tracks.add_limit(1)
    place.run(mine)
    assert place.count("_audit") == 0
    place.run(source().add_limit(2, count_rows=True))
    assert place.count("_audit") == 0
    place.run(source())
    assert place.tables() == whole
    assert place.balances()


def test_contracts(folder: Path, tmp_path: Path) -> None:
    """Contracts discard columns, rows with new columns, or tables; frozen columns stop a run before it writes."""
    first, second = track("m1", "Email Opened", 1), track("m2", "Email Opened", 2, shoe=1)
    third = track("m3", "Shoe Bought", 3)
    begun = Place()
    begun.run(archive(more(folder, first)))
    begun.keep(tmp_path)

    def loaded(place: Place, contract: Any) -> list[int]:
        place.run(archive(more(folder, second, third)), schema_contract=contract)
        return [place.count(name) for name in ("tracks", "email_opened", "shoe_bought")]

    values = kept(tmp_path)
    assert loaded(values, {"columns": "discard_value"}) == [3, 2, 1]
    assert [row.get("shoe") for row in values.rows("email_opened")] == [None, None]
    assert loaded(kept(tmp_path), {"columns": "discard_row", "tables": "discard_row"}) == [3, 1, 0]
    frozen = kept(tmp_path)
    with pytest.raises(PipelineStepFailed, match="Can't add table column `shoe`"):
        loaded(frozen, "freeze")
    assert (frozen.count("tracks"), frozen.count("_audit"), frozen.pipeline.has_pending_data) == (1, 1, False)


def test_transformers(source: Callable[..., DltSource], whole: Rows, caplog: pytest.LogCaptureFixture) -> None:
    """A transformer gets Arrow tables; its resource is loaded too where it is selected."""
    mine = source()

    @dlt.transformer(data_from=mine.email_opened, name="openers", write_disposition="append")
    def openers(rows: pa.Table) -> Iterator[pa.Table]:
        yield rows.select(["user_id"])

    mine.resources.add(openers)
    place = Place()
    place.run(mine)
    found = place.tables()
    assert len(found.pop("openers")) == len(whole["email_opened"])
    assert found == whole
    place.run(source())  # looks for copies that a killed run may have left, but not in a table without a key
    again = place.tables()
    assert len(again.pop("openers")) == len(whole["email_opened"])
    assert again == whole

    mine = source()

    @dlt.transformer(data_from=mine.other_events, name="others")
    def others(rows: pa.Table) -> Iterator[pa.Table]:
        yield rows.select(["id"])

    mine.resources.add(others)
    with pytest.raises(PipelineStepFailed, match=r"Deselect it: source\.other_events\.selected = False"):
        Place("others").run(mine)
    mine.other_events.selected = False
    place = Place("others")
    place.run(mine)
    [said] = [record.getMessage() for record in caplog.records if "transformer" in record.getMessage()]
    assert said == (
        "other_events is not selected, but a transformer took its rows: they count as loaded, and no later load brings"
        ' them into tables of their own, except with write_disposition="replace".'
    )
    assert place.count("others") == sum(len(rows) for name, rows in whole.items() if name not in TABLES)


def test_an_event_with_the_name_of_a_users_own_table_has_another_table(folder: Path) -> None:
    """Anybody can send one; it neither stops a load nor comes into that table."""
    place = Place()
    source = archive(more(folder, track("o1", "Email Opened", 1), track("s1", "Shoe Bought", 1)))

    @dlt.transformer(data_from=source.email_opened, name="openers")
    def openers(rows: pa.Table) -> Iterator[pa.Table]:
        yield rows.select(["event"])

    source.resources.add(openers)
    place.run(source)
    place.run(archive(more(folder, track("o2", "Openers", 2), track("s2", "Shoe Bought", 2))))
    assert (place.rows("openers"), [row["id"] for row in place.rows("openers_table")]) == (
        [{"event": "email_opened"}],
        ["o2"],
    )
    assert [row["id"] for row in place.rows("shoe_bought")] == ["s1", "s2"]


@pytest.mark.usefixtures("loaded")
def test_iteration_without_a_pipeline(source: Callable[..., DltSource], whole: Rows) -> None:
    """Arrow tables, as if into an empty dataset, again and again; nothing is written, and no load is disturbed."""
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


# Everything again --------------------------------------------------------------------------------------------------


def test_replace_and_refresh(source: Callable[..., DltSource], whole: Rows) -> None:
    place = Place()
    for words in (
        {"write_disposition": "replace"},
        {"refresh": "drop_sources"},
        {"refresh": "drop_resources"},
        {"refresh": "drop_data"},
        {},
    ):
        place.run(source(), **words)
        assert place.tables() == whole, words
        assert place.balances()


def test_some_tables_again(source: Callable[..., DltSource], folder: Path, loaded: Place, whole: Rows) -> None:
    """Replaced with a part of the archive, a table lacks the rest: the next run loads it."""
    place, mine = loaded, archive(str(folder / "more.ndjson"))
    mine.tracks.apply_hints(write_disposition="replace")
    place.run(mine)
    assert 0 < place.count("tracks") < len(whole["tracks"])
    place.run(source())
    assert place.tables() == whole
    place.run(mine.with_resources("tracks", "email_opened", "_audit"), refresh="drop_resources")
    assert 0 < place.count("tracks") < len(whole["tracks"])
    place.run(source())
    assert place.tables() == whole
    for words in ({"write_disposition": "replace"}, {"refresh": "drop_resources"}, {"refresh": "drop_data"}):
        with pytest.raises(PipelineStepFailed, match="Select _audit too"):
            place.run(source().with_resources("tracks"), **words)
        assert place.tables() == whole


def test_tables_that_were_dropped(source: Callable[..., DltSource], loaded: Place, whole: Rows) -> None:
    """With dlt's command `pipeline ... drop`."""
    place = loaded
    pipeline_drop(place.pipeline, resources=["tracks", "identifies"])()
    assert (place.count("tracks"), place.count("identifies")) == (0, 0)
    place.run(source().add_limit(1))
    place.run(source())
    assert place.tables() == whole
    pipeline_drop(place.pipeline, resources=["users", "email_opened"], state_paths="*")()
    place.run(source())
    assert place.tables() == whole
    assert place.balances()


def test_tables_that_a_user_dropped(
    source: Callable[..., DltSource], loaded: Place, whole: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    """By SQL: dlt does not check again whether its tables exist, so each later load would fail."""
    for lost in (
        "DROP TABLE data.tracks; ALTER TABLE data.email_opened DROP COLUMN campaign_id; DELETE FROM data.email_opened",
        "DROP TABLE data.shoe_bought; DROP TABLE data._dlt_loads",
    ):
        loaded.con.execute(f"{lost}; DELETE FROM data._audit")
        loaded.run(source())
        assert loaded.tables() == whole
        assert loaded.balances()

    # Another pipeline has made none of these tables; what the books say of them is not true any more.
    loaded.con.execute("DROP TABLE data.tracks")
    loaded.pipeline = dlt.pipeline("other", destination=loaded.pipeline.destination, dataset_name="data")
    caplog.clear()
    loaded.run(source())
    [said] = [record.getMessage() for record in caplog.records if "tracks" in record.getMessage()]
    assert said.startswith('The table "data"."tracks" was missing and was created again, empty; DELETE FROM "data"."_a')


# A part ------------------------------------------------------------------------------------------------------------


def test_selected_resources(source: Callable[..., DltSource], whole: Rows) -> None:
    """What is not selected is loaded when it is selected later, from files that are known too."""
    place = Place()
    place.run(source().with_resources("email_opened", "_audit"))
    assert {name: len(rows) for name, rows in place.tables().items()} == {
        "_audit": len(whole["_audit"]), "email_opened": len(whole["email_opened"]),
    }  # fmt: skip
    assert {row["tables"] for row in place.rows("_audit")} == {'{"email_opened": "all"}'}
    loads = place.con.execute("SELECT max(uuid_ts) FROM data.email_opened").fetchall()
    mine = source()
    mine.tracks.selected = mine.identifies.selected = mine.users.selected = mine.resources["_discards"].selected = False
    place.run(mine)
    assert place.names() == sorted({*place.names()} - {"tracks", "users", "_discards"})
    place.run(source())
    assert place.tables() == whole
    assert place.balances()
    assert loads == place.con.execute("SELECT max(uuid_ts) FROM data.email_opened").fetchall()
    place.run(source().email_opened)  # a resource alone, without books
    place.run([source().email_opened, source().tracks])
    assert place.tables() == whole


def test_some_events(source: Callable[..., DltSource], whole: Rows) -> None:
    place = Place()
    place.run(source(events=["Email Opened"]))
    assert {name: len(rows) for name, rows in place.tables().items() if name != "_rejects"} == {
        "_audit": len(whole["_audit"]),
        "_discards": 1,
        "email_opened": len(whole["email_opened"]),
        "tracks": len(whole["email_opened"]),
    }
    lines = sum(row["lines"] for row in place.rows("_audit"))
    assert (place.count("_rejects"), place.balances()) == (1, True)
    assert sum(row["stored"] for row in place.rows("_audit")) == len(whole["email_opened"])
    place.run(source(exclude="shoe_bought, Email Clicked"))
    assert (place.count("shoe_bought"), place.count("email_clicked")) == (0, 0)
    assert place.tables()["users"] == whole["users"]
    assert place.balances()
    place.run(source())
    assert place.tables() == whole
    assert place.balances()
    assert sum(row["lines"] for row in place.rows("_audit")) == lines
    with pytest.raises(Exception, match="Expected events or exclude, but got both"):
        source(events=["a"], exclude=["b"])
    with pytest.raises(Exception, match=r"Expected the name of an event, .* but got '…'"):
        source(events=["…"])


def test_books_of_some_tables_and_some_events(folder: Path) -> None:
    """What no selected table takes is no more stored than what was not requested, and nothing counts twice."""
    opened, place = track("o1", "Email Opened", 1), Place()
    others = identify("i1", "u1", 4), {"type": "page", "messageId": "p1", "userId": "u1"}
    url = more(folder, opened, opened, track("c1", "Email Clicked", 2), track("s1", "Shoe Bought", 3), *others, {})
    names = ("lines", "stored", "duplicates", "rejected", "skipped", "tables")

    def books(**words: Any) -> tuple[Any, ...]:
        place.run(archive(url, **words).with_resources(*tables))
        [row] = place.rows("_audit")
        return tuple(row.get(name) for name in names)

    tables: tuple[str, ...] = ("email_opened", "_audit")
    assert books() == (7, 1, 1, 1, 4, '{"email_opened": "all"}')
    tables = ("identifies", "_discards", "_audit")
    two = '{"_discards": {"only": ["email_opened", "identifies"]}, "email_opened": "all", "identifies": "all"'
    assert books(exclude="Email Clicked") == (7, 2, 1, 1, 3, f"{two}}}")
    # The stored row of email_opened lacks the one in tracks, so it is made again, but counts no second time.
    tables = ("email_opened", "tracks", "_audit")
    three = f'{two}, "tracks": {{"only": ["email_clicked", "email_opened"]}}}}'
    assert books(events="Email Clicked") == (7, 3, 1, 1, 2, three)
    tables = tuple(archive(url).resources)
    assert books() == (7, 5, 1, 1, 0, None)
    stored = ("tracks", "email_opened", "email_clicked", "shoe_bought", "identifies", "pages")
    assert [place.count(name) for name in stored] == [3, 1, 1, 1, 1, 1]


def test_books_of_some_adopted_tables(tmp_path: Path) -> None:
    place, folder = Place(), tmp_path / "tables"
    folder.mkdir()
    for table, ids in {"email_opened": "ab", "identifies": "c"}.items():
        (folder / f"{table}.csv").write_text("\n".join(["id,user_id", *(f"{id_},u1" for id_ in ids)]))

    def books(*tables: str) -> list[tuple[Any, ...]]:
        place.run(adopt(str(folder)).with_resources(*tables, "_audit"))
        return [
            tuple(row[name] for name in ("lines", "stored", "duplicates", "skipped")) for row in place.rows("_audit")
        ]

    assert books("identifies", "users") == [(2, 0, 0, 2), (1, 1, 0, 0)]
    assert books("tracks", "email_opened") == [(2, 2, 0, 0), (1, 1, 0, 0)]
    assert [place.count(name) for name in ("tracks", "email_opened", "identifies")] == [2, 2, 1]


@pytest.mark.parametrize(
    ("name", "columns", "loaded"),
    [("tracks", "1 AS n", False), ("shoe_bought", "* FROM data.mine", True), ("tracks", "* FROM data.mine", True)],
)
def test_a_view_with_the_name_of_a_table_is_refused(folder: Path, name: str, columns: str, loaded: bool) -> None:
    """Also where a load has made the table, and somebody put a view in its place."""
    source, place = archive(more(folder, track("s1", "Shoe Bought", 1), identify("i1", "u1", 2))), Place()
    if loaded:
        place.run(source)
        place.con.execute(f"ALTER TABLE data.{name} RENAME TO mine")
        source = archive(more(folder, track("s2", "Shoe Bought", 3)))
    place.con.execute(f"CREATE SCHEMA IF NOT EXISTS data; CREATE VIEW data.{name} AS SELECT {columns}")
    before = place.names()
    with pytest.raises(PipelineStepFailed) as raised:
        place.run(source)
    assert str(raised.value).endswith(
        f"Expected {name} in the dataset data to be a table, because rows are loaded into it, but it is a view.\n"
        "Rename it (ALTER VIEW ... RENAME TO ...) or drop it: the load makes the table. Or load into another dataset"
        " (--dataset, dataset_name)."
    )
    assert (place.names(), place.pipeline.has_pending_data) == (before, False)
    assert before == [name] or (loaded and place.count("mine") == 1)


def test_a_foreign_table_with_the_name_of_one_of_these_is_refused(folder: Path) -> None:
    """Unlike an event's, these have no other name. Rows go into one only if they can be told apart there."""
    place, source = Place(), archive(more(folder, identify("i1", "u1", 1)))
    place.con.execute("CREATE SCHEMA data")
    for name, columns, missing, got in (
        ("tracks", "1 AS n", "id", "there is no such column"),
        ("users", "1 AS id", "id", "it has the type bigint"),
        ("_audit", "'f' AS file, 1 AS version", "version", "it has the type bigint"),
        ("_suppressions", "'s' AS salt", "id", "there is no such column"),
    ):
        place.con.execute(f"CREATE TABLE data.{name} AS SELECT {columns}")
        with pytest.raises(PipelineStepFailed) as raised:
            place.run(source)
        assert str(raised.value).endswith(
            f"Expected {name} in the dataset data to have text in its column {missing}, because its rows are known by"
            f" that, but {got}.\nIf it is somebody else's table, rename it (ALTER TABLE ... RENAME TO"
            " ...), or load into another dataset (--dataset, dataset_name). If the column was changed, change it back,"
            " or drop the table: the load makes it."
        )
        assert (place.names(), place.pipeline.has_pending_data) == ([name], False)
        place.con.execute(f"DROP TABLE data.{name}")
    place.run(source)
    assert (place.count("users"), place.count("_audit")) == (1, 1)


def test_an_event_with_the_name_of_a_view_or_of_anothers_table_has_another_table(folder: Path) -> None:
    """Anybody can send one, and it stops no load. View and table stay, also when the event comes again.

    The event keeps the other table when they are gone.
    """
    place = Place()
    place.con.execute("CREATE SCHEMA data; CREATE VIEW data.shoe_bought AS SELECT 'v' AS id, now() AS received_at")
    place.con.execute("CREATE TABLE data.Shoe_Bought_Table AS SELECT 2 AS n, 'a' AS id")
    place.con.execute("CREATE TABLE data.init AS SELECT 's0' AS id, now() AS received_at")  # of another pipeline
    place.con.execute("CREATE TABLE data.bill (id text, received_at timestamp, total int NOT NULL)")
    for number in (1, 2, 3):
        lines = [track(f"{event[0]}{number}", event, number) for event in ("Shoe Bought", "Bill")]
        place.run(archive(more(folder, *lines, track("i", "Init", 1))))
        if number == 2:
            assert [row["id"] for row in place.rows("shoe_bought")] == ["v"]
            assert place.rows("shoe_bought_table") == [{"n": 2, "id": "a"}]
            place.con.execute("DROP VIEW data.shoe_bought; DROP TABLE data.shoe_bought_table; DROP TABLE data.bill")
    assert [row["id"] for row in place.rows("shoe_bought_table_table")] == ["S1", "S2", "S3"]
    assert [row["id"] for row in place.rows("bill_table")] == ["B1", "B2", "B3"]
    assert [row["id"] for row in place.rows("init")] == ["s0", "i"]
    assert [(row["event"], row["event_text"]) for row in place.rows("tracks") if row["id"][0] == "S"] == [
        ("shoe_bought_table_table", "Shoe Bought")
    ] * 3
    assert {"shoe_bought", "bill"}.isdisjoint(place.names())


# Hints -------------------------------------------------------------------------------------------------------------


class _Model(BaseModel):
    id: str


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "append": ({"write_disposition": "append"}, "Leave write_disposition out: what is stored stays"),
    "skip": ({"write_disposition": "skip"}, "Expected the write disposition merge or replace for tracks, but got skip"),
    "scd2": ({"write_disposition": {"disposition": "merge", "strategy": "scd2"}}, "Leave the strategy out"),
    "table": ({"table_name": "mine"}, "Expected the table name tracks for the resource tracks, but got 'mine'"),
    "key": ({"primary_key": "user_id"}, "Expected the primary key id for tracks, but got 'user_id'"),
    "merge key of a column": (
        {"columns": {"user_id": {"merge_key": True}}},
        "Expected the primary key id for tracks, but got merge_key for its column user_id: messages are unique by it",
    ),
    "key of a column": (
        {"columns": {"id": {"primary_key": True}, "user_id": {"primary_key": True}}},
        "Expected the primary key id for tracks, but got primary_key for its column user_id: messages are unique by it",
    ),
    "type": ({"columns": {"user_id": {"data_type": "bigint"}}}, "Expected the data type text for the column tracks.us"),
    "null": (
        {"columns": {"anonymous_id": {"nullable": False}}},
        "Expected a value in each row of tracks.anonymous_id, because its hints say nullable=False, but 5 of 16 rows",
    ),
    "absent": (
        {"columns": {"note": {"data_type": "text", "nullable": False}}},
        "Expected a value in each row of tracks.note, because its hints say nullable=False, but 16 of 16 rows",
    ),
    "model": ({"columns": _Model}, "Expected columns of tracks as a dict of hints"),
    "format": ({"file_format": "jsonl"}, "Expected the file format parquet for tracks, but got jsonl"),
}


@pytest.mark.parametrize("hint", REFUSED)
def test_a_hint_is_refused_before_a_write(source: Callable[..., DltSource], hint: str) -> None:
    words, said = REFUSED[hint]
    mine, place = source(), Place()
    mine.tracks.apply_hints(**words)
    with pytest.raises(PipelineStepFailed) as raised:
        place.run(mine)
    assert said in str(raised.value)
    assert (place.names(), place.pipeline.has_pending_data) == ([], False)


@pytest.mark.parametrize(
    "hint",
    ["table_name", "write_disposition", "primary_key", "merge_key", "columns", "table_format", "schema_contract"],
)
def test_a_function_as_a_hint_is_refused(source: Callable[..., DltSource], hint: str) -> None:
    """`other_events` takes such hints, because its tables come with its rows: they would lead rows past the books."""
    mine = source()
    words: Any = {hint: lambda _: "replace"}
    mine.other_events.apply_hints(**words)
    with pytest.raises(ResourceExtractionError) as raised:
        list(mine)
    assert f"Expected the hint {hint} of other_events to be a value, but got a function of rows" in str(raised.value)


def test_other_names_are_refused(source: Callable[..., DltSource]) -> None:
    mine = source()
    mine.resources.add(mine.tracks.with_name("events"))
    with pytest.raises(PipelineStepFailed, match="Expected the resource tracks by its own name"):
        Place().run(mine)


def test_a_limit_of_a_source_that_keeps_marks() -> None:
    """The API is not asked, and nothing is written."""
    mine, place = api(api_key="key", base_url="http://127.0.0.1:9"), Place()
    mine.contacts.add_limit(1)
    with pytest.raises(PipelineStepFailed, match="Expected all rows of contacts to be taken, but it has a limit"):
        place.run(mine)
    assert place.names() == []


def test_users_need_identifies(source: Callable[..., DltSource]) -> None:
    with pytest.raises(PipelineStepFailed, match="Expected identifies among the selected resources"):
        Place().run(source().with_resources("users", "_audit"))


def test_an_import_schema(folder: Path) -> None:
    """What people write into it takes precedence over the catalogue; an impossible type is refused."""
    place = Place(import_schema_path="mine", export_schema_path="theirs")
    place.run(archive(more(folder, track("m1", "Email Opened", 1))))
    text = Path("theirs/autopilothq.schema.yaml").read_text()
    mine = Path("mine/autopilothq.schema.yaml")
    mine.write_text(text.replace("Every event, with", "OURS, with").replace("The contact's email address.", "Mail."))
    place.run(archive(more(folder, track("m2", "Email Opened", 2))))
    table = place.pipeline.default_schema.tables["tracks"]
    assert str(table["description"]).startswith("OURS, with")
    assert table["columns"]["context_traits_email"]["description"] == "Mail."
    assert place.count("tracks") == 2

    known = json.dumps(place.pipeline.default_schema.to_dict())
    for hint, value, said in (
        ("data_type", "bigint", r"Expected the data type text for tracks\.user_id in the import schema, but got big"),
        ("merge_key", True, "Expected the primary key id for tracks in the import schema, but got merge_key for its c"),
    ):
        schema = json.loads(known)
        schema["tables"]["tracks"]["columns"]["user_id"][hint] = value
        mine.write_text(json.dumps(schema))  # JSON is YAML
        with pytest.raises(PipelineStepFailed, match=said):
            place.run(archive(more(folder, track("m3", "Email Opened", 3))))
        assert place.count("tracks") == 2


def test_a_source_is_not_pickled(source: Callable[..., DltSource]) -> None:
    """Python refuses that, as with every dlt source that has functions: it has to be created where it runs."""
    with pytest.raises(AttributeError, match="Can't pickle local object"):
        pickle.dumps(source())
