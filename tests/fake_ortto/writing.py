"""The requests `/person/merge` and `/activities/create`, which change an account."""

import json
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from fake_autopilot.http import Answer

from .account import MOST_A_DAY, READ_ONLY, SYSTEM_FIELDS, Account
from .made_up import DAY, Record

MOST = 100
MOST_BYTES = 2_000_000
MOST_BYTES_EACH = 16_000


class Invalid(Exception):
    """A person or an activity is refused. The message is that of the response."""

    status = "invalid"


class Suppressed(Invalid):
    status = "suppressed"


class Full(Exception):
    """The plan allows no more contacts."""


def error(status: int, text: str, **more: Any) -> Answer:
    """Returns an error in the form that was recorded from the real API."""
    return Answer(status, {"request_id": str(uuid.UUID(int=status)), "code": status, "error": text} | more)


def merge(account: Account, body: Record) -> Answer:
    """Writes people, as `/person/merge` does."""
    people, merge_by = body.get("people"), body.get("merge_by") or []
    strategies = body.get("merge_strategy", 1) in (1, 2, 3) and body.get("find_strategy", 0) in (0, 1, 2)
    if not isinstance(people, list) or not 1 <= len(people) <= MOST or len(merge_by) > 3 or not strategies:
        return error(400, "One or more attributes is invalid")
    try:
        results = [_result(partial(_merge_one, account, body, person)) for person in people]
    except Full:
        return error(507, "Contact limit reached")
    return _answer(results, "people", "No valid contacts provided")


def create(account: Account, body: Record) -> Answer:
    """Creates activities, as `/activities/create` does."""
    activities = body.get("activities")
    if not isinstance(activities, list) or not 1 <= len(activities) <= MOST:
        return error(400, "One or more attributes is invalid")
    if len(json.dumps(body)) > MOST_BYTES:
        return error(413, "Payload too large")
    try:
        results = [_result(partial(_create_one, account, activity)) for activity in activities]
    except Full:
        return error(507, "Contact limit reached")
    return _answer(results, "activities", "No valid activities provided")


def _result(write: Callable[[], Record]) -> Record:
    try:
        return dict(write())
    except Invalid as refusal:
        return {"status": refusal.status, "error": str(refusal)}


def _answer(results: list[Record], key: str, nothing: str) -> Answer:
    """Returns a 200 if at least one was accepted, as far as was recorded; otherwise a 400 with details."""
    if all("error" in one for one in results):
        return error(400, f"{nothing} ({results[0]['error']})", details=results)
    return Answer(200, {key: results})


def _merge_one(account: Account, body: Mapping[str, Any], person: Any) -> Record:
    if not isinstance(person, dict) or not isinstance(person.get("fields"), dict):
        raise Invalid("failed to validate person")
    values = person["fields"]
    for name, value in values.items():
        _check_field(account, name, value)
    email = values.get("str::email")
    if not email and not values.get("str::ei"):
        raise Invalid("an email or an external id is required")
    if email and email.lower() in account.suppressed and body.get("suppression_list_field_id") == "str::email":
        raise Suppressed("Email is suppressed")
    id_ = _found(account, body.get("merge_by") or ["str::email"], values)
    if id_ is None and account.most_contacts is not None and account.total() >= account.most_contacts:
        raise Full
    status = "merged" if id_ else "created"
    id_ = account.write(id_, {name: value for name, value in values.items() if name != "str::person_id"})
    for tag in person.get("tags") or []:
        account.tags.setdefault(tag, set()).add(id_)
    for tag in person.get("unset_tags") or []:
        account.tags.get(tag, set()).discard(id_)
    return {"person_id": id_, "status": status}


def _found(account: Account, merge_by: list[str], values: Mapping[str, Any]) -> str | None:
    found = (account.find(field, values[field]) for field in merge_by if values.get(field))
    return next((id_ for id_ in found if id_), None)


def _create_one(account: Account, activity: Any) -> Record:
    kind = activity.get("activity_id") if isinstance(activity, dict) else None
    if kind not in account.custom_activities:
        raise Invalid(f"activity {kind}: Object not found")
    if len(json.dumps(activity)) > MOST_BYTES_EACH:
        raise Invalid("activity is too large")
    known = account.custom_activities[kind][1]
    attributes = activity.get("attributes") or {}
    for name, value in attributes.items():
        if name not in known and name != "int::v":
            raise Invalid(f"attribute {name} of {kind}: Object not found")
        _check_value(name, value)
    values = activity.get("fields") or {}
    for name, value in values.items():
        _check_field(account, name, value)
    id_ = activity.get("person_id") or _found(account, activity.get("merge_by") or ["str::email"], values)
    if id_ is None and account.most_contacts is not None and account.total() >= account.most_contacts:
        raise Full
    id_ = account.write(id_, values)
    if account.created_today(id_, kind) >= MOST_A_DAY:
        raise Invalid("activity limit reached")
    at = account.now()
    if activity.get("created"):
        at = int(datetime.fromisoformat(activity["created"]).timestamp())
        if at < account.now() - 90 * DAY:
            raise Invalid("created is too far in the past")
    account.add(id_, kind, at, attributes)
    account.created.append(dict(activity))
    return {"person_id": id_, "status": "ingested", "person_status": "merged"}


def _check_field(account: Account, name: str, value: Any) -> None:
    known = name in SYSTEM_FIELDS or name in account.custom_fields or name == "str::person_id"
    if not known or (name.startswith(READ_ONLY) and name not in account.custom_fields):
        raise Invalid(f"failed to validate field {name} in schema: {name}: Object not found")
    if name == "str::email" and not re.fullmatch(r"[^@\s]+@[^@\s]+", str(value)):
        raise Invalid("str::email: Invalid value")
    _check_value(name, value)


def _check_value(name: str, value: Any) -> None:
    """Raises Invalid if a value is not of the type that the field's name begins with."""
    kind = name.partition(":")[0]
    good = {
        "str": isinstance(value, str),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "bol": isinstance(value, bool),
        "phn": isinstance(value, dict) and ({"c", "n"} <= value.keys() or "phone" in value),
        "geo": isinstance(value, dict) and "name" in value,
        "dtz": isinstance(value, dict) and {"year", "month", "day"} <= value.keys(),
        "tme": isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", value) is not None,
    }
    if value is not None and not good.get(kind, True):
        raise Invalid(f"{name}: Invalid value")
