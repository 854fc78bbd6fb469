"""Turns Ortto's counts for a campaign into a row of `ortto_campaign_reports`, to compare the stored events with."""

from collections.abc import Iterator

from ...catalog import ORTTO_COUNTS
from ...clients.autopilot import Page
from ...clients.decode import as_text
from ...clients.ortto import Ortto
from ...errors import RequestRejected
from ...segment.json_text import JsonNumber, JsonObject

_PER_PAGE = 10
NEVER_SENT = frozenset({"draft", "scheduled", "cancelled"})


def reports(account: Ortto, campaigns: list[JsonObject]) -> Iterator[JsonObject]:
    """Yields a row for each campaign that may have been sent; one without a report has the campaign's own counts.

    Ortto allows 60 reports in ten minutes, so reports are requested one by one, in the order of the campaigns.
    """
    for campaign in campaigns:
        if as_text(campaign.value("state")) in NEVER_SENT or not campaign.value("id"):
            continue
        try:
            report = account.campaign_report(str(campaign.value("id")))
        except RequestRejected:  # of a kind that has none, or deleted since it was listed
            report = JsonObject()
        yield report_row(campaign, report)


def report_pages(account: Ortto, bookmark: str | None) -> Iterator[Page]:
    """Yields the rows of all campaigns, a few per page; a `bookmark` continues after those already counted."""
    campaigns = [each for page in account.campaigns() for each in page if isinstance(each, JsonObject)]
    following = int(bookmark or 0)
    while True:
        counted, following = campaigns[following : following + _PER_PAGE], following + _PER_PAGE
        is_last = following >= len(campaigns)
        yield Page(list(reports(account, counted)), len(campaigns), None if is_last else str(following))
        if is_last:
            return


def report_row(campaign: JsonObject, report: JsonObject) -> JsonObject:
    """Returns the row of a campaign and its report. Counts that neither of them has are left out.

    Example: `report_row(campaign, report).value("delivered") == JsonNumber("12")`.
    """
    sections = _sections(report)
    counts = [(name, _count(sections, words, campaign)) for name, words in ORTTO_COUNTS.items()]
    begin, end = _window(sections)
    cells = [
        ("campaign_id", campaign.value("id")),
        ("campaign_name", campaign.value("name")),
        ("campaign_type", campaign.value("type")),
        ("timeframe", _timeframe(report)),
        ("counted_from", begin),
        ("counted_until", end),
        ("last_updated", _time(report.value("last_updated"))),
        *counts,
    ]
    return JsonObject((name, value) for name, value in cells if value is not None)


def _sections(report: JsonObject) -> list[JsonObject]:
    """Returns the parts of a report, those that count emails first."""
    parts = report.value("reports")
    if not isinstance(parts, JsonObject):
        return []
    named = {name: part for name, part in parts if isinstance(part, JsonObject)}
    first = [named.pop(name) for name in ("performance", "email_summary") if name in named]
    return [*first, *named.values()]


def _count(sections: list[JsonObject], words: tuple[str, ...], campaign: JsonObject) -> JsonNumber | None:
    """Returns the first count under one of these words, in the report or else the campaign; None if there is none."""
    found = (part.value(word) for part in (*sections, campaign) for word in words)
    return next((count for count in found if isinstance(count, JsonNumber) and count.isdigit()), None)


def _window(sections: list[JsonObject]) -> tuple[str | None, str | None]:
    """Returns the times between which a report counts, if it has any: a journey's report covers a span of time."""
    for part in sections:
        begin, end = (_time(part.value("graph", name)) for name in ("from", "to"))
        if begin and end:
            return begin, end
    return None, None


def _timeframe(report: JsonObject) -> str | None:
    """Returns Ortto's name of the span of time that is counted; None for all time."""
    name = report.value("timeframe", "type")
    return str(name) if isinstance(name, str) and name not in ("", "all") else None


def _time(value: object) -> str | None:
    """Returns a time as it came. Returns None for a time in the year 1, which stands for none, and for other values."""
    is_time = isinstance(value, str) and not isinstance(value, JsonNumber) and not value.startswith("0001-")
    return str(value) if is_time and value else None
