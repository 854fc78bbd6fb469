"""The bytes of an archive's files are read in blocks from disks and stores, decompressed, and rewritten."""

import gzip
import os
import stat
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zstandard
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from autopilothq.errors import ArchiveError
from autopilothq.segment.message import Reject
from autopilothq.sources.archive import batches, blocks, remove_lines
from autopilothq.sources.archive.blocks import BLOCK_BYTES, BlockReader, DamagedFile, UnreadableFile, open_readers
from autopilothq.sources.archive.decompress import compression, decompressed
from autopilothq.sources.archive.discover import list_files
from autopilothq.sources.archive.listing import File, StoreTimeout


class Store(AsyncFileSystemWrapper):  # type: ignore[misc]
    """A bucket in memory that answers asynchronously and records the ranges that are requested.

    Each request for a range takes one of `errors` and raises it, unless it is None.
    """

    _cat_file: Any

    def __init__(self, data: dict[str, bytes], errors: Sequence[Exception | None] = ()) -> None:
        memory = MemoryFileSystem()
        memory.store, memory.pseudo_dirs = {}, [""]
        for path, content in data.items():
            memory.pipe(path, content)
        super().__init__(memory)
        self.ranges: list[tuple[str, int, int]] = []
        fetch, left = self._cat_file, iter(errors)

        async def ranged(path: str, start: int, end: int) -> Any:
            self.ranges.append((path, start, end))
            if error := next(left, None):
                raise error
            return await fetch(path, start=start, end=end)

        self._cat_file = ranged

    def file(self, path: str, **fields: Any) -> File:
        info = self.info(path)
        return File(f"memory:/{path}", f"{info['size']}-", info["size"], self, path)._replace(**fields)


def on_disk(path: Path, data: bytes) -> File:
    path.write_bytes(data)
    return File(str(path), "1", len(data), LocalFileSystem(), str(path))


def drained(reader: BlockReader) -> list[bytes]:
    return list(iter(reader.read, b""))


# ---- blocks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"0", b"0123", b"01234567"])
def test_a_store_is_asked_for_one_block_after_the_other(data: bytes) -> None:
    store = Store({"/b/x": data})
    reader = BlockReader(store.file("/b/x"), 4)
    assert drained(reader) == [data[at : at + 4] for at in range(0, len(data), 4)]
    assert reader.position == len(data)
    assert store.ranges == [("/b/x", at, at + 4) for at in range(0, len(data), 4)]
    reader.close()


@pytest.mark.parametrize("place", ["disk", "store"])
def test_bytes_are_taken_once_and_can_be_put_back(tmp_path: Path, place: str) -> None:
    data = b"0123456789"
    file = on_disk(tmp_path / "x", data) if place == "disk" else Store({"/b/x": data}).file("/b/x")
    reader = BlockReader(file, 4)
    assert (reader.peek(6), reader.position) == (b"012345", 0)
    assert (reader.read(3), reader.position) == (b"012", 3)
    assert (reader.peek(2), reader.position) == (b"34", 3)
    reader.unread(b"ab")
    assert (reader.read(), reader.position) == (b"ab34567", 8)
    assert (reader.peek(4), reader.peek(99), reader.position) == (b"89", b"89", 8)
    assert (reader.read(0), reader.read(1), reader.read(), reader.read(), reader.position) == (b"", b"8", b"9", b"", 10)
    reader.restart()
    assert (reader.position, b"".join(drained(reader)), reader.position) == (0, data, 10)
    reader.close()


