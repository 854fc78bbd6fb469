"""Which messages are forwarded, in which requests, and the log afterwards, without an API and a dataset."""

from collections.abc import Iterable
from typing import Any

import pytest

from autopilothq.clients.segment_api import BATCH_MESSAGES, REQUEST_BYTES
from autopilothq.destination.counts import Counts
from autopilothq.destination.forward import OUTAGE, Forwarder, batches
from autopilothq.destination.forward_log import Forwarded
from autopilothq.destination.outgoing import Outgoing
from autopilothq.errors import ApiError, NotFound, RequestRejected, Unavailable
from autopilothq.segment.identity import Id


class Api:
    """An API that fails for each batch with one of the messages `at`."""

    target, url, attempts = "https://api.example.com", "https://api.example.com/v1/batch", 3

    def __init__(self, **at: ApiError) -> None:
        self.at = at
        self.sent: list[str] = []

    def send(self, texts: list[bytes]) -> None:
        names = [text.decode().strip() for text in texts]
        self.sent.append("".join(names))
        for name in names:
            if name in self.at:
                raise self.at[name]


class Log:
    """A log with these statuses of messages for the target."""

    def __init__(self, **statuses: str) -> None:
        self.had = {name: set(found.split()) for name, found in statuses.items()}
        self.rows: list[Forwarded] = []
        self.asked: list[str] = []

    def suppressed_ids(self) -> set[Id]:
        return {Id("email", "gone@b.c")}

    def statuses(self, target: str, message_ids: Iterable[str]) -> dict[str, set[str]]:
        assert target == Api.target
        self.asked.append("".join(message_ids))
        return self.had

    def add(self, rows: list[Forwarded]) -> None:
        self.rows += rows

    def outcomes(self) -> dict[str, tuple[str, int | None, str | None, int]]:
        """Returns the outcome of each message; checks that each has one row."""
        found = {row.message_id: (row.status, row.http_status, row.message, row.attempts) for row in self.rows}
        assert len(found) == len(self.rows)
        return found


def message(name: str, **more: Any) -> Outgoing:
    id_ = f"u-{name}"
    return Outgoing(name, "track", "E", name.encode(), user_id=id_, **{"persons": [Id("user_id", id_)]} | more)


def forward(messages: Iterable[Outgoing], api: Any, log: Any, **more: Any) -> Counts:
    return Forwarder(api, log, **more).send(messages)


def asking_to_wait(text: str) -> Unavailable:
    error = Unavailable(text, status=503)
    error.wait = 3600
    return error


DELIVERED = ("delivered", 200, None, 3)


def test_what_is_sent_now_what_later_and_what_not() -> None:
    gone = message("g", persons=[Id("user_id", "x"), Id("email", "gone@b.c")])
    messages = [message(name) for name in "adfbaufd"] + [gone]
    bad = [message("r", refusal="too large"), message("o", refusal="too large"), message("r", refusal="too large")]
    api, log = Api(), Log(d="failed delivered", f="failed", o="refused", u="unknown")
    seen: list[int] = []
    counts = forward([*messages, *bad], api, log, progress=lambda counts: seen.append(counts.delivered))
    assert (api.sent, seen) == (["abu", "f"], [3, 4])  # messages that failed before come last
    assert log.asked == ["adfbaufdgror"]
    assert log.outcomes() == dict.fromkeys("abuf", DELIVERED) | {"r": ("refused", None, "too large", 0)}
    assert counts == Counts(
        messages=12, delivered=4, refused=2, known=2, repeated=3, suppressed=1, reasons=counts.reasons
    )
    assert counts.reasons == {("refused", "too large"): 2}
    [row] = [row for row in log.rows if row.message_id == "a"]
    assert row == Forwarded("a", "track", "E", "u-a", None, None, Api.target, *DELIVERED)


