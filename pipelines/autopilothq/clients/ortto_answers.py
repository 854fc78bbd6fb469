"""Parses Ortto's answers. A list that is null becomes an empty one."""

from collections.abc import Callable, Iterator, Sized
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

from .. import masking
from ..errors import UnexpectedResponse
from ..segment.json_text import JsonObject, to_json
from .decode import JsonValue, as_array, as_count, as_text, describe, value_at
from .urls import path_of

MOST_EMPTY_PAGES = 100  # empty pages in a row, each of which announces another page
_MOST_DAYS = 36_500  # days of retention; dates much further back would overflow

_Page = TypeVar("_Page")
_Arguments = ParamSpec("_Arguments")
_Pages = Callable[_Arguments, Iterator[_Page]]


class PeoplePage(NamedTuple):
    """A page of people, each `{"id","fields":{…}}`, unchanged.

    If `has_more`, `next_offset` and `cursor_id` lead to the next page. `total` is the number of matching people, None
    if the API does not return it.
    """

    contacts: list[Any]
    next_offset: int
    cursor_id: str | None
    has_more: bool
    total: int | None


class ActivityPage(NamedTuple):
    """A page of a person's activities, unchanged. `retention_days` is how long Ortto keeps them, None if unknown."""

    activities: list[Any]
    next_offset: int
    has_more: bool
    retention_days: int | None


class Written(NamedTuple):
    """The outcome of writing one person or activity: the status in the answer, the person's id, the error's text.

    `status` is `created`, `merged`, `ingested`, `queued`, …; `invalid` or `suppressed` if it was refused.
    """

    status: str | None
    person_id: str | None
    error: str | None


def array(path: str, answer: JsonValue, key: str) -> list[Any]:
    """Returns the list under a key, or the answer itself if it is a list; null becomes an empty list.

    Raises UnexpectedResponse for anything else.
    """
    found = answer.value(key) if isinstance(answer, JsonObject) else answer
    entries = [] if found is None else as_array(found)
    if entries is None:
        raise unexpected(path, f"a list of {key} or null", found)
    return entries


def people_page(path: str, answer: JsonObject, offset: int) -> PeoplePage:
    """Returns the page that an answer holds; `offset` is its own offset."""
    following, has_more = _following(path, answer, offset, answer.value("has_more"))
    total = as_count(answer.value("meta", "total_matches"))
    return PeoplePage(array(path, answer, "contacts"), following, as_text(answer.value("cursor_id")), has_more, total)


def activity_page(path: str, answer: JsonObject, offset: int) -> ActivityPage:
    """Returns the page that an answer holds; `offset` is its own offset."""
    more = answer.value("meta", "has_more")
    following, has_more = _following(path, answer, offset, answer.value("has_more") if more is None else more)
    is_time = answer.value("meta", "retention", "type") == "time"
    days = as_count(answer.value("meta", "retention", "max_value")) if is_time else None
    days = days if days is not None and days <= _MOST_DAYS else None
    return ActivityPage(array(path, answer, "activities"), following, has_more, days)


def campaign_page(path: str, answer: JsonObject, offset: int) -> tuple[list[Any], int, bool]:
    """Returns the campaigns of a page, the next page's offset, and whether there is one."""
    return array(path, answer, "campaigns"), *_following(path, answer, offset, answer.value("has_more"))


def limit_empty_pages(
    path: str, entries: Callable[[Any], Sized]
) -> Callable[[_Pages[_Arguments, _Page]], _Pages[_Arguments, _Page]]:
    """Decorates a method that yields pages, to raise UnexpectedResponse after too many empty pages in a row."""

    def wrap(pages: _Pages[_Arguments, _Page]) -> _Pages[_Arguments, _Page]:
        @wraps(pages)
        def bounded(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Iterator[_Page]:
            empty = 0
            for page in pages(*args, **kwargs):
                empty = 0 if len(entries(page)) else empty + 1
                if empty > MOST_EMPTY_PAGES:
                    raise unexpected(path, "an entry, or the end of the pages", f"{empty} empty pages in a row")
                yield page

        return bounded

    return wrap


def read_written(path: str, answer: JsonObject, key: str, expected: int) -> list[Written]:
    """Returns the outcome of each person or activity that was written, in the order of the request.

    Raises UnexpectedResponse if the answer does not have `expected` of them.
    """
    found = array(path, answer, key)
    if len(found) != expected:
        raise unexpected(path, f"an array of {expected} in {key}", found)
    return [Written(*(as_text(value_at(entry, name)) for name in ("status", "person_id", "error"))) for entry in found]


def unexpected(path: str, expected: str, got: JsonValue) -> UnexpectedResponse:
    """Returns the error for an answer with an unexpected shape; `content` of the error has the answer."""
    shown = path_of(path.split("/"))
    text = f"POST {shown}: expected {expected}, got {describe(got)}"
    error = UnexpectedResponse(text, method="POST", path=shown, status=200)
    error.content = masking.masked(to_json(got))
    return error


def _following(path: str, answer: JsonObject, offset: int, has_more: Any) -> tuple[int, bool]:
    """Returns the offset of the next page, and whether there is one. Raises UnexpectedResponse if it does not grow."""
    following = as_count(answer.value("next_offset"))
    if not has_more:
        return following if following is not None else offset, False
    if following is None or following <= offset:
        text = f"a next_offset above {offset}, or the pages would never end"
        raise unexpected(path, text, answer.value("next_offset"))
    return following, True
