"""What all sources share: times, batches, records, scans and their spool, and reports, without a load."""

import gzip
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import autopilothq
from autopilothq.catalog import LISTS, LISTS_CONTACTS, REJECT_REASONS
from autopilothq.clients.autopilot import Page
from autopilothq.errors import InvalidSetting, NotSupported, UnexpectedResponse
from autopilothq.segment.json_text import JsonNumber, JsonObject
from autopilothq.segment.message import MAX_LINE, Batch, Discard, Record, Reject, Rejected, parse_json
from autopilothq.sources import event_filter, records, times
from autopilothq.sources.event_filter import requested_messages
from autopilothq.sources.report import LoadReport, limit_warning
from autopilothq.sources.scans import Scan, ScanBatch
from autopilothq.sources.settings import split_names
from autopilothq.sources.spool import FetchedPage, ScanStart, Spool, fetch, fetch_ahead
from autopilothq.utc import epoch_ms, format_time
from autopilothq.warehouses.selection import ALL_MESSAGES, MessageSelection

SCAN = "2019-05-01T00:00:00.000Z"
NOON = datetime(2019, 3, 1, 12, tzinfo=UTC)
EAST = timezone(timedelta(hours=2))


# ---- times ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ("", None),
        (" ", None),
        ("2019-03-01", datetime(2019, 3, 1, tzinfo=UTC)),
        ("2019-03-01T12:00:00", NOON),
        ("2019-03-01T14:00:00+02:00", NOON),
        (date(2019, 3, 1), datetime(2019, 3, 1, tzinfo=UTC)),
        (NOON.replace(tzinfo=None), NOON),
        (NOON, NOON),
    ],
)
def test_a_time_of_the_settings_is_in_utc_unless_it_says_otherwise(given: Any, expected: datetime | None) -> None:
    assert times.read_setting_time(given) == expected


@pytest.mark.parametrize("name", ["since", "until"])
@pytest.mark.parametrize("text", ["yesterday", "0001-01-01T00:00:00+02:00", "9999-12-31T23:59:59-12:00"])
def test_a_time_of_the_settings_that_is_none_is_told(name: str, text: str) -> None:
    with pytest.raises(InvalidSetting) as raised:
        times.read_setting_time(text, name)
    assert str(raised.value) == (
        f"Expected a time such as 2019-03-01 or 2019-03-01T12:00:00Z for {name}, but got '{text}'."
    )


@pytest.mark.parametrize("until", ["2019-03-02T00:00:00Z", date(2019, 3, 1)])
def test_times_that_leave_nothing_between_them_are_told(until: Any) -> None:
    with pytest.raises(InvalidSetting) as raised:
        autopilothq.api("key", since="2019-03-02", until=until)
    assert str(raised.value) == f"Expected a later time for until than since, 2019-03-02, but got {until}."
    assert times.read_period("2019-03-02", None) == (datetime(2019, 3, 2, tzinfo=UTC), None)


@pytest.mark.parametrize("number", ["0", "7", "270877436812", "1482221100000", "99999999999999", "253402300799999"])
def test_milliseconds_are_read_exactly(number: str) -> None:
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(number))
    assert times.read_time(JsonNumber(number)) == time
    assert [epoch_ms(time + timedelta(microseconds=more)) for more in (0, 1, 999)] == [int(number)] * 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (JsonNumber("253402300800000"), None),  # in the year 10000
        (JsonNumber("1000000000000000"), None),
        (JsonNumber("1e15"), None),
        (JsonNumber("1e99999999"), None),  # quickly, although it has so many digits
        (JsonNumber("1.5"), datetime(1970, 1, 1, 0, 0, 0, 1500, tzinfo=UTC)),
        (JsonNumber("-1e3"), datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("1 Mar 2019 12:00:00 GMT", None),  # the API always writes the day of the week
        (JsonNumber("-1e15"), None),
        (JsonNumber("1482221100000.0004"), datetime(2016, 12, 20, 8, 5, tzinfo=UTC)),
        (JsonNumber("1482221100000.0006"), datetime(2016, 12, 20, 8, 5, 0, 1, tzinfo=UTC)),
        (1482221100000, None),
        ("2019-03-01T12:00:00", NOON),
        ("Fri, 01 Mar 2019 14:00:00 +0200", NOON),
        ("Fri, 01 Mar 2019 12:00:00 -0000", NOON),
        # In UTC these are beyond the calendar.
        ("9999-12-31T23:59:59-01:00", None),
        ("0001-01-01T00:00:00+01:00", None),
    ],
)
def test_a_time_that_no_calendar_has_is_none(value: Any, expected: datetime | None) -> None:
    found = times.read_time(value)
    assert found == expected
    assert found is None or found.tzinfo is UTC


