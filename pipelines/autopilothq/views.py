"""Keeps the models as views in the destination, in a dataset of their own next to that of the events.

There, their names cannot clash with the table of an event, and no load touches them. If the destination has
transactions, either all views are replaced or none.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta

from . import runner
from .errors import DatasetNotFound, RunError
from .explain import explained
from .inspect import (
    AppliedModels,
    ModelView,
    applied_models,
    check_types_of_models,
    in_models_dataset,
    view_comments,
    views_of,
)
from .models import MODELS
from .warehouses import lock
from .warehouses.comments import comments_on
from .warehouses.dataset import SqlDataset, dataset_of, queryable_client
from .warehouses.dlt_internals import DatabaseException
from .warehouses.settings import TargetOptions

_COMMENTED = ("duckdb", "postgres", "redshift", "snowflake")  # dialects with COMMENT ON
_REPLACE = {"tsql": "CREATE OR ALTER VIEW"}


def apply(
    target: TargetOptions, models_dataset: str | None = None, wait: timedelta = timedelta(), dry_run: bool = False
) -> tuple[AppliedModels, list[str]]:
    """Creates or replaces the views. Returns what was there before, and the statements.

    The views are in `models_dataset`; if it is None, the name derives from that of the target's dataset.

    Raises RunError if the destination has no views, or something else has a view's name; DatasetNotFound if nothing was
    loaded yet.
    """
    with _opened(target, wait) as dataset:
        check_types_of_models(dataset)
        views = views_of(dataset)
        before = applied_models(dataset, models_dataset, views)
        _check_names(dataset, before)
        with in_models_dataset(dataset, models_dataset):
            creating = [line for view in views for line in _create(dataset, view)]
            if dry_run:
                return before, creating
            if not dataset.client.sql_client.has_dataset():
                dataset.client.sql_client.create_dataset()
            try:
                _run(dataset, creating)
            except DatabaseException:
                if not before.ours:
                    raise
                # PostgreSQL replaces a view only by one that begins with the same columns.
                creating = [*(_drop(dataset, name) for name in before.ours), *creating]
                _run(dataset, creating)
        return before, creating


def remove(target: TargetOptions, models_dataset: str | None = None, wait: timedelta = timedelta()) -> AppliedModels:
    """Drops the views that `apply` made, and their dataset if it is empty then and this user may drop it.

    Returns what was there before, but not reliably which views were up to date, because no model is rendered.
    """
    with _opened(target, wait) as dataset:
        before = applied_models(dataset, models_dataset, [ModelView(model, "") for model in MODELS])
        with in_models_dataset(dataset, models_dataset):
            _run(dataset, [_drop(dataset, name) for name in before.ours])
            if before.ours and dataset.kind in ("duckdb", "postgres") and not view_comments(dataset):
                with suppress(DatabaseException):  # the schema belongs to somebody else, or has something else in it
                    _run(dataset, [f"DROP SCHEMA {dataset.client.sql_client.fully_qualified_dataset_name()}"])
        return before


@contextmanager
def _opened(target: TargetOptions, wait: timedelta) -> Iterator[SqlDataset]:
    with explained():
        into = runner.pipeline(*target, create=False, wait=wait)
        with lock.held(into, wait.total_seconds()), queryable_client(into) as client:
            dataset = dataset_of(client)
            if not isinstance(dataset, SqlDataset):
                raise RunError(
                    f"Expected a destination that keeps views, but {dataset.kind} has none.\n"
                    "Show a model instead, and run it where the tables are read: autopilothq models show NAME"
                )
            if not dataset.exists():
                raise DatasetNotFound(f"There is no dataset {dataset.name}. Load something first.")
            yield dataset


def _check_names(dataset: SqlDataset, before: AppliedModels) -> None:
    """Raises RunError if the views would replace something else, or share a dataset with the events' tables."""
    if before.dataset in (part.name for part in dataset.parts()):
        raise RunError(
            f"Expected a dataset for the models alone, but {before.dataset} has the tables of loads, whose names could"
            " be those of models. Name another one: --models-dataset NAME"
        )
    if before.taken:
        raise RunError(
            f"Expected no table or view in {before.dataset} that has the name of a model and was not made by this"
            f" command, but found {', '.join(before.taken)}.\n"
            "Rename or drop what is not needed, or name another dataset: --models-dataset NAME"
        )


def _create(dataset: SqlDataset, view: ModelView) -> Iterator[str]:
    name = dataset.client.sql_client.make_qualified_table_name(view.model.name)
    yield f"{_REPLACE.get(dataset.dialect or '', 'CREATE OR REPLACE VIEW')} {name} AS\n{view.text}"
    if dataset.dialect in _COMMENTED:
        columns = {} if dataset.kind == "ducklake" else view.model.columns  # DuckLake comments only on those of tables
        yield from comments_on(dataset.client.sql_client, view.model.name, columns, view.comment, "VIEW")


def _drop(dataset: SqlDataset, name: str) -> str:
    return f"DROP VIEW {dataset.client.sql_client.make_qualified_table_name(name)}"


def _run(dataset: SqlDataset, statements: Sequence[str]) -> None:
    with dataset.transaction():
        for statement in statements:
            dataset.client.sql_client.execute_sql(statement)
