"""The fake's answers: Autopilot's REST API."""

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from .account import FIRST_DAY, SEGMENTS, TRIGGERS, Account
from .http import Answer, Fake, Request

KEY = "0123456789abcdef0123456789abcdef"
MOST_CONTACTS = 100


class FakeAutopilot(Fake):
    """The server on a loopback port: `with FakeAutopilot(contacts=250) as server: ... server.base_url, server.key ...`.

    In any second it answers `rate` requests, and the others with 429; every response takes `latency` seconds.
    """

    def __init__(
        self,
        contacts: int = 100,
        *,
        seed: int = 1,
        port: int = 0,
        host: str = "127.0.0.1",
        key: str = KEY,
        rate: int | None = None,
        latency: float = 0,
    ) -> None:
        super().__init__(host=host, port=port, rate=rate, latency=latency)
        self.account = Account(contacts, seed)
        self.key = key
        self.hook_events: tuple[str, ...] = HOOKS
        self.overlap = 0  # how many contacts of the previous page a page repeats
        self.poison: set[str] = set()  # emails that cause a 500 for each batch that has one
        self.refused_faxes: set[str] = set()  # fax numbers that cause a 400, as if they were invalid

    def answer(self, request: Request) -> Answer:
        """Returns the response to a request."""
        key = request.headers.get("autopilotapikey")
        if key is None:
            return _error(400, "No autopilotapikey header provided.")
        if key != self.key:
            return _error(401, "Provided autopilotapikey not valid.")
        if not self.passes(request.at):
            return _error(429, "Rate limit exceeded.")
        parts = tuple(unquote(part) for part in request.path.partition("?")[0].strip("/").split("/"))
        for method, pattern, answer in ROUTES:
            if method == request.method and (arguments := _matched(pattern, parts)) is not None:
                return answer(self, request.body, *arguments)
        return _error(404, "Resource could not be found.")


# ---- the API -------------------------------------------------------------------------------------------------------


def _account(server: FakeAutopilot, _: Any) -> Answer:
    return Answer(
        200, {"instanceId": f"fake-{server.account.seed}", "fullName": "Made Up", "email": "made.up@example.com"}
    )


def _contacts(server: FakeAutopilot, _: Any, bookmark: str | None = None) -> Answer:
    return Answer(200, server.account.page(bookmark, overlap=server.overlap))


def _group_contacts(server: FakeAutopilot, _: Any, group: str, bookmark: str | None = None) -> Answer:
    if not server.account.is_group(group):
        return _error(404, "List could not be found.")
    return Answer(200, server.account.page(bookmark, group, server.overlap))


def _contact(server: FakeAutopilot, _: Any, who: str) -> Answer:
    return _about(server, who, dict)


def _upsert(server: FakeAutopilot, body: Any) -> Answer:
    contact = body.get("contact") if isinstance(body, dict) else None
    if not isinstance(contact, dict) or not _writable(contact):
        return _error(400, "Invalid contact provided.")
    return Answer(200, {"contact_id": server.account.upsert(contact)})


def _upsert_many(server: FakeAutopilot, body: Any) -> Answer:
    contacts = body.get("contacts") if isinstance(body, dict) else None
    if not isinstance(contacts, list) or not contacts:
        return _error(400, "No contacts provided.")
    if len(contacts) > MOST_CONTACTS:
        return _error(400, f"A maximum of {MOST_CONTACTS} contacts can be provided.")
    if not all(isinstance(contact, dict) and _writable(contact) for contact in contacts):
        return _error(400, "Invalid contact provided.")
    if server.refused_faxes & {contact.get("Fax") for contact in contacts}:
        return _error(400, "Invalid contact provided.")
    if server.poison & {contact.get("Email") for contact in contacts}:
        return _error(500, "Something went wrong.")
    ids = [server.account.upsert(contact) for contact in contacts]
    emails = {
        contact["Email"]: contact_id for contact, contact_id in zip(contacts, ids, strict=True) if "Email" in contact
    }
    return Answer(200, {"contact_ids": ids, "email_contact_map": emails})


def _unsubscribe(server: FakeAutopilot, _: Any, who: str) -> Answer:
    return _about(server, who, lambda contact: server.account.change(contact["contact_id"], unsubscribed=True))


def _delete(server: FakeAutopilot, _: Any, who: str) -> Answer:
    return _about(server, who, lambda contact: server.account.delete(contact["contact_id"]))


def _custom_fields(server: FakeAutopilot, _: Any) -> Answer:
    return Answer(200, [{"name": name, "fieldType": kind, "kind": name} for name, kind in server.account.fields])


def _lists(server: FakeAutopilot, _: Any) -> Answer:
    return Answer(200, {"lists": [{"list_id": key, "title": title} for key, title in server.account.lists.items()]})


def _create_list(server: FakeAutopilot, body: Any) -> Answer:
    name = body.get("name") if isinstance(body, dict) else None
    if not isinstance(name, str) or not name:
        return _error(400, "No name provided.")
    if name in server.account.lists.values():
        return _error(409, "A list with this name already exists.")
    return Answer(200, {"list_id": server.account.create_list(name)})


