"""Writes the parts of the documentation that follow from the code: `make docs`. A test fails if a page differs.

| page | made from |
|---|---|
| `reference/tables.md` | the catalogue |
| `reference/models.md` | the models |
| `reference/commands.md` | the commands of the program |
| `python.md` | the signatures and docstrings of all that `autopilothq` exports |

On each page, the part between the marks `begin` and `end` is generated, and the rest is written by hand.
"""

import ast
import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from textwrap import dedent, wrap
from typing import NamedTuple

import click

import autopilothq
import generate_dbt
from autopilothq import catalog, cli, models

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "pipelines" / "docs"
PACKAGE = ROOT / "pipelines" / "autopilothq"

# Tables -------------------------------------------------------------------------------------------------------------


def _columns(columns: tuple[catalog.Column, ...]) -> list[str]:
    head = ["", "| column | type | |", "|---|---|---|"]
    return [*head, *(f"| `{name}` | {of} | {text} |" for name, of, text, _ in columns)]


def _tables(tables: tuple[catalog.Table, ...]) -> list[str]:
    rows = [f"| `{table.name}` | `{'`, `'.join(table.key)}` | {table.description} |" for table in tables]
    return ["", "| table | key | rows |", "|---|---|---|", *rows]


def _attribute(one: catalog.OrttoAttribute) -> str:
    remark = "personal" if one.personal else "decimal" if one.decimal else ""
    return f"| `{one.id}` | {one.name} | `{one.column}` | {one.type} | {remark} |"


def tables() -> str:
    """Returns all tables and columns of the catalogue."""
    messages = tuple(table for _, table, _ in catalog.KINDS)
    latest = tuple(latest.table for latest in catalog.LATEST)
    own = (catalog.PROFILES, *catalog.DELIVERY_LOGS, catalog.FORWARDS, catalog.SUPPRESSIONS)
    lines = ["## Events", *_tables((catalog.TRACKS, *catalog.EVENT_TABLES))]
    lines += ["", "Columns of `tracks` and of every event table:", *_columns(catalog.TRACKS.columns)]
    lines += ["", "The event tables add these; the last two are in `email_clicked` alone:"]
    lines += _columns(catalog.PROPERTIES + catalog.LINK)
    lines += ["", "## Other messages", *_tables((*messages, *latest))]
    lines += ["", "## The account", "", "These come from Autopilot's API.", *_tables(catalog.ACCOUNT)]
    lines += ["", "## Ortto's account", "", "These come from Ortto's API.", *_tables(catalog.ORTTO_ACCOUNT)]
    lines += ["", "## Bookkeeping", *_tables((*catalog.BOOKS, *own))]
    for table in (*messages, *latest, *catalog.ACCOUNT, *catalog.ORTTO_ACCOUNT, *catalog.BOOKS, *own):
        common = set(catalog.COMMON) if table in messages else set()
        columns = tuple(column for column in table.columns if column not in common)
        if columns:
            also = ", besides the common ones" if common else ""
            lines += ["", f"### {table.name}", "", f"Its columns{also}:", *_columns(columns)]
    lines += ["", "## Ortto", "", "Ortto's activities, and the events that they are here:"]
    lines += ["", "| activity | name | event |", "|---|---|---|"]
    lines += [
        f"| `{one.id}` | {one.name} | {one.event or one.name}{f', if it has `{one.needs}`' if one.needs else ''} |"
        for one in catalog.ORTTO_ACTIVITIES.values()
    ]
    lines += ["", "Their attributes; personal ones are stored only if a setting asks for them:"]
    lines += [
        "",
        "| attribute | name | column | type | |",
        "|---|---|---|---|---|",
        *map(_attribute, catalog.ORTTO_ATTRIBUTES.values()),
    ]
    lines += [
        f"| `{one.id}` of `{activity}` | {one.name} | `{one.column}` | {one.type} | |"
        for activity, of in catalog.ORTTO_ATTRIBUTES_OF.items()
        for one in of.values()
    ]
    lines += ["", "## Reasons", "", "Why a line is in `_rejects`:", "", "| reason | |", "|---|---|"]
    lines += [f"| `{reason}` | {text} |" for reason, text in catalog.REJECT_REASONS.items()]
    lines += ["", "Why a value is in `_discards`:", "", "| reason | |", "|---|---|"]
    lines += [f"| `{reason}` | {text} |" for reason, text in catalog.DISCARD_REASONS.items()]
    lines += ["", "The status of a message in `_deliveries`:", "", "| status | |", "|---|---|"]
    lines += [f"| `{status}` | {text} |" for status, text in catalog.STATUSES.items()]
    return _text(lines)


