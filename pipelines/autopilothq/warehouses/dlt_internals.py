"""All that this package takes from dlt without dlt documenting it. No other module touches dlt's undocumented parts.

A release of dlt may change any of it without notice: whoever tries a new release looks here first. What dlt's guides
show is imported where it is used. A test holds both, and `make check` runs the suite with the oldest release allowed.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial, wraps
from importlib import import_module
from types import FrameType, SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakKeyDictionary

import dlt
import yaml
from dlt import Schema
from dlt.common import logger
from dlt.common.configuration.container import Container
from dlt.common.configuration.exceptions import LookupTraces
from dlt.common.configuration.resolve import resolve_configuration
from dlt.common.configuration.specs.base_configuration import BaseConfiguration, NotResolved
from dlt.common.configuration.specs.config_section_context import ConfigSectionContext
from dlt.common.data_types import TDataType
from dlt.common.destination import Destination, DestinationCapabilitiesContext
from dlt.common.destination.client import (
    FollowupJobRequest,
    LoadJob,
    StorageSchemaInfo,
    WithStagingDataset,
    WithStateSync,
)
from dlt.common.destination.dataset import DBApiCursor
from dlt.common.destination.exceptions import (
    DestinationTerminalException,
    DestinationTransientException,
    DestinationUndefinedEntity,
    UnknownDestinationModule,
)
from dlt.common.destination.typing import PreparedTableSchema
from dlt.common.json import json
from dlt.common.normalizers.naming import NamingConvention
from dlt.common.pipeline import PipelineContext
from dlt.common.runtime.collector import NULL_COLLECTOR
from dlt.common.runtime.collector_base import Collector
from dlt.common.runtime.run_context import active
from dlt.common.runtime.telemetry import stop_telemetry
from dlt.common.schema.typing import (
    DLT_NAME_PREFIX,
    LOADS_TABLE_NAME,
    VERSION_TABLE_NAME,
    TColumnType,
    TLoaderMergeStrategy,
    TPartialTableSchema,
    TTableSchemaColumns,
    TWriteDispositionDict,
)
from dlt.common.schema.utils import (
    get_columns_names_with_prop,
    get_dedup_sort_tuple,
    is_complete_column,
    new_table,
)
from dlt.common.storages.configuration import FilesystemConfiguration, WithLocalFiles
from dlt.common.storages.exceptions import CurrentLoadPackageStateNotAvailable
from dlt.common.storages.fsspec_filesystem import MTIME_DISPATCH, fsspec_from_config
from dlt.common.storages.live_schema_storage import LiveSchemaStorage
from dlt.common.storages.load_package import (
    LOAD_PACKAGE_STATE_ENGINE_VERSION,
    PackageStorage,
    load_package_state,
    migrate_load_package_state,
)
from dlt.common.storages.load_storage import LoadItemStorage
from dlt.common.versioned_state import json_decode_state
from dlt.dataset.utils import get_destination_client_initial_config
from dlt.destinations.exceptions import (
    DatabaseException,
    DatabaseTransientException,
    DatabaseUndefinedRelation,
    DestinationConnectionError,
)
from dlt.destinations.file_batching import JsonlFileBatchIterator, ParquetFileBatchIterator
from dlt.destinations.impl.duckdb.configuration import DuckDbClientConfiguration, DuckDbConnectionPool
from dlt.destinations.impl.duckdb.duck import DuckDbClient, DuckDbCopyJob
from dlt.destinations.impl.duckdb.sql_client import DuckDbSqlClient
from dlt.destinations.impl.filesystem.filesystem import FILENAME_SEPARATOR, DeltaLoadFilesystemJob, FilesystemClient
from dlt.destinations.impl.postgres.configuration import PostgresClientConfiguration, PostgresCredentials
from dlt.destinations.impl.postgres.factory import get_adbc_driver_location
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.destinations.sql_client import SqlClientBase
from dlt.destinations.sql_jobs import SqlMergeFollowupJob, SqlStagingReplaceFollowupJob
from dlt.destinations.typing import DBTransaction
from dlt.extract.storage import ExtractorItemStorage
from dlt.load.exceptions import LoadClientJobException
from dlt.pipeline.state_sync import (
    PIPELINE_STATE_ENGINE_VERSION,
    load_pipeline_state_from_destination,
    migrate_pipeline_state,
)
from dlt.pipeline.trace import PipelineStepTrace, load_trace
from dlt.sources import DltResource

if TYPE_CHECKING:
    from dlt.common.libs.deltalake import deltalake_storage_options
    from dlt.destinations.impl.postgres.postgres import PostgresClient, PostgresParquetCopyJob
    from dlt.destinations.impl.postgres.sql_client import Psycopg2SqlClient

# Names of dlt that other modules import from here; what this module makes of dlt is below.
__all__ = [
    "DLT_NAME_PREFIX",
    "FILENAME_SEPARATOR",
    "LOADS_TABLE_NAME",
    "LOAD_PACKAGE_STATE_ENGINE_VERSION",
    "MTIME_DISPATCH",
    "NULL_COLLECTOR",
    "PIPELINE_STATE_ENGINE_VERSION",
    "VERSION_TABLE_NAME",
    "Collector",
    "DBApiCursor",
    "DBTransaction",
    "DatabaseException",
    "DatabaseTransientException",
    "DatabaseUndefinedRelation",
    "DeltaLoadFilesystemJob",
    "Destination",
    "DestinationCapabilitiesContext",
    "DestinationConnectionError",
    "DestinationTerminalException",
    "DestinationTransientException",
    "DestinationUndefinedEntity",
    "DuckDbClient",
    "DuckDbClientConfiguration",
    "DuckDbConnectionPool",
    "DuckDbCopyJob",
    "DuckDbSqlClient",
    "ExtractorItemStorage",
    "FilesystemClient",
    "FilesystemConfiguration",
    "FollowupJobRequest",
    "JsonlFileBatchIterator",
    "LoadClientJobException",
    "LoadItemStorage",
    "LoadJob",
    "LookupTraces",
    "NamingConvention",
    "NotResolved",
    "PackageStorage",
    "ParquetFileBatchIterator",
    "PipelineStepTrace",
    "PostgresClient",
    "PostgresClientConfiguration",
    "PostgresCredentials",
    "PostgresParquetCopyJob",
    "Psycopg2SqlClient",
    "SqlClientBase",
    "SqlJobClientBase",
    "SqlMergeFollowupJob",
    "SqlStagingReplaceFollowupJob",
    "StepCollector",
    "StorageSchemaInfo",
    "TColumnType",
    "TDataType",
    "TLoaderMergeStrategy",
    "TPartialTableSchema",
    "TTableSchemaColumns",
    "TWriteDispositionDict",
    "UnknownDestinationModule",
    "WithLocalFiles",
    "WithStagingDataset",
    "WithStateSync",
    "active",
    "deltalake_storage_options",
    "fsspec_from_config",
    "get_adbc_driver_location",
    "get_columns_names_with_prop",
    "get_dedup_sort_tuple",
    "get_destination_client_initial_config",
    "is_complete_column",
    "json",
    "json_decode_state",
    "load_package_state",
    "load_pipeline_state_from_destination",
    "load_trace",
    "logger",
    "migrate_load_package_state",
    "migrate_pipeline_state",
    "new_table",
    "resolve_configuration",
    "stop_telemetry",
]

# What needs a package that not everyone has is imported when it is asked for.
_LATE = {
    "BigQueryClient": "dlt.destinations.impl.bigquery.bigquery",
    "PostgresClient": "dlt.destinations.impl.postgres.postgres",
    "PostgresParquetCopyJob": "dlt.destinations.impl.postgres.postgres",
    "Psycopg2SqlClient": "dlt.destinations.impl.postgres.sql_client",
    "deltalake_storage_options": "dlt.common.libs.deltalake",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)


# ---- the working folder ----------------------------------------------------------------------------------------------


@cache
def take_folders_literally() -> None:
    """Has dlt find its files below a folder with a `%` in its name.

    dlt names files by `template % id`, and takes the folder for a part of the template.
    """

    def escaped(template: Callable[..., str]) -> Callable[..., str]:
        def path(*args: Any) -> str:
            folder, name = os.path.split(template(*args))
            return os.path.join(folder.replace("%", "%%"), name)

        return path

    for storage in (ExtractorItemStorage, LoadItemStorage):
        setattr(storage, "_get_data_item_path_template", escaped(storage._get_data_item_path_template))  # noqa: B010


@cache
def reread_changed_schemas_alone() -> None:
    """Has dlt read a schema of its working folder only where its file has changed since it did.

    It reads the schema, checks its hash and rebuilds it at each question for a client, some twenty times a load.
    """
    read = LiveSchemaStorage.__getitem__
    seen: WeakKeyDictionary[Schema, _Stamp] = WeakKeyDictionary()

    def get(storage: LiveSchemaStorage, name: str) -> Schema:
        stamp = _stamp(storage.storage.make_full_path(storage._file_name_in_store(name, "json")))
        live = storage.live_schemas.get(name)
        unchanged = live is not None and stamp is not None and seen.get(live) == stamp
        if live is not None and unchanged and not storage.config.import_schema_path and not live.is_modified:
            return live
        found = read(storage, name)
        if stamp is not None:
            seen[found] = stamp
        return found

    setattr(LiveSchemaStorage, "__getitem__", get)  # noqa: B010


_Stamp = tuple[int, int, int]


def _stamp(path: str) -> _Stamp | None:
    """What differs once dlt has written a file anew, None where it is missing."""
    with suppress(OSError):
        file = os.stat(path)
        return file.st_ino, file.st_mtime_ns, file.st_size
    return None


# ---- type hints ------------------------------------------------------------------------------------------------------

# Functions of type hints that dlt calls half a million times in a small load, by the modules that call them.
_OF_HINTS = {
    "dlt.common.configuration.resolve": (
        "extract_inner_hint",
        "is_base_configuration_inner_hint",
        "is_context_inner_hint",
        "is_hint_not_resolvable",
        "is_optional_type",
        "is_secret_hint",
        "is_union_type",
    ),
    "dlt.common.configuration.specs.base_configuration": ("is_optional_type",),
    "dlt.common.configuration.providers.environ": ("is_secret_hint",),
    "dlt.common.validation": (
        "extract_union_types",
        "get_type_hints",
        "is_dict_generic_type",
        "is_list_generic_type",
        "is_literal_type",
        "is_optional_type",
        "is_typeddict",
        "is_union_type",
    ),
}
_MOST_HINTS = 10_000


@cache
def remember_hints() -> None:
    """Has dlt find out once what a type hint means, instead of at each value that it looks for or checks.

    To resolve its configuration and to check its schemas takes dlt half the time then.
    """
    for module, functions in _OF_HINTS.items():
        for name in functions:
            setattr(import_module(module), name, _remembered(getattr(import_module(module), name)))
    fields = _remembered(BaseConfiguration.get_resolvable_fields.__func__)  # type: ignore[attr-defined]
    setattr(BaseConfiguration, "get_resolvable_fields", classmethod(lambda of: {**fields(of)}))  # noqa: B010


def _remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a pure function of a type hint with a memory. Hints are told apart by identity: some have no hash."""
    known: dict[Any, tuple[Any, Any]] = {}

    @wraps(function)
    def remembered(hint: Any, *args: Any, **more: Any) -> Any:
        key = (id(hint), *args, *((name, value) for name, value in more.items() if name != "globalns"))
        found = known.get(key)
        if found is None:
            if len(known) >= _MOST_HINTS:
                known.clear()
            found = known[key] = (hint, function(hint, *args, **more))  # the hint is kept, so that its id stays its own
        return found[1]

    return remembered


