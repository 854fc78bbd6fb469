"""Fetches Ortto's own counts of campaigns. A separate module, because the rest of `status` needs no API client."""

from datetime import datetime

from ..catalog import ORTTO_COUNTED
from ..clients.decode import as_text
from ..clients.ortto import Ortto
from ..segment.json_text import JsonObject
from ..sources.ortto.reports import reports
from ..sources.times import read_time
from ..warehouses.dataset import Dataset
from .completeness import CampaignCounts, CampaignReport, compare_counts


def fetch_campaigns(dataset: Dataset, account: Ortto, now: datetime) -> list[CampaignCounts]:
    """Returns the campaigns as Ortto counts them now, next to the stored events. Raises ApiErrors."""
    campaigns = [item for page in account.campaigns() for item in page if isinstance(item, JsonObject)]
    return compare_counts(dataset, [_report(found, now) for found in reports(account, campaigns)])


def _report(report: JsonObject, now: datetime) -> CampaignReport:
    """Returns a report as a load would store it."""
    begin, end = (read_time(report.value(name)) for name in ("counted_from", "counted_until"))
    id_, name, type_, timeframe = (
        as_text(report.value(name)) for name in ("campaign_id", "campaign_name", "campaign_type", "timeframe")
    )
    counts = (report.value(name) for name in ORTTO_COUNTED)
    numbers = [None if count is None else int(count) for count in counts]
    return CampaignReport(id_ or "", name, type_, now, timeframe, begin, end, numbers)
