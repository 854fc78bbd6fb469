"""Lists the folders of archives, and describes their files.

A folder's path has no slash at its end. A path that ends with a slash is a folder whose name is empty: a bucket with
the key `foo//x.gz` has the folder `foo/`, which holds `x.gz`.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

from fsspec.asyn import sync
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from ...errors import ArchiveError
from ...extras import SCHEMES
from ...utc import to_utc
from ..file_systems import is_remote, open_bucket

Info = dict[str, Any]
"""fsspec's description of a file or folder: `name` (its path), `type`, `size`, and more that depends on the store."""

MAX_URL = 2_000  # bytes; PostgreSQL has no room for a key of 2,700
READ_TIMEOUT = 120.0  # seconds for one request to an object store, its retries included
READ_TIMEOUT_SETTING = "sources.autopilothq.read_timeout"
GLOB_CHARACTERS = re.compile(r"[*?\[]")


class File(NamedTuple):
    """One file of an archive.

    `url` identifies it permanently, `version` changes whenever its bytes do, `size` is in bytes as stored, and `path`
    is its name on `fs`.
    """

    url: str
    version: str
    size: int
    fs: AbstractFileSystem
    path: str


class PathNotFound(ArchiveError):
    """Nothing exists at a URL."""


class StoreTimeout(TimeoutError):
    """An object store did not answer in time."""


# ---- file systems --------------------------------------------------------------------------------------------------


def file_system(url: str, credentials: Any = None) -> AbstractFileSystem:
    """Returns the file system of a URL: this machine's, or a bucket's. Raises ArchiveError as `open_bucket` does."""
    return open_bucket(url, credentials) if is_remote(url) else LocalFileSystem()


def normalized_path(fs: AbstractFileSystem, url: str) -> str:
    """Returns the path of a file or folder, which is the same for all forms of its URL.

    In a bucket `a/b//` becomes `a/b/`: the folder with an empty name below `a/b`.
    """
    path = str(fs._strip_protocol(url))
    if isinstance(fs, LocalFileSystem):
        return os.path.abspath(path)
    return path.rstrip("/") + "/" * (len(url) - len(url.rstrip("/")) - 1) if path.strip("/") else path


