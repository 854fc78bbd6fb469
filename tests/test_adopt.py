"""Tables that another loader left in a warehouse are adopted from real files (docs/contract/adopt.md)."""

import errno
import gzip
import itertools
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import duckdb
import fsspec
import pytest
import zstandard
from dlt.common.normalizers.naming.snake_case import NamingConvention

from adopted import Row, at, exported, rows, tables
from autopilothq.catalog import OTHER_LIMITS
from autopilothq.errors import ArchiveError
from autopilothq.projection import context
from autopilothq.sources.adopt import buffer, files
from autopilothq.sources.adopt.buffer import column_names, lost_columns
from autopilothq.sources.adopt.csv_rows import has_null_marks
from autopilothq.sources.adopt.files import folded_name, table_files
from autopilothq.sources.adopt.origin import AdoptedTables
from autopilothq.sources.report import LoadReport
from autopilothq.warehouses import hints
from calling import Call, Said, errors
from servers import S3, ask
from shared_loads import command, isolation


class Adopted:
    """An adoption of all exporters' files, what it printed, and the state after further adoptions and a load."""

    def __init__(self, home: Path) -> None:
        self.folder, self.file = exported(home / "unload"), home / "work" / "autopilot.duckdb"
        with mock.patch("duckdb.connect", wraps=duckdb.connect) as connect:
            self.first = command("adopt", str(self.folder), "--report-cut", "--json")
        self.opened = sum("database" in call.kwargs for call in connect.call_args_list)
        self.tables = tables(self.file, (*TABLES, "_audit"))
        self.audit = self.tables.pop("_audit")
        self.verified = command("adopt", str(self.folder), "--verify")
        self.second = command("adopt", str(self.folder), "--json")
        for name in ("identifies", "users", "accounts"):
            os.utime(self.folder / f"{name}.csv", (1, 1))
        self.third = command("adopt", str(self.folder), "--json")
        self.after = tables(self.file, TABLES)
        Path("new.json").write_text("".join(json.dumps(message) + "\n" for message in LATER))
        assert command("load", "archive", "new.json", "--credentials", str(self.file)).status == 0
        self.in_the_end = tables(self.file, TABLES)


TABLES = (
    "email_opened", "email_clicked", "email_bounced", "identifies", "users", "accounts", "tracks", "_rejects",
    "_discards",
)  # fmt: skip
_LATER = {"receivedAt": "2020-01-01T00:00:00Z", "userId": "u1", "traits": {"plan": "gone"}}
LATER = [
    {"type": "identify", "messageId": "i4", **_LATER},
    {"type": "group", "messageId": "a2", "groupId": "a1", **_LATER},
]


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adopted]:
    home = tmp_path_factory.mktemp("adopted")
    with isolation(home):
        yield Adopted(home)


def report(said: Said) -> Row:
    assert said.status == 0, said.err
    return dict(json.loads(said.out))


def test_parquet_of_redshift_becomes_the_rows_that_it_has(adopted: Adopted) -> None:
    common = {"event": "email_opened", "event_text": "Email Opened"}
    assert adopted.tables["email_opened"] == [
        {"id": "o1", "received_at": at("2019-03-01 10:00:00.123"), "user_id": "u1", "campaign_name": "Welcome",
         "context_traits_email": "ann@example.com", "score": 3, "ratio": 0.5, "transactional": True, **common},
        {"id": "o2", "received_at": at("2019-03-01 23:59:59"), "user_id": "u2", "campaign_name": "Welcome",
         "context_traits_email": "bob@example.com", "ratio": 12.25, "transactional": False, "note": "x" * 512,
         **common},
        {"id": "o3", "received_at": at("2019-03-02 00:00:00"), "campaign_name": "",
         "context_traits_email": "cyd@example.com", "score": -1, "note": 'a "quoted", text', **common},
    ]  # fmt: skip


def test_names_of_snowflake_are_folded_and_its_times_as_text_are_times(adopted: Adopted) -> None:
    assert adopted.tables["email_clicked"] == [
        {"id": "c1", "received_at": at("2019-03-03 10:00:00"), "original_timestamp": at("2019-03-03 17:59:58.500"),
         "user_id": "u1", "link_url": "https://example.com", "clicks": 12345678901, "price": 1.5,
         "share": -0.25, "costs": '{"DECIMAL(9,1) {}":1.50,"tax":[0.000],"off":0.5000000000000000}',
         "seen_at": at("2019-03-03 10:00:00"), "event": "email_clicked", "event_text": "Email Clicked"}
    ]  # fmt: skip


def test_json_of_bigquery_keeps_texts_and_arrays(adopted: Adopted) -> None:
    common = {"event": "email_bounced", "event_text": "Email Bounced"}
    assert adopted.tables["email_bounced"] == [
        {"id": "b1", "received_at": at("2019-03-04 10:00:00.000123"), "user_id": "u1", "code": "550",
         "parts": '["a",1]', **common},
        {"id": "b2", "received_at": at("2019-03-04 10:00:01"), "user_id": "u3", "soft": True, **common},
    ]  # fmt: skip


def test_csv_of_postgresql_gets_types_by_all_its_values(adopted: Adopted) -> None:
    assert adopted.tables["identifies"] == [
        {"id": "i1", "received_at": at("2019-03-01 10:00:00.5"), "user_id": "u1", "plan": "free", "seats": 3,
         "context_traits_email": "ann@example.com", "active": True, "since": at("2019-01-01 00:00:00"), "zip": "00123"},
        {"id": "i2", "received_at": at("2019-03-02 10:00:00"), "user_id": "u1", "plan": "pro", "active": False,
         "context_traits_email": "ann@example.com", "zip": "00124"},
        {"id": "i3", "received_at": at("2019-03-02 11:00:00"), "user_id": "u2", "anonymous_id": "a9", "plan": "free",
         "context_traits_email": "", "seats": 5, "active": True, "since": at("2019-01-02 00:00:00")},
    ]  # fmt: skip


