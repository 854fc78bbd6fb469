"""Errors about unusable destinations have two lines that name the package, the extra and the settings."""

import json
import re
import sys
from contextlib import closing
from importlib.metadata import Distribution, distribution
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import dlt
import duckdb
import psycopg2
import pytest
from dlt.common.configuration.specs import GcpServiceAccountCredentials
from dlt.common.exceptions import MissingDependencyException
from dlt.destinations import fabric, mssql
from dlt.load.exceptions import LoadClientJobFailed, LoadClientJobRetry

from autopilothq import explain, extras, inspect
from autopilothq.errors import RunError
from autopilothq.warehouses.dlt_internals import DestinationConnectionError, InvalidNativeValue, ValueNotSecretException
from autopilothq.warehouses.dlt_internals.clients import with_required_credentials
from autopilothq.warehouses.duckdb import direct
from autopilothq.warehouses.postgres import postgres
from autopilothq.warehouses.settings import TargetOptions
from calling import Call, errors

KNOWN = (
    "athena, bigquery, clickhouse, databricks, dremio, duckdb, ducklake, fabric, filesystem, motherduck, mssql,"
    " postgres, redshift, snowflake, sqlalchemy, synapse"
)

DROPPED = "Run it again: that recreates what somebody dropped."


class Package(Distribution):
    """Stands in for an installed package."""

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
            ["--destination", "postgres", "--credentials", "postgresql://ada@/db"],
            (
                "Error: Expected the settings destination.postgres.credentials.password,"
                " destination.postgres.credentials.host, but there are none.\n"
                "Set them in .dlt/secrets.toml, by DESTINATION__POSTGRES__CREDENTIALS__PASSWORD,"
                " DESTINATION__POSTGRES__CREDENTIALS__HOST in the environment, or in the URL of the credentials."
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
        (  # the option takes only the URL, not a bucket's credentials
            ["--destination", "filesystem", "--credentials", "gs://bucket/events"],
            (
                "Error: Expected the setting destination.filesystem.credentials, but there is none.\n"
                "Set it in .dlt/secrets.toml, by DESTINATION__FILESYSTEM__CREDENTIALS in the environment."
            ),
        ),
        (
            ["--destination", "filesystem", "--credentials", "az://bucket/events"],
            (
                "Error: The destination filesystem needs the package azure, which is not installed.\n"
                "Install it: {install[az]}"
            ),
        ),
        (
            ["--destination", "dremio"],
            (
                "Error: Expected the settings destination.dremio.credentials, destination.dremio.staging_data_source,"
                " but there are none.\n"
                "Set them in .dlt/secrets.toml, by DESTINATION__DREMIO__CREDENTIALS,"
                " DESTINATION__DREMIO__STAGING_DATA_SOURCE in the environment, or by --credentials."
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
            ["--destination", "postgres", "--credentials", "postgresql://reader@127.0.0.1:1/db"],
            (
                "Error: Expected the setting destination.postgres.credentials.password, but there is none.\n"
                "Set it in .dlt/secrets.toml, by DESTINATION__POSTGRES__CREDENTIALS__PASSWORD in the environment, or in"
                " the URL of the credentials."
            ),
        ),
        (
            ["--destination", "postgres", "--credentials", "postgresql://127.0.0.1:1/db"],
            (
                "Error: Expected the settings destination.postgres.credentials.password,"
                " destination.postgres.credentials.username, but there are none.\n"
                "Set them in .dlt/secrets.toml, by DESTINATION__POSTGRES__CREDENTIALS__PASSWORD,"
                " DESTINATION__POSTGRES__CREDENTIALS__USERNAME in the environment, or in the URL of the"
                " credentials."
            ),
        ),
        (
            ["--destination", "lancedb"],  # installing its package would not help
            (
                "Error: Expected a destination that answers SQL, but lancedb does not: nobody could tell what is stored"
                ' there.\nName another one, such as destination="duckdb" or --destination duckdb.'
            ),
        ),
    ],
)
def test_two_lines_tell_what_to_do(call: Call, words: list[str], said: str) -> None:
    Path("archive.ndjson").write_text("{}\n")
    for extra in ("snowflake", "mssql", "az"):
        said = said.replace(f"{{install[{extra}]}}", extras.install(extra))
    found = call("load", "archive", "archive.ndjson", *words)
    assert (found.status, errors(found)) == (1, said.splitlines())
    assert "SEKRET" not in found.err


