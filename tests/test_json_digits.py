"""Numbers of adopted JSON lines keep their digits, as those of messages do (docs/contract/adopt.md)."""

import gzip
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest

from autopilothq.errors import ArchiveError
from autopilothq.projection import engine
from autopilothq.segment.json_text import DECODER, to_json
from autopilothq.sources.adopt import buffer, columns
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
    """Each in a column of its own, of which there are many, and in one that other values share; keys differ in case."""
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


def test_a_line_that_cannot_be_read_for_its_digits_is_as_the_engine_reads_it(tmp_path: Path) -> None:
    """One that is nested too deep keeps its values; one that is no JSON is said."""
    path = tmp_path / "shop.json"
    file = TableFile(str(path), "", 0, "shop", "json", str(path))
    line = '{"id":"a","n":1.50}\n{"id":"b","n":1.5,"deep":%s}\n[1.50]'
    with engine.connect(None, 400, 1) as con:
        con.execute(columns.ADOPT_MACROS)
        path.write_text(line.removesuffix("\n[1.50]") % ("[" * 2000 + "1.50" + "]" * 2000))
        found = buffer.buffer_file(con, file, 0, tmp_path)
        rows = con.execute(f'SELECT "c:id", "c:n", strlen("c:deep") FROM \'{found.path}\' ORDER BY 1').fetchall()
        assert rows == [("a", "1.50", None), ("b", "1.5", 4003)]
        path.write_text(line % "")
        with pytest.raises(ArchiveError, match=r"shop\.json, but it cannot be read: .*Malformed JSON"):
            buffer.buffer_file(con, file, 0, tmp_path)
