"""The destination of one load: how it takes tables, what is loaded there, and what dlt is about to replace."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

import dlt
from dlt.sources import DltResource

from ..catalog import AUDIT, DISCARDS, OTHER_LIMITS, OTHER_NATIVE, TABLES, TRACKS, USERS, Limits, Native
from ..errors import CannotMerge, NotSupported
from ..segment.identity import HashedIds
from ..warehouses.dataset import (
    Dataset,
    Loaded,
    TableNames,
    check_dataset_name,
    connected,
    deleted_persons,
    loaded_files,
    open_dataset,
    table_names,
)
from ..warehouses.dlt_internals import TWriteDispositionDict
from ..warehouses.dlt_internals import resources as dlt_resources
from ..warehouses.dlt_internals.ducklake import allow_all_columns
from ..warehouses.dlt_internals.mysql import use_exact_text
from ..warehouses.hints import (
    REPLACED,
    STRATEGIES,
    keys_are_declared,
    limits_of,
    merge_disposition,
    merge_strategies,
)
from ..warehouses.native import native_of
from ..warehouses.selection import ALL_MESSAGES, covers
from . import user_hints
from .dropped import note_dropped
from .earlier_load import Stored, outdated_loads
from .extraction import Extraction, check_latest, dropped_resources, take_import_schema
from .load_folder import begin_folder, temporary_folder
from .refused import RefusedMessages


@dataclass(frozen=True)
class Replacement:
    """What dlt replaces in this load: the tables that it drops first, and those whose rows it replaces.

    `anew` is true if anything is dropped, emptied or replaced: then nothing counts as stored, and all work is read
    again.
    """

    dropped: frozenset[str] = frozenset()
    replaced: frozenset[str] = frozenset()
    anew: bool = False


@dataclass(frozen=True)
class LoadTarget:
    """Where one load goes, and what is there. Without a pipeline nothing is there, and nothing is written.

    `folder` is the load's folder. `strategies` are the merge strategies of the destination. `declares_keys` is true if
    the destination must be told that keys are never null. `suppressed` are the ids of deleted persons, `refused` is
    what the destination refused before. `complete` are the ids of the loads that are complete when this one begins,
    `counted` those of them that do not lack rows. `loads` has the files that the latter loaded, completely or in part,
    by URL and version; it is empty if the origin cannot read files again, or if this load reads all of them again.
    `names` are the names that are taken in the dataset.
    """

    folder: Path
    dataset: Dataset | None = None
    table_format: Any = None
    strategies: Sequence[str] = ("insert-only", "delete-insert")
    declares_keys: bool = False
    native: Native = OTHER_NATIVE
    limits: Limits = OTHER_LIMITS
    suppressed: HashedIds = field(default_factory=HashedIds)
    refused: RefusedMessages = field(default_factory=lambda: RefusedMessages(""))
    complete: frozenset[str] = frozenset()
    counted: frozenset[str] = frozenset()
    loads: Mapping[tuple[str, str], Loaded] = field(default_factory=dict)
    replacement: Replacement = Replacement(anew=True)
    names: TableNames = field(default_factory=TableNames)

    def loaded(self, url: str, version: str) -> Loaded | None:
        """Returns which part of a file counts as loaded, or None if no part does."""
        return self.loads.get((url, version))

    def widths(self) -> Mapping[str, int]:
        """Returns the number of columns of each table that was looked up and is not dropped before the load."""
        found = {} if self.dataset is None else self.dataset.widths
        return {name: width for name, width in found.items() if name not in self.replacement.dropped}

    def loads_with_discards(self) -> set[str]:
        """Returns the ids of the complete loads, except those that loaded files without their discards.

        The discards of these files are written again.
        """
        if self.dataset is None:
            return set()
        discards = {DISCARDS.name: ALL_MESSAGES}
        without = {loaded.load_id for loaded in self.loads.values() if not covers(loaded.selected, discards)}
        return self.dataset.complete_loads() - without


def begin_target(extraction: Extraction, loaded_at: datetime, reads_again: bool, keeper: object) -> LoadTarget:
    """Begins a load into the destination of the pipeline, if there is a pipeline.

    The load's folder is deleted once `keeper` is garbage-collected. Raises CannotMerge, NotSupported or
    SuppressionKeyError, before anything is written, if this load is not possible.
    """
    pipeline = extraction.pipeline
    if pipeline is None:
        return LoadTarget(temporary_folder(keeper))
    _check_run(pipeline)
    _prepare_run(pipeline)
    table_format = dlt.current.resource().table_format
    strategies = merge_strategies(pipeline, table_format)
    if dlt_resources.has_import_schema(pipeline):
        take_import_schema(extraction)
    _check_merging(extraction, strategies)
    check_dataset_name(dataset := open_dataset(pipeline, extraction.schema))
    folder = begin_folder(pipeline, extraction.load_id, loaded_at, keeper)
    with connected(dataset):
        suppressed = deleted_persons(dataset)  # before anything else, because it may refuse the load
        if folder.may_have_copies:
            dataset.drop_copies()
        complete, counted, loads = _counted_loads(dataset, pipeline, reads_again)
        replacement = _replacement(extraction, dataset, reads_again, loads.values())
        return LoadTarget(
            folder=folder.path,
            dataset=dataset,
            table_format=table_format,
            strategies=strategies,
            declares_keys=keys_are_declared(pipeline),
            native=native_of(pipeline.destination.destination_type),
            limits=limits_of(pipeline),
            suppressed=suppressed,
            refused=RefusedMessages.begin(pipeline, dataset.complete_loads, extraction.load_id),
            complete=complete,
            counted=counted,
            loads={} if replacement.anew else loads,
            replacement=replacement,
            names=table_names(dataset, extraction.own_tables() | TABLES.keys()),
        )


def _check_run(pipeline: dlt.Pipeline) -> None:
    """Raises NotSupported for a pipeline without a destination, or if dlt is configured not to report failed jobs.

    With such a configuration, dlt would complete loads without the rows of failed jobs, or repeat such jobs for ever.
    """
    if pipeline.destination is None:  # dlt itself notices this only after it has extracted
        raise NotSupported(
            "Expected a pipeline with a destination, but it has none: what is stored there is not read again.\n"
            'Name one: dlt.pipeline(..., destination="duckdb")'
        )
    settings = dlt_resources.failed_jobs()
    if not settings.raise_on_failed_jobs:
        raise NotSupported(
            "Expected load.raise_on_failed_jobs to be true, which it is by default, but dlt's configuration has false:"
            " rows whose job fails would be missing, but count as stored.\n"
            "Remove it under [load] in .dlt/config.toml, or LOAD__RAISE_ON_FAILED_JOBS."
        )
    if settings.raise_on_max_retries == 0:
        raise NotSupported(
            "Expected load.raise_on_max_retries to be at least 1, and it is 5 by default, but dlt's configuration has"
            " 0: dlt would repeat for ever a job whose error it takes for temporary, and the run would never end.\n"
            "Remove it under [load] in .dlt/config.toml, or LOAD__RAISE_ON_MAX_RETRIES."
        )


def _prepare_run(pipeline: dlt.Pipeline) -> None:
    """Fixes the dataset of the run, and what new tables of MySQL, MariaDB and DuckLake can hold."""
    dlt_resources.dataset_of_run(pipeline)
    if pipeline.destination.destination_type.endswith(".sqlalchemy"):
        use_exact_text()
    if pipeline.destination.destination_type.endswith(".ducklake"):
        allow_all_columns()


def _check_merging(extraction: Extraction, strategies: Sequence[str]) -> None:
    """Raises CannotMerge or NotSupported if the destination, or dlt's schema, cannot merge the tables of this load."""
    user_hints.check_schema_rows(extraction.resources, extraction.schema)
    for name in (TRACKS.name, USERS.name, *extraction.resources.keys() & TABLES.keys()):
        write_disposition(name, extraction.resources.get(name), strategies)