def test_a_users_own_name_for_a_destination_does_not_hide_its_package(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("archive.ndjson").write_text("{}\n")
    monkeypatch.setenv("DESTINATION__SHOP__DESTINATION_TYPE", "mssql")
    found = call("load", "archive", "archive.ndjson", "--destination", "shop")
    install = f"Install it: {extras.install('mssql')}"
    assert errors(found) == ["Error: The destination shop needs the package pyodbc, which is not installed.", install]
    monkeypatch.setenv("DESTINATION__SHOP__DESTINATION_TYPE", "snowflake")
    missing = errors(call("load", "archive", "archive.ndjson", "--destination", "shop"))
    assert missing[0] == "Error: Expected the setting destination.shop.credentials, but there is none."
    assert missing[1].endswith(f" Its package is missing too: {extras.install('snowflake')}")


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for the package that Fabric's credentials need."""
    identity = SimpleNamespace(DefaultAzureCredential=object)
    monkeypatch.setitem(sys.modules, "azure", cast(Any, SimpleNamespace(identity=identity)))
    monkeypatch.setitem(sys.modules, "azure.identity", cast(Any, identity))


NO_CREDENTIALS = (
    "Error: Expected the setting destination.fabric.credentials, but there is none.\n"
    "Set it in .dlt/secrets.toml, by DESTINATION__FABRIC__CREDENTIALS in the environment, or by --credentials. Its"
    " package is missing too: {install}"
)

NO_PART = (
    "Error: Expected the setting destination.fabric.credentials.{part}, but there is none.\n"
    "Set it in .dlt/secrets.toml, by DESTINATION__FABRIC__CREDENTIALS__{variable} in the environment. Its package is"
    " missing too: {install}"
)


@pytest.mark.usefixtures("azure")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], NO_CREDENTIALS),
        (["HOST"], NO_PART.format(part="database", variable="DATABASE", install="{install}")),
        (["DATABASE"], NO_PART.format(part="host", variable="HOST", install="{install}")),
        (
            ["HOST", "DATABASE"],
            ("Error: The destination fabric needs the package pyodbc, which is not installed.\nInstall it: {install}"),
        ),
    ],
)
def test_credentials_that_dlt_takes_for_optional_are_required(
    call: Call, monkeypatch: pytest.MonkeyPatch, given: list[str], said: str
) -> None:
    Path("archive.ndjson").write_text("{}\n")
    for part in given:
        monkeypatch.setenv(f"DESTINATION__FABRIC__CREDENTIALS__{part}", "x")
    found = call("load", "archive", "archive.ndjson", "--destination", "fabric")
    assert (found.status, errors(found)) == (1, said.format(install=extras.install("fabric")).splitlines())


class MaybeAnonymous(fabric):
    """A user's own destination, whose credentials are optional on purpose."""


def test_only_credentials_that_dlt_itself_takes_for_optional_become_required() -> None:
    for made in (MaybeAnonymous(), mssql()):
        before = made.spec
        assert with_required_credentials(made).spec is before


@pytest.mark.parametrize(
    ("folder", "named", "why"),
    [
        ("file", "file/pipelines", "Not a directory"),
        ("file/below/it", "file/below/it", "Not a directory"),
        ("x" * 300, "x" * 300, "File name too long"),
        ("/proc/none", "/proc/none", "No such file or directory"),
    ],
)
def test_a_folder_of_dlt_that_cannot_be_made(
    call: Call, monkeypatch: pytest.MonkeyPatch, folder: str, named: str, why: str
) -> None:
    Path("file").touch()
    Path("archive.ndjson").write_text("{}\n")
    monkeypatch.setenv("DLT_DATA_DIR", str(Path(folder).absolute()))
    found = call("load", "archive", "archive.ndjson")
    assert (found.status, errors(found)) == (
        1,
        [
            f"Error: Cannot write to {Path(named).absolute()}, for dlt's folder {Path(folder).absolute()}: {why}.",
            "Name a folder that this user may write to: DLT_DATA_DIR=/path/to/folder",
        ],
    )


def test_a_kind_of_destination_that_nobody_knows_is_told_as_an_error_of_a_run() -> None:
    with pytest.raises(RunError, match=r"^Can't load plugin: sqlalchemy\.dialects:nodb$"):
        inspect.kind_of(TargetOptions("sqlalchemy", "nodb://host/db"))


@pytest.mark.parametrize("words", [["load", "archive", "archive.ndjson"], ["status"]])
def test_a_database_that_does_not_exist_is_not_made_by_another_run(call: Call, postgres: str, words: list[str]) -> None:
    Path("archive.ndjson").write_text("{}\n")
    found = call(*words, "--destination", "postgres", "--credentials", f"{postgres}_nope")
    *_, said, advice = errors(found)
    assert re.search(r'FATAL:  database "test_\w+_nope" does not exist$', said)
    assert advice == "Correct the database in the credentials, or create it (CREATE DATABASE); no load does that."


