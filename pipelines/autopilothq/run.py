"""One run of a pipeline: where it goes, what was left undone, what went wrong in words for a person."""

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import dlt
import duckdb
from dlt.common.configuration.exceptions import ConfigFieldMissingException
from dlt.common.destination import Destination
from dlt.common.exceptions import MissingDependencyException
from dlt.common.pipeline import LoadInfo
from dlt.common.runtime.collector_base import Collector
from dlt.common.runtime.run_context import active
from dlt.destinations.exceptions import DatabaseException
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials
from dlt.extract import DltSource
from dlt.pipeline.exceptions import PipelineStepFailed

from . import lock
from .direct import direct
from .lake import lake
from .origins.archive import ArchiveError
from .source import CannotMerge, Report

PIPELINE = "autopilot_events"
DATASET = "autopilothq"
DUCKDB_FILE = "autopilot.duckdb"
# The order of rows says nothing, and keeping it makes DuckDB's checkpoints slow; the rest bounds the memory.
DUCKDB_CONFIG = {"preserve_insertion_order": False, "memory_limit": "500MB", "threads": 2}
# What .dlt/config.toml of this project says, for folders that have no such file.
DEFAULTS: dict[str, Any] = {
    "runtime.dlthub_telemetry": False,
    "load.truncate_staging_dataset": True,
    "load.auto_abort_on_terminal_error": True,
}
UNFINISHED_AT = "autopilothq_unfinished_at"


class RunError(Exception):
    """A run that cannot be done; one or two lines that say why and what to do."""

    status = 1
    """What the program exits with."""


class BusyError(RunError):
    """Someone else is at work in the same place: later it will do (`EX_TEMPFAIL` of sysexits)."""

    status = 75


class Watch(Protocol):
    """What a run tells while it goes on."""

    def report(self, report: Report) -> None:
        """The counts so far."""

    def step(self, name: str) -> None:
        """dlt's step begins: extract, normalize, load."""


def configure(**more: Any) -> None:
    """Sets what dlt's configuration leaves open: DEFAULTS and `more`, dots in names as `__`."""
    for key, value in (DEFAULTS | {name.replace("__", "."): value for name, value in more.items()}).items():
        if dlt.config.get(key) is None:
            dlt.config[key] = value
    active().initialize_runtime()


class Steps(Collector):
    """dlt's progress, of which a watch is told the steps."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def update(
        self,
        name: str,
        inc: int = 1,
        total: int | None = None,
        inc_total: int | None = None,
        message: str | None = None,
        label: str | None = None,
    ) -> None:
        """Single counts are the report's."""

    def _start(self, step: str) -> None:
        self._watch.step(step.partition(" ")[0].lower())

    def _stop(self) -> None:
        """A step's end is the next one's beginning."""


def pipeline(
    destination: str | None = None,
    credentials: str | None = None,
    dataset: str | None = None,
    progress: Collector | None = None,
    pipelines_dir: str | None = None,
    create: bool = True,
    wait: timedelta = timedelta(),
) -> dlt.Pipeline:
    """The pipeline `autopilot_events`, into `destination` (dlt's name for it) with dlt's meaning of `credentials`.

    What is None comes from dlt's configuration (`destination_type`, `dataset_name`), and else is a DuckDB file in the
    current folder, which is not created unless `create`, and is waited for, up to `wait`, where another program
    has it open. Raises RunError where DuckDB could not tell the file from the
    dataset.
    """
    with explained():
        kind = destination or setting("destination_type") or "duckdb"
        name = dataset or setting("dataset_name") or DATASET
        options: dict[str, Any] = {"progress": progress, "pipelines_dir": pipelines_dir}
        made: dlt.Pipeline = dlt.pipeline(
            PIPELINE,
            destination=_duckdb(credentials, name, create, wait) if kind == "duckdb" else _other(kind, credentials),
            dataset_name=name,
            **{option: value for option, value in options.items() if value is not None},
        )
        return made


def _other(kind: str, credentials: str | None) -> Any:
    if kind == "filesystem":
        return lake(credentials) if credentials else lake()
    return Destination.from_reference(kind, **({"credentials": credentials} if credentials else {}))


def setting(name: str) -> Any:
    """A value of dlt's secrets or configuration, None where neither has it."""
    providers: tuple[Any, ...] = (dlt.secrets, dlt.config)
    return next((value for provider in providers if (value := provider.get(name)) is not None), None)


