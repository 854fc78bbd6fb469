"""What a lake holds already: Delta tables, and dlt's own tables as files beside them."""

import posixpath
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, cast

import dlt
import pyarrow as pa

from ..errors import CannotMerge
from ..extras import install
from ..projection import ExistingTables
from ..projection.types import ARROW
from .dataset import Dataset
from .dlt_internals import FILENAME_SEPARATOR, LOADS_TABLE_NAME, FilesystemClient

_TYPES = {of: name for name, of in ARROW.items()}


class DeltaDataset(Dataset):
    """The tables of a pipeline's dataset in a bucket. It changes nothing."""

    def __init__(self, pipeline: dlt.Pipeline) -> None:
        super().__init__(pipeline)
        self._client = cast(FilesystemClient, pipeline.destination_client())
        self._table = cache(self._open)

    def complete_loads(self) -> set[str]:
        """The ids of dlt's loads that were not killed: each leaves a file that is named after it."""
        if not self._client.is_storage_initialized():
            return set()
        files = self._client.list_table_files(LOADS_TABLE_NAME)
        names = (posixpath.splitext(posixpath.basename(file))[0] for file in files)
        return {name.rpartition(FILENAME_SEPARATOR)[2] for name in names}

    def drop_copies(self) -> None:
        """There are none: a Delta table takes a file whole or not at all, and dlt merges it by its key."""

    def tables(self, names: Sequence[str]) -> ExistingTables:
        """Those of the tables that are there, with the types of their columns."""
        for name in names:
            if name not in self._known and (table := self._table(name)) is not None:
                fields = pa.schema(table.schema().to_arrow())
                self.widths[name] = len(fields)
                self._known[name] = {field.name: _TYPES[field.type] for field in fields if field.type in _TYPES}
        return {name: self._known[name] for name in names if name in self._known}

    def read(self, table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Columns of a table, streamed."""
        schema = pa.schema([(column, ARROW[self._known[table][column]]) for column in columns])
        yield from pa.RecordBatchReader.from_stream(self._table(table).scan(columns=list(columns))).cast(schema)

    def _open(self, name: str) -> Any:
        try:
            from deltalake import DeltaTable

            from .dlt_internals import deltalake_storage_options
        except ImportError as error:
            raise CannotMerge(
                f"Delta tables need the package deltalake, which is not installed.\nInstall it: {install('deltalake')}"
            ) from error
        # Found by its place: on a new machine dlt does not know the tables of loads that were killed.
        config = self._client.config
        place = self._client.get_open_table_location("delta", name)
        options = deltalake_storage_options(config.credentials, config.deltalake_storage_options)
        return DeltaTable(place, storage_options=options) if DeltaTable.is_deltatable(place, options) else None