@pytest.mark.parametrize(
    ("statement", "advice"),
    [
        (
            "SET ROLE nope",
            "Correct the user in the credentials, or create it (CREATE ROLE ... LOGIN); no load does that.",
        ),
        ("SELECT * FROM nope", DROPPED),
        ("SELECT nope FROM pg_class", DROPPED),
        ("CREATE TABLE nope.a (n int)", DROPPED),
        ("SELECT nope()", ""),
        ("SELECT 'a'::text = 1::bigint", ""),
    ],
)
def test_what_does_not_exist_has_its_own_advice(postgres: str, statement: str, advice: str) -> None:
    with closing(psycopg2.connect(postgres)) as server, pytest.raises(psycopg2.Error) as raised:
        server.cursor().execute(statement)
    said, _, told = explain.error_message(raised.value).partition("\n")
    assert "does not exist" in said
    assert told == advice


ROOM = (
    "Make room on the disk of the output, of dlt's folder (DLT_DATA_DIR, else ~/.dlt, or /var/dlt for root), or of"
    " temporary files (TMPDIR), then run it again."
)
OF_POSTGRES = {
    "must be owner of table users": "Give the user of the credentials that right (GRANT, ALTER ... OWNER TO).",
    'new row violates row-level security policy for table "tracks"': (
        "Let the user of the credentials see and write all rows (ALTER ROLE ... BYPASSRLS)."
    ),
    'character with byte sequence 0xf0 0x9f 0xa6 0x86 in encoding "UTF8" has no equivalent in encoding "LATIN1"': (
        "Load into a database that holds every character: CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0."
    ),
    "cannot execute CREATE SCHEMA in a read-only transaction": (
        "Connect to the primary server, or let the user of the credentials write"
        " (ALTER ROLE ... SET default_transaction_read_only = off)."
    ),
    "FATAL:  unsupported startup parameter: options": (
        "A connection pooler refuses the settings of sessions: name the host and port of PostgreSQL itself in the"
        " credentials, or allow them (PgBouncer: ignore_startup_parameters = options)."
    ),
    'FATAL:  too many connections for role "loader"': (
        "Allow more connections, or let a load take fewer: workers = 1 under [load] of dlt's configuration."
    ),
    'no partition of relation "tracks" found for row': (
        "Create the partition, or one for all other rows (PARTITION OF ... DEFAULT)."
    ),
    'column "fresh" of relation "identifies" does not exist': (
        "If somebody added a column to that table whose name differs only in its case, rename it (ALTER TABLE ..."
        " RENAME COLUMN)."
    ),
    'null value in column "mine" of relation "order" violates not-null constraint': (
        "Somebody made that column required: allow nulls (ALTER TABLE ... ALTER COLUMN ... DROP NOT NULL)."
    ),
    'cannot update table "_deliveries" because it does not have a replica identity and publishes updates': (
        "A publication has that table: let PostgreSQL tell its rows apart (ALTER TABLE ... REPLICA IDENTITY FULL), or"
        " publish new rows only (ALTER PUBLICATION ... SET (publish = 'insert'))."
    ),
    'cannot insert a non-DEFAULT value into column "new"': (
        "Somebody made PostgreSQL fill that column: drop it, and the next run creates it again, empty."
    ),
    'invalid byte sequence for encoding "UTF8": 0x00': (
        "Somebody changed a column's type: change it back (ALTER TABLE ... ALTER COLUMN ... TYPE), or drop the column:"
        " the next run creates it again, empty."
    ),
}
NEWER = (
    "Somebody enabled a feature of that table that the package deltalake cannot read: install a newer one, or drop the"
    " feature with the program that enabled it (ALTER TABLE ... DROP FEATURE)."
)
OF_LAKES = {
    "The table tracks cannot be opened: Kernel error: No table metadata or protocol found in delta log.": (
        "The folder _delta_log of that table is damaged: bring it back, or give up the table as how-to/warehouses.md"
        " says."
    ),
    "The table tracks cannot be opened: Kernel error: Unsupported: Feature 'catalogManaged' is not supported": NEWER,
}
EXTENSIONS = (
    "DuckDB downloads each extension once. Without a network, install this one elsewhere with the same"
    " version of DuckDB (INSTALL), and copy ~/.duckdb/extensions from there. duckdb and ducklake take another folder,"
    " too: extension_directory under [destination.NAME.credentials.global_config]."
)
URL = "http://extensions.duckdb.org/v1.5.6/linux_amd64/httpfs.duckdb_extension.gz"
OF_EXTENSIONS = {
    f'IO Error: Failed to download extension "httpfs" at URL "{URL}"': EXTENSIONS,
    "An error occurred while trying to automatically install the required extension 'httpfs':": EXTENSIONS,
    'IO Error: Extension "/home/ada/.duckdb/extensions/v1.5.6/linux_amd64/httpfs.duckdb_extension" not found.': (
        EXTENSIONS
    ),
    "Invalid Input Error: Failed to load 'httpfs', The file is not a DuckDB extension.": (
        "Its file in ~/.duckdb/extensions is damaged, or not for this version of DuckDB and this machine: remove it,"
        " and DuckDB downloads it again (or copy the right one to its place)."
    ),
    'Binder Error: Unique file handle conflict: Cannot attach "a" - the file is already attached by "adopted"': (
        "That file is the target of this load, too: load into another one (--credentials)."
    ),
    'Catalog Error: Schema with name "autopilothq" already exists!': (
        "Its name differs only in its case, and DuckDB cannot rename it: load into another dataset (--dataset,"
        " dataset_name)."
    ),
    "IO Error: Can't find the home directory at ''": "Set HOME: DuckDB keeps its extensions below it.",
}
RIGHT = "Give this user the right to it (chmod, chown), or name another place."


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(28, "No space left on device"),
            f"[Errno 28] No space left on device\n{ROOM}",
        ),
        (
            OSError(28, "No space left on device", "/data/a"),
            "[Errno 28] No space left on device: '/data/a'\nMake room on that disk, then run it again.",
        ),
        (OSError(30, "Read-only file system", "/data/a"), f"[Errno 30] Read-only file system: '/data/a'\n{RIGHT}"),
        (
            duckdb.IOException('IO Error: Cannot open file "/data/a": Operation not permitted'),
            f'IO Error: Cannot open file "/data/a": Operation not permitted\n{RIGHT}',
        ),
        (OSError(13, "Permission denied", 5), "[Errno 13] Permission denied: 5"),  # raised for a file descriptor
        (OSError(13, "Permission denied", "/data/a"), f"[Errno 13] Permission denied: '/data/a'\n{RIGHT}"),
        (
            DestinationConnectionError("Client", "mail", 'Cannot open file "/a": Permission denied', OSError()),
            f'Cannot open file "/a": Permission denied\n{RIGHT}',
        ),
        *((OSError(what), f"{what}\n{advice}") for what, advice in (OF_POSTGRES | OF_LAKES | OF_EXTENSIONS).items()),
        (
            OSError(f"Code: 70. Cannot convert NULL: {'x' * 9_000} (CANNOT_CONVERT_TYPE)"),
            f"Code: 70. Cannot convert NULL: {'x' * 1_769} … {'x' * 178} (CANNOT_CONVERT_TYPE)",
        ),
        (  # no pattern is slow for it, and no secret is cut before it is masked
            OSError(f"Code: 70. {'/' * 1_770}postgresql://ada:s3cret@example.com/{'/x' * 9_000} (KIND)"),
            f"Code: 70. {'/' * 1_770}postgresql://***@exa … x{'/x' * 96} (KIND)",
        ),
        (
            ValueNotSecretException("config.toml", "destination.postgres.credentials"),
            "destination.postgres.credentials is secret, but it is in .dlt/config.toml.\nMove it to .dlt/secrets.toml.",
        ),
        (
            MissingDependencyException("AzureCredentials", ["dlt[az]", "more"]),
            "AzureCredentials needs the package dlt[az], which is not installed.\nInstall it: {install[az]}",
        ),
        (
            ModuleNotFoundError("No module named 'paramiko'", name="paramiko"),
            "This needs the package paramiko, which is not installed.\nInstall it: pip install 'paramiko'",
        ),
        (
            InvalidNativeValue(GcpServiceAccountCredentials, str, (), ValueError()),
            (
                "Expected what dlt's GcpServiceAccountCredentials takes as credentials, but got something else.\n"
                "Correct --credentials, or the setting in .dlt/secrets.toml or the environment."
            ),
        ),
    ],
)
def test_what_systems_and_dlt_report_is_short_and_has_advice(error: Exception, message: str) -> None:
    # The command to install depends on the folder in which the test runs.
    assert explain.error_message(error) == message.replace("{install[az]}", extras.install("az"))


