"""After `kill -9` anywhere in a load, the next run completes it (docs/contract/warehouse.md#exactly-once)."""

import json
import random
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb
import pytest

import forked
import stock
from autopilothq.catalog import TABLES
from autopilothq.projection.parse import KILL_POINT_LINES_PARSED
from autopilothq.warehouses.duckdb import KILL_POINT_ROWS_COPIED, KILL_POINT_ROWS_INSERTED
from autopilothq.warehouses.hints import REPLACED
from faults import killed
from faults.killed import Plan
from faults.loads import (
    DATASET,
    FEW_TABLES,
    WHEN,
    Table,
    assert_same,
    assert_sound,
    content,
    load,
    messages,
    odd_archive,
    pipeline,
)
from shared_loads import bare_environment

SETTINGS = {"LOAD__TRUNCATE_STAGING_DATASET": "true", "LOAD__AUTO_ABORT_ON_TERMINAL_ERROR": "true"}

PACKAGE = "dlt.common.storages.load_package:PackageStorage"
STORAGE = "dlt.common.storages.load_storage:LoadStorage"
CLIENT = "dlt.destinations.job_client_impl:SqlJobClientBase"
MERGE = "dlt.destinations.job_client_impl:SqlLoadJob"
COPY = "dlt.destinations.impl.duckdb.duck:DuckDbCopyJob"
READ, NORMALIZED = "lines are read", "all is normalized"
POINTS: dict[str, tuple[str, str, int]] = {
    READ: (KILL_POINT_LINES_PARSED, "after", 1),
    NORMALIZED: ("dlt.pipeline.pipeline:Pipeline.normalize", "after", 1),
    "tables are made": (f"{CLIENT}._execute_schema_update_sql", "after", 1),
    "the schema is stored, unnoticed": (f"{STORAGE}.commit_schema_update", "before", 1),
    "rows of a file, unnoticed": (KILL_POINT_ROWS_INSERTED, "after", 1),
    "rows of another file, unnoticed": (KILL_POINT_ROWS_INSERTED, "after", 9),
    "the books are copied": (KILL_POINT_ROWS_COPIED, "after", 2),
    "the books are merged, unnoticed": (f"{MERGE}.run", "after", 2),
    "the load is to be noted in the destination": (f"{CLIENT}.complete_load", "before", 1),
    "the load is noted in the destination": (f"{CLIENT}.complete_load", "after", 1),
    "the package is put away": (f"{STORAGE}.complete_load_package", "after", 1),
}
# For dlt's own DuckDB destination, which copies into staging tables and merges from there.
STAGED: dict[str, tuple[str, str, int]] = {
    "a copied file, unnoticed": (f"{COPY}.run", "after", 1),
    "a few copied files, unnoticed": (f"{COPY}.run", "after", 4),  # of some 7, if an earlier run completed merges
    "another copied file, unnoticed": (f"{COPY}.run", "after", 9),
    "a copied file, its merge planned": (f"{PACKAGE}.complete_job", "after", 3),
    "a merge, unnoticed": (f"{MERGE}.run", "after", 1),
    "between two merges": (f"{MERGE}.run", "before", 4),  # of some 13, a few of which an earlier kill may leave done
    "all merges but some": (f"{MERGE}.run", "before", 12),
}
# Several kills in a row; True where the run is on a new machine.
ROWS: dict[str, list[tuple[str, bool]]] = {
    "on one machine": [
        ("a copied file, unnoticed", False),
        ("a merge, unnoticed", False),
        ("between two merges", False),
    ],
    "on a machine each": [
        ("between two merges", True),
        ("a few copied files, unnoticed", True),
        ("a merge, unnoticed", True),
    ],
    "on two machines": [
        ("a copied file, its merge planned", False),
        ("lines are read", True),
        ("between two merges", False),
    ],
}
TIMES = [random.Random(seed).uniform(0.1, 1.2) for seed in (1, 2)]
NEVER = 3600.0


class Outcome(NamedTuple):
    """The result of a load: all tables, and the number of files that count as loaded."""

    tables: dict[str, Table]
    files: int


