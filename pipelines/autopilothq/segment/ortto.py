"""Turns Ortto's activities and fields into Segment messages and typed values, whether they are pushed or pulled.

All input was read without loss (`json_text.DECODER`), so no digit changes; integers that stand for decimals get a
decimal point (docs/contract/ortto.md).
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ..catalog import (
    EVENT_TABLE_NAMES,
    ORTTO_ACTIVITIES,
    ORTTO_ATTRIBUTES,
    ORTTO_ATTRIBUTES_OF,
    ORTTO_DECIMAL_DIGITS,
    ORTTO_GEO_DIGITS,
    ORTTO_JOURNEY_EVENT,
    ORTTO_TYPES,
    OrttoAttribute,
    Type,
)
from .json_text import JsonNumber, JsonObject, id_as_sent, storable_text, to_json
from .naming import snake_case, table_name
from .times import message_time, time_of_number

_INTEGER = re.compile(r"-?[0-9]+")
_DECIMAL = "decimal"  # a display type
_GEO_KEYS = frozenset({"lat", "lng"})
_PHONE_KEYS = frozenset({"c", "n"})
_DATE_KEYS = ("year", "month", "day")
# Tables that an account's own activities cannot have.
_TAKEN_TABLES = frozenset({
    *EVENT_TABLE_NAMES,
    *(table_name(activity.name) for activity in ORTTO_ACTIVITIES.values()),
    ORTTO_JOURNEY_EVENT,
})  # fmt: skip
_PERSON = ("contact_id", "email", "external_id")
_STEP = ("action_id", "shape_id")  # the step of a journey: the documented key, and the one that is sent
_NOTHING = JsonObject()
_OF_DELIVERY = ("time", "webhook_id")  # keys that differ between deliveries of the same step

TypedValue = tuple[str, Any, Type | None]
"""The name of a column, its value, and its type; None means the type of the value."""


class OrttoField(NamedTuple):
    """A field or an attribute in an account's schema: its name, and how it is shown (`display_type`)."""

    name: str
    display_type: str | None = None


class OrttoNames(NamedTuple):
    """An account's names for what the catalogue does not know.

    `activities` has names by id. `attributes` has fields by the ids of activity and attribute; those under the activity
    `""` are person fields, and attributes of any activity.
    """

    activities: Mapping[str, str] = {}
    attributes: Mapping[tuple[str, str], OrttoField] = {}

    def attribute(self, activity: str, attribute: str) -> OrttoField | None:
        """Returns the account's name for an attribute of an activity, or None if it has none."""
        return self.attributes.get((activity, attribute)) or self.attributes.get(("", attribute))


class OrttoPerson(NamedTuple):
    """The person of an activity: Ortto's contact id, the email, the external id, and other fields by name or id."""

    contact_id: Any = None
    email: Any = None
    external_id: Any = None
    fields: Iterable[tuple[str, Any]] = ()


class OrttoReceipt(NamedTuple):
    """How and when an activity was received, and how to read it.

    `library` is `ortto-webhook` or `ortto-api`. `received_at` is a time in RFC 3339, `sent_at` the sender's time as
    JSON. `names` are the account's. `personal` is whether to keep reply texts and addresses.
    """

    library: str
    received_at: str
    sent_at: Any = None
    names: OrttoNames = OrttoNames()
    personal: bool = False


def ortto_message(
    activity: JsonObject, person: OrttoPerson, receipt: OrttoReceipt, repeated: JsonObject = _NOTHING
) -> bytes:
    """Returns the message of an activity: a line without its line ending. The same activity always has the same id.

    `activity` is from a webhook (its time is `created`) or from the feed (`created_at`). `repeated` are the repeated
    keys of the webhook's body: the message has them as repeated fields, which the load reports.
    Example: the activity `{"id":"c1","field_id":"act::o","created":"2026-11-01T05:06:07Z","attr":{"idt::c":"d1"}}`
    gives a message with `"messageId":"ortto-c1"`, `"event":"Email Opened"` and `"properties":{"campaign_id":"d1"}`.
    """
    field_id = storable_text(activity.value("field_id")) or ""
    attributes = activity.value("attr")
    found = attributes if isinstance(attributes, JsonObject) else JsonObject()
    properties = _properties(field_id, found, receipt)
    if attributes is not None and not isinstance(attributes, JsonObject):
        properties.append(("attr", attributes))
    created = next((time for key in ("created", "created_at") if (time := activity.value(key)) not in (None, "")), None)
    message_id = storable_text(activity.value("id")) or _digest(activity, person.contact_id)
    line = _line(_event(field_id, found, receipt.names), f"ortto-{message_id}", created, properties, person, receipt)
    again = [*_repeated_fields(repeated, receipt), *_repeated_parts(activity, field_id, receipt)]
    return line if not again else b"%b,%b" % (line[:-1], to_json(JsonObject(again))[1:].encode())


