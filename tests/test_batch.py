"""Which contacts may share a request, and by which keys a person is known: without an account."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from autopilothq.destination import batch
from autopilothq.destination.batch import EXTERNAL_ID, BatchItem, ContactBatch, merged
from autopilothq.destination.delivery_log import Delivery, address_digest
from autopilothq.destination.held import HeldPeople

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
    # Without an event they may be, and those of somebody else do not matter.
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
    assert batch.user_key("u\ud800") == batch.user_key("u?")  # which a field of the account may be given by a trait
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
    assert held.is_empty
    held.note_failed([ANN], always=True)
    assert held.is_empty
    held.note_failed([ANN])
    assert (held.is_empty, held.holds([ANN]), held.holds(["x", ANN], renames=True)) == (False, False, True)
    assert not held.holds(["x"], renames=True)
    held.note_unsettled(["bo@b.c"])
    assert (held.holds(["x", "bo@b.c"]), held.holds(["bo@b.c"], renames=True), held.holds(["x"])) == (True, True, False)
    before = ["cy@b.c"]
    in_order = HeldPeople(in_order=True, unsettled=before)
    assert not in_order.is_empty
    in_order.note_failed([ANN], always=True)
    assert (in_order.unsettled, in_order.holds([ANN]), in_order.holds(["cy@b.c"])) == ({ANN, "cy@b.c"}, True, True)
