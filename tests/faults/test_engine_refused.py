"""Loads on an engine reject only the rows that a destination refuses (docs/contract/warehouse.md#limits)."""

from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

import autopilothq
from autopilothq import runner
from autopilothq.sources.engine import coordinator, shares
from faults.loads import assert_sound, content, file, track
from faults.test_refused import identify, rejects
from test_engine import Inline

# The constraints by table. They refuse the user c, a track, and the text of a line that is not a message.
REFUSALS = {"email_opened": "id <> 'm-7'", "users": "plan <> 'evil'", "_rejects": "raw <> 'poison'"}


CONSTRAINT = 'new row for relation "{}" violates check constraint "sane"'


def test_refused_rows_are_rejected_alone(tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOAD__RAISE_ON_MAX_RETRIES", "1")
    monkeypatch.setattr(shares, "MIN_SHARE", 1)
    monkeypatch.setattr(coordinator, "partition_count", lambda _: 3)
    archive, work = tmp_path / "archive", tmp_path / "work"
    pipeline = runner.pipeline("postgres", postgres, pipelines_dir=str(tmp_path / "state"))
    reports: list[autopilothq.LoadReport] = []

    def load() -> autopilothq.LoadReport:
        source = autopilothq.archive(str(archive), progress=reports.append, executor=Inline(), work_url=str(work))
        runner.run(pipeline, source)
        return reports[-1]

    file(archive, "1.gz", [track(0), identify(1, "c", plan="old"), b"[]"])
    load()
    with closing(psycopg2.connect(postgres)) as server, server, server.cursor() as cursor:
        for table, condition in REFUSALS.items():
            cursor.execute(f"ALTER TABLE autopilothq.{table} ADD CONSTRAINT sane CHECK ({condition})")
    path = file(archive, "2.gz", [track(7), track(8), identify(40, "c", plan="evil"), identify(41, "b", plan="fair")])
    file(archive, "3.gz", [b"poison", track(8)])
    report = load()

    found = report.lines, report.stored, report.duplicates, report.rejected, report.rejects
    assert found == (6, 2, 1, 3, {"unreadable": 2, "not_json": 1})
    tables = content(postgres)
    del tables["_locks"]
    assert_sound(tables)
    refused = {
        table: f"its row of {table} is refused by the destination: {CONSTRAINT.format(table)}" for table in REFUSALS
    }
    assert rejects(tables) == {
        "m-7": (str(path), 1, refused["email_opened"]), "i-40": (str(path), 3, refused["users"]),
    }  # fmt: skip
    [poisoned] = [row for row in tables["_rejects"].dicts() if row["file"].endswith("3.gz")]
    assert (poisoned["reason"], poisoned["raw"], poisoned["message"]) == ("not_json", "", refused["_rejects"])
    assert {row["id"] for row in tables["tracks"].dicts()} == {"m-0", "m-8"}
    assert {row["id"] for row in tables["email_opened"].dicts()} == {"m-0", "m-8"}
    assert {row["id"] for row in tables["identifies"].dicts()} == {"i-1", "i-41"}
    assert {(row["id"], row["plan"]) for row in tables["users"].dicts()} == {("c", "old"), ("b", "fair")}
    assert [path for path in work.rglob("*") if path.is_file()] == []
