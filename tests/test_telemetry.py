"""A program that imports this package sends no dlt telemetry unless that is turned on."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pytest

from shared_loads import bare_environment

RUN = "dlt.pipeline('p', destination='duckdb').extract([{'a': 1}], table_name='t')"
BY_FILE = "[runtime]\ndlthub_telemetry = true\n"


class Case(NamedTuple):
    """A program, its settings, and whether it should send a report."""

    program: str
    reports: bool
    file: str = ""
    env: dict[str, str] = {}  # noqa: RUF012 - nobody changes it
    anew: bool = False
    """Whether it runs in an interpreter of its own, as at a user's, rather than in one that has imported dlt."""


CASES = {
    "by default": Case(f"import dlt, autopilothq; {RUN}", reports=False, anew=True),
    "dlt in use before this package is": Case(
        f"import dlt; dlt.pipeline('first', destination='duckdb'); import autopilothq; {RUN}", reports=False
    ),
    "on by a file": Case(f"import dlt, autopilothq; {RUN}", reports=True, file=BY_FILE),
    "on by the environment": Case(
        f"import dlt, autopilothq; {RUN}", reports=True, env={"RUNTIME__DLTHUB_TELEMETRY": "true"}
    ),
    "on by a file, off by the environment": Case(
        f"import dlt, autopilothq; {RUN}", reports=False, file=BY_FILE, env={"RUNTIME__DLTHUB_TELEMETRY": "false"}
    ),
    "without this package": Case(f"import dlt; {RUN}", reports=True),  # shows that the server would receive a report
}

# Imports dlt and what dlt imports later, and runs each program in a process that is forked from that.
PROGRAM = """
import atexit, json, os, sys, threading
import dlt, pendulum.locales.en.locale, pluggy
import dlt.sources.helpers.requests
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs import PluggableRunContext
from dlt.common.runtime.telemetry import stop_telemetry

for program, folder, environment in json.loads(sys.argv[1]):
    if not os.fork():
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        if PluggableRunContext in Container():  # a release that reads its settings as it is imported
            stop_telemetry()
            Container()[PluggableRunContext].reload()
        exec(program, {"__name__": "__main__"})
        threading._shutdown()  # ends as an interpreter does, but for taking apart what was imported
        atexit._run_exitfuncs()
        os._exit(0)
    if os.wait()[1]:
        sys.exit(1)
"""


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Returns the cases that sent reports."""
    came: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            came.append(int(self.path.strip("/")))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Prints nothing."""

    home = tmp_path_factory.mktemp("telemetry")
    told = bare_environment() | {"PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(home)}
    programs = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for number, case in enumerate(CASES.values()):
            folder = home / f"{number}"
            (folder / ".dlt").mkdir(parents=True)
            (folder / ".dlt" / "config.toml").write_text(case.file)
            url = f"http://127.0.0.1:{server.server_port}/{number}"
            here = {"HOME": str(folder), "NO_PROXY": "127.0.0.1", "RUNTIME__DLTHUB_TELEMETRY_ENDPOINT": url}
            undecided = {name: value for name, value in told.items() if name != "RUNTIME__DLTHUB_TELEMETRY"}
            environment = undecided | here | case.env
            if case.anew:
                subprocess.run([sys.executable, "-c", case.program], env=environment, cwd=folder, check=True)
            else:
                programs.append((case.program, str(folder), environment))
        subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(programs)], env=told, check=True)
        server.shutdown()
    return {name for number, name in enumerate(CASES) if number in came}


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_reported_unless_it_is_asked_for(case: str, reported: set[str]) -> None:
    assert (case in reported) is CASES[case].reports
