"""MySQL or MariaDB gets the rows that DuckDB gets: long texts, keys that differ only in case, and killed loads.

Needs a server of either, such as Debian's package `mariadb-server`; without one the tests are skipped. The driver is
installed below `build/`.
"""

import importlib
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from autopilothq import sample
from calling import Call, errors
from checks.same_rows import KEYS, assert_same_rows, write_keys
from contract.duck import held
from servers import LEASH, PATIENCE, free_port

DRIVER = Path(__file__).parents[2] / "build" / "mysql"
ACCOUNT = "CREATE USER tests@'127.0.0.1' IDENTIFIED BY 'tests';\nGRANT ALL ON *.* TO tests@'127.0.0.1';\n"
CHANGE = "ALTER TABLE `autopilothq{}`.`users` MODIFY `id` LONGTEXT CHARACTER SET utf8mb4 COLLATE "
NO_ROWS_OF_OTHERS = "rows whose keys differ only in their case would replace each other."

KILLED = """
import sys
from faults.killed import MAIN, kill_at
kill_at(sys.argv.pop(1), "after", int(sys.argv.pop(1)))
exec(MAIN)
"""
OWN = """
import sys, dlt, autopilothq
made = dlt.pipeline("own", destination=dlt.destinations.sqlalchemy(sys.argv[1]), dataset_name="own")
made.run([{"word": "a"}], table_name="words")
for file in sys.argv[2:]:
    made.run(autopilothq.archive(file))
"""

pytestmark = pytest.mark.filterwarnings("ignore:implicitly coercing SELECT")


class Server:
    """A running server, whose driver can be imported."""

    def __init__(self, port: int) -> None:
        self.url = f"mysql+pymysql://tests:tests@127.0.0.1:{port}/mysql"
        self.words = ("--destination", "sqlalchemy", "--credentials", self.url)
        self._port = port

    def ask(self, *statements: str) -> list[tuple[Any, ...]]:
        """Runs statements, and returns the rows of the last one."""
        connect = importlib.import_module("pymysql").connect
        account = {"host": "127.0.0.1", "port": self._port, "user": "tests", "password": "tests"}
        with closing(connect(**account)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            connection.commit()
            return list(cursor.fetchall())

    def rows(self, table: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
        """Returns the rows of a table, sorted."""
        names = ", ".join(f"`{column}`" for column in columns)
        return sorted(self.ask(f"SELECT {names} FROM autopilothq.`{table}`"), key=repr)

    def run(self, code: str, *words: str) -> int:
        """Runs Python code in a process of its own; returns its exit status."""
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(DRIVER), *sys.path])}
        return subprocess.run([sys.executable, "-c", code, *words], env=env, check=False).returncode


def program(*names: str) -> str | None:
    """Returns the path of the first of these programs that is installed."""
    path = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"
    return next(filter(None, (shutil.which(name, path=path) for name in names)), None)


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    daemon = program("mariadbd", "mysqld")
    if daemon is None:
        pytest.skip("neither mariadbd nor mysqld is installed (Debian has them in the package mariadb-server)")
    if not (DRIVER / "pymysql").exists():
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        subprocess.run([*pip, "--target", DRIVER, "pymysql"], check=True)
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory(prefix="mysql-", ignore_cleanup_errors=True) as home:
        patch.syspath_prepend(str(DRIVER))
        with started(daemon, Path(home)) as port:
            yield Server(port)


@pytest.fixture
def server(running: Server) -> Server:
    """The server, without datasets."""
    datasets = (f"{name}{staging}" for name in ("autopilothq", "own") for staging in ("", "_staging"))
    running.ask(*(f"DROP DATABASE IF EXISTS {dataset}" for dataset in datasets))
    return running


@contextmanager
def started(daemon: str, home: Path) -> Iterator[int]:
    """Runs a server with its data in `home`, and yields its port. It refuses root, so root runs it as `nobody`."""
    account: dict[str, Any] = {"cwd": home, "env": {"PATH": os.defpath, "TZ": "UTC", "TMPDIR": str(home)}}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
        account |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    data, port = f"--datadir={home / 'data'}", free_port()
    makes = program("mariadb-install-db") if "mariadb" in os.path.realpath(daemon) else None
    make = [makes, "--no-defaults", data] if makes else [daemon, "--no-defaults", "--initialize-insecure", data]
    subprocess.run(make, **account, check=True, stdout=subprocess.DEVNULL)
    (home / "account.sql").write_text(ACCOUNT)
    (home / "account.sql").chmod(0o644)
    options = (
        "--no-defaults",
        data,
        f"--port={port}",
        "--bind-address=127.0.0.1",
        "--skip-name-resolve",  # the account has an address, no name
        f"--socket={home / 'socket'}",
        f"--init-file={home / 'account.sql'}",
    )
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            ["/bin/sh", "-c", LEASH.replace("INT", "TERM"), "sh", daemon, *options],
            **account,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(Exception):  # the driver's own errors, until the server answers
                Server(port).ask("SELECT 1")
                break
            time.sleep(0.2)
        else:
            raise RuntimeError(f"The server did not start: {(home / 'log').read_text(errors='replace')}")
        yield port
    finally:
        if process.stdin:
            process.stdin.close()
        process.wait(PATIENCE)


