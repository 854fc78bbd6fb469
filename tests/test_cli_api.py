"""`autopilothq load api` as a user sees it: exact texts and the exit status for given arguments."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from calling import Call, errors, on_terminal
from contract.duck import holding
from fake_autopilot import FakeAutopilot

NO_KEY = (
    "Error: Expected the key of Autopilot's API, but there is none.",
    "Set sources.autopilothq.api_key in .dlt/secrets.toml, or SOURCES__AUTOPILOTHQ__API_KEY in the environment.",
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAutopilot]:
    with FakeAutopilot(contacts=150) as running:
        monkeypatch.setenv("SOURCES__AUTOPILOTHQ__BASE_URL", running.base_url)
        monkeypatch.setenv("SOURCES__AUTOPILOTHQ__API_KEY", running.key)
        monkeypatch.setenv("SOURCES__AUTOPILOTHQ__REQUESTS_PER_SECOND", "10000")
        monkeypatch.setenv("SOURCES__AUTOPILOTHQ__TRIES", "1")
        yield running


@pytest.fixture
def load(call: Call) -> Call:
    """Calls `load api` while the database is held open, which is faster."""
    return holding(call, "load", "api")


def test_loads_what_is_asked_for(load: Call, server: FakeAutopilot) -> None:
    server.order("GET", "/contacts", edit=lambda page: page | {"contacts": [None, *page["contacts"]]})
    said = load("--only", "contacts,triggers", "--max-rejects", "0")
    assert (said.status, errors(said)) == (3, ["Error: 1 rejected, more than --max-rejects 0; the rest is loaded."])
    assert said.out.splitlines()[:8] == [
        "table     rows",
        "_audit       2",
        "_rejects     1",
        "contacts   150",
        "triggers     3",
        "",
        "1 line, 0 stored, 0 duplicates, 1 rejected, 0 values discarded",
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


@pytest.mark.usefixtures("server")
def test_what_has_no_contacts_is_told_in_rows(load: Call) -> None:
    said = load("--only", "triggers")
    assert (said.status, errors(said)) == (0, [])
    assert re.fullmatch(r"3 rows, 0\.\d MB, \d+\.\d s", said.out.splitlines()[-2])


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
    assert (said.status, said.out, errors(said)) == (1, "", [*NO_KEY])


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
        (("--since", "soon"), "Expected a time such as 2019-03-01 or 2019-03-01T12:00:00Z, but got 'soon'."),
        (
            ("--since", "0001-01-01T00:00:00+02:00"),
            "Expected a time such as 2019-03-01 or 2019-03-01T12:00:00Z, but got '0001-01-01T00:00:00+02:00'.",
        ),
        (
            ("--until", "9999-12-31T23:59:59-12:00"),
            "Expected a time such as 2019-03-01 or 2019-03-01T12:00:00Z, but got '9999-12-31T23:59:59-12:00'.",
        ),
        (
            ("--only", "contacts,people"),
            "Expected some of events, contacts, lists, smart_segments, custom_fields, triggers, but got 'people'.",
        ),
        (("--only", ","), "Expected some of events, contacts, lists, smart_segments, custom_fields, triggers, but got"),
        (
            ("--since", "2019-03-02", "--until", "2019-03-01"),
            (
                "Invalid value for --until: Expected a later time than --since 2019-03-02T00:00:00+00:00, but got"
                " 2019-03-01T00:00:00+00:00."
            ),
        ),
        (("--since", ""), "Expected a value, but got an empty text. For the default leave the option out."),
        (("--max-seconds", "-1"), "-1.0 is not in the range x>=0."),
    ],
)
def test_wrong_arguments_are_errors(call: Call, words: tuple[str, ...], error: str) -> None:
    said = call("load", "api", *words)
    assert said.status == 2
    assert error in errors(said)[-1]


def test_a_scan_that_the_network_cut_off_is_loaded_and_told(load: Call, server: FakeAutopilot) -> None:
    server.order("GET", "/contacts/*", drop="before")
    said = load("--only", "contacts")
    assert said.status == 1
    assert "contacts   100" in said.out
    assert "/contacts goes on next time: GET /contacts/" in said.out
    assert errors(said)[0].startswith("Error: GET /contacts/")
    assert errors(said)[1] == "What came by then is loaded; the next run goes on from there."
    said = load("--only", "contacts")
    assert (said.status, errors(said)) == (0, [])
    assert "contacts    50" in said.out


def test_a_service_that_fails_later_leaves_what_came_and_a_key_that_is_refused_later_does_not(
    load: Call, server: FakeAutopilot
) -> None:
    server.order("GET", "/triggers", drop="before")
    said = load("--only", "custom_fields,triggers")
    assert (said.status, errors(said)[1]) == (1, "What came by then is loaded; the next run goes on from there.")
    assert errors(said)[0].startswith("Error: GET /triggers: ")
    assert said.out.splitlines()[1:3] == ["_audit            2", "custom_fields     6"]
    server.order("GET", "/triggers", status=401)
    assert load("--only", "custom_fields,triggers").out == ""
    server.order("GET", "/contacts/custom_fields", drop="before")  # nothing had come before
    assert load("--only", "custom_fields,triggers").out == ""


PARTS = "Some of it could not be loaded: {}. Everything else is loaded."


def loop(page: dict[str, Any]) -> dict[str, Any]:
    return page | {"bookmark": "person_1"}


def test_a_part_that_fails_costs_no_other(load: Call, server: FakeAutopilot) -> None:
    server.order("GET", "/lists", status=403, message="Not for you.")
    server.order("GET", "/smart_segments/*25999/contacts*", edit=loop, times=2)
    said = load("--only", "contacts,lists,smart_segments,triggers")
    assert said.status == 1
    forbidden, looping, *error = errors(said)
    assert forbidden.startswith("Warning: lists could not be loaded: GET /lists: 403 Forbidden: Not for you.")
    assert looping.startswith("Warning: smart_segments could not be loaded: GET /smart_segments/contactlist_sseg145")
    assert looping.endswith("bookmark 'person_1' came before; stopped, because the scan would never end")
    assert error == [
        "Error: " + PARTS.format("lists, smart_segments"),
        "To leave that out: --only events,contacts,custom_fields,triggers.",
    ]
    assert said.out.splitlines()[:5] == ["table     rows", "_audit       4", "contacts   150", "triggers     3", ""]
    said = load("--only", "lists,smart_segments")
    assert (said.status, errors(said)) == (0, [])
    rows = dict(line.split() for line in said.out.splitlines()[1:6])
    assert rows == {"_audit": "2", "lists": "4", "lists_contacts": "103", "smart_segments": "2"} | {
        "smart_segments_contacts": "105"
    }


def test_contacts_that_break_off_are_loaded_as_far_as_they_came(load: Call, server: FakeAutopilot) -> None:
    server.order("GET", "/contacts*", edit=loop, times=2)
    said = load("--only", "contacts,triggers")
    assert (said.status, errors(said)[-2]) == (1, "Error: " + PARTS.format("contacts"))
    assert errors(said)[-1] == "To leave that out: --only lists,smart_segments,custom_fields,triggers."
    assert said.out.splitlines()[:4] == ["table     rows", "_audit       2", "contacts   100", "triggers     3"]
    said = load("--only", "contacts")  # goes on from that bookmark
    assert (said.status, errors(said)) == (0, [])
    with duckdb.connect("autopilot.duckdb") as con:
        assert con.execute("SELECT count(*) FROM autopilothq.contacts").fetchall() == [(150,)]


def test_where_nothing_can_be_loaded_that_is_the_error(call: Call, server: FakeAutopilot) -> None:
    server.order("GET", "*", status=403, message="Not for you.", times=100)
    said = call("load", "api", "--only", "lists,triggers")
    assert said.status == 1
    assert errors(said)[-1].startswith("Error: GET /triggers: 403 Forbidden: Not for you.")
    assert "Everything else" not in "".join(errors(said))


def test_time_that_is_spent_is_no_failure(load: Call, server: FakeAutopilot) -> None:  # noqa: ARG001
    said = load("--only", "contacts", "--max-seconds", "0")
    assert (said.status, errors(said)) == (0, [])
    assert "/contacts goes on next time: max_seconds (0) were spent" in said.out


def test_a_terminal_sees_a_bar_of_contacts(server: FakeAutopilot) -> None:  # noqa: ARG001
    said = on_terminal("load", "api", "--only", "contacts")
    assert said.status == 0, said.err
    assert "150 of 150 contacts" in said.err
    assert "150 of 150 contacts" in said.out
