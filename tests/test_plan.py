"""What is sent given what earlier runs did, and when failing requests stop a run, without an account."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from autopilothq.clients.decode import decode_json
from autopilothq.destination import emails
from autopilothq.destination.batch import BatchItem, user_key
from autopilothq.destination.changes import AddressChanges
from autopilothq.destination.counts import Counts
from autopilothq.destination.delivery_log import (
    CHANGED,
    AddressChange,
    Delivery,
    DeliveryStatus,
    Sent,
    address_digest,
)
from autopilothq.destination.emails import KnownEmails
from autopilothq.destination.fields import Fields
from autopilothq.destination.history import History, history_of
from autopilothq.destination.kind import AUTOPILOT, AccountKind
from autopilothq.destination.messages import NO_IDENTIFIER, Item
from autopilothq.destination.opening import OpenAccount
from autopilothq.destination.plan import UNMAPPED, Planned, Planner
from autopilothq.destination.requests import FAILURES_IN_A_ROW, CircuitBreaker
from autopilothq.destination.run_state import RunState
from autopilothq.errors import NotAuthorized, Unavailable

EARLY, LATE = (Sent(datetime(2019, 3, day, tzinfo=UTC), f"run {day}") for day in (1, 2))
DELIVERED = DeliveryStatus(True, "delivered", None, EARLY)
REFUSED_SINCE = DeliveryStatus(True, "refused", None, LATE)
UNKNOWN = DeliveryStatus(False, "unknown", None, LATE)
FAILED = DeliveryStatus(False, "failed", None, None)


@pytest.mark.parametrize(
    ("status", "once", "delivered"),
    [(None, True, False), (DELIVERED, True, True), (DELIVERED, False, False), (UNKNOWN, True, False)],
)
def test_an_identify_is_delivered_once_and_a_row_whenever_it_differs(
    status: DeliveryStatus | None, once: bool, delivered: bool
) -> None:
    statuses: dict[tuple[str, str | None], DeliveryStatus] = {} if status is None else {("m1", None): status}
    history = history_of(Item("m1", "identify", once=once), [], statuses)
    tried = status if once else None
    assert history == History(delivered, [], [], status, status.sent if status else None, [], tried, False)


@pytest.mark.parametrize(
    ("statuses", "delivered", "triggers", "earlier", "sent"),
    [
        ([None, None], False, ["1", "2"], [], None),
        ([DELIVERED, None], False, ["2"], ["delivered"], EARLY),
        ([DELIVERED, FAILED], False, ["2"], ["delivered"], EARLY),
        ([DELIVERED, UNKNOWN], True, [], ["delivered", "unknown"], LATE),
        ([REFUSED_SINCE, DELIVERED], True, [], ["delivered", "delivered"], LATE),
    ],
)
def test_a_trigger_that_may_have_been_carried_out_is_not_sent_again(
    statuses: list[DeliveryStatus | None], delivered: bool, triggers: list[str], earlier: list[str], sent: Sent | None
) -> None:
    known: dict[tuple[str, str | None], DeliveryStatus] = {
        ("m1", trigger): status for trigger, status in zip("12", statuses, strict=True) if status is not None
    }
    history = history_of(Item("m1", "track", event="Order Completed"), ["1", "2"], known)
    assert history == History(delivered, triggers, earlier, None, sent, [], history.tried, FAILED in statuses)
    assert history.tried in (statuses if any(statuses) else [None])


def test_an_item_was_tried_last_as_its_change_of_an_address_if_it_made_one() -> None:
    first, last = (FAILED._replace(email=email, tried_at=at) for email, at in (("a", EARLY.at), ("b", LATE.at)))
    change = first._replace(content=f"{CHANGED}…")
    item = Item("m1", "track", event="Order Completed")
    found = [
        history_of(item, ["1", "2"], {("m1", trigger): status for trigger, status in statuses}).tried
        for statuses in ([("1", first), ("2", last)], [("1", last), ("2", first)], [(None, change), ("1", last)])
    ]
    assert found == [last, last, change]


def test_failures_in_a_row_stop_a_run_and_a_success_between_them_does_not() -> None:
    breaker, error = CircuitBreaker(Any), Unavailable("503")  # type: ignore[arg-type]
    for _ in range(3):
        for number in range(FAILURES_IN_A_ROW - 1):
            breaker.failed(error, f"p{number}@example.com")
        breaker.answered()
    for _ in range(9):
        breaker.failed(error, "always.the.same@example.com")
    assert (breaker.is_open, breaker.cause, breaker.answers) == (False, None, 3)
    for number in range(FAILURES_IN_A_ROW - 2):
        breaker.failed(error, f"p{number}@example.com")
    with pytest.raises(Unavailable):
        breaker.failed(error, "last@example.com")
    breaker.open(NotAuthorized("401"))
    assert (breaker.is_open, breaker.cause) == (True, error)


# ---- what is sent ----------------------------------------------------------------------------------------------------


class Leads:
    """The triggers of the only event that has any."""

    def of(self, event: str) -> list[str]:
        assert event is not None
        return ["1", "2"] if event == "Order Completed" else []

    def journeys(self) -> dict[str, str]:
        return {}


OF_ANOTHER = AddressChange("m0", address_digest("another@b.c"), "new@b.c", is_known=True, sent_at=EARLY.at)


class Run:
    """A planner without an account, and its counts."""

    def __init__(
        self,
        unknown: str = "send",
        user_id_field: str | None = None,
        kind: AccountKind = AUTOPILOT,
        before: Sequence[AddressChange] = (),
    ) -> None:
        self.fields = Fields([{"name": "User Id", "fieldType": "string"}], None, user_id_field)
        changes, self.counts = AddressChanges(Any, before), Counts()  # type: ignore[arg-type]
        self.emails = KnownEmails(Any, Any, self.fields, changes)  # type: ignore[arg-type]
        self.state = RunState(changes, self.emails)
        to = OpenAccount(kind, Any, self.fields, Leads(), unknown)  # type: ignore[arg-type]
        self.planner = Planner(to, self.state, self.counts, lambda *_: None)

    def plan(self, item: Item, *statuses: tuple[str | None, DeliveryStatus]) -> Planned | Delivery | None:
        return self.planner.plan(item, {(item.message_id, trigger): status for trigger, status in statuses})


def who(email: str = "A@b.c", **more: Any) -> Item:
    return Item("m1", "identify", "u1", {"email": email, **more})


def order(email: str = "a@b.c", **properties: Any) -> Item:
    return Item("m1", "track", "u1", {"email": email}, properties=properties, event="Order Completed", timestamp="now")


ROW = Delivery("m1", "identify", user_id="u1", email="A@b.c")
ORDER = Delivery("m1", "track", "Order Completed", None, "u1", "a@b.c")


def test_an_identify_is_planned_with_its_email_which_its_user_id_has_from_then_on() -> None:
    run = Run()
    assert run.plan(who(first_name="Ada"), (None, FAILED)) == Planned(
        BatchItem("a@b.c", ROW, [], []), {"Email": "A@b.c", "FirstName": "Ada"}, FAILED
    )
    for _ in range(2):  # an identify with an event's name is not a track
        assert run.plan(Item("m2", "identify", "u1", event="Order Completed")) == Planned(
            BatchItem("a@b.c", ROW._replace(message_id="m2", event="Order Completed"), [], []), {"Email": "A@b.c"}, None
        )
    assert run.counts == Counts()


def test_a_track_is_planned_for_the_triggers_that_are_left() -> None:
    found = Run().plan(order(price=5), ("1", DELIVERED))
    item = BatchItem("a@b.c", ORDER, ["2"], ["delivered"], properties={"price": 5}, timestamp="now")
    assert found == Planned(item, {"Email": "a@b.c"}, None)


@pytest.mark.parametrize(
    ("item", "status", "why"),
    [
        (Item("m1", "identify", refusal="not_json"), None, "not_json"),
        (
            Item("m1", "track", "u1", event="é"),
            None,
            "No trigger for the event 'é', in the settings or by a journey's title",
        ),
        (Item("m1", "track", "u1"), None, "No trigger for the event None, in the settings or by a journey's title"),
        (Item("m1", "identify"), 400, NO_IDENTIFIER),
        (
            Item("m1", "identify", "u2"),
            None,
            (
                "No contact is known by the user id 'u2': no identify with its email was delivered, and"
                " destination.autopilothq.user_id_field names no field that holds it"
            ),
        ),
    ],
)
def test_what_cannot_be_sent_is_refused(item: Item, status: int | None, why: str) -> None:
    row = Delivery("m1", item.kind, item.event, user_id=item.user_id)
    assert Run().plan(item) == row._replace(status="refused", http_status=status, message=why)


def test_a_user_id_without_an_email_is_refused_or_one_of_the_accounts() -> None:
    item, row = Item("m1", "identify", "u2"), Delivery("m1", "identify", user_id="u2")
    assert Run(user_id_field="User Id").plan(item) == row._replace(
        status="refused", message="No contact is known by the user id 'u2': no identify with its email was delivered"
    )
    kind = dataclasses.replace(AUTOPILOT, needs_email=False)
    assert Run(kind=kind).plan(item) == Planned(BatchItem(user_key("u2"), row, [], []), {"Email": ""}, None)
    assert Run(kind=kind).plan(Item("m1", "identify")) == Delivery(
        "m1", "identify", status="refused", http_status=400, message=NO_IDENTIFIER
    )


def test_a_field_may_hold_the_user_id() -> None:
    found = Run(user_id_field="User Id").plan(who())
    assert isinstance(found, Planned)
    assert found.values == {"Email": "A@b.c", "custom": {"string--User--Id": "u1"}}


def test_a_stream_knows_the_emails_of_its_last_people_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream has no end, so it must not remember everybody."""
    monkeypatch.setattr(emails, "PERSONS_KEPT", 2)
    run = Run(before=[OF_ANOTHER])
    for name in "abcd":
        run.plan(Item(name, "identify", f"u-{name}", {"email": f"{name}@b.c"}))
        run.emails.note_change(None, f"{name}@b.c", f"{name}@new.c", None)
    run.emails.begin()
    parts = [run.emails, *(part for part in vars(run.emails).values() if type(part).__module__ == emails.__name__)]
    kept = [(name, list(of)) for part in parts for name, of in vars(part).items() if isinstance(of, dict | set)]
    last = ["c@b.c", "d@b.c"]
    assert sorted(known for known in kept if known[1]) == [
        ("_came_with", last),
        ("_emails", ["u-c", "u-d"]),
        ("_run_changes", last),
    ]


