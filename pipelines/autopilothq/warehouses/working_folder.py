"""Keeps dlt's working folder of a pipeline readable and small.

A folder that dlt cannot read is set aside, and the run begins without it. Nothing is lost with the folder, and nothing
is stored twice: dlt takes its state and schemas from the destination, `_audit` has the files that are loaded, and what
a killed load left unfinished is read again.
"""

import logging
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dlt
import semver
from dlt import Schema
from dlt.common.pipeline import get_dlt_pipelines_dir
from filelock import FileLock, Timeout

from .. import private
from .dlt_internals import (
    LOAD_PACKAGE_STATE_ENGINE_VERSION,
    PIPELINE_STATE_ENGINE_VERSION,
    PackageStorage,
    ParsedLoadJobFileName,
    json,
    json_decode_state,
    migrate_load_package_state,
    migrate_pipeline_state,
)
from .dlt_internals.clients import take_folders_literally
from .pipeline_names import PACKAGES, package_folders

VERSIONED = ("normalize/.version", "load/.version")
KEPT_PACKAGES = 100  # finished load packages of a pipeline: each takes 110 kB, 1 GB in a year of hourly loads

_log = logging.getLogger(__name__)


def move_unreadable_folder(name: str, pipelines_dir: str | None = None) -> None:
    """Moves the working folder of a pipeline aside if dlt could not read it, with a warning.

    Does nothing while a run uses the folder.
    """
    take_folders_literally()
    folder = Path(pipelines_dir or get_dlt_pipelines_dir(), name)
    if unreadable(folder) is None:
        return
    try:
        with FileLock(f"{folder.absolute()}.lock", timeout=0, mode=private.FILE_MODE):
            found = unreadable(folder)
            if found is not None:
                moved = folder.with_name(f"{name}.unreadable-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}")
                folder.rename(moved)
                _log.warning(
                    "dlt's %s cannot be read (%s). Its folder is set aside as %s, and the run goes on with what the"
                    " destination knows: nothing is lost or stored twice. Delete that folder: it may contain rows.",
                    *found,
                    moved,
                )
    except Timeout:
        return


def drop_partial_files(pipeline: dlt.Pipeline) -> None:
    """Deletes files that a killed process left half-written in packages that are not loaded yet.

    dlt gives a file its final name once it is complete. It cannot parse other names, so every later load would fail.
    """
    for package in package_folders(Path(pipeline.working_dir)):
        for path in package.glob("*_jobs/*"):
            try:
                ParsedLoadJobFileName.parse(path.name)
            except ValueError:
                path.unlink()


def drop_incomplete_packages(pipeline: dlt.Pipeline) -> None:
    """Deletes the packages that a killed or failed process left incomplete, with their rows.

    dlt gives each extraction a new folder, and never reads an earlier one.
    """
    working = Path(pipeline.working_dir)
    for folder in (*working.glob("normalize/*/"), *working.glob("load/new/*/")):
        if folder != working / PACKAGES[0]:
            shutil.rmtree(folder, ignore_errors=True)


def drop_old_packages(pipeline: dlt.Pipeline) -> None:
    """Deletes finished load packages except the newest KEPT_PACKAGES, because dlt keeps all of them.

    dlt uses them only to show them (`dlt pipeline NAME load-package`). Those of aborted loads have rows.
    """
    finished = Path(pipeline.working_dir, "load", "loaded")
    for load_id in pipeline.list_completed_load_packages()[:-KEPT_PACKAGES]:
        shutil.rmtree(finished / load_id, ignore_errors=True)


def unreadable(folder: Path) -> tuple[Path, str] | None:
    """Returns the first file of a working folder that dlt could not read, with the reason; None if it can read all."""
    for path, read in _files(folder):
        try:
            read(path.read_text(encoding="utf-8"))
        except (IsADirectoryError, NotADirectoryError, FileNotFoundError) as error:
            return path, str(error.strerror)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it
            return path, f"{type(error).__name__}: {error}".partition("\n")[0]
    return None


def _files(folder: Path) -> Iterator[tuple[Path, Callable[[str], Any]]]:
    """Yields the files that dlt reads, each with the function that parses it."""
    state = folder / "state.json"
    schemas = sorted(folder.glob("schemas/*.schema.json"))
    if state.exists():
        yield state, _state
        names = _state(state.read_text(encoding="utf-8"))["schema_names"]
        named = (folder / "schemas" / f"{name}.schema.json" for name in names)
        schemas = sorted({*schemas, *named})
    for path in schemas:
        yield path, _schema
    for version in VERSIONED:
        if (folder / version).exists():
            yield folder / version, semver.Version.parse
    for package in package_folders(folder):
        yield package / PackageStorage.SCHEMA_FILE_NAME, _schema
        for path in sorted(package.glob("*.json")):
            yield path, _PACKAGE.get(path.name, json.loads)
        for path in sorted((package / PackageStorage.RESTORE_FOLDER).glob("**/*.json")):
            yield path, _state if path.name == PackageStorage.RESTORE_STATE_FILE_NAME else _schema


def _state(text: str) -> Any:
    state: Any = json_decode_state(text)
    state = migrate_pipeline_state("", state, state["_state_engine_version"], PIPELINE_STATE_ENGINE_VERSION)
    return {**state, "_local": {**state["_local"]}, "schema_names": [*state["schema_names"]]}


def _schema(text: str) -> Schema:
    return Schema.from_dict(json.loads(text), validate_schema=False)


def _package_state(text: str) -> Any:
    state = json_decode_state(text)
    return migrate_load_package_state(state, state["_state_engine_version"], LOAD_PACKAGE_STATE_ENGINE_VERSION)


_PACKAGE: dict[str, Callable[[str], Any]] = {
    PackageStorage.SCHEMA_FILE_NAME: _schema,
    PackageStorage.LOAD_PACKAGE_STATE_FILE_NAME: _package_state,
}
