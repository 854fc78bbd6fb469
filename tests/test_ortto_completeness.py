"""The share of Ortto's counts that is stored: rows of `ortto_campaign_reports`, and how `status` shows it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from autopilothq.catalog import ORTTO_CAMPAIGN_REPORTS, ORTTO_COUNTED
from autopilothq.clients.decode import decode_json, plain
from autopilothq.clients.ortto import Ortto, OrttoSettings
from autopilothq.destination import log_dataset
from autopilothq.inspect import completeness
from autopilothq.inspect.completeness import CampaignReport
from autopilothq.segment.json_text import JsonObject
from autopilothq.sources.ortto.reports import report_row, reports
from autopilothq.warehouses.dataset import dataset_of
from calling import Said, errors
from fake_ortto import Account, FakeOrtto
from fake_ortto.made_up import CAMPAIGNS
from shared_loads import command, isolation

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def read(value: Any) -> JsonObject:
    found = decode_json(json.dumps(value).encode())
    assert isinstance(found, JsonObject)
    return found


# ---- the rows ------------------------------------------------------------------------------------------------------

SENT = {"id": "c1", "name": "Spring", "type": "email", "state": "sent", "delivered": 7, "opens": 5, "clicks": 1}
GRAPH = {"from": "2026-11-08T11:07:49.569Z", "to": "2026-11-08T23:59:59.000000999Z"}
NOTHING = {"name": "Journey performance", "entered": 3, "graph": GRAPH}
REVENUE = {"delivered": 4, "opened": 3, "clicked": 2, "bounced": 1, "invalid": 0, "unique_opened": 1}


@pytest.mark.parametrize(
    ("report", "row"),
    [
        pytest.param(
            {"last_updated": "2026-11-08T11:11:07.37Z", "reports": {"performance": {"delivered": 9, "opened": 8}}},
            {"last_updated": "2026-11-08T11:11:07.37Z", "delivered": 9, "opened": 8, "clicked": 1},
            id="an email",
        ),
        pytest.param(
            {"timeframe": {"type": "last-month"}, "reports": {"revenue": REVENUE, "performance": NOTHING}},
            {
                "timeframe": "last-month",
                "counted_from": GRAPH["from"],
                "counted_until": GRAPH["to"],
                "delivered": 4,
                "opened": 3,
                "clicked": 2,
                "bounced": 1,
                "invalid": 0,
            },
            id="a journey, of which some time is counted",
        ),
        pytest.param(
            {"last_updated": "0001-01-01T00:00:00Z", "timeframe": {"type": ""}, "reports": None},
            {"delivered": 7, "opened": 5, "clicked": 1},
            id="no report",
        ),
        pytest.param(
            {
                "last_updated": "",
                "reports": {
                    "performance": {"delivered": 1.5, "opened": -1, "graph": {"from": GRAPH["from"]}},
                    "revenue": {"graph": {"from": 2026, "to": GRAPH["to"]}},
                },
            },
            {"delivered": 7, "opened": 5, "clicked": 1},
            id="what is no count and no time",
        ),
    ],
)
def test_a_report_becomes_a_row(report: Any, row: dict[str, Any]) -> None:
    made = plain(report_row(read(SENT), read(report)))
    assert made == {"campaign_id": "c1", "campaign_name": "Spring", "campaign_type": "email"} | row


def test_campaigns_that_were_never_sent_are_not_asked_for() -> None:
    with FakeOrtto(people=30) as server, Ortto(OrttoSettings(api_key=server.key, base_url=server.base_url)) as account:
        campaigns = [one for page in account.campaigns() for one in page]
        server.order("POST", "/campaign/reports/get", status=404)
        rows = [plain(row) for row in reports(account, campaigns)]
        asked = [request.body["campaign_id"] for request in server.seen("POST", "/campaign/reports/get")]
        assert [row["campaign_id"] for row in rows] == asked == [one.value("id") for one in campaigns[:-1]]
        counted = server.account.counts(asked[0])
    assert rows[0] == {
        "campaign_id": asked[0],
        "campaign_name": "Onboarding",
        "campaign_type": "email",
        "delivered": counted["act::r"],
        "opened": counted["act::o"],
        "clicked": counted["act::c"],
    }


def test_a_campaign_whose_state_is_no_text_is_asked_for() -> None:
    campaigns: list[dict[str, Any]] = [{"name": "of no id"}, {"id": "c1", "state": [], "name": {"a": 1}}]
    with FakeOrtto(people=1) as server, Ortto(OrttoSettings(api_key=server.key, base_url=server.base_url)) as account:
        rows = [plain(row) for row in reports(account, [read(each) for each in campaigns])]
    assert rows == [{"campaign_id": "c1", "campaign_name": {"a": 1}}]


# ---- status --------------------------------------------------------------------------------------------------------


KINDS = {
    "delivered": "act::r",
    "opened": "act::o",
    "clicked": "act::c",
    "bounced": "act::b",
    "unsubscribed": "act::u-all",
}
IN, BEFORE = NOW - timedelta(days=5), NOW - timedelta(days=50)
EVENTS = (
    ("c1", "Email Delivered", IN, 10),
    ("c1", "Email Opened", BEFORE, 3),
    ("c1", "Email Clicked", IN, 3),
    ("c1", "Email Unsubscribed", IN, 1),
    ("c3", "Email Delivered", IN, 2),
    ("c3", "Email Delivered", BEFORE, 7),
    ("c3", "Email Opened", BEFORE, 1),
    ("c4", "Email Delivered", IN, 1),
    ("other", "Email Delivered", IN, 5),
)
MONTH = (NOW - timedelta(days=30), NOW)
ALWAYS = (None, None)
REPORTS = (
    # The counts are delivered, opened, clicked, bounced, unsubscribed and invalid.
    ("c1", NOW, NOW, "Onboarding", "email", None, *ALWAYS, NOW, 10, 4, 3, 0, 2, 0),
    ("c2", NOW, NOW, "Spring sale", "email", None, *ALWAYS, NOW, 0, 0, 0, None, None, 0),
    ("c3", NOW, NOW, "Newsletter", "journey", "last-month", *MONTH, NOW, 2, 1, 0, 0, 0, 0),
    ("c4", NOW, NOW, "Renewal / 2026", "journey", "last-month", *ALWAYS, NOW, 1, 1, 1, 1, 1, 0),
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Said]:
    """The output of `status` without and with reports in the dataset, and with `--ask-ortto`."""
    with isolation(tmp_path_factory.mktemp("status")), FakeOrtto(people=40) as server:
        Path("events.ndjson").write_text("".join(f"{json.dumps(message)}\n" for message in _messages()))
        assert command("load", "archive", "events.ndjson").status == 0
        said = {"before": command("status")}
        client: Any = log_dataset().destination_client
        with client:
            dataset = dataset_of(client, literals=True)
            dataset.create(ORTTO_CAMPAIGN_REPORTS)
            dataset.insert(ORTTO_CAMPAIGN_REPORTS, REPORTS)
        said |= {"text": command("status"), "json": command("status", "--json")}
        said["no key"] = command("status", "--ask-ortto")
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setenv("SOURCES__AUTOPILOTHQ__ORTTO__API_KEY", server.key)
            monkeypatch.setenv("SOURCES__AUTOPILOTHQ__ORTTO__BASE_URL", server.base_url)
            monkeypatch.setenv("SOURCES__AUTOPILOTHQ__ORTTO__REQUESTS_PER_SECOND", "100")
            monkeypatch.setenv("SOURCES__AUTOPILOTHQ__ORTTO__TRIES", "2")
            said["asked"] = command("status", "--ask-ortto", "--json")
            server.names_spans = False
            said["asked, without spans"] = command("status", "--ask-ortto", "--json")
            server.key = "another"
            said["denied"] = command("status", "--ask-ortto")
    return said


class Stored:
    """A dataset with a number of events of each campaign in some tables; records the queries."""

    def __init__(self, **events: dict[str, int]) -> None:
        self.events = events
        self.asked: list[tuple[str, str, int]] = []

    def rows(self, columns: str, table: str, where: str, *values: Any) -> list[tuple[str, int]]:
        assert columns == "{campaign_id}, count(*)"
        self.asked.append((table, where, len(values)))
        ids = values[::3] if "timestamp" in where else values
        assert values[1::3] + values[2::3] == MONTH or ids == values
        return [(id_, number) for id_, number in self.events.get(table, {}).items() if id_ in ids]


def counted(id_: str, *numbers: int | None, span: tuple[Any, Any, Any] = (None, None, None)) -> CampaignReport:
    """Returns a campaign's report; counts that are not given are missing."""
    every = [*numbers, *[None] * (len(ORTTO_COUNTED) - len(numbers))]
    return CampaignReport(id_, f"name of {id_}", "email", NOW, *span, every)


