"""Which person a message is about, whether it is meant for Autopilot, and what a track writes, over real HTTP."""

from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import pytest

from autopilothq.destination import Counts, DeliveryLog, deliver, opening, sender
from autopilothq.destination.delivery_log import SENT_AGAIN
from autopilothq.destination.dispatch import DEFERRED
from autopilothq.destination.emails import is_email_address
from autopilothq.destination.messages import Ignored, Item, from_row, is_enabled
from autopilothq.destination.plan import UNMAPPED
from calling import Call
from fake_autopilot import FakeAutopilot
from sending import IMPATIENT, counted, identify, log_in, posts, rows, send, settings_for, track


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAutopilot]:
    monkeypatch.setattr(opening, "Autopilot", IMPATIENT)
    with FakeAutopilot(contacts=5) as server:
        yield server


def contacts(server: FakeAutopilot) -> list[dict[str, Any]]:
    return [contact for path, body in posts(server) if path == "/contacts" for contact in body["contacts"]]


# ---- who -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["identify", "track"])
def test_the_email_of_a_message(server: FakeAutopilot, kind: str) -> None:
    found: list[tuple[dict[str, Any], str | None]] = [
        ({"traits": {"email": "a@b.1"}, "userId": "u@b.1"}, "a@b.1"),
        ({"traits": {"email": " "}, "context": {"traits": {"Email": "c@b.2"}}, "userId": "u@b.2"}, "c@b.2"),
        ({"userId": "u@b.3"}, "u@b.3"),
        ({"traits": {"userId": "u@b.4"}}, "u@b.4"),
        ({"context": {"traits": {"user_id": "u@b.5"}}}, "u@b.5"),
        ({"userId": "auth0|u@b.6"}, None),
        ({"userId": "u1"}, None),
    ]
    send(
        server,
        [
            {"type": kind, "event": "Order Completed", "messageId": f"m{number}"} | message
            for number, (message, _) in enumerate(found)
        ],
    )
    assert [contact["Email"] for contact in contacts(server)] == [email for _, email in found if email]
    emails = {f"m{number}": email for number, (_, email) in enumerate(found)}
    assert dict(rows("message_id", "email")) == emails


@pytest.mark.parametrize(
    ("properties", "fields", "email"),
    [
        ({"email": "p@b.c"}, {}, "p@b.c"),
        ({"Email": " p@b.c "}, {}, "p@b.c"),
        ({"buyer": {"mail": "p@b.c"}, "email": "x@b.c"}, {"buyer.mail": "Email"}, "p@b.c"),
        ({"email": None}, {}, "u@b.c"),
        ({"buyer": {"email": "p@b.c"}}, {}, "u@b.c"),
    ],
)
def test_the_email_among_the_properties_of_a_track(
    server: FakeAutopilot, properties: dict[str, Any], fields: dict[str, str], email: str
) -> None:
    message = {"type": "track", "event": "Order Completed", "messageId": "m", "userId": "u@b.c"}
    send(server, [message | {"properties": properties}], fields=fields)
    assert posts(server)[1:] == [(f"/trigger/0007/contact/{email.replace('@', '%40')}", None)]


@pytest.mark.parametrize("text", ["a@b.c", "a.b+c@d.example", "zoë@müller.example", "A_B-c@1.co"])
def test_user_ids_that_are_addresses(text: str) -> None:
    assert is_email_address(text)


@pytest.mark.parametrize(
    "text", ["", "a", "@b.c", "a@", "a@b", "a@b.", "a@.c", "a@b..c", "a b@c.d", "a@b@c.d", "auth0|a@b.c", "x:a@b.c"]
)
def test_user_ids_that_are_none(text: str) -> None:
    assert not is_email_address(text)


def test_traits_of_the_context_may_be_refused_too(server: FakeAutopilot) -> None:
    message = identify(1, traits={"email": "a@b.c"}, context={"traits": {"nowhere": 1, "firstName": "A"}})
    counts = send(server, [message], unknown_traits="refuse")
    why = "The account has no field for 'nowhere': create it there, map the trait, or set unknown_traits to send"
    assert (counts.refused, counts.reasons) == (1, {("refused", why): 1})
    assert contacts(server) == []


