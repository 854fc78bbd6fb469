"""Which activities go into which request, and what the log has before and after it, without an account."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from autopilothq.clients.ortto import MOST_WRITTEN
from autopilothq.clients.ortto_answers import Written
from autopilothq.destination.batch import BatchItem
from autopilothq.destination.counts import Counts
from autopilothq.destination.delivery_log import Delivery
from autopilothq.destination.event_batches import EventBatches
from autopilothq.destination.requests import FAILURES_IN_A_ROW, CircuitBreaker
from autopilothq.errors import (
    ApiError,
    NotAuthorized,
    OutcomeUnknown,
    RequestRejected,
    Unavailable,
    UnexpectedResponse,
)

ENDPOINT = "POST /activities/create"


class Account:
    """An account that fails for each request with one of the activities `at`, and refuses the messages `invalid`."""

    attempts = 2

    def __init__(self, invalid: str = "", **at: ApiError) -> None:
        self.invalid = invalid
        self.at: dict[str, ApiError] = at
        self.sent: list[list[str]] = []
        self.bodies: list[Mapping[str, Any]] = []

    def create_activities(self, activities: Sequence[Mapping[str, Any]], /) -> list[Written]:
        names = [f"{one['key']}{one['activity_id']}" for one in activities]
        self.sent.append(names)
        self.bodies += activities
        for one in activities:
            if error := self.at.get(one["key"]) or self.at.get(f"{one['key']}{one['activity_id']}"):
                raise error
        return [
            Written("invalid", None, "no") if one["key"] in self.invalid.split() else Written("ingested", "p", None)
            for one in activities
        ]


class Activities:
    """Custom activities that take all properties except `odd`."""

    def attributes(self, activity: str, properties: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        assert activity
        odd = {"odd": "left out"} if "odd" in properties else {}
        return {name: value for name, value in properties.items() if name not in odd}, odd


class Log:
    """A log that keeps each activity's status before its request, and after it."""

    def __init__(self) -> None:
        self.statuses: dict[str, list[str]] = {}
        self.rows: list[Delivery] = []

    def add(self, rows: Iterable[Delivery]) -> None:
        for row in rows:
            assert f"{row.message_id}{row.trigger_id}" not in self.statuses
            self.write_outcomes([row])

    def write_outcomes(self, rows: Iterable[Delivery]) -> None:
        for row in rows:
            self.statuses.setdefault(f"{row.message_id}{row.trigger_id}", []).append(row.status)
            self.rows.append(row)


def item(name: str, *triggers: str, **values: Any) -> BatchItem:
    return BatchItem(name, Delivery(name, "track", email=f"{name}@b.c"), list(triggers or "1"), **values)


def send(account: Any, items: Sequence[BatchItem]) -> tuple[Log, Counts, list[str], ApiError | None]:
    """Sends events; returns the log, the counts, the persons with a failed event, and the error that ended the run."""
    log, counts = Log(), Counts()
    of_log: Any = log
    of_activities: Any = Activities()
    batches = EventBatches(account, of_activities, of_log, counts, CircuitBreaker(account))
    try:
        failed = batches.send(items)
    except ApiError as error:
        return log, counts, [], error
    return log, counts, [one.key for one in failed], None


def test_each_activity_is_in_one_request_and_logged_before_it() -> None:
    account = Account()
    names = [f"m{number}" for number in range(MOST_WRITTEN)]
    items = [item("two", "1", "2"), *map(item, names)]
    log, counts, failed, error = send(account, items)
    assert account.sent == [["two1", "two2", *(f"{name}1" for name in names[:98])], ["m981", "m991"]]
    assert list(log.statuses.values()) == [["unknown", "delivered"]] * (MOST_WRITTEN + 2)
    assert (counts, failed, error) == (Counts(delivered=MOST_WRITTEN + 1), [], None)
    assert log.rows[0] == Delivery("two", "track", email="two@b.c", trigger_id="1", endpoint=ENDPOINT)
    assert log.rows[-1] == Delivery(
        *("m99", "track"), email="m99@b.c", trigger_id="1", endpoint=ENDPOINT, status="delivered", http_status=200,
        attempts=2,
    )  # fmt: skip


