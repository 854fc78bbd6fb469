"""dlt's settings, and the target where they name none."""

from typing import Any

DATASET = "autopilothq"
DUCKDB_FILE = "autopilot.duckdb"  # in the current folder


def setting(name: str) -> Any:
    """Returns a value of dlt's secrets or configuration, None if neither has it."""
    import dlt

    providers: tuple[Any, ...] = (dlt.secrets, dlt.config)
    return next((value for provider in providers if (value := provider.get(name)) is not None), None)
