"""dlt's destinations: undocumented attributes and methods of their clients and jobs, and hooks for subclasses."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache, partial, wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import dlt
import duckdb
import pyarrow.parquet as pq
from dlt import Schema
from dlt.common.configuration import configspec, inject_section
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.config_section_context import ConfigSectionContext
from dlt.common.destination import Destination
from dlt.common.destination.client import FollowupJobRequest, JobClientBase, LoadJob, WithStagingDataset, WithStateSync
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.destination.typing import PreparedTableSchema
from dlt.common.runtime.collector_base import Collector
from dlt.common.storages.load_package import LoadJobInfo, PackageStorage, ParsedLoadJobFileName
from dlt.common.storages.load_storage import LoadItemStorage
from dlt.common.typing import is_optional_type
from dlt.destinations._adbc_jobs import AdbcParquetCopyJob
from dlt.destinations.impl.duckdb.configuration import DuckDbConnectionPool
from dlt.destinations.impl.filesystem.filesystem import FilesystemClient
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.destinations.sql_jobs import SqlMergeFollowupJob
from dlt.extract.storage import ExtractorItemStorage
from dlt.load.load import Load
from dlt.pipeline.exceptions import PipelineStateEngineNoUpgradePathException
from dlt.pipeline.state_sync import load_pipeline_state_from_destination


@cache
def take_folders_literally() -> None:
    """Makes dlt work in a folder with a `%` in its name.

    dlt names files by `template % id`, and would interpret the folder as a part of the template.
    """

    def escaped(template: Callable[..., str]) -> Callable[..., str]:
        def path(*args: Any) -> str:
            folder, name = os.path.split(template(*args))
            return os.path.join(folder.replace("%", "%%"), name)

        return path

    for storage in (ExtractorItemStorage, LoadItemStorage):
        setattr(storage, "_get_data_item_path_template", escaped(storage._get_data_item_path_template))  # noqa: B010


def pipeline_of_config() -> str | None:
    """Returns the name of the pipeline whose section of dlt's configuration is searched first, or None."""
    return Container()[ConfigSectionContext].pipeline_name


def client_for(pipeline: dlt.Pipeline, schema: Schema) -> JobClientBase:
    """Returns the client for the dataset into which a pipeline loads the tables of a schema.

    Each schema may have its own dataset (`use_single_dataset`) and naming convention. `Pipeline.destination_client`
    returns the client for the pipeline's first schema. If there is none yet, it makes one with the pipeline's name,
    which is not a valid schema name if it has a hyphen.
    """
    of = ConfigSectionContext(
        pipeline_name=pipeline.pipeline_name, sections=(), merge_style=ConfigSectionContext.prefer_existing
    )
    with inject_section(of):
        return pipeline._get_destination_clients(schema)[0]


class StepCollector(Collector):
    """Reports the steps of a run: dlt's progress, without its counts. Subclasses override `begin`."""

    def begin(self, step: str) -> None:
        """Called when a step begins: `extract`, `normalize` or `load`."""

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
        """Ignores the end of a step."""


# The private methods of dlt's clients and jobs that subclasses override, by the public names that they have here.
_HOOKS = {
    "connect": "_connect",
    "components": "_get_information_schema_components",
    "column_sql": "_get_column_def_sql",
    "constraints_sql": "_get_constraints_sql",
    "sql_after": "_get_table_post_update_sql",
    "type_of": "_from_db_type",
    "merge_jobs": "_create_merge_followup_jobs",
    "replace_jobs": "_create_replace_followup_jobs",
    "dlt_files": "_list_dlt_table_files",
    "find_schema": "_get_stored_schema_by_hash_or_newest",
}

# Set by `bigquery_adapter`, which cannot be imported without the driver.
CLUSTER_COLUMNS_HINT = "x-bigquery-cluster-columns"

_Class = TypeVar("_Class", bound=type)


def hooked(of: _Class) -> _Class:
    """Decorates a subclass of a dlt class, so that its methods named in `_HOOKS` override dlt's private methods.

    Each gets dlt's own method, bound, as its first argument.
    Example: `def merge_jobs(self, usual, table_chain): return usual(table_chain)`.
    """
    for name, private in _HOOKS.items():
        if name in vars(of):
            setattr(of, private, _hook(vars(of)[name], getattr(super(of, of), private)))
    return of


