"""Each number of the report is what plain Python counts, on DuckDB and PostgreSQL; other dialects are parsed."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest
import sqlglot

import counted_models as counted
from autopilothq import inspect
from autopilothq.errors import RunError
from autopilothq.report import Absent, Report, assemble, read_report, statements
from autopilothq.report.books import read_books
from autopilothq.report.numbers import (
    ARRIVED_WITHIN,
    OPENED_WITHIN,
    ArrivalDelays,
    Books,
    Cohorts,
    Funnel,
    MailboxDomain,
    Opening,
    Reason,
    RecentRun,
    Totals,
)
from contract.duck import held
from contract.loading import write
from servers import Postgres
from shared_loads import command, isolation

NOW = datetime(2024, 3, 20, tzinfo=UTC)
DIALECTS = ("redshift", "bigquery", "snowflake", "databricks", "clickhouse", "tsql", "mysql", "athena", "trino")
QUERIES = sorted(path.stem for path in Path(statements.__file__).parent.glob("queries/*.sql"))
VALUES = {"most": "12", "rated": "1", "shift": "0", "length": "86400", "until": "TIMESTAMP '2019-03-20'"}
Row = dict[str, Any]


@pytest.fixture(scope="module", params=["duckdb", "postgres"])
def target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgresql: Postgres
) -> Iterator[tuple[str, str]]:
    """The target into which the archive with oddities is loaded."""
    folder = tmp_path_factory.mktemp(request.param)
    with isolation(folder), postgresql.database() as url:
        found = (request.param, url if request.param == "postgres" else str(folder / "events.duckdb"))
        write("1.ndjson", *counted.archive())
        with held(found[1]) if request.param == "duckdb" else nullcontext():
            said = command("load", "archive", "archive", "--destination", found[0], "--credentials", found[1])
        assert said.status == 0, said.err
        yield found


@pytest.fixture(scope="module")
def report(target: tuple[str, str]) -> Report:
    return read(target)


def read(target: tuple[str, str], **more: Any) -> Report:
    with inspect.reading(*target) as dataset:
        return read_report(dataset, NOW, **more)


# ---- plain Python --------------------------------------------------------------------------------------------------


@cache
def messages() -> list[counted.Message]:
    return counted.stored(counted.archive())


def received(one: counted.Message) -> datetime:
    known = map(counted.time_of, (one.sent.get(name) for name in ("receivedAt", "sentAt", "timestamp")))
    return next(filter(None, known))


def events() -> list[counted.Message]:
    return [one for one in counted.seven(messages()) if one.at]


def cut() -> datetime:
    return max(map(received, (one for one in events() if one.sent.get("receivedAt")))) - timedelta(days=2)


@cache
def pairs() -> list[Row]:
    rows = counted.person_email(messages())
    return [row | {"rated": bool(row["first_delivered_at"] and row["first_delivered_at"] < cut())} for row in rows]


def funnel(rows: list[Row]) -> Funnel:
    got = [row for row in rows if row["deliveries"]]
    old = [row for row in got if row["rated"]]
    names = ("opens", "clicks", "replies", "complaints", "unsubscribes")
    return Funnel(len(got), len(old), *(sum(bool(row[name]) for row in old) for name in names))


def span_of(spans: Sequence[tuple[str, int | None]], delay: float) -> int:
    return next(n for n, (_, end) in enumerate(spans) if end is None or delay < end)


def known(part: Any) -> Any:
    assert not isinstance(part, Absent), part
    return part


# ---- parts ---------------------------------------------------------------------------------------------------------


def test_totals(report: Report) -> None:
    rows = pairs()
    totals: Totals = known(report.totals)
    assert Funnel(**{name: getattr(totals, name) for name in vars(Funnel())}) == funnel(rows)
    assert (totals.deliveries, totals.people, totals.bounced, totals.sent) == (
        sum(row["deliveries"] for row in rows),
        len({row["person"] for row in rows if row["deliveries"]}),
        sum(bool(row["bounces"]) for row in rows),
        sum(bool(row["deliveries"] + row["bounces"]) for row in rows),
    )
    assert totals.deliveries > totals.delivered > totals.rated > totals.opened > 0
    assert report.period.rated_until == cut()
    assert report.period.events == len(counted.seven(messages()))
    times = [one.at for one in events() if one.at]
    assert (report.period.first, report.period.last) == (min(times), max(times))


def test_days(report: Report) -> None:
    expected = {row["day"]: row for row in counted.daily(messages()) if row["day"]}
    names = ("delivered", "opens", "clicks", "replies", "bounces", "complaints", "unsubscribes")
    found = {day.day: {name: getattr(day, name) for name in names} for day in known(report.days)}
    assert found == {day: {name: row[name] for name in names} for day, row in expected.items()}
    by_day: dict[date, list[Row]] = {}
    for row in pairs():
        if row["first_delivered_at"]:
            by_day.setdefault(row["first_delivered_at"].date(), []).append(row)
    assert {day.day: day.rated for day in known(report.days) if day.rated.delivered} == {
        day: funnel(rows) for day, rows in by_day.items()
    }


def test_journeys_and_emails(report: Report) -> None:
    names = {row["email_id"]: row for row in counted.email_overview(messages())}
    emails = {email.id: email for journey in known(report.journeys) for email in journey.emails}
    assert {of: email.funnel for of, email in emails.items()} == {
        of: funnel([row for row in pairs() if row["email_id"] == of]) for of in names
    }
    assert {(email.name, email.subject) for email in emails.values()} == {
        (row["email_name"], row["email_subject"]) for row in names.values()
    }
    for journey in known(report.journeys):
        of = [row for row in pairs() if names[row["email_id"]]["campaign_id"] == journey.id]
        assert journey.funnel == funnel(of)
    last_names = {row["campaign_id"]: row["campaign_name"] for row in counted.journey_overview(messages())}
    shown = {journey.id: journey.name for journey in known(report.journeys)}
    assert shown == {of: last_names[of] or of for of in shown}
    assert last_names["j2"] == "News, renamed"  # which no event of its emails says


def clicked_links() -> dict[tuple[Any, Any], tuple[int, int]]:
    """Returns the people and clicks of links in rated mail, by URL and email, with the most people first."""
    old = {(row["person"], row["email_id"]) for row in pairs() if row["rated"] and row["deliveries"]}
    clicks = [
        (one.properties.get("link_url"), one.properties["email_id"], one.person)
        for one in counted.seven(messages())
        if one.sent["event"] == "Email Clicked" and (one.person, one.properties.get("email_id")) in old
    ]
    emails = {row["email_id"]: row["email_name"] for row in counted.email_overview(messages())}
    found = {
        (url, of): (len({who for *link, who in clicks if link == [url, of]}), number)
        for (url, of), number in Counter((url, of) for url, of, _ in clicks).items()
    }
    order = sorted(found, key=lambda link: (-found[link][0], -found[link][1], link[0] or "~", link[1]))
    return {(url, emails[of]): found[url, of] for url, of in order}


def test_links(report: Report) -> None:
    found = {(link.url, link.email): (link.people, link.clicks) for link in known(report.links)}
    assert found == clicked_links()


def domains() -> dict[str, list[Row]]:
    """Returns the rows of people × emails by domain, the largest first."""
    found: dict[str, list[Row]] = {}
    for row in pairs():
        domain = row["person"].rpartition("@")[2] if "@" in row["person"] else ""
        if domain and row["deliveries"] + row["bounces"]:
            found.setdefault(domain, []).append(row)
    return dict(sorted(found.items(), key=lambda one: (-len(one[1]), one[0])))


def domain(name: str | None, rows: list[Row], number: int = 1) -> MailboxDomain:
    return MailboxDomain(name, len(rows), sum(bool(row["bounces"]) for row in rows), *welcome(rows), number)


def test_domains(report: Report) -> None:
    assert known(report.domains) == [domain(name, rows) for name, rows in domains().items()]


def test_the_largest_domains_and_links_are_named(target: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autopilothq.report.read._MOST", 4)
    found = read(target)
    listed = list(domains().items())
    others = [row for _, rows in listed[4:] for row in rows]
    named = [domain(name, rows) for name, rows in listed[:4]]
    assert known(found.domains) == [*named, domain(None, others, len(listed) - 4)]
    assert {(link.url, link.email) for link in known(found.links)} == set(list(clicked_links())[:4])


def welcome(rows: list[Row]) -> tuple[int, int, int]:
    of = funnel(rows)
    return of.rated, of.complained, of.unsubscribed


def test_opening(report: Report) -> None:
    delays = [
        (row["first_opened_at"] - row["first_delivered_at"]).total_seconds()
        for row in pairs()
        if row["rated"] and row["deliveries"] and row["first_opened_at"]
    ]
    after = [delay for delay in delays if delay >= 0]
    spans = Counter(span_of(OPENED_WITHIN, delay) for delay in after)
    found: Opening = known(report.opening)
    assert found.counts == [spans[n] for n in range(len(OPENED_WITHIN))]
    assert found.before == len(delays) - len(after) > 0
    assert found.median == pytest.approx(sorted(after)[(len(after) - 1) // 2], abs=60)


def test_sending(report: Report) -> None:
    old = [row for row in pairs() if row["rated"] and row["deliveries"]]
    hours = Counter((row["first_delivered_at"].weekday(), row["first_delivered_at"].hour) for row in old)
    opened = Counter(
        (row["first_delivered_at"].weekday(), row["first_delivered_at"].hour) for row in old if row["opens"]
    )
    assert {(one.weekday, one.hour): (one.rated, one.opened) for one in known(report.sending)} == {
        hour: (count, opened[hour]) for hour, count in hours.items()
    }


@pytest.mark.parametrize(("unit", "length"), [("day", 1), ("week", 7)])
def test_cohorts(
    report: Report, target: tuple[str, str], monkeypatch: pytest.MonkeyPatch, unit: str, length: int
) -> None:
    monkeypatch.setattr(assemble, "UNITS", ((unit, length, None),))

    def begin(at: datetime) -> date:
        return at.date() - timedelta(at.weekday() if unit == "week" else 0)

    mails = [one for one in events() if "email_id" in one.properties]
    first: dict[str, date] = {}
    for one in mails:
        if one.sent["event"] == "Email Delivered" and one.at:
            first[one.person] = min(first.get(one.person, date.max), begin(one.at))
    acted = {
        (one.person, begin(one.at))
        for one in mails
        if one.at and one.sent["event"] in ("Email Opened", "Email Clicked", "Email Replied")
    }
    found: Cohorts = known((report if unit == "day" else read(target)).cohorts)  # with so few days, cohorts are days
    assert found.unit == unit
    for row in found.rows:
        people = {person for person, day in first.items() if day == row.begin}
        assert row.people == len(people)
        assert row.active == [
            sum((person, row.begin + timedelta(length * n)) in acted for person in people)
            for n in range(len(row.active))
        ]
    assert sum(row.people for row in found.rows) == len(first)


def test_machines(report: Report) -> None:
    found = known(report.machines)
    rows = pairs()
    assert (found.opens, found.machine_opens) == (
        sum(row["opens"] for row in rows),
        sum(row["machine_opens"] or 0 for row in rows),
    )
    old = [row for row in rows if row["rated"] and row["deliveries"]]
    assert found.opened_by_people == sum(row["opens"] > (row["machine_opens"] or 0) for row in old) < found.opened


def test_books_and_arrival(report: Report) -> None:
    books: Books = known(report.books)
    total = books.total
    assert books.loads == 1
    assert total[1:] == (1, len(counted.archive()), len(counted.archive()) - 3, 3, 0, 0)
    assert books.runs == [total]
    assert {one.reason for one in books.discards} == {"not_a_time"}


def test_arrival(report: Report) -> None:
    delays: list[float | None] = []
    for one in counted.seven(messages()):
        stamped = counted.time_of(one.sent.get("timestamp")) if "timestamp" in one.sent else one.at
        arrived = counted.time_of(one.sent.get("receivedAt"))
        delays.append((arrived - stamped).total_seconds() if stamped and arrived else None)
    spans = Counter(span_of(ARRIVED_WITHIN, delay) for delay in delays if delay is not None)
    found: ArrivalDelays = known(report.arrival)
    assert found.counts == [spans[n] for n in range(len(ARRIVED_WITHIN))]
    assert found.unknown == delays.count(None)
    assert {one.table for one in known(report.ages)} >= {"tracks", "email_opened"}
    assert "loaded" in report.last_run


# ---- what counts ---------------------------------------------------------------------------------------------------


def test_only_mail_of_a_period_counts_but_all_that_people_did_with_it(target: tuple[str, str]) -> None:
    since, until = counted.FIRST + timedelta(days=1), counted.FIRST + timedelta(days=2)
    found = read(target, since=since, until=until)
    assert [day.day for day in known(found.days)] == [since.date()]
    kept = [
        one
        for one in messages()
        if one.at
        and one.at >= since
        and (one.at < until or one.sent.get("event") not in ("Email Delivered", "Email Bounced"))
    ]
    rows = [row | {"rated": row["deliveries"] > 0} for row in counted.person_email(kept)]
    assert found.period.rated_until == until
    assert {name: getattr(known(found.totals), name) for name in vars(Funnel())} == vars(funnel(rows))
    mailed = {
        (row["person"], row["email_id"]) for row in counted.person_email(kept) if row["deliveries"] + row["bounces"]
    }
    times = [
        one.at
        for one in counted.seven(kept)
        if one.at and (one.at < until or (one.person, one.properties.get("email_id")) in mailed)
    ]
    assert (found.period.events, found.period.first, found.period.last) == (len(times), min(times), max(times))
    nothing = read(target, since=counted.FIRST - timedelta(days=9), until=counted.FIRST - timedelta(days=8))
    assert nothing.totals == Absent("There are no email events in this period.")
    assert nothing.period.events == 0


def test_journeys_are_named_by_a_name_that_they_had_or_by_their_id(target: tuple[str, str]) -> None:
    found = read(target, journeys=["News", "j3"])
    assert {journey.id for journey in known(found.journeys)} == {"j2", "j3"}
    assert found.chosen == ["News", "j3"]


def test_a_journey_that_is_not_there_is_an_error_with_those_that_are(target: tuple[str, str]) -> None:
    with pytest.raises(RunError, match=r"no journey Newz\.\nIt has News, News, renamed, Receipt|Start"):
        read(target, journeys=["Newz"])


def test_a_period_without_events_has_no_numbers_and_says_so(target: tuple[str, str]) -> None:
    found = read(target, since=datetime(2030, 1, 1, tzinfo=UTC))
    assert found.totals == Absent("There are no email events in this period.")
    found = read(target, until=datetime(2010, 1, 1, tzinfo=UTC), journeys=["News"])
    assert found.totals == Absent("There are no email events of these journeys in this period.")
    assert not isinstance(found.books, Absent)


# ---- missing tables and columns ------------------------------------------------------------------------------------


def test_what_is_missing_leaves_the_other_parts(tmp_path: Path) -> None:
    """Tables of another loader, which creates each only with its first row."""
    file = str(tmp_path / "other.duckdb")
    with duckdb.connect(file) as con:
        con.execute("CREATE SCHEMA autopilothq; SET TimeZone = 'UTC'")
        columns = "id TEXT, received_at TIMESTAMPTZ, timestamp TIMESTAMPTZ, user_id TEXT, email_id TEXT"
        for table in ("email_delivered", "email_opened"):
            con.execute(f"CREATE TABLE autopilothq.{table} ({columns})")
        con.execute("INSERT INTO autopilothq.email_delivered SELECT n, now(), '2024-03-01', n, 'e' FROM range(9) r(n)")
        con.execute(
            "INSERT INTO autopilothq.email_opened SELECT n, now(), '2024-03-01 00:03', n, 'e' FROM range(4) r(n)"
        )

    found = read(("duckdb", file))
    assert known(found.totals) == Totals(9, 9, 4, 0, 0, 0, 0, deliveries=9, people=9, bounced=0, sent=9)
    assert [found.links, found.domains, found.machines, found.books] == [
        Absent("There is no table email_clicked in this dataset."),
        Absent("No person is known by an email."),
        Absent(
            "They are unknown: email_opened has no column machine. Messages of Ortto have one, those of Autopilot do "
            "not. Mailbox providers that fetch pictures before anybody reads count as people here."
        ),
        Absent("There is no table _audit: these tables were not made by this program's loads."),
    ]
    assert [(journey.name, journey.funnel.opened) for journey in known(found.journeys)] == [(None, 4)]

    with duckdb.connect(file) as con:
        con.execute("DELETE FROM autopilothq.email_delivered")
    found = read(("duckdb", file))
    assert found.totals == found.journeys == Absent("No mail was sent in this period.")
    assert [day.opens for day in known(found.days)] == [4]

    with duckdb.connect(file) as con:
        ahead = "received_at + CASE WHEN id < '2' THEN INTERVAL 24 HOUR ELSE INTERVAL 23 HOUR END"
        con.execute(f"UPDATE autopilothq.email_opened SET timestamp = {ahead}")
    found = read(("duckdb", file))
    assert (found.arrival, found.period.events) == (ArrivalDelays([4, 0, 0, 0, 0, 0], 0, 2), 2)

    with duckdb.connect(file) as con:
        con.execute("UPDATE autopilothq.email_opened SET timestamp = NULL, received_at = NULL")
    assert read(("duckdb", file)).days == Absent("The email events have no times.")

    with duckdb.connect(file) as con:
        con.execute("DROP TABLE autopilothq.email_delivered")
        con.execute("ALTER TABLE autopilothq.email_opened RENAME TO email_bounced")
    assert read(("duckdb", file)).days == Absent("The email events have no times.")

    with duckdb.connect(file) as con:
        con.execute("DROP TABLE autopilothq.email_bounced")
        con.execute("CREATE TABLE autopilothq.users (id TEXT)")
    assert read(("duckdb", file)).days == Absent("There are no tables of email events in this dataset.")


def test_the_last_loads_and_the_most_frequent_reasons_are_told_and_the_others_together(tmp_path: Path) -> None:
    file = str(tmp_path / "books.duckdb")
    first = datetime(2024, 3, 1, tzinfo=UTC)
    with duckdb.connect(file) as con:
        counts = "lines BIGINT, stored BIGINT, duplicates BIGINT, rejected BIGINT"  # an older dataset has no others
        con.execute(f"""SET TimeZone = 'UTC'; CREATE SCHEMA autopilothq;
            CREATE TABLE autopilothq._audit (load_id TEXT, loaded_at TIMESTAMPTZ, {counts});
            CREATE TABLE autopilothq._rejects (reason TEXT);
            CREATE TABLE autopilothq._discards (reason TEXT, table_name TEXT, column_name TEXT)""")
    with inspect.reading("duckdb", file) as dataset:
        assert read_books(dataset) == Absent("_audit is empty: nothing was loaded from files or an account yet.")

    with duckdb.connect(file) as con:
        con.execute("""SET TimeZone = 'UTC';
            INSERT INTO autopilothq._audit SELECT n // 2, TIMESTAMPTZ '2024-03-01' + INTERVAL 1 DAY * (n // 2),
                n, n - 3, 2, 1 FROM range(3, 20) t(n);
            INSERT INTO autopilothq._rejects SELECT 'r' || n FROM range(11) t(n), range(12 - n);
            INSERT INTO autopilothq._discards SELECT 'd' || n % 2, 't' || n % 2, 'c' || n % 7 FROM range(23) t(n)""")
    with inspect.reading("duckdb", file) as dataset:
        found = read_books(dataset)
    day = timedelta(days=1)
    runs = [RecentRun(first + n * day, 2, 4 * n + 1, 4 * n - 5, 4, 2) for n in range(9, 1, -1)]
    rejects = [Reason(f"r{n}", "", 12 - n) for n in range(10)]
    counted_discards = Counter((f"t{n % 2}.c{n % 7}", f"d{n % 2}") for n in range(23))
    often = sorted(counted_discards.items(), key=lambda found: (-found[1], found[0]))
    discards = [Reason(reason, where, number) for (where, reason), number in often[:10]]
    others = Reason("4 other reasons", "", sum(number for _, number in often[10:]))
    total = RecentRun(first + 9 * day, 17, 187, 136, 34, 17)
    assert found == Books(total, 9, runs, [*rejects, Reason("1 other reason", "", 2)], [*discards, others])


def test_a_question_that_fails_spoils_its_part_alone(target: tuple[str, str], report: Report) -> None:
    rename = 'ALTER TABLE autopilothq."_audit" RENAME COLUMN {} TO {}'
    run(target, rename.format("lines", "of_file"))
    try:
        found = read(target)
    finally:
        run(target, rename.format("of_file", "lines"))
    assert isinstance(found.books, Absent)
    assert re.match('The destination did not answer: .*"?lines"?.*', found.books.reason)
    same = ("totals", "days", "journeys", "links", "domains", "opening", "sending", "cohorts", "machines", "arrival")
    assert {name: getattr(found, name) for name in same} == {name: getattr(report, name) for name in same}


def run(target: tuple[str, str], statement: str) -> None:
    if target[0] == "duckdb":
        with duckdb.connect(target[1]) as con:
            con.execute(statement)
    else:
        with closing(psycopg2.connect(target[1])) as server, server, server.cursor() as cursor:
            cursor.execute(statement)


@pytest.mark.parametrize("of", ["VARCHAR", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP[]"])
def test_a_dataset_whose_times_are_no_times(of: str, tmp_path: Path) -> None:
    file = str(tmp_path / "other.duckdb")
    with duckdb.connect(file) as con:
        con.execute(
            f"CREATE SCHEMA autopilothq; CREATE TABLE autopilothq.email_opened (received_at {of}, timestamp {of})"
        )
    told = f"Expected the column timestamp of email_opened in .*, to be timestamp, but somebody made it {re.escape(of)}"
    with pytest.raises(RunError, match=told):
        read(("duckdb", file))


# ---- dialects ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_questions_are_sql_of_each_dialect(dialect: str) -> None:
    scope = statements.MailScope(counted.FIRST, NOW, ["j'1"])
    names = statements.Names(dialect, lambda table: ["autopilothq", table], lambda _, column: column)
    tables = {"email_opened": ["timestamp", "received_at", "user_id", "email_id"]}
    for name in QUERIES:
        text, columns = statements.statement(name, tables, scope, names, VALUES)
        parsed: Any = sqlglot.parse_one(text, dialect=dialect)
        assert [column.lower() for column in parsed.named_selects] == columns
        assert "TIME_TO_UNIX" not in text
        assert "'j''1'" in text or "'j\\'1'" in text