def _duckdb(credentials: str | None, dataset: str, create: bool, wait: timedelta) -> Any:
    configured = setting("destination.duckdb.credentials")
    settings = configured if isinstance(configured, dict) else {"database": configured}
    database = str(credentials or settings.get("database") or DUCKDB_FILE).removeprefix("duckdb:///")
    if Path(database).stem.lower() == dataset.lower():
        raise RunError(
            f"The DuckDB file {database} is named like the dataset {dataset}, and DuckDB cannot tell them apart.\n"
            "Name another file (--credentials other.duckdb) or another dataset (--dataset other)."
        )
    if not create and not Path(database).exists():
        return direct(credentials=duckdb.connect())
    spec = DuckDbCredentials(database)
    spec.global_config = DUCKDB_CONFIG | settings.get("global_config", {})
    return direct(credentials=spec, wait=wait.total_seconds())


def run(into: dlt.Pipeline, source: DltSource, wait: timedelta = timedelta()) -> LoadInfo | None:
    """Finishes what an earlier run left, then loads the source.

    Another run into the same place is waited for, up to `wait`. Raises RunError; nothing of a failed load
    counts as loaded.
    """
    with explained(), lock.held(into, wait.total_seconds()):
        place = place_of(into)
        if into.has_pending_data:
            left_at = into.get_local_state_val(UNFINISHED_AT) if _has_local(into) else place
            if left_at != place:
                raise RunError(
                    f"An unfinished load into {left_at} waits, but this run goes to {place}.\n"
                    f"Run into {left_at} first, or give it up: dlt pipeline {PIPELINE} abort-packages"
                )
        into.set_local_state_val(UNFINISHED_AT, place)
        while into.has_pending_data:
            into.run()
        return into.run(source)


def dry_run(
    destination: str | None,
    credentials: str | None,
    dataset: str | None,
    progress: Collector,
    source: DltSource,
) -> None:
    """Reads the source as a run would, and loads nothing: the pipeline lives in a folder that goes again."""
    with explained(), tempfile.TemporaryDirectory() as folder:
        pipeline(destination, credentials, dataset, progress, folder, create=False).extract(source)


def _has_local(into: dlt.Pipeline) -> bool:
    try:
        return bool(into.get_local_state_val(UNFINISHED_AT))
    except KeyError:
        return False


def place_of(into: dlt.Pipeline) -> str:
    """Where a pipeline loads to, without its secrets."""
    with into.destination_client() as client:
        return f"{client.config.destination_type.rpartition('.')[2]} {client.config}, dataset {into.dataset_name}"


@contextmanager
def explained() -> Iterator[None]:
    """Turns what dlt and the file systems raise into a RunError of one or two lines."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:  # drivers raise what they like; --debug shows it whole
        chain = list(_causes(error))
        busy = next(filter(None, map(_who_is_busy, chain)), None)
        raise (BusyError(busy) if busy else RunError(_words(error, chain))) from error


def _who_is_busy(error: BaseException) -> str | None:
    """Who has what this run needs, where that is what went wrong."""
    if isinstance(error, lock.Busy):
        return str(error)
    held = _HELD_FILE.search(str(error))
    return held and (
        f"The DuckDB file {held[1]} is open in another program: {held[2]}.\n"
        "Close it there and run this again, or wait for that: --wait 10m"
    )


_HELD_FILE = re.compile(r'Could not set lock on file "(.+?)": Conflicting lock is held in (.+?\)|[^.]+)')


def _words(error: BaseException, chain: Sequence[BaseException]) -> str:
    """What went wrong at the root, and what to do."""
    for cause in chain:
        if isinstance(cause, ArchiveError | CannotMerge | RunError):
            return str(cause)
    for cause in chain:
        if isinstance(cause, ConfigFieldMissingException):
            return f"A setting is missing: {', '.join(cause.fields)} of {cause.spec_name}.\n{SETTINGS}"
        if isinstance(cause, MissingDependencyException):
            return f"{_first_line(cause)}\nInstall what it names, for example the extra of that destination."
    root = next((cause for cause in chain if isinstance(cause, DatabaseException)), chain[-1])
    step = f"The {error.step} step failed: " if isinstance(error, PipelineStepFailed) else ""
    again = "\nNothing of it counts as loaded; run it again once that is mended." if step else ""
    return f"{step}{_telling_line(root)}{again}"


SETTINGS = "Put it into .dlt/secrets.toml or the environment; the README shows where."


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = getattr(current, "exception", None) or current.__cause__ or current.__context__


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _telling_line(error: BaseException) -> str:
    """What dlt says of a failed job holds a traceback: its last error is what a person wants to know."""
    traceback = str(error).partition("Traceback (most recent call last):")[2]
    raised = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception|Relation)\w*: (.+)$", traceback, re.MULTILINE)
    return str(raised[-1]) if raised else _first_line(error)