def test_an_error_comes_behind_the_bytes_before_it_and_is_asked_for_once() -> None:
    store = Store({"/b/x": b"01234567"}, [None, RuntimeError("odd")])
    reader = BlockReader(store.file("/b/x"), 4)
    assert reader.peek(8) == b"0123"
    assert reader.read() == b"0123"
    for _ in range(2):
        with pytest.raises(UnreadableFile) as error:
            reader.read()
        assert str(error.value) == (
            "Expected to read memory://b/x to its end, but reading failed at byte 4: RuntimeError: odd."
        )
        assert error.value.__cause__ is reader.error
    assert len(store.ranges) == 2
    reader.restart()
    assert (reader.error, reader.waited, drained(reader)) == (None, 0.0, [b"0123", b"4567"])


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RuntimeError("odd"), "RuntimeError: odd"),
        (RuntimeError(), "RuntimeError"),
        (TimeoutError(), "no answer within 9 s (set by sources.autopilothq.read_timeout)"),
    ],
)
def test_an_error_is_named_by_its_type_unless_it_speaks_for_itself(error: Exception, text: str) -> None:
    with pytest.raises(UnreadableFile) as raised:
        BlockReader(Store({"/b/x": b"0"}, [error]).file("/b/x"), 4, timeout=9).read()
    assert str(raised.value) == f"Expected to read memory://b/x to its end, but reading failed at byte 0: {text}."


CHANGED = (
    "Expected to read memory://b/x to its end, but reading failed at byte {at}:"
    " it was written again after it was listed."
)


@pytest.mark.parametrize(
    ("fields", "block", "at"),
    [
        ({"version": "other"}, 4, 0),  # each of several blocks must be of the listed version
        ({"size": 9}, 99, 0),
        ({"version": "other", "size": 8}, 99, None),  # a single block is of one version, so any will do
        ({"size": 12, "version": "8-"}, 8, 8),
    ],
)
def test_blocks_of_another_version_are_not_taken(fields: dict[str, Any], block: int, at: int | None) -> None:
    store = Store({"/b/x": b"01234567"})
    if fields.get("size") == 9:
        fields = fields | {"version": "9-"}
    reader = BlockReader(store.file("/b/x", **fields), block)
    if at is None:
        assert drained(reader) == [b"01234567"]
        return
    with pytest.raises(UnreadableFile) as error:
        drained(reader)
    assert str(error.value) == CHANGED.format(at=at)


def test_a_file_that_grew_on_the_disk_is_read_to_its_new_end(tmp_path: Path) -> None:
    file = on_disk(tmp_path / "x", b"0123")
    (tmp_path / "x").write_bytes(b"01234567")
    with_handle = BlockReader(file, 3)
    assert drained(with_handle) == [b"012", b"345", b"67"]
    handle = with_handle.handle
    with_handle.close()
    assert (handle.closed, with_handle.handle) == (True, None)


def test_what_a_store_holds_without_a_size_is_opened() -> None:
    store = Store({"/b/x": b"01234567"})
    opened = []

    def spy(path: str, mode: str, **options: Any) -> Any:
        opened.append((path, mode, options))
        return store.sync_fs.open(path, mode)

    store.open = spy
    reader = BlockReader(store.file("/b/x", size=0), 4)
    assert drained(reader) == [b"0123", b"4567"]
    assert opened == [("/b/x", "rb", {"cache_type": "none"})]
    assert store.ranges == []


def test_the_first_blocks_of_the_next_files_are_fetched_ahead() -> None:
    store = Store({f"/b/{n}": b"%d" % n for n in range(6)})
    readers = open_readers([store.file(f"/b/{n}") for n in range(6)], 1, 5.0)
    first = next(readers)
    assert (first.timeout, first.block, first.read()) == (5.0, blocks.REMOTE_BLOCK, b"0")
    ahead = {path for path, _, _ in store.ranges}
    assert ahead <= {f"/b/{n}" for n in range(4)}
    assert [reader.read() for reader in readers] == [b"1", b"2", b"3", b"4", b"5"]
    assert {path for path, _, _ in store.ranges} == {f"/b/{n}" for n in range(6)}


def test_files_of_a_disk_are_opened_one_by_one_and_closed(tmp_path: Path) -> None:
    files = [on_disk(tmp_path / f"{n}", b"%d" % n) for n in range(6)]
    seen: list[BlockReader] = []
    for reader in open_readers(files, 3, 5.0):
        assert [other.handle for other in seen] == [None] * len(seen)
        assert (reader.block, reader.handle, reader.read()) == (3, None, b"%d" % len(seen))
        seen.append(reader)
    assert len(seen) == 6
    assert [reader.block for reader in open_readers(files[:1], BLOCK_BYTES * 2, 5.0)] == [BLOCK_BYTES]


