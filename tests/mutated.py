"""Makes the mutants of the copy of the package in the current folder, and tries each. `mutate.py` starts it.

One process imports all tests. Each mutant is tried in a fork of it, with the tests that call the changed function,
until one fails: first those that noticed another change of the function, then file by file, the quickest file first.

    python tests/mutated.py SECONDS [PATTERN...]
"""

import itertools
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from fnmatch import fnmatch
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import pytest
from _pytest.runner import runtestprotocol

SPARE_SECONDS = 20  # of processor time that a mutant gets beyond ten times what its tests take
CACHED = type(cache(abs))
sys.setrecursionlimit(10_000)  # each call of a function that can be changed goes through two more


class Run(NamedTuple):
    """The result of a test: the functions that it called, whether it passed, its seconds of processor time, and all."""

    called: frozenset[str]
    passed: bool
    seconds: float
    elapsed: float


class Trials:
    """The plugin that tries mutants in place of running tests."""

    def __init__(self, changes: Mapping[str, Sequence[str]], tests: Sequence[str], within: float) -> None:
        """Takes the mutants with the lines that they change, and the tests.

        A mutant is tried with tests of at most `within` seconds of processor time, but with one test at least.
        """
        self.changes = changes
        self.tests = tests
        self._within = within
        self.at_import: frozenset[str] = frozenset()
        self.survivors: list[str] = []
        self._noticed: dict[str, Counter[int]] = defaultdict(Counter)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Tries all mutants."""
        if session.testsfailed:
            raise pytest.UsageError("The tests cannot be imported.")
        called = import_module("mutmut.state").state()._stats
        self.at_import = frozenset(called)
        called.clear()
        with shared_postgres(session):
            self._try_all(session)
        return True

    def _try_all(self, session: pytest.Session) -> None:
        runs: list[Run] = forked(lambda: watch(session.items))
        failed = [item.nodeid for item, run in zip(session.items, runs or (), strict=True) if not run.passed]
        if failed:
            raise pytest.UsageError(f"These fail without a change: {failed}")
        say(f"{len(self.changes)} mutants, {len(runs)} tests of {sum(run.seconds for run in runs):.0f} s\n")
        for mutant, lines in self.changes.items():
            noticed = self._is_noticed(mutant, session.items, runs)
            if not noticed:
                self.survivors.append(mutant)
            say("." if noticed else "\n".join(["", mutant, *lines, ""]))

    def _is_noticed(self, mutant: str, items: Sequence[pytest.Item], runs: Sequence[Run]) -> bool:
        function = function_of(mutant)
        order = ordered(items, runs, function, self._noticed[function])
        times = itertools.accumulate(runs[number].seconds for number in order)
        # At least the first one. A change for which there is no test at all survives.
        order = [number for number, spent in zip(order, times, strict=True) if spent <= self._within] or order[:1]
        limit = int(10 * sum(runs[number].seconds for number in order)) + SPARE_SECONDS
        patience = int(10 * sum(runs[number].elapsed for number in order)) + 10 * SPARE_SECONDS

        def attempt() -> int | None:
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
            signal.alarm(patience)
            activate(mutant)
            empty_caches()
            tests = zip(order, run_all([items[number] for number in order]), strict=True)
            return next((number for number, run in tests if not run.passed), None)

        try:
            number = forked(attempt)
        except ChildProcessError:
            return True
        if number is not None:
            self._noticed[function][number] += 1
        return number is not None or (function in self.at_import and fails_alone(mutant, self.tests))


def function_of(mutant: str) -> str:
    """Returns the name that mutmut gives to the function of a mutant."""
    return mutant.rpartition("__mutmut_")[0]


def ordered(items: Sequence[pytest.Item], runs: Sequence[Run], function: str, noticed: Counter[int]) -> list[int]:
    """Returns the numbers of the tests of a function, in the order in which they run.

    A test may reuse a load that an earlier test of its file made, without calling the functions itself. So a test
    counts for all functions that its file has called so far.
    """
    files: dict[Path, list[int]] = {}
    for number, (item, run) in enumerate(zip(items, runs, strict=True)):
        if function in run.called or item.path in files:
            files.setdefault(item.path, []).append(number)
    of_files = [
        sorted(found, key=lambda number: (function not in runs[number].called, runs[number].seconds))
        for found in files.values()
    ]
    of_files.sort(key=lambda found: sum(runs[number].seconds for number in found))
    first = [number for number, _ in noticed.most_common(3)]
    return [*first, *(number for found in of_files for number in found if number not in first)]


def watch(items: Sequence[pytest.Item]) -> list[Run]:
    """Runs all tests without a change, and returns their results."""
    activate("stats")
    # Calls in processes that tests start are not noticed anyway, and these would not find mutmut's settings.
    del os.environ["MUTANT_UNDER_TEST"]
    called = import_module("mutmut.state").state()._stats
    runs = []
    for run in run_all(items):
        runs.append(run._replace(called=frozenset(called)))
        called.clear()
        empty_caches()
    return runs


def run_all(items: Sequence[pytest.Item]) -> Iterator[Run]:
    """Runs tests one after the other, and yields their results, without the functions that they called."""
    for item, following in itertools.zip_longest(items, items[1:]):
        begun, since = time.process_time(), time.monotonic()
        passed = not any(report.failed for report in runtestprotocol(item, log=False, nextitem=following))
        yield Run(frozenset(), passed, time.process_time() - begun, time.monotonic() - since)


def activate(mutant: str) -> None:
    """Makes the package behave as a mutant, in this process and those that it starts; "stats" records calls instead."""
    import_module("mutmut.mutation.trampoline").set_mutant_under_test(mutant)


def empty_caches() -> None:
    """Empties the caches of the package's functions, except of those without a result, which change dlt only once."""
    for name, module in list(sys.modules.items()):
        if name.startswith("autopilothq."):
            for value in list(vars(module).values()):
                if isinstance(value, CACHED) and value.__annotations__.get("return", Any) is not None:
                    value.cache_clear()


