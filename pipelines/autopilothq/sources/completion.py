"""Keeps dlt from completing a load that lost rows after it had staged them.

Two loads at the same time stage their rows in the same tables, so one of them can delete the other's rows, or add rows
with the same keys. A run's lock prevents that as long as it is renewed, but a user's own pipelines have no lock, and
dlt does not notice. So before a load is completed, it is checked that its rows, and no others, are still staged. If
not, they are counted in the tables that they were merged into. It does not matter whether the other load was completed,
was killed or is still running. A load that lacks rows is never completed, so that a later load reads again what it had
read.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

from ..catalog import key_of
from ..projection.engine import batched
from ..utc import parse_time
from ..warehouses.dataset import Dataset, Row, dataset_of, qualified_name, rows_of_statement
from ..warehouses.dlt_internals import DatabaseTerminalException, DatabaseUndefinedRelation, JobClientBase, logger
from ..warehouses.dlt_internals.clients import check_before_completing
from .earlier_load import BOOK_TIMES, LOST_DIGITS, rows_noted, stored_at
from .own_rows import is_known_by_time, rows_by_time, stores_exact_times

_TABLES_PER_QUERY = 50


def complete_only_whole_loads() -> None:
    """Makes dlt complete a load only if none of its staged rows were lost; otherwise, a warning is logged."""
    check_before_completing(_has_staged_rows)


def _has_staged_rows(
    client: JobClientBase, working_folder: Path, load_id: str, files: Mapping[str, Sequence[Path]]
) -> bool:
    """Returns whether the tables have the rows of a load's files, which it staged and merged.

    For files that are not Parquet, the number of rows comes from the load's record.
    """
    ours = sorted(table for table in files if is_known_by_time(cast(Any, client.schema.tables[table]), table))
    brought = rows_noted(working_folder, load_id)
    counts: dict[str, Mapping[datetime, int]] = {}
    for table in ours:
        if all(path.suffix == ".parquet" for path in files[table]):
            counts[table] = rows_by_time(table, files[table]) or {}
        else:
            counts[table] = {datetime.fromisoformat(at): rows[table] for at, rows in brought if table in rows}
    counts = {table: found for table, found in counts.items() if found}
    if not counts:
        return True
    try:
        with client:
            in_parts = {table for table in counts if len(files[table]) > 1}
            lacking = tables_without_rows(dataset_of(client).parts(), counts, in_parts, stores_exact_times(client))
    except DatabaseTerminalException as error:  # an error raised here would keep the load from ever being completed
        logger.warning(f"Could not check whether the rows of this load are still there: {error}")
        return True
    if lacking:
        logger.warning(
            f"Rows that this load had staged for {', '.join(lacking)} are missing: another load was at work at the same"
            " time, and took them away. This one does not count as complete, and the next run reads again what it read."
        )
    return not lacking


def tables_without_rows(
    parts: Sequence[Dataset],
    counts: Mapping[str, Mapping[datetime, int]],
    in_parts: Collection[str],
    are_exact: bool = False,
) -> list[str]:
    """Returns the tables that have fewer rows of a load than it staged; `counts` has their number by table and time.

    A table has all of them if exactly these rows are still staged, each once, because then they were merged. Otherwise
    they are counted in the table. `parts` are the dataset and the staging dataset, if there is one. `in_parts` are the
    tables whose rows came in several files. If `are_exact`, only rows with exactly the same times count as staged,
    because no others are merged.
    """
    dataset, *staging = parts
    staged = _staged_rows(staging[0], list(counts), in_parts) if staging else {}
    return [
        table
        for table, found in counts.items()
        if not _are_these(staged.get(table, ()), found, are_exact)
        and any(_count(dataset, table, at) < n for at, n in found.items())
    ]


def _staged_rows(staging: Dataset, tables: Sequence[str], in_parts: Collection[str]) -> Mapping[str, Sequence[Row]]:
    """Returns the times in each staging table, each with its number of rows and of ids.

    One statement queries many tables, because each statement takes a second in a warehouse. If it fails because another
    load has dropped one of the tables, each table is queried alone.
    """
    rows: dict[str, list[Row]] = {table: [] for table in tables}
    for group in batched(tables, _TABLES_PER_QUERY):
        try:
            found = rows_of_statement(
                staging, " UNION ALL ".join(_times_of(staging, of, of in in_parts) for of in group)
            )
        except DatabaseUndefinedRelation:
            parts = [_staged_rows(staging, [table], in_parts) for table in group] if len(group) > 1 else []
            found = [(table, *row) for part in parts for table, of_table in part.items() for row in of_table]
        for table, *row in found:
            rows[table].append(tuple(row))
    return rows


def _times_of(staging: Dataset, table: str, is_in_parts: bool) -> str:
    # A load that was cut off may have staged one file twice and another one not at all. Counting ids takes ten times as
    # long as counting rows, so it is done only if there are several files. Ids of books may repeat.
    has_ids = is_in_parts and key_of(table) == ("id",) and table not in BOOK_TIMES
    ids = "count(DISTINCT {id})" if has_ids else "count(*)"
    select = staging.template(table, f"SELECT '{table}', {{{stored_at(table)}}}, count(*), {ids} FROM")
    group = staging.template(table, f"GROUP BY {{{stored_at(table)}}}")
    return f"{select} {qualified_name(staging, table)} {group}".replace("%%", "%")


def _are_these(staged: Sequence[Row], counts: Mapping[datetime, int], are_exact: bool) -> bool:
    with suppress(ValueError):  # a text that is not a time
        return len(staged) == len(counts) and all(
            any(_is_same(time, at, are_exact) and (rows, ids) == (n, n) for time, rows, ids in staged)
            for at, n in counts.items()
        )
    return False


def _is_same(time: object, at: datetime, is_exact: bool) -> bool:
    """Returns whether a time is the same in some time zone: drivers may read a time without one as another zone's."""
    if not isinstance(time, str | datetime):
        return False
    apart = parse_time(time) - at
    return not apart if is_exact else (apart + LOST_DIGITS) % timedelta(minutes=15) <= 2 * LOST_DIGITS


def _count(dataset: Dataset, table: str, at: datetime) -> int:
    column = f"{{{stored_at(table)}}}"
    before = dataset.template(table, "SELECT count(*) FROM")
    within = dataset.template(table, f"WHERE {column} >= %s AND {column} <= %s")
    try:
        [(stored,)] = dataset.stream(before, table, within, (at - LOST_DIGITS, at + LOST_DIGITS))
    except DatabaseUndefinedRelation:
        return 0  # another load has dropped the table
    return int(stored)
