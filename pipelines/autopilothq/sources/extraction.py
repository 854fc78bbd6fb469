"""Finds out what dlt extracts from a source: which resources, for which pipeline, and with which user hints."""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import dlt
from dlt import Schema
from dlt.sources import DltResource

from ..catalog import AUDIT, BOOKS, EVENTS_RESOURCE, LATEST, TABLES, resource_of
from ..errors import NotSupported
from ..warehouses.dlt_internals import TTableSchemaColumns, is_complete_column
from ..warehouses.dlt_internals import resources as dlt_resources
from ..warehouses.native import TABLE_HINTS
from . import user_hints

_TABLES = "autopilothq_tables"  # a key in the state of dlt's load package: the resources that loads hand over
_TAKEN = "taken"  # a key in dlt's state: the resources all of whose rows some load has handed over
_MOVED = "moved"  # a key in dlt's state: the tables of events whose usual names were taken, by these names


class Extraction(NamedTuple):
    """One extraction of a source by dlt.

    `resources` are the extracted ones by name, `hints` their hints before this load. `feeds` are the resources from
    which transformers take rows, `only_fed` those of them that are not selected themselves. `pipeline` and `load_id`
    are None if the source is iterated without a pipeline. `moved` are the tables that events got because their
    usual names were taken, by these names.
    """

    resources: Mapping[str, DltResource]
    hints: Mapping[str, Any]
    feeds: frozenset[str]
    schema: Schema
    pipeline: dlt.Pipeline | None
    load_id: str | None
    moved: Mapping[str, str] = MappingProxyType({})
    only_fed: frozenset[str] = frozenset()

    @property
    def data_resources(self) -> set[str]:
        """The extracted resources except `_audit`, whose rows depend on the others."""
        return self.resources.keys() - {AUDIT.name}

    def schema_columns(self, table: str) -> TTableSchemaColumns:
        """Returns a table's columns in dlt's schema; empty if the schema does not have the table."""
        known = self.schema.tables.get(table)
        return known["columns"] if known else {}

    def made_tables(self) -> dict[str, set[str]]:
        """Returns the columns of each table that dlt has created according to its schema, dlt's own included."""
        names = self.schema.data_table_names(seen_data_only=True)
        return {
            name: {column for column, hints in self.schema_columns(name).items() if is_complete_column(hints)}
            for name in ([*names, *self.schema.dlt_table_names()] if names else ())
        }

    def own_tables(self) -> set[str]:
        """Returns the tables in dlt's schema into which this source may load rows: not those of a user's resources."""
        return {
            name for name, table in self.schema.tables.items() if table.get("resource") in (None, resource_of(name))
        }

    def event_tables(self) -> set[str]:
        """Returns the dataset's tables of events that the catalogue does not know; none without a pipeline."""
        names = self.schema.data_table_names() if self.pipeline is not None else []
        return {name for name in names if name not in TABLES and not name.startswith("_")}


def current_extraction(owner: object, reads_again: bool) -> Extraction:
    """Returns the extraction under way of the resources that belong to `owner`.

    Raises NotSupported, before anything is written, if a user requested something that is not possible.
    """
    source = dlt.current.source()
    load_id = dlt_resources.extraction()
    extracted = {resource.name: resource for resource in source.resources.extracted}
    ours: dict[str, DltResource] = {}
    for name, each in extracted.items():
        if own_name := dlt_resources.name_of_owned(each, owner):
            _check_resource(each, own_name, reads_again)
            ours[name] = each
    feeds = frozenset(parent for each in extracted.values() for parent in dlt_resources.parents(each))
    if EVENTS_RESOURCE in feeds & source.selected_resources.keys():
        raise NotSupported(
            f"Expected {EVENTS_RESOURCE} not to be selected, because a transformer takes its rows, which dlt would"
            f" write into the tables of the events.\nDeselect it: source.{EVENTS_RESOURCE}.selected = False"
        )
    return Extraction(
        resources=ours,
        hints={name: dlt_resources.hints(each) for name, each in ours.items()},
        feeds=feeds,
        schema=dlt.current.source_schema(),
        pipeline=dlt_resources.running_pipeline() if load_id else None,
        load_id=load_id,
        moved=dlt.current.source_state().get(_MOVED, {}) if load_id else {},
        only_fed=frozenset(ours.keys() - source.selected_resources.keys()),
    )


