"""Which lines the engine can read as columns, and the query that does so.

A line's shape is the keys of its objects, as the JSON text that the engine makes of them: nobody can make another line
pass for one of a shape. Python looks at a shape once and says which columns its keys have; the engine then reads all
lines of regular shapes at once. A shape is regular when each of its columns comes from one key.
"""

import itertools
import json
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..catalog import COMMON_NAMES, CONTEXT, DECLARED_TYPES, LINK, PROPERTIES, Column
from ..segment.message import EXTRA, TIMESTAMP_FIELDS, prefixed_if_taken
from ..segment.naming import column_name
from . import engine

Path = tuple[str, ...]

MAX_OBJECTS = 200  # more kinds of nested objects, or
MAX_LEAVES = 200  # more keys than these are read line by line, and
MAX_SHAPES = 1_000  # no more shapes of one batch are looked at, the most frequent ones first
MAX_KNOWN = 10_000  # shapes are remembered

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
_EMAIL = ("context", "traits", "email")
_TEXT_FIELDS = {"type": "type", "id": "messageId", "user_id": "userId", "anonymous_id": "anonymousId"}
# A number whose digits the engine's reader would change: an exponent, a last zero, a very small or a long one, -0.
_CHANGING_NUMBER = (
    r"[:\[,]\s*-?([0-9]+\.?[0-9]*[eE]|[0-9]+\.[0-9]*0\s*[,}\]]|0\.0000|[0-9.]{17}|[iI][nN]|[nN][aA])|-0\s*[,}\]]"
)
_CHANGING = f"regexp_matches(text, {engine.literal(_CHANGING_NUMBER)})"


class ProjectionQuery(NamedTuple):
    """A query that makes `cells` of lines; `extras` are the names of those that the catalogue does not know."""

    select: str
    structure: str
    cells: list[str]
    extras: list[str]

    def sql(self, source: str) -> str:
        """Returns the query of lines (`seq`, `text`) of `source`: a row of cells each, `irregular` where in doubt."""
        return (
            f"WITH parsed AS (SELECT seq, text, from_json(text, {engine.literal(self.structure)}) AS m"
            f" FROM {source}) SELECT {self.select} FROM parsed"
        )


