"""The triggers of events: the journeys that a contact enters with an event (docs/contract/destination.md#track)."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from ..clients.decode import plain
from ..display import visible
from ..errors import InvalidSetting
from .account import WritableAccount
from .settings import SECTION, TriggerMapping


class EventTriggers(Protocol):
    """The triggers of events, or what an account has instead, such as custom activities."""

    def of(self, event: str) -> list[str]:
        """Returns the ids of an event's triggers or activities."""

    def journeys(self) -> Mapping[str, str]:
        """Returns the names of journeys or activities by these ids, as far as they are known."""


def ids_by_event(mapping: TriggerMapping | None) -> dict[str, list[str]]:
    """Returns the ids of each event as a list, even if the setting has a single id."""
    return {
        event: [str(id_) for id_ in (ids if isinstance(ids, list | tuple) else [ids])]
        for event, ids in (mapping or {}).items()
    }


def check_ids(mapping: Mapping[str, Sequence[str]], existing: Collection[str], setting: str, what: str) -> None:
    """Raises InvalidSetting if a setting names an id that does not exist; `what` names the existing ones."""
    for event, ids in mapping.items():
        for id_ in ids:
            if id_ not in existing:
                raise InvalidSetting(
                    f"{setting} (or --trigger) sends {event!r} to {id_!r}, but the account's {what} are"
                    f" {', '.join(map(visible, sorted(existing))) or 'none at all'}"
                )


class Triggers:
    """The triggers of each event: those in the settings, or else those of journeys whose title is the event's name.

    Raises InvalidSetting if the settings name a trigger that the account does not have.

    Example: `Triggers(account, {"Order Completed": "0003"}).of("Order Completed") == ["0003"]`.
    """

    def __init__(self, account: WritableAccount, mapping: TriggerMapping | None = None) -> None:
        self._account = account
        self._mapping = ids_by_event(mapping)
        self._by_title: dict[str | None, list[str]] | None = None
        if self._mapping:
            existing = {id_ for ids in self._ids_by_title().values() for id_ in ids}
            check_ids(self._mapping, existing, f"{SECTION}.triggers", "triggers")

    def of(self, event: str) -> list[str]:
        """Returns the ids of an event's triggers."""
        return self._mapping.get(event) or self._ids_by_title().get(event, [])

    def journeys(self) -> dict[str, str]:
        """Returns the titles of journeys by trigger, if they were fetched."""
        return {id_: title for title, ids in (self._by_title or {}).items() if title is not None for id_ in ids}

    def _ids_by_title(self) -> dict[str | None, list[str]]:
        """Returns the ids of triggers by the title of their journey (None without one). They are fetched once."""
        if self._by_title is None:
            found: dict[str | None, list[str]] = {}
            for trigger in plain(self._account.triggers()):
                if isinstance(trigger, dict) and trigger.get("trigger_id"):
                    title = trigger.get("journey")
                    name = None if title is None else str(title)
                    found.setdefault(name, []).append(str(trigger["trigger_id"]))
            self._by_title = found  # set after a complete answer only, because a stream tries again
        return self._by_title
