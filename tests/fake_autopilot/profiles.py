"""Segment's Profile API, made up: people of one space with their events (docs/contract/profile-api.md)."""

from base64 import b64decode
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from urllib.parse import parse_qs, unquote

from .http import Answer, Fake, Request

TOKEN = "token/of a+space"
SPACE = "spa_7Qx"


class FakeProfiles(Fake):
    """The server: `with FakeProfiles() as server: server.happen("email:a@b.c", "Email Opened") ...`.

    `everyone` is a function `(person) -> events` that makes events for any requested person.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        rate: int | None = None,
        latency: float = 0,
        everyone: Callable[[str], list[Any]] | None = None,
    ) -> None:
        super().__init__(host=host, port=port, rate=rate, latency=latency)
        self.token = TOKEN
        self.space = SPACE
        self.page = 100  # events at most
        self.people: dict[str, list[dict[str, Any]]] = {}
        self.everyone = everyone
        self.ids = count(1)

    def happen(self, person: str, event: str = "Email Opened", *, ago: float = 3600, **more: Any) -> dict[str, Any]:
        """Adds an event of a person, `ago` seconds ago, and returns it; `more` are its fields, `...` removes one."""
        at = datetime.now(UTC) - timedelta(seconds=ago)
        kind, _, value = person.partition(":")
        fields = {
            "external_ids": [{"collection": "users", "type": kind, "id": value, "encoding": "none"}],
            "context": {"traits": {"email": value}} if kind == "email" else {},
            "type": "track",
            "message_id": f"api-{next(self.ids):06d}",
            "source_id": "AbC123xYz9",
            "timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "event": event,
            "properties": {"campaign_id": "campaign_1", "email_id": "email_1"},
            "related": {"users": "use_RkjG0kW53igMijEISMH0vKBF4sL"},
            **more,
        }
        made = {name: field for name, field in fields.items() if field is not ...}
        self.people.setdefault(person, []).append(made)
        return made

    def asked(self) -> list[str]:
        """Returns the people who were requested since the last call, sorted, one for each first page."""
        firsts = [person_of(request) for request in self.requests if "next" not in query_of(request)]
        self.requests.clear()
        return sorted(firsts)

    def answer(self, request: Request) -> Answer:
        """Returns the response to a request."""
        answered = self._answer(request)
        return answered._replace(headers={"Request-Id": f"req-{len(self.requests):04d}", **answered.headers})

    def _answer(self, request: Request) -> Answer:
        if request.headers.get("authorization", "")[:6] != "Basic " or (
            b64decode(request.headers["authorization"][6:]).decode() != f"{self.token}:"
        ):
            return error(401, "authentication_error", "The token is not valid.")
        if not self.passes(request.at):
            return error(429, "rate_limit_error", "Too many requests.")
        raw = request.path.partition("?")[0].strip("/").split("/")
        if [raw[0], *raw[2:5], raw[-1]] != ["spaces", "collections", "users", "profiles", "events"] or len(raw) != 7:
            return error(404, "not_found", "Not found.")
        if unquote(raw[1]) != self.space:
            return error(403, "authentication_error", "No.")
        person = unquote(raw[5])
        if not all((part.isalnum() and part.isascii()) or part == "%" for part in raw[5]) or person != person.lower():
            return error(500, "internal", "An id that is not encoded, or not in lower case.")
        if person not in self.people and self.everyone is None:
            return error(404, "not_found", "Profile was not found.")
        return self._events(raw, person, query_of(request))

    def _events(self, raw: list[str], person: str, query: dict[str, str]) -> Answer:
        limit, sort = query.get("limit", "10"), query.get("sort", "desc")
        if not limit.isdigit() or not 1 <= int(limit) <= 100 or sort not in ("asc", "desc"):
            return error(400, "validation_error", "Invalid query.")
        made = self.everyone(person) if self.everyone else []
        found = list(_chosen([*made, *self.people.get(person, [])], query))
        found.sort(key=lambda event: event.get("timestamp", ""), reverse=sort == "desc")
        start, most = int(query.get("next", "c0")[1:]), min(self.page, int(limit))
        cursor: dict[str, Any] = {"url": "/v1/" + "/".join(raw), "has_more": len(found) > start + most}
        if cursor["has_more"]:
            cursor["next"] = f"c{start + most}"
        return Answer(200, {"data": found[start : start + most], "cursor": cursor})


def _chosen(events: Iterable[dict[str, Any]], query: dict[str, str]) -> Iterable[dict[str, Any]]:
    names = query["include"].split(",") if "include" in query else None
    begin = max(query.get("start", ""), ago(14))
    return (
        event
        for event in events
        if (names is None or event.get("event") in names) and begin <= str(event.get("timestamp", "9"))
    )


def ago(days: float) -> str:
    """Returns the time so many days before now, in the API's notation."""
    return (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def person_of(request: Request) -> str:
    """Returns the person whose events a request asks for."""
    return unquote(request.path.partition("?")[0].split("/")[-2])


def query_of(request: Request) -> dict[str, str]:
    """Returns the query parameters of a request."""
    return {name: values[0] for name, values in parse_qs(request.path.partition("?")[2]).items()}


def error(status: int, code: str, message: str) -> Answer:
    return Answer(status, {"error": {"code": code, "message": message}})
