"""The commands that load."""

import sys
import time
from datetime import timedelta
from typing import Any

import click
import dlt
from rich.console import Console

from .. import run, sample
from ..run import Steps
from ..source import archive
from .options import destination_options, wait_option
from .watching import Watching, print_result

TOO_MANY_REJECTS = 3
_DAY = click.DateTime(formats=["%Y-%m-%d"])


@click.group()
def load() -> None:
    """Load email events into the warehouse."""


@load.command("archive")
@click.argument("urls", metavar="[URL]...", nargs=-1)
@click.option("--since", type=_DAY, help="The first day to read (UTC).")
@click.option("--until", type=_DAY, help="The last day to read (UTC).")
@click.option("--source-id", help="The one Segment source to read.")
@destination_options
@wait_option
@click.option("--dry-run", is_flag=True, help="Read and count, load nothing.")
@click.option("--max-rejects", type=click.IntRange(min=0), help="Exit with 3 if more lines than that were rejected.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def load_archive(
    urls: tuple[str, ...],
    since: Any,
    until: Any,
    source_id: str | None,
    destination: str | None,
    credentials: str | None,
    dataset: str | None,
    wait: timedelta,
    dry_run: bool,
    max_rejects: int | None,
    as_json: bool,
) -> None:
    """Load Segment's raw archive: files, folders, globs, s3://, gs://, az://."""
    if since and until and since > until:
        raise click.BadParameter(f"{since:%Y-%m-%d} is after --until {until:%Y-%m-%d}.", param_hint="--since")
    if not urls and not dlt.config.get("sources.autopilothq.archive_url"):
        raise click.UsageError(
            "Which archive? Name a URL, or set sources.autopilothq.archive_url in dlt's configuration."
        )
    started = time.monotonic()
    with Watching(Console(stderr=True)) as watch:
        with run.explained():
            words: dict[str, Any] = {"archive_url": list(urls)} if urls else {}
            source = archive(
                **words,
                since=since and since.date(),
                until=until and until.date(),
                source_id=source_id,
                progress=watch.report,
            )
        if dry_run:
            run.dry_run(destination, credentials, dataset, Steps(watch), source)
        else:
            run.run(run.pipeline(destination, credentials, dataset, Steps(watch), wait=wait), source, wait)
    watch.last.seconds = time.monotonic() - started
    print_result(watch.last, as_json, dry_run)
    if max_rejects is not None and watch.last.rejected > max_rejects:
        sys.exit(TOO_MANY_REJECTS)


@click.command("sample")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False))
@click.option("--events", type=click.IntRange(min=1), default=10_000, show_default=True, help="How many messages.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same archive.")
def write_sample(folder: str, events: int, seed: int) -> None:
    """Write a believable archive to try things with."""
    files = sample.write(folder, events, seed)
    click.echo(f"{events:,} messages in {len(files)} files below {folder}")
