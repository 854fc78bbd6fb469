"""The changes that this package makes to dlt's loads, once per process, for the command and for users' pipelines."""

from ..warehouses.dlt_internals.caching import cache_repeated_work
from ..warehouses.dlt_internals.clients import copy_no_empty_files
from .completion import complete_only_whole_loads
from .own_rows import merge_only_own_rows


def patch_dlt() -> None:
    """Applies all changes; does nothing if they were applied before."""
    cache_repeated_work()
    complete_only_whole_loads()
    merge_only_own_rows()
    copy_no_empty_files()
