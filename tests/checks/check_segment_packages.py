"""Public SQL for Segment's tables runs unchanged on a load's tables, with the results that plain Python counts.

20,000 messages of every kind are loaded by the command into DuckDB, into PostgreSQL, and into a PostgreSQL dataset as
an earlier version made it, which `schema upgrade` then changes. On each of the three dbt builds the models of

- `dbt-labs/segment` and `Fleetio/dbt_segment`: page views, sessions, users stitched; after a first load, and once more,
  incrementally, after a second;
- `rudderlabs/id_stitching`: the graph of ids, by as many passes as it takes.

`dbt deps` gets them from dbt's own registry. Where that cannot be reached, name a folder that has a folder for each
package, whatever it is called:

    git clone https://github.com/dbt-labs/segment build/packages/segment
    git clone https://github.com/fleetio/dbt-segment build/packages/dbt-segment
    git clone https://github.com/rudderlabs/dbt-id-stitching build/packages/dbt-id-stitching
    git clone https://github.com/dbt-labs/dbt-utils build/packages/dbt-utils
    SEGMENT_PACKAGES=build/packages make check

If a package cannot be found, the check fails and names it. The settings that the packages need are in `project()` and
in the test of the graph: on DuckDB two settings of the project. `rudderlabs/dbt-sessionization` and
`rudderlabs/dbt-id-resolution` are not run: they use functions of BigQuery and of Snowflake, and need names of a
database to be replaced by hand.
"""

import json
import os
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import dlt
import duckdb
import psycopg2
import pytest
import yaml
from psycopg2.extensions import parse_dsn

from autopilothq import archive
from calling import Call
from checks.segment_messages import AGENTS, FIRST_DAY, Message, messages, write
from environments import dbt_program

ROOT = Path(__file__).parents[2]
LAID_IN = "SEGMENT_PACKAGES"
# By a package's own name: its name in the registry, and the releases that have the same models.
REGISTRY = {
    "segment": ("dbt-labs/segment", [">=0.9.0", "<2.0.0"]),
    "dbt_segment": ("Fleetio/dbt_segment", [">=0.4.0", "<1.0.0"]),
    "id_stitching": ("rudderlabs/id_stitching", [">=1.1.2", "<2.0.0"]),
}
DEPENDENCY = "dbt_utils"

QUIET_DAY = 8
ALL = messages(20_000, QUIET_DAY)
SECOND_LOAD = f"{FIRST_DAY.replace(day=FIRST_DAY.day + QUIET_DAY + 1):%Y-%m-%d}"
FIRST = [message for message in ALL if message["receivedAt"] < SECOND_LOAD]
SECOND = ALL[len(FIRST) :]
CUTOFF = 30 * 60  # seconds without a page view that end a session
TRAILING = 3 * 3_600_000  # ms before the newest session that an incremental run looks back
# What an earlier version did differently, in addition to the types and keys of dlt's own destination.
EARLIER = """
    ALTER TABLE autopilothq.pages ADD COLUMN _name text;
    UPDATE autopilothq.pages SET _name = name, name = NULL;
    DROP TABLE autopilothq.accounts"""

Row = tuple[Any, ...]


# ---- places --------------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """A database: dbt's profile for it, functions to query it and load into it, and its tables as dbt's sources."""

    name: str
    profile: dict[str, Any]
    ask: Callable[[str], list[Row]]
    load: Callable[[str, Sequence[Message]], None]
    sources: Callable[[], str]


def ask_duckdb(query: str) -> list[Row]:
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("USE autopilothq; SET TimeZone = 'UTC'")
        return con.execute(query).fetchall()


def asking_postgres(url: str) -> Callable[[str], list[Row]]:
    def ask(query: str) -> list[Row]:
        with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
            cursor.execute("SET search_path TO autopilothq")
            cursor.execute(query)
            return cursor.fetchall() if cursor.description else []

    return ask


