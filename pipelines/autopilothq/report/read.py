"""Reads the numbers of a report from a dataset. A part that cannot be read is `Absent`; the others are still read."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, time
from functools import partial
from typing import Any, NamedTuple, TypeVar

import duckdb

from ..catalog import AUDIT, EVENT_TABLE_NAMES
from ..display import gist, shortened
from ..errors import RunError
from ..inspect import Freshness, check_types_of_books, check_types_of_models, read_freshness, read_last_run
from ..models.render import time_literal
from ..utc import DAY_SECONDS
from ..warehouses.dataset import Dataset, in_utc, rows_of_statement, spelling_of, table_path, tables_of
from ..warehouses.dlt_internals import LOADS_TABLE_NAME, DatabaseException
from . import assemble
from .assemble import Cells, Pairs
from .books import read_books
from .numbers import (
    RATE_LIMITS,
    Absent,
    ClickedLink,
    Cohorts,
    Day,
    Machines,
    Opening,
    RateLimit,
    Report,
    ReportPeriod,
    TableAge,
    Totals,
)
from .statements import MailScope, Names, statement
from .wording import moment_of

_Part = TypeVar("_Part")
_MOST = 12  # links that are listed, and also domains that are listed by name
OPENED, CLICKED = "email_opened", "email_clicked"
MACHINE = "machine"
_RATED = "No mail of this period that is old enough for rates"


class _Missing(Exception):
    """A part of the report has no numbers. The message is the reason."""


class _Queries(NamedTuple):
    """Runs the queries of a report with the dataset, the scope and the values that all of them share."""

    dataset: Dataset
    existing: Mapping[str, Sequence[str]]
    scope: MailScope
    values: Mapping[str, str]

    def rows(self, name: str, **values: Any) -> list[Cells]:
        """Runs the query of this name and returns its rows; `values` are for its placeholders."""
        dataset = self.dataset
        names = Names(dataset.dialect or "", partial(table_path, dataset), partial(spelling_of, dataset))
        text, columns = statement(name, self.existing, self.scope, names, {**self.values, **values})
        return [dict(zip(columns, map(in_utc, row), strict=True)) for row in rows_of_statement(dataset, text)]

    def need(self, table: str, *columns: str) -> None:
        """Raises _Missing if the dataset lacks a table or one of its columns."""
        if table not in self.existing:
            raise _Missing(f"There is no table {table} in this dataset.")
        for column in columns:
            if column not in self.existing[table]:
                raise _Missing(f"The table {table} has no column {column}.")

    def only(self, **changes: Any) -> "_Queries":
        """Returns a copy with another scope."""
        return self._replace(scope=self.scope._replace(**changes))


def read_report(
    dataset: Dataset,
    now: datetime,
    since: datetime | None = None,
    until: datetime | None = None,
    journeys: Sequence[str] = (),
    limits: Mapping[str, RateLimit] | None = None,
) -> Report:
    """Returns the numbers of the mail that was sent at or after `since` and before `until`.

    `journeys` are names or ids; if empty, all journeys count. Raises RunError if the dataset lacks one of them.
    """
    check_types_of_models(dataset, EVENT_TABLE_NAMES)
    check_types_of_books(dataset, [AUDIT.name, LOADS_TABLE_NAME])
    existing = {name: list(columns) for name, columns in tables_of(dataset).items()}
    queries = _Queries(dataset, existing, MailScope(since, until), {"most": str(_MOST)})
    if journeys:
        queries = queries.only(journeys=_journey_ids(queries, journeys))
    period = _part(lambda: _period(queries))
    if isinstance(period, ReportPeriod):
        rated = f"CASE WHEN first_delivered_at < {time_literal(period.rated_until or now)} THEN 1 ELSE 0 END"
        queries = queries._replace(values={**queries.values, "rated": rated})
    return _report(queries, now, period, journeys, limits or RATE_LIMITS)


def _report(
    queries: _Queries,
    now: datetime,
    found: ReportPeriod | Absent,
    chosen: Sequence[str],
    limits: Mapping[str, RateLimit],
) -> Report:
    """Reads all parts. If the period is absent, all parts about mail are absent for the same reason."""

    def part(read: Callable[[], _Part | None], empty: str = "") -> _Part | Absent:
        return found if isinstance(found, Absent) else _part(read, empty)

    period = ReportPeriod(*queries.scope[:2]) if isinstance(found, Absent) else found
    pairs = part(lambda: assemble.pairs_of(queries.rows("pairs")), "No mail was sent in this period.")
    names = part(lambda: {row["email_id"]: row for row in queries.rows("names")})
    days = part(lambda: _days(queries, pairs, period), "Nothing happened.")
    return Report(
        target=queries.dataset.title,
        made_at=now,
        period=period,
        chosen=list(chosen),
        limits=dict(limits),
        totals=part(lambda: _totals(_known(pairs))),
        days=days,
        journeys=part(lambda: assemble.journeys_of(_known(pairs), _known(names)), "No mail was delivered."),
        links=part(lambda: _links(queries, _known(pairs), _known(names)), f"{_RATED} had a link that was clicked."),
        domains=part(lambda: assemble.domains_of(_known(pairs)), "No person is known by an email."),
        opening=part(lambda: _opening(queries, _known(pairs)), f"{_RATED} was opened after its delivery."),
        sending=part(lambda: assemble.sending_of(_known(pairs)), "No mail is old enough to have been opened."),
        cohorts=part(lambda: _cohorts(queries, period, _known(days)), "No mail was delivered."),
        machines=part(lambda: _machines(queries, _known(pairs))),
        books=_part(lambda: read_books(queries.dataset)),
        arrival=part(lambda: assemble.arrival_of(queries.only(ahead=True).rows("arrival"))),
        ages=_part(lambda: _ages(read_freshness(queries.dataset, now))),
        last_run=_last_run(queries.dataset, now),
    )


def _part(read: Callable[[], _Part | None], empty: str = "") -> _Part | Absent:
    """Returns the result of `read`, or Absent if it is None, if `read` raises _Missing, or if the destination fails.

    With a reason `empty`, an empty result is Absent as well.
    """
    try:
        found = read()
    except _Missing as missing:
        return Absent(str(missing))
    except (DatabaseException, duckdb.Error) as error:  # DuckDB reads lakes without dlt
        return Absent(f"The destination did not answer: {shortened(gist(str(error)), 300)}")
    return Absent(empty) if found is None or (empty and not found) else found


def _known(part: _Part | Absent) -> _Part:
    """Returns a part that others depend on; raises _Missing with the part's reason if it is absent."""
    if isinstance(part, Absent):
        raise _Missing(part.reason)
    return part


