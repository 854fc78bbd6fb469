"""The commands `send`, and `deliveries`, which shows the delivery log."""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import wraps
from typing import Any

import click

from ..catalog import STATUSES
from ..warehouses.settings import TargetOptions
from .options import Time, add_options, allow_http_option, is_stream, options_as, target_options, wait_option
from .send_options import SendOptions

ACCOUNT_NAMES = ("autopilot", "ortto")  # the names of `destination.ACCOUNT_KINDS`
KEY_COLUMNS = ("email", "user_id")  # the columns by which `destination` identifies a person
_Command = Callable[..., Any]


@click.group()
def send() -> None:
    """Send to Autopilot, or to Ortto with --to ortto.

    The key is the setting destination.autopilothq.api_key of dlt's configuration, or
    destination.autopilothq.ortto.api_key.
    """


def _to(what: str) -> Callable[[_Command], _Command]:
    return click.option(
        "--to", type=click.Choice(ACCOUNT_NAMES), default=ACCOUNT_NAMES[0], show_default=True, help=what
    )


_options = add_options(
    target_options,
    wait_option,
    allow_http_option,
    click.option(
        "--unknown-traits",
        type=click.Choice(["send", "refuse"]),
        help="Messages with traits that the account has no field for.  [default: send]",
    ),
    _to("The account that receives."),
    click.option("--dry-run", is_flag=True, help="Show what would change, send nothing."),
    click.option("--requests", is_flag=True, help="With --dry-run: print the requests instead."),
    options_as(SendOptions),
)


def _sending(command: _Command) -> _Command:
    """Adds the options that all sending commands have, and refuses `--requests` without `--dry-run`."""
    command = _options(command)

    @wraps(command)
    def run(**options: Any) -> None:
        if options["requests"] and not options["dry_run"]:
            raise click.UsageError("--requests prints what --dry-run would send: give both.")
        command(**options)

    return run


_query = click.option("--query", required=True, metavar="SQL", help="A query of the warehouse.")
_key = click.option(
    "--key",
    type=click.Choice(KEY_COLUMNS),
    default=KEY_COLUMNS[0],
    show_default=True,
    help="The column that identifies a person.",
)


@send.command("messages", short_help="Send identify and track messages of files or stdin.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "--trigger",
    "triggers",
    multiple=True,
    metavar="EVENT=ID",
    help="The trigger of an event's journey; with --to ortto its custom activity; repeatable.",
)
@_sending
def send_messages(paths: tuple[str, ...], triggers: tuple[str, ...], options: SendOptions) -> None:
    """Send Segment's identify and track messages: NDJSON, gzip or not; files, folders, globs, s3://.

    The path - is stdin, whose lines are sent as they come.
    """
    streams = is_stream(paths)
    mapping: dict[str, list[str]] = {}
    for trigger in triggers:
        event, _, id_ = trigger.rpartition("=")
        if not event or not id_:
            raise click.BadParameter(
                f"Expected EVENT=ID, such as 'Order Completed=0003', but got {trigger!r}.", param_hint="--trigger"
            )
        mapping.setdefault(event, []).append(id_)
    if streams:
        from . import streaming

        streaming.send_stream(mapping, options)
        return
    from . import sending

    sending.send_files(paths, mapping, options)


@send.command("traits", short_help="Send one identify for each row of a query.")
@_query
@_key
@_sending
def send_traits(query: str, key: str, options: SendOptions) -> None:
    """Send one identify for each row of a query; its columns are traits."""
    from . import sending

    sending.send_rows(query, key, options)


@send.command("audience", short_help="Send who entered an audience and who left it.")
@click.argument("name")
@_query
@_key
@click.option("--list", "list_name", metavar="NAME|ID", help="A list that follows the audience, by its name or its id.")
@click.option("--create-list", is_flag=True, help="Create the list if the account has none of that name.")
@click.option("--list-only", is_flag=True, help="Keep only the list, and send no trait.")
@_sending
def send_audience(
    name: str, query: str, key: str, list_name: str | None, create_list: bool, list_only: bool, options: SendOptions
) -> None:
    """Send who entered an audience and who left it; the query returns its present members."""
    if list_name is not None:
        if options.to != ACCOUNT_NAMES[0]:
            raise click.UsageError("--list is one of Autopilot's lists; Ortto has the audience's tag instead.")
        from . import list_sending

        list_sending.send_with_list(name, query, key, list_name, create_list, list_only, options)
        return
    if create_list or list_only:
        raise click.UsageError("Which list? Name it with --list.")
    from . import sending

    sending.send_changes(name, query, key, options)


@click.command("deliveries", short_help="Show the last outcome of each message and trigger.")
@_to("The account.")
@click.option("--status", type=click.Choice(list(STATUSES)), help="Only those with this outcome.")
@click.option("--since", type=Time(), metavar="TIME", help="Only those since this time (UTC).")
@wait_option
@target_options
def show_deliveries(
    to: str, status: str | None, since: datetime | None, wait: timedelta, target: TargetOptions
) -> None:
    """Show the last outcome of each message and trigger that was sent."""
    from . import sending

    sending.print_deliveries(to, status, since, target, wait)
