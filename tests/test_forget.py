"""`forget`: what it removes, what stays, and what a later load leaves out."""

import gzip
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import fsspec
import psycopg2
import pyarrow as pa
import pytest
import s3fs
import zstandard

import autopilothq
from autopilothq import runner
from autopilothq.catalog import SUPPRESSIONS, TABLES
from autopilothq.destination.delivery_log import CHANGED, address_digest
from autopilothq.projection import suppression
from autopilothq.segment.identity import HashedIds, Id, hash_of, id_of, ids_in, kinds_of
from autopilothq.warehouses import lock
from calling import Call, errors
from contract.duck import held
from fake_autopilot import FakeAutopilot
from faults.loads import Table, assert_sound, content, line, messages, track
from prepared import as_prepared, going_on, preparing
from servers import S3
from shared_loads import command, isolation

ADA = {"email": "Ada@Example.com", "contact_id": "person_A"}
BOB = {"email": "bob@example.com", "contact_id": "person_B"}
# By user id, by email alone, by contact id alone, by an older email and an older id, and in lines that are no messages.
ADAS: list[Any] = [
    track(1, userId="ada", context={"traits": ADA}),
    track(2, userId="ada"),
    {"type": "track", "event": "Email Clicked", "messageId": "m-3", "anonymousId": "ada@example.com"},
    track(4, event="Signed Up", userId=None, anonymousId="x-4", properties={"email": "ADA@example.com"}),
    track(5, userId=None, anonymousId="device", context={"traits": {"contact_id": "person_A"}}),
    {"type": "identify", "messageId": "i-1", "userId": "ada", "traits": {"email": "ada@work.example", "name": "Ada"}},
    track(6, userId=None, anonymousId="ada@work.example", properties={"note": "a\0b"}),
    {"type": "alias", "messageId": "a-1", "userId": "ada", "previousId": "old ada"},
    track(7, userId="old ada"),
    {"type": "delete", "messageId": "d-1", "userId": "ada"},
    b'{"type":"track","userId":"ada","broken',
    b"a line that mentions ada@example.com.",
]
# The words of Ada's ids stand in these too, but not as hers.
BOBS: list[Any] = [
    track(21, userId="bob", context={"traits": BOB}),
    track(22, userId="1", properties={"ada": 1, "note": "ada", "n": "a\0b"}),
    track(23, userId="ada2", context={"traits": {"contact_id": "ada"}}),
    {"type": "identify", "messageId": "i-2", "userId": "bob", "traits": {"email": "bob@example.com"}},
    {"type": "delete", "messageId": "d-2", "userId": "bob"},
    b'{"count": "ada", broken',
]
BOTH = [one for pair in zip(ADAS, [*BOBS, *(track(number, userId="bob") for number in range(31, 37))]) for one in pair]  # noqa: B905
# An email leads to the contact; other ids next to it may be somebody else's.
WORDS = ("--email", "ADA@example.com", "--email", "ada@work.example", "--user-id", "ada", "--user-id", "old ada")
FORGET_ADA = (*WORDS, "--confirm", "7")
FORGOTTEN = [
    ["user_id", "ada", None],
    ["user_id", "old ada", None],
    ["email", "ada@example.com", None],
    ["email", "ada@work.example", None],
    ["contact_id", "person_A", "email ada@example.com"],
    ["anonymous_id", "device", "contact_id person_A"],
    ["anonymous_id", "x-4", "email ada@example.com"],
]
REMOVED = {
    "_discards": 1,
    "_rejects": 3,
    "aliases": 1,
    "email_clicked": 1,
    "email_opened": 5,
    "identifies": 1,
    "signed_up": 1,
    "tracks": 7,
    "users": 1,
}
REMAINS = (
    "The removed rows may still be in {}/autopilot.duckdb. DuckDB frees their blocks without overwriting them:"
    " `forget --rewrite` writes a new file."
)


def write(path: str, lines: Sequence[Any]) -> None:
    Path(path).write_bytes(b"".join(map(line, lines)))


