"""Archive files are rewritten without the lines of a deleted person."""

import gzip
import os
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import pytest
import s3fs
import zstandard

from autopilothq.catalog import REJECTS
from autopilothq.privacy.reject_lines import move_rejects
from autopilothq.warehouses.dataset import dataset_of
from calling import Call
from deleting import ADAS, BOBS, BOTH, FORGET_ADA, forget, here, load
from faults.loads import line, pipeline, track
from prepared import as_prepared, preparing
from servers import S3
from shared_loads import command


class Rewritten(NamedTuple):
    """The places of files that had Ada, the output of the call that removed her, and that of the next load.

    `of_bobs` and `modified` describe the files without her on the disk and in the bucket, before and after.
    """

    home: Path
    bucket: str
    of_bobs: tuple[os.stat_result, os.stat_result]
    modified: tuple[Any, Any]
    found: dict[str, Any]
    again: dict[str, Any]


TEXT, KEPT = (b"".join(map(line, lines)) for lines in (BOTH, [one for one in BOTH if one not in ADAS]))


BUCKET = ("a.gz", "b.json")


def write_folder(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.json").write_bytes(
        b"\xef\xbb\xbf\n" + TEXT.replace(b"\n", b"\r\n") + line(track(1, userId="ada"))[:-1]
    )
    (folder / "a.gz").write_bytes(gzip.compress(TEXT[:1000]) + gzip.compress(TEXT[1000:]))
    (folder / "a.zst").write_bytes(zstandard.compress(TEXT))
    (folder / "bobs.gz").write_bytes(gzip.compress(KEPT))
    (folder / "linked.json").symlink_to(Path("elsewhere.json").absolute())
    Path("elsewhere.json").write_bytes(TEXT)
    (folder / "a.gz").chmod(0o640)


def in_bucket(s3: S3) -> Any:
    s3fs.S3FileSystem.clear_instance_cache()
    return fsspec.filesystem("s3", use_listings_cache=False, **s3.storage_options)


@pytest.fixture(scope="module")
def rewritten(tmp_path_factory: pytest.TempPathFactory, s3: S3) -> Rewritten:
    """Loads an archive on the disk and another in a bucket, forgets Ada in both, and loads both again."""
    with preparing(tmp_path_factory.mktemp("rewritten")) as home, pytest.MonkeyPatch.context() as patch:
        for name, value in s3.credentials.items():
            patch.setenv(f"SOURCES__AUTOPILOTHQ__CREDENTIALS__{name.upper()}", value)
        write_folder(Path("archive"))
        hand, bucket = in_bucket(s3), s3.bucket()
        hand.pipe_file(f"{bucket}/a.gz", gzip.compress(TEXT, mtime=0))
        hand.pipe_file(f"{bucket}/b.json", b"".join(map(line, BOBS)))

        def stamps() -> tuple[os.stat_result, Any]:
            return Path("archive/bobs.gz").stat(), hand.info(f"{bucket}/b.json")["LastModified"]

        before = stamps()
        load(command, "archive", bucket)
        found = forget(command, *FORGET_ADA, "--archive", "archive", "--archive", bucket)
        of_bobs, modified = zip(before, stamps(), strict=True)
        return Rewritten(home, bucket, of_bobs, modified, found, load(command, "archive", bucket))


