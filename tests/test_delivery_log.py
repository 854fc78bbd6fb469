"""The delivery log keeps and returns outcomes, in DuckDB, in PostgreSQL and in a lake."""

import random
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pytest
from deltalake import DeltaTable
from dlt.destinations.impl.postgres.sql_client import Psycopg2SqlClient

from autopilothq.destination import DeliveryLog
from autopilothq.destination.delivery_log import CHANGED, FOUND, SENT_AGAIN, Delivery, Member
from autopilothq.errors import BusyError, RunError
from autopilothq.warehouses.dataset import delta
from fake_autopilot import FakeAutopilot
from sending import answer, by_user_id, counted, identify, log_in, posts, rows, send, track
from servers import ask


def test_text_that_no_warehouse_can_store_stops_no_message(server: FakeAutopilot) -> None:
    lines = [
        b'{"type":"identify","messageId":"a\\ud800","traits":{"email":"b\\ud800@c.d"}}',
        b'{"type":"identify","messageId":"b\\ud800","userId":"u\\u0000","traits":{"email":"a@b.c","x\\ud800":1,"":2}}',
        b'{"type":"track","messageId":"t\\ud800","event":"Order Completed","context":{"traits":{"email":"a@b.c"}}}',
    ]
    assert counted(send(server, lines)) == {"messages": 3, "delivered": 2, "refused": 1}
    assert posts(server) == [
        ("/contacts", {"contacts": [{"Email": "a@b.c"}]}),
        ("/trigger/0007/contact/a%40b.c", None),
    ]
    assert counted(send(server, lines)) == {"messages": 3, "known": 2, "refused": 1}
    assert set(rows("message_id", "user_id", "attempts")) == {("a?", None, 0), ("b?", "u\ufffd", 1), ("t?", None, 1)}


def test_the_log_may_be_in_a_lake(server: FakeAutopilot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta, "MOST_FILES", 1)
    lake = dlt.destinations.filesystem(Path("lake").absolute().as_uri())
    messages = [identify(1), track(1), identify("bad", traits={"email": "nobody"})]
    for counts in (
        {"messages": 3, "delivered": 2, "refused": 1},
        {"messages": 3, "known": 2, "refused": 1},
    ):
        assert counted(send(server, messages, lake)) == counts
        assert counted(send(server, messages)) == {**counts}
    found = []
    for place in (lake, None):
        with DeliveryLog(log_in(place), reads=True) as log:
            found.append([{**row, "sent_at": 0, "run": 0} for row in log.latest()])
    assert found[0] == found[1]
    assert [row["status"] for row in found[0]] == ["delivered", "refused", "delivered"]
    # The second run compacted the files that the first one's writes had added.
    assert len(DeltaTable("lake/autopilothq/_deliveries").file_uris()) == 1


def test_one_run_at_a_time(server: FakeAutopilot, postgres: str) -> None:
    place = dlt.destinations.postgres(postgres)
    busy = "Another run is sending, with the same log.\nRun it again when that one has ended."
    timeouts = "-cidle_session_timeout%3D300ms%20-cidle_in_transaction_session_timeout%3D300ms"
    patient = dlt.destinations.postgres(f"{postgres}?options={timeouts}")
    with DeliveryLog(log_in(patient)) as log:
        log.suppressed_ids()  # dlt resets a connection after a statement that fails, such as one about a missing table
        time.sleep(0.6)
        # Between two transactions, a pooler may give the connection to another run, which then has the lock, too.
        holder = "SELECT state FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE locktype = 'advisory'"
        assert ask(postgres, holder) == [("idle in transaction",)]
        with pytest.raises(BusyError, match=f"^{re.escape(busy)}$"):
            send(server, [], place)
    assert send(server, [], place).all_delivered


def test_other_types_are_counted(server: FakeAutopilot) -> None:
    counts = send(server, [{"type": "page"}, {"type": "page"}, {"type": "alias"}])
    assert counts.ignored == {"page": 2, "alias": 1}
    assert counts.all_delivered
    assert posts(server) == []


