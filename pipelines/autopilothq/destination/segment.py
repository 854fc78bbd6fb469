"""The dlt destination `segment`: sends rows and messages to an API that accepts Segment's, as `forward` does."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import dlt
from dlt.common.schema import TTableSchema

from ..clients.segment_api import BATCH_REQUESTS_PER_SECOND, BATCH_URL, SegmentApi, SegmentApiSettings
from ..clients.settings import API_TYPES, MAX_ATTEMPTS, TIMEOUT
from ..errors import InvalidSetting, NotAuthorized
from ..segment.message import BODIES
from ..segment.rebuild import has_message_id, line_of_message
from .counts import Counts
from .errors import terminal_error
from .forward import Forwarder
from .forward_log import ForwardLog
from .load_package import finish_file, path_of_file, resolve_options, rows_of
from .outgoing import Outgoing, outgoing, outgoing_row
from .settings import WHOLE_FILES, check_configuration, log_dataset_of, refuses_unknown_settings

SEGMENT = "segment"
SEGMENT_SECTION = f"destination.{SEGMENT}"
_MESSAGE_KEYS = frozenset({"userId", "anonymousId", "properties", "traits"})
_log = logging.getLogger(__name__)


@refuses_unknown_settings
@dlt.destination(name=SEGMENT, **WHOLE_FILES)
def segment_destination(
    items: Any,
    table: TTableSchema,
    write_key: str = dlt.secrets.value,
    base_url: str = BATCH_URL,
    requests_per_second: float = BATCH_REQUESTS_PER_SECOND,
    timeout: float = TIMEOUT,
    tries: int = MAX_ATTEMPTS,
    allow_http: bool = False,
    log: Any = None,
) -> None:
    """Segment, or an API like it, as a dlt destination: rows become messages, and messages stay unchanged.

    Args:
        items: The file that dlt hands over.
        table: The schema of its table.
        write_key: The write key of the source that takes the messages.
        base_url: Where batches are posted to; without a path it is `/v1/batch`.
        requests_per_second: The most requests in a second, by everything in this process that uses the key.
        timeout: Seconds for connecting, and between any two bytes of an answer.
        tries: How often a request is sent at most.
        allow_http: Whether the key may go over plain http to another machine.
        log: The dlt dataset that keeps the log; by default the one that dlt's configuration names.

    Example: `dlt.pipeline("to_segment", destination=segment_destination()).run([{"user_id": "7", "plan": "pro"}])`.
    """
    limits: dict[str, Any] = {"requests_per_second": requests_per_second, "timeout": timeout, "tries": tries}
    settings = SegmentApiSettings(api_key=write_key, base_url=base_url, allow_http=allow_http, **limits)
    _forward_file(items, table, settings, log)


def _forward_file(items: Any, table: TTableSchema, settings: SegmentApiSettings, log: Any) -> None:
    """Forwards the rows of a file of a load package. Raises DeliveryFailed or DeliveryImpossible, for dlt to handle."""
    try:
        check_configuration(SEGMENT_SECTION, segment_destination)
        path = path_of_file(items, table, SEGMENT_SECTION)
        with ForwardLog(log_dataset_of(log)) as forwards:
            counts = forward_messages(map(_outgoing, rows_of(path, table)), forwards, settings)
    except (InvalidSetting, NotAuthorized) as error:
        raise terminal_error(error) from error
    # If others were delivered, bad rows must not hold up all later ones: they stay in the log as failed.
    send_again = counts.failed > 0 and not (counts.delivered or counts.known)
    finish_file(counts, send_again, "forwarded", _log)


def _outgoing(row: Mapping[str, Any]) -> Outgoing:
    return outgoing(line_of_message(row)) if _is_message(row) else outgoing_row(row)


def _is_message(row: Mapping[str, Any]) -> bool:
    """Returns whether a row is a message as Segment's libraries send it, rather than a row of a table."""
    is_typed = row.get("type") in BODIES
    return is_typed and (has_message_id(row) or any(row.get(key) is not None for key in _MESSAGE_KEYS))


def resolve_segment_settings(**explicit: Any) -> SegmentApiSettings:
    """Returns the settings of dlt's configuration. Those in `explicit` that are not None take precedence.

    Example: `resolve_segment_settings(base_url="https://hosted.example.com/v1/batch")`.
    """
    found = resolve_options(SEGMENT_SECTION, segment_destination, explicit)
    others = {name: getattr(found, name) for name in API_TYPES if name != "api_key"}
    return SegmentApiSettings(api_key=found.write_key, **others)


def forward_messages(
    messages: Iterable[Outgoing],
    log: ForwardLog,
    settings: SegmentApiSettings,
    progress: Callable[[Counts], None] = lambda _: None,
    show: Callable[[str], None] | None = None,
) -> Counts:
    """Forwards messages to the API that the settings name, and returns the counts of their outcomes.

    With `show`, no request is sent: `show` is called with the text of each. Raises ApiError if the run must stop.

    Example: `with ForwardLog(log_dataset()) as log: forward_messages(messages, log, settings)`.
    """
    with SegmentApi(settings) as api:
        return Forwarder(api, log, progress, show).send(messages)