def opened() -> AbstractContextManager[object]:
    """Keeps the database open meanwhile, if it is a DuckDB file."""
    return nullcontext() if os.environ.get("DESTINATION_TYPE") else held()


def load(call: Call, *words: str) -> dict[str, Any]:
    with opened():
        said = call("load", "archive", *words, "--json")
    assert said.status == 0, said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


def forget(call: Call, *words: str) -> dict[str, Any]:
    with opened():
        said = call("forget", *words, "--json")
    assert (said.status, said.err) == (0, "")
    found: dict[str, Any] = json.loads(said.out)
    return found


def here() -> dict[str, Table]:
    with held() as con:
        return content(con)


def rows(tables: dict[str, Table]) -> dict[str, list[str]]:
    """The rows of all tables that have any, but for files and books of files; columns without a value left out.

    A reject's id is a digest of its place, so it is left out too.
    """
    kept = {
        name: sorted(
            repr(
                sorted(
                    (k, v)
                    for k, v in row.items()
                    if v is not None and k not in ("file", "line") and (name, k) != ("_rejects", "id")
                )
            )
            for row in table.dicts()
        )
        for name, table in tables.items()
        if name not in ("_audit", SUPPRESSIONS.name, "_locks")
    }
    return {name: these for name, these in kept.items() if these}


