"""A made-up report, for tests of the page that need no load."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from autopilothq.report import RATE_LIMITS, Absent, Report
from autopilothq.report.numbers import (
    ArrivalDelays,
    Books,
    ClickedLink,
    Cohort,
    Cohorts,
    Day,
    EmailFunnel,
    Funnel,
    JourneyFunnel,
    Machines,
    MailboxDomain,
    Opening,
    Reason,
    RecentRun,
    ReportPeriod,
    SendingHour,
    TableAge,
    Totals,
)

HOSTILE = "<script>alert(1)</script>\"'>&<img src=x onerror=alert(2)>\u202egnp.exe\u2066\x1b[31m" + "W" * 300
FIRST = date(2019, 3, 1)
LAST = datetime(2019, 3, 7, 18, 47, tzinfo=UTC)
NOW = datetime(2019, 3, 7, 20, 35, tzinfo=UTC)
EMPTY = Absent("There is nothing.")


def funnel(delivered: int, opened: float = 0.46) -> Funnel:
    rated = delivered * 3 // 4
    found = int(rated * opened)
    return Funnel(delivered, rated, found, found * 2 // 5, rated // 100, rated // 450, rated // 200)


def made(name: str | None = None) -> Report:
    """Returns a report about a week of mail; `name` replaces each name that an outsider could have chosen."""
    journeys = [
        JourneyFunnel(
            title,
            name or title,
            funnel(size, 0.52 - size / 1e6),
            [EmailFunnel(f"{title}{n}", name or f"{title} {n}", name or "Hello", funnel(size // 3)) for n in (1, 2, 3)],
        )
        for title, size in (("Onboarding", 32_986), ("Newsletter", 11_568), ("Événement Québec", 4_011))
    ]
    days = [
        Day(FIRST + timedelta(n), 17_000 - 600 * (n == 6), 8_000 + n, 3_000 + n, 100, 330, 30, 80, _old(n))
        for n in range(7)
    ]
    totals = Totals(**vars(funnel(115_158)), deliveries=115_400, people=18_211, bounced=2_335, sent=117_493)
    links = [
        ClickedLink(
            name or f"https://example.com/{n}?utm_source=a&b=c", name or "Onboarding 1", name, 1_026 - n, 1_175, 12_361
        )
        for n in range(12)
    ]
    return Report(
        target="duckdb events.duckdb, dataset autopilothq",
        made_at=NOW,
        period=ReportPeriod(None, None, datetime(2019, 3, 1, tzinfo=UTC), LAST, LAST - timedelta(days=2), 197_684),
        chosen=[name] if name else [],
        limits=dict(RATE_LIMITS),
        totals=totals,
        days=days,
        journeys=journeys,
        links=links,
        domains=_domains(name),
        opening=Opening([5, 90, 300, 420, 700, 1_200, 1_900, 2_000, 900, 900, 500, 1_100, 20], 28_000, 3),
        sending=[
            SendingHour(day, hour, 20 + 700 * (day > 1), 300 * (day > 1)) for day in range(7) for hour in range(24)
        ],
        cohorts=_cohorts(),
        machines=Machines("email_opened.machine", 50_000, 12_000, 80_000, 37_000, 29_000),
        books=_books(name),
        arrival=ArrivalDelays([3, 199_000, 400, 20, 2, 1], 2),
        ages=[TableAge("tracks", LAST, NOW), TableAge(name or "email_opened", LAST, None)],
        last_run="7 Mar 2019 20:00 UTC, loaded",
    )


def _old(n: int) -> Funnel:
    return funnel(17_000) if n < 5 else Funnel(17_000)


def _domains(name: str | None) -> list[MailboxDomain]:
    return [
        MailboxDomain(name or "example.org", 29_554, 564, 22_000, 51, 108),
        MailboxDomain(name or "corp.example.com", 28_523, 593, 21_000, 80, 120),
        MailboxDomain(None, 299, 2, 250, 0, 1, 17),
    ]


def _cohorts() -> Cohorts:
    rows = [Cohort(FIRST + timedelta(n), 1_000 - n, [420 - 20 * k for k in range(7 - n)]) for n in range(7)]
    return Cohorts("day", rows)


def _books(name: str | None) -> Books:
    runs = [RecentRun(NOW - timedelta(hours=n), 5, 66_000, 65_790, 200, 10) for n in range(3)]
    discards = [Reason("wrong_type", name or "email_opened.score", 3)]
    return Books(RecentRun(NOW, 15, 198_000, 197_370, 600, 30), 3, runs, [Reason("not_json", "", 30)], discards)


def nothing() -> Report:
    """Returns a report in which no part has numbers."""
    parts = {field: EMPTY for field, value in vars(made()).items() if field in PARTS and value is not None}
    return replace(made(), period=ReportPeriod(), last_run="", **parts)  # type: ignore[arg-type]


PARTS = (
    "totals", "days", "journeys", "links", "domains", "opening", "sending", "cohorts", "machines", "books", "arrival",
    "ages",
)  # fmt: skip
