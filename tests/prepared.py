"""Folders that are prepared once for several tests: copying the result of a load takes a hundredth of the load.

Each test gets them at the path that they were prepared at, because notes, audits and lakes name absolute paths.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared_loads import isolation


@contextmanager
def preparing(home: Path) -> Iterator[Path]:
    """Keeps what is made in a new folder, below which lie the working folder `work` and dlt's `dlt`."""
    with isolation(home):
        yield home
    shutil.copytree(home, _kept(home), symlinks=True)


@contextmanager
def going_on(home: Path, name: str) -> Iterator[Path]:
    """Keeps under a name what is made of a prepared folder; it is prepared as before, too."""
    with as_prepared(home):
        yield home
    shutil.copytree(home, _kept(home, name), symlinks=True)


@contextmanager
def as_prepared(home: Path, name: str = "kept") -> Iterator[Path]:
    """The folder as it was prepared, or as it is kept under a name, whatever an earlier test did there.

    The current folder is its `work`.
    """
    shutil.rmtree(home)
    shutil.copytree(_kept(home, name), home, symlinks=True)
    with isolation(home):
        yield home


def _kept(home: Path, name: str = "kept") -> Path:
    return home.with_name(f"{home.name}-{name}")
