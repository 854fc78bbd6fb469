"""Computes the numbers of the report's parts from the rows of its queries, with pure functions."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import accumulate
from typing import Any, NamedTuple

from ..utc import DAY_SECONDS
from .numbers import (
    ARRIVED_WITHIN,
    DAY_COUNTS,
    OPENED_IN_TIME,
    OPENED_WITHIN,
    ArrivalDelays,
    ClickedLink,
    Cohort,
    Cohorts,
    Day,
    EmailFunnel,
    Funnel,
    JourneyFunnel,
    MailboxDomain,
    Opening,
    SendingHour,
    sum_of,
)

Cells = Mapping[str, Any]
"""A row: its cells by the names of columns."""
_FIRST_DAY = date(1970, 1, 1).toordinal()
_MINUTE = 60  # seconds
MONDAY = 3  # days from the last Monday before 1970 to 1 January 1970, a Thursday
WEEK = 7  # days
_STRAY, _ONE_OF = 0.01, 20  # events at each end that may be far from the others: 1 %, or a single one of 20 or more
_GAP = timedelta(days=30)  # the least distance of events that are far from the others
OPENING_TIME = timedelta(days=2)
"""How long after its delivery mail may be opened: younger mail is not rated."""
AHEAD = -1  # the span of events dated a day or more after their receipt, which no other number counts
MOST_COHORTS = 12  # cohorts, and units of time of each
UNITS = (("day", 1, 14), ("week", WEEK, 26 * WEEK), ("four weeks", 4 * WEEK, None))
"""The units of cohorts: the name, the number of days, and the longest period in days that uses the unit."""


def whole(value: Any) -> int:
    """Returns a count or a sum as an integer. A null sum, of no rows, is 0; some sums are decimals."""
    return int(value or 0)


_KINDS = ("email", "hour", "delay", "domain", "link", "domains", "people")


class Pairs(NamedTuple):
    """Rows of people x emails, grouped by `email`, `hour`, `delay` and so on, and the numbers of people and domains."""

    rows: Mapping[str, Sequence[Cells]]
    people: int
    domains: int


def pairs_of(rows: Sequence[Cells]) -> Pairs | None:
    """Returns the rows of people x emails by their grouping, or None if nothing was sent."""
    found: dict[str, list[Cells]] = {kind: [] for kind in _KINDS}
    for row in rows:
        found[row["kind"]].append(row)
    people, domains = (sum(whole(row["number"]) for row in found[kind]) for kind in ("people", "domains"))
    return Pairs(found, people, domains) if any(sums_of(found["email"], ("attempted",))) else None


# ---- people x emails -----------------------------------------------------------------------------------------------


def funnel(rows: Iterable[Cells]) -> Funnel:
    """Returns the funnel of rows with the models' measures. Some rows may not be `rated`."""
    listed = list(rows)
    names = ("people", "opened", "clicked", "replied", "complained", "unsubscribed")
    return Funnel(*sums_of(listed, ("people",)), *sums_of(listed, names, rated=True))


def sums_of(rows: Sequence[Cells], names: Sequence[str], rated: bool = False) -> tuple[int, ...]:
    """Returns the sums of columns over all rows, or over those that are rated."""
    counted = [row for row in rows if row["rated"] or not rated]
    return tuple(sum(whole(row[name]) for row in counted) for name in names)


