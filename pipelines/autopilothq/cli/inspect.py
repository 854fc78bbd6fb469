"""The commands that look: `schema`, `schema diff`, `status`."""

import difflib
import itertools
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import click

from .. import inspect, runner
from .. import upgrade as upgrading
from ..display import json_text, shortened
from ..inspect import Difference, Status
from . import out
from .options import Duration, credentials_of, destination_options, wait_option, where

BREAKS, STALE, LEFT = 1, 1, 1
FORMATS = (*inspect.FORMATS, "sql")


class _WithDefault(click.Group):
    """A group whose command `show` is meant where none is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["show", *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        options = (param for param in self.commands["show"].get_params(ctx) if isinstance(param, click.Option))
        found = (option.get_help_record(ctx) for option in options)
        with formatter.section("Options"):
            formatter.write_dl([record for record in found if record])
        self.format_commands(ctx, formatter)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "[TABLE]... [OPTIONS]")
        formatter.write_usage(ctx.command_path, "diff [OPTIONS]")
        formatter.write_usage(ctx.command_path, "upgrade [OPTIONS]")


@click.group(cls=_WithDefault)
def schema() -> None:
    """What the tables are: the catalogue's, the destination's, and what differs.

    Without a command, `show` is meant.
    """


@schema.command()
@click.argument("tables", metavar="[TABLE]...", nargs=-1)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="How to print them. yaml and json are dlt's schema, dbt is a sources.yml, sql makes the tables.",
)
@click.option("--live", is_flag=True, help="As the destination has them, with rows, nulls, and when columns came.")
@destination_options
def show(
    tables: tuple[str, ...],
    form: str,
    live: bool,
    destination: str | None,
    credentials: str | None,
    dataset: str | None,
) -> None:
    """Print tables, columns, types and descriptions."""
    if live:
        with inspect.reading(destination, credentials, dataset) as reader:
            there, name = list(inspect.tables_of(reader)), reader.name
            found = inspect.described(reader, tables)
        _check(tables, there, f"The dataset {name}")
    else:
        found, name = inspect.catalogue(), inspect.dataset_name(dataset)
        _check(tables, [table.name for table in found], "The catalogue")
        found = [table for table in found if not tables or table.name in tables]
    if form == "sql":
        with runner.explained():
            out.document(inspect.ddl(found, *inspect.target(destination, credentials, dataset)))
    else:
        out.document(inspect.FORMATS[form](found, name))


def _check(names: Sequence[str], there: Sequence[str], where: str) -> None:
    for name in names:
        if name not in there:
            near = difflib.get_close_matches(name, there, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise click.BadParameter(f"{where} has no table {name}.{hint}", param_hint="TABLE")


@schema.command()
@click.option(
    "--against",
    metavar="DATASET[/CREDENTIALS]",
    help="The schema that queries were written for, here or elsewhere.  [default: the catalogue]",
)
@destination_options
def diff(against: str | None, destination: str | None, credentials: str | None, dataset: str | None) -> None:
    """Tell what queries made for another schema meet in this one; exit with 1 if some break.

    Before you leave Segment's loader: load the archive, then compare with the schema that Segment made. CREDENTIALS
    begin after the first slash; without them it is another dataset in the same place. A URL such as postgresql://...
    may lead to another kind of destination.
    """
    if against is None:
        with inspect.reading(destination, credentials, dataset) as reader:
            place, there, dialect = reader.target, inspect.schema_of(reader), reader.dialect
        wanted_place, wanted = "the catalogue", inspect.schema_of_catalogue(reader.kind, dialect)
        words, not_yet = inspect.CATALOGUE, inspect.LATER
    else:
        there_dataset, slash, other = against.partition("/")
        against = f"{there_dataset}/{credentials_of(other)}" if slash else against
        with inspect.elsewhere(against, destination, credentials) as reader:
            wanted_place, wanted = reader.target, inspect.schema_of(reader)
        words, not_yet = inspect.SWITCH, frozenset[str]()
        try:
            with inspect.reading(destination, credentials, dataset) as reader:
                place, there, dialect = reader.target, inspect.schema_of(reader), reader.dialect
        except inspect.NothingThere:
            place = "the catalogue, because nothing was loaded yet"
            kind, dialect = inspect.kind_of(destination, credentials, dataset)
            there = inspect.schema_of_catalogue(kind, dialect)
            words = inspect.SWITCH_UNLOADED
    found = inspect.differences(wanted, there, words, not_yet, dialect)
    out.print_lines(_told(found, wanted_place, place))
    if any(difference.breaks for difference in found):
        sys.exit(BREAKS)


@schema.command("upgrade")
@click.option("--dry-run", is_flag=True, help="Show the statements, and change nothing.")
@destination_options
@wait_option
def upgrade_schema(
    dry_run: bool, destination: str | None, credentials: str | None, dataset: str | None, wait: timedelta
) -> None:
    """Make the tables of an earlier version what this one makes: types, keys, indexes, accounts, names of pages.

    Shows each statement, and then runs it. No row or column that is stored is removed. Broken off, it goes on when it
    is called again.
    """
    place = where(destination, credentials, dataset)
    done = upgrading.upgrade(
        destination, credentials, dataset, dry_run, wait, lambda text: out.print_lines([f"{text};", ""])
    )
    for table, why in done.left.items():
        out.print_lines([f"{shortened(table)} stays as it is: {why}.", ""])
    count = len(done.statements)
    would = "would be " if dry_run else ""
    said = f"{count:,} statement{'s' * (count != 1)} {would}run" if count else "Nothing is to be upgraded"
    out.print_line(f"{said} in {place['location']}, dataset {place['dataset']}.")
    if done.left:
        sys.exit(LEFT)


def _told(found: Sequence[Difference], wanted: str, there: str) -> list[str]:
    breaking = [difference for difference in found if difference.breaks]
    harmless = [difference for difference in found if not difference.breaks]
    lines = [f"queries for  {wanted}", f"run on       {there}"]
    for title, group in (("breaks queries", breaking), ("breaks nothing", harmless)):
        if group:
            lines += ["", f"{title}:", *_by_meaning(group)]
    return [*lines, "", f"{len(breaking):,} differences break queries, {len(harmless):,} do not."]


def _by_meaning(found: Sequence[Difference]) -> list[str]:
    """What differs in the same way is told once, a table a line."""
    kinds: dict[tuple[str, str, str], list[Difference]] = {}
    for difference in found:
        what = "column" if difference.column else "table"
        kinds.setdefault((difference.change, what, difference.meaning), []).append(difference)
    lines = []
    for (change, what, meaning), group in kinds.items():
        heads = {"type": f"type {meaning}", "key": f"missing {meaning}"}
        lines.append(f"  {heads.get(change, f'{change} {what}, {meaning}')}")
        if what == "table":
            lines.append(f"    {', '.join(shortened(difference.table) for difference in group)}")
            continue
        for table, columns in itertools.groupby(group, key=lambda difference: difference.table):
            names = ", ".join(shortened(difference.column) for difference in columns)
            lines.append(f"    {shortened(table)}: {names}")
    return lines


@click.command()
@click.option("--max-age", type=Duration(), metavar="AGE", help="Exit with 1 if the newest load is older: 30m, 2h, 1d.")
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON.")
@destination_options
def status(
    max_age: timedelta | None,
    as_json: bool,
    destination: str | None,
    credentials: str | None,
    dataset: str | None,
) -> None:
    """Tell whether loads run and data comes in."""
    with inspect.reading(destination, credentials, dataset) as reader:
        found = inspect.read_status(reader, datetime.now(UTC))
    out.document(json_text(inspect.status_dict(found, max_age)) if as_json else inspect.status_text(found))
    if max_age is not None and found.is_older(max_age):
        if not as_json:
            out.print_lines(["", _stale(found, max_age)])
        sys.exit(STALE)


def _stale(found: Status, max_age: timedelta) -> str:
    if found.newest_load is None:
        return "Too old: no row was loaded yet."
    since = inspect.age(found.now - found.newest_load)
    return f"Too old: the newest load was {since} ago, more than {inspect.age(max_age)}."
