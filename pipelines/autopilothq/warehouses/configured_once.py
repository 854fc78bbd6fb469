"""Resolves the configuration of a destination once; dlt resolves it some thirty times in a small load."""

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .dlt_internals import Destination
from .dlt_internals.clients import pipeline_of_config

if TYPE_CHECKING:
    _Base = Destination[Any, Any]
else:
    _Base = object


class ConfiguredOnce(_Base):
    """A mixin for destinations that resolves each configuration once per destination object.

    Each run makes a new destination, so a changed setting takes effect in the next run. All clients share one
    credentials object, and the connection pool that dlt keeps in it.
    """

    def configuration(self, initial_config: Any, accept_partial: bool = False) -> Any:
        """Returns the resolved configuration, as dlt's destination does, each time as a new object."""
        if initial_config is None or initial_config.is_resolved():
            return super().configuration(initial_config, accept_partial)
        # A copy, because dlt writes what it finds into the initial configuration.
        given = _plain(initial_config), _plain(self.config_params)
        key = (type(initial_config), *given, accept_partial, pipeline_of_config())
        known: list[tuple[Any, Any]] = self.__dict__.setdefault("_resolved", [])
        for known_key, found in known:
            if known_key == key:
                return copy.copy(found)
        found = super().configuration(initial_config, accept_partial)
        known.append((key, copy.copy(found)))
        return found


def _plain(value: Any) -> Any:
    return {name: _plain(inner) for name, inner in value.items()} if isinstance(value, Mapping) else value
