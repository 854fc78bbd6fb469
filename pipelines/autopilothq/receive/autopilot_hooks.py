"""Turns the bodies that Autopilot's REST hooks and journeys' webhooks post into lines of the archive.

(docs/contract/autopilot-hooks.md) A hook has neither an id nor a time, so the id is a digest. A body of another form
becomes a line as well, and the load reports what is wrong with it.
"""

import hashlib
from collections.abc import Iterator

from ..catalog import HOOK_CONTACT, HOOK_EVENTS, HOOK_JOURNEY, HOOK_LIBRARY, HOOK_PREFIX
from ..segment.json_text import DECODER, JsonNumber, JsonObject, is_blank, storable_text, to_json
from ..utc import format_time
from .messages import STAMPS, WRITE_KEY, ArchiveLines, Arrival, Body, adapted_lines, check_added, kept_line

_SPELLINGS = {event.other: event.name for event in HOOK_EVENTS if event.other}
_OF_HOOKS = frozenset({"event", WRITE_KEY})
_OF_JOURNEYS = frozenset({"records", "journey", WRITE_KEY})
_CAMPAIGN = {"id": "campaign_id", "name": "campaign_name"}  # the properties that a journey's keys become


def hook_lines(body: Body, arrival: Arrival) -> ArchiveLines:
    """Returns the line of a hook's event, or a line for each contact of a journey's webhook.

    Example: the body `{"event":"contact_added","contact_id":"person_1"}` gives a track `autopilot_contact_added`.
    """
    return adapted_lines(body, arrival, lambda element: _adapt(element, arrival))


def _adapt(element: bytes, arrival: Arrival) -> list[bytes] | None:
    """Returns the lines of one element, or None if it comes from neither a hook nor a journey."""
    if not element.startswith(b"{"):
        return None
    try:
        value = DECODER.decode(element.decode(errors="surrogateescape"))
        if not isinstance(value, JsonObject) or value.value("type") is not None:
            return None  # a message of Segment's, which has a type
        records = value.value("records")  # a JsonObject is a list too, but not an array of contacts
        is_array = isinstance(records, list) and not isinstance(records, JsonObject)
        if is_array and isinstance(value.value("journey"), JsonObject):
            return list(_journey_lines(value, arrival))
        return [_hook_line(value, arrival)] if _text(value.value("event")) else None
    except (RecursionError, ValueError):
        return [kept_line(element).data.rstrip(b"\n")]


def _hook_line(hook: JsonObject, arrival: Arrival) -> bytes:
    event = _text(hook.value("event")) or ""
    contact = hook.value("contact")
    email, contact_id = (storable_text(hook.value(key)) for key in ("email", "contact_id"))
    # What can be neither an id nor a contact is a property, so that it is not lost.
    own = {"email": email, "contact_id": contact_id, "contact": isinstance(contact, JsonObject)}
    left_out = _OF_HOOKS.union(key for key in own if own[key] or is_blank(hook.value(key)))
    properties, repeated = _others(hook, left_out), hook.repeated(*left_out - {WRITE_KEY})
    contact = contact if isinstance(contact, JsonObject) else JsonObject()
    id_ = _digest(to_json(hook), contact, arrival)
    who = (email or storable_text(contact.value("Email")), contact_id or storable_text(contact.value("contact_id")))
    return _track(_SPELLINGS.get(event, event), id_, who, properties, contact, arrival, repeated)


def _journey_lines(body: JsonObject, arrival: Arrival) -> Iterator[bytes]:
    journey, others = body.value("journey"), _others(body, _OF_JOURNEYS)
    about = [(name, journey.value(key)) for key, name in _CAMPAIGN.items()]
    about.append(("journey", _others(journey, frozenset(_CAMPAIGN)) or None))
    repeated = JsonObject([*body.repeated("records", "journey"), *journey.repeated(*_CAMPAIGN)])
    properties = JsonObject([(key, value) for key, value in about if value is not None] + others)
    check_added(len(body.value("records")) * (STAMPS + len(to_json([journey, others]))))
    for contact in body.value("records"):
        if not isinstance(contact, JsonObject):
            yield to_json(contact).encode()
            continue
        id_ = _digest(to_json([journey, others, contact]), contact, arrival)
        who = (storable_text(contact.value("Email")), storable_text(contact.value("contact_id")))
        yield _track(HOOK_JOURNEY, id_, who, properties, contact, arrival, repeated)
        repeated = JsonObject()  # once is enough


def _others(value: JsonObject, own: frozenset[str]) -> JsonObject:
    return JsonObject([(key, found) for key, found in value if key not in own])


def _digest(text: str, contact: JsonObject, arrival: Arrival) -> str:
    """Returns the message id: a digest of the body and the time of the contact's last change.

    So a retry has the same id. A later event has it only if its body is the same and the contact was not changed in
    between. Without a time of change, the minute of receipt is used, so only a retry within it has the same id.
    """
    updated = contact.value("updated_at")
    when = f"{arrival.at:%Y-%m-%dT%H:%M}" if updated is None else to_json(updated)
    data = f"{text}\0{when}".encode()
    return f"hook-{hashlib.sha256(data).hexdigest()}"


def _track(
    event: str,
    id_: str,
    who: tuple[str | None, str | None],
    properties: JsonObject,
    contact: JsonObject,
    arrival: Arrival,
    repeated: JsonObject,
) -> bytes:
    """Returns a track; a second `context` has the body's `repeated` keys, so that the load reports them."""
    email, contact_id = who
    at = format_time(arrival.at, exact=True)
    known = {"email": email, "contact_id": contact_id}
    traits = JsonObject([(key, value) for key, value in known.items() if value])
    updated = contact.value("updated_at")
    more = [] if updated is None else [("contact_updated_at", updated)]
    message = [
        ("type", "track"),
        ("event", HOOK_PREFIX + event),
        ("messageId", id_),
        ("timestamp", at),
        ("originalTimestamp", at),
        ("receivedAt", at),
        ("anonymousId", email or contact_id),
        ("context", JsonObject([("library", JsonObject([("name", HOOK_LIBRARY)])), ("traits", traits)])),
        ("properties", JsonObject([*properties, *more])),
    ]
    # As text, because the contact's keys (one for each email received) would give every line a shape of its own.
    message += [(HOOK_CONTACT, to_json(contact))] if contact else []
    message += [("context", repeated)] if repeated else []
    return to_json(JsonObject(message)).encode()


def _text(value: object) -> str | None:
    return None if isinstance(value, JsonNumber) else storable_text(value)
