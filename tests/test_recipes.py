"""Recipes for schedulers, as far as they can be tested without these; `make check` runs the real ones."""

import configparser
import hashlib
import hmac
import json
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from fnmatch import fnmatch
from inspect import signature
from pathlib import Path
from typing import Any

import click
import dlt
import duckdb
import httpx
import pytest
import yaml
from croniter import croniter

import autopilothq
from autopilothq import archive, cli, sample
from autopilothq.errors import BusyError, TooManyRejects
from autopilothq.receive.routes import find_route
from servers import free_port

RECIPES = Path(__file__).parents[1] / "pipelines" / "recipes"
WRONG_WORDS = click.UsageError.exit_code
PROGRAM = f"""#!{sys.executable}
import sys
sys.path.insert(0, {str(Path(autopilothq.__file__).parents[1])!r})
from autopilothq.cli import main
main()
"""


def code(name: str) -> str:
    """Returns a recipe without its comments."""
    lines = (RECIPES / name).read_text().splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))


def crontab() -> list[tuple[str, str]]:
    """Returns the times and the commands of the crontab's jobs."""
    jobs = re.findall(r"^((?:\S+ +){4}\S+) +(.+)$", code("crontab"), re.MULTILINE)
    return [(when, what) for when, what in jobs if "=" not in when]


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string((RECIPES / name).read_text())
    return parser


def workflow() -> dict[Any, Any]:
    loaded: dict[Any, Any] = yaml.safe_load((RECIPES / "github-actions.yml").read_text())
    return loaded


CALLING = (
    *("crontab", "autopilothq.service", "autopilothq-receive.service", "autopilothq-stream.service"),
    "github-actions.yml",
)
COMMAND = re.compile(r"\bautopilothq (?:--log-format json )?((?:load|status|receive|send)\b[^|>;&\n']*)")


def calls() -> Iterator[tuple[str, list[str]]]:
    """Returns every call of the program in the recipes, with the recipe's name."""
    for name in CALLING:
        text = re.sub(r"\$\{\w+:\+(.+?) \S+\}", r"\1 2019-03-01", code(name))  # ${FIRST_DAY:+--since "$FIRST_DAY"}
        for words in COMMAND.findall(text):
            yield name, shlex.split(words)


@pytest.mark.parametrize(("name", "words"), list(calls()))
def test_every_call_is_one_that_the_program_knows(name: str, words: list[str]) -> None:  # noqa: ARG001
    command: click.Command = cli.cli
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    with command.make_context("autopilothq", words):  # raises for an unknown option or a wrong value
        pass


def test_calls_are_found() -> None:
    assert {name: words[:2] for name, words in calls() if words[0] != "status"} == {
        "crontab": ["load", "archive"],
        "autopilothq.service": ["load", "archive"],
        "autopilothq-receive.service": ["receive", "received"],
        "autopilothq-stream.service": ["send", "messages"],
        "github-actions.yml": ["load", "archive"],
    }


def test_loads_of_recipes_fail_for_what_could_not_be_read() -> None:
    """By default a damaged file leaves the status 0, which a scheduler would take for success."""
    loads = [(name, words[words.index("--max-rejects") + 1]) for name, words in calls() if words[0] == "load"]
    assert loads == [("crontab", "0"), ("autopilothq.service", "0"), ("github-actions.yml", "0")]
    for name in ("airflow_dag.py", "dagster_assets.py"):
        assert re.findall(r"(?m)^MAX_REJECTS = (.+)$|rejected > (MAX_REJECTS):", code(name)) == [
            ("0", ""),
            ("", "MAX_REJECTS"),
        ]


# cron --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's home folder as the crontab expects it, but without the program."""
    home = tmp_path / "home"
    (home / "autopilothq").mkdir(parents=True)
    (home / "autopilothq" / "settings.env").write_text(
        "DLT_DATA_DIR='state'\nSOURCES__AUTOPILOTHQ__ARCHIVE_URL='archive'\n"
        "DESTINATION_TYPE='duckdb'\nDESTINATION__DUCKDB__CREDENTIALS='events.duckdb'\n"
    )
    return home


def install(home: Path, program: str) -> Path:
    path = home / "autopilothq" / "venv" / "bin" / "autopilothq"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(program)
    path.chmod(0o700)
    return path


