"""The dlt destination `autopilot`, and the functions with which the commands send without a pipeline."""

import logging
from collections.abc import Callable, Iterable
from typing import Any, Optional

import dlt
from dlt.common.schema import TTableSchema

from ..clients.autopilot import BASE_URL, REQUESTS_PER_SECOND
from ..clients.settings import API_TYPES, MAX_ATTEMPTS, TIMEOUT
from ..display import plural
from ..errors import InvalidSetting, NotAuthorized
from .counts import Counts
from .delivery_log import DeliveryLog
from .errors import DeliveryFailed, DeliveryImpossible, terminal_error
from .kind import ACCOUNT_KINDS, AUTOPILOT
from .load_package import finish_file, path_of_file, resolve_options, rows_of
from .messages import Ignored, Item, from_row
from .opening import open_account
from .plan import UNMAPPED
from .preview import Preview
from .run_state import RunState
from .sender import Sender
from .settings import (
    NAME,
    SECTION,
    WHOLE_FILES,
    AnySettings,
    DestinationSettings,
    OrttoDestinationSettings,
    check_configuration,
    log_dataset,
    log_dataset_of,
    refuses_unknown_settings,
)

__all__ = [
    "ACCOUNT_KINDS",
    "Counts",
    "DeliveryFailed",
    "DeliveryImpossible",
    "DeliveryLog",
    "DestinationSettings",
    "OrttoDestinationSettings",
    "Preview",
    "autopilot",
    "deliver",
    "log_dataset",
    "resolve_settings",
]

_log = logging.getLogger(__name__)
_IGNORED = (
    "a row with a message's id or parts counts as one of Segment's messages, and Autopilot does not take this type"
)


@refuses_unknown_settings
@dlt.destination(name=NAME, **WHOLE_FILES)
def autopilot(
    items: Any,
    table: TTableSchema,
    api_key: str = dlt.secrets.value,
    base_url: str = BASE_URL,
    requests_per_second: float = REQUESTS_PER_SECOND,
    timeout: float = TIMEOUT,
    tries: int = MAX_ATTEMPTS,
    fields: Optional[dict] = None,  # type: ignore[type-arg] # noqa: UP045 - dlt injects these spellings
    triggers: Optional[dict] = None,  # type: ignore[type-arg] # noqa: UP045
    unknown_traits: str = "send",
    user_id_field: Optional[str] = None,  # noqa: UP045
    allow_http: bool = False,
    log: Any = None,
) -> None:
    """Autopilot as a dlt destination: each row identifies a contact, and Segment messages keep their own meaning.

    Args:
        items: The file that dlt hands over.
        table: The schema of its table.
        api_key: The account's key.
        base_url: Another address of the API.
        requests_per_second: The most requests in a second, by everything in this process that uses the key.
        timeout: Seconds for connecting, and between any two bytes of an answer.
        tries: How often a request is sent at most.
        fields: Paths of traits, and the account's fields that they are written to.
        triggers: Names of events, each with the id of its journey's trigger, or with a list of ids.
        unknown_traits: What to do with traits that the account has no field for: `send` or `refuse` the message.
        user_id_field: The custom field that holds your own id of a contact.
        allow_http: Whether the key may go over plain http to another machine.
        log: The dlt dataset that keeps the delivery log; by default the one that dlt's configuration names.

    Example: `dlt.pipeline("to_autopilot", destination=autopilot()).run([{"email": "a@example.com", "plan": "pro"}])`.
    """
    api = {"api_key": api_key, "base_url": base_url, "requests_per_second": requests_per_second}
    api |= {"timeout": timeout, "tries": tries}
    mappings = {"fields": fields, "triggers": triggers}
    more = {"unknown_traits": unknown_traits, "user_id_field": user_id_field, "allow_http": allow_http}
    _deliver_file(items, table, DestinationSettings.from_options(**api, **mappings, **more), log)


def _deliver_file(items: Any, table: TTableSchema, settings: DestinationSettings, log: Any) -> None:
    """Sends the rows of a file of a load package. Raises DeliveryFailed or DeliveryImpossible, for dlt to handle."""
    try:
        check_configuration(SECTION, autopilot)
        path = path_of_file(items, table, SECTION)
        with DeliveryLog(log_dataset_of(log)) as deliveries:
            counts = deliver(map(from_row, rows_of(path, table)), deliveries, settings, gives_up=True)
    except (InvalidSetting, NotAuthorized) as error:
        raise terminal_error(error) from error
    # Bad rows must not hold up all later ones.
    finish_file(counts, counts.failed + counts.unsettled > counts.bad, "delivered", _log)
    if counts.not_meant:
        _log.info("%s not meant for Autopilot", plural(counts.not_meant, "row was", "rows were"))
    for type_, number in counts.ignored.items():
        _log.warning("%s of type %s not sent: %s", plural(number, "row"), type_, _IGNORED)
    if counts.unmapped:
        _log.warning("%s: %s", UNMAPPED, ", ".join(counts.unmapped))


def resolve_settings(**explicit: Any) -> DestinationSettings:
    """Returns the settings of dlt's configuration. Those in `explicit` that are not None take precedence.

    Example: `resolve_settings(unknown_traits="refuse")`.
    """
    found = resolve_options(SECTION, autopilot, explicit)
    more = ("fields", "triggers", "unknown_traits", "user_id_field")
    return DestinationSettings.from_options(**{name: getattr(found, name) for name in (*API_TYPES, *more)})


def deliver(
    items: Iterable[Item | Ignored],
    log: DeliveryLog,
    settings: AnySettings,
    progress: Callable[[Counts], None] = lambda _: None,
    preview: Preview | None = None,
    show: Callable[[str], None] | None = None,
    gives_up: bool = False,
) -> Counts:
    """Sends items to the account that the settings name, and returns the counts of their outcomes.

    With a `preview`, requests that would write are not sent: the preview gets them, and `show` is called with the text
    of each. `gives_up` is as in `RunState`. Raises ApiError before anything is sent if the settings do not fit the
    account.

    Example: `with DeliveryLog(log_dataset()) as log: deliver(map(from_line, lines), log, resolve_settings())`.
    """
    with open_account(settings, preview, show) as to:
        state = RunState.new(to, log)
        state.gives_up = gives_up
        counts = Sender(to, log, state, progress=progress).send(items)
        if preview is not None:
            preview.known, preview.labels, preview.journeys = to.fields.keys, to.fields.labels, to.triggers.journeys()
            preview.is_compared = to.kind is AUTOPILOT
        return counts