def test_readers_that_nobody_takes_are_closed(tmp_path: Path) -> None:
    readers = open_readers([on_disk(tmp_path / f"{n}", b"%d" % n) for n in range(6)], 3, 5.0)
    first = next(readers)
    first.read()
    handle = first.handle
    readers.close()
    assert (handle.closed, first.handle) == (True, None)


def failed(error: Exception | None, waited: float, timeout: float = 120.0) -> Any:
    file = SimpleNamespace(url="s3://b/x\x1b")
    return SimpleNamespace(error=error, waited=waited, timeout=timeout, file=file)


@pytest.mark.parametrize(
    ("reader", "timeouts"),
    [
        (failed(None, 99), 0),
        (failed(RuntimeError("no"), 4.9), 0),
        (failed(RuntimeError("no"), 5.0), 4),
        (failed(RuntimeError("no"), 0.9, 1), 0),
        (failed(RuntimeError("no"), 1.0, 1), 4),
        (failed(blocks._FileChanged("other"), 99), 0),
    ],
)
def test_only_what_took_its_time_counts_as_unanswered(reader: Any, timeouts: int) -> None:
    assert blocks._count_timeouts(reader, 3) == timeouts


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StoreTimeout("no answer"), "no answer"),
        (ConnectionResetError(104, "Connection reset"), "ConnectionResetError: [Errno 104] Connection reset"),
        (PermissionError(13, "Permission denied", "b/x"), "PermissionError: Permission denied"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_a_store_that_is_down_ends_the_run(error: Exception, told: str) -> None:
    with pytest.raises(ArchiveError) as raised:
        blocks._count_timeouts(failed(error, 120), 7)
    assert str(raised.value) == (
        f"Expected to read s3://b/x\\x1b, but got {told}, like 7 files before it.\nCheck the endpoint and the network."
    )


# ---- compression ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"\x1f\x8b", "gzip"),
        (b"\x1f", "gzip"),
        (b"\x1fabc", None),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\x28\xb5\x2f", "zstd"),
        (b"\x28\xb5", "zstd"),
        (b"\x50\x2a\x4d\x18", "zstd"),
        (b"\x5f\x2a\x4d\x18", "zstd"),
        (b"(", None),
        (b"\x28\xb5ab", None),
        (b"", None),
        (b'{"a"', None),
    ],
)
def test_the_first_bytes_tell_the_compression(head: bytes, kind: str | None) -> None:
    assert compression(head) == kind


TEXT = b"".join(b"%d\n" % n for n in range(3_000))
ZSTD_WITH_DICTIONARY = b"\x28\xb5\x2f\xfd\x21\x07\x02\x11\x00\x002\n"  # the one-block frame of a dictionary with id 7
ZSTD_WITH_WINDOW = b"\x28\xb5\x2f\xfd\x00\xa0\x11\x00\x002\n"  # one of 2^30 bytes


def unpacked(tmp_path: Path, data: bytes, piece: int) -> tuple[list[bytes], str | None]:
    """Returns the pieces of a file's content, and the error that ended it."""
    found: list[bytes] = []
    reader = BlockReader(on_disk(tmp_path / "x", data), 1000)
    try:
        found.extend(decompressed(reader, piece))
    except DamagedFile as error:
        return found, str(error)
    finally:
        reader.close()
    return found, None


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
@pytest.mark.parametrize("piece", [100, 1 << 20])
def test_content_comes_in_pieces_of_the_size_that_is_asked_for(tmp_path: Path, pack: Any, piece: int) -> None:
    pieces, trouble = unpacked(tmp_path, pack(TEXT), piece)
    assert (b"".join(pieces), trouble) == (TEXT, None)
    assert 0 < max(map(len, pieces)) <= piece
    assert min(map(len, pieces)) > 0


