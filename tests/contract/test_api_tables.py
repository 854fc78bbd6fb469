"""A scan stores an account's contacts and events, the next one what is new (docs/contract/autopilot-api.md)."""

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import autopilothq
from autopilothq import LoadReport, catalog
from contract.duck import held, pipeline, query, rows_in, tables
from contract.loading import Row, filled, message, write
from fake_autopilot import FakeAutopilot, contact
from shared_loads import isolation

EVENTS = ["tracks", *(table.name for table in catalog.EVENT_TABLES)]
SOME = ["tracks", "email_opened", "email_clicked"]
BOOKS = ["_rejects", "_discards", "_audit"]


@pytest.fixture
def server() -> Iterator[FakeAutopilot]:
    """An empty account; the DuckDB file into which it is loaded is kept open."""
    with FakeAutopilot(contacts=0) as running, held():
        yield running


def scan(server: FakeAutopilot, *only: str, into_tables: bool = True, **words: Any) -> LoadReport:
    """Loads the tables named, or all, and returns the report; extracts them only unless `into_tables`."""
    reports: list[LoadReport] = []
    settings: dict[str, Any] = {
        "base_url": server.base_url,
        "requests_per_second": 10_000,
        "tries": 2,
        "progress": reports.append,
    }
    source = autopilothq.api(server.key, **settings | words)
    with held():
        load = pipeline().run if into_tables else pipeline().extract
        load(source.with_resources(*only, *BOOKS) if only else source)
    return reports[-1]


def answer(server: FakeAutopilot, *pages: Sequence[Any], path: str = "/contacts") -> None:
    """Sets the pages that the next scan gets at `path`."""
    for number, contacts in enumerate(pages, 1):
        bookmark = f"b{number}" if number < len(pages) else None
        content = {"contacts": contacts, "total_contacts": sum(map(len, pages)), "bookmark": bookmark}
        server.order("GET", path if number == 1 else f"{path}/b{number - 1}", content=content)


def rows(name: str) -> list[Row]:
    return [filled(row) for row in rows_in(name)]


def test_a_contacts_emails_are_events_of_the_contract(server: FakeAutopilot) -> None:
    fields = [{"kind": "user id", "value": 4711}]
    answer(server, [contact(1, mail_hardbounced={"k": 1482221100000}, custom_fields=fields)])
    started = datetime.now(UTC) - timedelta(milliseconds=1)
    scan(server, *EVENTS, user_id_field="user id")
    found = tables()
    [bounced] = found["email_bounced"]
    received_at = bounced["received_at"]
    assert started <= received_at <= bounced["uuid_ts"] <= datetime.now(UTC)
    common = {
        "id": bounced["id"],
        "received_at": received_at,
        "anonymous_id": "1@example.com",
        "user_id": "4711",
        "event": "email_bounced",
        "event_text": "Email Bounced",
        "timestamp": datetime(2016, 12, 20, 8, 5, tzinfo=UTC),
        "context_library_name": "autopilot-api",
        "context_traits_contact_id": "person_1",
        "context_traits_email": "1@example.com",
    }
    assert filled(bounced) == common | {"email_id": "k", "email_key": "k", "bounce_type": "hard"}
    assert [filled(row) for row in found["tracks"]] == [common]
    assert sorted(found) == sorted([*EVENTS, *BOOKS])
    [audit] = found["_audit"]
    assert {name: audit[name] for name in ("file", "lines", "stored", "duplicates", "rejected")} == {
        "file": f"{server.base_url}/contacts", "lines": 1, "stored": 1, "duplicates": 0, "rejected": 0,
    }  # fmt: skip
    assert datetime.fromisoformat(audit["version"]) == received_at == audit["first_received_at"]


