"""The HTTP of the fake: requests in and recorded, answers or ordered faults out."""

import gzip
import json
import re
import socket
import struct
import time
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
from urllib.parse import unquote

from .account import SEGMENTS, TRIGGERS, Account

KEY = "0123456789abcdef0123456789abcdef"
MOST_CONTACTS = 100
_GZIP_FROM = 1024  # bytes


@dataclass(frozen=True)
class Request:
    """A request as it came. `path` is what stood in the request line behind `/v1`, percent-encoded; names of headers
    are in lower case; `body` is its JSON, None without one; `at` is the monotonic clock when its head was read.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    at: float


@dataclass
class Fault:
    """What to do instead of the right answer, `times` times after letting `skip` matching requests pass.

    `status`, `message`, `headers`, `retry_after` (seconds or a date) and `content` (bytes, or anything as JSON) make an
    answer without carrying the request out. `drop` resets the connection before the request is carried out or after.
    The others carry it out: `edit` changes the answer's JSON, `late` waits so many seconds before it, `drip` sends the
    body in ten pieces, so many seconds apart, `cut` sends so many bytes of the body and closes the connection.
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
        """Whether this request gets the fault; counts it."""
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


class FakeAutopilot:
    """The server on a loopback port: `with FakeAutopilot(contacts=250) as server: ... server.base_url, server.key ...`.

    `rate` is how many requests in any second are answered before 429, `latency` how many seconds every answer takes.
    """

    def __init__(
        self,
        contacts: int = 100,
        *,
        seed: int = 1,
        port: int = 0,
        host: str = "127.0.0.1",
        key: str = KEY,
        rate: int | None = None,
        latency: float = 0,
    ) -> None:
        self.account = Account(contacts, seed)
        self.key = key
        self.rate = rate
        self.latency = latency
        self.overlap = 0  # contacts of the page before that a page repeats
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.stopping = Event()
        self._lock = Lock()
        self._passed: deque[float] = deque()
        self._http = _Server((host, port), self)
        self._thread = Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, name="fake-autopilot")

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
        return f"{self.origin}/v1"

    def order(self, method: str, path: str, **what: Any) -> Fault:
        """Adds a Fault; `path` may hold `*`. The first one that matches a request is used.

        Examples: `order("GET", "/contacts", status=429, retry_after=1, times=2)`, `order("*", "*", drop="before")`,
        `order("GET", "/contacts/*", edit=lambda page: page | {"bookmark": "person_1"})`.
        """
        fault = Fault(method, path, **what)
        self.faults.append(fault)
        return fault

    def seen(self, method: str = "*", path: str = "*") -> list[Request]:
        """The requests so far, chosen as by `order`."""
        return [r for r in self.requests if method in ("*", r.method) and fnmatchcase(r.path, path)]

    # ---- for the handler -----------------------------------------------------------------------------------------

    def fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            return next((fault for fault in self.faults if fault.takes(method, path)), None)

    def passes(self, at: float) -> bool:
        """Whether the account's limit lets a request pass."""
        with self._lock:
            while self._passed and self._passed[0] <= at - 1:
                self._passed.popleft()
            if self.rate is not None and len(self._passed) >= self.rate:
                return False
            self._passed.append(at)
            return True

    def answer(self, request: Request) -> Answer:
        """What the API says."""
        key = request.headers.get("autopilotapikey")
        if key is None:
            return _error(400, "No autopilotapikey header provided.")
        if key != self.key:
            return _error(401, "Provided autopilotapikey not valid.")
        if not self.passes(request.at):
            return _error(429, "Rate limit exceeded.")
        parts = tuple(unquote(part) for part in request.path.partition("?")[0].strip("/").split("/"))
        for method, pattern, answer in ROUTES:
            if method == request.method and (arguments := _matched(pattern, parts)) is not None:
                return answer(self, request.body, *arguments)
        return _error(404, "Resource could not be found.")


# ---- the API -------------------------------------------------------------------------------------------------------


def _account(server: FakeAutopilot, _: Any) -> Answer:
    return Answer(
        200, {"instanceId": f"fake-{server.account.seed}", "fullName": "Made Up", "email": "made.up@example.com"}
    )