@pytest.mark.parametrize(
    ("microsecond", "exact", "text"),
    [
        (0, False, "2019-03-01T12:00:00.000Z"),
        (0, True, "2019-03-01T12:00:00.000Z"),
        (5000, True, "2019-03-01T12:00:00.005Z"),
        (5001, True, "2019-03-01T12:00:00.005001Z"),
        (5001, False, "2019-03-01T12:00:00.005Z"),
    ],
)
def test_a_time_is_written_in_utc(microsecond: int, exact: bool, text: str) -> None:
    noon = NOON.replace(microsecond=microsecond)
    assert format_time(noon, exact) == format_time(noon.astimezone(EAST), exact) == text
    assert format_time(NOON.replace(microsecond=5001)) == "2019-03-01T12:00:00.005Z"


def test_times_do_not_depend_on_where_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert times.read_time("2019-03-01T12:00:00") == times.read_setting_time("2019-03-01T12:00:00") == NOON
        assert times.read_setting_time(date(2019, 3, 1)) == NOON - timedelta(hours=12)
        assert format_time(NOON) == "2019-03-01T12:00:00.000Z"
    finally:
        monkeypatch.undo()
        time.tzset()


# ---- batches and records -------------------------------------------------------------------------------------------


def test_a_batch_is_as_the_engine_wants_it() -> None:
    reject = Reject(3, 2, "not_json", "why", b"x")
    batch = records.make_batch(3, [(1, b"{}"), (4, b"[]")], rejects=[reject], ended=True, unfinished="why", size=9)
    assert batch.lines.schema == pa.schema([("file", pa.int32()), ("line", pa.int64()), ("text", pa.large_binary())])
    assert batch.lines.to_pylist() == [{"file": 3, "line": 1, "text": b"{}"}, {"file": 3, "line": 4, "text": b"[]"}]
    assert batch[1:] == ([reject], [(3, "why")], 9)
    assert records.make_batch(0, [])[1:] == ([], [], 0)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (b'{"name": "a"}', "a"),
        (b'{"name": " a "}', " a "),
        (b'{"name": "\\u00e4\\""}', 'ä"'),
        (b'{"name": 7.50}', "7.50"),
        (b'{"name": " "}', None),
        (b'{"name": ""}', None),
        (b'{"name": true}', None),
        (b'{"name": [1]}', None),
        (b'{"name": null}', None),
        (b'{"name": "a\\u0000"}', None),
        (b"{}", None),
    ],
)
def test_a_record_is_known_by_its_key(text: bytes, key: str | None) -> None:
    if key is not None:
        assert records.read_record("custom_fields", text).key == (key,)
        return
    with pytest.raises(Rejected) as rejected:
        records.read_record("custom_fields", text)
    keys = "an object with name" if text != b"{}" else "an empty object"
    assert rejected.value.args == ("no_id", f"{REJECT_REASONS['no_id']}: expected `name` in {keys}")


def test_what_a_record_lacks_is_named_with_its_first_keys() -> None:
    value = parse_json(b'{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6}')
    with pytest.raises(Rejected) as rejected:
        records.record_of(LISTS_CONTACTS, value)
    assert rejected.value.args[1] == (
        f"{REJECT_REASONS['no_id']}: expected `list_id`, `contact_id` in an object with a, b, c, d, e"
    )


