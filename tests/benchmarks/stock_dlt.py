"""dlt as its documentation teaches it: files of a folder, their JSON lines, merged by the message's id; one table.

Only files that changed since the last run are read. `read_jsonl` cannot read blank lines and byte-order marks, which
archives have, so the reader is a transformer of its own, as the documentation shows one. Lines are normalized by as
many processes as there are cores, as its page about performance shows. Usage: `python stock_dlt.py ARCHIVE DATABASE`.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
from dlt.common import json
from dlt.common.storages.fsspec_filesystem import FileItemDict
from dlt.sources.filesystem import filesystem

CHUNK = 1_000  # lines, the default of `read_jsonl`
SETTINGS = {
    "normalize.workers": os.cpu_count(),
    "data_writer.file_max_items": 100_000,  # otherwise all lines are in one file, and only one process works
    "runtime.dlthub_telemetry": False,
}


@dlt.transformer(name="messages", primary_key="messageId", write_disposition="merge")
def read_lines(items: list[FileItemDict]) -> Iterator[list[Any]]:
    for item in items:
        with item.open() as file:
            messages = []
            for line in file:
                if line := line.removeprefix(b"\xef\xbb\xbf").strip():
                    messages.append(json.loadb(line))
                if len(messages) >= CHUNK:
                    yield messages
                    messages = []
            yield messages


def main(archive: str, database: str) -> None:
    for name, value in SETTINGS.items():
        dlt.config[name] = value
    files = filesystem(
        Path(archive).resolve().as_uri(),
        file_glob="**/*.gz",
        incremental=dlt.sources.incremental("modification_date"),
    )
    pipeline = dlt.pipeline(
        "stock", destination=dlt.destinations.duckdb(database), dataset_name="main", pipelines_dir=f"{database}.dlt"
    )
    pipeline.run(files | read_lines)


if __name__ == "__main__":
    main(*sys.argv[1:])
