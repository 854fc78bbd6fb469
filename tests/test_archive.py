"""Every byte of an archive's files becomes part of a line or of a reject."""

import functools
import gzip
import random
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import boto3
import fsspec
import pyarrow as pa
import pytest
import zstandard
from fsspec.implementations.local import LocalFileSystem
from hypothesis import example, given, settings
from hypothesis import strategies as st

from archived import DAYS, SECOND, A, Line, Outcome, Refusing, not_blank, outcome, put, rows
from autopilothq.errors import ArchiveError
from autopilothq.segment.message import MAX_LINE, Reject, without_bom
from autopilothq.sources.archive.batches import CHUNK_ROWS, read_batches
from autopilothq.sources.archive.discover import list_files
from autopilothq.sources.archive.listing import File
from servers import S3


def outcomes(files: Sequence[File]) -> list[Outcome]:
    """Reads files together; returns the lines and rejects of each, numbered as if it were the only file."""
    lines, rejects, ended = outcome(files)
    found: list[Outcome] = [([], [], []) for _ in files]
    for at, number, text in lines:
        found[at][0].append((0, number, text))
    for reject in rejects:
        found[reject.file][1].append(reject._replace(file=0))
    for at, why in ended:
        found[at][2].append((0, why))
    return found


def stored(tmp_path: Path, *contents: bytes, fs: Any = None) -> list[File]:
    """Stores the contents as files; returns them in order."""
    paths = [put(tmp_path / "stored" / f"{at:06}.gz", data) for at, data in enumerate(contents)]
    return [File(str(path), "1", path.stat().st_size, fs or LocalFileSystem(), str(path)) for path in paths]


def as_lines(data: bytes, file: int = 0) -> list[Line]:
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return not_blank([(file, number, text + b"\n") for number, text in enumerate(lines, 1)])


def members(data: bytes, size: int) -> bytes:
    return b"".join(gzip.compress(data[at : at + size]) for at in range(0, len(data), size))


def named(data: bytes) -> bytes:
    """Returns a gzip with every optional field of the header, as some tools write them."""
    header = b"\x1f\x8b\x08\x1e\0\0\0\0\0\xff" + b"\x06\0BC\x02\0ab" + b"name.json\0" + b"a comment\0"
    return header + (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little") + gzip.compress(data)[10:]


def frames(data: bytes, size: int) -> bytes:
    return b"".join(zstandard.compress(data[at : at + size]) for at in range(0, len(data), size))


TEXT = '\ufeff{"a":1}\r\n\n  \n{"b":"ü😀"}\n{"c":3}'.encode()
KINDS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "gzip with a long header": named,
    "gzip members": lambda data: members(data, 5),
    "gzip and zeros": lambda data: gzip.compress(data) + bytes(1000),
    "gzip, zeros, gzip": lambda data: gzip.compress(data[:9]) + bytes(10) + gzip.compress(data[9:]),
    "gzip stored": lambda data: gzip.compress(data, 0),
    "zstd": zstandard.compress,
    "zstd frames": lambda data: frames(data, 5),
    "zstd after a skippable frame": lambda data: b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstandard.compress(data),
}


# ---- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_tell_the_kind_of_a_file(tmp_path: Path, kind: str) -> None:
    lines = [(0, 1, b'{"a":1}\r\n'), (0, 4, '{"b":"ü😀"}\n'.encode()), (0, 5, b'{"c":3}\n')]
    assert outcome(stored(tmp_path, KINDS[kind](TEXT))) == (lines, [], [(0, None)])


