"""What RudderStack's warehouse destination left in PostgreSQL is adopted, with its names, types and other tables."""

import json
from datetime import UTC, datetime
from pathlib import Path

from adopted import Row, rows
from calling import Call
from servers import ask

# As RudderStack creates them: strings are text, integers bigint, other numbers numeric, times timestamptz; columns in
# alphabetical order. `context_ip` comes from the library, or else is the address of the request.
COMMON = """
    anonymous_id text, channel text, {ips} context_destination_id text, context_destination_type text,
    context_library_name text, context_library_version text, context_source_id text, context_source_type text,
    context_traits_email text, {own} id text, original_timestamp timestamptz, received_at timestamptz,
    sent_at timestamptz, "timestamp" timestamptz, user_id text, uuid_ts timestamptz"""
IPS = "context_ip text, context_passed_ip text, context_request_ip text,"
EVENT = "event text, event_text text,"
OPENED = (
    "campaign_name text, event text, event_text text, price numeric, score bigint, transactional boolean, _order text,"
)
VALUES = """'{id}', '2019-03-01 10:00:00+00', '2019-03-01 10:00:02.5+00', '2019-03-01 10:00:01+00',
    '2019-03-01 10:00:01.5+00', 'u1', '2019-03-01 10:05:00+00'"""
FRONT = "NULL, 'server', {ips} 'd1', 'POSTGRES', 'RudderStack', '1.0', 's1', 'HTTP', 'ann@example.com',"
ALL_IPS = "'1.2.3.4', '1.2.3.4', '5.6.7.8',"


def table(name: str, own: str, ips: str = IPS) -> str:
    return f"CREATE TABLE shop.{name} ({COMMON.format(own=own, ips=ips)});"


def row(name: str, id_: str, own: str, ips: str = ALL_IPS) -> str:
    return f"INSERT INTO shop.{name} VALUES ({FRONT.format(ips=ips)} {own} {VALUES.format(id=id_)});"


MADE = "".join(
    [
        "CREATE SCHEMA shop;",
        table("tracks", EVENT),
        table("email_opened", OPENED),
        table("plan_changed", f"{EVENT} plan text,", "context_request_ip text,"),  # without `context_ip`
        table("identifies", "email text, logins bigint,"),
        row("tracks", "r1", "'email_opened', 'Email Opened',"),
        row("email_opened", "r1", "'Spring', 'email_opened', 'Email Opened', 12.50, 3, true, 'first',"),
        row("plan_changed", "r2", "'plan_changed', 'Plan Changed', 'pro',", "'5.6.7.8',"),
        row("identifies", "i1", "'ann@example.com', 2,"),
        "CREATE TABLE shop.users AS SELECT * FROM shop.identifies;",
        "ALTER TABLE shop.users DROP COLUMN id; ALTER TABLE shop.users RENAME COLUMN user_id TO id;",
        "CREATE TABLE shop.rudder_discards (column_name text, column_value text, reason text, id text);",
        "INSERT INTO shop.rudder_discards (id) VALUES ('x');",
    ]
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2019-03-01 {text}").replace(tzinfo=UTC)


SOURCE: Row = {
    "context_destination_id": "d1", "context_destination_type": "POSTGRES", "context_library_name": "RudderStack",
    "context_library_version": "1.0", "context_source_id": "s1", "context_source_type": "HTTP",
    "context_traits_email": "ann@example.com",
}  # fmt: skip
PASSED: Row = {"context_ip": "1.2.3.4", "context_passed_ip": "1.2.3.4", "context_request_ip": "5.6.7.8"}
TIMES: Row = {
    "original_timestamp": at("10:00:00"), "received_at": at("10:00:02.5"), "sent_at": at("10:00:01"),
    "timestamp": at("10:00:01.5"),
}  # fmt: skip
COMMON_CELLS: Row = {**SOURCE, **TIMES, "user_id": "u1"}
R1: Row = {"id": "r1", "event": "email_opened", "event_text": "Email Opened", **COMMON_CELLS, **PASSED}
R2: Row = {"id": "r2", "event": "plan_changed", "event_text": "Plan Changed", **COMMON_CELLS, "context_ip": "5.6.7.8"}


def test_tables_of_rudderstack_become_this_schema_and_stay_as_they_are(postgres: str, call: Call) -> None:
    ask(postgres, MADE)
    words = ("adopt", "--from", postgres, "--schema", "shop")
    said = call(*words, "--json")
    assert said.status == 0, said.err
    report = json.loads(said.out)
    counts = {name: report[name] for name in ("files", "lines", "stored", "duplicates", "rejected", "discards")}
    assert counts == {"files": 5, "lines": 5, "stored": 4, "duplicates": 1, "rejected": 0, "discards": 0}
    assert report["skipped"] == {"no_table": 1}

    file = Path("autopilot.duckdb")
    opened: Row = {"campaign_name": "Spring", "price": 12.5, "score": 3, "transactional": True, "_order": "first"}
    assert rows(file, "email_opened") == [{**R1, **opened}]
    assert rows(file, "plan_changed") == [{**R2, "plan": "pro"}]
    assert rows(file, "tracks") == [R1, R2]
    traits: Row = {"email": "ann@example.com", "logins": 2}
    assert rows(file, "identifies") == [{"id": "i1", **COMMON_CELLS, **PASSED, **traits}]
    [user] = rows(file, "users")
    assert user.items() >= {"id": "u1", "received_at": at("10:00:02.5"), **traits}.items()
    assert "channel" not in user

    assert "missing column, queries that name it fail: no loaded message has it" in said.err
    assert "plan_changed: channel, context_request_ip" in said.err
    assert call(*words, "--verify").status == 0
