"""A client of Segment's Profile API (docs/contract/profile-api.md), which reads the events of one person at a time."""

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from .. import masking
from ..errors import InvalidSetting, NotFound, UnexpectedResponse
from ..segment.json_text import JsonObject, to_json
from ..utc import format_time
from .decode import JsonValue, TooDeep, as_array, as_text, describe, value_at
from .http import HttpClient
from .settings import ApiSettings
from .urls import escape, path_of

BASE_URLS = {"us": "https://profiles.segment.com/v1", "eu": "https://profiles.euw1.segment.com/v1"}
PROFILE_REQUESTS_PER_SECOND = 50.0
EVENTS_PER_PAGE = 100  # the API's maximum
ID_TYPES = ("email", "user_id", "anonymous_id")


@dataclass(frozen=True, kw_only=True)
class ProfileApiSettings(ApiSettings):
    """The settings of the Profile API. `space` is the id of the space of Segment Unify.

    Example: `ProfileApiSettings(api_key=token, space="spa_1", base_url=BASE_URLS["eu"])`.
    """

    ALSO_BY_403: ClassVar[str | None] = "space"

    space: str
    setting: str = "sources.autopilothq.profiles.token"
    base_url: str = BASE_URLS["us"]
    requests_per_second: float = PROFILE_REQUESTS_PER_SECOND


class ProfileApi(HttpClient):
    """A client of one space. It is thread-safe; all instances with the same token share one rate limit (`pace.Pace`).

    Values are as `decode.decode_json` returns them. Methods raise ApiErrors.

    Example: `with ProfileApi(settings) as space: list(space.events("email:a@b.c", ["Email Opened"]))`.
    """

    def __init__(self, settings: ProfileApiSettings, *, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__(settings, sleep=sleep)
        self._space = settings.space.strip()
        if self._space in ("", ".", ".."):
            name = settings.name_of("space")
            raise InvalidSetting(f"{name} must be the id of a space of Segment Unify, got {settings.space!r}")

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, {self._space!r})"

    def events(self, person: str, names: Collection[str], start: datetime | None = None) -> Iterator[list[Any]]:
        """Yields a person's events with these names, oldest first, page by page. Yields nothing for an unknown person.

        `person` is like `email:thomas@example.com`, in lower case. Events need not be objects. `start` is the earliest
        time of an event; the API has the events of the last 14 days.
        """
        path = ["spaces", self._space, "collections", "users", "profiles", escape(person), "events"]
        params = {"include": ",".join(names), "sort": "asc", "limit": str(EVENTS_PER_PAGE)}
        if start is not None:
            params["start"] = format_time(start)
        seen: set[str] = set()
        while True:
            try:
                answer = self.request("GET", path, params=params)
            except NotFound:
                if seen:
                    raise
                return
            except UnexpectedResponse as error:
                if not isinstance(error.__cause__, TooDeep):
                    raise
                unread = UnexpectedResponse(f"{person}: an answer nested too deeply to be read")
                unread.content = error.content
                raise unread from None
            events, cursor = self._page(path, answer)
            if cursor in seen:
                text = f"cursor {cursor!r} came before; stopped, because the pages would never end"
                raise self._unexpected(path, answer, f" (page {len(seen) + 1}): {text}")
            yield events
            if cursor is None:
                return
            seen.add(cursor)
            params["next"] = cursor

    def _page(self, path: list[str], answer: JsonValue) -> tuple[list[Any], str | None]:
        """Returns a page's events, and the cursor of the next page, or None if this is the last one."""
        events = as_array(value_at(answer, "data"))
        if events is None:
            raise self._unexpected(path, answer, f": expected an object with a list of data, got {describe(answer)}")
        cursor = value_at(answer, "cursor")
        if cursor is not None and not isinstance(cursor, JsonObject):
            raise self._unexpected(path, answer, f": expected a cursor that is an object, got {describe(cursor)}")
        more, following = value_at(cursor, "has_more"), value_at(cursor, "next")
        if more is not None and not isinstance(more, bool):
            raise self._unexpected(path, answer, f": expected has_more to be true or false, got {describe(more)}")
        if not more:
            return events, None
        if not as_text(following):
            raise self._unexpected(path, answer, f": expected the cursor of the next page, got {describe(following)}")
        return events, as_text(following)

    def _unexpected(self, path: list[str], answer: JsonValue, what: str) -> UnexpectedResponse:
        shown = path_of(path)
        text = f"GET {shown}{what}{self.request_id}"
        unexpected = UnexpectedResponse(text, method="GET", path=shown, status=200)
        unexpected.content = masking.masked(to_json(answer))
        return unexpected
