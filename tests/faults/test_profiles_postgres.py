"""Pulls from the Profile API into PostgreSQL continue in parts, also for people from a query."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
import pytest

import autopilothq
import stock
from autopilothq import runner
from fake_autopilot import FakeProfiles

EVERYONE = [f"email:{number}@example.com" for number in range(3)]


@pytest.fixture
def server() -> Iterator[FakeProfiles]:
    with FakeProfiles() as running:
        for who in EVERYONE:
            running.happen(who)
        yield running


def test_a_run_goes_on_in_postgresql(server: FakeProfiles, postgres: str) -> None:
    Path("people.txt").write_text("\n".join(EVERYONE))
    into = dlt.pipeline("pulls", destination=stock.postgres(postgres), dataset_name="autopilothq")

    def pull(people: str, most: int | None = None) -> list[str]:
        words: dict[str, Any] = {"base_url": server.base_url, "requests_per_second": 1000, "people_per_load": most}
        runner.run(into, autopilothq.profiles(server.token, server.space, people=people, **words))
        return server.asked()

    # In any order, but everybody exactly once.
    first, second = pull("people.txt", 2), pull("people.txt", 2)
    assert (len(first), sorted(first + second)) == (2, EVERYONE)
    with into.sql_client() as client:
        assert client.execute_sql("SELECT lines, stored FROM _audit") == [(3, 3)]
        assert client.execute_sql(
            "SELECT count(*), count(DISTINCT person), min(watermark) = min(asked_at) FROM _profiles"
        )
    assert sorted(pull("select anonymous_id from tracks order by 1")) == EVERYONE
    with into.sql_client() as client:
        assert client.execute_sql("SELECT lines, duplicates FROM _audit ORDER BY loaded_at") == [(3, 0), (3, 3)]
        assert client.execute_sql("SELECT count(*) FROM email_opened") == [(3,)]
        assert client.execute_sql("SELECT count(*), count(DISTINCT person) FROM _profiles") == [(3, 3)]
