"""An archive with the oddities of real ones, and the models' rows for it, counted in plain Python."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

Row = dict[str, Any]

NAMES = {
    "Email Delivered": "deliveries",
    "Email Opened": "opens",
    "Email Clicked": "clicks",
    "Email Replied": "replies",
    "Email Bounced": "bounces",
    "Email Marked as Spam": "complaints",
    "Email Unsubscribed": "unsubscribes",
}
FIRST = datetime(2024, 3, 1, tzinfo=UTC)
# The people that messages are about: some persons with several ids, and some with one id alone.
PEOPLE: tuple[Row, ...] = (
    {"userId": "u1", "context": {"traits": {"email": "Ada@Example.com", "contact_id": "person_1"}}},
    {"userId": "u1", "context": {"traits": {"email": "\tada@example.com \r\n"}}},
    {"userId": "u1", "context": {"traits": {"email": "ada@other.example"}}},  # another address of the same user
    {"userId": "u2"},
    {"userId": "\n u2\f"},
    {"anonymousId": "Bob@Example.com"},
    {"anonymousId": "bob@example.com", "userId": "u3"},
    {"anonymousId": "a-device"},
    {"context": {"traits": {"email": "CLEO@EXAMPLE.COM", "contact_id": "person_2"}}},
    {"anonymousId": "cleo-device", "context": {"traits": {"email": "", "contact_id": "person_2"}}},
    {"userId": "Dan@Example.com", "context": {"traits": {"email": " \t"}}},
    {"userId": "u4", "context": {"traits": {"email": "eve@other.example"}}},
    {"context": {"traits": {"email": '"jo@home"@other.example'}}},
    {"context": {"traits": {"email": "nobody@"}}},
    {"userId": "u5", "context": {"traits": {"email": "eve@other.example"}}},
    {"userId": "u6", "properties": {"email": "Fay@Example.com"}},
)
EMAILS: tuple[Row, ...] = (
    {"email_id": "e1", "email_name": "Welcome", "email_subject": "Hi", "campaign_id": "j1", "campaign_name": "Start"},
    {"email_id": "e2", "email_name": "Tips", "campaign_id": "j1", "campaign_name": "Start", "transactional": False},
    {"email_id": "e3", "email_name": "News", "campaign_id": "j2", "campaign_name": "News"},
    {"email_id": "e3"},  # as from an API: no names, no journey
    {"campaign_id": "j2", "campaign_name": "News, renamed"},
    {"email_id": "e4", "email_name": "Receipt", "campaign_id": "j3", "transactional": True},
    {},
)
LINKS: tuple[Row, ...] = (
    {"link_id": "l1", "link_url": "https://x/1"},
    {"link_id": "l2", "link_url": "https://x/2"},
    {"link_id": "l3", "link_url": "https://x/1"},
    {},
)


def iso(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def archive(size: int = 400) -> list[Row]:
    """Returns the messages, the same ones at every call."""
    rng = random.Random(18)
    found = [_event(rng, number) for number in range(size)]
    found += [{**found[number], "receivedAt": iso(FIRST + timedelta(days=30))} for number in (1, 5, 8)]  # replayed
    return [*found, *_at_bounds(), *_others()]


def _event(rng: random.Random, number: int) -> Row:
    name = rng.choices(tuple(NAMES), (10, 8, 5, 1, 3, 1, 1))[0]
    person = rng.choice(PEOPLE)
    properties = {**rng.choice(EMAILS), **person.get("properties", {})}
    if name == "Email Opened" and rng.random() < 0.5:
        properties["machine"] = rng.random() < 0.5
    if name == "Email Clicked":
        properties |= rng.choice(LINKS)
    at = FIRST + timedelta(minutes=rng.randrange(6 * 24 * 60))
    received = at + timedelta(hours=rng.choice((0, 0, 0, 30)))
    times: Row = {"receivedAt": iso(received), "timestamp": iso(at)}
    oddity = rng.random()
    if oddity < 0.05:
        times["timestamp"] = "soon"
    elif oddity < 0.1:  # a device whose clock is an hour fast
        fast = timedelta(hours=1)
        times |= {"timestamp": ..., "originalTimestamp": iso(at + fast), "sentAt": iso(received + fast)}
    elif oddity < 0.12:
        times = {}
    message = {"type": "track", "event": name, "messageId": f"m{number}", **person, **times, "properties": properties}
    return {key: value for key, value in message.items() if value is not ...}


def _at_bounds() -> Iterable[Row]:
    """Yields boundary cases: persons to whom nothing was delivered, opens at once and after a week, repeated clicks."""
    first, second, *_, receipt, _ = EMAILS
    hal = "hal@late.example"
    of: list[tuple[str, str, Row, int]] = [
        *(
            ("Email Bounced", who, email, 0)
            for who in ("gil@away.example", "gus@bounced.example")
            for email in EMAILS[:2]
        ),
        *(("Email Opened", "ivy@opened.example", email, 0) for email in EMAILS[:3]),
        ("Email Replied", "roy@opened.example", receipt, 0),
        ("Email Marked as Spam", "sue@opened.example", receipt, 0),
        ("Email Unsubscribed", "una@opened.example", receipt, 0),
        *(("Email Delivered", hal, email, 0) for email in (first, second, receipt)),
        ("Email Opened", hal, first, 0),
        ("Email Opened", hal, second, 7 * 24 * 60 + 1),
        *(("Email Clicked", hal, email | link, 1) for email, link in ((second, LINKS[1]), (receipt, LINKS[0])) * 2),
        *[("Email Clicked", hal, first | LINKS[0], 1)] * 6,
    ]
    for number, (name, email, properties, minutes) in enumerate(of):
        at = iso(FIRST + timedelta(minutes=minutes))
        who = {"context": {"traits": {"email": email}}, "receivedAt": at, "timestamp": at}
        yield {"type": "track", "event": name, "messageId": f"b{number}", **who, "properties": properties}


def _others() -> Iterable[Row]:
    """Yields messages that are not one of the seven events."""
    at = iso(FIRST + timedelta(days=7))
    of = {"receivedAt": at, "timestamp": at}
    yield {"type": "track", "event": "Trial Extended", "messageId": "o1", "userId": "u1", **of}
    yield {"type": "track", "event": "Daily", "messageId": "o2", "userId": "u7", **of}
    yield {"type": "track", "event": "日本", "messageId": "o3", "userId": "u7", **of}
    yield {"type": "identify", "messageId": "o4", "userId": "u2", "traits": {"email": "Ben@Example.com"}, **of}
    yield {"type": "alias", "messageId": "o5", "userId": "u8", "previousId": "a-device", **of}
    yield {"type": "alias", "messageId": "o6", "userId": "u9", "previousId": "u4", **of}
    yield {"type": "alias", "messageId": "o10", "userId": "u10", "previousId": "\t Fay@Example.COM\r", **of}
    for name in ("blank-1", "blank-2"):  # no user id
        yield {"type": "identify", "messageId": name, "userId": "  ", "anonymousId": name, **of}
    for name in ("abe", "zoe", "yan", "xia", "wim", "vic"):  # the first one's only message has no time
        who = {"userId": "u11", "context": {"traits": {"email": f"{name}@example.com"}}}
        yield {"type": "identify", "messageId": name, **who, **(of if name != "abe" else {})}
    yield {"type": "page", "messageId": "o7", "anonymousId": "a-device", "name": "Prices", **of}
    yield {"type": "group", "messageId": "o8", "userId": "u1", "groupId": "g1", **of}
    for number in range(11):  # an id that many persons share, such as a default value in a form
        who = {"userId": "none", "context": {"traits": {"email": f"many{number}@example.com"}}}
        yield {"type": "identify", "messageId": f"o9-{number}", **who, **of}


# ---- one message -----------------------------------------------------------------------------------------------------


def time_of(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text or "")
    except ValueError:
        return None


class Message(NamedTuple):
    sent: Row
    person: str
    at: datetime | None

    @property
    def properties(self) -> Row:
        return dict(self.sent.get("properties", {}))


def stored(messages: Iterable[Row]) -> list[Message]:
    """Returns the messages that a warehouse stores: of those with the same id, the first one."""
    by_id: dict[str, Row] = {}
    for sent in messages:
        by_id.setdefault(sent["messageId"], sent)
    return [Message(sent, person_of(sent), occurred(sent)) for sent in by_id.values()]


def person_of(sent: Row) -> str:
    traits = sent.get("context", {}).get("traits", {})
    body = {**sent.get("traits", {}), **sent.get("properties", {})}
    for email in (traits.get("email"), body.get("email")):
        if email and email.strip():
            return str(email.strip().lower())
    for id_ in (sent.get("userId"), sent.get("anonymousId")):
        if id_ and id_.strip():
            return str(id_.strip().lower() if "@" in id_ else id_.strip())
    raise AssertionError(sent)


def occurred(sent: Row) -> datetime | None:
    received = time_of(sent.get("receivedAt"))
    if "timestamp" in sent:
        return time_of(sent["timestamp"]) or received
    if "sentAt" in sent and received:
        return received - (datetime.fromisoformat(sent["sentAt"]) - datetime.fromisoformat(sent["originalTimestamp"]))
    return received


# ---- the models ------------------------------------------------------------------------------------------------------


def seven(messages: Iterable[Message]) -> list[Message]:
    return [one for one in messages if one.sent.get("event") in NAMES]


def grouped(messages: Iterable[Message], key: Callable[[Message], Any]) -> dict[Any, list[Message]]:
    groups: dict[Any, list[Message]] = defaultdict(list)
    for one in messages:
        if key(one) is not None:
            groups[key(one)].append(one)
    return groups


def count(messages: Iterable[Message], event: str) -> int:
    return sum(one.sent["event"] == event for one in messages)


def persons(messages: Iterable[Message], event: str) -> set[str]:
    return {one.person for one in messages if one.sent["event"] == event}


def machine_opens(messages: Iterable[Message]) -> int | None:
    told = [one.properties["machine"] for one in messages if "machine" in one.properties]
    return sum(told) if told else None


def times(messages: Iterable[Message], event: str) -> list[datetime]:
    return [one.at for one in messages if one.sent["event"] == event and one.at]


def ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def measures(messages: list[Message]) -> Row:
    people = persons(messages, "Email Delivered")
    of_people = {event: persons(messages, event) & people for event in NAMES}
    bounced = persons(messages, "Email Bounced")
    acting = set().union(
        *(persons(messages, event) for event in NAMES if event not in ("Email Delivered", "Email Bounced"))
    )
    human = {
        one.person for one in messages if one.sent["event"] == "Email Opened" and not one.properties.get("machine")
    } & people
    totals = {count_: count(messages, event) for event, count_ in NAMES.items() if count_ != "deliveries"}
    opened, clicked = len(of_people["Email Opened"]), len(of_people["Email Clicked"])
    replied, complained = len(of_people["Email Replied"]), len(of_people["Email Marked as Spam"])
    unsubscribed = len(of_people["Email Unsubscribed"])
    return {
        "first_delivered_at": min(times(messages, "Email Delivered"), default=None),
        "last_delivered_at": max(times(messages, "Email Delivered"), default=None),
        "delivered": count(messages, "Email Delivered"),
        "people": len(people),
        "attempted": len(people | bounced),
        "opened": opened,
        "human_opened": len(human),
        "clicked": clicked,
        "replied": replied,
        "bounced": len(bounced),
        "complained": complained,
        "unsubscribed": unsubscribed,
        "undelivered": len(acting - people),
        **totals,
        "machine_opens": machine_opens(messages),
        "open_rate": ratio(opened, len(people)),
        "human_open_rate": ratio(len(human), len(people)),
        "click_rate": ratio(clicked, len(people)),
        "click_to_open_rate": ratio(clicked, opened),
        "reply_rate": ratio(replied, len(people)),
        "bounce_rate": ratio(len(bounced), len(people)),
        "bounce_rate_of_attempted": ratio(len(bounced), len(people | bounced)),
        "complaint_rate": ratio(complained, len(people)),
        "unsubscribe_rate": ratio(unsubscribed, len(people)),
    }


def names(messages: Iterable[Message], *columns: str) -> Row:
    """Returns the columns of the latest message, preferring one that has the first column, then one with a journey."""

    def rank(one: Message) -> tuple[Any, ...]:
        has = one.properties
        return has.get(columns[0]) is not None, has.get("campaign_id") is not None, one.at is not None, one.at or FIRST

    last = max(messages, key=rank)
    return {column: last.properties.get(column) for column in columns}


def email_overview(messages: list[Message]) -> list[Row]:
    columns = ("email_name", "email_subject", "campaign_id", "campaign_name", "transactional")
    return [
        {"email_id": email, **names(found, *columns), **measures(found)}
        for email, found in grouped(seven(messages), lambda one: one.properties.get("email_id")).items()
    ]


def journey_overview(messages: list[Message]) -> list[Row]:
    return [
        {
            "campaign_id": journey,
            **names(found, "campaign_name"),
            "emails": len({one.properties["email_id"] for one in found if "email_id" in one.properties}),
            **measures(found),
        }
        for journey, found in grouped(seven(messages), lambda one: one.properties.get("campaign_id")).items()
    ]


def link_overview(messages: list[Message]) -> list[Row]:
    emails = {row["email_id"]: row for row in email_overview(messages)}
    rows = []
    clicks = [one for one in seven(messages) if one.sent["event"] == "Email Clicked" and "email_id" in one.properties]
    links = grouped(clicks, lambda one: tuple(map(one.properties.get, ("email_id", "link_id", "link_url"))))
    for (email, link, url), found in links.items():
        got = persons((m for m in seven(messages) if m.properties.get("email_id") == email), "Email Delivered")
        clickers = {one.person for one in found}
        rows.append(
            {
                "email_id": email,
                **{name: emails[email][name] for name in ("email_name", "campaign_id", "campaign_name")},
                "link_id": link,
                "link_url": url,
                "clicks": len(found),
                "clickers": len(clickers),
                "clicked": len(clickers & got),
                "people": len(got),
                "click_rate": ratio(len(clickers & got), len(got)),
                "first_clicked_at": min(times(found, "Email Clicked"), default=None),
                "last_clicked_at": max(times(found, "Email Clicked"), default=None),
            }
        )
    return rows


def person_email(messages: list[Message]) -> list[Row]:
    with_email = [one for one in seven(messages) if "email_id" in one.properties]
    rows = []
    for (person, email), found in grouped(with_email, lambda one: (one.person, one.properties["email_id"])).items():
        firsts = {
            f"first_{verb}_at": min(times(found, event), default=None)
            for event, verb in zip(
                NAMES,
                ("delivered", "opened", "clicked", "replied", "bounced", "complained", "unsubscribed"),
                strict=True,
            )
        }
        counts = {count_: count(found, event) for event, count_ in NAMES.items()}
        last = max(times(found, "Email Delivered"), default=None)
        more = {"last_delivered_at": last, "machine_opens": machine_opens(found)}
        rows.append({"person": person, "email_id": email, **firsts, **counts, **more})
    return rows


def mailbox_domain(one: Message) -> str | None:
    return one.person.rpartition("@")[2] or None if "@" in one.person else None


def domain_health(messages: list[Message]) -> list[Row]:
    rows = []
    for domain, found in grouped(seven(messages), mailbox_domain).items():
        row = measures(found)
        row["bounces_per_mail"] = ratio(row["bounces"], row["delivered"] + row["bounces"])
        row["complaints_per_mail"] = ratio(row["complaints"], row["delivered"])
        rows.append({"domain": domain, **row})
    return rows


def daily(messages: list[Message]) -> list[Row]:
    people = dict(
        zip(
            NAMES, ("people", "openers", "clickers", "repliers", "bounced", "complainers", "unsubscribers"), strict=True
        )
    )
    days = grouped(seven(messages), lambda one: (one.at.date() if one.at else None,))
    return [
        {
            "day": day,
            "delivered": count(found, "Email Delivered"),
            **{count_: count(found, event) for event, count_ in NAMES.items() if count_ != "deliveries"},
            "machine_opens": machine_opens(found),
            **{column: len(persons(found, event)) for event, column in people.items()},
        }
        for (day,), found in days.items()
    ]


def person_timeline(messages: list[Message]) -> list[Row]:
    """Returns the rows of `person_timeline`, with some of the columns."""
    return [
        {
            "person": one.person,
            "occurred_at": one.at,
            "type": one.sent["type"],
            "id": one.sent["messageId"],
            "event_text": one.sent.get("event"),
            **{name: one.properties.get(name) for name in ("campaign_id", "email_id", "link_url")},
        }
        for one in messages
    ]


# ---- identities ------------------------------------------------------------------------------------------------------


def identities(messages: list[Message]) -> list[Row]:
    """Returns the rows of `identities`: ids join persons transitively, except ids that more than ten persons share."""
    ids: dict[tuple[str, str], set[str]] = defaultdict(set)
    for one in messages:
        previous = (one.sent.get("previousId") or "").strip()
        as_person = previous.lower() if "@" in previous else previous
        of = (("user id", _user(one)), ("contact id", _contact(one)), ("user id", previous), ("alias", as_person))
        for kind, id_ in (*of, ("alias", one.person)):
            if id_ and id_.strip():
                ids[kind, id_.strip()].add(one.person)
    joining = {of: who for of, who in ids.items() if 2 <= len(who) <= 10}
    group = {one.person: {one.person} for one in messages}
    for who in joining.values():
        merged = set().union(*(group[person] for person in who))
        group |= dict.fromkeys(merged, merged)
    rows = {person: _seen(person, found) for person, found in grouped(messages, lambda one: one.person).items()}
    end = FIRST + timedelta(days=99)
    for person, row in rows.items():
        first = min(group[person], key=lambda one: (rows[one]["first_seen_at"] or end, one))
        joined_by = min((kind for (kind, _), who in joining.items() if person in who), default="nothing")
        row |= {"identity": first, "joined_by": joined_by, "persons": len(group[person])}
    return list(rows.values())


def _user(one: Message) -> str | None:
    found: str | None = one.sent.get("userId")
    return found if found and found.strip() else None


def _contact(one: Message) -> str | None:
    found: str | None = one.sent.get("context", {}).get("traits", {}).get("contact_id")
    return found


def _seen(person: str, messages: list[Message]) -> Row:
    at = [one.at for one in messages if one.at]
    users = {user for one in messages if (user := _user(one)) is not None}
    return {
        "person": person,
        "email": person if "@" in person else None,
        "user_id": max(users, default=None),
        "user_ids": len(users),
        "contact_id": max((contact for one in messages if (contact := _contact(one))), default=None),
        "messages": len(messages),
        "first_seen_at": min(at, default=None),
        "last_seen_at": max(at, default=None),
    }
