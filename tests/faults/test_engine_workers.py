"""Errors of clusters' workers are reported in the task's own words, and a missing package is named."""

import os
import sys
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from autopilothq.errors import EngineError
from autopilothq.extras import install
from autopilothq.sources.engine import executors
from autopilothq.sources.engine.executors import Workers, engine_of
from test_engine import Inline


@dataclass(frozen=True)
class Nothing:
    """A task that does nothing."""

    name: str = "A task"

    def run(self) -> None:
        """Does nothing."""


class ClusterError(Exception):
    """An error like Ray's, whose text is a traceback."""

    cause: BaseException | None = None


class Wrapping(Inline):
    """An executor that wraps a task's error in its own, with the task's as the cause."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        error = ClusterError("Traceback (most recent call last): …")
        error.cause = super().submit(fn, *args, **kwargs).exception()
        future.set_exception(error)
        return future


class Lacking(Inline):
    """An executor whose workers lack this package."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        with mock.patch.dict(sys.modules, {executors.__name__: None}):
            return super().submit(fn, *args, **kwargs)


def test_an_error_is_reported_in_the_words_of_the_task() -> None:
    versions = mock.patch.object(executors, "versions", side_effect=[("0.0.9", "1.0.0"), ("0.1.0", "1.0.0")])
    with versions, Workers(Wrapping()) as workers, pytest.raises(EngineError) as raised:
        workers.run([Nothing()], lambda _: None)

    assert str(raised.value) == (
        "Expected dlt-autopilothq 0.0.9 with DuckDB 1.0.0 on every worker, as on the coordinator, but a worker has"
        " dlt-autopilothq 0.1.0 with DuckDB 1.0.0.\nInstall the same versions on all machines."
    )


def test_a_worker_without_this_package_says_so() -> None:
    with Workers(Lacking()) as workers, pytest.raises(EngineError) as raised:
        workers.run([Nothing()], lambda _: None)

    package, of_duckdb = executors.versions()
    assert str(raised.value).startswith(
        f"Expected dlt-autopilothq {package} with DuckDB {of_duckdb} on every worker, but a worker does not have it: "
    )


# Like Ray, reads the setting only when the package is imported.
RAY = """
import os
SKIPPED = os.environ.get("RAY_DEDUP_LOGS_SKIP_REGEX")
def is_initialized():
    return True
"""


@pytest.mark.parametrize(("given", "found"), [({}, "."), ({"RAY_DEDUP_LOGS_SKIP_REGEX": "mine"}, "mine")])
def test_ray_is_imported_with_nothing_to_print(
    given: dict[str, str], found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise Ray would print on the caller's stdout that a worker died. A user's own setting stays."""
    (tmp_path / "ray.py").write_text(RAY)
    monkeypatch.syspath_prepend(tmp_path)
    with mock.patch.dict(sys.modules), mock.patch.dict(os.environ):
        sys.modules.pop("ray", None)
        os.environ.pop("RAY_DEDUP_LOGS_SKIP_REGEX", None)
        os.environ.update(given)
        with engine_of("ray:auto")():
            skipped = sys.modules["ray"].SKIPPED
    assert skipped == found


@pytest.mark.parametrize(("engine", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_an_engine_without_its_package_or_its_cluster_says_so(
    engine: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionRefusedError("no route")

    make = engine_of(f"{engine}:somewhere:1")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EngineError) as missing:
        make()
    stub = SimpleNamespace(Client=refuse, init=refuse, is_initialized=lambda: False)
    monkeypatch.setitem(sys.modules, package, stub)
    with pytest.raises(EngineError) as absent:
        make()
    where = {"dask": "Dask's scheduler", "ray": "Ray"}[engine]
    assert str(absent.value) == f"Expected {where} at somewhere:1, but got ConnectionRefusedError: no route"
    assert str(missing.value) == (
        f"The engine {engine} needs the package {package}, which is not installed.\nInstall it: {install(engine)}"
    )


def test_a_cluster_is_left_if_this_load_joined_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that run on a Ray cluster have joined it before."""
    calls: list[Any] = []

    def note(name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: calls.append((name, *args, kwargs))

    class Client:
        close = staticmethod(note("close"))

        def __init__(self, address: str, **options: Any) -> None:
            calls.append((address, options))

        def get_executor(self, **options: Any) -> Inline:
            calls.append(options)
            return Inline()

    monkeypatch.setitem(sys.modules, "distributed", SimpleNamespace(Client=Client))
    with Workers(engine_of("dask:tcp://a:1")) as workers:
        assert workers.run([Nothing()], calls.append) == [None]
    # Equal tasks are not the same one, and each runs.
    assert calls == [("tcp://a:1", {"set_as_default": False}), {"pure": False}, None, ("close", {})]

    class Remote:
        def __init__(self, call: Callable[..., Any]) -> None:
            self.call = call

        def options(self, **options: Any) -> "Remote":
            calls.append(options)
            return self

        def remote(self, *args: Any) -> Any:
            return SimpleNamespace(future=lambda: Inline().submit(self.call, *args))

    quiet = {"address": "auto", "log_to_driver": False, "configure_logging": False}
    once = {"max_retries": 0, "name": "run_task"}  # `Workers` itself tries again
    for has_joined, called in ((True, [once, None]), (False, [("init", quiet), once, None, ("shutdown", {})])):
        calls.clear()
        stub = SimpleNamespace(
            is_initialized=lambda joined=has_joined: joined,
            init=note("init"),
            shutdown=note("shutdown"),
            remote=Remote,
        )
        monkeypatch.setitem(sys.modules, "ray", stub)
        with Workers(engine_of("ray:auto")) as workers:
            assert workers.run([Nothing()], calls.append) == [None]
        assert calls == called


def test_processes_of_this_machine_inherit_no_connections() -> None:
    with engine_of("processes:3")() as pool:
        made = vars(pool)
        assert (made["_max_workers"], made["_mp_context"].get_start_method()) == (3, "spawn")


class Pool(Inline):
    """An executor that notes how it is shut down; it breaks as its task `breaks_at` is submitted."""

    def __init__(self, breaks_at: int = 0) -> None:
        super().__init__()
        self.breaks_at = breaks_at
        self.ended: list[tuple[bool, bool]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        if self.calls + 1 == self.breaks_at:
            raise BrokenProcessPool("a process died")
        return super().submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.ended.append((wait, cancel_futures))


def test_an_executor_is_replaced_when_it_breaks_and_shut_down_in_the_end_if_it_was_made_for_the_load() -> None:
    with Workers(given := Pool()) as workers:
        workers.run([Nothing()], lambda _: None)
    pools = [Pool(breaks_at=2), Pool()]
    waiting = iter(pools)
    with Workers(lambda: next(waiting)) as workers:
        workers.run([Nothing()] * 3, lambda _: None)
    failed = Pool()
    with pytest.raises(ZeroDivisionError), Workers(lambda: failed):
        failed.submit(divmod, 1, 0).result()
    assert [pool.calls for pool in pools] == [1, 2]
    assert [pool.ended for pool in (given, *pools, failed)] == [[], [(False, True)], [(True, True)], [(False, True)]]
