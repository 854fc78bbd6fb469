"""Which rows an export takes from handmade tables, and what it reports as left out."""

import gzip
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autopilothq.catalog import Type
from autopilothq.export import ExportFolder, archive, export_archive, export_parquet, parquet
from autopilothq.export.archive import ExportedArchive
from autopilothq.export.parquet import ExportedTables
from autopilothq.warehouses.dataset import NativeType
from autopilothq.warehouses.hints import arrow_schema

AT = datetime(1970, 1, 5, 23, 59, 59, tzinfo=UTC)
LATER = datetime(1970, 1, 6, tzinfo=UTC)
EVENT: dict[str, Type] = {"id": "text", "received_at": "timestamp", "event": "text", "event_text": "text"}
DISCARD: dict[str, Type] = dict.fromkeys(("table_name", "row_id", "column_name", "value", "reason"), "text")
REJECT: dict[str, Type] = {"rejected_at": "timestamp", "reason": "text", "raw": "text"}
Tables = Mapping[str, tuple[Mapping[str, Type], Sequence[Sequence[Any]]]]
TABLES: Tables = {
    "tracks": (
        {**EVENT, "uuid_ts": "timestamp"},
        [
            ("a1", AT, "whole", "Whole", AT), ("b1", AT, "partly", "Partly", AT), ("b2", None, "partly", "Partly", AT),
            ("b3", AT, "partly", "Partly", AT), ("c1", AT, None, "名", AT), ("c2", AT, None, "é", AT),
            ("d1", AT, "gone", "Gone", AT),
        ],
    ),
    "whole": ({**EVENT, "n": "bigint", "loaded_at": "timestamp"}, [("a1", AT, "whole", "Whole", 1, AT)]),
    "partly": (EVENT, [("b1", AT, "partly", "Partly"), (None, AT, "partly", "Odd")]),
    "never": (EVENT, []),
    "identifies": ({"id": "text", "received_at": "timestamp", "email": "text"}, [("i1", AT, "a@b.c")]),
    "users": ({"id": "text"}, [("u1",)]),
    "view": (EVENT, [("v1", AT, "view", "View")]),
    "own": ({"id": "text", "event": "text"}, [("o1", "own")]),
    "_discards": (
        DISCARD,
        [
            ("whole", "a1", "n", '"b"', "same_column"), ("whole", "a1", "n", '"a"', "same_column"),
            ("tracks", "c1", "k", "2", "not_text"), ("partly", "a1", "n", '"no"', "same_column"),
            ("whole", "a9", "n", '"no"', "same_column"),
        ],
    ),
    "_rejects": (
        REJECT,
        [
            (AT, "not_json", "{1"), (None, "not_json", "{2"), (AT, "not_json", None), (AT, "truncated", "{3"),
            (AT, "line_too_long", "{4"), (AT, "not_json", "{5"), (AT, "suppressed", None), (AT, "suppressed", ""),
        ],
    ),
}  # fmt: skip
ODD = {"whole": ["b", "a"], "users": ["shape"], "shapes": ["shape"]}
"""Columns of types that nothing reads."""


