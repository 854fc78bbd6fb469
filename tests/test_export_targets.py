"""The folder or bucket of an export has all files completely, or a mark that keeps loads away."""

import errno
import gzip
import os
import stat
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import fsspec
import pytest

from autopilothq.catalog import EXPORT_MARK
from autopilothq.errors import BusyError, RunError
from autopilothq.export import ExportBucket, ExportFolder
from autopilothq.export.bucket import MARKS
from autopilothq.export.days import DayFiles
from autopilothq.sources.archive.discover import list_files
from servers import S3

DAY = "segment-logs/autopilothq/0"

# ---- the folder ------------------------------------------------------------------------------------------------------


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_files_have_their_names_once_all_are_whole_and_are_their_owners(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with ExportFolder(out) as files:
        days = DayFiles(files)
        days.add(1, b"a\n")
        days.flush()
        days.add(1, b"b\n")
        days.add(-1, b"c\n")
        days.flush()
        assert [name[0] for name in names(out)] == ["."] * 3
        assert {stat.S_IMODE((out / name).stat().st_mode) for name in names(out)} == {0o600}
        assert list(list_files([str(out)])) == []
        assert files.publish() == 2
    made = [f"segment-logs/autopilothq/{day}/export-0001.gz" for day in (-86400000, 86400000)]
    assert names(out) == made
    assert [gzip.decompress((out / name).read_bytes()) for name in made] == [b"c\n", b"a\nb\n"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.rglob("*.gz")} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (out, out / "segment-logs")} == {0o700}


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("x")
    with pytest.raises(RunError) as error, ExportFolder(out):
        pass
    assert str(error.value) == (
        f"Expected {out} to be an empty folder, or a new one, but there is something in it.\n"
        "Name another folder, or move what is in it."
    )
    assert names(out) == ["mine.txt"]


