"""Which of dlt's pipelines keeps the state of a place: each place has one of its own.

The first place of a machine has the pipeline `autopilot_events`. Another place has `autopilot_events_` and a digest of
the place. A note beside the working folder of each says whose it is: dlt leaves that alone when it drops the folder
(`dlt pipeline NAME sync`), and it holds the path of a DuckDB file, which dlt's own commands could not know.
"""

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

from dlt.common.pipeline import get_dlt_pipelines_dir
from filelock import FileLock

from .. import private

PIPELINE = "autopilot_events"
UNFINISHED_TARGET = "autopilothq_unfinished_at"
"""Where in dlt's local state the place is that the pipeline loads into."""
_PENDING = ("normalize/extracted/*", "load/normalized/*")


def pipelines_dir() -> Path:
    """The folder of dlt's pipelines, which need not be there yet.

    Raises private.FolderNotOwned where another user prepared it: dlt would take that user's pickled objects from there.
    """
    folder = Path(get_dlt_pipelines_dir())
    private.check_own(folder)
    return folder


def pipeline_name(place: str) -> str:
    """The name of the pipeline that has the state of a place, or would have it.

    Example: `autopilot_events`, or `autopilot_events_1f3a9c2b` where that one is another place's.
    """
    own = _own(place)
    known = next((name for name in (own, PIPELINE) if target_of_pipeline(name) == place), None)
    return known or (PIPELINE if target_of_pipeline(PIPELINE) is None and _may_take(place) else own)


def other_name(name: str, place: str) -> str | None:
    """The name that the place's pipeline may have on another machine, None for a pipeline that has neither name."""
    return {PIPELINE: _own(place), _own(place): PIPELINE}.get(name)


def _own(place: str) -> str:
    return f"{PIPELINE}_{sha256(place.encode()).hexdigest()[:8]}"


def claim_pipeline_name(place: str, database: str | None) -> str:
    """Gives a place the pipeline that it has from now on, and returns its name; `database`: its DuckDB file."""
    folder = private.folder(pipelines_dir())
    with FileLock(folder / f".{PIPELINE}.lock", mode=private.FILE_MODE):  # two first runs, in two folders
        name = pipeline_name(place)
        note = {"place": place, "database": database}
        if _read(_note(folder / name)) != note:
            new = folder / f".{name}.new"
            with private.opened(new, "w") as file:
                json.dump(note, file)
            os.replace(new, _note(folder / name))
        return name


def target_of_pipeline(name: str) -> str | None:
    """The place that a pipeline loads into, None where this package did not note one."""
    folder = pipelines_dir() / name
    local = _read(folder / "state.json").get("_local")
    return _read(_note(folder)).get("place") or (local or {}).get(UNFINISHED_TARGET)


def database_of(working_dir: str) -> str | None:
    """The DuckDB file that the pipeline of a working folder loads into, None where that was not noted."""
    return _read(_note(Path(working_dir))).get("database")


def _may_take(place: str) -> bool:
    """Whether `autopilot_events` is nobody's; one made in Python, in this folder, for the same kind of place counts."""
    folder = pipelines_dir() / PIPELINE
    state = _read(folder / "state.json")
    if not state.get("schema_names") and not any(any(folder.glob(pending)) for pending in _PENDING):
        return True
    here = state.get("_local", {}).get("initial_cwd")
    kind = str(state.get("destination_type")).rpartition(".")[2].replace("direct", "duckdb")
    mine = here == os.getcwd() and place.startswith(f"{kind} ") and place.endswith(f", dataset {state['dataset_name']}")
    # What dlt calls the file where nobody does.
    file = Path(str(here), f"{PIPELINE}.duckdb")
    return mine and (kind != "duckdb" or str(file) in place or not file.exists())


def _note(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.place")


def _read(path: Path) -> dict[str, Any]:
    """A file of JSON, empty where it is not there or not readable."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
