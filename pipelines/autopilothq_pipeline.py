"""Loads the archive into DuckDB with plain dlt: a script to start from.

python autopilothq_pipeline.py s3://my-bucket/segment-logs/AbC123xYz9/

Without an argument, as `dlt deploy` starts it, the archive is the setting `sources.autopilothq.archive_url`.
"""

import sys

import dlt

from autopilothq import archive


def load(url: str = dlt.config.value) -> None:
    """Loads what is new in the archive at `url`."""
    pipeline = dlt.pipeline("autopilot_events", destination="duckdb", dataset_name="autopilothq", progress="log")
    while pipeline.has_pending_data:  # load packages of a run that was cut off: dlt loads them before any new data
        pipeline.run()
    print(pipeline.run(archive(url)))  # noqa: T201


if __name__ == "__main__":
    load(*sys.argv[1:])
