"""`contacts delete`, `eject` and `unsubscribe` as a user sees them, against an account over real HTTP."""

import json
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import duckdb
import pytest

from autopilothq.cli import contacting
from autopilothq.destination import DeliveryLog, contact_requests, contacts, opening
from autopilothq.destination.delivery_log import Delivery, DeliveryStatus, Sent
from autopilothq.errors import RunError
from autopilothq.segment.identity import HashedIds, hash_of, id_of
from calling import Call
from fake_autopilot import FakeAutopilot
from sending import IMPATIENT, configure, log_in, rows

COLUMNS = ("kind", "email", "trigger_id", "endpoint", "status", "http_status", "message", "attempts")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAutopilot]:
    for module in (opening, contacting):
        monkeypatch.setattr(module, "Autopilot", IMPATIENT)
    with FakeAutopilot(contacts=0) as server:
        for number in range(10):
            server.account.upsert({"Email": f"p{number}@example.com"})
        configure(monkeypatch, server)
        yield server


def listed(*people: Any, name: str = "people.txt") -> str:
    Path(name).write_text("".join(f"{one if isinstance(one, str) else f'p{one}@example.com'}\n" for one in people))
    return name


def sent(server: FakeAutopilot) -> list[str]:
    """Returns the requests that write, since the last call."""
    found = sorted(f"{each.method} {each.path}" for each in server.requests if each.method != "GET")
    server.requests.clear()
    return found


def test_contacts_are_deleted_by_a_file(call: Call, server: FakeAutopilot) -> None:
    id_ = server.account.find("p1@example.com")["contact_id"]  # type: ignore[index]
    file = listed("\ufeffP0@example.com", "", f"  {id_}\r", "p0@Example.com", "nobody@example.com")
    said = call("contacts", "delete", file)
    assert (said.status, said.out.splitlines(), said.err) == (
        0,
        [
            "3 contacts of the account's 10 to be deleted",
            "3 requests: 2 deleted, 1 not there, 0 refused, 0 failed",
        ],
        "",
    )
    paths = ["/contact/P0%40example.com", "/contact/nobody%40example.com", f"/contact/{id_}"]
    assert sent(server) == [f"DELETE {path}" for path in paths]
    assert server.account.total() == 8
    assert sorted(rows(*COLUMNS)) == [
        ("delete", "P0@example.com", None, f"DELETE {paths[0]}", "delivered", 200, None, 1),
        ("delete", "nobody@example.com", None, f"DELETE {paths[1]}", "delivered", 404, "no such contact", 1),
        ("delete", id_, None, f"DELETE {paths[2]}", "delivered", 200, None, 1),
    ]
    # A complete job starts again, because the contacts may have been created again.
    server.account.upsert({"Email": "p0@example.com"})
    assert call("contacts", "delete", file).out.splitlines() == [
        "3 contacts of the account's 9 to be deleted",
        "3 requests: 1 deleted, 2 not there, 0 refused, 0 failed",
    ]


def test_contacts_are_unsubscribed_by_a_query(call: Call, server: FakeAutopilot) -> None:
    id_ = server.account.find("p2@example.com")["contact_id"]  # type: ignore[index]
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute(
            "CREATE TABLE t AS SELECT 'p1@example.com' AS Email, NULL::TEXT AS contact_id UNION ALL SELECT NULL, NULL"
        )
        con.execute(f"INSERT INTO t VALUES ('p9@example.com', '{id_}')")
    said = call("contacts", "unsubscribe", "--query", "SELECT * FROM main.t")
    assert (said.status, said.out.splitlines()) == (
        0,
        [
            "2 contacts of the account's 10 to be unsubscribed",
            "  1 row without contact_id and email skipped",
            "2 requests: 2 unsubscribed, 0 not there, 0 refused, 0 failed",
        ],
    )
    assert sent(server) == ["POST /contact/p1%40example.com/unsubscribe", f"POST /contact/{id_}/unsubscribe"]
    assert [server.account.find(f"p{number}@example.com").get("unsubscribed") for number in (1, 2, 9)] == [  # type: ignore[union-attr]
        True,
        True,
        None,
    ]


