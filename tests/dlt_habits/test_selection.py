"""Which messages are selected, and which of a file's messages the books say are loaded."""

from itertools import combinations, product

import pytest

from autopilothq.sources.origin import MESSAGE_RESOURCES
from autopilothq.warehouses.selection import (
    ALL_MESSAGES,
    NONE,
    MessageSelection,
    Selected,
    covers,
    from_text,
    messages_of,
    messages_with_row,
    select,
    to_text,
    union,
)

TABLES = ("email_opened", "a", "b", "")  # "": an event without a table
SETS = [
    MessageSelection(frozenset(names), all_but)
    for names, all_but in product([(), ("a",), ("b",), ("a", "b"), ("email_opened",)], (True, False))
]


def of(messages: MessageSelection) -> set[str]:
    return {table for table in TABLES if messages.has(table)}


@pytest.mark.parametrize("one", SETS)
def test_sets_of_messages(one: MessageSelection) -> None:
    for other in SETS:
        assert of(one | other) == of(one) | of(other)
        assert of(one & other) == of(one) & of(other)
        assert one.covers(other) == (of(one) >= of(other))
    assert (ALL_MESSAGES.covers(one), one.covers(NONE)) == (True, True)
    assert one.renamed(str.upper) == MessageSelection(frozenset(map(str.upper, one.names)), one.all_but)


def test_which_messages_have_a_row_in_a_table() -> None:
    tables = ("email_opened", "a", "", "identifies", "groups")
    found = {
        name: {table for table in tables if messages_with_row(name).has(table)}
        for name in ("tracks", "identifies", "users", "accounts", "email_opened", "a")
    }
    assert found == {
        "tracks": {"email_opened", "a", ""}, "identifies": {"identifies"}, "users": {"identifies"},
        "accounts": {"groups"}, "email_opened": {"email_opened"}, "a": {"a"},
    }  # fmt: skip


def test_books_of_a_file() -> None:
    a, not_a = MessageSelection(frozenset("a"), all_but=False), MessageSelection(frozenset("a"))
    opened = MessageSelection(frozenset({"email_opened"}), all_but=False)
    every = select(["tracks", "email_opened"], ALL_MESSAGES)
    first = select(["tracks", "email_opened"], a)
    assert first == {"tracks": a}  # email_opened would get no rows
    books = select(["tracks", "_rejects", "_discards", "contacts"], a)
    assert books == {"tracks": a, "_rejects": a, "_discards": a, "contacts": ALL_MESSAGES}
    told = '{"_discards": {"only": ["a"]}, "_rejects": {"only": ["a"]}, "contacts": "all", "tracks": {"only": ["a"]}}'
    assert (to_text(books, list(books)), from_text(told)) == (told, books)
    second = select(["tracks", "email_opened"], not_a)
    assert second == {"tracks": every["tracks"] & not_a, "email_opened": opened}
    loaded = union(first, second)
    assert loaded == every
    assert covers(loaded, first)
    assert covers(None, second)
    assert union(None, first) is None
    assert not covers(first, second)
    tracks = MessageSelection(frozenset({"identifies", "aliases", "pages", "screens", "groups"}))
    assert [messages_of(each) for each in (first, second, loaded, None, {"email_opened": opened})] == [
        a, tracks & not_a, tracks, ALL_MESSAGES, opened,
    ]  # fmt: skip

    assert to_text(loaded, ["tracks", "email_opened"]) is None
    text = to_text(second, ["tracks", "email_opened"])
    assert text == '{"email_opened": "all", "tracks": {"all_but": ["a"]}}'
    assert from_text(text) == second
    assert from_text(to_text(first, ["tracks"])) == first
    assert [from_text(text) for text in (None, "?", "[]", '{"a": 1}', '{"a": {}}')] == [None, {}, {}, {}, {}]


@pytest.mark.parametrize(
    ("resources", "tables"),
    [
        (["identifies"], {"identifies"}),
        (["groups", "accounts"], {"groups"}),
        (["tracks", "_audit"], {"email_opened", "a", ""}),
        (["other_events"], {"a"}),
        (["pages", "email_opened", "contacts"], {"pages", "email_opened"}),
        (["_rejects", "_discards", "contacts"], set()),
        (MESSAGE_RESOURCES, {"email_opened", "a", "", "identifies", "groups", "pages"}),
    ],
)
def test_a_message_is_requested_if_a_selected_table_takes_it(resources: list[str], tables: set[str]) -> None:
    kinds = ("email_opened", "a", "", "identifies", "groups", "pages")
    for messages in (ALL_MESSAGES, MessageSelection(frozenset({"a", "pages"}))):
        taken = messages_of(select(resources, messages))
        assert {table for table in kinds if taken.has(table)} == {table for table in tables if messages.has(table)}


def test_a_load_of_all_tables_need_not_look_at_lines() -> None:
    assert messages_of(select(MESSAGE_RESOURCES, ALL_MESSAGES)) == ALL_MESSAGES


def test_the_books_of_all_messages_that_are_loaded_or_requested_are_loaded() -> None:
    """The rejects and discards of some messages say nothing about others."""
    discards, tracks = select(["_discards"], ALL_MESSAGES), select(["tracks", "_discards"], ALL_MESSAGES)
    with_books = {**tracks, "_discards": messages_of(tracks)}
    more = {**with_books, **select(["pages"], ALL_MESSAGES)}
    assert [covers(loaded, discards) for loaded in ({}, with_books, more)] == [True, True, False]
    assert [covers(with_books, select([*names, "_discards"], ALL_MESSAGES)) for names in (["tracks"], ["pages"])] == [
        True, False,
    ]  # fmt: skip
    assert from_text('{"_discards": "all", "identifies": {"all_but": ["a"]}, "users": {"only": ["a"]}}') == {
        "_discards": ALL_MESSAGES,
        "identifies": MessageSelection(frozenset({"identifies"}), all_but=False),
        "users": NONE,
    }


@pytest.mark.parametrize("messages", SETS)
def test_what_was_requested_of_a_file_is_loaded_after_one_load(messages: MessageSelection) -> None:
    """Otherwise each load would read the file again. Snapshot tables such as `contacts` always count as loaded."""
    names = ("email_opened", "tracks", "other_events", "identifies", "users", "_rejects", "_discards", "contacts")
    before: Selected = {}
    for resources in [*combinations(names, 1), *combinations(names, 2)]:
        requested = select(resources, messages)
        for earlier in ({}, before):
            loaded = union(earlier, select(requested, messages_of(requested) | messages_of(earlier)))
            assert covers(from_text(to_text(loaded, [*names, "pages"])), requested), resources
        before = requested
    assert select(["contacts"], messages) == {"contacts": ALL_MESSAGES}
    assert from_text('{"contacts": {"only": ["a"]}}') == {"contacts": ALL_MESSAGES}  # as an earlier version wrote it
