"""The one reader and writer of a destination's tables: `open_dataset` and `dataset_of` give a `Dataset`."""

import dlt

from ...errors import RunError
from ..dlt_internals import FilesystemClient, JobClientBase, SqlJobClientBase
from .delta import DeltaDataset
from .interface import Columns, Dataset, Loaded, NativeType, Row, in_utc, last_load, marks
from .sql import SqlDataset, create_statement, stored_schema, writes_text

__all__ = [
    "Columns",
    "Dataset",
    "DeltaDataset",
    "Loaded",
    "NativeType",
    "Row",
    "SqlDataset",
    "create_statement",
    "dataset_of",
    "in_utc",
    "last_load",
    "marks",
    "open_dataset",
    "stored_schema",
    "writes_text",
]


def open_dataset(pipeline: dlt.Pipeline) -> Dataset:
    """Returns the dataset of a pipeline, which opens a connection for each statement and closes it again.

    Raises RunError where the destination's tables cannot be asked for.
    """
    client = pipeline.destination_client()
    if isinstance(client, SqlJobClientBase):
        return SqlDataset(client, pipeline.destination_client)
    return dataset_of(client)


def dataset_of(client: JobClientBase) -> Dataset:
    """Returns the dataset of a client whose connection is open and stays open.

    Raises RunError where the destination's tables cannot be asked for.
    """
    if isinstance(client, SqlJobClientBase):
        return SqlDataset(client)
    if isinstance(client, FilesystemClient):
        return DeltaDataset(client)
    kind = client.config.destination_type.rpartition(".")[2]
    raise RunError(f"Expected a destination that answers SQL, but {kind} does not.")
