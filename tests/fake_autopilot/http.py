"""HTTP servers for tests, which record requests, and send correct responses or the faults that a test ordered."""

import gzip
import json
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

_GZIP_FROM = 1024  # bytes


@dataclass(frozen=True)
class Request:
    """A request as it was received.

    `path` is the percent-encoded path after the server's `root`; names of headers are in lower case; `body` is the JSON
    of its `content`, None if it has none; `at` is the monotonic time at which its head was read.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    content: bytes
    at: float


@dataclass
class Fault:
    """What to do instead of the correct response, `times` times after letting `skip` matching requests pass.

    `status`, `message`, `headers`, `retry_after` (seconds or a date) and `content` (bytes, or anything as JSON) make a
    response without carrying out the request. `drop` resets the connection before or after carrying it out. The others
    carry it out: `edit` changes the response's JSON, `late` waits so many seconds before the response, `drip` sends the
    body in ten pieces so many seconds apart, `cut` sends so many bytes of the body and closes the connection.
    """

    method: str
    path: str
    times: int = 1
    skip: int = 0
    status: int | None = None
    message: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_after: int | str | None = None
    content: Any = None
    drop: Literal["before", "after"] | None = None
    edit: Callable[[Any], Any] | None = None
    late: float = 0
    drip: float = 0
    cut: int | None = None

    def takes(self, method: str, path: str) -> bool:
        """Returns whether this request gets the fault, and counts the request if it matches."""
        if not self.times or self.method not in ("*", method) or not fnmatchcase(path, self.path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class Answer(NamedTuple):
    status: int
    content: Any = None  # None: no body; bytes: as they are; else JSON
    headers: Mapping[str, str] = {}


class Recent:
    """Counts what happened in the last `seconds`."""

    def __init__(self, seconds: float = 1) -> None:
        self.seconds = seconds
        self._times: deque[float] = deque()
        self._lock = Lock()

    def takes(self, at: float, most: int | None) -> bool:
        """Counts one more if fewer than `most` were counted, and returns whether it did."""
        with self._lock:
            while self._times and self._times[0] <= at - self.seconds:
                self._times.popleft()
            if most is not None and len(self._times) >= most:
                return False
            self._times.append(at)
            return True

    def clear(self) -> None:
        """Resets the count."""
        with self._lock:
            self._times.clear()


class Fake(ABC):
    """A server on a loopback port; a subclass defines its responses.

    `passes` lets `rate` requests through in any second; every response takes `latency` seconds.
    """

    root = "/v1"

    def __init__(self, *, host: str, port: int, rate: int | None, latency: float) -> None:
        self.rate = rate
        self.latency = latency
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.stopping = Event()
        self._lock = Lock()
        self._passed = Recent()
        self._http = _Server((host, port), self)
        self._thread = Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, name="fake")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._thread.join()
        self._http.hang_up()
        self._http.server_close()

    @property
    def origin(self) -> str:
        host, port = self._http.server_address[:2]
        return f"http://{host!s}:{port}"

    @property
    def base_url(self) -> str:
        return f"{self.origin}{self.root}"

    def order(self, method: str, path: str, **what: Any) -> Fault:
        """Adds and returns a Fault; `path` may contain `*`. The first fault that matches a request is used.

        Examples: `order("GET", "/contacts", status=429, retry_after=1, times=2)`, `order("*", "*", drop="before")`,
        `order("GET", "/contacts/*", edit=lambda page: page | {"bookmark": "person_1"})`.
        """
        fault = Fault(method, path, **what)
        self.faults.append(fault)
        return fault

    def seen(self, method: str = "*", path: str = "*") -> list[Request]:
        """Returns the requests so far, selected as by `order`."""
        return [r for r in self.requests if method in ("*", r.method) and fnmatchcase(r.path, path)]

    # ---- for the handler -----------------------------------------------------------------------------------------

    def fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            return next((fault for fault in self.faults if fault.takes(method, path)), None)

    def passes(self, at: float) -> bool:
        """Returns whether the rate limit lets a request pass."""
        return self._passed.takes(at, self.rate)

    @abstractmethod
    def answer(self, request: Request) -> Answer:
        """Returns the response to a request."""


# ---- HTTP ----------------------------------------------------------------------------------------------------------


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for them
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], fake: Fake) -> None:
        super().__init__(address, _Handler)
        self.fake = fake
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Closes kept-alive connections, whose threads would wait for another request."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Prints nothing, because requests are recorded."""

    def handle(self) -> None:
        with suppress(ConnectionError):  # clients may disconnect
            super().handle()

    def _handle(self) -> None:
        at = time.monotonic()
        fake = self.server.fake
        path = self.path.removeprefix(fake.root)
        fault = fake.fault(self.command, path.partition("?")[0])
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, path, headers, _parsed(content), content, at)
        fake.requests.append(request)
        if fault is None:
            fake.stopping.wait(fake.latency)
            self._send(fake.answer(request))
            return
        if fault.drop == "before":
            self._reset()
            return
        made = fault.status is not None or fault.content is not None
        answer = _ordered(fault) if made else fake.answer(request)
        if fault.edit:
            answer = answer._replace(content=fault.edit(answer.content))
        if fault.drop == "after":
            self._reset()
            return
        fake.stopping.wait(fault.late)
        self._send(answer, fault)

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = _handle  # noqa: N815

    def _send(self, answer: Answer, fault: Fault | None = None) -> None:
        content = answer.content
        body = content if isinstance(content, bytes) else b"" if content is None else _json(content)
        headers = {} if isinstance(content, bytes) or not body else {"Content-Type": "application/json; charset=utf-8"}
        headers |= answer.headers
        if (
            len(body) >= _GZIP_FROM
            and "gzip" in self.headers.get("Accept-Encoding", "")
            and "Content-Encoding" not in headers
        ):
            body = gzip.compress(body, compresslevel=1, mtime=0)
            headers["Content-Encoding"] = "gzip"
        headers = {"Date": self.date_time_string(), "Content-Length": str(len(body))} | headers
        lines = [
            f"HTTP/1.1 {answer.status} {_phrase(answer.status)}",
            *(f"{k}: {v}" for k, v in headers.items()),
            "",
            "",
        ]
        head = "\r\n".join(lines).encode("latin-1")
        if fault and fault.cut is not None:
            self.wfile.write(head + body[: fault.cut])
            self.close_connection = True
        elif fault and fault.drip:
            self.wfile.write(head)
            for piece in _pieces(body):
                self.server.fake.stopping.wait(fault.drip)
                self.wfile.write(piece)
        else:
            self.wfile.write(head + body)

    def _reset(self) -> None:
        """Resets the connection, as a server that crashes does."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


def _ordered(fault: Fault) -> Answer:
    status = fault.status or 200
    headers = dict(fault.headers) | ({} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)})
    if fault.content is not None:
        return Answer(status, fault.content, headers)
    return Answer(status, {"error": _phrase(status), "message": fault.message or f"Ordered {status}."}, headers)


def _pieces(body: bytes) -> Iterator[bytes]:
    size = max(1, -(-len(body) // 10))
    return (body[start : start + size] for start in range(0, len(body), size))


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content) if content else None
    except ValueError:
        return content


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Odd"
