"""A disk that has room for nothing but short files."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Lets no file of this process grow beyond so many bytes; writing beyond is an error, as on a full disk.

    Modules that are imported meanwhile are not cached: Python 3.11 keeps a file of bytecode that was cut off.
    """
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = writes
