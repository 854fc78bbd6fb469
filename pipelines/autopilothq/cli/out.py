"""Prints to the terminal. The program prints only through here, so that no text that it quotes acts there."""

import select
import shutil
import sys
import traceback
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import TYPE_CHECKING

import click

from ..display import shortened, visible, visible_lines

if TYPE_CHECKING:
    from rich.console import Console

NEEDS_ATTENTION = 1
"""The exit status of a command that did its work, and found something that a person must look at."""
INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells report it."""


def print_line(text: str = "", err: bool = False) -> None:
    """Prints one line; line breaks in it are escaped as well."""
    _echo(visible(text), err)


def print_lines(texts: Iterable[str], err: bool = False) -> None:
    """Prints lines, each as `print_line` does."""
    for text in texts:
        print_line(text, err)


def document(text: str, err: bool = False) -> None:
    """Prints a text of several lines; its author has escaped the line breaks in what it quotes."""
    _echo(visible_lines(text), err)


def above(console: "Console", text: str) -> None:
    """Prints one line above the progress bar that a console on stderr shows, if that is a terminal."""
    if console.is_terminal:
        console.print(visible(text), markup=False, highlight=False, soft_wrap=True)
    else:
        print_line(text, err=True)


def _echo(text: str, err: bool) -> None:
    """Prints a text. If stderr fails, on a full disk or because its reader has gone, the work goes on."""
    with suppress(OSError) if err else nullcontext():
        click.echo(text, err=err)


def width() -> int | None:
    """Returns how many columns the terminal has that the output goes to; None if it goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def flush() -> None:
    """Writes what was printed, where it goes, before the process ends by a signal."""
    with suppress(OSError):
        sys.stdout.flush()


def counts(title: str | None, names: tuple[str, str], rows: Iterable[tuple[str, int]]) -> None:
    """Prints counts as a table with a title and the names of its two columns."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=None, pad_edge=False)
    table.add_column(names[0])
    table.add_column(names[1], justify="right")
    for name, number in rows:
        table.add_row(Text(shortened(name)), f"{number:,}")
    Console().print(table)


def is_unread() -> bool:
    """Returns whether the reader of the output has gone, as `head` does once it has its lines."""
    output = select.poll()
    output.register(sys.stdout, select.POLLERR)
    return bool(output.poll(0))


def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints the traceback of an uncaught error, as Python does, with its text made safe to show."""
    sys.stderr.write(visible_lines("".join(traceback.format_exception(kind, error, trace))))
