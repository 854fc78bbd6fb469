"""Decides which lines the engine can read as columns, and composes the query that reads them.

A line's shape is the JSON text that the engine makes of the keys of its objects, so lines with different keys never
have the same shape. Python examines each shape once and finds the columns of its keys; the engine then reads all lines
of regular shapes at once. A shape is regular if each of its columns comes from one key. A leaf is the path of a value
that becomes a column, such as `("properties", "plan")`.
"""

import json
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from ..catalog import COMMON_NAMES, CONTEXT, DECLARED_TYPES, LINK, PROPERTIES
from ..segment.message import BODIES, EXTRA, MAX_OBJECTS, OWN_FIELDS, TIMESTAMP_FIELDS, prefixed_if_taken
from ..segment.naming import LONGEST_COLUMN, column_name
from . import engine
from .cells import with_timestamps_read

Path = tuple[str, ...]

MAX_LEAVES = 200  # leaves that the fast path reads; lines with others take the slow path
MAX_SHAPES = 1_000  # shapes of one batch that are examined, the most frequent ones first; others need known keys
MAX_SPARSE = 100  # leaves that are read from lines of rare shapes; with more, the columns without values cost too much
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
_DECLARED = {("context", *column.path): column.name for column in CONTEXT} | {
    ("properties", *column.path): column.name for column in PROPERTIES + LINK
}
"""The catalogue's columns by the paths of their values."""
_DECLARED_COLUMNS = {(path[0], column) for path, column in _DECLARED.items()}
_OWN_FIELDS = {
    column: (field, [kind for kind, own in OWN_FIELDS.items() if column in own])
    for fields in OWN_FIELDS.values()
    for column, field in fields.items()
}
"""The fields that only some types of messages have, and these types, by column."""
_VIEW_COLUMNS = ("name", "category")  # of pages and screens
_GROUP = "group_id"
_TEXT_FIELDS = ("messageId", "userId", "anonymousId", *(field for field, _ in _OWN_FIELDS.values()))
_FIELDS = [(field,) for field in (*_TEXT_FIELDS, *TIMESTAMP_FIELDS.values(), "type", "event")]
# Matches numbers whose digits the engine would change: with an exponent or a trailing zero, very small or long, or -0.
_CHANGING_NUMBER = r"[:\[,]\s*-?([0-9]+\.?[0-9]*[eE]|[0-9]+\.[0-9]*0\s*[,}\]]|0\.0000|[0-9.]{17})|-0\s*[,}\]]"
_SQL = engine.queries("shapes.sql")
_CHANGING = f"regexp_matches(text, {engine.literal(_CHANGING_NUMBER)})"


class ProjectionQuery(NamedTuple):
    """The query that makes cells of lines (shapes.sql, `cells`): its parts, and the `extras` among the cells.

    `shapes` (`shape`, `has_nulls`) are the shapes that it reads; SQL has them as `known_shapes`. `select` has the
    cells, and `irregular` the tests of a line. `structure` describes the struct that a line is read into, whose values
    `named_values` names by their JSON pointers. `pointers` are the objects whose keys make a shape. `objects` is the
    condition for lines that have another value than an object or null where other lines have an object, which their
    shape does not show.
    """

    shapes: pa.Table
    select: str
    irregular: str
    structure: str
    named_values: str
    pointers: str
    objects: str
    extras: list[str]

    def sql(self, readable: str) -> str:
        """Returns the query that makes a row of cells for each of `lines` that has one of the `known_shapes`.

        `readable` is the condition for lines whose shape the engine can read. A row is `irregular` if the engine may
        have misread the line.
        """
        parts = self._asdict() | {"structure": engine.literal(self.structure)}
        return _SQL["cells"].format(readable=readable, timed=with_timestamps_read("FROM typed"), **parts)


