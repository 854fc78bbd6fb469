"""With `send audience --list`, a list follows an audience: whole requests over real HTTP, and rows of the log."""

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from autopilothq.destination import lists, opening
from autopilothq.destination.counts import Counts
from autopilothq.destination.delivery_log import Delivery
from autopilothq.segment.identity import HashedIds, hash_of, id_of
from calling import Call
from fake_autopilot import FakeAutopilot
from sending import IMPATIENT, configure, rows

TITLE = "1k.csv"
ID = "contactlist_06444749-9C0F-4894-9A23-D6872F9B6EF8"
PATH = f"/list/{ID}/contact/"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAutopilot]:
    for module in (opening, lists):
        monkeypatch.setattr(module, "Autopilot", IMPATIENT)
    with FakeAutopilot(contacts=0) as server:
        server.account.fields += [("big_spenders", "boolean"), ("vip", "boolean")]
        configure(monkeypatch, server)
        yield server


def query(*names: str) -> str:
    values = ", ".join(f"('{name}@example.com')" for name in names)
    return f"SELECT email FROM (VALUES {values}) t(email)" if names else "SELECT 'x' AS email WHERE false"


def sent(server: FakeAutopilot) -> list[tuple[str, str, Any]]:
    """Returns the requests that write since the last call; those about lists are sorted by path."""
    found = [(each.method, each.path, each.body) for each in server.requests if each.method != "GET"]
    server.requests.clear()
    return sorted(found, key=lambda each: each[1].removeprefix(PATH) if each[1].startswith(PATH) else "")


def members(server: FakeAutopilot, list_id: str = ID) -> set[str]:
    return {contact["Email"] for contact in server.account.page(None, list_id)["contacts"]}


def test_who_comes_is_put_on_the_list_and_who_leaves_is_taken_off(call: Call, server: FakeAutopilot) -> None:
    said = call("send", "audience", "Big Spenders", "--query", query("ada", "bo"), "--list", TITLE)
    assert (said.status, said.out.splitlines()) == (
        0,
        [
            "big_spenders: 2 members, 2 to enter, 0 to leave, 0 unchanged",
            "list 1k.csv: 2 to put on, 0 to take off, 0 unchanged",
            "4 messages: 4 delivered, 0 refused, 0 failed, 0 unknown",
        ],
    )
    trait = {"custom": {"boolean--big_spenders": True}}
    contacts = [{"Email": f"{name}@example.com", **trait} for name in ("ada", "bo")]
    assert sent(server) == [
        ("POST", "/contacts", {"contacts": contacts}),
        ("POST", f"{PATH}ada%40example.com", None),
        ("POST", f"{PATH}bo%40example.com", None),
    ]
    said = call("send", "audience", "Big Spenders", "--query", query("bo", "cy"), "--list", ID)
    assert said.out.splitlines() == [
        "big_spenders: 2 members, 1 to enter, 1 to leave, 1 unchanged",
        "list 1k.csv: 1 to put on, 1 to take off, 1 unchanged",
        "4 messages: 4 delivered, 0 refused, 0 failed, 0 unknown",
    ]
    assert sent(server)[1:] == [
        ("DELETE", f"{PATH}ada%40example.com", None),
        ("POST", f"{PATH}cy%40example.com", None),
    ]
    assert members(server) == {"bo@example.com", "cy@example.com"}
    columns = ("kind", "audience", "email", "content", "endpoint", "status", "http_status", "message", "attempts")
    found = [row for row in rows(*columns) if row[0] == "list"]
    assert sorted(found) == [
        (
            "list",
            "big_spenders",
            "ada@example.com",
            "false",
            f"DELETE {PATH}ada%40example.com",
            "delivered",
            200,
            None,
            1,
        ),
        ("list", "big_spenders", "ada@example.com", "true", f"POST {PATH}ada%40example.com", "delivered", 200, None, 1),
        ("list", "big_spenders", "bo@example.com", "true", f"POST {PATH}bo%40example.com", "delivered", 200, None, 1),
        ("list", "big_spenders", "cy@example.com", "true", f"POST {PATH}cy%40example.com", "delivered", 200, None, 1),
    ]
    again = call("send", "audience", "Big Spenders", "--query", query("bo", "cy"), "--list", TITLE)
    assert (again.status, again.out.splitlines()[1:]) == (
        0,
        [
            "list 1k.csv: 0 to put on, 0 to take off, 2 unchanged",
            "0 messages: 0 delivered, 0 refused, 0 failed, 0 unknown",
        ],
    )
    assert sent(server) == []


