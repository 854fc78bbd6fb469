"""Shows the progress and the result of a load."""

import dataclasses
import itertools
import re
import time
from collections.abc import Iterable
from typing import Any, Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ..catalog import BOOKS, REJECT_REASONS
from ..display import json_text, plural
from ..errors import NothingFound, TooManyRejects
from ..masking import masked
from ..sources.adopt.files import NOT_ADOPTED_BECAUSE
from ..sources.archive.discover import LEFT_OUT
from ..sources.report import LoadReport, limit_warning
from . import log, notes, out

Counted = Literal["files", "tables", "contacts", "people", "people read", "rows"]
"""The unit of a run's progress: `tables` of a database, `people` to request events of, `people read` by a scan."""
LOG_SECONDS = 5.0
WIDE_TERMINAL = 120  # columns that have room for everything
MOST_CAUSES = 3  # of lines that are not JSON
_LARGE = re.compile(r"\d{2,3}(,\d{3})+|\d(,\d{3}){2,}")
_TASKS = ("tasks", "tasks_done")  # counts that only an engine has
OF_FILES = {"files": "file", "tables": "table"}  # the units that a report counts as its files
_STEPS = {"extract": "reading", "normalize": "handing over", "load": "loading"}


class _Bytes(DownloadColumn):
    """Shows the bytes read and their total, if the load knows the total."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.fields["has_bytes"] else Text()


class ProgressDisplay:
    """Shows the progress of a run: a bar on a terminal, log lines elsewhere.

    The bar measures the unit `counted`, or the bytes of files if they are known. `last` is the latest report.
    """

    def __init__(self, console: Console, counted: Counted = "files") -> None:
        self.last = LoadReport()
        self._console = console
        self._counted = counted
        self._step = ""
        self._logged = 0.0
        self._warned = 0
        self._json = log.log_settings().json
        self._wide = console.width >= WIDE_TERMINAL
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn() if self._wide else BarColumn(bar_width=None),
            TaskProgressColumn(),
            *((_Bytes(),) if self._wide and counted == "files" else ()),
            TextColumn("{task.fields[counts]}"),
            TimeElapsedColumn(),
            *((TimeRemainingColumn(),) if self._wide else ()),
            console=console,
            transient=True,
            expand=not self._wide,
            disable=self._json or not console.is_terminal,
        )
        self._task = self._bar.add_task("looking", total=None, counts="", has_bytes=False)
        self._started = time.monotonic()

    def __enter__(self) -> "ProgressDisplay":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if not self._bar.disable:  # rich before 15 would write an empty line
            self._bar.stop()

    def report(self, report: LoadReport) -> None:
        """Shows a report's counts, and the warnings that were not shown before."""
        self.last = report
        for warning in report.warnings[self._warned :]:
            self.warn(warning)
        self._warned = len(report.warnings)
        if self._counted in OF_FILES:
            self._show_files(report)
        else:
            self._show_scan(report)

    def _show_scan(self, report: LoadReport) -> None:
        # A run first reads people, until it knows whose events to request.
        is_read = self._counted == "people" and report.people_total is None and report.contacts
        counted: Counted = "people read" if is_read else self._counted
        done, total = _done(report, counted)
        # Rows are counted only at the end, so bytes show the progress.
        read = _size(report) if counted == "rows" else _of(report, counted)
        counts = f"{read}  {plural(report.lines, 'event')}"
        self._bar.update(self._task, completed=done, total=total, counts=self._fitting(counts))
        self._log(counts)

    def _show_files(self, report: LoadReport) -> None:
        rate = report.lines / max(time.monotonic() - self._started, 0.001)
        counts = f"{report.files_done:,}/{plural(report.files, OF_FILES[self._counted])}"
        counts += f"  {plural(report.lines, 'event')}  {rate:,.0f}/s"
        counts += f"  {report.tasks_done:,}/{plural(report.tasks, 'task')}" if report.tasks else ""
        done, total = (report.bytes_done, report.bytes) if report.bytes else (report.files_done, report.files)
        self._bar.update(
            self._task, completed=done, total=total, has_bytes=report.bytes > 0, counts=self._fitting(counts)
        )
        size = f"{report.bytes_done / 1e6:,.1f} of {report.bytes / 1e6:,.1f} MB  " if report.bytes else ""
        self._log(size + counts)

    def _fitting(self, counts: str) -> str:
        """Returns the counts, with large numbers rounded if the terminal is narrow."""
        return counts if self._wide else _LARGE.sub(lambda found: _rounded(found[0]), counts)

    def warn(self, text: str) -> None:
        """Shows a warning, above the bar if there is one."""
        if self._json:
            log.warn(text)
        else:
            out.above(self._console, f"Warning: {masked(text)}")

    def step(self, name: str) -> None:
        """Shows that dlt begins a step."""
        self._step = _STEPS.get(name, name)
        self._bar.update(self._task, description=self._step)
        self._log("", now=True)

    def _log(self, text: str, now: bool = False) -> None:
        if not (now or time.monotonic() - self._logged >= LOG_SECONDS):
            return
        if self._json:
            log.line("info", self._step, **_counts(self.last))
        elif self._console.is_terminal:
            return
        else:
            out.above(self._console, f"{time.strftime('%H:%M:%S')} {self._step} {text}".rstrip())
        self._logged = time.monotonic()


def _rounded(number: str) -> str:
    """Returns a number with one decimal and a unit. Example: `1.2M` for `1,234,567`."""
    value = int(number.replace(",", ""))
    unit, size = next(((unit, size) for unit, size in (("G", 1e9), ("M", 1e6)) if value >= size), ("k", 1e3))
    return f"{value / size:.1f}{unit}"


