"""The settings of accounts, and the dataset that keeps the delivery log."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeAlias, TypeVar

import dlt

from ..clients.autopilot import AutopilotSettings
from ..clients.ortto import OrttoSettings
from ..clients.settings import API_TYPES
from ..errors import InvalidSetting
from ..warehouses.dlt_internals import Destination, DestinationCapabilitiesContext
from ..warehouses.resolve import make_destination
from ..warehouses.settings import TargetOptions, configured_names, typed_settings, unknown_setting

NAME = "autopilothq"
SECTION = f"destination.{NAME}"
ORTTO_SECTION = f"{SECTION}.ortto"
_OTHER_ACCOUNTS = ("ortto",)  # sections below this one
WHOLE_FILES: Mapping[str, Any] = {
    "batch_size": 0,  # whole files: the log records more exactly than dlt how much of a file was sent
    "loader_file_format": "typed-jsonl",
    "naming_convention": "direct",
    "max_table_nesting": 0,
    "loader_parallelism_strategy": "sequential",
}
"""The options of both destinations that determine in which form dlt hands over its files."""

P = ParamSpec("P")
D = TypeVar("D", bound="Destination[Any, Any]")

TriggerMapping: TypeAlias = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class DestinationSettings:
    """The settings `[destination.autopilothq]`, which the docstring of `autopilot` describes."""

    api: AutopilotSettings
    fields: Mapping[str, str] | None = None
    triggers: TriggerMapping | None = None
    unknown_traits: str = "send"
    user_id_field: str | None = None

    @classmethod
    def from_options(cls, **options: Any) -> "DestinationSettings":
        """Returns the settings from options with the names of dlt's configuration, including the options of the API.

        Example: `DestinationSettings.from_options(api_key="0123abcd", unknown_traits="refuse")`.
        """
        api = {name: options.pop(name) for name in API_TYPES if name in options}
        return cls(AutopilotSettings(setting=f"{SECTION}.api_key", **api), **options)

    def check(self) -> None:
        """Raises InvalidSetting if `unknown_traits` is neither `send` nor `refuse`."""
        _check_unknown_traits(self.unknown_traits, SECTION)


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
        _check_unknown_traits(self.unknown_traits, ORTTO_SECTION)

    @classmethod
    def resolve(cls, **explicit: Any) -> "OrttoDestinationSettings | None":
        """Returns the settings of dlt's configuration. Those in `explicit` that are not None take precedence.

        Returns None without a key. Raises InvalidSetting for an unknown setting.
        """
        types = {**_ORTTO_API, **_ORTTO_RULES}
        for name in configured_names(ORTTO_SECTION):
            if name not in types:
                raise unknown_setting(f"dlt's configuration has no setting {ORTTO_SECTION}.{name}", name, list(types))
        given = {name: value for name, value in explicit.items() if value is not None}
        values = typed_settings(ORTTO_SECTION, types) | given
        if not values.get("api_key"):
            return None
        api = {name: values.pop(name) for name in _ORTTO_API if name in values}
        return cls(OrttoSettings(setting=f"{ORTTO_SECTION}.api_key", **api), **values)


_ORTTO_API = {**API_TYPES, "region": str}
_ORTTO_RULES = {"fields": dict, "activities": dict, "unknown_traits": str}
AnySettings: TypeAlias = DestinationSettings | OrttoDestinationSettings


def _check_unknown_traits(value: str, section: str) -> None:
    """Raises InvalidSetting if the section's `unknown_traits` is neither `send` nor `refuse`."""
    if value not in ("send", "refuse"):
        raise InvalidSetting(f"{section}.unknown_traits must be send or refuse, got {value!r}")


def refuses_unknown_settings(factory: Callable[P, D]) -> Callable[P, D]:
    """Makes a dlt destination's factory raise InvalidSetting for arguments that dlt would only warn about.

    The factory also raises it for a `log` that is not a dataset.
    """

    @wraps(factory)
    def make(*args: P.args, **settings: P.kwargs) -> D:
        _check_names(settings, factory, f"{factory.__name__}() takes no setting ")
        if not isinstance(log := settings.get("log"), dlt.Dataset | None):
            raise InvalidSetting(f"{factory.__name__}() takes a dataset as its log, got {log!r}")
        return factory(*args, **settings)

    return make


def check_configuration(section: str, factory: Callable[..., "Destination[Any, Any]"]) -> None:
    """Raises InvalidSetting if the files or the environment of dlt's configuration name an unknown setting, or a log.

    Example: `check_configuration("destination.autopilothq", autopilot)`.
    """
    names = [name for name in configured_names(section) if name not in _OTHER_ACCOUNTS]
    if "log" in names:
        raise InvalidSetting(
            f"{section}.log cannot be configured: the log is a dataset, which only Python code can name"
        )
    _check_names(names, factory, f"dlt's configuration has no setting {section}.")


def _check_names(names: Iterable[str], factory: Callable[..., "Destination[Any, Any]"], before: str) -> None:
    """Raises InvalidSetting for a name that is not a setting of a destination; the error names the most similar one."""
    own = list(signature(factory).parameters)[2:]  # without the rows and their table
    for name in names:
        if name == "max_table_nesting":
            raise InvalidSetting(
                f"{before}{name}: nested values belong to their row. Leave it out, and drop a load that waits"
                " (dlt pipeline NAME abort-packages)"
            )
        if name in own or name in factory().spec.get_resolvable_fields():
            continue
        if name not in DestinationCapabilitiesContext.get_resolvable_fields():
            raise unknown_setting(f"{before}{name}", name, own)


def log_dataset_of(log: Any) -> dlt.Dataset:
    """Returns the dataset that a destination is given for its log, otherwise the one that dlt's configuration names.

    If no dataset is given, dlt passes the text of any environment variable or setting that is named `log`.
    """
    return log if isinstance(log, dlt.Dataset) else log_dataset()


def log_dataset(
    destination: str | None = None,
    credentials: str | None = None,
    dataset: str | None = None,
    reads: bool = False,
    wait: timedelta = timedelta(),
) -> dlt.Dataset:
    """Returns the dataset that is queried and that has the delivery log.

    `destination`, `credentials` and `dataset` are dlt's. None means the configured one, or a local DuckDB file. With
    `reads`, no file is created, and an existing one is opened read-only.
    """
    target, name = make_destination(TargetOptions(destination, credentials, dataset), not reads, wait, reads)
    return dlt.dataset(target, name, schema=dlt.Schema(NAME))
