"""Resolves the destination from the options and dlt's configuration; by default a DuckDB file in the current folder."""

import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import dlt
import duckdb
from dlt.common.pipeline import get_dlt_pipelines_dir
from dlt.sources import credentials as specs

from ..disk import local_path
from ..errors import RunError
from ..machine import cores
from . import requirements
from .bigquery import bigquery
from .dataset import are_named_alike, check_no_system_schema
from .delta import lake
from .dlt_internals import Destination, DuckDbCredentials, WithLocalFiles, active, get_destination_client_initial_config
from .dlt_internals.clients import with_required_credentials
from .dlt_internals.ducklake import allow_all_columns
from .dlt_internals.mysql import use_exact_text
from .duckdb import direct
from .pipeline_names import PIPELINE
from .postgres import postgres
from .settings import CONFIGURED_TARGET, DUCKDB_FILE, TargetOptions, dataset_name, setting, text_setting, typed_settings

# The order of rows has no meaning, and keeping it slows down DuckDB's checkpoints; the rest bounds the memory. Tables
# are loaded in parallel, and each thread within a table leaves a part that the checkpoint writes again.
DUCKDB_CONFIG = {"preserve_insertion_order": False, "memory_limit": "500MB", "threads": max(1, min(4, cores() // 2))}


def reads_files_here(pipeline: dlt.Pipeline | None) -> bool:
    """Returns whether the files of a pipeline's rows are read on this machine, and not uploaded anywhere."""
    staging: object = pipeline.staging if pipeline else None
    return staging is None and pipeline is not None and isinstance(pipeline.destination, (direct, postgres))


def makes_dlt_columns_nullable(pipeline: dlt.Pipeline | None) -> bool:
    """Returns whether the columns that dlt itself adds to tables may be null, whatever dlt's schema says."""
    return pipeline is not None and isinstance(pipeline.destination, (direct, postgres))


class Target(NamedTuple):
    """Where data lands, without secrets. dlt's state records its `str`."""

    kind: str
    """dlt's name of the destination's type, for example `duckdb`."""
    location: str
    """A URL, as the destination shows it."""
    dataset: str
    database: str | None = None
    """The path of a DuckDB file."""

    def __str__(self) -> str:
        return f"{self.kind} {self.location}, dataset {self.dataset}"

    @property
    def path_or_url(self) -> str:
        """The path of a DuckDB file, or the URL of any other destination, for messages."""
        return self.database or self.location


def resolve_target(options: TargetOptions = CONFIGURED_TARGET) -> Target:
    """Returns the target of a load with these options, without connecting to it.

    Raises RunError if a package of the destination is missing.
    """
    factory, name = make_destination(options)
    try:
        config = factory.configuration(get_destination_client_initial_config(factory, name))
        _ = factory.client_class
    except ImportError as error:
        raise RunError(requirements.missing_package(error, factory)) from error
    kind = config.destination_type.rpartition(".")[2]
    database = config.credentials.database if kind == "duckdb" else None
    if database and os.path.isabs(database):
        # Some releases of dlt escape the path in str(config).
        return Target(kind, f"duckdb:///{database}", name, database)
    return Target(kind, str(config), name)


def make_destination(
    options: TargetOptions = CONFIGURED_TARGET,
    create: bool = True,
    wait: timedelta = timedelta(),
    reads: bool = False,
) -> tuple[Any, str]:
    """Returns the dlt destination and the name of the dataset in it.

    Options that are None come from dlt's configuration (`destination_type`, `dataset_name`). The default is a DuckDB
    file in the current folder. A DuckDB file is created only with `create`, opened read-only with `reads`, and waited
    for, up to `wait`, if another program has it open. Relative paths begin in the current folder. The setting
    `books_dataset` names a separate dataset for the books.

    Raises RunError if a DuckDB file is named like the dataset or its path cannot be used, if the books cannot be in
    another dataset, if the destination's tables cannot be queried, or if a URL is wrong. Raises NotSupported if
    the dataset is named like one of the database's system schemas.
    """
    destination_name = options.destination or text_setting("destination_type") or "duckdb"
    kind = _kind_of(destination_name)
    name = dataset_name(options.dataset)
    check_no_system_schema(kind, name, "Name another: --dataset")
    check_no_system_schema(kind, text_setting("books_dataset"), "Name another: --books-dataset")
    if kind == "duckdb":
        factory = _duckdb_destination(destination_name, options.credentials, name, create, wait, reads)
    else:
        factory = _other_destination(destination_name, kind, options.credentials)
    if books := text_setting("books_dataset"):
        _set_books_dataset(books, factory, kind, name)
    if issubclass(factory.spec, WithLocalFiles):
        # By default dlt takes the folder of the pipeline's first run, and for `:pipeline:` its working folder.
        factory.config_params["local_dir"] = _local_folder()
        factory.config_params["pipeline_working_dir"] = os.path.join(get_dlt_pipelines_dir(), PIPELINE)
        factory.config_params["pipeline_name"] = PIPELINE  # dlt names the file for `:pipeline:` after it
    return factory, name


def _set_books_dataset(books: str, factory: Any, kind: str, dataset: str) -> None:
    if not hasattr(factory.spec, "books_dataset"):
        raise RunError(
            f"Expected DuckDB or PostgreSQL, where the books can have a dataset of their own, but got {kind}.\n"
            "Leave out --books-dataset, or the setting books_dataset."
        )
    if books.lower() == dataset.lower():
        raise RunError(f"Expected a dataset for the books other than {dataset}, which has the events' tables.")
    factory.config_params["books_dataset"] = books


def _kind_of(destination_name: str) -> str:
    """Returns a destination's type: the one that dlt's configuration gives for its name, or else the name itself."""
    of = "" if "." in destination_name else text_setting(f"destination.{destination_name}.destination_type")
    return of.removeprefix("dlt.destinations.") if of else destination_name


def _local_folder() -> str:
    return os.path.abspath(active().local_dir)


def _other_destination(destination_name: str, kind: str, credentials: str | None) -> Any:
    if kind in requirements.NO_WAREHOUSES:  # before anybody installs their packages in vain
        raise RunError(requirements.no_warehouse(kind))
    if kind == "filesystem":
        url = credentials or str(setting(f"destination.{destination_name}.bucket_url") or "")
        if url.removeprefix("file://").startswith("~"):  # dlt would create a folder of that name
            credentials = local_path(url)
        located: dict[str, Any] = {"bucket_url": credentials} if credentials else {}
        return lake(**located, destination_name=destination_name)
    _check_url(kind, credentials or setting(f"destination.{destination_name}.credentials"))
    given = {"credentials": credentials} if credentials else {}
    own: dict[str, Any] = {"postgres": postgres, "bigquery": bigquery}
    if kind in own:
        return own[kind](**given, destination_name=destination_name)
    if kind == "sqlalchemy":
        with suppress(ImportError):  # a package that is missing is reported when it is used
            use_exact_text()
    if kind == "ducklake":
        allow_all_columns()
    made: Any = Destination.from_reference(destination_name, **given)
    return with_required_credentials(made)


def _with_settings(given: DuckDbCredentials, section: str) -> DuckDbCredentials:
    """Returns a file's credentials with dlt's settings in a section: dlt reads none for credentials that it is given.

    The time zone of sessions is left out: all queries here expect UTC.
    """
    types = dict.fromkeys(("extensions", "pragmas", "statements"), list)
    for name, value in typed_settings(section, types | dict.fromkeys(("global_config", "local_config"), dict)).items():
        setattr(given, name, value)
    given.global_config = DUCKDB_CONFIG | (given.global_config or {})
    return given


def _check_url(kind: str, credentials: Any) -> None:
    """Raises RunError if a part of the password would be taken for the host, and so sent to a name server.

    Also raises it if libpq, which PostgreSQL and Redshift share, would read the URL as a list of options.
    """
    if not isinstance(credentials, str):
        return
    with suppress(ValueError):  # credentials that cannot be parsed are reported when they are used
        url = specs.ConnectionStringCredentials(credentials)
        if url.host and "@" in f"{url.host}{url.database}":
            raise RunError(
                f"Expected the credentials of {kind} as a URL with one @, before the host, but there are more.\n"
                "In its user and password write %40 for @, %2F for /, %3A for :, %3F for ? and %25 for %."
            )
        if kind in ("postgres", "redshift") and url.drivername not in ("postgresql", "postgres"):
            raise RunError(
                f"Expected the credentials of {kind} as a URL like postgresql://user@host:port/database, but it begins"
                f" with {url.drivername}://.\nCorrect it, or name that kind of database by --destination."
            )


def _check_file(database: str, dataset: str, option: str) -> None:
    if are_named_alike(database, dataset):
        raise RunError(
            f"The DuckDB file {database} is named like the dataset {dataset}, and DuckDB cannot tell them apart.\n"
            f"Name another file (--credentials other.duckdb) or another dataset ({option} other)."
        )


def _check_folder(database: str) -> None:
    folder = os.path.dirname(database)
    if not os.path.isdir(folder):
        raise RunError(
            f"Expected a folder {folder} for the DuckDB file, but there is none.\n"
            "Make it (mkdir -p), or name a file elsewhere: --credentials /data/other.duckdb"
        )


def _duckdb_destination(
    destination_name: str, credentials: str | None, dataset: str, create: bool, wait: timedelta, reads: bool
) -> Any:
    configured = setting(f"destination.{destination_name}.credentials")
    settings = configured if isinstance(configured, dict) else {"database": configured}
    database = local_path(str(credentials or settings.get("database") or DUCKDB_FILE).removeprefix("duckdb:///"))
    _check_file(database, dataset, "--dataset")
    _check_file(database, text_setting("books_dataset"), "--books-dataset")
    if database.startswith("md:"):
        raise RunError(
            "Expected the path of a DuckDB file, got a MotherDuck URL, which is a destination of its own.\n"
            "Name that: --destination motherduck"
        )
    is_file = not database.startswith(":")
    if is_file:
        database = os.path.abspath(os.path.join(_local_folder(), database))
    if "?" in database:
        raise RunError(
            f"DuckDB cannot keep a database at {database}: it takes what follows a ? for options.\n"
            "Rename that folder, or name a file elsewhere (--credentials /data/other.duckdb)."
        )
    # `:pipeline:` is dlt's name for a file in the pipeline's folder; other names with a colon in front are left to dlt.
    file = os.path.join(get_dlt_pipelines_dir(), PIPELINE, f"{PIPELINE}.duckdb")
    file = file if database == ":pipeline:" else database
    if not create and (is_file or not reads) and not Path(file).exists():
        nowhere = duckdb.connect(config={"enable_external_access": False})
        return direct(credentials=nowhere, destination_name=destination_name)
    if create and is_file:
        _check_folder(database)
    spec = _with_settings(DuckDbCredentials(database, read_only=reads), f"destination.{destination_name}.credentials")
    return direct(credentials=spec, destination_name=destination_name, wait=wait.total_seconds())
