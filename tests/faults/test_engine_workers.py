"""Errors of clusters' workers are reported in the task's own words, and a missing package is named."""

import os
import sys
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from autopilothq.errors import EngineError
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
