"""Exports to a bucket, which has neither locks nor folders, and stores each object completely or not at all."""

import inspect
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Protocol

from ..catalog import ARCHIVE_FOLDER, EXPORT_MARK
from ..errors import AutopilothqError, BusyError, RunError
from ..projection import engine
from .target import MARK_TEXT, SOURCE_FOLDER, ExportTarget, is_own_file, not_empty_error

UPLOADS = 8  # objects that are uploaded at a time
_MB = 1 << 20
PART_BYTES = 5 * _MB  # bytes of a part of a large object; a file of less than two parts is uploaded whole
MOST_UPLOAD_PARTS = 9_000  # S3 takes 10,000
PARTS_AT_ONCE = 2  # parts of an object that are uploaded at a time
MARKS = (EXPORT_MARK, f"{ARCHIVE_FOLDER}/{EXPORT_MARK}", f"{ARCHIVE_FOLDER}/{SOURCE_FOLDER}/{EXPORT_MARK}")
"""The marks of an unfinished archive, one in each folder that a load may be told to read."""
KILL_POINT_FILE_UPLOADED = f"{__name__}:ExportBucket._upload"  # for tests/faults, in their order
KILL_POINT_FILES_UPLOADED = f"{__name__}:ExportBucket._check"


class BucketFiles(Protocol):
    """The methods of fsspec's file systems that an export to a bucket uses."""

    async_impl: bool

    def _strip_protocol(self, path: str) -> str: ...
    def invalidate_cache(self) -> None: ...
    def ls(self, path: str, detail: bool) -> list[dict[str, Any]]: ...
    def find(self, path: str, *, detail: bool) -> dict[str, dict[str, Any]]: ...
    def cat_file(self, path: str) -> bytes: ...
    def put_file(self, lpath: str, rpath: str, **options: int) -> None: ...
    def rm_file(self, path: str) -> None: ...


class ExportBucket(ExportTarget):
    """A prefix of a bucket, given by its URL and its file system.

    The files wait on this machine. When all are complete, they are uploaded, and their sizes are compared with what the
    bucket lists. The marks are removed last; until then no load reads any of the files. Of two exports to one
    prefix, the later one continues and the other raises BusyError.
    """

    def __init__(self, url: str, fs: BucketFiles) -> None:
        super().__init__()
        self.url = url.rstrip("/")
        self._fs, self._root = fs, fs._strip_protocol(self.url)
        self._own_mark = MARK_TEXT + uuid.uuid4().hex.encode()

    def __enter__(self) -> "ExportBucket":
        with self._errors():
            existing = self._names(everything=False)
            if existing and EXPORT_MARK not in existing:
                raise not_empty_error(self.url)
            self._temporary = TemporaryDirectory(prefix="autopilothq-export-")
            self.stage = Path(self._temporary.name, "files")
            self.stage.mkdir()
        try:
            with self._errors():
                self._mark()
                if existing:
                    self._remove(name for name in self._names() if is_own_file(name))
        except BaseException:
            self._temporary.cleanup()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._temporary.cleanup()

    def publish(self) -> int:
        """Uploads all files, and returns how many there are."""
        sizes = {name: (self.stage / name).stat().st_size for name in self._sizes}
        with self._errors():
            self._check_mark()
            if self._fs.async_impl:  # other file systems must not be called from several threads
                with ThreadPoolExecutor(UPLOADS) as pool:
                    list(pool.map(self._upload, sizes))
            else:
                for name in sizes:
                    self._upload(name)
            self._check_mark()
            self._check(sizes)
            self._remove(reversed(MARKS))
        return len(sizes)

    # ---- the bucket --------------------------------------------------------------------------------------------------

    def _mark(self) -> None:
        """Marks the prefix as this export's."""
        mark = self.stage.parent / "mark"
        mark.write_bytes(self._own_mark)
        for name in MARKS:
            self._put(mark, name)

    def _check_mark(self) -> None:
        """Raises BusyError if another export has marked the prefix since."""
        try:
            found = self._fs.cat_file(f"{self._root}/{EXPORT_MARK}")
        except FileNotFoundError:
            found = None
        if found != self._own_mark:
            raise BusyError(f"Another export has begun to write to {self.url}. Name another place, or wait for it.")

    def _upload(self, name: str) -> None:
        self._put(self.stage / name, name)

    def _put(self, file: Path, name: str) -> None:
        """Uploads an object, with those options that this file system's `put_file` has."""
        part = max(PART_BYTES, file.stat().st_size // MOST_UPLOAD_PARTS // _MB * _MB + _MB)
        options = {"chunksize": part, "max_concurrency": PARTS_AT_ONCE, "overwrite": True}
        known = inspect.signature(self._fs.put_file).parameters
        given = {option: value for option, value in options.items() if option in known}
        self._fs.put_file(str(file), f"{self._root}/{name}", **given)

    def _check(self, sizes: dict[str, int]) -> None:
        """Raises RunError if the bucket lists other files or sizes than those that were uploaded."""
        listed = {name: size for name, size in self._names().items() if is_own_file(name)}
        wrong = sorted(listed.items() ^ sizes.items())
        if wrong:
            name = wrong[0][0]
            raise RunError(
                f"Expected {sizes.get(name, 'no')} bytes at {self.url}/{name}, but the bucket lists"
                f" {listed.get(name, 'none')} after the upload.\nExport again: it starts from scratch."
            )

    def _names(self, everything: bool = True) -> dict[str, int]:
        """Returns the sizes of all files by name below the prefix; without `everything`, only of its first level."""
        self._fs.invalidate_cache()
        try:
            if everything:
                listed: Iterable[dict[str, Any]] = self._fs.find(self._root, detail=True).values()
            else:
                listed = self._fs.ls(self._root, detail=True)
        except FileNotFoundError:
            return {}
        names = {str(info["name"]).removeprefix(self._root).strip("/"): int(info.get("size") or 0) for info in listed}
        return {name: size for name, size in names.items() if name}

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            self._fs.rm_file(f"{self._root}/{name}")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turns errors of the file system into a RunError that names the URL."""
        try:
            yield
        except AutopilothqError:
            raise
        except Exception as error:
            raise RunError(
                f"Cannot write to {self.url}: {engine.error_line(error)}\n"
                "Check that the bucket is there, and that these credentials may list, read, write and delete in it."
            ) from error
