"""The contents of a made-up account. Contact number i is computed, not stored: only changes take memory."""

import re
from bisect import bisect_right, insort
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from hashlib import blake2b
from heapq import merge
from itertools import islice
from threading import RLock
from typing import Any

Record = dict[str, Any]

PAGE = 100
FIRST_DAY = 1_541_030_400_000  # 2018-11-01, epoch milliseconds
DAY = 86_400_000
FIRST_NAMES = ("Thomas", "Zoë", "Jürgen", "Siobhán", "Łukasz", "Nguyễn", "Anne-Marie", "D'Arcy", "Mei Ling", "Óscar")
LAST_NAMES = ("Smith", "Müller", "O'Brien", "Nowak", "Þórsdóttir", "Trần", "van der Berg", "García", "Lee", "Ivanova")
COMPANIES = ("Acme", "Globex", "Müller & Söhne", 'Quote "Inc"', "株式会社")
LISTS = {
    "contactlist_06444749-9C0F-4894-9A23-D6872F9B6EF8": ("1k.csv", 4),
    "contactlist_build-your-journey": ("Build your journey", 3),
    "contactlist_old list 7": ("Old customers / 2014", 10),
    "contactlist_nobody": ("Nobody", 0),
}
SEGMENTS = {
    "contactlist_sseg1456891025207": ("Ladies", 2),
    "contactlist_sseg1456891025999": ("Opened last month", 5),
}
TRIGGERS = (
    {"trigger_id": "0003", "journey": "trigger test", "trigger_type": "apiTrigger"},
    {"trigger_id": "0007", "journey": "Order Completed", "trigger_type": "apiTrigger"},
    {"trigger_id": "0011", "journey": "Trial Extended", "trigger_type": "apiTrigger"},
)
FIELDS = (
    ("Review Rating", "integer"),
    ("Smog Level", "float"),
    ("Customer", "boolean"),
    ("Trial Ends", "date"),
    ("user id", "string"),
    ("Order Completed", "string"),
)
# The fields that the API knows under these names; anything else is stored but never returned.
KNOWN = frozenset(
    (
        "Email", "FirstName", "LastName", "Name", "Salutation", "Title", "Industry", "Phone", "MobilePhone", "Fax",
        "Company", "NumberOfEmployees", "Website", "Status", "LeadSource", "Twitter", "LinkedIn", "MailingStreet",
        "MailingCity", "MailingState", "MailingPostalCode", "MailingCountry", "owner_name", "unsubscribed",
    )
)  # fmt: skip
EMAILS = 24  # the number of emails that the account ever sent

_EMAIL = re.compile(r".*\+(\d+)@")
_ID = re.compile(r"person_([0-9A-F]{8})-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{12}")