# ---- for whom ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("integrations", "meant"),
    [
        (None, True),
        ({}, True),
        ([], True),
        ({"All": True}, True),
        ({"All": False}, False),
        ({"all": False}, False),
        ({"AutopilotHQ": False}, False),
        ({"Autopilot": False}, False),
        ({"autopilothq": False}, False),
        ({"All": True, "AutopilotHQ": False}, False),
        ({"All": True, "Autopilot": False}, False),
        ({"All": False, "AutopilotHQ": True}, True),
        ({"All": False, "AutopilotHQ": {}}, True),
        ({"All": False, "AutopilotHQ": {"list": "x"}}, True),
        ({"All": False, "Autopilot": True}, True),
        ({"AutopilotHQ": True, "Autopilot": False}, True),
        ({"AutopilotHQ": False, "Autopilot": True}, False),
        ({"AutopilotHQ": False, "autopilothq": True}, False),
        ({"AutopilotHQ": None, "All": False}, False),
        ({"AutopilotHQ": None}, True),
        ({"All": {}, "Amplitude": False}, True),
        ({"AutopilotHQ": "false"}, False),
        ({"All": 0}, False),
        (False, False),
        ("no", False),
    ],
)
def test_for_whom_a_message_is(integrations: Any, meant: bool) -> None:
    assert is_enabled(integrations) == meant


def test_what_is_not_meant_is_counted_and_leaves_no_trace(server: FakeAutopilot) -> None:
    nowhere: dict[str, Any] = {"integrations": {"All": False}}
    messages = [
        identify(1, **nowhere),
        track(1, **nowhere),
        track(2, traits=5, **nowhere),
        {"type": "identify", **nowhere},
        {"type": "page", **nowhere},
        identify(2, integrations={"All": False, "AutopilotHQ": True}),
    ]
    counts = send(server, messages)
    assert (counts.messages, counts.not_meant, counts.delivered, counts.ignored) == (6, 4, 1, {"page": 1})
    assert counts.all_delivered
    assert [contact["Email"] for contact in contacts(server)] == ["p2@example.com"]
    assert rows("message_id") == [("i2",)]


def test_messages_that_are_not_sent_are_progress(server: FakeAutopilot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "CHUNK", 2)
    told: list[tuple[int, int, int]] = []

    def progress(counts: Counts) -> None:
        told.append((counts.messages, counts.not_meant, counts.delivered))

    messages = [*(Ignored("track", not_meant=number < 3) for number in range(4)), from_row({"email": "a@b.c"})]
    with DeliveryLog(log_in()) as log:
        deliver(messages, log, settings_for(server), progress)
    assert told == [(2, 2, 0), (4, 3, 0), (5, 3, 0), (5, 3, 1)]


# ---- what a track changes ------------------------------------------------------------------------------------------


def test_properties_that_are_not_taken_are_said_once_a_run(server: FakeAutopilot) -> None:
    messages = [track(number, properties={"title": "Trousers", "name": "x"}) for number in range(3)]
    messages.append(track(3, properties={"title": "Hat", "city": "B"}))
    for _ in range(2):
        counts = send(server, messages)
        assert counts.unmapped in ({"title": 4, "name": 3, "city": 1}, {})
    assert sorted(rows("message_id", "remarks")) == [
        ("t0", f'{{"title": "{UNMAPPED}", "name": "{UNMAPPED}"}}'),
        ("t1", None),
        ("t2", None),
        ("t3", f'{{"city": "{UNMAPPED}"}}'),
    ]


def test_a_track_changes_an_address_then_enters_the_journey(server: FakeAutopilot) -> None:
    send(server, [identify(1, userId="u1")])
    posts(server)
    change = track(1, properties={"email": "p1@example.com", "_NewEmail": "new@example.com"}, userId="u1")
    server.order("POST", "/trigger/*", status=429, times=2)
    assert send(server, [change]).failed == 1
    trigger = ("/trigger/0007/contact/new%40example.com", None)
    contact = {"Email": "p1@example.com", "_NewEmail": "new@example.com"}
    assert posts(server) == [("/contact", {"contact": contact}), trigger, trigger]
    # The next run finds the address changed.
    assert send(server, [change]).delivered == 1
    assert posts(server) == [("/contacts", {"contacts": [{"Email": "new@example.com"}]}), trigger]
    assert send(server, [change]).known == 1
    # The user id leads to the new address.
    send(server, [{"type": "identify", "messageId": "i2", "userId": "u1", "traits": {"fax": "1"}}])
    assert contacts(server) == [{"Email": "new@example.com", "Fax": "1"}]
    assert server.account.total() == 6


