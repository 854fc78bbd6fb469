"""The people of a run whose messages wait, because an earlier one of theirs must come before."""

from collections.abc import Collection, Iterable

from .batch import Key


class HeldPeople:
    """People with a message that failed, or with a change of their address that is not settled. Threads may share it.

    While an address may or may not have been changed, later messages could be a new contact under either; and after
    another change nobody could find the first. What failed before a change of its address would be a new contact under
    the old one when it comes again. With `in_order`, as in a stream that sends again what failed, it must not come
    behind what is newer. `unsettled` are those from before.
    """

    def __init__(self, in_order: bool = False, unsettled: Iterable[Key] = ()) -> None:
        self.in_order = in_order
        self.unsettled = set(unsettled)
        self._failed: set[Key] = set()

    @property
    def is_empty(self) -> bool:
        """Whether nobody's messages wait."""
        return not self.unsettled and not self._failed

    def note_failed(self, people: Iterable[Key], always: bool = False) -> None:
        """Notes people with a message that failed. One that does so `always` holds up nobody outside of a stream."""
        if self.in_order:
            self.unsettled.update(people)
        elif not always:
            self._failed.update(people)

    def note_unsettled(self, people: Iterable[Key]) -> None:
        """Notes people whose later messages must all wait."""
        self.unsettled.update(people)

    def holds(self, people: Collection[Key], renames: bool = False) -> bool:
        """Returns whether a message of somebody must wait; `renames` is whether it changes their address."""
        return not self.unsettled.isdisjoint(people) or (renames and not self._failed.isdisjoint(people))
