"""Writes a realistic archive of any size, for `autopilothq sample`.

The same seed gives the same messages. Events are drawn in the order of their times and written immediately. Future
events, such as an open some hours after its delivery, wait in a heap, whose size depends on the events per day alone.
"""

import gzip
import heapq
import json
import os
import random
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

from .catalog import ARCHIVE_FOLDER
from .utc import DAY_MS

EVENTS_PER_DAY = 100_000  # at most: a larger archive has more days, to keep the heap small
MIN_DAYS = 7
FILES_PER_DAY = 2
FIRST_DAY = int(datetime(2019, 3, 1, tzinfo=UTC).timestamp() * 1000)
HOUR = 3_600_000
MINUTE = 60_000

EVENTS_PER_SEND = 1.63  # the mean over many seeds; used only to spread the sends over the days
SEND_EVENT_SHARE = 0.01
REPLAY_SHARE = 0.002

# A step of the funnel: event, probability, minimum delay (ms), mean of the further delay (ms).
AFTER_DELIVERY = (
    ("Email Opened", 0.38, 30_000, 5 * HOUR),
    ("Email Marked as Spam", 0.002, 60_000, 2 * HOUR),
)
AFTER_OPEN = (
    ("Email Clicked", 0.30, 3_000, 4 * MINUTE),
    ("Email Opened", 0.25, 10 * MINUTE, 9 * HOUR),
    ("Email Replied", 0.02, 2 * MINUTE, 3 * HOUR),
    ("Email Unsubscribed", 0.012, 5_000, 3 * MINUTE),
)
AFTER_CLICK = (("Email Clicked", 0.2, 2_000, MINUTE),)
BOUNCE_CHANCE = 0.02

FIRST_NAMES = (
    "Thomas", "Maria", "Zoë", "Jürgen", "Aiko", "李", "Olu", "Sofía", "Ivan", "Priya", "Noor", "Lars",
)  # fmt: skip
LAST_NAMES = ("Smith", "García", "Müller", "Tanaka", "Okafor", "Kowalski", "O'Neill", "Haddad", "Nguyễn", "Lund")
MAIL_DOMAINS = ("example.com", "example.org", "mail.example.net", "corp.example.com")
JOURNEYS = (
    ("Onboarding Journey", ("Welcome", "Your first week", "Tips that save an hour 🎉"), False),
    ("Trial Ending", ("Three days left", "Last chance: 20% off", "Your trial has ended"), False),
    ("Newsletter", ("What is new in March", "Customer story: \"Acme\"", "Webinar — save your seat"), False),
    ("Win-back", ("We miss you", "Is this goodbye?"), False),
    ("Receipts", ("Your receipt", "Payment failed"), True),
    ("Événement Québec", ("Invitation à l'événement", "Merci d'être venu·e"), False),
)  # fmt: skip
LINKS = (
    "https://www.example.com/pricing",
    "https://www.example.com/docs/getting-started?utm_source=autopilot&utm_medium=email",
    "https://app.example.com/login?next=%2Fdashboard",
    "https://www.example.com/blog/customer-story#quote",
)
SENT_EVENTS = (("Trial Extended", "days"), ("Demo Requested", "seats"), ("NPS Answered", "score"))


class _Email(NamedTuple):
    """An email of a journey: the JSON, without braces, of the properties that all of its events have, and its links."""

    properties: str
    links: tuple[str, ...]


class _Contact(NamedTuple):
    """A contact: the JSON of its ids, of its `context`, and of its traits."""

    anonymous_id: str
    user_id: str
    context: str
    traits: str


class _Event(NamedTuple):
    """A future event; `tie` keeps events of the same time in the order in which they were drawn."""

    time: int
    tie: int
    name: str
    email: int
    contact: int