def test_the_next_change_of_an_address_waits_for_the_journeys(server: FakeAutopilot) -> None:
    change = track(1, properties={"_NewEmail": "new@example.com"})
    next_change = identify(2, traits={"email": "New@example.com", "_NewEmail": "newer@example.com"})
    server.order("POST", "/trigger/*", late=0.1)
    assert send(server, [identify(1), change, next_change]).delivered == 3
    assert [request.path for request in server.seen("POST")] == [
        *("/contacts", "/contact", "/trigger/0007/contact/new%40example.com", "/contact")
    ]
    *_, trigger, last = server.seen("POST")
    assert last.at - trigger.at >= 0.1
    assert (server.account.find("newer@example.com") or {})["contact_id"] == server.account.triggered[0][1]


@pytest.mark.parametrize(("fault", "ends"), [({"drop": "after"}, "unknown"), ({"status": 429, "times": 2}, "failed")])
def test_what_follows_a_change_of_address_waits_until_it_is_settled(
    server: FakeAutopilot, fault: dict[str, Any], ends: str
) -> None:
    def change(number: int, before: str, after: str) -> dict[str, Any]:
        return identify(number, traits={"email": f"{before}@example.com", "_NewEmail": f"{after}@example.com"})

    messages = [
        *(identify(1, userId="u1"), change(2, "p1", "b"), track(3, email="b@example.com"), change(4, "b", "c")),
        *(identify(5, traits={"email": "C@example.com", "fax": "5"}), identify(6)),
    ]
    server.order("POST", "/contact", **fault)
    people = server.account.total()
    counts = send(server, messages)
    assert (counts.delivered, counts.bad, counts.reasons["failed", DEFERRED]) == (2, 0, 3)
    assert (counts.messages, counts.failed, counts.unknown) == (6, *((3, 1) if ends == "unknown" else (4, 0)))
    assert server.account.triggered == []
    assert send(server, messages).delivered == 4
    assert (server.account.find("c@example.com") or {})["Fax"] == "5"
    assert (server.account.total(), len(server.account.triggered)) == (people + 2, 1)
    assert send(server, messages).known == 6


def test_a_failed_change_of_address_is_sent_again_even_if_the_new_address_is_taken(server: FakeAutopilot) -> None:
    change = identify("new", traits={"email": "nobody@example.com", "_NewEmail": "b@example.com", "fax": "2"})
    server.order("POST", "/contact", status=429, times=2)
    assert send(server, [identify(1, traits={"email": "b@example.com"}), change]).failed == 1
    before = len(server.seen("POST", "/contact"))
    send(server, [change])
    assert len(server.seen("POST", "/contact")) == before + 1


def test_what_the_new_address_got_is_sent_again_behind_a_change_that_comes_late(server: FakeAutopilot) -> None:
    newer = identify(2, traits={"email": "B@example.com", "title": "T2"})
    assert send(server, [newer]).delivered == 1
    counts = send(server, [change(1, "p1", "b", title="T1"), newer])
    assert counted(counts) == {"messages": 2, "delivered": 1, "known": 1}
    assert (server.account.find("b@example.com") or {})["Title"] == "T2"


@pytest.mark.parametrize(("path", "made"), [("/contacts", identify), ("/trigger/*", track)])
def test_a_change_of_address_waits_for_an_older_message_that_failed(
    server: FakeAutopilot, path: str, made: Callable[..., dict[str, Any]]
) -> None:
    change = identify("new", traits={"email": "P1@example.com", "_NewEmail": "b@example.com"})
    messages = [made(1), change, identify(2, traits={"email": "b@example.com", "fax": "2"}), identify(3)]
    people = server.account.total()
    for others in (1, 0):  # and again if it fails again without being at fault
        server.order("POST", path, status=429, times=2)
        counts = send(server, messages)
        assert (counts.delivered, counts.failed, counts.reasons["failed", DEFERRED]) == (others, 3, 2)
    assert send(server, messages).delivered == 3
    assert (server.account.find("b@example.com") or {})["Fax"] == "2"
    assert (server.account.find("p1@example.com"), server.account.total()) == (None, people + 2)
    assert send(server, messages).known == 4