def in_mysql(value: Any) -> Any:
    """Returns a value of DuckDB in the form that MySQL stores."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None)
    return int(value) if isinstance(value, bool) else value


def test_the_same_rows_as_in_duckdb(server: Server, call: Call) -> None:
    for number in range(2):  # the same people, and partly the same messages
        sample.write(f"archive{number}", 150 * (number + 1))
        write_keys(f"archive{number}/keys.ndjson", number)
        with held():
            assert call("load", "archive", f"archive{number}").status == 0
        said = call("load", "archive", f"archive{number}", *server.words)
        assert (said.status, errors(said)) == (0, [])
        assert_same_rows(server.rows, in_mysql)
    assert {key for (key,) in server.ask("SELECT id FROM autopilothq.users")} >= set(KEYS)


@pytest.mark.parametrize(
    ("point", "number"),
    [("dlt.load.load:Load.complete_jobs", 2), ("dlt.load.load:Load.create_followup_jobs", 3)],
    ids=["jobs", "merges"],
)
def test_a_killed_load_is_completed_by_the_next(server: Server, call: Call, point: str, number: int) -> None:
    write_keys("keys.ndjson")
    words = ("load", "archive", "keys.ndjson")
    assert server.run(KILLED, point, str(number), *words, *server.words) == -9
    server.ask("DELETE FROM autopilothq._locks")  # the killed run's lease, which would expire in a while
    said = call(*words, *server.words)
    assert (said.status, errors(said)) == (0, [])
    assert sorted(server.ask("SELECT id FROM autopilothq.tracks")) == sorted((key,) for key in KEYS)
    assert sorted(server.ask("SELECT id FROM autopilothq.users")) == sorted((key,) for key in KEYS)


def test_keys_that_are_not_compared_byte_by_byte_are_refused(server: Server, call: Call) -> None:
    write_keys("a.ndjson")
    assert call("load", "archive", "a.ndjson", *server.words).status == 0
    write_keys("b.ndjson", 1)
    wrong = "MODIFY id VARCHAR(400) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL"
    server.ask(
        "DELETE FROM autopilothq.users",
        f"ALTER TABLE autopilothq.users {wrong}",
        "ALTER TABLE autopilothq_staging.users MODIFY id TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        # Other columns than keys may be compared in any way.
        "ALTER TABLE autopilothq.users MODIFY plan TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
    )
    said = call("load", "archive", "b.ndjson", *server.words)
    assert said.status == 1
    what, todo, *statements = errors(said)
    assert what == (
        "Error: Expected keys that are compared byte by byte, but id of `autopilothq`.`users` has the collation"
        f" utf8mb4_general_ci: {NO_ROWS_OF_OTHERS}"
    )
    assert todo.startswith("Run these statements, then the load again.")
    [exact] = {statement.rpartition(" COLLATE ")[2].removesuffix(" NOT NULL;").rstrip(";") for statement in statements}
    assert statements == [
        CHANGE.format("").replace("LONGTEXT", "varchar(400)") + f"{exact} NOT NULL;",
        CHANGE.format("_staging") + f"{exact};",
    ]
    server.ask(*statements)
    said = call("load", "archive", "b.ndjson", *server.words)
    assert (said.status, errors(said)) == (0, [])
    assert sorted(server.ask("SELECT id, plan FROM autopilothq.users")) == sorted((key, "1") for key in KEYS)


def test_a_pipeline_of_ones_own_makes_such_keys_from_the_first_run(server: Server) -> None:
    for number in range(2):
        write_keys(f"{number}.ndjson", number)
    assert server.run(OWN, server.url, "0.ndjson", "1.ndjson") == 0
    assert sorted(server.ask("SELECT id, plan FROM own.users")) == sorted((key, "1") for key in KEYS)
    [(type_,)] = server.ask(
        "SELECT data_type FROM information_schema.columns WHERE table_schema = 'own' AND table_name = 'words'"
        " AND column_name = 'word'"
    )
    assert type_ == "text"  # tables that are not of this package stay as dlt makes them
