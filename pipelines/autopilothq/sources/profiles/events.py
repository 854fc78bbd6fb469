"""The events of people: which ones are requested, and the messages that they become.

(docs/contract/profile-api.md)
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from ...catalog import EVENTS
from ...clients.profile_api import ID_TYPES
from ...segment.json_text import JsonNumber, JsonObject, to_json

EVENT_NAMES = tuple(name for name, *_ in EVENTS)
RETENTION = timedelta(days=14)  # how long the API keeps events
# Events may arrive late, so each request goes back one more day; what is stored already is not stored again.
OVERLAP = timedelta(days=1)


class EventScope(NamedTuple):
    """The events to load: those with some `names`, of one source (None: any), from a time on (None: any)."""

    names: tuple[str, ...] = EVENT_NAMES
    source_id: str | None = None
    since: datetime | None = None

    def has(self, event: JsonObject) -> bool:
        """Returns whether an event is in the scope. One without a name is, so that the load rejects it."""
        kind, name, source_id = (nonblank_text(event.value(key)) for key in ("type", "event", "source_id"))
        return (
            kind in (None, "track")
            and (name is None or name in self.names)
            and (self.source_id is None or source_id in (None, self.source_id))
        )


class DueProfile(NamedTuple):
    """A person whose events are due to be requested; they are loaded up to `loaded_until`."""

    id: str
    loaded_until: datetime | None = None


class AnsweredProfile(NamedTuple):
    """A person whose events were requested; `loaded_until` is unchanged if no response could be read."""

    id: str
    loaded_until: datetime | None
    asked_at: datetime


def message(event: Any, person_id: str) -> bytes:
    """Returns an event as a message, one line.

    Its ids are the person's external ids. The email replaces a missing anonymous id, and the id of the request is used
    if there are no ids at all (docs/contract/profile-api.md#messages).
    """
    if not isinstance(event, JsonObject):
        return f"{to_json(event)}\n".encode()
    ids = dict(reversed(list(_external_ids(event))))  # the first of several ids of a kind counts
    kind, _, requested = person_id.partition(":")
    email = ids.get("email") or nonblank_text(event.value("context", "traits", "email"))
    if not (email or ids.keys() & ID_TYPES) or (kind == "email" and not email):
        ids[kind] = requested  # the event itself has no id of a person
    fields = [
        ("type", event.value("type")),
        ("event", event.value("event")),
        ("messageId", event.value("message_id")),
        ("timestamp", event.value("timestamp")),
        ("userId", ids.get("user_id")),
        ("anonymousId", ids.get("anonymous_id") or email or ids.get("email")),
        ("context", event.value("context")),
        ("properties", event.value("properties")),
    ]
    return f"{to_json(JsonObject((name, value) for name, value in fields if value is not None))}\n".encode()


def _external_ids(event: JsonObject) -> Iterator[tuple[str, str]]:
    found = event.value("external_ids")
    for entry in found if isinstance(found, list) else ():
        if isinstance(entry, JsonObject) and entry.value("collection") in (None, "users"):
            kind, value = nonblank_text(entry.value("type")), entry.value("id")
            if kind and isinstance(value, str) and value.strip():
                yield kind, value


def nonblank_text(value: Any) -> str | None:
    """Returns a text that is not blank, or None for anything else."""
    return value if isinstance(value, str) and not isinstance(value, JsonNumber) and value.strip() else None


def start_of(person: DueProfile, scope: EventScope, now: datetime) -> datetime | None:
    """Returns the time from which a person's events are requested; None means all that the API still has."""
    not_loaded = person.loaded_until - OVERLAP if person.loaded_until else None
    start = max(filter(None, (not_loaded, scope.since)), default=None)
    return start if start and start > now - RETENTION else None
