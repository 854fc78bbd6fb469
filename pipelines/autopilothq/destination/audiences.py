"""Turns the rows of a query into items: the traits of persons, or who entered and who left an audience."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..display import plural, shortened
from ..errors import RunError
from ..segment.naming import snake_case
from .delivery_log import Member
from .messages import ID_COLUMNS, Item, id_text, trait_item


class PersonRow(NamedTuple):
    """A row of a query: the key column's value, the email and the user id (None if missing), all other columns."""

    key: str
    email: str | None
    user_id: str | None
    traits: dict[str, Any]


def person_rows(names: Sequence[str], values: Sequence[Sequence[Any]], key: str) -> tuple[list[PersonRow], int]:
    """Returns the rows of a query's result that have a key, and how many have none.

    Raises RunError if the result has no key column or has a column twice, or if two rows have the same key.
    """
    columns = _columns(names, key)
    found: list[PersonRow] = []
    for row in values:
        ids = {column: id_text(row[columns[column]]) if column in columns else None for column in ID_COLUMNS}
        if person := ids[key]:
            traits = {name: value for name, value in zip(names, row, strict=True) if name.lower() not in ID_COLUMNS}
            found.append(PersonRow(person, ids["email"], ids["user_id"], traits))
    _check_unique(found, key)
    return found, len(values) - len(found)


def _columns(names: Sequence[str], key: str) -> dict[str, int]:
    """Returns the position of each column by its lower-case name; raises RunError without the key, or for a repeat."""
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


def _check_unique(rows: Sequence[PersonRow], key: str) -> None:
    """Raises RunError if two rows have the same key."""
    repeated = [(who, number) for who, number in Counter(identity(row, key) for row in rows).items() if number > 1]
    if repeated:
        who, number = repeated[0]
        raise RunError(
            f"Expected one row for each {key}, got {number} for {shortened(who)},"
            f" and {plural(len(repeated) - 1, 'more that comes', 'more that come')} twice.\n"
            "Let the query choose: GROUP BY, DISTINCT or QUALIFY. Nothing was sent."
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(shortened, names))


def identity(row: PersonRow, key: str) -> str:
    """Returns the value that identifies a person: the user id as it is, or the email in lower case."""
    return row.key.lower() if key == "email" else row.key


def _identity_digest(row: PersonRow, key: str) -> str:
    """Returns the last part of the ids of a person's messages: a digest, so that the log does not reveal the person."""
    return hashlib.sha256(identity(row, key).encode("utf-8", "replace")).hexdigest()


def trait_items(found: Sequence[PersonRow]) -> Iterator[Item]:
    """Yields an identify for each row, with the row's columns as traits. Raises RunError if a row has none."""
    for row in found:
        if not row.traits:
            raise RunError("Expected columns besides email and user_id, which are the traits, got none.")
        yield trait_item(row.key, row.user_id, _with_email(row.traits, row.email))


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
    members: Sequence[PersonRow]


def membership_items(audience: Audience, known: Mapping[str, Member]) -> tuple[list[Item], int]:
    """Returns the items of who entered (true) and who left (false) since the last delivery, and the number unchanged.

    `known` is the log's record of everybody who was ever sent as a member. A person whose delivery failed is sent
    again, but not one who was never delivered and is no longer a member. Raises RunError if the audience was sent by
    another key.
    """
    trait = audience.trait
    sent = f"The audience {trait} was sent by {{}} before"
    compared = compare_members(f"audience-{trait}", audience, known, sent)
    items = [_membership(id_, trait, row.email, row.user_id, True) for id_, row in compared.entered]
    for id_, member in compared.left:
        email = member.email if audience.key == "email" else None
        items.append(_membership(id_, trait, email, member.user_id, False))
    return items, compared.unchanged


class MemberChanges(NamedTuple):
    """Who `entered` and who `left` an audience, with their ids in the log, and how many members are unchanged."""

    entered: list[tuple[str, PersonRow]]
    left: list[tuple[str, Member]]
    unchanged: int


def compare_members(prefix: str, audience: Audience, known: Mapping[str, Member], sent: str) -> MemberChanges:
    """Compares the members of an audience with their records in the log.

    Their ids in the log are the `prefix`, the key column and a digest of the person. Raises RunError if the log has
    them by the other key (`sent` is the beginning of the message, with `{}` for that key), or if a row has traits.
    """
    key = audience.key
    [other] = set(ID_COLUMNS) - {key}
    if any(id_.startswith(f"{prefix}-{other}-") and member.known for id_, member in known.items()):
        raise RunError(
            f"{sent.format(other)}, and nobody can tell who is who by {key}.\n"
            f"Add --key {other}, or give the audience another name."
        )
    for row in audience.members:
        if row.traits:
            raise RunError(
                f"Expected only email and user_id of an audience, got {_listed(row.traits)} as well.\n"
                "Leave them out of the query, or send them as traits: autopilothq send traits."
            )
    mine = f"{prefix}-{key}-"
    members = {mine + _identity_digest(row, key): row for row in audience.members}
    entered = [(id_, row) for id_, row in members.items() if id_ not in known or known[id_].known != "true"]
    left = [
        (id_, member)
        for id_, member in known.items()
        if id_.startswith(mine) and id_ not in members and member.known not in (None, "false")
    ]
    return MemberChanges(entered, left, len(members) - len(entered))


def _membership(id_: str, trait: str, email: str | None, user_id: str | None, is_in: bool) -> Item:
    content = "true" if is_in else "false"
    traits = _with_email({trait: is_in}, email)
    return Item(id_, "identify", user_id, traits, audience=trait, once=False, content=content)


def _with_email(values: dict[str, Any], email: str | None) -> dict[str, Any]:
    return values if email is None else {"email": email, **values}
