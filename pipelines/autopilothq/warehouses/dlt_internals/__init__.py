"""Everything undocumented that this project uses of dlt. No other package here touches dlt's undocumented parts.

This module re-exports names of dlt. `clients` is about destinations, `information_schema` about the tables that they
list, `mysql` and `ducklake` about what these two can hold, `resources` about sources and their resources, `runtime`
about configuration, and `caching` caches what dlt computes many times.

A release of dlt may change any of it without notice, so start here when you try a new release. What dlt's guides
document is imported where it is used. A test enforces both, and `make check` runs the suite with the oldest release
allowed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dlt.common import logger
from dlt.common.configuration.exceptions import (
    ConfigValueCannotBeCoercedException,
    InvalidNativeValue,
    LookupTrace,
    LookupTraces,
    ValueNotSecretException,
)
from dlt.common.configuration.resolve import resolve_configuration
from dlt.common.configuration.specs.base_configuration import NotResolved
from dlt.common.data_types import TDataType
from dlt.common.destination import Destination, DestinationCapabilitiesContext
from dlt.common.destination.client import (
    FollowupJobRequest,
    JobClientBase,
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
from dlt.common.json import json
from dlt.common.normalizers.naming import NamingConvention
from dlt.common.runtime.collector import NULL_COLLECTOR
from dlt.common.runtime.collector_base import Collector
from dlt.common.runtime.run_context import active
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
from dlt.common.storages.fsspec_filesystem import MTIME_DISPATCH, fsspec_from_config
from dlt.common.storages.load_package import (
    LOAD_PACKAGE_STATE_ENGINE_VERSION,
    PackageStorage,
    ParsedLoadJobFileName,
    load_package_state,
    migrate_load_package_state,
)
from dlt.common.versioned_state import json_decode_state
from dlt.dataset.utils import get_destination_client_initial_config
from dlt.destinations.exceptions import (
    DatabaseException,
    DatabaseTerminalException,
    DatabaseTransientException,
    DatabaseUndefinedRelation,
    DestinationConnectionError,
)
from dlt.destinations.file_batching import JsonlFileBatchIterator, ParquetFileBatchIterator
from dlt.destinations.impl.duckdb.configuration import (
    DuckDbBaseCredentials,
    DuckDbClientConfiguration,
    DuckDbConnectionPool,
    DuckDbCredentials,
)
from dlt.destinations.impl.filesystem.filesystem import FILENAME_SEPARATOR, DeltaLoadFilesystemJob, FilesystemClient
from dlt.destinations.impl.postgres.configuration import PostgresClientConfiguration, PostgresCredentials
from dlt.destinations.impl.postgres.factory import get_adbc_driver_location
from dlt.destinations.job_client_impl import SqlJobClientBase, SqlLoadJob
from dlt.destinations.sql_client import SqlClientBase
from dlt.destinations.sql_jobs import SqlMergeFollowupJob, SqlStagingReplaceFollowupJob
from dlt.destinations.typing import DBTransaction
from dlt.load.exceptions import LoadClientJobException
from dlt.pipeline.state_sync import (
    PIPELINE_STATE_ENGINE_VERSION,
    load_pipeline_state_from_destination,
    migrate_pipeline_state,
)
from dlt.pipeline.trace import PipelineStepTrace, load_trace

if TYPE_CHECKING:
    from dlt.common.libs.deltalake import deltalake_storage_options
    from dlt.destinations.impl.duckdb.duck import DuckDbClient, DuckDbCopyJob
    from dlt.destinations.impl.duckdb.sql_client import DuckDbSqlClient
    from dlt.destinations.impl.postgres.postgres import PostgresClient, PostgresParquetCopyJob
    from dlt.destinations.impl.postgres.sql_client import Psycopg2SqlClient

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
    "ConfigValueCannotBeCoercedException",
    "DBApiCursor",
    "DBTransaction",
    "DatabaseException",
    "DatabaseTerminalException",
    "DatabaseTransientException",
    "DatabaseUndefinedRelation",
    "DeltaLoadFilesystemJob",
    "Destination",
    "DestinationCapabilitiesContext",
    "DestinationConnectionError",
    "DestinationTerminalException",
    "DestinationTransientException",
    "DestinationUndefinedEntity",
    "DuckDbBaseCredentials",
    "DuckDbClient",
    "DuckDbClientConfiguration",
    "DuckDbConnectionPool",
    "DuckDbCopyJob",
    "DuckDbCredentials",
    "DuckDbSqlClient",
    "FilesystemClient",
    "FilesystemConfiguration",
    "FollowupJobRequest",
    "InvalidNativeValue",
    "JobClientBase",
    "JsonlFileBatchIterator",
    "LoadClientJobException",
    "LoadJob",
    "LookupTrace",
    "LookupTraces",
    "NamingConvention",
    "NotResolved",
    "PackageStorage",
    "ParquetFileBatchIterator",
    "ParsedLoadJobFileName",
    "PipelineStepTrace",
    "PostgresClient",
    "PostgresClientConfiguration",
    "PostgresCredentials",
    "PostgresParquetCopyJob",
    "Psycopg2SqlClient",
    "SqlClientBase",
    "SqlJobClientBase",
    "SqlLoadJob",
    "SqlMergeFollowupJob",
    "SqlStagingReplaceFollowupJob",
    "StorageSchemaInfo",
    "TColumnType",
    "TDataType",
    "TLoaderMergeStrategy",
    "TPartialTableSchema",
    "TTableSchemaColumns",
    "TWriteDispositionDict",
    "UnknownDestinationModule",
    "ValueNotSecretException",
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
]

# Imported on first use: these need an optional package, or DuckDB, which the receiver does not import.
_LATE = {
    "BigQueryClient": "dlt.destinations.impl.bigquery.bigquery",
    "DuckDbClient": "dlt.destinations.impl.duckdb.duck",
    "DuckDbCopyJob": "dlt.destinations.impl.duckdb.duck",
    "DuckDbSqlClient": "dlt.destinations.impl.duckdb.sql_client",
    "PostgresClient": "dlt.destinations.impl.postgres.postgres",
    "PostgresParquetCopyJob": "dlt.destinations.impl.postgres.postgres",
    "Psycopg2SqlClient": "dlt.destinations.impl.postgres.sql_client",
    "deltalake_storage_options": "dlt.common.libs.deltalake",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)
