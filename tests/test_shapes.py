"""Which shapes of lines DuckDB reads at once, and with which columns; `contract/` has whole loads."""

import json

import pytest

from autopilothq.projection import shapes
from autopilothq.projection.shapes import RegularShape, Shapes

OBJECTS = [
    "", "/context", "/context/traits", "/context/library", "/context/integration", "/properties", "/traits",
]  # fmt: skip


def shape(known: Shapes | None = None, **keys: list[str]) -> str:
    """Returns the shape of lines with these keys by object: `_` is the message, `a__b` its `a.b`."""
    found = {"/" + name.replace("__", "/") if name != "_" else "": names for name, names in keys.items()}
    return json.dumps([found.pop(pointer, None) for pointer in (known or Shapes()).pointers()] + list(found))


def learnt(known: Shapes, **keys: list[str]) -> RegularShape | None:
    text = shape(known, **keys)
    found = known.regular({text: 1})
    assert found.keys() <= {text}
    return found.get(text)


def test_a_shape_is_the_keys_of_some_objects() -> None:
    assert Shapes().pointers() == OBJECTS
    known = Shapes()
    objects = [("properties", "b"), ("properties", "a/b~c"), ("properties", "campaign_id", "x"), ("context", "traits")]
    more = known.with_objects(objects)
    assert more.pointers() == [*OBJECTS, "/properties/a~1b~0c", "/properties/b"]
    assert more.with_objects(objects[1:]) is more
    assert known.with_objects([]) is known


def test_so_many_objects_are_known_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "MAX_OBJECTS", len(OBJECTS) + 2)
    known = Shapes()
    assert known.with_objects([("properties", name) for name in "abc"]) is known
    assert known.with_objects([("properties", name) for name in "ab"]).pointers() == [
        *OBJECTS,
        "/properties/a",
        "/properties/b",
    ]


def test_a_regular_shape_has_the_leaves_of_its_lines() -> None:
    assert learnt(Shapes(), _=["type", "userId"]) == RegularShape([], [])
    assert learnt(
        Shapes(),
        _=["type", "context", "properties", "traits"],
        context=["zoo", "traits", "library"],
        context__traits=["email"],
        properties=["a b", "context"],
    ) == RegularShape(
        [
            ("context", "zoo"),
            ("context", "traits", "email"),
            ("properties", "a b"),
            ("properties", "context"),
        ],
        [("traits",), ("context", "library")],
    )


IRREGULAR: list[dict[str, list[str]]] = [
    {"properties": ["a"]},
    {"_": ["type", "Type"]},
    {"_": ["type"], "properties": ["a", "A"]},
    {"_": ["type"], "properties": ["a b", "a_b"]},
    {"_": ["type"], "traits": ["a b", "a_b"]},
    {"_": ["type"], "context": ["a b", "a_b"]},
    {"_": ["type"], "properties": ["名"]},
    {"_": ["type"], "properties": [""]},
    {"_": ["type"], "context": ["名"]},
    {"_": ["type"], "traits": ["名"]},
    {"_": ["type"], "properties": ["name", "_name"]},
    {"_": ["type"], "properties": ["_category", "category"]},
    {"_": ["type"], "traits": ["groupId", "_group_id"]},
    {"_": ["type"], "properties": ["id", "_id"]},
    {"_": ["type"], "context": ["IP"]},
    {"_": ["type"], "context__traits": ["Email"]},
    {"_": ["type"], "properties": ["Campaign_id"]},
]
REGULAR: list[dict[str, list[str]]] = [
    {"_": ["type"], "properties": ["a"], "traits": ["a"], "context": ["a"]},
    {"_": ["type"], "properties": ["name"], "traits": ["_name"]},
    {"_": ["type", "Properties"], "properties": ["IP"]},
]


def test_a_shape_whose_keys_collide_is_irregular() -> None:
    assert [keys for keys in IRREGULAR if learnt(Shapes(), **keys)] == []
    assert [keys for keys in REGULAR if not learnt(Shapes(), **keys)] == []


