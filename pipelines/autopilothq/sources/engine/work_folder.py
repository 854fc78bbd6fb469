"""The folder that all workers of a load share: a local one, or one in a bucket. It is deleted when the load ends.

Files have fixed names and appear only when they are complete, so a task that runs twice leaves the same files. They
hold personal data.
"""

import errno
import fcntl
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ... import private
from ...disk import local_path
from ...errors import EngineError
from ..file_systems import is_remote, open_bucket

_SCRATCH = "autopilothq-worker-"  # begins the name of a task's folder; the machine's name follows
_NEW_SCRATCH = "autopilothq-new-worker-"  # begins that name before the folder is locked
_HELD = "held"  # the file in a task's folder that its process keeps locked
_MARK = "under-way"  # the file that exists from the beginning of a load to its end
_NAME_ONE = "Name a folder or a bucket as --work-url (work_url) that this machine and all workers may change."


@dataclass(frozen=True)
class WorkFolder:
    """A folder by its URL, which has no secrets: each worker opens the folder with its own credentials.

    Example: `folder.put("a.parquet", "cells/3/0-messages-0.parquet") == "cells/3/0-messages-0.parquet"`.
    """

    url: str

    @property
    def is_remote(self) -> bool:
        """Whether it is in a bucket, not in a local folder."""
        return is_remote(self.url)

    def begin(self) -> None:
        """Creates the folder."""
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, _MARK).touch()
            self._put(f"{folder}/{_MARK}", _MARK)

    def check(self) -> None:
        """Raises EngineError if this machine does not see the folder, which the coordinator creates and deletes."""
        if not self.is_there():
            raise EngineError(
                f"Expected the work folder {self.url} on every worker, but on {socket.gethostname()} it is not there."
                f"\n{_NAME_ONE}"
            )

    def is_there(self) -> bool:
        """Returns whether the load is still running, as its mark shows; raises any error that leaves this unknown."""
        with _refusal_explained(self.url):
            try:
                if self.is_remote:
                    bucket = _bucket(self.url)
                    bucket.invalidate_cache()  # of everything: not every file system can invalidate a single URL
                    bucket.info(f"{self.url}/{_MARK}")  # `exists` returns False for any error
                else:
                    Path(self._path(_MARK)).stat()
            except FileNotFoundError:
                return False
            return True

    def delete(self) -> None:
        """Deletes the folder with its content; the mark first, so that running tasks notice."""
        if not self.is_remote:
            Path(self._path(_MARK)).unlink(missing_ok=True)
            shutil.rmtree(self._path(""), ignore_errors=True)
            return
        bucket = _bucket(self.url)
        bucket.invalidate_cache()
        for url in (f"{self.url}/{_MARK}", self.url):
            with suppress(FileNotFoundError):
                bucket.rm(url, recursive=True)

    def put(self, path: str, name: str) -> str:
        """Moves a local file into the folder, replacing a file of that name; returns the name."""
        with _refusal_explained(self.url):
            return self._put(path, name)

    def _put(self, path: str, name: str) -> str:
        if self.is_remote:
            _bucket(self.url).put_file(path, f"{self.url}/{name}")
            os.unlink(path)
            return name
        target = Path(self._path(name))
        private.folder(target.parent)
        try:
            os.replace(path, target)
        except OSError:  # another disk
            # Not named after the process: processes in two containers may have the same id.
            temporary = f"{target}.{secrets.token_hex(8)}"
            shutil.copyfile(path, temporary)
            os.replace(temporary, target)
            os.unlink(path)
        return name

    def get(self, name: str, scratch: str) -> str:
        """Returns the local path of a file; a file in a bucket is fetched into the folder `scratch`, once."""
        if not self.is_remote:
            return self._path(name)
        path = Path(scratch, "fetched", name)
        if not path.exists():
            private.folder(path.parent)
            _bucket(self.url).get_file(f"{self.url}/{name}", str(path))
        return str(path)

    def put_all(self, paths: Collection[str], prefix: str) -> list[str]:
        """Moves local Parquet files into the folder; returns their names, which are `prefix` and a number."""
        return [self.put(path, f"{prefix}-{number}.parquet") for number, path in enumerate(paths)]

    def get_all(self, names: Iterable[str], scratch: str) -> list[str]:
        """Returns the local paths of files, as `get` does."""
        return [self.get(name, scratch) for name in names]

    def take(self, name: str, path: Path) -> None:
        """Moves a file from the folder to a local path."""
        if self.is_remote:
            _bucket(self.url).get_file(f"{self.url}/{name}", str(path))
        else:
            shutil.move(self._path(name), path)

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """Yields a folder for one task, and deletes it afterwards."""
        with _refusal_explained(self.url):
            home = None if self.is_remote else str(private.folder(Path(self._path("scratch"))))
        _drop_dead(Path(home or tempfile.gettempdir()))
        made = Path(tempfile.mkdtemp(prefix=_NEW_SCRATCH, dir=home))
        with (made / _HELD).open("w") as held:
            with suppress(OSError):  # where files cannot be locked, no folder counts as abandoned
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder = made.rename(made.with_name(_scratch_prefix() + made.name.removeprefix(_NEW_SCRATCH)))
            try:
                yield str(folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _path(self, name: str) -> str:
        return f"{self.url.removeprefix('file://')}/{name}"


@contextmanager
def work_folder(work_url: str, owner: str) -> Iterator[WorkFolder]:
    """Yields an empty folder for a load, and deletes it afterwards. First deletes those of `owner`'s killed loads.

    Raises EngineError if it cannot be written to.
    """
    home = f"{_absolute(work_url)}/autopilothq-work/{owner}"
    folder = WorkFolder(f"{home}/{secrets.token_hex(8)}")
    try:
        WorkFolder(home).delete()
        folder.begin()
    except Exception as error:
        raise EngineError(
            f"Expected to list, write and delete below {home}, but got {type(error).__name__}: {error}\n{_NAME_ONE}"
        ) from error
    try:
        yield folder
    finally:
        with suppress(Exception):  # the next load tries to delete it again
            folder.delete()


def _absolute(url: str) -> str:
    """Returns the URL without slashes at its end; for a local folder, the absolute path."""
    return url.rstrip("/") if is_remote(url) else os.path.abspath(local_path(url))


@contextmanager
def _refusal_explained(url: str) -> Iterator[None]:
    """Raises EngineError in place of an error about permissions."""
    try:
        yield
    except OSError as error:
        if not isinstance(error, PermissionError) and error.errno != errno.EROFS:
            raise
        found = f"{type(error).__name__}: {error}"
        raise EngineError(
            f"Expected to read and write {url} on {socket.gethostname()}, but got {found}\n{_NAME_ONE}"
        ) from error


@lru_cache(maxsize=8)
def _bucket(url: str) -> Any:
    return open_bucket(url)


def _scratch_prefix() -> str:
    return f"{_SCRATCH}{socket.gethostname()}-"


def _drop_dead(home: Path) -> None:
    """Deletes the folders of this machine's tasks whose processes were killed; other machines may share `home`.

    Containers of a machine may share its name. They do not see each other's processes, but they see locks.
    """
    for folder in home.glob(f"{_scratch_prefix()}*"):
        if "-" in folder.name.removeprefix(_scratch_prefix()):
            continue  # it belongs to a machine with a longer name, which continues after a hyphen
        with suppress(OSError):
            if folder.stat().st_uid == os.geteuid() and not _is_held(folder / _HELD):
                shutil.rmtree(folder, ignore_errors=True)


def _is_held(path: Path) -> bool:
    """Returns whether a process keeps a file locked; False if it is missing, as after a deletion that broke off."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
