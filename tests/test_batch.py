"""Which contacts may share a request, and by which keys a person is known, without an account."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from autopilothq.clients.autopilot import MOST_CONTACTS
from autopilothq.destination import batch, sender
from autopilothq.destination.batch import EXTERNAL_ID, BatchItem, ContactBatch, merged
from autopilothq.destination.counts import Counts
from autopilothq.destination.delivery_log import Delivery, DeliveryStatus, address_digest
from autopilothq.destination.held import HeldPeople
from autopilothq.destination.messages import Ignored, Item
from autopilothq.destination.plan import Planned
from autopilothq.destination.run_state import RunState
from autopilothq.segment.identity import HashedIds, hash_of, id_of

ANN = "ann@b.c"
NAMED = {"Email": ANN, "FirstName": "Ann", "custom": {"string--plan": "pro"}}


def item(key: str = ANN, triggers: Sequence[str] = (), alone: bool = False, **row: Any) -> BatchItem:
    return BatchItem(key, Delivery("m", "track", **row), list(triggers), alone=alone)


def batch_of(values: Mapping[str, Any], *items: BatchItem) -> ContactBatch:
    return ContactBatch({batch.contact_key(values): dict(values)}, list(items))


@pytest.mark.parametrize(
    ("values", "conflicts"),
    [
        ({"Email": ANN}, False),
        ({"Email": ANN, "FirstName": "Ann", "LastName": "A"}, False),
        ({"Email": ANN, "custom": {"string--plan": "pro", "string--city": "Rome"}}, False),
        ({"Email": ANN, "FirstName": "Anne"}, True),
        ({"Email": ANN, "custom": {"string--plan": "free"}}, True),
    ],
)
def test_values_that_an_event_is_to_meet_are_not_replaced(values: dict[str, Any], conflicts: bool) -> None:
    assert batch_of(NAMED, item(), item(triggers=["7"])).conflicts_with(ANN, values) is conflicts
    # Without an event they may be replaced, and values of other persons do not matter.
    assert not batch_of(NAMED, item(), item("bo@b.c", ["7"])).conflicts_with(ANN, values)
    assert not batch_of(NAMED, item(triggers=["7"])).conflicts_with("bo@b.c", values | {"Email": "bo@b.c"})
    assert not batch_of({"Email": ANN}, item(triggers=["7"])).conflicts_with(ANN, values)


def test_a_contact_that_must_be_alone_is_in_a_batch_with_others_but_never_merged() -> None:
    assert batch_of(NAMED, item()).conflicts_with(ANN, {"Email": ANN}, alone=True)
    assert batch_of(NAMED, item(alone=True)).conflicts_with(ANN, {"Email": ANN})
    assert not batch_of(NAMED, item("bo@b.c", alone=True)).conflicts_with(ANN, {"Email": ANN})
    assert not batch_of(NAMED, item(alone=True)).conflicts_with("bo@b.c", {"Email": "bo@b.c"}, alone=True)


def test_a_person_is_in_a_batch_by_one_key() -> None:
    by_id = {"custom": {EXTERNAL_ID: "u1"}}
    assert batch_of(by_id).conflicts_with(ANN, {"Email": ANN, **by_id})
    assert batch_of(NAMED).conflicts_with("old@b.c", {"Email": "old@b.c", "_NewEmail": "Ann@B.C"})
    assert not batch_of(by_id).conflicts_with(ANN, {"Email": ANN, "custom": {EXTERNAL_ID: "U1"}})


@pytest.mark.parametrize(
    ("before", "values", "conflicts"),
    [
        ({}, {}, False),
        ({"notify": False}, {"notify": False}, False),
        ({}, {"notify": False}, True),
        ({"notify": True}, {"notify": False}, True),
        ({"_autopilot_list": "1"}, {}, False),
        ({"_autopilot_list": "1"}, {"_autopilot_list": "1"}, False),
        ({"_autopilot_list": "1"}, {"_autopilot_list": "2"}, True),
        ({"FirstName": "Ann"}, {"FirstName": "Bo"}, False),
    ],
)
def test_keys_of_autopilots_own_apply_to_what_they_came_with(
    before: dict[str, Any], values: dict[str, Any], conflicts: bool
) -> None:
    assert batch_of({"Email": ANN} | before, item()).conflicts_with(ANN, {"Email": ANN} | values) is conflicts


def test_contacts_are_merged_field_by_field() -> None:
    made = merged(NAMED, {"Email": ANN, "FirstName": "Anne", "custom": {"string--city": "Rome"}})
    assert made == {"Email": ANN, "FirstName": "Anne", "custom": {"string--plan": "pro", "string--city": "Rome"}}
    assert merged({}, {"Email": "bo@b.c"}) == {"Email": "bo@b.c"}
    assert NAMED["custom"] == {"string--plan": "pro"}


def test_all_keys_of_a_person() -> None:
    values = {"Email": "Ann@B.C", "_NewEmail": "New@B.C", "custom": {EXTERNAL_ID: "U1"}}
    id_ = batch.user_key("U1")
    assert (batch.contact_key(values), batch.contact_keys(values)) == (ANN, [ANN, "new@b.c", id_])
    assert id_ == f"user_id:{hashlib.sha256(b'U1').hexdigest()}"
    assert batch.user_key("u1") not in (id_, batch.user_key("u2"))
    assert batch.user_key("u\ud800") == batch.user_key("u?")  # traits may fill that field of the account with any text
    assert batch.contact_keys({"custom": {EXTERNAL_ID: "U1"}}) == [id_]
    assert batch.contact_keys({"Email": "", "custom": {}}) == []
    both = ContactBatch({ANN: values, "bo@b.c": {"Email": "Bo@b.c"}})
    assert both.people() == {ANN, "new@b.c", id_, "bo@b.c"}
    assert batch.item_keys(item(email="New@B.C")) == {ANN, "new@b.c"}
    assert batch.item_keys(item()) == {ANN}


def test_the_row_before_a_change_of_an_address_has_the_digest_of_the_old_one() -> None:
    changed = item(email="new@b.c")._replace(values={"Email": "Ann@b.c", "_NewEmail": "new@b.c"})
    assert changed.row_ahead == changed.row._replace(content=f"from {address_digest(ANN)}")
    of_query = changed._replace(row=changed.row._replace(content="true"))
    assert of_query.row_ahead is of_query.row
    plain = changed._replace(values={"Email": ANN})
    assert plain.row_ahead is plain.row


def test_what_a_row_keeps_of_refused_values() -> None:
    digest = batch.content_of(Delivery("m"), {"a": 1, "b": 2})
    assert (len(digest), batch.content_of(Delivery("m"), {"b": 2, "a": 1})) == (64, digest)
    assert batch.content_of(Delivery("m"), {"a": 1, "b": 3}) != digest
    assert batch.content_of(Delivery("m", content="true"), {"a": 1}) == "true"


def test_who_must_wait() -> None:
    held = HeldPeople()
    assert not held.holds([ANN], renames=True)
    held.note_failed([ANN], always=True)
    assert not held.holds([ANN], renames=True)
    held.note_failed([ANN])
    assert (held.holds([ANN]), held.holds(["x", ANN], renames=True)) == (False, True)
    assert not held.holds(["x"], renames=True)
    held.note_unsettled(["bo@b.c"])
    assert (held.holds(["x", "bo@b.c"]), held.holds(["bo@b.c"], renames=True), held.holds(["x"])) == (True, True, False)
    before = ["cy@b.c"]
    in_order = HeldPeople(in_order=True, unsettled=before)
    assert in_order.holds(["cy@b.c"])
    in_order.note_failed([ANN], always=True)
    assert (in_order.unsettled, in_order.holds([ANN]), in_order.holds(["cy@b.c"])) == ({ANN, "cy@b.c"}, True, True)


# ---- what is collected in batches ----------------------------------------------------------------------------------


class Sent:
    """Stands in for the sender of batches and for the log."""

    def __init__(self) -> None:
        self.batches: list[ContactBatch] = []
        self.rows: list[Delivery] = []

    def submit(self, sent: ContactBatch) -> None:
        self.batches.append(sent)

    def add(self, rows: Sequence[Delivery]) -> None:
        self.rows += rows


def collecting() -> tuple[Any, Sent]:
    """Returns a collector of batches that are not sent, and the record of them."""
    sent = Sent()
    to: Any = sent
    unasked: Any = None
    return sender._Batches(to, RunState(unasked, unasked), to, Counts()), sent


def planned(key: str, before: str | None = None, content: str | None = None, **values: Any) -> Planned:
    status = before and DeliveryStatus(False, before, None, None)
    return Planned(item(key, content=content), {"Email": key, **values}, status or None)


def test_a_batch_is_sent_when_it_has_no_room_for_one_more_person() -> None:
    batches, sent = collecting()
    people = [f"p{number}@b.c" for number in range(MOST_CONTACTS + 1)]
    for key in [*people[:-1], people[0], people[-1]]:  # the second message of a person takes no further room
        batches.put(planned(key))
    assert [list(each.contacts) for each in sent.batches] == [people[:-1]]
    assert [one.key for one in sent.batches[0].items] == [*people[:-1], people[0]]
    batches.flush()
    batches.flush()
    assert ([list(each.contacts) for each in sent.batches[1:]], sent.rows) == ([people[-1:]], [])


def test_a_batch_is_sent_before_a_contact_that_does_not_go_with_it() -> None:
    batches, sent = collecting()
    for one in (planned("bo@b.c"), planned(ANN), planned(ANN).with_item(alone=True), planned("cy@b.c")):
        batches.put(one)
    batches.flush()
    assert [list(each.contacts) for each in sent.batches] == [["bo@b.c", ANN], [ANN, "cy@b.c"]]


def test_what_an_item_in_a_batch_knows_of_its_row() -> None:
    batches, sent = collecting()
    batches.put(planned(ANN, FirstName="Ann"))
    batches.put(planned(ANN, "failed", "a digest", LastName="A"))
    batches.put(planned("bo@b.c", "refused"))
    kept = planned("cy@b.c").with_item(values={"Email": "before"})
    batches.put(kept)
    batches.flush()
    [found] = sent.batches
    assert found.contacts == {
        ANN: {"Email": ANN, "FirstName": "Ann", "LastName": "A"}, "bo@b.c": {"Email": "bo@b.c"},
        "cy@b.c": {"Email": "cy@b.c"},
    }  # fmt: skip
    assert [(one.write_ahead, one.failed_before, one.values) for one in found.items] == [
        (False, False, {"Email": ANN, "FirstName": "Ann"}),
        (True, True, {"Email": ANN, "LastName": "A"}),  # from a row of a query
        (False, False, {"Email": "bo@b.c"}),
        (False, False, {"Email": "before"}),
    ]


def test_a_refusal_is_logged_unless_it_was_the_last_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "CHUNK", 3)
    batches, sent = collecting()
    row = Delivery("m", "track", status="refused", message="no trigger\0")
    last = DeliveryStatus(False, "refused", None, None, message="no trigger\ufffd")
    for before in (last, last._replace(message="another"), last._replace(status="failed"), None):
        batches.refuse(row, before)
    assert (sent.rows, batches.batch.refused, sent.batches) == ([row] * 3, [], [])
    batches.refuse(row, None)
    batches.put(planned(ANN))
    batches.flush()
    assert ([each.refused for each in sent.batches], len(sent.rows)) == ([[row]], 3)
    assert batches.counts.reasons == {("refused", "no trigger\0"): 5}


def test_who_was_deleted_gets_nothing() -> None:
    deleted = id_of("email", ANN), id_of("user_id", "u1"), id_of("contact_id", "person_1")
    suppressed = HashedIds([("salt", hash_of("salt", id_)) for id_ in deleted])
    for about, email, is_deleted in (
        (Item("m", "track"), "ANN@b.c", True),
        (Item("m", "track", "u1"), "bo@b.c", True),
        (Item("m", "track", "u2", context_traits={"contact_id": " person_1"}), None, True),
        (Item("m", "track", "u2", context_traits={"contact_id": "person_2"}), "bo@b.c", False),
        (Item("m", "track"), None, False),
    ):
        assert sender.is_suppressed(about, email, suppressed) is is_deleted
    contacts: list[dict[str, Any]] = [
        {"Email": "bo@b.c"}, {"Email": ANN}, {"Email": "bo@b.c", "_NewEmail": "Ann@b.c"}, {"custom": {}},
    ]  # fmt: skip
    assert [sender.has_suppressed_address(each, suppressed) for each in contacts] == [False, True, True, False]


def test_what_is_not_sent_is_counted() -> None:
    counts = Counts()
    sender.count_ignored(counts, [Ignored("page"), Ignored("track", not_meant=True), Ignored("page"), Ignored("alias")])
    assert (counts.not_meant, counts.ignored) == (1, {"page": 2, "alias": 1})
