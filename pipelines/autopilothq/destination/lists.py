"""Synchronizes a list of the account with an audience: adds those who enter, and removes those who leave.

(docs/contract/destination.md#lists) The log has separate rows for the list and the trait: if a person's trait was
delivered but the request to the list failed, only the list is tried again.
"""

from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, NamedTuple

from ..clients.autopilot import Autopilot
from ..clients.decode import plain
from ..display import shortened
from ..errors import OutcomeUnknown, RequestRejected, RunError
from .audiences import Audience, compare_members
from .changes import AddressChanges
from .contact_requests import ContactRequest, ContactRequests
from .counts import Counts
from .delivery_log import Delivery, DeliveryLog, Member
from .emails import KnownEmails
from .fields import Fields
from .messages import Item
from .sender import is_suppressed
from .settings import DestinationSettings

LIST_KIND = "list"  # the kind of the log's rows
SHOWN_LISTS = 20  # lists that an error names
_NEW_LIST = "(new)"  # its id in a dry run
_MISSING = "The account has no such contact, or the list no longer exists"
_NOT_ON_IT = "was not on the list"


class AccountList(NamedTuple):
    """A list of the account. `list_id` is empty if a dry run would create it."""

    list_id: str
    title: str


class ListSync(NamedTuple):
    """How many persons were to be put on a list, how many were to be taken off, and how many are unchanged."""

    put_on: int
    taken_off: int
    unchanged: int


# ---- which list ----------------------------------------------------------------------------------------------------


def find_list(settings: DestinationSettings, name: str, create: bool, dry_run: bool) -> AccountList:
    """Returns the list with that id or title; creates it if there is none and `create` is true.

    A dry run creates no list. Raises RunError if there is none and `create` is false, or if several have the title.
    """
    with Autopilot(settings.api) as account:
        lists = [each for each in map(_account_list, plain(account.lists())) if each is not None]
        for each in lists:
            if each.list_id == name:
                return each
        titled = [each for each in lists if each.title == name]
        if len(titled) > 1:
            ids = ", ".join(shortened(each.list_id) for each in titled)
            raise RunError(
                f"Expected one list with the name {shortened(name)}, but {len(titled)} have it.\n"
                f"Name it by its id: {ids}. Nothing was sent."
            )
        if titled:
            return titled[0]
        if not create:
            raise RunError(
                f"Expected a list with the name or the id {shortened(name)}, but the account has"
                f" {_listed(lists, name)}.\nAdd --create-list to make it. Nothing was sent."
            )
        return AccountList("" if dry_run else _create(account, name), name)


def _account_list(value: Any) -> AccountList | None:
    if not isinstance(value, dict) or not value.get("list_id"):
        return None
    return AccountList(str(value["list_id"]), str(value.get("title") or ""))


def _listed(lists: Sequence[AccountList], name: str) -> str:
    """Returns the titles of lists as text, those most similar to a name first."""
    if not lists:
        return "none at all"
    like = sorted(lists, key=lambda each: (-_likeness(each.title, name), each.title))
    titles = ", ".join(shortened(each.title) for each in like[:SHOWN_LISTS])
    return titles + (f" and {len(lists) - SHOWN_LISTS:,} more" if len(lists) > SHOWN_LISTS else "")


def _likeness(title: str, name: str) -> float:
    return SequenceMatcher(None, title.casefold(), name.casefold()).ratio()


def _create(account: Autopilot, name: str) -> str:
    try:
        return account.create_list(name)
    except OutcomeUnknown as error:
        raise RunError(f"{error}\nRun it again: if the list was made, it is found. Nothing else was sent.") from error
    except RequestRejected as error:
        raise RunError(
            f"The list {shortened(name)} could not be made: {error.server_message or error}\nNothing was sent."
        ) from error


# ---- who enters and who leaves -------------------------------------------------------------------------------------


def _list_changes(audience: Audience, list_id: str, known: Mapping[str, Member]) -> tuple[list[Delivery], int]:
    """Returns rows without outcomes for who is to be put on a list (content `true`) and taken off it (`false`).

    Also returns how many members are unchanged. `known` are the audience's records in the log. Raises RunError if the
    list follows the audience by another key.
    """
    trait = audience.trait
    follows = f"The list follows the audience {trait} with the key {{}}"
    compared = compare_members(f"list-{list_id}-{trait}", audience, known, follows)
    rows = [
        Delivery(id_, LIST_KIND, audience=trait, user_id=person.user_id, email=person.email, content=content)
        for people, content in ((compared.entered(), "true"), (compared.left, "false"))
        for id_, person in people
    ]
    return rows, len(compared.unchanged)


def sync_list(
    audience: Audience,
    to: AccountList,
    log: DeliveryLog,
    settings: DestinationSettings,
    counts: Counts,
    progress: Callable[[Counts], None] = lambda _: None,
    show: Callable[[ContactRequest], None] | None = None,
) -> ListSync:
    """Puts the members of an audience on a list, takes off those who left, and returns their numbers.

    Adds the outcomes to `counts`. With `show`, no request is sent: `show` is called with each.

    Raises ApiError if the run must stop; the log has what was not sent.
    """
    changes, unchanged = _list_changes(audience, to.list_id, log.members(audience.trait))
    entered = sum(row.content == "true" for row in changes)
    with Autopilot(settings.api) as account:
        rows = _with_emails(changes, account, log, settings)
        requests = _requests(rows, to.list_id, log, counts)
        if show is None:
            ContactRequests(account, log, counts, progress).send(requests)
        else:
            for each in requests:
                show(each)
            counts.add("messages", len(requests))
            counts.add("delivered", len(requests))
    return ListSync(entered, len(changes) - entered, unchanged)


def _with_emails(
    rows: Sequence[Delivery], account: Autopilot, log: DeliveryLog, settings: DestinationSettings
) -> list[Delivery]:
    """Returns the rows, and sets the emails, if known, of those that have only a user id."""
    missing = [row for row in rows if row.email is None]
    if not missing:
        return list(rows)
    fields = Fields(plain(account.custom_fields()), settings.fields, settings.user_id_field)
    emails = KnownEmails(account, log, fields, AddressChanges(account, log.changes()))
    emails.look_up([Item(row.message_id, row.kind, row.user_id) for row in missing])
    return [row._replace(email=row.email or emails.get(row.user_id)) for row in rows]


def _requests(rows: Sequence[Delivery], list_id: str, log: DeliveryLog, counts: Counts) -> list[ContactRequest]:
    """Returns the requests for rows. Refuses rows without an email, and leaves out those of deleted persons."""
    suppressed = log.suppressed_ids()
    requests: list[ContactRequest] = []
    refused: list[Delivery] = []
    for row in rows:
        if is_suppressed(Item(row.message_id, row.kind, row.user_id), row.email, suppressed):
            counts.add("messages")
            counts.add("suppressed")
        elif row.email is None:
            why = f"No contact is known by the user id {row.user_id!r}"
            refused.append(row._replace(status="refused", message=why))
            counts.add("messages")
            counts.add_message([("refused", why)])
        else:
            requests.append(_request(row, list_id or _NEW_LIST, row.email))
    log.add(refused)
    return requests


def _request(row: Delivery, list_id: str, who: str) -> ContactRequest:
    path = ("list", list_id, "contact", who)
    if row.content == "true":
        return ContactRequest(row, "POST", path, lambda account: account.put_on_list(list_id, who), missing=_MISSING)
    return ContactRequest(row, "DELETE", path, lambda account: account.take_off_list(list_id, who), absent=_NOT_ON_IT)
