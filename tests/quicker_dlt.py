"""Caches dlt's lookups of type hints, only in tests: they take a quarter of a small load's processor time.

dlt inspects the hints of all fields of a configuration each time that it resolves one, some hundred times in a load.
The result depends on the hint alone. The caches that this package applies in a run are applied here as well, so that
tests that call dlt themselves have them, whether they come before or after the first run in their process.
"""

import functools
import importlib.util
import sys
from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import dlt  # noqa: F401 - its modules hold the functions by name once they are imported
import yaml
from dlt.common import typing as dlt_typing
from dlt.common import validation
from dlt.common.configuration.specs import base_configuration
from dlt.common.normalizers.json import relational
from dlt.common.schema import schema as dlt_schema
from dlt.common.schema import utils as schema_utils
from dlt.common.storages import schema_storage
from dlt.extract import hints as dlt_hints

import autopilothq
from autopilothq.warehouses.dlt_internals.caching import cache_repeated_work
from quicker_settings import spare_settings

ASKED = {
    dlt_typing: (
        "extract_inner_type", "extract_type_if_modifier", "extract_union_types", "is_annotated", "is_any_type",
        "is_callable_type", "is_dict_generic_type", "is_final_type", "is_generic_alias", "is_list_generic_type",
        "is_literal_type", "is_newtype_type", "is_optional_type", "is_subclass", "is_tuple_generic_type",
        "is_union_type",
    ),
    base_configuration: (
        "is_base_configuration_inner_hint", "is_context_inner_hint", "is_credentials_inner_hint",
        "is_hint_not_resolvable", "is_secret_hint", "is_valid_hint",
    ),
}  # fmt: skip


def import_commands() -> None:
    """Imports what the program's commands import when they run, for processes that run many of them."""
    for name in ("deleting", "inspecting", "loading", "sending"):
        import_module(f"autopilothq.cli.{name}")
    for name in ("numpy.ma", "pyarrow.dataset", "pytz", "sqlalchemy"):  # as dlt, Arrow and DuckDB do in a first load
        import_module(name)
    for name in autopilothq.__all__:
        getattr(autopilothq, name)


def cache_hints() -> None:
    """Replaces the functions in all modules of dlt by cached ones, and applies the other shortcuts.

    Functions that the installed release does not have are left out.
    """
    for module, names in ASKED.items():
        for name in names:
            if asked := getattr(module, name, None):
                _replace(name, asked, _cached(asked))
    cache_repeated_work()
    spare_settings()
    validate_once()
    quick_yaml()
    if importlib.util.find_spec("pandas") is None:
        # Makes an import fail at once: DuckDB looks for pandas some 350 times in a load.
        sys.modules["pandas"] = None  # type: ignore[assignment]


def validate_once() -> None:
    """Has dlt validate equal hints and equal parts of schemas only once, unless they were refused."""
    namings: dict[tuple[type, int | None], Callable[..., bool]] = {}
    make = schema_utils.column_name_validator

    def validator_of(naming: Any) -> Callable[..., bool]:  # the same one for equal namings
        return namings.setdefault((type(naming), naming.max_length), make(naming))

    vars(relational)["column_name_validator"] = validator_of
    for module in (dlt_schema, relational):
        vars(module)["validate_dict"] = _validating_once(validation.validate_dict)
    for module in (dlt_hints, schema_utils):
        vars(module)["validate_dict_ignoring_xkeys"] = _validating_once(validation.validate_dict_ignoring_xkeys)


def _validating_once(validate: Callable[..., None]) -> Callable[..., None]:
    valid = set[tuple[object, ...]]()

    def validated(spec: Any, doc: Any, path: str, validator_f: Callable[..., bool] | None = None) -> None:
        key = (spec, validator_f, repr(doc))
        if key not in valid:
            validate(spec=spec, doc=doc, path=path, validator_f=validator_f)
            if len(valid) >= 2_000:  # the keys contain the texts of schemas
                valid.clear()
            valid.add(key)

    return validated


def quick_yaml() -> None:
    """Has dlt read and write YAML with libyaml, if that is installed."""
    if hasattr(yaml, "CDumper"):
        vars(schema_utils)["yaml"] = SimpleNamespace(dump=functools.partial(yaml.dump, Dumper=yaml.CDumper))
        vars(schema_storage)["yaml"] = SimpleNamespace(safe_load=functools.partial(yaml.load, Loader=yaml.CSafeLoader))


def _cached(asked: Callable[..., Any]) -> Callable[..., Any]:
    known = functools.cache(asked)

    @functools.wraps(asked)
    def answer(*hints: Any, **options: Any) -> Any:
        try:
            return known(*hints, **options)
        except TypeError:  # a hint that has no hash
            return asked(*hints, **options)

    return answer


def _replace(name: str, asked: Callable[..., Any], cached: Callable[..., Any]) -> None:
    for module in list(sys.modules.values()):
        named = getattr(module, "__name__", "")
        if named.startswith("dlt.") and vars(module).get(name) is asked:
            setattr(module, name, cached)