def test_the_list_alone(call: Call, server: FakeAutopilot) -> None:
    server.account.upsert({"Email": "ada@example.com"})
    said = call("send", "audience", "Vip", "--query", query("ada", "bo"), "--list", TITLE, "--list-only")
    assert (said.status, said.out.splitlines()) == (
        4,
        [
            "list 1k.csv: 2 to put on, 0 to take off, 0 unchanged",
            "2 messages: 1 delivered, 1 refused, 0 failed, 0 unknown",
            "  1 refused: The account has no such contact, or the list no longer exists",
        ],
    )
    assert [each.path for each in server.requests if each.method == "GET"] == ["/lists"]  # the emails are known already
    assert sent(server) == [
        ("POST", f"{PATH}ada%40example.com", None),
        ("POST", f"{PATH}bo%40example.com", None),
    ]
    # Later the trait is sent as well; people on the list stay, and the others are tried again.
    said = call("send", "audience", "Vip", "--query", query("ada", "bo"), "--list", TITLE)
    assert said.out.splitlines() == [
        "vip: 2 members, 2 to enter, 0 to leave, 0 unchanged",
        "list 1k.csv: 1 to put on, 0 to take off, 1 unchanged",
        "3 messages: 3 delivered, 0 refused, 0 failed, 0 unknown",
    ]


def test_whose_list_call_failed_is_tried_again_for_the_list_alone(call: Call, server: FakeAutopilot) -> None:
    server.order("POST", f"{PATH}*", status=503, times=2)
    said = call("send", "audience", "Vip", "--query", query("ada"), "--list", TITLE)
    assert (said.status, said.out.splitlines()[2]) == (4, "2 messages: 1 delivered, 0 refused, 1 failed, 0 unknown")
    sent(server)
    said = call("send", "audience", "Vip", "--query", query("ada"), "--list", TITLE)
    assert (said.status, said.out.splitlines()) == (
        0,
        [
            "vip: 1 member, 0 to enter, 0 to leave, 1 unchanged",
            "list 1k.csv: 1 to put on, 0 to take off, 0 unchanged",
            "1 message: 1 delivered, 0 refused, 0 failed, 0 unknown",
        ],
    )
    assert sent(server) == [("POST", f"{PATH}ada%40example.com", None)]
    # People who are not on the list any more need not be removed.
    server.account.put_on_list(ID, "ada@example.com", False)
    said = call("send", "audience", "Vip", "--query", query(), "--list", TITLE)
    assert (said.status, said.out.splitlines()[1]) == (0, "list 1k.csv: 0 to put on, 1 to take off, 0 unchanged")


def test_404_on_taking_off_is_off_already(call: Call, server: FakeAutopilot) -> None:
    call("send", "audience", "Vip", "--query", query("ada"), "--list", TITLE, "--list-only")
    server.account.upsert({"Email": "ada@example.com"})
    call("send", "audience", "Vip", "--query", query("ada"), "--list", TITLE, "--list-only")
    server.account.delete("ada@example.com")
    said = call("send", "audience", "Vip", "--query", query(), "--list", TITLE, "--list-only")
    assert (said.status, said.out.splitlines()[1]) == (0, "1 message: 1 delivered, 0 refused, 0 failed, 0 unknown")
    assert rows("content", "status", "http_status", "message")[-1] == ("false", "delivered", 404, "was not on the list")


@pytest.mark.parametrize(
    ("name", "words", "error"),
    [
        (
            "nobody",
            (),
            (
                "Error: Expected a list with the name or the id nobody, but the account has Nobody, Build your"
                " journey, Old customers / 2014, 1k.csv.\nAdd --create-list to make it. Nothing was sent.\n"
            ),
        ),
        (
            "Twice",
            ("--create-list",),
            (
                "Error: Expected one list with the name Twice, but 2 have it.\n"
                "Name it by its id: contactlist_1, contactlist_2. Nothing was sent.\n"
            ),
        ),
    ],
)
def test_a_list_that_is_not_one(
    call: Call, server: FakeAutopilot, name: str, words: tuple[str, ...], error: str
) -> None:
    if name == "Twice":
        server.account.lists |= {"contactlist_1": "Twice", "contactlist_2": "Twice"}
    said = call("send", "audience", "Vip", "--query", query("ada"), "--list", name, *words)
    assert (said.status, said.out, said.err) == (1, "", error)
    assert sent(server) == []


def test_an_account_with_many_lists_names_the_most_similar_ones() -> None:
    titles = [f"b{number:02}" for number in range(20)]
    found = [lists.AccountList("", title) for title in reversed([*titles, "b20", "Zoes"])]
    assert lists._listed(found, "zoe") == f"Zoes, {', '.join(titles[:-1])} and 2 more"
    assert lists._listed(found[2:], "zoe") == ", ".join(titles)
    assert lists._listed([], "zoe") == "none at all"


