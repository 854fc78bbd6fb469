"""DuckDB macros give values of adopted tables their types, case by case (docs/contract/adopt.md)."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autopilothq.errors import ArchiveError
from autopilothq.projection import engine
from autopilothq.projection.types import ARRAY, BOOLEAN, FLOAT, INTEGER, TEXT, TIME_TEXT
from autopilothq.sources.adopt import buffer, columns, first_rows
from autopilothq.sources.adopt.files import TableFile

Cases = dict[str | None, Any]


def each(texts: Iterable[str | None], value: object = None) -> Cases:
    return dict.fromkeys(texts, value)


TEN = datetime(2019, 3, 1, 10, tzinfo=UTC)
HALF = TEN.replace(microsecond=500_000)
EIGHTEEN = TEN.replace(hour=18)
FIRST, LAST = "0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00"
UNZONED: Cases = {
    "2019-03-01 10:00:00": TEN, "2019-03-01T10:00:00": TEN, "2019-03-01t10:00:00.5": HALF,
    "2019-03-01 10:00:00,5": HALF, "2019-03-01 10:00:00.500000999": HALF,
    "0001-01-01 00:00:00": datetime(1, 1, 1, tzinfo=UTC), "2019-03-01 23:00:00": TEN.replace(hour=23),
}  # fmt: skip
ZONED: Cases = {
    "2019-03-01 10:00:00Z": TEN, "2019-03-01 10:00:00 z": TEN, "2019-03-01 10:00:00 UTC": TEN,
    "2019-03-01 10:00:00.5 UTC": HALF, "2019-03-01 10:00:00+00": TEN, "2019-03-01T10:00:00+00:00": TEN,
    "2019-03-01 10:00:00.500 -0800": HALF.replace(hour=18), "2019-03-01 10:00:00 -08:00": EIGHTEEN,
    "2019-03-02 09:59:00+23:59": TEN,
}  # fmt: skip
NO_STAMPS = [
    "2019-03-01", "2019-03-01 10:00", "2019-03-01 24:00:00", "2019-03-01 10:60:00", "2019-03-01 10:00:60",
    "2019-03-01 10:00:00.", "2019-03-01 10:00:00.1234567890", "2019-03-01 10:00:00+24", "2019-03-01 10:00:00 +08:60",
    "2019-02-30 10:00:00", "0000-01-01 00:00:00", "0001-01-01 00:00:00+01", "9999-12-31 23:59:59-01",
    "2019-03-01 10:00:00 CET", "2019-03-01 10:00:00UTC", " 2019-03-01 10:00:00", "soon", "",
]  # fmt: skip
NO_NUMBERS = ["007", "-01", "1_000", "5 ", "1.", ".5", "1.e3", "0x1F", "+5"]  # DuckDB alone would cast these
NUMBERS = ["5", "-5", "5.0", "1e3", "1.5", "0", "-0", "9223372036854775808", "0.1"]
CASES: dict[str, Cases] = {
    "storable(t)": {"": "", "ab": "ab", "a\0b": None, None: None},
    "moment(t::TIMESTAMPTZ)": {
        FIRST: datetime(1, 1, 1, tzinfo=UTC),
        LAST: datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC),
        "0001-12-31 (BC) 23:59:59.999999+00": None,
        "10000-01-01 00:00:00+00": None,
        "infinity": None,
        "-infinity": None,
        None: None,
    },
    "finite(t::DOUBLE)": {"1.5": 1.5, "inf": None, "-inf": None, "nan": None, None: None},
    "number_json(t::DOUBLE)": {"1.5": "1.5", "inf": '"inf"', "nan": '"nan"', None: None},
    "storable_text(t)": {
        '"x"': "x", '"NaN"': "NaN", '"a\\nb"': "a\nb", "1.10": "1.10", "true": "true", '["inf",null]': '["inf",null]',
        r'["\u0000"]': r'["\u0000"]', r'["a\"NaN\\"]': r'["a\"NaN\\"]',
        **each((r'"a\u0000b"', "NaN", "-Infinity", "nan", "[NaN]", '{"a":-inf}', '["a\\"",NaN,""]', None)),
    },
    "moment_json(t::TIMESTAMPTZ)": {"2019-03-01 11:00:00.5+01": '"2019-03-01T10:00:00.500000Z"', None: None},
    "stamp(t)": {**UNZONED, **ZONED, **each(NO_STAMPS), None: None},
    "zoned_stamp(t)": {**ZONED, **each(UNZONED), **each(NO_STAMPS), None: None},
    "text_moment(t)": {
        **UNZONED,
        **ZONED,
        "2019-03-01": TEN.replace(hour=0),
        "1551434400": TEN,
        "1551434400500": HALF,
        "Fri, 01 Mar 2019 10:00:00 GMT": TEN,
        "0001-01-01 00:00:00+01": None,
        'say "soon"': None,
        None: None,
    },
    "loose_bool(t)": {
        **each(("t", "TRUE", "True", "1"), True),
        **each(("f", "FALSE", "False", "0"), False),
        **each(("yes", "", "2", None)),
    },
    "loose_bigint(t)": {
        **dict(zip(NUMBERS, [5, -5, 5, 1000, None, 0, 0, None, None], strict=True)),
        **each(("x", '"5"', "", *NO_NUMBERS, None)),
    },
    "loose_double(t)": {
        **dict(zip(NUMBERS, [5.0, -5.0, 5.0, 1000.0, 1.5, 0.0, -0.0, 2.0**63, 0.1], strict=True)),
        **each(("x", '"5"', "", "9007199254740993", "1e999", *NO_NUMBERS, None)),
    },
    "text_bit(t)": {
        **each(ZONED, TIME_TEXT),
        **each((*UNZONED, *NO_STAMPS, "5"), TEXT),
        None: None,
    },
    "loose_bit(t)": {
        **each((*ZONED, *UNZONED), TIME_TEXT),
        **each(("t", "TRUE", "F", "false"), BOOLEAN),
        **each(("0", "5", "-5", "9223372036854775807"), INTEGER),
        **each(("1.5", "0.1", "5.0", "1000000.0"), FLOAT),
        # As numbers they would lose digits.
        **each(("-0", "007", "1.50", "1e3", "9223372036854775808", "yes", *NO_STAMPS), TEXT),
        None: None,
    },
    "json_bit(t)": {
        '"2019-03-01T10:00:00Z"': TIME_TEXT,
        '"2019-03-01 10:00:00 UTC"': TIME_TEXT,
        **each(('"2019-03-01 10:00:00"', '"x"', '"5"', '"true"'), TEXT),
        "9223372036854775807": INTEGER,
        "9223372036854775808": TEXT,
        "1.5": FLOAT,
        "true": BOOLEAN,
        "[1]": ARRAY,
        '["NaN"]': ARRAY,
        '"NaN"': TEXT,
        **each(("NaN", "-Infinity", "[1,NaN]", None)),
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with engine.connect(None, 200, 1) as found:
        found.execute(columns.ADOPT_MACROS)
        yield found


@pytest.mark.parametrize("macro", CASES)
def test_values_are_typed(con: duckdb.DuckDBPyConnection, macro: str) -> None:
    cases = CASES[macro]
    rows = con.execute(f"SELECT t, {macro} FROM (SELECT unnest(?::VARCHAR[]) AS t)", [list(cases)]).fetchall()
    assert {text: value.astimezone(UTC) if isinstance(value, datetime) else value for text, value in rows} == cases


@pytest.mark.parametrize("form", ["text", "loose", "json", "bigint", "double"])
def test_numbers_are_times_only_in_the_timestamps_of_messages(
    con: duckdb.DuckDBPyConnection, form: columns.Form
) -> None:
    """Whatever type the column has."""
    number = {"bigint": "1551434400", "double": "1551434400::DOUBLE"}.get(form, "'1551434400'")
    cells = [columns.cell(form, "timestamp", number, of_messages) for of_messages in (True, False)]
    assert con.execute(f"SELECT {cells[0]} AT TIME ZONE 'UTC', {cells[1]}").fetchall() == [
        (TEN.replace(tzinfo=None), None)
    ]


def test_decimals_of_more_digits_than_the_engine_has_keep_them(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    least, wide = Decimal("-0.00000000000000000000000000000000000001"), pa.decimal256(50, 38)
    values: dict[str, pa.Array] = {
        "big": pa.array([Decimal("1.50").scaleb(40), None], pa.decimal256(44, 0)),
        "cost": pa.array([least, None], wide),
        "costs": pa.array([[Decimal(0), None], None], pa.list_(wide)),
        "deep": pa.array([{"a": [("k", least)], "at": HALF}, None],
                         pa.struct([("a", pa.map_(pa.string(), wide)), ("at", pa.timestamp("us", "UTC"))])),
        "price": pa.array([Decimal("1.50"), None], pa.decimal128(38, 2)),
    }  # fmt: skip
    path = tmp_path / "shop.parquet"
    pq.write_table(pa.table({"id": ["a", "b"], **values}), path)
    file = TableFile(str(path), "", 0, "shop", "parquet", str(path))
    assert buffer.local_source(con, path, file, tmp_path).types == {
        "id": "VARCHAR", "big": "DECIMAL(44,0)", "cost": "DECIMAL(50,38)", "costs": "JSON", "deep": "JSON",
        "price": "DECIMAL(38,2)",
    }  # fmt: skip
    found = buffer.buffer_file(con, file, 0, tmp_path)
    assert {column: form for column, form in found.forms.items() if form != "json"} == {"id": "text"}
    cells = ", ".join(f'"c:{name}"' for name in values)
    assert con.execute(f"SELECT {cells} FROM '{found.path}' ORDER BY seq").fetchall() == [
        (
            f"15{'0' * 39}",
            f"{least:f}",
            f"[0.{'0' * 38},null]",
            f'{{"a":{{"k":{least:f}}},"at":"2019-03-01T10:00:00.500000Z"}}',
            "1.50",
        ),
        (None,) * 5,
    ]
    path.write_bytes(b"PAR1" + bytes(99) + path.read_bytes()[103:])
    with pytest.raises(ArchiveError, match=r"Expected parquet in .*shop\.parquet, but it cannot be read"):
        buffer.buffer_file(con, file, 0, tmp_path)
    with pytest.raises(ArchiveError, match=r"Expected parquet in .*shop\.parquet, but it cannot be read"):
        first_rows.buffer_first_rows(con, file._replace(fs=fsspec.filesystem("file")), 0, tmp_path)


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        ("1.5::DECIMAL(4, 2)", "json", "1.50"),
        ("0.5::DECIMAL(2, 2)", "json", "0.50"),
        ("-0.5::DECIMAL(38, 38)", "json", f"-0.5{'0' * 36}"),
        ("12345678901234567890::DECIMAL(38, 0)", "json", "12345678901234567890"),
        ("[1.5::DECIMAL(4, 2), NULL]", "json", "[1.50,null]"),
        ("[0.5::DECIMAL(38, 38)]", "json", f"[0.5{'0' * 36}]"),
        ("[[0.5::DECIMAL(2, 2)]]", "json", "[[0.50]]"),
        ("[1234567890123456789.5::DECIMAL(20, 1)]", "json", "[1234567890123456789.5]"),
        ("{'DECIMAL(9,1) {}': 1.5::DECIMAL(4, 2)}", "json", '{"DECIMAL(9,1) {}":1.50}'),
        ("MAP {'a': 1.5::DECIMAL(4, 2)}", "json", '{"a":1.50}'),
        ("'DECIMAL(9,1)'::ENUM('DECIMAL(9,1)', ')\n')", "text", "DECIMAL(9,1)"),
        ("['a)']::ENUM('a)')[]", "json", '["a)"]'),
        ("DATE '2020-01-02'", "text", "2020-01-02"),
        ("[DATE '2020-01-02']", "json", '["2020-01-02"]'),
        ("1::UTINYINT", "bigint", "1"),
        ("18446744073709551615::UBIGINT", "json", "18446744073709551615"),
        ("1.5::FLOAT", "double", "1.5"),
        ("TIMESTAMP_NS '2020-01-02 03:04:05.123456789'", "timestamp", "2020-01-02 03:04:05.123456+00"),
        ("TIMETZ '10:00:00+01'", "json", '"10:00:00+01"'),
        ("'null'::JSON", "json", None),
    ],
)  # fmt: skip
def test_each_type_of_the_engine_has_a_form(
    con: duckdb.DuckDBPyConnection, value: str, form: str, text: str | None
) -> None:
    [(type_,)] = con.execute(f"SELECT typeof({value})").fetchall()
    found, template = columns.form_of(type_)
    made = con.execute(f"SELECT ({template.format('value')})::VARCHAR FROM (SELECT {value} AS value)").fetchall()
    assert (found, made) == (form, [(text,)])
