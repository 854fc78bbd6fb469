"""Virtual environments for programs that cannot share that of the tests."""

import subprocess
import sys
from pathlib import Path


def environment(home: Path, *packages: str, constraint: Path | None = None) -> Path:
    """The folder of the programs of an environment in `home` that has `packages`.

    It is made where it is not there yet or has other packages, which takes a minute or more. No package's version is
    other than `constraint`, a file, says.
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
    """dbt with its adapters of DuckDB and PostgreSQL, whose pathspec is not that of the development tools."""
    # From 1.12 on dbt-core fetches a part of itself from elsewhere when it is installed.
    return environment(home, "dbt-core>=1.10,<1.12", "dbt-duckdb", "dbt-postgres", "duckdb<2") / "dbt"
