"""dlt's hints for tables: columns with their types and descriptions, and how rows are merged."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, cast

import dlt
import pyarrow as pa
from dlt.common.schema.typing import TColumnSchema
from dlt.destinations import filesystem

from ..catalog import (
    ACCOUNTS,
    AUDIT,
    CONTACTS,
    CURRENT,
    LIMITS,
    LINK,
    MAX_NAME,
    ORTTO_PEOPLE,
    OTHER_LIMITS,
    PROFILES,
    PROPERTIES,
    TABLES,
    TRACKS,
    USERS,
    Layout,
    Limits,
    Native,
    Table,
    Type,
)
from ..display import visible
from ..errors import CannotMerge
from ..projection.types import ARROW
from .dlt_internals import (
    DLT_NAME_PREFIX,
    NamingConvention,
    TLoaderMergeStrategy,
    TTableSchemaColumns,
    TWriteDispositionDict,
)
from .dlt_internals.clients import CLUSTER_COLUMNS_HINT
from .native import ALL_ROWS, COPY_HINT, SEGMENT_TABLE_HINT, copy_description

SOURCE = "autopilothq"

REPLACED = (USERS, ACCOUNTS, AUDIT, PROFILES, CONTACTS, ORTTO_PEOPLE, *CURRENT)
# Merge strategies, the best first, by whether stored rows of a table are replaced. Messages stay as first stored.
# PostgreSQL refuses an upsert of rows that a killed load put into staging twice.
STRATEGIES: dict[bool, tuple[TLoaderMergeStrategy, ...]] = {
    False: ("insert-only", "delete-insert"),
    True: ("delete-insert", "upsert"),
}


LEAST_MAX_NAME = 63
"""The lowest limit that a destination sets on the length of names: PostgreSQL's."""

# The only table format for a lake that needs no catalogue and is tested here.
LAKE_FORMAT = "delta"


def merge_with(strategy: TLoaderMergeStrategy) -> TWriteDispositionDict:
    """Returns the write disposition `merge` with a strategy."""
    return cast(TWriteDispositionDict, {"disposition": "merge", "strategy": strategy})


def capabilities_of(pipeline: dlt.Pipeline) -> Any:
    """Returns the capabilities of a pipeline's destination; cached, because dlt derives them again at each call."""
    return _capabilities_of(pipeline.destination)


@lru_cache(8)
def _capabilities_of(destination: Any) -> Any:
    return destination.capabilities()


def merge_strategies(pipeline: dlt.Pipeline, table_format: Any) -> Sequence[str]:
    """Returns the merge strategies of a pipeline's destination for a table format; None: the destination's default.

    Raises CannotMerge if the destination does not have the format or would only append, or if the Delta library cannot
    open a lake's folder.
    """
    capabilities = capabilities_of(pipeline)
    lake = isinstance(pipeline.destination, filesystem)
    formats = (LAKE_FORMAT,) if lake else capabilities.supported_table_formats or ()
    if table_format is None and lake:
        raise CannotMerge(
            "Expected a destination that can merge, but dlt can only append to plain files: messages would be stored"
            f" twice.\n{_CHOOSE}"
        )
    if table_format is not None and table_format not in formats:
        raise CannotMerge(
            f"Expected a table_format that is loaded into {pipeline.destination.spec.destination_type}"
            f" ({' or '.join(formats) or 'none at all'}), but got {table_format!r}.\n"
            + (_CHOOSE if lake else "Leave table_format out of [sources.autopilothq].")
        )
    if lake:
        check_lake_path(pipeline.destination_client().config)
    strategies: Sequence[str] = capabilities.supported_merge_strategies or ()
    select = capabilities.merge_strategies_selector
    table: Any = {"table_format": table_format or capabilities.preferred_table_format}
    return select(strategies, table_schema=table) if select else strategies


def check_lake_path(config: Any) -> None:
    """Raises CannotMerge if the Delta library cannot open the folder of a `filesystem` destination.

    The library may hang, or open another folder: to it, `#` and `?` end a URL, and `%41` is an A.
    """
    if config.is_local_filesystem:
        kind, refused, path = "local folder", _NOT_IN_LAKE_PATHS, config.make_local_path(config.bucket_url)
        signs = "[ ] ^ | \\, control characters"
    else:
        kind, refused, path = "bucket's folder", _NOT_IN_LAKE_URLS, config.bucket_url
        signs = "[ ] ^ | \\ # ?, control characters, empty parts, the parts . and .."
    if refused.search(path):
        raise CannotMerge(
            f"Expected a {kind} for the lake without {signs} or a sign written like %20 in its path, which the"
            f" library of Delta tables cannot open, but got {visible(path)}.\nName another folder."
        )


_NOT_IN_LAKE_PATHS = re.compile(r"[][^|\\\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}")
_NOT_IN_LAKE_URLS = re.compile(rf"{_NOT_IN_LAKE_PATHS.pattern}|[#?]|(?<!:)//(?!/*$)|/\.\.?(/|$)")
_CHOOSE = (
    f'Loads make Delta Lake tables there: table_format = "{LAKE_FORMAT}" in [sources.autopilothq] of'
    f" .dlt/config.toml, or SOURCES__AUTOPILOTHQ__TABLE_FORMAT={LAKE_FORMAT}."
)


