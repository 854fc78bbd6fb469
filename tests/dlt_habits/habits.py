"""What the tests of dlt's features share: a small archive, a DuckDB in memory, whole rows to compare."""

import json
import shutil
from pathlib import Path
from typing import Any

import dlt
import duckdb

import stock
from autopilothq import sample

LOAD = {"uuid_ts", "loaded_at", "load_id", "discarded_at", "rejected_at"}  # columns that depend on the load
COUNTS = {"stored", "duplicates"}  # counts that depend on what an earlier load of the same file stored
Rows = dict[str, list[str]]


def write(folder: Path) -> Path:
    """Writes an archive with rows for most tables, with rejects, discards and duplicates; returns its folder."""
    sample.write(str(folder), 12, 1)
    more = [
        *(identify(f"i{n}", f"u{n % 2}", n, plan=f"plan {n}") for n in range(4)),
        {"type": "page", "name": "Home", "userId": "u1", "messageId": "p1", "receivedAt": at(5)},
        *(track(f"s{n}", "Shoe Bought", n, size=n) for n in range(3)),
        track("o1", "Email Opened", 9, transactional="perhaps"),
        track("o1", "Email Opened", 9, transactional="perhaps"),
    ]
    (folder / "more.ndjson").write_text("\n".join([*map(json.dumps, more), "no JSON", ""]))
    return folder


def at(minute: int) -> str:
    return f"2019-03-20T10:{minute:02}:00Z"


def track(id_: str, event: str, minute: int, **properties: Any) -> dict[str, Any]:
    common = {"messageId": id_, "receivedAt": at(minute), "userId": "u1"}
    return {"type": "track", "event": event, "properties": properties} | common


def identify(id_: str, user: str, minute: int, **traits: Any) -> dict[str, Any]:
    return {"type": "identify", "userId": user, "messageId": id_, "receivedAt": at(minute), "traits": traits}


class Target:
    """A dataset in a DuckDB of its own, and the pipeline that loads there."""

    def __init__(self, name: str = "habits", dataset: str = "data", **options: Any) -> None:
        self.con = duckdb.connect(":memory:", config={"threads": 1})  # so few rows leave no work for a second one
        self.dataset = dataset
        self.pipeline = dlt.pipeline(name, destination=stock.duckdb(self.con), dataset_name=dataset, **options)

    def keep(self, folder: Path) -> None:
        """Saves this target in a folder, from which `kept(folder)` makes copies."""
        self.con.execute(f"ATTACH '{folder}/kept.duckdb' AS kept; COPY FROM DATABASE memory TO kept; DETACH kept")
        shutil.copytree(self.pipeline.working_dir, folder / "kept", dirs_exist_ok=True)

    def run(self, data: Any, **words: Any) -> None:
        """Runs the pipeline."""
        self.pipeline.run(data, **words)

    def names(self, dataset: str | None = None) -> list[str]:
        """Returns the names of the dataset's tables, without dlt's own."""
        sql = "SELECT table_name FROM information_schema.tables WHERE table_schema = ? ORDER BY 1"
        found = self.con.execute(sql, [dataset or self.dataset]).fetchall()
        return [name for (name,) in found if not name.startswith("_dlt")]

    def rows(self, table: str, dataset: str | None = None) -> list[dict[str, Any]]:
        """Returns a table's rows, without nulls."""
        relation = self.con.sql(f'FROM "{dataset or self.dataset}"."{table}"')
        return [
            {name: cell for name, cell in zip(relation.columns, row, strict=True) if cell is not None}
            for row in relation.fetchall()
        ]

    def count(self, table: str, dataset: str | None = None) -> int:
        """Returns the number of a table's rows, 0 if it is missing."""
        return len(self.rows(table, dataset)) if table in self.names(dataset) else 0

    def tables(self, dataset: str | None = None) -> Rows:
        """Returns all rows of all tables as comparable texts, without empty tables and what depends on the load."""
        found = {
            name: sorted(
                repr(sorted((key, cell) for key, cell in row.items() if key not in LOAD | COUNTS))
                for row in self.rows(name, dataset)
            )
            for name in self.names(dataset)
        }
        return {name: rows for name, rows in found.items() if rows}

    def balances(self) -> bool:
        """Returns whether each file's lines are accounted for, and all of them are loaded."""
        counts = ("stored", "duplicates", "rejected", "skipped")
        return all(
            row["lines"] == sum(row[count] for count in counts) and min(row[count] for count in counts) >= 0
            for row in self.rows("_audit")
        )


def archive_of(name: str, *messages: dict[str, Any]) -> str:
    """Writes messages into an archive of one file here; returns its name."""
    Path(name).write_text("\n".join(map(json.dumps, messages)))
    return name


def more(folder: Path, *lines: dict[str, Any]) -> str:
    """Writes another archive of one file in the current folder; returns its name."""
    return archive_of(f"{folder.name}.ndjson", *lines)


def kept(folder: Path) -> Target:
    """Returns a copy of the target that was saved there. It takes over the pipeline, so earlier copies cannot load."""
    working = Path(dlt.pipeline("habits", destination="duckdb").working_dir)
    shutil.rmtree(working, ignore_errors=True)
    shutil.copytree(folder / "kept", working)
    target = Target()
    target.con.execute("SET TimeZone = 'UTC'")  # as dlt has it once it has loaded
    target.con.execute(
        f"ATTACH '{folder}/kept.duckdb' AS kept (READ_ONLY); COPY FROM DATABASE kept TO memory; DETACH kept"
    )
    return target
