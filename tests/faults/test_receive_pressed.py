"""The receiver survives too many names, connections, bodies and requests, and kills of its processes."""

import itertools
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from autopilothq.receive import files
from autopilothq.receive.publishing import publish_open
from faults.killed_receiver import lost
from faults.test_receive_hostile import answers, connect
from faults.test_receive_killed import send, track
from receiving import Receiver, publish_left, published, receiver
from shared_loads import isolation
from waiting import wait_for


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """A receiver that several tests send to."""
    with isolation(tmp_path_factory.mktemp("odd")), receiver() as running:
        yield running


HEAD = b" HTTP/1.1\r\nhost: x\r\n"
REST = b"connection: close\r\ncontent-length: 2\r\n\r\n{}"


def posted(running: Receiver, number: int) -> bool:
    """Posts on a new connection, which any process may accept; returns whether it was acknowledged."""
    return httpx.post(f"{running.url}/v1/track", json=track(number), timeout=60).status_code == 200


def workers(running: Receiver) -> list[int]:
    """Returns the ids of the receiving processes, without their supervisor."""
    listed = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text()
    children = map(int, listed.split())
    return [one for one in children if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]


def ends(process: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return True


def memory(running: Receiver) -> int:
    """Returns the receiver's resident memory in MB."""
    return int(Path(f"/proc/{running.process.pid}/status").read_text().partition("VmRSS:")[2].split()[0]) // 1024


# ---- processes -------------------------------------------------------------------------------------------------------


def test_a_killed_process_of_several_takes_nothing_with_it() -> None:
    acknowledged: list[str] = []
    numbers = itertools.count()

    def post() -> None:
        number = next(numbers)
        with suppress(httpx.HTTPError):
            acknowledged.extend([f"m{number}"] if posted(running, number) else [])

    def both_have_a_file() -> bool:
        post()
        return len(list(files.open_files(running.folder))) == 2

    with receiver("archive", "--workers", "2", "--rotate", "1h", spawned=True) as running:
        wait_for(both_have_a_file)
        before = len(acknowledged)
        assert before == next(numbers)
        first, _ = workers(running)
        os.kill(first, signal.SIGKILL)
        for _ in range(20):
            post()
        # The replacement publishes the killed process's file; the other process goes on with its own.
        wait_for(lambda: len(list(files.published_files(running.folder))) == 1, 60)
        assert len(workers(running)) == 2
        assert "A file that an earlier process left is published: " in running.stop()
    assert len(acknowledged) > before
    assert lost(running.folder, acknowledged) == set()


SLOW = """
import time
from uvicorn.supervisors.multiprocess import Process
target = Process.target
def slow(self, sockets=None):
    time.sleep(6)
    target(self, sockets)
Process.target = slow
"""


def test_processes_that_start_slowly_are_waited_for() -> None:
    """Otherwise a busy machine would kill and restart all of them every five seconds."""
    with receiver("archive", "--workers", "2", before=SLOW) as running:
        started = time.monotonic()
        assert posted(running, 1)
        assert time.monotonic() - started < 20
        assert running.stop() == ""


def test_processes_end_with_the_one_that_watches_over_them() -> None:
    with receiver("archive", "--workers", "2", "--rotate", "1h", spawned=True) as running:
        acknowledged = [f"m{number}" for number in range(9) if posted(running, number)]
        both = workers(running)
        running.process.kill()
        wait_for(lambda: all(map(ends, both)), 10)
        assert lost(running.folder, acknowledged) == set()


def test_two_receivers_of_one_folder() -> None:
    with receiver("archive", "--rotate", "1s") as one, receiver("archive", "--rotate", "1s") as other:
        for number in range(40):
            assert (one, other)[number % 2].post("/v1/track", track(number)).status_code == 200
            time.sleep(0.05)
        os.kill(other.process.pid, signal.SIGKILL)
        one.stop()
    publish_left("archive")
    assert lost(one.folder, [f"m{number}" for number in range(40)]) == set()


@pytest.mark.parametrize(
    ("number", "processes", "status"),
    [(signal.SIGINT, 1, 130), (signal.SIGINT, 2, 130), (signal.SIGHUP, 1, 0), (signal.SIGTERM, 1, 0)],
)
def test_signals_that_ask_it_to_stop(number: signal.Signals, processes: int, status: int) -> None:
    with receiver("archive", "--rotate", "1h", "--workers", str(processes)) as running:
        acknowledged = send(running, 3)
        os.killpg(running.process.pid, number)  # like a terminal, which signals all processes
        said = running.process.communicate(timeout=10)[1]
    aborted = "\nAborted! What was received is kept.\n" if number == signal.SIGINT else ""
    assert (said, running.process.returncode) == (aborted, status)
    assert lost(running.folder, acknowledged) == set()


def test_a_stop_as_it_starts() -> None:
    for delay in (0.0, 0.02, 0.1, 0.3):
        with receiver("archive") as running:
            time.sleep(delay)
            assert running.stop() == ""
        assert running.process.returncode == 0


HANGING = """
import os, subprocess, sys, time
from pathlib import Path
from autopilothq.cli import receiving
def popen(command, env, start=subprocess.Popen):
    hang = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open('hangs', 'w'); time.sleep(99)"
    return start([sys.executable, "-c", hang])
receiving.subprocess = type("", (), {"Popen": popen, "TimeoutExpired": subprocess.TimeoutExpired})
sync = os.fdatasync
def fdatasync(descriptor):
    if Path("slow").exists():
        time.sleep(60)
    sync(descriptor)
os.fdatasync = fdatasync
"""


def test_a_stop_takes_ten_seconds_at_most_even_if_all_hangs() -> None:
    """A load hangs, a sender in the middle of a body, and the disk."""
    with receiver("archive", "--load-every", "1s", before=HANGING) as running:
        acknowledged = send(running, 3)
        wait_for(lambda: Path("hangs").exists())
        with connect(running) as slow, connect(running) as waiting:
            slow.sendall(b"POST /v1/track HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
            Path("slow").touch()
            waiting.sendall(b"POST /v1/track HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
            time.sleep(0.5)
            started = time.monotonic()
            said = running.stop()
            assert time.monotonic() - started < 10.5
    assert "Traceback" not in said
    Path("slow").unlink()
    publish_left("archive")
    assert set(acknowledged) <= {one["messageId"] for one in published(running.folder)}


# ---- files -----------------------------------------------------------------------------------------------------------


UNPUBLISHABLE = """
from pathlib import Path
from autopilothq.receive import app, files
compress = files.compress
def failing(path, part):
    if "v1" in path.parts and Path("stuck").exists():
        raise OSError(28, "No space left on device")
    compress(path, part)
files.compress = failing
app.OLDEST_EXTRA = 1.0
"""


def test_a_file_that_cannot_be_published() -> None:
    Path("stuck").touch()
    with receiver("archive", "--rotate", "1s", before=UNPUBLISHABLE) as running:
        running.post("/v1/track", track(1))
        assert running.warning() == (
            "Warning: A file cannot be published, and is tried again: [Errno 28] No space left on device\n"
        )
        running.post("/hook/segment/shop", track(2))
        wait_for(lambda: [one["messageId"] for one in published(running.folder)] == ["m2"])  # other files are published
        wait_for(lambda: httpx.get(f"{running.url}/readyz").status_code == 503)
        asked = httpx.get(f"{running.url}/readyz").json()
        assert asked["code"] == "not_ready"
        assert asked["message"].startswith("A file has not been published for ")
        Path("stuck").unlink()
        wait_for(lambda: len(published(running.folder)) == 2)
        assert httpx.get(f"{running.url}/readyz").status_code == 200
        assert running.stop() == ""


def test_a_file_that_someone_removes_gets_no_more_messages() -> None:
    with receiver("archive", "--rotate", "1h") as running:
        assert send(running, 2) == ["m0", "m1"]
        [path] = files.open_files(running.folder)
        where = path.relative_to(running.folder.parent)
        path.unlink()
        path.parent.rmdir()
        assert running.post("/v1/track", track(2)).status_code == 200
        said = running.stop()
    assert [one["messageId"] for one in published(running.folder)] == ["m2"]
    assert said == f"Warning: A file was removed before it was published, with its 2 messages: {where}\n"


# ---- too much --------------------------------------------------------------------------------------------------------


def test_only_so_many_endpoints_may_have_no_settings() -> None:
    with receiver("archive", "--rotate", "1h") as running:
        statuses = [running.post(f"/hook/segment/n{number}", b"{}").status_code for number in range(103)]
        assert statuses == [200] * 100 + [503] * 3
        answer = running.post("/hook/segment/another", b"{}")
        assert (answer.headers["retry-after"], answer.json()) == (
            "5", {"code": "unavailable", "message": "There are already 100 endpoints without settings."},
        )  # fmt: skip
        assert running.post("/hook/segment/n5", b"{}").status_code == 200
        assert len(list(Path("archive/segment-logs").iterdir())) == 100
        running.stop()
    with receiver("archive") as running:  # the names also count after a restart
        assert running.post("/hook/segment/n5", b"{}").status_code == 200
        assert running.post("/hook/segment/another", b"{}").status_code == 503
        running.stop()


def test_large_bodies_that_come_slowly() -> None:
    """They do not fill the memory, and senders of small bodies need not wait."""
    piece = b" " * 1_000_000
    with receiver(env={"RECEIVE__MAX_BODY_MB": "64"}, anew=True) as running:
        before = memory(running)
        slow = [connect(running) for _ in range(40)]

        def sending(one: socket.socket) -> None:
            one.sendall(b"POST /v1/track HTTP/1.1\r\nhost: x\r\ncontent-length: 60000000\r\n\r\n")
            try:
                for _ in range(50):
                    one.sendall(piece)
            except OSError:
                pass  # the body was refused

        senders = [threading.Thread(target=sending, args=(one,)) for one in slow]
        for sender in senders:
            sender.start()
        peak, statuses = 0, []
        while any(sender.is_alive() for sender in senders):
            statuses.append(running.post("/v1/track", track(1)).status_code)
            peak = max(peak, memory(running))
            time.sleep(0.05)
        assert set(statuses) == {200}
        assert peak - before < 200
        for one in slow:
            one.close()
        whole = running.post("/v1/track", b" " * 50_000_000 + b"{}")  # their room is free again
        assert whole.status_code == 200


def test_pipelined_requests_are_all_answered() -> None:
    request = b"POST /v1/track HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
    last = request.replace(b"host", b"connection: close\r\nhost")
    with receiver(anew=True) as running:
        found = answers(running, request * 50 + last)
        assert found.count(b"HTTP/1.1 200 OK") == 51
        assert found.count(b"HTTP/1.1") == 51
        before = memory(running)
        assert b"HTTP/1.1 400" in answers(running, request * 20_000)
        assert memory(running) - before < 50
        running.stop()
    assert len(published(running.folder)) >= 51


FEW = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (450, 450))
"""


def test_more_connections_than_descriptors() -> None:
    with receiver("archive", before=FEW) as running:
        assert running.post("/v1/track", track(0)).status_code == 200
        many = [connect(running) for _ in range(300)]
        with connect(running) as one:
            assert one.recv(1000).startswith(b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\n")
        # Descriptors are kept for files, so an open connection can still store messages.
        assert running.post("/hook/segment/other", track(1)).status_code == 200
        for one in many:
            one.close()
        wait_for(lambda: httpx.post(f"{running.url}/v1/track", json=track(2)).status_code == 200)
        running.stop()
    assert sorted(one["messageId"] for one in published(running.folder)) == ["m0", "m1", "m2"]


# ---- odd requests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /v1/track HTTP/1.0\r\ncontent-length: 2\r\n\r\n{}", b"200 OK"),
        (b"POST /v1/track HTTP/1.0\r\nconnection: close\r\n\r\n", b"400 Bad Request"),
        (b"HEAD /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b"200 OK"),
        (b"HEAD /v1/track HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b"405 Method Not Allowed"),
        (b"POST /v1/track HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n" + REST,
         b"100 Continue\r\n\r\nHTTP/1.1 200 OK"),
        (b"POST /v1/track HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9999999\r\n\r\n",
         b"413 Request Entity Too Large"),
        ("POST /v1/track HTTP/1.1\r\nhost: é\r\nauthorization: Basic é\r\nx-signature: é\r\nconnection: close\r\n"
         "content-length: 2\r\n\r\n{}".encode(), b"200 OK"),
        ("POST /v1/track HTTP/1.1\r\nhost: x\r\norigin: é\tb\r\n".encode() + REST,
         b"200 OK"),
        (b"POST /v1/track HTTP/1.1\r\nhost: x\r\norigin: \x7f\x01\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}",
         b"400 Bad Request"),
        (b"POST /hook/segment/" + b"a" * 65 + b"" + HEAD + REST,
         b"404 Not Found"),
        (b"POST /" + b"a" * 60_000 + b"" + HEAD + REST,
         b"404 Not Found"),
        (b"POST http://x/v1/track" + HEAD + REST, b"200 OK"),
        (b"POST *" + HEAD + REST, b"404 Not Found"),
        (b"GET /v1/track" + HEAD + b"upgrade: websocket\r\nconnection: upgrade, close\r\n\r\n", b"405 Method"),
        (b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b"40"),
    ],
)  # fmt: skip
def test_malformed_requests_are_answered_and_the_receiver_works_on(odd: Receiver, sent: bytes, status: bytes) -> None:
    found = answers(odd, sent)
    assert found.startswith(b"HTTP/1.1 " + status), found
    assert odd.post("/v1/track", track(1)).status_code == 200


OFFER = b"upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABk\r\n"
OFFERS = [
    b"POST /v1/track" + HEAD + OFFER + b"content-length: %d\r\n\r\n%b",
    b"POST /v1/track" + HEAD + OFFER + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("pieces", [1, 7, 400], ids="in {} pieces".format)
def test_an_offer_of_another_protocol_is_not_taken(odd: Receiver, pieces: int) -> None:
    """Java's HTTP client offers HTTP/2 with each request, and goes on in HTTP/1.1."""
    bodies = [json.dumps(track(number)).encode() for number in range(4)]
    sent = b"".join(offer % (len(body), body) for offer, body in zip(OFFERS * 2, bodies, strict=True))
    sent += b"POST /v1/track" + HEAD + OFFER + REST  # the last one asks to close
    size = len(sent) // pieces + 1
    with connect(odd) as connection:
        for start in range(0, len(sent), size):
            connection.sendall(sent[start : start + size])
            time.sleep(0.0005)
        found = connection.makefile("rb").read()
    assert found.count(b"HTTP/1.1 200 OK") == found.count(b"HTTP/1.1") == 5
    publish_open(odd.folder)
    assert {f"m{number}" for number in range(4)} <= {one.get("messageId") for one in published(odd.folder)}


QUICK_IDLE = "from autopilothq.receive import server\nserver.IDLE_TIME = 1"


def test_empty_lines_do_not_keep_a_connection() -> None:
    request = b"POST /v1/track" + HEAD + b"content-length: 2\r\n\r\n{}"
    with receiver(before=QUICK_IDLE) as running, connect(running) as connection:
        for _ in range(2):  # old clients may send an empty line after a body
            connection.sendall(request)
            found = b""
            while not found.endswith(b"}"):
                found += connection.recv(1000)
            assert found.startswith(b"HTTP/1.1 200 OK")
            connection.sendall(b"\r\n")
        assert connection.recv(1000) == b""
        running.stop()