# ---- parts ---------------------------------------------------------------------------------------------------------


def _journey_ids(queries: _Queries, chosen: Sequence[str]) -> list[str]:
    """Returns the ids of the journeys with these ids or (also former) names. Raises RunError for an unknown one."""
    rows = queries.only(since=None, until=None, ahead=True).rows("chosen")
    ids: set[str] = set()
    for journey in chosen:
        found = {row["campaign_id"] for row in rows if journey in (row["campaign_id"], row["campaign_name"])}
        if not found:
            names = sorted({shortened(row["campaign_name"] or row["campaign_id"]) for row in rows})
            listed = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
            raise RunError(
                f"Expected a journey's name or id, but {queries.dataset.name} has no journey {shortened(journey)}.\n"
                f"It has {listed or 'none'}."
            )
        ids |= found
    return sorted(ids)


def _period(queries: _Queries) -> ReportPeriod:
    if not any(table in queries.existing for table in EVENT_TABLE_NAMES):
        raise _Missing("There are no tables of email events in this dataset.")
    scope = queries.scope
    (row,) = queries.rows("bounds_until", until=time_literal(scope.until)) if scope.until else queries.rows("bounds")
    if not row["events"]:
        named = (("of these journeys", scope.journeys), ("in this period", scope.since or scope.until))
        raise _Missing(f"{' '.join(['There are no email events', *(text for text, given in named if given)])}.")
    last = row["received"] or row["last"]
    if last is None:
        raise _Missing("The email events have no times.")
    until = min(assemble.rated_until(last), scope.until or last)
    return ReportPeriod(scope.since, scope.until, row["first"], row["last"], until, int(row["events"]))


def _days(queries: _Queries, pairs: Pairs | Absent, period: ReportPeriod) -> list[Day]:
    hours = () if isinstance(pairs, Absent) else pairs.rows["hour"]
    return assemble.days_of(queries.rows("daily"), hours, period.until)


def _totals(pairs: Pairs) -> Totals:
    emails = pairs.rows["email"]
    deliveries, bounced, sent = assemble.sums_of(emails, ("delivered", "bounced", "attempted"))
    funnel = vars(assemble.funnel(emails))
    return Totals(**funnel, deliveries=deliveries, people=pairs.people, bounced=bounced, sent=sent)


def _links(queries: _Queries, pairs: Pairs, names: Mapping[str, Cells]) -> list[ClickedLink]:
    queries.need(CLICKED, "link_url")
    return assemble.links_of(pairs, names)


def _opening(queries: _Queries, pairs: Pairs) -> Opening | None:
    queries.need(OPENED)
    return assemble.opening_of(pairs)


def _cohorts(queries: _Queries, period: ReportPeriod, days: Sequence[Day]) -> Cohorts | None:
    shown = assemble.drawn(days)
    unit, size = assemble.unit_for((shown[-1].day - shown[0].day).days + 1)
    rows = queries.rows("cohorts", shift=str(assemble.shift_of(size)), length=str(size * DAY_SECONDS))
    first, last = (datetime.combine(day.day, time.min, UTC) for day in (shown[0], shown[-1]))
    if shown[-1] is days[-1]:  # otherwise the last event is far from the others
        last = period.last or last
    return assemble.cohorts_of(rows, unit, size, last, first)


def _machines(queries: _Queries, pairs: Pairs) -> Machines:
    queries.need(OPENED)
    if MACHINE not in queries.existing[OPENED]:
        raise _Missing(
            f"They are unknown: {OPENED} has no column {MACHINE}. Messages of Ortto have one, those of Autopilot do "
            "not. Mailbox providers that fetch pictures before anybody reads count as people here."
        )
    emails = pairs.rows["email"]
    opens, machine_opens = assemble.sums_of(emails, ("opens", "machine_opens"))
    rated, opened, by_people = assemble.sums_of(emails, ("people", "opened", "human_opened"), rated=True)
    return Machines(f"{OPENED}.{MACHINE}", opens, machine_opens, rated, opened, by_people)


def _ages(tables: Mapping[str, Freshness]) -> list[TableAge]:
    ages = [TableAge(name, fresh.received_at, fresh.loaded_at) for name, fresh in tables.items()]
    oldest = datetime.min.replace(tzinfo=UTC)
    return sorted(ages, key=lambda age: age.received_at or oldest, reverse=True)


def _last_run(dataset: Dataset, now: datetime) -> str:
    run = _part(lambda: read_last_run(dataset, now))
    if isinstance(run, Absent):
        return ""
    return ": ".join(filter(None, (f"{moment_of(run.at)}, {run.result}", run.error)))
