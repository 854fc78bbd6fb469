"""Where scans of an account begin: from scratch, after complete loads, or with pages on the disk."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import dlt
import pytest

from autopilothq.clients.autopilot import Page
from autopilothq.sources.api.scan_plan import ScanPlan, tables_of_scan
from autopilothq.sources.scans import Scan
from autopilothq.sources.spool import ScanStart, Spool

EARLY, LATE, NOW = (f"2019-05-0{day}T00:00:00.000Z" for day in (1, 2, 3))
AHEAD = "2019-05-05T00:00:00.000Z"
OLD = "2019-04-25T23:00:00.000Z"
URL = "https://api2.autopilothq.com/v1"
TABLES = ["contacts", "tracks"]


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands in for dlt's state of the source."""
    state: dict[str, Any] = {}
    monkeypatch.setattr(dlt.current, "source_state", lambda: state)
    return state


@pytest.fixture
def plan(tmp_path: Path) -> ScanPlan:
    return ScanPlan("account", URL, tmp_path / "spools", frozenset(TABLES), NOW, {"load 1"})


def cursor(started_at: str, **more: Any) -> dict[str, Any]:
    """Returns the cursor of a scan after a complete load of page 2."""
    known = {"page": 3, "bookmark": "b2", "contacts": 200, "tables": TABLES, "load_id": "load 1"}
    return {"account": "account", "started_at": started_at} | known | more


def spooled(folder: Path, start: ScanStart, *bookmarks: str | None) -> None:
    spool = Spool.begin(folder, start)
    for bookmark in bookmarks:
        spool.put(Page([], None, bookmark))


ANEW = ScanStart("account", NOW)
BEHIND = ScanStart("account", LATE, 3, "b2", 200)
WHOLE = ScanStart("account", LATE)


@pytest.mark.parametrize(
    ("start", "bookmarks", "known", "begins", "pages", "first"),
    [
        # No pages are on the disk.
        (None, "", {}, ANEW, "", (1, 0)),
        (None, "", cursor(LATE), BEHIND, "", (3, 200)),
        (None, "", cursor(LATE, bookmark=None), ANEW, "", (1, 0)),
        (None, "", cursor(LATE, tables=["contacts"]), ANEW, "", (1, 0)),
        (None, "", cursor(LATE, tables=[*TABLES, "email_opened"]), BEHIND, "", (3, 200)),
        (None, "", cursor(LATE, account="other"), ANEW, "", (1, 0)),
        (None, "", cursor(LATE, load_id="load 2"), ANEW, "", (1, 0)),
        # Pages that are in no load.
        (WHOLE, "1", {}, WHOLE, "1", (1, 0)),
        (WHOLE, "12", cursor(EARLY), WHOLE, "12", (1, 0)),
        (WHOLE, "12", cursor(EARLY, bookmark=None), WHOLE, "12", (1, 0)),
        # Pages of a scan that began in the future, because a clock was wrong.
        (ScanStart("account", AHEAD), "12", {}, ANEW, "", (1, 0)),
        (None, "", cursor(AHEAD), ANEW, "", (1, 0)),
        # Pages 1 and 2 were dropped because a load had them, but dlt's state or the dataset is new and knows no load.
        (WHOLE, "34", {}, ANEW, "", (1, 0)),
        (WHOLE, "13", {}, ANEW, "", (1, 0)),
        (WHOLE, "34", cursor(EARLY), ScanStart("account", EARLY, 3, "b2", 200), "", (3, 200)),
        (WHOLE, "4", cursor(LATE), BEHIND, "", (3, 200)),
        (WHOLE, "134", cursor(LATE), WHOLE, "34", (3, 200)),
        (WHOLE, "", {}, ANEW, "", (1, 0)),
        (WHOLE, "", cursor(EARLY), ScanStart("account", EARLY, 3, "b2", 200), "", (3, 200)),
        (BEHIND, "4", {}, ANEW, "", (1, 0)),
        (ScanStart("account", LATE, 2, "b1", 100), "23", {}, ANEW, "", (1, 0)),
        (BEHIND, "4", cursor(EARLY), ScanStart("account", EARLY, 3, "b2", 200), "", (3, 200)),
        (WHOLE._replace(account="other"), "1", {}, ANEW, "", (1, 0)),
        # Pages, some of which are in a load.
        (WHOLE, "1234", cursor(LATE), WHOLE, "34", (3, 200)),
        (WHOLE, "12", cursor(LATE), WHOLE, "", (3, 200)),
        (WHOLE, "1", cursor(LATE), BEHIND, "", (3, 200)),
        (WHOLE, "12", cursor(LATE, bookmark=None), ANEW, "", (1, 0)),
        (WHOLE, "1234", cursor(LATE, tables=["tracks"]), ANEW, "", (1, 0)),
        (BEHIND, "34", cursor(LATE), BEHIND, "34", (3, 200)),
        (BEHIND, "34", cursor(LATE, tables=["tracks"]), BEHIND, "34", (3, 200)),
        (BEHIND, "34", cursor(LATE, page=4, contacts=300), BEHIND, "4", (4, 300)),
        (BEHIND, "", cursor(LATE), BEHIND, "", (3, 200)),
        # Pages too old to show the account's state, unless a load has some of the scan.
        (WHOLE._replace(started_at=OLD), "12", {}, ANEW, "", (1, 0)),
        (WHOLE._replace(started_at=OLD), "1234", cursor(OLD), WHOLE._replace(started_at=OLD), "34", (3, 200)),
        # Pages of an earlier scan than the load's.
        (ScanStart("account", EARLY), "1234", cursor(LATE), BEHIND, "", (3, 200)),
    ],
)
def test_a_scan_of_contacts_begins_behind_what_is_loaded(
    plan: ScanPlan,
    state: dict[str, Any],
    start: ScanStart | None,
    bookmarks: str,
    known: dict[str, Any],
    begins: ScanStart,
    pages: str,
    first: tuple[int, int],
) -> None:
    if start:
        numbers = range(start.page, int(bookmarks[-1:] or 0) + 1)
        spooled(plan.folder / "contacts", start, *(f"b{page}" for page in numbers))
        for page in {*map(str, numbers)} - {*bookmarks}:
            (plan.folder / "contacts" / f"0000000{page}.gz").unlink()
    state["scans"] = {"contacts": known}
    [scan] = plan.scans()
    assert scan.spool is not None
    assert scan.spool.start == begins
    assert (scan.name, scan.url, scan.started_at, scan.index) == (
        "contacts", f"{URL}/contacts", begins.started_at, 0,
    )  # fmt: skip
    assert (scan.first, scan.contacts_before, scan.contacts) == (*first, first[1])
    assert sorted(path.name for path in (plan.folder / "contacts").glob("*.gz")) == [f"0000000{n}.gz" for n in pages]


