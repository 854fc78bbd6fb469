"""The command `mapping`, which shows an archive's unknown events, and proposes which of Autopilot's they are."""

import click

from .options import WholeNumber, json_option, with_dlt


@click.command("mapping", short_help="Propose a mapping for an archive's unknown events.")
@click.argument("urls", metavar="[URL]...", nargs=-1)
@click.option(
    "--lines",
    type=WholeNumber(min=1),
    metavar="N",
    default=100_000,
    show_default=True,
    help="How many lines to look at.",
)
@json_option
@with_dlt
def show_mapping(urls: tuple[str, ...], lines: int, as_json: bool) -> None:
    """Show an archive's unknown events, and propose a mapping as TOML.

    Ortto's events that came through Segment have names that were typed by hand. The mapping says which of Autopilot's
    events they are. Nothing is loaded, and values are masked. Without a URL, the setting
    sources.autopilothq.archive_url of dlt's configuration names the archive.
    """
    from .proposing import print_mapping

    print_mapping(urls, lines, as_json)
