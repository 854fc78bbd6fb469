"""`autopilothq forward` sends every message once, unchanged, and the tables at the other end are the same."""

import gzip
import json
import signal
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pytest
from dlt.common.schema import TTableSchema
from dlt.pipeline.exceptions import PipelineStepFailed

import forked
from autopilothq import catalog, segment_destination
from autopilothq.cli.sending import archive_lines
from autopilothq.clients.segment_api import SegmentApiSettings
from autopilothq.destination.forward import batches
from autopilothq.destination.forward_log import ForwardLog
from autopilothq.destination.load_package import path_of_file
from autopilothq.destination.outgoing import Outgoing, outgoing, outgoing_row
from autopilothq.destination.segment import forward_messages, resolve_segment_settings
from autopilothq.errors import InvalidSetting
from autopilothq.receive.files import published_files
from autopilothq.segment.rebuild import line_of
from calling import MAIN, Call, errors
from contract.duck import held
from contract.loading import Line, Store
from fake_segment import KEY, FakeSegment
from receiving import receiver
from sending import write
from shared_loads import command, isolation
from waiting import wait_for

AT_THE_OTHER_END = {"received_at", "uuid_ts", "sent_at"}  # set by the receiving side


OWN_ID = (
    "Expected the id of a message, but the row's id is that of its person or group. From users, select id AS user_id"
    " and the columns to send as traits, but neither id itself nor received_at"
)
TYPED = (
    "Expected an id and a time in a row whose type is not identify, but it lacks one or both. Select them, or give the"
    " column type another name"
)


def track(number: int | str, **more: Any) -> dict[str, Any]:
    properties = {"campaign_id": f"c{number}", "n": number}
    return {"type": "track", "event": "Email Opened", "userId": "u1", "messageId": f"m{number}",
            "timestamp": "2026-11-01T05:06:07.123Z", "properties": properties} | more  # fmt: skip


# ---- the same tables -------------------------------------------------------------------------------------------------


LINES = [
    (
        '{"type":"identify","userId":"u1","messageId":"i1","traits":{"email":"ada@example.com","plan":"pro","score":1.10,'
        '"big":12345678901234567890,"huge":1e400,"tags":["a",1],"address":{"city":"B","zip":"01"},"name":"Ada","timestamp":"x","ok":1},'
        '"context":{"ip":"1.2.3.4","userAgent":"UA","library":{"name":"l","version":"1"},"custom":{"deep":[1]},"n":2},'
        '"originalTimestamp":"2026-11-01T05:06:07.000Z","sentAt":"2026-11-01T05:06:08.500Z",'
        '"receivedAt":"2026-11-01T05:06:09.000Z","timestamp":"2026-11-01T05:06:07.500Z","version":2,"channel":"server"}'
    ),
    (
        '{"type":"identify","userId":"u2","messageId":"i2","traits":{"plan":null,"score":2,"born":"2001-02-03"},'
        '"timestamp":"2026-11-01T05:06:07.123456Z","receivedAt":"2026-11-01T05:06:09Z"}'
    ),
    '{"type":"identify","messageId":"i3","traits":{"email":"mail@example.com"},"timestamp":"2026-11-01T06:00:00+01:00"}',
    (
        '{"type":"group","userId":"u1","groupId":"g1","messageId":"g1","traits":{"name":"Co","employees":5},'
        '"timestamp":"2026-11-01T05:00:00Z"}'
    ),
    '{"type":"alias","userId":"u1","previousId":"a1","messageId":"a1","timestamp":"2026-11-01T05:00:00Z"}',
    (
        '{"type":"page","anonymousId":"a1","name":"Home","category":"x","messageId":"p1","properties":{"url":"/","title":"T"},'
        '"timestamp":"2026-11-01T05:00:00Z"}'
    ),
    (
        '{"type":"screen","anonymousId":"a1","name":"Main","messageId":"s1","properties":{"n":1},'
        '"timestamp":"2026-11-01T05:00:00Z"}'
    ),
    (
        '{"type":"track","event":"Order Completed","userId":"u1","messageId":"t1","properties":{"total":9.90,'
        '"items":[{"sku":"x"}],"event":"other","id":"o1","context_x":1,"paid":true,"at":"2026-11-01T05:00:00Z"},'
        '"originalTimestamp":"2026-11-01T05:00:00Z","timestamp":"2026-11-01T05:00:01Z"}'
    ),
    (
        '{"type":"track","event":"Email Opened","anonymousId":"ada@example.com","messageId":"t2",'
        '"context":{"traits":{"email":"ada@example.com","contact_id":"person_1"},"integration":{"name":"autopilothq"}},'
        '"properties":{"campaign_id":5,"email_subject":"[1] Zo\\u00eb","transactional":false},"integrations":{},'
        '"receivedAt":"2026-11-01T05:06:07.412Z","sentAt":null,"timestamp":"2026-11-01T05:06:07.000Z",'
        '"originalTimestamp":"2026-11-01T05:06:07.000Z","_metadata":{"bundled":[]}}'
    ),
    '{"type":"track","event":"Email Opened","userId":"u9","properties":{},"timestamp":"2026-11-01T05:06:07.000Z"}',
]


