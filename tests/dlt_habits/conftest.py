"""Fixtures that the tests of this folder share: one archive, and the result of one plain load of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from dlt.extract import DltSource

from autopilothq import archive
from dlt_habits.habits import Place, Rows, kept, write

_WHOLE: dict[Path, Rows] = {}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small archive."""
    return write(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="session")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that keeps the place with the whole archive."""
    return tmp_path_factory.mktemp("whole")


@pytest.fixture
def whole(there: Path, folder: Path) -> Rows:
    """The result of one plain load of the whole archive; the first test that needs it makes it."""
    if there not in _WHOLE:
        place = Place()
        place.run(archive(str(folder)))
        assert place.balances()
        place.keep(there)
        _WHOLE[there] = place.tables()
        place.pipeline.drop()
    return _WHOLE[there]


@pytest.fixture
def source(folder: Path) -> Callable[..., DltSource]:
    """Makes a source of the small archive: `source(events=["Email Opened"])`."""
    return lambda **words: archive(str(folder), **words)


@pytest.fixture
def loaded(there: Path, whole: Rows) -> Place:
    """A place that has the whole archive."""
    place = kept(there)
    assert place.tables() == whole
    return place
