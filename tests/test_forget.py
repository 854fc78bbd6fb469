"""Forgetting a person: what goes, what stays, and what a later load leaves out."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from calling import Call
from faults.loads import Table, content, line, track

ADA = {"email": "Ada@Example.com", "contact_id": "person_A"}
BOB = {"email": "bob@example.com", "contact_id": "person_B"}
# Ada's messages: by user id, by email alone, by contact id alone, as an alias, and in a line that is no message.
ADAS: list[Any] = [
    track(1, userId="ada", context={"traits": ADA}),
    track(2, userId="ada", messageId="m-2"),
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
BOBS: list[Any] = [
    track(21, userId="bob", context={"traits": BOB}),
    track(22, userId="1", properties={"ada": 1, "note": "ada", "n": "a\0b"}),
    track(23, userId="ada2", context={"traits": {"contact_id": "ada"}}),
    {"type": "identify", "messageId": "i-2", "userId": "bob", "traits": {"email": "bob@example.com"}},
    {"type": "delete", "messageId": "d-2", "userId": "bob"},
    b'{"count": "ada", broken',
]


def write(path: str, messages: list[Any]) -> None:
    Path(path).write_bytes(b"".join(map(line, messages)))


@pytest.fixture
def mixed() -> None:
    """Lines of both in one file."""
    write("both.ndjson", [one for pair in zip(ADAS, [*BOBS, *BOBS], strict=True) for one in pair])


def here() -> dict[str, Table]:
    return content(Path("autopilot.duckdb"))


def all_text(tables: dict[str, Table]) -> str:
    return repr([table.rows for name, table in tables.items()])


def assert_bobs_alone(tables: dict[str, Table], expected: dict[str, Table]) -> None:
    """The rows are those of a load that never saw Ada; tables and columns that she brought stay, empty."""
    for name, table in tables.items():
        if name not in ("_audit", "_suppressions"):
            kept = [{k: v for k, v in row.items() if v is not None} for row in table.dicts()]
            there = expected[name].dicts() if name in expected else []
            for row in (*kept, *there):
                row.pop("line", None)
                row.pop("file", None)
            assert sorted(kept, key=repr) == sorted(
                ({k: v for k, v in row.items() if v is not None} for row in there), key=repr
            ), name


@pytest.fixture
def bobs(call: Call) -> dict[str, Table]:
    """A dataset that never saw Ada."""
    write("bobs.ndjson", BOBS)
    assert call("load", "archive", "bobs.ndjson", "--credentials", "bobs.duckdb").status == 0
    return content(Path("bobs.duckdb"))


@pytest.mark.usefixtures("mixed")
def test_a_person_is_gone_and_stays_away(call: Call, bobs: dict[str, Table]) -> None:
    assert call("load", "archive", "both.ndjson").status == 0
    said = call("forget", "--email", "ADA@example.com")
    assert (said.status, said.err) == (0, "")
    print(said.out)
    tables = here()
    assert_bobs_alone(tables, bobs)
    shutil.copy("both.ndjson", "again.ndjson")
    result = json.loads(call("load", "archive", "again.ndjson", "--json").out)
    print(result)
    tables = here()
    print(tables["_rejects"].dicts())
