"""What every HTTP client here needs, over httpx: pace, retries, errors for a person, secrets that stay secret."""

import hashlib
import ipaddress
import json
import logging
import re
import ssl
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http import HTTPStatus
from http.client import HTTPException
from math import inf
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from .. import masking
from ..errors import (
    ApiError,
    InvalidSetting,
    NotAuthorized,
    NotFound,
    OutcomeUnknown,
    RequestRejected,
    Unavailable,
    UnexpectedResponse,
)
from .inflate import ACCEPTED, TooBig, Undecodable, UnknownEncoding, inflated

MAX_BODY = 64 * 1024 * 1024
MAX_VALUES = 1_000_000  # of JSON in one answer, which take some hundred bytes each
MAX_RETRY_AFTER = 300.0  # seconds; who is told to wait longer is told so, instead of hanging
TIMEOUT = 30.0
MAX_ATTEMPTS = 6  # their waits come to about 15 seconds

_GROWING = wait_exponential(multiplier=0.5, max=30) + wait_random(0, 0.5)
_JITTER = wait_random(0, 0.25)
_SLOWEST = 10  # time-outs that one whole answer may take, however steadily it drips
ALLOW_HTTP = "sources.autopilothq.allow_http"
_ALLOW = "In a network that you trust it can be allowed: --allow-http, or {} = true"
_WORDS = 300  # characters of the server's own words in a message
_ERROR_BODY = 64 * 1024
_KEPT = 1024 * 1024  # bytes of an answer that is not understood

E = TypeVar("E", bound="ApiError")

_log = logging.getLogger(__name__)


# ---- errors --------------------------------------------------------------------------------------------------------


class _Again(Exception):
    """One try failed in a way that another may not; `wait` is what the server asks for, in seconds."""

    def __init__(self, what: str, status: int | None = None, words: str = "", wait: float | None = None) -> None:
        super().__init__(what)
        self.what, self.status, self.words, self.wait = what, status, words, wait


# ---- keys and paths ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ApiKey:
    """What opens an account: the headers that carry it, and the name of the setting that it came from."""

    setting: str
    secret: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)

    @classmethod
    def in_header(cls, header: str, secret: str, setting: str) -> Self:
        """Example: `Key.in_header("autopilotapikey", key, "sources.autopilothq.api_key")`."""
        secret = _checked(secret, setting)
        return cls(setting, secret, {header: secret})

    @classmethod
    def basic(cls, secret: str, setting: str) -> Self:
        """HTTP Basic, the secret as user name and an empty password (spec/profile-api.md)."""
        secret = _checked(secret, setting)
        masking.remember_secret(b64encode(f"{secret}:".encode()).decode())
        return cls(setting, secret, {"Authorization": "Basic " + b64encode(f"{secret}:".encode()).decode()})

    def beside(self, name: str) -> str:
        """The full name of another setting of the same account."""
        return f"{self.setting.rpartition('.')[0]}.{name}"


def _checked(secret: str, setting: str) -> str:
    """The secret as it can stand in a header. A line break at its end is how files and vaults hand it out."""
    secret = secret.strip()
    if not secret or not secret.isascii() or not secret.isprintable():
        what = "holds characters that no key has" if secret else "is empty"
        raise InvalidSetting(f"{setting} {what}: set it to the key as the account shows it ({_places(setting)})")
    masking.remember_secret(secret)
    return secret


def _places(setting: str) -> str:
    return f"in secrets.toml, or {setting.replace('.', '__').upper()} in the environment"


class Escaped(str):
    """A part of a path that is percent-encoded already."""

    __slots__ = ()


def escape(text: str) -> Escaped:
    """Percent-encodes every byte but ASCII letters and digits, also where RFC 3986 leaves a choice.

    Example: `escape("a.b@c")` gives `"a%2Eb%40c"`.
    """
    return Escaped(
        "".join(chr(byte) if chr(byte).isalnum() and byte < 128 else f"%{byte:02X}" for byte in text.encode())
    )


def path_of(parts: Sequence[str]) -> str:
    """The parts, each encoded whole: a `/`, `+`, `@` or blank inside one stays inside."""
    for part in parts:
        if part in ("", ".", ".."):
            raise ValueError(f"{part!r} cannot be a part of a path: it would name another resource")
    return "".join("/" + (part if isinstance(part, Escaped) else quote(part, safe="")) for part in parts)