# Contacts of several tests, told apart by their ids. Each entry has the pages of one of four scans.
BAD = contact(
    1,
    created_at="yesterday",
    unsubscribed="perhaps",
    mail_opened={"k": "soon"},
    mail_clicked=7,
    custom_fields=[
        {"kind": "size", "value": "tall", "fieldType": "float"},
        {"kind": "born", "value": "a summer", "fieldType": "date"},
        "red",
        {"value": 1},
    ],
)
TYPED = contact(
    61,
    created_at="2016-12-20T07:31:12.000Z",
    updated_at="Tue, 20 Dec 2016 08:08:00 GMT",
    LatestSubscribe=1482221100000,
    NumberOfEmployees="10001",
    anywhere_page_visits={"https://example.com/pricing": True},
    lists=["l1"],
    employeesRange={"min": 11, "max": 50},
    Score=1,
    custom_fields=[
        {"kind": "Review Rating", "value": "5", "fieldType": "integer"},
        {"kind": "Smog Level", "value": 3, "fieldType": "float"},
        {"kind": "Customer", "value": "true", "fieldType": "boolean"},
        {"kind": "Born", "value": 13046400000, "fieldType": "date"},
        {"kind": "Zip", "value": 1234, "fieldType": "string"},
        {"kind": "Untyped", "value": "2019-03-01T00:00:00Z"},
    ],
)
OPENED = {"k1": 1000}
ANSWERS: list[list[list[Any]]] = [
    [
        [
            BAD, "no contact", None, {"Email": "nobody@example.com"}, 7,
            TYPED,
            contact(
                62, Score=2.5, LinkedIn="in/b", lists=[], mail_clicked=[], employeesRange={},
                custom_fields={"kind": "Plan", "value": "a"},
            ),
            contact(71, Phone="1", custom_fields=7), contact(72, Phone="2", New=True),
            contact(81, mail_opened=OPENED),
        ],
        [contact(82, mail_opened=OPENED)],
    ],
    [
        [
            BAD, "no contact",
            contact(61, custom_fields=[{"kind": "Zip", "value": 5, "fieldType": "integer"}], Score="high"),
            contact(71, Phone="3"),
            contact(81, mail_opened=OPENED), contact(82, mail_opened=OPENED),
        ],
    ],
    [
        [
            contact(72, Phone="4"), contact(71),
            contact(81, mail_opened=OPENED | {"k2": 2000}), contact(82, mail_opened=OPENED, mail_clicked={"k1": 5}),
        ],
    ],
    [[]],
]  # fmt: skip
USER_ID_FIELDS = {1: "Review Rating", 2: "User", 3: "User"}
"""The `user_id_field` of scans: a field of the account, an unknown one, and one where the fields cannot be read."""


class Scanned(NamedTuple):
    """The report of a scan, and the tables after it."""

    report: LoadReport
    tables: dict[str, list[Row]]

    def of(self, *numbers: int) -> list[Row]:
        """The rows of these contacts."""
        people = {f"person_{number}" for number in numbers}
        return [row for row in self.tables["contacts"] if row["contact_id"] in people]


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> list[Scanned]:
    with isolation(tmp_path_factory.mktemp("scans")), FakeAutopilot(contacts=0) as server:
        found = []
        for number, pages in enumerate(ANSWERS):
            answer(server, *pages)
            if number == len(USER_ID_FIELDS):
                server.order("GET", "/contacts/custom_fields", status=400)
            field = USER_ID_FIELDS.get(number)
            found.append(Scanned(scan(server, *SOME, "contacts", user_id_field=field), tables()))
        return found


def test_bad_values_leave_their_rows_and_bad_contacts_are_rejected(scanned: list[Scanned]) -> None:
    report, found = scanned[0]
    [row] = scanned[0].of(1)
    assert filled(row) == {"contact_id": "person_1", "received_at": row["received_at"], "email": "1@example.com"}
    [opened] = [row for row in found["email_opened"] if row["context_traits_contact_id"] == "person_1"]
    assert opened["timestamp"] is None
    names = ("table_name", "row_id", "column_name", "value", "reason")
    assert sorted(tuple(discard[name] for name in names) for discard in found["_discards"]) == sorted([
        ("contacts", "person_1", "created_at", '"yesterday"', "not_a_time"),
        ("contacts", "person_1", "custom_born", '"a summer"', "not_a_time"),
        ("contacts", "person_1", "custom_fields", '"red"', "does_not_fit"),
        ("contacts", "person_1", "custom_fields", '{"value":1}', "does_not_fit"),
        ("contacts", "person_1", "custom_size", '"tall"', "does_not_fit"),
        ("contacts", "person_1", "mail_clicked", "7", "does_not_fit"),
        ("contacts", "person_1", "unsubscribed", '"perhaps"', "does_not_fit"),
        ("contacts", "person_71", "custom_fields", "7", "does_not_fit"),
        ("email_opened", opened["id"], "timestamp", '"soon"', "not_a_time"),
    ])  # fmt: skip
    rejects = [(row["reason"], row["raw"]) for row in sorted(found["_rejects"], key=lambda row: row["line"])]
    assert rejects == [
        ("not_an_object", '"no contact"'),
        ("not_an_object", "null"),
        ("no_id", '{"Email":"nobody@example.com"}'),
        ("not_an_object", "7"),
    ]
    assert (report.lines, report.stored, report.rejected, report.discards) == (5 + 2, 1 + 2, 4, 9)

    again = scanned[1].tables
    assert [row for row in again["_discards"] if row["row_id"] != "person_61"] == found["_discards"]
    assert len(again["_rejects"]) == 4


