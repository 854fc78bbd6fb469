"""Quotes of CSV files that no row has among the first, at which the engine looks (docs/contract/adopt.md)."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from autopilothq.projection import engine
from autopilothq.sources.adopt import buffer, columns, csv_dialect, csv_rows
from autopilothq.sources.adopt.files import TableFile

IN_QUOTES = {'"a"': "a", '"a,b"': "a,b", '"a\nb"': "a\nb", '"a ""b"" c"': 'a "b" c'}
VERBATIM = {'3" wide': '3" wide', 'a"': 'a"'}
CASES = {
    "quotes": ("x", IN_QUOTES),
    "quotes, of which the first has none within it": ('"x"', IN_QUOTES),
    "signs within values": ("x", VERBATIM),
    "values that begin with a sign": ("x", VERBATIM | {'"a" he said': '"a" he said'}),
}


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with engine.connect(None, 200, 1) as found:
        found.execute(columns.ADOPT_MACROS)
        yield found


@pytest.mark.parametrize(
    ("case", "way"),
    [(case, way) for case in CASES for way in ("at once", "in parts") if (case, way) != ([*CASES][-1], "in parts")],
)
def test_values_have_the_quotes_of_their_file_wherever_these_begin(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, way: str
) -> None:
    if way == "in parts":
        monkeypatch.setattr(csv_dialect, "has_long_rows", lambda _: True)
        for module in (csv_dialect, csv_rows):
            monkeypatch.setattr(module, "BYTES_AT_ONCE", 100_000)
        monkeypatch.setattr(buffer, "_CHUNK", 50_000)
    first, late = CASES[case]
    path = tmp_path / "shop.csv"
    path.write_text("".join(["id,n\n", f"q,{first}\n", *["r,\n"] * 20_600, *(f"z,{value}\n" for value in late), "z,1"]))
    found = buffer.buffer_file(con, TableFile(str(path), "", 0, "shop", "csv", str(path)), 0, tmp_path)
    rows = con.execute(f"""SELECT "c:n" FROM '{found.path}' WHERE "c:id" <> 'r' ORDER BY seq""").fetchall()
    assert [value for (value,) in rows] == ["x", *late.values(), "1"]


def test_quotes_are_the_usual_ones_if_there_is_no_memory_for_all_rows(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shop.csv"
    path.write_text("id,n\n1,a\n")
    sniffed = csv_dialect._sniffed

    def without_memory(con: duckdb.DuckDBPyConnection, path: str, more: str = "") -> csv_dialect.Dialect:
        if more:
            raise duckdb.OutOfMemoryException
        return sniffed(con, path)

    monkeypatch.setattr(csv_dialect, "_sniffed", without_memory)

    def quotes(*chunks: bytes) -> str:
        dialect, _ = csv_dialect.dialect_of(con, engine.literal(str(path)), lambda: chunks, tmp_path / "piece.csv")
        return dialect.signs.quote + dialect.signs.escape

    assert quotes(b"id,n\n1,", b'"a"\n') == '""'
    assert quotes(b"id,n\n1,", b'a"\n') == ""
