"""Fixtures that the tests of this folder share: one archive, and the result of one plain load of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from dlt.extract import DltSource

from autopilothq import archive
from dlt_habits.habits import Rows, Target, kept, write

_WHOLE: dict[Path, Rows] = {}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small archive."""
    return write(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="session")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the target with the whole archive is kept."""
    return tmp_path_factory.mktemp("whole")


@pytest.fixture
def whole(there: Path, folder: Path) -> Rows:
    """The result of one plain load of the whole archive; the first test that needs it makes it."""
    if there not in _WHOLE:
        target = Target()
        target.run(archive(str(folder)))
        assert target.balances()
        target.keep(there)
        _WHOLE[there] = target.tables()
        target.pipeline.drop()
    return _WHOLE[there]


@pytest.fixture
def source(folder: Path) -> Callable[..., DltSource]:
    """Makes a source of the small archive: `source(events=["Email Opened"])`."""
    return lambda **words: archive(str(folder), **words)


@pytest.fixture
def loaded(there: Path, whole: Rows) -> Target:
    """A target that has the whole archive."""
    target = kept(there)
    assert target.tables() == whole
    return target
