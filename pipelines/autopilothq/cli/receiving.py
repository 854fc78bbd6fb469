"""Runs `receive`: the receiver, and the loads alongside it."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from ..errors import RunError
from ..extras import install, is_own_import_error
from ..warehouses.settings import TargetOptions
from . import out
from .log import configure_logging, line, log_settings

_EXTRA = "receive"
_STOP_SECONDS = 5.0
_CREDENTIALS = "AUTOPILOTHQ_RECEIVE_CREDENTIALS"

_log = logging.getLogger(__name__)


def run_receiver(
    folder: str, options: dict[str, Any], load_every: timedelta | None, target: TargetOptions, wait: timedelta
) -> None:
    """Receives until a signal stops the process. Loads that it starts wait up to `wait` for other runs.

    Ctrl-C stops it as SIGTERM does, and then raises KeyboardInterrupt. Raises RunError if the extra is not installed.
    """
    try:
        from ..receive import receive_settings
        from ..receive.server import serve
    except ModuleNotFoundError as error:
        if is_own_import_error(error):
            raise
        raise RunError(
            f"Expected the packages that receive events, but {error.name} is not installed.\n{install(_EXTRA)}"
        ) from error
    settings = receive_settings(folder, **options)
    with _loading(settings.upload or folder, load_every, target, wait) as end_loads:
        serve(settings, partial(configure_logging, *log_settings()), partial(_report, folder), end_loads)


def _report(folder: str, url: str) -> None:
    """Reports that senders can connect."""
    if log_settings().json:
        line("info", "receiving", url=url, folder=folder)
    else:
        out.print_line(f"Receiving on {url}, into {folder}", err=True)


@contextmanager
def _loading(
    archive: str, every: timedelta | None, target: TargetOptions, wait: timedelta
) -> Iterator[Callable[[], object]]:
    """Loads the archive regularly, each time in a new process, while the block runs. Yields the function to stop it."""
    stop = threading.Event()
    if every is None:
        yield stop.set
        return
    call = _call(archive, target, wait)
    thread = threading.Thread(target=_load, args=(*call, every.total_seconds(), stop), name="loader")
    thread.start()
    try:
        yield stop.set
    finally:
        stop.set()
        thread.join()


def _load(words: list[str], env: dict[str, str], seconds: float, stop: threading.Event) -> None:
    while not stop.wait(seconds):
        with subprocess.Popen(words, env=env) as process:  # noqa: S603 - this program itself
            while process.poll() is None:
                if stop.wait(0.2):  # a terminated load loses nothing: the next one finishes its work
                    process.terminate()
                    try:
                        process.wait(_STOP_SECONDS)
                    except subprocess.TimeoutExpired:
                        process.kill()
        if process.returncode and not stop.is_set():
            _log.error("The load ended with status %d; the next is in %.0f seconds", process.returncode, seconds)


def _call(archive: str, target: TargetOptions, wait: timedelta) -> tuple[list[str], dict[str, str]]:
    """Returns the command line and the environment of a load; the credentials are in the latter, hidden from others."""
    import dlt

    log = log_settings()
    words = ["--debug"] * log.debug + ["--log-format", "json"] * log.json + ["load", "archive", archive]
    env = dict(os.environ)
    if target.credentials is not None:
        env[_CREDENTIALS] = target.credentials
        words += ["--credentials", f"env:{_CREDENTIALS}"]
    more: tuple[tuple[str, str | None], ...] = (
        ("wait", f"{wait.total_seconds():.0f}s" if wait else None),
        ("destination", target.destination),
        ("dataset", target.dataset),
        ("books-dataset", dlt.config.get("books_dataset")),
    )
    words += [word for name, value in more if value is not None for word in (f"--{name}", value)]
    return [sys.executable, "-c", "from autopilothq.__main__ import run_process; run_process()", *words], env
