"""Sends contacts that failed before, and those that must be sent again, after all others."""

from collections.abc import Collection

from .batch import Key, contact_keys
from .changes import AddressChanges
from .plan import Planned, moved_to


class PutOff:
    """Contacts that wait, in their order: they hold up nobody, and follow the changes that earlier runs made.

    They failed or were refused in the last run, are sent again behind such ones, or come late: with an address that an
    earlier run has changed, by a message that may still come. They must be sent before a new contact of the same
    people, and before a new change of their address.
    """

    def __init__(self, changes: AddressChanges) -> None:
        self._changes = changes
        self._planned: dict[int, Planned] = {}
        self._numbers: dict[Key, set[int]] = {}  # of those with that key
        self._next = 0

    def takes(self, planned: Planned) -> bool:
        """Takes a contact that must wait. Returns whether it did."""
        item, _, before = planned
        if _renames(planned):
            return False
        failed = item.failed_before or (before is not None and before.status == "failed")
        if not (failed or item.alone or self._is_late(item.key)):
            others = self._same(planned)
            if not others or not (item.resent or any(self._is_late(self._planned[one].item.key) for one in others)):
                return False
        self._add(self._next, planned)
        self._next += 1
        return True

    def move(self, before: Key, email: str) -> None:
        """Gives the waiting contacts of an address the one that an earlier run has changed it to."""
        for number in sorted(self._numbers.get(before, ())):
            if self._planned[number].item.key == before:
                self._add(number, moved_to(self._planned[number], email))

    def release(self, planned: Planned) -> list[Planned]:
        """Returns the waiting contacts that must be sent before this one, and forgets them."""
        return self._forget(self._same(planned))

    def release_all(self) -> list[Planned]:
        """Returns all waiting contacts, and forgets them."""
        return self._forget(self._planned)

    def _add(self, number: int, planned: Planned) -> None:
        self._planned[number] = planned
        for key in self._people(planned):
            self._numbers.setdefault(key, set()).add(number)

    def _forget(self, numbers: Collection[int]) -> list[Planned]:
        found = [self._planned.pop(number) for number in sorted(numbers)]
        if not self._planned:
            self._numbers.clear()
        return found

    def _same(self, planned: Planned) -> set[int]:
        """Returns the numbers of those who share a key with a contact, or with others who do."""
        found: set[int] = set()
        left = list(self._people(planned)) if self._planned else []
        while left:
            for number in self._numbers.get(left.pop(), ()):
                if number in self._planned and number not in found:
                    found.add(number)
                    left += self._people(self._planned[number])
        return found

    def _people(self, planned: Planned) -> set[Key]:
        key = planned.item.key
        return {key, self._changes.follow(key).lower(), *contact_keys(planned.values)}

    def _is_late(self, key: Key) -> bool:
        return self._changes.follow(key).lower() != key


def _renames(planned: Planned) -> bool:
    return bool(planned.values.get("_NewEmail"))
