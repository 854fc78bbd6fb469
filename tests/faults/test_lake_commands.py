"""Every command does the same in a lake of Delta tables, on a disk and on a real S3 API, as in DuckDB."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from dlt.pipeline.helpers import pipeline_drop

import autopilothq
import forked
from autopilothq.destination import DeliveryLog
from autopilothq.errors import RunError
from autopilothq.privacy.deletion import KILL_POINT_ROWS_DELETED
from autopilothq.privacy.rewrite import KILL_POINT_VERSIONS_DROPPED
from autopilothq.privacy.suppression_list import KILL_POINT_SUPPRESSED
from autopilothq.warehouses.dataset.delta_versions import KILL_POINT_LOG_DROPPED
from autopilothq.warehouses.delta import lake
from calling import Call, errors
from fake_autopilot import FakeAutopilot, FakeProfiles, contact
from faults.loads import (
    WHEN,
    Table,
    assert_same,
    content,
    file,
    files_in,
    in_memory,
    lake_content,
    load,
    pipeline,
    track,
)
from prepared import as_prepared, preparing
from sending import answer, configure, log_in, send
from sending import identify as identify_one
from servers import S3
from shared_loads import command

OLD = {"load_id", "version", *WHEN}
ADA = {"email": "ada@example.com"}
MESSAGES: list[Any] = [
    {"type": "identify", "messageId": "i-1", "userId": "ada", "traits": ADA},
    *(track(number, userId="ada", properties={"note": "a\0b"}) for number in range(3)),
    *(track(number, userId="bob", context={"traits": {"email": "bob@example.com"}}) for number in range(3, 6)),
    {"type": "identify", "messageId": "i-2", "userId": "bob", "traits": {"email": "bob@example.com"}},
    {"type": "group", "messageId": "g-1", "groupId": "acme", "userId": "ada", "traits": {"plan": "pro"}},
    {"type": "group", "messageId": "g-0", "groupId": "acme", "userId": "bob", "traits": {"plan": "free"}},
    {"type": "delete", "messageId": "d-1", "userId": "ada"},
    b"a line that mentions ada@example.com.",
]


@pytest.fixture(autouse=True)
def _delta(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__TABLE_FORMAT", "delta")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Loads the same archive into a lake and into DuckDB; returns the folder."""
    with preparing(tmp_path_factory.mktemp("lake")) as home:
        file(Path("archive"), "1.gz", MESSAGES)
        both(command, "load", "archive", "archive")
    return home


