"""Turns Autopilot's contacts into records of `contacts` (docs/contract/autopilot-api.md#a-contact).

It takes contacts that `segment.message.parse_json` has read without loss.
"""

from collections.abc import Iterator
from typing import Any

from ..catalog import CONTACTS, FIELD_TYPES, MAILS, Type
from ..segment.json_text import JsonObject, to_json
from ..segment.message import Discard, Leaf, Record, flatten
from ..segment.naming import column_name, snake_case
from ..utc import format_time
from .records import make_record
from .times import read_time

_INTERNAL = frozenset({"_id", "_rev"})
_MAPS = frozenset(name for name, _, _ in MAILS)
_DATES = frozenset(column.name for column in CONTACTS.columns if column.type == "timestamp")


def contact_record(value: JsonObject) -> Record:
    """Returns a contact as a record of `contacts`. Raises Rejected if it has no id.

    Maps of email activity become events, not columns. A value of another type in the place of such a map is discarded.
    """
    discards: list[Discard] = []
    declared: dict[str, Type] = {}
    return make_record(CONTACTS, value, _contact_leaves(value, discards, declared), discards, declared)


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
            # The keys are pages, forms or emails: there would be no limit to such columns.
            yield ("contact", name), column, field
        elif isinstance(field, JsonObject):
            yield from flatten(JsonObject([(name, field)]), ("contact",), [])
        else:
            yield ("contact", name), column, _time_cell(field) if column in _DATES else field


def _time_cell(value: Any) -> Any:
    """Returns a time in Segment's notation, which the projection reads; any other value is returned unchanged."""
    time = read_time(value)
    return format_time(time, exact=True) if time else value


def _custom_leaves(fields: Any, discards: list[Discard], declared: dict[str, Type]) -> Iterator[Leaf]:
    """Yields the custom fields; those that the account has deleted come last, so that others get the columns."""
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
        yield ("contact", f"custom_{kind}"), column, _time_cell(value) if field_type == "timestamp" else value
