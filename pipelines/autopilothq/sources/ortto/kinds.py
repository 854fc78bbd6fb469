"""Decides which kinds of activities to request: those of the catalogue, and those that a setting names."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from ...catalog import EVENTS, EVENTS_RESOURCE, ORTTO_ACTIVITIES, TRACKS
from ...errors import InvalidSetting
from ...segment.naming import snake_case

CUSTOM, EVERY = "custom", "all"
"""Values of the setting that stand for all custom activities, and for all that the account has."""
_TABLES = {event.name: event.table for event in EVENTS}
_CUSTOM_ID = "act:cm:"


def requested_kinds(setting: str, requested: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """Returns the ids of the activities to request: the usual ones, and those `requested` by id or name.

    A name may also be written in snake_case. `names` has the names of the account's activities by id, and an empty text
    for those without a name. Raises InvalidSetting, which names the `setting`, for an activity that the account does
    not have.
    """
    known = {id_: activity.name for id_, activity in ORTTO_ACTIVITIES.items()} | dict(names)
    found = [id_ for id_, activity in ORTTO_ACTIVITIES.items() if activity.pulled]
    for name in requested:
        more = [id_ for id_, label in known.items() if _is_named(name, id_, label)]
        if not more and name not in (CUSTOM, EVERY):
            others = ", ".join(f"{label} ({id_})" if label else id_ for id_, label in known.items() if id_ not in found)
            raise InvalidSetting(f"{setting}: the account has no activity {name!r}. It has {others}.")
        found += more
    return list(dict.fromkeys(found))


def _is_named(name: str, id_: str, label: str) -> bool:
    if name == EVERY:
        return id_.startswith("act:")
    if name == CUSTOM:
        return id_.startswith(_CUSTOM_ID)
    return name == id_ or (bool(snake_case(name)) and snake_case(name) == snake_case(label))


def selected_kinds(kinds: Iterable[str], selected: Collection[str]) -> tuple[str, ...]:
    """Returns the kinds whose events have rows in a selected table."""
    if TRACKS.name in selected:
        return tuple(kinds)
    found = []
    for kind in kinds:
        activity = ORTTO_ACTIVITIES.get(kind)
        tables = {_TABLES[activity.event]} if activity is not None and activity.event else set()
        if not tables or (activity is not None and activity.needs):
            tables.add(EVENTS_RESOURCE)
        if tables & set(selected):
            found.append(kind)
    return tuple(found)
