"""The parser of lines, function by function; `contract/` has whole loads."""

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autopilothq.catalog import MAX_DEPTH
from autopilothq.projection import engine, irregular, parse
from autopilothq.projection.cells import LINES_PER_FILE, CellWriter, ParsedCells, seq_of
from autopilothq.projection.context import ProjectionContext
from autopilothq.projection.line_reader import LineReader
from autopilothq.projection.parse import FREQUENT, Parser, misread_conditions, number_lines
from autopilothq.projection.unreadable import find_unreadable
from autopilothq.segment.message import Discard, Message, Reject, digest, read_message
from contract.loading import Line, batches, identify, message, projection_context, raw

# ---- commas and brackets ---------------------------------------------------------------------------------------------


def doubts(*texts: str) -> tuple[bool, bool]:
    """Returns whether some lines must be searched for lenient JSON, and whether for too deep nesting."""
    return doubts_of(pa.array(texts, pa.large_string()))


def doubts_of(lines: pa.LargeStringArray) -> tuple[bool, bool]:
    loose, deep = misread_conditions(pa.chunked_array([lines]))
    return loose != "false", deep != "false"


LOOSE = [
    ",}", ",]", ", }", ",\n]", "  }", "\n\t]", "  ,", ":nan,", ":INF}", "[-Infinity]", ", inf ]", "\n-nAn\t,",
]  # fmt: skip
TIGHT = [
    "", "}", "]", '"}', "a]", "!}", "-}", "+]", "{}", "[]", ", a}", ",|", ",=", ",\\", ",{", ",[", ",,", "{ ", ":nan",
    " }", "\t]", " ,", "en,", "If]", "aan{", "city,", "my}", "y,", "1n]", "a fan, in our city , to_infinity, n , 1nan]",
]  # fmt: skip


@pytest.mark.parametrize("piece", [1, 2, 3, parse.PIECE])
def test_an_end_that_no_value_has_is_found_at_any_position(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "PIECE", piece)
    for text in ("a" * at + loose for at in range(4) for loose in LOOSE):
        assert (text, doubts(text)) == (text, (True, False))
    assert {text: doubts("a", text) for text in TIGHT} == dict.fromkeys(TIGHT, (False, False))
    assert doubts(*TIGHT, ",}", *TIGHT) == doubts(",}", "a") == doubts("a", ",}") == (True, False)
    assert doubts() == doubts("") == (False, False)
    some = pa.array(["a,}", "b", "c", "d  ]"], pa.large_string())
    assert [doubts_of(some.slice(at, 2)) for at in range(3)] == [(True, False), (False, False), (True, False)]