@pytest.mark.parametrize(
    ("account", "known", "pages", "begins"),
    [
        (None, {}, "", NOW),
        ("account", {}, "1", EARLY),
        ("other", {}, "", NOW),
        ("account", {"account": "account", "started_at": EARLY, "load_id": "load 1"}, "", NOW),
        ("account", {"account": "account", "started_at": LATE, "load_id": "load 1"}, "", NOW),
        ("account", {"account": "account", "started_at": "2019-04-30T00:00:00.000Z", "load_id": "load 1"}, "1", EARLY),
        ("account", {"account": "other", "started_at": LATE, "load_id": "load 1"}, "1", EARLY),
    ],
)
def test_lists_are_scanned_again_unless_their_pages_wait_to_be_loaded(
    plan: ScanPlan, state: dict[str, Any], account: str | None, known: dict[str, Any], pages: str, begins: str
) -> None:
    folder = plan.folder / "lists"
    if account:
        spooled(folder / "index", ScanStart(account, EARLY), None)
        spooled(folder / "0", ScanStart(account, EARLY), None)
    state["scans"] = {"lists": known}
    [scan] = replace(plan, selected=frozenset({"lists_contacts"})).scans()
    assert scan.spool is not None
    assert scan.spool.start == ScanStart("account", begins)
    assert (scan.name, scan.url, scan.started_at) == ("lists", f"{URL}/lists", begins)
    assert Spool.open(folder / "index").start == scan.spool.start  # type: ignore[union-attr]
    assert len(list((folder / "index").glob("*.gz"))) == len(pages)
    assert (folder / "0").exists() == bool(pages)


@pytest.mark.usefixtures("state")
def test_pages_of_lists_that_are_too_old_are_requested_again(plan: ScanPlan) -> None:
    folder = plan.folder / "lists"
    spooled(folder / "index", ScanStart("account", OLD), None)
    [scan] = replace(plan, selected=frozenset({"lists"})).scans()
    assert (scan.started_at, list((folder / "index").glob("*.gz"))) == (NOW, [])