@pytest.fixture(params=["duckdb", "postgres", "upgraded"])
def place(request: pytest.FixtureRequest, call: Call) -> Place:
    def load(name: str, lines: Sequence[Message]) -> None:
        write(Path(name), lines)
        if request.param == "upgraded" and name == "first":
            load_as_earlier(name)
            assert ask("SELECT DISTINCT pg_typeof(revenue)::text FROM order_completed") == [("double precision",)]
            assert call("schema", "upgrade", *there).status == 0
            return
        said = call("load", "archive", name, *there, "--json")
        assert said.status == 0, said.err
        assert json.loads(said.out)["stored"] == len(lines)

    def load_as_earlier(name: str) -> None:
        destination = dlt.destinations.postgres(url)
        dlt.pipeline("old", destination=destination, dataset_name="autopilothq", pipelines_dir=".").run(archive(name))
        ask(EARLIER)

    def sources() -> str:
        return call("schema", "--live", "--format", "dbt", *there).out

    if request.param == "duckdb":
        there = ("--destination", "duckdb", "--credentials", "autopilot.duckdb")
        # The packages count minutes in the session's time zone, where daylight saving may begin during a visit.
        profile = {"type": "duckdb", "path": "autopilot.duckdb", "settings": {"TimeZone": "UTC"}}
        return Place("duckdb", profile, ask_duckdb, load, sources)
    url = request.getfixturevalue("postgres")
    there = ("--destination", "postgres", "--credentials", url)
    ask = asking_postgres(url)
    dsn = parse_dsn(url) | {"port": int(parse_dsn(url)["port"])}
    return Place(request.param, {"type": "postgres", **dsn}, ask, load, sources)


# ---- dbt -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def dbt() -> str:
    return str(dbt_program(ROOT / "build" / "dbt"))