def _counts(report: LoadReport) -> dict[str, Any]:
    """Returns the report's values that are not empty, for a log line."""
    return {name: value for name, value in dataclasses.asdict(report).items() if value}


def _done(report: LoadReport, counted: Counted) -> tuple[int, int | None]:
    if counted == "people":
        return report.people, report.people_total
    if counted == "rows":
        books = {table.name for table in BOOKS}
        return sum(rows for table, rows in report.rows.items() if table not in books), None
    return report.contacts, report.contacts_total


def _of(report: LoadReport, counted: Counted) -> str:
    """Returns the progress in the unit `counted`. Example: `250 of 1,000 contacts`."""
    done, total = _done(report, counted)
    if counted == "rows":
        return plural(done, "row")
    of, number = ("", done) if total is None else (f"{done:,} of ", total)
    return of + (plural(number, "contact") if counted == "contacts" else plural(number, "person", "people"))


def _size(report: LoadReport) -> str:
    return f"{report.bytes_done / 1e6:,.1f} MB"


def print_result(report: LoadReport, as_json: bool, dry_run: bool, location: dict[str, str], counted: Counted) -> None:
    """Prints a load's counts and where its data is, as text or as JSON, and stores them for the webhook's note."""
    skipped = f" {report.lines_skipped:,} skipped," if report.lines_skipped else ""
    counts = (
        f"{plural(report.lines, 'line')}, {report.stored:,} stored, {plural(report.duplicates, 'duplicate')},"
        f" {report.rejected:,} rejected,{skipped} {plural(report.discards, 'value')} discarded"
    )
    whole = plural(report.mended, "text that was cut is", "texts that were cut are") + " whole again"
    mended = whole if report.mended else ""
    notes.summarise(", ".join(filter(None, (counts, mended, f"{report.seconds:.1f} s"))))
    if log.log_settings().json:
        log.line("info", "done", **_counts(report), into=location, dry_run=dry_run)
    if as_json:
        without = () if report.tasks else _TASKS
        values = {name: value for name, value in dataclasses.asdict(report).items() if name not in without}
        out.print_line(json_text({**values, "into": location, "dry_run": dry_run}))
        return
    _print_tables_and_lines(report, dry_run, (counts, mended), counted)
    out.print_wrapped(_work(report, counted))
    out.print_wrapped(f"into {location['location']}, dataset {location['dataset']}, pipeline {location['pipeline']}")


def _print_tables_and_lines(report: LoadReport, dry_run: bool, totals: Iterable[str], counted: Counted) -> None:
    """Prints the rows of each table, the totals of the lines, and why some are missing."""
    if report.rows:
        out.counts("would load" if dry_run else None, ("table", "rows"), sorted(report.rows.items()))
        out.print_line()
    for text in filter(None, totals):
        out.print_wrapped(text)
    for reason, count in report.rejects.items():
        out.print_wrapped(f"  {count:,} {reason}: {REJECT_REASONS.get(reason, '')}")
        if reason == "not_json":
            _print_causes(report, dry_run)
    for reason, tables in report.beyond_limits.items():
        out.print_wrapped(f"  {limit_warning(reason, tables)}")
    for file, why in report.unfinished.items():
        out.print_wrapped(masked(f"  {file} {'is read again' if counted in OF_FILES else 'goes on'} next time: {why}"))
    for why, count in report.skipped.items():
        names = report.skipped_examples[why]
        because = (LEFT_OUT | NOT_ADOPTED_BECAUSE)[why]
        out.print_wrapped(f"  {count:,} left out ({because}): {', '.join(names)}{', …' * (count > len(names))}")


def _print_causes(report: LoadReport, dry_run: bool) -> None:
    """Prints the most likely causes of lines that are not JSON, or where to find what they have."""
    for cause, count in itertools.islice(report.reject_causes.items(), MOST_CAUSES):
        out.print_wrapped(f"    {count:,} likely {cause}")
    if not dry_run and sum(report.reject_causes.values()) < report.rejects["not_json"]:
        out.print_line("    what is there instead: see _rejects.message")


def _work(report: LoadReport, counted: Counted) -> str:
    if counted not in OF_FILES:
        found = f", found by {report.people_found_by}" if report.people_found_by else ""
        return f"{_of(report, counted)}{found}, {_size(report)}, {report.seconds:.1f} s"
    rate = report.lines / max(report.seconds, 0.001)
    size = f" {report.bytes / 1e6:,.1f} MB," if counted == "files" else ""
    return (
        f"{plural(report.files, f'new {OF_FILES[counted]}')}, {report.files_known:,} known,{size}"
        f" {report.seconds:.1f} s, {rate:,.0f} events/s"
    )


def check_rejects(report: LoadReport, most: int | None) -> None:
    """Raises TooManyRejects if more than `most` lines were rejected, not counting messages of deleted persons."""
    rejected = report.rejected - report.rejects.get("suppressed", 0)
    if most is not None and rejected > most:
        raise TooManyRejects(f"{rejected:,} rejected, more than --max-rejects {most:,}; the rest is loaded.")


def check_found(report: LoadReport, fail_if_empty: bool) -> None:
    """Raises NothingFound if `--fail-if-empty` was given and no file was found, not even a known one."""
    if fail_if_empty and not report.files + report.files_known:
        raise NothingFound("No file was found, and --fail-if-empty was given.")
