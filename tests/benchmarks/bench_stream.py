"""Measures how fast a stream is sent and forwarded, how soon a single line arrives, and a long stream's memory.

It sends 50,000 lines by default; with `STREAM_LINES=1000000` a million, which takes half an hour. FIGURES.md next to
this file keeps what was measured.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from receiving import PROGRAM, receiver

LINES = int(os.environ.get("STREAM_LINES", "50_000"))
EVERY = max(1, LINES // 10)  # lines between two measurements of the memory


class _Account(BaseHTTPRequestHandler):
    """An account that takes everything and keeps nothing."""

    protocol_version = "HTTP/1.1"
    arrived: ClassVar[list[float]] = []

    def do_GET(self) -> None:
        self._answer({"triggers": []} if self.path.endswith("/triggers") else [])

    def do_POST(self) -> None:
        contacts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["contacts"]
        self.arrived.append(time.monotonic())
        emails = [contact["Email"] for contact in contacts]
        self._answer({"contact_ids": emails, "email_contact_map": {email: email for email in emails}})

    def _answer(self, answer: Any) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Logs nothing."""


@contextmanager
def account() -> Iterator[str]:
    """Yields the URL of such an account."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Account) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def line(number: int) -> bytes:
    """Returns the identify of a different person for each number."""
    traits = {"email": f"p{number}@example.com", "title": f"T{number}", "plan": "pro"}
    message = {"type": "identify", "messageId": f"m{number}", "userId": f"u{number}", "traits": traits}
    return json.dumps({**message, "timestamp": "2026-11-01T05:06:07.123Z"}).encode() + b"\n"


def piped(folder: Path, words: list[str], env: dict[str, str]) -> tuple[float, list[float]]:
    """Pipes lines into a command; returns the seconds that it took, and the memory (MB) that it had in between."""
    kept = (
        os.environ | env | {"DLT_DATA_DIR": str(folder / "dlt"), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    )
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *words], cwd=folder, env=kept, stdin=subprocess.PIPE)
    assert process.stdin
    memory = []
    for number in range(LINES):
        process.stdin.write(line(number))
        if (number + 1) % EVERY == 0:
            memory.append(int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * 4096 / 1e6)
            print(f"{number + 1:,} lines, {time.monotonic() - started:.0f} s, {memory[-1]:.0f} MB", flush=True)
    process.stdin.close()
    assert process.wait() == 0
    return time.monotonic() - started, memory


def test_a_stream_to_an_account(tmp_path: Path) -> None:
    with account() as url:
        names = {"API_KEY": "0123456789abcdef0123456789abcdef", "BASE_URL": url, "REQUESTS_PER_SECOND": "1000"}
        env = {f"DESTINATION__AUTOPILOTHQ__{name}": value for name, value in names.items()}
        seconds, memory = piped(tmp_path, ["send", "messages", "-"], env)
    print(f"send: {LINES / seconds:,.0f} lines a second, memory {', '.join(f'{one:.0f}' for one in memory)} MB")
    if LINES >= 100_000:
        assert memory[-1] < memory[2] * 1.3


@pytest.mark.parametrize("source", ["-", "file"])
def test_forwarding_to_a_receiver(tmp_path: Path, source: str) -> None:
    with receiver(tmp_path / "archive", anew=True) as running:
        env = {"DESTINATION__SEGMENT__WRITE_KEY": "k", "DESTINATION__SEGMENT__REQUESTS_PER_SECOND": "1000"}
        path = tmp_path / "lines.ndjson"
        if source == "-":
            seconds, memory = piped(tmp_path, ["forward", "-", "--to", running.url], env)
        else:
            path.write_bytes(b"".join(map(line, range(LINES))))
            started = time.monotonic()
            words = [sys.executable, "-c", PROGRAM, "forward", str(path), "--to", running.url]
            paths = os.pathsep.join(filter(None, sys.path))
            subprocess.run(words, cwd=tmp_path, env=os.environ | env | {"PYTHONPATH": paths}, check=True)
            seconds, memory = time.monotonic() - started, []
    print(
        f"forward {source}: {LINES / seconds:,.0f} events a second, memory {', '.join(f'{m:.0f}' for m in memory)} MB"
    )


def test_how_soon_a_single_line_arrives(tmp_path: Path) -> None:
    with account() as url:
        names = {"API_KEY": "0123456789abcdef0123456789abcdef", "BASE_URL": url}
        env = {f"DESTINATION__AUTOPILOTHQ__{name}": value for name, value in names.items()}
        kept = os.environ | env | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        words = [sys.executable, "-c", PROGRAM, "send", "messages", "-"]
        process = subprocess.Popen(words, cwd=tmp_path, env=kept, stdin=subprocess.PIPE)
        assert process.stdin
        waits = []
        for number in range(12):
            _Account.arrived.clear()
            written = time.monotonic()
            process.stdin.write(line(number))
            process.stdin.flush()
            while not _Account.arrived:
                time.sleep(0.002)
            waits.append(_Account.arrived[0] - written)
        process.stdin.close()
        process.wait()
    waits = sorted(waits[1:])
    print(f"a single line: {waits[len(waits) // 2]:.2f} s in the middle, {waits[-1]:.2f} s at most")
