"""Asks an account of Ortto for `status`; apart, because the status itself needs no client of an API."""

from datetime import datetime

from ..clients.auth import where_to_set
from ..clients.ortto import Ortto, OrttoSettings
from ..clients.settings import ALLOW_HTTP
from ..errors import RunError
from ..explain import explained
from ..inspect import CampaignCounts
from ..inspect.asking import ask_campaigns
from ..warehouses.dataset import Dataset
from ..warehouses.settings import setting


def ask_ortto_campaigns(reader: Dataset, now: datetime) -> list[CampaignCounts]:
    """Returns the campaigns as the account of the settings counts them now. Raises RunError where there is no key."""
    with explained(), Ortto(_ortto_settings()) as account:
        return ask_campaigns(reader, account, now)


def _ortto_settings() -> OrttoSettings:
    """The settings of the account that `load ortto` reads."""
    section = "sources.autopilothq.ortto"
    names = ("api_key", "region", "base_url", "requests_per_second")
    found = {name: value for name in names if (value := setting(f"{section}.{name}")) is not None}
    if not found.get("api_key"):
        name = f"{section}.api_key"
        raise RunError(f"Expected the key of the Ortto account, but there is none.\nSet {name} ({where_to_set(name)}).")
    allowed = bool(setting(ALLOW_HTTP))
    return OrttoSettings(**found, allow_http=allowed)