def test_one_that_is_too_large_or_not_taken_costs_no_other() -> None:
    account = Account("c", d=RequestRejected("HTTP 400", status=400, server_message="bad", attempts=1))
    large = item("b", properties={"x": "x" * 16_000})
    log, counts, failed, error = send(account, [item("a"), large, *map(item, "cde")])
    assert account.sent == [["a1", "c1", "d1", "e1"], ["a1", "c1"], ["d1", "e1"], ["d1"], ["e1"]]
    assert log.statuses == {
        "a1": ["unknown", "delivered"],
        "b1": ["refused"],
        "c1": ["unknown", "refused"],
        "d1": ["unknown", "refused"],
        "e1": ["unknown", "delivered"],
    }
    why = "The activity is larger than 16,000 bytes, which Ortto does not accept"
    assert [row for row in log.rows if row.message_id == "b"] == [
        Delivery("b", "track", email="b@b.c", trigger_id="1", status="refused", message=why)
    ]
    assert counts.reasons == {("refused", why): 1, ("refused", "no"): 1, ("refused", "bad"): 1}
    assert (counts.delivered, counts.refused, failed, error) == (2, 3, [], None)


def test_an_activity_has_its_person_its_time_and_what_its_fields_take() -> None:
    account = Account()
    now = datetime.now(UTC).replace(microsecond=0)
    young, old = (now - timedelta(days=90, minutes=minutes) for minutes in (-1, 1))
    odd = item("a", properties={"n": 1, "odd": 2}, timestamp=young.isoformat())
    nameless = item("b", timestamp="soon")
    log, counts, failed, error = send(
        account,
        [
            odd._replace(row=odd.row._replace(remarks='{"plan": "é"}')),
            nameless._replace(row=nameless.row._replace(email=None, user_id="u")),
            item("c", timestamp=old.isoformat()),
        ],
    )
    assert account.bodies == [
        {
            "activity_id": "1",
            "attributes": {"n": 1},
            "key": "a",
            "fields": {"str::email": "a@b.c"},
            "merge_by": ["str::email"],
            "created": f"{young:%Y-%m-%dT%H:%M:%SZ}",
        },
        {"activity_id": "1", "attributes": {}, "key": "b", "fields": {"str::ei": "u"}, "merge_by": ["str::ei"]},
    ]
    assert {row.message_id: row.remarks for row in log.rows} == {
        "a": '{"plan": "é", "odd": "left out"}', "b": None, "c": None,
    }  # fmt: skip
    too_old = "The event is older than 90 days, which Ortto does not accept"
    assert (counts.reasons, counts.remarks) == ({("refused", too_old): 1}, {"odd was left out": 1})
    assert (counts.delivered, failed, error) == (2, [], None)


def test_many_requests_that_fail_in_a_row_end_the_run() -> None:
    requests = FAILURES_IN_A_ROW + 1
    down = Unavailable("HTTP 503", status=503)
    account = Account()
    account.at = {f"m{MOST_WRITTEN * number}": down for number in range(requests)}
    _, counts, _, error = send(account, [item(f"m{number}") for number in range(MOST_WRITTEN * requests)])
    assert (len(account.sent), counts.failed, error) == (FAILURES_IN_A_ROW, MOST_WRITTEN * FAILURES_IN_A_ROW, down)


@pytest.mark.parametrize(
    ("raised", "status", "failed", "ends"),
    [
        (OutcomeUnknown("no answer"), "unknown", [], False),
        (UnexpectedResponse("no JSON", status=200), "unknown", [], False),
        (UnexpectedResponse("no JSON", status=302), "failed", ["a", "b"], False),
        (Unavailable("HTTP 503", status=503), "failed", ["a", "b"], False),
        (NotAuthorized("wrong key", status=401), "failed", [], True),
    ],
)
def test_an_outcome_is_that_of_the_whole_request(raised: ApiError, status: str, failed: list[str], ends: bool) -> None:
    account = Account(a=raised)
    log, counts, of_failed, error = send(account, [item("a"), item("b", earlier=["delivered"])])
    assert account.sent == [["a1", "b1"]]
    assert log.statuses == {"a1": ["unknown", status], "b1": ["unknown", status]}
    assert (getattr(counts, status), of_failed, error) == (2, failed, raised if ends else None)


def test_after_the_end_nothing_is_sent_or_logged() -> None:
    account = Account(m0=NotAuthorized("wrong key", status=401))
    log, counts, _, error = send(account, [item(f"m{number}") for number in range(MOST_WRITTEN + 1)])
    assert (len(account.sent), len(log.statuses), error) == (1, MOST_WRITTEN, account.at["m0"])
    assert (counts.failed, counts.delivered) == (MOST_WRITTEN, 0)


def test_a_message_with_several_outcomes_is_counted_with_the_reason_for_the_worst() -> None:
    bad, down = RequestRejected("HTTP 400", status=400, server_message="bad"), Unavailable("HTTP 503", status=503)
    log, counts, failed, error = send(Account(a1=bad, a2=down), [item("a", "1", "2", "3", "4")])
    assert [statuses[-1] for statuses in log.statuses.values()] == ["refused", "failed", "delivered", "delivered"]
    assert (counts, failed, error) == (Counts(failed=1, reasons=Counter({("failed", "HTTP 503"): 1})), ["a"], None)
