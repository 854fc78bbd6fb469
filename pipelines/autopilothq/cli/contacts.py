"""The commands `contacts delete`, `eject` and `unsubscribe`, which change contacts of the account."""

from typing import Any

import click

from .options import WholeNumber, add_options, allow_http_option, destination_options, wait_option


@click.group("contacts", short_help="Delete, eject or unsubscribe contacts in Autopilot.")
def contact_commands() -> None:
    """Delete, eject or unsubscribe contacts of the Autopilot account, not of the warehouse: that is `forget`."""


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
    destination_options,
)


@contact_commands.command("delete")
@_common
def delete_contacts(file: str | None, query: str | None, **options: Any) -> None:
    """Permanently delete contacts from the account.

    FILE has an email or a contact's id on each line; - is stdin. What is in the warehouse stays: see `forget`.
    """
    _run("delete", file, query, (), options)


@contact_commands.command("eject")
@click.option("--journey", "journeys", multiple=True, required=True, metavar="ID", help="The journey's id; repeatable.")
@_common
def eject_contacts(file: str | None, query: str | None, journeys: tuple[str, ...], **options: Any) -> None:
    """Take contacts out of journeys.

    FILE has an email or a contact's id on each line; - is stdin. The id of a journey is the campaign_id of its
    events.
    """
    _run("eject", file, query, journeys, options)


@contact_commands.command("unsubscribe")
@_common
def unsubscribe_contacts(file: str | None, query: str | None, **options: Any) -> None:
    """Unsubscribe contacts from all email.

    FILE has an email or a contact's id on each line; - is stdin.
    """
    _run("unsubscribe", file, query, (), options)


def _run(action: str, file: str | None, query: str | None, journeys: tuple[str, ...], options: dict[str, Any]) -> None:
    if (file is None) == (query is None):
        raise click.UsageError("Which contacts? Name a FILE (- is stdin), or a --query.")
    from . import contacting

    contacting.change_contacts(action, file, query, journeys, options)
