"""Scans of an Ortto account other than activities: their requests, and the records of each page."""

from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest

from autopilothq.catalog import ORTTO_PERSON_FIELDS, ORTTO_TIMES, REJECT_REASONS
from autopilothq.clients.ortto import Ortto, OrttoSettings
from autopilothq.errors import RequestRejected
from autopilothq.segment.ortto import OrttoField, OrttoNames
from autopilothq.sources.ortto.pages import OutOfTime, Scanner
from autopilothq.sources.ortto.records import RecordScans, note_loaded, plan_scans
from autopilothq.sources.scans import Scan, ScanBatch, TimeBudget
from fake_ortto import FakeOrtto

NOW = "2026-11-26T12:00:00.000Z"
KNOWN = [field.id for field in ORTTO_PERSON_FIELDS]
TIMES = [field.id for field in ORTTO_TIMES]
TAGS = ["tags", "u4s::t"]
PRICE = "int:cm:price"
pytestmark = pytest.mark.usefixtures("source_state")


@pytest.fixture
def server() -> Iterator[FakeOrtto]:
    with FakeOrtto(people=0) as running:
        yield running


def plan(*tables: str, now: str = NOW, loads: tuple[str, ...] = ()) -> list[Scan]:
    return plan_scans("account", "https://x.example/v1", Path("scans"), frozenset(tables), now, set(loads))


def read(
    server: FakeOrtto, table: str, *, members: bool = True, budget: float = inf, **more: Any
) -> tuple[Scan, RecordScans, list[ScanBatch]]:
    """Reads the scan of a table; returns the scan, the reader and the batches."""
    [scan] = plan(f"ortto_{table}")
    settings = OrttoSettings(api_key=server.key, base_url=server.base_url, requests_per_second=1000, tries=1)
    with Ortto(settings) as account:
        scanner = Scanner(account, TimeBudget(budget), print, lambda *_: None)
        reader = RecordScans(scanner, Path("scans"), **({"names": OrttoNames()} | more))
        batches = list(reader.read(scan, members))
    assert all(batch.scan is scan for batch in batches)
    return scan, reader, batches


def cells(batches: list[ScanBatch], table: str) -> list[dict[str, str]]:
    return [dict(record.cells) for batch in batches for record in batch.records.get(f"ortto_{table}", [])]


def bodies(server: FakeOrtto, path: str) -> list[Any]:
    return [of.body for of in server.requests if of.path == path]


# ---- which scans -----------------------------------------------------------------------------------------------------


def test_each_selected_table_has_the_scan_that_gives_it() -> None:
    names = ("people", "audience_members", "tags", "campaigns", "custom_fields", "campaign_reports")
    scans = plan(*(f"ortto_{name}" for name in names))
    assert [(scan.name, scan.url, scan.started_at) for scan in scans] == [
        (name, f"https://x.example/v1/{path}", NOW)
        for name, path in {
            "people": "person/get",
            "audiences": "audiences/get",
            "tags": "tags/get",
            "campaigns": "campaign/get-all",
            "custom_fields": "person/custom-field/get",
            "campaign_reports": "campaign/reports/get",
        }.items()
    ]
    assert [scan.name for scan in plan("ortto_audiences", "tracks")] == ["audiences"]


@pytest.mark.parametrize(
    ("now", "began"),
    [("2026-11-27T12:00:00.000Z", NOW), ("2026-11-27T12:00:00.001Z", "2026-11-27T12:00:00.001Z")],
)
def test_a_scan_goes_on_for_a_day(now: str, began: str) -> None:
    plan("ortto_tags")
    (Path("scans") / "tags" / "1").mkdir()  # a folder of members' pages
    [scan] = plan("ortto_tags", now=now)
    assert (scan.started_at, (Path("scans") / "tags" / "1").exists()) == (began, began == NOW)
    assert scan.spool is not None
    assert (scan.spool.start.account, scan.spool.start.started_at) == ("account", began)


def test_a_scan_that_is_loaded_starts_from_the_first_page() -> None:
    later = "2026-11-26T13:00:00.000Z"
    [scan] = plan("ortto_tags")
    note_loaded("account", scan, "load 1")
    assert plan("ortto_tags", now=later)[0].started_at == NOW  # the load is not complete
    assert plan("ortto_tags", now=later, loads=("load 1",))[0].started_at == later
    assert plan("ortto_tags", now="2026-11-26T14:00:00.000Z", loads=("load 1",))[0].started_at == later


# ---- people ----------------------------------------------------------------------------------------------------------


def person_page(*people: Any) -> dict[str, Any]:
    return {"contacts": list(people), "has_more": False}


