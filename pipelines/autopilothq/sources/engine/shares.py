"""Splits a load: files into shares that tasks read, and messages into partitions."""

from collections.abc import Iterable, Mapping, Sequence

from ...projection.cells import ParsedCells
from ...projection.partition import LatestFiles
from .parse_task import ParsedShare
from .partition_tasks import PartitionInput

# All bytes are those of files as stored. A load has SHARES shares, or fewer or more to keep them within these sizes.
SHARES = 64
MIN_SHARE, MAX_SHARE = 4 << 20, 1 << 30  # bytes
# A partition has PARTITION_BYTES of files. A load that would have more than MANY_PARTITIONS has larger partitions.
PARTITION_BYTES = 64 << 20
MAX_PARTITION_BYTES = 512 << 20
MANY_PARTITIONS = 64


def share_ranges(sizes: Sequence[int]) -> list[range]:
    """Returns the range of files in each share, by their numbers; `sizes` are those of all files in bytes."""
    most = min(MAX_SHARE, max(MIN_SHARE, sum(sizes) // SHARES))
    found, start, size = [], 0, 0
    for number, of_file in enumerate(sizes):
        if number > start and size + of_file > most:
            found.append(range(start, number))
            start, size = number, 0
        size += of_file
    return [*found, range(start, len(sizes))] if sizes else []


def partition_count(size: int) -> int:
    """Returns the number of partitions for the messages of files that have `size` bytes in total."""
    return max(min(MANY_PARTITIONS, -(-size // PARTITION_BYTES)), -(-size // MAX_PARTITION_BYTES), 1)


def all_cells(shares: Sequence[ParsedShare]) -> ParsedCells:
    """Returns the facts about the cells of all shares, without their files, which are in the shares' partitions."""
    cells = ParsedCells()
    for share in shares:
        cells.extend(share.all_cells)
    return cells


def partition_inputs(shares: Sequence[ParsedShare]) -> list[PartitionInput]:
    """Returns the partitions that are not empty, with their cells from all shares."""
    lines = [name for share in shares for name in share.refused_lines]
    found: dict[int, ParsedCells] = {}
    for share in shares:
        for number, cells in share.cells.items():
            found.setdefault(number, ParsedCells()).extend(cells)
    return [PartitionInput(number, found[number], lines) for number in sorted(found)]


def merged_files(parts: Sequence[LatestFiles]) -> LatestFiles:
    """Returns the files of each partition of persons, collected from all partitions of messages."""
    return LatestFiles(_merged(part.ids for part in parts), _merged(part.messages for part in parts))


def _merged(parts: Iterable[Mapping[int, Sequence[str]]]) -> dict[int, list[str]]:
    merged: dict[int, list[str]] = {}
    for part in parts:
        for number, names in part.items():
            merged.setdefault(number, []).extend(names)
    return merged
