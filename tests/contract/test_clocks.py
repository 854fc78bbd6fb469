"""Times are read in every notation that senders use, and clocks corrected (docs/contract/warehouse.md#timestamps)."""

import csv
import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopilothq.projection.engine import connect
from contract.loading import RECEIVED, Row, cell, discards, filled, identify, message, raw, rows_of

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


def test_a_time_without_a_zone_is_utc_in_all_zones_of_the_machine() -> None:
    assert time.localtime(0).tm_hour == 19  # the tests run in New York's time zone
    clocks = {"receivedAt": "2019-03-04 12:00", "sentAt": "2019-03-04", "timestamp": "2019-03-04T12:00:07"}
    read_alone = raw(message(messageId="m2", properties={"a": "$a"}, **clocks), a="1.10")
    found = rows_of(message(messageId="m1", **clocks), read_alone)["tracks"]
    times = {"received_at": when(2019, 3, 4, 12), "sent_at": when(2019, 3, 4), "timestamp": when(2019, 3, 4, 12, 0, 7)}
    assert [{name: row[name] for name in ("id", *times)} for row in found] == [
        {"id": id_, **times} for id_ in ("m1", "m2")
    ]


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
    ('"2019-03-04T24:00:00Z"', when(2019, 3, 5)),  # the end of the day
    ('"2019-03-05T02:00:07+14:00"', NOON),
    ('"2019-03-04T12:00:07-00:00"', NOON),
    ('"2019-03-04 12:00:07 UTC"', NOON),
    ('"2019-03-04 17:30:07 +0530"', NOON),
    ('"2019-03-04 07:00:07.5 EST"', NOON.replace(microsecond=500_000)),
    ('"Mon Mar 04 2019 17:30:07 GMT+0530 (India Standard Time)"', NOON),
    ('"Mon Mar 04 2019 13:00:07 GMT+0100 (heure normale été)"', NOON),
    ('"Mon Mar 04 2019 04:00:07 GMT-0800"', NOON),
    *(
        (f'"Mon, 04 Mar 2019 {hour:02}:00:07 {zone}"', NOON)
        for zone, hour in {
            "EST": 7, "EDT": 8, "CST": 6, "CDT": 7, "MST": 5, "MDT": 6, "PST": 4, "PDT": 5, "UT": 12, "Z": 12,
        }.items()
    ),
    ('"4 Mar 2019 07:00 EST"', when(2019, 3, 4, 12)),
    ("99999999999", when(5138, 11, 16, 9, 46, 39)),
    ("100000000000", when(1973, 3, 3, 9, 46, 40)),
    ("99999999999999", when(5138, 11, 16, 9, 46, 39, 999_000)),
    ("1551700807123456", NOON.replace(microsecond=123_456)),
    ("1551700807123456.9", NOON.replace(microsecond=123_457)),
    ("1551700807123456789", NOON.replace(microsecond=123_457)),
    ("1551700807.1234569", NOON.replace(microsecond=123_457)),
    ("1551700807123.4569", NOON.replace(microsecond=123_457)),
    ("-1551700807.25", when(1920, 10, 30, 11, 59, 52, 750_000)),
    ("253402300799999999000", when(9999, 12, 31, 23, 59, 59, 999_999)),
    ('"1551700807"', NOON),
    ('"1551700807.25"', NOON.replace(microsecond=250_000)),
    ('"1551700807123"', NOON.replace(microsecond=123_000)),
    ('"1551700807123456789"', NOON.replace(microsecond=123_457)),
    ('"+1551700807"', NOON),
    ('"-1"', when(1969, 12, 31, 23, 59, 59)),
    *(
        (text, None)
        for text in (
            '""', '" "', '"yesterday"', '"now"', '"epoch"', '"infinity"', '"2019-02-30T00:00:00Z"',
            '"2019-13-01"',
            '"2019-02-29"', '"2019-03-04T25:00:00Z"', '"2019-03-04T12:00:07+25:00"', '"04/03/2019"',
            '"0000-01-01T00:00:00Z"', '"0001-01-01T00:00:00+00:01"', '"9999-12-31T23:59:59-00:01"',
            '"0000-12-31T00:00:00.000Z"', '"10000-01-01T00:00:00Z"', '"2019-03-04T12:00:07.1234567890Z"',
            '"219-03-04T05:06:27.412Z"', '"20190-03-04T05:06:27Z"', '"2019-3-4T5:6:7Z"', '"2019-03-04T05:06:7.412Z"',
            '"12:00:07"', '"2019-03-04 (BC)"', '"2019-03-04T24:00:01Z"', '"2019-03-04T12:60:00Z"',
            '"2016-12-31T23:59:60Z"', '"2016-12-31T23:59:60.000Z"',  # no warehouse has leap seconds
            '"Mon, 04 Mar 2019 12:00:07 A"', '"Mon, 04 Mar 2019 12:00:07 IST"', '"Mon, 04 Mar 2019 12:00:07"',
            '"04 Mar 19 12:00:07 GMT"', '"31 Jun 2019 12:00:07 GMT"', '"Sat Feb 30 2019 12:00:07 GMT+0000"',
            '"Mon, 04 March 2019 12:00:07 GMT"',
            '"1e9"', '"01551700807"', '"1551700807."', '" 1551700807"', '"1_551_700_807"', "253402300799999999999",
            "true", "false", "[]", "{}", "[1551700807]", '{"a":1}', "NaN", "1e400", "9999999999999999999999",
            "-99999999999999", '"\\uD800"', '"\\u0000"',
            '"Mon Mar 04 2019 12:00:07 GMT+0000 (\\\\)"',  # a backslash makes it no time
        )
    ),
]  # fmt: skip
FIELDS = {
    "receivedAt": "received_at",
    "sentAt": "sent_at",
    "originalTimestamp": "original_timestamp",
    "timestamp": "timestamp",
}