def test_fields_of_a_record_leave_its_own_columns_alone() -> None:
    value = parse_json(b'{"list_id":"l","received_at":1,"uuid_ts":2,"deleted_at":3,"title":"T","a":{"b":4,"c":{}}}')
    assert records.record_of(LISTS, value) == Record(
        ("l",),
        {
            "list_id": '"l"', "_received_at": "1", "_uuid_ts": "2", "_deleted_at": "3", "title": '"T"', "a_b": "4",
        },
        [],
        {},
    )  # fmt: skip
    odd = records.record_of(LISTS, parse_json('{"list_id":"l","日本":1,"a":{"日本":2}}'.encode()))
    assert odd.discards == [
        Discard(f"record.{name}", value, "no_column") for name, value in (("日本", "1"), ("a.日本", "2"))
    ]
    more = records.record_of(LISTS_CONTACTS, parse_json(b'{"contact_id":"c"}'), {"list_id": "l"})
    assert more == Record(("l", "c"), {"list_id": '"l"', "contact_id": '"c"'}, [], {})


# ---- scans ---------------------------------------------------------------------------------------------------------


def test_a_scan_starts_its_counts_at_zero_each_time_that_it_is_read() -> None:
    scan = Scan("contacts", "url", SCAN, lines_before=3, contacts_before=2)
    assert (scan.size, scan.lines, scan.contacts, scan.total, scan.complete, scan.lost) == (0, 3, 2, None, False, False)
    scan.size, scan.lines, scan.contacts, scan.complete, scan.lost = 9, 9, 9, True, True
    scan.begin_reading()
    assert (scan.size, scan.lines, scan.contacts, scan.complete, scan.lost) == (0, 3, 2, False, False)


@pytest.mark.parametrize(("first", "version"), [(1, SCAN), (2, f"{SCAN} from page 2")])
def test_each_part_of_a_scan_has_a_version(first: int, version: str) -> None:
    assert Scan("contacts", "url", SCAN, first=first).version == version


def test_lines_rejects_and_records_of_a_scan_are_numbered_together() -> None:
    found = ScanBatch(Scan("lists", "url", SCAN, index=2, lines_before=4), size=7)
    found.add_lines([b"1\n", b"2\n"])
    values = [
        parse_json(b'{"list_id":"l"}'),
        JsonNumber("7.0"),
        parse_json(b'{"title":"T"}'),
        parse_json(b'{"list_id":"m"}'),
    ]
    found.add_records(LISTS, values)
    found.reject("x" * MAX_LINE, "not_json", "why")
    found.add_lines([b"3\n"])
    assert [record.key for record in found.records["lists"]] == [("l",), ("m",)]
    batch = found.batch(True, "why")
    assert batch.lines.to_pylist() == [
        {"file": 2, "line": line, "text": text} for line, text in ((5, b"1\n"), (6, b"2\n"), (10, b"3\n"))
    ]
    assert batch.rejects == [
        Reject(2, 7, "not_an_object", REJECT_REASONS["not_an_object"], b"7.0"),
        Reject(
            2, 8, "no_id", f"{REJECT_REASONS['no_id']}: expected `list_id` in an object with title", b'{"title":"T"}'
        ),
        Reject(2, 9, "not_json", "why", b'"' + b"x" * (MAX_LINE - 1)),
    ]
    assert (batch.ended, batch.bytes, found.scan.lines) == ([(2, "why")], 7, 10)
    found.add_records(LISTS_CONTACTS, [parse_json(b'{"contact_id":"c"}')], {"list_id": "l"})
    assert [record.key for record in found.records["lists_contacts"]] == [("l", "c")]
    assert found.batch()[2:] == ([], 7)


# ---- the spool -----------------------------------------------------------------------------------------------------


def spooled(folder: Path, *bookmarks: str | None) -> Spool:
    spool = Spool.begin(folder, ScanStart("account", SCAN))
    for bookmark in bookmarks:
        spool.put(Page([], None, bookmark))
    return spool