# ---- pace ----------------------------------------------------------------------------------------------------------


class Pace:
    """The budget of one account: however many threads and clients ask, no more than N requests go out in any second.

    A server counts when requests arrive, not when they leave. So a request occupies its place for a second from when
    its bytes were sent (not from when a connection to send them was asked for), and longer by what its answer took
    more than the fastest one, because that may have been the way there. That costs nothing where answers take alike.
    """

    LATE = 0.05  # seconds; the most that is put down to the way there, and what is assumed until the answer comes
    SLACK = 0.005  # seconds; of two machines' clocks and schedulers

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.clock = clock
        self._sleep = sleep
        self._turn = threading.Lock()
        self._places: list[PaceSlot] = []
        self._held_until = -inf
        self.fastest = inf

    def wait(self, per_second: float) -> "PaceSlot":
        """Returns when a request may go. `per_second` is the caller's: all requests of the account count against it."""
        most, seconds = max(1, int(per_second)), max(1.0, 1 / per_second)
        with self._turn:
            while True:
                now = self.clock()
                self._places = [place for place in self._places if place.free_at > now]
                if len(self._places) < most and now >= self._held_until:
                    break
                first = min((place.free_at for place in self._places), default=-inf)
                # A place is free at no known time while its request waits for a connection.
                self._sleep(
                    min(max(first - now if len(self._places) >= most else 0, self._held_until - now, 0.001), 0.05)
                )
            place = PaceSlot(self, seconds)
            self._places.append(place)
        return place

    def hold(self, seconds: float) -> None:
        """Nothing goes out for so long: the server asked for it."""
        self._held_until = max(self._held_until, self.clock() + seconds)


class PaceSlot:
    """One request's place in the budget."""

    def __init__(self, pace: Pace, seconds: float) -> None:
        self._pace = pace
        self._seconds = seconds
        self._sent = inf
        self._answered = inf

    def trace(self, event: str, _: Mapping[str, Any]) -> None:
        """httpcore's trace extension: the request's first bytes go out."""
        if event.startswith("http11.send_request_headers"):
            self._sent = self._pace.clock()

    def answered(self) -> None:
        """The answer's head is here."""
        self._answered = self._pace.clock()
        if self._sent < inf:
            self._pace.fastest = min(self._pace.fastest, self._answered - self._sent)

    def done(self) -> None:
        """The request is over, whatever came of it. One that was never traced counts from now."""
        self._answered = min(self._answered, self._pace.clock())
        self._sent = min(self._sent, self._answered)

    @property
    def free_at(self) -> float:
        if self._sent == inf:
            return inf
        late = min(Pace.LATE, max(0.0, self._answered - self._sent - self._pace.fastest))
        return self._sent + self._seconds + late + Pace.SLACK


_paces: dict[str, Pace] = {}
_paces_lock = threading.Lock()


def _pace_of(origin: str, key: ApiKey) -> Pace:
    """The process's one budget for this key at this server. Kept for good: a new client must not start afresh."""
    name = hashlib.sha256(f"{origin} {key.secret}".encode()).hexdigest()
    with _paces_lock:
        return _paces.setdefault(name, Pace())


# ---- requests ------------------------------------------------------------------------------------------------------


def _not_json(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_not_json)
_QUOTED = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)  # a text of JSON, closed or not