@pytest.mark.parametrize("piece", [1, 2, 3, parse.PIECE])
def test_a_line_with_more_closing_brackets_than_may_nest_is_seen(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "PIECE", piece)
    half, more = "a]b}" * (MAX_DEPTH // 2), "a]b}" * (MAX_DEPTH // 2) + "}"
    assert doubts(half, half, half) == (False, False)
    assert doubts(more, half) == doubts(half, more) == doubts(half, more, half) == (False, True)
    some = pa.array([more, half, half, more], pa.large_string())
    assert [doubts_of(some.slice(at, 2)) for at in range(3)] == [(False, True), (False, False), (False, True)]
    assert doubts(" " + more) == (False, True)
    assert doubts("  }" + more) == (True, True)


def test_lines_of_several_chunks_are_all_looked_at() -> None:
    chunks = [pa.array(texts, pa.large_string()) for texts in ([], ["a", ",}"], ["b"], ["c" + "]" * (MAX_DEPTH + 1)])]
    loose, deep = misread_conditions(pa.chunked_array(chunks))
    assert loose == r"regexp_matches(text, ',\s*[\]}]|(?i)[:\[,]\s*-?(nan|inf|infinity)\s*[,\]}]')"
    assert deep == (
        "2 * strlen(text) - strlen(replace(text, '}', '')) - strlen(replace(text, ']', '')) > " + str(MAX_DEPTH)
    )
    assert misread_conditions(pa.chunked_array(chunks[2:])) == ("false", deep)
    assert misread_conditions(pa.chunked_array(chunks[:3])) == (loose, "false")


# ---- lines and their numbers ---------------------------------------------------------------------------------------


def test_a_line_is_known_by_its_file_and_its_number_there() -> None:
    texts = [b"{}\n", b"\xff\x00", b""]
    types = [pa.int32(), pa.int64(), pa.large_binary()]
    columns = zip(([0, 3, 4], [1, 7, 2], texts), types, strict=True)
    lines = number_lines(pa.table([pa.array(*column) for column in columns], ["file", "line", "text"]))
    assert lines.schema == pa.schema({"seq": pa.int64(), "text": pa.large_string()})
    assert lines["seq"].to_pylist() == [1, 3 * LINES_PER_FILE + 7, 4 * LINES_PER_FILE + 2]
    assert lines["text"].cast(pa.large_binary()).to_pylist() == texts
    assert seq_of(Reject(3, 7, "", "", b"")) == 3 * LINES_PER_FILE + 7
    assert LINES_PER_FILE == 2**40


@pytest.mark.parametrize(
    ("most_lines", "most_bytes", "pieces"),
    [
        (100, 1000, [8]),
        (3, 1000, [3, 3, 2]),
        (3, 10, [2, 1, 1, 3, 1]),
        (100, 9, [1, 2, 1, 4]),
        (1, 10, [1] * 8),
    ],
)
def test_few_lines_are_held_at_a_time(most_lines: int, most_bytes: int, pieces: Sequence[int]) -> None:
    texts = ["a" * size for size in (4, 6, 1, 20, 2, 2, 2, 2)]
    lines = pa.table({"seq": range(len(texts)), "text": pa.array(texts, pa.large_string())})
    found = list(irregular.pieces(lines, most_bytes, most_lines))
    assert [piece.num_rows for piece in found] == pieces
    assert pa.concat_tables(found).equals(lines)
    assert list(irregular.pieces(lines.slice(0, 0), most_bytes, most_lines)) == []


# ---- files of cells ------------------------------------------------------------------------------------------------


def test_cells_of_two_batches_are_those_of_both() -> None:
    cells = ParsedCells(["m"], ["e"], ["r"], ["d"], {("track", "a"): {"x:a": None}}, Counter({"a": 1}))
    more = {("track", "a"): {"x:b": None, "x:a": None}, ("page", None): {"x:c": None}}
    cells.extend(ParsedCells(["m2"], ["e2"], ["r2"], ["d2"], more, Counter({"b": 2, "a": 3})))
    assert cells == ParsedCells(
        ["m", "m2"],
        ["e", "e2"],
        ["r", "r2"],
        ["d", "d2"],
        {("track", "a"): {"x:a": None, "x:b": None}, ("page", None): {"x:c": None}},
        Counter({"a": 4, "b": 2}),
    )


def test_the_files_of_cells_can_be_measured_and_deleted(tmp_path: Path) -> None:
    names = ["m", "m2", "e", "r", "d"]
    for size, name in enumerate(names):
        (tmp_path / name).write_bytes(b"x" * 10**size)
    m, m2, e, r, d = (str(tmp_path / name) for name in names)
    cells = ParsedCells([m, m2], [e], [r], [d, str(tmp_path / "gone")])
    assert cells.size() == 111
    cells.delete()
    assert list(tmp_path.glob("[a-z]")) == []


def test_the_most_frequent_events_have_tables() -> None:
    events = Counter({'"A b"': 2, '"名"': 9, '"Email Opened"': 7, '"email_opened"': 6, '"Users"': 3, '"c"': 1})
    cells = ParsedCells(events=events)
    assert cells.event_tables(4) == ["email_opened", "_users"]
    assert cells.event_tables(99) == ["email_opened", "_users", "a_b", "c"]
    assert cells.event_tables(0) == []


def test_what_is_no_message_is_written_as_rows(tmp_path: Path) -> None:
    files = CellWriter(str(tmp_path))
    messages = {
        5: Message({"id": "a", "x:b": "1", "x:x:c": '"2"'}, [Discard("d", "3", "no_column")], []),
        6: Message({"id": "e"}, [], []),
        7: Message({"x:f": "null"}, [Discard("g", "4", "not_text"), Discard("h", "5", "same_column")], []),
    }
    files.extras(messages)
    files.discards(messages)
    files.rejects([Reject(1, 2, "not_json", "not JSON", b"\xffa\0\r\n")])
    files.extras({6: messages[6]})
    files.discards({})
    files.rejects([])
    extras, discards, rejects = (f"{tmp_path}/{name}.parquet" for name in ("0-extras", "1-discards", "2-rejects"))
    assert files.cells == ParsedCells(extras=[extras], discards=[discards], rejects=[rejects])
    another = files.another()
    another.extras(messages)
    assert another.cells == ParsedCells(extras=[f"{tmp_path}/3-extras.parquet"])
    assert files.cells.extras == [extras]
    assert rows(extras, "seq", "column", "value") == [(5, "b", "1"), (5, "x:c", '"2"'), (7, "f", "null")]
    assert rows(discards, "seq", "column_name", "value", "reason") == [
        (5, "d", "3", "no_column"), (7, "g", "4", "not_text"), (7, "h", "5", "same_column"),
    ]  # fmt: skip
    assert rows(rejects, "seq", "id", "reason", "message", "raw") == [
        (LINES_PER_FILE + 2, digest(b"\xffa\0"), "not_json", "not JSON", "\\xffa\\x00")
    ]


def rows(path: str, *columns: str) -> list[tuple[object, ...]]:
    """Returns the rows of a file with these columns: an integer, then text."""
    table = pq.read_table(path)
    assert table.schema == pa.schema([(name, pa.string() if at else pa.int64()) for at, name in enumerate(columns)])
    return [tuple(row.values()) for row in table.to_pylist()]


# ---- batches -------------------------------------------------------------------------------------------------------


class Parsing:
    """A parser that is given one batch after the other; `slow` has the lines on the slow path."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parser = Parser(str(folder))
        self.reader = LineReader(engine.connect(None, 200, 1))
        self.slow: list[bytes] = []
        self._batches = 0
        monkeypatch.setattr(irregular, "read_message", self._read_message)

    def _read_message(self, line: bytes, declared: frozenset[str]) -> Message:
        self.slow.append(line.rstrip())
        return read_message(line, declared)

    def parse(self, *lines: Line, rejects: Sequence[Reject] = ()) -> ParsedCells:
        [batch] = batches([lines])
        self.slow.clear()
        return self.parser.parse(self.reader, batch._replace(rejects=list(rejects)))

    def rows(self, cells: ParsedCells, *columns: str) -> list[tuple[object, ...]]:
        """Returns the messages by their lines, without irregular ones."""
        files = engine.parquet_files(cells.messages, union_by_name="true")
        listed = "".join(f", {engine.name(column)}" for column in columns)
        return self.reader.con.execute(
            f"SELECT seq, id{listed} FROM {files} WHERE NOT irregular ORDER BY seq"
        ).fetchall()


@pytest.fixture
def parsing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parsing:
    return Parsing(tmp_path, monkeypatch)


def track(id_: str, **properties: object) -> str:
    return json.dumps(message(messageId=id_, properties=properties))


def test_lines_of_shapes_that_are_known_are_read_at_once(parsing: Parsing) -> None:
    cells = parsing.parse(track("a", x=1), "", "  ", track("b", **{" x": 2}))
    assert parsing.rows(cells, "x:x") == [(1, "a", "1"), (4, "b", "2")]
    assert (parsing.slow, cells.rejects) == ([], [])
    # All are of known shapes, one of them irregular.
    some = [track("a", x=1), track("b", x=1.5e-7), track("c", x=3)]
    cells = parsing.parse(*some)
    assert parsing.rows(cells) == [(1, "a"), (2, "b"), (3, "c")]
    assert parsing.slow == [some[1].encode()]
    # A line that is not JSON among known, irregular and unknown ones; then the same again.
    some = [track("a", x=1), "{", track("b", x=1.5e-7), track("c", y=2), track("d", y=1.5e-7), "", "x", track("e", x=3)]
    for _ in range(2):
        cells = parsing.parse(*some)
        assert parsing.rows(cells) == [(1, "a"), (3, "b"), (4, "c"), (5, "d"), (8, "e")]
        assert parsing.slow == [some[at].encode() for at in (1, 2, 4, 6)]
        [rejects] = cells.rejects
        assert pq.read_table(rejects)["raw"].to_pylist() == ["{", "x"]
        assert cells.columns == {("track", '"Email Opened"'): {"x:x": None, "x:y": None}}
        assert cells.events == {'"Email Opened"': 5}
    assert parsing.rows(parsing.parse("", "x")) == []


# Values for any field, and in which fields they are irregular: as ids, JSON text that looks like a string, and
# anything but text; elsewhere, numbers whose digits would change, NaN, and `{}`.
VALUES = (
    '"{x"', '"{"', '"|"', '"[x"', '"[1]"', '"a"', '"5"', '"1.5"', '"1.50"', '"1e5"', '"-0"', '"true"', '"NaN"', '"#"',
    '"!"', r'"\""', r'"\\"', r'"\u00e9"', '"é"', '"2019-03-04T05:06:07Z"', r'"\u0000"', r'"\ud800"', '""', "5", "-12",
    "12345678901234567", "0", "1.5", "-1.25", "1.50", "1e5", "0.00001", "-0", "NaN", "Infinity", "true", "false",
    "null", "[1]", "[1,2.5]", '["1.50"]', "[1.50]", "[]", "{}",
)  # fmt: skip
EVERYWHERE = {r'"\u0000"', r'"\ud800"'}
NUMBERS = {"1.50", "1e5", "0.00001", "-0", "NaN", "Infinity", "[1.50]"}
BRACKETS = {'"{x"', '"{"'}
LISTS = {'"[x"', '"[1]"', "[1]", "[1,2.5]", '["1.50"]', "[1.50]", "[]"}
NO_IDS = {"0", "1.5", "-1.25", "{}"} | NUMBERS | BRACKETS | LISTS | EVERYWHERE
IN_DOUBT: dict[str, tuple[dict[str, Any], set[str]]] = {
    "type": ({"type": "$v"}, {*VALUES}),
    "event": ({"event": "$v"}, {value for value in VALUES if not value.startswith('"')} | EVERYWHERE),
    "id": ({"userId": "$v", "anonymousId": "a"}, NO_IDS),
    "only id": ({"userId": "$v"}, NO_IDS | {'""', "null"}),
    "message id": ({"messageId": "$v"}, NO_IDS),
    "group id": ({"type": "group", "event": ..., "groupId": "$v"}, NO_IDS),
    "name": ({"type": "page", "event": ..., "name": "$v"}, NO_IDS),
    "time": ({"sentAt": "$v"}, NUMBERS | EVERYWHERE),
    "text": ({"properties": {"campaign_id": "$v"}}, {"0", "1.5", "-1.25", "{}"} | NUMBERS | BRACKETS | EVERYWHERE),
    "context": ({"context": {"ip": "$v"}}, {"0", "1.5", "-1.25", "{}"} | NUMBERS | BRACKETS | EVERYWHERE),
    "boolean": ({"properties": {"transactional": "$v"}}, {"{}"} | NUMBERS | EVERYWHERE),
    "other": ({"properties": {"x": "$v"}}, {"{}"} | NUMBERS | EVERYWHERE),
    "trait": ({"type": "identify", "event": ..., "traits": {"x": "$v"}}, {"{}"} | NUMBERS | EVERYWHERE),
    "page": ({"type": "page", "event": ..., "properties": {"link_id": "$v"}}, {*VALUES} - {"null"}),
}


def test_what_the_engine_reads_otherwise_than_it_is_spelt_is_read_alone(parsing: Parsing) -> None:
    some = {
        raw(message(**{"messageId": f"{place} {n}", **fields}), v=value): (place, value)
        for place, (fields, _) in IN_DOUBT.items()
        for n, value in enumerate(VALUES)
    }
    for _ in range(2):  # of unknown shapes, and of known ones
        parsing.parse(*some)
        alone: dict[str, set[str]] = {place: set() for place in IN_DOUBT}
        for line in parsing.slow:
            place, value = some[line.decode()]
            alone[place].add(value)
        assert alone == {place: doubted for place, (_, doubted) in IN_DOUBT.items()}


@pytest.mark.parametrize("bad", ["loose", "name", "deep"])
def test_what_the_engine_takes_for_json_and_is_not_is_read_alone(bad: str, parsing: Parsing) -> None:
    nested = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    deep = raw(message(messageId="deep", properties={"x": "$v"}), v=nested)
    name = raw(message(messageId="$v", properties={"x": [1]}), v="nan")
    odd = {"loose": f"{track('loose', x=[1])[:-1]},}}", "name": name, "deep": deep}[bad]
    some = [track("a", x=[1]), odd, "", track("b", x=[1])]
    for _ in range(2):  # of unknown shapes, and of known ones
        cells = parsing.parse(*some)
        assert parsing.rows(cells) == [(1, "a"), (4, "b")]
        assert parsing.slow == [some[1].encode()]
        [rejects] = cells.rejects
        assert pq.read_table(rejects).select(["seq", "reason"]).to_pylist() == [{"seq": 2, "reason": "not_json"}]


def test_objects_that_many_irregular_lines_hold_are_learnt(parsing: Parsing) -> None:
    some = [track(f"{n:02}", a={"b": n}) for n in range(FREQUENT)]
    assert len(parsing.rows(parsing.parse(*some[1:]))) == FREQUENT - 1
    assert len(parsing.slow) == FREQUENT - 1
    for alone in (FREQUENT, 0):
        cells = parsing.parse(*some)
        assert [id_ for _, id_ in parsing.rows(cells)] == [f"{n:02}" for n in range(FREQUENT)]
        assert len(parsing.slow) == alone


def test_what_is_no_object_where_others_have_one_is_read_alone(parsing: Parsing) -> None:
    parsing.parse(*(track(f"{n}", plan={"name": n}) for n in range(FREQUENT)))
    some = [track(f"{n}", plan=plan) for n, plan in enumerate(({"name": 1}, None, {}, "free", ["a"], 5))]
    for _ in range(2):  # of unknown shapes, and of known ones
        cells = parsing.parse(*some)
        assert parsing.rows(cells, "x:plan_name") == [(n + 1, f"{n}", None if n else "1") for n in range(6)]
        assert parsing.slow == [line.encode() for line in some[3:]]
        [extras] = cells.extras
        assert rows(extras, "seq", "column", "value") == [(4, "plan", '"free"'), (5, "plan", '["a"]'), (6, "plan", "5")]


def test_the_first_lines_teach_the_objects_of_all_others(parsing: Parsing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "FIRST_LINES", FREQUENT)
    some = [track(f"{n:02}", a={"b": n}) for n in range(2 * FREQUENT)]
    assert parsing.parse("", "  ").messages == []
    cells = parsing.parse(*some)
    assert [id_ for _, id_ in parsing.rows(cells)] == [f"{n:02}" for n in range(2 * FREQUENT)]
    assert parsing.slow == [line.encode() for line in some[:FREQUENT]]


def test_other_threads_wait_for_the_first_lines(parsing: Parsing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "FIRST_LINES", 1)
    parse_pieces, parsed, is_next = Parser._parse_pieces, list[list[int]](), Event()
    first, second = batches([[track("a"), track("b")], [track("c"), track("d")]], lambda _: 2)
    waiting: list[Future[ParsedCells]] = []

    def noted(parser: Parser, reader: LineReader, lines: pa.Table, files: CellWriter) -> None:
        parsed.append([seq % LINES_PER_FILE for seq in lines["seq"].to_pylist()])
        if len(parsed) > 1:
            is_next.set()
        else:
            waiting.append(pool.submit(parser.parse, LineReader(reader.con), second))
            assert not is_next.wait(0.2)
        parse_pieces(parser, reader, lines, files)

    monkeypatch.setattr(Parser, "_parse_pieces", noted)
    with ThreadPoolExecutor(1) as pool:
        parsing.parser.parse(parsing.reader, first)
        waiting[0].result()
    assert (parsed[0], sorted(parsed[1:])) == ([1], [[1, 2], [2]])  # then the other batch as a whole


def test_the_columns_of_each_event_are_known(parsing: Parsing) -> None:
    cells = parsing.parse(
        track("a", x=1, n=None), track("b", y=2), track("c", x=3, y=4), track("d", slow=1.5e-7),
        message("Other", messageId="e", properties={"z": 1}),
        message("Only slow", messageId="f", properties={"z": "\0"}),
        message(None, type="page", event=..., messageId="g", properties={"p": 1}),
        identify(messageId="h", traits={"t": 1}, context={"zoo": 1}), identify(messageId="i", traits={"x": None}),
    )  # fmt: skip
    assert cells.columns == {
        ("track", '"Email Opened"'): {"x:x": None, "x:y": None},
        ("track", '"Other"'): {"x:z": None},
        ("track", '"Only slow"'): {},
        ("page", None): {"x:p": None},
        ("identify", None): {"x:t": None, "x:context_zoo": None},
    }
    assert cells.events == {'"Email Opened"': 4, '"Other"': 1, '"Only slow"': 1}
    found = [row for path in cells.extras for row in rows(path, "seq", "column", "value")]
    assert found == [(4, "slow", "1.5e-07")]


def test_times_are_read_and_what_is_none_is_discarded(parsing: Parsing) -> None:
    names = ("received_at", "sent_at", "original_timestamp", "timestamp")
    keys = ("receivedAt", "sentAt", "originalTimestamp", "timestamp")
    clocks: list[tuple[object, ...]] = [
        ("2019-03-04T05:06:07Z", "2019-03-04T05:06:06Z", "2019-03-04T05:06:01Z", ...),
        ("2019-03-04T05:06:07Z", "today", "Mon, 04 Mar 2019 05:06:01 GMT", ...),
        ("today", "2019-03-04T05:06:06Z", ..., "1551675961"),
        (..., ..., "now", "then"),
        ("2019-03-04T05:06:07Z", ..., ..., ...),
    ]
    seconds: list[tuple[int | None, ...]] = [
        (7, 6, 1, 2), (7, None, 1, 1), (6, 6, None, 1), (None, None, None, None), (7, None, None, 7),
    ]  # fmt: skip
    lost = [
        (2, "sent_at", '"today"'), (3, "received_at", '"today"'),
        (4, "original_timestamp", '"now"'), (4, "timestamp", '"then"'),
    ]  # fmt: skip
    # A line on the fast path, an irregular one of that shape, and one of a shape that is always irregular.
    others: list[dict[str, Any]] = [{}, {"properties": {"x": 1.5e-7}}, {"Type": 1}]
    for number, more in enumerate(others):
        cells = parsing.parse(*(json.dumps(message(**dict(zip(keys, clock, strict=True)), **more)) for clock in clocks))
        assert len(parsing.slow) == (len(clocks) if number else 0)
        at = datetime(2019, 3, 4, 5, 6, tzinfo=UTC).replace(tzinfo=None)
        assert parsing.rows(cells, *names) == [
            (seq, "m1", *(None if second is None else at.replace(second=second) for second in row))
            for seq, row in enumerate(seconds, 1)
        ]
        found = [row for path in cells.discards for row in rows(path, "seq", "column_name", "value", "reason")]
        assert sorted(found) == [(*value, "not_a_time") for value in lost]
    for odd in "AB":
        some = [json.dumps(message(event, sentAt="today" if event == odd else None)) for event in "AB"]
        [discards] = parsing.parse(*some).discards
        assert rows(discards, "seq", "column_name", "value", "reason") == [
            ("AB".index(odd) + 1, "sent_at", '"today"', "not_a_time")
        ]


def test_each_time_may_have_an_unusual_notation(parsing: Parsing) -> None:
    names = {
        "received_at": "receivedAt", "sent_at": "sentAt", "original_timestamp": "originalTimestamp",
        "timestamp": "timestamp",
    }  # fmt: skip
    some = [
        json.dumps(message(messageId=name, **({"receivedAt": ...} | {key: "Mon, 04 Mar 2019 05:06:07 GMT"})))
        for name, key in names.items()
    ]
    cells = parsing.parse(*some)
    assert (parsing.slow, cells.discards) == ([], [])
    at = datetime(2019, 3, 4, 5, 6, 7, tzinfo=UTC).replace(tzinfo=None)
    for (_, id_, *found), name in zip(parsing.rows(cells, *names), names, strict=True):
        times = dict(zip(names, found, strict=True))
        assert (id_, times) == (name, dict.fromkeys(names) | {"received_at": at, "timestamp": at, name: at})


def test_lines_of_irregular_shapes_are_read_alone(parsing: Parsing) -> None:
    some = [track("a", x=1), json.dumps(message(messageId="b", Type="track")), "", track("c", x=2)]
    for _ in range(2):  # of unknown shapes, and of known ones
        assert parsing.rows(parsing.parse(*some)) == [(1, "a"), (2, "b"), (4, "c")]
        assert parsing.slow == [some[1].encode()]


def test_what_the_origin_rejects_is_written_too(parsing: Parsing) -> None:
    given = Reject(0, 1, "too_long", "a line of 9 MB", b"a")
    cells = parsing.parse("[]", rejects=[given])
    found = [row for path in cells.rejects for row in pq.read_table(path).select(["seq", "reason"]).to_pylist()]
    assert found == [{"seq": 1, "reason": "too_long"}, {"seq": 1, "reason": "not_an_object"}]


def test_files_without_messages_have_all_columns(parsing: Parsing, tmp_path: Path) -> None:
    none = parsing.parser.no_messages(parsing.reader.con)
    assert none.messages == [f"{tmp_path}/0-messages.parquet"]
    assert (parsing.rows(none), none.columns, none.events) == ([], {}, {})
    some = parsing.parse(track("a"))
    [empty], [full] = none.messages, some.messages
    assert pq.read_schema(empty).equals(pq.read_schema(full))
    canary = parsing.parser.parse_canary(parsing.reader)
    assert parsing.rows(canary, "user_id", "x:a") == [(parse.CANARY_SEQ, "m", "u", "1")]


# ---- messages whose rows cannot be made ----------------------------------------------------------------------------


class Making:
    """Makes no rows, raises for some messages, and records the messages of each call."""

    def __init__(self, context: ProjectionContext, bad: set[str], error: type[Exception] = ValueError) -> None:
        self.context, self.bad, self.error = context, bad, error
        self.asked: list[str] = []

    def __call__(self, attempt: ProjectionContext, only: str, path: str) -> None:
        assert Path(path).parent == Path(attempt.scratch)
        assert Path(attempt.scratch).parent == Path(self.context.scratch)
        assert attempt.con is not self.context.con
        [(memory, folder, threads)] = attempt.con.execute(
            "SELECT current_setting('memory_limit'), current_setting('temp_directory'), current_setting('threads')"
        ).fetchall()
        assert (memory, folder, threads, attempt.threads) == ("190.7 MiB", f"{attempt.scratch}/spill", 1, 1)
        assert (attempt.cells.rejects, attempt.cells.discards) == ([], [])
        files = engine.parquet_files(attempt.cells.messages, union_by_name="true")
        found = attempt.con.execute(f"SELECT id FROM {files} WHERE ({only}) AND NOT irregular ORDER BY seq").fetchall()
        ids = [id_ for (id_,) in found]
        self.asked.append(" ".join(ids))
        if raised := sorted(self.bad & set(ids)):
            raise self.error(" ".join(raised))


def test_the_messages_whose_rows_cannot_be_made_are_found_by_halves(parsing: Parsing, tmp_path: Path) -> None:
    cells = parsing.parse(*(track(id_, x=1.5e-7 if id_ == "d" else 1) for id_ in "abcdefg"), "{", track("h", x="\0"))
    canary = parsing.parser.parse_canary(parsing.reader)
    context = projection_context(parsing.reader.con, str(tmp_path), cells, threads=2)
    making = Making(context, {"b", "e", "h"})
    found = find_unreadable(context, canary, making)
    assert list(found.items()) == [("b", "ValueError: b"), ("e", "ValueError: e"), ("h", "ValueError: h")]
    assert making.asked == [
        "m", "a b c d e f g h", "a b c d", "a b", "a", "b", "c d", "e f g h", "e f", "e", "f", "g h", "g", "h",
    ]  # fmt: skip
    assert find_unreadable(context, canary, Making(context, set())) == {}
    with pytest.raises(MemoryError, match=r"^c$"):
        find_unreadable(context, canary, Making(context, {"c"}, MemoryError))
    # If rows cannot be made even for one message, and if there are no messages.
    making = Making(context, {"a", "m"})
    assert (find_unreadable(context, canary, making), making.asked) == ({}, ["m"])
    context = replace(context, cells=parsing.parser.no_messages(parsing.reader.con))
    making = Making(context, {"m"})
    assert (find_unreadable(context, canary, making), making.asked) == ({}, [])
