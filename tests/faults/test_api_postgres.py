"""A scan into a real PostgreSQL stores the same rows as into DuckDB, also after the account has shrunk."""

from pathlib import Path
from typing import Any

import pytest

import autopilothq
from autopilothq.warehouses.postgres import postgres as postgres_destination
from fake_autopilot import FakeAutopilot, account
from faults.loads import Table, content, in_memory, pipeline


def scan(folder: Path, server: FakeAutopilot, destination: Any = None, **words: Any) -> autopilothq.LoadReport:
    reports: list[autopilothq.LoadReport] = []
    settings: dict[str, Any] = {"base_url": server.base_url, "requests_per_second": 10_000, "progress": reports.append}
    pipeline(folder, destination).run(autopilothq.api(server.key, **settings | words))
    return reports[-1]


def rows(table: Table) -> list[dict[str, Any]]:
    """Returns the rows without the times of the scan."""
    clocks = ("received_at", "uuid_ts", "discarded_at")
    found = [{name: cell for name, cell in row.items() if name not in clocks} for row in table.dicts()]
    return sorted(found, key=repr)


def test_an_account_is_the_same_as_in_duckdb(tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "PAGE", 20)  # smaller pages make the test faster
    destination, duck = postgres_destination(postgres), in_memory()
    with FakeAutopilot(contacts=30) as server:
        server.account.change(server.account.contact_id(3), created_at="yesterday", mail_opened={"k": "soon"})
        assert scan(tmp_path / "postgres", server, destination, max_seconds=0).contacts == 20
        assert scan(tmp_path / "postgres", server, destination).contacts == 30
        scan(tmp_path, server, duck)
        there, here = content(postgres), content(duck)
        assert there.keys() == here.keys()
        for name in here.keys() - {"_audit"}:
            assert sorted(there[name].columns.items()) == sorted(here[name].columns.items())
            assert list(map(sorted, map(dict.items, rows(there[name])))) == list(
                map(sorted, map(dict.items, rows(here[name])))
            )

        server.account.delete(server.account.contact_id(0))
        server.order("GET", "/lists", content={"lists": []})
        server.order("GET", "/triggers", content={"triggers": []})
        assert scan(tmp_path / "postgres", server, destination).stored == 0
    again = content(postgres)
    assert (again["lists"].rows, again["lists_contacts"].rows, again["triggers"].rows) == ([], [], [])
    assert [bool(row["deleted_at"]) for row in again["contacts"].dicts()] == [True, *[False] * 29]
    assert (again["tracks"].rows, again["_discards"].rows) == (there["tracks"].rows, there["_discards"].rows)
