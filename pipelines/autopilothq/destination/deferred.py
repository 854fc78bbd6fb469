"""Defers contacts that failed before, and those that must be sent again, until all others are sent."""

from collections.abc import Collection

from .batch import Key, contact_keys
from .changes import AddressChanges
from .plan import Planned, moved_to


class DeferredContacts:
    """The contacts that wait until the others are sent, in their order.

    A contact is deferred if it failed or was refused in the last run, if it is sent again after such a contact, or if
    it is late: an earlier run has changed its address, and the message of that change may still be among the items.
    Deferred contacts get the addresses that earlier runs changed theirs to. They must be sent before a new contact of
    the same person, and before a new change of the person's address.
    """

    def __init__(self, changes: AddressChanges) -> None:
        self._changes = changes
        self._planned: dict[int, Planned] = {}
        self._numbers: dict[Key, set[int]] = {}  # the numbers of contacts by key, also of those that were released
        self._next = 0

    def defer(self, planned: Planned) -> bool:
        """Defers a contact if it must wait, and returns whether it did."""
        if planned.renames or not self._must_wait(planned):
            return False
        self._add(self._next, planned)
        self._next += 1
        return True

    def move(self, before: Key, email: str) -> None:
        """Moves the deferred contacts of the address `before` to the one that an earlier run has changed it to."""
        for number in sorted(self._waiting(before)):
            if self._planned[number].item.key == before:
                self._add(number, moved_to(self._planned[number], email))

    def release(self, planned: Planned) -> list[Planned]:
        """Removes and returns the deferred contacts that must be sent before this one."""
        return self._remove(self._linked(planned))

    def release_all(self) -> list[Planned]:
        """Removes and returns all deferred contacts."""
        return self._remove(self._planned)

    def _add(self, number: int, planned: Planned) -> None:
        self._planned[number] = planned
        for key in self._people(planned):
            self._numbers.setdefault(key, set()).add(number)

    def _remove(self, numbers: Collection[int]) -> list[Planned]:
        found = [self._planned.pop(number) for number in sorted(numbers)]
        if not self._planned:
            self._numbers.clear()
        return found

    def _linked(self, planned: Planned) -> set[int]:
        """Returns the numbers of deferred contacts that share a key with a contact, directly or through others."""
        found: set[int] = set()
        left = list(self._people(planned)) if self._planned else []
        while left:
            for number in self._waiting(left.pop()) - found:
                found.add(number)
                left += self._people(self._planned[number])
        return found

    def _waiting(self, key: Key) -> set[int]:
        """Returns the numbers of the contacts with a key that are still deferred."""
        return self._numbers.get(key, set()) & self._planned.keys()

    def _people(self, planned: Planned) -> set[Key]:
        key = planned.item.key
        return {key, self._changes.follow(key).lower(), *contact_keys(planned.values)}

    def _must_wait(self, planned: Planned) -> bool:
        """Returns whether a contact failed, was refused or is late, or is sent again after one that waits.

        Behind a late contact of the same person, every contact waits. Behind others, only one that is sent again does;
        a new one releases those that wait.
        """
        item, _, before = planned
        failed = item.failed_before or (before is not None and before.status == "failed")
        if failed or item.alone or self._is_late(item.key):
            return True
        others = [self._planned[number].item for number in self._linked(planned)]
        return bool(others) and (item.resent or any(self._is_late(other.key) for other in others))

    def _is_late(self, key: Key) -> bool:
        return self._changes.follow(key).lower() != key