@pytest.mark.parametrize(("kind", "is_named"), [("identify", True), ("track", True), ("identify", False)])
def test_a_message_that_always_fails_holds_no_change_of_address_up_and_follows_it(
    server: FakeAutopilot, kind: str, is_named: bool
) -> None:
    def leave_out(answer: dict[str, Any]) -> dict[str, Any]:
        named = {email: id_ for email, id_ in answer["email_contact_map"].items() if email != "p1@example.com"}
        return answer | {"email_contact_map": named}

    change = identify("new", traits={"email": "p1@example.com", "_NewEmail": "b@example.com"})
    if kind == "track":
        change = track("new", email="p1@example.com", properties={"_NewEmail": "b@example.com"})
    bad = identify(1, traits={"email": "p1@example.com", "title": "T1", "fax": "1"})
    messages = [bad, change, identify(2, traits={"email": "b@example.com", "title": "T2"})]
    if is_named:
        server.poison = {"p1@example.com"}
    else:
        server.order("POST", "/contacts", edit=leave_out, times=100)
    people = server.account.total()
    assert [send(server, [identify(number), *messages]).delivered for number in (3, 4)] == [1, 3]
    posts(server)
    assert send(server, messages).all_delivered
    assert contacts(server) == [{"Email": "b@example.com", "Title": "T2", "Fax": "1"}]
    assert (server.account.find("p1@example.com"), server.account.total()) == (None, people + 3)
    assert send(server, messages).known == 3


@pytest.mark.parametrize("kind", ["identify", "track"])
def test_what_is_sent_again_follows_all_changes_of_its_address(server: FakeAutopilot, kind: str) -> None:
    changes = [
        identify("c1", traits={"email": "p1@example.com", "_NewEmail": "b@example.com"}),
        identify("c2", traits={"email": "b@example.com", "_NewEmail": "c@example.com", "fax": "2"}),
    ]
    if kind == "track":
        changes[0] = track("c1", email="p1@example.com", properties={"_NewEmail": "b@example.com"})
    between = identify("b", traits={"email": "b@example.com", "title": "T2"})
    messages = [identify(1), identify("bad", traits={"email": "p1@example.com", "fax": "bad"})]
    messages += [changes[0], between, changes[1], identify(3)]
    server.refused_faxes = {"bad"}
    people = server.account.total()
    counts = send(server, messages)
    assert (counts.delivered, counts.refused) == (4, 2)
    posts(server)
    counts = send(server, messages)
    assert (counts.delivered, counts.refused) == (1, 1)
    found = server.account.find("c@example.com") or {}
    assert (found["Title"], server.account.total()) == ("T2", people + 2)
    posts(server)
    assert send(server, messages).known == 5
    assert posts(server) == []


def test_an_event_that_failed_after_its_contact_was_refused_follows_a_change_of_its_address(
    server: FakeAutopilot,
) -> None:
    change = identify("new", traits={"email": "p1@example.com", "_NewEmail": "b@example.com"})
    messages = [identify(1, traits={"email": "p1@example.com", "fax": "bad"}), track(1), change]
    server.refused_faxes = {"bad"}
    people = server.account.total()
    assert send(server, messages).refused == 2
    server.order("POST", "/trigger/*", status=429, times=2)
    assert send(server, messages).failed == 1
    assert send(server, messages).delivered == 1
    assert (len(server.account.triggered), server.account.total()) == (1, people + 1)


def change(number: int | str, before: str, after: str, **traits: Any) -> dict[str, Any]:
    addresses = {"email": f"{before}@example.com", "_NewEmail": f"{after}@example.com"}
    return identify(number, traits=addresses | traits)


def shown(server: FakeAutopilot, *who: str) -> dict[str, tuple[str | None, str | None]]:
    """Returns title and fax of contacts by the names in their addresses; checks that no other contact was written."""
    found = {name: server.account.find(f"{name}@example.com") for name in who}
    assert server.account.total() == 5 + len(who)
    return {name: ((one or {}).get("Title"), (one or {}).get("Fax")) for name, one in found.items()}


