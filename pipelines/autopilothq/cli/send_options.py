"""The options of all commands that send, as one value."""

from datetime import timedelta
from typing import NamedTuple

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
