"""A load on an engine is split into shares of its files and into partitions of its messages."""

import pytest

from autopilothq.projection.cells import ParsedCells
from autopilothq.projection.partition import LatestFiles
from autopilothq.sources.engine import shares
from autopilothq.sources.engine.parse_task import ParsedShare

MB, GB = 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        ([], []),
        ([0], [range(1)]),
        ([2 * MB] * 5, [range(2), range(2, 4), range(4, 5)]),  # shares have 4 MB at least
        ([5 * MB, MB, MB, 2 * MB, MB], [range(1), range(1, 4), range(4, 5)]),  # a file is never split
        ([5 * MB] * 128, [range(n, n + 2) for n in range(0, 128, 2)]),  # 64 shares
        ([GB // 2] * 400, [range(n, n + 2) for n in range(0, 400, 2)]),  # they have 1 GB at most
    ],
)
def test_files_are_shared_in_their_order(sizes: list[int], found: list[range]) -> None:
    assert shares.share_ranges(sizes) == found


@pytest.mark.parametrize(
    ("size", "count"),
    [(0, 1), (64 * MB, 1), (64 * MB + 1, 2), (4 * GB, 64), (4 * GB + 1, 64), (32 * GB, 64), (32 * GB + 1, 65)],
)
def test_messages_have_as_many_partitions_as_their_files_need(size: int, count: int) -> None:
    assert shares.partition_count(size) == count


def test_a_partition_has_its_cells_from_all_shares() -> None:
    one = ParsedShare({2: ParsedCells(messages=["a"]), 0: ParsedCells(messages=["b"])}, refused_lines=["x"])
    two = ParsedShare({2: ParsedCells(messages=["c"], extras=["d"])}, refused_lines=["y"])
    found = shares.partition_inputs([one, two])
    assert [(each.number, each.cells.messages, each.cells.extras) for each in found] == [
        (0, ["b"], []), (2, ["a", "c"], ["d"]),
    ]  # fmt: skip
    assert [each.refused_lines for each in found] == [["x", "y"]] * 2
    assert one.cells[2].messages == ["a"]


def test_a_partition_of_persons_has_its_files_from_all_partitions_of_messages() -> None:
    parts = [LatestFiles({0: ["a"], 1: ["b"]}, {1: ["c"]}), LatestFiles({1: ["d"]}, {1: ["e"]})]
    assert shares.merged_files(parts) == LatestFiles({0: ["a"], 1: ["b", "d"]}, {1: ["c", "e"]})
