"""Keeps the messages of each person in order, over several runs and over the chunks of a stream."""

from .batch import Key
from .delivery_log import Sent
from .emails import keep_newest


class PersonOrder:
    """Finds items that were delivered before an older item of their person, and so must be sent again after it."""

    def __init__(self) -> None:
        self._touched: set[Key] = set()
        self._touched_before: dict[Key, None] = {}  # touched by this run before these items
        self._before: Sent | None = None  # the last row that this run wrote before these items
        self._sent: dict[Key, Sent] = {}  # by person, the latest of the items so far that earlier runs sent

    def begin(self) -> None:
        """Begins the next items. Only the newest 50,000 persons are kept."""
        self._touched = set()
        keep_newest(self._sent)
        keep_newest(self._touched_before)

    def end(self, last: Sent) -> None:
        """Notes that the items are sent; `last` is the last row of the run."""
        self._before = last
        for key in self._touched:
            self._touched_before.pop(key, None)
            self._touched_before[key] = None

    def touch(self, key: Key) -> None:
        """Notes that this run sends something to a person, whose later items must then be sent again."""
        self._touched.add(key)

    def is_touched(self, key: Key) -> bool:
        """Returns whether this run sends an older item of the person."""
        return key in self._touched

    def must_resend(self, key: Key, is_delivered: bool, sent: Sent | None) -> bool:
        """Returns whether a delivered item must be sent again, because an older item's values would stay otherwise.

        That is so if this run sends an older item of the person, or if an earlier run sent one after this item. `sent`
        is when this item was last sent.
        """
        if sent is None:
            return key in self._touched
        if is_delivered and self._is_behind(key, sent):
            return True
        if self._before is not None and sent.run == self._before.run:
            # This run delivered the item before these items: it is a repetition in a stream.
            return key in self._touched and sent.at > self._before.at
        return key in self._touched or key in self._touched_before

    def _is_behind(self, key: Key, sent: Sent) -> bool:
        """Notes when a delivered item was sent. Returns whether another run sent an older item of the person later."""
        last = self._sent.get(key, sent)
        self._sent[key] = max(last, sent)
        return sent < last and sent.run != last.run