def _hook(own: Callable[..., Any], usual: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return own(self, partial(usual, self), *args, **kwargs)

    return method


def declare_transactions(destination: Destination[Any, Any]) -> None:
    """Makes dlt replace rows in one transaction, in a destination for which dlt does not declare transactions."""
    cast(Any, destination).caps_params["supports_transactions"] = True


def borrowed_connections(pool: DuckDbConnectionPool) -> int:
    """Returns how many connections to a DuckDB file are in use."""
    return pool._conn_borrows


class ReadingPool(DuckDbConnectionPool):
    """dlt's pool of connections to a database. A read-only one skips those of dlt's `statements` that would write.

    Loads, which write, run them all.
    """

    def _execute_statements(self, conn: duckdb.DuckDBPyConnection) -> None:
        for statement in self._statements:
            try:
                conn.execute(statement.sql)
            except duckdb.Error as error:
                if not self.credentials.read_only or "in read-only mode" not in str(error):
                    raise


@cache
def enter_before_loading(
    entered: Callable[[Destination[Any, Any], JobClientBase, int], AbstractContextManager[object]],
) -> None:
    """Patches dlt, once per process, to load each package within `entered`.

    `entered` is called with the destination, a client, and the number of columns of all tables that wait for rows. It
    is not called for a package that dlt aborts, because dlt does that even if it cannot connect.
    """
    load = Load.load_single_package

    @wraps(load)
    def within(step: Load, load_id: str, schema: Schema) -> None:
        waiting = step.load_storage.normalized_packages
        tables = {ParsedLoadJobFileName.parse(file).table_name for file in waiting.list_new_jobs(load_id)}
        columns = sum(len(schema.tables[table]["columns"]) for table in tables & schema.tables.keys())
        is_aborted = waiting.has_abort_flag(load_id)
        with nullcontext() if is_aborted else entered(step.destination, step.get_destination_client(schema), columns):
            load(step, load_id, schema)

    setattr(Load, "load_single_package", within)  # noqa: B010


@cache
def check_before_completing(is_whole: Callable[[JobClientBase, Path, str, Mapping[str, list[Path]]], bool]) -> None:
    """Patches dlt, once per process, to complete a load only if `is_whole` returns True, and to abort it otherwise.

    `is_whole` is called with a client, the pipeline's working folder, the load's id, and its files by the table for
    which they were staged. dlt does not record aborted loads in `_dlt_loads`.
    """
    complete = Load.complete_package

    @wraps(complete)
    def checked(step: Load, load_id: str, schema: Schema, aborted: bool = False) -> None:
        if not aborted:
            client = step.get_destination_client(schema)
            folder = Path(step.load_storage.storage.storage_path).absolute().parent
            aborted = not is_whole(client, folder, load_id, _staged_files(step, load_id, client))
        complete(step, load_id, schema, aborted)

    setattr(Load, "complete_package", checked)  # noqa: B010


_NO_ROWS = ("sql", "reference")  # formats of the jobs that come after files with rows


def _staged_files(step: Load, load_id: str, client: JobClientBase) -> dict[str, list[Path]]:
    packages = step.load_storage.normalized_packages
    done = packages.get_job_state_folder_path(load_id, PackageStorage.COMPLETED_JOBS_FOLDER)
    files: dict[str, list[Path]] = {}
    for path in sorted(Path(packages.storage.make_full_path(done)).iterdir()):
        job = ParsedLoadJobFileName.parse(path.name)
        if job.file_format not in _NO_ROWS:
            files.setdefault(job.table_name, []).append(path)
    staged = client.should_load_data_to_staging_dataset if isinstance(client, WithStagingDataset) else None
    return {table: paths for table, paths in files.items() if staged is not None and staged(table)}


@cache
def copy_no_empty_files() -> None:
    """Patches dlt, once per process, to copy no Parquet files without rows by ADBC, which always refuses them."""
    run = AdbcParquetCopyJob.run

    @wraps(run)
    def copied(self: AdbcParquetCopyJob) -> None:
        if pq.read_metadata(self._file_path).num_rows:
            run(self)

    setattr(AdbcParquetCopyJob, run.__name__, copied)


@cache
def narrow_merges(condition_of: Callable[[SqlJobClientBase, str, Sequence[Path]], str | None]) -> None:
    """Patches dlt, once per process, to merge only those staged rows of a table that meet a condition.

    `condition_of` is called with a client, the table, and the files that were staged for it. It returns an SQL
    condition, or None for all rows. If a table has nested tables, all its rows are merged.
    """
    create = SqlJobClientBase.create_table_chain_completed_followup_jobs
    select = SqlMergeFollowupJob.gen_select_from_dedup_sql.__func__  # type: ignore[attr-defined]

    @wraps(create)
    def narrowed(
        self: SqlJobClientBase, table_chain: Sequence[PreparedTableSchema], jobs: Sequence[LoadJobInfo] | None = None
    ) -> list[FollowupJobRequest]:
        files = _files_of(jobs or ())
        merges_one = len(table_chain) == 1 and table_chain[0].get("write_disposition") == "merge"
        condition = condition_of(self, str(table_chain[0]["name"]), files) if files and merges_one else None
        if condition is None:
            return create(self, table_chain, jobs)
        names = self.sql_client.get_qualified_table_names

        def narrow(*args: Any, **kwargs: Any) -> tuple[str, str]:
            name, staged = names(*args, **kwargs)
            return name, f"(SELECT * FROM {staged} WHERE {condition})"

        vars(self.sql_client)[names.__name__] = narrow
        try:
            return create(self, table_chain, jobs)
        finally:
            del vars(self.sql_client)[names.__name__]

    @wraps(select)
    def with_alias(of: type[SqlMergeFollowupJob], table_name: str, *args: Any, **kwargs: Any) -> Any:
        # PostgreSQL before 16 requires that a subquery has an alias, which dlt gives it everywhere else.
        return select(of, f"{table_name} AS s" if table_name.startswith("(") else table_name, *args, **kwargs)

    setattr(SqlJobClientBase, create.__name__, narrowed)
    setattr(SqlMergeFollowupJob, select.__name__, classmethod(with_alias))


def _files_of(jobs: Sequence[LoadJobInfo]) -> list[Path]:
    """Returns the files of completed jobs that have rows. dlt may not have moved the last one from the started jobs."""
    done = [Path(job.file_path) for job in jobs if job.job_file_info.file_format not in _NO_ROWS]
    started = [path.parent.parent / PackageStorage.STARTED_JOBS_FOLDER / path.name for path in done]
    return [path if path.exists() else before for path, before in zip(done, started, strict=True)]


def client_of(job: LoadJob) -> Any:
    """Returns the client of a running load job."""
    return cast(Any, job)._job_client


def file_of(job: LoadJob) -> str:
    """Returns the path of a load job's file."""
    return job._file_path


def set_file(job: LoadJob, path: str) -> None:
    """Makes a load job load another file instead of its own."""
    job._file_path = path


def table_of(job: LoadJob) -> PreparedTableSchema:
    """Returns the table that a running load job fills."""
    return cast(PreparedTableSchema, cast(Any, job)._load_table)


def offline_client(destination: Destination[Any, Any], schema: Schema, dataset: str) -> SqlJobClientBase:
    """Returns a client without credentials and without a connection, for a destination that answers SQL."""
    made_by: Any = destination.client_class
    spec = destination.spec()
    spec._bind_dataset_name(dataset_name=dataset)
    config = destination.configuration(spec, accept_partial=True)
    return cast(SqlJobClientBase, made_by(schema, config, destination.capabilities(config, schema.naming)))


def with_required_credentials(destination: Destination[Any, Any]) -> Destination[Any, Any]:
    """Returns the destination. If it is one of dlt's own, it is changed to require credentials.

    dlt declares the credentials of Fabric as optional, but its client needs them.
    """
    spec = destination.spec
    is_own = type(destination).__module__.startswith("dlt.")
    if is_own and is_optional_type(spec.get_resolvable_fields()["credentials"]):
        kind = spec.credentials_type()
        required = {"__module__": spec.__module__, "__annotations__": {"credentials": kind}, "credentials": None}
        setattr(destination, "spec", configspec(type(spec.__name__, (spec,), required)))  # noqa: B010 - a property
    return destination


def create_statements(client: SqlJobClientBase, tables: Sequence[str]) -> list[str]:
    """Returns the statements with which dlt creates these tables of the client's schema, if none of them exists."""
    statements, _ = client._build_schema_update_sql([(table, {}) for table in tables])
    return statements


def stored_states(pipeline: dlt.Pipeline) -> list[Any]:
    """Returns the newest state of each pipeline that loads into the dataset of a pipeline.

    States that this version of dlt cannot read are left out.
    """
    states: list[Any] = []
    with suppress(DestinationUndefinedEntity), pipeline.destination_client() as client:
        if isinstance(client, WithStateSync):
            for name in sorted(_names_of_states(client)):
                with suppress(ValueError, PipelineStateEngineNoUpgradePathException):
                    states.append(load_pipeline_state_from_destination(name, client) or {})
    return states


def _names_of_states(client: Any) -> set[str]:
    """Returns the names of the pipelines whose states a dataset has.

    Raises DestinationUndefinedEntity if the dataset is new.
    """
    table = client.schema.state_table_name
    if isinstance(client, FilesystemClient):
        return {parts[0] for _, parts in client._list_dlt_table_files(table)}
    [column] = client._norm_and_escape_columns("pipeline_name")
    name = client.sql_client.make_qualified_table_name(table)
    return {str(found) for (found,) in client.sql_client.execute_sql(f"SELECT DISTINCT {column} FROM {name}") or ()}