def _check_resource(resource: DltResource, own_name: str, reads_again: bool) -> None:
    """Raises NotSupported for a resource that a user renamed, limited, or gave hints that cannot be followed."""
    name = resource.name
    if name != own_name:
        raise NotSupported(
            f"Expected the resource {own_name} by its own name, but it is called {name}: what is loaded is recorded"
            f" under {own_name}.\nLeave with_name out, and rename in a view: CREATE VIEW {name} AS FROM {own_name}"
        )
    user_hints.check_hints(resource)
    if (resource.limit is not None or resource.incremental is not None) and not reads_again:
        raise NotSupported(
            f"Expected all rows of {name} to be taken, but it has a limit or an incremental: what is left out"
            " would not be requested again.\nLeave it out, or use the settings of this source."
        )


def check_alone(extraction: Extraction, reads_again: bool) -> None:
    """Raises NotSupported if extracted rows of another load wait to be loaded: they do not count as stored yet.

    Otherwise, both loads would store the same messages, and each would make rows of `users` without the messages of the
    other. Other tables in the same load package do not matter.
    """
    if extraction.pipeline is None:
        return
    ours = extraction.resources.keys() - {book.name for book in BOOKS}
    waiting = dlt_resources.waiting_packages(extraction.pipeline)
    current = waiting.pop(str(extraction.load_id))
    handed_over = set(current.get(_TABLES, ()))
    if handed_over & ours or any(_TABLES in state for state in waiting.values()):
        one = "Give all folders to one source, archive([...]), or run" if reads_again else "Run"
        raise NotSupported(
            "Expected the rows of another source to be loaded before this one is read, but they wait: what they bring"
            " is not stored yet, and would be stored twice.\n"
            f"{one} one source after the other. What was extracted before, load with pipeline.normalize() and"
            " pipeline.load(), or drop with pipeline.abort_packages()."
        )
    current[_TABLES] = sorted(handed_over | ours)


def take_import_schema(extraction: Extraction) -> None:
    """Lets descriptions in a user's import schema override the catalogue's.

    Raises NotSupported if that schema has other types, keys or write dispositions.
    """
    for name, resource in extraction.resources.items():
        if name in TABLES:
            user_hints.check_schema(extraction.schema, TABLES[name])
        if name in extraction.schema.tables and (text := extraction.schema.tables[name].get("description")):
            resource.apply_hints(additional_table_hints={"description": text, **TABLE_HINTS})


def check_latest(resources: Collection[str]) -> None:
    """Raises NotSupported if a table of latest values is selected without the messages that it is made of."""
    for made in LATEST:
        name, messages = made.table.name, made.messages.name
        if name in resources and messages not in resources:
            raise NotSupported(
                f"Expected {messages} among the selected resources, because {name} is: a row of it is made of all"
                f" {messages} that are stored.\nSelect both, or neither."
            )


def dropped_resources(resources: Collection[str], loaded: Collection[str]) -> set[str]:
    """Returns the resources that `dlt pipeline ... drop` has dropped since they were loaded: they have no state.

    With `--state-paths`, the command also drops the note of what was taken. `loaded` is then used instead: the
    resources into which some file is loaded.
    """
    state = dlt.current.source_state()
    taken = state.get(_TAKEN)
    if taken is None:  # if it was never made, as on a machine without the state, resources have no notes either
        taken = loaded if any(_TAKEN in each for each in state.get("resources", {}).values()) else ()
    return {name for name in set(taken) & set(resources) if _TAKEN not in dlt.current.resource_state(name)}


def note_taken(resources: Collection[str]) -> None:
    """Notes in dlt's state that all rows of these resources were taken, for `dropped_resources`."""
    state = dlt.current.source_state()
    state[_TAKEN] = sorted({*state.get(_TAKEN, ()), *resources})
    for name in resources:
        dlt.current.resource_state(name)[_TAKEN] = True


def note_moved(moved: Mapping[str, str]) -> None:
    """Notes in dlt's state which tables events got because their usual names were taken, so that they keep them."""
    if moved:
        state = dlt.current.source_state()
        state[_MOVED] = {**state.get(_MOVED, {}), **moved}
