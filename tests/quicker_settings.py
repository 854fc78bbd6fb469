"""Saves dlt work whose result is known, only in tests: a tenth of a small load's processor time.

The results are the same: of looking up settings that are not set, normalizing known names, and hashing a schema.
"""

import base64
import functools
import hashlib
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from dlt.common.configuration import resolve
from dlt.common.configuration.container import Container
from dlt.common.configuration.providers.environ import EnvironProvider
from dlt.common.json import json
from dlt.common.normalizers.naming.naming import NamingConvention
from dlt.common.schema import utils as schema_utils
from dlt.destinations.impl.duckdb.configuration import DuckDbConnectionPool
from dlt.extract import extract

_UNHASHED = ("version", "version_hash", "imported_version_hash", "previous_hashes")
_MOST_TEXTS = 2_000
_OF_FILES = "enable_checkpoint_on_shutdown"
_SECRETS = "/run/secrets"  # where dlt looks for a file of each secret


def spare_settings() -> None:
    """Applies all patches of this module."""
    look_up_once()
    log_what_is_found()
    hash_names_at_once()
    normalize_paths_once()
    write_traces_once()
    find_contexts_quickly()
    set_up_files_once()


def look_up_once() -> None:
    """Has dlt compose the names of a setting's variables only once; it looks up the same hundred in each load."""
    look_up = resolve.resolve_single_provider_value
    known: dict[tuple[object, ...], tuple[list[bytes], list[Any]]] = {}
    variables: dict[bytes, bytes] = vars(os.environ)["_data"]
    has_secrets = os.path.isdir(_SECRETS)

    @functools.wraps(look_up)
    def found(provider: Any, key: str, hint: Any, *places: Any) -> tuple[Any, list[Any]]:
        if type(provider) is not EnvironProvider or has_secrets:
            return look_up(provider, key, hint, *places)
        asked = (key, *places)
        if asked not in known:
            value, traces = look_up(provider, key, hint, *places)
            if value is not None:
                return value, traces
            known[asked] = [os.fsencode(trace.key) for trace in traces], traces
        names, traces = known[asked]
        if any(name in variables for name in names):
            return look_up(provider, key, hint, *places)
        return None, [*traces]

    vars(resolve)["resolve_single_provider_value"] = found


def log_what_is_found() -> None:
    """Has dlt log only the settings that it finds, because it never reads the others in that log."""
    log = vars(resolve)["log_traces"]

    def log_traces(config: Any, key: str, hint: Any, value: Any, *rest: Any) -> None:
        if value is not None:
            log(config, key, hint, value, *rest)

    vars(resolve)["log_traces"] = log_traces


def hash_names_at_once() -> None:
    """Has dlt add all columns' names to a schema's hash at once, and look for incomplete columns in one pass."""

    def generate_version_hash(stored: Any) -> str:
        content = {key: value for key, value in stored.items() if key not in _UNHASHED}
        tables = content.get("tables") or {}
        names = [name for table in sorted(tables) for name in (table, *(tables[table].get("columns") or ()))]
        digest = hashlib.sha3_256(json.dumpb(content, sort_keys=True))
        digest.update("".join(names).encode())
        return base64.b64encode(digest.digest()).decode("ascii")

    def find_incomplete_columns(table: Any) -> Iterator[tuple[Any, bool]]:
        for column in table["columns"].values():
            if not (column.get("name") and column.get("data_type")):
                yield column, column.get("nullable", True)

    for quick in (generate_version_hash, find_incomplete_columns):
        _replace(vars(schema_utils)[quick.__name__], quick)


def _replace(own: Callable[..., Any], quick: Callable[..., Any]) -> None:
    vars(quick)["__wrapped__"] = own
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("dlt.") and vars(module).get(own.__name__) is own:
            vars(module)[own.__name__] = quick


def normalize_paths_once() -> None:
    """Has each naming convention normalize a path only once."""
    for name in ("normalize_path", "normalize_tables_path"):
        setattr(NamingConvention, name, _once(getattr(NamingConvention, name)))


def _once(normalize: Callable[[NamingConvention, str], str]) -> Callable[[NamingConvention, str], str]:
    known: dict[tuple[type, int | None, str], str] = {}

    @functools.wraps(normalize)
    def normalized(naming: NamingConvention, path: str) -> str:
        key = type(naming), naming.max_length, path
        if key not in known:
            known[key] = normalize(naming, path)
        return known[key]

    return normalized


def write_traces_once() -> None:
    """Has dlt render equal data for its traces only once."""
    dump, known = vars(extract)["yaml"].dump, dict[bytes, str]()

    def dumped(data: Any, **options: Any) -> str:
        try:
            key = pickle.dumps((data, options))
        except (AttributeError, TypeError, pickle.PicklingError):  # it has a function of a user
            return str(dump(data, **options))
        if key not in known:
            if len(known) >= _MOST_TEXTS:
                known.clear()
            known[key] = dump(data, **options)
        return known[key]

    vars(extract)["yaml"] = SimpleNamespace(dump=dumped)


def find_contexts_quickly() -> None:
    """Has dlt match the names of threads only in its own pools, whenever it needs a context."""
    own = Container._effective_thread_id

    def thread_id(container: Container) -> int:
        is_of_pool = threading.current_thread().name.startswith("dlt-pool-")
        return own(container) if is_of_pool else threading.get_ident()

    setattr(Container, "_effective_thread_id", thread_id)  # noqa: B010


def set_up_files_once() -> None:
    """Has dlt enable DuckDB's checkpoint at shutdown only once, and not in each of forty connections."""
    own = DuckDbConnectionPool._apply_local_config

    def apply(pool: Any, con: Any, settings: Any = None, pragmas: Any = None) -> None:
        is_another = pool._conn is not None and con is not pool._conn
        own(pool, con, settings, [pragma for pragma in pragmas or () if not (is_another and pragma == _OF_FILES)])

    setattr(DuckDbConnectionPool, "_apply_local_config", apply)  # noqa: B010