def test_contacts_are_taken_out_of_journeys(call: Call, server: FakeAutopilot, monkeypatch: pytest.MonkeyPatch) -> None:
    listed(1, 2, name="stdin")
    with open("stdin") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        said = call("contacts", "eject", "-", "--journey", "campaign_1", "--journey", "campaign/2")
    assert (said.status, said.out.splitlines()) == (
        0,
        [
            "2 contacts of the account's 10 to be taken out",
            "4 requests: 4 taken out, 0 not there, 0 refused, 0 failed",
        ],
    )
    paths = [
        f"/journey/{journey}/contact/p{n}%40example.com" for journey in ("campaign%2F2", "campaign_1") for n in (1, 2)
    ]
    assert sent(server) == [f"DELETE {path}" for path in paths]
    assert min(rows("email", "trigger_id", "endpoint")) == ("p1@example.com", "campaign/2", f"DELETE {paths[0]}")
    server.order("DELETE", "/journey/*", status=404, times=2)
    said = call("contacts", "eject", listed(1, 2), "--journey", "campaign_x")
    assert said.out.splitlines()[1:] == [
        "2 requests: 0 taken out, 2 not there, 0 refused, 0 failed",
        "  None of them was in the journey. Is its id right? It is the one in campaign_id.",
    ]


def test_a_dry_run_shows_how_many_and_whom(call: Call, server: FakeAutopilot) -> None:
    said = call("contacts", "delete", listed(*range(6), "person_0000"), "--dry-run")
    assert (said.status, said.out.splitlines()) == (
        0,
        [
            "7 contacts of the account's 10 would be deleted",
            *("  email p...@example.com" for _ in range(6)),
            "  contact_id person_0000",
            "It would be refused without --confirm 7.",
        ],
    )
    many = [f"{number}@example.com" for number in range(100, 130)]
    assert call("contacts", "delete", listed(*many), "--dry-run", "--max", "40").out.splitlines()[20:] == [
        "  email 1...@example.com",
        "  and 10 more",
    ]
    assert sent(server) == []
    assert not Path("autopilot.duckdb").exists()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ((), " and the account has 10, but got none"),
        (("--max", "5"), " and --max is 5, but got none"),
        (("--confirm", "5"), ", but got --confirm 5"),
        (("--max", "9", "--confirm", "7"), ", but got --confirm 7"),
    ],
)
def test_more_than_half_of_the_account_needs_a_confirmation(
    call: Call, server: FakeAutopilot, words: tuple[str, ...], error: str
) -> None:
    said = call("contacts", "delete", listed(*range(6)), *words)
    assert (said.status, said.out, said.err) == (
        1,
        "",
        (
            f"Error: Expected --confirm 6, because 6 contacts would be deleted{error}. Nothing was sent.\n"
            "Look at them with --dry-run. If all are meant, add --confirm 6.\n"
        ),
    )
    assert (sent(server), rows("email")) == ([], [])


@pytest.mark.parametrize("words", [("--confirm", "6"), ("--max", "6")])
def test_what_is_confirmed_is_done(call: Call, server: FakeAutopilot, words: tuple[str, ...]) -> None:
    assert call("contacts", "delete", listed(*range(6)), *words).status == 0
    assert server.account.total() == 4


@pytest.mark.usefixtures("server")
def test_half_of_the_account_needs_none(call: Call) -> None:
    assert call("contacts", "delete", listed(*range(5))).status == 0


def test_an_account_that_does_not_say_how_many_it_has(call: Call, server: FakeAutopilot) -> None:
    def without(page: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in page.items() if key != "total_contacts"}

    server.order("GET", "/contacts", edit=without, times=2)
    said = call("contacts", "delete", listed(1))
    assert said.err.splitlines()[0] == (
        "Error: Expected --confirm 1, because 1 contact would be deleted and the account does not say how many it"
        " has, but got none. Nothing was sent."
    )
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("CREATE TABLE autopilothq.contacts (contact_id TEXT, deleted_at TIMESTAMPTZ)")
        con.execute("INSERT INTO autopilothq.contacts VALUES ('1', NULL), ('2', NULL), ('3', now())")
    assert call("contacts", "delete", listed(1)).out.splitlines()[0] == "1 contact of the account's 2 to be deleted"


