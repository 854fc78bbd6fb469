"""Pages are right about commands, settings and queries; `test_docs.py` checks the pages themselves."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from decimal import Decimal
from inspect import signature
from pathlib import Path
from typing import Any

import click
import duckdb
import psycopg2
import pytest

from autopilothq import api, cli, profiles, sample
from calling import Call
from generate_docs import GENERATED

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "pipelines" / "docs"


def documents() -> str:
    """Returns the README and all handwritten pages to which it leads."""
    pages = [page for page in sorted(DOCS.rglob("*.md")) if page not in GENERATED]
    return "\n".join(page.read_text() for page in (README, *pages))


def words(command: click.Command) -> Iterator[str]:
    """Returns the options of a command, and the names and options of its subcommands."""
    yield from (option for parameter in command.params for option in parameter.opts if option.startswith("--"))
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield name
            yield from words(below)


def test_every_command_and_option_is_documented() -> None:
    text = documents()
    missing = {word for word in words(cli.cli) if word not in text}
    assert missing == set()


@pytest.mark.parametrize("source", [api, profiles])
def test_every_setting_of_an_api_is_documented(source: Callable[..., object]) -> None:
    text = documents()
    assert [
        name for name in signature(source).parameters if f"`{name}`" not in text and f"\n{name} = " not in text
    ] == []


QUESTIONS = re.search(r"```sql\n(.*?)```", (DOCS / "how-to" / "query.md").read_text(), re.DOTALL)
ZONES = ("UTC", "America/Los_Angeles", "Australia/Sydney")


def test_questions_have_the_same_answers_in_every_time_zone_and_database(call: Call, postgres: str) -> None:
    assert QUESTIONS is not None
    questions = QUESTIONS.group(1)
    sample.write("archive", events=800)
    for place in (("duckdb", "readme.duckdb"), ("postgres", postgres)):
        said = call("load", "archive", "archive", "--destination", place[0], "--credentials", place[1])
        assert said.status == 0, said.err
    with ExitStack() as sessions:
        asked = [
            sessions.enter_context(session(place, zone)) for place in ("readme.duckdb", postgres) for zone in ZONES
        ]
        answered = [(question, [answer(one, question) for one in asked]) for question in questions.split("\n\n")]
    for question, answers in answered:
        assert answers[0], question
        assert all(value is not None for value in answers[0][0]), question
        assert answers == [answers[0]] * len(answers), question


@contextmanager
def session(database: str, zone: str) -> Iterator[Any]:
    """Yields a cursor in a session with this time zone."""
    connect: Any = psycopg2.connect if "://" in database else duckdb.connect
    with closing(connect(database)) as con, closing(con.cursor()) as cursor:
        cursor.execute(f"SET TIME ZONE '{zone}'")
        yield cursor


def answer(cursor: Any, question: str) -> list[tuple[Any, ...]]:
    """Returns the rows of a question in a fixed order."""
    cursor.execute(question)
    rows = cursor.fetchall()
    return sorted((tuple(float(cell) if isinstance(cell, Decimal) else cell for cell in row) for row in rows), key=repr)


def test_every_day_in_the_documents_is_utcs() -> None:
    text = documents()
    assert re.findall(r"(?i)cast\((?:(?!at time zone 'utc').)* as date\)|::date|date_trunc|current_date", text) == []
    assert "AT TIME ZONE 'UTC' AS date)" in text
