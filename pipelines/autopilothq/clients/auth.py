"""API keys: the headers that carry them, and the URLs that they may be sent to."""

import ipaddress
from base64 import b64encode

import httpx

from .. import masking
from ..errors import InvalidSetting
from .settings import ApiSettings

HOW_TO_ALLOW = "In a network that you trust it can be allowed: --allow-http, or {} = true"


def key_header(settings: ApiSettings, header: str) -> dict[str, str]:
    """Returns a header whose value is the key, and masks the key in all later output. Raises InvalidSetting.

    Example: `key_header(AutopilotSettings(api_key="0123abcd"), "autopilotapikey") == {"autopilotapikey": "0123abcd"}`.
    """
    return {header: _checked_key(settings)}


def basic_auth(settings: ApiSettings) -> dict[str, str]:
    """Returns the header of HTTP Basic with the key as the user and an empty password, and masks both forms.

    Raises InvalidSetting (docs/contract/profile-api.md).
    """
    encoded = b64encode(f"{_checked_key(settings)}:".encode()).decode()
    masking.remember_secret(encoded)
    return {"Authorization": f"Basic {encoded}"}


def _checked_key(settings: ApiSettings) -> str:
    """Returns the key without the line break that files often end with, and has it masked in all later output.

    Raises InvalidSetting if it is empty or has characters that no key has.
    """
    key = settings.api_key.strip()
    if not key or not key.isascii() or not key.isprintable():
        what = "contains characters that are not allowed in a key" if key else "is empty"
        name = settings.setting
        raise InvalidSetting(f"{name} {what}: set it to the key as the account shows it ({where_to_set(name)})")
    masking.remember_secret(key)
    return key


def where_to_set(setting: str) -> str:
    """Returns the places where a user can set a secret, for errors."""
    return f"in .dlt/secrets.toml, or {setting.replace('.', '__').upper()} in the environment"


def missing_key(what: str, setting: str, more: str = "") -> str:
    """Returns the message for a key that is not set; `more` is another way to set it."""
    return f"Expected {what}, but there is none.\nSet {setting} {where_to_set(setting)}{more}."


def checked_url(settings: ApiSettings) -> httpx.URL:
    """Returns the base URL. Raises InvalidSetting if it is invalid, or if the key would leave the machine over http.

    The error masks the URL, which may have a password.
    """
    setting = settings.name_of("base_url")
    try:
        url = httpx.URL(settings.base_url)
        good = url.scheme in ("http", "https") and url.host and not (url.userinfo or url.query or url.fragment)
    except httpx.InvalidURL:
        good = False
        url = httpx.URL()
    if not good:
        raise InvalidSetting(
            f"{setting} must be like https://host/path, without user, password, query or fragment,"
            f" got {masking.masked_url(settings.base_url)!r}"
        )
    if url.scheme == "http" and not settings.allow_http and not is_loopback(url.host):
        raise InvalidSetting(
            f"{setting} is not https: the key would go to {url.host} for everyone on the way to read."
            f" Use https://. {HOW_TO_ALLOW.format(settings.name_of('allow_http'))}"
        )
    return url


def is_loopback(host: str) -> bool:
    """Returns whether the host of a URL is this machine: a loopback address, or `localhost`. Resolves no names.

    Example: `is_loopback("127.8.0.1")`, but not `is_loopback("127.0.0.1.example.com")`.
    """
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host.lower() == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
