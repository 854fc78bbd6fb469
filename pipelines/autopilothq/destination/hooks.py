"""Registers, lists and removes Autopilot's REST hooks (docs/contract/autopilot-hooks.md)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ..catalog import HOOK_EVENTS
from ..clients.auth import is_loopback
from ..clients.autopilot import Autopilot
from ..clients.decode import plain
from ..errors import NotFound, RequestRejected, RunError
from ..masking import masked_url

_BAD_REQUEST, _CONFLICT = 400, 409
_OTHER_SPELLING = {event.name: event.other for event in HOOK_EVENTS if event.other}


class Hook(NamedTuple):
    """A hook of an account; `created_at` is in epoch milliseconds, as the account reports it."""

    hook_id: str
    event: str
    url: str
    created_at: int | None = None


class HookOutcome(NamedTuple):
    """The outcome for a requested hook: its event, a sentence, and whether the hook exists now."""

    event: str
    text: str
    exists: bool = True


def check_target(url: str) -> None:
    """Raises RunError if an account cannot post to a URL, or would post in clear text over a network."""
    try:
        scheme, host = urlsplit(url).scheme, urlsplit(url).hostname or ""
    except ValueError:
        scheme = host = ""
    if not host or not (scheme == "https" or (scheme == "http" and is_loopback(host))):
        raise RunError(
            f"Expected a URL like https://events.example.com/hook/autopilot/shop?key=…, got {masked_url(url)}.\n"
            "Hooks carry whole contacts, so the URL must be https. Nothing was registered."
        )


def hooks_of(account: Autopilot) -> list[Hook]:
    """Returns the hooks of an account."""
    return [hook for hook in map(_hook, plain(account.hooks())) if hook is not None]


def _hook(value: Any) -> Hook | None:
    if not isinstance(value, dict):
        return None
    id_, event, url = (value.get(key) for key in ("hook_id", "event", "target_url"))
    created = value.get("created_at")
    return Hook(str(id_ or ""), str(event or ""), str(url or ""), created if isinstance(created, int) else None)


def add_hooks(account: Autopilot, url: str, events: Sequence[str]) -> Iterator[HookOutcome]:
    """Registers hooks that post events to a URL, and yields the outcome of each. Existing hooks stay unchanged."""
    known = {hook.event for hook in hooks_of(account) if hook.url == url}
    for event in events:
        spellings = _spellings(event)
        is_known = not known.isdisjoint(spellings)
        yield HookOutcome(event, "was registered already") if is_known else _added(account, url, event, spellings)


def _spellings(event: str) -> list[str]:
    """Returns the names that an account may know an event by."""
    return [name for name in (event, _OTHER_SPELLING.get(event)) if name]


def _added(account: Autopilot, url: str, event: str, spellings: Sequence[str]) -> HookOutcome:
    """Registers a hook for an event, under the first spelling that the account accepts."""
    name, *others = spellings
    try:
        hook_id = account.add_hook(name, url)
    except RequestRejected as error:
        if error.status == _CONFLICT:
            return _conflict(account, url, event)
        if error.status == _BAD_REQUEST and others:
            return _added(account, url, event, others)
        return HookOutcome(event, f"refused: {error.server_message or error}", exists=False)
    named = f" as {name}" if name != event else ""
    return HookOutcome(event, f"registered{named}{f' ({hook_id})' if hook_id else ''}")


def _conflict(account: Autopilot, url: str, event: str) -> HookOutcome:
    """Returns the outcome for a 409: the event is registered already, or the account allows one event per URL."""
    if any(hook.url == url and hook.event in _spellings(event) for hook in hooks_of(account)):
        return HookOutcome(event, "was registered already")
    text = "refused: the account has the URL already, but not for this event. Add &for=EVENT to give each its own URL"
    return HookOutcome(event, text, exists=False)


def remove_hooks(account: Autopilot, hook_ids: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Removes hooks, and yields the id of each and whether it existed."""
    for hook_id in hook_ids:
        try:
            account.remove_hook(hook_id)
        except NotFound:
            yield hook_id, False
        else:
            yield hook_id, True