def test_users_are_made_of_identifies_and_own_rows_are_older_than_anything(adopted: Adopted) -> None:
    assert adopted.tables["users"] == [
        {"id": "u1", "received_at": at("2019-03-02 10:00:00"), "plan": "pro", "seats": 3, "active": False,
         "context_traits_email": "ann@example.com", "since": at("2019-01-01 00:00:00"), "zip": "00124",
         "company": "Acme"},
        {"id": "u2", "received_at": at("2019-03-02 11:00:00"), "plan": "free", "seats": 5, "active": True,
         "context_traits_email": "", "since": at("2019-01-02 00:00:00")},
        {"id": "u9", "received_at": at("2018-01-01 00:00:00"), "plan": "trial"},
    ]  # fmt: skip


def test_tracks_are_made_of_the_events_tables_and_of_itself_where_one_is_missing(adopted: Adopted) -> None:
    made = [(row["id"], row["event"], row["event_text"], row["received_at"]) for row in adopted.tables["tracks"]]
    assert made == [
        ("b1", "email_bounced", "Email Bounced", at("2019-03-04 10:00:00.000123")),
        ("b2", "email_bounced", "Email Bounced", at("2019-03-04 10:00:01")),
        ("c1", "email_clicked", "Email Clicked", at("2019-03-03 10:00:00")),
        ("g1", "plan_changed", "Plan Changed", at("2018-01-01 10:00:00")),
        ("o1", "email_opened", "Email Opened", at("2019-03-01 10:00:00.123")),
        ("o2", "email_opened", "Email Opened", at("2019-03-01 23:59:59")),
        ("o3", "email_opened", "Email Opened", at("2019-03-02 00:00:00")),
    ]


def test_a_row_of_tracks_that_its_events_table_has_not_is_rejected_whole(adopted: Adopted) -> None:
    [rejected] = adopted.tables["_rejects"]
    assert (rejected["file"], rejected["line"], rejected["reason"]) == (
        str(adopted.folder / "tracks.csv"), 4, "no_event_row",
    )  # fmt: skip
    assert json.loads(rejected["raw"]) == {
        "id": "lost", "received_at": "2018-01-02 10:00:00+00", "user_id": "u1", "event": "email_opened",
        "event_text": "Email Opened",
    }  # fmt: skip
    assert adopted.tables["_discards"] == []


def test_the_audit_has_a_row_for_each_file(adopted: Adopted) -> None:
    counted = {
        Path(row["file"]).name: (row["lines"], row["stored"], row["duplicates"], row["rejected"])
        for row in adopted.audit
    }
    assert counted == {
        "0000_part_00.parquet": (1, 1, 0, 0), "0002_part_00.parquet": (2, 2, 0, 0),
        "data_0_0_0.snappy.parquet": (1, 1, 0, 0), "email_bounced-000000000000.json": (2, 2, 0, 0),
        "accounts.csv": (1, 1, 0, 0), "identifies.csv": (3, 3, 0, 0), "tracks.csv": (4, 1, 2, 1),
        "users.csv": (2, 2, 0, 0),
    }  # fmt: skip


def test_the_run_says_what_will_differ_what_is_cut_and_what_is_left_out(adopted: Adopted) -> None:
    assert "it is a number of Segment's own loader; read `id` instead" in adopted.first.err
    assert "email_opened.note: 1 text of exactly 512 characters" in adopted.first.err
    assert "Warning: 1 text in 1 column has exactly 512 characters" in adopted.first.err
    assert report(adopted.first)["skipped_examples"] == {"no_table": [str(adopted.folder / "manifest.txt.bak")]}


def test_the_database_is_opened_twice(adopted: Adopted) -> None:
    """Once for the time before files are read, and once for the rest; a small load does not block others for long."""
    assert adopted.opened == 2


def test_a_second_run_reads_nothing_and_touched_files_change_nothing(adopted: Adopted) -> None:
    second, third = report(adopted.second), report(adopted.third)
    assert (second["files"], second["files_known"], second["rows"]) == (0, 8, {})
    assert (third["files"], third["lines"], third["stored"], third["duplicates"]) == (3, 6, 0, 6)
    assert adopted.after == adopted.tables


def test_both_sides_are_compared_by_table_and_day(adopted: Adopted) -> None:
    assert adopted.verified.status == 1
    assert adopted.verified.out.splitlines() == [
        "table               adopted        stored    missing    days  digests",
        "accounts                  1             1          0       0  equal",
        "email_bounced             2             2          0       1  equal",
        "email_clicked             1             1          0       1  equal",
        "email_opened              3             3          0       2  equal",
        "identifies                3             3          0       2  equal",
        "tracks                    8             7          1       6  differ",
        "  2018-01-02: 1 adopted, 0 stored",
        "users                     2             2          0       0  equal",
        "",
        "1 row is not stored.",
    ]


def test_a_later_load_of_messages_leaves_what_only_adopted_users_and_accounts_have(adopted: Adopted) -> None:
    """Users and accounts come in the same load, and have different columns."""
    expected = [dict(row) for row in adopted.tables["users"]]
    expected[0] |= {"plan": "gone", "received_at": at("2020-01-01")}
    assert adopted.in_the_end["users"] == expected
    assert adopted.tables["accounts"] == [
        {"id": "a1", "received_at": at("2018-01-01"), "plan": "trial", "town": "Rome"}
    ]  # fmt: skip
    assert adopted.in_the_end["accounts"] == [
        {"id": "a1", "received_at": at("2020-01-01"), "plan": "gone", "town": "Rome"}
    ]  # fmt: skip


# ---- databases -------------------------------------------------------------------------------------------------------