class Log:
    """A delivery log with these statuses of messages and these emails of user ids."""

    is_read_only = False

    def __init__(self) -> None:
        self.known: dict[tuple[str, str | None], DeliveryStatus] = {}
        self.logged: dict[str, str] = {}

    def statuses(self, message_ids: Iterable[str]) -> dict[tuple[str, str | None], DeliveryStatus]:
        wanted = set(message_ids)
        return {key: status for key, status in self.known.items() if key[0] in wanted}

    def emails(self, user_ids: Iterable[str]) -> dict[str, tuple[str, datetime]]:
        return {user_id: (self.logged[user_id], EARLY.at) for user_id in user_ids if user_id in self.logged}


def test_all_people_of_an_account_stay_known_because_the_log_may_lack_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emails, "PERSONS_KEPT", 1)
    of_each = '{"Email": "%s@b.c", "custom_fields": [{"kind": "User Id", "value": "u-%s"}]}'
    texts = [of_each % (name, name) for name in "abc"]
    texts += ['{"Email": "d@b.c"}', '{"Email": "e@b.c", "custom_fields": [{"kind": "User Id", "value": null}]}']
    texts.append('{"Email": "f@b.c", "custom_fields": [{"kind": "Plan", "value": "pro"}]}')
    contacts, scans = [decode_json(text.encode()) for text in texts], []

    def scan() -> list[SimpleNamespace]:
        scans.append(1)
        return [SimpleNamespace(contacts=contacts)]

    fields = Fields([{"name": "User Id", "fieldType": "string"}], None, "User Id")
    known = KnownEmails(SimpleNamespace(contacts=scan), Log(), fields, AddressChanges(Any))  # type: ignore[arg-type]
    known.look_up([Item("m0", "identify", "u-z", {"email": "z@b.c"}), Item("m1", "identify", "u-z")])
    assert scans == []  # not scanned, because an earlier item has the email
    nowhere = KnownEmails(SimpleNamespace(contacts=scan), Log(), Fields([]), AddressChanges(Any))  # type: ignore[arg-type]
    nowhere.look_up([Item("m1", "identify", "u-a")])
    assert (nowhere.get("u-a"), scans) == (None, [])
    known.look_up([Item("m2", "identify", "u-a")])
    known.begin()
    known.look_up([Item("m3", "identify", "u-y")])
    assert [known.get(f"u-{name}") for name in "abc"] == ["a@b.c", "b@b.c", "c@b.c"]
    assert ([known.get(name) for name in ("None", "pro")], len(scans)) == ([None, None], 1)


