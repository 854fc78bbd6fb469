"""The account that is written to: the interface that the destination uses, and its implementation for dry runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ..clients.autopilot import Autopilot, Page, Upserted
from ..clients.urls import path_of
from ..display import json_text, visible
from ..segment.json_text import JsonObject
from .preview import Preview


class WritableAccount(Protocol):
    """The part of `clients.autopilot.Autopilot` that the destination uses."""

    @property
    def attempts(self) -> int:
        """How often the calling thread's last request was sent."""

    def limit_tries(self, tries: int, /) -> AbstractContextManager[None]:
        """Limits the tries of the calling thread's requests in this context."""

    def upsert_many(self, contacts: Sequence[Mapping[str, Any]], /) -> Upserted:
        """Writes contacts with one request."""

    def upsert(self, contact: Mapping[str, Any], /) -> str:
        """Writes a contact and returns its id."""

    def trigger(self, trigger_id: str, who: str, /) -> None:
        """Sends a contact into a journey."""

    def contact(self, who: str, /) -> JsonObject | None:
        """Returns a contact, or None if there is none."""

    def contacts(self) -> Iterator[Page]:
        """Yields all contacts, page by page."""

    def triggers(self) -> list[Any]:
        """Returns the account's triggers."""


class DryRunAccount:
    """An account that is only read: a preview gets the requests that would write, and they are not sent.

    `show`, if given, is called with the text of each request, without the key.
    """

    def __init__(self, account: Autopilot, preview: Preview, show: Callable[[str], None] | None, base_url: str) -> None:
        self.attempts = 0
        self.limit_tries = account.limit_tries
        self.contact = account.contact
        self.contacts = account.contacts
        self.triggers = account.triggers
        self._preview = preview
        self._show = show
        self._base = base_url.rstrip("/")

    def upsert_many(self, contacts: Sequence[Mapping[str, Any]]) -> Upserted:
        """Passes the request to the preview."""
        self._preview.write(contacts)
        self._request(["contacts"], {"contacts": contacts})
        return Upserted({contact["Email"]: "dry run" for contact in contacts})

    def upsert(self, contact: Mapping[str, Any]) -> str:
        """Passes the request to the preview."""
        self._preview.write([contact])
        self._request(["contact"], {"contact": contact})
        return ""

    def trigger(self, trigger_id: str, who: str) -> None:
        """Passes the request to the preview."""
        self._preview.enter(trigger_id, who)
        self._request(["trigger", trigger_id, "contact", who])

    def _request(self, path: Sequence[str], body: Any = None) -> None:
        if self._show is not None:
            text = "" if body is None else f"\n{json_text(body)}"
            self._show(f"POST {visible(self._base)}{path_of(path)}{text}")
