"""The numbers of a report, as data. A part without numbers is an `Absent` with the reason.

The unit of all rates is people x emails: a person who got an email counts once for it, however often it was delivered,
opened or clicked. `rated` people x emails are those whose mail was delivered early enough to have been opened.
"""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field, fields, is_dataclass
from datetime import date, datetime
from typing import Any, NamedTuple


class RateLimit(NamedTuple):
    """The limit of a rate in percent: below `goal` it is good, and from `most` on it is over the limit."""

    goal: float
    most: float


RATE_LIMITS = {"bounces": RateLimit(2.0, 2.0), "complaints": RateLimit(0.1, 0.3), "unsubscribes": RateLimit(0.5, 0.5)}
"""Gmail and Yahoo require complaints below 0.1 %, and never 0.3 %. The others are usual alarm levels of senders."""


@dataclass(frozen=True)
class Absent:
    """A part of the report that has no numbers. `reason` is a sentence."""

    reason: str


@dataclass(frozen=True)
class ReportPeriod:
    """The period: requested (`since`, `until`), of the events (`first`, `last`), and of rated mail (`rated_until`)."""

    since: datetime | None = None
    until: datetime | None = None
    first: datetime | None = None
    last: datetime | None = None
    rated_until: datetime | None = None
    events: int = 0


@dataclass(frozen=True)
class Funnel:
    """People x emails: `delivered` counts all, `rated` those old enough for rates; the others count rated ones."""

    delivered: int = 0
    rated: int = 0
    opened: int = 0
    clicked: int = 0
    replied: int = 0
    complained: int = 0
    unsubscribed: int = 0


def sum_of(funnels: Iterable[Funnel]) -> Funnel:
    """Returns the sums of all numbers of some funnels."""
    return Funnel(*map(sum, zip(*map(astuple, funnels), strict=True)))


@dataclass(frozen=True)
class Totals(Funnel):
    """The funnel of all mail, with deliveries, distinct people, and the people x emails that bounced or were sent."""

    deliveries: int = 0
    people: int = 0
    bounced: int = 0
    sent: int = 0


@dataclass(frozen=True)
class Day:
    """The events of a day, and in `rated` the funnel of people x emails whose mail was first delivered on it."""

    day: date
    delivered: int = 0
    opens: int = 0
    clicks: int = 0
    replies: int = 0
    bounces: int = 0
    complaints: int = 0
    unsubscribes: int = 0
    rated: Funnel = field(default_factory=Funnel)


DAY_COUNTS = tuple(item.name for item in fields(Day) if item.name not in ("day", "rated"))
"""The counts of a day."""


@dataclass(frozen=True)
class EmailFunnel:
    """An email with its funnel."""

    id: str | None
    name: str | None
    subject: str | None
    funnel: Funnel


@dataclass(frozen=True)
class JourneyFunnel:
    """A journey with its funnel and its emails, those with the most people first."""

    id: str | None
    name: str | None
    funnel: Funnel
    emails: Sequence[EmailFunnel]


@dataclass(frozen=True)
class ClickedLink:
    """A link of an email: people who clicked it, clicks, and the people x emails that are rated."""

    url: str | None
    email: str | None
    journey: str | None
    people: int
    clicks: int
    rated: int


@dataclass(frozen=True)
class MailboxDomain:
    """A mailbox domain with its people x emails. `name` is None for all domains that are not listed by name."""

    name: str | None
    sent: int
    bounced: int
    rated: int
    complained: int
    unsubscribed: int
    domains: int = 1


@dataclass(frozen=True)
class Opening:
    """The delays from the first delivery to a person's first open: a count for each span of `OPENED_WITHIN`.

    `median` is in seconds, or None if it is beyond all spans that have an end. `before` counts opens whose time is
    before the delivery.
    """

    counts: Sequence[int]
    median: float | None
    before: int = 0


