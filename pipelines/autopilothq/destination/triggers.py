"""The triggers of events: the journeys that a contact enters with an event (docs/contract/destination.md#track)."""

from collections.abc import Mapping
from typing import Protocol

from ..clients.decode import plain
from ..display import visible
from ..errors import InvalidSetting
from .account import WritableAccount
from .settings import SECTION, TriggerMapping


class EventTriggers(Protocol):
    """Where an account's events lead."""

    def of(self, event: str) -> list[str]:
        """Returns the ids of an event's triggers, or of what an account has instead."""

    def journeys(self) -> Mapping[str, str]:
        """Returns the known names of what these ids stand for."""


def ids_by_event(mapping: TriggerMapping | None) -> dict[str, list[str]]:
    """Returns a setting that sends events to one id or to several, with a list of ids for each event."""
    return {
        event: [str(one) for one in (ids if isinstance(ids, list | tuple) else [ids])]
        for event, ids in (mapping or {}).items()
    }


class Triggers:
    """The triggers of each event: those of the settings, else those of the journeys that are titled like the event.

    Raises InvalidSetting if the settings name a trigger that the account does not have.

    Example: `Triggers(account, {"Order Completed": "0003"}).of("Order Completed") == ["0003"]`.
    """

    def __init__(self, account: WritableAccount, mapping: TriggerMapping | None = None) -> None:
        self._account = account
        self._mapping = ids_by_event(mapping)
        self._by_title: dict[str | None, list[str]] | None = None
        if self._mapping:
            self._check({one for ids in self._titles().values() for one in ids})

    def _check(self, existing: set[str]) -> None:
        for event, ids in self._mapping.items():
            for one in ids:
                if one not in existing:
                    raise InvalidSetting(
                        f"{SECTION}.triggers (or --trigger) sends {event!r} to {one!r}, but the account's triggers"
                        f" are {', '.join(map(visible, sorted(existing))) or 'none at all'}"
                    )

    def of(self, event: str) -> list[str]:
        """Returns the ids of an event's triggers."""
        return self._mapping.get(event) or self._titles().get(event, [])

    def journeys(self) -> dict[str, str]:
        """Returns the titles of journeys by their triggers, if the account was asked for them."""
        return {one: title for title, ids in (self._by_title or {}).items() if title is not None for one in ids}

    def _titles(self) -> dict[str | None, list[str]]:
        """Returns the ids of triggers by the title of their journey, None without one; the account is asked once."""
        if self._by_title is None:
            found: dict[str | None, list[str]] = {}
            for trigger in plain(self._account.triggers()):
                if isinstance(trigger, dict) and trigger.get("trigger_id"):
                    title = trigger.get("journey")
                    name = None if title is None else str(title)
                    found.setdefault(name, []).append(str(trigger["trigger_id"]))
            self._by_title = found  # not before the answer is there: a stream asks again
        return self._by_title