def ortto_journey_message(body: JsonObject, receipt: OrttoReceipt) -> bytes:
    """Returns the message of a body that a journey's step posted, as a line like `ortto_message`'s.

    Its event is `ortto_journey_action`. All fields of the body are properties; those of the activity that started the
    journey begin with `activity_`. The id depends on the contact, the run and the step, and on the content if the run
    or the contact's id is missing.
    """
    content = JsonObject((key, value) for key, value in body if key not in _OF_DELIVERY)
    person = OrttoPerson(*(body.value(part) or body.value("contact", part) for part in _PERSON))
    key = [person.contact_id, *(body.value(part) for part in ("campaign_id", "run_id", *_STEP))]
    properties = list(_journey_properties(content, receipt))
    is_known = body.value("run_id") is not None and person.contact_id is not None
    message_id = f"ortto-journey-{_digest(key if is_known else content)}"
    return _line(ORTTO_JOURNEY_EVENT, message_id, body.value("time"), properties, person, receipt)


def names_of_schema(schema: JsonObject) -> OrttoNames:
    """Returns the names of activities, attributes and fields in a response of `instance-schema/get`.

    Example: `{"namespaces":{"cm":{"fields":{"act:cm:x":{"name":"Bought","attributes":[…]}}}}}`.
    """
    activities: dict[str, str] = {}
    attributes: dict[tuple[str, str], OrttoField] = {}
    for _, namespace in _pairs(schema.value("namespaces")):
        for field_id, content in _pairs(namespace.value("fields") if isinstance(namespace, JsonObject) else None):
            field = _field(content)
            if field_id.startswith("act:"):
                activities[field_id] = field.name if field else ""
                attributes |= {(field_id, attribute_id): attribute for attribute_id, attribute in _attributes(content)}
            elif field:
                attributes["", field_id] = field
    return OrttoNames(activities, attributes)


def _attributes(activity: Any) -> Iterator[tuple[str, OrttoField]]:
    """Yields the attributes of an activity that have an id and a name, with their ids."""
    listed = activity.value("attributes") if isinstance(activity, JsonObject) else None
    for attribute in listed if isinstance(listed, list) else ():
        if (field := _field(attribute)) and (attribute_id := storable_text(attribute.value("id"))):
            yield attribute_id, field


def _field(content: Any) -> OrttoField | None:
    """Returns a field or an attribute of a schema, or None if it has no name."""
    name = storable_text(content.value("name")) if isinstance(content, JsonObject) else None
    return OrttoField(name, storable_text(content.value("display_type"))) if name else None


def typed_values(name: str, field_id: str, value: Any, display_type: str | None = None) -> Iterator[TypedValue]:
    """Yields the columns of a value: decimals and coordinates with a decimal point, phones and dates as text.

    `field_id` begins with the type; if it is a name without a type, the value's keys decide. Null has no column.
    Example: `typed_values("city", "geo::city", …)` yields `city`, `city_id`, `city_lat`, `city_lng` for a place, and
    `typed_values("birthday", "dtz::b", …)` yields `birthday` `1990-05-01` and `birthday_timezone`.
    """
    if value is None:
        return
    kind = field_id.partition(":")[0] if ":" in field_id else ""
    keys = {key for key, _ in value} if isinstance(value, JsonObject) else set()
    if display_type == _DECIMAL and isinstance(value, JsonNumber):
        yield name, _with_point(value, ORTTO_DECIMAL_DIGITS), "double"
    elif not isinstance(value, JsonObject):
        yield name, value, ORTTO_TYPES.get(kind)
    elif kind == "geo" or (not kind and keys >= _GEO_KEYS):
        yield from _position(name, value)
    elif kind in ("phn", "") and keys <= _PHONE_KEYS and (phone := _phone(value)):
        yield name, phone, "text"
    elif kind in ("dtz", "") and (date := _date(value)):
        yield name, date, "text"
        yield from ((f"{name}_{key}", part, "text") for key, part in _present(value) if key not in _DATE_KEYS)
    else:
        yield name, value, None


def name_of(field_id: str, known: OrttoField | None = None) -> str:
    """Returns the name of a field's column: its name in the account, otherwise its id, in snake_case.

    Example: `name_of("str:cm:shoe-size") == "str_cm_shoe_size"`.
    """
    return (snake_case(known.name) if known else "") or snake_case(field_id) or field_id


