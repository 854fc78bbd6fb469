"""Which warehouse: what the options and dlt's configuration say, else a DuckDB file in the current folder."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import dlt
import duckdb
from dlt.common.destination import Destination
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials

from .direct import direct
from .lake import lake
from .postgres import postgres

DATASET = "autopilothq"
DUCKDB_FILE = "autopilot.duckdb"
# The order of rows says nothing, and keeping it makes DuckDB's checkpoints slow; the rest bounds the memory.
DUCKDB_CONFIG = {"preserve_insertion_order": False, "memory_limit": "500MB", "threads": 2}


class RunError(Exception):
    """A run that cannot be done; one or two lines that say why and what to do."""

    status = 1
    """What the program exits with."""


class BusyError(RunError):
    """Someone else is at work in the same place: later it will do (`EX_TEMPFAIL` of sysexits)."""

    status = 75


def warehouse(
    destination: str | None = None,
    credentials: str | None = None,
    dataset: str | None = None,
    create: bool = True,
    wait: timedelta = timedelta(),
) -> tuple[Any, str]:
    """The dlt destination and the name of the dataset in it.

    What is None comes from dlt's configuration (`destination_type`, `dataset_name`), and else is a DuckDB file in the
    current folder, which is not created unless `create`, and is waited for, up to `wait`, where another program has it
    open. Raises RunError where DuckDB could not tell the file from the dataset.
    """
    kind = destination or setting("destination_type") or "duckdb"
    name = dataset or setting("dataset_name") or DATASET
    return (_duckdb(credentials, name, create, wait) if kind == "duckdb" else _other(kind, credentials)), name


def _other(kind: str, credentials: str | None) -> Any:
    if kind == "filesystem":
        return lake(credentials) if credentials else lake()
    given = {"credentials": credentials} if credentials else {}
    return postgres(**given) if kind == "postgres" else Destination.from_reference(kind, **given)


def setting(name: str) -> Any:
    """A value of dlt's secrets or configuration, None where neither has it."""
    providers: tuple[Any, ...] = (dlt.secrets, dlt.config)
    return next((value for provider in providers if (value := provider.get(name)) is not None), None)


def _duckdb(credentials: str | None, dataset: str, create: bool, wait: timedelta) -> Any:
    configured = setting("destination.duckdb.credentials")
    settings = configured if isinstance(configured, dict) else {"database": configured}
    database = str(credentials or settings.get("database") or DUCKDB_FILE).removeprefix("duckdb:///")
    if Path(database).stem.lower() == dataset.lower():
        raise RunError(
            f"The DuckDB file {database} is named like the dataset {dataset}, and DuckDB cannot tell them apart.\n"
            "Name another file (--credentials other.duckdb) or another dataset (--dataset other)."
        )
    if not create and not Path(database).exists():
        return direct(credentials=duckdb.connect())
    spec = DuckDbCredentials(database)
    spec.global_config = DUCKDB_CONFIG | settings.get("global_config", {})
    return direct(credentials=spec, wait=wait.total_seconds())
