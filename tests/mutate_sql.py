"""Tests the tests of the SQL: changes the package's `.sql` files in one small way at a time.

    python tests/mutate_sql.py deduplicate.sql [STATEMENT...]

mutmut changes only Python. The tests in TESTS are collected once, and run once to see how long each takes and which
statements it uses. Then each change is tried in a process of its own, with the tests that use its statement, until one
fails. The changes that no test noticed are printed: `docs/contributing.md` says what to do about them.
"""

import json
import os
import re
import resource
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pipelines" / "autopilothq"
# TESTS has the tests that should notice, by file or by folder.
LIMITS = "contract/test_limits.py"
VALUES = ["contract/test_values.py", "contract/test_clocks.py", "contract/test_collisions.py", "contract/test_books.py"]
CLOCKS = [
    "contract/test_clocks.py::test_the_known_cases_are_plainly_read_alike",
    "contract/test_clocks.py::test_the_usual_notation_is_read_in_one_step",
    "contract/test_clocks.py::test_a_number_has_as_many_digits_as_its_notation_says",
]
SUPPRESSION = [
    "contract/test_suppressed.py",
    "test_suppressions.py::test_hashes_with_a_key",
    "test_forget_ids.py::test_no_line_of_a_person_is_missed",
    "test_forget_ids.py::test_python_and_the_engine_fold_alike",
    "test_forget_ids.py::test_hashes_of_earlier_releases_still_match",
    "test_people.py",
]
REFUSED = [
    "contract/test_partitions.py::test_what_is_refused_or_of_deleted_persons_is_rejected",
    "contract/test_partitions.py::test_a_row_that_loses_a_refused_message_is_made_again_of_those_that_are_stored",
]
TESTS = {
    "deduplicate.sql": [
        "contract/test_once.py",
        "contract/test_books.py",
        f"{LIMITS}::test_events_beyond_the_number_of_tables_are_in_tracks_alone",
        *REFUSED,
    ],
    "users.sql": [
        "contract/test_identity.py",
        "contract/test_once.py::test_a_load_reads_no_more_of_the_destination_than_it_must",
        f"{LIMITS}::test_many_traits_are_read_as_few_ones",
        f"{LIMITS}::test_a_persons_row_has_no_more_values_than_fit_a_page",
        *REFUSED,
    ],
    "columns.sql": [
        "contract/test_limits.py",
        "contract/test_names.py",
        "contract/test_collisions.py",
        "contract/test_once.py",
    ],
    "audit.sql": [f"contract/test_{name}.py" for name in ("books", "once", "suppressed", "mending")],
    "parse.sql": ["test_parsing.py", "contract/test_fast_path.py", "contract/test_unreadable.py", LIMITS, *VALUES],
    "shapes.sql": ["test_parsing.py", "contract/test_fast_path.py", *VALUES],
    "state.sql": ["contract/test_once.py", *VALUES],
    "people.sql": ["test_people.py"],
    "snapshot.sql": ["test_snapshot.py"],
    "macros.sql": ["test_macros.py", *CLOCKS],
    "mend.sql": ["contract/test_mending.py"],
    "partition.sql": ["contract/test_partitions.py"],
    "suppression.sql": SUPPRESSION,
    "suppression_macros.sql": SUPPRESSION,
    "adopt.sql": ["contract/test_adopted_rows.py"],
    "adopt_macros.sql": ["test_adopt_values.py"],
    "models": ["mutated_models.py"],
    "queries": ["mutated_models.py"],
    "warehouses": ["mutated_warehouses.py"],
}
# What is found, and what replaces it.
CHANGES = [
    (r"(?<!NOT )(?<!UNION )\bDISTINCT (?!FROM)", ""),
    (r"\bSEMI JOIN\b", "ANTI JOIN"),
    (r"\bANTI JOIN\b", "SEMI JOIN"),
    (r"\bLEFT JOIN\b", "JOIN"),
    (r"\bFULL JOIN\b", "LEFT JOIN"),
    (r"\bUNION(?: DISTINCT)?\b(?! ALL)", "UNION ALL"),
    (r"\bIS NULL\b", "IS NOT NULL"),
    (r"\bIS NOT NULL\b", "IS NULL"),
    (r"\bIS NOT DISTINCT FROM\b", "="),
    (r"(?<!IS )\bNOT ", ""),
    (r"(?<![A-Z] )\bDESC\b", ""),
    (r"\bNULLS LAST\b", "NULLS FIRST"),
    (r"\bmax\(", "min("),
    (r"\bmin\(", "max("),
    (r" AND (?!TIMESTAMP)", " OR "),
    (r" OR (?!REPLACE)", " AND "),
    (r"\bWHEN ", "WHEN false AND "),
    (r" > ", " >= "),
    (r" < ", " <= "),
    (r" >= ", " > "),
    (r" <= ", " < "),
    (r" <> ", " = "),
    (r"(?<!:) = ", " <> "),
    (r"(?<![\w.'\-{\[\\$])\d+(?![\w.'\-}\]])", "-1"),
    (r" \+ ", " - "),
    (r"(?<!NOT )\bIN \(", "NOT IN ("),
    (r"\bROWS UNBOUNDED PRECEDING", ""),
]
CHOICE = "not memory and not machine and not any_cut and not any_text"  # leaves out tests that take many seconds
SECONDS = 100  # of processor time that the tests of a change may take, because it may make a statement endless


