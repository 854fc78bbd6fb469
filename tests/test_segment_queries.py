"""SQL of the kind that people write for Segment's tables works on both databases, as checked by plain Python.

All tests share one load of a shop's messages, as Segment's SDKs send them, and a second one later.
"""

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest

from autopilothq import archive, runner
from contract.duck import held
from contract.loading import write
from servers import Postgres

START = datetime(2024, 2, 26, 20, tzinfo=UTC)
SOURCES = ("google", "newsletter", None)
BREAK = timedelta(minutes=30)
ZONE = "America/Los_Angeles"  # the time zone of the querying sessions
Sent = dict[str, Any]


def clock(message: Sent) -> datetime:
    return datetime.fromisoformat(message["timestamp"])


def visits(rng: random.Random, visitor: int, ids: Iterator[int]) -> Iterator[Sent]:
    """Returns the messages of one browser. Two browsers may belong to one user, and some are never identified."""
    user = f"u{visitor // 2}" if visitor % 5 else None
    source = rng.choice(SOURCES)
    now = START + timedelta(minutes=rng.randrange(6_000))
    known: str | None = None

    def sent(kind: str, **fields: Any) -> Sent:
        at = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        context: Sent = {"library": {"name": "analytics.js", "version": "4.1.0"}, "page": {"path": "/"}}
        context |= {"campaign": {"source": source}} if source else {}
        message = {"type": kind, "messageId": f"ajs-{next(ids)}", "anonymousId": f"a{visitor}", "userId": known}
        clocks = dict.fromkeys(("timestamp", "originalTimestamp", "sentAt", "receivedAt"), at)
        return message | clocks | {"context": context, "channel": "client", "integrations": {}} | fields

    for _ in range(rng.randrange(1, 30)):
        now += timedelta(minutes=rng.choice((1, 5, 29, 31, 600)), milliseconds=rng.randrange(1_000))
        yield sent("page", properties={"name": rng.choice(("Home", "Cart")), "path": "/", "url": "https://shop/"})
        if user and known is None and rng.random() < 0.3:
            known = user
            yield sent("identify", traits={"id": user, "email": f"{user}@example.com", "plan": rng.choice("ab")})
            yield sent("group", groupId=f"g{visitor % 3}", traits={"name": f"Company {visitor % 3}", "seats": visitor})
        if rng.random() < 0.4:
            revenue = float(Decimal(rng.randrange(1, 100_000)) / 100)
            yield sent("track", event="Order Completed", properties={"revenue": revenue, "currency": "EUR"})


def all_messages() -> list[Sent]:
    rng, ids = random.Random(7), itertools.count()
    return [message for visitor in range(40) for message in visits(rng, visitor, ids)]


MESSAGES = all_messages()
EARLY = MESSAGES[: len(MESSAGES) * 2 // 3]


def of(kind: str, messages: list[Sent] = MESSAGES) -> list[Sent]:
    return [message for message in messages if message["type"] == kind]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, postgresql: Postgres) -> Iterator[list[str]]:
    folder = tmp_path_factory.mktemp("shop")
    with postgresql.database() as url, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
        databases = {"duckdb": str(folder / "shop.duckdb"), "postgres": url}
        with held(databases["duckdb"]):
            for name, messages in (("1.ndjson", EARLY), ("2.ndjson", MESSAGES)):
                write(name, *messages)
                for kind, credentials in databases.items():
                    into = runner.pipeline(kind, credentials, pipelines_dir=str(folder / kind))
                    runner.run(into, archive(str(Path("archive"))))
        yield list(databases.values())


def answers(places: list[str], sql: str) -> list[list[tuple[Any, ...]]]:
    """Runs a query in both databases; returns the rows, with numeric cells as floats."""
    found = []
    for database in places:
        connect: Any = psycopg2.connect if "://" in database else duckdb.connect
        with closing(connect(database)) as con, closing(con.cursor()) as cursor:
            cursor.execute(f"SET TIME ZONE '{ZONE}'")
            cursor.execute(sql)
            rows = [[float(cell) if isinstance(cell, Decimal) else cell for cell in row] for row in cursor.fetchall()]
            found.append(list(map(tuple, rows)))
    return found


