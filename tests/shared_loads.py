"""Loads whose results several tests check: each is made once, in a folder and with settings of its own."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs import PluggableRunContext

from autopilothq import cli, masking
from calling import Said

# Prefixes of the variables that dlt and the S3 clients would take from the shell that runs the tests.
LEAKS = (
    "AWS_", "CREDENTIALS", "DATA_WRITER__", "DATASET_NAME", "DESTINATION", "DLT_", "EXTRACT__", "LOAD__", "NORMALIZE__",
    "PIPELINE", "RESTORE_FROM_DESTINATION", "RUNTIME__", "SCHEMA__", "SOURCES__", "STAGING",
)  # fmt: skip


def bare_environment() -> dict[str, str]:
    """Returns the environment without those variables and with telemetry off, for processes of their own."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(LEAKS)}
    return kept | {"RUNTIME__DLTHUB_TELEMETRY": "false"}


@contextmanager
def isolation(home: Path) -> Iterator[None]:
    """Makes `work` in `home` the current folder while the block runs, with only its own settings, state and secrets.

    Creates the folder if it is missing.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in os.environ:
            if name.upper().startswith(LEAKS):
                monkeypatch.delenv(name)
        work = home / "work"
        work.mkdir(exist_ok=True)
        monkeypatch.chdir(work)
        monkeypatch.setenv("DLT_DATA_DIR", str(home / "dlt"))  # pipelines' working folders
        monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
        # Without credentials, the S3 clients would look in the home folder, then query the cloud's metadata address and
        # wait.
        monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        for of in ("_remembered", "_strings", "_hooks"):  # one test's secrets may be ordinary words in another
            monkeypatch.setattr(masking, of, {})
        # dlt reads settings when it makes a context, global ones from a folder of the user.
        monkeypatch.setattr("dlt.common.runtime.run_context.global_dir", lambda: str(home / "dlt"))
        forget_context()
        try:
            yield
        finally:
            forget_context()


def forget_context() -> None:
    """Has dlt make a new context only when it next needs one, because that takes as long as a small test."""
    container = Container()
    if PluggableRunContext in container:
        del container[PluggableRunContext]


def command(*words: str) -> Said:
    """Calls the program in this process, for code outside tests, which has no fixture `call`."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    umask = os.umask(0o022)  # the program sets its own permanently
    with mock.patch("sys.argv", ["autopilothq", *words]), redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        finally:
            os.umask(umask)
    return Said(status, out.getvalue(), err.getvalue())
