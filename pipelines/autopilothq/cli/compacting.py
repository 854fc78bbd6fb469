"""Runs `receive --compact`: joins a receiver's small files, and prints the result."""

import os
import time
from datetime import timedelta

from .. import compaction
from ..display import plural
from ..warehouses.settings import TargetOptions
from . import out
from .options import freeze_modules


def print_compacted(folder: str, target: TargetOptions, wait: timedelta) -> None:
    """Joins small files that the target has loaded, and prints how many became how many."""
    freeze_modules()
    made = compaction.compact(os.path.abspath(folder), target, now=time.time(), wait=wait)
    if made.after:
        files = plural(made.after, "file")
        out.print_line(f"{plural(made.before, 'file')} became {files} of {made.bytes:,} bytes.")
    else:
        out.print_line("No files can be joined: they are large, new, have rejects, or are not loaded from this path.")
