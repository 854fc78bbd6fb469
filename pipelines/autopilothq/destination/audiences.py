"""Turns the rows of a query into items: the traits of persons, or who entered and who left an audience."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from ..display import plural, shortened
from ..errors import RunError
from ..segment.naming import snake_case
from .delivery_log import Member
from .messages import ID_COLUMNS, Item, id_text, trait_item


class PersonRow(NamedTuple):
    """A row of a query: the key column's value, the email and the user id (None if missing), and all other columns."""

    key: str
    email: str | None
    user_id: str | None
    traits: dict[str, Any]


class PersonRows(Collection[PersonRow]):
    """The rows of a query's result that have a key.

    `rows` are all rows of the result; each iteration reads them again, because they may be too many for memory.
    `skipped` is how many have no key; the length is how many have one.

    Raises RunError if the result has no key column or has a column twice, or if two rows have the same key.

    Example: `list(PersonRows(["email", "plan"], [("a@b.c", "pro")], "email"))`.
    """

    def __init__(self, names: Sequence[str], rows: Iterable[Sequence[Any]], key: str) -> None:
        self._names = names
        self._rows = rows
        self._key = key
        self._columns = _columns(names, key)
        self._traits = [(name, index) for index, name in enumerate(names) if name.lower() not in ID_COLUMNS]
        self.skipped = 0
        self._number = 0
        _check_unique(self._identities(), key)

    def __len__(self) -> int:
        return self._number

    def __contains__(self, row: object) -> bool:
        return any(row == each for each in self)

    def __iter__(self) -> Iterator[PersonRow]:
        for row in self._rows:
            if person := self._id(row, self._key):
                traits = {name: row[index] for name, index in self._traits}
                yield PersonRow(person, self._id(row, "email"), self._id(row, "user_id"), traits)

    def _identities(self) -> Iterator[str]:
        for row in self._rows:
            if person := self._id(row, self._key):
                self._number += 1
                yield identity(person, self._key)
            else:
                self.skipped += 1

    def _id(self, row: Sequence[Any], column: str) -> str | None:
        index = self._columns.get(column)
        return None if index is None else id_text(row[index])


def _columns(names: Sequence[str], key: str) -> dict[str, int]:
    """Returns the index of each column by its lower-case name. Raises RunError for a missing key or a repeated name."""
    columns = {name.lower(): index for index, name in enumerate(names)}
    if key not in columns:
        other = next((column for column in ID_COLUMNS if column in columns), None)
        hint = f"name it so (… AS {key})" + (f", or add --key {other}" if other else "")
        raise RunError(f"Expected a column {key} in the query's answer, got {_listed(names)}.\nN{hint[1:]}.")
    if len(columns) < len(names):
        twice = next(name for name, number in Counter(map(str.lower, names)).items() if number > 1)
        raise RunError(
            f"Expected each column of the query once, got {shortened(twice)} twice.\nGive one of them another name."
        )
    return columns


def _check_unique(identities: Iterable[str], key: str) -> None:
    """Raises RunError if two rows have the same key."""
    repeated = [(who, number) for who, number in Counter(identities).items() if number > 1]
    if repeated:
        who, number = repeated[0]
        others = len(repeated) - 1
        more = f", and {plural(others, 'more that comes', 'more that come')} twice" if others else ""
        by = "lower(email)" if key == "email" else key
        case = "Emails are compared without case. " if key == "email" else ""
        raise RunError(
            f"Expected one row for each {key}, got {number} for {shortened(who)}{more}.\n"
            f"{case}Let the query choose: GROUP BY {by}, DISTINCT or QUALIFY. Nothing was sent."
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(shortened, names))


def identity(person: str, key: str) -> str:
    """Returns the value that identifies a person: the user id as it is, or the email in lower case."""
    return person.lower() if key == "email" else person


def trait_items(found: Collection[PersonRow]) -> Iterator[Item]:
    """Returns an identify for each row, with the row's columns as traits. Raises RunError if there are no traits."""
    if any(not row.traits for row in islice(found, 1)):  # all have the same columns
        raise RunError("Expected columns besides email and user_id, which are the traits, got none.")
    return (trait_item(row.key, row.user_id, _with_email(row.traits, row.email)) for row in found)


