"""Delivers items to an account: in batches, merged by email, one by one where a batch was refused, never twice.

Batches are sent side by side, so that slow answers do not slow the pace; those that share a person follow each other.
"""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Literal, NamedTuple, Protocol

from ..clients.autopilot import MOST_CONTACTS, Page, Upserted
from ..clients.decode import as_text, plain
from ..clients.urls import path_of
from ..display import visible
from ..errors import ApiError, InvalidSetting, NotAuthorized, OutcomeUnknown, RequestRejected, Unavailable
from ..segment.identity import forms
from ..segment.message import JsonObject
from .delivery_log import SENT_AGAIN, Delivery, DeliveryLog, DeliveryStatus, Sent
from .fields import SETTINGS, ContactFields, Fields, contact_fields
from .messages import NO_IDENTIFIER, Ignored, Item, text

AT_ONCE = 8  # requests under way; the pace is the client's
CHUNK = 1000  # items whose fates are asked for at once
STRIKES = 3  # batches in a row that could not be delivered: the others would fare alike

Unknown = Literal["send", "refuse"]
Key = str  # an email in lower case: that is who a contact is


class Account(Protocol):
    """What of `client.Autopilot` is used here."""

    @property
    def attempts(self) -> int:
        """How often the calling thread's last request was tried."""

    def upsert_many(self, contacts: Sequence[Mapping[str, Any]], /) -> Upserted:
        """Writes contacts."""

    def upsert(self, contact_fields: Mapping[str, Any], /) -> str:
        """Writes a contact."""

    def trigger(self, trigger_id: str, who: str, /) -> None:
        """Sends a contact into a journey."""

    def contact(self, who: str, /) -> JsonObject | None:
        """A contact."""

    def contacts(self) -> Iterator[Page]:
        """All contacts."""

    def custom_fields(self) -> list[Any]:
        """The account's fields."""

    def triggers(self) -> list[Any]:
        """The account's triggers."""


@dataclass
class Counts:
    """What became of the messages so far."""

    messages: int = 0
    delivered: int = 0
    refused: int = 0
    failed: int = 0
    unknown: int = 0
    known: int = 0  # delivered by an earlier run
    repeated: int = 0  # the same message again
    forgotten: int = 0  # of persons who were forgotten: they leave no trace in the log
    ignored: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def all_delivered(self) -> bool:
        """Whether nothing was left undelivered."""
        return not (self.refused or self.failed or self.unknown)


class Outcome(NamedTuple):
    """What became of a request."""

    status: str
    endpoint: str
    http_status: int | None = None
    message: str | None = None
    attempts: int = 0


class Triggers:
    """Which triggers an event has: those of the settings, else those of the journeys whose title is its name.

    Raises InvalidSetting where the settings name a trigger that the account does not have.
    """

    def __init__(self, account: Account, mapping: Mapping[str, Any] | None = None) -> None:
        self._account = account
        self._mapping = {
            event: [str(one) for one in (ids if isinstance(ids, list | tuple) else [ids])]
            for event, ids in (mapping or {}).items()
        }
        self._titles: dict[str, list[str]] | None = None
        there = {one for ids in self._journeys().values() for one in ids} if self._mapping else set()
        for event, ids in self._mapping.items():
            for one in ids:
                if one not in there:
                    raise InvalidSetting(
                        f"{SETTINGS}.triggers (or --trigger) sends {event!r} to {one!r}, but the account's triggers"
                        f" are {', '.join(map(visible, sorted(there))) or 'none at all'}"
                    )

    def of(self, event: str) -> list[str]:
        """The ids of an event's triggers."""
        return self._mapping.get(event) or self._journeys().get(event, [])

    def _journeys(self) -> dict[str, list[str]]:
        if self._titles is None:
            self._titles = {}
            for trigger in plain(self._account.triggers()):
                if isinstance(trigger, dict) and trigger.get("trigger_id"):
                    self._titles.setdefault(str(trigger.get("journey")), []).append(str(trigger["trigger_id"]))
        return self._titles


