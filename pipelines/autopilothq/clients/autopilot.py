"""Autopilot's REST API, version 1 (spec/autopilot-api.md): what the account holds, page by page, and writing to it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx

from ..errors import NotFound, UnexpectedResponse
from .http import MAX_ATTEMPTS, TIMEOUT, ApiKey, HttpClient, path_of

BASE_URL = "https://api2.autopilothq.com/v1"
REQUESTS_PER_SECOND = 5.0
MOST_CONTACTS = 100  # that one request may write


class Page(NamedTuple):
    """A page of a scan. `contacts` are as they came, which need not be objects; `bookmark` goes on after this page,
    None after the last; `total` is what the account says that there are (None: it does not).
    """

    contacts: list[Any]
    total: int | None
    bookmark: str | None


class Upserted(NamedTuple):
    """What became of contacts that were written together."""

    contact_ids: list[str]
    email_contact_map: dict[str, str]


class Autopilot:
    """An account. Threads may share it; every instance with one key shares one pace (`http.Pace`).

    `setting` is the setting that the key came from, which errors name. `allow_http` lets the key go over plain http to
    another machine. Raises `http.ApiError`s.

    Example: `with Autopilot(key) as account: count = sum(len(page.contacts) for page in account.contacts())`.
    """

    def __init__(
        self,
        api_key: str,
        *,
        base_url: str = BASE_URL,
        requests_per_second: float = REQUESTS_PER_SECOND,
        timeout: float = TIMEOUT,
        tries: int = MAX_ATTEMPTS,
        allow_http: bool = False,
        setting: str = "sources.autopilothq.api_key",
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._http = HttpClient(
            base_url,
            ApiKey.in_header("autopilotapikey", api_key, setting),
            requests_per_second=requests_per_second,
            timeout=timeout,
            tries=tries,
            allow_http=allow_http,
            transport=transport,
            sleep=sleep,
        )

    def __repr__(self) -> str:
        return f"Autopilot({self._http!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    @property
    def attempts(self) -> int:
        """How often the calling thread's last request was tried."""
        return self._http.attempts

    # ---- reading -------------------------------------------------------------------------------------------------

    def account(self) -> dict[str, Any]:
        """Whose account the key opens: the cheapest way to check a key."""
        return self._object(["account"])

    def contacts(self, bookmark: str | None = None) -> Iterator[Page]:
        """All contacts, in id order. A scan goes on behind the page whose `bookmark` is given."""
        return self._pages(["contacts"], bookmark)

    def list_contacts(self, list_id: str, bookmark: str | None = None) -> Iterator[Page]:
        """A list's contacts, as `contacts`."""
        return self._pages(["list", list_id, "contacts"], bookmark)

    def segment_contacts(self, segment_id: str, bookmark: str | None = None) -> Iterator[Page]:
        """A smart segment's contacts, as `contacts`."""
        return self._pages(["smart_segments", segment_id, "contacts"], bookmark)

    def lists(self) -> list[Any]:
        """`{"list_id","title"}` of each list."""
        return self._things(["lists"], "lists")

    def smart_segments(self) -> list[Any]:
        """`{"segment_id","title"}` of each smart segment."""
        return self._things(["smart_segments"], "segments")

    def triggers(self) -> list[Any]:
        """`{"trigger_id","journey","trigger_type"}` of each trigger that journeys can be entered by."""
        return self._things(["triggers"], "triggers")

    def custom_fields(self) -> list[Any]:
        """`{"name","fieldType",…}` of each custom field that the account defines."""
        return self._things(["contacts", "custom_fields"], None)

    def contact(self, who: str) -> dict[str, Any] | None:
        """The contact of that id or email; None where there is none."""
        try:
            return self._object(["contact", who])
        except NotFound:
            return None

    # ---- writing -------------------------------------------------------------------------------------------------

    def upsert(self, contact: Mapping[str, Any]) -> str:
        """Writes a contact and gives its id (spec/autopilot-api.md#writing-a-contact).

        Raises OutcomeUnknown where repeating could make a second contact: without `Email`, or with `_NewEmail`.
        """
        answer = self._http.request("POST", ["contact"], body={"contact": contact}, idempotent=_repeatable(contact))
        if not isinstance(answer, dict) or not isinstance(answer.get("contact_id"), str):
            raise _unexpected("POST", ["contact"], "an object with a contact_id", answer)
        return str(answer["contact_id"])

    def upsert_many(self, contacts: Sequence[Mapping[str, Any]]) -> Upserted:
        """Writes 1 to 100 contacts with one request, else as `upsert`. One bad contact refuses them all."""
        if not 1 <= len(contacts) <= MOST_CONTACTS:
            raise ValueError(f"1 to {MOST_CONTACTS} contacts go into one request, got {len(contacts)}")
        repeatable = all(map(_repeatable, contacts))
        answer = self._http.request("POST", ["contacts"], body={"contacts": contacts}, idempotent=repeatable)
        ids = answer.get("contact_ids") if isinstance(answer, dict) else None
        emails = answer.get("email_contact_map") if isinstance(answer, dict) else None
        if not isinstance(ids, list) or not isinstance(emails, dict):
            raise _unexpected("POST", ["contacts"], "an object with contact_ids and email_contact_map", answer)
        return Upserted(ids, emails)

    def trigger(self, trigger_id: str, who: str) -> None:
        """Sends a contact into a trigger's journey. NotFound where there is no such contact or trigger.

        Never repeated: raises OutcomeUnknown where the contact may be in the journey, or not.
        """
        self._http.request("POST", ["trigger", trigger_id, "contact", who], idempotent=False, wants_json=False)

    def unsubscribe(self, who: str) -> None:
        """Takes a contact off all email. NotFound where there is none."""
        self._http.request("POST", ["contact", who, "unsubscribe"], wants_json=False)

    def create_list(self, name: str) -> str:
        """Makes a list and gives its id. Refused (409) where the name is taken."""
        answer = self._http.request("POST", ["list"], body={"name": name}, idempotent=False)
        if not isinstance(answer, dict) or not isinstance(answer.get("list_id"), str):
            raise _unexpected("POST", ["list"], "an object with a list_id", answer)
        return str(answer["list_id"])

    # ---- shapes --------------------------------------------------------------------------------------------------

    def _object(self, path: Sequence[str]) -> dict[str, Any]:
        answer = self._http.request("GET", path)
        if not isinstance(answer, dict):
            raise _unexpected("GET", path, "an object", answer)
        return answer

    def _things(self, path: Sequence[str], key: str | None) -> list[Any]:
        answer = self._http.request("GET", path)
        things = answer if key is None else answer.get(key) if isinstance(answer, dict) else None
        if not isinstance(things, list):
            raise _unexpected("GET", path, f"an object with a list of {key}" if key else "an array", answer)
        return things

    def _pages(self, path: Sequence[str], bookmark: str | None) -> Iterator[Page]:
        """Pages until one has no bookmark. Neither a short page nor `total_contacts` ends a scan; a bookmark that came
        before would go on for ever (spec/autopilot-api.md#paging).
        """
        seen: set[str] = set()
        number = 0
        while True:
            number += 1
            here = path if bookmark is None else [*path, bookmark]
            if bookmark is not None:
                seen.add(bookmark)
            page = _page(here, number, self._http.request("GET", here))
            bookmark = page.bookmark
            if bookmark in seen:
                text = f"GET {path_of(here)} (page {number} of this scan): bookmark {bookmark!r} came before; stopped"
                raise UnexpectedResponse(
                    text + ", because the scan would never end", method="GET", path=path_of(here), status=200
                )
            yield page
            if bookmark is None:
                return