EVENTS = [json.dumps(track(number, event=event.name)) for number, event in enumerate(catalog.EVENTS)]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The tables of an archive, those after forwarding the archive, and those after forwarding its tables."""
    root = tmp_path_factory.mktemp("forwarded")
    with isolation(root), receiver("lines") as one, receiver("rows") as two:
        Path("archive").mkdir()
        write([*LINES, *EVENTS], "archive/1.ndjson")
        place = ["--destination", "duckdb", "--credentials", "here.duckdb"]
        with held("here.duckdb"):
            assert command("load", "archive", "archive", *place).status == 0
        lines = Path("archive/1.ndjson").read_bytes().splitlines()
        with ForwardLog(dlt.dataset("duckdb", "log", dlt.Schema("autopilothq"))) as log:
            assert forward_messages(map(outgoing, lines), log, settings(one.url)).all_delivered
            assert forward_messages(map(outgoing, _rows("here.duckdb")), log, settings(two.url)).all_delivered
        received = []
        for running in (one, two):
            assert running.stop() == ""
            files = [gzip.decompress(file.read_bytes()) for file in published_files(running.folder)]
            received.append(b"".join(files).splitlines())
        return {name: _tables(these) for name, these in zip(("here", "lines", "rows"), (lines, *received), strict=True)}


def settings(url: str) -> SegmentApiSettings:
    return SegmentApiSettings(api_key=KEY, base_url=url, requests_per_second=1000.0)


def _rows(file: str) -> Iterator[bytes]:
    """Returns the rows of all tables of messages, in the form that `forward --query` takes."""
    with duckdb.connect(file, read_only=True) as con:
        con.execute("USE autopilothq")
        events = [row[0] for row in con.execute("SELECT DISTINCT event FROM tracks").fetchall()]
        queries = [
            f"SELECT * FROM {table} ORDER BY received_at" for table in ("identifies", "groups", "aliases", *events)
        ]
        queries += [f"SELECT '{kind}' AS type, * FROM {kind}s" for kind in ("page", "screen")]
        for query in queries:
            answer = con.execute(query)
            names = [column[0] for column in answer.description or ()]
            for row in answer.fetchall():
                yield line_of(dict(zip(names, row, strict=True)))


def _tables(lines: Sequence[Line]) -> dict[str, Any]:
    """Returns the columns with their types and the rows of the tables of messages."""
    store = Store()
    found = {}
    for table, rows in store.run(lines).items():
        if not table.startswith("_"):
            names = {name: of for name, of in store.types[table].items() if name not in AT_THE_OTHER_END}
            found[table] = (names, [[row[name] for name in names] for row in rows])
    return found


def differences(tables: dict[str, dict[str, Any]], other: str) -> set[Any]:
    """Returns the tables, columns and cells in which the other dataset differs."""
    here, there = tables["here"], tables[other]
    found: set[Any] = set(here) ^ set(there)
    for table in set(here) & set(there):
        (names, rows), (other_names, other_rows) = here[table], there[table]
        found |= {(table, *one) for one in set(names.items()) ^ set(other_names.items())}
        found |= {(table, f"{len(rows)} rows, {len(other_rows)}")} if len(rows) != len(other_rows) else set()
        for row, other_row in zip(rows, other_rows, strict=False):
            one, two = (dict(zip(of, cells, strict=True)) for of, cells in ((names, row), (other_names, other_row)))
            if "original_timestamp" in one and one["original_timestamp"] is None:
                one["original_timestamp"] = one["timestamp"]  # Segment and the receiver add this field
            found |= {(table, name, str(one[name]), str(two.get(name))) for name in one if one[name] != two.get(name)}
    return found


def test_an_archive_that_was_forwarded_gives_the_same_tables(tables: dict[str, dict[str, Any]]) -> None:
    assert differences(tables, "lines") == set()
    assert len(tables["here"]) > 12


def test_tables_that_were_forwarded_give_the_same_tables(tables: dict[str, dict[str, Any]]) -> None:
    # A value that did not fit its column is in `_discards`, so the column has nothing to send.
    assert differences(tables, "rows") == {("identifies", "huge", "double"), ("users", "huge", "double")}


# ---- messages --------------------------------------------------------------------------------------------------------


def test_lines_with_nothing_but_blanks_behind_their_marks_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(b"\xef\xbb\xbf1\n \r\n\n\xef\xbb\xbf\t\n\x0b\n\xef\xbb\xbf\n")
    assert list(archive_lines([str(tmp_path)], [])) == [b"1\n", b"\x0b\n"]


def test_a_message_is_sent_as_it_came() -> None:
    line = (
        b'\xef\xbb\xbf{"type": "track", "event": "E", "messageId": "m", "userId": 7, "userId": 8,'
        b' "properties": {"n": 1.10}, "integrations": {"All": false}, "channel": "server",'
        b' "timestamp": "2026-11-01T05:06:07Z", "sentAt": "x",'
        b' "originalTimestamp": "2026-11-01T05:06:06Z", "receivedAt": "y", "version": 2, "projectId": "p",'
        b' "writeKey": "w", "_metadata": {}}\r\n'
    )
    found = outgoing(line)
    assert (found.message_id, found.kind, found.event, found.refusal) == ("m", "track", "E", None)
    assert found.text == (
        b'{"type":"track","event":"E","messageId":"m","userId":7,"properties":{"n":1.10},"integrations":{"All":false},'
        b'"channel":"server","timestamp":"2026-11-01T05:06:07Z","originalTimestamp":"2026-11-01T05:06:06Z"}'
    )


@pytest.mark.parametrize(
    ("line", "added"),
    [
        ({"userId": "1"}, {"messageId": "?"}),
        ({"userId": "1", "messageId": ""}, {"messageId": "?"}),
        ({"userId": "1", "messageId": "\0"}, {"messageId": "?"}),
        ({"userId": "1", "messageId": ["m"]}, {"messageId": "?"}),
        ({"userId": "\u00a0", "messageId": "\u00a0"}, {}),  # not blank in JSON, so the warehouse has them
        ({"userId": {}, "anonymousId": "\0", "messageId": "m", "traits": {"email": "a@b.c"}}, {"anonymousId": "a@b.c"}),
        ({"messageId": "m", "traits": {"email": "a@b.c"}}, {"anonymousId": "a@b.c"}),
        (
            {"messageId": "m", "userId": None, "anonymousId": " ", "traits": {"email": "a@b.c"}},
            {"anonymousId": "a@b.c"},
        ),
        ({"messageId": "m", "userId": "1", "originalTimestamp": "o", "receivedAt": "r"}, {"timestamp": "o"}),
        ({"messageId": "m", "userId": "1", "timestamp": None, "receivedAt": "r"}, {"timestamp": "r"}),
        ({"messageId": "m", "userId": "1", "timestamp": "t", "receivedAt": "r"}, {}),
    ],
)
def test_what_a_message_must_have_is_added(line: dict[str, Any], added: dict[str, Any]) -> None:
    line = {"type": "identify", **line}
    found = outgoing(json.dumps(line).encode())
    if "messageId" in added:
        added = {"messageId": found.message_id}
        assert len(found.message_id) == 64
    kept = {key: value for key, value in line.items() if key not in ("receivedAt", *added)}
    assert json.loads(found.text) == kept | added


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"oops", "not_json: not JSON"),
        (b"[]", "not_an_object: JSON, but not an object"),
        (b'{"type":"delete"}', "unknown_type: `type` is none of track, identify, alias, page, screen, group"),
        (b'{"type":"page"}', "no_user_anon_id: no `userId`, no `anonymousId` and no email"),
        (b'{"type":"track","userId":"1"}', "event_not_defined: a track without `event`"),
        (b"x" * (1 << 20) + b"y", "line_too_long: longer than 1 MiB"),
        (
            json.dumps(track(1, properties={"x": "y" * 40_000})).encode(),
            "It has 40,131 bytes, and Segment's API accepts at most 32,768",
        ),
    ],
)  # fmt: skip
def test_what_no_load_would_store_and_what_is_too_large_is_refused(line: bytes, why: str) -> None:
    assert outgoing(line).refusal == why


def test_rows_become_messages() -> None:
    def made(**row: Any) -> Any:
        return json.loads(line_of(row))

    assert made(
        id="m", event="email_opened", event_text="Email Opened", USER_ID="u",
        timestamp=datetime(2026, 11, 1, 5, 6, 7, 1, UTC),
        received_at="r", uuid_ts="u", sent_at="s", context_traits_email="a@b.c", context_user_agent="UA",
        context_other_thing=1, _timestamp="t", _x=None, tags='["a",1.0]', not_json="[a]", amount=Decimal("1.10"),
        nan="[NaN]", deep='[{"a":[-Infinity]}]',
        rate=float("nan"), ok=True, _dlt_id="d", day=date(2026, 11, 1), both=["a", 1, None], spaced="[1, 2]",
        _score=1, group_id="g", raw=b"\xff", read=memoryview(b"\xff"),
    ) == {
        "type": "track", "messageId": "m", "userId": "u", "timestamp": "2026-11-01T05:06:07.000001Z",
        "event": "Email Opened", "context": {"traits": {"email": "a@b.c"}, "userAgent": "UA", "other_thing": 1},
        "properties": {"timestamp": "t", "tags": ["a", 1.0], "not_json": "[a]", "amount": 1.1, "nan": "[NaN]",
                       "deep": '[{"a":[-Infinity]}]', "rate": None, "ok": True,
                       "day": "2026-11-01", "both": ["a", 1, None], "spaced": "[1, 2]", "_score": 1, "group_id": "g",
                       "raw": "/w==", "read": "/w=="},
    }  # fmt: skip
    assert len(line_of({"user_id": "u", "large": Decimal("1e999999999"), "small": Decimal("-1E-999999999")})) < 300
    page = made(type="page", id="p", anonymous_id="a", timestamp="t", name="Home", title="T")
    assert page == {"type": "page", "messageId": "p", "anonymousId": "a", "timestamp": "t", "name": "Home",
                    "properties": {"title": "T"}}  # fmt: skip
    assert made(id="g", user_id="u", group_id="g1", timestamp="t", name="Co")["traits"] == {"name": "Co"}
    assert made(id="a", user_id="u", previous_id="b", timestamp="t", note="which an alias cannot have") == {
        "type": "alias", "messageId": "a", "userId": "u", "previousId": "b", "timestamp": "t",
    }  # fmt: skip
    texts = made(id="[1]", user_id="[2]", event="_1", event_text="[3]", timestamp="t", context_traits="x",
                 context_traits_email="a@b.c")  # fmt: skip
    assert texts == {"type": "track", "messageId": "[1]", "userId": "[2]", "timestamp": "t", "event": "[3]",
                     "context": {"traits": "x", "traits_email": "a@b.c"}}  # fmt: skip
    other_way = made(id="m", event="e", timestamp="t", context_traits_email="a@b.c", context_traits="x")
    assert other_way["context"] == {"traits": "x", "traits_email": "a@b.c"}
    person = made(user_id="u", plan="pro", type="customer")
    assert person.pop("messageId").startswith("row-")
    assert person == {"type": "identify", "userId": "u", "traits": {"plan": "pro", "type": "customer"}}
    spelt = {"userId": "u", "Email": "a@b.c", "firstName": "Ann", "PLAN": "pro", "Größe": 1, "Context_IP": "i", "n": 1}
    assert made(**spelt, N=2) | {"messageId": ""} == {
        "type": "identify", "messageId": "", "userId": "u",
        "traits": {"email": "a@b.c", "firstName": "Ann", "plan": "pro", "Größe": 1, "context_ip": "i", "n": 1, "N": 2},
    }  # fmt: skip
    assert made(ID="m", event="e", UserID="u", TIMESTAMP="t", fooBar=1, user_id="v") == {
        "type": "track", "messageId": "m", "userId": "v", "timestamp": "t", "event": "e",
        "properties": {"fooBar": 1, "UserID": "u"},
    }  # fmt: skip
    for ids in ({"userid": "u", "ANONYMOUSID": "a"}, {"USERID": "u", "anonymousId": "a"}):  # `AS userId`
        assert made(**ids) | {"messageId": ""} == {
            "type": "identify", "messageId": "", "userId": "u", "anonymousId": "a", "traits": {},
        }  # fmt: skip
    assert made(id="m", event="e", anonymous_id="a", timestamp="t", _user_id="1", _ANONYMOUS_ID="2") == {
        "type": "track", "messageId": "m", "anonymousId": "a", "timestamp": "t", "event": "e",
        "properties": {"user_id": "1", "anonymous_id": "2"},
    }  # fmt: skip
    for row in ({"id": "7", "plan": "pro"}, {"timestamp": "t", "plan": "pro"}):
        assert made(**row)["traits"] == row
    assert line_of({"user_id": "u", "plan": "pro"}) != line_of({"user_id": "u", "plan": "free"})


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"user_id": "u", "id": "u", "received_at": "t", "plan": "pro"}, OWN_ID),
        ({"anonymous_id": "u", "ID": "u", "RECEIVED_AT": "t"}, OWN_ID),
        ({"user_id": "u", "group_id": "g", "id": "g", "received_at": "t"}, OWN_ID),
        ({"user_id": "u", "id": "u", "received_at": "t", "timestamp": "t"}, None),
        ({"user_id": "u", "id": "u", "received_at": "t", "event": "e"}, None),
        ({"user_id": "u", "id": "m", "received_at": "t"}, None),
        ({"user_id": "u", "type": "page", "timestamp": "t"}, TYPED),
        ({"user_id": "u", "type": "track", "id": "m", "event": "e"}, TYPED),
        ({"user_id": "u", "type": "page", "id": "m", "timestamp": "t"}, None),
        ({"user_id": "u", "type": "identify"}, None),
        ({"user_id": "u", "type": "customer", "event": "e"}, None),
    ],
)
def test_rows_that_would_become_another_message_are_refused(row: dict[str, Any], why: str | None) -> None:
    assert outgoing_row(row).refusal == why


def test_batches_have_a_hundred_messages_and_less_than_500_kb() -> None:
    def sizes(*lengths: int) -> list[int]:
        return [len(batch) for batch in batches(Outgoing("m", text=b"x" * length) for length in lengths)]

    assert sizes() == []
    assert sizes(*[10] * 100) == [100]
    assert sizes(*[10] * 205) == [100, 100, 5]
    assert sizes(*[30_000] * 20) == [15, 5]


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSegment]:
    monkeypatch.setenv("WRITE_KEY", KEY)
    monkeypatch.setattr("autopilothq.clients.retry._BACKOFF", lambda _: 0.0)
    with FakeSegment() as fake:
        yield fake


@pytest.fixture
def forward(call: Call, fake: FakeSegment) -> Any:
    """Forwards to the fake; checks that the write key is never printed."""

    def called(*words: str, url: "str | None" = None) -> tuple[int, list[str], list[str]]:
        said = call("forward", *words, "--to", url or fake.url, "--write-key", "env:WRITE_KEY",
                    "--requests-per-second", "1000")  # fmt: skip
        assert KEY not in said.out + said.err
        return said.status, said.out.splitlines(), errors(said)

    return called


def log(columns: str) -> list[tuple[Any, ...]]:
    with duckdb.connect("autopilot.duckdb", read_only=True) as con:
        return con.execute(f"SELECT {columns} FROM autopilothq._forwards ORDER BY sent_at").fetchall()


def test_a_folder_without_messages_is_told(forward: Any, call: Call) -> None:
    Path("empty").mkdir()
    Path("empty/dummy-object.txt").touch()
    there = "was found at empty. What is there: 1 write test or job marker."
    none = "0 messages: 0 delivered, 0 refused, 0 failed, 0 unknown"
    assert forward("empty") == (0, [none], [f"Warning: Nothing to send {there}"])
    assert errors(call("mapping", "empty")) == [f"Warning: Nothing to map {there}"]


def test_what_was_delivered_to_a_target_is_not_sent_there_again(fake: FakeSegment, forward: Any) -> None:
    path = write([track(number) for number in range(250)] + [track(3)])
    done = "251 messages: 250 delivered, 0 refused, 0 failed, 0 unknown, 1 twice in the input"
    assert forward(path) == (0, [done], [])
    assert (fake.sizes, fake.ids()) == ([100, 100, 50], [f"m{number}" for number in range(250)])
    assert all(body.startswith(b'{"batch":[{') and b"sentAt" not in body for body in fake.bodies)
    assert forward(path)[1] == ["251 messages: 0 delivered, 0 refused, 0 failed, 0 unknown, 251 delivered before"]
    assert len(fake.sizes) == 3
    with FakeSegment() as other:
        assert forward(path, url=other.url)[1] == [done]
        assert other.ids() == fake.ids()
        # A URL without a path means /v1/batch.
        assert forward(path, url=other.url.removesuffix("/v1/batch"))[1][0].endswith("251 delivered before")
    [(target, other_target)] = {(min(of), max(of)) for of in [{row[0] for row in log("target")}]}
    assert {target.split()[0], other_target.split()[0]} == {fake.url, other.url}
    assert (log("message_id, kind, event, status, http_status, message, attempts")[0]) == (
        "m0", "track", "Email Opened", "delivered", 200, None, 1,
    )  # fmt: skip


def test_a_refused_batch_is_halved_until_the_bad_message_is_found(fake: FakeSegment, forward: Any) -> None:
    fake.bad = {"m42", "m142"}
    path = write([*(track(number) for number in range(200)), "oops", "oops"])
    oops = "  1 refused: not_json: not JSON"
    assert forward(path) == (
        4,
        [
            "202 messages: 198 delivered, 3 refused, 0 failed, 0 unknown, 1 twice in the input",
            "  2 refused: malformed batch",
            oops,
        ],
        [],
    )
    assert fake.ids() == [f"m{number}" for number in range(200) if number not in (42, 142)]
    assert len(fake.sizes) < 40
    refused = [row for row in log("kind, status, http_status, message") if row[1] != "delivered"]
    assert sorted(refused, key=str) == [
        ("", "refused", None, "not_json: not JSON"), *[("track", "refused", 400, "malformed batch")] * 2,
    ]  # fmt: skip
    assert {row[0] for row in log("message_id, status") if row[1] == "refused"} > fake.bad
    fake.bad = set()
    # Messages that are never sent are counted each time, but logged once.
    left = "202 messages: 2 delivered, 1 refused, 0 failed, 0 unknown, 198 delivered before, 1 twice in the input"
    assert forward(path) == (4, [left, oops], [])
    assert len(log("message_id")) == 203


def test_a_message_that_the_server_fails_at_costs_no_other(fake: FakeSegment, forward: Any) -> None:
    fake.poison = {"m7"}
    path = write([track(number) for number in range(100)])
    status, out, _ = forward(path)
    assert (status, out[0]) == (4, "100 messages: 99 delivered, 0 refused, 1 failed, 0 unknown")
    assert len(fake.messages) == 99


def test_messages_that_failed_before_hold_up_no_new_ones(fake: FakeSegment, forward: Any) -> None:
    fake.poison = {f"m{number}" for number in range(0, 140, 10)}
    messages = [track(number) for number in range(140)]
    assert forward(write(messages))[1][0] == "140 messages: 126 delivered, 0 refused, 14 failed, 0 unknown"
    status, _, _ = forward(write([*messages, track("new"), track("new"), track(0)]))
    assert (status, fake.ids()[-1], len(fake.messages)) == (1, "mnew", 127)
    fake.poison = set()
    assert forward(write([*messages, track("new")]))[1] == [
        "141 messages: 14 delivered, 0 refused, 0 failed, 0 unknown, 127 delivered before"
    ]


def test_an_outage_ends_the_run_and_the_next_one_goes_on(fake: FakeSegment, forward: Any) -> None:
    path = write([track(number) for number in range(300)])
    fake.answers = [(200, {}), *[(503, {})] * 500]
    status, out, err = forward(path)
    counted = ["300 messages: 100 delivered, 0 refused, 4 failed, 0 unknown", "  4 failed: malformed batch"]
    assert (status, out) == (1, counted)
    assert err == ["Error: POST /v1/batch: 503 Service Unavailable: malformed batch; gave up after 6 tries"]
    assert len(fake.sizes) < 80
    fake.answers = []
    assert forward(path)[1] == ["300 messages: 200 delivered, 0 refused, 0 failed, 0 unknown, 100 delivered before"]
    assert sorted(fake.ids()) == sorted({f"m{number}" for number in range(300)})


def test_the_server_may_ask_to_wait(fake: FakeSegment, forward: Any) -> None:
    fake.answers = [(429, {"Retry-After": "1"}), (503, {})]
    start = time.monotonic()
    assert forward(write([track(1)]))[0] == 0
    assert time.monotonic() - start >= 1
    assert [row[0] for row in log("attempts")] == [3]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, ("POST /v1/batch: 401 Unauthorized: malformed batch. Check destination.segment.write_key (in"
         " .dlt/secrets.toml, or DESTINATION__SEGMENT__WRITE_KEY in the environment)")),
        (404, "POST /v1/batch: 404 Not Found: malformed batch"),
    ],
)  # fmt: skip
def test_a_wrong_key_or_url_ends_the_run_at_once(status: int, said: str, fake: FakeSegment, forward: Any) -> None:
    fake.answers = [(status, {})] * 9
    assert forward(write([track(number) for number in range(300)])) == (1, [], [f"Error: {said}"])
    assert fake.sizes == [100]
    assert log("status") == []


def test_dry_run_prints_the_requests(fake: FakeSegment, forward: Any) -> None:
    status, out, _ = forward(write([track(1, properties={"x": "\x1b[2J"}), "oops"]), "--dry-run")
    assert (status, out[0]) == (4, f"POST {fake.url}")
    assert out[1].startswith('{"batch":[{"type":"track"')
    assert out[2:] == [
        "would send 2 messages: 1 delivered, 1 refused, 0 failed, 0 unknown",
        "  1 refused: not_json: not JSON",
    ]
    assert (fake.sizes, Path("autopilot.duckdb").exists()) == ([], False)


def test_messages_of_forgotten_persons_stay(fake: FakeSegment, forward: Any, call: Call) -> None:
    path = write([track(1), track(2, userId="u2"), track(3, context={"traits": {"email": "EVE@example.com"}})])
    call("load", "archive", path)
    other = write(
        [track(4, userId="u2"), track(5, userId=None, traits={}, properties={"email": "Eve@Example.com"})], "o"
    )
    assert forward(other)[0] == 0
    assert log("message_id, user_id, anonymous_id, email") == [
        ("m4", "u2", None, None), ("m5", None, "Eve@Example.com", None),
    ]  # fmt: skip
    assert call("forget", "--user-id", "u2", "--email", "eve@example.com").status == 0
    assert log("message_id") == []
    fake.messages.clear()
    assert forward(path)[1] == ["3 messages: 1 delivered, 0 refused, 0 failed, 0 unknown, 2 of deleted persons"]
    assert fake.ids() == ["m1"]


def test_rows_of_a_query(fake: FakeSegment, forward: Any) -> None:
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("CREATE TABLE crm AS SELECT 'u' || i AS user_id, i AS score FROM range(3) t(i)")
    assert forward("--query", "SELECT * FROM main.crm")[1] == [
        "3 messages: 3 delivered, 0 refused, 0 failed, 0 unknown"
    ]
    assert [(message["userId"], message["traits"]) for message in fake.messages] == [
        (f"u{number}", {"score": number}) for number in range(3)
    ]
    assert forward("--query", "SELECT * FROM main.crm")[1][0].endswith("3 delivered before")
    users = "SELECT 'u1' AS id, 'a@b.c' AS email, NULL AS user_id, now() AS received_at, 'b' AS type"
    why = (
        "Expected user_id or anonymous_id in a row with id and received_at, but it has neither, so its id is not a"
        " message's. From users, select id AS user_id and the columns to send as traits"
    )
    said = ["1 message: 0 delivered, 1 refused, 0 failed, 0 unknown", f"  1 refused: {why}"]
    for query in (users, users.replace("'b'", "'identify'")):
        assert forward("--query", query)[:2] == (4, said)
    assert forward("--query", users.replace("'b'", "'page'"))[0] == 0
    assert fake.messages.pop()["anonymousId"] == "a@b.c"
    status, _, err = forward("--query", "SELECT nothing FROM main.crm")
    assert (status, err[0].startswith("Error: The warehouse cannot answer the query:")) == (1, True)


def test_wrong_arguments(call: Call) -> None:
    for words, said in (
        ([], "Error: Name what to forward: either paths (- is stdin) or --query, got neither."),
        (["a", "--query", "SELECT 1"], "Error: Name what to forward: either paths (- is stdin) or --query, got both."),
        (["-", "a"], "Error: - cannot be combined with other paths: it is a stream, and files are read to their end."),
        (["a", "--write-key", "no"], ("Error: Invalid value for '--write-key': Expected env:NAME or @FILE, got ***:"
                                      " everybody on this machine can see what a command line holds.")),
    ):  # fmt: skip
        answer = call("forward", *words)
        assert (answer.status, answer.err.splitlines()[-1]) == (2, said)
    answer = call("forward", "a")
    assert (answer.status, answer.err.splitlines()) == (
        1,
        [
            "Error: Expected the write key of the source that takes the messages, but there is none.",
            (
                "Set destination.segment.write_key in .dlt/secrets.toml, or DESTINATION__SEGMENT__WRITE_KEY in the"
                " environment, or name it by --write-key env:NAME."
            ),
        ],
    )


def test_an_error_about_an_address_names_the_option_that_gave_it(
    forward: Any, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    must = "must be like https://host/path, without user, password, query or fragment, got 'https:///v1'"
    assert forward(write([track(1)]), url="https:///v1") == (1, [], [f"Error: --to {must}"])
    monkeypatch.setenv("DESTINATION__SEGMENT__BASE_URL", "https:///v1")
    said = call("forward", write([track(1)]), "--write-key", "env:WRITE_KEY")
    assert (said.status, errors(said)) == (1, [f"Error: destination.segment.base_url {must}"])


def test_a_pipe(fake: FakeSegment) -> None:
    def has(name: str) -> bool:
        return name in fake.ids()

    words = ["forward", "-", "--to", fake.url, "--write-key", "env:WRITE_KEY"]
    with forked.start(
        "-c", MAIN, *words,
        stdin=forked.PIPE, stdout=forked.PIPE, stderr=forked.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin
        for number in (1, 2):
            process.stdin.write(f"{json.dumps(track(number))}\noops\n")
            process.stdin.flush()
            wait_for(partial(has, f"m{number}"))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        assert process.wait() == 4
    assert out.splitlines()[0] == "4 messages: 2 delivered, 2 refused, 0 failed, 0 unknown"
    assert "refused: not_json: not JSON: oops" in err


# ---- the dlt destination ---------------------------------------------------------------------------------------------


def test_the_dlt_destination(fake: FakeSegment) -> None:
    to = segment_destination(write_key=KEY, base_url=fake.url, requests_per_second=1000.0)
    pipeline = dlt.pipeline("to_segment", destination=to, pipelines_dir="pipelines")
    rows = [
        {"user_id": "u1", "plan": "pro", "address": {"city": "B"}},
        {"type": "track", "event": "Order Completed", "userId": "u2", "messageId": "m1", "properties": {"n": 1.5}},
    ]
    pipeline.run(rows, table_name="people")
    assert [(message["type"], message["userId"]) for message in fake.messages] == [("identify", "u1"), ("track", "u2")]
    assert fake.messages[0]["traits"] == {"plan": "pro", "address": {"city": "B"}}
    assert fake.messages[1]["properties"] == {"n": 1.5}
    pipeline.run(rows, table_name="people")
    assert len(fake.messages) == 2
    fake.answers = [(503, {})] * 6  # one more than the tries of a request, so dlt has to retry
    pipeline.run([{"user_id": "u3", "plan": "pro"}], table_name="people")
    assert fake.messages[-1]["userId"] == "u3"


@pytest.mark.parametrize("naming", ["snake_case", "sql_ci_v1"])
def test_the_dlt_destination_with_parquet(fake: FakeSegment, naming: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """dlt writes nested values to Parquet as JSON, and its naming convention changes the messages' keys."""
    monkeypatch.setenv("SCHEMA__NAMING", naming)
    to = segment_destination(write_key=KEY, base_url=fake.url, requests_per_second=1000.0)
    pipeline = dlt.pipeline("to_segment", destination=to, pipelines_dir="pipelines")
    rows = [track(1), {"user_id": "u1", "address": {"city": "B"}, "tags": ["x"]}]
    pipeline.run(rows, table_name="rows", loader_file_format="parquet")
    assert fake.messages[0] == track(1)
    assert fake.messages[1]["traits"] == {"address": {"city": "B"}, "tags": ["x"]}


