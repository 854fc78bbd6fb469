"""The coordinator's own engine and folders."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from .work_folder import WorkFolder


@dataclass(frozen=True)
class Workspace:
    """The coordinator's engine and its scratch folder, and the work folder that it shares with the workers."""

    folder: WorkFolder
    con: duckdb.DuckDBPyConnection
    scratch: Path

    def put_table(self, table: pa.Table, name: str) -> str:
        """Writes a table into the work folder as a Parquet file; returns the name."""
        path = self.scratch / Path(name).name
        pq.write_table(table, path)
        return self.folder.put(str(path), name)

    def get_all(self, names: Iterable[str]) -> list[str]:
        """Returns the local paths of files of the work folder."""
        return self.folder.get_all(names, str(self.scratch))
