"""Decides which lines the engine can read as columns, and composes the query that reads them.

A line's shape is the JSON text that the engine makes of the keys of its objects, so lines with different keys never
have the same shape. Python examines each shape once and finds the columns of its keys; the engine then reads all lines
of regular shapes at once. A shape is regular if each of its columns comes from one key.
"""

import itertools
import json
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..catalog import COMMON_NAMES, CONTEXT, DECLARED_TYPES, KINDS, LINK, PROPERTIES, Column
from ..segment.message import EXTRA, MAX_OBJECTS, TIMESTAMP_FIELDS, prefixed_if_taken
from ..segment.naming import LONGEST_COLUMN, column_name
from . import engine

Path = tuple[str, ...]

MAX_LEAVES = 200  # keys that the fast path reads; lines with others take the slow path
MAX_SHAPES = 1_000  # shapes of one batch that are examined, the most frequent ones first
MAX_KNOWN = 10_000  # shapes that are remembered
MAX_SHAPE = 1 << 14  # characters of a shape that is examined or remembered

_OBJECTS: tuple[Path, ...] = (
    (),
    ("context",),
    ("context", "traits"),
    ("context", "library"),
    ("context", "integration"),
    ("properties",),
    ("traits",),
)
_DECLARED: dict[Path, Column] = {("context", *column.path): column for column in CONTEXT} | {
    ("properties", *column.path): column for column in PROPERTIES + LINK
}
_KIND_COLUMNS: dict[str, tuple[str, tuple[str, ...]]] = {
    column.name: (column.path[0], tuple(kind for kind, of, _ in KINDS if column.name in {c.name for c in of.columns}))
    for _, table, _ in KINDS
    for column in table.columns
    if column.name not in COMMON_NAMES
}
"""The columns that only some types of messages have: the field and these types, by column."""
_VIEW_COLUMNS = ("name", "category")  # of pages and screens
_GROUP = "group_id"
_KIND_NAMES = ("track", *(kind for kind, _, _ in KINDS))
_TEXT_FIELDS = {"type": "type", "id": "messageId", "user_id": "userId", "anonymous_id": "anonymousId"}
_TEXT_FIELDS |= {name: field for name, (field, _) in _KIND_COLUMNS.items()}
# Matches numbers whose digits the engine would change: with an exponent or a trailing zero, very small or long, or -0.
_CHANGING_NUMBER = r"[:\[,]\s*-?([0-9]+\.?[0-9]*[eE]|[0-9]+\.[0-9]*0\s*[,}\]]|0\.0000|[0-9.]{17})|-0\s*[,}\]]"
_SQL = engine.queries("shapes.sql")
_CHANGING = f"regexp_matches(text, {engine.literal(_CHANGING_NUMBER)})"


class ProjectionQuery(NamedTuple):
    """The parts of the query that makes cells of lines (shapes.sql, `cells`).

    `structure` describes the struct that a line is read into. `pointers` are the objects whose keys make a shape.
    `objects` is a condition for lines with anything but an object or null where other lines have an object, which their
    shape does not show. `extras` are the names of the cells that the catalogue does not know.
    """

    select: str
    structure: str
    pointers: str
    objects: str
    extras: list[str]

    def sql(self, readable: str) -> str:
        """Returns the query that makes a row of cells for each of `lines` that has one of the `known_shapes`.

        `readable` is a condition for lines whose shape the engine can read. A row is `irregular` if the engine may have
        misread the line.
        """
        return _SQL["cells"].format(
            readable=readable,
            pointers=self.pointers,
            structure=engine.literal(self.structure),
            select=self.select,
            objects=self.objects,
        )


class RegularShape(NamedTuple):
    """The leaves of the lines of one shape, and the paths without keys that are objects in other lines."""

    leaves: list[Path]
    nulls: list[Path]