def test_the_values_of_a_change_of_address_win_over_an_older_message_that_comes_after_it(server: FakeAutopilot) -> None:
    old = identify(1, traits={"email": "p1@example.com", "title": "T1", "fax": "F1"})
    messages = [old, change(2, "p1", "b", title="T2"), change(3, "b", "c", fax="F3"), identify(4)]
    server.poison = {"p1@example.com"}
    assert [send(server, [identify(number), *messages]).failed for number in (5, 6)] == [3, 1]
    server.poison.clear()
    assert send(server, messages).all_delivered
    assert shown(server, "c", "p4", "p5", "p6")["c"] == ("T2", "F3")
    # If the program ends in between, the next run does the rest.
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("DELETE FROM autopilothq._deliveries WHERE message = ?", [SENT_AGAIN])
    server.account.upsert({"Email": "c@example.com", "Title": "T1", "Fax": "F1"})
    assert send(server, messages).known == 4
    assert shown(server, "c", "p4", "p5", "p6")["c"] == ("T2", "F3")


@pytest.mark.parametrize("made", [identify, track])
def test_what_comes_late_follows_a_change_of_its_address_and_what_comes_behind_it_does_not(
    server: FakeAutopilot, made: Callable[..., dict[str, Any]]
) -> None:
    renames = [change("a", "P1", "b", title="TA"), change("b", "b", "c")]
    assert send(server, [identify(1, userId="u1"), *renames]).delivered == 3
    late = {"messageId": "late", "userId": "u1"} | made("late", traits={"email": "p1@example.com", "fax": "F"})
    late |= {"context": {"traits": {"email": "p1@example.com", "fax": "F"}}} if made is track else {}
    by_id = {"type": "identify", "messageId": "id", "userId": "u1", "traits": {"title": "T"}}
    # Another person's change does not move it before its own change.
    messages = [identify(1, userId="u1"), late, change("o", "o1", "o2"), *renames, by_id]
    assert send(server, messages).all_delivered
    assert shown(server, "c", "o2") == {"c": ("T", "F"), "o2": (None, None)}
    assert len(server.account.triggered) == (made is track)
    assert send(server, [*messages, identify(1, messageId="behind")]).delivered == 1
    assert shown(server, "c", "o2", "p1") == {"c": ("T", "F"), "o2": (None, None), "p1": ("T1", None)}
    # A message that was tried before the change need not meet it again.
    failed = identify("z", messageId="id", traits={"email": "p1@example.com", "fax": "Z"})
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("UPDATE autopilothq._deliveries SET status = 'failed' WHERE message_id = 'id'")
    assert send(server, [failed]).delivered == 1
    assert shown(server, "c", "o2", "p1")["c"] == ("T", "Z")


def test_a_user_id_that_comes_with_an_address_which_somebody_else_had_is_about_its_new_owner(
    server: FakeAutopilot,
) -> None:
    first = [identify(1, userId="u1"), change("a", "p1", "b")]
    new = identify("n", traits={"email": "p1@example.com", "title": "new"}, userId="u2")
    by_id = {"type": "identify", "messageId": "id", "userId": "u2", "traits": {"fax": "F"}}
    assert send(server, first).delivered == 2
    # The log has a try of this one from before anybody was known by the user id.
    assert send(server, [by_id]).refused == 1
    later = by_id | {"messageId": "later", "traits": {"phone": "P"}}
    assert send(server, [new, by_id, later]).delivered == 3
    assert shown(server, "b", "p1") == {"b": ("T1", None), "p1": ("new", "F")}
    assert (server.account.find("p1@example.com") or {})["Phone"] == "P"
    # It is the other way round if it comes before the change, which was unknown then.
    older = identify("o", traits={"email": "p1@example.com", "title": "old"}, userId="u3")
    by_id = {"type": "identify", "messageId": "id3", "userId": "u3", "traits": {"fax": "O"}}
    assert send(server, [first[0], older, by_id, first[1], new]).delivered == 2
    assert shown(server, "b", "p1") == {"b": ("old", "O"), "p1": ("new", "F")}


