"""`autopilothq.source`: a dlt source of any origin."""

from collections.abc import Iterable, Sequence

import dlt
from dlt import Schema
from dlt.sources import DltResource, DltSource

from ..catalog import MAX_EVENT_TABLES
from ..warehouses.hints import SOURCE
from .event_filter import requested_messages
from .origin import Origin, W
from .plan import LoadSettings
from .report import ProgressCallback, no_progress
from .resources import resources
from .settings import check_numbers


def source(
    origin: Origin[W],
    *,
    events: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    memory: int = 400,
    max_event_tables: int = MAX_EVENT_TABLES,
    table_format: str | None = None,
    progress: ProgressCallback = no_progress,
) -> DltSource:
    """Returns a dlt source whose messages come from an origin: the `autopilothq` schema with all its guarantees.

    All sources share the dlt schema `autopilothq`, so that their messages go into the same tables of a dataset, and a
    message that two of them deliver is stored once.

    Raises InvalidSetting for a number out of its range or a table that the catalogue does not have, and NotSupported
    for `events` together with `exclude`, or a name that no event can have.

    Args:
        origin: An object of a class that implements `Origin`.
        events: The names of events, as sent or of their tables: only their messages are loaded.
        exclude: The names of events that are not loaded; all others are. Not together with `events`.
        memory: What a load may use before it spills to disk, in MB; half of it is for the origin.
        max_event_tables: How many tables of events that the catalogue does not know the dataset may have.
        table_format: dlt's table format in a lake, `delta`. None leaves it to the destination.
        progress: Called with the `LoadReport` after each step.

    Example: `dlt.pipeline("events", destination="duckdb").run(autopilothq.source(WebhookDump(Path("dump"))))`.
    """
    check_numbers(memory=memory, max_event_tables=max_event_tables)
    messages = requested_messages(events, exclude)
    settings = LoadSettings(memory // 2, memory // 2, progress, table_format, max_event_tables, messages)

    @dlt.source(schema=Schema(SOURCE), section=SOURCE, max_table_nesting=0)
    def tables_of_origin() -> Iterable[DltResource]:
        return resources(origin, settings)

    return tables_of_origin()
