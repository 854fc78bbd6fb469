"""Opens the file systems of buckets, with the credentials of dlt's configuration or the cloud's own."""

from typing import Any
from urllib.parse import urlsplit

from dlt.common.configuration.exceptions import ConfigFieldMissingException

from ..display import gist
from ..errors import ArchiveError
from ..extras import missing_of_bucket
from ..warehouses.dlt_internals import FilesystemConfiguration, fsspec_from_config, resolve_configuration
from ..warehouses.hints import SOURCE

_WITHOUT_LISTS = ("http", "https")  # web servers list no folders, and fsspec takes a failing page for an empty one


def is_remote(url: str) -> bool:
    """Returns whether a URL is in a bucket, not a local file or folder."""
    return "://" in url and not url.startswith("file:")


def check_not_empty(url: str) -> None:
    """Raises ArchiveError for an empty URL: it is most likely an unset variable, and would mean the current folder."""
    if not url.strip():
        raise ArchiveError("Expected a path or a URL, but got an empty text.\nThe current folder is a dot: .")


def open_bucket(url: str, credentials: Any = None) -> Any:
    """Returns the fsspec file system of a bucket, with the given credentials, dlt's, or the cloud's own.

    Raises ArchiveError if the URL names no bucket, or if credentials, a package or the connection are missing.
    """
    if not url.partition("://")[2].strip("/"):
        raise ArchiveError(f"Expected a bucket in a URL such as s3://bucket/folder, but got {url}.")
    if urlsplit(url).scheme in _WITHOUT_LISTS:
        raise ArchiveError(_expected_kind(url))
    given = {"bucket_url": url} | ({} if credentials is None else {"credentials": credentials})
    config = FilesystemConfiguration()
    try:
        return fsspec_from_config(resolve_configuration(config, sections=("sources", SOURCE), explicit_value=given))[0]
    except ConfigFieldMissingException as error:
        raise ArchiveError(
            f"Expected credentials for {url}, but there are none.\n"
            f"Put [sources.{SOURCE}.credentials] into .dlt/secrets.toml, or sign in to the cloud in its own way."
        ) from error
    except ImportError as error:
        missing = ", ".join(getattr(error, "dependencies", ())) or error  # dlt's own text has several lines
        raise ArchiveError(missing_of_bucket(url, missing)) from error
    except OSError as error:  # of file systems that connect at once, such as ftp
        got = gist(str(error))
        raise ArchiveError(
            f"Expected to connect to {url}, but got {got}.\nCheck its spelling, the server and the network."
        ) from error
    except ValueError as error:
        if not str(error).startswith("Protocol not known"):
            raise
        raise ArchiveError(_expected_kind(url)) from error


def _expected_kind(url: str) -> str:
    return f"Expected a path, or a URL that begins with s3://, gs://, az:// or file://, but got {url}."
