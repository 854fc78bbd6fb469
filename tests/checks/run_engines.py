"""Loads on a real Dask cluster of processes, or on Ray: `python run_engines.py dask|ray FOLDER`.

Compares the tables with those of one process, after a first load, and after a second one during which a worker is
killed. Raises where they differ.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import autopilothq
from autopilothq.sources.engine import coordinator, shares
from autopilothq.sources.engine.executors import engine_of
from faults.loads import ODDITIES, file, load, track
from test_engine import MORE, archive_of, into, same

Kill = Callable[[], None]


@contextmanager
def dask_cluster() -> Iterator[tuple[str, Kill]]:
    """The name of the engine of a new cluster of two processes, and what kills one of them."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        workers = list(cluster.workers.values())
        yield f"dask:{cluster.scheduler_address}", lambda: os.kill(workers[0].pid, signal.SIGKILL)


@contextmanager
def ray_cluster() -> Iterator[tuple[str, Kill]]:
    """The name of the engine that starts Ray on this machine for a load, and what kills one of its workers."""
    import ray

    def kill() -> None:
        with suppress(ray.exceptions.WorkerCrashedError):
            ray.get(ray.remote(max_retries=0)(kill_itself).remote())

    yield "ray:local", kill


def kill_itself() -> None:
    """Kills the process that runs it."""
    os.kill(os.getpid(), signal.SIGKILL)


def main(engine: str, folder: Path) -> None:
    """Loads twice, compares twice."""
    setattr(shares, "MIN_SHARE", 1)  # noqa: B010
    setattr(coordinator, "partitions_of", lambda _: 3)  # noqa: B010
    archive = archive_of(folder / "archive")
    with {"dask": dask_cluster, "ray": ray_cluster}[engine]() as (name, kill):
        make, work = engine_of(name), str(folder / "work")
        load(into(folder, "one"), archive)
        report = load(into(folder, "two"), archive, executor=make, work_url=work)
        same(folder)
        assert report.tasks == report.tasks_done > 8
        again = [*ODDITIES, *MORE, track(1_000, properties={"fresh": 1, "mixed": 1, "price": "dear"})]
        file(archive, "again.gz", again)
        load(into(folder, "one"), archive)
        killed = False

        def killing(report: autopilothq.LoadReport) -> None:
            nonlocal killed
            if report.tasks_done and not killed:
                killed = True
                kill()

        into(folder, "two").run(autopilothq.archive(str(archive), progress=killing, executor=make, work_url=work))
        assert killed
        same(folder)
        left = [path for path in Path(work).rglob("*") if path.is_file()]
        assert not left, f"left in the work folder: {left}"


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
