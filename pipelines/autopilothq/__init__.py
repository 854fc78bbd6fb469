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
from .sources.api.source import api
from .sources.archive.source import archive
from .sources.load import LoadReport
from .sources.profiles.source import profiles
from .telemetry import off_by_default

__all__ = [
    "ApiError",
    "ArchiveError",
    "AutopilothqError",
    "BooksMisplaced",
    "BusyError",
    "CannotMerge",
    "DeliveryFailed",
    "DeliveryImpossible",
    "FolderNotOwned",
    "InvalidQuery",
    "InvalidSetting",
    "LoadReport",
    "NotAuthorized",
    "NotFound",
    "NotSupported",
    "NothingFound",
    "OutcomeUnknown",
    "RequestRejected",
    "RunError",
    "SuppressionKeyError",
    "TooManyRejects",
    "Unavailable",
    "UnexpectedResponse",
    "api",
    "archive",
    "autopilot",
    "profiles",
]

off_by_default()
