"""Options that several commands have."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar

import click
import dlt

from .. import run


def _set_books_dataset(context: click.Context, param: click.Parameter, value: str | None) -> None:  # noqa: ARG001
    if value:
        dlt.config["books_dataset"] = value


def destination_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where the data goes, or is: dlt's words with dlt's meaning."""
    for option in (
        click.option(
            "--books-dataset",
            expose_value=False,
            callback=_set_books_dataset,
            help="Another schema for the tables that loads keep for themselves, such as _audit.  [default: the same]",
        ),
        click.option("--dataset", help=f"The schema.  [default: {run.DATASET}]"),
        click.option("--credentials", help=f"dlt's credentials of it.  [default: {run.DUCKDB_FILE}]"),
        click.option("--destination", help="dlt's name of the destination.  [default: duckdb]"),
    ):
        command = option(command)
    return command


def where(destination: str | None, credentials: str | None, dataset: str | None) -> dict[str, str]:
    """Where the data of these words goes: `destination`, `location`, `dataset`, and the `pipeline` of dlt."""
    with run.explained():
        place = run.place(destination, credentials, dataset)
        return {
            "destination": place.kind,
            "location": place.database or place.location,
            "dataset": place.dataset,
            "pipeline": run.pipeline_name(str(place)),
        }


class Duration(click.ParamType[timedelta]):
    """A time span like `90s`, `10m`, `2h` or `1d`."""

    name = "duration"
    _UNITS: ClassVar = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Reads it."""
        words = re.fullmatch(r"(\d{1,8})([smhd])", str(value))
        if words is None:
            self.fail(f"Expected a number with s, m, h or d, such as 2h, but got {value!r}.", param, ctx)
        return timedelta(**{self._UNITS[words[2]]: int(words[1])})


wait_option = click.option(
    "--wait",
    type=Duration(),
    default="0s",
    metavar="TIME",
    help="How long to wait for another run, or for a DuckDB file in use.",
)


def load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What all commands that load can be told."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
        click.option(
            "--max-rejects", type=click.IntRange(min=0), help="Exit with 3 if more lines than that were rejected."
        ),
        click.option("--dry-run", is_flag=True, help="Read and count, load nothing."),
    ):
        command = option(command)
    return destination_options(wait_option(command))
