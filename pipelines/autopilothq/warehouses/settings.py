"""dlt's settings, and the target where they name none."""

from collections.abc import Mapping
from typing import Any

from ..errors import InvalidSetting

DATASET = "autopilothq"
DUCKDB_FILE = "autopilot.duckdb"  # in the current folder
_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", dict: "a table", str: "a text"}


def setting(name: str) -> Any:
    """Returns a value of dlt's secrets or configuration, None if neither has it."""
    import dlt

    providers: tuple[Any, ...] = (dlt.secrets, dlt.config)
    return next((value for provider in providers if (value := provider.get(name)) is not None), None)


def typed_settings(section: str, types: Mapping[str, type]) -> dict[str, Any]:
    """Returns the settings of a section that dlt's secrets or configuration have, by their names, in these types.

    The environment has texts alone, so `false` there is a text until it has its type.
    Raises InvalidSetting for what is not of its type.

    Example: `typed_settings("sources.autopilothq.ortto", {"tries": int, "allow_http": bool})`.
    """
    return {name: value for name, of in types.items() if (value := _typed(f"{section}.{name}", of)) is not None}


def _typed(name: str, of: type) -> Any:
    import dlt

    providers: tuple[Any, ...] = (dlt.secrets, dlt.config)
    try:
        values = (provider.get(name, of) for provider in providers)
        return next((value for value in values if value is not None), None)
    except ValueError as error:
        raise InvalidSetting(f"{name} must be {_TYPE_NAMES[of]}, got {setting(name)!r}") from error