# ---- parts of a message --------------------------------------------------------------------------------------------


def _event(field_id: str, attributes: JsonObject, names: OrttoNames) -> str:
    """Returns the event of an activity. Activities that the account defines never get a table of the catalogue."""
    known = ORTTO_ACTIVITIES.get(field_id)
    if known is None:
        name = names.activities.get(field_id, "")
        return name if snake_case(name) and table_name(name) not in _TAKEN_TABLES else field_id
    if known.event and (known.needs is None or storable_text(attributes.value(known.needs))):
        return known.event
    return known.name


def _properties(field_id: str, attributes: JsonObject, receipt: OrttoReceipt) -> list[tuple[str, Any]]:
    """Returns the properties of an activity.

    The first of repeated attributes counts. The others follow, as repeated properties that the load reports.
    """
    first, repeated = dict[str, Any](), list[tuple[str, Any]]()
    for attribute_id, value in attributes:
        if attribute_id in first:
            repeated.append((attribute_id, value))
        first.setdefault(attribute_id, value)
    found = list(_unique_properties(field_id, first.items(), receipt).items())
    of_activity = _unique_properties(field_id, (), receipt) if repeated else {}
    for attribute in repeated:
        again = _unique_properties(field_id, [attribute], receipt)
        found += [(column, part) for column, part in again.items() if column not in of_activity]
    return found


def _unique_properties(field_id: str, attributes: Iterable[tuple[str, Any]], receipt: OrttoReceipt) -> dict[str, Any]:
    """Returns the properties of attributes with distinct ids. Those of the catalogue take precedence over others."""
    special = ORTTO_ATTRIBUTES_OF.get(field_id, {})
    known, others = dict[str, Any](), list[tuple[str, Any]]()
    for attribute_id, value in attributes:
        attribute = special.get(attribute_id) or ORTTO_ATTRIBUTES.get(attribute_id)
        if attribute is None:
            others.append((attribute_id, value))
        elif receipt.personal or not attribute.personal:
            known |= {column: part for column, part, _ in _typed(attribute, value)}
    of_activity = ORTTO_ACTIVITIES.get(field_id)
    known |= dict(of_activity.properties) if of_activity else {}
    for attribute_id, value in others:
        field = receipt.names.attribute(field_id, attribute_id)
        name = name_of(attribute_id, field)
        name = name_of(attribute_id) if name in known else name
        values = typed_values(name, attribute_id, value, field.display_type if field else None)
        known |= {column: part for column, part, _ in values if column not in known}
    return known


def _typed(attribute: OrttoAttribute, value: Any) -> Iterator[TypedValue]:
    return typed_values(attribute.column, attribute.id, value, _DECIMAL if attribute.decimal else None)


def _journey_properties(content: JsonObject, receipt: OrttoReceipt) -> Iterator[tuple[str, Any]]:
    for key, value in content:
        if key == "activity" and isinstance(value, JsonObject):
            yield from ((f"activity_{name}", part) for name, part in _activity_properties(value, receipt))
        elif key == "contact" and isinstance(value, JsonObject):
            yield from ((f"contact_{name}", part) for name, part in _fields(value, receipt.names))
        else:
            yield from _fields([(key, value)], receipt.names)


def _activity_properties(activity: JsonObject, receipt: OrttoReceipt) -> Iterator[tuple[str, Any]]:
    for key, value in _present(activity):
        if key == "attr" and isinstance(value, JsonObject):
            yield from _properties(storable_text(activity.value("field_id")) or "", value, receipt)
        elif key != "render_cmds":
            yield key, value


def _repeated_fields(body: JsonObject, receipt: OrttoReceipt) -> Iterator[tuple[str, Any]]:
    """Yields the repeated keys of a webhook's body as the fields of the message that they would have become."""
    for key, value in body:
        if key == "activity" and isinstance(value, JsonObject):
            yield "properties", JsonObject(_activity_properties(value, receipt))
        elif key == "time":
            yield "sentAt", _time_as_sent(value)
        else:
            yield "properties" if key == "activity" else "context", JsonObject([(key, value)])


def _repeated_parts(activity: JsonObject, field_id: str, receipt: OrttoReceipt) -> Iterator[tuple[str, Any]]:
    """Yields the repeated keys of an activity as the properties that they would have become."""
    for key, value in activity.repeated("id", "field_id", "created", "created_at", "attr"):
        if key == "attr" and isinstance(value, JsonObject):
            yield "properties", JsonObject(_properties(field_id, value, receipt))
        else:
            yield "properties", JsonObject([(key, value)])


