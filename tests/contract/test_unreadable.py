"""If a line or value raises, only its line is rejected, no other (docs/contract/warehouse.md#limits)."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pytest

import autopilothq
from autopilothq.projection import engine, irregular, parse
from autopilothq.segment import message as messages
from autopilothq.segment.message import Message
from contract import duck
from contract.loading import Line, Store, identify, message, rows_of, to_line
from quicker_macros import text_of_macros
from shared_loads import isolation

BAD = "boom"


def lines(bad: Line, number: int = 40, at: int = 23, **more: Any) -> list[Line]:
    """Returns ordinary lines with a bad one among them."""
    found: list[Line] = [message(messageId=f"m{n:02}", properties={"n": n, **more}) for n in range(number)]
    found.insert(at, bad)
    return found


def ids(found: dict[str, list[dict[str, Any]]], table: str = "tracks") -> list[str]:
    return [row["id"] for row in found[table]]


GOOD = [f"m{n:02}" for n in range(40)]


def raising(macro: str, bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a DuckDB macro raise for values that contain a word."""
    before, plain, after = text_of_macros().partition(f"CREATE MACRO {macro}(v) AS ")
    body, end, after = after.partition(";\n")
    assert plain
    assert end
    error = f"error('no way: {bad}')"
    raised = f"CREATE MACRO {macro}(v) AS CASE WHEN contains(v, '{bad}') THEN {error} ELSE plain_{macro}(v) END;"
    monkeypatch.setattr(engine, "MACROS", f"{before}CREATE MACRO plain_{macro}(v) AS {body};\n{raised}\n{after}")


# ---- reading -------------------------------------------------------------------------------------------------------