@pytest.fixture(scope="session")
def packages(dbt: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns a function that finds the folder with a package and what it needs; fails if they cannot be found."""
    laid_in = os.environ.get(LAID_IN)

    @cache
    def got(package: str) -> "Path | str":
        home = tmp_path_factory.mktemp(package)
        return linked(ROOT / laid_in, home, package) if laid_in else from_registry(dbt, home, package)

    def installed(package: str) -> Path:
        found = got(package)
        if isinstance(found, str):
            pytest.fail(found)
        return found

    return installed


def linked(folder: Path, home: Path, package: str) -> "Path | str":
    """Returns a folder with links to the package in `folder`, or the reason why it is not there."""
    found = {yaml.safe_load(path.read_text())["name"]: path.parent for path in folder.glob("*/dbt_project.yml")}
    for name in (package, DEPENDENCY):
        if name not in found:
            return f"No folder in {folder} ({LAID_IN}) is the dbt package {name}; there are: {sorted(found)}."
        (home / name).symlink_to(found[name].resolve())
    return home


def from_registry(dbt: str, home: Path, package: str) -> "Path | str":
    """Returns the folder into which dbt installed the package, or the reason why it could not."""
    name, versions = REGISTRY[package]
    (home / "packages.yml").write_text(yaml.safe_dump({"packages": [{"package": name, "version": versions}]}))
    (home / "dbt_project.yml").write_text("{name: check, version: '1.0', profile: check}")
    status, said = asked(dbt, "deps", "--project-dir", str(home))
    if status:
        said = said.split("Traceback")[0].strip()
        return f"dbt deps did not get {name}; {LAID_IN} may name a folder that has it, see {__file__}.\n{said}"
    return home / "dbt_packages"


def asked(dbt: str, *words: str) -> tuple[int, str]:
    """Calls dbt; returns its exit status and its output."""
    env = os.environ | {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}
    said = subprocess.run(
        [dbt, "--no-use-colors", *words], env=env, capture_output=True, text=True, check=False, timeout=600
    )
    return said.returncode, said.stdout + said.stderr


def run(dbt: str, *words: str) -> None:
    """Calls dbt; fails if any part fails or is skipped."""
    status, said = asked(dbt, *words)
    assert status == 0, said
    assert "ERROR=0 SKIP=0" in said, said


def project(place: Place, folder: Path, package: str, **variables: Any) -> None:
    """Writes a dbt project here that has a package, and the tables of the place as its sources."""
    settings: dict[str, Any] = {
        "name": "check",
        "version": "1.0",
        "profile": "check",
        "packages-install-path": str(folder),
    }
    # The packages set BigQuery's partitions for all databases, and DuckDB's adapter would apply them.
    models = {package: {"+partition_by": None}} if place.name == "duckdb" else {}
    settings |= {"vars": {package: variables}, "models": models}
    Path("dbt_project.yml").write_text(yaml.safe_dump(settings))
    output = place.profile | {"schema": "models", "threads": 1}
    Path("profiles.yml").write_text(yaml.safe_dump({"check": {"target": "dev", "outputs": {"dev": output}}}))
    Path("models").mkdir(exist_ok=True)
    Path("models/sources.yml").write_text(place.sources())
    Path("models/shop_pages.sql").write_text("select * from {{ source('autopilothq', 'pages') }}")


def counted(place: Place) -> dict[str, int]:
    """Returns the number of rows of each model and seed in dbt's last run; fails if one is empty."""
    results = json.loads(Path("target/run_results.json").read_text())["results"]
    relations = {one["unique_id"].split(".")[-1]: one["relation_name"] for one in results if one.get("relation_name")}
    rows = {name: place.ask(f"SELECT count(*) FROM {relation}")[0][0] for name, relation in relations.items()}
    assert [name for name, number in rows.items() if not number] == []
    return rows


# ---- sessions ------------------------------------------------------------------------------------------------------

SESSIONS = """
    SELECT anonymous_id, extract(epoch FROM session_start_tstamp), extract(epoch FROM session_end_tstamp), page_views,
        utm_source, first_page_url_path, last_page_url_path, referrer_host, device_category, blended_user_id
    FROM models.segment_web_sessions"""


class Session(NamedTuple):
    """A session as dbt-segment has it; times in ms."""

    anonymous_id: str
    start: int
    end: int
    page_views: int
    utm_source: str | None
    first_path: str
    last_path: str
    referrer_host: str | None
    device: str
    user: str


def ms(clock: str) -> int:
    return round(datetime.fromisoformat(clock).timestamp() * 1000)


def of_kind(lines: Sequence[Message], kind: str, event: str | None = None) -> list[Message]:
    return [line for line in lines if line["type"] == kind and event in (None, line.get("event"))]


def page_views(lines: Sequence[Message]) -> dict[str, list[Message]]:
    """Returns the pages of each device in the order of their times, which must all differ."""
    devices: dict[str, list[Message]] = defaultdict(list)
    for line in sorted(of_kind(lines, "page"), key=lambda line: str(line["timestamp"])):
        devices[line["anonymousId"]].append(line)
    assert all(one["timestamp"] < next_["timestamp"] for pages in devices.values() for one, next_ in pairwise(pages))
    return devices


def sessions(lines: Sequence[Message]) -> Iterator[Session]:
    for device, pages in page_views(lines).items():
        user = next((page["userId"] for page in reversed(pages) if "userId" in page), device)
        visits: list[list[Message]] = []
        for page in pages:
            again = visits and ms(page["timestamp"]) // 1000 - ms(visits[-1][-1]["timestamp"]) // 1000 <= CUTOFF
            visits[-1].append(page) if again else visits.append([page])
        for visit in visits:
            yield session(visit, user)


def session(visit: Sequence[Message], user: str) -> Session:
    first, last = visit[0], visit[-1]
    referrer = first["properties"]["referrer"]
    return Session(
        first["anonymousId"],
        ms(first["timestamp"]),
        ms(last["timestamp"]),
        len(visit),
        first["context"].get("campaign", {}).get("source"),
        first["properties"]["path"],
        last["properties"]["path"],
        referrer.split("/")[2].removeprefix("www.") if referrer else referrer,
        AGENTS[first["context"]["userAgent"]],
        user,
    )


def after_both_loads() -> list[Session]:
    """Returns the sessions after both loads; those that the second run does not read again keep their first user."""
    before, after = list(sessions(FIRST)), list(sessions(ALL))
    looked_back = max(one.start for one in before) - TRAILING
    assert not [one for one in before if one.start <= looked_back < one.end]
    kept = {one for one in before if one.start <= looked_back}
    again = {one for one in after if one.start > looked_back}
    assert {one[:-1] for one in kept | again} == {one[:-1] for one in after}
    return sorted(kept | again)


def found_sessions(place: Place) -> list[Session]:
    rows = place.ask(SESSIONS)
    return sorted(Session(row[0], round(row[1] * 1000), round(row[2] * 1000), *row[3:]) for row in rows)


# The package of dbt-labs reads a table, that of Fleetio models.
@pytest.mark.parametrize(
    ("package", "pages"),
    [("segment", "{{ source('autopilothq', 'pages') }}"), ("dbt_segment", ["shop_pages"])],
    ids=["dbt-labs", "Fleetio"],
)
def test_sessions(dbt: str, packages: Callable[[str], Path], place: Place, package: str, pages: Any) -> None:
    folder = packages(package)
    place.load("first", FIRST)
    project(place, folder, package, segment_page_views_table=pages)
    run(dbt, "build")
    assert counted(place)["segment_web_page_views"] == len(of_kind(FIRST, "page"))
    assert found_sessions(place) == sorted(sessions(FIRST))
    place.load("second", SECOND)
    run(dbt, "build")
    rows = counted(place)
    assert rows["segment_web_page_views"] == rows["segment_web_page_views__sessionized"] == len(of_kind(ALL, "page"))
    assert rows["segment_web_user_stitching"] == len(page_views(ALL))
    assert found_sessions(place) == after_both_loads()


# ---- the graph of ids ----------------------------------------------------------------------------------------------


def persons(lines: Sequence[Message]) -> set[frozenset[str]]:
    """Returns the groups of ids that rows connect, because they have two of them; emails in any case are one id."""
    near: dict[str, set[str]] = defaultdict(set)
    spelt: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        ids = [line.get("anonymousId"), line.get("userId"), line["context"].get("traits", {}).get("email")]
        ids += [line["traits"]["email"]] if line["type"] == "identify" else []
        for one, other in combinations([each for each in ids if each], 2):
            for each in (one, other):
                spelt[each.lower()].add(each)
            near[one.lower()].add(other.lower())
            near[other.lower()].add(one.lower())
    found = set()
    while near:
        waiting, person = [next(iter(near))], set()
        while waiting:
            node = waiting.pop()
            person.add(node)
            waiting += near.pop(node, set()) - person
        found.add(frozenset(name for node in person for name in spelt[node]))
    return found


def test_the_graph_of_ids(dbt: str, packages: Callable[[str], Path], place: Place) -> None:
    folder = packages("id_stitching")
    place.load("first", FIRST)
    place.load("second", SECOND)
    # DuckDB keeps information_schema in a database of its own.
    database = {"source-database": "system"} if place.name == "duckdb" else {}
    project(place, folder, "id_stitching", **{"schemas-to-include": "('autopilothq')"}, **database)
    run(dbt, "run", "--full-refresh", "--select", "queries", "edges", "check_edges")
    passes = 0
    while place.ask("SELECT rows_to_update FROM models.check_edges") != [(0,)]:
        passes += 1
        assert passes < 7, "the edges are not joined after six passes, which the package calls enough"
        run(dbt, "run", "--select", "edges", "check_edges")
    assert passes
    run(dbt, "run", "--select", "queries", "check_edges", "id_graph")
    counted(place)
    run(dbt, "test", "--select", "package:id_stitching")
    graph = defaultdict(set)
    for person, node in place.ask("SELECT rudder_id, node FROM models.id_graph"):
        graph[person].add(node)
    assert {frozenset(nodes) for nodes in graph.values()} == persons(ALL)


# ---- queries -------------------------------------------------------------------------------------------------------


def latest(kind: str, key: str) -> dict[str, Message]:
    """Returns the last received value of each trait, by user or group."""
    found: dict[str, Message] = defaultdict(dict)
    for line in of_kind(ALL, kind):
        found[line[key]] |= line["traits"]
    return found


def by_revenue() -> Counter[Row]:
    totals: dict[str, list[Decimal]] = defaultdict(list)
    for line in of_kind(ALL, "track", "Order Completed"):
        totals[line["properties"]["currency"]].append(Decimal(str(line["properties"]["revenue"])))
    return Counter((currency, len(each), sum(each)) for currency, each in totals.items())


def orders_of_users() -> Counter[Row]:
    orders = Counter(line["userId"] for line in of_kind(ALL, "track", "Order Completed"))
    users = latest("identify", "userId")
    return Counter((user, users[user]["email"], number) for user, number in orders.items())


def sign_ups_by_campaign() -> Counter[Row]:
    devices = page_views(ALL)
    signed_up = [line["anonymousId"] for line in of_kind(ALL, "track", "Signed Up")]
    first = [devices[device][0]["context"].get("campaign", {}) for device in signed_up if device in devices]
    return Counter((source, number) for source, number in Counter(each.get("source") for each in first).items())


def tallied(kind: str, *values: Callable[[Message], Any]) -> Counter[Row]:
    rows = Counter(tuple(value(line) for value in values) for line in of_kind(ALL, kind))
    return Counter({(*row, number): 1 for row, number in rows.items()})


# Queries of analysts on Segment's tables, with their results. Databases without keys need `{rest}` in the GROUP BY.
QUERIES: dict[str, tuple[str, Callable[[], Counter[Row]]]] = {
    "messages of a day, by the clock of receipt": (
        "SELECT CAST(CAST(received_at AT TIME ZONE 'UTC' AS date) AS text), count(*) FROM tracks GROUP BY 1",
        lambda: tallied("track", lambda line: line["receivedAt"][:10]),
    ),
    "revenue": (
        "SELECT currency, count(*), round(sum(revenue), 2) FROM order_completed GROUP BY currency",
        by_revenue,
    ),
    "orders of each user": (
        "SELECT u.id, u.email, count(*) FROM users u JOIN order_completed o ON o.user_id = u.id GROUP BY u.id{rest}",
        orders_of_users,
    ),
    "sign-ups by first touch": (
        """
        WITH visits AS (
            SELECT anonymous_id, context_campaign_source,
                row_number() OVER (PARTITION BY anonymous_id ORDER BY timestamp) AS visit
            FROM pages)
        SELECT context_campaign_source, count(*) FROM signed_up JOIN visits USING (anonymous_id)
        WHERE visit = 1 GROUP BY 1""",
        sign_ups_by_campaign,
    ),
    "pages": (
        "SELECT name, path, context_library_name, count(*) FROM pages GROUP BY 1, 2, 3",
        lambda: tallied(
            "page",
            lambda line: line["properties"]["name"],
            lambda line: line["properties"]["path"],
            lambda line: line["context"]["library"]["name"],
        ),
    ),
    "screens": (
        """
        SELECT name, context_os_name, context_device_model, context_app_version, count(*)
        FROM screens GROUP BY 1, 2, 3, 4""",
        lambda: tallied(
            "screen",
            lambda line: line["name"],
            lambda line: line["context"]["os"]["name"],
            lambda line: line["context"]["device"]["model"],
            lambda line: line["context"]["app"]["version"],
        ),
    ),
    "the newest traits of users": (
        "SELECT id, email, first_name, plan, address_city FROM users",
        lambda: Counter(
            (user, of["email"], of["firstName"], of["plan"], of["address"]["city"])
            for user, of in latest("identify", "userId").items()
        ),
    ),
    "the newest traits of groups": (
        "SELECT id, name, seats, round(mrr, 1) FROM accounts",
        lambda: Counter(
            (group, of["name"], of["seats"], Decimal("99.5")) for group, of in latest("group", "groupId").items()
        ),
    ),
    "devices that became users": (
        "SELECT count(*) FROM aliases JOIN identifies ON previous_id = identifies.anonymous_id",
        lambda: Counter([(len(of_kind(ALL, "alias")),)]),
    ),
    "freshness": (
        "SELECT count(*) FROM tracks WHERE uuid_ts BETWEEN received_at AND current_timestamp",
        lambda: Counter([(len(of_kind(ALL, "track")),)]),
    ),
}


def test_queries(place: Place) -> None:
    assert len(ALL) == 20_000
    place.load("first", FIRST)
    place.load("second", SECOND)
    for name, (query, expected) in QUERIES.items():
        rest = ", u.email" if place.name == "duckdb" else ""
        rows = place.ask(query.format(rest=rest))
        found = Counter(tuple(Decimal(str(cell)) if isinstance(cell, float) else cell for cell in row) for row in rows)
        assert found, name
        assert found == expected(), name