class Killer:
    """Runs plans one after the other, in parallel with the tests, and reports their exit statuses."""

    def __init__(self, folder: Path, plans: Sequence[Plan]) -> None:
        listed = folder / "plans.json"
        listed.write_text(json.dumps(plans))
        self._folders = [plan.folder for plan in plans]
        self._ended: dict[int, int] = {}
        self._complaints = folder / "complaints"
        with self._complaints.open("wb") as complaints:
            self._process = forked.start(
                killed.__file__, str(listed),
                cwd=folder, env=clean_environment(), stdout=forked.PIPE, stderr=complaints, text=True,
            )  # fmt: skip

    def statuses(self, folder: Path) -> list[int]:
        """Returns 0 or minus the signal for each plan of that folder, as soon as all have ended."""
        assert self._process.stdout
        numbers = [number for number, of in enumerate(self._folders) if of == str(folder)]
        while numbers[-1] not in self._ended:
            line = self._process.stdout.readline()
            assert line, self.close()
            plan, status = map(int, line.split())
            self._ended[plan] = status
        return [self._ended[number] for number in numbers]

    def close(self) -> str:
        """Ends the program; returns its stderr."""
        assert self._process.stdout
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        return self._complaints.read_text()


def clean_environment() -> dict[str, str]:
    """Returns an environment without variables that dlt would read, with the project's settings for unattended runs."""
    return bare_environment() | SETTINGS


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def archive(house: Path) -> Path:
    return odd_archive(house / "archive", 0, FEW_TABLES)


@pytest.fixture(scope="module")
def killer(house: Path, archive: Path) -> Iterator[Killer]:
    # To save time, all plans that are killed while loading start from copies of one extracted and normalized load.
    begun = {
        staged: plan(house, archive, f"begun {staged}", POINTS[NORMALIZED], staged=staged) for staged in (False, True)
    }
    plans = [plan(house, archive, "undisturbed", NEVER), *begun.values()]
    for name, point in POINTS.items():
        plans.append(plan(house, archive, name, point, begun=None if name == READ else begun[False].folder))
    plans += [
        plan(house, archive, name, point, staged=True, begun=begun[True].folder) for name, point in STAGED.items()
    ]
    for name, row in ROWS.items():
        (first, _), *rest = row  # the first is always on a fresh machine
        plans.append(plan(house, archive, name, STAGED[first], staged=True, begun=begun[True].folder))
        plans += [plan(house, archive, name, (POINTS | STAGED)[point], new, staged=True) for point, new in rest]
    plans += [plan(house, archive, f"{seconds:.3f}", seconds) for seconds in TIMES]
    program = Killer(house, plans)
    yield program
    program.close()


def plan(
    house: Path,
    archive: Path,
    name: str,
    point: tuple[str, str, int] | float,
    new_machine: bool = False,
    staged: bool = False,
    begun: str | None = None,
) -> Plan:
    folder = house / name
    folder.mkdir(exist_ok=True)
    return Plan(str(archive), str(folder), point, new_machine, staged, begun=begun)


@pytest.fixture(scope="module")
def undisturbed(house: Path, killer: Killer) -> dict[str, Table]:
    assert killer.statuses(house / "undisturbed") == [0], killer.close()
    tables = content(house / "undisturbed" / "autopilot.duckdb")
    assert_sound(tables)
    assert tables["_audit"].total("stored") == messages(tables)
    return tables


@pytest.fixture(scope="module")
def elsewhere() -> dict[str, Outcome]:
    """The result on a new machine for each state of the destination that occurred."""
    return {}


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("point", [*POINTS, *STAGED])
def test_after_a_kill_all_is_as_if_undisturbed(
    point: str,
    house: Path,
    archive: Path,
    killer: Killer,
    undisturbed: dict[str, Table],
    elsewhere: dict[str, Outcome],
) -> None:
    assert killer.statuses(house / point) == [-signal.SIGKILL]
    assert_resumes(house / point, archive, undisturbed, elsewhere, staged=point in STAGED)


@pytest.mark.parametrize("row", ROWS)
def test_after_several_kills_all_is_as_if_undisturbed(
    row: str,
    house: Path,
    archive: Path,
    killer: Killer,
    undisturbed: dict[str, Table],
    elsewhere: dict[str, Outcome],
) -> None:
    assert killer.statuses(house / row) == [-signal.SIGKILL] * len(ROWS[row])
    assert_resumes(house / row, archive, undisturbed, elsewhere, staged=True)


