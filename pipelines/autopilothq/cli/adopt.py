"""The command `adopt`, which adopts tables that a loader left in a warehouse."""

from typing import Any

import click

from .options import LoadOptions, load_options, read_credentials


class _TablePatterns(click.ParamType[tuple[str, str]]):
    """A table and a pattern of its files, such as `email_opened=opened/*.parquet`."""

    name = "table=pattern"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Returns the table and the pattern."""
        table, equals, pattern = value.partition("=")
        if not (table and equals and pattern):
            self.fail(f"Expected TABLE=PATTERN, such as email_opened=opened/*.parquet, but got {value!r}.", param, ctx)
        return table, pattern


@click.command("adopt", short_help="Adopt what Segment's loader left in a warehouse.")
@click.argument("urls", metavar="[FOLDER]...", nargs=-1)
@click.option(
    "--table",
    "tables",
    type=_TablePatterns(),
    multiple=True,
    metavar="NAME=PATTERN",
    help="The files of a table, below the folder; repeatable.  [default: files and folders named like tables]",
)
@click.option(
    "--from",
    "database",
    metavar="URL",
    callback=read_credentials,
    help="Read a database instead: postgresql://... or duckdb:///FILE.",
)
@click.option(
    "--schema", metavar="NAME", default="autopilothq", show_default=True, help="The schema of the tables there."
)
@click.option(
    "--verify", is_flag=True, help="Load nothing, compare with what is stored; exit with 1 if rows are missing."
)
@click.option("--report-cut", is_flag=True, help="Also list the columns with texts that Segment may have cut.")
@load_options
def adopt_tables(
    urls: tuple[str, ...],
    tables: tuple[tuple[str, str], ...],
    database: str | None,
    schema: str,
    verify: bool,
    report_cut: bool,
    options: LoadOptions,
) -> None:
    """Adopt tables that Segment's loader left in a warehouse: exported files, s3://, gs://, az://, or a database.

    Rows are stored unchanged, and rows that are stored already stay. Texts that Segment has cut become whole if the
    archive is loaded as well, before or after this. The URL of a database may be given as env:NAME or @FILE.
    """
    from ..sources.adopt.origin import AdoptedTables
    from . import adopting

    if bool(urls) == bool(database):
        got = f"both {' '.join(urls)} and --from" if urls else "neither"
        raise click.UsageError(f"Expected a FOLDER to adopt, or a database with --from, but got {got}.")
    named: dict[str, list[str]] = {}
    for table, pattern in tables:
        named.setdefault(table, []).append(pattern)
    origin = AdoptedTables(urls, named, database, schema)
    if verify:
        adopting.print_verification(origin, options)
    else:
        adopting.run_adoption(origin, options, report_cut)
