"""Runs the receiver, and what loads beside it."""

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import click

from ..display import visible
from ..errors import RunError
from ..extras import install
from .log import configure_logging, log_settings
from .options import TargetOptions

EXTRA = "receive"
STOP_SECONDS = 5.0

_log = logging.getLogger(__name__)


def run(folder: str, options: dict[str, Any], load_every: timedelta | None, target: TargetOptions) -> None:
    """Receives until the process is asked to stop. Raises RunError where the extra is not installed."""
    try:
        from ..receive import receive_settings
        from ..receive.server import check, serve
    except ModuleNotFoundError as error:
        raise RunError(
            f"Expected the packages that receive events, but {error.name} is not installed.\n{install(EXTRA)}"
        ) from error
    settings = receive_settings(folder, **options)
    check(settings)
    with _loading(folder, load_every, target) as end_loads:
        serve(
            settings,
            partial(configure_logging, *log_settings()),
            lambda url: click.echo(f"Receiving on {url}, into {visible(folder)}", err=True),
            end_loads,
        )


@contextmanager
def _loading(folder: str, every: timedelta | None, target: TargetOptions) -> Iterator[Callable[[], object]]:
    """Loads the archive again and again, in processes of their own, while the block runs; yields what ends that."""
    stop = threading.Event()
    if every is None:
        yield stop.set
        return
    thread = threading.Thread(target=_load, args=(folder, every.total_seconds(), target, stop), name="loader")
    thread.start()
    try:
        yield stop.set
    finally:
        stop.set()
        thread.join()


def _load(folder: str, seconds: float, target: TargetOptions, stop: threading.Event) -> None:
    names = ("--destination", "--credentials", "--dataset")
    words = [word for name, value in zip(names, target, strict=True) if value is not None for word in (name, value)]
    program = "from autopilothq.cli import main; main()"
    while not stop.wait(seconds):
        command = [sys.executable, "-c", program, "load", "archive", folder, *words]
        with subprocess.Popen(command) as process:  # noqa: S603 - this program itself
            while process.poll() is None:
                if stop.wait(0.2):  # a load that is ended is finished by the next one
                    process.terminate()
                    try:
                        process.wait(STOP_SECONDS)
                    except subprocess.TimeoutExpired:
                        process.kill()
        if process.returncode and not stop.is_set():
            _log.error("The load ended with status %d; the next is in %.0f seconds", process.returncode, seconds)
