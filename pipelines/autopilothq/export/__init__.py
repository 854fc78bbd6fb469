"""A dataset as files for others: an archive of messages, or a Parquet file for each table."""

from .archive import ExportedArchive, export_archive
from .folder import ExportFolder
from .parquet import ExportedTables, export_parquet

__all__ = [
    "ExportFolder",
    "ExportedArchive",
    "ExportedTables",
    "export_archive",
    "export_parquet",
]