@pytest.mark.parametrize("full", [("dlt",), ("dlt", "work"), ("temporary",)])
def test_the_folders_whose_disks_are_full_are_named_where_the_error_names_none(
    full: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {
        "dlt": f"dlt's folder (DLT_DATA_DIR) {tmp_path}/dlt",
        "temporary": f"the folder of temporary files (TMPDIR) {tmp_path}/temporary",
        "work": f"the current folder {tmp_path}/work",
    }
    for name in folders:
        (tmp_path / name).mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(explain, "get_dlt_pipelines_dir", lambda: f"{tmp_path}/dlt/pipelines")
    monkeypatch.setattr(explain, "gettempdir", lambda: f"{tmp_path}/temporary")
    free = SimpleNamespace(free=1 << 30)
    monkeypatch.setattr(explain, "disk_usage", lambda path: SimpleNamespace(free=4096) if path.name in full else free)
    assert explain.error_message(OSError(28, "No space left on device")) == (
        "[Errno 28] No space left on device\n"
        f"The disk of {' and of '.join(folders[name] for name in full)} is full: make room there, then run it again."
    )
    if "work" not in full:
        (tmp_path / "work").rmdir()
        assert explain.error_message(OSError(28, "No space left on device")).count(folders[full[0]]) == 1
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path)


