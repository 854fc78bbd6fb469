"""Finds the messages that cannot become rows, after making rows has raised an error."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from tempfile import TemporaryDirectory

from . import engine
from .cells import ParsedCells
from .context import ProjectionContext
from .parse import ENVIRONMENT_ERRORS

MakeRows = Callable[[ProjectionContext, str, str], None]
"""Makes all rows of the messages that match an SQL condition, and writes them to a path."""


def find_unreadable(context: ProjectionContext, canary: ParsedCells, make_rows: MakeRows) -> dict[str, str]:
    """Returns the errors of the messages whose rows cannot be made, by message id.

    It tries all messages, then each half of those that raise, down to single messages. If even the rows of the `canary`
    cannot be made, no message is at fault, and it returns nothing.
    """
    files = engine.parquet_files(context.cells.messages)
    found = context.con.execute(f"SELECT seq, id FROM {files} WHERE NOT irregular ORDER BY seq").fetchall()
    if not found or _error(context, canary, "true", make_rows) is not None:
        return {}
    # What parsing has rejected or discarded cannot be the cause.
    cells = dataclasses.replace(context.cells, rejects=[], discards=[])
    return dict(_narrow(context, cells, found, make_rows))


def _narrow(
    context: ProjectionContext, cells: ParsedCells, messages: Sequence[tuple[int, str]], make_rows: MakeRows
) -> Iterator[tuple[str, str]]:
    error = _error(context, cells, f"seq BETWEEN {messages[0][0]} AND {messages[-1][0]}", make_rows)
    if error is None:
        return
    if len(messages) == 1:
        yield messages[0][1], engine.error_line(error)
        return
    half = len(messages) // 2
    yield from _narrow(context, cells, messages[:half], make_rows)
    yield from _narrow(context, cells, messages[half:], make_rows)


def _error(context: ProjectionContext, cells: ParsedCells, only: str, make_rows: MakeRows) -> Exception | None:
    """Makes the rows of some messages in a separate engine; returns the exception that this raises, or None."""
    with (
        TemporaryDirectory(dir=context.scratch) as folder,
        engine.connect(folder, context.memory, 1) as con,
    ):
        attempt = dataclasses.replace(context, con=con, scratch=folder, cells=cells, threads=1)
        try:
            make_rows(attempt, only, f"{folder}/rows")
        except ENVIRONMENT_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - any exception is what this looks for
            return error
    return None