OPENED_WITHIN: Sequence[tuple[str, int | None]] = (
    ("1 min", 60),
    ("5 min", 300),
    ("15 min", 900),
    ("30 min", 1_800),
    ("1 h", 3_600),
    ("2 h", 7_200),
    ("4 h", 14_400),
    ("8 h", 28_800),
    ("12 h", 43_200),
    ("1 d", 86_400),
    ("2 d", 172_800),
    ("7 d", 604_800),
    ("> 7 d", None),
)
"""The spans of time in which people open mail: names and ends in seconds."""
OPENED_IN_TIME = max(end for _, end in OPENED_WITHIN if end)
"""The end of the last span that has one; no times beyond it are read."""


@dataclass(frozen=True)
class SendingHour:
    """People x emails by the weekday (0 is Monday) and the hour of their first delivery, UTC."""

    weekday: int
    hour: int
    rated: int
    opened: int


@dataclass(frozen=True)
class Cohort:
    """People who got their first email in one unit of time. `active` counts those active in it and each later unit."""

    begin: date
    people: int
    active: Sequence[int]


@dataclass(frozen=True)
class Cohorts:
    """The cohorts; `unit` is `day`, `week` or `four weeks`. `others` are the people of cohorts that are left out."""

    unit: str
    rows: Sequence[Cohort]
    others: int = 0


@dataclass(frozen=True)
class Machines:
    """Opens by machines, according to a column, and the rated people x emails opened with and without such opens."""

    column: str
    opens: int
    machine_opens: int
    rated: int
    opened: int
    opened_by_people: int


class RecentRun(NamedTuple):
    """A load: its time, and the sums over its files."""

    at: datetime
    files: int
    lines: int
    stored: int
    duplicates: int
    rejected: int
    skipped: int = 0

    @property
    def missing(self) -> int:
        """The number of lines that are not accounted for."""
        return self.lines - self.stored - self.duplicates - self.rejected - self.skipped


class Reason(NamedTuple):
    """The number of lines rejected for a reason, or of values discarded for a reason in a column (`where`)."""

    reason: str
    where: str
    lines: int


@dataclass(frozen=True)
class Books:
    """The books: sums over all files, the last loads (newest first), the rejects and the discards."""

    total: RecentRun
    loads: int
    runs: Sequence[RecentRun]
    rejects: Sequence[Reason]
    discards: Sequence[Reason]


class TableAge(NamedTuple):
    """When a table's newest row was received, and when it was loaded."""

    table: str
    received_at: datetime | None
    loaded_at: datetime | None


@dataclass(frozen=True)
class ArrivalDelays:
    """The delays from events to their receipt: a count for each span of `ARRIVED_WITHIN`, and for `unknown` delays.

    `ahead` are those of the first span that are dated a day or more after their receipt: no other number counts them.
    """

    counts: Sequence[int]
    unknown: int = 0
    ahead: int = 0


ARRIVED_WITHIN: Sequence[tuple[str, int | None]] = (
    ("before it happened", 0),
    ("within a minute", 60),
    ("within an hour", 3_600),
    ("within a day", 86_400),
    ("within a week", 604_800),
    ("later", None),
)
"""The spans of time in which events arrive: names and ends in seconds."""


@dataclass(frozen=True)
class Report:
    """All numbers of a report. `last_run` is the outcome of the last known run as text, `limits` are in percent."""

    target: str
    made_at: datetime
    period: ReportPeriod
    chosen: Sequence[str]
    limits: dict[str, RateLimit]
    totals: Totals | Absent
    days: Sequence[Day] | Absent
    journeys: Sequence[JourneyFunnel] | Absent
    links: Sequence[ClickedLink] | Absent
    domains: Sequence[MailboxDomain] | Absent
    opening: Opening | Absent
    sending: Sequence[SendingHour] | Absent
    cohorts: Cohorts | Absent
    machines: Machines | Absent
    books: Books | Absent
    arrival: ArrivalDelays | Absent
    ages: Sequence[TableAge] | Absent
    last_run: str = ""


def report_dict(report: Report) -> dict[str, Any]:
    """Returns the report as JSON values, with times in ISO 8601. An absent part is `{"absent": "the reason"}`."""
    values: dict[str, Any] = _plain(report)
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, Absent):
        return {"absent": value.reason}
    if is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(item) for name, item in value._asdict().items()}
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, date) else value
