"""Help, wrong options and `sample` import no slow library, and other commands only what they need."""

import json
import os
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import autopilothq
from autopilothq.cli import cli
from autopilothq.cli import inspect as schema_commands
from autopilothq.cli.profiles import REGIONS
from autopilothq.cli.send import KEY_COLUMNS
from autopilothq.clients.profile_api import BASE_URLS
from autopilothq.destination.messages import ID_COLUMNS
from autopilothq.inspect import FORMATS
from calling import MAIN
from shared_loads import isolation

SLOW = {"dlt", "duckdb", "httpx", "numpy", "pyarrow", "rich", "sqlglot", "yaml"}
PROGRAM = """
import json, os, sys
from autopilothq.cli import main

def call(words):
    status, sys.argv = 0, ["autopilothq", *words]
    try:
        main()
    except SystemExit as ended:
        status = ended.code
    return [words, status, [name for name in json.loads(os.environ["SLOW"]) if name in sys.modules]]

told = os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_RDWR), 1)
os.dup2(1, 2)
for calls in json.loads(sys.argv[1]):
    if not os.fork():
        for words in calls:
            told.write(json.dumps(call(words)) + "\\n")
        told.flush()
        os._exit(0)
    os.wait()
"""


def python(program: str, *words: str) -> str:
    """Returns the output of a new interpreter; the forked ones of other tests have all imports already."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "SLOW": json.dumps(sorted(SLOW))}
    done = subprocess.run(
        [sys.executable, "-c", program, *words], env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported(*calls: str, together: bool = False) -> dict[str, tuple[int, set[str]]]:
    """Returns the exit status of each call of the program and the slow libraries that it imported.

    Each call has its own process, or with `together` shares one, which is enough if nothing may be imported.
    """
    words = [call.split() for call in calls]
    lines = python(PROGRAM, json.dumps([words] if together else [[each] for each in words])).splitlines()
    return {" ".join(words): (status, set(found)) for words, status, found in map(json.loads, lines)}


def commands(command: click.Command = cli, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yields the words of every command of the program. Example: `"load archive"`."""
    for name, below in command.commands.items() if isinstance(command, click.Group) else ():
        yield " ".join([*path, name])
        yield from commands(below, (*path, name))


def test_help_the_version_wrong_options_and_sample_import_no_slow_library() -> None:
    helps = ["--help", "--version", *(f"{command} --help" for command in commands())]
    wrong = ["--nope", "status --nope", "schema diff --nope", "deliveries --nope", "sample --nope", "sample"]
    found = imported(*helps, "sample archive --events 10", *wrong)
    assert found == {
        **dict.fromkeys([*helps, "sample archive --events 10"], (0, set())),
        **dict.fromkeys(wrong, (2, set())),
    }
    assert list(Path("archive").rglob("*.gz"))
    # OpenSSL is slow to import and not needed here.
    assert python("import sys, autopilothq.cli.load; print('_hashlib' in sys.modules)") == "False\n"


def test_a_current_folder_that_was_removed_is_an_error_of_one_line() -> None:
    program = "import os; os.mkdir('x'); os.chdir('x'); os.rmdir('../x'); from autopilothq.cli import main; main()"
    ended = subprocess.run([sys.executable, "-c", program, "status"], capture_output=True, text=True, check=False)
    message = "Error: The current folder was removed. Call the program in another one.\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", message)


NO_TOML = "Error: Expected TOML in ./.dlt/{}, but it cannot be read: {}.\n"
MISPLACED = "runtime.slack_incoming_hook is secret, but it is in .dlt/config.toml. Move it to .dlt/secrets.toml."
RUNTIME = "the settings in [runtime] of .dlt/config.toml, .dlt/secrets.toml or the environment"
NO_FLOAT = """Error: Expected a number as the setting read_timeout, but got 'soon'.
Correct it in .dlt/config.toml, in .dlt/secrets.toml or in the environment, in the variable whose name ends in \
READ_TIMEOUT.
"""


