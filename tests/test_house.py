"""Enforces the layout of the package: which layer may call which, names, sizes, words, and uses of dlt's internals.

Each rule has a table of exceptions with their reasons. The tables are exact: an exception that is no longer needed
fails its test too. `python tests/test_house.py` prints the exceptions that the code needs at present.
"""

import ast
import inspect
import re
import sys
from collections.abc import Collection, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from autopilothq.warehouses.dlt_internals import clients
from mutate import TARGETS

PIPELINES = Path(__file__).parents[1] / "pipelines"
PACKAGE = PIPELINES / "autopilothq"
CONTRACT = PIPELINES / "docs" / "contract"
INTERNALS = PACKAGE / "warehouses" / "dlt_internals"
OTHERS = [
    path
    for path in sorted(PIPELINES.rglob("*.py"))
    if not path.is_relative_to(INTERNALS) and "recipes" not in path.parts
]


def check_exceptions(table: str, found: Collection[str], explained: Collection[str]) -> None:
    """Fails, with the lines to change, if a table does not list exactly the exceptions that the code needs."""
    lines = [f"not explained: {name}" for name in sorted(set(found) - set(explained))]
    lines += [f"remove from {table}, as it is no longer needed: {name}" for name in sorted(set(explained) - set(found))]
    assert not lines, "\n" + "\n".join(lines)


# ---- modules -------------------------------------------------------------------------------------------------------


class Module(NamedTuple):
    """A module of the package; `file` is its path in the package, `name` its dotted name without `autopilothq`."""

    file: str
    name: str
    text: str
    tree: ast.Module

    @property
    def layer(self) -> str:
        """The module's layer: a folder, a module beside the folders, or a folder of `sources`; `""` is the package."""
        return layer_of(self.name)


@cache
def tree_of(path: Path) -> ast.Module:
    """Returns a file's syntax tree; each file is parsed once for all rules."""
    return ast.parse(path.read_text())


@cache
def nodes(tree: ast.AST) -> list[ast.AST]:
    """Returns all nodes of a tree, which is walked once for all rules."""
    return list(ast.walk(tree))


