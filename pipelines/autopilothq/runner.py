"""One run of a pipeline: where it goes, what was left undone, what went wrong in words for a person."""

import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import dlt
from dlt.common.configuration.exceptions import ConfigFieldMissingException
from dlt.common.exceptions import MissingDependencyException
from dlt.common.pipeline import LoadInfo
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.sources import DltSource

from . import private
from .errors import AutopilothqError, BusyError, RunError
from .masking import masked
from .sources import isolate
from .sources import refused as refusals
from .sources.load import LoadReport, drop_files
from .sources.refused import target_of
from .warehouses import lock, requirements, working_folder
from .warehouses.dlt_internals import (
    Collector,
    DatabaseException,
    DestinationUndefinedEntity,
    StepCollector,
    UnknownDestinationModule,
    WithStateSync,
    active,
    load_pipeline_state_from_destination,
    logger,
    remember_hints,
    reread_changed_schemas_alone,
    write_traces_quickly,
)
from .warehouses.duckdb import kept_open
from .warehouses.pipeline_names import PIPELINE, claim_pipeline_name, other_name, pipeline_name
from .warehouses.pipeline_names import UNFINISHED_TARGET as UNFINISHED_AT
from .warehouses.repair import repair_tables
from .warehouses.resolve import DATASET, DUCKDB_FILE, Target, make_destination, resolve_target, setting

__all__ = [
    "DATASET",
    "DUCKDB_FILE",
    "PIPELINE",
    "UNFINISHED_AT",
    "BusyError",
    "RunError",
    "Target",
    "pipeline_name",
    "resolve_target",
    "setting",
    "target_of",
]

# What .dlt/config.toml of this project says, for folders that have no such file.
DEFAULTS: dict[str, Any] = {
    "runtime.dlthub_telemetry": False,
    "load.truncate_staging_dataset": True,
    "load.auto_abort_on_terminal_error": True,
    "load.delete_completed_jobs": True,
}


class Progress(Protocol):
    """What a run tells while it goes on."""

    def report(self, report: LoadReport) -> None:
        """The counts so far."""

    def step(self, name: str) -> None:
        """dlt's step begins: extract, normalize, load."""

    def warn(self, text: str) -> None:
        """Something that a person should know of."""


def configure(**more: Any) -> None:
    """Sets what dlt's configuration leaves open: DEFAULTS and `more`, dots in names as `__`."""
    for key, value in (DEFAULTS | {name.replace("__", "."): value for name, value in more.items()}).items():
        if dlt.config.get(key) is None:
            dlt.config[key] = value
    active().initialize_runtime()


class Steps(StepCollector):
    """dlt's progress, of which a watch is told the steps."""

    def __init__(self, watch: Progress) -> None:
        self._watch = watch

    def warn(self, text: str) -> None:
        """Passes a warning on."""
        self._watch.warn(text)

    def begin(self, step: str) -> None:
        """Passes a step on."""
        self._watch.step(step)


def pipeline(
    destination: str | None = None,
    credentials: str | None = None,
    dataset: str | None = None,
    progress: Collector | None = None,
    pipelines_dir: str | None = None,
    create: bool = True,
    wait: timedelta = timedelta(),
) -> dlt.Pipeline:
    """The pipeline of a place: into `destination` (dlt's name for it) with dlt's meaning of `credentials`.

    What is None comes from dlt's configuration (`destination_type`, `dataset_name`), and else is a DuckDB file in the
    current folder, which is not created unless `create`, and is waited for, up to `wait`, where another program
    has it open. The first place has the pipeline `autopilot_events`, others a name of their own; in a `pipelines_dir`
    of its own it always is `autopilot_events`. Raises RunError where DuckDB could not tell the file from the dataset.
    """
    remember_hints()
    reread_changed_schemas_alone()
    write_traces_quickly()
    with explained():
        into, dataset_name = make_destination(destination, credentials, dataset, create, wait)
        name = PIPELINE
        if pipelines_dir is None:
            goal = resolve_target(destination, credentials, dataset)
            name = claim_pipeline_name(str(goal), goal.database) if create else pipeline_name(str(goal))
        options: dict[str, Any] = {"progress": progress, "pipelines_dir": pipelines_dir}
        working_folder.set_aside_unreadable(name, pipelines_dir)
        made: dlt.Pipeline = dlt.pipeline(
            name,
            destination=into,
            dataset_name=dataset_name,
            **{option: value for option, value in options.items() if value is not None},
        )
        if made.first_run:
            private.narrow(Path(made.working_dir))
        return made


