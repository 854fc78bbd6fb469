"""Autopilot's email events every day, in Airflow 3: the run's data interval chooses the days of the archive.

Copy it into the DAG folder; workers need this project, with the extras of your archive and destination. If its packages
conflict with Airflow's, give it an environment of its own and start `autopilothq load archive` in a BashOperator, with
`DLT_INTERVAL_START={{ data_interval_start }}` and `DLT_INTERVAL_END={{ data_interval_end }}` in its `env`. Set
`append_env=True`, too, or it gets no other settings.

Settings are dlt's: in the workers' environment (`DESTINATION_TYPE=postgres`, `SOURCES__AUTOPILOTHQ__ARCHIVE_URL=s3://...`),
secrets in Airflow's variable `dlt_secrets_toml`, which holds what `.dlt/secrets.toml` would. No disk needs to persist,
because the destination knows what is loaded.
"""

from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException
from airflow.timetables.interval import CronDataIntervalTimetable

# If more lines are rejected, the task fails. Otherwise nobody would hear of a file that is damaged or cannot be read.
# If a few lines are always rejected, such as Segment's own deletions, raise the number.
MAX_REJECTS = 0


@dag(
    # Two hours after midnight, because the last files of a day come a little after it. An interval then touches two
    # days; files that are loaded already are skipped. With `schedule="@daily"`, Airflow 3 gives only a time.
    schedule=CronDataIntervalTimetable("0 2 * * *", timezone="UTC"),
    # The backfill has a run for each day since then. If it spans a year or more, load it by hand: one run is quicker.
    start_date=pendulum.datetime(2019, 3, 1, tz="UTC"),
    catchup=True,
    # Two runs at once would be safe, because the second waits for the lock, but it would occupy a worker.
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5), "retry_exponential_backoff": True},
)
def autopilothq() -> None:
    """Loads the archive, in a DAG of one task."""

    @task
    def load() -> dict[str, Any]:
        """Loads the days of the interval, and returns the counts as the task's XCom."""
        # Imported here and not above, because the scheduler reads this file every few seconds.
        import os
        from dataclasses import asdict

        from autopilothq import LoadReport, archive, runner

        os.umask(0o077)  # the task has a process of its own, and what it writes may name people
        reports = [LoadReport()]
        wait = timedelta(minutes=30)  # for a run by hand; after that, RunError (exit status 75), and Airflow retries
        runner.configure()
        runner.run(runner.pipeline(wait=wait), archive(progress=reports.append), wait)
        report = reports[-1]
        rejected = report.rejected - report.rejects.get("suppressed", 0)  # messages of deleted persons do not count
        if rejected > MAX_REJECTS:
            # Everything else is loaded, and a retry would find nothing more, so a person has to look.
            why = f"{rejected:,} rejected, more than {MAX_REJECTS:,}; the rest is loaded: {report.rejects}"
            raise AirflowFailException(why)
        return asdict(report)

    load()


autopilothq()
