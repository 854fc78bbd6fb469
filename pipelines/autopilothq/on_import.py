"""Calls an action when a library is imported, so that this package need not import the library for it.

Importing dlt takes 0.4 seconds and DuckDB 0.1, and `autopilothq --help` should not wait for either. Two rules hold
whoever imports them, in whatever order: DuckDB is imported before pyarrow, and dlt sends no telemetry by default.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import Loader
else:
    Loader = object  # importing the real one would take longer than all the rest of `import autopilothq`


def before_import(library: str, action: Callable[[], object]) -> None:
    """Calls `action` once before a library is imported for the first time; not at all if it was imported already."""
    if library not in sys.modules:
        sys.meta_path.insert(0, _Finder(library, before=action))


def after_import(library: str, action: Callable[[], object]) -> None:
    """Calls `action` once as soon as a library has been imported; at once if it was imported already."""
    if library in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _Finder(library, after=action))


def _nothing() -> None:
    """Does nothing."""


class _Finder:
    """A finder on `sys.meta_path` that finds one library as Python itself does, and then removes itself."""

    def __init__(
        self, library: str, *, before: Callable[[], object] = _nothing, after: Callable[[], object] = _nothing
    ) -> None:
        self._library, self._before, self._after = library, before, after

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the protocol's
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Returns the library's spec with a loader that calls the action, and None for every other module."""
        if fullname != self._library or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        self._before()
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._after)
        return spec


class _Loader(Loader):
    """Loads a module as another loader does, and then calls an action."""

    def __init__(self, inner: Loader, after: Callable[[], object]) -> None:
        self._inner, self._after = inner, after

    def create_module(self, found: ModuleSpec) -> ModuleType | None:
        """Creates the module."""
        return self._inner.create_module(found)

    def exec_module(self, module: ModuleType) -> None:
        """Runs the module's code, with its own loader in place again, and then the action."""
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._inner
        self._inner.exec_module(module)
        self._after()
