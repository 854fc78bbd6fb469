"""A dry run shows present and new values of the first contacts, and counts of all (docs/how-to/send.md)."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from rich.cells import cell_len

from autopilothq.destination import opening
from autopilothq.destination.preview import SHOWN_CONTACTS, FieldChange, Preview, column_of, field_label, shown_value
from calling import Call
from fake_autopilot import FakeAutopilot
from sending import IMPATIENT, configure, identify, posts, track, write

PAGE = (Path(__file__).parent.parent / "pipelines" / "docs" / "how-to" / "send.md").read_text()
CONTACTS = (
    "CREATE SCHEMA autopilothq; CREATE TABLE autopilothq.contacts AS SELECT * FROM (VALUES"
    " ('person_1', 'P1@example.com', 'Ann', 'CEO', 4, TIMESTAMPTZ '2019-03-01 00:00:00Z', NULL),"
    " ('person_9', 'p2@example.com', 'Gone', NULL, 1, NULL, TIMESTAMPTZ '2019-03-01 00:00:00Z'))"
    " t(contact_id, email, first_name, title, custom_review_rating, custom_trial_ends, deleted_at)"
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAutopilot]:
    monkeypatch.setattr(opening, "Autopilot", IMPATIENT)
    with FakeAutopilot(contacts=0) as server:
        configure(monkeypatch, server)
        yield server


def preview(call: Call, messages: list[Any], *words: str) -> list[str]:
    said = call("send", "messages", write(messages), "--dry-run", *words)
    lines = said.out.splitlines()
    assert max(map(cell_len, lines[: lines.index("")])) <= 80
    return lines


def test_present_and_new_values_are_shown(server: FakeAutopilot, call: Call) -> None:
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute(CONTACTS)
    before = Path("autopilot.duckdb").read_bytes()
    traits = {
        "firstName": "Anne",
        "title": "CEO",
        "reviewRating": "5",
        "trialEnds": "2019-03-01",
        "plan": "pro\x1b[31m",
    }
    messages = [
        identify(1, traits=traits),
        track(1, properties={"title": "Trousers"}),
        identify(2, traits={"title": None, "_autopilot_list": "contactlist_1"}),
        identify(3, integrations={"All": False}),
        {"type": "identify", "messageId": "nobody"},
    ]
    assert preview(call, messages) == [
        "Nothing is sent. What would change:",
        "",
        "p1@example.com",
        "  FirstName             Ann     → Anne",
        "  Review Rating         4       → 5",
        "  plan                  (empty) → pro\\x1b[31m",
        "  stays as it is: Title, Trial Ends",
        "  enters the journey Order Completed (0007)",
        "",
        "p2@example.com  (not in the table contacts)",
        "  Title                 (empty)",
        "  joins the list        contactlist_1",
        "",
        "field                                        values    cleared",
        "FirstName                                         1          0",
        "Title                                             1          1",
        "Review Rating                                     1          0",
        "Trial Ends                                        1          0",
        "plan  (no such field)                             1          0",
        "joins the list                                    1          0",
        "",
        "journey                                    entering",
        "Order Completed (0007)                            1",
        "",
        "would send 5 messages: 3 delivered, 1 refused, 0 failed, 0 unknown, 1 not meant for Autopilot",
        "  1 refused: Missing unique identifier traits. Either **email** or **user_id** traits must be provided",
        "  1 time plan was sent as string--plan, for which the account has no field",
        "  1 time the property title was not taken: it is spelt like a contact's field, but no setting maps it",
    ]
    assert posts(server) == []
    assert Path("autopilot.duckdb").read_bytes() == before


@pytest.mark.usefixtures("server")
def test_who_gets_another_address_stays_one_person(call: Call) -> None:
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute(CONTACTS)
    messages = [
        identify(1, traits={"email": "P1@example.com", "firstName": "Anne"}),
        identify(2, traits={"email": "p1@example.com", "_NewEmail": "B@example.com"}),
        identify(3, traits={"email": "b@example.com", "title": "CFO"}),
        track(4, email="b@example.com"),
    ]
    assert preview(call, messages) == [
        "Nothing is sent. What would change:",
        "",
        "p1@example.com",
        "  FirstName             Ann            → Anne",
        "  Email                 P1@example.com → B@example.com",
        "  Title                 CEO            → CFO",
        "  enters the journey Order Completed (0007)",
        "",
        "field                                        values    cleared",
        "FirstName                                         1          0",
        "Email                                             1          0",
        "Title                                             1          0",
        "",
        "journey                                    entering",
        "Order Completed (0007)                            1",
        "",
        "would send 4 messages: 4 delivered, 0 refused, 0 failed, 0 unknown",
    ]


@pytest.mark.usefixtures("server")
def test_the_page_shows_what_the_program_prints(call: Call) -> None:
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute(CONTACTS)
    traits = {"firstName": "Anne", "title": "CEO", "reviewRating": "5", "trialEnds": "2019-04-01"}
    assert "\n".join(preview(call, [identify(1, traits=traits), track(1)])) in PAGE


@pytest.mark.usefixtures("server")
def test_without_the_table_contacts(call: Call) -> None:
    title = "株式会社" * 30
    lines = preview(call, [identify(number, traits={"title": title}) for number in range(250)])
    assert lines[:6] == [
        "Nothing is sent. What would change:",
        "What they have now is not loaded. To see it as well, run first:",
        "autopilothq load api --only contacts",
        "",
        "p0@example.com",
        "  Title                 株式会社株式会社株式会社…",
    ]
    assert lines[4 + 3 * SHOWN_CONTACTS] == "… and 245 more contacts"
    assert [line.split() for line in lines[-4:-2]] == [["field", "values", "cleared"], ["Title", "250", "0"]]
    assert not Path("autopilot.duckdb").exists()
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("CREATE SCHEMA autopilothq; CREATE TABLE autopilothq.contacts (contact_id TEXT, first_name TEXT)")
    assert preview(call, [identify(0, traits={"title": title})])[:6] == lines[:6]  # `contacts` has no column `email`


@pytest.mark.usefixtures("server")
def test_nothing_to_change(call: Call) -> None:
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute(CONTACTS)
    said = call("send", "messages", write([]), "--dry-run")
    assert said.out.splitlines() == [
        "Nothing is sent, and nothing would change.",
        "would send 0 messages: 0 delivered, 0 refused, 0 failed, 0 unknown",
    ]
    said = call("send", "messages", "messages.ndjson", "--requests")
    assert said.status == 2
    assert said.err.splitlines()[-1] == "Error: --requests prints what --dry-run would send: give both."


def test_a_contact_that_comes_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autopilothq.destination.preview.SHOWN_CONTACTS", 2)
    seen = Preview()
    seen.write([{"Email": "a@b.c", "Title": "old", "custom": {"string--x": "1"}}, {"Email": "d@e.f", "Title": None}])
    seen.write([{"Email": "A@b.c", "Title": "new", "custom": {"string--y": "2"}}])
    seen.enter("0007", "A@b.c")
    [ann, other] = seen.contacts
    assert ann.values == {"Email": "A@b.c", "Title": "new", "custom": {"string--x": "1", "string--y": "2"}}
    assert (ann.triggers, other.triggers, seen.people) == (["0007"], [], 2)
    assert (seen.values["Title"], seen.cleared["Title"]) == (2, 1)


@pytest.mark.parametrize(
    ("key", "label", "column"),
    [
        ("FirstName", "FirstName", "first_name"),
        ("NumberOfEmployees", "NumberOfEmployees", "number_of_employees"),
        ("LinkedIn", "LinkedIn", "linked_in"),
        ("unsubscribed", "unsubscribed", "unsubscribed"),
        ("_NewEmail", "Email", "email"),
        ("tags", "gets the tag", "tags"),
        ("unset_tags", "loses the tag", "unset_tags"),
        ("integer--Review--Rating", "Review Rating", "custom_review_rating"),
    ],
)
def test_names_for_people_and_columns(key: str, label: str, column: str) -> None:
    assert (field_label(key), column_of(key)) == (label, column)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "(empty)"),
        ("", "(empty)"),
        ([], "(empty)"),
        (["big_spenders", "2019-03-01T00:00:00.000Z"], "big_spenders, 2019-03-01"),
        (False, "false"),
        (True, "true"),
        (5.0, "5"),
        (1234567.0, "1234567"),
        (1234567.891, "1234567.891"),
        (datetime(2019, 3, 1, 5, 6, tzinfo=UTC), "2019-03-01 05:06"),
        ("2019-03-01T00:00:00.000Z", "2019-03-01"),
        ("2019-03-01T02:00:00+02:00", "2019-03-01"),
        ("2019-13-01", "2019-13-01"),
        ("0001-01-01T00:00:00Z", "0001-01-01"),
        ("0001-01-01T00:00:00+02:00", "0001-01-01T00:00:00+02:00"),
        ("9999-12-31T23:59:59-12:00", "9999-12-31T23:59:59-12:00"),
    ],
)
def test_values_for_people(value: Any, shown: str) -> None:
    assert shown_value(value) == shown


@pytest.mark.parametrize(
    ("now", "then", "same"),
    [
        (None, "", True),
        ("None", None, False),
        ("", False, False),
        (True, True, True),
        (True, False, False),
        (4, "4.0", True),
        (Decimal("4.00"), 4, True),
        (4.5, "4.6", False),
        (4, "four", False),
        ("01234", "1234", False),
        ("Nan", "Nan", True),
        ("2019-03-01", "2019-03-01T00:00:00.000Z", True),
        (datetime(2019, 3, 1, tzinfo=UTC), "2019-03-01", True),
        (datetime(2019, 3, 1, tzinfo=UTC), "2019-03-02", False),
    ],
)
def test_a_value_stays_if_it_means_the_same(now: Any, then: Any, same: bool) -> None:
    assert (FieldChange("f", now, then).is_unchanged, FieldChange("f", then, now).is_unchanged) == (same, same)


def test_values_beyond_all_calendars_and_floats_are_compared() -> None:
    beyond = ("9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00", 10**400)
    assert [FieldChange("f", value, value).is_unchanged for value in beyond] == [True] * 3
    assert [FieldChange("f", value, "2019-03-01").is_unchanged for value in beyond] == [False] * 3
    assert [shown_value(value) for value in beyond[:2]] == list(beyond[:2])
