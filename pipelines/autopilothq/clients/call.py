"""A request to an API, and the errors that it can end with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from .. import masking
from ..errors import ApiError, OutcomeUnknown, Unavailable
from .pace import Limit
from .retry import TransientFailure
from .settings import ApiSettings

E = TypeVar("E", bound=ApiError)

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


@dataclass
class Call:
    """One request, which is sent once or more.

    `path` is percent-encoded. `body` is sent as JSON; bytes are sent unchanged. `idempotent` is false if repeating the
    request would do its work twice. `wants_json` is false if only the status of the answer matters. `limit` applies in
    addition to the rate limit of all requests. `attempts` counts how often the request was sent.
    """

    settings: ApiSettings
    method: str
    path: str
    body: Any = None
    params: Mapping[str, str] | None = None
    idempotent: bool = True
    wants_json: bool = True
    limit: Limit | None = None
    attempts: int = 0

    def error(self, kind: type[E], text: str, status: int | None, server_message: str = "") -> E:
        """Returns an error of the class `kind` about this request, with secrets masked in its text."""
        text = masking.masked(f"{self.method} {self.path}: {text}")
        return kind(
            text,
            method=self.method,
            path=self.path,
            status=status,
            server_message=server_message,
            attempts=self.attempts,
        )

    def outcome_unknown(self, failure: TransientFailure) -> OutcomeUnknown:
        """Returns the error for a request that must not be repeated and may have been carried out."""
        text = f"{failure.reason.rstrip('.')}; it may have been carried out, so it is not sent again"
        return self.error(OutcomeUnknown, text, failure.status, failure.server_message)

    def gave_up(self, last: TransientFailure) -> Unavailable:
        """Returns the error for a request whose last attempt failed."""
        settings = self.settings
        tries = "1 try" if settings.tries == 1 else f"{settings.tries} tries"
        text = f"{last.reason.rstrip('.')}; gave up after {tries}"
        if last.status == 429:
            setting, rate = settings.name_of("requests_per_second"), settings.requests_per_second
            if self.limit:
                setting, rate = self.limit.setting, self.limit.most / self.limit.seconds
            text += f". Lower {setting} (now {rate:g}) if others use the same key" if setting else ""
        return self.error(Unavailable, text, last.status, last.server_message)

    def broken(self, error: httpx.HTTPError | None, host: str, response: httpx.Response | None) -> Exception:
        """Returns the exception for a missing or incomplete answer: OutcomeUnknown, or TransientFailure to retry."""
        failure = TransientFailure(
            self._reason(error, host, response is not None), response.status_code if response is not None else None
        )
        may_be_sent = not isinstance(error, _NOT_SENT)
        return self.outcome_unknown(failure) if may_be_sent and not self.idempotent else failure

    def _reason(self, error: httpx.HTTPError | None, host: str, answering: bool) -> str:
        seconds = f"{self.settings.timeout:g} s"
        if isinstance(error, httpx.ConnectTimeout):
            return f"no connection to {host} within {seconds}"
        if isinstance(error, httpx.TimeoutException):
            return f"the answer stalled for {seconds} or took too long" if answering else f"no answer within {seconds}"
        why = f": {error}" if str(error) else ""
        if isinstance(error, (httpx.ConnectError, httpx.ProxyError)):
            return f"cannot reach {host}{why}"
        return f"the answer broke off{why}" if answering else f"the connection broke{why}"
