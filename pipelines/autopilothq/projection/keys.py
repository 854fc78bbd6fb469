"""Keys that a destination has no room for: ids of messages, and of the persons and groups that have rows of their own.

(docs/contract/warehouse.md#limits) Senders choose them. A destination that refuses such rows would be asked again and
again until each one is found, so the lines are rejected as they are parsed.
"""

from collections.abc import Mapping

from ..catalog import LATEST
from ..segment.message import Rejected
from . import engine


def has_long_key(most: int | None) -> str:
    """Returns an SQL condition for cells of which a key has more than `most` bytes; None stands for no limit."""
    if most is None:
        return "false"
    persons = (f"kind = {engine.literal(of.kind)} AND strlen({of.key}) > {most}" for of in LATEST)
    return f"coalesce({' OR '.join((f'strlen(id) > {most}', *persons))}, false)"


def check_keys(cells: Mapping[str, str], most: int | None) -> None:
    """Raises Rejected if a key among a message's cells has more than `most` bytes; None stands for no limit."""
    if most is None:
        return
    for key in ("id", *(of.key for of in LATEST if of.kind == cells["kind"])):
        if (size := len(cells.get(key, "").encode())) > most:
            raise Rejected("unreadable", long_key(key, most, f"{size:,}"))


def long_key(key: str, most: int, size: str) -> str:
    """Returns the message about a key that has more than `most` bytes."""
    return f"Expected a key for which the destination has room, of at most {most:,} bytes, but its {key} has {size}."