def slug(name: str) -> str:
    """Returns the name of an audience's trait.

    Example: `slug("Order Completed Last 30days") == "order_completed_last_30days"`.

    Raises RunError if the name has no ASCII letters or digits.
    """
    trait = snake_case(name)
    if not trait:
        raise RunError(f"Expected an audience's name with ASCII letters or digits, got {name!r}.")
    return trait


class Audience(NamedTuple):
    """An audience: its name as a trait, the key column of its members, and their rows."""

    trait: str
    key: str
    members: Collection[PersonRow]


class MemberChanges(NamedTuple):
    """Who entered and who `left` an audience, with their ids in the log.

    The ids begin with `prefix`. `unchanged` has the ids of those who were members in the log and still are.
    """

    audience: Audience
    prefix: str
    left: Sequence[tuple[str, Member]]
    unchanged: Collection[str]

    def entered(self) -> Iterator[tuple[str, PersonRow]]:
        """Yields the id in the log and the row of each member who entered."""
        for row in self.audience.members:
            id_ = _member_id(self.prefix, row, self.audience.key)
            if id_ not in self.unchanged:
                yield id_, row

    @property
    def entering(self) -> int:
        """How many entered."""
        return len(self.audience.members) - len(self.unchanged)


def audience_changes(audience: Audience, known: Mapping[str, Member]) -> MemberChanges:
    """Returns who entered and who left an audience since the last delivery.

    `known` is the log's record of everybody who was ever sent as a member. A person whose delivery failed is sent
    again, except one who was never delivered and is no longer a member. Raises RunError if the audience was sent
    with another key.
    """
    sent = f"The audience {audience.trait} was sent with the key {{}} before"
    return compare_members(f"audience-{audience.trait}", audience, known, sent)


def membership_items(changes: MemberChanges) -> Iterator[Item]:
    """Yields the items of who entered (true) and who left (false) an audience."""
    trait, key = changes.audience.trait, changes.audience.key
    for id_, row in changes.entered():
        yield _membership(id_, trait, row.email, row.user_id, True)
    for id_, member in changes.left:
        yield _membership(id_, trait, member.email if key == "email" else None, member.user_id, False)


def compare_members(prefix: str, audience: Audience, known: Mapping[str, Member], sent: str) -> MemberChanges:
    """Returns who entered and who left an audience, compared with the records of its members in the log.

    A member's id in the log consists of the `prefix`, the key column and a digest of the person. Raises RunError if the
    log has members by the other key (`sent` begins the message, with `{}` for that key), or if a row has traits.
    """
    key = audience.key
    [other] = set(ID_COLUMNS) - {key}
    if any(id_.startswith(f"{prefix}-{other}-") and member.known for id_, member in known.items()):
        raise RunError(
            f"{sent.format(other)}, so its members cannot be found by {key}.\n"
            f"Add --key {other}, or give the audience another name."
        )
    for row in audience.members:
        if row.traits:
            raise RunError(
                f"Expected only email and user_id of an audience, got {_listed(row.traits)} as well.\n"
                "Leave them out of the query, or send them as traits: autopilothq send traits."
            )
    ids = (_member_id(prefix, row, key) for row in audience.members)
    members = {id_ for id_ in ids if id_ in known}
    left = [
        (id_, member)
        for id_, member in known.items()
        if id_.startswith(f"{prefix}-{key}-") and id_ not in members and member.known not in (None, "false")
    ]
    return MemberChanges(audience, prefix, left, {id_ for id_ in members if known[id_].known == "true"})


def _member_id(prefix: str, row: PersonRow, key: str) -> str:
    """Returns the id of a member's message: with a digest of the person, so that the log does not reveal who it is."""
    return f"{prefix}-{key}-{hashlib.sha256(identity(row.key, key).encode('utf-8', 'replace')).hexdigest()}"


def _membership(id_: str, trait: str, email: str | None, user_id: str | None, is_in: bool) -> Item:
    content = "true" if is_in else "false"
    traits = _with_email({trait: is_in}, email)
    return Item(id_, "identify", user_id, traits, audience=trait, once=False, content=content)


def _with_email(values: dict[str, Any], email: str | None) -> dict[str, Any]:
    return values if email is None else {"email": email, **values}