def _contacts(server: FakeAutopilot, _: Any, bookmark: str | None = None) -> Answer:
    return Answer(200, server.account.page(bookmark, overlap=server.overlap))


def _group_contacts(server: FakeAutopilot, _: Any, group: str, bookmark: str | None = None) -> Answer:
    if not server.account.is_group(group):
        return _error(404, "List could not be found.")
    return Answer(200, server.account.page(bookmark, group, server.overlap))


def _contact(server: FakeAutopilot, _: Any, who: str) -> Answer:
    return _about(server, who, dict)


def _upsert(server: FakeAutopilot, body: Any) -> Answer:
    contact = body.get("contact") if isinstance(body, dict) else None
    if not isinstance(contact, dict) or not _writable(contact):
        return _error(400, "Invalid contact provided.")
    return Answer(200, {"contact_id": server.account.upsert(contact)})


def _upsert_many(server: FakeAutopilot, body: Any) -> Answer:
    contacts = body.get("contacts") if isinstance(body, dict) else None
    if not isinstance(contacts, list) or not contacts:
        return _error(400, "No contacts provided.")
    if len(contacts) > MOST_CONTACTS:
        return _error(400, f"A maximum of {MOST_CONTACTS} contacts can be provided.")
    if not all(isinstance(contact, dict) and _writable(contact) for contact in contacts):
        return _error(400, "Invalid contact provided.")
    ids = [server.account.upsert(contact) for contact in contacts]
    emails = {
        contact["Email"]: contact_id for contact, contact_id in zip(contacts, ids, strict=True) if "Email" in contact
    }
    return Answer(200, {"contact_ids": ids, "email_contact_map": emails})


def _unsubscribe(server: FakeAutopilot, _: Any, who: str) -> Answer:
    return _about(server, who, lambda contact: server.account.change(contact["contact_id"], unsubscribed=True))


def _delete(server: FakeAutopilot, _: Any, who: str) -> Answer:
    return _about(server, who, lambda contact: server.account.delete(contact["contact_id"]))


def _custom_fields(server: FakeAutopilot, _: Any) -> Answer:
    return Answer(200, [{"name": name, "fieldType": kind, "kind": name} for name, kind in server.account.fields])


def _lists(server: FakeAutopilot, _: Any) -> Answer:
    return Answer(200, {"lists": [{"list_id": key, "title": title} for key, title in server.account.lists.items()]})


def _create_list(server: FakeAutopilot, body: Any) -> Answer:
    name = body.get("name") if isinstance(body, dict) else None
    if not isinstance(name, str) or not name:
        return _error(400, "No name provided.")
    if name in server.account.lists.values():
        return _error(409, "A list with this name already exists.")
    return Answer(200, {"list_id": server.account.create_list(name)})


def _on_list(server: FakeAutopilot, _: Any, list_id: str, who: str) -> Answer:
    contact = server.account.find(who)
    return Answer(200, {}) if contact and list_id in contact.get("lists", []) else Answer(404)


def _put_on_list(on: bool) -> Callable[..., Answer]:
    def answer(server: FakeAutopilot, _: Any, list_id: str, who: str) -> Answer:
        if list_id not in server.account.lists or not server.account.find(who):
            return Answer(404)
        server.account.put_on_list(list_id, who, on)
        return Answer(200, {})

    return answer


def _segments(_: FakeAutopilot, __: Any) -> Answer:
    return Answer(200, {"segments": [{"segment_id": key, "title": title} for key, (title, ___) in SEGMENTS.items()]})


def _triggers(_: FakeAutopilot, __: Any) -> Answer:
    return Answer(200, {"triggers": TRIGGERS})


def _trigger(server: FakeAutopilot, _: Any, trigger: str, who: str) -> Answer:
    if trigger not in [known["trigger_id"] for known in TRIGGERS]:
        return _error(404, "Trigger could not be found.")
    return _about(server, who, lambda contact: server.account.triggered.append((trigger, contact["contact_id"])))


def _eject(server: FakeAutopilot, _: Any, journey: str, who: str) -> Answer:
    return _about(server, who, lambda contact: server.account.ejected.append((journey, contact["contact_id"])))


def _hooks(server: FakeAutopilot, _: Any) -> Answer:
    return Answer(200, {"hooks": list(server.account.hooks.values())})


