"""Writes contacts, as many as possible with one request, so that a bad contact holds up no good one.

A batch that is refused, or that gets a 5xx at each try, is halved until the bad contacts are found.
"""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from secrets import SystemRandom
from typing import Any, NamedTuple, TypeAlias, TypeGuard

from ..clients.autopilot import Upserted
from ..errors import ApiError, RequestRejected, Unavailable
from .account import WritableAccount
from .batch import Key
from .emails import is_email_address
from .kind import AccountKind
from .requests import CircuitBreaker, Outcome, is_of_service

PROBES = 3  # contacts that are tried alone before a batch whose halves both failed counts as an outage
LAST_WRITTEN = 3  # contacts of earlier requests that are looked up in the account; some may have been deleted since
TRIES_OF_PIECES = 2  # tries of a piece of several contacts; a single contact gets all tries of the settings
NOT_NAMED = "{}'s answer does not name this contact: it was not written"

ContactsByKey: TypeAlias = Mapping[Key, Mapping[str, Any]]
OutcomesByKey: TypeAlias = dict[Key, Outcome]


@dataclass
class _Batch:
    """Contacts that failed together, and their outcomes so far.

    `failed_before` are those that failed in the last run, `alone` those that failed alone in this one.
    """

    contacts: ContactsByKey
    outcomes: OutcomesByKey
    failed_before: Collection[Key] = ()
    alone: set[Key] = field(default_factory=set)

    def has_only_failed_before(self, contacts: ContactsByKey) -> bool:
        """Returns whether all of these contacts failed in the last run."""
        return contacts.keys() <= set(self.failed_before)


class _Half(NamedTuple):
    """Half of the contacts that failed together: the error of its request, and the number of answers before that."""

    contacts: ContactsByKey
    error: ApiError | None
    answers: int