def test_postgresql_becomes_duckdb_and_duckdb_becomes_postgresql(adopted: Adopted, postgres: str, call: Call) -> None:
    source = f"duckdb:///{adopted.file}"
    there = call("adopt", "--from", source, "--destination", "postgres", "--credentials", postgres)
    assert there.status == 0, there.err
    # A column whose name differs from another's only in case must not lend it its values.
    ask(
        postgres,
        """ALTER TABLE autopilothq.email_opened RENAME note TO "NOTE";
        ALTER TABLE autopilothq.email_opened ADD note text; UPDATE autopilothq.email_opened SET note = "NOTE";
        UPDATE autopilothq.email_opened SET "NOTE" = 'other';
        CREATE TABLE autopilothq.pages (
            id text, "NOTE" text, "Note" text, note text, name numeric, price numeric, ratio numeric);
        INSERT INTO autopilothq.pages VALUES
            ('a', 'NOTE', 'Note', 'note', 1.10, 1234567890123456789012345678901234567890, 'NaN'),
            ('b', NULL, NULL, NULL, '-Infinity', 2.50, 2.50);
        ALTER TABLE autopilothq.pages
            ADD day date, ADD past interval, ADD raw bytea, ADD floats float8[], ADD word text,
            ADD uuid_ts uuid, ADD received_at json;
        UPDATE autopilothq.pages SET day = '2024-12-31', past = '1 day 02:03', raw = '\\x5c00', floats = '{0.1}',
            word = 'Größe 😀' WHERE id = 'b';
        CREATE TABLE autopilothq.screens (id text, received_at timestamptz, sent_at timestamp) PARTITION BY LIST (id);
        CREATE TABLE autopilothq.screens_1 PARTITION OF autopilothq.screens DEFAULT;
        INSERT INTO autopilothq.screens VALUES
            ('late', 'infinity', '-infinity'), ('far', '294276-12-31 23:59:59+00', '9999-12-31 23:59:59'),
            ('old', '0044-03-15 00:00:00+00 BC', NULL)""",
    )
    settings = {"client_encoding": "LATIN1", "datestyle": "SQL", "intervalstyle": "iso_8601",
                "bytea_output": "escape", "extra_float_digits": "-15", "timezone": "Asia/Tokyo"}  # fmt: skip
    name = postgres.rpartition("/")[2]
    ask(postgres, "".join(f"ALTER DATABASE {name} SET {key} TO '{value}';" for key, value in settings.items()))
    back = call("adopt", "--from", postgres, "--credentials", "back.duckdb", "--json")
    # In addition: the two messages of the load, those of pages, and u2, who has a row now.
    assert report(back)["stored"] == report(adopted.first)["stored"] + 8
    found = tables(Path("back.duckdb"), [*TABLES[:-2], "pages", "screens", "_discards"])
    assert found.pop("pages") == [
        {"id": "a", "note": "note", "name": "1.10", "price": "1234567890123456789012345678901234567890"},
        {"id": "b", "price": "2.50", "ratio": 2.5, "day": "2024-12-31", "past": "1 day 02:03:00", "raw": "\\x5c00",
         "floats": "[0.1]", "word": "Größe 😀"},
    ]  # fmt: skip
    # Partitions of a table are not tables of their own.
    assert found.pop("screens") == [{"id": "far", "sent_at": at("9999-12-31 23:59:59")}, {"id": "late"}, {"id": "old"}]
    names = ("row_id", "column_name", "value", "reason")
    assert sorted(tuple(row[name] for name in names) for row in found.pop("_discards")) == [
        ("a", "note", '"NOTE"', "same_column"), ("a", "note", '"Note"', "same_column"),
        ("a", "ratio", "NaN", "not_a_number"), ("b", "name", "-Infinity", "not_a_number"),
        ("far", "received_at", '"294276-12-31 23:59:59+00"', "not_a_time"),
        ("late", "received_at", '"infinity"', "not_a_time"), ("late", "sent_at", '"-infinity"', "not_a_time"),
        *((f"o{number}", "note", '"other"', "same_column") for number in (1, 2, 3)),
        ("old", "received_at", '"0044-03-15 00:00:00+00 BC"', "not_a_time"),
    ]  # fmt: skip
    for table in found:
        assert found[table] == adopted.in_the_end[table], table
    assert call("adopt", "--from", postgres, "--credentials", "back.duckdb", "--verify").status == 0
    again = report(call("adopt", "--from", postgres, "--credentials", "back.duckdb", "--json"))
    assert (again["files"], again["lines"]) == (0, 0)
    ask(postgres, "ALTER TABLE autopilothq.pages ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    ask(postgres, "GRANT USAGE ON SCHEMA autopilothq TO pg_monitor; GRANT SELECT ON autopilothq.pages TO pg_monitor")
    tenant = f"{postgres}?options=-crole%3Dpg_monitor"
    said = call("adopt", "--from", tenant, "--credentials", "back.duckdb")
    assert said.status == 1
    assert 'query would be affected by row-level security policy for table "pages"\n' in said.err


# ---- a bucket --------------------------------------------------------------------------------------------------------


def test_files_of_a_bucket_are_adopted_once(
    s3: S3, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in s3.credentials.items():
        monkeypatch.setenv(f"SOURCES__AUTOPILOTHQ__CREDENTIALS__{name.upper()}", value)
    bucket, folder = s3.bucket(), exported(tmp_path / "unload")
    fs = fsspec.filesystem("s3", use_listings_cache=False, **s3.storage_options)
    fs.put(str(folder / "email_opened"), f"{bucket}/unload/opened", recursive=True)
    words = ("adopt", f"{bucket}/unload", "--table", "email_opened=opened/*.parquet", "--json")
    said = call(*words)
    first, second = report(said), report(call(*words))
    assert "it is a number of Segment's own loader; read `id` instead" in said.err
    assert (first["files"], first["stored"], second["files"], second["files_known"]) == (2, 3, 0, 2)
    assert [row["id"] for row in rows(Path("autopilot.duckdb"), "tracks")] == ["o1", "o2", "o3"]


def test_an_object_has_the_version_that_its_cloud_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = datetime(2019, 3, 1, tzinfo=UTC)
    listed: list[dict[str, Any]] = [
        {"size": 0, "ETag": '"a"', "LastModified": changed}, {"size": 1, "etag": "b"}, {"size": 2, "md5Hash": "c=="},
        {"size": 3, "LastModified": changed}, {"size": 4, "last_modified": changed},
        {"size": 5, "etag": None, "updated": "2019"}, {"size": 6, "mtime": 1.5}, {"size": 7},
    ]  # fmt: skip
    objects = {f"data/unload/users/{info['size']}.parquet": info for info in listed}
    opened = []

    def find(root: str, *, detail: bool) -> dict[str, dict[str, Any]]:
        return {path: info for path, info in objects.items() if detail and path.startswith(root)}

    def open_bucket(*given: object) -> Any:
        opened.append(given)
        return SimpleNamespace(_strip_protocol=lambda url: url.removeprefix("s3://"), find=find)

    monkeypatch.setattr(files, "open_bucket", open_bucket)
    works, left_out = AdoptedTables(("s3://data/unload/",), credentials="a key").works()
    versions = ("a", "b", "c==", "3-2019-03-01T00:00:00+00:00", "4-2019-03-01T00:00:00+00:00", "5-2019", "6-1.5", "7-")
    assert [work[:6] for work in works] == [
        (f"s3://{path}", f"adopted users {version}", info["size"], "users", "parquet", path)
        for (path, info), version in zip(objects.items(), versions, strict=True)
    ]
    [alone], _ = table_files(["s3://data/unload/users/7.parquet"], {"sold": ["7.*"]})
    assert (alone.table, alone.version, left_out) == ("sold", "7-", {})
    assert opened == [("s3://data/unload/", "a key"), ("s3://data/unload/users/7.parquet", None)]


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "table"),
    [
        ("email_opened.parquet", "email_opened"),
        ("email_opened_0000_part_00.parquet", "email_opened"),
        ("email_opened/0001_part_00.csv.gz", "email_opened"),
        ("EMAIL_OPENED/data_0_1_0.snappy.parquet", "email_opened"),
        ("autopilothq/email_opened-000000000012.json", "email_opened"),
        ("autopilothq/email_opened/day=2019-03-01/x.parquet", "email_opened"),
        ("plan_changed.csv", "plan_changed"),
        ("plan_changed/part-00000-3f.parquet", "plan_changed"),
        ("email_opened/0001_part_00", "email_opened"),
        ("email_opened/part.000", "email_opened"),
        ("email_opened/3f", "email_opened"),
        ("plan_changed/a_bc", "plan_changed"),
        ("plan_changed_0001_part_00", "plan_changed"),
        ("email_opened", "email_opened"),
    ],
)  # fmt: skip
def test_files_and_folders_are_named_like_tables(path: str, table: str) -> None:
    file = Path("unload", path)
    file.parent.mkdir(parents=True)
    file.write_text("x")
    for marker in ("_SUCCESS", ".email_clicked.csv", ".git/email_clicked.csv", ".parts/email_clicked.parquet"):
        Path("unload", marker).parent.mkdir(exist_ok=True)
        Path("unload", marker).write_text("x")
    [found], left_out = table_files(["unload"], {})
    assert (found.table, left_out) == (table, {})