def test_a_job_that_broke_off_is_continued(call: Call, server: FakeAutopilot) -> None:
    server.order("DELETE", "/contact/*", status=401, message="Provided autopilotapikey not valid.", skip=3, times=99)
    said = call("contacts", "delete", listed(*range(8)), "--confirm", "8")
    assert said.status == 1
    assert "Provided autopilotapikey not valid." in said.err
    states = rows("status", "http_status", "message")
    assert (len(states), states.count(("delivered", 200, None))) == (8, 3)
    assert {state for state in states if state[0] != "delivered"} <= {
        ("failed", 401, "Provided autopilotapikey not valid."),
        ("failed", None, "not sent, because the run broke off"),
    }
    server.faults.clear()
    left = next(email for email, status in rows("email", "status") if status == "failed")
    server.order("DELETE", f"/contact/{left.replace('@', '%40')}", status=500, message="Broken.", times=2)
    sent(server)
    said = call("contacts", "delete", listed(*range(8)), "--confirm", "8")
    assert (said.status, said.out.splitlines()) == (
        4,
        [
            "8 contacts of the account's 7 to be deleted, 3 done by a run that broke off",
            "5 requests: 4 deleted, 0 not there, 0 refused, 1 failed",
            "  1 failed: Broken.",
        ],
    )
    assert len(sent(server)) == 6
    # No confirmation is needed, because the job was at most half of the account when it began.
    said = call("contacts", "delete", listed(*range(8)), "--max", "8")
    assert said.out.splitlines() == [
        "8 contacts of the account's 3 to be deleted, 7 done by a run that broke off",
        "1 request: 1 deleted, 0 not there, 0 refused, 0 failed",
    ]
    assert call("contacts", "delete", listed(*range(8)), "--max", "8").out.splitlines()[1] == (
        "8 requests: 0 deleted, 8 not there, 0 refused, 0 failed"
    )


def test_a_job_that_broke_off_long_ago_starts_from_the_beginning(
    call: Call, server: FakeAutopilot, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.order("DELETE", "/contact/*", status=401, skip=2, times=99)
    call("contacts", "delete", listed(*range(4)))
    server.faults.clear()
    monkeypatch.setattr(contacts, "CONTINUED_WITHIN", timedelta())
    assert call("contacts", "delete", listed(*range(4))).out.splitlines() == [
        "4 contacts of the account's 8 to be deleted",
        "4 requests: 2 deleted, 2 not there, 0 refused, 0 failed",
    ]


def test_all_of_a_job_is_in_the_log_before_its_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_requests, "REQUESTS_AT_ONCE", 2)
    people = [f"p{number}@example.com" for number in range(5)]
    with DeliveryLog(log_in()) as log:
        job = contacts.plan_contacts(contacts.UNSUBSCRIBE, people, (), log)
        contact_requests.plan_requests(job.requests, log)
        known = log.statuses(each.row.message_id for each in job.requests)
        assert {(state.status, state.content) for state in known.values()} == {("failed", log.run)}
        assert {row["message"] for row in log.latest()} == {"not sent yet"}


@pytest.mark.usefixtures("server")
def test_a_deleted_person_leaves_no_row(call: Call) -> None:
    call("contacts", "unsubscribe", listed(1))
    assert call("forget", "--email", "p1@example.com").status == 0
    said = call("contacts", "delete", listed(1, 2))
    assert said.out.splitlines()[1] == "2 requests: 2 deleted, 0 not there, 0 refused, 0 failed"
    assert rows("kind", "email") == [("delete", "p2@example.com")]


def test_a_contact_that_was_named_by_its_id_can_be_forgotten(call: Call, server: FakeAutopilot) -> None:
    id_ = server.account.find("p1@example.com")["contact_id"]  # type: ignore[index]
    call("contacts", "unsubscribe", listed(id_, 2))
    said = call("forget", "--contact-id", id_)
    assert (said.status, [line.split() for line in said.out.splitlines() if "_deliveries" in line]) == (
        0,
        [["_deliveries", "1"]],
    )
    assert rows("email") == [("p2@example.com",)]


@pytest.mark.usefixtures("server")
def test_the_log_as_json_has_the_counts(call: Call) -> None:
    said = call("--log-format", "json", "contacts", "delete", listed(1, "nobody@example.com"))
    [line] = map(json.loads, said.err.splitlines())
    del line["at"]
    assert line == {
        "level": "info",
        "message": "done",
        "requests": 2,
        "delivered": 1,
        "not_there": 1,
        "refused": 0,
        "failed": 0,
    }


