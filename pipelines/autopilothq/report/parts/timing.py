"""The parts about the time to open, the hours of sending, cohorts, and opens by machines."""

from collections.abc import Sequence

from ...display import plural
from ..assemble import index_of
from ..charts import columns, named_bar
from ..elements import Markup, data_cell, division, element, join, row, span, table
from ..numbers import OPENED_IN_TIME, OPENED_WITHIN, Absent, Cohort, Report, SendingHour
from ..theme import STEPS, step
from ..wording import WEEKDAYS, length, long_day, number, percents, rate, rounded, share, short_day
from . import absent, card

_ENOUGH = 30  # people x emails of an hour; rates of fewer are not meaningful
SHOWN_ON_PHONES = 7  # columns of cohorts on narrow screens


def opening(report: Report) -> Markup:
    """Returns a chart of how long people take to open an email."""
    title = "How soon mail is opened"
    found = report.opening
    if isinstance(found, Absent):
        return absent("opening", title, found)
    total = sum(found.counts)
    median = OPENED_IN_TIME if found.median is None else found.median
    half = "More than half of them came after" if found.median is None else "Half of them came within"
    before = (
        f" {plural(found.before, 'open')} before the delivery, by the timestamps, left out." if found.before else ""
    )
    opens = plural(total, "first open")
    note = f"From the first delivery to a person's first open: {opens}. {half} {length(median)} (dark).{before}"
    at = index_of([end for _, end in OPENED_WITHIN], median)
    names = [_two(name) for name, _ in OPENED_WITHIN]
    return card("opening", title, note, columns(names, found.counts, at))


def _two(name: str) -> tuple[str, str]:
    size, _, unit = name.rpartition(" ")
    return size.replace("> ", ">"), unit


def sending(report: Report) -> Markup:
    """Returns a table of the share of mail that was opened, by weekday and hour of delivery."""
    title = "When sending works"
    found = report.sending
    if isinstance(found, Absent):
        return absent("sending", title, found)
    hours = {(hour.weekday, hour.hour): hour for hour in found}
    shares = [100 * hour.opened / hour.rated for hour in found if hour.rated >= _ENOUGH]
    least, most = min(shares, default=0.0), max(shares, default=0.0)
    cells: list[Markup] = [span("corner"), *(span("hour", f"{hour}") for hour in range(24))]
    for day, name in enumerate(WEEKDAYS):
        cells.append(span("weekday", name))
        cells += (_hour(hours.get((day, hour)), name, hour, least, most) for hour in range(24))
    note = (
        "Percent that was opened, by weekday and hour (UTC) of the first delivery, of people × emails delivered then."
    )
    return card("sending", title, note, division("heat", *cells), _scale(least, most))


def _hour(found: SendingHour | None, day: str, hour: int, least: float, most: float) -> Markup:
    title = f"{day} {hour}:00 – {hour}:59 UTC: "
    if found is None or found.rated < _ENOUGH:
        title += plural(found.rated if found else 0, "person × email", "people × emails")
        return span("cell few", "·", title=title)
    value = 100 * found.opened / found.rated
    title += f"{percents(value)} of {number(found.rated)} people × emails opened"
    return span(f"cell r{step(value, least, most)}", f"{value:.0f}", title=title)


def _scale(least: float, most: float) -> Markup:
    steps = (span(f"r{n}") for n in range(STEPS))
    return division(
        "scale",
        span(None, percents(least)),
        span("steps", *steps),
        span(None, f"{percents(most)} opened"),
        span("few sample", "·"),
        span(None, f"fewer than {_ENOUGH} people × emails"),
    )


def cohorts(report: Report) -> Markup:
    """Returns a table of cohorts: how many people were active again, by the time of their first email."""
    title = "Do people stay interested"
    found = report.cohorts
    if isinstance(found, Absent):
        return absent("cohorts", title, found)
    width = max(len(cohort.active) for cohort in found.rows)
    least, most = _extremes(found.rows)
    columns = [("First email", ""), ("People", "n")]
    columns += [("0" if n == 0 else f"+{n}", _column_class(n)) for n in range(width)]
    rows = (_cohort(cohort, found.unit, width, least, most) for cohort in found.rows)
    note = (
        f"People by the {found.unit} of their first email in this period, and the percent of them that opened, clicked "
        f"or replied in that {found.unit} (0), in the next one (+1), and so on. The last {found.unit} of a row may not "
        "be over."
    )
    if found.others:
        note += f" {plural(found.others, 'person', 'people')} whose first email came at other times are not shown."
    return card("cohorts", title, note, table("cohorts", columns, rows))


def _column_class(n: int) -> str:
    return "c" if n < SHOWN_ON_PHONES else "c wide"


def _extremes(found: Sequence[Cohort]) -> tuple[float, float]:
    """Returns the smallest and the largest percentage of active people."""
    shares = [100 * active / cohort.people for cohort in found for active in cohort.active if cohort.people]
    return min(shares, default=0.0), max(shares, default=0.0)


def _cohort(cohort: Cohort, unit: str, width: int, least: float, most: float) -> Markup:
    cells = [data_cell(rounded(cohort.people), "n")]
    for n in range(width):
        value = share(cohort.active[n], cohort.people) if n < len(cohort.active) else None
        if value is None:
            cells.append(data_cell(None, f"{_column_class(n)} none"))
            continue
        title = f"{number(cohort.active[n])} of {plural(cohort.people, 'person', 'people')}"
        cells.append(data_cell(f"{value:.0f}", f"{_column_class(n)} r{step(value, least, most)}", title=title))
    return row(short_day(cohort.begin) if unit == "day" else long_day(cohort.begin), *cells)


def machines(report: Report) -> Markup:
    """Returns bars of opens by machines, if the dataset has a column for that."""
    title = "Opens by machines"
    found = report.machines
    if isinstance(found, Absent):
        return absent("machines", title, found)
    note = join(
        "Mailbox providers fetch pictures before anybody reads, which counts as an open. The column ",
        element("code", found.column),
        f" marks {number(found.machine_opens)} of {plural(found.opens, 'open')} as such.",
    )
    bars = (
        named_bar(name, count, found.rated, "opened", rate(count, found.rated))
        for name, count in (("Opened by anyone", found.opened), ("Opened by people", found.opened_by_people))
    )
    return card("machines", title, note, *bars)