def test_emails_follow_changes_of_addresses_but_those_that_were_not_made() -> None:
    log, of_nobody = Log(), AddressChanges(Any)  # type: ignore[arg-type]
    known = KnownEmails(Any, log, Fields([], None, None), of_nobody)  # type: ignore[arg-type]

    def found() -> list[str | None]:
        return [known.get(f"u{number}") for number in range(1, 6)]

    known.put("u1", "a@b.c")
    known.put("u2", "A@b.c")
    known.note_change("m1", "a@b.c", "b@b.c", None)
    known.put("u3", "b@b.c")
    known.note_change("m2", "b@b.c", "c@b.c", "u4")
    known.put("u1", "d@b.c", "m3")
    known.note_change("m4", "d@b.c", "e@b.c", None)
    assert found() == ["e@b.c", "c@b.c", "c@b.c", "c@b.c", None]
    refused = DELIVERED._replace(status="refused")
    log.known = {("m1", None): DELIVERED, ("m1", "7"): refused, ("m2", None): refused, ("m4", "7"): FAILED}
    known.apply_changes()
    assert found() == ["d@b.c", "b@b.c", "b@b.c", None, None]
    assert not known.is_changing("u1")
    known.note_change("m5", "b@b.c", "f@b.c", None)
    assert found() == ["d@b.c", "f@b.c", "f@b.c", None, None]
    known.begin()  # the account could not be reached, so nothing was sent
    assert found() == ["d@b.c", "b@b.c", "b@b.c", None, None]
    log.logged = {"u4": "g@b.c", "u5": "a@b.c"}
    known.note_change("m6", "b@b.c", "h@b.c", None)
    known.look_up([Item("i4", "identify", "u4"), Item("i5", "identify", "u5")])
    assert found() == ["d@b.c", "h@b.c", "h@b.c", "g@b.c", "h@b.c"]
    assert known.is_changing("u5")
    log.known["m6", None] = refused
    known.apply_changes()
    assert found() == ["d@b.c", "b@b.c", "b@b.c", "g@b.c", "b@b.c"]


