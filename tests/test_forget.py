"""What `forget` removes, what stays, and what later loads leave out."""

import gzip
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import psycopg2
import pytest

import autopilothq
from autopilothq import runner
from autopilothq.catalog import SUPPRESSIONS
from autopilothq.destination.delivery_log import CHANGED, address_digest
from autopilothq.privacy import deletion
from autopilothq.privacy.removals import Removal, delete_rows
from autopilothq.segment.identity import Id
from autopilothq.warehouses import lock
from calling import Call, errors
from contract.duck import held
from deleting import ADAS, BOTH, FORGET_ADA, WORDS, forget, here, load, rows, write
from fake_autopilot import FakeAutopilot
from faults.loads import Table, assert_sound, content, messages, track
from prepared import as_prepared, going_on, preparing
from servers import ask
from shared_loads import command, isolation

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


@pytest.fixture(scope="module")
def without_ada(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Returns the content of a dataset that never had Ada."""
    with isolation(tmp_path_factory.mktemp("without")):
        write("without.ndjson", [one for one in BOTH if one not in ADAS])
        load(command, "without.ndjson")
        return rows(here())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Loads `a.ndjson`, leaving the files that loads in plain dlt leave; returns the folder."""
    with preparing(tmp_path_factory.mktemp("both")) as home, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOAD__DELETE_COMPLETED_JOBS", "false")
        write("a.ndjson", BOTH)
        load(command, "a.ndjson")
    return home


# ---- the whole ------------------------------------------------------------------------------------------------------


class Gone(NamedTuple):
    """The report and all rows after forgetting Ada, and those after loading the same lines again."""

    found: dict[str, Any]
    rows: dict[str, list[str]]
    again: dict[str, Any]
    tables: dict[str, Table]


@pytest.fixture(scope="module")
def gone(prepared: Path) -> Gone:
    """Ada is forgotten; then her lines and Bob's are loaded again, each with a line that is too long."""
    with going_on(prepared, "gone"):
        found = forget(command, *FORGET_ADA)
        left = rows(here())
        shutil.copy("a.ndjson", "again.ndjson")
        write("long.ndjson", [{"userId": "ada", "long": "x" * 2**20}, {"userId": "bob", "long": "x" * 2**20}])
        again = load(command, "again.ndjson", "long.ndjson", "--max-rejects", "3")
        return Gone(found, left, again, here())


@pytest.fixture
def gone_here(prepared: Path, gone: Gone) -> Iterator[Gone]:
    """Works in a copy of that folder."""
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
    assert here()[SUPPRESSIONS.name].rows == tables[SUPPRESSIONS.name].rows


def rejects_of(tables: dict[str, Table], name: str) -> list[dict[str, Any]]:
    """Returns the rejects of the files of this name."""
    return [row for row in tables["_rejects"].dicts() if row["file"].endswith(name)]


def test_a_later_load_of_lines_that_are_too_long(gone: Gone) -> None:
    """Lines of others are rejects and count towards the call's limit; hers are not kept."""
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
    # The digest would reveal that the old address was known here, and whose it is now.
    assert forget(call, "--email", "EßTER@example.com", "--dry-run")["rows"] == {"_deliveries": 1}
    with duckdb.connect("autopilot.duckdb") as con:
        found = "'m' AS id, 'esther' AS user_id, ' EßTER@example.com' AS context_traits_email"
        con.execute(f"INSERT INTO autopilothq.tracks BY NAME SELECT {found}")
    order: list[str] = []

    def delete(removal: Removal) -> None:
        order.append(removal.name)
        delete_rows(removal)

    monkeypatch.setattr(deletion, "delete_rows", delete)
    assert forget(call, "--user-id", "esther")["rows"] == {"_deliveries": 1, "tracks": 1}
    assert here()["_deliveries"].dicts() == []
    assert order == ["_deliveries", "tracks"]  # so that in a lake, a run after a kill still finds the address
    with duckdb.connect("autopilot.duckdb") as con:  # another program stores the row again
        con.execute(f"INSERT INTO autopilothq.tracks BY NAME SELECT {found}")
    again = forget(call, "--user-id", "esther")
    assert [(id_["kind"], id_["found_with"]) for id_ in again["ids"]] == [
        ("user_id", None),
        ("email", "user_id esther"),
    ]


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
    with lock.held(runner.pipeline(), 0):  # it does not wait for a running load
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
    assert (working / "trace.pickle").exists()
    with duckdb.connect("autopilot.duckdb") as books:
        books.execute("CREATE SCHEMA IF NOT EXISTS autopilothq_staging")
        books.execute("CREATE OR REPLACE TABLE autopilothq_staging.tracks AS FROM autopilothq.tracks")
        books.execute("CREATE VIEW autopilothq.people AS FROM autopilothq.tracks")
        books.execute("CREATE TABLE autopilothq.numbers AS SELECT 5::BIGINT AS contact_id, unnest([1, NULL]) AS id")
        books.execute("CREATE TABLE autopilothq.own AS SELECT 5 AS contact_id, uuid() AS id, 'sold' AS event")
        books.execute("CREATE TABLE autopilothq.no_ids AS SELECT 'Email Opened' AS event_text")
        for changed in (
            "'tracks' AS table_name, 'ada' AS row_id, '1' AS value, 'other' AS id",  # a message whose id is `ada`
            "'x' AS row_id, 'contact_id' AS column_name, '\"person_A\"' AS value, 'hers' AS id",
        ):
            discard = f"SELECT * REPLACE ({changed}) FROM autopilothq._discards LIMIT 1"
            books.execute(f"INSERT INTO autopilothq._discards {discard}")
        books.execute("UPDATE autopilothq.email_clicked SET anonymous_id = NULL")  # its row of tracks still has the id
        books.execute("UPDATE autopilothq.tracks SET user_id = 'x' WHERE id = 'm-2'")  # email_opened still has it
    # A load that was interrupted before it reached the dataset.
    write("later.ndjson", [track(8, userId="ada"), track(9, userId="bob")])
    into = runner.pipeline()
    into.set_local_state_val(runner.UNFINISHED_TARGET, runner.target_of(into))
    into.extract(autopilothq.archive("later.ndjson"))
    into.normalize()
    found = forget(call, *WORDS, "--contact-id", "person_A", "--contact-id", "5", "--confirm", "8")
    assert found["rows"] == REMOVED | {"_discards": 2, "autopilothq_staging.tracks": 7, "numbers": 2, "own": 1}
    assert not runner.pipeline().has_pending_data
    assert not list(working.rglob("*_jobs/*"))
    assert not (working / "trace.pickle").exists()  # the trace may quote values of rows
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
        assert (said.out + said.err).count("left out: deleted here") == 1  # once, not for each list
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


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ([], "Expected at least one id of the person, but got none."),
        ([Id("user_id", "ada"), Id("email", "")], "Expected an email, but got ''."),
        ([Id("contact_id", "\t")], r"Expected an id, but got '\t'."),
        (
            [Id("mail", "ada@example.com")],
            "Expected one of email, user_id, contact_id, anonymous_id as the kind of an id, but got 'mail'.",
        ),
    ],
)
def test_wrong_ids_in_python(given: list[Id], complaint: str) -> None:
    with pytest.raises(autopilothq.RunError) as caught:
        deletion.delete_person(given)
    assert str(caught.value) == f"{complaint} Nothing was changed."


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
@pytest.mark.parametrize("work", ["", "send"])
def test_a_load_is_at_work(call: Call, work: str) -> None:
    with lock.held(runner.pipeline(), 0, work):
        assert call("forget", "--user-id", "bob").status == 75


