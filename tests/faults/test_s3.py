"""An archive in S3 is read over HTTP with dlt's credentials; faults cost only their file, and errors name them."""

import gzip
import http.client
import random
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import fsspec
import pytest
import s3fs
from dlt.common.configuration.specs import AwsCredentials
from dlt.common.runtime.run_context import active
from dlt.pipeline.exceptions import PipelineStepFailed
from fsspec import AbstractFileSystem
from fsspec.asyn import sync

import autopilothq
from archived import NAMED, NAMELESS, all_lines, nameless, outcome
from autopilothq import sample
from autopilothq.errors import ArchiveError
from autopilothq.segment.message import Batch
from autopilothq.sources.archive import batches, blocks, listing
from autopilothq.sources.archive.discover import list_files
from calling import Call, errors
from faults.loads import assert_same, assert_sound, content, in_memory, line, load, pipeline, track
from servers import S3

DAYS = {"2019-03-01": "1551398400000", "2019-03-02": "1551484800000", "2019-03-03": "1551571200000"}


@pytest.fixture
def configured(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sets the credentials in the environment, where dlt looks for those of this source."""
    for name, value in s3.credentials.items():
        monkeypatch.setenv(f"SOURCES__AUTOPILOTHQ__CREDENTIALS__{name.upper()}", value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def bucket(s3: S3) -> tuple[str, AbstractFileSystem]:
    """Returns the URL of a new bucket, and a file system that can write there."""
    return s3.bucket(), fsspec.filesystem("s3", use_listings_cache=False, **s3.storage_options)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collects the names of the files whose content is read."""
    names: list[str] = []
    read_files = batches.read_batches

    def spy(files: Any, **options: Any) -> Iterator[Batch]:
        names.extend(Path(file.path).name for file in files)
        return read_files(files, **options)

    monkeypatch.setattr(batches, "read_batches", spy)
    return names


def put(hand: AbstractFileSystem, url: str, *messages: Any, **options: Any) -> None:
    hand.pipe_file(url, gzip.compress(b"".join(map(line, messages)), mtime=0), **options)


@pytest.mark.usefixtures("configured")
def test_has_the_same_tables_as_the_archive_on_disk(tmp_path: Path, bucket: tuple[str, AbstractFileSystem]) -> None:
    url, hand = bucket
    sample.write(str(tmp_path / "archive"), 300, 5)
    hand.put(str(tmp_path / "archive") + "/", f"{url}/pre/fix/", recursive=True)
    remote, local = in_memory(), in_memory()
    report = load(pipeline(tmp_path / "s3", remote), f"{url}/pre/fix")
    assert (report.lines, report.unfinished) == (300, {})
    load(pipeline(tmp_path / "disk", local), tmp_path / "archive")
    tables, disk = content(remote), content(local)
    assert_sound(tables)
    assert_same(tables, disk, but=["_audit"])
    counts = [
        sorted((Path(row["file"]).name, row["size"], row["lines"], row["stored"]) for row in these["_audit"].dicts())
        for these in (tables, disk)
    ]
    assert counts[0] == counts[1]
    assert all(row["file"].startswith(f"{url}/pre/fix/segment-logs/") for row in tables["_audit"].dicts())
    assert load(pipeline(tmp_path / "s3", remote), f"{url}/pre/fix").files == 0


@pytest.mark.usefixtures("configured")
def test_reads_what_is_new_alone(tmp_path: Path, bucket: tuple[str, AbstractFileSystem], read: list[str]) -> None:
    (url, hand), into = bucket, pipeline(tmp_path, in_memory())
    for number, day in enumerate(DAYS.values(), 1):
        put(hand, f"{url}/segment-logs/AbC/{day}/{number}.gz", track(number), ContentEncoding="gzip")
    hand.pipe_file(f"{url}/segment-logs/AbC/dummy-object.txt", b"test")
    hand.pipe_file(f"{url}/segment-logs/AbC/{DAYS['2019-03-01']}/", b"")  # a marker for a folder
    assert load(into, url, since="2019-03-02", until="2019-03-02").stored == 1
    assert read == ["2.gz"]
    # New content has another etag, so the file is read again.
    put(hand, f"{url}/segment-logs/AbC/{DAYS['2019-03-02']}/2.gz", track(2), track(4))
    report = load(into, url, since="2019-03-02")
    assert (report.files, report.stored, report.duplicates) == (2, 2, 1)
    assert sorted(read[1:]) == ["2.gz", "3.gz"]
    # The same content, written again, has the same etag.
    put(hand, f"{url}/segment-logs/AbC/{DAYS['2019-03-03']}/3.gz", track(3))
    report = load(into, url)
    assert (report.files, report.files_known, report.stored) == (1, 2, 1)
    assert read[3:] == ["1.gz"]


@pytest.mark.usefixtures("configured")
def test_an_object_that_is_rewritten_while_it_is_read_is_read_again(
    tmp_path: Path, bucket: tuple[str, AbstractFileSystem], monkeypatch: pytest.MonkeyPatch
) -> None:
    (url, hand), database = bucket, in_memory()
    into = pipeline(tmp_path, database)
    name = f"{url}/segment-logs/AbC/{DAYS['2019-03-01']}/1.gz"
    lines = [track(n, properties={"note": f"{random.Random(n).random()}"}) for n in range(500)]
    put(hand, name, *lines)
    read_files = batches.read_batches

    def rewritten(files: Any, **options: Any) -> Iterator[Batch]:
        if files:
            put(hand, name, *lines[:250])
        return read_files(files, **options)

    with monkeypatch.context() as patch:
        patch.setattr(batches, "read_batches", rewritten)
        load(into, url)
    load(into, url)
    tables = content(database)
    assert_sound(tables)
    assert {row["id"] for row in tables["tracks"].dicts()} >= {f"m-{n}" for n in range(250)}
    assert load(into, url).files == 0


def failure(tmp_path: Path, url: str, **options: Any) -> str:
    """Checks that a load fails without storing anything; returns the message of the ArchiveError behind it."""
    with pytest.raises(PipelineStepFailed) as failed:
        load(pipeline(tmp_path), url, **options)
    assert not (tmp_path / "autopilot.duckdb").exists() or not content(tmp_path / "autopilot.duckdb")
    error: BaseException | None = failed.value
    while error is not None and not isinstance(error, ArchiveError):
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
def test_takes_credentials_as_dlt_knows_them(where: str, s3: S3, bucket: tuple[str, AbstractFileSystem]) -> None:
    """Only iterates the source, because a destination does not matter here."""
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
    tracks = [row for rows in autopilothq.archive(url, **options).tracks for row in rows.to_pylist()]
    assert [row["id"] for row in tracks] == ["m-1"]


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


def test_keys_with_empty_parts_are_found_and_read(
    tmp_path: Path, s3: S3, bucket: tuple[str, AbstractFileSystem]
) -> None:
    url, hand = bucket
    for key, data in NAMELESS.items():
        hand.pipe_file(f"{url}/{key}", data)
    folder = f"day/segment-logs/AbC/{DAYS['2019-03-01']}"
    for marker in (f"{folder}//", "foo//", "/", "bar"):
        hand.call_s3("put_object", Bucket=url[5:], Key=marker, Body=b"")
    hand.call_s3("put_object", Bucket=url[5:], Key=f"{folder}/", Body=b"{}")
    for path, options, keys in NAMED:
        files = list(list_files([url + path], fs=fsspec.filesystem("s3", **s3.storage_options), **options))
        assert (path, [file.url for file in files]) == (path, nameless(keys, url))
    seen: dict[str, str] = {}
    small_pages = s3.storage_options | {"s3_additional_kwargs": {"MaxKeys": 1}}
    files = list(list_files([url], fs=fsspec.filesystem("s3", **small_pages), left_out=seen))
    assert sorted(line[2] for line in all_lines(files)) == sorted(NAMELESS.values())
    assert seen == {
        f"{url}//": "folder_marker",
        f"{url}/bar": "empty",
        f"{url}/foo//": "folder_marker",
        f"{url}/{folder}/": "trailing_slash",
        f"{url}/{folder}//": "folder_marker",
    }
    into = pipeline(tmp_path, in_memory())
    report = load(into, url, credentials=s3.credentials)
    assert (report.files, report.lines) == (6, 6)
    again = load(into, f"{url}/foo//", credentials=s3.credentials)
    assert (again.files, again.files_known) == (0, 1)


@contextmanager
def faulty(s3: S3, faults: dict[str, str]) -> Iterator[dict[str, str]]:
    """Yields the credentials of a proxy for `s3` that spoils each GET whose path contains a key of `faults`.

    `reset` cuts the connection and `stall` does not answer; `reset body` and `stall body` do so in its middle.
    """
    over = Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Prints nothing."""

        def answer(self) -> None:
            path = unquote(self.path)
            fault = next((fault for part, fault in faults.items() if part in path and self.command == "GET"), "")
            if fault.startswith("stall") and "body" not in fault:
                over.wait()
            if fault in ("reset", "stall"):
                self.cut()
                return
            behind = http.client.HTTPConnection(urlsplit(s3.endpoint_url).netloc)
            behind.request(self.command, self.path, headers=dict(self.headers))
            answer = behind.getresponse()
            data = answer.read()
            behind.close()
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            size = answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", size)
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if fault else data)
            self.wfile.flush()
            if fault:
                if fault == "stall body":
                    over.wait()
                self.cut()

        def cut(self) -> None:
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

        do_GET = do_HEAD = answer  # noqa: N815

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Ignores clients that go away, which these tests provoke."""

    with Server(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield s3.credentials | {"endpoint_url": f"http://127.0.0.1:{server.server_port}"}
        finally:
            over.set()
            server.shutdown()


def storage(credentials: dict[str, str]) -> dict[str, Any]:
    return S3(credentials["endpoint_url"]).storage_options


UNANSWERED = "no answer within 1 s (set by sources.autopilothq.read_timeout)"


def hold_to_timeout(patch: pytest.MonkeyPatch, faults: Mapping[str, str]) -> list[float]:
    """Applies the timeout only to requests with a fault, because on a busy machine others may take longer.

    Returns a list to which the seconds of each of them are added.
    """
    seconds: list[float] = []

    def ask(loop: Any, function: Any, *args: Any, timeout: float, **options: Any) -> Any:
        asked = str(args).replace("list_objects_v2", "list-type")
        if not any(part in asked for part in faults):
            return sync(loop, function, *args, timeout=60, **options)
        started = time.monotonic()
        try:
            return sync(loop, function, *args, timeout=timeout, **options)
        finally:
            seconds.append(time.monotonic() - started)

    patch.setattr(listing, "sync", ask)
    return seconds


def test_a_request_that_never_ends_costs_its_file_alone(
    s3: S3, bucket: tuple[str, AbstractFileSystem], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, hand = bucket
    faults = {f"{fault}.gz": fault for fault in ("reset body", "reset", "stall body", "stall")}
    for name in ("a.gz", *faults, "z.gz"):
        put(hand, f"{url}/{name}", track(1))
    with faulty(s3, faults) as credentials:
        files = list(list_files([url], fs=fsspec.filesystem("s3", **storage(credentials))))
        seconds = hold_to_timeout(monkeypatch, faults)
        lines, rejects, ended = outcome(files, timeout=1)
        assert (len(seconds), sum(seconds) < 14) == (4, True)
    assert [(Path(files[line[0]].url).name, line[1]) for line in lines] == [("a.gz", 1), ("z.gz", 1)]
    whys = [
        f"Expected to read {url}/{fault} to its end, but reading failed at byte 0: {UNANSWERED}." for fault in faults
    ]
    assert ended == [(0, None), *enumerate(whys, 1), (5, None)]
    assert [(reject.file, reject.message) for reject in rejects] == list(enumerate(whys, 1))


def test_a_store_that_is_gone_ends_the_reading(s3: S3, bucket: tuple[str, AbstractFileSystem]) -> None:
    url, hand = bucket
    for number in range(10):
        put(hand, f"{url}/{number}.gz", track(number))
    with faulty(s3, {".gz": "stall"}) as credentials:
        files = list(list_files([url], fs=fsspec.filesystem("s3", **storage(credentials))))
        with pytest.raises(ArchiveError) as error:
            outcome(files, timeout=0.4)
    assert str(error.value) == (
        f"Expected to read {url}/7.gz, but got {UNANSWERED.replace('1 s', '0.4 s')}, like 7 files before it.\n"
        "Check the endpoint and the network."
    )


def test_an_object_that_always_resets_is_told_and_read_again(
    call: Call, monkeypatch: pytest.MonkeyPatch, s3: S3, bucket: tuple[str, AbstractFileSystem]
) -> None:
    url, hand = bucket
    for number in range(3):
        put(hand, f"{url}/{number}.gz", track(number))
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__READ_TIMEOUT", "1")
    faults = {"1.gz": "reset"}
    hold_to_timeout(monkeypatch, faults)
    with faulty(s3, faults) as credentials:
        for name, value in credentials.items():
            monkeypatch.setenv(f"SOURCES__AUTOPILOTHQ__CREDENTIALS__{name.upper()}", value)
        said = call("load", "archive", url)
        assert (said.status, errors(said)) == (0, [])
        assert (
            f"  {url}/1.gz is read again next time: Expected to read {url}/1.gz to its end, but reading failed at byte"
            f" 0: {UNANSWERED}."
        ) in said.out.splitlines()
        assert {row["id"] for row in content(Path("autopilot.duckdb"))["tracks"].dicts()} == {"m-0", "m-2"}
        faults.clear()
        assert "1 new file, 2 known" in call("load", "archive", url).out
        assert {row["id"] for row in content(Path("autopilot.duckdb"))["tracks"].dicts()} == {"m-0", "m-1", "m-2"}
        faults["list-type"] = "stall"
        said = call("load", "archive", url)
        assert (said.status, errors(said)) == (
            1,
            [
                f"Error: Expected to list {url}, but got {UNANSWERED}.",
                "Check the endpoint and the network, or allow more time.",
            ],
        )


@pytest.mark.parametrize(
    ("block", "after", "rewritten"),
    [(8 << 20, b"{}\n" * 90, True), (8 << 20, b"[]\n" * 100, False), (64, b"[]\n" * 100, True)],
    ids=["shorter", "as long, in one piece", "as long, in pieces"],
)
def test_two_versions_of_an_object_are_never_mixed(
    s3: S3,
    bucket: tuple[str, AbstractFileSystem],
    monkeypatch: pytest.MonkeyPatch,
    block: int,
    after: bytes,
    rewritten: bool,
) -> None:
    monkeypatch.setattr(blocks, "REMOTE_BLOCK", block)
    url, hand = bucket
    hand.pipe_file(f"{url}/1.json", b"{}\n" * 100)
    files = list(list_files([url], fs=fsspec.filesystem("s3", **s3.storage_options)))
    assert [line[2] for line in all_lines(files)] == [b"{}\n"] * 100
    hand.pipe_file(f"{url}/1.json", after)
    lines, _, [(_, why)] = outcome(files)
    assert [line[2] for line in lines] == ([] if rewritten else [b"[]\n"] * 100)
    assert why == (
        f"Expected to read {url}/1.json to its end, but reading failed at byte 0:"
        " it was written again after it was listed."
        if rewritten
        else None
    )
