"""Posts a text to a webhook, whose URL is a secret."""

import json
import threading
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from .. import masking
from ..errors import InvalidSetting, RequestRejected, Unavailable
from .auth import HOW_TO_ALLOW, is_loopback
from .settings import ALLOW_HTTP


def post_note(url: str, text: str, timeout: float = 10, allow_http: bool = False) -> None:
    """Posts a text to a webhook in Slack's format. `timeout` is in seconds, for the whole call.

    The URL is a secret: neither errors nor logs contain it, and it is sent only to its own host, over https unless
    `allow_http` is set or the host is this machine. Redirects are not followed, and only the status of the answer is
    read. The standard library's client is used because httpx would log the URL. Raises ApiError.
    """
    masking.remember_hook(url)
    scheme, host = _scheme_and_host(url)
    if scheme not in ("https", "http"):
        raise InvalidSetting("Expected a URL that begins with https://")
    if scheme == "http" and not allow_http and not is_loopback(host):
        raise InvalidSetting(
            f"Expected a URL that begins with https://, got http://. {HOW_TO_ALLOW.format(ALLOW_HTTP)}"
        )
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - checked above
    failures: list[Exception] = []
    posting = threading.Thread(target=_post, args=(request, host, timeout, failures), name="webhook", daemon=True)
    posting.start()
    posting.join(timeout)
    if posting.is_alive():  # a socket's time-out starts again with each byte
        raise Unavailable(f"No answer came within {timeout:g} s.")
    if not failures:
        return
    error = failures[0]
    if isinstance(error, urllib.error.HTTPError):
        moved = " Redirects are not followed: set the URL that it leads to." if 300 <= error.code < 400 else ""
        raise RequestRejected(f"It answered {error.code}.{moved}", status=error.code)
    reason = getattr(error, "reason", error)
    raise Unavailable(f"No answer came: {type(reason).__name__}.")


def _post(request: urllib.request.Request, host: str, timeout: float, failures: list[Exception]) -> None:
    """Sends the request, and appends any error to `failures`."""
    proxies = [urllib.request.ProxyHandler({})] if is_loopback(host) else []
    try:
        with urllib.request.build_opener(_NoRedirects, *proxies).open(request, timeout=timeout):
            pass
    except urllib.error.HTTPError as error:
        error.close()
        failures.append(error)
    except (OSError, HTTPException, ValueError) as error:
        failures.append(error)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirects, because they would pass the URL on to another host."""

    def redirect_request(self, *_: Any) -> None:
        """Returns None, so that a redirect becomes an HTTPError."""


def _scheme_and_host(url: str) -> tuple[str, str]:
    """Returns the scheme and the host of a URL; both are empty if the URL is invalid or has a user or a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "", ""
    return (parts.scheme, parts.hostname) if parts.hostname and "@" not in parts.netloc else ("", "")
