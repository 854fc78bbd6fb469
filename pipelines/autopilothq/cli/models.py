"""The commands `models apply`, `drop` and `show`, for the models as views in the destination."""

from datetime import timedelta

import click

from ..warehouses.settings import TargetOptions
from .options import target_options, wait_option

_models_dataset_option = click.option(
    "--models-dataset",
    metavar="NAME",
    help="The schema of the views.  [default: the name of the events' schema with _models]",
)


@click.group(short_help="Views with opens, rates and people, defined once.")
def models() -> None:
    """Numbers that are defined once: opens, rates and people, by email, journey, link, domain and day.

    They are views in a schema of their own, by default autopilothq_models.
    """


@models.command("apply", short_help="Create the views, or replace them.")
@click.option("--dry-run", is_flag=True, help="Show the statements, and change nothing.")
@_models_dataset_option
@target_options
@wait_option
def apply_views(dry_run: bool, models_dataset: str | None, target: TargetOptions, wait: timedelta) -> None:
    """Create the views, or replace them with those that this version makes for the tables that exist now.

    Run it again when `status` reports views that are out of date: they do not read some new tables or columns yet.
    """
    from . import modelling

    modelling.apply_models(dry_run, models_dataset, target, wait)


@models.command("drop", short_help="Drop the views that apply made.")
@_models_dataset_option
@target_options
@wait_option
def drop_views(models_dataset: str | None, target: TargetOptions, wait: timedelta) -> None:
    """Drop the views that `models apply` made, and nothing else."""
    from . import modelling

    modelling.drop_models(models_dataset, target, wait)


@models.command("show", short_help="List the models, or print their SQL.")
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option("--live", is_flag=True, help="Read the destination: the SQL reads the tables and columns that it has.")
@target_options
@wait_option
def show_models(names: tuple[str, ...], live: bool, target: TargetOptions, wait: timedelta) -> None:
    """List the models, or print the SQL of those that are named, for the destination.

    Without --live, it connects to nothing, and the SQL reads the catalogue's tables.
    """
    from . import modelling

    modelling.print_models(names, live, target, wait)