def _grouped_by(rows: Iterable[Cells], key: Callable[[Cells], Any]) -> dict[Any, list[Cells]]:
    """Returns the rows by key, in the order of each key's first row."""
    found: dict[Any, list[Cells]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def journeys_of(pairs: Pairs, names: Mapping[str, Cells]) -> list[JourneyFunnel]:
    """Returns the journeys with delivered emails, and these emails, each sorted by people x emails, largest first."""
    journeys: dict[str | None, list[EmailFunnel]] = {}
    titles: dict[str | None, str | None] = {}
    for email_id, rows in _grouped_by(pairs.rows["email"], lambda row: row["name"]).items():
        name = names.get(email_id, {})
        email = EmailFunnel(email_id, _shown(name.get("email_name")), _shown(name.get("email_subject")), funnel(rows))
        if email.funnel.delivered:
            campaign = name.get("campaign_id")
            journeys.setdefault(campaign, []).append(email)
            titles[campaign] = titles.get(campaign) or _shown(name.get("campaign_name"))
    listed = [
        JourneyFunnel(
            campaign,
            titles[campaign] or _shown(campaign),
            sum_of(email.funnel for email in found),
            sorted(found, key=_largest_first),
        )
        for campaign, found in journeys.items()
    ]
    return sorted(listed, key=_largest_first)


def _shown(name: str | None) -> str | None:
    """Returns a name, or None if it is blank, because nobody would see it."""
    return name if name and name.strip() else None


def _largest_first(part: EmailFunnel | JourneyFunnel) -> tuple[int, int, str]:
    return -part.funnel.rated, -part.funnel.delivered, part.name or ""


def links_of(pairs: Pairs, names: Mapping[str, Cells]) -> list[ClickedLink]:
    """Returns the links that were clicked by people to whom the email was delivered."""
    by_email = _grouped_by(pairs.rows["email"], lambda row: row["name"])
    rated = {email_id: funnel(rows).rated for email_id, rows in by_email.items()}
    return [
        ClickedLink(
            _shown(row["url"]),
            _shown(names.get(row["name"], {}).get("email_name")),
            _shown(names.get(row["name"], {}).get("campaign_name")),
            whole(row["clicked"]),
            whole(row["clicks"]),
            rated[row["name"]],
        )
        for row in pairs.rows["link"]
        if row["clicked"]
    ]


def domains_of(pairs: Pairs) -> list[MailboxDomain]:
    """Returns the mailbox domains, the largest first, and all domains without a row of their own as the last one."""
    listed = []
    by_name = _grouped_by(pairs.rows["domain"], lambda row: row["name"])
    for name, rows in by_name.items():
        sent, bounced = sums_of(rows, ("attempted", "bounced"))
        people, complained, unsubscribed = sums_of(rows, ("people", "complained", "unsubscribed"), rated=True)
        count = pairs.domains - len(by_name.keys() - {None}) if name is None else 1
        if sent:
            listed.append(MailboxDomain(name, sent, bounced, people, complained, unsubscribed, count))
    return sorted(listed, key=lambda domain: (domain.name is None, -domain.sent, domain.name or ""))


# ---- times ---------------------------------------------------------------------------------------------------------


def days_of(daily: Sequence[Cells], hours: Sequence[Cells], until: datetime | None) -> list[Day]:
    """Returns the days with events before `until`, in order."""
    known = (row for row in hours if row["number"] is not None)
    rated = _grouped_by(known, lambda row: day_of(whole(row["number"]) * 3_600))
    columns = {name: "deliveries" if name == "delivered" else name for name in DAY_COUNTS}
    counts = {
        day_of(whole(row["day"]) * DAY_SECONDS): {name: whole(row[column]) for name, column in columns.items()}
        for row in daily
    }
    return [
        Day(day, **counts[day], rated=funnel(rated.get(day, ())))
        for day in sorted(counts)
        if until is None or datetime.combine(day, time.min, UTC) < until
    ]


def drawn(found: Sequence[Day]) -> Sequence[Day]:
    """Returns the days without the few events at each end that are far from all others.

    Senders with a wrong clock date events to 1970 or 2099, and a plot of decades would show nothing. Far is a gap of
    more than 30 days that is also longer than the time of most events.
    """
    total = sum(map(events_of, found))
    few = max(total * _STRAY, min(1, total / _ONE_OF))
    seen = list(accumulate(map(events_of, found)))
    first = next((n for n, count in enumerate(seen) if count > few), 0)
    last = next((n for n in reversed(range(len(found))) if total - seen[n] + events_of(found[n]) > few), len(found) - 1)
    gap = max(_GAP, found[last].day - found[first].day)
    while first > 0 and found[first].day - found[first - 1].day <= gap:
        first -= 1
    while last + 1 < len(found) and found[last + 1].day - found[last].day <= gap:
        last += 1
    return found[first : last + 1]


def events_of(day: Day) -> int:
    """Returns the number of all events of a day."""
    return sum(getattr(day, name) for name in DAY_COUNTS)


def rated_until(last: datetime) -> datetime:
    """Returns the time from which on mail is too young to be rated; `last` is the time of the last event."""
    return max(last, datetime.min.replace(tzinfo=UTC) + OPENING_TIME) - OPENING_TIME


def day_of(seconds: float) -> date:
    """Returns the UTC day of seconds since 1970, limited to the range of `date`.

    The range can be exceeded: the last microseconds of the year 9999 are rounded up, and the four weeks that contain
    the first day of the year 1 begin before it.
    """
    day = _FIRST_DAY + int(seconds // DAY_SECONDS)
    return date.fromordinal(min(max(day, date.min.toordinal()), date.max.toordinal()))


def opening_of(pairs: Pairs) -> Opening | None:
    """Returns the delays from delivery to the first open, or None if no mail was opened after its delivery."""
    counts = [0] * len(OPENED_WITHIN)
    minutes = sorted(
        (whole(row["number"]), whole(row["opened"])) for row in pairs.rows["delay"] if row["number"] is not None
    )
    before = sum(count for minute, count in minutes if minute < 0)
    after = [(minute, count) for minute, count in minutes if minute >= 0]
    for minute, count in after:
        counts[index_of([end for _, end in OPENED_WITHIN], minute * _MINUTE)] += count
    return Opening(counts, _median(after), before) if after else None


def index_of(ends: Sequence[int | None], seconds: float) -> int:
    """Returns the index of the first span that ends after `seconds`. Example: `index_of((60, None), 60) == 1`."""
    return next(n for n, end in enumerate(ends) if end is None or seconds < end)


def _median(minutes: Sequence[tuple[int, int]]) -> float | None:
    """Returns the middle of the median's minute, in seconds; None if it is in the last span, which has no end.

    `minutes` are sorted pairs of a minute and a count. The whole last span counts as its first minute.
    """
    seen = list(accumulate(count for _, count in minutes))
    half = next(minute for (minute, _), count in zip(minutes, seen, strict=True) if count >= seen[-1] / 2)
    return half * _MINUTE + _MINUTE / 2 if half * _MINUTE < OPENED_IN_TIME else None


def sending_of(pairs: Pairs) -> list[SendingHour]:
    """Returns the rated people x emails by weekday and hour of delivery."""
    old = (row for row in pairs.rows["hour"] if row["rated"] and row["number"] is not None)
    found = _grouped_by(old, lambda row: divmod((whole(row["number"]) + MONDAY * 24) % (WEEK * 24), 24))
    sums = {key: sums_of(rows, ("people", "opened")) for key, rows in found.items()}
    return [SendingHour(*key, *sums[key]) for key in sorted(sums) if sums[key][0]]


def unit_for(length: int) -> tuple[str, int]:
    """Returns the name and the number of days of the unit of cohorts for a period of `length` days."""
    return next((name, size) for name, size, most in UNITS if most is None or length <= most)


def shift_of(size: int) -> int:
    """Returns how many seconds before 1970 a unit of `size` days began, because weeks begin on Mondays."""
    return MONDAY * DAY_SECONDS if size > 1 else 0


def cohorts_of(
    rows: Sequence[Cells], unit: str, size: int, last: datetime, first: datetime | None = None
) -> Cohorts | None:
    """Returns the last cohorts, each with its active people in every unit up to that of `last`, or None without any.

    Cohorts that are older than `first` or younger than `last` are left out.
    """
    people = {whole(row["cohort"]): whole(row["people"]) for row in rows if row["after"] is None}
    active = {
        (whole(row["cohort"]), whole(row["after"])): whole(row["people"]) for row in rows if row["after"] is not None
    }
    begin, end = (
        int((at.timestamp() + shift_of(size)) // (size * DAY_SECONDS))
        for at in (first or datetime.min.replace(tzinfo=UTC), last)
    )
    found = [
        Cohort(
            day_of(cohort * size * DAY_SECONDS - shift_of(size)),
            people[cohort],
            [active.get((cohort, after), 0) for after in range(min(end - cohort + 1, MOST_COHORTS))],
        )
        for cohort in sorted(people)
        if begin <= cohort <= end
    ][-MOST_COHORTS:]
    others = sum(people.values()) - sum(cohort.people for cohort in found)
    return Cohorts(unit, found, others) if found else None


def arrival_of(rows: Sequence[Cells]) -> ArrivalDelays:
    """Returns the delays from events to their receipt, from rows that count events by span."""
    counts = {row["span"] if row["span"] is None else whole(row["span"]): whole(row["events"]) for row in rows}
    ahead = counts.get(AHEAD, 0)
    counts[0] = counts.get(0, 0) + ahead
    return ArrivalDelays([counts.get(n, 0) for n in range(len(ARRIVED_WITHIN))], counts.get(None, 0), ahead)
