"""The archive into DuckDB in plain dlt: a script to start from.

python autopilothq_pipeline.py s3://my-bucket/segment-logs/AbC123xYz9/

Without a word, as `dlt deploy` has it started, the archive is the setting `sources.autopilothq.archive_url`.
"""

import sys

import dlt

from autopilothq import archive


def load(url: str = dlt.config.value) -> None:
    """Loads what is new in the archive at `url`."""
    pipeline = dlt.pipeline("autopilot_events", destination="duckdb", dataset_name="autopilothq", progress="log")
    while pipeline.has_pending_data:  # what a run that was cut off had ready; dlt takes no new data before it
        pipeline.run()
    print(pipeline.run(archive(url)))  # noqa: T201


if __name__ == "__main__":
    load(*sys.argv[1:])
