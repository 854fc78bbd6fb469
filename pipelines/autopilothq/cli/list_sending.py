"""Runs `send audience --list`: sends an audience's trait, and synchronizes a list of the account with it."""

from collections.abc import Sequence
from itertools import islice

from ..destination import Counts, audiences, lists
from ..destination.audiences import Audience
from ..destination.contact_requests import ContactRequest
from ..destination.lists import AccountList, ListSync
from ..display import json_text, shortened, visible
from ..explain import explained
from . import out
from .send_options import SendOptions
from .sending import (
    autopilot_settings,
    deliver_changes,
    delivery_log,
    end_run,
    person_rows,
    reporter,
    sending_lock,
    skipped_line,
)

SHOWN_MEMBERS = 5  # the most members that a dry run shows of those who enter, and of those who leave


def send_with_list(
    name: str, query: str, key: str, list_name: str, create_list: bool, list_only: bool, options: SendOptions
) -> None:
    """Sends who entered and who left an audience, then puts the former on a list and takes the latter off it.

    `list_name` is the list's name or id. With `create_list`, a missing list is created; with `list_only`, no trait is
    sent.
    """
    counts, lines = Counts(), list[str]()
    planned: list[ContactRequest] = []  # what a dry run would send
    with explained():
        given = autopilot_settings(options.unknown_traits)
        base = visible(given.api.base_url.rstrip("/"))
        with sending_lock(options), person_rows(query, key, options) as found:
            audience = Audience(audiences.slug(name), key, found)
            account_list = lists.find_list(given, list_name, create_list, options.dry_run)
            if options.requests and not account_list.list_id:
                out.print_lines([f"POST {base}/list", json_text({"name": account_list.title})])
            with delivery_log(options) as log:
                if not list_only:
                    counts, line = deliver_changes(audience, log, given, options, is_all=False)
                    lines.append(line)
                show = planned.append if options.dry_run else None
                sync = lists.sync_list(audience, account_list, log, given, counts, reporter(), show)
    if options.requests:
        out.print_lines(f"{request.method} {base}{request.endpoint.partition(' ')[2]}" for request in planned)
        planned = []
    out.print_lines([*lines, *_list_lines(account_list, sync, planned)])
    end_run(counts, options, more=skipped_line(found.skipped, key))


def _list_lines(account_list: AccountList, sync: ListSync, planned: Sequence[ContactRequest]) -> list[str]:
    """Returns lines about the changes of a list, and about the first members in planned requests."""
    new = "" if account_list.list_id else " (new)"
    title = f"{shortened(account_list.title or account_list.list_id)}{new}"
    lines = [f"list {title}: {sync.put_on:,} to put on, {sync.taken_off:,} to take off, {sync.unchanged:,} unchanged"]
    for what, content in (("on", "true"), ("off", "false")):
        people = [request.row.email or "" for request in planned if request.row.content == content]
        if people:
            more = f" and {len(people) - SHOWN_MEMBERS:,} more" if len(people) > SHOWN_MEMBERS else ""
            lines.append(f"  {what}: {', '.join(map(shortened, islice(people, SHOWN_MEMBERS)))}{more}")
    return lines