@pytest.mark.parametrize("line", ["p1", "a@b.c,d@e.f", "a@b.c; x", "email", '"a@b.c"', "a@b.c d"])
def test_a_line_that_names_no_contact(line: str) -> None:
    with pytest.raises(RunError) as raised:
        contacts.contacts_of_lines(["a@b.c\n", f"{line}\n"], "people.txt")
    assert str(raised.value) == (
        f"Expected an email or a contact's id (person_…) in line 2 of people.txt, got {line!r}.\nNothing was sent."
    )


def test_a_file_without_lines_is_not_shown_whole() -> None:
    with pytest.raises(RunError, match=r" got 'x{78}…\.\n"):
        contacts.contacts_of_lines(["x" * 100_000], "people.txt")


def test_a_query_without_the_columns() -> None:
    with pytest.raises(RunError) as raised:
        contacts.contacts_of_rows(["id", "mail"], [])
    assert str(raised.value) == (
        "Expected a column contact_id or email in the query's answer, got id, mail.\n"
        "Name it so (… AS email). Nothing was sent."
    )


def test_each_contact_of_a_file_or_a_query_comes_once() -> None:
    lines = ["\ufeffa@b.c\n", "\n", " person_1 \n", "\ufeff\ufeff A@b.c\n", "\ufeff \n", "person_1\n", "d@e.f"]
    assert contacts.contacts_of_lines(lines, "people.txt") == ["a@b.c", "person_1", "d@e.f"]
    answer = [("a@b.c", None, 1), ("A@B.C", "", 2), (None, "", 3), ("x@y.z", "person_1", 4), (None, None, 5)]
    assert contacts.contacts_of_rows(["Email", "Contact_Id", "n"], answer) == (["a@b.c", "person_1"], 2)


@pytest.mark.parametrize(
    ("number", "total", "most", "confirm", "why"),
    [
        (4, 8, None, None, None),
        (4, 9, None, None, None),
        (5, 9, None, None, " and the account has 9, but got none"),
        (1, 0, None, None, " and the account has 0, but got none"),
        (1_001, 2_001, None, None, " and the account has 2,001, but got none"),
        (0, None, None, None, " and the account does not say how many it has, but got none"),
        (2, 9, 2, None, None),
        (2, 9, 1, None, " and --max is 1, but got none"),
        (9, None, 9, None, None),
        (0, 9, 0, None, None),
        (1, 9, 0, None, " and --max is 0, but got none"),
        (9, 9, 1, 9, None),
        (9, None, None, 8, ", but got --confirm 8"),
        (1, 9, None, 0, ", but got --confirm 0"),
    ],
)
def test_how_many_contacts_need_a_confirmation(
    number: int, total: int | None, most: int | None, confirm: int | None, why: str | None
) -> None:
    told = None
    try:
        contacts.check_number(contacts.UNSUBSCRIBE, number, total, most, confirm)
    except contacts.TooManyContacts as error:
        told = str(error)
    who = f"{number:,} contact" + ("s" if number != 1 else "")
    assert told == (
        why
        and f"Expected --confirm {number}, because {who} would be unsubscribed{why}. Nothing was sent.\n"
        f"Look at them with --dry-run. If all are meant, add --confirm {number}."
    )


class Log:
    """A log of run `3`, with a deleted person and the last status of each request by its place in the job."""

    run = "3"

    def __init__(self, *known: DeliveryStatus | None) -> None:
        self.known = known

    def suppressed_ids(self) -> HashedIds:
        return HashedIds([("salt", hash_of("salt", id_of("email", "d@b.c")))])

    def statuses(self, message_ids: Iterable[str]) -> dict[tuple[str, str | None], DeliveryStatus]:
        return {(id_, "j"): status for id_, status in zip(message_ids, self.known, strict=False) if status is not None}