@cache
def modules() -> list[Module]:
    """Returns the modules of the package, parsed."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        file, text = str(path.relative_to(PACKAGE)), path.read_text()
        name = file.removesuffix(".py").replace("/", ".").removesuffix("__init__").removesuffix(".")
        found.append(Module(file, name, text, tree_of(path)))
    return found


def layer_of(module: str) -> str:
    """Example: `layer_of("sources.api.scan") == "sources.api"`, `layer_of("sources.load") == "sources"`."""
    parts = module.split(".")
    return ".".join(parts[:2]) if len(parts) > 1 and ".".join(parts[:2]) in origins() else parts[0]


@cache
def origins() -> set[str]:
    """Returns the folders of `sources`."""
    return {f"sources.{path.name}" for path in (PACKAGE / "sources").iterdir() if (path / "__init__.py").exists()}


@cache
def imports(module: Module) -> list[tuple[bool, str]]:
    """Returns each import, also one inside of a function: whether it is of the package, and the dotted module."""
    return list(_imports(module))


def _imports(module: Module) -> Iterator[tuple[bool, str]]:
    inside = module.file.endswith("__init__.py")
    names = {other.name for other in modules()}
    for node in nodes(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                own, _, rest = alias.name.partition(".")
                yield (True, rest) if own == "autopilothq" else (False, alias.name)
        elif isinstance(node, ast.ImportFrom):
            parts = [part for part in module.name.split(".") if part]
            above = parts[: len(parts) - node.level + inside] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            if node.level or base.split(".")[0] == "autopilothq":
                base = base if node.level else base.partition(".")[2]
                for alias in node.names:
                    full = f"{base}.{alias.name}".removeprefix(".")
                    yield True, full if full in names else base
            else:
                yield False, base


# ---- who may call whom ---------------------------------------------------------------------------------------------

FOUNDATIONS = {"catalog", "disk", "display", "errors", "extras", "machine", "masking", "private", "utc"}
CLIENTS = FOUNDATIONS | {"segment"}
WAREHOUSES = CLIENTS | {"clients", "projection"}
SOURCES = WAREHOUSES | {"warehouses"}
ENGINE = "sources.engine"  # not an origin, though a folder of `sources`: origins that can share work call it
RUNNER = SOURCES | {"sources", "destination", "explain", "models", *origins()}
COMMANDS = RUNNER | {"runner"}
MAY_CALL = {
    "catalog": set[str](),
    "errors": set[str](),
    "disk": {"private"},
    "display": {"errors"},
    "extras": {"errors"},
    "machine": set[str](),
    "masking": {"errors"},
    "private": {"errors"},
    "utc": set[str](),
    "on_import": set[str](),
    "sample": {"catalog", "errors", "private", "utc"},
    "segment": {"catalog", "errors", "utc"},
    "models": {"catalog", "errors", "utc"},  # only SQL as text; callers read the tables' names and columns first
    "projection": {"catalog", "errors", "machine", "segment", "utc"},
    "clients": CLIENTS,
    "warehouses": WAREHOUSES,
    "sources": SOURCES,
    **{origin: SOURCES | {"sources"} for origin in origins()},
    "sources.archive": SOURCES | {"sources", ENGINE},
    "destination": SOURCES,
    "receive": CLIENTS,
    "telemetry": {"warehouses"},
    "explain": SOURCES,
    "runner": RUNNER,
    "inspect": COMMANDS | {"receive"},  # `status` also shows a receiver's folder
    "privacy": COMMANDS | {"receive"},  # a receiver's files may mention persons before a load
    "upgrade": COMMANDS | {"inspect"},
    "compaction": COMMANDS | {"receive"},
    # For the page: `models` defines its numbers; `inspect` opens the dataset and knows the last run.
    "report": COMMANDS | {"inspect"},
    "views": COMMANDS | {"inspect"},
    # The reverse of a load, so it knows the rules of messages and what is stored, but no source.
    "export": WAREHOUSES | {"warehouses"},
    "__main__": {"cli"},
    "cli": COMMANDS | {"compaction", "export", "inspect", "privacy", "receive", "report", "upgrade", "sample", "views"},
    "": COMMANDS | {"on_import", "telemetry"},
}
"""What each layer may import of the package: only layers below it. Origins never import each other."""

UPWARD_CALLS: dict[str, str] = {}


def upward_calls() -> set[str]:
    return {
        f"{module.name} -> {layer_of(imported)}"
        for module in modules()
        for own, imported in imports(module)
        if own and layer_of(imported) not in MAY_CALL[module.layer] | {module.layer}
    }


def test_layers_call_only_layers_below_them() -> None:
    assert {module.layer for module in modules()} == MAY_CALL.keys(), "A layer is in no line of MAY_CALL, or gone."
    check_exceptions("UPWARD_CALLS", upward_calls(), UPWARD_CALLS)


ONLY_IN = {
    "click": {"cli"},
    "rich": {"cli"},
    "httpx": {"clients"},
    "aiohttp": set[str](),
    "botocore": set[str](),
    "boto3": set[str](),
    "http": {"clients"},
    "requests": set[str](),
    "s3fs": set[str](),
    "urllib.request": {"clients"},
    "urllib3": set[str](),
    "fsspec": {"receive", "sources.archive"},
    "isal": {"receive", "sources.archive"},
    "zstandard": {"clients", "sources.adopt", "sources.archive"},  # bodies of responses; files
}
"""Which layers may import a library: only clients speak HTTP, only the archive's origin opens archive files."""

PURE = ("catalog", "segment", "projection")
IMPURE_LIBRARIES = {"dlt", "socket", "subprocess", "asyncio", *ONLY_IN}
ARCHIVE_FILES = {"batches", "blocks", "decompress", "discover", "listing", "remove_lines"}
OPENS_ARCHIVES = {
    "cli.progress": "explains why files were left out",
    "cli.sending": "sends the messages of an archive",
    "privacy.archive_lines": "removes the lines of a deleted person",
    "privacy.deletion": "lists the archives that hold a deleted person",
    "privacy.received": "lists the files of receivers with those of archives",
}


def is_part_of(module: str, library: str) -> bool:
    return module == library or module.startswith(f"{library}.")


def test_each_library_is_used_in_its_layer_alone() -> None:
    assert [
        f"{module.name} -> {imported}"
        for module in modules()
        for own, imported in imports(module)
        for library, layers in ONLY_IN.items()
        if not own and is_part_of(imported, library) and module.layer not in layers
    ] == []