def run(into: dlt.Pipeline, source: DltSource | Iterable[DltSource], wait: timedelta = timedelta()) -> LoadInfo | None:
    """Finishes what an earlier run left, then loads the source, or several: each is made once the one before is loaded.

    Gives what dlt says of the last load. Another run into the same place is waited for, up to `wait`. Messages whose
    rows the destination refuses are rejected, and all others loaded. Raises RunError; nothing of a failed load counts
    as loaded.
    """
    with explained(), lock.held(into, wait.total_seconds()):
        goal = target_of(into)
        if into.has_pending_data:
            left_at = into.get_local_state_val(UNFINISHED_AT) if _has_local(into) else goal
            if left_at != goal:
                raise RunError(
                    f"An unfinished load into {left_at} waits, but this run goes to {goal}.\n"
                    f"Run into {left_at} first, or give it up: dlt pipeline {into.pipeline_name} abort-packages"
                )
        into.set_local_state_val(UNFINISHED_AT, goal)
        with kept_open(into):
            repair_tables(into)
            _take_marks_over(into)
        while into.has_pending_data:
            try:
                into.run()
            except PipelineStepFailed as error:
                _set_aside(into, error)
        info: LoadInfo | None = None
        for part in [source] if isinstance(source, DltSource) else source:
            info = _load(into, part)
        return info


def _take_marks_over(into: dlt.Pipeline) -> None:
    """Goes on from where scans of this place had come under its other name, on another machine or before it had one."""
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
    """Loads a source, again and again where the destination refuses rows: each time without those that it refused."""
    while True:
        try:
            info = into.run(source)
        except PipelineStepFailed as error:
            if not isolate.refuse(into, source, error, lambda text: _warn(into, text)):
                raise
        else:
            refusals.drop(into)
            drop_files(into)
            return info


def _set_aside(into: dlt.Pipeline, error: PipelineStepFailed) -> None:
    """Gives up what an earlier run left and cannot be loaded; nothing of it counts as loaded, so it is read again."""
    chain = list(_causes(error))
    if any(map(_who_is_busy, chain)):
        raise error
    into.abort_packages()
    why = _words(error, chain).partition("\n")[0]
    _warn(into, f"What an earlier run left cannot be loaded, and is set aside; this run reads it again. {why}")


def _warn(into: dlt.Pipeline, text: str) -> None:
    if isinstance(into.collector, Steps):
        into.collector.warn(text)
    else:
        logger.warning(text)


def dry_run(
    destination: str | None,
    credentials: str | None,
    dataset: str | None,
    progress: Collector,
    source: DltSource,
) -> None:
    """Reads the source as a run would, and loads nothing: the pipeline lives in a folder that goes again."""
    with explained(), tempfile.TemporaryDirectory() as folder:
        into = pipeline(destination, credentials, dataset, progress, folder, create=False)
        # Without this folder a load takes the machine for a new one, and removes what killed loads left twice.
        private.folder(Path(into.working_dir, "autopilothq"))
        into.extract(source)


def is_unfinished_here(into: dlt.Pipeline) -> bool:
    """Whether the load that an earlier run left goes to the place of this pipeline."""
    return not _has_local(into) or into.get_local_state_val(UNFINISHED_AT) == target_of(into)


def _has_local(into: dlt.Pipeline) -> bool:
    try:
        return bool(into.get_local_state_val(UNFINISHED_AT))
    except KeyError:
        return False


@contextmanager
def explained() -> Iterator[None]:
    """Turns what dlt and the file systems raise into a RunError of one or two lines."""
    try:
        yield
    except Exception as error:  # drivers raise what they like; --debug shows it whole
        told = in_words(error)
        if told is error:
            raise
        raise told from error