def test_what_failed_after_somebody_elses_change_of_its_address_does_not_follow_that(server: FakeAutopilot) -> None:
    """The address belonged to one person, then to another."""
    assert send(server, [identify(1), change("a", "p1", "x"), change("b", "p2", "p1", title="T2")]).delivered == 3
    later = identify("l", traits={"email": "p1@example.com", "fax": "F"})
    server.order("POST", "/contacts", status=429, times=2)
    assert send(server, [later]).failed == 1
    assert send(server, [later]).delivered == 1
    assert shown(server, "x", "p1") == {"x": ("T1", None), "p1": ("T2", "F")}


@pytest.mark.parametrize("made", [True, False])
def test_an_older_message_waits_until_a_change_without_an_answer_is_found_out_about(
    server: FakeAutopilot, made: bool
) -> None:
    bad = identify(1, traits={"email": "p1@example.com", "title": "T1", "fax": "bad"})
    good = identify(2, traits={"email": "p1@example.com", "title": "T2", "phone": "2"})
    messages = [identify(0, traits={"email": "p1@example.com"}), bad, good, change(3, "p1", "b", title="T3")]
    send(server, messages[:1])
    server.refused_faxes = {"bad"}
    server.order("POST", "/contact", drop="after" if made else "before")
    counts = send(server, messages)
    assert (counts.known, counts.refused, counts.unknown) == (1, 2, 1)
    counts = send(server, messages)
    assert (counts.known + counts.delivered, counts.refused) == (3, 1)
    assert shown(server, "b") == {"b": ("T3", None)}
    assert (server.account.find("b@example.com") or {})["Phone"] == "2"
    posts(server)
    counts = send(server, messages)
    assert (counts.known, counts.refused, posts(server)) == (3, 1, [])


def test_a_user_id_follows_a_change_that_is_made_and_none_that_is_refused(server: FakeAutopilot) -> None:
    def by_id(number: int) -> dict[str, Any]:
        return {"type": "identify", "messageId": f"u{number}", "userId": "u1", "traits": {"fax": str(number)}}

    first = identify(1, userId="u1")
    assert send(server, [first, change(2, "p1", "b"), by_id(1)]).all_delivered
    assert shown(server, "b") == {"b": ("T1", "1")}
    server.order("POST", "/contact", status=400)
    refused = change(3, "b", "c") | {"userId": "u1"}
    counts = send(server, [first, refused, by_id(2), change(4, "b", "d"), by_id(3)])
    assert (counts.known, counts.refused, counts.delivered) == (1, 1, 3)
    assert shown(server, "d") == {"d": ("T1", "3")}
    assert send(server, [by_id(4)]).delivered == 1
    assert shown(server, "d") == {"d": ("T1", "4")}
    # The journey of a track may refuse the contact after its address was changed.
    server.order("POST", "/trigger/*", status=404)
    made = track(5, email="d@example.com", properties={"_NewEmail": "e@example.com"})
    counts = send(server, [by_id(4), made, by_id(5)])
    assert (counts.known, counts.refused, counts.delivered) == (1, 1, 1)
    assert shown(server, "e") == {"e": ("T1", "5")}


def test_a_change_of_address_that_is_refused_is_sent_again_once_its_values_change(server: FakeAutopilot) -> None:
    server.order("POST", "/contact", status=400, message="No.")
    refused = change(1, "p1", "b", title="T1")
    for _ in range(2):
        assert counted(send(server, [refused])) == {"messages": 1, "refused": 1}
        assert rows("status", "http_status", "message", "attempts") == [("refused", 400, "No.", 1)]
    assert [path for path, _ in posts(server)] == ["/contact"]
    assert send(server, [change(1, "p1", "b", title="T2")]).delivered == 1


def test_a_change_of_address_whose_answer_cannot_be_read_may_have_been_made(server: FakeAutopilot) -> None:
    messages = [identify(1), change(2, "p1", "b", title="T2")]
    server.order("POST", "/contact", edit=lambda _: b"<html>")
    assert send(server, messages).unknown == 1
    assert send(server, messages).delivered == 1
    assert shown(server, "b") == {"b": ("T2", None)}


