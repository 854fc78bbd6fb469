"""Splits stored rows into the same partitions as the messages, because workers cannot access the destination."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from ...catalog import AUDIT, Latest
from ...projection import ReadTable, engine
from ...projection.partition import LatestFiles, StoredColumns, partition_rows
from .workspace import Workspace


@dataclass(frozen=True)
class StoredPartitions:
    """Columns of the destination's tables, split into files of the work folder, one or more for each partition."""

    workspace: Workspace
    read: ReadTable
    partitions: int
    _columns: dict[str, Sequence[str]] = field(default_factory=dict, init=False)
    _files: dict[str, dict[int, list[str]]] = field(default_factory=dict, init=False)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count, init=False)

    def split(self, needed: Mapping[str, Sequence[str]]) -> None:
        """Splits columns of some tables, together with those split before; each partition gets all of `_audit`."""
        for table, columns in needed.items():
            before = self._columns.get(table, ())
            if set(columns) <= set(before):
                continue
            self._columns[table] = list(dict.fromkeys([*before, *columns]))
            batches = self.read(table, self._columns[table])
            if table == AUDIT.name:
                self._files[table] = dict.fromkeys(range(self.partitions), self._whole(batches))
            else:
                self._files[table] = self._split(table, batches, "FROM stored WHERE id IS NOT NULL", "id")

    def of(self, partition: int) -> dict[str, StoredColumns]:
        """Returns the columns of each table that were split, with the files of one partition."""
        return {
            table: StoredColumns(columns, self._files[table].get(partition, []))
            for table, columns in self._columns.items()
        }

    def split_messages(
        self, latest: Latest, files: LatestFiles, columns: Sequence[str], exists: bool
    ) -> dict[int, list[str]]:
        """Splits the messages that rows of `users` (`accounts`) are made of by person; returns files by partition.

        If the table `exists`, these are only the messages about the persons of this load.
        """
        key = engine.name(latest.key)
        sql = f"FROM stored WHERE {key} IS NOT NULL"
        if exists:
            names = [name for of_part in files.ids.values() for name in of_part]
            ids = engine.parquet_files(self.workspace.get_all(names))
            self.workspace.con.execute(f"CREATE OR REPLACE TEMP TABLE changed_ids AS SELECT DISTINCT id FROM {ids}")
            sql = f"SELECT s.* FROM stored s SEMI JOIN changed_ids i ON i.id = s.{key}"
        return self._split(latest.messages.name, self.read(latest.messages.name, columns), sql, latest.key)

    def _whole(self, batches: Iterable[pa.RecordBatch]) -> list[str]:
        found = list(batches)
        if not found:
            return []
        name = f"stored/stored-{next(self._numbers)}.parquet"
        return [self.workspace.put_table(pa.Table.from_batches(found), name)]

    def _split(self, table: str, batches: Iterable[pa.RecordBatch], sql: str, key: str) -> dict[int, list[str]]:
        number, workspace = next(self._numbers), self.workspace
        with engine.streamed(workspace.con, batches) as has_any:
            folder = str(workspace.scratch / f"stored-{number}")
            found = partition_rows(workspace.con, sql, key, self.partitions, folder) if has_any else {}
        put_all = workspace.folder.put_all
        return {part: put_all(paths, f"stored/{number}-{part}-{table}") for part, paths in found.items()}
