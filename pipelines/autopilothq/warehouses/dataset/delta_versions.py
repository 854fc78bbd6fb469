"""Compacts Delta tables, and removes their old versions, because the log has statistics of deleted rows."""

import posixpath
from contextlib import suppress
from functools import partial
from typing import Any

from ...catalog import AUDIT
from ..dlt_internals import FilesystemClient
from .delta import compact_tables, has_many_files, open_table

LOG = "_delta_log"
KILL_POINT_LOG_DROPPED = f"{__name__}:_drop_log_before"  # for tests/faults


def maintain(client: FilesystemClient) -> None:
    """Compacts the tables that loads write, about once in 25 loads: each adds a file to `_audit`."""
    from deltalake.exceptions import DeltaError

    with suppress(DeltaError, OSError):  # the load is complete, and the next one tries again
        audit = open_table(client, AUDIT.name)
        if audit is not None and has_many_files(audit):
            # `_audit` comes last: if the process is killed before, the next load compacts the tables again.
            names = sorted((str(table["name"]) for table in client.schema.data_tables()), key=AUDIT.name.__eq__)
            compact_tables(names, partial(open_table, client))


def drop_old_versions(client: FilesystemClient, name: str) -> None:
    """Removes all versions of a table except the newest: their files, and the log of their commits.

    A reader of an older version finds its files missing and has to read again. The removal may be killed at any point:
    the log is removed only after a checkpoint has replaced it.
    """
    table = open_table(client, name)
    # Files of killed writes belong to no version; `full` finds them, too.
    table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True)
    table = open_table(client, name)
    table.create_checkpoint()
    _drop_log_before(client, name, table.version())


def _drop_log_before(client: FilesystemClient, name: str, version: int) -> None:
    """Removes commits and checkpoints of a table's log that are older than a version."""
    files: Any = client.fs_client
    folder = f"{client.get_table_prefix(name).rstrip('/')}/{LOG}"
    for entry in sorted(files.ls(folder, detail=True, refresh=True), key=lambda found: str(found["name"])):
        number = posixpath.basename(entry["name"]).partition(".")[0]
        if entry["type"] == "file" and number.isdigit() and int(number) < version:
            files.rm_file(entry["name"])
