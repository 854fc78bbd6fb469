"""The cursors of origins that read APIs: how far complete loads got, in dlt's state of the source."""

from typing import Any

import dlt


def read_cursor(group: str, name: str, complete_loads: set[str]) -> dict[str, Any]:
    """Returns the cursor that a complete load left below `group`; empty if the destination does not know that load."""
    cursor: dict[str, Any] | None = dlt.current.source_state().get(group, {}).get(name)
    return cursor if cursor and cursor["load_id"] in complete_loads else {}


def write_cursor(group: str, name: str, cursor: dict[str, Any]) -> None:
    """Stores a cursor, which has the load's id as `load_id`; it counts once that load is complete."""
    dlt.current.source_state().setdefault(group, {})[name] = cursor
