"""What modules may touch: dlt's undocumented parts are for `warehouses/dlt_internals` alone."""

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from autopilothq.warehouses.dlt_internals import clients

PIPELINES = Path(__file__).parents[1] / "pipelines"
MODULES = sorted(PIPELINES.rglob("*.py"))
INTERNALS = PIPELINES / "autopilothq" / "warehouses" / "dlt_internals"
OTHERS = [path for path in MODULES if INTERNALS not in path.parents and "recipes" not in path.parts]

# What dlt's guides import or name, by module; None: all of it. Its generated API reference has every module, and
# promises nothing.
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
    "dlt.destinations.impl.duckdb.configuration": {"DuckDbBaseCredentials", "DuckDbCredentials"},
    "dlt.pipeline.exceptions": {"PipelineStepFailed"},
    "dlt.pipeline.trace": {"PipelineTrace"},
}
NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}


def undocumented(tree: ast.AST) -> Iterator[str]:
    """The names that a module imports from dlt and dlt's guides do not show."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("dlt."))
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "dlt":
            shown = DOCUMENTED.get(node.module or "", set())
            if shown is not None:
                yield from (f"{node.module}.{name.name}" for name in node.names if name.name not in shown)


def private_names(tree: ast.AST) -> set[str]:
    """The attributes with an underscore in front that a module reads of other objects than its own."""
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and re.match("_[a-z]", node.attr)
        and not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"})
    }
    return read - own - NAMED_TUPLES


def test_what_dlt_does_not_document_is_touched_by_one_module_alone() -> None:
    trees = {str(path.relative_to(PIPELINES)): ast.parse(path.read_text()) for path in OTHERS}

    assert {path: found for path, tree in trees.items() if (found := list(undocumented(tree)))} == {}
    # `_strip_protocol` is what fsspec's own documentation has file systems override.
    assert {path: names for path, tree in trees.items() if (names := private_names(tree) - {"_strip_protocol"})} == {}


def classes() -> Iterator[type]:
    """The package's classes that derive from dlt's."""
    for path in OTHERS:
        if "autopilothq" in path.parts and path.name != "__main__.py":
            name = ".".join(path.relative_to(PIPELINES).with_suffix("").parts).removesuffix(".__init__")
            try:
                module = import_module(name)
            except ModuleNotFoundError:  # a driver that is not here
                continue
            for node in ast.parse(path.read_text()).body:
                found = getattr(module, node.name) if isinstance(node, ast.ClassDef) else object
                if any(base.__module__.startswith("dlt.") for base in found.__mro__):
                    yield found


def names_of_dlt(of: type) -> set[str]:
    """The private names that a class has from dlt, attributes that are set as it goes too."""
    names: set[str] = set()
    for base in of.__mro__:
        if base.__module__.startswith("dlt."):
            names |= set(vars(base)) | set(re.findall(r"self\.(_\w+)", inspect.getsource(base)))
    return {name for name in names if re.match("_[a-z]", name)}


def private_of_dlt(of: type) -> set[str]:
    """The private names of dlt's that a class reads or overrides."""
    return mentioned(ast.parse(inspect.getsource(of))) & names_of_dlt(of)


def mentioned(tree: ast.AST) -> set[str]:
    """The names of attributes that are read or written, and of functions that are defined."""
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return names | {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_classes_that_derive_from_dlts_neither_read_nor_override_its_private_names() -> None:
    found = {f"{of.__module__}.{of.__name__}": private_of_dlt(of) for of in classes()}

    assert {
        "autopilothq.warehouses.duckdb.InsertNew",
        "autopilothq.warehouses.delta.LakeClient",
        "autopilothq.runner.Steps",
    } <= found.keys()
    assert {name: names for name, names in found.items() if names} == {}


def test_what_can_be_overridden_by_a_public_name_is() -> None:
    hooks = set(clients._HOOKS.values())

    assert {str(path): found for path in OTHERS if (found := mentioned(ast.parse(path.read_text())) & hooks)} == {}
