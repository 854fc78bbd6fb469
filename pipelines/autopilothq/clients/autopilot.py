"""A client of Autopilot's REST API, version 1, which reads and writes an account.

(docs/contract/autopilot-api.md, docs/contract/autopilot-hooks.md)
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import NotFound, UnexpectedResponse
from ..segment.json_text import JsonObject
from .decode import JsonValue, as_array, as_count, as_text, describe, value_at
from .http import HttpClient
from .settings import ApiSettings
from .urls import path_of

BASE_URL = "https://api2.autopilothq.com/v1"
REQUESTS_PER_SECOND = 5.0
_SECTION = "sources.autopilothq"
_KEY = f"{_SECTION}.api_key"
MOST_CONTACTS = 100  # contacts that one request writes
KILL_POINT_CONTACTS_WRITTEN = f"{__name__}:Autopilot.upsert_many"  # for tests/faults
KILL_POINT_TRACK_SENT = f"{__name__}:Autopilot.trigger"  # for tests/faults
KILL_POINT_CONTACT_DELETED = f"{__name__}:Autopilot.delete_contact"  # for tests/faults
KILL_POINT_PUT_ON_LIST = f"{__name__}:Autopilot.put_on_list"  # for tests/faults


@dataclass(frozen=True, kw_only=True)
class AutopilotSettings(ApiSettings):
    """The settings of Autopilot's API. Example: `AutopilotSettings(api_key="0123abcd")`."""

    REFUSES_BY_403 = True

    setting: str = _KEY
    base_url: str = BASE_URL
    requests_per_second: float = REQUESTS_PER_SECOND

    def name_of(self, name: str) -> str:
        """Returns the full name of another setting. The settings of `load api` are in a section below the key's.

        Example: `sources.autopilothq.api.base_url`, but `destination.autopilothq.base_url`.
        """
        return f"{_SECTION}.api.{name}" if self.setting == _KEY else super().name_of(name)


class Page(NamedTuple):
    """A page of a scan.

    `contacts` are unchanged and need not be objects. `bookmark` leads to the next page; it is None on the last one.
    `total` is the number of contacts that the account reports, None if it reports none.
    """

    contacts: list[Any]
    total: int | None
    bookmark: str | None


class Upserted(NamedTuple):
    """The result of a request that writes contacts: the ids of those written, by email.

    `refused` has the reasons why contacts were not written, by email, if the API refuses single contacts.
    """

    email_contact_map: Mapping[str, str]
    refused: Mapping[str, str] = {}


