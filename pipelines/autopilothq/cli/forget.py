"""The command `forget`, which deletes a person."""

from datetime import timedelta
from typing import Any

import click

from ..privacy import MAX_IDS
from ..warehouses.settings import TargetOptions
from .options import WholeNumber, allow_http_option, json_option, target_options, wait_option


@click.command()
@click.option("--user-id", "user_ids", metavar="ID", multiple=True, help="The person's id in your own systems.")
@click.option("--email", "emails", metavar="EMAIL", multiple=True, help="The person's email; its case does not matter.")
@click.option("--contact-id", "contact_ids", metavar="ID", multiple=True, help="The person's id in Autopilot.")
@click.option(
    "--anonymous-id", "anonymous_ids", metavar="ID", multiple=True, help="The id of one of the person's devices."
)
@click.option(
    "--archive", metavar="URL", multiple=True, help="Also rewrite the files there without the person's lines."
)
@click.option(
    "--rewrite", is_flag=True, help="Rewrite the database, so that its files do not keep the removed rows' bytes."
)
@click.option("--dry-run", is_flag=True, help="Report what would be removed, and change nothing.")
@click.option(
    "--max-ids",
    type=WholeNumber(min=0),
    default=MAX_IDS,
    show_default=True,
    metavar="N",
    help="Refuse if the person has more ids than this.",
)
@click.option(
    "--confirm", type=WholeNumber(min=0), metavar="N", help="Proceed despite --max-ids, if there are exactly this many."
)
@target_options
@wait_option
@allow_http_option
@json_option
def forget(
    archive: tuple[str, ...],
    rewrite: bool,
    dry_run: bool,
    max_ids: int,
    confirm: int | None,
    target: TargetOptions,
    wait: timedelta,
    as_json: bool,
    **given: Any,
) -> None:
    """Remove a person, and keep them out of later loads.

    All given ids belong to one person; their options are repeatable, and so is --archive. An id that shares a row with
    one of them counts as the person's, unless it also appears with ids of others: check with --dry-run first.
    """
    from ..privacy.deletion import Confirmation
    from . import deleting

    deleting.delete(given, target, archive, dry_run, wait, rewrite, Confirmation(confirm, max_ids), as_json)