def in_words(error: Exception) -> RunError:
    """The error in one or two lines, without secrets: what went wrong at the root, and what to do."""
    if isinstance(error, RunError):
        error.args = tuple(masked(text) if isinstance(text, str) else text for text in error.args)
        return error
    chain = list(_causes(error))
    busy = next(filter(None, map(_who_is_busy, chain)), None)
    return BusyError(masked(busy)) if busy else RunError(_words(error, chain))


def _who_is_busy(error: BaseException) -> str | None:
    """Who has what this run needs, where that is what went wrong."""
    if isinstance(error, BusyError):
        return str(error)
    held = _HELD_FILE.search(str(error))
    return held and (
        f"The DuckDB file {held[1]} is open in another program: {held[2]}.\n"
        "Close it there and run this again, or wait for that: --wait 10m"
    )


_HELD_FILE = re.compile(r'Could not set lock on file "(.+?)": Conflicting lock is held in (.+?\)|[^.]+)')


def _words(error: BaseException, chain: Sequence[BaseException]) -> str:
    """What went wrong at the root, and what to do; without passwords."""
    return masked(_plain_words(error, chain))


def _plain_words(error: BaseException, chain: Sequence[BaseException]) -> str:
    for cause in chain:
        if isinstance(cause, AutopilothqError):
            return str(cause)
    for cause in chain:
        if isinstance(cause, UnknownDestinationModule):
            return requirements.unknown_destination(cause)
        if isinstance(cause, MissingDependencyException | ModuleNotFoundError):
            return requirements.missing_package(cause)
    for cause in chain:
        if isinstance(cause, ConfigFieldMissingException):
            return requirements.missing_settings(cause)
    root = next((cause for cause in chain if isinstance(cause, DatabaseException | OSError)), _root(error))
    said = gist(str(root))
    if type(root) in _FAULTS or not said:
        said = f"{type(root).__name__}: {said}".rstrip(": ")
    todo = next((todo for pattern, todo in _TODO if pattern.search(said)), "")
    if type(root) in _FAULTS:
        todo = "This is no fault of yours: please report what `autopilothq --debug` shows of it."
    if not isinstance(error, PipelineStepFailed):
        return f"{said}\n{todo}".rstrip()
    nothing = "Nothing of it counts as loaded; run it again once that is mended."
    return f"The {error.step} step failed: {said}\n{f'{todo} Nothing of it counts as loaded.' if todo else nothing}"


# What is raised where the program itself is wrong; libraries derive their own errors from some.
_FAULTS = (AssertionError, AttributeError, IndexError, KeyError, NameError, RecursionError, TypeError)
# What to do about what databases and systems say.
_RETYPED = (
    "Somebody changed a column's type: change it back (ALTER TABLE ... ALTER COLUMN ... TYPE), or drop the column:"
    " the next run makes it again, empty."
)
_TODO = [
    (re.compile("due to statement timeout"), "Allow more: statement_timeout (seconds) under [destination.postgres]."),
    (re.compile("is of type .+ but expression is of type|insufficient data left|incorrect binary data"), _RETYPED),
    (re.compile("does not exist|does not have a column"), "Run it again: what somebody dropped is made again then."),
    (re.compile("Too many open files"), "Let it open more (ulimit -n 1024), then run it again."),
    (re.compile("No space left|File too large|Disk quota|out of disk"), "Make room on that disk, then run it again."),
]


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it came from, and what was being handled meanwhile."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = _cause(current) or current.__context__


def _root(error: BaseException) -> BaseException:
    """What an error came from in the end."""
    seen: set[int] = set()
    while (cause := _cause(error)) and id(cause) not in seen:
        seen.add(id(cause))
        error = cause
    return error


def _cause(error: BaseException) -> BaseException | None:
    inner = getattr(error, "exception", None)
    return inner if isinstance(inner, BaseException) else error.__cause__


def gist(text: str) -> str:
    """What a text says in one line: its first one, with the next where it ends in a colon; of a traceback the error.

    What dlt says of a failed job holds a traceback.
    """
    raised = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception|Relation|BusyError)\w*: (.+)$", text, re.MULTILINE)
    if "Traceback (most recent call last):" in text and raised:
        return str(raised[-1])
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
