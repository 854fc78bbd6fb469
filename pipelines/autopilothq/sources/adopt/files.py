"""Finds the files of tables that a warehouse has exported, and the table that each belongs to.

A file belongs to the table that it, or the folder around it, is named after; exporters add numbers to that name
(`email_opened_0000_part_00.parquet`, `email_opened-000000000000.csv.gz`).
"""

import fnmatch
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import duckdb

from ...catalog import ARCHIVE_FOLDER, EXPORT_MARK, TABLES
from ...disk import local_path
from ...errors import ArchiveError, AutopilothqError
from ...projection import engine
from ...segment.naming import snake_case
from ..adopted_rows import adopted_version
from ..file_systems import check_not_empty, is_remote, open_bucket

FileFormat = Literal["parquet", "csv", "json", "avro"]
SUFFIXES: dict[str, FileFormat] = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".avro": "avro",
}
COMPRESSIONS = (".gz", ".zst")
_CODECS = (".snappy", ".gz", ".gzip", ".zst", ".zstd", ".lz4", ".brotli", ".deflate")  # in names of Parquet files
# What exporters append to a table's name: Redshift's slices and parts, BigQuery's shards, Snowflake's threads.
_NUMBERS = re.compile(r"([-_.]?(part[-_]?)?\d+([-_]part[-_]?\d+)?)+$|[-_]\*?$")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DOCUMENT = "readme"  # a name that is not a table's, in a folder of exported files
_HIVE = re.compile(r"[^/=]+=[^/]*")
_OF_ARCHIVE = re.compile(rf"(.*/)?{ARCHIVE_FOLDER}/[^/]+/[0-9]{{12,14}}/[^/]+")
_QUOTED_ROW = re.compile(r"(CSV Error on Line: \d+\n)Original Line: .*?\n([^\n]+\n+Possible )", re.DOTALL)
"""DuckDB's error about a CSV file, which quotes a row: the row may be so long that nobody would see the error."""
NOT_A_TABLE, UNKNOWN_FORMAT, UNFINISHED_EXPORT, ARCHIVED = "no_table", "no_format", "unfinished_export", "archived"
NOT_ADOPTED_BECAUSE = {
    NOT_A_TABLE: "not named like a table of messages",
    UNKNOWN_FORMAT: f"without a suffix of {', '.join(SUFFIXES)}",
    UNFINISHED_EXPORT: "of exports that have not ended, or were cut off",
    ARCHIVED: "of an archive of messages, which load archive takes",
}
"""Why files or tables are not adopted."""


class TableFile(NamedTuple):
    """A file of a table. `url`, `version` and `size` are as in `Work`; the other fields say how the file is read.

    `fs` is None for a file on this machine.
    """

    url: str
    version: str
    size: int
    table: str
    format: FileFormat
    path: str
    fs: Any = None


class _FoundFile(NamedTuple):
    """A file at a URL, with its path below that URL."""

    url: str
    version: str
    size: int
    path: str
    below: str
    fs: Any = None


def unreadable_file(file: TableFile, error: BaseException) -> ArchiveError:
    """Returns the error for a file that is incomplete, or not in the format that its name says."""
    if _QUOTED_ROW.search(str(error)):
        error = duckdb.InvalidInputException(_QUOTED_ROW.sub(r"\1\2", str(error)))
    return ArchiveError(
        f"Expected {file.format} in {file.url}, but it cannot be read: {engine.error_line(error)}\n"
        "Export it again, or leave it out."
    )


@contextmanager
def unchanged(file: TableFile) -> Iterator[None]:
    """Raises ArchiveError if a file on this machine is not the one that was listed, or changes while the block runs.

    Such a file is read several times, so its rows could come from two versions, and the last row could be incomplete. A
    file in a bucket is copied first.
    """
    before = None if file.fs else _local_state(file)
    try:
        yield
        error = None
    except (AutopilothqError, FileNotFoundError) as raised:
        error = raised
    if file.fs is None and (before is None or _local_state(file) != before):
        raise ArchiveError(
            f"Expected {file.url} to stay as it was when the files were listed, but it has changed since.\n"
            "Adopt it once whatever writes it has ended."
        ) from error
    if error is not None:
        raise error


def _local_state(file: TableFile) -> tuple[int, int] | None:
    """Returns the device and the inode of a listed file; None if it is missing or has another version."""
    with suppress(FileNotFoundError):
        state = os.stat(file.path)
        if adopted_version(file.table, _local_version(state)) == file.version:
            return state.st_dev, state.st_ino
    return None


def _local_version(state: os.stat_result) -> str:
    return f"{state.st_size}-{state.st_mtime_ns}"


