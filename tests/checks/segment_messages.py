"""Two weeks of a small shop: messages of every type, as written by Segment's libraries for browsers, servers, phones.

The same seed gives the same messages. Autopilot's emails are among them.
"""

import gzip
import json
import random
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

Message = dict[str, Any]

FIRST_DAY = datetime(2024, 3, 4, tzinfo=UTC)
DAYS = 14
PEOPLE = 1_000
VISITS = 3_600
SOURCE = "shop1234AB"

# Browsers' user agents, with the device that dbt-segment derives from each.
AGENTS = {
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/122.0": "Desktop",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:123.0) Gecko/20100101 Firefox/123.0": "Desktop",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_3 like Mac OS X) AppleWebKit/605.1.15 Version/17.3 Mobile": "iPhone",
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 Chrome/122.0 Mobile Safari/537.36": "Android",
}
CAMPAIGNS = (
    {"source": "newsletter", "medium": "email", "name": "Spring"},
    {"source": "google", "medium": "cpc", "name": "Shoes", "term": "running shoes", "content": "ad 2"},
)
REFERRERS = ("", "https://www.google.com/", "https://news.example.org/shoes?page=2")
PATHS = {"/": "Home", "/shoes": "Shoes", "/shoes/red": "Red shoes", "/cart": "Cart", "/über-uns": "Über uns"}
PRODUCTS = (("sku-1", "Red shoes", 59.9), ("sku-2", "Blue shoes", 64.95), ("sku-3", "Laces 🎀", 3.1))
SERVERS = (("analytics-node", "2.1.0"), ("analytics-python", "2.3.2"), ("analytics-ruby", "2.4.0"))
PHONES: tuple[tuple[str, str, Message, Message], ...] = (
    ("analytics-ios", "4.1.8", {"name": "iOS", "version": "17.3"}, {"manufacturer": "Apple", "model": "iPhone15,2"}),
    ("analytics-android", "4.11", {"name": "Android", "version": "14"}, {"manufacturer": "Google", "model": "Pixel"}),
)


class Person(NamedTuple):
    """A visitor with one device. Every sixth one is the person before, on another device."""

    number: int
    anonymous_id: str
    user_id: str
    email: str
    agent: str
    on_phone: bool


