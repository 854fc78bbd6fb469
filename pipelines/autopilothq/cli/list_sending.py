"""Runs `send audience --list`: an audience's trait, and the account's list that follows it."""

from typing import Any

from .. import runner
from ..destination import Counts, audiences, lists
from ..display import shortened
from . import out
from .sending import _deliver, _end, _locked, _log, _run_query, _settings, _skipped, reporter


def send_with_list(name: str, query: str, key: str, follows: tuple[str, bool, bool], options: dict[str, Any]) -> None:
    """Sends who entered an audience and who left it, then puts them on a list and takes them off.

    `follows` are the list's name or id, whether it is made where it is missing, and whether the trait is left out.
    """
    list_name, create, list_only = follows
    show = out.document if options["dry_run"] else None
    counts, lines = Counts(), []
    with runner.explained():
        given = _settings(options)
        with _locked(options):
            found, skipped = audiences.rows(*_run_query(options, query), key)
            to = lists.find_list(given, list_name, create, show)
            with _log(options) as log:
                if not list_only:
                    changes, unchanged = audiences.changes(name, key, found, log.members(audiences.slug(name)))
                    counts = _deliver(changes, log, given, options)
                    came = sum(item.content == "true" for item in changes)
                    lines.append(
                        f"{audiences.slug(name)}: {len(found):,} members, {came:,} to enter,"
                        f" {len(changes) - came:,} to leave, {unchanged:,} unchanged"
                    )
                sync = lists.sync_list(name, key, found, to, log, given, counts, reporter(), show)
    lines.append(
        f"list {shortened(to.title or to.list_id)}: {sync.put_on:,} to put on, {sync.taken_off:,} to take off,"
        f" {sync.unchanged:,} unchanged"
    )
    out.print_lines(lines)
    _end(counts, [], options["dry_run"], _skipped(skipped, key))