def test_the_events_of_fifty_campaigns_are_counted_by_one_statement() -> None:
    ids = [f"c{number:02}" for number in range(51)]
    of_all, in_span = "({campaign_id} = %s)", "({campaign_id} = %s AND {timestamp} >= %s AND {timestamp} <= %s)"
    dataset: Any = Stored(email_delivered=dict.fromkeys(ids, 1) | {"j": 4, "other": 9}, email_opened={"c50": 2})
    rows = [*(counted(id_, 1, 3) for id_ in ids), counted("j", 5, span=("last-month", *MONTH))]
    found = completeness.compare_counts(dataset, rows)
    assert [one.campaign_id for one in found] == [*ids[:50], "c50", "j"]
    assert [found[number].counts for number in (0, 50, 51)] == [
        {"delivered": completeness.Count(1, 1), "opened": completeness.Count(0, 3)},
        {"delivered": completeness.Count(1, 1), "opened": completeness.Count(2, 3)},
        {"delivered": completeness.Count(4, 5)},
    ]
    assert (found[-1].counted_from, found[-1].counted_until) == MONTH
    end = " GROUP BY {campaign_id}"
    assert [asked[1:] for asked in dataset.asked if asked[0] == "email_opened"] == [
        (f"WHERE {' OR '.join([of_all] * 50)}{end}", 50),
        (f"WHERE {of_all}{end}", 1),
        (f"WHERE {in_span}{end}", 3),
    ]
    assert sorted({asked[0] for asked in dataset.asked}) == sorted(ORTTO_COUNTED.values())