class RegularShape(NamedTuple):
    """The leaves of one shape, and the paths that are objects in other lines but have no keys in this shape."""

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
        self._leaves: set[Path] = set()
        self._keys = _KnownKeys(self._objects)
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
        """Returns the regular ones among the shapes in `found`, which has the number of lines of each.

        Only the most frequent shapes are examined and remembered, so that many lines with unique shapes do not displace
        the shapes of all others. The rest are regular if all their keys are known: messages with a dozen optional keys
        have thousands of shapes.
        """
        short = (shape for shape in found if len(shape) <= MAX_SHAPE)
        ordered = sorted(short, key=lambda shape: (-found[shape], shape))
        rest = ordered[MAX_SHAPES:]
        del ordered[MAX_SHAPES:]
        with self._lock:
            if len(self._shapes) > MAX_KNOWN:
                self._shapes.clear()
            for shape in ordered:
                if shape not in self._shapes:
                    self._shapes[shape] = self._learn(shape)
            regular = {text: self._shapes[text] for text in ordered} | {text: self._keys.shape(text) for text in rest}
        return {text: shape for text, shape in regular.items() if shape is not None}

    def _learn(self, shape: str) -> "RegularShape | None":
        """Examines a new shape and remembers its leaves; returns None if it is not regular."""
        keys = {parent: names or [] for parent, names in zip(self._objects, json.loads(shape), strict=True)}
        leaves = [
            (*parent, key) for parent, names in keys.items() if parent for key in names if (*parent, key) not in keys
        ]
        # Known leaves need no check of their spelling. That saves time if many shapes consist of the same keys.
        new = [leaf for leaf in leaves if leaf not in self._leaves]
        if not self._is_regular(keys, leaves, new) or len(self._leaves) + len(new) > MAX_LEAVES:
            return None
        self._leaves.update(new)
        self._note_spellings(new)
        self._keys.add(keys)
        # A key that is an object in other lines and has no keys here is null, `{}` or no object.
        paths = [(*parent, key) for parent, names in keys.items() for key in names]
        return RegularShape(leaves, [path for path in paths if keys.get(path) == []])

    def _is_regular(self, keys: Mapping[Path, Sequence[str]], leaves: Sequence[Path], new: Sequence[Path]) -> bool:
        """Returns whether the engine can read the leaves of a shape as columns; `keys` has the keys of each object.

        `new` are the leaves that no earlier regular shape had. The engine cannot if there are no keys, if a key is too
        long, if columns have no name or the same name, or if keys differ only in case.
        """
        if not keys[()]:
            return False
        for names in keys.values():
            if len({key.lower() for key in names}) != len(names):
                return False  # the engine's structs ignore case
            if max(map(len, names), default=0) > LONGEST_COLUMN:
                return False
        columns = [(leaf[0], _column(leaf)) for leaf in leaves]
        if len(set(columns)) != len(columns) or not all(column for _, column in columns):
            return False
        return all(self._spellings.get(_lower(part), part) == part for leaf in new for part in _parts(leaf))

    def _note_spellings(self, paths: Iterable[Path]) -> None:
        """Notes the case of paths: if several differ only in case, the engine's structs can have only the first."""
        for path in paths:
            for part in _parts(path):
                self._spellings.setdefault(_lower(part), part)

    def with_objects(self, objects: Collection[Path]) -> "Shapes":
        """Returns new `Shapes` that add these objects of irregular lines, or itself if none is new or too many are."""
        short = (path for path in objects if sum(map(len, path)) <= LONGEST_COLUMN)
        new = sorted(path for path in short if path not in self._objects and not _DECLARED.keys() & _parts(path))
        if not new or len(self._objects) + len(new) > MAX_OBJECTS:
            return self
        return Shapes((*self._objects, *new))

    def query(self, shapes: Mapping[str, "RegularShape"]) -> ProjectionQuery:
        """Returns the query for lines of these shapes."""
        leaves, nulls = dict[Path, None](), dict[Path, None]()
        for shape in {id(shape): shape for shape in shapes.values()}.values():  # thousands may be the same object
            leaves |= dict.fromkeys(shape.leaves)
            nulls |= dict.fromkeys(shape.nulls)
        known = pa.table({"shape": list(shapes), "has_nulls": [bool(shape.nulls) for shape in shapes.values()]})
        # None of the catalogue's paths is an object.
        leaves |= dict.fromkeys(_DECLARED)
        return _query(known, list(leaves), self.pointers(), [_pointer(path) for path in nulls])


class _KnownKeys:
    """Keys of regular shapes that a line may have in any combination: no two share a column or differ only in case."""

    def __init__(self, objects: Sequence[Path]) -> None:
        self._objects = objects
        self._names: list[set[str]] = [set() for _ in objects]
        # Objects that may be null: the position in a shape of each and of its parent, and its key there.
        self._parents = [
            (n, objects.index(path[:-1]), path[-1]) for n, path in enumerate(objects) if path[:-1] in objects and path
        ]
        self._taken: set[tuple[str, ...]] = set()
        self._plain = RegularShape([], [])
        self._with_nulls = RegularShape(self._plain.leaves, [path for path in objects if path])

    def add(self, keys: Mapping[Path, Sequence[str]]) -> None:
        """Adds the keys of a regular shape, by the object that has them."""
        for known, (parent, names) in zip(self._names, keys.items(), strict=True):
            for name in names:
                if name not in known:
                    self._add(known, (*parent, name))

    def _add(self, known: set[str], path: Path) -> None:
        if len(known) == MAX_LEAVES:
            return
        is_leaf = len(path) > 1 and path not in self._objects
        taken = {("case", *_lower(path))} | ({("column", path[0], _column(path))} if is_leaf else set())
        if taken & self._taken or (is_leaf and len(self._plain.leaves) >= MAX_SPARSE):
            return
        self._taken |= taken
        known.add(path[-1])
        if is_leaf:
            self._plain.leaves.append(path)

    def shape(self, text: str) -> "RegularShape | None":
        """Returns the shape of this text with all known leaves; None if it has no keys, other keys, or a key twice."""
        keys = [names or () for names in json.loads(text)]
        for names, known in zip(keys, self._names, strict=True):
            if not known.issuperset(names) or len(set(names)) != len(names):
                return None
        if not keys[0]:
            return None
        has_nulls = any(not keys[n] and name in keys[parent] for n, parent, name in self._parents)
        return self._with_nulls if has_nulls else self._plain


