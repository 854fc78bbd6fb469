"""A client of Segment's tracking API, and of APIs like it: sends messages in batches (docs/contract/forward.md)."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import httpx

from .http import HttpClient
from .settings import ApiSettings
from .urls import path_of

BATCH_URL = "https://api.segment.io/v1/batch"
BATCH_REQUESTS_PER_SECOND = 10.0  # of BATCH_MESSAGES each; Segment accepts no more from a workspace
BATCH_MESSAGES = 100  # messages of a batch, as in Segment's own libraries; the API accepts 2,500
REQUEST_BYTES = 475_000  # bytes of a batch; the API accepts 500 KB
MESSAGE_BYTES = 32_768
KILL_POINT_BATCH_SENT = f"{__name__}:SegmentApi.send"  # for tests/faults


@dataclass(frozen=True, kw_only=True)
class SegmentApiSettings(ApiSettings):
    """The settings of an API that accepts Segment's messages; `base_url` is the whole URL that batches are posted to.

    If it has no path, the path is `/v1/batch`. `options` has the command-line option that gave a setting, by the
    setting's name. Example: `SegmentApiSettings(api_key=write_key)`.
    """

    setting: str = "destination.segment.write_key"
    base_url: str = BATCH_URL
    requests_per_second: float = BATCH_REQUESTS_PER_SECOND
    options: Mapping[str, str] = field(default_factory=dict)

    def name_of(self, name: str) -> str:
        """Returns the name under which the user gave a setting: its command-line option, or else its full name."""
        return self.options.get(name) or super().name_of(name)


class SegmentApi(HttpClient):
    """Sends messages to a source in Segment, or in a product like it. The write key is the user name of HTTP Basic.

    Example: `with SegmentApi(SegmentApiSettings(api_key=key)) as source: source.send([b'{"type":"track",…}'])`.
    """

    def __init__(self, settings: ApiSettings) -> None:
        root, self._path = _split(settings.base_url)
        self.url = f"{root}{path_of(self._path)}"
        self.target = f"{self.url} {_fingerprint(settings.api_key)}"
        super().__init__(replace(settings, base_url=root))

    def send(self, messages: Sequence[bytes]) -> None:
        """Sends messages, each a JSON object, in one request.

        The request is idempotent, because the API deduplicates messages by their `messageId`. It has no `sentAt`,
        because the API would use that to correct the `timestamp` of each message. Raises ApiErrors.
        """
        self.request("POST", self._path, body=batch_body(messages), wants_json=False)


def batch_body(messages: Sequence[bytes]) -> bytes:
    """Returns the body of the request that sends messages."""
    return b'{"batch":[' + b",".join(messages) + b"]}"


def _fingerprint(write_key: str) -> str:
    """Returns eight hexadecimal digits that identify a write key without revealing it."""
    return hashlib.sha256(b"autopilothq write key\n" + write_key.strip().encode()).hexdigest()[:8]


def _split(url: str) -> tuple[str, list[str]]:
    """Returns the root of a URL and the parts of its path; an invalid URL is returned whole, and refused later."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return url, []
    if parsed.query or parsed.fragment or not parsed.host:
        return url, []
    parts = [part for part in parsed.path.split("/") if part]
    return str(parsed.copy_with(path="")).rstrip("/"), parts or ["v1", "batch"]