@pytest.fixture
def loaded(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Works in a fresh copy of that folder."""
    with as_prepared(prepared):
        monkeypatch.setenv("SOURCES__AUTOPILOTHQ__TABLE_FORMAT", "delta")
        yield


@pytest.fixture
def server() -> Iterator[FakeAutopilot]:
    with FakeAutopilot(contacts=0) as running:
        yield running


def bucket() -> str:
    return Path("bucket").absolute().as_uri()


def into_lake() -> tuple[str, ...]:
    return ("--destination", "filesystem", "--credentials", bucket())


def in_lake() -> dict[str, Table]:
    return lake_content(str(Path("bucket").absolute()))


def in_duckdb() -> dict[str, Table]:
    return content(Path("autopilot.duckdb"))


def both(call: Call, *words: str) -> list[Any]:
    """Runs a command on the lake and on DuckDB; returns what each prints as JSON."""
    found = []
    for place in (into_lake(), ("--credentials", "autopilot.duckdb")):
        with pytest.MonkeyPatch.context() as patch:
            if place[0] == "--destination":
                patch.setenv("SOURCES__AUTOPILOTHQ__TABLE_FORMAT", "delta")
            else:
                patch.delenv("SOURCES__AUTOPILOTHQ__TABLE_FORMAT", raising=False)
            said = call(*words, *place, "--json")
        assert (said.status, errors(said)) == (0, []), said.err
        found.append(json.loads(said.out))
    return found


# ---- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("loaded")
def test_status_and_schema_tell_the_same_as_of_duckdb(call: Call) -> None:
    one, other = both(call, "status")
    for status in (one, other):
        status["last_load"] = {name: status["last_load"][name] for name in ("files", "lines", "stored", "rejected")}
        status["tables"] = {name: table["received_at"] for name, table in status["tables"].items()}
    same = ("last_load", "tables", "events_per_day", "rejects", "discards", "waiting")
    assert {name: one[name] for name in same} == {name: other[name] for name in same}
    assert one["last_load"] == {"files": 1, "lines": 12, "stored": 10, "rejected": 2}
    assert one["place"] == f"filesystem {bucket()}, dataset autopilothq"
    said = call("schema", "upgrade", *into_lake())
    assert errors(said)[0] == (
        "Error: Expected PostgreSQL or DuckDB, but got filesystem, whose tables cannot be changed in place."
    )
    for words in (("schema", "--live", "tracks", "_rejects"), ("schema", "diff")):
        lakes, ducks = (call(*words, *place).out for place in (into_lake(), ("--credentials", "autopilot.duckdb")))
        assert without_moments(lakes) == without_moments(ducks)


def without_moments(text: str) -> list[str]:
    return [" ".join(part for part in line.split() if not part[0].isdigit()) for line in text.splitlines()[2:]]


def test_a_lake_that_is_not_there(call: Call) -> None:
    said = call("status", *into_lake())
    assert said.status == 1
    assert errors(said)[0].startswith(f"Error: There is no dataset autopilothq in {bucket()}.")
    assert not Path("bucket/autopilothq").exists()


# ---- loading ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("loaded")
def test_dlts_own_command_drops_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """`dlt pipeline autopilot_events drop email_opened` works, although it uses dlt's own destination."""
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", bucket())
    assert files_in(Path("bucket/autopilothq/email_opened"))
    pipeline_drop(dlt.attach("autopilot_events"), ["email_opened"])()
    assert not files_in(Path("bucket/autopilothq/email_opened"))
    assert files_in(Path("bucket/autopilothq/tracks"))


def scanned(tables: dict[str, Table]) -> dict[str, list[Any]]:
    """Returns the rows of all tables, without the cells that differ between any two scans."""
    other = {"received_at", "deleted_at", "first_received_at", "last_received_at", *OLD}
    return {
        name: sorted(([(k, v) for k, v in sorted(row.items()) if k not in other] for row in table.dicts()), key=repr)
        for name, table in tables.items()
    }


def test_a_scan_of_an_account_has_the_same_tables_as_in_duckdb(server: FakeAutopilot, tmp_path: Path) -> None:
    lists: list[tuple[list[Any], list[Any]]] = [
        ([{"list_id": "l1", "title": "One"}, {"list_id": "l2", "title": "Two"}], [contact(1), contact(2)]),
        ([{"list_id": "l2", "title": "Two, renamed"}], [contact(2, FirstName="Bob")]),
        ([], [contact(2, FirstName="Bob")]),
    ]
    duck = in_memory()
    for found, contacts in lists:
        for destination, folder, table_format in ((lake(bucket()), "lake", "delta"), (duck, ".", None)):
            server.requests.clear()
            fields = {"mail_opened": {"k": 1482221100000}, "custom_fields": [{"kind": "plan", "value": "pro"}]}
            page = {"contacts": [one | fields for one in contacts], "total_contacts": len(contacts)}
            server.order("GET", "/contacts", content=page)
            server.order("GET", "/lists", content={"lists": found})
            for one in found:
                page = {"contacts": contacts, "total_contacts": len(contacts)}
                server.order("GET", f"/list/{one['list_id']}/contacts", content=page)
            source = autopilothq.api(
                server.key, base_url=server.base_url, requests_per_second=10_000, tries=1, table_format=table_format
            )
            wanted = (
                "tracks",
                "email_opened",
                "contacts",
                "lists",
                "lists_contacts",
                "_audit",
                "_rejects",
                "_discards",
            )
            pipeline(tmp_path / folder, destination).run(source.with_resources(*wanted))
        assert scanned(in_lake()) == scanned(content(duck))
    assert [(row["contact_id"], bool(row["deleted_at"])) for row in in_lake()["contacts"].dicts()] == [
        ("person_1", True),
        ("person_2", False),
    ]
    assert in_lake()["lists"].rows == []


def pulled(tables: dict[str, Table]) -> dict[str, list[Any]]:
    """Returns the rows of all tables, without times of the pull."""
    other = {"watermark", "asked_at", "first_received_at", "last_received_at", "file", *OLD}
    return {
        name: sorted(([(k, v) for k, v in sorted(row.items()) if k not in other] for row in table.dicts()), key=repr)
        for name, table in tables.items()
    }


def test_a_pull_of_profiles_has_the_same_tables_as_in_duckdb(tmp_path: Path) -> None:
    duck = in_memory()
    with FakeProfiles() as server:
        server.happen("email:a@example.com", "Email Clicked")
        server.happen("email:a@example.com", "Order Done", properties={"n": 1})
        Path("people.txt").write_text("a@example.com\nb@example.com")
        options: dict[str, Any] = {"token": server.token, "space": server.space, "base_url": server.base_url}
        for people in ("people.txt", "SELECT DISTINCT context_traits_email FROM autopilothq.tracks"):
            for destination, folder, table_format in ((lake(bucket()), "lake", "delta"), (duck, ".", None)):
                source = autopilothq.profiles(
                    **options, people=people, events=["Email Clicked", "Order Done"], table_format=table_format
                )
                pipeline(tmp_path / folder, destination).run(source)
            server.happen("email:a@example.com", "Email Clicked", ago=1)
    found, expected = pulled(in_lake()), pulled(content(duck))
    assert found == expected
    assert len(found["email_clicked"]) == 2
    assert len(found["order_done"]) == 1


# ---- sending ---------------------------------------------------------------------------------------------------------


def test_sends_and_keeps_its_log_in_s3(s3: S3, server: FakeAutopilot) -> None:
    place = lake(f"{s3.bucket()}/lake", credentials=s3.credentials)
    odd = "'; DROP TABLE x -- \\n \\ \n\t\r\x01 %s %(a)s {} é 株 \U0001f600 \"$$"
    with DeliveryLog(log_in(place)) as log:
        assert (log.statuses([odd]), log.latest(), log.members("none")) == ({}, [], {})
    messages = [identify_one(1), identify_one(odd, traits={"email": "odd@example.com"}), identify_one(3)]
    assert send(server, messages, place).delivered == 3
    assert send(server, messages, place).known == 3
    assert answer("SELECT message_id, status FROM _deliveries ORDER BY sent_at", place)[1] == [
        (f"i{name}", "delivered") for name in (1, odd, 3)
    ]
    with pytest.raises(RunError, match="got INSERT"):
        answer("INSERT INTO autopilothq._deliveries (run) VALUES ('x')", place)


@pytest.mark.usefixtures("loaded")
def test_the_command_sends_what_a_lake_answers(
    call: Call, server: FakeAutopilot, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, server)
    query = (
        "SELECT DISTINCT context_traits_email AS email, 'pro' AS title FROM autopilothq.tracks WHERE user_id = 'bob'"
    )
    for out in (
        "1 message: 1 delivered",
        "1 message: 0 delivered, 0 refused, 0 failed, 0 unknown, 1 delivered before",
    ):
        said = call("send", "traits", "--query", query, *into_lake())
        assert (said.status, out in said.out) == (0, True), said.out + said.err
    said = call("deliveries", *into_lake())
    assert said.out.splitlines()[-1] == "1 delivered, 0 refused, 0 failed, 0 unknown"
    assert "bob@example.com" in said.out


# ---- forgetting ------------------------------------------------------------------------------------------------------


def unlike(tables: dict[str, Table]) -> dict[str, list[Any]]:
    """Returns the rows of all tables, without random cells."""
    random = {"_suppressions": {"id", "salt", "person", "suppressed_at"}, "_deliveries": {"sent_at", "run"}}
    return {
        name: sorted(
            [(k, v) for k, v in sorted(row.items()) if k not in random.get(name, OLD)] for row in table.dicts()
        )
        for name, table in tables.items()
    }


@pytest.mark.usefixtures("loaded")
def test_forgets_the_same_rows_as_in_duckdb(call: Call) -> None:
    words = ("forget", "--email", "ada@example.com")
    one, other = both(call, *words)
    for made in (one, other):
        for id_ in made["ids"]:
            id_.pop("hash")
    same = ("ids", "suppressed", "rows", "lines", "left", "shared")
    assert {name: one[name] for name in same} == {name: other[name] for name in same}
    assert one["rows"]["email_opened"] == 3
    assert one["remains"] == (
        "The removed rows may still be in its storage. Delta Lake keeps them in old versions of its tables:"
        " `forget --rewrite` removes these."
    )
    assert unlike(in_lake()) == unlike(in_duckdb())
    assert both(call, *words)[0]["rows"] == {}
    file(Path("archive"), "2.gz", MESSAGES)
    report, _ = both(call, "load", "archive", "archive")
    assert (report["stored"], report["rejects"]["suppressed"]) == (0, 7)
    assert {row["user_id"] for row in in_lake()["tracks"].dicts()} == {"bob"}


def bytes_of(folder: Path) -> bytes:
    """Returns the bytes of all files in a folder, with the cells of Parquet files as text."""
    found = b""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found += path.read_bytes()
            found += repr(pq.read_table(path).to_pylist()).encode() if path.suffix == ".parquet" else b""
    return found


@pytest.mark.usefixtures("loaded")
def test_rewrite_leaves_no_bytes_of_the_person(call: Call) -> None:
    folder = Path("bucket/autopilothq")
    assert b"ada@example.com" in bytes_of(folder)
    reader = DeltaTable(str(folder / "tracks")).to_pyarrow_dataset()
    said = call("forget", "--email", "ada@example.com", *into_lake(), "--json")
    assert said.status == 0, said.err
    assert reader.count_rows() == 6  # readers of an earlier version can go on
    assert b"ada@example.com" in bytes_of(folder)
    before = in_lake()
    said = call("forget", "--email", "ada@example.com", *into_lake(), "--json", "--rewrite")
    made = json.loads(said.out)
    assert (said.status, made["remains"], "tracks" in made["rewritten"]) == (0, None, True), said.err
    assert b"ada@example.com" not in bytes_of(folder)
    assert_same(in_lake(), before)
    for table in folder.glob("[!_i]*"):
        files = {Path(url).name for url in DeltaTable(str(table)).file_uris()}
        assert {path.name for path in table.glob("*.parquet")} == files
    loaded_again = load(pipeline(Path("new machine"), lake(bucket())), "archive", table_format="delta")
    assert loaded_again.files == 0
    assert_same(in_lake(), before)


KILLED = """
import os, sys
from contextlib import suppress
from faults.killed import kill_at
from autopilothq import cli
kill_at(*{point!r})
sys.argv = {words!r}
cli.main()
"""
POINTS: dict[str, tuple[str, str, int]] = {
    "suppressed": (KILL_POINT_SUPPRESSED, "after", 1),
    "some rows deleted": (KILL_POINT_ROWS_DELETED, "after", 3),
    "some versions dropped": (KILL_POINT_VERSIONS_DROPPED, "after", 2),
    "a checkpoint, and the log still there": (KILL_POINT_LOG_DROPPED, "before", 2),
}


@pytest.fixture(scope="module")
def undisturbed(prepared: Path) -> dict[str, list[Any]]:
    """The rows in DuckDB after an undisturbed `forget`."""
    with as_prepared(prepared):
        said = command("forget", "--email", "ada@example.com", "--credentials", "autopilot.duckdb")
        assert said.status == 0, said.err
        return unlike(in_duckdb())


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.usefixtures("loaded")
def test_a_forgetting_that_was_killed_is_completed_by_the_next(
    point: str, call: Call, undisturbed: dict[str, list[Any]]
) -> None:
    words = ["autopilothq", "forget", "--email", "ada@example.com", *into_lake(), "--rewrite"]
    done = forked.run("-c", KILLED.format(point=POINTS[point], words=words))
    assert done.returncode == -9, done.stderr
    age_locks()
    said = call(*words[1:])
    assert said.status == 0, said.err
    assert unlike(in_lake()) == undisturbed
    assert b"ada@example.com" not in bytes_of(Path("bucket/autopilothq"))


def age_locks() -> None:
    """Makes the killed process's leases expire, as after a minute."""
    for lease in Path("bucket/autopilothq").glob("_locks*/*"):
        os.utime(lease, (0, 0))
