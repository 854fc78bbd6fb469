"""The command `load profiles`, which loads from Segment's Profile API."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from . import log
from .configuring import missing_explained
from .options import LoadOptions, NameList, Time, load_options, require_value

if TYPE_CHECKING:
    from dlt.sources import DltSource

    from .progress import ProgressDisplay

REGIONS = ("us", "eu")
PEOPLE_PER_LOAD = 20_000  # some minutes of work, the most that a killed run loses
_NO_SPACE = "Which space? Name it (--space), or set sources.autopilothq.profiles.space in dlt's configuration."


@click.command("profiles", short_help="Load complete events of 14 days from Segment's Profile API.")
@click.option(
    "--people",
    metavar="api|FILE|SQL",
    callback=require_value,
    help="Whose events: of contacts with new activity (api), of the ids in a file, or of a query."
    "  [default: api, if Autopilot's key is set]",
)
@click.option("--space", metavar="ID", callback=require_value, help="The space of Segment Unify.")
@click.option("--region", type=click.Choice(REGIONS), help="Where the space is.  [default: us]")
@click.option("--source-id", metavar="ID", callback=require_value, help="Load only events of this Segment source.")
@click.option("--events", type=NameList(), metavar="NAME,...", help="Which events.  [default: the seven of Autopilot]")
@click.option("--since", type=Time(), metavar="TIME", help="The time of the first event to load.")
@load_options
def load_profiles(options: LoadOptions, **settings: Any) -> None:
    """Load complete email events of the last 14 days from Segment's Profile API.

    The access token is the setting sources.autopilothq.profiles.token of dlt's configuration.
    """
    from .loading import parts, run_load_command

    settings["allow_http"] = log.allowed_http()
    given = {name: value for name, value in settings.items() if value is not None}

    def sources(display: "ProgressDisplay") -> "Iterator[DltSource]":
        if options.dry_run:
            yield _source(**given, progress=display.report)
        else:
            limited = given | {"people_per_load": PEOPLE_PER_LOAD}
            yield from parts(display, lambda report: _source(**limited, progress=report))

    run_load_command(sources, options, "people")


def _source(**settings: Any) -> "DltSource":
    """Returns the source. Missing settings come from dlt's configuration."""
    from ..clients.auth import missing_key
    from ..explain import explained
    from ..sources.profiles.source import profiles

    no_token = missing_key("an access token of Segment's Profile API", "sources.autopilothq.profiles.token")
    with explained(), missing_explained(token=no_token, space=_NO_SPACE):
        source: DltSource = profiles(**settings)
        return source
