"""Runs the receiver: its processes, its metrics, and what goes on beside them."""

import functools
import logging
import os
import resource
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

from .. import private
from ..errors import InvalidSetting
from .settings import ReceiveSettings, guard, guarded_endpoints

HEADER_TIME = 10.0  # seconds for the head of a request to come
MOST_HEAD = 64 << 10  # bytes of it
STOP_TIME = 7  # seconds for requests to finish; the writer needs the rest of ten
BACKLOG = 4096
CONNECTIONS = 65_536

_log = logging.getLogger(__name__)


class Protocol(HttpToolsProtocol):
    """uvicorn's, which closes connections whose heads come too slowly or are too large."""

    def connection_made(self, transport: Any) -> None:
        """Begins to wait for a head."""
        super().connection_made(transport)
        self._head = 0
        self._in_head = True
        self._timer = self.loop.call_later(HEADER_TIME, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Takes what came, unless a head is too large."""
        if self._in_head:
            self._head += len(data)
        super().data_received(data)
        if self._in_head and self._head > MOST_HEAD:
            self._close(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        """Begins a request."""
        super().on_message_begin()
        if not self._in_head:
            self._in_head, self._head = True, 0
            self._timer = self.loop.call_later(HEADER_TIME, self._give_up)

    def on_headers_complete(self) -> None:
        """Has the head of a request."""
        self._in_head = False
        self._timer.cancel()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends."""
        self._timer.cancel()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        if self._in_head and not self.transport.is_closing():
            self._close(b"408 Request Timeout")

    def _close(self, status: bytes) -> None:
        self.transport.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()


def serve(settings: ReceiveSettings, prepare: Callable[[], object], listening: Callable[[str], object]) -> None:
    """Receives until SIGTERM or SIGINT. Raises InvalidSetting where nobody says who may send.

    `prepare` is called in each process before it begins, and must be a function that can be pickled. `listening` gets
    the URL as soon as senders can connect.
    """
    check(settings)
    private.folder(Path(settings.folder))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(CONNECTIONS, hard), hard))
    with tempfile.TemporaryDirectory() as shared, _listening(settings) as listener:
        if settings.metrics:
            # Before the metrics are made: the processes add up theirs in this folder.
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared
            _serve_metrics(*settings.metrics)
        config = uvicorn.Config(
            functools.partial(make_app, settings, prepare), factory=True, http=Protocol, ws="none", lifespan="on",
            access_log=False, log_config=None, server_header=False, backlog=BACKLOG, workers=settings.workers,
            timeout_graceful_shutdown=STOP_TIME,
        )  # fmt: skip
        host, port = listener.getsockname()[:2]
        listening(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        # uvicorn sends itself the signal again at its end.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        if settings.workers == 1:
            uvicorn.Server(config).run(sockets=[listener])
        else:
            Multiprocess(config, [listener]).run()


def check(settings: ReceiveSettings) -> None:
    """Raises InvalidSetting where other machines reach the receiver and nothing says who may send, or wrongly."""
    for section in (endpoints := guarded_endpoints()):
        guard(*section.split(".", maxsplit=1))
    if not settings.is_local and not endpoints:
        raise InvalidSetting(
            f"Expected settings of who may send, because other machines reach {settings.host}, but there are none.\n"
            'Set for instance receive.v1.write_keys, or [receive.segment.NAME] signature = "…".'
        )


def make_app(settings: ReceiveSettings, prepare: Callable[[], object]) -> Any:
    """Returns the application of one process; uvicorn calls it there."""
    prepare()
    from .app import App
    from .upload import uploading

    return App(settings, uploading(settings))


def _listening(settings: ReceiveSettings) -> socket.socket:
    """Returns the listening socket, which all processes share."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)


def _serve_metrics(host: str, port: int) -> None:
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    start_http_server(port, host, registry)
