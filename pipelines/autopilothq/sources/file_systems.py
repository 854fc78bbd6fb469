"""Opens the file systems of buckets, with the credentials of dlt's configuration or the cloud's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dlt.common.configuration.exceptions import ConfigFieldMissingException

from ..errors import ArchiveError
from ..extras import EXTRAS, install
from ..warehouses.dlt_internals import FilesystemConfiguration, fsspec_from_config, resolve_configuration
from ..warehouses.hints import SOURCE

SCHEMES = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}


def scheme_of(url: str) -> str:
    """Returns the scheme that fsspec knows a URL by: `gs` for `gcs://bucket`, `file` for a path."""
    scheme = url.partition("://")[0] if "://" in url else "file"
    return SCHEMES.get(scheme, scheme)


@contextmanager
def bucket_errors(url: str) -> Iterator[None]:
    """Raises ArchiveError in place of what fsspec and dlt raise if a scheme is unknown or its package is missing."""
    try:
        yield
    except ImportError as error:
        extra = EXTRAS.get(scheme_of(url))
        todo = f"Install it: {install(extra)}" if extra else "Install the package named above."
        missing = ", ".join(getattr(error, "dependencies", ())) or error  # dlt's own text has several lines
        raise ArchiveError(f"{url} needs a package that is missing: {missing}\n{todo}") from error
    except ValueError as error:
        if not str(error).startswith("Protocol not known"):
            raise
        raise ArchiveError(
            f"Expected a path, or a URL that begins with s3://, gs://, az:// or file://, but got {url}."
        ) from error


def is_remote(url: str) -> bool:
    """Returns whether a URL is in a bucket, not a local file or folder."""
    return "://" in url and not url.startswith("file:")


def open_bucket(url: str, credentials: Any = None) -> Any:
    """Returns the fsspec file system of a bucket, with dlt's credentials or the cloud's own. Raises ArchiveError."""
    given = {"bucket_url": url} | ({} if credentials is None else {"credentials": credentials})
    config = FilesystemConfiguration()
    try:
        with bucket_errors(url):
            resolved = resolve_configuration(config, sections=("sources", SOURCE), explicit_value=given)
            return fsspec_from_config(resolved)[0]
    except ConfigFieldMissingException as error:
        raise ArchiveError(
            f"Expected credentials for {url}, but there are none.\n"
            f"Put [sources.{SOURCE}.credentials] into .dlt/secrets.toml, or sign in to the cloud in its own way."
        ) from error
