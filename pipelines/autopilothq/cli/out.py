"""Prints to the terminal. The program prints only through here, so that control characters are escaped."""

import os
import select
import shutil
import sys
import textwrap
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
"""The exit status of a command that succeeded, but found something that needs attention."""
MIN_COLUMNS = 20  # the least width of wrapped lines, however narrow the terminal is
INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells report it."""


def print_line(text: str = "", err: bool = False) -> None:
    """Prints one line, with line breaks in it escaped."""
    _echo(visible(text), err)


def print_lines(texts: Iterable[str], err: bool = False) -> None:
    """Prints lines, each as `print_line` does."""
    for text in texts:
        print_line(text, err)


def document(text: str, err: bool = False) -> None:
    """Prints a text of several lines. The caller must have escaped line breaks in quoted values."""
    _echo(visible_lines(text), err)


def above(console: "Console", text: str) -> None:
    """Prints one line to stderr, above the console's progress bar if it shows one."""
    if console.is_terminal:
        console.print(visible(text), markup=False, highlight=False, soft_wrap=True)
    else:
        print_line(text, err=True)


def _echo(text: str, err: bool) -> None:
    """Prints a text. Ignores errors of stderr, such as a full disk or a closed pipe."""
    with suppress(OSError) if err else nullcontext():
        click.echo(text, err=err)


def width() -> int | None:
    """Returns the number of columns of the terminal, None if the output is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def wrapped(text: str, indent: str) -> list[str]:
    """Returns a text wrapped to the terminal's width, all lines but the first indented; one line without a terminal."""
    columns = width()
    if columns is None:
        return [text]
    # Breaks neither at hyphens nor in long words, so that names and paths can still be searched and copied.
    return textwrap.wrap(
        text, max(columns, MIN_COLUMNS), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def print_wrapped(text: str) -> None:
    """Prints one line as `print_line` does; a terminal shows it wrapped between words, with later lines indented."""
    print_lines(wrapped(visible(text), "    "))


def flush() -> None:
    """Flushes the output before the process ends; drops what cannot be written, or Python would exit with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
    """Returns whether the reader of the output has closed it, as `head` does after its lines."""
    output = select.poll()
    output.register(sys.stdout, select.POLLERR)
    return bool(output.poll(0))


def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints the traceback of an uncaught error as Python does, with control characters escaped."""
    sys.stderr.write(visible_lines("".join(traceback.format_exception(kind, error, trace))))
