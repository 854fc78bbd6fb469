"""`autopilothq send …` and `deliveries` as a user sees them, against an account over real HTTP."""

import gzip
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import duckdb
import fsspec
import psycopg2
import pytest
from dlt.common.runtime.run_context import active

from autopilothq.cli import out
from autopilothq.destination import opening
from calling import caller
from fake_autopilot import FakeAutopilot
from sending import IMPATIENT, MISSING, configure, identify, posts, rows, track, write


class Said(NamedTuple):
    """The output of a call, and its exit status."""

    status: int
    out: list[str]
    err: list[str]


Call = Callable[..., Said]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAutopilot]:
    monkeypatch.setattr(opening, "Autopilot", IMPATIENT)
    with FakeAutopilot(contacts=5) as server:
        configure(monkeypatch, server)
        yield server


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls the program in this process; the key is never printed."""

    plain = caller(monkeypatch, capsys)

    def called(*words: str) -> Said:
        status, out, err = plain(*words)
        assert "0123456789abcdef" not in out + err
        return Said(status, out.splitlines(), err.splitlines())

    return called


def warehouse(sql: str) -> None:
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute(sql)


# ---- messages ------------------------------------------------------------------------------------------------------


def test_messages_of_a_file(server: FakeAutopilot, call: Call) -> None:
    path = write([identify(1, userId="u1"), track(1), identify(2)])
    assert call("send", "messages", path) == (0, ["3 messages: 3 delivered, 0 refused, 0 failed, 0 unknown"], [])
    contacts = [{"Email": "p1@example.com", "Title": "T1"}, {"Email": "p2@example.com", "Title": "T2"}]
    assert posts(server) == [
        ("/contacts", {"contacts": contacts}),
        ("/trigger/0007/contact/p1%40example.com", None),
    ]
    said = call("send", "messages", path)
    assert said == (0, ["3 messages: 0 delivered, 0 refused, 0 failed, 0 unknown, 3 delivered before"], [])
    assert posts(server) == []


def test_messages_of_folders_and_gzip_and_a_bucket(
    server: FakeAutopilot, call: Call, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("folder").mkdir()
    Path("folder/a.json.gz").write_bytes(gzip.compress(Path(write([identify(1)])).read_bytes()))
    write([identify(2)], "folder/b.ndjson")
    bucket = s3.bucket()
    with fsspec.open(f"{bucket}/c.gz", "wb", **s3.storage_options) as file:
        file.write(gzip.compress(Path(write([identify(3)])).read_bytes()))
    for name, value in s3.credentials.items():
        monkeypatch.setenv(f"SOURCES__AUTOPILOTHQ__CREDENTIALS__{name.upper()}", value)
    assert call("send", "messages", "folder", f"{bucket}/c.gz").out == [
        "3 messages: 3 delivered, 0 refused, 0 failed, 0 unknown"
    ]
    [(_, body)] = posts(server)
    assert [contact["Email"] for contact in body["contacts"]] == [f"p{number}@example.com" for number in (1, 2, 3)]


def test_what_is_not_delivered_is_said_and_makes_the_status_4(server: FakeAutopilot, call: Call) -> None:
    server.order("POST", "/trigger/*", drop="after")
    path = write(
        [
            identify(1),
            identify("bad", traits={"email": "nobody"}),
            {"type": "identify"},
            "oops",
            track(1),
            {"type": "page"},
        ]
    )
    said = call("send", "messages", path)
    assert said.status == 4
    assert said.out[:1] + sorted(said.out[1:]) == [
        "6 messages: 1 delivered, 3 refused, 0 failed, 1 unknown, 1 of type page, which Autopilot does not take",
        "  1 refused: Invalid contact provided.",
        "  1 refused: Missing unique identifier traits. Either **email** or **user_id** traits must be provided",
        "  1 refused: not_json: not JSON",
        (
            "  1 unknown: POST /trigger/0007/contact/p1%40example.com: the connection broke: [Errno 104]"
            " Connection reset by peer; it may have been carried out, so it is not sent again"
        ),
    ]
    said = call("send", "messages", path)
    assert (said.status, said.out[0]) == (
        4,
        (
            "6 messages: 0 delivered, 3 refused, 0 failed, 1 unknown, 1 delivered before,"
            " 1 of type page, which Autopilot does not take"
        ),
    )


def test_a_damaged_file_is_said(server: FakeAutopilot, call: Call) -> None:
    whole = gzip.compress(Path(write([identify(number) for number in range(500)])).read_bytes())
    Path("damaged.gz").write_bytes(whole[: len(whole) // 2])
    said = call("send", "messages", "damaged.gz")
    assert said.status == 4
    assert said.out[1] == "  1 refused: truncated: the file breaks off, is damaged or could not be read from here on"
    assert posts(server)


def test_triggers_of_the_call(server: FakeAutopilot, call: Call) -> None:
    path = write([track(1, "Order=Completed"), track(2, "Trial Extended")])
    words = [
        "--trigger",
        "Order=Completed=0003",
        "--trigger",
        "Trial Extended=0003",
        "--trigger",
        "Trial Extended=0007",
    ]
    assert call("send", "messages", path, *words).status == 0
    assert sorted(path for path, _ in posts(server) if path != "/contacts") == [
        "/trigger/0003/contact/p1%40example.com",
        "/trigger/0003/contact/p2%40example.com",
        "/trigger/0007/contact/p2%40example.com",
    ]
    said = call("send", "messages", path, "--trigger", "0003")
    assert (said.status, said.err[-1]) == (
        2,
        "Error: Invalid value for --trigger: Expected EVENT=ID, such as 'Order Completed=0003', but got '0003'.",
    )


def test_settings_of_the_configuration(server: FakeAutopilot, call: Call) -> None:
    Path(".dlt").mkdir()
    Path(".dlt/config.toml").write_text(
        '[destination.autopilothq]\nuser_id_field = "user id"\nunknown_traits = "refuse"\n'
        '[destination.autopilothq.fields]\n"address.town" = "MailingCity"\nplan = "Order Completed"\n'
        '[destination.autopilothq.triggers]\n"Signed Up" = ["0003", "0011"]\n'
    )
    active().reload()
    traits = {"address": {"town": "B"}, "plan": "pro"}
    path = write([identify(1, userId="u1", traits=traits), track(1, "Signed Up"), identify(2, traits={"x": 1})])
    assert call("send", "messages", path).out == [
        "3 messages: 2 delivered, 1 refused, 0 failed, 0 unknown",
        "  1 refused: The account has no field for 'x': create it there, map the trait, or set unknown_traits to send",
    ]
    custom = {"string--Order--Completed": "pro", "string--user--id": "u1"}
    assert posts(server) == [
        ("/contacts", {"contacts": [{"Email": "p1@example.com", "MailingCity": "B", "custom": custom}]}),
        ("/trigger/0003/contact/p1%40example.com", None),
        ("/trigger/0011/contact/p1%40example.com", None),
    ]
    said = call("send", "messages", path, "--unknown-traits", "send")
    assert (said.status, said.out[1:]) == (
        0,
        ["  1 time x was sent as integer--x, for which the account has no field"],
    )


def test_dry_run_prints_the_requests_and_sends_and_writes_nothing(server: FakeAutopilot, call: Call) -> None:
    path = write([identify(1, traits={"title": "Zoë"}), track(1), {"type": "identify"}])
    said = call("send", "messages", path, "--dry-run", "--requests")
    assert said.status == 4
    assert said.out == [
        f"POST {server.base_url}/contacts",
        '{"contacts": [{"Email": "p1@example.com", "Title": "Zoë"}]}',
        f"POST {server.base_url}/trigger/0007/contact/p1%40example.com",
        "would send 3 messages: 2 delivered, 1 refused, 0 failed, 0 unknown",
        "  1 refused: Missing unique identifier traits. Either **email** or **user_id** traits must be provided",
    ]
    assert posts(server) == []
    assert not Path("autopilot.duckdb").exists()
    call("send", "messages", path)
    assert (
        call("send", "messages", path, "--dry-run").out[1].startswith("would send 3 messages: 0 delivered, 1 refused")
    )
    assert len(rows("message_id")) == 3


def test_everything_out_of_order(server: FakeAutopilot, call: Call) -> None:
    path = write([identify(1)])
    server.order("POST", "/contacts", status=503, message="Down.", times=2)
    assert call("send", "messages", path).out == [
        "1 message: 0 delivered, 0 refused, 1 failed, 0 unknown",
        "  1 failed: Down.",
    ]
    server.order("POST", "*", status=401, message="Gone.", times=9)
    said = call("send", "messages", path)
    assert (said.status, said.err) == (
        1,
        [
            (
                "Error: POST /contacts: 401 Unauthorized: Gone. Check destination.autopilothq.api_key"
                " (in .dlt/secrets.toml, or DESTINATION__AUTOPILOTHQ__API_KEY in the environment)"
            )
        ],
    )


@pytest.mark.parametrize(
    ("environment", "words", "message"),
    [
        (
            {"API_KEY": ""},
            (),
            [
                "Error: Expected the key of the Autopilot account that receives, but there is none.",
                (
                    "Set destination.autopilothq.api_key in .dlt/secrets.toml,"
                    " or DESTINATION__AUTOPILOTHQ__API_KEY in the environment."
                ),
            ],
        ),
        (
            {"API_KEY": "f" * 32},
            (),
            [
                (
                    "Error: GET /contacts/custom_fields: 401 Unauthorized: Provided autopilotapikey not valid."
                    " Check destination.autopilothq.api_key"
                    " (in .dlt/secrets.toml, or DESTINATION__AUTOPILOTHQ__API_KEY in the environment)"
                )
            ],
        ),
        (
            {},
            ("--trigger", "Order Completed=9999"),
            [
                (
                    "Error: destination.autopilothq.triggers (or --trigger) sends 'Order Completed' to '9999',"
                    " but the account's triggers are 0003, 0007, 0011"
                )
            ],
        ),
        (
            {"FIELDS": '{"plan": "Plan"}'},
            (),
            [
                (
                    "Error: destination.autopilothq.fields maps 'plan' to 'Plan', but the account has no such field:"
                    " create it in Autopilot, or correct the mapping"
                )
            ],
        ),
        (
            {},
            ("nowhere.ndjson",),
            [
                "Error: Expected a file or a folder at nowhere.ndjson, but nothing is there.",
                "Check the path's spelling.",
            ],
        ),
    ],
)
def test_what_ends_a_run_before_anything_is_sent(
    server: FakeAutopilot,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    words: tuple[str, ...],
    message: list[str],
) -> None:
    for name, value in environment.items():
        if value:
            monkeypatch.setenv(f"DESTINATION__AUTOPILOTHQ__{name}", value)
        else:
            monkeypatch.delenv(f"DESTINATION__AUTOPILOTHQ__{name}")
    said = call("send", "messages", write([identify(1)]), *words)
    assert (said.status, said.err) == (1, message)
    assert "f" * 32 not in "".join(said.err)
    assert posts(server) == []


# ---- traits and audiences ------------------------------------------------------------------------------------------

PEOPLE = "CREATE OR REPLACE TABLE people AS SELECT * FROM (VALUES {}) t(email, user_id, spent, since, plan)"
ANN = "('ann@example.com', 'u1', 12.50, TIMESTAMPTZ '2019-03-01 00:00:00Z', {'name': 'pro'})"
BOB = "('bob@example.com', 'u2', NULL, NULL, NULL)"


def test_traits(server: FakeAutopilot, call: Call) -> None:
    warehouse(PEOPLE.format(f"{ANN}, {BOB}, (NULL, 'u3', 1, NULL, NULL)"))
    query = 'SELECT email, user_id, spent AS smog_level, since AS "Trial Ends", plan FROM main.people ORDER BY email; '
    said = call("send", "traits", "--query", query)
    assert (said.status, said.out) == (
        0,
        [
            "2 messages: 2 delivered, 0 refused, 0 failed, 0 unknown",
            "  1 row without email skipped",
            "  1 time plan.name was sent as string--plan_name, for which the account has no field",
            "  1 time plan was left out: the account has no field for it",
        ],
    )
    ann = {"float--Smog--Level": 12.5, "date--Trial--Ends": "2019-03-01T00:00:00.000Z", "string--plan_name": "pro"}
    bob = {"float--Smog--Level": None, "date--Trial--Ends": None}
    assert posts(server) == [
        (
            "/contacts",
            {"contacts": [{"Email": "ann@example.com", "custom": ann}, {"Email": "bob@example.com", "custom": bob}]},
        )
    ]
    assert call("send", "traits", "--query", query).out[0].endswith(", 2 delivered before")
    warehouse(PEOPLE.format(f"{ANN}, {BOB}").replace("12.50", "13"))
    assert call("send", "traits", "--query", query).out[0].startswith("2 messages: 1 delivered")
    warehouse(PEOPLE.format(f"{ANN}, {BOB}"))
    assert call("send", "traits", "--query", query).out[0].startswith("2 messages: 1 delivered")
    assert [body["contacts"][0]["custom"]["float--Smog--Level"] for _, body in posts(server)] == [13.0, 12.5]


def test_traits_by_user_id(server: FakeAutopilot, call: Call) -> None:
    call("send", "messages", write([identify(1, userId="u1")]))
    posts(server)
    query = "SELECT 'u1' AS user_id, 'CEO' AS title UNION ALL SELECT 'u9', 'CFO'"
    said = call("send", "traits", "--query", query, "--key", "user_id")
    assert (said.status, said.out[0]) == (4, "2 messages: 1 delivered, 1 refused, 0 failed, 0 unknown")
    assert posts(server) == [("/contacts", {"contacts": [{"Email": "p1@example.com", "Title": "CEO"}]})]


def members(*emails: str) -> str:
    return " UNION ALL ".join(f"SELECT '{email}' AS email" for email in emails) or "SELECT NULL AS email"


def audience(call: Call, *emails: str, **more: str) -> Said:
    return call("send", "audience", "Big Spenders", "--query", members(*emails), *more.values())


def test_an_audience(server: FakeAutopilot, call: Call) -> None:
    def sent() -> list[tuple[str, bool]]:
        contacts = [contact for _, body in posts(server) for contact in body["contacts"]]
        return [(contact["Email"], contact["custom"]["boolean--big_spenders"]) for contact in contacts]

    said = audience(call, "a@b.c", "d@e.f")
    assert (said.status, said.out[:2]) == (
        0,
        [
            "big_spenders: 2 members, 2 to enter, 0 to leave, 0 unchanged",
            "2 messages: 2 delivered, 0 refused, 0 failed, 0 unknown",
        ],
    )
    assert sent() == [("a@b.c", True), ("d@e.f", True)]
    audience(call, "a@b.c", "x@y.z")
    assert sent() == [("x@y.z", True), ("d@e.f", False)]
    assert audience(call, "a@b.c", "x@y.z").out[0] == "big_spenders: 2 members, 0 to enter, 0 to leave, 2 unchanged"
    assert sent() == []
    audience(call)
    assert sent() == [("a@b.c", False), ("x@y.z", False)]
    audience(call, "a@b.c")
    assert sent() == [("a@b.c", True)]


def test_a_member_whose_delivery_failed_is_tried_again(server: FakeAutopilot, call: Call) -> None:
    server.order("POST", "/contacts", status=503, times=2)
    assert audience(call, "a@b.c").status == 4
    assert audience(call, "a@b.c").out[0] == "big_spenders: 1 member, 1 to enter, 0 to leave, 0 unchanged"
    server.order("POST", "/contacts", status=503, times=2)
    assert audience(call).status == 4
    # Leaving may have been carried out although it failed, so entering again is sent as well.
    assert audience(call, "a@b.c").out[0] == "big_spenders: 1 member, 1 to enter, 0 to leave, 0 unchanged"
    assert audience(call, "a@b.c", "nobody").status == 4
    assert audience(call, "a@b.c").out[0] == "big_spenders: 1 member, 0 to enter, 0 to leave, 1 unchanged"


def test_a_field_of_the_audiences_name_is_met(server: FakeAutopilot, call: Call) -> None:
    server.account.fields.append(("Big Spenders", "string"))
    audience(call, "a@b.c")
    assert posts(server) == [
        ("/contacts", {"contacts": [{"Email": "a@b.c", "custom": {"string--Big--Spenders": "true"}}]})
    ]
    assert audience(call, "a@b.c", unknown="--unknown-traits=refuse").status == 0


def test_an_audience_by_user_id(server: FakeAutopilot, call: Call) -> None:
    call("send", "messages", write([identify(1, userId="u1"), identify(2, userId="u2")]))
    posts(server)
    words = ["send", "audience", "Fans", "--key", "user_id", "--query"]
    assert call(*words, "SELECT 'u1' AS user_id UNION ALL SELECT 'u2' UNION ALL SELECT 'u3'").status == 4
    assert call(*words, "SELECT 'u2' AS user_id").out[0] == "fans: 1 member, 0 to enter, 1 to leave, 1 unchanged"
    sent = [(body["contacts"][0]["Email"], body["contacts"][0]["custom"]) for _, body in posts(server)]
    assert sent == [("p1@example.com", {"boolean--fans": True}), ("p1@example.com", {"boolean--fans": False})]
    said = call("send", "audience", "Fans", "--query", "SELECT 'p1@example.com' AS email")
    assert (said.status, said.err[0]) == (
        1,
        "Error: The audience fans was sent with the key user_id before, so its members cannot be found by email.",
    )


def test_dry_run_of_an_audience(server: FakeAutopilot, call: Call) -> None:
    said = audience(call, "a@b.c", dry="--dry-run", requests="--requests")
    assert said.out[0] == f"POST {server.base_url}/contacts"
    assert audience(call, "a@b.c").out[0] == "big_spenders: 1 member, 1 to enter, 0 to leave, 0 unchanged"
    assert len(posts(server)) == 1


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELEC 1", r"Error: The warehouse cannot answer the query: Parser Error: syntax error at or near .*"),
        (
            "SELECT * FROM nowhere",
            r"Error: The warehouse cannot answer the query: Catalog Error: .*nowhere does not exist.*",
        ),
        ("DROP TABLE people", r"Error: Expected one query that only reads, such as SELECT .*, got DROP\."),
        ("SELECT 1 AS email; DROP TABLE people", r"Error: Expected one .*, got 2 statements \(SELECT, DROP\)\."),
        ("SELECT 1 AS id, 2 AS plan", r"Error: Expected a column email in the query's answer, got id, plan\."),
        (
            "SELECT 'a@b.c' AS email, 1 AS plan UNION ALL SELECT 'a@b.c', 2",
            r"Error: Expected one row for each email, got 2 for a@b.c\.",
        ),
    ],
)
@pytest.mark.parametrize("command", [("traits",), ("audience", "Big Spenders")])
def test_a_query_that_cannot_be_sent(
    server: FakeAutopilot, call: Call, command: tuple[str, ...], query: str, message: str
) -> None:
    warehouse(PEOPLE.format(ANN))
    said = call("send", *command, "--query", query)
    assert (said.status, len(said.err)) == (1, 2)
    assert re.fullmatch(message, said.err[0])
    assert posts(server) == []
    warehouse("FROM main.people")


NAMED_LIKE_IT = (
    "The DuckDB file autopilothq.duckdb is named like the dataset autopilothq, and DuckDB cannot tell them apart.\n"
    "Name another file (--credentials other.duckdb) or another dataset (--dataset other)."
)
DAMAGED = (
    'Expected a DuckDB file at {0}, but DuckDB cannot read what is there: IO Error: The file "{0}" exists, but it is'
    " not a valid DuckDB database file!\nName another file (--credentials), or put the file back from a backup. Without"
    " a backup, move it away: the next load makes a new one from all files, but without the suppression list, so"
    " deleted persons may come back."
)
NOBODY_LISTENS = (
    'connection to server at "127.0.0.1", port 1 failed: Connection refused\nCorrect the host and the port in the'
    " credentials, start that server, or open the network to it."
)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--credentials", "autopilothq.duckdb"), NAMED_LIKE_IT),
        (("--credentials", "damaged.duckdb"), DAMAGED),
        (("--destination", "postgres", "--credentials", "postgresql://u:p@127.0.0.1:1/x"), NOBODY_LISTENS),
    ],
)
def test_a_warehouse_that_cannot_be_asked(
    server: FakeAutopilot, call: Call, words: tuple[str, ...], message: str
) -> None:
    Path("damaged.duckdb").write_bytes(b"no database " * 400)
    said = call("send", "traits", "--query", "SELECT 'a@b.c' AS email", *words, "--dry-run")
    told = message.format(Path("damaged.duckdb").absolute())
    assert (said.status, "\n".join(said.err)) == (1, f"Error: {told}")
    assert server.requests == []


def test_another_warehouse(server: FakeAutopilot, call: Call, postgres: str) -> None:
    connection = psycopg2.connect(postgres)
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE people AS SELECT 'a@b.c' AS email, 100 * sum(1::bigint) AS review_rating, '50%' AS title"
        )
    connection.close()
    where = ["--destination", "postgres", "--credentials", postgres, "--dataset", "crm"]
    assert call("send", "traits", "--query", "SELECT * FROM public.people", *where).status == 0
    assert posts(server) == [
        ("/contacts", {"contacts": [{"Email": "a@b.c", "Title": "50%", "custom": {"integer--Review--Rating": 100}}]})
    ]
    assert call("send", "audience", "All", "--query", "SELECT email FROM people", *where).status == 0
    assert call("send", "audience", "All", "--query", "SELECT email FROM people", *where).out[0] == (
        "all: 1 member, 0 to enter, 0 to leave, 1 unchanged"
    )
    assert call("deliveries", *where).out[-1] == "2 delivered, 0 refused, 0 failed, 0 unknown"
    said = call("send", "traits", "--query", "SELECT nothing", *where)
    assert (said.status, said.err[0]) == (
        1,
        'Error: The warehouse cannot answer the query: column "nothing" does not exist',
    )
    password = urlsplit(postgres).password
    assert password
    assert password not in "".join(said.err)


def test_the_log_is_in_the_dataset_of_the_loads(server: FakeAutopilot, call: Call) -> None:
    write(
        [{"type": "track", "event": "Email Opened", "userId": "1", "context": {"traits": {"email": "a@b.c"}}}],
        "a.ndjson",
    )
    call("load", "archive", "a.ndjson")
    query = "SELECT context_traits_email AS email, count(*) AS opens FROM email_opened GROUP BY 1"
    assert call("send", "traits", "--query", query).status == 0
    assert posts(server) == [("/contacts", {"contacts": [{"Email": "a@b.c", "custom": {"integer--opens": 1}}]})]
    assert call("load", "archive", "a.ndjson").status == 0
    with duckdb.connect("autopilot.duckdb") as con:
        tables = {name for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    assert {"_deliveries", "email_opened"} <= tables


# ---- what became of it ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("server")
def test_deliveries(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("deliveries") == (0, ["0 delivered, 0 refused, 0 failed, 0 unknown"], [])
    assert not Path("autopilot.duckdb").exists()
    for where in (["autopliot.duckdb"], ["laek", "--destination", "filesystem"]):
        said = call("deliveries", "--credentials", *where)
        there = f"Error: Expected a database or a lake at {Path(where[0]).absolute()}, but nothing is there."
        assert (said.status, said.out, said.err) == (1, [], [there, "Check the spelling."])
    path = write([identify(1, userId="u1"), track(1), track(2, "Later"), {"type": "identify", "messageId": "m3"}])
    call("send", "messages", path)
    call("send", "messages", path, "--trigger", "Later=0003")
    said = call("deliveries")
    assert said.status == 0
    assert [line[21:] for line in said.out] == [
        "status     type      person          message  event or audience  trigger  http  answer",
        f"refused    identify  -               m3       -                  -        400   {MISSING}",
        "delivered  identify  p1@example.com  i1       -                  -        200",
        "delivered  track     p1@example.com  t1       Order Completed    0007     200",
        "delivered  track     p2@example.com  t2       Later              0003     200",
        "",
        "d, 0 failed, 0 unknown",
    ]
    assert (said.out[0][:21], said.out[-1]) == (
        "sent at (UTC)".ljust(21),
        "3 delivered, 1 refused, 0 failed, 0 unknown",
    )
    monkeypatch.setattr(out, "width", lambda: 80)
    assert [re.sub(r"^\d{4}-.{14}", "", line) for line in call("deliveries").out[:-2]] == [
        "sent at (UTC)        status     type      http  person",
        "  refused    identify  400   -",
        "  message m3: Missing unique identifier traits. Either **email** or **user_id**",
        "  traits must be provided",
        "  delivered  identify  200   p1@example.com",
        "  message i1",
        "  delivered  track     200   p1@example.com",
        "  message t1, of Order Completed, trigger 0007",
        "  delivered  track     200   p2@example.com",
        "  message t2, of Later, trigger 0003",
    ]
    monkeypatch.setattr(out, "width", lambda: 160)
    assert len(call("deliveries").out) == len(said.out) + 1  # the table, with one wrapped line
    assert call("deliveries", "--status", "refused").out[-1] == "0 delivered, 1 refused, 0 failed, 0 unknown"
    assert call("deliveries", "--since", "2100-01-01").out == ["0 delivered, 0 refused, 0 failed, 0 unknown"]
    said = call("deliveries", "--status", "lost")
    assert said.status == 2
    assert len(rows("message_id")) == 5