def file_url(fs: AbstractFileSystem, path: str) -> str:
    """Returns the URL of a path on a file system; for a local file, its path as text that every warehouse can store.

    It is a key of `_audit`, so a digest replaces the middle of a URL of more than MAX_URL bytes.
    """
    if isinstance(fs, LocalFileSystem):
        url = os.fsencode(path).decode(errors="backslashreplace")
    else:
        scheme = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
        url = f"{SCHEMES.get(scheme, scheme)}://{path.lstrip('/')}"
    whole = url.encode()
    if len(whole) <= MAX_URL:
        return url
    begin, end = (part.decode(errors="ignore") for part in (whole[: MAX_URL // 4], whole[-MAX_URL // 2 :]))
    return f"{begin}…{sha256(whole).hexdigest()}…{end}"


def call_filesystem(fs: AbstractFileSystem, method: str, *args: Any, timeout: float, **options: Any) -> Any:
    """Calls a method of a file system and returns its result.

    An asynchronous file system (an object store) gets at most `timeout` seconds, its retries included; then
    StoreTimeout is raised. A local disk has no such limit. FileNotFoundError is only raised if the store itself reports
    that a file is missing.
    """
    try:
        if not fs.async_impl:
            return getattr(fs, method)(*args, **options)
        return sync(fs.loop, getattr(fs, f"_{method}"), *args, timeout=timeout, **options)
    except FileNotFoundError as error:
        # Some file systems report everything that they cannot reach as missing.
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
            raise error.__cause__ from None
        raise
    except FSTimeoutError as error:
        raise StoreTimeout(f"no answer within {timeout:g} s (set by {READ_TIMEOUT_SETTING})") from error


@contextmanager
def filesystem_errors(url: str) -> Iterator[None]:
    """Turns errors of a file system into an ArchiveError that says what to do."""
    try:
        yield
    except ArchiveError:
        raise
    except FileNotFoundError as error:
        raise PathNotFound(f"Expected a file or a folder at {url}, but nothing is there: {error}") from error
    except PermissionError as error:
        raise ArchiveError(
            f"Expected to list and read {url}, but access was denied: {error}\n"
            "Give these credentials the right to list and to read it, or name only folders that they may read."
        ) from error
    except StoreTimeout as error:
        raise ArchiveError(
            f"Expected to list {url}, but got {error}.\nCheck the endpoint and the network, or allow more time."
        ) from error
    except Exception as error:
        raise ArchiveError(
            f"Expected to list {url}, but got {type(error).__name__}: {error}\n"
            "Check the credentials (sources.autopilothq.credentials), the endpoint and the network."
        ) from error


# ---- one file or folder --------------------------------------------------------------------------------------------


def make_file(fs: AbstractFileSystem, info: Info) -> File:
    """Returns the File that a listing describes."""
    return File(file_url(fs, info["name"]), _version(info), info["size"] or 0, fs, info["name"])


def path_info(fs: AbstractFileSystem, path: str, timeout: float) -> Info | None:
    """Returns the description of what is at `path`; None if nothing is there, or for a glob that cannot be a name."""
    if path.endswith("/") and path.strip("/"):
        return {"name": path, "type": "directory", "size": 0} if list_folder(fs, path, timeout) else None
    try:
        info: Info = call_filesystem(fs, "info", path, timeout=timeout)
    except FileNotFoundError:
        return None
    except Exception:
        if GLOB_CHARACTERS.search(path):
            return None
        raise
    return {**info, "name": path}


def is_unchanged(file: File, timeout: float = READ_TIMEOUT) -> bool:
    """Returns whether the file still has the version that was listed."""
    info = call_filesystem(file.fs, "info", file.path, timeout=timeout)
    infos = [info, _link_target(info)] if info.get("islink") else [info]
    return file.version in map(_version, infos)


def _version(info: Info) -> str:
    """Returns the version of a file: the store's digest or ETag, otherwise its size and modification time.

    Example: `_version({"size": 5, "mtime": 1.5}) == "5-1500000000"`, `_version({"ETag": '"ab"'}) == "ab"`.
    """
    for key in ("md5Hash", "ETag", "etag"):
        if info.get(key):
            return str(info[key]).strip('"')
    changed = next((info[key] for key in ("mtime", "LastModified", "last_modified", "updated") if info.get(key)), "")
    if isinstance(changed, datetime):
        changed = to_utc(changed).isoformat()
    elif isinstance(changed, float):
        changed = int(changed * 1_000_000_000)
    return f"{info['size']}-{changed}"


def _link_target(info: Info) -> Info:
    """Returns a local link's description with its target's type (`broken` if it has none), size and time."""
    path = info["name"]
    try:
        target = os.stat(path)
    except OSError as error:
        return {**info, "type": "broken", "error": error}
    kind = "directory" if os.path.isdir(path) else "file" if os.path.isfile(path) else "other"
    return {**info, "type": kind, "size": target.st_size, "mtime": target.st_mtime}


# ---- listings ------------------------------------------------------------------------------------------------------


def list_folder(fs: AbstractFileSystem, folder: str, timeout: float) -> list[Info]:
    """Returns the sorted entries of a folder, with their paths as `name`; one that ends with a slash marks a folder."""
    with filesystem_errors(file_url(fs, folder)):
        if folder and hasattr(fs, "call_s3"):
            infos = _list_s3(fs, folder, timeout)
        elif folder.endswith("/") and folder.strip("/") and not isinstance(fs, LocalFileSystem):
            infos = _list_nameless(fs, folder, timeout)
        else:
            infos = _list_plain(fs, folder, timeout)
        return sorted(infos, key=lambda info: str(info["name"]))


def _list_plain(fs: AbstractFileSystem, folder: str, timeout: float) -> Iterator[Info]:
    """Yields what fsspec's `ls` returns."""
    bare = folder.rstrip("/")
    try:
        listed = call_filesystem(fs, "ls", folder, detail=True, timeout=timeout)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG or not isinstance(fs, LocalFileSystem):
            raise
        listed = _list_long(fs, folder)
    for given in listed:
        info = _link_target(given) if given.get("islink") else given
        name = info["name"].rstrip("/")
        if info["type"] != "directory":
            if info["name"] != bare:  # the `ls` of a file returns that file
                yield info
        elif name != bare:
            yield info if info["name"] == name else {**info, "name": name}
        elif bare:
            # fsspec lists a subfolder with an empty name as the folder itself.
            yield {**info, "name": f"{bare}/"}


def _list_long(fs: LocalFileSystem, folder: str) -> Iterator[Info]:
    """Lists a local folder in which some paths are too long for the system to open; the type of these is `broken`."""
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                yield fs.info(entry)
            except FileNotFoundError:  # deleted since
                continue
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                yield {"name": entry.path, "type": "broken", "size": 0, "error": error}


def _list_nameless(fs: AbstractFileSystem, folder: str, timeout: float) -> Iterator[Info]:
    """Lists a folder with an empty name, which `ls` merges with its parent: filters all paths below the parent."""
    parent, start = folder.rstrip("/"), f"{folder}/"
    # Object stores can narrow the search by a prefix; other file systems may not know that option.
    narrow = {"prefix": start[len(parent) + 1 :]} if fs.async_impl else {}
    below = call_filesystem(fs, "find", parent, detail=True, **narrow, timeout=timeout)
    folders = set()
    for path, info in below.items():
        if path.startswith(start):
            name, slash, _ = path[len(start) :].partition("/")
            if not slash:
                yield {**info, "name": path}
            elif name not in folders:
                folders.add(name)
                yield {"name": start + name, "type": "directory", "size": 0}


def _list_s3(fs: AbstractFileSystem, folder: str, timeout: float) -> Iterator[Info]:
    """Lists a folder with S3's own call, because s3fs hides keys with empty parts; the timeout is for each page."""
    bucket = fs.split_path(f"{folder}/x")[0]
    prefix = f"{folder[len(bucket) + 1 :]}/" if len(folder) > len(bucket) else ""
    options = {"Bucket": bucket, "Prefix": prefix, "Delimiter": "/"}
    seen: set[str] = set()
    while True:
        page = call_filesystem(fs, "call_s3", "list_objects_v2", **options, timeout=timeout)
        for below in page.get("CommonPrefixes", ()):
            yield {"name": f"{bucket}/{below['Prefix'][:-1]}", "type": "directory", "size": 0}
        for key in page.get("Contents", ()):
            yield {**key, "name": f"{bucket}/{key['Key']}", "type": "file", "size": key["Size"]}
        if not page.get("IsTruncated"):
            return
        token = options["ContinuationToken"] = page["NextContinuationToken"]
        if token in seen:
            raise ArchiveError(
                f"Expected the next page of the listing of {file_url(fs, folder)}, but its token {token!r} came before;"
                " stopped, because the listing would never end"
            )
        seen.add(token)
