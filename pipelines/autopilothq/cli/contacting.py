"""Runs the commands that change many contacts of the account, and prints the outcomes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple, TextIO

from ..catalog import CONTACTS
from ..clients.autopilot import Autopilot
from ..destination import Counts, DeliveryLog, DestinationSettings, contacts, log_dataset
from ..destination.contact_requests import ContactRequests, plan_requests
from ..destination.contacts import ContactAction, ContactJob
from ..disk import local_path
from ..display import plural
from ..errors import RunError
from ..explain import explained
from ..warehouses.dataset import dataset_of
from . import log as logs
from . import notes, out
from .options import freeze_modules, standard_input
from .send_options import SendOptions
from .sending import (
    NOT_ALL,
    autopilot_settings,
    delivery_log,
    query_rows,
    reporter,
    sending_lock,
    skipped_line,
)

SHOWN_PEOPLE = 20  # people that a dry run shows at most, and reasons that a run shows
_ACTIONS = {action.name: action for action in (contacts.DELETE, contacts.EJECT, contacts.UNSUBSCRIBE)}


def change_contacts(
    name: str,
    journeys: tuple[str, ...],
    file: str | None,
    query: str | None,
    limit: tuple[int | None, int | None],
    options: SendOptions,
) -> None:
    """Runs an action on the contacts of a file or of a query. `limit` has the values of `--max` and `--confirm`."""
    action = _ACTIONS[name]
    with explained():
        given = autopilot_settings()
        with sending_lock(options):
            people, skipped = _people(file, query, options)
            with Autopilot(given.api) as account:
                total = contacts.account_total(account)
            total = _loaded_total(options) if total is None else total
            with delivery_log(options) as log:
                job = contacts.plan_contacts(action, people, journeys, log)
                planned = _Planned(action, people, total, skipped, job)
                if options.dry_run:
                    _show(planned, *limit)
                    return
                planned.check(*limit)
                _send(planned, given, log)


def _people(file: str | None, query: str | None, options: SendOptions) -> tuple[list[str], int]:
    """Returns the contacts, and the number of the query's rows that name none."""
    if query is not None:
        with query_rows(query, options) as (names, rows):
            return contacts.contacts_of_rows(names, rows)
    name = "stdin" if file == "-" else str(file)
    try:
        with _opened(str(file)) as lines:
            return contacts.contacts_of_lines(lines, name), 0
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RunError(
            f"Expected a file with an email or an id on each line, but {name} cannot be read: {why}."
        ) from error


@contextmanager
def _opened(file: str) -> Iterator[TextIO]:
    is_stdin = file == "-"
    # `sys.stdin` depends on the locale, and in some locales it accepts bytes that are not UTF-8.
    path = standard_input().fileno() if is_stdin else local_path(file)
    with open(path, encoding="utf-8", closefd=not is_stdin) as opened:
        yield opened


def _loaded_total(options: SendOptions) -> int | None:
    """Returns the number of the account's contacts that are in the warehouse, None if there are none."""
    with log_dataset(*options.target, reads=True, wait=options.wait).destination_client as client:
        found = dataset_of(client).rows("count(*)", CONTACTS.name, "WHERE {deleted_at} IS NULL")
    return int(found[0][0]) if found and found[0][0] else None


class _Planned(NamedTuple):
    """A command's plan: its contacts, the account's total, the number of rows without a contact, and the job."""

    action: ContactAction
    people: list[str]
    total: int | None
    skipped: int
    job: ContactJob

    def check(self, most: int | None, confirm: int | None) -> None:
        """Raises TooManyContacts if the contacts are more than may be changed."""
        total = self.total
        if total is not None and self.action is contacts.DELETE:
            total += self.job.done_before  # an earlier run of this job has deleted these already
        contacts.check_number(self.action, len(self.people), total, most, confirm)

    def summary(self, would: str) -> list[str]:
        share = "" if self.total is None else f" of the account's {self.total:,}"
        before = f", {self.job.done_before:,} done by a run that broke off" if self.job.done_before else ""
        lines = [f"{plural(len(self.people), 'contact')}{share} {would}{self.action.done}{before}"]
        return lines + [f"  {line}" for line in skipped_line(self.skipped, "contact_id and email")]


def _show(planned: _Planned, most: int | None, confirm: int | None) -> None:
    """Prints what a job would do, with emails masked."""
    out.print_lines(planned.summary("would be "))
    people = planned.people
    out.print_lines(f"  {contacts.id_of_contact(who).masked()}" for who in islice(people, SHOWN_PEOPLE))
    if len(people) > SHOWN_PEOPLE:
        out.print_line(f"  and {len(people) - SHOWN_PEOPLE:,} more")
    try:
        planned.check(most, confirm)
    except contacts.TooManyContacts:
        out.print_line(f"It would be refused without --confirm {len(people)}.")


def _send(planned: _Planned, given: DestinationSettings, log: DeliveryLog) -> None:
    action, job = planned.action, planned.job
    out.print_lines(planned.summary("to be "))
    counts = Counts()
    freeze_modules()
    plan_requests(job.requests, log)
    with Autopilot(given.api) as account:
        absent = ContactRequests(account, log, counts, reporter(), planned=True).send(job.requests)
    line = (
        f"{plural(counts.messages, 'request')}: {counts.delivered - absent:,} {action.done}, {absent:,} not there,"
        f" {counts.refused:,} refused, {counts.failed + counts.unknown:,} failed"
    )
    notes.summarise(line)
    if logs.log_settings().json:
        numbers = {"requests": counts.messages, "delivered": counts.delivered - absent, "not_there": absent}
        logs.line("info", "done", **numbers, refused=counts.refused, failed=counts.failed + counts.unknown)
    out.print_line(line)
    for (status, why), number in counts.reasons.most_common(SHOWN_PEOPLE):
        out.print_wrapped(f"  {number:,} {status}: {why}")
    if action.of_journey and absent and absent == counts.messages:
        out.print_line("  None of them was in the journey. Is its id right? It is the one in campaign_id.")
    if not counts.all_delivered:
        sys.exit(NOT_ALL)