class Dataset:
    """Presents tables as the dataset that an export reads, in batches of three rows."""

    kind = "duckdb"

    def __init__(self, tables: Tables, dialect: str = "duckdb") -> None:
        self.of, self.dialect = tables, dialect

    def columns(self) -> dict[str, dict[str, NativeType]]:
        names = {name: [*self.of.get(name, ({}, ()))[0], *ODD.get(name, ())] for name in (*self.of, *ODD)}
        return {name: {column: NativeType("x", "text") for column in columns} for name, columns in names.items()}

    def views(self) -> set[str]:
        return {"view"}

    def tables(self, names: Sequence[str]) -> dict[str, Any]:
        return {name: dict(self.of[name][0]) for name in names if name in self.of}

    def read(self, table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        types, rows = self.of[table]
        cells = [dict(zip(types, row, strict=True)) for row in rows]
        yield from pa.Table.from_pylist(cells, arrow_schema(types)).select(list(columns)).to_batches(3)

    def rows(self, select: str, table: str, group: str) -> list[tuple[Any, ...]]:
        assert (select, group) == ("{event}, count(*)", "GROUP BY {event}")
        return list(Counter(row[2] for row in self.of[table][1]).items())

    def count_shared(self, table: str, by: str, others: Sequence[str]) -> dict[Any, int]:
        assert by == "event"
        ids = {row[0] for other in others for row in self.of[other][1]} - {None}
        return Counter(row[2] for row in self.of[table][1] if row[0] in ids)


def exported(dataset: Dataset, folder: Path) -> tuple[ExportedArchive, dict[str, list[str]]]:
    """Returns the output of an export, and the lines of each day."""
    with pytest.MonkeyPatch.context() as patch, ExportFolder(folder) as files:
        patch.setattr(archive, "count_shared", lambda dataset, *asked: dataset.count_shared(*asked))
        said = export_archive(dataset, files)  # type: ignore[arg-type]
    lines = {
        file.parent.name: gzip.decompress(file.read_bytes()).decode().splitlines() for file in folder.rglob("*.gz")
    }
    return said, lines


def ids(lines: Sequence[str]) -> list[str]:
    return [line if line[1:2].isdigit() else json.loads(line).get("messageId", "none") for line in lines]


def test_an_archive_has_each_message_once_and_says_what_is_left_out(tmp_path: Path) -> None:
    said, lines = exported(Dataset(TABLES), tmp_path / "out")
    assert said == ExportedArchive(
        {"tracks": 5, "whole": 1, "partly": 2, "identifies": 1}, 3, 2,
        ["whole: a, b", "_rejects: 3 lines cut off, or of no archive"],
        ["partly: 1 row with an event_text of another event, which will be rows of that event"],
    )  # fmt: skip
    assert {day: ids(of) for day, of in lines.items()} == {
        "0": ["b2", "{2"], "345600000": ["b3", "c1", "c2", "d1", "a1", "b1", "none", "i1", "{1", "{5"],
    }  # fmt: skip
    assert json.loads(lines["345600000"][1])["properties"] == {"k": 2}
    assert json.loads(lines["345600000"][4])["properties"] == {
        "n": 1, "n ": "a", "n  ": "b", "loaded_at": "1970-01-05T23:59:59.000Z",
    }  # fmt: skip


TIMES: dict[str, Type] = dict.fromkeys(("timestamp", "sent_at", "original_timestamp"), "timestamp")
PERSON: dict[str, Type] = dict.fromkeys(("user_id", "anonymous_id", "context_traits_email", "email"), "text")


LONG = "An event's name " * 9
SHORTENED = "an_event_s_name_an_event_s_nadtbzywevent_s_name_an_event_s_name"  # as PostgreSQL shortens it


def test_rows_that_no_load_makes_again_are_counted(tmp_path: Path) -> None:
    """Such as adopted rows. Values that are restored from `_discards` do not count."""
    whole = {"received_at": AT, "timestamp": AT, "user_id": "u", "event": "opened", "event_text": "Opened"}
    cells: list[dict[str, Any]] = [
        {}, {"user_id": None, "anonymous_id": "a"}, {"event": None, "event_text": "名"},
        {"user_id": None}, {"user_id": " ", "anonymous_id": "", "email": " "},
        {"user_id": None, "email": "a@b.c"}, {"user_id": "", "context_traits_email": "a@b.c"},
        {"user_id": None, "email": "x"},
        {"event_text": "Opened it"}, {"event": "con", "event_text": "C on"},
        {"event": "con_table", "event_text": "CON"}, {"event": SHORTENED, "event_text": LONG},
        {"event_text": None}, {"event_text": None, "event": None},
        {"timestamp": None}, {"received_at": None, "timestamp": None, "original_timestamp": AT}, {"received_at": None},
        {"received_at": None, "timestamp": None},
        {"timestamp": None, "id": "put back"},
    ]  # fmt: skip
    types: dict[str, Type] = {**EVENT, **TIMES, **PERSON}
    rows = [[{"id": f"m{n}", **whole, **row}.get(name) for name in types] for n, row in enumerate(cells)]
    discards = [("opened", "put back", "timestamp", '"soon"', "not_a_time"), ("opened", "m3", "n", "2", "same_column")]
    users: Tables = {
        "_audit": ({"version": "text"}, [("adopted users 1",), ("7-7",), (None,)]),
        "users": ({"id": "text"}, [("u",), ("v",), ("w",)]),
        "accounts": ({"id": "text"}, [("g",)]),
        "identifies": ({"id": "text", "received_at": "timestamp", "user_id": "text"}, [("i", AT, "u"), ("j", AT, "u")]),
    }
    said, _ = exported(Dataset({"opened": (types, rows), "_discards": (DISCARD, discards), **users}), tmp_path / "out")
    assert said.changed == [
        "opened: 2 rows without an id of the contact and without an address, which a load rejects",
        "opened: 3 rows without an id of the contact, whose address will be the anonymous_id",
        "opened: 2 rows with an event_text of another event, which will be rows of that event",
        "opened: 2 rows without an event_text, which a load takes from event",
        "opened: 3 rows without a timestamp or received_at, which a load derives from the other times",
    ]
    assert said.left_out == ["users: values that only adopted rows have; 2 rows that no message is about"]


@pytest.mark.parametrize(
    ("table", "plan", "tag", "said"),
    [
        ("users", "pro", None, []),
        ("users", "free", None, []),  # from an older message
        ("users", "gold", None, ["users: values that only adopted rows have"]),
        ("users", "pro", "x", ["users: values that only adopted rows have"]),  # in a column that no message has
        ("accounts", "gold", None, ["accounts: values that only adopted rows have"]),  # beside users, which were loaded
    ],
)
def test_adopted_values_are_told_only_where_no_message_has_them(
    table: str, plan: str, tag: str | None, said: list[str], tmp_path: Path
) -> None:
    messages, key = {"users": ("identifies", "user_id"), "accounts": ("groups", "group_id")}[table]
    text: Mapping[str, Type] = {"id": "text", "received_at": "timestamp", "plan": "text"}
    dataset = Dataset(
        {
            "_audit": ({"version": "text"}, [(f"adopted {table} 1",)]),
            "users": (text, []),
            table: (
                {**text, "tag": "text"},
                [("u", datetime(1970, 1, 6, tzinfo=UTC), plan, tag), ("v", AT, None, None)],
            ),
            messages: (
                {**text, key: "text"},
                [("i", AT, "free", "u"), ("j", AT, "pro", "u"), ("k", AT, "gold", "v")],
            ),
        }
    )
    assert exported(dataset, tmp_path / "out")[0].left_out == said


class LoadedMeanwhile(Dataset):
    """These tables while a load adds a message: a question finds its event's row, and a later one that of `tracks`."""

    def __init__(self, before: int, between: int) -> None:
        super().__init__({name: (types, list(rows)) for name, (types, rows) in TABLES.items()})
        row = ("n1", AT, "partly", "Partly")
        self.waiting = {before: ("partly", row), before + between: ("tracks", (*row, AT))}
        self.asked = 0

    def _ask(self) -> None:
        if waiting := self.waiting.get(self.asked):
            table, row = waiting
            self.of[table][1].append(row)  # type: ignore[attr-defined]
        self.asked += 1

    def read(self, table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        self._ask()
        yield from super().read(table, columns)

    def rows(self, select: str, table: str, group: str) -> list[tuple[Any, ...]]:
        self._ask()
        return super().rows(select, table, group)

    def count_shared(self, table: str, by: str, others: Sequence[str]) -> dict[Any, int]:
        self._ask()
        return super().count_shared(table, by, others)


def test_a_load_at_the_same_time_doubles_nothing_and_hides_nothing(tmp_path: Path) -> None:
    _, lines = exported(Dataset(TABLES), tmp_path / "out")
    before = sorted(itertools.chain.from_iterable(map(ids, lines.values())))
    with_it = sorted([*before, "n1"])
    found = []
    for number, between in [*((number, 1) for number in range(20)), *((number, 9) for number in range(4))]:
        said, lines = exported(LoadedMeanwhile(number, between), tmp_path / f"{number}-{between}")
        assert said.messages["tracks"] == 5
        found.append(sorted(itertools.chain.from_iterable(map(ids, lines.values()))))
    assert [of in (before, with_it) for of in found] == [True] * 24
    assert (found[0], found[19]) == (with_it, before)


def test_bigquery_stamps_rows_in_a_column_of_its_own(tmp_path: Path) -> None:
    _, lines = exported(Dataset({"whole": TABLES["whole"]}, "bigquery"), tmp_path / "out")
    assert lines["345600000"][0].endswith('"event":"Whole","properties":{"n":1}}')


def test_each_table_may_be_alone_or_missing(tmp_path: Path) -> None:
    for name, counts in (("tracks", {"tracks": 7}), ("partly", {"partly": 2}), ("identifies", {"identifies": 1})):
        said, _ = exported(Dataset({name: TABLES[name]}), tmp_path / name)
        assert (said.messages, said.rejects, said.left_out) == (counts, 0, [])
    said, _ = exported(Dataset({"never": TABLES["never"]}), tmp_path / "none")
    assert said == ExportedArchive({}, 0, 0, [], [])
    adopted = Dataset({"_audit": ({"version": "text"}, [("adopted accounts 1",)])})  # the table was dropped since
    assert exported(adopted, tmp_path / "gone")[0] == ExportedArchive({}, 0, 0, [], [])


def test_each_table_is_a_file_of_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS_PER_GROUP", 6)
    with ExportFolder(tmp_path / "out") as files:
        said = export_parquet(Dataset({**TABLES, "a/b": (EVENT, [])}), files)  # type: ignore[arg-type]
    rows = {name: len(rows) for name, (_, rows) in TABLES.items() if name != "view"} | {"a/b": 0}
    assert said == ExportedTables(rows, ["users: shape", "shapes: shape", "whole: a, b"])
    found = {unquote(file.stem): pq.read_table(file) for file in (tmp_path / "out").glob("*.parquet")}
    assert {name: len(table) for name, table in found.items()} == rows
    assert found["never"].schema == arrow_schema(EVENT)
    for name in ("partly", "tracks"):
        assert [tuple(row.values()) for row in found[name].to_pylist()] == TABLES[name][1]
    written = pq.read_metadata(tmp_path / "out" / "tracks.parquet")
    groups = [written.row_group(number) for number in range(written.num_row_groups)]
    assert [(group.num_rows, group.column(0).compression) for group in groups] == [(6, "ZSTD"), (1, "ZSTD")]
