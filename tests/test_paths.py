"""Folders and files with odd names."""

from pathlib import Path

import duckdb
import pytest

from autopilothq.warehouse import values

ODD_NAMES = [
    "a[b]c", "[", "]", "[!a]", "[a-z]", "*", "**", "?", "%s", "it's", '"q"', "{}", "{a,b}", " ", "new\nline",
    "\\", "\\[x]", "\\*", "~", "$HOME", "a:b", "x=1", "%20", "#",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_file_is_named_where_a_glob_is_taken(name: str, tmp_path: Path) -> None:
    con = duckdb.connect()
    # Others, which the name would take in if it were a glob.
    for other in dict.fromkeys(["a", "b", "abc", "[a", "x", name]):
        folder = tmp_path / other
        folder.mkdir()
        con.sql("SELECT $other AS name", params={"other": other}).write_parquet(str(folder / other))
    file = values.glob_literal(str(tmp_path / name / name))
    assert con.sql(f"SELECT name FROM read_parquet({file})").fetchall() == [(name,)]
    assert con.sql(f"SELECT name FROM read_parquet([{file}, {file}])").fetchall() == [(name,)] * 2
