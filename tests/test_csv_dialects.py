"""CSV files in all dialects that the engine knows give the same rows at once and in parts (docs/contract/adopt.md)."""

import gzip
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb
import pytest

from autopilothq.errors import ArchiveError
from autopilothq.projection import engine
from autopilothq.sources.adopt import buffer, columns, csv_dialect, csv_rows, first_rows
from autopilothq.sources.adopt.csv_rows import Signs
from autopilothq.sources.adopt.files import TableFile

WAYS = ("at once", "in parts")
QUOTES = [('"', '"'), ('"', "\\"), ("'", "'"), ("'", "\\")]
TITLES = ["", "", "My export\n", "# it's of\n# two lines\n\n", '"My\nexport"\n']
BITS = [
    "a", "b c", " ", "é", "漢", "x'y", '3" wide', ";", ",", "|", "\t", "\n", "\r\n", "\r", "\\", "#", '{"a": "b, c"}',
    '"', "'", '""', "0012", "1.50", "\0",
]  # fmt: skip


class Made(NamedTuple):
    """The text of a CSV file, and its rows."""

    text: bytes
    rows: list[tuple[str | None, ...]]


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with engine.connect(None, 200, 1) as found:
        found.execute(columns.ADOPT_MACROS)
        yield found


def read(
    con: duckdb.DuckDBPyConnection, folder: Path, monkeypatch: pytest.MonkeyPatch, text: bytes, way: str
) -> list[tuple[str | None, ...]]:
    """Returns the rows of a CSV file."""
    monkeypatch.setattr(csv_dialect, "has_long_rows", lambda _: way == "in parts")
    for module in (csv_dialect, csv_rows):
        monkeypatch.setattr(module, "BYTES_AT_ONCE", 2_000)
    monkeypatch.setattr(buffer, "_CHUNK", 700)
    path = folder / "shop.csv"
    path.write_bytes(text)
    found = buffer.buffer_file(con, TableFile(str(path), "", 0, "shop", "csv", str(path)), 0, folder)
    return con.execute(f"""SELECT COLUMNS('^c:') FROM '{found.path}' ORDER BY seq""").fetchall()


def made(random_: random.Random, quote: str, escape: str, newline: str) -> Made:
    """Makes a CSV file in a random dialect with this quote, with all signs among its values."""
    delimiter, null = random_.choice(",;|\t"), random_.choice(["", "\\N"])
    every = random_.random() < 0.3
    values = [f"{escape}{quote}\n{quote}{delimiter}", *("".join(random_.choices(BITS, k=3)) for _ in range(150))]
    cells = [random_.choice([value, value, "", None]) for value in values]
    rows = [(f"i{number}", cell, f"v{number}") for number, cell in enumerate([values[0], *cells])]

    def spelt(value: str | None) -> str:
        if value is None or (value.isalnum() and not every):
            return null if value is None else value
        escaped = value.replace(escape, escape * 2) if escape != quote else value
        return f"{quote}{escaped.replace(quote, escape + quote)}{quote}"

    title = random_.choice(TITLES if quote == '"' else TITLES[:-1])
    lines = [*title.split("\n")[:-1], delimiter.join(("id", "n", "m"))]
    lines += [delimiter.join(map(spelt, row)) for row in rows]
    end = random_.choice(["", newline])
    return Made(random_.choice([b"", b"\xef\xbb\xbf"]) + (newline.join(lines) + end).encode(), list(rows))


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("quote", "escape"), QUOTES)
def test_a_file_has_the_same_rows_at_once_and_in_parts(
    con: duckdb.DuckDBPyConnection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quote: str,
    escape: str,
    newline: str,
) -> None:
    random_ = random.Random(f"{quote}{escape}{newline}")
    for _ in range(3):
        text, rows = made(random_, quote, escape, newline)
        for way in WAYS:
            assert read(con, tmp_path, monkeypatch, text, way) == rows, (way, text[:99])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("lines", "values"),
    [
        (["1,a", "2,'b'", "3,'tis", "4,'c', 'd"], None),
        (["1,a", "2,'b'", "3,c"], ["a", "'b'", "c"]),
        (["1,'a'", "2,'b'", "3,'c'"], ["a", "b", "c"]),
        (["1,a", "'2','b'"], ["a", "b"]),
        (["1,a", "2,'b,'"], ["a", "b,"]),
    ],
)
def test_apostrophes_are_quotes_only_if_a_column_or_the_number_of_values_needs_them(
    con: duckdb.DuckDBPyConnection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: list[str],
    values: list[str] | None,
    way: str,
) -> None:
    text = "\n".join(["id,x", *lines]).encode()
    if values is None:
        with pytest.raises(ArchiveError):
            read(con, tmp_path, monkeypatch, text, way)
    else:
        assert [value for _, value in read(con, tmp_path, monkeypatch, text, way)] == values


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("more", ["", '2,"c, d",e\n'])
def test_apostrophes_are_no_quotes_if_the_header_would_be_skipped(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str, way: str
) -> None:
    text = f"id,x,y\n1,\"D'Angelo, Inc.\",'q'\n{more}"
    assert read(con, tmp_path, monkeypatch, text.encode(), way)[0] == ("1", "D'Angelo, Inc.", "'q'")