def test_a_spool_begins_empty_and_private(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "00000001.gz").write_bytes(b"old")
    spool = Spool.begin(tmp_path / "s", ScanStart("account", SCAN, 3, "b2", 200))
    assert (spool.last, spool.bookmark, spool.complete) == (2, "b2", False)
    assert os.listdir(tmp_path / "s") == ["scan.json"]
    assert json.loads((tmp_path / "s" / "scan.json").read_bytes()) == {
        "account": "account", "started_at": SCAN, "page": 3, "bookmark": "b2", "contacts": 200,
    }  # fmt: skip
    spool.put(Page([], None, None))
    assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "s").iterdir()} == {"0o600"}
    assert (spool.last, spool.bookmark, spool.complete) == (3, None, True)
    assert [Spool.open(tmp_path / "s").complete, Spool.open(tmp_path)] == [True, None]  # type: ignore[union-attr]
    spool.delete()
    assert not (tmp_path / "s").exists()


def test_a_scan_without_pages_is_not_complete(tmp_path: Path) -> None:
    spool = spooled(tmp_path / "s")
    assert (spool.last, spool.bookmark, spool.complete) == (0, None, False)


def test_a_page_is_its_bookmark_and_its_contacts(tmp_path: Path) -> None:
    spool = spooled(tmp_path)
    size = spool.put(Page([JsonObject([("n", JsonNumber("1.10"))])], 5, "b1"))
    content = b'"b1"\n{"contacts":[{"n":1.10}]}'
    assert (size, gzip.decompress((tmp_path / "00000001.gz").read_bytes())) == (len(content), content)
    contacts = [JsonObject([("n", JsonNumber("1.10"))])]
    assert spool.read(1) == (contacts, size)
    assert spool.contacts_of(FetchedPage(1, 3, None, None)) == (contacts, size)
    assert spool.contacts_of(FetchedPage(1, 3, None, [])) == ([], 3)


@pytest.mark.parametrize(("bookmarks", "again"), [(("b1", "b2"), "b1"), (("b1",), "b1"), ((), "b0")])
def test_a_bookmark_never_comes_twice(tmp_path: Path, bookmarks: tuple[str, ...], again: str) -> None:
    spool = Spool.begin(tmp_path, ScanStart("account", SCAN, bookmark="b0"))
    for bookmark in bookmarks:
        spool.put(Page([], None, bookmark))
    for one in (spool, Spool.open(tmp_path)):
        assert one is not None
        with pytest.raises(UnexpectedResponse) as error:
            one.put(Page([], None, again))
        assert str(error.value) == (
            f"Page {len(bookmarks) + 1} of this scan: bookmark {again!r} came before; stopped, because the scan would"
            " never end"
        )


def test_pages_before_one_are_dropped(tmp_path: Path) -> None:
    spool = spooled(tmp_path, "b1", "b2", None)
    spool.drop(2)
    assert sorted(path.name for path in tmp_path.glob("*.gz")) == ["00000002.gz", "00000003.gz"]


@pytest.mark.parametrize(
    "damage", [b"", b"no gzip", gzip.compress(b"x" * 99, mtime=0)[:-4], gzip.compress(b"no JSON\n", mtime=0)]
)
def test_a_spool_with_a_damaged_page_is_none(tmp_path: Path, damage: bytes) -> None:
    spooled(tmp_path, "b1")
    (tmp_path / "00000001.gz").write_bytes(damage)
    assert Spool.open(tmp_path) is None


@pytest.mark.parametrize("how", [fetch, fetch_ahead])
def test_pages_are_fetched_until_the_time_is_up(tmp_path: Path, how: Callable[..., Iterator[FetchedPage]]) -> None:
    given = [Page(["a"], 7, "b1"), Page([], None, "b2"), Page([], None, None)]
    spool = spooled(tmp_path)
    assert list(how(spool, iter(given), lambda: spool.last == 2)) == [
        FetchedPage(1, 23, 7, ["a"]), FetchedPage(2, 20, None, []),
    ]  # fmt: skip
    assert [fetched.page for fetched in how(spool, iter(given[2:]), lambda: False)] == [3]
    assert spool.complete


# ---- which messages are requested ----------------------------------------------------------------------------------


