"""Options that several commands have."""

from collections.abc import Callable
from typing import Any

import click

from .. import run


def destination_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where the data goes, or is: dlt's words with dlt's meaning."""
    for option in (
        click.option("--dataset", help=f"The schema to load into.  [default: {run.DATASET}]"),
        click.option("--credentials", help=f"dlt's credentials of it.  [default: {run.DUCKDB_FILE}]"),
        click.option("--destination", help="dlt's name of the destination.  [default: duckdb]"),
    ):
        command = option(command)
    return command