def test_a_second_scan_adds_only_what_is_new(scanned: list[Scanned]) -> None:
    first, second, third = scanned[:3]
    assert (second.report.lines, second.report.stored, second.report.duplicates) == (4, 0, 3)  # one is no contact
    assert {name: second.tables[name] for name in SOME} == {name: first.tables[name] for name in SOME}
    assert (third.report.lines, third.report.stored, third.report.duplicates) == (4, 2, 2)
    known = {row["id"] for row in first.tables["tracks"]}
    added = [row for row in third.tables["tracks"] if row["id"] not in known]
    assert sorted((row["event"], row["context_traits_contact_id"]) for row in added) == [
        ("email_clicked", "person_82"), ("email_opened", "person_81"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Row]]:
    """The tables after a scan whose numbers Python would spell differently."""
    fields = (
        b'[{"kind":"Version","value":1.10,"fieldType":"string"},'
        b'{"kind":"Account","value":12345678901234.123456,"fieldType":"string"},'
        b'{"kind":"user id","value":12345678901234567890,"fieldType":"string"},'
        b'{"kind":"Smog Level","value":1.10,"fieldType":"float"},'
        b'{"kind":"Review Rating","value":5,"fieldType":"integer"}]'
    )
    page = b'{"contacts":[{"contact_id":"person_1","Email":"1@example.com","Title":2.50,"Score":7.10,'
    page += b'"mail_opened":{"k":1482221100000.5},"custom_fields":' + fields + b'}],"total_contacts":1}'
    with isolation(tmp_path_factory.mktemp("digits")), FakeAutopilot(contacts=0) as server:
        server.order("GET", "/contacts", content=page)
        server.order(
            "GET",
            "/contacts/custom_fields",
            skip=1,  # the first request is about the field of the user id
            content=b'[{"name":"Plan","fieldType":"string","default":"a","max":[1.10]}]',
        )
        server.order("GET", "/lists", content=b'{"lists":[{"list_id":12345678901234567890,"title":1.10}]}')
        scan(server, "contacts", "email_opened", "custom_fields", "lists", user_id_field="user id")
        return tables()


def test_numbers_keep_their_digits(digits: dict[str, list[Row]]) -> None:
    [row], [opened] = digits["contacts"], digits["email_opened"]
    assert filled(row) == {
        "contact_id": "person_1",
        "received_at": row["received_at"],
        "email": "1@example.com",
        "title": "2.50",
        "score": 7.1,
        "custom_version": "1.10",
        "custom_account": "12345678901234.123456",
        "custom_user_id": "12345678901234567890",
        "custom_smog_level": 1.1,
        "custom_review_rating": 5,
    }
    assert (opened["user_id"], opened["timestamp"]) == (
        "12345678901234567890", datetime(2016, 12, 20, 8, 5, 0, 500, tzinfo=UTC),
    )  # fmt: skip


def test_lists_and_custom_fields_keep_their_digits(digits: dict[str, list[Row]]) -> None:
    found = digits
    assert [filled(row) for name in ("custom_fields", "lists") for row in found[name]] == [
        {
            "name": "Plan",
            "received_at": found["custom_fields"][0]["received_at"],
            "field_type": "string",
            "default": "a",
            "max": "[1.10]",
        },
        {
            "list_id": "12345678901234567890",
            "received_at": found["lists"][0]["received_at"],
            "title": "1.10",
        },
    ]