def test_what_lies_beside_tables_is_left_out_unless_it_is_named() -> None:
    for name in ("email_opened/x.csv", "email_opened/README.txt", "README", "README.md", "Makefile", "run.log"):
        Path("unload", name).parent.mkdir(parents=True, exist_ok=True)
        Path("unload", name).write_text("x")
    [found], left_out = table_files(["unload"], {})
    here = Path("unload").absolute()
    assert (found.path, left_out) == (
        str(here / "email_opened/x.csv"),
        {
            **{str(here / name): "no_table" for name in ("email_opened/README.txt", "README", "README.md", "run.log")},
            str(here / "Makefile"): "no_format",
        },
    )
    assert [found.table for found in table_files(["unload/Makefile"], {})[0]] == ["makefile"]
    assert [found.table for found in table_files(["unload"], {"email_opened": ["README"]})[0]] == ["email_opened"]


def test_names_are_folded() -> None:
    names = {
        "EMAIL_ID": "email_id", "_Timestamp": "_timestamp", "linkURL": "linkurl", "context_ip": "context_ip",
        "1st": "_1st", "_1st": "_1st", "__id": "_id", "plan_": "plan", "a__b": "a__b", "a____b": "a__b",
        "Plan (old)": "plan_old", "_": "", "___": "", "é": "", "": "",
    }  # fmt: skip
    assert {name: folded_name(name) for name in names} == names


def test_dlts_naming_changes_no_folded_name() -> None:
    folded = {folded_name("".join(signs)) for size in range(1, 7) for signs in itertools.product("a_1", repeat=size)}
    assert [name for name in folded if name and NamingConvention().normalize_path(name) != name] == []


def test_columns_of_rudderstack_get_segments_names_and_those_of_loaders_go() -> None:
    names = ("id", "channel", "context_request_ip", "context_passed_ip", "uuid_ts", "loaded_at", "record_id", "score")
    assert column_names(dict.fromkeys(names), "tracks") == {
        "id": "id", "context_request_ip": "context_ip", "context_passed_ip": "context_passed_ip", "score": "score",
    }  # fmt: skip
    assert "channel" in column_names({"id": None, "channel": None}, "app_opened")
    lost: dict[tuple[str, ...], dict[str, tuple[str, str]]] = {
        ("context_request_ip", "Context_Request_IP", "channel", "Channel"): {
            "Context_Request_IP": ("context_ip", "same_column")
        },
        ("context_ip", "context_request_ip", "Context_Request_IP"): {
            "Context_Request_IP": ("context_request_ip", "same_column")
        },
        ("channel", "Channel", "é", "Loaded_At"): {"Channel": ("channel", "same_column"), "é": ("é", "no_column")},
    }
    assert {names: lost_columns(names, column_names(dict.fromkeys(names), "tracks")) for names in lost} == lost


# ---- odd rows --------------------------------------------------------------------------------------------------------

ODD = """
CREATE SCHEMA autopilothq;
CREATE TABLE autopilothq.email_opened AS SELECT *, CASE id WHEN 'odd' THEN '-inf'::DOUBLE END AS subject,
    CASE id WHEN 'odd' THEN [1.25::DECIMAL(38, 20)] END AS prices FROM (VALUES
    ('twice', TIMESTAMPTZ '2019-01-02 00:00:00+00', 'later', 1.5::DOUBLE, 1::HUGEINT, [1, 2], 'b@example.com'),
    ('twice', TIMESTAMPTZ '2019-01-01 00:00:00+00', 'earlier', 2, 2, [3], 'b@example.com'),
    ('odd', 'infinity'::TIMESTAMPTZ, 'a' || chr(0) || 'b', 'nan'::DOUBLE, 99999999999999999999::HUGEINT, NULL, NULL),
    ('s', TIMESTAMPTZ '2019-01-01 00:00:00+00', repeat('x', 512), NULL, NULL, NULL, NULL),
    ('gone', TIMESTAMPTZ '2019-01-01 00:00:00+00', NULL, NULL, NULL, NULL, 'Gone@example.com'))
    t(id, received_at, note, ratio, big, parts, context_traits_email);
CREATE VIEW autopilothq.email_opened_view AS FROM autopilothq.email_opened;
CREATE TABLE autopilothq.plan_changed (id VARCHAR, received_at TIMESTAMPTZ, plan VARCHAR);
"""


