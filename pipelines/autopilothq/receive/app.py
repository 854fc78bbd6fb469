"""The receiver as an ASGI application: reads a request, checks it, has its messages written, and answers.

Senders discard messages after a 4xx, so failures of the receiver itself are always a 503 with `Retry-After`
(docs/contract/push.md#answers).
"""

import asyncio
import functools
import json
import logging
import re
import time
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from . import auth, metrics, settings
from .endpoints import MOST_ENDPOINTS, Endpoints
from .messages import ArchiveLines, Arrival, Body, InvalidJson, TooLarge, kept_line, parse_body
from .room import NoRoom, Room
from .routes import Endpoint, Route, find_route
from .settings import Guard, ReceiveSettings
from .writer import Writer

Scope = MutableMapping[str, Any]
AsgiMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
Send = Callable[[AsgiMessage], Awaitable[None]]

_ZEROS = re.compile(rb"\0*")
GZIP_PIECE = 1 << 12  # bytes; small, because after each of many tiny members the rest of a piece is copied
LARGE = 1 << 18  # bytes; a larger body is parsed in a thread, so that other requests need not wait
OLDEST_EXTRA = 60.0  # seconds beyond `rotate_seconds` that a file may stay unpublished before `/readyz` fails
SUCCESS = b'{"success": true}'
METHODS = ("POST", "PUT", "PATCH")
MAX_AGE = b"86400"
IDLE_REST = 1.0  # seconds to wait for the next piece of a body that is too large; without one, the rest is not read
REST_TIME = 10.0  # seconds that reading the rest of such a body may take

