"""The command that loads from Segment's Profile API."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ..errors import RunError
from . import log
from .options import LoadOptions, NameList, Time, load_options

if TYPE_CHECKING:
    from dlt.sources import DltSource

    from ..sources.report import LoadReport
    from .progress import ProgressDisplay

REGIONS = ("us", "eu")
PEOPLE_PER_LOAD = 20_000  # some minutes of work, which is the most that a killed run loses
_NO_SPACE = "Which space? Name it (--space), or set sources.autopilothq.profiles.space in dlt's configuration."


@click.command("profiles", short_help="Load 14 days of whole events from Segment's Profile API.")
@click.option(
    "--people",
    metavar="api|FILE|SQL",
    help="Whose events: of contacts with new activity (api), of the ids in a file, or of a query.",
)
@click.option("--space", metavar="ID", help="The space of Segment Unify.")
@click.option("--region", type=click.Choice(REGIONS), help="Where the space is.  [default: us]")
@click.option("--source-id", metavar="ID", help="Load only events of this Segment source.")
@click.option("--events", type=NameList(), metavar="NAME,...", help="Which events.  [default: the seven of Autopilot]")
@click.option("--since", type=Time(), metavar="TIME", help="The time of the first event to load.")
@load_options
def load_profiles(options: LoadOptions, **settings: Any) -> None:
    """Load complete email events of the last 14 days from Segment's Profile API.

    The access token is the setting sources.autopilothq.profiles.token of dlt's configuration.
    """
    from .loading import run_load_command

    settings["allow_http"] = log.allowed_http()
    given = {name: value for name, value in settings.items() if value is not None}

    def sources(display: "ProgressDisplay") -> "Iterator[DltSource]":
        if options.dry_run:
            yield _source(**given, progress=display.report)
        else:
            yield from _parts(display, given)

    run_load_command(sources, options, "people")


def _parts(display: "ProgressDisplay", settings: dict[str, Any]) -> "Iterator[DltSource]":
    """Yields a source for each PEOPLE_PER_LOAD people, until nobody is left to request; reports their sums."""
    from ..sources.report import LoadReport

    part = whole = LoadReport()

    def report_sum(report: "LoadReport") -> None:
        nonlocal part
        part = report
        display.report(whole.then(report))

    while True:
        yield _source(**settings, people_per_load=PEOPLE_PER_LOAD, progress=report_sum)
        whole = whole.then(part)
        if part.cut_off or part.people >= (part.people_total or 0):
            return


def _source(**settings: Any) -> "DltSource":
    """Returns the source; settings that are not given come from dlt's configuration."""
    from dlt.common.configuration.exceptions import ConfigFieldMissingException

    from ..clients.auth import missing_key
    from ..explain import explained
    from ..sources.profiles.source import profiles

    with explained():
        try:
            source: DltSource = profiles(**settings)
        except ConfigFieldMissingException as error:
            if error.fields[0] == "space":
                raise RunError(_NO_SPACE) from error
            what = "an access token of Segment's Profile API"
            raise RunError(missing_key(what, "sources.autopilothq.profiles.token")) from error
        return source
