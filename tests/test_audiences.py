"""Rows of a query become items to send for those who entered an audience and those who left it."""

import hashlib
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from autopilothq.cli import kept_rows
from autopilothq.destination import audiences
from autopilothq.destination.audiences import Audience, PersonRow, PersonRows, audience_changes, membership_items
from autopilothq.destination.delivery_log import Member
from autopilothq.destination.messages import Item
from autopilothq.errors import RunError

NAME = "Order Completed Last 30days"
TRAIT = "order_completed_last_30days"


def people(*emails: str) -> list[PersonRow]:
    return [PersonRow(email, email, None, {}) for email in emails]


def changes(found: list[PersonRow], known: dict[str, Member], key: str = "email") -> list[tuple[Any, ...]]:
    """Returns the items that a sync sends: whom, and with which value."""
    items = membership_items(audience_changes(Audience(TRAIT, key, found), known))
    return [(item.traits.get("email"), item.user_id, item.traits[TRAIT], item.content) for item in items]


def state(*members: tuple[str, str | None]) -> dict[str, Member]:
    """Returns the log's state after those emails were sent."""
    found = people(*(email for email, _ in members))
    items = membership_items(audience_changes(Audience(TRAIT, "email", found), {}))
    return {item.message_id: Member(email, None, known) for item, (email, known) in zip(items, members, strict=True)}


def test_the_first_sync_sends_every_member() -> None:
    assert changes(people("a@b.c", "d@e.f"), {}) == [("a@b.c", None, True, "true"), ("d@e.f", None, True, "true")]
    assert changes([], {}) == []


@pytest.mark.parametrize(
    ("known", "is_in", "sent"),
    [
        (None, True, True),
        ("true", True, None),
        ("false", True, True),
        ("?", True, True),
        (None, False, None),  # never accepted, and not a member now: nothing to undo
        ("true", False, False),
        ("false", False, None),
        ("?", False, False),
    ],
)
def test_later_syncs_send_who_came_and_who_left(known: str | None, is_in: bool, sent: bool | None) -> None:
    found = people("A@b.c") if is_in else []
    expected = [] if sent is None else [("A@b.c" if is_in else "a@b.c", None, sent, str(sent).lower())]
    assert changes(found, state(("a@b.c", known))) == expected
    compared = audience_changes(Audience(TRAIT, "email", found), state(("a@b.c", known)))
    assert len(compared.unchanged) == (is_in and sent is None)
    assert (compared.entering, len(compared.left)) == (sent is True, sent is False)


def test_by_user_id() -> None:
    found = [PersonRow("u1", None, "u1", {}), PersonRow("u2", "b@b.c", "u2", {})]
    assert changes(found, {}, "user_id") == [(None, "u1", True, "true"), ("b@b.c", "u2", True, "true")]
    items = membership_items(audience_changes(Audience(TRAIT, "user_id", found), {}))
    known = {item.message_id: Member("old@b.c", item.user_id, "true") for item in items}
    assert changes([], known, "user_id") == [(None, "u1", False, "false"), (None, "u2", False, "false")]


def test_an_audience_keeps_its_key() -> None:
    known = state(("a@b.c", "true"))
    with pytest.raises(RunError) as raised:
        audience_changes(Audience(TRAIT, "user_id", []), known)
    assert str(raised.value) == (
        f"The audience {TRAIT} was sent with the key email before, so its members cannot be found by user_id.\n"
        "Add --key email, or give the audience another name."
    )


def test_what_else_the_log_has_of_an_audience_does_not_count() -> None:
    on_a_list = {f"list-1-{id_}": member for id_, member in state(("a@b.c", "true")).items()}
    assert changes([], on_a_list) == []
    # For somebody who was never accepted, the key does not matter either.
    refused = state(("a@b.c", None))
    found = [PersonRow("u1", None, "u1", {})]
    compared = audience_changes(Audience(TRAIT, "user_id", found), on_a_list | refused)
    [item] = membership_items(compared)
    id_ = f"audience-{TRAIT}-user_id-{hashlib.sha256(b'u1').hexdigest()}"
    assert item == Item(id_, "identify", "u1", {TRAIT: True}, audience=TRAIT, once=False, content="true")
    assert (compared.entering, len(compared.unchanged)) == (1, 0)