_log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """The answer to a request."""

    status: int
    body: bytes = SUCCESS
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Refused(Exception):
    """The request is not accepted; `answer` is the answer to it."""

    def __init__(self, status: int, code: str, message: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(message)
        self.answer = Answer(status, json.dumps({"code": code, "message": message}).encode(), headers)


class App:
    """The application of one process. Its lifespan starts and stops the writer."""

    def __init__(self, config: ReceiveSettings, published: Callable[[Path], None] | None = None) -> None:
        self._config = config
        self._writer = Writer(config, published)
        self._bodies = Room(config.max_pending)
        self._endpoints = Endpoints(config)
        self._stopping = False
        self._refusals = _Refusals()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection of the ASGI protocol."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._respond(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        measuring: asyncio.Task[None] | None = None
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._writer.start()
                measuring = asyncio.create_task(self._measure())
                await send({"type": "lifespan.startup.complete"})
            else:
                if measuring:
                    measuring.cancel()
                self._stopping = True
                await self._writer.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _measure(self) -> None:
        while True:
            metrics.OLDEST.set(self._writer.oldest())
            await asyncio.sleep(1)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        found = find_route(scope["path"])
        try:
            answer = await self._answer(scope, headers, found, receive)
        except Refused as refused:
            answer = refused.answer
            self._refusals.log_lost(found, answer.status)
        except Exception:  # noqa: BLE001 - any other error is a failure of the receiver itself
            _log.exception("A request failed; its sender is asked to try again")
            answer = Refused(503, "unavailable", "The receiver failed.", (b"retry-after", b"5")).answer
        if found:
            # Unknown endpoints have one counter, because senders can make up names.
            metrics.requests(found[1].folder if found[1] in self._endpoints else "other", answer.status).inc()
        cors = _cors(headers.get(b"origin")) if found else ()
        more = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer.body))]
        if answer.status == 413:
            more.append((b"connection", b"close"))  # the rest of the body may not be read
        await send({
            "type": "http.response.start", "status": answer.status, "headers": [*more, *answer.headers, *cors],
        })  # fmt: skip
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(
        self, scope: Scope, headers: auth.Headers, found: tuple[Route, Endpoint] | None, receive: Receive
    ) -> Answer:
        method, path = scope["method"], scope["path"]
        if found is None:
            return self._health(path)
        if method == "OPTIONS":
            return Answer(200, b"")
        if method not in METHODS:
            raise Refused(405, "method_not_allowed", "Expected POST.", (b"allow", b", ".join(map(str.encode, METHODS))))
        route, endpoint = found
        if route.key_in_query:
            headers = auth.with_query_key(headers, scope["query_string"])
        guard = _guard(self._endpoints, endpoint, auth.is_direct(headers))
        body, held = await _body(headers, receive, self._config.max_body, self._bodies)
        try:
            started = time.perf_counter()
            if len(body) > LARGE or b"content-encoding" in headers:
                made = await asyncio.to_thread(self._lines, route, endpoint, guard, headers, body)
            else:
                made = self._lines(route, endpoint, guard, headers, body)
            await self._writer.write(endpoint.folder, made.data, made.lines)
        except NoRoom as error:
            raise _unavailable(str(error)) from None
        finally:
            if held:
                self._bodies.give(held)
        metrics.MESSAGES.labels(endpoint.folder).inc(made.lines)
        metrics.SECONDS_TAKEN.observe(time.perf_counter() - started)
        if made.deletions:
            metrics.DELETIONS.labels(endpoint.folder).inc(made.deletions)
            _log.warning(
                "%s asks to delete a person; the message is kept, and nothing is deleted. To do so: autopilothq forget",
                endpoint.folder,
            )
        return Answer(200)

    def _lines(
        self, route: Route, endpoint: Endpoint, guard: Guard, headers: auth.Headers, body: bytes
    ) -> ArchiveLines:
        """Returns the lines of a body. Raises Refused if its sender is not allowed, or if it cannot be read."""
        read, unreadable = Body([], {}, b""), ""  # a str: an exception would keep the body until garbage collection
        try:
            body = inflate_body(body, headers, self._config.max_body)
            read = parse_body(body)
        except InvalidJson as error:
            unreadable = f"Expected JSON. {error}"
        except Refused as refused:
            if not route.keeps_all or refused.answer.status == 413:
                raise
            unreadable = str(refused)
        self._check(endpoint, guard, headers, body, read)
        if unreadable:
            if route.keeps_all:
                return kept_line(body)
            raise Refused(400, "invalid_json", unreadable)
        if route.adapter is None:
            return ArchiveLines()
        try:
            return route.adapter(read, Arrival(_now(), route.type_of, endpoint.name))
        except TooLarge as error:
            raise Refused(413, "too_large", str(error)) from None

    def _check(self, endpoint: Endpoint, guard: Guard, headers: auth.Headers, body: bytes, read: Body) -> None:
        if not guard or auth.is_allowed(guard, headers, body, read.first, read.write_key):
            return
        metrics.UNAUTHORIZED.labels(endpoint.folder).inc()
        self._refusals.log_unauthorized(endpoint)
        raise Refused(401, "unauthorized", "The request lacks a secret of this endpoint, or has a wrong one.")

    def _health(self, path: str) -> Answer:
        if path not in ("/healthz", "/readyz"):
            raise Refused(404, "not_found", "There is no such path.")
        problems = self._problems() if path == "/readyz" else []
        if problems:
            raise Refused(503, "not_ready", " ".join(problems), (b"retry-after", b"5"))
        return Answer(200)

    def _problems(self) -> list[str]:
        oldest, failure = self._writer.oldest(), self._writer.failure()
        is_late = oldest > self._config.rotate_seconds + OLDEST_EXTRA
        problems = {
            "The receiver is stopping.": self._stopping,
            f"The last sync failed: {failure}.": failure is not None,
            "The disk is nearly full.": not self._writer.has_space(),
            f"A file has not been published for {oldest:.0f} seconds.": is_late,
        }
        return [problem for problem, holds in problems.items() if holds]