def test_a_campaign_without_a_whole_span_or_a_name() -> None:
    begin, end = MONTH
    dataset: Any = Stored(email_delivered={"a": 1, "b": 1, "c": 1})
    rows = [counted("a", 1, span=("last-month", begin, None)), counted("b", 1, span=("last-month", None, end))]
    rows += [counted("c", 0, span=(None, *MONTH))._replace(campaign_name=None, campaign_type=None)]
    assert [(one.name, one.type, one.counts) for one in completeness.compare_counts(dataset, rows)] == [
        ("c", "", {"delivered": completeness.Count(1, 0)}), ("name of a", "email", {}), ("name of b", "email", {}),
    ]  # fmt: skip
    assert [where for _, where, _ in dataset.asked if "timestamp" in where] == []


def test_the_least_complete_campaigns_are_shown() -> None:
    ids = [f"c{number:02}" for number in range(22)]
    dataset: Any = Stored(email_delivered={id_: number for number, id_ in enumerate(reversed(ids))})
    found = completeness.compare_counts(dataset, [*(counted(id_, 100) for id_ in ids), counted("d", 0)])
    lines = completeness.campaign_lines(found)
    assert [line.split()[2] for line in lines[2:-1]] == ids[:1:-1]
    assert lines[-1].split() == ["all", "23", "10.5", "%", *"----", "231", "of", "2,200"]
    assert len(lines) == 23


def _messages() -> Iterator[dict[str, Any]]:
    for campaign, event, at, number in EVENTS:
        for turn in range(number):
            yield {
                "type": "track",
                "messageId": f"{campaign}-{event}-{at}-{turn}",
                "event": event,
                "anonymousId": "a@example.com",
                "timestamp": at.isoformat(),
                "properties": {"campaign_id": campaign},
            }


