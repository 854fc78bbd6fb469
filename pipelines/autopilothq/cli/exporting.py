"""Runs `export`, and prints what was written."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from .. import inspect, private
from ..disk import local_path
from ..display import json_text, plural, shortened
from ..errors import RunError
from ..explain import explained
from ..export import ExportBucket, ExportFolder, ExportTarget, export_archive, export_parquet
from ..sources.file_systems import check_not_empty, is_remote, open_bucket
from ..warehouses.books import is_lock
from ..warehouses.dataset import Dataset, tables_that_hide_rows
from ..warehouses.settings import TargetOptions
from . import log, out

MOST_COLUMNS = 200  # characters that are shown of a list of columns
_WORDS = {"messages": "message", "rows": "row", "rejected_lines": "rejected line", "files": "file"}


def export_dataset(folder: str, form: str, as_json: bool, target: TargetOptions, wait: timedelta) -> None:
    """Writes the target's dataset to a folder, or to a prefix of a bucket, and prints the counts."""
    with explained(), inspect.reading(*target, wait=wait, warn=log.warn) as dataset:
        _check_rights(dataset)
        before = dataset.complete_loads()
        with _target(folder) as files, private.writing(files.stage.parent):
            counts, tables, notes = _export(dataset, form, files)
        if as_json:
            out.document(json_text({"folder": folder, **counts, "tables": tables, **notes}, indent=2))
        else:
            written = [plural(count, _WORDS[kind]) for kind, count in counts.items() if count]
            out.print_line(f"{folder}: {', '.join(written) or 'nothing, as the dataset has no messages'}")
            for text in notes["left_out"]:
                log.warn(f"Not exported: {shortened(text, MOST_COLUMNS)}")
            for text in notes.get("changed", ()):
                log.warn(f"Will differ when loaded again: {shortened(text, MOST_COLUMNS)}")
        if dataset.complete_loads() - before:
            log.warn("A load ended during this export. Export again: some of its rows may be missing.")


def _check_rights(dataset: Dataset) -> None:
    """Raises RunError if there is a table that the user may not read as a whole, except those of locks."""
    if hidden := [f"{dataset.name}.{table}" for table in dataset.unreadable() if not is_lock(table)]:
        raise RunError(
            f"Expected the right to read all tables of the dataset, but {', '.join(hidden)} may not be read: an export"
            " would lack them.\nGrant SELECT on them, or use the role that owns them."
        )
    if partly := [f"{dataset.name}.{table}" for table in tables_that_hide_rows(dataset) if not is_lock(table)]:
        raise RunError(
            f"Expected the right to see all rows of the dataset, but policies may hide some of {', '.join(partly)} from"
            " this role (row-level security): an export would lack them.\n"
            "Use the role that owns the tables, or one with BYPASSRLS."
        )


def _target(folder: str) -> ExportBucket | ExportFolder:
    check_not_empty(folder)
    if is_remote(folder):
        return ExportBucket(folder, open_bucket(folder))
    return ExportFolder(Path(local_path(folder)))


def _export(
    dataset: Dataset, form: str, files: ExportTarget
) -> tuple[dict[str, int], Mapping[str, int], dict[str, Sequence[str]]]:
    """Exports the dataset. Returns what was written by kind, the rows or messages by table, and notes by kind."""
    if form == "archive":
        archive = export_archive(dataset, files)
        messages = sum(archive.messages.values())
        counts = {"messages": messages, "rejected_lines": archive.rejects, "files": archive.files}
        return counts, archive.messages, {"left_out": archive.left_out, "changed": archive.changed}
    parquet = export_parquet(dataset, files)
    return (
        {"rows": sum(parquet.rows.values()), "files": len(parquet.rows)},
        parquet.rows,
        {"left_out": parquet.left_out},
    )
