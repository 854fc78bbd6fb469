"""An API that takes Segment's batches, and can refuse them, over real HTTP."""

from base64 import b64encode
from typing import Any

from fake_autopilot.http import Answer, Fake, Request

KEY = "wk-0123456789abcdef"


class FakeSegment(Fake):
    """It keeps the messages that it takes, in `messages`, and the sizes of all requests, in `sizes`.

    `answers` are statuses and headers of the next requests. A batch with an id of `bad` is refused with 400, one with
    an id of `poison` makes a 500.
    """

    root = ""  # the whole path is looked at

    def __init__(self) -> None:
        super().__init__(host="127.0.0.1", port=0, rate=None, latency=0)
        self.messages: list[dict[str, Any]] = []
        self.sizes: list[int] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.bad: set[str] = set()
        self.poison: set[str] = set()
        self.url = f"{self.origin}/v1/batch"

    def ids(self) -> list[str]:
        """The ids of the messages that it took."""
        return [str(message["messageId"]) for message in self.messages]

    @property
    def bodies(self) -> list[bytes]:
        """The bodies of all requests."""
        return [request.content for request in self.requests]

    def answer(self, request: Request) -> Answer:
        """What the API says."""
        status, headers = self._take(request)
        if status == 200:
            return Answer(200, {"success": True}, headers)
        return Answer(status, {"code": "invalid_request", "message": "malformed batch"}, headers)

    def _take(self, request: Request) -> tuple[int, dict[str, str]]:
        batch = request.body["batch"]
        self.sizes.append(len(batch))
        if (request.method, request.path) != ("POST", "/v1/batch"):
            return 404, {}
        if request.headers.get("authorization") != "Basic " + b64encode(f"{KEY}:".encode()).decode():
            return 401, {}
        if self.answers:
            status, headers = self.answers.pop(0)
            if status != 200:
                return status, headers
        ids = {message["messageId"] for message in batch}
        if ids & self.poison:
            return 500, {}
        if ids & self.bad or len(request.content) > 500_000:
            return 400, {}
        self.messages += batch
        return 200, {}
