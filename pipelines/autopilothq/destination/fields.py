"""Maps the traits of a message to the fields of an account (docs/contract/destination.md#identify).

Nothing is lost silently: a remark says which traits were left out, and which the account has no field for.
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
"""The path of a trait: the keys that lead to its value."""

_STANDARD = {path: field for field, paths in STANDARD_FIELDS.items() for path in paths}
_SEPARATORS = re.compile(r"[\W_]")
_TYPES = {"unsubscribed": "boolean", **OWN_KEYS}  # types of standard fields and own keys that are not texts


class CustomField(NamedTuple):
    """A custom field of the account."""

    name: str
    type: str
    id: str = ""

    @property
    def key(self) -> str:
        """The key in the API: an id in Ortto's; its type and name in Autopilot's, such as `integer--Smog--Level`."""
        return self.id or f"{self.type}--{self.name.replace(' ', '--')}"


class ContactFields(NamedTuple):
    """A contact as the API takes it.

    - `values`: by the API's keys.
    - `remarks`: by trait, why it was left out, or that the account has no field for it.
    - `unknown`: the traits that the account has no field for.
    - `unmapped`: an event's properties that have the name of a standard field, but no mapping to it, and so are not
      written to it.
    """

    values: dict[str, Any]
    remarks: dict[str, str]
    unknown: list[str]
    unmapped: list[str]


class Fields:
    """The fields of an account, and the mapping of traits to them.

    `custom` is the API's list of custom fields. `mapping` is the setting `fields`: names of fields by paths of traits.
    Raises InvalidSetting if the mapping, or `user_id_field`, names a field that the account does not have.

    Example: `Fields([{"name": "Smog Level", "fieldType": "integer"}], {"air.smog": "Smog Level"})`.
    """

    def __init__(
        self, custom: Sequence[Any], mapping: Mapping[str, str] | None = None, user_id_field: str | None = None
    ) -> None:
        existing = [CustomField(str(field["name"]), _type(field)) for field in custom if _exists(field)]
        self._named = {field.name: field for field in reversed(existing)}
        self._slugs = {snake_case(field.name): field for field in reversed(existing)}
        self._slugs.pop("", None)
        self._mapping = {path: self._target(path, name) for path, name in (mapping or {}).items()}
        self._new: dict[str, CustomField] = {}
        self.user_id = self.custom(user_id_field) if user_id_field else None
        if user_id_field and self.user_id is None:
            raise InvalidSetting(
                f"{SECTION}.user_id_field names {user_id_field!r}, but the account has no such custom field:"
                " create it in Autopilot, or correct the setting"
            )

    @property
    def labels(self) -> Mapping[str, str]:
        """The display names of fields by their keys, for keys that do not contain the name."""
        return {}

    @property
    def keys(self) -> frozenset[str]:
        """The keys of the account's custom fields, as the API takes them."""
        return frozenset(field.key for field in self._named.values())

    def custom(self, name: str) -> CustomField | None:
        """Returns the custom field with that name, or with the same name in snake_case; None if there is none."""
        return self._named.get(name) or self._slugs.get(snake_case(name))

    def _target(self, path: str, name: str) -> str | CustomField:
        field = name if name in STANDARD_FIELDS or name in OWN_KEYS else self.custom(name)
        if field is None:
            raise InvalidSetting(
                f"{SECTION}.fields maps {path!r} to {name!r}, but the account has no such field: create it in"
                f" Autopilot, or correct the mapping"
            )
        return field

    def of_trait(self, path: TraitPath) -> str | CustomField | None:
        """Returns the field of the trait at a path, or None if the account has none for it."""
        return self._mapping.get(".".join(path)) or standard_field(path) or self.custom("_".join(path))

    def of_property(self, path: TraitPath) -> str | CustomField | None:
        """Returns the field of an event's property: the one that the settings map it to, or a custom one of its name.

        Only `_NewEmail` is written to a standard field by its name. Returns None if there is no field.
        """
        mapped = self._mapping.get(".".join(path))
        if mapped is None and ".".join(path).lower() == "_newemail":
            return "_NewEmail"
        return mapped or (None if _is_standard(path) else self.custom("_".join(path)))

    def email(self, traits: Mapping[str, Any]) -> str | None:
        """Returns the email among traits or properties, in any spelling and by any mapping; None if there is none."""
        found = [(path, value) for path, value in trait_leaves(traits) if self.of_trait(path) == "Email"]
        found.sort(key=lambda leaf: (not self.is_mapped(leaf[0]), leaf[0] != ("email",)))
        return next((value.strip() for _, value in found if isinstance(value, str) and is_text(value.strip())), None)

    def is_mapped(self, path: TraitPath) -> bool:
        """Returns whether the settings map the trait at that path."""
        return ".".join(path) in self._mapping

    def cast(self, value: Any, target: str | CustomField) -> Any:
        """Casts a value to the type of a field. Raises CastError."""
        return cast(value, target.type) if isinstance(target, CustomField) else _cast_standard(value, target)

    def new_field(self, path: TraitPath, value: Any) -> CustomField | None:
        """Returns the field for a trait that the account has no field for, or None if such traits cannot be sent.

        Null has no type, so it can only clear a field that an earlier value of the run has created.
        """
        name = "_".join(path)
        return self._new.get(name) if value is None else CustomField(name, own_type(value))

    def note_created(self, field: CustomField) -> None:
        """Notes that a value of this run creates a field; from then on, null can clear it."""
        self._new[field.name] = field


