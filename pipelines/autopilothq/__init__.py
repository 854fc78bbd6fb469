"""Autopilot's email events in DuckDB or any warehouse that dlt loads, as the `autopilothq` schema."""

import duckdb  # noqa: F401 - before pyarrow: in the other order a forked child aborts at its exit

from .destination import DeliveryFailed, DeliveryImpossible, autopilot
from .errors import (
    ApiError,
    ArchiveError,
    AutopilothqError,
    BooksMisplaced,
    BusyError,
    CannotMerge,
    DatasetNotFound,
    FolderNotOwned,
    InvalidQuery,
    InvalidSetting,
    NotAuthorized,
    NotFound,
    NothingFound,
    NotSupported,
    OutcomeUnknown,
    RequestRejected,
    RunError,
    SuppressionKeyError,
    TooManyRejects,
    Unavailable,
    UnexpectedResponse,
)
from .projection.context import TableRows
from .segment.message import Batch
from .sources.api.source import api
from .sources.archive.source import archive
from .sources.origin import MESSAGE_RESOURCES, LoadContext, Origin, PipelineContext, Work
from .sources.profiles.source import profiles
from .sources.records import make_batch, read_record
from .sources.report import LoadReport
from .sources.source import source
from .telemetry import off_by_default

__all__ = [
    "MESSAGE_RESOURCES",
    "ApiError",
    "ArchiveError",
    "AutopilothqError",
    "Batch",
    "BooksMisplaced",
    "BusyError",
    "CannotMerge",
    "DatasetNotFound",
    "DeliveryFailed",
    "DeliveryImpossible",
    "FolderNotOwned",
    "InvalidQuery",
    "InvalidSetting",
    "LoadContext",
    "LoadReport",
    "NotAuthorized",
    "NotFound",
    "NotSupported",
    "NothingFound",
    "Origin",
    "OutcomeUnknown",
    "PipelineContext",
    "RequestRejected",
    "RunError",
    "SuppressionKeyError",
    "TableRows",
    "TooManyRejects",
    "Unavailable",
    "UnexpectedResponse",
    "Work",
    "api",
    "archive",
    "autopilot",
    "make_batch",
    "profiles",
    "read_record",
    "source",
]

off_by_default()
