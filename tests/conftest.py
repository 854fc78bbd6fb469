import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs import PluggableRunContext

from autopilothq import masking
from calling import Call, caller
from servers import S3, Postgres, postgres_server, s3_server

# What dlt and the S3 clients would take from the shell that the tests are run from.
LEAKS = (
    "AWS_", "CREDENTIALS", "DATA_WRITER__", "DATASET_NAME", "DESTINATION", "DLT_", "EXTRACT__", "LOAD__", "NORMALIZE__",
    "PIPELINE", "RESTORE_FROM_DESTINATION", "RUNTIME__", "SCHEMA__", "SOURCES__", "STAGING",
)  # fmt: skip


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test runs in an empty folder, with settings, state and secrets of its own only."""
    for name in os.environ:
        if name.upper().startswith(LEAKS):
            monkeypatch.delenv(name)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))  # pipelines' working folders
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    # Without credentials the S3 clients would look in the home folder, then ask the cloud's metadata address and wait.
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    for of in ("_remembered", "_strings", "_hooks"):  # secrets of one test are words of another
        monkeypatch.setattr(masking, of, {})
    # dlt reads settings when a context is made, global ones from a folder of the user's: a new context for each test.
    monkeypatch.setattr("dlt.common.runtime.run_context.global_dir", lambda: str(tmp_path / "dlt"))
    context = Container()[PluggableRunContext]
    cookie = context.push_context()
    context.reload()
    yield
    context.pop_context(cookie)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls the program in this process: `call("load", "archive", "file.gz").status`."""
    return caller(monkeypatch, capsys)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def postgres(postgresql: Postgres) -> Iterator[str]:
    """The URL of a new, empty database on a real PostgreSQL."""
    with postgresql.database() as url:
        yield url


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An S3 server; `s3.bucket()` makes a new bucket."""
    with s3_server() as server:
        yield server
