import gc
import os
from time import monotonic, tzset

STARTED = monotonic()

os.environ["TZ"] = "America/New_York"  # so that code that takes the machine's zone for UTC fails
tzset()
gc.disable()  # during the imports, whose objects stay: collections would take a quarter of a worker's start

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from autopilothq.cli import COLLECTED
from autopilothq.destination import opening
from calling import Call, caller
from fake_autopilot import FakeAutopilot
from prepared import as_prepared
from quicker_dlt import cache_hints, import_commands
from quicker_lookups import spare_lookups, write_views_once
from quicker_macros import copied_macros
from requesting import Time
from sending import IMPATIENT, close_logs
from servers import S3, Postgres, postgres_server, s3_server
from shared_loads import isolation

SECONDS = float(os.environ.get("TEST_SECONDS", "inf"))
"""How long the tests may take. Those that have not begun by then are skipped, so that a run on a slow machine ends."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Skips the tests for which no time is left."""
    if monotonic() - STARTED > SECONDS:
        pytest.skip(f"left out, because the tests took longer than {SECONDS:.0f} s")


def pytest_collection_finish() -> None:
    """Excludes what was imported from garbage collection, which would take a tenth of a load's time."""
    import_commands()
    cache_hints()
    spare_lookups()
    write_views_once()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTED)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def macros(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The engine's macros, created only once."""
    with copied_macros(tmp_path_factory.mktemp("macros")):
        yield


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path) -> Iterator[None]:
    """Runs each test in an empty folder, with only its own settings, state and secrets."""
    with isolation(tmp_path):
        yield
    close_logs()
    # The memory file system is global: other tests would find what a test leaves there.
    MemoryFileSystem.clear_instance_cache()
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAutopilot]:
    """A fake Autopilot with an empty account; its client never waits. Some modules define another `server`."""
    monkeypatch.setattr(opening, "Autopilot", IMPATIENT)
    with FakeAutopilot(contacts=0) as server:
        yield server


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls the program in this process: `call("load", "archive", "file.gz").status`."""
    return caller(monkeypatch, capsys)


@pytest.fixture
def loaded(prepared: Path) -> Iterator[Path]:
    """The folder of the module's fixture `prepared`, as it was prepared, with dlt's folder in it. Tests work there."""
    with as_prepared(prepared):
        yield prepared


@pytest.fixture
def source_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces dlt's state of the source by an empty one."""
    found: dict[str, Any] = {}
    monkeypatch.setattr("dlt.current.source_state", lambda: found)


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
