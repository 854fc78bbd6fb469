"""What the tests of Segment's Profile API share: loads of people's events, and their results."""

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import autopilothq
from autopilothq import LoadReport, runner
from contract.duck import held, pipeline, query, rows_in
from contract.loading import Row
from fake_autopilot import FakeProfiles

A, B = (f"email:{name}@example.com" for name in "ab")
USUAL = ["email:usual@example.com", A, B]
# A load takes longer the more tables it has; these are enough for most tests.
SOME = ("_profiles", "tracks", "email_opened", "_rejects", "_discards", "_audit")


def pull(server: FakeProfiles, *people: str, tables: Sequence[str] = SOME, **words: Any) -> LoadReport:
    """Loads the people of a file, or those that `words` name; returns the report. If `tables` is empty, loads all."""
    if people:
        Path("people.txt").write_text("\n".join(people))
    reports: list[LoadReport] = []
    settings: dict[str, Any] = {
        "token": server.token,
        "space": server.space,
        "base_url": server.base_url,
        "requests_per_second": 1000,
        "people": "people.txt",
        "tries": 1,
        "progress": reports.append,
    }
    # A query runs on a read-only connection, which DuckDB refuses while another one is open.
    with nullcontext() if " " in str(words.get("people")) else held():
        source = autopilothq.profiles(**settings | words)
        runner.run(pipeline(), source.with_resources(*tables) if tables else source)
    return reports[-1]


def person(number: int) -> str:
    return f"email:{number:03}@example.com"


def books() -> list[tuple[Any, ...]]:
    return query("SELECT lines, stored, duplicates, rejected FROM autopilothq._audit ORDER BY loaded_at")


def watermarks() -> dict[str, Row]:
    return {row["person"]: row for row in rows_in("_profiles")}


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def path_of(person: str) -> str:
    return f"/spaces/*/profiles/{person.replace(':', '%3A').replace('@', '%40').replace('.', '%2E')}/events"
