"""The command `report`, which writes a page about the results of emails."""

from datetime import datetime, timedelta
from typing import Any

import click

from ..warehouses.settings import TargetOptions
from .options import LocalPath, Time, check_period, json_option, target_options, wait_option

OUTPUT = "report.html"


class _PercentLimit(click.ParamType[tuple[str, tuple[float, float]]]):
    """A limit of a rate: `bounces=2`, or `complaints=0.1:0.3` with the goal before the limit."""

    name = "limit"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parses the limit."""
        from ..report import RATE_LIMITS

        name, _, numbers = str(value).partition("=")
        goal, _, most = numbers.partition(":")
        try:
            found = (float(goal), float(most or goal))
        except ValueError:
            found = (0.0, 0.0)
        if name not in RATE_LIMITS or not 0 < found[0] <= found[1] <= 100:
            self.fail(
                f"Expected one of {', '.join(RATE_LIMITS)} with percents, such as bounces=2 or complaints=0.1:0.3, but"
                f" got {value!r}.",
                param,
                ctx,
            )
        return name, found


@click.command(short_help="Write a page about the results of emails.")
@click.option("--output", type=LocalPath(), metavar="FILE", help=f"Where the page is written.  [default: {OUTPUT}]")
@click.option("--since", type=Time(), metavar="TIME", help="Only mail that was sent from then on.")
@click.option("--until", type=Time(), metavar="TIME", help="Only mail that was sent before that.")
@click.option(
    "--journey", "journeys", metavar="NAME", multiple=True, help="Only this journey, by its name or id; repeatable."
)
@click.option(
    "--limit",
    "limits",
    type=_PercentLimit(),
    metavar="NAME=PERCENT",
    multiple=True,
    help="A rate's limit, or its goal and limit; repeatable.  [default: bounces=2, complaints=0.1:0.3,"
    " unsubscribes=0.5]",
)
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
@json_option
@target_options
@wait_option
def report(
    output: str | None,
    since: datetime | None,
    until: datetime | None,
    journeys: tuple[str, ...],
    limits: tuple[tuple[str, tuple[float, float]], ...],
    show: bool,
    as_json: bool,
    target: TargetOptions,
    wait: timedelta,
) -> None:
    """Write a page about the results of emails, and about how far the numbers can be trusted.

    It is one HTML file without scripts, which can also be sent by email. With --json the numbers are printed, and the
    page is written only if --output or --open is given.
    """
    from . import reporting

    check_period(since, until)
    found = reporting.read(since, until, journeys, dict(limits), target, wait)
    if as_json:
        reporting.print_numbers(found)
    if not as_json or output or show:
        reporting.write_page(found, output or OUTPUT, show, quiet=as_json)