def refusal(field: str) -> dict[str, Any]:
    return {"status": 400, "message": f"failed to validate field {field} in schema"}


def test_people_come_with_all_fields_and_what_is_no_person_is_rejected(server: FakeOrtto) -> None:
    server.account.custom_fields = {PRICE: ("Price", "decimal"), "str:cm:x": ("X", "text")}
    ada = {"id": "a1", "fields": {"str::email": "a@b.c", PRICE: 1500, "tme::o!l": 1795694400}, "kind": 1}
    server.order("POST", "/person/get", content=person_page(ada, 7, {"id": None}))
    scan, reader, [batch] = read(server, "people")
    assert bodies(server, "/person/get") == [{"limit": 500, "offset": 0, "fields": [*KNOWN, *TIMES, PRICE, "str:cm:x"]}]
    assert cells([batch], "people") == [
        {
            "contact_id": '"a1"',
            "email": '"a@b.c"',
            "custom_price": "1.5",
            "last_opened_email_at": '"2026-11-26T12:00:00.000Z"',
            "kind": "1",
        }
    ]
    no_id = f"{REJECT_REASONS['no_id']}: expected `contact_id` in an object with id"
    assert [each[1:] for each in batch.rejects] == [
        (1, "not_an_object", REJECT_REASONS["not_an_object"], b"7"),
        (2, "no_id", no_id, b'{"id":null}'),
    ]
    assert (scan.contacts, scan.size, batch.size, scan.complete) == (3, batch.size, scan.size, True)
    assert (batch.size > 0, reader.has_times) == (True, True)
    # Pages that are read from the disk tell nothing about times.
    assert [read(server, "people", has_times=known)[1].has_times for known in (None, True)] == [None, True]


def test_pages_of_people_become_batches_of_twenty(server: FakeOrtto) -> None:
    for number in range(1, 22):
        more = {"has_more": number < 21, "next_offset": number}
        server.order("POST", "/person/get", content=person_page({"id": f"p{number}"}) | more)
    scan, _, batches = read(server, "people")
    assert [len(cells([batch], "people")) for batch in batches] == [20, 1]
    assert (scan.contacts, sum(batch.size for batch in batches)) == (21, scan.size)


@pytest.mark.parametrize(
    ("refused", "asked", "has_times"),
    [
        # If a time is refused, or it cannot be told which field is refused, all times are left out.
        (["tme::o!l"], [[*KNOWN, PRICE]], False),
        (["str:cm:other"], [[*KNOWN, PRICE]], False),
        ([PRICE], [[*(id_ for id_ in KNOWN if id_ not in TAGS), *TIMES]], True),
        (
            [PRICE, "tme::o!l"],
            [[*(id_ for id_ in KNOWN if id_ not in TAGS), *TIMES], [id_ for id_ in KNOWN if id_ not in TAGS]],
            False,
        ),
        (
            ["tme::o!l", "str::email"],
            [[*KNOWN, PRICE], [id_ for id_ in KNOWN if id_ not in [*TAGS, "str::email"]]],
            False,
        ),
    ],
)
def test_fields_that_the_account_refuses_are_left_out(
    server: FakeOrtto, refused: list[str], asked: list[list[str]], has_times: bool
) -> None:
    server.account.custom_fields = {PRICE: ("Price", "decimal")}
    for field in refused:
        server.order("POST", "/person/get", **refusal(field))
    server.order("POST", "/person/get", content=person_page({"id": "a1"}))
    _, reader, batches = read(server, "people")
    assert [of["fields"] for of in bodies(server, "/person/get")] == [[*KNOWN, *TIMES, PRICE], *asked]
    assert (cells(batches, "people"), reader.has_times) == ([{"contact_id": '"a1"'}], has_times)


def test_an_account_that_refuses_everything_is_asked_three_times(server: FakeOrtto) -> None:
    server.order("POST", "/person/get", times=9, **refusal("str::first"))
    with pytest.raises(RequestRejected, match="str::first in schema"):
        read(server, "people")
    assert len(bodies(server, "/person/get")) == 3


def test_pages_that_never_come_again_are_not_taken_for_a_field_that_is_refused(server: FakeOrtto) -> None:
    server.account.made, server.account.custom_fields, server.takes_times = 501, {}, True
    server.before = lambda _: server.cursors.clear()
    with pytest.raises(RequestRejected, match="cannot unmarshal into an ID"):
        read(server, "people")
    asked = [of["fields"] for of in bodies(server, "/person/get")]
    assert asked == [[*KNOWN, *TIMES], *[[id_ for id_ in KNOWN + TIMES if id_ not in TAGS]] * 6]


