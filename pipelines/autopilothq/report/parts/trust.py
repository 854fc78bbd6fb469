"""The part about trust: the books of all lines, late events, and the last loads."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ...display import plural
from ..charts import bar, percent_short
from ..elements import Markup, data_cell, display_name, division, element, join, row, span, table
from ..numbers import ARRIVED_WITHIN, Absent, ArrivalDelays, Books, Reason, RecentRun, Report, TableAge
from ..wording import moment_of, number, percents, share
from . import card

_MOST_TABLES = 12
_Part = TypeVar("_Part")


def trust(report: Report) -> Markup:
    """Returns blocks about the books, arrival delays, rejects and discards, the last loads, and the age of tables."""
    audit, rejects, discards = (element("code", table) for table in ("_audit", "_rejects", "_discards"))
    run = f"The last known run: {report.last_run}." if report.last_run else None
    note = join(
        "From the books of all loads, whatever period is shown: ", audit, ", ", rejects, ", ", discards, ". ", run
    )
    books = report.books
    blocks = [
        _block("Every line is accounted for", books, _accounts),
        _block("Arrival after the event", report.arrival, _arrival),
        _block("Rejected lines", books, lambda found: _reasons(found.rejects)),
        _block("Values that did not fit", books, lambda found: _reasons(found.discards)),
        _block("The last loads", books, lambda found: _runs(found.runs, found.loads)),
        _block("Newest rows", report.ages, _ages),
    ]
    return card("trust", "Can the numbers be trusted", note, division("blocks", *blocks))


def _block(title: str, part: _Part | Absent, show: Callable[[_Part], Markup]) -> Markup:
    """Returns a block with what `show` makes of its numbers, or with the reason why there are none."""
    content = division("absent", part.reason) if isinstance(part, Absent) else show(part)
    return division("block", element("h3", title), content)


def _accounts(found: Books) -> Markup:
    total = found.total
    rows = [
        ("Loads", number(found.loads)),
        ("Files", number(total.files)),
        ("Lines", number(total.lines)),
        ("Stored", _of(total.stored, total.lines)),
        ("Duplicates, left out", _of(total.duplicates, total.lines)),
        ("Rejected", _of(total.rejected, total.lines)),
        *([("Skipped, not asked for", _of(total.skipped, total.lines))] if total.skipped else []),
        ("Last load", moment_of(total.at)),
    ]
    sums = (
        span("flag good", f"✓ lines = stored + duplicates + rejected{' + skipped' * bool(total.skipped)}")
        if not total.missing
        else span("flag over", f"▲ {plural(abs(total.missing), 'line')} not accounted for")
    )
    return join(_pairs(rows), sums)


def _of(part: int, whole: int) -> str:
    value = share(part, whole)
    return f"{number(part)} ({percents(value)})" if part and value is not None and value < 99.995 else number(part)


def _pairs(rows: Iterable[tuple[str, str]]) -> Markup:
    return table("pairs", (), (row(name, data_cell(value, "n")) for name, value in rows))


def _arrival(found: ArrivalDelays) -> Markup:
    total = sum(found.counts)
    steps = [
        division(
            "step late",
            span("name", name),
            bar(count, total, "delivered"),
            span("n share", percent_short(100 * count / total) if total else "–"),
        )
        for (name, _), count in zip(ARRIVED_WITHIN, found.counts, strict=True)
    ]
    have = "has" if found.unknown == 1 else "have"
    unknown = f" {number(found.unknown)} {have} no timestamp." if found.unknown else ""
    wrong = " Events that were received before they happened have a wrong timestamp." if found.counts[0] else ""
    return join(*steps, element("p", f"Of {plural(total, 'event')} of this period.{wrong}{unknown}", class_="young"))


def _reasons(found: Sequence[Reason]) -> Markup:
    if not found:
        return element("p", "✓ None.", class_="good")
    return _pairs(
        (" · ".join(display_name(name) for name in (reason.where, reason.reason) if name), number(reason.lines))
        for reason in found
    )


def _runs(found: Sequence[RecentRun], loads: int) -> Markup:
    columns = [("Files", "n wide"), ("Lines", "n"), ("Stored", "n"), ("Duplicates", "n wide"), ("Rejected", "n")]
    if any(run.skipped for run in found):
        columns.append(("Skipped", "n wide"))
    rows = (
        row(
            moment_of(run.at).removesuffix(" UTC"),
            # Not strict: the last number, `skipped`, is left out if the table has no column for it.
            *(data_cell(number(count), class_) for count, (_, class_) in zip(run[1:], columns, strict=False)),
        )
        for run in found
    )
    return join(table("numbers", [("Loaded", ""), *columns], rows), _and_more(loads - len(found), "earlier load"))


def _and_more(count: int, word: str) -> Markup | None:
    return element("p", f"and {plural(count, word)}", class_="young") if count > 0 else None


def _ages(found: Sequence[TableAge]) -> Markup:
    columns = [("Table", ""), ("Received", "n"), ("Loaded", "n wide")]
    rows = (
        row(
            element("code", display_name(age.table)),
            data_cell(moment_of(age.received_at).removesuffix(" UTC"), "n"),
            data_cell(moment_of(age.loaded_at).removesuffix(" UTC"), "n wide"),
        )
        for age in found[:_MOST_TABLES]
    )
    return join(table("numbers", columns, rows), _and_more(len(found) - _MOST_TABLES, "more table"))