# ---- traces ----------------------------------------------------------------------------------------------------------


@cache
def write_traces_quickly() -> None:
    """Has dlt write the columns of each resource into its trace by libyaml, where that is installed.

    The text is the same. In pure Python it takes a twentieth of a small load.
    """
    dumper = getattr(yaml, "CDumper", yaml.Dumper)
    setattr(import_module("dlt.extract.extract"), "yaml", SimpleNamespace(dump=partial(yaml.dump, Dumper=dumper)))  # noqa: B010


# ---- destinations ----------------------------------------------------------------------------------------------------


def asking_pipeline() -> str | None:
    """Returns the name of the pipeline whose section of dlt's configuration is searched first, None without one."""
    return Container()[ConfigSectionContext].pipeline_name


class StepCollector(Collector):
    """Tells the steps of a run: dlt's progress, without its counts. `begin` is to be overridden."""

    def begin(self, step: str) -> None:
        """Called as a step begins: `extract`, `normalize` or `load`."""

    def update(
        self,
        name: str,
        inc: int = 1,
        total: int | None = None,
        inc_total: int | None = None,
        message: str | None = None,
        label: str | None = None,
    ) -> None:
        """Ignores single counts."""

    def _start(self, step: str) -> None:
        self.begin(step.partition(" ")[0].lower())

    def _stop(self) -> None:
        """Ignores a step's end, which is the next one's beginning."""


