"""dlt's telemetry: nothing is reported by who imports this package, unless that was asked for."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

RUN = "dlt.pipeline('p', destination='duckdb').extract([{'a': 1}], table_name='t')"
BY_FILE = "[runtime]\ndlthub_telemetry = true\n"


@pytest.fixture(scope="module")
def reported() -> Iterator[tuple[str, list[str]]]:
    """Where reports go, and those that came."""
    came: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", came
        server.shutdown()


@pytest.mark.parametrize(
    ("program", "file", "env", "reports"),
    [
        (f"import dlt, autopilothq; {RUN}", "", {}, False),
        # dlt in use before this package is.
        (f"import dlt; dlt.pipeline('first', destination='duckdb'); import autopilothq; {RUN}", "", {}, False),
        (f"import dlt, autopilothq; {RUN}", BY_FILE, {}, True),
        (f"import dlt, autopilothq; {RUN}", "", {"RUNTIME__DLTHUB_TELEMETRY": "true"}, True),
        (f"import dlt, autopilothq; {RUN}", BY_FILE, {"RUNTIME__DLTHUB_TELEMETRY": "false"}, False),
        # Without this package: the server does hear of it.
        (f"import dlt; {RUN}", "", {}, True),
    ],
)
def test_nothing_is_reported_unless_it_is_asked_for(
    reported: tuple[str, list[str]], program: str, file: str, env: dict[str, str], reports: bool
) -> None:
    url, came = reported
    came.clear()
    Path(".dlt").mkdir()
    Path(".dlt/config.toml").write_text(file)
    told = {name: value for name, value in os.environ.items() if name != "RUNTIME__DLTHUB_TELEMETRY"}
    told |= {"PYTHONPATH": os.pathsep.join(sys.path), "RUNTIME__DLTHUB_TELEMETRY_ENDPOINT": url}
    told |= {"HOME": str(Path.cwd()), **env}
    subprocess.run([sys.executable, "-c", program], env=told, check=True)
    assert bool(came) is reports
