"""Spares the tests three lookups: two are a twentieth of the processor time of a small load."""

import functools
import importlib.util
import sys

import httpx
import httpx._transports.default as httpx_transports
from dlt.common.configuration.specs.base_configuration import BaseConfiguration, is_valid_configspec_field

_FIELDS: dict[type, int] = {}


def spare_lookups() -> None:
    """Has dlt count the fields of a configuration once, and DuckDB look for pandas once, where it is not installed.

    dlt counts them whenever it asks whether there is a configuration, DuckDB looks at each query. httpx reads the
    machine's certificates once: for each request without a client of its own it would again, which takes longer than
    the request.
    """
    setattr(BaseConfiguration, "__len__", lambda self: _fields(type(self)))  # noqa: B010
    if "pandas" not in sys.modules and importlib.util.find_spec("pandas") is None:
        sys.modules["pandas"] = None  # type: ignore[assignment] # Python's own way to say that there is none
    vars(httpx_transports)["create_ssl_context"] = functools.cache(httpx.create_ssl_context)


def _fields(of: type[BaseConfiguration]) -> int:
    if of not in _FIELDS:
        _FIELDS[of] = sum(map(is_valid_configspec_field, of.__dataclass_fields__.values()))
    return _FIELDS[of]
