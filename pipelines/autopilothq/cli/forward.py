"""The command `forward`, which sends messages on to an API that accepts Segment's."""

from typing import Any

import click

from .options import allow_http_option, credentials_of, is_stream, options_as, target_options, wait_option
from .send_options import SendOptions


def _write_key(_: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    if not value.startswith(("env:", "@")):
        raise click.BadParameter(
            "Expected env:NAME or @FILE, got ***: everybody on this machine can see what a command line holds.",
            param=param,
        )
    return credentials_of(value, param)


@click.command("forward", short_help="Send messages on to Segment, RudderStack or the like.")
@click.argument("paths", metavar="[PATH...|-]", nargs=-1)
@click.option(
    "--to", "base_url", metavar="URL", help="Where batches are posted to.  [default: https://api.segment.io/v1/batch]"
)
@click.option(
    "--write-key",
    metavar="env:NAME|@FILE",
    callback=_write_key,
    help="The write key of the source there.  [default: the setting destination.segment.write_key]",
)
@click.option("--query", metavar="SQL", help="Rows of the warehouse, turned back into messages, instead of files.")
@click.option(
    "--requests-per-second",
    type=click.FloatRange(min=0, min_open=True),
    metavar="NUMBER",
    help="The pace; a request has 100 messages.  [default: 10]",
)
@click.option("--dry-run", is_flag=True, help="Print the requests, send nothing.")
@wait_option
@allow_http_option
@target_options
@options_as(SendOptions)
def forward(paths: tuple[str, ...], query: str | None, options: SendOptions, **api: Any) -> None:
    """Send messages on to Segment, RudderStack, or another API like theirs.

    PATH is NDJSON, gzip or not: files, folders, globs, s3://. The path - is stdin, whose lines are sent as they come.
    """
    if bool(paths) == bool(query):
        raise click.UsageError(
            f"Name what to forward: either paths (- is stdin) or --query, got {'both' if paths else 'neither'}."
        )
    streams = is_stream(paths)
    from . import forwarding

    if query:
        forwarding.forward_rows(query, api, options)
    elif streams:
        forwarding.forward_stream(api, options)
    else:
        forwarding.forward_files(paths, api, options)
