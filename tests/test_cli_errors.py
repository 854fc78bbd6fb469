"""What the command refuses, and the exact error texts."""

import struct
import sys
from contextlib import suppress
from functools import reduce
from operator import xor
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pytest

import stock
from autopilothq.cli import cli
from autopilothq.errors import NotSupported
from autopilothq.sources.archive import batches
from autopilothq.warehouses.dataset import check_dataset_name, open_dataset
from calling import GOOD, Call, errors
from full_disk import files_up_to

EMPTY = "Expected a value, but got an empty text. For the default leave the option out."
ENGINES = "processes:8, dask:tcp://scheduler:8786 or ray:auto"
POSTGRES_URL = "postgresql://user@host:port/database"
AMBIGUOUS = (
    "Error: The DuckDB file autopilothq.duckdb is named like the dataset autopilothq,"
    " and DuckDB cannot tell them apart."
)


@pytest.mark.parametrize("command", [("load", "archive", "archive.ndjson"), ("status",)])
@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0" + bytes(5_000), None])
def test_a_file_that_is_no_duckdb_database(call: Call, command: tuple[str, ...], content: bytes | None) -> None:
    Path("archive.ndjson").write_text(GOOD)
    duckdb.connect("odd.duckdb").close()
    file = Path("odd.duckdb").absolute()
    if content is None:
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(content or file.read_bytes()[:5_000])
    said = call(*command, "--credentials", "odd.duckdb")
    first, advice = said.err.strip().splitlines()[-2:]
    assert said.status == 1
    assert first.startswith(
        f"Error: Expected a DuckDB file at {file}, but DuckDB cannot read what is there: IO Error: "
    )
    assert "credentials" not in first
    assert advice == (
        "Name another file (--credentials), or put the file back from a backup. Without a backup, move it away: the"
        " next load makes a new one from all files, but without the suppression list, so deleted persons may come back."
    )


@pytest.mark.parametrize("command", [("status",), ("load", "archive", "archive.ndjson")])
@pytest.mark.parametrize("name", ["events.ndjson", "events.csv"])
def test_a_file_of_data_instead_of_a_duckdb_file(call: Call, command: tuple[str, ...], name: str) -> None:
    """DuckDB would open it as a database in memory, and the load would be lost when the program ends."""
    Path("archive.ndjson").write_text(GOOD)
    Path(name).write_text('{"a":1}\n')
    said = call(*command, "--credentials", name)
    assert said.status == 1
    first, advice = said.err.strip().splitlines()[-2:]
    assert first == (
        f"Error: Expected a DuckDB file at {Path(name).absolute()}, but DuckDB takes it for a file of data, because of"
        " its name."
    )
    assert advice == "Name another file, such as --credentials autopilot.duckdb. Nothing was written to this one."
    assert Path(name).read_text() == '{"a":1}\n'


def test_a_file_of_another_version_of_duckdb(call: Call) -> None:
    """The message must not say that it is damaged or should be moved away."""
    duckdb.connect("new.duckdb").close()
    file = Path("new.duckdb").absolute()
    content = bytearray(file.read_bytes())
    content[12] = 200  # the file's version
    words = struct.unpack("<511Q", content[8:4096])
    content[:8] = struct.pack("<Q", reduce(xor, (word * 0xBF58476D1CE4E5B9 % 2**64 for word in words), 5381))
    file.write_bytes(content)
    said = call("status", "--credentials", "new.duckdb")
    first, advice = said.err.strip().splitlines()[-2:]
    assert said.status == 1
    assert first.startswith(
        f"Error: Expected a DuckDB file at {file}, but DuckDB cannot read what is there: IO Error: Trying to read a"
        " database file with version number 200, but we can only read versions between "
    )
    assert advice == "Name another file (--credentials), or install the DuckDB that wrote it: pip install -U duckdb"


