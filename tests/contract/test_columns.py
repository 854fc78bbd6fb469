"""Whole loads through dlt make the right tables, columns and dlt schema (docs/contract/warehouse.md#columns)."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from dlt.common.schema import Schema

from autopilothq import catalog
from autopilothq.catalog import COMMON, EVENT, EVENT_TABLES, LINK, PROPERTIES, TABLES, TRACKS
from contract.loading import RECEIVED, Line, Row, filled, identify, message, raw, write
from contract.places import DuckDb, Lake, Place, PostgreSql
from shared_loads import isolation

ALWAYS = {"tracks", *(table.name for table in EVENT_TABLES), "_rejects", "_discards", "_audit"}

# Copied from the contract, so that it does not change with the catalogue.
DOCUMENTED = {
    "id": "text", "received_at": "timestamp", "uuid_ts": "timestamp", "anonymous_id": "text", "user_id": "text",
    "event": "text",
    "event_text": "text", "original_timestamp": "timestamp", "sent_at": "timestamp", "timestamp": "timestamp",
    "context_traits_email": "text", "context_traits_contact_id": "text", "context_library_name": "text",
    "context_library_version": "text", "context_integration_name": "text", "context_integration_version": "text",
    "context_ip": "text", "context_user_agent": "text",
}  # fmt: skip
EMAIL = {
    "campaign_id": "text", "campaign_name": "text", "email_id": "text", "email_name": "text", "email_subject": "text",
    "transactional": "bool",
}  # fmt: skip
CLICK = {"link_id": "text", "link_url": "text"}
BOOKS = {
    "_rejects": ["id", "file", "line", "reason", "message", "raw", "rejected_at"],
    "_discards": ["id", "table_name", "row_id", "column_name", "value", "reason", "received_at", "discarded_at"],
    "_audit": ["file", "version", "size", "lines", "stored", "duplicates", "rejected", "first_received_at",
    "last_received_at",
               "load_id", "loaded_at", "skipped", "tables", "mended"],
}  # fmt: skip


class After(NamedTuple):
    """The content of the destination after a load, read without the loader."""

    rows: dict[str, list[Row]]
    columns: dict[str, list[tuple[str, str]]]
    """Of each table, in their order, with the contract's words for their types."""
    complete: list[str]
    """The ids that dlt keeps of loads."""
    schema: Schema


class Loads(NamedTuple):
    """The loads into one dataset, in order, and the first file with its size at the first load."""

    after: list[After]
    file: Path
    size: int
    longest: int


@pytest.fixture(scope="module", params=["DuckDB", "PostgreSQL", "lake"])
def load(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Loads]]:
    """Returns a function that writes files and loads the archive repeatedly, in a new dataset of each destination."""
    with ExitStack() as databases:

        def place() -> Place:
            if request.param == "DuckDB":
                return DuckDb()
            if request.param == "PostgreSQL":
                return PostgreSql(databases.enter_context(request.getfixturevalue("postgresql").database()))
            return Lake()

        def loads(*archives: Callable[[Place], dict[str, list[Line]]]) -> Loads:
            with isolation(tmp_path_factory.mktemp("loads")):
                return into(place(), *archives)

        yield loads


def into(place: Place, *archives: Callable[[Place], dict[str, list[Line]]]) -> Loads:
    """Returns the loads, one after each step; a step maps the names of files to their lines."""
    after, written = [], []
    for archive in archives:
        paths = [write(name, *lines).absolute() for name, lines in archive(place).items()]
        written += [(path, path.stat().st_size) for path in paths]
        rows = place.load_again()
        columns = {name: place.columns_of(name) for name in rows}
        after.append(After(rows, columns, place.complete_loads(), place.pipeline().default_schema))
    return Loads(after, *written[0], place.longest)


@pytest.fixture(scope="module")
def broken(load: Callable[..., Loads]) -> Loads:
    """A load of an archive whose only line is not a message."""
    return load(lambda _: {"1.ndjson": ["{"]})


@pytest.fixture(scope="module")
def growing(load: Callable[..., Loads]) -> Loads:
    """Loads of an empty archive, then of one with messages of all types, then of one with a changed file."""
    return load(
        lambda _: {"0.ndjson": [""]},
        lambda place: {"1.ndjson": [SMALL, "{"], "2.ndjson": [OTHER], "3.ndjson": [*named(place.longest), *UNSTORABLE]},
        lambda _: {"1.ndjson": [SMALL, NEW]},
    )


@pytest.fixture(scope="module")
def usual(load: Callable[..., Loads]) -> Loads:
    """A load, a later one, one of the same lines in a new file, and one of the same files."""
    return load(
        lambda _: {"1.ndjson": FIRST},
        lambda _: {"2.ndjson": SECOND},
        lambda _: {"3.ndjson": [*SECOND, *FIRST]},
        lambda _: {},
    )


