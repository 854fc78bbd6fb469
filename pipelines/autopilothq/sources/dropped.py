"""Records which tables were dropped or emptied: earlier loads of APIs do not count for these.

dlt drops the state of a resource together with its tables, for `refresh` and for `dlt pipeline ... drop`. So each
resource has a note there, and one that had a note and lacks it was dropped.
"""

from collections.abc import Collection

import dlt

from ..catalog import resource_of
from ..warehouses.dlt_internals.resources import dropped_tables

_BEGUN = "begun"  # a key in dlt's state: of a resource, the load before which its tables were dropped, or ""


def dropped_before(resources: Collection[str], load_id: str) -> dict[str, str]:
    """Returns, by resource, the last load before which its tables were dropped or emptied; `load_id` is this load.

    Resources whose tables never were are missing. A cursor whose name or content depends on the result does not hold
    for earlier loads.

    Example: after `dlt pipeline NAME drop tracks`,
    `dropped_before({"tracks", "email_opened"}, "2.0") == {"tracks": "2.0"}`.
    """
    state = dlt.current.source_state()
    noted = state.get(_BEGUN)
    if noted is None:  # unless `--state-paths` dropped it, resources have no notes either
        noted = resources if any(_BEGUN in each for each in state.get("resources", {}).values()) else ()
    lost = set(map(resource_of, set().union(*dropped_tables())))
    begun = {}
    for name in sorted(resources):
        own = dlt.current.resource_state(name)
        if name in lost or (name in noted and _BEGUN not in own):
            own[_BEGUN] = load_id
        begun[name] = own.setdefault(_BEGUN, "")
    state[_BEGUN] = sorted({*noted, *resources})
    return {name: load for name, load in begun.items() if load}
