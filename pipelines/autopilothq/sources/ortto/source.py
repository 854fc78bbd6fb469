"""Ortto's API as a dlt source: the email activities of its people, and the account's other records."""

from collections.abc import Iterable
from math import inf
from typing import Annotated, Any

import dlt
from dlt import Schema
from dlt.sources import DltResource

from ...catalog import MAX_EVENT_TABLES
from ...clients.auth import missing_key
from ...clients.ortto import Ortto, OrttoSettings
from ...clients.ortto_requests import ACTIVITY_REQUESTS_PER_SECOND, ORTTO_REQUESTS_PER_SECOND
from ...clients.settings import MAX_ATTEMPTS, TIMEOUT
from ...errors import InvalidSetting
from ...warehouses.dlt_internals import NotResolved
from ...warehouses.hints import SOURCE
from ...warehouses.settings import typed_settings
from ..plan import LoadSettings
from ..report import ProgressCallback, no_progress
from ..resources import resources
from ..settings import Names, Time, check_origin_settings, short_digest, split_names
from ..times import read_setting_time
from .activities import ORTTO_SETTINGS
from .load import ACTIVE, PullSettings
from .origin import OrttoPull


# In the section above this one, settings with the same names are those of Autopilot's API, whose key must not be sent
# to Ortto. With None as default, dlt would use them all the same.
@dlt.source(schema=Schema(SOURCE), section=SOURCE, max_table_nesting=0)
def ortto(
    api_key: Annotated[str, NotResolved()] = "",
    region: str = "",
    base_url: Annotated[str, NotResolved()] = "",
    requests_per_second: Annotated[float, NotResolved()] = ORTTO_REQUESTS_PER_SECOND,
    activity_requests_per_second: float = ACTIVITY_REQUESTS_PER_SECOND,
    people: str = ACTIVE,
    activities: Names | None = None,
    personal: bool = False,
    since: Annotated[Time, NotResolved()] = "",
    account: str | None = None,
    timeout: float = TIMEOUT,
    tries: int = MAX_ATTEMPTS,
    allow_http: bool = False,
    max_seconds: Annotated[float, NotResolved()] = inf,
    people_per_load: int | None = None,
    seconds_per_load: float = inf,
    max_event_tables: int = MAX_EVENT_TABLES,
    table_format: str | None = None,
    memory: int = 400,
    progress: ProgressCallback = no_progress,
) -> Iterable[DltResource]:
    """Returns Ortto's API as a dlt source: email activities, people, audiences, tags, campaigns, custom fields.

    Ortto keeps activities for 90 days; a request returns those of one person, and one request per second is allowed.
    Each run requests the activities of the people who were active since the last run.

    Raises InvalidSetting for a setting that is missing, misspelt or out of its range.

    Args:
        api_key: The account's custom API key, from dlt's secrets.
        region: The region of the account: au, eu, or empty.
        base_url: The API's address, if it is not the region's.
        requests_per_second: The highest rate of requests, except for people's activities.
        activity_requests_per_second: The same for people's activities; Ortto allows one.
        people: Whose activities: `active`, those who were active since the last run; `all`; a file of Ortto's ids,
            emails or user ids, one per line; or a query of the warehouse, whose first column has them.
        activities: Kinds of activities besides the usual ones, by id or name; `custom` means all custom ones, `all`
            all that there are.
        personal: Whether the texts of replies and the addresses in them are kept.
        since: The time of the first activity to load (ISO 8601; UTC if it has no zone).
        account: A name that you choose for the account, so that a new key continues where the last one stopped.
        timeout: Seconds without data after which a request times out.
        tries: How often a request is tried.
        allow_http: Whether the key may be sent over plain http to another machine.
        max_seconds: How long anything is fetched. What came by then is loaded; the next run continues from there.
        people_per_load: The most people that a load handles; `LoadReport.people_total` is how many were due.
        seconds_per_load: How long activities are requested in one load.
        max_event_tables: How many tables of events that the catalogue does not know the dataset may have.
        table_format: dlt's table format in a lake, `delta`. None leaves it to the destination.
        memory: What the engine, DuckDB in process, may use before it spills to disk, in MB.
        progress: Called with the `LoadReport` after each page and each person.

    Example: `pipeline.run(ortto().with_resources("_profiles", "email_opened", "ortto_people"))`.
    """
    max_seconds = _number(max_seconds, "max_seconds", inf)
    check_origin_settings(
        "ortto",
        memory=memory,
        max_event_tables=max_event_tables,
        max_seconds=max_seconds,
        people_per_load=people_per_load,
        seconds_per_load=seconds_per_load,
    )
    settings = OrttoSettings(
        api_key=str(api_key or _setting("api_key", dlt.secrets) or _no_key()),
        region=region,
        base_url=str(base_url or _setting("base_url") or ""),
        requests_per_second=_number(requests_per_second, "requests_per_second", ORTTO_REQUESTS_PER_SECOND),
        activity_requests_per_second=activity_requests_per_second,
        timeout=timeout,
        tries=tries,
        allow_http=allow_http,
    )
    pull = PullSettings(
        people,
        tuple(filter(None, split_names(activities or (), "activities"))),
        read_setting_time(since or _setting("since")),
        personal,
        people_per_load,
        seconds_per_load,
        max_seconds,
    )
    base = settings.base_url.rstrip("/")
    origin = OrttoPull(Ortto(settings), base, short_digest(base, account or settings.api_key.strip()), pull)
    return resources(origin, LoadSettings(memory // 2, memory // 4, progress, table_format, max_event_tables))


def _setting(name: str, provider: Any = dlt.config) -> Any:
    return provider.get(f"{ORTTO_SETTINGS}.{name}")


def _number(given: float, name: str, default: float) -> float:
    """Returns the given number; if that is the default, the configured number takes precedence, if there is one."""
    configured: dict[str, float] = typed_settings(ORTTO_SETTINGS, {name: float}) if given == default else {}
    return configured.get(name, given)


def _no_key() -> str:
    raise InvalidSetting(missing_key("the custom API key of an account of Ortto", f"{ORTTO_SETTINGS}.api_key"))