# Commands -----------------------------------------------------------------------------------------------------------

SHARED = 4  # an option that at least so many commands have is described once for all of them


def _commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yields a command and all commands below it, each after its path of names."""
    if path:
        yield path, command
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from _commands(command.commands[name], (*path, name))


def _value(option: click.Option) -> str:
    """Returns an option's value as its help shows it, after a space; "" for a flag."""
    if option.is_flag:
        return ""
    if isinstance(option.type, click.Choice):
        return f" {'|'.join(option.type.choices)}"
    return f" {option.metavar or option.type.name.upper().partition(' ')[0]}"


def _option(option: click.Option) -> str:
    names = ", ".join(f"`{name}{_value(option)}`" for name in option.opts)
    more = " Required." if option.required else f" [default: {option.default}]" if option.show_default else ""
    return f"| {_cell(names)} | {_cell(f'{option.help}{more}')} |"


def _arguments(command: click.Command) -> list[str]:
    """Returns a command's arguments as its usage shows them, such as `[URL]...`."""
    return [word for word in command.collect_usage_pieces(click.Context(command)) if word != "[OPTIONS]"]


def _own(command: click.Command) -> list[click.Option]:
    return [option for option in command.params if isinstance(option, click.Option) and not option.hidden]


def commands() -> str:
    """Returns a section for each command with its options, after a section with the options of several commands."""
    found = [(path, command) for path, command in _commands(cli.cli) if not isinstance(command, click.Group)]
    rows = Counter(_option(option) for _, command in found for option in _own(command))
    shared = [row for row, count in rows.items() if count >= SHARED]
    head = ["", "| option | meaning |", "|---|---|"]
    lines = ["## Options of the program", "", "They stand before the command.", *head, *map(_option, _own(cli.cli))]
    lines += ["", "## Options of several commands", "", "A command's section names those that it has.", *head, *shared]
    for path, command in found:
        lines += ["", f"## {' '.join(path)}", "", f"`autopilothq {' '.join([*path, *_arguments(command)])}`", ""]
        lines += inspect.cleandoc(command.help or "").splitlines()
        own = [row for option in _own(command) if (row := _option(option)) not in shared]
        lines += [*head, *own] if own else []
        also = [f"`{option.opts[0]}`" for option in _own(command) if _option(option) in shared]
        lines += ["", f"Options of several commands: {', '.join(also)}."] if also else []
    return _text(lines)


# Python -------------------------------------------------------------------------------------------------------------

HANDED_OVER = {"items", "table"}  # arguments that dlt, not a user, passes to a destination


class Definition(NamedTuple):
    """Where a name is defined, and its docstring."""

    module: Path
    node: ast.FunctionDef | ast.ClassDef | ast.Assign
    text: str


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yields a module's statements, including those for type checkers, because the package imports lazily."""
    for node in body:
        yield from node.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" else [node]


def definition(name: str, module: Path = PACKAGE / "__init__.py") -> Definition:
    """Returns the definition of an exported function, class or constant, following imports within the package.

    Raises LookupError if there is none.
    """
    body = list(_statements(ast.parse(module.read_text()).body))
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return Definition(module, node, ast.get_docstring(node) or "")
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]:
            return Definition(module, node, _literal(following))
        if isinstance(node, ast.ImportFrom) and node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return definition(alias.name, _module(module, node))
    raise LookupError(f"{name} is not defined in {module}")