class Shapes:
    """The shapes of the lines so far, and the objects whose keys make a shape. Threads may share it."""

    def __init__(self, objects: Collection[Path] = _OBJECTS) -> None:
        self.all_json = True
        """Whether all lines so far that look like JSON were JSON."""
        self._lock = threading.Lock()
        self._objects = tuple(objects)
        self._shapes: dict[str, RegularShape | None] = {}
        self._leaves: dict[Path, str] = {}
        self._spellings: dict[Path, Path] = {}
        self._note_spellings((*_DECLARED, *self._objects))

    def pointers(self) -> list[str]:
        """Returns JSON pointers to the objects whose keys make a shape."""
        return [_pointer(path) for path in self._objects]

    def known(self) -> dict[str, "RegularShape"]:
        """Returns all regular shapes of the lines so far."""
        with self._lock:
            return {text: shape for text, shape in self._shapes.items() if shape is not None}

    def regular(self, found: Mapping[str, int]) -> dict[str, "RegularShape"]:
        """Returns those of some shapes that are regular.

        `found` has the number of lines of each shape. Only the most frequent shapes are examined, so lines with a shape
        each do not displace those of all others.
        """
        short = (shape for shape in found if len(shape) <= MAX_SHAPE)
        ordered = sorted(short, key=lambda shape: (-found[shape], shape))[:MAX_SHAPES]
        with self._lock:
            if len(self._shapes) > MAX_KNOWN:
                self._shapes.clear()
            for shape in ordered:
                if shape not in self._shapes:
                    self._shapes[shape] = self._learn(shape)
            return {text: found_shape for text in ordered if (found_shape := self._shapes[text]) is not None}

    def _learn(self, shape: str) -> "RegularShape | None":
        keys = dict(zip(self._objects, json.loads(shape), strict=True))
        leaves = self._regular_leaves(keys)
        if leaves is None or len(self._leaves.keys() | leaves.keys()) > MAX_LEAVES:
            return None
        self._leaves |= leaves
        self._note_spellings(leaves)
        nulls = [
            (*parent, key) for parent, names in keys.items() for key in names or () if _lacks_keys(keys, parent, key)
        ]
        return RegularShape(list(leaves), nulls)

    def _note_spellings(self, paths: Iterable[Path]) -> None:
        """Notes the case of paths: of those that differ only in case, the engine's structs can have only the first."""
        for path in paths:
            for part in _parts(path):
                self._spellings.setdefault(_lower(part), part)

    def with_objects(self, objects: Collection[Path]) -> "Shapes":
        """Returns new `Shapes` with these objects of irregular lines added; itself if none is new, or too many are."""
        short = (path for path in objects if sum(map(len, path)) <= LONGEST_COLUMN)
        new = sorted(path for path in short if path not in self._objects and not _DECLARED.keys() & _parts(path))
        if not new or len(self._objects) + len(new) > MAX_OBJECTS:
            return self
        return Shapes((*self._objects, *new))

    def _regular_leaves(self, keys: dict[Path, Sequence[str] | None]) -> dict[Path, str] | None:
        """Returns the columns of a shape's keys by path, None if the engine cannot read them as columns.

        It cannot if there are no keys, if a key is too long, if columns have no name or the same name, or if keys
        differ only in case.
        """
        if not keys[()]:
            return None
        leaves: dict[Path, str] = {}
        for parent, names in keys.items():
            if len({key.lower() for key in names or ()}) != len(names or ()):
                return None  # the engine's structs ignore case
            if max(map(len, names or ()), default=0) > LONGEST_COLUMN:
                return None
            for key in names or ():
                path = (*parent, key)
                if parent and path not in keys:
                    leaves[path] = _column(path)
        for scope in ("context", "properties", "traits"):
            columns = [column for path, column in leaves.items() if path[0] == scope]
            if "" in columns or len(set(columns)) != len(columns):
                return None
        if any(self._spellings.get(_lower(part), part) != part for path in leaves for part in _parts(path)):
            return None
        return leaves

    def query(self, shapes: Iterable["RegularShape"]) -> ProjectionQuery:
        """Returns the query for lines of these shapes."""
        shapes = list(shapes)
        leaves = dict.fromkeys(itertools.chain.from_iterable(shape.leaves for shape in shapes))
        nulls = dict.fromkeys(itertools.chain.from_iterable(shape.nulls for shape in shapes))
        leaves |= dict.fromkeys(_DECLARED)  # none of them is an object
        by_scope: dict[str, dict[str, list[Path]]] = {"context": {}, "properties": {}, "traits": {}}
        for path in leaves:
            by_scope[path[0]].setdefault(self._cell(path), []).append(path)
        return _query(
            by_scope, {path: self._type(path) for path in leaves}, self.pointers(), [_pointer(path) for path in nulls]
        )

    def _cell(self, path: Path) -> str:
        column = _column(path)
        declared = any(column == known.name and path[0] == scope for (scope, *_), known in _DECLARED.items())
        return column if declared else EXTRA + column

    def _type(self, path: Path) -> str:
        cell = self._cell(path)
        return "JSON" if cell.startswith(EXTRA) or DECLARED_TYPES[cell] != "text" else "VARCHAR"


