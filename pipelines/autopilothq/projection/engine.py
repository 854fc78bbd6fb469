"""How JSON text becomes a typed value, as DuckDB macros (spec: Values, Clocks), and the engine that has them."""

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import duckdb
import pyarrow as pa

from ..catalog import Type

COLUMN_MEMORY = 3  # MB that a column more may take

Item = TypeVar("Item")

# The kinds of JSON values, as bits: a column's kinds are the bits of all its values.
TEXT, TIME_TEXT, INTEGER, FLOAT, BOOLEAN, ARRAY = 1, 2, 4, 8, 16, 32

_OFFSET = r"[+-]([01]\d|2[0-3])"

# The named zones of RFC 822, in hours, and months; of zones longer names first, as one is replaced after the other.
_ZONES = {"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7}
_ZONES |= {"UTC": 0, "GMT": 0, "UT": 0, "Z": 0}
_ZONE = "|".join(_ZONES)
_NUMERIC_ZONES = functools.reduce(lambda t, zone: f"replace({t}, '{zone}', '{_ZONES[zone]:+03}00')", _ZONES, "t")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH = f"({'|'.join(_MONTHS)})"
_NUMERIC_MONTHS = functools.reduce(
    lambda t, month: f"replace({t}, '-{month}-', '-{_MONTHS.index(month) + 1:02}-')", _MONTHS, "t"
)
_DATE, _TIME = r"\d{4}-\d\d-\d\d", r"\d\d:\d\d(:\d\d([.,]\d{0,9})?)?"

# The notations of clocks. Days of the week tell nothing, so any word is taken for one.
_ISO_8601 = rf"{_DATE}([Tt ]{_TIME}( ?([Zz]|{_OFFSET}(:?[0-5]\d)?))?)?"
_RUBY = rf"{_DATE} {_TIME} ({_ZONE})"
_GO = rf"{_DATE} {_TIME} {_OFFSET}[0-5]\d [A-Z0-9+-]+( m=[+-][0-9.]+)?"
_RFC_1123 = rf"([A-Z][a-z]+, )?\d\d? {_MONTH} \d{{4}} \d\d:\d\d(:\d\d)? ({_OFFSET}[0-5]\d|{_ZONE})"  # and RFC 822
_JAVASCRIPT = rf"[A-Z][a-z]+ {_MONTH} \d\d \d{{4}} \d\d:\d\d:\d\d GMT{_OFFSET}[0-5]\d( \([^\\]*\))?"
_NO_SECOND = r"^([^:]*:\d\d)($|[^:])"
_COUNT = r"[+-]?(0|[1-9]\d*)(\.\d+)?"
# By how many of its digits a number's whole part has: how many more make tenths of microseconds of it, as what counts
# seconds has up to 11 of them, milliseconds up to 14, microseconds up to 17, nanoseconds more.
_SHIFTS = [7] * 11 + [4] * 3 + [1] * 3 + [-2] * 4

# Every macro takes JSON text (`"…"` for text) and gives null where the value cannot become the type without loss.
_MACROS = rf"""
CREATE MACRO blank_as_null(t) AS CASE WHEN t >= '!' THEN t WHEN regexp_full_match(t, '\s*') THEN NULL ELSE t END;
CREATE MACRO is_text(v) AS starts_with(v, '"');
CREATE MACRO as_text(v) AS CASE
    WHEN NOT is_text(v) THEN v
    WHEN contains(v, '\') THEN TRY(json_extract_string(v, '$'))
    ELSE trim(v, '"') END;
CREATE MACRO is_number(v) AS regexp_full_match(v, '-?[0-9].*');
CREATE MACRO is_whole(t) AS regexp_full_match(t, '-?(0|[1-9][0-9]*)');

-- 3.0 and 1e3 are whole; beyond 64 bits there is no integer. A float holds 15 digits for sure.
CREATE MACRO digits(v) AS length(trim(regexp_replace(regexp_extract(v, '^[^eE]*'), '[^0-9]', '', 'g'), '0'));
CREATE MACRO number_as_bigint(v) AS CASE
    WHEN is_whole(v) THEN try_cast(v AS BIGINT)
    WHEN digits(v) > 15 OR (try_cast(v AS DOUBLE) = 0 AND digits(v) > 0) THEN NULL
    WHEN abs(try_cast(v AS DOUBLE)) < 9007199254740992 AND try_cast(v AS DOUBLE) = trunc(try_cast(v AS DOUBLE))
    THEN try_cast(v AS DOUBLE)::BIGINT END;
CREATE MACRO as_bigint(v) AS CASE
    WHEN is_number(v) THEN number_as_bigint(v)
    WHEN is_text(v) AND is_whole(as_text(v)) THEN try_cast(as_text(v) AS BIGINT) END;
-- A whole number keeps all its digits or is not a float; what is not 0 does not become 0.
CREATE MACRO number_as_double(v) AS CASE
    WHEN isinf(try_cast(v AS DOUBLE)) THEN NULL
    WHEN try_cast(v AS DOUBLE) = 0 AND digits(v) > 0 THEN NULL
    WHEN is_whole(v) AND try_cast(try_cast(v AS DOUBLE) AS HUGEINT) IS DISTINCT FROM try_cast(v AS HUGEINT) THEN NULL
    ELSE try_cast(v AS DOUBLE) END;
CREATE MACRO as_double(v) AS CASE
    WHEN is_number(v) THEN number_as_double(v)
    WHEN is_text(v) AND is_number(as_text(v))
        AND (is_whole(as_text(v)) OR try_cast(as_text(v) AS DOUBLE)::VARCHAR = as_text(v))
    THEN number_as_double(as_text(v)) END;
CREATE MACRO as_bool(v) AS CASE
    WHEN v IN ('true', '"true"', '1', '1.0') THEN true
    WHEN v IN ('false', '"false"', '0', '0.0') THEN false END;

CREATE MACRO within_years(t) AS CASE
    WHEN t BETWEEN TIMESTAMP '0001-01-01' AND TIMESTAMP '9999-12-31 23:59:59.999999' THEN t END;
CREATE MACRO zoned(t) AS (try_cast(t AS TIMESTAMPTZ) AT TIME ZONE 'UTC');
-- Undeclared columns are times only where every text is an RFC 3339 date-time with a zone.
CREATE MACRO rfc3339(t) AS CASE
    WHEN regexp_full_match(t, '\d{{4}}-\d\d-\d\d[Tt ]([01]\d|2[0-3]):\d\d:\d\d(\.\d{{1,9}})?([Zz]|{_OFFSET}:[0-5]\d)')
    THEN within_years(zoned(upper(t))) END;
CREATE MACRO as_timestamp(v) AS CASE WHEN is_text(v) THEN rfc3339(as_text(v))::TIMESTAMPTZ END;

-- The four clocks are read in every notation that senders are known to use (spec: Clocks). This is the usual one, which
-- costs least. `strptime` takes numbers of fewer digits too, hence the lengths, at which all numbers have all digits.
CREATE MACRO usual_clock(v) AS within_years(CASE strlen(v)
    WHEN 26 THEN try_strptime(v, '"%Y-%m-%dT%H:%M:%S.%gZ"')
    WHEN 22 THEN try_strptime(v, '"%Y-%m-%dT%H:%M:%SZ"')
    ELSE CASE WHEN ends_with(v, 'Z"') AND strlen(v) < 30
        THEN try_strptime(replace(v, 'Z"', repeat('0', 29 - strlen(v)) || 'Z"'), '"%Y-%m-%dT%H:%M:%S.%fZ"') END END);

-- All others. An argument that is named twice is worked out twice, and planned twice, hence the chains and lambdas.
CREATE MACRO numeric_zone(t) AS {_NUMERIC_ZONES};
CREATE MACRO numeric_month(t) AS {_NUMERIC_MONTHS};
CREATE MACRO iso_8601(t) AS zoned(regexp_replace(
    regexp_replace(replace(upper(t), ',', '.'), ' ([Z+-])', '\1'), '{_NO_SECOND}', '\1:00\2'));
-- Numbers are rounded to a microsecond, because floats are a little off.
CREATE MACRO plain_number(t) AS CASE
    WHEN regexp_matches(t, '[eE]') THEN try_cast(t AS DECIMAL(38, 16))::VARCHAR ELSE t END;
CREATE MACRO microseconds(whole, fraction) AS try_cast(regexp_replace(left(
    whole || rpad(fraction, 7, '0'), strlen(whole) + {_SHIFTS}[strlen(ltrim(whole, '+-'))]), '(.)$', '.\1') AS BIGINT);
CREATE MACRO clock_number(t) AS make_timestamp(list_transform(
    [string_split(plain_number(t), '.')], lambda parts: microseconds(parts[1], coalesce(parts[2], '')))[1]);
CREATE MACRO unusual_clock(v) AS CASE
    WHEN regexp_full_match(v, '-?\d.*|"{_COUNT}"') THEN clock_number(trim(v, '"'))
    WHEN regexp_full_match(v, '"{_ISO_8601}"') THEN iso_8601(trim(v, '"'))
    WHEN regexp_full_match(v, '"{_RUBY}"') THEN iso_8601(numeric_zone(trim(v, '"')))
    WHEN regexp_full_match(v, '"{_GO}"') THEN iso_8601(regexp_replace(v, '^"(\S+ \S+ \S+).*$', '\1'))
    WHEN regexp_full_match(v, '"{_RFC_1123}"')
    THEN iso_8601(numeric_month(regexp_replace(
        numeric_zone(v), '^"(\S+, )?(\S+) (\S+) (\S+) (\S+) (\S+)"$', '\4-\3-\2 \5\6')))
    WHEN regexp_full_match(v, '"{_JAVASCRIPT}"')
    THEN iso_8601(numeric_month(regexp_replace(
        v, '^\S+ (\S+) (\S+) (\S+) (\S+) GMT(\S{{5}}).*$', '\3-\1-\2 \4\5'))) END;
CREATE MACRO clock(v) AS coalesce(usual_clock(v), list_filter([unusual_clock(v)], lambda t: within_years(t) = t)[1]);

-- A time that the origin has read, whatever notation it came in.
CREATE MACRO as_moment(v) AS usual_clock(v)::TIMESTAMPTZ;

CREATE MACRO snake_case(t) AS lower(array_to_string(regexp_extract_all(t, '[A-Z0-9]+[a-z0-9]*|[a-z0-9]+'), '_'));

CREATE MACRO kind_of(v) AS CASE
    WHEN is_text(v) THEN CASE WHEN rfc3339(as_text(v)) IS NULL THEN {TEXT} ELSE {TIME_TEXT} END
    WHEN is_whole(v) THEN {INTEGER}
    WHEN is_number(v) THEN {FLOAT}
    WHEN v IN ('true', 'false') THEN {BOOLEAN}
    ELSE {ARRAY} END;
CREATE MACRO value_kinds(v) AS bit_or(kind_of(v)) FILTER (v IS NOT NULL);
"""


def connect(scratch: str | None, memory: int, threads: int) -> duckdb.DuckDBPyConnection:
    """An engine with the macros; what exceeds `memory` goes into the folder `scratch`, where there is one."""
    con = duckdb.connect(":memory:")
    con.execute(f"SET memory_limit = '{memory}MB'")
    con.execute(f"SET threads = {threads}")
    con.execute("SET preserve_insertion_order = false")
    con.execute("SET TimeZone = 'UTC'")
    if scratch:
        con.execute(f"SET temp_directory = {literal(scratch + '/spill')}")
    con.execute(_MACROS)
    return con


def read_stored(con: duckdb.DuckDBPyConnection, batches: Iterable[pa.RecordBatch], sql: str) -> None:
    """Runs `sql` over `stored`, which streams the batches; nothing is run where there are none."""
    stream = iter(batches)
    first = next(stream, None)
    if first is not None:
        reader = pa.RecordBatchReader.from_batches(first.schema, itertools.chain([first], stream))
        con.register("stored", reader)
        con.execute(sql)
        con.unregister("stored")


def batched(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """The items in groups of at most `size`."""
    remaining = iter(items)
    while group := tuple(itertools.islice(remaining, size)):
        yield group


def printable(line: bytes) -> str:
    """The bytes of a line as text that any warehouse stores: what is not UTF-8, and NUL, as escapes."""
    return line.rstrip(b"\r\n").decode(errors="backslashreplace").replace("\0", "\\x00")


def error_line(error: BaseException) -> str:
    """What an error says, on one line of at most 300 characters, behind its kind."""
    words = " ".join(f"{type(error).__name__}: {error}".split())
    return printable(words.encode(errors="backslashreplace"))[:300]


def text_table(rows: Sequence[Mapping[str, object]], names: Iterable[str]) -> pa.Table:
    """Rows with these columns, all text but `seq`."""
    fields = [(name, pa.int64() if name == "seq" else pa.string()) for name in names]
    return pa.Table.from_pylist(rows, pa.schema(fields))


def type_of_kinds(kinds: int) -> Type:
    """The type of a column that holds values of these kinds.

    Example: `type_of_kinds(INTEGER | FLOAT) == "double"`; any other mixture is text.
    """
    pure: dict[int, Type] = {TIME_TEXT: "timestamp", INTEGER: "bigint", BOOLEAN: "bool"}
    return "double" if kinds in (FLOAT, INTEGER | FLOAT) else pure.get(kinds, "text")


def name(identifier: str) -> str:
    """A quoted SQL name."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A quoted SQL text."""
    return "'" + text.replace("'", "''") + "'"


def literals(texts: Iterable[str]) -> str:
    """A list of SQL texts."""
    return "[" + ", ".join(map(literal, texts)) + "]"


def glob_literal(path: str) -> str:
    """A quoted SQL text that names this one file where DuckDB takes a glob, as `read_parquet` does.

    Example: `glob_literal("a[1]/b.parquet") == "'a[[]1]/b.parquet'"`.
    """
    if any(sign in path for sign in "[*?"):
        # In a glob a backslash separates folders; no other range of signs has it within.
        path = path.translate({ord("["): "[[]", ord("*"): "[*]", ord("?"): "[?]", ord("\\"): "[[-]]"})
    return literal(path)
