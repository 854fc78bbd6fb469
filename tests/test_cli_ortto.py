"""`autopilothq load ortto` as a user sees it: exact texts and the exit status for given arguments."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from autopilothq import runner
from autopilothq.cli import ortto as command
from autopilothq.projection import Projection
from autopilothq.segment.message import Batch
from autopilothq.sources import scans
from calling import Call, errors
from contract.duck import holding, pipeline, query, tables
from contract.pulling_ortto import FEED, asked, new_person
from fake_autopilot.http import Request
from fake_ortto import FakeOrtto

NO_KEY = (
    "Expected the custom API key of an account of Ortto, but there is none.\nSet sources.autopilothq.ortto.api_key in"
    " .dlt/secrets.toml, or SOURCES__AUTOPILOTHQ__ORTTO__API_KEY in the environment."
)
RESUMES = "What came by then is loaded; the next run goes on from there."


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOrtto]:
    with FakeOrtto(people=12) as running:
        settings = {"API_KEY": running.key, "BASE_URL": running.base_url, "TRIES": "1"}
        paces = {"REQUESTS_PER_SECOND": "1000", "ACTIVITY_REQUESTS_PER_SECOND": "1000"}
        for name, value in (settings | paces).items():
            monkeypatch.setenv(f"SOURCES__AUTOPILOTHQ__ORTTO__{name}", value)
        yield running


@pytest.fixture
def load(call: Call) -> Call:
    """Calls `load ortto` while the database is held open, which is faster."""
    return holding(call, "load", "ortto")


def test_all_that_an_account_has_comes_with_one_command(
    load: Call, server: FakeOrtto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "ORTTO_PEOPLE_PER_LOAD", 8)
    server.account.tags = {"vip": {"1"}}
    said = load("--max-rejects", "0")
    people = sum(bool(server.account.activities(id_)) for _, id_ in server.account.ids())
    events = sum(len(server.account.activities(id_)) for _, id_ in server.account.ids())
    assert (said.status, errors(said)) == (0, [])
    lines = said.out.splitlines()
    assert lines[:2] == ["table                   rows", "_audit                     6"]
    assert [line for line in lines if line.startswith(("ortto", "_profiles", "tracks"))] == [
        f"_profiles                {people:>3}", "ortto_audience_members    18", "ortto_audiences            4",
        "ortto_campaigns            7", "ortto_custom_fields       10", "ortto_people              12",
        "ortto_tags                 1", f"tracks                  {events:>4}",
    ]  # fmt: skip
    assert f"{events} lines, {events} stored, 0 duplicates, 0 rejected, 0 values discarded" in lines
    found = rf"{people} of {people} people, found by a filter of the account, 0\.\d MB, \d+\.\d s"
    assert re.fullmatch(found, lines[-2])
    assert query("SELECT count(*) FROM autopilothq._dlt_loads") == [(2,)]
    rows = tables()
    assert [row["name"] for row in rows["ortto_tags"]] == ["vip"]
    assert {row["audience_id"] for row in rows["ortto_audience_members"]} <= {
        row["audience_id"] for row in rows["ortto_audiences"]
    }
    assert_what_changes_is_seen(load, server)


def test_large_activities_are_handed_on_few_at_a_time(
    load: Call, server: FakeOrtto, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, lines = Projection.add, list[int]()

    def counted(projection: Projection, batch: Batch) -> None:
        lines.append(batch.lines.num_rows)
        add(projection, batch)

    server.account.made = 3
    monkeypatch.setattr(scans, "LARGE_BATCH", 1)
    monkeypatch.setattr(Projection, "add", counted)
    assert load("--only", "events").status == 0
    assert len(lines) > 5
    assert lines == [1] * sum(len(server.account.activities(id_)) for _, id_ in server.account.ids())


def assert_what_changes_is_seen(load: Call, server: FakeOrtto) -> None:
    """Checks another run, before which somebody left, and in which one table cannot be read."""
    server.account.made = 11
    server.account.tags = {}
    server.order("POST", "/campaign/get-all", status=400)
    server.order("POST", "/audiences/get", content=b"null", status=200)
    said = load("--only", "people,audiences,tags,campaigns,campaign_reports")
    why = "POST /campaign/get-all: 400 Bad Request: Ordered 400."
    assert (said.status, errors(said)) == (
        0,
        [f"Warning: ortto_campaigns could not be read, and stays as it is. {why}"],
    )
    assert f"  {server.base_url}/campaign/get-all goes on next time: {why}" in said.out.splitlines()
    rows = tables()
    names = ("campaigns", "people", "audiences", "audience_members", "tags")
    assert [len(rows[f"ortto_{name}"]) for name in names] == [7, 12, 0, 0, 0]
    sent = {row["campaign_id"] for row in rows["ortto_campaigns"] if row["state"] != "draft"}
    assert {row["campaign_id"] for row in rows["ortto_campaign_reports"]} == sent
    assert [row["contact_id"][-4:] for row in rows["ortto_people"] if row["deleted_at"]] == ["0b00"]


def test_an_empty_account_is_no_error(load: Call, server: FakeOrtto) -> None:
    server.account.made = 0
    said = load("--json")
    assert (said.status, errors(said)) == (0, [])
    result = json.loads(said.out)
    assert (result["people"], result["people_total"], result["people_found_by"], result["lines"]) == (
        0, 0, "the times of everyone's last activities", 0,
    )  # fmt: skip


def test_a_dry_run_leaves_nothing(call: Call, server: FakeOrtto) -> None:
    server.account.made = 9
    said = call("load", "ortto", "--dry-run", "--only", "events", "--people", "all", "--region", "eu")
    assert (said.status, errors(said)) == (0, [])
    assert re.search(r"9 of 9 people, found by everyone, 0\.\d MB", said.out)
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("only", "read"),
    [("people", "12 of 12 people"), ("tags,campaigns", "8 rows"), ("custom_fields,people", "12 of 12 people")],
)
def test_what_was_read_is_told_in_words_of_ortto(load: Call, server: FakeOrtto, only: str, read: str) -> None:
    server.account.tags = {"vip": {"1"}}
    said = load("--only", only)
    assert (said.status, errors(said)) == (0, [])
    assert re.fullmatch(rf"{read}, 0\.\d MB, \d+\.\d s", said.out.splitlines()[-2])


def test_people_of_a_run_that_broke_off_are_told_with_the_rest_and_found_by_a_query(
    call: Call, load: Call, server: FakeOrtto
) -> None:
    server.account.made = 700
    ada = new_person(server, "ada@example.com", "act::o")
    server.order("POST", "/person/get", skip=1, status=503)
    assert load("--only", "people").status == 1
    said = load("--only", "people")
    assert (said.status, errors(said)) == (0, [])
    assert re.fullmatch(r"701 of 701 people, 0\.\d MB, \d+\.\d s", said.out.splitlines()[-2])
    assert asked(server) == []
    sql = "select contact_id, 'person+2@example.com' from autopilothq.ortto_people where email = 'ada@example.com'"
    sql += " union all select null, 'nobody' union all select ' ', 'blank'"  # only the first column counts
    said = call("load", "ortto", "--only", "events", "--people", sql)  # not held open, because the query opens it
    assert (said.status, errors(said), asked(server)) == (0, [], [(ada, 0)])
    assert query("SELECT context_traits_email FROM autopilothq.tracks") == [("ada@example.com",)]


def test_a_run_that_is_cut_off_is_an_error(load: Call, server: FakeOrtto) -> None:
    server.order("POST", FEED, skip=2, status=503, times=99)
    said = load("--only", "events", "--people", "all")
    why = "POST /person/get/activities: 503 Service Unavailable: Ordered 503; gave up after 1 try"
    assert (said.status, errors(said)) == (1, [f"Error: {why}", RESUMES])


def test_the_time_of_the_configuration_holds_for_all_parts_together(
    load: Call, server: FakeOrtto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "ORTTO_PEOPLE_PER_LOAD", 3)
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__ORTTO__MAX_SECONDS", "1.2")

    def clock() -> float:
        """A clock that only requests for activities advance, so that a busy machine does not matter."""
        return 0.3 * sum(request.path == FEED for request in server.requests)

    monkeypatch.setattr(command, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr(scans, "monotonic", clock)
    said = load("--only", "events", "--people", "all", "--json")
    result = json.loads(said.out)
    assert (said.status, errors(said), result["people_total"]) == (0, [], 12)
    assert 0 < result["people"] < 12


def test_a_key_that_is_refused_costs_one_request(
    call: Call, server: FakeOrtto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__ORTTO__API_KEY", "another")
    said = call("load", "ortto")
    assert said.status == 1
    [error] = errors(said)
    assert error.startswith("Error: POST /instance-schema/get: 401 Unauthorized: Invalid API key")
    assert len(server.requests) == 1


def test_another_run_is_refused(load: Call, server: FakeOrtto) -> None:
    second: list[str] = []

    def run_another(_: Request) -> None:
        if not second:
            second.append("")
            try:
                runner.run(pipeline(), [])
            except runner.BusyError as error:
                second.append(str(error))

    server.before = run_another
    said = load("--only", "tags")
    assert said.status == 0
    assert "Another run" in second[1]


NO_FILE = (
    "Expected a file with ids or emails, or a query (SELECT ...), but could not read {}: No such file or directory."
)


@pytest.mark.parametrize(
    ("words", "settings", "text"),
    [
        ([], {"API_KEY": None}, NO_KEY),
        (["--people", "missing.txt"], {}, NO_FILE.format("missing.txt")),
        (["--people", "~/missing.txt"], {}, NO_FILE.format(f"{Path.home()}/missing.txt")),
        (["--people", "latin.txt"], {}, "latin.txt: expected ids or emails in UTF-8: 'utf-8' codec can't decode"),
        (["--people", "select 1; drop table x"], {}, None),
        ([], {"REGION": "mars"}, "sources.autopilothq.ortto.region must be au, eu or empty, got 'mars'"),
        (
            ["--activities", "nothing"],
            {},
            "sources.autopilothq.ortto.activities: the account has no activity 'nothing'. It has Deferred email",
        ),
    ],
)
def test_what_is_missing_is_an_error(
    call: Call,
    server: FakeOrtto,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    settings: dict[str, str | None],
    text: str | None,
) -> None:
    Path("latin.txt").write_bytes(b"ada@example.com\n\xfcnal@example.com\n")
    # The key of Autopilot's API is never sent to Ortto.
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__API_KEY", "of-autopilot")
    for name, value in settings.items():
        name = f"SOURCES__AUTOPILOTHQ__ORTTO__{name}"  # noqa: PLW2901
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    said = call("load", "ortto", "--only", "events", *words)
    assert (said.status, said.out) == (1, "")
    assert "\n".join(errors(said)).startswith(f"Error: {text or ''}")
    if "--people" in words and text:
        assert server.requests == []  # the file is read before any request
    assert asked(server) == []


def test_wrong_arguments(call: Call) -> None:
    said = call("load", "ortto", "--only", "lists")
    assert said.status == 2
    names = "events, people, audiences, tags, campaigns, custom_fields, campaign_reports"
    assert f"Error: Invalid value for '--only': Expected some of {names}, but got 'lists'." in said.err
