"""The bookkeeping tables of a load: the counts of its files for `_audit`, `_rejects` and `_discards`."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC

import pyarrow as pa

from ..catalog import DISCARDS, KINDS, LIMIT_REASONS, REJECTS
from ..segment.not_json import CAUSES
from . import engine, texts
from .context import CountedMessages, FileCount, ProjectionContext, TableRows, book_rows

MOST_LISTED = 100  # events without a table that are listed by name
_COUNTED = pa.schema([("file", pa.int64()), ("names", pa.list_(pa.string())), ("all_but", pa.bool_())])
_TABLES = " ".join(f"WHEN '{kind}' THEN '{table.name}'" for kind, table, _ in KINDS)
_COUNTS = ("lines", "stored", "duplicates", "rejected", "mended", "again")
_SQL = engine.queries("audit.sql")


def count_files(context: ProjectionContext, counted: CountedMessages) -> list[FileCount]:
    """Returns how many lines of each file were stored, duplicates or rejected; files without lines are left out."""
    again = _counted_again(context, counted) if counted else {}
    found = [
        FileCount(*row[:5], *(time and time.replace(tzinfo=UTC) for time in row[5:7]), *row[7:])
        for row in context.con.execute(_SQL["file_counts"]).fetchall()
    ]
    return [count._replace(again=again.get(count.file, 0)) for count in found]


def _counted_again(context: ProjectionContext, counted: CountedMessages) -> dict[int, int]:
    rows = [{"file": file, "names": list(names), "all_but": all_but} for file, (names, all_but) in counted.items()]
    with engine.registered(context.con, counted=pa.Table.from_pylist(rows, _COUNTED)):
        return dict(context.con.execute(_SQL["counted_again"].format(tables=_TABLES)).fetchall())


def merge_counts(parts: Iterable[FileCount]) -> list[FileCount]:
    """Returns the counts of each file, summed over the partitions that have its lines."""
    found: dict[int, FileCount] = {}
    for part in parts:
        before = found.get(part.file)
        found[part.file] = part if before is None else _added(before, part)
    return list(found.values())


def _added(first: FileCount, second: FileCount) -> FileCount:
    counts = {name: getattr(first, name) + getattr(second, name) for name in _COUNTS}
    earliest = min(filter(None, (first.first_received_at, second.first_received_at)), default=None)
    latest = max(filter(None, (first.last_received_at, second.last_received_at)), default=None)
    return first._replace(first_received_at=earliest, last_received_at=latest, **counts)


def rejects_by_reason(context: ProjectionContext) -> dict[str, int]:
    """Returns how many lines were rejected for each reason, the most frequent first."""
    return dict(context.con.execute(_SQL["rejects_by_reason"]).fetchall())


def reject_causes(context: ProjectionContext) -> dict[str, int]:
    """Returns how many lines that are not JSON have each likely cause, the most frequent first."""
    if not engine.count(context.con, "rejects"):
        return {}
    return dict(context.con.execute(_SQL["reject_causes"], {"causes": CAUSES}).fetchall())


def rejects(context: ProjectionContext, files: Sequence[str]) -> TableRows | None:
    """Returns the rows of `_rejects`, or None if there are none; `files` are the names of the load's files."""
    if not engine.count(context.con, "rejects"):
        return None
    names = pa.table({"number": range(len(files)), "file": files})
    with engine.registered(context.con, files=names):
        texts.create_table(context, "all_rejected", _SQL["all_rejected"], {"loaded_at": context.loaded_at})
    context.con.execute(_SQL["rejected"])
    return book_rows(context.con, "rejected", REJECTS)


def discards(context: ProjectionContext) -> TableRows | None:
    """Returns the rows of `_discards`, or None if there are none. Call it after making the rows of all tables."""
    if not any(engine.count(context.con, table) for table in ("discards", "discards_of_latest")):
        context.con.execute(_SQL["nothing_discarded"])
        return None
    names = context.tables.names
    table = pa.table({"table_number": range(len(names)), "name": names})
    with engine.registered(context.con, table_names=table):
        texts.create_table(context, "all_discarded", _SQL["all_discarded"], {"loaded_at": context.loaded_at})
    context.con.execute(_SQL["discarded"])
    return book_rows(context.con, "discarded", DISCARDS)


def beyond_limits(context: ProjectionContext, without_table: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Returns how many values exceeded a limit, by reason and table. Call it after `discards`.

    `without_table` counts the messages of events that have no table (`too_many_tables`), by the event's slug.
    """
    return limits_exceeded(discarded_by_table(context), without_table)


def discarded_by_table(context: ProjectionContext) -> list[tuple[str, str, int]]:
    """Returns how many values were discarded, by reason and table. Call it after `discards`."""
    return context.con.execute(_SQL["discarded_by_table"]).fetchall()


def limits_exceeded(
    discarded: Iterable[tuple[str, str, int]], without_table: Mapping[str, int]
) -> dict[str, dict[str, int]]:
    """Returns the result of `beyond_limits`, given counts by reason and table, which may be of several partitions."""
    found: dict[str, dict[str, int]] = {reason: {} for reason in LIMIT_REASONS}
    for reason, table, count in sorted(discarded):
        if reason in found:
            found[reason][table] = found[reason].get(table, 0) + count
    found["too_many_tables"] = _largest(without_table)
    return {reason: tables for reason, tables in found.items() if tables}


def _largest(numbers: Mapping[str, int]) -> dict[str, int]:
    """Returns the MOST_LISTED largest numbers by name, and the sum of all others, if any, as `others`."""
    names = sorted(numbers, key=lambda name: (-numbers[name], name))
    others = {"others": sum(numbers[name] for name in names[MOST_LISTED:])} if len(names) > MOST_LISTED else {}
    return {name: numbers[name] for name in names[:MOST_LISTED]} | others
