"""Lays out tables of untrusted text for the terminal at hand."""

from collections.abc import Sequence

from .. import inspect
from . import out


def fitted(
    rows: Sequence[Sequence[str]], narrow: Sequence[Sequence[str]], below: Sequence[str], cut: bool = True
) -> list[str]:
    """Returns the lines of a table of `rows`, the first of which is the head.

    If the terminal is too narrow, the table has the `narrow` rows instead, and each row but the head has its text of
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
