"""Autopilot's contacts: what the API says of a person -> messages and cells (spec: autopilot-api).

Nothing here speaks HTTP: pages come in, parsed as they are spelt (`messages.parse`).
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, NamedTuple

from ...catalog import CONTACTS, FIELD_TYPES, MAILS, REJECT_REASONS, Table, Type
from ...segment.json_text import JsonNumber, JsonObject, is_storable, to_json
from ...segment.message import EXTRA, Discard, Leaf, Record, Rejected, flatten, one_cell_each, prefixed_if_taken
from ...segment.naming import column_name, snake_case

LIBRARY = "autopilot-api"

_DELIVERY = re.compile(r"batchdelivery_[0-9A-Fa-f-]{36}_(\d+)-([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FAR = 10**15  # milliseconds; no calendar goes that far
_FAR_DIGITS = 15
_INTERNAL = frozenset({"_id", "_rev"})
_MAPS = frozenset(name for name, _, _ in MAILS)
_DATES = frozenset(column.name for column in CONTACTS.columns if column.type == "timestamp")
# Columns that a table has for itself: a field of that name stands beside them.
_OWN = frozenset({"received_at", "uuid_ts", "deleted_at"})


class Window(NamedTuple):
    """Which events are wanted: from `since` on, before `until`; None is no end. What has no readable time is in it."""

    since: datetime | None = None
    until: datetime | None = None

    def has(self, time: datetime | None) -> bool:
        """Whether an event of that time is wanted."""
        if time is None:
            return True
        return (self.since is None or self.since <= time) and (self.until is None or time < self.until)


# ---- events --------------------------------------------------------------------------------------------------------


def messages(contact: JsonObject, received_at: str, user_id_field: str | None, window: Window) -> Iterator[bytes]:
    """The email events of a contact as messages, one line each; `received_at` is when the scan began, RFC 3339.

    An event has the same id in every scan. Raises `Rejected` for a contact without its id.

    Example: the contact `{"contact_id":"person_1","Email":"a@b.c","mail_opened":{"k":1482221100000}}` gives one line
    with `"event":"Email Opened"` and `"timestamp":"2016-12-20T08:05:00.000Z"`.
    """
    fields = _fields(contact)
    contact_id = _text(fields.get("contact_id"))
    if contact_id is None:
        raise Rejected("no_id", f"{REJECT_REASONS['no_id']}: a contact without `contact_id`")
    contact_json = to_json(contact_id)
    user_id = _custom_value(fields.get("custom_fields"), user_id_field) if user_id_field else None
    rest = _common(contact_json, _text(fields.get("Email")), user_id, received_at)
    for name, event, bounce_type in MAILS:
        emails = fields.get(name)
        bounce = f',"bounce_type":"{bounce_type}"' if bounce_type else ""
        for key, value in emails if isinstance(emails, JsonObject) else ():
            if value is None or not window.has(time := read_time(value)):
                continue
            clock = f'"{_clock(time)}"' if time and isinstance(value, JsonNumber) else to_json(value)
            key_json, id_json = _email(key)
            # A digest says nothing of what it was made from; the same contact, map and key give the same.
            digest = hashlib.sha256(f'[{contact_json},"{name}",{key_json}]'.encode()).hexdigest()
            yield (
                f'{{"type":"track","event":"{event}","messageId":"{digest}","timestamp":{clock},{rest},'
                f'"properties":{{"email_id":{id_json},"email_key":{key_json}{bounce}}}}}\n'
            ).encode()


def _fields(value: JsonObject) -> dict[str, Any]:
    """The values by their keys, of a key that comes twice the first."""
    return dict(reversed(value))


def _common(contact_json: str, email: str | None, user_id: str | None, received_at: str) -> str:
    """What all messages of a contact have in common."""
    email_json = to_json(email) if email else ""
    anonymous = f'"anonymousId":{email_json or contact_json}'
    user = f'"userId":{to_json(user_id)},' if user_id else ""
    traits = (f'"email":{email_json},' if email else "") + f'"contact_id":{contact_json}'
    return (
        f'"receivedAt":"{received_at}",{user}{anonymous},'
        f'"context":{{"library":{{"name":"{LIBRARY}"}},"traits":{{{traits}}}}}'
    )


@lru_cache(maxsize=10_000)
def _email(key: str) -> tuple[str, str]:
    """The key and the id of an email as JSON text; the recipients of an email share them."""
    return to_json(key), to_json(email_id(key))


def _custom_value(fields: Any, kind: str) -> str | None:
    entries = fields if isinstance(fields, list) else []
    found = [field for field in entries if isinstance(field, JsonObject) and field.value("kind") == kind]
    found.sort(key=lambda field: field.value("deleted") is True)
    return _text(found[0].value("value")) if found else None


def _text(value: Any) -> str | None:
    """A text or a number as text; None for anything else, for a blank one and for what no warehouse can store."""
    return str(value) if isinstance(value, str) and value.strip() and is_storable(value) else None


def email_id(key: str) -> str:
    """The id that the event stream likely has for an email, from the key of a contact's map; other keys stay.

    Example: of `batchdelivery_<UUID>_1482219072777-48a06f90-c686-11e6-94c6-07e94ae2263b` it is
    `batchcampaign_1482219072777-48A06F90-C686-11E6-94C6-07E94AE2263B`.
    """
    found = _DELIVERY.fullmatch(key)
    return f"batchcampaign_{found[1]}-{found[2].upper()}" if found else key


def read_time(value: Any) -> datetime | None:
    """A time in the API's notations: epoch milliseconds, ISO 8601, RFC 1123; None where it cannot be read."""
    try:
        if isinstance(value, JsonNumber):
            if value.isdigit() and len(value) < _FAR_DIGITS:
                return _EPOCH + timedelta(milliseconds=int(value))
            milliseconds = Decimal(value)
            return _EPOCH + timedelta(microseconds=round(milliseconds * 1000)) if abs(milliseconds) < _FAR else None
        if not isinstance(value, str):
            return None
        time = datetime.fromisoformat(value) if value[:1].isdigit() else parsedate_to_datetime(value)
    except (ValueError, OverflowError, ArithmeticError):
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _clock(time: datetime) -> str:
    """A time in the notation that the engine reads quickest."""
    digits = "microseconds" if time.microsecond % 1000 else "milliseconds"
    return f"{time.replace(tzinfo=None).isoformat(timespec=digits)}Z"


