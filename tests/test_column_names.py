"""Columns of files whose names differ only in case (docs/contract/adopt.md#columns-and-types)."""

from collections.abc import Callable, Iterator, Sequence
from json import dumps
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autopilothq.projection import engine
from autopilothq.sources.adopt import buffer, columns
from autopilothq.sources.adopt.column_names import own_names
from autopilothq.sources.adopt.files import FileFormat, TableFile

NAMES = ("id", "Foo", "foo", "FOO", "fOO", "id_1", "n_2", "{x}")


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with engine.connect(None, 200, 1) as found:
        found.execute(columns.ADOPT_MACROS)
        yield found


def value(name: str) -> str:
    """Returns the only value of a column."""
    return f"of {name}"


def parquet(path: Path, names: Sequence[str] = NAMES) -> None:
    pq.write_table(pa.table([[value(name)] for name in names], names=list(names)), path)


def csv(path: Path, names: Sequence[str] = NAMES) -> None:
    path.write_text("\n".join([",".join(names), ",".join(map(value, names))]))


def json(path: Path, names: Sequence[str] = NAMES) -> None:
    path.write_text(dumps({name: value(name) for name in names}))


@pytest.mark.parametrize(("form", "write"), [("parquet", parquet), ("csv", csv), ("json", json)])
def test_the_column_that_is_spelt_like_its_name_is_adopted(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, form: FileFormat, write: Callable[[Path], None]
) -> None:
    path = tmp_path / f"shop.{form}"
    write(path)
    found = buffer.buffer_file(con, TableFile(str(path), "", 0, "shop", form, str(path)), 0, tmp_path)
    cells = {name: f'"c:{name}"' for name in ("id", "foo", "id_1", "n_2", "x")}
    assert set(found.forms) == set(cells)
    cells |= {lost.name: f'"l:{index}"' for index, lost in enumerate(found.lost) if lost.reason == "same_column"}
    row = con.execute(f"SELECT {', '.join(cells.values())} FROM '{found.path}'").fetchone()
    values = [cell.strip('"') for cell in row or ()]
    assert values == list(map(value, ["id", "foo", "id_1", "n_2", "{x}", "FOO", "Foo", "fOO"]))
    assert list(cells)[5:] == ["FOO", "Foo", "fOO"]


def test_numbers_that_a_file_has_itself_stay() -> None:
    assert own_names(["a", "a_1", "A_2", "b_1"], lambda: ["a", "A", "a_1"], in_order=False) == {
        "a": "a", "a_1": "a_1", "A_2": "A", "b_1": "b_1",
    }  # fmt: skip
    assert own_names(["a", "a_1"], lambda: ["a", "a"]) == {"a": "a", "a_1": "a_1"}
    assert own_names(["a", "a_1", "column2"], lambda: ["a", "A", ""]) == {"a": "a", "a_1": "A", "column2": "column2"}
    keys = ["id", "a_1", "A", "a", "A_1", "A_2", ""]  # JSON keys
    read = ["id", "a_1", "A", "a_1_1", "A_1_2", "A_2", "C6"]
    assert own_names(read, lambda: keys, in_order=False) == dict(zip(read, keys, strict=True))
    assert own_names(["Foo", "foo_1"], list) == {"Foo": "Foo", "foo_1": "foo_1"}
    keys, read = ["FOO", "foo", "Foo"], ["Foo", "foo_1", "FOO_2"]  # which two threads have found in different orders
    assert own_names(read, lambda: keys, in_order=False) == {"Foo": "Foo", "foo_1": "foo", "FOO_2": "FOO"}
    assert own_names(["a", "b_1", "C2"], lambda: pytest.fail("no name may differ")) == {
        "a": "a",
        "b_1": "b_1",
        "C2": "C2",
    }


@pytest.mark.parametrize(("form", "write"), [("parquet", parquet), ("csv", csv), ("json", json)])
def test_numbers_of_a_file_and_of_the_engine_are_told_apart_by_their_order(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, form: FileFormat, write: Callable[..., None]
) -> None:
    path = tmp_path / f"shop.{form}"
    write(path, ("id", "Foo", "foo", "foo_1", "Foo_1", "n"))  # DuckDB calls these Foo, foo_1, foo_1_1, Foo_1_2
    found = buffer.buffer_file(con, TableFile(str(path), "", 0, "shop", form, str(path)), 0, tmp_path)
    row = con.execute(f"""SELECT "c:foo", "c:foo_1", "c:n", "l:0", "l:1" FROM '{found.path}'""").fetchone()
    assert [cell.strip('"') for cell in row or ()] == list(map(value, ["foo", "foo_1", "n", "Foo", "Foo_1"]))
    assert [lost.name for lost in found.lost if lost.reason == "same_column"] == ["Foo", "Foo_1"]
