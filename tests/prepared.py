"""Folders that are prepared once for several tests: copying the result of a load takes a hundredth of the load's time.

Each test gets a folder at the path where it was prepared, because notes, audits and lakes name absolute paths.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared_loads import isolation


@contextmanager
def preparing(home: Path) -> Iterator[Path]:
    """Yields a new folder, and keeps a copy of it afterwards. In it are the current folder `work` and dlt's `dlt`."""
    with isolation(home):
        yield home
    shutil.copytree(home, _kept(home), symlinks=True)


@contextmanager
def going_on(home: Path, name: str) -> Iterator[Path]:
    """Yields a folder as it was prepared, and keeps a copy of what the block makes of it, under another name."""
    with as_prepared(home):
        yield home
    shutil.copytree(home, _kept(home, name), symlinks=True)


@contextmanager
def as_prepared(home: Path, name: str = "kept") -> Iterator[Path]:
    """Yields the folder as it was prepared, or as it was kept under `name`, whatever an earlier test did there.

    The current folder is its `work`.
    """
    shutil.rmtree(home)
    shutil.copytree(_kept(home, name), home, symlinks=True)
    with isolation(home):
        yield home


def _kept(home: Path, name: str = "kept") -> Path:
    return home.with_name(f"{home.name}-{name}")
