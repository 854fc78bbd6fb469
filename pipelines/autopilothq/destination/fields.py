"""Maps the traits of a message to the fields of an account (docs/contract/destination.md#identify).

Nothing is lost silently: each trait that is left out, and each that the account has no field for, has a remark.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..catalog import CUSTOM_TYPES, FIRST_OF_ARRAY, OWN_KEYS, STANDARD_FIELDS, WHOLES
from ..errors import InvalidSetting
from ..segment.naming import snake_case
from .settings import SECTION
from .values import CastError, cast, is_text, own_type, shown

TraitPath = tuple[str, ...]
"""Where a trait is: the keys that lead to it."""

_STANDARD = {path: field for field, paths in STANDARD_FIELDS.items() for path in paths}
_SEPARATORS = re.compile(r"[\W_]")
_TYPES = {"unsubscribed": "boolean", **OWN_KEYS}  # of keys that are neither text nor custom fields


class Custom(NamedTuple):
    """A custom field of the account."""

    name: str
    type: str
    id: str = ""

    @property
    def key(self) -> str:
        """The key in the API: its id; in Autopilot's `integer--Smog--Level` for `Custom("Smog Level", "integer")`."""
        return self.id or f"{self.type}--{self.name.replace(' ', '--')}"


class ContactFields(NamedTuple):
    """A contact as the API takes it.

    `values` are by the API's keys. `remarks` say why a trait was left out, or that it was sent to no field. `unknown`
    are the traits that the account has no field for. `untaken` are an event's properties that are spelt like a standard
    field but are not the contact's.
    """

    values: dict[str, Any]
    remarks: dict[str, str]
    unknown: list[str]
    untaken: list[str]


class Fields:
    """The fields of an account, and which trait goes to which.

    `custom` is the API's list of custom fields. `mapping` is the setting: names of fields by the paths of traits.
    Raises InvalidSetting if the mapping, or `user_id_field`, names a field that the account does not have.

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
                " create it in Autopilot, or correct the setting"
            )

    @property
    def labels(self) -> Mapping[str, str]:
        """The names of fields for people, by their keys, if the key does not contain the name."""
        return {}

    @property
    def keys(self) -> frozenset[str]:
        """The keys of the account's custom fields, as the API takes them."""
        return frozenset(field.key for field in self._named.values())

    def custom(self, name: str) -> Custom | None:
        """Returns the custom field of that name, or of the same name in snake_case; None without one."""
        return self._named.get(name) or self._slugs.get(snake_case(name))

    def _target(self, path: str, name: str) -> str | Custom:
        field = name if name in STANDARD_FIELDS or name in OWN_KEYS else self.custom(name)
        if field is None:
            raise InvalidSetting(
                f"{SECTION}.fields maps {path!r} to {name!r}, but the account has no such field: create it in"
                f" Autopilot, or correct the mapping"
            )
        return field

    def known(self, path: TraitPath) -> str | Custom | None:
        """Returns the field of the trait at a path, or None if the account has none for it."""
        return self._mapping.get(".".join(path)) or standard_field(path) or self.custom("_".join(path))

    def of_property(self, path: TraitPath) -> str | Custom | None:
        """Returns the field of an event's property: one that the settings map it to, or that the account defines.

        No property goes to a standard field by its name, except `_NewEmail`.
        """
        mapped = self._mapping.get(".".join(path))
        if mapped is None and ".".join(path).lower() == "_newemail":
            return "_NewEmail"
        return mapped or (None if is_standard(path) else self.custom("_".join(path)))

    def email(self, traits: Mapping[str, Any]) -> str | None:
        """Returns the email among traits or properties, in any spelling and by any mapping; None without one."""
        found = [(path, value) for path, value in trait_leaves(traits) if self.known(path) == "Email"]
        found.sort(key=lambda leaf: (not self.is_mapped(leaf[0]), leaf[0] != ("email",)))
        return next((value.strip() for _, value in found if isinstance(value, str) and is_text(value.strip())), None)

    def is_mapped(self, path: TraitPath) -> bool:
        """Returns whether the settings map the trait at that path."""
        return ".".join(path) in self._mapping

    def cast(self, value: Any, target: str | Custom) -> Any:
        """Returns a value as a field takes it. Raises CastError."""
        return cast(value, target.type) if isinstance(target, Custom) else _cast_standard(value, target)

    def new_field(self, path: TraitPath, value: Any) -> Custom | None:
        """Returns the field to send a trait to that the account has no field for, or None if it cannot be sent."""
        return Custom("_".join(path), own_type(value))


def standard_field(path: TraitPath) -> str | None:
    """Returns the standard field of a trait, or the trait's name if it is a key of Autopilot's own, or None."""
    if len(path) == 1 and path[0] in OWN_KEYS:
        return path[0]
    return _STANDARD.get(".".join(_SEPARATORS.sub("", part.lower()) for part in path))


def is_standard(path: TraitPath) -> bool:
    """Returns whether a trait is spelt like a standard field, or like one that sets several."""
    return standard_field(path) is not None or _is_whole(path)


