"""Makes a `concurrent.futures.Executor` from the name of an engine, and runs tasks on it, with retries."""

import multiprocessing
import os
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from importlib.metadata import version
from queue import SimpleQueue
from typing import Any, Protocol

import duckdb

from ...errors import AutopilothqError, EngineError
from ...extras import PACKAGE, install
from ...warehouses.dlt_internals import logger

TRIES = 3
_INSTALL = "Install the same versions on all machines."
EngineFactory = Callable[[], Executor]
"""A function that makes an executor when a load begins, and another one if its workers died."""


# ---- engines by name -------------------------------------------------------------------------------------------------


def engine_of(name: str) -> EngineFactory:
    """Returns a function that makes the executor for `processes:8`, `dask:tcp://scheduler:8786` or `ray:auto`.

    Raises EngineError for any other text.
    """
    kind, _, where = name.partition(":")
    if kind == "processes" and where.isdecimal() and int(where):
        return lambda: processes(int(where))
    if kind == "dask" and where:
        return lambda: _dask(where)
    if kind == "ray" and where:
        return lambda: RayExecutor(where)
    raise EngineError(f"Expected an engine like processes:8, dask:tcp://scheduler:8786 or ray:auto, but got {name!r}.")


def processes(workers: int) -> Executor:
    """Returns an executor with `workers` processes on this machine, which inherit no open files or connections."""
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _dask(address: str) -> Executor:
    try:
        from distributed import Client
    except ImportError as error:
        raise _missing("dask", "distributed") from error
    try:
        client = Client(address, set_as_default=False)
    except OSError as error:
        raise EngineError(f"Expected Dask's scheduler at {address}, but got {type(error).__name__}: {error}") from error
    return _DaskExecutor(client.get_executor(pure=False), client.close)


class _DaskExecutor(Executor):
    """Dask's executor, which also closes its client when it shuts down."""

    def __init__(self, executor: Executor, close: Callable[[], object]) -> None:
        self._executor = executor
        self._close = close

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Submits a call."""
        return self._executor.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - the interface's
        """Leaves the cluster."""
        self._close()


class RayExecutor(Executor):
    """Ray as an executor: each call is a task of a cluster; `auto` is the cluster that this machine is part of."""

    def __init__(self, address: str) -> None:
        # Ray would print the death of a worker to stdout, where results go. It reads this variable when it is imported.
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
        try:
            import ray
        except ImportError as error:
            raise _missing("ray", "ray") from error
        self._ray = ray
        self._own = not ray.is_initialized()
        if self._own:
            try:
                ray.init(address=address, log_to_driver=False, configure_logging=False)
            except (OSError, ValueError, RuntimeError) as error:
                raise EngineError(f"Expected Ray at {address}, but got {type(error).__name__}: {error}") from error

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Submits a call."""

        def call(*args: Any, **kwargs: Any) -> Any:  # Ray accepts no C function, and pickles this one by value
            return fn(*args, **kwargs)

        remote = self._ray.remote(call).options(max_retries=0, name=run_task.__name__)
        future: Future[Any] = remote.remote(*args, **kwargs).future()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - the interface's
        """Leaves the cluster if this executor has joined it."""
        if self._own:
            self._ray.shutdown()


def _missing(extra: str, package: str) -> EngineError:
    return EngineError(
        f"The engine {extra} needs the package {package}, which is not installed.\nInstall it: {install(extra)}"
    )


# ---- tasks -----------------------------------------------------------------------------------------------------------


class WorkerTask(Protocol):
    """A task for a worker: plain data that can be pickled. `name` is for messages."""

    @property
    def name(self) -> str:
        """What it does, such as `Reading share 3`."""

    def run(self) -> Any:
        """Runs in a worker, and returns plain data."""


def versions() -> tuple[str, str]:
    """Returns the versions of this package and of DuckDB, which determine the digests and files that workers make."""
    return version(PACKAGE), duckdb.__version__


def run_task(expected: tuple[str, str], task: bytes) -> Any:
    """Runs a pickled task in a worker. Raises EngineError if the worker has other versions than the coordinator."""
    if (found := versions()) != expected:
        raise EngineError(
            f"Expected {_named(expected)} on every worker, as on the coordinator, but a worker has {_named(found)}.\n"
            f"{_INSTALL}"
        )
    return pickle.loads(task).run()  # noqa: S301 - the coordinator of this load has pickled it


