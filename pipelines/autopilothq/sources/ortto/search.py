"""Finds the people whose activities to request: those who were active since a time, or everyone.

Which form of a filter an account accepts is not documented, so it is tried once, for one person. A filter that it
refuses is not tried again: after fifteen malformed requests in fifteen seconds, Ortto bans the client's address. There
are three ways to find those who were active, the best first: let the account filter them; fetch the times of everyone's
last activities and compare them here; take everyone.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from ...clients.ortto import MOST_FIELDS
from ...errors import RequestRejected
from ...segment.json_text import JsonNumber, JsonObject, storable_text
from ...segment.times import time_of_number
from ...utc import format_time
from ..times import read_time
from .pages import Query, Scanner, person_fields
from .run import TIMES_LAG, Run

EMAIL_FIELD, EXTERNAL_ID_FIELD = "str::email", "str::ei"
ID_FIELDS = (EMAIL_FIELD, EXTERNAL_ID_FIELD)
FILTER, FIELDS, EVERYONE, ALL, LIST, MATCHED = "filter", "fields", "everyone", "all", "list", "matched"
WAYS: Mapping[str | None, str] = {
    FILTER: "a filter of the account",
    FIELDS: "the times of everyone's last activities",
    EVERYONE: "everyone, because the account does not say who was active",
    ALL: "everyone",
    LIST: "a list",
    MATCHED: "a list, compared with everyone",
}
"""The ways in which people are found, in words for a user."""


class Found(NamedTuple):
    """A person who was found; `details` are the email and the external id as JSON, if known."""

    person: str
    active_at: datetime | None
    details: str | None


class Contact(NamedTuple):
    """A person of Ortto: the contact id, and the other ids that messages about the person get."""

    id: str
    email: str | None = None
    external_id: str | None = None

    @property
    def person(self) -> str:
        """The person's id in `_profiles`."""
        return f"contact_id:{self.id}"


def contact_of(person: str, details: str | None) -> Contact:
    """Returns the person that `Found` describes."""
    return Contact(person.partition(":")[2], *(json.loads(details) if details else ()))


def contact_of_fields(id_: str, fields: JsonObject) -> Contact:
    """Returns a person with the ids among the fields of a response."""
    return Contact(id_, storable_text(fields.value(EMAIL_FIELD)), storable_text(fields.value(EXTERNAL_ID_FIELD)))


def time_field(kind: str) -> str:
    """Returns the field that has the time of a kind's last activity. Example: `time_field("act::o") == "tme::o!l"`."""
    return f"tme:{kind.partition(':')[2]}!l"


