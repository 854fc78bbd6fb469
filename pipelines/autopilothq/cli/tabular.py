"""Lays out tables of untrusted text for the terminal at hand."""

from collections.abc import Sequence

from .. import inspect
from . import out


def fitted(
    rows: Sequence[Sequence[str]], narrow: Sequence[Sequence[str]], below: Sequence[str], cut: bool = True
) -> list[str]:
    """Returns rows, the first of which is the head, as a table.

    On a terminal that is too narrow for it, it is a table of the `narrow` rows, each but the head with its text of
    `below` under it. `cut` is as in `inspect.grid`.
    """
    width = out.width()
    table = inspect.grid(rows, cut, width)
    if width is None or max(map(len, table)) <= width:
        return table
    head, *lines = inspect.grid(narrow, cut)
    found = [head]
    for line, text in zip(lines, below, strict=True):
        found += [line, *out.wrapped(f"  {text}", "  ")]
    return found