def _literal(node: ast.stmt | None) -> str:
    """Returns the text of a string statement, which describes the constant or field before it; "" for any other."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split())
    return ""


def _module(importer: Path, node: ast.ImportFrom) -> Path:
    folder = importer.parents[node.level - 1]
    path = folder.joinpath(*(node.module or "").split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


class Parameter(NamedTuple):
    """A parameter of a function, with its type as it is written, and its default; None if it has none."""

    name: str
    type: str
    default: ast.expr | None


def _parameters(node: ast.FunctionDef) -> Iterator[Parameter]:
    """Yields the parameters of a function or method, without `self`."""
    plain = [*node.args.posonlyargs, *node.args.args]
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(node.args.defaults))
    pairs = [*zip(plain, [*defaults, *node.args.defaults], strict=True)]
    pairs += zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    for argument, default in pairs:
        if argument.arg not in {"self", "cls"}:
            yield Parameter(argument.arg, _type(argument.annotation), default)


def _type(annotation: ast.expr | None) -> str:
    """Returns an annotation as it is written, without the part that only dlt reads."""
    text = ast.unparse(annotation) if annotation else ""
    return re.sub(r"^Annotated\[(.*), NotResolved\(\)\]$", r"\1", text)


def _default(expression: ast.expr | None, module: Path) -> str:
    """Returns a default as text; for a constant its value, because the name tells a reader nothing."""
    if expression is None:
        return ""
    text = ast.unparse(expression)
    factory = re.fullmatch(r"field\(default_factory=(dict|list)\)", text)
    if factory:
        return {"dict": "{}", "list": "[]"}[factory[1]]
    if not re.search(r"[A-Z]{2}", text):
        return text
    found: object = import_module(_dotted(module))
    for name in text.split("."):
        found = getattr(found, name)
    return repr(found)


def _dotted(module: Path) -> str:
    return ".".join(module.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def _sections(docstring: str) -> tuple[list[str], dict[str, str]]:
    """Splits a docstring into its text, and the meanings of names in its section `Args:` or `Attributes:`."""
    text: list[str] = []
    args: dict[str, str] = {}
    within = name = ""
    for line in inspect.cleandoc(docstring).splitlines():
        if line in {"Args:", "Attributes:"}:
            within = line
        elif within and line.startswith("    "):
            started = re.match(r"    (\w+): (.*)", line)
            name = started[1] if started else name
            args[name] = started[2] if started else f"{args[name]} {line.strip()}"
        else:
            within = ""
            text.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(text)).splitlines(), args


def _function(module: Path, node: ast.FunctionDef) -> list[str]:
    text, args = _sections(ast.get_docstring(node) or "")
    rows = [
        f"| `{name}` | {_code(of)} | {_code(_default(default, module))} | {_cell(args.get(name, ''))} |"
        for name, of, default in _parameters(node)
        if name not in HANDED_OVER
    ]
    return [*text, "", "| parameter | type | default | meaning |", "|---|---|---|---|", *rows]


def _fields(module: Path, node: ast.ClassDef, meanings: dict[str, str]) -> list[str]:
    """Returns a table of a class's annotated fields; no lines if it has none."""
    rows = []
    for part, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(part, ast.AnnAssign) and not ast.unparse(part.target).startswith("_"):
            name = ast.unparse(part.target)
            meaning = _cell(meanings.get(name) or _literal(following))
            rows.append(
                f"| `{name}` | {_code(_type(part.annotation))} | {_code(_default(part.value, module))} | {meaning} |"
            )
    return ["", "| field | type | default | meaning |", "|---|---|---|---|", *rows] if rows else []


