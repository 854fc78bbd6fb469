"""Turns the bodies that Ortto's webhooks send into lines of the archive (docs/contract/ortto.md#webhooks).

Ortto does not try again after most errors, so every body becomes a line. The load rejects, counts and shows those of
unknown forms.
"""

import logging
from typing import Any

from ..catalog import KINDS, ORTTO_TEST
from ..segment.json_text import DECODER, JsonObject
from ..segment.ortto import OrttoPerson, OrttoReceipt, ortto_journey_message, ortto_message
from ..utc import format_time
from .messages import WRITE_KEY, ArchiveLines, Arrival, Body, adapted_lines, kept_line
from .settings import ortto_settings

_log = logging.getLogger(__name__)

_LIBRARY = "ortto-webhook"
_OWN = frozenset({"contact_id", "email", "external_id"})
_OF_JOURNEYS = ("campaign_id", "action_id", "run_id")
_TYPES = frozenset({"track", *(kind for kind, _, _ in KINDS)})


def ortto_lines(body: Body, arrival: Arrival) -> ArchiveLines:
    """Returns the lines of an activity, of a journey's step, or of an array of these; no line for the Test button."""
    settings = ortto_settings(arrival.name)
    receipt = OrttoReceipt(
        _LIBRARY, format_time(arrival.at, exact=True), names=settings.names, personal=settings.personal
    )
    return adapted_lines(body, arrival, lambda element: _adapt(element, receipt))


def _adapt(element: bytes, receipt: OrttoReceipt) -> list[bytes] | None:
    """Returns the line of one element; `[]` for the Test button; None if it is neither an activity nor a step."""
    if not element.startswith(b"{"):
        return None
    try:
        value = DECODER.decode(element.decode(errors="surrogateescape"))
        return _message(value, receipt) if isinstance(value, JsonObject) else None
    except Exception as error:  # noqa: BLE001 - after any error the body is kept, and the load reports what is wrong
        _log.error("A body of Ortto's is kept as it came, because it cannot be read: %s", type(error).__name__)
        return [kept_line(element).data.rstrip(b"\n")]


def _message(value: JsonObject, receipt: OrttoReceipt) -> list[bytes] | None:
    if isinstance(kind := value.value("type"), str) and kind in _TYPES:
        return None  # a message of Segment's, which a template made
    value = JsonObject(pair for pair in value if pair[0] != WRITE_KEY)  # it may be the endpoint's secret
    receipt = receipt._replace(sent_at=value.value("time"))
    activity, contact = value.value("activity"), value.value("contact")
    is_activity = isinstance(activity, JsonObject) and isinstance(activity.value("field_id"), str)
    if ORTTO_TEST in (value.value("activity", "field_id"), value.value("field_id")):
        return []
    is_journey = any(value.value(key) is not None for key in _OF_JOURNEYS)
    if isinstance(activity, JsonObject) and is_activity and (isinstance(contact, JsonObject) or not is_journey):
        whose = contact if isinstance(contact, JsonObject) else value
        repeated = JsonObject([*value.repeated("activity", "contact", "time"), *whose.repeated(*_OWN)])
        return [ortto_message(activity, _person(whose), receipt, repeated)]
    return [ortto_journey_message(value, receipt)] if is_journey else None


def _person(contact: JsonObject) -> OrttoPerson:
    """Returns the person of a webhook's activity. `contact` is the object of that name, or a body that has its keys."""
    contact_id: Any = contact.value("contact_id")
    is_form = contact.value("activity") is None
    fields = [(key, value) for key, value in contact if key not in _OWN] if is_form else []
    if contact_id is None and is_form:
        contact_id, fields = contact.value("id"), [(key, value) for key, value in fields if key != "id"]
    return OrttoPerson(contact_id, contact.value("email"), contact.value("external_id"), fields)
