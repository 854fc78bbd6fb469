"""Limits the cost of a small load: how often it opens the database and makes dlt repeat work."""

import gc
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any, cast
from unittest import mock

import dlt
import duckdb
import psycopg2
import pytest
import yaml
from adbc_driver_manager import AdbcDatabase
from dlt.common import typing as dlt_typing
from dlt.common.configuration import resolve
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs import BaseConfiguration
from dlt.common.destination import DestinationCapabilitiesContext, client, reference
from dlt.common.schema import utils as schema_utils
from dlt.common.storages import LiveSchemaStorage, SchemaStorage, SchemaStorageConfiguration
from dlt.common.storages.load_package import ParsedLoadJobFileName
from dlt.destinations import utils as destination_utils
from dlt.extract import extract

from autopilothq import archive, runner
from autopilothq.catalog import TABLES
from autopilothq.projection import projection
from autopilothq.sources import project
from autopilothq.warehouses.dataset import connected, open_dataset, unknown_types
from autopilothq.warehouses.dlt_internals import caching, get_destination_client_initial_config, new_table
from autopilothq.warehouses.duckdb import direct
from autopilothq.warehouses.postgres_adbc import SharedConnection
from autopilothq.warehouses.postgres_client import PostgresSqlClient
from contract.loading import message, rows_of
from fake_ortto import FakeOrtto
from servers import ask
from shared_loads import command, isolation

LINE = {"userId": "u1", "receivedAt": "2019-03-20T10:00:00Z", "type": "track", "event": "Shoe Bought"}
READER = "import sys, duckdb; duckdb.connect(sys.argv[1], read_only=True).sql('SELECT 1').fetchall()"
FIRST, NOTHING_NEW, MORE = range(3)

Counts = Counter[str]


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Counts]]:
    """The counts of three runs: three lines into a new database, nothing new, and ten more lines."""
    costs: list[Counts] = []
    with isolation(tmp_path_factory.mktemp("cost")), pytest.MonkeyPatch.context() as patch:
        counts = Counts()
        # Only the main thread's connections are counted, because parallel jobs may share one.
        _count(patch, counts, duckdb, "connect", lambda *_, **__: current_thread() is main_thread())
        _count(patch, counts, reference, "resolve_configuration", lambda config, **_: not config.is_resolved())
        _count(patch, counts, resolve, "_resolve_config_fields")
        _count(patch, counts, dlt_typing, "get_origin")
        _count(patch, counts, schema_utils, "generate_version_hash")
        _count(patch, counts, SchemaStorage, "load_schema")
        _reading(patch, counts)
        Path("archive").mkdir()
        for lines in (3, 0, 10):
            if lines:
                texts = [json.dumps(LINE | {"messageId": f"{lines} {number}"}) for number in range(lines)]
                Path("archive", f"{lines}.json").write_text("\n".join(texts))
            said = command("load", "archive", "archive")
            assert said.status == 0, said
            counts["left"] = len(list(Path(os.environ["DLT_DATA_DIR"]).glob("pipelines/*/autopilothq/*")))
            costs.append(Counts(counts))
            counts.clear()
        yield costs


def _count(
    patch: pytest.MonkeyPatch,
    counts: Counts,
    where: Any,
    name: str,
    counts_if: Callable[..., bool] = lambda *_, **__: True,
) -> None:
    function = getattr(where, name)

    def counted(*args: Any, **more: Any) -> Any:
        counts[name] += counts_if(*args, **more)
        return function(*args, **more)

    patch.setattr(where, name, counted)


def _reading(patch: pytest.MonkeyPatch, counts: Counts) -> None:
    """Lets another program open the database while lines are read, and counts how often."""
    read = project.InProcess._read

    def reading(*load: Any) -> Any:
        subprocess.run([sys.executable, "-c", READER, "autopilot.duckdb"], check=True)
        counts["readers"] += 1
        return read(*load)

    patch.setattr(project.InProcess, "_read", reading)


@pytest.mark.parametrize(("run", "most"), [(FIRST, 8), (NOTHING_NEW, 5), (MORE, 7)])
def test_the_database_is_opened_a_few_times(costs: list[Counts], run: int, most: int) -> None:
    assert costs[run]["connect"] <= most, costs


def test_an_origin_that_asks_what_is_stored_opens_the_database_once_for_all_its_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = Counts()
    with FakeOrtto(people=2) as server, isolation(tmp_path):
        for name, value in {"api_key": server.key, "base_url": server.base_url}.items():
            monkeypatch.setenv(f"SOURCES__AUTOPILOTHQ__ORTTO__{name.upper()}", value)
        _count(monkeypatch, counts, duckdb, "connect", lambda *_, **more: bool(more.get("database")))
        said = command("load", "ortto", "--only", "events", "--people", "all")
    assert said.status == 0, said
    assert counts["connect"] == 4, counts  # for the run, the plan, the choice of people, and the projection


