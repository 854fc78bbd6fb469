"""Options that several commands have."""

import re
from collections.abc import Callable
from typing import Any, ClassVar

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


class Duration(click.ParamType[float]):
    """A time span like `90s`, `10m`, `2h` or `1d`, as seconds."""

    name = "duration"
    _SECONDS: ClassVar = {"s": 1, "m": 60, "h": 3600, "d": 86400}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Reads it."""
        found = re.fullmatch(r"(\d+)([smhd])", str(value))
        if not found:
            self.fail(f"expected a number with a unit, like 90s, 10m, 2h or 1d, but got {value!r}.", param, ctx)
        return float(int(found[1]) * self._SECONDS[found[2]])


wait_option = click.option(
    "--wait", type=Duration(), default="0s", help="How long to wait for another run, or for a DuckDB file in use."
)
