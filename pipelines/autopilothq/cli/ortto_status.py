"""Ortto's part of `status`: a separate module, because the rest of `status` needs no API client."""

from datetime import datetime

from ..clients.auth import missing_key
from ..clients.ortto import Ortto, OrttoSettings
from ..clients.settings import API_TYPES
from ..errors import RunError
from ..explain import explained
from ..inspect import CampaignCounts
from ..inspect.ortto_counts import fetch_campaigns
from ..sources.settings import check_origin_settings
from ..warehouses.dataset import Dataset
from ..warehouses.settings import typed_settings

_TYPES = {**API_TYPES, "region": str}


def fetch_ortto_campaigns(reader: Dataset, now: datetime) -> list[CampaignCounts]:
    """Returns the current counts of campaigns from the configured account. Raises RunError if no key is set."""
    with explained(), Ortto(_ortto_settings()) as account:
        return fetch_campaigns(reader, account, now)


def _ortto_settings() -> OrttoSettings:
    """Returns the settings of the account that `load ortto` reads."""
    check_origin_settings("ortto")
    section = "sources.autopilothq.ortto"
    found = typed_settings("sources.autopilothq", {"allow_http": bool}) | typed_settings(section, _TYPES)
    if not found.get("api_key"):
        raise RunError(missing_key("the custom API key of an account of Ortto", f"{section}.api_key"))
    return OrttoSettings(**found)