class _Part(NamedTuple):
    """An item in a batch: `row` is its row but for the outcome, `triggers` are those to send its contact to."""

    key: Key
    row: Delivery
    triggers: list[str]
    before: Sequence[str] = ()  # statuses of triggers that it was sent to by earlier runs
    again: bool = False  # it was delivered, and goes along because something older comes only now
    intent: bool = False  # its row is written before the request


@dataclass
class _Batch:
    """Contacts to write with one request, and what is to be done and noted then."""

    contacts: dict[Key, dict[str, Any]] = field(default_factory=dict)
    parts: list[_Part] = field(default_factory=list)
    decided: list[Delivery] = field(default_factory=list)  # what is not sent at all
    renames: bool = False

    def people(self) -> set[Key]:
        return {
            str(email).lower()
            for values in self.contacts.values()
            for email in (values["Email"], values.get("_NewEmail"))
            if email
        }

    def clashes(self, key: Key, values: Mapping[str, Any]) -> bool:
        """Whether an event of that person, which is yet to be sent, would see other values than its own."""
        if not any(part.key == key and part.triggers for part in self.parts):
            return False
        mine = self.contacts[key]
        custom = mine.get("custom", {})
        return any(name in mine and mine[name] != value for name, value in values.items() if name != "custom") or any(
            name in custom and custom[name] != value for name, value in values.get("custom", {}).items()
        )

    def merge(self, key: Key, values: Mapping[str, Any]) -> None:
        before = self.contacts.get(key, {})
        custom = {**before.get("custom", {}), **values.get("custom", {})}
        self.contacts[key] = {**before, **values} | ({"custom": custom} if custom else {})