def test_only_fields_of_the_schema_are_asked_for(server: FakeOrtto) -> None:
    server.order(
        "POST",
        "/person/custom-field/get",
        content={"fields": [{"id": PRICE, "name": None, "display_type": []}, {"id": "x"}, {"id": 5}, {"name": "Y"}]},
    )
    fields = {
        ("", "str::email"): OrttoField("E"),
        ("", "tme::o!l"): OrttoField("O"),
        ("act::o", "str::ei"): OrttoField("I"),
    }
    server.order("POST", "/person/get", content=person_page({"id": "a1", "fields": {PRICE: 1500}}))
    _, reader, batches = read(server, "people", names=OrttoNames(attributes=fields), has_times=False)
    assert [of["fields"] for of in bodies(server, "/person/get")] == [["str::email", *TAGS, PRICE]]
    assert (cells(batches, "people"), reader.has_times) == (
        [{"contact_id": '"a1"', "custom_int_cm_price": "1500"}], False,
    )  # fmt: skip


# ---- lists and pages -------------------------------------------------------------------------------------------------


def test_audiences_come_with_their_members(server: FakeOrtto) -> None:
    server.order("POST", "/audiences/get", content=[{"id": "u1", "name": "A"}, 5, {"id": "u2"}, {"id": "u3"}])
    server.order("POST", "/audiences/get", content=[])
    server.order("POST", "/person/get", content=person_page({"id": "a1"}, {"id": "a2", "fields": {"x": 1}}))
    server.order("POST", "/person/get", status=404)
    server.order("POST", "/person/get", content=person_page({"id": "a1"}))
    scan, _, batches = read(server, "audiences")
    assert cells(batches, "audiences") == [
        {"audience_id": '"u1"', "name": '"A"'}, {"audience_id": '"u2"'}, {"audience_id": '"u3"'},
    ]  # fmt: skip
    assert cells(batches, "audience_members") == [
        {"audience_id": '"u1"', "contact_id": '"a1"'},
        {"audience_id": '"u1"', "contact_id": '"a2"'},
        {"audience_id": '"u3"', "contact_id": '"a1"'},
    ]
    assert [(of.reason, of.raw) for batch in batches for of in batch.rejects] == [("not_an_object", b"5")]
    assert bodies(server, "/person/get") == [
        {"limit": 500, "offset": 0, "fields": ["str::email"], "audience_id": f"u{number}"} for number in (1, 2, 3)
    ]
    assert scan.complete
    assert scan.size == sum(batch.size for batch in batches) > max(batch.size for batch in batches) > 0
    # Pages on the disk are read again without a request.
    server.requests.clear()
    assert cells(read(server, "audiences")[2], "audience_members") == cells(batches, "audience_members")
    assert server.requests == []
    assert len(read(server, "audiences", members=False)[2]) == 1


def test_nothing_is_asked_for_when_time_is_up(server: FakeOrtto) -> None:
    with pytest.raises(OutOfTime):
        read(server, "tags", budget=0)
    assert bodies(server, "/tags/get") == []


def test_lists_may_be_empty_and_only_audiences_have_members(server: FakeOrtto) -> None:
    server.account.tags = {"vip": {"1"}}
    assert cells(read(server, "tags")[2], "tags") == [{"tag_id": "1", "name": '"vip"', "count": "1"}]
    server.order("POST", "/audiences/get", content=[])
    _, reader, batches = read(server, "audiences")
    assert (cells(batches, "audiences"), bodies(server, "/person/get")) == ([], [])
    with pytest.raises(RuntimeError, match=r"^Expected a scan with a spool\.$"):
        list(reader.read(Scan("tags", "", NOW), True))


def test_reports_come_ten_at_a_time_and_go_on_where_time_was_up(server: FakeOrtto) -> None:
    campaigns = [{"id": f"c{number}"} for number in range(11)]
    server.order("POST", "/campaign/get-all", content={"campaigns": campaigns, "has_more": False}, times=2)
    with pytest.raises(OutOfTime):
        read(server, "campaign_reports", budget=0)
    assert len(bodies(server, "/campaign/reports/get")) == 10
    scan, _, batches = read(server, "campaign_reports")
    assert len(bodies(server, "/campaign/reports/get")) == 11
    assert [[of["campaign_id"] for of in cells([batch], "campaign_reports")] for batch in batches] == [
        [f'"c{number}"' for number in range(10)], ['"c10"'],
    ]  # fmt: skip
    assert (scan.complete, scan.size) == (True, sum(batch.size for batch in batches))
    assert all(batch.size for batch in batches)
    server.requests.clear()
    assert len(read(server, "campaign_reports")[2]) == 2
    assert server.requests == []
