"""Turns Segment messages, and rows of a query or a pipeline, into items to deliver."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..catalog import INTEGRATIONS, MAX_DEPTH, REJECT_REASONS
from ..segment.json_text import is_deeper
from ..segment.message import digest
from ..segment.naming import snake_case
from ..segment.rebuild import has_message_id, restore_keys

ID_COLUMNS = ("email", "user_id")
_IGNORED = ("page", "screen", "group", "alias")  # types of messages that write no contact
_TYPES = frozenset({"identify", "track", *_IGNORED})
# Keys that distinguish a message from a row with a column `type`. `integrations` is one of them, because a message that
# was taken for a row would be delivered even if it is disabled for the account.
_MESSAGE_KEYS = ("traits", "properties", "event", "context", "integrations", "anonymousId")
NO_IDENTIFIER = "Missing unique identifier traits. Either **email** or **user_id** traits must be provided"


class Item(NamedTuple):
    """An identify or a track to deliver.

    A message is delivered `once`. A row has no id of its own, and is delivered whenever its `content` differs from the
    last one delivered. `context_traits` are from the message's context. `refusal` is why it can never be sent.
    """

    message_id: str
    kind: str
    user_id: str | None = None
    traits: Mapping[str, Any] = {}
    context_traits: Mapping[str, Any] = {}
    properties: Mapping[str, Any] = {}
    event: str | None = None
    audience: str | None = None
    once: bool = True
    content: str | None = None
    refusal: str | None = None
    timestamp: str | None = None


class Ignored(NamedTuple):
    """A message that is not sent: no account takes its type, or (`not_meant`) its `integrations` exclude this one."""

    type: str
    not_meant: bool = False


def from_line(line: bytes, integrations: Sequence[str] = INTEGRATIONS) -> Item | Ignored:
    """Returns the item of a line of JSON. If the line is not a message, the item has a `refusal`.

    `integrations` are the names that the account has in the message's `integrations`.
    """
    if is_deeper(line, MAX_DEPTH):
        return refuse_item(digest(line), "not_json")
    try:
        message = json.loads(line, parse_constant=_no_number)
    except ValueError:
        return refuse_item(digest(line), "not_json")
    if not isinstance(message, dict):
        return refuse_item(digest(line), "not_an_object")
    return _from_message(message, digest(line), integrations)


def _from_message(
    message: Mapping[str, Any], message_id: str, integrations: Sequence[str] = INTEGRATIONS
) -> Item | Ignored:
    """Returns the item of a Segment message. `message_id` is used if the message has no id of its own."""
    message_id = id_text(message.get("messageId")) or message_id
    kind = message.get("type")
    if kind in _IGNORED:
        return Ignored(kind)
    if kind not in ("identify", "track"):
        return refuse_item(message_id, "unknown_type")
    if not is_enabled(message.get("integrations"), integrations):
        return Ignored(kind, not_meant=True)
    parts: dict[str, Mapping[str, Any]] = {}
    for name in ("traits", "properties", "context"):
        part = message.get(name) or {}
        if not isinstance(part, Mapping):
            return refuse_item(message_id, f"{name}_not_object", kind)
        parts[name] = part
    event = message.get("event") if kind == "track" else None
    if kind == "track" and not isinstance(event, str):
        return refuse_item(message_id, "event_not_defined" if event is None else "event_not_string", kind)
    user_id, traits, context_traits = _person(message, parts)
    properties = parts["properties"] if kind == "track" else {}
    timestamp = next(filter(None, (id_text(message.get(name)) for name in ("timestamp", "originalTimestamp"))), None)
    return Item(message_id, kind, user_id, traits, context_traits, properties, event, timestamp=timestamp)


def _person(
    message: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]
) -> tuple[str | None, Mapping[str, Any], Mapping[str, Any]]:
    """Returns a message's user id, traits, and context's traits. A user id that is found in traits is removed there."""
    traits, inner = parts["traits"], parts["context"].get("traits")
    context_traits = inner if isinstance(inner, Mapping) else {}
    if user_id := id_text(message.get("userId")):
        return user_id, traits, context_traits
    user_id, traits = _without_user_id(traits)
    if user_id is None:
        user_id, context_traits = _without_user_id(context_traits)
    return user_id, traits, context_traits


def is_enabled(integrations: Any, names: Sequence[str] = INTEGRATIONS) -> bool:
    """Returns whether a message's `integrations` enable an account (docs/contract/destination.md#identify).

    The account's `names` take precedence over `All`. `true` and objects enable it, null is ignored, and other values
    disable it.

    Example: `is_enabled({"All": False, "AutopilotHQ": True})`, but not `is_enabled({"All": False})`.
    """
    if integrations in (None, "", []):  # PHP writes an empty object as []
        return True
    if not isinstance(integrations, Mapping):
        return False
    choices: dict[str, bool] = {}
    for name, choice in integrations.items():
        if choice is not None:
            spelt = str(name).lower()
            choices[spelt] = choices.get(spelt, True) and (choice is True or isinstance(choice, Mapping))
    return next((choices[name] for name in map(str.lower, (*names, "All")) if name in choices), True)


def from_row(row: Mapping[str, Any]) -> Item | Ignored:
    """Returns the item of a row: a Segment message's if the row looks like one, otherwise an identify with its columns.

    `user_id` (or `userId`) identifies the person and is not a trait.

    Example: `from_row({"email": "a@b.c", "plan": "pro"})`.
    """
    is_typed = row.get("type") in _TYPES
    if is_typed and (has_message_id(row) or any(row.get(key) is not None for key in _MESSAGE_KEYS)):
        known = restore_keys(row)
        return _from_message(known, digest(json.dumps(known, sort_keys=True, default=str).encode()))
    user_id, traits = _without_user_id(row)
    email = next((value for name, value in traits.items() if name.lower() == "email"), None)
    return trait_item(user_id or id_text(email) or "", user_id, traits)


def _without_user_id(traits: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Returns the user id among traits, and the other traits."""
    found = {name: value for name, value in traits.items() if snake_case(name) == "user_id"}
    others = {name: value for name, value in traits.items() if name not in found}
    return next(filter(None, map(id_text, found.values())), None), others


def trait_item(person: str, user_id: str | None, traits: Mapping[str, Any]) -> Item:
    """Returns the identify of a row. Its id depends on the person and the names of the traits, not on their values."""
    name = hashlib.sha256("\n".join([person.lower(), *sorted(traits)]).encode("utf-8", "replace")).hexdigest()
    return Item(f"row-{name}", "identify", user_id, traits, once=False)


def refuse_item(message_id: str, reason: str, kind: str = "") -> Item:
    """Returns an item that cannot be sent, for a reject reason of the catalogue."""
    return Item(message_id, kind, refusal=f"{reason}: {REJECT_REASONS[reason]}")


def id_text(value: Any) -> str | None:
    """Returns an id as text that the log can store; None for blanks, booleans, arrays and objects."""
    if value is None or isinstance(value, bool | list | dict):
        return None
    return storable_value(str(value)).strip() or None


def storable_value(value: str) -> str:
    """Returns a text in which NUL and lone surrogates, which no warehouse accepts, are replaced."""
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
