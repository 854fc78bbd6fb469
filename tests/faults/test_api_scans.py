"""If a scan ends early, its pages are loaded and not fetched again, and stored rows stay as they are."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import autopilothq
from autopilothq import LoadReport, catalog, runner
from autopilothq.errors import RunError
from contract.duck import held, pipeline, query, tables
from contract.loading import Row
from fake_autopilot import Account, FakeAutopilot, account

BOOKS = ["_rejects", "_discards", "_audit"]
WHEN = ("uuid_ts", "received_at", "discarded_at", "rejected_at")


PAGE = 20


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAutopilot]:
    """An account of three pages of contacts. A page of Autopilot's has 100 contacts; fewer make the tests faster.

    The database is held open, because to open it for each scan and each query takes time.
    """
    monkeypatch.setattr(account, "PAGE", PAGE)
    with FakeAutopilot(contacts=50) as running, held():
        yield running


def scan(server: FakeAutopilot, *only: str, **words: Any) -> LoadReport:
    """Loads the tables named, or all, as the command does, and returns the report."""
    reports: list[LoadReport] = []
    settings: dict[str, Any] = {"api_key": server.key, "base_url": server.base_url, "requests_per_second": 10_000}
    source = autopilothq.api(**settings | {"tries": 1, "progress": reports.append} | words)
    runner.run(pipeline(), source.with_resources(*only, *BOOKS) if only else source)
    return reports[-1]


def paths(server: FakeAutopilot) -> list[str]:
    """Returns the paths of the requests since the last call."""
    asked = [request.path for request in server.requests]
    server.requests.clear()
    return asked


def page(server: FakeAutopilot, number: int) -> str:
    """Returns the path of a page of contacts, counted from 1."""
    return "/contacts" if number == 1 else f"/contacts/{server.account.contact_id((number - 1) * PAGE - 1)}"


def whole(server: FakeAutopilot) -> None:
    """Checks that all contacts are stored once, and also all their events if these were loaded."""
    made = [server.account.contact(number) for number in range(server.account.made)]
    found = tables()
    assert [row["contact_id"] for row in found["contacts"]] == [contact["contact_id"] for contact in made]
    assert not any(row["deleted_at"] for row in found["contacts"])
    if "tracks" not in found:
        return
    events = [key for contact in made for name, *_ in catalog.MAILS for key in contact.get(name, ())]
    assert len({row["id"] for row in found["tracks"]}) == len(found["tracks"]) == len(events)


def kept(rows: list[Row]) -> list[Row]:
    return [{name: value for name, value in row.items() if name not in WHEN} for row in rows]


def versions() -> list[str]:
    """Returns the versions of the scan of contacts in `_audit`, without times."""
    found = query("SELECT version FROM autopilothq._audit WHERE file LIKE '%/contacts' ORDER BY loaded_at")
    return [" ".join(word for word in version.split() if "T" not in word) for (version,) in found]


def test_a_scan_goes_on_when_the_network_is_back(server: FakeAutopilot) -> None:
    gone = server.order("GET", "/contacts/*", skip=0, times=10**6, drop="before")
    report = scan(server, "tracks", "contacts")
    assert (report.contacts, report.contacts_total) == (20, 50)
    assert report.cut_off is not None
    assert report.cut_off.startswith(f"GET {page(server, 2)}: ")
    assert report.unfinished == {f"{server.base_url}/contacts": report.cut_off}
    assert paths(server) == [page(server, number) for number in (1, 2)]
    assert len(tables()["contacts"]) == 20
    with pytest.raises(RunError, match=r"GET /contacts/.*: "):
        scan(server, "tracks", "contacts")  # this scan got no page at all
    assert paths(server) == [page(server, 2)]

    gone.times = 0
    report = scan(server, "tracks", "contacts")
    assert (report.contacts, report.contacts_total, report.cut_off) == (50, 50, None)
    assert paths(server) == [page(server, number) for number in (2, 3)]
    whole(server)
    assert versions() == ["unfinished", "from page 2"]
    started = query("SELECT DISTINCT version[:24] FROM autopilothq._audit")
    assert len(started) == len(query("SELECT DISTINCT received_at FROM autopilothq.tracks")) == 1

    scan(server, "tracks", "contacts")
    assert paths(server) == [page(server, number) for number in (1, 2, 3)]


def test_a_budget_of_time_ends_a_scan_that_the_next_ones_finish_on_other_machines(server: FakeAutopilot) -> None:
    for number in (1, 2, 3):
        report = scan(server, "tracks", "contacts", max_seconds=0)
        assert paths(server) == [page(server, number)]
        assert report.cut_off is None
        assert (report.contacts, bool(report.unfinished)) == (min(50, number * PAGE), number < 3)
        if number == 1:
            shutil.rmtree(Path(os.environ["DLT_DATA_DIR"]))
    whole(server)
    assert versions() == ["unfinished", "from page 2 unfinished", "from page 3"]


def failure(report: LoadReport, part: str = "contacts") -> str:
    """Checks that only this part failed; returns the reason."""
    assert (list(report.failed), report.cut_off) == ([part], None)
    return report.failed[part]


def test_a_malformed_page_stops_the_scan_and_is_requested_again(server: FakeAutopilot) -> None:
    server.order("GET", page(server, 3), content={"error": "none"})
    why = failure(scan(server, "contacts"))
    assert re.match(r"GET /contacts/person_\S+ \(page 3 of this scan\): expected an object with a list", why)
    assert len(tables()["contacts"]) == 40
    paths(server)
    scan(server, "contacts")
    assert paths(server) == [page(server, 3)]
    whole(server)


def test_a_repeated_bookmark_stops_the_scan_and_the_next_load_restarts_it(server: FakeAutopilot) -> None:
    first = server.account.contact_id(PAGE - 1)
    server.order("GET", page(server, 2), edit=lambda answer: answer | {"bookmark": first}, times=2)
    repeats = f"bookmark '{first}' came before; stopped, because the scan would never end"
    assert failure(scan(server, "contacts")).endswith(repeats)
    assert failure(scan(server, "contacts")).endswith(repeats)
    assert len(tables()["contacts"]) == 20
    paths(server)
    scan(server, "contacts")
    assert paths(server) == [page(server, number) for number in (1, 2, 3)]
    whole(server)


def test_a_bookmark_that_is_refused_later_restarts_the_scan(server: FakeAutopilot) -> None:
    scan(server, "contacts", max_seconds=0)
    server.order("GET", page(server, 2), status=400, message="Invalid bookmark provided.")
    assert failure(scan(server, "contacts")).endswith(": 400 Bad Request: Invalid bookmark provided.")
    paths(server)
    scan(server, "contacts")
    assert paths(server) == [page(server, number) for number in (1, 2, 3)]
    whole(server)


def test_a_wrong_key_stops_at_once_and_another_account_starts_from_the_first_page(server: FakeAutopilot) -> None:
    with pytest.raises(RunError) as error:
        scan(server, api_key="wrong")
    assert str(error.value) == (
        "GET /contacts: 401 Unauthorized: Provided autopilotapikey not valid. Check sources.autopilothq.api_key"
        " (in .dlt/secrets.toml, or SOURCES__AUTOPILOTHQ__API_KEY in the environment)"
    )
    assert paths(server) == ["/contacts"]
    server.order("GET", page(server, 3), status=401)
    with pytest.raises(RunError, match="401"):
        scan(server, "contacts")
    assert paths(server) == [page(server, number) for number in (1, 2, 3)]
    server.key = "another account's key"
    scan(server, "contacts")
    assert paths(server) == [page(server, number) for number in (1, 2, 3)]


def test_tables_that_a_part_was_not_loaded_for_restart_the_scan(server: FakeAutopilot) -> None:
    scan(server, "contacts", max_seconds=0)
    paths(server)
    scan(server, "tracks", "contacts", max_seconds=0)
    assert paths(server) == [page(server, 1)]
    scan(server, "tracks")
    assert paths(server) == [page(server, number) for number in (2, 3)]


def test_a_part_of_the_lists_replaces_nothing_and_is_not_fetched_again(server: FakeAutopilot) -> None:
    server.account = Account(contacts=70)
    groups = ["lists", "lists_contacts", "smart_segments", "smart_segments_contacts"]
    scan(server, *groups)
    before = tables()
    server.account.create_list("New")
    server.account.put_on_list("contactlist_build-your-journey", server.account.contact_id(1), True)
    paths(server)
    broken = "/list/contactlist_build-your-journey/contacts"
    gone = server.order("GET", f"{broken}/*", status=503, times=10**6)
    report = scan(server, *groups)
    assert "503 Service Unavailable" in failure(report, "lists")
    assert list(report.unfinished) == [f"{server.base_url}/lists"]
    assert {name: tables()[name] for name in groups[:2]} == {name: before[name] for name in groups[:2]}
    assert {name: kept(tables()[name]) for name in groups[2:]} == {name: kept(before[name]) for name in groups[2:]}
    asked = paths(server)

    gone.times = 0
    scan(server, *groups)
    again = [path for path in paths(server) if "segment" not in path]
    assert len(again) < len(asked)
    assert broken not in again  # lists are read side by side, so any of them may come first
    assert any(path.startswith(f"{broken}/") for path in again)
    found = tables()
    assert len(found["lists"]) == len(before["lists"]) + 1
    assert len(found["lists_contacts"]) == len(before["lists_contacts"]) + 1
    assert kept(found["smart_segments_contacts"]) == kept(before["smart_segments_contacts"])


def test_a_list_that_is_gone_meanwhile_has_nobody(server: FakeAutopilot) -> None:
    server.order("GET", "/list/contactlist_build-your-journey/contacts*", status=404)
    scan(server, "lists", "lists_contacts")
    assert {row["list_id"] for row in tables()["lists_contacts"]} == {
        "contactlist_06444749-9C0F-4894-9A23-D6872F9B6EF8", "contactlist_old list 7",
    }  # fmt: skip


def test_lists_that_wait_for_time_come_before_a_new_scan(server: FakeAutopilot) -> None:
    server.account = Account(contacts=40)
    for _ in range(2):
        scan(server, "contacts", "lists", "lists_contacts", max_seconds=0)
    assert "lists" not in tables()
    paths(server)
    scan(server, "contacts", "lists", "lists_contacts", max_seconds=30)
    assert paths(server)[0] == "/lists"
    assert len(tables()["lists"]) == 4
