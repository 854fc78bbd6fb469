"""What the machine lets this process use."""

import os
from contextlib import suppress
from math import ceil
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def cores(cgroups: Path = _CGROUPS) -> int:
    """Returns how many processor cores this process may use, at least 1: its affinity, and a container's limit."""
    affinity = getattr(os, "sched_getaffinity", None)
    available = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(available, _container_limit(cgroups) or available))


def _container_limit(cgroups: Path) -> int | None:
    """Returns the cores that a container may keep busy, as either version of cgroups has it; None: no limit."""
    with suppress(OSError, ValueError):
        quota, period = (cgroups / "cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else ceil(int(quota) / int(period))
    with suppress(OSError, ValueError):
        quota, period = (
            (cgroups / "cpu" / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period")
        )
        return None if int(quota) < 0 else ceil(int(quota) / int(period))
    return None
