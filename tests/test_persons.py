"""How ids of persons are compared, which columns hold them, and their hashes."""

import hashlib
import hmac
from unicodedata import normalize

import pytest

from autopilothq.segment.identity import (
    KEYED,
    NOBODY,
    HashedIds,
    Id,
    SuppressionKey,
    fold,
    fold_email,
    forms,
    hash_of,
    id_of,
    ids_in,
    ids_of_cells,
    kinds_of,
    lower_email,
)

ADA = Id("email", "ada@example.com")


@pytest.mark.parametrize(
    ("id_", "shown", "masked"),
    [
        (ADA, "email ada@example.com", "email a...@example.com"),
        (Id("email", '"a@b"@example.com'), 'email "a@b"@example.com', 'email "...@example.com'),
        (Id("email", "@example.com"), "email @example.com", "email ...@example.com"),
        (Id("user_id", "ada"), "user_id ada", "user_id ada"),
    ],
)
def test_an_email_can_be_shown_masked(id_: Id, shown: str, masked: str) -> None:
    assert (str(id_), id_.masked()) == (shown, masked)


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("ADA", "ada"),
        ("Straße", "strasse"),
        ("ΣΊΣΥΦΟΣ", "σίσυφοσ"),
        (normalize("NFD", "ZOÉ"), "zoé"),
        ("\u0345\u0301", normalize("NFC", normalize("NFD", "\u0345\u0301").casefold())),
    ],
)
def test_case_is_folded_as_unicode_says(text: str, folded: str) -> None:
    assert fold(text) == normalize("NFC", folded)
    assert fold_email(f"\t {text}\u00a0") == fold(text)


def test_earlier_releases_compared_emails_in_lower_case() -> None:
    assert lower_email("  Straße@X \t") == "straße@x \t"
    assert lower_email("XA@XX") == "xa@xx"


@pytest.mark.parametrize(
    ("kind", "value", "compared"),
    [
        ("user_id", " Ada@Example.com", (ADA,)),
        ("email", "ada@example.com", (ADA,)),
        ("anonymous_id", " Device ", (Id("anonymous_id", " Device "),)),
        ("contact_id", "person_A@x", (Id("contact_id", "person_A@x"),)),
        ("email", "Straße@x", (Id("email", "strasse@x"), Id("email", "straße@x"))),
        ("user_id", "Straße", (Id("user_id", "Straße"),)),
        ("user_id", "\u00a0a@x", (Id("email", "a@x"), Id("email", "\u00a0a@x"))),
    ],
)
def test_an_id_that_is_an_email_is_compared_without_case(kind: str, value: str, compared: tuple[Id, ...]) -> None:
    assert id_of(kind, value) == compared[0]
    assert forms(kind, value) == compared


@pytest.mark.parametrize(
    ("table", "column", "kinds"),
    [
        ("tracks", "user_id", ("email", "user_id")),
        ("users", "id", ("email", "user_id")),
        ("tracks", "id", ()),
        ("_profiles", "person", ("tagged",)),
        ("tracks", "person", ()),
    ],
)
def test_columns_hold_kinds_of_ids(table: str, column: str, kinds: tuple[str, ...]) -> None:
    assert kinds_of(table, column) == kinds


@pytest.mark.parametrize(
    ("kinds", "value", "found"),
    [
        (("email", "user_id"), "Ada@example.com", [ADA]),
        (("email", "user_id"), "ada", [Id("user_id", "ada")]),
        (("email",), "ada", []),
        (("email", "contact_id"), "Ada@example.com", [ADA]),
        (("email", "user_id", "contact_id"), " ", []),
        (("contact_id",), "a@x", [Id("contact_id", "a@x")]),
        (("contact_id", "email"), "5", [Id("contact_id", "5")]),
        (("tagged",), "user_id:a:b", [Id("user_id", "a:b")]),
        (("tagged",), "email:Ada@example.com", [ADA]),
        (("tagged",), "anonymous_id", [Id("anonymous_id", "")]),
    ],
)
def test_a_column_holds_ids(kinds: tuple[str, ...], value: str, found: list[Id]) -> None:
    assert list(ids_in(kinds, value)) == found


def test_cells_of_all_types_hold_ids() -> None:
    cells = {
        "kind": "track",
        "id": "m",
        "user_id": "u",
        "anonymous_id": '"quoted"',
        "context_traits_email": "c@x",
        "x:email": '"B\\u0040x"',
        "x:contact_id": "5",
        "x:previous_id": "[1]",
        "x:user_id": "1.10",
        "x:plan": '"a@x"',
    }
    assert list(ids_of_cells(cells)) == [
        Id("user_id", "u"), Id("anonymous_id", '"quoted"'), Id("email", "c@x"), Id("email", "b@x"),
        Id("contact_id", "5"), Id("user_id", "[1]"), Id("anonymous_id", "[1]"), Id("user_id", "1.10"),
    ]  # fmt: skip


# ---- hashes --------------------------------------------------------------------------------------------------------

KEY = SuppressionKey(b"secret")


def test_a_hash_is_of_salt_kind_and_value() -> None:
    text = b"salt\nemail\nada@example.com"
    assert hash_of("salt", ADA) == hash_of("salt", ADA, KEY) == hashlib.sha256(text).hexdigest()
    keyed = KEYED.encode() + text
    assert hash_of(f"{KEYED}salt", ADA, KEY) == hmac.new(b"secret", keyed, hashlib.sha256).hexdigest()
    with pytest.raises(ValueError, match=r"^a hash that was made with a key, but there is no key$"):
        hash_of(f"{KEYED}salt", ADA)


def test_ids_are_known_by_their_hashes() -> None:
    ids = [ADA, Id("user_id", "u"), Id("contact_id", "5")]
    salts = ["one", "one", f"{KEYED}two"]
    pairs = [(salt, hash_of(salt, id_, KEY)) for salt, id_ in zip(salts, ids, strict=True)]
    known = HashedIds(pairs, KEY)
    assert [id_ in known for id_ in (*ids, Id("user_id", "ada@example.com"), Id("email", "u"))] == [True] * 3 + [
        False
    ] * 2
    assert tuple(ADA) not in known
    assert sorted(known.pairs()) == sorted(pairs)
    assert known.key == KEY
    assert (bool(known), bool(HashedIds()), bool(NOBODY)) == (True, False, False)
    assert ADA not in NOBODY
