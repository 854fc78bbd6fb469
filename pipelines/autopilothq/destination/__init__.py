"""The dlt destination `autopilot`, and what the commands need to send without a pipeline."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, Optional, get_args

import dlt
from dlt.common.schema import TTableSchema

from ..clients.autopilot import BASE_URL, REQUESTS_PER_SECOND, Autopilot, AutopilotSettings, Upserted
from ..clients.decode import plain
from ..clients.urls import path_of
from ..display import json_text, visible
from ..errors import ApiError, AutopilothqError, InvalidSetting, NotAuthorized
from ..warehouses.dlt_internals import (
    DestinationTerminalException,
    DestinationTransientException,
    JsonlFileBatchIterator,
    ParquetFileBatchIterator,
    resolve_configuration,
)
from ..warehouses.resolve import make_destination
from .delivery_log import DeliveryLog
from .fields import SETTINGS, Fields
from .messages import Ignored, Item, from_row
from .sender import Account, Counts, Sender, Triggers, Unknown

__all__ = ["Counts", "DeliveryLog", "Settings", "autopilot", "deliver", "log_dataset", "settings"]

NAME = "autopilothq"
_ROWS = 1000
_log = logging.getLogger(__name__)


class Settings(NamedTuple):
    """What `[destination.autopilothq]` says; `autopilot` tells what each means."""

    api_key: str
    base_url: str
    requests_per_second: float
    fields: Mapping[str, str] | None
    triggers: Mapping[str, Any] | None
    unknown_traits: str
    user_id_field: str | None
    allow_http: bool = False

    def __repr__(self) -> str:
        return "Settings(...)"  # a key is among them


@dlt.destination(
    name=NAME,
    batch_size=0,  # whole files: the delivery log knows better than dlt how far a file was sent
    loader_file_format="typed-jsonl",
    naming_convention="direct",
    max_table_nesting=0,
    loader_parallelism_strategy="sequential",
)
def autopilot(
    items: Any,
    table: TTableSchema,
    api_key: str = dlt.secrets.value,
    base_url: str = BASE_URL,
    requests_per_second: float = REQUESTS_PER_SECOND,
    fields: Optional[dict] = None,  # type: ignore[type-arg] # noqa: UP045 - dlt injects these spellings
    triggers: Optional[dict] = None,  # type: ignore[type-arg] # noqa: UP045
    unknown_traits: str = "send",
    user_id_field: Optional[str] = None,  # noqa: UP045
    allow_http: bool = False,
    log: Any = None,
) -> None:
    """Autopilot as a dlt destination: each row identifies a contact; Segment's messages do what they say.

    Args:
        items: The file that dlt hands over.
        table: What its columns are.
        api_key: The account's key.
        base_url: Another address of the API.
        requests_per_second: For everything in this process that uses the key.
        fields: Paths of traits, and the account's fields that they are written to.
        triggers: Names of events, and the ids of the triggers of their journeys, one or several.
        unknown_traits: What to do with traits that the account has no field for: `send` or `refuse` the message.
        user_id_field: The custom field that holds your own id of a contact.
        allow_http: Whether the key may go over plain http to another machine.
        log: The dlt dataset that keeps the delivery log; else the one that dlt's configuration names.

    Example: `dlt.pipeline("to_autopilot", destination=autopilot()).run([{"email": "a@example.com", "plan": "pro"}])`.
    """
    given = Settings(
        api_key, base_url, requests_per_second, fields, triggers, unknown_traits, user_id_field, allow_http
    )
    try:
        with DeliveryLog(log if log is not None else log_dataset()) as deliveries:
            counts = deliver(_items(str(items), table), deliveries, given)
    except (InvalidSetting, NotAuthorized) as error:
        raise _hopeless(error) from error
    if counts.failed:
        why = next(words for (status, words) in counts.reasons if status == "failed")
        raise Failed(f"{counts.failed} of {counts.messages} rows could not be delivered: {why}")
    for (status, why), number in counts.reasons.items():
        _log.warning("%d rows were %s: %s", number, status, why)


class Failed(AutopilothqError, DestinationTransientException):
    """Rows that could not be delivered now: dlt keeps them, and tries again."""


class Hopeless(AutopilothqError, DestinationTerminalException):
    """The key or a setting is wrong: no row could be delivered."""


def _hopeless(error: ApiError) -> Exception:
    """Ends the run at once, but where dlt is set to drop what failed for good: then it is kept, and tried again."""
    drops = dlt.config.get("load.auto_abort_on_terminal_error", bool)
    return Failed(str(error)) if drops else Hopeless(str(error))


def _items(path: str, table: TTableSchema) -> Iterator[Item | Ignored]:
    columns = list(table["columns"])
    if path.endswith(".parquet"):
        for batch in ParquetFileBatchIterator(path, _ROWS, 0, columns):
            yield from map(from_row, batch.to_pylist())
    else:
        for rows in JsonlFileBatchIterator(path, _ROWS, 0, columns):
            yield from map(from_row, rows)


def settings(**given: Any) -> Settings:
    """What dlt's configuration says, but where something is `given` that is not None."""
    explicit = {name: value for name, value in given.items() if value is not None}
    found = resolve_configuration(autopilot().spec(), sections=("destination", NAME), explicit_value=explicit)
    return Settings(*(getattr(found, name) for name in Settings._fields))


