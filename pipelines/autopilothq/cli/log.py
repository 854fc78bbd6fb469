"""Log lines on stderr, of this program and of libraries."""

import logging
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TextIO, cast

import click

from ..display import gist, json_text, visible_lines
from ..masking import Masked, masked, remember_credentials
from . import out

_UNFINISHED = "What was not finished does not count as loaded; the next run reads it again."
_UNDELIVERED = "Run it again for the rest: what was delivered is not sent again."
_CONTINUED = "Run it again: that completes it."
_REGISTERED = "`hooks list` shows which hooks there are; run it again for the rest."
_LEFT = {
    "load": _UNFINISHED,
    "adopt": _UNFINISHED,
    "send": _UNDELIVERED,
    "forward": _UNDELIVERED,
    "contacts": "Run it again within a day for the rest: contacts that are done are left out.",
    "forget": _CONTINUED,
    "receive": "What was received is kept.",
    "sample": "What it has written stays: name another folder, or remove it.",
    "export": "What it has written is not a complete export: run it again, and it starts from scratch.",
    "models apply": _CONTINUED,
    "models drop": _CONTINUED,
    "schema upgrade": _CONTINUED,
    "hooks add": _REGISTERED,
    "hooks remove": _REGISTERED,
}
"""What a user is told after Ctrl-C about the work of a command that changes something, by the command's name."""
_UNCHANGED = "It only reads: nothing was changed."
ALLOW_HTTP_KEY = "autopilothq.allow_http"  # in click's context


class LogSettings(NamedTuple):
    """The settings of log lines, for all commands."""

    debug: bool = False
    json: bool = False


def log_settings() -> LogSettings:
    """Returns the log settings of this call of the program."""
    context = click.get_current_context(silent=True)
    found = context.find_root().obj if context else None
    return found if isinstance(found, LogSettings) else LogSettings()


def hide_credentials(args: Sequence[str]) -> None:
    """Masks the passwords in the arguments of a call in all later output, such as errors that repeat them."""
    for arg in args:
        if ("@" in arg and ":" in arg) or ("://" in arg and "?" in arg):
            remember_credentials(arg.partition("=")[2] if arg.startswith("--") else arg)


def mask(error: click.ClickException) -> None:
    """Masks secrets in the message of an error that click prints.

    Masking imports dlt, which knows the secrets, so messages that quote no value are left unchanged.
    """
    if isinstance(error, click.NoSuchOption | click.MissingParameter):
        return
    vars(error)["message"] = masked(error.message)  # click types it as final


def line(level: str, message: str, **more: Any) -> None:
    """Writes a log line as JSON to stderr, with the keys `at`, `level`, `message`, and those of `more`."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    out.print_line(json_text({"at": at, "level": level, "message": masked(message), **more}), err=True)


def fail(message: str, status: int) -> None:
    """Reports the error that ends the run."""
    if log_settings().json:
        line("error", message, status=status)
    else:
        out.document(f"Error: {masked(message)}", err=True)


def abort(commands: Sequence[str], status: int) -> None:
    """Reports that Ctrl-C ended the run, and what happens to its work; `commands` are the command's names."""
    names = (" ".join(commands[:2]), *commands[:1])
    left = next((_LEFT[name] for name in names if name in _LEFT), _UNCHANGED)
    message = f"Aborted! {left}" if commands else "Aborted!"
    if log_settings().json:
        line("error", message, status=status)
    else:
        out.document(f"\n{message}", err=True)  # below the ^C of the terminal


def warn(message: str) -> None:
    """Reports a warning."""
    if log_settings().json:
        line("warning", message)
    else:
        out.print_line(f"Warning: {masked(message)}", err=True)


class Handler(logging.Handler):
    """Writes each log record of this program or of dlt as one line, without a traceback or secrets.

    Records of other libraries appear only with `--debug`, because this program reports the important ones itself.
    """

    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._json = as_json

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a record as a line, if this program or dlt logged it."""
        if record.name.partition(".")[0] not in ("autopilothq", "dlt"):
            return
        text = _one_line(record)
        warning = record.levelno >= logging.WARNING
        if self._json:
            line("warning" if warning else "info", text)
        else:
            out.print_line(f"Warning: {text}" if warning else f"{datetime.now():%H:%M:%S} {text}", err=True)  # noqa: DTZ005


class _Visible(logging.Formatter):
    """Escapes control characters in another formatter's text."""

    def __init__(self, inner: logging.Formatter | None) -> None:
        super().__init__()
        self._inner = inner or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        """Returns the escaped text; line breaks stay."""
        return visible_lines(self._inner.format(record))


def _one_line(record: logging.LogRecord) -> str:
    """Returns a record's message, followed by its error if it has one, on one line and masked."""
    texts = [gist(record.getMessage())]
    if record.exc_info and record.exc_info[1]:
        texts.append(f"{type(record.exc_info[1]).__name__}: {gist(str(record.exc_info[1]))}")
    return masked(": ".join(texts))


def configure_logging(debug: bool, as_json: bool) -> None:
    """Configures what libraries write to stderr: with `debug` everything except secrets, otherwise no tracebacks.

    This holds until the next call. Exception hooks that an embedding program has set are kept.
    """
    if isinstance(sys.stderr, Masked):
        sys.stderr = sys.stderr.stream
    if debug:
        sys.stderr = cast(TextIO, Masked(sys.stderr))
    for logger in (logging.getLogger(), logging.getLogger("dlt")):
        for handler in [*logger.handlers]:
            # dlt adds its own handler only if there is none.
            if isinstance(handler, Handler) or (logger.name == "dlt" and type(handler) is logging.StreamHandler):
                logger.removeHandler(handler)
        if not debug:
            logger.addHandler(Handler(as_json))
    # With `debug`, libraries format their own text, so control characters in it are escaped here.
    for other in (*logging.getLogger("dlt").handlers, logging.lastResort):
        if type(other).__module__ == "logging" and other and not isinstance(other.formatter, _Visible):
            other.setFormatter(_Visible(other.formatter))
    if sys.excepthook in (sys.__excepthook__, out.excepthook):
        sys.excepthook = out.excepthook
    logging.captureWarnings(not debug)
    if sys.unraisablehook in (sys.__unraisablehook__, _ignore):
        sys.unraisablehook = sys.__unraisablehook__ if debug else _ignore
    if threading.excepthook in (threading.__excepthook__, _log_thread_error):
        threading.excepthook = threading.__excepthook__ if debug else _log_thread_error


def _ignore(_: object) -> None:
    """Ignores an error in a finaliser: it follows from an error that is reported, or does not matter."""


def _log_thread_error(args: threading.ExceptHookArgs) -> None:
    logging.getLogger("autopilothq").warning(
        "A thread ended with an error", exc_info=(args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback)
    )


def allowed_http() -> bool | None:
    """Returns True if `--allow-http` was given, otherwise None, so that the setting decides."""
    context = click.get_current_context(silent=True)
    return bool(context and context.find_root().meta.get(ALLOW_HTTP_KEY)) or None
