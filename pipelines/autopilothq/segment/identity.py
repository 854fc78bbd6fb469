"""Who a person is: the ids that stand in a row or a message, and their hashes (spec: Identity)."""

import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from unicodedata import normalize

from ..catalog import PERSON_COLUMNS
from .message import EXTRA


class Id(NamedTuple):
    """An id of a person, comparable: of an email the case is folded. Made by `id_of`."""

    kind: str
    value: str

    def __str__(self) -> str:
        return f"{self.kind} {self.value}"

    def masked(self) -> str:
        """For people who did not know it before: of an email the first letter and the domain alone."""
        if self.kind != "email":
            return str(self)
        name, _, domain = self.value.rpartition("@")
        return f"email {name[:1]}...@{domain}"


def fold(text: str) -> str:
    """Returns the text as it is compared where case does not matter: Unicode's canonical caseless matching (D145).

    It is the same for all spellings that differ in case, or in how letters and their marks are encoded.
    Example: `fold("ΣΊΣΥΦΟΣ") == fold("σίσυφος")`.
    """
    return text.lower() if text.isascii() else normalize("NFC", normalize("NFD", text).casefold())


def fold_email(email: str) -> str:
    """Returns an email as it is compared: without blanks around it, its case folded."""
    return fold(email.strip())


def lower_email(email: str) -> str:
    """Returns an email as earlier releases compared it: lists of forgotten persons have hashes of such."""
    return email.strip(" ").lower()


def id_of(kind: str, value: str) -> Id:
    """Returns an id as it is compared.

    Example: `id_of("user_id", " Ada@Example.com") == Id("email", "ada@example.com")`: a user id that is an email.
    """
    if kind != "contact_id" and "@" in value:
        return Id("email", fold_email(value))
    return Id(kind, value)


def forms(kind: str, value: str) -> tuple[Id, ...]:
    """Returns an id as it is compared, and as earlier releases compared it where that differs."""
    id_ = id_of(kind, value)
    earlier = Id("email", lower_email(value)) if id_.kind == "email" else id_
    return (id_,) if earlier == id_ else (id_, earlier)


def kinds_of(table: str, column: str) -> tuple[str, ...]:
    """The kinds of ids in a column, the kind `tagged` among them; none where it holds no ids of persons."""
    return PERSON_COLUMNS.get(f"{table}.{column}", PERSON_COLUMNS.get(column, ()))


def ids_in(kinds: Iterable[str], value: str) -> Iterator[Id]:
    """The ids in a value of a column of these kinds, each in all its `forms`."""
    for kind in kinds:
        if kind == "tagged":
            tag, _, tagged = value.partition(":")
            yield from forms(tag, tagged)
        elif value.strip() and (kind == "contact_id" or (kind == "email") == ("@" in value)):
            yield from forms(kind, value)


def ids_of_cells(cells: Mapping[str, str]) -> Iterator[Id]:
    """The ids of a message that was read."""
    for name, value in cells.items():
        extra = name.startswith(EXTRA)
        text = str(json.loads(value)) if extra and value.startswith('"') else value
        yield from ids_in(kinds_of("", name.removeprefix(EXTRA)), text)


KEYED = "hmac-sha256:"
"""How the salt of a hash begins that was made with a key."""


@dataclass(frozen=True)
class SuppressionKey:
    """A secret that ids are hashed with; it is never shown."""

    secret: bytes = field(repr=False)


class HashedIds:
    """Ids of persons, known by their salted hashes alone: pairs of salt and hash, and the key of keyed ones."""

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
        """All of them."""
        return [(salt, hashed) for salt, found in self._hashes.items() for hashed in found]


NOBODY = HashedIds()


def hash_of(salt: str, id_: Id, key: SuppressionKey | None = None) -> str:
    """An id as the suppression list has it: SHA-256, and HMAC-SHA256 where the salt says that it was made with a key.

    Raises ValueError where the key is missing.
    """
    text = "\n".join((salt, *id_)).encode()
    if not salt.startswith(KEYED):
        return hashlib.sha256(text).hexdigest()
    if key is None:
        raise ValueError("a hash that was made with a key, but there is no key")
    return hmac.digest(key.secret, text, "sha256").hex()