class HttpClient:
    """JSON over HTTP at one base URL with one key; any number of threads may use it at once.

    `requests_per_second` holds for the whole process and this key, in any one second; of 2.5 two are used. `timeout` is
    seconds for connecting, and between any two bytes. `tries` is how often a request is sent at most. Without
    `allow_http` the key goes over http:// to this machine only.

    Raises InvalidSetting where the settings cannot work. `request` raises the other ApiErrors.

    Example: `with Http(url, key, requests_per_second=5) as http: http.request("GET", ["contact", "a+b@example.com"])`.
    """

    def __init__(
        self,
        base_url: str,
        key: ApiKey,
        *,
        requests_per_second: float,
        timeout: float = TIMEOUT,
        tries: int = MAX_ATTEMPTS,
        allow_http: bool = False,
        transport: httpx.BaseTransport | None = None,
        pace: Pace | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        for name, value in (("requests_per_second", requests_per_second), ("timeout", timeout), ("tries", tries)):
            if not 0 < value < inf:
                raise InvalidSetting(f"{key.beside(name)} must be a number above 0, got {value!r}")
        url = _url(base_url, key, allow_http)
        self._base = str(url).rstrip("/")
        self._host = url.host
        self._key = key
        self._rate = requests_per_second
        self._timeout = timeout
        self._tries = tries
        self._pace = pace or _pace_of(f"{url.scheme}://{url.netloc.decode()}", key)
        self._sleep = sleep
        self._calls = threading.local()
        self._transport = transport
        self._client = self._new_client()

    def _new_client(self) -> httpx.Client:
        return httpx.Client(
            headers={"User-Agent": "dlt-autopilothq", "Accept": "application/json", "Accept-Encoding": ACCEPTED},
            # Threads queue for a connection as long as it takes: the answers before them have time-outs.
            timeout=httpx.Timeout(self._timeout, pool=None),
            limits=httpx.Limits(max_connections=100, max_keepalive_connections=100),
            follow_redirects=False,
            verify=_tls(),
            trust_env=not is_loopback(self._host),  # a proxy would be another machine
            transport=self._transport,
        )

    def __repr__(self) -> str:
        return f"Http({self._base!r}, {self._key!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; a request after that opens new ones."""
        self._client.close()
        self._client = self._new_client()

    @property
    def attempts(self) -> int:
        """How often the calling thread's last request was tried; 0 before the first."""
        return int(getattr(self._calls, "attempts", 0))

    def masked(self, text: str) -> str:
        """`text` without the secret, should the server repeat it."""
        return masking.masked(text)

    @property
    def request_id(self) -> str:
        """` (Request-Id …)` of the answer to the calling thread's last request, for errors; else empty."""
        return str(getattr(self._calls, "request_id", ""))

    def request(
        self,
        method: str,
        path: Sequence[str],
        *,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        idempotent: bool = True,
        wants_json: bool = True,
        decoder: json.JSONDecoder = _DECODER,
    ) -> Any:
        """The answer's JSON; None where it is not wanted: then only the status matters, not what the answer says.

        `path` is given in parts, which are encoded here; `body` is sent as JSON; `decoder` reads the answer. What fails
        in passing is tried again: 429 with the wait that the server asks for, else with growing waits; 408, 5xx and
        network failures too. Not so where `idempotent` is false: once its bytes may have gone out, only a 429 says that
        nothing was done.
        """
        call = _Call(self, method, path_of(path), body, params, idempotent, wants_json, decoder)
        retrying = Retrying(
            stop=stop_after_attempt(self._tries),
            retry=retry_if_exception_type(_Again),
            wait=_wait,
            sleep=self._sleep,
            before_sleep=call.log,
            reraise=True,
        )
        try:
            return retrying(call.once)
        except _Again as again:
            last = again
        finally:
            self._calls.attempts = call.attempts
        # Outside of the handler: no error that is held by this one may carry the request and its headers.
        raise call.gave_up(last)


@dataclass
class _Call:
    """One request, tried once or more."""

    http: HttpClient
    method: str
    path: str
    body: Any
    params: Mapping[str, str] | None
    idempotent: bool
    wants_json: bool
    decoder: json.JSONDecoder
    attempts: int = 0

    def once(self) -> Any:
        """One try: the answer, an ApiError that is final, or _Again."""
        http = self.http
        self.attempts += 1
        # Built for every try, so that headers go to this URL alone, and before the pace is asked, so that what cannot
        # be sent takes no place.
        request = http._client.build_request(
            self.method, http._base + self.path, params=self.params, headers=http._key.headers, json=self.body
        )
        place = http._pace.wait(http._rate)
        request.extensions["trace"] = place.trace
        response: httpx.Response | None = None
        content = b""
        failure: httpx.HTTPError | None = None
        try:
            response = http._client.send(request, stream=True)
            place.answered()
            content = self._read(response)
        except httpx.HTTPError as error:
            failure = error
        finally:
            place.done()
            if response is not None:
                response.close()
        if response is None or (failure is not None and response.is_success and self.wants_json):
            raise self._broken(failure, response)
        return self._judged(response, content)

    def _read(self, response: httpx.Response) -> bytes:
        """The body, inflated piece by piece: httpx would inflate a small body of gigabytes before its size is known."""
        wanted = response.is_success and self.wants_json
        most = MAX_BODY if wanted else _ERROR_BODY
        chunks: list[bytes] = []
        try:
            chunks.extend(inflated(self._raw(response), response.headers.get("Content-Encoding", ""), most))
        except TooBig:
            if wanted:
                chunks.clear()  # the error would keep them as long as it lives
                raise self._error(
                    UnexpectedResponse, f"the answer is bigger than {MAX_BODY // 1024**2} MB", response.status_code
                ) from None
        except Undecodable as error:
            raise httpx.DecodingError(str(error), request=response.request) from None
        except UnknownEncoding as error:
            if wanted:
                text = f"expected an answer in one of the encodings {ACCEPTED}, got {error.args[0]!r}"
                raise self._error(UnexpectedResponse, text, response.status_code) from None
        return b"".join(chunks)

    def _raw(self, response: httpx.Response) -> Iterator[bytes]:
        """The body's bytes as they come, until it takes too long."""
        end = time.monotonic() + _SLOWEST * self.http._timeout
        for chunk in response.iter_raw():
            yield chunk
            if time.monotonic() > end:
                raise httpx.ReadTimeout("", request=response.request)

    def _broken(self, failure: httpx.HTTPError | None, response: httpx.Response | None) -> Exception:
        """No whole answer came."""
        again = _Again(
            self._what(failure, response is not None), response.status_code if response is not None else None
        )
        sent = not isinstance(failure, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError))
        return again if self.idempotent or not sent else self._unknown(again)

    def _what(self, failure: httpx.HTTPError | None, answering: bool) -> str:
        seconds = f"{self.http._timeout:g} s"
        if isinstance(failure, httpx.ConnectTimeout):
            return f"no connection to {self.http._host} within {seconds}"
        if isinstance(failure, httpx.TimeoutException):
            return f"the answer stopped for {seconds} or took too long" if answering else f"no answer within {seconds}"
        why = f": {failure}" if str(failure) else ""
        if isinstance(failure, (httpx.ConnectError, httpx.ProxyError)):
            return f"cannot reach {self.http._host}{why}"
        return f"the answer broke off{why}" if answering else f"the connection broke{why}"

    def _judged(self, response: httpx.Response, content: bytes) -> Any:
        """What a whole answer means."""
        status = response.status_code
        self.http._calls.request_id = _request_id(response)
        if response.is_success:
            return self._json(response, content) if self.wants_json else None
        words = "" if response.is_redirect else _words(response, content)
        what = _status(status) + (f": {words}" if words else "")
        if response.is_redirect or status < 400:
            raise self._error(
                UnexpectedResponse,
                f"{what} to {_target(response)}; redirects are not followed, so that the key goes"
                f" nowhere else. Check {self.http._key.beside('base_url')} ({self.http._base})",
                status,
            )
        if status in (401, 403):
            setting = self.http._key.setting
            raise self._error(NotAuthorized, f"{what.rstrip('.')}. Check {setting} ({_places(setting)})", status, words)
        if status in (408, 429) or status >= 500:
            again = _Again(what, status, words, _retry_after(response))
            if status != 429 and not self.idempotent:
                raise self._unknown(again)
            self._hold(again)
            raise again
        raise self._error(NotFound if status == 404 else RequestRejected, what, status, words)

    def _hold(self, again: _Again) -> None:
        """The limit is the account's: its other requests wait as well."""
        if again.wait is None:
            return
        if again.wait > MAX_RETRY_AFTER:
            text = f"{again.what.rstrip('.')}. The server asks to wait {again.wait:.0f} s: run it again then"
            raise self._error(Unavailable, text, again.status, again.words)
        self.http._pace.hold(again.wait)

    def _json(self, response: httpx.Response, content: bytes) -> Any:
        if _has_too_many_values(content):
            raise self._error(
                UnexpectedResponse, f"the answer has more than {MAX_VALUES:,} values of JSON", response.status_code
            )
        try:
            return self.decoder.decode(content.decode(json.detect_encoding(content), "surrogatepass"))
        except (ValueError, RecursionError) as error:
            cut = _cut_off(error)
        if cut:
            again = _Again("the answer broke off", response.status_code)
            raise again if self.idempotent else self._unknown(again)
        kind = response.headers.get("Content-Type", "no content type")
        text = f"expected JSON, got {kind} that begins {_beginning(content)!r}{_request_id(response)}"
        bad = self._error(UnexpectedResponse, text, response.status_code)
        bad.content = masking.masked(content[:_KEPT].decode("utf-8", "replace"))
        raise bad

    def gave_up(self, last: _Again) -> ApiError:
        """The error after the last try."""
        tries = "1 try" if self.http._tries == 1 else f"{self.http._tries} tries"
        text = f"{last.what.rstrip('.')}; gave up after {tries}"
        if last.status == 429:
            setting = self.http._key.beside("requests_per_second")
            text += f". Lower {setting} (now {self.http._rate:g}) where others use the same key"
        return self._error(Unavailable, text, last.status, last.words)

    def log(self, state: RetryCallState) -> None:
        """Before the wait for the next try."""
        again = state.outcome.exception() if state.outcome else None
        wait = state.next_action.sleep if state.next_action else 0
        text = masking.masked(f"{self.method} {self.path}: {again}")
        _log.info("%s; try %d of %d in %.1f s", text, state.attempt_number + 1, self.http._tries, wait)

    def _unknown(self, again: _Again) -> OutcomeUnknown:
        text = f"{again.what.rstrip('.')}; it may have been carried out, so it is not sent again"
        return self._error(OutcomeUnknown, text, again.status, again.words)

    def _error(self, kind: type[E], text: str, status: int | None, words: str = "") -> E:
        text = masking.masked(f"{self.method} {self.path}: {text}")
        return kind(text, method=self.method, path=self.path, status=status, words=words, attempts=self.attempts)


