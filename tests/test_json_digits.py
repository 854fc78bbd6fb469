"""Numbers in adopted JSON lines keep their digits, like those in messages (docs/contract/adopt.md)."""

import gzip
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path

import pytest

from autopilothq.errors import ArchiveError, NotSupported
from autopilothq.projection import engine
from autopilothq.segment.json_text import DECODER, to_json
from autopilothq.sources.adopt import buffer, columns, csv_dialect, csv_rows, first_rows, in_parts, json_digits
from autopilothq.sources.adopt.files import TableFile

NUMBERS = [
    "0", "-0", "-0.0", "0.00", "5", "5.0", "-1.5", "1.50", "0.1234567890123456789012", "0.30000000000000004",
    "123456789012345.25", "1234567890123456.5", "12345678901234567.5", "100000000000000000.0", "1e2", "-1E+2", "1.5e-7",
    "0.0001", "0.00001", "1e400", "1e-400", "18446744073709551616", "-12345678901234567890123", "NaN", "-Infinity",
]  # fmt: skip
VALUES = [
    *NUMBERS, *(f"[{number}]" for number in NUMBERS), *(f'{{"a" : [true, {number} ,"x"]}}' for number in NUMBERS),
    '"1.50"', '", 1.50,"', '["1.50"]', r'[1.50,"\u0000\u001f\"\\é\ud83d\ude00",null]', "null", "[]", "true",
]  # fmt: skip


