"""The command that loads from Segment's Profile API."""

import itertools
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import click
from dlt.common.configuration.exceptions import ConfigFieldMissingException
from dlt.sources import DltSource
from rich.console import Console

from .. import runner
from ..clients.profile_api import BASE_URLS
from ..errors import RunError
from ..runner import Steps
from ..sources.profiles.source import profiles
from ..sources.report import LoadReport
from . import log
from .load import KEPT, Time
from .options import load_options, where
from .progress import ProgressDisplay, check_rejects, print_result

PEOPLE_PER_LOAD = 20_000  # minutes of work, which are lost at most
MISSING = {
    "token": "Expected an access token of Segment's Profile API, but there is none: set token",
    "space": "Which space? Name it (--space), or set space",
}


class _Names(click.ParamType[list[str]]):
    """Names of events, joined by commas."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> list[str]:
        """The names."""
        names = [name.strip() for name in value.split(",") if name.strip()]
        if not names:
            self.fail('expected names of events, like "Email Opened,Email Clicked".', param, context)
        return names


@click.command("profiles")
@click.option("--people", metavar="api|FILE|SQL", help="Whose: contacts with news, a file of ids, or a query of them.")
@click.option("--space", metavar="ID", help="The space of Segment Unify.")
@click.option("--region", type=click.Choice(list(BASE_URLS)), help="Where the space is.  [default: us]")
@click.option("--source-id", metavar="ID", help="The one Segment source to take events of.")
@click.option("--events", type=_Names(), metavar="NAME,...", help="Which events.  [default: the seven of Autopilot]")
@click.option("--since", type=Time(), metavar="TIME", help="The time of the first event to load.")
@load_options
def load_profiles(
    people: str | None,
    space: str | None,
    region: str | None,
    source_id: str | None,
    events: list[str] | None,
    since: datetime | None,
    destination: str | None,
    credentials: str | None,
    dataset: str | None,
    wait: timedelta,
    dry_run: bool,
    max_rejects: int | None,
    as_json: bool,
) -> None:
    """Load complete email events of the last 14 days from Segment's Profile API.

    The access token is the setting sources.autopilothq.profiles.token of dlt's configuration.
    """
    words = {
        "people": people, "space": space, "region": region, "source_id": source_id, "events": events, "since": since,
        "allow_http": log.allowed_http(),
    }  # fmt: skip
    given = {name: word for name, word in words.items() if word is not None}
    started = time.monotonic()
    with ProgressDisplay(Console(stderr=True), "people") as watch:
        goal = where(destination, credentials, dataset)
        if dry_run:
            runner.dry_run(destination, credentials, dataset, Steps(watch), _source(**given, progress=watch.report))
        else:
            parts = _parts(watch, given)
            first = next(parts)  # before anything is opened, so that wrong settings are told at once
            into = runner.pipeline(destination, credentials, dataset, Steps(watch), wait=wait)
            runner.run(into, itertools.chain([first], parts), wait)
    watch.last.seconds = time.monotonic() - started
    print_result(watch.last, as_json, dry_run, goal, "people")
    if watch.last.cut_off:
        raise RunError(watch.last.cut_off if dry_run else f"{watch.last.cut_off}\n{KEPT}")
    check_rejects(watch.last, max_rejects)


def _parts(watch: ProgressDisplay, words: dict[str, Any]) -> Iterator[DltSource]:
    """A run as loads of so many people each, until nobody is due."""
    part = whole = LoadReport()

    def tell(report: LoadReport) -> None:
        nonlocal part
        part = report
        watch.report(whole.then(report))

    while True:
        yield _source(**words, people_per_load=PEOPLE_PER_LOAD, progress=tell)
        whole = whole.then(part)
        if part.cut_off or part.people >= (part.people_total or 0):
            return


def _source(**words: Any) -> DltSource:
    """The source; what is not given comes from dlt's configuration."""
    with runner.explained():
        try:
            source: DltSource = profiles(**words)
        except ConfigFieldMissingException as error:
            missing = MISSING.get(error.fields[0], f"Set {error.fields[0]}")
            raise RunError(f"{missing} under [sources.autopilothq.profiles] of dlt's configuration.") from error
        return source
