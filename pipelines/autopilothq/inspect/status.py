"""Reports whether loads run and data comes in."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from dlt.pipeline.trace import PipelineTrace

from .. import catalog
from ..display import plural, shortened
from ..warehouses.dataset import AUDIT_COUNTS, MAX_SKEW, Columns, Dataset, audit_sums, last_load, newest, tables_of
from ..warehouses.dlt_internals import PipelineStepTrace, load_trace
from ..warehouses.pipeline_names import UNFINISHED_TARGET, package_folders, pipeline_name, pipelines_dir
from .changed_types import TIMES, check_types, check_types_of_books, is_changed
from .completeness import CampaignCounts, campaign_lines, read_campaigns
from .formats import grid, moment
from .received import Received, Waiting
from .views import MARKED, AppliedModels, applied_models

DAYS = 14
BAR = 30
_RAISED = re.compile(r"^[\w.]+: (.+)$", re.MULTILINE)

_SELDOM = ("skipped", "mended")  # shown only if there are any


@dataclass
class LoadSummary:
    """The newest complete load, with the sums over its files."""

    id: str
    loaded_at: datetime
    files: int = 0
    lines: int = 0
    stored: int = 0
    duplicates: int = 0
    rejected: int = 0
    skipped: int = 0
    mended: int = 0


@dataclass
class LastRun:
    """How the last known run ended: a run of this machine, or the destination's last load."""

    at: datetime
    result: str  # loaded, nothing new, failed
    error: str = ""


@dataclass
class Freshness:
    """When a table's newest row was received, and when the load that stored its newest row processed it."""

    received_at: datetime | None
    loaded_at: datetime | None


@dataclass
class Status:
    """The report of `status`.

    `place` describes the destination and its dataset. `waiting` is the number of this machine's loads that are running
    or were interrupted.
    """

    place: str
    now: datetime
    last_run: LastRun | None
    last_load: LoadSummary | None
    waiting: int
    newest_load: datetime | None
    tables: dict[str, Freshness]
    events_per_day: dict[date, int]
    rejects: dict[str, int] = field(default_factory=dict)
    discards: dict[str, int] = field(default_factory=dict)
    beyond_limits: dict[str, dict[str, int]] = field(default_factory=dict)
    """Values that the last load had no room for, counted by reason and table."""
    campaigns: list[CampaignCounts] | None = None
    """The stored events and Ortto's counts, if a load or `status` has fetched these."""
    received: Received | None = None
    """What waits in a receiver's folder, if the options name one."""
    models: AppliedModels | None = None
    """Which models are views of the destination, if any."""

    def is_older(self, age: timedelta) -> bool:
        """Returns whether the newest load is older than `age` or in the future, or no load exists."""
        return self.newest_load is None or self.is_ahead or self.now - self.newest_load > age

    @property
    def is_ahead(self) -> bool:
        """Whether the time of the newest load is in the future, because a clock was wrong."""
        return self.newest_load is not None and self.newest_load > self.now + MAX_SKEW


def read_status(dataset: Dataset, now: datetime) -> Status:
    """Returns the status of a dataset, from its destination and from what runs left on this machine."""
    known = [name for name, columns in tables_of(dataset).items() if name in catalog.TABLES and "uuid_ts" in columns]
    check_types(dataset, known, TIMES)
    check_types_of_books(dataset)
    tables = read_freshness(dataset, now)
    load = _last_load(dataset, now)
    loads = [fresh.loaded_at for fresh in tables.values() if fresh.loaded_at]
    trace, waiting = _local_state(dataset.target)
    discards = _added_rows(dataset, catalog.DISCARDS, "discarded_at", load, "reason", "table_name")
    return Status(
        dataset.title,
        now,
        _last_run(load.loaded_at if load else None, trace),
        load,
        waiting,
        newest(loads, now),
        tables,
        _events_per_day(dataset, now.astimezone(UTC).date()),
        _by_reason(_added_rows(dataset, catalog.REJECTS, "rejected_at", load, "reason")),
        _by_reason(discards),
        _beyond_limits(discards),
        campaigns=read_campaigns(dataset),
        models=_models(dataset),
    )


def read_freshness(dataset: Dataset, now: datetime) -> dict[str, Freshness]:
    """Returns how new the rows of each table of messages are, and of others that have such times."""
    found = tables_of(dataset)
    return {
        name: _freshness(dataset, name, columns, now)
        for name, columns in found.items()
        if _has_time(dataset, columns, "uuid_ts")
    }


def _has_time(dataset: Dataset, columns: Columns, column: str) -> bool:
    """Returns whether a table has a time: another program's may have a date or a number of that name."""
    return column in columns and not is_changed(dataset, columns, column)


def read_last_run(dataset: Dataset, now: datetime) -> LastRun | None:
    """Returns how the last known run into a dataset ended, or None if no run is known."""
    _, loaded_at = last_load(dataset, now) or (None, None)
    trace, _ = _local_state(dataset.target)
    return _last_run(loaded_at, trace)


