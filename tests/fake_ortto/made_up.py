"""The made-up people of an account: number i is computed, not stored, so that a million people take no memory."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from fake_autopilot.account import digest

Record = dict[str, Any]

DAY = 86_400  # seconds
RETENTION = 90  # days that activities are kept
FIRST_NAMES = ("Thomas", "Zoë", "Jürgen", "Siobhán", "Łukasz", "Nguyễn", "Anne-Marie", "D'Arcy", "Mei Ling", "Óscar")
LAST_NAMES = ("Smith", "Müller", "O'Brien", "Nowak", "Þórsdóttir", "Trần", "van der Berg", "García", "Lee", "Ivanova")
COUNTRIES = (
    {"name": "Australia", "id": 1, "lat": -25_274_398, "lng": 133_775_136},
    {"name": "Sverige", "id": 2, "lat": 60_128_161, "lng": 18_643_501},
    {"name": "Côte d'Ivoire", "id": 3, "lat": 7_539_989, "lng": -5_547_080},
)
PLANS = ("free", "team", "business")
CAMPAIGNS = ("Onboarding", "Spring sale", "Newsletter", "Renewal / 2026", "Müller's tips", "Receipts")
AUDIENCES = {"Subscribers": 1, "Customers": 3, "Slipping": 7, "Nobody": 0}  # n: every n-th person is a member


def person_id(number: int) -> str:
    return f"00{number:020x}00"


def number_of(id_: str) -> int | None:
    """Returns the number of the made-up person with that id, None if it is none of theirs."""
    if len(id_) != 24 or id_[:2] != "00" or id_[-2:] != "00":
        return None
    try:
        return int(id_[2:-2], 16)
    except ValueError:
        return None


def fields(seed: int, number: int) -> Record:
    """Returns the fields of a person that do not come from activities."""
    dice = digest(seed, number)
    first, last = FIRST_NAMES[dice[0] % len(FIRST_NAMES)], LAST_NAMES[dice[1] % len(LAST_NAMES)]
    made: Record = {
        "str::first": first,
        "str::last": last,
        "bol::p": dice[2] % 8 > 0,
        "str:cm:plan": PLANS[dice[3] % len(PLANS)],
        "geo::country": COUNTRIES[dice[4] % len(COUNTRIES)],
    }
    if number % 50 != 49:
        made["str::email"] = f"person+{number}@example.com"
    if number % 10:
        made["str::ei"] = str(10_000 + number)
    optional: Record = {
        "phn::phone": {"c": "44", "n": f"5550{number % 10_000:04d}"},
        "dtz::b": {"year": 1960 + dice[5] % 40, "month": 1 + dice[6] % 12, "day": 1 + dice[7] % 28, "timezone": "UTC"},
        "int:cm:seats": dice[8],
        "int:cm:score": dice[9] * 250,  # a decimal: x 1,000
        "bol:cm:customer": dice[10] % 2 == 0,
        "str::language": "de",
    }
    return made | {name: value for turn, (name, value) in enumerate(optional.items()) if dice[11] >> turn & 1}


def activities(seed: int, number: int, now: int) -> list[Record]:
    """Returns a person's email activities of the last 90 days, the newest first; none for a person without an email.

    `now` is in epoch seconds; the activities keep their distance from it.
    """
    if number % 50 == 49:
        return []
    dice = digest(seed, f"mail/{number}")
    made: list[Record] = []
    for turn in range(dice[0] % 5):
        roll = dice[1 + turn]
        sent = now - (dice[6 + turn] % (RETENTION - 1)) * DAY - 7_200 - roll
        email = _email(seed, roll % len(CAMPAIGNS))
        if roll % 23 == 7:
            bounce = {"str::bt": "hard", "str::bc": "invalid-mailbox", "str::br": "550 no such user"}
            made.append(_activity(seed, number, turn, "act::b", sent, email | bounce))
            continue
        made.append(_activity(seed, number, turn, "act::r", sent, email | {"bol::t": roll % 6 == 5}))
        if roll % 3:
            made.append(_activity(seed, number, turn, "act::o", sent + 600 + roll, email | {"bol::m": roll % 2 == 0}))
        if roll % 3 == 1:
            link = {"str::c": f"https://example.com/{roll % 4}", "int::li": roll % 4, "bol::m": False}
            made.append(_activity(seed, number, turn, "act::c", sent + 900 + roll, email | link))
        if roll % 31 == 3:
            left = {"str::u-ctx": "Unsubscribed via email link", "str::rn": "Too many emails"}
            kind = ("act::u-all", "act::s-ab")[roll % 2]
            made.append(_activity(seed, number, turn, kind, sent + 3_600, email | left))
    return sorted(made, key=lambda one: (one["created_at"], one["id"]), reverse=True)


def _activity(seed: int, number: int, turn: int, kind: str, at: int, attr: Record) -> Record:
    return {
        "id": f"{digest(seed, f'{kind}/{number}/{turn}').hex()[:24]}",
        "attr": attr,
        "created_at": iso(at),
        "field_id": kind,
        "render_cmds": [{"content": SYSTEM_ACTIVITIES[kind][0]}],
    }


SYSTEM_ACTIVITIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "act::s": ("Sent email", ()),
    "act::r": ("Received email", ("bol::t",)),
    "act::o": ("Opened email", ("bol::t", "bol::m")),
    "act::c": ("Clicked email", ("str::c", "str::rc", "int::li", "bol::m")),
    "act::b": ("Bounced email", ("str::bt", "str::bc", "str::br", "str::be")),
    "act::u-all": ("Unsubscribed from email", ("str::rn", "str::rno", "str::u-ctx")),
    "act::u-a": ("Unsubscribed from email audience", ("str::rn", "str::u-ctx")),
    "act::s-ab": ("Abuse reported", ("str::rn",)),
    "act::re": ("Replied to email", ("txt::er", "str::erf", "str::ert")),
    "act::s-all": ("Subscribed to email", ("str::is", "str::s-ctx")),
}


def campaign_id(seed: int, number: int) -> str:
    return digest(seed, f"campaign/{number}").hex()[:24]


@lru_cache
def _email(seed: int, number: int) -> Record:
    return {
        "idt::c": campaign_id(seed, number),
        "str::cn": CAMPAIGNS[number],
        "idt::ei": digest(seed, f"email/{number}").hex()[:24],
        "str::asn": f"{CAMPAIGNS[number]}, first email",
        "str::s": f"About {CAMPAIGNS[number]}",
    }


def iso(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
