"""Sends contacts that failed before after all others, so that they hold up none of them."""

from .batch import Key, contact_keys
from .plan import Planned


class PutOff:
    """Contacts that failed in the last run, in their order.

    They must be sent before a later contact of the same people, and before a change of an address.
    """

    def __init__(self) -> None:
        self._planned: list[Planned] = []
        self._people: set[Key] = set()

    def precedes(self, planned: Planned) -> bool:
        """Returns whether the waiting contacts must be sent before this one."""
        return bool(self._planned) and (_renames(planned) or not self._people.isdisjoint(_people(planned)))

    def takes(self, planned: Planned) -> bool:
        """Takes a contact if it failed before. Returns whether it did."""
        if planned.before is None or planned.before.status != "failed" or _renames(planned):
            return False
        self._planned.append(planned)
        self._people |= _people(planned)
        return True

    def move(self, before: Key, email: str) -> bool:
        """Gives the waiting contacts of an address the one that it was changed to. Returns whether there are any."""
        moved = [number for number, planned in enumerate(self._planned) if planned.item.key == before]
        for number in moved:
            item, values, status = self._planned[number]
            there = item._replace(key=email.lower(), row=item.row._replace(email=email))
            self._planned[number] = Planned(there, {**values, "Email": email}, status)
            self._people.add(there.key)
        return bool(moved)

    def release(self) -> list[Planned]:
        """Returns the waiting contacts, and forgets them."""
        planned, self._planned, self._people = self._planned, [], set()
        return planned


def _people(planned: Planned) -> set[Key]:
    return {planned.item.key, *contact_keys(planned.values)}


def _renames(planned: Planned) -> bool:
    return bool(planned.values.get("_NewEmail"))
