"""Autopilot's email events in Dagster: one asset loads what is new, every hour; the other loads the days you choose.

`dagster dev -f dagster_assets.py` shows them; the environment needs this project, with the extras of your archive and
destination. Settings and secrets are dlt's, in the environment of Dagster's processes (`DESTINATION_TYPE=postgres`,
`SOURCES__AUTOPILOTHQ__ARCHIVE_URL=s3://...`, `DESTINATION__POSTGRES__CREDENTIALS=...`). The destination knows what is
loaded, so no disk needs to persist, and both assets may be used side by side.
"""

import os
from datetime import timedelta
from typing import Any

import dagster as dg

from autopilothq import LoadReport, archive, runner

# How long to wait for another run. After that comes a RunError (exit status 75 of the command), and Dagster retries.
WAIT = timedelta(minutes=30)
RETRIES = dg.RetryPolicy(max_retries=3, delay=300, backoff=dg.Backoff.EXPONENTIAL)

# If more lines are rejected, the run fails. Otherwise nobody would hear of a file that is damaged or cannot be read.
# If a few lines are always rejected, such as Segment's own deletions, raise the number.
MAX_REJECTS = 0


def load(**days: Any) -> dg.MaterializeResult:
    """Loads once. The counts are the metadata of the materialization, or of the failure."""
    os.umask(0o077)  # a run has a process of its own, and what it writes may name people
    reports = [LoadReport()]
    runner.configure()
    runner.run(runner.pipeline(wait=WAIT), archive(progress=reports.append, **days), WAIT)
    report = reports[-1]
    rows = {f"rows/{table}": number for table, number in report.rows.items()}
    rejects = {f"rejects/{reason}": lines for reason, lines in report.rejects.items()}
    counts = {"lines": report.lines, "stored": report.stored, "duplicates": report.duplicates}
    metadata = counts | {"rejected": report.rejected} | rows | rejects
    rejected = report.rejected - report.rejects.get("suppressed", 0)  # messages of deleted persons do not count
    if rejected > MAX_REJECTS:
        # Everything else is loaded, and a retry would find nothing more, so a person has to look.
        why = f"{rejected:,} rejected, more than {MAX_REJECTS:,}; the rest is loaded"
        raise dg.Failure(why, metadata=metadata, allow_retries=False)
    return dg.MaterializeResult(metadata=metadata)


@dg.asset(retry_policy=RETRIES)
def autopilothq() -> dg.MaterializeResult:
    """Loads the email events up to now."""
    return load()


@dg.asset(
    partitions_def=dg.DailyPartitionsDefinition(start_date="2019-03-01"),
    # Several days are one run, not a run for each.
    backfill_policy=dg.BackfillPolicy.single_run(),
    retry_policy=RETRIES,
)
def autopilothq_days(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Loads the email events in the archive's folders of some days (UTC)."""
    days = context.partition_key_range
    return load(since=days.start, until=days.end)


hourly = dg.ScheduleDefinition(
    name="autopilothq_hourly",
    target=autopilothq,
    cron_schedule="17 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

defs = dg.Definitions(assets=[autopilothq, autopilothq_days], schedules=[hourly])
