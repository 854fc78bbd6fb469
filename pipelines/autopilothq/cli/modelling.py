"""Runs the commands `models`: applies, drops and prints models."""

import re
from collections.abc import Sequence
from datetime import timedelta

import click

from .. import inspect, models, views
from ..display import nearest, plural
from ..errors import RunError
from ..warehouses.dataset import SqlDataset
from ..warehouses.settings import TargetOptions, dataset_name
from . import out


def apply_models(dry_run: bool, models_dataset: str | None, target: TargetOptions, wait: timedelta) -> None:
    """Creates or replaces the views, and prints what changed; a dry run prints the statements instead."""
    before, statements = views.apply(target, models_dataset, wait, dry_run)
    if dry_run:
        out.document("\n".join(f"{statement};" for statement in statements))
        return
    counts = {"created": before.missing, "replaced": before.stale, "unchanged": before.current}
    found = ", ".join(f"{len(names)} {what}" for what, names in counts.items() if names)
    out.print_line(f"{len(models.MODELS)} views in {before.dataset}: {found}.")


def drop_models(models_dataset: str | None, target: TargetOptions, wait: timedelta) -> None:
    """Drops the views, and prints how many."""
    before = views.remove(target, models_dataset, wait)
    count = plural(len(before.ours), "view") if before.ours else "No views"
    out.print_line(f"{count} dropped in {before.dataset}.")


def print_models(names: Sequence[str], live: bool, target: TargetOptions, wait: timedelta) -> None:
    """Prints a list of the models, or the SQL of those in `names`."""
    for name in names:
        if name not in models.BY_NAME:
            hint = nearest(name, list(models.BY_NAME))
            raise click.BadParameter(f"There is no model {name}: {hint}", param_hint="MODEL")
    if not names:
        rows = [[name, re.split("[.:]", model.description)[0]] for name, model in models.BY_NAME.items()]
        out.document("\n".join(inspect.grid(rows)))
        return
    texts = _live(names, target, wait) if live else _offline(names, target)
    out.document("\n\n".join(f"-- {models.BY_NAME[name].description}\n{text};" for name, text in texts.items()))


def _offline(names: Sequence[str], target: TargetOptions) -> dict[str, str]:
    _, dialect = inspect.kind_of(target)
    schema = dataset_name(target.dataset)
    return {name: models.sql(name, dialect=dialect or "duckdb", schema=schema) for name in names}


def _live(names: Sequence[str], target: TargetOptions, wait: timedelta) -> dict[str, str]:
    with inspect.reading(*target, wait=wait) as dataset:
        if not isinstance(dataset, SqlDataset):
            raise RunError(f"Expected a destination that answers SQL, but {dataset.kind} does not: leave out --live.")
        inspect.check_types_of_models(dataset)
        return {view.model.name: view.text for view in inspect.views_of(dataset, tuple(names))}