def test_an_audience_is_named_by_its_slug() -> None:
    assert audiences.slug(NAME) == TRAIT
    with pytest.raises(RunError, match="with ASCII letters or digits, got '株'"):
        audiences.slug("株")


def test_rows_by_the_key() -> None:
    names = ["EMAIL", "plan", "User_ID"]
    values = [(" a@b.c ", 1, 7), (None, 2, 8), ("", 3, 9), ("d@e.f", None, None)]
    found = PersonRows(names, values, "email")
    first = [PersonRow("a@b.c", "a@b.c", "7", {"plan": 1}), PersonRow("d@e.f", "d@e.f", None, {"plan": None})]
    assert [list(found), list(found)] == [first, first]
    assert (len(found), found.skipped) == (2, 2)
    assert [row.key for row in PersonRows(names, values, "user_id")] == ["7", "8", "9"]


def test_rows_wait_with_their_types_in_memory_or_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    first = [("a@b.c", Decimal("1.50"), datetime(2026, 1, 2, tzinfo=UTC), b"x"), ("d@e.f", None, [b"y"], {"k": 2.0})]
    for size in (0, 1_000, 1):
        monkeypatch.setattr(kept_rows, "KEPT_BYTES", size)
        with kept_rows.kept_rows() as rows:
            assert list(rows) == []
            # psycopg2 reads bytes as memoryview.
            rows.add([(*first[0][:3], memoryview(b"x")), ("d@e.f", None, [memoryview(b"y")], {"k": 2.0})])
            assert next(iter(rows)) == first[0]
            rows.add([("g@h.i",) * 4])
            assert list(zip(rows, rows, strict=True)) == [(row, row) for row in (*first, ("g@h.i",) * 4)]


@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        (
            ["mail", "plan"],
            [],
            "Expected a column email in the query's answer, got mail, plan.\nName it so (… AS email).",
        ),
        (
            ["user_id"],
            [],
            (
                "Expected a column email in the query's answer, got user_id.\n"
                "Name it so (… AS email), or add --key user_id."
            ),
        ),
        (
            ["email", "plan", "Plan"],
            [],
            "Expected each column of the query once, got plan twice.\nGive one of them another name.",
        ),
        (
            ["email"],
            [("a@b.c",), ("A@b.c",), ("a@b.c",), ("x@y.z",), ("x@y.z",)],
            (
                "Expected one row for each email, got 3 for a@b.c, and 1 more that comes twice.\n"
                "Emails are compared without case. Let the query choose: GROUP BY lower(email), DISTINCT or QUALIFY."
                " Nothing was sent."
            ),
        ),
    ],
)
def test_a_query_that_does_not_say_who(names: list[str], values: list[tuple[Any, ...]], message: str) -> None:
    with pytest.raises(RunError) as raised:
        PersonRows(names, values, "email")
    assert str(raised.value) == message


def test_an_audience_has_no_traits_and_traits_have_some() -> None:
    row = PersonRow("a@b.c", "a@b.c", None, {"plan": 1, "size": 2})
    with pytest.raises(RunError) as raised:
        audience_changes(Audience(TRAIT, "email", [row]), {})
    assert str(raised.value) == (
        "Expected only email and user_id of an audience, got plan, size as well.\n"
        "Leave them out of the query, or send them as traits: autopilothq send traits."
    )
    with pytest.raises(RunError, match="Expected columns besides email and user_id, which are the traits, got none"):
        list(audiences.trait_items(people("a@b.c")))


def test_a_persons_item_has_the_same_id_for_other_values_of_its_traits() -> None:
    one, two, other = (
        next(audiences.trait_items([PersonRow("a@b.c", email, None, traits)]))
        for email, traits in (("a@b.c", {"x": 1}), ("A@b.c", {"x": 2}), ("a@b.c", {"y": 1}))
    )
    assert one.message_id == two.message_id != other.message_id
    assert (one.traits, one.once, one.kind) == ({"email": "a@b.c", "x": 1}, False, "identify")
