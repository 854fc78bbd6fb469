"""Fixtures that the tests of this folder share."""

from collections.abc import Iterator

import pytest

from autopilothq.projection import projection


@pytest.fixture(scope="module")
def several_threads() -> Iterator[None]:
    """Lets small loads use all threads, to show that the tables are the same, whichever thread does what."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projection, "SMALL_LOAD", 0)
        yield
