"""The folder that all workers of a load share: below a local folder or a bucket, deleted with the load.

What is written here has a fixed name and appears as a whole, so that a task that runs twice leaves what one leaves. The
files hold personal data.
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ... import private
from ...errors import EngineError
from ..file_systems import is_remote, open_bucket

_SCRATCH = "autopilothq-worker-"  # the folder of a task on a worker's own disk; its process's id follows


@dataclass(frozen=True)
class WorkFolder:
    """A folder known by its URL, which any worker opens for itself: no secret is in it.

    Example: `folder.put(Path("a.parquet"), "cells/3/0-messages-0.parquet")`.
    """

    url: str

    @property
    def is_remote(self) -> bool:
        """Whether it is in a bucket, not in a local folder."""
        return is_remote(self.url)

    def put(self, path: str, name: str) -> str:
        """Moves a local file here, over one that has the name already; returns the name."""
        if self.is_remote:
            _bucket(self.url).put_file(path, f"{self.url}/{name}")
            os.unlink(path)
            return name
        target = Path(self._path(name))
        private.folder(target.parent)
        try:
            os.replace(path, target)
        except OSError:  # another disk
            temporary = f"{target}.{os.getpid()}"
            shutil.copyfile(path, temporary)
            os.replace(temporary, target)
            os.unlink(path)
        return name

    def get(self, name: str, scratch: str) -> str:
        """Returns the local path of a file; one in a bucket is fetched into the folder `scratch`, once."""
        if not self.is_remote:
            return self._path(name)
        path = Path(scratch, "fetched", name)
        if not path.exists():
            private.folder(path.parent)
            _bucket(self.url).get_file(f"{self.url}/{name}", str(path))
        return str(path)

    def take(self, name: str, path: Path) -> None:
        """Moves a file from here to a local path."""
        if self.is_remote:
            _bucket(self.url).get_file(f"{self.url}/{name}", str(path))
        else:
            shutil.move(self._path(name), path)

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """Makes a folder on this machine's disk for one task, and deletes it."""
        home = None if self.is_remote else str(private.folder(Path(self._path("scratch"))))
        _drop_dead(Path(home or tempfile.gettempdir()))
        folder = tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-", dir=home)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _path(self, name: str) -> str:
        return f"{self.url.removeprefix('file://')}/{name}"


@contextmanager
def work_folder(work_url: str, owner: str) -> Iterator[WorkFolder]:
    """Makes an empty folder for a load, and deletes it; so are the folders of `owner`'s earlier loads that were killed.

    Raises EngineError where it cannot be written.
    """
    home = f"{work_url.rstrip('/')}/autopilothq-work/{owner}"
    folder = WorkFolder(f"{home}/{secrets.token_hex(8)}")
    try:
        _delete(WorkFolder(home))
        if not folder.is_remote:
            private.folder(Path(folder._path("")))
    except Exception as error:
        raise EngineError(
            f"Expected to list, write and delete below {home}, but got {type(error).__name__}: {error}\n"
            "Name a folder or a bucket as --work-url (work_url) that this machine and all workers may change."
        ) from error
    try:
        yield folder
    finally:
        with suppress(Exception):  # the next load tries again
            _delete(folder)


def _delete(folder: WorkFolder) -> None:
    if not folder.is_remote:
        shutil.rmtree(folder._path(""), ignore_errors=True)
        return
    bucket = _bucket(folder.url)
    bucket.invalidate_cache()
    with suppress(FileNotFoundError):
        bucket.rm(folder.url, recursive=True)


@lru_cache(maxsize=8)
def _bucket(url: str) -> Any:
    return open_bucket(url)


def _drop_dead(home: Path) -> None:
    """Deletes the folders of tasks whose processes were killed on this machine."""
    for folder in home.glob(f"{_SCRATCH}*"):
        process = folder.name.removeprefix(_SCRATCH).partition("-")[0]
        with suppress(OSError):
            if process.isdigit() and folder.stat().st_uid == os.geteuid() and not Path("/proc", process).exists():
                shutil.rmtree(folder, ignore_errors=True)