def test_of_two_spellings_that_differ_in_case_alone_the_first_is_regular() -> None:
    known = Shapes().with_objects([("properties", "Plan")])
    assert learnt(known, _=["type"], properties=["zoo"]) == RegularShape([("properties", "zoo")], [])
    assert learnt(known, _=["type"], properties=["Zoo"]) is None
    assert learnt(known, _=["type"], properties=["plan"]) is None
    assert learnt(known, _=["type"], properties__Plan=["a"]) == RegularShape([("properties", "Plan", "a")], [])
    assert learnt(known, _=["type"], properties__Plan=["A"]) is None
    assert learnt(known, _=["type"], traits=["Zoo"]) == RegularShape([("traits", "Zoo")], [])


def test_where_others_have_an_object_a_shape_may_have_none() -> None:
    known = Shapes().with_objects([("properties", "plan"), ("properties", "plan", "of")])
    of = {"properties": ["plan"], "properties__plan": ["of"], "properties__plan__of": ["a"]}
    assert learnt(known, _=["properties"], **of) == RegularShape([("properties", "plan", "of", "a")], [])
    assert learnt(known, _=["properties"], properties=["plan"]) == RegularShape([], [("properties", "plan")])
    assert learnt(known, _=["properties"], properties=[]) == RegularShape([], [("properties",)])
    assert learnt(known, _=["a"]) == RegularShape([], [])


def test_so_many_leaves_are_read_at_once_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "MAX_LEAVES", 2)
    known = Shapes()
    assert learnt(known, _=["a"], properties=["a"]) == RegularShape([("properties", "a")], [])
    assert learnt(known, _=["a"], properties=["b", "c"]) is None
    assert learnt(known, _=["a"], properties=["a", "b"]) == RegularShape([("properties", "a"), ("properties", "b")], [])
    assert learnt(known, _=["a"], properties=["b"]) == RegularShape([("properties", "b")], [])
    assert learnt(known, _=["a"], properties=["c"]) is None


def test_long_keys_are_read_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Shapes()
    assert known.with_objects([("properties", "a" * 991)]) is known
    assert known.with_objects([("properties", "a" * 990)]) is not known
    assert learnt(known, _=["a"], properties=["a" * 1_001]) is None
    assert learnt(known, _=["a"], properties=["a" * 1_000]) == RegularShape([("properties", "a" * 1_000)], [])
    text = shape(_=["b"])
    monkeypatch.setattr(shapes, "MAX_SHAPE", len(text))
    assert list(known.regular({text: 1, shape(_=["bc"]): 2})) == [text]


def test_the_most_frequent_shapes_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "MAX_SHAPES", 2)
    monkeypatch.setattr(shapes, "MAX_KNOWN", 4)
    a, b, c, d, e = (shape(_=["type"], properties=[name]) for name in "abcde")
    bad = shape(_=["type", "Type"])
    known = Shapes()
    assert list(known.regular({a: 1, c: 5, b: 5, d: 7})) == [d, b]
    assert list(known.regular({c: 1, bad: 9, a: 1})) == [a]
    # Irregular shapes count as well, and only the shapes of the last look are remembered.
    assert known.known() == {
        text: RegularShape([("properties", name)], []) for text, name in ((d, "d"), (b, "b"), (a, "a"))
    }
    assert list(known.regular({e: 1})) == [e]
    assert list(known.known()) == [d, b, a, e]
    assert list(known.regular({c: 1})) == [c]
    assert list(known.known()) == [c]


KNOWN = {
    "_": ["type", "properties", "traits"],
    "properties": ["a", "b", "plan"],
    "properties__plan": ["of"],
    "traits": ["a", "c d"],
}
OF_KNOWN_KEYS: list[tuple[dict[str, list[str]], bool]] = [
    ({"_": ["type"]}, True),
    ({"_": ["properties", "type"], "properties": ["b"]}, True),
    ({"_": ["traits", "type"], "traits": ["c d"]}, True),
    ({"_": ["type", "properties"], "properties": ["plan", "a"], "properties__plan": ["of"]}, True),
    ({"_": []}, False),
    ({"_": ["type", "other"]}, False),
    ({"_": ["type"], "properties": ["c d"]}, False),  # known only in another object
    ({"_": ["type"], "context": ["a"]}, False),
    ({"_": ["type"], "properties": ["a", "a"]}, False),
    ({"_": ["type"], "traits": ["c d", "c_d"]}, False),  # both known, but they share a column
    ({"_": ["type"], "traits": ["c_d"]}, False),
    ({"_": ["type", "Type"]}, False),
    ({"_": ["Type"]}, False),
]