class Sender:
    """Sends items, and writes what becomes of each into the log.

    `unknown` says what to do with traits that the account has no field for: the message is sent, or refused whole.

    Example: `counts = Sender(account, Fields(account.custom_fields()), Triggers(account), log).send(items)`.
    """

    def __init__(
        self,
        account: Account,
        fields: Fields,
        triggers: Triggers,
        log: DeliveryLog,
        unknown: str = "send",
        progress: Callable[[Counts], None] = lambda _: None,
    ) -> None:
        self.counts = Counts()
        self._account = account
        self._fields = fields
        self._triggers = triggers
        self._log = log
        self._forgotten = log.forgotten()
        self._unknown = unknown
        self._progress = progress
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._strikes = 0
        self._broke_off: ApiError | None = None
        self._batch = _Batch()
        self._under_way: dict[Future[list[list[_Part]]], set[Key]] = {}
        self._people: dict[str, str] = {}  # emails by user id
        self._scanned = False
        self._seen: set[str] = set()
        self._touched: set[Key] = set()
        self._sent: dict[Key, Sent] = {}  # the latest of a person's known messages so far

    def send(self, items: Iterable[Item | Ignored]) -> Counts:
        """Sends them all, in their order for each person.

        Raises ApiError where the run must break off: what was not sent by then is not in the log, and comes with the
        next run.
        """
        stream = iter(items)
        with ThreadPoolExecutor(AT_ONCE) as self._pool:
            try:
                while chunk := list(islice(stream, CHUNK)):
                    self._take(chunk)
                self._flush()
                while self._under_way:
                    self._await()
            finally:
                self._stopping.set()
        self._progress(self.counts)
        return self.counts

    # ---- preparing -----------------------------------------------------------------------------------------------

    def _take(self, chunk: Sequence[Item | Ignored]) -> None:
        self.counts.messages += len(chunk)
        self.counts.ignored.update(item.type for item in chunk if isinstance(item, Ignored))
        items = [item for item in chunk if isinstance(item, Item)]
        fates = self._log.known(item.message_id for item in items)
        self._learn(items)
        for item in items:
            if item.once and item.message_id in self._seen:
                self.counts.repeated += 1
                continue
            self._seen.add(item.message_id)
            if self._is_forgotten(item):
                self.counts.forgotten += 1
                continue
            self._prepare(item, fates)
        self._progress(self.counts)

    def _learn(self, items: Sequence[Item]) -> None:
        """The emails of those who come with a user id alone: from the log, else from the custom field that holds it."""
        strangers = {item.user_id for item in items if item.user_id and not self._email(item)} - set(self._people)
        if not strangers:
            return
        found = self._log.emails(strangers)
        named = {item.user_id for item in items if item.user_id and self._email(item)}
        self._people = found | self._people
        if self._fields.user_id is not None and not self._scanned and strangers - set(found) - named:
            self._scanned = True
            for user_id, email in self._scan(self._fields.user_id.name):
                self._people.setdefault(user_id, email)

    def _scan(self, field_name: str) -> Iterator[tuple[str, str]]:
        """The API finds nobody by a field: all contacts are read, once."""
        for page in self._account.contacts():
            for person in page.contacts:
                email = as_text(person.value("Email")) if isinstance(person, JsonObject) else None
                if not email:
                    continue
                for custom in person.value("custom_fields") or ():
                    value = custom.value("value") if isinstance(custom, JsonObject) else None
                    if value is not None and custom.value("kind") == field_name:
                        yield str(value), email

    def _is_forgotten(self, item: Item) -> bool:
        contact_id = text(item.context_traits.get("contact_id"))
        ids = (("email", self._email(item)), ("user_id", item.user_id), ("contact_id", contact_id))
        return any(id_ in self._forgotten for kind, value in ids if value for id_ in forms(kind, value))

    def _email(self, item: Item) -> str | None:
        return self._fields.email(item.traits) or self._fields.email(item.context_traits)

    def _prepare(self, item: Item, fates: Mapping[tuple[str, str | None], DeliveryStatus]) -> None:
        row = Delivery(
            item.message_id, item.kind, item.event, item.audience, item.user_id, self._email(item), content=item.content
        )
        if item.refusal:
            self._refuse(row, item.refusal)
            return
        fate = fates.get((item.message_id, None))
        known = item.kind == "identify" and item.once and fate is not None and fate.ever
        triggers: list[str] = []
        all_triggers: list[str] = []
        before: list[str] = []
        if item.kind == "track" and item.event is not None:
            all_triggers = self._triggers.of(item.event)
            if not all_triggers:
                self._refuse(row, f"No trigger for the event {item.event!r}, in the settings or by a journey's title")
                return
            for trigger in all_triggers:
                past = fates.get((item.message_id, trigger))
                if past is not None and (past.ever or past.status == "unknown"):
                    before.append("delivered" if past.ever else "unknown")
                else:
                    triggers.append(trigger)
            known = not triggers
            if known and "unknown" in before:
                self._count([*before], "whether it was carried out is not known since an earlier run")
                return
        email = row.email or self._people.get(item.user_id or "")
        touched = email is not None and email.lower() in self._touched
        if known and email is not None:
            mine = [fates.get((item.message_id, trigger)) for trigger in (None, *all_triggers)]
            touched |= self._is_behind(email.lower(), max(one.sent for one in mine if one and one.sent))
        if known:
            self.counts.known += 1
            if not touched:
                return
        elif row.email and item.user_id:
            self._people[item.user_id] = row.email
        if email is None and item.user_id:
            self._refuse(row, self._stranger(item.user_id))
            return
        if email is None:
            self._refuse(row, NO_IDENTIFIER, 400)
            return
        made = self._contact(item, email)
        remarks = json.dumps(made.remarks, ensure_ascii=False) if made.remarks else None
        row = row._replace(email=email, remarks=remarks)
        if not item.once and item.content is None:
            row = row._replace(content=_digest(made.values))
        if not item.once and not touched and fate and (fate.status, fate.content) == ("delivered", row.content):
            self.counts.known += 1
            return
        if known and "_NewEmail" in made.values:
            return
        if made.unknown and self._unknown == "refuse":
            traits = ", ".join(map(repr, made.unknown))
            self._refuse(row, f"The account has no field for {traits}: make it there, map it, or let it be sent")
            return
        # By trait, without the values: those are the log's.
        remarks_said = (f"{trait} was {remark.partition(', got ')[0]}" for trait, remark in made.remarks.items())
        self.counts.remarks.update(remarks_said)
        self._put(_Part(email.lower(), row, triggers, before, known), made.values, fate)

    def _is_behind(self, key: Key, sent: Sent) -> bool:
        """Whether a later run delivered what comes before this message, and ended before it had sent this one again."""
        last = self._sent.get(key, sent)
        self._sent[key] = max(last, sent)
        return sent < last and sent.run != last.run

    def _contact(self, item: Item, email: str) -> ContactFields:
        if item.kind == "identify":
            return contact_fields(self._fields, email, item.traits, item.user_id)
        return contact_fields(
            self._fields, email, {**item.context_traits, **item.traits}, item.user_id, item.properties
        )

    def _stranger(self, user_id: str) -> str:
        field_name = "" if self._fields.user_id else f", and {SETTINGS}.user_id_field names no field that holds it"
        return f"No contact is known by the user id {user_id!r}: no identify with its email was delivered{field_name}"

    def _refuse(self, row: Delivery, why: str, http_status: int | None = None) -> None:
        self._batch.decided.append(row._replace(status="refused", http_status=http_status, message=why))
        self._count(["refused"], why)
        if len(self._batch.decided) >= CHUNK:
            self._flush()

    def _put(self, part: _Part, values: dict[str, Any], fate: DeliveryStatus | None) -> None:
        renames = bool(values.get("_NewEmail"))
        full = part.key not in self._batch.contacts and len(self._batch.contacts) == MOST_CONTACTS
        if renames or full or self._batch.clashes(part.key, values):
            self._flush()
        if renames and fate is not None and fate.status == "unknown" and self._renamed(values):
            self._batch.decided.append(part.row._replace(status="delivered", message="found to be carried out"))
            self._count(["delivered"])
            return
        if renames:  # who asks for the user id must find the new one
            part = part._replace(row=part.row._replace(email=values["_NewEmail"]))
        self._batch.merge(part.key, values)
        # A row that may have been sent comes again, also when the program ends in between and its values go back.
        self._batch.parts.append(part._replace(intent=renames or part.row.content is not None))
        self._touched.add(part.key)
        if renames:
            self._batch.renames = True
            if part.row.user_id:
                self._people[part.row.user_id] = values["_NewEmail"]
            self._flush()

    def _renamed(self, values: Mapping[str, Any]) -> bool:
        """Whether a change of address, whose fate is unknown, was carried out."""
        return self._account.contact(values["Email"]) is None and self._account.contact(values["_NewEmail"]) is not None

    # ---- sending -------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Sends the batch, behind those under way that share a person with it."""
        batch, self._batch = self._batch, _Batch()
        if not batch.contacts:
            self._log.add(batch.decided)
            return
        people = batch.people()
        while len(self._under_way) >= AT_ONCE or any(people & others for others in self._under_way.values()):
            self._await()
        self._under_way[self._pool.submit(self._deliver, batch)] = people

    def _await(self) -> None:
        """Waits until something under way is done; raises what went wrong with it."""
        done, _ = wait(self._under_way, return_when=FIRST_COMPLETED)
        for future in done:
            del self._under_way[future]
        try:
            entering = [person for future in done for person in future.result()]
        except _Stopped as stopped:
            raise self._broke_off or stopped from None
        for parts in entering:
            self._under_way[self._pool.submit(self._send_into_journeys, parts)] = {parts[0].key}
        self._progress(self.counts)

    def _deliver(self, batch: _Batch) -> list[list[_Part]]:
        """Writes a batch's contacts; gives the events of each person that are to be sent now."""
        outcomes: dict[Key, Outcome] = {}
        intents = [part for part in batch.parts if part.intent]
        self._log.add([part.row for part in intents])
        try:
            self._write(batch, outcomes)
        except ApiError as error:
            broke_off = _outcome("failed", "POST /contacts", error)
            self._log.settle(_with(part.row, broke_off) for part in intents if part.key not in outcomes)
            raise
        finally:
            self._log.settle(_with(part.row, outcomes[part.key]) for part in intents if part.key in outcomes)
            self._note(batch, outcomes)
        events: dict[Key, list[_Part]] = {}
        for part in batch.parts:
            if part.triggers and outcomes[part.key].status == "delivered":
                events.setdefault(part.key, []).append(part)
        return list(events.values())

    def _write(self, batch: _Batch, outcomes: dict[Key, Outcome]) -> None:
        """Writes a batch's contacts; `outcomes` gets what became of each, also when this raises."""
        contacts = list(batch.contacts.values())
        if not batch.renames:
            outcome = self._ask("POST /contacts", partial(self._account.upsert_many, contacts))
            if outcome.status != "refused" or len(contacts) == 1:
                outcomes |= dict.fromkeys(batch.contacts, outcome)
                return
        for key, values in batch.contacts.items():
            outcomes[key] = self._ask("POST /contact", partial(self._account.upsert, values))

    def _note(self, batch: _Batch, outcomes: Mapping[Key, Outcome]) -> None:
        rows = batch.decided
        for part in batch.parts:
            outcome = outcomes.get(part.key)
            if outcome is None:
                continue
            row = _with(part.row, outcome)
            if part.again:
                rows.append(row._replace(message=row.message or SENT_AGAIN))
                if row.status != "delivered":
                    self._count([row.status], row.message)
                    with self._lock:
                        self.counts.known -= 1
            elif row.kind == "identify":
                rows += [] if part.intent else [row]
                self._count([row.status], row.message)
            elif row.status != "delivered":
                rows += [row._replace(trigger_id=trigger) for trigger in part.triggers]
                self._count([*part.before, row.status], row.message)
        self._log.add(rows)

    def _send_into_journeys(self, parts: Sequence[_Part]) -> list[list[_Part]]:
        """Sends a person's events; then there is nothing more to do."""
        for part in parts:
            self._send_event(part)
        return []

    def _send_event(self, part: _Part) -> None:
        """A trigger is not idempotent: its row is there before its request, and is not sent again until it is known."""
        statuses = list(part.before)
        words: str | None = None
        for trigger in part.triggers:
            if self._stopping.is_set():
                return
            who = part.row.email or ""
            endpoint = f"POST {path_of(['trigger', trigger, 'contact', who])}"
            row = part.row._replace(trigger_id=trigger, endpoint=endpoint)
            self._log.add([row])
            try:
                outcome = self._ask(endpoint, partial(self._account.trigger, trigger, who))
            except ApiError as error:
                self._log.settle([_with(row, _outcome("failed", endpoint, error))])
                raise
            self._log.settle([_with(row, outcome)])
            statuses.append(outcome.status)
            words = outcome.message or words
        self._count(statuses, words)

    def _ask(self, endpoint: str, request: Callable[[], Any]) -> Outcome:
        """What becomes of a request; raises where every other one would end the same way."""
        if self._stopping.is_set():
            raise _Stopped("the run broke off")
        try:
            request()
        except NotAuthorized as error:
            self._break_off(error)
            raise
        except OutcomeUnknown as error:
            return _outcome("unknown", endpoint, error)
        except RequestRejected as error:
            return _outcome("refused", endpoint, error)
        except ApiError as error:
            if isinstance(error, Unavailable):
                self._strike(error)
            return _outcome("failed", endpoint, error)
        with self._lock:
            self._strikes = 0
        return Outcome("delivered", endpoint, 200, None, self._account.attempts)

    def _strike(self, error: Unavailable) -> None:
        with self._lock:
            self._strikes += 1
            stop = self._strikes >= STRIKES
        if stop:
            self._break_off(error)
            raise error

    def _break_off(self, error: ApiError) -> None:
        self._broke_off = self._broke_off or error
        self._stopping.set()

    def _count(self, statuses: Sequence[str], why: str | None = None) -> None:
        """Counts a message by the worst that became of it."""
        worst = next(status for status in ("failed", "unknown", "refused", "delivered") if status in statuses)
        with self._lock:
            setattr(self.counts, worst, getattr(self.counts, worst) + 1)
            if worst != "delivered":
                self.counts.reasons[worst, why or ""] += 1


class _Stopped(ApiError):
    """Another request ended the run."""


def _outcome(status: str, endpoint: str, error: ApiError) -> Outcome:
    return Outcome(status, endpoint, error.status, error.server_message or str(error), error.attempts)


def _with(row: Delivery, outcome: Outcome) -> Delivery:
    return row._replace(**outcome._asdict())


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