def in_order(types: dict[str, str]) -> list[tuple[str, str]]:
    first = ["id", "received_at", "uuid_ts"]
    names = first + sorted(types.keys() - set(first))
    return [(name, types[name]) for name in names]


def documented(table: str) -> dict[str, str]:
    return DOCUMENTED | (EMAIL if table != "tracks" else {}) | (CLICK if table == "email_clicked" else {})


def test_the_catalogue_has_the_contracts_columns() -> None:
    def types(columns: tuple[catalog.Column, ...]) -> dict[str, str]:
        return {column.name: column.type for column in columns}

    assert types(COMMON + EVENT) == DOCUMENTED == types(TRACKS.columns)
    assert (types(PROPERTIES), types(LINK)) == (EMAIL, CLICK)
    assert {name: [column.name for column in TABLES[name].columns] for name in BOOKS} == BOOKS
    assert all(column.description.endswith(".") for table in TABLES.values() for column in table.columns)


@pytest.mark.parametrize("number", [0, 1], ids=["empty", "broken"])
def test_an_archive_without_a_message_makes_the_tables(number: int, growing: Loads, broken: Loads) -> None:
    """`tracks`, the seven event tables and the books exist after any load, with columns in order and described."""
    after = (growing, broken)[number].after[0]
    assert set(after.rows) == ALWAYS
    assert [row["reason"] for row in after.rows["_rejects"]] == ["not_json"] * number
    for table in ("tracks", *(table.name for table in EVENT_TABLES)):
        assert after.columns[table] == in_order(documented(table))
    for table, names in BOOKS.items():
        assert [name for name, _ in after.columns[table]] == names
    for name in ALWAYS:
        known = after.schema.tables[name]
        assert known["description"] == TABLES[name].description
        assert {column: hints.get("description") for column, hints in known["columns"].items()} == {
            column.name: column.description for column in TABLES[name].columns
        }
        assert [column for column, hints in known["columns"].items() if hints.get("primary_key")] == list(
            TABLES[name].key
        )


NEVER = {"channel", "version", "projectId", "writeKey", "integrations", "_metadata"}
FIRST: list[Line] = [
    message(
        context={"zoo": 1, "ip": "::1", "traits": {"email": "a@x"}, "locale": {"list": [1, 2]}},
        properties={"plan": "pro", "about": {"seats": 3}, "transactional": True, "campaign_id": "c"},
        sentAt=None,
        **{key: {"a": 1} for key in sorted(NEVER)},
    ),
    message(
        "Other Events",
        messageId="m2",
        properties={"zz": 1.5, "2fa": True, "link_url": "x", "at": "2019-03-04T05:06:07Z"},
    ),
    message("Users", messageId="m3", properties={"select": 1, "order": "by"}),
    identify(messageId="m4", traits={"plan": "pro", "score": 1}),
    message(type="page", messageId="m5", name="Home", properties={"path": "/"}),
    message(type="alias", messageId="m6", previousId="old"),
    message(type="group", messageId="m7", groupId="g", traits={"size": 2}),
    message(type="screen", messageId="m8", name="Main"),
    message("名前", messageId="m9"),
    message("Email Clicked", messageId="m10", sentAt="soon"),
    message(messageId="m1", receivedAt="2019-03-04T05:06:07.413Z"),
    "{",
    "",
]
SECOND: list[Line] = [
    message(messageId="n1", context={"zoo": "1", "ant": 1}, properties={"plan": 5, "about": {"age": 1}, "new": True}),
    message("Other Events", messageId="n2", properties={"zz": "a", "at": "soon", "aa": 1}),
    identify(messageId="n3", receivedAt="2019-03-05T00:00:00Z", traits={"plan": None, "score": 2, "city": "Bonn"}),
    message("Users", messageId="n4", properties={"select": 2}),
    message(messageId="m1", properties={"plan": "second"}, sentAt="soon"),
]
ALL = {
    "tracks": DOCUMENTED | {"context_zoo": "bigint", "context_locale_list": "text"},
    "email_opened": DOCUMENTED
    | EMAIL
    | {"context_zoo": "bigint", "context_locale_list": "text", "plan": "text", "about_seats": "bigint"},
    "other_events": DOCUMENTED | {"zz": "double", "_2fa": "bool", "link_url": "text", "at": "timestamp"},
    "_users": DOCUMENTED | {"select": "bigint", "order": "text"},
}