class Search:
    """Finds the people of a run. `times` are the fields that count; `warn` is called with warnings for the user.

    Attributes:
        has_times: Whether the account has the times of last activities; None as long as that is unknown.
    """

    def __init__(self, run: Run, scanner: Scanner, times: Sequence[str], warn: Callable[[str], None]) -> None:
        self._run, self._scanner, self._warn = run, scanner, warn
        self._times = times[: MOST_FIELDS - 2]
        self.has_times: bool | None = None

    def everyone(self) -> Iterator[list[Found]]:
        """Yields all people, page by page."""
        self._run.set_way(ALL)
        yield from self._pages(ALL, Query(ID_FIELDS, reduce=reduce_person))

    def active(self, since: datetime | None) -> Iterator[list[Found]]:
        """Yields the people who were active since the last run and since a time; more if the account lacks times."""
        known = self._run.since
        start = known - TIMES_LAG if known else self._run.begun - timedelta(days=self._run.retention_days)
        start = max(start, since) if since else start
        way: str | None = self._run.start.way or self._probe(start)
        while way is not None:
            self._run.set_way(way)
            query, tally = self._query(way, start)
            is_whole = self._run.spool(way).last == 0  # the tally does not count pages that an earlier load fetched
            yield from self._pages(way, query)
            way = self._better(way, tally) if is_whole else None

    def _probe(self, start: datetime) -> str:
        """Returns the best way that the account supports; makes at most two requests, which it may refuse."""
        refused = self._refused(self._query(FILTER, start)[0])
        if refused is None:
            return FILTER
        self._warn(f"The account does not take a filter of activities, so everyone's times are read. {refused}")
        if self.has_times is None:
            refused = self._refused(self._query_of_times())
            self.has_times = refused is None
        if self.has_times:
            return FIELDS
        self._warn(f"The account does not say when people were active, so everyone is due. {refused}")
        return EVERYONE

    def _refused(self, query: Query) -> RequestRejected | None:
        try:
            next(self._scanner.account.people(query.fields, query.narrowed, limit=1))
        except RequestRejected as error:
            return error
        return None

    def _query(self, way: str, start: datetime) -> "tuple[Query, _Tally]":
        tally = _Tally(self._times, start)
        if way == FILTER:
            value = start.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            parts = [{"$tme::absolute_after": {"field_id": field, "value": value}} for field in self._times]
            return Query(ID_FIELDS, {"$or": parts}, reduce=tally.every), tally
        if way == FIELDS:
            return self._query_of_times(tally.active), tally
        return Query(ID_FIELDS, reduce=tally.every), tally

    def _query_of_times(self, reduce: Callable[[JsonObject], Any] | None = None) -> Query:
        return Query([*ID_FIELDS, *self._times], reduce=reduce)

    def _better(self, way: str, tally: "_Tally") -> str | None:
        """Returns the way to try next if this one found so little that it may not work, or None if it worked."""
        if way == FILTER and not tally.people:
            if self.has_times is None:
                self.has_times = self._refused(self._query_of_times()) is None
            return FIELDS if self.has_times else EVERYONE
        if way == FIELDS and tally.people and not tally.has_times:
            self._warn(
                f"None of {tally.people:,} people has a time of an activity, so everyone is due. If nobody was"
                " ever sent an email, that finds nothing: name people by --people."
            )
            return EVERYONE
        return None

    def _pages(self, way: str, query: Query) -> Iterator[list[Found]]:
        for contacts, _ in self._scanner.scan(self._run.spool(way), query):
            yield [found_person(contact, self._run.begun) for contact in contacts]


class _Tally:
    """Counts people, and reduces them to what is kept of them."""

    def __init__(self, times: Sequence[str], start: datetime) -> None:
        self._times, self._start = times, start
        self.people = 0
        self.has_times = False

    def every(self, contact: JsonObject) -> Any:
        """Returns a person, no matter when they were active."""
        self.people += 1
        return reduce_person(contact)

    def active(self, contact: JsonObject) -> Any:
        """Returns a person who was, or may have been, active since the start; None for others."""
        self.people += 1
        fields = person_fields(contact)
        values = [value for field in self._times if (value := fields.value(field)) is not None]
        self.has_times |= bool(values)
        times = [activity_time(value) for value in values]
        if None in times:
            return reduce_person(contact)  # the time of an activity cannot be read
        last = max((time for time in times if time), default=None)
        return reduce_person(contact, last) if last and last >= self._start else None


def reduce_person(contact: JsonObject, active_at: datetime | None = None) -> list[Any] | None:
    """Returns what is kept of a person: id, email, external id, and when they were active; None without an id."""
    id_ = storable_text(contact.value("id"))
    if id_ is None:
        return None
    found = contact_of_fields(id_, person_fields(contact))
    return [*found, active_at and format_time(active_at, exact=True)]


def found_person(kept: Any, begun: datetime) -> Found:
    """Returns a person from the result of `reduce_person`; one without a time counts as active when the run began."""
    id_, email, external_id, active_at = kept
    at = datetime.fromisoformat(active_at) if active_at else begun
    return Found(Contact(id_).person, at, json.dumps([email, external_id]))


def activity_time(value: Any) -> datetime | None:
    """Returns a time given in ISO 8601, or as a number of seconds or milliseconds; None if it cannot be read."""
    return time_of_number(value) if isinstance(value, JsonNumber) else read_time(value)
