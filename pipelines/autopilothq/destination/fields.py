"""Maps the traits of a message to the fields of an account (docs/contract/destination.md#identify).

Nothing is lost in silence: each trait that is left out, and each that the account has no field for, has a remark.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from ..catalog import CUSTOM_TYPES, STANDARD_FIELDS, WHOLES
from ..errors import InvalidSetting
from ..segment.naming import snake_case
from .settings import SECTION

_STANDARD = {path: field for field, paths in STANDARD_FIELDS.items() for path in paths}
_SEPARATORS = re.compile(r"[\W_]")
_INTEGER = re.compile(r"[+-]?[0-9]+")


class Custom(NamedTuple):
    """A custom field of the account."""

    name: str
    type: str

    @property
    def key(self) -> str:
        """The key in the API's `custom`. Example: `Custom("Smog Level", "integer").key == "integer--Smog--Level"`."""
        return f"{self.type}--{self.name.replace(' ', '--')}"


class ContactFields(NamedTuple):
    """A contact as the API takes it.

    `values` are by the API's keys. `remarks` say of a trait why it was left out, or that it was sent to no field.
    `unknown` are the traits that the account has no field for.
    """

    values: dict[str, Any]
    remarks: dict[str, str]
    unknown: list[str]


class CastError(Exception):
    """A value cannot become what its field holds; the message says why."""


class Fields:
    """The fields of an account, and which trait goes to which.

    `custom` is the API's list of custom fields. `mapping` is the setting: names of fields by the paths of traits.
    Raises InvalidSetting where the mapping, or `user_id_field`, names a field that the account does not have.

    Example: `Fields([{"name": "Smog Level", "fieldType": "integer"}], {"air.smog": "Smog Level"})`.
    """

    def __init__(
        self, custom: Sequence[Any], mapping: Mapping[str, str] | None = None, user_id_field: str | None = None
    ) -> None:
        existing = [Custom(str(field["name"]), _type(field)) for field in custom if _exists(field)]
        self._named = {field.name: field for field in reversed(existing)}
        self._slugs = {snake_case(field.name): field for field in reversed(existing)}
        self._slugs.pop("", None)
        self._mapping = {path: self._target(path, name) for path, name in (mapping or {}).items()}
        self.user_id = self.custom(user_id_field) if user_id_field else None
        if user_id_field and self.user_id is None:
            raise InvalidSetting(
                f"{SECTION}.user_id_field names {user_id_field!r}, but the account has no such custom field:"
                " make it in Autopilot, or correct the setting"
            )

    def custom(self, name: str) -> Custom | None:
        """Returns the custom field of that name, or of the same name in snake_case; None without one."""
        return self._named.get(name) or self._slugs.get(snake_case(name))

    def _target(self, path: str, name: str) -> str | Custom:
        field = name if name in STANDARD_FIELDS else self.custom(name)
        if field is None:
            raise InvalidSetting(
                f"{SECTION}.fields maps {path!r} to {name!r}, but the account has no such field: make it in Autopilot,"
                f" or correct the mapping"
            )
        return field

    def known(self, path: tuple[str, ...], properties: bool = False) -> str | Custom | None:
        """Returns the field of the trait at a path, None where the account has none for it.

        A property of an event goes to a field that the settings map it to or the account defines, never to a standard
        field by its name.
        """
        mapped = self._mapping.get(".".join(path))
        standard = None if properties else _STANDARD.get(".".join(_SEPARATORS.sub("", part.lower()) for part in path))
        return mapped or standard or self.custom("_".join(path))

    def email(self, traits: Mapping[str, Any]) -> str | None:
        """Returns the email among the traits, in any spelling and by any mapping; None without one."""
        found = [(path, value) for path, value in _leaves(traits) if self.known(path) == "Email"]
        found.sort(key=lambda leaf: (not self.is_mapped(leaf[0]), leaf[0] != ("email",)))
        return next((value.strip() for _, value in found if isinstance(value, str) and _is_text(value.strip())), None)

    def is_mapped(self, path: tuple[str, ...]) -> bool:
        """Returns whether the settings map the trait at that path."""
        return ".".join(path) in self._mapping


def _exists(field: Any) -> bool:
    return isinstance(field, dict) and isinstance(field.get("name"), str) and not field.get("deleted")


def _type(field: Mapping[str, Any]) -> str:
    kind = str(field.get("fieldType", "")).lower()
    return kind if kind in CUSTOM_TYPES else "string"


def contact_fields(
    fields: Fields,
    email: str,
    traits: Mapping[str, Any],
    user_id: str | None = None,
    properties: Mapping[str, Any] | None = None,
) -> ContactFields:
    """Returns the contact of an identify, or of a track with its `properties`, which take precedence over traits.

    Example: `contact_fields(fields, "a@example.com", {"first_name": "Ann", "air": {"smog": 4}}).values ==
    {"Email": "a@example.com", "FirstName": "Ann", "custom": {"integer--Smog--Level": 4}}`.
    """
    builder = _ContactBuilder(fields)
    if user_id is not None and fields.user_id is not None:
        builder.put(("user_id",), fields.user_id, user_id)
    if properties:
        builder.take(properties, properties=True)
    builder.take(traits)
    values = {"Email": email} | builder.standard | ({"custom": builder.custom} if builder.custom else {})
    return ContactFields(values, builder.remarks, builder.unknown)


