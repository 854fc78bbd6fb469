"""Configures dlt before a command runs, and explains errors in the settings that dlt itself reads."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from ..display import gist
from ..errors import RunError
from ..warehouses.settings import misplaced_secret, wrong_setting
from . import log

_APPLIES_RUNTIME = "initialize_runtime"  # dlt's function that applies the settings in [runtime] during its import


def configure_dlt(books_dataset: str | None) -> None:
    """Imports and configures dlt. Raises ClickException if its settings cannot be read."""
    try:
        import dlt
    except Exception as error:
        raise _unread_settings(error) from error

    # Not imported from the runner, because that imports all loaders.
    from ..warehouses.settings import check_top_level, configure, setting

    check_top_level()
    settings = log.log_settings()
    log.configure_logging(*settings)  # again, because dlt has a handler of its own now
    more = {"runtime__log_format": "JSON"} if settings.debug and settings.json else {}
    # dlt also logs errors after which it retries, and errors that this program reports itself.
    configure(**more, **({} if settings.debug else {"runtime__log_level": "CRITICAL"}))
    if books_dataset:
        dlt.config["books_dataset"] = books_dataset
        if setting("books_dataset") != books_dataset:  # secrets.toml has another, or the environment, which comes first
            os.environ["BOOKS_DATASET"] = books_dataset


@contextmanager
def missing_explained(**messages: str) -> Iterator[None]:
    """Turns dlt's error about a missing setting into a RunError with the message for that setting."""
    from dlt.common.configuration.exceptions import ConfigFieldMissingException

    try:
        yield
    except ConfigFieldMissingException as error:
        message = next((messages[field] for field in error.fields if field in messages), None)
        if message is None:
            raise
        raise RunError(message) from error


def _unread_settings(error: Exception) -> Exception:
    """Returns a ClickException for an error of dlt's import, or, with `--debug`, the error itself.

    Without dlt, neither its exception classes nor `explain` can be imported, so attributes identify the error.
    """
    found: Any = error
    if hasattr(error, "full_paths"):
        paths = " or ".join(path for path in found.full_paths if os.path.exists(path))
        why = str(error).splitlines()[-1].rstrip(".")
        return click.ClickException(f"Expected TOML in {paths}, but it cannot be read: {why}.")
    if hasattr(error, "provider_name"):
        return click.ClickException(misplaced_secret(found).replace("\n", " "))
    if hasattr(error, "hint"):
        return click.ClickException(wrong_setting(found).replace("\n", " "))
    if log.log_settings().debug:
        return error
    if any(call.name == _APPLIES_RUNTIME for call in traceback.extract_tb(error.__traceback__)):
        settings = "[runtime] of .dlt/config.toml, .dlt/secrets.toml or the environment"
        return click.ClickException(f"dlt cannot start with the settings in {settings}: {gist(str(error))}")
    return click.ClickException(f"dlt cannot be imported: {type(error).__name__}: {gist(str(error))}")