def _models(dataset: Dataset) -> AppliedModels | None:
    """Returns which models are applied; None if there are none, or if the comments of views cannot be read there."""
    found = applied_models(dataset) if dataset.kind in MARKED else None
    return found if found and found.ours else None


def _freshness(dataset: Dataset, table: str, columns: Columns, now: datetime) -> Freshness:
    received = "max({received_at})" if _has_time(dataset, columns, "received_at") else "NULL"
    ((received_at, loaded_at),) = dataset.rows(f"{received}, max({{uuid_ts}})", table)
    if loaded_at and loaded_at > now + MAX_SKEW:
        # A clock that was wrong once must not hide for years that loads have stopped.
        ((before,),) = dataset.rows("max({uuid_ts})", table, "WHERE {uuid_ts} <= %s", now + MAX_SKEW)
        loaded_at = before or loaded_at
    return Freshness(received_at, loaded_at)


def _last_load(dataset: Dataset, now: datetime) -> LoadSummary | None:
    found = last_load(dataset, now)
    if found is None:
        return None
    sums = audit_sums(dataset, AUDIT_COUNTS)
    rows = dataset.rows(f"count(*), {sums}", catalog.AUDIT.name, "WHERE {load_id} = %s", found[0])
    return LoadSummary(*found, *(int(number or 0) for row in rows for number in row))


def _events_per_day(dataset: Dataset, today: date) -> dict[date, int]:
    days = [today - timedelta(days=back) for back in reversed(range(DAYS))]
    if "received_at" not in dataset.columns().get(catalog.TRACKS.name, ()):  # none, or another program's
        return dict.fromkeys(days, 0)
    begins = [datetime.combine(day, datetime.min.time(), UTC) for day in (*days, today + timedelta(days=1))]
    # A cast to a date would use the session's time zone.
    counts = ["count(CASE WHEN {received_at} >= %s AND {received_at} < %s THEN 1 END)"] * DAYS
    bounds = itertools.chain.from_iterable(itertools.pairwise(begins))
    found = dataset.rows(", ".join(counts), catalog.TRACKS.name, "WHERE {received_at} >= %s", *bounds, begins[0])
    return dict(zip(days, found[0], strict=True))


def _added_rows(
    dataset: Dataset, book: catalog.Table, timestamp: str, load: LoadSummary | None, *columns: str
) -> list[tuple[Any, ...]]:
    """Counts the rows that the last load added to a bookkeeping table: the values of some columns, and the count."""
    if load is None:
        return []
    # A load's id is the time when it began, and all its rows were processed after that. Rows that are later than the
    # load are from loads whose clock was wrong.
    began = datetime.fromtimestamp(float(load.id), UTC)
    by = ", ".join(f"{{{column}}}" for column in columns)
    within = f"WHERE {{{timestamp}}} >= %s AND {{{timestamp}}} <= %s GROUP BY {by} ORDER BY {by}"
    return dataset.rows(f"{by}, count(*)", book.name, within, began, load.loaded_at)


def _by_reason(rows: Iterable[tuple[Any, ...]]) -> dict[str, int]:
    """Returns how many of the added rows have each reason, the most frequent first."""
    counts = Counter[str]()
    for reason, *_, count in rows:
        counts[reason] += count
    return dict(counts.most_common())