def test_what_a_new_table_has(usual: Loads) -> None:
    found, columns = usual.after[0][:2]
    assert set(found) == ALWAYS | {
        "identifies",
        "users",
        "aliases",
        "pages",
        "screens",
        "groups",
        "accounts",
        "other_events",
        "_users",
    }
    for table, types in ALL.items():
        assert columns[table] == in_order(types)
    assert columns["users"] == in_order(
        {
            name: of
            for name, of in DOCUMENTED.items()
            if name.startswith("context_") or name in ("id", "received_at", "uuid_ts")
        }
        | {"plan": "text", "score": "bigint"}
    )
    assert columns["accounts"] == [
        ("id", "text"), ("received_at", "timestamp"), ("uuid_ts", "timestamp"), ("size", "bigint"),
    ]  # fmt: skip
    assert [filled(row) for row in found["accounts"]] == [{"id": "g", "received_at": RECEIVED, "size": 2}]
    names = {name for table in found for name, _ in columns[table]}
    assert not names & {"type", "channel", "project_id", "write_key", "integrations", "metadata", "_metadata"}
    assert not [name for name in names if name.startswith("_dlt_")]
    assert [name for table in found if table != "_audit" for name, _ in columns[table] if name == "version"] == []

    common = {"id": "m1", "received_at": RECEIVED, "timestamp": RECEIVED, "user_id": "u1", "event": "email_opened",
              "event_text": "Email Opened", "context_zoo": 1, "context_ip": "::1", "context_traits_email": "a@x",
              "context_locale_list": "[1,2]"}  # fmt: skip
    assert filled(found["tracks"][0]) == common
    assert [filled(row) for row in found["email_opened"]] == [
        common | {"plan": "pro", "about_seats": 3, "transactional": True, "campaign_id": "c"}
    ]
    (other,) = found["other_events"]
    assert (other["zz"], other["_2fa"], other["link_url"]) == (1.5, True, "x")
    assert other["at"] == datetime(2019, 3, 4, 5, 6, 7, tzinfo=UTC)
    assert [(row["select"], row["order"], row["event"]) for row in found["_users"]] == [(1, "by", "_users")]
    assert [(row["table_name"], row["column_name"]) for row in found["_discards"]] == [("email_clicked", "sent_at")]
    assert [(row["line"], row["reason"], row["raw"]) for row in found["_rejects"]] == [(12, "not_json", "{")]
    (audit,) = found["_audit"]
    assert audit | {"version": "", "load_id": "", "loaded_at": ""} == {
        "file": str(usual.file), "version": "", "size": usual.size, "lines": 12, "stored": 10,
        "duplicates": 1,
        "rejected": 1, "first_received_at": RECEIVED,
        "last_received_at": RECEIVED.replace(microsecond=413_000), "load_id": "", "loaded_at": "", "skipped": 0,
        "tables": None, "mended": 0,
    }  # fmt: skip
    assert [audit["load_id"]] == usual.after[0].complete


def test_what_a_later_load_adds(usual: Loads) -> None:
    found, (later, columns, *_) = usual.after[0].rows, usual.after[1]
    for table, types in ALL.items():
        new = {
            "tracks": ["context_ant"],
            "email_opened": ["about_age", "context_ant", "new"],
            "other_events": ["aa"],
        }.get(table, [])
        assert columns[table][: len(types)] == in_order(types)
        assert [name for name, _ in columns[table][len(types) :]] == new
    assert [(row["plan"], row["context_zoo"]) for row in later["email_opened"]] == [("pro", 1), ("5", 1)]
    assert [(row["zz"], row["at"] is None) for row in later["other_events"]] == [(1.5, False), (None, True)]
    assert [(row["id"], row["plan"], row["score"], row["city"]) for row in later["users"]] == [("u1", "pro", 2, "Bonn")]
    assert sorted((row["row_id"], row["column_name"], row["value"]) for row in later["_discards"]) == [
        ("m10", "sent_at", '"soon"'),
        ("n2", "at", '"soon"'),
        ("n2", "zz", '"a"'),
    ]
    assert {row["id"]: row["uuid_ts"] for row in later["tracks"]}["m1"] == found["tracks"][0]["uuid_ts"]
    assert [(row["lines"], row["stored"], row["duplicates"], row["rejected"]) for row in later["_audit"]] == [
        (12, 10, 1, 1),
        (5, 4, 1, 0),
    ]


def test_the_same_lines_and_the_same_files_again_change_nothing(usual: Loads) -> None:
    later, again, once_more = (after.rows for after in usual.after[1:])
    # The same lines in a new file: only its row of `_audit` and that of its rejected line are new.
    for table in again.keys() - {"_audit", "_rejects", "users", "accounts"}:
        assert again[table] == later[table]
    assert [row["raw"] for row in again["_rejects"]] == [row["raw"] for row in later["_rejects"]] * 2
    for table in ("users", "accounts"):
        assert list(map(filled, again[table])) == list(map(filled, later[table]))
    assert [(row["lines"], row["stored"], row["duplicates"], row["rejected"]) for row in again["_audit"]][2:] == [
        (17, 0, 16, 1)
    ]
    # The same files again: no row is new.
    assert once_more == again


