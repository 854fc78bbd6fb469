"""After `kill -9` at any point of `forget`, the same call again ends as if there had been no kill."""

import gzip
import json
import shutil
import signal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import zstandard

import forked
from autopilothq.catalog import SUPPRESSIONS
from autopilothq.privacy.deletion import KILL_POINT_ALL_ROWS_DELETED, KILL_POINT_ROWS_DELETED
from autopilothq.privacy.suppression_list import KILL_POINT_LIST_OPENED, KILL_POINT_SUPPRESSED
from autopilothq.segment.identity import HashedIds, Id
from autopilothq.sources.archive.remove_lines import (
    KILL_POINT_FILE_COMPARED,
    KILL_POINT_FILE_REPLACED,
    KILL_POINT_FILE_REWRITTEN,
)
from contract.duck import held
from faults import forgetting
from faults.forgetting import Plan, words
from faults.loads import Table, assert_same, content, line, load, pipeline, track
from faults.test_killed import clean_environment
from shared_loads import command, isolation

# Only the identify connects the email to the tracks.
MESSAGES: list[Any] = [
    {"type": "identify", "messageId": "i-1", "userId": "ada", "traits": {"email": "ada@example.com"}},
    *(track(number, userId="ada") for number in range(5)),
    *(track(number, userId="bob") for number in range(5, 10)),
    {"type": "delete", "messageId": "d-1", "userId": "ada"},
    # Ada's are the latest groups, so the accounts go back to Bob's values.
    {"type": "group", "messageId": "g-1", "groupId": "acme", "userId": "ada", "traits": {"plan": "pro"}},
    {"type": "group", "messageId": "g-0", "groupId": "acme", "userId": "bob", "traits": {"plan": "free"}},
    {"type": "group", "messageId": "g-3", "groupId": "shop", "userId": "ada", "traits": {"email": "ada@example.com"}},
    {"type": "group", "messageId": "g-2", "groupId": "shop", "userId": "bob", "traits": {"plan": "free"}},
]
POINTS: dict[str, tuple[str, str, int]] = {
    "before anything": (KILL_POINT_LIST_OPENED, "before", 1),
    "suppressed, nothing removed": (KILL_POINT_SUPPRESSED, "after", 1),
    "some rows removed": (KILL_POINT_ROWS_DELETED, "after", 2),
    "all rows removed": (KILL_POINT_ALL_ROWS_DELETED, "after", 1),
    "a file begun": (KILL_POINT_FILE_REWRITTEN, "after", 1),
    "a file written aside": (KILL_POINT_FILE_COMPARED, "before", 1),
    "a file replaced": (KILL_POINT_FILE_REPLACED, "after", 1),
    "another written aside": (KILL_POINT_FILE_REPLACED, "before", 2),
}
PIECEMEAL: dict[str, tuple[str, str, int]] = {
    f"{number} statements": (KILL_POINT_ROWS_DELETED, "after", number) for number in (2, 4)
}


def files(folder: Path) -> dict[str, bytes]:
    """Returns the bytes of the archive's files, still compressed."""
    return {path.name: path.read_bytes() for path in sorted((folder / "archive").iterdir())}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder that has a loaded dataset with its archive for each plan."""
    house = tmp_path_factory.mktemp("forgetting")
    (house / "loaded" / "archive").mkdir(parents=True)
    text = b"".join(map(line, MESSAGES))
    (house / "loaded/archive/a.gz").write_bytes(gzip.compress(text, mtime=0))
    (house / "loaded/archive/b.json").write_bytes(text)
    (house / "loaded/archive/c.zst").write_bytes(zstandard.compress(text))
    load(pipeline(house / "loaded"), house / "loaded" / "archive")
    for name in ("undisturbed", *POINTS, *PIECEMEAL):
        shutil.copytree(house / "loaded", house / name)
    return house


@pytest.fixture(scope="module")
def ended(house: Path) -> dict[str, int]:
    """The exit status of each plan's process."""
    points = POINTS | PIECEMEAL
    plans = [Plan(str(house / name), point, name in PIECEMEAL) for name, point in points.items()]
    listed = house / "plans.json"
    listed.write_text(json.dumps(plans))
    done = forked.run(forgetting.__file__, str(listed), cwd=house, env=clean_environment())
    statuses = [int(text.split()[1]) for text in done.stdout.splitlines()]
    assert len(statuses) == len(plans), done.stderr
    return dict(zip(points, statuses, strict=True))


class Forgotten(NamedTuple):
    """The state after a `forget`: the archive's files, all tables, and the suppression list."""

    files: dict[str, bytes]
    tables: dict[str, Table]
    suppressed: Table


@pytest.fixture(scope="module")
def undisturbed(house: Path, tmp_path_factory: pytest.TempPathFactory) -> Forgotten:
    with isolation(tmp_path_factory.mktemp("undisturbed")):
        return forget(house / "undisturbed")


@pytest.mark.parametrize("point", [*POINTS, *PIECEMEAL])
def test_after_a_kill_all_is_as_if_undisturbed(
    point: str, house: Path, ended: dict[str, int], undisturbed: Forgotten
) -> None:
    assert ended[point] == -signal.SIGKILL
    before = files(house / point)
    # At any moment, each file is the old or the new one; temporary files are never loaded.
    for name, found in files(house / "loaded").items():
        assert before[name] in (found, undisturbed.files[name])
    made = forget(house / point)
    assert made.files == undisturbed.files
    assert_same(made.tables, undisturbed.tables)
    groups = {row["id"]: (row["plan"], row["email"]) for row in made.tables["accounts"].dicts()}
    assert groups == {"acme": ("free", None), "shop": ("free", None)}
    assert [persons(of.suppressed) for of in (made, undisturbed)] == [1, 1]


def forget(folder: Path) -> Forgotten:
    with held(folder / "autopilot.duckdb") as database:
        said = command(*words(str(folder)))
        assert said.status == 0, said.err
        tables = content(database)
    suppressed = tables.pop(SUPPRESSIONS.name)
    return Forgotten(files(folder), tables, suppressed)


def persons(table: Table) -> int:
    """Checks that Ada's two ids are on the list; returns how many persons it has."""
    rows = table.dicts()
    hashes = HashedIds((row["salt"], row["id"]) for row in rows)
    assert {row["kind"] for row in rows} == {"email", "user_id"}
    assert len(rows) == 2
    assert Id("email", "ada@example.com") in hashes
    assert Id("user_id", "ada") in hashes
    return len({row["person"] for row in rows})