def _fields(fields: Iterable[tuple[str, Any]], names: OrttoNames) -> Iterator[tuple[str, Any]]:
    """Yields the columns and values of person fields, which webhooks send by name, and the API by id."""
    for key, value in fields:
        known = names.attribute("", key)
        name = name_of(key, known) if known or ":" in key else key
        yield from ((column, part) for column, part, _ in typed_values(name, key, value, known and known.display_type))


def _line(
    event: str,
    message_id: str,
    created: Any,
    properties: list[tuple[str, Any]],
    person: OrttoPerson,
    receipt: OrttoReceipt,
) -> bytes:
    contact_id, email, external_id = map(id_as_sent, person[:3])
    created, sent_at = map(_time_as_sent, (created, receipt.sent_at))
    time = created if created is not None else sent_at if sent_at is not None else receipt.received_at
    traits = [("email", email), ("contact_id", contact_id), *_fields(person.fields, receipt.names)]
    context = JsonObject([
        ("library", JsonObject([("name", receipt.library)])),
        ("integration", JsonObject([("name", "ortto")])),
        ("traits", JsonObject(_present(traits))),
    ])  # fmt: skip
    message = [
        ("type", "track"),
        ("event", event),
        ("messageId", message_id),
        ("timestamp", time),
        ("originalTimestamp", time),
        ("sentAt", sent_at),
        ("receivedAt", receipt.received_at),
        ("userId", external_id),
        ("anonymousId", storable_text(email) or storable_text(contact_id)),
        ("context", context),
        ("properties", JsonObject(properties)),
    ]
    return to_json(JsonObject(_present(message))).encode()


# ---- values --------------------------------------------------------------------------------------------------------


def _time_as_sent(value: Any) -> Any:
    return message_time(value, time_of_number(value) if isinstance(value, JsonNumber) else None)


def _present(pairs: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    return ((key, value) for key, value in pairs if value is not None)


def _pairs(value: Any) -> Iterable[tuple[str, Any]]:
    return value if isinstance(value, JsonObject) else ()


def _digest(*parts: Any) -> str:
    return f"sha256-{hashlib.sha256(to_json(list(parts)).encode()).hexdigest()}"


def _with_point(number: JsonNumber, digits: int) -> JsonNumber:
    """Returns an integer with a decimal point before its last `digits` digits. Example: `-1500` and 3 give `-1.5`."""
    if not _INTEGER.fullmatch(number):
        return number
    sign, whole = ("-", number[1:]) if number.startswith("-") else ("", str(number))
    whole = whole.zfill(digits + 1)
    return JsonNumber(f"{sign}{whole[:-digits]}.{whole[-digits:].rstrip('0') or '0'}")


def _position(name: str, value: JsonObject) -> Iterator[TypedValue]:
    for key, part in _present(value):
        if key == "name":
            yield name, part, "text"
        elif key in _GEO_KEYS and isinstance(part, JsonNumber):
            yield f"{name}_{key}", _with_point(part, ORTTO_GEO_DIGITS), "double"
        else:
            yield f"{name}_{key}", part, None


def _phone(value: JsonObject) -> str | None:
    code, number = storable_text(value.value("c")), storable_text(value.value("n"))
    if number is None or code is None or number.startswith("+"):
        return number
    return f"+{code.removeprefix('+')}{number}"


def _date(value: JsonObject) -> str | None:
    parts = [value.value(key) for key in _DATE_KEYS]
    if not all(isinstance(part, JsonNumber) and part.isdigit() and len(part) <= 4 for part in parts):
        return None
    year, month, day = map(int, parts)
    return f"{year:04}-{month:02}-{day:02}" if 0 < month < 13 and 0 < day < 32 else None


def names_of_ids(names: Mapping[str, str], decimals: Collection[str] = ()) -> OrttoNames:
    """Returns an account's names from a mapping by id: of activities (`act:…`), attributes and fields.

    `decimals` are the ids whose integers stand for decimals.

    Example: `names_of_ids({"act:cm:bought": "Bought", "int:cm:price": "Price"}, ["int:cm:price"])`.
    """
    fields = {**{id_: id_ for id_ in decimals}, **{id_: name for id_, name in names.items() if id_[:4] != "act:"}}
    return OrttoNames(
        {id_: name for id_, name in names.items() if id_[:4] == "act:"},
        {("", id_): OrttoField(name, _DECIMAL if id_ in decimals else None) for id_, name in fields.items()},
    )