class Account:
    """Contacts, lists, segments, fields, triggers and hooks; tests change them with the methods that the API uses."""

    def __init__(self, contacts: int = 100, seed: int = 1) -> None:
        self.made = contacts
        self.seed = seed
        self.lists = {list_id: title for list_id, (title, _) in LISTS.items()}
        self.fields: list[tuple[str, str]] = list(FIELDS)
        self.hooks: dict[str, Record] = {}
        self.triggered: list[tuple[str, str]] = []  # (trigger, contact id), in order
        self.ejected: list[tuple[str, str]] = []  # (journey, contact id), in order
        self.hidden: dict[str, Record] = {}  # what was written under names that the account does not know
        self._step = 2**32 // max(1, contacts)
        self._changed: dict[str, Record] = {}
        self._gone: set[str] = set()  # made-up contacts that were deleted
        self._new: list[str] = []  # ids that were not made up, sorted
        self._by_email: dict[str, str] = {}
        self._drawn = 0
        self.lock = RLock()

    # ---- reading -------------------------------------------------------------------------------------------------

    def find(self, who: str) -> Record | None:
        """Returns the contact with that id or email, None if there is none."""
        with self.lock:
            contact_id = self._by_email.get(who.lower()) if "@" in who else who
            if contact_id is None and (match := _EMAIL.match(who)) and int(match[1]) < self.made:
                contact = self._contact(int(match[1]))
                if contact.get("Email") != who.lower() or contact["contact_id"] in self._changed:
                    return None
                contact_id = contact["contact_id"]
            return self._by_id(contact_id) if contact_id else None

    def contact(self, number: int) -> Record:
        """Returns made-up contact `number`, counted from 0 in the order of ids, as the API returns it now."""
        contact = self.find(self.contact_id(number))
        assert contact is not None, f"contact {number} was deleted"
        return contact

    def contact_id(self, number: int) -> str:
        text = digest(self.seed, number).hex().upper()
        return f"person_{number * self._step:08X}-{text[:4]}-4{text[4:7]}-A{text[7:10]}-{text[10:22]}"

    def page(self, after: str | None, member_of: str | None = None, overlap: int = 0) -> Record:
        """Returns up to 100 contacts after the id `after`, in the order of ids, of a list, a segment or the account."""
        with self.lock:
            if after is not None and overlap:
                number = self._number(after) - overlap
                after = self.contact_id(number) if number >= 0 else None
            ids = list(islice(self._ids(after, member_of), PAGE + 1))
            page: Record = {
                "contacts": [self._by_id(contact_id) for contact_id in ids[:PAGE]],
                "total_contacts": self.total(member_of),
            }
            if len(ids) > PAGE:
                page["bookmark"] = ids[PAGE - 1]
            return page

    def total(self, member_of: str | None = None) -> int:
        """Returns the number of contacts in the account, or in a list or segment."""
        with self.lock:
            every = _every(member_of)
            made = (self.made + every - 1) // every if every else 0
            touched = [n for n in map(self._number_of, self._gone | set(self._changed)) if n is not None]
            left = sum(1 for number in touched if every and number % every == 0)
            return made - left + sum(1 for contact in self._changed.values() if _in(contact, member_of))

    def is_group(self, group: str) -> bool:
        return group in self.lists or group in SEGMENTS

    # ---- changing ------------------------------------------------------------------------------------------------

    def upsert(self, written: Mapping[str, Any]) -> str:
        """Writes a contact as POST /contact does, and returns its id."""
        with self.lock:
            email = written.get("Email")
            contact = self.find(email) if email else None
            if contact is None:
                contact = self._drawn_contact()
            for key, value in written.items():
                self._write(contact, key, value)
            contact["updated_at"] = _iso(FIRST_DAY + 400 * DAY)
            self._keep(contact)
            return str(contact["contact_id"])

    def change(self, who: str, **fields: Any) -> None:
        """Sets fields of a contact, in the form in which the API returns them; None removes one."""
        with self.lock:
            contact = self._existing(who) | fields
            self._keep({key: value for key, value in contact.items() if value is not None})

    def happen(self, who: str, kind: str, email_key: str, at: int) -> None:
        """Adds an email event: `happen(id, "mail_opened", key, at=1541030400000)`."""
        self.change(who, **{kind: self._existing(who).get(kind, {}) | {email_key: at}})

    def delete(self, who: str) -> None:
        with self.lock:
            contact_id = self._existing(who)["contact_id"]
            self._forget(contact_id)
            if self._number_of(contact_id) is None:
                self._new.remove(contact_id)
            else:
                self._gone.add(contact_id)

    def put_on_list(self, list_id: str, who: str, on: bool) -> None:
        with self.lock:
            lists = [known for known in self._existing(who).get("lists", []) if known != list_id]
            self.change(who, lists=[*lists, list_id] if on else lists or None)

    def create_list(self, name: str) -> str:
        list_id = "contactlist_" + _uuid(digest(self.seed, f"list/{name}")).upper()
        self.lists[list_id] = name
        return list_id

    # ---- inside --------------------------------------------------------------------------------------------------

    def _existing(self, who: str) -> Record:
        contact = self.find(who)
        if contact is None:
            raise KeyError(f"no contact {who}")
        return contact

    def _by_id(self, contact_id: str) -> Record | None:
        if contact_id in self._changed:
            return dict(self._changed[contact_id])
        number = self._number_of(contact_id)
        return None if number is None or contact_id in self._gone else self._contact(number)

    def _number(self, contact_id: str) -> int:
        """Returns the number of the made-up contact with that id, or else of the last one before it; -1 if none is."""
        match = _ID.fullmatch(contact_id)
        return min(int(match[1], 16) // self._step, self.made - 1) if match else -1

    def _number_of(self, contact_id: str) -> int | None:
        number = self._number(contact_id)
        return number if number >= 0 and self.contact_id(number) == contact_id else None

    def _ids(self, after: str | None, member_of: str | None) -> Iterator[str]:
        every = _every(member_of)
        first = self._number(after) if after else 0
        made = (
            (contact_id, number % every == 0 if every else False)
            for number in range(max(first, 0), self.made)
            if (contact_id := self.contact_id(number)) not in self._gone and (after is None or contact_id > after)
        )
        new = ((contact_id, False) for contact_id in self._new[bisect_right(self._new, after or "") :])
        for contact_id, member in merge(made, new):
            changed = self._changed.get(contact_id)
            if member if changed is None else _in(changed, member_of):
                yield contact_id

    def _drawn_contact(self) -> Record:
        self._drawn += 1
        contact_id = "person_" + _uuid(digest(self.seed, f"new/{self._drawn}")).upper()
        insort(self._new, contact_id)
        made = FIRST_DAY + 400 * DAY
        return {"type": "Contact", "contact_id": contact_id, "api_originated": True, "created_at": _iso(made)}

    def _keep(self, contact: Record) -> None:
        self._forget(contact["contact_id"])
        self._changed[contact["contact_id"]] = contact
        if contact.get("Email"):
            self._by_email[contact["Email"].lower()] = contact["contact_id"]

    def _forget(self, contact_id: str) -> None:
        before = self._changed.pop(contact_id, {})
        self._by_email.pop(str(before.get("Email")).lower(), None)

    def _write(self, contact: Record, key: str, value: Any) -> None:
        if key == "custom" and isinstance(value, dict):
            for name, custom in value.items():
                self._write_custom(contact, name, custom)
        elif key == "_autopilot_list" and value in self.lists:
            contact["lists"] = [*(known for known in contact.get("lists", []) if known != value), value]
        elif key == "_NewEmail":
            contact["Email"] = value
        elif key in KNOWN:
            contact[key] = value
            if value is None:
                del contact[key]
        elif key not in ("notify", "contact_id"):
            self.hidden.setdefault(contact["contact_id"], {})[key] = value

    def _write_custom(self, contact: Record, name: str, value: Any) -> None:
        """Writes a custom field, named as in `integer--Smog--Level`: the type, and the name with `--` for blanks."""
        kind, _, rest = name.partition("--")
        field = rest.replace("--", " ")
        if (field, kind) not in self.fields:
            self.hidden.setdefault(contact["contact_id"], {})[name] = value
            return
        others = [custom for custom in contact.get("custom_fields", []) if custom["kind"] != field]
        shown = [] if value is None else [{"kind": field, "value": value, "fieldType": kind, "deleted": False}]
        contact["custom_fields"] = others + shown

    def _contact(self, number: int) -> Record:
        """Returns contact `number` before any change: always the same, computed from the bytes of a digest."""
        dice = digest(self.seed, number)
        first, last = FIRST_NAMES[dice[0] % len(FIRST_NAMES)], LAST_NAMES[dice[1] % len(LAST_NAMES)]
        created = FIRST_DAY - (dice[2] + 1) * DAY + dice[3] * 1000
        updated = created + dice[4] * DAY + dice[5]
        contact: Record = {
            "type": "Contact",
            "contact_id": self.contact_id(number),
            "Name": f"{first} {last}",
            "FirstName": first,
            "LastName": last,
            "unsubscribed": dice[6] < 8,
            "api_originated": dice[6] % 2 == 0,
            "created_at": _iso(created),
        }
        if number % 50 != 49:
            contact["Email"] = _address(first, last, number)
        if dice[7] % 16:  # it may be missing
            contact["updated_at"] = (_iso, _rfc1123, int)[dice[7] % 3](updated)
        if dice[8] % 2:
            contact |= {"Company": COMPANIES[dice[8] % len(COMPANIES)], "NumberOfEmployees": str(dice[9] * 7)}
        if dice[10] % 4 == 0:
            contact |= {"Phone": f"+65 555-{number % 10_000:04d}", "LatestSubscribe": created}
        if dice[11] % 8 == 0:
            contact |= {"_id": contact["contact_id"], "_rev": f"{dice[11]}-{dice.hex()}"}
            contact["employeesRange"] = {"min": 11, "max": 50}
            contact["anywhere_page_visits"] = {"https://example.com/pricing?utm_source=a.b": True}
        contact |= {kind: value for kind, value in _mail(self.seed, dice, created).items() if value}
        fields: dict[str, Any] = {
            "Review Rating": dice[12] % 6,
            "Smog Level": dice[13] / 4,
            "Customer": dice[14] % 2 == 0,
            "Trial Ends": _iso(created + 30 * DAY),
            "user id": str(10_000 + number),
        }
        kinds = dict(FIELDS)
        custom = [
            {"kind": name, "value": value, "fieldType": kinds[name], "deleted": False}
            for position, (name, value) in enumerate(fields.items())
            if dice[15] >> position & 1
        ]
        if custom:
            contact["custom_fields"] = custom
        lists = [list_id for list_id, (_, every) in LISTS.items() if every and number % every == 0]
        if lists:
            contact["lists"] = lists
        return contact


def _every(member_of: str | None) -> int:
    """Returns n if every n-th made-up contact is in that list or segment; 0 if there is no member."""
    return 1 if member_of is None else (LISTS | SEGMENTS).get(member_of, ("", 0))[1]


def _in(contact: Record, member_of: str | None) -> bool:
    """Returns whether a changed contact is in that list, or True if none is named. It is in no segment."""
    return member_of is None or member_of in contact.get("lists", [])


def _mail(seed: int, dice: bytes, created: int) -> dict[str, dict[str, int]]:
    """Returns the maps of a contact's email activity."""
    maps: dict[str, dict[str, int]] = {}
    for turn in range(dice[16] % 6):
        roll = dice[17 + turn]
        key, sent = _email(seed, roll % EMAILS)
        at = max(sent, created) + roll * 997
        if roll % 23 == 7:
            maps.setdefault("mail_bounced" if roll % 2 else "mail_hardbounced", {})[key] = at
            continue
        maps.setdefault("mail_received", {})[key] = at
        if roll % 3:
            maps.setdefault("mail_opened", {})[key] = at + 60_000 + roll * 4_001
        if roll % 3 == 1:
            maps.setdefault("mail_clicked", {})[key] = at + 90_000 + roll * 4_001
        if roll % 31 == 3:
            maps.setdefault("mail_complained" if roll % 2 else "mail_unsubscribed", {})[key] = at + 3_600_000
    return maps


@lru_cache
def _email(seed: int, number: int) -> tuple[str, int]:
    """Returns an email's key, and the time at which it was sent."""
    sent = FIRST_DAY + number * 11 * DAY
    if number == EMAILS - 1:
        return f"transactional_{number}", sent  # other forms exist
    dice = digest(seed, f"email/{number}")
    return f"batchdelivery_{_uuid(dice[:16]).upper()}_{sent}-{_uuid(dice[16:])}", sent


def _address(first: str, last: str, number: int) -> str:
    letters = f"{first}.{last}".encode("ascii", "ignore").decode().lower()
    return f"{re.sub(r'[^a-z.]', '', letters)}+{number}@example.com"


def contact(number: int, **fields: Any) -> dict[str, Any]:
    """Returns a contact as the API does, with more fields."""
    return {"contact_id": f"person_{number}", "Email": f"{number}@example.com", **fields}


def digest(seed: int, name: object) -> bytes:
    return blake2b(f"{seed}/{name}".encode(), digest_size=32).digest()


def _uuid(dice: bytes) -> str:
    text = dice[:16].hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


def _iso(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def _rfc1123(ms: int) -> str:
    return format_datetime(datetime.fromtimestamp(ms // 1000, UTC), usegmt=True)
