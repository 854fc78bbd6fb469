"""Counts what waits in a receiver's folder: files that are not published yet, and files that are not loaded."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..receive.files import begun_at, open_files
from ..sources.archive import list_files
from ..warehouses.dataset import Dataset, loaded_files


@dataclass
class Waiting:
    """Files that wait. `bytes` is their size on disk, `oldest` is when the first of them was begun."""

    files: int
    bytes: int
    oldest: datetime | None


@dataclass
class Received:
    """What waits in a receiver's folder. `unpublished` files are open, `not_loaded` ones are unknown to `_audit`."""

    folder: str
    unpublished: Waiting
    not_loaded: Waiting


def read_received(dataset: Dataset, folder: str) -> Received:
    """Returns what waits in a folder for its load into a dataset. Raises ArchiveError if there is no such folder."""
    unpublished = _waiting(open_files(Path(folder)))
    listed = list_files([folder])
    known = loaded_files(dataset, dataset.complete_loads())
    not_loaded = _waiting(Path(file.path) for file in listed if (file.url, file.version) not in known)
    return Received(folder, unpublished, not_loaded)


def _waiting(paths: Iterable[Path]) -> Waiting:
    sizes, begun = [], []
    for path in paths:
        try:
            sizes.append(path.stat().st_size)
            begun.append(begun_at(path))
        except FileNotFoundError:  # published, or uploaded, since it was listed
            continue
    oldest = datetime.fromtimestamp(min(begun), UTC) if begun else None
    return Waiting(len(sizes), sum(sizes), oldest)
