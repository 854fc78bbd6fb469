"""Avro files, made by fastavro in the form of BigQuery's EXPORT DATA, are adopted (docs/contract/adopt.md)."""

from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import fastavro
import pytest

from adopted import Row, at, rows
from autopilothq.sources.adopt import avro
from autopilothq.sources.adopt.files import TableFile
from calling import Call

TIME = {"type": "long", "logicalType": "timestamp-micros"}
FIELDS: dict[str, Any] = {
    "id": "string",
    "received_at": TIME,
    "loaded_at": TIME,
    "user_id": "string",
    "event": "string",
    "event_text": "string",
    "transactional": "boolean",
    "score": "long",
    "ratio": "double",
    "price": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 9},
    "big": {"type": "bytes", "logicalType": "decimal", "precision": 77, "scale": 38},
    "original_timestamp": {"type": "string", "sqlType": "DATETIME"},
    "seen_at": {"type": "string", "sqlType": "DATETIME"},
    "opened_on": {"type": "int", "logicalType": "date"},
    "opened_at": {"type": "long", "logicalType": "time-micros"},
    "closed_on": {"type": "string", "sqlType": "DATE"},
    "token": {"type": "string", "logicalType": "uuid"},
    "checked_at": {"type": "long", "logicalType": "timestamp-millis"},
    "local_at": {"type": "long", "logicalType": "local-timestamp-micros"},
    "plan": {"type": "enum", "name": "Plan", "symbols": ["free", "pro"]},
    "raw": "bytes",
    "_empty": "long",
}
RECORD = {"type": "record", "name": "Link", "fields": [{"name": "url", "type": ["null", "string"]},
          {"name": "cost", "type": ["null", FIELDS["price"]]}, {"name": "at", "type": ["null", TIME]}]}  # fmt: skip
NESTED = [
    {"name": "links", "type": {"type": "array", "items": RECORD}},
    {"name": "first_link", "type": ["null", "Link"]},
    {"name": "counts", "type": ["null", {"type": "map", "values": "long"}]},
    {"name": "shares", "type": ["null", {"type": "array", "items": "double"}]},
    {"name": "mixed", "type": ["null", "long", "string"]},
    {"name": "odd", "type": ["null", {"type": "array", "items": ["double", "bytes", FIELDS["opened_on"]]}]},
]
SCHEMA = {
    "type": "record",
    "name": "Root",
    "fields": [*({"name": name, "type": ["null", of]} for name, of in FIELDS.items()), *NESTED],
}


FIRST = {
    "id": "a1", "received_at": at("2019-03-01 10:00:00.123456"), "loaded_at": at("2019-03-01 11:00:00"),
    "user_id": "u1", "event": "email_opened", "event_text": "Email Opened", "transactional": True, "score": 3,
    "ratio": 0.5, "price": Decimal("12.50"), "big": Decimal("0.1"), "original_timestamp": "2019-03-01T09:59:59.5",
    "seen_at": "2019-03-01 10:00:00", "opened_on": date(2019, 3, 1), "opened_at": time(10, 0, 0, 500000),
    "closed_on": "2019-03-02", "token": UUID(int=1), "checked_at": at("2019-03-01 10:00:00.123"),
    "local_at": at("2019-03-01 10:00:00").replace(tzinfo=None),
    "plan": "pro", "raw": b"caf\xc3\xa9 \xff", "_empty": None, "mixed": 7,
    "links": [{"url": "https://example.com/\u00e9", "cost": Decimal("0.10"), "at": at("2019-03-01 10:00:00")}, {}],
    "first_link": {"url": "x"}, "counts": {"b": 2, "a": 1}, "shares": [0.5],
    "odd": [0.5, b"\xff", date(2019, 3, 1)],
}  # fmt: skip
EXPECTED: Row = {
    "id": "a1", "received_at": at("2019-03-01 10:00:00.123456"), "user_id": "u1", "event": "email_opened",
    "event_text": "Email Opened", "transactional": True, "score": 3, "ratio": 0.5, "price": 12.5, "big": 0.1,
    "original_timestamp": at("2019-03-01 09:59:59.5"), "seen_at": at("2019-03-01 10:00:00"), "opened_on": "2019-03-01",
    "opened_at": "10:00:00.500000", "closed_on": "2019-03-02", "token": "00000000-0000-0000-0000-000000000001",
    "checked_at": at("2019-03-01 10:00:00.123"), "local_at": at("2019-03-01 10:00:00"), "plan": "pro",
    "raw": "caf\u00e9 \\xff", "mixed": "7",
    "links": '[{"url":"https://example.com/\u00e9","cost":0.100000000,"at":"2019-03-01T10:00:00.000000Z"},'
             '{"url":null,"cost":null,"at":null}]',
    "first_link": '{"url":"x","cost":null,"at":null}', "counts": '{"b":2,"a":1}',
    "shares": "[0.5]",
    "odd": r'[0.5,"\\xff","2019-03-01"]',
}  # fmt: skip