def test_a_batch_is_halved_until_the_bad_messages_are_found() -> None:
    refused = RequestRejected("HTTP 400", status=400, server_message="bad", attempts=1)
    failed = Unavailable("HTTP 500", status=500, attempts=5)
    api, log = Api(b=refused, e=failed), Log()
    counts = forward(map(message, "abcde"), api, log)
    assert api.sent == ["abcde", "ab", "a", "b", "cde", "c", "de", "d", "e"]
    bad = {"b": ("refused", 400, "bad", 1), "e": ("failed", 500, "HTTP 500", 5)}
    assert log.outcomes() == dict.fromkeys("acd", DELIVERED) | bad
    assert (counts.delivered, counts.refused, counts.failed) == (3, 1, 1)


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (NotFound("no such URL", status=404), {}),
        (RequestRejected("no such method", status=405), {}),
        (Unavailable("no answer"), dict.fromkeys("ab", ("failed", None, "no answer", 0))),
        (Unavailable("too many", status=429), dict.fromkeys("ab", ("failed", 429, "too many", 0))),
        (asking_to_wait("closed"), dict.fromkeys("ab", ("failed", 503, "closed", 0))),
    ],
)
def test_what_every_other_message_would_meet_ends_the_run(error: ApiError, logged: dict[str, Any]) -> None:
    api, log = Api(a=error), Log(f="failed")
    with pytest.raises(type(error)) as raised:
        forward(map(message, "abf"), api, log)
    assert (raised.value, api.sent, log.outcomes()) == (error, ["ab"], logged)


def test_failures_in_a_row_are_an_outage_but_not_others() -> None:
    failed = Unavailable("HTTP 500", status=500)
    names = [chr(ord("A") + number) for number in range(32)]
    api, log = Api(**dict.fromkeys(names, failed)), Log()
    with pytest.raises(Unavailable):
        forward(map(message, names), api, log)
    assert len(api.sent) == OUTAGE
    assert {outcome[0] for outcome in log.outcomes().values()} == {"failed"}
    # One failure fewer is not an outage: failures are counted from the last answer.
    api = Api(A=RequestRejected("bad", status=400), **dict.fromkeys("BCDEFGH", failed))
    counts = forward(map(message, "ABCDEFGH"), api, Log())
    failures = [batch for batch in api.sent if "A" not in batch]
    assert (len(failures), counts.refused, counts.failed) == (OUTAGE - 1, 1, 7)
    api = Api(**dict.fromkeys("BCDEFG", failed))
    counts = forward(map(message, [*map(str, range(BATCH_MESSAGES)), *"BCDEFG"]), api, Log())
    assert (len(api.sent[1:]), counts.delivered, counts.failed) == (OUTAGE - 1, BATCH_MESSAGES, 6)
    # Every second one fails: deliveries and refusals in between show that there is no outage.
    for others in ({}, dict.fromkeys(names[1::2], RequestRejected("bad", status=400))):
        api, log = Api(**dict.fromkeys(names[::2], failed) | others), Log()
        counts = forward(map(message, names), api, log)
        assert (counts.failed, counts.delivered, counts.refused) == (16, 0 if others else 16, 16 if others else 0)


def test_a_preview_shows_the_request_and_sends_none() -> None:
    api, shown = Api(), list[str]()
    forward([Outgoing("a", text=b'{"a":"\x1b"}')], api, Log(), show=shown.append)
    [text] = shown
    url, body = text.split("\n")
    assert (api.sent, url) == ([], f"POST {Api.url}")
    assert body.startswith('{"batch":[{"a":"\\x1b"}]')


def test_a_batch_has_as_many_bytes_as_there_is_room_for() -> None:
    room = REQUEST_BYTES - len(b'{"batch":[]}')
    large = [Outgoing(name, text=b"x" * size) for name, size in zip("abcde", (room, 1, room - 1, 1, 1), strict=True)]
    found = ["".join(one.message_id for one in batch) for batch in batches(large)]
    assert (found, list(batches([]))) == (["a", "b", "c", "de"], [])