def write(folder: str, events: int = 10_000, seed: int = 1) -> list[str]:
    """Writes an archive of `events` messages under `folder` and returns its files, in order.

    The layout is Segment's: `segment-logs/{source-id}/{day in epoch ms}/{name}.gz`. As in real archives, there are a
    few irregularities, none of which may cost a row: replayed messages, blank lines, a byte-order mark, `\\r\\n`, and
    missing or null ids and timestamps.

    Example: `write("demo", events=1000, seed=7)`.
    """
    rng = random.Random(seed)
    source_id = "".join(rng.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=10))
    root = os.path.join(folder, ARCHIVE_FOLDER, source_id)
    os.makedirs(root, exist_ok=True)
    open(os.path.join(root, "dummy-object.txt"), "w").close()
    days = max(MIN_DAYS, -(-events // EVENTS_PER_DAY))
    files: list[str] = []
    lines = _lines(rng, events, days, source_id)
    for part, of_part in groupby(lines, lambda line: (line[0] - FIRST_DAY) * FILES_PER_DAY // DAY_MS):
        start = FIRST_DAY + part * DAY_MS // FILES_PER_DAY
        day = os.path.join(root, str(start // DAY_MS * DAY_MS))
        os.makedirs(day, exist_ok=True)
        files.append(os.path.join(day, f"{start}.{rng.randrange(16**12):012x}.1.gz"))
        with gzip.GzipFile(files[-1], "wb", compresslevel=3, mtime=0) as out:
            if len(files) == 2:
                out.write(b"\xef\xbb\xbf")
            out.writelines(line for _, line in of_part)
    return files


def _lines(rng: random.Random, events: int, days: int, source_id: str) -> Iterator[tuple[int, bytes]]:
    """Yields the archive's lines with the time at which Segment received each (ms), in the order of that time."""
    emails = _emails(rng)
    contacts = max(20, events // 12)
    send_gap = days * DAY_MS / max(1, int(events / EVENTS_PER_SEND))
    written = 0
    received = FIRST_DAY
    last = b""
    for event in _email_events_in_order(rng, send_gap, len(emails), contacts):
        if written >= events:
            return
        received = max(received + 1, event.time + 200 + int(rng.expovariate(1 / 400)))
        contact = _contact(event.contact, source_id)
        if rng.random() < SEND_EVENT_SHARE:
            lines: Sequence[bytes] = _send_event(rng, contact, received, source_id)[: events - written]
        elif last and rng.random() < REPLAY_SHARE:
            lines = [last]
        else:
            last = _email_event(rng, event, emails[event.email], contact, received, source_id)
            lines = [last]
        written += len(lines)
        yield from ((received, line) for line in lines)


def _email_events_in_order(rng: random.Random, send_gap: float, emails: int, contacts: int) -> Iterator[_Event]:
    """Yields a delivery or bounce every `send_gap` ms and the events that follow it, endlessly, in order of time."""
    waiting: list[_Event] = []
    ties = sends = 0
    while True:
        next_send = FIRST_DAY + int(sends * send_gap)
        if not waiting or next_send <= waiting[0].time:
            ties += 1
            email = min(int(rng.expovariate(0.25)), emails - 1)
            name = "Email Bounced" if rng.random() < BOUNCE_CHANCE else "Email Delivered"
            heapq.heappush(waiting, _Event(next_send, ties, name, email, int(contacts * rng.random() ** 1.5)))
            sends += 1
            continue
        event = heapq.heappop(waiting)
        for name, chance, least, mean in _steps(event.name):
            if rng.random() < chance:
                ties += 1
                time = event.time + least + int(rng.expovariate(1 / mean))
                heapq.heappush(waiting, _Event(time, ties, name, event.email, event.contact))
        yield event


def _steps(name: str) -> tuple[tuple[str, float, int, float], ...]:
    return {"Email Delivered": AFTER_DELIVERY, "Email Opened": AFTER_OPEN, "Email Clicked": AFTER_CLICK}.get(name, ())


def _emails(rng: random.Random) -> list[_Email]:
    emails = []
    for number, (journey, subjects, transactional) in enumerate(JOURNEYS):
        campaign_id = "campaign_" + _uuid(rng).upper()
        for position, subject in enumerate(subjects):
            email_id = f"batchcampaign_{1477963234959 + number * 86413 + position}-{_uuid(rng).upper()}"
            properties = {
                "campaign_id": campaign_id,
                "campaign_name": journey,
                "email_id": email_id,
                "email_name": f"{journey} {position + 1}",
                "email_subject": subject,
            }
            # Half of the emails come with their text escaped, as some of Segment's libraries write it.
            text = _json(properties, ascii_only=position % 2 == 1)
            links = tuple(f',"link_id":"{_uuid(rng)[:8]}","link_url":{json.dumps(url)}' for url in LINKS)
            emails.append(_Email(f'{text[1:-1]},"transactional":{"true" if transactional else "false"}', links))
    return emails


@lru_cache(maxsize=50_000)
def _contact(number: int, source_id: str) -> _Contact:
    """Returns the contact of that number, always the same one, so that contacts need not be kept in memory."""
    rng = random.Random(f"{source_id}/{number}")
    first, last = rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES)
    email = f"{first}.{last}+{number}@{rng.choice(MAIL_DOMAINS)}".lower().replace("'", "")
    contact_id = "person_" + (f"AP2-{_uuid(rng)}" if number % 5 == 0 else _uuid(rng).upper())
    known = rng.random()
    # Autopilot sends the user id if it knows one, otherwise the email as anonymousId, and now and then both.
    user_id = f'"userId":"{10_000 + number}",' if known < 0.6 else rng.choice(("", '"userId":null,'))
    anonymous_id = f'"anonymousId":{_json(email)},' if known > 0.5 else rng.choice(("", '"anonymousId":null,'))
    traits = {"contact_id": contact_id, "email": email}
    context = (
        '"context":{"integration":{"name":"autopilothq","version":"1.0.0"},'
        f'"library":{{"name":"unknown","version":"unknown"}},"traits":{_json(traits)}}}'
    )
    return _Contact(anonymous_id, user_id, context, _json(traits | {"firstName": first, "lastName": last}))


def _email_event(
    rng: random.Random, event: _Event, email: _Email, contact: _Contact, received: int, source_id: str
) -> bytes:
    link = rng.choice(email.links) if event.name == "Email Clicked" else ""
    properties = f'"properties":{{{_event_property(event.name)},{email.properties}{link}}}'
    line = _message(rng, "track", f'"event":"{event.name}",', properties, contact, event.time, received, source_id)
    irregular = rng.random()
    if irregular < 0.0005:
        return b"\n" + line
    return line[:-1] + b"\r\n" if irregular < 0.001 else line


def _send_event(rng: random.Random, contact: _Contact, received: int, source_id: str) -> tuple[bytes, bytes]:
    """Returns the messages of the journey action "Send Event": an identify, and a track of any name."""
    name, key = rng.choice(SENT_EVENTS)
    traits = f'"traits":{contact.traits[:-1]},"score":{rng.randrange(100)}}}'
    properties = (
        f'"properties":{{{_event_property(name)},"{key}":{rng.randrange(1, 50)},'
        f'"plan":{{"name":"pro","price":{rng.randrange(9, 99)}.5}}}}'
    )
    return (
        _message(rng, "identify", "", traits, contact, received - 300, received, source_id),
        _message(rng, "track", f'"event":"{name}",', properties, contact, received - 300, received, source_id),
    )


def _message(
    rng: random.Random, kind: str, event: str, body: str, contact: _Contact, time: int, received: int, source_id: str
) -> bytes:
    timestamp = _timestamp(time)
    sent = f'"{_timestamp(time + 40)}"' if rng.random() < 0.05 else "null"
    original = "" if rng.random() < 0.01 else f'"originalTimestamp":"{timestamp}",'
    message_id = f"api-{rng.getrandbits(160):027x}"[:31]
    return (
        f'{{{contact.anonymous_id}"channel":"server",{contact.context},{event}"integrations":{{}},'
        f'"messageId":"{message_id}",{original}"projectId":"{source_id}",{body},"receivedAt":"{_timestamp(received)}",'
        f'"sentAt":{sent},"timestamp":"{timestamp}","type":"{kind}",{contact.user_id}"version":2,"writeKey":"key"}}\n'
    ).encode()


def _event_property(name: str) -> str:
    """Returns the property that repeats an event's name, which Segment's documentation has for every event."""
    return f'"event":"{name.lower().replace(" ", "_")}"'


def _timestamp(time: int) -> str:
    return f"{_second(time // 1000)}.{time % 1000:03d}Z"


@lru_cache(maxsize=10_000)
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128)))


def _json(value: dict[str, Any] | str, ascii_only: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":"))
