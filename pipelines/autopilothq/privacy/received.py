"""Lists the files of archives, including those that receivers have not published yet."""

import os
import re
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from ..disk import local_path
from ..display import visible
from ..errors import ArchiveError, RunError
from ..receive.files import open_files, published_name
from ..receive.publishing import WAIT, alone, publish_open, receiver_folders, remove_unfinished
from ..sources.archive import list_files
from ..sources.archive.listing import GLOB_CHARACTERS, File

_LOCAL = re.compile(r"(file|local):(//)?")


def all_files_at(urls: Sequence[str], dry_run: bool, stack: ExitStack) -> list[File]:
    """Returns the files at these URLs, with everything that receivers had received there when this was called.

    Open files are published first, and no compaction runs until `stack` is closed. With `dry_run`, nothing is changed:
    open files are returned as they are. Raises RunError if files cannot be published or a receiver does not do so in
    time, BusyError if a compaction runs, and ArchiveError if files cannot be listed.
    """
    paths = [path for url in urls if (path := _local_path(url)) is not None]
    if not dry_run:
        for folder in sorted({folder.resolve() for path in paths for folder in receiver_folders(path)}):
            _publish(folder, stack)
        return list_files(urls)
    opened = {
        file
        for path in paths
        for folder in receiver_folders(path)
        for file in open_files(folder)
        if file.is_relative_to(path)
    }
    files = list_files(urls)
    published = {file.url for file in files}
    for file in sorted(opened):
        if str(published_name(file)) not in published:
            with suppress(ArchiveError):  # in the rare case that it was published since, its lines are not counted
                files += list_files([str(file)])
    return files


def _publish(folder: Path, stack: ExitStack) -> None:
    try:
        stack.enter_context(alone(folder))
        remove_unfinished(folder)
        left = publish_open(folder)
    except OSError as error:
        raise RunError(
            f"Expected to publish what is received into {visible(str(folder))}, but {error.strerror}:"
            f" {visible(str(error.filename))}. Nothing was deleted.\nRun this as the user that receives."
        ) from error
    if left:
        raise RunError(
            f"Expected the receiver to publish its files within {WAIT:.0f} seconds, but {len(left):,}"
            f" {'is' if len(left) == 1 else 'are'} still open: {visible(str(left[0]))}. Nothing was deleted.\n"
            "Look at its log, or stop it, and run this again."
        )


def _local_path(url: str) -> Path | None:
    """Returns the file or folder of a URL; for a glob, the folder of all its matches; None for a bucket."""
    bare = _LOCAL.sub("", url, count=1) if _LOCAL.match(url) else url
    if "://" in bare:
        return None
    path = Path(os.path.abspath(local_path(bare)))
    if path.exists():
        return path
    while GLOB_CHARACTERS.search(str(path)):
        path = path.parent
    return path
