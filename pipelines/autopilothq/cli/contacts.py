"""The commands `contacts delete`, `eject` and `unsubscribe`, which change contacts of the account."""

from typing import Any

import click

from .options import WholeNumber, add_options, allow_http_option, options_as, target_options, wait_option
from .send_options import SendOptions


@click.group("contacts", short_help="Delete, eject or unsubscribe contacts in Autopilot.")
def contact_commands() -> None:
    """Delete, eject or unsubscribe contacts in Autopilot. To remove a person from the warehouse, use `forget`.

    The key is the setting destination.autopilothq.api_key of dlt's configuration.
    """


_common = add_options(
    click.argument("file", metavar="[FILE]", required=False),
    click.option("--query", metavar="SQL", help="A query of the warehouse, with a column contact_id or email."),
    click.option(
        "--max",
        "most",
        type=WholeNumber(min=0),
        metavar="N",
        help="Refuse if there are more contacts than this.  [default: half of the account's]",
    ),
    click.option(
        "--confirm", type=WholeNumber(min=0), metavar="N", help="Proceed despite --max, if there are exactly this many."
    ),
    click.option("--dry-run", is_flag=True, help="Show how many and whom, their emails masked; change nothing."),
    wait_option,
    allow_http_option,
    target_options,
    options_as(SendOptions),
)


@contact_commands.command("delete")
@_common
def delete_contacts(**given: Any) -> None:
    """Permanently delete contacts from the account.

    FILE has an email or a contact's id on each line; - is stdin. What is in the warehouse stays: see `forget`.
    """
    _run("delete", (), **given)


@contact_commands.command("eject")
@click.option("--journey", "journeys", multiple=True, required=True, metavar="ID", help="The journey's id; repeatable.")
@_common
def eject_contacts(journeys: tuple[str, ...], **given: Any) -> None:
    """Take contacts out of journeys.

    FILE has an email or a contact's id on each line; - is stdin. The id of a journey is the campaign_id of its
    events.
    """
    _run("eject", journeys, **given)


@contact_commands.command("unsubscribe")
@_common
def unsubscribe_contacts(**given: Any) -> None:
    """Unsubscribe contacts from all email.

    FILE has an email or a contact's id on each line; - is stdin.
    """
    _run("unsubscribe", (), **given)


def _run(
    action: str,
    journeys: tuple[str, ...],
    file: str | None,
    query: str | None,
    most: int | None,
    confirm: int | None,
    options: SendOptions,
) -> None:
    if (file is None) == (query is None):
        raise click.UsageError("Which contacts? Name a FILE (- is stdin), or a --query.")
    from . import contacting

    contacting.change_contacts(action, journeys, file, query, (most, confirm), options)