def post_note(url: str, text: str, timeout: float = 10, allow_http: bool = False) -> None:
    """Posts a text to a webhook, in Slack's form; `timeout` is in seconds, for all of it.

    The URL is a secret: neither errors nor logs have it, and it goes to its own host alone: over https unless
    `allow_http` or to this machine, and redirects are not followed. Of the answer only the status is read. httpx would
    log the URL; the standard library's client does not. Raises ApiError.
    """
    masking.remember_hook(url)
    scheme, host = _scheme_and_host(url)
    if scheme not in ("https", "http"):
        raise InvalidSetting("Expected a URL that begins with https://")
    if scheme == "http" and not allow_http and not is_loopback(host):
        raise InvalidSetting(f"Expected a URL that begins with https://, got http://. {_ALLOW.format(ALLOW_HTTP)}")
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - see above
    failures: list[Exception] = []
    posting = threading.Thread(target=_post, args=(request, host, timeout, failures), name="webhook", daemon=True)
    posting.start()
    posting.join(timeout)
    if posting.is_alive():  # a time-out of a socket begins again with each byte
        raise Unavailable(f"No answer came within {timeout:g} s.")
    if not failures:
        return
    error = failures[0]
    if isinstance(error, urllib.error.HTTPError):
        moved = " Redirects are not followed: set the URL that it leads to." if 300 <= error.code < 400 else ""
        raise RequestRejected(f"It answered {error.code}.{moved}", status=error.code)
    reason = getattr(error, "reason", error)
    raise Unavailable(f"No answer came: {type(reason).__name__}.")


