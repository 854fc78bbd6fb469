"""What belongs to a person who is deleted: ids that lead to the person, and texts that mention one of them."""

import re
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from autopilothq.catalog import SUPPRESSIONS, TABLES
from autopilothq.projection import suppression
from autopilothq.segment.identity import HashedIds, Id, hash_of, id_of, ids_in, kinds_of
from calling import Call
from contract.duck import held
from deleting import forget, here, load, write
from faults.loads import track


def test_what_others_share_is_not_followed(call: Call) -> None:
    crowd = [track(number, userId="0", context={"traits": {"email": f"p{number}@example.com"}}) for number in range(12)]
    family = [
        track(41, userId="ada", anonymousId="tablet"),
        track(42, userId="bob", anonymousId="tablet"),
        track(43, userId=None, anonymousId="tablet"),
        track(44, userId="ada", anonymousId="phone"),
        track(45, userId=None, anonymousId="phone"),
    ]
    write("a.ndjson", crowd + family)
    load(call, "a.ndjson")
    found = forget(call, "--email", "p3@example.com")
    assert ([id_["id"] for id_ in found["ids"]], told(found)) == (["p3@example.com"], ["user_id 0"])
    assert found["rows"] == {"email_opened": 1, "tracks": 1}
    found = forget(call, "--user-id", "ada")
    assert ([id_["id"] for id_ in found["ids"]], told(found)) == (["ada", "phone"], ["anonymous_id tablet"])
    assert found["shared"] == [
        {
            "id": "anonymous_id tablet",
            "found_with": "user_id ada",
            "why": "user_id bob shares a row with it too",
            "option": "--anonymous-id tablet",
        }
    ]
    assert found["rows"] == {"email_opened": 3, "tracks": 3}
    found = forget(call, "--user-id", "0")
    assert ([id_["id"] for id_ in found["ids"]], told(found)) == (["0"], ["11 emails"])
    assert found["rows"] == {"email_opened": 11, "tracks": 11}
    assert [row["id"] for row in here()["tracks"].dicts()] == ["m-42", "m-43"]
    assert forget(call, "--anonymous-id", "tablet")["rows"] == {"email_opened": 2, "tracks": 2}


HOUR = "2024-05-06T{:02}:00:00Z"
MIDNIGHT = 1714953600.0  # 2024-05-06T00:00:00Z


def said(number: int, kind: str, id_: str, hour: int, user: str = "bob", **traits: Any) -> dict[str, Any]:
    of = {"type": kind, "messageId": f"i-{number}", "receivedAt": HOUR.format(hour), "traits": traits}
    return of | ({"userId": id_} if kind == "identify" else {"groupId": id_, "userId": user})


SAID = [
    said(1, "identify", "ada", 1, email="ada@example.com"),
    said(2, "identify", "bob", 5, email="bob@example.com", seats=1, share=0.5, paid=True),
    said(3, "identify", "bob", 2, seats=7, at=HOUR.format(2), name="Bob"),
    said(4, "identify", "bob", 9, email="ADA@example.com", seats=9),
    said(5, "group", "acme", 3, email="office@example.com", plan="free"),
    said(6, "group", "acme", 4, email="ada@example.com"),
    said(7, "identify", "eve", 9, email="ada@example.com"),
    # Rows with another, newer email: the person's messages were their first, their last, their only, or none of them.
    said(10, "identify", "tim", 1, name="Tim", seats=1),
    said(11, "identify", "tim", 2, email="ada@example.com", name="A.", seats=2, share=0.25, paid=False),
    said(12, "identify", "tim", 3, email="tim@example.com", seats=3),
    said(13, "identify", "kim", 5, name="K.", email="ada@example.com"),
    said(14, "identify", "kim", 5, email="kim@example.com", seats=4),
    said(15, "group", "shop", 1, plan="free", seats=1),
    said(16, "group", "shop", 2, user="ada", plan="pro"),
    said(17, "group", "hers", 2, user="ada", plan="pro"),
    said(18, "identify", "roy", 1, name="Roy"),
]
# Values that no message has; if her email is among them, all are hers.
ADOPTED = """ALTER TABLE autopilothq.users ADD COLUMN city VARCHAR;
    UPDATE autopilothq.users SET city = 'Rome' WHERE id IN ('tim', 'eve', 'roy');
    UPDATE autopilothq.users SET email = 'ada@example.com' WHERE id = 'roy';
    INSERT INTO autopilothq.users (id, uuid_ts, email, city) VALUES ('zoe', now(), 'ada@example.com', 'Rome')"""
BOB = {"email": "bob@example.com", "seats": 1, "share": 0.5, "paid": True, "name": "Bob"}
USERS: list[dict[str, Any]] = [
    {**BOB, "id": "bob", "received_at": MIDNIGHT + 5 * 3600, "at": MIDNIGHT + 2 * 3600},
    {"id": "eve", "city": "Rome"},
    {"email": "kim@example.com", "id": "kim", "received_at": MIDNIGHT + 5 * 3600, "seats": 4},
    {"id": "roy", "name": "Roy", "received_at": MIDNIGHT + 3600},
    {
        "city": "Rome",
        "email": "tim@example.com",
        "id": "tim",
        "name": "Tim",
        "received_at": MIDNIGHT + 3 * 3600,
        "seats": 3,
    },
]
ACCOUNTS = [
    {"email": "office@example.com", "id": "acme", "plan": "free", "received_at": MIDNIGHT + 3 * 3600},
    {"id": "shop", "plan": "free", "received_at": MIDNIGHT + 3600, "seats": 1},
]


