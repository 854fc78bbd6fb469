"""The fake's answers: Ortto's REST API."""

import json
import uuid
from collections.abc import Callable
from typing import Any

from fake_autopilot.http import Answer, Fake, Recent, Request

from . import writing
from .account import SYSTEM_FIELDS, Account
from .filters import Refused, test_of
from .made_up import AUDIENCES, RETENTION, SYSTEM_ACTIVITIES, Record, iso, number_of
from .writing import error

KEY = "ortto-0123456789abcdef0123456789abcdef"
NULL = b"null"  # the response in place of an empty list
MOST_BAD = 15  # malformed or wrongly authenticated requests in so many seconds
SECONDS = 15.0
JOURNEY_DAYS = 30  # how many days a journey's report counts
TIMEFRAMES = {
    "last-24-hours": 1,
    "last-7-days": 7,
    "last-14-days": 14,
    "last-30-days": 30,
    "all": RETENTION,
    "": RETENTION,
}


class FakeOrtto(Fake):
    """The server on a loopback port: `with FakeOrtto(people=250) as server: ... server.base_url, server.key ...`.

    In any second it answers `rate` requests, and the others with 429; every response takes `latency` seconds.
    Its attributes, which __init__ describes, change its behaviour until they are reset.
    """

    def __init__(
        self,
        people: int = 100,
        *,
        seed: int = 1,
        port: int = 0,
        host: str = "127.0.0.1",
        key: str = KEY,
        rate: int | None = None,
        latency: float = 0,
    ) -> None:
        super().__init__(host=host, port=port, rate=rate, latency=latency)
        self.account = Account(people, seed)
        self.key = key
        self.activity_rate: int | None = None  # like `rate`, for people's activities
        self.takes_filters = True  # accepts filters on times and activities
        self.takes_times = True  # knows the fields tme::…
        self.oldest_first = False
        self.before: Callable[[Request], object] = lambda _: None  # called before each response, to change the account
        self.drift = 0  # by how much a next_offset is too low, as when people leave while pages are read
        self.names_spans = True  # names the span of time that a journey's report counts
        self.bans = 0  # how often an address was banned
        self.cursors: dict[str, tuple[str, int, int]] = {}  # filter, position and offset of the next page
        self._bad = Recent(SECONDS)
        self._banned_until = 0.0
        self._activities = Recent()

    def answer(self, request: Request) -> Answer:
        """Returns the response to a request."""
        if request.at < self._banned_until:
            return Answer(403, b"Forbidden")
        answer = self._answer(request)
        if answer.status in (400, 401):
            self._note_bad(request.at)
        return answer

    def _answer(self, request: Request) -> Answer:
        if request.headers.get("x-api-key") != self.key:
            return error(401, "Invalid API key")
        is_feed = request.path == "/person/get/activities"
        if not self.passes(request.at) or (is_feed and not self._activities.takes(request.at, self.activity_rate)):
            return Answer(429, {"code": "rate-limit", "error": "Rate limit exceeded", "try-in-seconds": 1})
        make = ROUTES.get(request.path)
        if make is None or request.method != "POST":
            return error(404, "Not found")
        if not isinstance(request.body, dict):
            return error(400, "Failed to parse request: unexpected end of JSON input")
        self.before(request)
        with self.account.lock:
            return make(self, request.body)

    def _note_bad(self, at: float) -> None:
        if not self._bad.takes(at, MOST_BAD - 1):
            self._banned_until = at + SECONDS
            self.bans += 1
            self._bad.clear()


# ---- people --------------------------------------------------------------------------------------------------------


def _people(server: FakeOrtto, body: Record) -> Answer:
    limit, offset, cursor = body.get("limit", 50), body.get("offset", 0), body.get("cursor_id")
    asked = body.get("fields") or []
    if not isinstance(limit, int) or not 1 <= limit <= 500 or not isinstance(asked, list) or len(asked) > 150:
        return error(400, "One or more attributes is invalid")
    if refused := _unknown_field(server, asked):
        return refused
    if cursor is not None and (not isinstance(cursor, str) or cursor not in server.cursors):
        text = "Failed to parse request cannot unmarshal into an ID, the length must be 12 or 24 + 2 for hex"
        return error(400, f"{text} but it is {len(str(cursor)) + 2}: Object not found")
    try:
        chosen = _chosen(server, body.get("filter"), body.get("audience_id"))
    except Refused as refusal:
        return error(400, str(refusal))
    key = json.dumps([body.get("filter"), body.get("audience_id")], sort_keys=True)
    known, position, matched = server.cursors.get(cursor or "", ("", 0, 0))
    start = (position, matched) if (known, matched) == (key, offset) else (0, 0)
    contacts, end, matched = _page(server, chosen, start, limit, offset)
    total = server.account.total()
    answer: Record = {
        "contacts": [{"id": id_, "fields": _only(fields, asked)} for id_, fields in contacts] or None,
        "meta": {"total_contacts": total, "total_matches": matched if body.get("filter") else total},
        "offset": offset,
        "next_offset": offset + len(contacts) - (server.drift if end is not None else 0),
        "cursor_id": "0" * 24 if end is None else uuid.uuid4().hex[:24],
        "has_more": end is not None,
    }
    if end is not None:
        server.cursors[answer["cursor_id"]] = (key, end, offset + len(contacts))
    return Answer(200, answer)