SETTINGS: list[tuple[str, bytes, str]] = [
    ("secrets.toml", b"[a\n", NO_TOML.format("secrets.toml", r"Unexpected character: '\n' at line 1 col 2")),
    (
        "config.toml",
        b'a = "\xff',
        NO_TOML.format("config.toml", "'utf-8' codec can't decode byte 0xff in position 5: invalid start byte"),
    ),
    ("config.toml", b'[sources.autopilothq]\nread_timeout = "soon"\n', NO_FLOAT),
    ("config.toml", b'[runtime]\nslack_incoming_hook = "https://hooks.example.com/a"\n', f"Error: {MISPLACED}\n"),
    ("config.toml", b"[runtime]\nlog_level = 5\n", f"Error: dlt cannot start with {RUNTIME}: Unknown level: '5'\n"),
]
# Imports the same as dlt, and runs the program in each folder in a process that is forked from that.
IN_FOLDERS = f"""
import os, sys
import duckdb, fsspec, numpy, orjson, pendulum, pyarrow.parquet, requests, rich.progress, sqlglot, tomlkit, yaml

for folder in sys.argv[1:]:
    if not os.fork():
        os.chdir(folder)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
        sys.argv = ["autopilothq", *open("command").read().split()]
        status = 0
        try:
            {MAIN}
        except SystemExit as ended:
            status = ended.code
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str, str]]:
    """The exit status, stdout and stderr of `mapping` and then of loads that find the settings of SETTINGS."""
    home = tmp_path_factory.mktemp("settings")
    folders = [home / str(number) for number in range(len(SETTINGS))]
    for number, (folder, (name, text, _)) in enumerate(zip(folders, SETTINGS, strict=True)):
        (folder / ".dlt").mkdir(parents=True)
        (folder / "command").write_text("mapping ." if number == 0 else "load archive .")
        (folder / ".dlt" / name).write_bytes(text)
    with isolation(home):
        statuses = python(IN_FOLDERS, *map(str, folders)).split()
    said = [((folder / "out").read_text(), (folder / "err").read_text()) for folder in folders]
    return [(int(status), *texts) for status, texts in zip(statuses, said, strict=True)]


@pytest.mark.parametrize("number", range(len(SETTINGS)))
def test_settings_that_cannot_be_read_are_an_error_of_two_lines(number: int, ended: list[tuple[int, str, str]]) -> None:
    """The first two settings would otherwise cause a traceback from inside dlt."""
    status, out, err = ended[number]
    assert (status, out) == (1, "")
    assert re.sub(r"\d\d:\d\d:\d\d reading\n", "", err) == SETTINGS[number][2]


@pytest.mark.parametrize(
    ("text", "why"),
    [("import nope", "ModuleNotFoundError: No module named 'nope'"), ("raise OSError(5)", "OSError: 5")],
)
def test_a_dlt_that_is_broken_is_an_error_of_one_line_which_blames_no_setting(text: str, why: str) -> None:
    Path("dlt.py").write_text(text)
    ended = subprocess.run([sys.executable, "-c", MAIN, "status"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"Error: dlt cannot be imported: {why}\n")


def test_the_program_is_the_module_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m` runs it under its own name, which the usage shows."""
    monkeypatch.setattr(sys, "argv", ["-m", "--help"])
    monkeypatch.setattr("gc.set_threshold", lambda *_: None)
    before, interrupt = os.umask(0o77), signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_module("autopilothq", run_name="__main__", alter_sys=True)
    finally:
        os.umask(before)
        signal.signal(signal.SIGINT, interrupt)
    assert (ended.value.code, capsys.readouterr().out.splitlines()[0]) == (
        0, "Usage: autopilothq [OPTIONS] COMMAND [ARGS]...",
    )  # fmt: skip


def test_a_wrong_option_of_a_command_whose_end_is_noted_imports_what_knows_the_webhook() -> None:
    found = imported("load archive --nope", "send traits --nope", "forget --nope", together=True)
    assert [status for status, _ in found.values()] == [2, 2, 2]
    assert [names & {"httpx", "numpy", "pyarrow", "rich"} for _, names in found.values()] == [set()] * 3


