"""`autopilothq hooks` as a user sees it, with an account over real HTTP."""

import json
from collections.abc import Iterator

import pytest

from autopilothq.cli import out
from autopilothq.clients.autopilot import Autopilot
from autopilothq.destination import hooks
from autopilothq.errors import RunError
from autopilothq.masking import masked_url
from calling import Call
from fake_autopilot import FakeAutopilot
from fake_autopilot.server import HOOKS
from sending import configure, settings_for

URL = "https://events.example.com/hook/autopilot/shop?key=s3cretkey"
SHOWN = "https://events.example.com/hook/autopilot/shop?key=***"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAutopilot]:
    with FakeAutopilot(contacts=0) as server:
        configure(monkeypatch, server)
        monkeypatch.setenv("HOOK_TARGET", URL)
        yield server


def sent(server: FakeAutopilot) -> list[tuple[str, str, object]]:
    found = [(each.method, each.path, each.body) for each in server.requests if each.method != "GET"]
    server.requests.clear()
    return found


def test_hooks_are_registered_listed_and_removed(
    call: Call, server: FakeAutopilot, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = call("hooks", "add", "env:HOOK_TARGET")
    assert (said.status, said.out.splitlines(), said.err) == (
        0,
        [f"{event}: registered (hook_{event}_{number:04d})" for number, event in enumerate(HOOKS, 1)],
        "",
    )
    assert sent(server) == [("POST", "/hook", {"event": event, "target_url": URL}) for event in HOOKS]
    said = call("hooks", "list")
    assert (said.status, said.out.splitlines()) == (
        0,
        [
            f"{'id':<35}  {'event':<25}  {'created at (UTC)':<19}  URL",
            *(
                f"{f'hook_{event}_{number:04d}':<35}  {event:<25}  2018-11-01 00:00:00  {SHOWN}"
                for number, event in enumerate(HOOKS, 1)
            ),
            "",
            "7 hooks",
        ],
    )
    with monkeypatch.context() as terminal:
        terminal.setattr(out, "width", lambda: 80)
        assert call("hooks", "list").out.splitlines() == [
            f"{'id':<35}  event",
            *(
                line
                for number, event in enumerate(HOOKS, 1)
                for line in (
                    f"{f'hook_{event}_{number:04d}':<35}  {event}",
                    "  created 2018-11-01 00:00:00 (UTC):",
                    f"  {SHOWN}",
                )
            ),
            "",
            "7 hooks",
        ]
    listed = json.loads(call("hooks", "list", "--json").out)["hooks"]
    assert [each["created_at"] for each in listed] == ["2018-11-01T00:00:00+00:00"] * 7
    said = call("hooks", "add", "env:HOOK_TARGET", "--event", "contact_added")
    assert (said.status, said.out) == (0, "contact_added: was registered already\n")
    said = call("hooks", "remove", "hook_contact_added_0001", "hook_9")
    assert (said.status, said.out) == (0, "hook_contact_added_0001: removed\nhook_9: not there\n")
    assert [each[:2] for each in sent(server)] == [
        ("DELETE", "/hook/hook_contact_added_0001"),
        ("DELETE", "/hook/hook_9"),
    ]
    assert len(call("hooks", "remove", "--url", "env:HOOK_TARGET").out.splitlines()) == 6
    assert server.account.hooks == {}
    assert call("hooks", "remove", "--url", "env:HOOK_TARGET").out == "No hook posts to that URL.\n"
    assert call("hooks", "list", "--json").out == '{"hooks": []}\n'


def test_an_older_spelling_is_taken_where_the_account_knows_no_other(call: Call, server: FakeAutopilot) -> None:
    server.hook_events = tuple("contact_unsubscribes" if event == "contact_unsubscribed" else event for event in HOOKS)
    words = ("hooks", "add", "env:HOOK_TARGET", "--event", "contact_unsubscribed")
    assert call(*words).out == (
        "contact_unsubscribed: registered as contact_unsubscribes (hook_contact_unsubscribes_0001)\n"
    )
    assert [each[2] for each in sent(server)] == [
        {"event": event, "target_url": URL} for event in ("contact_unsubscribed", "contact_unsubscribes")
    ]
    assert call(*words).out == "contact_unsubscribed: was registered already\n"
    assert sent(server) == []


def test_what_the_account_refuses(call: Call, server: FakeAutopilot) -> None:
    words = ("hooks", "add", "env:HOOK_TARGET", "--event", "contact_added")
    server.order("POST", "/hook", status=400, message="Invalid hook provided.")
    assert call(*words)[:2] == (1, "contact_added: refused: Invalid hook provided.\n")
    # Only a 400 can mean that the spelling is unknown.
    server.order("POST", "/hook", status=422, message="Not now.")
    said = call("hooks", "add", "env:HOOK_TARGET", "--event", "contact_unsubscribed")
    assert said[:2] == (1, "contact_unsubscribed: refused: Not now.\n")
    with Autopilot(settings_for(server).api) as account:  # this event with another URL, and another event with this URL
        account.add_hook("contact_added", f"{URL}&for=another")
        account.add_hook("contact_updated", URL)
    # A 409 without such a hook: the account takes each URL only once, whatever the event.
    server.order("POST", "/hook", status=409)
    assert call(*words)[:2] == (
        1,
        (
            "contact_added: refused: the account has the URL already, but not for this event. Add &for=EVENT to give"
            " each its own URL\n"
        ),
    )
    # Another run registered it in the meantime.
    server.order("GET", "/hooks", content={"hooks": []})
    with Autopilot(settings_for(server).api) as account:
        account.add_hook("contact_added", URL)
    assert call(*words)[:2] == (0, "contact_added: was registered already\n")
    server.order("GET", "/hooks", content={"hooks": [{}, "none"]})
    assert json.loads(call("hooks", "list", "--json").out)["hooks"] == [
        {"hook_id": "", "event": "", "url": "", "created_at": None}
    ]
    server.order("GET", "/hooks", content={"hooks": None})
    said = call("hooks", "list")
    assert (said.status, said.err) == (
        1,
        "Error: GET /hooks: expected an object with a list of hooks, got an object with hooks\n",
    )


def test_a_dry_run_sends_nothing_and_shows_no_secret(call: Call, server: FakeAutopilot) -> None:
    said = call("hooks", "add", "env:HOOK_TARGET", "--event", "contact_added", "--dry-run")
    shown = f'{{"event": "contact_added", "target_url": "{SHOWN}"}}'
    assert (said.status, said.out) == (0, f"POST {server.base_url}/hook {shown}\n")
    assert call("hooks", "remove", "a/b", "--dry-run").out == f"DELETE {server.base_url}/hook/a%2Fb\n"
    assert sent(server) == []


def test_help_says_that_nobody_has_tried_it(call: Call) -> None:
    assert "was never tried with a live account" in " ".join(call("hooks", "add", "--help").out.split())
    said = call("hooks", "remove")
    assert (said.status, said.err.splitlines()[-1]) == (
        2,
        "Error: Which hooks? Name either their ids or their --url, got neither.",
    )


@pytest.mark.parametrize(
    "url",
    [
        "http://events.example.com/hook?key=s",
        "ftp://x/",
        "ftp://127.0.0.1/",
        "events.example.com",
        "https://",
        "https://[::1",
        "",
    ],
)
def test_a_url_that_hooks_must_not_have(url: str) -> None:
    with pytest.raises(RunError) as raised:
        hooks.check_target(url)
    assert str(raised.value) == (
        "Expected a URL like https://events.example.com/hook/autopilot/shop?key=…, got"
        f" {url.replace('key=s', 'key=***')}.\n"
        "Hooks carry whole contacts, so the URL must be https. Nothing was registered."
    )


def test_urls_without_their_secrets() -> None:
    assert masked_url("https://ada:pw@example.com/a?key=x&flag&for=y") == (
        "https://***@example.com/a?key=***&***&for=***"
    )
    assert masked_url("https://example.com/a") == "https://example.com/a"
    for url, shown in {
        "ada:p?w@example.com/a#k": "***@example.com/a#***",
        "https://ada:p/w#1@example.com": "https://***@example.com",
        "https://example.com:8443/a?for=ada": "https://example.com:8443/a?for=***",
        "api.example.com/v1": "api.example.com/v1",
        "0123456789abcdef": "***",
    }.items():
        assert masked_url(url) == shown
    hooks.check_target("http://localhost:8080/hook/autopilot/shop")
