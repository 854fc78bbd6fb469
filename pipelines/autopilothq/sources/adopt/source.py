"""Adopted tables as a dlt source."""

from collections.abc import Iterable, Mapping, Sequence

import dlt
from dlt import Schema
from dlt.sources import DltResource

from ...catalog import MAX_EVENT_TABLES
from ...warehouses.hints import SOURCE
from ..plan import LoadSettings
from ..report import ProgressCallback, no_progress
from ..resources import resources
from ..settings import Names, check_origin_settings, listed_names
from .origin import AdoptedTables
from .project import AdoptProjector


@dlt.source(schema=Schema(SOURCE), section=SOURCE, max_table_nesting=0)
def adopt(
    tables_url: Names | None = None,
    tables: Mapping[str, Sequence[str]] | None = None,
    database: dlt.TSecretValue = None,
    database_schema: str = "autopilothq",
    credentials: dlt.TSecretValue = None,  # with another type, dlt would keep them in its traces
    table_format: str | None = None,
    memory: int = 400,
    max_event_tables: int = MAX_EVENT_TABLES,
    progress: ProgressCallback = no_progress,
    cut_texts: dict[str, dict[str, int]] | None = None,
) -> Iterable[DltResource]:
    """Returns the tables that Segment's or RudderStack's loader left in a warehouse, as a dlt source.

    Raises InvalidSetting for a setting that is misspelt or out of its range.

    Args:
        tables_url: A folder of exported files, or several; local or `s3://`, `gs://`, `az://`.
        tables: Patterns of files below that folder, by table; without them, files and folders named like tables.
        database: A database to read the tables from instead: `postgresql://...` or `duckdb:///file`.
        database_schema: The schema of these tables in the database.
        credentials: For files in a cloud, as dlt knows them; by default the cloud's own.
        table_format: dlt's table format in a lake, `delta`. None leaves it to the destination.
        memory: What the engine, DuckDB in process, may use before it spills to disk, in MB.
        max_event_tables: How many tables of other events the dataset may have.
        progress: Called with the `LoadReport` after each step.
        cut_texts: A dict that receives the numbers of texts of exactly 512 characters, by table and column.

    Example: `pipeline.run(adopt("s3://bucket/unload/"))`.
    """
    check_origin_settings("adopt", memory=memory, max_event_tables=max_event_tables)
    urls = () if tables_url is None else tuple(listed_names(tables_url, "tables_url"))
    origin = AdoptedTables(urls, tables or {}, database, database_schema, credentials)
    settings = LoadSettings(memory, 0, progress, table_format, max_event_tables, projector=AdoptProjector(cut_texts))
    return resources(origin, settings)