def test_a_folder_that_is_not_there_is_not_made(call: Call) -> None:
    Path("archive.ndjson").write_text(GOOD)
    said = call("load", "archive", "archive.ndjson", "--credentials", "no/such/autopilot.duckdb")
    assert (said.status, errors(said)) == (
        1,
        [
            f"Error: Expected a folder {Path.cwd()}/no/such for the DuckDB file, but there is none.",
            "Make it (mkdir -p), or name a file elsewhere: --credentials /data/other.duckdb",
        ],
    )
    assert not Path("no").exists()


@pytest.mark.parametrize("url", ["postgres//u:SEKRET@h/db", "postgresql://u:SEK@RET@127.0.0.1:9/db"])
def test_a_password_is_never_printed(call: Call, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("archive.ndjson").write_text(GOOD)
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", url)
    said = call("load", "archive", "archive.ndjson", "--destination", "postgres")
    assert said.status == 1
    assert "SEK" not in said.out + said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Error: Which archive? Name a URL, or set sources.autopilothq.archive_url in dlt's configuration."),
        (
            ("a", "--since", "2019-02-30"),
            "Error: Invalid value for '--since': Expected a day such as 2019-03-01, but got '2019-02-30'.",
        ),
        (
            ("a", "--since", "2019-03-02", "--until", "2019-03-01"),
            "Error: Invalid value for --until: Expected a later time than --since 2019-03-02, but got 2019-03-01.",
        ),
        (("a", "--max-rejects", "-1"), "Error: Invalid value for '--max-rejects': -1 is not in the range x>=0."),
        (("a", "--max-rejects", "x"), "Error: Invalid value for '--max-rejects': 'x' is not a valid whole number."),
        *(
            (
                ("a", option, ""),
                f"Error: Invalid value for '{option}': {EMPTY}",
            )
            for option in (
                "--credentials",
                "--dataset",
                "--destination",
                "--books-dataset",
                "--source-id",
                "--since",
                "--until",
            )
        ),
        (
            ("a", "--engine", "proceses:8"),
            f"Error: Invalid value for --engine: Expected an engine like {ENGINES}, but got 'proceses:8'.",
        ),
    ],
)
def test_wrong_arguments(call: Call, words: tuple[str, ...], message: str) -> None:
    said = call("load", "archive", *words)
    assert (said.status, errors(said)[-1]) == (2, message)