class Visit:
    """The messages of one visit. A visitor who was identified once is known from then on."""

    def __init__(self, rng: random.Random, person: Person, start: datetime, known: set[int]) -> None:
        self.rng = rng
        self.person = person
        self.clock = start
        self.known = known

    def messages(self) -> Iterator[Message]:
        """Yields all messages of the visit, in the order of their times."""
        yield from self._phone() if self.person.on_phone else self._browser()
        if self.person.number in self.known:
            yield from self._server()

    def _browser(self) -> Iterator[Message]:
        landing: Message = {"campaign": self.rng.choice(CAMPAIGNS)} if self.rng.random() < 0.3 else {}
        referrer = self.rng.choice(REFERRERS)
        for at in range(self.rng.randint(1, 6)):
            path = self.rng.choice(list(PATHS))
            url = f"https://www.example.com{path}{'?gclid=abc' if landing and not at else ''}"
            page = {"path": path, "url": url, "title": PATHS[path], "referrer": referrer, "search": ""}
            context = self._browser_context(page) | (landing if not at else {})
            # Older libraries write the name only among the properties.
            named = {"name": PATHS[path]} if self.rng.random() < 0.5 else {}
            properties = page | {"name": PATHS[path]}
            yield self._message("page", context, **named, properties=properties)
            if path.startswith("/shoes"):
                yield self._message("track", context, event="Product Viewed", properties=self._product())
            if at == 1:
                yield from self._sign_up(context)
            referrer = url

    def _phone(self) -> Iterator[Message]:
        library, version, system, device = PHONES[self.person.number % 2]
        context: Message = {
            "library": {"name": library, "version": version},
            "app": {"name": "Shop", "version": "3.2.0", "build": 320, "namespace": "com.example.shop"},
            "device": {**device, "id": str(uuid.UUID(int=self.person.number)), "type": system["name"].lower()},
            "os": system,
            "network": {"wifi": self.rng.random() < 0.7, "cellular": True, "carrier": "Carrier"},
            "screen": {"width": 390, "height": 844, "density": 2.75},
            "locale": "de-DE",
            "timezone": "Europe/Berlin",
        }
        yield self._message("track", context, event="Application Opened", properties={"from_background": False})
        for _ in range(self.rng.randint(1, 5)):
            screen = self.rng.choice(("Home", "Product", "Cart"))
            yield self._message("screen", context, name=screen, properties={"items": self.rng.randrange(4)})
        yield from self._sign_up(context)

    def _sign_up(self, context: Message) -> Iterator[Message]:
        person = self.person
        if person.number in self.known or self.rng.random() < 0.5:
            return
        self.known.add(person.number)
        traits: Message = {
            "email": person.email,
            "firstName": f"Name{person.number}",
            "plan": self.rng.choice(("free", "pro")),
            "createdAt": _clock(self.clock),
            "address": {"city": "Zürich", "postalCode": "8001"},
        }
        yield self._message("identify", context, traits=traits)
        yield self._message("track", context, event="Signed Up", properties={"plan": traits["plan"]})
        if person.number % 7 == 0:
            yield self._message("alias", context, previousId=person.anonymous_id)
        if person.number % 3 == 0:
            company = f"company-{person.number % 40}"
            traits = {"name": f"Company {person.number % 40}", "seats": self.rng.randrange(1, 90), "mrr": 99.5}
            yield self._message("group", context, groupId=company, traits=traits)

    def _server(self) -> Iterator[Message]:
        name, version = self.rng.choice(SERVERS)
        context = {"library": {"name": name, "version": version}}
        if self.rng.random() < 0.4:
            products = [self._product() | {"quantity": self.rng.randint(1, 3)} for _ in range(self.rng.randint(1, 3))]
            properties = {
                "orderId": f"order-{self.rng.getrandbits(40):x}",
                "revenue": round(sum(product["price"] * product["quantity"] for product in products), 2),
                "currency": self.rng.choice(("EUR", "USD")),
                "products": products,
                "firstOrder": self.rng.random() < 0.5,
            }
            yield self._message("track", context, event="Order Completed", properties=properties, anonymousId=None)
        integration = {"integration": {"name": "autopilothq", "version": "1.0.0"}}
        traits = {"traits": {"contact_id": f"person_{self.person.number}", "email": self.person.email.lower()}}
        email = {"campaign_name": "Receipts", "email_name": "Thanks", "transactional": True}
        for event in ("Email Delivered", "Email Opened")[: self.rng.randrange(3)]:
            autopilot = integration | {"library": {"name": "unknown", "version": "unknown"}} | traits
            yield self._message("track", autopilot, event=event, properties=email, anonymousId=None)

    def _browser_context(self, page: Message) -> Message:
        return {
            "library": {"name": "analytics.js", "version": "next-1.64.0"},
            "ip": f"203.0.113.{self.person.number % 250}",
            "userAgent": self.person.agent,
            "locale": "en-GB",
            "timezone": "Europe/London",
            "page": page,
        }

    def _product(self) -> Message:
        sku, name, price = self.rng.choice(PRODUCTS)
        return {"productId": sku, "name": name, "price": price}

    def _message(self, kind: str, context: Message, **fields: Any) -> Message:
        self.clock += timedelta(milliseconds=self.rng.randint(2_000, 600_000))
        received = self.clock + timedelta(milliseconds=self.rng.randint(200, 3_000))
        user = {"userId": self.person.user_id if self.person.number in self.known else None}
        message = {
            "type": kind,
            "messageId": f"{context['library']['name']}-{self.rng.getrandbits(120):030x}",
            "anonymousId": self.person.anonymous_id,
            **user,
            "timestamp": _clock(self.clock),
            "originalTimestamp": _clock(self.clock),
            "sentAt": _clock(self.clock + timedelta(milliseconds=100)),
            "receivedAt": _clock(received),
            "context": context,
            "integrations": {},
            "projectId": SOURCE,
            "version": 2,
            "writeKey": "key",
            **fields,
        }
        return {name: value for name, value in message.items() if value is not None}


def messages(number: int, quiet_day: int, seed: int = 1) -> list[Message]:
    """Returns the first `number` messages of the shop, in the order of their receipt.

    On `quiet_day` (0 is the first day), all visits begin between 19:00 and 19:30, so that a lookback of three hours
    from the last of them cuts none in two.
    """
    rng = random.Random(seed)
    people: list[Person] = []
    for at in range(PEOPLE):
        anonymous_id = str(uuid.UUID(int=rng.getrandbits(128)))
        same = people[-1].number if at % 6 == 5 else at
        agent = rng.choice(list(AGENTS))
        user = (f"user-{same}", f"Name{same}@Example.com")
        people.append(Person(at, anonymous_id, *user, agent, on_phone=at % 5 == 0))
    starts = [(rng.randrange(DAYS), rng.random(), rng.randrange(PEOPLE)) for _ in range(VISITS)]
    known: set[int] = set()
    found: list[Message] = []
    for day, part, who in sorted(starts):
        hour = 19 + part / 2 if day == quiet_day else 6 + part * 14
        start = FIRST_DAY + timedelta(days=day, milliseconds=int(hour * 3_600_000))
        found += Visit(rng, people[who], start, known).messages()
    assert len(found) >= number, f"{VISITS} visits make {len(found)} messages, fewer than {number}"
    return sorted(found, key=lambda message: str(message["receivedAt"]))[:number]


def write(folder: Path, lines: Sequence[Message]) -> None:
    """Writes an archive in Segment's layout, with a file for each day; some lines come twice, as in real archives."""
    days: dict[str, list[Message]] = {}
    for line in lines:
        days.setdefault(line["receivedAt"][:10], []).append(line)
    for day, of_day in days.items():
        start = int(datetime.fromisoformat(f"{day}T00:00:00Z").timestamp() * 1000)
        path = folder / "segment-logs" / SOURCE / f"{start}" / f"{start}.abcdef.1.gz"
        path.parent.mkdir(parents=True)
        with gzip.open(path, "wt") as out:
            out.writelines(f"{json.dumps(line, ensure_ascii=False)}\n" for line in [*of_day, *of_day[::400]])


def _clock(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03d}Z"