@pytest.mark.parametrize("drop", ["before", "after"])
def test_a_track_whose_change_of_address_had_no_answer(server: FakeAutopilot, drop: str) -> None:
    send(server, [identify(1)])
    change = track(1, properties={"_NewEmail": "new@example.com"})
    server.order("POST", "/contact", drop=drop)
    assert send(server, [change]).unknown == 1
    assert server.account.triggered == []
    assert counted(send(server, [change])) == {"messages": 1, "delivered": 1}
    assert len(server.account.triggered) == 1
    assert server.account.find("p1@example.com") is None
    assert server.account.total() == 6
    assert send(server, [change]).known == 1


def test_own_keys_are_not_merged_away(server: FakeAutopilot) -> None:
    def message(number: int, **traits: Any) -> dict[str, Any]:
        return identify(number, traits={"email": "a@b.c"} | traits)

    send(
        server,
        [
            message(1, _autopilot_list="contactlist_nobody", fax="1"),
            message(2, title="CEO"),
            message(3, _autopilot_list="contactlist_build-your-journey"),
            message(4, notify=False, fax="2"),
            message(5, fax="3"),
        ],
    )
    assert contacts(server) == [
        {"Email": "a@b.c", "_autopilot_list": "contactlist_nobody", "Fax": "1", "Title": "CEO"},
        {"Email": "a@b.c", "_autopilot_list": "contactlist_build-your-journey"},
        {"Email": "a@b.c", "notify": False, "Fax": "2"},
        {"Email": "a@b.c", "Fax": "3"},
    ]
    assert sorted((server.account.find("a@b.c") or {})["lists"]) == [
        "contactlist_build-your-journey",
        "contactlist_nobody",
    ]


# ---- rows of a pipeline that are messages ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "ignored"),
    [
        ({"type": "identify", "userId": "u@b.c", "integrations": {"All": False}}, Ignored("identify", not_meant=True)),
        (
            {"type": "identify", "context": {"traits": {"email": "u@b.c"}}, "integrations": {"AutopilotHQ": False}},
            Ignored("identify", not_meant=True),
        ),
        ({"type": "page", "messageId": "m", "userId": "u@b.c", "properties": {"url": "/"}}, Ignored("page")),
        ({"type": "group", "messageId": "m", "userId": "u@b.c", "traits": {"name": "Acme"}}, Ignored("group")),
    ],
)
def test_a_message_among_the_rows_is_no_row(row: dict[str, Any], ignored: Ignored) -> None:
    assert from_row(row) == ignored


def test_a_message_among_the_rows_may_have_its_traits_in_the_context_alone() -> None:
    item = from_row({"type": "identify", "context": {"traits": {"email": "u@b.c", "plan": "pro"}}, "messageId": None})
    assert isinstance(item, Item)
    assert (item.kind, item.once, item.traits) == ("identify", True, {})
    assert item.context_traits == {"email": "u@b.c", "plan": "pro"}


def test_a_row_with_a_column_type_is_a_row() -> None:
    item = from_row({"type": "group", "email": "u@b.c", "event": None})
    assert isinstance(item, Item)
    assert (item.traits, item.once) == ({"type": "group", "email": "u@b.c", "event": None}, False)


def test_nothing_is_sent_of_a_deleted_person_and_no_contact_gets_the_address(server: FakeAutopilot, call: Call) -> None:
    """Such as the message that once gave the person the address, when an archive is sent again."""
    change = identify(1, traits={"email": "p1@example.com", "_NewEmail": "N@example.com"})
    send(server, [change])
    assert call("forget", "--email", "n@example.com", "--user-id", "gone").status == 0
    posts(server)
    own = identify(3, traits={"email": "n@example.com"})
    by_user_id = identify(4, userId="gone")  # with an address that is not on the suppression list
    refused = track(5, "Of No Journey", email="N@example.com")  # a row about the refusal would contain the address
    late = identify(2, traits={"email": "p1@example.com", "fax": "2"})
    counts = send(server, [own, by_user_id, change, refused, late])
    assert (counts.suppressed, counted(counts)) == (4, {"messages": 5, "delivered": 1})
    assert posts(server) == [("/contacts", {"contacts": [{"Email": "p1@example.com", "Fax": "2"}]})]
    assert rows("message_id", "email") == [("i2", "p1@example.com")]