ENCODING_POSITIONS = {"read_text": 0, "write_text": 1}
"""Where methods of a path take the encoding, if it is not named."""


def test_files_of_text_have_a_given_encoding() -> None:
    """The locale's encoding, which cron sets to ASCII on some machines, cannot read the state that dlt stores."""
    assert [
        f"{module.file}:{call.lineno}"
        for module in modules()
        for call in ast.walk(module.tree)
        if isinstance(call, ast.Call)
        if isinstance(call.func, ast.Attribute) and call.func.attr in ENCODING_POSITIONS
        if len(call.args) <= ENCODING_POSITIONS[call.func.attr]
        if "encoding" not in {keyword.arg for keyword in call.keywords}
    ] == []


def test_the_segment_rules_and_the_projection_know_no_files_and_no_network() -> None:
    assert [
        f"{module.name} -> {imported}"
        for module in modules()
        for own, imported in imports(module)
        if module.layer in PURE and not own and any(is_part_of(imported, library) for library in IMPURE_LIBRARIES)
    ] == []


def test_archive_files_are_opened_by_their_origin() -> None:
    assert all((PACKAGE / "sources/archive" / f"{name}.py").exists() for name in ARCHIVE_FILES)
    files = {f"sources.archive.{name}" for name in ARCHIVE_FILES}
    found = {
        module.name
        for module in modules()
        for own, imported in imports(module)
        if own and imported in files and module.layer != "sources.archive"
    }
    check_exceptions("OPENS_ARCHIVES", found, OPENS_ARCHIVES)


# ---- names ---------------------------------------------------------------------------------------------------------

REPEATED_NAMES: dict[str, str] = {}


def public_names(module: Module) -> Iterator[str]:
    """Returns the public names that a module defines at its top level."""
    for node in module.tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        else:
            names = []
        yield from (name for name in names if not name.startswith("_"))


def repeated_names() -> set[str]:
    files: dict[str, set[str]] = {}
    for module in modules():
        for name in public_names(module):
            files.setdefault(name, set()).add(module.file)
    return {name for name, where in files.items() if len(where) > 1}


def test_a_public_name_is_defined_once() -> None:
    check_exceptions("REPEATED_NAMES", repeated_names(), REPEATED_NAMES)


# ---- sizes ---------------------------------------------------------------------------------------------------------

MAX_FUNCTION, MAX_CLASS, MAX_FILE = 40, 150, 400  # lines
TOO_LARGE = {
    "catalog.py": "data: a new property, event or table is a line of this one file",
    "sources/archive/source.py:archive": "a line and an explanation for each of 14 settings",
    "sources/ortto/source.py:ortto": "a line and an explanation for each of 21 settings",
    "sources/profiles/source.py:profiles": "a line and an explanation for each of 19 settings",
}


def definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST, int]]:
    """Yields each function and class with its qualified name and its number of lines, decorators not counted."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield f"{prefix}{child.name}", child, (child.end_lineno or child.lineno) - child.lineno + 1
            yield from definitions(child, f"{prefix}{child.name}.")
        else:
            yield from definitions(child, prefix)


def too_large() -> set[str]:
    found = set()
    for module in modules():
        if module.text.count("\n") > MAX_FILE:
            found.add(module.file)
        for name, node, lines in definitions(module.tree):
            if lines > (MAX_CLASS if isinstance(node, ast.ClassDef) else MAX_FUNCTION):
                found.add(f"{module.file}:{name}")
    return found


def test_functions_classes_and_files_stay_small() -> None:
    check_exceptions("TOO_LARGE", too_large(), TOO_LARGE)


# ---- references to the contract ------------------------------------------------------------------------------------

REFERENCE = re.compile(r"docs/contract/([\w.-]+?\.md)(?:#([\w-]+))?(?![\w-])")
OLD_REFERENCE = re.compile(r"\(spec: |\bspec/[\w-]+\.md")


def headings(page: str) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub makes them."""
    lines = re.findall(r"^#+ +(.+?) *$", (CONTRACT / page).read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}


def references() -> Iterator[tuple[str, str, str]]:
    """Yields file, page and anchor of each reference to the contract in the code and its SQL."""
    for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.sql")]):
        for page, anchor in REFERENCE.findall(path.read_text()):
            yield str(path.relative_to(PACKAGE)), page, anchor


