"""Runs the commands that load: shows the progress and the result, and sets the exit status."""

import itertools
import math
import time
from collections.abc import Callable, Iterator

from dlt.sources import DltSource
from rich.console import Console

from .. import runner
from ..catalog import CONTACTS
from ..display import plural
from ..errors import RunError
from ..sources.report import LoadReport
from . import out
from .options import LoadOptions, describe_target, freeze_modules
from .progress import Counted, ProgressDisplay, check_rejects, print_result


def _failed(report: LoadReport, dry_run: bool) -> str:
    """Returns a message that names the parts that failed, and says how to leave them out."""
    from .load import API_TABLES

    without = {*report.failed, *(["events"] if CONTACTS.name in report.failed else [])}  # events are made of contacts
    others = [name for name in API_TABLES if name not in without]
    rest = "" if dry_run else " Everything else is loaded."
    hint = f"To leave that out: --only {','.join(others)}." if others else "The warnings above say why."
    return f"Some of it could not be loaded: {', '.join(report.failed)}.{rest}\n{hint}"


def run_load_command(
    sources: Callable[[ProgressDisplay], Iterator[DltSource]], options: LoadOptions, counted: Counted = "files"
) -> LoadReport:
    """Loads sources one by one (a dry run only reads the first), then prints and returns the report.

    `sources` gets the display to which its sources report. Raises RunError if a load failed or was cut off, and
    TooManyRejects if more lines were rejected than `--max-rejects` allows.
    """
    freeze_modules()
    started = time.monotonic()
    completed = 0
    with ProgressDisplay(Console(stderr=True), counted) as display:
        parts = sources(display)
        first = next(parts)  # before anything is opened, so that wrong settings are reported at once
        location = describe_target(options.target)
        steps = runner.Steps(display)
        if options.dry_run:
            runner.dry_run(options.target, steps, first, options.wait)
        else:
            into = runner.pipeline(*options.target, steps, wait=options.wait)
            waiting = {*into.list_extracted_load_packages(), *into.list_normalized_load_packages()}
            runner.run(into, itertools.chain([first], parts), options.wait)
            completed = len(waiting.intersection(into.list_completed_load_packages())) if waiting else 0
    report = display.last
    report.seconds = time.monotonic() - started
    print_result(report, options.as_json, options.dry_run, location, counted)
    if completed and not options.as_json:
        loads = plural(completed, "earlier load that waited is", "earlier loads that waited are")
        out.print_wrapped(f"{loads} complete now, whose rows are not counted here")
    if report.failed and not report.cut_off:
        raise RunError(_failed(report, options.dry_run))
    if report.cut_off:
        resumes = "" if options.dry_run else "\nWhat came by then is loaded; the next run goes on from there."
        raise RunError(f"{report.cut_off}{resumes}")
    check_rejects(report, options.max_rejects)
    return report


def parts(
    display: ProgressDisplay, source: Callable[[Callable[[LoadReport], None]], DltSource], end: float = math.inf
) -> Iterator[DltSource]:
    """Yields a source for each part of the people, until all are requested or `end` (monotonic time) is reached.

    A part that was cut off is the last one, too. `source` makes a source that reports to the given function. The
    display shows the sums of all parts.
    """
    part = whole = LoadReport()

    def report_sum(report: LoadReport) -> None:
        nonlocal part
        part = report
        display.report(whole.then(report))

    while True:
        yield source(report_sum)
        whole = whole.then(part)
        is_over = time.monotonic() >= end
        if is_over or part.cut_off or not part.people or part.people >= (part.people_total or 0):
            return
