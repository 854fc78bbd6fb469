"""Times are read in every notation that senders use, and corrected as Segment does (spec: Clocks)."""

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from contract.loading import RECEIVED, cell, discards, filled, identify, message, raw, rows_of

with Path(__file__).with_name("timestamps.csv").open(encoding="utf-8", newline="") as file:
    VECTORS = list(csv.DictReader(file))


def test_times_are_corrected_as_in_the_vectors() -> None:
    lines = []
    for number, vector in enumerate(VECTORS):
        sent = vector["sent_at"] or None
        clocks = {
            "receivedAt": vector["received_at"],
            "sentAt": sent,
            "originalTimestamp": vector["original_timestamp"],
        }
        lines.append(message(messageId=f"{number}", **clocks))
    rows = rows_of(*lines)["tracks"]
    assert [row["timestamp"] for row in rows] == [datetime.fromisoformat(vector["timestamp"]) for vector in VECTORS]


def when(*moment: int) -> datetime:
    return datetime(*moment, tzinfo=UTC)  # type: ignore[misc,arg-type]


NOON = when(2019, 3, 4, 12, 0, 7)
READ: list[tuple[str, datetime | None]] = [
    ('"2019-03-04T12:00:07Z"', NOON),
    ('"2019-03-04T12:00:07.Z"', NOON),
    *((f'"2019-03-04T12:00:07.{"123456789"[:n]}Z"', NOON.replace(microsecond=int("123456"[:n].ljust(6,
    "0")))) for n in range(1, 10)),
    ('"2019-03-04T12:00:07.999999999Z"', NOON.replace(microsecond=999_999)),
    ('"2019-03-04t12:00:07z"', NOON),
    ('"2019-03-04 12:00:07Z"', NOON),
    ('"2019-03-04 12:00:07"', NOON),
    ('"2019-03-04T12:00:07"', NOON),
    ('"2019-03-04T12:00:07+00:00"', NOON),
    ('"2019-03-04T14:00:07+02:00"', NOON),
    ('"2019-03-04T14:00:07+0200"', NOON),
    ('"2019-03-04T14:00:07+02"', NOON),
    ('"2019-03-04 14:00:07 +02:00"', NOON),
    ('"2019-03-04 06:30:07.000 -0530"', NOON),
    ('"2019-03-04T23:45:07+11:45"', NOON),
    ('"2019-03-04T12:00:07,5Z"', NOON.replace(microsecond=500_000)),
    ('"2019-03-04T12:00Z"', when(2019, 3, 4, 12)),
    ('"2019-03-04T12:00+02:00"', when(2019, 3, 4, 10)),
    ('"2019-03-04T12:00"', when(2019, 3, 4, 12)),
    ('"2019-03-04"', when(2019, 3, 4)),
    ('"2020-02-29"', when(2020, 2, 29)),
    ('"Mon, 04 Mar 2019 12:00:07 GMT"', NOON),
    ('"Mon, 4 Mar 2019 12:00:07 UTC"', NOON),
    ('"Mon, 04 Mar 2019 14:00:07 +0200"', NOON),
    ('"04 Mar 2019 12:00:07 GMT"', NOON),
    ('"2019-03-04 12:00:07.209808489 +0000 UTC m=+0.01"', NOON.replace(microsecond=209_808)),
    ('"2020-05-09 23:54:49.209808489 +0000 UTC m=+0.01"', when(2020, 5, 9, 23, 54, 49, 209_808)),
    ('"2019-03-04 14:00:07 +0200 CEST m=-0.01"', NOON),
    ('"2019-03-04 12:00:07.5 +0000 UTC"', NOON.replace(microsecond=500_000)),
    ('"2019-03-04 05:00:07 -0700 -07"', NOON),
    ("1551700807", NOON),
    ("1551700807.25", NOON.replace(microsecond=250_000)),
    ("1551700807000", NOON),
    ("1551700807123", NOON.replace(microsecond=123_000)),
    ("1.551700807e9", NOON),
    ("0", when(1970, 1, 1)),
    ("-1", when(1969, 12, 31, 23, 59, 59)),
    ('"1969-12-31T23:59:59.999Z"', when(1969, 12, 31, 23, 59, 59, 999_000)),
    ('"0001-01-01T00:00:00Z"', when(1, 1, 1)),
    ('"2999-01-01T00:00:00.000Z"', when(2999, 1, 1)),
    ('"9999-12-31T23:59:59.999999Z"', when(9999, 12, 31, 23, 59, 59, 999_999)),
    ('"9999-12-31"', when(9999, 12, 31)),
    *(
        (text, None)
        for text in (
            '""', '" "', '"yesterday"', '"now"', '"epoch"', '"infinity"', '"1551700807"', '"2019-02-30T00:00:00Z"',
            '"2019-13-01"',
            '"2019-02-29"', '"2019-03-04T25:00:00Z"', '"2019-03-04T12:00:07+25:00"', '"04/03/2019"',
            '"0000-01-01T00:00:00Z"',
            '"0000-12-31T00:00:00.000Z"', '"10000-01-01T00:00:00Z"', '"Mon, 04 Mar 2019 12:00:07 MST"',
            '"12:00:07"', '"2019-03-04 (BC)"',
            "true", "false", "[]", "{}", "[1551700807]", '{"a":1}', "NaN", "1e400", "99999999999999999999",
            "-99999999999999",
        )
    ),
]  # fmt: skip
FIELDS = {
    "receivedAt": "received_at",
    "sentAt": "sent_at",
    "originalTimestamp": "original_timestamp",
    "timestamp": "timestamp",
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_clock_is_read_in_every_notation(field: str) -> None:
    column = FIELDS[field]
    lines = [raw(message(messageId=f"{n:03}", **{field: "$t"}), t=text) for n, (text, _) in enumerate(READ)]
    found = rows_of(*lines)
    assert {READ[int(row["id"])][0]: row[column] for row in found["email_opened"]} == dict(READ)
    unread = [text for text, moment in READ if moment is None]
    assert sorted(entry[2:] for entry in discards(found)) == sorted((column, text, "not_a_time") for text in unread)


@pytest.mark.parametrize("text", ["null", ...])
def test_an_absent_clock_is_no_discard(text: Any) -> None:
    found = rows_of(raw(message(sentAt="$t" if text is not ... else ...), t=str(text)))
    assert found["tracks"][0]["sent_at"] is None
    assert "_discards" not in found


A, B, C, D = (f"2019-03-0{day}T00:00:00.000Z" for day in (1, 2, 3, 4))
FALLBACKS: list[tuple[dict[str, Any], str | None]] = [
    ({"receivedAt": A, "sentAt": B, "timestamp": C, "originalTimestamp": D}, A),
    ({"sentAt": B, "timestamp": C, "originalTimestamp": D}, B),
    ({"receivedAt": None, "sentAt": None, "timestamp": C, "originalTimestamp": D}, C),
    ({"originalTimestamp": D}, D),
    ({"receivedAt": "soon", "sentAt": "later", "timestamp": "never", "originalTimestamp": D}, D),
    ({"receivedAt": "soon"}, None),
    ({}, None),
]


def test_without_a_time_of_receipt_the_next_best_clock_stands_in() -> None:
    found = rows_of(
        *(message(messageId=f"{n}", **{"receivedAt": ..., **clocks}) for n, (clocks, _) in enumerate(FALLBACKS))
    )
    expected = [text and datetime.fromisoformat(text) for _, text in FALLBACKS]
    assert [row["received_at"] for row in found["email_opened"]] == expected


SECOND = timedelta(seconds=1)
TIMES: list[tuple[dict[str, Any], datetime | None]] = [
    ({"timestamp": A, "sentAt": B, "originalTimestamp": C}, datetime.fromisoformat(A)),
    ({"sentAt": "2019-03-04T05:06:08Z", "originalTimestamp": "2019-03-04T05:06:07Z"}, RECEIVED - SECOND),
    ({"sentAt": "2099-01-01T00:00:01Z", "originalTimestamp": "2099-01-01T00:00:00Z"}, RECEIVED - SECOND),
    ({"sentAt": "2019-03-04T05:06:06Z", "originalTimestamp": "2019-03-04T05:06:07Z"}, RECEIVED + SECOND),
    ({"originalTimestamp": A}, datetime.fromisoformat(A)),
    ({"sentAt": None, "originalTimestamp": A}, datetime.fromisoformat(A)),
    ({"sentAt": "soon", "originalTimestamp": A}, datetime.fromisoformat(A)),
    ({"sentAt": A}, RECEIVED),
    ({}, RECEIVED),
    ({"receivedAt": ..., "sentAt": B, "originalTimestamp": A}, datetime.fromisoformat(A)),
    ({"receivedAt": ...}, None),
    ({"timestamp": "soon", "originalTimestamp": A}, None),
    ({"timestamp": None, "originalTimestamp": A}, datetime.fromisoformat(A)),
    # Where the correction leaves the calendar, the sender's clock stays.
    ({"sentAt": "0001-01-01T00:00:00Z", "originalTimestamp": "9999-12-31T00:00:00Z"}, when(9999, 12, 31)),
]


def test_the_time_is_as_sent_else_corrected_else_the_senders() -> None:
    found = rows_of(*(message(messageId=f"{n:02}", **clocks) for n, (clocks, _) in enumerate(TIMES)))
    assert [row["timestamp"] for row in found["email_opened"]] == [time for _, time in TIMES]


def test_event_times_far_from_their_receipt_load() -> None:
    rows = rows_of(
        message(timestamp="2120-01-01T00:00:00Z"), message(messageId="m2", timestamp="1820-01-01T00:00:00Z")
    )["tracks"]
    assert [(row["received_at"], row["timestamp"].year) for row in rows] == [(RECEIVED, 2120), (RECEIVED, 1820)]


def test_times_of_receipt_far_off_load_as_they_are() -> None:
    assert cell(message(receivedAt="2120-01-01T00:00:00.000Z"), column="received_at") == when(2120, 1, 1)


def test_the_clocks_of_all_kinds_are_read() -> None:
    (row,) = rows_of(
        identify(sentAt=A, originalTimestamp="Mon, 04 Mar 2019 12:00:07 GMT", timestamp=json.loads("1551700807"))
    )["identifies"]
    assert filled(row) == {
        "id": "m1", "user_id": "u1", "received_at": RECEIVED, "sent_at": datetime.fromisoformat(A),
        "original_timestamp": NOON,
        "timestamp": NOON,
    }  # fmt: skip
