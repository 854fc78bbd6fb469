"""An API that takes Segment's batches, and can refuse them, over real HTTP."""

from base64 import b64encode
from typing import Any

from fake_autopilot.http import Answer, Fake, Request

KEY = "wk-0123456789abcdef"


class FakeSegment(Fake):
    """A fake of such an API. `messages` has the messages that it took, `sizes` the sizes of all batches it got.

    `answers` has the statuses and headers of the next responses. A batch with an id in `bad` gets a 400, one with an id
    in `poison` a 500.
    """

    root = ""  # so that `answer` sees the whole path

    def __init__(self) -> None:
        super().__init__(host="127.0.0.1", port=0, rate=None, latency=0)
        self.messages: list[dict[str, Any]] = []
        self.sizes: list[int] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.bad: set[str] = set()
        self.poison: set[str] = set()
        self.url = f"{self.origin}/v1/batch"

    def ids(self) -> list[str]:
        """Returns the ids of the messages that it took."""
        return [str(message["messageId"]) for message in self.messages]

    @property
    def bodies(self) -> list[bytes]:
        """The bodies of all requests."""
        return [request.content for request in self.requests]

    def answer(self, request: Request) -> Answer:
        """Returns the response to a request."""
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