class Change(NamedTuple):
    """One change of a file: the statement's name, the file's text with the change, and a line that shows it."""

    name: str
    text: str
    shown: str


def changes(text: str) -> Iterator[Change]:
    """Yields the changes of a file, except in comments and in string literals."""
    plain = re.sub(r"(?m)^\s*--.*$", lambda found: " " * len(found[0]), text)
    plain = re.sub(r"'[^']*'", lambda found: "'" + "x" * (len(found[0]) - 2) + "'", plain)
    starts = [(0, "")]
    starts += [(found.start(), found[1]) for found in re.finditer(r"(?m)^(?:-- name:|CREATE.* MACRO) (\w+)", text)]
    for (start, name), (end, _) in zip(starts, [*starts[1:], (len(text), "")], strict=True):
        for first, last, instead in _places(plain[start:end], text[start:end]):
            yield _change(name, text, start + first, start + last, instead)


def _places(sql: str, text: str) -> Iterator[tuple[int, int, str]]:
    """Yields the start and end of each change to a statement, and its replacement; `sql` has its literals blanked."""
    for pattern, instead in CHANGES:
        for found in re.finditer(pattern, sql):
            yield found.start(), found.end(), instead
    for found in re.finditer(r"coalesce\(", sql):
        first, *_, end = _arguments(sql.rstrip(), found.end())
        yield found.start(), end + 1, text[found.end() : first]
    for found in re.finditer(r"(?:ORDER|PARTITION|GROUP) BY ", sql):
        ends = _arguments(sql.rstrip(), found.end())
        starts = [found.end(), *(end + 1 for end in ends[:-1])]
        for start, end in zip(starts, ends, strict=True):
            if len(ends) > 1:
                last = end == ends[-1]
                yield start - last, end + (not last), ""


def _arguments(sql: str, at: int) -> list[int]:
    """Returns where each term of the list that begins at `at` ends: at a comma, or at the end of the list."""
    ends, depth = [], 0
    for position in range(at, len(sql)):
        sign = sql[position]
        if sign == "," and not depth:
            ends.append(position)
        depth += (sign in "([{") - (sign in ")]}")
        if depth < 0 or (
            not depth and re.match(r"\s+(?:ROWS|ORDER|HAVING|LIMIT|USING|UNION|QUALIFY)\b", sql[position:])
        ):
            return [*ends, position]
    return [*ends, len(sql)]


def _change(name: str, sql: str, start: int, end: int, instead: str) -> Change:
    line = sql.rfind("\n", 0, start) + 1
    stop = sql.find("\n", end) if "\n" in sql[end:] else len(sql)
    shown = f"{sql[line:start]}[-{sql[start:end]}-]{{+{instead}+}}{sql[end:stop]}".strip()
    return Change(name, sql[:start] + instead + sql[end:], shown)


class Noted(dict[str, str]):
    """The statements of a file; `used` collects the names of those that are looked up."""

    used: ClassVar[set[str]] = set()

    def __getitem__(self, name: str) -> str:
        """Returns a statement, and notes that it is used."""
        self.used.add(name)
        return super().__getitem__(name)