def test_what_is_left_of_a_job_that_broke_off() -> None:
    people = ["a@b.c", "D@b.c", "person_1", "e@b.c", "f@b.c"]
    now = datetime.now(UTC)
    lately, long_ago = (Sent(now - timedelta(days=1, minutes=minutes), "2") for minutes in (-1, 1))

    def left(*known: DeliveryStatus | None) -> tuple[list[tuple[str | None, str | None, bool]], int, int]:
        log: Any = Log(*known)
        job = contacts.plan_contacts(contacts.EJECT, people, ["j"], log)
        return [(each.row.email, each.row.content, each.logged) for each in job.requests], *job[1:]

    of_all = [(who, "3", who != "D@b.c") for who in people]
    done = DeliveryStatus(True, "delivered", "2", lately)
    assert left() == (of_all, 5, 0)
    assert left(*[done] * 5) == (of_all, 5, 0)  # a complete job is repeated
    for status in ("failed", "unknown"):
        cut_off = DeliveryStatus(False, status, "2", lately)
        old, other = done._replace(sent=long_ago), done._replace(content="1")
        assert left(done, cut_off, old, other, done) == ([(who, "2", who != "D@b.c") for who in people[1:4]], 3, 2)
    refused = DeliveryStatus(False, "refused", "2", None)
    assert left(done, refused) == (of_all, 5, 0)


def test_a_job_that_broke_off_is_continued_by_its_own_command_alone() -> None:
    def jobs() -> list[str | None]:
        every: list[tuple[contacts.ContactAction, list[str]]] = [
            (contacts.EJECT, ["j"]),
            (contacts.EJECT, ["k"]),
            (contacts.DELETE, []),
            (contacts.UNSUBSCRIBE, []),
        ]
        plans = [contacts.plan_contacts(action, ["a@b.c"], journeys, log) for action, journeys in every]
        rows.extend(each.row for plan in plans for each in plan.requests)
        return [each.row.content for plan in plans for each in plan.requests]

    rows: list[Delivery] = []
    with DeliveryLog(log_in()) as log:
        assert jobs() == [log.run] * 4
        log.add([rows[0]._replace(status="failed", content="1")])
        assert jobs() == ["1", log.run, log.run, log.run]


def test_the_requests_of_a_job() -> None:
    log: Any = Log()
    requests = [
        each
        for action in (contacts.DELETE, contacts.EJECT, contacts.UNSUBSCRIBE)
        for each in contacts.plan_contacts(action, ["a@b.c"], ["j", "k"], log).requests
    ]
    rows_of = [(each.row.kind, each.row.email, each.row.trigger_id, each.endpoint, each.absent) for each in requests]
    in_journey = "no such contact, or not in the journey"
    assert rows_of == [
        ("delete", "a@b.c", None, "DELETE /contact/a%40b.c", "no such contact"),
        ("eject", "a@b.c", "j", "DELETE /journey/j/contact/a%40b.c", in_journey),
        ("eject", "a@b.c", "k", "DELETE /journey/k/contact/a%40b.c", in_journey),
        ("unsubscribe", "a@b.c", None, "POST /contact/a%40b.c/unsubscribe", "no such contact"),
    ]
    account = mock.Mock()
    for each in requests:
        each.send(account)
    assert account.mock_calls == [
        mock.call.delete_contact("a@b.c"), mock.call.eject("j", "a@b.c"), mock.call.eject("k", "a@b.c"),
        mock.call.unsubscribe("a@b.c"),
    ]  # fmt: skip


def test_arguments(call: Call, server: FakeAutopilot, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in ((), ("people.txt", "--query", "SELECT 1")):
        said = call("contacts", "delete", *words)
        assert (said.status, said.err.splitlines()[-1]) == (
            2,
            "Error: Which contacts? Name a FILE (- is stdin), or a --query.",
        )
    assert call("contacts", "eject", "people.txt").err.splitlines()[-1] == "Error: Missing option '--journey'."
    said = call("contacts", "delete", "nowhere.txt")
    assert (said.status, said.err) == (
        1,
        (
            "Error: Expected a file with an email or an id on each line, but nowhere.txt cannot be read: No such file"
            " or directory.\n"
        ),
    )
    Path("latin.txt").write_bytes(b"\xe9@example.com\n")
    # As Python opens stdin in a container without a locale.
    with open("latin.txt", encoding="utf-8", errors="surrogateescape") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        for file, name in (("latin.txt", "latin.txt"), ("-", "stdin")):
            assert call("contacts", "delete", file).err == (
                f"Error: Expected a file with an email or an id on each line, but {name} cannot be read: it is not"
                " UTF-8 text.\n"
            )
    assert sent(server) == []
