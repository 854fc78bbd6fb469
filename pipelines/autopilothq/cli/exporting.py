"""Runs `export`, and prints what was written."""

from datetime import timedelta
from pathlib import Path

from .. import inspect, private, runner
from ..disk import local_path
from ..display import json_text, plural, shortened
from ..errors import RunError
from ..export import ExportBucket, ExportFolder, ExportTarget, export_archive, export_parquet
from ..sources.file_systems import check_not_empty, is_remote, open_bucket
from ..warehouses.books import is_lock
from ..warehouses.dataset import Dataset
from . import log, out
from .options import TargetOptions

MOST_COLUMNS = 200  # characters of a list of columns


def export_dataset(folder: str, form: str, as_json: bool, target: TargetOptions, wait: timedelta) -> None:
    """Writes the target's dataset to a folder, or to a place in a bucket, and prints the counts."""
    with runner.explained(), inspect.reading(*target, wait=wait, warn=log.warn) as dataset:
        _check_rights(dataset)
        before = dataset.complete_loads()
        with _target(folder) as files, private.writing(files.stage.parent):
            found = _archive(dataset, files) if form == "archive" else _tables(dataset, files)
        _print(folder, found, as_json)
        if dataset.complete_loads() - before:
            log.warn("A load ended during this export. Export again: some of its rows may be missing.")


def _check_rights(dataset: Dataset) -> None:
    """Raises RunError if the user has no right to read some tables."""
    if hidden := [f"{dataset.name}.{table}" for table in dataset.unreadable() if not is_lock(table)]:
        raise RunError(
            f"Expected the right to read all tables of the dataset, but {', '.join(hidden)} may not be read: an export"
            " would lack them.\nGrant SELECT on them, or use the role that owns them."
        )


def _target(folder: str) -> ExportBucket | ExportFolder:
    check_not_empty(folder)
    if is_remote(folder):
        return ExportBucket(folder, open_bucket(folder))
    return ExportFolder(Path(local_path(folder)))


def _archive(dataset: Dataset, files: ExportTarget) -> dict[str, object]:
    found = export_archive(dataset, files)
    return {
        "messages": sum(found.messages.values()),
        "rejected_lines": found.rejects,
        "files": found.files,
        "tables": found.messages,
        "left_out": found.left_out,
    }


def _tables(dataset: Dataset, files: ExportTarget) -> dict[str, object]:
    found = export_parquet(dataset, files)
    return {
        "rows": sum(found.rows.values()),
        "files": len(found.rows),
        "tables": found.rows,
        "left_out": found.left_out,
    }


def _print(folder: str, found: dict[str, object], as_json: bool) -> None:
    if as_json:
        out.document(json_text({"folder": folder, **found}, indent=2))
        return
    counts = {"messages": "message", "rows": "row", "rejected_lines": "rejected line", "files": "file"}
    named = [
        plural(number, word) for name, word in counts.items() if isinstance(number := found.get(name), int) and number
    ]
    out.print_line(f"{folder}: {', '.join(named) or 'nothing, as the dataset has no messages'}")
    left_out = found["left_out"]
    for text in left_out if isinstance(left_out, list) else ():
        log.warn(f"Not exported: {shortened(text, MOST_COLUMNS)}")
