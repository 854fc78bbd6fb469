"""Adopts tables: says first what will differ, loads them, and compares both sides afterwards."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import NamedTuple

from dlt.sources import DltSource

from .. import inspect
from ..catalog import CUT, LOADER_OWN_COLUMNS, RUDDERSTACK_COLUMNS
from ..display import json_text, shortened
from ..errors import DatasetNotFound
from ..explain import explained
from ..inspect import Difference
from ..inspect.diff import SchemaTable, differences, type_of
from ..masking import remember_credentials
from ..sources.adopt.schema import AdoptedSchema, read_adopted_schema
from ..sources.adopt.source import adopt, adopted_tables
from ..sources.adopt.verify import TableComparison, compare_tables
from . import out
from .inspecting import difference_groups
from .loading import run_load_command
from .options import LoadOptions, TargetOptions
from .progress import ProgressDisplay

DAYS_SHOWN = 10  # that differ and are shown of a table


class AdoptionSettings(NamedTuple):
    """Where tables are adopted from: URLs with patterns by table, or a database and a schema of it."""

    urls: tuple[str, ...]
    named: Mapping[str, Sequence[str]]
    database: str | None
    schema: str


def run_adoption(adoption: AdoptionSettings, options: LoadOptions, report_cut: bool) -> None:
    """Says what will differ for queries, then adopts the tables."""
    if adoption.database:
        remember_credentials(adoption.database)
    origin = adopted_tables(adoption.urls, adoption.named, adoption.database, adoption.schema)
    with explained():
        print_coming_differences(read_adopted_schema(origin), options.target)
    cut: dict[str, dict[str, int]] = {}

    def sources(display: ProgressDisplay) -> Iterator[DltSource]:
        with explained():
            yield adopt(
                list(adoption.urls),
                tables=adoption.named,
                database=adoption.database,
                database_schema=adoption.schema,
                progress=display.report,
                cut_texts=cut,
            )

    report = run_load_command(sources, options)
    if report_cut:
        rows = [(f"{table}.{column}", number) for table in sorted(cut) for column, number in sorted(cut[table].items())]
        lines = [f"{shortened(name)}: {number:,} texts of exactly {CUT} characters" for name, number in rows]
        out.print_lines(
            ["", *(lines or [f"No text of the {report.files:,} new files has exactly {CUT} characters."])],
            err=options.as_json,
        )


def print_coming_differences(adopted: AdoptedSchema, target: TargetOptions) -> None:
    """Prints what queries for the adopted tables will meet, on stderr, as `schema diff` says it."""
    try:
        with inspect.reading(*target) as reader:
            actual, dialect = dict(inspect.schema_of(reader)), reader.dialect
    except DatasetNotFound:
        kind, dialect = inspect.kind_of(*target)
        actual = dict(inspect.schema_of_catalogue(kind, dialect))
    queried = {}
    for table, columns in adopted.tables.items():
        there = actual.get(table, SchemaTable({}))
        types = {
            column: there.columns[column]
            if of is None and column in there.columns
            else type_of(of or "text", adopted.dialect)
            for column, of in columns.items()
        }
        queried[table] = SchemaTable(types)
        left_out = LOADER_OWN_COLUMNS | {column for column, called in RUDDERSTACK_COLUMNS.items() if called is None}
        new = {column: of for column, of in types.items() if column not in left_out}
        actual[table] = there._replace(columns={**new, **there.columns})
    found = [each for each in differences(queried, actual, inspect.SWITCH, (), dialect) if each.change != "extra"]
    out.print_lines(_coming(found), err=True)


def _coming(found: Sequence[Difference]) -> list[str]:
    breaking = sum(difference.breaks for difference in found)
    return [
        *difference_groups(found),
        f"For queries of these tables: {breaking:,} differences break some, {len(found) - breaking:,} do not.",
        "",
    ]


def print_verification(adoption: AdoptionSettings, options: LoadOptions) -> None:
    """Prints the counts of both sides by table; ends with 1 where a row of the adopted tables is not stored."""
    if adoption.database:
        remember_credentials(adoption.database)
    origin = adopted_tables(adoption.urls, adoption.named, adoption.database, adoption.schema)
    with inspect.reading(*options.target) as reader:
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
        lines += [f"  and {more:,} days more that differ"] if more > 0 else []
    missing = sum(each.missing for each in found)
    return [*lines, "", f"{missing:,} rows are not stored." if missing else "Every row is stored."]
