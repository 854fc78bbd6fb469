"""Searches for lines that the engine reads differently from `read_message`, for a given time.

`python tests/benchmarks/fuzz.py --seconds 3600 --seed 1` prints each difference with its seed and the fewest lines that
show it, and ends with status 1 if there was any. `tests/contract/test_differential.py` is a short form of it.
"""

import argparse
import re
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT / "pipelines"), str(ROOT / "tests")]

from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402

from contract import generated  # noqa: E402
from contract.both_ways import differences, smallest  # noqa: E402
from contract.loading import to_line  # noqa: E402

ROUND = 20  # loads per seed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="how long to go on (60)")
    parser.add_argument("--seed", type=int, default=0, help="where to begin; each seed makes the same lines again (0)")
    given_ = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    until, number = time.monotonic() + given_.seconds, given_.seed
    seen: set[str] = set()
    while time.monotonic() < until:
        look(number, until, seen)
        number += 1
    print(f"seeds {given_.seed} to {number - 1}: {len(seen)} kinds of differences")
    return 1 if seen else 0


def look(number: int, until: float, seen: set[str]) -> None:
    """Loads the lines of one seed, and prints the differences of kinds that are not in `seen` yet."""

    @seed(number)
    @settings(
        max_examples=ROUND,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(generated.odd_lines(shapes=10, others=60))
    def one(lines: list[bytes]) -> None:
        if time.monotonic() > until or not differences(lines):
            return
        fewest = smallest(lines)
        found = differences(fewest)
        kind = kind_of(found)
        if kind not in seen:
            seen.add(kind)
            print(
                f"seed {number}:",
                *(f"  {to_line(line)!r}" for line in fewest),
                *(f"    {line}" for line in found),
                sep="\n",
            )
            sys.stdout.flush()

    one()


def kind_of(found: Sequence[str]) -> str:
    """Returns what differences of the same cause roughly have in common: the words without the values."""
    return " ".join(re.sub(r"'(?:[^'\\]|\\.)*'|\d+", "_", line)[:300] for line in found)


if __name__ == "__main__":
    sys.exit(main())
