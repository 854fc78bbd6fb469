"""Reads the bookkeeping tables: the lines of all loads, the last loads, the rejects and the discards."""

from typing import Any

from .. import catalog
from ..display import plural
from ..warehouses.dataset import Dataset, Row, audit_sums
from .assemble import whole
from .numbers import Absent, Books, Reason, RecentRun

_MOST_RUNS, _MOST_REASONS = 8, 10
_COUNTS = ("lines", "stored", "duplicates", "rejected", "skipped")


def read_books(dataset: Dataset) -> Books | Absent:
    """Returns the books of all loads, or Absent if `_audit` is missing or empty."""
    audit = catalog.AUDIT.name
    if audit not in dataset.columns():
        return Absent(f"There is no table {audit}: these tables were not made by this program's loads.")
    runs = [
        _run(row)
        for row in dataset.rows(
            f"max({{loaded_at}}), count(*), {audit_sums(dataset, _COUNTS)}",
            audit,
            "GROUP BY {load_id} ORDER BY max({loaded_at}) DESC",
        )
    ]
    if not runs:
        return Absent(f"{audit} is empty: nothing was loaded from files or an account yet.")
    rejects = [
        Reason(str(reason), "", whole(count))
        for reason, count in dataset.rows(
            "{reason}, count(*)", catalog.REJECTS.name, "GROUP BY {reason} ORDER BY count(*) DESC, {reason}"
        )
    ]
    discards = [
        Reason(str(reason), f"{table}.{column}", whole(count))
        for reason, table, column, count in dataset.rows(
            "{reason}, {table_name}, {column_name}, count(*)",
            catalog.DISCARDS.name,
            "GROUP BY {reason}, {table_name}, {column_name}"
            " ORDER BY count(*) DESC, {table_name}, {column_name}, {reason}",
        )
    ]
    return Books(_sum(runs), len(runs), runs[:_MOST_RUNS], _most(rejects), _most(discards))


def _run(row: Row) -> RecentRun:
    at, *sums = row
    return RecentRun(at, *map(whole, sums))


def _sum(runs: list[RecentRun]) -> RecentRun:
    columns: list[Any] = list(zip(*(run[1:] for run in runs), strict=True))
    return RecentRun(max(run.at for run in runs), *(sum(column) for column in columns))


def _most(found: list[Reason]) -> list[Reason]:
    """Returns the most frequent reasons, and all others together as the last one."""
    rest = found[_MOST_REASONS:]
    others = [Reason(plural(len(rest), "other reason"), "", sum(reason.lines for reason in rest))] if rest else []
    return found[:_MOST_REASONS] + others
