"""Turns a line into the message to forward: as it was sent, without the keys that Segment or its library adds."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..catalog import REJECT_REASONS
from ..clients.segment_api import MESSAGE_BYTES
from ..segment.identity import Id, fold_email, ids_of_cells
from ..segment.json_text import JsonObject, is_id, to_json
from ..segment.message import MAX_LINE, Rejected, digest, parse_json, read_message, without_bom
from ..segment.rebuild import RowFault, fault_of_row, line_of

# Keys that Segment adds to a message, or its library to a batch. They are added again to a forwarded message.
ADDED = frozenset({"receivedAt", "sentAt", "writeKey", "projectId", "version", "_metadata"})
_TIMES = ("timestamp", "originalTimestamp", "receivedAt")
_QUERY = "From users, select id AS user_id and the columns to send as traits"
_ROW_FAULTS: Mapping[RowFault, str] = {
    "person": "Expected user_id or anonymous_id in a row with id and received_at, but it has neither, so its id is not"
    f" a message's. {_QUERY}",
    "own_id": "Expected the id of a message, but the row's id is that of its person or group."
    f" {_QUERY}, but neither id itself nor received_at",
    "type": "Expected an id and a time in a row whose type is not identify, but it lacks one or both. Select them, or"
    " give the column type another name",
}


class Outgoing(NamedTuple):
    """A message to forward: its JSON text, and the values of its row in the log.

    `persons` are all ids of its person. `refusal` is why it can never be sent.
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

    A line that a load would reject is refused for the same reason. Digits, keys and values stay as they are. A message
    gets what it lacks: a `messageId` (a digest), an `anonymousId` (the email, as in the warehouse), and the `timestamp`
    that the warehouse has.
    """
    line = without_bom(line)
    if len(line) > MAX_LINE:
        return refuse_line(line[:MAX_LINE], "line_too_long")
    try:
        cells = read_message(line, frozenset()).cells
        message = parse_json(line)
    except Rejected as rejected:
        return refuse_line(line, rejected.args[0])
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


def outgoing_row(row: Mapping[str, Any]) -> Outgoing:
    """Returns the message of a row. A row that would become a different message than intended is refused."""
    line = line_of(row)
    if fault := fault_of_row(row):
        return Outgoing(f"row-{digest(line)}", refusal=_ROW_FAULTS[fault])
    return outgoing(line)


def refuse_line(line: bytes, reason: str) -> Outgoing:
    """Returns a refused message for a line that is not a message; `reason` is a reject reason of the catalogue."""
    return Outgoing(digest(line), refusal=f"{reason}: {REJECT_REASONS[reason]}")


def _as_sent(message: JsonObject, id_: str, cells: dict[str, str]) -> JsonObject:
    """Returns the message without added keys and with required ones. Of repeated keys, the first is kept."""
    sent = JsonObject()
    keys: set[str] = set()
    for key, value in message:
        if key not in ADDED and key not in keys:
            keys.add(key)
            sent.append((key, value))
    if not is_id(message.value("messageId")):
        _set(sent, "messageId", id_)
    if not is_id(message.value("userId")) and not is_id(message.value("anonymousId")):
        _set(sent, "anonymousId", cells["anonymous_id"])
    times = [value for value in map(message.value, _TIMES) if _has_value(value)]
    if times and not _has_value(message.value("timestamp")):
        _set(sent, "timestamp", times[0])
    return sent


def _set(message: JsonObject, key: str, value: Any) -> None:
    message[:] = [pair for pair in message if pair[0] != key]
    message.append((key, value))


def _has_value(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and not value.strip())
