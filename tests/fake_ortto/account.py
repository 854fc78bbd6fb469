"""The contents of a made-up account: computed people, and the changes to them."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from threading import RLock
from typing import Any

from fake_autopilot.account import digest

from .made_up import AUDIENCES, CAMPAIGNS, DAY, Record, campaign_id, fields, iso, number_of, person_id
from .made_up import activities as made_activities

__all__ = ["Account", "Record"]

# The fields of people that are not custom fields, with their names and display types.
SYSTEM_FIELDS = {
    "str::email": ("Email", "email"), "str::ei": ("External ID", "text"), "str::first": ("First name", "text"),
    "str::last": ("Last name", "text"), "str::name": ("Name", "text"), "bol::p": ("Email permission", "bool"),
    "bol::sp": ("SMS permission", "bool"), "bol::gdpr": ("GDPR", "bool"), "phn::phone": ("Phone number", "phone"),
    "geo::country": ("Country", "geo"), "geo::city": ("City", "geo"), "geo::region": ("Region", "geo"),
    "dtz::b": ("Birthday", "date"), "str::postal": ("Postal code", "text"),
    "str::language": ("Language", "single_select"), "str::u-ctx": ("Email unsubscribe context", "text"),
    "str::s-ctx": ("Email subscribe context", "text"), "int::ta": ("Total attributed", "currency"),
}  # fmt: skip
CUSTOM_FIELDS = {
    "str:cm:plan": ("Plan", "single_select"),
    "str:cm:notes": ("Notes", "large_text"),
    "int:cm:seats": ("Seats", "integer"),
    "int:cm:score": ("Score", "decimal"),
    "bol:cm:customer": ("Customer", "bool"),
    "bol:cm:big-spenders": ("Big spenders", "bool"),
    "dtz:cm:trial-ends": ("Trial ends", "date"),
    "tme:cm:last-order": ("Last order", "time"),
    "phn:cm:work-phone": ("Work phone", "phone"),
    "geo:cm:office": ("Office", "geo"),
}
ORDER = {
    "str:cm:order-id": ("Order ID", "text"),
    "int:cm:total": ("Total", "decimal"),
    "int:cm:items": ("Items", "integer"),
}
CUSTOM_ACTIVITIES = {
    "act:cm:order-completed": ("Order Completed", ORDER),
    "act:cm:trial-extended": ("Trial Extended", {"dtz:cm:until": ("Until", "date")}),
}
READ_ONLY = ("tme::", "int::ta")
MOST_A_DAY = 50  # activities of one kind for one person


class Account:
    """People, their activities and tags, campaigns and audiences; `now` is its clock, in epoch seconds.

    Example: `Account(people=3).happen("person+1@example.com", "act::o")`.
    """

    def __init__(self, people: int = 100, seed: int = 1, now: Callable[[], int] | None = None) -> None:
        self.made = people
        self.seed = seed
        self.begun = int(time.time())
        self.now = now or (lambda: int(time.time()))
        self.custom_fields = dict(CUSTOM_FIELDS)
        self.custom_activities = {key: (name, dict(attrs)) for key, (name, attrs) in CUSTOM_ACTIVITIES.items()}
        self.suppressed: set[str] = set()  # emails
        self.tags: dict[str, set[str]] = {}  # ids of people by tag
        self.most_contacts: int | None = None  # how many the plan allows
        self.created: list[Record] = []  # activities that were created, as they were written, in order
        self.campaigns: dict[str, Record] = {}  # campaigns that tests add to the made-up ones
        self._people: dict[str, Record] = {}  # fields of the people that are new or changed
        self._happened: dict[str, list[Record]] = {}
        self._keys: dict[tuple[str, str], str] = {}  # ids of those people by field and value
        self._drawn = 0
        self.lock = RLock()

    # ---- reading -------------------------------------------------------------------------------------------------

    def ids(self, start: int = 0) -> Iterator[tuple[int, str]]:
        """Yields the positions and ids of all people from position `start` on, the made-up ones first."""
        for position in range(start, self.made):
            yield position, person_id(position)
        new = [id_ for id_ in self._people if (number_of(id_) or 0) >= self.made]
        yield from list(enumerate(new, self.made))[max(0, start - self.made) :]

    def fields(self, id_: str) -> Record | None:
        """Returns a person's fields, including the times of activities; None if there is no such person."""
        with self.lock:
            number = number_of(id_)
            own = self._people.get(id_)
            if own is None:
                if number is None or number >= self.made:
                    return None
                own = fields(self.seed, number)
            times: dict[str, list[str]] = {}
            for one in self.activities(id_):
                times.setdefault(one["field_id"], []).append(one["created_at"])
            seen = {f"tme::{kind.rpartition(':')[2]}": at for kind, at in times.items()}
            ends = {f"{name}!f": min(at) for name, at in seen.items()} | {f"{n}!l": max(at) for n, at in seen.items()}
            return {name: value for name, value in own.items() if value is not None} | ends

    def activities(self, id_: str) -> list[Record]:
        """Returns a person's activities that are still kept, the newest first."""
        number = number_of(id_)
        made = [] if number is None or number >= self.made else made_activities(self.seed, number, self.begun)
        found = [*self._happened.get(id_, []), *made]
        oldest = iso(self.now() - 90 * DAY)
        found = [one for one in found if one["created_at"] >= oldest]
        return sorted(found, key=lambda one: (one["created_at"], one["id"]), reverse=True)

    def find(self, field: str, value: Any) -> str | None:
        """Returns the id of the person with that value in `str::email`, `str::ei` or `str::person_id`, if any."""
        with self.lock:
            key = str(value).lower()
            if found := self._keys.get((field, key)):
                return found
            number = None
            if field == "str::email" and key.startswith("person+") and key.endswith("@example.com"):
                number = int(key[7:-12]) if key[7:-12].isdigit() else None
            elif field == "str::ei" and key.isdigit():
                number = int(key) - 10_000
            elif field == "str::person_id":
                return str(value) if self.fields(str(value)) is not None else None
            if number is None or not 0 <= number < self.made or person_id(number) in self._people:
                return None
            return person_id(number) if str(fields(self.seed, number).get(field, "")).lower() == key else None

    def members(self, audience: str) -> int:
        """Returns n if every n-th made-up person is in the audience with that id; 0 if it has no members."""
        return next((every for name, every in AUDIENCES.items() if self.audience_id(name) == audience), 0)

    def audience_id(self, name: str) -> str:
        return digest(self.seed, f"audience/{name}").hex()[:24]

    def total(self) -> int:
        return self.made + sum((number_of(id_) or 0) >= self.made for id_ in self._people)

    # ---- changing ------------------------------------------------------------------------------------------------

    def write(self, id_: str | None, values: Mapping[str, Any]) -> str:
        """Writes fields of a person, or of a new one if `id_` is None, and returns the id."""
        with self.lock:
            if id_ is None:
                self._drawn += 1
                id_ = person_id(2**64 + self._drawn)
            number = number_of(id_)
            made = fields(self.seed, number) if number is not None and number < self.made else {}
            before = self._people.get(id_, made)
            self._people[id_] = before | dict(values)
            for field in ("str::email", "str::ei"):
                self._keys.pop((field, str(before.get(field)).lower()), None)
                if self._people[id_].get(field):
                    self._keys[field, str(self._people[id_][field]).lower()] = id_
            return id_

    def happen(self, who: str, kind: str, *, ago: int = 0, **attr: Any) -> Record:
        """Adds an activity of the person with that email or id, `ago` seconds ago; `attr` has `_` in place of `::`."""
        with self.lock:
            id_ = self.find("str::email", who) if "@" in who else who
            if id_ is None:
                raise KeyError(f"no person {who}")
            return self.add(
                id_, kind, self.now() - ago, {name.replace("_", "::"): value for name, value in attr.items()}
            )

    def add(self, id_: str, kind: str, at: int, attr: Mapping[str, Any]) -> Record:
        """Adds an activity, and returns it."""
        with self.lock:
            happened = self._happened.setdefault(id_, [])
            name = f"{kind}/{id_}/{len(happened)}/new"
            made = {"id": digest(self.seed, name).hex()[:24], "attr": dict(attr), "created_at": iso(at)}
            happened.append(made | {"field_id": kind, "render_cmds": []})
            return happened[-1]

    def created_today(self, id_: str, kind: str) -> int:
        """Returns how many activities of that kind a person got in the last day."""
        since = iso(self.now() - DAY)
        return sum(one["field_id"] == kind and one["created_at"] >= since for one in self._happened.get(id_, []))

    # ---- campaigns -----------------------------------------------------------------------------------------------

    def all_campaigns(self) -> list[Record]:
        """Returns the account's campaigns as `/campaign/get-all` does; the last one was never sent."""
        made = [
            {
                "id": campaign_id(self.seed, number),
                "asset_id": "0" * 24,
                "name": name,
                "type": "journey" if number % 3 == 2 else "email",
                "state": "sent",
                "created_at": iso(self.begun - 80 * DAY),
            }
            for number, name in enumerate(CAMPAIGNS)
        ]
        draft = {"id": "f" * 24, "asset_id": "0" * 24, "name": "Never sent", "type": "email", "state": "draft"}
        return [*made, draft, *self.campaigns.values()]

    def counts(self, campaign: str, since: str = "") -> Counter[str]:
        """Returns the number of a campaign's activities of each kind, from a time on. Reads all people."""
        return Counter(
            one["field_id"]
            for _, id_ in self.ids()
            for one in self.activities(id_)
            if one["attr"].get("idt::c") == campaign and one["created_at"] >= since
        )
