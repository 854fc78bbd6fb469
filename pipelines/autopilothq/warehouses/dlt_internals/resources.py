"""dlt's extraction: the load package that it writes, the call of `run` that started it, and the hints of resources."""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, wraps
from pathlib import Path
from threading import get_ident
from types import FrameType
from typing import Any, NamedTuple, cast

import dlt
from dlt import Schema
from dlt.common.configuration import configspec, known_sections, resolve_configuration
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs import BaseConfiguration
from dlt.common.pipeline import PipelineContext
from dlt.common.storages import LoadStorage, PackageStorage
from dlt.common.storages.exceptions import CurrentLoadPackageStateNotAvailable
from dlt.common.storages.load_package import LoadPackageStateInjectableContext, load_package_state
from dlt.extract.extract import Extract
from dlt.extract.extractors import _to_arrow_table
from dlt.extract.hints import NATURAL_CALLABLES, HintsMeta
from dlt.extract.incremental import IncrementalResourceWrapper
from dlt.extract.items import TableNameMeta
from dlt.extract.items_transform import MapItem
from dlt.extract.pipe import ForkPipe
from dlt.normalize.configuration import ItemsNormalizerConfiguration
from dlt.sources import DltResource, DltSource


def running_pipeline() -> dlt.Pipeline:
    """Returns the pipeline that is extracting.

    `dlt.current.pipeline` returns the same, but resolves the configuration of a new one each time.
    """
    return cast(dlt.Pipeline, Container()[PipelineContext].pipeline())


class _Extracted(NamedTuple):
    """A source that is being extracted, and the dataset that the `run` of the pipeline was called with, if any."""

    source: DltSource
    dataset_name: str | None


_EXTRACTED: dict[tuple[int, int], _Extracted] = {}  # of all threads, by thread and source


@cache
def record_extractions() -> None:
    """Patches dlt, once per process, to record which sources it is extracting.

    Resources may run in other threads (`parallelize`). Those cannot inspect the stack of the extracting thread, because
    it changes while they read it.
    """
    extract = Extract.extract

    @wraps(extract)
    def noted(step: Extract, source: DltSource, *args: Any, **more: Any) -> str:
        call = (get_ident(), id(source))  # a single entry even if two threads patched dlt at the same time
        _EXTRACTED[call] = _Extracted(source, _dataset_of_run())
        try:
            return extract(step, source, *args, **more)
        finally:
            _EXTRACTED.pop(call, None)

    setattr(Extract, "extract", noted)  # noqa: B010


def _dataset_of_run() -> str | None:
    """Returns the dataset that the call of `run` in this thread names for the pipeline that is running."""
    context = Container()[PipelineContext]
    pipeline = context.pipeline() if context.is_active() else None
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        call = frame.f_locals if frame.f_code.co_name == "run" else {}
        if pipeline is not None and call.get("self") is pipeline and call.get("dataset_name"):
            return str(call["dataset_name"])
        frame = frame.f_back
    return None


def extraction() -> str | None:
    """Returns the id of the load package being extracted, or None if a source is iterated without a pipeline.

    A resource that a pipeline extracts may iterate another source, which is not being extracted itself.
    """
    try:
        load_id = str(load_package_state()["load_id"])
    except CurrentLoadPackageStateNotAvailable:
        return None
    source = dlt.current.source()
    return load_id if any(each.source is source for each in _extracted()) else None


def extractions_of(owner: object) -> int:
    """Returns how many extractions of resources that belong to an object are running, in all threads."""
    sources = [extracted.source for extracted in _extracted()]
    return sum(any(name_of_owned(resource, owner) for resource in source.resources.values()) for source in sources)


def _extracted() -> list[_Extracted]:
    return list(_EXTRACTED.values())


def dropped_tables() -> tuple[set[str], set[str]]:
    """Returns the tables that dlt drops for `refresh` before it loads this package, and those that it truncates."""
    state: Any = load_package_state()["state"]
    dropped, emptied = (state.get(key) or () for key in ("dropped_tables", "truncated_tables"))
    return {table["name"] for table in dropped}, {table["name"] for table in emptied}


def waiting_packages(pipeline: dlt.Pipeline) -> dict[str, Any]:
    """Returns the states, by load id, of the load packages that are not loaded yet, including the one being extracted.

    Keys that are added to the state of the latter stay in it until the package is loaded.
    """
    current = Container()[LoadPackageStateInjectableContext]
    extracted, normalized = pipeline._get_normalize_storage(), pipeline._get_load_storage()
    found: dict[str, Any] = {}
    for storage, ids in (
        (normalized.normalized_packages, pipeline.list_normalized_load_packages()),
        (extracted.extracted_packages, pipeline.list_extracted_load_packages()),
        (current.storage, current.storage.list_packages()),
    ):
        found |= {load_id: storage.get_load_package_state(load_id) for load_id in ids}
    return found | {current.load_id: current.state}