@pytest.mark.parametrize("content", [b"", b"\n", b" \t\r\n\n ", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
@pytest.mark.parametrize("kind", ["plain", "gzip", "zstd"])
def test_a_file_of_nothing_ends(tmp_path: Path, kind: str, content: bytes) -> None:
    assert outcome(stored(tmp_path, KINDS[kind](content))) == ([], [], [(0, None)])


def test_no_files_give_no_batches() -> None:
    assert list(read_batches([])) == []


def test_the_table_is_as_the_engine_wants_it(tmp_path: Path) -> None:
    [batch] = read_batches(stored(tmp_path, b"{}\n" * (CHUNK_ROWS + 1), b"[]"))
    assert batch.lines.schema == pa.schema([("file", pa.int32()), ("line", pa.int64()), ("text", pa.large_binary())])
    assert [chunk.num_rows for chunk in batch.lines.to_batches()] == [CHUNK_ROWS, 2]
    assert rows(batch.lines)[-2:] == [(0, CHUNK_ROWS + 1, b"{}\n"), (1, 1, b"[]\n")]
    assert (batch.rejects, batch.ended, batch.bytes) == ([], [(0, None), (1, None)], 3 * CHUNK_ROWS + 5)
    batch.lines.validate(full=True)


LINES = "".join(f'{{"n":{n},"x":"{random.Random(n).random()}"}}\n' for n in range(30)).encode()


def prefix_and_reject(found: Outcome, content: bytes) -> Reject:
    """Checks that a damaged file gives the beginning of its content, as lines and one reject."""
    lines, [reject], ended = found
    got = b"".join(text for _, _, text in lines) + reject.raw
    assert content.startswith(got)
    assert lines == as_lines(content[: len(got) - len(reject.raw)])
    assert reject[:3] == (0, len(lines) + 1, "truncated")
    assert ended == [(0, None)]
    return reject


def test_gzip_cut_anywhere_gives_all_that_can_be_had(tmp_path: Path) -> None:
    data = gzip.compress(LINES)
    cuts = range(1, len(data))
    for cut, found in zip(cuts, outcomes(stored(tmp_path, *(data[:cut] for cut in cuts))), strict=True):
        reject = prefix_and_reject(found, LINES)
        readable = zlib.decompressobj(31).decompress(data[:cut])
        assert reject.line == readable.count(b"\n") + 1
        assert reject.raw == readable.rpartition(b"\n")[2]
        assert reject.message == f"The file was cut off: it ends at byte {cut:,}, in the middle of its gzip data."


def test_zstd_cut_anywhere_gives_all_that_can_be_had(tmp_path: Path) -> None:
    data = frames(LINES, 250)
    whole = 0
    cuts = range(2, len(data))
    for cut, found in zip(cuts, outcomes(stored(tmp_path, *(data[:cut] for cut in cuts))), strict=True):
        lines, rejects, _ = found
        if rejects:
            reject = prefix_and_reject(found, LINES)
            assert reject.message == f"The file was cut off: it ends at byte {cut:,}, in the middle of its zstd data."
        else:
            # Cut between two frames, a file is valid, only shorter.
            whole += 1
            assert LINES.startswith(b"".join(line[2] for line in lines)[:-1])
    assert whole == -(-len(LINES) // 250) - 1


@pytest.mark.parametrize("pack", [gzip.compress, lambda data: gzip.compress(data, 0)], ids=["deflated", "stored"])
def test_a_wrong_byte_never_ends_the_run(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    data = pack(LINES)
    places = range(0, len(data), 7)
    wrong = (data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :] for at in places)
    for at, (lines, rejects, ended) in zip(places, outcomes(stored(tmp_path, *wrong)), strict=True):
        assert ended == [(0, None)]
        assert len(rejects) <= 1
        assert at < 10 or rejects or lines == as_lines(LINES)
        assert [number for _, number, _ in lines] == sorted(number for _, number, _ in lines)


DAMAGES: list[tuple[str, bytes, bytes, str]] = [
    ("checksum", gzip.compress(LINES)[:-8] + b"\0" * 8, b"", "gzip data are wrong near byte"),
    ("checksum, last line open", gzip.compress(LINES + b"{")[:-8] + b"\0" * 8, b"{", "incorrect data check"),
    ("length", gzip.compress(LINES)[:-4] + b"\0" * 4, b"", "incorrect length check"),
    ("block", members(LINES, 10**6) + gzip.compress(b"")[:10] + b"\xff", b"", "invalid block type"),
    ("garbage behind", gzip.compress(LINES) + b"garbage", b"", "its gzip data are followed by garbage at byte "),
    ("a wrong member behind", gzip.compress(LINES + b"{") + b"\x1f\x8b\x09garbage", b"{", "gzip data are wrong"),
    (
        "garbage behind zeros",
        gzip.compress(LINES) + bytes(9) + b"!",
        b"",
        "its gzip data are followed by garbage at byte ",
    ),
    ("zstd garbage", zstandard.compress(LINES) + b"garbage", b"", "zstd data are wrong near byte"),
    (
        "zstd checksum",
        zstandard.ZstdCompressor(write_checksum=True).compress(LINES)[:-4] + b"\0" * 4,
        b"",
        "zstd data are wrong near byte",
    ),
]


@pytest.mark.parametrize(("data", "raw", "message"), [row[1:] for row in DAMAGES], ids=[row[0] for row in DAMAGES])
def test_damage_is_told_behind_the_last_readable_byte(tmp_path: Path, data: bytes, raw: bytes, message: str) -> None:
    lines, [reject], ended = outcome(stored(tmp_path, data))
    assert lines == as_lines(LINES)
    assert reject[:3] == (0, 31, "truncated")
    assert reject.raw == raw
    assert message in reject.message
    assert ended == [(0, None)]


@functools.cache
def noise() -> bytes:
    """Returns lines that do not compress; a function, because each worker imports all tests."""
    return b"".join(b'{"n":"%x"}\n' % random.Random(n).getrandbits(400) for n in range(30_000))


@functools.cache
def noisy_lines() -> list[Line]:
    return as_lines(noise())


def spoilt(data: bytes) -> bytes:
    at = len(data) * 3 // 4
    return data[:at] + random.Random(1).randbytes(64) + data[at + 64 :]


@pytest.mark.parametrize(
    "damaged",
    [
        lambda data: spoilt(gzip.compress(data)),
        lambda data: spoilt(members(data, 250_000)),
        lambda data: frames(data[:2_500_000], 350_000) + b"garbage" + frames(data[2_500_000:], 350_000),
        lambda data: gzip.compress(data)[:1_250_000],
        lambda data: zstandard.compress(data)[:1_250_000],
    ],
    ids=["gzip", "gzip members", "zstd frames", "cut gzip", "cut zstd"],
)
def test_damage_deep_in_a_file_costs_only_what_follows(tmp_path: Path, damaged: Callable[[bytes], bytes]) -> None:
    lines, rejects, ended = outcome(stored(tmp_path, damaged(noise())))
    assert lines[:20_000] == noisy_lines()[:20_000]
    assert [(reject.reason, reject.line > 20_000) for reject in rejects] == [("truncated", True)]
    assert ended == [(0, None)]


def test_a_cut_gzip_of_few_bytes_gives_all_of_its_many_lines(tmp_path: Path) -> None:
    data = gzip.compress(b'{"n":1}\n' * 1_000_000)
    for cut in range(len(data) - 300, len(data), 60):
        readable = zlib.decompressobj(31).decompress(data[:cut])
        batches = list(read_batches(stored(tmp_path, data[:cut])))
        [reject] = batches[-1].rejects
        assert sum(len(batch.lines) for batch in batches) == readable.count(b"\n")
        assert reject.raw == readable.rpartition(b"\n")[2]


def test_a_file_that_cannot_be_opened_is_read_again_later(tmp_path: Path) -> None:
    gone, there = stored(tmp_path, b"{}\n", b"{}\n", fs=Refusing("0.gz", FileNotFoundError("gone")))
    message = f"Expected to read {gone.url} to its end, but reading failed at byte 0: FileNotFoundError: gone."
    reject = Reject(0, 1, "truncated", message, b"")
    assert outcome([gone, there]) == ([(1, 1, b"{}\n")], [reject], [(0, message), (1, None)])


@pytest.mark.parametrize(
    ("begin", "raw"), [(b"{}\n\xef\xbb\xbf{", b"{"), (b" \t ", b""), (b"\xef\xbb\xbf\n\xef\xbb\xbf\t ", b"")]
)
def test_what_is_left_of_a_file_has_neither_a_mark_nor_blanks_alone(tmp_path: Path, begin: bytes, raw: bytes) -> None:
    files = stored(tmp_path, begin + b"}\n", fs=Refusing("0.gz", TimeoutError("slow"), good=len(begin)))
    _, [reject], _ = outcome(files)
    assert (reject.reason, reject.raw) == ("truncated", raw)


@pytest.mark.parametrize("good", [3, 5000])
@pytest.mark.parametrize("error", [TimeoutError("slow"), ConnectionResetError("reset"), RuntimeError("odd")])
def test_a_connection_that_breaks_costs_only_the_rest(tmp_path: Path, error: Exception, good: int) -> None:
    files = stored(tmp_path, b"1\n2" * 9000, b"4\n", fs=Refusing("0.gz", error, good=good))
    why = f"{type(error).__name__}: {error}"
    message = f"Expected to read {files[0].url} to its end, but reading failed at byte {good:,}: {why}."
    head, _, raw = (b"1\n2" * 9000)[:good].rpartition(b"\n")
    lines = as_lines(head)
    assert outcome(files) == (
        [*lines, (1, 1, b"4\n")],
        [Reject(0, len(lines) + 1, "truncated", message, raw)],
        [(0, message), (1, None)],
    )


def test_a_connection_that_breaks_within_gzip_gives_what_came(tmp_path: Path) -> None:
    data = gzip.compress(LINES)
    good = len(data) // 2
    lines, [reject], [(_, why)] = outcome(stored(tmp_path, data, fs=Refusing("0.gz", OSError("lost"), good=good)))
    readable = zlib.decompressobj(31).decompress(data[:good])
    assert b"".join(text for _, _, text in lines) + reject.raw == readable
    assert reject.message == why
    assert why is not None
    assert why.endswith(f"at byte {good:,}: OSError: lost.")


@pytest.mark.parametrize("batch_bytes", [1, 50, 1 << 20])
@pytest.mark.parametrize("kind", ["plain", "gzip"])
def test_long_lines_are_set_aside(tmp_path: Path, kind: str, batch_bytes: int) -> None:
    text = b"\xef\xbb\xbf" + b"a" * 8 + b"\n" + b"b" * 9 + b"\n" + b" " * 99 + b"\nc\n" + b" " * 9 + b"d\n" + b"e" * 10
    lines, rejects, ended = outcome(stored(tmp_path, KINDS[kind](text)), batch_bytes=batch_bytes, max_line=8)
    assert lines == [(0, 1, b"a" * 8 + b"\n"), (0, 4, b"c\n")]
    assert rejects == [
        Reject(0, line, "line_too_long", f"Expected a line of at most 8 bytes, but it has {size}.", raw)
        for line, size, raw in [(2, 9, b"b" * 9), (5, 10, b" " * 9 + b"d"), (6, 10, b"e" * 10)]
    ]
    assert ended == [(0, None)]


@pytest.mark.parametrize("end", [b"", b"\n", b"\n1\n"])
def test_a_byte_order_mark_is_no_part_of_a_long_line(tmp_path: Path, end: bytes) -> None:
    mark, most = b"\xef\xbb\xbf", b"x" * MAX_LINE
    lines, rejects, _ = outcome(
        stored(tmp_path, b"0\n" + mark * 2 + most + b"\n" + mark + most + b"y\n" + mark + most + end)
    )
    assert [(line, text) for _, line, text in lines[:3]] == [
        (1, b"0\n"),
        (2, mark * 2 + most + b"\n"),
        (4, mark + most + b"\n"),
    ]
    message = "Expected a line of at most 1,048,576 bytes, but it has 1,048,577."
    assert rejects == [Reject(0, 3, "line_too_long", message, most)]


@pytest.mark.parametrize("kind", ["plain", "gzip"])
@pytest.mark.parametrize("long", [9, 2 * MAX_LINE + 9])  # within one block, and over several
def test_blanks_behind_marks_are_no_line_however_many(tmp_path: Path, kind: str, long: int) -> None:
    mark, blanks = b"\xef\xbb\xbf", b" " * long
    text = mark * 2 + blanks + b"\n1\n" + mark + blanks + b"\r\n" + mark + blanks + mark + b"\n2\n" + mark * 2 + blanks
    lines, [reject], ended = outcome(stored(tmp_path, KINDS[kind](text)), max_line=8)
    assert lines == [(0, 2, b"1\n"), (0, 5, b"2\n")]
    # A mark after anything else is text.
    message = f"Expected a line of at most 8 bytes, but it has {long + 3:,}."
    assert reject == Reject(0, 4, "line_too_long", message, (blanks + mark)[:MAX_LINE])
    assert ended == [(0, None)]


def test_a_line_of_byte_order_marks_is_read_in_bounded_time_and_memory(tmp_path: Path) -> None:
    text = b"1\n" + b"\xef\xbb\xbf" * (2 << 20) + b"2\n" + b"\xef\xbb\xbf" * (1 << 20)
    start = time.process_time()
    [(_, _, first), (_, number, second)], rejects, _ = outcome(stored(tmp_path, gzip.compress(text, 1)))
    assert (first, number, without_bom(second), rejects) == (b"1\n", 2, b"2\n", [])
    assert len(second) < 4 << 20
    assert time.process_time() - start < 4


@pytest.mark.parametrize(("before", "after", "long"), [(b"", b"", 0), (b"\xef\xbb\xbf", b"x", 1), (b"", b"x", 1)])
def test_a_last_line_of_a_megabyte_of_blanks_is_none(tmp_path: Path, before: bytes, after: bytes, long: int) -> None:
    blanks = b" \f" * MAX_LINE
    _, rejects, ended = outcome(stored(tmp_path, b"1\n" + before + blanks[: MAX_LINE + 1 - len(after)] + after))
    message = "Expected a line of at most 1,048,576 bytes, but it has 1,048,577."
    assert rejects == [Reject(0, 2, "line_too_long", message, blanks[:MAX_LINE])] * long
    assert ended == [(0, None)]


def test_a_line_of_64_megabytes_is_not_held(tmp_path: Path) -> None:
    text = b"1\n" + b"x" * (64 << 20) + b"\n3\n" + b"y" * MAX_LINE + b"\n" + b"z" * (MAX_LINE + 1)
    lines, rejects, _ = outcome(stored(tmp_path, gzip.compress(text, 1)))
    assert lines == [(0, 1, b"1\n"), (0, 3, b"3\n"), (0, 4, b"y" * MAX_LINE + b"\n")]
    message = "Expected a line of at most 1,048,576 bytes, but it has {:,}."
    assert rejects == [
        Reject(0, 2, "line_too_long", message.format(64 << 20), b"x" * MAX_LINE),
        Reject(0, 5, "line_too_long", message.format(MAX_LINE + 1), b"z" * MAX_LINE),
    ]


@pytest.mark.parametrize(
    ("between", "around", "cause"),
    [
        (b"", b"%s", "a file without line ends: each object needs a line of its own"),
        (b"\r", b" %s", "a file without line ends: each object needs a line of its own"),
        (b",", b"[%s]", "a JSON array: each object needs a line of its own, without brackets and commas"),
        (b",", b"%s", None),
        (b"", b"x%s", None),
    ],
)
def test_a_line_that_is_too_long_has_its_likely_cause(
    tmp_path: Path, between: bytes, around: bytes, cause: str | None
) -> None:
    text = around % between.join([b'{"a":1}', b'{"a":2}'])
    _, [reject], _ = outcome(stored(tmp_path, text), max_line=8)
    assert reject.message == f"Expected a line of at most 8 bytes, but it has {len(text)}." + (
        f" Likely cause: {cause}." if cause else ""
    )


BLANK_BLOCKS = {"spaces": b" " * (1 << 20), "newlines": b"\n" * (1 << 20), "blank lines": b"   \r\n" * (1 << 18)}


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
@pytest.mark.parametrize("blank", BLANK_BLOCKS)
def test_a_file_that_inflates_to_blanks_is_read_in_bounded_memory(tmp_path: Path, blank: str, pack: str) -> None:
    block, count = BLANK_BLOCKS[blank], 100  # three times the limit of a batch
    engine: Any = zlib.compressobj(1, wbits=31) if pack == "gzip" else zstandard.ZstdCompressor().compressobj()
    data = engine.compress(b"{}\n") + b"".join(engine.compress(block) for _ in range(count))
    data += engine.compress(b"\n{}\n") + engine.flush()
    given, rejects = [], []
    for batch in read_batches(stored(tmp_path, data)):
        assert batch.lines["text"].nbytes < 48 << 20
        if len(batch.lines):
            # The few blank lines that are left are between the first line and the last.
            given += [rows(batch.lines.slice(at, 1))[0] for at in (0, len(batch.lines) - 1)]
        rejects += batch.rejects
    assert sorted(set(not_blank(given))) == [(0, 1, b"{}\n"), (0, 3 + count * block.count(b"\n"), b"{}\n")]
    assert rejects == []


@pytest.mark.parametrize("batch_bytes", [1, 1000, 10_000])
def test_batches_are_bounded_by_bytes(tmp_path: Path, batch_bytes: int) -> None:
    files = stored(tmp_path, *[gzip.compress(b"{}\n" * 3)] * 50, b"x" * 99 + b"\n" + b"{}\n" * 1500)
    batches = list(read_batches(files, batch_bytes=batch_bytes))
    assert all(batch.lines["text"].nbytes <= max(batch_bytes, 200) + 8 * 1500 for batch in batches)
    assert max(sum(len(text) for _, _, text in rows(batch.lines)) for batch in batches) <= max(batch_bytes, 200)
    assert sum(batch.bytes for batch in batches) == sum(file.size for file in files)
    assert [index for batch in batches for index, _ in batch.ended] == list(range(51))


content = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.sampled_from([b"\n", b"\r\n", b" ", b"\xef\xbb\xbf", b"{}\n", b"x" * 30, b" " * 30, b"\x0b", b"\x0c\n"]),
    ),
    max_size=12,
).map(b"".join)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(content, st.sampled_from(sorted(KINDS))), max_size=4),
    st.integers(1, 300),
    st.sampled_from([5, 20, MAX_LINE]),
)
@example([(b"\n\xef\xbb\xbf" + b" " * 30 + b"\n", "plain")], 1, 5)  # a long blank line does not count either
@example([(b"\n\xef\xbb\xbf" + b" " * 30, "plain")], 1, 5)
def test_any_cutting_gives_the_same_lines(
    tmp_path_factory: pytest.TempPathFactory, contents: list[tuple[bytes, str]], batch_bytes: int, max_line: int
) -> None:
    contents = [
        (text, kind) for text, kind in contents if text[:1] not in (b"\x1f", b"\x28") and text[1:3] != b"\x2a\x4d"
    ]
    files = stored(tmp_path_factory.mktemp("cut"), *(KINDS[kind](text) for text, kind in contents))
    lines, rejects, ended = outcome(files, batch_bytes=batch_bytes, max_line=max_line)
    expected = [line for at, (text, _) in enumerate(contents) for line in as_lines(text, at)]
    assert lines == [line for line in expected if len(without_bom(line[2])) - 1 <= max_line]
    assert [(reject.file, reject.line, reject.raw + b"\n") for reject in rejects] == [
        (file, line, without_bom(text))
        for file, line, text in expected
        if len(without_bom(text)) - 1 > max_line and not_blank([(file, line, without_bom(text))])
    ]
    assert ended == [(at, None) for at in range(len(contents))]
    assert outcome(files, max_line=max_line) == (lines, rejects, ended)