def test_the_status_shows_what_is_stored_of_what_ortto_counts(told: dict[str, Said]) -> None:
    page = (Path(__file__).parent.parent / "pipelines" / "docs" / "how-to" / "inspect.md").read_text()
    assert told["text"].out.split("\n\n")[-1] in page
    assert told["text"].out.split("\n\n")[-1].splitlines() == [
        "stored of what Ortto counted 2026-11-26 12:00:00",
        "campaign     delivered  opened  clicked  bounced  unsubscribed  events",
        "Newsletter   100 %      0 %     -        -        -             2 of 3",
        "Onboarding   100 %      75 %    100 %    -        50 %          17 of 19",
        "Spring sale  -          -       -        -        -             0 of 0",
        "all 3        100 %      60 %    100 %    -        50 %          19 of 22",
        "1 campaign without a span of time that Ortto names",
    ]


def test_the_status_for_programs(told: dict[str, Said]) -> None:
    campaigns = json.loads(told["json"].out)["campaigns"]
    assert [one["campaign_id"] for one in campaigns] == ["c3", "c1", "c2", "c4"]
    assert campaigns[0] == {
        "campaign_id": "c3",
        "name": "Newsletter",
        "type": "journey",
        "counted_at": "2026-11-26T12:00:00+00:00",
        "counted_from": "2026-10-27T12:00:00+00:00",
        "counted_until": "2026-11-26T12:00:00+00:00",
        "counts": {
            "delivered": {"stored": 2, "ortto": 2, "share": 1.0},
            "opened": {"stored": 0, "ortto": 1, "share": 0.0},
            "clicked": {"stored": 0, "ortto": 0, "share": None},
            "bounced": {"stored": 0, "ortto": 0, "share": None},
            "unsubscribed": {"stored": 0, "ortto": 0, "share": None},
        },
    }
    assert (list(campaigns[2]["counts"]), campaigns[3]["counts"]) == (["delivered", "opened", "clicked"], {})


def test_without_reports_there_is_no_such_part(told: dict[str, Said]) -> None:
    assert (told["before"].status, "Ortto" in told["before"].out) == (0, False)


def test_ortto_is_asked_where_that_is_wanted(told: dict[str, Said]) -> None:
    campaigns = {one["name"]: one for one in json.loads(told["asked"].out)["campaigns"]}
    assert sorted(campaigns) == sorted(CAMPAIGNS)
    account = Account(40)
    counted = account.counts(campaigns["Onboarding"]["campaign_id"])
    assert campaigns["Onboarding"]["counts"] == {
        name: {"stored": 0, "ortto": counted[kind], "share": 0.0 if counted[kind] else None}
        for name, kind in KINDS.items()
    }
    journey = campaigns["Newsletter"]
    begin, end = (datetime.fromisoformat(journey[name]) for name in ("counted_from", "counted_until"))
    assert (end - begin).days == 30
    since = account.counts(journey["campaign_id"], begin.strftime("%Y-%m-%dT%H:%M:%SZ"))
    assert journey["counts"]["delivered"]["ortto"] == since["act::r"]
    named = {one["name"]: one for one in json.loads(told["asked, without spans"].out)["campaigns"]}
    assert named["Newsletter"]["counts"] == {}


def test_ortto_cannot_be_asked(told: dict[str, Said]) -> None:
    name = "sources.autopilothq.ortto.api_key (in .dlt/secrets.toml, or SOURCES__AUTOPILOTHQ__ORTTO__API_KEY"
    assert (told["no key"].status, errors(told["no key"])) == (
        1,
        [
            "Error: Expected the custom API key of an account of Ortto, but there is none.",
            f"Set {name.replace('(', '')} in the environment.",
        ],
    )
    (line,) = errors(told["denied"])
    assert told["denied"].status == 1
    assert line == (
        "Error: POST /campaign/get-all: 401 Unauthorized: Invalid API key (request"
        f" 00000000-0000-0000-0000-000000000191). Check {name} in the environment)"
    )