def _pointer(path: Path) -> str:
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)


def _parts(path: Path) -> list[Path]:
    """Returns a path and all its parents. Example: `_parts(("a", "b")) == [("a",), ("a", "b")]`."""
    return [path[: length + 1] for length in range(len(path))]


def _lower(path: Path) -> Path:
    return tuple(part.lower() for part in path)


def _column(leaf: Path) -> str:
    """Returns the column of a leaf; "" if it has none."""
    return column_name(leaf) if leaf[0] == "context" else prefixed_if_taken(column_name(leaf[1:]), COMMON_NAMES)


def _cell(leaf: Path) -> str:
    """Returns the name of the cell of a leaf."""
    column = _column(leaf)
    return column if (leaf[0], column) in _DECLARED_COLUMNS else EXTRA + column


# ---- the query -----------------------------------------------------------------------------------------------------


def _query(shapes: pa.Table, leaves: Sequence[Path], pointers: Sequence[str], nulls: Sequence[str]) -> ProjectionQuery:
    """Returns the query that reads these leaves; `nulls` are pointers to objects that may be null."""
    paths: dict[str, dict[str, list[Path]]] = {"context": {}, "properties": {}, "traits": {}}
    types: dict[Path, str] = {}
    for leaf in leaves:
        cell = _cell(leaf)
        paths[leaf[0]].setdefault(cell, []).append(leaf)
        types[leaf] = "JSON" if cell.startswith(EXTRA) or DECLARED_TYPES[cell] != "text" else "VARCHAR"
    cells = _cells(paths["context"], paths["properties"], paths["traits"])
    # A track's properties that have columns of the catalogue, whatever their keys are and wherever they are nested.
    declared = [
        _at(leaf) for cell, found in paths["properties"].items() if not cell.startswith(EXTRA) for leaf in found
    ]
    values = [f"m.{'.'.join(map(engine.name, path))}::VARCHAR AS {_at(path)}" for path in (*_FIELDS, *types)]
    objects = [f"json_type(text, {engine.literal(pointer)}) NOT IN ('NULL', 'OBJECT')" for pointer in nulls]
    return ProjectionQuery(
        shapes=shapes,
        select=", ".join(f"{expression} AS {engine.name(cell)}" for cell, expression in cells.items()),
        irregular=" OR ".join(f"coalesce({test}, false)" for test in _irregular_tests(types, declared)),
        structure=_structure(types),
        named_values=", ".join(values),
        pointers=engine.literals(pointers),
        objects=" OR ".join(objects) or "false",
        extras=[cell for cell in cells if cell.startswith(EXTRA)],
    )


def _cells(
    context: Mapping[str, Sequence[Path]],
    properties: Mapping[str, Sequence[Path]],
    traits: Mapping[str, Sequence[Path]],
) -> dict[str, str]:
    """Returns the SQL of all cells by name, from the paths of the leaves of each cell."""
    body = _body_cells(properties, traits)
    own = {
        name: f"CASE WHEN {engine.is_one_of('kind', kinds)} THEN {_at((field,))} END"
        for name, (field, kinds) in _OWN_FIELDS.items()
    }
    for name in own.keys() & body.keys():
        own[name] = f"coalesce({own[name]}, {body.pop(name)})"
    cells = {"kind": "kind", "event": f"CASE WHEN kind = 'track' THEN {_at(('event',))} END"}
    cells |= {"id": "id", "user_id": "user_id", "anonymous_id": "anonymous_id", **own}
    for name in TIMESTAMP_FIELDS:
        cells |= {name: engine.name(name), f"{name}_read": f"{name}_read"}
    return cells | {cell: _first(paths) for cell, paths in context.items()} | body


