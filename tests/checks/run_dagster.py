"""Started by check_recipes.py with Dagster's Python: materializes the recipe's assets, prints what Dagster knows."""

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from autopilothq import runner
from autopilothq.warehouses import lock

sys.path.insert(0, str(Path(__file__).parents[2] / "pipelines" / "recipes"))
import dagster_assets as recipe

PARTITION = "dagster/partition"
RANGE = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def materialized(asset: Any, instance: dg.DagsterInstance, **tags: str) -> dict[str, Any]:
    done = dg.materialize([asset], instance=instance, tags=tags, partition_key=tags.get(PARTITION))
    (event, *_) = done.asset_materializations_for_node(asset.key.path[-1])
    return {name: value.value for name, value in event.metadata.items()}


def failed(asset: Any, instance: dg.DagsterInstance, **tags: str) -> dict[str, Any]:
    done = dg.materialize([asset], instance=instance, tags=tags, raise_on_error=False)
    retries = [event for event in done.all_events if event.is_step_up_for_retry]
    failure = done.failure_data_for_node(asset.key.path[-1])
    assert failure is not None
    assert failure.user_failure_data is not None
    metadata = {name: value.value for name, value in failure.user_failure_data.metadata.items()}
    return {"why": failure.user_failure_data.description, "retries": len(retries), **metadata}


def busy() -> str:
    """Returns the error that the asset raises while another run is at work."""
    recipe.WAIT = timedelta()
    with lock.held(runner.pipeline(), 0):
        try:
            recipe.load()
        except runner.BusyError as error:
            return str(error).splitlines()[0]
    return "nothing"


def main() -> None:
    with dg.instance_for_test() as instance:
        days = recipe.autopilothq_days
        fourth_and_fifth = dict(zip(RANGE, ("2019-03-04", "2019-03-05"), strict=True))
        known: dict[str, Any] = {
            "day": materialized(days, instance, **{PARTITION: "2019-03-03"}),
            "failed": failed(days, instance, **fourth_and_fifth),
            "range": materialized(days, instance, **fourth_and_fifth),
            "hourly": materialized(recipe.autopilothq, instance),
            "partitions": sorted(instance.get_materialized_partitions(days.key)),
        }
        tick = recipe.hourly.evaluate_tick(
            dg.build_schedule_context(instance, repository_def=recipe.defs.get_repository_def())
        )
        known["requests"] = len(tick.run_requests or [])
        known["schedules"] = [schedule.cron_schedule for schedule in recipe.defs.get_repository_def().schedule_defs]
    known["busy"] = busy()
    sys.stdout.write("\n" + json.dumps(known))


main()
