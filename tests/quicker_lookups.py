"""Saves the tests two repeated lookups, and rendering the same views again."""

import functools

import httpx
import httpx._transports.default as httpx_transports
from dlt.common.configuration.specs.base_configuration import BaseConfiguration, is_valid_configspec_field

from autopilothq import inspect, views
from autopilothq.inspect import ModelView
from autopilothq.inspect import views as inspected
from autopilothq.warehouses.dataset import SqlDataset

_FIELDS: dict[type, tuple[str, ...]] = {}


def spare_lookups() -> None:
    """Has dlt list the fields of a configuration once, and httpx read the machine's certificates once.

    dlt counts the fields whenever it tests a configuration's truth. httpx reads the certificates for each request
    without a client, which takes longer than the request.
    """
    setattr(BaseConfiguration, "__len__", lambda self: len(_fields(type(self))))  # noqa: B010
    setattr(BaseConfiguration, "__iter__", lambda self: iter(_fields(type(self))))  # noqa: B010
    vars(httpx_transports)["create_ssl_context"] = functools.cache(httpx.create_ssl_context)


def _fields(of: type[BaseConfiguration]) -> tuple[str, ...]:
    if of not in _FIELDS:
        _FIELDS[of] = tuple(
            field.name for field in of.__dataclass_fields__.values() if is_valid_configspec_field(field)
        )
    return _FIELDS[of]


def write_views_once() -> None:
    """Has the views for equal tables rendered only once, because that takes as long as a small load."""
    write, written = inspected.views_of, dict[object, list[ModelView]]()

    def views_of(dataset: SqlDataset, names: tuple[str, ...] = ()) -> list[ModelView]:
        spelt = [
            (table, *dataset.sql.path(table), *((column, dataset.sql.spelling(table, column)) for column in columns))
            for table, columns in dataset.columns().items()
        ]
        key = (names, dataset.kind, dataset.dialect, *spelt)
        if key not in written:
            written[key] = write(dataset, names)
        return list(written[key])

    for module in (inspect, inspected, views):
        vars(module)["views_of"] = views_of
