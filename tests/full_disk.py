"""Simulates a disk that has room for short files only."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Lets no file of this process grow beyond `size` bytes: writing more is an error, as on a full disk.

    Modules that are imported in the block are not cached, because Python 3.11 would keep a truncated file of bytecode.
    """
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = writes