@pytest.mark.parametrize(("suffix", "pack"), [(".json", bytes), (".json.gz", gzip.compress)])
def test_values_of_json_lines_are_those_of_the_text(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each value is tried in its own column, of which there are many, and in a shared one; keys differ only in case."""
    monkeypatch.setattr(buffer, "_CHUNK", 100)
    endings = cycle(["}\n", " }\r\n", "}\n\n"])
    texts = [
        f'{{"id":"{number}","own{number}":{value},"Shared": {value},"shared":{value}{next(endings)}'
        for number, value in enumerate(VALUES)
    ]
    path = tmp_path / f"shop{suffix}"
    path.write_bytes(pack("".join(texts).rstrip().encode()))
    with engine.connect(None, 400, 1) as con:
        con.execute(columns.ADOPT_MACROS)
        found = buffer.buffer_file(con, TableFile(str(path), "", 0, "shop", "json", str(path)), 0, tmp_path)
        own = ", ".join(f'"c:own{number}"' for number in range(len(VALUES)))
        rows = con.execute(
            f'SELECT "c:id"::INT, coalesce({own}), "c:shared", "l:0" FROM \'{found.path}\' ORDER BY 1'
        ).fetchall()
    expected = [None if value == "null" else to_json(DECODER.decode(value)) for value in VALUES]
    assert rows == [(number, text, text, text) for number, text in enumerate(expected)]
    assert set(found.forms) == {"id", "shared", *(f"own{number}" for number in range(len(VALUES)))}
    assert not list(tmp_path.rglob("*digits*"))


def test_more_columns_than_the_engine_takes_for_keys_of_a_map_are_columns(tmp_path: Path) -> None:
    path = tmp_path / "shop.json"
    path.write_text("".join(f'{{"id":"{number}","c{number}":1}}\n' for number in range(250)))
    with engine.connect(None, 400, 1) as con:
        con.execute(columns.ADOPT_MACROS)
        found = buffer.buffer_file(con, TableFile(str(path), "", 0, "shop", "json", str(path)), 0, tmp_path)
    assert set(found.forms) == {"id", *(f"c{number}" for number in range(250))}


@pytest.mark.parametrize("number", ["1.50", "1"])
@pytest.mark.parametrize("marks", [("", ""), ("\ufeff", ""), ("", "\ufeff"), ("\ufeff\ufeff", "\ufeff\ufeff")])
def test_lines_that_begin_with_byte_order_marks_keep_their_values(
    tmp_path: Path, marks: tuple[str, str], number: str
) -> None:
    first, second = marks
    assert _adopted(tmp_path, f'{first}{{"id":"a","n":{number},"t":"\ufeff"}}\n{second}{{"id":"b"}}\n') == [
        ("a", number, '"\ufeff"'), ("b", None, None),
    ]  # fmt: skip


def test_a_table_with_more_columns_than_any_needs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB would take minutes, and a gigabyte for a thousand columns."""
    monkeypatch.setattr(buffer, "MAX_KEYS", 3)
    line = '{"id":"a","n":1,"t":2}\n'
    assert _adopted(tmp_path, line) == [("a", "1", "2")]
    with pytest.raises(NotSupported, match=r"^Expected at most 3 columns in shop, but there are 4\.\nLeave that table"):
        _adopted(tmp_path, line + '{"id":"b","u":3}\n')


def test_a_key_like_the_name_of_a_column_of_digits_is_a_column(tmp_path: Path) -> None:
    assert _adopted(tmp_path, '{"id":"a","n":1.50}\n{"id":"b","digits:0":"2.50"}\n') == [
        ("a", "1.50", None), ("b", None, '"2.50"'),
    ]  # fmt: skip


def test_a_copy_has_whole_lines_without_byte_order_marks_wherever_the_text_is_cut(tmp_path: Path) -> None:
    text, copy = '{"a":1}\n\n\ufeff{"a":"é"}\n{"a":"longer"}'.encode(), tmp_path / "copy.json"
    for size in range(1, len(text) + 1):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        assert json_digits.copied_with_digits(partial(iter, pieces), copy) == {}
        assert (size, copy.read_text()) == (size, '{"a":1}\n\n{"a":"é"}\n{"a":"longer"}')
        copy.unlink()


def test_a_line_is_as_deep_as_that_of_an_archive(tmp_path: Path) -> None:
    deep = "[" * 248 + "{}" + "]" * 248
    line = '{"id":"a","n":1.50,"t":%s}\n'
    assert _adopted(tmp_path, line % f"[{deep[1:-1]}]") == [("a", "1.50", deep)]
    text = f'"{"[" * 300}"'
    assert _adopted(tmp_path, line % text) == [("a", "1.50", text)]


DEEP = "line 3 is nested too deeply to be read: more than 250 objects or arrays in another; take that line out"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f'{{"id":"b","t":{"[" * 250}1{"]" * 250}}}', DEEP),
        ('{"a":' * 30_000 + "1" + "}" * 30_000, DEEP),
        ("[" * 30_000, DEEP),
        ('"' + "x" * (1 << 20), "line 3 is longer than 1 MB; each line must be one object"),
        ('{"id":"c","n":1.50,', "line 3 is not JSON: Expecting property name enclosed in double quotes"),
        ('{"id":"c","n":nan}\n\xff', "line 4 is not JSON: Expecting value"),
        ('{"id":"c","n":1.50}\n{"id":"d","n":1,"n":2}', 'line 4 repeats the key "n"'),
        ('{"id":"c","t":", ]","n":1.50 , }', "line 3 is not JSON: it has a comma before the end of an object or array"),
        ('{"id":"na"}\n{"id"', "line 4 is not JSON: Expecting ':' delimiter"),
        ('["na","nb"]\n{"id"', "line 3 is JSON, but not an object"),
        ('{"id":"b"}\n[{"id":"c"}]', "line 4 is JSON, but not an object"),
        ('{"id":"b"}\n"c"', "line 4 is JSON, but not an object"),
        (' null\r\n{"id":"b"}', "line 3 is JSON, but not an object"),
        ('{"id":"c","t":[1,]}\n', "line 3 is not JSON: it has a comma before the end of an object or array"),
    ],
)
def test_a_line_that_the_engine_cannot_read_is_said(
    tmp_path: Path, line: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tens of thousands of levels would crash DuckDB and with it the process."""
    monkeypatch.setattr(in_parts, "LONGEST_LINE", 1 << 20)
    with pytest.raises(ArchiveError) as raised:
        _adopted(tmp_path, '{"id":"a","n":1}\n\n' + line)
    [first, second] = str(raised.value).splitlines()
    assert f"Expected json in {tmp_path}/shop.json, but it cannot be read: " in first
    assert said in first
    assert second == "Export it again, or leave it out."


def test_the_first_rows_of_a_file_without_line_ends_are_not_searched_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_parts, "LONGEST_LINE", 1 << 20)
    path = tmp_path / "shop.json"
    path.write_bytes(b'{"id":"a"}' * 200_000)
    with engine.connect(None, 400, 1) as con, pytest.raises(ArchiveError, match="line 1 is longer than 1 MB"):
        first_rows.buffer_first_rows(con, TableFile(str(path), "", 0, "shop", "json", str(path)), 0, tmp_path)


def test_a_comma_within_a_text_ends_no_object(tmp_path: Path) -> None:
    line = r'{"id":"a","n":nan,"t":"x, ] \" ,}"}'
    assert _adopted(tmp_path, line) == [("a", "nan", r'"x, ] \" ,}"')]


def test_an_empty_key_is_not_taken_for_a_column_that_the_engine_names(tmp_path: Path) -> None:
    """Its values go to `_discards`, and a column that really has DuckDB's name for it stays."""
    found, cells = _buffered(tmp_path, '{"id":"a","":5.0,"c3":1}\n{"id":"b","":7}')
    assert [(column.name, column.reason) for column in found.lost] == [("", "no_column"), ("id", "not_text")]
    assert cells == [{"seq": 1, "c:id": "a", "c:c3": "1", "l:0": "5.0", "l:1": None},
                     {"seq": 2, "c:id": "b", "c:c3": None, "l:0": "7", "l:1": None}]  # fmt: skip
    found, cells = _buffered(tmp_path, '{"id":"a","C1":5}')
    assert cells == [{"seq": 1, "c:id": "a", "c:c1": "5", "l:0": None}]


def test_a_csv_file_without_line_ends_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_parts, "LONGEST_LINE", 4 << 20)
    for module in (csv_dialect, csv_rows):
        monkeypatch.setattr(module, "BYTES_AT_ONCE", 1 << 20)
    path = tmp_path / "shop.csv"
    path.write_bytes(b"id," * 3_000_000)
    file, said = TableFile(str(path), "", 0, "shop", "csv", str(path)), "a row is longer than 4 MB; check its line ends"
    with engine.connect(None, 400, 1) as con:
        with pytest.raises(ArchiveError, match=said):
            first_rows.buffer_first_rows(con, file, 0, tmp_path)
        with pytest.raises(ArchiveError, match=said):
            buffer.buffer_file(con, file, 0, tmp_path)


def _buffered(folder: Path, text: str) -> tuple[buffer.BufferedRows, list[dict[str, object]]]:
    """Returns the buffered rows of a file of JSON lines, and their cells by name."""
    path = folder / "shop.json"
    path.write_text(text)
    with engine.connect(None, 400, 1) as con:
        con.execute(columns.ADOPT_MACROS)
        found = buffer.buffer_file(con, TableFile(str(path), "", 0, "shop", "json", str(path)), 0, folder)
        return found, con.execute(f"FROM '{found.path}' ORDER BY seq").to_arrow_table().to_pylist()


def _adopted(folder: Path, text: str) -> list[tuple[str | None, ...]]:
    """Returns the id and the values of n and t, or of digits:0, in each row of a file of JSON lines."""
    path = folder / "shop.json"
    path.write_text(text)
    with engine.connect(None, 400, 1) as con:
        con.execute(columns.ADOPT_MACROS)
        found = buffer.buffer_file(con, TableFile(str(path), "", 0, "shop", "json", str(path)), 0, folder)
        other = '"c:t"' if "t" in found.forms else '"c:digits_0"'
        return con.execute(f'SELECT "c:id", "c:n"::VARCHAR, {other} FROM \'{found.path}\' ORDER BY 1').fetchall()
