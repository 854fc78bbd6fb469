"""Finds and removes a person's lines in the files of an archive."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import duckdb
import pyarrow as pa

from ..catalog import CONTEXT_NAMES
from ..errors import ArchiveError
from ..projection import suppression
from ..segment.identity import HashedIds, ids_of_cells
from ..segment.message import Rejected
from ..segment.message import read_message as read_line
from ..sources.archive.batches import read_batches
from ..sources.archive.listing import File
from ..sources.archive.remove_lines import remove_lines
from ..warehouses.dataset import Dataset
from .reject_lines import move_rejects


def rewrite_files(
    files: Sequence[File],
    hashes: HashedIds,
    by_hash: bool,
    engine: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    dry_run: bool,
) -> tuple[dict[str, int], dict[str, str]]:
    """Rewrites files without a person's lines. A file that cannot be read to its end is not changed.

    `by_hash` tells whether some of the ids are known only by their hashes. `dataset` has the rejects of the files.
    Returns the number of removed lines by file, and the reasons why files were not changed, by file.
    """
    found, left = _find_lines(files, hashes, by_hash, engine)
    removed: dict[str, int] = {}
    for number, lines in sorted(found.items()):
        file = files[number]
        if file.url not in left and not dry_run:
            try:
                remove_lines(file, lines)
            except ArchiveError as error:
                left[file.url] = str(error)
            else:
                move_rejects(dataset, file.url, lines)
        if file.url not in left:
            removed[file.url] = len(lines)
    return removed, left


def _find_lines(
    files: Sequence[File], hashes: HashedIds, by_hash: bool, engine: duckdb.DuckDBPyConnection
) -> tuple[dict[int, set[int]], dict[str, str]]:
    """Returns the person's lines by the file's number, and the reasons why files could not be read to their ends."""
    found: dict[int, set[int]] = defaultdict(set)
    unread: dict[str, str] = {}
    for batch in read_batches(files):
        for number, line in _lines(batch.lines, hashes, by_hash, engine):
            found[number].add(line)
        unread |= {files[each.file].url: each.message for each in batch.rejects if each.reason == "truncated"}
        rejects = [reject for reject in batch.rejects if reject.reason != "truncated"]
        raw = pa.array([reject.raw for reject in rejects], pa.large_binary())
        for key in suppression.find_mentions(engine, pa.array(range(len(rejects)), pa.int64()), raw):
            found[rejects[key].file].add(rejects[key].line)
    return found, unread


def _lines(
    lines: pa.Table, hashes: HashedIds, by_hash: bool, engine: duckdb.DuckDBPyConnection
) -> Iterator[tuple[int, int]]:
    """Yields the file and the number of each line that is the person's, or that is rejected and mentions the person."""
    keys = pa.array(range(lines.num_rows), pa.int64())
    texts = lines["text"].combine_chunks()
    suspects = pa.array(suppression.find_suspects(engine, keys, texts, by_hash), pa.int64())
    found: list[int] = []
    rejected: list[int] = []
    for key, text in zip(suspects.to_pylist(), texts.take(suspects).to_pylist(), strict=True):
        try:
            cells = read_line(text, CONTEXT_NAMES).cells
        except Rejected:
            rejected.append(key)
        else:
            if any(id_ in hashes for id_ in ids_of_cells(cells)):
                found.append(key)
    mentions = pa.array(rejected, pa.int64())
    for key in [*found, *suppression.find_mentions(engine, mentions, texts.take(mentions))]:
        yield lines["file"][key].as_py(), lines["line"][key].as_py()
