"""Messages about what cannot be used: unknown destinations, missing packages and settings, wrong credentials."""

import difflib
from collections.abc import Iterator
from importlib.metadata import distribution
from typing import Any

from dlt import destinations
from dlt.common.configuration.exceptions import ConfigFieldMissingException
from dlt.common.exceptions import MissingDependencyException

from ..extras import PACKAGE, install, is_own_import_error
from .dlt_internals import (
    Destination,
    InvalidNativeValue,
    LookupTrace,
    LookupTraces,
    UnknownDestinationModule,
)

# Extras of this package that dlt has under another name.
_EXTRAS = {"gs": "gcs", "pyiceberg": "iceberg"}
# Settings that credentials can lack if they are given as a URL.
_OF_A_USER = (".credentials.username", ".credentials.password")
# Parts of credentials that dlt finds itself once the others are there.
_FOUND = {"driver", "azure_tenant_id", "azure_client_id", "azure_client_secret"}
# dlt's destinations whose tables cannot be queried.
NO_WAREHOUSES = {"destination", "dummy", "lance", "lancedb", "qdrant", "weaviate"}


def unknown_destination(error: UnknownDestinationModule) -> str:
    """Returns the message about a destination that dlt does not know."""
    known = sorted(set(destinations.__all__) - NO_WAREHOUSES)
    near = ["filesystem"] if error.ref == "delta" else difflib.get_close_matches(error.ref, known, n=1)
    guess = f"Did you mean {near[0]}? " if near else ""
    own = "" if "." in error.ref else f" One that you named yourself needs destination.{error.ref}.destination_type."
    return f"There is no destination {error.ref}.\n{guess}dlt has {', '.join(known)}.{own}"


def no_warehouse(kind: str) -> str:
    """Returns the message about a destination whose tables cannot be queried."""
    return (
        f"Expected a destination that answers SQL, but {kind} does not: nobody could tell what is stored there.\n"
        'Name another one, such as destination="duckdb" or --destination duckdb.'
    )


def missing_package(error: ImportError, factory: Destination[Any, Any] | None = None) -> str:
    """Returns the message about a package that is not installed; `factory` is the destination that needs it.

    Raises the error itself if it is about a module of this package, because that is a bug.
    """
    if is_own_import_error(error):
        raise error
    # Its type, because its name may be one that the user chose.
    kind = factory.destination_type.rpartition(".")[2] if factory else ""
    extras = distribution(PACKAGE).metadata.get_all("Provides-Extra") or ()
    requested = error.dependencies[0] if isinstance(error, MissingDependencyException) else str(error.name)
    # What `filesystem` needs depends on the kind of bucket.
    extra = kind if kind in extras and kind != "filesystem" else requested.removeprefix("dlt[").rstrip("]")
    extra = _EXTRAS.get(extra, extra)
    command = install(extra) if extra in extras else f"pip install '{requested}'"
    cause = next(
        (cause for cause in (error, error.__cause__, error.__context__) if getattr(cause, "name", None)), error
    )
    package = getattr(cause, "name", None) or requested
    who = f"The destination {factory.destination_name}" if factory else getattr(error, "caller", "This")
    return f"{who} needs the package {package}, which is not installed.\nInstall it: {command}"


def missing_settings(error: ConfigFieldMissingException) -> str:
    """Returns the message about missing settings: names, where they belong, and a package that is missing, too."""
    names = list(_settings(error))
    several = len(names) > 1
    env = ", ".join(name.upper().replace(".", "__") for name in names)
    by_option = ".bucket_url" if error.spec_name.startswith("Filesystem") else ".credentials"
    option = ", or by --credentials" if names[0].endswith(by_option) else ""
    if names[0].endswith(_OF_A_USER):
        option = ", or in the URL of the credentials"
    return (
        f"Expected the setting{'s' * several} {', '.join(names)}, but there {'are' if several else 'is'} none.\n"
        f"Set {'them' if several else 'it'} in .dlt/secrets.toml, by {env} in the environment{option}."
        f"{_package_of(names[0])}"
    )


def wrong_credentials(error: InvalidNativeValue) -> str:
    """Returns the message about credentials that cannot be parsed. It does not show them, as they may be secret."""
    driver = getattr(error.spec, "drivername", None)
    form = f"a URL like {driver}://user@host:port/database" if driver else f"what dlt's {error.spec.__name__} takes"
    return (
        f"Expected {form} as credentials, but got something else.\n"
        "Correct --credentials, or the setting in .dlt/secrets.toml or the environment."
    )


def _settings(error: ConfigFieldMissingException) -> Iterator[str]:
    """Yields the names of missing settings; for credentials that are given in part, those of the missing parts."""
    for field, (first, *others) in error.traces.items():
        if isinstance(first, LookupTraces) and first.resolved_fields_set and not others:
            parts = first.traces.keys() - _FOUND or first.traces.keys()
            yield from (_setting(part, first.traces[part][0]) for part in first.traces if part in parts)
        else:
            yield _setting(field, first)


def _setting(field: str, trace: LookupTrace | LookupTraces) -> str:
    while isinstance(trace, LookupTraces):
        trace = next(iter(trace.traces.values()))[0]
    sections = list(trace.sections)
    return ".".join(sections if sections[-1:] == [field] else [*sections, field])


def _package_of(setting: str) -> str:
    """Returns a sentence about the package of the setting's destination if it is missing, too; otherwise ""."""
    section, name, *_ = [*setting.split("."), ""]
    factory = None
    try:
        factory = Destination.from_reference(name) if section == "destination" else None
        _ = factory and factory.client_class
    except ImportError as error:
        if is_own_import_error(error):
            return ""
        return f" Its package is missing too: {missing_package(error, factory).partition('Install it: ')[2]}"
    except Exception:  # noqa: BLE001 - the missing setting is reported already
        return ""
    return ""