def test_an_interrupted_export_starts_from_the_beginning(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with ExportFolder(out) as files:
        files.append(f"{DAY}/export-0001.gz", b"half")
        files.create("tracks.parquet").close()
    published = [out / DAY / "export-0001.gz", out / "email_opened.parquet"]
    published[0].parent.mkdir(parents=True)
    for file in (*published, out / "mine.parquet.txt"):
        file.write_text("x")
    assert len(names(out)) == 6
    with ExportFolder(out) as files:
        assert names(out) == [EXPORT_MARK, "mine.parquet.txt"]
        files.append(f"{DAY}/export-0001.gz", b"whole")
        files.publish()
    assert names(out) == ["mine.parquet.txt", f"{DAY}/export-0001.gz"]
    assert published[0].read_bytes() == b"whole"


def test_what_others_put_into_the_archive_of_a_cut_off_export_is_said_before_anything_is_read(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with ExportFolder(out) as files:
        files.append(f"{DAY}/export-0001.gz", b"half")
    (out / "segment-logs").mkdir()
    (out / "segment-logs" / "mine.txt").write_text("x")
    for _ in range(2):  # a refused export keeps no lock
        with pytest.raises(RunError, match=f"^Expected {out} to be an empty folder"), ExportFolder(out):
            pass
    assert "segment-logs/mine.txt" in names(out)


def test_two_exports_do_not_write_to_one_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with ExportFolder(out) as first:
        first.append("a.gz", b"1")
        with pytest.raises(BusyError) as error, ExportFolder(out):
            pass
        assert str(error.value) == f"Another export writes to {out}. Name another folder, or wait for it."
        assert first.publish() == 1


@pytest.mark.parametrize("cut_off", [True, False])
def test_what_another_export_published_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_off: bool
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    if cut_off:
        (out / EXPORT_MARK).write_text("of another export, which ends now")

    def ended(*_: object) -> None:
        if cut_off:
            (out / EXPORT_MARK).unlink()
        (out / "tracks.parquet").write_text("whole")

    monkeypatch.setattr("autopilothq.export.folder.fcntl.flock", ended)
    with pytest.raises(RunError, match=f"^Expected {out} to be an empty folder"), ExportFolder(out):
        pass
    assert names(out) == ["tracks.parquet"]


@pytest.fixture
def synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records the files and folders that are synced to the disk, by their names at that time."""
    found: list[str] = []

    def fsync(descriptor: int) -> None:
        paths = (tmp_path, *tmp_path.rglob("*"))
        found.append(next(path.name for path in paths if os.path.samestat(path.stat(), os.fstat(descriptor))))

    monkeypatch.setattr("autopilothq.export.folder.os.fsync", fsync)
    return found


def test_the_disk_has_the_mark_first_and_each_file_before_its_name(tmp_path: Path, synced: list[str]) -> None:
    with ExportFolder(tmp_path / "out") as files:
        assert synced == [EXPORT_MARK, "out", tmp_path.name]
        files.append(f"{DAY}/export-0001.gz", b"a")
        files.publish()
    staged = ["segment-logs", "autopilothq", "0", "export-0001.gz", f"{EXPORT_MARK}.files"]
    assert synced[3:] == [*staged, "out", "out"]  # after renaming, and after removing the mark


@pytest.mark.parametrize(
    ("folder", "number"), [("out", errno.EINVAL), ("parent", errno.EINVAL), ("parent", errno.EACCES)]
)
def test_a_file_system_may_be_unable_to_say_when_the_disk_has_a_folder(
    folder: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "parent" / "out"
    _refuse_sync(monkeypatch, tmp_path, folder, number)
    with ExportFolder(out) as files:
        files.append("a.gz", b"1")
        assert files.publish() == 1
    assert names(out) == ["a.gz"]


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError) as error, ExportFolder(tmp_path / "file" / "out"):
        pass
    assert str(error.value) == f"Cannot write to {tmp_path}/file/out: Not a directory."
    _refuse_sync(monkeypatch, tmp_path, "out", errno.EIO)
    with pytest.raises(RunError) as error, ExportFolder(tmp_path / "out"):
        pass
    assert str(error.value) == f"Cannot write to {tmp_path}/out: Input/output error."


def _refuse_sync(monkeypatch: pytest.MonkeyPatch, below: Path, name: str, number: int) -> None:
    """Makes syncing a folder of this name fail with an error."""

    def fsync(descriptor: int) -> None:
        if any(os.path.samestat(path.stat(), os.fstat(descriptor)) for path in below.rglob(name)):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr("autopilothq.export.folder.os.fsync", fsync)


# ---- a bucket --------------------------------------------------------------------------------------------------------


class Prefix:
    """A prefix in a new bucket, and the objects there."""

    def __init__(self, s3: S3) -> None:
        self.url = f"{s3.bucket()}/out"
        self.fs = fsspec.filesystem("s3", use_listings_cache=False, **s3.storage_options)

    def names(self) -> list[str]:
        root = self.url.removeprefix("s3://")
        return sorted(path.removeprefix(f"{root}/") for path in self.fs.find(root))

    def export(self) -> ExportBucket:
        return ExportBucket(self.url, self.fs)

    def loaded(self, below: str = "") -> list[str]:
        return [file.url for file in list_files([self.url + below], fs=self.fs)]


@pytest.fixture
def prefix(s3: S3) -> Prefix:
    return Prefix(s3)


def test_a_bucket_has_all_files_or_a_mark_and_no_load_takes_what_is_marked(prefix: Prefix) -> None:
    with prefix.export() as files:
        files.append(f"{DAY}/export-0001.gz", b"a")
        files.append(f"{DAY}/export-0001.gz", b"b")
        assert prefix.names() == sorted(MARKS)
        files._upload(f"{DAY}/export-0001.gz")
        left_out: dict[str, str] = {}
        assert list(list_files([prefix.url], fs=prefix.fs, left_out=left_out)) == []
        assert left_out == {f"{prefix.url}/": "unfinished_export"}
        assert prefix.loaded("/segment-logs") == prefix.loaded("/segment-logs/autopilothq") == []
        assert files.publish() == 1
    assert prefix.names() == [f"{DAY}/export-0001.gz"]
    assert prefix.loaded() == [f"{prefix.url}/{DAY}/export-0001.gz"]
    assert prefix.fs.cat_file(f"{prefix.url}/{DAY}/export-0001.gz") == b"ab"
    with pytest.raises(RunError) as error, prefix.export():
        pass
    assert str(error.value) == (
        f"Expected {prefix.url} to be an empty folder, or a new one, but there is something in it.\n"
        "Name another folder, or move what is in it."
    )


def test_an_interrupted_export_to_a_bucket_starts_from_the_beginning_and_the_earlier_one_ends(prefix: Prefix) -> None:
    with prefix.export() as first:
        first.append(f"{DAY}/export-0001.gz", b"half")
        first.append(f"{DAY}/export-0002.gz", b"more")
        first._upload(f"{DAY}/export-0002.gz")
        with prefix.export() as second:
            assert prefix.names() == sorted(MARKS)
            second.append(f"{DAY}/export-0001.gz", b"whole")
            second.create("tracks.parquet").close()
            with pytest.raises(BusyError) as error:
                first.publish()
            assert second.publish() == 2
        with pytest.raises(BusyError) as again:  # also after the other has ended and removed its mark
            first.publish()
    assert (
        str(error.value)
        == str(again.value)
        == (f"Another export has begun to write to {prefix.url}. Name another place, or wait for it.")
    )
    assert prefix.names() == [f"{DAY}/export-0001.gz", "tracks.parquet"]
    assert prefix.fs.cat_file(f"{prefix.url}/{DAY}/export-0001.gz") == b"whole"


def test_a_bucket_that_is_not_there_is_said_before_anything_is_read(prefix: Prefix) -> None:
    with pytest.raises(RunError) as error, ExportBucket("s3://not-there-x/FAX/", prefix.fs):
        pass
    assert str(error.value).splitlines() == [
        "Cannot write to s3://not-there-x/FAX: FileNotFoundError: The specified bucket does not exist",
        "Check that the bucket is there, and that these credentials may list, read, write and delete in it.",
    ]


class Objects:
    """A store behind fsspec's interface, which may list wrong sizes after uploads.

    It remembers what it has listed, and takes uploads from the main thread only.
    """

    async_impl = False
    _remembered: dict[str, dict[str, Any]] | None = None

    def __init__(self, listed: Mapping[str, int | None]) -> None:
        self._listed = {f"bucket/out/{name}": size for name, size in listed.items()}
        self._data, self._sizes = dict[str, bytes](), dict[str, int | None]()

    def _strip_protocol(self, path: str) -> str:
        return path.removeprefix("store://")

    def invalidate_cache(self) -> None:
        self._remembered = None

    def find(self, path: str, *, detail: bool) -> dict[str, dict[str, Any]]:
        assert (path, detail) == ("bucket/out", True)
        sizes = self._sizes | self._listed if self._sizes else {}
        found = {name: {"name": name, "size": size} for name, size in sizes.items() if size is not None}
        self._remembered = found if self._remembered is None else self._remembered
        return self._remembered

    def ls(self, path: str, detail: bool) -> list[dict[str, Any]]:
        return list(self.find(path, detail=detail).values())

    def cat_file(self, path: str) -> bytes:
        return self._data[path]

    def put_file(self, lpath: str, rpath: str) -> None:
        in_pool = self.async_impl and rpath.endswith(".parquet")
        assert in_pool is not (threading.current_thread() is threading.main_thread())
        with open(lpath, "rb") as file:
            self._data[rpath], self._sizes[rpath] = file.read(999), os.path.getsize(lpath)

    def rm_file(self, path: str) -> None:
        del self._data[path], self._sizes[path]

    def export(self) -> ExportBucket:
        return ExportBucket("store://bucket/out/", self)  # type: ignore[arg-type]

    def names(self) -> list[str]:
        return sorted(name.removeprefix("bucket/out/") for name in self._sizes)


class ObjectsInParts(Objects):
    """A store that takes large objects in parts, several at a time, and records the options of each upload."""

    async_impl = True

    def __init__(self) -> None:
        super().__init__({})
        self.options: dict[str, str] = {}

    def put_file(
        self, lpath: str, rpath: str, chunksize: int = 0, max_concurrency: int = 0, overwrite: bool = False
    ) -> None:
        super().put_file(lpath, rpath)
        self.options[rpath.removeprefix("bucket/out/")] = f"{chunksize} bytes, {max_concurrency} at once, {overwrite}"


def test_a_large_object_has_no_more_parts_than_a_store_takes() -> None:
    store, most = ObjectsInParts(), 9_000 * 5 * 1024 * 1024
    with store.export() as files:
        for name, size in (("small", 1), ("large", most - 1), ("larger", most)):
            with files.create(f"{name}.parquet") as file:
                file.truncate(size)  # sparse, so it takes no room
        assert files.publish() == 3
    assert store.names() == ["large.parquet", "larger.parquet", "small.parquet"]
    assert store.options == {
        **dict.fromkeys(MARKS, "5242880 bytes, 2 at once, True"),
        "small.parquet": "5242880 bytes, 2 at once, True",
        "large.parquet": "5242880 bytes, 2 at once, True",
        "larger.parquet": "6291456 bytes, 2 at once, True",
    }


@pytest.mark.parametrize(
    ("listed", "expected", "came"),
    [({"a.parquet": 2}, "3", "2"), ({"a.parquet": None}, "3", "none"), ({"XL.parquet": 5}, "no", "5")],
)
def test_an_upload_that_the_bucket_lists_differently_stays_marked(
    listed: dict[str, int | None], expected: str, came: str
) -> None:
    store = Objects(listed | {"mine.txt": 7})
    with store.export() as files:
        files.append("a.parquet", b"abc")
        with pytest.raises(RunError) as error:
            files.publish()
    assert str(error.value) == (
        f"Expected {expected} bytes at store://bucket/out/{next(iter(listed))}, but the bucket lists {came} after the"
        " upload.\nExport again: it starts from scratch."
    )
    assert store.names() == sorted(["a.parquet", *MARKS])


def test_only_the_first_level_of_a_bucket_is_looked_at_before_an_export_and_empty_folders_are_nothing() -> None:
    store = Objects({})
    folder = [{"name": "bucket/out/folder", "size": None}]
    with mock.patch.multiple(store, ls=lambda *_, **__: folder, find=None), pytest.raises(RunError) as error:
        store.export().__enter__()
    assert str(error.value).splitlines()[0] == (
        "Expected store://bucket/out to be an empty folder, or a new one, but there is something in it."
    )
    store._sizes["bucket/out/"] = 0
    with store.export() as files:
        files.append("a.parquet", b"abc")
        assert files.publish() == 1
    assert store.names() == ["", "a.parquet"]


def test_an_export_that_another_one_overtakes_during_its_upload_ends() -> None:
    store = Objects({})
    put = store.put_file

    def overtaken(lpath: str, rpath: str) -> None:
        put(lpath, rpath)
        if rpath == "bucket/out/a.parquet":
            store._data[f"bucket/out/{EXPORT_MARK}"] = b"of another"

    with mock.patch.object(store, "put_file", overtaken), store.export() as files:
        files.append("a.parquet", b"abc")
        with pytest.raises(BusyError):
            files.publish()
    assert store.names() == sorted(["a.parquet", *MARKS])


@pytest.mark.parametrize("method", ["ls", "put_file", "cat_file", "rm_file"])
def test_what_a_bucket_does_not_allow_is_said_and_nothing_stays_on_this_machine(
    method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = Objects({})

    def export() -> None:
        with store.export() as files:
            files.append("a.parquet", b"abc")
            files.publish()

    refused = mock.patch.object(store, method, side_effect=PermissionError("not yours"))
    with refused, pytest.raises(RunError) as error:
        export()
    assert str(error.value) == (
        "Cannot write to store://bucket/out: PermissionError: not yours\n"
        "Check that the bucket is there, and that these credentials may list, read, write and delete in it."
    )
    assert list(tmp_path.glob("autopilothq-export-*")) == []
