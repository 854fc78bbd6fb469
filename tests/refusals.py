"""What the tests of refused rows share: files, relations, and a pipeline without a destination."""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from autopilothq.projection import engine
from autopilothq.sources.file_rows import FileRows

NOON = datetime(2019, 3, 1, 12, tzinfo=UTC)


def files_of(folder: Path, *columns: dict[str, list[Any]], group: int = 2) -> FileRows:
    paths = [folder / f"{number}.parquet" for number in range(len(columns))]
    for path, cells in zip(paths, columns, strict=True):
        pq.write_table(pa.table(cells), path, row_group_size=group)
    return FileRows(paths)


def pipeline_at(folder: Path, name: str = "d") -> Any:
    config = type("Config", (), {"destination_type": "dlt.destinations.duckdb", "__str__": lambda _: name})()
    client = SimpleNamespace(config=config)
    clients = client, None  # of the destination and of staging
    return SimpleNamespace(
        working_dir=str(folder), dataset_name="set", pipeline_name="p", _get_destination_clients=lambda _: clients
    )


def relation_of(cells: str) -> Any:
    return engine.connect(None, memory=400, threads=1).sql(cells)
