"""The whole suite passes with the oldest supported release of dlt; `make test` runs it with the newest.

The first call creates the environment `build/dlt-VERSION`. The suite takes as long there as `make test` does.
"""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def oldest() -> str:
    """Returns the oldest version of dlt that pyproject.toml allows."""
    wanted = next(one for one in map(Requirement, PYPROJECT["project"]["dependencies"]) if one.name == "dlt")
    [version] = (one.version for one in wanted.specifier if one.operator == ">=")
    return version


def test_the_suite_passes_with_the_oldest_dlt(tmp_path: Path) -> None:
    home = ROOT / "build" / f"dlt-{oldest()}"
    python = home / "bin" / "python"
    if not (home / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        # All packages except dlt in the versions that were tested together.
        others = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("dlt==")]
        constraints = tmp_path / "constraints.txt"
        constraints.write_text("\n".join([*others, f"dlt=={oldest()}.*"]))
        install: list[str | Path] = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--constraint",
            constraints,
        ]
        subprocess.run([*install, "--editable", f"{ROOT}[dev]"], check=True)
        (home / "done").touch()
    # The suite must not get this test's settings, which are in the folder and in the environment.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("DLT_", "PYTEST_", "RUNTIME__"))}
    suite: list[str | Path] = [
        python,
        "-m",
        "pytest",
        "-q",
        "--numprocesses",
        "auto",
        "--dist",
        "loadfile",
        "--no-loadscope-reorder",
    ]
    done = subprocess.run(suite, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:]
