"""Collects what a run would change: the first contacts in full, and counts of all. Nothing is sent."""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from ..catalog import CONTACTS
from ..segment.naming import snake_case
from ..utc import to_utc
from ..warehouses.dataset import Dataset, placeholders
from .batch import EXTERNAL_ID, Key, contact_key, merged

SHOWN_CONTACTS = 5  # contacts in full
_LABELS = {
    "_NewEmail": "Email",
    "_autopilot_list": "joins the list",
    "tags": "gets the tag",
    "unset_tags": "loses the tag",
}
_NO_FIELDS = ("Email", "custom")


class FieldChange(NamedTuple):
    """The key of a contact's field, its value `now` (None if unknown), and the value that it would get (`then`)."""

    field: str
    now: Any
    then: Any

    @property
    def is_unchanged(self) -> bool:
        """Whether the field has that value already."""
        # Two texts are not compared as numbers: "01234" is not the postal code "1234", and a person may be named Nan.
        are_texts = isinstance(self.now, str) and isinstance(self.then, str)
        same: bool = _comparable(self.now, are_texts) == _comparable(self.then, are_texts)
        return same


class PreviewedContact(NamedTuple):
    """A contact as it would be written: its values by the API's keys, and the triggers of its journeys."""

    email: str
    values: Mapping[str, Any]
    triggers: Sequence[str]

    def changes(self, now: Mapping[str, Any]) -> list[FieldChange]:
        """Returns the fields that would be written; `now` is the contact's row of the table `contacts`."""
        return [FieldChange(key, now.get(column_of(key)), value) for key, value in written_fields(self.values)]


@dataclass
class Preview:
    """Collects what would be sent.

    - `known`: the keys of the account's custom fields.
    - `labels`: the display names of fields by their keys, for keys that do not contain the name.
    - `is_compared`: whether a loaded table has the current values of contacts.
    - `journeys`: titles by trigger.
    - `values` and `cleared`: how many values would be set and cleared, by field.
    - `entering`: how many contacts would enter a journey, by trigger.
    """

    known: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    is_compared: bool = True
    journeys: Mapping[str, str] = field(default_factory=dict)
    values: Counter[str] = field(default_factory=Counter)
    cleared: Counter[str] = field(default_factory=Counter)
    entering: Counter[str] = field(default_factory=Counter)
    _people: set[Key] = field(default_factory=set)
    _first: dict[Key, dict[str, Any]] = field(default_factory=dict)
    _triggers: dict[Key, list[str]] = field(default_factory=dict)
    # The keys of contacts by their new addresses, which the account does not have yet.
    _present: dict[Key, Key] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def people(self) -> int:
        """How many contacts would be written."""
        return len(self._people)

    @property
    def contacts(self) -> list[PreviewedContact]:
        """The first contacts, in their order."""
        return [
            PreviewedContact(str(values["Email"] or values["custom"][EXTERNAL_ID]), values, self._triggers.get(key, []))
            for key, values in self._first.items()
        ]

    def write(self, contacts: Sequence[Mapping[str, Any]]) -> None:
        """Adds contacts that would be written."""
        with self._lock:
            for values in contacts:
                address = contact_key(values)
                key = self._present.get(address, address)
                if values.get("_NewEmail"):
                    self._present[str(values["_NewEmail"]).lower()] = key
                self._people.add(key)
                if key in self._first or len(self._first) < SHOWN_CONTACTS:
                    before = self._first.get(key, {})
                    present = {} if key == address else {"Email": before["Email"]}
                    self._first[key] = merged(before, values) | present
                for name, value in written_fields(values):
                    (self.cleared if value is None else self.values)[name] += 1

    def enter(self, trigger_id: str, email: str) -> None:
        """Counts a contact that would enter a journey."""
        with self._lock:
            self.entering[trigger_id] += 1
            key = self._present.get(email.lower(), email.lower())
            if key in self._first:
                self._triggers.setdefault(key, []).append(trigger_id)

    def label(self, key: str) -> str:
        """Returns the display name of a field."""
        return self.labels.get(key) or field_label(key)

    def is_unknown(self, key: str) -> bool:
        """Returns whether the account has no custom field with that key, so that Autopilot would not show it."""
        return "--" in key and key not in self.known


def current_contacts(
    dataset: Dataset, emails: Sequence[str], columns: Sequence[str]
) -> dict[str, dict[str, Any]] | None:
    """Returns the rows of the table `contacts` by email in lower case, or None if the dataset has no such table.

    Contacts that were deleted, and columns that the table does not have, are left out.
    """
    existing = dataset.tables([CONTACTS.name]).get(CONTACTS.name)
    if existing is None or "email" not in existing:
        return None
    names = [name for name in dict.fromkeys(["email", *columns]) if name in existing]
    where = f"WHERE lower({{email}}) IN ({placeholders(emails)}) AND {{deleted_at}} IS NULL"
    rows = dataset.rows(", ".join(f"{{{name}}}" for name in names), CONTACTS.name, where, *emails)
    return {str(row[0]).lower(): dict(zip(names, row, strict=True)) for row in rows}


def written_fields(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Returns the fields of a contact by the API's keys, custom ones last, without its email."""
    standard = [(name, value) for name, value in values.items() if name not in _NO_FIELDS]
    return [*standard, *values.get("custom", {}).items()]


def field_label(key: str) -> str:
    """Returns a field's display name. Example: `field_label("integer--Review--Rating") == "Review Rating"`."""
    return key.partition("--")[2].replace("--", " ") if "--" in key else _LABELS.get(key, key)


def column_of(key: str) -> str:
    """Returns the column of `contacts` that holds a field. Example: `column_of("string--Plan") == "custom_plan"`."""
    if key == "_NewEmail":
        return "email"
    return f"custom_{snake_case(field_label(key))}" if "--" in key else snake_case(key)


def shown_value(value: Any) -> str:
    """Returns a value as a preview shows it: times to the minute, in UTC."""
    if value is None or value in ("", []):
        return "(empty)"
    if isinstance(value, list):
        return ", ".join(map(shown_value, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    at = _time(value)
    if at is None:
        return str(value).removesuffix(".0") if isinstance(value, float) else str(value)
    return f"{at.date()}" if (at.hour, at.minute) == (0, 0) else f"{at.date()} {at:%H:%M}"


def _time(value: Any) -> datetime | None:
    """Returns the time, in UTC, of a datetime or of text in the notation of the API; None for anything else."""
    found = value if isinstance(value, datetime) else None
    with suppress(ValueError):  # also if it is beyond the calendar in UTC
        if isinstance(value, str) and value[4:5] == "-" == value[7:8]:
            found = datetime.fromisoformat(value)
        return found and to_utc(found)
    return None


def _comparable(value: Any, is_text: bool) -> Any:
    """Returns a value in a normal form, in which values with the same meaning are equal.

    With `is_text`, a text is not taken for a number.
    """
    if value is None or value == "":
        return None
    if (at := _time(value)) is not None:
        return at
    if not is_text:
        with suppress(ValueError, TypeError, OverflowError):
            return float(value)
    return str(value)
