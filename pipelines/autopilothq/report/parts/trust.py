"""The part about trust: the books of all lines, late events, and the last loads."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ...display import plural
from ..charts import bar, percent_short
from ..elements import Content, Markup, display_name, division, element, join, span, table
from ..numbers import ARRIVED_WITHIN, Absent, ArrivalDelays, Books, Reason, RecentRun, Report, TableAge
from ..wording import moment_of, number, percents, share
from . import card

_MOST_TABLES = 12
_Part = TypeVar("_Part")


def trust(report: Report) -> Markup:
    """Returns blocks about the books, arrival delays, rejects and discards, the last loads, and the age of tables."""
    note = join(
        "From the books of all loads, whatever period is shown: ",
        *_codes("_audit", "_rejects", "_discards"),
        ". ",
        f"The last known run: {report.last_run}." if report.last_run else None,
    )
    books = report.books
    parts = [
        _block("Every line is accounted for", _or_why(books, _accounts)),
        _block("Arrival after the event", _or_why(report.arrival, _arrival)),
        _block("Rejected lines", _or_why(books, lambda found: _reasons(found.rejects))),
        _block("Values that did not fit", _or_why(books, lambda found: _reasons(found.discards))),
        _block("The last loads", _or_why(books, lambda found: _runs(found.runs, found.loads))),
        _block("Newest rows", _or_why(report.ages, _ages)),
    ]
    return card("trust", "Can the numbers be trusted", note, division("blocks", *parts))


def _codes(*names: str) -> Iterable[Content]:
    for n, name in enumerate(names):
        yield ", " if n else None
        yield element("code", name)


def _block(title: str, content: Markup) -> Markup:
    return division("block", element("h3", title), content)


def _or_why(part: _Part | Absent, show: Callable[[_Part], Markup]) -> Markup:
    return division("absent", part.reason) if isinstance(part, Absent) else show(part)


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
    return element(
        "table",
        element(
            "tbody", *(element("tr", element("th", a, scope="row"), element("td", b, class_="n")) for a, b in rows)
        ),
        class_="pairs",
    )


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
        (" · ".join(display_name(name) for name in (one.where, one.reason) if name), number(one.lines)) for one in found
    )


def _runs(found: Sequence[RecentRun], loads: int) -> Markup:
    names = ["Loaded", "Files", "Lines", "Stored", "Duplicates", "Rejected"]
    classes = ["", "n wide", "n", "n", "n wide", "n"]
    if any(run.skipped for run in found):
        names, classes = [*names, "Skipped"], [*classes, "n wide"]
    head = [element("th", name, class_=of or None) for name, of in zip(names, classes, strict=True)]
    rows = (
        element(
            "tr",
            element("th", moment_of(run.at).removesuffix(" UTC"), scope="row"),
            # The last number, `skipped`, is left out if the table has no column for it.
            *(element("td", number(n), class_=of) for n, of in zip(run[1:], classes[1:], strict=False)),
        )
        for run in found
    )
    return join(table("numbers", head, rows), _and_more(loads - len(found), "earlier load"))


def _and_more(count: int, word: str) -> Markup | None:
    return element("p", f"and {plural(count, word)}", class_="young") if count > 0 else None


def _ages(found: Sequence[TableAge]) -> Markup:
    head = [element("th", "Table"), element("th", "Received", class_="n"), element("th", "Loaded", class_="n wide")]
    rows = (
        element(
            "tr",
            element("th", element("code", display_name(one.table)), scope="row"),
            element("td", moment_of(one.received_at).removesuffix(" UTC"), class_="n"),
            element("td", moment_of(one.loaded_at).removesuffix(" UTC"), class_="n wide"),
        )
        for one in found[:_MOST_TABLES]
    )
    return join(table("numbers", head, rows), _and_more(len(found) - _MOST_TABLES, "more table"))
