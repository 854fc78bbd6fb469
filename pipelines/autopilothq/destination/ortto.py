"""Ortto as an account that is written to: people with `/person/merge`, events with `/activities/create`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from ..catalog import ORTTO_STANDARD_FIELDS
from ..clients.autopilot import Page, Upserted
from ..clients.ortto import Ortto, Written
from ..display import json_text, visible
from ..errors import RequestRejected
from ..segment.json_text import JsonObject
from .batch import EXTERNAL_ID, contact_key, user_key
from .ortto_values import readable
from .preview import Preview

_NOT_READABLE = ("decimal",)
_EMAIL, _ID = "str::email", "str::person_id"


class OrttoAccount:
    """An account of Ortto with the interface of `WritableAccount`. It is thread-safe."""

    def __init__(self, client: Ortto) -> None:
        self._client = client

    @property
    def attempts(self) -> int:
        """How often the calling thread's last request was sent."""
        return self._client.attempts

    def limit_tries(self, tries: int) -> AbstractContextManager[None]:
        """Limits the tries of the calling thread's requests in this context."""
        return self._client.limit_tries(tries)

    def upsert_many(self, contacts: Sequence[Mapping[str, Any]]) -> Upserted:
        """Writes 1 to 100 people with one request. Returns the ids of those written and why others were refused."""
        written = self._client.merge_people([person_of(contact) for contact in contacts])
        taken: dict[str, str] = {}
        refused: dict[str, str] = {}
        for contact, person in zip(contacts, written, strict=True):
            if was_written(person):
                taken[contact_key(contact)] = person.person_id or person.status or "written"
            else:
                refused[contact_key(contact)] = refusal(person)
        return Upserted(taken, refused)

    def upsert(self, contact: Mapping[str, Any]) -> str:
        """Changes the address of a person and writes the other values; creates the person if there is none.

        Raises RequestRejected if the person is refused, and OutcomeUnknown if the answer is lost: a message that is
        sent while it is unknown whether the address was changed would create a second person.
        """
        found = self.contact(contact["Email"]) or self.contact(contact["_NewEmail"])
        person = person_of({**contact, "Email": contact["_NewEmail"]})
        merge_by = [_EMAIL]
        if found is not None:
            person["fields"][_ID] = str(found.value("id"))
            merge_by = [_ID]
        (written,) = self._client.merge_people([person], merge_by, idempotent=False)
        if not was_written(written):
            text = f"POST /person/merge: {refusal(written)}"
            raise RequestRejected(
                text, method="POST", path="/person/merge", status=200, server_message=refusal(written)
            )
        return written.person_id or ""

    def contact(self, who: str) -> JsonObject | None:
        """Returns the person with an email, or None if there is none."""
        page = next(self._client.people([_EMAIL], {"$str::is": {"field_id": _EMAIL, "value": who}}, limit=1))
        return next((person for person in page.contacts if isinstance(person, JsonObject)), None)

    def contacts(self) -> Iterator[Page]:
        """Yields nothing: Ortto identifies people by the user id, so nobody needs to be looked up by it."""
        return iter(())

    def create_activities(self, activities: Sequence[Mapping[str, Any]]) -> list[Written]:
        """Creates 1 to 100 activities with one request, which is not repeated once it may have been carried out."""
        return self._client.create_activities(activities)

    def trigger(self, trigger_id: str, who: str) -> None:
        """Raises NotImplementedError: events are sent together."""
        raise NotImplementedError

    def triggers(self) -> list[Any]:
        """Returns [], because Ortto has activities. Sends a request, so that a stream learns whether Ortto answers."""
        self._client.custom_fields()
        return []


class DryRunOrtto(OrttoAccount):
    """An account that is only read: a preview gets the requests that would write, and they are not sent.

    `show`, if given, is called with the text of each request, without the key. `types` are fields' types by id.
    """

    def __init__(self, client: Ortto, preview: Preview, show: Callable[[str], None] | None, types: Mapping[str, str]):
        super().__init__(client)
        self._preview = preview
        self._show = show
        self._types = {id_: type_ for id_, type_ in types.items() if type_ in _NOT_READABLE}

    @property
    def attempts(self) -> int:
        """0, because nothing is sent."""
        return 0

    def upsert_many(self, contacts: Sequence[Mapping[str, Any]]) -> Upserted:
        """Passes the request to the preview."""
        self._preview.write([self._readable(contact) for contact in contacts])
        self._request("person/merge", {"people": [person_of(contact) for contact in contacts]})
        return Upserted({contact_key(contact): "dry run" for contact in contacts})

    def upsert(self, contact: Mapping[str, Any]) -> str:
        """Passes the request to the preview."""
        self._preview.write([self._readable(contact)])
        self._request("person/merge", {"people": [person_of({**contact, "Email": contact["_NewEmail"]})]})
        return ""

    def create_activities(self, activities: Sequence[Mapping[str, Any]]) -> list[Written]:
        """Passes the request to the preview."""
        for activity in activities:
            fields = activity["fields"]
            key = fields.get(_EMAIL) or user_key(str(fields[EXTERNAL_ID]))
            self._preview.enter(activity["activity_id"], key)
        self._request("activities/create", {"activities": activities})
        return [Written("ingested", None, None) for _ in activities]

    def _readable(self, contact: Mapping[str, Any]) -> dict[str, Any]:
        standard = {name: readable(value, "") for name, value in contact.items() if name in ORTTO_STANDARD_FIELDS}
        custom = {id_: readable(value, self._types.get(id_, "")) for id_, value in contact.get("custom", {}).items()}
        return {**contact, **standard, "custom": custom}

    def _request(self, path: str, body: Any) -> None:
        if self._show is not None:
            self._show(f"POST {visible(self._client.base_url)}/{path}\n{json_text(body)}")


def person_of(contact: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a contact as `/person/merge` takes it.

    Example: `person_of({"Email": "a@b.c", "FirstName": "Ann", "custom": {"str:cm:plan": "pro"}, "tags": ["vip"]})` is
    `{"fields": {"str::email": "a@b.c", "str::first": "Ann", "str:cm:plan": "pro"}, "tags": ["vip"]}`.
    """
    fields = {_EMAIL: contact["Email"]} if contact.get("Email") else {}
    fields |= {ORTTO_STANDARD_FIELDS[name]: value for name, value in contact.items() if name in ORTTO_STANDARD_FIELDS}
    fields |= contact.get("custom", {})
    return {"fields": fields} | {name: contact[name] for name in ("tags", "unset_tags") if contact.get(name)}


def was_written(written: Written) -> bool:
    """Returns whether a person or an activity was written. An unknown status without an error counts as written."""
    return written.error is None and (written.status or "") not in ("invalid", "suppressed", "error", "failed")


def refusal(written: Written) -> str:
    """Returns why a person or an activity was not written."""
    return written.error or written.status or "refused without a reason"
