"""Runs a pipeline: opens it for a target, finishes what an earlier run left, and loads sources under a lock."""

import tempfile
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, cast

import dlt
from dlt.common.pipeline import LoadInfo
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.sources import DltSource

from . import private
from .errors import BusyError, RunError
from .explain import busy_message, error_message, explained
from .sources import isolate
from .sources import refused as refusals
from .sources.dlt_patches import patch_dlt
from .sources.load_folder import drop_files
from .sources.refused import target_of
from .sources.report import LoadReport
from .warehouses import lock, working_folder
from .warehouses.dataset import maintain
from .warehouses.delta import lake
from .warehouses.dlt_internals import (
    Collector,
    DestinationUndefinedEntity,
    FilesystemClient,
    WithStateSync,
    load_pipeline_state_from_destination,
    logger,
)
from .warehouses.dlt_internals.clients import StepCollector
from .warehouses.duckdb_open import keep_database_open
from .warehouses.pipeline_names import PIPELINE, UNFINISHED_TARGET, assign_pipeline_name, other_name, pipeline_name
from .warehouses.repair import repair_tables
from .warehouses.resolve import make_destination, resolve_target
from .warehouses.settings import TargetOptions, configure

__all__ = [
    "UNFINISHED_TARGET",
    "BusyError",
    "RunError",
    "configure",
    "explained",
    "target_of",
]


class Progress(Protocol):
    """Receives what a run reports while it works."""

    def report(self, report: LoadReport) -> None:
        """Receives the counts so far."""

    def step(self, name: str) -> None:
        """Receives the name of the step that dlt begins: extract, normalize or load."""

    def warn(self, text: str) -> None:
        """Receives a warning."""


class Steps(StepCollector):
    """dlt's progress collector that reports the steps of a run to a Progress."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def warn(self, text: str) -> None:
        """Reports a warning."""
        self._progress.warn(text)

    def begin(self, step: str) -> None:
        """Reports that a step begins."""
        self._progress.step(step)


def pipeline(
    destination: str | None = None,
    credentials: str | None = None,
    dataset: str | None = None,
    progress: Collector | None = None,
    pipelines_dir: str | None = None,
    create: bool = True,
    wait: timedelta = timedelta(),
) -> dlt.Pipeline:
    """Returns the pipeline that loads into a target: dlt's `destination` and `credentials`, and a dataset.

    Arguments that are None come from dlt's configuration (`destination_type`, `dataset_name`); the default is a DuckDB
    file in the current folder. A DuckDB file is created only with `create`. If another program has it open, each
    connection waits for up to `wait`. The pipeline of the first target is named `autopilot_events`, those of other
    targets have names of their own; in a given `pipelines_dir` the name is always `autopilot_events`. Raises RunError
    if the DuckDB file and the dataset have the same name, because DuckDB could not distinguish them.
    """
    patch_dlt()
    with explained():
        options = TargetOptions(destination, credentials, dataset)
        to, dataset_name = make_destination(options, create, wait)
        name = PIPELINE
        if pipelines_dir is None:
            target = resolve_target(options)
            name = assign_pipeline_name(str(target), target.database, wait) if create else pipeline_name(str(target))
        given: dict[str, Any] = {"progress": progress, "pipelines_dir": pipelines_dir}
        working_folder.move_unreadable_folder(name, pipelines_dir)
        opened: dlt.Pipeline = dlt.pipeline(
            name,
            destination=to,
            dataset_name=dataset_name,
            **{option: value for option, value in given.items() if value is not None},
        )
        if opened.first_run:
            private.restrict(Path(opened.working_dir))
        return opened


def run(into: dlt.Pipeline, source: DltSource | Iterable[DltSource], wait: timedelta = timedelta()) -> LoadInfo | None:
    """Finishes what an earlier run left, then loads one source or several; returns dlt's report of the last load.

    An iterable of sources yields the next one only after the previous one is loaded. If another run into the same
    target is at work, this waits for up to `wait`. Messages whose rows the destination refuses are rejected, and all
    others are loaded. Raises RunError if a load fails; nothing of that load counts as loaded.
    """
    with explained(), lock.held(into, wait.total_seconds()):
        target = target_of(into)
        if into.has_pending_data:
            left_at = into.get_local_state_val(UNFINISHED_TARGET) if _has_target(into) else target
            if left_at != target:
                raise RunError(
                    f"An unfinished load into {left_at} waits, but this run goes to {target}.\n"
                    f"Run into {left_at} first, or give it up: dlt pipeline {into.pipeline_name} abort-packages"
                )
        into.set_local_state_val(UNFINISHED_TARGET, target)
        info: LoadInfo | None = None
        with keep_database_open(into):
            repair_tables(into)
            _copy_cursors(into)
            working_folder.drop_partial_files(into)
            working_folder.drop_incomplete_packages(into)
            while into.has_pending_data:
                try:
                    into.run()
                except PipelineStepFailed as error:
                    _abort(into, error)
            for part in [source] if isinstance(source, DltSource) else source:
                info = _load(into, part)
        return info


def dry_run(target: TargetOptions, progress: Collector, source: DltSource, wait: timedelta = timedelta()) -> None:
    """Reads the source as a run would, but loads nothing; the pipeline lives in a temporary folder.

    If another program has the DuckDB file open, this waits for up to `wait`.
    """
    with explained(), tempfile.TemporaryDirectory() as folder:
        into = pipeline(*target, progress, folder, create=False, wait=wait)
        # Without this folder, a load would treat the machine as new, and remove what killed loads stored twice.
        private.folder(Path(into.working_dir, "autopilothq"))
        into.extract(source)


def is_unfinished_here(into: dlt.Pipeline) -> bool:
    """Returns whether the load that an earlier run left unfinished goes to this pipeline's target."""
    return not _has_target(into) or into.get_local_state_val(UNFINISHED_TARGET) == target_of(into)


