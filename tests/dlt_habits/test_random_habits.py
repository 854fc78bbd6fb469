"""After any sequence of features and kills, a plain run stores all rows once, and the books agree."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

import pytest
from dlt.destinations.impl.duckdb.duck import DuckDbCopyJob
from dlt.load.load import Load
from dlt.pipeline.exceptions import PipelineStepFailed
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autopilothq import archive
from dlt_habits.habits import Rows, Target


@contextmanager
def killed(target: Target) -> Iterator[None]:
    """Lets a load fail in the middle, and drops its load package if there is one."""
    with suppress(PipelineStepFailed):
        yield
    if target.pipeline.has_pending_data:
        target.pipeline.abort_packages()


def plain(target: Target, folder: Path) -> None:
    target.run(archive(str(folder / "more.ndjson")))


def limited(target: Target, folder: Path) -> None:
    target.run(archive(str(folder)).add_limit(1))


def one_limited(target: Target, folder: Path) -> None:
    source = archive(str(folder))
    source.tracks.add_limit(1)
    target.run(source)


def mapped(target: Target, folder: Path) -> None:
    source = archive(str(folder))
    source.tracks.add_map(lambda rows: rows)
    target.run(source)


def some_tables(target: Target, folder: Path) -> None:
    target.run(archive(str(folder)).with_resources("tracks", "email_opened", "_audit"))


def no_tracks(target: Target, folder: Path) -> None:
    target.run(archive(str(folder)).with_resources("email_delivered", "identifies", "users", "_rejects", "_audit"))


def without_books(target: Target, folder: Path) -> None:
    target.run(archive(str(folder)).with_resources("email_opened", "other_events"))


def some_events(target: Target, folder: Path) -> None:
    target.run(archive(str(folder), events=["Email Opened", "Shoe Bought"]))


def other_events(target: Target, folder: Path) -> None:
    target.run(archive(str(folder), exclude=["Email Opened"]))


def replaced(target: Target, folder: Path) -> None:
    target.run(archive(str(folder / "more.ndjson")), write_disposition="replace")


def dropped(target: Target, folder: Path) -> None:
    target.run(archive(str(folder / "more.ndjson")).with_resources("tracks", "_audit"), refresh="drop_resources")


def killed_at_the_end(target: Target, folder: Path) -> None:
    with killed(target), patch.object(Load, "complete_package", side_effect=OSError("killed")):
        target.run(archive(str(folder)))


def killed_between_tables(target: Target, folder: Path) -> None:
    run = DuckDbCopyJob.run

    def fail(job: DuckDbCopyJob) -> None:
        if job.load_table_name in ("_audit", "email_opened"):
            raise RuntimeError("killed")
        run(job)

    with killed(target), patch.object(DuckDbCopyJob, "run", fail):
        target.run(archive(str(folder)))


HABITS: dict[str, Callable[[Target, Path], None]] = {
    habit.__name__: habit
    for habit in (
        plain, limited, one_limited, mapped, some_tables, no_tracks, without_books, some_events, other_events,
        replaced, dropped, killed_at_the_end, killed_between_tables,
    )
}  # fmt: skip


def test_any_sequence_of_habits(folder: Path, whole: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOAD__RAISE_ON_MAX_RETRIES", "1")
    number = 0

    # A load takes a second, so there are few sequences, always the same ones.
    @settings(max_examples=2, deadline=None, derandomize=True, database=None)
    @example(["killed_between_tables", "dropped"])
    @given(st.lists(st.sampled_from(sorted(HABITS)), min_size=2, max_size=3))
    def holds(habits: list[str]) -> None:
        nonlocal number
        number += 1
        target = Target(f"habits_{number}")
        for habit in habits:
            try:
                HABITS[habit](target, folder)
            except PipelineStepFailed as error:
                if "Select _audit too" not in str(error):
                    raise
        target.run(archive(str(folder)))
        assert target.tables() == whole
        assert target.balances()

    holds()
