"""Runs `adopt`: prints the differences that queries will meet and loads the tables, or compares both sides."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta

from dlt.sources import DltSource

from .. import inspect
from ..catalog import CUT
from ..display import json_text, plural, shortened
from ..errors import DatasetNotFound
from ..explain import explained
from ..inspect import Difference
from ..inspect.diff import ColumnType, Family, SchemaTable, differences, table_as_loaded, type_of
from ..sources.adopt.origin import AdoptedTables
from ..sources.adopt.rows import declared_columns
from ..sources.adopt.schema import AdoptedColumn, AdoptedSchema, read_adopted_schema
from ..sources.adopt.source import adopt
from ..sources.adopt.verify import TableComparison, compare_tables
from ..warehouses.dataset import TablesNotListed
from ..warehouses.settings import TargetOptions
from . import out
from .inspecting import breaking_counts, difference_groups
from .loading import run_load_command
from .options import LoadOptions
from .progress import OF_FILES, Counted, ProgressDisplay

DAYS_SHOWN = 10  # differing days that are shown of a table, at most
_FAMILIES: dict[Family, tuple[Family, ...]] = {
    "text": ("text",),
    "time": ("time", "date", "text"),
    "number": ("number", "boolean", "text"),
    "boolean": ("boolean", "text"),
}
"""For each family of types, the families whose columns can store all of its values."""
_WHY_LOST = {
    "no_column": "the name has no Latin letter or digit",
    "same_column": "another column of the table gets the same name",
}


def run_adoption(origin: AdoptedTables, options: LoadOptions, report_cut: bool) -> None:
    """Prints the differences that queries will meet, then adopts the tables."""
    with explained():
        _print_coming_differences(read_adopted_schema(origin), options.target, options.wait)
    cut: dict[str, dict[str, int]] = {}

    def sources(display: ProgressDisplay) -> Iterator[DltSource]:
        with explained():
            yield adopt(
                list(origin.urls), origin.named, origin.database, origin.schema, progress=display.report, cut_texts=cut
            )

    counted: Counted = "files" if origin.database is None else "tables"
    report = run_load_command(sources, options, counted)
    if report_cut:
        out.print_lines(["", *_cut_lines(cut, report.files, counted)], err=options.as_json)


def _cut_lines(cut: Mapping[str, Mapping[str, int]], new: int, counted: Counted) -> list[str]:
    """Returns lines about the numbers of texts that may be cut, by table and column."""
    if not new:
        return ["No file or table is new, so no text was counted."]
    columns = [(f"{table}.{column}", count) for table in sorted(cut) for column, count in sorted(cut[table].items())]
    lines = [f"{shortened(name)}: {plural(count, 'text')} of exactly {CUT} characters" for name, count in columns]
    return lines or [f"No text of {plural(new, f'new {OF_FILES[counted]}')} has exactly {CUT} characters."]


def _print_coming_differences(adopted: AdoptedSchema, target: TargetOptions, wait: timedelta) -> None:
    """Prints to stderr the differences that queries of the adopted tables will meet, as `schema diff` does."""
    try:
        with inspect.reading(*target, wait=wait) as reader:
            actual, kind, dialect = dict(inspect.schema_of(reader)), reader.kind, reader.dialect
    except (DatasetNotFound, TablesNotListed):
        kind, dialect = inspect.kind_of(target)
        actual = dict(inspect.schema_of_catalogue(kind, dialect))
    queried = {}
    for table, columns in adopted.tables.items():
        existing = actual.get(table, SchemaTable({}))
        new = {column.called: column.becomes for column in columns.values() if column.called is not None}
        new |= declared_columns(table, {*new, *existing.columns})
        made = {**table_as_loaded(table, new, kind, dialect).columns, **existing.columns}
        actual[table] = existing._replace(columns=made)
        queried[table] = SchemaTable(
            {
                name: _queried(column, existing.columns.get(name), made.get(name), adopted.dialect)
                for name, column in columns.items()
            }
        )
    changes = [each for each in differences(queried, actual, inspect.SWITCH, (), dialect) if each.change != "extra"]
    if queried:
        out.print_lines([*_coming(changes), *_lost(adopted)], err=True)


def _queried(column: AdoptedColumn, stored: ColumnType | None, made: ColumnType | None, dialect: str) -> ColumnType:
    """Returns the type that queries expect of a column, or, if that is unknown, the type that the column will have."""
    expected = type_of(column.type or "text", dialect)
    unknown = column.type is None or (
        column.guessed and (stored is None or stored.family in _FAMILIES.get(expected.family, ()))
    )
    return (made or expected) if unknown else expected


def _coming(found: Sequence[Difference]) -> list[str]:
    if not found:
        return ["No differences affect queries of these tables.", ""]
    return [*difference_groups(found), f"For queries of these tables: {breaking_counts(found, 'some')}", ""]


def _lost(adopted: AdoptedSchema) -> list[str]:
    """Returns lines about the columns whose values will be discarded, grouped by the reason, one line per table."""
    lines = []
    for reason, tables in sorted(adopted.lost.items()):
        lines.append(f"goes to _discards: {reason}, {_WHY_LOST[reason]}")
        lines += [f"    {shortened(table)}: {', '.join(map(shortened, names))}" for table, names in tables.items()]
    return [*lines, ""] if lines else []


def print_verification(origin: AdoptedTables, options: LoadOptions) -> None:
    """Prints each table's rows on both sides. Exits with 1 if a row of the adopted tables is not stored."""
    with inspect.reading(*options.target, wait=options.wait) as reader:
        found = compare_tables(origin, reader)
    if options.as_json:
        out.document(json_text({each.table: asdict(each) for each in found}))
    else:
        out.print_lines(_comparison_lines(found))
    if any(each.missing for each in found):
        sys.exit(out.NEEDS_ATTENTION)


def _comparison_lines(found: Sequence[TableComparison]) -> list[str]:
    width = max([len(shortened(each.table)) for each in found], default=5)
    lines = [f"{'table':<{width}}  {'adopted':>12}  {'stored':>12}  {'missing':>9}  {'days':>6}  digests"]
    for each in found:
        same = "equal" if each.digest == each.stored_digest else "differ"
        lines.append(
            f"{shortened(each.table):<{width}}  {each.rows:>12,}  {each.stored:>12,}  {each.missing:>9,}"
            f"  {len(each.days):>6,}  {same}"
        )
        lines += [
            f"  {day}: {rows:,} adopted, {stored:,} stored" for day, (rows, stored) in each.different[:DAYS_SHOWN]
        ]
        more = len(each.different) - DAYS_SHOWN
        lines += [f"  and {plural(more, 'day')} more that differ{'s' * (more == 1)}"] if more > 0 else []
    missing = sum(each.missing for each in found)
    summary = (
        f"{plural(missing, 'row')} {'is' if missing == 1 else 'are'} not stored." if missing else "Every row is stored."
    )
    return [*lines, "", summary]
