"""What the tests of pulls from Ortto share: loads of a made-up account, and their results."""

from typing import Any

import autopilothq
from autopilothq import LoadReport, runner
from contract.duck import held, pipeline, query
from fake_ortto import FakeOrtto

EVENTS = (
    "_profiles", "tracks", "email_bounced", "email_clicked", "email_delivered", "email_marked_as_spam", "email_opened",
    "email_replied", "email_unsubscribed", "other_events",
)  # fmt: skip
BOOKS = ("_rejects", "_discards", "_audit")
FEED = "/person/get/activities"


def settings(server: FakeOrtto, **words: Any) -> dict[str, Any]:
    """Returns the settings of a source that reads a made-up account without waiting."""
    return {
        "api_key": server.key,
        "base_url": server.base_url,
        "requests_per_second": 1000,
        "activity_requests_per_second": 1000,
        "tries": 1,
        **words,
    }


def pull(server: FakeOrtto, *tables: str, **words: Any) -> LoadReport:
    """Loads tables, those of events unless others are named; returns the report."""
    reports: list[LoadReport] = []
    source = autopilothq.ortto(**settings(server, progress=reports.append, **words))
    with held():
        runner.run(pipeline(), source.with_resources(*(tables or EVENTS), *BOOKS))
    return reports[-1]


def asked(server: FakeOrtto) -> list[tuple[str, int]]:
    """Returns whose activities were requested since the last call, in order, with the offset of the page."""
    found = [(of.body["person_id"], of.body.get("offset", 0)) for of in server.requests if of.path == FEED]
    server.requests.clear()
    return found


def new_person(server: FakeOrtto, email: str, *kinds: str, ago: int = 3600) -> str:
    """Adds a person with an email and activities of these kinds, one a minute, the last the oldest; returns the id."""
    id_ = server.account.write(None, {"str::email": email})
    for number, kind in enumerate(kinds):
        server.account.happen(id_, kind, ago=ago + 60 * number)
    return id_


def tracks() -> list[tuple[Any, ...]]:
    return query("SELECT event, context_traits_email FROM autopilothq.tracks ORDER BY ALL")
