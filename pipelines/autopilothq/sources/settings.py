"""The settings that the sources share: their types, and how they are read.

dlt reads the annotations of a source's function when it is defined. A union in them it either leaves out, so that the
setting cannot come from the configuration, or takes for its first type, so that a list of `config.toml` becomes text.
Therefore such settings are `Any` to dlt, and have their types for whoever checks types.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

import dlt

from ..clients.settings import MAX_ATTEMPTS, TIMEOUT

if TYPE_CHECKING:
    from ..clients.autopilot import Autopilot
    from ..clients.profile_api import ProfileApi

    Names = str | Sequence[str]
    """Names, or one text with commas."""
    Time = str | date
    """A time: ISO 8601, a date or a datetime."""
    Engine = Executor | Callable[[], Executor] | None
    """An executor, which is left as it is, or a function that makes one, which is shut down with the load."""
    EventMappings = Mapping[str, Mapping[str, Any]] | None
    """By the name of an event: `event`, the one that it is, and `properties`, new names by names."""
else:
    Names = Time = Engine = EventMappings = Any


class RequestSettings(NamedTuple):
    """How an API is asked: where it is, how often at most, and how long and how many times an answer is waited for.

    `allow_http` lets the key go over plain http to another machine.
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


def split_names(names: str | Sequence[str]) -> list[str]:
    """Returns names without the blanks around them. Example: `split_names("a, b") == ["a", "b"]`."""
    return [name.strip() for name in (names.split(",") if isinstance(names, str) else names)]


def short_digest(*parts: Any) -> str:
    """Returns a short hash of values, from which nobody can read them."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def read_cursor(group: str, name: str, complete_loads: set[str]) -> dict[str, Any]:
    """Returns how far complete loads have brought something; nothing where the destination does not know that load.

    Cursors are kept in dlt's state of the source, below `group`.
    """
    cursor: dict[str, Any] = dlt.current.source_state().get(group, {}).get(name, {})
    return cursor if cursor and cursor["load_id"] in complete_loads else {}


def write_cursor(group: str, name: str, cursor: dict[str, Any]) -> None:
    """Keeps a cursor, which has the load's `load_id`; it counts once that load is complete."""
    dlt.current.source_state().setdefault(group, {})[name] = cursor