@pytest.mark.parametrize(
    ("data", "content", "message"),
    [
        (
            gzip.compress(TEXT)[:-9],
            None,
            "The file was cut off: it ends at byte {size:,}, in the middle of its gzip data.",
        ),
        (
            gzip.compress(b"1\n") + b"garbage",
            b"1\n",
            "The file is damaged: its gzip data are followed by garbage at byte 22.",
        ),
        (
            gzip.compress(b"1\n") + bytes(1500) + b"garbage",
            b"1\n",
            "The file is damaged: its gzip data are followed by garbage at byte 1,522.",
        ),
        (
            gzip.compress(b"1\n")[:-8] + bytes(8),
            b"1\n",
            (
                "The file is damaged: its gzip data are wrong near byte 17 (Error -3 while decompressing data:"
                " incorrect data check)."
            ),
        ),
        (
            zstandard.compress(TEXT)[:-9],
            None,
            "The file was cut off: it ends at byte {size:,}, in the middle of its zstd data.",
        ),
        (
            zstandard.compress(b"1\n") + b"garbage",
            b"1\n",
            (
                "The file is damaged: its zstd data are wrong near byte 11 (zstd decompressor error: Unknown frame"
                " descriptor)."
            ),
        ),
        (
            zstandard.compress(b"1\n") + ZSTD_WITH_DICTIONARY,
            b"1\n",
            "The zstd data near byte 17 need a dictionary: compress the file again without one.",
        ),
        (
            ZSTD_WITH_WINDOW,
            b"",
            (
                "The zstd data near byte 5 need a window of over 128 MiB: compress the file again without --long and"
                " --ultra."
            ),
        ),
    ],
    ids=["cut gzip", "garbage", "garbage behind zeros", "checksum", "cut zstd", "zstd garbage", "dictionary", "window"],
)
def test_damage_is_reported_with_its_position(tmp_path: Path, data: bytes, content: bytes | None, message: str) -> None:
    pieces, trouble = unpacked(tmp_path, data, 1000)
    assert trouble == message.format(size=len(data))
    assert TEXT.startswith(b"".join(pieces)) if content is None else b"".join(pieces) == content


def test_zstd_frames_of_which_one_is_damaged_give_all_before_it(tmp_path: Path) -> None:
    good = [zstandard.ZstdCompressor(write_checksum=True).compress(part) for part in (TEXT, TEXT)]
    pieces, trouble = unpacked(tmp_path, good[0] + good[1][:-1] + b"\0", 1000)
    assert trouble is not None
    assert b"".join(pieces)[: len(TEXT)] == TEXT


# ---- lines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"a", b"\n", b"a\n\nb", b"ab\n" * (BLOCK_BYTES // 2), b"\n" * (BLOCK_BYTES + 1)])
def test_line_ends_are_behind_each_newline(data: bytes) -> None:
    expected = [at + 1 for at, byte in enumerate(data) if byte == 10]
    assert batches.line_ends(data).tolist() == expected
    assert batches.line_ends(data).dtype == np.int64


@pytest.mark.parametrize(
    ("content", "batch_bytes", "numbers"),
    [
        # A line counts with its bytes and 24 more.
        (b"{}\n", 54, [2, 2, 1]),
        (b"{}\n", 53, [1, 1, 1, 1, 1]),
        (b"{}\n", 81, [3, 2]),
        (b"1\n2\n", 104, [4, 4, 2]),
        (b"1\n2\n", 103, [2, 2, 2, 2, 2]),
    ],
)
def test_a_batch_is_as_full_as_it_may_be(tmp_path: Path, content: bytes, batch_bytes: int, numbers: list[int]) -> None:
    files = [on_disk(tmp_path / f"{n}.json", content) for n in range(5)]
    found = list(batches.read_batches(files, batch_bytes=batch_bytes))
    assert [len(batch.lines) for batch in found] == numbers
    assert sum(batch.bytes for batch in found) == 5 * len(content)
    lines = [(row["file"], row["line"]) for batch in found for row in batch.lines.to_pylist()]
    assert lines == [(file, line) for file in range(5) for line in range(1, 1 + content.count(b"\n"))]
    # A file ends in the batch of its last line, or in the next one.
    assert [file for batch in found for file, _ in batch.ended] == [0, 1, 2, 3, 4]