EMPTY_PATH = "Expected a path, but got an empty text. The current folder is a dot: ."


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        (("sample", ""), "FOLDER", EMPTY_PATH),
        (("receive", " "), "FOLDER", EMPTY_PATH),
        (("receive", "", "--compact"), "FOLDER", EMPTY_PATH),
        (("status", "--received", ""), "--received", EMPTY_PATH),
        (("report", "--output", ""), "--output", EMPTY_PATH),
        (("receive", "a", "--upload", ""), "--upload", EMPTY),
        (("load", "archive", "a", "--engine", "processes:1", "--work-url", ""), "--work-url", EMPTY),
        (("load", "profiles", "--people", ""), "--people", EMPTY),
        (("load", "profiles", "--space", ""), "--space", EMPTY),
        (("load", "profiles", "--source-id", ""), "--source-id", EMPTY),
        (("load", "ortto", "--people", ""), "--people", EMPTY),
        (("adopt", "--from", ""), "--from", EMPTY),
        (("forward", "a", "--requests-per-second", "0"), "--requests-per-second", "0.0 is not in the range x>0."),
    ],
)
def test_an_empty_path_is_no_folder(call: Call, words: tuple[str, ...], name: str, expected: str) -> None:
    """It is usually an unset shell variable, and must not be taken for the current folder."""
    said = call(*words)
    assert (said.status, errors(said)[-1]) == (2, f"Error: Invalid value for '{name}': {expected}")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("nowhere",),
            ["Error: Expected a file or a folder at nowhere, but nothing is there.", "Check the path's spelling."],
        ),
        (("",), ["Error: Expected a path or a URL, but got an empty text.", "The current folder is a dot: ."]),
        (
            ("a.ndjson", "--destination", "postgres", "--credentials", "warehouse"),
            [
                f"Error: Expected a URL like {POSTGRES_URL} as credentials, but got something else.",
                "Correct --credentials, or the setting in .dlt/secrets.toml or the environment.",
            ],
        ),
        (
            ("a.ndjson", "--credentials", "autopilothq.duckdb"),
            [
                AMBIGUOUS,
                "Name another file (--credentials other.duckdb) or another dataset (--dataset other).",
            ],
        ),
        (("s3://",), ["Error: Expected a bucket in a URL such as s3://bucket/folder, but got s3://."]),
        (
            ("a.ndjson", "--destination", "postgres", "--credentials", "mysql://me:s3cret@127.0.0.1:1/db"),
            [
                f"Error: Expected the credentials of postgres as a URL like {POSTGRES_URL}, but it begins with mysql://.",
                "Correct it, or name that kind of database by --destination.",
            ],
        ),
        (
            ("a.ndjson", "--destination", "redshift", "--credentials", "postgres://me:s3cret@127.0.0.1:65536/db"),
            [
                'Error: invalid port number: "65536"',
                "Correct the host and the port in the credentials, start that server, or open the network to it.",
            ],
        ),
        (
            ("ftp://me:s3cret@127.0.0.1:1/x",),
            [
                "Error: Expected to connect to ftp://***@127.0.0.1:1/x, but got [Errno 111] Connection refused.",
                "Check its spelling, the server and the network.",
            ],
        ),
        (
            ("s3://no-such-bucket/x",),
            [
                "Error: Expected credentials for s3://no-such-bucket/x, but there are none.",
                "Put [sources.autopilothq.credentials] into .dlt/secrets.toml, or sign in to the cloud in its own way.",
            ],
        ),
    ],
)
def test_errors_say_what_to_do(call: Call, words: tuple[str, ...], message: list[str]) -> None:
    Path("a.ndjson").write_text(GOOD)
    said = call("load", "archive", *words)
    assert (said.status, errors(said)) == (1, message)


@pytest.mark.parametrize(
    ("kind", "option", "name"),
    [
        ("duckdb", "--dataset", "information_schema"),
        ("duckdb", "--dataset", "PG_Catalog"),
        ("duckdb", "--books-dataset", "temp"),
        ("duckdb", "--dataset", "system"),
        ("postgres", "--dataset", "pg_mine"),
        ("mssql", "--dataset", "INFORMATION_SCHEMA"),
    ],
)
def test_a_schema_of_the_databases_own_is_no_dataset(call: Call, kind: str, option: str, name: str) -> None:
    Path("a.ndjson").write_text(GOOD)
    for words in (("load", "archive", "a.ndjson"), ("status",)):
        said = call(*words, "--destination", kind, option, name)
        own = f"Error: Expected a dataset of your own, but {kind} has {name} for its own tables."
        assert (said.status, errors(said)) == (1, [own, f"Name another: {option}"])
    assert [path.name for path in Path().iterdir()] == ["a.ndjson"]


