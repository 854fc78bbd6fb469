"""dlt's DuckLake destination, whose tables may have a column `row_id`."""

from functools import cache, wraps
from typing import Any


@cache
def allow_all_columns() -> None:
    """Makes dlt, once per process, attach DuckLakes without data inlining.

    DuckLake reserves `row_id` for the rows that it inlines into its catalog, and refuses a table with such a column:
    `_discards` has one, and so may any table of events. `duckdb` must be installed, which it is.
    """
    from dlt.destinations.impl.ducklake.sql_client import DuckLakeSqlClient

    build = DuckLakeSqlClient.build_attach_statement

    @wraps(build)
    def without_inlining(**parts: Any) -> str:
        return f"{build(**parts).removesuffix(')')}, DATA_INLINING_ROW_LIMIT 0)"

    setattr(DuckLakeSqlClient, build.__name__, staticmethod(without_inlining))
