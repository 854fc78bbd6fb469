"""The settings that all API clients have, as one record."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import ClassVar

from ..errors import InvalidSetting

ALLOW_HTTP = "sources.autopilothq.allow_http"
TIMEOUT = 30.0  # seconds
MAX_TIMEOUT = 1_000_000  # seconds
MAX_ATTEMPTS = 6  # the waits between them add up to 15.5 to 18 seconds, unless the server asks for others
API_TYPES: Mapping[str, type] = {
    "api_key": str,
    "base_url": str,
    "requests_per_second": float,
    "timeout": float,
    "tries": int,
    "allow_http": bool,
}
"""The types of the settings that every API has in dlt's configuration."""


@dataclass(frozen=True, kw_only=True)
class ApiSettings:
    """How to reach an API. The clients' modules derive a class with the defaults of their API.

    - `setting`: the full name of the setting of `api_key`; errors name it and others of its section.
    - `requests_per_second`: for the whole process and this key, in any one second; 2.5 allows two.
    - `timeout`: seconds for connecting, and between any two bytes.
    - `tries`: how often a request is sent at most.
    - `allow_http`: whether the key may be sent over http:// to another machine.

    Example: `AutopilotSettings(api_key=key, requests_per_second=2)`.
    """

    NUMBERS: ClassVar[tuple[str, ...]] = ("requests_per_second", "timeout", "tries")
    REFUSES_BY_403: ClassVar[bool] = False
    """Whether a 403 to a request other than a GET is about that request only; otherwise it is about the key."""
    ALSO_BY_403: ClassVar[str | None] = None
    """Another setting of the section that may cause a 403, besides the key. None if there is none."""
    ACCOUNT_FULL: ClassVar[int | None] = None
    """The status with which the API reports that the account is full. None if the API has no such status."""

    api_key: str = field(repr=False)
    setting: str
    base_url: str
    requests_per_second: float
    timeout: float = TIMEOUT
    tries: int = MAX_ATTEMPTS
    allow_http: bool = False

    def name_of(self, name: str) -> str:
        """Returns the full name of another setting in the same section.

        Example: `name_of("base_url")` is `sources.autopilothq.base_url` if `setting` is `sources.autopilothq.api_key`.
        """
        return f"{self.setting.rpartition('.')[0]}.{name}"

    def check_numbers(self) -> None:
        """Raises InvalidSetting if a number is not above 0 or not finite, or if the time-out is too long."""
        for name in self.NUMBERS:
            value = getattr(self, name)
            if name == "timeout" and MAX_TIMEOUT < value < inf:
                raise InvalidSetting(f"{self.name_of(name)} must be at most {MAX_TIMEOUT:,} seconds, got {value!r}")
            if not 0 < value < inf:
                raise InvalidSetting(f"{self.name_of(name)} must be a number above 0, got {value!r}")