@pytest.mark.parametrize("seconds", TIMES)
def test_after_a_kill_at_any_time_all_is_as_if_undisturbed(
    seconds: float,
    house: Path,
    archive: Path,
    killer: Killer,
    undisturbed: dict[str, Table],
    elsewhere: dict[str, Outcome],
) -> None:
    assert killer.statuses(house / f"{seconds:.3f}") in ([-signal.SIGKILL], [0])
    assert_resumes(house / f"{seconds:.3f}", archive, undisturbed, elsewhere)


def assert_resumes(
    folder: Path,
    archive: Path,
    undisturbed: dict[str, Table],
    elsewhere: dict[str, Outcome],
    staged: bool = False,
) -> None:
    """Checks the next run, with the working folder and on a new machine that has only the destination."""
    new_machine = folder / "new machine"
    new_machine.mkdir()
    for database in folder.glob("autopilot.duckdb*"):
        shutil.copy(database, new_machine)
    assert_complete(resumed(folder, archive, staged), undisturbed)
    # A new machine sees only the destination, so equal destinations need only one try.
    found = f"staged {staged}, {state(new_machine / 'autopilot.duckdb')}"
    if found not in elsewhere:
        elsewhere[found] = resumed(new_machine, archive, staged)
    assert_complete(elsewhere[found], undisturbed)


def resumed(place: Path, archive: Path, staged: bool) -> Outcome:
    database = str(place / "autopilot.duckdb")
    with duckdb.connect(database) as file:  # keeps it open
        file.execute("SET threads = 1")  # a second thread would only wait
        load(pipeline(place, stock.duckdb(database) if staged else None), archive)
        return Outcome(content(file), loaded_files(file))


def assert_complete(outcome: Outcome, undisturbed: dict[str, Table]) -> None:
    tables = outcome.tables
    assert_sound(tables)
    assert_same(tables, undisturbed, but=["_audit"])
    # Messages that the killed load stored count as duplicates in the next, so these two counts may differ.
    assert accounts(tables["_audit"]) == accounts(undisturbed["_audit"])
    assert outcome.files == len(tables["_audit"].rows)


# Columns that differ between equal loads: times, and names that contain them.
VARIES = WHEN | {"inserted_at", "created_at", "state", "version_hash", "_dlt_load_id", "_dlt_id"}


def state(database: Path) -> list[tuple[object, ...]]:
    """Returns all that a DuckDB file holds, with staging and dlt's own tables. Equal files are the same to a load."""
    if not database.exists():
        return []
    with duckdb.connect(str(database)) as file:
        tables = file.execute("SELECT schema_name, table_name FROM duckdb_tables() ORDER BY ALL").fetchall()
        return [
            (schema, name, relation.columns, sorted(relation.fetchall(), key=repr))
            for schema, name in tables
            for relation in [file.sql(f"SELECT COLUMNS(c -> c NOT IN {tuple(VARIES)}) FROM {schema}.{name}")]
        ]


def loaded_files(books: duckdb.DuckDBPyConnection) -> int:
    """Returns how many files count as loaded, because their load is complete."""
    loads = f"SELECT load_id FROM {DATASET}._dlt_loads WHERE status = 0"
    [(count,)] = books.execute(f"SELECT count(*) FROM {DATASET}._audit WHERE load_id IN ({loads})").fetchall()
    return int(count)


def accounts(audit: Table) -> list[tuple[object, ...]]:
    kept = ("file", "version", "size", "lines", "rejected", "first_received_at", "last_received_at")
    return [tuple(row[column] for column in kept) for row in audit.dicts()]


def test_copies_go_on_a_new_machine_that_dlt_left_nothing_for(
    tmp_path: Path, house: Path, archive: Path, undisturbed: dict[str, Table]
) -> None:
    # There are tables whose rows are replaced and tables that only grow, so both ways of writing are tried.
    assert {TABLES.get(table) in REPLACED for table in undisturbed} == {False, True}
    for database in (house / "undisturbed").glob("autopilot.duckdb*"):
        shutil.copy(database, tmp_path)
    with duckdb.connect(str(tmp_path / "autopilot.duckdb")) as books:
        for table in undisturbed:
            books.execute(f"INSERT INTO {DATASET}.{table} FROM {DATASET}.{table}")
        books.execute(f"DELETE FROM {DATASET}._dlt_pipeline_state")
    load(pipeline(tmp_path), archive)
    assert_same(content(tmp_path / "autopilot.duckdb"), undisturbed)