def test_a_contacts_columns_are_typed_for_all_notations_of_dates(scanned: list[Scanned]) -> None:
    found = scanned[0].of(61, 62)
    when = {"received_at": found[0]["received_at"]}
    assert [filled(row) for row in found] == [
        {
            "contact_id": "person_61",
            "email": "61@example.com",
            "created_at": datetime(2016, 12, 20, 7, 31, 12, tzinfo=UTC),
            "updated_at": datetime(2016, 12, 20, 8, 8, tzinfo=UTC),
            "latest_subscribe": datetime(2016, 12, 20, 8, 5, tzinfo=UTC),
            "number_of_employees": "10001",
            "anywhere_page_visits": '{"https://example.com/pricing":true}',
            "lists": '["l1"]',
            "employees_range_min": 11,
            "employees_range_max": 50,
            "score": 1.0,
            "custom_review_rating": 5,
            "custom_smog_level": 3.0,
            "custom_customer": True,
            "custom_born": datetime(1970, 6, 1, tzinfo=UTC),
            "custom_zip": "1234",
            "custom_untyped": datetime(2019, 3, 1, tzinfo=UTC),
        }
        | when,
        {
            "contact_id": "person_62",
            "email": "62@example.com",
            "score": 2.5,
            "linked_in": "in/b",
            "lists": "[]",
            "custom_plan": "a",
        }
        | when,
    ]
    names = list(found[0])
    assert names[:3] == ["contact_id", "received_at", "uuid_ts"]
    assert names[3:] == sorted(names[3:])

    # A column keeps its type, whatever a later scan declares.
    again = scanned[1]
    assert [row["custom_zip"] for row in again.of(61, 62)] == ["5", None]
    discards = again.tables["_discards"]
    assert [row["value"] for row in discards if row["row_id"] in ("person_61", "person_62")] == ['"high"']


def test_contacts_that_are_gone_are_marked_until_they_are_back(scanned: list[Scanned]) -> None:
    before = {row["contact_id"]: row for row in scanned[0].of(71, 72)}
    one, two = scanned[1].of(71, 72)
    assert (one["phone"], one["deleted_at"]) == ("3", None)
    assert two["deleted_at"] == one["received_at"] > two["received_at"]
    changed = {"deleted_at": two["deleted_at"], "uuid_ts": two["uuid_ts"]}
    assert two == before["person_72"] | changed

    assert [(row["contact_id"], row["phone"], row["deleted_at"]) for row in scanned[2].of(71, 72)] == [
        ("person_71", None, None), ("person_72", "4", None),
    ]  # fmt: skip
    assert [row["deleted_at"] is None for row in scanned[3].of(71, 72)] == [False, False]


def test_lists_and_segments_are_as_the_account_has_them_now(server: FakeAutopilot) -> None:
    def account(lists: list[Any], segments: list[Any]) -> None:
        server.order("GET", "/lists", content={"lists": lists})
        server.order("GET", "/smart_segments", content={"segments": segments})

    account(
        [{"list_id": "old list 7", "title": "A/B"}, {"list_id": "l2", "title": "Two", "New": 1}],
        [{"segment_id": "s1", "title": "Ladies"}],
    )
    answer(server, [contact(1), contact(2)], [contact(2), "nobody"], path="/list/old%20list%207/contacts")
    answer(server, [], path="/list/l2/contacts")
    answer(server, [contact(2)], path="/smart_segments/s1/contacts")
    server.order("GET", "/triggers", content={"triggers": [{"trigger_id": "0003", "journey": "j"}]})
    server.order("GET", "/contacts/custom_fields", content=[{"name": "Born", "fieldType": "date"}, {"fieldType": "x"}])
    current = [table.name for table in catalog.AUTOPILOT_CURRENT]
    scan(server, *current)

    def now() -> dict[str, list[Row]]:
        found = tables()
        return {
            name: [{key: value for key, value in filled(row).items() if key != "received_at"} for row in found[name]]
            for name in current
        }

    assert now() == {
        "lists": [{"list_id": "l2", "title": "Two", "new": 1}, {"list_id": "old list 7", "title": "A/B"}],
        "lists_contacts": [{"list_id": "old list 7", "contact_id": f"person_{number}"} for number in (1, 2)],
        "smart_segments": [{"segment_id": "s1", "title": "Ladies"}],
        "smart_segments_contacts": [{"segment_id": "s1", "contact_id": "person_2"}],
        "custom_fields": [{"name": "Born", "field_type": "date"}],
        "triggers": [{"trigger_id": "0003", "journey": "j"}],
    }
    assert sorted(row["raw"] for row in rows("_rejects")) == ['"nobody"', '{"fieldType":"x"}']
    assert server.seen("GET", "/contacts") == []

    account([{"list_id": "l3", "title": "Three"}], [])
    answer(server, [contact(3)], path="/list/l3/contacts")
    server.order("GET", "/triggers", content={"triggers": []})
    server.order("GET", "/contacts/custom_fields", content=[])
    scan(server, *current)
    assert now() == {
        "lists": [{"list_id": "l3", "title": "Three"}],
        "lists_contacts": [{"list_id": "l3", "contact_id": "person_3"}],
        "smart_segments": [],
        "smart_segments_contacts": [],
        "custom_fields": [],
        "triggers": [],
    }