def test_what_the_account_lists_without_an_id_is_no_list() -> None:
    odd = [None, "list", {}, {"list_id": "", "title": "a"}, {"list_id": 7}, {"list_id": "c", "title": "d"}]
    expected = [None] * 4 + [lists.AccountList("7", ""), lists.AccountList("c", "d")]
    assert list(map(lists._account_list, odd)) == expected


class Log:
    """A log with a deleted person; records the rows that are added."""

    def __init__(self, deleted: str) -> None:
        self.deleted = HashedIds([("salt", hash_of("salt", id_of("email", deleted)))])
        self.rows: list[Delivery] = []

    def suppressed_ids(self) -> HashedIds:
        return self.deleted

    def add(self, rows: list[Delivery]) -> None:
        self.rows += rows


def test_who_has_no_email_is_refused_and_who_was_deleted_is_left_out() -> None:
    people = ("d@b.c", None, "true"), ("a@b.c", "u1", "true"), (None, "u2", "true"), ("b@b.c", None, "false")
    members = [
        Delivery(f"m{number}", "list", audience="vip", email=email, user_id=user_id, content=content)
        for number, (email, user_id, content) in enumerate(people)
    ]
    log: Any = Log("D@b.c")
    counts = Counts()
    requests = lists._requests(members, "", log, counts)
    assert [(each.row, each.endpoint, each.absent, each.missing) for each in requests] == [
        (
            members[1],
            "POST /list/%28new%29/contact/a%40b.c",
            None,
            "The account has no such contact, or the list no longer exists",
        ),
        (members[3], "DELETE /list/%28new%29/contact/b%40b.c", "was not on the list", None),
    ]
    account = mock.Mock()
    for each in requests:
        each.send(account)
    assert account.mock_calls == [
        mock.call.put_on_list("(new)", "a@b.c"), mock.call.take_off_list("(new)", "b@b.c")
    ]  # fmt: skip
    why = "No contact is known by the user id 'u2'"
    assert log.rows == [members[2]._replace(status="refused", message=why)]
    assert counts == Counts(messages=2, suppressed=1, refused=1, reasons=Counter({("refused", why): 1}))


def test_a_list_is_made(call: Call, server: FakeAutopilot) -> None:
    words = ("send", "audience", "Vip", "--query", query("ada"), "--list", "Key accounts", "--create-list")
    said = call(*words, "--dry-run", "--requests")
    base = server.base_url
    assert (said.status, said.out.splitlines()) == (
        0,
        [
            f"POST {base}/list",
            '{"name": "Key accounts"}',
            f"POST {base}/contacts",
            '{"contacts": [{"Email": "ada@example.com", "custom": {"boolean--vip": true}}]}',
            f"POST {base}/list/%28new%29/contact/ada%40example.com",
            "vip: 1 member, 1 to enter, 0 to leave, 0 unchanged",
            "list Key accounts (new): 1 to put on, 0 to take off, 0 unchanged",
            "would send 2 messages: 2 delivered, 0 refused, 0 failed, 0 unknown",
        ],
    )
    assert sent(server) == []
    assert call(*words).status == 0
    made = next(list_id for list_id, title in server.account.lists.items() if title == "Key accounts")
    assert members(server, made) == {"ada@example.com"}
    sent(server)
    assert call(*words).status == 0
    assert sent(server) == []
    server.account.lists.clear()
    server.order("POST", "/list", status=409, message="A list with this name already exists.")
    said = call(*words)
    assert (said.status, said.err) == (
        1,
        "Error: The list Key accounts could not be made: A list with this name already exists.\nNothing was sent.\n",
    )
    server.order("POST", "/list", drop="after")
    said = call(*words)
    advice = "Run it again: if the list was made, it is found. Nothing else was sent."
    assert (said.status, said.out, said.err.splitlines()[-1]) == (1, "", advice)


