"""For mutation runs: a hook for every test of the copy that is changed.

What a test reuses hides which functions it depends on: a load that an earlier test of its file made, a name that the
package has in a cache. So a test counts as one of all functions that its file has called so far. And each call of a
function that can be changed goes through two more, so what recurses needs more room.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

CACHED = type(cache(abs))
called: dict[Path, set[str]] = defaultdict(set)
sys.setrecursionlimit(10_000)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Adds what the file has called to what mutmut records of the test."""
    for name, module in list(sys.modules.items()):
        if name.startswith("autopilothq."):
            for value in list(vars(module).values()):
                if isinstance(value, CACHED):
                    value.cache_clear()
    try:
        return (yield)
    finally:
        recorded: set[str] = sys.modules["mutmut.state"].state()._stats
        called[item.path] |= recorded
        recorded |= called[item.path]