@cache
def clocks() -> dict[str, list[Row]]:
    """The tables after one load of each field in each notation."""
    return rows_of(
        *(
            raw(message(messageId=f"{field} {n:03}", **{field: "$t"}), t=text)
            for field in FIELDS
            for n, (text, _) in enumerate(READ)
        )
    )


@pytest.mark.parametrize("field", FIELDS)
def test_a_clock_is_read_in_every_notation(field: str) -> None:
    column = FIELDS[field]
    rows = {row["id"]: row[column] for row in clocks()["email_opened"] if row["id"].startswith(f"{field} ")}
    assert {READ[int(id_.split()[1])][0]: moment for id_, moment in rows.items()} == dict(READ)
    unread = [text for text, moment in READ if moment is None]
    found = [entry[2:] for entry in discards(clocks()) if entry[1].startswith(f"{field} ")]
    assert sorted(found) == sorted((column, text, "not_a_time") for text in unread)


# ---- any text ------------------------------------------------------------------------------------------------------

# Numbers with more or fewer digits than their notation has, some of which DuckDB's own reader would accept.
WIDTHS = [
    *(
        f"{year}-03-04T05:06:27{fraction}Z"
        for year in ("219", "+219", " 219", "0219 ", "02019", "20190", "-2019", "+2019")
        for fraction in ("", ".4", ".412", ".412000")
    ),
    "2019-3-04T05:06:27.412Z", "2019-03-4T05:06:27.412Z", "2019-03-04T5:06:27.412Z", "2019-03-04T05:6:27.412Z",
    "2019-03-04T05:06:7.412Z", "2019-3-4T5:6:7Z", "2019-3-04T05:06:27.4125Z", "219-03-04T05:06:27.4125Z",
    " 2019-03-04T05:06:27Z", "2019-03-04T05:06:27Z ", "2019-03-04T05:06:27.412\n", "219-03-04", "219-03-04 05:06",
    "Mon, 04 Mar 219 05:06:27 GMT", "Mon, 004 Mar 2019 05:06:27 GMT", "Mon Mar 4 2019 05:06:27 GMT+0000",
]  # fmt: skip
ZONES = {"Z": 0, "z": 0, "UT": 0, "UTC": 0, "GMT": 0} | {"EST": -5, "CST": -6, "MST": -7, "PST": -8}
ZONES |= {"EDT": -4, "CDT": -5, "MDT": -6, "PDT": -7}
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
DATE = r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)"
MINUTE, OF_MINUTE = r"(?P<hour>\d\d):(?P<minute>\d\d)", r":(?P<second>\d\d)"
CLOCK = rf"{MINUTE}({OF_MINUTE}([.,](?P<fraction>\d{{0,9}}))?)?"
WEEKDAY, NUMERIC = "[A-Z][a-z]+", r"[+-]([01]\d|2[0-3])[0-5]\d"
NOTATIONS = [
    rf"{DATE}([Tt ]{CLOCK}( ?(?P<zone>[Zz]|[+-]([01]\d|2[0-3])(:?[0-5]\d)?))?)?",
    rf"{DATE} {CLOCK} (?P<zone>[A-Z]+)",
    rf"{DATE} {CLOCK} (?P<zone>{NUMERIC}) [A-Z0-9+-]+( m=[+-][0-9.]+)?",
    rf"({WEEKDAY}, )?(?P<day>\d\d?) (?P<name>\w+) (?P<year>\d{{4}}) {MINUTE}({OF_MINUTE})? (?P<zone>{NUMERIC}|[A-Z]+)",
    rf"{WEEKDAY} (?P<name>\w+) (?P<day>\d\d) (?P<year>\d{{4}}) {MINUTE}{OF_MINUTE} GMT(?P<zone>{NUMERIC})( \(.*\))?",
]


