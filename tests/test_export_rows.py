"""The exact lines that an export makes from rows, and the files for them, without a dataset."""

import gzip
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from autopilothq.catalog import Type
from autopilothq.errors import RunError
from autopilothq.export import days
from autopilothq.export.days import DayFiles
from autopilothq.export.messages import DiscardedValue, MessageRows
from autopilothq.export.target import ExportTarget, is_own_file
from autopilothq.export.values import check_values, number_json
from autopilothq.warehouses.hints import arrow_schema

AT = datetime(2019, 3, 4, 5, 6, 7, 412000, tzinfo=UTC)
RECEIVED = '"receivedAt":"2019-03-04T05:06:07.412Z"'
TYPES: dict[str, Type] = {
    **dict.fromkeys(("received_at", "timestamp", "sent_at", "original_timestamp"), "timestamp"),
    "share": "double", "n": "bigint", "ok": "bool", "no": "bool",
}  # fmt: skip


def lines(kind: str, row: Mapping[str, Any], *discards: tuple[str, str, str]) -> list[str]:
    """Returns the lines of a row with these cells and of one of nulls; checks that repeated rows give the same."""
    types: dict[str, Type] = {"id": "text", **{name: TYPES.get(name, "text") for name in row}}
    rows = [{"id": "m1", **row}, {"id": "m2", **dict.fromkeys(row)}]
    batch = pa.RecordBatch.from_pylist([*rows, *rows], schema=arrow_schema(types))
    found = {"m1": [DiscardedValue(*one) for one in discards], "m3": [DiscardedValue("n", "1", "not_a_number")]}
    messages = MessageRows(kind, types)
    made, repeated = (
        [line.decode() for line in messages.lines(some, found if discards else {})] for some in (batch[:2], batch)
    )
    assert [line[-1] for line in made] == ["\n", "\n"]
    assert repeated == [*made, *made]
    return [line[:-1] for line in made]


@pytest.mark.parametrize(
    ("kind", "row", "first", "second"),
    [
        (
            "track",
            {
                "received_at": AT, "timestamp": AT.replace(microsecond=412345), "event": "seats_changed",
                "event_text": "[1]", "user_id": 'é"', "n": 3, "share": 2.0, "ok": True, "no": False,
                "tags": '["a",1]', "odd": "[ 1", "_id": "mine", "context_ip": "1.2.3.4", "context_x": "[1]",
                "context_traits_email": "a@b.c", "context_traits": None, "context_page_url": "https://x",
                "context_user_agent": "x",
            },
            ('{"type":"track","messageId":"m1",%s,"timestamp":"2019-03-04T05:06:07.412345Z","event":"[1]",'
            '"userId":"é\\"","context":{"ip":"1.2.3.4","x":[1],"traits":{"email":"a@b.c"},"page_url":"https://x",'
            '"userAgent":"x"},'
            '"properties":{"n":3,"share":2.0,"ok":true,"no":false,"tags":["a",1],"odd":"[ 1","id":"mine"}}'),
            '{"type":"track","messageId":"m2","event":""}',
        ),
        (
            "track",
            {"received_at": AT, "event": "x", "context_traits_email": "a@b.c", "context_traits": "t", "group_id": "g"},
            ('{"type":"track","messageId":"m1",%s,"event":"x","context":{"traits_email":"a@b.c","traits":"t"},'
            '"properties":{"group_id":"g"}}'),
            '{"type":"track","messageId":"m2","event":""}',
        ),
        (
            "identify",
            {"received_at": AT, "user_id": "u", "email": "a@b.c", "_user_id": "own"},
            '{"type":"identify","messageId":"m1",%s,"userId":"u","traits":{"email":"a@b.c","user_id":"own"}}',
            '{"type":"identify","messageId":"m2"}',
        ),
        (
            "alias",
            {"previous_id": "p", "user_id": "u", "received_at": AT},
            '{"type":"alias","messageId":"m1","previousId":"p","userId":"u",%s}',
            '{"type":"alias","messageId":"m2"}',
        ),
        (
            "group",
            {"group_id": "g", "received_at": AT, "name": "Ada"},
            '{"type":"group","messageId":"m1","groupId":"g",%s,"traits":{"name":"Ada"}}',
            '{"type":"group","messageId":"m2"}',
        ),
        (
            "page",
            {"name": "Home", "received_at": AT, "url": "https://x", "_name": "own"},
            '{"type":"page","messageId":"m1","name":"Home",%s,"properties":{"url":"https://x","name":"own"}}',
            '{"type":"page","messageId":"m2"}',
        ),
    ],
)  # fmt: skip
def test_the_line_of_a_row(kind: str, row: dict[str, Any], first: str, second: str) -> None:
    assert lines(kind, row) == [first.replace("%s", RECEIVED), second]