# The private methods of dlt's clients and jobs that subclasses may override, by the public names that they have here.
_HOOKS = {
    "connect": "_connect",
    "column_sql": "_get_column_def_sql",
    "constraints_sql": "_get_constraints_sql",
    "sql_after": "_get_table_post_update_sql",
    "type_of": "_from_db_type",
    "merge_jobs": "_create_merge_followup_jobs",
    "replace_jobs": "_create_replace_followup_jobs",
}

_Class = TypeVar("_Class", bound=type)


def hooked(of: _Class) -> _Class:
    """Has a subclass of dlt's override private methods by its own methods with the names in `_HOOKS`. A decorator.

    Each gets dlt's own, bound, as its first argument.
    Example: `def merge_jobs(self, usual, table_chain): return usual(table_chain)`.
    """
    for name, private in _HOOKS.items():
        if name in vars(of):
            setattr(of, private, _hook(vars(of)[name], getattr(super(of, of), private)))
    return of


def _hook(own: Callable[..., Any], dlts: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return own(self, partial(dlts, self), *args, **kwargs)

    return method


def client_of(job: LoadJob) -> Any:
    """Returns the client of a load job that runs."""
    return cast(Any, job)._job_client


def file_of(job: LoadJob) -> str:
    """Returns the path of a load job's file."""
    return job._file_path


def table_of(job: LoadJob) -> PreparedTableSchema:
    """Returns the table that a load job fills, as it runs."""
    return cast(PreparedTableSchema, cast(Any, job)._load_table)


def schema_components(client: SqlClientBase[Any]) -> tuple[str | None, str, list[str]]:
    """Returns the catalogue, the schema and the tables by which `information_schema` knows a dataset."""
    return client._get_information_schema_components()


def information_schema(client: SqlClientBase[Any], view: str) -> str:
    """Returns the qualified name of a view of `information_schema`. Example of a view: `COLUMNS`."""
    return client._qualify_info_schema_table_name(view)


def stored_columns(client: SqlJobClientBase) -> Iterator[tuple[str, str, str, TDataType | None]]:
    """Yields the table, the column, the native type and dlt's type of each column of a dataset."""
    catalogue, schema, _ = schema_components(client.sql_client)
    query, values = client._get_info_schema_columns_query(catalogue, schema, [])
    for table, column, native, _, *numbers in client.sql_client.execute_sql(query, *values) or ():
        yield table, column, native, client._from_db_type(native, *(numbers or (None, None))).get("data_type")


def offline_client(destination: Destination[Any, Any], schema: Schema, dataset: str) -> SqlJobClientBase:
    """Returns a client of a destination that answers SQL, without credentials and without a connection."""
    made_by: Any = destination.client_class
    spec = destination.spec()
    spec._bind_dataset_name(dataset_name=dataset)
    config = destination.configuration(spec, accept_partial=True)
    return cast(SqlJobClientBase, made_by(schema, config, destination.capabilities(config, schema.naming)))


def create_statements(client: SqlJobClientBase, tables: Sequence[str]) -> list[str]:
    """Returns the statements with which dlt makes these tables of the client's schema, none of which is there."""
    statements, _ = client._build_schema_update_sql([(table, {}) for table in tables])
    return statements


# ---- a source's resources --------------------------------------------------------------------------------------------


def running_pipeline() -> dlt.Pipeline:
    """Returns the pipeline that extracts.

    `dlt.current.pipeline` returns the same, but resolves the configuration of a new one each time.
    """
    return cast(dlt.Pipeline, Container()[PipelineContext].pipeline())


def extraction() -> str | None:
    """Returns the id of the load package that is extracted, None where a source is iterated without a pipeline."""
    try:
        return str(load_package_state()["load_id"])
    except CurrentLoadPackageStateNotAvailable:
        return None


def dropped_tables() -> tuple[set[str], set[str]]:
    """Returns the tables that `refresh` has dlt drop, and those that it has dlt empty, before this load's rows come."""
    state: Any = load_package_state()["state"]
    dropped, emptied = (state.get(key) or () for key in ("dropped_tables", "truncated_tables"))
    return {table["name"] for table in dropped}, {table["name"] for table in emptied}


def dataset_of_run(pipeline: dlt.Pipeline) -> None:
    """Gives a pipeline the dataset that its `run` was called with.

    While `run` extracts, the pipeline still has the dataset of the run before: only the call knows the new one.
    """
    for frame in _frames():
        call = frame.f_locals
        if frame.f_code.co_name == "run" and call.get("self") is pipeline and call.get("dataset_name"):
            pipeline._set_dataset_name(call["dataset_name"])
            return


def _frames() -> Iterator[FrameType]:
    """The calls of all threads: resources may be extracted in threads of their own (`parallelize`)."""
    for frame in list(sys._current_frames().values()):
        current: FrameType | None = frame
        while current is not None:
            yield current
            current = current.f_back


def sees_rows(resource: DltResource) -> bool:
    """Whether a resource has steps that see its rows: maps, filters, limits, an incremental, a validator."""
    return len(resource._pipe.steps) > 1


def parents(resource: DltResource) -> Iterator[str]:
    """The names of the resources that a transformer takes its rows from."""
    parent: Any = resource._pipe.parent
    while parent is not None and not parent.is_empty:
        yield parent.name
        parent = parent.parent


def claim(rows: Any, owner: object, name: str) -> None:
    """Notes on a resource's function whose it is, and by which name."""
    setattr(rows, _OWNER, (owner, name))


def claimed(resource: DltResource, owner: object) -> str | None:
    """The name by which a resource's function was claimed by this owner, None where it was not."""
    by, name = getattr(resource._pipe.gen, _OWNER, (None, ""))
    return name if by is owner else None


_OWNER = "autopilothq_owner"


def hints(resource: DltResource) -> Any:
    """The hints of a resource, to be given back by `take_back`: dlt replaces them and changes nothing in them."""
    return resource._hints


def take_back(resource: DltResource, before: Any, added: Mapping[str, Any]) -> None:
    """Takes the hints that came with rows out of a resource's: dlt keeps them there for all extractions to come.

    `before` are the hints from before the rows came. What was changed since, but not by `added`, stays.
    """
    now: dict[str, Any] = dict(resource._hints or {})
    for name in ("write_disposition", "file_format"):
        if name in added and now.get(name) == added[name]:
            now[name] = before.get(name)
    ours, theirs = added.get("columns") or {}, before.get("columns") or {}
    columns = {}
    for name, column in (now.get("columns") or {}).items():
        there = theirs.get(name, {})
        kept = {key: of for key, of in column.items() if key in there or ours.get(name, {}).get(key) != of}
        if kept.keys() - {"name"} or name in theirs:
            columns[name] = {"name": name} | {
                key: there.get(key, of) if of == ours.get(name, {}).get(key) else of for key, of in kept.items()
            }
    now["columns"] = columns
    now["original_columns"] = columns
    resource._set_hints(now)  # type: ignore[arg-type]


def primary_key(resource: DltResource) -> Any:
    """The hint for a resource's primary key."""
    return (resource._hints or {}).get("primary_key")


def merge_key(resource: DltResource) -> Any:
    """The hint for a resource's merge key, None where there is none."""
    return (resource._hints or {}).get("merge_key")


def file_format(resource: DltResource) -> Any:
    """The hint for the format of a resource's files."""
    return (resource._hints or {}).get("file_format")


def lets_all_pass(resource: DltResource, schema: Schema, table: str) -> bool:
    """Whether the schema's contract, and the resource's, let every table, column and type of a table evolve."""
    own: Any = {"schema_contract": resource.schema_contract} if resource.schema_contract else None
    return set(schema.resolve_contract_settings_for_table(table, own).values()) == {"evolve"}


def has_import_schema(pipeline: dlt.Pipeline) -> bool:
    """Whether people keep schemas of a pipeline in files of their own, which dlt reads before each extraction."""
    return bool(pipeline._schema_storage.config.import_schema_path)
