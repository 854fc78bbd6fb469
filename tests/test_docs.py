"""Each page of the documents is linked, each link leads somewhere, and what they say is true."""

import ast
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable
from contextlib import closing
from inspect import signature
from pathlib import Path

import click
import duckdb
import pytest

import autopilothq
import generate_docs
from autopilothq import api, archive, autopilot, catalog, cli, profiles
from calling import Call

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "pipelines" / "docs"
README = ROOT / "README.md"
POINTER = ROOT / "CONTRIBUTING.md"  # GitHub finds it by its name, so no page links to it
PAGES = [README, ROOT / "CHANGELOG.md", POINTER, *sorted(DOCS.rglob("*.md"))]
# Only handwritten pages count as documentation of what the code does.
WRITTEN = [page for page in PAGES if page not in generate_docs.GENERATED]
CODE = [path for folder in ("pipelines", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
# Parameters for Python only, which dlt's configuration cannot hold.
ARGUMENTS = {"progress", "log", "items", "table"}
DIAGRAMS = {"flowchart", "sequenceDiagram", "stateDiagram-v2", "classDiagram", "erDiagram", "graph"}


def text_of(page: Path) -> str:
    """Returns the page without its blocks of code."""
    return re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text())


def code_of(page: Path) -> str:
    """Returns the code in a page: its blocks, and the text between backticks in its lines."""
    return "\n".join(re.findall(r"(?ms)^```.*?^```$|`[^`\n]+`", page.read_text()))


def anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub names them."""
    text = text_of(page)
    headings = [re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", line) for line in re.findall(r"(?m)^#+ (.+)$", text)]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    """Returns the links of a page within the repository."""
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)) if "://" not in link]


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


# Pages and links ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_and_anchors_lead_somewhere(page: Path) -> None:
    dead = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def test_every_page_is_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [README]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        targets = [(page.parent / link.partition("#")[0]).resolve() for link in links(page)]
        waiting += [path for path in targets if path.suffix == ".md" and path.exists() and path not in reached]
    assert sorted(map(page_id, {*PAGES} - reached - {POINTER})) == []


def test_the_index_names_every_page() -> None:
    index = DOCS / "index.md"
    named = {(DOCS / link.partition("#")[0]).resolve() for link in links(index)}
    assert sorted(map(page_id, {*PAGES} - named - {README, POINTER, index})) == []


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 120


def test_files_that_the_pages_name_are_there() -> None:
    named = {
        (page_id(page), path)
        for page in PAGES
        for path in re.findall(r"`((?:pipelines|tests)/[\w./-]+)`", page.read_text())
    }
    assert sorted((page, path) for page, path in named if not (ROOT / path).exists()) == []


def test_targets_of_make_are_explained() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?m)^([a-z][\w-]*):", makefile))
    named = {name for page in PAGES for name in re.findall(r"\bmake ([a-z][\w-]*)", code_of(page))}
    assert named - targets == set()
    assert targets - named == {"help", "clean"}  # these need no explanation


def test_tests_refer_to_sections_of_the_contract_that_are_there() -> None:
    references = [
        (page_id(path), *reference)
        for path in CODE
        for reference in re.findall(r"docs/contract/([\w-]+\.md)(?:#([\w-]+))?", path.read_text())
        if path.is_relative_to(ROOT / "tests") and path != Path(__file__)
    ]
    missing = [
        (path, page, anchor)
        for path, page, anchor in references
        if not (DOCS / "contract" / page).exists() or (anchor and anchor not in anchors(DOCS / "contract" / page))
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_blocks_are_closed_and_diagrams_of_a_known_kind(page: Path) -> None:
    text = page.read_text()
    assert len(re.findall(r"(?m)^ *```", text)) % 2 == 0
    for diagram in re.findall(r"(?ms)^```mermaid\n(.*?)^```$", text):
        kind, *lines = [line.strip() for line in diagram.splitlines() if line.strip()]
        assert kind.split()[0] in DIAGRAMS
        assert lines
        for opening, closing_ in ("[]", "()", "{}"):
            assert diagram.count(opening) == diagram.count(closing_), diagram
        assert sum(line.count('"') for line in lines) % 2 == 0


@pytest.mark.parametrize("page", WRITTEN, ids=page_id)
def test_lines_of_prose_have_at_most_120_signs(page: Path) -> None:
    """Rows of tables and terms of the glossary may be longer, because each must be one line."""
    assert [
        line for line in text_of(page).splitlines() if len(line) > 120 and not line.lstrip().startswith(("|", "- **"))
    ] == []


# What is documented -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", generate_docs.GENERATED, ids=page_id)
def test_generated_pages_are_what_the_code_says(page: Path) -> None:
    assert generate_docs.is_current(page), "make docs"


def written() -> str:
    return "\n".join(page.read_text() for page in WRITTEN)


def test_the_usage_and_every_option_of_every_command_are_on_the_page_of_commands() -> None:
    text = (DOCS / "reference" / "commands.md").read_text()

    def check(command: click.Command, path: str) -> None:
        for below, found in command.commands.items() if isinstance(command, click.Group) else ():
            check(found, f"{path} {below}".strip())
        if not isinstance(command, click.Group):
            section = text.split(f"\n## {path}\n")[1].split("\n## ")[0]
            _, *usage = command.get_usage(click.Context(command, info_name=f"autopilothq {path}")).split()
            assert f"`{' '.join(word for word in usage if word != '[OPTIONS]')}`" in section
            options = [name for option in command.params for name in option.opts if name.startswith("--")]
            assert [name for name in options if f"`{name}" not in section] == [], path
            several = [option for option in command.params if isinstance(option, click.Option) and option.multiple]
            assert [one.name for one in several if "repeatable" not in f"{one.help} {command.help}"] == [], path

    check(cli.cli, "")


@pytest.mark.parametrize(
    ("settings", "section"),
    [
        (archive, "[sources.autopilothq]"),
        (api, "[sources.autopilothq.api]"),
        (profiles, "[sources.autopilothq.profiles]"),
        (autopilot, "[destination.autopilothq]"),
    ],
)
def test_every_parameter_is_on_the_page_of_settings(settings: Callable[..., object], section: str) -> None:
    page = (DOCS / "reference" / "settings.md").read_text()
    text = page.split(f"## `{section}`")[1].split("\n## ")[0]
    shared = {"api_key"} if settings is api else set()  # in the section that both APIs read
    missing = {name for name in signature(settings).parameters if f"`{name}`" not in text}
    assert missing - ARGUMENTS == shared


def test_every_setting_that_the_code_names_is_on_the_page_of_settings() -> None:
    page = (DOCS / "reference" / "settings.md").read_text()
    names = set()
    section = r"(?:sources|destination|runtime|load)"
    for path in (ROOT / "pipelines" / "autopilothq").rglob("*.py"):
        text = path.read_text()
        if not re.search(rf"[\"'}}]{section}\.", text):
            continue  # skips early, because to parse all files takes half a second
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found = re.fullmatch(rf"{section}(?:\.\w+)*\.(\w+)", node.value)
                names |= {found[1]} if found else set()
    assert {name for name in names if not re.search(rf"\b{name}\b", page)} == set()


def test_every_table_column_and_reason_is_on_the_page_of_tables() -> None:
    text = (DOCS / "reference" / "tables.md").read_text()
    tables = {*catalog.TABLES.values(), catalog.DELIVERIES}
    assert sorted(table.name for table in tables if f"| `{table.name}` |" not in text) == []
    columns = {column.name for table in tables for column in table.columns}
    assert sorted(name for name in columns if f"| `{name}` |" not in text) == []
    reasons = {*catalog.REJECT_REASONS, *catalog.DISCARD_REASONS, *catalog.STATUSES}
    assert sorted(reason for reason in reasons if f"| `{reason}` |" not in text) == []


def test_the_tables_are_described_by_hand_too() -> None:
    text = written()
    hidden = {catalog.LOCKS, f"{catalog.LOCKS}_send", catalog.DELIVERIES.name}
    assert sorted(name for name in {*catalog.TABLES, *hidden} if f"`{name}`" not in text) == []


def test_every_exported_name_is_on_the_page_of_python() -> None:
    text = (DOCS / "python.md").read_text()
    assert [name for name in autopilothq.__all__ if not re.search(rf"(?m)^##+ {name}$", text)] == []


def test_every_exit_status_is_on_its_page() -> None:
    page = (DOCS / "reference" / "exit-statuses.md").read_text()
    documented = set(map(int, re.findall(r"(?m)^\| (\d+) \|", page)))
    raised = {kind.status for kind in vars(autopilothq.errors).values() if hasattr(kind, "status")}
    left = set()
    for path in (ROOT / "pipelines" / "autopilothq" / "cli").glob("*.py"):
        left |= set(map(int, re.findall(r"(?:sys\.)?exit\((\d+)", path.read_text())))
    assert raised | left <= documented


# Examples -----------------------------------------------------------------------------------------------------------


def blocks(kind: str) -> list[tuple[str, str]]:
    """Returns the code blocks of one language in all pages, each with the name of its page."""
    found = re.compile(rf"(?ms)^```{kind}\n(.*?)^```$")
    return [(page_id(page), block) for page in PAGES for block in found.findall(page.read_text())]


def unknown_words(line: str) -> list[str]:
    """Returns the commands and options in a call that the program does not have."""
    words = iter(shlex.split(line, comments=True)[1:])
    command: click.Command = cli.cli
    for word in words:
        default = command.commands.get("show") if isinstance(command, click.Group) else None
        params = [*command.params, *(default.params if default else [])]
        options = {name: option for option in params for name in option.opts}
        if word.startswith("-"):
            if word not in {*options, "-h", "--help"}:
                return [word]
            if word in options and not getattr(options[word], "is_flag", False):
                next(words)
        elif isinstance(command, click.Group):
            found = command.commands.get(word, default)
            if found is None:
                return [word]
            command = found
    return []


def test_calls_of_the_program_are_ones_that_it_takes() -> None:
    calls = [
        (page, line)
        for page, block in blocks("sh")
        for line in block.splitlines()
        if line.startswith("autopilothq ") and "…" not in line
    ]
    assert len(calls) > 20
    assert [(page, line, words) for page, line in calls if (words := unknown_words(line))] == []


def test_examples_in_python_import_what_is_there() -> None:
    examples = blocks("python")
    assert examples
    for page, block in examples:
        for node in ast.walk(ast.parse(block, page)):
            if isinstance(node, ast.ImportFrom) and node.module == "autopilothq":
                assert [name.name for name in node.names if name.name not in autopilothq.__all__] == [], page


def test_settings_and_json_in_the_pages_can_be_read() -> None:
    assert all(tomllib.loads(block) for _, block in blocks("toml"))
    assert all(json.loads(block) for _, block in blocks("json"))


# The glossary -------------------------------------------------------------------------------------------------------

TERMS = re.findall(r"(?m)^- \*\*(.+?)\*\*: (.+)$", (DOCS / "glossary.md").read_text())


def test_terms_of_the_glossary_are_in_their_order() -> None:
    names = [name.casefold() for name, _ in TERMS]
    assert names == sorted(set(names))
    assert len(names) == len(re.findall(r"(?m)^- ", (DOCS / "glossary.md").read_text()))


def test_terms_of_the_glossary_are_used() -> None:
    pages = [page.read_text() for page in PAGES if page.name != "glossary.md"]
    text = re.sub(r"\s+", " ", "\n".join([*pages, *(path.read_text() for path in CODE)])).casefold()
    unused = []
    for name, _ in TERMS:
        stem = re.escape(name.casefold().removesuffix("y").removesuffix("s"))
        if not re.search(rf"\b{stem}", text):
            unused.append(name)
    assert unused == []


# The tutorial -------------------------------------------------------------------------------------------------------


def rows_of(table: str) -> list[list[str]]:
    """Returns the cells of a Markdown table without its head."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()[2:]]


def test_the_tutorial_works_as_written(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    text = (DOCS / "tutorial.md").read_text().split("## Make an archive")[1]
    blocks = re.findall(r"(?ms)^```(\w+)\n(.*?)^```$(?:\n\n((?:^\|[^\n]*\n)+))?", text)
    assert {kind for kind, _, _ in blocks} == {"sh", "text", "python", "sql"}
    said = ""
    for kind, block, table in blocks:
        if kind == "sh":
            said = "".join(run(line, call) for line in block.splitlines())
        elif kind == "text":
            assert [line for line in block.splitlines() if line not in said.splitlines()] == []
        elif kind == "python":
            exec(compile(block, "tutorial.md", "exec"), {})  # noqa: S102 - the page's own
            assert "4939" in capsys.readouterr().out
        else:
            with closing(duckdb.connect("autopilot.duckdb", read_only=True)) as con:
                found = [[str(cell) for cell in row] for row in con.execute(block).fetchall()]
            assert rows_of(table) == found


def run(line: str, call: Call) -> str:
    """Runs a line of the tutorial, with the program in this process; returns the output."""
    if not line.startswith("autopilothq "):
        subprocess.run(["/bin/sh", "-ec", line], check=True)
        return ""
    said = call(*shlex.split(line)[1:])
    assert said.status == 0, said.err
    return said.out