def cron(home: Path, what: str) -> str:
    """Runs a job in cron's small environment; returns what cron would mail."""
    known = {"HOME": str(home), "LOGNAME": "loader", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(
        ["/bin/sh", "-c", what], cwd=home, env=known, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False,
    )  # fmt: skip
    return ran.stdout


def test_cron_starts_both_jobs_every_hour() -> None:
    jobs = crontab()
    assert [re.findall(r"autopilothq (load|status)", what) for _, what in jobs] == [["load"], ["status"]]
    for when, what in jobs:
        assert croniter.is_valid(when)
        assert "%" not in what  # cron turns % into a line break


def test_cron_loads_and_says_nothing(home: Path) -> None:
    install(home, PROGRAM)
    sample.write(str(home / "autopilothq" / "archive"), events=200)
    assert [cron(home, what) for _, what in crontab()] == ["", ""]
    with duckdb.connect(str(home / "autopilothq" / "events.duckdb"), read_only=True) as con:
        assert con.execute("SELECT sum(lines) FROM autopilothq._audit").fetchall() == [(200,)]
    assert "200 lines" in (home / "autopilothq" / "load.log").read_text()
    made = ["load.log", "status.log", "events.duckdb", "state"]
    assert [stat.filemode((home / "autopilothq" / name).stat().st_mode) for name in made] == [
        "-rw-------", "-rw-------", "-rw-------", "drwx------",
    ]  # fmt: skip


def test_every_recipe_sets_the_umask() -> None:
    """So that files that the shell writes are private as well; logs may name people."""
    umask = {
        "crontab": r"^(?:\S+ +){5}umask 077 && ",
        "autopilothq.service": r"^UMask=0077$",
        "autopilothq-receive.service": r"^UMask=0077$",
        "autopilothq-stream.service": r"^UMask=0077$",
        "github-actions.yml": r"^ +umask 077$",
        "airflow_dag.py": r"^ +os\.umask\(0o077\)",
        "dagster_assets.py": r"^ +os\.umask\(0o077\)",
        "webhook_dump.py": r"^ +os\.umask\(0o077\)",
    }
    assert {path.name for path in RECIPES.iterdir() if path.is_file()} == {
        *umask, "autopilothq.timer", "Caddyfile", "nginx.conf", "report_notebook.py",
    }  # fmt: skip
    found = {name: len(re.findall(words, code(name), re.MULTILINE)) for name, words in umask.items()}
    assert found == dict.fromkeys(umask, 1) | {"crontab": len(crontab())}


@pytest.mark.parametrize(("status", "mail"), [(0, ""), (1, "said\n"), (3, "said\n"), (BusyError.status, "")])
def test_cron_mails_what_failed(home: Path, status: int, mail: str) -> None:
    install(home, f"#!/bin/sh\necho said >&2\nexit {status}\n")
    assert [cron(home, what) for _, what in crontab()] == [mail, mail]


# systemd -----------------------------------------------------------------------------------------------------------


def test_systemd_knows_what_each_status_means() -> None:
    service = unit("autopilothq.service")["Service"]
    assert service["SuccessExitStatus"] == f"{BusyError.status}"
    assert service["RestartPreventExitStatus"] == f"{WRONG_WORDS} {TooManyRejects.status}"
    assert {"Unit", "Timer", "Install"} == set(unit("autopilothq.timer").sections())


# The receiver ------------------------------------------------------------------------------------------------------


def test_systemds_receiver_takes_events_that_the_loads_unit_loads(home: Path) -> None:
    """Runs the command of each unit like systemd, with its environment, in the folder that both share."""
    receive, load = unit("autopilothq-receive.service")["Service"], unit("autopilothq.service")["Service"]
    assert receive["StateDirectory"] == load["StateDirectory"]
    assert receive["User"] == "autopilothq"  # like the dynamic user of autopilothq.service
    listen, metrics = free_port(), free_port()
    words = receive["ExecStart"].replace("127.0.0.1:8080", f"127.0.0.1:{listen}")
    words = words.replace("127.0.0.1:9091", f"127.0.0.1:{metrics}").replace("/opt", str(home))
    program = home / "autopilothq" / "bin" / "autopilothq"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    program.chmod(0o700)
    known = {"PATH": "/usr/bin:/bin", "DLT_DATA_DIR": str(home)}
    secrets = {"RECEIVE__SEGMENT__SHOP__SIGNATURE": "abc123"}
    body = '{"type":"track","event":"Email Opened","messageId":"m","userId":"é"}'.encode()
    sign = hmac.new(b"abc123", body, hashlib.sha1).hexdigest()
    url = f"http://127.0.0.1:{listen}/hook/segment/shop"
    with subprocess.Popen(
        shlex.split(words), cwd=home, env=known | secrets, stderr=subprocess.PIPE, text=True
    ) as running, ExitStack() as stopping:  # fmt: skip
        stopping.callback(running.terminate)
        assert running.stderr
        said = json.loads(running.stderr.readline())
        assert said == {**said, "level": "info", "message": "receiving", "folder": "received"}
        answers = [httpx.post(url, content=body, headers={"X-Signature": one}) for one in (sign, "0")]
        assert [answer.status_code for answer in answers] == [200, 401]
        assert "autopilothq_receive_messages_total" in httpx.get(f"http://127.0.0.1:{metrics}/metrics").text
    assert running.returncode == 0
    settings = {"SOURCES__AUTOPILOTHQ__ARCHIVE_URL": str(home / "received"), "DESTINATION_TYPE": "duckdb"}
    loaded = subprocess.run(
        shlex.split(load["ExecStart"].replace("/opt", str(home))), cwd=home, env=known | settings, check=False
    )
    assert loaded.returncode == 0
    with duckdb.connect(str(home / "autopilot.duckdb"), read_only=True) as con:
        assert con.execute("SELECT id, user_id FROM autopilothq.email_opened").fetchall() == [("m", "é")]


def test_proxies_pass_on_paths_of_endpoints_alone() -> None:
    """They pass them to the unit's address, and tell the receiver that another machine sent them."""
    address = re.search(r"--listen (\S+)", code("autopilothq-receive.service"))
    assert address
    caddy, nginx = code("Caddyfile"), code("nginx.conf")
    assert f"reverse_proxy {address[1]}" in caddy
    assert f"server {address[1]};" in nginx
    [passed] = re.findall(r"@endpoints path (.+)", caddy)
    [pattern] = re.findall(r"location ~ (\S+) \{", nginx)
    for path in ("/v1/track", "/v1/batch", "/hook/segment/shop", "/hook/rudder/shop"):
        assert find_route(path)
        assert re.search(pattern, path)
        assert any(fnmatch(path, one) for one in passed.split())
    for path in ("/healthz", "/readyz", "/metrics", "/hook/segment/other", "/hook/segment/shop/x"):
        assert not re.search(pattern, path)
        assert not any(fnmatch(path, one) for one in passed.split())
    assert "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;" in nginx  # Caddy sets it by default
    assert {caddy.count(sign) for sign in "{}"} == {caddy.count("{")}
    assert {nginx.count(sign) for sign in "{}"} == {nginx.count("{")}


# GitHub ------------------------------------------------------------------------------------------------------------


def test_workflow_is_one_that_github_accepts() -> None:
    flow = workflow()
    on = flow.pop(True)  # YAML 1.1 reads `on` as true
    assert croniter.is_valid(on["schedule"][0]["cron"])
    assert set(on) == {"schedule", "workflow_dispatch"}
    assert set(flow) == {"name", "concurrency", "permissions", "jobs"}
    assert flow["concurrency"] == {"group": "autopilothq", "cancel-in-progress": False}
    (job,) = flow["jobs"].values()
    assert set(job) == {"runs-on", "timeout-minutes", "env", "steps"}
    for step in job["steps"]:
        assert ("uses" in step) != ("run" in step)
        assert set(step) <= {"name", "uses", "with", "run", "env", "if"}
        assert "${{" not in step.get("run", "")  # an input in a script could inject commands


def test_workflow_has_no_variable_that_dlt_takes_for_a_setting() -> None:
    """A missing input is an empty variable, and dlt also finds settings by their bare names."""
    (job,) = workflow()["jobs"].values()
    variables = {name.lower() for step in job["steps"] for name in step.get("env", {})}
    assert len(variables) >= 2
    assert not variables & signature(archive).parameters.keys()


def test_workflow_takes_actions_by_their_commit() -> None:
    """A tag can be moved to other code. The version is in a comment, for people and for update tools."""
    used = re.findall(r"^ *- uses: (.+)$", code("github-actions.yml"), re.MULTILINE)
    assert [re.fullmatch(r"(actions/[\w-]+)@[0-9a-f]{40} # v\d+\.\d+\.\d+", each) is not None for each in used] == [
        True, True,
    ]  # fmt: skip


def test_workflow_takes_secrets_from_githubs_store() -> None:
    (job,) = workflow()["jobs"].values()
    secret = {name: value for name, value in job["env"].items() if re.search("CREDENTIALS|KEY", name)}
    assert secret
    assert all(re.fullmatch(r"\$\{\{ secrets\.\w+ \}\}", value) for value in secret.values())


# All ---------------------------------------------------------------------------------------------------------------


def test_python_recipes_can_be_read() -> None:
    for path in RECIPES.glob("*.py"):
        compile(path.read_text(), path.name, "exec")


def test_every_recipe_is_in_its_page() -> None:
    docs = RECIPES.parent / "docs"
    with_recipes = ("how-to/schedule.md", "how-to/receive.md", "how-to/stream.md", "how-to/report.md", "origin.md")
    pages = "".join((docs / page).read_text() for page in with_recipes)
    names = [path.name for path in RECIPES.iterdir() if path.is_file()]
    assert [name for name in names if f"../recipes/{name})" not in pages] == []


def test_dlt_knows_that_the_archives_credentials_are_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise dlt would keep them in its trace, and `dlt deploy` would write them into a public workflow."""
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__CREDENTIALS", '{"aws_secret_access_key": "hidden"}')
    sample.write("archive", events=10)
    pipeline = dlt.pipeline("trace", destination=dlt.destinations.duckdb("trace.duckdb"), dataset_name="autopilothq")
    pipeline.extract(archive("archive"))
    assert pipeline.last_trace is not None
    seen = [value for value in pipeline.last_trace.resolved_config_values if value.key == "credentials"]
    assert [value.is_secret_hint for value in seen] == [True]
    assert "hidden" not in str(seen)
