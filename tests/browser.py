"""A real, headless Chromium that is controlled with its own protocol over two pipes."""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
    "--no-first-run",
)


class Tab:
    """A tab of the browser: `tab.open(url, 360, "dark")`, then `tab.ask("document.title")`."""

    def __init__(self, reader: Any, writer: Any) -> None:
        self._reader, self._writer, self._number, self._session = reader, writer, 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Calls a method of the protocol and returns its result; keeps the events that come before the answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._writer.write(json.dumps(message).encode() + b"\0")
        self._writer.flush()
        while (answer := self._receive()).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        found: dict[str, Any] = answer["result"]
        return found

    def _receive(self) -> dict[str, Any]:
        text = b""
        while not text.endswith(b"\0"):
            read = self._reader.read(1)
            assert read, "Chromium ended"
            text += read
        found: dict[str, Any] = json.loads(text[:-1])
        if "method" in found:
            self.events.append(found)
        return found

    def open(self, page: Path, width: int, theme: str) -> None:
        """Opens a page in a window `width` pixels wide, in the theme `light` or `dark`; waits until it is loaded."""
        self.events.clear()
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setScrollbarsHidden", hidden=True)
        self.call("Page.navigate", url=page.absolute().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._receive()

    def ask(self, expression: str) -> Any:
        """Returns the value of a JavaScript expression in the page, which has no scripts of its own."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def said(self) -> list[str]:
        """Returns what the browser wrote to the page's console, as JSON."""
        told = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        return [json.dumps(event["params"]) for event in self.events if event["method"] in told]

    def requests(self) -> list[str]:
        """Returns the URLs that were requested, that of the page first."""
        sent = (event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent")
        return [one["request"]["url"] for one in sent]


class _Pipe(NamedTuple):
    to_read: int
    to_write: int


def _pipe() -> _Pipe:
    """Returns a pipe whose descriptors are above 3 and 4, which the browser uses."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return _Pipe(*moved)


@contextmanager
def tab() -> Iterator[Tab]:
    """Yields a tab in a browser of its own, which is closed when the block ends."""
    assert CHROMIUM, "Chromium is needed: apt-get install chromium"
    commands, answers = _pipe(), _pipe()
    # Chromium reads from descriptor 3 and writes to descriptor 4.
    words = [
        "bash", "-c", f'exec "$@" 3<&{commands.to_read} 4>&{answers.to_write}', "bash", CHROMIUM, *FLAGS,
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [*words, f"--user-data-dir={folder}", "about:blank"],
            pass_fds=(commands.to_read, answers.to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"HOME": folder},
        )
        os.close(commands.to_read)
        os.close(answers.to_write)
        try:
            with os.fdopen(answers.to_read, "rb") as reader, os.fdopen(commands.to_write, "wb") as writer:
                yield Tab(reader, writer)
                with suppress(OSError):
                    writer.write(b'{"id":0,"method":"Browser.close"}\0')
        finally:
            process.terminate()
            process.wait()