def merge_disposition(table: str, supported: Sequence[str]) -> TWriteDispositionDict:
    """Returns a table's write disposition, with one of the supported strategies. Raises CannotMerge if none fits."""
    known = TABLES.get(table)
    strategies = STRATEGIES[known in REPLACED]
    if known in CURRENT:
        if "delete-insert" in supported:
            # All rows are replaced in one transaction; dlt's own `replace` is atomic on few destinations.
            return cast(TWriteDispositionDict, {**merge_with("delete-insert"), "destination_scope": ALL_ROWS})
        if "cdc" in supported:
            return merge_with("cdc")  # in a lake: one commit writes the rows by their key and deletes all others
    elif found := next((strategy for strategy in strategies if strategy in supported), None):
        return merge_with(found)
    raise CannotMerge(
        f"Expected a destination that can merge ({' or '.join(strategies)}), but this one can only append.\n"
        "Loading there would store messages twice: use DuckDB or a warehouse."
    )


def replacing_disposition(supported: Sequence[str]) -> TWriteDispositionDict:
    """Returns the write disposition that replaces rows with the same key, as in `users`."""
    return merge_disposition(USERS.name, supported)


def limits_of(pipeline: dlt.Pipeline) -> Limits:
    """Returns the limits of a pipeline's destination, such as the most columns of a table."""
    return LIMITS.get(pipeline.destination.destination_type.rpartition(".")[2], OTHER_LIMITS)


def shorten_identifier(name: str, naming: NamingConvention) -> str:
    """Returns the name of a table or column in a destination; a digest replaces the middle of one that is too long.

    `naming` has the destination's limit; no name is longer than MAX_NAME (docs/contract/warehouse.md#names).
    """
    longest = min(MAX_NAME, naming.max_length or MAX_NAME)
    shorter: str = naming.shorten_identifier(name, name, longest)
    return shorter


def is_name_of(identifier: str, name: str) -> bool:
    """Returns whether `identifier` is the name of a table or column in some destination, whatever its limit.

    Example: `is_name_of(shorten_identifier("a" * 200, naming), "a" * 200)`.
    """
    shorter = LEAST_MAX_NAME <= len(identifier) < len(name)
    return identifier == (NamingConvention.shorten_identifier(name, name, len(identifier)) if shorter else name)


def keys_are_declared(pipeline: dlt.Pipeline) -> bool:
    """Returns whether keys must be declared not null: ClickHouse sorts by them, and refuses null ones."""
    return bool(capabilities_of(pipeline).sqlglot_dialect == "clickhouse")


def column_hints(
    table: Table,
    types: Mapping[str, Type],
    keys: bool = False,
    zoned: bool = True,
    copies: Mapping[str, str] = MappingProxyType({}),
) -> TTableSchemaColumns:
    """Returns dlt's hints for columns of these types, in this order.

    `keys` declares keys not null, `zoned` says that times have a time zone, and `copies` maps each column that repeats
    another to that other column.
    """
    properties = () if table.name in TABLES else (*PROPERTIES, *LINK)  # which any event may have
    described = {column.name: column.description for column in (*properties, *table.columns)}
    described |= {copy: copy_description(of) for copy, of in copies.items()}
    hints: dict[str, Any] = {}
    for name, column_type in types.items():
        # Keys are never null, but DuckDB's Parquet files cannot declare it: if hints did, dlt would rewrite every file.
        hints[name] = {"name": name, "data_type": column_type, "nullable": not (keys and name in table.key)}
        if name in described:
            hints[name]["description"] = described[name]
        if column_type == "timestamp" and not zoned:
            hints[name]["timezone"] = False
        if name in copies:
            hints[name][COPY_HINT] = copies[name]
    return cast(TTableSchemaColumns, hints)


def layout_hints(table: str, native: Native) -> tuple[dict[str, Layout], dict[str, Any]]:
    """Returns dlt's hints for the partitions and clusters of a table: by column, and for the table as a whole."""
    layout = dict(native.layout) if table == TRACKS.name else {}
    clustered = [column for column, hint in layout.items() if hint == "cluster"]
    # BigQuery gets one list: the hint for single columns is deprecated.
    if "partition" not in layout.values():
        return layout, {}
    return {column: hint for column, hint in layout.items() if hint != "cluster"}, {CLUSTER_COLUMNS_HINT: clustered}


def arrow_schema(types: Mapping[str, Type]) -> pa.Schema:
    """Returns the Arrow schema of columns of these types."""
    return pa.schema([(name, ARROW[of]) for name, of in types.items()])


def without_not_null(column: TColumnSchema, table: Mapping[str, Any] | None) -> TColumnSchema:
    """Returns a column for CREATE TABLE and ALTER TABLE, nullable if it is one of dlt's own.

    dlt adds its columns, declared not null, if a user's step turns a table's rows into dicts. The next load may bring
    rows from files, which do not have them.
    """
    is_ours = table is not None and table.get(SEGMENT_TABLE_HINT)
    return {**column, "nullable": True} if is_ours and str(column["name"]).startswith(DLT_NAME_PREFIX) else column
