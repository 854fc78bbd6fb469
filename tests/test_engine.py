"""Loads on an engine: the tables of a load in one process, to the row, the column, the order and the type."""

import pickle
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pytest

import autopilothq
from autopilothq.sources.engine import coordinator, shares
from autopilothq.warehouses.duckdb import direct
from faults.loads import DATASET, ODDITIES, assert_same, assert_sound, content, file, load, track


class Inline(Executor):
    """An executor whose calls run at once, in this process; `calls` counts them."""

    def __init__(self) -> None:
        self.calls = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        self.calls += 1
        future: Future[Any] = Future()
        try:
            future.set_result(pickle.loads(pickle.dumps(fn(*args, **kwargs))))  # noqa: S301
        except Exception as error:  # noqa: BLE001 - as every executor does
            future.set_exception(error)
        return future


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts small loads as large ones are: a file a share, three partitions."""
    monkeypatch.setattr(shares, "MIN_SHARE", 1)
    monkeypatch.setattr(coordinator, "partitions_of", lambda _: 3)


def both(folder: Path, url: Path | str, **options: Any) -> tuple[autopilothq.LoadReport, autopilothq.LoadReport]:
    """Loads the same into two DuckDB files, in one process and on an engine; the reports."""
    with duckdb.connect(str(folder / "one.duckdb")), duckdb.connect(str(folder / "two.duckdb")):  # opened once
        one = load(into(folder, "one"), url, **options)
        work = str(folder / "work")
        return one, load(into(folder, "two"), url, executor=Inline(), work_url=work, **options)


def into(folder: Path, name: str) -> dlt.Pipeline:
    """A pipeline of that name, into a DuckDB file of that name."""
    database = direct(str(folder / f"{name}.duckdb"))
    return dlt.pipeline(name, pipelines_dir=str(folder / "state"), destination=database, dataset_name=DATASET)


def same(folder: Path) -> None:
    """Both files have the same tables, and the same columns in the same order."""
    one, two = (content(folder / f"{name}.duckdb") for name in ("one", "two"))
    assert_same(two, one)
    assert {name: list(table.columns.items()) for name, table in two.items()} == {
        name: list(table.columns.items()) for name, table in one.items()
    }


# Columns of one message each, names that are shortened, numbers that become text, and users of several partitions.
MORE: list[Any] = [
    *(track(100 + n, event="Wide", properties={f"key_{n}": n, "x" * 90 + str(n % 3): "a"}) for n in range(9)),
    *(track(200 + n, properties={"mixed": n if n % 2 else n / 2, "late": "a" if n == 19 else n}) for n in range(20)),
    *(
        {"type": "identify", "userId": f"u{n % 7}", "messageId": f"more-{n}", "traits": {f"t{n % 5}": n},
         "receivedAt": f"2019-03-02T00:00:{n:02}Z"}
        for n in range(30)
    ),
]  # fmt: skip
COUNTED = (
    "files", "files_done", "bytes", "bytes_done", "lines", "stored", "duplicates", "rejected", "rejects", "discards",
    "beyond_limits", "rows", "unfinished",
)  # fmt: skip


def archive_of(folder: Path, *more: Any) -> Path:
    """A small archive of three files with everything odd in it."""
    file(folder, "odd.gz", ODDITIES)
    file(folder, "replayed.json", ODDITIES[-10:])
    file(folder, "more.json", [*MORE, *more])
    return folder


def test_the_tables_are_those_of_one_process(tmp_path: Path) -> None:
    one, two = both(tmp_path, archive_of(tmp_path / "archive"))

    same(tmp_path)
    assert two.tasks == two.tasks_done > 8
    assert {name: getattr(two, name) for name in COUNTED} == {name: getattr(one, name) for name in COUNTED}


def test_later_loads_find_what_is_stored(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "archive")
    both(tmp_path, archive)
    # The same lines under another name, and new ones, with a column that the tables lack and one whose type stays.
    again = [*ODDITIES, *MORE, track(1_000, properties={"fresh": 1, "mixed": 1, "price": "dear"})]
    file(archive, "again.gz", [*again, {**MORE[-1], "messageId": "later", "traits": {"t9": 1}}])

    one, two = both(tmp_path, archive)

    same(tmp_path)
    assert {name: getattr(two, name) for name in COUNTED} == {name: getattr(one, name) for name in COUNTED}
    assert two.duplicates > 50
    assert_sound(content(tmp_path / "two.duckdb"))


def test_a_message_of_1500_keys(tmp_path: Path) -> None:
    wide = [track(n, messageId=f"many-{n}", properties={f"p{n * k}": k for k in range(1_500)}) for n in (1, 2)]
    both(tmp_path, file(tmp_path / "archive", "1.json", wide))

    same(tmp_path)


def test_no_more_tables_of_events_than_are_allowed(tmp_path: Path) -> None:
    archive = file(tmp_path, "1.gz", [track(n, event=f"Event {n % 9}", properties={"a": n}) for n in range(60)])

    one, two = both(tmp_path, archive, max_event_tables=3)

    same(tmp_path)
    assert two.beyond_limits == one.beyond_limits != {}


def test_selected_events_and_what_is_selected_later(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "archive")

    for events in ("Wide", "Wide,Email Opened"):
        both(tmp_path, archive, events=events)

    same(tmp_path)
