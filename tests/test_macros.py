"""DuckDB macros turn JSON text into typed values, case by case (docs/contract/warehouse.md#values)."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pytest

from autopilothq.projection import LINES_PER_FILE, engine
from autopilothq.projection.types import ARRAY, BOOLEAN, FLOAT, INTEGER, TEXT, TIME_TEXT

Cases = dict[str | None, Any]
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - the engine's, which are UTC without saying so
AT = datetime(2019, 3, 4, 5, 6, 7, tzinfo=UTC)


def each(texts: Iterable[str | None], value: object = None) -> Cases:
    return dict.fromkeys(texts, value)


MOST, LEAST = 2**63 - 1, -(2**63)
MOMENTS: Cases = {
    **each(('"2019-03-04T05:06:07Z"', '"2019-03-04t05:06:07z"', '"2019-03-04 05:06:07Z"'), AT),
    **each(('"2019-03-04T05:06:07+00:00"', '"2019-03-04T10:36:07+05:30"', '"2019-03-03T05:07:07-23:59"'), AT),
    '"2019-03-04T05:06:07.5Z"': AT.replace(microsecond=500_000),
    '"2019-03-04T05:06:07.123456789-00:00"': AT.replace(microsecond=123_456),
    '"2019-03-04T23:59:59Z"': AT.replace(hour=23, minute=59, second=59),
    '"0001-01-01T00:00:00Z"': datetime(1, 1, 1, tzinfo=UTC),
    '"9999-12-31T23:59:59.999999Z"': datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC),
}
NO_MOMENTS = [
    '"2019-03-04T05:06:07"', '"2019-03-04T05:06Z"', '"2019-03-04"', '"2019-03-04T24:00:00Z"', '"2019-03-04T05:60:07Z"',
    '"2019-03-04T05:06:07.Z"', '"2019-03-04T05:06:07.1234567890Z"', '"2019-03-04T05:06:07+24:00"',
    '"2019-03-04T05:06:07+05:60"', '"2019-03-04T05:06:07+0530"', '"2019-02-30T05:06:07Z"', '"0000-01-01T00:00:00Z"',
    '"0001-01-01T00:00:00+00:01"', '"9999-12-31T23:59:59-00:01"', '"2019-03-04T05:06:07 UTC"', '"soon"', '""',
]  # fmt: skip
# The unit of a number depends on its length: seconds, milliseconds, microseconds or nanoseconds.
LENGTHS = {length: 10**6 if length < 12 else 10**3 if length < 15 else 1 for length in range(1, 18)}
CLOCKS: Cases = {
    **{
        f"1{'0' * (length - 1)}": EPOCH + timedelta(microseconds=10 ** (length - 1) * of)
        for length, of in LENGTHS.items()
    },
    **{f"1{'0' * length}": EPOCH + timedelta(microseconds=10 ** (length - 3)) for length in range(17, 21)},
    "-5": EPOCH - timedelta(seconds=5),
    "5.25": EPOCH + timedelta(seconds=5.25),
    "1551675967.1234567": EPOCH + timedelta(microseconds=1551675967_123457),
    "1551675967123.4567": EPOCH + timedelta(microseconds=1551675967_123457),
}
OTHERS = ["[1]", '{"a":1}', '"x"', '""', '"inf"', '"nan"', '" 5"', None]
CASES: dict[str, Cases] = {
    "blank_as_null(v)": {
        **each(("", " ", " \t\r\n", None)),
        **{text: text for text in ("a", " a", "!", "\t!", "\u00a0", "é")},
    },
    "as_text(v)": {
        '"a"': "a", '""': "", '"a\\"b"': 'a"b', '"\\"\\""': '""', '"\\u00e9"': "é", "5": "5", "1.50": "1.50",
        "true": "true", '["\\u00e9"]': '["\\u00e9"]', '"\\ud800"': None, None: None,
    },
    "as_bigint(v)": {
        "5": 5, "-5": -5, "0": 0, "-0": 0, f"{MOST}": MOST,
        f"{LEAST}": LEAST, f"{MOST + 1}": None, f"{LEAST - 1}": None,
        "3.0": 3, "-3.00": -3, "1e3": 1000, "1E3": 1000, "15e-1": None, "3.5": None, "0.0": 0, "0e5": 0, "1e-400": None,
        "123456789012345.0": 123456789012345, "1234567890123456.0": 1234567890123456, "1e15": 10**15, "1e+16": 10**16,
        f"{MOST}.0": MOST, f"{LEAST}.0": LEAST, f"{MOST + 1}.0": None, "9.223372036854775807E18": MOST,
        "1.0000000000000000001": None, "0.99999999999999999999": None, "1e-20": None,
        "9223372036854775806.5": None, "1e19": None, "1e400": None,
        f"1234567890123456.{'0' * 40}": 1234567890123456, "100000000000000000000e-2": 10**18,
        "0.000000000000000000000420038613296111678e38": None, f"3.{'0' * 40}": 3,  # the first is not an integer
        '"5"': 5, '"-5"': -5, f'"{MOST}"': MOST, f'"{MOST + 1}"': None, '"5.0"': None, '"05"': None, '"1e3"': None,
        **each(("true", *OTHERS)),
    },
    "as_double(v)": {
        "5": 5.0, "-5": -5.0, "1.5": 1.5, "1e3": 1000.0, "0": 0.0, "0.0": 0.0, "0e5": 0.0, "1.10": 1.1,
        "5e-324": 5e-324,
        "1e400": None, "-1e400": None, "1e-400": None, "9007199254740992": 2.0**53, "9007199254740993": None,
        "100000000000000000000": 1e20, "100000000000000000001": None, "9007199254740993.5": 9007199254740994.0,
        '"5"': 5.0, '"1.5"': 1.5, '"-0.1"': -0.1, '"1.50"': None, '"1e3"': None, '"9007199254740993"': None,
        '"1e400"': None, '"05"': None,
        **each(("true", *OTHERS)),
    },
    "as_bool(v)": {
        **each(("true", '"true"', "1", "1.0"), True),
        **each(("false", '"false"', "0", "0.0"), False),
        **each(("2", '"1"', '"True"', "-0", *OTHERS)),
    },
    "as_timestamp(v)": {**MOMENTS, **each((*NO_MOMENTS, "1551675967", "true", *OTHERS))},
    "as_moment(v)": {
        '"2019-03-04T05:06:07.500Z"': AT.replace(microsecond=500_000), '"2019-03-04T05:06:07Z"': AT,
        '"2019-03-04T05:06:07.000001Z"': AT.replace(microsecond=1),
        '"2019-03-04T05:06:07.5Z"': AT.replace(microsecond=500_000),
        **each(('"2019-03-04 05:06:07Z"', '"2019-03-04T05:06:07.0000001Z"', '"2019-3-4T05:06:07.00Z"', "5", None)),
    },
    "unusual_clock(v)": {**CLOCKS, **each(("1" * 22, "soon", None))},
    "type_bit(v)": {
        **each(MOMENTS, TIME_TEXT),
        **each((*NO_MOMENTS, '"5"', '"true"', f"{MOST + 1}", f"{LEAST - 1}", "9" * 40), TEXT),
        **each(("5", "-0", f"{MOST}", f"{LEAST}"), INTEGER),
        **each(("1.5", "5.0", "1e3"), FLOAT),
        **each(("true", "false"), BOOLEAN),
        **each(("[1]", '{"a":1}', "[]"), ARRAY),
    },
    # For text that DuckDB might read differently than it is spelt.
    "any_number_unquoted([v], '')": {
        **each(("1.10", "-1.10", "1e5", ".5", "0", "-0", "9.", f"{MOST}.5"), True),
        **each(("5", "-5", "12e", "1.x", "+1.5", "a.b", "-Infinity", "e5", "O", ":", "-", "", "Nan", None), False),
    },
    "any_number_unquoted([v, 'a', v], '[\"1.10\",0,1e5]')": {"1.10": False, "0": True, "1e5": True, "a": False},
    "any_json_may_change([v])": {
        **each(("0", "-0", "1.5", "-1.5", "1e5", "5.0"), True),
        **each(("5", "-5", "10", '"1.5"', "true", "[1.5]", "{}", "null", None), False),
    },
    "any_json_may_change(['5', v])": {"1.5": True, "5": False},
    "any_between([v, 'z'], 'b', 'd')": {"a": False, "b": True, "c": True, "cz": True, "d": False, None: False},
}  # fmt: skip


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with engine.connect(None, 200, 1) as found:
        yield found


@pytest.mark.parametrize("macro", CASES)
def test_a_macro_gives_what_the_contract_says(con: duckdb.DuckDBPyConnection, macro: str) -> None:
    cases = CASES[macro]
    rows = con.execute(f"SELECT v, {macro} FROM (SELECT unnest(?::VARCHAR[]) AS v)", [list(cases)]).fetchall()
    found = {text: value.astimezone(UTC) if getattr(value, "tzinfo", None) else value for text, value in rows}
    assert found == cases


def test_the_bits_of_a_column_are_those_of_all_its_values(con: duckdb.DuckDBPyConnection) -> None:
    bits = "SELECT type_bits(v) FROM (SELECT unnest(?::VARCHAR[]) AS v)"
    for values, found in (
        (["5", None, '"x"', "5"], INTEGER | TEXT), (["true", "[1]"], BOOLEAN | ARRAY), ([None], None), ([], None),
    ):  # fmt: skip
        assert con.execute(bits, [values]).fetchone() == (found,)


def test_a_lines_number_is_that_of_its_file_and_its_own(con: duckdb.DuckDBPyConnection) -> None:
    number = 3 * LINES_PER_FILE + 5
    assert con.execute("SELECT file_of(?::BIGINT), line_of(?::BIGINT)", [number, number]).fetchone() == (3, 5)
