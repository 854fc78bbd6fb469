"""JSON may nest down to a fixed limit for each reader, the same on every Python."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from time import process_time
from typing import Any, TypeVar

import pytest

from autopilothq.catalog import MAX_ANSWER_DEPTH, MAX_DEPTH
from autopilothq.clients.autopilot import Autopilot, AutopilotSettings, Page
from autopilothq.clients.decode import NotJson, TooDeep, decode_json, plain
from autopilothq.clients.profile_api import ProfileApi, ProfileApiSettings
from autopilothq.destination.messages import Item, from_line
from autopilothq.errors import UnexpectedResponse
from autopilothq.projection import parse
from autopilothq.segment.json_text import to_json
from autopilothq.segment.message import EXTRA, MAX_OBJECTS, Discard, Rejected, parse_json, read_message
from autopilothq.segment.naming import LONGEST_COLUMN
from autopilothq.sources.contact_records import contact_record
from autopilothq.sources.profiles.events import message as profile_message
from autopilothq.sources.records import read_record
from autopilothq.sources.scans import Scan, ScanBatch
from autopilothq.sources.spool import ScanStart, Spool
from contract.loading import message, raw, rows_of
from fake_autopilot import FakeAutopilot, FakeProfiles
from recipes.webhook_dump import body_of

T = TypeVar("T")

KINDS = ("arrays", "objects", "both")
CALLERS = 350  # stack frames of callers such as dlt, a scheduler or a thread
REFUSED = "not_json: not JSON"
UNREAD = "nested too deeply to be read: more than {} objects or arrays in another"


def nested(levels: int, kind: str, bottom: str = '"[{\\"[{"') -> str:
    """Returns JSON of so many levels, as `to_json` spells it; the text at its bottom contains brackets too."""
    opened, closed = {"arrays": ("[", "]"), "objects": ('{"a":', "}"), "both": ('[{"a":', "}]")}[kind]
    if kind != "both":
        return opened * levels + bottom + closed * levels
    odd = levels % 2
    return "[" * odd + opened * (levels // 2) + bottom + closed * (levels // 2) + "]" * odd


def called_deep(read: Callable[[], T], frames: int = CALLERS) -> T:
    """Calls a reader from a stack that is deeper by so many frames; returns the result."""
    return called_deep(read, frames - 1) if frames else read()


# ---- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-be"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_read_and_written_down_to_its_limit(kind: str, encoding: str) -> None:
    for levels in (MAX_ANSWER_DEPTH - 1, MAX_ANSWER_DEPTH):
        text = nested(levels, kind)
        value = called_deep(lambda text=text: decode_json(text.encode(encoding)))  # type: ignore[misc]
        assert called_deep(lambda value=value: to_json(value)) == text  # type: ignore[misc]
        assert called_deep(lambda value=value: plain(value)) == json.loads(text)  # type: ignore[misc]
    for levels in (MAX_ANSWER_DEPTH + 1, 2 * MAX_ANSWER_DEPTH, 50_000):
        with pytest.raises(TooDeep):
            decode_json(nested(levels, kind).encode(encoding))


@pytest.mark.parametrize("kind", KINDS)
def test_what_nests_too_deeply_and_never_ends_is_no_json(kind: str) -> None:
    content = nested(50_000, kind).partition('"[{\\"')[0]
    with pytest.raises(NotJson) as caught:
        decode_json(content.encode())
    assert caught.type is NotJson


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_nests_too_deeply_is_named_so(kind: str) -> None:
    with FakeAutopilot(contacts=0) as server:
        settings = AutopilotSettings(api_key=server.key, base_url=server.base_url, requests_per_second=1000)
        with Autopilot(settings) as account:
            page = '{"lists":[%s]}'
            read = page % nested(MAX_ANSWER_DEPTH - 2, kind)
            server.order("GET", "/lists", content=read.encode())
            assert f'{{"lists":{to_json(account.lists())}}}' == read
            unread = page % nested(MAX_ANSWER_DEPTH - 1, kind)
            server.order("GET", "/lists", content=unread.encode())
            with pytest.raises(UnexpectedResponse) as caught:
                account.lists()
    assert str(caught.value) == f"GET /lists: the answer is {UNREAD.format(MAX_ANSWER_DEPTH)}"
    assert caught.value.content == unread


@pytest.mark.parametrize("kind", KINDS)
def test_a_person_whose_answer_nests_too_deeply_is_told_apart(kind: str) -> None:
    who = "email:ada@example.com"
    with FakeProfiles() as server:
        settings = ProfileApiSettings(
            api_key=server.token, base_url=server.base_url, space=server.space, requests_per_second=1000
        )
        with ProfileApi(settings) as space:
            above = 4  # the answer, its list of data, the event, its properties

            def ask(levels: int) -> list[list[Any]]:
                server.people.clear()
                server.happen(who, properties={"p": json.loads(nested(levels, kind))})
                return list(space.events(who, ["Email Opened"]))

            [[event]] = ask(MAX_ANSWER_DEPTH - above)
            line = called_deep(lambda: profile_message(event, who))
            assert f'"properties":{{"p":{nested(MAX_ANSWER_DEPTH - above, kind)}}}' in line.decode()
            with pytest.raises(UnexpectedResponse) as caught:
                ask(MAX_ANSWER_DEPTH - above + 1)
    assert str(caught.value) == f"{who}: an answer nested too deeply to be read"
    assert caught.value.content.startswith('{"data"')


# ---- what answers hold ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_contact_of_the_greatest_depth_is_spooled_and_becomes_a_record(kind: str, tmp_path: Path) -> None:
    inner = nested(MAX_ANSWER_DEPTH - 3, kind)
    answer = f'{{"contacts":[{{"contact_id":"c1","deep":{inner}}}]}}'
    [contact] = (found := decode_json(answer.encode())).value("contacts")  # type: ignore[union-attr]
    spool = Spool.begin(tmp_path / "spool", ScanStart("account", "now"))
    called_deep(lambda: spool.put(Page(found.value("contacts"), None, None)))  # type: ignore[union-attr]
    [stored] = called_deep(lambda: spool.read(1))[0]
    assert to_json(stored) == to_json(contact)
    record = called_deep(lambda: contact_record(contact))
    assert record.key == ("c1",)
    if kind == "arrays":
        assert record.cells["deep"] == inner
    batch = ScanBatch(Scan("contacts", "url", "now"))
    called_deep(lambda: batch.reject(contact, "no_id", "of no table"))
    assert batch.rejects[0].raw.decode() == to_json(contact)


# ---- lines ---------------------------------------------------------------------------------------------------------


def line_of(levels: int, kind: str) -> bytes:
    """Returns a message of this depth, counting the message and its properties."""
    start = '{"type":"track","event":"Email Opened","messageId":"m","userId":"u","properties":{"p":'
    return f"{start}{nested(levels - 2, kind)}}}}}".encode()


def rejected(read: Callable[[bytes], object], line: bytes) -> tuple[str, str]:
    with pytest.raises(Rejected) as caught:
        called_deep(lambda: read(line))
    return caught.value.args[0], caught.value.args[1]


def line_readers() -> Iterator[Callable[[bytes], object]]:
    yield parse_json
    yield lambda line: read_message(line, frozenset())
    yield lambda line: read_record("contacts", line.replace(b'"messageId"', b'"contact_id"'))


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_is_read_down_to_its_limit(kind: str) -> None:
    for read in line_readers():
        for levels in (MAX_DEPTH - 1, MAX_DEPTH):
            assert called_deep(lambda read=read, levels=levels: read(line_of(levels, kind)))  # type: ignore[misc]
        for levels in (MAX_DEPTH + 1, MAX_ANSWER_DEPTH, 50_000):
            assert rejected(read, line_of(levels, kind)) == ("not_json", UNREAD.format(MAX_DEPTH))


LONG = "".join(f'{{"{level:0>2000}":' for level in range(200))  # a path of 400 KB before each key


def with_long_path(values: str) -> bytes:
    body = LONG + "{" + values + "}" + "}" * 200
    return f'{{"type":"track","event":"e","userId":"u","properties":{body}}}'.encode()


@pytest.mark.parametrize(
    ("value", "cells", "discarded"),
    [
        ('"{key}":{n}', 5_000, None), ('"{key}":{{"a":{n}}}', 5_000, None), ('"{key}":{{}}', 0, None),
        ('"":{n}', 0, "no_column"), ('"k":{n}', 1, "same_column"), ('"{key}":NaN', 0, "not_a_number"),
    ],
)  # fmt: skip
def test_a_long_path_is_not_read_for_each_of_its_values(value: str, cells: int, discarded: str | None) -> None:
    values = (value.format(key=f"k{n}", n=n) for n in range(5_000))
    line = with_long_path(",".join(values))
    began = process_time()
    read = read_message(line, frozenset())
    assert process_time() - began < 2
    assert sum(name.startswith(EXTRA) for name in read.cells) == cells
    assert [(len(discard.column), discard.reason) for discard in read.discards] == (
        [(discard_length(discarded), discarded)] * (5_000 - cells) if discarded else []
    )
    assert read.objects == [("properties",)]


def discard_length(reason: str) -> int:
    return len("properties.") + LONGEST_COLUMN if reason == "no_column" else LONGEST_COLUMN


def test_a_message_of_very_many_objects_names_a_few() -> None:
    body = ",".join(f'"k{n}":{{}}' for n in range(50_000))
    read = read_message(f'{{"type":"track","event":"e","userId":"u","properties":{{{body}}}}}'.encode(), frozenset())
    assert read.objects == [("properties",), *(("properties", f"k{n}") for n in range(MAX_OBJECTS - 1))]


@pytest.mark.parametrize("kind", KINDS)
def test_keys_that_come_twice_are_compared_down_to_the_limit(kind: str) -> None:
    deep = nested(MAX_DEPTH - 1, kind)
    line = f'{{"type":"track","event":"e","userId":"u","anonymousId":{deep},"anonymousId":{{}}}}'
    read = called_deep(lambda: read_message(line.replace("{}}", f"{deep}}}").encode(), frozenset()))
    assert read.discards == [Discard("anonymous_id", deep, "does_not_fit")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_that_is_sent_has_the_same_limit(kind: str) -> None:
    for levels in (MAX_DEPTH - 1, MAX_DEPTH):
        item = called_deep(lambda levels=levels: from_line(line_of(levels, kind)))  # type: ignore[misc]
        assert isinstance(item, Item)
        assert (item.refusal, item.properties) == (None, {"p": json.loads(nested(levels - 2, kind))})
    for levels in (MAX_DEPTH + 1, MAX_ANSWER_DEPTH, 50_000):
        item = from_line(line_of(levels, kind))
        assert isinstance(item, Item)
        assert str(item.refusal).startswith(REFUSED)


def test_an_archive_has_that_limit_on_both_paths() -> None:
    places: list[dict[str, Any]] = [{"properties": {"p": "$x"}}, {"context": {"p": "$x"}}]
    cases = [(levels, kind, place) for levels in (-1, 0, 1) for kind in KINDS for place in places]
    lines = [
        raw(message(messageId=f"m{number:02}", **place), x=nested(MAX_DEPTH - 2 + levels, kind))
        for number, (levels, kind, place) in enumerate(cases)
    ]
    found = rows_of(*lines, message(messageId="plain"))
    kept = [f"m{number:02}" for number, (levels, _, _) in enumerate(cases) if levels <= 0]
    assert [row["id"] for row in found["tracks"]] == [*kept, "plain"]
    too_deep = [(number, "not_json", UNREAD.format(MAX_DEPTH)) for number in range(len(kept) + 1, len(cases) + 1)]
    assert sorted((row["line"], row["reason"], row["message"]) for row in found["_rejects"]) == too_deep


def test_a_line_that_nests_too_deeply_may_stand_among_lines_that_are_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting brackets in lines of known shapes must not fail on bytes that are not UTF-8."""
    monkeypatch.setattr(parse, "FIRST_LINES", 1)
    deep = raw(message(messageId="deep", properties={"p": "$x"}), x=nested(MAX_DEPTH, "arrays"))
    found = rows_of(message(messageId="a"), b'{"type":"\xff\xf5"}', b"\xed\xa0\x80", deep, message(messageId="b"))
    assert [row["id"] for row in found["tracks"]] == ["a", "b"]
    rejects = sorted((row["line"], row["reason"], row["message"]) for row in found["_rejects"])
    assert rejects == [
        (2, "not_json", r'not UTF-8 at byte 9: invalid start byte: \xff\xf5"}'),
        (3, "not_json", r"not UTF-8 at byte 0: invalid continuation byte: \xed\xa0\x80"),
        (4, "not_json", UNREAD.format(MAX_DEPTH)),
    ]


def test_a_recipe_hands_on_what_nests_too_deeply_to_be_a_request() -> None:
    line = nested(200_000, "arrays").encode()
    assert body_of(line) == line
