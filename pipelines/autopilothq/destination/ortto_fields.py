"""The fields of people in Ortto, and the attributes of its custom activities (docs/contract/destination.md#ortto)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..catalog import ORTTO_STANDARD_FIELDS, ORTTO_STANDARD_NAMES, ORTTO_SYSTEM_FIELDS
from ..errors import InvalidSetting
from ..segment.naming import snake_case
from .batch import EXTERNAL_ID
from .fields import CustomField, Fields, TraitPath, standard_field, trait_leaves
from .ortto_values import cast_ortto, ortto_type
from .settings import ORTTO_SECTION, TriggerMapping
from .triggers import check_ids, ids_by_event
from .values import CastError, cast

USER_ID = CustomField("External ID", "str", EXTERNAL_ID)


class OrttoFields(Fields):
    """The fields of an account of Ortto, and the mapping of traits to them.

    `custom` is the API's list of custom fields. `mapping` is the setting: names or ids of fields by the paths of
    traits. The user id is a person's external id. A trait without a field is never sent, because Ortto would refuse the
    person. Raises InvalidSetting if the mapping names a field that the account does not have.
    """

    def __init__(self, custom: Sequence[Mapping[str, Any]], mapping: Mapping[str, str] | None = None) -> None:
        existing = [*ORTTO_SYSTEM_FIELDS.items(), *((str(field.get("id")), field) for field in custom)]
        self._by_name = _by_name(existing)
        self._mapping = {path: self._target(path, name) for path, name in (mapping or {}).items()}
        self.user_id = USER_ID

    @property
    def keys(self) -> frozenset[str]:
        """The ids of the account's fields."""
        return frozenset(self.types)

    @property
    def labels(self) -> Mapping[str, str]:
        """The display names of fields by their ids, and Ortto's names of standard fields."""
        return ORTTO_STANDARD_NAMES | {field.key: field.name for field in (*self._by_name.values(), USER_ID)}

    @property
    def types(self) -> Mapping[str, str]:
        """The types of fields by their ids."""
        return {field.key: field.type for field in self._by_name.values()}

    def custom(self, name: str) -> CustomField | None:
        """Returns the field with that id or name, or with the same name in snake_case; None if there is none."""
        return self._by_name.get(name) or self._by_name.get(snake_case(name))

    def of_trait(self, path: TraitPath) -> str | CustomField | None:
        """Returns the field of the trait at a path, or None if the account has none for it."""
        mapped = self._mapping.get(".".join(path))
        standard = standard_field(path)
        if mapped or standard in (*ORTTO_STANDARD_FIELDS, "Email", "_NewEmail"):
            return mapped or standard
        return (self.custom(standard) if standard else None) or self.custom("_".join(path))

    def cast(self, value: Any, target: str | CustomField) -> Any:
        """Casts a value to the type of a field. Raises CastError."""
        if isinstance(target, CustomField):
            return cast_ortto(value, target.type)
        if target not in ORTTO_STANDARD_FIELDS:  # a new address
            if not value:
                raise CastError(f"expected a value for _NewEmail, got {value!r}")
            return cast(value, "string")
        if target == "unsubscribed":
            return None if value is None else not cast(value, "boolean")
        return cast_ortto(value, ORTTO_STANDARD_FIELDS[target].partition(":")[0])

    def new_field(self, path: TraitPath, value: Any) -> CustomField | None:  # noqa: ARG002
        """Returns None, because Ortto accepts only fields that the account has."""
        return None

    def _target(self, path: str, name: str) -> str | CustomField:
        field = name if name in ORTTO_STANDARD_FIELDS or name == "Email" else self.custom(name)
        if field is None:
            raise InvalidSetting(
                f"{ORTTO_SECTION}.fields maps {path!r} to {name!r}, but the account has no such field:"
                f" create it in Ortto, or correct the mapping"
            )
        return field


def _by_name(fields: Sequence[tuple[str, Any]]) -> dict[str, CustomField]:
    """Returns fields by their ids, their names, and both in snake_case. The first field with a name wins."""
    found: dict[str, CustomField] = {}
    for id_, field in fields:
        name = field if isinstance(field, str) else str(field.get("name") or id_)
        display_type = "" if isinstance(field, str) else str(field.get("display_type"))
        made = CustomField(name, ortto_type(id_, display_type), id_)
        for known in (id_, name, snake_case(name), snake_case(id_.rpartition(":")[2])):
            if known:
                found.setdefault(known, made)
    return found


# ---- activities ----------------------------------------------------------------------------------------------------


class _Activity(NamedTuple):
    """A custom activity that the account defines: its id, its name, and its attributes by id and by name."""

    id: str
    name: str
    attributes: Mapping[str, CustomField]


class Activities:
    """The custom activities of each event: those of the settings, otherwise the one with the event's name.

    `schema` is the API's schema of the account. Raises InvalidSetting if the settings name an activity that the account
    does not have.

    Example: `Activities(schema, {"Order Completed": "act:cm:order-completed"}).of("Order Completed")`.
    """

    def __init__(self, schema: Mapping[str, Any], mapping: TriggerMapping | None = None) -> None:
        self._defined = {activity.id: activity for activity in _activities(schema)}
        self._by_name = {snake_case(activity.name): [activity.id] for activity in reversed(self._defined.values())}
        self._by_name |= {activity.name: [activity.id] for activity in reversed(self._defined.values())}
        self._mapping = ids_by_event(mapping)
        check_ids(self._mapping, self._defined, f"{ORTTO_SECTION}.activities", "custom activities")

    def of(self, event: str) -> list[str]:
        """Returns the ids of an event's activities."""
        return self._mapping.get(event) or self._by_name.get(event) or self._by_name.get(snake_case(event), [])

    def journeys(self) -> Mapping[str, str]:
        """Returns the names of the custom activities by their ids."""
        return {id_: activity.name for id_, activity in self._defined.items()}

    def attributes(self, activity_id: str, properties: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Returns an activity's attributes made from properties, and, by path, why other properties are left out."""
        known = self._defined[activity_id].attributes
        values: dict[str, Any] = {}
        remarks: dict[str, str] = {}
        for path, value in trait_leaves(properties):
            name = "_".join(path)
            attribute = known.get(name) or known.get(snake_case(name))
            if attribute is None:
                remarks[".".join(path)] = f"left out: {activity_id} has no such attribute"
                continue
            try:
                values.setdefault(attribute.key, cast_ortto(value, attribute.type))
            except CastError as error:
                remarks[".".join(path)] = f"left out: {error}"
        return values, remarks


def _activities(schema: Mapping[str, Any]) -> Iterator[_Activity]:
    """Yields the custom activities of the schema. Ortto's own have no namespace and cannot be created."""
    for space in (schema.get("namespaces") or {}).values():
        for id_, field in ((space or {}).get("fields") or {}).items():
            kind, _, name = id_.partition(":")
            if kind == "act" and not name.startswith(":") and isinstance(field, dict):
                attributes = [each for each in field.get("attributes") or [] if isinstance(each, dict)]
                by_name = _by_name([(str(each.get("id")), each) for each in attributes])
                yield _Activity(id_, str(field.get("name") or id_), by_name)
