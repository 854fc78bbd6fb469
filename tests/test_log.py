"""Log lines for programs, and notes to a webhook: complete lines and requests."""

import errno
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socket import gethostname
from threading import Thread
from typing import Any, NamedTuple

import pytest

import forked
from autopilothq import sample
from autopilothq.clients.webhook import post_note
from autopilothq.errors import InvalidSetting, RequestRejected, RunError, Unavailable
from calling import GOOD, Call, Said
from fake_autopilot import FakeAutopilot
from prepared import as_prepared, preparing
from shared_loads import command

PATH = "/services/T000/B000/secret"


@pytest.fixture(autouse=True)
def archive() -> None:
    Path("a.ndjson").write_text(GOOD)


class Webhook:
    """A server that takes notes and answers with `status`."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, str | None, Any]] = []
        self.status = 200
        self.location = ""
        self.drip = 0.0
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.notes.append((self.path, self.headers["Content-Type"], json.loads(body)))
                if hook.drip:
                    with suppress(OSError):
                        for _ in range(20):
                            self.wfile.write(b"H")
                            time.sleep(hook.drip)
                    return
                self.send_response(hook.status)
                self.send_header("Content-Length", "0")
                if hook.location:
                    self.send_header("Location", hook.location)
                self.end_headers()

            do_GET = do_POST  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Prints nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}{PATH}"

    def texts(self) -> list[str]:
        """Returns the texts of the notes, which all have Slack's form."""
        assert all((path, kind) == (PATH, "application/json") for path, kind, _ in self.notes)
        return [note["text"] for _, _, note in self.notes]


@contextmanager
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    hook = Webhook()
    thread = Thread(target=hook.server.serve_forever, args=[0.02])  # how often it checks for its end
    thread.start()
    monkeypatch.setenv("RUNTIME__SLACK_INCOMING_HOOK", hook.url)
    try:
        yield hook
    finally:
        hook.server.shutdown()
        hook.server.server_close()
        thread.join()


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    with started(monkeypatch) as hook:
        yield hook


class Loaded(NamedTuple):
    """The folder of a load, its output, its log as JSON, and the notes that a webhook got."""

    home: Path
    said: Said
    notes: list[str]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    with (
        preparing(tmp_path_factory.mktemp("logged")) as home,
        pytest.MonkeyPatch.context() as patch,
        started(patch) as hook,
    ):
        Path("a.ndjson").write_text(GOOD)
        said = command("--log-format", "json", "load", "archive", "a.ndjson")
    return Loaded(home, said, hook.texts())


@pytest.fixture
def loaded(prepared: Loaded) -> Iterator[Loaded]:
    """Works in the folder in which `a.ndjson` is loaded."""
    with as_prepared(prepared.home):
        yield prepared


def test_logs_are_json_when_asked_for(prepared: Loaded) -> None:
    said = prepared.said
    lines = [json.loads(line) for line in said.err.splitlines()]
    assert {line["level"] for line in lines} == {"info"}
    assert list(dict.fromkeys(line["message"] for line in lines)) == ["reading", "handing over", "loading", "done"]
    assert all(line["at"].endswith("+00:00") for line in lines)
    assert (lines[-1]["lines"], lines[-1]["stored"], lines[-1]["rows"]["tracks"]) == (1, 1, 1)
    assert said.out.startswith("table ")


def test_an_error_is_a_json_line(call: Call) -> None:
    said = call("--log-format", "json", "load", "archive", "nowhere")
    error = json.loads(said.err.splitlines()[-1])
    assert said.status == 1
    assert (error["level"], error["status"]) == ("error", 1)
    assert "nowhere" in error["message"]


