"""Mends adopted rows as part of a load: texts that Segment had cut become whole (docs/contract/adopt.md#cut-text).

The mended rows come with the rows of the load, in the same package, and replace the stored ones. So a text is whole by
the time its file counts as loaded; otherwise the file is read again.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime

from ..catalog import AUDIT, resource_of
from ..display import plural
from ..errors import NotSupported
from ..projection import Deduplicated, TableRows
from ..warehouses.dataset import Dataset
from ..warehouses.dlt_internals import declare_transactions
from .older_rows import ADOPTED
from .plan import PlannedLoad
from .row_files import RowFiles

# Destinations whose transactions must be declared to dlt. SQLite has them too; a lake's table changes atomically.
TRANSACTIONAL = frozenset({"duckdb", "postgres"})
# Whether PostgreSQL generates cells of a table, so that a row cannot be inserted again unchanged, or rows of another
# table refer to it, which might be deleted with it.
_BOUND = """SELECT EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = r.tableoid AND (attgenerated <> '' OR attidentity = 'a'))
    OR EXISTS (SELECT FROM pg_constraint WHERE confrelid = r.tableoid) FROM"""


def _has_adopted_files(load: PlannedLoad) -> bool:
    """Returns whether adopted files count as loaded, so that there may be adopted rows; queries nothing."""
    target = load.target
    return not target.replacement.anew and any(version.startswith(ADOPTED) for _, version in target.loads)


def check_nothing_to_mend(load: PlannedLoad, has_duplicates: bool) -> None:
    """Raises NotSupported if messages that come again may have the whole texts of adopted rows.

    Workers cannot mend these rows, because they do not see what is stored.
    """
    if has_duplicates and _has_adopted_files(load):
        raise NotSupported(
            "Expected a load in this process, because rows were adopted, some messages of this load are stored already"
            " or come twice, and workers do not mend cut texts.\nLoad without an engine."
        )


def rows_of_messages(load: PlannedLoad, deduplicated: Deduplicated, files: RowFiles) -> Iterator[TableRows]:
    """Yields the rows of the tables of messages, together with the stored rows that this load mends."""
    dataset, hints = load.target.dataset, files.hints
    if dataset is None or not load.report.lines or not _has_adopted_files(load):
        yield from deduplicated.tables()
        return
    tables = [name for name in hints.existing if resource_of(name) in load.extraction.resources]
    deduplicated.find_mends(dataset.read, tables, _loads_of_messages(dataset))
    for table, rows in deduplicated.mended().items():
        lengths = deduplicated.mended_lengths(table)
        if why := _obstacle(table, lengths, dataset, files):
            load.context.warn(f"Texts of {plural(rows, 'row')} of {table} stay cut: {why}.")
            deduplicated.drop_mends(table)
        else:
            hints.mended.add(table)
    if hints.mended and dataset.kind in TRANSACTIONAL and load.extraction.pipeline is not None:
        declare_transactions(load.extraction.pipeline.destination)
    yield from deduplicated.with_mended_rows(dataset.read)


def _loads_of_messages(dataset: Dataset) -> set[datetime]:
    """Returns the times of the loads that made rows from messages."""
    return {
        row["loaded_at"]
        for batch in dataset.read(AUDIT.name, ["version", "loaded_at"])
        for row in batch.to_pylist()
        if row["loaded_at"] is not None and not row["version"].startswith(ADOPTED)
    }


def _obstacle(table: str, lengths: Mapping[str, int], dataset: Dataset, files: RowFiles) -> str | None:
    """Returns why rows of a table cannot be mended, or None: whole rows are replaced, so other cells could be lost.

    `lengths` has the length of the longest whole text by column: a row without room for it would not be stored at all.
    """
    if files.are_seen(table):
        return "a step of yours, or a schema contract, would see these rows again"
    if dataset.kind not in (*TRANSACTIONAL, "filesystem") and dataset.dialect != "sqlite":
        return f"it is untested whether {dataset.kind} loses rows if a load is killed while it replaces them"
    if dataset.widths.get(table, 0) > len(files.hints.existing[table]):
        return "the table has columns of other types than loads make, which would be lost"
    room = dataset.lengths() if dataset.kind == "postgres" else {}
    is_narrow = {name: length > room.get((table.lower(), name.lower()), length) for name, length in lengths.items()}
    if narrow := [name for name in sorted(is_narrow) if is_narrow[name]]:
        return f"{', '.join(narrow)} {'has' if len(narrow) == 1 else 'have'} no room for the whole texts"
    if dataset.kind == "postgres" and any(bound for (bound,) in dataset.stream(_BOUND, table, "r LIMIT 1")):
        return "PostgreSQL generates a column of the table, or a foreign key refers to its rows"
    return None
