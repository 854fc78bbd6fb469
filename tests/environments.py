"""Virtual environments for programs that cannot share the one of the tests."""

import subprocess
import sys
from pathlib import Path


def environment(home: Path, *packages: str, constraint: Path | None = None) -> Path:
    """Returns the folder of programs (`bin`) in the environment at `home`, which has `packages`.

    Creates the environment if it is missing or has other packages, which takes a minute or more. `constraint` is a file
    that pins the versions of packages.
    """
    wanted = "\n".join(packages)
    done = home / "done"
    if not done.exists() or done.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        if packages:
            pip = (
                home / "bin" / "python",
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-compile",
                "--disable-pip-version-check",
            )
            constrained = ("--constraint", constraint) if constraint else ()
            subprocess.run([*pip, *constrained, *packages], check=True)
        done.write_text(wanted)
    return home / "bin"


def dbt_program(home: Path) -> Path:
    """Returns the path of dbt, in an environment of its own, because it needs another pathspec than the tools here."""
    # From 1.12 on, dbt-core fetches a part of itself from elsewhere when it is installed.
    return environment(home, "dbt-core>=1.10,<1.12", "dbt-duckdb", "dbt-postgres", "duckdb<2") / "dbt"
