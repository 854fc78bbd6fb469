"""Exports a dataset as files: an archive of its messages, or a Parquet file for each table."""

from .archive import ExportedArchive, export_archive
from .bucket import ExportBucket
from .folder import ExportFolder
from .parquet import ExportedTables, export_parquet
from .target import ExportTarget

__all__ = [
    "ExportBucket",
    "ExportFolder",
    "ExportTarget",
    "ExportedArchive",
    "ExportedTables",
    "export_archive",
    "export_parquet",
]