def test_the_log_in_postgresql(server: FakeAutopilot, postgres: str) -> None:
    warehouse = dlt.destinations.postgres(postgres)
    messages = [
        identify(1, userId="u1"),
        track(1),
        identify("bad", traits={"email": "nobody"}),
        by_user_id(2, "u1", fax="1"),
    ]
    server.order("POST", "/trigger/*", drop="after")
    ask(postgres, "CREATE PUBLICATION everything FOR ALL TABLES")  # rows change only if they can be told apart
    assert counted(send(server, messages, warehouse)) == {"messages": 4, "delivered": 2, "refused": 1, "unknown": 1}
    ask(postgres, "DROP INDEX autopilothq._deliveries_message_id_idx")  # as older versions made the table
    assert counted(send(server, messages, warehouse)) == {"messages": 4, "refused": 1, "unknown": 1, "known": 2}
    with DeliveryLog(log_in(warehouse), reads=True) as log:
        latest = [(row["message_id"], row["trigger_id"], row["status"]) for row in log.latest()]
        assert sorted(latest) == [
            ("i1", None, "delivered"),
            ("ibad", None, "refused"),
            ("t1", "0007", "unknown"),
            ("u2", None, "delivered"),
        ]
    # Each request looks up its rows, so without an index a run would slow down as the log grows.
    assert ask(postgres, "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'autopilothq'") == [
        (
            "_deliveries",
            "CREATE INDEX _deliveries_message_id_idx ON autopilothq._deliveries USING hash (message_id)",
        )
    ]
    sql = "SELECT status, count(*) AS n FROM _deliveries GROUP BY status ORDER BY status -- all"
    assert answer(sql, warehouse) == (["status", "n"], [("delivered", 2), ("refused", 1), ("unknown", 1)])


