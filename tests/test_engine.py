"""Loads on an engine make the same tables as loads in one process: rows, columns, their order and types."""

import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, NamedTuple

import dlt
import pytest

import autopilothq
from autopilothq.sources.engine import coordinator, shares
from autopilothq.warehouses.duckdb import direct
from contract.duck import held
from faults.loads import DATASET, ODDITIES, assert_same, assert_sound, content, file, load, track
from prepared import as_prepared, preparing
from shared_loads import isolation


class Inline(Executor):
    """An executor that runs each call immediately in this process; `calls` counts them."""

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


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Cuts small loads like large ones: into shares of one file, and two partitions."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(shares, "MIN_SHARE", 1)
        monkeypatch.setattr(coordinator, "partition_count", lambda _: 2)
        yield


def both(folder: Path, url: Path | str, **options: Any) -> tuple[autopilothq.LoadReport, autopilothq.LoadReport]:
    """Loads the same into two DuckDB files, in one process and on an engine; returns the reports."""
    with held(folder / "one.duckdb"), held(folder / "two.duckdb"):
        one = load(into(folder, "one"), url, **options)
        work = str(folder / "work")
        return one, load(into(folder, "two"), url, executor=Inline(), work_url=work, **options)


def into(folder: Path, name: str) -> dlt.Pipeline:
    """Returns a pipeline of that name into a DuckDB file of that name."""
    database = direct(str(folder / f"{name}.duckdb"))
    return dlt.pipeline(name, pipelines_dir=str(folder / "state"), destination=database, dataset_name=DATASET)


def same(folder: Path) -> None:
    """Checks that both files have the same tables, with the same columns in the same order."""
    one, two = (content(folder / f"{name}.duckdb") for name in ("one", "two"))
    assert_same(two, one)
    assert {name: list(table.columns.items()) for name, table in two.items()} == {
        name: list(table.columns.items()) for name, table in one.items()
    }


# Columns of only one message, names to shorten, numbers that become text, and users in several partitions.
MORE: list[Any] = [
    b"id,email",  # no JSON, with a likely cause
    b'{"a":1}{"b":2}',
    *(track(100 + n, event="Wide", properties={f"key_{n}": n, "x" * 90 + str(n % 3): "a"}) for n in range(9)),
    *(track(200 + n, properties={"mixed": n if n % 2 else n / 2, "late": "a" if n == 19 else n}) for n in range(20)),
    *(
        {"type": "identify", "userId": f"u{n % 7}", "messageId": f"more-{n}", "traits": {f"t{n % 5}": n},
         "receivedAt": f"2019-03-02T00:00:{n:02}Z"}
        for n in range(30)
    ),
]  # fmt: skip
COUNTED = (
    "files", "files_done", "bytes", "bytes_done", "lines", "stored", "duplicates", "rejected", "rejects",
    "reject_causes", "discards",
    "beyond_limits", "rows", "unfinished",
)  # fmt: skip


def archive_of(folder: Path, *more: Any) -> Path:
    """Makes a small archive of three files with all oddities."""
    file(folder, "odd.gz", ODDITIES)
    file(folder, "replayed.json", ODDITIES[-10:])
    file(folder, "more.json", [*MORE, *more])
    return folder


class Loaded(NamedTuple):
    """The folder of two loads of a small archive, in one process and on an engine, and their reports."""

    folder: Path
    one: autopilothq.LoadReport
    two: autopilothq.LoadReport


@pytest.fixture(scope="module")
def prepared(small: None, tmp_path_factory: pytest.TempPathFactory) -> Loaded:  # noqa: ARG001 - it cuts these loads
    with preparing(tmp_path_factory.mktemp("engine")) as home:
        return Loaded(home, *both(home, archive_of(home / "archive")))


@pytest.fixture
def loaded(prepared: Loaded) -> Iterator[Loaded]:
    """Works in a copy of the folder of both loads; returns it."""
    with as_prepared(prepared.folder):
        yield prepared


def test_the_tables_are_those_of_one_process(loaded: Loaded) -> None:
    folder, one, two = loaded

    same(folder)
    assert two.tasks == two.tasks_done > 8
    assert {name: getattr(two, name) for name in COUNTED} == {name: getattr(one, name) for name in COUNTED}
    assert [*two.rejects.items(), *two.reject_causes.items()] == [*one.rejects.items(), *one.reject_causes.items()]


def test_later_loads_find_what_is_stored(loaded: Loaded) -> None:
    folder, archive = loaded.folder, loaded.folder / "archive"
    # The same lines in another file, and new ones, with a new column and one whose type stays.
    again = [*ODDITIES, *MORE, track(1_000, properties={"fresh": 1, "mixed": 1, "price": "dear"})]
    file(archive, "again.gz", [*again, {**MORE[-1], "messageId": "later", "traits": {"t9": 1}}])

    one, two = both(folder, archive)

    same(folder)
    assert {name: getattr(two, name) for name in COUNTED} == {name: getattr(one, name) for name in COUNTED}
    assert two.duplicates > 50
    assert_sound(content(folder / "two.duckdb"))


@pytest.fixture(scope="module")
def limited(small: None, tmp_path_factory: pytest.TempPathFactory) -> Loaded:  # noqa: ARG001 - it cuts these loads
    """Loads more events than may have tables, and two messages of 1,500 keys, most of which are the same."""
    keys = {1: range(1_500), 2: range(100, 1_600)}
    wide = [track(n, messageId=f"many-{n}", properties={f"p{k}": k for k in keys[n]}) for n in keys]
    events = [track(n, event=f"Event {n % 9}", properties={"a": n}) for n in range(60)]
    home = tmp_path_factory.mktemp("limited")
    with isolation(home):
        return Loaded(home, *both(home, file(home / "archive", "1.gz", [*wide, *events]), max_event_tables=3))


def test_a_message_of_1500_keys(limited: Loaded) -> None:
    same(limited.folder)
    columns = content(limited.folder / "two.duckdb")["email_opened"].columns
    assert {f"p{k}" for k in range(1_600)} <= columns.keys()


def test_no_more_tables_of_events_than_are_allowed(limited: Loaded) -> None:
    same(limited.folder)
    assert limited.two.beyond_limits == limited.one.beyond_limits != {}


def test_selected_events_and_what_is_selected_later(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    # Only tracks and identifies: selections of events do not concern other messages, and each table takes time.
    file(archive, "odd.gz", [line for line in ODDITIES if isinstance(line, bytes) or line["type"] == "track"])
    file(archive, "more.json", MORE)

    for events in ("Wide", "Wide,Email Opened"):
        both(tmp_path, archive, events=events)
    told = [report.warnings for report in both(tmp_path, archive, events="Emial Opened")]
    nothing = (
        "The name emial_opened selects nothing: no event that was read has it, and neither Autopilot's events nor the"
        " dataset's tables do (did you mean email_opened?)."
    )
    assert told == [[nothing], [nothing]]

    same(tmp_path)