def _post(request: urllib.request.Request, host: str, timeout: float, failures: list[Exception]) -> None:
    """Sends the request; `failures` gets what went wrong."""
    proxies = [urllib.request.ProxyHandler({})] if is_loopback(host) else []
    try:
        with urllib.request.build_opener(_NoRedirects, *proxies).open(request, timeout=timeout):
            pass
    except urllib.error.HTTPError as error:
        error.close()
        failures.append(error)
    except (OSError, HTTPException, ValueError) as error:
        failures.append(error)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Where a webhook leads to is no business of the one that knows its secret."""

    def redirect_request(self, *_: Any) -> None:
        """Follows none: the answer becomes an HTTPError."""


def is_loopback(host: str) -> bool:
    """Whether a host of a URL is this machine, by its address or as `localhost`; no name is looked up.

    Example: `is_loopback("127.8.0.1")`, but not `is_loopback("127.0.0.1.example.com")`.
    """
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host.lower() == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _scheme_and_host(url: str) -> tuple[str, str]:
    """Both empty where it is no URL; a user and password before the host are none of a webhook's."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "", ""
    return (parts.scheme, parts.hostname) if parts.hostname and "@" not in parts.netloc else ("", "")


@lru_cache
def _tls() -> ssl.SSLContext:
    """Reading all the certificates takes a tenth of a second: once is enough."""
    return httpx.create_ssl_context()


