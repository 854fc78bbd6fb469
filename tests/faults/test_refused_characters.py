"""Where PostgreSQL's encoding is not UTF-8, only messages with characters that it lacks are rejected, at once.

The contract is docs/contract/warehouse.md#limits.
"""

from collections import Counter
from contextlib import closing
from pathlib import Path

import dlt
import psycopg2
import pyarrow as pa
import pytest

import autopilothq
from autopilothq import runner
from autopilothq.sources import isolate
from autopilothq.sources.unfit import lacking_of, unfit_rows
from autopilothq.warehouses.dataset import lacking_characters, open_dataset, sql_schema
from autopilothq.warehouses.postgres import postgres as postgres_destination
from autopilothq.warehouses.postgres_copies import PostgresCopyJob
from faults.loads import assert_same, assert_sound, content, file, in_memory, pipeline, track
from faults.test_refused import identify, rejects
from servers import Postgres, ask

# EUC_JIS_2004 has U+309A only after some kana, and PostgreSQL's EUC_JP has U+FF5E where Python's has U+301C.
TEXTS = [
    None, "plain", "é", "Яё", "か", "か\u309a", "か\u309a\u309a", "漢字", "한글", "€", "é→", "\uff5e\u301c",
    "e\u0301", "😀",
]  # fmt: skip
# The character that is named, by the number of the text that the encoding cannot hold.
LACKED: dict[str, dict[int, str]] = {
    "EUC_JP": {5: "309A", 6: "309A", 8: "D55C", 9: "20AC", 11: "301C", 12: "0301", 13: "1F600"},
    "EUC_JIS_2004": {6: "309A", 8: "D55C", 13: "1F600"},
    "EUC_KR": {2: "00E9", 5: "309A", 6: "309A", 10: "00E9", 11: "301C", 12: "0301", 13: "1F600"},
    "LATIN1": {3: "042F", 4: "304B", 5: "304B", 6: "304B", 7: "6F22", 8: "D55C", 9: "20AC", 10: "2192", 11: "FF5E",
               12: "0301", 13: "1F600"},
    "WIN1251": {2: "00E9", 4: "304B", 5: "304B", 6: "304B", 7: "6F22", 8: "D55C", 10: "00E9", 11: "FF5E", 12: "0301",
                13: "1F600"},
    "SQL_ASCII": {},
}  # fmt: skip


@pytest.mark.parametrize("encoding", LACKED)
def test_the_server_tells_what_its_encoding_lacks(
    tmp_path: Path, postgresql: Postgres, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setattr(sql_schema, "UNITS_PER_STATEMENT", 7)
    with postgresql.database(encoding) as url:
        dataset = open_dataset(pipeline(tmp_path, postgres_destination(url)))
        lacking = lacking_of(dataset, [[text for text in TEXTS if text]])
        assert lacking is not None
        found = unfit_rows([pa.table({"a": TEXTS[:4]}), pa.table({"b": TEXTS[4:]})], lacking)
        assert found == {row: f"its encoding {encoding} lacks U+{of}" for row, of in LACKED[encoding].items()}
        assert set(found) == refused_by(url)


def refused_by(url: str) -> set[int]:
    """Returns the numbers of TEXTS that a table of the database refuses."""
    refused = set()
    with closing(psycopg2.connect(url, client_encoding="UTF8")) as server, server.cursor() as cursor:
        server.autocommit = True
        cursor.execute("CREATE TABLE t (a text)")
        for row, text in enumerate(TEXTS):
            try:
                cursor.execute("INSERT INTO t VALUES (%s)", (text,))
            except psycopg2.errors.UntranslatableCharacter:
                refused.add(row)
    return refused


def test_a_database_without_its_language_cannot_tell(tmp_path: Path, postgres: str) -> None:
    dataset = open_dataset(pipeline(tmp_path, postgres_destination(postgres)))
    assert lacking_characters(dataset, []) == ("UTF8", set())
    ask(postgres, "DROP EXTENSION plpgsql")
    assert lacking_characters(dataset, ["é"]) is None
    assert lacking_characters(open_dataset(pipeline(tmp_path / "files", in_memory())), ["é"]) is None


def test_a_load_goes_on_without_messages_that_an_encoding_cannot_hold(
    tmp_path: Path, postgresql: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are found without loads in parts and without more than one retry."""
    tries, run, warnings = Counter[str](), PostgresCopyJob.run, list[str]()

    def counted(job: PostgresCopyJob) -> None:
        tries[job.load_table_name] += 1
        run(job)

    def noted(_: dlt.Pipeline, text: str) -> None:
        warnings.append(text)

    monkeypatch.setattr(PostgresCopyJob, "run", counted)
    monkeypatch.setattr(isolate, "_load", pytest.fail)
    monkeypatch.setattr(runner, "_warn", noted)
    bad = {
        "한": track(0, messageId="한"),
        "m-1": track(1, userId="한"),
        "m-2": track(2, properties={"note": "漢字 😀"}),
        "i-3": identify(3, "a", name="한"),
    }
    odd = track(4, messageId="m-4", properties={"transactional": "한", "한": 1})
    good = [odd, track(5, properties={"note": "漢字 é"}), identify(6, "a", name="か"), b"[\xed\x95\x9c"]
    path = file(tmp_path / "archive", "1.gz", [*bad.values(), *good])
    reports: list[autopilothq.LoadReport] = []
    with postgresql.database("EUC_JP") as url:
        into = pipeline(tmp_path, postgres_destination(url))
        runner.run(into, autopilothq.archive(str(tmp_path / "archive"), progress=reports.append))
        tables = content(f"{url}?client_encoding=utf8")
    assert (reports[-1].stored, reports[-1].rejects) == (3, {"unreadable": 4, "not_json": 1})
    assert sorted(warnings) == [
        f"The destination refuses {rows} of {table}: EUC_JP, its encoding, lacks characters."
        for rows, table in (("1 row", "identifies"), ("2 rows", "tracks"), ("3 rows", "email_opened"))
    ]
    assert max(tries.values()) == 2
    del tables["_locks"]
    assert_sound(tables)
    # A message has rows in two tables, and the reason may name either.
    named = {id_: (*at, why.replace(" email_opened ", " tracks ")) for id_, (*at, why) in rejects(tables).items()}
    why = "its row of {} is refused by the destination: its encoding EUC_JP lacks U+{}"
    assert named == {
        "한": (str(path), 1, why.format("tracks", "D55C")),
        "m-1": (str(path), 2, why.format("tracks", "D55C")),
        "m-2": (str(path), 3, why.format("tracks", "1F600")),
        "i-3": (str(path), 4, why.format("identifies", "D55C")),
    }
    assert [row["raw"] for row in tables["_rejects"].dicts() if row["reason"] == "not_json"] == [r"[\uD55C"]
    assert {(row["row_id"], row["column_name"], row["value"]) for row in tables["_discards"].dicts()} == {
        ("m-4", "transactional", r'"\uD55C"'),
        ("m-4", r"properties.\uD55C", "1"),
    }
    # Everything else is as if the bad lines had never existed.
    file(tmp_path / "good", "1.gz", good)
    database = in_memory()
    runner.run(pipeline(tmp_path / "expected", database), autopilothq.archive(str(tmp_path / "good")))
    assert_same(tables, content(database), but=["_audit", "_rejects", "_discards"])