def _lacks_keys(keys: Mapping[Path, Sequence[str] | None], parent: Path, key: str) -> bool:
    """Returns whether a key that is an object in other lines has no keys here: it is null, `{}` or no object."""
    return (*parent, key) in keys and not keys[(*parent, key)]


def _pointer(path: Path) -> str:
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)


def _parts(path: Path) -> list[Path]:
    """Returns a path and all its parents. Example: `_parts(("a", "b")) == [("a",), ("a", "b")]`."""
    return [path[: at + 1] for at in range(len(path))]


def _lower(path: Path) -> Path:
    return tuple(part.lower() for part in path)


def _column(path: Path) -> str:
    return column_name(path) if path[0] == "context" else prefixed_if_taken(column_name(path[1:]), COMMON_NAMES)


def _query(
    by_scope: dict[str, dict[str, list[Path]]], types: dict[Path, str], pointers: Sequence[str], nulls: Sequence[str]
) -> ProjectionQuery:
    context = {cell: f"{_first(paths)}::VARCHAR" for cell, paths in by_scope["context"].items()}
    body = _bodies(by_scope["properties"], by_scope["traits"])
    own = {name: f"CASE WHEN {_is(kinds)} THEN {_at((key,))} END" for name, (key, kinds) in _KIND_COLUMNS.items()}
    for name in own.keys() & body.keys():
        own[name] = f"coalesce({own[name]}, {body.pop(name)})"
    extras = [cell for cell in (*context, *body) if cell.startswith(EXTRA)]
    email = _at(("context", "traits", "email"))
    # Only the context's email is used; a line without it, or with one that does not look like an email, is irregular.
    anonymous_id = (
        f"coalesce(known_anonymous_id, CASE WHEN user_id IS NULL"
        f" AND contains({email}, '@') AND NOT starts_with({email}, '[') THEN {email} END)"
    )
    cells = {"kind": "kind", "event": f"CASE WHEN kind = 'track' THEN {_at(('event',))}::VARCHAR END"}
    cells |= {"id": "id", "user_id": "user_id", "anonymous_id": anonymous_id, **own}
    for number, (name, field) in enumerate(TIMESTAMP_FIELDS.items(), 1):
        cells |= {name: f"{_at((field,))}::VARCHAR", f"{name}_read": f"coalesce({name}_usual, unusual[{number}])"}
    cells |= context | body
    select = [f"{expression} AS {engine.name(cell)}" for cell, expression in cells.items()]
    missing = f"id IS NULL OR (user_id IS NULL AND {anonymous_id} IS NULL)"
    # The properties with columns of the catalogue, whatever their keys and whichever objects they are in.
    declared = [
        f"{_at(path)}::VARCHAR"
        for cell, paths in by_scope["properties"].items()
        for path in paths
        if not cell.startswith(EXTRA)
    ]
    misread = " OR ".join(f"coalesce({test}, false)" for test in _irregular_tests(types, declared))
    return ProjectionQuery(
        f"seq, hash(text) AS tie, {', '.join(select)}, has_other OR {missing} OR {misread} AS irregular",
        _structure(types),
        engine.literals(pointers),
        " OR ".join(f"json_type(text, {engine.literal(pointer)}) NOT IN ('NULL', 'OBJECT')" for pointer in nulls)
        or "false",
        extras,
    )