class ContactWriter:
    """Writes batches of contacts. It is thread-safe; one thread at a time searches for contacts that cause 5xx.

    `last_written` is the email of the contact that was written last, `written_before` returns those of earlier runs.
    """

    def __init__(
        self,
        account: WritableAccount,
        breaker: CircuitBreaker,
        kind: AccountKind,
        last_written: str | None = None,
        written_before: Callable[[], Sequence[str]] = list,
    ) -> None:
        self._account = account
        self._kind = kind
        self._breaker = breaker
        self._diagnosing = threading.RLock()  # in an outage, all batches fail, and one thread finds it out for all
        self.last_written = last_written
        self._written_before = written_before
        self._changed: set[str] = set()
        self._bad: set[Key] = set()  # failed before, and again while the service was available

    def forget(self, email: str) -> None:
        """Forgets a contact whose address changes, because writing the old address again would create a new contact."""
        with self._diagnosing:
            self._changed.add(email.lower())
            if self.last_written is not None and self.last_written.lower() == email.lower():
                self.last_written = None

    def write(self, contacts: ContactsByKey, outcomes: OutcomesByKey, failed_before: Collection[Key] = ()) -> None:
        """Writes contacts. `outcomes` gets the outcome of each, even if this raises.

        `failed_before` are those that failed in the last run.

        Raises ApiError if every other batch would end the same way: the key is wrong, or there is an outage.
        """
        answers = self._breaker.answers
        error = self._attempt(contacts, outcomes)
        if len(contacts) > 1 and _may_be_one_contact(error):
            ordered = _suspects_last(contacts)
            self._halve(_Batch(ordered, outcomes, failed_before), ordered, error, answers)
        elif is_of_service(error):
            with self._diagnosing:
                if _is_server_error(error) and self.is_available():
                    self._bad |= set(failed_before)
                    return
            self._breaker.failed(error, min(contacts))

    def _halve(self, batch: _Batch, contacts: ContactsByKey, error: ApiError, answers: int) -> None:
        """Writes both halves of contacts that failed together with `error`, and halves those that fail again.

        `answers` is the number of answers before `contacts` were sent.
        """
        keys = list(contacts)
        middle = len(keys) // 2
        with self._diagnosing if _is_server_error(error) else nullcontext():
            halves = [
                self._attempt_half({key: contacts[key] for key in half}, batch.outcomes)
                for half in (keys[:middle], keys[middle:])
            ]
            may_be_outage = self._breaker.answers == answers or batch.has_only_failed_before(contacts)
            if may_be_outage and all(_is_server_error(half.error) for half in halves):
                batch.alone |= {key for half in halves if len(half.contacts) == 1 for key in half.contacts}
                if not self._probe(batch, error):
                    return
            for half in halves:
                if len(half.contacts) > 1 and _may_be_one_contact(half.error):
                    self._halve(batch, half.contacts, half.error, half.answers)

    def _probe(self, batch: _Batch, error: ApiError) -> bool:
        """Finds out whether there is an outage or several bad contacts. Returns whether to go on halving.

        Sends a delivered contact once more, which changes nothing; if there is none, tries some contacts alone.
        Contacts that all failed before, and fail again while the service is available, are not tried further. Raises
        `error` in an outage.
        """
        contacts, outcomes = batch.contacts, batch.outcomes
        good = [key for key in contacts if outcomes[key].status == "delivered"][:1]
        others = sorted(contacts.keys() - batch.alone)
        for key in good or SystemRandom().sample(others, min(PROBES, len(others))):
            if not _is_server_error(self._attempt({key: contacts[key]}, outcomes)):
                return True
        if self.is_available():
            if not batch.has_only_failed_before(contacts):
                return True
            self._bad |= contacts.keys()
            return False
        self._breaker.open(error)
        raise error

    def is_available(self) -> bool:
        """Returns whether the service still writes a contact that it has written before; no values are sent."""
        with self._diagnosing:
            try:
                email = self._find_written()
            except ApiError:
                return False
            if email is None:
                return False
            _, error = self._breaker.attempt(self._kind.contacts, lambda: self._account.upsert_many([{"Email": email}]))
            return error is None or isinstance(error, RequestRejected)

    def _find_written(self) -> str | None:
        """Returns the email of a contact written before that still exists, or None if the last ones do not."""
        emails = [self.last_written] if self.last_written else self._written_before()
        unchanged = islice((email for email in emails if email.lower() not in self._changed), LAST_WRITTEN)
        return next((email for email in unchanged if self._account.contact(email) is not None), None)

    def _attempt_half(self, contacts: ContactsByKey, outcomes: OutcomesByKey) -> _Half:
        """Writes half of some contacts. Several contacts are tried only twice.

        If the service cannot be reached or is over its rate limit, no contact is the cause, and all tries are used.
        """
        answers = self._breaker.answers
        if len(contacts) > 1:
            with self._account.limit_tries(TRIES_OF_PIECES):
                error = self._attempt(contacts, outcomes)
            if not isinstance(error, Unavailable) or _is_server_error(error):
                return _Half(contacts, error, answers)
        return _Half(contacts, self._attempt(contacts, outcomes), answers)

    def _attempt(self, contacts: ContactsByKey, outcomes: OutcomesByKey) -> ApiError | None:
        """Writes contacts with one request and returns its error, None if it succeeded."""
        answers: list[Upserted] = []
        bodies: Sequence[Mapping[str, Any]] = list(contacts.values())
        outcome, error = self._breaker.attempt(
            self._kind.contacts, lambda: answers.append(self._account.upsert_many(bodies))
        )
        if isinstance(error, RequestRejected) and len(contacts) > 1:
            outcome = outcome._replace(status="failed")  # the outcome of each until it was tried alone
        outcomes |= dict.fromkeys(contacts, outcome)
        if answers:
            self.last_written = _note_answer(answers[0], contacts, outcomes, self._kind.title) or self.last_written
        return error

    def is_bad(self, key: Key, outcomes: Mapping[Key, Outcome], failed_before: bool) -> bool:
        """Returns whether a contact failed while the service was available, and would fail again.

        It caused a server error alone while others did not, or two answers in a row did not name it.
        """
        outcome = outcomes[key]
        if outcome.status != "failed":
            return False
        if outcome.http_status == 200:
            return failed_before
        others = key in self._bad or any(other.status in ("delivered", "refused") for other in outcomes.values())
        return others and (outcome.http_status or 0) >= 500


def _note_answer(answer: Upserted, contacts: ContactsByKey, outcomes: OutcomesByKey, title: str) -> str | None:
    """Notes which contacts an answer reports as written, and returns the email of the last one.

    `outcomes` has the outcome of the request for each. `title` is the account kind's display name.
    """
    named = {email.strip().lower() for email, id_ in answer.email_contact_map.items() if id_}
    last_written: str | None = None
    for key, contact in contacts.items():
        if key in answer.refused:
            outcomes[key] = outcomes[key]._replace(status="refused", message=answer.refused[key])
        elif key not in named:
            outcomes[key] = outcomes[key]._replace(status="failed", message=NOT_NAMED.format(title))
        else:
            last_written = contact.get("Email") or last_written
    return last_written


def _suspects_last(contacts: ContactsByKey) -> ContactsByKey:
    """Returns the contacts; if the emails of several are not addresses, those contacts come last.

    Contacts that are refused are found with fewer requests if they are next to each other.
    """
    emails = ((key, contact.get("Email")) for key, contact in contacts.items())
    suspects = {key for key, email in emails if email and not is_email_address(str(email))}
    if len(suspects) < 2:
        return contacts
    return {key: contacts[key] for key in sorted(contacts, key=suspects.__contains__)}


def _may_be_one_contact(error: ApiError | None) -> TypeGuard[ApiError]:
    """Returns whether one of several contacts may be the cause of an error."""
    return isinstance(error, RequestRejected) or _is_server_error(error)


def _is_server_error(error: ApiError | None) -> bool:
    return isinstance(error, Unavailable) and error.status is not None and error.status >= 500
