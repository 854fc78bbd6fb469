"""Makes the message to forward from a line: as it was sent, without what Segment or its library adds again."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..catalog import REJECT_REASONS
from ..clients.segment_api import MESSAGE_BYTES
from ..segment.identity import Id, fold_email, ids_of_cells
from ..segment.json_text import JsonObject, to_json
from ..segment.message import MAX_LINE, Rejected, digest, parse_json, read_message, without_bom

# What Segment adds to a message, or its library to a batch. It is added again when the message is forwarded.
ADDED = frozenset({"receivedAt", "sentAt", "writeKey", "projectId", "version", "_metadata"})
_TIMES = ("timestamp", "originalTimestamp", "receivedAt")


class Outgoing(NamedTuple):
    """A message to forward: its JSON text, and what the log says of it.

    `persons` are all ids of the person that it is about. `refusal` says why it can never be sent.
    """

    message_id: str
    kind: str = ""
    event: str | None = None
    text: bytes = b""
    user_id: str | None = None
    anonymous_id: str | None = None
    persons: Sequence[Id] = ()
    refusal: str | None = None

    @property
    def email(self) -> str | None:
        """The first email of the person that is neither of the two ids."""
        others = {fold_email(id_) for id_ in (self.user_id, self.anonymous_id) if id_}
        emails = (id_.value for id_ in self.persons if id_.kind == "email")
        return next((email for email in emails if email not in others), None)


def outgoing(line: bytes) -> Outgoing:
    """Returns the message of a line of the archive, or of a stream.

    What a load would reject is refused here for the same reason. Digits, keys and values stay as they are. If the line
    has none, the message gets a `messageId` (a digest), an `anonymousId` (the email, as in the warehouse), and the
    `timestamp` that the warehouse has.
    """
    line = without_bom(line)
    if len(line) > MAX_LINE:
        return refused(line[:MAX_LINE], "line_too_long")
    try:
        cells = read_message(line, frozenset()).cells
        message = parse_json(line)
    except Rejected as rejected:
        return refused(line, rejected.args[0])
    kind = cells["kind"]
    event = message.value("event") if kind == "track" else None
    text = to_json(_as_sent(message, cells["id"], cells)).encode()
    who = (cells.get("user_id"), cells.get("anonymous_id"))
    found = Outgoing(cells["id"], kind, event and str(event), text, *who, tuple(ids_of_cells(cells)))
    if len(text) > MESSAGE_BYTES:
        return found._replace(
            refusal=f"It has {len(text):,} bytes, and Segment's API accepts at most {MESSAGE_BYTES:,}"
        )
    return found


def refused(line: bytes, reason: str) -> Outgoing:
    """Returns the message for a line that is not one, refused for a reject reason of the catalogue."""
    return Outgoing(digest(line), refusal=f"{reason}: {REJECT_REASONS[reason]}")


def _as_sent(message: JsonObject, id_: str, cells: dict[str, str]) -> JsonObject:
    """Returns the message without what is added and with what it must have; of repeated keys the first counts."""
    sent = JsonObject()
    keys: set[str] = set()
    for key, value in message:
        if key not in ADDED and key not in keys:
            keys.add(key)
            sent.append((key, value))
    _set(sent, "messageId", message.value("messageId"), id_)
    if not _is_given(message.value("userId")) and not _is_given(message.value("anonymousId")):
        _set(sent, "anonymousId", None, cells["anonymous_id"])
    times = [value for value in map(message.value, _TIMES) if _is_given(value)]
    if times:
        _set(sent, "timestamp", message.value("timestamp"), times[0])
    return sent


def _set(message: JsonObject, key: str, found: Any, value: Any) -> None:
    """Sets a key, unless its value counts as given."""
    if _is_given(found):
        return
    message[:] = [pair for pair in message if pair[0] != key]
    message.append((key, value))


def _is_given(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and not value.strip())
