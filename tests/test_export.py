"""The files of an `export` make the same tables again."""

import errno
import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autopilothq import sample
from autopilothq.export import ExportFolder, archive, export_archive
from autopilothq.export.archive import LEFT_OUT_REASONS
from autopilothq.inspect import reading
from autopilothq.projection.types import ARROW
from autopilothq.warehouses.dataset import NativeType, count_shared
from contract import generated
from contract.duck import held
from contract.loading import Line, Row, Store, message, raw, to_line, write
from full_disk import files_up_to
from servers import S3, ask
from shared_loads import command, isolation
from test_forward import EVENTS, LINES

# Columns that belong to the load itself.
OF_THE_LOAD = {"uuid_ts", "discarded_at"}
PLACES = {"id", "file", "line", "rejected_at"}


class StoredTables:
    """Presents a store as the dataset that an export reads."""

    kind = dialect = "duckdb"

    def __init__(self, store: Store) -> None:
        self.store = store

    def columns(self) -> dict[str, dict[str, NativeType]]:
        return {
            name: {column: NativeType(of, of) for column, of in types.items()}
            for name, types in self.store.types.items()
        }

    def tables(self, names: Sequence[str]) -> dict[str, Any]:
        """Returns the types of columns; as in warehouses, those that the contract does not have are left out."""
        return {
            name: {column: of for column, of in self.store.types[name].items() if of in ARROW}
            for name in names
            if name in self.store.types
        }

    def views(self) -> set[str]:
        return set()

    def read(self, table: str, columns: Sequence[str], _: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        return self.store._read(table, columns)

    def rows(self, select: str, table: str, group: str) -> list[tuple[Any, ...]]:
        assert (select, group) == ("{event}, count(*)", "GROUP BY {event}")
        return list(Counter(row["event"] for row in self.store.rows[table].values()).items())

    def count_shared(self, table: str, by: str, others: Sequence[str]) -> dict[Any, int]:
        ids = {row["id"] for other in others for row in self.store.rows[other].values()}
        return Counter(row[by] for row in self.store.rows[table].values() if row["id"] in ids)


def exported(store: Store, folder: Path) -> list[bytes]:
    """Returns the lines that an export of a store writes."""
    with pytest.MonkeyPatch.context() as patch, ExportFolder(folder) as files:
        patch.setattr(archive, "count_shared", lambda dataset, *asked: dataset.count_shared(*asked))
        export_archive(StoredTables(store), files)  # type: ignore[arg-type]
    return [
        line for file in sorted(folder.rglob("*.gz")) for line in gzip.decompress(file.read_bytes()).splitlines(True)
    ]


def shown(store: Store) -> dict[str, list[str]]:
    """Returns the rows of all tables without the load's own columns, and the types of their columns."""
    found = {name: sorted(map(_shown, rows)) for name, rows in store.tables().items() if name != "_rejects"}
    found["_rejects"] = sorted(
        _shown({key: cell for key, cell in row.items() if key not in PLACES})
        for row in store.tables().get("_rejects", [])
        if row["reason"] not in LEFT_OUT_REASONS
    )
    # No message has the columns of tables without rows, such as `users` if all identifies are duplicates.
    types = [
        f"{name}.{column} {of}"
        for name, types in store.types.items()
        if found.get(name)
        for column, of in types.items()
    ]
    return {name: rows for name, rows in found.items() if rows} | {"types": sorted(types)}


def _shown(row: Row) -> str:
    return ", ".join(
        f"{key}: {cell!r}" for key, cell in sorted(row.items()) if cell is not None and key not in OF_THE_LOAD
    )


def differences(lines: Sequence[Line], folder: Path) -> list[str]:
    """Returns the rows and types in which the tables after an export and a load differ from the original ones."""
    store, again = Store(), Store()
    store.run([line for line in lines if to_line(line).strip()])
    texts = exported(store, folder)
    again.run([text.rstrip(b"\n") for text in texts])
    before, after = shown(store), shown(again)
    return [
        f"{sign} {name}: {row}"
        for name in sorted(before.keys() | after.keys())
        for sign, mine, other in (("-", before, after), ("+", after, before))
        for row in sorted(set(mine.get(name, [])) - set(other.get(name, [])))
    ]


@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(generated.messages(st.integers(1, 99).map('"{}"'.format)), min_size=50, max_size=90))
def test_messages_make_the_same_tables_again(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    found = differences(lines, tmp_path_factory.mktemp("out"))
    assert found == []


@pytest.mark.parametrize(("of", "exported_as"), [("date", {}), ("text", {"receivedAt": "4 March 2019"})])
def test_a_time_of_receipt_whose_type_somebody_changed(tmp_path: Path, of: Any, exported_as: dict[str, str]) -> None:
    store = Store()
    screen = message(None, type="screen", name="Home", event=..., timestamp="2019-03-04T05:06:07.000Z")
    store.run([screen])
    store.types["screens"]["received_at"] = of
    store.rows["screens"]["m1"]["received_at"] = "4 March 2019"
    [line] = exported(store, tmp_path / "out")
    del screen["receivedAt"]
    assert json.loads(line) == screen | exported_as


def test_what_a_limit_had_no_room_for_finds_room_where_there_is_some(tmp_path: Path) -> None:
    store, again = Store(max_event_tables=0), Store()
    store.run([message("Seats Changed", messageId="s1", properties={"seats": 3, "by": {"name": "Ada"}})])
    assert "seats_changed" not in store.rows
    again.run([line.rstrip(b"\n") for line in exported(store, tmp_path / "out")])
    [row] = again.tables()["seats_changed"]
    assert (row["id"], row["event_text"], row["seats"], row["by_name"]) == ("s1", "Seats Changed", 3, "Ada")


def test_a_second_body_or_context_of_a_message_makes_no_column(tmp_path: Path) -> None:
    twice = '{"a":"b"},"properties":{"second":"c"},"context":{"ip":"d"},"context":{"second":"e"}'
    found = differences([raw(message("Seats Changed", messageId="s1", properties="$p"), p=twice)], tmp_path / "out")
    assert [text for text in found if "_discards" not in text] == []


# ---- whole loads -----------------------------------------------------------------------------------------------------

ODD = [
    *LINES,
    *EVENTS,
    message("名前", messageId="no-table", properties={"a": 1, "b": ["x"]}),
    message(messageId="unfit", properties={"transactional": "maybe", "n": 1, "名": 2, "in": {"é": [1.5], "b": "2"}}),
    raw(message(messageId="twice", properties="$p"), p='{"linkURL":"first","link_url":"second","Link Url":"third"}'),
    message(messageId="late", receivedAt="yesterday", sentAt="2019-03-04T05:06:07Z", timestamp="tomorrow"),
    message("Seats Changed", messageId="s1", properties={"seats": 3, "share": 2.0, "at": "2019-03-04T05:06:07+01:00"}),
    message("Seats Changed", messageId="s2", properties={"seats": "many", "share": 1, "at": "2019-03-04T05:06:07.25Z"}),
    raw(message(messageId="texts", userId="[1]", event="[2]", context="$c"), c='{"traits":"x","traits_email":"a@b.c"}'),
    raw(message(messageId="nul", properties="$p", context="$c"), p='{"a":"\\u0000"}', c='{"ip":"\\ud800"}'),
    {"type": "delete", "userId": "u1"},
    '{"type":"track",',
]  # fmt: skip
SAMPLE, REJECTED = 300, 2
MESSAGES = SAMPLE - 1 + len(ODD) - REJECTED  # the sample has one duplicate
CHANGED = {  # differs in each load
    "_discards": {"discarded_at"},
    "_rejects": {"id", "file", "line", "rejected_at"},
    "_audit": {"file", "version", "size", "lines", "stored", "duplicates", "rejected", "first_received_at",
               "last_received_at", "load_id", "loaded_at"},
}  # fmt: skip


def tables_of(folder: Path) -> dict[str, tuple[dict[str, str], list[Row]]]:
    """Returns the columns with their types and the rows of all tables of an export to Parquet."""
    found = {}
    for file in sorted(folder.glob("*.parquet")):
        table = pq.read_table(file)
        kept = [name for name in table.column_names if name not in CHANGED.get(file.stem, set()) | {"uuid_ts"}]
        rows = sorted(table.select(kept).to_pylist(), key=repr) if file.stem != "_audit" else []
        found[file.stem] = ({name: str(table.schema.field(name).type) for name in table.column_names}, rows)
    return found


@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
def test_a_dataset_that_was_exported_and_loaded_has_the_same_tables(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = "out" if kind == "duckdb" else f"{s3.bucket()}/some/out"
    with isolation(tmp_path):
        for name, value in s3.credentials.items():
            monkeypatch.setenv(f"SOURCES__AUTOPILOTHQ__CREDENTIALS__{name.upper()}", value)
        url = request.getfixturevalue("postgres") if kind == "postgres" else "events.duckdb"
        target = ["--destination", kind, "--credentials", url]
        sample.write("archive", events=SAMPLE)
        write("odd.jsonl", *ODD)  # type: ignore[arg-type]
        with nullcontext() if kind == "postgres" else held(url):
            assert command("load", "archive", "archive", *target).status == 0

        with reading(kind, url) as dataset:
            of: dict[str, int] = dict(dataset.rows("{event}, count(*)", "tracks", "GROUP BY {event}"))
            some = ["email_opened", "seats_changed"]
            assert count_shared(dataset, "tracks", "event", some) == {event: of[event] for event in some}

        for form in ("archive", "parquet"):
            with files_up_to(2_000):
                said = command("export", f"full-{form}", "--format", form, *target)
            assert (said.status, said.err) == (1, f"Error: Cannot write to full-{form}: File too large.\n")
        no_room = OSError(errno.ENOSPC, "No space left on device")  # of stdout, not of the export
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("autopilothq.cli.out.print_line", Mock(side_effect=no_room))
            told = (
                f"Error: {no_room}\nMake room on the disk of the output, of dlt's folder (DLT_DATA_DIR, else ~/.dlt, or"
                " /var/dlt for root), "
            )
            assert (
                command("export", "untold", *target).err
                == f"{told}or of temporary files (TMPDIR), then run it again.\n"
            )

        said = command("export", out, *target)
        assert (said.status, said.err) == (0, "")
        assert said.out == f"{out}: {MESSAGES} messages, {REJECTED} rejected lines, 9 files\n"
        with nullcontext() if kind == "postgres" else held(url):
            assert command("load", "archive", out, *target, "--dataset", "again").status == 0

        for name in ("autopilothq", "again"):
            assert command("export", name, "--format", "parquet", *target, "--dataset", name).status == 0
        before, after = tables_of(Path("autopilothq")), tables_of(Path("again"))
        assert before.keys() == after.keys()
        for name, found in before.items():
            assert after[name] == found, name
        assert len(before) > 20


OF_DUCKDB = (
    "marks INTEGER[] DEFAULT [1, 2]",
    "made TIMESTAMP_NS DEFAULT '2019-03-01 00:00:00.123456789'",
    "bits BIT DEFAULT '101'",
    f"many BIGNUM DEFAULT '{'9' * 30}'",
    "far TIMESTAMP[] DEFAULT [TIMESTAMP '294247-01-01']",
    "span INTERVAL DEFAULT '1 month'",
    "box STRUCT(a INTEGER) DEFAULT {'a': 1}",
)
"""Columns of types that neither the contract nor Arrow has, except the second."""


EXACT = {
    "duckdb": {
        "HUGEINT": "170141183460469231731687303715884105727",
        "UHUGEINT": "340282366920938463463374607431768211455",
        "UBIGINT": "18446744073709551615",
        "USMALLINT": "7",
        "BIGNUM": "9" * 30,
        "DECIMAL(38,20)": "0.12345678901234567890",
        "DECIMAL(4,2)": "1.5",
        "FLOAT": "0.1",
    },
    "postgres": {
        "numeric": "12345678901234567890.12",
        "numeric(9,2)": "1.5",
        "real": "0.1",
        "decimal": f"1{'0' * 400}",
    },
}
"""Numbers of types that the contract lacks, or that its types cannot hold: an archive has all their digits."""
UNFIT = {
    "duckdb": (
        ("TIMESTAMP_NS", "infinity", "a time of the years 1 to 9999", "archive"),
        ("HUGEINT", "9223372036854775808", "an integer of at most 64 bits", "parquet"),
    ),
    "postgres": (
        ("timestamptz", "infinity", "a time of the years 1 to 9999", "archive"),
        ("timestamp", "0001-12-31 23:59:59.999999 BC", "a time of the years 1 to 9999", "parquet"),
    ),
}
"""Values of a column that no message can have, or no Parquet: nothing is exported in their place."""


def in_duckdb(file: str, statements: str) -> None:
    with duckdb.connect(file) as con:
        con.execute(statements)


def check_odd_values(kind: str, target: Sequence[str], execute: Callable[[str], Any]) -> None:
    """Checks what exports make of values in columns that somebody added to `identifies`."""
    alter = "ALTER TABLE autopilothq.identifies"
    columns = [f"n{number} {of} DEFAULT '{value}'" for number, (of, value) in enumerate(EXACT[kind].items())]
    columns.append("last timestamptz DEFAULT '9999-12-31 23:59:59.999999+00'")
    execute("; ".join(f"{alter} ADD COLUMN {column}" for column in columns))
    said = command("export", f"{kind}-exact", *target)
    assert (said.status, said.err) == (0, "")
    [file] = Path(f"{kind}-exact").rglob("*.gz")
    exact = gzip.decompress(file.read_bytes()).decode()
    for number, value in enumerate(EXACT[kind].values()):
        assert re.search(rf'"n{number}":{re.escape(value)}[,}}]', exact)
    assert '"last":"9999-12-31T23:59:59.999999Z"' in exact
    execute("; ".join(f"{alter} DROP COLUMN {column.partition(' ')[0]}" for column in columns))
    for of, value, expected, form in UNFIT[kind]:
        execute(f"{alter} ADD COLUMN odd {of} DEFAULT '{value}'")
        said = command("export", f"{kind}-odd", "--format", form, *target)
        told = rf'Error: Expected {expected} in the column odd of [".a-z]*identifies"?, but got {value}\.\nChange this '
        assert (said.status, bool(re.match(told, said.err))) == (1, True)
        execute(f"{alter} DROP COLUMN odd")


def test_own_tables_are_exported_with_names_of_mixed_case(tmp_path: Path, postgres: str) -> None:
    own = (
        'CREATE TABLE autopilothq."MyShoes" ("ShoeSize" integer, name text)',
        "INSERT INTO autopilothq.\"MyShoes\" VALUES (43, 'brogue')",
    )
    # PostgreSQL distinguishes names that differ only in case, and so does the export.
    twins = (
        'CREATE TABLE autopilothq.myshoes (name integer, "Name" text, worn real, marks integer[], size char(4))',
        "INSERT INTO autopilothq.myshoes VALUES (7, 'x', 1.5, '{1,2}', ' 9')",
        'ALTER TABLE autopilothq.tracks ADD COLUMN "Own Col" integer',
    )
    with isolation(tmp_path):
        write("1.jsonl", LINES[0])
        for kind, url in (("duckdb", "events.duckdb"), ("postgres", postgres)):
            target = ("--destination", kind, "--credentials", url)
            assert command("load", "archive", "archive", *target).status == 0
            if kind == "duckdb":
                wider = (f"ALTER TABLE autopilothq.MyShoes ADD COLUMN {column}" for column in OF_DUCKDB)
                in_duckdb(url, "; ".join((*own, *wider)))
            else:
                ask(url, "; ".join((*own, *twins)))
            said = command("export", kind, "--format", "parquet", *target)
            left_out = "" if kind == "duckdb" else "Warning: Not exported: myshoes: Name\n"
            assert (said.status, said.err) == (0, left_out)
            check_odd_values(kind, target, partial(ask if kind == "postgres" else in_duckdb, url))
        shoes = [{"shoesize": 43, "name": "brogue"}]
        assert pq.read_table("duckdb/myshoes.parquet").to_pylist() == [
            shoes[0]
            | {"marks": "[1, 2]", "made": datetime(2019, 3, 1, microsecond=123456, tzinfo=UTC), "bits": "101"}
            | {"far": "['294247-01-01 00:00:00']", "many": "9" * 30, "span": "1 month", "box": "{'a': 1}"}
        ]
        assert pq.read_table("postgres/MyShoes.parquet").to_pylist() == shoes
        assert pq.read_table("postgres/myshoes.parquet").to_pylist() == [
            {"name": 7, "worn": "1.5", "marks": "[1, 2]", "size": " 9"}
        ]
        assert "own col" in pq.read_schema("postgres/tracks.parquet").names
