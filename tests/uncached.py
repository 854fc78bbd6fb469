"""For mutation runs: a fixture for every test of the copy that is changed.

While a run records which test calls which function, nothing that a test reuses may hide a call. And each call of a
function that can be changed goes through two more, so what recurses needs more room.
"""

import os
import sys
from functools import cache

import pytest

sys.setrecursionlimit(10_000)
CACHED = type(cache(abs))
OURS = ("autopilothq", "contract", "tests", "test_")


@pytest.fixture(autouse=True)
def uncached() -> None:
    """Forgets, before each test, what cached functions of the tests and of the package returned before."""
    if os.environ.get("MUTANT_UNDER_TEST") != "stats":
        return
    for name, module in list(sys.modules.items()):
        if name.startswith(OURS):
            for value in list(vars(module).values()):
                if isinstance(value, CACHED):
                    value.cache_clear()