class Autopilot(HttpClient):
    """A client of one account. It is thread-safe; all instances with the same key share one rate limit (`pace.Pace`).

    Values are as `decode.decode_json` returns them. Methods raise ApiErrors.

    Example: `with Autopilot(AutopilotSettings(api_key=key)) as account: pages = list(account.contacts())`.
    """

    KEY_HEADER = "autopilotapikey"

    # ---- reading -------------------------------------------------------------------------------------------------

    def account(self) -> JsonObject:
        """Returns the account that the key belongs to. This is the cheapest way to check a key."""
        return self._object(["account"])

    def contacts(self, bookmark: str | None = None) -> Iterator[Page]:
        """Yields all contacts in the order of their ids; with a `bookmark`, those after the page that returned it."""
        return _pages(self, ["contacts"], bookmark)

    def list_contacts(self, list_id: str, bookmark: str | None = None) -> Iterator[Page]:
        """Yields the contacts of a list, as `contacts` does."""
        return _pages(self, ["list", list_id, "contacts"], bookmark)

    def segment_contacts(self, segment_id: str, bookmark: str | None = None) -> Iterator[Page]:
        """Yields the contacts of a smart segment, as `contacts` does."""
        return _pages(self, ["smart_segments", segment_id, "contacts"], bookmark)

    def lists(self) -> list[Any]:
        """Returns `{"list_id","title"}` of each list."""
        return self._array(["lists"], "lists")

    def smart_segments(self) -> list[Any]:
        """Returns `{"segment_id","title"}` of each smart segment."""
        return self._array(["smart_segments"], "segments")

    def triggers(self) -> list[Any]:
        """Returns `{"trigger_id","journey","trigger_type"}` of each trigger by which contacts enter a journey."""
        return self._array(["triggers"], "triggers")

    def custom_fields(self) -> list[Any]:
        """Returns `{"name","fieldType",…}` of each custom field that the account defines."""
        return self._array(["contacts", "custom_fields"], None)

    def hooks(self) -> list[Any]:
        """Returns `{"hook_id","event","target_url","created_at"}` of each REST hook."""
        return self._array(["hooks"], "hooks")

    def contact(self, who: str) -> JsonObject | None:
        """Returns the contact with that id or email, or None if there is none."""
        try:
            return self._object(["contact", who])
        except NotFound:
            return None

    # ---- writing -------------------------------------------------------------------------------------------------

    def upsert(self, contact: Mapping[str, Any]) -> str:
        """Writes a contact and returns its id (docs/contract/autopilot-api.md#writing-a-contact).

        A contact without `Email` or with `_NewEmail` could be created twice: instead of sending it again, this raises
        OutcomeUnknown.
        """
        answer = self.request("POST", ["contact"], body={"contact": contact}, idempotent=_is_idempotent(contact))
        return _id(["contact"], answer, "contact_id")

    def upsert_many(self, contacts: Sequence[Mapping[str, Any]]) -> Upserted:
        """Writes 1 to 100 contacts with one request, as `upsert` does. If one is invalid, the API refuses all."""
        if not 1 <= len(contacts) <= MOST_CONTACTS:
            raise ValueError(f"1 to {MOST_CONTACTS} contacts go into one request, got {len(contacts)}")
        idempotent = all(map(_is_idempotent, contacts))
        answer = self.request("POST", ["contacts"], body={"contacts": contacts}, idempotent=idempotent)
        emails = value_at(answer, "email_contact_map")
        if as_array(value_at(answer, "contact_ids")) is None or not isinstance(emails, JsonObject):
            raise _unexpected("POST", ["contacts"], "an object with contact_ids and email_contact_map", answer)
        return Upserted(dict(emails))

    def trigger(self, trigger_id: str, who: str) -> None:
        """Sends a contact into a trigger's journey. Raises NotFound if there is no such contact or trigger.

        The request is not repeated once it may have been carried out: OutcomeUnknown means that the contact may be in
        the journey.
        """
        self.request("POST", ["trigger", trigger_id, "contact", who], idempotent=False, wants_json=False)

    def unsubscribe(self, who: str) -> None:
        """Unsubscribes a contact from all email. Raises NotFound if there is no such contact."""
        self.request("POST", ["contact", who, "unsubscribe"], wants_json=False)

    def delete_contact(self, who: str) -> None:
        """Deletes a contact. Raises NotFound if there is no such contact."""
        self.request("DELETE", ["contact", who], wants_json=False)

    def eject(self, journey_id: str, who: str) -> None:
        """Ejects a contact from a journey. Raises NotFound if the contact is not in it."""
        self.request("DELETE", ["journey", journey_id, "contact", who], wants_json=False)

    def put_on_list(self, list_id: str, who: str) -> None:
        """Adds a contact to a list. Raises NotFound if there is no such contact or list."""
        self.request("POST", ["list", list_id, "contact", who], wants_json=False)

    def take_off_list(self, list_id: str, who: str) -> None:
        """Removes a contact from a list. Raises NotFound if the contact is not on it."""
        self.request("DELETE", ["list", list_id, "contact", who], wants_json=False)

    def create_list(self, name: str) -> str:
        """Creates a list and returns its id. Raises RequestRejected (409) if the name is taken."""
        return _id(["list"], self.request("POST", ["list"], body={"name": name}, idempotent=False), "list_id")

    def add_hook(self, event: str, url: str) -> str:
        """Registers a hook that posts an event to a URL. Returns its id, or an empty text if the API returns none.

        Raises RequestRejected: 409 if there is such a hook already, 400 for an event that the account does not know.
        """
        answer = self.request("POST", ["hook"], body={"event": event, "target_url": url})
        return as_text(value_at(answer, "id")) or as_text(value_at(answer, "hook_id")) or ""

    def remove_hook(self, hook_id: str) -> None:
        """Removes a hook. Raises NotFound if there is none with that id."""
        self.request("DELETE", ["hook", hook_id], wants_json=False)

    def _object(self, path: Sequence[str]) -> JsonObject:
        answer = self.request("GET", path)
        if not isinstance(answer, JsonObject):
            raise _unexpected("GET", path, "an object", answer)
        return answer

    def _array(self, path: Sequence[str], key: str | None) -> list[Any]:
        answer = self.request("GET", path)
        found = as_array(answer if key is None else value_at(answer, key))
        if found is None:
            raise _unexpected("GET", path, f"an object with a list of {key}" if key else "an array", answer)
        return found


# ---- pages and shapes ----------------------------------------------------------------------------------------------


def _pages(http: HttpClient, path: Sequence[str], bookmark: str | None) -> Iterator[Page]:
    """Yields pages until one has no bookmark (docs/contract/autopilot-api.md#paging).

    Neither a short page nor `total_contacts` ends a scan. A repeated bookmark raises UnexpectedResponse, because
    the scan would never end.
    """
    seen: set[str] = set()
    number = 0
    while True:
        number += 1
        here = path if bookmark is None else [*path, bookmark]
        if bookmark is not None:
            seen.add(bookmark)
        page = _page(here, number, http.request("GET", here))
        bookmark = page.bookmark
        if bookmark in seen:
            text = f"GET {path_of(here)} (page {number} of this scan): bookmark {bookmark!r} came before; stopped"
            raise UnexpectedResponse(
                text + ", because the scan would never end", method="GET", path=path_of(here), status=200
            )
        yield page
        if bookmark is None:
            return


def _page(path: Sequence[str], number: int, answer: JsonValue) -> Page:
    where = f" (page {number} of this scan)"
    contacts = as_array(value_at(answer, "contacts"))
    if contacts is None:
        raise _unexpected("GET", path, "an object with a list of contacts", answer, where)
    bookmark = value_at(answer, "bookmark")
    if bookmark is not None and as_text(bookmark) in (None, "", ".", ".."):
        raise _unexpected("GET", path, "a bookmark that is text or null", bookmark, where)
    return Page(contacts, as_count(value_at(answer, "total_contacts")), as_text(bookmark))


def _is_idempotent(contact: Mapping[str, Any]) -> bool:
    """Returns whether a contact may be written twice. With `_NewEmail` it may not: the old address is gone then."""
    return bool(contact.get("Email")) and not contact.get("_NewEmail")


def _id(path: Sequence[str], answer: JsonValue, key: str) -> str:
    found = as_text(value_at(answer, key))
    if found is None:
        raise _unexpected("POST", path, f"an object with a {key}", answer)
    return found


def _unexpected(method: str, path: Sequence[str], expected: str, got: JsonValue, where: str = "") -> UnexpectedResponse:
    shown = path_of(path)
    text = f"{method} {shown}{where}: expected {expected}, got {describe(got)}"
    return UnexpectedResponse(text, method=method, path=shown, status=200)
