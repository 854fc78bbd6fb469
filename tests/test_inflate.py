"""Bodies under each `Content-Encoding` are inflated, whole or in pieces; damage and excess sizes are errors."""

import gzip
import subprocess
import sys
import zlib
from collections.abc import Iterator

import pytest
import zstandard

from autopilothq.clients.inflate import TooBig, Undecodable, UnknownEncoding, inflated
from fake_autopilot import FakeAutopilot

TEXT = bytes(range(256)) * 40 + b'{"name":"J\xc3\xb6rg"}'
MB = 1024 * 1024


def zipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def bare(data: bytes) -> bytes:
    """Returns raw deflate data, without zlib's header and checksum."""
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


zstd = zstandard.ZstdCompressor().compress

BODIES = [
    ("", TEXT),
    ("identity", TEXT),
    ("gzip", zipped(TEXT)),
    ("X-GZip", zipped(TEXT)),
    ("gzip", zipped(TEXT[:99]) + zipped(b"") + zipped(TEXT[99:])),
    ("gzip", zipped(TEXT) + b"\0" * 20),
    ("gzip", zipped(TEXT[:99]) + b"\0\0" + zipped(TEXT[99:])),
    ("deflate", zlib.compress(TEXT)),
    ("deflate", bare(TEXT)),
    ("zstd", zstd(TEXT)),
    ("zstd", zstd(TEXT[:99]) + zstd(TEXT[99:])),
    ("gzip, gzip", zipped(zipped(TEXT))),
    (" deflate ,, gzip,identity, zstd", zstd(zipped(bare(TEXT)))),
]


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def read(encodings: str, data: bytes, size: int = 9999, most: int = MB) -> bytes:
    return b"".join(inflated(pieces(data, size), encodings, most))


@pytest.mark.parametrize("size", [1, 7, 9999])
@pytest.mark.parametrize(
    ("encodings", "body"), BODIES, ids=[f"{number} {name}" for number, (name, _) in enumerate(BODIES)]
)
def test_a_body_comes_out_as_it_went_in(encodings: str, body: bytes, size: int) -> None:
    assert read(encodings, body, size) == TEXT
    assert read(encodings, b"", size) == b""


@pytest.mark.parametrize(
    ("encodings", "body"), BODIES[2:], ids=[f"{number} {name}" for number, (name, _) in enumerate(BODIES[2:])]
)
def test_what_is_cut_off_or_has_more_behind_it_is_told(encodings: str, body: bytes) -> None:
    whole = body.rstrip(b"\0")
    for end in (1, 5, len(whole) // 2, len(whole) - 1):
        with pytest.raises(Undecodable):
            read(encodings, whole[:end])
    with pytest.raises(Undecodable):
        read(encodings, body + b"garbage")


@pytest.mark.parametrize(
    ("encodings", "name"),
    [("br", "br"), ("gzip, COMPRESS", "compress"), ("gzip," * 5, "gzip, gzip, gzip, gzip, gzip"), ("x" * 99, "x" * 40)],
)
def test_an_encoding_that_was_not_asked_for_is_named(encodings: str, name: str) -> None:
    with pytest.raises(UnknownEncoding) as caught:
        inflated(iter([b""]), encodings, MB)
    assert caught.value.args == (name,)


def test_the_limit_holds_for_each_encoding() -> None:
    assert read("gzip", zipped(b" " * MB)) == b" " * MB
    with pytest.raises(TooBig):
        read("gzip", zipped(b" " * (MB + 1)))
    with pytest.raises(TooBig):  # the result is empty, but an intermediate step is large
        read("gzip, gzip", zipped(zipped(b"") * 60_000))


def bombs() -> dict[str, tuple[str, bytes]]:
    """Returns bodies by name that inflate to a gigabyte each, or as much as is read, and one of 20 million values."""
    part = b" " * 16 * MB
    one = zstandard.ZstdCompressor().compressobj()
    whole = b"".join([*(one.compress(part) for _ in range(64)), one.flush()])
    assert len(whole) < 34_000
    deflated = zlib.compressobj(1), zlib.compressobj(1, wbits=-15)
    first, second = (b"".join([*(of.compress(part) for _ in range(6)), of.flush()]) for of in deflated)
    members = gzip.compress(part, 1) * 64
    return {
        "zstd": ("zstd", whole),
        "frames": ("zstd", zstd(part) * 64),
        "gzip": ("gzip", members),
        "nested": ("gzip, gzip", gzip.compress(members)),
        "deflate": ("deflate", first),
        "bare": ("deflate", second),
        "lists": ("gzip", gzip.compress(b"[" + b"[]," * 20_000_000 + b"[]]", 1)),
    }


ASKING = """
import sys
from autopilothq.clients.autopilot import Autopilot, AutopilotSettings
from autopilothq.errors import UnexpectedResponse
from autopilothq.masking import masked

masked("")  # imports dlt, which is no memory of an answer

def used(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1]) // 1024

settings = AutopilotSettings(api_key="0123456789", base_url=sys.argv[1], requests_per_second=1000)
with Autopilot(settings) as http:
    base = used("VmRSS")
    for path in sys.argv[2:]:
        try:
            print(http.request("GET", [path]))
        except UnexpectedResponse as error:
            print(error, flush=True)
        assert used("VmHWM") - base < (160 if path == "lists" else 110), f"{path} took {used('VmHWM') - base} MB"
"""


def test_an_answer_of_a_gigabyte_takes_no_more_memory_than_the_limit() -> None:
    with FakeAutopilot(contacts=1) as server:
        made = bombs()
        for name, (encodings, body) in made.items():
            server.order("GET", f"/{name}", content=body, headers={"Content-Encoding": encodings})
        server.order("GET", "/br", content=b"x", headers={"Content-Encoding": "br"})
        asked = subprocess.run(
            [sys.executable, "-c", ASKING, server.base_url, "br", *made],
            env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (asked.stderr, asked.returncode) == ("", 0)
        assert {request.headers["accept-encoding"] for request in server.requests} == {"gzip, deflate, zstd"}
    unknown, *big, lists = asked.stdout.splitlines()
    assert big == [f"GET /{name}: the answer is bigger than 64 MB" for name in list(made)[:-1]]
    assert lists == "GET /lists: the answer has more than 1,000,000 values of JSON"
    assert unknown == "GET /br: expected an answer in one of the encodings gzip, deflate, zstd, got 'br'"
