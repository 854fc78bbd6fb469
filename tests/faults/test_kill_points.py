"""Each point at which these tests kill a process is named next to its code, exists, and is used."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import autopilothq

PACKAGE = Path(autopilothq.__file__).parent
TESTS = {path.name: path.read_text() for path in Path(__file__).parent.glob("*.py") if path != Path(__file__)}
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in sorted(PACKAGE.rglob("*.py"))
    if "\nKILL_POINT_" in path.read_text()
]
POINTS: list[tuple[str, str]] = [
    (module, name) for module in MODULES for name in vars(import_module(module)) if name.startswith("KILL_POINT_")
]


@pytest.mark.parametrize(("module", "name"), POINTS)
def test_a_kill_point_is_code_of_its_module_and_of_use(module: str, name: str) -> None:
    named, _, path = getattr(import_module(module), name).partition(":")
    assert named == module
    found: Any = import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    assert callable(found)
    assert any(name in text for text in TESTS.values())


def test_names_are_unique_and_no_test_spells_a_point_of_the_package() -> None:
    names = [name for _, name in POINTS]
    assert len(set(names)) == len(names) > 0
    spelled = re.compile(r"[\"']autopilothq(\.\w+)+:\w")
    assert [name for name, text in TESTS.items() if spelled.search(text)] == []