class _Call:
    """Calls `run_task` when it is unpickled.

    So a worker without this package raises an error, whereas a Dask worker that is sent an unknown function would exit.
    """

    def __init__(self, task: bytes) -> None:
        self._task = task

    def __reduce__(self) -> tuple[Any, ...]:
        return run_task, (versions(), self._task)


def _named(found: tuple[str, str]) -> str:
    return f"{PACKAGE} {found[0]} with DuckDB {found[1]}"


def _error_of(future: "Future[Any]") -> BaseException | None:
    """Returns the error with which a task ended in its worker, or None if it succeeded."""
    try:
        error = future.exception()
    except CancelledError as lost:  # the executor cancelled it, because its cluster lost it
        return lost
    # The text of Ray's own error is a traceback; its cause is the worker's error.
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


class Workers:
    """The workers of one load. A task that fails, or whose worker dies, is tried up to `TRIES` times."""

    def __init__(self, engine: Executor | EngineFactory) -> None:
        """Takes an executor, which stays running, or a function that makes one, which is shut down at the end."""
        self._factory = None if isinstance(engine, Executor) else engine
        self._executor = engine if isinstance(engine, Executor) else engine()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        if self._factory is not None:
            self._executor.shutdown(wait=not any(error), cancel_futures=True)

    def run(self, tasks: Sequence[WorkerTask], done: Callable[[Any], object]) -> list[Any]:
        """Runs tasks and returns their results in order. Calls `done` with each result as soon as its task ends.

        Raises the error of a task that cannot be tried again, and EngineError for one that failed `TRIES` times.
        """
        results: list[Any] = [None] * len(tasks)
        pickled = [pickle.dumps(task) for task in tasks]
        ended: SimpleQueue[Future[Any]] = SimpleQueue()
        running: dict[Future[Any], tuple[int, Executor]] = {}
        tries = [0] * len(tasks)

        def submit(number: int) -> None:
            tries[number] += 1
            future = self._submit(pickled[number])
            running[future] = number, self._executor
            future.add_done_callback(ended.put)

        try:
            for number in range(len(tasks)):
                submit(number)
            while running:
                future = ended.get()
                number, executor = running.pop(future)
                error = _error_of(future)
                if error is None:
                    results[number] = future.result()
                    done(results[number])
                else:
                    self._prepare_retry(error, tasks[number], tries[number], executor)
                    submit(number)
        finally:
            for future in running:
                future.cancel()
        return results

    def _submit(self, task: bytes) -> "Future[Any]":
        call = pickle.dumps(_Call(task))
        try:
            return self._executor.submit(pickle.loads, call)
        except BrokenExecutor:
            self._renew(self._executor)
            return self._executor.submit(pickle.loads, call)

    def _prepare_retry(self, error: BaseException, task: WorkerTask, tries: int, executor: Executor) -> None:
        """Logs that a failed task is tried again, on a new executor if its own broke; raises if it must not be."""
        if isinstance(error, AutopilothqError):
            raise error
        if isinstance(error, ModuleNotFoundError) and PACKAGE.rpartition("-")[2] in str(error):
            raise EngineError(
                f"Expected {_named(versions())} on every worker, but a worker does not have it: {error}\n{_INSTALL}"
            ) from error
        if tries >= TRIES:
            raise EngineError(
                f"{task.name} failed {tries} times on the engine, the last time with {type(error).__name__}: {error}\n"
                "Nothing of this load counts; the next one starts from scratch. The workers' logs may say more."
            ) from error
        logger.warning(f"{task.name} is tried again: {type(error).__name__}: {error}")
        if isinstance(error, BrokenExecutor):
            self._renew(executor)

    def _renew(self, broken: Executor) -> None:
        """Replaces an executor whose workers died, unless it was replaced before; raises EngineError if it cannot."""
        if self._factory is None:
            raise EngineError(
                "A worker of the executor died, and broke the executor.\n"
                "Give a function that makes one (executor=lambda: ProcessPoolExecutor(8)): it is then called again."
            )
        if broken is self._executor:
            broken.shutdown(wait=False, cancel_futures=True)
            self._executor = self._factory()
