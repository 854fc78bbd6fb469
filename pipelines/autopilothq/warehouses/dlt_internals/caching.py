"""Caches and speeds up what dlt repeats many times in a run, such as reading schemas and interpreting type hints."""

import os
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from functools import cache, lru_cache, partial, wraps
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary

import yaml
from dlt import Schema
from dlt.common.configuration.specs.base_configuration import BaseConfiguration
from dlt.common.storages.live_schema_storage import LiveSchemaStorage
from dlt.common.storages.load_package import ParsedLoadJobFileName


@cache
def cache_repeated_work() -> None:
    """Applies all patches of this module, once per process."""
    cache_hint_functions()
    reread_only_changed_schemas()
    write_traces_quickly()
    copy_schemas_quickly()
    hash_schemas_once()
    pass_capabilities_on()
    parse_file_names_once()


@cache
def reread_only_changed_schemas() -> None:
    """Makes dlt read a schema of its working folder again only if its file has changed.

    Otherwise dlt reads, checks and rebuilds the schema whenever it makes a client, some twenty times per load.
    """
    read = LiveSchemaStorage.__getitem__
    seen: WeakKeyDictionary[Schema, _Stamp] = WeakKeyDictionary()

    def get(storage: LiveSchemaStorage, name: str) -> Schema:
        stamp = _stamp(storage.storage.make_full_path(storage._file_name_in_store(name, "json")))
        live = storage.live_schemas.get(name)
        unchanged = live is not None and stamp is not None and seen.get(live) == stamp
        if live is not None and unchanged and not storage.config.import_schema_path and not live.is_modified:
            return live
        found = read(storage, name)
        if stamp is not None:
            seen[found] = stamp
        return found

    setattr(LiveSchemaStorage, "__getitem__", get)  # noqa: B010


_Stamp = tuple[int, int, int]


def _stamp(path: str) -> _Stamp | None:
    """Returns the inode, modification time and size of a file, or None if it is missing."""
    with suppress(OSError):
        file = os.stat(path)
        return file.st_ino, file.st_mtime_ns, file.st_size
    return None


# Pure functions of type hints by the modules that call them; dlt calls them half a million times in a small load.
_HINT_FUNCTIONS = {
    "dlt.common.configuration.resolve": (
        "extract_inner_hint",
        "is_base_configuration_inner_hint",
        "is_context_inner_hint",
        "is_hint_not_resolvable",
        "is_optional_type",
        "is_secret_hint",
        "is_union_type",
    ),
    "dlt.common.configuration.specs.base_configuration": ("is_optional_type",),
    "dlt.common.configuration.providers.environ": ("is_secret_hint",),
    "dlt.common.validation": (
        "extract_union_types",
        "get_type_hints",
        "is_dict_generic_type",
        "is_list_generic_type",
        "is_literal_type",
        "is_optional_type",
        "is_typeddict",
        "is_union_type",
    ),
}
_MOST_HINTS = 10_000
_MOST_FILES = 10_000


@cache
def cache_hint_functions() -> None:
    """Makes dlt interpret each type hint once, instead of once per value that it resolves or validates.

    That halves the time that dlt takes to resolve its configuration and to validate its schemas.
    """
    for module, functions in _HINT_FUNCTIONS.items():
        for name in functions:
            setattr(import_module(module), name, _cached(getattr(import_module(module), name)))
    fields_of = BaseConfiguration.get_resolvable_fields.__func__  # type: ignore[attr-defined]
    known: WeakKeyDictionary[type, Any] = WeakKeyDictionary()  # dlt makes a class for each function that it configures

    def fields(of: type) -> dict[str, Any]:
        if of not in known:
            known[of] = fields_of(of)
        return {**known[of]}

    setattr(BaseConfiguration, "get_resolvable_fields", classmethod(fields))  # noqa: B010


def _cached(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of a type hint with a cache. The key is the hint's identity, because some have no hash."""
    known: dict[Any, tuple[Any, Any]] = {}

    @wraps(function)
    def cached(hint: Any, *args: Any, **more: Any) -> Any:
        key: object = id(hint)
        if args or more:
            key = (key, *args, *((name, value) for name, value in more.items() if name != "globalns"))
        found = known.get(key)
        if found is None:
            if len(known) >= _MOST_HINTS:
                known.clear()
            found = known[key] = (hint, function(hint, *args, **more))  # the hint is kept, so that its id stays its own
        return found[1]

    return cached


@cache
def write_traces_quickly() -> None:
    """Makes dlt write the columns of each resource into its trace with libyaml, if that is installed.

    The text is the same. In pure Python this takes a twentieth of a small load's time.
    """
    dumper = getattr(yaml, "CDumper", yaml.Dumper)
    setattr(import_module("dlt.extract.extract"), "yaml", SimpleNamespace(dump=partial(yaml.dump, Dumper=dumper)))  # noqa: B010


_PLAIN = frozenset({str, int, float, bool, type(None)})


@cache
def copy_schemas_quickly() -> None:
    """Makes dlt copy schemas of tables as plain data; it copies some four hundred in a small load.

    Python's `deepcopy` keeps track of each part, which takes a twentieth of such a load's time.
    """
    for module in ("dlt.common.schema.schema", "dlt.common.schema.utils"):
        setattr(import_module(module), "deepcopy", _copy)  # noqa: B010


def _copy(data: Any) -> Any:
    """Returns a copy of dicts and lists; anything else in them is copied with `deepcopy`."""
    kind = type(data)
    if kind is dict:
        return {name: part if type(part) in _PLAIN else _copy(part) for name, part in data.items()}
    if kind is list:
        return [part if type(part) in _PLAIN else _copy(part) for part in data]
    return data if kind in _PLAIN else deepcopy(data)


@cache
def hash_schemas_once() -> None:
    """Makes dlt read a schema's hash from the dict that `to_dict` returns; it does so some fifty times in a small load.

    Otherwise dlt hashes that dict a second time, with the same result.
    """
    setattr(Schema, "version_hash", property(lambda schema: schema.to_dict()["version_hash"]))  # noqa: B010


# Functions whose third argument is a destination's capabilities, by the modules that call them.
_OF_CAPABILITIES = {
    "dlt.common.destination.client": "prepare_load_table",
    "dlt.common.destination.utils": "prepare_load_table",
    "dlt.destinations.utils": "resolve_merge_strategy",
}


@cache
def pass_capabilities_on() -> None:
    """Makes dlt's functions use the capabilities that dlt passes to them, a dozen times for each table.

    Otherwise dlt first resolves a configuration for that argument, with the same result.
    """
    for module, name in _OF_CAPABILITIES.items():
        setattr(import_module(module), name, _uninjected(getattr(import_module(module), name)))


def _uninjected(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function whose third argument is only injected if it is not passed."""
    own = function.__wrapped__  # type: ignore[attr-defined] # the function that dlt has decorated

    @wraps(function)
    def called(*args: Any, **more: Any) -> Any:
        return (own if len(args) == 3 and args[2] is not None else function)(*args, **more)

    return called


@cache
def parse_file_names_once() -> None:
    """Makes dlt parse the name of each job's file once; it lists the files of all jobs whenever one ends."""
    parse = lru_cache(maxsize=_MOST_FILES)(ParsedLoadJobFileName.parse)
    setattr(ParsedLoadJobFileName, "parse", staticmethod(parse))  # noqa: B010
