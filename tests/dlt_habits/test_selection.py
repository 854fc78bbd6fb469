"""Sets of selected messages, and what the books say was loaded of a file."""

from itertools import product

import pytest

from autopilothq.warehouses.selection import (
    ALL_MESSAGES,
    NONE,
    MessageSelection,
    covers,
    from_text,
    is_whole,
    messages_of,
    select,
    to_text,
    union,
)

TABLES = ("email_opened", "a", "b", None)  # None: a message that is no event
SETS = [
    MessageSelection(frozenset(names), but)
    for names, but in product([(), ("a",), ("b",), ("a", "b"), ("email_opened",)], (True, False))
]


def of(messages: MessageSelection) -> set[str | None]:
    return {table for table in TABLES if messages.has(table)}


@pytest.mark.parametrize("one", SETS)
def test_sets_of_messages(one: MessageSelection) -> None:
    for other in SETS:
        assert of(one | other) == of(one) | of(other)
        assert one.covers(other) == (of(one) >= of(other))
    assert (ALL_MESSAGES.covers(one), one.covers(NONE)) == (True, True)


def test_books_of_a_file() -> None:
    a, not_a = MessageSelection(frozenset("a"), but=False), MessageSelection(frozenset("a"))
    first = select(["tracks", "email_opened"], a)
    assert first == {"tracks": a}  # the table of another event has no rows
    second = select(["tracks", "email_opened"], not_a)
    assert second == {"tracks": not_a, "email_opened": ALL_MESSAGES}
    loaded = union(first, second)
    assert loaded == {"tracks": ALL_MESSAGES, "email_opened": ALL_MESSAGES}
    assert covers(loaded, first)
    assert covers(None, second)
    assert union(None, first) is None
    assert not covers(first, second)
    assert [messages_of(each) for each in (first, second, loaded, None, {"email_opened": ALL_MESSAGES})] == [
        a, not_a, ALL_MESSAGES, ALL_MESSAGES, MessageSelection(frozenset({"email_opened"}), but=False),
    ]  # fmt: skip

    assert to_text(loaded, ["tracks", "email_opened"]) is None
    whole = ["tracks", "email_opened", "other_events"]
    assert [is_whole(select(names, a)) for names in (whole, ["tracks"], ["email_opened"], whole[:2], whole[1:])] == [
        True, False, True, False, False,
    ]  # fmt: skip
    opened = MessageSelection(frozenset({"email_opened"}), but=False)
    assert [is_whole(select(names, opened)) for names in (whole, whole[:2], ["tracks"], ["email_opened"])] == [
        True, True, False, False,
    ]  # fmt: skip

    text = to_text(second, ["tracks", "email_opened"])
    assert text == '{"email_opened": "all", "tracks": {"all_but": ["a"]}}'
    assert from_text(text) == second
    assert from_text(to_text(first, ["tracks"])) == first
    assert [from_text(text) for text in (None, "?", "[]", '{"a": 1}', '{"a": {}}')] == [None, {}, {}, {}, {}]
