"""The settings that the sources share: their types, and how they are read.

dlt reads the annotations of a source's function when the function is defined, but it does not support unions. It
ignores some of them, so that the setting cannot come from the configuration. For others it uses the first type, so that
a list in `config.toml` becomes text. Such settings are therefore `Any` to dlt, and have their types only for type
checkers.
"""

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from datetime import date
from importlib import import_module
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from ..clients.settings import MAX_ATTEMPTS, TIMEOUT
from ..errors import InvalidSetting
from ..warehouses.hints import SOURCE
from ..warehouses.settings import TIMEOUT_RANGE, Range, check_range, configured_names, is_misspelt, unknown_setting

if TYPE_CHECKING:
    from ..clients.autopilot import Autopilot
    from ..clients.profile_api import ProfileApi

    Names = str | Sequence[str]
    """A sequence of names, or one text in which commas separate them."""
    Time = str | date
    """A time: ISO 8601 text, a date or a datetime."""
    Engine = Executor | Callable[[], Executor] | None
    """An executor, which stays running, or a function that makes one, which is shut down when the load ends."""
    EventMappings = Mapping[str, Mapping[str, Any]] | None
    """For each event's name: `event`, the event that it is mapped to, and `properties`, which maps old names to new."""
else:
    Names = Time = Engine = EventMappings = Any

ORIGINS = ("archive", "adopt", "api", "profiles", "ortto")
"""The origins that have settings in dlt's configuration. The first one has its settings in the shared section."""
_OF_ALL = ("allow_http", "api_key", "notify", "suppression_key")  # in the shared section; of no single origin
_RANGES = {
    "memory": Range(20, 1_000_000_000),  # with less, a load of some thousand messages runs out of memory
    "max_event_tables": Range(0),
    "read_timeout": TIMEOUT_RANGE,
    "max_seconds": Range(0, inf),
    "people_per_load": Range(1),
    "seconds_per_load": Range(0, inf),
}
_IN_PYTHON_ONLY = ("cut_texts", "executor", "progress")
_TABLES = ("credentials", "mapping", "tables")  # settings that are tables themselves


def check_origin_settings(origin: str, **numbers: float | None) -> None:
    """Raises InvalidSetting if dlt's configuration misspells a setting of an origin, or a number is out of its range.

    Sections below the origin's are ignored, because dlt has its own there, such as `data_writer`. So are names in the
    shared section that resemble no setting: they may be for a source of the user's own.

    Example: `check_origin_settings("ortto", memory=400, max_seconds=inf)`.
    """
    check_numbers(**numbers)
    shared, own = f"sources.{SOURCE}", _settings_of(origin)
    if origin != ORIGINS[0]:
        _check_section(f"{shared}.{origin}", own)
    # dlt takes what an origin's section lacks from the shared one. Other origins are only imported for unknown names.
    known = {*_OF_ALL, *own}
    if any(name not in known for name, is_table in configured_names(shared).items() if not is_table):
        known.update(*map(_settings_of, ORIGINS))
    _check_section(shared, sorted(known), lets_others=True)


def check_numbers(**numbers: float | None) -> None:
    """Raises InvalidSetting if one of a source's numbers is out of its range. A None is not checked.

    Example: `check_numbers(memory=400, max_event_tables=500)`.
    """
    for name, value in numbers.items():
        if value is not None:
            check_range(f"the setting {name}", value, _RANGES[name])


def _check_section(section: str, known: Sequence[str], lets_others: bool = False) -> None:
    tables = [name for name in _TABLES if name in known]
    for name, is_table in configured_names(section).items():
        is_other = (is_table and not is_misspelt(name, tables)) or (lets_others and not is_misspelt(name, known))
        if name not in known and not is_other:
            raise unknown_setting(f"dlt's configuration has no setting {section}.{name}", name, known)


def _settings_of(origin: str) -> list[str]:
    source = getattr(import_module(f".{origin}.source", __package__), origin)
    return [name for name in inspect.signature(source).parameters if name not in _IN_PYTHON_ONLY]


class RequestSettings(NamedTuple):
    """How requests to an API are made: its address, their highest rate, the timeout in seconds, the number of tries.

    With `allow_http`, the key may be sent to another machine over plain http.
    """

    base_url: str
    requests_per_second: float
    timeout: float = TIMEOUT
    tries: int = MAX_ATTEMPTS
    allow_http: bool = False

    def autopilot(self, api_key: str) -> "Autopilot":
        """Returns a client of Autopilot's API."""
        from ..clients.autopilot import Autopilot, AutopilotSettings

        return Autopilot(AutopilotSettings(api_key=api_key, **self._asdict()))

    def profile_api(self, token: str, space: str) -> "ProfileApi":
        """Returns a client of Segment's Profile API."""
        from ..clients.profile_api import ProfileApi, ProfileApiSettings

        return ProfileApi(ProfileApiSettings(api_key=token, space=space, **self._asdict()))


def listed_names(names: Any, setting: str) -> list[str]:
    """Returns the one or several names of a setting as a list. Raises InvalidSetting if they are not texts.

    Example: `listed_names("a", "archive_url") == ["a"]`.
    """
    several = isinstance(names, Iterable) and not isinstance(names, str | Mapping)
    found = list(names) if several else [names]
    if not all(isinstance(name, str) for name in found):
        raise InvalidSetting(f"Expected a text or a list of texts as the setting {setting}, but got {names!r}.")
    return found


def split_names(names: Any, setting: str) -> list[str]:
    """Returns the names of a setting as a list, without blanks around them. Raises InvalidSetting as `listed_names`.

    Example: `split_names("a, b", "events") == ["a", "b"]`.
    """
    return [name.strip() for name in listed_names(names.split(",") if isinstance(names, str) else names, setting)]


def short_digest(*parts: Any) -> str:
    """Returns a hash of values that JSON can express, in 12 hex digits. It does not reveal them."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
