"""What a run says to those who are not watching: log lines, and a note to a webhook."""

import logging
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from socket import gethostname
from typing import Any, NamedTuple, TextIO, cast

import click
import dlt

from .. import runner
from ..clients import auth, webhook
from ..display import json_text, visible, visible_lines
from ..errors import ApiError
from ..masking import Masked, masked, remember_credentials
from . import out

RUNS = ("load", "send", "forget")  # commands whose end is worth a note
WEBHOOK = "runtime.slack_incoming_hook"
NOTIFY = "sources.autopilothq.notify"
ALLOW = "autopilothq.allow_http"  # in click's context
WHEN = ("failure", "always")


class Settings(NamedTuple):
    """What holds for all commands."""

    debug: bool = False
    json: bool = False


def settings() -> Settings:
    """Those of this call."""
    context = click.get_current_context(silent=True)
    found = context.find_root().obj if context else None
    return found if isinstance(found, Settings) else Settings()


def hide(words: Sequence[str]) -> None:
    """Has passwords among the words of a call masked: one that cannot be read is repeated by what says so."""
    for word in words:
        if "@" in word and ":" in word:
            remember_credentials(word.partition("=")[2] if word.startswith("--") else word)


def mask(error: click.ClickException) -> None:
    """Masks what click prints of an error."""
    vars(error)["message"] = masked(error.message)  # which click's types call final


def line(level: str, message: str, **more: Any) -> None:
    """A log line as JSON on stderr: `at`, `level`, `message`, and more."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    out.print_line(json_text({"at": at, "level": level, "message": masked(message), **more}), err=True)


def fail(message: str, status: int) -> None:
    """Says what went wrong."""
    if settings().json:
        line("error", message, status=status)
    else:
        out.document(f"Error: {masked(message)}", err=True)


def warn(message: str) -> None:
    """Says what a person should know of."""
    if settings().json:
        line("warning", message)
    else:
        out.print_line(f"Warning: {masked(message)}", err=True)


class Handler(logging.Handler):
    """Writes what this program and dlt log as lines of this program: one each, without tracebacks and secrets.

    Other libraries have their say under `--debug` only: what a person must know of them is in the program's own words.
    """

    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._json = as_json

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line; what fails here is told by nobody, as logging itself has it."""
        if record.name.partition(".")[0] not in ("autopilothq", "dlt"):
            return
        text = _one_line(record)
        warning = record.levelno >= logging.WARNING
        if self._json:
            line("warning" if warning else "info", text)
        else:
            out.print_line(f"Warning: {text}" if warning else f"{datetime.now():%H:%M:%S} {text}", err=True)  # noqa: DTZ005


class _Visible(logging.Formatter):
    """Another formatter's text, as it may be shown."""

    def __init__(self, inner: logging.Formatter | None) -> None:
        super().__init__()
        self._inner = inner or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        """The text, whose lines stay."""
        return visible_lines(self._inner.format(record))


def _one_line(record: logging.LogRecord) -> str:
    """What the record says, and its error where it has one."""
    words = [runner.gist(record.getMessage())]
    if record.exc_info and record.exc_info[1]:
        words.append(f"{type(record.exc_info[1]).__name__}: {runner.gist(str(record.exc_info[1]))}")
    return masked(": ".join(words))


def listen(debug: bool, as_json: bool) -> None:
    """Decides what libraries may write to stderr: with `debug` all but secrets, without it no traceback at all.

    It holds until it is called again. Hooks that another program has set stay as they are.
    """
    if isinstance(sys.stderr, Masked):
        sys.stderr = sys.stderr.stream
    if debug:
        sys.stderr = cast(TextIO, Masked(sys.stderr))
    for logger in (logging.getLogger(), logging.getLogger("dlt")):
        for handler in [*logger.handlers]:
            # Of dlt's own handler there is one; what it finds there it takes instead.
            if isinstance(handler, Handler) or (logger.name == "dlt" and type(handler) is logging.StreamHandler):
                logger.removeHandler(handler)
        if not debug:
            logger.addHandler(Handler(as_json))
    # With `debug`, what libraries write is theirs, but nothing of it acts on the terminal.
    for other in (*logging.getLogger("dlt").handlers, logging.lastResort):
        if type(other).__module__ == "logging" and other and not isinstance(other.formatter, _Visible):
            other.setFormatter(_Visible(other.formatter))
    if sys.excepthook in (sys.__excepthook__, out.excepthook):
        sys.excepthook = out.excepthook
    logging.captureWarnings(not debug)
    if sys.unraisablehook in (sys.__unraisablehook__, _ignore):
        sys.unraisablehook = sys.__unraisablehook__ if debug else _ignore
    if threading.excepthook in (threading.__excepthook__, _tell_of_thread):
        threading.excepthook = threading.__excepthook__ if debug else _tell_of_thread


def _ignore(_: object) -> None:
    """What fails while an object is thrown away is the echo of an error that was told, or of no account."""


def _tell_of_thread(args: threading.ExceptHookArgs) -> None:
    logging.getLogger("autopilothq").warning(
        "A thread ended by an error", exc_info=(args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback)
    )


def summarise(text: str) -> None:
    """Keeps in one line what a run did, for the note."""
    click.get_current_context().find_root().meta[__name__] = text


def summary() -> str:
    """What was kept of the run."""
    return str(click.get_current_context().find_root().meta.get(__name__, ""))


def _for_slack(text: str) -> str:
    """The text in Slack's markup, where `<!channel>` would call everybody and `<https://...|...>` hide a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def allowed_http() -> bool | None:
    """True where `--allow-http` was given, else None: then the settings say."""
    context = click.get_current_context(silent=True)
    return bool(context and context.find_root().meta.get(ALLOW)) or None


def notify(words: Sequence[str], failure: str | None) -> None:
    """Tells the webhook of the settings how a run ended; that it could not be told is no failure of the run."""
    if not words or words[0] not in RUNS:
        return
    try:
        hook, when = runner.setting(WEBHOOK), runner.setting(NOTIFY) or WHEN[0]
        allows = bool(allowed_http() or dlt.config.get(auth.ALLOW_HTTP, bool))
    except Exception:  # noqa: BLE001 - settings that cannot be read are why the run failed
        return
    if not hook or (failure is None and when != "always"):
        return
    ended = "done" if failure is None else "failed"
    told = visible_lines(masked(failure)) if failure else visible(masked(summary()))
    text = f"autopilothq {' '.join(words)} on {gethostname()} {ended}: {told}"
    try:
        webhook.post_note(str(hook), _for_slack(masked(text)), allow_http=allows)
    except ApiError as error:
        warn(f"The webhook of {WEBHOOK} could not be told: {error}")
