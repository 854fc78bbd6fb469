"""`autopilothq load api`, as a person meets it: words in, exact texts and exit status out."""

import json
import os
import pty
import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

import forked
from calling import Call, errors
from fake_autopilot import FakeAutopilot

NO_KEY = (
    "Error: Expected the key of Autopilot's API, but there is none: set api_key under [sources.autopilothq] in"
    " .dlt/secrets.toml, or SOURCES__AUTOPILOTHQ__API_KEY in the environment."
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAutopilot]:
    with FakeAutopilot(contacts=150) as running:
        monkeypatch.setenv("SOURCES__AUTOPILOTHQ__BASE_URL", running.base_url)
        monkeypatch.setenv("SOURCES__AUTOPILOTHQ__API_KEY", running.key)
        monkeypatch.setenv("SOURCES__AUTOPILOTHQ__REQUESTS_PER_SECOND", "10000")
        monkeypatch.setenv("SOURCES__AUTOPILOTHQ__TRIES", "1")
        yield running


def test_loads_what_is_asked_for(call: Call, server: FakeAutopilot) -> None:
    server.order("GET", "/contacts", edit=lambda page: page | {"contacts": [None, *page["contacts"]]})
    said = call("load", "api", "--only", "contacts,triggers", "--max-rejects", "0")
    assert (said.status, errors(said)) == (3, ["Error: 1 rejected, more than --max-rejects 0; the rest is loaded."])
    assert said.out.splitlines()[:8] == [
        "table     rows",
        "_audit       2",
        "_rejects     1",
        "contacts   150",
        "triggers     3",
        "",
        "1 lines, 0 stored, 0 duplicates, 1 rejected, 0 values discarded",
        "  1 not_an_object: JSON, but not an object",
    ]
    assert re.fullmatch(r"151 of 150 contacts, 0\.\d MB, \d+\.\d s", said.out.splitlines()[8])
    with duckdb.connect("autopilot.duckdb") as con:
        assert con.execute("SELECT count(*) FROM autopilothq.contacts").fetchall() == [(150,)]
    assert {request.path for request in server.requests} == {
        "/contacts",
        f"/contacts/{server.account.contact_id(99)}",
        "/triggers",
    }


def test_json_has_every_count_and_a_dry_run_leaves_nothing(call: Call, server: FakeAutopilot) -> None:
    window = ("--since", "2018-11-20T12:00:00+01:00", "--until", "2018-12-01")
    said = call("load", "api", "--only", "events", "--json", "--dry-run", *window)
    assert (said.status, errors(said)) == (0, [])
    result = json.loads(said.out)
    assert (result["contacts"], result["contacts_total"], result["dry_run"]) == (150, 150, True)
    everything = json.loads(call("load", "api", "--only", "events", "--json", "--dry-run").out)
    assert 0 < result["lines"] == result["stored"] < everything["lines"]
    assert "contacts" not in result["rows"]
    assert list(Path().iterdir()) == []
    assert len(server.requests) == 4


def test_without_a_key_it_says_where_to_put_it(call: Call) -> None:
    said = call("load", "api")
    assert (said.status, said.out, errors(said)) == (1, "", [NO_KEY])


def test_a_wrong_key_is_one_line(call: Call, server: FakeAutopilot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__API_KEY", "ba5eba11")
    said = call("load", "api")
    assert (said.status, said.out, len(errors(said))) == (1, "", 1)
    assert errors(said)[0].startswith("Error: GET ")
    assert "401 Unauthorized: Provided autopilotapikey not valid. Check sources.autopilothq.api_key" in errors(said)[0]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--since", "soon"), "'soon' is no time like 2019-03-01 or 2019-03-01T12:00:00Z."),
        (
            ("--only", "contacts,people"),
            "'people' is none of events, contacts, lists, smart_segments, custom_fields, triggers.",
        ),
        (("--since", "2019-03-02", "--until", "2019-03-01"), "2019-03-02 00:00:00+00:00 is not before --until"),
        (("--max-seconds", "-1"), "-1.0 is not in the range x>=0."),
    ],
)
def test_wrong_words_are_told(call: Call, words: tuple[str, ...], error: str) -> None:
    said = call("load", "api", *words)
    assert said.status == 2
    assert error in errors(said)[-1]


def test_a_scan_that_the_network_cut_off_is_loaded_and_told(call: Call, server: FakeAutopilot) -> None:
    server.order("GET", "/contacts/*", drop="before")
    said = call("load", "api", "--only", "contacts")
    assert said.status == 1
    assert "contacts   100" in said.out
    assert "/contacts goes on next time: GET /contacts/" in said.out
    assert errors(said)[0].startswith("Error: GET /contacts/")
    assert errors(said)[1] == "What came by then is loaded; the next run goes on from there."
    said = call("load", "api", "--only", "contacts")
    assert (said.status, errors(said)) == (0, [])
    assert "contacts    50" in said.out


def test_time_that_is_spent_is_no_failure(call: Call, server: FakeAutopilot) -> None:  # noqa: ARG001
    said = call("load", "api", "--only", "contacts", "--max-seconds", "0")
    assert (said.status, errors(said)) == (0, [])
    assert "/contacts goes on next time: max_seconds (0) were spent" in said.out


def test_a_terminal_sees_a_bar_of_contacts(server: FakeAutopilot) -> None:  # noqa: ARG001
    leader, follower = pty.openpty()
    program = ["-c", "from autopilothq.cli import main; main()", "load", "api", "--only", "contacts"]
    terminal = {"TERM": "xterm-256color", "COLUMNS": "160"}
    child = forked.start(*program, stdout=forked.PIPE, stderr=follower, env=os.environ | terminal)
    os.close(follower)
    seen = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        seen += piece
    os.close(leader)
    out, _ = child.communicate()
    assert child.returncode == 0, seen.decode()
    assert b"150 of 150 contacts" in seen
    assert b"150 of 150 contacts" in out
