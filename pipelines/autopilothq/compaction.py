"""Joins small, loaded files of a receiver's folder into larger ones, and updates the books of the target.

At every moment, `_audit` has a row for each file that a load can see, and its sums are right. The new file's row is
inserted, with zero counts, before the file gets its name. After the old files are deleted, one transaction deletes
their rows and adds up their counts in the new one (docs/explanation/exactly-once.md). With a journal in the day folder,
the next call finishes or undoes a compaction that was cut off.
"""

import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import chain, groupby
from pathlib import Path
from typing import Any, NamedTuple

from . import disk, private, runner
from .catalog import ARCHIVE_FOLDER, AUDIT
from .display import visible
from .errors import DatasetNotFound, RunError
from .explain import explained
from .projection.engine import batched
from .receive.files import DONE, OPEN, begun_at, rename
from .receive.publishing import COMPACTING, alone, remove_unfinished
from .sources.archive import list_files
from .warehouses import lock
from .warehouses.dataset import AUDIT_COUNTS, Dataset, dataset_of, last_load, queryable_client
from .warehouses.settings import TargetOptions

LARGEST = 100_000_000  # bytes of a compressed file
OLD = timedelta(hours=1)
JOURNAL = ".compaction"
FILES_PER_STATEMENT = 1000
COMPACTABLE_KINDS = ("duckdb", "postgres")  # destinations whose transactions are tested
KILL_POINT_JOINED = f"{__name__}:_join"  # where tests/faults kills a compaction, in the order of its steps
KILL_POINT_JOURNAL_WRITTEN = f"{__name__}:_write_journal"
KILL_POINT_ROW_INSERTED = f"{__name__}:_insert"
KILL_POINT_FILE_NAMED = f"{__name__}:rename"
KILL_POINT_OLD_FILE_DELETED = f"{__name__}:_delete_file"
KILL_POINT_COUNTS_MOVED = f"{__name__}:_move_counts"

_RECEIVED = re.compile(r"[0-9]+-[0-9a-f]{32}\.gz")
_KEY = "{file} = %s AND {version} = %s"


class Compacted(NamedTuple):
    """The number of files before and after, and the size of the new ones in bytes."""

    before: int
    after: int
    bytes: int


class _Journal(NamedTuple):
    """A compaction that has begun: its target, the new file and its version, and the old files with their versions."""

    target: str
    file: str
    version: str
    files: list[list[str]]

    @property
    def path(self) -> Path:
        """The journal's file, a hidden one next to the new file."""
        new = Path(self.file)
        return new.with_name(f".{new.name}{JOURNAL}")


def compact(folder: str, target: TargetOptions, now: float, wait: timedelta = timedelta()) -> Compacted:
    """Joins the loaded files of each endpoint and day into files of at most `LARGEST` bytes.

    `now` is in seconds since 1970. Files that were begun within the last hour, and those of the newest load, stay as
    they are. Raises BusyError if a load or a deletion is still at work after `wait`, DatasetNotFound if nothing was
    loaded into the target, and RunError if the folder or the target cannot be compacted.
    """
    if not Path(folder).is_dir():
        raise RunError(f"Expected a receiver's folder at {visible(folder)}, but nothing is there.")
    with explained(), ExitStack() as stack:
        into = runner.pipeline(*target, create=False, wait=wait)
        with queryable_client(into) as client:
            if not dataset_of(client).exists():
                raise DatasetNotFound(f"There is no dataset {into.dataset_name}, so no file is loaded there yet.")
        stack.enter_context(lock.held(into, wait.total_seconds()))
        stack.enter_context(alone(Path(folder)))
        with into.destination_client() as client:
            books = dataset_of(client, literals=True)
            _check(books)
            _finish_begun(Path(folder), books)
            made = [_compact(group, books) for group in _groups(folder, books, now, LARGEST)]
    return Compacted(sum(each.before for each in made), len(made), sum(each.bytes for each in made))


def _check(books: Dataset) -> None:
    if books.kind not in COMPACTABLE_KINDS:
        raise RunError(
            f"Expected a destination of {' or '.join(COMPACTABLE_KINDS)}, because the books must change in one"
            f" transaction, but got {books.kind}. Nothing was changed."
        )
    missing = {column.name for column in AUDIT.columns} - books.tables([AUDIT.name]).get(AUDIT.name, {}).keys()
    if missing:
        raise RunError(
            f"Expected the columns {', '.join(sorted(missing))} in {AUDIT.name}, but they are missing. Nothing was"
            " changed.\nLoad something with this version first."
        )


# ---- which files are joined ------------------------------------------------------------------------------------------


def _groups(folder: str, books: Dataset, now: float, most: int) -> Iterator[list[dict[str, Any]]]:
    """Yields groups of rows of `_audit` whose files become one file.

    A group has at least two files, and up to `most` bytes in all. Its files are in one folder, and come in the order in
    which they were begun.
    """
    listed = {(file.url, file.version) for file in list_files([folder])}
    rows = [row for row in _loaded_rows(books, listed) if _is_small(row, now, most)]
    rows.sort(key=lambda row: (os.path.dirname(row["file"]), begun_at(Path(row["file"])), row["file"]))
    for _, of_day in groupby(rows, key=lambda row: os.path.dirname(row["file"])):
        group: list[dict[str, Any]] = []
        for row in of_day:
            if sum(each["size"] for each in group) + row["size"] > most:  # two files always fit: each has at most half
                yield group
                group = []
            group.append(row)
        if len(group) > 1:
            yield group