def test_a_dry_run_shows_who_would_come_and_who_would_leave(call: Call, server: FakeAutopilot) -> None:
    words = ("send", "audience", "Vip", "--list", TITLE, "--list-only", "--query")
    server.account.upsert({"Email": "zoe@example.com"})
    assert call(*words, query("zoe")).status == 0
    sent(server)
    said = call(*words, query(*"abcdefg"), "--dry-run")
    assert (said.status, said.out.splitlines()) == (
        0,
        [
            "list 1k.csv: 7 to put on, 1 to take off, 0 unchanged",
            f"  on: {', '.join(f'{name}@example.com' for name in 'abcde')} and 2 more",
            "  off: zoe@example.com",
            "would send 8 messages: 8 delivered, 0 refused, 0 failed, 0 unknown",
        ],
    )
    assert sent(server) == []
    # The trait is unchanged, so only the list would change.
    assert call(*words[:3], *words[6:], query("a")).status == 0
    said = call(*words[:3], *words[6:], query("a"), "--list", TITLE, "--dry-run")
    assert said.out.splitlines() == [
        "Nothing is sent.",
        "vip: 1 member, 0 to enter, 0 to leave, 1 unchanged",
        "list 1k.csv: 1 to put on, 1 to take off, 0 unchanged",
        "  on: a@example.com",
        "  off: zoe@example.com",
        "would send 2 messages: 2 delivered, 0 refused, 0 failed, 0 unknown",
    ]
    said = call(*words[:3], *words[6:], query("b"), "--list", TITLE, "--dry-run")
    assert said.out.splitlines()[-4:] == [
        "list 1k.csv: 1 to put on, 1 to take off, 0 unchanged",
        "  on: b@example.com",
        "  off: zoe@example.com",
        "would send 4 messages: 4 delivered, 0 refused, 0 failed, 0 unknown",
    ]


def test_by_user_id(call: Call, server: FakeAutopilot) -> None:
    words = ("send", "audience", "Vip", "--key", "user_id", "--list", TITLE, "--query")
    said = call(*words, "SELECT 'u1' AS user_id, 'ada@example.com' AS email UNION ALL SELECT 'u2', NULL")
    assert (said.status, said.out.splitlines()[1:3]) == (
        4,
        [
            "list 1k.csv: 2 to put on, 0 to take off, 0 unchanged",
            "4 messages: 2 delivered, 2 refused, 0 failed, 0 unknown",
        ],
    )
    # The log knows the email of a user id, so the query need not return it.
    nobody = next(list_id for list_id, title in server.account.lists.items() if title == "Nobody")
    sent(server)
    said = call(*words[:5], "--list", nobody, "--list-only", "--query", "SELECT 'u1' AS user_id")
    assert (said.status, said.out.splitlines()[1]) == (0, "1 message: 1 delivered, 0 refused, 0 failed, 0 unknown")
    assert sent(server) == [("POST", f"/list/{nobody}/contact/ada%40example.com", None)]
    said = call(*words, "SELECT 'u1' AS user_id WHERE false")
    assert (said.status, said.out.splitlines()[1]) == (0, "list 1k.csv: 0 to put on, 1 to take off, 0 unchanged")
    assert members(server) == set()
    said = call("send", "audience", "Vip", "--list", TITLE, "--list-only", "--query", query("ada"))
    assert (said.status, said.err) == (
        1,
        (
            "Error: The list follows the audience vip with the key user_id, so its members cannot be found by email.\n"
            "Add --key user_id, or give the audience another name.\n"
        ),
    )


def test_401_stops_the_run_and_the_log_says_what_was_not_sent(call: Call, server: FakeAutopilot) -> None:
    for number in range(30):
        server.account.upsert({"Email": f"p{number}@example.com"})
    server.order("POST", f"{PATH}*", status=401, message="Provided autopilotapikey not valid.", skip=3, times=1000)
    people = [f"p{number}" for number in range(30)]
    said = call("send", "audience", "Vip", "--list", TITLE, "--list-only", "--query", query(*people))
    assert said.status == 1
    assert "Provided autopilotapikey not valid." in said.err
    states = rows("status", "http_status", "message")
    assert states.count(("delivered", 200, None)) == 3
    assert {row for row in states if row[0] != "delivered"} == {
        ("failed", 401, "Provided autopilotapikey not valid."),
        ("failed", None, "not sent, because the run broke off"),
    }
    server.faults.clear()
    said = call("send", "audience", "Vip", "--list", TITLE, "--list-only", "--query", query(*people))
    assert (said.status, said.out.splitlines()[0]) == (0, "list 1k.csv: 27 to put on, 0 to take off, 3 unchanged")
    assert len(members(server)) == 30


def test_requests_go_side_by_side_and_in_the_accounts_pace(call: Call, server: FakeAutopilot) -> None:
    server.latency = 0.05
    people = [f"p{number}" for number in range(40)]
    call("send", "audience", "Vip", "--list", TITLE, "--query", query(*people))
    times = [each.at for each in server.requests if each.path.startswith(PATH)]
    assert len(times) == 40
    assert max(times) - min(times) < 40 * 0.05
    assert threading.active_count() < 50


def test_options_that_need_a_list(call: Call) -> None:
    said = call("send", "audience", "Vip", "--query", query("ada"), "--list-only")
    assert (said.status, said.err.splitlines()[-1]) == (2, "Error: Which list? Name it with --list.")
