"""The number of cores is what the process may use, not what the machine has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autopilothq import machine

ASK = "from autopilothq.machine import cores; print(cores())"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_process_bound_to_one_core_has_one() -> None:
    (core, *_) = os.sched_getaffinity(0)
    program = f"import os; os.sched_setaffinity(0, [{core}]); {ASK}"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    asked = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert asked.stdout == "1\n"


@pytest.mark.parametrize("limit", ["50000 100000", "100000 100000"])
def test_a_container_with_a_core_or_half_of_one_has_one(tmp_path: Path, limit: str) -> None:
    (tmp_path / "cpu.max").write_text(f"{limit}\n")
    assert machine.cores(tmp_path) == 1


def test_a_container_of_the_first_version_of_cgroups_has_its_limit_too(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("90000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert machine.cores(tmp_path) == 1


@pytest.mark.parametrize("limit", ["max 100000", "900000000 1000", None])
def test_without_a_limit_the_cores_are_those_of_the_machine(tmp_path: Path, limit: str | None) -> None:
    if limit:
        (tmp_path / "cpu.max").write_text(f"{limit}\n")
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert machine.cores(tmp_path) == available
