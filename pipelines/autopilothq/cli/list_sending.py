"""Runs `send audience --list`: sends an audience's trait, and synchronizes a list of the account with it."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

from .. import runner
from ..destination import Counts, audiences, lists
from ..destination.contact_requests import ContactRequest
from ..destination.lists import AccountList, ListSync
from ..display import json_text, shortened, visible
from . import out
from .sending import (
    autopilot_settings,
    deliver_changes,
    delivery_log,
    end_run,
    query_rows,
    reporter,
    sending_lock,
    skipped_line,
)

SHOWN_MEMBERS = 5  # members that a dry run shows of those who would enter, and of those who would leave


def send_with_list(name: str, query: str, key: str, follows: tuple[str, bool, bool], options: dict[str, Any]) -> None:
    """Sends who entered and who left an audience, then adds them to a list and removes them from it.

    `follows` are the list's name or id, whether to create it if it is missing, and whether to leave out the trait.
    """
    list_name, create, list_only = follows
    dry_run, shown = options["dry_run"], list[ContactRequest]()
    counts, lines = Counts(), []
    with runner.explained():
        given = autopilot_settings(options["unknown_traits"])
        base = visible(given.api.base_url.rstrip("/"))
        with sending_lock(options):
            found, skipped = audiences.person_rows(*query_rows(options, query), key)
            to = lists.find_list(given, list_name, create, dry_run)
            if options["requests"] and not to.list_id:
                out.print_lines([f"POST {base}/list", json_text({"name": to.title})])
            with delivery_log(options) as log:
                if not list_only:
                    counts, line = deliver_changes(name, key, found, log, given, options, is_all=False)
                    lines.append(line)
                show = shown.append if dry_run else None
                sync = lists.sync_list(name, key, found, to, log, given, counts, reporter(), show)
    if options["requests"]:
        out.print_lines(f"{each.method} {base}{each.endpoint.partition(' ')[2]}" for each in shown)
    out.print_lines([*lines, *_list_lines(to, sync, [] if options["requests"] else shown)])
    end_run(counts, [], dry_run, skipped_line(skipped, key))


def _list_lines(to: AccountList, sync: ListSync, shown: Sequence[ContactRequest]) -> list[str]:
    """Returns lines about the changes of a list, and in a dry run the members concerned."""
    new = "" if to.list_id else " (new)"
    title = f"{shortened(to.title or to.list_id)}{new}"
    lines = [f"list {title}: {sync.put_on:,} to put on, {sync.taken_off:,} to take off, {sync.unchanged:,} unchanged"]
    for what, content in (("on", "true"), ("off", "false")):
        people = [each.row.email or "" for each in shown if each.row.content == content]
        if people:
            more = f" and {len(people) - SHOWN_MEMBERS:,} more" if len(people) > SHOWN_MEMBERS else ""
            lines.append(f"  {what}: {', '.join(map(shortened, islice(people, SHOWN_MEMBERS)))}{more}")
    return lines