def test_mutation_runs_change_modules_that_are_there() -> None:
    missing = [
        (file, test)
        for target in TARGETS.values()
        for home, patterns in ((PACKAGE, target.modules), (PIPELINES.parent, target.tests))
        for file, _, test in (pattern.partition("::") for pattern in patterns)
        if not any(test in path.read_text() for path in home.glob(file))
    ]
    assert missing == []


def test_references_to_the_contract_lead_somewhere() -> None:
    pages = {path.name: headings(path.name) for path in CONTRACT.glob("*.md")}

    assert [
        f"{file}: {page}{'#' * bool(anchor)}{anchor}"
        for file, page, anchor in references()
        if page not in pages or (anchor and anchor not in pages[page])
    ] == []


def test_the_code_refers_to_pages_of_this_repository() -> None:
    assert [module.file for module in modules() if OLD_REFERENCE.search(module.text)] == []


# ---- vocabulary ----------------------------------------------------------------------------------------------------

BANNED_WORDS = {
    "able": "capabilities",
    "aside": "buffered, temporary",
    "beside": "alongside, snapshot tables",
    "claim": "lease",
    "clock": "timestamp",
    "fate": "delivery status",
    "forgotten": "deleted, suppressed",
    "frame": "projection query",
    "gone": "missing, deleted",
    "odd": "irregular",
    "place": "target, position, folder, path",
    "said": "message, text",
    "settle": "deduplicate",
    "strike": "failure",
    "tell": "report, warn, log",
    "thing": "record",
    "told": "report, warn, log",
    "wanted": "requested",
    "watch": "progress",
    "watermark": "cursor",
}
"""Words that names must not hold, also in their forms (`settled`, `odds`), with the field's words for them."""

ALLOWED_NAMES = {
    "inspect/status.py:place": "a key of `status --json`",
    "sources/archive/decompress.py:_zstd_frames": "zstd's frames",
    "sources/archive/decompress.py:frame": "a zstd frame",
    "warehouses/dlt_internals/resources.py:FrameType": "a frame of Python's stack",
    "warehouses/dlt_internals/resources.py:frame": "a frame of Python's stack",
}


def identifiers(tree: ast.AST) -> set[str]:
    """Returns every name that a module defines, reads or passes."""
    found: set[str] = set()
    for node in nodes(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name) | ast.Attribute(attr=name):
                found.add(name)
            case ast.arg(arg=name) | ast.alias(asname=str(name)):
                found.add(name)
            case ast.keyword(arg=str(name)):
                found.add(name)
    return found


@cache
def banned_forms() -> dict[str, str]:
    """Returns each form of a banned word, with the word."""
    forms = {form: word for word in BANNED_WORDS for form in (word, f"{word}s", f"{word.removesuffix('e')}ed")}
    return forms | {f"{word.removesuffix('e')}ing": word for word in BANNED_WORDS}


@cache
def banned_word(name: str) -> str | None:
    """Returns the banned word in a name. Example: `banned_word("_read_odd_lines") == "odd"`."""
    forms = banned_forms()
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
    return next((forms[part.lower()] for part in parts if part.lower() in forms), None)


def banned_names() -> set[str]:
    """Returns the identifiers that contain a banned word, with their files."""
    return {f"{module.file}:{name}" for module in modules() for name in identifiers(module.tree) if banned_word(name)}


def test_names_use_the_words_of_the_field() -> None:
    found = banned_names()
    instead = {name: BANNED_WORDS[banned_word(name.split(":")[1]) or ""] for name in found - ALLOWED_NAMES.keys()}

    assert instead == {}, "These names hold words that this project does not use; the values are the field's words."
    check_exceptions("ALLOWED_NAMES", found, ALLOWED_NAMES)


# ---- dlt's internals -----------------------------------------------------------------------------------------------

# The names by module that dlt's guides import or mention, or None for all. The generated API reference does not count:
# it has every module, and promises nothing.
DOCUMENTED: dict[str, set[str] | None] = {
    "dlt": None,
    "dlt.destinations": None,
    "dlt.sources": None,
    "dlt.common.configuration": {"configspec"},
    "dlt.common.configuration.exceptions": {"ConfigFieldMissingException"},
    "dlt.common.destination.typing": {"PreparedTableSchema"},
    "dlt.common.exceptions": {"MissingDependencyException"},
    "dlt.common.pipeline": {"LoadInfo", "get_dlt_pipelines_dir"},
    "dlt.common.schema": {"TColumnSchema", "TTableSchema"},
    "dlt.common.schema.typing": {"TColumnSchema", "TTableSchema"},
    "dlt.pipeline.exceptions": {"PipelineStepFailed"},
    "dlt.pipeline.trace": {"PipelineTrace"},
}
NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}


