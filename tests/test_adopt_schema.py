"""Before it reads rows, `adopt` prints which columns and types will differ, for every format."""

import gzip
import json
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from adopted import exported
from autopilothq.catalog import Type
from autopilothq.projection import engine
from autopilothq.sources.adopt.columns import Form
from autopilothq.sources.adopt.csv_dialect import first_csv_rows
from autopilothq.sources.adopt.first_rows import FIRST_ROWS, _first_batches, _first_lines
from autopilothq.sources.adopt.origin import AdoptedTables
from autopilothq.sources.adopt.schema import AdoptedColumn, _type_of_form, read_adopted_schema
from calling import Call
from contract.loading import message, write
from servers import S3
from test_adopt_avro import FIRST
from test_adopt_avro import write as write_avro

COLUMNS: dict[str, dict[str, tuple[str, bool, str | None, Type]]] = {
    "email_opened": {"received_at": ("TIMESTAMP", False, "received_at", "timestamp"),
                     "score": ("BIGINT", False, "score", "bigint"), "uuid": ("BIGINT", False, None, "text")},
    "email_clicked": {"clicks": ("DECIMAL(38,0)", False, "clicks", "bigint"),
                      "seen_at": ("TIMESTAMPTZ", True, "seen_at", "timestamp")},
    "email_bounced": {"code": ("BIGINT", True, "code", "text"), "parts": ("JSON", False, "parts", "text"),
                      "soft": ("BOOLEAN", False, "soft", "bool")},
    "email_delivered": {"price": ("DECIMAL", False, "price", "double"),
                        "opened_on": ("DATE", False, "opened_on", "text"),
                        "_empty": ("BIGINT", False, "_empty", "bigint")},
    "identifies": {"seats": ("BIGINT", True, "seats", "bigint"), "zip": ("VARCHAR", True, "zip", "text"),
                   "since": ("TIMESTAMPTZ", True, "since", "timestamp")},
    "pages": {"seats": ("BIGINT", True, "seats", "bigint")},
}  # fmt: skip


