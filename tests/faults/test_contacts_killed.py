"""After `kill -9` while contacts and lists are changed, the log misses nothing that was done, and the rest is done."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from autopilothq.clients.autopilot import KILL_POINT_CONTACT_DELETED, KILL_POINT_PUT_ON_LIST
from autopilothq.destination import DeliveryLog, contact_requests, contacts, lists
from autopilothq.destination.audiences import Audience, PersonRow
from autopilothq.destination.contact_requests import KILL_POINT_REQUESTS_PLANNED, ContactRequests, plan_requests
from autopilothq.destination.counts import Counts
from autopilothq.destination.delivery_log import KILL_POINT_DELIVERIES_ADDED, KILL_POINT_OUTCOMES_WRITTEN
from fake_autopilot import FakeAutopilot
from faults.killed_sending import Plan
from faults.sendings import run_sendings
from sending import IMPATIENT, environment, log_in, rows, settings_for

PEOPLE = [f"p{number}@example.com" for number in range(130)]  # more than one set of parallel requests
LIST = lists.AccountList("contactlist_nobody", "Nobody")
SLOW = "sixty are deleted within two seconds"
DELETED: dict[str, tuple[tuple[str, str, int], int, int]] = {
    # The kill, and how many deletions the log has as done then, at least and at most.
    "nothing is planned": ((KILL_POINT_REQUESTS_PLANNED, "before", 1), 0, 0),
    "all is planned, nothing sent": ((KILL_POINT_REQUESTS_PLANNED, "after", 1), 0, 0),
    "some are announced, unsent": ((KILL_POINT_OUTCOMES_WRITTEN, "after", 1), 0, 0),
    "one is deleted, unnoted": ((KILL_POINT_CONTACT_DELETED, "after", 1), 0, 0),
    "some are deleted, unnoted": ((KILL_POINT_OUTCOMES_WRITTEN, "before", 2), 0, 0),
    "some are noted": ((KILL_POINT_OUTCOMES_WRITTEN, "after", 2), 1, 100),
    SLOW: ((KILL_POINT_CONTACT_DELETED, "after", 60), 20, 60),
    "one of the rest is deleted, unnoted": ((KILL_POINT_CONTACT_DELETED, "after", 101), 100, 100),
}
LISTED: dict[str, tuple[str, str, int]] = {
    "a list's rows are announced": (KILL_POINT_DELIVERIES_ADDED, "after", 4),
    "one is on the list, unnoted": (KILL_POINT_PUT_ON_LIST, "after", 1),
    "many are on the list, noted": (KILL_POINT_PUT_ON_LIST, "after", 105),
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, FakeAutopilot]]]:
    """Returns the folder and the account of each point, after the kill."""
    root = tmp_path_factory.mktemp("contacts")
    plans: list[Plan] = []
    places: dict[str, tuple[Path, FakeAutopilot]] = {}
    (root / "people.txt").write_text("\n".join(PEOPLE))
    query = "SELECT 'p' || i || '@example.com' AS email FROM range(130) t(i)"
    with ExitStack() as stack:
        for point, where in ({name: plan[0] for name, plan in DELETED.items()} | LISTED).items():
            folder = root / point
            folder.mkdir()
            server = stack.enter_context(FakeAutopilot(contacts=0))
            for email in PEOPLE:
                server.account.upsert({"Email": email})
            places[point] = folder, server
            words = ["contacts", "delete", str(root / "people.txt"), "--confirm", str(len(PEOPLE))]
            if point in LISTED:
                words = ["send", "audience", "Vip", "--query", query, "--list", LIST.title]
            own = environment(server) | {"DLT_DATA_DIR": str(folder / "dlt")}
            if point == SLOW:
                own["DESTINATION__AUTOPILOTHQ__REQUESTS_PER_SECOND"] = "30"
            plans.append(Plan(str(folder), words, own, where))
        run_sendings(plans, root)
        yield places


@pytest.mark.parametrize("point", DELETED)
def test_a_killed_deletion_is_continued(
    point: str, house: dict[str, tuple[Path, FakeAutopilot]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, server = house[point]
    monkeypatch.chdir(folder)
    assert Path("status").read_text() == str(-signal.SIGKILL)
    there = {email for email in PEOPLE if server.account.find(email)}
    sent = {each.path for each in server.seen("DELETE")}
    with DeliveryLog(log_in()) as log:
        # What was sent is in the log as unknown or delivered, and what is delivered was really deleted.
        states = {row["endpoint"].partition(" ")[2]: row["status"] for row in log.latest()}
        assert {path for path in sent if states[path] not in ("unknown", "delivered")} == set()
        assert {email for email in there if states.get(f"/contact/{email.replace('@', '%40')}") == "delivered"} == set()
        job = contacts.plan_contacts(contacts.DELETE, PEOPLE, (), log)
        least, most = DELETED[point][1:]
        assert least <= job.done_before <= most
        server.requests.clear()
        plan_requests(job.requests, log)
        with IMPATIENT(settings_for(server).api) as account:
            ContactRequests(account, log, Counts(), planned=True).send(job.requests)
        assert contacts.plan_contacts(contacts.DELETE, PEOPLE, (), log).done_before == 0  # the job has ended
    assert server.account.total() == 0
    assert len(server.seen("DELETE")) == len(PEOPLE) - job.done_before
    assert {row[0] for row in rows("status")[-len(job.requests) :]} == {"delivered"}


@pytest.mark.parametrize("point", LISTED)
def test_after_a_kill_a_list_comes_out_right(
    point: str, house: dict[str, tuple[Path, FakeAutopilot]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, server = house[point]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(lists, "Autopilot", IMPATIENT)
    assert Path("status").read_text() == str(-signal.SIGKILL)
    # In the meantime some left who may be on the list already, and others came.
    server.account.upsert({"Email": "p999@example.com"})
    found = [PersonRow(email, email, None, {}) for email in [*PEOPLE[60:], "p999@example.com"]]
    counts = Counts()
    with DeliveryLog(log_in()) as log:
        lists.sync_list(Audience("vip", "email", found), LIST, log, settings_for(server), counts)
    assert counts.all_delivered
    members: set[str] = set()
    after = None
    while True:
        page = server.account.page(after, LIST.list_id)
        members |= {contact["Email"] for contact in page["contacts"]}
        if not (after := page.get("bookmark")):
            break
    assert members == {row.key for row in found}
    assert len(PEOPLE) > contact_requests.REQUESTS_AT_ONCE
