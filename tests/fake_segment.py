"""An API that takes Segment's batches, and can refuse them, over real HTTP."""

import json
import threading
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

KEY = "wk-0123456789abcdef"


class FakeSegment:
    """It keeps the messages that it takes, in `messages`, and the sizes of all requests, in `sizes`.

    `answers` are statuses and headers of the next requests. A batch with an id of `bad` is refused with 400, one with
    an id of `poison` makes a 500.
    """

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.sizes: list[int] = []
        self.bodies: list[bytes] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.bad: set[str] = set()
        self.poison: set[str] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"fake": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/batch"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def ids(self) -> list[str]:
        """The ids of the messages that it took."""
        return [str(message["messageId"]) for message in self.messages]

    def answer(self, path: str, key: str | None, body: bytes) -> tuple[int, dict[str, str]]:
        """Takes a request, and returns the status and the headers of its answer."""
        self.bodies.append(body)
        batch = json.loads(body)["batch"]
        self.sizes.append(len(batch))
        if path != "/v1/batch":
            return 404, {}
        if key != "Basic " + b64encode(f"{KEY}:".encode()).decode():
            return 401, {}
        if self.answers:
            status, headers = self.answers.pop(0)
            if status != 200:
                return status, headers
        ids = {message["messageId"] for message in batch}
        if ids & self.poison:
            return 500, {}
        if ids & self.bad or len(body) > 500_000:
            return 400, {}
        self.messages += batch
        return 200, {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeSegment

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, headers = self.fake.answer(self.path, self.headers.get("Authorization"), body)
        text = b'{"success": true}' if status == 200 else b'{"code": "invalid_request", "message": "malformed batch"}'
        self.send_response(status)
        for name, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(text))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Logs nothing."""
