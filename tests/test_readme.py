"""The README cannot drift from the catalogue and the commands; `python tests/test_readme.py` writes its tables anew."""

import re
import sys
from collections.abc import Callable, Iterator
from inspect import signature
from pathlib import Path

import click
import dlt
import duckdb
import pytest

from autopilothq import api, archive, catalog, cli, profiles, sample

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BEGIN, END = "<!-- tables: begin -->\n", "<!-- tables: end -->\n"


def documents() -> str:
    """The README and the pages that it leads to."""
    pages = sorted((ROOT / "pipelines" / "docs").glob("*.md"))
    return "\n".join(page.read_text() for page in (README, *pages))


def tables() -> str:
    """The README's section on tables, made from the catalogue."""
    lines = ["| table | rows |", "|---|---|", f"| `{catalog.TRACKS.name}` | {catalog.TRACKS.description} |"]
    lines += [f"| `{table.name}` | {table.description} |" for table in catalog.EVENT_TABLES]
    head = ["", "| column | type | |", "|---|---|---|"]
    lines += ["", "Columns of `tracks` and of every event:", *head]
    lines += [f"| `{name}` | {of} | {text} |" for name, of, text, _ in catalog.TRACKS.columns]
    lines += [
        "",
        "The event tables add (the last two `email_clicked` alone):",
        "",
        "| column | type | |",
        "|---|---|---|",
    ]
    lines += [f"| `{name}` | {of} | {text} |" for name, of, text, _ in catalog.PROPERTIES + catalog.LINK]
    lines += ["", "From Autopilot's API come beside them:", "", "| table | key | rows |", "|---|---|---|"]
    lines += [f"| `{table.name}` | `{'`, `'.join(table.key)}` | {table.description} |" for table in catalog.ACCOUNT]
    return "\n".join(["", *lines, "", ""])


def test_tables_are_the_catalogues() -> None:
    text = README.read_text()
    assert text.split(BEGIN)[1].split(END)[0] == tables()


def words(command: click.Command) -> Iterator[str]:
    """The options of a command; those of the commands below it, with their names."""
    yield from (option for parameter in command.params for option in parameter.opts if option.startswith("--"))
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield name
            yield from words(below)


def test_every_command_and_option_is_documented() -> None:
    text = documents()
    missing = {word for word in words(cli.cli) if word not in text}
    assert missing == {"--seed"}  # said by --help alone


@pytest.mark.parametrize("source", [api, profiles])
def test_every_setting_of_an_api_is_documented(source: Callable[..., object]) -> None:
    text = documents()
    assert [
        name for name in signature(source).parameters if f"`{name}`" not in text and f"\n{name} = " not in text
    ] == []


@pytest.mark.parametrize(
    "page", [README, *sorted((ROOT / "pipelines" / "docs").glob("*.md"))], ids=lambda page: page.stem
)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


QUESTIONS = re.search(r"## Five questions\n\n```sql\n(.*?)```", README.read_text(), re.DOTALL)


def test_questions_have_answers(isolated: None) -> None:  # noqa: ARG001
    assert QUESTIONS is not None
    sample.write("archive", events=4000)
    pipeline = dlt.pipeline("readme", destination=dlt.destinations.duckdb("readme.duckdb"), dataset_name="autopilothq")
    pipeline.run(archive("archive"))
    with duckdb.connect("readme.duckdb") as con:
        for question in QUESTIONS.group(1).split("\n\n"):
            rows = con.execute(question).fetchall()
            assert rows, question
            assert all(value is not None for value in rows[0]), question


if __name__ == "__main__":
    before, rest = README.read_text().split(BEGIN)
    README.write_text(before + BEGIN + tables() + END + rest.split(END)[1])
    sys.exit()