def test_postgres(
    call: Call, postgres: str, without_ada: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", postgres)
    monkeypatch.setenv("DESTINATION_TYPE", "postgres")
    write("a.ndjson", BOTH)
    load(call, "a.ndjson")
    # PostgreSQL changes rows of published tables only if it can tell them apart.
    ask(postgres, "CREATE PUBLICATION everything FOR ALL TABLES")
    ask(postgres, "ALTER TABLE autopilothq._locks REPLICA IDENTITY DEFAULT")
    found = forget(call, *FORGET_ADA)
    assert (found["rows"], found["suppressed"]) == (REMOVED, 7)
    tables = content(postgres)
    assert rows(tables) == without_ada
    assert tables[SUPPRESSIONS.name].columns == {column.name: column.type for column in SUPPRESSIONS.columns}
    with closing(psycopg2.connect(postgres)) as server, server, server.cursor() as cursor:
        numbers = """SELECT 5 AS contact_id, NULL::char(3) AS "Contact_ID" UNION ALL SELECT NULL, '6'::char(3)"""
        cursor.execute(f'CREATE TABLE autopilothq."numbers 100%s {{}}" AS {numbers}')
        cursor.execute('CREATE VIEW autopilothq."NUMBERS 100%s {}" AS SELECT 1 AS one')
        cells = "NULL::timestamptz AS received_at, NULL::timestamptz AS uuid_ts, 'pro' AS plan, '{}'::jsonb AS own"
        cursor.execute(f"CREATE TABLE autopilothq.groups AS SELECT 'g' AS id, 'acme' AS group_id, {cells}")
        cursor.execute(f"CREATE TABLE autopilothq.accounts AS SELECT 'acme' AS id, '5' AS contact_id, {cells}")
    assert forget(call, "--contact-id", "5", "--contact-id", "6", "--contact-id", "no number")["rows"] == {
        "accounts": 1, "numbers 100%s {}": 2,
    }  # fmt: skip
    # The row of a group is made again, without the column whose type no load creates.
    assert ask(postgres, "SELECT id, contact_id, plan, own FROM autopilothq.accounts") == [("acme", None, "pro", None)]
    ask(postgres, "DROP TABLE autopilothq.accounts, autopilothq.groups")
    shutil.copy("a.ndjson", "again.ndjson")
    assert load(call, "again.ndjson")["rejects"] == {"suppressed": 12, "not_json": 1, "unknown_type": 1}
    tables = content(postgres)
    assert (tables.pop("numbers 100%s {}").rows, tables.pop("NUMBERS 100%s {}").rows) == ([], [(1,)])
    assert_sound(tables)
    assert (tables["_audit"].total("stored"), messages(tables)) == (19, 10)
