"""Plans jobs that delete many contacts of the account, eject them from journeys, or unsubscribe them.

(docs/contract/destination.md#contacts) A job is the work of one command. All of it is in the log before the first
request. The same command continues a job that broke off, without the contacts that are done. A completed job starts
again from the beginning, because its contacts may have been created again.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from ..clients.autopilot import Autopilot
from ..display import plural, shortened
from ..errors import RunError
from ..segment.identity import HashedIds, Id, forms
from ..warehouses.dataset import in_utc
from .contact_requests import ContactRequest
from .delivery_log import Delivery, DeliveryLog, DeliveryStatus
from .messages import id_text

CONTACT_ID = "person_"  # the prefix of ids of contacts
CONTINUED_WITHIN = timedelta(days=1)
COLUMNS_OF_CONTACTS = ("contact_id", "email")  # columns of a query; the first that has a value identifies the contact


class ContactAction(NamedTuple):
    """An action on contacts: its name (the `kind` of the log's rows), its words in messages, and its request.

    `done` is the participle for a contact, `absent` the meaning of a 404. `path` and `send` get the contact's id or
    email and the journey, which is empty unless the action is `of_journey`.
    """

    name: str
    done: str
    absent: str
    method: str
    path: Callable[[str, str], tuple[str, ...]]
    send: Callable[[Autopilot, str, str], None]
    of_journey: bool = False


DELETE = ContactAction(
    "delete",
    "deleted",
    "no such contact",
    "DELETE",
    lambda who, _: ("contact", who),
    lambda account, who, _: account.delete_contact(who),
)
EJECT = ContactAction(
    "eject",
    "taken out",
    "no such contact, or not in the journey",
    "DELETE",
    lambda who, journey: ("journey", journey, "contact", who),
    lambda account, who, journey: account.eject(journey, who),
    of_journey=True,
)
UNSUBSCRIBE = ContactAction(
    "unsubscribe",
    "unsubscribed",
    "no such contact",
    "POST",
    lambda who, _: ("contact", who, "unsubscribe"),
    lambda account, who, _: account.unsubscribe(who),
)


# ---- the contacts --------------------------------------------------------------------------------------------------


def id_of_contact(who: str) -> Id:
    """Returns an email or a contact's id in the form in which ids are compared and masked."""
    return forms("email" if "@" in who else "contact_id", who)[0]


def contacts_of_lines(lines: Iterable[str], name: str) -> list[str]:
    """Returns the emails and ids of a file, one per line, each once.

    Raises RunError, before anything is sent, for a line that is neither.
    """
    found: list[str] = []
    for number, line in enumerate(lines, 1):
        who = line.strip().lstrip("\ufeff").lstrip()
        if not who:
            continue
        if len(who.split()) > 1 or any(sign in who for sign in ',;"') or not ("@" in who or who.startswith(CONTACT_ID)):
            raise RunError(
                f"Expected an email or a contact's id ({CONTACT_ID}…) in line {number} of {name}, got"
                f" {shortened(repr(who))}.\nNothing was sent."
            )
        found.append(who)
    return _once(found)


def contacts_of_rows(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> tuple[list[str], int]:
    """Returns the contacts of a query's rows, each once, and how many rows have none.

    The column `contact_id` identifies a contact, or else `email`. Raises RunError if the result has neither column.
    """
    columns = {name.lower(): index for index, name in enumerate(names)}
    indexes = [columns[name] for name in COLUMNS_OF_CONTACTS if name in columns]
    if not indexes:
        raise RunError(
            f"Expected a column {' or '.join(COLUMNS_OF_CONTACTS)} in the query's answer, got {', '.join(names)}.\n"
            "Name it so (… AS email). Nothing was sent."
        )
    found, skipped = [], 0
    for row in rows:
        who = next(filter(None, (id_text(row[index]) for index in indexes)), None)
        if who is None:
            skipped += 1
        else:
            found.append(who)
    return _once(found), skipped


def _once(found: Iterable[str]) -> list[str]:
    return list({id_of_contact(who): who for who in reversed(list(found))}.values())[::-1]


# ---- the job -----------------------------------------------------------------------------------------------------


class ContactJob(NamedTuple):
    """What is left of a job: its requests and the number of their contacts; and how many requests were done before."""

    requests: list[ContactRequest]
    contacts: int
    done_before: int


def plan_contacts(
    action: ContactAction, contacts: Sequence[str], journeys: Sequence[str], log: DeliveryLog
) -> ContactJob:
    """Returns what is left of a job: all of it, unless an earlier run of the same job broke off within the last day."""
    suppressed = log.suppressed_ids()
    rows = [
        (who, _row(action, who, journey)) for journey in (journeys if action.of_journey else [""]) for who in contacts
    ]
    known = log.statuses(row.message_id for _, row in rows)
    begun = {status.content for status in known.values() if status.status in ("failed", "unknown") and status.content}
    job = max(begun, default=log.run)
    since = datetime.now(UTC) - CONTINUED_WITHIN
    left = [(who, row) for who, row in rows if not _is_done(known.get((row.message_id, row.trigger_id)), begun, since)]
    requests = [_request(action, who, row._replace(content=job), suppressed) for who, row in left]
    return ContactJob(requests, len({id_of_contact(who) for who, _ in left}), len(rows) - len(left))


def _row(action: ContactAction, who: str, journey: str) -> Delivery:
    id_ = id_of_contact(who)
    digest = hashlib.sha256("\n".join((journey, *id_)).encode("utf-8", "replace")).hexdigest()
    return Delivery(f"{action.name}-{digest}", action.name, email=who, trigger_id=journey or None)


def _is_done(status: DeliveryStatus | None, begun: Collection[str | None], since: datetime) -> bool:
    """Returns whether one of the jobs that broke off (`begun`) has carried out the request with this status."""
    if status is None or status.status != "delivered" or status.content not in begun or status.sent is None:
        return False
    return bool(in_utc(status.sent.at) >= since)


def _request(action: ContactAction, who: str, row: Delivery, suppressed: HashedIds) -> ContactRequest:
    journey = row.trigger_id or ""
    logged = not any(id_ in suppressed for id_ in forms(id_of_contact(who).kind, who))
    path = action.path(who, journey)
    return ContactRequest(
        row, action.method, path, lambda account: action.send(account, who, journey), action.absent, logged=logged
    )


# ---- the limit -----------------------------------------------------------------------------------------------------


class TooManyContacts(RunError):
    """The job would change more contacts than the user has allowed. Nothing was sent."""


def account_total(account: Autopilot) -> int | None:
    """Returns the number of contacts that the account reports, or None if it reports none."""
    return next(iter(account.contacts())).total


def check_number(action: ContactAction, number: int, total: int | None, most: int | None, confirm: int | None) -> None:
    """Raises TooManyContacts if `number` contacts are more than may be changed.

    The limit is `most`, by default half of the account's `total`. It does not apply if `confirm` is exactly `number`.
    """
    if confirm is not None:
        if confirm != number:
            raise _too_many(action, number, "", f"--confirm {confirm}")
        return
    if most is None and total is None:
        raise _too_many(action, number, " and the account does not say how many it has", "none")
    limit = most if most is not None else (total or 0) // 2
    if number > limit:
        why = f" and --max is {most}" if most is not None else f" and the account has {total:,}"
        raise _too_many(action, number, why, "none")


def _too_many(action: ContactAction, number: int, why: str, got: str) -> TooManyContacts:
    return TooManyContacts(
        f"Expected --confirm {number}, because {plural(number, 'contact')} would be {action.done}{why}, but got {got}."
        f" Nothing was sent.\nLook at them with --dry-run. If all are meant, add --confirm {number}."
    )