ROWS = "id,x,y\n" + "1,a,b\n" * 40
RAGGED = {
    "My export\n\n" + ROWS + "id,x,y,z\n1,a,b,c\n": "row 44 has 4 values, but the header in row 3 has 3",
    ROWS + "2,a\n" + ROWS: "row 42 has 2 values, but the header in row 1 has 3",
    "id,x,y\n2\n" + ROWS: "row 2 has 1 value, but the header in row 1 has 3",
    ROWS + '2,"a\nb",c,d\n': "row 42 has 4 values, but the header in row 1 has 3",
    "id,x\n" + "1,a\n" * 30_000 + "1,a,b\n": r"CSV Error on Line: \d+ Expected Number of Columns: 2 Found: 3",
    ROWS + ROWS: "row 42 is a header like row 1; take the files apart that were put into this one",
    "My export\n\n" + ROWS + '\ufeff"id","y","z"\n1,a,b\n': "row 44 is a header like row 3",
    ROWS + "y,id,x\n1,a,b\n": "row 42 is a header like row 1",
    "id\n1\nid\n2\n": "row 3 is a header like row 1",
    ROWS + "2,\udcff,b\n": "Invalid unicode",
    ROWS + "2," + "a" * 2_000_000 + ",b\n": "Maximum line size of 2000000 bytes exceeded",
}


@pytest.mark.parametrize("way", WAYS)
def test_rows_that_differ_in_their_number_of_values_and_a_second_header_are_an_error(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Otherwise the engine would take a later row for the header, and lose all rows before it.

    The rows below a second header may have their values in other columns.
    """
    for text, why in RAGGED.items():
        with pytest.raises(ArchiveError, match=why):
            read(con, tmp_path, monkeypatch, text.encode(errors="surrogateescape"), way)


@pytest.mark.parametrize("way", WAYS)
def test_a_quote_within_a_value_may_come_behind_the_rows_that_show_the_signs(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    text = b"id,x\n" + b'1,"a"\n' * 400 + b'2,"b ""c"" d"\n'
    assert read(con, tmp_path, monkeypatch, text, way) == [*[("1", "a")] * 400, ("2", 'b "c" d')]


@pytest.mark.parametrize("way", WAYS)
def test_an_id_may_be_the_name_of_a_column(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    text = b'id,x,,y\nid,1,"",2\nx,y,,\n'
    assert read(con, tmp_path, monkeypatch, text, way) == [("id", "1", "", "2"), ("x", "y", None, None)]


@pytest.mark.parametrize("name", ["shop.csv.gz", "shop.json.gz", "shop.csv", "shop.json"])
def test_a_file_whose_text_is_blank_has_no_rows(con: duckdb.DuckDBPyConnection, tmp_path: Path, name: str) -> None:
    """Exporters leave such files, which look empty only once they are decompressed."""
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"\n")
    file = TableFile(str(path), "", 0, "shop", "json" if "json" in name else "csv", str(path))
    for found in (buffer.buffer_file(con, file, 0, tmp_path), first_rows.buffer_first_rows(con, file, 1, tmp_path)[0]):
        assert con.execute(f"FROM '{found.path}'").fetchall() == []


@pytest.mark.parametrize(
    ("signs", "text", "rows"),
    [
        (Signs(), b'a,"b\nc"\nd', [b'a,"b\nc"\n']),
        (Signs(), b'a,"b""\n"\n"c', [b'a,"b""\n"\n']),
        (Signs(), b'3" wide\n, "a\nb" \nc', [b'3" wide\n', b', "a\nb" \n']),
        (Signs(escape="\\"), b'"a\\"\n"\n"b\\\\"\n', [b'"a\\"\n"\n', b'"b\\\\"\n']),
        (Signs(escape=""), b'"a""\n"\n', [b'"a""\n"\n']),
        (Signs(quote="'", escape="'"), b"'a\n'\n\"b\n", [b"'a\n'\n", b'"b\n']),
        (Signs(quote="", escape=""), b'"a\nb"\n', [b'"a\n', b'b"\n']),
        (Signs(newline=r"\r"), b'a\n\r"b\r"\r', [b"a\n\r", b'"b\r"\r']),
        (Signs(newline=r"\r\n"), b"a\r\nb\r\n", [b"a\r\n", b"b\r\n"]),
        (Signs(delimiters=";"), b'a,"b\n;"c\n"\n', [b'a,"b\n', b';"c\n"\n']),
    ],
)
def test_rows_end_outside_of_quotes(signs: Signs, text: bytes, rows: Sequence[bytes]) -> None:
    ends = list(csv_rows.row_ends(text, signs))
    assert [text[start:end] for start, end in zip([0, *ends], ends, strict=False)] == rows
    assert csv_rows.last_row_end(text, signs) == (ends[-1] if ends else 0)


@pytest.mark.parametrize(
    ("chunks", "are_long"),
    [
        ([b"a" * 99], False),  # short files have room
        ([b"a" * 98 + b"\n"] * 2, False),
        ([b"a" * 99 + b"\n"] * 2, True),
        ([b"a" * 98 + b"\r"] * 2, False),
        ([b"a" * 99 + b"\r"] * 2, True),
        ([b'"' + b"\n" * 197 + b'"\n'], True),
        ([b"a" * 50, b"a" * 49 + b"\n", b"b\n" * 99], True),  # what follows is not looked at
    ],
)
def test_rows_are_long_if_the_first_ones_are(
    chunks: Sequence[bytes], are_long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, number in {"BYTES_AT_ONCE": 100, "VECTOR": 10, "LONG": 1_000}.items():
        monkeypatch.setattr(csv_rows, name, number)
    assert csv_rows.has_long_rows(lambda: chunks) is are_long
