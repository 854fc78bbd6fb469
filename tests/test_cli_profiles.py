"""`autopilothq load profiles` as a user sees it: exact texts and the exit status for given arguments."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from autopilothq import runner
from autopilothq.cli import profiles as command
from autopilothq.sources.due_people import is_query
from calling import Call, errors
from contract.duck import query
from fake_autopilot import FakeProfiles

EVERYONE = [f"email:{number}@example.com" for number in range(5)]

NO_TOKEN = (
    "Expected an access token of Segment's Profile API, but there is none.\nSet sources.autopilothq.profiles.token in"
    " .dlt/secrets.toml, or SOURCES__AUTOPILOTHQ__PROFILES__TOKEN in the environment."
)
WHOSE = (
    "Whose events? Set sources.autopilothq.api_key to look for Autopilot's contacts, or"
    " sources.autopilothq.profiles.people (--people) to a file of emails or user ids, or to a query of the warehouse."
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeProfiles]:
    with FakeProfiles() as running:
        settings = {"TOKEN": running.token, "BASE_URL": running.base_url, "REQUESTS_PER_SECOND": "1000", "TRIES": "1"}
        for name, value in settings.items():
            monkeypatch.setenv(f"SOURCES__AUTOPILOTHQ__PROFILES__{name}", value)
        for who in EVERYONE:
            running.happen(who), running.happen(who, "Order Completed")
        Path("people.txt").write_text("\n".join([*EVERYONE, "nobody@example.com"]))
        yield running


def test_a_run_in_parts_is_told_as_one(call: Call, server: FakeProfiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "PEOPLE_PER_LOAD", 4)
    server.order("GET", "*/email%3A0%40example%2Ecom/*", content=b"<html>")
    said = call("load", "profiles", "--people", "people.txt", "--space", server.space, "--max-rejects", "0")
    path = "/spaces/spa_7Qx/collections/users/profiles/email%3A0%40example%2Ecom/events"
    why = f"GET {path}: expected JSON, got no content type that begins '<html>'"
    assert (said.status, errors(said)) == (
        3,
        [
            f"Warning: No answer could be read for 1 of 4 people: they are due again next time. {why}",
            "Error: 1 rejected, more than --max-rejects 0; the rest is loaded.",
        ],
    )
    assert said.out.splitlines()[:9] == [
        "table         rows",
        "_audit           1",
        "_profiles        6",
        "_rejects         1",
        "email_opened     4",
        "tracks           4",
        "",
        "5 lines, 4 stored, 0 duplicates, 1 rejected, 0 values discarded",
        "  1 bad_answer: an API's answer about a person that cannot be read; that person is asked for again next time",
    ]
    assert re.fullmatch(r"6 of 6 people, 0\.\d MB, \d+\.\d s", said.out.splitlines()[9])
    assert query("SELECT lines, stored, rejected FROM autopilothq._audit") == [(5, 4, 1)]
    assert server.asked() == [*EVERYONE, "email:nobody@example.com"]


def test_json_has_every_count_and_a_dry_run_leaves_nothing(
    call: Call, server: FakeProfiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__PROFILES__SPACE", server.space)
    words = ("--people", "people.txt", "--events", "Order Completed, Email Replied", "--source-id", "AbC123xYz9")
    said = call("load", "profiles", "--json", "--dry-run", "--since", "2019-03-01", *words)
    assert (said.status, errors(said)) == (0, [])
    result = json.loads(said.out)
    assert (result["people"], result["people_total"], result["stored"], result["dry_run"]) == (6, 6, 5, True)
    assert result["rows"]["order_completed"] == 5
    assert [path.name for path in Path().iterdir()] == ["people.txt"]


def test_a_run_that_is_cut_off_is_an_error(call: Call, server: FakeProfiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autopilothq.sources.profiles.pull.MAX_THREADS", 1)
    monkeypatch.setattr("autopilothq.sources.profiles.pull.MAX_FAILURES", 2)
    server.order("GET", "*", skip=2, status=503, times=10)
    said = call("load", "profiles", "--people", "people.txt", "--space", server.space)
    assert said.status == 1
    assert re.match(r"Error: GET /spaces/spa_7Qx/collections/users/profiles/email%3A\d%40example", errors(said)[0])
    assert errors(said)[1] == "What came by then is loaded; the next run goes on from there."
    assert query("SELECT count(*) FROM autopilothq.tracks") == [(2,)]


NO_FILE = (
    "Expected a file with emails or user ids, or a query (SELECT ...), but could not read {}: No such file or"
    " directory."
)


@pytest.mark.parametrize(
    ("words", "settings", "text"),
    [
        (
            ["--space", "s"],
            {"TOKEN": None},
            NO_TOKEN,
        ),
        (
            ["--people", "people.txt"],
            {},
            "Which space? Name it (--space), or set sources.autopilothq.profiles.space in dlt's configuration.",
        ),
        (
            ["--space", "s"],
            {},
            WHOSE,
        ),
        (
            ["--space", "s", "--people", "api"],
            {},
            (
                "Expected the key of Autopilot's API, but there is none.\nSet sources.autopilothq.api_key in"
                " .dlt/secrets.toml, or SOURCES__AUTOPILOTHQ__API_KEY in the environment."
            ),
        ),
        (["--space", "s", "--people", "gone.txt"], {}, NO_FILE.format("gone.txt")),
        (
            ["--space", "s", "--people", "-- Everyone (and more)\n/* of ours */ SELECT email\nFROM nowhere"],
            {},
            "The warehouse cannot answer the query: Catalog Error: Table with name nowhere does not exist!",
        ),
        (["--space", "s", "--people", "~/gone.txt"], {}, NO_FILE.format(f"{Path.home()}/gone.txt")),
        (
            ["--space", "s", "--people", "people.txt"],
            {"REGION": "mars"},
            "sources.autopilothq.profiles.region must be us or eu, got 'mars'",
        ),
    ],
)
def test_what_is_missing_is_said(
    call: Call,
    server: FakeProfiles,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    settings: dict[str, str | None],
    text: str,
) -> None:
    for name, value in settings.items():
        name = f"SOURCES__AUTOPILOTHQ__PROFILES__{name}"  # noqa: PLW2901
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    said = call("load", "profiles", *words)
    assert (said.status, said.out, errors(said)) == (1, "", f"Error: {text}".splitlines())
    assert server.requests == []


def test_a_query_is_told_from_a_path() -> None:
    queries = "SELECT 1", "select\t1", " \n(with p AS (FROM t) FROM p)", "from t", "-- who\n/* *\n/ */((SELECT 1))"
    paths = "people.txt", "select.txt", "my/from t", "-- select 1", "selected 1.txt", ""
    assert [text for text in (*queries, *paths) if is_query(text)] == list(queries)


def test_a_path_behind_what_looks_like_comments_takes_no_time() -> None:
    assert not is_query("/**/" * 40 + "people.txt")  # there are 2**39 ways to match these comments


def test_wrong_arguments(call: Call) -> None:
    assert (
        "Error: Invalid value for '--region': 'mars' is not one of 'us', 'eu'."
        in call("load", "profiles", "--region", "mars").err
    )
    said = call("load", "profiles", "--events", ",").err
    assert "Error: Invalid value for '--events': Expected names, separated by commas, but got ','." in said
    assert call("load", "profiles", "--since", "soon").status == 2


def test_runs_are_made_of_several_sources(server: FakeProfiles) -> None:
    into = runner.pipeline()
    assert runner.run(into, []) is None
    assert server.requests == []