def test_lines_whose_slow_path_raises_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it raises; all other lines are read."""
    errors = [RecursionError("too deep"), KeyError("x"), duckdb.InvalidInputException("no")]

    def read(line: bytes, declared: frozenset[str]) -> Message:
        for n, error in enumerate(errors):
            if f"{BAD} {n}".encode() in line:
                raise error
        return plain(line, declared)

    plain = messages.read_message
    monkeypatch.setattr(irregular, "read_message", read)
    # The first two stand next to each other, and the last one alone.
    bad = [
        json.dumps(message(messageId=f"bad {n}", properties={"x": f"{BAD} {n}", "odd": "\0"}))
        for n in range(len(errors))
    ]
    some = lines(bad[0], odd="\0")
    some[24:24], some[35:35] = bad[1:2], ["\ufeff" + bad[2]]
    store = Store()
    found = store.run(some)
    assert ids(found) == ids(found, "email_opened") == GOOD
    rejects = sorted(found["_rejects"], key=lambda row: row["line"])
    assert [{name: row[name] for name in ("file", "line", "reason", "message", "raw")} for row in rejects] == [
        {
            "file": "file 0",
            "line": line,
            "reason": "unreadable",
            "message": " ".join(f"{type(error).__name__}: {error}".split()),
            "raw": text,
        }
        for line, error, text in zip((24, 25, 36), errors, bad, strict=True)
    ]
    assert [count[1:5] for count in store.audit] == [(43, 40, 0, 3)]
    # Discards of the good lines in the batch are reported as usual.
    assert len(found["_discards"]) == 40


def test_a_line_that_the_engine_cannot_read_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    found = rows_of(*lines(message(messageId="ok", sentAt="2019-03-04T05:06:07Z")))
    assert "_rejects" not in found
    monkeypatch.setattr(
        engine,
        "MACROS",
        text_of_macros().replace(
            "CREATE MACRO usual_clock(v) AS CASE",
            "CREATE MACRO usual_clock(v) AS CASE"
            f""" WHEN v = '"1999-09-09T09:09:09Z"' THEN error('{BAD}')::TIMESTAMP""",
        ),
    )
    store = Store()
    found = store.run(lines(message(messageId="bad", sentAt="1999-09-09T09:09:09Z")))
    assert ids(found) == ids(found, "email_opened") == GOOD
    assert [(row["line"], row["reason"], BAD in row["message"]) for row in found["_rejects"]] == [
        (24, "unreadable", True)
    ]


def test_what_is_not_about_a_line_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """If even the canary raises, no line is rejected for it."""

    def probe(*_: Any) -> Any:
        raise ValueError("the engine is broken")

    monkeypatch.setattr(parse, "misread_conditions", probe)
    with pytest.raises(ValueError, match="the engine is broken"):
        Store().run(lines(message(messageId="bad")))


@pytest.mark.parametrize("error", [OSError("disk"), MemoryError(), duckdb.IOException("No space left")])
def test_what_the_machine_lacks_is_raised_at_once(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def probe(*_: Any) -> Any:
        calls.append(1)
        raise error

    monkeypatch.setattr(parse, "misread_conditions", probe)
    with pytest.raises(type(error)):
        Store().run(lines(message(messageId="bad")))
    assert len(calls) == 1


# ---- deduplicating and writing ---------------------------------------------------------------------------------------


# `type_bit` is used to find the types of columns, `as_text` to write rows. Each raises for its own word, in a
# track and in an identify of one load.
MACROS = {"type_bit": "boom", "as_text": "bang"}


class Narrowed(NamedTuple):
    """The lines of a load, the tables after it, and the tables after a second load of the same archive."""

    lines: list[Line]
    tables: dict[str, list[dict[str, Any]]]
    again: dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def narrowed(tmp_path_factory: pytest.TempPathFactory) -> Narrowed:
    some: list[Line] = lines(message(messageId="fine", properties={"word": "fine"}), word="fine")
    some += [identify(messageId="i1", traits={"word": "fine"})]
    with isolation(tmp_path_factory.mktemp("narrowed")), pytest.MonkeyPatch.context() as monkeypatch:
        for at, (macro, word) in enumerate(MACROS.items()):
            raising(macro, word, monkeypatch)
            some.insert(23 + 5 * at, message(messageId=f"bad {macro}", properties={"word": word, "n": 99}))
            some.append(identify(messageId=f"i {macro}", traits={"word": word}))
        found = duck.load(*some)
        duck.pipeline().run(autopilothq.archive("archive"))
        return Narrowed(some, found, duck.tables())


@pytest.mark.parametrize("macro", MACROS)
def test_a_value_that_cannot_become_a_cell_is_rejected_with_its_line(macro: str, narrowed: Narrowed) -> None:
    found, word = narrowed.tables, MACROS[macro]
    assert ids(found) == ids(found, "email_opened") == ["fine", *GOOD]
    assert (ids(found, "identifies"), [row["word"] for row in found["users"]]) == (["i1"], ["fine"])
    bad = [(at, to_line(line).decode()) for at, line in enumerate(narrowed.lines, 1) if word in to_line(line).decode()]
    rejects = [row for row in sorted(found["_rejects"], key=lambda row: row["line"]) if word in row["raw"]]
    assert [(row["line"], row["reason"], row["raw"]) for row in rejects] == [
        (at, "unreadable", text) for at, text in bad
    ]
    assert (len(rejects), len(found["_rejects"])) == (2, 4)
    assert all(f"no way: {word}" in row["message"] for row in rejects)
    audit = [(row["lines"], row["stored"], row["duplicates"], row["rejected"]) for row in found["_audit"]]
    assert audit == [(46, 42, 0, 4)]
    assert narrowed.again == found


# ---- types of declared columns -------------------------------------------------------------------------------------

NEW_COLUMNS = "".join(
    f'    Column("new_{of}", "{of}", "A new column.", ("new_{of}",)),\n'
    for of in ("text", "bigint", "double", "bool", "timestamp")
)
VALUES = [
    '"x"', '""', "1", "1.5", "-0", "1.10", "1e2", "0.00001", "1e400", "1e-400", "1.0000000000000000001",
    "9007199254740993", "12345678901234567890", "true", '"true"', '"12"', '"1.5"', '"2019-03-04T05:06:07Z"',
    '"2019-03-04"', "[1]", "null", "{}", '"\\u0000"', "NaN",
]  # fmt: skip
TYPED_SCRIPT = """
import json, sys
from contract.loading import discards, message, raw, rows_of
values = json.loads(sys.argv[1])
names = ["new_text", "new_bigint", "new_double", "new_bool", "new_timestamp"]
lines = [
    raw(message(event, messageId=f"{n:02}", properties={name: "$v" for name in names}), v=value)
    for event in ("Email Opened", "Other")
    for n, value in enumerate(values)
]
lines = [line.replace('"messageId": "', '"messageId": "o') if '"Other"' in line else line for line in lines]
found = rows_of(*lines)
for table in ("email_opened", "other"):
    cells = [[str(row.get(name)) for name in names] for row in found[table]]
    lost = [entry[1:] for entry in discards(found) if entry[0] == table]
    print(json.dumps([cells, [[i.removeprefix("o"), c, v, r] for i, c, v, r in lost]]))
