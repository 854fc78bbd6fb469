"""The routes as data: which paths there are, and how their bodies become lines. A new sender is a new row."""

import re
from collections.abc import Callable
from typing import NamedTuple

from .autopilot_hooks import hook_lines
from .messages import ArchiveLines, Arrival, Body, lines_of
from .ortto import ortto_lines

Adapter = Callable[[Body, Arrival], ArchiveLines]
"""Turns a parsed body into lines of the archive."""

_TYPES = ("track", "identify", "page", "screen", "group", "alias")


class Route(NamedTuple):
    """A path, its kind of endpoint, and the adapter that turns its bodies into lines.

    - `path`: a pattern, whose group `name` is the endpoint's name.
    - `adapter`: None if the route answers 200 and stores nothing.
    - `type_of`: the type of its messages; None if each message states its own.
    - `keeps_all`: whether it also stores unreadable bodies, because the sender would not send them again.
    - `key_in_query`: whether the query may have the write key as `key`, because the sender cannot set headers.
    """

    kind: str
    path: re.Pattern[str]
    adapter: Adapter | None
    type_of: str | None = None
    keeps_all: bool = False
    key_in_query: bool = False


class Endpoint(NamedTuple):
    """Where a sender sends to: the kind and the name, as in its settings and in its folder."""

    kind: str
    name: str = ""

    @property
    def folder(self) -> str:
        """The name of its folder, which metrics use as well: `v1`, `segment-shop`."""
        return "-".join(filter(None, self))


def batch(body: Body, arrival: Arrival) -> ArchiveLines:
    """Returns the lines of the messages in an envelope's `batch`."""
    return lines_of(body, arrival, batch=True)


def _path(text: str) -> re.Pattern[str]:
    return re.compile(text.replace("{name}", "(?P<name>[A-Za-z0-9][A-Za-z0-9_-]{0,63})") + "/?")


ROUTES = (
    # Segment's tracking API: one message per request, with its type in the path; browsers use the short paths.
    *(Route("v1", _path(f"/v1/(?:{name}|{name[0]})"), lines_of, name) for name in _TYPES),
    *(Route("v1", _path(f"/v1/{name}"), batch) for name in ("batch", "import", "b")),
    Route("v1", _path("/v1/m"), None),  # browsers' own metrics
    # Jitsu's API, for servers and for browsers.
    *(Route("v1", _path(f"/api/s/(?:s2s/)?{name}"), lines_of, name) for name in _TYPES),
    Route("segment", _path("/hook/segment/{name}"), lines_of),
    Route("rudder", _path("/hook/rudder/{name}"), lines_of),
    Route("autopilot", _path("/hook/autopilot/{name}"), hook_lines, keeps_all=True, key_in_query=True),
    Route("ortto", _path("/hook/ortto/{name}"), ortto_lines, keeps_all=True),
)


def find_route(path: str) -> tuple[Route, Endpoint] | None:
    """Returns the route of a path and its endpoint, or None if there is no such route.

    Example: `find_route("/hook/segment/shop")[1] == Endpoint("segment", "shop")`.
    """
    for route in ROUTES:
        if found := route.path.fullmatch(path):
            return route, Endpoint(route.kind, found.groupdict().get("name") or "")
    return None