def test_what_this_run_says_of_a_user_id_counts_more_than_the_log_and_a_delivered_track_less() -> None:
    log, of_nobody = Log(), AddressChanges(Any, [OF_ANOTHER])  # type: ignore[arg-type]
    known = KnownEmails(Any, log, Fields([], None, None), of_nobody)  # type: ignore[arg-type]
    log.logged = {"u1": "log@b.c", "u2": "log@b.c", "u3": "log@b.c"}
    known.put_delivered("u1", "track@b.c")
    known.put_delivered("u2", "track@b.c")
    assert known.get("u2") == "track@b.c"
    known.put("u2", "before@b.c")
    known.put("u2", "now@b.c")
    known.put_delivered("u2", "track@b.c")
    known.look_up([Item("i1", "identify", "u1"), Item("i2", "identify", "u2"), Item("i3", "identify", "u3")])
    assert [known.get(user_id) for user_id in ("u1", "u2", "u3")] == ["log@b.c", "now@b.c", "log@b.c"]
    known.move("before@b.c", "else@b.c")  # that address was somebody else's by then
    assert known.get("u2") == "now@b.c"
    known.move("NOW@b.c", "new@b.c")
    known.move("log@b.c", "new@b.c")  # no item of this run had that address
    assert [known.get(user_id) for user_id in ("u1", "u2", "u3")] == ["log@b.c", "new@b.c", "log@b.c"]


def test_what_is_delivered_is_known_and_sent_again_only_behind_an_older_item() -> None:
    run = Run()
    assert run.plan(who(), (None, DELIVERED)) is None
    assert run.counts == Counts(known=1)
    assert run.emails.get("u1") is None  # the log has it
    run.state.order.touch("a@b.c")
    assert run.plan(who(), (None, DELIVERED)) == Planned(
        BatchItem("a@b.c", ROW, [], [], resent=True), {"Email": "A@b.c"}, DELIVERED
    )
    assert run.plan(who(_NewEmail="new@b.c"), (None, DELIVERED)) is None  # the log does not have it as a change
    assert run.counts == Counts(known=2)  # items that are sent again count by their outcome


