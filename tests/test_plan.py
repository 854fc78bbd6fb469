"""What earlier runs did with an item, and when a run of requests that fail is stopped: both without an account."""

from datetime import UTC, datetime

import pytest

from autopilothq.destination.delivery_log import DeliveryStatus, Sent
from autopilothq.destination.messages import Item
from autopilothq.destination.plan import History, history_of
from autopilothq.destination.requests import FAILURES_IN_A_ROW, CircuitBreaker
from autopilothq.errors import NotAuthorized, Unavailable

EARLY, LATE = (Sent(datetime(2019, 3, day, tzinfo=UTC), f"run {day}") for day in (1, 2))
DELIVERED = DeliveryStatus(True, "delivered", None, EARLY)
REFUSED_SINCE = DeliveryStatus(True, "refused", None, LATE)
UNKNOWN = DeliveryStatus(False, "unknown", None, LATE)
FAILED = DeliveryStatus(False, "failed", None, None)


@pytest.mark.parametrize(
    ("status", "once", "delivered"),
    [(None, True, False), (DELIVERED, True, True), (DELIVERED, False, False), (UNKNOWN, True, False)],
)
def test_an_identify_is_delivered_once_and_a_row_whenever_it_differs(
    status: DeliveryStatus | None, once: bool, delivered: bool
) -> None:
    statuses: dict[tuple[str, str | None], DeliveryStatus] = {} if status is None else {("m1", None): status}
    history = history_of(Item("m1", "identify", once=once), [], statuses)
    assert history == History(delivered, [], [], status, status.sent if status else None)


@pytest.mark.parametrize(
    ("statuses", "delivered", "triggers", "earlier", "sent"),
    [
        ([None, None], False, ["1", "2"], [], None),
        ([DELIVERED, None], False, ["2"], ["delivered"], EARLY),
        ([DELIVERED, FAILED], False, ["2"], ["delivered"], EARLY),
        ([DELIVERED, UNKNOWN], True, [], ["delivered", "unknown"], LATE),
        ([REFUSED_SINCE, DELIVERED], True, [], ["delivered", "delivered"], LATE),
    ],
)
def test_a_trigger_that_may_have_been_carried_out_is_not_sent_again(
    statuses: list[DeliveryStatus | None], delivered: bool, triggers: list[str], earlier: list[str], sent: Sent | None
) -> None:
    known: dict[tuple[str, str | None], DeliveryStatus] = {
        ("m1", trigger): status for trigger, status in zip("12", statuses, strict=True) if status is not None
    }
    history = history_of(Item("m1", "track", event="Order Completed"), ["1", "2"], known)
    assert history == History(delivered, triggers, earlier, None, sent)


def test_failures_in_a_row_stop_a_run_and_a_success_between_them_does_not() -> None:
    breaker, error = CircuitBreaker(), Unavailable("503")
    for _ in range(3):
        for number in range(FAILURES_IN_A_ROW - 1):
            breaker.failed(error, f"p{number}@example.com")
        breaker.answered()
    for _ in range(9):
        breaker.failed(error, "always.the.same@example.com")
    assert (breaker.is_open, breaker.cause, breaker.answers) == (False, None, 3)
    for number in range(FAILURES_IN_A_ROW - 2):
        breaker.failed(error, f"p{number}@example.com")
    with pytest.raises(Unavailable):
        breaker.failed(error, "last@example.com")
    breaker.open(NotAuthorized("401"))
    assert (breaker.is_open, breaker.cause) == (True, error)
