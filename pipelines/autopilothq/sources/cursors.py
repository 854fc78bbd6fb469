"""The cursors of origins that read APIs: how far complete loads got, in dlt's state of the source.

A pipeline may load into several datasets, or into one that was restored from a backup. Such a dataset may lack the
newest load. So some older cursors are kept as well, and the one that counts is the newest whose load the dataset has.
"""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

import dlt

_MOST = 5  # older cursors that are kept
MAX_AHEAD = timedelta(days=1)
"""How far the clock of another machine may be ahead. A recorded time that is later still comes from a wrong clock."""


def read_cursor(group: str, name: str, complete_loads: Collection[str], now: datetime, **of: Any) -> dict[str, Any]:
    """Returns the newest cursor that one of the complete loads left below `group`; empty if there is none.

    A cursor of a scan or run that began more than `MAX_AHEAD` after `now` does not count: some clock was wrong, and
    until that time, nothing would count as new. `of` are further values that the cursor must have; None stands for a
    missing value.
    """
    cursors: dict[str, Any] = dlt.current.source_state().get(group, {})
    for each in reversed([*cursors.get(_earlier(name), ()), cursors.get(name)]):
        counts = each and each["load_id"] in complete_loads and not _is_ahead(each, now)
        if counts and all(each.get(key) == value for key, value in of.items()):
            newest: dict[str, Any] = each
            return newest
    return {}


def write_cursor(group: str, name: str, cursor: dict[str, Any], base: Mapping[str, Any] | None = None) -> None:
    """Stores a cursor, which has the load's id as `load_id`; it counts once that load is complete.

    `base` is the cursor that counted when the load began. It is kept, no matter how many loads have failed since.
    """
    cursors = dlt.current.source_state().setdefault(group, {})
    last = cursors.get(name)
    if last is not None and last["load_id"] != cursor["load_id"]:
        earlier = [*cursors.get(_earlier(name), ()), last]
        if len(earlier) > _MOST:
            earlier.remove(next(each for each in earlier if not base or each["load_id"] != base["load_id"]))
        cursors[_earlier(name)] = earlier
    cursors[name] = cursor


def _is_ahead(cursor: Mapping[str, Any], now: datetime) -> bool:
    began = cursor.get("begun") or cursor.get("started_at")
    return began is not None and datetime.fromisoformat(began) > now + MAX_AHEAD


def _earlier(name: str) -> str:
    return f"{name} earlier"
