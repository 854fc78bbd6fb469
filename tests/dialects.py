"""Prints what dlt would send to warehouses that cannot run here. It is a separate program, because it replaces modules.

It connects to nothing. A small archive goes through the source and dlt's normalize step, with each destination's own
capabilities; of the load step, only the statements are made. The drivers are large and useless without a server, so
stand-ins replace those that are not installed.
"""

import gc
import importlib.abc
import importlib.machinery
import json
import os
import sys
import tempfile
import types
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

DRIVERS = ("clickhouse_connect", "clickhouse_driver", "databricks", "google", "pyodbc", "snowflake")


# What `information_schema` lists: in ClickHouse, which has no schemas, the tables of all datasets.
LISTED = ("tracks", "autopilothq___tracks", "autopilothq_staging___tracks", "autopilothq___dlt_sentinel_table")


class Anything(type):
    """A class with any attribute, each a class of this kind, to be inherited, raised, called, and used as a type."""

    def __getattr__(cls, name: str) -> "Anything":
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything.made(cls, name)

    def __getitem__(cls, item: Any) -> "Anything":
        return cls

    @staticmethod
    def made(owner: Any, name: str) -> "Anything":
        made = Anything(name, (Exception,), {"__init__": _take})
        setattr(owner, name, made)
        return made


def _take(self: Any, *words: Any, **more: Any) -> None:
    """Ignores its arguments."""


class Module(types.ModuleType):
    """A stand-in for a driver, which can be imported but does nothing."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name: str) -> Anything:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything.made(self, name)


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and loads the stand-ins."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:  # noqa: ARG002
        if fullname.partition(".")[0] not in DRIVERS:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Runs nothing, because a stand-in has no code."""


if __name__ == "__main__":  # not if a test imports this, whose process runs other tests, too
    sys.meta_path.append(StandIns())  # last, so that installed drivers come first
    gc.disable()  # collections during the imports would take a sixth of this short process's time

import dlt  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from dlt import destinations  # noqa: E402
from dlt.common.destination import Destination  # noqa: E402

import autopilothq  # noqa: E402
from autopilothq import inspect  # noqa: E402
from autopilothq.catalog import DELIVERIES  # noqa: E402
from autopilothq.sources import load_target  # noqa: E402
from autopilothq.sources.load_folder import handed_over  # noqa: E402
from autopilothq.warehouses.bigquery import bigquery  # noqa: E402
from autopilothq.warehouses.dataset import Dataset, SqlDataset, open_dataset  # noqa: E402
from autopilothq.warehouses.dataset.creation import create_statement  # noqa: E402
from autopilothq.warehouses.dataset.sql_statements import Statements  # noqa: E402
from autopilothq.warehouses.dlt_internals.information_schema import table_in_dataset  # noqa: E402
from contract.loading import identify, message, write  # noqa: E402
from quicker_dlt import cache_hints  # noqa: E402

TABLES = ("order", "users", "_audit", "accounts", "tracks")
BEFORE = "redshift, as it was"
LONG = "a_property_with_a_name_of_" + "x" * 300
LINES = (
    message("Order", properties={"select": "x", "n": 1, "f": 1.5, "flag": True, "when": "2019-03-01T00:00:00Z"}),
    message("Named at length", messageId="m2", properties={LONG: 1}),
    identify(messageId="m3", traits={"plan": "pro"}),
    message(None, type="group", event=..., messageId="m4", groupId="g", traits={"plan": "pro"}),
    message("Tracks View", messageId="m5", properties={"loadedAt": "property"}),
)


def kinds() -> dict[str, tuple[Destination[Any, Any], Destination[Any, Any] | None]]:
    """Returns the destinations, each with its staging destination if it has one."""
    redshift = destinations.redshift("redshift://u:p@host:5439/db")
    keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
    return {
        "bigquery": (bigquery(project_id="project", credentials=google()), None),
        "snowflake": (destinations.snowflake("snowflake://u:p@host/db?warehouse=w&role=r"), None),
        "redshift": (redshift, None),
        "redshift, staged": (redshift, destinations.filesystem("s3://bucket", credentials=keys)),
        BEFORE: (redshift, None),
        "databricks": (
            destinations.databricks(
                {"server_hostname": "host", "http_path": "/sql", "access_token": "t", "catalog": "main"}
            ),
            None,
        ),
        "clickhouse": (destinations.clickhouse("clickhouse://u:p@host:9440/db?secure=1"), None),
        "motherduck": (destinations.motherduck("md:db?motherduck_token=t"), None),
        "synapse": (destinations.synapse("synapse://u:p@host/db?driver=ODBC+Driver+18+for+SQL+Server"), None),
    }


def google() -> Any:
    return {"project_id": "project", "private_key": "k", "client_email": "e@example.com"}


class NoStatements(Statements):
    """The statements for a destination in which nothing is stored."""

    def by_schema(self, query: str) -> Sequence[Any]:  # noqa: ARG002
        return ()


