"""dlt's own destinations, which resolve their configuration once: that takes half the time of a load with nothing new.

The classes have dlt's names, because dlt recognises a destination by the name of its class.
"""

# ruff: noqa: N801

from dlt import destinations

from autopilothq.warehouses.configured_once import ConfiguredOnce


class duckdb(ConfiguredOnce, destinations.duckdb):
    """dlt's DuckDB destination."""


class postgres(ConfiguredOnce, destinations.postgres):
    """dlt's PostgreSQL destination."""


class filesystem(ConfiguredOnce, destinations.filesystem):
    """dlt's destination for a bucket or a folder."""
