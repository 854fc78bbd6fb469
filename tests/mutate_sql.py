"""Tests the tests of the SQL: changes the projection's `.sql` files in one small way at a time.

    python tests/mutate_sql.py deduplicate.sql [STATEMENT...]

mutmut changes Python alone. Each change here is tried in a process of its own, with the tests of TESTS until one fails;
what is printed are the changes that none noticed. `docs/contributing.md` says what to do about them.
"""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
# By file the tests that are meant to notice, those first that notice most.
LIMITS = "contract/test_limits.py"
TESTS = {
    "deduplicate.sql": [
        "contract/test_once.py",
        "contract/test_books.py",
        f"{LIMITS}::test_events_beyond_the_number_of_tables_are_in_tracks_alone",
    ],
    "users.sql": [
        "contract/test_identity.py",
        "contract/test_once.py::test_a_load_reads_no_more_of_the_destination_than_it_must",
        f"{LIMITS}::test_many_traits_are_read_as_few_ones",
        f"{LIMITS}::test_a_persons_row_has_no_more_values_than_fit_a_page",
    ],
    "columns.sql": [
        "contract/test_limits.py",
        "contract/test_names.py",
        "contract/test_collisions.py",
        "contract/test_once.py",
    ],
    "audit.sql": ["contract/test_books.py", "contract/test_once.py"],
    "parse.sql": [
        "contract/test_books.py",
        "contract/test_limits.py",
        "contract/test_values.py",
        "contract/test_collisions.py",
    ],
    "people.sql": ["contract/test_profiles_people.py"],
    "snapshot.sql": ["contract/test_api_tables.py"],
    "macros.sql": ["contract/test_values.py", "contract/test_clocks.py", "contract/test_identity.py"],
    "suppression.sql": ["test_suppressions.py", "test_forget_ids.py"],
    "suppression_macros.sql": ["test_suppressions.py", "test_forget_ids.py"],
}
# What is found, and what stands there instead.
CHANGES = [
    (r"(?<!NOT )\bDISTINCT (?!FROM)", ""),
    (r"\bSEMI JOIN\b", "ANTI JOIN"),
    (r"\bANTI JOIN\b", "SEMI JOIN"),
    (r"\bLEFT JOIN\b", "JOIN"),
    (r"\bFULL JOIN\b", "LEFT JOIN"),
    (r"\bUNION(?! ALL)\b", "UNION ALL"),
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
    (r" > ", " >= "),
    (r" < ", " <= "),
    (r" <> ", " = "),
    (r"(?<!:) = ", " <> "),
    (r"(?<![\w.'\-{\[\\$])\d+(?![\w.'\-}\]])", "-1"),
    (r" \+ ", " - "),
    (r"(?<!NOT )\bIN \(", "NOT IN ("),
    (r"\bROWS UNBOUNDED PRECEDING", ""),
]


class Change(NamedTuple):
    """One change of a file: the statement's name, the text before and after, and a line that shows it."""

    name: str
    text: str
    shown: str


def changes(name: str, sql: str) -> Iterator[Change]:
    """Yields the changes of a statement, comments left out."""
    plain = re.sub(r"(?m)^\s*--.*$", lambda found: " " * len(found[0]), sql)
    for pattern, instead in CHANGES:
        for found in re.finditer(pattern, plain):
            yield _change(name, sql, found.start(), found.end(), found.expand(instead))
    for found in re.finditer(r"coalesce\(", plain):
        first, *_, end = _arguments(plain, found.end())
        yield _change(name, sql, found.start(), end + 1, plain[found.end() : first])
    for found in re.finditer(r"(?:ORDER|PARTITION|GROUP) BY ", plain):
        at = found.end()
        ends = _arguments(plain, at)
        starts = [at, *(end + 1 for end in ends[:-1])]
        for start, end in zip(starts, ends, strict=True):
            if len(ends) > 1:
                last = end == ends[-1]
                yield _change(name, sql, start - last, end + (not last), "")


def _arguments(sql: str, at: int) -> list[int]:
    """Returns where each of the terms ends that begin here, at commas or at the closing bracket of them all."""
    ends, depth = [], 0
    for position in range(at, len(sql)):
        sign = sql[position]
        if sign == "," and not depth:
            ends.append(position)
        depth += (sign in "([{") - (sign in ")]}")
        if depth < 0 or (not depth and re.match(r"\s+(?:ROWS|ORDER|HAVING|LIMIT|USING)\b", sql[position:])):
            return [*ends, position]
    return [*ends, len(sql)]


def _change(name: str, sql: str, start: int, end: int, instead: str) -> Change:
    line = sql.rfind("\n", 0, start) + 1
    stop = sql.find("\n", end) if "\n" in sql[end:] else len(sql)
    shown = f"{sql[line:start]}[-{sql[start:end]}-]{{+{instead}+}}{sql[end:stop]}".strip()
    return Change(name, sql[:start] + instead + sql[end:], shown)


def survives(file: str, change: Change, tests: list[str]) -> bool:
    """Runs the tests with the change in a process of its own; returns whether they all pass."""
    if not (child := os.fork()):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        apply(file, change)
        status = 1
        try:
            status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def apply(file: str, change: Change) -> None:
    """Changes the statement for this process."""
    from autopilothq.projection import engine

    if change.name:
        statements = engine.queries(file)
        assert isinstance(statements, dict)
        statements[change.name] = change.text
    elif file == "macros.sql":
        engine.MACROS = change.text
    else:
        original = engine.script
        engine.script = lambda name: change.text if name == file else original(name)  # type: ignore[assignment]


def statements(file: str) -> dict[str, str]:
    """Returns the statements of a file by their names, the whole script by an empty one."""
    from autopilothq.projection import engine

    return dict(engine.queries(file)) or {"": engine.script(file)}


def say(text: str) -> None:
    """Prints at once, because a child that is forked would print what waits once more."""
    sys.stdout.write(text)
    sys.stdout.flush()


def main() -> int:
    """Returns 1 where a change survived."""
    files = [word for word in sys.argv[1:] if word.endswith(".sql")]
    names = [word for word in sys.argv[1:] if not word.endswith(".sql")]
    os.chdir(ROOT)
    survivors = 0
    for file in files:
        tests = [f"tests/{name}" for name in TESTS[file]]
        pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", *tests])  # imports all that they need
        found = [change for name, sql in statements(file).items() for change in changes(name, sql)]
        found = list({change.text: change for change in found if not names or change.name in names}.values())
        say(f"{file}: {len(found)} changes\n")
        for change in found:
            if survives(file, change, tests):
                survivors += 1
                say(f"\nsurvived: {change.name}: {change.shown}\n")
            else:
                say(".")
    say(f"\n{survivors} survived\n")
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
