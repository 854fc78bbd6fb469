"""A run of dlt that finds nothing, to measure what every run costs, however little it loads.

Usage: `python empty_dlt.py DATABASE`.
"""

import sys
from collections.abc import Iterator
from typing import Any

import dlt


@dlt.resource
def nothing() -> Iterator[Any]:
    yield from ()


def main(database: str) -> None:
    dlt.pipeline("empty", destination=dlt.destinations.duckdb(database), dataset_name="events").run(nothing())


if __name__ == "__main__":
    main(*sys.argv[1:])