def plainly(value: str) -> datetime | None:
    """Reads a time from JSON text, one value at a time: the reference for the macros."""
    if "\\" in value:
        return None
    try:
        clock = json.loads(value, parse_float=Decimal, parse_int=Decimal, parse_constant=str)
        if isinstance(clock, str) and re.fullmatch(r"[+-]?(0|[1-9][0-9]*)([.][0-9]+)?", clock):
            clock = Decimal(clock)
        if isinstance(clock, Decimal):
            return counted(clock)
        found = [re.fullmatch(notation, str(clock), re.ASCII) for notation in NOTATIONS]
        return next((spelt(**match.groupdict()) for match in found if match), None)
    except (ValueError, OverflowError, KeyError):
        return None


def counted(number: Decimal) -> datetime | None:
    if number.adjusted() > 20:
        return None
    digits = len(f"{abs(int(number))}")
    scale = 6 if digits <= 11 else 3 if digits <= 14 else 0 if digits <= 17 else -3
    with localcontext(prec=100, rounding=ROUND_HALF_UP):
        return when(1970, 1, 1) + timedelta(microseconds=int(number.scaleb(scale).to_integral_value()))


def spelt(year: str, day: str, month: str = "", name: str = "", **parts: str | None) -> datetime:
    """Returns the moment with these parts. Python has no year 0, so 400, which has the same calendar, stands in."""
    hour, minute, second = (int(parts.get(part) or 0) for part in ("hour", "minute", "second"))
    fraction, zone = (parts.get(part) or "" for part in ("fraction", "zone"))
    # 24:00:00 is the end of a day.
    ended = hour == 24 and bool(parts["second"]) and not minute + second + int(fraction or 0)
    moment = datetime(
        int(year) or 400, int(month) if month else MONTHS.index(name) + 1, int(day), 0 if ended else hour, minute,
        second, int(fraction.ljust(6, "0")[:6]), UTC,
    )  # fmt: skip
    offset = timedelta(hours=ZONES[zone]) if zone[:1].isalpha() else timedelta()
    if zone.startswith(("+", "-")):
        offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:].strip(":") or 0)) * int(f"{zone[0]}1")
    moment += timedelta(days=ended) - offset
    return moment if int(year) else moment - (when(401, 1, 1) - when(1, 1, 1))


def as_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


# Parts of a time, some of them out of range.
parts = st.tuples(
    st.integers(1, 9999) | st.sampled_from((0, 1, 9999)), st.integers(1, 12) | st.integers(0, 13),
    st.integers(1, 28) | st.integers(0, 32), st.integers(0, 24), st.integers(0, 60), st.integers(0, 60),
    st.sampled_from(("", ".", ",5", ".412", ".412999", ".0000001", ".999999999", ".1234567890")),
    st.sampled_from(("", "Z", "z", "+05:30", " -0330", "+02", "+14:00", "-00:00", "+24:00", " UTC", " EST", " IST")),
)  # fmt: skip