def test_a_bad_row_holds_up_no_pipeline(fake: FakeSegment, caplog: pytest.LogCaptureFixture) -> None:
    fake.poison = {"m1"}
    to = segment_destination(write_key=KEY, base_url=fake.url, tries=1, requests_per_second=1000.0)
    pipeline = dlt.pipeline("to_segment", destination=to, pipelines_dir="pipelines")
    rows = [{"type": "track", "event": "A", "userId": "u", "messageId": f"m{number}"} for number in range(4)]
    pipeline.run(rows, table_name="events")
    assert sorted(message["messageId"] for message in fake.messages) == ["m0", "m2", "m3"]
    assert not pipeline.has_pending_data
    assert "1 row failed: " in caplog.text
    fake.poison.clear()
    pipeline.run(rows, table_name="events")
    assert sorted(message["messageId"] for message in fake.messages) == ["m0", "m1", "m2", "m3"]


def test_the_dlt_destination_by_its_name(fake: FakeSegment, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WRITE_KEY": KEY, "BASE_URL": fake.url}.items():
        monkeypatch.setenv(f"DESTINATION__SEGMENT__{name}", value)
    monkeypatch.setenv("LOG", "debug")  # dlt would pass it to an argument of that name
    pipeline = dlt.pipeline("by_name", destination="autopilothq.segment_destination", pipelines_dir="pipelines")
    pipeline.run([{"id": "m1", "event": "a", "event_text": "A", "user_id": "u", "timestamp": "t"}], table_name="a")
    assert [(message["messageId"], message["event"]) for message in fake.messages] == [("m1", "A")]
    with pytest.raises(InvalidSetting, match="did you mean base_url"):
        segment_destination(write_key=KEY, base_ur=fake.url)  # type: ignore[call-arg]
    monkeypatch.setenv("DESTINATION__SEGMENT__TRYS", "1")
    with pytest.raises(InvalidSetting, match="did you mean tries"):
        resolve_segment_settings()


def test_the_dlt_destination_takes_whole_files(fake: FakeSegment) -> None:
    more: dict[str, Any] = {"batch_size": 10}  # a setting that dlt has for every such destination
    to = segment_destination(write_key=KEY, base_url=fake.url, **more)
    pipeline = dlt.pipeline("to_segment", destination=to, pipelines_dir="pipelines")
    with pytest.raises(PipelineStepFailed, match=r"destination\.segment\.batch_size must be 0, so that dlt hands over"):
        pipeline.run([{"user_id": "u"}], table_name="people")
    assert fake.messages == []


def test_rows_that_dlt_took_apart_are_not_sent(fake: FakeSegment) -> None:
    to = segment_destination(write_key=KEY, base_url=fake.url, requests_per_second=1000.0)
    pipeline = dlt.pipeline("to_segment", destination=to, pipelines_dir="pipelines")
    person = {"user_id": "u", "address": {"city": {"name": "B"}}, "tags": [{"user_id": "x"}]}
    nested = dlt.resource([person], name="people", max_table_nesting=1)
    with pytest.raises(PipelineStepFailed, match="Rows must be whole, but dlt took the nested values of 'people' out"):
        pipeline.run(nested)
    assert fake.messages == []
    pipeline.abort_packages()
    pipeline.run(dlt.resource([person], name="people", max_table_nesting=0))
    assert [message["traits"] for message in fake.messages] == [{"address": person["address"], "tags": person["tags"]}]


def test_a_table_of_taken_out_values_is_known() -> None:
    nested: TTableSchema = {"name": "a▶b", "parent": "a", "columns": {}}
    with pytest.raises(InvalidSetting, match="the nested values of 'a' out of them"):
        path_of_file("file.jsonl", nested, "destination.segment")
    whole: TTableSchema = {**nested, "resource": "b"}  # the resource declares the parent
    assert path_of_file("file.jsonl", whole, "destination.segment") == "file.jsonl"


def test_nesting_is_no_setting_of_the_destination(fake: FakeSegment, monkeypatch: pytest.MonkeyPatch) -> None:
    more: dict[str, Any] = {"max_table_nesting": 2}
    with pytest.raises(InvalidSetting, match="takes no setting max_table_nesting: nested values belong to their row"):
        segment_destination(write_key=KEY, base_url=fake.url, **more)
    monkeypatch.setenv("DESTINATION__SEGMENT__MAX_TABLE_NESTING", "2")
    with pytest.raises(InvalidSetting, match=r"has no setting destination\.segment\.max_table_nesting: nested values"):
        resolve_segment_settings()