def _has_target(into: dlt.Pipeline) -> bool:
    """Returns whether the pipeline's local state names the target of its last run."""
    try:
        return bool(into.get_local_state_val(UNFINISHED_TARGET))
    except KeyError:
        return False


def _copy_cursors(into: dlt.Pipeline) -> None:
    """Copies the cursors of scans from the pipeline's other name, if the destination has a state under it.

    That is the name that another machine uses, or that this one used before.
    """
    other = other_name(into.pipeline_name, target_of(into))
    if other is None or not into.first_run or into.has_pending_data:
        return
    into.sync_destination()
    found = None
    if into.state.get("sources"):
        return
    with into.destination_client() as client, suppress(DestinationUndefinedEntity):  # nothing was loaded there yet
        found = load_pipeline_state_from_destination(other, client) if isinstance(client, WithStateSync) else None
    if found and found.get("sources"):
        with into.managed_state() as state:
            state["sources"] = found["sources"]


def _load(into: dlt.Pipeline, source: DltSource) -> LoadInfo:
    """Loads a source. If the destination refuses rows, loads it again without them, until the rest is accepted."""
    while True:
        try:
            info = into.run(source)
        except PipelineStepFailed as error:
            _write_schemas(into)
            if not isolate.refuse_rows(into, source, error, lambda text: _warn(into, text)):
                raise
        else:
            _write_schemas(into)
            refusals.drop(into)
            drop_files(into)
            working_folder.drop_old_packages(into)
            if isinstance(into.destination, lake):
                maintain(cast(FilesystemClient, into.destination_client()))
            return info


def _write_schemas(into: dlt.Pipeline) -> None:
    """Writes the files of schemas that dlt deleted when it aborted a pipeline's first load.

    dlt does not write them again, and without them it cannot abort another load.
    """
    for name in into.schema_names:
        if not into.schemas.has_schema(name):
            into.schemas.save_schema(into.schemas[name])


def _abort(into: dlt.Pipeline, error: PipelineStepFailed) -> None:
    """Aborts load packages of an earlier run that cannot be loaded, so that their data is read again.

    Raises `error` itself if the destination is only busy.
    """
    if busy_message(error):
        raise error
    into.abort_packages()
    why = error_message(error).partition("\n")[0]
    _warn(into, f"What an earlier run left cannot be loaded, and is set aside; this run reads it again. {why}")


def _warn(into: dlt.Pipeline, text: str) -> None:
    if isinstance(into.collector, Steps):
        into.collector.warn(text)
    else:
        logger.warning(text)