@pytest.fixture(scope="module")
def without_ada(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The content of a dataset that never had Ada."""
    with isolation(tmp_path_factory.mktemp("without")):
        write("without.ndjson", [one for one in BOTH if one not in ADAS])
        load(command, "without.ndjson")
        return rows(here())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A load of `a.ndjson`, which leaves what loads in plain dlt leave."""
    with preparing(tmp_path_factory.mktemp("both")) as home, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOAD__DELETE_COMPLETED_JOBS", "false")
        write("a.ndjson", BOTH)
        load(command, "a.ndjson")
    return home


@pytest.fixture
def loaded(prepared: Path) -> Iterator[Path]:
    """Works where Ada and Bob are loaded; yields that folder, which also has dlt's."""
    with as_prepared(prepared):
        yield prepared


# ---- the whole ------------------------------------------------------------------------------------------------------


class Gone(NamedTuple):
    """The report and all rows after forgetting Ada, and the report and all rows after loading the same lines again."""

    found: dict[str, Any]
    rows: dict[str, list[str]]
    again: dict[str, Any]
    tables: dict[str, Table]


@pytest.fixture(scope="module")
def gone(prepared: Path) -> Gone:
    """Ada is forgotten; then her lines and Bob's come again, with a line of each that is too long."""
    with going_on(prepared, "gone"):
        found = forget(command, *FORGET_ADA)
        left = rows(here())
        shutil.copy("a.ndjson", "again.ndjson")
        write("long.ndjson", [{"userId": "ada", "long": "x" * 2**20}, {"userId": "bob", "long": "x" * 2**20}])
        again = load(command, "again.ndjson", "long.ndjson", "--max-rejects", "3")
        return Gone(found, left, again, here())


@pytest.fixture
def gone_here(prepared: Path, gone: Gone) -> Iterator[Gone]:
    """Works where that is so."""
    with as_prepared(prepared, "gone"):
        yield gone


def test_a_person_is_gone_and_stays_away(call: Call, gone_here: Gone, without_ada: dict[str, list[str]]) -> None:
    found, again, tables = gone_here.found, gone_here.again, gone_here.tables
    assert [[id_["kind"], id_["id"], id_["found_with"]] for id_ in found["ids"]] == FORGOTTEN
    assert found["rows"] == REMOVED
    assert (found["suppressed"], found["shared"], found["lines"], found["left"]) == (7, [], {}, {})
    assert gone_here.rows == without_ada

    assert (again["lines"], again["stored"], again["rejected"]) == (24 + 2, 0, 14 + 2)
    assert again["rejects"] == {"suppressed": 12 + 1, "not_json": 1, "unknown_type": 1, "line_too_long": 1}
    [book] = [row for row in tables["_audit"].dicts() if row["file"].endswith("again.ndjson")]
    assert (book["lines"], book["stored"], book["rejected"]) == (24, 0, 14)
    assert_sound(tables)
    suppressed = [row for row in rejects_of(tables, "again.ndjson") if row["reason"] == "suppressed"]
    assert sorted(row["line"] for row in suppressed) == list(range(1, 25, 2))
    assert {(row["message"], row["raw"]) for row in suppressed} == {("of a deleted person", "")}
    assert {name: these for name, these in rows(tables).items() if name != "_rejects"} == {
        name: these for name, these in without_ada.items() if name != "_rejects"
    }
    assert not re.search(
        "ada@|person_A|old ada|device|x-4", repr([table.rows for table in tables.values()]), re.IGNORECASE
    )

    said = call("forget", "--email", "ada@example.com", "--confirm", "7")
    assert said.status == 0
    lines = said.out.splitlines()
    assert lines[0].split() == ["kind", "id", "found", "hash"]
    assert lines[1].split()[:3] == ["email", "ada@example.com", "given"]
    assert lines[3:] == [
        "Nothing was found of this person; ids kept out of later loads: 7",
        REMAINS.format(Path.cwd()),
        f"from {Path.cwd()}/autopilot.duckdb, dataset autopilothq",
    ]


def rejects_of(tables: dict[str, Table], name: str) -> list[dict[str, Any]]:
    """The rejects of the files of a name."""
    return [row for row in tables["_rejects"].dicts() if row["file"].endswith(name)]


def test_a_later_load_of_lines_that_are_too_long(gone: Gone) -> None:
    """Those of others count, and may be as many as the call says; hers are not kept."""
    rejects = rejects_of(gone.tables, "long.ndjson")
    assert {row["line"]: row["raw"][:15] for row in rejects} == {1: "", 2: '{"userId": "bob'}
    assert {row["line"]: row["reason"] for row in rejects} == {1: "suppressed", 2: "line_too_long"}


@pytest.mark.usefixtures("gone_here")
def test_a_forgotten_person_is_not_sent_again(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    who = {"type": "identify", "messageId": "back", "traits": {"email": "Ada@Example.com"}}
    change = {"email": "Eßter@example.com", "_NewEmail": "new@example.com"}
    by_user_id = {**who, "messageId": "id", "userId": "old ada", "traits": {"email": "fresh@example.com"}}
    by_contact_id = {**who, "messageId": "contact", "context": {"traits": {"contact_id": "person_A"}}}
    by_contact_id["traits"] = {"email": "fresher@example.com"}
    write("b.ndjson", [who, {**who, "messageId": "other", "traits": change}, by_user_id, by_contact_id])
    with FakeAutopilot(0) as account:
        monkeypatch.setenv("DESTINATION__AUTOPILOTHQ__API_KEY", account.key)
        monkeypatch.setenv("DESTINATION__AUTOPILOTHQ__BASE_URL", account.base_url)
        said = call("send", "messages", "b.ndjson")
        sent = [request.body for request in account.requests if request.method == "POST"]
    sums = "4 messages: 1 delivered, 0 refused, 0 failed, 0 unknown, 3 of deleted persons\n"
    assert (said.status, said.out) == (0, sums)
    assert len(sent) == 1
    assert "ada" not in str(sent).lower()
    [row] = here()["_deliveries"].dicts()
    assert (row["email"], row["content"]) == ("new@example.com", f"{CHANGED}{address_digest('eßter@example.com')}")
    # By its digest anybody could find out that the old address was somebody's here, and whose it is now.
    assert forget(call, "--email", "EßTER@example.com")["rows"] == {"_deliveries": 1}
    assert here()["_deliveries"].dicts() == []


NOT_FOLLOWED = (
    "Not followed: contact_id person_A beside email ada@example.com, because the person has another contact id."
    " If it is this person's, add --contact-id person_A"
)


@pytest.mark.usefixtures("loaded")
def test_prints_what_was_removed(call: Call) -> None:
    said = call("forget", *WORDS, "--contact-id", "nobody", "--archive", "a.ndjson", "--max-ids", "6")
    assert said.status == 0
    hidden = re.sub(r"[0-9a-f]{12}", "hash", said.out)
    lines = [re.sub(" +", " ", text.strip()) for text in hidden.splitlines()]
    assert lines == [
        "kind id found hash",
        "user_id ada given hash",
        "user_id old ada given hash",
        "email ada@example.com given hash",
        "email ada@work.example given hash",
        "contact_id nobody given hash",
        "anonymous_id x-4 beside email ada@example.com hash",
        "",
        NOT_FOLLOWED,
        "Rows that have only such ids stay.",
        "",
        "table rows removed",
        *(f"{table} {number}" for table, number in (REMOVED | {"email_opened": 4, "tracks": 6}).items()),
        "",
        "file lines removed",
        f"{Path('a.ndjson').absolute()} 11",
        "",
        "19 rows and 11 lines removed; ids kept out of later loads: 6",
        REMAINS.format(Path.cwd()),
        f"from {Path.cwd()}/autopilot.duckdb, dataset autopilothq",
    ]


@pytest.mark.usefixtures("loaded")
def test_a_dry_run_changes_nothing(call: Call) -> None:
    before, file = here(), Path("a.ndjson").read_bytes()
    with lock.held(runner.pipeline(), 0):  # it does not wait for a load that is at work
        found = forget(call, *WORDS, "--archive", "a.ndjson", "--dry-run")
    assert found["dry_run"]
    assert [[id_["kind"], id_["id"], id_["found_with"]] for id_ in found["ids"]] == FORGOTTEN
    assert found["rows"] == REMOVED
    assert found["lines"] == {str(Path("a.ndjson").absolute()): 12}
    assert (here(), Path("a.ndjson").read_bytes()) == (before, file)
    assert "would be removed" in call("forget", *WORDS, "--dry-run").out


@pytest.mark.usefixtures("loaded")
def test_an_id_without_rows_is_only_suppressed(call: Call) -> None:
    before = here()
    found = forget(call, "--user-id", "nobody", "--archive", "a.ndjson")
    assert (found["rows"], found["lines"], found["suppressed"]) == ({}, {}, 1)
    after = here()
    assert len(after.pop(SUPPRESSIONS.name).rows) == 1
    assert after == before


# ---- who it is ------------------------------------------------------------------------------------------------------


def test_what_others_share_is_not_followed(call: Call) -> None:
    crowd = [track(number, userId="0", context={"traits": {"email": f"p{number}@example.com"}}) for number in range(12)]
    family = [
        track(41, userId="ada", anonymousId="tablet"),
        track(42, userId="bob", anonymousId="tablet"),
        track(43, userId=None, anonymousId="tablet"),
        track(44, userId="ada", anonymousId="phone"),
        track(45, userId=None, anonymousId="phone"),
    ]
    write("a.ndjson", crowd + family)
    load(call, "a.ndjson")
    found = forget(call, "--email", "p3@example.com")
    assert ([id_["id"] for id_ in found["ids"]], told(found)) == (["p3@example.com"], ["user_id 0"])
    assert found["rows"] == {"email_opened": 1, "tracks": 1}
    found = forget(call, "--user-id", "ada")
    assert ([id_["id"] for id_ in found["ids"]], told(found)) == (["ada", "phone"], ["anonymous_id tablet"])
    assert found["shared"] == [
        {
            "id": "anonymous_id tablet",
            "found_with": "user_id ada",
            "why": "user_id bob shares a row with it too",
            "option": "--anonymous-id tablet",
        }
    ]
    assert found["rows"] == {"email_opened": 3, "tracks": 3}
    found = forget(call, "--user-id", "0")
    assert ([id_["id"] for id_ in found["ids"]], told(found)) == (["0"], ["11 emails"])
    assert found["rows"] == {"email_opened": 11, "tracks": 11}
    assert [row["id"] for row in here()["tracks"].dicts()] == ["m-42", "m-43"]
    assert forget(call, "--anonymous-id", "tablet")["rows"] == {"email_opened": 2, "tracks": 2}


def told(found: dict[str, Any]) -> list[str]:
    return [shared["id"] for shared in found["shared"]]


def test_ids_in_columns() -> None:
    assert id_of("user_id", " Ada@Example.com ") == Id("email", "ada@example.com")
    assert id_of("contact_id", "a@b") == Id("contact_id", "a@b")
    assert list(ids_in(kinds_of("aliases", "previous_id"), "x")) == [Id("user_id", "x"), Id("anonymous_id", "x")]
    assert list(ids_in(kinds_of("tracks", "anonymous_id"), "A@b.c")) == [Id("email", "a@b.c")]
    assert list(ids_in(kinds_of("_profiles", "person"), "email:A@b.c")) == [Id("email", "a@b.c")]
    assert list(ids_in(kinds_of("tracks", "context_traits_email"), "none")) == []
    assert list(ids_in(kinds_of("tracks", "user_id"), " ")) == []
    assert (kinds_of("users", "id"), kinds_of("tracks", "id")) == (("email", "user_id"), ())


def test_every_column_of_the_catalogue_that_names_a_person_is_known() -> None:
    named = re.compile(r"(^|_)(email|user_id|contact_id|anonymous_id|previous_id|person)$")
    columns = [
        (table.name, column.name)
        for table in TABLES.values()
        for column in table.columns
        if named.search(column.name) and table is not SUPPRESSIONS
    ]
    assert [at for at in columns if not kinds_of(*at)] == []


MENTIONS: dict[bytes, bool] = {
    b'{"userId":"1"}': True,
    b'{"userId": 1}': True,
    b'{"userId":"1': True,
    b'{"previousId":"1"}': True,
    b'{"context_traits_contact_id": "c"}': True,
    b'{"contactId":"c"}': True,
    b'{"userId":"q\\"u\\\\o"}': True,
    b'{"userId":"\\u0071\\"u\\\\o"}': True,
    b"to A@Example.COM.": True,
    b'{"note":"hello\\na@example.com\\tx': True,
    b'a@example.com","userId': True,
    "see \u0907@\u0909\u0926\u093e.\u092d\u093e".encode(): True,
    b'{"userId":"x=y@example.com","broken': True,
    b'{"userId":"x y@example.com","broken': True,
    '{"userId":"1",'.encode("utf-16"): True,
    b"x=y@example.community": False,
    b"+a@example.com": False,
    b"{'userId': '1'}": True,
    b"t=1&user_id=1&e=x": True,
    b"user id: 11": False,
    b'{"userIds":"1"}': False,
    b'"mailto:a@example.com?subject=x"': True,
    b'{"email":"a\\u0040example.com"}': True,
    b'{"email":"\\u00e9@example.com"}': True,
    b'\xff "email":"a@example.com"': True,
    b'{"count":1}': False,
    b'{"userId":"11"}': False,
    b'{"contact_id":"1"}': False,
    b'{"userId":"c"}': False,
    b"ba@example.com": False,
    b"a@example.com.au": False,
    b"": False,
}


@pytest.fixture(scope="module")
def knowing() -> Iterator[duckdb.DuckDBPyConnection]:
    """An engine that knows the hashes of a person's ids."""
    ids = [
        Id("email", "a@example.com"), Id("email", "é@example.com"), Id("user_id", "1"), Id("contact_id", "c"),
        Id("user_id", 'q"u\\o'), Id("email", "\u0907@\u0909\u0926\u093e.\u092d\u093e"), Id("email", "x=y@example.com"),
        Id("email", "x y@example.com"),
    ]  # fmt: skip
    with duckdb.connect() as engine:
        suppression.register_suppressed(engine, [("salt", hash_of("salt", id_)) for id_ in ids])
        yield engine


@pytest.mark.parametrize("text", MENTIONS)
def test_what_mentions_a_person(knowing: duckdb.DuckDBPyConnection, text: bytes) -> None:
    texts = pa.array([text, b"other"], pa.large_binary())
    assert suppression.find_mentions(knowing, pa.array([7, 8]), texts) == ([7] if MENTIONS[text] else [])


def test_hashes_are_salted() -> None:
    ada = Id("user_id", "ada")
    known = HashedIds([("one", hash_of("one", ada)), ("two", hash_of("two", ada._replace(kind="contact_id")))])
    assert ada in known
    assert Id("contact_id", "ada") in known
    assert Id("anonymous_id", "ada") not in known
    assert ada not in HashedIds([("two", hash_of("one", ada))])


# ---- files ----------------------------------------------------------------------------------------------------------


class Rewritten(NamedTuple):
    """Where files are that had Ada, what the call that took her out said, and what the load after it said.

    `of_bobs` and `modified` are of the files without her, on the disk and in the bucket, before and after.
    """

    home: Path
    bucket: str
    of_bobs: tuple[os.stat_result, os.stat_result]
    modified: tuple[Any, Any]
    found: dict[str, Any]
    again: dict[str, Any]


TEXT, KEPT = (b"".join(map(line, lines)) for lines in (BOTH, [one for one in BOTH if one not in ADAS]))


def write_folder(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.json").write_bytes(
        b"\xef\xbb\xbf\n" + TEXT.replace(b"\n", b"\r\n") + line(track(1, userId="ada"))[:-1]
    )
    (folder / "a.gz").write_bytes(gzip.compress(TEXT[:1000]) + gzip.compress(TEXT[1000:]))
    (folder / "a.zst").write_bytes(zstandard.compress(TEXT))
    (folder / "bobs.gz").write_bytes(gzip.compress(KEPT))
    (folder / "linked.json").symlink_to(Path("elsewhere.json").absolute())
    Path("elsewhere.json").write_bytes(TEXT)
    (folder / "a.gz").chmod(0o640)


def in_bucket(s3: S3) -> Any:
    s3fs.S3FileSystem.clear_instance_cache()
    return fsspec.filesystem("s3", use_listings_cache=False, **s3.storage_options)


@pytest.fixture(scope="module")
def rewritten(tmp_path_factory: pytest.TempPathFactory, s3: S3) -> Rewritten:
    """One archive on the disk, another in a bucket: both loaded, Ada forgotten in both, and both loaded again."""
    with preparing(tmp_path_factory.mktemp("rewritten")) as home, pytest.MonkeyPatch.context() as patch:
        for name, value in s3.credentials.items():
            patch.setenv(f"SOURCES__AUTOPILOTHQ__CREDENTIALS__{name.upper()}", value)
        write_folder(Path("archive"))
        hand, bucket = in_bucket(s3), s3.bucket()
        hand.pipe_file(f"{bucket}/a.gz", gzip.compress(TEXT, mtime=0))
        hand.pipe_file(f"{bucket}/b.json", b"".join(map(line, BOBS)))

        def stamps() -> tuple[os.stat_result, Any]:
            return Path("archive/bobs.gz").stat(), hand.info(f"{bucket}/b.json")["LastModified"]

        before = stamps()
        load(command, "archive", bucket)
        found = forget(command, *FORGET_ADA, "--archive", "archive", "--archive", bucket)
        of_bobs, modified = zip(before, stamps(), strict=True)
        return Rewritten(home, bucket, of_bobs, modified, found, load(command, "archive", bucket))


def test_files_are_written_again_as_they_were(call: Call, rewritten: Rewritten) -> None:
    with as_prepared(rewritten.home):
        folder = Path("archive")
        lines = {"a.json": 13, "a.gz": 12, "a.zst": 12, "linked.json": 12}
        found = {name: number for name, number in rewritten.found["lines"].items() if not name.startswith("s3:")}
        assert found == {str(folder.absolute() / name): lines[name] for name in sorted(lines)}
        assert (folder / "a.json").read_bytes() == b"\xef\xbb\xbf\n" + KEPT.replace(b"\n", b"\r\n")
        assert gzip.decompress((folder / "a.gz").read_bytes()) == KEPT
        assert zstandard.ZstdDecompressor().decompressobj().decompress((folder / "a.zst").read_bytes()) == KEPT
        assert ((folder / "linked.json").is_symlink(), Path("elsewhere.json").read_bytes()) == (True, KEPT)
        assert (folder / "a.gz").stat().st_mode & 0o777 == 0o640
        untouched, after = rewritten.of_bobs
        assert (after.st_mtime_ns, after.st_ino) == (untouched.st_mtime_ns, untouched.st_ino)
        assert sorted(os.listdir(folder)) == ["a.gz", "a.json", "a.zst", "bobs.gz", "linked.json"]

        # Four other versions of files, and that in the bucket, with nothing new in them.
        again = rewritten.again
        assert (again["files"], again["stored"], again["rejects"]) == (5, 0, {"not_json": 5, "unknown_type": 5})
        assert forget(call, "--email", "ada@example.com", "--confirm", "7", "--archive", "archive")["lines"] == {}
        # Of an archive that turns up later, by the hashes alone: nothing leads from this email to the other ids.
        Path("late.json").write_bytes(TEXT)
        assert forget(call, "--email", "ada@work.example", "--confirm", "7", "--archive", "late.json")["lines"] == {
            str(Path("late.json").absolute()): 12
        }
        assert Path("late.json").read_bytes() == KEPT


def test_s3(rewritten: Rewritten, s3: S3) -> None:
    bucket, hand = rewritten.bucket, in_bucket(s3)
    found = {name: number for name, number in rewritten.found["lines"].items() if name.startswith("s3:")}
    assert found == {f"{bucket}/a.gz": 12}
    assert gzip.decompress(hand.cat_file(f"{bucket}/a.gz")) == KEPT
    assert rewritten.modified[0] == rewritten.modified[1]
    assert sorted(hand.ls(bucket, detail=False)) == [f"{bucket[5:]}/a.gz", f"{bucket[5:]}/b.json"]
    assert rewritten.again["stored"] == 0
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.usefixtures("loaded")
def test_a_damaged_file_stays_as_it_is(call: Call) -> None:
    damaged = gzip.compress(Path("a.ndjson").read_bytes())[:-100]
    Path("cut.gz").write_bytes(damaged)
    said = call("forget", *FORGET_ADA, "--archive", "cut.gz", "--archive", "a.ndjson")
    assert said.status == 1
    told = " ".join(said.out.split())
    assert f"{Path('cut.gz').absolute()} stays as it is, and may hold lines of the person: The file was cut off" in told
    assert "21 rows and 12 lines removed" in told
    assert Path("cut.gz").read_bytes() == damaged
    assert not list(Path().glob(".*"))


# ---- what loads leave -----------------------------------------------------------------------------------------------


def test_nothing_is_left_outside_of_the_dataset(call: Call, loaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOAD__DELETE_COMPLETED_JOBS", "false")  # as loads in plain dlt leave them
    working = loaded / "dlt/pipelines/autopilot_events"
    assert list(working.glob("load/loaded/*/completed_jobs/*"))
    with duckdb.connect("autopilot.duckdb") as books:
        books.execute("CREATE SCHEMA IF NOT EXISTS autopilothq_staging")
        books.execute("CREATE OR REPLACE TABLE autopilothq_staging.tracks AS FROM autopilothq.tracks")
        books.execute("CREATE VIEW autopilothq.people AS FROM autopilothq.tracks")
        books.execute("CREATE TABLE autopilothq.numbers AS SELECT 5::BIGINT AS contact_id")
    # A load that was cut off before it reached the dataset.
    write("later.ndjson", [track(8, userId="ada"), track(9, userId="bob")])
    into = runner.pipeline()
    into.set_local_state_val(runner.UNFINISHED_TARGET, runner.target_of(into))
    into.extract(autopilothq.archive("later.ndjson"))
    into.normalize()
    found = forget(call, *WORDS, "--contact-id", "person_A", "--contact-id", "5", "--confirm", "8")
    assert found["rows"] == REMOVED | {"autopilothq_staging.tracks": 7, "numbers": 1}
    assert not runner.pipeline().has_pending_data
    assert not list(working.rglob("*_jobs/*"))
    assert not list(working.glob("autopilothq*"))
    again = load(call, "later.ndjson")
    assert (again["stored"], again["rejects"]) == (1, {"suppressed": 1})


def test_a_contact_stays_away(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeAutopilot(contacts=30) as server, held():
        monkeypatch.setenv("SOURCES__AUTOPILOTHQ__BASE_URL", server.base_url)
        monkeypatch.setenv("SOURCES__AUTOPILOTHQ__API_KEY", server.key)
        monkeypatch.setenv("SOURCES__AUTOPILOTHQ__REQUESTS_PER_SECOND", "10000")
        assert call("load", "api").status == 0
        before = here()
        member = before["lists_contacts"].dicts()[0]["contact_id"]
        found = forget(call, "--contact-id", member)
        assert found["rows"]["contacts"] == 1
        assert {"lists_contacts", "tracks"} <= found["rows"].keys()
        after = here()
        said = call("load", "api")
        assert said.status == 0
        assert "1 contact was left out: deleted here, and still in Autopilot." in said.out + said.err
        again = here()
    for table in ("contacts", "lists_contacts", "smart_segments_contacts", "tracks"):
        assert len(again[table].rows) == len(after[table].rows) == len(before[table].rows) - found["rows"].get(table, 0)
    assert member not in repr([table.rows for table in again.values()])


# ---- words and places -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "Who? Name the person with --user-id, --email, --contact-id or --anonymous-id."),
        (["--email", "ada"], "Invalid value for --email: Expected an email, but got 'ada'."),
        (["--user-id", " "], "Invalid value for --user-id: Expected an id, but got ' '."),
    ],
)
def test_wrong_arguments(call: Call, words: list[str], complaint: str) -> None:
    said = call("forget", *words)
    assert (said.status, said.err.splitlines()[-1]) == (2, f"Error: {complaint}")


def test_a_dataset_that_is_not_there(call: Call) -> None:
    said = call("forget", "--user-id", "ada", "--credentials", "other.duckdb")
    assert (said.status, errors(said)) == (
        1,
        [
            f"Error: There is no dataset autopilothq in {Path.cwd()}/other.duckdb, so nobody can be deleted from it.",
            "Name the one that loads go to: --destination, --credentials, --dataset.",
        ],
    )
    assert not Path("other.duckdb").exists()


@pytest.mark.usefixtures("loaded")
def test_a_load_is_at_work(call: Call) -> None:
    with lock.held(runner.pipeline(), 0):
        assert call("forget", "--user-id", "bob").status == 75


def test_postgres(
    call: Call, postgres: str, without_ada: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", postgres)
    monkeypatch.setenv("DESTINATION_TYPE", "postgres")
    write("a.ndjson", BOTH)
    load(call, "a.ndjson")
    found = forget(call, *FORGET_ADA)
    assert (found["rows"], found["suppressed"]) == (REMOVED, 7)
    tables = content(postgres)
    assert rows(tables) == without_ada
    assert tables[SUPPRESSIONS.name].columns == {column.name: column.type for column in SUPPRESSIONS.columns}
    with closing(psycopg2.connect(postgres)) as server, server, server.cursor() as cursor:
        cursor.execute('CREATE TABLE autopilothq."numbers 100%s {}" AS SELECT 5::bigint AS contact_id')
    assert forget(call, "--contact-id", "5", "--contact-id", "no number")["rows"] == {"numbers 100%s {}": 1}
    shutil.copy("a.ndjson", "again.ndjson")
    assert load(call, "again.ndjson")["rejects"] == {"suppressed": 12, "not_json": 1, "unknown_type": 1}
    tables = content(postgres)
    assert tables.pop("numbers 100%s {}").rows == []
    assert_sound(tables)
    assert (tables["_audit"].total("stored"), messages(tables)) == (19, 10)