class _ContactBuilder:
    """Collects the values of a contact. The first trait that comes has the field."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._taken: dict[str, str] = {}  # the trait that has a key
        self.standard: dict[str, Any] = {}
        self.custom: dict[str, Any] = {}
        self.remarks: dict[str, str] = {}
        self.unknown: list[str] = []

    def take(self, traits: Mapping[str, Any], properties: bool = False) -> None:
        leaves = sorted(_leaves(traits), key=lambda leaf: not self._fields.is_mapped(leaf[0]))
        names: list[Any] = []
        for path, value in leaves:
            if not self._fields.is_mapped(path) and not properties and path[0].lower() in WHOLES and len(path) == 1:
                if value is None:
                    for field in WHOLES[path[0].lower()]:
                        self.put(path, field, None)
                    continue
                if path[0].lower() == "name":
                    names.append((path, value))
                    continue
            target = self._fields.known(path, properties)
            if target == "Email":
                continue  # it says who the contact is, and is no value
            if target is not None:
                self.put(path, target, value)
            elif not properties:
                self._put_unknown(path, value)
        for path, value in names:
            self._put_name(path, value)

    def put(self, path: tuple[str, ...], target: str | Custom, value: Any) -> None:
        trait = ".".join(path)
        key = target.key if isinstance(target, Custom) else target
        if key in self._taken:
            if self._taken[key] != trait:
                self.remarks.setdefault(trait, f"left out: {self._taken[key]} has the field {key}")
            return
        try:
            if isinstance(target, Custom):
                self.custom[key] = cast(value, target.type)
            else:
                self.standard[key] = cast(value, "boolean" if target == "unsubscribed" else "string")
        except CastError as error:
            self.remarks[trait] = f"left out: {error}"
            return
        self._taken[key] = trait

    def _put_unknown(self, path: tuple[str, ...], value: Any) -> None:
        trait = ".".join(path)
        if not _is_text(trait):
            self.remarks[trait] = "left out: its name is empty, or holds half a surrogate pair"
            return
        field = Custom("_".join(path), own_type(value))
        self.put(path, field, value)
        if self._taken.get(field.key) == trait:
            self.unknown.append(trait)
            self.remarks[trait] = f"sent as {field.key}, for which the account has no field"

    def _put_name(self, path: tuple[str, ...], value: Any) -> None:
        """Splits a whole name at its first blank, where neither a first nor a last name came."""
        halves = [self._taken[half] for half in WHOLES["name"] if half in self._taken]
        if halves:
            self.remarks[".".join(path)] = f"left out: {' and '.join(halves)} came as well"
            return
        if not isinstance(value, str) or not value.strip():
            self.remarks[".".join(path)] = f"left out: expected a name, got {_short(value)}"
            return
        first, _, last = value.strip().partition(" ")
        self.put(path, "FirstName", first)
        if last.strip():
            self.put(path, "LastName", last.strip())


def _leaves(value: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _leaves(inner, (*path, str(key)))
        else:
            yield (*path, str(key)), inner


# ---- values --------------------------------------------------------------------------------------------------------


def own_type(value: Any) -> str:
    """Returns the type of field that a value would have of its own; null is text."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, Decimal):
        return "integer" if value.is_finite() and value.as_tuple().exponent == 0 else "float"
    if isinstance(value, float):
        return "float"
    return "date" if isinstance(value, date) else "string"


def cast(value: Any, kind: str) -> Any:
    """Returns a value as a field of that type takes it; null stays null, which clears the field.

    Raises CastError instead of losing a digit.

    Example: `cast("5", "integer") == 5`, `cast(date(2019, 3, 1), "date") == "2019-03-01"`.
    """
    return None if value is None else _CASTS[kind](value)


def _string(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return str(int(value)) if abs(value) < 1e16 else repr(value)
    if isinstance(value, date):
        return _date(value)
    if isinstance(value, bytes | bytearray | memoryview):
        raise CastError("bytes are no text")
    text = json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | tuple) else str(value)
    if text and not _is_text(text):
        raise CastError("it holds half a surrogate pair, which is no text")
    return text


def _is_text(value: str) -> bool:
    """Whether a text is not empty and can be encoded as UTF-8."""
    try:
        return bool(value.encode())
    except UnicodeEncodeError:
        return False


def _integer(value: Any) -> int:
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()) and len(value) < 40:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return int(value)
    raise CastError(f"expected an integer, got {_short(value)}")


def _float(value: Any) -> float | int:
    number: float | int | None = None
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        number = value if isinstance(value, int) else float(value)
    elif isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = None
    if number is None or not math.isfinite(number):
        raise CastError(f"expected a number, got {_short(value)}")
    return number


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = value.strip().lower() if isinstance(value, str) else str(value) if isinstance(value, int) else ""
    if text not in _BOOLEANS:
        raise CastError(f"expected true or false, got {_short(value)}")
    return _BOOLEANS[text]


_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


def _date(value: Any) -> str:
    """A date as ISO 8601. Reads what the API itself sends: ISO 8601, RFC 1123 and epoch milliseconds."""
    try:
        if isinstance(value, datetime):
            at = value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
            return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if isinstance(value, date):
            return value.isoformat()
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _date(datetime.fromtimestamp(value / 1000, UTC))
        if isinstance(value, str) and value[:1].isdigit():
            datetime.fromisoformat(value)
            return value
        if isinstance(value, str):
            return _date(parsedate_to_datetime(value))
    except (ValueError, OverflowError, OSError, TypeError):
        pass
    raise CastError(f"expected a date, got {_short(value)}")


_CASTS = {"string": _string, "integer": _integer, "float": _float, "boolean": _boolean, "date": _date}


def _short(value: Any) -> str:
    text = "an array" if isinstance(value, list | tuple) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
