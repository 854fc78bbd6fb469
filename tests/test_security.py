"""The PostgreSQL roles in docs/how-to/security.md work with exactly their grants, and need all of them."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

import autopilothq
from autopilothq.destination import opening
from calling import Call, Said, errors
from fake_autopilot import FakeAutopilot
from faults.loads import line, track
from sending import IMPATIENT, configure
from servers import Postgres, ask

PAGE = (Path(autopilothq.__file__).parents[1] / "docs" / "how-to" / "security.md").read_text()
SECTIONS = dict(re.findall(r"^### (.+)\n((?:.*\n)*?)(?=^##)", PAGE, re.MULTILINE))
ROLES = ("loader", "sender", "reader")
ADA = "ada@example.com"
FAILED = "Error: The load step failed:"


def sql(section: str) -> str:
    """Returns the SQL statements of a section."""
    return "".join(re.findall(r"```sql\n(.*?)```", SECTIONS[section], re.DOTALL))


def password(role: str) -> str:
    found = re.search(rf"CREATE ROLE autopilot_{role} LOGIN PASSWORD '(.+?)'", sql("PostgreSQL"))
    assert found
    return found[1]


@pytest.fixture
def warehouse(postgresql: Postgres) -> Iterator[str]:
    """A database that another tenant uses too, prepared only with the page's statements."""
    with postgresql.database() as url:
        ask(url, "CREATE SCHEMA crm; CREATE TABLE crm.customers AS SELECT 'ada@example.com' AS email, 'pro' AS title")
        ask(url, sql("PostgreSQL"))
        yield url
    for role in reversed(ROLES):  # roles belong to the server
        ask(postgresql.url("postgres"), f"DROP ROLE autopilot_{role}")


def as_role(url: str, role: str) -> str:
    return re.sub("//.*@", f"//autopilot_{role}:{password(role)}@", url)


@pytest.fixture
def run(call: Call, warehouse: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Said]]:
    """Calls the program as a role: `run("loader", "load", "archive", "a.json")`."""
    monkeypatch.setattr(opening, "Autopilot", IMPATIENT)

    def called(role: str, *words: str) -> Said:
        return call(*words, "--destination", "postgres", "--credentials", as_role(warehouse, role))

    with FakeAutopilot(contacts=1) as account:
        configure(monkeypatch, account)
        yield called


def test_each_role_can_do_its_work_and_nothing_else(run: Callable[..., Said], warehouse: str) -> None:
    identify = {"type": "identify", "messageId": "i", "userId": "ada", "traits": {"email": ADA}}
    Path("a.json").write_bytes(line(track(1, userId="ada")) + line(identify))
    Path("b.json").write_bytes(line(track(2, event="Own")) + b"no message\n")
    query = "SELECT email, 'pro' AS title FROM autopilothq.identifies"
    # In this order, one role could become the owner of another's lock or table.
    for role, words, last in (
        ("loader", ["load", "archive", "a.json"], "into postgresql://autopilot_loader:***@"),
        ("loader", ["forget", "--email", "nobody@example.com"], "from postgresql://autopilot_loader:***@"),
        ("sender", ["send", "traits", "--query", query], "1 message: 1 delivered"),
        ("loader", ["load", "archive", "a.json", "b.json"], "into postgresql://autopilot_loader:***@"),
        ("reader", ["deliveries"], "1 delivered, 0 refused, 0 failed, 0 unknown"),
        ("reader", ["status"], "discards "),
        ("reader", ["report"], "  no cohorts: "),
        ("reader", ["schema", "--live", "own"], "  user_id "),
        ("reader", ["export", "takeout"], "takeout: 3 messages"),
        ("loader", ["models", "apply"], "8 views in autopilothq_models: 8 created."),
    ):  # fmt: skip
        said = run(role, *words)
        assert (said.status, said.out.rpartition("\n")[0].rpartition("\n")[2][: len(last)]) == (0, last), (words, said)
    assert ask(as_role(warehouse, "reader"), "SELECT sum(opens) FROM autopilothq_models.daily") == [(1,)]
    assert_kept_apart(warehouse)
    assert_all_is_needed(run, warehouse)
    assert_hidden_rows_end_a_load(run, warehouse)
    said = run("loader", "forget", "--email", ADA, "--rewrite", "--json")
    assert said.status == 0, said
    made = json.loads(said.out)
    assert made["left"] == {}
    assert {f"autopilothq.{table}" for table in ("_deliveries", "tracks", "users")} <= set(made["rewritten"])
    assert made["remains"].endswith('permission denied to vacuum "pg_statistic", skipping it.')
    assert ask(warehouse, "SELECT count(*) FROM autopilothq._deliveries") == [(0,)]
    assert ask(warehouse, "SELECT id FROM autopilothq.tracks ORDER BY id") == [("m-2",), ("m-3",)]
    said = run("loader", "models", "drop")
    assert (said.status, said.out) == (0, "8 views dropped in autopilothq_models.\n"), said


