"""The options of all commands that send, as one value."""

from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any, NamedTuple

from ..warehouses.settings import TargetOptions


class SendOptions(NamedTuple):
    """The options of a command that sends. An option that a command does not have keeps its default.

    `to` names the kind of account. With `requests`, a dry run prints the requests instead of what would change.
    """

    target: TargetOptions
    wait: timedelta
    dry_run: bool
    to: str = "autopilot"
    unknown_traits: str | None = None
    requests: bool = False


def as_send_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a command that passes these options on as one SendOptions, `options`."""

    @wraps(command)
    def call(**given: Any) -> Any:
        own = {name: given.pop(name) for name in SendOptions._fields if name in given}
        return command(options=SendOptions(**own), **given)

    return call
