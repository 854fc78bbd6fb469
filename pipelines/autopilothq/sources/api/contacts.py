"""Turns the email events in Autopilot's contacts into messages (docs/contract/autopilot-api.md).

It takes contacts that `segment.message.parse_json` has read without loss.
"""

import hashlib
import re
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from ...catalog import MAILS, REJECT_REASONS
from ...segment.json_text import JsonObject, id_as_sent, storable_text, to_json
from ...segment.message import Rejected
from ...segment.times import message_time
from ..times import read_time

LIBRARY = "autopilot-api"

_DELIVERY = re.compile(r"batchdelivery_[0-9A-Fa-f-]{36}_(\d+)-([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})")


class Window(NamedTuple):
    """A period from `since` to before `until`; None means no limit. It includes events without a readable time."""

    since: datetime | None = None
    until: datetime | None = None

    def has(self, time: datetime | None) -> bool:
        """Returns whether an event of that time is in the window."""
        if time is None:
            return True
        return (self.since is None or self.since <= time) and (self.until is None or time < self.until)


# ---- events --------------------------------------------------------------------------------------------------------


def messages(contact: JsonObject, received_at: str, user_id_field: str | None, window: Window) -> Iterator[bytes]:
    """Yields the email events of a contact as messages, one line each.

    `received_at` is when the scan began (RFC 3339); `user_id_field` is the custom field that holds the user id. An
    event has the same message id in every scan. Raises Rejected for a contact without an id.

    Example: the contact `{"contact_id":"person_1","Email":"a@b.c","mail_opened":{"k":1482221100000}}` gives one line
    with `"event":"Email Opened"` and `"timestamp":"2016-12-20T08:05:00.000Z"`.
    """
    fields = _fields(contact)
    contact_id = storable_text(fields.get("contact_id"))
    if contact_id is None:
        raise Rejected("no_id", f"{REJECT_REASONS['no_id']}: a contact without `contact_id`")
    contact_json = to_json(contact_id)
    user_id = _custom_value(fields.get("custom_fields"), user_id_field) if user_id_field else None
    rest = _common(contact_json, id_as_sent(fields.get("Email")), user_id, received_at)
    for name, event, bounce_type in MAILS:
        emails = fields.get(name)
        bounce = f',"bounce_type":"{bounce_type}"' if bounce_type else ""
        for key, value in emails if isinstance(emails, JsonObject) else ():
            if value is None or not window.has(time := read_time(value)):
                continue
            timestamp = to_json(message_time(value, time))
            key_json, id_json = _email(key)
            # A digest, so that the same contact, map and key always have the same id, which does not reveal them.
            digest = hashlib.sha256(f'[{contact_json},"{name}",{key_json}]'.encode()).hexdigest()
            yield (
                f'{{"type":"track","event":"{event}","messageId":"{digest}","timestamp":{timestamp},{rest},'
                f'"properties":{{"email_id":{id_json},"email_key":{key_json}{bounce}}}}}\n'
            ).encode()


def _fields(value: JsonObject) -> dict[str, Any]:
    """Returns the values by their keys; the first of repeated keys counts."""
    return dict(reversed(value))


def _common(contact_json: str, email: Any, user_id: str | None, received_at: str) -> str:
    """Returns the JSON text that all messages of a contact share. The load reports an email that cannot be an id."""
    email_json = "" if email is None else to_json(email)
    anonymous = f'"anonymousId":{email_json if storable_text(email) else contact_json}'
    user = f'"userId":{to_json(user_id)},' if user_id else ""
    traits = (f'"email":{email_json},' if email_json else "") + f'"contact_id":{contact_json}'
    return (
        f'"receivedAt":"{received_at}",{user}{anonymous},'
        f'"context":{{"library":{{"name":"{LIBRARY}"}},"traits":{{{traits}}}}}'
    )


@lru_cache(maxsize=10_000)
def _email(key: str) -> tuple[str, str]:
    """Returns the key and the id of an email as JSON text; all recipients of an email share them."""
    return to_json(key), to_json(email_id(key))


def _custom_value(fields: Any, kind: str) -> str | None:
    """Returns the value of a custom field; if the field was deleted and created again, that of the new one."""
    entries = fields if isinstance(fields, list) else []
    found = [field for field in entries if isinstance(field, JsonObject) and field.value("kind") == kind]
    found.sort(key=lambda field: field.value("deleted") is True)
    return storable_text(found[0].value("value")) if found else None


def email_id(key: str) -> str:
    """Returns the id that an email probably has in the event stream, derived from its key in a contact's map.

    Keys of any other form are returned unchanged. Example: the id for
    `batchdelivery_<UUID>_1482219072777-48a06f90-c686-11e6-94c6-07e94ae2263b` is
    `batchcampaign_1482219072777-48A06F90-C686-11E6-94C6-07E94AE2263B`.
    """
    found = _DELIVERY.fullmatch(key)
    return f"batchcampaign_{found[1]}-{found[2].upper()}" if found else key