def _now() -> datetime:
    """Returns the current time, truncated to milliseconds like Segment's times."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


class _Refusals:
    """Logs refused requests as errors, at most once in ten seconds for each endpoint."""

    def __init__(self) -> None:
        self._last: dict[Endpoint, float] = {}

    def log_lost(self, found: tuple[Route, Endpoint] | None, status: int) -> None:
        """Logs a request to an unknown endpoint, or with an unsupported method, if its sender does not retry.

        Senders can make up names, so all endpoints of a kind share the limit.
        """
        if found and found[0].keeps_all and status in (404, 405) and self._is_due(Endpoint(found[0].kind, str(status))):
            why = "it has no settings" if status == 404 else "it accepts only POST"
            _log.error("%d for %s: what was sent is lost, because %s", status, found[1].folder, why)

    def log_unauthorized(self, endpoint: Endpoint) -> None:
        """Logs a request that lacks a secret of its endpoint."""
        if self._is_due(endpoint):
            _log.error(
                "401 for %s: what was sent is lost, because senders do not retry after this status. Compare the secrets"
                " of the sender and of [%s]",
                endpoint.folder, ".".join(filter(None, (settings.RECEIVE_SECTION, *endpoint))),
            )  # fmt: skip

    def _is_due(self, endpoint: Endpoint) -> bool:
        now = time.monotonic()
        if now - self._last.get(endpoint, -10.0) < 10 or len(self._last) >= MOST_ENDPOINTS:
            return False
        self._last[endpoint] = now
        return True


async def _body(headers: auth.Headers, receive: Receive, most: int, room: Room) -> tuple[bytes, int]:
    """Returns the body, and how many bytes it reserves in `room`: 0 if it comes in one piece.

    Raises Refused if it is too large or incomplete, or if there is no room for it.
    """
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > most:
        if b"expect" not in headers:
            await _discard_rest(receive)
        raise _too_large(most)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body = message.get("body", b"")
        if len(body) > most:
            raise _too_large(most)
        return body, 0
    return await _body_of_pieces(message, receive, most, room)


async def _body_of_pieces(message: AsgiMessage, receive: Receive, most: int, room: Room) -> tuple[bytes, int]:
    """Returns the body whose first piece is in `message`, and its size, which it reserves in `room`."""
    pieces, size = list[bytes](), 0
    try:
        while True:
            if message["type"] == "http.disconnect":
                raise Refused(408, "incomplete", "The body ended early.")
            piece = message.get("body", b"")
            if size + len(piece) > most:
                if message.get("more_body"):
                    room.give(size)  # to others at once, because the rest may take long
                    pieces, size = [], 0
                    await _discard_rest(receive)
                raise _too_large(most)
            await room.take(len(piece), "Too many large bodies come at once.")
            size += len(piece)
            pieces.append(piece)
            if not message.get("more_body"):
                return b"".join(pieces), size
            message = await receive()
    except NoRoom as error:
        room.give(size)
        raise _unavailable(str(error), (b"connection", b"close")) from None
    except BaseException:
        room.give(size)
        raise


async def _discard_rest(receive: Receive) -> None:
    """Reads the rest of a refused body; otherwise its sender would see a broken connection instead of the answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(REST_TIME):
            more = True
            while more:
                message = await asyncio.wait_for(receive(), IDLE_REST)
                more = message.get("more_body", False)  # absent if the sender has disconnected


def inflate_body(body: bytes, headers: auth.Headers, most: int) -> bytes:
    """Returns the decompressed body. Raises Refused if it is corrupt, or has more than `most` bytes.

    gzip is recognised by its first bytes, because some senders do not name it.
    """
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if not body.startswith(b"\x1f\x8b"):
        if encoding in (b"identity", b"gzip", b"x-gzip", b""):
            return body
        raise Refused(415, "unsupported_encoding", "Expected gzip, or no Content-Encoding.")
    found, at = bytearray(), 0
    while at < len(body):
        member = zlib.decompressobj(16 + zlib.MAX_WBITS)
        while not member.eof:
            if at == len(body):
                raise Refused(400, "invalid_gzip", "The gzip ends early.")
            piece = body[at : at + GZIP_PIECE]
            try:
                found += member.decompress(piece, most + 1 - len(found))
            except zlib.error as error:
                raise Refused(400, "invalid_gzip", f"Expected gzip. {error}") from None
            if len(found) > most:
                raise _too_large(most)
            at += len(piece) - len(member.unused_data)
        at = _ZEROS.match(body, at).end()  # type: ignore[union-attr] # it also matches nothing
    return bytes(found)


def _guard(endpoints: Endpoints, endpoint: Endpoint, direct: bool) -> Guard:
    """Returns the guard of an endpoint. Raises Refused if there is no such endpoint, or if there are too many."""
    try:
        return endpoints.guard(endpoint, direct)
    except LookupError:
        raise Refused(404, "not_found", "There is no such endpoint.") from None
    except NoRoom as error:
        raise _unavailable(str(error)) from None


def _unavailable(message: str, *headers: tuple[bytes, bytes]) -> Refused:
    return Refused(503, "unavailable", message, (b"retry-after", b"5"), *headers)


def _too_large(most: int) -> Refused:
    return Refused(413, "too_large", f"Expected a body of at most {most:,} bytes: [receive] max_body_mb.")


@functools.lru_cache(maxsize=1000)
def _cors(origin: bytes | None) -> tuple[tuple[bytes, bytes], ...]:
    """Returns the CORS headers that let pages of another origin send requests here."""
    if not origin:
        return ()
    return (
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-methods", b"POST, OPTIONS"),
        (b"access-control-allow-headers", b"content-type, authorization"),
        (b"access-control-max-age", MAX_AGE),
        (b"vary", b"Origin"),
    )