class Trial:
    """Tries the changes of one file, in place of pytest's own loop over the tests."""

    def __init__(self, path: Path, names: list[str]) -> None:
        self.path, self.text = path, path.read_text(encoding="utf-8")
        self.found = list({one.text: one for one in changes(self.text) if not names or one.name in names}.values())
        self.seconds: dict[str, float] = {}
        self.uses: dict[str, set[str]] = {}
        self.noticed: list[str] = []
        self.survived = 0
        self._failed = ""

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Runs the tests once as they are, and then with each change."""
        if session.testsfailed or not self._record(session):
            say(f"{self.path.name}: the tests fail as they are\n")
            self.survived = 1
            return True
        say(f"{self.path.name}: {len(self.found)} changes, {len(self.seconds)} tests\n")
        for change in self.found:
            tests = [item for item in session.items if self._concerns(item, change.name)]
            if not tests:  # the statement may have been composed when its module was imported
                say(f"\nnot tried, because no test asks for it: {change.name}: {change.shown}\n")
                continue
            tests.sort(key=lambda item: (-self.noticed.count(item.nodeid), self.seconds.get(item.nodeid, 0)))
            said = _child(partial(self._try, session, change, tests))
            self.noticed += [said] if said and said != "ended" else []
            if not said:
                self.survived += 1
                say(f"\nsurvived {len(tests)} tests: {change.name}: {change.shown}\n")
            else:
                say("." if said != "ended" else "e")
        say(f"\n{self.path.name}: {self.survived} of {len(self.found)} survived\n")
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes what a test used. Several tests may check what a fixture or a cached load used: it counts for all."""
        module = report.nodeid.partition("::")[0]
        key = module if report.when == "setup" or "@cache" in (ROOT / module).read_text() else report.nodeid
        self.uses.setdefault(key, set()).update(Noted.used)
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration
        Noted.used.clear()
        if report.failed:
            self._failed = report.nodeid

    def _concerns(self, item: pytest.Item, name: str) -> bool:
        used = self.uses.get(item.nodeid, set()) | self.uses.get(item.nodeid.partition("::")[0], set())
        return name in used or not any(self.uses.values())

    def _record(self, session: pytest.Session) -> bool:
        """Runs the tests without a change, notes what they use, and returns whether all pass."""
        said = json.loads(_child(lambda tell: self._note(tell, session)) or "{}")
        self.seconds, self.uses = said.get("seconds", {}), {of: set(used) for of, used in said.get("uses", {}).items()}
        return bool(self.seconds) and not said["failed"]

    def _note(self, tell: Callable[[str], object], session: pytest.Session) -> None:
        replace(self.path, self.text, self.text)
        _run(session, session.items, lambda: bool(self._failed))
        uses = {of: sorted(used) for of, used in self.uses.items()}
        tell(json.dumps({"seconds": self.seconds, "uses": uses, "failed": self._failed}))

    def _try(
        self, session: pytest.Session, change: Change, tests: list[pytest.Item], tell: Callable[[str], object]
    ) -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        replace(self.path, self.text, change.text)
        _run(session, tests, lambda: bool(self._failed))
        tell(self._failed)


def _run(session: pytest.Session, tests: list[pytest.Item], ended: Callable[[], bool]) -> None:
    for item, after in zip(tests, [*tests[1:], None], strict=True):
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        if ended():
            break
    session._setupstate.teardown_exact(None)


def _child(work: Callable[[Callable[[str], object]], None]) -> str:
    """Runs `work` in a process of its own. Returns the text that it reported, or "ended" if it reported none."""
    told = Path(os.environ["TMPDIR"], "told")
    told.unlink(missing_ok=True)
    if not (child := os.fork()):
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            work(told.write_text)
        except Exception:  # noqa: BLE001 - the parent raises it
            told.with_suffix(".error").write_text(traceback.format_exc())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    if (error := told.with_suffix(".error")).exists():
        raise RuntimeError(error.read_text())
    return told.read_text() if told.exists() else "ended"


def replace(path: Path, text: str, changed: str) -> None:
    """Replaces the text of a file, and its statements in all modules that have them, in this process."""
    from autopilothq.projection.engine import statements

    read = Path.read_text
    Path.read_text = lambda self, *more, **named: changed if self == path else read(self, *more, **named)  # type: ignore[method-assign]
    before, after = statements(text), Noted(statements(changed))
    modules = [module for name, module in sys.modules.items() if name.startswith("autopilothq")]
    held: list[tuple[Any, str, Any]] = [(module, *one) for module in modules for one in list(vars(module).items())]
    for module, name, value in held:
        if isinstance(value, dict) and value and value == before:
            setattr(module, name, after)
        elif isinstance(value, str) and value == text:
            setattr(module, name, changed)
    for _, _, value in held:
        if type(value).__name__ == "_lru_cache_wrapper" and value.__module__.startswith("autopilothq"):
            value.cache_clear()


def say(text: str) -> None:
    """Prints without buffering, because a forked child would print the buffered text once more."""
    sys.stdout.write(text)
    sys.stdout.flush()


def main() -> int:
    """Runs the trials; returns 1 if a change survived."""
    files = [word for word in sys.argv[1:] if word.endswith(".sql")]
    tests = [word for word in sys.argv[1:] if word.startswith("tests/")]
    names = [word for word in sys.argv[1:] if word not in (*files, *tests)]
    os.chdir(ROOT)
    survived = 0
    for file in files:
        [path] = [path for path in PACKAGE.rglob("*.sql") if path.as_posix().endswith(f"/{file}")]
        trial = Trial(path, names)
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as environment:
            environment.setenv("TMPDIR", folder)
            chosen = tests or [f"tests/{name}" for name in TESTS.get(path.name) or TESTS[path.parent.name]]
            words = ["-q", "-s", "-k", CHOICE, "-p", "no:cacheprovider", "-p", "no:xdist", f"--basetemp={folder}/tests"]
            pytest.main([*words, *chosen], plugins=[trial])
        survived += trial.survived
    return int(bool(survived))


if __name__ == "__main__":
    sys.exit(main())