@pytest.mark.parametrize(
    ("gone", "contacts_pages", "lists_pages"),
    [
        ({"lost": {"tracks"}}, "", "1"),
        ({"replaced": {"contacts"}}, "", "1"),
        ({"lost": {"lists_contacts"}}, "34", ""),
        ({"replaced": {"lists"}}, "34", "1"),
        ({"lost": {"triggers"}, "replaced": {"users"}}, "34", "1"),
    ],
)
def test_a_scan_does_not_go_on_where_its_earlier_rows_are_dropped(
    plan: ScanPlan, state: dict[str, Any], gone: Any, contacts_pages: str, lists_pages: str
) -> None:
    """Lists are only loaded as a whole, so they may be replaced although their pages came in several loads."""
    state["scans"] = {"contacts": cursor(LATE)}
    spooled(plan.folder / "contacts", WHOLE, "b1", "b2", "b3", "b4")
    spooled(plan.folder / "lists" / "index", WHOLE, None)
    scans = replace(plan, selected=frozenset({*TABLES, "lists", "lists_contacts"}), **gone).scans()
    pages = {"contacts": contacts_pages, "lists": lists_pages}
    assert {scan.name: scan.started_at for scan in scans} == {name: LATE if pages[name] else NOW for name in pages}
    for name, folder in (("contacts", "contacts"), ("lists", "lists/index")):
        assert sorted(path.stem for path in (plan.folder / folder).glob("*.gz")) == [f"0000000{n}" for n in pages[name]]


def test_a_scan_does_not_go_on_where_a_load_stopped_before_its_tables_were_dropped(
    plan: ScanPlan, state: dict[str, Any]
) -> None:
    """Not even if the load that restarted it was never completed; only later loads count."""
    state["scans"] = {"contacts": cursor(LATE)}
    dropped = {"contacts": "load 2", "lists": "load 2"}
    after = replace(plan, dropped=dropped)
    [scan] = after.scans()
    assert (scan.started_at, scan.first) == (NOW, 1)
    assert scan.spool is not None
    scan.spool.put(Page([], None, "b1"))
    after.write_cursor(scan, "load 3")
    assert state["scans"]["contacts"]["dropped"] == {"contacts": "load 2"}
    assert [replace(after, complete_loads={"load 1", "load 3"}).scans()[0].first] == [2]


def test_what_was_cut_off_long_ago_is_scanned_first(plan: ScanPlan, state: dict[str, Any]) -> None:
    everything = frozenset({"contacts", "lists", "smart_segments_contacts", "custom_fields", "triggers", "users"})
    spooled(plan.folder / "smart_segments" / "index", ScanStart("account", EARLY), None)
    state["scans"] = {"contacts": cursor(LATE, tables=["contacts"])}
    scans = replace(plan, selected=everything).scans()
    assert [(scan.index, scan.name, scan.url.removeprefix(URL), scan.started_at) for scan in scans] == [
        (0, "smart_segments", "/smart_segments", EARLY),
        (1, "contacts", "/contacts", LATE),
        (2, "lists", "/lists", NOW),
        (3, "custom_fields", "/contacts/custom_fields", NOW),
        (4, "triggers", "/triggers", NOW),
    ]
    assert replace(plan, selected=frozenset({"users", "_rejects"})).scans() == []


def test_a_load_keeps_how_far_its_scans_are(plan: ScanPlan, state: dict[str, Any]) -> None:
    spooled(plan.folder / "contacts", BEHIND, "b3", "b4")
    spool = Spool.open(plan.folder / "contacts")
    scan = Scan("contacts", "url", LATE, spool=spool, first=3, contacts_before=200)
    scan.contacts = 400
    plan.write_cursor(scan, "load 2")
    kept = {"account": "account", "started_at": LATE, "load_id": "load 2"}
    of_contacts = kept | {"page": 5, "bookmark": "b4", "contacts": 400, "tables": ["contacts", "tracks"]}
    assert state == {"scans": {"contacts": of_contacts}}
    scan.lost = True
    plan.write_cursor(scan, "load 2")
    plan.write_cursor(Scan("lists", "url", LATE, spool=spool), "load 2")
    assert state == {"scans": {"contacts": of_contacts | {"bookmark": None}, "lists": kept}}


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("contacts", ["contacts"]),
        ("lists", ["lists", "lists_contacts"]),
        ("smart_segments", ["smart_segments", "smart_segments_contacts"]),
        ("custom_fields", ["custom_fields"]),
        ("triggers", ["triggers"]),
    ],
)
def test_a_scan_gives_rows_of_its_tables(name: str, tables: list[str]) -> None:
    assert [table.name for table in tables_of_scan(Scan(name, "url", NOW))] == tables