ROW = {"received_at": None, "timestamp": None, "user_id": None, "event": "x", "n": 1, "context_ip": "i"}
NO_EVENT = {**ROW, "event": None}


@pytest.mark.parametrize(
    ("row", "discards", "inside"),
    [
        # A value that did not fit its column follows the one that did, under another key for the same column.
        (ROW, [("n", '"many"', "not_a_number")], '"event":"x","context":{"ip":"i"},"properties":{"n":1,"n ":"many"}'),
        (
            ROW,
            [
                ("n", "2", "same_column"), ("k", "3", "not_a_number"), ("n", "4", "not_a_number"),
                ("_id", "5", "not_text"),
            ],
            '"event":"x","context":{"ip":"i"},"properties":{"n":1,"k":3,"n ":4,"id":5,"n  ":2}',
        ),
        (
            ROW,
            [("context_ip", '"j"', "same_column"), ("context_traits_email", "1", "not_text")],
            '"event":"x","context":{"ip":"i","traits":{"email":1},"ip ":"j"},"properties":{"n":1}',
        ),
        # The message's own keys.
        (
            ROW,
            [("received_at", '"yesterday"', "not_a_time")],
            '"receivedAt":"yesterday","event":"x","context":{"ip":"i"},"properties":{"n":1}',
        ),
        (
            {**ROW, "received_at": AT, "timestamp": AT},
            [("received_at", '"yesterday"', "not_a_time")],
            ('"receivedAt":"yesterday","timestamp":"2019-03-04T05:06:07.412Z","event":"x","context":{"ip":"i"},'
            '"properties":{"n":1}'),
        ),
        (
            {**ROW, "sent_at": AT, "received_at": AT, "timestamp": AT.replace(year=2018)},
            [("received_at", '"yesterday"', "not_a_time")],
            ('"receivedAt":"yesterday","timestamp":"2018-03-04T05:06:07.412Z","sentAt":"2019-03-04T05:06:07.412Z",'
            '"event":"x","context":{"ip":"i"},"properties":{"n":1}'),
        ),
        (
            {**ROW, "original_timestamp": AT, "received_at": AT},
            [("received_at", '"yesterday"', "not_a_time")],
            ('"receivedAt":"yesterday","originalTimestamp":"2019-03-04T05:06:07.412Z","event":"x",'
            '"context":{"ip":"i"},"properties":{"n":1}'),
        ),
        (
            {**ROW, "received_at": AT},
            [("received_at", '"tomorrow"', "same_column"), ("id", '"m9"', "same_column"), ("user_id", "7", "not_text")],
            f'{RECEIVED},"userId":7,"event":"x","context":{{"ip":"i"}},"properties":{{"n":1}}',
        ),
        (  # Also if the value that stays is what a load would use instead.
            {**ROW, "received_at": AT, "timestamp": AT, "anonymous_id": "a@b.c", "context_traits_email": "a@b.c"},
            [("received_at", '"tomorrow"', "same_column"), ("anonymous_id", '"a2"', "same_column")],
            (f'{RECEIVED},"timestamp":"2019-03-04T05:06:07.412Z","anonymousId":"a@b.c","event":"x",'
            '"context":{"ip":"i","traits":{"email":"a@b.c"}},"properties":{"n":1}'),
        ),
        # The email replaced an anonymous id that could not be stored, and will again.
        (
            {**ROW, "anonymous_id": "a@b.c", "context_traits_email": "a@b.c"},
            [("anonymous_id", "[1]", "not_text")],
            '"anonymousId":[1],"event":"x","context":{"ip":"i","traits":{"email":"a@b.c"}},"properties":{"n":1}',
        ),
        (
            {**ROW, "anonymous_id": "a1", "context_traits_email": "a@b.c"},
            [("anonymous_id", '"a2"', "same_column")],
            '"anonymousId":"a1","event":"x","context":{"ip":"i","traits":{"email":"a@b.c"}},"properties":{"n":1}',
        ),
        # An id that replaces nothing stays.
        (
            {**ROW, "received_at": AT, "anonymous_id": "a1", "context_traits_email": "a@b.c"},
            [("received_at", '"yesterday"', "not_a_time"), ("anonymous_id", "[1]", "not_text")],
            (f'{RECEIVED},"anonymousId":"a1","event":"x","context":{{"ip":"i","traits":{{"email":"a@b.c"}}}},'
            '"properties":{"n":1}'),
        ),
        # The value for an object may be text.
        (
            {**ROW, "context_traits": "t"},
            [("context_traits_email", "5", "not_text")],
            '"event":"x","context":{"ip":"i","traits":"t","traits_email":5},"properties":{"n":1}',
        ),
        # Properties with the names of objects; a second object of that name is not restored.
        (
            ROW,
            [
                ("context", "5", "same_column"), ("properties", '"x"', "same_column"),
                ("context", '{"a":1}', "same_column"), ("properties", '{"a":1}', "same_column"),
            ],
            '"event":"x","context":{"ip":"i"},"properties":{"n":1,"context":5,"properties":"x"}',
        ),
        # Values without a column return to their place if it is certain.
        (
            ROW,
            [
                ("context.page.名", "1", "no_column"), ("properties.名", "2", "no_column"),
                ("properties.in.名.é", "3", "no_column"), ("properties.n.名", "4", "no_column"),
                ("properties.\\u0000", "5", "no_column"), ("properties.a.b", "6", "no_column"),
                ("traits.名", "7", "no_column"), ("名", "8", "no_column"), ("properties.\\\\", "9", "no_column"),
                ('properties."', "10", "no_column"),
            ],
            ('"event":"x","context":{"ip":"i","page":{"名":1}},'
            '"properties":{"n":1,"n":{"名":4},"名":2,"in":{"名":{"é":3}},"\\u0000":5,"\\\\\\\\":9,"\\"":10}'),
        ),
        (
            {**ROW, "context_traits_email": "a@b.c"},
            [("context.traits.名", "1", "no_column"), ("k", '{"a":1}', "same_column")],
            '"event":"x","context":{"ip":"i","traits":{"email":"a@b.c","名":1}},"properties":{"n":1,"k":{"a":1}}',
        ),
        (
            ROW,
            [("context.traits.名", "1", "no_column"), ("context_traits", '"t"', "same_column")],
            '"event":"x","context":{"ip":"i","traits":"t","traits":{"名":1}},"properties":{"n":1}',
        ),
        # An event without a table: all of its properties are discarded, by their keys.
        (
            NO_EVENT,
            [
                ("_id", "1", "no_column"), ("名", "2", "no_column"), ("n", '"m"', "not_a_number"),
                ("properties", "3", "no_column"),
            ],
            '"event":"","context":{"ip":"i"},"properties":{"n":1,"n ":"m","_id":1,"名":2,"properties":3}',
        ),
    ],
)  # fmt: skip
def test_discarded_values_are_in_the_line_again(
    row: dict[str, Any], discards: list[tuple[str, str, str]], inside: str
) -> None:
    first, second = lines("track", row, *discards)
    assert first == f'{{"type":"track","messageId":"m1",{inside}}}'
    assert second == '{"type":"track","messageId":"m2","event":""}'


