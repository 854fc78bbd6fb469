"""Forks processes from one that has imported everything, because importing it again takes a second.

`start(path, *words)` and `start("-c", code, *words)` do what the interpreter does with these arguments, in a process
that tests may kill. The first call starts the process that all others are forked from; it has no threads and no
database.
"""

import atexit
import functools
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, NoReturn

DEVNULL, PIPE = subprocess.DEVNULL, subprocess.PIPE
TESTS = Path(__file__).parent


class Request(NamedTuple):
    """What a process is to run, and where."""

    words: list[str]
    folder: str
    environment: dict[str, str]
    umask: int


# ---- the side of the tests ------------------------------------------------------------------------------------------


class Process:
    """A forked process, to be used like `subprocess.Popen`."""

    def __init__(self, pid: int, link: socket.socket, pipes: "list[IO[Any] | None]") -> None:
        self.pid = pid
        self.stdin, self.stdout, self.stderr = pipes
        self.returncode: int | None = None
        self._link = link

    def poll(self) -> int | None:
        """Returns the exit status, or None while the process runs."""
        if self.returncode is None and select.select([self._link], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the process to end, and returns its exit status: minus the signal if it was killed."""
        if self.returncode is None:
            self._link.settimeout(timeout)
            self.returncode = _number(self._link)
            self._link.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends a signal to the process unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended, but its status has not arrived yet
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[Any, Any]:
        """Returns all that the process prints on stdout and stderr until it ends.

        Raises TimeoutExpired if one of them stays open longer than `timeout`; with a timeout, the process must not
        print more than a pipe holds.
        """
        if self.stdin:
            self.stdin.close()
        found = []
        for pipe in (self.stdout, self.stderr):  # in turn, because no test prints more on stderr than a pipe holds
            if pipe and timeout is not None:
                _await_end(pipe, timeout)
            found.append(pipe.read() if pipe else None)
            if pipe:
                pipe.close()
        self.wait()
        return found[0], found[1]

    def __enter__(self) -> "Process":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe:
                pipe.close()
        self.wait()


def start(
    *words: str,
    cwd: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    stdin: "int | IO[Any] | None" = None,
    stdout: "int | IO[Any] | None" = None,
    stderr: "int | IO[Any] | None" = None,
    text: bool = False,
    umask: int = -1,
) -> Process:
    """Starts a process; the options are those of `subprocess.Popen`."""
    link, end = socket.socketpair()
    ours: list[IO[Any] | None] = []
    theirs: list[int] = []
    try:
        for number, stream in enumerate((stdin, stdout, stderr)):
            descriptor, pipe = _stream(number, stream, text)
            theirs.append(descriptor)
            ours.append(pipe)
        socket.send_fds(_parent(), [b"."], [end.fileno(), *theirs])
    finally:
        end.close()
        for descriptor in theirs:
            os.close(descriptor)
    request = Request(list(words), str(Path(cwd or ".").absolute()), dict(os.environ if env is None else env), umask)
    link.sendall(json.dumps(request).encode() + b"\n")
    return Process(_number(link), link, ours)


def run(
    *words: str, cwd: Path | str | None = None, env: Mapping[str, str] | None = None, umask: int = -1
) -> "subprocess.CompletedProcess[str]":
    """Runs a process to its end, and returns what it printed."""
    with start(*words, cwd=cwd, env=env, stdout=PIPE, stderr=PIPE, text=True, umask=umask) as process:
        out, err = process.communicate()
    return subprocess.CompletedProcess(words, process.wait(), out, err)


def _stream(number: int, stream: "int | IO[Any] | None", text: bool) -> "tuple[int, IO[Any] | None]":
    """Returns the descriptor for the process, and this side's end of the pipe if it is one."""
    if stream is None:
        return os.dup(number), None
    if stream == DEVNULL:
        return os.open(os.devnull, os.O_RDWR), None
    if stream != PIPE:
        return os.dup(stream if isinstance(stream, int) else stream.fileno()), None
    reading, writing = os.pipe()
    theirs, ours = (writing, reading) if number else (reading, writing)
    mode = ("r" if number else "w") + ("" if text else "b")
    return theirs, open(ours, mode, buffering=-1 if number or text else 0)


def _await_end(pipe: "IO[Any]", seconds: float) -> None:
    """Waits until all writers of a pipe have closed it; what they wrote stays in it. Raises TimeoutExpired."""
    ended = select.poll()
    ended.register(pipe, 0)
    if not ended.poll(seconds * 1000):
        raise subprocess.TimeoutExpired("a forked process", seconds)


def _number(link: socket.socket) -> int:
    digits = b""
    while not digits.endswith(b"\n"):
        piece = link.recv(1)
        if not piece:
            raise RuntimeError("the process that processes are forked from has ended")
        digits += piece
    return int(digits)


@functools.cache
def _parent() -> socket.socket:
    """Returns the socket of the process that all others are forked from, and starts it. It ends with this process."""
    import autopilothq  # to find its folder, which is another one in a mutation run

    ours, theirs = socket.socketpair()
    paths = os.pathsep.join((str(TESTS), str(Path(autopilothq.__file__).parents[1])))
    process = subprocess.Popen(
        [sys.executable, __file__, str(theirs.fileno())],
        pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# ---- the side of the process ----------------------------------------------------------------------------------------


def _serve(channel: socket.socket) -> Request | None:
    """Forks a process for each request, and returns its request in it; returns None when the tests have ended."""
    signal.signal(signal.SIGCHLD, _reap)
    while True:
        asked, descriptors, _, _ = socket.recv_fds(channel, 1, 4)
        if not asked:
            return None
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            channel.close()
            return _attend(*descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _reap(*_: object) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _attend(connection: int, *streams: int) -> Request:
    """Forks the process and returns in it; this one reports its pid and exit status, and ends."""
    with socket.socket(fileno=connection) as link:
        asked = b""
        while not asked.endswith(b"\n"):
            asked += link.recv(65536)
        child = os.fork()
        if child:
            for descriptor in (0, 1, 2, *streams):
                os.close(descriptor)
            link.sendall(b"%d\n" % child)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            link.sendall(b"%d\n" % status)
            os._exit(0)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    return Request(*json.loads(asked))


def _become(request: Request) -> NoReturn:
    """Takes over the folder, the environment and the streams, and runs the program as `__main__`."""
    import duckdb
    from dlt.common.configuration.container import Container
    from dlt.common.configuration.specs import PluggableRunContext

    duckdb.set_default_connection(duckdb.connect())
    os.chdir(request.folder)
    if request.umask >= 0:
        os.umask(request.umask)
    os.environ.clear()
    os.environ.update(request.environment)
    Container()[PluggableRunContext].reload()  # dlt reads settings when the context is made
    program, *words = request.words
    try:
        if program == "-c":
            code, *words = words
            sys.argv = ["-c", *words]
            exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102 - as `python -c` does
        else:
            sys.argv = [program, *words]
            runpy.run_path(program, run_name="__main__")
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - it is printed, as an interpreter does
        traceback.print_exc()
        status = 1
    _end(status)


def _end(status: int) -> NoReturn:
    """Ends as an interpreter does, but without finalising what the parent made, whose threads libraries wait for."""
    vars(threading)["_shutdown"]()
    vars(atexit)["_run_exitfuncs"]()
    gc.collect()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def main() -> None:
    """Imports what the tests' programs import, and serves requests."""
    gc.disable()  # during the imports, whose objects stay
    import adbc_driver_manager
    import deltalake
    import dlt.destinations
    import duckdb
    import psycopg2

    import autopilothq.cli
    from autopilothq.receive import server
    from autopilothq.warehouses import delta, postgres
    from fake_autopilot import FakeAutopilot
    from quicker_dlt import cache_hints, import_commands
    from quicker_lookups import spare_lookups

    _ = adbc_driver_manager, deltalake, dlt.destinations, psycopg2, autopilothq.cli, server
    _ = delta, postgres, FakeAutopilot
    # Its threads would not exist after a fork, but an interpreter that ends would wait for them.
    duckdb.default_connection().close()
    import_commands()
    cache_hints()
    spare_lookups()
    gc.collect()
    gc.freeze()
    gc.enable()
    if request := _serve(socket.socket(fileno=int(sys.argv[1]))):
        _become(request)


if __name__ == "__main__":
    main()
