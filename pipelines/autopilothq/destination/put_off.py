"""Sends contacts that failed before, and those that must be sent again, after all others."""

from .batch import Key, contact_keys
from .plan import Planned


class PutOff:
    """Contacts that failed or were refused in the last run, and those that are sent again behind them, in their order.

    So they hold up nobody, and follow the changes of their address that an earlier run made. They must be sent before
    a new contact of the same people, and before a new change of an address.
    """

    def __init__(self) -> None:
        self._planned: list[Planned] = []
        self._numbers: dict[Key, list[int]] = {}  # of those with that key
        self._people: set[Key] = set()

    def takes(self, planned: Planned) -> bool:
        """Takes a contact that failed or was refused, or is sent again behind one. Returns whether it did."""
        item, _, before = planned
        failed = item.failed_before or (before is not None and before.status == "failed")
        behind = item.resent and not self._people.isdisjoint(_people(planned))
        if _renames(planned) or not (failed or item.alone or behind):
            return False
        self._numbers.setdefault(item.key, []).append(len(self._planned))
        self._planned.append(planned)
        self._people |= _people(planned)
        return True

    def precedes(self, planned: Planned) -> bool:
        """Returns whether the waiting contacts must be sent before this one, which was not taken."""
        return bool(self._planned) and (_renames(planned) or not self._people.isdisjoint(_people(planned)))

    def move(self, before: Key, email: str) -> bool:
        """Gives the waiting contacts of an address the one that it was changed to. Returns whether there are any."""
        moved = self._numbers.pop(before, [])
        for number in moved:
            item, values, status = self._planned[number]
            there = item._replace(key=email.lower(), row=item.row._replace(email=email))
            self._planned[number] = Planned(there, {**values, "Email": email}, status)
        if moved:
            self._numbers.setdefault(email.lower(), []).extend(moved)
            self._people.add(email.lower())
        return bool(moved)

    def release(self) -> list[Planned]:
        """Returns the waiting contacts, and forgets them."""
        planned, self._planned, self._people, self._numbers = self._planned, [], set(), {}
        return planned


def _people(planned: Planned) -> set[Key]:
    return {planned.item.key, *contact_keys(planned.values)}


def _renames(planned: Planned) -> bool:
    return bool(planned.values.get("_NewEmail"))