def log_dataset(
    destination: str | None = None,
    credentials: str | None = None,
    dataset: str | None = None,
    reads: bool = False,
    wait: timedelta = timedelta(),
) -> dlt.Dataset:
    """The dataset that is asked and keeps the log: dlt's words, what is None is configured or a local DuckDB.

    Who only `reads` makes no file, and opens one for reading alone.
    """
    place, name = make_destination(destination, credentials, dataset, not reads, wait, reads)
    return dlt.dataset(place, name, schema=dlt.Schema(NAME))


def deliver(
    items: Iterable[Item | Ignored],
    log: DeliveryLog,
    given: Settings,
    progress: Callable[[Counts], None] = lambda _: None,
    show: Callable[[str], None] | None = None,
) -> Counts:
    """Sends items to the account of the settings; with `show`, tells what would be sent, and sends nothing.

    Raises ApiError, before anything is sent, where the settings do not fit the account.
    """
    if given.unknown_traits not in get_args(Unknown):
        raise InvalidSetting(f"{SETTINGS}.unknown_traits must be send or refuse, got {given.unknown_traits!r}")
    api = AutopilotSettings(
        api_key=given.api_key,
        base_url=given.base_url,
        requests_per_second=given.requests_per_second,
        allow_http=given.allow_http,
        setting=f"{SETTINGS}.api_key",
    )
    with Autopilot(api) as account:
        fields = Fields(plain(account.custom_fields()), given.fields, given.user_id_field)
        triggers = Triggers(account, given.triggers)
        to: Account = Shown(account, show, given.base_url) if show else account
        return Sender(to, fields, triggers, log, given.unknown_traits, progress).send(items)


class Shown:
    """An account that is read, and whose requests to write are shown instead of sent. The key is in none of them."""

    def __init__(self, account: Autopilot, show: Callable[[str], None], base_url: str) -> None:
        self.attempts = 0
        self.contact = account.contact
        self.contacts = account.contacts
        self.custom_fields = account.custom_fields
        self.triggers = account.triggers
        self._show = show
        self._base = base_url.rstrip("/")

    def upsert_many(self, contacts: Sequence[Mapping[str, Any]]) -> Upserted:
        """Shows the request."""
        self._request(["contacts"], {"contacts": contacts})
        return Upserted([], {})

    def upsert(self, contact: Mapping[str, Any]) -> str:
        """Shows the request."""
        self._request(["contact"], {"contact": contact})
        return ""

    def trigger(self, trigger_id: str, who: str) -> None:
        """Shows the request."""
        self._request(["trigger", trigger_id, "contact", who])

    def _request(self, path: Sequence[str], body: Any = None) -> None:
        text = "" if body is None else f"\n{json_text(body)}"
        self._show(f"POST {visible(self._base)}{path_of(path)}{text}")