def test_the_whole_of_a_made_up_account() -> None:
    with FakeAutopilot(contacts=120) as server:
        server.overlap = 7
        report = scan(server)
        made = [server.account.contact(number) for number in range(120)]
    events = [
        (made_up["contact_id"], name, key)
        for made_up in made
        for name, *_ in catalog.MAILS
        for key in made_up.get(name, ())
    ]
    assert (report.contacts_total, report.contacts, report.stored) == (120, 120, len(events))
    assert report.duplicates > 0
    found = tables()
    assert len(found["tracks"]) == len(events)
    assert [row["contact_id"] for row in found["contacts"]] == [made_up["contact_id"] for made_up in made]
    assert {row["email"] for row in found["contacts"]} == {made_up.get("Email") for made_up in made}
    on_lists = {(name, made_up["contact_id"]) for made_up in made for name in made_up.get("lists", ())}
    assert {(row["list_id"], row["contact_id"]) for row in found["lists_contacts"]} == on_lists
    assert (len(found["lists"]), len(found["smart_segments"]), len(found["triggers"]), len(found["custom_fields"])) == (
        4, 2, 3, 6,
    )  # fmt: skip
    assert (len(found["_discards"]), len(found["_rejects"]), len(found["_audit"])) == (0, 0, 5)
    schema = pipeline().default_schema
    for table in catalog.ACCOUNT:
        there = schema.tables[table.name]
        assert there["description"] == table.description
        for column in table.columns:
            assert there["columns"][column.name]["description"] == column.description
            assert there["columns"][column.name]["data_type"] == column.type
    assert not [name for rows in found.values() for row in rows for name in row if name.startswith("_dlt_")]


def test_only_what_is_selected_is_asked_for() -> None:
    with FakeAutopilot(contacts=3) as server:
        for only, paths, field in [
            (["lists", "triggers"], ["/lists", "/triggers"], "User"),
            (["email_opened"], ["/contacts"], None),
        ]:
            server.requests.clear()
            scan(server, *only, user_id_field=field)
            assert sorted(request.path for request in server.requests) == paths
            assert set(only) <= set(tables())


def test_a_dataset_that_also_has_an_archive_causes_a_warning(server: FakeAutopilot) -> None:
    write("1.ndjson", message(timestamp="2019-03-01T12:00:00Z"), message(messageId="m2"))
    with held():
        pipeline().run(autopilothq.archive("archive"))
    answer(server, [contact(1, mail_opened={"k": 1551441600000, "j": 1551441599999})])
    assert scan(server, "tracks", "email_opened", until="2019-03-01T12:00:00Z").warnings == []
    assert len(rows("email_opened")) == 3
    answer(server, [contact(1)])
    [warning] = scan(server, "tracks", into_tables=False).warnings
    assert warning.endswith("Say where they end: --until 2019-03-01T12:00:00Z")
    pipeline().abort_packages()
    assert scan(server, "lists", into_tables=False).warnings == []  # `lists` has no events, so nothing can come twice


def test_a_user_id_field_that_the_account_does_not_have_is_reported(scanned: list[Scanned]) -> None:
    assert [len(one.report.warnings) for one in scanned] == [0, 0, 1, 0]
    [warning] = scanned[2].report.warnings
    assert warning.startswith(
        "The account has no custom field 'User': its events get no user id, and keep none. It has 'Re"
    )


def test_the_key_is_in_no_table_file_or_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with FakeAutopilot(contacts=120, key="5ec2e75ec2e75ec2e75ec2e75ec2e75e") as server:
        monkeypatch.setenv("SOURCES__AUTOPILOTHQ__API_KEY", server.key)
        monkeypatch.setenv("SOURCES__AUTOPILOTHQ__API__BASE_URL", server.base_url)
        monkeypatch.setenv("RUNTIME__LOG_LEVEL", "DEBUG")
        pipeline().run(autopilothq.api(max_seconds=0).with_resources("tracks", "contacts", "lists", *BOOKS))
        trace = pipeline().last_trace
        assert all(server.key not in request.path for request in server.requests)
    assert trace is not None
    assert server.key not in str(trace.asdict()) + caplog.text
    everything = [path for folder in (Path.cwd(), Path(os.environ["DLT_DATA_DIR"])) for path in folder.rglob("*")]
    assert any(path.name == "scan.json" for path in everything)
    assert [path for path in everything if path.is_file() and server.key.encode() in path.read_bytes()] == []
    assert server.key not in str(query("SELECT * FROM autopilothq._dlt_pipeline_state"))