def test_a_wrong_call_and_an_end_by_ctrl_c_are_json_lines_too(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("autopilothq.cli.inspecting.print_tables", interrupt)
    for words, status, message in (
        (["load", "arch"], 2, "No such command 'arch'. Did you mean 'archive'?"),
        (["schema"], 130, "Aborted! It only reads: nothing was changed."),
    ):
        said = call("--log-format", "json", *words)
        assert (said.status, said.out) == (status, "")
        assert json.loads(said.err) | {"at": 0} == {"at": 0, "level": "error", "message": message, "status": status}


def test_a_failure_is_told(call: Call, webhook: Webhook) -> None:
    said = call("load", "archive", "nowhere", "--credentials", "a-secret.duckdb")
    assert said.status == 1
    [text] = webhook.texts()
    assert text.startswith(f"autopilothq load archive on {gethostname()} failed: ")
    assert text.endswith(said.err.partition("Error: ")[2].rstrip())


def test_a_good_run_is_told_when_all_are(
    loaded: Loaded, call: Call, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (loaded.said.status, loaded.notes) == (0, [])
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__NOTIFY", "always")
    assert call("load", "archive", "a.ndjson").status == 0
    [text] = webhook.texts()
    assert text.startswith(
        f"autopilothq load archive on {gethostname()} done:"
        " 0 lines, 0 stored, 0 duplicates, 0 rejected, 0 values discarded, "
    )


def test_an_unknown_value_of_notify_is_a_warning(call: Call, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__NOTIFY", "allways")
    said = call("load", "archive", "nowhere")
    expected = "Expected failure or always as sources.autopilothq.notify, but got 'allways'"
    assert said.err.splitlines()[-1] == f"Warning: {expected}: only failures are notified."
    assert (said.status, len(webhook.texts())) == (1, 1)


def test_too_many_rejects_are_told(call: Call, webhook: Webhook) -> None:
    Path("a.ndjson").write_text("oops\n" + GOOD)
    assert call("load", "archive", "a.ndjson", "--max-rejects", "0").status == 3
    too_many = "1 rejected, more than --max-rejects 0; the rest is loaded."
    assert webhook.texts() == [f"autopilothq load archive on {gethostname()} failed: {too_many}"]


def test_what_is_no_run_is_not_told(call: Call, webhook: Webhook) -> None:
    assert call("status").status == 1
    assert webhook.texts() == []


def test_a_run_that_could_not_begin_is_told(call: Call, webhook: Webhook) -> None:
    assert call("load", "archive").status == 2
    which = "Which archive? Name a URL, or set sources.autopilothq.archive_url in dlt's configuration."
    assert webhook.texts() == [f"autopilothq load archive on {gethostname()} failed: {which}"]


@pytest.mark.usefixtures("loaded")
def test_a_webhook_that_fails_costs_nothing_and_stays_secret(
    call: Call, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__NOTIFY", "always")
    webhook.status = 403
    for url, why in (
        (webhook.url, "It answered 403."),
        (f"http://127.0.0.1:9{PATH}", "No answer came: ConnectionRefusedError."),
        (PATH, "Expected a URL that begins with https://"),
    ):
        monkeypatch.setenv("RUNTIME__SLACK_INCOMING_HOOK", url)
        said = call("load", "archive", "a.ndjson")
        assert (said.status, said.err.splitlines()[-1]) == (0, f"{NOT_TOLD}{why}")
        assert "secret" not in said.out + said.err


NOT_TOLD = "Warning: The webhook of runtime.slack_incoming_hook could not be notified: "


REDIRECTED = "It answered {}. Redirects are not followed: set the URL that it leads to."


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_webhook_that_points_elsewhere_is_not_followed(webhook: Webhook, status: int) -> None:
    webhook.status, webhook.location = status, f"{webhook.url}/elsewhere"
    with pytest.raises(RequestRejected) as refused:
        post_note(webhook.url, "text")
    assert (str(refused.value), len(webhook.notes)) == (REDIRECTED.format(status), 1)


def test_a_warning_says_that_a_webhook_points_elsewhere(call: Call, webhook: Webhook) -> None:
    webhook.status, webhook.location = 301, f"{webhook.url}/elsewhere"
    said = call("load", "archive", "nowhere")
    assert len(webhook.notes) == 1
    assert said.err.splitlines()[-1] == f"{NOT_TOLD}{REDIRECTED.format(301)}"
    assert "secret" not in said.err


ALLOW = "In a network that you trust it can be allowed: --allow-http, or sources.autopilothq.allow_http = true"


def test_a_webhook_elsewhere_is_told_over_https_alone(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("autopilothq.clients.webhook._post", lambda request, *_: asked.append(request.full_url))
    for host in ("127.0.0.1.evil.com", "2130706433", "10.0.0.1", "[::ffff:8.8.8.8]", "localhost.evil"):
        with pytest.raises(InvalidSetting, match="got http://"):
            post_note(f"http://{host}{PATH}", "text")
    url = f"http://hooks.example.com{PATH}"
    monkeypatch.setenv("RUNTIME__SLACK_INCOMING_HOOK", url)
    said = call("load", "archive", "nowhere")
    assert said.err.splitlines()[-1] == (f"{NOT_TOLD}Expected a URL that begins with https://, got http://. {ALLOW}")
    assert asked == []
    call("load", "archive", "nowhere", "--allow-http")
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__ALLOW_HTTP", "true")
    call("load", "archive", "nowhere")
    assert asked == [url] * 2


@pytest.mark.parametrize("url", ["http://127.0.0.1@evil.com/secret", "https://me:secret@evil.com/x", "https:///secret"])
def test_a_webhook_has_no_user_and_a_host(url: str) -> None:
    with pytest.raises(InvalidSetting, match=r"^Expected a URL that begins with https://$"):
        post_note(url, "text", allow_http=True)


def test_a_webhook_that_drips_is_left(webhook: Webhook) -> None:
    webhook.drip = 0.1
    with pytest.raises(Unavailable, match=r"^No answer came within 0.5 s\.$"):
        post_note(webhook.url, "text", timeout=0.5)


def test_a_note_has_no_secret(call: Call, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS__PASSWORD", "Xq0/Zz1")
    call("load", "archive", "file:///Xq0%2FZz1/nowhere")
    call("forget", "--email", "Xq0/Zz1")
    texts = webhook.texts()
    assert [text.count("***") for text in texts] == [1, 1]
    assert not [text for text in texts if "Xq0" in text or "Zz1" in text]


def test_what_could_not_be_sent_is_told(call: Call, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeAutopilot(1) as account:
        monkeypatch.setenv("DESTINATION__AUTOPILOTHQ__API_KEY", account.key)
        monkeypatch.setenv("DESTINATION__AUTOPILOTHQ__BASE_URL", account.base_url)
        Path("b.ndjson").write_text('{"type":"identify","messageId":"m1","traits":{}}\n')
        assert call("send", "messages", "b.ndjson").status == 4
    sums = "1 message: 0 delivered, 1 refused, 0 failed, 0 unknown"
    assert webhook.texts() == [f"autopilothq send messages on {gethostname()} failed: {sums}"]


# A program with everything that libraries print to a terminal. It runs once for each word, which says how it logs, in a
# forked process whose stderr is a file of that name.
NOISE = """
import logging, os, threading, warnings, sys
import dlt
from dlt.common import logger
from autopilothq import runner
from autopilothq.cli import log

class Broken:
    def __del__(self):
        raise ValueError("in a finaliser")

for word in sys.argv[1:]:
    if not os.fork():
        os.dup2(os.open(word, os.O_WRONLY | os.O_CREAT), 2)
        break
    os.wait()
else:
    sys.exit()

log.configure_logging(word == "debug", word == "json")
runner.configure(runtime__log_level="WARNING")
try:
    raise OSError("no room at postgresql://me:secret@host/db")
except OSError:
    logging.getLogger("botocore").exception("a library's own")
    logger.exception("job failed")
    logging.getLogger("autopilothq.clients.http").warning("slow")
    job = "Job failed with message Traceback (most recent call last):\\n  File x\\nsome.DatabaseError: no such table\\n"
    logger.warning(job)
warnings.warn("old", UserWarning)
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
del thread
Broken()
"""


def noise(*words: str) -> list[list[str]]:
    """Returns the lines on stderr for each word."""
    done = forked.run("-c", NOISE, *words)
    assert done.returncode == 0, done.stderr
    return [Path(word).read_text().splitlines() for word in words]


def test_no_library_writes_a_traceback() -> None:
    told = [
        "job failed: OSError: no room at postgresql://***@host/db",
        "slow",
        "no such table",
        "A thread ended with an error: ZeroDivisionError: division by zero",
    ]
    plain, as_json, as_debug = noise("plain", "json", "debug")
    assert plain == [f"Warning: {text}" for text in told]
    lines = [json.loads(line) for line in as_json]
    assert [(line["level"], line["message"]) for line in lines] == [("warning", text) for text in told]
    debug = "\n".join(as_debug)
    for text in ("a library's own", "job failed", "in a finaliser", "UserWarning: old", "ZeroDivisionError"):
        assert text in debug
    assert debug.count("Traceback (most recent call last)") >= 4
    assert "OSError: no room at postgresql://***@host/db" in debug
    assert "secret" not in debug


def test_a_full_disk_is_two_lines(tmp_path: Path) -> None:
    sample.write("archive", 6_000, 1)
    program = """
import resource, signal, sys
from autopilothq.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
sys.argv[0] = 'autopilothq'
main()"""
    for words in ([], ["--log-format", "json"]):
        done = forked.run(
            "-c", program, *words, "load", "archive", "archive",
            env={"DLT_DATA_DIR": str(tmp_path / "dlt"), "HOME": str(tmp_path)},
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (1, "")
        if words:
            last = json.loads(done.stderr.splitlines()[-1])
            assert (last["level"], len(last["message"].splitlines())) == ("error", 2)
        else:
            lines = [line for line in done.stderr.splitlines() if line[2:3] != ":"]
            assert [line[:7] for line in lines] == ["Error: ", "Make ro"]
        assert "Traceback" not in done.stderr


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    program = "import sys; from autopilothq.cli import main; sys.argv[0] = 'autopilothq'; main()"
    preview = ["mapping", "a.ndjson"]
    for words in (["schema", "show"], ["--log-format", "json", "models", "show"], ["load", "--help"], preview):
        reading, writing = os.pipe()
        os.close(reading)
        with open(writing, "wb") as out, forked.start("-c", program, *words, stdout=out, stderr=forked.PIPE) as it:
            _, told = it.communicate()
        assert (words, it.returncode, told) == (words, 1, b"")


def test_a_closed_output_is_not_reported_by_a_command_that_explains_its_errors(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RunError("[Errno 32] Broken pipe") from BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("autopilothq.cli.inspecting.print_tables", fail)
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as output:
        monkeypatch.setattr("sys.stdout", output)
        said = call("schema", "show")
        monkeypatch.undo()
    assert (said.status, said.err) == (1, "")


def test_another_broken_pipe_than_the_output_is_an_error(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("autopilothq.cli.inspecting.print_tables", fail)
    with Path("output").open("w") as output:
        monkeypatch.setattr("sys.stdout", output)
        said = call("schema", "show")
    assert (said.status, said.err) == (1, "Error: [Errno 32] Broken pipe\n")
