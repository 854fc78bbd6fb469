"""Sends published files to a bucket, and deletes each here once the bucket has it whole."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from urllib.parse import urlsplit

import fsspec

from . import files, metrics
from .settings import ReceiveSettings

RETRY_SECONDS = 10.0
SCAN_SECONDS = 60.0

_log = logging.getLogger(__name__)


def uploading(settings: ReceiveSettings) -> Callable[[Path], None] | None:
    """Returns what is called with each published file, None without `upload`.

    A file whose upload fails stays, and is sent again later, after a restart too.
    """
    if settings.upload is None:
        return None
    queue: SimpleQueue[Path] = SimpleQueue()
    folder, url = Path(settings.folder), settings.upload.rstrip("/")
    threading.Thread(target=_run, args=(folder, url, queue), name="uploader", daemon=True).start()
    return queue.put


def upload(path: Path, folder: Path, url: str) -> None:
    """Sends a file to the same place below `url`, asks whether the bucket has it whole, and deletes it here.

    Raises OSError, or what the file system of the bucket raises.
    """
    name = path.relative_to(folder).as_posix()
    size = path.stat().st_size
    filesystem, root = fsspec.core.url_to_fs(url)
    target = f"{root}/{name}"
    if urlsplit(url).scheme in ("", "file"):
        filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
    filesystem.put_file(str(path), target)
    filesystem.invalidate_cache()
    found = filesystem.size(target)
    if found != size:
        raise OSError(f"The bucket has {found} of {size} bytes of {name}.")
    path.unlink()
    metrics.UPLOADED.inc()


def _run(folder: Path, url: str, queue: "SimpleQueue[Path]") -> None:
    while True:
        for path in files.published_files(folder):
            while True:
                try:
                    upload(path, folder, url)
                    break
                except FileNotFoundError:
                    break  # another process sent it
                except Exception as error:  # noqa: BLE001 - whatever a bucket says, the file stays and is sent again
                    _log.error("A file cannot be uploaded, which is tried again: %s: %s", path.name, error)
                    time.sleep(RETRY_SECONDS)
        _wait(queue)


def _wait(queue: "SimpleQueue[Path]") -> None:
    """Returns as soon as there is a file to send, or after a while: other processes publish too."""
    with suppress(Empty):
        queue.get(timeout=SCAN_SECONDS)
        while True:
            queue.get_nowait()
