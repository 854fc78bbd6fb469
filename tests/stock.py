"""dlt's own destinations with a configuration that is resolved once, which takes half of a load with nothing new.

They are called as dlt's are, because what a destination is found out to be goes by the name of its class.
"""

# ruff: noqa: N801

from dlt import destinations

from autopilothq.warehouses.configured_once import ConfiguredOnce


class duckdb(ConfiguredOnce, destinations.duckdb):
    """A DuckDB file, into which staging tables are merged."""


class postgres(ConfiguredOnce, destinations.postgres):
    """A PostgreSQL database."""


class filesystem(ConfiguredOnce, destinations.filesystem):
    """A bucket, or a folder."""