def _body_cells(properties: Mapping[str, Sequence[Path]], traits: Mapping[str, Sequence[Path]]) -> dict[str, str]:
    """Returns the SQL of the cells of properties and traits; the type of a message decides which of them it has."""
    cases: dict[str, list[str]] = {}

    def add(cell: str, condition: str, value: str) -> None:
        cases.setdefault(cell, []).append(f"CASE WHEN {condition} THEN {value} END")

    for cell, paths in properties.items():
        name, value = cell.removeprefix(EXTRA), _first(paths)
        if name not in _VIEW_COLUMNS:
            add(cell, "has_properties" if cell.startswith(EXTRA) else "kind = 'track'", value)
            continue
        # A page's name can be among its properties instead, or be repeated there.
        of_view = f"has_properties AND kind <> 'track' AND {_at((name,))}"
        add(cell, "kind = 'track'", value)
        add(name, f"{of_view} IS NULL", f"as_text({value})")
        add(f"{EXTRA}_{name}", f"{of_view} <> as_text({value})", value)
    for cell, paths in traits.items():
        name, value = cell.removeprefix(EXTRA), _first(paths)
        if name != _GROUP:
            add(cell, "has_traits", value)
            continue
        add(cell, "kind = 'identify'", value)
        add(f"{EXTRA}_{name}", f"kind = 'group' AND as_text({value}) IS DISTINCT FROM {_at(('groupId',))}", value)
    return {cell: engine.coalesce(found) for cell, found in cases.items()}


def _irregular_tests(types: Mapping[Path, str], declared: Sequence[str]) -> list[str]:
    """Returns the SQL conditions for lines that the engine may have misread.

    `types` has the SQL types of the leaves. `declared` is the SQL of a track's properties whose columns are in the
    catalogue: on a page, their columns may have other types. The conditions are evaluated for every line, so there is a
    cheap one for each value. Costlier ones look at lists of values inside a CASE, whose branches the engine evaluates
    only for the lines that reach them.
    """
    fields = [_at((field,)) for field in _TEXT_FIELDS]
    texts = fields + [_at(leaf) for leaf, sql_type in types.items() if sql_type == "VARCHAR"]
    jsons = [_at(leaf) for leaf, sql_type in types.items() if sql_type == "JSON"]
    times = ", ".join(map(engine.name, TIMESTAMP_FIELDS))
    every = ", ".join((*texts, *jsons))
    changing_time = f"CASE WHEN greatest({times}) >= '[' OR any_json_may_change([{times}]) THEN {_CHANGING} END"
    # A text that begins with `[` or `{` may have been an array or an object.
    field_may_be_array = f"any_between([{', '.join(fields)}], '[', '\\')"
    any_may_be_array = f"any_between([{every}], '[', '\\')"
    may_be_array = f"{field_may_be_array} OR CASE WHEN {any_may_be_array} THEN {_CHANGING} END"
    may_be_object = f"any_between([{every}], '{{', '|')"
    may_be_number = " OR ".join(f"coalesce(text_may_be_number({value}), false)" for value in texts)
    was_number = f"any_number_unquoted([{', '.join(texts)}], text)"
    # Anything but a text, true and false.
    is_other = " OR ".join(f"coalesce({value} >= '#' AND {value} NOT IN ('true', 'false'), false)" for value in jsons)
    return [
        f"kind NOT IN ({', '.join(map(engine.literal, BODIES))}) OR kind IS NULL",
        f"kind = 'track' AND NOT coalesce(starts_with({_at(('event',))}, '\"'), false)",
        f"kind IN ('page', 'screen') AND coalesce({', '.join(declared)}) IS NOT NULL",
        f"CASE WHEN greatest({every}) >= '{{' THEN {may_be_object} END",
        f"CASE WHEN contains(text, '[') THEN {may_be_array} END",
        f"CASE WHEN unusual IS NOT NULL THEN {changing_time} END",
        f"CASE WHEN {may_be_number} THEN {was_number} OR {_CHANGING} END",
        f"CASE WHEN {is_other} THEN CASE WHEN any_json_may_change([{', '.join(jsons)}]) THEN {_CHANGING} END END",
    ]


def _at(path: Path) -> str:
    """Returns the SQL of a line's value: the column that `named` has for it."""
    return engine.name(_pointer(path))


def _first(paths: Sequence[Path]) -> str:
    """Returns the SQL of the first of these values that is not null."""
    return engine.coalesce([_at(path) for path in paths])


def _structure(types: Mapping[Path, str]) -> str:
    """Returns the JSON that describes a line to `from_json`: its own fields, and leaves with these types."""
    tree: dict[str, Any] = dict.fromkeys(("type", *_TEXT_FIELDS), "VARCHAR")
    tree |= dict.fromkeys((*TIMESTAMP_FIELDS.values(), "event"), "JSON")
    for path, sql_type in types.items():
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = sql_type
    return json.dumps(tree)