def dataset_of_run(pipeline: dlt.Pipeline) -> None:
    """Sets a pipeline's dataset to the one that its `run` was called with.

    While `run` extracts, the pipeline still has the dataset of the previous run: only the call has the new one.
    """
    source = dlt.current.source()
    for each in _extracted():
        if each.source is source and each.dataset_name:
            pipeline._set_dataset_name(each.dataset_name)


def has_row_steps(resource: DltResource) -> bool:
    """Returns whether a resource has steps that see its rows: maps, filters, limits, an incremental, a validator."""
    return len(resource._pipe.steps) > 1


def is_window(resource: DltResource) -> bool:
    """Returns whether a resource has an incremental that ends at a value, so that other runs take other rows.

    The end may come from an external scheduler; then it is set only once dlt has begun to take rows.
    """
    given: Any = resource.incremental
    own = given.incremental if isinstance(given, IncrementalResourceWrapper) else given
    return own is not None and own.end_value is not None


class OwnHints(dict[str, Any]):
    """Hints that the source itself yields with its rows. Hints from a user's step are a plain dict.

    `returned` has the keys of the rows that the steps have returned for these rows so far.
    """

    def __init__(self, hints: Mapping[str, Any]) -> None:
        super().__init__(hints)
        self.returned = set[Any]()


class OwnName(str):
    """The table's name that the source itself yields with its rows. A name from a user's step is a plain `str`.

    `returned` is the same as in `OwnHints`.
    """

    def __init__(self, _: str) -> None:
        self.returned = set[Any]()


def item_mark(meta: Any) -> str | None:
    """Returns what a user's step marked an item with, as text for errors: a table or hints; None if it did not."""
    name, is_own = None, True
    if isinstance(meta, HintsMeta):
        name, is_own = cast(str | None, (meta.hints or {}).get("table_name")), isinstance(meta.hints, OwnHints)
    elif isinstance(meta, TableNameMeta):
        name, is_own = meta.table_name, isinstance(meta.table_name, OwnName)
    return None if is_own else f"the table {name}" if name else "hints"


def returned_for(meta: Any) -> set[Any] | None:
    """Returns the keys that steps have returned for the rows with this metadata; None if it is not the source's."""
    mark = meta.hints if isinstance(meta, HintsMeta) else getattr(meta, "table_name", None)
    return mark.returned if isinstance(mark, OwnHints | OwnName) else None


class _CheckItem(MapItem):
    """Calls a function with each item, and leaves out those for which it returns None."""

    def __call__(self, item: Any, meta: Any = None) -> Any:
        """Returns the items that are left, or None."""
        checked: Any = super().__call__(item, meta)
        return [each for each in checked if each is not None] or None if isinstance(item, list) and item else checked


def check_steps(check: Callable[[Any, Any], Any]) -> None:
    """Makes dlt call `check` with each item and its metadata after the running resource's steps, and use its result.

    An item for which it returns None is left out. Has no effect if the resource has no steps, and none on later
    extractions, because dlt extracts a copy of the steps.
    """
    pipe: Any = dlt.current.pipe()
    last = pipe.steps[-1]
    end = len(pipe.steps) - isinstance(last, ForkPipe)  # the step that passes items to transformers
    if end > 1:
        pipe.insert_step(_CheckItem(check), end)
        if isinstance(last, ForkPipe):  # it also passes items to its own pipe, where their step is one later now
            last._pipes = [(to, step + 1 if to is pipe else step) for to, step in last._pipes]


_WITHOUT_ROWS: set[str] = set()


def expect_no_rows(table: str) -> None:
    """Keeps dlt from warning that writing Arrow tables as SQL is slow, for a table that is only created."""
    _WITHOUT_ROWS.add(table)
    logging.getLogger("dlt").addFilter(_warns_of_rows)


