"""The command `load ortto`, which loads from Ortto's API."""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from ..catalog import BOOKS, EVENT_TABLE_NAMES, EVENTS_RESOURCE, ORTTO_ACCOUNT, PROFILES, TRACKS
from ..warehouses.settings import typed_settings
from . import log
from .options import LoadOptions, NameList, Time, load_options, max_seconds_option, require_value

if TYPE_CHECKING:
    from dlt.sources import DltSource

    from ..sources.report import LoadReport
    from .progress import Counted, ProgressDisplay

# The limits of one load; a run stores the rows of each load as it ends. At Ortto's rate limit, the seconds run out
# first, after some 900 people.
ORTTO_PEOPLE_PER_LOAD = 20_000
SECONDS_PER_LOAD = 900.0
DRY_SECONDS = 60.0  # seconds for which a dry run requests people
_EVENTS = "events"
# The tables that the command can load, by their names for `--only`.
ORTTO_TABLES: dict[str, list[str]] = {_EVENTS: [PROFILES.name, TRACKS.name, *EVENT_TABLE_NAMES, EVENTS_RESOURCE]}
for _table in ORTTO_ACCOUNT:
    _name = _table.name.removeprefix("ortto_")
    ORTTO_TABLES.setdefault("audiences" if _name == "audience_members" else _name, []).append(_table.name)
_ALL = [name for name in ORTTO_TABLES if name != "campaign_reports"]  # Ortto allows 60 reports in ten minutes


@click.command("ortto", short_help="Load activities, people, audiences and tags from Ortto.")
@click.option(
    "--people",
    metavar="active|all|FILE|SQL",
    callback=require_value,
    help="Whose activities: those who were active since the last run, everyone, or a list.  [default: active]",
)
@click.option("--since", type=Time(), metavar="TIME", help="The time of the first activity to load.")
@click.option(
    "--only",
    type=NameList(ORTTO_TABLES),
    metavar="NAME,...",
    help=f"Some of {', '.join(ORTTO_TABLES)}.  [default: all but the last]",
)
@click.option(
    "--activities", metavar="NAME,...", help="More kinds of activities: ids, names, custom or all.  [default: email]"
)
@click.option("--region", type=click.Choice(("au", "eu")), help="Where the account is, if in Australia or Europe.")
@max_seconds_option
@load_options
def load_ortto(options: LoadOptions, only: list[str] | None, since: datetime | None, **settings: Any) -> None:
    """Load email activities of the last 90 days, people, audiences, tags and campaigns from Ortto's API.

    The key is the setting sources.autopilothq.ortto.api_key of dlt's configuration. Ortto returns the activities of one
    person a second, so a first run is long. It may be stopped at any time, and the next one continues.
    """
    from .loading import run_load_command

    settings |= {"since": since, "allow_http": log.allowed_http()}
    given = typed_settings("sources.autopilothq.ortto", {"max_seconds": float})  # for all parts together
    given |= {name: value for name, value in settings.items() if value is not None}
    names = only or _ALL

    def sources(display: "ProgressDisplay") -> "Iterator[DltSource]":
        if options.dry_run:
            yield _source(names, given | {"progress": display.report, "seconds_per_load": DRY_SECONDS})
        else:
            yield from _parts(display, names, given)

    of_scans: Counted = "people read" if "people" in names else "rows"
    run_load_command(sources, options, "people" if _EVENTS in names else of_scans)


def _parts(display: "ProgressDisplay", names: list[str], settings: dict[str, Any]) -> "Iterator[DltSource]":
    """Returns the sources of all parts. Only the first one has other tables than those of activities."""
    from .loading import parts

    end = time.monotonic() + settings.get("max_seconds", math.inf)
    limits = {"people_per_load": ORTTO_PEOPLE_PER_LOAD, "seconds_per_load": SECONDS_PER_LOAD}
    left = itertools.chain([names], itertools.repeat([_EVENTS]))

    def source(report: "Callable[[LoadReport], None]") -> "DltSource":
        seconds = {} if end == math.inf else {"max_seconds": max(0.0, end - time.monotonic())}
        return _source(next(left), settings | limits | seconds | {"progress": report})

    return parts(display, source, end)


def _source(names: list[str], settings: dict[str, Any]) -> "DltSource":
    """Returns the source of the tables of `names`. Missing settings come from dlt's configuration."""
    from ..explain import explained
    from ..sources.ortto.source import ortto

    with explained():
        source: DltSource = ortto(**settings)
        tables = [table for name in names for table in ORTTO_TABLES[name]]
        return source.with_resources(*tables, *(table.name for table in BOOKS))