def write(path: str, *records: dict[str, Any], schema: Any = SCHEMA) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as out:
        fastavro.writer(out, schema, records, codec="deflate")
    return file


def test_avro_of_bigquery_becomes_the_rows_that_it_has(call: Call) -> None:
    nothing = {"id": "a2", "received_at": at("2019-03-01"), "links": [{"at": at("0001-01-01")}], "mixed": "seven"}
    nothing["shares"] = [float("nan"), float("-inf"), float("inf")]
    write("unload/email_opened-000000000000.avro", FIRST, nothing)
    write("unload/email_opened-000000000001.avro")
    said = call("adopt", "unload")
    assert said.status == 0, said.err
    assert rows(Path("autopilot.duckdb"), "email_opened") == [
        EXPECTED,
        {
            "id": "a2",
            "received_at": at("2019-03-01"),
            "event": "email_opened",
            "links": '[{"url":null,"cost":null,"at":"0001-01-01T00:00:00.000000Z"}]',
            "mixed": "seven",
        },
    ]
    [discarded] = rows(Path("autopilot.duckdb"), "_discards")
    names = ("table_name", "row_id", "column_name", "value", "reason")
    assert tuple(discarded[name] for name in names) == (
        "email_opened", "a2", "shares", "[NaN,-Infinity,Infinity]", "not_a_number",
    )  # fmt: skip
    assert call("adopt", "unload", "--verify").status == 0


def test_records_are_read_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avro, "RECORDS_AT_ONCE", 10)
    path = write("email_opened.avro", *(FIRST | {"id": f"n{number}"} for number in range(21)))
    file = TableFile(str(path), "1", path.stat().st_size, "email_opened", "avro", str(path))
    with path.open("rb") as opened, avro.opened_avro(opened, file) as table:
        assert [len(batch) for batch in table.rows] == [10, 10, 1]


@pytest.mark.parametrize(
    ("kept", "why"),
    [
        (2, "ValueError: cannot read header - is it an avro file?"),
        (-9, "ValueError: expected sync marker not found"),
        (-100, "EOFError: Expected "),
    ],
)
def test_a_file_that_is_not_whole_is_said(call: Call, kept: int, why: str) -> None:
    file = write("unload/email_opened.avro", *[FIRST | {"id": f"c{number}"} for number in range(500)])
    file.write_bytes(file.read_bytes()[:kept])
    said = call("adopt", "unload")
    assert said.status == 1
    where = str(file.absolute())
    assert f"Expected avro in {where}, but it cannot be read: {why}" in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(("library", "packed"), [("fastavro", ""), ("cramjam", " with Snappy")])
def test_a_library_that_is_missing_is_named_with_what_installs_it(
    call: Call, monkeypatch: pytest.MonkeyPatch, library: str, packed: str
) -> None:
    file = write("unload/email_opened.avro", FIRST)
    if packed:
        file.write_bytes(file.read_bytes().replace(b"\x0edeflate", b"\x0csnappy"))
    monkeypatch.setattr(avro, "find_spec", lambda name: None if name == library else object())
    said = call("adopt", "unload")
    assert said.status == 1
    where = str(file.absolute())
    assert f"Expected a library that reads Avro{packed} for {where}, but {library} is not installed." in said.err
    assert "[avro]', or export the table as Parquet." in said.err
