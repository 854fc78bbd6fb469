"""Before dlt completes a load, its rows must be where it staged or merged them."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import dlt
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dlt import Schema

import stock
from autopilothq.sources import completion
from autopilothq.sources.completion import tables_without_rows
from autopilothq.sources.earlier_load import BOOK_TIMES, Brought
from autopilothq.sources.own_rows import rows_by_time
from autopilothq.warehouses.dataset import Dataset, connected, open_dataset
from autopilothq.warehouses.dlt_internals import logger
from autopilothq.warehouses.native import SEGMENT_TABLE_HINT

AT = datetime(2019, 3, 20, 10, tzinfo=UTC)
A, B, LATER = ("m1", AT), ("m2", AT), AT + timedelta(seconds=1)
TWO = {AT: 2}
Staged = Sequence[tuple[str, Any]]


class Destination:
    """A DuckDB database with a dataset and its staging dataset."""

    def __init__(self, folder: Path) -> None:
        self.con = duckdb.connect()
        for name in ("data", "data_staging"):
            self.con.execute(f"CREATE SCHEMA {name}")
        # dlt uses cursors of this connection.
        pipeline = dlt.pipeline("p", destination=stock.duckdb(self.con), dataset_name="data", pipelines_dir=str(folder))
        self.dataset = open_dataset(pipeline, Schema("autopilothq"))

    def parts(self) -> Sequence[Dataset]:
        return self.dataset.parts()

    def fill(self, name: str, rows: Staged, column: str = "uuid_ts", type_: str = "TIMESTAMPTZ") -> None:
        self.con.execute(f"CREATE OR REPLACE TABLE {name} (id VARCHAR, {column} {type_})")
        if rows:
            self.con.executemany(f"INSERT INTO {name} VALUES (?, ?)", rows)

    def lacks(
        self, staged: Staged, stored: Staged, counts: dict[datetime, int], table: str = "tracks", in_parts: bool = True
    ) -> list[str]:
        """Fills the staging table and the table; returns which tables lack rows of the load."""
        column = BOOK_TIMES.get(table, "uuid_ts")
        self.fill(f"data_staging.{table}", staged, column)
        self.fill(f"data.{table}", stored, column)
        return tables_without_rows(self.parts(), {table: counts}, {table} if in_parts else ())


@pytest.fixture(scope="module")
def destination(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Destination]:
    made = Destination(tmp_path_factory.mktemp("destination"))
    with connected(made.dataset):
        yield made


@pytest.mark.parametrize(
    ("counts", "staged", "stored", "are_there"),
    [
        (TWO, [A, B], [], True),  # the final table need not be read
        (TWO, [], [], False),  # another load emptied the staging table
        (TWO, [], [A, B], True),  # they are merged already
        (TWO, [A], [A, ("m3", LATER)], False),
        (TWO, [A, B, ("m2", LATER)], [A, ("m2", LATER)], False),  # another load's row took the place of m2
        (TWO, [A, A], [A], False),  # one file twice, and the other one missing
        (TWO, [A, A, B], [A, B], True),
        (TWO | {LATER: 1}, [A, B, ("m3", LATER)], [], True),  # rows of two sources
        (TWO | {LATER: 1}, [A, B], [("m3", LATER)], False),
    ],
)
def test_a_table_has_rows_if_these_and_no_others_are_staged_or_else_if_they_are_counted(
    destination: Destination, counts: dict[datetime, int], staged: Any, stored: Any, are_there: bool
) -> None:
    assert destination.lacks(staged, stored, counts) == ([] if are_there else ["tracks"])


def test_staged_rows_are_known_by_their_time_in_whatever_zone_the_driver_reads_it(destination: Destination) -> None:
    """Also if the time lost digits, and in SQLite, which stores text."""
    same = [
        AT + timedelta(hours=5, minutes=45),
        AT - timedelta(hours=8, microseconds=900),
        AT + timedelta(milliseconds=1),
    ]
    others = [AT + timedelta(hours=1, milliseconds=2), AT - timedelta(milliseconds=2), None]
    for time in same + others:
        assert destination.lacks([("m1", time)], [], {AT: 1}) == ([] if time in same else ["tracks"])
    for text, lacking in ((str(AT), []), ("no time", ["tracks"])):
        destination.fill("data_staging.tracks", [("m1", text)], type_="VARCHAR")
        assert tables_without_rows(destination.parts(), {"tracks": {AT: 1}}, ()) == lacking


def test_rows_of_destinations_without_staging_tables_are_counted(destination: Destination) -> None:
    for stored, lacking in (([A], ["tracks"]), ([A, B], [])):
        destination.fill("data.tracks", stored)
        assert tables_without_rows(destination.parts()[:1], {"tracks": TWO}, ()) == lacking


def test_rows_are_counted_if_another_load_dropped_the_table_in_which_they_were_staged(
    destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other tables of the same statement are still looked up."""
    tables = ["groups", "tracks", "pages"]
    for each in (1, 2, 50):
        monkeypatch.setattr(completion, "_TABLES_PER_QUERY", each)
        for name in tables:
            destination.fill(f"data_staging.{name}", [A])
            destination.fill(f"data.{name}", [])
        destination.con.execute("DROP TABLE data_staging.tracks")
        counts = {name: {AT: 1} for name in tables}
        assert tables_without_rows(destination.parts(), counts, tables) == ["tracks"]
        destination.fill("data.tracks", [A])
        assert tables_without_rows(destination.parts(), counts, tables) == []
        destination.con.execute("DROP TABLE data.tracks")
        assert tables_without_rows(destination.parts(), counts, tables) == ["tracks"]


