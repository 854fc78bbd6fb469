"""Lines of all shapes that Segment documents take the fast path, none the slow one, with the same rows."""

import itertools
import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any
from unittest import mock

import pytest

from autopilothq.projection import shapes
from autopilothq.segment import message as messages
from contract.both_ways import differences
from contract.loading import Line, Row, message, rows_of

EMAIL = {"campaign_id": "campaign_1", "email_subject": "Hello", "transactional": False}
CONTEXT = {"library": {"name": "unknown", "version": "1.0.0"}, "traits": {"email": "a@b.c", "contact_id": "person_1"}}


def of(kind: str, **fields: Any) -> Callable[[int], Line]:
    return lambda n: message(
        None, **{"type": kind, "event": ..., "messageId": f"{kind}-{n}", "context": CONTEXT, **fields}
    )


def track(**fields: Any) -> Callable[[int], Line]:
    return lambda n: message(messageId=f"track-{n}", **{"context": CONTEXT} | fields)


SHAPES: dict[str, tuple[Callable[[int], Line], str]] = {
    "an email's event": (track(properties=EMAIL), "email_opened"),
    "its name among its properties": (track(properties=EMAIL | {"event": "email_opened"}), "email_opened"),
    "no properties": (track(), "email_opened"),
    "empty properties": (track(properties={}), "email_opened"),
    "properties that are null": (track(properties=None), "email_opened"),
    "no context": (track(context=None), "email_opened"),
    "an empty context": (track(context={}), "email_opened"),
    "identify": (of("identify", traits={"email": "a@b.c", "firstName": "A", "score": 3}), "identifies"),
    "its id among its traits": (of("identify", traits={"id": "u1"}), "identifies"),
    "empty traits": (of("identify", traits={}), "identifies"),
    "traits that are null": (of("identify", traits=None), "identifies"),
    "group": (of("group", groupId="g1", traits={"name": "Acme", "plan": "pro", "employees": 30}), "groups"),
    "its group's id among its traits": (of("group", groupId="g1", traits={"id": "g1", "groupId": "g1"}), "groups"),
    "another group's id among its traits": (of("group", groupId="g1", traits={"group_id": "g2"}), "groups"),
    "alias": (of("alias", previousId="a1"), "aliases"),
    "page": (of("page", name="Home", category="Docs", properties={"url": "https://a.b/"}), "pages"),
    "a page's name among its properties": (of("page", name="Home", properties={"name": "Home"}), "pages"),
    "another name among a page's properties": (of("page", name="Home", properties={"name": "Start"}), "pages"),
    "a page's name among its properties alone": (of("page", properties={"name": 'a "b"', "category": 7}), "pages"),
    "screen": (of("screen", name="Main", properties={"variation": "blue"}), "screens"),
    "null properties of a screen": (of("screen", name="Main", properties=None), "screens"),
}


@pytest.fixture(scope="module")
def loaded() -> tuple[list[str], dict[str, list[Row]]]:
    """Loads 20 lines of each shape, with its number in their ids; returns the ids on the slow path, and the tables."""
    lines = [line(number * 100 + n) for number, (line, _) in enumerate(SHAPES.values()) for n in range(20)]
    with mock.patch("autopilothq.projection.irregular.read_message", wraps=messages.read_message) as read:
        found = rows_of(*lines)
    return [json.loads(call.args[0])["messageId"] for call in read.call_args_list], found


@pytest.mark.parametrize("shape", SHAPES)
def test_lines_of_a_documented_shape_are_read_at_once(
    shape: str, loaded: tuple[list[str], dict[str, list[Row]]]
) -> None:
    one_by_one, found = loaded
    number, table = list(SHAPES).index(shape), SHAPES[shape][1]

    def count(ids: list[str]) -> int:
        return sum(int(id_.rpartition("-")[2]) // 100 == number for id_ in ids)

    assert (count(one_by_one), count([row["id"] for row in found[table]])) == (0, 20)


def test_documented_shapes_give_the_same_rows_at_once_and_one_by_one() -> None:
    lines = [line(number * 10 + n) for number, (line, _) in enumerate(SHAPES.values()) for n in range(3)]
    assert differences(lines) == []


def test_lines_without_an_id_are_read_at_once() -> None:
    """Their id is the digest of the line without its ending. A line whose id is an object takes the slow path."""
    ids = ("", ',"messageId":null', ',"messageId":""', ',"messageId":" \\t"', ',"messageId":{}', ',"messageId":7')
    lines = [
        f'{{"type":"track","event":"Email Opened","userId":"ü{n}"{id_}}} {end}'.encode()
        for n, id_ in enumerate(ids)
        for end in ("\n", "\r\n")
    ]
    with mock.patch("autopilothq.projection.irregular.read_message", wraps=messages.read_message) as read:
        found = rows_of(*lines)["email_opened"]
    assert [call.args[0].strip() for call in read.call_args_list] == [line.strip() for line in lines[-4:-2]]
    without = {sha256(line.rstrip(b"\r\n")).hexdigest() for line in lines[:-2]}
    assert {row["id"] for row in found} == without | {"7"}
    assert differences(lines) == []


def test_lines_with_a_shape_each_are_read_at_once_if_their_keys_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if an object such as `context` is missing in some lines. Odd lines among them take the slow path."""
    monkeypatch.setattr(shapes, "MAX_SHAPES", 1)
    body = {"campaign_id": "c", "plan": {"of": 1}, "score": 2, "a b": "x", "name": [1]}
    subsets = itertools.product((CONTEXT, None), itertools.product((1, 0), repeat=len(body)))
    lines: list[Line] = [
        message(messageId=f"m{n}", context=context, properties=dict(itertools.compress(body.items(), chosen)))
        for n, (context, chosen) in enumerate(subsets)
    ]
    nulls = [{"plan": None}, {"plan": 1}, {"plan": [{"of": 1}]}]
    odd = [*nulls, {"a_b": 1}, {"a b": 1, "a_b": 2}, {"Score": 1}, {"new": 1}]
    lines += [message(messageId=f"o{n}", properties=properties) for n, properties in enumerate(odd)]
    lines += [message(messageId=f"l{n}", context=CONTEXT, properties=body) for n in range(3)]  # sampled
    first: list[Line] = [message(messageId=f"f{n}", context=CONTEXT, properties=body) for n in range(len(lines) + 1)]
    with mock.patch("autopilothq.projection.irregular.read_message", wraps=messages.read_message) as read:
        assert differences(first + lines) == []  # a load in two batches
    alone = [json.loads(call.args[0])["messageId"] for call in read.call_args_list]
    assert [id_ for id_ in alone if not id_.startswith("f")] == ["o1", "o2", "o3", "o4", "o5", "o6"]