def test_columns_and_types_are_known_of_every_form_here_and_in_a_bucket(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.credentials.items():
        monkeypatch.setenv(f"SOURCES__AUTOPILOTHQ__CREDENTIALS__{name.upper()}", value)
    folder = exported(Path("unload"))
    write_avro("unload/email_delivered-000000000000.avro", FIRST)
    (folder / "pages_000.csv").write_text("")  # exporters leave empty files
    (folder / "pages_001.csv.gz").write_bytes(gzip.compress(b"id,seats\np1,3\n"))
    bucket = s3.bucket()
    fsspec.filesystem("s3", **s3.storage_options).put("unload/", f"{bucket}/unload/", recursive=True)

    here = read_adopted_schema(AdoptedTables(("unload",)))
    there = read_adopted_schema(AdoptedTables((f"{bucket}/unload",)))
    assert here == there
    assert here.tables.keys() == COLUMNS.keys() | {"tracks", "users", "accounts"}
    for table, columns in COLUMNS.items():
        assert {name: here.tables[table][name] for name in columns} == {
            name: AdoptedColumn(*column) for name, column in columns.items()
        }


STORED = {"seats": 3, "code": "a", "share": 1.5, "paid": True, "at": "2019-03-04T05:06:07Z", "place": "x", "new": 1}
JSON = {
    "id": "j",
    "seats": "many",
    "code": 5,
    "share": "7",
    "paid": "true",
    "at": "2019-03-04 05:06:07 UTC",
    "place": [],
}
CSV = "id,seats,code,share,paid,at,place\nc,3,7,2,t,yesterday,\n"
AVRO = {"id": "string", "seats": "double", "code": "string", "share": {"type": "int", "logicalType": "date"}}
SAID = """\
breaks queries:
  type VARCHAR -> TIMESTAMP WITH TIME ZONE: comparisons fail or mean something else; cast it in the queries
    email_clicked: at
  type DATE -> DOUBLE: comparisons fail or mean something else; cast it in the queries
    email_delivered: share
  type VARCHAR -> BIGINT: comparisons fail or mean something else; cast it in the queries
    email_opened: seats
  type BIGINT -> VARCHAR: comparisons fail or mean something else; cast it in the queries
    email_opened: code
  type JSON -> VARCHAR: comparisons fail or mean something else; cast it in the queries
    email_opened: place

breaks nothing:
  type DOUBLE -> BIGINT: numbers compare as before, but one of the two rounds them beyond 15 digits
    email_delivered: seats

For queries of these tables: 5 differences break some, 1 does not.
"""


def test_what_differs_from_the_stored_types_is_said_before_anything_is_read(call: Call) -> None:
    events = ("Email Opened", "Email Clicked", "Email Delivered")
    write("m.jsonl", *(message(event, messageId=event, properties=STORED) for event in events))
    assert call("load", "archive", "archive").status == 0
    Path("unload").mkdir()
    Path("unload/email_opened.json").write_text(json.dumps(JSON))
    Path("unload/email_clicked.csv").write_text(CSV)
    for table in ("own", "identifies"):  # `uuid_ts` is missing in both, but each load adds it
        Path(f"unload/{table}.csv").write_text("id,uuid_ts\na,2019-03-04 05:06:07\n")
    fields = [{"name": name, "type": ["null", of]} for name, of in AVRO.items()]
    write_avro("unload/email_delivered.avro", {"id": "a"}, schema={"type": "record", "name": "Root", "fields": fields})
    said = call("adopt", "unload", "--dry-run")
    assert said.status == 0
    assert said.err[: len(SAID)] == SAID


def test_a_new_table_has_the_columns_that_all_tables_of_events_have(call: Call) -> None:
    Path("unload").mkdir()
    time = "2019-03-04 05:06:07"
    row = {"id": "a", "received_at": time, "uuid_ts": time, "timestamp": time, "campaign_id": 5, "transactional": "t"}
    Path("unload/order_done.csv").write_text(f"{','.join(row)}\n{','.join(map(str, row.values()))}\n")
    assert call("adopt", "unload", "--dry-run").err.startswith("No differences affect queries of these tables.\n")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (b"a\nb\nc", b"a\nb\nc"),
        (b"aaa\nbbb\nccc\nddd", b"aaa\nbbb\n"),
        (b"a line of more than ten\nand another", b"a line of more than ten\n"),
        (b'"\\""\nb\nccc\ndd', b'"\\""\nb\n'),  # JSON, in which a backslash stands before a quote
    ],
)
def test_the_first_lines_are_whole(text: bytes, kept: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autopilothq.sources.adopt.first_rows.FIRST_BYTES", 10)
    for size in (1, 4, 100):
        assert _first_lines(iter([text[at : at + size] for at in range(0, len(text), size)])) == kept


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (b'aaa\n"b\nb"\nccc', b'aaa\n"b\nb"\n'),
        (b'aaa\n"bb\nb"\nccc', b"aaa\n"),
        (b'"a text\nof more\nthan ten", x\nand another', b'"a text\nof more\nthan ten", x\n'),
        (b"'a text\nof more', x\n'y', z\n", b"'a text\nof more', x\n"),
    ],
)
def test_the_first_rows_of_csv_are_whole(text: bytes, kept: bytes, tmp_path: Path) -> None:
    with engine.connect(None, 200, 1) as con:
        for size in (1, 4):
            chunks = (text[at : at + size] for at in range(0, len(text), size))
            assert first_csv_rows(con, chunks, 10, tmp_path / "piece.csv")[0] == kept


@pytest.mark.parametrize(("most", "kept"), [(1 << 20, [800, 800, 400]), (8_000, [800, 800]), (6_400, [800])])
def test_the_first_rows_end_with_their_number_or_their_bytes(
    most: int, kept: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autopilothq.sources.adopt.first_rows.BYTES_AT_ONCE", most)
    batch = pa.RecordBatch.from_pydict({"n": list(range(800))})  # 8 bytes each
    assert [len(rows) for rows in _first_batches([batch] * 9)] == kept
    whole = pa.RecordBatch.from_pydict({"n": list(range(FIRST_ROWS))})
    assert list(_first_batches([whole, batch])) == [whole]


@pytest.mark.parametrize(
    ("form", "type_", "becomes"),
    [
        ("json", "numeric", "double"), ("json", "DECIMAL(38,2)", "double"), ("json", "UBIGINT", "double"),
        ("json", "DECIMAL(4,2)[]", "text"), ("json", "jsonb", "text"), ("loose", "VARCHAR", "text"),
        ("timestamp", "timestamp with time zone", "timestamp"),
    ],
)  # fmt: skip
def test_numbers_of_a_database_become_numbers(form: Form, type_: str, becomes: Type) -> None:
    assert _type_of_form(form, type_) == becomes