def test_rows_whose_times_are_not_compared_count_as_missing_once_a_load_was_cut_off(destination: Destination) -> None:
    """DuckDB cannot compare a column whose type a hint changed; without this, every later run would fail."""
    for type_, are_there in (("TIMESTAMPTZ", True), ("TIMESTAMP", True), ("TIMESTAMP_S", False)):
        destination.fill("data.tracks", [A], type_=type_)
        assert Brought(AT.isoformat(), {"tracks": 1}).is_in(destination.dataset) is are_there


def test_ids_of_rejects_may_repeat(destination: Destination) -> None:
    """A file may have the same reject several times, of which the destination keeps one row."""
    assert destination.lacks([A, A], [], TWO, "_rejects") == destination.lacks([], [A, B], TWO, "_rejects") == []
    assert destination.lacks([A, A], [], TWO, "_audit") == []  # `id` is not its key
    assert destination.lacks([A, A], [], TWO) == ["tracks"]


def test_ids_are_counted_only_of_tables_whose_rows_came_in_several_files(destination: Destination) -> None:
    """To count ids takes ten times as long, and with one file none can be doubled while another is missing."""
    assert destination.lacks([A, A], [], TWO, in_parts=False) == []
    assert destination.lacks([A, A, B, B], [], TWO, in_parts=False) == ["tracks"]


@pytest.mark.parametrize(
    ("times", "known"),
    [
        ([AT, AT, LATER], {AT: 2, LATER: 1}),
        (pa.array([str(AT)]), None),
        (pa.array([1 << 62], pa.timestamp("us", "UTC")), None),  # beyond Python's calendar
        ([AT, None], None),
        ([AT + timedelta(seconds=second) for second in range(21)], None),
        ([AT + timedelta(seconds=second) for second in range(20)], {AT + timedelta(seconds=n): 1 for n in range(20)}),
    ],
)
def test_rows_of_a_file_are_known_by_a_few_times(times: Any, known: dict[datetime, int] | None, tmp_path: Path) -> None:
    path = tmp_path / "tracks.parquet"
    column = pa.array(times, pa.timestamp("us", "UTC")) if isinstance(times, list) else times
    pq.write_table(pa.table({"uuid_ts": column}), path)
    assert rows_by_time("tracks", [path]) == known
    assert rows_by_time("_rejects", [path]) is None  # the file has no `uuid_ts`


