"""Everything is installed by its hash: the lock files, their sources, and the commands that install from them."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKS = {"requirements.lock": ["postgres", "s3"], "requirements-dev.lock": ["dev", "deltalake", "sqlalchemy"]}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ENTRY = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)(?P<marker> ; [^\\\n]+)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n"
)


def constraints() -> dict[str, str]:
    pinned = re.findall(r"^([^#\s]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pinned}


def locked(lock: str) -> dict[str, str]:
    """Returns the versions in a lock; checks that each line belongs to an entry with hashes."""
    text = "".join(line for line in (ROOT / lock).read_text().splitlines(keepends=True) if not line.startswith("#"))
    entries = list(ENTRY.finditer(text))
    assert "".join(entry[0] for entry in entries) == text
    return {entry["name"]: entry["version"] for entry in entries}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_the_versions_of_the_constraints(lock: str) -> None:
    versions = locked(lock)
    assert versions.items() - constraints().items() == set()
    assert {"dlt", "duckdb", "filelock", "hatchling", "editables"} <= versions.keys()


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_what_the_project_needs(lock: str) -> None:
    project = PROJECT["project"]
    wanted = [*project["dependencies"], *PROJECT["dependency-groups"]["build"]]
    wanted += [each for extra in LOCKS[lock] for each in project["optional-dependencies"][extra]]
    versions = locked(lock)
    needs = [need for need in map(Requirement, wanted) if need.name != project["name"]]
    assert [
        str(need) for need in needs if not need.specifier.contains(versions.get(canonicalize_name(need.name), "0"))
    ] == []


@pytest.mark.parametrize("goal", ["setup", "demo"])
def test_make_installs_by_a_lock_alone(goal: str, tmp_path: Path) -> None:
    made = subprocess.run(
        ["make", "--dry-run", goal, f"VENV={tmp_path}/venv"], cwd=ROOT, capture_output=True, text=True, check=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
    )  # fmt: skip
    installs = [
        line.partition("--disable-pip-version-check ")[2]
        for line in made.stdout.splitlines()
        if " pip install " in line
    ]
    lock = "requirements-dev.lock" if goal == "setup" else "requirements.lock"
    assert installs == [f"--require-hashes --requirement {lock}", "--no-deps --no-build-isolation --editable ."]


def test_another_file_than_the_locked_one_is_not_installed(tmp_path: Path) -> None:
    """pip refuses a wheel whose bytes are not those of the lock."""
    (tmp_path / "wheels").mkdir()
    wheel = tmp_path / "wheels" / "editables-0.6-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("editables-0.6.dist-info/METADATA", "Metadata-Version: 2.1\nName: editables\nVersion: 0.6\n")
        file.writestr("editables-0.6.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("editables-0.6.dist-info/RECORD", "")
    entry = next(
        entry[0] for entry in ENTRY.finditer((ROOT / "requirements.lock").read_text()) if entry["name"] == "editables"
    )
    (tmp_path / "locked").write_text(entry)
    (tmp_path / "own").write_text(f"editables==0.6 --hash=sha256:{sha256(wheel.read_bytes()).hexdigest()}\n")

    pip = [sys.executable, "-m", "pip", "--isolated", "install", "--disable-pip-version-check", "--no-index"]
    pip += [
        "--find-links",
        str(tmp_path / "wheels"),
        "--dry-run",
        "--ignore-installed",
        "--require-hashes",
        "--requirement",
    ]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    tried = [
        subprocess.run([*pip, tmp_path / lock], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
        for lock in ("own", "locked")
    ]
    assert [done.returncode for done in tried] == [0, 1]
    assert "DO NOT MATCH THE HASHES" in tried[1].stderr