class Nothing(SqlDataset):
    """A destination that was never loaded into, or whose tables were made by an earlier version."""

    before = False
    kind = dialect = ""
    name = "data"

    def __init__(self, *_: Any) -> None:
        Dataset.__init__(self)
        self.sql = NoStatements(cast(Any, None), nullcontext, is_staging=False, literals=False)

    def tables(self, names: Sequence[str]) -> dict[str, Any]:
        self.zoned |= set(names) if self.before else set()
        return {}

    def lacks(self, table: str) -> bool:  # noqa: ARG002
        return True

    def drop_copies(self) -> None:
        """Drops nothing."""


def said(kind: str, destination: Destination[Any, Any], staging: Any, folder: str) -> dict[str, Any]:
    """Returns what dlt would do with the archive in one destination."""
    pipeline = dlt.pipeline(
        "autopilot_events",
        pipelines_dir=f"{folder}/{kind}",
        destination=destination,
        staging=staging,
        dataset_name="autopilothq",
    )
    Nothing.before = kind == BEFORE
    pipeline.extract(autopilothq.archive("archive"))
    found_rows = rows(pipeline)
    pipeline.normalize()
    package = pipeline.get_load_package_info(pipeline.list_normalized_load_packages()[0])
    jobs = [job.job_file_info for job in package.jobs["new_jobs"]]
    schema = pipeline.default_schema
    client, _ = pipeline._get_destination_clients(schema)
    any_client: Any = client
    any_client.verify_schema(new_jobs=jobs)
    tables = {name: any_client.prepare_load_table(name) for name in schema.tables if not name.startswith("_dlt")}
    return {
        "dialect": any_client.capabilities.sqlglot_dialect,
        "formats": {job.table_name: job.file_format for job in jobs if job.table_name in tables},
        "strategies": {name: table.get("x-merge-strategy") for name, table in tables.items()},
        "staged": {name: any_client.should_load_data_to_staging_dataset(name) for name in tables},
        "create": {name: any_client._build_schema_update_sql([(name, {})])[0] for name in TABLES},
        "merge": {name: list(merging(any_client, tables[name])) for name in TABLES},
        "names": {name: list(table["columns"]) for name, table in tables.items()},
        "rows": found_rows,
        "printed": inspect.ddl(inspect.catalogue(), destination, "autopilothq"),
        "update": updating(any_client),
        "log": create_statement(any_client, DELIVERIES),
        "own_tables": {name: table_in_dataset(any_client.sql_client, name) for name in LISTED},
        "stored": stored(pipeline, any_client, tables["order"]),
    }


def rows(pipeline: dlt.Pipeline) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows that dlt would send, of the tables that are handed over as Parquet files."""
    found = handed_over(pipeline)
    return {
        table: [{name: cell if cell is None else str(cell) for name, cell in row.items()} for row in part.to_pylist()]
        for table, files in found.items()
        for part in map(pq.read_table, files)
    }


def stored(pipeline: dlt.Pipeline, client: Any, table: Any) -> dict[str, str]:
    """Returns the columns that the source finds in a table whose names the destination reports in its own case."""
    fold = client.capabilities.casefold_identifier
    mapper = client.capabilities.get_type_mapper()
    _, _, (name,) = client.sql_client._get_information_schema_components(table["name"])
    rows = []
    for column in table["columns"].values():
        word, _, inner = mapper.to_destination_type(column, table).partition("(")
        # An information_schema has precision and scale apart from the type's name; ClickHouse says `Bool` there.
        numbers = map(int, inner.rstrip(")").split(",")) if word == "NUMBER" else (None, None)
        rows.append((name, fold(column["name"]), word.replace("Boolean", "Bool"), "YES", *numbers))
    client.sql_client.execute_sql = lambda *words: rows  # noqa: ARG005
    client.is_storage_initialized = lambda: True
    client.__class__.__enter__ = lambda self: self
    client.__class__.__exit__ = lambda *error: None  # noqa: ARG005
    pipeline.destination_client = lambda *words: client  # type: ignore[method-assign] # noqa: ARG005
    return dict(open_dataset(pipeline).tables([table["name"]])[table["name"]])


def merging(client: Any, table: Any) -> Iterator[str]:
    """Yields the statements that merge a table."""
    for job in client._create_merge_followup_jobs([table]):
        yield from filter(None, (part.strip() for part in Path(job.new_file_path()).read_text().split(";\n")))


def updating(client: Any) -> list[Any]:
    """Returns the statement that changes a cell of a row, and its parameters."""
    dataset, found = SqlDataset(client), list[Any]()
    vars(dataset.sql)["run"] = lambda *given: found.extend(given)
    dataset.update("users", {"email": None}, "id = %s", ["ada"])
    return found


def main() -> None:
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    os.environ["RUNTIME__LOG_LEVEL"] = "CRITICAL"
    vars(load_target)["open_dataset"] = Nothing
    cache_hints()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write("1.ndjson", *LINES)
        found = {kind: said(kind, *parts, folder) for kind, parts in kinds().items()}
        json.dump(found, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
