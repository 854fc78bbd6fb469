"""Real clusters on this machine, started as users do: Dask's scheduler with workers, and a head node of Ray.

Both run in a different folder than the load, and have the environment variables with which they were started.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 120  # seconds for a cluster to come up


def program(name: str) -> Path:
    """Returns the path of a program in this environment."""
    return Path(sys.executable).parent / name


def until(find: Callable[[], T | None], what: str, process: "subprocess.Popen[bytes] | None" = None) -> T:
    """Calls `find` until it finds something, and returns that; gives up if `process` ends or time is up."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        if (found := find()) is not None:
            return found
        time.sleep(0.05)
    raise TimeoutError(f"Expected {what} within {PATIENCE} s, but it did not come: see elsewhere/log.")


@contextmanager
def started(folder: Path, *words: str | Path) -> "Iterator[subprocess.Popen[bytes]]":
    """Runs a program in a folder while the block runs."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(words, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        process.wait()


@contextmanager
def dask_cluster(folder: Path) -> Iterator[str]:
    """Yields the engine of a scheduler with two single-threaded workers. Only this project retries, not Dask."""
    from distributed import Client

    where = folder / "scheduler.json"
    dask, quiet = program("dask"), ("--no-dashboard", "--host", "127.0.0.1")
    with ExitStack() as stack:
        os.environ["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] = "0"
        scheduler = started(folder, dask, "scheduler", "--port", "0", "--scheduler-file", where, *quiet)
        until(lambda: where.exists() or None, "Dask's scheduler", stack.enter_context(scheduler))
        for _ in range(2):
            words = "worker", "--scheduler-file", where, "--nthreads", "1", "--local-directory", folder, *quiet
            stack.enter_context(started(folder, dask, *words))
        address = json.loads(where.read_text())["address"]
        client = stack.enter_context(Client(address, set_as_default=False))
        client.wait_for_workers(2, timeout=PATIENCE)
        yield f"dask:{address}"


@contextmanager
def ray_cluster(folder: Path) -> Iterator[str]:
    """Yields the engine of a head node of Ray on this machine, with two processors."""
    # A short path, because Ray puts sockets below it, and a socket's path has at most some hundred characters.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as home:
        words = "start", "--head", "--block", "--port", "0", "--num-cpus", "2", "--object-store-memory", "100000000"
        more = "--include-dashboard", "false", "--disable-usage-stats", "--temp-dir", home
        with started(folder, program("ray"), *words, *more) as process:
            until(lambda: b"Ray runtime started" in (folder / "log").read_bytes() or None, "Ray's head", process)
            yield "ray:auto"


CLUSTERS = {"dask": dask_cluster, "ray": ray_cluster}