def _on_list(server: FakeAutopilot, _: Any, list_id: str, who: str) -> Answer:
    contact = server.account.find(who)
    return Answer(200, {}) if contact and list_id in contact.get("lists", []) else Answer(404)


def _put_on_list(on: bool) -> Callable[..., Answer]:
    def answer(server: FakeAutopilot, _: Any, list_id: str, who: str) -> Answer:
        if list_id not in server.account.lists or not server.account.find(who):
            return Answer(404)
        server.account.put_on_list(list_id, who, on)
        return Answer(200, {})

    return answer


def _segments(_: FakeAutopilot, __: Any) -> Answer:
    return Answer(200, {"segments": [{"segment_id": key, "title": title} for key, (title, ___) in SEGMENTS.items()]})


def _triggers(_: FakeAutopilot, __: Any) -> Answer:
    return Answer(200, {"triggers": TRIGGERS})


def _trigger(server: FakeAutopilot, _: Any, trigger: str, who: str) -> Answer:
    if trigger not in [known["trigger_id"] for known in TRIGGERS]:
        return _error(404, "Trigger could not be found.")
    return _about(server, who, lambda contact: server.account.triggered.append((trigger, contact["contact_id"])))


def _eject(server: FakeAutopilot, _: Any, journey: str, who: str) -> Answer:
    return _about(server, who, lambda contact: server.account.ejected.append((journey, contact["contact_id"])))


def _hooks(server: FakeAutopilot, _: Any) -> Answer:
    return Answer(200, {"hooks": list(server.account.hooks.values())})


def _add_hook(server: FakeAutopilot, body: Any) -> Answer:
    if not isinstance(body, dict) or body.get("event") not in server.hook_events or not body.get("target_url"):
        return _error(400, "Invalid hook provided.")
    hook = {key: body[key] for key in ("event", "target_url")}
    if any(known.items() >= hook.items() for known in server.account.hooks.values()):
        return _error(409, "A hook with this URL already exists.")
    hook_id = f"hook_{body['event']}_{len(server.account.hooks) + 1:04d}"
    server.account.hooks[hook_id] = {"hook_id": hook_id} | hook | {"created_at": FIRST_DAY}
    return Answer(201, {"id": hook_id})


def _delete_hook(server: FakeAutopilot, _: Any, hook_id: str) -> Answer:
    return Answer(200, {}) if server.account.hooks.pop(hook_id, None) else _error(404, "Hook could not be found.")


HOOKS = (
    "contact_added",
    "contact_updated",
    "contact_unsubscribed",
    "contact_added_to_list",
    "contact_removed_from_list",
    "contact_entered_segment",
    "contact_left_segment",
)
# The order matters: `contacts/{}` also matches `contacts/custom_fields`.
ROUTES: tuple[tuple[str, str, Callable[..., Answer]], ...] = (
    ("GET", "account", _account),
    ("GET", "contacts/custom_fields", _custom_fields),
    ("GET", "contacts", _contacts),
    ("GET", "contacts/{}", _contacts),
    ("POST", "contacts", _upsert_many),
    ("POST", "contact", _upsert),
    ("GET", "contact/{}", _contact),
    ("DELETE", "contact/{}", _delete),
    ("POST", "contact/{}/unsubscribe", _unsubscribe),
    ("GET", "lists", _lists),
    ("POST", "list", _create_list),
    ("GET", "list/{}/contacts", _group_contacts),
    ("GET", "list/{}/contacts/{}", _group_contacts),
    ("GET", "list/{}/contact/{}", _on_list),
    ("POST", "list/{}/contact/{}", _put_on_list(True)),
    ("DELETE", "list/{}/contact/{}", _put_on_list(False)),
    ("GET", "smart_segments", _segments),
    ("GET", "smart_segments/{}/contacts", _group_contacts),
    ("GET", "smart_segments/{}/contacts/{}", _group_contacts),
    ("GET", "triggers", _triggers),
    ("POST", "trigger/{}/contact/{}", _trigger),
    ("DELETE", "journey/{}/contact/{}", _eject),
    ("POST", "hook", _add_hook),
    ("GET", "hooks", _hooks),
    ("DELETE", "hook/{}", _delete_hook),
)


def _matched(pattern: str, parts: tuple[str, ...]) -> list[str] | None:
    """Returns the parts of the path that match a `{}` of the pattern; None if the path does not match it."""
    names = pattern.split("/")
    if len(names) != len(parts) or any(name not in ("{}", part) for name, part in zip(names, parts, strict=True)):
        return None
    return [part for name, part in zip(names, parts, strict=True) if name == "{}"]


def _about(server: FakeAutopilot, who: str, act: Callable[[dict[str, Any]], Any]) -> Answer:
    if "@" not in who and not who.startswith("person_"):
        return _error(400, "Invalid contact_id_or_email value provided.")
    contact = server.account.find(who)
    return Answer(200, act(contact) or {}) if contact else _error(404, "Contact could not be found.")


def _writable(contact: dict[str, Any]) -> bool:
    emails = [contact[key] for key in ("Email", "_NewEmail") if key in contact]
    return all(isinstance(email, str) and re.fullmatch(r"[^@\s]+@[^@\s]+", email) for email in emails)


def _error(status: int, message: str) -> Answer:
    return Answer(status, {"error": HTTPStatus(status).phrase, "message": message})