def notations(parts: tuple[int, int, int, int, int, int, str, str]) -> list[str]:
    """Returns a time in every notation."""
    year, month, day, hour, minute, second, fraction, zone = parts
    date, time = f"{year:04}-{month:02}-{day:02}", f"{hour:02}:{minute:02}:{second:02}"
    name, numeric = MONTHS[month - 1] if 0 < month < 13 else "Foo", zone.replace(":", "").strip()
    return [
        f"{date}T{time}{fraction}Z", f"{date}T{time}{fraction}{zone}", f"{date} {time}{fraction}{zone}", date,
        f"{date}T{time[:5]}{zone}", f"{date} {time}{fraction} {numeric} IST m=+0.01",
        f"Mon, {day:02} {name} {year:04} {time} {numeric}", f"{day} {name} {year:04} {time[:5]} {numeric}",
        f"Mon {name} {day:02} {year:04} {time} GMT{numeric} (India Standard Time)",
    ]  # fmt: skip


def changed(of: tuple[str, int, str]) -> str:
    """Returns a text into which another one is inserted, or which it overwrites if the position is above 0."""
    text, at, by = of
    return text[: abs(at)] + by + text[abs(at) + (len(by) if at > 0 else 0) :]


written = parts.map(notations).flatmap(st.sampled_from)
odd = st.sampled_from(("0", "9", "00", " ", "-", "--", "+", ":", ".", "T", "Z", '"', 'Z"', "\\", "é", "\0", "\n", "٣"))
mutants = st.tuples(written, st.integers(-40, 40), odd).map(changed)
numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,23})([.][0-9]{1,12})?", fullmatch=True)
exponents = st.from_regex(r"-?[1-9]([.][0-9]{1,9})?[eE][+-]?[0-9]{1,2}", fullmatch=True)
texts = written | mutants | st.tuples(mutants, st.integers(-40, 40), odd).map(changed) | st.text() | numbers
clock_values = texts.map(as_json) | texts.map(json.dumps) | numbers | exponents


@pytest.fixture(scope="module")
def engine() -> Iterator[duckdb.DuckDBPyConnection]:
    with closing(connect(None, memory=200, threads=1)) as con:
        yield con


def read(
    engine: duckdb.DuckDBPyConnection, values: Sequence[str]
) -> list[tuple[str, datetime | None, datetime | None]]:
    """Returns each value, its time from the macro for the usual notation, and that from both macros together."""
    engine.register("given", pa.table({"v": pa.array(values, pa.string())}))
    clock = "coalesce(usual_clock(v), unusual_clocks([v])[1])"
    found = engine.execute(f"SELECT v, usual_clock(v)::TIMESTAMPTZ, {clock}::TIMESTAMPTZ FROM given").to_arrow_table()
    return [tuple(row.values()) for row in found.to_pylist()]


def check(engine: duckdb.DuckDBPyConnection, values: Sequence[str]) -> None:
    for value, usual, clock in read(engine, values):
        assert (value, clock) == (value, plainly(value))
        assert usual in (None, clock), value


@settings(max_examples=25, deadline=None, derandomize=True)
@given(values=st.lists(clock_values, min_size=20, max_size=80))
def test_any_text_is_read_as_the_reference_reads_it(engine: duckdb.DuckDBPyConnection, values: list[str]) -> None:
    """Nothing raises, and the macro for the usual notation returns the right time or null, never another time."""
    check(engine, values)


def test_the_known_cases_are_read_as_the_reference_reads_them(engine: duckdb.DuckDBPyConnection) -> None:
    check(engine, [*map(as_json, WIDTHS), *(text for text, _ in READ)])


def test_the_usual_notation_is_read_in_one_step(engine: duckdb.DuckDBPyConnection) -> None:
    given = [as_json(f"2019-03-04T12:00:07{fraction}Z") for fraction in ("", ".0", ".00", ".000", ".0000", ".000000")]
    assert read(engine, given) == [(value, NOON, NOON) for value in given]


def test_a_number_has_as_many_digits_as_its_notation_says(engine: duckdb.DuckDBPyConnection) -> None:
    assert [found for found in read(engine, list(map(as_json, WIDTHS))) if found[1:] != (None, None)] == []


# ---- absent clocks -------------------------------------------------------------------------------------------------


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


def test_without_a_time_of_receipt_the_next_best_clock_is_used() -> None:
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
    # Where the corrected time is outside the calendar, the sender's time stays.
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
