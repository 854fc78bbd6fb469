"""Runs `report`: reads the numbers and writes the page."""

import webbrowser
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from .. import disk, inspect
from ..display import json_text, plural, shortened
from ..report import RATE_LIMITS, Absent, RateLimit, Report, read_report, report_dict, report_page
from ..warehouses.settings import TargetOptions
from . import log, out

MOST_REASON = 200  # characters that are shown of the reason why a part is empty


def read(
    since: datetime | None,
    until: datetime | None,
    journeys: Sequence[str],
    limits: Mapping[str, tuple[float, float]],
    target: TargetOptions,
    wait: timedelta,
) -> Report:
    """Reads the numbers of a report from the target's dataset."""
    all_limits = RATE_LIMITS | {name: RateLimit(*limit) for name, limit in limits.items()}
    with inspect.reading(*target, wait=wait, warn=log.warn) as dataset:
        return read_report(dataset, datetime.now(UTC), since, until, journeys, all_limits)


def print_numbers(found: Report) -> None:
    """Prints the numbers as JSON."""
    out.document(json_text(report_dict(found), indent=2))


def write_page(found: Report, output: str, show: bool, quiet: bool) -> None:
    """Writes the page atomically, and opens it in the browser if `show`. Raises BadParameter if it cannot write."""
    path, page = Path(output), report_page(found).encode()
    try:
        with disk.rewriting(path) as file:
            file.write(page)
    except OSError as error:
        raise click.BadParameter(f"{output} cannot be written: {error.strerror}.", param_hint="--output") from None
    if not quiet:
        out.print_lines(_summary(found, path))
    if show and not webbrowser.open(path.absolute().as_uri()):
        log.warn(f"There is no browser here. Open {path.absolute()} yourself.")


def _summary(found: Report, path: Path) -> Iterator[str]:
    period = found.period
    days = f"{period.first:%Y-%m-%d} to {period.last:%Y-%m-%d}, " if period.first and period.last else ""
    yield f"{path}: {days}{plural(period.events, 'email event')}, {path.stat().st_size / 1000:,.0f} kB"
    names: dict[str, list[str]] = {}
    for name, part in vars(found).items():
        if isinstance(part, Absent):
            names.setdefault(shortened(part.reason, MOST_REASON), []).append(name)
    for reason, absent in names.items():
        yield from out.wrapped(f"  no {', '.join(absent)}: {reason}", "    ")
