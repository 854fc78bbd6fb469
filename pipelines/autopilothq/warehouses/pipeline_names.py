"""Names of dlt's pipelines: each target has a pipeline of its own, which keeps its state.

The first target of a machine has the pipeline `autopilot_events`. Others have `autopilot_events_` and a digest of the
target. A note next to the working folder of each pipeline names its target: dlt does not remove that note when it drops
the folder (`dlt pipeline NAME sync`). It also names the DuckDB file, which dlt's own commands do not know.
"""

import json
import os
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from dlt.common.pipeline import get_dlt_pipelines_dir
from filelock import FileLock, Timeout

from .. import disk, private
from ..errors import BusyError

PIPELINE = "autopilot_events"
NAMING_TIME = 10.0  # seconds; a name is chosen within milliseconds
UNFINISHED_TARGET = "autopilothq_unfinished_at"
"""The key of the target in dlt's local state."""
PACKAGES = ("normalize/extracted", "load/normalized")
"""The folders below a pipeline's working folder in which load packages wait."""


def pipelines_dir() -> Path:
    """Returns the folder of dlt's pipelines, which need not exist yet.

    Raises private.FolderNotOwned if another user prepared it: dlt would load that user's pickled objects from there.
    """
    folder = Path(get_dlt_pipelines_dir())
    private.check_own(folder)
    return folder


def pipeline_name(target: str) -> str:
    """Returns the name of a target's pipeline; if it has none yet, the name that it would get.

    Example: `autopilot_events`, or `autopilot_events_1f3a9c2b` if the former is another target's.
    """
    own = _own_name(target)
    known = next((name for name in (own, PIPELINE) if _target_of_pipeline(name) == target), None)
    return known or (PIPELINE if _target_of_pipeline(PIPELINE) is None and _default_name_is_free(target) else own)


def other_name(name: str, target: str) -> str | None:
    """Returns the other of the two names that a target's pipeline may have, for example on another machine.

    Returns None if `name` is neither of them.
    """
    return {PIPELINE: _own_name(target), _own_name(target): PIPELINE}.get(name)


def _own_name(target: str) -> str:
    return f"{PIPELINE}_{sha256(target.encode()).hexdigest()[:8]}"


def assign_pipeline_name(target: str, database: str | None, wait: timedelta = timedelta()) -> str:
    """Assigns a pipeline to a target permanently, and returns its name; `database` is the path of its DuckDB file.

    If another first run is choosing its name, waits for it, up to `wait` or NAMING_TIME, whichever is longer.
    Raises BusyError if that run has not chosen one by then.
    """
    folder = private.folder(pipelines_dir())
    path = folder / f".{PIPELINE}.lock"
    try:
        with FileLock(path, max(wait.total_seconds(), NAMING_TIME), mode=private.FILE_MODE):
            name = pipeline_name(target)
            note = {"place": target, "database": database}
            if _read(_note(folder / name)) != note:
                with disk.rewriting(_note(folder / name), "w") as file:
                    json.dump(note, file)
            return name
    except Timeout:
        raise BusyError(
            f"Another run holds {path}, and makes no progress: it was suspended, or its disk does not respond.\n"
            f"Continue or end it (fuser {path} shows its process), or wait for it: --wait 10m"
        ) from None


def _target_of_pipeline(name: str) -> str | None:
    """Returns the target that a pipeline loads into, None if no note has it."""
    folder = pipelines_dir() / name
    local = _read(folder / "state.json").get("_local")
    return _read(_note(folder)).get("place") or (local or {}).get(UNFINISHED_TARGET)


def database_of(working_dir: str) -> str | None:
    """Returns the DuckDB file that the pipeline of a working folder loads into, None if that was not noted."""
    return _read(_note(Path(working_dir))).get("database")


def package_folders(folder: Path) -> list[Path]:
    """Returns the load packages that wait in a pipeline's working folder: a folder each."""
    return [package for packages in PACKAGES for package in sorted((folder / packages).glob("*/"))]


def _default_name_is_free(target: str) -> bool:
    """Returns whether `autopilot_events` is unused, or was created from Python in this folder for this target."""
    folder = pipelines_dir() / PIPELINE
    state = _read(folder / "state.json")
    if not state.get("schema_names") and not package_folders(folder):
        return True
    here = state.get("_local", {}).get("initial_cwd")
    kind = str(state.get("destination_type")).rpartition(".")[2].replace("direct", "duckdb")
    if here != os.getcwd() or not target.startswith(f"{kind} "):
        return False
    if not target.endswith(f", dataset {state['dataset_name']}"):
        return False
    file = Path(here, f"{PIPELINE}.duckdb")  # dlt's default name
    return kind != "duckdb" or str(file) in target or not file.exists()


def _note(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.place")


def _read(path: Path) -> dict[str, Any]:
    """Returns the content of a JSON file, or an empty dict if it is missing or cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
