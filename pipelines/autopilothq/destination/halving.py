"""Writes contacts, as many as possible with one request, so that a bad one costs no good one.

A batch that is refused, or that makes a 5xx at each try, is halved until the bad contacts are found.
"""

import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from secrets import SystemRandom
from typing import Any, TypeAlias

from ..clients.autopilot import Upserted
from ..errors import ApiError, RequestRejected, Unavailable
from .account import WritableAccount
from .batch import Key
from .requests import CircuitBreaker, Outcome, attempt_request

PROBES = 3  # contacts that are tried alone before a batch whose halves both failed counts as an outage
NOT_NAMED = "Autopilot's answer does not name this contact: it was not written"
_ENDPOINT = "POST /contacts"

ContactsByKey: TypeAlias = Mapping[Key, Mapping[str, Any]]
OutcomesByKey: TypeAlias = dict[Key, Outcome]


@dataclass
class _Batch:
    """ContactsByKey that are looked at, their outcomes so far, and those that failed `alone`."""

    contacts: ContactsByKey
    outcomes: OutcomesByKey
    alone: set[Key] = field(default_factory=set)


class ContactWriter:
    """Writes batches of contacts. Threads may share it; one at a time looks for what makes an error of the server."""

    def __init__(self, account: WritableAccount, breaker: CircuitBreaker) -> None:
        self._account = account
        self._breaker = breaker
        self._looking = threading.RLock()  # in an outage all batches fail: one of them finds that out for the others

    def write(self, contacts: ContactsByKey, outcomes: OutcomesByKey) -> None:
        """Writes contacts; `outcomes` receives the outcome of each, also where this raises.

        Raises ApiError where every other batch would end the same way: the key is wrong, or there is an outage.
        """
        answers = self._breaker.answers
        error = self._attempt(contacts, outcomes)
        if len(contacts) > 1 and _may_be_one(error):
            self._halve(_Batch(contacts, outcomes), contacts, error, answers)
        elif isinstance(error, Unavailable):
            self._breaker.failed(error, min(contacts))

    def _halve(self, batch: "_Batch", contacts: ContactsByKey, error: ApiError | None, answers: int) -> None:
        """Writes both halves of contacts that failed together; `answers` had come before they were sent."""
        with self._looking if _is_servers(error) else nullcontext():
            found = []
            for half in _halves(contacts):
                before = self._breaker.answers
                found.append((half, self._attempt(half, batch.outcomes), before))
            if self._breaker.answers == answers and all(_is_servers(error) for _, error, _ in found):
                batch.alone |= {key for half, _, _ in found if len(half) == 1 for key in half}
                self._probe(batch, error)
            for half, error_of_half, before in found:
                if len(half) > 1 and _may_be_one(error_of_half):
                    self._halve(batch, half, error_of_half, before)

    def _probe(self, batch: "_Batch", error: ApiError | None) -> None:
        """Tells an outage, whose error it raises, from several bad contacts.

        A contact that was delivered is sent once more, which changes nothing; else some are tried alone.
        """
        contacts, outcomes = batch.contacts, batch.outcomes
        good = [key for key in contacts if outcomes[key].status == "delivered"][:1]
        others = sorted(contacts.keys() - batch.alone)
        for key in good or SystemRandom().sample(others, min(PROBES, len(others))):
            if not _is_servers(self._attempt({key: contacts[key]}, outcomes)):
                return
        if error is not None:
            self._breaker.open(error)
            raise error

    def _attempt(self, contacts: ContactsByKey, outcomes: OutcomesByKey) -> ApiError | None:
        """Writes contacts with one request, and returns its error, None where it was carried out."""
        answers: list[Upserted] = []
        bodies: Sequence[Mapping[str, Any]] = list(contacts.values())
        outcome, error = attempt_request(
            self._account, self._breaker, _ENDPOINT, lambda: answers.append(self._account.upsert_many(bodies))
        )
        named = {email.strip().lower() for answer in answers for email, id_ in answer.email_contact_map.items() if id_}
        unnamed = outcome._replace(status="failed", message=NOT_NAMED)
        outcomes |= {key: unnamed if error is None and key not in named else outcome for key in contacts}
        return error

    @staticmethod
    def is_bad(outcome: Outcome, outcomes: Mapping[Key, Outcome], failed_before: bool) -> bool:
        """Returns whether a contact failed, and will again, while the service was well.

        It made an error of the server, alone, and others of its batch did not; or two answers in a row did not name it.
        """
        if outcome.status != "failed":
            return False
        if outcome.http_status == 200:
            return failed_before
        others = any(other.status in ("delivered", "refused") for other in outcomes.values())
        return others and (outcome.http_status or 0) >= 500


def _halves(contacts: ContactsByKey) -> list[ContactsByKey]:
    keys = list(contacts)
    middle = len(keys) // 2
    return [{key: contacts[key] for key in some} for some in (keys[:middle], keys[middle:])]


def _may_be_one(error: ApiError | None) -> bool:
    """Whether one contact of several may be what the server did not like."""
    return isinstance(error, RequestRejected) or _is_servers(error)


def _is_servers(error: ApiError | None) -> bool:
    return isinstance(error, Unavailable) and error.status is not None and error.status >= 500