STITCHED = """
    WITH known AS (
        SELECT anonymous_id, user_id, timestamp FROM autopilothq.identifies
        UNION ALL SELECT anonymous_id, user_id, timestamp FROM autopilothq.tracks
        UNION ALL SELECT anonymous_id, user_id, timestamp FROM autopilothq.pages
    ), stitched AS (
        SELECT DISTINCT anonymous_id, first_value(user_id) OVER (
            PARTITION BY anonymous_id ORDER BY timestamp DESC
            ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS user_id
        FROM known WHERE user_id IS NOT NULL AND anonymous_id IS NOT NULL
    ), visitors AS (
        SELECT p.*, coalesce(s.user_id, p.anonymous_id) AS visitor
        FROM autopilothq.pages p LEFT JOIN stitched s ON s.anonymous_id = p.anonymous_id
    )"""


def visitor_of() -> dict[str, str]:
    """Returns the user of each anonymous id, or the id itself if it is never identified."""
    found = {message["anonymousId"]: message["anonymousId"] for message in MESSAGES}
    return found | {message["anonymousId"]: message["userId"] for message in MESSAGES if message["userId"]}


def test_identity_stitching(places: list[str]) -> None:
    visitors = visitor_of()
    expected = Counter(visitors[page["anonymousId"]] for page in of("page"))
    sql = f"{STITCHED} SELECT visitor, count(*) FROM visitors GROUP BY visitor ORDER BY visitor"
    assert answers(places, sql) == [sorted(expected.items())] * 2
    assert any(name.startswith("u") for name in expected)
    assert any(name.startswith("a") for name in expected)


def test_sessions(places: list[str]) -> None:
    """Half an hour without a page ends a session; days are UTC's."""
    visitors = visitor_of()
    by_visitor: dict[str, list[Sent]] = defaultdict(list)
    for page in sorted(of("page"), key=clock):
        by_visitor[visitors[page["anonymousId"]]].append(page)
    begins = [
        (clock(page).date(), page["properties"]["name"])
        for pages in by_visitor.values()
        for before, page in zip([None, *pages], pages, strict=False)
        if before is None or clock(page) - clock(before) > BREAK
    ]
    expected = [(*key, number) for key, number in sorted(Counter(begins).items())]
    sql = f"""{STITCHED}, gaps AS (
        SELECT *, timestamp - lag(timestamp) OVER (PARTITION BY visitor ORDER BY timestamp) AS gap FROM visitors
    ), sessions AS (
        SELECT visitor, name, timestamp FROM gaps WHERE gap IS NULL OR gap > INTERVAL '30 minutes'
    )
    SELECT CAST(timestamp AT TIME ZONE 'UTC' AS date) AS day, name AS first_page, count(*) FROM sessions
    GROUP BY CAST(timestamp AT TIME ZONE 'UTC' AS date), name ORDER BY day, first_page"""
    assert answers(places, sql) == [expected] * 2
    assert len({day for day, _, _ in expected}) > 3


def test_first_touch(places: list[str]) -> None:
    """The source of a visitor's first page gets the revenue of all orders."""
    visitors = visitor_of()
    first: dict[str, str] = {}
    for page in sorted(of("page"), key=clock):
        first.setdefault(visitors[page["anonymousId"]], page["context"].get("campaign", {}).get("source", "direct"))
    cents: Counter[str] = Counter()
    for order in of("track"):
        cents[first[visitors[order["anonymousId"]]]] += round(order["properties"]["revenue"] * 100)
    sql = f"""{STITCHED}, touches AS (
        SELECT visitor, coalesce(context_campaign_source, 'direct') AS source,
            row_number() OVER (PARTITION BY visitor ORDER BY timestamp) AS n FROM visitors
    )
    SELECT t.source, round(CAST(sum(o.revenue) AS numeric(18, 4)), 2) FROM autopilothq.order_completed o
    LEFT JOIN stitched s ON s.anonymous_id = o.anonymous_id
    JOIN touches t ON t.visitor = coalesce(s.user_id, o.anonymous_id) AND t.n = 1
    GROUP BY t.source ORDER BY t.source"""
    assert answers(places, sql) == [[(source, total / 100) for source, total in sorted(cents.items())]] * 2
    assert set(cents) == {"direct", "google", "newsletter"}