def undocumented(tree: ast.AST) -> Iterator[str]:
    """Returns the names that a module imports from dlt although dlt's guides do not show them."""
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("dlt."))
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "dlt":
            shown = DOCUMENTED.get(node.module or "", set())
            if shown is not None:
                yield from (f"{node.module}.{name.name}" for name in node.names if name.name not in shown)


def private_names(tree: ast.AST) -> set[str]:
    """Returns the attributes with a leading underscore that a module reads from objects other than its own."""
    own = {node.name for node in nodes(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.attr for node in nodes(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    read = {
        node.attr
        for node in nodes(tree)
        if isinstance(node, ast.Attribute)
        and re.match("_[a-z]", node.attr)
        and not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"})
    }
    return read - own - NAMED_TUPLES


def test_what_dlt_does_not_document_is_touched_by_one_module_alone() -> None:
    trees = {str(path.relative_to(PIPELINES)): tree_of(path) for path in OTHERS}

    assert {path: found for path, tree in trees.items() if (found := list(undocumented(tree)))} == {}
    # fsspec's documentation tells file systems to override `_strip_protocol`.
    assert {path: names for path, tree in trees.items() if (names := private_names(tree) - {"_strip_protocol"})} == {}


def classes() -> Iterator[tuple[type, ast.ClassDef]]:
    """Returns the package's classes that derive from dlt's, with their code."""
    for path in OTHERS:
        if "autopilothq" in path.parts and path.name != "__main__.py":
            name = ".".join(path.relative_to(PIPELINES).with_suffix("").parts).removesuffix(".__init__")
            try:
                module = import_module(name)
            except ModuleNotFoundError:  # its driver is not installed
                continue
            for node in tree_of(path).body:
                if isinstance(node, ast.ClassDef):
                    found = getattr(module, node.name)
                    if any(base.__module__.startswith("dlt.") for base in found.__mro__):
                        yield found, node


@cache
def private_names_of(base: type) -> set[str]:
    """Returns the private names that a class of dlt's defines itself, including attributes set in methods."""
    names = set(vars(base)) | set(re.findall(r"self\.(_\w+)", inspect.getsource(base)))
    return {name for name in names if re.match("_[a-z]", name)}


def names_of_dlt(of: type) -> set[str]:
    """Returns the private names that a class inherits from dlt."""
    return {name for base in of.__mro__ if base.__module__.startswith("dlt.") for name in private_names_of(base)}


def mentioned(tree: ast.AST) -> set[str]:
    """Returns the names of attributes that are read or written and of functions that are defined."""
    names = {node.attr for node in nodes(tree) if isinstance(node, ast.Attribute)}
    return names | {node.name for node in nodes(tree) if isinstance(node, ast.FunctionDef)}


def test_classes_that_derive_from_dlts_neither_read_nor_override_its_private_names() -> None:
    found = {f"{of.__module__}.{of.__name__}": mentioned(code) & names_of_dlt(of) for of, code in classes()}

    assert {
        "autopilothq.warehouses.duckdb.InsertNew",
        "autopilothq.warehouses.delta.LakeClient",
        "autopilothq.runner.Steps",
    } <= found.keys()
    assert {name: names for name, names in found.items() if names} == {}


def test_what_can_be_overridden_by_a_public_name_is() -> None:
    hooks = set(clients._HOOKS.values())

    assert {str(path): found for path in OTHERS if (found := mentioned(tree_of(path)) & hooks)} == {}


def main() -> None:
    """Prints the exceptions that the code needs at present, in the order of the tables."""
    for title, found in (
        ("UPWARD_CALLS", upward_calls()),
        ("REPEATED_NAMES", repeated_names()),
        ("TOO_LARGE", too_large()),
        ("banned names", banned_names() - ALLOWED_NAMES.keys()),
    ):
        sys.stdout.write("\n    ".join([title, *sorted(found)]) + "\n\n")


if __name__ == "__main__":
    main()
