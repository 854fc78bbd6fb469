"""Autopilot's email events in DuckDB or any warehouse that dlt loads, as the `autopilothq` schema."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import (
    ApiError,
    ArchiveError,
    AutopilothqError,
    BooksMisplaced,
    BusyError,
    CannotMerge,
    ContactLimit,
    DatasetNotFound,
    EngineError,
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
from .on_import import after_import, before_import
from .telemetry import off_by_default

if TYPE_CHECKING:
    from .destination import DeliveryFailed, DeliveryImpossible, autopilot
    from .destination.segment import segment_destination
    from .projection.context import TableRows
    from .projection.snapshot import Snapshot
    from .segment.message import Batch, Reject
    from .sources.adopt.source import adopt
    from .sources.api.source import api
    from .sources.archive.source import archive
    from .sources.origin import MESSAGE_RESOURCES, LoadContext, Origin, PipelineContext, Work
    from .sources.ortto.source import ortto
    from .sources.profiles.source import profiles
    from .sources.records import make_batch, read_record
    from .sources.report import LoadReport
    from .sources.source import source
    from .warehouses.dataset.interface import Dataset

__all__ = [
    "MESSAGE_RESOURCES",
    "ApiError",
    "ArchiveError",
    "AutopilothqError",
    "Batch",
    "BooksMisplaced",
    "BusyError",
    "CannotMerge",
    "ContactLimit",
    "Dataset",
    "DatasetNotFound",
    "DeliveryFailed",
    "DeliveryImpossible",
    "EngineError",
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
    "Reject",
    "RequestRejected",
    "RunError",
    "Snapshot",
    "SuppressionKeyError",
    "TableRows",
    "TooManyRejects",
    "Unavailable",
    "UnexpectedResponse",
    "Work",
    "adopt",
    "api",
    "archive",
    "autopilot",
    "make_batch",
    "ortto",
    "profiles",
    "read_record",
    "segment_destination",
    "source",
]

# The modules of the names that are imported on first use, because they need dlt, DuckDB and pyarrow.
_MODULES = {
    ".destination": ("DeliveryFailed", "DeliveryImpossible", "autopilot"),
    ".destination.segment": ("segment_destination",),
    ".projection.context": ("TableRows",),
    ".projection.snapshot": ("Snapshot",),
    ".segment.message": ("Batch", "Reject"),
    ".sources.adopt.source": ("adopt",),
    ".sources.api.source": ("api",),
    ".sources.archive.source": ("archive",),
    ".sources.origin": ("MESSAGE_RESOURCES", "LoadContext", "Origin", "PipelineContext", "Work"),
    ".sources.ortto.source": ("ortto",),
    ".sources.profiles.source": ("profiles",),
    ".sources.records": ("make_batch", "read_record"),
    ".sources.report": ("LoadReport",),
    ".sources.source": ("source",),
    ".warehouses.dataset.interface": ("Dataset",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Imports a name of `__all__` on its first use."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# In the other order, a forked child aborts when it exits.
before_import("pyarrow", lambda: import_module("duckdb"))
after_import("dlt", off_by_default)
