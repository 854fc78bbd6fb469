"""What a run says to those who are not watching: log lines, and a note to a webhook."""

import json
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import click

from .. import http, run

RUNS = ("load", "send", "forget")  # commands whose end is worth a note
WEBHOOK = "runtime.slack_incoming_hook"
NOTIFY = "sources.autopilothq.notify"
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


def line(level: str, message: str, **more: Any) -> None:
    """A log line as JSON on stderr: `at`, `level`, `message`, and more."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    click.echo(json.dumps({"at": at, "level": level, "message": message, **more}, default=str), err=True)


def fail(message: str, status: int) -> None:
    """Says what went wrong."""
    if settings().json:
        line("error", message, status=status)
    else:
        click.echo(f"Error: {message}", err=True)


def warn(message: str) -> None:
    """Says what a person should know of."""
    if settings().json:
        line("warning", message)
    else:
        click.echo(f"Warning: {message}", err=True)


def summarise(text: str) -> None:
    """Keeps in one line what a run did, for the note."""
    click.get_current_context().find_root().meta[__name__] = text


def notify(words: Sequence[str], failure: str | None) -> None:
    """Tells the webhook of the settings how a run ended; that it could not be told is no failure of the run."""
    if not words or words[0] not in RUNS:
        return
    hook, when = run.setting(WEBHOOK), run.setting(NOTIFY) or WHEN[0]
    if not hook or (failure is None and when != "always"):
        return
    summary = failure or click.get_current_context().find_root().meta.get(__name__, "")
    ended = "failed" if failure else "done"
    try:
        http.post_note(str(hook), f"autopilothq {' '.join(words)} on {socket.gethostname()} {ended}: {summary}")
    except http.ApiError as error:
        warn(f"The webhook of {WEBHOOK} could not be told: {error}")
