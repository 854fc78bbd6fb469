"""The commands `schema`, which also upgrades tables, and `status`, which inspect a destination."""

from datetime import timedelta

import click

from ..warehouses.settings import TargetOptions
from .options import Duration, LocalPath, target_options, wait_option

SCHEMA_FORMATS = ("table", "markdown", "json", "yaml", "dbt", "mermaid", "sql")


class _WithDefault(click.Group):
    """A group that runs `show` by default, and shows its options in the help."""

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


@click.group(cls=_WithDefault, short_help="Show the tables of the catalogue or the destination.")
def schema() -> None:
    """Show the tables of the catalogue or the destination, compare them, or upgrade them.

    Without a command, it shows them.
    """


@schema.command()
@click.argument("tables", metavar="[TABLE]...", nargs=-1)
@click.option(
    "--format",
    "form",
    type=click.Choice(SCHEMA_FORMATS),
    default="table",
    show_default=True,
    help="The format. yaml and json are dlt's schema, dbt is a sources.yml, sql are CREATE statements.",
)
@click.option(
    "--live",
    is_flag=True,
    help="Read the destination: its tables, with counts of rows, shares of nulls, and when columns came.",
)
@target_options
@wait_option
def show(tables: tuple[str, ...], form: str, live: bool, target: TargetOptions, wait: timedelta) -> None:
    """Print tables, columns, types and descriptions."""
    from . import inspecting

    inspecting.print_tables(tables, form, live, target, wait)


@schema.command(short_help="Report what breaks queries written for another schema.")
@click.option(
    "--against",
    metavar="DATASET[/CREDENTIALS]",
    help="The schema that queries were written for, here or elsewhere.  [default: the catalogue]",
)
@target_options
@wait_option
def diff(against: str | None, target: TargetOptions, wait: timedelta) -> None:
    """Report what breaks queries that were written for another schema; exit with 1 if something does.

    Before you leave Segment's loader: load the archive, then compare with the schema that Segment made. CREDENTIALS
    begin after the first slash; without them it is another dataset of the same destination. A URL such as
    postgresql://... may lead to another kind of destination.
    """
    from . import inspecting

    inspecting.print_differences(against, target, wait)


@schema.command("upgrade", short_help="Bring the tables of an earlier version up to this one.")
@click.option("--dry-run", is_flag=True, help="Show the statements, and change nothing.")
@target_options
@wait_option
def upgrade_schema(dry_run: bool, target: TargetOptions, wait: timedelta) -> None:
    """Bring the tables of an earlier version up to this one: types, keys, indexes, accounts, names of pages.

    Shows each statement, and then runs it. No stored row or column is removed. If it is interrupted, the next call
    continues from there.
    """
    from . import inspecting

    inspecting.upgrade_tables(dry_run, target, wait)


@click.command()
@click.option("--max-age", type=Duration(), metavar="AGE", help="Exit with 1 if the newest load is older: 30m, 2h, 1d.")
@click.option(
    "--received",
    type=LocalPath(),
    metavar="FOLDER",
    help="Also show what waits in the folder of `receive`: files that are not published, or not loaded.",
)
@click.option(
    "--ask-ortto",
    is_flag=True,
    help="Compare with what Ortto counts now, not with what it counted when the last load asked.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON.")
@target_options
@wait_option
def status(
    max_age: timedelta | None,
    received: str | None,
    ask_ortto: bool,
    as_json: bool,
    target: TargetOptions,
    wait: timedelta,
) -> None:
    """Show whether loads run and data comes in."""
    from . import inspecting

    inspecting.print_status(max_age, received, ask_ortto, as_json, target, wait)
