"""Rejects keys that are too long for the destination: ids of messages, and of users and groups with rows of their own.

(docs/contract/warehouse.md#limits) Senders choose these ids. If such rows reached the destination, it would refuse the
load, and finding each of them would take many attempts. So their lines are rejected as they are parsed.
"""

from collections.abc import Mapping

from ..catalog import LATEST
from ..segment.message import Rejected
from . import engine


def long_key_condition(most: int | None) -> str:
    """Returns the SQL condition for messages with a key of more than `most` bytes; None stands for no limit."""
    if most is None:
        return "false"
    persons = (f"kind = {engine.literal(latest.kind)} AND strlen({latest.key}) > {most}" for latest in LATEST)
    return f"coalesce({' OR '.join((f'strlen(id) > {most}', *persons))}, false)"


def check_keys(cells: Mapping[str, str], most: int | None) -> None:
    """Raises Rejected if one of a message's keys has more than `most` bytes; None stands for no limit."""
    if most is None:
        return
    for key in ("id", *(latest.key for latest in LATEST if latest.kind == cells["kind"])):
        if (size := len(cells.get(key, "").encode())) > most:
            raise Rejected("unreadable", long_key_message(key, most, f"{size:,}"))


def long_key_message(key: str, most: int, size: str) -> str:
    """Returns the error message for a key that has more than `most` bytes."""
    return (
        f"Expected keys of at most {most:,} bytes, as the destination has no room for longer ones, but its {key}"
        f" has {size}."
    )