def test_an_alias_has_nowhere_for_a_property() -> None:
    discards = [("k", '"y"', "same_column"), ("properties.名", "1", "no_column")]
    row = {"user_id": "u", "note": "x"}
    assert lines("alias", row, *discards)[0] == '{"type":"alias","messageId":"m1","userId":"u"}'


def test_a_pages_own_name_comes_back_to_the_message() -> None:
    discards = [("name", "5", "not_text"), ("_name", "6", "not_text")]
    assert lines("page", {"url": None, "name": None}, *discards)[0] == (
        '{"type":"page","messageId":"m1","name":5,"properties":{"name":6}}'
    )


# ---- files -----------------------------------------------------------------------------------------------------------


class Folder(ExportTarget):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.stage = path

    def publish(self) -> int:
        return len(self._sizes)


def test_days_have_files_of_a_size_and_wait_in_memory_no_longer_than_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(days, "BUFFERED", 6)
    first = sum(len(days._compressed(lines)) for lines in (b"a\nc\n", b"d\ne\nf\n"))
    monkeypatch.setattr(days, "MOST_FILE_BYTES", first)
    target = Folder(tmp_path)
    files = DayFiles(target)
    written = []
    for day, line in ((1, b"a\n"), (0, b"bb\n"), (1, b"c\n"), (1, b"d\n"), (1, b"e\nf\n"), (1, b"g\n"), (-1, b"hh\n")):
        files.add(day, line)
        written.append(sum(1 for path in tmp_path.rglob("*.gz")))
    files.flush()
    files.flush()
    found = {
        path.relative_to(tmp_path / "segment-logs/autopilothq").as_posix(): gzip.decompress(path.read_bytes())
        for path in tmp_path.rglob("*.gz")
    }
    assert written == [0, 0, 2, 2, 2, 2, 2]
    assert found == {
        "0/export-0001.gz": b"bb\n",
        "86400000/export-0001.gz": b"a\nc\nd\ne\nf\n",
        "86400000/export-0002.gz": b"g\n",
        "-86400000/export-0001.gz": b"hh\n",
    }
    assert target._sizes == {
        path.relative_to(tmp_path).as_posix(): path.stat().st_size for path in tmp_path.rglob("*.gz")
    }


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("segment-logs/autopilothq/-86400000/export-0001.gz", True),
        ("segment-logs/autopilothq/0/export-12345.gz", True),
        ("of one's own.parquet", True),
        ("folder/tracks.parquet", False),
        ("segment-logs/other/0/export-0001.gz", False),
        ("segment-logs/autopilothq/0/export-0001.gz.part", False),
        ("segment-logs/autopilothq/0/mine-0001.gz", False),
        ("archive/segment-logs/autopilothq/0/export-0001.gz", False),
        ("tracks.parquet.txt", False),
    ],
)
def test_files_of_an_export_are_known_by_their_names(name: str, own: bool) -> None:
    assert is_own_file(name) is own


