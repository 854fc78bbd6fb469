"""Saves the tests two lookups."""

import functools

import httpx
import httpx._transports.default as httpx_transports
from dlt.common.configuration.specs.base_configuration import BaseConfiguration, is_valid_configspec_field

_FIELDS: dict[type, int] = {}


def spare_lookups() -> None:
    """Has dlt count the fields of a configuration once, and httpx read the machine's certificates once.

    dlt counts them whenever it asks whether there is a configuration. httpx reads them for each request without a
    client of its own, which takes longer than the request.
    """
    setattr(BaseConfiguration, "__len__", lambda self: _fields(type(self)))  # noqa: B010
    vars(httpx_transports)["create_ssl_context"] = functools.cache(httpx.create_ssl_context)


def _fields(of: type[BaseConfiguration]) -> int:
    if of not in _FIELDS:
        _FIELDS[of] = sum(map(is_valid_configspec_field, of.__dataclass_fields__.values()))
    return _FIELDS[of]