@pytest.mark.parametrize(("are_exact", "lacking"), [(True, ["tracks"]), (False, [])])
def test_where_times_are_exact_only_rows_with_the_very_same_ones_count_as_merged(
    destination: Destination, are_exact: bool, lacking: list[str]
) -> None:
    at = AT + timedelta(microseconds=1)
    destination.fill("data_staging.tracks", [("m1", at)], type_="TIMESTAMP_MS")
    destination.fill("data.tracks", [])
    assert tables_without_rows(destination.parts(), {"tracks": {at: 1}}, (), are_exact) == lacking


@pytest.mark.parametrize(
    ("more", "are_there"),
    [
        ({}, False),
        ({"columns": {"uuid_ts": {"precision": 3}}}, False),
        ({"columns": {"uuid_ts": {"precision": 2}}}, True),  # stored times are rounded
        ({SEGMENT_TABLE_HINT: False}, True),  # a user's own table
    ],
)
def test_of_files_that_are_not_parquet_the_loads_note_says_what_they_have(
    destination: Destination, more: dict[str, Any], are_there: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    client = Client({"tracks": more})
    noted = [Brought(AT.isoformat(), {"tracks": 2}), Brought(LATER.isoformat(), {"pages": 1})]
    monkeypatch.setattr(completion, "dataset_of", {client: destination.dataset}.__getitem__)
    monkeypatch.setattr(completion, "rows_noted", lambda *of: {(tmp_path, "1"): noted}[of])
    files = {"tracks": [tmp_path / "tracks.insert_values"]}
    for staged, found in (([A, B], True), ([A], are_there)):
        destination.fill("data_staging.tracks", staged)
        destination.fill("data.tracks", [A])
        assert completion._has_staged_rows(client, tmp_path, "1", files) is found  # type: ignore[arg-type]


class Client(nullcontext[None]):
    """A client of DuckDB whose schema has tables of this package, with further hints."""

    capabilities = stock.duckdb().capabilities()

    def __init__(self, tables: dict[str, dict[str, Any]]) -> None:
        super().__init__()
        self.schema = Schema("autopilothq")
        self.schema.tables.update({name: cast(Any, {SEGMENT_TABLE_HINT: True, **of}) for name, of in tables.items()})


def test_parquet_files_tell_of_each_table_what_it_has(
    destination: Destination, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rounded = {"columns": {"discarded_at": {"precision": 0}}}
    client, said = Client({"tracks": {}, "_rejects": {}, "pages": {}, "_discards": rounded}), list[str]()
    monkeypatch.setattr(completion, "dataset_of", {client: destination.dataset}.__getitem__)
    monkeypatch.setattr(logger, "warning", said.append)

    def is_whole(table: str, *files: Sequence[Any], more: Collection[str] = ()) -> bool:
        paths = {name: [tmp_path / f"{name}-{n}.parquet" for n in range(len(files))] for name in (table, *more)}
        for name, of_table in paths.items():
            for path, times in zip(of_table, files, strict=True):
                pq.write_table(pa.table({BOOK_TIMES.get(name, "uuid_ts"): times}), path)
        return completion._has_staged_rows(client, tmp_path, "1", paths)  # type: ignore[arg-type]

    zoned = pa.timestamp("us", "UTC")
    destination.lacks([A, A], [], TWO)
    assert is_whole("tracks", pa.array([AT, AT], zoned))
    assert not is_whole("tracks", pa.array([AT], zoned), pa.array([AT], zoned))  # one of two files was staged twice
    assert not is_whole("tracks", pa.array([AT + timedelta(microseconds=1)] * 2, zoned))
    for table, time in (("_rejects", AT), ("_discards", AT), ("pages", str(AT))):
        destination.lacks([], [], TWO, table)
        assert is_whole(table, [time]) is (table != "_rejects")  # only its times are known and not rounded
    said.clear()
    assert not is_whole("_rejects", pa.array([AT], zoned), more=["tracks"])
    [text] = said
    assert text == (
        "Rows that this load had staged for _rejects, tracks are missing: another load was at work at the same time,"
        " and took them away. This one does not count as complete, and the next run reads again what it read."
    )
