"""Puts contacts that failed before behind all others, so that they hold up none of them."""

from .batch import Key, contact_keys
from .plan import Planned


class PutOff:
    """Contacts that failed in the last run, in their order.

    What follows about one of their people, or changes an address, must find them sent.
    """

    def __init__(self) -> None:
        self._planned: list[Planned] = []
        self._people: set[Key] = set()

    def precedes(self, planned: Planned) -> bool:
        """Returns whether those that wait must be sent before a contact."""
        return bool(self._planned) and (_renames(planned) or not self._people.isdisjoint(_people(planned)))

    def takes(self, planned: Planned) -> bool:
        """Takes a contact that failed before; returns whether it did."""
        if planned.before is None or planned.before.status != "failed" or _renames(planned):
            return False
        self._planned.append(planned)
        self._people |= _people(planned)
        return True

    def release(self) -> list[Planned]:
        """Returns those that wait, and forgets them."""
        planned, self._planned, self._people = self._planned, [], set()
        return planned


def _people(planned: Planned) -> set[Key]:
    return {planned.item.key, *contact_keys(planned.values)}


def _renames(planned: Planned) -> bool:
    return bool(planned.values.get("_NewEmail"))
