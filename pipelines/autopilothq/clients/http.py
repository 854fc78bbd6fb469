"""JSON over HTTP with httpx, with rate limits, retries, readable errors and masked secrets; all clients use it."""

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, ClassVar, Self

import httpx
from tenacity import RetryCallState

from .. import masking
from .auth import basic_auth, checked_url, is_loopback, key_header
from .call import Call
from .decode import JsonValue
from .inflate import ACCEPTED
from .pace import Limit, Pace, PaceSlot, pace_of
from .response import read_answer, read_body, request_id
from .retry import TransientFailure, retrying
from .settings import ApiSettings
from .urls import path_of

_log = logging.getLogger(__name__)


class HttpClient:
    """A client for JSON over HTTP with one base URL and one key, which a `with` block closes. It is thread-safe.

    `KEY_HEADER` is the header that carries the key; if it is None, the key is the user name of HTTP Basic. Raises
    InvalidSetting if the settings cannot work; `request` raises the other ApiErrors.

    Example: `with HttpClient(settings) as http: http.request("GET", ["contact", id])`.
    """

    KEY_HEADER: ClassVar[str | None] = None

    def __init__(
        self,
        settings: ApiSettings,
        *,
        transport: httpx.BaseTransport | None = None,
        pace: Pace | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._auth = key_header(settings, self.KEY_HEADER) if self.KEY_HEADER else basic_auth(settings)
        settings.check_numbers()
        url = checked_url(settings)
        self._settings = settings
        self._base = str(url).rstrip("/")
        self._host = url.host
        self._pace = pace or pace_of(f"{url.scheme}://{url.netloc.decode()}", settings.api_key.strip())
        self._sleep = sleep
        self._last = threading.local()
        self._transport = transport
        self._client = self._new_client()

    def _new_client(self) -> httpx.Client:
        return httpx.Client(
            headers={"User-Agent": "dlt-autopilothq", "Accept": "application/json", "Accept-Encoding": ACCEPTED},
            # Threads wait for a connection without a time-out, because the requests before them have one.
            timeout=httpx.Timeout(self._settings.timeout, pool=None),
            limits=httpx.Limits(max_connections=100, max_keepalive_connections=100),
            follow_redirects=False,
            verify=_tls(),
            trust_env=not is_loopback(self._host),  # a proxy would be another machine
            transport=self._transport,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._base!r}, {self._settings.setting!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections. A request after that opens new ones."""
        self._client.close()
        self._client = self._new_client()

    @property
    def attempts(self) -> int:
        """How often the calling thread's last request was sent; 0 before the first."""
        return int(getattr(self._last, "attempts", 0))

    @contextmanager
    def limit_tries(self, tries: int) -> Iterator[None]:
        """Limits the tries of the calling thread's requests in this context. The setting `tries` applies as well."""
        before = self._settings_here
        self._last.settings = replace(before, tries=min(tries, before.tries))
        try:
            yield
        finally:
            self._last.settings = before

    @property
    def _settings_here(self) -> ApiSettings:
        found: ApiSettings = getattr(self._last, "settings", self._settings)
        return found

    @property
    def request_id(self) -> str:
        """` (Request-Id …)` of the calling thread's last answer, for errors; empty if it has none."""
        return str(getattr(self._last, "request_id", ""))

    def request(
        self,
        method: str,
        path: Sequence[str],
        *,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        idempotent: bool = True,
        wants_json: bool = True,
        limit: Limit | None = None,
    ) -> JsonValue:
        """Sends a request and returns the answer's JSON, or None if `wants_json` is false: only the status matters.

        `path` has the parts of the path, which are percent-encoded here. `body` is sent as JSON; bytes are JSON
        already. After 429, 408, 5xx and network failures the request is sent again, after the wait that the server asks
        for, otherwise with exponential backoff. If `idempotent` is false, it is sent again only if no byte of it can
        have been sent, or after a 429, which means that the server has done nothing. `limit` applies in addition to the
        limit of all requests.
        """
        call = Call(self._settings_here, method, path_of(path), body, params, idempotent, wants_json, limit)
        attempts = retrying(call.settings.tries, self._sleep, lambda state: _log_retry(call, state))
        try:
            return attempts(self._attempt, call)
        except TransientFailure as failure:
            last = failure
        finally:
            self._last.attempts = call.attempts
        # Raised outside of the handler, so that no chained exception has the request and its headers.
        raise call.gave_up(last)

    def _attempt(self, call: Call) -> JsonValue:
        """Sends the request once and returns what `request` does. Raises TransientFailure to retry, or an ApiError."""
        call.attempts += 1
        # Each attempt builds its request, so that the headers go only to this URL. It is built before the wait for a
        # slot, so that a request that cannot be built takes no slot.
        request = self._client.build_request(
            call.method, self._base + call.path, params=call.params, **_content(call, self._auth)
        )
        slots = [call.limit.wait()] if call.limit else []
        slots.append(self._pace.wait(self._settings.requests_per_second))
        request.extensions["trace"] = partial(_trace, slots)
        response: httpx.Response | None = None
        content = b""
        failure: httpx.HTTPError | None = None
        try:
            response = self._client.send(request, stream=True)
            for slot in slots:
                slot.answered()
            content = read_body(call, response)
        except httpx.HTTPError as error:
            failure = error
        finally:
            for slot in slots:
                slot.done()
            if response is not None:
                response.close()
        if response is None or (failure is not None and response.is_success and call.wants_json):
            raise call.broken(failure, self._host, response)
        self._last.request_id = request_id(response)
        try:
            return read_answer(call, response, content)
        except TransientFailure as again:
            if again.wait is not None:  # the limit is the account's, so its other requests wait as well
                (call.limit.pace if call.limit else self._pace).hold(again.wait)
            raise


def _content(call: Call, auth: Mapping[str, str]) -> dict[str, Any]:
    """Returns the headers and the body of a request, as arguments of `httpx.Client.build_request`."""
    if isinstance(call.body, bytes):
        return {"content": call.body, "headers": {**auth, "Content-Type": "application/json"}}
    return {"json": call.body, "headers": auth}


def _trace(slots: Sequence[PaceSlot], event: str, info: Mapping[str, Any]) -> None:
    """Passes the events of a request on to its slots."""
    for slot in slots:
        slot.trace(event, info)


def _log_retry(call: Call, state: RetryCallState) -> None:
    """Logs a failed attempt, before the wait for the next one."""
    failure = state.outcome.exception() if state.outcome else None
    wait = state.next_action.sleep if state.next_action else 0
    text = masking.masked(f"{call.method} {call.path}: {failure}")
    _log.info("%s; try %d of %d in %.1f s", text, state.attempt_number + 1, call.settings.tries, wait)


@lru_cache
def _tls() -> ssl.SSLContext:
    """Returns the TLS context, one for the process, because reading all certificates takes a tenth of a second."""
    return httpx.create_ssl_context()
