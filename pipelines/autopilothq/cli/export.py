"""The command `export`, which writes a dataset as files."""

from datetime import timedelta

import click

from ..warehouses.settings import TargetOptions
from .options import json_option, target_options, wait_option


@click.command("export", short_help="Write the dataset as an archive or as Parquet.")
@click.argument("folder", metavar="FOLDER", type=click.Path(file_okay=False))
@click.option(
    "--format",
    "form",
    type=click.Choice(["archive", "parquet"]),
    default="archive",
    show_default=True,
    help="Messages as Segment's archive has them, or a Parquet file for each table.",
)
@json_option
@target_options
@wait_option
def export(folder: str, form: str, as_json: bool, target: TargetOptions, wait: timedelta) -> None:
    """Write the dataset as files that need no warehouse: an archive that loads again, or Parquet.

    FOLDER is new or empty, on this machine or at s3://, gs://, az://. It may also hold an export that was cut off,
    which then starts from scratch.
    """
    from . import exporting

    exporting.export_dataset(folder, form, as_json, target, wait)
