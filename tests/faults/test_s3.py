"""An archive in S3, over HTTP: where its credentials come from, what is read, and what a person sees when it fails."""

import gzip
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import s3fs
from dlt.common.configuration.specs import AwsCredentials
from dlt.common.runtime.run_context import active
from dlt.pipeline.exceptions import PipelineStepFailed
from fsspec import AbstractFileSystem

from autopilothq import sample
from autopilothq.messages import Batch
from autopilothq.origins import archive as archive_files
from faults.loads import assert_same, assert_sound, content, line, load, pipeline, track
from servers import S3

DAYS = {"2019-03-01": "1551398400000", "2019-03-02": "1551484800000", "2019-03-03": "1551571200000"}


@pytest.fixture
def configured(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The credentials where dlt looks for those of this source: in the environment."""
    for name, value in s3.credentials.items():
        monkeypatch.setenv(f"SOURCES__AUTOPILOTHQ__CREDENTIALS__{name.upper()}", value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def bucket(s3: S3) -> tuple[str, AbstractFileSystem]:
    """A new bucket, and a hand to put things there."""
    return s3.bucket(), fsspec.filesystem("s3", use_listings_cache=False, **s3.storage_options)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose content is asked for."""
    names: list[str] = []
    read_files = archive_files.read

    def spy(files: Any, **options: Any) -> Iterator[Batch]:
        names.extend(Path(file.path).name for file in files)
        return read_files(files, **options)

    monkeypatch.setattr(archive_files, "read", spy)
    return names


def put(hand: AbstractFileSystem, url: str, *messages: Any, **options: Any) -> None:
    hand.pipe_file(url, gzip.compress(b"".join(map(line, messages)), mtime=0), **options)


@pytest.mark.usefixtures("configured")
def test_has_the_same_tables_as_the_archive_on_disk(tmp_path: Path, bucket: tuple[str, AbstractFileSystem]) -> None:
    url, hand = bucket
    sample.write(str(tmp_path / "archive"), 1_000, 5)
    hand.put(str(tmp_path / "archive") + "/", f"{url}/pre/fix/", recursive=True)
    report = load(pipeline(tmp_path / "s3"), f"{url}/pre/fix")
    assert (report.lines, report.unfinished) == (1_000, {})
    load(pipeline(tmp_path / "disk"), tmp_path / "archive")
    tables, disk = content(tmp_path / "s3/autopilot.duckdb"), content(tmp_path / "disk/autopilot.duckdb")
    assert_sound(tables)
    assert_same(tables, disk, but=["_audit"])
    counts = [
        sorted((Path(row["file"]).name, row["size"], row["lines"], row["stored"]) for row in these["_audit"].dicts())
        for these in (tables, disk)
    ]
    assert counts[0] == counts[1]
    assert all(row["file"].startswith(f"{url}/pre/fix/segment-logs/") for row in tables["_audit"].dicts())
    assert load(pipeline(tmp_path / "s3"), f"{url}/pre/fix").files == 0


@pytest.mark.usefixtures("configured")
def test_reads_what_is_new_alone(tmp_path: Path, bucket: tuple[str, AbstractFileSystem], read: list[str]) -> None:
    url, hand = bucket
    for number, day in enumerate(DAYS.values(), 1):
        put(hand, f"{url}/segment-logs/AbC/{day}/{number}.gz", track(number), ContentEncoding="gzip")
    hand.pipe_file(f"{url}/segment-logs/AbC/dummy-object.txt", b"test")
    hand.pipe_file(f"{url}/segment-logs/AbC/{DAYS['2019-03-01']}/", b"")  # a folder's marker
    assert load(pipeline(tmp_path), url, since="2019-03-02", until="2019-03-02").stored == 1
    assert read == ["2.gz"]
    assert load(pipeline(tmp_path), url, since="2019-03-02").stored == 1
    assert read == ["2.gz", "3.gz"]
    assert load(pipeline(tmp_path), url).stored == 1
    assert read == ["2.gz", "3.gz", "1.gz"]
    # Written again, the same bytes have the same etag; other bytes have another one.
    put(hand, f"{url}/segment-logs/AbC/{DAYS['2019-03-01']}/1.gz", track(1))
    assert load(pipeline(tmp_path), url).files == 0
    put(hand, f"{url}/segment-logs/AbC/{DAYS['2019-03-01']}/1.gz", track(1), track(4))
    report = load(pipeline(tmp_path), url)
    assert (report.stored, report.duplicates) == (1, 1)
    assert read[3:] == ["1.gz"]


@pytest.mark.usefixtures("configured")
def test_an_object_that_is_rewritten_while_it_is_read_is_read_again(
    tmp_path: Path, bucket: tuple[str, AbstractFileSystem], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, hand = bucket
    name = f"{url}/segment-logs/AbC/{DAYS['2019-03-01']}/1.gz"
    lines = [track(n, properties={"note": f"{random.Random(n).random()}"}) for n in range(500)]
    put(hand, name, *lines)
    read_files = archive_files.read

    def rewritten(files: Any, **options: Any) -> Iterator[Batch]:
        if files:
            put(hand, name, *lines[:250])
        return read_files(files, **options)

    with monkeypatch.context() as patch:
        patch.setattr(archive_files, "read", rewritten)
        load(pipeline(tmp_path), url)
    load(pipeline(tmp_path), url)
    tables = content(tmp_path / "autopilot.duckdb")
    assert_sound(tables)
    assert {row["id"] for row in tables["tracks"].dicts()} >= {f"m-{n}" for n in range(250)}
    assert load(pipeline(tmp_path), url).files == 0


def failure(tmp_path: Path, url: str, **options: Any) -> str:
    """What a person sees of a load that fails: the message of the last cause that is ours."""
    with pytest.raises(PipelineStepFailed) as failed:
        load(pipeline(tmp_path), url, **options)
    assert not (tmp_path / "autopilot.duckdb").exists() or not content(tmp_path / "autopilot.duckdb")
    error: BaseException | None = failed.value
    while error is not None and not isinstance(error, archive_files.ArchiveError):
        error = error.__cause__ or error.__context__
    assert error is not None, failed.value
    assert str(error) in str(failed.value)
    return str(error)


@pytest.mark.usefixtures("configured")
def test_says_what_is_wrong_with_an_address(tmp_path: Path, bucket: tuple[str, AbstractFileSystem]) -> None:
    url, hand = bucket
    put(hand, f"{url}/segment-logs/AbC/{DAYS['2019-03-01']}/1.gz", track(1))
    assert "nothing is there" in failure(tmp_path, "s3://no-such-bucket-here/segment-logs")
    assert "nothing is there" in failure(tmp_path, f"{url}/segment-log")
    assert "none does" in failure(tmp_path, f"{url}/*/XyZ/*.gz")


@pytest.mark.parametrize("where", ["secrets.toml", "argument", "spec"])
def test_takes_credentials_as_dlt_knows_them(
    where: str, tmp_path: Path, s3: S3, bucket: tuple[str, AbstractFileSystem]
) -> None:
    url, hand = bucket
    put(hand, f"{url}/segment-logs/AbC/{DAYS['2019-03-01']}/1.gz", track(1))
    options: dict[str, Any] = {}
    if where == "secrets.toml":
        Path(".dlt").mkdir()
        keys = "".join(f'{name} = "{value}"\n' for name, value in s3.credentials.items())
        Path(".dlt/secrets.toml").write_text(f"[sources.autopilothq.credentials]\n{keys}")
        active().reload()
    else:
        options = {
            "credentials": s3.credentials if where == "argument" else AwsCredentials(**dict[str, Any](s3.credentials))
        }
    assert load(pipeline(tmp_path), url, **options).stored == 1


def test_says_what_is_wrong_without_credentials(tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__CREDENTIALS__ENDPOINT_URL", s3.endpoint_url)
    message = failure(tmp_path, f"{s3.bucket()}/segment-logs")
    assert "[sources.autopilothq.credentials]" in message


def test_says_what_is_wrong_when_no_one_answers(tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    nowhere = s3.credentials | {"endpoint_url": "http://127.0.0.1:9"}
    message = failure(tmp_path, "s3://bucket/segment-logs", credentials=nowhere)
    assert "Expected to list s3://bucket/segment-logs" in message
    assert "not-a-secret" not in message