FIRST, LAST = AT.replace(1, 1, 1, 0, 0, 0, 0), AT.replace(9999, 12, 31, 23, 59, 59, 999_999)


@pytest.mark.parametrize(
    ("of", "fit", "unfit", "shown"),
    [
        (pa.timestamp("us", "UTC"), [FIRST, None, LAST], (1 << 63) - 1, "infinity"),
        (pa.timestamp("us", "UTC"), [None], 1 - (1 << 63), "-infinity"),
        (pa.timestamp("us", "UTC"), [AT], -62_135_596_800_000_001, "0000-12-31 23:59:59.999999Z"),
        (pa.timestamp("us", "UTC"), [AT], 253_402_300_800_000_000, "10000-01-01 00:00:00.000000Z"),
        (pa.float64(), [1e300, None], float("nan"), "nan"),
        (pa.float64(), [-0.0], float("-inf"), "-inf"),
        (pa.string(), ["1.5", "1e+20", None], "NaN", "NaN"),
        (pa.string(), ["7"], "Infinity", "Infinity"),
        (pa.string(), ["7"], "-inf", "-inf"),
    ],
)
def test_a_value_that_no_message_can_have_is_named(of: pa.DataType, fit: list[Any], unfit: Any, shown: str) -> None:
    texts, cells = pa.array(["nan"] * len(fit)), pa.array(fit, of)
    check_values(pa.record_batch({"x": cells, "name": texts}), ["x"], "order")
    with pytest.raises(
        RunError, match=rf"^Expected a .* in the column x of order, but got {shown}\.\nChange this value"
    ):
        check_values(pa.record_batch({"name": texts[:1], "x": pa.array([unfit], of)}), ["x"], "order")


@pytest.mark.parametrize(
    ("text", "json"),
    [
        ("2", "2.0"), ("2.50", "2.5"), (".50", "0.5"), ("-.12345678901234567890", "-0.12345678901234567890"),
        ("1e+20", "1e+20"), ("12345678901234567890", "12345678901234567890"), ("9" * 400, "9" * 400),
        ("0.1", "0.1"), ("100000000000000000000000", "1e+23"),
    ],
)  # fmt: skip
def test_a_number_that_a_float_cannot_be_keeps_its_digits(text: str, json: str) -> None:
    assert number_json(text) == json
