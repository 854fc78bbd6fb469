"""Started by check_recipes.py with Airflow's Python: runs the recipe's DAG for intervals that end at given times."""

import json
import sys
from datetime import datetime
from typing import Any

from airflow.dag_processing.dagbag import DagBag


def ran(dag: Any, end: datetime) -> dict[str, Any]:
    run = dag.test(logical_date=end)
    (task,) = run.get_task_instances()
    return {
        "interval": [run.data_interval_start.isoformat(), run.data_interval_end.isoformat()],
        "state": [run.state, task.state],
        "xcom": task.xcom_pull(task_ids=task.task_id),
    }


def main() -> None:
    bag = DagBag(sys.argv[1])
    dag = bag.dags["autopilothq"]
    known = {
        "errors": bag.import_errors,
        "dag": [dag.catchup, dag.max_active_runs, dag.start_date.isoformat(), [task.retries for task in dag.tasks]],
        "runs": [ran(dag, datetime.fromisoformat(end)) for end in sys.argv[2:]],
    }
    sys.stdout.write("\n" + json.dumps(known))


main()