def test_commands_that_speak_to_no_api_import_no_http_client() -> None:
    calls = ("sample archive --events 10", "load archive archive", "status", "schema", "schema diff")
    found = imported(*calls, together=True)
    assert [status for status, _ in found.values()] == [0] * 5
    assert [call for call, (_, names) in found.items() if "httpx" in names] == []


def test_a_receiver_that_only_takes_events_imports_nothing_that_loads() -> None:
    program = """
import json, os, sys, threading, urllib.request
from autopilothq.cli import main, receiving

def report(folder, url):
    def post():
        request = urllib.request.Request(f"{url}/v1/track", b'{"userId": "u1", "event": "E"}', method="POST")
        request.add_header("Content-Type", "application/json")
        try:
            answered = urllib.request.urlopen(request).read().decode()
            found = [name for name in json.loads(os.environ["SLOW"]) if name in sys.modules]
            print(answered, found, flush=True)
        finally:
            os.kill(os.getpid(), 15)
    threading.Thread(target=post, daemon=True).start()

receiving._report = report
sys.argv = ["autopilothq", "receive", "archive", "--listen", "127.0.0.1:0"]
main()
"""
    # dlt reads the settings, and imports the last two.
    assert python(program) == "{\"success\": true} ['dlt', 'sqlglot', 'yaml']\n"


def test_the_package_imports_a_library_when_it_is_used() -> None:
    program = f"""
import sys
import autopilothq
slow = {SLOW}
assert not slow & set(sys.modules), slow & set(sys.modules)
assert set(autopilothq.__all__) <= set(dir(autopilothq))
assert not slow & set(sys.modules), slow & set(sys.modules)
import pyarrow
from autopilothq import archive, LoadReport
import dlt, pickle
assert pickle.loads(pickle.dumps(LoadReport())) == LoadReport()
from dlt.extract.reference import SourceReference
print(dlt.config["runtime.dlthub_telemetry"], "duckdb" in sys.modules, archive is autopilothq.archive)
print(SourceReference.find("autopilothq.archive") is not None)
"""
    assert python(program) == "False True True\nTrue\n"


def test_every_name_of_the_package_can_be_imported() -> None:
    assert [name for name in autopilothq.__all__ if getattr(autopilothq, name, None) is None] == []
    assert {name for names in autopilothq._MODULES.values() for name in names} <= set(autopilothq.__all__)
    with pytest.raises(AttributeError, match="module 'autopilothq' has no attribute 'nothing'"):
        _ = autopilothq.nothing


def test_the_choices_of_options_are_those_of_the_modules_that_carry_them_out() -> None:
    assert tuple(BASE_URLS) == REGIONS
    assert KEY_COLUMNS == ID_COLUMNS
    assert (*FORMATS, "sql") == schema_commands.SCHEMA_FORMATS


@pytest.mark.parametrize(
    ("streams", "status"),
    [
        ("<&- >&- 2>&-", 0),  # like some schedulers start it
        (">/dev/full", 1),  # Python alone would end with 120
    ],
)
def test_output_that_nobody_takes(streams: str, status: int, tmp_path: Path) -> None:
    program = """
import os, sys
from autopilothq import __main__, cli
def main():
    with open(sys.argv[1], "w") as other:
        assert other.fileno() > 2  # what libraries print does not get into it
    print(sys.stdout.isatty(), sys.stdin.read(), file=sys.stderr)
    try:
        print("done", flush=True)
    except OSError:
        sys.exit(1)
cli.main = main
__main__.run_process()
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": ""}
    words = [sys.executable, "-c", program, str(tmp_path / "other")]
    shell = ["/bin/sh", "-c", f'exec "$0" "$@" {streams}']
    ended = subprocess.run([*shell, *words], env=environment, stdin=subprocess.DEVNULL, check=False)
    assert ended.returncode == status
