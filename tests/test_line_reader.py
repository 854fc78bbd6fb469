"""DuckDB reads batch after batch with statements that are planned once."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autopilothq.projection import engine
from autopilothq.projection.line_reader import PLANS, LineReader


@pytest.fixture
def reader() -> LineReader:
    return LineReader(engine.connect(None, 200, 1))


def lines(*texts: bytes) -> pa.Table:
    text = pa.array(texts, pa.large_binary()).cast(pa.large_string(), safe=False)
    return pa.table({"seq": pa.array(range(len(texts)), pa.int64()), "text": text})


def shapes(*names: str) -> pa.Table:
    return pa.table({"shape": pa.array(names, pa.string()), "has_nulls": pa.array([False] * len(names), pa.bool_())})


def test_a_query_reads_the_lines_of_each_batch(reader: LineReader, tmp_path: Path) -> None:
    found = []
    for number, (texts, known) in enumerate([((b"a", b"b"), "b"), ((), "b"), ((b"c", b"b", b"\xff"), "c")]):
        reader.read(lines(*texts), shapes(known))
        path = tmp_path / f"{number}.parquet"
        reader.copy("SELECT seq, text FROM lines JOIN known_shapes ON text = shape", str(path))
        found.append(pq.read_table(path).to_pylist())
    assert found == [[{"seq": 1, "text": "b"}], [], [{"seq": 0, "text": "c"}]]
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["0.parquet", "1.parquet", "2.parquet"]
    [(planned,)] = reader.con.execute("SELECT statement FROM duckdb_prepared_statements()").fetchall()
    assert f"'{tmp_path}/0.parquet.made'" in planned


def test_any_number_of_queries_take_turns(reader: LineReader, tmp_path: Path) -> None:
    queries = [f"SELECT {number} AS number, text FROM lines" for number in range(PLANS + 2)]
    for turn, text in enumerate((b"x", b"y")):
        reader.read(lines(text))
        for number, query in enumerate(queries):
            path = tmp_path / f"{turn}-{number}.parquet"
            reader.copy(query, str(path))
            assert pq.read_table(path).to_pylist() == [{"number": number, "text": text.decode()}]
    (planned,) = reader.con.execute("SELECT count(*) FROM duckdb_prepared_statements()").fetchall()
    assert planned == (PLANS,)


def test_what_cannot_be_read_leaves_no_file_and_the_next_batch_is_read(reader: LineReader, tmp_path: Path) -> None:
    query = 'SELECT from_json(text, \'{"a": "BIGINT"}\').a AS a FROM lines'
    for number, text in enumerate((b'{"a": 1}', b"{", b'{"a": 2}')):
        reader.read(lines(text))
        path = tmp_path / f"{number}.parquet"
        if text == b"{":
            with pytest.raises(duckdb.InvalidInputException, match="Malformed JSON"):
                reader.copy(query, str(path))
            assert not [*tmp_path.glob(f"{number}.*")]
        else:
            reader.copy(query, str(path))
            assert pq.read_table(path).to_pylist() == [{"a": number // 2 + 1}]


def test_what_cannot_be_written_is_told_as_the_engine_tells_it(reader: LineReader, tmp_path: Path) -> None:
    reader.read(lines(b"a"))
    with pytest.raises(duckdb.IOException, match="Cannot open file"):
        reader.copy("SELECT text FROM lines", str(tmp_path / "gone" / "0.parquet"))