COPIED = "PGRES_FATAL_ERROR ERROR:  insufficient data left in message\nCONTEXT:  COPY opened, line 1, column n"


@pytest.mark.parametrize(
    ("made", "section"),
    [
        (postgres("postgresql://u:p@h/d", destination_name="warehouse"), "warehouse"),
        (postgres("postgresql://u:p@h/d"), "postgres"),
        (direct("warehouse.duckdb", destination_name="warehouse"), "postgres"),
        (None, "postgres"),
    ],
)
def test_the_settings_of_a_destination_with_a_name_of_its_own_are_named(
    made: Any, section: str, tmp_path: Path
) -> None:
    dlt.pipeline("named", str(tmp_path), destination=made)
    assert explain.error_message(psycopg2.OperationalError("canceling statement due to statement timeout")) == (
        "canceling statement due to statement timeout\n"
        f"Allow more: statement_timeout (seconds) under [destination.{section}]."
    )


CAST = 'column "n" is of type text but expression is of type bigint'


OF_KEY = 'column "list_id" is of type uuid but expression is of type character varying'


@pytest.mark.parametrize(
    ("error", "column", "dropped"),
    [
        (LoadClientJobRetry("1", "opened.0.parquet", 1, 1, f"{COPIED}\n. SQLSTATE: 08P01\n", OSError()), "n", "column"),
        (LoadClientJobFailed("1", "opened.0.sql", f"{CAST}\nLINE 1: INSERT INTO", OSError()), "n", "column"),
        (OSError(f'{COPIED}: "5"'), "n", "column"),
        (OSError(COPIED.removesuffix("n") + "id"), "id", "table"),
        (LoadClientJobFailed("1", "lists.0.sql", OF_KEY, OSError()), "list_id", "table"),
    ],
)
def test_the_column_that_somebody_changed_is_named(error: Exception, column: str, dropped: str) -> None:
    """Without a column of its key no table can be loaded, so it is no advice to drop that column."""
    _, _, advice = explain.error_message(error).partition("\n")
    table = "lists" if column == "list_id" else "opened"
    assert advice == (
        f"Somebody changed the type of the column {column} of {table}: change it back (ALTER TABLE ... ALTER COLUMN"
        f" ... TYPE), or drop the {dropped}: the next run creates it again, empty."
    )


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("autopilothq.warehouses.postgres_client", ["load", "archive", "archive.ndjson", "--destination", "postgres"]),
        ("autopilothq.warehouses.postgres_client", ["schema", "--format", "sql", "--destination", "postgres"]),
        ("autopilothq.receive.server", ["receive", "received"]),
    ],
)
def test_a_module_of_the_program_is_no_missing_package(
    call: Call, monkeypatch: pytest.MonkeyPatch, module: str, words: list[str]
) -> None:
    Path("archive.ndjson").write_text("{}\n")
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", "postgresql://ada:SEKRET@localhost/db")
    monkeypatch.setitem(sys.modules, module, None)
    found = call(*words)
    assert (found.status, errors(found)) == (
        1,
        [
            f"Error: ModuleNotFoundError: import of {module} halted; None in sys.modules",
            "This is a fault of autopilothq: please report what `autopilothq --debug` shows of it.",
        ],
    )


def test_every_destination_has_its_extra() -> None:
    there = distribution(extras.PACKAGE).metadata.get_all("Provides-Extra")
    without = {"duckdb"}
    assert set(KNOWN.split(", ")) - without <= set(cast(list[str], there))