def folded_name(name: str) -> str:
    """Returns the name of a table or column as Segment spells it, in lower case.

    Underscores that Segment does not write are kept as dlt's naming keeps them; a name of underscores becomes empty.
    Examples: `folded_name("EMAIL_OPENED") == "email_opened"`, `folded_name("__Id_") == "_id"`.
    """
    lower = name.lower()
    if not re.fullmatch(r"[a-z0-9_]+", lower):
        lower = snake_case(name)
    first, *others = re.split("__+", lower.strip("_"))
    if first and (lower.startswith("_") or first[0].isdigit()):
        first = f"_{first}"
    return "__".join([first, *(f"_{part}" if part[0].isdigit() else part for part in others)])


def table_files(
    urls: Sequence[str], named: Mapping[str, Sequence[str]], credentials: Any = None
) -> tuple[list[TableFile], dict[str, str]]:
    """Returns the files of tables at some URLs, and why others are left out, by their URL.

    `named` are patterns of paths below the URLs, by table. Without any, files and folders that are named like tables
    are taken. Raises ArchiveError if nothing exists at a URL, or no file matches a table's patterns.
    """
    found: dict[str, TableFile] = {}
    left_out: dict[str, str] = {}
    for url in urls:
        files = _without_unfinished(_files_at(url, credentials), left_out)
        if not named:
            left_out |= {file.url: ARCHIVED for file in files if _OF_ARCHIVE.fullmatch(file.path)}
            files = [file for file in files if file.url not in left_out]
        tables = _tables_by_pattern(files, named) if named else _tables_by_name(files)
        for file in files:
            table = tables.get(file.below)
            is_named = bool(named) or PurePosixPath(url).name == file.below
            may_be_any = not is_named and table not in TABLES and table == _stem(file.below)
            file_format = _format(file.path, may_be_any)
            if table is None:
                if not named:
                    left_out[file.url] = NOT_A_TABLE
            elif file_format is None:
                left_out[file.url] = UNKNOWN_FORMAT
            else:
                found[file.url] = TableFile(file.url, file.version, file.size, table, file_format, file.path, file.fs)
    _check_patterns(urls, named, found.values())
    return [found[url] for url in sorted(found)], {url: why for url, why in left_out.items() if url not in found}


def _check_patterns(urls: Sequence[str], named: Mapping[str, Sequence[str]], found: Iterable[TableFile]) -> None:
    missing = sorted(named.keys() - {file.table for file in found})
    if missing:
        raise ArchiveError(
            f"Expected files of {missing[0]} at {', '.join(named[missing[0]])} below {', '.join(urls)}, but no file"
            " matches.\nCheck the pattern: it is compared with the path below the folder."
        )


def _files_at(url: str, credentials: Any) -> list[_FoundFile]:
    check_not_empty(url)
    found = _bucket_files(url, credentials) if is_remote(url) else _local_files(local_path(url))
    return list(found)


def _without_unfinished(found: Sequence[_FoundFile], left_out: dict[str, str]) -> list[_FoundFile]:
    """Returns the files that may hold rows, except those of this program's unfinished exports."""
    unfinished = {PurePosixPath(file.below).parent for file in found if PurePosixPath(file.below).name == EXPORT_MARK}
    whole = []
    for file in found:
        if not _may_hold_rows(file):
            continue
        if not unfinished.isdisjoint(PurePosixPath(file.below).parents):
            left_out[file.url] = UNFINISHED_EXPORT
        else:
            whole.append(file)
    return whole


def _may_hold_rows(file: _FoundFile) -> bool:
    """Returns whether a file may hold rows, that is, is neither a marker nor empty.

    An empty Parquet or Avro file counts, because it is damaged.
    """
    *folders, name = file.below.split("/")
    marker = name.startswith((".", "_SUCCESS")) or any(folder.startswith(".") for folder in folders)
    return not marker and bool(file.size or _format(file.path) in ("parquet", "avro"))


def _local_files(url: str) -> list[_FoundFile]:
    root = Path(url).absolute()
    if not root.exists():
        raise ArchiveError(f"Expected a file or a folder at {url}, but nothing is there.\nCheck the spelling.")
    base = root.parent if root.is_file() else root
    found = []
    for path, state in [(root, os.stat(root))] if root.is_file() else _files_below(root):
        below = path.relative_to(base).as_posix()
        found.append(_FoundFile(str(path), _local_version(state), state.st_size, str(path), below))
    return found


