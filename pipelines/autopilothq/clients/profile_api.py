"""Segment's Profile API (spec/profile-api.md): the events of one person at a time."""

import time
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import httpx

from ..errors import InvalidSetting, NotFound, UnexpectedResponse
from ..segment.json_text import DECODER, JsonNumber, JsonObject, to_json
from .http import MAX_ATTEMPTS, TIMEOUT, ApiKey, HttpClient, escape, path_of

BASE_URLS = {"us": "https://profiles.segment.com/v1", "eu": "https://profiles.euw1.segment.com/v1"}
REQUESTS_PER_SECOND = 50.0
EVENTS_PER_PAGE = 100  # the most that the API gives
ID_TYPES = ("email", "user_id", "anonymous_id")


class ProfileApi:
    """The people of a space. Threads may share it; every instance with one token shares one pace (`http.Pace`).

    `setting` is the setting that the token came from, which errors name. `allow_http` lets the token go over plain
    http to another machine. Raises `http.ApiError`s.

    Example: `with Profiles(token, "spa_1") as space: list(space.events("email:a@b.c", ["Email Opened"]))`.
    """

    def __init__(
        self,
        token: str,
        space: str,
        *,
        base_url: str = BASE_URLS["us"],
        requests_per_second: float = REQUESTS_PER_SECOND,
        timeout: float = TIMEOUT,
        tries: int = MAX_ATTEMPTS,
        allow_http: bool = False,
        setting: str = "sources.autopilothq.profiles.token",
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        key = ApiKey.basic(token, setting)
        self._space = space.strip()
        if self._space in ("", ".", ".."):
            raise InvalidSetting(f"{key.beside('space')} must be the id of a space of Segment Unify, got {space!r}")
        self._http = HttpClient(
            base_url,
            key,
            requests_per_second=requests_per_second,
            timeout=timeout,
            tries=tries,
            allow_http=allow_http,
            transport=transport,
            sleep=sleep,
        )

    def __repr__(self) -> str:
        return f"Profiles({self._http!r}, {self._space!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def events(self, person: str, names: Collection[str], start: datetime | None = None) -> Iterator[list[Any]]:
        """The person's events of these names, page by page, the oldest first; none for a person who is not known.

        `person` is like `email:thomas@example.com`, in lower case. Events are as they are spelt (`messages.DECODER`)
        and need not be objects. `start` is the time of the first one; the API has those of 14 days.
        """
        path = ["spaces", self._space, "collections", "users", "profiles", escape(person), "events"]
        params = {"include": ",".join(names), "sort": "asc", "limit": str(EVENTS_PER_PAGE)}
        if start is not None:
            params["start"] = start.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        seen: set[str] = set()
        while True:
            try:
                answer = self._http.request("GET", path, params=params, decoder=DECODER)
            except NotFound:
                if seen:
                    raise
                return
            events, cursor = self._page(path, answer)
            if cursor in seen:
                text = f"cursor {cursor!r} came before; stopped, because the pages would never end"
                raise self._bad(path, answer, f" (page {len(seen) + 1}): {text}")
            yield events
            if cursor is None:
                return
            seen.add(cursor)
            params["next"] = cursor

    def _page(self, path: list[str], answer: Any) -> tuple[list[Any], str | None]:
        """A page's events, and the cursor of the next page."""
        events = answer.value("data") if isinstance(answer, JsonObject) else None
        if not isinstance(events, list) or isinstance(events, JsonObject):
            raise self._bad(path, answer, f": expected an object with a list of data, got {_kind(answer)}")
        cursor = answer.value("cursor")
        if cursor is not None and not isinstance(cursor, JsonObject):
            raise self._bad(path, answer, f": expected a cursor that is an object, got {_kind(cursor)}")
        more, following = answer.value("cursor", "has_more"), answer.value("cursor", "next")
        if more is not None and not isinstance(more, bool):
            raise self._bad(path, answer, f": expected has_more to be true or false, got {_kind(more)}")
        if not more:
            return events, None
        if not isinstance(following, str) or isinstance(following, JsonNumber) or not following:
            raise self._bad(path, answer, f": expected the cursor of the next page, got {_kind(following)}")
        return events, str(following)

    def _bad(self, path: list[str], answer: Any, what: str) -> UnexpectedResponse:
        shown = path_of(path)
        bad = UnexpectedResponse(f"GET {shown}{what}{self._http.request_id}", method="GET", path=shown, status=200)
        bad.content = self._http.masked(to_json(answer))
        return bad


def _kind(value: Any) -> str:
    """What came, without what is in it: it may be personal data."""
    if isinstance(value, JsonObject):
        return f"an object with {', '.join(sorted(key for key, _ in value)[:5])}" if value else "an empty object"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    return "nothing" if value is None else to_json(value)[:60]
