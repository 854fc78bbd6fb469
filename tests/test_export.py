"""`export`: what comes out of a dataset makes the same tables again."""

import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autopilothq.export import ExportFolder, export_archive
from autopilothq.export.archive import KEPT_REJECTS
from autopilothq.warehouses.dataset import NativeType
from contract import generated
from contract.loading import Line, Row, Store, to_line

# What a load writes of itself: when it came, and where each line stood.
OF_THE_LOAD = {"uuid_ts", "discarded_at"}
PLACES = {"id", "file", "line", "rejected_at"}


class StoredTables:
    """A store as the dataset that an export reads."""

    dialect = "duckdb"

    def __init__(self, store: Store) -> None:
        self.store = store

    def columns(self) -> dict[str, dict[str, NativeType]]:
        return {
            name: {column: NativeType(of, of) for column, of in types.items()}
            for name, types in self.store.types.items()
        }

    def tables(self, names: Sequence[str]) -> dict[str, Any]:
        return {name: self.store.types[name] for name in names if name in self.store.types}

    def views(self) -> set[str]:
        return set()

    def read(self, table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return self.store._read(table, columns)

    def rows(self, select: str, table: str, _: str = "") -> list[tuple[Any, ...]]:
        rows = self.store.rows[table].values()
        if select == "count(*)":
            return [(len(rows),)]
        events = [row["event"] for row in rows]
        return [(event, events.count(event)) for event in set(events)]


def exported(store: Store, folder: Path) -> list[bytes]:
    """The lines that an export of a store writes."""
    with ExportFolder(folder) as files:
        export_archive(StoredTables(store), files)  # type: ignore[arg-type]
    return [
        line for file in sorted(folder.rglob("*.gz")) for line in gzip.decompress(file.read_bytes()).splitlines(True)
    ]


def shown(store: Store) -> dict[str, list[str]]:
    """The rows of all tables, without what a load writes of itself, and the types of their columns."""
    found = {name: sorted(map(_shown, rows)) for name, rows in store.tables().items() if name != "_rejects"}
    found["_rejects"] = sorted(
        _shown({key: cell for key, cell in row.items() if key not in PLACES})
        for row in store.tables().get("_rejects", [])
        if row["reason"] not in KEPT_REJECTS
    )
    types = [f"{name}.{column} {of}" for name, types in store.types.items() for column, of in types.items()]
    return {name: rows for name, rows in found.items() if rows} | {"types": sorted(types)}


def _shown(row: Row) -> str:
    return ", ".join(
        f"{key}: {cell!r}" for key, cell in sorted(row.items()) if cell is not None and key not in OF_THE_LOAD
    )


def differences(lines: Sequence[Line], folder: Path) -> list[str]:
    """The rows and types in which the tables of an export differ from those that it was made of."""
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


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(generated.messages(st.sampled_from(["a", "b", "c", "d", "e"]).map('"{}"'.format)), max_size=8))
def test_messages_make_the_same_tables_again(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    found = differences(lines, tmp_path_factory.mktemp("out"))
    assert found == []