def test_names_of_events_are_tables() -> None:
    assert requested_messages(None, None) == ALL_MESSAGES
    assert requested_messages("Email Opened, email_clicked", None) == MessageSelection(
        frozenset({"email_opened", "email_clicked"}), all_but=False
    )
    assert requested_messages([], None) == MessageSelection(frozenset(), all_but=False)
    assert requested_messages(None, ["Email Opened"]) == MessageSelection(frozenset({"email_opened"}), all_but=True)
    for names, text in [
        (("a", "b"), "Expected events or exclude, but got both: say which events you want, or which you do not."),
        (("…", None), "Expected the name of an event, like Email Opened or email_opened, but got '…'."),
    ]:
        with pytest.raises(NotSupported) as error:
            requested_messages(*names)
        assert str(error.value) == text


@pytest.mark.parametrize("names", [5, [1, 2], {"a": 1}, b"a"])
def test_names_that_are_no_texts_are_refused_with_their_setting(names: Any) -> None:
    for call in (
        lambda: autopilothq.archive(names),
        lambda: autopilothq.archive("a", events=names),
        lambda: autopilothq.archive("a", exclude=names),
        lambda: autopilothq.adopt(names),
        lambda: split_names(names, "activities"),
    ):
        with pytest.raises(InvalidSetting, match=r"^Expected a text or a list of texts as the setting \w+, but got "):
            call()


LINES = {
    b'{"type":"track","event":"Email Opened"}': "email_opened",
    b'{"type":"track","event":"email_opened"}': "email_opened",
    b'{"type":"track","event":"Order Done"}': "order_done",
    b'{"type":"track","event":"\\u2026"}': None,
    b'{"type":"identify","event":"Email Opened"}': None,
    b'{"type":"track","type":"identify","event":"Order Done"}': "order_done",
    b'{"type":"track","event":"Email Opened","x":"\\ud800"}': "email_opened",
    # Lines that are not messages stay, so that the load rejects them.
    b'{"type":"track","event":7}': "",
    b'{"type":"track"}': "",
    b'{"type":"import","event":"Order Done"}': "",
    b'{"type":7,"event":"Order Done"}': "",
    b'{"type":"track","event":7,"x":"\\ud800"}': "",
    b'{"type":"track","event":["Order Done"],"x":"\\ud800"}': "",
    b'{"type":7,"event":"Order Done","x":"\\ud800"}': "",
    b'\xef\xbb\xbf{"type":"track","event":"Order Done"}': "order_done",
    b'\xef\xbb\xbf{"type":"track","event":"Email Opened"}': "email_opened",
    b"no JSON": "",
    b"[]": "",
    b'{"type":"track","event":"Email Opened"}\xff': "",
}


@pytest.mark.parametrize("all_but", [True, False])
def test_only_lines_whose_messages_are_requested_are_left(all_but: bool) -> None:
    lines = [(number, text) for number, text in enumerate(LINES, 1)]
    batch = records.make_batch(3, lines, ended=True, size=5)
    requested = MessageSelection(frozenset({"email_opened"}), all_but)
    found, skipped, named = event_filter.filter_batch(batch, {3: requested}.__getitem__, lambda name: name)
    stays = [text for text, table in LINES.items() if table == "" or (table == "email_opened") != all_but]
    assert found.lines["text"].to_pylist() == stays
    assert (skipped, named) == (Counter({3: len(LINES) - len(stays)}), {"email_opened"})
    assert (found.rejects, found.ended, found.bytes) == ([], [(3, None)], 5)
    assert event_filter.filter_batch(batch, lambda _: ALL_MESSAGES, str.upper) == (batch, Counter(), ())


def test_each_file_has_its_own_requested_messages_by_the_name_in_the_destination() -> None:
    text = b'{"type":"track","event":"Email Opened"}'
    parts = [records.make_batch(file, [(1, text)]).lines for file in (0, 1, 2)]
    named = [MessageSelection(frozenset({name}), all_but=False) for name in ("email_opened_long", "x")]
    requested = [ALL_MESSAGES, *named]
    found, skipped, _ = event_filter.filter_batch(
        Batch(pa.concat_tables(parts), [], [], 0), requested.__getitem__, lambda name: name[:12]
    )
    assert (found.lines["file"].to_pylist(), skipped) == ([0, 1], Counter({2: 1}))


