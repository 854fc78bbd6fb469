"""An open account, and the settings of an account of Ortto."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from ..clients.ortto import OrttoSettings
from ..clients.settings import API_TYPES
from ..warehouses.settings import configured_names, typed_settings, unknown_setting
from .account import WritableAccount
from .fields import Fields
from .kind import AccountKind
from .ortto_fields import ORTTO_SECTION
from .settings import DestinationSettings, TriggerMapping, check_unknown_traits
from .triggers import EventTriggers

Show: TypeAlias = Callable[[str], None]


class OpenAccount(NamedTuple):
    """An open account, its fields, and the triggers of its events.

    `unknown_traits` is the setting for items with traits that the account has no field for: `send` or `refuse`.
    """

    kind: AccountKind
    account: WritableAccount
    fields: Fields
    triggers: EventTriggers
    unknown_traits: str = "send"
    is_dry_run: bool = False


@dataclass(frozen=True)
class OrttoDestinationSettings:
    """The settings `[destination.autopilothq.ortto]`.

    `fields` maps the paths of traits to names or ids of fields, `activities` the names of events to the ids of custom
    activities, one or several for each.
    """

    api: OrttoSettings
    fields: Mapping[str, str] | None = None
    activities: TriggerMapping | None = None
    unknown_traits: str = "send"

    def check(self) -> None:
        """Raises InvalidSetting if `unknown_traits` is neither `send` nor `refuse`."""
        check_unknown_traits(self.unknown_traits, ORTTO_SECTION)

    @classmethod
    def resolve(cls, **explicit: Any) -> "OrttoDestinationSettings | None":
        """Returns the settings of dlt's configuration. Those in `explicit` that are not None take precedence.

        Returns None without a key. Raises InvalidSetting for a name that is no setting.
        """
        types = {**_API, **_RULES}
        for name in configured_names(ORTTO_SECTION):
            if name not in types:
                raise unknown_setting(f"dlt's configuration has no setting {ORTTO_SECTION}.{name}", name, list(types))
        given = {name: value for name, value in explicit.items() if value is not None}
        values = typed_settings(ORTTO_SECTION, types) | given
        if not values.get("api_key"):
            return None
        api = {name: values.pop(name) for name in _API if name in values}
        return cls(OrttoSettings(setting=f"{ORTTO_SECTION}.api_key", **api), **values)


_API = {**API_TYPES, "region": str}
_RULES = {"fields": dict, "activities": dict, "unknown_traits": str}
AnySettings: TypeAlias = DestinationSettings | OrttoDestinationSettings