def _add_hook(server: FakeAutopilot, body: Any) -> Answer:
    if not isinstance(body, dict) or body.get("event") not in HOOKS or not body.get("target_url"):
        return _error(400, "Invalid hook provided.")
    hook_id = f"hook_{len(server.account.hooks) + 1:04d}"
    server.account.hooks[hook_id] = {"hook_id": hook_id} | body
    return Answer(200, {"hook_id": hook_id})


def _delete_hook(server: FakeAutopilot, _: Any, hook_id: str) -> Answer:
    return Answer(200, {}) if server.account.hooks.pop(hook_id, None) else _error(404, "Hook could not be found.")


HOOKS = (
    "contact_added",
    "contact_updated",
    "contact_unsubscribed",
    "contact_added_to_list",
    "contact_removed_from_list",
    "contact_entered_segment",
    "contact_left_segment",
)
# In order: `contact/{}` must not take what `contacts/custom_fields` means.
ROUTES: tuple[tuple[str, str, Callable[..., Answer]], ...] = (
    ("GET", "account", _account),
    ("GET", "contacts/custom_fields", _custom_fields),
    ("GET", "contacts", _contacts),
    ("GET", "contacts/{}", _contacts),
    ("POST", "contacts", _upsert_many),
    ("POST", "contact", _upsert),
    ("GET", "contact/{}", _contact),
    ("DELETE", "contact/{}", _delete),
    ("POST", "contact/{}/unsubscribe", _unsubscribe),
    ("GET", "lists", _lists),
    ("POST", "list", _create_list),
    ("GET", "list/{}/contacts", _group_contacts),
    ("GET", "list/{}/contacts/{}", _group_contacts),
    ("GET", "list/{}/contact/{}", _on_list),
    ("POST", "list/{}/contact/{}", _put_on_list(True)),
    ("DELETE", "list/{}/contact/{}", _put_on_list(False)),
    ("GET", "smart_segments", _segments),
    ("GET", "smart_segments/{}/contacts", _group_contacts),
    ("GET", "smart_segments/{}/contacts/{}", _group_contacts),
    ("GET", "triggers", _triggers),
    ("POST", "trigger/{}/contact/{}", _trigger),
    ("DELETE", "journey/{}/contact/{}", _eject),
    ("POST", "hook", _add_hook),
    ("GET", "hooks", _hooks),
    ("DELETE", "hook/{}", _delete_hook),
)


def _matched(pattern: str, parts: tuple[str, ...]) -> list[str] | None:
    """The parts that stand for `{}`; None where the path is another one."""
    names = pattern.split("/")
    if len(names) != len(parts) or any(name not in ("{}", part) for name, part in zip(names, parts, strict=True)):
        return None
    return [part for name, part in zip(names, parts, strict=True) if name == "{}"]


def _about(server: FakeAutopilot, who: str, act: Callable[[dict[str, Any]], Any]) -> Answer:
    if "@" not in who and not who.startswith("person_"):
        return _error(400, "Invalid contact_id_or_email value provided.")
    contact = server.account.find(who)
    return Answer(200, act(contact) or {}) if contact else _error(404, "Contact could not be found.")


def _writable(contact: dict[str, Any]) -> bool:
    emails = [contact[key] for key in ("Email", "_NewEmail") if key in contact]
    return all(isinstance(email, str) and re.fullmatch(r"[^@\s]+@[^@\s]+", email) for email in emails)


def _error(status: int, message: str) -> Answer:
    return Answer(status, {"error": HTTPStatus(status).phrase, "message": message})


# ---- HTTP ----------------------------------------------------------------------------------------------------------


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for them
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], fake: FakeAutopilot) -> None:
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
        """Ends kept connections, whose threads would wait for another request."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: Any) -> None:
        """The requests are recorded, not printed."""

    def handle(self) -> None:
        with suppress(ConnectionError):  # clients that go away are expected
            super().handle()

    def _handle(self) -> None:
        at = time.monotonic()
        fake = self.server.fake
        path = self.path.removeprefix("/v1")
        fault = fake.fault(self.command, path.partition("?")[0])
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, path, headers, _parsed(content), at)
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
        """Ends the connection by a reset, as a server does that crashed."""
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