def test_many_small_files_share_a_batch(tmp_path: Path) -> None:
    files = stored(tmp_path, *[gzip.compress(b'{"a":1}\n' * 10)] * 2000)
    started = time.perf_counter()
    [batch] = read_batches(files)
    assert len(batch.lines) == 20_000
    assert len(batch.ended) == 2000
    assert time.perf_counter() - started < 4


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


def test_closed_early_it_leaves_no_thread(tmp_path: Path) -> None:
    before = threads()
    batches = read_batches(stored(tmp_path, *[gzip.compress(LINES)] * 50), batch_bytes=1000)
    next(batches)
    assert threads() > before
    batches.close()  # type: ignore[attr-defined]
    assert threads() == before


def test_an_interrupt_passes_and_leaves_no_thread(tmp_path: Path) -> None:
    before = threads()
    batches = read_batches(stored(tmp_path, *[gzip.compress(LINES)] * 50), batch_bytes=1000)
    next(batches)
    with pytest.raises(KeyboardInterrupt):
        batches.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    assert threads() == before


def test_an_error_of_its_own_reaches_the_consumer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("autopilothq.sources.archive.batches._table", failing)
    with pytest.raises(ZeroDivisionError):
        next(read_batches(stored(tmp_path, b"{}\n")))


# ---- over the wire -------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_reads_a_bucket_over_http(s3: S3) -> None:
    url = s3.bucket()
    bucket = url.removeprefix("s3://")
    client = boto3.client("s3", **s3.credentials)
    big = b"".join(b'{"n":"%x"}\n' % random.Random(n).getrandbits(4000) for n in range(20_000))
    for day in DAYS.values():
        client.put_object(Bucket=bucket, Key=f"p/segment-logs/{A}/{day}/", Body=b"")
        for at in range(3):
            client.put_object(
                Bucket=bucket,
                Key=f"p/segment-logs/{A}/{day}/{at}.gz",
                Body=gzip.compress(big if (day, at) == (SECOND, 1) else b"{}\n", 1),
                ContentEncoding="gzip",
            )
    client.put_object(Bucket=bucket, Key=f"p/segment-logs/{A}/dummy-object.txt", Body=b"x")
    fs = fsspec.filesystem("s3", **s3.storage_options)
    files = list(list_files([url], since=date(2019, 3, 2), until=date(2019, 3, 2), fs=fs))
    assert [file.url for file in files] == [f"{url}/p/segment-logs/{A}/{SECOND}/{at}.gz" for at in range(3)]
    assert (
        list(
            list_files(
                [f"s3a://{bucket}/p/segment-logs/{A}/{SECOND}/", f"{url}/p/*/*/1551484800000/*.gz"],
                fs=fs,
            )
        )
        == files
    )
    assert files[0].version == client.head_object(Bucket=bucket, Key=files[0].path.removeprefix(f"{bucket}/"))[
        "ETag"
    ].strip('"')
    lines, rejects, ended = outcome(files)
    assert lines == [(0, 1, b"{}\n"), *as_lines(big, 1), (2, 1, b"{}\n")]
    assert (rejects, ended) == ([], [(0, None), (1, None), (2, None)])
    client.delete_object(Bucket=bucket, Key=files[0].path.removeprefix(f"{bucket}/"))
    again = list(list_files([f"{url}/p"], since=date(2019, 3, 2), until=date(2019, 3, 2), fs=fs))
    assert again == files[1:]
    [_, [gone], [(_, why), *_]] = outcome(files[:1])
    assert why is not None
    assert gone.message == why
    for nothing, message in [("s3://nobody", "nothing is there"), (f"{url}/missing/x.gz", "nothing is there")]:
        with pytest.raises(ArchiveError, match=message):
            list_files([nothing], fs=fs)
