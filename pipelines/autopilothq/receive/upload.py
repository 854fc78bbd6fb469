"""Uploads published files to a bucket, and deletes each local file once the bucket has all of it."""

import fcntl
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from urllib.parse import urlsplit

import fsspec

from ..errors import InvalidSetting
from ..extras import missing_of_bucket
from . import files, metrics
from .settings import ReceiveSettings

RETRY_SECONDS = 10.0
SCAN_SECONDS = 60.0
MOST_FAILURES = 3  # failures in a row after which the bucket is considered the problem, not a file

_log = logging.getLogger(__name__)


def uploading(settings: ReceiveSettings) -> Callable[[Path], None] | None:
    """Starts the uploader; returns the function to call with each published file, or None if `upload` is not set.

    A file whose upload fails is kept and uploaded later, even after a restart.
    """
    if settings.upload is None:
        return None
    queue: SimpleQueue[Path] = SimpleQueue()
    folder, url = Path(settings.folder), settings.upload.rstrip("/")
    threading.Thread(target=_run, args=(folder, url, queue), name="uploader", daemon=True).start()
    return queue.put


def check_upload(url: str) -> None:
    """Raises InvalidSetting if nothing can be uploaded to the URL, or a package is missing. Does not connect to it."""
    expected = f"Expected a bucket's URL, such as s3://bucket/prefix, but got {url}"
    if "://" not in url:  # a local folder, to which all files would be moved
        raise InvalidSetting(f"{expected}.")
    try:
        fsspec.core.url_to_fs(url)
    except ImportError as error:
        missing = getattr(error.__cause__, "name", None) or error
        raise InvalidSetting(missing_of_bucket(url, missing)) from error
    except ValueError as error:
        raise InvalidSetting(f"{expected}: {error}") from error


def upload(path: Path, folder: Path, url: str) -> None:
    """Uploads a file to the same path below `url`, verifies its size in the bucket, and deletes the local file.

    Raises OSError, or an error of the bucket's file system. BlockingIOError means that another process is uploading the
    file, FileNotFoundError that one has uploaded it.
    """
    name = path.relative_to(folder).as_posix()
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        size = path.stat().st_size
        filesystem, root = fsspec.core.url_to_fs(url)
        target = f"{root}/{name}"
        if urlsplit(url).scheme == "file":
            filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
        try:
            filesystem.put_file(str(path), target)
            filesystem.invalidate_cache()
            found = filesystem.size(target)
        except FileNotFoundError as error:  # the bucket's, not ours
            raise OSError(f"There is no such bucket, or what was sent is not there: {error}") from error
        if found != size:
            raise OSError(f"The bucket has {found} of {size} bytes of {name}.")
        path.unlink()
    metrics.UPLOADED.inc()


def _run(folder: Path, url: str, queue: "SimpleQueue[Path]") -> None:
    failed: set[Path] = set()
    while True:
        in_a_row = 0
        # Files that failed come last, so that a file that the bucket refuses does not hold up the others.
        for path in sorted(files.published_files(folder), key=lambda path: (path in failed, path)):
            try:
                upload(path, folder, url)
                failed.discard(path)
                in_a_row = 0
            except (BlockingIOError, FileNotFoundError):
                failed.discard(path)
            except Exception as error:  # noqa: BLE001 - after any error of a bucket, the file stays and is sent again
                _log.error("A file cannot be uploaded, and is tried again: %s: %s", path.name, error)
                failed.add(path)
                in_a_row += 1
                if in_a_row == MOST_FAILURES:
                    break
        if in_a_row:
            time.sleep(RETRY_SECONDS)
        else:
            _wait(queue)


def _wait(queue: "SimpleQueue[Path]") -> None:
    """Waits for a file to upload, at most SCAN_SECONDS, because files of other processes are not in the queue."""
    with suppress(Empty):
        queue.get(timeout=SCAN_SECONDS)
        while True:
            queue.get_nowait()