# ---- cells ---------------------------------------------------------------------------------------------------------


def contact_record(value: JsonObject) -> Record:
    """A contact as a row of `contacts`; raises `Rejected` where it has no id.

    Maps of email activity are events, not columns. What stands where a map should is discarded.
    """
    discards: list[Discard] = []
    declared: dict[str, Type] = {}
    return _thing(CONTACTS, value, _contact_leaves(value, discards, declared), discards, declared)


def record(table: Table, value: JsonObject, more: Mapping[str, str] | None = None) -> Record:
    """What the account has of another kind as a row of its table; `more` are cells that it does not say itself."""
    leaves = [(("thing", key), key, text) for key, text in (more or {}).items()]
    return _thing(table, value, [*leaves, *flatten(value, ("thing",), [])], [], {})


def _thing(
    table: Table, value: JsonObject, leaves: Iterable[Leaf], discards: list[Discard], declared: Mapping[str, Type]
) -> Record:
    beside_own = [(path, prefixed_if_taken(column, _OWN), leaf) for path, column, leaf in leaves]
    cells = one_cell_each(beside_own, frozenset(), discards)
    found = {name.removeprefix(EXTRA): cell for name, cell in cells.items()}
    key = tuple(_key(found.get(column)) for column in table.key)
    if None in key:
        missing = ", ".join(f"`{column}`" for column in table.key)
        raise Rejected("no_id", f"{REJECT_REASONS['no_id']}: expected {missing} in {_keys(value)}")
    return Record(tuple(map(str, key)), found, discards, declared)


def _key(cell: str | None) -> str | None:
    """The cell of a key as text; None where it is neither a text nor a number, or blank."""
    text = (
        json.loads(cell) if cell and cell.startswith('"') else JsonNumber(cell) if cell and cell[-1].isdigit() else None
    )
    return _text(text)


def _keys(value: JsonObject) -> str:
    return f"an object with {', '.join(name for name, _ in value[:5])}" if value else "an empty object"


def _contact_leaves(value: JsonObject, discards: list[Discard], declared: dict[str, Type]) -> Iterator[Leaf]:
    for name, field in value:
        if name in _INTERNAL or field is None or (field == [] and (name in _MAPS or isinstance(field, JsonObject))):
            continue
        column = column_name((name,))
        if name == "custom_fields":
            yield from _custom_leaves(field, discards, declared)
        elif name in _MAPS:
            if not isinstance(field, JsonObject):
                discards.append(Discard(name, to_json(field), "does_not_fit"))
        elif isinstance(field, JsonObject) and name.startswith(("anywhere_", "mail_")):
            # Keys that are pages, forms or emails would be columns without end.
            yield ("contact", name), column, field
        elif isinstance(field, JsonObject):
            yield from flatten(JsonObject([(name, field)]), ("contact",), [])
        else:
            yield ("contact", name), column, _moment(field) if column in _DATES else field


def _moment(value: Any) -> Any:
    """A time in the one notation that the warehouse reads; as it came where it cannot be read."""
    time = read_time(value)
    return _clock(time) if time else value


def _custom_leaves(fields: Any, discards: list[Discard], declared: dict[str, Type]) -> Iterator[Leaf]:
    """Custom fields, those that the account has deleted behind the others."""
    entries = [fields] if isinstance(fields, JsonObject) or not isinstance(fields, list) else fields
    found = []
    for entry in entries:
        if isinstance(entry, JsonObject) and isinstance(entry.value("kind"), str):
            found.append(entry)
        else:
            discards.append(Discard("custom_fields", to_json(entry), "does_not_fit"))
    for entry in sorted(found, key=lambda entry: entry.value("deleted") is True):
        kind, value = entry.value("kind"), entry.value("value")
        if value is None:
            continue
        column = f"custom_{snake_case(kind)}" if snake_case(kind) else ""
        field_type = FIELD_TYPES.get(str(entry.value("fieldType")))
        if field_type and column and column not in declared:
            declared[column] = field_type
        yield ("contact", f"custom_{kind}"), column, _moment(value) if field_type == "timestamp" else value