def test_revenue_by_month_and_account(places: list[str]) -> None:
    account = {group["userId"]: group["groupId"] for group in sorted(of("group"), key=clock)}
    names = {group["groupId"]: group["traits"]["name"] for group in of("group")}
    seats = {group["groupId"]: group["traits"]["seats"] for group in sorted(of("group"), key=clock)}
    cents: Counter[tuple[Any, ...]] = Counter()
    for order in of("track"):
        if order["userId"] in account:
            id_ = account[order["userId"]]
            month = clock(order).date().replace(day=1)
            cents[names[id_], seats[id_], f"{month:%Y-%m}"] += round(order["properties"]["revenue"] * 100)
    sql = """WITH members AS (
        SELECT user_id, group_id, row_number() OVER (PARTITION BY user_id ORDER BY timestamp DESC) AS n
        FROM autopilothq.groups
    )
    SELECT a.name, a.seats, substr(CAST(CAST(o.timestamp AT TIME ZONE 'UTC' AS date) AS varchar(10)), 1, 7) AS month,
        round(CAST(sum(o.revenue) AS numeric(18, 4)), 2)
    FROM autopilothq.order_completed o JOIN autopilothq.users u ON u.id = o.user_id
    JOIN members m ON m.user_id = u.id AND m.n = 1 JOIN autopilothq.accounts a ON a.id = m.group_id
    GROUP BY a.name, a.seats, month ORDER BY a.name, month"""
    expected = [(*key, total / 100) for key, total in sorted(cents.items(), key=lambda item: item[0][::2])]
    assert answers(places, sql) == [expected] * 2
    assert {month for _, _, month, _ in expected} == {"2024-02", "2024-03"}


def test_sums_are_exact_on_postgresql(places: list[str]) -> None:
    total = sum(Decimal(repr(order["properties"]["revenue"])) for order in of("track"))
    with closing(psycopg2.connect(places[1])) as con, closing(con.cursor()) as cursor:
        cursor.execute("SELECT sum(revenue), round(sum(revenue), 2) FROM autopilothq.order_completed")
        assert cursor.fetchall() == [(total, total)]
        cursor.execute(
            "SELECT u.id, u.email, u.plan, count(o.id) FROM autopilothq.users u"
            " JOIN autopilothq.order_completed o ON o.user_id = u.id GROUP BY u.id ORDER BY u.id"
        )
        orders = Counter(order["userId"] for order in of("track") if order["userId"])
        assert [(id_, email, number) for id_, email, _, number in cursor.fetchall()] == [
            (id_, f"{id_}@example.com", number) for id_, number in sorted(orders.items())
        ]


def test_freshness_by_uuid_ts(places: list[str]) -> None:
    """New rows since the last run of a model are those of the second load, whatever the times of their events."""
    sql = """WITH last_run AS (SELECT min(loaded_at) AS ran_at FROM autopilothq._audit)
        SELECT (SELECT count(*) FROM autopilothq.{0} WHERE uuid_ts > (SELECT ran_at FROM last_run)),
            (SELECT count(*) FROM autopilothq.{0}),
            (SELECT max(uuid_ts) FROM autopilothq.tracks) = (SELECT max(loaded_at) FROM autopilothq._audit)"""
    for kind, table in (
        ("page", "pages"),
        ("track", "tracks"),
        ("track", "order_completed"),
        ("identify", "identifies"),
    ):
        new, every = len(of(kind)) - len(of(kind, EARLY)), len(of(kind))
        assert 0 < new < every
        assert answers(places, sql.format(table)) == [[(new, every, True)]] * 2