class Shapes:
    """The shapes seen so far, and the objects whose keys make a shape. Threads may share it."""

    def __init__(self, objects: Collection[Path] = _OBJECTS) -> None:
        self._lock = threading.Lock()
        self._objects = tuple(objects)
        self._shapes: dict[str, list[Path] | None] = {}
        self._leaves: dict[Path, str] = {}
        self._spelt: dict[Path, Path] = {}
        self._spell((*_DECLARED, *self._objects))

    def pointers(self) -> list[str]:
        """Returns JSON pointers to the objects whose keys make a shape."""
        return ["".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path) for path in self._objects]

    def regular(self, found: Mapping[str, int]) -> dict[str, list[Path]]:
        """Returns those of some shapes that are regular, with their leaves.

        `found` counts the lines of each shape. The most frequent are looked at first, so that a few lines of their own
        shapes take no room from all others.
        """
        ordered = sorted(found, key=lambda shape: (-found[shape], shape))[:MAX_SHAPES]
        with self._lock:
            if len(self._shapes) > MAX_KNOWN:
                self._shapes.clear()
            for shape in ordered:
                if shape not in self._shapes:
                    self._shapes[shape] = self._learn(shape)
            return {shape: leaves for shape in ordered if (leaves := self._shapes[shape]) is not None}

    def _learn(self, shape: str) -> list[Path] | None:
        leaves = self._regular_leaves(dict(zip(self._objects, json.loads(shape), strict=True)))
        if leaves is None or len(self._leaves.keys() | leaves.keys()) > MAX_LEAVES:
            return None
        self._leaves |= leaves
        self._spell(leaves)
        return list(leaves)

    def _spell(self, paths: Iterable[Path]) -> None:
        """Notes how paths are spelt: of two that differ in case alone, the engine's structs can have the first only."""
        for path in paths:
            for part in _parts(path):
                self._spelt.setdefault(_lower(part), part)

    def with_objects(self, objects: Collection[Path]) -> "Shapes":
        """Returns shapes that know these objects of irregular lines too; itself where none are new, or too many."""
        new = sorted(path for path in objects if path not in self._objects and not _DECLARED.keys() & _parts(path))
        if not new or len(self._objects) + len(new) > MAX_OBJECTS:
            return self
        return Shapes((*self._objects, *new))

    def _regular_leaves(self, keys: dict[Path, Sequence[str] | None]) -> dict[Path, str] | None:
        """Returns the columns of a shape's keys, None where they collide or say too little of the values."""
        if not keys[()]:
            return None
        leaves: dict[Path, str] = {}
        for parent, names in keys.items():
            if len({key.lower() for key in names or ()}) != len(names or ()):
                return None  # the engine's structs don't tell upper case from lower
            for key in names or ():
                path = (*parent, key)
                if path in keys and not keys[path]:
                    return None  # null, {} or no object at all
                if parent and path not in keys:
                    leaves[path] = _column(path)
        for scope in ("context", "properties", "traits"):
            columns = [column for path, column in leaves.items() if path[0] == scope]
            if "" in columns or len(set(columns)) != len(columns):
                return None
        if any(self._spelt.get(_lower(part), part) != part for path in leaves for part in _parts(path)):
            return None
        return leaves

    def query(self, shapes: Iterable[Iterable[Path]]) -> ProjectionQuery:
        """Returns the query for lines of regular shapes with these leaves."""
        leaves = dict.fromkeys(itertools.chain.from_iterable(shapes))
        leaves |= dict.fromkeys(path for path in _DECLARED if path not in self._objects)
        by_scope: dict[str, dict[str, list[Path]]] = {"context": {}, "properties": {}, "traits": {}}
        for path in leaves:
            by_scope[path[0]].setdefault(self._cell(path), []).append(path)
        return _query(by_scope, {path: self._type(path) for path in leaves})

    def _cell(self, path: Path) -> str:
        column = _column(path)
        declared = path[0] != "traits" and any(
            column == known.name and path[0] == scope for (scope, *_), known in _DECLARED.items()
        )
        return column if declared else EXTRA + column

    def _type(self, path: Path) -> str:
        cell = self._cell(path)
        return "JSON" if cell.startswith(EXTRA) or DECLARED_TYPES[cell] != "text" else "VARCHAR"


def _parts(path: Path) -> list[Path]:
    """Returns a path and all that it goes through. Example: `_parts(("a", "b")) == [("a",), ("a", "b")]`."""
    return [path[: at + 1] for at in range(len(path))]


def _lower(path: Path) -> Path:
    return tuple(part.lower() for part in path)


def _column(path: Path) -> str:
    return column_name(path) if path[0] == "context" else prefixed_if_taken(column_name(path[1:]), COMMON_NAMES)


def _query(by_scope: dict[str, dict[str, list[Path]]], types: dict[Path, str]) -> ProjectionQuery:
    context = {cell: f"{_first(paths)}::VARCHAR" for cell, paths in by_scope["context"].items()}
    bodies = by_scope["properties"].keys() | by_scope["traits"].keys()
    body = {cell: _body(cell, by_scope) for cell in sorted(bodies)}
    extras = [cell for cell in (*context, *body) if cell.startswith(EXTRA)]
    cells = {name: f"{_at((field,))}::VARCHAR" for name, field in (_TEXT_FIELDS | TIMESTAMP_FIELDS).items()}
    for name in ("id", "user_id", "anonymous_id"):
        cells[name] = f"blank_as_null({_at((_TEXT_FIELDS[name],))})"
    # Only the context's email is looked for; a line that has none there, or none that looks like one, is irregular.
    email = _at(_EMAIL) if _EMAIL in types else "NULL"
    cells["anonymous_id"] = (
        f"coalesce({cells['anonymous_id']}, CASE WHEN {cells['user_id']} IS NULL"
        f" AND contains({email}, '@') AND NOT starts_with({email}, '[') THEN {email} END)"
    )
    kind = cells.pop("type")
    cells = {"kind": kind, "event": f"CASE WHEN {kind} = 'track' THEN {_at(('event',))}::VARCHAR END", **cells}
    cells |= dict.fromkeys((column.name for column in _DECLARED.values()), "NULL::VARCHAR") | context | body
    select = [f"{expression} AS {engine.name(cell)}" for cell, expression in cells.items()]
    raw = {path: _at(path) for path in types}
    doubts = " OR ".join(f"coalesce({test}, false)" for test in _doubts(raw, types))
    missing = f"{kind} IS NULL OR ({kind} = 'track' AND {_at(('event',))} IS NULL) OR {cells['id']} IS NULL"
    missing += f" OR ({cells['user_id']} IS NULL AND {cells['anonymous_id']} IS NULL)"
    return ProjectionQuery(
        f"seq, hash(text) AS tie, {', '.join(select)}, {missing} OR {doubts} AS irregular",
        _structure(types),
        ["seq", "tie", *cells],
        extras,
    )


