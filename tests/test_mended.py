"""Texts that Segment cut in adopted rows, and an archive that has them whole (docs/contract/adopt.md#cut-text)."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import dlt
import pyarrow as pa
import pytest

import autopilothq
from adopted import Row
from cut import CHANGED, DUCKS, URL, archive, of_duckdb, of_lake, of_postgres, tables, unload, write
from shared_loads import command, isolation

PAGE = {"context_page_url": URL}
WHOLE = {
    "email_opened": {
        "o1": {"note": DUCKS, "campaign_name": URL, "tree_deep": URL, **PAGE},
        "o2": PAGE,
        "o3": PAGE,
        "o4": PAGE,
        "o5": {"note": URL, **PAGE},
        "o6": {"note": URL, **PAGE},
        "nowhere": {},
    },
    "tracks": {"o1": PAGE, "o2": PAGE, "o3": PAGE, "o4": PAGE, "o5": PAGE, "o6": PAGE, "t1": PAGE, "nowhere": {}},
    "identifies": {"i1": {"bio": URL, **PAGE}},
}
NEW = {"email_opened": {"new", "early"}, "tracks": {"new", "early"}, "identifies": set()}


class Mended:
    """An adoption, and an archive that is loaded afterwards, into one destination."""

    def __init__(self, home: Path, rows: Callable[[str], list[Row]], *words: str) -> None:
        self.archive = archive(home / "archive")
        assert command("adopt", str(unload(home / "unload")), *words).status == 0
        self.before = tables(rows)
        self.said = command("load", "archive", str(self.archive), *words)
        self.after = tables(rows)


def check(mended: Mended) -> None:
    """What was cut is whole, all other cells are as they were, and what is new has come."""
    assert mended.said.status == 0, mended.said.err
    for table, whole in WHOLE.items():
        before, after = ({row["id"]: row for row in of[table]} for of in (mended.before, mended.after))
        assert {id_: after[id_] for id_ in before} == {id_: before[id_] | whole[id_] for id_ in before}, table
        assert after.keys() - before.keys() == NEW[table]
    [user], [was] = ([row | {"uuid_ts": ""} for row in of["users"]] for of in (mended.after, mended.before))
    assert user == was | {"bio": URL, **PAGE}
    assert [row["mended"] for row in mended.after["_audit"]] == [10, 4, 0, 0, 0]
    assert "\n14 texts that were cut are whole again\n" in mended.said.out


class MendedTwice(Mended):
    """The same, and the archive once more with a message that has changed."""

    def __init__(self, home: Path) -> None:
        super().__init__(home, of_duckdb("autopilot.duckdb"))
        self.status = command("status")
        again = write(shutil.copytree(self.archive, home / "again"), {"3.json": CHANGED})
        self.again = command("load", "archive", str(again), "--json")
        self.at_last = tables(of_duckdb("autopilot.duckdb"))


@pytest.fixture(scope="module")
def mended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MendedTwice]:
    home = tmp_path_factory.mktemp("mended")
    with isolation(home):
        yield MendedTwice(home)


def test_what_was_cut_becomes_whole_and_nothing_else_changes(mended: MendedTwice) -> None:
    check(mended)
    assert ", 8 duplicates, 0 rejected, 14 mended" in mended.status.out


def test_what_is_whole_or_was_no_adopted_row_stays(mended: MendedTwice) -> None:
    report = json.loads(mended.again.out)
    assert (report["lines"], report["stored"], report["duplicates"], report["mended"]) == (12, 0, 12, 0)
    for table in WHOLE:
        assert mended.at_last[table] == mended.after[table]


def test_the_same_in_postgresql(postgres: str, tmp_path: Path) -> None:
    check(Mended(tmp_path, of_postgres(postgres), "--destination", "postgres", "--credentials", postgres))


def test_the_same_in_a_lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = str(tmp_path / "lake")
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", lake)
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__TABLE_FORMAT", "delta")
    check(Mended(tmp_path, of_lake(lake), "--destination", "filesystem"))


def test_a_step_of_a_user_sees_no_adopted_row_again(tmp_path: Path) -> None:
    pipeline = dlt.pipeline("own", destination=dlt.destinations.duckdb("own.duckdb"), dataset_name="autopilothq")
    pipeline.run(autopilothq.adopt(str(unload(tmp_path / "unload"))))
    seen: list[str] = []

    def look(rows: pa.Table) -> pa.Table:
        seen.extend(rows["id"].to_pylist())
        return rows

    reports: list[autopilothq.LoadReport] = []
    source = autopilothq.archive(str(archive(tmp_path / "archive")), progress=reports.append)
    source.resources["email_opened"].add_map(look)
    pipeline.run(source)
    assert sorted(seen) == ["early", "new"]
    found = tables(of_duckdb("own.duckdb"))
    assert {row["id"]: len(row["context_page_url"]) for row in found["email_opened"] if row["id"] in ("o1", "new")} == {
        "o1": 512, "new": len(URL),
    }  # fmt: skip
    assert all(len(row["context_page_url"]) == len(URL) for row in found["tracks"] if row["id"] != "nowhere")
    assert reports[-1].warnings == [
        (
            "Texts of 6 rows of email_opened stay cut: a step of yours, or a schema contract, would see these rows once"
            " more."
        )
    ]
