"""The commands `hooks add`, `list` and `remove`, for Autopilot's REST hooks."""

from typing import Any

import click

from ..catalog import HOOK_EVENTS
from .options import allow_http_option, credentials_of, json_option, with_dlt


@click.group("hooks", short_help="Add, list or remove Autopilot's REST hooks.")
def hook_commands() -> None:
    """Register Autopilot's REST hooks, which post changes of contacts to `receive`.

    The key is the setting destination.autopilothq.api_key of dlt's configuration.
    """


_dry_run = click.option("--dry-run", is_flag=True, help="Print the requests, send nothing.")


@hook_commands.command("add", short_help="Have contacts' events posted to a URL.")
@click.argument("url", metavar="URL|env:NAME|@FILE", callback=lambda _, param, value: credentials_of(value, param))
@click.option(
    "--event",
    "events",
    multiple=True,
    type=click.Choice([event.name for event in HOOK_EVENTS]),
    metavar="EVENT",
    help=f"One of {', '.join(event.name for event in HOOK_EVENTS)}; repeatable.  [default: all]",
)
@_dry_run
@allow_http_option
@with_dlt
def add_command(url: str, events: tuple[str, ...], dry_run: bool) -> None:
    """Have contacts' events posted to URL, such as https://HOST/hook/autopilot/NAME?key=KEY.

    This follows Autopilot's old documentation and was never tried with a live account: try --dry-run, then one --event,
    and check with `hooks list`. The URL may be in a variable or a file, because its key is secret.
    """
    from . import registering

    registering.register_hooks(url, events or tuple(event.name for event in HOOK_EVENTS), dry_run)


@hook_commands.command("list")
@json_option
@allow_http_option
@with_dlt
def list_command(as_json: bool) -> None:
    """List the account's hooks, their secrets masked."""
    from . import registering

    registering.print_hooks(as_json)


@hook_commands.command("remove")
@click.argument("hook_ids", metavar="[ID]...", nargs=-1)
@click.option(
    "--url",
    metavar="URL|env:NAME|@FILE",
    callback=lambda _, param, value: value and credentials_of(value, param),
    help="All hooks that post to this URL.",
)
@_dry_run
@allow_http_option
@with_dlt
def remove_command(hook_ids: tuple[str, ...], url: str | None, **options: Any) -> None:
    """Remove hooks by their ids, or by the URL that they post to."""
    if bool(hook_ids) == bool(url):
        raise click.UsageError(
            f"Which hooks? Name either their ids or their --url, got {'both' if url else 'neither'}."
        )
    from . import registering

    registering.unregister_hooks(hook_ids, url, **options)
