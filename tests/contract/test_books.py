"""Every line is accounted for (docs/contract/warehouse.md#rejects-and-discards)."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autopilothq.projection import FileCount, RefusedIds
from autopilothq.projection.audit import limits_exceeded, merge_counts
from autopilothq.projection.deduplicate import LeftOut
from autopilothq.segment.message import Reject, digest
from contract.loading import NOW, RECEIVED, Line, Store, batches, discards, message, new_projection, rows_of, to_line

# A line, and the reason for its rejection. `truncated` and `line_too_long` are missing: the origin rejects those.
REJECTS: list[tuple[Line, str]] = [
    ("{", "not_json"),
    ("hello", "not_json"),
    ('{"type":"track","event":"a","userId":"u",}', "not_json"),
    ('{"type":"track","event":"a","userId":"u" , }', "not_json"),
    ('{"type":"track","event":"a","userId":"u","properties":{"a":[1,\t]}}', "not_json"),
    ('{"type":"track","event":"a","userId":"u"} {}', "not_json"),
    (b'{"type":"track","event":"\xff\xfe","userId":"u"}', "not_json"),
    (b'{"type":"track","event":"\xed\xa0\x80","userId":"u"}', "not_json"),
    (b'{"type":"track","event":"a\x00","userId":"u"}', "not_json"),
    ("\x0b", "not_json"),
    ("5", "not_an_object"),
    ("[{}]", "not_an_object"),
    ("null", "not_an_object"),
    ("{}", "unknown_type"),
    (message(type="delete"), "unknown_type"),
    (message(type="🎉"), "unknown_type"),
    (r'{"type":"\ud800","userId":"u"}', "unknown_type"),
    (message(event=...), "event_not_defined"),
    (message(None), "event_not_defined"),
    (message(event=5), "event_not_string"),
    (message(event=["a"]), "event_not_string"),
    (message(properties=[]), "properties_not_object"),
    (message(properties="a"), "properties_not_object"),
    (message(type="identify", traits=5), "traits_not_object"),
    (message(context=True), "context_not_object"),
    (message(userId=None), "no_user_anon_id"),
]


def place_digest(file: str, line: int, text: bytes) -> str:
    return hashlib.sha256(f"{file}\n{line}\n{hashlib.sha256(text).hexdigest()}".encode()).hexdigest()


def test_a_rejected_line_is_kept_whole_with_its_file_line_and_reason() -> None:
    lines: list[Line] = [text for text, _ in REJECTS]
    store = Store()
    found = store.run([message(messageId="a")], [*lines[:10], message(messageId="b"), *lines[10:]])
    texts = [to_line(text) for text in lines]
    expected = [
        {
            "id": place_digest("file 1", number + (number > 10), text),
            "file": "file 1",
            "line": number + (number > 10),
            "reason": reason,
            "raw": text.decode(errors="backslashreplace").replace("\0", "\\x00"),
            "rejected_at": NOW.replace(day=3),
        }
        for number, (text, (_, reason)) in enumerate(zip(texts, REJECTS, strict=True), 1)
    ]
    rows = sorted(found["_rejects"], key=lambda row: row["line"])
    assert all(row.pop("message") for row in rows)
    assert rows == expected
    assert [row["id"] for row in found["tracks"]] == ["a", "b"]
    assert store.audit == [
        FileCount(0, 1, 1, 0, 0, RECEIVED, RECEIVED),
        FileCount(1, len(REJECTS) + 1, 1, 0, len(REJECTS), RECEIVED, RECEIVED),
    ]


def test_a_rejected_line_has_a_row_for_each_of_its_places() -> None:
    store = Store()
    found = store.run(["{", "{"], ["{"])["_rejects"]
    assert sorted((row["file"], row["line"]) for row in found) == [("file 0", 1), ("file 0", 2), ("file 1", 1)]
    assert len(found) == sum(count.rejected for count in store.audit) == 3


def test_a_rejected_line_that_comes_again_with_its_file_is_one_row() -> None:
    store = Store()
    once = store.run(["{"])["_rejects"]
    assert store.run(["{"])["_rejects"] == once
    assert [count.rejected for count in store.audit] == [1]


def test_a_refused_message_whose_line_nobody_kept_is_rejected_by_its_id(tmp_path: Path) -> None:
    warehouse = new_projection(tmp_path)
    warehouse.add(next(batches([[message()]])))
    book = warehouse.deduplicate(left_out=LeftOut(refused=RefusedIds({"m1": "too long"}))).rejects(["file 0"])
    assert book is not None
    names = ("id", "reason", "message", "raw")
    [row] = book.relation.to_arrow_table().to_pylist()
    warehouse.close()
    assert [row[name] for name in names] == [place_digest("file 0", 1, b"m1"), "unreadable", "too long", ""]


def test_a_byte_order_mark_is_no_part_of_a_rejected_line() -> None:
    assert Store().run(["{}", "\ufeff{"])["_rejects"] == Store().run(["{}", "{"])["_rejects"]


def origin_rejects(*rejects: Reject) -> list[tuple[str, int, str, str, str]]:
    store = Store()
    names = ("file", "line", "reason", "message", "raw")
    return sorted(tuple(row[name] for name in names) for row in store.run([], [], rejects=rejects)["_rejects"])


def test_what_the_origin_rejects_is_in_the_books() -> None:
    long = Reject(0, 7, "line_too_long", "too long", b"a" * (1 << 20))
    assert origin_rejects(long, Reject(1, 3, "truncated", "cut off", b'{"a')) == [
        ("file 0", 7, "line_too_long", "too long", "a" * (1 << 20)),
        ("file 1", 3, "truncated", "cut off", '{"a'),
    ]


def test_two_files_that_break_off_are_two_rows() -> None:
    breaks = [Reject(0, 3, "truncated", "cut off", b""), Reject(1, 3, "truncated", "cut off", b"")]
    assert [row[0] for row in origin_rejects(*breaks)] == ["file 0", "file 1"]


def test_blank_lines_are_no_lines_but_have_their_numbers() -> None:
    store = Store()
    found = store.run(["", " ", "\t", "\r", "\ufeff ", "{", " \t\r", message(), ""])
    assert [row["line"] for row in found["_rejects"]] == [6]
    assert [count[:5] for count in store.audit] == [(0, 2, 1, 0, 1)]


def test_a_discard_is_a_whole_row() -> None:
    found = rows_of(message(sentAt="soon"))
    text = 'email_opened\nm1\nsent_at\n"soon"'
    assert found["_discards"] == [
        {
            "id": hashlib.sha256(text.encode()).hexdigest(),
            "table_name": "email_opened",
            "row_id": "m1",
            "column_name": "sent_at",
            "value": '"soon"',
            "reason": "not_a_time",
            "received_at": RECEIVED,
            "discarded_at": NOW.replace(day=3),
        }
    ]


def test_a_value_that_is_lost_twice_is_one_discard() -> None:
    """If two reasons apply, the choice does not depend on the order of the keys."""
    store = Store()
    store.run([message(messageId="first", properties={"a": 1, "b": 1})])
    found = store.run([message(messageId="m1", properties={"a": "x", "A": "x", "B": "y", "b": "y"})])
    assert discards(found) == [
        ("email_opened", "m1", "a", '"x"', "does_not_fit"), ("email_opened", "m1", "b", '"y"', "does_not_fit"),
    ]  # fmt: skip


def test_each_value_that_loses_its_column_is_a_discard() -> None:
    found = rows_of(message(properties={"a": 1, "A": 2, " a": 3, "a ": 2}))
    assert [entry[2:] for entry in discards(found)] == [("a", "2", "same_column"), ("a", "3", "same_column")]


def test_a_value_that_fits_neither_table_of_a_track_is_a_discard_of_the_event_table() -> None:
    """Also where `tracks` comes first by name."""
    store = Store()
    events = ("Alpha", "Zulu")
    store.run([message(event, messageId=event, context={"zoo": 1}) for event in events])
    found = store.run([message(event, messageId=f"{event} 2", context={"zoo": "x"}) for event in events])
    assert discards(found) == [(event.lower(), f"{event} 2", "context_zoo", '"x"', "does_not_fit") for event in events]


def test_discards_name_the_table_of_their_row() -> None:
    kinds = {"identify": "identifies", "alias": "aliases", "page": "pages", "screen": "screens", "group": "groups"}
    lines: list[dict[str, Any]] = [message(type=kind, messageId=kind, sentAt="soon") for kind in kinds]
    lines += [
        message("Trial Extended", messageId="trial", sentAt="soon"),
        message("名前", messageId="name", sentAt="soon"),
    ]
    tables = {row["row_id"]: row["table_name"] for row in rows_of(*lines)["_discards"]}
    assert tables == kinds | {"trial": "trial_extended", "name": "tracks"}


def test_the_audit_counts_every_line_of_every_file() -> None:
    day = datetime(2019, 3, 5, tzinfo=UTC)
    store = Store()
    store.run(
        [message(), "{", message(messageId="m2", receivedAt="2019-03-05T00:00:00Z"), message()],
        [message(receivedAt="2018-01-01T00:00:00Z"), "", "[]"],
        [],
        ["", ""],
        [message(messageId="m3", receivedAt=None)],
        ["{", "}"],
    )
    assert store.audit == [
        FileCount(0, 4, 1, 2, 1, RECEIVED, day),
        FileCount(1, 2, 1, 0, 1, datetime(2018, 1, 1, tzinfo=UTC), datetime(2018, 1, 1, tzinfo=UTC)),
        FileCount(4, 1, 1, 0, 0, None, None),
        FileCount(5, 2, 0, 0, 2, None, None),
    ]


def test_counts_of_a_file_in_several_partitions_are_added() -> None:
    early, late = RECEIVED, RECEIVED.replace(year=2020)
    parts = [
        FileCount(3, 10, 4, 3, 3, late, late, 5),
        FileCount(1, 1, 0, 0, 1, None, None),
        FileCount(3, 400, 100, 200, 100, early, early, 70),
        FileCount(1, 2, 1, 0, 1, None, None),
        FileCount(3, 5000, 1000, 2000, 2000, None, None, 900),
    ]
    assert merge_counts(parts) == [
        FileCount(3, 5410, 1104, 2203, 2103, early, late, 975),
        FileCount(1, 3, 1, 0, 2, None, None),
    ]


def test_values_beyond_the_limits_are_counted_by_reason_and_table() -> None:
    """Up to a hundred events without a table are named: those with most messages, then by name."""
    discarded = [
        ("too_many_columns", "tracks", 1), ("not_a_time", "tracks", 2), ("row_too_wide", "users", 3),
        ("too_many_columns", "pages", 4), ("too_many_columns", "tracks", 50),
    ]  # fmt: skip
    by_name = [f"event {n:03}" for n in range(100)]
    events = dict.fromkeys(by_name, 5)
    values = {"too_many_columns": {"pages": 4, "tracks": 51}, "row_too_wide": {"users": 3}}
    assert limits_exceeded(discarded, {}) == values
    assert list(limits_exceeded(discarded, events)["too_many_tables"].items()) == list(events.items())
    more = {"few": 2, "event 100": 5} | dict(reversed(events.items())) | {"zulu": 7}
    assert limits_exceeded(discarded, more) == values | {
        "too_many_tables": {"zulu": 7} | dict.fromkeys(by_name[:99], 5) | {"others": 5 + 5 + 2}
    }
    assert list(limits_exceeded([], more)["too_many_tables"]) == ["zulu", *by_name[:99], "others"]


def test_of_one_line_in_two_files_the_first_is_stored(tmp_path: Path) -> None:
    """Whichever is read first."""
    both = list(batches([[message()], [message()]], chunks=lambda _: 1))
    for name, order in (("a", both), ("b", both[::-1])):
        (tmp_path / name).mkdir()
        warehouse = new_projection(tmp_path / name)
        for batch in order:
            warehouse.add(batch)
        counts = warehouse.deduplicate().counts()
        assert sorted((count.file, count.stored, count.duplicates) for count in counts) == [(0, 1, 0), (1, 0, 1)]
        warehouse.close()


def test_reasons_are_counted(tmp_path: Any) -> None:
    warehouse = new_projection(tmp_path)
    for batch in batches([["[]", "{", "}", message(), message(type="x")]]):
        warehouse.add(batch)
    counts = [("not_json", 2), ("not_an_object", 1), ("unknown_type", 1)]
    assert list(warehouse.deduplicate().rejects_by_reason().items()) == counts
    warehouse.close()


def test_the_digest_of_a_line_is_its_bytes() -> None:
    assert digest(b"{\r\n") == hashlib.sha256(b"{").hexdigest()