def test_what_is_asked_of_a_warehouse_together_takes_one_connection(postgres: str) -> None:
    dataset = open_dataset(runner.pipeline("postgres", postgres))
    with mock.patch("psycopg2.connect", wraps=psycopg2.connect) as connect:
        with connected(dataset):
            assert (dataset.exists(), dataset.tables(["tracks"]), dataset.complete_loads()) == (False, {}, set())
        assert connect.call_count == 1
        dataset.exists()
        dataset.exists()
    assert connect.call_count == 3


def test_a_dataset_is_asked_once_whether_it_exists_while_connected(postgres: str) -> None:
    ask(postgres, "CREATE SCHEMA autopilothq")
    dataset = open_dataset(runner.pipeline("postgres", postgres))
    run = PostgresSqlClient.execute_query
    with mock.patch.object(PostgresSqlClient, "execute_query", autospec=True, side_effect=run) as execute:
        with connected(dataset):
            assert (dataset.lacks("_suppressions"), dataset.complete_loads(), dataset.tables(["_audit"])) == (
                True,
                set(),
                {},
            )
        assert execute.call_count == 4
        ask(postgres, "DROP SCHEMA autopilothq")
        assert dataset.lacks("_suppressions")
        assert execute.call_count == 5


def test_a_dataset_is_asked_once_for_types_that_dlt_does_not_know_until_it_makes_a_table(postgres: str) -> None:
    ask(postgres, "CREATE SCHEMA autopilothq; CREATE TABLE autopilothq.tracks (id uuid)")
    dataset = open_dataset(runner.pipeline("postgres", postgres))
    assert unknown_types(dataset) == {("tracks", "id"): ("uuid", False)}
    ask(postgres, "ALTER TABLE autopilothq.tracks ALTER id TYPE text")
    assert unknown_types(dataset)
    dataset.create(TABLES["_suppressions"])
    assert not unknown_types(dataset)


def test_tables_that_are_copied_at_one_time_read_the_types_of_the_server_once(postgres: str) -> None:
    def connect(_: object) -> None:
        SharedConnection(postgres).close()

    with (
        mock.patch("autopilothq.warehouses.postgres_adbc.AdbcDatabase", wraps=AdbcDatabase) as database,
        ThreadPoolExecutor(4) as threads,
    ):
        list(threads.map(connect, range(4)))
    assert database.call_count == 1


def test_another_program_can_read_the_database_while_lines_are_read(costs: list[Counts]) -> None:
    assert [run["readers"] for run in costs] == [1, 0, 1]  # if nothing is new, no lines are read


@pytest.mark.parametrize("run", [FIRST, NOTHING_NEW, MORE])
def test_the_destination_is_configured_a_few_times(costs: list[Counts], run: int) -> None:
    assert costs[run]["resolve_configuration"] <= 6, costs


@pytest.mark.parametrize(("run", "most"), [(FIRST, 240), (NOTHING_NEW, 110), (MORE, 150)])
def test_settings_are_looked_up_a_few_times(costs: list[Counts], run: int, most: int) -> None:
    assert costs[run]["_resolve_config_fields"] <= most, costs


@pytest.mark.parametrize(("run", "most"), [(FIRST, 4), (NOTHING_NEW, 2), (MORE, 4)])
def test_a_schema_is_read_from_the_working_folder_where_it_changed(costs: list[Counts], run: int, most: int) -> None:
    assert costs[run]["load_schema"] <= most, costs


def test_a_complete_load_leaves_nothing_that_the_next_one_takes_for_that_of_a_killed_one(costs: list[Counts]) -> None:
    assert [run["left"] for run in costs] == [0, 0, 0]


@pytest.mark.parametrize(("run", "most"), [(FIRST, 75), (NOTHING_NEW, 50), (MORE, 75)])
def test_the_hash_of_a_schema_is_made_once_where_dlt_asks_for_it(costs: list[Counts], run: int, most: int) -> None:
    assert costs[run]["generate_version_hash"] <= most, costs


@pytest.mark.parametrize("run", [NOTHING_NEW, MORE])
def test_what_a_type_hint_means_is_found_out_once(costs: list[Counts], run: int) -> None:
    assert costs[run]["get_origin"] <= 10_000, costs


def test_a_configuration_is_a_new_object_with_the_same_credentials_and_the_dataset_that_is_asked_for() -> None:
    destination = direct(credentials="a.duckdb")
    first, again, other = (
        destination.configuration(get_destination_client_initial_config(destination, dataset))
        for dataset in ("a", "a", "b")
    )
    assert first is not again
    assert first.credentials is again.credentials
    assert [config.dataset_name for config in (first, again, other)] == ["a", "a", "b"]


def test_a_schema_that_another_program_wrote_is_read() -> None:
    caching.reread_only_changed_schemas()
    config = SchemaStorageConfiguration("schemas")
    ours, theirs = LiveSchemaStorage(config, makedirs=True), SchemaStorage(config)
    ours.save_schema(dlt.Schema("events"))
    assert ours["events"] is ours["events"]
    changed = theirs.load_schema("events")
    changed.update_table(new_table("tracks", columns=[{"name": "id", "data_type": "text"}]))
    theirs.save_schema(changed)
    assert "tracks" in ours["events"].tables