def test_a_log_in_postgresql_is_made_with_its_index_or_not_at_all(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed in between leaves neither, so that the next one creates both."""
    execute = Psycopg2SqlClient.execute_sql

    def killed(client: Psycopg2SqlClient, sql: Any, *values: Any, **named: Any) -> Any:
        if "CREATE INDEX" in str(sql):
            raise KeyboardInterrupt
        return execute(client, sql, *values, **named)

    def made() -> list[Any]:
        catalogues = ("pg_tables", "pg_indexes")
        return [ask(postgres, f"SELECT tablename FROM {of} WHERE schemaname = 'autopilothq'") for of in catalogues]

    log = DeliveryLog(log_in(dlt.destinations.postgres(postgres)))
    with monkeypatch.context() as patched:
        patched.setattr(Psycopg2SqlClient, "execute_sql", killed)
        with pytest.raises(KeyboardInterrupt):
            log.__enter__()
    assert made() == [[], []]
    with log:
        assert made() == [[("_deliveries",)], [("_deliveries",)]]


def test_a_log_that_does_not_exist_yet_is_read_as_an_empty_one() -> None:
    with DeliveryLog(log_in(), reads=True) as log:
        log.add([Delivery("m1")])
        log.write_outcomes([Delivery("m1")])
        assert (log.statuses(["m1"]), log.emails(["u1"]), log.changes(), log.latest()) == ({}, {}, [], [])
    with duckdb.connect("autopilot.duckdb") as con:
        assert con.sql("SHOW ALL TABLES").fetchall() == []


def test_a_destination_without_sql_is_refused_before_it_is_opened() -> None:
    with pytest.raises(RunError, match="Expected a destination that answers SQL, but dummy does not"):
        DeliveryLog(log_in(dlt.destinations.dummy()))


def test_the_last_row_of_a_change_of_an_address_tells_whether_it_was_made() -> None:
    first = [("m1", "unknown"), ("m2", "unknown"), ("m3", "delivered"), ("m4", "refused")]
    tries = [*first, ("m6", "unknown"), ("m1", "delivered")]
    changed = [Delivery(id_, content=f"{CHANGED}{id_}", email="b@b.c", status=status) for id_, status in tries]
    with DeliveryLog(log_in()) as log:
        log.add([*changed, Delivery("m5", content="true"), changed[1]._replace(status="failed")])
        found = [(change.message_id, change.before, change.is_known) for change in log.changes()]
    assert found == [("m3", "m3", True), ("m6", "m6", False), ("m1", "m1", True)]


def test_times_in_the_log_never_go_back(server: FakeAutopilot) -> None:
    send(server, [identify(1)])
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("UPDATE autopilothq._deliveries SET sent_at = sent_at + INTERVAL 1 DAY")
    send(server, [identify(2)])
    assert [row[0] for row in rows("message_id")] == ["i1", "i2"]
    [first, second] = [row[0] for row in rows("run")]
    assert first != second
    assert all(re.fullmatch("[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}", run) for run in (first, second))


def test_the_log_takes_any_text(postgres: str) -> None:
    long = random.Random(1).randbytes(5000).hex()  # longer than an index allows
    odd = "'; DROP TABLE x -- \\n \\ \n\t\r\x01 %s %(a)s {} é 株 \U0001f600 \"$$" + long
    for place in (None, dlt.destinations.postgres(postgres)):
        with DeliveryLog(log_in(place)) as log:
            log.add([Delivery(odd, email="a\0b\ud800", message=odd, trigger_id=odd)])
            log.write_outcomes([Delivery(odd, trigger_id=odd, status="refused", message=odd + odd)])
            assert set(log.statuses([odd])) == {(odd, odd)}
            [row] = log.latest("refused", datetime(2000, 1, 1, tzinfo=UTC))
            assert (row["message_id"], row["email"], row["message"]) == (odd, "a\ufffdb?", odd + odd)
            assert log.latest("delivered") == log.latest(since=datetime(2100, 1, 1, tzinfo=UTC)) == []


def test_an_outcome_is_written_to_the_row_of_its_trigger() -> None:
    ends = [("m", "1", "delivered"), ("m", "2", "refused"), ("n", None, "failed")]
    with DeliveryLog(log_in()) as log:
        log.add([Delivery(id_, trigger_id=trigger) for id_, trigger, _ in ends])
        log.write_outcomes([Delivery(id_, trigger_id=trigger, status=status) for id_, trigger, status in ends])
    assert rows("message_id", "trigger_id", "status") == ends


def test_what_became_of_messages_as_the_log_knows_it() -> None:
    said = [
        *(("a", None, "failed"), ("b", None, "delivered"), ("b", None, "failed"), ("c", None, "unknown")),
        *(("c", None, FOUND), ("d", "7", "delivered"), ("d", "8", "refused"), ("e", None, "unknown")),
        *(("e", None, "refused"), ("f", None, "delivered"), ("f", None, "delivered"), ("g", None, "delivered")),
    ]
    with DeliveryLog(log_in()) as log:
        for id_, trigger, status in said:
            row = Delivery(id_, trigger_id=trigger, status=status)
            log.add([row._replace(status="delivered", message=FOUND) if status == FOUND else row])
        known = log.statuses(["a", "b", "c", "d", "e", "f", "none"])
    times = [row[0] for row in rows("sent_at")]
    assert {key: (one.ever, one.status, one.sent and times.index(one.sent.at)) for key, one in known.items()} == {
        ("a", None): (False, "failed", None),
        ("b", None): (True, "failed", 1),
        ("c", None): (True, "delivered", 3),
        ("d", "7"): (True, "delivered", 5),
        ("d", "8"): (False, "refused", None),
        ("e", None): (False, "refused", 7),
        ("f", None): (True, "delivered", 10),
    }
    assert {one.sent.run for one in known.values() if one.sent} == {log.run}


def test_emails_of_user_ids_as_the_log_knows_them() -> None:
    first = Delivery("m", "identify", user_id="u1", email="a@b.c", status="delivered")
    said = [first, first._replace(status="refused", email="b@b.c"), first._replace(message=SENT_AGAIN, email="c@b.c")]
    said += [first._replace(kind="track", trigger_id="7", email="d@b.c"), first._replace(kind="delete", email="e@b.c")]
    said += [first._replace(email=None), first._replace(user_id="u2"), first._replace(user_id="u4")]
    said.append(first._replace(kind="track", user_id="u2", email="new@b.c"))  # this one changed the address
    with DeliveryLog(log_in()) as log:
        log.add(said)
        found = log.emails(["u1", "u2", "u3"])
    assert {user_id: email for user_id, (email, _) in found.items()} == {"u1": "a@b.c", "u2": "new@b.c"}


def test_members_as_the_log_knows_them() -> None:
    def said(who: str, content: str, status: str) -> Delivery:
        return Delivery(who, "identify", audience="a", email=f"{who}@b.c", content=content, status=status)

    with DeliveryLog(log_in()) as log:
        log.add([said("in", "true", "delivered"), said("out", "true", "delivered"), said("never", "true", "refused")])
        log.add([said("out", "false", "delivered"), said("in", "false", "refused"), said("who", "true", "failed")])
        assert log.members("a") == {
            "in": Member("in@b.c", None, "true"),
            "out": Member("out@b.c", None, "false"),
            "never": Member("never@b.c", None, None),
            "who": Member("who@b.c", None, "?"),
        }
        assert log.members("b") == {}