def test_files_are_written_again_as_they_were(call: Call, rewritten: Rewritten) -> None:
    with as_prepared(rewritten.home):
        folder = Path("archive")
        lines = {"a.json": 13, "a.gz": 12, "a.zst": 12, "linked.json": 12}
        found = {name: number for name, number in rewritten.found["lines"].items() if not name.startswith("s3:")}
        assert found == {str(folder.absolute() / name): lines[name] for name in sorted(lines)}
        assert (folder / "a.json").read_bytes() == b"\xef\xbb\xbf\n" + KEPT.replace(b"\n", b"\r\n")
        assert gzip.decompress((folder / "a.gz").read_bytes()) == KEPT
        assert zstandard.ZstdDecompressor().decompressobj().decompress((folder / "a.zst").read_bytes()) == KEPT
        assert ((folder / "linked.json").is_symlink(), Path("elsewhere.json").read_bytes()) == (True, KEPT)
        assert (folder / "a.gz").stat().st_mode & 0o777 == 0o640
        untouched, after = rewritten.of_bobs
        assert (after.st_mtime_ns, after.st_ino) == (untouched.st_mtime_ns, untouched.st_ino)
        assert sorted(os.listdir(folder)) == ["a.gz", "a.json", "a.zst", "bobs.gz", "linked.json"]

        # Four files on the disk and the one in the bucket have another version, and nothing new in them.
        again = rewritten.again
        assert (again["files"], again["stored"], again["rejects"]) == (5, 0, {"not_json": 5, "unknown_type": 5})
        # Each rejected line is in the books once, with its present number.
        rejects = sorted((row["file"], row["line"], row["reason"]) for row in here()["_rejects"].dicts())
        files = [*(str(path.absolute()) for path in folder.iterdir()), *(f"{rewritten.bucket}/{n}" for n in BUCKET)]
        assert rejects == [
            (file, line + file.endswith("a.json"), reason)
            for file in sorted(files)
            for line, reason in ((5, "unknown_type"), (6, "not_json"))
        ]
        assert forget(call, "--email", "ada@example.com", "--confirm", "7", "--archive", "archive")["lines"] == {}
        # In an archive that turns up later, lines are found by their hashes, because this email leads to no other ids.
        Path("late.json").write_bytes(TEXT)
        assert forget(call, "--email", "ada@work.example", "--confirm", "7", "--archive", "late.json")["lines"] == {
            str(Path("late.json").absolute()): 12
        }
        assert Path("late.json").read_bytes() == KEPT


def test_s3(rewritten: Rewritten, s3: S3) -> None:
    bucket, hand = rewritten.bucket, in_bucket(s3)
    found = {name: number for name, number in rewritten.found["lines"].items() if name.startswith("s3:")}
    assert found == {f"{bucket}/a.gz": 12}
    assert gzip.decompress(hand.cat_file(f"{bucket}/a.gz")) == KEPT
    assert rewritten.modified[0] == rewritten.modified[1]
    assert sorted(hand.ls(bucket, detail=False)) == [f"{bucket[5:]}/a.gz", f"{bucket[5:]}/b.json"]
    assert rewritten.again["stored"] == 0
    s3fs.S3FileSystem.clear_instance_cache()


def test_rejects_move_with_their_lines(tmp_path: Path) -> None:
    """Also if nothing was loaded between two removals; what cannot be a line of this content stays."""
    with pipeline(tmp_path).destination_client() as client:
        dataset = dataset_of(client)
        dataset.create(REJECTS)
        for file, lines in (("same.json", [2, 4, 5, 60]), ("other.json", [3, 4, 5])):
            dataset.insert(REJECTS, [rejected(file, line, "no JSON") for line in lines])
        binary = (f"{NOW}", "same.json", 70, "not_json", "why", "\\xff", NOW)
        dataset.insert(REJECTS, [binary])
        move_rejects(dataset, "same.json", {1, 3, 99})
        move_rejects(dataset, "same.json", {7})
        move_rejects(dataset, "other.json", {3})
        found = dataset.rows(", ".join(f"{{{column.name}}}" for column in REJECTS.columns), REJECTS.name)
    same = [rejected("same.json", line, "no JSON") for line in (1, 2, 3, 57)]
    assert sorted(found) == sorted([*same, *(rejected("other.json", line, "no JSON") for line in (3, 4, 5)), binary])


NOW = datetime(2024, 5, 6, tzinfo=UTC)


def rejected(file: str, line: int, raw: str) -> tuple[Any, ...]:
    digest = sha256(raw.encode()).hexdigest()
    id_ = sha256(f"{file}\n{line}\n{digest}".encode()).hexdigest()
    return (id_, file, line, "not_json", "why", raw, NOW)