def _page(path: Sequence[str], number: int, answer: Any) -> Page:
    contacts = answer.get("contacts") if isinstance(answer, dict) else None
    if not isinstance(contacts, list):
        raise _unexpected("GET", path, "an object with a list of contacts", answer, f" (page {number} of this scan)")
    bookmark = answer.get("bookmark")
    if bookmark is not None and (not isinstance(bookmark, str) or bookmark in ("", ".", "..")):
        raise _unexpected("GET", path, "a bookmark that is text or null", bookmark, f" (page {number} of this scan)")
    total = answer.get("total_contacts")
    return Page(contacts, total if type(total) is int else None, bookmark)


def _repeatable(contact: Mapping[str, Any]) -> bool:
    """Whether writing it twice is writing it once. After `_NewEmail` nobody has the old address any more."""
    return bool(contact.get("Email")) and not contact.get("_NewEmail")


def _unexpected(method: str, path: Sequence[str], expected: str, came: Any, where: str = "") -> UnexpectedResponse:
    shown = path_of(path)
    text = f"{method} {shown}{where}: expected {expected}, got {_kind(came)}"
    return UnexpectedResponse(text, method=method, path=shown, status=200)


def _kind(value: Any) -> str:
    """What came, without what is in it: contacts are personal data."""
    if isinstance(value, dict):
        return f"an object with {', '.join(sorted(map(str, value))[:5])}" if value else "an empty object"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    return repr(value)[:60]
