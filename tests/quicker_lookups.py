"""Spares the tests lookups: a twentieth of the processor time of a small load, and half of that of an empty test."""

import importlib.util
import sys

from dlt.common.configuration.specs.base_configuration import BaseConfiguration, is_valid_configspec_field

_FIELDS: dict[type, int] = {}
ABSENT = ("airflow", "google", "pandas", "streamlit")
"""Packages that dlt looks for whenever settings are read anew, which each test does, and DuckDB at each query."""


def spare_lookups() -> None:
    """Has dlt count the fields of a configuration once, and packages that are not installed be looked for once.

    dlt counts the fields whenever it asks whether there is a configuration.
    """
    setattr(BaseConfiguration, "__len__", lambda self: _fields(type(self)))  # noqa: B010
    for name in ABSENT:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            sys.modules[name] = None  # type: ignore[assignment] # Python's own way to say that there is none


def _fields(of: type[BaseConfiguration]) -> int:
    if of not in _FIELDS:
        _FIELDS[of] = sum(map(is_valid_configspec_field, of.__dataclass_fields__.values()))
    return _FIELDS[of]