def _url(base_url: str, key: ApiKey, allow_http: bool) -> httpx.URL:
    setting = key.beside("base_url")
    try:
        url = httpx.URL(base_url)
        good = url.scheme in ("http", "https") and url.host and not (url.userinfo or url.query or url.fragment)
    except httpx.InvalidURL:
        good = False
        url = httpx.URL()
    if not good:
        # Not repeated: a password may stand in it.
        raise InvalidSetting(f"{setting} must be like https://host/path, without user, password, query or fragment")
    if url.scheme == "http" and not allow_http and not is_loopback(url.host):
        raise InvalidSetting(
            f"{setting} is not https: the key would go to {url.host} for everyone on the way to read."
            f" Use https://. {_ALLOW.format(key.beside('allow_http'))}"
        )
    return url


def _wait(state: RetryCallState) -> float:
    again = state.outcome.exception() if state.outcome else None
    if isinstance(again, _Again) and again.wait:
        return min(again.wait, MAX_RETRY_AFTER) + _JITTER(state)
    return _GROWING(state)


def _retry_after(response: httpx.Response) -> float | None:
    """What `Retry-After` asks for, in seconds; a date is read by the server's own clock. None without one."""
    text = response.headers.get("Retry-After", "").strip()
    with suppress(ValueError, OverflowError):
        if text.isascii() and text.isdigit():
            return float(text)
        if text:
            sent = response.headers.get("Date")
            now = parsedate_to_datetime(sent) if sent else datetime.now(UTC)
            return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
    return None


def _words(response: httpx.Response, content: bytes) -> str:
    """The server's words in one line: `{"error","message"}` (Autopilot), `{"error":{"code","message"}}` (Segment)."""
    text = ""
    with suppress(ValueError, RecursionError):
        answer = json.loads(content)
        if isinstance(answer, dict):
            error = answer.get("error")
            code, message = (
                (error.get("code"), error.get("message")) if isinstance(error, dict) else (error, answer.get("message"))
            )
            # The code is left out where it only says the status once more.
            said = _reason(response.status_code).casefold()
            text = ": ".join(str(word) for word in (code, message) if word and str(word).casefold() != said)
    text = text or ("" if _is_json(response) else content.decode("utf-8", "replace"))
    text = _shortened(masking.masked(text))  # in this order: half a secret would not be found
    return (text + _request_id(response)).strip()


def _request_id(response: httpx.Response) -> str:
    """What Segment's support asks for."""
    request_id = response.headers.get("Request-Id")
    return f" (Request-Id {_shortened(request_id)})" if request_id else ""


def _is_json(response: httpx.Response) -> bool:
    return "json" in response.headers.get("Content-Type", "")


def _shortened(text: str) -> str:
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= _WORDS else line[:_WORDS] + "…"


def _beginning(content: bytes) -> str:
    return masking.masked(content[:_ERROR_BODY].decode("utf-8", "replace"))[:60]


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _status(status: int) -> str:
    return f"{status} {_reason(status)}".rstrip()


def _target(response: httpx.Response) -> str:
    """Where a redirect points: scheme and host, because the rest is the server's to fill with anything."""
    with suppress(httpx.InvalidURL):
        url = response.request.url.join(response.headers.get("Location", ""))
        return f"{url.scheme}://{url.netloc.decode()}"
    return "nowhere"


def _has_too_many_values(content: bytes) -> bool:
    """Whether JSON would fill the memory once it is read: `[[],[],...]` takes twenty times its size."""
    if sum(map(content.count, (b",", b"[", b"{"))) <= MAX_VALUES:
        return False
    return sum(map(_QUOTED.sub(b"", content).count, (b",", b"[", b"{"))) > MAX_VALUES


def _cut_off(error: Exception) -> bool:
    """Whether JSON ends before its end: an answer that broke off without the connection telling."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.msg.startswith("Unterminated string") or len(error.doc) - error.pos < len("false")