def _is_whole(path: TraitPath) -> bool:
    return len(path) == 1 and path[0].lower() in WHOLES


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
    context_traits: Mapping[str, Any] | None = None,
) -> ContactFields:
    """Returns the contact of an identify, or of a track with its `properties`.

    Properties take precedence over traits, and traits over those of the context, field by field.

    Example: `contact_fields(fields, "a@example.com", {"first_name": "Ann", "air": {"smog": 4}}).values ==
    {"Email": "a@example.com", "FirstName": "Ann", "custom": {"integer--Smog--Level": 4}}`.
    """
    builder = _ContactBuilder(fields)
    if user_id is not None and fields.user_id is not None:
        builder.put(("user_id",), fields.user_id, user_id)
    builder.take_properties(properties or {}, email)
    for some in (traits, context_traits or {}):
        builder.take(some)
    values = {"Email": email} | builder.standard | ({"custom": builder.custom} if builder.custom else {})
    return ContactFields(values, builder.remarks, builder.unknown, builder.untaken)


class _ContactBuilder:
    """Collects the values of a contact. A field gets the first trait that comes for it."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._taken: dict[str, str] = {}  # the trait that has a field, by the name of the field
        self.standard: dict[str, Any] = {}
        self.custom: dict[str, Any] = {}
        self.remarks: dict[str, str] = {}
        self.unknown: list[str] = []
        self.untaken: list[str] = []

    def take_properties(self, properties: Mapping[str, Any], email: str) -> None:
        """Adds an event's properties; those that the settings map come before others."""
        for path, value in self._in_order(properties):
            target = self._fields.of_property(path)
            if target is None and is_standard(path):
                if standard_field(path) != "Email" or str(value).strip().lower() != email.lower():
                    self.untaken.append(".".join(path))
            elif target is not None and target != "Email":
                self.put(path, target, value)

    def take(self, traits: Mapping[str, Any]) -> None:
        """Adds traits; those that the settings map come before others, and whole names last."""
        names: list[tuple[TraitPath, Any]] = []
        for path, value in self._in_order(traits):
            if _is_whole(path) and not self._fields.is_mapped(path):
                whole = path[0].lower()
                if value is None:
                    for field in WHOLES[whole]:
                        self.put(path, field, None)
                    continue
                if whole == "name":
                    names.append((path, value))
                    continue
            target = self._fields.known(path)
            if target is None:
                self._put_unknown(path, value)
            elif target != "Email":  # the email identifies the contact, and is no value
                self.put(path, target, value)
        for path, value in names:
            self._put_name(path, value)

    def _in_order(self, values: Mapping[str, Any]) -> list[tuple[TraitPath, Any]]:
        """Returns the leaves of an object: those that the settings map, others, arrays that give their first value."""
        leaves: list[tuple[int, TraitPath, Any]] = []
        for path, value in trait_leaves(values):
            if self._fields.is_mapped(path):
                leaves.append((0, path, value))
            elif len(path) == 1 and path[0].lower() in FIRST_OF_ARRAY and isinstance(value, list | tuple):
                leaves += [(2, path, first) for first in value[:1]]
            else:
                leaves.append((1, path, value))
        return [leaf[1:] for leaf in sorted(leaves, key=lambda leaf: leaf[0])]

    def put(self, path: TraitPath, target: str | Custom, value: Any) -> bool:
        """Sets a field to a value, and returns whether it did: not if an earlier trait has the field."""
        trait = ".".join(path)
        key = target.key if isinstance(target, Custom) else target
        name = f"custom {target.name}" if isinstance(target, Custom) else target
        if name in self._taken:
            if self._taken[name] != trait:
                self.remarks.setdefault(trait, f"left out: {self._taken[name]} has the field {key}")
            return False
        try:
            if isinstance(target, Custom):
                self.custom[key] = self._fields.cast(value, target)
            else:
                self.standard[key] = self._fields.cast(value, target)
        except CastError as error:
            self.remarks[trait] = f"left out: {error}"
            return False
        self._taken[name] = trait
        return True

    def _put_unknown(self, path: TraitPath, value: Any) -> None:
        trait = ".".join(path)
        if not is_text(trait):
            self.remarks[trait] = "left out: its name is empty, or holds half a surrogate pair"
            return
        field = self._fields.new_field(path, value)
        if field is None:
            self.unknown.append(trait)
            self.remarks[trait] = "left out: the account has no field for it"
        elif self.put(path, field, value):
            self.unknown.append(trait)
            self.remarks[trait] = f"sent as {field.key}, for which the account has no field"

    def _put_name(self, path: TraitPath, value: Any) -> None:
        """Splits a whole name at its first space, if neither a first nor a last name came."""
        halves = [self._taken[half] for half in WHOLES["name"] if half in self._taken]
        if halves:
            if set(halves) != {".".join(path)}:
                self.remarks[".".join(path)] = f"left out: {' and '.join(halves)} came as well"
            return
        if not isinstance(value, str) or not value.strip():
            self.remarks[".".join(path)] = f"left out: expected a name, got {shown(value)}"
            return
        first, _, last = value.strip().partition(" ")
        self.put(path, "FirstName", first)
        if last.strip():
            self.put(path, "LastName", last.strip())


def _cast_standard(value: Any, key: str) -> Any:
    """Casts a value of a standard field. Null clears a field, but is no value for Autopilot's keys or a new address."""
    is_empty = value is None or (isinstance(value, str) and not value.strip())
    if is_empty and (key in OWN_KEYS or key == "_NewEmail"):
        raise CastError(f"expected a value for {key}, got {shown(value)}")
    return cast(value, _TYPES.get(key, "string"))


def trait_leaves(value: Mapping[str, Any], path: TraitPath = ()) -> Iterator[tuple[TraitPath, Any]]:
    """Yields the values of an object that are not objects, with the keys that lead to them."""
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from trait_leaves(inner, (*path, str(key)))
        else:
            yield (*path, str(key)), inner