def _method(node: ast.FunctionDef) -> str:
    """Returns a line about a method or a property."""
    given = ", ".join(f"{name}: {of}" if of else name for name, of, _ in _parameters(node))
    returned = f" -> {_type(node.returns)}" if node.returns else ""
    is_property = any(ast.unparse(decorator) == "property" for decorator in node.decorator_list)
    signature = f"{node.name}: {_type(node.returns)}" if is_property else f"{node.name}({given}){returned}"
    return f"- `{signature}`: {' '.join(inspect.cleandoc(ast.get_docstring(node) or '').split())}"


def _class(module: Path, node: ast.ClassDef) -> list[str]:
    """Describes a class: its text, its fields, its methods."""
    lines, meanings = _sections(ast.get_docstring(node) or "")
    if bases := [ast.unparse(base) for base in node.bases]:
        lines += ["", f"Derives from {', '.join(f'`{base}`' for base in bases)}."]
    lines += _fields(module, node, meanings)
    methods = [part for part in node.body if isinstance(part, ast.FunctionDef) and not part.name.startswith("_")]
    return [*lines, *([""] if methods else []), *map(_method, methods)]


def _describe(found: Definition) -> list[str]:
    module, node, text = found
    if isinstance(node, ast.FunctionDef):
        return _function(module, node)
    return _class(module, node) if isinstance(node, ast.ClassDef) else [text]


def python_api() -> str:
    """Returns a section for each name that the package exports: functions, then classes, then the tree of errors."""
    found = {name: definition(name) for name in autopilothq.__all__}
    errors = {name for name, (module, *_) in found.items() if module.name == "errors.py"}
    functions = [name for name, (_, node, _) in found.items() if isinstance(node, ast.FunctionDef)]
    classes = [name for name in found if name not in {*errors, *functions}]
    lines = []
    for name in (*functions, *classes):
        lines += [f"## {name}", "", *_describe(found[name]), ""]
    text = ast.get_docstring(ast.parse((PACKAGE / "errors.py").read_text())) or ""
    lines += ["## Errors", "", *_fenced(text)]
    for name in sorted(errors):
        lines += ["", f"### {name}", "", *_describe(found[name])]
    return _text(lines)


def _fenced(text: str) -> list[str]:
    """Returns a text with fences around its drawings, the indented lines."""
    drawn = re.sub(r"(?m)(?:^ {4}.*\n)+", lambda found: f"```text\n{dedent(found[0])}```\n", f"{text}\n")
    return drawn.splitlines()


# Pages --------------------------------------------------------------------------------------------------------------


def _cell(text: str) -> str:
    """Returns the text for a cell of a table."""
    return " ".join(text.split()).replace("|", r"\|")


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text else ""


def _text(lines: list[str]) -> str:
    return "\n".join(["", *lines, "", ""])


# Models -------------------------------------------------------------------------------------------------------------


def models_reference() -> str:
    """Returns the models and their columns."""
    lines: list[str] = []
    for model in models.MODELS:
        key = f"Key: `{'`, `'.join(model.key)}`."
        rows = [f"| `{name}` | {text} |" for name, text in model.columns.items()]
        lines += [
            f"## {model.name}",
            "",
            *wrap(f"{model.description} {key}", 120),
            "",
            "| column | |",
            "|---|---|",
            *rows,
            "",
        ]
    return "\n".join(lines[:-1]) + "\n"


GENERATED: dict[Path, Callable[[], str]] = {
    DOCS / "reference" / "tables.md": tables,
    DOCS / "reference" / "commands.md": commands,
    DOCS / "reference" / "models.md": models_reference,
    DOCS / "python.md": python_api,
}
BEGIN, END = "<!-- generated by `make docs`: begin -->\n", "<!-- generated: end -->\n"


def is_current(page: Path) -> bool:
    """Returns whether the generated part of a page is up to date."""
    return page.read_text().partition(BEGIN)[2].partition(END)[0] == GENERATED[page]()


def write(page: Path) -> None:
    """Replaces the generated part of a page."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    page.write_text(before + begin + GENERATED[page]() + end + after)


if __name__ == "__main__":
    for generated in GENERATED:
        write(generated)
    generate_dbt.main()