def _files_below(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[tuple[Path, os.stat_result]]:
    """Yields the files below a folder, sorted by path. Links are followed, but not to a folder in `above`.

    Raises ArchiveError if a folder or a link cannot be read, because rows would be missing. Hidden ones hold none.
    """
    above |= {folder.resolve()}
    path = folder
    try:
        for path in sorted(folder.iterdir()):
            hidden = path.name.startswith(".")
            if path.is_dir():
                if not hidden and path.resolve() not in above:
                    yield from _files_below(path, above)
            elif not (hidden and path.is_symlink()) and stat.S_ISREG((state := path.stat()).st_mode):
                yield path, state
    except OSError as error:
        raise ArchiveError(
            f"Expected to read {path}, but got: {error.strerror}.\n"
            "Give this user the right to it, or export it again, or name only folders and files that can be read."
        ) from error


def _bucket_files(url: str, credentials: Any) -> list[_FoundFile]:
    fs = open_bucket(url, credentials)
    root = str(fs._strip_protocol(url)).rstrip("/")
    scheme = url.partition("://")[0]
    listed: Mapping[str, Mapping[str, Any]] = fs.find(root, detail=True)
    if not listed:
        raise ArchiveError(f"Expected files at {url}, but nothing is there.\nCheck the spelling.")
    found = []
    for path, info in sorted(listed.items()):
        below = path.removeprefix(root).lstrip("/") or path.rpartition("/")[2]
        version = _object_version(info)
        found.append(_FoundFile(f"{scheme}://{path}", version, int(info.get("size") or 0), path, below, fs))
    return found


def _object_version(info: Mapping[str, Any]) -> str:
    """Returns an object's etag, or its size and modification time."""
    etag = next((str(info[key]).strip('"') for key in ("ETag", "etag", "md5Hash") if info.get(key)), None)
    changed = next((info[key] for key in ("LastModified", "last_modified", "updated", "mtime") if info.get(key)), "")
    time = changed.isoformat() if isinstance(changed, datetime) else str(changed)
    return etag or f"{info.get('size')}-{time}"


def _tables_by_pattern(files: Sequence[_FoundFile], named: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {
        file.below: table
        for table, patterns in named.items()
        for file in files
        if any(fnmatch.fnmatchcase(file.below, pattern) for pattern in patterns)
    }


def _tables_by_name(files: Sequence[_FoundFile]) -> dict[str, str]:
    """Returns the table of each file that is named like a table, or is in a folder that is, by the file's path."""
    # If one file in a folder is named after a table of the catalogue, all are; any other folder holds one table.
    of_tables = {"", *(file.below.rpartition("/")[0] for file in files if _stem(file.below) in TABLES)}
    tables = ((file.below, _table_of(file.below, of_tables)) for file in files)
    return {below: table for below, table in tables if table}


def _table_of(below: str, of_tables: set[str]) -> str | None:
    """Returns the table of a file; `of_tables` are the folders whose files are named after tables."""
    folder, stem = below.rpartition("/")[0], _stem(below)
    if stem in TABLES:
        return stem
    if stem == _DOCUMENT:
        return None
    parts = [part for part in folder.split("/") if part and not _HIVE.fullmatch(part)]
    known = [folded_name(part) for part in parts if folded_name(part) in TABLES]
    if known:
        return known[-1]
    if folder in of_tables:
        return stem or None
    return next((folded_name(part) for part in reversed(parts) if _NAME.fullmatch(part)), None)


def _stem(below: str) -> str:
    """Returns the name of a file without its suffixes and numbers, in lower case; empty if that cannot be a table's."""
    name = below.rpartition("/")[2]
    while (dot := name.rfind(".")) > 0 and name[dot:].lower() in (*SUFFIXES, *COMPRESSIONS, *_CODECS):
        name = name[:dot]
    if folded_name(name) in TABLES:
        return folded_name(name)
    name = _NUMBERS.sub("", name)
    return folded_name(name) if _NAME.fullmatch(name) else ""


def _format(path: str, may_be_any: bool = False) -> FileFormat | None:
    """Returns the format of a file by its suffixes, None if they are unknown.

    Redshift's CSV files have no suffix, but end with the number of a slice. `may_be_any` is true if only the file's own
    name, which may be any name, suggests a table: then a file without a suffix must end with such a number.
    """
    name = path.rpartition("/")[2].lower()
    while name.endswith(COMPRESSIONS):
        name = name.rpartition(".")[0]
    suffix = "." + name.rpartition(".")[2] if "." in name else ""
    if not suffix or suffix[1:].isdigit():
        return None if may_be_any and not name[-1:].isdigit() else "csv"
    return SUFFIXES.get(suffix)
