"""What the tests of HTTP share: a clock, and clients of an account over real HTTP."""

from typing import Any

import pytest

from autopilothq.clients.http import HttpClient
from autopilothq.clients.pace import Pace
from autopilothq.clients.settings import ApiSettings
from autopilothq.errors import ApiError
from fake_autopilot import FakeAutopilot
from fake_autopilot.server import KEY

SETTING = "sources.autopilothq.api_key"
ME = {"instanceId": "fake-1", "fullName": "Made Up", "email": "made.up@example.com"}


class Time:
    """A clock that advances only when something sleeps; `naps` has the seconds of each sleep."""

    def __init__(self) -> None:
        self.now = 100.0
        self.naps: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


def api(base_url: str, **more: Any) -> ApiSettings:
    settings: dict[str, Any] = {"api_key": KEY, "setting": SETTING, "requests_per_second": 1000, "tries": 3} | more
    return ApiSettings(base_url=base_url, **settings)


class KeyedClient(HttpClient):
    KEY_HEADER = "autopilotapikey"


def client(settings: ApiSettings, basic: bool = False, **seams: Any) -> HttpClient:
    return HttpClient(settings, **seams) if basic else KeyedClient(settings, **seams)


def connected(server: FakeAutopilot, time: Time, basic: bool = False, **more: Any) -> HttpClient:
    settings = api(more.pop("base_url", server.base_url), timeout=more.pop("timeout", 5.0), **more)
    return client(settings, basic, pace=Pace(time.clock, time.sleep), sleep=time.sleep)


def failed(server: FakeAutopilot, time: Time, method: str = "GET", path: str = "account", **more: Any) -> ApiError:
    """Sends a request that must fail, and returns its error."""
    asked = {name: more.pop(name) for name in ("idempotent", "wants_json", "body") if name in more}
    with connected(server, time, **more) as http, pytest.raises(ApiError) as caught:
        http.request(method, path.split("/"), **asked)
    return caught.value
