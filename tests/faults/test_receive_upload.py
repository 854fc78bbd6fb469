"""Files stay until the bucket has them completely, whether it refuses, hangs or has half of a file."""

import gzip
import socket
import time
from contextlib import closing
from pathlib import Path

import boto3
import fsspec

from autopilothq.receive import files
from calling import Call
from faults.test_receive_killed import track
from receiving import published, receiver
from servers import S3
from waiting import wait_for

NAME = "segment-logs/v1/1772582400000/1772600767000-0f.gz"
QUICK = "from autopilothq.receive import upload\nupload.RETRY_SECONDS = 0.5"


def environment(s3: S3) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "AWS_DEFAULT_REGION": s3.region, "AWS_ENDPOINT_URL": s3.endpoint_url,
    }  # fmt: skip


def left(text: bytes, name: str = NAME) -> Path:
    """Makes a published file that is not uploaded yet; returns its path."""
    path = Path("archive", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text))
    return path


def test_half_of_a_file_in_the_bucket(s3: S3) -> None:
    path, url = left(b'{"a":1}\n'), s3.bucket()
    whole, bucket = path.read_bytes(), fsspec.filesystem("s3", **s3.storage_options)
    bucket.pipe_file(f"{url}/below/{NAME}", whole[:10])
    with receiver("archive", "--upload", f"{url}/below/", env=environment(s3)) as running:
        wait_for(lambda: not path.exists())
        assert running.stop() == ""
    bucket.invalidate_cache()
    assert bucket.cat_file(f"{url}/below/{NAME}") == whole


def test_a_bucket_that_refuses(s3: S3) -> None:
    """All files stay until the bucket exists, and no two processes upload the same file at once."""
    paths = [left(b'{"a":%d}\n' % number, f"segment-logs/v1/1772582400000/{number}-0f.gz") for number in range(6)]
    words = ("--upload", "s3://later-there", "--rotate", "1s", "--workers", "2")
    with receiver("archive", *words, env=environment(s3), before=QUICK) as running:
        assert running.post("/v1/track", track(1)).status_code == 200
        wait_for(lambda: len(published(running.folder)) == 7)
        refused = running.warning()
        assert all(path.exists() for path in paths)
        with closing(boto3.client("s3", **s3.credentials)) as client:
            client.create_bucket(Bucket="later-there")
        wait_for(lambda: not list(files.published_files(running.folder)))  # skips files that vanish meanwhile
        running.stop()
    assert refused.startswith("Warning: A file cannot be uploaded, and is tried again: ")
    assert "There is no such bucket" in refused
    bucket = fsspec.filesystem("s3", **s3.storage_options)
    assert len(bucket.find("later-there/segment-logs/v1")) == 7


def test_a_bucket_that_says_it_has_less(s3: S3) -> None:
    less = "\nimport s3fs\ns3fs.S3FileSystem.size = lambda self, path: 1"
    path, url = left(b'{"a":1}\n'), s3.bucket()
    with receiver("archive", "--upload", url, env=environment(s3), before=QUICK + less) as running:
        said = running.warning()
        assert path.exists()
        running.stop()
    size = path.stat().st_size
    assert f"tried again: {path.name}: The bucket has 1 of {size} bytes of {NAME}.\n" in said


def test_a_stop_while_the_bucket_hangs(s3: S3) -> None:
    path = left(b'{"a":1}\n')
    with socket.create_server(("127.0.0.1", 0)) as silent:
        at = {**environment(s3), "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        with receiver("archive", "--upload", "s3://bucket", env=at) as running:
            asked, _ = silent.accept()
            assert running.post("/v1/track", track(1)).status_code == 200
            started = time.monotonic()
            assert "Traceback" not in running.stop()
            assert time.monotonic() - started < 10
            asked.close()
    assert path.exists()
    assert len(published(running.folder)) == 2


def test_an_invalid_bucket_url_is_refused(call: Call) -> None:
    said = call("receive", "archive", "--upload", "nowhere://bucket")
    assert said.status == 1
    assert said.err.startswith("Error: Expected a bucket's URL, such as s3://bucket/prefix, but got nowhere://bucket: ")
    assert not Path("archive").exists()
