"""Looks up a list of people in the account, by Ortto's ids, emails or external ids."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...clients.autopilot import Page
from ...errors import RequestRejected
from ...segment.identity import fold_email
from ...segment.json_text import JsonObject
from .pages import OutOfTime, Query, Scanner
from .run import Run
from .search import ID_FIELDS, LIST, MATCHED, Contact, Found, found_person, reduce_person

VALUES_AT_ONCE = 50  # values in one request
_ID = re.compile("[0-9a-f]{24}")
Values = Callable[[], Iterator[str]]
"""Returns a new iterator over the values of a list."""


class Lookup:
    """Finds the people of a list. `warn` is called with warnings for the user."""

    def __init__(self, run: Run, scanner: Scanner, warn: Callable[[str], None]) -> None:
        self._run, self._scanner, self._warn = run, scanner, warn

    def found(self, values: Values) -> Iterator[list[Found]]:
        """Yields the people of the list, and warns how many of them the account does not have.

        If the account accepts no filter by email, everyone is read and compared. Raises OutOfTime and ApiErrors.
        """
        if self._run.start.way != MATCHED:
            self._run.set_way(LIST)
            try:
                yield from self._looked_up(values)
            except _NoFilter as error:
                self._warn(f"The account does not take a filter by email, so everyone is read. {error}")
                self._run.set_way(MATCHED)
            else:
                return
        yield from self._matched(values)

    def _looked_up(self, values: Values) -> Iterator[list[Found]]:
        spool = self._run.spool(LIST)
        if not spool.complete:
            spool.restart()  # the list may have changed
            requested = unknown = 0
            for group in _batched(values()):
                if self._scanner.deadline.is_over():
                    raise OutOfTime
                contacts, missing = self._look_up(group)
                spool.put(Page(contacts, None, str(spool.last + 1)))
                requested, unknown = requested + len(group), unknown + missing
            spool.put(Page([], None, None))
            self._warn_of(unknown, requested)
        for contacts, _ in spool.read_all():
            yield [found_person(contact, self._run.begun) for contact in contacts]

    def _look_up(self, values: Sequence[str]) -> tuple[list[Any], int]:
        """Returns the people of some values, and how many of the values the account does not have."""
        ids = {value for value in values if _ID.fullmatch(value)}
        contacts: list[Any] = [[id_, None, None, None] for id_ in sorted(ids)]  # `Feed` looks up their other ids
        if requested := {_key(value): value for value in values if value not in ids}:
            query = Query(ID_FIELDS, _filter(requested.values()), reduce=reduce_person)
            try:
                found = [contact for page in query.pages(self._scanner.account, None) for contact in page.contacts]
            except RequestRejected as error:
                raise _NoFilter(str(error)) from error
            contacts += found
            requested = {key: value for key, value in requested.items() if key not in _keys(found)}
        return contacts, len(requested)

    def _matched(self, values: Values) -> Iterator[list[Found]]:
        requested = set(values())
        ids = sorted(value for value in requested if _ID.fullmatch(value))
        yield [Found(Contact(id_).person, self._run.begun, None) for id_ in ids]
        missing = {_key(value) for value in requested.difference(ids)}
        keys = frozenset(missing)

        def matching(contact: JsonObject) -> Any:
            kept = reduce_person(contact)
            if kept is None or not (hits := keys & _keys([kept])):
                return None
            missing.difference_update(hits)
            return kept

        spool = self._run.spool(MATCHED)
        is_new = spool.last == 0
        for contacts, _ in self._scanner.scan(spool, Query(ID_FIELDS, reduce=matching)):
            yield [found_person(contact, self._run.begun) for contact in contacts]
        if is_new:
            self._warn_of(len(missing), len(requested))

    def _warn_of(self, unknown: int, requested: int) -> None:
        if unknown:
            self._warn(f"{unknown:,} of {requested:,} people of the list are not in the account.")


class _NoFilter(Exception):
    """The account does not accept a filter by email; the text is its error."""


def _batched(values: Iterator[str]) -> Iterator[list[str]]:
    group: dict[str, None] = {}
    for value in values:
        group[value] = None
        if len(group) == VALUES_AT_ONCE:
            yield list(group)
            group = {}
    if group:
        yield list(group)


def _filter(values: Any) -> dict[str, Any]:
    """Returns Ortto's filter for people with one of these emails or external ids."""
    requested = dict.fromkeys(
        form for value in values for form in ((value, value.lower()) if "@" in value else (value,))
    )
    email, external_id = ID_FIELDS
    fields = ((email if "@" in value else external_id, value) for value in requested)
    return {"$or": [{"$str::is": {"field_id": field, "value": value}} for field, value in fields]}


def _key(value: str) -> str:
    """Returns an email or an external id in comparable form."""
    return fold_email(value) if "@" in value else value


def _keys(contacts: Sequence[Any]) -> set[str]:
    """Returns the emails and the external ids, in comparable form, of people as `reduce_person` returns them."""
    return {_key(value) for _, email, external_id, _ in contacts for value in (email, external_id) if value}