def _counted_loads(
    dataset: Dataset, pipeline: dlt.Pipeline, reads_again: bool
) -> tuple[frozenset[str], frozenset[str], dict[tuple[str, str], Loaded]]:
    """Returns the ids of the complete loads, those of them that do not lack rows, and the files that the latter loaded.

    What a load that lacks rows has loaded is read again. A load lacks rows if some of its jobs failed during
    `pipeline.load(raise_on_failed_jobs=False)`, if it was read after a load whose rows are gone, or if it was cut off
    and continued, and the rows that it had stored before are gone.
    """
    complete = frozenset(dataset.complete_loads())
    files = loaded_files(dataset, complete) if reads_again else {}
    stored = Stored(complete, {loaded.load_id for loaded in files.values()} if reads_again else None)
    counted = complete - dlt_resources.failed_loads(pipeline) - outdated_loads(pipeline, stored, dataset)
    return complete, counted, {file: loaded for file, loaded in files.items() if loaded.load_id in counted}


def _replacement(extraction: Extraction, dataset: Dataset, reads_again: bool, loads: Iterable[Loaded]) -> Replacement:
    """Returns what dlt will drop, empty or replace: its rows still exist, but must not count as stored.

    Raises NotSupported if the selected resources would make `_audit` or a table of latest values wrong.
    """
    resources = extraction.resources
    dropped, emptied = dlt_resources.dropped_tables()
    replaced = {name for name, each in resources.items() if user_hints.is_replaced(each)}
    lost = dropped | emptied | replaced
    if reads_again:
        loaded = (resources if each.selected is None else each.selected for each in loads)
        lost |= dropped_resources(resources.keys(), set(chain.from_iterable(loaded)))
    if lost and AUDIT.name not in lost | resources.keys() and dataset.tables([AUDIT.name]):
        raise NotSupported(
            f"Expected _audit among the selected resources, because {', '.join(sorted(lost))} is to be replaced:"
            " it would go on saying that their rows are stored.\nSelect _audit too."
        )
    if not lost:
        check_latest(resources.keys())
    elif reads_again and extraction.load_id is not None:
        note_dropped(lost, extraction.load_id, dataset.name)
    return Replacement(frozenset(dropped), frozenset(replaced | ({AUDIT.name} if lost else set())), bool(lost))


def write_disposition(
    table: str, resource: DltResource | None, strategies: Sequence[str], replaced: Collection[str] = ()
) -> TWriteDispositionDict:
    """Returns dlt's write disposition for a table: merge with a strategy, or replace if it is one of `replaced`.

    A strategy that a user requested for `resource` takes precedence. Raises CannotMerge if none of the destination's
    `strategies` fits.
    """
    if table in replaced:
        return {"disposition": "replace"}
    requested = user_hints.strategy(resource) if resource is not None else None
    if requested in (None, STRATEGIES[TABLES.get(table) in REPLACED][0]):
        return merge_disposition(table, strategies)
    if requested not in strategies:
        raise CannotMerge(f"Expected one of {', '.join(strategies)} to merge {table}, but got {requested}.")
    return merge_disposition(table, (requested,))