def assert_hidden_rows_end_a_load(run: Callable[..., Said], warehouse: str) -> None:
    """Checks that a load ends if the role cannot see a person's row, which no merge could replace."""
    Path("d.json").write_bytes(line({"type": "identify", "messageId": "j", "userId": "ada", "traits": {"a": 1}}))
    policy = "ON autopilothq.users USING (id <> 'ada') WITH CHECK (true)"
    ask(
        warehouse,
        f"ALTER TABLE autopilothq.users ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY a {policy}",
    )
    assert errors(run("loader", "load", "archive", "d.json"))[-2:] == [
        f'{FAILED} duplicate key value violates unique constraint "users_pkey"',
        HIDDEN,
    ]
    ask(warehouse, "ALTER TABLE autopilothq.users NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY")
    assert run("loader", "load", "archive", "d.json").status == 0
    assert ask(warehouse, "SELECT id, a FROM autopilothq.users") == [("ada", 1)]
    assert ask(warehouse, "SELECT reason FROM autopilothq._rejects") == [("not_json",)]


HIDDEN = (
    "If that row is hidden from the user of the credentials, let it see and write all rows (ALTER ROLE ... BYPASSRLS)."
    " Nothing of it counts as loaded."
)
FORBIDDEN = {
    "loader": [
        "SELECT * FROM crm.customers", "CREATE TABLE crm.own (a int)", "CREATE SCHEMA own", "CREATE ROLE own",
        "CREATE TABLE public.own (a int)",
    ],
    "sender": [
        "SELECT * FROM crm.customers", "CREATE SCHEMA own", "DELETE FROM autopilothq.tracks",
        "UPDATE autopilothq._audit SET lines = 0", "INSERT INTO autopilothq._suppressions VALUES ('a')",
        "CREATE TABLE autopilothq_staging.a (a int)",
    ],
    "reader": [
        "SELECT * FROM crm.customers", "CREATE SCHEMA own", "CREATE TABLE autopilothq.own (a int)",
        "DELETE FROM autopilothq.tracks", "INSERT INTO autopilothq._deliveries (status) VALUES ('delivered')",
        "DROP TABLE autopilothq.tracks", "TRUNCATE autopilothq._locks_send", "SELECT * FROM autopilothq_staging.users",
    ],
}  # fmt: skip


def assert_kept_apart(warehouse: str) -> None:
    """Checks that no role can do what only an administrator may."""
    for role, statements in FORBIDDEN.items():
        for statement in statements:
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                ask(as_role(warehouse, role), statement)


def assert_all_is_needed(run: Callable[..., Said], warehouse: str) -> None:
    """Checks that without any single grant, something that the page promises fails."""
    # Decimal numbers go through staging.
    Path("c.json").write_bytes(line(track(3, event="Other", properties={"price": 1.5})))
    load, send, status = ["load", "archive", "c.json"], ["send", "messages", "a.json"], ["status"]
    for right, role, words, refused in (
        (
            "CREATE ON SCHEMA autopilothq_models",
            "loader",
            ["models", "apply"],
            "Error: permission denied for schema autopilothq_models",
        ),
        ("CREATE ON SCHEMA autopilothq", "sender", send, "Error: permission denied for schema autopilothq"),
        ("SELECT ON autopilothq._suppressions", "sender", send, "Error: permission denied for table _suppressions"),
        ("USAGE ON SCHEMA autopilothq", "reader", status, "Error: There is no dataset autopilothq in postgresql://"),
        (
            "SELECT ON autopilothq._deliveries",
            "reader",
            ["deliveries"],
            "Error: permission denied for table _deliveries",
        ),
        (
            "SELECT ON autopilothq.email_opened",
            "reader",
            ["export", "exported"],
            "Error: Expected the right to read all tables of the dataset, but autopilothq.email_opened may not",
        ),
        ("autopilot_sender", "loader", load, "Error: permission denied for schema autopilothq"),
        (
            "CREATE ON SCHEMA autopilothq_staging",
            "loader",
            load,
            f"{FAILED} permission denied for schema autopilothq_staging",
        ),
    ):
        ask(warehouse, f"REVOKE {right} FROM autopilot_{role}")
        said = run(role, *words)
        assert (said.status, errors(said)[0][: len(refused)]) == (1, refused), (right, said)
        ask(warehouse, f"GRANT {right} TO autopilot_{role}")
    # A role that cannot delete leases must not leave one, which would block the next run.
    ask(warehouse, "REVOKE DELETE ON autopilothq._locks FROM autopilot_loader")
    assert run("loader", *load).err == (
        "Error: permission denied for table _locks\n"
        "Each run keeps its lease there: give the user of the credentials the right to DELETE (GRANT SELECT, INSERT,"
        " UPDATE, DELETE ON _locks).\n"
    )
    ask(warehouse, "GRANT DELETE ON autopilothq._locks TO autopilot_loader")
    assert ask(warehouse, "SELECT * FROM autopilothq._locks") == []


def test_the_bucket_policy_reads_and_nothing_else() -> None:
    (policy,) = re.findall(r"```json\n(.*?)```", SECTIONS["Buckets"], re.DOTALL)
    assert [each["Action"] for each in json.loads(policy)["Statement"]] == ["s3:ListBucket", "s3:GetObject"]
