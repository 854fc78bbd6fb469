"""Reads dlt's settings, and holds the defaults of this project."""

import os
import sys
from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from ..clients.settings import MAX_TIMEOUT
from ..display import nearest
from ..errors import InvalidSetting

if TYPE_CHECKING:
    from .dlt_internals import ConfigValueCannotBeCoercedException, ValueNotSecretException

DATASET = "autopilothq"
DUCKDB_FILE = "autopilot.duckdb"  # in the current folder
# The values of this project's .dlt/config.toml, for folders without such a file.
DEFAULTS: dict[str, Any] = {
    "runtime.dlthub_telemetry": False,
    "load.truncate_staging_dataset": True,
    "load.auto_abort_on_terminal_error": True,
    "load.delete_completed_jobs": True,
}
# This project's settings outside of sections, and its sections within dlt's sections.
_TOP_LEVEL = ("destination_type", "dataset_name", "books_dataset")
_SECTIONS = {
    "sources": {"autopilothq"},
    "destination": {"autopilothq", "segment"},
    "receive": {"v1", "segment", "rudder", "autopilot", "ortto"},
}
# How similar a name must be to that of a setting to count as its misspelling. Outside of sections, where any program
# may have settings, it must be more similar: neither `database_name` nor `dataset_name_2` is a misspelt `dataset_name`.
_TYPING_ERROR, _TYPING_ERROR_AMONG_ALL = 0.8, 0.9
TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a table",
    str: "a text",
    list: "a list",
}


class Range(NamedTuple):
    """The numbers that a setting may have: from `least` to `most`, both included. None allows every finite number."""

    least: float
    most: float | None = None


TIMEOUT_RANGE = Range(0.001, MAX_TIMEOUT)
"""The range of a time-out: systems count in whole milliseconds, and cannot count beyond some weeks of them."""


class TargetOptions(NamedTuple):
    """A target in dlt's terms, as a user names it. None means the value of dlt's configuration."""

    destination: str | None = None
    credentials: str | None = None
    dataset: str | None = None


CONFIGURED_TARGET = TargetOptions()


def configure(**more: Any) -> None:
    """Sets DEFAULTS and `more` where dlt's configuration has no value. `__` in a name stands for a dot.

    Example: `configure(runtime__log_level="INFO")`.
    """
    import dlt

    from .dlt_internals import active

    for key, value in (DEFAULTS | {name.replace("__", "."): value for name, value in more.items()}).items():
        if dlt.config.get(key) is None:
            dlt.config[key] = value
    active().initialize_runtime()


def setting(name: str) -> Any:
    """Returns a value of dlt's secrets or configuration, None if neither has it."""
    import dlt

    providers: tuple[Any, ...] = (dlt.secrets, dlt.config)
    return next((value for provider in providers if (value := provider.get(name)) is not None), None)


def text_setting(name: str) -> str:
    """Returns a text of dlt's secrets or configuration, "" by default. Raises InvalidSetting if it is not text."""
    value = setting(name)
    if not isinstance(value, str | None):
        raise InvalidSetting(f"{name} must be {TYPE_NAMES[str]}, got {value!r}")
    return value or ""


def dataset_name(dataset: str | None) -> str:
    """Returns the dataset's name: the option, or the setting `dataset_name`, or the default.

    Raises InvalidSetting if the setting is not text.
    """
    return dataset or text_setting("dataset_name") or DATASET


def configured_names(section: str) -> dict[str, bool]:
    """Returns the names in a section of dlt's configuration, from its files and the environment.

    Each value is whether the name stands for a section or a TOML table, and not for a single setting.
    """
    import dlt

    before = f"{section.upper().replace('.', '__')}__"
    names: dict[str, bool] = {}
    for variable in os.environ:
        if variable.startswith(before):
            name, *below = variable[len(before) :].lower().split("__")
            names[name] = names.get(name, True) and bool(below)
    for provider in dlt.config.config_providers:
        parts = section.split(".")
        found = provider.get_value(parts[-1], dict, "", *parts[:-1])[0] if provider.name.endswith(".toml") else None
        for name, value in found.items() if isinstance(found, Mapping) else ():
            names[name] = names.get(name, True) and isinstance(value, Mapping)
    return names