# ---- reports -------------------------------------------------------------------------------------------------------


def test_the_report_of_a_run_adds_up_its_loads() -> None:
    first = LoadReport(
        files=1, files_known=2, files_done=3, bytes=4, bytes_done=5, lines=6, stored=7, duplicates=8, rejected=9,
        lines_skipped=10, rejects={"a": 1, "b": 2}, reject_causes={"k": 1}, discards=11,
        beyond_limits={"x": {"t": 1}, "y": {"t": 2}},
        rows={"tracks": 3, "_audit": 2}, unfinished={"u": "w"}, skipped={"s": 1}, skipped_examples={"s": ["e"]},
        contacts=12, contacts_total=13, people=14, people_total=15, cut_off="c", warnings=["w1"], seconds=1.5,
        mended=16, failed={"p": "why", "q": "first"}, tasks=17, tasks_done=18, people_found_by="x",
    )  # fmt: skip
    part = LoadReport(
        files=101, files_known=102, files_done=103, bytes=104, bytes_done=105, lines=106, stored=107, duplicates=108,
        rejected=109, lines_skipped=110, rejects={"b": 20, "c": 30}, reject_causes={"k": 2, "l": 3},
        discards=111,
        beyond_limits={"x": {"t": 10, "u": 1}, "z": {"t": 3}}, rows={"tracks": 30, "users": 1, "_audit": 1},
        unfinished={"v": "w"}, skipped={"r": 1}, skipped_examples={"r": ["f"]}, contacts=112, contacts_total=113,
        people=114, people_total=115, cut_off="d", warnings=["w2"], seconds=2.5,
        mended=116, failed={"q": "last"}, tasks=117, tasks_done=118, people_found_by="y",
    )  # fmt: skip
    assert first.then(part) == LoadReport(
        files=101, files_known=102, files_done=103, bytes=104, bytes_done=110, lines=112, stored=114, duplicates=116,
        rejected=118, lines_skipped=120, rejects={"a": 1, "b": 22, "c": 30}, reject_causes={"k": 3, "l": 3},
        discards=122,
        beyond_limits={"x": {"t": 11, "u": 1}, "y": {"t": 2}, "z": {"t": 3}},
        rows={"tracks": 33, "users": 1, "_audit": 2}, unfinished={"v": "w"}, skipped={"r": 1},
        skipped_examples={"r": ["f"]}, contacts=112, contacts_total=113, people=128, people_total=15, cut_off="d",
        warnings=["w1", "w2"], seconds=2.5, mended=132, failed={"p": "why", "q": "last"}, tasks=117, tasks_done=118,
        people_found_by="y",
    )  # fmt: skip
    assert LoadReport().then(LoadReport(people_total=9)) == LoadReport(people_total=9, rows={"_audit": 0})


@pytest.mark.parametrize(
    ("reason", "tables", "text"),
    [
        (
            "too_many_tables",
            {"a": 1, "b": 2_000},
            "too_many_tables: messages of events without a table, in _discards: a (1), b (2,000)",
        ),
        (
            "too_many_columns",
            {f"t{n}": n for n in range(10)},
            (
                "too_many_columns: values beyond a limit, in _discards: t0 (0), t1 (1), t2 (2), t3 (3), t4 (4), t5 (5),"
                " t6 (6), t7 (7), t8 (8), t9 (9)"
            ),
        ),
        (
            "x",
            {f"t{n}": 1 for n in range(1_012)},
            "x: values beyond a limit, in _discards: " + ", ".join(f"t{n} (1)" for n in range(10)) + " and 1,002 more",
        ),
    ],
)
def test_a_limit_that_was_reached_is_told_with_some_tables(reason: str, tables: dict[str, int], text: str) -> None:
    assert limit_warning(reason, tables) == text