def _page(
    server: FakeOrtto, chosen: Callable[[str, Record], bool], start: tuple[int, int], limit: int, offset: int
) -> tuple[list[tuple[str, Record]], int | None, int]:
    """Returns who matches from `offset` on, the position of the next match, and the number of matches so far.

    `start` is a position, with the number of matches before it.
    """
    position, matched = start
    found: list[tuple[str, Record]] = []
    for at, id_ in server.account.ids(position):
        fields = server.account.fields(id_) or {}
        if not chosen(id_, fields):
            continue
        if len(found) == limit:
            return found, at, matched
        if matched >= offset:
            found.append((id_, fields))
        matched += 1
    return found, None, matched


def _only(fields: Record, asked: list[str]) -> Record:
    return {name: fields[name] for name in asked if name in fields}


def _chosen(server: FakeOrtto, body: Any, audience: str | None) -> Callable[[str, Record], bool]:
    def members(audience: str) -> Callable[[str], bool]:
        every = server.account.members(audience)
        return lambda id_: bool(every) and (number_of(id_) or 0) % every == 0

    if body is None:
        is_member = members(audience) if audience else None
        return lambda id_, _: is_member is None or is_member(id_)
    return test_of(body, times=server.takes_filters, members=members)


def _unknown_field(server: FakeOrtto, asked: list[str]) -> Answer | None:
    for name in asked:
        known = name in SYSTEM_FIELDS or name in server.account.custom_fields
        if not known and not (server.takes_times and name.startswith("tme::")):
            return error(400, f"failed to validate field {name} in schema: {name}: Object not found")
    return None


def _by_ids(server: FakeOrtto, body: Record) -> Answer:
    ids, asked = body.get("contact_ids"), body.get("fields") or []
    if not isinstance(ids, list):
        return error(400, "One or more attributes is invalid")
    found = {id_: server.account.fields(id_) for id_ in ids}
    return Answer(
        200,
        {
            "contacts": {
                id_: {"id": id_, "fields": _only(fields, asked)} for id_, fields in found.items() if fields is not None
            }
        },
    )


def _activities(server: FakeOrtto, body: Record) -> Answer:
    id_, kinds = body.get("person_id"), body.get("activities") or []
    limit, offset, frame = (
        body.get("limit", 40),
        body.get("offset", 0),
        (body.get("timeframe") or {}).get("type", "all"),
    )
    if not isinstance(id_, str) or len(id_) != 24:
        return error(400, "Failed to parse request cannot unmarshal into an ID: Object not found")
    if frame not in TIMEFRAMES or not isinstance(limit, int) or not 1 <= limit <= 40:
        return error(400, "One or more attributes is invalid")
    if server.account.fields(id_) is None:
        return error(404, f"Person {id_}: Object not found")
    since = iso(server.account.now() - TIMEFRAMES[frame] * 86_400)
    found = [one for one in server.account.activities(id_) if one["created_at"] >= since]
    found = [one for one in found if not kinds or one["field_id"] in kinds]
    if server.oldest_first:
        found.reverse()
    page = found[offset : offset + limit]
    meta: Record = {
        "total_activities": len(found),
        "field_ids": kinds or None,
        "has_more": offset + len(page) < len(found),
    }
    meta["retention"] = {"type": "time", "max_value": RETENTION}
    answer = {"activities": page or None, "meta": meta, "offset": offset, "next_offset": offset + len(page)}
    return Answer(200, answer)


# ---- the account ---------------------------------------------------------------------------------------------------


