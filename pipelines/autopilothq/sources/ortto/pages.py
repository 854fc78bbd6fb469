"""Reads pages of people into a spool; begins again if the account no longer accepts the cursor of a page."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...clients.autopilot import Page
from ...clients.ortto import MOST_FIELDS, Ortto
from ...errors import RequestRejected, UnexpectedResponse
from ...segment.json_text import JsonObject, storable_text
from ..scans import TimeBudget
from ..spool import Spool, fetch_ahead

MAX_RESTARTS = 2  # restarts of one scan: each costs a refused request, and fifteen of these cause a ban
IDS_AT_ONCE = 100  # people in one request by their ids


class OutOfTime(Exception):
    """The budget of time ended during a scan; its pages stay in the spool, and the next load continues it."""


@dataclass(frozen=True)
class Query:
    """A query for people of an account: which fields to return, and of whom.

    The people are those that match the filter `narrowed` or are in the `audience`, by default all. `reduce` returns
    what to keep of a person, or None to leave the person out; without it, everything is kept.
    """

    fields: Sequence[str]
    narrowed: Mapping[str, Any] | None = None
    audience: str | None = None
    reduce: Callable[[JsonObject], Any] | None = None

    def pages(self, account: Ortto, bookmark: str | None) -> Iterator[Page]:
        """Yields the pages after the bookmark of a `Page` (None: from the start), with all fields.

        A page takes several requests if Ortto does not return that many fields at once.
        """
        offset, _, cursor = (bookmark or "0 ").partition(" ")
        first, rest = self.fields[:MOST_FIELDS], self.fields[MOST_FIELDS:]
        pages = account.people(
            first, self.narrowed, audience=self.audience, offset=int(offset), cursor_id=cursor or None
        )
        for found in pages:
            contacts = _with_fields(account, found.contacts, rest) if rest else found.contacts
            following = f"{found.next_offset} {found.cursor_id or ''}" if found.has_more else None
            yield self._page(contacts, found.total, following)

    def _page(self, contacts: list[Any], total: int | None, bookmark: str | None) -> Page:
        if self.reduce is None:
            return Page(contacts, total, bookmark)
        kept = (self.reduce(contact) for contact in contacts if isinstance(contact, JsonObject))
        return Page([contact for contact in kept if contact is not None], total, bookmark)


def _with_fields(account: Ortto, contacts: list[Any], fields: Sequence[str]) -> list[Any]:
    """Returns the people with additional fields, which are requested by the people's ids."""
    objects = [contact for contact in contacts if isinstance(contact, JsonObject)]
    ids = [id_ for contact in objects if (id_ := storable_text(contact.value("id")))]
    found: dict[str, list[tuple[str, Any]]] = {}
    for start in range(0, len(fields), MOST_FIELDS):
        for at in range(0, len(ids), IDS_AT_ONCE):
            found_people = account.people_by_ids(ids[at : at + IDS_AT_ONCE], fields[start : start + MOST_FIELDS])
            for name, contact in found_people.items():
                found.setdefault(name, []).extend(person_fields(contact))
    return [_with(contact, found) if isinstance(contact, JsonObject) else contact for contact in contacts]


def _with(contact: JsonObject, more: Mapping[str, Sequence[tuple[str, Any]]]) -> JsonObject:
    fields = JsonObject([*person_fields(contact), *more.get(storable_text(contact.value("id")) or "", ())])
    return JsonObject([*(pair for pair in contact if pair[0] != "fields"), ("fields", fields)])


def person_fields(contact: Any) -> JsonObject:
    """Returns a person's fields by their ids; empty if the person has none."""
    found = contact.value("fields") if isinstance(contact, JsonObject) else None
    return found if isinstance(found, JsonObject) else JsonObject()


class Scanner:
    """Reads pages of an account's people into spools, within a budget of time.

    `restarted` is called with a warning when a scan begins again. `seen` is called after each page, except for members
    of audiences, with the number of people in the scan so far, including those in the spool, and the total.
    """

    def __init__(
        self,
        account: Ortto,
        deadline: TimeBudget,
        restarted: Callable[[str], None],
        seen: Callable[[int, int | None], None],
    ) -> None:
        self.account, self.deadline = account, deadline
        self._restarted, self._seen = restarted, seen

    def scan(self, spool: Spool, query: Query) -> Iterator[tuple[list[object], int]]:
        """Yields the people and the size of each page, those in the spool first.

        If the account no longer accepts the cursor of a page, all pages are fetched and yielded again. Raises OutOfTime
        and ApiErrors.
        """
        restarts = count = 0
        for contacts, size in spool.read_all():
            count += len(contacts)
            self._report(query, count, None)
            yield contacts, size
        while not spool.complete:
            if self.deadline.is_over():
                raise OutOfTime
            try:
                for fetched in fetch_ahead(spool, query.pages(self.account, spool.bookmark), self.deadline.is_over):
                    contacts, size = spool.contacts_of(fetched)
                    count += len(contacts)
                    self._report(query, count, fetched.total)
                    yield contacts, size
            except UnexpectedResponse:
                spool.restart()  # the bookmark cannot be used
                raise
            except RequestRejected as error:
                if spool.last == 0:
                    raise
                spool.restart()
                if restarts == MAX_RESTARTS:
                    raise
                restarts += 1
                count = 0
                self._restarted(f"The pages of people are fetched again from the first on: {error}")

    def _report(self, query: Query, count: int, total: int | None) -> None:
        if query.audience is None:
            self._seen(count, total)
