"""The kinds of accounts that can be sent to: their settings, and how each is opened."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from ..catalog import ORTTO_DELIVERIES, ORTTO_INTEGRATIONS
from ..clients.ortto import OrttoSettings
from ..warehouses.settings import setting
from .account import WritableAccount
from .event_batches import EventBatches
from .fields import Fields
from .kind import AUTOPILOT, AccountKind
from .ortto_fields import ORTTO_SECTION, ActivityMapping
from .settings import DestinationSettings, check_unknown_traits
from .triggers import EventTriggers

ORTTO = AccountKind(
    "ortto",
    "Ortto",
    ORTTO_DELIVERIES,
    ORTTO_INTEGRATIONS,
    "POST /person/merge",
    "No custom activity for the event {!r}, in the settings or by its name",
    needs_email=False,
    tags=True,
    together=EventBatches,
)
ACCOUNT_KINDS = {kind.name: kind for kind in (AUTOPILOT, ORTTO)}
Show: TypeAlias = Callable[[str], None]


class OpenAccount(NamedTuple):
    """An account that is open, its fields, and where its events lead to."""

    kind: AccountKind
    account: WritableAccount
    fields: Fields
    triggers: EventTriggers


@dataclass(frozen=True)
class OrttoDestinationSettings:
    """The settings `[destination.autopilothq.ortto]`.

    `fields` are names or ids of fields by the paths of traits, `activities` the ids of custom activities by the names
    of events, one or several.
    """

    api: OrttoSettings
    fields: Mapping[str, str] | None = None
    activities: ActivityMapping | None = None
    unknown_traits: str = "send"

    def check(self) -> None:
        """Raises InvalidSetting where `unknown_traits` is neither `send` nor `refuse`."""
        check_unknown_traits(self.unknown_traits, ORTTO_SECTION)

    @classmethod
    def resolve(cls, **explicit: Any) -> "OrttoDestinationSettings | None":
        """Returns the settings of dlt's configuration, with those that are given here, and are not None, before them.

        None without a key.
        """
        given = {name: value for name, value in explicit.items() if value is not None}
        names = (*_API, "fields", "activities", "unknown_traits")
        found = {name: setting(f"{ORTTO_SECTION}.{name}") for name in names} | given
        values = {name: value for name, value in found.items() if value is not None}
        if not values.get("api_key"):
            return None
        api = {name: values.pop(name) for name in _API if name in values}
        api |= {name: float(api[name]) for name in ("requests_per_second", "timeout") if name in api}
        return cls(OrttoSettings(setting=f"{ORTTO_SECTION}.api_key", **api), **values)


_API = ("api_key", "region", "base_url", "requests_per_second", "timeout", "tries", "allow_http")
AnySettings: TypeAlias = DestinationSettings | OrttoDestinationSettings