def _bodies(properties: Mapping[str, Sequence[Path]], traits: Mapping[str, Sequence[Path]]) -> dict[str, str]:
    """Returns the cells of properties and traits; the type of a message decides which of them it has."""
    found: dict[str, list[str]] = {}

    def add(cell: str, condition: str, value: str) -> None:
        found.setdefault(cell, []).append(f"CASE WHEN {condition} THEN {value} END")

    for cell, paths in properties.items():
        name, value = cell.removeprefix(EXTRA), f"{_first(paths)}::VARCHAR"
        if name not in _VIEW_COLUMNS:
            add(cell, "has_properties" if cell.startswith(EXTRA) else "kind = 'track'", value)
            continue
        # A page's name can be among its properties instead, or be repeated there.
        of_view = f"has_properties AND kind <> 'track' AND {_at((name,))}"
        add(cell, "kind = 'track'", value)
        add(name, f"{of_view} IS NULL", f"as_text({value})")
        add(f"{EXTRA}_{name}", f"{of_view} <> as_text({value})", value)
    for cell, paths in traits.items():
        name, value = cell.removeprefix(EXTRA), f"{_first(paths)}::VARCHAR"
        if name != _GROUP:
            add(cell, "has_traits", value)
            continue
        add(cell, "kind = 'identify'", value)
        add(f"{EXTRA}_{name}", f"kind = 'group' AND as_text({value}) IS DISTINCT FROM {_at(('groupId',))}", value)
    return {cell: cases[0] if len(cases) == 1 else f"coalesce({', '.join(cases)})" for cell, cases in found.items()}


def _irregular_tests(types: Mapping[Path, str], declared: Sequence[str]) -> list[str]:
    """Returns the SQL conditions for lines that the engine may have misread.

    `declared` is the SQL of a track's properties whose columns are in the catalogue: on a page, their columns may have
    other types. The conditions are evaluated for every line, so there is a cheap one for each value. Costlier ones look
    at lists of values inside a CASE, whose branches the engine evaluates only for the lines that reach them.
    """
    fields = [_at((field,)) for name, field in _TEXT_FIELDS.items() if name != "type"]
    texts = fields + [_at(path) for path, of in types.items() if of == "VARCHAR"]
    jsons = [f"{_at(path)}::VARCHAR" for path, of in types.items() if of == "JSON"]
    every, listed = ", ".join((*texts, *jsons)), f"[{', '.join(texts)}]"
    numbers = " OR ".join(f"coalesce(text_may_be_number({value}), false)" for value in texts)
    values = " OR ".join(f"coalesce({value} >= '#' AND {value} NOT IN ('true', 'false'), false)" for value in jsons)
    changing = f"any_json_may_change([{', '.join(jsons)}])"
    brackets = f"any_between([{', '.join(fields)}], '[', '\\')"
    times = ", ".join(f"{_at((field,))}::VARCHAR" for field in TIMESTAMP_FIELDS.values())
    changing_times = f"CASE WHEN greatest({times}) >= '[' OR any_json_may_change([{times}]) THEN {_CHANGING} END"
    arrays = f"any_between([{every}], '[', '\\')"
    return [
        f"kind NOT IN ({', '.join(map(engine.literal, _KIND_NAMES))}) OR kind IS NULL",
        f"kind = 'track' AND NOT coalesce(starts_with({_at(('event',))}::VARCHAR, '\"'), false)",
        f"kind IN ('page', 'screen') AND coalesce({', '.join(declared)}) IS NOT NULL",
        f"CASE WHEN greatest({every}) >= '{{' THEN any_between([{every}], '{{', '|') END",
        f"CASE WHEN contains(text, '[') THEN {brackets} OR CASE WHEN {arrays} THEN {_CHANGING} END END",
        f"CASE WHEN unusual IS NOT NULL THEN {changing_times} END",
        f"CASE WHEN {numbers} THEN any_number_unquoted({listed}, text) OR {_CHANGING} END",
        f"CASE WHEN {values} THEN CASE WHEN {changing} THEN {_CHANGING} END END",
    ]


def _is(kinds: Iterable[str]) -> str:
    return engine.is_one_of("kind", kinds)


def _at(path: Path) -> str:
    return "m." + ".".join(map(engine.name, path))


def _first(paths: Sequence[Path]) -> str:
    return _at(paths[0]) if len(paths) == 1 else f"coalesce({', '.join(map(_at, paths))})"


def _structure(types: dict[Path, str]) -> str:
    tree: dict[str, Any] = dict.fromkeys(_TEXT_FIELDS.values(), "VARCHAR")
    tree |= dict.fromkeys((*TIMESTAMP_FIELDS.values(), "event"), "JSON")
    for path, leaf in types.items():
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = leaf
    return json.dumps(tree)
