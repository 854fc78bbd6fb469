"""Compares the models with the views that a destination has."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from sqlglot import exp

from ..models import BY_NAME, Existing, Model, in_dialect, point, query
from ..warehouses.dataset import Dataset, SqlDataset
from ..warehouses.sql_files import sql_file

SUFFIX = "_models"
# The queries that list views with their comments, for the destinations where they are tested. In others, any view with
# a model's name counts as that model.
MARKED = {"duckdb": "view_comments_duckdb.sql", "postgres": "view_comments_postgres.sql"}
_MARK = re.compile(r"\(autopilothq models, ([0-9a-f]{12})\)$")


class ModelView(NamedTuple):
    """A model as a view over the tables that a dataset has."""

    model: Model
    text: str
    """The query in the destination's dialect."""

    @property
    def mark(self) -> str:
        """The end of the view's comment, which shows that this program made the view, and has a digest of its query."""
        return f"(autopilothq models, {hashlib.sha256(self.text.encode()).hexdigest()[:12]})"

    @property
    def comment(self) -> str:
        """The view's comment."""
        return f"{self.model.description} {self.mark}"


class AppliedModels(NamedTuple):
    """The models by the state of their views in a dataset: current, stale, missing, or with a name that is taken."""

    dataset: str
    current: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()

    @property
    def ours(self) -> tuple[str, ...]:
        """The views that this program made."""
        return (*self.current, *self.stale)


def views_of(dataset: SqlDataset, names: tuple[str, ...] = ()) -> list[ModelView]:
    """Returns the models, all or the named ones, as views over a dataset's tables."""
    tables = dataset.columns()
    return [
        ModelView(BY_NAME[name], in_dialect(_query(dataset, name, tables), dataset.dialect or "duckdb"))
        for name in names or BY_NAME
    ]


def _query(dataset: SqlDataset, name: str, tables: Existing) -> exp.Query:
    found = query(name, tables)
    # A DuckDB file can be renamed, or attached under another name.
    point(found, lambda table: dataset.sql.path(table)[-2 if dataset.kind == "duckdb" else 0 :], dataset.sql.spelling)
    return found


@contextmanager
def in_models_dataset(dataset: SqlDataset, name: str | None) -> Iterator[str]:
    """Directs the statements in the block to the dataset of the models, and yields its name."""
    with dataset.client.sql_client.with_alternative_dataset_name(name or f"{dataset.name}{SUFFIX}"):
        yield dataset.client.sql_client.dataset_name


def applied_models(dataset: Dataset, name: str | None = None, planned: Sequence[ModelView] = ()) -> AppliedModels:
    """Returns the states of the models' views; all are missing if the destination has no views, or no such dataset.

    `planned` are the models' views, if they were rendered already.
    """
    if not isinstance(dataset, SqlDataset):
        return AppliedModels("", missing=tuple(BY_NAME))
    with in_models_dataset(dataset, name) as models:
        comments = view_comments(dataset)
    if not comments.keys() & BY_NAME.keys():
        return AppliedModels(models, missing=tuple(BY_NAME))
    views = {view.model.name: view for view in planned or views_of(dataset)}
    groups: dict[str, list[str]] = {group: [] for group in AppliedModels._fields[1:]}
    for model, view in views.items():
        groups[_state(model, view, comments, dataset.kind in MARKED)].append(model)
    return AppliedModels(models, *(tuple(group) for group in groups.values()))


def _state(model: str, view: ModelView, comments: Mapping[str, str | None], marked: bool) -> str:
    if model not in comments:
        return "missing"
    comment = comments[model]
    if comment is None or (marked and not _MARK.search(comment)):
        return "taken"
    return "current" if not marked or comment.endswith(view.mark) else "stale"


def view_comments(dataset: SqlDataset) -> dict[str, str | None]:
    """Returns the comments of the views in the current dataset, by name; tables have None."""
    sql = dataset.client.sql_client
    if not sql.has_dataset():
        return {}
    if dataset.kind not in MARKED:
        views = dataset.views()
        return {table: "" if table in views else None for table, *_ in dataset.sql.columns()}
    text = sql_file(MARKED[dataset.kind])
    rows = sql.execute_sql(text, *[sql.dataset_name] * text.count("%s"))
    return {str(name): comment for name, comment in rows or ()}
