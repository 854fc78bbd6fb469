"""Records which tables were dropped or emptied, because earlier loads of APIs then do not count for them.

dlt drops the state of a resource together with its tables, for `refresh` and for `dlt pipeline ... drop`. So each
resource has a note in its state, and a resource that has lost its note was dropped.

Other pipelines may load into the same dataset, even one of the same name on another machine. Their rows are gone as
well, but their cursors are not. They learn of the drop from the states that dlt stores in the destination: each
resource counts its drops there by pipeline, and a pipeline treats a drop that is new to it like one of its own. A
pipeline takes its state along into other datasets, so drops are also counted by dataset.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import dlt

from ..catalog import resource_of
from ..warehouses.dlt_internals.clients import stored_states
from ..warehouses.dlt_internals.resources import dropped_tables, running_pipeline
from .user_hints import replaced_resources

# A key in dlt's state of a resource: the load before which its tables were last dropped, or "". In the state of the
# source, it lists the resources that have this key.
_BEGUN = "begun"
# A key in dlt's state of a resource, which no other source uses: how often each pipeline has dropped its tables in each
# dataset, by `DATASET/PIPELINE`. Earlier versions did not name the dataset, so it may be any.
_DROPS = "autopilothq_drops"


def dropped_before(resources: Collection[str], load_id: str, dataset: str) -> dict[str, str]:
    """Returns, by resource, the last load before which its tables were dropped or emptied.

    Resources whose tables never were are left out. `load_id` is the current load, `dataset` the name in the destination
    of the dataset that it loads into. An origin uses the result in the name or content of its cursors, so that those
    from before a drop no longer count.

    Example: after `dlt pipeline NAME drop tracks`,
    `dropped_before({"tracks", "email_opened"}, "2.0", "data") == {"tracks": "2.0"}`.
    """
    state = dlt.current.source_state()
    noted = state.get(_BEGUN)
    if noted is None:  # unless `--state-paths` dropped it, resources have no notes either
        noted = resources if any(_BEGUN in each for each in state.get("resources", {}).values()) else ()
    lost = set(map(resource_of, set().union(*dropped_tables())))
    pipeline, replaced = running_pipeline(), replaced_resources()
    stored = _drops(stored_states(pipeline))
    begun = {}
    for name in sorted(resources):
        own = dlt.current.resource_state(name)
        known = own.get(_DROPS, {})
        drops = _latest(known, stored.get(name, {}))
        is_dropped = name in lost or (name in noted and _BEGUN not in own)
        if is_dropped or (name in noted and _within(drops, dataset) != _within(known, dataset)):
            own[_BEGUN] = load_id
        if is_dropped or name in replaced:
            drops = _with_one_more(drops, dataset, pipeline)
        if drops:
            own[_DROPS] = drops
        begun[name] = own.setdefault(_BEGUN, "")
    state[_BEGUN] = sorted({*noted, *resources})
    return {name: load for name, load in begun.items() if load}


def note_dropped(tables: Collection[str], load_id: str, dataset: str) -> None:
    """Notes that tables of a dataset are dropped, emptied or replaced before a load that has no cursors itself."""
    pipeline, state = running_pipeline(), dlt.current.source_state()
    stored = _drops(stored_states(pipeline))
    for name in set(map(resource_of, tables)):
        own = dlt.current.resource_state(name)
        own[_BEGUN] = load_id
        own[_DROPS] = _with_one_more(_latest(own.get(_DROPS, {}), stored.get(name, {})), dataset, pipeline)
    state[_BEGUN] = sorted({*state.get(_BEGUN, ()), *map(resource_of, tables)})


def _drops(states: Iterable[Any]) -> dict[str, dict[str, int]]:
    """Returns how often the tables of each resource were dropped, by `DATASET/PIPELINE`, according to all states."""
    found: dict[str, dict[str, int]] = {}
    for state in states:
        for source in state.get("sources", {}).values():
            for name, own in source.get("resources", {}).items():
                found[name] = _latest(found.get(name, {}), own.get(_DROPS, {}))
    return found


def _latest(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in sorted({*one, *other})}


def _within(drops: Mapping[str, int], dataset: str) -> dict[str, int]:
    """Returns the drops that were, or may have been, in a dataset."""
    return {where: count for where, count in drops.items() if where.rpartition("/")[0] in ("", dataset)}


def _with_one_more(drops: Mapping[str, int], dataset: str, pipeline: dlt.Pipeline) -> dict[str, int]:
    where = f"{dataset}/{pipeline.pipeline_name}"
    return {**drops, where: drops.get(where, 0) + 1}
