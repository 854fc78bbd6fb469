"""What the tests of deleting persons share: two persons, their messages, and commands."""

import json
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from autopilothq.catalog import SUPPRESSIONS
from calling import Call
from contract.duck import held
from faults.loads import Table, content, line, track

ADA = {"email": "Ada@Example.com", "contact_id": "person_A"}
BOB = {"email": "bob@example.com", "contact_id": "person_B"}
# By user id, by email alone, by contact id alone, by an older email and an older id, and in lines that are no messages.
ADAS: list[Any] = [
    track(1, userId="ada", context={"traits": ADA}),
    track(2, userId="ada"),
    {"type": "track", "event": "Email Clicked", "messageId": "m-3", "anonymousId": "ada@example.com"},
    track(4, event="Signed Up", userId=None, anonymousId="x-4", properties={"email": "ADA@example.com"}),
    track(5, userId=None, anonymousId="device", context={"traits": {"contact_id": "person_A"}}),
    {"type": "identify", "messageId": "i-1", "userId": "ada", "traits": {"email": "ada@work.example", "name": "Ada"}},
    track(6, userId=None, anonymousId="ada@work.example", properties={"note": "a\0b"}),
    {"type": "alias", "messageId": "a-1", "userId": "ada", "previousId": "old ada"},
    track(7, userId="old ada"),
    {"type": "delete", "messageId": "d-1", "userId": "ada"},
    b'{"type":"track","userId":"ada","broken',
    b"a line that mentions ada@example.com.",
]
# These contain the words of Ada's ids, too, but not as her ids.
BOBS: list[Any] = [
    track(21, userId="bob", context={"traits": BOB}),
    track(22, userId="1", properties={"ada": 1, "note": "ada", "n": "a\0b"}),
    track(23, userId="ada2", context={"traits": {"contact_id": "ada"}}),
    {"type": "identify", "messageId": "i-2", "userId": "bob", "traits": {"email": "bob@example.com"}},
    {"type": "delete", "messageId": "d-2", "userId": "bob"},
    b'{"count": "ada", broken',
]
BOTH = [one for pair in zip(ADAS, [*BOBS, *(track(number, userId="bob") for number in range(31, 37))]) for one in pair]  # noqa: B905
# An email leads to the contact id; other ids next to an email may be somebody else's, so they are given here.
WORDS = ("--email", "ADA@example.com", "--email", "ada@work.example", "--user-id", "ada", "--user-id", "old ada")
FORGET_ADA = (*WORDS, "--confirm", "7")


def write(path: str, lines: Sequence[Any]) -> None:
    Path(path).write_bytes(b"".join(map(line, lines)))


def opened() -> AbstractContextManager[object]:
    """Keeps the database open while the block runs, if it is a DuckDB file."""
    return nullcontext() if os.environ.get("DESTINATION_TYPE") else held()


def load(call: Call, *words: str) -> dict[str, Any]:
    with opened():
        said = call("load", "archive", *words, "--json")
    assert said.status == 0, said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


def forget(call: Call, *words: str) -> dict[str, Any]:
    with opened():
        said = call("forget", *words, "--json")
    assert (said.status, said.err) == (0, "")
    found: dict[str, Any] = json.loads(said.out)
    return found


def here() -> dict[str, Table]:
    with held() as con:
        return content(con)


def rows(tables: dict[str, Table]) -> dict[str, list[str]]:
    """Returns the rows of all tables that have any, without nulls and without what depends on files.

    That leaves out `_audit`, the columns `file` and `line`, and the ids of rejects, which are digests of their places;
    suppressions and locks are left out, too.
    """
    kept = {
        name: sorted(
            repr(
                sorted(
                    (k, v)
                    for k, v in row.items()
                    if v is not None and k not in ("file", "line") and (name, k) != ("_rejects", "id")
                )
            )
            for row in table.dicts()
        )
        for name, table in tables.items()
        if name not in ("_audit", SUPPRESSIONS.name, "_locks")
    }
    return {name: these for name, these in kept.items() if these}
