"""Real clusters on this machine, started as their users start them: Dask's scheduler with workers, and a head of Ray.

Both run in another folder than the load, and have the environment that they are started with.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")
PATIENCE = 120  # seconds for a cluster to come up, or for a worker to have something to do


class Cluster(NamedTuple):
    """The name of its engine, and what kills a worker that is at a task."""

    engine: str
    kill_busy_worker: Callable[[], None]


def program(name: str) -> Path:
    """A program of this environment."""
    return Path(sys.executable).parent / name


def until(find: Callable[[], T | None], what: str, process: "subprocess.Popen[bytes] | None" = None) -> T:
    """Waits for what is looked for again and again, as long as the process lives that is to bring it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        if (found := find()) is not None:
            return found
        time.sleep(0.05)
    raise TimeoutError(f"Expected {what} within {PATIENCE} s, but it did not come: see elsewhere/log.")


@contextmanager
def started(folder: Path, *words: str | Path) -> "Iterator[subprocess.Popen[bytes]]":
    """A program that runs in a folder until it is left."""
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
def dask_cluster(folder: Path) -> Iterator[Cluster]:
    """A scheduler, and two workers of one thread each. Dask itself tries nothing again: this project does."""
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

        def kill() -> None:
            busy = until(lambda: next((worker for worker, keys in client.processing().items() if keys), None), "a task")
            os.kill(client.run(os.getpid, workers=[busy])[busy], signal.SIGKILL)

        yield Cluster(f"dask:{address}", kill)


@contextmanager
def ray_cluster(folder: Path) -> Iterator[Cluster]:
    """The head of Ray on this machine, with two processors."""
    # Names of sockets are below it, and no longer than a hundred letters.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as home:
        words = "start", "--head", "--block", "--port", "0", "--num-cpus", "2", "--object-store-memory", "100000000"
        more = "--include-dashboard", "false", "--disable-usage-stats", "--temp-dir", home
        with started(folder, program("ray"), *words, *more) as process:
            until(lambda: b"Ray runtime started" in (folder / "log").read_bytes() or None, "Ray's head", process)
            yield Cluster("ray:auto", lambda: os.kill(until(lambda: _busy_in(home), "a task"), signal.SIGKILL))


def _busy_in(home: str) -> int | None:
    """The process that is at a task of this project in the Ray whose folder is `home`."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().startswith(b"ray::run_task"):
                parent = path.with_name("stat").read_text().rpartition(")")[2].split()[1]
                if home.encode() in Path("/proc", parent, "cmdline").read_bytes():
                    return int(path.parent.name)
    return None


CLUSTERS = {"dask": dask_cluster, "ray": ray_cluster}
