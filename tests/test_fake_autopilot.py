"""The fake of Autopilot's API works with a client that is independent of this project."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fake_autopilot import FakeAutopilot
from fake_autopilot.account import FIRST_DAY

ROOT = Path(__file__).parent.parent
MANY: Any = {"contacts": [{}] * 101}


@pytest.fixture
def server() -> Iterator[FakeAutopilot]:
    with FakeAutopilot(contacts=205, seed=7) as server:
        yield server


@pytest.fixture
def client(server: FakeAutopilot) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base_url, headers={"autopilotapikey": server.key}) as client:
        yield client


def everybody(client: httpx.Client, path: str = "contacts") -> list[dict[str, Any]]:
    contacts: list[dict[str, Any]] = []
    bookmark: str | None = ""
    while bookmark is not None:
        page = client.get(f"{path}/{bookmark}".rstrip("/")).raise_for_status().json()
        contacts += page["contacts"]
        bookmark = page.get("bookmark")
    return contacts


def test_a_foreign_client_syncs(client: httpx.Client) -> None:
    contacts = everybody(client)
    ids = [contact["contact_id"] for contact in contacts]
    assert len(ids) == 205
    assert ids == sorted(set(ids))
    for thing in client.get("lists").json()["lists"]:
        members = everybody(client, f"list/{thing['list_id']}/contacts")
        assert members == [contact for contact in contacts if thing["list_id"] in contact.get("lists", [])]
    kinds = {key for contact in contacts for key in contact if key.startswith("mail_")}
    assert kinds == {
        "mail_received", "mail_opened", "mail_clicked", "mail_bounced", "mail_hardbounced", "mail_complained",
        "mail_unsubscribed",
    }  # fmt: skip
    assert {type(contact.get("updated_at")) for contact in contacts} == {str, int, type(None)}


def test_contacts_are_made_up_by_seed() -> None:
    with FakeAutopilot(5, seed=7) as one, FakeAutopilot(5, seed=7) as same, FakeAutopilot(5, seed=8) as other:
        people = [[server.account.contact(number) for number in range(5)] for server in (one, same, other)]
    assert people[0] == people[1]
    assert people[0] != people[2]


def test_a_million_contacts_are_not_kept(client: httpx.Client) -> None:
    with FakeAutopilot(contacts=1_000_000) as server:
        last = server.account.contact_id(999_998)
        page = client.get(f"{server.base_url}/contacts/{last}").json()
        assert page == {"contacts": [server.account.contact(999_999)], "total_contacts": 1_000_000}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("GET", "contact/nobody@example.com", None, 404, ("Not Found", "Contact could not be found.")),
        ("GET", "contact/nonsense", None, 400, ("Bad Request", "Invalid contact_id_or_email value provided.")),
        ("POST", "contact", [], 400, ("Bad Request", "Invalid contact provided.")),
        ("POST", "contacts", MANY, 400, ("Bad Request", "A maximum of 100 contacts can be provided.")),
        ("POST", "list", {"name": "1k.csv"}, 409, ("Conflict", "A list with this name already exists.")),
        ("POST", "trigger/9/contact/a@b.c", None, 404, ("Not Found", "Trigger could not be found.")),
        ("GET", "nonsense", None, 404, ("Not Found", "Resource could not be found.")),
    ],
)  # fmt: skip
def test_errors(client: httpx.Client, method: str, path: str, body: Any, status: int, words: tuple[str, str]) -> None:
    answer = client.request(method, path, json=body)
    assert (answer.status_code, answer.json()) == (status, {"error": words[0], "message": words[1]})


def test_keys(server: FakeAutopilot, client: httpx.Client) -> None:
    wrong = client.get("account", headers={"autopilotapikey": "x"})
    assert (wrong.status_code, wrong.json()["message"]) == (401, "Provided autopilotapikey not valid.")
    none = httpx.get(f"{server.base_url}/account")
    assert (none.status_code, none.json()["message"]) == (400, "No autopilotapikey header provided.")


def test_writing(server: FakeAutopilot, client: httpx.Client) -> None:
    written = {
        "Email": "Ann@Example.com",
        "FirstName": "Ann",
        "Frist": "misspelt",
        "_autopilot_list": "contactlist_nobody",
        "notify": False,
        "custom": {"float--Smog--Level": 4.5, "string--user--id": "7", "integer--Unheard--Of": 1},
    }
    contact_id = client.post("contact", json={"contact": written}).json()["contact_id"]
    client.post("contact", json={"contact": {"Email": "ann@example.com", "custom": {"string--user--id": None}}})
    client.post("contacts", json={"contacts": [{"Email": "ann@example.com", "_NewEmail": "bea@example.com"}]})
    assert client.get("contact/ann@example.com").status_code == 404
    assert client.get("contact/bea@example.com").json() == {
        "type": "Contact",
        "contact_id": contact_id,
        "api_originated": True,
        "created_at": "2019-12-06T00:00:00.000Z",
        "updated_at": "2019-12-06T00:00:00.000Z",
        "Email": "bea@example.com",
        "FirstName": "Ann",
        "lists": ["contactlist_nobody"],
        "custom_fields": [{"kind": "Smog Level", "value": 4.5, "fieldType": "float", "deleted": False}],
    }
    assert server.account.hidden == {contact_id: {"Frist": "misspelt", "integer--Unheard--Of": 1}}
    assert len(everybody(client)) == client.get("contacts").json()["total_contacts"] == 206
    assert len(everybody(client, "list/contactlist_nobody/contacts")) == 1


def test_lists_contacts_and_hooks(server: FakeAutopilot, client: httpx.Client) -> None:
    who = server.account.contact_id(1)
    member = f"list/contactlist_nobody/contact/{who}"
    statuses = [client.request(method, member).status_code for method in ("GET", "POST", "GET", "DELETE", "GET")]
    assert statuses == [404, 200, 200, 200, 404]
    assert client.get(member).content == b""
    assert client.delete(f"contact/{who}").status_code == 200
    assert client.get(f"contact/{who}").status_code == 404
    assert len(everybody(client)) == client.get("contacts").json()["total_contacts"] == 204
    assert client.delete(f"journey/0009/contact/{server.account.contact_id(2)}").status_code == 200
    assert server.account.ejected == [("0009", server.account.contact_id(2))]
    hook = {"event": "contact_added", "target_url": "https://example.com/hook"}
    hook_id = client.post("hook", json=hook).json()["id"]
    assert client.post("hook", json=hook).status_code == 409
    assert client.get("hooks").json() == {"hooks": [{"hook_id": hook_id} | hook | {"created_at": FIRST_DAY}]}
    assert [client.delete(f"hook/{hook_id}").status_code for _ in range(2)] == [200, 404]


def test_tests_change_contacts_between_scans(server: FakeAutopilot, client: httpx.Client) -> None:
    before = everybody(client)
    server.account.happen(before[3]["contact_id"], "mail_opened", "batchdelivery_1", 1541030400000)
    server.account.delete(before[7]["contact_id"])
    new = server.account.upsert({"Email": "new@example.com"})
    after = {contact["contact_id"]: contact for contact in everybody(client)}
    assert list(after) == sorted({contact["contact_id"] for contact in before} - {before[7]["contact_id"]} | {new})
    opened = before[3].get("mail_opened", {}) | {"batchdelivery_1": 1541030400000}
    assert after[before[3]["contact_id"]] == before[3] | {"mail_opened": opened}


def test_the_limit_of_the_account(client: httpx.Client) -> None:
    with FakeAutopilot(contacts=1, rate=3) as server:
        statuses = [client.get(f"{server.base_url}/account").status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]


def test_faults_are_used_in_order_and_only_as_often_as_ordered(server: FakeAutopilot, client: httpx.Client) -> None:
    server.order("GET", "/lists", status=503, skip=1)
    server.order("*", "/l*", status=429, retry_after=2, times=2)
    answers = [client.get("lists") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [429, 503, 429, 200]
    assert answers[0].headers["Retry-After"] == "2"
    assert answers[1].json() == {"error": "Service Unavailable", "message": "Ordered 503."}


def test_it_starts_from_the_checkout() -> None:
    command = [sys.executable, "-m", "tests.fake_autopilot", "--contacts", "12", "--port", "0"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(7)]
        try:
            settings = dict(line.removeprefix("export ").split("=") for line in lines if line.startswith("export "))
            url = settings["SOURCES__AUTOPILOTHQ__BASE_URL"]
            key = settings["SOURCES__AUTOPILOTHQ__API_KEY"]
            page = httpx.get(f"{url}/contacts", headers={"autopilotapikey": key}).json()
        finally:
            process.send_signal(signal.SIGINT)
    assert lines[0] == f"A made-up Autopilot account with 12 contacts is at {url}. To load it:"
    assert lines[2:] == [
        f"export SOURCES__AUTOPILOTHQ__BASE_URL={url}",
        f"export SOURCES__AUTOPILOTHQ__API_KEY={key}",
        f"export DESTINATION__AUTOPILOTHQ__BASE_URL={url}",
        f"export DESTINATION__AUTOPILOTHQ__API_KEY={key}",
        "autopilothq load api",
    ]
    assert (len(page["contacts"]), process.returncode) == (12, 0)