def test_a_track_of_unknown_fate_is_counted_and_its_contact_sent_again_behind_an_older_item() -> None:
    run = Run()
    statuses = (("1", DELIVERED), ("2", UNKNOWN))
    assert run.plan(order(), *statuses) is None
    run.state.order.touch("a@b.c")
    again = BatchItem("a@b.c", ORDER, [], ["delivered", "unknown"], resent=True, timestamp="now")
    assert run.plan(order(), *statuses) == Planned(again, {"Email": "a@b.c"}, None)
    assert run.plan(order(_NewEmail="new@b.c"), *statuses) is None
    why = "an earlier run could not tell whether it was carried out"
    assert run.counts == Counts(unknown=2, reasons=Counter({("unknown", why): 2}))


def test_what_an_earlier_run_sent_after_what_it_left_is_sent_again() -> None:
    late, early = (DeliveryStatus(True, "delivered", None, sent) for sent in (LATE, EARLY))
    again = DeliveryStatus(True, "delivered", None, EARLY._replace(at=EARLY.at - timedelta(hours=1)))
    run = Run()
    plans = [run.plan(who(), (None, status)) for status in (early, late, early, again, late)]
    assert [plan is not None for plan in plans] == [False, False, True, True, False]
    left = Run()  # unknown items are sent as they are
    assert left.plan(who(), (None, UNKNOWN)) is not None
    assert left.plan(who(), (None, early)) is None
    same = Run()  # another run than the last one
    assert [same.plan(who(), (None, status)) for status in (early, again)] == [None, None]


def test_a_stream_goes_on_with_what_it_has_sent() -> None:
    run = Run()
    order = run.state.order
    order.touch("a@b.c")
    run.plan(who("b@b.c"), (None, DeliveryStatus(True, "delivered", None, LATE)))
    assert order.is_touched("a@b.c")
    order.end(LATE)
    order.begin()
    assert not order.is_touched("a@b.c")
    late, early = (DeliveryStatus(True, "delivered", None, sent) for sent in (LATE, EARLY))
    assert run.plan(who(), (None, late)) is None  # sent by this run
    assert run.plan(who(), (None, early)) is not None
    assert run.plan(who("b@b.c"), (None, early)) is not None
    assert run.plan(who("c@b.c"), (None, early)) is None
    order.touch("a@b.c")  # touched by these items
    assert run.plan(who(), (None, late)) is None
    in_vain = DeliveryStatus(True, "delivered", None, LATE._replace(at=LATE.at + timedelta(seconds=1)))
    assert run.plan(who("c@b.c"), (None, in_vain)) is None
    assert run.plan(who(), (None, in_vain)) is not None  # delivered in the earlier try of these items
    order.begin()  # these items are tried again, because the account could not be reached
    assert not order.is_touched("a@b.c")
    order.touch("a@b.c")
    order.end(LATE._replace(run="another"))
    order.begin()
    assert run.plan(who(), (None, late)) is not None


def test_of_a_stream_those_are_known_whom_it_sent_to_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emails, "PERSONS_KEPT", 2)
    run = Run(before=[OF_ANOTHER])
    for key in ("a@b.c", "b@b.c", "a@b.c", "c@b.c"):
        run.state.order.touch(key)
        run.state.order.end(LATE._replace(run="run 9"))
        run.state.order.begin()
    status = DeliveryStatus(True, "delivered", None, EARLY)
    assert run.plan(who("b@b.c"), (None, status)) is None
    assert run.plan(who(), (None, status)) is not None


def test_a_row_is_sent_when_it_differs() -> None:
    item = Item("m1", "identify", "u1", {"email": "A@b.c"}, once=False)
    found = Run().plan(item)
    assert isinstance(found, Planned)
    content = "65497c07e8bc1e093e0e1b6025bdd48b74e87680e8a42db88ef08fca84ad0534"  # in the form of earlier releases
    assert found == Planned(BatchItem("a@b.c", ROW._replace(content=content), [], []), {"Email": "A@b.c"}, None)
    same, other = (DeliveryStatus(True, "delivered", text, EARLY) for text in (content, "other"))
    run = Run()
    assert run.plan(item, (None, same)) is None
    assert run.counts == Counts(known=1)
    assert run.plan(item, (None, other)) == found._replace(before=other)
    assert run.plan(item, (None, same._replace(status="failed"))) is not None
    run.state.order.touch("a@b.c")
    assert run.plan(item, (None, same)) == found._replace(before=same)
    given = Run().plan(item._replace(content="true"))
    assert isinstance(given, Planned)
    assert given.item.row.content == "true"


