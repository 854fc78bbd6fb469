"""What is told of a destination that cannot be used: two lines with its package, its extra and its settings."""

import json
from importlib.metadata import Distribution, distribution
from os import PathLike
from pathlib import Path
from typing import cast

import pytest

from autopilothq import extras
from calling import Call, errors

KNOWN = (
    "athena, bigquery, clickhouse, databricks, dremio, duckdb, ducklake, fabric, filesystem, motherduck, mssql,"
    " postgres, redshift, snowflake, sqlalchemy, synapse"
)


class Package(Distribution):
    """A package as it is installed somewhere."""

    def __init__(self, origin: object) -> None:
        self._origin = origin

    def read_text(self, filename: str) -> str | None:
        assert filename == "direct_url.json"
        return json.dumps(self._origin) if self._origin else None

    def locate_file(self, path: str | PathLike[str]) -> Path:
        raise NotImplementedError(path)


def test_the_command_to_install_fits_where_the_package_came_from(tmp_path: Path) -> None:
    url = (tmp_path / "a checkout").as_uri()
    for origin, said in (
        (None, "pip install 'dlt-autopilothq[s3]'"),
        ({"url": "https://host/x.whl", "archive_info": {}}, "pip install 'dlt-autopilothq[s3]'"),
        ({"url": url, "dir_info": {}}, f"pip install '{tmp_path}/a checkout[s3]'"),
        ({"url": url, "dir_info": {"editable": True}}, f"pip install -e '{tmp_path}/a checkout[s3]'"),
        ({"url": Path.cwd().as_uri(), "dir_info": {"editable": True}}, "pip install -e '.[s3]'"),
    ):
        assert extras.install_from(Package(origin), "s3") == said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--destination", "duckbd"],
            (
                "Error: There is no destination duckbd.\n"
                f"Did you mean duckdb? dlt has {KNOWN}. One that you named yourself needs"
                " destination.duckbd.destination_type."
            ),
        ),
        (
            ["--destination", "oracle"],
            (
                "Error: There is no destination oracle.\n"
                f"dlt has {KNOWN}. One that you named yourself needs destination.oracle.destination_type."
            ),
        ),
        (
            ["--destination", "my.own.thing"],
            f"Error: There is no destination my.own.thing.\ndlt has {KNOWN}.",
        ),
        (
            ["--destination", "postgres"],
            (
                "Error: Expected the setting destination.postgres.credentials, but there is none.\n"
                "Set it in .dlt/secrets.toml, by DESTINATION__POSTGRES__CREDENTIALS in the environment, or by"
                " --credentials."
            ),
        ),
        (
            ["--destination", "filesystem"],
            (
                "Error: Expected the setting destination.filesystem.bucket_url, but there is none.\n"
                "Set it in .dlt/secrets.toml, by DESTINATION__FILESYSTEM__BUCKET_URL in the environment, or by"
                " --credentials."
            ),
        ),
        (
            ["--destination", "snowflake"],
            (
                "Error: Expected the setting destination.snowflake.credentials, but there is none.\n"
                "Set it in .dlt/secrets.toml, by DESTINATION__SNOWFLAKE__CREDENTIALS in the environment, or by"
                " --credentials. Its package is missing too: {install[snowflake]}"
            ),
        ),
        (
            ["--destination", "snowflake", "--credentials", "snowflake://ada:SEKRET@host/db/warehouse"],
            (
                "Error: The destination snowflake needs the package snowflake, which is not installed.\n"
                "Install it: {install[snowflake]}"
            ),
        ),
        (
            ["--destination", "mssql"],
            (
                "Error: The destination mssql needs the package pyodbc, which is not installed.\n"
                "Install it: {install[mssql]}"
            ),
        ),
        (
            ["--destination", "lancedb"],
            (
                "Error: The destination lancedb needs the package lancedb, which is not installed.\n"
                "Install it: pip install 'lancedb'"
            ),
        ),
    ],
)
def test_two_lines_tell_what_to_do(call: Call, words: list[str], said: str) -> None:
    Path("archive.ndjson").write_text("{}\n")
    for extra in ("snowflake", "mssql"):
        said = said.replace(f"{{install[{extra}]}}", extras.install(extra))
    found = call("load", "archive", "archive.ndjson", *words)
    assert (found.status, errors(found)) == (1, said.splitlines())
    assert "SEKRET" not in found.err


def test_every_destination_has_its_extra() -> None:
    there = distribution(extras.PACKAGE).metadata.get_all("Provides-Extra")
    without = {"duckdb"}
    assert set(KNOWN.split(", ")) - without <= set(cast(list[str], there))