def _doubts(raw: dict[Path, str], types: dict[Path, str]) -> list[str]:
    """Returns conditions under which the engine's reading is in doubt; comparisons of first characters are cheap."""
    fields = [_at((field,)) for field in ("messageId", "userId", "anonymousId")]
    texts = fields + [value for path, value in raw.items() if types[path] == "VARCHAR"]
    jsons = [f"{value}::VARCHAR" for path, value in raw.items() if types[path] == "JSON"]
    objects = " OR ".join(f"coalesce({value} >= '{{' AND {value} < '|', false)" for value in (*texts, *jsons))
    arrays = " OR ".join(f"coalesce({value} >= '[' AND {value} < '\\', false)" for value in (*texts, *jsons))
    # CASE, not AND: the engine reads a CASE's branches for those rows alone that come to them.
    return [
        f"{_at(('type',))} NOT IN ('track', 'identify')",
        f"{_at(('type',))} = 'track' AND NOT starts_with({_at(('event',))}::VARCHAR, '\"')",
        *(f"{field} >= '[' AND {field} < '\\'" for field in fields),
        f"CASE WHEN greatest({', '.join((*texts, *jsons))}) >= '{{' THEN {objects} END",
        f"CASE WHEN contains(text, '[') THEN CASE WHEN {arrays} THEN {_CHANGING} END END",
        *map(_text_in_doubt, texts),
        *map(_json_in_doubt, jsons),
    ]


def _text_in_doubt(value: str) -> str:
    """Returns the condition for a number that became text: it must keep its digits (1.10), the engine does not."""
    quoted = f"contains(text, '\"' || {value} || '\"')"
    return (
        f"CASE WHEN {value} < ':' THEN CASE WHEN {value} >= '-'"
        f" THEN CASE WHEN contains({value}, '.') OR contains({value}, 'e') OR {value} IN ('0', '-0', '-Infinity')"
        f" THEN CASE WHEN try_cast({value} AS DOUBLE) IS NOT NULL THEN NOT {quoted} OR {_CHANGING} END END END"
        f" WHEN {value} IN ('Infinity', 'NaN') THEN NOT {quoted} END"
    )


def _json_in_doubt(value: str) -> str:
    """Returns the condition for a number, NaN or Infinity in any of the engine's spellings that is in doubt."""
    return (
        f"CASE WHEN {value} >= '#' THEN CASE WHEN {value} >= '-' AND {value} < ':'"
        f" THEN CASE WHEN {value} IN ('0', '-0') OR NOT regexp_full_match({value}, '-?[0-9]+')"
        f" THEN {_CHANGING} OR NOT regexp_full_match({value}, '-?[0-9].*') END"
        f" WHEN {value} < '[' THEN true WHEN {value} IN ('inf', 'nan', 'infinity') THEN true END END"
    )


def _at(path: Path) -> str:
    return "m." + ".".join(map(engine.name, path))


def _first(paths: list[Path]) -> str:
    return _at(paths[0]) if len(paths) == 1 else f"coalesce({', '.join(map(_at, paths))})"


def _body(cell: str, by_scope: dict[str, dict[str, list[Path]]]) -> str:
    cases = []
    for kind, scope in (("track", "properties"), ("identify", "traits")):
        if paths := by_scope[scope].get(cell):
            cases.append(f"WHEN '{kind}' THEN {_first(paths)}::VARCHAR")
    return f"CASE {_at(('type',))} {' '.join(cases)} END"


def _structure(types: dict[Path, str]) -> str:
    tree: dict[str, Any] = dict.fromkeys(_TEXT_FIELDS.values(), "VARCHAR")
    tree |= dict.fromkeys((*TIMESTAMP_FIELDS.values(), "event"), "JSON")
    for path, leaf in types.items():
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = leaf
    return json.dumps(tree)
