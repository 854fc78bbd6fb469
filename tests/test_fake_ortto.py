"""The fake of Ortto's API behaves like the API; otherwise tests against it would prove nothing."""

import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from fake_ortto import FakeOrtto
from fake_ortto.made_up import person_id

ROOT = Path(__file__).parents[1]


@pytest.fixture
def fake() -> Iterator[FakeOrtto]:
    with FakeOrtto(people=120) as fake:
        yield fake


def post(fake: FakeOrtto, path: str, body: Any, key: str | None = None) -> httpx.Response:
    return httpx.post(f"{fake.base_url}/{path}", json=body, headers={"X-Api-Key": key or fake.key})


def emails(fake: FakeOrtto, **body: Any) -> list[str | None]:
    page = post(fake, "person/get", {"fields": ["str::email"]} | body).json()
    return [one["fields"].get("str::email") for one in page["contacts"] or []]


def test_pages_need_the_cursor_and_the_offset(fake: FakeOrtto) -> None:
    first = post(fake, "person/get", {"limit": 50, "offset": 0, "fields": ["str::email"]}).json()
    body = {"limit": 50, "offset": first["next_offset"], "cursor_id": first["cursor_id"], "fields": []}
    second = post(fake, "person/get", body).json()
    assert [one["id"] for one in second["contacts"]] == [person_id(number) for number in range(50, 100)]
    assert (first["meta"]["total_matches"], second["has_more"]) == (120, True)
    assert post(fake, "person/get", body | {"cursor_id": "0" * 23}).status_code == 400


def test_offsets_may_go_back_while_pages_are_read(fake: FakeOrtto) -> None:
    fake.drift = 2
    first = post(fake, "person/get", {"limit": 50, "offset": 0, "fields": []}).json()
    body = {"limit": 50, "offset": first["next_offset"], "cursor_id": first["cursor_id"], "fields": []}
    second = post(fake, "person/get", body).json()
    assert (first["next_offset"], second["contacts"][0]["id"]) == (48, person_id(48))


def test_the_account_may_change_before_a_page(fake: FakeOrtto) -> None:
    fake.before = lambda _: fake.account.write(person_id(0), {"str::email": f"{len(fake.requests)}@example.com"})
    assert emails(fake, limit=1) == ["1@example.com"]
    assert emails(fake, limit=1) == ["2@example.com"]


@pytest.mark.parametrize(
    ("filter_", "numbers"),
    [
        ({"$str::is": {"field_id": "str::email", "value": "person+7@example.com"}}, [7]),
        ({"$has_no_value": {"field_id": "str::email"}}, [49, 99]),
        (
            {
                "$and": [
                    {"$has_any_value": {"field_id": "str::ei"}},
                    {"$str::contains": {"field_id": "str::email", "value": "+11@"}},
                ]
            },
            [11],
        ),
        ({"$or": [{"$str::is": {"field_id": "str::ei", "value": str(10_000 + n)}} for n in (3, 4)]}, [3, 4]),
    ],
)
def test_filters(fake: FakeOrtto, filter_: Any, numbers: list[int]) -> None:
    page = post(fake, "person/get", {"fields": [], "filter": filter_}).json()
    assert [one["id"] for one in page["contacts"]] == [person_id(number) for number in numbers]


@pytest.mark.parametrize(
    "filter_",
    [{}, {"$nothing": {}}, {"$str::is": {"field_id": "str::email"}}, {"$str::is": []}, {"a": 1, "b": 2}],
)
def test_a_filter_of_another_form_is_refused(fake: FakeOrtto, filter_: Any) -> None:
    assert post(fake, "person/get", {"fields": [], "filter": filter_ or {"$x": 1}}).status_code == 400


def test_activities_are_the_newest_or_the_oldest_first(fake: FakeOrtto) -> None:
    person = next(id_ for _, id_ in fake.account.ids() if len(fake.account.activities(id_)) > 3)
    found = post(fake, "person/get/activities", {"person_id": person}).json()["activities"]
    times = [one["created_at"] for one in found]
    assert times == sorted(times, reverse=True)
    fake.oldest_first = True
    assert post(fake, "person/get/activities", {"person_id": person}).json()["activities"] == found[::-1]


def test_fields_of_times_are_those_of_activities(fake: FakeOrtto) -> None:
    person = next(id_ for _, id_ in fake.account.ids() if fake.account.activities(id_))
    newest = fake.account.activities(person)[0]
    name = f"tme::{newest['field_id'].removeprefix('act::')}!l"
    found = post(fake, "person/get-by-ids", {"contact_ids": [person], "fields": [name]}).json()
    assert found["contacts"][person]["fields"] == {name: newest["created_at"]}


def test_fifteen_bad_requests_block_an_address(fake: FakeOrtto) -> None:
    for number in range(15):
        status = (
            post(fake, "tags/get", {}, "wrong").status_code if number % 2 else post(fake, "tags/get", []).status_code
        )
        assert status == (401 if number % 2 else 400)
    assert (post(fake, "tags/get", {}).status_code, fake.bans) == (403, 1)


@pytest.mark.parametrize("wrong", [{"merge_by": ["str::email"] * 4}, {"merge_strategy": 4}, {"find_strategy": 3}])
def test_how_people_are_merged_is_checked(fake: FakeOrtto, wrong: dict[str, Any]) -> None:
    body = {"people": [{"fields": {"str::email": "a@b.c"}}]}
    assert [post(fake, "person/merge", body | more).status_code for more in (wrong, {})] == [400, 200]


def test_rates_are_of_the_account_and_of_its_activities(fake: FakeOrtto) -> None:
    fake.activity_rate = 1
    asked = [post(fake, "person/get/activities", {"person_id": person_id(1)}) for _ in range(2)]
    assert [answer.status_code for answer in asked] == [200, 429]
    assert asked[1].json() == {"code": "rate-limit", "error": "Rate limit exceeded", "try-in-seconds": 1}
    assert post(fake, "tags/get", {}).text == "null"


def test_a_million_people_take_no_memory() -> None:
    with FakeOrtto(people=1_000_000) as fake:
        tracemalloc.start()
        list(islice(fake.account.ids(), 100_000))
        page = post(fake, "person/get", {"limit": 500, "offset": 0, "fields": ["str::email", "tme::o!l"]}).json()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (len(page["contacts"]), page["meta"]["total_contacts"]) == (500, 1_000_000)
    assert most < 40_000_000


def test_it_starts_from_the_checkout() -> None:
    command = [sys.executable, "-m", "tests.fake_ortto", "--people", "12", "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(7)]
        try:
            settings = dict(line.removeprefix("export ").split("=") for line in lines if line.startswith("export "))
            url = settings["SOURCES__AUTOPILOTHQ__ORTTO__BASE_URL"]
            key = settings["SOURCES__AUTOPILOTHQ__ORTTO__API_KEY"]
            page = httpx.post(f"{url}/person/get", json={"fields": []}, headers={"X-Api-Key": key}).json()
        finally:
            process.send_signal(signal.SIGINT)
    assert lines[0] == f"A made-up Ortto account with 12 people is at {url}. To load it:"
    assert lines[4:] == [
        f"export DESTINATION__AUTOPILOTHQ__ORTTO__BASE_URL={url}",
        f"export DESTINATION__AUTOPILOTHQ__ORTTO__API_KEY={key}",
        "autopilothq load ortto",
    ]
    assert (len(page["contacts"]), process.returncode) == (12, 0)
