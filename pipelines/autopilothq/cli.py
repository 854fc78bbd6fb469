"""The commands: arguments in, `run` called, results printed."""

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import click
import dlt
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from . import cli_inspect, run, sample
from .catalog import REJECT_REASONS
from .run import RunError, Steps
from .source import Report, archive

FAILED, TOO_MANY_REJECTS = 1, 3
LOG_SECONDS = 5.0
_DAY = click.DateTime(formats=["%Y-%m-%d"])
_STEPS = {"extract": "reading", "normalize": "handing over", "load": "loading"}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="dlt-autopilothq")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Autopilot's email events in DuckDB or a warehouse, as the autopilothq schema."""
    context.obj = debug
    run.configure(**({} if debug else {"runtime__log_level": "ERROR"}))


@cli.group()
def load() -> None:
    """Load email events into the warehouse."""


def _destination_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--dataset", help=f"The schema to load into.  [default: {run.DATASET}]"),
        click.option("--credentials", help=f"dlt's credentials of it.  [default: {run.DUCKDB_FILE}]"),
        click.option("--destination", help="dlt's name of the destination.  [default: duckdb]"),
    ):
        command = option(command)
    return command


@load.command("archive")
@click.argument("urls", metavar="[URL]...", nargs=-1)
@click.option("--since", type=_DAY, help="The first day to read (UTC).")
@click.option("--until", type=_DAY, help="The last day to read (UTC).")
@click.option("--source-id", help="The one Segment source to read.")
@_destination_options
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
            run.run(run.pipeline(destination, credentials, dataset, Steps(watch)), source)
    watch.last.seconds = time.monotonic() - started
    _print(watch.last, as_json, dry_run)
    if max_rejects is not None and watch.last.rejected > max_rejects:
        sys.exit(TOO_MANY_REJECTS)


@cli.command("sample")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False))
@click.option("--events", type=click.IntRange(min=1), default=10_000, show_default=True, help="How many messages.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same archive.")
def write_sample(folder: str, events: int, seed: int) -> None:
    """Write a believable archive to try things with."""
    files = sample.write(folder, events, seed)
    click.echo(f"{events:,} messages in {len(files)} files below {folder}")


class Watching:
    """Shows a run: a bar on a terminal, lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self.last = Report()
        self._console = console
        self._step = ""
        self._logged = 0.0
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            DownloadColumn(),
            TextColumn("{task.fields[counts]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("looking", total=None, counts="")
        self._started = time.monotonic()

    def __enter__(self) -> "Watching":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def report(self, report: Report) -> None:
        """Shows the counts."""
        self.last = report
        rate = report.lines / max(time.monotonic() - self._started, 0.001)
        counts = f"{report.files_done}/{report.files} files  {report.lines:,} events  {rate:,.0f}/s"
        self._bar.update(self._task, completed=report.bytes_done, total=report.bytes, counts=counts)
        self._log(f"{report.bytes_done / 1e6:,.1f} of {report.bytes / 1e6:,.1f} MB  {counts}")

    def step(self, name: str) -> None:
        """Shows dlt's step."""
        self._step = _STEPS.get(name, name)
        self._bar.update(self._task, description=self._step)
        self._log("", now=True)

    def _log(self, text: str, now: bool = False) -> None:
        if self._console.is_terminal or not (now or time.monotonic() - self._logged >= LOG_SECONDS):
            return
        self._logged = time.monotonic()
        self._console.print(f"{time.strftime('%H:%M:%S')} {self._step} {text}".rstrip(), highlight=False)


def _print(report: Report, as_json: bool, dry_run: bool) -> None:
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(report), "dry_run": dry_run}))
        return
    console = Console()
    table = Table(title="would load" if dry_run else None, box=None, pad_edge=False)
    table.add_column("table")
    table.add_column("rows", justify="right")
    for name, rows in sorted(report.rows.items()):
        table.add_row(name, f"{rows:,}")
    if report.rows:
        console.print(table)
        console.print()
    click.echo(
        f"{report.lines:,} lines, {report.stored:,} stored, {report.duplicates:,} duplicates,"
        f" {report.rejected:,} rejected, {report.discards:,} values discarded"
    )
    for reason, count in report.rejects.items():
        click.echo(f"  {count:,} {reason}: {REJECT_REASONS.get(reason, '')}")
    for file, why in report.unfinished.items():
        click.echo(f"  {file} is read again next time: {why}")
    rate = report.lines / max(report.seconds, 0.001)
    click.echo(
        f"{report.files:,} new files, {report.files_known:,} known, {report.bytes / 1e6:,.1f} MB,"
        f" {report.seconds:.1f} s, {rate:,.0f} events/s"
    )


cli.add_command(cli_inspect.schema)
cli.add_command(cli_inspect.status)


def main() -> None:
    """The program `autopilothq`. Exit status: 0 done, 1 failed, 2 wrong words, 3 more rejects than allowed."""
    debug = "--debug" in sys.argv[1:]
    try:
        cli(standalone_mode=True)
    except RunError as error:
        if debug:
            raise
        click.echo(f"Error: {error}", err=True)
        sys.exit(FAILED)
