"""The program's way to the terminal, the only one: whatever a text holds, nothing in it acts there."""

import sys
import traceback
from collections.abc import Iterable
from types import TracebackType

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..display import shortened, visible, visible_lines


def print_line(text: str = "", err: bool = False) -> None:
    """Prints one line; line breaks in it are escaped as well."""
    click.echo(visible(text), err=err)


def print_lines(texts: Iterable[str], err: bool = False) -> None:
    """Prints lines."""
    for text in texts:
        print_line(text, err)


def document(text: str, err: bool = False) -> None:
    """Prints a text that has lines; who made it has escaped the line breaks of what it quotes."""
    click.echo(visible_lines(text), err=err)


def above(console: Console, text: str) -> None:
    """Prints one line above the bar that a console shows."""
    console.print(visible(text), markup=False, highlight=False, soft_wrap=True)


def counts(title: str | None, names: tuple[str, str], rows: Iterable[tuple[str, int]]) -> None:
    """Prints names and their numbers as a table."""
    table = Table(title=title, box=None, pad_edge=False)
    table.add_column(names[0])
    table.add_column(names[1], justify="right")
    for name, number in rows:
        table.add_row(Text(shortened(name)), f"{number:,}")
    Console().print(table)


def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints a traceback, as Python does where nobody catches an error."""
    sys.stderr.write(visible_lines("".join(traceback.format_exception(kind, error, trace))))