def standard_field(path: TraitPath) -> str | None:
    """Returns the standard field of a trait, its name if it is one of Autopilot's own keys, or None."""
    if len(path) == 1 and path[0] in OWN_KEYS:
        return path[0]
    return _STANDARD.get(".".join(_SEPARATORS.sub("", part.lower()) for part in path))


def _is_standard(path: TraitPath) -> bool:
    """Returns whether a trait has the name of a standard field, or one that sets several, such as `name`."""
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
    builder.add_properties(properties or {}, email)
    builder.add_traits(traits)
    builder.add_traits(context_traits or {})
    values = {"Email": email} | builder.standard | ({"custom": builder.custom} if builder.custom else {})
    return ContactFields(values, builder.remarks, builder.unknown, builder.unmapped)


class _ContactBuilder:
    """Collects the values of a contact. Of several traits with the same field, the first sets it."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._taken: dict[str, str] = {}  # the trait that has set a field, by the name of the field
        self.standard: dict[str, Any] = {}
        self.custom: dict[str, Any] = {}
        self.remarks: dict[str, str] = {}
        self.unknown: list[str] = []
        self.unmapped: list[str] = []

    def add_properties(self, properties: Mapping[str, Any], email: str) -> None:
        """Adds an event's properties, those that the settings map before others."""
        for path, value in self._in_order(properties):
            target = self._fields.of_property(path)
            if target is None and _is_standard(path):
                if standard_field(path) != "Email" or str(value).strip().lower() != email.lower():
                    self.unmapped.append(".".join(path))
            elif target is not None and target != "Email":
                self.put(path, target, value)

    def add_traits(self, traits: Mapping[str, Any]) -> None:
        """Adds traits: those that the settings map first, and whole names last."""
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
            target = self._fields.of_trait(path)
            if target is None:
                self._put_unknown(path, value)
            elif target != "Email":  # the email identifies the contact and is not one of its values
                self.put(path, target, value)
        for path, value in names:
            self._put_name(path, value)

    def _in_order(self, values: Mapping[str, Any]) -> list[tuple[TraitPath, Any]]:
        """Returns the leaves of an object: those that the settings map, then others, then first values of arrays."""
        leaves: list[tuple[int, TraitPath, Any]] = []
        for path, value in trait_leaves(values):
            if self._fields.is_mapped(path):
                leaves.append((0, path, value))
            elif len(path) == 1 and path[0].lower() in FIRST_OF_ARRAY and isinstance(value, list | tuple):
                leaves += [(2, path, first) for first in value[:1]]
            else:
                leaves.append((1, path, value))
        return [leaf[1:] for leaf in sorted(leaves, key=lambda leaf: leaf[0])]

    def put(self, path: TraitPath, target: str | CustomField, value: Any) -> bool:
        """Sets a field, unless an earlier trait has set it or the value does not fit. Returns whether it was set."""
        trait = ".".join(path)
        key = target.key if isinstance(target, CustomField) else target
        name = f"custom {target.name}" if isinstance(target, CustomField) else target
        if name in self._taken:
            if self._taken[name] != trait:
                self.remarks.setdefault(trait, f"left out: {self._taken[name]} has the field {key}")
            return False
        try:
            values = self.custom if isinstance(target, CustomField) else self.standard
            values[key] = self._fields.cast(value, target)
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
            self._fields.note_created(field)
            self.unknown.append(trait)
            self.remarks[trait] = f"sent as {field.key}, for which the account has no field"

    def _put_name(self, path: TraitPath, value: Any) -> None:
        """Splits a whole name at its first space, unless a trait has set the first or the last name."""
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
    """Casts a value of a standard field. Null clears a field, but is refused for Autopilot's keys and a new address."""
    is_empty = value is None or (isinstance(value, str) and not value.strip())
    if is_empty and (key in OWN_KEYS or key == "_NewEmail"):
        raise CastError(f"expected a value for {key}, got {shown(value)}")
    return cast(value, _TYPES.get(key, "string"))


def trait_leaves(value: Mapping[str, Any], path: TraitPath = ()) -> Iterator[tuple[TraitPath, Any]]:
    """Yields the path and the value of each leaf of an object, that is, of each value that is not an object."""
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from trait_leaves(inner, (*path, str(key)))
        else:
            yield (*path, str(key)), inner