def _beyond_limits(discards: Iterable[tuple[str, str, int]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for reason, table, count in discards:
        if reason in catalog.LIMIT_REASONS:
            found.setdefault(reason, {})[table] = count
    return found


def _local_state(target: str) -> tuple[PipelineTrace | None, int]:
    """Returns the trace of the last run and the number of waiting packages, if this machine's pipeline has that target.

    Reads files only, because attaching to a running pipeline with dlt could overwrite its state.
    """
    folder = pipelines_dir() / pipeline_name(target)
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None, 0
    if state.get("_local", {}).get(UNFINISHED_TARGET) != target:
        return None, 0
    return load_trace(str(folder)), len({package.name for package in package_folders(folder)})


def _last_run(loaded_at: datetime | None, trace: PipelineTrace | None) -> LastRun | None:
    loaded = LastRun(loaded_at, "loaded") if loaded_at else None
    ended = trace and trace.finished_at
    if trace is None or ended is None or (loaded and ended < loaded.at):
        return loaded
    failed = next((step for step in trace.steps if step.step_exception), None)
    if failed:
        return LastRun(ended, "failed", f"the {failed.step} step: {_reason(failed)}")
    has_loaded = any(step.step == "load" and getattr(step.step_info, "loads_ids", None) for step in trace.steps)
    return loaded if has_loaded else LastRun(ended, "nothing new")


def _reason(step: PipelineStepTrace) -> str:
    """Returns the most informative line of an error: the first, or the last one of a traceback."""
    causes = step.exception_traces
    text = str(causes[-1]["message"] if causes else step.step_exception).strip()
    raised = _RAISED.findall(text.partition("Traceback (most recent call last):")[2])
    return str(raised[-1]) if raised else text.partition("\n")[0]


def status_dict(status: Status, max_age: timedelta | None) -> dict[str, Any]:
    """Returns the status for programs: times in ISO 8601, UTC, ages in seconds; `fresh` is None without `max_age`."""
    values = asdict(status)
    values["events_per_day"] = {day.isoformat(): count for day, count in status.events_per_day.items()}
    age = status.now - status.newest_load if status.newest_load else None
    values["age_seconds"] = age and age.total_seconds()
    values["fresh"] = None if max_age is None else not status.is_older(max_age)
    values["models"] = status.models and status.models._asdict()
    for name in ("received", "models", "campaigns"):
        if values[name] is None:
            del values[name]
    if status.received is not None:
        for name in ("unpublished", "not_loaded"):
            oldest = values["received"][name]["oldest"]
            values["received"][name]["age_seconds"] = oldest and (status.now - oldest).total_seconds()
    text: dict[str, Any] = json.loads(json.dumps(values, default=datetime.isoformat))
    return text


def status_text(status: Status, width: int | None = None) -> str:
    """Returns the status as text, with untrusted text escaped; `width` is the terminal's, in columns."""
    tables = [[name, moment(fresh.received_at), moment(fresh.loaded_at)] for name, fresh in status.tables.items()]
    parts = [
        grid(_heading(status), width=width),
        grid([["table", "newest received (UTC)", "newest load (UTC)"], *tables]),
        _chart(status.events_per_day),
        grid(
            [
                ["rejects of the last load", _rejects_text(status)],
                ["discards", _listed(status.discards)],
                *([f"  {reason}", _listed(tables)] for reason, tables in status.beyond_limits.items()),
            ],
            width=width,
        ),
        *([campaign_lines(status.campaigns)] if status.campaigns else []),
    ]
    return "\n\n".join("\n".join(part) for part in parts)


def _heading(status: Status) -> list[list[str]]:
    lines = [["place", status.place]]
    if status.last_run:
        result = ": ".join(filter(None, (status.last_run.result, status.last_run.error)))
        lines.append(["last run", f"{_when(status.last_run.at, status.now)}: {result}"])
    else:
        lines.append(["last run", "none is known"])
    if status.last_load:
        load = status.last_load
        counts = [plural(load.files, "file")]
        numbers = {count: getattr(load, count) for count in AUDIT_COUNTS}
        counts += [
            plural(number, count[:-1]) if count in ("lines", "duplicates") else f"{number:,} {count}"
            for count, number in numbers.items()
            if number or count not in _SELDOM
        ]
        lines.append(["last load", f"{_when(load.loaded_at, status.now)}: {', '.join(counts)}"])
    if status.waiting:
        lines.append(["waiting", f"{status.waiting}, under way or cut off; the next run finishes what was cut off"])
    if status.models:
        lines.append(["models", _models_text(status.models)])
    if status.received:
        lines.append(["unpublished", _waiting(status.received.unpublished, status.now)])
        lines.append(["not loaded", _waiting(status.received.not_loaded, status.now)])
    return lines


def _models_text(models: AppliedModels) -> str:
    outdated = (*models.stale, *models.missing)
    text = f"{plural(len(models.ours), 'view')} in {models.dataset}"
    return f"{text}; out of date: {', '.join(outdated)}: run models apply" if outdated else text


def _waiting(waiting: Waiting, now: datetime) -> str:
    if waiting.oldest is None:
        return "none"
    begun = _when(waiting.oldest, now)
    return f"{plural(waiting.files, 'file')}, {plural(waiting.bytes, 'byte')}, the oldest begun {begun}"


def _chart(days: dict[date, int]) -> list[str]:
    title = "events by day received (UTC)"
    most = max(days.values())
    if not most:
        return [f"{title}: none since {min(days)}"]
    width = len(f"{most:,}")
    # A day with any events has a bar.
    return [title, *grid([[f"{day}", f"{n:,}".rjust(width), "█" * -(-BAR * n // most)] for day, n in days.items()])]


def _rejects_text(status: Status) -> str:
    """Returns the rejects by reason, and how many have no new row: a line that was read again keeps its earlier row."""
    without = (status.last_load.rejected if status.last_load else 0) - sum(status.rejects.values())
    again = f"{without:,} without a new row in {catalog.REJECTS.name}" if without > 0 else ""
    return ", ".join(filter(None, (_listed(status.rejects) if status.rejects or not again else "", again)))


def _listed(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {shortened(reason)}" for reason, count in reasons.items()) or "none"


def _when(at: datetime, now: datetime) -> str:
    return f"{moment(at)}, {'in the future' if at > now + MAX_SKEW else f'{age(now - at)} ago'}"


def age(length: timedelta) -> str:
    """Returns a time span in its one or two largest units.

    Example: `age(timedelta(hours=26)) == "1 d 2 h"`.
    """
    seconds = max(int(length.total_seconds()), 0)
    units = (("d", seconds // 86_400), ("h", seconds // 3_600 % 24), ("min", seconds // 60 % 60), ("s", seconds % 60))
    first = next((i for i, (_, number) in enumerate(units) if number), len(units) - 1)
    return " ".join(f"{number} {unit}" for unit, number in units[first : first + 2] if number) or "0 s"
