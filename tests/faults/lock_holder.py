"""Holds the locks of a load into a PostgreSQL (its URL) or a DuckDB file until it is killed: a program of the tests."""

import sys
import time

import dlt

from autopilothq.warehouses import lock
from autopilothq.warehouses.duckdb import direct


def main() -> None:
    place, folder = sys.argv[1:]
    destination = dlt.destinations.postgres(place) if "://" in place else direct(place)
    pipeline = dlt.pipeline(
        "autopilot_events", destination=destination, dataset_name="autopilothq", pipelines_dir=folder
    )
    with lock.held(pipeline, 0):
        sys.stdout.write("held\n")
        sys.stdout.flush()
        time.sleep(3600)


if __name__ == "__main__":
    main()
