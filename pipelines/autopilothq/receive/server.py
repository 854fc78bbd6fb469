"""Runs the receiver: its processes, connections and metrics."""

import asyncio
import errno
import functools
import json
import multiprocessing
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from ..errors import InvalidSetting, RunError
from .files import make_folder
from .request_parser import RequestParser, is_offer
from .settings import ReceiveSettings, check_setting_names, guard, guarded_endpoints, ortto_settings

HEADER_TIME = 10.0  # seconds until the head of a request must be complete
BODY_TIME = 30.0  # seconds until its body must be complete
IDLE_TIME = 75  # seconds between requests; proxies keep their connections for 60, and must not find them closed
MOST_HEAD = 64 << 10  # bytes of a head
MOST_PIPELINED = 100  # requests of a connection that wait for earlier ones
RESERVED_DESCRIPTORS = 400  # for files and other descriptors of the program
SILENT_TIME = 60.0  # seconds after which a process that does not answer is replaced; imports can take half a minute
STOP_TIME = 6  # seconds for requests to finish; the writer needs the rest of ten
BACKLOG = 4096
CONNECTIONS = 65_536


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, which also closes connections that are slow or send too much at once.

    A request that comes in one piece, as nearly all do, needs no timer.
    """

    def connection_made(self, transport: Any) -> None:
        """Starts the timer of the first request's head; refuses the connection if there are too many."""
        super().connection_made(transport)
        self.parser = RequestParser(self)
        self._head = 0
        self._in_head, self._in_body = True, False
        self._timer: asyncio.TimerHandle | None = None
        self._begin_timer()
        if len(self.connections) > _most_connections():
            self._close(b"503 Service Unavailable", "There are too many connections.", b"retry-after: 5\r\n")

    def data_received(self, data: bytes) -> None:
        """Handles the data, and closes the connection if a head is too large."""
        if self._in_head:
            self._head += len(data)
        idle = self.timeout_keep_alive_task
        super().data_received(data)
        if self._in_head and self._head > MOST_HEAD:
            self._close(b"431 Request Header Fields Too Large", f"Expected a head of at most {MOST_HEAD:,} bytes.")
        elif self._in_head or self._in_body:
            self._begin_timer()
        elif idle and self.cycle.response_complete:  # an empty line, not a request
            self.timeout_keep_alive_task = self.loop.call_at(idle.when(), self.timeout_keep_alive_handler)

    def on_message_begin(self) -> None:
        """Notes the beginning of a request."""
        super().on_message_begin()
        if not self._in_head:
            self._in_head, self._head = True, 0

    def on_headers_complete(self) -> None:
        """Stops the timer of the head.

        Raises ValueError, which ends the connection, if too many of its requests wait for earlier ones.
        """
        if is_offer(self.parser):
            return
        self._in_head, self._in_body = False, True
        self._end_timer()
        super().on_headers_complete()
        if len(self.pipeline) > MOST_PIPELINED:
            raise ValueError("too many requests at once")

    def on_message_complete(self) -> None:
        """Stops the timer of the body."""
        if is_offer(self.parser):
            return
        self._in_body = False
        self._end_timer()
        super().on_message_complete()

    def eof_received(self) -> bool:  # type: ignore[override] # asyncio takes True for "keep it open"
        """Keeps the connection open for the answers if the sender ended its side after sending whole requests."""
        if self._in_body or getattr(self.cycle, "response_complete", True):  # None before the first request
            return False
        self._end_timer()
        self.cycle.keep_alive = False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timer."""
        self._end_timer()
        super().connection_lost(exc)

    def _begin_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEADER_TIME if self._in_head else BODY_TIME, self._give_up)

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if self.transport.is_closing():
            return
        if self._in_body and self.cycle.response_started:
            self.transport.close()  # it was answered before its body came
        else:
            what, seconds = ("head", HEADER_TIME) if self._in_head else ("body", BODY_TIME)
            self._close(b"408 Request Timeout", f"The {what} of the request did not come within {seconds:.0f} s.")

    def send_400_response(self, msg: str) -> None:
        """Answers something that is not an HTTP request, and closes the connection."""
        self._close(b"400 Bad Request", msg)

    def _close(self, status: bytes, message: str, header: bytes = b"") -> None:
        code = status.partition(b" ")[2].decode().lower().replace(" ", "_")
        body = json.dumps({"code": code, "message": message}).encode()
        header += b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n" % len(body)
        self.transport.write(b"HTTP/1.1 " + status + b"\r\n" + header + b"\r\n" + body)
        self.transport.close()


@functools.cache
def _most_connections() -> int:
    """Returns how many connections one process accepts: its descriptors, without those reserved for files."""
    return max(10, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED_DESCRIPTORS)


class _Server(uvicorn.Server):
    """uvicorn's server, which calls `stopping` as soon as it is asked to stop."""

    stopping: Callable[[], object]

    def handle_exit(self, *given: Any, **named: Any) -> None:
        """Begins to stop."""
        self.stopping()
        super().handle_exit(*given, **named)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Blocks Ctrl-C in the processes that the block starts: terminals send it to all, but the supervisor stops them."""
    resource_tracker.ensure_running()  # started later, with the first process, it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Processes(Multiprocess):
    """uvicorn's supervisor, which calls `stopping` as soon as it is asked to stop.

    After Ctrl-C it raises KeyboardInterrupt, as the server of a single process does.
    """

    stopping: Callable[[], object]
    interrupted = False

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._answered: dict[int | None, float] = {}

    def init_processes(self) -> None:
        """Starts the processes."""
        with _uninterrupted():
            super().init_processes()

    def keep_subprocess_alive(self) -> None:
        """Replaces processes that ended or hang. Does not wait for answers, so that signals are handled at once."""
        for number, worker in enumerate(self.processes):
            now = time.monotonic()
            if worker.ping(0):
                self._answered[worker.pid] = now
            elif not worker.process.is_alive() or now - self._answered.setdefault(worker.pid, now) > SILENT_TIME:
                worker.kill()
                worker.join()
                self.processes[number] = Process(self.config, self.sockets)
                with _uninterrupted():
                    self.processes[number].start()

    def handle_int(self) -> None:
        """Begins to stop after Ctrl-C."""
        self.interrupted = True
        super().handle_int()

    def terminate_all(self) -> None:
        """Begins to stop."""
        self.stopping()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        super().terminate_all()

    def join_all(self) -> None:
        """Waits for the processes. A second Ctrl-C kills them."""
        try:
            super().join_all()
        except KeyboardInterrupt:
            for worker in self.processes:
                worker.process.kill()
            raise
        if self.interrupted:
            raise KeyboardInterrupt


def serve(
    settings: ReceiveSettings,
    prepare: Callable[[], object],
    listening: Callable[[str], object],
    stopping: Callable[[], object] = lambda: None,
) -> None:
    """Runs the receiver until SIGTERM or SIGINT; after SIGINT, it raises KeyboardInterrupt.

    Raises InvalidSetting as `check` does, and RunError if it cannot listen or cannot write into the folder.

    `prepare` is called in each process before it begins, and must be a function that can be pickled. `listening` gets
    the URL as soon as senders can connect; `stopping` is called as soon as the receiver is asked to stop.
    """
    check(settings)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(CONNECTIONS, hard), hard))
    with _listening(settings) as listener, _metrics(settings):
        _check_folder(Path(settings.folder))  # so that a receiver that cannot listen leaves no folder behind
        config = uvicorn.Config(
            functools.partial(_make_app, settings, prepare), factory=True, http=Protocol, ws="none", lifespan="on",
            access_log=False, log_config=None, server_header=False, backlog=BACKLOG, workers=settings.workers,
            timeout_graceful_shutdown=STOP_TIME, timeout_keep_alive=IDLE_TIME, proxy_headers=False,
        )  # fmt: skip
        # uvicorn raises the signal again when it ends, and a program that reads the URL may send it before uvicorn
        # starts.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        host, port = listener.getsockname()[:2]
        listening(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        server: _Server | _Processes
        if settings.workers == 1:
            signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
            server = _Server(config)
            server.stopping = stopping
            server.run([listener])
        else:
            server = _Processes(config, [listener])
            server.stopping = stopping
            server.run()


def check(settings: ReceiveSettings) -> None:
    """Raises InvalidSetting if secrets are invalid, or if other machines can reach a receiver without any secret.

    Also raises it for unknown or invalid settings of endpoints, and for a URL to which nothing can be uploaded.
    """
    if settings.upload is not None:
        from .upload import check_upload

        check_upload(settings.upload)
    check_setting_names()
    for section in (endpoints := guarded_endpoints()):
        kind, _, name = section.partition(".")
        guard(kind, name)
        if kind == "ortto":
            ortto_settings(name)
    if not settings.is_local and not endpoints:
        raise InvalidSetting(
            f"Expected settings that say who may send, as other machines can reach {settings.host}, but there are"
            ' none.\nSet for instance receive.v1.write_keys, or [receive.segment.NAME] signature = "…".'
        )


def _check_folder(folder: Path) -> None:
    """Creates the folder if it is missing. Raises RunError if it is not writable; a full disk is accepted."""
    try:
        try:
            make_folder(folder)
        except PermissionError:
            os.sync()  # nothing less syncs the names in a folder that may be written to, but not read
            make_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f"Cannot write to {folder}: {error.strerror}.") from error


def _make_app(settings: ReceiveSettings, prepare: Callable[[], object]) -> Any:
    """Returns the application of one process; uvicorn calls this function in that process."""
    prepare()
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_follow, args=(parent,), name="parent", daemon=True).start()
    from . import metrics
    from .app import App
    from .routes import Endpoint
    from .upload import uploading

    for section in guarded_endpoints():
        kind, _, name = section.partition(".")
        metrics.begin(Endpoint(kind, name).folder)
    return App(settings, uploading(settings))


def _follow(parent: BaseProcess) -> None:
    """Stops this process when its parent ends, because nothing else would."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _listening(settings: ReceiveSettings) -> socket.socket:
    """Returns the listening socket, which all processes share."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with _explained("--listen", settings.host, settings.port):
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)


@contextmanager
def _explained(option: str, host: str, port: int) -> Iterator[None]:
    """Turns an OSError into a RunError that names the address."""
    try:
        yield
    except OSError as error:
        choose = "Stop the program that uses it, or choose" if error.errno == errno.EADDRINUSE else "Choose"
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise RunError(
            f"Expected to listen on {host}:{port}, but the system reports: {why or error}.\n"
            f"{choose} another address with {option}."
        ) from error


@contextmanager
def _metrics(settings: ReceiveSettings) -> Iterator[None]:
    """Serves metrics while the block runs, if an address for them is set."""
    if not settings.metrics:
        yield
        return
    with tempfile.TemporaryDirectory() as shared:  # stays behind if the process is killed
        # Set before the metrics are created: the processes share their values in this folder.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared
        _serve_metrics(*settings.metrics)
        yield


def _serve_metrics(host: str, port: int) -> None:
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    with _explained("--metrics", host, port):
        start_http_server(port, host, registry)
