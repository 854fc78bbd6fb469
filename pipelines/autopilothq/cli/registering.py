"""Runs the commands `hooks`."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from ..clients.autopilot import Autopilot
from ..clients.urls import path_of
from ..destination import hooks
from ..destination.hooks import Hook
from ..display import json_text, plural, visible
from ..explain import explained
from ..masking import masked_url
from . import out
from .sending import autopilot_settings
from .tabular import fitted


@contextmanager
def _account() -> Iterator[tuple[Autopilot, str]]:
    """Yields the configured account, and its base URL."""
    with explained():
        api = autopilot_settings().api
        with Autopilot(api) as account:
            yield account, api.base_url.rstrip("/")


def register_hooks(url: str, events: Sequence[str], dry_run: bool) -> None:
    """Registers a hook for each event. Exits with 1 if one of them does not exist afterwards."""
    with _account() as (account, base):
        hooks.check_target(url)
        if dry_run:
            for event in events:
                body = json_text({"event": event, "target_url": masked_url(url)})
                out.print_line(f"POST {base}/hook {body}")
            return
        exists = True
        for outcome in hooks.add_hooks(account, url, events):
            out.print_line(f"{outcome.event}: {outcome.text}")
            exists = exists and outcome.exists
    if not exists:
        sys.exit(out.NEEDS_ATTENTION)


def print_hooks(as_json: bool) -> None:
    """Prints the account's hooks, with the secrets in their URLs masked."""
    with _account() as (account, _):
        found = hooks.hooks_of(account)
    if as_json:
        listed = [hook._asdict() | {"url": masked_url(hook.url), "created_at": _time(hook, iso=True)} for hook in found]
        out.print_line(json_text({"hooks": listed}))
        return
    if found:
        rows = [(hook.hook_id, hook.event, _time(hook) or "-", masked_url(hook.url)) for hook in found]
        below = [f"{'' if at == '-' else f'created {at} (UTC): '}{visible(url)}" for _, _, at, url in rows]
        rows.insert(0, ("id", "event", "created at (UTC)", "URL"))
        out.document("\n".join([*fitted(rows, [row[:2] for row in rows], below, cut=False), ""]))
    out.print_line(plural(len(found), "hook"))


def _time(hook: Hook, iso: bool = False) -> str | None:
    """Returns when a hook was made, in UTC, with the zone if `iso`. A number that is not a time stays unchanged."""
    if hook.created_at is None:
        return None
    try:
        at = datetime.fromtimestamp(hook.created_at / 1000, UTC)
        return at.isoformat() if iso else f"{at:%Y-%m-%d %H:%M:%S}"
    except (OverflowError, ValueError, OSError):
        return str(hook.created_at)


def unregister_hooks(hook_ids: Sequence[str], url: str | None, dry_run: bool) -> None:
    """Removes hooks by their ids, or all that post to `url`. A missing hook is not an error."""
    with _account() as (account, base):
        ids = list(hook_ids) or [hook.hook_id for hook in hooks.hooks_of(account) if hook.url == url]
        if dry_run:
            out.print_lines(f"DELETE {base}{path_of(['hook', hook_id])}" for hook_id in ids)
            return
        for hook_id, was_there in hooks.remove_hooks(account, ids):
            out.print_line(f"{hook_id}: {'removed' if was_there else 'not there'}")
        if not ids:
            out.print_line("No hook posts to that URL.")