@contextmanager
def shared_postgres(session: pytest.Session) -> Iterator[None]:
    """Starts PostgreSQL once for all trials, if a test needs it. Each test has a database of its own there."""
    if not any("postgresql" in getattr(item, "fixturenames", ()) for item in session.items):
        yield
        return
    [conftest] = [module for module in session.config.pluginmanager.get_plugins() if hasattr(module, "postgres_server")]
    with conftest.postgres_server() as server:
        conftest.postgres_server = lambda: nullcontext(server)
        yield


def forked(made: Callable[[], Any]) -> Any:
    """Returns what a function returns in a process of its own. Raises ChildProcessError if that process fails.

    The result's file has no name, because a changed function may delete or write files that it should not.
    """
    with TemporaryFile() as result:
        if not (child := os.fork()):
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            status = 1
            try:
                result.write(pickle.dumps(made()))
                result.flush()
                status = 0
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        result.seek(0)
        found = result.read()
        if status or not found:
            raise ChildProcessError(status)
        return pickle.loads(found)  # noqa: S301 - which this program wrote


def fails_alone(mutant: str, tests: Sequence[str]) -> bool:
    """Returns whether the tests fail in a new process, where modules are imported with the change."""
    program = [sys.executable, "-m", "pytest", "-x", "-q", "--rootdir=.", *tests]
    environment = {**os.environ, "MUTANT_UNDER_TEST": mutant}
    return bool(subprocess.run(program, env=environment, capture_output=True, check=False).returncode)


def changed_lines(mutant: str, path: Path) -> list[str]:
    """Returns the lines of a file that a mutant changes, before and after the change."""
    diff: str = import_module("mutmut.mutation.diff_apply").get_diff_for_mutant(mutant, path=path)
    return [line for line in diff.splitlines()[3:] if line.startswith(("-", "+"))]


def is_telling(lines: Sequence[str]) -> bool:
    """Returns whether a mutant is worth its time.

    Changes of case alone are not: SQL ignores case, and any other string also has a mutant that changes more of it. Nor
    are changes of `strict`, which only reports mistakes in the code.
    """
    plain = ["".join(line[1:] for line in lines if line.startswith(sign)) for sign in "-+"]
    before, after = (re.sub(r",\s*(strict=\w+)?\s*\)", ")", text).casefold() for text in plain)
    return before != after


def say(text: str) -> None:
    """Prints without buffering, because a forked child would print the buffered text once more."""
    sys.__stdout__.write(text)  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


def operands(node: Any) -> Iterator[Any]:
    """Yields each operand of `and` or `or` alone: mutmut itself only swaps the operators, and drops no operand."""
    for operand in (node.left, node.right):
        yield operand.with_changes(lpar=[*node.lpar, *operand.lpar], rpar=[*operand.rpar, *node.rpar])


def make(patterns: Sequence[str]) -> dict[str, list[str]]:
    """Makes the mutants. Returns those that match a pattern (all if there is none), with the lines that they change."""
    mutmut: Any = import_module("mutmut.__main__")
    mutators = import_module("mutmut.mutation.mutators").mutation_operators
    mutators.append((import_module("libcst").BooleanOperation, operands))
    activate("mutant_generation")
    Path("mutants").mkdir()
    mutmut.copy_src_dir()
    mutmut.copy_also_copy_files()
    mutmut.setup_source_paths()
    mutmut.create_mutants(1)
    made = mutmut.collect_source_file_mutation_data(mutant_names=patterns)[0]
    # In the order of the patterns, so that what matters most can come first.
    made.sort(key=lambda of: [not fnmatch(of[1], pattern) for pattern in patterns])
    changes = {name: changed_lines(name, data.path) for data, name, _ in made}
    return {name: lines for name, lines in changes.items() if is_telling(lines)}


def main() -> int:
    """Makes and tries the mutants; returns 1 if one survived, or pytest's status if none was tried."""
    within, *patterns = sys.argv[1:]
    changes = make(patterns)
    tests = import_module("mutmut.configuration").config().pytest_add_cli_args_test_selection
    trials = Trials(changes, tests, float(within))
    os.chdir("mutants")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        (os.getcwd(), str(Path.cwd() / "tests"))
    )  # for processes that tests start
    activate("stats")
    status = pytest.main(["-q", "--rootdir=.", *tests], plugins=[trials])
    if status == pytest.ExitCode.OK:  # otherwise nothing was tried
        say(f"\n{len(trials.survivors)} of {len(changes)} survived\n")
    return int(status) or int(bool(trials.survivors))


if __name__ == "__main__":
    sys.exit(main())
