"""Keeps the messages of a person in their order, over several runs and the chunks of a stream."""

from .batch import Key
from .delivery_log import Sent
from .emails import keep_newest


class PersonOrder:
    """Finds what was delivered before an older message of its person, and must be sent again behind it."""

    def __init__(self) -> None:
        self._touched: set[Key] = set()
        self._touched_before: dict[Key, None] = {}  # by this run, before these items
        self._before: Sent | None = None  # the last row of this run before these items
        self._sent: dict[Key, Sent] = {}  # the latest of a person's items so far that earlier runs sent

    def follow(self, before: "PersonOrder", last: Sent) -> None:
        """Continues where the items before these ended, whose last row was `last`.

        Only the last 50,000 persons are remembered.
        """
        self._before = last
        self._sent = before._sent
        self._touched_before = before._touched_before
        for key in before._touched:
            self._touched_before.pop(key, None)
            self._touched_before[key] = None
        keep_newest(self._sent)
        keep_newest(self._touched_before)

    def touch(self, key: Key) -> None:
        """Notes that this run sends something to a person, whose later items must then be sent again."""
        self._touched.add(key)

    def is_touched(self, key: Key) -> bool:
        """Returns whether this run sends an older item of the person."""
        return key in self._touched

    def must_resend(self, key: Key, is_delivered: bool, sent: Sent | None) -> bool:
        """Returns whether this run sends an older item of the person, or an earlier run sent one after this item.

        `sent` is when this item was last sent. If it is delivered already, it must then be sent again, or the older
        one's values would stay.
        """
        behind = False
        if is_delivered and sent:
            last = self._sent.get(key, sent)
            self._sent[key] = max(last, sent)
            behind = sent < last and sent.run != last.run
        before = self._before
        if before is None or sent is None or sent.run != before.run:
            return behind or key in self._touched or (sent is not None and key in self._touched_before)
        # What this run has delivered before these items is what a stream repeats.
        return behind or (key in self._touched and sent.at > before.at)
