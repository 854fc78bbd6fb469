"""Posts notes about the end of a run to a webhook."""

from collections.abc import Sequence
from socket import gethostname

import click

from ..clients.settings import ALLOW_HTTP
from ..display import visible, visible_lines
from ..errors import ApiError
from ..masking import masked
from ..warehouses.settings import setting
from . import log

# The commands about whose end the webhook is notified.
NOTED_COMMANDS = ("load", "adopt", "send", "forward", "contacts", "forget")
WEBHOOK = "runtime.slack_incoming_hook"
NOTIFY = "sources.autopilothq.notify"
NOTIFY_DEFAULT, NOTIFY_ALWAYS = "failure", "always"


def summarise(text: str) -> None:
    """Stores a summary of the run for the note to the webhook."""
    click.get_current_context().find_root().meta[__name__] = text


def summary() -> str:
    """Returns the stored summary of the run; "" if there is none."""
    return str(click.get_current_context().find_root().meta.get(__name__, ""))


def notify(commands: Sequence[str], failure: str | None) -> None:
    """Posts a note about the end of a run to the webhook, if the settings name one and ask for the note.

    `commands` are the command's names, such as `["load", "archive"]`. `failure` is the error, None if the run
    succeeded. A note that cannot be sent only causes a warning.
    """
    if not commands or commands[0] not in NOTED_COMMANDS:
        return
    try:
        import dlt

        hook, when = setting(WEBHOOK), setting(NOTIFY) or NOTIFY_DEFAULT
        allows = bool(log.allowed_http() or dlt.config.get(ALLOW_HTTP, bool))
    except Exception:  # noqa: BLE001 - settings that cannot be read are why the run failed
        return
    if hook and when not in (NOTIFY_DEFAULT, NOTIFY_ALWAYS):
        log.warn(
            f"Expected {NOTIFY_DEFAULT} or {NOTIFY_ALWAYS} as {NOTIFY}, but got {when!r}: only failures are notified."
        )
    if not hook or (failure is None and when != NOTIFY_ALWAYS):
        return
    from ..clients import webhook

    ended = "done" if failure is None else "failed"
    result = visible_lines(masked(failure)) if failure else visible(masked(summary()))
    text = f"autopilothq {' '.join(commands)} on {gethostname()} {ended}: {result}"
    try:
        webhook.post_note(str(hook), _for_slack(masked(text)), allow_http=allows)
    except ApiError as error:
        log.warn(f"The webhook of {WEBHOOK} could not be notified: {error}")


def _for_slack(text: str) -> str:
    """Escapes a text for Slack, where `<!channel>` would notify everybody and `<https://...|...>` would hide a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