def check_top_level() -> None:
    """Raises InvalidSetting if a file of dlt's configuration misspells a top-level setting or section of this project.

    Names that resemble none of the project's belong to other programs, and so do sections without one of its sections.
    """
    from .dlt_internals.runtime import configuration_files

    for name, value in (item for file in configuration_files() for item in file.items()):
        if isinstance(value, Mapping):
            known, what = [section for section, own in _SECTIONS.items() if own & set(value)], "section"
            is_wrong = name not in _SECTIONS and is_misspelt(name, known)
        else:
            known, what = list(_TOP_LEVEL), "setting"
            is_longer = name.lower().startswith(_TOP_LEVEL) and name.lower() not in _TOP_LEVEL
            is_other = name in _TOP_LEVEL or is_longer
            is_wrong = not is_other and is_misspelt(name.lower(), known, _TYPING_ERROR_AMONG_ALL)
        if is_wrong:
            raise unknown_setting(f"dlt's configuration has no {what} {name}", name.lower(), known)


def is_misspelt(name: str, known: Sequence[str], cutoff: float = _TYPING_ERROR) -> bool:
    """Returns whether a name is a known one, or so similar to one that it may be its misspelling."""
    import difflib  # imported at the top, it would slow down every command

    return bool(difflib.get_close_matches(name, known, n=1, cutoff=cutoff))


def unknown_setting(text: str, name: str, known: Sequence[str]) -> InvalidSetting:
    """Returns the error for an unknown setting, with the known name that is nearest to it."""
    return InvalidSetting(f"{text}: {nearest(name, known)}")


def typed_settings(section: str, types: Mapping[str, type]) -> dict[str, Any]:
    """Returns the values that dlt's secrets or configuration have for settings of a section, by name, in these types.

    The environment holds only text, so `false` there is text until it is converted.
    Raises InvalidSetting for what is not of its type.

    Example: `typed_settings("sources.autopilothq.ortto", {"tries": int, "allow_http": bool})`.
    """
    return {name: value for name, of in types.items() if (value := _typed(f"{section}.{name}", of)) is not None}


def _typed(name: str, of: type) -> Any:
    import dlt

    providers: tuple[Any, ...] = (dlt.secrets, dlt.config)
    try:
        values = (provider.get(name, of) for provider in providers)
        return next((value for value in values if value is not None), None)
    except ValueError as error:
        got = "" if ".credentials." in name else f", got {setting(name)!r}"  # credentials may hold secrets
        raise InvalidSetting(f"{name} must be {TYPE_NAMES[of]}{got}") from error


def check_range(name: str, value: float, allowed: Range) -> None:
    """Raises InvalidSetting if the value of a setting is out of its range, as NaN always is.

    Example: `check_range("the setting max_event_tables", 500, Range(0))`.
    """
    if not allowed.least <= value <= (sys.float_info.max if allowed.most is None else allowed.most):
        most = "" if allowed.most in (None, inf) else f" and at most {allowed.most:,}"
        raise InvalidSetting(f"Expected a number of at least {allowed.least:g}{most} as {name}, but got {value}.")


# ---- messages for dlt's errors; this module must not import dlt -----------------------------------------------------


def wrong_setting(error: "ConfigValueCannotBeCoercedException") -> str:
    """Returns the message about a setting of the wrong type, with its value only if that cannot be a secret."""
    if error.hint in (int, float, bool):
        expected, came = TYPE_NAMES[error.hint], f"got {error.field_value!r}"
    else:
        expected = f"a value of the type {getattr(error.hint, '__name__', error.hint)}"
        came = "it cannot be read as one"
    return (
        f"Expected {expected} as the setting {error.field_name}, but {came}.\n"
        "Correct it in .dlt/config.toml, in .dlt/secrets.toml or in the environment, in the variable whose name ends in"
        f" {error.field_name.upper()}."
    )


def misplaced_secret(error: "ValueNotSecretException") -> str:
    """Returns the message about a secret in a file that is not for secrets."""
    return f"{error.key} is secret, but it is in .dlt/{error.provider_name}.\nMove it to .dlt/secrets.toml."
