"""What the coordinator works with on its own machine."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from .work_folder import WorkFolder


@dataclass(frozen=True)
class Workspace:
    """The coordinator's engine and its scratch folder, and the work folder that it shares with the workers."""

    folder: WorkFolder
    con: duckdb.DuckDBPyConnection
    scratch: Path

    def put_table(self, table: pa.Table, name: str) -> str:
        """Writes a table into the work folder as a Parquet file; returns the name."""
        return self.folder.put_table(table, name, self.scratch)

    def get_all(self, names: Iterable[str]) -> list[str]:
        """Returns the local paths of files of the work folder."""
        return self.folder.get_all(names, str(self.scratch))