def test_a_pipeline_of_your_own_has_no_schema_of_the_databases_own() -> None:
    pipeline = dlt.pipeline("own", destination=stock.duckdb(duckdb.connect()), dataset_name="pg_catalog")
    with pytest.raises(NotSupported, match="Expected a dataset of your own, but duckdb has pg_catalog for its own tab"):
        check_dataset_name(open_dataset(pipeline, dlt.Schema("own")))


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["load", "--help"]])
def test_help_that_finds_no_room_is_an_error(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = open("/dev/full", "w", buffering=1)  # noqa: SIM115 - closing it fails, too
    monkeypatch.setattr(sys, "stdout", full)
    with pytest.raises(SystemExit) as end:
        cli(words)
    assert (end.value.code, capsys.readouterr().err.splitlines()[0]) == (1, "Error: [Errno 28] No space left on device")
    with suppress(OSError):
        full.close()


def test_tables_of_another_program_have_no_columns_of_loads(call: Call) -> None:
    with duckdb.connect("other.duckdb") as con:
        con.sql("CREATE SCHEMA autopilothq; CREATE TABLE autopilothq.tracks (id INTEGER, kilometres INTEGER)")
    said = call("export", "out", "--credentials", "other.duckdb")
    there = f"duckdb {Path('other.duckdb').absolute()}, dataset autopilothq,"
    assert (said.status, errors(said)) == (
        1,
        [
            f"Error: Expected tracks in {there} to have the columns of loads, but it lacks event, received_at.",
            "If it is another program's, name the dataset of loads: --dataset",
        ],
    )
    with duckdb.connect("other.duckdb") as con:
        con.sql("CREATE OR REPLACE TABLE autopilothq.tracks (id INTEGER, event VARCHAR, received_at TIMESTAMPTZ)")
    said = call("export", "out", "--credentials", "other.duckdb")
    assert (said.status, errors(said)) == (
        1,
        [
            f"Error: Expected id of tracks in {there} to be text, as loads make it.",
            (
                "If the table is another program's, name the dataset of loads: --dataset. If somebody changed the type,"
                " change it back (ALTER TABLE ... ALTER COLUMN ... TYPE ... USING ...)."
            ),
        ],
    )
    said = call("status", "--credentials", "other.duckdb")
    assert (said.status, "events by day received (UTC): none since" in said.out) == (0, True)


def test_the_signature_of_a_url_is_not_printed(call: Call) -> None:
    said = call("load", "archive", "nope://container/x?sv=2024&sig=s3cret")
    assert (said.status, "nope://container/x?sv=2024&sig=***" in said.err) == (1, True)


def test_a_password_is_not_printed(call: Call) -> None:
    Path("a.ndjson").write_text(GOOD)
    url = "postgresql://loader:s3cret@127.0.0.1:1/warehouse"
    said = call("load", "archive", "a.ndjson", "--destination", "postgres", "--credentials", url)
    assert said.status == 1
    assert errors(said) == [
        'Error: connection to server at "127.0.0.1", port 1 failed: Connection refused',
        "Correct the host and the port in the credentials, start that server, or open the network to it.",
    ]
    assert "s3cret" not in said.out + said.err


def test_motherduck_is_no_duckdb_file(call: Call) -> None:
    for command_line in (("load", "archive", "a.ndjson"), ("status",)):
        said = call(*command_line, "--credentials", "md:shop?motherduck_token=a.secret.token")
        assert (said.status, errors(said)) == (
            1,
            [
                "Error: Expected the path of a DuckDB file, got a MotherDuck URL, which is a destination of its own.",
                "Name that: --destination motherduck",
            ],
        )
    assert list(Path().iterdir()) == []


def test_a_sample_that_the_disk_has_no_room_for_is_told(call: Call) -> None:
    with files_up_to(100):
        said = call("sample", "one", "--events", "500")
    assert (said.status, said.out, said.err) == (1, "", "Error: Cannot write to one: File too large.\n")


def test_a_file_that_vanishes_before_it_is_read_is_told(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("gone.ndjson").write_text(GOOD.replace("m1", "m2"))
    Path("there.ndjson").write_text(GOOD)
    read = batches.read_batches

    def vanished(files: Any, **options: Any) -> Any:
        Path("gone.ndjson").unlink()
        return read(files, **options)

    monkeypatch.setattr(batches, "read_batches", vanished)
    said = call("load", "archive", "gone.ndjson", "there.ndjson")
    path = Path("gone.ndjson").absolute()
    assert (said.status, errors(said)) == (0, [])
    assert (
        f"  {path} is read again next time: Expected to read {path} to its end, but reading failed at byte 0:"
        " FileNotFoundError: No such file or directory."
    ) in said.out.splitlines()
    with duckdb.connect("autopilot.duckdb") as con:
        assert con.execute("SELECT id FROM autopilothq.tracks").fetchall() == [("m1",)]
