"""Loads on a real Dask cluster and on Ray make the same tables as one process, whatever happens to the workers.

The first call creates their environment, `build/engines`.
"""

import os
import subprocess
from pathlib import Path

import pytest

from environments import environment

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_the_tables_are_those_of_one_process(tmp_path: Path, engine: str) -> None:
    programs = environment(
        ROOT / "build" / "engines",
        "--editable",
        f"{ROOT}[dev,dask,ray]",
        constraint=ROOT / "constraints.txt",
    )
    # Otherwise Ray would report its use, require authentication on this machine, and lower its workers' priority.
    env = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
    env["RAY_raylet_start_wait_time_s"] = "120"  # on a busy machine
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "pipelines"), str(ROOT / "tests")])
    program = ROOT / "tests" / "checks" / "run_engines.py"

    done = subprocess.run(
        [programs / "python", program, engine, tmp_path], env=env, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, (done.stdout + done.stderr)[-5_000:]
