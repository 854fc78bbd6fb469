"""Ortto's settings and requests: every call is a POST with a JSON body, and some have rate limits of their own."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import httpx

from ..errors import InvalidSetting, NotAuthorized, RequestRejected
from ..segment.json_text import JsonObject
from .decode import JsonValue
from .http import HttpClient
from .ortto_answers import unexpected
from .pace import Limit, allowance, pace_of
from .settings import ApiSettings

REGION_URLS = {
    "": "https://api.ap3api.com/v1",
    "au": "https://api.au.ap3api.com/v1",
    "eu": "https://api.eu.ap3api.com/v1",
}
ORTTO_REQUESTS_PER_SECOND = 10.0
ACTIVITY_REQUESTS_PER_SECOND = 1.0
REPORTS = (60, 600.0)  # campaign reports, and in how many seconds
MALFORMED = (6, 15.0)  # Ortto blocks an address after 15 malformed requests in 15 seconds; 8 may be in flight


@dataclass(frozen=True, kw_only=True)
class OrttoSettings(ApiSettings):
    """The settings of Ortto's API. `region` is `au`, `eu` or empty; an empty `base_url` becomes the region's.

    `activity_requests_per_second` is the separate rate limit of people's activities.

    Example: `OrttoSettings(api_key="0123abcd", region="eu")`.
    """

    NUMBERS: ClassVar[tuple[str, ...]] = (*ApiSettings.NUMBERS, "activity_requests_per_second")
    ACCOUNT_FULL = 507

    setting: str = "sources.autopilothq.ortto.api_key"
    base_url: str = ""
    region: str = ""
    requests_per_second: float = ORTTO_REQUESTS_PER_SECOND
    activity_requests_per_second: float = ACTIVITY_REQUESTS_PER_SECOND

    def __post_init__(self) -> None:
        region = (self.region or "").strip().lower()
        if region not in REGION_URLS:
            known = ", ".join(filter(None, REGION_URLS))
            raise InvalidSetting(f"{self.name_of('region')} must be {known} or empty, got {self.region!r}")
        if not self.base_url:
            object.__setattr__(self, "base_url", REGION_URLS[region])


class OrttoRequests(HttpClient):
    """Sends requests to an account. After the first 401 or 403 it sends no more, or Ortto would block the address.

    For the same reason, malformed requests (400) have a rate limit.
    """

    KEY_HEADER = "X-Api-Key"

    def __init__(
        self,
        settings: OrttoSettings,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(settings, transport=transport, sleep=sleep)
        self._base_url = settings.base_url.rstrip("/")
        key, rate = settings.api_key.strip(), settings.activity_requests_per_second

        def limit(of: str, most: int, seconds: float, setting: str = "") -> Limit:
            return Limit(pace_of(f"{settings.base_url} {of}", key), most, seconds, setting)

        setting = settings.name_of("activity_requests_per_second")
        self.activities_limit = limit("activities", *allowance(rate), setting)
        self.reports_limit = limit("reports", *REPORTS)
        self._malformed = limit("malformed", *MALFORMED)
        self._denied: NotAuthorized | None = None

    @property
    def base_url(self) -> str:
        """The address of the API."""
        return self._base_url

    def post(self, path: str, body: Any, *, idempotent: bool = True, limit: Limit | None = None) -> JsonValue:
        """Sends a request and returns the answer; `path` is like `person/get`."""
        if self._denied is not None:
            raise self._denied
        try:
            return self.request("POST", path.split("/"), body=body, idempotent=idempotent, limit=limit)
        except NotAuthorized as error:
            self._denied = error
            raise
        except RequestRejected as error:
            if error.status == 400:
                self._malformed.wait().done()
            raise

    def object(self, path: str, body: Any, *, idempotent: bool = True, limit: Limit | None = None) -> JsonObject:
        """Sends a request and returns the answer. Raises UnexpectedResponse if that is not an object."""
        answer = self.post(path, body, idempotent=idempotent, limit=limit)
        if not isinstance(answer, JsonObject):
            raise unexpected(path, "an object", answer)
        return answer
