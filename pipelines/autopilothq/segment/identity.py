"""Who a person is: the ids in a row or a message, and their hashes (docs/contract/warehouse.md#identity)."""

import hashlib
import hmac
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from unicodedata import normalize

from ..catalog import PERSON_COLUMNS
from .message import EXTRA


class Id(NamedTuple):
    """An id of a person in comparable form: the case of an email is folded. Made by `id_of`."""

    kind: str
    value: str

    def __str__(self) -> str:
        return f"{self.kind} {self.value}"

    def masked(self) -> str:
        """Returns an email masked to its first letter and domain, and other ids as they are.

        Example: `Id("email", "ada@example.com").masked() == "email a...@example.com"`.
        """
        if self.kind != "email":
            return str(self)
        name, _, domain = self.value.rpartition("@")
        return f"email {name[:1]}...@{domain}"


def fold(text: str) -> str:
    """Returns the text in the form that caseless comparisons use: Unicode's canonical caseless matching (D145).

    Texts that differ only in case, or in how letters and their marks are encoded, have the same form.
    Example: `fold("ΣΊΣΥΦΟΣ") == fold("σίσυφος")`.
    """
    return text.lower() if text.isascii() else normalize("NFC", normalize("NFD", text).casefold())


def fold_email(email: str) -> str:
    """Returns an email in the form that comparisons use: without surrounding blanks, its case folded."""
    return fold(email.strip())


def lower_email(email: str) -> str:
    """Returns an email in the form that earlier releases compared: suppression lists have hashes of such emails."""
    return email.strip(" ").lower()


def id_of(kind: str, value: str) -> Id:
    """Returns an id in comparable form. An id with an @ is an email, unless it is a contact id.

    Example: `id_of("user_id", " Ada@Example.com") == Id("email", "ada@example.com")`.
    """
    if kind != "contact_id" and "@" in value:
        return Id("email", fold_email(value))
    return Id(kind, value)


def forms(kind: str, value: str) -> tuple[Id, ...]:
    """Returns an id in comparable form, and also in the form of earlier releases if that differs."""
    id_ = id_of(kind, value)
    earlier = Id("email", lower_email(value)) if id_.kind == "email" else id_
    return (id_,) if earlier == id_ else (id_, earlier)


def kinds_of(table: str, column: str) -> tuple[str, ...]:
    """Returns the kinds of ids that a column can hold, or none if it holds no ids of persons.

    The kind `tagged` stands for ids with their kind in front: `email:ada@example.com`.
    """
    return PERSON_COLUMNS.get(f"{table}.{column}", PERSON_COLUMNS.get(column, ()))


def ids_in(kinds: Collection[str], value: str) -> Iterator[Id]:
    """Yields the ids that a value stands for in a column of these kinds, each in all its `forms`."""
    contacts_alone = "email" not in kinds
    for kind in kinds:
        if kind == "tagged":
            tag, _, tagged = value.partition(":")
            yield from forms(tag, tagged)
        elif value.strip() and (contacts_alone or (kind == "email") == ("@" in value)):
            yield from forms(kind, value)


def ids_of_cells(cells: Mapping[str, str]) -> Iterator[Id]:
    """Yields the ids of persons in the cells of a message."""
    for name, value in cells.items():
        extra = name.startswith(EXTRA)
        text = str(json.loads(value)) if extra and value.startswith('"') else value
        yield from ids_in(kinds_of("", name.removeprefix(EXTRA)), text)


KEYED = "hmac-sha256:"
"""The prefix of a salt whose hashes are made with a key."""


@dataclass(frozen=True)
class SuppressionKey:
    """A secret that ids are hashed with; its `repr` does not show it."""

    secret: bytes = field(repr=False)


class HashedIds:
    """A set of persons' ids that are known only by their salted hashes. `key` is needed for hashes made with one.

    Example: `id_of("email", "ada@example.com") in HashedIds([(salt, hash)])`.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]] = (), key: SuppressionKey | None = None) -> None:
        self.key = key
        self._hashes: dict[str, set[str]] = {}
        for salt, hashed in pairs:
            self._hashes.setdefault(salt, set()).add(hashed)

    def __contains__(self, id_: object) -> bool:
        return isinstance(id_, Id) and any(
            hash_of(salt, id_, self.key) in found for salt, found in self._hashes.items()
        )

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def pairs(self) -> list[tuple[str, str]]:
        """Returns all pairs of salt and hash."""
        return [(salt, hashed) for salt, found in self._hashes.items() for hashed in found]


NOBODY = HashedIds()


def hash_of(salt: str, id_: Id, key: SuppressionKey | None = None) -> str:
    """Returns the hash of an id in the suppression list: SHA-256, or HMAC-SHA256 if the salt belongs to a key.

    Raises ValueError if that key is missing.
    """
    text = "\n".join((salt, *id_)).encode()
    if not salt.startswith(KEYED):
        return hashlib.sha256(text).hexdigest()
    if key is None:
        raise ValueError("a hash that was made with a key, but there is no key")
    return hmac.digest(key.secret, text, "sha256").hex()