def test_a_row_that_changed_an_address_is_sent_again_when_it_differs() -> None:
    item = Item("m1", "identify", "u1", {"email": "A@b.c", "_NewEmail": "new@b.c", "title": "T"}, once=False)
    found = Run().plan(item)
    assert isinstance(found, Planned)
    done = DeliveryStatus(True, "delivered", found.item.row.content, EARLY)
    assert Run().plan(item, (None, done)) is None
    later = Run().plan(item._replace(traits={**item.traits, "title": "U"}), (None, done))
    assert isinstance(later, Planned)
    assert later.values == {"Email": "new@b.c", "Title": "U"}


def test_an_address_that_an_earlier_run_changed_is_the_contacts_for_the_journeys_that_are_left() -> None:
    item = order(_NewEmail="new@b.c")
    changed = Run().plan(item, (None, DELIVERED), ("1", DELIVERED))
    row = ORDER._replace(email="new@b.c")
    left = BatchItem("new@b.c", row, ["2"], ["delivered"], properties={"_NewEmail": "new@b.c"}, timestamp="now")
    assert changed == Planned(left, {"Email": "new@b.c"}, DELIVERED)
    fresh = Run().plan(item, (None, FAILED))
    assert isinstance(fresh, Planned)
    assert (fresh.item.key, fresh.values) == ("a@b.c", {"Email": "a@b.c", "_NewEmail": "new@b.c"})


def test_traits_without_a_field_are_remarked_or_refused() -> None:
    item = Item("m1", "identify", "u1", {"email": "A@b.c", "é": 1}, {"plan": "x"})
    assert Run("refuse").plan(item) == ROW._replace(
        status="refused",
        message="The account has no field for 'é', 'plan': create it there, map the trait, or set unknown_traits"
        " to send",
        remarks='{"é": "sent as integer--é, for which the account has no field",'
        ' "plan": "sent as string--plan, for which the account has no field"}',
    )


def test_what_is_remarked_is_counted_without_its_value() -> None:
    run = Run()
    found = run.plan(who(_NewEmail=""))
    assert isinstance(found, Planned)
    assert found.item.row.remarks == '{"_NewEmail": "left out: expected a value for _NewEmail, got \'\'"}'
    assert run.counts == Counts(remarks=Counter({"_NewEmail was left out: expected a value for _NewEmail": 1}))


def test_properties_that_are_not_taken_are_remarked_once() -> None:
    run = Run()
    found = [run.plan(order(phone="1")), run.plan(order(phone="2"))]
    remarks = [plan.item.row.remarks for plan in found if isinstance(plan, Planned)]
    assert remarks == [f'{{"phone": "{UNMAPPED}"}}', None]
    assert run.counts == Counts(unmapped=Counter({"phone": 2}))


def test_a_member_has_the_audience_as_a_tag_where_the_account_takes_tags() -> None:
    item = Item("m1", "identify", "u1", {"email": "A@b.c", "vip": True}, audience="vip", content="true", once=False)
    kind = dataclasses.replace(AUTOPILOT, tags=True)
    plans = [
        Run("refuse", kind=kind).plan(item),
        Run("refuse", kind=kind).plan(item._replace(content="false")),
        Run(kind=kind).plan(item._replace(audience=None)),
    ]
    values = [plan.values for plan in plans if isinstance(plan, Planned)]
    custom = {"Email": "A@b.c", "custom": {"boolean--vip": True}}
    assert values == [{**custom, "tags": ["vip"]}, {**custom, "unset_tags": ["vip"]}, custom]
    assert [plan.item.row.audience for plan in plans if isinstance(plan, Planned)] == ["vip", "vip", None]
    assert [plan.item.row.remarks for plan in plans if isinstance(plan, Planned)] == [
        '{"vip": "sent only as a tag: the account has no field for it"}',
        '{"vip": "sent only as a tag: the account has no field for it"}',
        '{"vip": "sent as boolean--vip, for which the account has no field"}',
    ]
