"""Compares the stored events of Ortto's campaigns with Ortto's own counts."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from ..catalog import ORTTO_CAMPAIGN_REPORTS, ORTTO_COUNTED
from ..display import plural
from ..projection import engine
from ..warehouses.dataset import Dataset
from .formats import grid, moment, percent

MOST_CAMPAIGNS = 20  # in the text
_AT_ONCE = 50  # campaigns per statement


@dataclass
class Count:
    """How many events of one kind are stored, and how many Ortto counts; `share` is None if Ortto counts none."""

    stored: int
    ortto: int
    share: float | None = field(init=False)

    def __post_init__(self) -> None:
        self.share = self.stored / self.ortto if self.ortto else None


@dataclass
class CampaignCounts:
    """The counts of a campaign by `delivered`, `opened`, …; those that Ortto does not report are left out.

    `counted_from` and `counted_until` are the span that Ortto counts, both None for all time. A campaign whose span is
    unknown has no counts. `counted_at` is when Ortto returned the counts.
    """

    campaign_id: str
    name: str
    type: str
    counted_at: datetime
    counted_from: datetime | None
    counted_until: datetime | None
    counts: dict[str, Count]

    @property
    def all(self) -> Count:
        """The sum of all its counts."""
        return total(self.counts.values())


def total(counts: Iterable[Count]) -> Count:
    """Returns the sum of counts."""
    listed = list(counts)
    return Count(sum(count.stored for count in listed), sum(count.ortto for count in listed))


class CampaignReport(NamedTuple):
    """A row of `ortto_campaign_reports`; `numbers` are its values in the columns `ORTTO_COUNTED`."""

    campaign_id: str
    campaign_name: str | None
    campaign_type: str | None
    received_at: datetime
    timeframe: str | None
    counted_from: datetime | None
    counted_until: datetime | None
    numbers: Sequence[int | None]

    @property
    def is_of_all_time(self) -> bool:
        """Whether Ortto counts all time."""
        return self.timeframe is None

    @property
    def has_span(self) -> bool:
        """Whether Ortto counts a span of time, and both its ends are known."""
        return not self.is_of_all_time and self.counted_from is not None and self.counted_until is not None


def read_campaigns(dataset: Dataset) -> list[CampaignCounts] | None:
    """Returns the campaigns that Ortto counts, the least complete first; None if no load has fetched Ortto's counts."""
    names = CampaignReport._fields[:-1]
    columns = ", ".join(f"{{{name}}}" for name in (*names, *ORTTO_COUNTED))
    rows = dataset.rows(columns, ORTTO_CAMPAIGN_REPORTS.name)
    reports = [CampaignReport._make((*row[: len(names)], row[len(names) :])) for row in rows]
    return compare_counts(dataset, reports) if reports else None


def compare_counts(dataset: Dataset, reports: Sequence[CampaignReport]) -> list[CampaignCounts]:
    """Returns Ortto's counts of campaigns, and how many of these events are stored."""
    whole = [report for report in reports if report.is_of_all_time]
    spans = [report for report in reports if report.has_span]
    stored = {
        kind: Counter(dict([*_stored(dataset, table, whole, False), *_stored(dataset, table, spans, True)]))
        for kind, table in ORTTO_COUNTED.items()
    }
    known = {report.campaign_id for report in (*whole, *spans)}
    found = [
        CampaignCounts(
            id_,
            name or id_,
            type_ or "",
            at,
            begin,
            end,
            {
                kind: Count(stored[kind][id_], int(number))
                for kind, number in zip(ORTTO_COUNTED, numbers, strict=True)
                if number is not None and id_ in known
            },
        )
        for id_, name, type_, at, _, begin, end, numbers in reports
    ]
    return sorted(found, key=_least_complete_first)


def _least_complete_first(campaign: CampaignCounts) -> tuple[int, float, str, str]:
    share = campaign.all.share
    group = 2 if not campaign.counts else 1 if share is None else 0
    return group, share or 0, campaign.name, campaign.campaign_id


def _stored(
    dataset: Dataset, table: str, reports: Sequence[CampaignReport], in_span: bool
) -> Iterator[tuple[str, int]]:
    """Yields each campaign with the number of its events in a table; with `in_span`, in the span that Ortto counts."""
    condition = "{campaign_id} = %s" + (" AND {timestamp} >= %s AND {timestamp} <= %s" if in_span else "")
    for chunk in engine.batched(reports, _AT_ONCE):
        where = " OR ".join([f"({condition})"] * len(chunk))
        values: list[Any] = []
        for report in chunk:
            values += [report.campaign_id, *((report.counted_from, report.counted_until) if in_span else ())]
        yield from dataset.rows("{campaign_id}, count(*)", table, f"WHERE {where} GROUP BY {{campaign_id}}", *values)


def campaign_lines(campaigns: Sequence[CampaignCounts]) -> list[str]:
    """Returns the least complete campaigns as lines of text, with the sum of all."""
    counted = [campaign for campaign in campaigns if campaign.counts]
    counted_at = max(campaign.counted_at for campaign in campaigns)
    head = ["campaign", *ORTTO_COUNTED, "events"]
    rows = [_cells(campaign.name, campaign.counts) for campaign in counted[:MOST_CAMPAIGNS]]
    every = [campaign.counts for campaign in counted]
    sums = {kind: total(counts[kind] for counts in every if kind in counts) for kind in ORTTO_COUNTED}
    rows.append(_cells(f"all {len(counted):,}", sums))
    lines = [f"stored of what Ortto counted {moment(counted_at)}", *grid([head, *rows])]
    if len(counted) < len(campaigns):
        others = plural(len(campaigns) - len(counted), "campaign")
        lines.append(f"{others} without a span of time that Ortto names")
    return lines


def _cells(name: str, counts: dict[str, Count]) -> list[str]:
    shares = [percent(counts[kind].share) if kind in counts else "-" for kind in ORTTO_COUNTED]
    every = total(counts.values())
    return [name, *shares, f"{every.stored:,} of {every.ortto:,}"]