"""


def typed(tmp_path: Path) -> list[Any]:
    """Returns the cells and discards of VALUES in new declared columns of each type, which only the catalogue knows."""
    package = tmp_path / "autopilothq"
    shutil.copytree(Path(autopilothq.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    catalog = package / "catalog.py"
    text = catalog.read_text()
    assert text.count("PROPERTIES = (\n") == 1
    catalog.write_text(text.replace("PROPERTIES = (\n", "PROPERTIES = (\n" + NEW_COLUMNS))
    script = tmp_path / "typed.py"
    script.write_text(TYPED_SCRIPT)
    tests = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, script, json.dumps(VALUES)],
        env={"PYTHONPATH": f"{tmp_path}:{tests}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_declared_column_of_any_type_is_data_of_the_catalogue_alone(tmp_path: Path) -> None:
    of_seven, of_other = typed(tmp_path)
    # Declared columns are treated alike in one of the seven event tables and in any other.
    assert of_seven == of_other
    cells, lost = of_seven
    T, N = "True", "None"  # noqa: N806
    at = "2019-03-04 05:06:07+00:00"
    assert dict(zip(VALUES, cells, strict=True)) == {
        '"x"': ["x", N, N, N, N],
        '""': ["", N, N, N, N],
        "1": ["1", "1", "1.0", T, N],
        "1.5": ["1.5", N, "1.5", N, N],
        "-0": ["-0", "0", "-0.0", N, N],
        "1.10": ["1.10", N, "1.1", N, N],
        "1e2": ["1e2", "100", "100.0", N, N],
        "0.00001": ["0.00001", N, "1e-05", N, N],
        "1e400": ["1e400", N, N, N, N],
        "1e-400": ["1e-400", N, N, N, N],
        "1.0000000000000000001": ["1.0000000000000000001", N, "1.0", N, N],
        "9007199254740993": ["9007199254740993", "9007199254740993", N, N, N],
        "12345678901234567890": ["12345678901234567890", N, N, N, N],
        "true": ["true", N, N, T, N],
        '"true"': ["true", N, N, T, N],
        '"12"': ["12", "12", "12.0", N, N],
        '"1.5"': ["1.5", N, "1.5", N, N],
        '"2019-03-04T05:06:07Z"': ["2019-03-04T05:06:07Z", N, N, N, at],
        '"2019-03-04"': ["2019-03-04", N, N, N, N],
        "[1]": ["[1]", N, N, N, N],
        "null": [N] * 5,
        "{}": [N] * 5,
        '"\\u0000"': [N] * 5,
        "NaN": [N] * 5,
    }
    names = ["new_text", "new_bigint", "new_double", "new_bool", "new_timestamp"]
    told = {(int(row), name): value for row, name, value, _ in lost}
    for at_, (value, found) in enumerate(zip(VALUES, cells, strict=True)):
        for name, cell in zip(names, found, strict=True):
            assert ((at_, name) in told) == (cell == N and value not in ("null", "{}")), (value, name)
            assert told.get((at_, name), value) == value