SLUGS = {
    "HTTPRequest": "httprequest", "2FA Enabled": "_2fa_enabled", "lk0B@bFmjrLQ_Z6YL": "lk0_b_b_fmjr_lq_z6yl",
    "Tracks": "_tracks", "dlt loads": "dlt_loads", "other_events": "other_events", "Select": "select",
    "Con": "con_table", "Init": "init_table",
}  # fmt: skip
NAMES = {
    "IPAddress": 1, "linkURL": 2, "_id": 3, "3d": 4, "lk0B@bFmjrLQ_Z6YL": 5, "from": 6, "Ünï": 8,
}  # fmt: skip


def named(longest: int) -> list[Line]:
    """A load of events and properties whose names are hard to spell, or of the greatest length."""
    properties = NAMES | {"b" * longest: 7}
    return [message(name, messageId=f"{n}", properties=properties) for n, name in enumerate([*SLUGS, "a" * longest])]


def test_names_reach_the_destination_unchanged(growing: Loads) -> None:
    """dlt's own naming convention would change several of these or add a prefix."""
    found = growing.after[1].rows
    slugs = [*SLUGS.values(), "a" * growing.longest]
    assert found.keys() - ALWAYS == set(slugs)
    columns = {
        "ipaddress": 1,
        "link_url": "2",
        "_id": 3,
        "_3d": 4,
        "lk0_b_b_fmjr_lq_z6yl": 5,
        "from": 6,
        "b" * growing.longest: 7,
        "n": 8,
    }
    for slug in slugs:
        (row,) = found[slug]
        assert {name: row[name] for name in columns} == columns
        assert row["event"] == slug


ODD = {
    "nan": "NaN", "inf": "-Infinity", "big": "1e400", "half": r'"\ud800"', "nul": r'"a\u0000"',
    "long": "9223372036854775808", "first": '"0001-01-01T00:00:00Z"', "last": '"9999-12-31T23:59:59.999999Z"',
}  # fmt: skip
UNSTORABLE: list[Line] = [
    raw(message(properties={name: f"${name}" for name in ODD}), **ODD),
    message(
        messageId="m2",
        receivedAt="9999-12-31T23:59:59Z",
        sentAt="0001-01-01T00:00:00Z",
        originalTimestamp="9999-12-31",
    ),
    b'{"type":"track","event":"\xff"}',
    message(messageId="m3", properties={"long": 1}),
]


def test_what_no_warehouse_can_store_does_not_abort_a_load(growing: Loads) -> None:
    found = growing.after[1].rows
    assert [row["id"] for row in found["email_opened"]] == ["m1", "m2", "m3"]
    assert (found["email_opened"][0]["first"].year, found["email_opened"][0]["last"].year) == (1, 9999)
    assert [row["long"] for row in found["email_opened"]] == ["9223372036854775808", None, "1"]
    assert {row["column_name"]: row["value"] for row in found["_discards"]} == {
        "nan": "NaN", "inf": "-Infinity", "big": "1e400", "half": r'"\uD800"', "nul": r'"a\u0000"',
    }  # fmt: skip


SMALL, OTHER, NEW = (message("Email Replied", messageId=f"f{n}") for n in (1, 2, 3))


def test_files_are_loaded_once_and_again_when_they_change(growing: Loads) -> None:
    def counts(after: After) -> list[tuple[str, int, int, int]]:
        return sorted(
            (Path(row["file"]).name, row["lines"], row["stored"], row["duplicates"]) for row in after.rows["_audit"]
        )

    number = len(SLUGS) + 1 + len(UNSTORABLE)
    empty, first, other, names = (
        ("0.ndjson", 0, 0, 0), ("1.ndjson", 2, 1, 0), ("2.ndjson", 1, 1, 0), ("3.ndjson", number, number - 1, 0),
    )  # fmt: skip
    assert [counts(after) for after in growing.after] == [
        [empty],
        [empty, first, other, names],
        [empty, first, ("1.ndjson", 2, 1, 1), other, names],
    ]
    ids = [[row["id"] for row in after.rows["email_replied"]] for after in growing.after]
    assert ids == [[], ["f1", "f2"], ["f1", "f2", "f3"]]
    before, tracks = ([row["id"] for row in after.rows["tracks"]] for after in growing.after[1:])
    assert tracks == sorted([*before, "f3"])