def test_rare_shapes_of_known_keys_are_regular(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Shapes().with_objects([("properties", "plan"), ("missing", "parent")])
    leaves = [
        ("properties", "a"),
        ("properties", "b"),
        ("traits", "a"),
        ("traits", "c d"),
        ("properties", "plan", "of"),
    ]
    for keys in (KNOWN, {"_": ["type"], "traits": ["c_d"]}, {"_": ["Type"]}):
        assert learnt(known, **keys)
    monkeypatch.setattr(shapes, "MAX_SHAPES", 0)
    assert [learnt(known, **keys) for keys, _ in OF_KNOWN_KEYS] == [
        RegularShape(leaves, []) if regular else None for _, regular in OF_KNOWN_KEYS
    ]
    nulls = [*(tuple(pointer[1:].split("/")) for pointer in OBJECTS[1:]), ("missing", "parent"), ("properties", "plan")]
    for of in ({"_": ["properties"], "properties": []}, {"_": ["properties"], "properties": ["plan"]}):
        assert learnt(known, **of) == RegularShape(leaves, nulls)
    assert len(known.known()) == 3  # rare shapes are not remembered


def test_the_engine_reads_the_columns_of_all_shapes() -> None:
    known = Shapes().with_objects([("properties", "it's/a")])
    more = [("context", "zoo"), ("properties", "a"), ("properties", "A b"), ("properties", "it's/a", "b")]
    query = known.query(
        {
            "1": RegularShape([*more, ("properties", "campaign_id"), ("traits", "a"), ("traits", "campaign_id")], []),
            "2": RegularShape([("properties", "a"), ("properties", "name")], [("context",), ("properties", "it's/a")]),
            "3": RegularShape([("traits", "groupId"), ("properties", "ip")], [("context",)]),
        }
    )
    assert query.shapes.to_pydict() == {"shape": ["1", "2", "3"], "has_nulls": [False, True, True]}
    plain = Shapes().query({})
    assert query.extras == [
        "x:context_zoo", "x:a", "x:a_b", "x:it_s_a_b", "x:name", "x:_name", "x:ip", "x:campaign_id", "x:group_id",
        "x:_group_id",
    ]  # fmt: skip
    assert plain.extras == []
    texts = ["type", "messageId", "userId", "anonymousId", "previousId", "name", "category", "groupId"]
    jsons = ["receivedAt", "sentAt", "originalTimestamp", "timestamp", "event"]
    names = {"name": "VARCHAR", "version": "VARCHAR"}
    context = {
        "traits": {"email": "VARCHAR", "contact_id": "VARCHAR"},
        "library": names,
        "integration": names,
        "ip": "VARCHAR",
        "userAgent": "VARCHAR",
    }
    declared = ["campaign_id", "campaign_name", "email_id", "email_name", "email_subject", "link_id", "link_url"]
    properties = dict.fromkeys(declared, "VARCHAR") | {"transactional": "JSON"}
    fields = dict.fromkeys(texts, "VARCHAR") | dict.fromkeys(jsons, "JSON")
    assert json.loads(plain.structure) == fields | {"context": context, "properties": properties}
    others = {"a": "JSON", "A b": "JSON", "it's/a": {"b": "JSON"}, "name": "JSON", "ip": "JSON"}
    assert json.loads(query.structure) == fields | {
        "context": context | {"zoo": "JSON"},
        "properties": properties | others,
        "traits": {"a": "JSON", "campaign_id": "JSON", "groupId": "JSON"},
    }
    assert plain.objects == "false"
    assert query.objects == (
        "json_type(text, '/context') NOT IN ('NULL', 'OBJECT')"
        " OR json_type(text, '/properties/it''s~1a') NOT IN ('NULL', 'OBJECT')"
    )
    assert plain.pointers == str(OBJECTS)
    assert query.pointers == str(OBJECTS)[:-1] + ", '/properties/it''s~1a']"