def test_rows_of_others_have_no_values_of_the_persons_messages(call: Call) -> None:
    """The rows are as if those messages had never been loaded; adopted values stay."""
    write("a.ndjson", SAID)
    load(call, "a.ndjson")
    with held() as con:
        con.execute(ADOPTED)
    assert forget(call, "--email", "ada@example.com", "--user-id", "ada")["rows"] == {
        "accounts": 1, "groups": 3, "identifies": 5, "users": 5,
    }  # fmt: skip
    assert without_nulls("users") == USERS
    assert without_nulls("accounts") == ACCOUNTS


def without_nulls(table: str) -> list[dict[str, Any]]:
    """Returns the rows of a table without nulls and without `uuid_ts`, which all must have."""
    found = [{name: value for name, value in row.items() if value is not None} for row in here()[table].dicts()]
    assert all(row.pop("uuid_ts") for row in found)
    return sorted(found, key=lambda row: str(row["id"]))


def told(found: dict[str, Any]) -> list[str]:
    return [shared["id"] for shared in found["shared"]]


def test_ids_in_columns() -> None:
    assert id_of("user_id", " Ada@Example.com ") == Id("email", "ada@example.com")
    assert id_of("contact_id", "a@b") == Id("contact_id", "a@b")
    assert list(ids_in(kinds_of("aliases", "previous_id"), "x")) == [Id("user_id", "x"), Id("anonymous_id", "x")]
    assert list(ids_in(kinds_of("tracks", "anonymous_id"), "A@b.c")) == [Id("email", "a@b.c")]
    assert list(ids_in(kinds_of("_profiles", "person"), "email:A@b.c")) == [Id("email", "a@b.c")]
    assert list(ids_in(kinds_of("tracks", "context_traits_email"), "none")) == []
    assert list(ids_in(kinds_of("tracks", "user_id"), " ")) == []
    assert (kinds_of("users", "id"), kinds_of("tracks", "id")) == (("email", "user_id"), ())


def test_every_column_of_the_catalogue_that_names_a_person_is_known() -> None:
    named = re.compile(r"(^|_)(email|user_id|contact_id|anonymous_id|previous_id|person)$")
    columns = [
        (table.name, column.name)
        for table in TABLES.values()
        for column in table.columns
        if named.search(column.name) and table is not SUPPRESSIONS
    ]
    assert [at for at in columns if not kinds_of(*at)] == []


MENTIONS: dict[bytes, bool] = {
    b'{"userId":"1"}': True,
    b'{"userId": 1}': True,
    b'{"userId":"1': True,
    b'{"previousId":"1"}': True,
    b'{"context_traits_contact_id": "c"}': True,
    b'{"contactId":"c"}': True,
    b'{"userId":"q\\"u\\\\o"}': True,
    b'{"userId":"\\u0071\\"u\\\\o"}': True,
    b"to A@Example.COM.": True,
    b'{"note":"hello\\na@example.com\\tx': True,
    b'a@example.com","userId': True,
    "see \u0907@\u0909\u0926\u093e.\u092d\u093e".encode(): True,
    b'{"userId":"x=y@example.com","broken': True,
    b'{"userId":"x y@example.com","broken': True,
    '{"userId":"1",'.encode("utf-16"): True,
    b"x=y@example.community": False,
    b"+a@example.com": False,
    b"{'userId': '1'}": True,
    b"t=1&user_id=1&e=x": True,
    b"user id: 11": False,
    b'{"userIds":"1"}': False,
    b'"mailto:a@example.com?subject=x"': True,
    b'{"email":"a\\u0040example.com"}': True,
    b'{"email":"\\u00e9@example.com"}': True,
    b'\xff "email":"a@example.com"': True,
    b'{"count":1}': False,
    b'{"userId":"11"}': False,
    b'{"contact_id":"1"}': False,
    b'{"userId":"c"}': False,
    b"ba@example.com": False,
    b"a@example.com.au": False,
    b"": False,
}


@pytest.fixture(scope="module")
def knowing() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection that knows the hashes of a person's ids."""
    ids = [
        Id("email", "a@example.com"), Id("email", "é@example.com"), Id("user_id", "1"), Id("contact_id", "c"),
        Id("user_id", 'q"u\\o'), Id("email", "\u0907@\u0909\u0926\u093e.\u092d\u093e"), Id("email", "x=y@example.com"),
        Id("email", "x y@example.com"),
    ]  # fmt: skip
    with duckdb.connect() as engine:
        suppression.register_suppressed(engine, [("salt", hash_of("salt", id_)) for id_ in ids])
        yield engine


@pytest.mark.parametrize("text", MENTIONS)
def test_what_mentions_a_person(knowing: duckdb.DuckDBPyConnection, text: bytes) -> None:
    texts = pa.array([text, b"other"], pa.large_binary())
    assert suppression.find_mentions(knowing, pa.array([7, 8]), texts) == ([7] if MENTIONS[text] else [])


def test_hashes_are_salted() -> None:
    ada = Id("user_id", "ada")
    known = HashedIds([("one", hash_of("one", ada)), ("two", hash_of("two", ada._replace(kind="contact_id")))])
    assert ada in known
    assert Id("contact_id", "ada") in known
    assert Id("anonymous_id", "ada") not in known
    assert ada not in HashedIds([("two", hash_of("one", ada))])