def _loaded_rows(books: Dataset, listed: set[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Yields the rows of files that were loaded completely, without a reject, and not by the newest load.

    Other files stay: `_rejects` refers to their lines, `status` counts those of the newest load, and an unfinished load
    may need those that are loaded only in part.
    """
    complete, newest = books.complete_loads(), last_load(books, datetime.now(UTC))
    if newest:
        complete = complete - {newest[0]}
    for batch in books.read(AUDIT.name, [column.name for column in AUDIT.columns]):
        for row in batch.to_pylist():
            whole = row["tables"] is None and not row["rejected"] and not row["skipped"]
            if whole and row["load_id"] in complete and (row["file"], row["version"]) in listed:
                yield row


def _is_small(row: Mapping[str, Any], now: float, most: int) -> bool:
    path = Path(row["file"])
    still_open = path.with_name(f".{path.name.removesuffix(DONE)}{OPEN}")  # if it exists, it is published again
    return (
        _RECEIVED.fullmatch(path.name) is not None
        and row["size"] <= most // 2
        and begun_at(path) <= now - OLD.total_seconds()
        and not still_open.exists()
    )


# ---- one new file ----------------------------------------------------------------------------------------------------


def _compact(group: Sequence[Mapping[str, Any]], books: Dataset) -> Compacted:
    first = Path(group[0]["file"])
    new = first.with_name(f"{int(begun_at(first) * 1000)}-{uuid.uuid4().hex}{DONE}")
    part = new.with_name(f".{new.name}{COMPACTING}")
    _join([Path(row["file"]) for row in group], part)
    [found] = list_files([str(part)])
    journal = _Journal(books.target, str(new), found.version, [[row["file"], row["version"]] for row in group])
    _write_journal(journal)
    latest = max(group, key=lambda row: row["loaded_at"])
    row = {**dict.fromkeys(AUDIT_COUNTS, 0), "file": str(new), "version": found.version, "size": found.size}
    row |= {"load_id": latest["load_id"], "loaded_at": latest["loaded_at"]}
    _insert(books, row)
    rename(part, new)
    _finish(journal, books)
    return Compacted(len(group), 1, found.size)


def _join(files: Iterable[Path], part: Path) -> None:
    """Writes the files, which are gzip members, one after the other to `part`, and syncs it to the disk."""
    with private.naming(part), private.opened(str(part)) as joined:
        for file in files:
            joined.write(file.read_bytes())
        disk.sync_open(joined)


def _write_journal(journal: _Journal) -> None:
    with private.naming(journal.path), private.opened(str(journal.path)) as file:
        file.write(json.dumps(journal._asdict()).encode())
        disk.sync_open(file)
    disk.sync(journal.path.parent)


def _insert(books: Dataset, row: Mapping[str, Any]) -> None:
    books.insert(AUDIT, [tuple(row.get(column.name) for column in AUDIT.columns)])


def _finish(journal: _Journal, books: Dataset) -> None:
    """Finishes a compaction whose new file has its name. If it is killed, it can be called again."""
    for file, _ in journal.files:
        _delete_file(Path(file))
    disk.sync(journal.path.parent)
    _move_counts(journal, books)
    journal.path.unlink()


def _delete_file(path: Path) -> None:
    path.unlink(missing_ok=True)


def _move_counts(journal: _Journal, books: Dataset) -> None:
    """Adds up the counts of the old files' rows in the new file's row, and deletes the old rows, in one transaction."""
    key = books.template(AUDIT.name, _KEY)
    columns = [*AUDIT_COUNTS, "first_received_at", "last_received_at"]
    # Many files per statement, because each statement reads all of `_audit`.
    parts = list(batched(journal.files, FILES_PER_STATEMENT))
    with books.transaction():
        found = [row for keys in parts for row in _rows(books, columns, keys)]
        if found:
            *counts, first, last = zip(*found, strict=True)
            changes: dict[str, Any] = {
                name: sum(filter(None, column)) for name, column in zip(AUDIT_COUNTS, counts, strict=True)
            }
            changes["first_received_at"] = min(filter(None, first), default=None)
            changes["last_received_at"] = max(filter(None, last), default=None)
            books.update(AUDIT.name, changes, key, [journal.file, journal.version])
        for keys in parts:
            books.delete(AUDIT.name, books.template(AUDIT.name, _among(keys)), list(chain(*keys)))


def _rows(books: Dataset, columns: Sequence[str], keys: Sequence[Sequence[str]]) -> list[tuple[Any, ...]]:
    selected = ", ".join(f"{{{name}}}" for name in columns)
    return books.rows(selected, AUDIT.name, f"WHERE {_among(keys)}", *chain(*keys))


def _among(keys: Sequence[Sequence[str]]) -> str:
    """Returns the SQL condition for the rows of these files and versions, with placeholders for their values."""
    return f"({{file}}, {{version}}) IN ({', '.join(['(%s, %s)'] * len(keys))})"


# ---- after a kill ----------------------------------------------------------------------------------------------------


def _finish_begun(folder: Path, books: Dataset) -> None:
    """Finishes interrupted compactions whose new file has its final name, and undoes all others.

    Raises RunError if one of them belongs to another target.
    """
    for path in sorted(folder.glob(f"{ARCHIVE_FOLDER}/*/*/.*{JOURNAL}")):
        try:
            journal = _Journal(**json.loads(path.read_bytes()))
        except ValueError:  # killed while it was written, before anything else
            path.unlink()
            continue
        if journal.target != books.target:
            raise RunError(
                f"Expected the target {visible(journal.target)}, where a compaction was cut off, but got"
                f" {books.target}. Nothing was changed.\nRun --compact with that target once."
            )
        if Path(journal.file).exists():
            _finish(journal, books)
        else:
            books.delete(AUDIT.name, books.template(AUDIT.name, _KEY), [journal.file, journal.version])
            path.unlink()
    remove_unfinished(folder)