def test_names_that_no_loader_gives_lose_nothing_in_silence(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """If two columns get the same name, the one that is spelt like it stays, and values of the other are discards.

    Values for which a row of the destination has no room are discards too, and the report counts them.
    """
    monkeypatch.setattr(hints, "OTHER_LIMITS", OTHER_LIMITS._replace(row_bytes=1))
    with duckdb.connect("slash.duckdb") as con:
        con.execute("""CREATE SCHEMA autopilothq;
            CREATE TABLE autopilothq."shop/order" (id TEXT, "user id" TEXT, user_id TEXT, "日本" INT[], n INT);
            INSERT INTO autopilothq."shop/order" BY NAME SELECT 'b' AS id;
            INSERT INTO autopilothq."shop/order" VALUES ('a', 'loses', 'wins', [1], 7)""")
    said = call("adopt", "--from", "duckdb:///slash.duckdb", "--json")
    assert (said.status, report(said)["beyond_limits"]) == (0, {"row_too_wide": {"shop_order": 1}})
    assert said.err.splitlines()[:6] == [
        "No differences affect queries of these tables.",
        "",
        "goes to _discards: no_column, the name has no Latin letter or digit",
        "    shop_order: 日本",
        "goes to _discards: same_column, another column of the table gets the same name",
        "    shop_order: user id",
    ]
    file = Path("autopilot.duckdb")
    assert rows(file, "shop_order") == [
        {"id": "a", "event": "shop_order", "user_id": "wins"}, {"id": "b", "event": "shop_order"},
    ]  # fmt: skip
    names = ("table_name", "row_id", "column_name", "value", "reason")
    assert sorted(tuple(row[name] for name in names) for row in rows(file, "_discards")) == [
        ("shop_order", "a", "n", "7", "row_too_wide"), ("shop_order", "a", "user_id", '"loses"', "same_column"),
        ("shop_order", "a", "日本", "[1]", "no_column"),
    ]  # fmt: skip


def test_names_that_segment_does_not_make_stop_nothing(call: Call) -> None:
    with duckdb.connect("odd.duckdb") as con:
        con.execute("""CREATE SCHEMA autopilothq;
            CREATE TABLE autopilothq."shop/order" (id VARCHAR, "__id" INT, "plan_" INT, "1st" INT, "__" INT, "é" INT);
            INSERT INTO autopilothq."shop/order" VALUES ('a', 1, 2, 3, 4, 5);
            CREATE TABLE autopilothq."é" (id VARCHAR)""")
        con.execute(f"CREATE TABLE autopilothq.{'n' * 200} AS SELECT 'b' AS id")
        con.execute("""CREATE TABLE autopilothq.con AS FROM (VALUES ('c', 1), ('d', 2)) t(id, n);
            CREATE TABLE autopilothq.con_table AS FROM (VALUES ('c', 'also'), ('e', 'only')) t(id, n);
            CREATE TABLE autopilothq.bill AS SELECT 'f' AS id""")
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("CREATE SCHEMA autopilothq; CREATE TABLE autopilothq.bill (n INT)")  # another program's table
    said = report(call("adopt", "--from", "duckdb:///odd.duckdb", "--json"))
    assert (said["skipped"], said["stored"], said["duplicates"]) == ({"no_table": 1}, 6, 1)
    # No table can be called con, so its rows are in con_table, each id once.
    assert rows(Path("autopilot.duckdb"), "con_table") == [
        {"id": id_, "n": n, "event": "con_table"} for id_, n in (("c", "1"), ("d", "2"), ("e", "only"))
    ]
    assert rows(Path("autopilot.duckdb"), "bill_table") == [{"id": "f", "event": "bill_table"}]
    [row] = rows(Path("autopilot.duckdb"), "shop_order")
    assert row == {"id": "a", "_id": 1, "plan": 2, "_1st": 3, "event": "shop_order"}
    verified = call("adopt", "--from", "duckdb:///odd.duckdb", "--verify")
    assert (verified.status, verified.out.splitlines()[-1]) == (0, "Every row is stored.")


def test_values_that_do_not_fit_are_discarded_and_stored_rows_and_deletions_remain(call: Call) -> None:
    with duckdb.connect("odd.duckdb") as con:
        con.execute(ODD)
    message = {
        "type": "track",
        "event": "Email Opened",
        "messageId": "s",
        "userId": "u",
        "properties": {"note": "x" * 600},
    }
    Path("m.json").write_text(json.dumps(message) + "\n")
    assert call("load", "archive", "m.json").status == 0
    assert call("forget", "--email", "gone@example.com").status == 0
    called = call("adopt", "--from", "duckdb:///odd.duckdb", "--json")
    assert "  type DECIMAL(38,20)[] -> text: comparisons fail" in called.err
    said = report(called)
    counts = {name: said[name] for name in ("lines", "stored", "duplicates", "rejected", "rejects", "skipped")}
    assert counts == {
        "lines": 5, "stored": 2, "duplicates": 2, "rejected": 1, "rejects": {"suppressed": 1},
        "skipped": {"no_table": 1},
    }  # fmt: skip
    file = Path("autopilot.duckdb")
    common = {"event": "email_opened"}
    assert rows(file, "email_opened") == [
        {"id": "odd", "big": "99999999999999999999", "prices": "[1.25000000000000000000]", **common},
        {"id": "s", "user_id": "u", "note": "x" * 600, "event_text": "Email Opened", **common},
        {"id": "twice", "received_at": at("2019-01-01"), "note": "earlier", "ratio": 2.0, "big": "2", "parts": "[3]",
         "context_traits_email": "b@example.com", **common},
    ]  # fmt: skip
    discarded = [(row["column_name"], row["value"], row["reason"]) for row in rows(file, "_discards")]
    assert sorted(discarded) == [
        ("note", '"a\\u0000b"', "not_text"),
        ("ratio", '"nan"', "not_a_number"),
        ("received_at", '"infinity"', "not_a_time"),
        ("subject", '"-inf"', "not_a_number"),
    ]
    assert rows(file, "plan_changed") == []


def test_traits_of_other_types_in_users_than_in_identifies_stop_no_load(call: Call) -> None:
    """Values that come together get a common type, and later the table's types stay. Empty columns do not matter."""
    folder, file = Path("unload"), Path("autopilot.duckdb")
    folder.mkdir()
    (folder / "users.csv").write_text(
        "id,word,share,active,number,whole,since,name,code\n"
        "u1,abc,1.5,2019-01-01 00:00:00,5,5,2019-01-01 00:00:00,abc,5\nu2,abc,1.5,2019-01-01 00:00:00,,,,,\n"
    )
    (folder / "identifies_0.csv").write_text(
        "id,received_at,user_id,word,share,active,paid\ni1,2019-01-01 00:00:00,u1,5,2,t,t\n"
    )
    with duckdb.connect() as con:
        con.execute(f"COPY (SELECT 'e' AS id, NULL::BIGINT AS paid LIMIT 0) TO '{folder}/identifies_1.parquet'")
    assert call("adopt", "unload").status == 0
    first = rows(file, "users")
    assert first == [
        {"id": "u1", "received_at": at("2019-01-01"), "word": "5", "share": 2.0, "active": "true", "paid": True,
         "number": 5, "whole": 5, "since": at("2019-01-01"), "name": "abc", "code": 5},
        {"id": "u2", "word": "abc", "share": 1.5, "active": "2019-01-01 00:00:00"},
    ]  # fmt: skip

    later = {"word": 7, "number": "abc", "whole": 1.5, "since": True, "name": 5, "code": "7", "paid": "no"}
    message = {"type": "identify", "messageId": "i2", "userId": "u1", "receivedAt": "2020-01-01T00:00:00Z"}
    Path("m.json").write_text(json.dumps(message | {"traits": later}) + "\n")
    assert call("load", "archive", "m.json").status == 0
    assert rows(file, "users") == [
        first[0] | {"received_at": at("2020-01-01"), "word": "7", "name": "5", "code": 7}, first[1],
    ]  # fmt: skip
    assert sorted((row["table_name"], row["row_id"], row["column_name"], row["value"], row["reason"])
                  for row in rows(file, "_discards")) == [
        ("identifies", "i2", "paid", '"no"', "does_not_fit"),
        ("users", "u1", "number", '"abc"', "does_not_fit"),
        ("users", "u1", "since", "true", "does_not_fit"),
        ("users", "u1", "whole", "1.5", "does_not_fit"),
    ]  # fmt: skip


def test_rows_that_the_destination_refuses_are_rejected_whole(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also rows of users, which have no message. Rows with keys that are too long are rejected without trying them."""
    monkeypatch.setattr(hints, "OTHER_LIMITS", OTHER_LIMITS._replace(key_bytes=4))
    with duckdb.connect("bad.duckdb") as con:
        con.execute("""CREATE SCHEMA autopilothq;
            CREATE TABLE autopilothq.pages AS FROM (VALUES ('good', 1), ('bad', 2), ('gööd', 3)) t(id, n);
            CREATE TABLE autopilothq.users AS FROM (VALUES ('good', 'pro'), ('bad', 'f"ree'), ('gööd', '')) t(id, plan);
            CREATE TABLE autopilothq.identifies AS FROM (VALUES ('i', 'gööd'), ('long1', 'long2')) t(id, user_id)""")
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("""CREATE SCHEMA autopilothq; CREATE TABLE autopilothq.pages (id VARCHAR CHECK (id <> 'bad'));
            CREATE TABLE autopilothq.users (id VARCHAR CHECK (id <> 'bad'))""")
    said = call("adopt", "--from", "duckdb:///bad.duckdb", "--json")
    assert "among 2" in said.err
    told = report(said)
    assert (told["lines"], told["stored"], told["rejects"]) == (8, 2, {"unreadable": 6})
    found = tables(Path("autopilot.duckdb"), ("pages", "users", "_rejects"))
    rejected = found.pop("_rejects")
    assert sorted((row["file"].rpartition("/")[2], row["line"], row["raw"]) for row in rejected) == [
        ("identifies", 1, '{"id":"i","user_id":"gööd"}'), ("identifies", 2, '{"id":"long1","user_id":"long2"}'),
        ("pages", 2, '{"id":"bad","n":2}'), ("pages", 3, '{"id":"gööd","n":3}'),
        ("users", 2, '{"id":"bad","plan":"f\\"ree"}'), ("users", 3, '{"id":"gööd","plan":""}'),
    ]  # fmt: skip
    too_long = "Expected keys of at most 4 bytes, as the destination has no room for longer ones, but its {} has {}."
    assert sorted(row["message"] for row in rejected if "room" in row["message"]) == [
        *(too_long.format("id", size) for size in (5, 6, 6)), too_long.format("user_id", 6),
    ]  # fmt: skip
    assert found == {"pages": [{"id": "good", "n": 1}], "users": [{"id": "good", "plan": "pro"}]}


def test_a_table_of_many_columns_needs_no_more_memory_than_is_usual(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB reserves blocks for each column and thread; 150 columns with this little memory stand for 1,000."""
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__MEMORY", "60")
    monkeypatch.setattr(context, "ALONE_MEMORY", 60)
    wide = {f"t{number:03}": f"{number}" for number in range(150)}
    with duckdb.connect("wide.duckdb") as con:
        cells = ", ".join(f"'{text}' AS {name}" for name, text in wide.items())
        con.execute(f"CREATE SCHEMA autopilothq; CREATE TABLE autopilothq.users AS SELECT 'a' AS id, {cells}")
    said = call("adopt", "--from", "duckdb:///wide.duckdb")
    assert said.status == 0
    assert re.match(r"1 new table, 0 known, \d+\.\d s, ", said.out.splitlines()[-2])
    assert rows(Path("autopilot.duckdb"), "users") == [{"id": "a", **wide}]


def test_nulls_of_csv_are_found_in_each_compression_whatever_the_names_of_files(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffer, "_CHUNK", 50)  # small, so that the last chunk has no null
    begin = b"id,received_at,user_id,note\na,2019-03-01 00:00:00,,x\n"
    end = b"".join(
        b"b%d,2019-03-01 00:00:00,u,\\N\n" % (number * 7919) for number in range(500)
    ) + b"c,2019-03-01 00:00:00,u,%b\n" % (b"y" * 60)
    packs: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
        "email_opened": (".gz", gzip.compress),
        "email_clicked": (".ZST", zstandard.ZstdCompressor().compress),
        "email_bounced": ("", bytes),
    }
    unload = Path("{unload}")
    (unload / "sold").mkdir(parents=True)
    for table, (suffix, pack) in packs.items():
        (unload / f"{table}.csv{suffix}").write_bytes(pack(begin) + pack(end))
    (unload / "sold" / f"{'n' * 250}.json").write_text('{"id": "a", "prices": [1.50]}')
    (unload / "sold" / "{0}.json").write_text('{"id": "b"}')
    assert call("adopt", str(unload)).status == 0
    for table in packs:
        found = [(row.get("user_id"), row.get("note")) for row in rows(Path("autopilot.duckdb"), table)]
        assert (table, found) == (table, [("", "x"), *[("u", None)] * 500, ("u", "y" * 60)])
    assert rows(Path("autopilot.duckdb"), "sold") == [
        {"id": "a", "event": "sold", "prices": "[1.50]"}, {"id": "b", "event": "sold"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("id,b\na,\\N\n", True),
        ("id,b\na,\\N", True),
        ("\\N,b", True),
        ("id\tb\r\na\t\\N\r\n", True),
        ("id,b\na,\\New\n", False),  # such as a path of Windows
        ("id,b\na,C:\\N,\n", False),
        ("id,b\n\\Na,b\n", False),
    ],
)
def test_a_cell_that_begins_like_a_null_is_none_wherever_a_file_is_cut_as_it_is_read(
    text: str, has: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "email_opened.csv"
    path.write_text(text, newline="")
    for size in range(1, 12):
        monkeypatch.setattr(buffer, "_CHUNK", size)
        assert (size, has_null_marks(buffer._contents(path), to_end=False)) == (size, has)


def test_a_second_run_counts_no_cut_texts(adopted: Adopted, call: Call) -> None:
    said = call("adopt", str(adopted.folder), "--report-cut", "--credentials", str(adopted.file), "--dry-run")
    assert said.out.splitlines()[-1] == "No file or table is new, so no text was counted."


# ---- what cannot be adopted ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["adopt"], "Expected a FOLDER to adopt, or a database with --from, but got neither."),
        (["adopt", "a", "--from", "duckdb:///b"], "to adopt, or a database with --from, but got both a and --from."),
        (["adopt", "--from", "env:NO_SUCH"], "Invalid value for '--from': Expected a value in env:NO_SUCH, but that"),
        (["adopt", "a", "--table", "x"], "Expected TABLE=PATTERN, such as email_opened=opened/*.parquet, but got 'x'."),
        (["adopt", "foo://x"], "Expected a path, or a URL that begins with s3://, gs://, az:// or file://, but got"),
    ],
)  # fmt: skip
def test_what_a_command_lacks_is_said_with_what_came(call: Call, words: list[str], message: str) -> None:
    said = call(*words)
    assert said.status in (1, 2)
    assert message in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "Expected a file or a folder at nowhere, but nothing is there."),
        (["bad", "--table", "email_opened=*.csv"], "Expected files of email_opened at *.csv below bad, but no file"),
        (["bad"], "email_opened.parquet, but it cannot be read: InvalidInputException: Invalid Input Error: "),
        (["empty"], "email_opened.parquet, but it cannot be read: InvalidInputException: Invalid Input Error: "),
        (["cut"], "cut/email_opened.csv.gz, but it cannot be read: EOFError: Compressed file ended before"),
        (["behind"], "behind/email_opened.csv.gz, but it cannot be read: BadGzipFile: Not a gzipped file (b'ru')"),
        (["flushed"], "flushed/email_opened.json.gz, but it cannot be read: EOFError: Compressed file ended before"),
        (["frames"], "email_opened.csv.zst, but it cannot be read: EOFError: it ends in the middle of its zstd data"),
        (["many"], "Expected at most 1 table of other events in the dataset, but with these it has 2.\nRaise"),
        (["no_id"], "Expected a column id in email_opened, which identifies its rows, but its columns are: name."),
        (["long"], f"which identifies its rows, but its columns are: {'x' * 79}…, name.\nLeave that table out"),
        (["message"], "but its columns are: type, messageid.\nIf these are messages, load them: autopilothq load"),
        (["no_column"], "Expected a column id in email_opened, which identifies its rows, but its columns are: none."),
        (["avro"], "email_opened.avro, but it cannot be read: ValueError: cannot read header - is it"),
        (["--from", "mysql://there"], "Expected postgresql://... or duckdb:///file to adopt from, but got mysql."),
        (["--from", "duckdb:///none.duckdb"], "none.duckdb, but there is none."),
        (["--from", "postgresql://u:not-told@127.0.0.1:1/x"], "Expected a database at postgresql://127.0.0.1:1/x, but"),
        (["--from", "postgresql://u:not-told #[?@127.0.0.1:1/x%20y"], 'connection to server at "127.0.0.1", port 1 f'),
        (["--from", "postgresql://u:not-told@[::1]:1,localhost:2"], "database at postgresql://::1,localhost:1,2, but"),
        (["--from", "postgresql://u:not-told%zz@localhost/x"], "Expected a URL of a PostgreSQL database, but it can"),
    ],
)  # fmt: skip
def test_what_cannot_be_adopted_is_said(
    call: Call, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__MAX_EVENT_TABLES", "1")
    monkeypatch.setattr(buffer, "_CHUNK", 1000)
    files = {
        "bad/email_opened.parquet": "no",
        "no_id/email_opened.csv": "name\nx\n",
        "message/email_opened.json": '{"messageId":"m","type":"track"}',
        "no_column/email_opened.csv": "loaded_at\nx\n",
        "long/a.csv": f"{'x' * 99},name\n1,2\n",
        "avro/email_opened.avro": "Obj",
    }
    files |= {f"many/{name}.csv": "id\na\n" for name in ("email_opened", "plan_changed", "app_opened")}
    files |= {"empty/email_opened.parquet": "", "empty/email_clicked.csv": ""}
    packed = gzip.compress(b"id,note\n1,\\N\n" + b"\n".join(b"%d," % (number * 7919) for number in range(1000)))
    broken = {"cut/email_opened.csv.gz": packed[:-500], "behind/email_opened.csv.gz": packed + b"rubbish"}
    # Cut after a whole line, where DuckDB alone would take what comes before for the whole file.
    packer, frame = zlib.compressobj(wbits=31), zstandard.ZstdCompressor().compressobj()
    broken["flushed/email_opened.json.gz"] = packer.compress(b'{"id":"a"}\n') + packer.flush(zlib.Z_SYNC_FLUSH)
    whole = zstandard.ZstdCompressor().compress(b"id,note\na,\\N\n")
    part = frame.compress(b"b,c\n") + frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    broken["frames/email_opened.csv.zst"] = whole + part
    for name, content in ({name: text.encode() for name, text in files.items()} | broken).items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(content)
    said = call("adopt", *words)
    assert said.status == 1
    assert message in said.err
    assert "not-told" not in said.err
    assert "LINE 1" not in said.err  # DuckDB's position in SQL of the program's own


def test_what_links_lead_to_is_adopted_and_what_cannot_be_read_is_an_error(call: Call) -> None:
    for name in ("apart/0.csv", "other/0.csv", "all/.hidden/email_opened.csv", "all/email_bounced.csv"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(f"id\n{name}\n")
    Path("all/email_clicked").symlink_to(Path("apart").absolute())  # a folder, which names the table
    Path("all/email_opened.csv").symlink_to("../other/0.csv")
    Path("all/email_clicked/around").symlink_to(Path("apart").absolute())
    Path("all/.#email_opened.csv").symlink_to("an.editor@lock")
    os.mkfifo("all/email_replied.csv")
    said = call("adopt", "all", "--credentials", "a.duckdb")
    assert said.status == 0
    with duckdb.connect("a.duckdb", read_only=True) as con:
        stored = con.execute("SELECT event, id FROM autopilothq.tracks ORDER BY ALL").fetchall()
    assert stored == [
        ("email_bounced", "all/email_bounced.csv"),
        ("email_clicked", "apart/0.csv"),
        ("email_opened", "other/0.csv"),
    ]
    Path("all/gone.csv").symlink_to("nowhere.csv")
    said = call("adopt", "all", "--credentials", "a.duckdb")
    assert (said.status, errors(said)[-2:]) == (
        1,
        [
            f"Error: Expected to read {Path('all/gone.csv').absolute()}, but got: No such file or directory.",
            "Give this user the right to it, or export it again, or name only folders and files that can be read.",
        ],
    )


def test_a_folder_that_may_not_be_read_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("all/email_opened").mkdir(parents=True)
    listed = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:  # as for others than root, who may read all
        if path.name == "email_opened":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ArchiveError, match=r"Expected to read .*/all/email_opened, but got: Permission denied\."):
        table_files(["all"], {})


def test_an_archive_is_left_out_and_told() -> None:
    archived = Path("logs/segment-logs/AbC/1551398400000/1551398400000.a.1.gz")
    archived.parent.mkdir(parents=True)
    archived.write_bytes(b"x")
    warnings: list[str] = []
    context: Any = SimpleNamespace(report=LoadReport(), warn=warnings.append, new=list)
    assert AdoptedTables(("logs",)).plan(context) == []
    assert context.report.skipped == {"archived": 1}
    for name in "adcb":
        Path(f"logs/{name}.log").write_text("x")
    with duckdb.connect("stock.duckdb") as con:
        con.execute("CREATE SCHEMA shop; CREATE TABLE shop.sold (n INT)")
    assert AdoptedTables(database="duckdb:///stock.duckdb", schema="shop").plan(context) == []
    assert AdoptedTables(("logs/a.log", "logs/b.log")).plan(context) == []
    begin = "Nothing to adopt was found at"
    assert warnings == [
        f"{begin} logs: it is an archive. Load it: autopilothq load archive URL.",
        f"{begin} shop: no table of messages.",
        f"{begin} logs/a.log, logs/b.log: no table of messages.",
    ]
    Path("logs/users.csv").write_text("id\n1\n")
    assert [work.table for work in AdoptedTables(("logs",)).plan(context)] == ["users"]
    assert len(warnings) == 3
    assert context.report.skipped == {"archived": 1, "no_table": 4}
    logs = [str(Path(f"logs/{name}.log").absolute()) for name in "abc"]
    assert context.report.skipped_examples == {"archived": [str(archived.absolute())], "no_table": logs}


def test_tables_that_have_no_messages_of_their_own_are_left_out_and_versions_name_the_table() -> None:
    adopted = ("email_opened", "groups", "sold", "shop_view", "users")
    others = ("_audit", "contacts", "_dlt_loads", "_locks", "rudder_discards", "sold_view", "email_opened_view")
    Path("unload").mkdir()
    for name in (*adopted, *others):
        Path(f"unload/{name}.csv").write_text("x")
    works, left_out = AdoptedTables(("unload",)).works()
    assert [(work.table, work.version) for work in works] == [
        (name, f"adopted {name} 1-{Path(f'unload/{name}.csv').stat().st_mtime_ns}") for name in sorted(adopted)
    ]
    assert left_out == {str(Path(f"unload/{name}.csv").absolute()): "no_table" for name in others}


def test_a_full_disk_is_not_said_of_the_file_that_is_adopted(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise duckdb.IOException(text)

    text = 'IO Error: Could not write file "/dlt/buffered-1.parquet": No space left on device'
    Path("email_opened.csv").write_text("id\na\n")
    monkeypatch.setattr(buffer, "_write", full)
    said = call("adopt", "email_opened.csv")
    assert (said.status, errors(said)[-2:]) == (1, [f"Error: {text}", "Make room on that disk, then run it again."])
