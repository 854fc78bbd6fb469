"""Segment's Profile API as a dlt source: complete email events, person by person."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import dlt
from dlt import Schema
from dlt.sources import DltResource

from ...catalog import MAX_EVENT_TABLES
from ...clients.auth import missing_key
from ...clients.autopilot import BASE_URL
from ...clients.autopilot import REQUESTS_PER_SECOND as AUTOPILOT_PER_SECOND
from ...clients.profile_api import BASE_URLS, PROFILE_REQUESTS_PER_SECOND
from ...clients.settings import MAX_ATTEMPTS, TIMEOUT
from ...errors import InvalidSetting
from ...warehouses.dlt_internals import NotResolved
from ...warehouses.hints import SOURCE
from ...warehouses.settings import setting
from ..plan import LoadSettings
from ..report import ProgressCallback, no_progress
from ..resources import resources
from ..settings import RequestSettings, Time, check_origin_settings, short_digest, split_names
from ..times import read_setting_time
from .events import EVENT_NAMES, EventScope
from .origin import SETTINGS, Contacts, Space


@dlt.source(schema=Schema(SOURCE), section=SOURCE, max_table_nesting=0)
def profiles(
    token: dlt.TSecretStrValue = dlt.secrets.value,
    space: str = dlt.config.value,
    region: str = "us",
    # `NotResolved` and no None: otherwise dlt would use the settings of Autopilot's API in the section above this one.
    base_url: Annotated[str, NotResolved()] = "",
    requests_per_second: Annotated[float, NotResolved()] = PROFILE_REQUESTS_PER_SECOND,
    people: str | None = None,
    source_id: str | None = None,
    events: Annotated[str | Sequence[str], NotResolved()] = "",
    since: Time | None = None,
    timeout: float = TIMEOUT,
    tries: int = MAX_ATTEMPTS,
    allow_http: bool = False,
    people_per_load: int | None = None,
    max_event_tables: int = MAX_EVENT_TABLES,
    table_format: str | None = None,
    memory: int = 400,
    progress: ProgressCallback = no_progress,
) -> Iterable[DltResource]:
    """Returns Segment's Profile API as a dlt source: the complete events of the last 14 days.

    Each run requests what is new since a person's last request, which the table `_profiles` records.

    Raises InvalidSetting for a setting that is empty, misspelt or out of its range, or if there is neither `people` nor
    a key of Autopilot.

    Args:
        token: An access token of the space, from dlt's secrets.
        space: The id of the space of Segment Unify.
        region: The region of the space: us or eu.
        base_url: The API's address, if it is not the region's.
        requests_per_second: The highest rate of requests, which are sent in parallel.
        people: Whose events: `api`, Autopilot's contacts with new email activity, the default if a key of Autopilot
            is set; a file of emails or user ids, one per line; or a query of the warehouse with one column.
        source_id: The one Segment source whose events are loaded.
        events: The names of the events, by default the seven of Autopilot.
        since: The time of the first event to load (ISO 8601; UTC if it has no zone).
        timeout: Seconds without data after which a request times out.
        tries: How often a request is tried.
        allow_http: Whether the token, and the key of Autopilot, may be sent over plain http to another machine.
        people_per_load: The most people that a load handles; `LoadReport.people_total` is how many were due.
        max_event_tables: How many tables of events that the catalogue does not know the dataset may have.
        table_format: dlt's table format in a lake, `delta`. None leaves it to the destination.
        memory: What the engine, DuckDB in process, may use before it spills to disk, in MB.
        progress: Called with the `LoadReport` after each person.

    Example: `pipeline.run(profiles(space="spa_1", people="select email from contacts"))`.
    """
    check_origin_settings("profiles", memory=memory, max_event_tables=max_event_tables, people_per_load=people_per_load)
    requests = _requests(region, base_url, requests_per_second)._replace(
        timeout=timeout, tries=tries, allow_http=allow_http
    )
    scope = EventScope(_names(events), source_id, read_setting_time(since))
    people = people or _default_people()
    contacts = _contacts(requests) if people == "api" else None
    origin = Space(requests.profile_api(token, space), requests, space, people, scope, contacts, people_per_load)
    return resources(origin, LoadSettings(memory // 2, memory // 4, progress, table_format, max_event_tables))


def _requests(region: str, base_url: str, per_second: float) -> RequestSettings:
    """Returns the settings of requests to the space. Raises InvalidSetting for an unknown region."""
    if region not in BASE_URLS:
        raise InvalidSetting(f"{SETTINGS}.region must be {' or '.join(BASE_URLS)}, got {region!r}")
    url = str(base_url or _setting("base_url") or BASE_URLS[region])
    if per_second == PROFILE_REQUESTS_PER_SECOND and (own := _setting("requests_per_second")) is not None:
        per_second = own
    return RequestSettings(url, float(per_second))


def _setting(name: str) -> Any:
    return dlt.config.get(f"{SETTINGS}.{name}")


def _names(events: str | Sequence[str]) -> tuple[str, ...]:
    given = events or _setting("events") or ()
    names = tuple(dict.fromkeys(filter(None, split_names(given, "events"))))
    for name in names:
        if "," in name:
            raise InvalidSetting(f"{SETTINGS}.events: the API cannot be asked for {name!r}, whose name has a comma")
    return names or EVENT_NAMES


def _default_people() -> str:
    if _of_autopilot("api_key"):
        return "api"
    raise InvalidSetting(
        f"Whose events? Set sources.{SOURCE}.api_key to look for Autopilot's contacts, or {SETTINGS}.people (--people)"
        " to a file of emails or user ids, or to a query of the warehouse."
    )


def _contacts(requests: RequestSettings) -> Contacts:
    """Returns the account whose contacts are the people; its timeouts are those of the space.

    Raises InvalidSetting if there is no key.
    """
    key = _of_autopilot("api_key")
    if not key:
        raise InvalidSetting(missing_key("the key of Autopilot's API", f"sources.{SOURCE}.api_key"))
    url = str(_of_autopilot("base_url") or BASE_URL)
    per_second = float(_of_autopilot("requests_per_second") or AUTOPILOT_PER_SECOND)
    to_autopilot = requests._replace(base_url=url, requests_per_second=per_second)
    return Contacts(to_autopilot.autopilot(str(key)), short_digest(url, str(key)))


def _of_autopilot(name: str) -> Any:
    """Returns a setting of Autopilot's API, or None if neither dlt's secrets nor its configuration has it."""
    own = setting(f"sources.{SOURCE}.api.{name}")
    return setting(f"sources.{SOURCE}.{name}") if own is None else own
