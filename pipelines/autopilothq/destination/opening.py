"""Opens the account that the settings name, of either kind. In a dry run it is only read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ..clients.autopilot import Autopilot
from ..clients.decode import plain
from ..clients.ortto import Ortto
from .account import DryRunAccount, WritableAccount
from .fields import Fields
from .kind import AUTOPILOT, ORTTO, AccountKind
from .ortto import DryRunOrtto, OrttoAccount
from .ortto_fields import Activities, OrttoFields
from .preview import Preview
from .settings import AnySettings, OrttoDestinationSettings
from .triggers import EventTriggers, Triggers


class OpenAccount(NamedTuple):
    """An open account, its fields, and the triggers of its events.

    `unknown_traits` is the setting for items with traits that the account has no field for: `send` or `refuse`.
    """

    kind: AccountKind
    account: WritableAccount
    fields: Fields
    triggers: EventTriggers
    unknown_traits: str = "send"
    is_dry_run: bool = False


@contextmanager
def open_account(
    settings: AnySettings, preview: Preview | None = None, show: Callable[[str], None] | None = None
) -> Iterator[OpenAccount]:
    """Opens the account that the settings name. With a `preview`, the preview gets the requests that would write.

    Raises ApiError if the settings do not fit the account.
    """
    settings.check()
    base_url = settings.api.base_url
    if isinstance(settings, OrttoDestinationSettings):
        with Ortto(settings.api) as ortto:
            people = OrttoFields(plain(ortto.custom_fields()), settings.fields)
            activities = Activities(plain(ortto.instance_schema()), settings.activities)
            writable = OrttoAccount(ortto)
            if preview is not None:
                writable = DryRunOrtto(ortto, preview, show, people.types)
            yield OpenAccount(ORTTO, writable, people, activities, settings.unknown_traits, preview is not None)
        return
    with Autopilot(settings.api) as autopilot:
        fields = Fields(plain(autopilot.custom_fields()), settings.fields, settings.user_id_field)
        triggers = Triggers(autopilot, settings.triggers)
        account: WritableAccount = autopilot
        if preview is not None:
            account = DryRunAccount(autopilot, preview, show, base_url)
        yield OpenAccount(AUTOPILOT, account, fields, triggers, settings.unknown_traits, preview is not None)