def _warns_of_rows(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    return not ("will degrade performance" in text and any(f"`{table}`" in text for table in _WITHOUT_ROWS))


def as_arrow(item: Any) -> Any:
    """Returns a data frame of pandas or polars as the Arrow table that dlt makes of it; any other item unchanged."""
    return _to_arrow_table(item)


@configspec
class FailedJobs(BaseConfiguration):
    """dlt's settings for failed jobs: whether one ends the load with an error, after how many attempts (0: never)."""

    raise_on_failed_jobs: bool = True
    raise_on_max_retries: int = 5


def failed_jobs() -> FailedJobs:
    """Returns what dlt is configured to do about jobs of a load that fail."""
    return resolve_configuration(FailedJobs(), sections=(known_sections.LOAD,))


def failed_loads(pipeline: dlt.Pipeline) -> set[str]:
    """Returns the ids of this machine's loads that were completed although some of their jobs failed."""
    finished = Path(pipeline.working_dir, "load", LoadStorage.LOADED_FOLDER)
    return {job.parents[1].name for job in finished.glob(f"*/{PackageStorage.FAILED_JOBS_FOLDER}/*")}


def uncut_loads(pipeline: dlt.Pipeline) -> set[str]:
    """Returns the ids of the loads that a pipeline's last `run` extracted, normalized and loaded without an error.

    Any other load may have been cut off and continued.
    """
    trace = pipeline.last_trace
    steps = {step.step: step for step in (trace.steps if trace else ())}
    is_one_run = trace is not None and steps.keys() == {"extract", "normalize", "load", "run"} and len(trace.steps) == 4
    if not is_one_run or any(step.step_exception for step in steps.values()):
        return set()
    return set.intersection(*(set(getattr(step.step_info, "loads_ids", ())) for step in steps.values()))


def adds_columns() -> bool:
    """Returns whether dlt is configured to add columns of its own to Arrow tables."""
    config = resolve_configuration(
        ItemsNormalizerConfiguration(), sections=(known_sections.NORMALIZE, "parquet_normalizer")
    )
    return bool(config.add_dlt_load_id or config.add_dlt_id)


def parents(resource: DltResource) -> Iterator[str]:
    """Yields the names of the resources that a transformer takes its rows from."""
    parent: Any = resource._pipe.parent
    while parent is not None and not parent.is_empty:
        yield parent.name
        parent = parent.parent


def set_owner(rows: Any, owner: object, name: str) -> None:
    """Records on a resource's function which object it belongs to, and its name there."""
    setattr(rows, _OWNER, (owner, name))


def name_of_owned(resource: DltResource, owner: object) -> str | None:
    """Returns the name of a resource that belongs to `owner`, or None if it belongs to another object."""
    by, name = getattr(resource._pipe.gen, _OWNER, (None, ""))
    return name if by is owner else None


_OWNER = "autopilothq_owner"


def hints(resource: DltResource) -> dict[str, Any]:
    """Returns a resource's hints by name, such as `primary_key`; dlt replaces them and never changes them."""
    return dict(resource._hints or {})


def hint_functions(resource: DltResource) -> dict[str, Callable[..., Any]]:
    """Returns the hints of a resource that are functions of rows, by name."""
    return {name: hint for name, hint in hints(resource).items() if callable(hint) and name not in NATURAL_CALLABLES}


def remove_row_hints(resource: DltResource, before: Mapping[str, Any], added: Mapping[str, Any]) -> None:
    """Removes the hints `added` with rows from a resource, which dlt would keep for all later extractions.

    `before` are the hints before the extraction. Other changes since then are kept.
    """
    now = hints(resource)
    for name in ("write_disposition", "file_format"):
        if name in added and now.get(name) == added[name]:
            now[name] = before.get(name)
    columns_before, columns_added = before.get("columns") or {}, added.get("columns") or {}
    columns = {}
    for name, column in (now.get("columns") or {}).items():
        kept = {"name": name} | _without_added(column, columns_before.get(name, {}), columns_added.get(name, {}))
        if len(kept) > 1 or name in columns_before:
            columns[name] = kept
    resource._set_hints(cast(Any, {**now, "columns": columns, "original_columns": columns}))


def _without_added(column: Mapping[str, Any], before: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a column's hints without those `added`: each of these is as it was `before`, or missing."""
    kept = {}
    for hint, value in column.items():
        if value != added.get(hint):
            kept[hint] = value
        elif hint in before:
            kept[hint] = before[hint]
    return kept


def restore_columns(resource: DltResource, before: Mapping[str, Any]) -> None:
    """Restores a resource's columns from the hints `before`, if the columns are a function."""
    if callable(resource.columns):
        columns = {name: before.get(name) for name in ("columns", "original_columns")}
        resource._set_hints(cast(Any, hints(resource) | columns))


def allows_evolution(resource: DltResource, schema: Schema, table: str) -> bool:
    """Returns whether the schema contracts let a table, its columns and their types evolve."""
    own: Any = {"schema_contract": resource.schema_contract} if resource.schema_contract else None
    return set(schema.resolve_contract_settings_for_table(table, own).values()) == {"evolve"}


def has_import_schema(pipeline: dlt.Pipeline) -> bool:
    """Returns whether a pipeline has import schemas: files that users edit and dlt reads before each extraction."""
    return bool(pipeline._schema_storage.config.import_schema_path)