def test_bytes_behind_the_last_line_count_as_read(tmp_path: Path) -> None:
    file = on_disk(tmp_path / "x.json", b"{}\n" + b" " * 50)
    [batch] = batches.read_batches([file], batch_bytes=54)
    assert (len(batch.lines), batch.ended, batch.bytes) == (1, [(0, None)], 53)
    [batch] = batches.read_batches([on_disk(tmp_path / "y.json", b"{}\n" + b"x" * 50)], max_line=8)
    assert (len(batch.lines), len(batch.rejects), batch.bytes) == (1, 1, 53)


def test_rejects_fill_a_batch_too(tmp_path: Path) -> None:
    files = [on_disk(tmp_path / f"{n}.gz", gzip.compress(b"x" * 30)[:-8]) for n in range(4)]
    found = list(batches.read_batches(files, batch_bytes=60))
    assert [len(batch.rejects) for batch in found] == [2, 2]
    assert {reject.raw for batch in found for reject in batch.rejects} == {b"x" * 30}


def test_a_file_that_no_store_answers_for_in_time_is_for_another_time() -> None:
    store = Store({"/b/x": b"0\n", "/b/y": b"1\n"}, [TimeoutError(), TimeoutError()])
    files = [store.file("/b/x"), store.file("/b/y")]
    batches_ = [*batches.read_batches(files[:1], timeout=9), *batches.read_batches(files[1:])]
    whys = [
        f"Expected to read memory://b/{name} to its end, but reading failed at byte 0: no answer within {seconds} s"
        " (set by sources.autopilothq.read_timeout)."
        for name, seconds in (("x", 9), ("y", 120))
    ]
    assert [batch.rejects for batch in batches_] == [[Reject(0, 1, "truncated", why, b"")] for why in whys]
    assert [batch.ended for batch in batches_] == [[(0, why)] for why in whys]


# ---- written again -------------------------------------------------------------------------------------------------

LINES = [b'{"n":1}\r\n', b"\n", b'{"n":3}\n', b"  \n", b'{"n":5}']
PACKS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "plain": (bytes, bytes),
    "gzip": (gzip.compress, lambda data: zlib.decompressobj(31).decompress(data)),
    "zstd": (zstandard.compress, lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)),
}


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("lines", [[], [1], [2, 3], [5], [1, 2, 3, 4, 5], [6]])
def test_a_file_is_written_again_without_some_lines(tmp_path: Path, pack: str, lines: list[int]) -> None:
    packed, opened = PACKS[pack]
    path = tmp_path / "archive" / "x.gz"
    path.parent.mkdir()
    path.write_bytes(packed(b"".join(LINES)))
    path.chmod(0o640)
    [file] = listed(path)
    remove_lines.remove_lines(file, lines)
    assert opened(path.read_bytes()) == b"".join(line for n, line in enumerate(LINES, 1) if n not in lines)
    assert compression(path.read_bytes()[:4]) == (None if pack == "plain" else pack)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(path.parent) == ["x.gz"]


def listed(path: Path) -> list[File]:
    return list(list_files([str(path)]))


def test_lines_are_counted_across_pieces() -> None:
    for size in (1, 2, 3, 7, 100):
        text = b"".join(LINES)
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        kept = b"".join(remove_lines._without(pieces, frozenset({1, 3})))
        assert kept == b'\n  \n{"n":5}'


@pytest.mark.parametrize("good", [True, False])
def test_an_object_is_replaced_by_one_upload(good: bool) -> None:
    store = Store({"/b/x": gzip.compress(b"1\n2\n3\n")})
    file = store.file("/b/x")
    if not good:
        store.pipe_file("/b/x", gzip.compress(b"1\n2\n3\n4\n"))
        with pytest.raises(ArchiveError) as error:
            remove_lines.remove_lines(file._replace(size=len(store.cat_file("/b/x", 0, 99))), [2])
        assert str(error.value) == "memory://b/x was changed by another program. Run this again."
        assert gzip.decompress(store.sync_fs.cat_file("/b/x")) == b"1\n2\n3\n4\n"
        return
    remove_lines.remove_lines(file, [2])
    assert gzip.decompress(store.sync_fs.cat_file("/b/x")) == b"1\n3\n"


