"""The settings of the destination, and the dataset that keeps its delivery log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeAlias, get_args

import dlt

from ..clients.autopilot import AutopilotSettings
from ..errors import InvalidSetting
from ..warehouses.resolve import make_destination

NAME = "autopilothq"
SECTION = f"destination.{NAME}"

UnknownTraits = Literal["send", "refuse"]
TriggerMapping: TypeAlias = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class DestinationSettings:
    """The settings `[destination.autopilothq]`; the docstring of `autopilot` says what each means."""

    api: AutopilotSettings
    fields: Mapping[str, str] | None = None
    triggers: TriggerMapping | None = None
    unknown_traits: str = "send"
    user_id_field: str | None = None

    @classmethod
    def from_options(cls, **options: Any) -> "DestinationSettings":
        """Returns the record of settings that are named as in dlt's configuration, those of the API among them.

        Example: `DestinationSettings.from_options(api_key="0123abcd", unknown_traits="refuse")`.
        """
        names = ("api_key", "base_url", "requests_per_second", "timeout", "tries", "allow_http")
        api = {name: options.pop(name) for name in names if name in options}
        return cls(AutopilotSettings(setting=f"{SECTION}.api_key", **api), **options)

    def check(self) -> None:
        """Raises InvalidSetting where `unknown_traits` is neither `send` nor `refuse`."""
        check_unknown_traits(self.unknown_traits, SECTION)


def check_unknown_traits(value: str, section: str) -> None:
    """Raises InvalidSetting where the setting of that section is neither `send` nor `refuse`."""
    if value not in get_args(UnknownTraits):
        raise InvalidSetting(f"{section}.unknown_traits must be send or refuse, got {value!r}")


def log_dataset(
    destination: str | None = None,
    credentials: str | None = None,
    dataset: str | None = None,
    reads: bool = False,
    wait: timedelta = timedelta(),
) -> dlt.Dataset:
    """Returns the dataset that is queried and keeps the delivery log.

    `destination`, `credentials` and `dataset` are dlt's; None stands for what is configured, or a local DuckDB file.
    With `reads`, no file is made, and an existing one is opened for reading only.
    """
    target, name = make_destination(destination, credentials, dataset, not reads, wait, reads)
    return dlt.dataset(target, name, schema=dlt.Schema(NAME))
