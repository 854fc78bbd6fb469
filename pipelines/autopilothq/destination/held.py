"""The people of a run whose messages must wait, because an earlier message of theirs is not settled."""

from collections.abc import Collection, Iterable

from .batch import Key


class HeldPeople:
    """People with a message that failed, or with a change of their address whose outcome is unknown. It is thread-safe.

    While it is unknown whether an address was changed, a later message could create a second contact under either
    address, and another change would make the first untraceable. A message that failed must be sent again before a
    change of its address, or it would create a contact under the old one. With `in_order`, as in a stream that sends
    failed messages again, it must also be sent before newer messages. `unsettled` are people from earlier items.
    """

    def __init__(self, in_order: bool = False, unsettled: Iterable[Key] = ()) -> None:
        self._in_order = in_order
        self.unsettled = set(unsettled)
        self._failed: set[Key] = set()
        self._given_up: set[Key] = set()

    def note_failed(self, people: Iterable[Key], always: bool = False) -> None:
        """Notes people with a message that failed. One that `always` fails holds up nobody, except with `in_order`."""
        if self._in_order:
            self.unsettled.update(people)
        elif not always:
            self._failed.update(people)

    def note_unsettled(self, people: Collection[Key]) -> None:
        """Notes people whose later messages must all wait. If one of these people is given up, all of them are."""
        self.unsettled.update(people)
        if self.are_given_up(people):
            self._given_up.update(people)

    def give_up(self, people: Iterable[Key]) -> None:
        """Notes people whose earlier message failed again while the account answered, so that another try may fail."""
        self._given_up.update(people)

    def are_given_up(self, people: Collection[Key]) -> bool:
        """Returns whether one of these people is given up, so that another try is not worth waiting for."""
        return not self._given_up.isdisjoint(people)

    def holds(self, people: Collection[Key], renames: bool = False) -> bool:
        """Returns whether a person's message must wait; `renames` is whether it changes the person's address."""
        return not self.unsettled.isdisjoint(people) or (renames and not self._failed.isdisjoint(people))