def test_what_cannot_be_replaced_in_one_step_is_left() -> None:
    memory = MemoryFileSystem()
    with pytest.raises(ArchiveError) as error:
        remove_lines.remove_lines(File("memory://b/x\x1b", "1", 2, memory, "/b/x"), [1])
    assert str(error.value) == (
        "Expected a local file or one in a bucket, which can be replaced in one step, at memory://b/x\\x1b."
    )


def test_a_damaged_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "archive" / "x.gz"
    path.parent.mkdir()
    data = gzip.compress(TEXT)[:-9]
    path.write_bytes(data)
    [file] = listed(path)
    with pytest.raises(ArchiveError) as error:
        remove_lines.remove_lines(file, [1])
    assert str(error.value) == (
        f"{path} was left as it is. The file was cut off: it ends at byte {len(data):,},"
        " in the middle of its gzip data."
    )
    assert isinstance(error.value.__cause__, DamagedFile)
    assert (path.read_bytes(), os.listdir(path.parent)) == (data, ["x.gz"])


def test_a_file_that_another_program_changed_meanwhile_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "archive" / "x.gz"
    path.parent.mkdir()
    path.write_bytes(b"1\n2\n")
    [file] = listed(path)
    write, names = remove_lines._write, []

    def meanwhile(file: File, lines: frozenset[int], temporary: str) -> None:
        write(file, lines, temporary)
        names.extend([os.path.basename(temporary), oct(os.stat(temporary).st_mode & 0o777)])
        path.write_bytes(b"1\n2\n3\n")

    monkeypatch.setattr(remove_lines, "_write", meanwhile)
    with pytest.raises(ArchiveError) as error:
        remove_lines.remove_lines(file, [1])
    assert str(error.value) == f"{path} was changed by another program. Run this again."
    assert names == [".x.gz.forgetting", "0o600"]
    assert (path.read_bytes(), os.listdir(path.parent)) == (b"1\n2\n3\n", ["x.gz"])


def test_a_file_that_another_program_deleted_meanwhile_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "archive" / "x.gz"
    path.parent.mkdir()
    path.write_bytes(b"1\n2\n")
    [file] = listed(path)
    write = remove_lines._write

    def meanwhile(file: File, lines: frozenset[int], temporary: str) -> None:
        write(file, lines, temporary)
        path.unlink()

    monkeypatch.setattr(remove_lines, "_write", meanwhile)
    with pytest.raises(ArchiveError) as error:
        remove_lines.remove_lines(file, [1])
    assert str(error.value) == (
        f"Expected a file or a folder at {path}, but nothing is there: [Errno 2] No such file or directory: '{path}'"
    )
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("step", ["_without", "replace"])
def test_nothing_is_left_where_a_file_cannot_be_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "archive" / "x.gz"
    path.parent.mkdir()
    path.write_bytes(b"1\n2\n")

    def fails(*_: Any) -> Any:
        raise KeyboardInterrupt(step)

    [file] = listed(path)
    monkeypatch.setattr(remove_lines, step, fails)
    with pytest.raises(KeyboardInterrupt, match=step):
        remove_lines.remove_lines(file, [1])
    assert (path.read_bytes(), os.listdir(path.parent)) == (b"1\n2\n", ["x.gz"])


def test_an_owner_that_cannot_be_kept_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, owners = tmp_path / "x.gz", []
    path.write_bytes(b"1\n2\n")

    def refused(_: str, user: int, group: int) -> None:
        owners.append((user, group))
        raise PermissionError

    [file] = listed(path)
    monkeypatch.setattr(os, "chown", refused)
    remove_lines.remove_lines(file, [1])
    group = path.stat().st_gid
    assert (path.read_bytes(), owners) == (b"2\n", [(path.stat().st_uid, group), (-1, group)])


def test_a_linked_file_is_replaced_where_it_is(tmp_path: Path) -> None:
    path, link = tmp_path / "archive" / "x.gz", tmp_path / "link.gz"
    path.parent.mkdir()
    path.write_bytes(b"1\n2\n")
    link.symlink_to(path)
    [file] = listed(link)
    remove_lines.remove_lines(file, [1])
    assert (link.is_symlink(), path.read_bytes()) == (True, b"2\n")