def test_a_source_spares_dlt_its_repeated_work_in_a_pipeline_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = Counts()
    _count(monkeypatch, counts, SchemaStorage, "load_schema")
    dlts_own = lambda storage, name: storage.live_schemas.setdefault(name, storage.load_schema(name))  # noqa: E731
    monkeypatch.setattr(LiveSchemaStorage, "__getitem__", dlts_own)
    caching.reread_only_changed_schemas.cache_clear()
    caching.cache_repeated_work.cache_clear()
    archive("archive")
    schemas = LiveSchemaStorage(SchemaStorageConfiguration("schemas"), makedirs=True)
    schemas.save_schema(dlt.Schema("events"))
    assert schemas["events"] is schemas["events"]
    assert counts["load_schema"] == 1


def test_the_hash_of_a_schema_is_that_of_what_is_in_it_now() -> None:
    caching.hash_schemas_once()
    stored = dlt.Schema.from_dict({**dlt.Schema("events").to_dict()})
    before = stored.stored_version_hash
    assert (stored.is_modified, stored.version_hash) == (False, before)
    stored.update_table(new_table("tracks", columns=[{"name": "id", "data_type": "text"}]))
    described = stored.to_dict(bump_version=False)
    assert (stored.is_modified, stored.version_hash) == (True, schema_utils.generate_version_hash(described))
    assert stored.previous_hashes == [before]


def test_a_trace_has_the_same_text_as_dlts_own() -> None:
    caching.write_traces_quickly()
    columns = {
        column.name: {
            "name": column.name,
            "data_type": column.type,
            "description": column.description,
            "nullable": True,
        }
        for table in TABLES.values()
        for column in table.columns
    }
    options: Any = {"allow_unicode": True, "default_flow_style": False, "sort_keys": False}
    assert cast(Any, extract).yaml.dump(columns, **options) == yaml.dump(columns, **options)


def test_a_source_that_is_made_again_and_again_leaves_nothing() -> None:
    def kept() -> int:
        archive("archive")
        gc.collect()
        return len(BaseConfiguration.__subclasses__())

    assert kept() == kept()


def test_the_name_of_a_jobs_file_is_parsed_once() -> None:
    caching.cache_repeated_work()
    name = "tracks.0a1b2c3d4e.2.parquet"
    parse = ParsedLoadJobFileName.parse
    assert parse(name) is parse(name)
    assert parse(name) == ("tracks", "0a1b2c3d4e", 2, "parquet", False)
    with pytest.raises(ValueError, match="tracks"):
        parse("tracks.parquet")


def test_capabilities_are_those_that_are_passed_or_else_those_of_the_run() -> None:
    caching.cache_repeated_work()
    table = new_table("t", write_disposition="merge", columns=[{"name": "id", "data_type": "text"}])
    passed, of_run = (DestinationCapabilitiesContext.generic_capabilities() for _ in range(2))
    passed.supported_merge_strategies, of_run.supported_merge_strategies = ["upsert"], ["insert-only"]
    passed.preferred_table_format, of_run.preferred_table_format = "delta", "iceberg"
    with Container().injectable_context(of_run):
        for given, strategy, table_format in (((passed,), "upsert", "delta"), ((), "insert-only", "iceberg")):
            assert cast(Any, destination_utils).resolve_merge_strategy({"t": table}, table, *given) == strategy
            prepared = cast(Any, client).prepare_load_table({"t": table}, table, *given)
            assert prepared["table_format"] == table_format


def test_a_description_of_a_table_is_copied_whole() -> None:
    caching.copy_schemas_quickly()
    table: Any = {"name": "t", "columns": {"id": {"nullable": False, "x-of": [1, {"a": None}], "x-set": {"b"}}}}
    copied = cast(Any, schema_utils).deepcopy(table)
    assert copied == table
    copied["columns"]["id"]["x-of"][1]["a"] = 1
    copied["columns"]["id"]["x-set"].clear()
    copied["columns"]["new"] = {}
    assert table["columns"] == {"id": {"nullable": False, "x-of": [1, {"a": None}], "x-set": {"b"}}}


@pytest.mark.parametrize(("small", "threads"), [(projection.SMALL_LOAD, 1), (0, 2)])
def test_a_small_load_takes_one_thread(monkeypatch: pytest.MonkeyPatch, small: int, threads: int) -> None:
    monkeypatch.setattr(projection, "SMALL_LOAD", small)
    taken: list[int] = []

    def closing(of: projection.Projection) -> None:
        taken.extend(of._context.con.execute("SELECT current_setting('threads')").fetchall()[0])

    monkeypatch.setattr(projection.Projection, "close", closing)
    assert list(rows_of(message())["email_opened"])
    assert taken == [threads]