def _schema(server: FakeOrtto, body: Record) -> Answer:
    asked = body.get("namespaces") or []
    account = server.account
    system: Record = {
        name: {"id": name, "name": title, "display_type": kind} for name, (title, kind) in SYSTEM_FIELDS.items()
    }
    common = ("idt::c", "str::cn", "idt::ei", "str::asn", "str::s")
    for kind, (title, attributes) in SYSTEM_ACTIVITIES.items():
        system[kind] = _activity_field(kind, title, {name: (name, "text") for name in (*common, *attributes)})
        for end, words in (("f", "first"), ("l", "last")):
            name = f"tme::{kind.rpartition(':')[2]}!{end}"
            text = f"{title} {words} occurred"
            system[name] = {"id": name, "name": text, "read_only": True, "display_type": "time"}
    custom: Record = {
        name: {"id": name, "name": title, "display_type": kind} for name, (title, kind) in account.custom_fields.items()
    }
    for kind, (title, attrs) in account.custom_activities.items():
        custom[kind] = _activity_field(kind, title, attrs)
    spaces = {"": {"id": "", "fields": system}, "cm": {"id": "cm", "fields": custom}}
    return Answer(200, {"namespaces": {name: space for name, space in spaces.items() if not asked or name in asked}})


def _activity_field(kind: str, title: str, attributes: dict[str, tuple[str, str]]) -> Record:
    listed = [{"id": name, "name": text, "display_type": form} for name, (text, form) in attributes.items()]
    return {"id": kind, "name": title, "display_type": "activity_template", "attributes": listed}


def _custom_fields(server: FakeOrtto, _: Record) -> Answer:
    fields = [
        {"field": {"id": name, "name": title, "display_type": kind}, "tracked_value": False}
        for name, (title, kind) in server.account.custom_fields.items()
    ]
    return Answer(200, {"fields": fields or None})


def _audiences(server: FakeOrtto, body: Record) -> Answer:
    limit, offset = min(body.get("limit", 40), 40), body.get("offset", 0)
    made = server.account.made
    listed = [
        {"id": server.account.audience_id(name), "name": name, "members": -(-made // every) if every else 0}
        for name, every in AUDIENCES.items()
    ]
    return Answer(200, listed[offset : offset + limit] or NULL)


def _tags(server: FakeOrtto, _: Record) -> Answer:
    tags = [
        {"id": number, "name": name, "count": len(ids)}
        for number, (name, ids) in enumerate(server.account.tags.items(), 1)
    ]
    return Answer(200, tags or NULL)


def _campaigns(server: FakeOrtto, body: Record) -> Answer:
    limit, offset = body.get("limit", 50), body.get("offset", 0)
    if not isinstance(limit, int) or not 1 <= limit <= 50:
        return error(400, "One or more attributes is invalid")
    found = server.account.all_campaigns()
    page = []
    for campaign in found[offset : offset + limit]:
        counted = server.account.counts(campaign["id"])
        sums = {"delivered": counted["act::r"], "opens": counted["act::o"], "clicks": counted["act::c"]}
        page.append(campaign | sums)
    more = offset + len(page) < len(found)
    return Answer(200, {"campaigns": page or None, "next_offset": offset + len(page), "has_more": more})


def _report(server: FakeOrtto, body: Record) -> Answer:
    campaign = next((one for one in server.account.all_campaigns() if one["id"] == body.get("campaign_id")), None)
    if campaign is None:
        return error(404, "Campaign: Object not found")
    answer: Record = {"last_updated": iso(server.account.now()), "reports": None}
    if campaign["state"] == "draft":
        return Answer(200, answer | {"last_updated": "0001-01-01T00:00:00Z"})
    is_journey = campaign["type"] == "journey"
    since = iso(server.account.now() - JOURNEY_DAYS * 86_400) if is_journey else ""
    counted = server.account.counts(campaign["id"], since)
    sums = {
        "delivered": counted["act::r"],
        "opened": counted["act::o"],
        "clicked": counted["act::c"],
        "bounced": counted["act::b"],
        "invalid": 0,
        "unsubscribed": counted["act::u-all"],
    }
    if not is_journey:
        return Answer(200, answer | {"reports": {"performance": {"name": "Email performance"} | sums}})
    span = {"graph": {"from": since, "to": iso(server.account.now())}} if server.names_spans else {}
    performance = {"name": "Journey performance", "entered": 0, **span}
    reports = {"performance": performance, "revenue": {"name": "Attributed orders and revenue"} | sums}
    return Answer(200, answer | {"timeframe": {"type": "last-month"}, "reports": reports})


ROUTES: dict[str, Callable[[FakeOrtto, Record], Answer]] = {
    "/person/get": _people,
    "/person/get-by-ids": _by_ids,
    "/person/get/activities": _activities,
    "/person/custom-field/get": _custom_fields,
    "/person/merge": lambda server, body: writing.merge(server.account, body),
    "/activities/create": lambda server, body: writing.create(server.account, body),
    "/instance-schema/get": _schema,
    "/audiences/get": _audiences,
    "/tags/get": _tags,
    "/campaign/get-all": _campaigns,
    "/campaign/reports/get": _report,
}
